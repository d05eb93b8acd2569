//! What `bench/rollups.sh` measures: a database as control would have filled it in thirteen months, and what a dashboard asks of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::params;
use semantics::Why;
use stats::{Class, Country, Entry, Histogram, ListKind, TopList};

use super::cells::{Bucket, Coord, Dim, Dims, Sums};
use super::database::{self, Database};
use super::{Ask, Names, STEPS, TopAsk, VIEWS, query, top};

/// A cluster, and how much of each step there is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sites.
    pub sites: u32,
    /// PoPs.
    pub pops: u32,
    /// Days of hours.
    pub days: i64,
    /// Hours of minutes.
    pub minute_hours: i64,
    /// Minutes of seconds.
    pub second_minutes: i64,
}

/// Values of each dimension in a cell's neighbourhood: visitors of a site come from so many countries, and so on.
const COUNTRIES: u32 = 20;
const CLASSES: u32 = 8;
const RULES: u32 = 4;
const STATUSES: u32 = 4;
const WHYS: u32 = 8;

/// Buckets in a transaction.
const TOGETHER: i64 = 64;

/// A fixed sequence of numbers that look like chance.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// The second at which the database ends: noon of a day in 2027.
const NOW: i64 = 20_800 * 86_400 + 43_200;

/// Fills a new database. Returns its bytes.
///
/// # Errors
/// In words.
pub fn fill(path: &Path, shape: Shape) -> Result<u64, String> {
    try_fill(path, shape).map_err(|error| error.to_string())?;
    let size = |ending: &str| {
        let mut file = path.as_os_str().to_owned();
        file.push(ending);
        std::fs::metadata(file).map_or(0, |found| found.len())
    };
    Ok(size("") + size("-wal"))
}

fn try_fill(path: &Path, shape: Shape) -> rusqlite::Result<()> {
    let names = Mutex::new(Names::default());
    let mut database = Database::open(path, &mut names.lock())?;
    let numbers = {
        let mut work = database.begin(&names)?;
        let mut number = |kind: &str, count: u32| {
            (0..count)
                .map(|index| work.number(&format!("{kind}-{index}")))
                .collect::<rusqlite::Result<Vec<u32>>>()
        };
        let (sites, pops) = (number("site", shape.sites)?, number("pop", shape.pops)?);
        let whys = Why::ALL.iter().take(WHYS as usize).map(|why| work.number(why.as_str()));
        let whys = whys.collect::<rusqlite::Result<Vec<u32>>>()?;
        work.commit()?;
        (sites, pops, whys)
    };
    let mut draw = Draw(7);
    let hour = NOW.div_euclid(3_600) * 3_600;
    let day = NOW.div_euclid(86_400) * 86_400;
    // Step, end, buckets, requests of a site in a PoP in one.
    for (step, end, count, requests) in [
        (3, day, shape.days, 100_000),
        (2, hour, shape.days * 24 + 12, 4_000),
        (1, NOW, shape.minute_hours * 60, 70),
        (0, NOW, shape.second_minutes * 60, 2),
    ] {
        let begin = end - count * STEPS[step];
        for first in (0..count).step_by(TOGETHER as usize) {
            let mut work = database.begin(&names)?;
            for bucket in first..count.min(first + TOGETHER) {
                let at = begin + bucket * STEPS[step];
                for view in VIEWS {
                    let content = match *view == Dims::ALL {
                        true => Bucket::TooMany.write(*view),
                        false => cells(*view, &numbers, requests, &mut draw).write(*view),
                    };
                    work.add(step, i64::from(view.0), at, &content)?;
                }
                if step > 0 {
                    work.add(step, top::view_of(0, 0), at, &top::write_list(&list(&numbers.0, &mut draw)))?;
                }
            }
            work.commit()?;
        }
    }
    let rolled = [NOW.div_euclid(60) * 60, hour, day];
    database.set_rolled(rolled)
}

fn cells(
    view: Dims,
    (sites, pops, whys): &(Vec<u32>, Vec<u32>, Vec<u32>),
    requests: u64,
    draw: &mut Draw,
) -> Bucket {
    let values = |dim: Dim| -> Vec<u32> {
        let country = |number: u32| Country::of([b'A' + (number % 26) as u8, b'E']).number().into();
        match dim {
            _ if !view.has(dim) => vec![0],
            Dim::Site => sites.clone(),
            Dim::Pop => pops.clone(),
            Dim::Country => (0..COUNTRIES).map(country).collect(),
            Dim::Class => (0..CLASSES.min(Class::ALL.len() as u32)).collect(),
            Dim::Rule => (0..RULES).collect(),
            Dim::Status => (2..2 + STATUSES).collect(),
            Dim::Why => whys.clone(),
        }
    };
    let mut coords = vec![Coord::default()];
    for dim in Dim::ALL {
        let values = values(dim);
        coords = coords
            .into_iter()
            .flat_map(|coord| {
                values.iter().map(move |value| {
                    let mut coord = coord;
                    coord.0[dim as usize] = *value;
                    coord
                })
            })
            .collect();
    }
    // What a view does not tell apart adds up in it.
    let pairs = (sites.len() * pops.len()) as u64;
    let each = (requests * pairs / coords.len() as u64).max(1);
    Bucket::Cells(coords.into_iter().map(|coord| (coord, sums(each, draw))).collect::<HashMap<_, _>>())
}

fn sums(requests: u64, draw: &mut Draw) -> Sums {
    let requests = 1 + draw.below(2 * requests);
    let mut first_byte = Histogram::default();
    // Hits near 200 µs, misses near 50 ms, each over a dozen buckets.
    let buckets = requests.min(24);
    for bucket in 0..buckets {
        let at = if bucket % 3 == 2 { 52 } else { 22 } + draw.below(12);
        first_byte.add(at as usize, requests / buckets);
    }
    Sums {
        requests,
        hits: requests * 9 / 10,
        errors: requests / 500,
        bytes: requests * 18_000,
        hit_bytes: requests * 15_000,
        origin_requests: requests / 10,
        origin_bytes: requests * 2_000,
        first_byte,
    }
}

fn list(sites: &[u32], draw: &mut Draw) -> TopList {
    let entry = |rank: u64, draw: &mut Draw| Entry {
        of: stats::sketch::Of { site: sites[draw.below(sites.len() as u64) as usize], why: None },
        url: format!("https://www.site-{}.example/images/{:08x}.jpg", rank % 97, rank * 7_919 % 4_000),
        count: 1_000_000 / (rank + 1),
        over: draw.below(10),
        other: draw.below(1_000_000_000),
    };
    TopList { floor: 100, entries: (0..200).map(|rank| entry(rank, draw)).collect() }
}

/// How long a question took, in ms: the slowest answer, and the processor's part of it. They differ where others use the processor too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// By the clock.
    pub wall_ms: f64,
    /// Of this thread on a processor; 0 where the system does not say.
    pub cpu_ms: f64,
}

/// Asks what a dashboard asks, `rounds` times each: the name of the question, and what the slowest answer took.
///
/// # Errors
/// In words.
pub fn ask(path: &Path, shape: Shape, rounds: usize) -> Result<Vec<(&'static str, Took)>, String> {
    let names = Mutex::new(Names::default());
    drop(Database::open(path, &mut names.lock()).map_err(|error| error.to_string())?);
    let reader = database::open_reader(path).map_err(|error| error.to_string())?;
    let of = |dim: Dim, value: &str| BTreeMap::from([(dim, vec![value.to_owned()])]);
    let (day, none) = (86_400, BTreeMap::new());
    let questions = [
        ("13_months_all", shape.days * day, None, none.clone()),
        ("13_months_by_site", shape.days * day, Some(Dim::Site), none.clone()),
        ("13_months_by_pop", shape.days * day, Some(Dim::Pop), none.clone()),
        ("13_months_by_country", shape.days * day, Some(Dim::Country), none.clone()),
        ("13_months_by_pop_of_a_site", shape.days * day, Some(Dim::Pop), of(Dim::Site, "site-7")),
        ("13_months_by_site_of_a_pop", shape.days * day, Some(Dim::Site), of(Dim::Pop, "pop-7")),
        ("month_by_pop", 31 * day, Some(Dim::Pop), none.clone()),
        ("month_by_why_of_a_site", 31 * day, Some(Dim::Why), of(Dim::Site, "site-7")),
        ("month_by_country_of_a_pop", 31 * day, Some(Dim::Country), of(Dim::Pop, "pop-7")),
        ("half_day_by_class", shape.minute_hours.min(12) * 3_600, Some(Dim::Class), none.clone()),
        (
            "half_day_by_pop_of_a_site",
            shape.minute_hours.min(12) * 3_600,
            Some(Dim::Pop),
            of(Dim::Site, "site-7"),
        ),
        ("15_minutes_all", 900, None, none.clone()),
        ("15_minutes_by_pop", 900, Some(Dim::Pop), none.clone()),
        ("15_minutes_by_site", 900, Some(Dim::Site), none),
        ("15_minutes_by_why_of_a_site", 900, Some(Dim::Why), of(Dim::Site, "site-7")),
    ];
    let mut slowest = Vec::new();
    for (name, back, by, filters) in questions {
        let ask = Ask { from: NOW - back, to: NOW, step: None, by, filters, with_points: true, now: NOW };
        slowest.push((name, time(rounds, || query::answer(&reader, &names, &ask).map(drop))?));
    }
    let ask = TopAsk {
        from: NOW - shape.days * day,
        to: NOW,
        now: NOW,
        kind: Some(ListKind::UrlsByRequests),
        sites: None,
        pops: None,
        limit: 20,
    };
    slowest.push(("13_months_top_urls", time(rounds, || top::answer(&reader, &names, &ask).map(drop))?));
    Ok(slowest)
}

fn time(rounds: usize, ask: impl Fn() -> Result<(), query::CannotSay>) -> Result<Took, String> {
    let mut slowest = Took::default();
    // The first one reads the file.
    for round in 0..=rounds {
        let (begun, cpu) = (Instant::now(), cpu_ms());
        ask().map_err(|cannot| format!("{cannot:?}"))?;
        if round > 0 {
            slowest.wall_ms = slowest.wall_ms.max(begun.elapsed().as_secs_f64() * 1e3);
            slowest.cpu_ms = slowest.cpu_ms.max(cpu_ms() - cpu);
        }
    }
    Ok(slowest)
}

/// What this thread has had of processors so far (`/proc/thread-self/schedstat`: its first number, in ns).
fn cpu_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e6
}

impl Database {
    fn set_rolled(&mut self, until: [i64; 3]) -> rusqlite::Result<()> {
        for (step, until) in until.into_iter().enumerate() {
            self.connection()
                .execute("INSERT OR REPLACE INTO rolled VALUES (?1, ?2)", params![step as i64, until])?;
        }
        Ok(())
    }
}
