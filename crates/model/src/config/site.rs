//! `[[site]]` and `[[site.rule]]` → [`Site`] and [`Rule`], with what only several keys together can get wrong.

use std::sync::Arc;

use semantics::key::normalise_path;

use super::check::{Findings, Item, Section, Span};
use super::choices::apply_choices;
use super::pieces::{check_cookie_name, check_header_name, check_method, statuses, value_test};
use super::{check_name, origins, tests_of_site, tiers};
use crate::diagnostic::did_you_mean;
use crate::glob::{Glob, IGNORES_CASE};
use crate::origin::{Scheme, is_host_name};
use crate::rule::{Conditions, HeaderOps, Rule};
use crate::snapshot::Site;

/// Most rules in a site: matching looks at one after the other.
pub(super) const RULES_MAX: usize = 1000;

/// A site; `None` when it lacks what nothing can stand in for.
pub(super) fn build(findings: &mut Findings<'_>, section: &Section, index: usize) -> Option<Site> {
    let name = section.text("name").map(|(name, span)| {
        check_name(findings, "the site name", name, span);
        name.to_owned()
    });
    let domains = build_domains(findings, section);
    let group = origins::build(findings, section, None);
    // A site without a usable origin is refused anyway; its rules are still read, for their findings.
    let stand_in = || {
        crate::Origin::parse("http://localhost").ok().map(|origin| Arc::new(crate::OriginGroup::of(origin)))
    };
    let max_purge_lag = section.time("max_purge_lag");
    let origin_missing = group.is_none();
    let mut defaults = Rule::defaults(group.or_else(stand_in)?, findings.line(&section.span));
    apply_choices(findings, section, &mut defaults);

    let mut rules = Vec::new();
    let mut places = Vec::new();
    for (position, rule_section) in section.list("rule").iter().filter_map(Item::table).enumerate() {
        let errors_before = findings.list.len();
        let conditions = build_conditions(findings, rule_section, &domains);
        places
            .push(Place { span: rule_section.span.clone(), is_sound: findings.list.len() == errors_before });
        rules.push(build_rule(findings, rule_section, conditions, &defaults, position as u32 + 1));
    }
    refuse_same_titles(findings, &rules, section);
    if rules.len() <= RULES_MAX {
        warn_of_shadowed(findings, &rules, &places);
    }
    rules.iter_mut().chain([&mut defaults]).filter_map(|rule| rule.rewrite.as_mut()).for_each(|rewrite| {
        let rewrite = Arc::make_mut(rewrite);
        rewrite.add_own_hosts(domains.iter().map(|domain| &**domain).filter(|domain| !domain.contains('*')));
    });
    let tests = tests_of_site::build(findings, section, &rules, &domains);
    let client_ca = section.text("client_ca").map(|(path, _)| path.into());
    let pops = section.list("pops").iter().filter_map(Item::text).map(|(name, _)| name.into()).collect();
    let shields = tiers::build_shields(section);
    section.finish();
    if origin_missing || domains.is_empty() {
        return None;
    }
    Some(Site {
        name: name?.into(),
        index,
        domains,
        max_purge_lag,
        client_ca,
        pops,
        shields,
        has_response_rules: rules.iter().any(Rule::is_response_rule),
        rules,
        defaults,
        tests,
        line: findings.line(&section.span),
    })
}

// --- Domains ---

fn build_domains(findings: &mut Findings<'_>, section: &Section) -> Vec<Box<str>> {
    let mut domains: Vec<Box<str>> = Vec::new();
    for (domain, span) in section.list("domains").iter().filter_map(Item::text) {
        match check_domain(domain) {
            Ok(domain) if domains.contains(&domain) => {}
            Ok(domain) => domains.push(domain),
            Err((reason, help)) => findings.error(span, format!("the domain {domain:?} {reason}"), help),
        }
    }
    if let Some(item) = section.item("domains").filter(|item| item.list().is_empty()) {
        findings.error(&item.span, "domains is an empty list", "write e.g. domains = [\"www.shop.example\"]");
    }
    for (domain, span) in section.list("domains").iter().filter_map(Item::text) {
        let domain = domain.to_ascii_lowercase();
        let covering = domains.iter().find(|wide| {
            wide.strip_prefix('*')
                .is_some_and(|end| ***wide != *domain && domain.ends_with(end) && domain.len() > end.len())
        });
        if let Some(wide) = covering {
            let message = format!("the domain {domain:?} is part of {wide:?}, which this site has too");
            findings.warn(span, message, "leave it out");
        }
    }
    domains
}

fn check_domain(domain: &str) -> Result<Box<str>, (String, String)> {
    let lower = domain.to_ascii_lowercase();
    let bad = |reason: &str, help: String| Err((reason.to_owned(), help));
    if domain == "*" || lower.parse::<std::net::IpAddr>().is_ok() {
        return Ok(lower.into());
    }
    if let Some((_, rest)) = lower.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return bad("has a scheme", format!("a domain is only the host: {host:?}"));
    }
    if let Some((host, _)) = lower.split_once('/') {
        return bad("has a path", format!("a domain is only the host: {host:?}; paths belong into rules"));
    }
    if let Some((host, _)) = lower.split_once(':') {
        return bad("has a port", format!("a site answers on every port: {host:?}"));
    }
    if !domain.is_ascii() {
        return bad("is not ASCII", "write it as browsers send it, in Punycode: \"xn--…\"".to_owned());
    }
    let name = lower.strip_prefix("*.").unwrap_or(&lower);
    if name.contains('*') {
        return bad(
            "has a \"*\" in the middle",
            "a \"*\" stands alone, or at the start before a dot: \"*.shop.example\"".to_owned(),
        );
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || !is_host_name(name) {
        return bad("is no host name", "write e.g. \"www.shop.example\"".to_owned());
    }
    Ok(lower.strip_suffix('.').unwrap_or(&lower).into())
}

// --- Rules ---

/// Where a rule stands, and whether its conditions had no findings: a bad one is missing from its rule, which then
/// seems to match more than it says.
struct Place {
    span: Span,
    is_sound: bool,
}

fn build_rule(
    findings: &mut Findings<'_>,
    section: &Section,
    conditions: Conditions,
    defaults: &Rule,
    number: u32,
) -> Rule {
    let mut rule = Rule {
        title: section.text("name").map(|(name, _)| name.into()),
        number,
        line: findings.line(&section.span),
        conditions,
        ..defaults.clone()
    };
    if let Some((name, span)) = section.text("name") {
        check_name(findings, "the rule name", name, span);
    }
    if rule.is_response_rule() {
        rule.response_headers = HeaderOps::default();
        rule.browser_ttl = None;
        refuse_for_response_rule(findings, section);
    }
    if let Some(group) = origins::build(findings, section, Some(&defaults.origin)) {
        if group.is_elsewhere(&defaults.origin) {
            rule.request_headers = defaults.request_headers.without_credentials();
            // What is kept from the site's origins is kept from others all the more, unless the rule itself says it.
            rule.request_headers.ops.extend(defaults.origin.request_headers.removals().ops);
        }
        rule.origin = group;
    }
    apply_choices(findings, section, &mut rule);
    section.finish();
    rule
}

fn build_conditions(findings: &mut Findings<'_>, section: &Section, domains: &[Box<str>]) -> Conditions {
    let mut conditions = Conditions::default();
    for (path, span) in section.list("path").iter().filter_map(Item::text) {
        match check_path(path) {
            Ok(()) => conditions.paths.push(Glob::new(path)),
            Err((reason, help)) => findings.error(span, format!("the path {path:?} {reason}"), help),
        }
    }
    for (method, span) in section.list("methods").iter().filter_map(Item::text) {
        conditions.methods.extend(check_method(findings, method, span));
    }
    for (host, span) in section.list("hosts").iter().filter_map(Item::text) {
        let glob = Glob::new(&host.to_ascii_lowercase());
        let reachable = domains.iter().any(|domain| {
            let domain = Glob::new(domain);
            glob.covers(&domain) || domain.covers(&glob) || glob.star_count() + domain.star_count() > 1
        });
        if !reachable && !domains.is_empty() {
            let message =
                format!("the host {host:?} is none of the site's domains, so the rule never matches it");
            let help = match did_you_mean(host, domains.iter().map(|domain| &**domain)) {
                Some(close) => format!("did you mean {close:?}?"),
                None => format!("the site has {}", domains.join(", ")),
            };
            findings.warn(span, message, help);
        }
        conditions.hosts.push(glob);
    }
    conditions.scheme = section.text("scheme").map(|(scheme, _)| match scheme {
        "http" => Scheme::Http,
        _ => Scheme::Https,
    });
    for (name, item) in section.map("with_header") {
        if let Some(header) = check_header_name(findings, name, false) {
            conditions.headers.push((header, value_test(item)));
        }
    }
    for (name, item) in section.map("with_cookie") {
        if check_cookie_name(findings, &name.text, &name.span) {
            conditions.cookies.push((name.text.as_str().into(), value_test(item)));
        }
    }
    conditions.statuses = statuses(findings, "status", section.list("status"));
    for key in ["path", "methods", "hosts", "status"] {
        if let Some(item) = section.item(key).filter(|item| item.list().is_empty()) {
            // A list whose members were all bad is not empty in the text.
            if findings
                .text
                .get(item.span.clone())
                .is_some_and(|text| !text.contains('"') && !text.contains(char::is_alphanumeric))
            {
                findings.error(
                    &item.span,
                    format!("{key} is an empty list, so the rule would never match"),
                    format!("leave {key} out to match all"),
                );
            }
        }
    }
    conditions
}

fn check_path(path: &str) -> Result<(), (String, String)> {
    let bad = |reason: &str, help: String| Err((reason.to_owned(), help));
    let path = path.strip_prefix(IGNORES_CASE).unwrap_or(path);
    if !path.starts_with(['/', '*']) {
        return bad("does not begin with \"/\" or \"*\"", format!("write {:?}", format!("/{path}")));
    }
    if let Some((before, _)) = path.split_once('?') {
        let help = format!(
            "the query is not part of the path; write {before:?}, and query = {{ keep = […] }} for the cache key"
        );
        return bad("has a \"?\"", help);
    }
    if let Some((before, _)) = path.split_once('#') {
        return bad("has a \"#\", which browsers never send", format!("write {before:?}"));
    }
    if path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        let encoded: String = path
            .bytes()
            .map(|byte| match byte {
                b'!'..=b'~' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        return bad("has a character that no URL has", format!("write {encoded:?}"));
    }
    let normal = normalise_path(path.as_bytes());
    if *normal != *path.as_bytes() {
        let help = format!("write {:?}", String::from_utf8_lossy(&normal));
        return bad("is not in the spelling in which paths are compared", help);
    }
    Ok(())
}

fn refuse_for_response_rule(findings: &mut Findings<'_>, section: &Section) {
    const ALLOWED: [&str; 10] = [
        "name",
        "path",
        "methods",
        "hosts",
        "scheme",
        "with_header",
        "with_cookie",
        "status",
        "response_headers",
        "browser_ttl",
    ];
    for (key, span) in section.present().filter(|(key, _)| !ALLOWED.contains(key)) {
        let help = match key {
            "ttl" => "write ttl_by_status in a rule without status",
            _ => {
                "put it into a rule without status; a rule with status may say response_headers and browser_ttl"
            }
        };
        let message = format!("{key} in a rule with status comes too late: the response is already here");
        findings.error(span, message, help);
    }
}

fn refuse_same_titles(findings: &mut Findings<'_>, rules: &[Rule], site: &Section) {
    let sections = site.list("rule").iter().filter_map(Item::table);
    for (index, section) in sections.enumerate() {
        let Some((title, span)) = section.text("name") else { continue };
        if let Some(first) = rules[..index].iter().find(|rule| rule.title.as_deref() == Some(title)) {
            let message =
                format!("two rules of the site have the name {title:?}; the first is in line {}", first.line);
            findings.error(span, message, "give each rule its own name");
        }
    }
}

/// A rule can never match when an earlier one of its kind matches all that it does. Only single earlier rules are
/// compared, not several together.
fn warn_of_shadowed(findings: &mut Findings<'_>, rules: &[Rule], places: &[Place]) {
    for (index, rule) in rules.iter().enumerate() {
        let shadow = rules[..index].iter().zip(places).find(|(earlier, place)| {
            place.is_sound
                && places[index].is_sound
                && earlier.is_response_rule() == rule.is_response_rule()
                && earlier.conditions.cover(&rule.conditions)
        });
        if let Some((shadow, _)) = shadow {
            let what = match (&rule.title, rule.number) {
                (Some(title), number) => format!("rule {number} ({title})"),
                (None, number) => format!("rule {number}"),
            };
            let by = if shadow.title.is_some() {
                format!("{:?}", shadow.name())
            } else {
                shadow.name().into_owned()
            };
            let message = format!(
                "{what} can never match: {by} in line {} matches all of its requests first",
                shadow.line
            );
            findings.warn(&places[index].span, message, "put the narrower rule first, or leave it out");
        }
    }
}
