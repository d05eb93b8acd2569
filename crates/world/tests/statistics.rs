//! What a real edge counts of a known list of requests: each in exactly one cell, and each URL in the lists that it belongs to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stats::{ListKind, Report};
use world::play;
use world::play::{PATIENCE, Play, scheme};

/// Requests, answers that had begun, and attempts at origins: by rule, country, class of content, reason and status.
type Cells<'a> = BTreeMap<(u16, String, &'a str, &'a str, &'a str), (u64, u64, u64)>;

/// The statistics of all seconds until now, once they hold so many requests.
#[track_caller]
fn reports(play: &mut Play, requests: u64) -> Vec<Report> {
    // The second is over, and lists are due.
    play.pass_secs(11);
    let deadline = Instant::now() + PATIENCE;
    let mut reports: Vec<Report> = Vec::new();
    loop {
        reports.extend(play.reports());
        let cells = reports.iter().flat_map(|report| &report.cells);
        let counted: u64 = cells.map(|(_, cell)| cell.requests).sum();
        let has_lists = reports.iter().any(|report| !report.lists.is_empty());
        if counted >= requests && has_lists {
            assert_eq!(counted, requests);
            return reports;
        }
        assert!(Instant::now() < deadline, "{counted} of {requests} requests are counted");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_request_is_counted_once_under_what_it_was() {
    let mut play = play();
    play.site("[[site.rule]]\npath = \"/*.css\"\nttl = \"1h\"");
    play.origin(|o| o.get("/a.css").header("Content-Type", "text/css").body("a {}"));
    play.origin(|o| {
        o.get("/private").header("Cache-Control", "no-store").header("Content-Type", "text/html").body("p")
    });
    play.origin(|o| {
        o.get("/private").header("Cache-Control", "no-store").header("Content-Type", "text/html").body("p")
    });
    play.origin(|o| o.get("/broken").reply(500).header("Cache-Control", "no-store").body("sorry"));
    play.client(|client| {
        (0..5).for_each(|_| drop(client.get("/a.css").expect(200)));
        (0..2).for_each(|_| drop(client.get("/private").expect(200)));
        drop(client.get("/broken").expect(500));
    });
    let reports = reports(&mut play, 8);
    let mut cells = Cells::new();
    for (key, cell) in reports.iter().flat_map(|report| &report.cells) {
        let why = key.why.map_or("-", semantics::Why::as_str);
        let place = (key.rule.0, key.country.to_string(), key.class.as_str(), why, key.status.as_str());
        let sums = cells.entry(place).or_default();
        sums.0 += cell.requests;
        sums.1 += cell.first_byte.count();
        sums.2 += cell.origin_requests;
    }
    let key = |rule, class, why, status| (rule, "DE".to_owned(), class, why, status);
    let of_origin = |rule| (rule, "-".to_owned(), "-", "-", "-");
    let wanted = BTreeMap::from([
        (key(1, "css", "absent", "2xx"), (1, 1, 0)),
        (key(1, "css", "fresh", "2xx"), (4, 4, 0)),
        (key(0, "html", "uncacheable", "2xx"), (1, 1, 0)),
        (key(0, "html", "hit-for-miss", "2xx"), (1, 1, 0)),
        (key(0, "-", "uncacheable", "5xx"), (1, 1, 0)),
        (of_origin(1), (0, 0, 1)),
        (of_origin(0), (0, 0, 3)),
    ]);
    assert_eq!(cells, wanted);
    assert!(reports.iter().all(|report| report.sites == ["site"] || report.sites.is_empty()));

    let mut lists: BTreeMap<(ListKind, String), u64> = BTreeMap::new();
    for (kind, list) in reports.iter().flat_map(|report| &report.lists) {
        assert_eq!(list.floor, 0, "so few are counted exactly");
        for entry in list.entries.iter().filter(|_| !kind.is_by_bytes()) {
            let path =
                entry.url.split_once("://").map_or("", |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
            assert!(entry.url.starts_with(scheme()), "{}", entry.url);
            *lists.entry((*kind, path.to_owned())).or_default() += entry.count;
        }
    }
    let wanted = [
        (ListKind::UrlsByRequests, "/a.css", 5),
        (ListKind::UrlsByRequests, "/private", 2),
        (ListKind::UrlsByRequests, "/broken", 1),
        (ListKind::MissesByRequests, "/a.css", 1),
        (ListKind::MissesByRequests, "/private", 2),
        (ListKind::MissesByRequests, "/broken", 1),
        (ListKind::ErrorsByRequests, "/broken", 1),
    ];
    assert_eq!(lists, wanted.map(|(kind, path, count)| ((kind, path.to_owned()), count)).into());
    let mut examples: Vec<&str> = Vec::new();
    for example in reports.iter().flat_map(|report| &report.examples) {
        let why = example.of.why.map_or("", semantics::Why::as_str);
        assert!(example.cache_status.ends_with(&format!("detail={why}")), "{}", example.cache_status);
        examples.push(why);
    }
    examples.sort_unstable();
    examples.dedup();
    assert_eq!(examples, ["absent", "hit-for-miss", "uncacheable"]);
}

#[test]
fn more_urls_than_are_remembered_stay_within_the_stated_error() {
    const OTHERS: usize = 1_200;
    let mut play = play();
    play.site("[[site.rule]]\npath = \"/*\"\nttl = \"1h\"");
    play.origin(|o| o.get("/often").body("x"));
    let paths: Vec<String> = (0..OTHERS).map(|number| format!("/{number}")).collect();
    for path in &paths {
        play.origin(|o| o.get(path).body("x"));
    }
    let client = play.visitor();
    for path in &paths {
        client.get(path).expect(200);
        client.get("/often").expect(200);
    }
    let reports = reports(&mut play, 2 * OTHERS as u64);
    let lists = reports.iter().flat_map(|report| &report.lists);
    let mut sum = stats::TopList::default();
    sum.merge(lists.filter(|(kind, _)| *kind == ListKind::UrlsByRequests).map(|(_, list)| list));
    sum.keep(10);
    let often = &sum.entries[0];
    assert!(often.url.ends_with("/often") && sum.floor > 0, "{often:?}");
    let truth = OTHERS as u64;
    assert!(
        (often.count - often.over..=often.count + sum.floor).contains(&truth),
        "{often:?}, {}",
        sum.floor
    );
    assert!(sum.floor <= truth / 10, "{} is too much to be of use", sum.floor);
}
