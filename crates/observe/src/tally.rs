//! What one worker has counted in the running second, by key, and which URLs it was asked for most; handed over when the second
//! is over. A request costs two look-ups by hash in memory that the worker owns, and one for each list that it is in.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use semantics::cache_status::write_cache_status;
use semantics::{Outcome, Wall, Why};
use stats::histogram::{BUCKETS, bucket_of};
use stats::key::is_hit;
use stats::rum::{self, View, Views};
use stats::sketch::Of;
use stats::{
    Cell, Class, Country, Example, Histogram, Key, LISTS, ListKind, Report, Rule, Sketch, Status, TopList,
};
use twox_hash::XxHash3_64;

use crate::event::{ConnectionUse, Event, FetchEvent};
use crate::registry::Names;

/// Keys that a worker tells apart in one second, but for what sites, reasons and classes of status ask for. What comes beyond is
/// counted without rule, country and class of content.
const KEYS_MAX: usize = 4_096;

/// URLs that a worker remembers in each list of all requests, and of those that were not answered from the cache. An error of a
/// thousandth of the requests at most, where more are asked for than that.
const URLS_MAX: usize = 1_024;
const MISSES_MAX: usize = 512;

/// After how many seconds lists are handed over.
const LISTS_SECS: i64 = 10;

/// URLs of a list that are passed on.
const LISTED_MAX: usize = 200;

/// Cells that may wait to be taken, of all workers and seconds: some 20 MiB. What is more is dropped and counted.
const WAITING_CELLS_MAX: usize = 100_000;

/// URLs of lists and examples that may wait to be taken, of all workers: a turn of 128 workers, some 100 MiB where all are long. What is more
/// is dropped and counted.
const WAITING_URLS_MAX: usize = 200_000;

/// Kinds of page views that may wait; what is of others then is told apart by site alone.
const VIEW_KINDS_MAX: usize = 2_000;

/// Page views that may wait to be taken: ten seconds of 10,000, some 20 MiB. What is more is dropped and counted.
const WAITING_VIEWS_MAX: u64 = 100_000;

/// What workers hand over, until somebody takes it.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    is_on: AtomicBool,
    waiting: Mutex<Waiting>,
    views: Mutex<WaitingViews>,
    lost: AtomicU64,
}

/// Page views, their sites by slot. Beacons are few beside requests, so that workers share them.
#[derive(Debug, Default)]
struct WaitingViews {
    by_kind: HashMap<rum::Of, Views>,
    count: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    handed: Vec<Handed>,
    cells: usize,
    urls: usize,
}

/// What one worker has counted in one second, its sites by slot.
#[derive(Debug)]
struct Handed {
    second: i64,
    cells: Vec<(Key, Cell)>,
    lists: Vec<(ListKind, TopList)>,
    examples: Vec<Example>,
}

impl Statistics {
    pub(crate) fn turn_on(&self) {
        self.is_on.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Seconds of workers that nobody has taken in time.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn hand_over(&self, handed: Handed) {
        let listed: usize = handed.lists.iter().map(|(_, list)| list.entries.len()).sum();
        let mut waiting = self.waiting.lock();
        let cells = waiting.cells + handed.cells.len();
        let urls = waiting.urls + listed + handed.examples.len();
        if cells > WAITING_CELLS_MAX || urls > WAITING_URLS_MAX {
            drop(waiting);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        (waiting.cells, waiting.urls) = (cells, urls);
        waiting.handed.push(handed);
    }

    /// Counts a page view; `false` when there was no room.
    pub(crate) fn count_view(&self, of: rum::Of, view: &View) -> bool {
        let mut waiting = self.views.lock();
        if waiting.count >= WAITING_VIEWS_MAX {
            return false;
        }
        waiting.count += 1;
        let has_room = waiting.by_kind.len() < VIEW_KINDS_MAX || waiting.by_kind.contains_key(&of);
        let of = match has_room {
            true => of,
            false => rum::Of { country: Country::UNKNOWN, group: OTHERS.into(), ..of },
        };
        waiting.by_kind.entry(of).or_default().add(view);
        true
    }

    /// What has been handed over since it was asked last: a report for each second, in order.
    pub(crate) fn take(&self, names: impl Fn() -> Vec<String>) -> Vec<Report> {
        let mut handed = std::mem::take(&mut *self.waiting.lock()).handed;
        handed.sort_by_key(|handed| handed.second);
        let names = if handed.is_empty() { Vec::new() } else { names() };
        let chunks: Vec<&[Handed]> = handed.chunk_by(|one, other| one.second == other.second).collect();
        let newest = chunks.len().saturating_sub(1);
        let reports = chunks.into_iter().enumerate().map(|(index, chunk)| {
            // A beacon is a request, so that a report comes soon after it, and page views go with that.
            let views = if index == newest {
                std::mem::take(&mut *self.views.lock())
            } else {
                WaitingViews::default()
            };
            report_of(chunk, views, &names)
        });
        reports.collect()
    }
}

/// The group of pages of those for which there is no room.
const OTHERS: &str = "(others)";

fn report_of(handed: &[Handed], views: WaitingViews, names: &[String]) -> Report {
    let mut sites = Sites { names, numbers: HashMap::new(), used: Vec::new() };
    let mut cells: HashMap<Key, Cell> = HashMap::new();
    let mut lists: HashMap<ListKind, Vec<TopList>> = HashMap::new();
    let mut examples: HashMap<Option<Why>, Example> = HashMap::new();
    for handed in handed {
        for (key, cell) in &handed.cells {
            cells.entry(Key { site: sites.number(key.site), ..*key }).or_default().merge(cell);
        }
        for (kind, list) in &handed.lists {
            let mut list = list.clone();
            list.entries.iter_mut().for_each(|entry| entry.of.site = sites.number(entry.of.site));
            lists.entry(*kind).or_default().push(list);
        }
        for example in &handed.examples {
            let of = Of { site: sites.number(example.of.site), ..example.of };
            examples.insert(of.why, Example { of, ..example.clone() });
        }
    }
    let lists = LISTS.iter().filter_map(|kind| {
        let mut list = TopList::default();
        list.merge(lists.get(kind)?);
        list.keep(LISTED_MAX);
        Some((*kind, list))
    });
    let mut cells: Vec<(Key, Cell)> = cells.into_iter().collect();
    cells.sort_unstable_by_key(|(key, _)| *key);
    let views = views.by_kind.into_iter();
    let views: Vec<(rum::Of, Views)> =
        views.map(|(of, views)| (rum::Of { site: sites.number(of.site), ..of }, views)).collect();
    Report {
        second: handed.first().map_or(0, |handed| handed.second),
        lists: lists.collect(),
        examples: examples.into_values().collect(),
        views,
        cells,
        sites: sites.used,
    }
}

/// Gives each site that is used a number in the report.
struct Sites<'a> {
    names: &'a [String],
    numbers: HashMap<u32, u32>,
    used: Vec<String>,
}

impl Sites<'_> {
    fn number(&mut self, slot: u32) -> u32 {
        *self.numbers.entry(slot).or_insert_with(|| {
            self.used.push(self.names.get(slot as usize).map_or("-", String::as_str).to_owned());
            self.used.len() as u32 - 1
        })
    }
}

impl Names {
    /// All names, by slot.
    pub(crate) fn to_vec(&self) -> Vec<String> {
        self.slots().map(|(_, name)| name.to_owned()).collect()
    }
}

// --- One worker ---

/// One worker's statistics.
#[derive(Debug)]
pub(crate) struct Tally {
    second: i64,
    cells: Vec<(Key, Counts)>,
    places: HashMap<u64, u32, BuildHasherDefault<Mixing>>,
    last: (u64, u32),
    /// When the lists were begun.
    lists_since: i64,
    lists: [Sketch; LISTS.len()],
    examples: Vec<Example>,
    /// Room for a URL.
    url: Vec<u8>,
}

/// Sums of one key in one second.
#[derive(Debug)]
struct Counts {
    requests: u64,
    bytes: u64,
    origin_requests: u64,
    origin_bytes: u64,
    first_byte: [u32; BUCKETS],
}

/// No key is packed so.
const NOTHING: u64 = u64::MAX;

impl Tally {
    pub(crate) fn new() -> Self {
        Tally {
            second: i64::MIN,
            cells: Vec::new(),
            places: HashMap::default(),
            last: (NOTHING, 0),
            lists_since: i64::MIN,
            lists: LISTS.map(sketch),
            examples: Vec::new(),
            url: Vec::new(),
        }
    }

    /// Counts a finished request.
    pub(crate) fn count(&mut self, event: &Event<'_>, statistics: &Statistics) {
        self.turn(event.wall.secs(), statistics);
        if event.is_probe() {
            return;
        }
        let key = Key {
            site: event.site.0,
            rule: event.rule.map_or(Rule::DEFAULTS, rule),
            country: event.country,
            class: event.class,
            why: Some(event.why),
            status: Status::of(event.status),
        };
        let bytes = event.head_bytes_sent + event.body_bytes_sent;
        let counts = self.counts(key);
        counts.requests += 1;
        counts.bytes += bytes;
        if event.status != 0 {
            counts.first_byte[bucket_of(event.first_byte_us)] += 1;
        }
        if event.target.first() == Some(&b'/') {
            self.list(event, bytes, key.status);
        }
    }

    /// Counts an attempt at an origin that has ended, if it got as far as a connection.
    pub(crate) fn count_fetch(&mut self, event: &FetchEvent, now: Wall, statistics: &Statistics) {
        let Some((site, number)) = event.on_behalf_of else { return };
        if event.connection == ConnectionUse::Missing {
            return;
        }
        self.turn(now.secs(), statistics);
        let counts = self.counts(Key::of_origin(site.0, rule(number)));
        counts.origin_requests += 1;
        counts.origin_bytes += event.bytes_received;
    }

    /// Hands over what is of an earlier second, and lists that are old enough.
    pub(crate) fn turn(&mut self, second: i64, statistics: &Statistics) {
        if second == self.second {
            return;
        }
        if self.lists_since == i64::MIN {
            self.lists_since = second;
        }
        // A clock set back counts as old.
        let is_due = !(0..LISTS_SECS).contains(&second.saturating_sub(self.lists_since));
        self.hand_over(is_due, statistics);
        if is_due {
            self.lists_since = second;
        }
        self.second = second;
    }

    /// Hands over all there is: the worker ends.
    pub(crate) fn hand_over_last(&mut self, statistics: &Statistics) {
        self.hand_over(true, statistics);
    }

    fn hand_over(&mut self, with_lists: bool, statistics: &Statistics) {
        let with_lists = with_lists && self.lists.iter().any(|list| !list.is_empty());
        if self.cells.is_empty() && !with_lists {
            return;
        }
        let mut handed = Handed {
            second: self.second,
            cells: self.cells.drain(..).map(|(key, counts)| (key, counts.cell())).collect(),
            lists: Vec::new(),
            examples: Vec::new(),
        };
        self.places.clear();
        self.last.0 = NOTHING;
        if with_lists {
            let lists = std::mem::replace(&mut self.lists, LISTS.map(sketch));
            let filled = LISTS.into_iter().zip(lists).filter(|(_, list)| !list.is_empty());
            handed.lists = filled
                .map(|(kind, list)| {
                    let mut list = list.into_list();
                    list.keep(LISTED_MAX);
                    (kind, list)
                })
                .collect();
            handed.examples = std::mem::take(&mut self.examples);
        }
        statistics.hand_over(handed);
    }

    fn counts(&mut self, key: Key) -> &mut Counts {
        let packed = pack(key);
        if self.last.0 != packed {
            let place = match self.places.get(&packed) {
                Some(place) => *place,
                None => self.place(key, packed),
            };
            self.last = (packed, place);
        }
        &mut self.cells[self.last.1 as usize].1
    }

    #[cold]
    fn place(&mut self, key: Key, packed: u64) -> u32 {
        let (key, kept) = match self.cells.len() < KEYS_MAX {
            true => (key, packed),
            false => {
                let key = Key { rule: Rule::OTHERS, country: Country::UNKNOWN, class: Class::Other, ..key };
                (key, pack(key))
            }
        };
        if let Some(place) = self.places.get(&kept) {
            return *place;
        }
        let place = self.cells.len() as u32;
        self.cells.push((key, Counts::new()));
        self.places.insert(kept, place);
        place
    }

    fn list(&mut self, event: &Event<'_>, bytes: u64, status: Status) {
        self.url.clear();
        self.url.extend_from_slice(if event.secure { b"https://" } else { b"http://" });
        self.url.extend_from_slice(event.host);
        self.url.extend_from_slice(event.target);
        let hash = XxHash3_64::oneshot(&self.url);
        let of = Of { site: event.site.0, why: None };
        let [by_requests, by_bytes, misses, misses_by_bytes, errors, errors_by_bytes] = &mut self.lists;
        by_requests.count(hash, of, &self.url, 1, bytes);
        by_bytes.count(hash, of, &self.url, bytes, 1);
        if status == Status::ServerError {
            errors.count(hash, of, &self.url, 1, bytes);
            errors_by_bytes.count(hash, of, &self.url, bytes, 1);
        }
        if is_hit(event.why) {
            return;
        }
        let of = Of { why: Some(event.why), ..of };
        if matches!(event.why.outcome(), Outcome::Miss | Outcome::Pass) {
            let hash = hash ^ (event.why as u64 + 1).wrapping_mul(MIX);
            misses.count(hash, of, &self.url, 1, bytes);
            misses_by_bytes.count(hash, of, &self.url, bytes, 1);
        }
        if self.examples.iter().all(|example| example.of.why != of.why) {
            let mut cache_status = Vec::new();
            write_cache_status(&mut cache_status, &event.cache_status);
            let url = &self.url[..self.url.len().min(stats::sketch::URL_BYTES_MAX)];
            self.examples.push(Example {
                of,
                url: String::from_utf8_lossy(url).into_owned(),
                cache_status: String::from_utf8_lossy(&cache_status).into_owned(),
                at_ms: event.wall.0,
            });
        }
    }
}

fn sketch(kind: ListKind) -> Sketch {
    Sketch::new(match kind {
        ListKind::UrlsByRequests | ListKind::UrlsByBytes => URLS_MAX,
        _ => MISSES_MAX,
    })
}

fn rule(number: u32) -> Rule {
    Rule(u16::try_from(number).unwrap_or(u16::MAX))
}

/// All of a key in one number. A slot is below [`crate::SITES_MAX`].
fn pack(key: Key) -> u64 {
    const _: () = assert!(crate::SITES_MAX < 1 << 16 && Why::ALL.len() < 63);
    let why = key.why.map_or(63, |why| why as u64);
    u64::from(key.site) << 45
        | u64::from(key.rule.0) << 29
        | u64::from(key.country.number()) << 13
        | (key.class as u64) << 9
        | why << 3
        | key.status as u64
}

impl Counts {
    fn new() -> Self {
        Counts { requests: 0, bytes: 0, origin_requests: 0, origin_bytes: 0, first_byte: [0; BUCKETS] }
    }

    fn cell(&self) -> Cell {
        Cell {
            requests: self.requests,
            bytes: self.bytes,
            origin_requests: self.origin_requests,
            origin_bytes: self.origin_bytes,
            first_byte: Histogram::of(&self.first_byte),
        }
    }
}

/// Packed keys differ in few bits: a multiplication spreads them. They hold no bytes that a visitor chooses freely.
#[derive(Default)]
struct Mixing(u64);

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Mixing {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(MIX);
        self.0 = mixed ^ (mixed >> 32);
    }
}
