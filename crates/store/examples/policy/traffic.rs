//! Generated CDN traffic: web, image, video and download requests, and a mix of them, over days.
//!
//! It answers what a node is asked for and when: [`traffic`] is an endless iterator of [`Request`]s in the order of
//! time, the same for the same seed. It knows nothing of caches. It uses only the standard library and no other file,
//! so that another bench can include it.
//!
//! ```text
//! arrivals ─► title ─► session of one piece or many ─► requests, merged by time
//! ```
//!
//! - **Arrivals** follow the day and burst minute by minute.
//! - A **title** (a page's object, a picture, a video, a file) is one of three: asked for once and never again; an
//!   echo of one asked for shortly before; or drawn by popularity from ranks that fall like 1 / rank^alpha. A rank is
//!   held by one title after the other: each rises for a lifetime and falls for another, so popularity drifts; and a
//!   third of the ranks each belong to another part of the world and have their busy hours at another time.
//! - The **size** of a title is log-normal around a median that grows with its rank: popularity and size are jointly
//!   distributed.
//! - A video or a file is stored as slices of [`SLICE_BYTES`]. A **session** asks for them from the first on, at the
//!   pace of its viewer, and stops early or not.
//!
//! Numbers come from these publications and are marked by the letter; everything else is chosen, which is why the
//! bench also prints what came out of it, and a class in which size and popularity have nothing to do with one another.
//!
//! - \[B] Breslau and others, *Web Caching and Zipf-like Distributions: Evidence and Implications*, INFOCOM 1999: alpha
//!   from 0.64 to 0.83 at six proxies; a weak correlation of popularity and size, which is why `flat` exists.
//! - \[C] Cha and others, *I Tube, You Tube, Everybody Tubes*, IMC 2007: 10 % of the videos get 80 % of the views.
//! - \[F] Finamore and others, *YouTube Everywhere*, IMC 2011: 60 % of videos are watched for no more than 20 % of
//!   their duration.
//! - \[H] HTTP Archive, *Web Almanac 2024*, page weight, median desktop home page: 613 KB in 24 scripts, 1,054 KB in 18
//!   images; hence 26 and 59 KB on average.
//! - \[M] Mahanti, Williamson and Eager, *Traffic Analysis of a Web Proxy Caching Hierarchy*, IEEE Network 2000: about
//!   70 % of the documents are asked for once; sizes have a heavy tail.
//! - \[T] Traverso and others, *Temporal Locality in Today's Content Caching*, CCR 2013: contents live and die, and a
//!   model with a lifetime for each predicts caches better than a fixed popularity.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::f64::consts::TAU;

/// Bytes of a slice, the last of a title excepted.
pub(crate) const SLICE_BYTES: u64 = 1 << 20;

/// A day in milliseconds.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// The busiest hour of the day, and by how much the rate swings around its mean (chosen).
const PEAK_MS: f64 = 20.0 * 3_600_000.0;
const DAY_SWING: f64 = 0.6;

/// Spread of the rate from minute to minute: sigma of a log-normal factor (chosen).
const MINUTE_SIGMA: f64 = 0.4;

/// By how much the popularity of a rank swings with the day of its part of the world (chosen).
const REGION_SWING: f64 = 0.5;

/// How many titles back an echo may reach (chosen).
const ECHO_TITLES_MAX: usize = 4096;

/// Bits of an object's number that count its slices, and those that count the titles of a rank.
const SLICE_BITS: u32 = 20;
const GENERATION_BITS: u32 = 12;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Milliseconds since the beginning; never decreasing.
    pub(crate) time_ms: u64,
    /// The object asked for, a slice being one: distinct between classes, not dense.
    pub(crate) object: u64,
    /// Its size, at least 1; an object's size never changes.
    pub(crate) bytes: u64,
}

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Pages, scripts, styles, API answers.
    Web,
    /// Pictures, many of them small.
    Image,
    /// Videos in slices, watched from the start.
    Video,
    /// Large files in slices, most of them fetched to the end.
    Download,
    /// All four on one node.
    Mix,
    /// Web, but with sizes that have nothing to do with popularity.
    Flat,
}

impl Class {
    /// All classes, in the order in which the bench prints them.
    pub(crate) const ALL: [Class; 6] =
        [Class::Web, Class::Image, Class::Video, Class::Download, Class::Mix, Class::Flat];

    /// The name, as printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Web => "web",
            Class::Image => "image",
            Class::Video => "video",
            Class::Download => "download",
            Class::Mix => "mix",
            Class::Flat => "flat",
        }
    }
}

/// Endless traffic of a class with about `requests_per_day` requests in each day. Cost: a table of 8 bytes per rank, of
/// which there are fewer than a third of the requests of a day; then a logarithm of it per request.
pub(crate) fn traffic(class: Class, requests_per_day: u64, seed: u64) -> Traffic {
    // Shares of the requests in the mix are chosen: by bytes, nearly all of it is video and downloads.
    let sources: Vec<Source> = match class {
        Class::Web => vec![Source::new(&WEB, 1.0, requests_per_day, seed)],
        Class::Image => vec![Source::new(&IMAGE, 1.0, requests_per_day, seed)],
        Class::Video => vec![Source::new(&VIDEO, 1.0, requests_per_day, seed)],
        Class::Download => vec![Source::new(&DOWNLOAD, 1.0, requests_per_day, seed)],
        Class::Flat => vec![Source::new(&FLAT, 1.0, requests_per_day, seed)],
        Class::Mix => [(&WEB, 0.45), (&IMAGE, 0.3), (&VIDEO, 0.15), (&DOWNLOAD, 0.1)]
            .map(|(shape, share)| Source::new(shape, share, requests_per_day, seed))
            .into(),
    };
    Traffic { sources }
}

// --- Shapes ---

/// How a class behaves.
struct Shape {
    /// Highest bits of its objects' numbers.
    tag: u64,
    /// Exponent of the popularity by rank.
    alpha: f64,
    /// Ranks per request of a day.
    ranks_per_request: f64,
    /// Share of the arrivals that ask for a title nobody asks for again.
    once: f64,
    /// Share that repeats a title of shortly before.
    echo: f64,
    /// Share of the ranks whose title never changes.
    lasting: f64,
    /// Mean time in which a title rises, and in which it falls.
    lifetime_hours: f64,
    /// Median size of the rarest titles.
    median_bytes: f64,
    /// Sigma of the log-normal distribution around the median.
    sigma: f64,
    /// How much larger the rarest titles are than the most popular one, by the median.
    growth: f64,
    /// Largest size.
    bytes_max: f64,
    /// How it is stored and asked for.
    access: Access,
}

#[derive(Clone, Copy)]
enum Access {
    Whole,
    /// Slices, one each `gap_ms` for the mean viewer; `stay` gives the share that is watched.
    Slices {
        gap_ms: f64,
        stay: fn(&mut Random) -> f64,
    },
}

// alpha: the upper end of [B]. once: so that about 70 % of the objects of a day are asked for once [M], the tail of
// the ranks included. Sizes: a mean of 26 KB [H] and a sigma with a heavy tail [M]: 26 KB = median * exp(sigma^2 / 2).
// That titles change [T]; how fast, how many, and how much smaller the popular are is chosen.
const WEB: Shape = Shape {
    tag: 1,
    alpha: 0.83,
    ranks_per_request: 0.15,
    once: 0.2,
    echo: 0.1,
    lasting: 0.5,
    lifetime_hours: 8.0,
    median_bytes: 7_000.0,
    sigma: 1.6,
    growth: 8.0,
    bytes_max: 64e6,
    access: Access::Whole,
};

// As web, with a mean of 59 KB [H], more titles and a flatter popularity within [B].
const IMAGE: Shape = Shape {
    tag: 2,
    alpha: 0.75,
    ranks_per_request: 0.3,
    once: 0.25,
    echo: 0.1,
    lasting: 0.5,
    lifetime_hours: 12.0,
    median_bytes: 20_000.0,
    sigma: 1.45,
    growth: 6.0,
    bytes_max: 64e6,
    access: Access::Whole,
};

// alpha: near [C], see the test. Watched as in [F]. Size: two minutes at 4 Mbit/s, hence 2.1 s per slice (chosen).
const VIDEO: Shape = Shape {
    tag: 3,
    alpha: 1.0,
    ranks_per_request: 0.008,
    once: 0.05,
    echo: 0.1,
    lasting: 0.3,
    lifetime_hours: 24.0,
    median_bytes: 60e6,
    sigma: 1.0,
    growth: 1.0,
    bytes_max: 8e9,
    access: Access::Slices { gap_ms: 2_100.0, stay: watched },
};

// All chosen: few titles, steep popularity, 50 Mbit/s, four of five are fetched to the end.
const DOWNLOAD: Shape = Shape {
    tag: 4,
    alpha: 1.0,
    ranks_per_request: 0.004,
    once: 0.1,
    echo: 0.1,
    lasting: 0.7,
    lifetime_hours: 48.0,
    median_bytes: 20e6,
    sigma: 1.6,
    growth: 1.0,
    bytes_max: 8e9,
    access: Access::Slices { gap_ms: 170.0, stay: fetched },
};

const FLAT: Shape = Shape { tag: 5, growth: 1.0, ..WEB };

/// Share of a video that is watched [F].
fn watched(random: &mut Random) -> f64 {
    let share = random.unit();
    if random.unit() < 0.6 { 0.2 * share } else { 0.2 + 0.8 * share }
}

/// Share of a file that is fetched.
fn fetched(random: &mut Random) -> f64 {
    if random.unit() < 0.8 { 1.0 } else { random.unit() }
}

// --- Sources ---

/// See [`traffic`].
pub(crate) struct Traffic {
    sources: Vec<Source>,
}

impl Iterator for Traffic {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        self.sources.iter_mut().min_by_key(|source| source.next_ms()).map(Source::request)
    }
}

/// One class's arrivals and running sessions.
struct Source {
    shape: &'static Shape,
    seed: u64,
    random: Random,
    /// Cumulated weights of the ranks.
    weights: Vec<f64>,
    sessions_per_ms: f64,
    /// When the next session begins.
    arrival_ms: f64,
    sessions: BinaryHeap<Reverse<Session>>,
    /// Sessions begun; and titles that were asked for once.
    begun: u64,
    once: u64,
    recent: VecDeque<Title>,
}

/// Compares by time, then by the order of beginning.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    next_ms: u64,
    number: u64,
    title: Title,
    slice: u64,
    slices: u64,
    gap_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Title {
    /// Number of its first object.
    object: u64,
    bytes: u64,
}

impl Source {
    fn new(shape: &'static Shape, share: f64, requests_per_day: u64, seed: u64) -> Self {
        let mut source = Source {
            shape,
            seed: mix(seed ^ shape.tag << 56),
            random: Random(mix(seed ^ shape.tag)),
            weights: Vec::new(),
            sessions_per_ms: 1.0,
            arrival_ms: 0.0,
            sessions: BinaryHeap::new(),
            begun: 0,
            once: 0,
            recent: VecDeque::new(),
        };
        let requests = requests_per_day as f64 * share;
        let ranks = (requests * shape.ranks_per_request).ceil().clamp(1.0, 1e8) as u64;
        let weights = (1..=ranks).scan(0.0, |sum, rank| {
            *sum += (rank as f64).powf(-shape.alpha);
            Some(*sum)
        });
        source.weights = weights.collect();
        source.sessions_per_ms = requests / source.mean_slices() / DAY_MS as f64;
        source.begin();
        source
    }

    /// Mean requests of a session in the first day, by trying.
    fn mean_slices(&mut self) -> f64 {
        const TRIES: u64 = 20_000;
        let mut slices = 0;
        for number in 0..TRIES {
            self.arrival_ms = (number * DAY_MS / TRIES) as f64;
            let title = match self.random.unit() < self.shape.once {
                true => self.title_of(self.weights.len() as u64 + number, 0),
                false => self.popular(),
            };
            slices += slices_asked(self.shape, title.bytes, &mut self.random);
        }
        self.arrival_ms = 0.0;
        slices as f64 / TRIES as f64
    }

    /// When `request` will be.
    fn next_ms(&self) -> u64 {
        self.sessions.peek().map_or(u64::MAX, |Reverse(session)| session.next_ms)
    }

    /// The next request. There always is one: the session that begins next is kept among the running.
    fn request(&mut self) -> Request {
        let Some(Reverse(mut session)) = self.sessions.pop() else { unreachable!("a session is to begin") };
        let title = session.title;
        let request = Request {
            time_ms: session.next_ms,
            object: title.object + session.slice,
            bytes: match self.shape.access {
                Access::Whole => title.bytes,
                Access::Slices { .. } => (title.bytes - session.slice * SLICE_BYTES).min(SLICE_BYTES),
            },
        };
        let is_newest = session.number == self.begun && session.slice == 0;
        session.slice += 1;
        session.next_ms += session.gap_ms;
        if session.slice < session.slices {
            self.sessions.push(Reverse(session));
        }
        if is_newest {
            self.begin();
        }
        request
    }

    /// Lets the next session begin, at its time.
    fn begin(&mut self) {
        let wait = -(1.0 - self.random.unit()).ln() / (self.sessions_per_ms * self.rate());
        self.arrival_ms += wait;
        let title = self.title();
        self.begun += 1;
        let gap_ms = match self.shape.access {
            Access::Whole => 0.0,
            Access::Slices { gap_ms, .. } => gap_ms * (2.0 * self.random.unit() - 1.0).exp2(),
        };
        self.sessions.push(Reverse(Session {
            next_ms: self.arrival_ms as u64,
            number: self.begun,
            title,
            slice: 0,
            slices: slices_asked(self.shape, title.bytes, &mut self.random),
            gap_ms: gap_ms as u64,
        }));
    }

    /// The rate of arrivals now, around 1.
    fn rate(&self) -> f64 {
        let day = 1.0 + DAY_SWING * (TAU * (self.arrival_ms - PEAK_MS) / DAY_MS as f64).cos();
        let minute = Random(mix(self.seed ^ (self.arrival_ms / 60_000.0) as u64)).normal();
        day * (MINUTE_SIGMA * minute - MINUTE_SIGMA * MINUTE_SIGMA / 2.0).exp()
    }

    fn title(&mut self) -> Title {
        let kind = self.random.unit();
        if kind < self.shape.once {
            self.once += 1;
            return self.title_of(self.weights.len() as u64 + self.once, 0);
        }
        let back = (self.random.unit() * (ECHO_TITLES_MAX as f64).ln()).exp() as usize;
        let title = match self.recent.get(back - 1) {
            Some(title) if kind < self.shape.once + self.shape.echo => *title,
            _ => self.popular(),
        };
        self.recent.push_front(title);
        self.recent.truncate(ECHO_TITLES_MAX);
        title
    }

    /// A title by its popularity at this time.
    fn popular(&mut self) -> Title {
        const TRIES: usize = 16;
        let day = self.arrival_ms / DAY_MS as f64;
        let mut rank = 0;
        for _ in 0..TRIES {
            let point = self.random.unit() * self.weights.last().copied().unwrap_or(0.0);
            rank = self.weights.partition_point(|weight| *weight <= point) as u64;
            let region = (mix(self.seed ^ rank) % 3) as f64 / 3.0;
            let activity = (1.0 + REGION_SWING * (TAU * (day - region)).cos()) / (1.0 + REGION_SWING);
            if self.random.unit() < activity {
                break;
            }
        }
        let mut fixed = Random(mix(self.seed ^ rank << 8));
        if fixed.unit() < self.shape.lasting {
            return self.title_of(rank, 0);
        }
        // Two titles share the rank: one falls while its successor rises.
        let lifetime_ms = self.shape.lifetime_hours * 3_600_000.0 * (0.5 + fixed.unit());
        let age = self.arrival_ms / lifetime_ms + fixed.unit();
        let is_successor = self.random.unit() < age.fract();
        self.title_of(rank, 1 + age as u64 + u64::from(is_successor))
    }

    fn title_of(&self, rank: u64, generation: u64) -> Title {
        let generation = generation % (1 << GENERATION_BITS);
        let object = self.shape.tag << 60 | (rank << GENERATION_BITS | generation) << SLICE_BITS;
        let ranks = self.weights.len() as f64;
        let rareness = ((rank + 1) as f64).ln() / (ranks + 1.0).ln();
        Title { object, bytes: self.size(object, rareness.min(1.0)) }
    }

    /// The size of the title with this number: `rareness` is 0 for the first rank and 1 for the last.
    fn size(&self, object: u64, rareness: f64) -> u64 {
        let normal = Random(mix(self.seed ^ object)).normal();
        let median = self.shape.median_bytes * self.shape.growth.powf(rareness - 1.0);
        (median * (self.shape.sigma * normal).exp()).clamp(100.0, self.shape.bytes_max) as u64
    }
}

/// How many requests a session makes for a title.
fn slices_asked(shape: &Shape, bytes: u64, random: &mut Random) -> u64 {
    match shape.access {
        Access::Whole => 1,
        Access::Slices { stay, .. } => {
            let slices = bytes.div_ceil(SLICE_BYTES);
            ((slices as f64 * stay(random)).ceil() as u64).clamp(1, slices)
        }
    }
}

// --- Chance ---

/// A sequence of numbers that look random.
struct Random(u64);

impl Random {
    /// Uniform, from 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

/// Spreads a number over all 64 bits, one to one.
pub(crate) fn mix(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn day(class: Class, requests: u64) -> Vec<Request> {
        traffic(class, requests, 1).take_while(|request| request.time_ms < DAY_MS).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_traffic_in_the_order_of_time() {
        for class in Class::ALL {
            let requests: Vec<_> = traffic(class, 100_000, 7).take(20_000).collect();
            assert!(requests.iter().copied().eq(traffic(class, 100_000, 7).take(20_000)));
            assert!(!requests.iter().copied().eq(traffic(class, 100_000, 8).take(20_000)));
            assert!(requests.is_sorted_by_key(|request| request.time_ms), "{class:?}");
        }
    }

    #[test]
    fn an_object_has_one_size_and_a_day_about_as_many_requests_as_asked_for() {
        for class in Class::ALL {
            let requests = day(class, 50_000);
            assert!((30_000..80_000).contains(&requests.len()), "{class:?}: {}", requests.len());
            let mut sizes = HashMap::new();
            for request in requests {
                assert_eq!(*sizes.entry(request.object).or_insert(request.bytes), request.bytes);
                assert!(request.bytes > 0);
            }
        }
    }

    /// How often each object is asked for, and its size.
    fn counts(requests: &[Request]) -> HashMap<u64, (u64, u64)> {
        let mut counts = HashMap::new();
        for request in requests {
            counts.entry(request.object).or_insert((0, request.bytes)).0 += 1;
        }
        counts
    }

    #[test]
    fn most_objects_of_web_and_image_are_asked_for_once() {
        for class in [Class::Web, Class::Image, Class::Flat] {
            let counts = counts(&day(class, 100_000));
            let once = counts.values().filter(|(count, _)| *count == 1).count() as f64 / counts.len() as f64;
            assert!((0.65..0.8).contains(&once), "{class:?}: {once}");
        }
    }

    #[test]
    fn popular_objects_are_smaller_but_for_flat_and_means_are_the_published_ones() {
        let means = |class| {
            let requests = day(class, 200_000);
            let counts = counts(&requests);
            let per_object =
                counts.values().map(|(_, bytes)| bytes).sum::<u64>() as f64 / counts.len() as f64;
            let often = counts.values().filter(|(count, _)| *count >= 10);
            let (count, bytes) = often.fold((0, 0), |sums, (_, bytes)| (sums.0 + 1, sums.1 + bytes));
            (per_object, bytes as f64 / f64::from(count))
        };
        for (class, published) in [(Class::Web, 26e3), (Class::Image, 59e3)] {
            let (all, often) = means(class);
            assert!(
                (0.8..1.2).contains(&(all / published)) && often < 0.75 * all,
                "{class:?}: {all} {often}"
            );
        }
        let (all, often) = means(Class::Flat);
        assert!((0.7..1.4).contains(&(often / all)), "{all} {often}");
    }

    #[test]
    fn a_tenth_of_the_videos_has_most_views_and_most_are_left_early() {
        let mut source = Source::new(&VIDEO, 1.0, 2_000_000, 1);
        let mut views = HashMap::new();
        let (mut early, mut sessions) = (0, 0);
        while source.begun < 20_000 {
            let Some(Reverse(session)) = source.sessions.pop() else { unreachable!() };
            *views.entry(session.title.object).or_insert(0u64) += 1;
            early += u64::from(
                session.slices as f64 <= 0.2 * session.title.bytes as f64 / SLICE_BYTES as f64 + 1.0,
            );
            sessions += 1;
            source.begin();
        }
        let mut views: Vec<u64> = views.into_values().collect();
        views.sort_unstable_by_key(|count| Reverse(*count));
        let share = views[..views.len() / 10].iter().sum::<u64>() as f64 / sessions as f64;
        assert!((0.6..0.85).contains(&share), "{share}");
        let early = early as f64 / sessions as f64;
        assert!((0.55..0.7).contains(&early), "{early}");
    }

    #[test]
    fn slices_are_asked_for_in_order_and_only_the_last_is_smaller() {
        for class in [Class::Video, Class::Download] {
            let mut reached = HashMap::new();
            for request in day(class, 50_000) {
                let (title, slice) = (request.object >> SLICE_BITS, request.object & ((1 << SLICE_BITS) - 1));
                let slices: &mut u64 = reached.entry(title).or_default();
                assert!(slice <= *slices && request.bytes <= SLICE_BYTES);
                *slices = (*slices).max(slice + 1);
            }
        }
    }

    #[test]
    fn the_evening_is_busier_than_the_morning_and_popularity_drifts() {
        let requests = day(Class::Web, 200_000);
        let hour = |hour| move |request: &&Request| request.time_ms / 3_600_000 == hour;
        let busy = |at| requests.iter().filter(hour(at)).count() as f64;
        assert!(busy(20) > 2.0 * busy(8), "{} {}", busy(20), busy(8));
        let top = |quarter: u64| {
            let asked = requests.iter().filter(|request| request.time_ms / (DAY_MS / 4) == quarter).copied();
            let mut objects: Vec<(u64, (u64, u64))> =
                counts(&asked.collect::<Vec<_>>()).into_iter().collect();
            objects.sort_unstable_by_key(|(object, (count, _))| (Reverse(*count), *object));
            objects[..200].iter().map(|(object, _)| *object).collect::<HashSet<_>>()
        };
        let common = top(0).intersection(&top(3)).count();
        assert!((20..150).contains(&common), "{common} of 200 are popular all day");
    }
}
