use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use semantics::Why;
use semantics::cache_status::{CacheStatus, Handling};
use stats::{Class, Country};

use super::*;
use crate::event::Fetch;
use crate::log::tests::{BUFFERS_TO_OVERFLOW, gated_log};
use crate::log::{LogOptions, Sink};
use crate::registry::BuildInfo;

fn registry() -> Arc<Registry> {
    Registry::new(BuildInfo { version: "0.0.0", commit: "" })
}

pub(crate) fn event(site: Slot) -> Event<'static> {
    Event {
        asked: None,
        // 2026-11-23T20:44:33.007Z.
        wall: Wall(1_795_466_673_007),
        duration_us: 412,
        first_byte_us: 97,
        client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
        country: Country::of(*b"DE"),
        method: b"GET",
        host: b"www.shop.example",
        target: b"/static/css/site.4f9a31c0.css?v=20261123",
        protocol: "HTTP/1.1",
        secure: false,
        authorized: false,
        status: 200,
        head_bytes_sent: 310,
        body_bytes_sent: 10_240,
        bytes_received: 545,
        why: Why::Fresh,
        cache_status: CacheStatus {
            node: "edge",
            why: Why::Fresh,
            handling: Handling::Hit,
            ttl: Some(48),
        },
        class: Class::Css,
        collapsed: false,
        stored: false,
        personal: false,
        encoded: Some((semantics::coding::Coding::Gzip, 700)),
        age: Some(12),
        ttl: Some(48),
        site,
        rule: Some(2),
        selected_by: &[],
        fetch: None,
        answer: None,
        request_id: 0x00ab_cdef_0123_4567,
        trace_id: None,
        referer: Some(b"https://www.shop.example/catalogue/shoes?page=2"),
        user_agent: Some(
            b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        ),
    }
}

#[test]
fn all_lines_of_all_workers_are_in_the_file_after_shutdown() {
    const WORKERS: u64 = 3;
    const LINES: u64 = 2_000;
    let path = std::env::temp_dir().join(format!("perigee-shutdown-{}.log", std::process::id()));
    let registry = registry();
    let site = registry.site("shop");
    let options = LogOptions { sink: Sink::File(path.clone()), format: Format::Json };
    let log = AccessLog::start(options, &registry).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let observer = Observer::new(&registry, Some(&log));
            scope.spawn(move || {
                for number in 0..LINES {
                    observer.emit(&Event { request_id: worker << 32 | number, ..event(site) });
                }
            });
        }
    });
    assert!(log.stop(Duration::from_secs(30)));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let ids: std::collections::HashSet<_> = text.lines().map(|line| &line[40..60]).collect();
    assert_eq!(text.lines().count() as u64, WORKERS * LINES);
    assert_eq!(ids.len() as u64, WORKERS * LINES, "each line is there once");
    assert!(text.lines().all(|line| line.starts_with("{\"time\"") && line.ends_with("\"}")));
    assert_eq!(registry.totals().log_lines_dropped, 0);
    assert_eq!(registry.totals().requests(), WORKERS * LINES);
}

#[test]
fn a_blocked_sink_costs_lines_and_never_time() {
    let registry = registry();
    let (log, gate, written) = gated_log(&registry);
    let observer = Observer::new(&registry, Some(&log));
    let site = registry.site("shop");
    let mut made = 0;
    // The age of the buffer makes each line a buffer of its own.
    for buffer in 0..BUFFERS_TO_OVERFLOW as i64 + 5 {
        for ms in [0, 1000] {
            observer.emit(&Event { wall: Wall(buffer * 10_000 + ms), ..event(site) });
            made += 1;
        }
    }
    let dropped = registry.totals().log_lines_dropped;
    assert!(dropped >= 10, "{dropped}");
    assert!(registry.render().contains(&format!("reason=\"queue-full\"}} {dropped}\n")));
    drop(gate);
    drop(observer);
    assert!(log.stop(Duration::from_secs(30)));
    let lines = written.lock().iter().filter(|&&byte| byte == b'\n').count() as u64;
    assert_eq!(lines + dropped, made, "each line is written or counted as dropped");
}

#[test]
fn statistics_that_nobody_takes_are_bounded_and_counted_and_nobody_waits() {
    const COUNTRIES: u8 = 20;
    const SECONDS: i64 = 300;
    let registry = registry();
    registry.keep_statistics();
    let observer = Observer::new(&registry, None);
    let site = registry.site("shop");
    let per_second = u64::from(COUNTRIES) * u64::from(COUNTRIES);
    // Hundreds of cells each second, and one more second, in which the last of them is handed over.
    for second in 0..=SECONDS {
        for number in 0..if second == SECONDS { 1 } else { u16::from(COUNTRIES).pow(2) } {
            let letter = |place: u16| b'A' + place as u8;
            let [one, other] = [number / u16::from(COUNTRIES), number % u16::from(COUNTRIES)].map(letter);
            let country = Country::of([one, other]);
            observer.emit(&Event { wall: Wall(second * 1000), country, ..event(site) });
        }
    }
    let kept: u64 =
        registry.take_reports().iter().flat_map(|report| &report.cells).map(|(_, cell)| cell.requests).sum();
    let lost = registry.lost_reports();
    assert!(lost > 0 && kept > 0, "{lost} {kept}");
    assert_eq!(
        kept + lost * per_second,
        SECONDS as u64 * per_second,
        "each second is kept or counted as lost"
    );
    assert!(registry.render().contains(&format!("perigee_statistics_lost_total {lost}\n")));
}

#[test]
fn lists_that_nobody_takes_are_bounded_too() {
    const URLS: u64 = 200;
    const TURNS: u64 = 600;
    let registry = registry();
    registry.keep_statistics();
    let observer = Observer::new(&registry, None);
    let site = registry.site("shop");
    // One key, and all URLs in two lists, which are handed over in the turn after.
    for turn in 0..=TURNS {
        for url in 0..URLS {
            let (wall, target) = (Wall(turn as i64 * 10_000), format!("/{url}"));
            observer.emit(&Event { wall, target: target.as_bytes(), ..event(site) });
        }
    }
    let reports = registry.take_reports();
    let lists = reports.iter().flat_map(|report| &report.lists);
    let kept: u64 = lists.map(|(_, list)| list.entries.len() as u64).sum();
    let lost = registry.lost_reports();
    assert!(lost > 0 && kept > 0, "{lost} {kept}");
    assert_eq!(kept + lost * 2 * URLS, TURNS * 2 * URLS, "each turn is kept or counted as lost");
}

#[test]
fn lines_of_a_quiet_worker_are_handed_over_within_a_second_or_when_the_clock_jumps_back() {
    for (now, kept) in [(999, true), (1000, false), (-1, false)] {
        let registry = registry();
        let (log, gate, written) = gated_log(&registry);
        drop(gate);
        let observer = Observer::new(&registry, Some(&log));
        observer.emit(&Event { wall: Wall(0), ..event(Slot::NONE) });
        observer.tick(Wall(now));
        assert!(log.stop(Duration::from_secs(30)));
        assert_eq!(written.lock().is_empty(), kept, "tick at {now} ms");
    }
}

#[test]
fn names_in_the_log_follow_the_slots() {
    let registry = registry();
    let (log, gate, written) = gated_log(&registry);
    drop(gate);
    let observer = Observer::new(&registry, Some(&log));
    let fetch =
        Fetch { origin: registry.origin("http://o.example"), status: 200, duration_us: 1, attempts: 1 };
    observer.emit(&Event { fetch: Some(fetch), ..event(registry.site("a \"b\"\n")) });
    drop(observer);
    assert!(log.stop(Duration::from_secs(30)));
    let text = String::from_utf8(written.lock().clone()).unwrap();
    assert!(text.contains(r#""site":"a \"b\"\u000a""#), "{text}");
    assert!(text.contains(r#""origin":"http://o.example""#), "{text}");
}

#[test]
fn totals_tell_errors_and_how_long_heads_took() {
    let registry = registry();
    let observer = Observer::new(&registry, None);
    let site = registry.site("shop");
    for (status, first_byte_us) in
        [(200, 1), (200, 1_000), (200, 1_500), (503, 3_000), (500, 40_000_000), (404, 2_000)]
    {
        observer.emit(&Event { status, first_byte_us, ..event(site) });
    }
    let totals = registry.totals();
    assert_eq!(totals.server_errors, 2);
    let mut wanted = [0; crate::FIRST_BYTE_BUCKETS];
    (wanted[0], wanted[1], wanted[2], wanted[16]) = (2, 2, 1, 1);
    assert_eq!(totals.first_bytes, wanted);
}

#[test]
fn statistics_and_totals_are_of_visitors_and_not_of_probes() {
    let registry = registry();
    registry.keep_statistics();
    let observer = Observer::new(&registry, None);
    let unknown = |user_agent| Event {
        why: Why::UnknownSite,
        status: 421,
        user_agent: Some(user_agent),
        ..event(Slot::NONE)
    };
    observer.emit(&unknown(b"perigee-router"));
    // As an edge says that has no configuration yet.
    observer.emit(&Event { status: 503, ..unknown(b"perigee-router") });
    observer.emit(&unknown(b"somebody"));
    // A visitor who borrows the name is counted.
    observer.emit(&Event { user_agent: Some(b"perigee-router"), ..event(registry.site("shop")) });
    drop(observer);
    let counted: u64 =
        registry.take_reports().iter().flat_map(|report| &report.cells).map(|(_, cell)| cell.requests).sum();
    assert_eq!(counted, 2);
    let totals = registry.totals();
    assert_eq!((totals.requests(), totals.server_errors, totals.first_bytes.iter().sum::<u64>()), (2, 0, 2));
    let metrics = registry.render();
    let all = r#"perigee_requests_total{site="-",outcome="error",why="unknown-site"} 3"#;
    assert!(metrics.contains(all), "metrics have all: {metrics}");
}
