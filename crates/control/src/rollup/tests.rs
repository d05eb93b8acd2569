use std::sync::atomic::{AtomicU32, Ordering};

use stats::sketch::Of;
use stats::{Class, Country, Entry, Example, Histogram, ListKind, Rule, Status, TopList};
use tokio::sync::mpsc;

use super::*;

/// A whole number of days since 1970.
const DAY: i64 = 20_000 * 86_400;

/// A directory that is removed with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("perigee-rollup-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("statistics.sqlite")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key(why: Why, country: &[u8; 2], class: Class, status: u16) -> Key {
    let (country, status) = (Country::of(*country), Status::of(status));
    Key { site: 0, rule: Rule(1), country, class, why: Some(why), status }
}

use semantics::Why;

fn cell(requests: u64, bytes: u64) -> Cell {
    let mut first_byte = Histogram::default();
    first_byte.add(20, requests);
    Cell { requests, bytes, first_byte, ..Cell::default() }
}

fn report(second: i64, site: &str, cells: Vec<(Key, Cell)>) -> Report {
    Report { second, sites: vec![site.to_owned()], cells, ..Report::default() }
}

/// The database as its thread has it, with time in the test's hand.
struct Bench {
    place: Place,
    database: Database,
    names: Mutex<Names>,
}

impl Bench {
    fn new() -> Bench {
        let (place, names) = (Place::new(), Mutex::new(Names::default()));
        let database = Database::open(&place.file(), &mut names.lock()).unwrap();
        Bench { place, database, names }
    }

    fn put(&mut self, now: i64, pop: &str, report: Report) {
        let mut work = self.database.begin(&self.names).unwrap();
        let mut batch = Batch::default();
        batch.add(&mut work, report, pop, now).unwrap();
        batch.write(work).unwrap();
    }

    fn keep_house(&mut self, now: i64) {
        while self.database.keep_house(now).unwrap() {}
    }

    fn ask(&self, ask: Ask) -> Result<Answer, CannotSay> {
        let reader = database::open_reader(&self.place.file()).unwrap();
        query::answer(&reader, &self.names, &ask)
    }

    /// Requests by bucket.
    fn requests(&self, ask: Ask) -> Vec<u64> {
        let answer = self.ask(Ask { with_points: true, ..ask }).unwrap();
        let points = answer.series.first().map(|series| &series.points[..]).unwrap_or_default();
        points.iter().map(|point| point.as_ref().map_or(0, |sums| sums.requests)).collect()
    }
}

#[test]
fn sums_are_the_same_in_each_step_however_late_it_comes() {
    let mut bench = Bench::new();
    let mut hours = vec![0; 30];
    // A report each ten minutes, with an hour's one that comes almost an hour late.
    for tick in 0..30 * 6 {
        let now = DAY + tick * 600;
        let late = now - if tick % 6 == 0 { 3_500 } else { 3 };
        for second in [now, late.max(DAY)] {
            bench.put(
                now,
                "fra",
                report(second, "shop", vec![(key(Why::Fresh, b"DE", Class::Css, 200), cell(3, 100))]),
            );
            hours[((second - DAY) / 3_600) as usize] += 3;
        }
        bench.keep_house(now + 20);
    }
    let now = DAY + 30 * 3_600 - 600;
    let ask = |step| Ask { from: DAY, to: DAY + 30 * 3_600, step: Some(step), now, ..Ask::default() };
    assert_eq!(bench.requests(ask(2)), hours);
    let day: u64 = hours[..24].iter().sum();
    assert_eq!(bench.requests(ask(3)), [day, hours[24..].iter().sum()]);
    let minutes = bench.requests(ask(1));
    let by_hour: Vec<u64> = minutes.chunks(60).map(|hour| hour.iter().sum()).collect();
    assert_eq!(by_hour, hours);
    let answer = bench.ask(ask(2)).unwrap();
    assert_eq!(answer.series[0].total.bytes, 100 * 2 * 30 * 6);
    assert_eq!(answer.series[0].total.first_byte.count(), 3 * 2 * 30 * 6);
    // Seconds are gone after an hour, and nothing with them.
    let seconds: i64 =
        bench.database.count("SELECT COUNT(*) FROM buckets WHERE step = 0 AND at < ?1", now - KEPT[0]);
    assert_eq!(seconds, 0);
}

#[test]
fn what_a_newer_version_has_written_keeps_nothing_else_from_being_summed_up() {
    let mut bench = Bench::new();
    // One more view of cells, one more kind of lists, and what has numbers beyond those.
    let all_unknown =
        [i64::from(Dims::ALL.0) + 1, top::view_of(3, 7), top::view_of(u32::MAX, 7) + 1, i64::MAX];
    assert!(!VIEWS.iter().any(|view| i64::from(view.0) == all_unknown[0]) && !rum::is_rum(all_unknown[0]));
    for second in [0, 1] {
        bench.put(
            DAY + 5,
            "fra",
            report(DAY + second, "shop", vec![(key(Why::Fresh, b"DE", Class::Image, 200), cell(1, 10))]),
        );
        let mut work = bench.database.begin(&bench.names).unwrap();
        for unknown in all_unknown {
            work.add(0, unknown, DAY + second, b"of another form").unwrap();
        }
        work.commit().unwrap();
    }
    bench.keep_house(DAY + 120);
    let count = |view: i64, step: i64| {
        bench.database.count(
            &format!("SELECT COUNT(*) FROM buckets WHERE view = {view} AND step = {step} AND at >= ?1"),
            0,
        )
    };
    assert_eq!(count(i64::from(Dims::POP), 1), 1);
    for unknown in all_unknown {
        assert_eq!((count(unknown, 0), count(unknown, 1)), (2, 0), "{unknown}");
    }
    bench.keep_house(DAY + 86_400);
    assert_eq!(bench.database.count("SELECT COUNT(*) FROM buckets WHERE step = 0 AND at >= ?1", 0), 0);
}

#[test]
fn each_dimension_is_told_apart_and_filters_are_any_of_their_values() {
    let mut bench = Bench::new();
    let cells = vec![
        (key(Why::Fresh, b"DE", Class::Css, 200), cell(5, 500)),
        (key(Why::Absent, b"DE", Class::Image, 200), cell(2, 900)),
        (key(Why::OriginDown, b"FR", Class::None, 502), cell(1, 10)),
        (Key::of_origin(0, Rule(1)), Cell { origin_requests: 3, origin_bytes: 950, ..Cell::default() }),
    ];
    bench.put(DAY, "fra", report(DAY, "shop", cells.clone()));
    bench.put(DAY, "lhr", report(DAY, "blog", cells));
    let ask = |by, filters: &[(Dim, &[&str])]| {
        let filters = filters
            .iter()
            .map(|(dim, values)| (*dim, values.iter().map(|value| (*value).to_owned()).collect()));
        let ask =
            Ask { from: DAY, to: DAY + 1, now: DAY + 5, by, filters: filters.collect(), ..Ask::default() };
        let answer = bench.ask(ask).unwrap();
        let sums =
            answer.series.iter().map(|series| (series.key.clone(), series.total.requests, series.total.hits));
        let mut sums: Vec<(String, u64, u64)> = sums.collect();
        sums.sort();
        sums
    };
    let sums = |list: &[(&str, u64, u64)]| {
        list.iter().map(|(key, requests, hits)| ((*key).to_owned(), *requests, *hits)).collect::<Vec<_>>()
    };
    assert_eq!(ask(None, &[]), sums(&[("", 16, 10)]));
    assert_eq!(ask(Some(Dim::Site), &[]), sums(&[("blog", 8, 5), ("shop", 8, 5)]));
    assert_eq!(
        ask(Some(Dim::Country), &[(Dim::Site, &["shop"])]),
        sums(&[("-", 0, 0), ("DE", 7, 5), ("FR", 1, 0)])
    );
    assert_eq!(
        ask(Some(Dim::Why), &[(Dim::Pop, &["lhr"])]),
        sums(&[("-", 0, 0), ("absent", 2, 0), ("fresh", 5, 5), ("origin-down", 1, 0)])
    );
    assert_eq!(ask(Some(Dim::Rule), &[]), sums(&[("blog/1", 8, 5), ("shop/1", 8, 5)]));
    // What no view but that with all dimensions has.
    assert_eq!(
        ask(Some(Dim::Class), &[(Dim::Country, &["DE", "FR"]), (Dim::Site, &["shop"])]),
        sums(&[("-", 1, 0), ("css", 5, 5), ("image", 2, 0)])
    );
    assert_eq!(
        ask(Some(Dim::Status), &[(Dim::Pop, &["fra", "lhr"]), (Dim::Why, &["origin-down", "fresh"])]),
        sums(&[("2xx", 10, 10), ("5xx", 2, 0)])
    );
    assert_eq!(ask(None, &[(Dim::Site, &["nobody"])]), sums(&[]));
    let all = bench.ask(Ask { from: DAY, to: DAY + 1, now: DAY + 5, ..Ask::default() }).unwrap();
    let total = &all.series[0].total;
    assert_eq!(
        (total.errors, total.hit_bytes, total.origin_requests, total.origin_bytes),
        (2, 1_000, 6, 1_900)
    );
}

#[test]
fn combinations_are_kept_while_they_are_few_and_refused_in_words_when_not() {
    let mut bench = Bench::new();
    let country = |number: usize| [b'A' + (number / 26 % 26) as u8, b'A' + (number % 26) as u8];
    let cells: Vec<(Key, Cell)> = (0..676)
        .flat_map(|number| [Class::Css, Class::Image, Class::Html].map(|class| (country(number), class)))
        .map(|(country, class)| (key(Why::Fresh, &country, class, 200), cell(1, 1)))
        .collect();
    assert!(cells.len() > ALL_CELLS_MAX);
    bench.put(DAY, "fra", report(DAY, "shop", cells));
    bench.keep_house(DAY + 70);
    let by_class = |filters| Ask {
        from: DAY,
        to: DAY + 60,
        now: DAY + 70,
        by: Some(Dim::Class),
        filters,
        ..Ask::default()
    };
    assert_eq!(bench.ask(by_class(BTreeMap::new())).unwrap().series.len(), 3);
    let both = BTreeMap::from([(Dim::Country, vec!["DE".to_owned()])]);
    let refused = bench.ask(by_class(both)).unwrap_err();
    assert!(matches!(&refused, CannotSay::NotKept(dims) if dims == "country and class"), "{refused:?}");
}

#[test]
fn lists_add_up_and_examples_are_the_newest() {
    let mut bench = Bench::new();
    let why = Some(Why::Absent);
    let listed = |second: i64, url: &str, count| {
        let entry = Entry { of: Of { site: 0, why }, url: url.to_owned(), count, over: 1, other: 7 };
        let list = TopList { floor: 2, entries: vec![entry] };
        let example = Example {
            of: Of { site: 0, why },
            url: url.to_owned(),
            cache_status: "e; fwd=uri-miss".into(),
            at_ms: second * 1000,
        };
        let lists = vec![(ListKind::MissesByRequests, list)];
        Report { lists, examples: vec![example], ..report(second, "shop", Vec::new()) }
    };
    for (at, pop, url, count) in [(0, "fra", "/a", 5), (70, "lhr", "/a", 4), (4_000, "fra", "/b", 3)] {
        bench.put(DAY + at, pop, listed(DAY + at, url, count));
        bench.keep_house(DAY + at + 20);
    }
    bench.keep_house(DAY + 86_400 + 20);
    let ask = |pops: Option<&str>, kind, back: i64| {
        let now = DAY + 86_400 + back;
        let pops = pops.map(|pop| vec![pop.to_owned()]);
        let ask = TopAsk { from: DAY, to: DAY + 86_400, now, kind, sites: None, pops, limit: 10 };
        top::answer(&database::open_reader(&bench.place.file()).unwrap(), &bench.names, &ask).unwrap()
    };
    // From hours, and from the day, when hours are gone.
    for back in [20, 40 * 86_400] {
        let top = ask(None, Some(ListKind::MissesByRequests), back);
        let items: Vec<(&str, &str, u64, u64)> = top
            .items
            .iter()
            .map(|item| (&*item.site, &*item.entry.url, item.entry.count, item.entry.over))
            .collect();
        assert_eq!(items, [("shop", "/a", 9, 2), ("shop", "/b", 3, 1)]);
        assert_eq!(top.floor, 6);
    }
    assert_eq!(ask(Some("lhr"), Some(ListKind::MissesByRequests), 20).items.len(), 1);
    let shown = ask(None, None, 20).examples;
    assert_eq!((shown.len(), &*shown[0].example.url, &*shown[0].pop), (1, "/b", "fra"));
}

fn line(epoch: u64, sequence: u64, requests: u64) -> Arc<Statistics> {
    let cells = vec![(key(Why::Fresh, b"DE", Class::Css, 200), cell(requests, 10))];
    let report = BASE64_STANDARD.encode(report(now_ms() / 1000, "shop", cells).encode());
    Arc::new(Statistics { node: "fra-1".into(), epoch, sequence, lost: 4, report })
}

#[tokio::test]
async fn what_a_node_says_is_counted_once_and_confirmed_each_time_over_a_restart_too() {
    let place = Place::new();
    let total = |store: &Store| {
        let now = now_ms() / 1000;
        let answer = store.ask(&Ask { from: now - 600, to: now + 60, now, ..Ask::default() }).unwrap();
        (answer.series.first().map_or(0, |series| series.total.requests), answer.lost)
    };
    for begun in 0..2 {
        let store = Store::open(&place.file()).unwrap();
        let (confirm, mut confirmed) = mpsc::channel(16);
        for (epoch, sequence, requests) in [(1, 1, 5), (1, 1, 5), (1, 2, 1), (2, 1, 10)] {
            store.count(line(epoch, sequence, requests), "fra".into(), confirm.clone());
        }
        let damaged = Statistics { report: "####".into(), ..(*line(2, 2, 0)).clone() };
        store.count(Arc::new(damaged), "fra".into(), confirm);
        for _ in 0..5 {
            confirmed.recv().await.unwrap();
        }
        assert_eq!(total(&store), (16, 8), "start {begun}");
        // Each of these is the name of something.
        let names = ["shop", "fra", "fresh", "nothing"].map(str::to_owned);
        for (dim, wanted) in [(Dim::Site, "shop"), (Dim::Pop, "fra")] {
            assert_eq!(store.counted(dim, names.to_vec(), now_ms() / 1000).unwrap(), [wanted]);
        }
        let counts = store.counts();
        let counted = counts.lines.load(Ordering::Relaxed);
        assert_eq!(counted, if begun == 0 { 3 } else { 0 });
    }
}

#[test]
fn page_views_add_up_over_minutes_hours_and_days_and_by_what_is_asked() {
    use stats::rum::{Metric, Of, Views};
    let mut bench = Bench::new();
    let told = |second: i64, country: &[u8; 2], group: &str, ttfb: u32| {
        let mut views = Views::default();
        let mut view = [None; stats::rum::METRICS];
        view[Metric::Ttfb as usize] = Some(ttfb);
        views.add(&view);
        let of = Of { site: 0, country: Country::of(*country), group: group.into() };
        Report { views: vec![(of, views)], ..report(second, "shop", Vec::new()) }
    };
    for (at, pop, country, group, ttfb) in [
        (0, "fra", b"DE", "/tea/", 40),
        (70, "fra", b"DE", "/tea/", 50),
        (80, "lhr", b"GB", "/pay/", 60),
        (4_000, "fra", b"GB", "/tea/", 1_001),
    ] {
        bench.put(DAY + at, pop, told(DAY + at, country, group, ttfb));
        bench.keep_house(DAY + at + 20);
    }
    bench.keep_house(DAY + 86_400 + 20);
    let ask = |by: Option<RumBy>, dim: usize, value: Option<&str>, back: i64| {
        let mut filters: [Option<Vec<String>>; 4] = Default::default();
        filters[dim] = value.map(|value| vec![value.to_owned()]);
        let ask = RumAsk { from: DAY, to: DAY + 86_400, now: DAY + 86_400 + back, by, filters };
        rum::answer(&database::open_reader(&bench.place.file()).unwrap(), &bench.names, &ask).unwrap()
    };
    let keys = |answer: &RumAnswer| -> Vec<(String, u64, Option<u32>)> {
        let shown = answer.by_key.iter();
        shown.map(|(key, views)| (key.clone(), views.count, views.of(Metric::Ttfb).quantile(750))).collect()
    };
    // From hours, and from the day, when hours are gone.
    for back in [20, 40 * 86_400] {
        let all = ask(None, 0, None, back);
        assert_eq!((all.total.count, all.total.of(Metric::Ttfb).quantile(750)), (4, Some(60)));
        assert_eq!(all.points.iter().map(|views| views.count).sum::<u64>(), 4);
        let by_pop = ask(Some(RumBy::Pop), 0, Some("shop"), back);
        assert_eq!(keys(&by_pop), [("fra".into(), 3, Some(1_001)), ("lhr".into(), 1, Some(60))]);
        let by_country = ask(Some(RumBy::Country), 0, None, back);
        assert_eq!(keys(&by_country)[0].1 + keys(&by_country)[1].1, 4);
        let groups_of_a_pop = ask(Some(RumBy::Group), 1, Some("lhr"), back);
        assert_eq!(keys(&groups_of_a_pop), [("/pay/".into(), 1, Some(60))]);
        assert_eq!(keys(&ask(Some(RumBy::Pop), 2, Some("GB"), back)).len(), 2);
        assert_eq!(ask(None, 0, Some("nobody"), back).total.count, 0);
    }
    let cells = rum::merge(200, std::iter::empty()).unwrap();
    assert_eq!(rum::merge(200, [&cells[..], &[1]].into_iter()), Ok(vec![1]), "too many stay too many");
    assert!(rum::merge(200, [&[0, 1, 2][..]].into_iter()).is_err());
}

#[test]
fn groups_that_browsers_make_up_leave_room_for_names_of_sites() {
    let mut bench = Bench::new();
    for first in (0..NAMES_MAX).step_by(500) {
        let mut work = bench.database.begin(&bench.names).unwrap();
        for number in first..first + 500 {
            work.number(&format!("/{number}/")).unwrap();
        }
        work.commit().unwrap();
    }
    let mut work = bench.database.begin(&bench.names).unwrap();
    let mut number = |text: &str| work.number(text).unwrap();
    let others = number("(others)");
    assert_eq!(number("/one more/"), others);
    assert_ne!(number("/0/"), others, "what is known is told apart");
    assert_ne!(number("new-site"), others);
}
