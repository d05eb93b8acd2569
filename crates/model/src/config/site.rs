//! `[[site]]` and `[[site.rule]]` → [`Site`] and [`Rule`], with what only several keys together can get wrong.

use std::sync::Arc;

use semantics::key::{KeyRecipe, Query, QueryPart, normalise_path};
use semantics::policy::{RequestCacheControl, SetCookie};
use semantics::vary::Normalise;

use super::check::{Findings, Item, Name, Section, Span, Value};
use super::{check_name, origins, tests_of_site};
use crate::Ttl;
use crate::cors::{Allow, AllowedOrigins, Cors};
use crate::diagnostic::did_you_mean;
use crate::glob::Glob;
use crate::origin::{Scheme, StatusRange, is_host_name};
use crate::redirect::{Redirect, STATUSES};
use crate::rule::{Cache, Conditions, CookieFilter, HeaderOp, HeaderOps, Rule, ValueTest};
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
    if rules.len() > RULES_MAX {
        let message = format!("the site has {} rules; it may have {RULES_MAX}", rules.len());
        findings.error(&places[RULES_MAX].span, message, "one path list in one rule says the same");
    } else {
        warn_of_shadowed(findings, &rules, &places);
    }
    let tests = tests_of_site::build(findings, section, &rules, &domains);
    section.finish();
    if origin_missing || domains.is_empty() {
        return None;
    }
    Some(Site {
        name: name?.into(),
        index,
        domains,
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

// --- What sites and rules say alike ---

fn apply_choices(findings: &mut Findings<'_>, section: &Section, rule: &mut Rule) {
    if let Some(cache) = section.bool("cache") {
        rule.cache = if cache { Cache::Use } else { Cache::Pass };
    }
    apply_policy(findings, section, rule);
    if let Some(ttl) = section.time("browser_ttl") {
        rule.browser_ttl = Some(Ttl::from_secs(ttl.as_secs()));
    }
    apply_key(findings, section, &mut rule.key);
    if let Some(changes) = section.table("request_headers") {
        rule.request_headers.ops.extend(header_ops(findings, changes).ops);
    }
    if let Some(changes) = section.table("response_headers") {
        rule.response_headers.ops.extend(header_ops(findings, changes).ops);
    }
    if let Some(item) = section.item("request_cookies") {
        rule.request_cookies = cookie_filter(findings, item);
    }
    for (tag, span) in section.list("surrogate_keys").iter().filter_map(Item::text) {
        if tag.is_empty()
            || tag.len() > 128
            || tag.bytes().any(|byte| byte <= b' ' || byte == b',' || byte >= 0x7f)
        {
            let message =
                format!("the surrogate key {tag:?} may have 1 to 128 characters, no blank and no comma");
            findings.error(span, message, "write e.g. \"static\"");
        }
        rule.surrogate_keys.push(tag.into());
    }
    if let Some(redirect) = section.table("redirect") {
        rule.redirect = build_redirect(findings, redirect, &rule.conditions);
    }
    if let Some(item) = section.item("cors") {
        rule.cors = build_cors(findings, item);
    }
    rule.websocket = section.bool("websocket").unwrap_or(rule.websocket);
    if rule.is_response_rule() {
        return;
    }
    if rule.cache == Cache::Pass && section.bool("cache") == Some(false) {
        warn_of_useless(
            findings,
            section,
            "cache = false",
            &[
                "ttl",
                "ttl_by_status",
                "stale_while_revalidate",
                "stale_if_error",
                "set_cookie",
                "heuristic",
                "key",
                "surrogate_keys",
            ],
        );
    }
    if section.has("redirect") {
        warn_of_useless(
            findings,
            section,
            "redirect",
            &["cache", "ttl", "ttl_by_status", "origin", "request_headers"],
        );
    }
}

fn warn_of_useless(findings: &mut Findings<'_>, section: &Section, because: &str, keys: &[&str]) {
    for (key, span) in section.present().filter(|(key, _)| keys.contains(key)) {
        findings.warn(span, format!("{key} has no effect beside {because}"), "leave one of them out");
    }
}

fn apply_policy(findings: &mut Findings<'_>, section: &Section, rule: &mut Rule) {
    let policy = &mut rule.policy;
    let secs = |name| section.time(name).map(|ttl| ttl.as_secs());
    policy.ttl = secs("ttl").or(policy.ttl);
    policy.stale_while_revalidate = secs("stale_while_revalidate").or(policy.stale_while_revalidate);
    policy.stale_if_error = secs("stale_if_error").or(policy.stale_if_error);
    if let Some(item) = section.item("ttl_by_status") {
        policy.ttl_by_status.clear();
        if let Value::Map(map) = &item.value {
            for (name, ttl) in map {
                let ttl = ttl.time().map_or(0, |ttl| ttl.as_secs());
                if let Some(range) = status_of_text(findings, "ttl_by_status", &name.text, &name.span) {
                    policy.ttl_by_status.push((range, ttl));
                }
            }
        }
        // The first match counts, so the narrower range stands first, wherever the file has it.
        policy.ttl_by_status.sort_by_key(|(range, _)| (range.end() - range.start(), *range.start()));
    }
    policy.set_cookie = match section.text("set_cookie").map(|(word, _)| word) {
        Some("refuse") => SetCookie::Refuse,
        Some("rfc9111") => SetCookie::Rfc9111,
        Some("strip") => SetCookie::Strip,
        _ => policy.set_cookie,
    };
    if let Some(item) = section.item("targeted") {
        policy.targeted = item.list().iter().filter_map(|item| header_name_of(findings, item)).collect();
    }
    if let Some(heuristic) = section.table("heuristic") {
        if let Some(percent) = heuristic.number("percent").and_then(|percent| u8::try_from(percent).ok()) {
            policy.heuristic.fraction_percent = percent;
        }
        policy.heuristic.max_secs =
            heuristic.time("max").map_or(policy.heuristic.max_secs, |max| max.as_secs());
        heuristic.finish();
    }
    policy.request_cache_control = match section.text("request_cache_control").map(|(word, _)| word) {
        Some("honour") => RequestCacheControl::Honour,
        Some("ignore") => RequestCacheControl::Ignore,
        _ => policy.request_cache_control,
    };
    policy.share_authorized = section.bool("share_authorized").unwrap_or(policy.share_authorized);
    for (name, item) in section.map("vary") {
        let Some(header) = check_header_name(findings, name, false) else { continue };
        let how = match &item.value {
            Value::Text(word) => match word.as_str() {
                "lowercase" => Normalise::Lowercase,
                "sorted" => Normalise::SortedList,
                _ => Normalise::Presence,
            },
            _ => Normalise::FirstOf(
                item.list().iter().filter_map(Item::text).map(|(value, _)| value.to_owned()).collect(),
            ),
        };
        policy.vary_normalise.retain(|(other, _)| **other != *header);
        policy.vary_normalise.push((header.into(), how));
    }
}

fn apply_key(findings: &mut Findings<'_>, section: &Section, recipe: &mut KeyRecipe) {
    match section.item("query").map(|item| &item.value) {
        Some(Value::Text(word)) if word == "ignore" => {
            recipe.query = Query { part: QueryPart::None, sort: false }
        }
        Some(Value::Text(_)) => recipe.query = Query::default(),
        Some(Value::Table(query)) => {
            let names =
                |name| query.list(name).iter().filter_map(Item::text).map(|(name, _)| name.to_owned());
            let (keep, drop): (Vec<String>, Vec<String>) = (names("keep").collect(), names("drop").collect());
            for (name, span) in ["keep", "drop"].iter().flat_map(|key| query.list(key)).filter_map(Item::text)
            {
                let inner = name.strip_suffix('*').unwrap_or(name);
                if name.is_empty() || inner.contains(['*', '=', '&', '#', '?']) {
                    let message = format!("the query parameter {name:?} is no name");
                    findings.error(
                        span,
                        message,
                        "write the name before \"=\"; a \"*\" may stand at its end: \"utm_*\"",
                    );
                }
            }
            let part = match (query.has("keep"), query.has("drop")) {
                (true, true) => {
                    let message = "query has both keep and drop";
                    findings.error(
                        &query.span,
                        message,
                        "keep the parameters that count, or drop those that don't",
                    );
                    QueryPart::All
                }
                (true, false) => QueryPart::Keep(keep),
                (false, true) => QueryPart::Drop(drop),
                (false, false) => QueryPart::All,
            };
            recipe.query = Query { part, sort: query.bool("sort").unwrap_or(false) };
            query.finish();
        }
        _ => {}
    }
    let Some(key) = section.table("key") else { return };
    if let Some(item) = key.item("headers") {
        recipe.headers = item
            .list()
            .iter()
            .filter_map(|item| header_name_of(findings, item))
            .map(|name| name.to_ascii_lowercase())
            .collect();
    }
    if let Some(item) = key.item("cookies") {
        recipe.cookies.clear();
        for (name, span) in item.list().iter().filter_map(Item::text) {
            if check_cookie_name(findings, name, span) {
                recipe.cookies.push(name.to_owned());
            }
        }
    }
    recipe.device_class = key.bool("device").unwrap_or(recipe.device_class);
    key.finish();
}

fn cookie_filter(findings: &mut Findings<'_>, item: &Item) -> CookieFilter {
    let section = match &item.value {
        Value::Table(section) => section,
        Value::Text(word) if word == "none" => return CookieFilter::None,
        _ => return CookieFilter::All,
    };
    let globs =
        |name| section.list(name).iter().filter_map(Item::text).map(|(name, _)| Glob::new(name)).collect();
    let (keep, drop): (Vec<Glob>, Vec<Glob>) = (globs("keep"), globs("drop"));
    section.finish();
    match (section.has("keep"), section.has("drop")) {
        (true, true) => {
            let help = "keep the cookies that the origin needs, or drop those that it doesn't";
            findings.error(&item.span, "request_cookies has both keep and drop", help);
            CookieFilter::All
        }
        (true, false) => CookieFilter::Keep(keep),
        (false, true) => CookieFilter::Drop(drop),
        (false, false) => CookieFilter::All,
    }
}

fn build_redirect(
    findings: &mut Findings<'_>,
    section: &Section,
    conditions: &Conditions,
) -> Option<Redirect> {
    let status = section.number("status").map_or(308, |status| status as u16);
    if let Some(item) = section.item("status").filter(|_| !STATUSES.contains(&status)) {
        let message = format!("{status} is no redirect");
        findings.error(&item.span, message, "write 301, 302, 303, 307 or 308");
    }
    let stars = conditions.paths.iter().map(Glob::star_count).min().unwrap_or(0);
    let built = match section.text("to") {
        Some((to, span)) => Redirect::parse(to, status, stars)
            .map_err(|reason| findings.error(span, format!("the redirect {to:?} {reason}"), ""))
            .ok(),
        None => None,
    };
    section.finish();
    built
}

fn build_cors(findings: &mut Findings<'_>, item: &Item) -> Cors {
    let mut allow = Allow {
        origins: AllowedOrigins::Any,
        methods: Vec::new(),
        headers: Vec::new(),
        expose: Vec::new(),
        credentials: false,
        max_age_secs: super::keys::CORS_MAX_AGE.as_secs(),
    };
    let section = match &item.value {
        Value::Table(section) => section,
        Value::Text(word) if word == "off" => return Cors::Off,
        Value::Text(word) if word == "all" => return Cors::Allow(allow),
        _ => return Cors::Static,
    };
    let mut listed: Vec<Box<str>> = Vec::new();
    for (origin, span) in section.list("origins").iter().filter_map(Item::text) {
        match crate::Origin::parse(origin) {
            _ if origin == "*" => continue,
            Ok(parsed) if parsed.url() == origin => listed.push(origin.into()),
            Ok(parsed) => {
                let wanted = format!("{}://{}", parsed.scheme.as_str(), parsed.authority());
                let message = format!("the origin {origin:?} is not as browsers send it");
                findings.error(span, message, format!("write {wanted:?}"));
            }
            Err(bad) => findings.error(
                span,
                format!("the origin {origin:?} {}", bad.reason),
                "write e.g. \"https://shop.example\"",
            ),
        }
    }
    let any = section.list("origins").iter().filter_map(Item::text).any(|(origin, _)| origin == "*");
    if !any {
        allow.origins = AllowedOrigins::List(listed);
    }
    for (method, span) in section.list("methods").iter().filter_map(Item::text) {
        allow.methods.extend(check_method(findings, method, span));
    }
    let mut names = |key| -> Vec<Box<str>> {
        section.list(key).iter().filter_map(|item| header_name_or_star(findings, item)).collect()
    };
    (allow.headers, allow.expose) = (names("headers"), names("expose"));
    allow.credentials = section.bool("credentials").unwrap_or(false);
    if allow.credentials && any {
        let span = section.item("credentials").map_or(0..0, |item| item.span.clone());
        let message = "credentials = true with origins = \"*\": browsers refuse that, and every site could read visitors' data";
        findings.error(&span, message, "list the origins that may");
    }
    allow.max_age_secs = section.time("max_age").map_or(allow.max_age_secs, |age| age.as_secs());
    section.finish();
    Cors::Allow(allow)
}

// --- Pieces ---

/// Changes to headers; a bad name or value is a finding and left out.
pub(super) fn header_ops(findings: &mut Findings<'_>, section: &Section) -> HeaderOps {
    let mut ops = Vec::new();
    for (name, span) in section.list("remove").iter().filter_map(Item::text) {
        let name = Name { span: span.clone(), text: name.to_owned() };
        if check_header_name(findings, &name, true).is_some() {
            ops.push(HeaderOp::Remove(name.text.into()));
        }
    }
    for (name, item) in section.map("set") {
        if check_header_name(findings, name, true).is_none() {
            continue;
        }
        let header: Box<str> = name.text.as_str().into();
        if let Some(value) = item.text().and_then(|(value, span)| check_header_value(findings, value, span)) {
            ops.push(HeaderOp::Set(header, value));
        }
    }
    for (name, item) in section.map("add") {
        if check_header_name(findings, name, true).is_none() {
            continue;
        }
        let header: Box<str> = name.text.as_str().into();
        for (value, span) in item.list().iter().filter_map(Item::text) {
            ops.extend(
                check_header_value(findings, value, span).map(|value| HeaderOp::Add(header.clone(), value)),
            );
        }
    }
    section.finish();
    HeaderOps { ops }
}

/// Fields that frame messages or guard against loops: changing them breaks more than the request.
const GUARDED: [&str; 12] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "host",
    "via",
    "cdn-loop",
    "age",
];

/// A header name in lower case.
pub(super) fn check_header_name(
    findings: &mut Findings<'_>,
    name: &Name,
    for_change: bool,
) -> Option<Box<str>> {
    if name.text.is_empty() || name.text.len() > 128 || !name.text.bytes().all(semantics::fields::is_tchar) {
        let help = match name.text.trim_end().strip_suffix(':') {
            Some(bare) => format!("leave out the colon: {bare:?}"),
            None => "a header name has letters, digits and \"-\", as in \"X-Device\"".to_owned(),
        };
        findings.error(&name.span, format!("{:?} is not a header name", name.text), help);
        return None;
    }
    let lower = name.text.to_ascii_lowercase();
    if for_change && GUARDED.contains(&lower.as_str()) {
        let help = match lower.as_str() {
            "host" => "for the Host that origins are asked for write origin_options = { host = \"…\" }",
            _ => "it belongs to the connection, not to the content",
        };
        findings.error(&name.span, format!("{} cannot be changed by a rule", name.text), help);
        return None;
    }
    Some(lower.into())
}

fn check_header_value(findings: &mut Findings<'_>, value: &str, span: &Span) -> Option<Box<str>> {
    if value.len() > 4096 || value.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        let message =
            "the header value has a line break or another control character, or is over 4096 bytes long";
        findings.error(span, message, "write it in one line");
        return None;
    }
    Some(value.trim_matches([' ', '\t']).into())
}

fn header_name_of(findings: &mut Findings<'_>, item: &Item) -> Option<String> {
    let (text, span) = item.text()?;
    let name = Name { span: span.clone(), text: text.to_owned() };
    check_header_name(findings, &name, false).map(|_| text.to_owned())
}

fn header_name_or_star(findings: &mut Findings<'_>, item: &Item) -> Option<Box<str>> {
    match item.text() {
        Some(("*", _)) => Some("*".into()),
        _ => header_name_of(findings, item).map(Into::into),
    }
}

fn check_cookie_name(findings: &mut Findings<'_>, name: &str, span: &Span) -> bool {
    let good = !name.is_empty() && name.len() <= 128 && name.bytes().all(semantics::fields::is_tchar);
    if !good {
        findings.error(
            span,
            format!("{name:?} is not a cookie name"),
            "write the name before \"=\", as in \"session\"",
        );
    }
    good
}

pub(super) fn check_method(findings: &mut Findings<'_>, method: &str, span: &Span) -> Option<Box<str>> {
    const KNOWN: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    if method.is_empty() || !method.bytes().all(semantics::fields::is_tchar) {
        findings.error(
            span,
            format!("{method:?} is not a method"),
            format!("write e.g. {}", KNOWN.join(", ")),
        );
        return None;
    }
    let upper = method.to_ascii_uppercase();
    if method != upper && KNOWN.contains(&upper.as_str()) {
        findings.error(
            span,
            format!("the method {method:?} is not the method {upper:?}: case counts"),
            format!("write {upper:?}"),
        );
        return None;
    }
    if let Some(close) = did_you_mean(method, KNOWN).filter(|close| *close != method) {
        findings.warn(span, format!("the method {method:?} is unusual"), format!("did you mean {close:?}?"));
    }
    Some(method.into())
}

/// Statuses as numbers, classes and ranges: `404`, `"404"`, `"5xx"`, `"500-503"`.
pub(super) fn statuses(findings: &mut Findings<'_>, key: &str, items: &[Item]) -> Vec<StatusRange> {
    items
        .iter()
        .filter_map(|item| match &item.value {
            Value::Number(number) => u16::try_from(*number).ok().map(|status| status..=status),
            Value::Text(text) => status_of_text(findings, key, text, &item.span),
            _ => None,
        })
        .collect()
}

fn status_of_text(findings: &mut Findings<'_>, key: &str, text: &str, span: &Span) -> Option<StatusRange> {
    let one = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = match text.as_bytes() {
        [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
            let first = u16::from(class - b'0') * 100;
            Some(first..=first + 99)
        }
        _ => match text.split_once('-') {
            Some((first, last)) => one(first.trim()).zip(one(last.trim())).map(|(first, last)| first..=last),
            None => one(text).map(|status| status..=status),
        },
    };
    let range = range.filter(|range| !range.is_empty());
    if range.is_none() {
        let message =
            format!("{key}: {text:?} is not a status, a class or a range of statuses from 100 to 599");
        findings.error(span, message, "write e.g. 404, \"5xx\" or \"500-503\"");
    }
    range
}

pub(super) fn value_test(item: &Item) -> ValueTest {
    match &item.value {
        Value::Bool(true) => ValueTest::Present,
        Value::Bool(false) => ValueTest::Absent,
        Value::Text(pattern) => ValueTest::Matches(Glob::new(pattern)),
        _ => ValueTest::Present,
    }
}
