//! What sites and rules can say alike: caching, keys, headers, cookies, redirects, cross-origin reading.

use std::sync::Arc;

use semantics::coding::Coding;
use semantics::fields::is_tchar;
use semantics::key::{KeyRecipe, Query, QueryPart, normalise_host};
use semantics::policy::{RequestCacheControl, SetCookie};
use semantics::vary::Normalise;

use super::check::{Findings, Item, Section, Value};
use super::check_name;
use super::pieces::{
    check_cookie_name, check_header_name, check_method, header_name_of, header_name_or_star, header_ops,
    status_of_text,
};
use crate::Ttl;
use crate::change::check_tag;
use crate::compress::Compress;
use crate::cors::{Allow, AllowedOrigins, Cors};
use crate::glob::Glob;
use crate::rate::Rate;
use crate::redirect::{Redirect, STATUSES};
use crate::rewrite::{Rewrite, origin_of};
use crate::rule::{Cache, ClientCertificate, Conditions, CookieFilter, CountedBy, Https, RateLimit, Rule};
use crate::rum::Rum;
use crate::settings::RATE_PER;

/// Puts what the section says on top of what `rule` says already.
pub(super) fn apply_choices(findings: &mut Findings<'_>, section: &Section, rule: &mut Rule) {
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
        if let Err(mistake) = check_tag(tag) {
            findings.error(
                span,
                format!("{tag:?} {}; wanted is {}", mistake.error, mistake.wanted),
                "write e.g. \"static\"",
            );
        }
        rule.surrogate_keys.push(tag.into());
    }
    if let Some(redirect) = section.table("redirect") {
        rule.redirect = build_redirect(findings, redirect, &rule.conditions);
    }
    if let Some((word, _)) = section.text("https") {
        rule.https = match word {
            "redirect" => Https::Redirect,
            "strict" => Https::Strict,
            _ => Https::Optional,
        };
    }
    if let Some((word, _)) = section.text("client_certificate") {
        rule.client_certificate = match word {
            "required" => ClientCertificate::Required,
            "optional" => ClientCertificate::Optional,
            _ => ClientCertificate::Off,
        };
    }
    if let Some(item) = section.item("cors") {
        rule.cors = build_cors(findings, item);
    }
    if let Some(item) = section.item("rate_limit") {
        rule.rate_limit = item.table().map(|limit| {
            let by = match limit.text("by").map(|(word, _)| word) {
                Some("all") => CountedBy::All,
                _ => CountedBy::Client,
            };
            RateLimit { rate: build_rate(limit), by, of_rule: rule.number }
        });
    }
    rule.websocket = section.bool("websocket").unwrap_or(rule.websocket);
    rule.early_hints = section.bool("early_hints").unwrap_or(rule.early_hints);
    if let Some(item) = section.item("compress") {
        rule.compress = build_compress(findings, item);
    }
    if let Some(item) = section.item("rewrite") {
        rule.rewrite = item.table().and_then(|table| build_rewrite(findings, table));
    }
    if let Some(item) = section.item("rum") {
        rule.rum = build_rum(findings, item, rule.rum.take());
    }
    put_script(rule);
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
                "ttl_overrides",
                "ttl_max",
                "stale_while_revalidate",
                "stale_if_error",
                "set_cookie",
                "heuristic",
                "key",
                "surrogate_keys",
                "compress",
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
    if let Some(overrides) = section.bool("ttl_overrides") {
        (policy.ttl_overrides, policy.heeds_no_cache) = (overrides, false);
    }
    if section.text("ttl_overrides").is_some() {
        (policy.ttl_overrides, policy.heeds_no_cache) = (true, true);
    }
    policy.ttl_max = secs("ttl_max").or(policy.ttl_max);
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
        Some("never") => SetCookie::Never,
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

fn build_compress(findings: &mut Findings<'_>, item: &Item) -> Option<Compress> {
    let mut compress = Compress::default();
    let section = match &item.value {
        Value::Table(section) => section,
        Value::Bool(false) => return None,
        _ => return Some(compress),
    };
    if let Some(types) = section.item("types") {
        compress.types.clear();
        for (name, span) in types.list().iter().filter_map(Item::text) {
            let is_type = name.bytes().all(|byte| byte == b'/' || byte == b'*' || is_tchar(byte));
            if !is_type || !name.contains(['/', '*']) {
                let message = format!("the type {name:?} is no Content-Type without parameters");
                findings.error(span, message, "write e.g. \"text/css\" or \"text/*\"");
            }
            compress.types.push(Glob::new(&name.to_ascii_lowercase()));
        }
    }
    if let Some(encodings) = section.item("encodings") {
        compress.codings.clear();
        for coding in encodings.list().iter().filter_map(|item| Coding::of(item.text()?.0.as_bytes())) {
            if !compress.codings.contains(&coding) {
                compress.codings.push(coding);
            }
        }
    }
    for key in ["types", "encodings"] {
        // A list whose members were all bad is not empty in the text.
        let is_empty = |item: &&Item| {
            item.list().is_empty() && !findings.text[item.span.clone()].contains(char::is_alphanumeric)
        };
        if let Some(empty) = section.item(key).filter(is_empty) {
            let message = format!("{key} is an empty list, so nothing would be compressed");
            findings.error(&empty.span, message, "write compress = false");
        }
    }
    let size = |name, default: u64| section.size(name).map_or(default, |size| size.0);
    let (min, max) = (size("min_size", *compress.sizes.start()), size("max_size", *compress.sizes.end()));
    if min > max {
        let message = format!("min_size is {min} bytes and max_size {max}, so nothing would be compressed");
        findings.error(&item.span, message, "write compress = false, or a larger max_size");
    }
    compress.sizes = min..=max;
    section.finish();
    Some(compress)
}

/// A rate that the file gives, with as many at once as in each span unless it says otherwise.
pub(super) fn build_rate(section: &Section) -> Rate {
    let requests = section.number("requests").unwrap_or(1);
    let per = section.time("per").unwrap_or(RATE_PER.default);
    let rate = Rate::new(requests, per, section.number("burst").unwrap_or(requests));
    section.finish();
    rate
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

fn build_rewrite(findings: &mut Findings<'_>, section: &Section) -> Option<Arc<Rewrite>> {
    let origin = |findings: &mut Findings<'_>, text: &str, span| {
        let origin = origin_of(text);
        if origin.is_none() {
            let message = format!("{text:?} is no host that files can be fetched from");
            findings.error(span, message, "write e.g. \"cdn.shop.example\"");
        }
        origin
    };
    let mut rewrite = Rewrite::default();
    if let Some((text, span)) = section.text("host") {
        rewrite.host = origin(findings, text, span).unwrap_or_default();
    }
    for (from, to) in section.map("hosts") {
        if from.text.contains('/') || origin_of(&from.text).is_none() {
            let message = format!("{:?} is no host", from.text);
            findings.error(&from.span, message, "write e.g. \"img.shop.example\"");
        }
        let to = to.text().and_then(|(text, span)| origin(findings, text, span));
        rewrite.hosts.push((normalise_host(&from.text).into(), to.unwrap_or_default()));
    }
    let globs = |findings: &mut Findings<'_>, key| {
        let mut globs = Vec::new();
        for (path, span) in section.list(key).iter().filter_map(Item::text) {
            if !path.starts_with(['/', '*']) {
                let message = format!("the path {path:?} matches nothing: paths begin with \"/\"");
                findings.error(span, message, format!("write \"/{path}\""));
            }
            globs.push(Glob::new(path));
        }
        globs
    };
    rewrite.paths = globs(findings, "paths");
    rewrite.inline_scripts = globs(findings, "inline_scripts");
    rewrite.social_images = section.bool("social_images").unwrap_or(false);
    rewrite.structured_data = section.bool("structured_data").unwrap_or(false);
    section.finish();
    (!rewrite.host.is_empty()).then(|| Arc::new(rewrite))
}

/// On top of what the site says, so that a rule that names its group need not say all else again.
fn build_rum(findings: &mut Findings<'_>, item: &Item, of_site: Option<Rum>) -> Option<Rum> {
    let mut rum = of_site.unwrap_or_default();
    let section = match &item.value {
        Value::Table(section) => section,
        Value::Bool(false) => return None,
        _ => return Some(rum),
    };
    if let Some(one_in) = section.number("one_in") {
        rum.one_in = one_in;
    }
    if let Some((name, span)) = section.text("group") {
        check_name(findings, "the group", name, span);
        rum.group = Some(name.into());
    }
    rum.inject = section.bool("inject").unwrap_or(rum.inject);
    rum.consent = section.bool("consent").unwrap_or(rum.consent);
    section.finish();
    Some(rum)
}

/// Has the script put into pages by who rewrites them, or not any more.
fn put_script(rule: &mut Rule) {
    let script = rule.rum.as_ref().is_some_and(|rum| rum.inject);
    let is_nothing = |rewrite: &Arc<Rewrite>| rewrite.host.is_empty() && !script;
    match &mut rule.rewrite {
        Some(rewrite) if rewrite.script != script => Arc::make_mut(rewrite).script = script,
        None if script => rule.rewrite = Some(Arc::new(Rewrite { script, ..Rewrite::default() })),
        _ => {}
    }
    if rule.rewrite.as_ref().is_some_and(is_nothing) {
        rule.rewrite = None;
    }
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
