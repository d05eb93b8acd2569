//! Measures what one hit costs in this crate: `cargo run --release -p observe --example emit_cost`. Prints the median
//! over rounds of ns per event, without a log and with each format to /dev/null.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use observe::{AccessLog, BuildInfo, Event, Format, LogOptions, Observer, Registry, Sink};
use semantics::cache_status::{CacheStatus, Handling};
use semantics::{Wall, Why};
use stats::{Class, Country};

fn main() -> std::io::Result<()> {
    let registry = Registry::new(BuildInfo { version: "0", commit: "" });
    println!("counters only   {:>4} ns", measure(&Observer::new(&registry, None), &registry));
    for format in [Format::Json, Format::Combined] {
        let log = AccessLog::start(LogOptions { sink: Sink::File("/dev/null".into()), format }, &registry)?;
        println!(
            "{:<15} {:>4} ns",
            format!("{format:?}"),
            measure(&Observer::new(&registry, Some(&log)), &registry)
        );
        log.stop(std::time::Duration::from_secs(5));
    }
    println!("dropped {}", registry.totals().log_lines_dropped);
    Ok(())
}

fn measure(observer: &Observer, registry: &Registry) -> u64 {
    const EVENTS: u64 = 200_000;
    let site = registry.site("shop");
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
                        key: None,
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
