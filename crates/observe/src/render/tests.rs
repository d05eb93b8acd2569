//! Renders registries and reads the text back with a strict reader of the exposition format.

use std::collections::{BTreeMap, HashSet};

use semantics::Wall;

use super::*;
use crate::event::{ConnectionUse, Event, FetchEnd, FetchEvent};
use crate::observer::Observer;
use crate::observer::tests::event;
use crate::readings::{BreakerReading, BudgetReading, CertificateReading, OriginReading, TierReading};
use crate::registry::{BuildInfo, SITES_MAX};

fn registry() -> Arc<Registry> {
    Registry::new(BuildInfo { version: "1.2.3", commit: "abc" })
}

/// All samples by their full series text. Refuses whatever the text format 0.0.4 does not allow: samples outside of
/// their family, a family in two places, doubled series, bad names, bad escapes, histograms that go down.
fn read_exposition(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line ends too");
    let mut samples = BTreeMap::new();
    let mut families = HashSet::new();
    let mut family = (String::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, prose) = help.split_once(' ').expect("HELP has prose");
            assert!(!prose.is_empty() && is_name(name), "{line}");
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")))
                .expect("TYPE follows");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let name = series.split('{').next().unwrap_or_default();
        let base = match family.1.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)),
            _ => Some(name),
        };
        assert_eq!(base, Some(family.0.as_str()), "{line} stands under another family");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            check_labels(labels);
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}: not a number"));
        assert!(value >= 0.0, "{line}");
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
    }
    check_histograms(text);
    samples
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}

fn check_labels(labels: &str) {
    let mut rest = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).expect("braces");
    let mut names = HashSet::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("a label has a quoted value");
        assert!(is_name(name) && names.insert(name), "{labels}");
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("the value's quote closes") {
                (_, '\\') => assert!(matches!(chars.next(), Some((_, '\\' | '"' | 'n'))), "{labels}"),
                (end, '"') => break end,
                _ => {}
            }
        };
        rest = after[end + 1..].strip_prefix(',').unwrap_or(&after[end + 1..]);
    }
}

fn check_histograms(text: &str) {
    let mut last: Option<(&str, f64, f64)> = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("checked");
        let Some((labels, bound)) = series.split_once("le=\"") else {
            if series.contains("_count") {
                let (_, bound, count) = last.take().expect("buckets come first");
                assert_eq!((bound, count), (f64::INFINITY, value.parse().expect("checked")), "{line}");
            }
            continue;
        };
        let bound: f64 = bound.trim_end_matches("\"}").parse().expect("le is a number");
        let count: f64 = value.parse().expect("checked");
        if let Some((last_labels, last_bound, last_count)) = last {
            assert!(last_labels == labels && bound > last_bound && count >= last_count, "{line}");
        }
        last = Some((labels, bound, count));
    }
}

fn full_readings(origin: Slot) -> Readings {
    Readings {
        tiers: vec![TierReading {
            tier: "memory",
            bytes: 7,
            bytes_max: 9,
            objects: 1,
            found: 5,
            absent: 2,
            ..TierReading::default()
        }],
        disks: vec![DiskReading {
            disk: "/cache".into(),
            written_bytes: [5, 6, 7],
            ..DiskReading::default()
        }],
        copies: vec![CopiesReading {
            coding: semantics::coding::Coding::Br,
            is_thorough: true,
            made: 2,
            bytes_in: 3000,
            bytes_out: 900,
            cpu_us: 61_500,
        }],
        copies_not_made: [1, 2, 0],
        rewrites: [7, 1, 0],
        views: [5, 1, 2, 0],
        silence_ms: Some(1500),
        origins: vec![
            OriginReading {
                origin,
                healthy: true,
                breaker: BreakerReading::Open,
                connections: 5,
                idle_connections: 2,
            },
            OriginReading {
                origin,
                healthy: false,
                breaker: BreakerReading::Closed,
                connections: 0,
                idle_connections: 0,
            },
        ],
        budgets: vec![BudgetReading {
            site: "shop".into(),
            origin: "http://o.example".into(),
            total: [200, 50],
            allowed: [40, 9],
            used: [12, 3],
            waiting: 4,
            refused: 6,
            ended: 1,
        }],
        certificates: vec![CertificateReading { name: "*.shop.example".into(), not_after: Wall(2_500) }],
        purge_position: 41,
        quic_dropped: [8, 0, 1],
        purges_remembered: 3,
        fills_in_flight: 2,
        bodies_in_flight: (7, 9),
        workers: 2,
    }
}

fn fetch(origin: Slot, end: FetchEnd) -> FetchEvent {
    FetchEvent {
        origin,
        on_behalf_of: Some((Slot::NONE, 0)),
        connection: ConnectionUse::Opened { connect_us: 800 },
        first_byte_us: Some(20_000),
        end,
        bytes_sent: 100,
        bytes_received: 1000,
        retry: true,
    }
}

#[test]
fn a_full_registry_renders_each_family_of_the_catalogue_once_and_in_order() {
    let registry = registry();
    let (site, origin) = (registry.site("shop"), registry.origin("http://o.example"));
    let observer = Observer::new(&registry, None);
    observer.emit(&event(site));
    observer.emit_fetch(&fetch(origin, FetchEnd::Answered(200)), Wall(0));
    observer.emit_fetch(&fetch(origin, FetchEnd::Failed(OriginFailure::Cut)), Wall(0));
    observer.handshake_ended(Handshake::Tls13Resumed);
    observer.hop_ended(Hop::Shield, HopEnd::Behind);
    observer.emit(&Event { asked: Some(Hop::Peer), ..event(site) });
    registry.count_failed_order();
    registry.follow(5, 7, true);
    registry.read_from(move || full_readings(origin));
    registry.count_reload(Wall(1_500));
    registry.follow(41, 42, true);
    let text = registry.render();
    let samples = read_exposition(&text);
    let rendered: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(rendered, declared);
    for (series, value) in [
        ("perigee_build_info{version=\"1.2.3\",commit=\"abc\"}", 1.0),
        ("perigee_requests_total{site=\"shop\",outcome=\"hit\",why=\"fresh\"}", 1.0),
        ("perigee_origin_failures_total{origin=\"http://o.example\",failure=\"cut\"}", 1.0),
        ("perigee_origin_retries_total{origin=\"http://o.example\"}", 2.0),
        ("perigee_origin_connections{origin=\"http://o.example\",state=\"busy\"}", 3.0),
        ("perigee_origin_budget{site=\"shop\",origin=\"http://o.example\",of=\"in_flight\"}", 50.0),
        (
            "perigee_origin_budget_used{site=\"shop\",origin=\"http://o.example\",of=\"requests_per_second\"}",
            12.0,
        ),
        ("perigee_origin_budget_refused_total{site=\"shop\",origin=\"http://o.example\"}", 6.0),
        ("perigee_origin_breaker_state{origin=\"http://o.example\"}", 2.0),
        ("perigee_origin_connect_seconds_sum{origin=\"http://o.example\"}", 0.0016),
        ("perigee_store_lookups_total{tier=\"memory\",result=\"found\"}", 5.0),
        ("perigee_disk_written_bytes_total{disk=\"/cache\",kind=\"rewrite\"}", 6.0),
        ("perigee_quic_packets_dropped_total{queue=\"socket\"}", 8.0),
        ("perigee_certificate_not_after_timestamp_seconds{name=\"*.shop.example\"}", 2.5),
        ("perigee_certificate_orders_total{result=\"failed\"}", 1.0),
        ("perigee_tls_handshakes_total{result=\"tls1.3-resumed\"}", 1.0),
        ("perigee_tier_requests_total{hop=\"shield\",end=\"behind\"}", 1.0),
        ("perigee_tier_answers_total{hop=\"peer\",outcome=\"hit\"}", 1.0),
        ("perigee_encoded_responses_total{site=\"shop\",coding=\"gzip\"}", 1.0),
        ("perigee_saved_body_bytes_total{site=\"shop\"}", 700.0),
        ("perigee_copies_made_total{coding=\"br\",effort=\"thorough\"}", 2.0),
        ("perigee_copies_written_bytes_total{coding=\"br\",effort=\"thorough\"}", 900.0),
        ("perigee_copies_cpu_seconds_total{coding=\"br\",effort=\"thorough\"}", 0.061),
        ("perigee_copies_not_made_total{reason=\"hardly-smaller\"}", 2.0),
        ("perigee_rewrites_total{outcome=\"failed-open\"}", 1.0),
        ("perigee_page_views_told_total{outcome=\"forged\"}", 2.0),
        ("perigee_purge_position", 41.0),
        ("perigee_config_loaded_timestamp_seconds", 1.5),
        ("perigee_config_reloads_total{result=\"ok\"}", 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn an_empty_registry_renders_valid_text() {
    let samples = read_exposition(&registry().render());
    assert_eq!(samples["perigee_connections_open"], 0.0);
}

#[test]
fn counts_are_summed_over_workers_and_outlive_them() {
    let registry = registry();
    let site = registry.site("shop");
    let workers: Vec<_> = (0..3).map(|_| Observer::new(&registry, None)).collect();
    for (index, worker) in workers.iter().enumerate() {
        for _ in 0..=index {
            worker.emit(&event(site));
            worker.connection_opened();
        }
        worker.connection_closed();
        worker.limit_reached(Limit::HeadBytes);
    }
    drop(workers);
    let samples = read_exposition(&registry.render());
    for (series, value) in [
        ("perigee_requests_total{site=\"shop\",outcome=\"hit\",why=\"fresh\"}", 6.0),
        ("perigee_responses_total{site=\"shop\",class=\"2xx\"}", 6.0),
        ("perigee_sent_body_bytes_total{site=\"shop\",outcome=\"hit\"}", 61_440.0),
        ("perigee_sent_head_bytes_total{site=\"shop\"}", 1860.0),
        ("perigee_received_bytes_total{site=\"shop\"}", 3270.0),
        ("perigee_connections_accepted_total", 6.0),
        ("perigee_connections_open", 3.0),
        ("perigee_limits_reached_total{limit=\"head-bytes\"}", 3.0),
        ("perigee_request_duration_seconds_count{site=\"shop\",outcome=\"hit\"}", 6.0),
        ("perigee_request_duration_seconds_bucket{site=\"shop\",outcome=\"hit\",le=\"0.000256\"}", 0.0),
        ("perigee_request_duration_seconds_bucket{site=\"shop\",outcome=\"hit\",le=\"0.000512\"}", 6.0),
        ("perigee_request_duration_seconds_sum{site=\"shop\",outcome=\"hit\"}", 0.002472),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    assert_eq!(registry.totals().requests_of(Outcome::Hit), 6);
    assert_eq!(registry.totals().duration_p50_us, 448);
}

#[test]
fn a_request_without_a_response_counts_no_first_byte() {
    let registry = registry();
    let observer = Observer::new(&registry, None);
    observer.emit(&Event { status: 0, why: Why::ClientGone, ..event(Slot::NONE) });
    let samples = read_exposition(&registry.render());
    assert_eq!(samples["perigee_responses_total{site=\"-\",class=\"none\"}"], 1.0);
    assert!(!samples.keys().any(|series| series.starts_with("perigee_request_first_byte_seconds")));
}

#[test]
fn names_from_the_configuration_are_escaped() {
    let registry = registry();
    Observer::new(&registry, None).emit(&event(registry.site("a\\b\"c\nd{},=")));
    let samples = read_exposition(&registry.render());
    let series = r#"perigee_requests_total{site="a\\b\"c\nd{},=",outcome="hit",why="fresh"}"#;
    assert_eq!(samples.get(series), Some(&1.0));
}

#[test]
fn sites_over_the_bound_share_one_series() {
    let registry = registry();
    let slots: Vec<_> = (0..SITES_MAX + 10).map(|number| registry.site(&format!("site-{number}"))).collect();
    assert_eq!(slots.iter().collect::<HashSet<_>>().len(), SITES_MAX - 1);
    assert_eq!(registry.site("site-0"), slots[0], "a name keeps its slot");
    let observer = Observer::new(&registry, None);
    slots.iter().rev().take(2).for_each(|slot| observer.emit(&event(*slot)));
    let samples = read_exposition(&registry.render());
    assert_eq!(samples["perigee_requests_total{site=\"(others)\",outcome=\"hit\",why=\"fresh\"}"], 2.0);
}

#[test]
fn purges_are_counted_by_scope_and_form() {
    let registry = registry();
    registry.count_purge(PurgeScope::Tag, PurgeForm::Soft);
    registry.count_failed_reload();
    let samples = read_exposition(&registry.render());
    assert_eq!(samples["perigee_purges_total{scope=\"tag\",form=\"soft\"}"], 1.0);
    assert_eq!(samples["perigee_purges_total{scope=\"tag\",form=\"hard\"}"], 0.0);
    assert_eq!(samples["perigee_config_reloads_total{result=\"failed\"}"], 1.0);
}
