//! `origin` and `origin_options` of a site or a rule → [`OriginGroup`].

use std::sync::Arc;
use std::time::Duration;

use super::check::{Findings, Item, Section, Span};
use super::pieces::{header_ops, statuses};
use crate::budget::{Amount, BudgetPolicy, bounds as limits};
use crate::origin::{Origin, OriginGroup, Probe, bounds, is_host_name};
use crate::rule::HeaderOps;

/// The group of a site or rule. Without `origin`, `inherited` is what the site has; options alone change a copy of it.
pub(super) fn build(
    findings: &mut Findings<'_>,
    section: &Section,
    inherited: Option<&Arc<OriginGroup>>,
) -> Option<Arc<OriginGroup>> {
    let origins = origin_list(findings, section);
    let options = section.table("origin_options");
    let mut group = match (origins, inherited) {
        (Some(origins), Some(inherited)) => of_rule(origins, inherited),
        (Some(origins), None) => {
            let mut group = OriginGroup::of(Origin::clone(origins.first()?));
            group.origins = origins;
            group
        }
        (None, Some(inherited)) if options.is_none() => return Some(inherited.clone()),
        (None, Some(inherited)) => (**inherited).clone(),
        (None, None) => return None,
    };
    // A rule's own origins are reached as the site's are, unless its own options say otherwise.
    if let (true, Some(like)) = (section.has("origin"), inherited.and_then(|group| group.origins.first())) {
        for origin in &mut group.origins {
            let origin = Arc::make_mut(origin);
            origin.host_override = like.host_override.clone();
            origin.http2 = like.http2;
            origin.tls = like.tls.clone();
            origin.timeouts = like.timeouts;
            origin.connections_max = like.connections_max;
        }
    }
    if let Some(options) = options {
        let budget = options.table("budget");
        apply_options(findings, options, &mut group);
        match (budget, inherited) {
            (None, _) => {}
            (Some(budget), None) => {
                let site = section.text("name").map_or("", |(name, _)| name);
                group.budget = build_budget(findings, budget, site);
            }
            (Some(budget), Some(_)) => {
                findings.error(
                    &budget.span,
                    "budget is a site's and no rule's: all rules with the same origin draw on one",
                    "put it into the origin_options of the site",
                );
            }
        }
    }
    Some(Arc::new(group))
}

/// The group of a rule with origins of its own: as the site's, but for what the site's origins know us by. What is removed on the
/// way to those is a matter of the rule's own changes then.
fn of_rule(origins: Vec<Arc<Origin>>, site: &OriginGroup) -> OriginGroup {
    let place = |origin: &Arc<Origin>| site.origins.iter().position(|known| known.url() == origin.url());
    let of = |origin| place(origin).and_then(|place| site.request_headers_of.get(place)).cloned();
    let request_headers_of = match site.request_headers_of.is_empty() {
        true => Vec::new(),
        false => origins.iter().map(|origin| of(origin).unwrap_or_default()).collect(),
    };
    let mut group = OriginGroup { origins, request_headers_of, ..site.clone() };
    if group.is_elsewhere(site) {
        group.request_headers = HeaderOps::default();
    }
    group
}

fn origin_list(findings: &mut Findings<'_>, section: &Section) -> Option<Vec<Arc<Origin>>> {
    let item = section.item("origin")?;
    let mut origins: Vec<Arc<Origin>> = Vec::new();
    for (url, span) in item.list().iter().filter_map(Item::text) {
        match Origin::parse(url) {
            Ok(origin) if origins.iter().any(|other| **other == origin) => {
                findings.warn(span, format!("the origin {url:?} stands twice in the list"), "leave one out");
            }
            Ok(origin) => origins.push(Arc::new(origin)),
            Err(bad) => findings.error(span, format!("the origin {url:?} {}", bad.reason), bad.help),
        }
    }
    if item.list().is_empty() {
        findings.error(
            &item.span,
            "origin is an empty list",
            "write e.g. origin = \"https://origin.shop.example\"",
        );
    }
    if origins.len() > bounds::ORIGINS_MAX {
        let message = format!("origin is a list of {}; it may have {}", origins.len(), bounds::ORIGINS_MAX);
        findings.error(&item.span, message, "put a load balancer before them");
    }
    (!origins.is_empty()).then_some(origins)
}

fn apply_options(findings: &mut Findings<'_>, options: &Section, group: &mut OriginGroup) {
    let host = options.text("host").and_then(|(host, span)| checked_host(findings, "host", host, span));
    let http2 = options.bool("http2");
    let connections_max = options.number("connections_max");
    for origin in &mut group.origins {
        let origin = Arc::make_mut(origin);
        if host.is_some() {
            origin.host_override.clone_from(&host);
        }
        origin.http2 = http2.unwrap_or(origin.http2);
        origin.connections_max = connections_max.unwrap_or(origin.connections_max);
        if let Some(timeouts) = options.table("timeouts") {
            let to = &mut origin.timeouts;
            to.connect = timeouts.time("connect").unwrap_or(to.connect);
            to.first_byte = timeouts.time("first_byte").unwrap_or(to.first_byte);
            to.idle = timeouts.time("idle").unwrap_or(to.idle);
            to.total = timeouts.time("total").or(to.total);
            to.keep_alive = timeouts.time("keep_alive").unwrap_or(to.keep_alive);
            timeouts.finish();
        }
    }
    if let Some(tls) = options.table("tls") {
        apply_tls(findings, tls, group);
    }
    if let Some(changes) = options.table("request_headers") {
        group.request_headers.ops.extend(header_ops(findings, changes).ops);
    }
    for (url, item) in options.map("request_headers_of") {
        let Some(changes) = item.table() else { continue };
        let changes = header_ops(findings, changes);
        // Compared by where they are; how they are reached is the same for all.
        let is_named =
            |origin: &Arc<Origin>| Origin::parse(&url.text).is_ok_and(|named| named.url() == origin.url());
        let Some(place) = group.origins.iter().position(is_named) else {
            let known: Vec<String> = group.origins.iter().map(|origin| origin.url()).collect();
            let message = format!("request_headers_of names {:?}, which is none of the origins", url.text);
            findings.error(&url.span, message, format!("the origins are {}", known.join(", ")));
            continue;
        };
        group.request_headers_of.resize_with(group.origins.len(), HeaderOps::default);
        group.request_headers_of[place].ops.extend(changes.ops);
    }
    if let Some(item) = options.item("fail_over") {
        group.fail_over_statuses = statuses(findings, "fail_over", item.list());
    }
    if let Some(retry) = options.table("retry") {
        group.retry.percent = retry.number("percent").unwrap_or(group.retry.percent);
        group.retry.floor_per_sec = retry.number("floor_per_second").unwrap_or(group.retry.floor_per_sec);
        retry.finish();
    }
    if let Some(section) = options.table("breaker") {
        apply_breaker(section, group);
    }
    if let Some(section) = options.table("health") {
        apply_health(findings, section, group);
    }
    options.finish();
}

fn build_budget(findings: &mut Findings<'_>, section: &Section, site: &str) -> Option<BudgetPolicy> {
    let [rate, in_flight] = ["requests_per_second", "in_flight"].map(|key| section.number(key));
    if !section.has("requests_per_second") && !section.has("in_flight") {
        findings.error(
            &section.span,
            "the budget allows everything",
            "write e.g. budget = { requests_per_second = 200, in_flight = 50 }",
        );
    }
    let total = Amount {
        requests_per_second: rate.unwrap_or(Amount::MAX.requests_per_second),
        in_flight: in_flight.unwrap_or(Amount::MAX.in_flight),
    };
    let budget = BudgetPolicy {
        site: site.into(),
        total,
        queue: section.time("queue").unwrap_or(limits::QUEUE.default),
        stale_deadline: section.time("stale_deadline").unwrap_or(limits::STALE_DEADLINE.default),
        reserve_percent: section.number("reserve_percent").unwrap_or(limits::RESERVE.default),
        nodes: section.number("nodes").unwrap_or(limits::NODES.default),
        grace: section.time("grace").unwrap_or(limits::GRACE.default),
    };
    section.finish();
    Some(budget)
}

fn apply_tls(findings: &mut Findings<'_>, section: &Section, group: &mut OriginGroup) {
    let ca = section.text("ca").map(|(path, _)| Box::<str>::from(path));
    let server_name = section
        .text("server_name")
        .and_then(|(name, span)| checked_host(findings, "server_name", name, span));
    let verify = section.bool("verify");
    if verify == Some(false) {
        let span = section.item("verify").map_or(0..0, |item| item.span.clone());
        findings.warn(
            &span,
            "the origin's certificate is not checked: anyone on the way can read and change everything",
            "for a private certificate write ca = \"file.pem\" instead",
        );
    }
    if group.origins.iter().all(|origin| origin.scheme == crate::Scheme::Http) {
        findings.warn(
            &section.span,
            "tls has no effect: the origin is http",
            "write https in the origin's URL",
        );
    }
    for origin in &mut group.origins {
        let tls = &mut Arc::make_mut(origin).tls;
        tls.ca = ca.clone().or(tls.ca.take());
        tls.server_name = server_name.clone().or(tls.server_name.take());
        tls.verify = verify.unwrap_or(tls.verify);
    }
    section.finish();
}

fn apply_breaker(section: &Section, group: &mut OriginGroup) {
    let to = &mut group.breaker;
    to.consecutive_failures = section.number("consecutive_failures").unwrap_or(to.consecutive_failures);
    to.row_ms = section.time("row").map_or(to.row_ms, millis);
    to.failure_percent = section
        .number("failure_percent")
        .and_then(|percent| u8::try_from(percent).ok())
        .unwrap_or(to.failure_percent);
    to.attempts_min = section.number("attempts_min").unwrap_or(to.attempts_min);
    to.window_ms = section.time("window").map_or(to.window_ms, millis);
    to.probe_interval_ms = section.time("probe_interval").map_or(to.probe_interval_ms, millis);
    to.probes_to_close = section.number("probes_to_close").unwrap_or(to.probes_to_close);
    section.finish();
}

fn apply_health(findings: &mut Findings<'_>, section: &Section, group: &mut OriginGroup) {
    let to = &mut group.health;
    to.down_after = section.number("down_after").unwrap_or(to.down_after);
    to.up_after = section.number("up_after").unwrap_or(to.up_after);
    to.aside_after = section.number("aside_after").unwrap_or(to.aside_after);
    to.aside_ms = section.time("aside").map_or(to.aside_ms, millis);
    let (interval, timeout) = (section.time("interval"), section.time("timeout"));
    let wanted = match section.item("statuses") {
        Some(item) => statuses(findings, "statuses", item.list()),
        None => vec![200..=399],
    };
    match section.text("path") {
        Some((path, span)) => {
            if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
                let message = format!("the health path {path:?} is no path");
                findings.error(span, message, "write e.g. \"/healthz\"");
            }
            group.probe = Some(Probe {
                path: path.into(),
                interval: interval.unwrap_or(bounds::PROBE_INTERVAL.default),
                timeout: timeout.unwrap_or(bounds::PROBE_TIMEOUT.default),
                statuses: wanted,
            });
        }
        None => {
            let useless =
                section.present().find(|(key, _)| matches!(*key, "interval" | "timeout" | "statuses"));
            if let Some((key, span)) = useless.filter(|_| group.probe.is_none()) {
                let message = format!("{key} has no effect: health has no path, so there are no probes");
                findings.warn(span, message, "add path = \"/healthz\"");
            }
        }
    }
    section.finish();
}

/// A host as it may stand in Host or in a certificate: a name or an address, perhaps with a port.
fn checked_host(findings: &mut Findings<'_>, key: &str, host: &str, span: &Span) -> Option<Box<str>> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if key == "host" && port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    if is_host_name(name) || address.is_ok() {
        return Some(host.to_ascii_lowercase().into());
    }
    let help = match host.split_once("://") {
        Some((_, rest)) => format!("leave out the scheme: {:?}", rest.trim_end_matches('/')),
        None => "write e.g. \"shop.internal.example\"".to_owned(),
    };
    findings.error(span, format!("{key}: {host:?} is not a host"), help);
    None
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
