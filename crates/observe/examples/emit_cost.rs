//! Measures what one hit costs in this crate: `cargo run --release -p observe --example emit_cost`. Prints the median
//! over rounds of ns per event, without a log, with statistics, and with each format to /dev/null.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use observe::{AccessLog, BuildInfo, Event, Format, LogOptions, Observer, Registry, Sink};
use semantics::cache_status::{CacheStatus, Handling};
use semantics::{Wall, Why};
use stats::{Class, Country};

fn main() -> std::io::Result<()> {
    let registry = Registry::new(BuildInfo { version: "0", commit: "" });
    println!("counters only   {:>4} ns", measure(&Observer::new(&registry, None), &registry, 1));
    let counted = Registry::new(BuildInfo { version: "0", commit: "" });
    counted.keep_statistics();
    for urls in [1, 500, 100_000] {
        let cost = measure(&Observer::new(&counted, None), &counted, urls);
        println!("and statistics  {cost:>4} ns, of {urls} URLs");
        drop(counted.take_reports());
    }
    for format in [Format::Json, Format::Combined] {
        let log = AccessLog::start(LogOptions { sink: Sink::File("/dev/null".into()), format }, &registry)?;
        println!(
            "{:<15} {:>4} ns",
            format!("{format:?}"),
            measure(&Observer::new(&registry, Some(&log)), &registry, 1)
        );
        log.stop(std::time::Duration::from_secs(5));
    }
    println!("dropped {}", registry.totals().log_lines_dropped);
    Ok(())
}

fn measure(observer: &Observer, registry: &Registry, urls: u64) -> u64 {
    const EVENTS: u64 = 200_000;
    let site = registry.site("shop");
    let targets: Vec<String> =
        (0..urls).map(|number| format!("/static/css/site.{number:08x}.css?v=20261123")).collect();
    let mut rounds: Vec<u64> = (0..15u64)
        .map(|round| {
            let start = Instant::now();
            for number in 0..EVENTS {
                observer.emit(black_box(&Event {
                    asked: None,
                    wall: Wall(1_795_466_673_000 + (round * EVENTS + number) as i64 / 50),
                    duration_us: 30 + number % 50,
                    first_byte_us: 20 + number % 30,
                    client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
                    country: Country::of(*b"DE"),
                    method: b"GET",
                    host: b"www.shop.example",
                    // Spread, so that neighbours are not neighbours.
                    target: targets[(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % urls) as usize].as_bytes(),
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
                    encoded: None,
                    age: Some(12),
                    ttl: Some(48),
                    site,
                    rule: Some(2),
                    selected_by: &[],
                    fetch: None,
                    answer: None,
                    request_id: number,
                    trace_id: None,
                    referer: Some(b"https://www.shop.example/catalogue/shoes?page=2"),
                    user_agent: Some(
                        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
                    ),
                }));
            }
            start.elapsed().as_nanos() as u64 / EVENTS
        })
        .collect();
    rounds.sort_unstable();
    rounds[rounds.len() / 2]
}
