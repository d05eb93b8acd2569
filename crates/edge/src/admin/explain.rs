//! Why a request would be answered as it would be, now: its site, rule and key, what is stored under it, the freshness
//! sum, the decision. Looks at the same functions that the request machine uses and asks no origin; the look-up counts
//! in the store's statistics like any other.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::http::StatusCode;
use model::rule::Cache;
use model::{Rule, Scheme, Site};
use semantics::freshness::{Flags, LifetimeSource};
use semantics::key::has_dot_segment;
use semantics::reuse::{Assessment, Reuse, stale_if_error_secs, stale_while_revalidate_secs};
use semantics::{Facts, Fields, Policy, RequestDirectives, Wall, Why, decide_reuse};
use serde_json::{Value, json};

use super::api::Problem;
use crate::Handle;
use crate::loaded::{RuleAt, view};
use crate::lookup::{self, Found};
use crate::object::Stored;
use crate::purging::Url;
use crate::request::{Method, Protocol, Request, RequestId};

/// The request to explain.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) url: String,
    pub(super) method: String,
    pub(super) fields: Fields,
}

/// The explanation, in the order in which the edge decides.
pub(super) fn explain(handle: &Handle, question: &Question) -> Result<Value, Problem> {
    let shared = &handle.shared;
    let request = request(question, shared.clock.wall())?;
    let loaded = Rc::new(shared.loaded.read().clone());
    let at = RuleAt::of(loaded, &request).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no site of the configuration has this host")
            .found(&*request.host)
            .wanted("the host of a site")
            .next("add it to the domains of a site: the edge answers it with unknown-site and asks no origin")
    })?;
    let (site, rule) = (at.site(), at.rule());
    let mut explanation = json!({
        "method": request.method.as_str(),
        "url": question.url,
        "site": { "name": &*site.name, "line": site.line },
        "rule": rule_json(site, rule),
        "origins": rule.origin.origins.iter().map(|origin| origin.url()).collect::<Vec<_>>(),
        "purge_position": shared.purge_position.load(Ordering::Acquire),
    });
    if let Some((status, location)) = rule.location(&view(&request)) {
        explanation["redirect"] = json!({ "status": status, "location": location });
        return Ok(decided(explanation, Why::Redirect));
    }
    if !request.method.is_cacheable() {
        return Ok(decided(explanation, Why::Method));
    }
    if rule.cache == Cache::Pass || has_dot_segment(request.path().as_bytes()) {
        return Ok(decided(explanation, Why::Rule));
    }
    let mut text = Vec::with_capacity(256);
    lookup::write_request_key(&mut text, &at, &request);
    explanation["key"] = String::from_utf8_lossy(&text).lines().collect();
    let directives = RequestDirectives::parse(&request.fields);
    let why = match lookup::find(shared, &at, &request, &mut text) {
        Found::Pass { .. } => Why::HitForMiss,
        Found::Nothing { why, .. } => why,
        Found::Object { key, stored, soft } => {
            let mut assessment = decide_reuse(&stored.facts, &directives, &rule.policy, request.now);
            if soft && assessment.reuse == Reuse::Fresh {
                // As the request machine treats a soft purge.
                assessment.reuse = Reuse::StaleWhileRevalidate;
                assessment.why = Why::StaleWhileRevalidate;
            }
            explanation["stored"] = stored_json(key, &stored, soft);
            explanation["freshness"] = freshness_json(&stored.facts, &rule.policy, request.now, &assessment);
            assessment.why
        }
    };
    let asks_origin = !matches!(why, Why::Fresh | Why::StaleWhileRevalidate);
    Ok(decided(explanation, if asks_origin && directives.only_if_cached { Why::OnlyIfCached } else { why }))
}

fn request(question: &Question, now: Wall) -> Result<Request, Problem> {
    let url = Url::parse(&question.url)?;
    let target = match url.query {
        Some(query) => format!("{}?{query}", url.path),
        None => url.path.to_owned(),
    };
    Ok(Request {
        method: Method::of(&question.method),
        target: target.into(),
        path_len: url.path.len(),
        host: url.host().into(),
        authority: url.authority.into(),
        fields: question.fields.clone(),
        protocol: Protocol::Http11,
        secure: url.scheme == Scheme::Https,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        started: Instant::now(),
        now,
        id: RequestId(0),
        has_body: false,
        wants_websocket: false,
        received_bytes: Cell::new(0),
    })
}

fn decided(mut explanation: Value, why: Why) -> Value {
    explanation["decision"] = json!({
        "outcome": why.outcome().as_str(), "why": why.as_str(), "sentence": why.sentence(),
    });
    explanation
}

fn rule_json(site: &Site, rule: &Rule) -> Value {
    json!({
        "name": rule.name(),
        "number": rule.number,
        "line": rule.line,
        "of": site.rules.len(),
        "cache": if rule.cache == Cache::Use { "use" } else { "pass" },
    })
}

fn stored_json(key: u128, stored: &Stored, soft: bool) -> Value {
    // What names the representation; the rest of the head is the visitor's to see.
    const SHOWN: [&str; 8] = [
        "content-type",
        "content-encoding",
        "content-language",
        "cache-control",
        "expires",
        "etag",
        "last-modified",
        "vary",
    ];
    let shown = |name: &&'static str| {
        stored.field(name).map(|value| (*name, String::from_utf8_lossy(value).into_owned()))
    };
    json!({
        "key_hash": format!("{key:032x}"),
        "status": stored.facts.status,
        "body_bytes": stored.body_len(),
        "is_part": stored.parts().is_some(),
        "position": stored.position(),
        "surrogate_keys": stored.tags().len(),
        "softly_purged": soft,
        "fields": SHOWN.iter().filter_map(shown).collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn freshness_json(facts: &Facts, policy: &Policy, now: Wall, assessment: &Assessment) -> Value {
    let source = source_text(facts.source, policy);
    let has = |flag| facts.flags.has(flag);
    json!({
        "lifetime": facts.lifetime,
        "lifetime_from": source,
        "age": assessment.age,
        "age_on_arrival": facts.initial_age_ms / 1000,
        "ttl": assessment.ttl,
        "sum": format!(
            "lifetime {} s ({source}) - age {} s ({} s on arrival) = {} s",
            facts.lifetime, assessment.age, facts.initial_age_ms / 1000, assessment.ttl
        ),
        "stale_while_revalidate": stale_while_revalidate_secs(facts, policy),
        "stale_if_error": stale_if_error_secs(facts, policy),
        "stored_at_ms": now.0.min(facts.response_time.0),
        "no_cache": has(Flags::NO_CACHE),
        "never_stale": has(Flags::NEVER_STALE),
        "immutable": has(Flags::IMMUTABLE),
        "has_validator": facts.has_validator(),
    })
}

fn source_text(source: LifetimeSource, policy: &Policy) -> String {
    let targeted =
        |index: u8| policy.targeted.get(usize::from(index)).map_or("a targeted field", |name| name);
    match source {
        LifetimeSource::Rule => "the rule's ttl".into(),
        LifetimeSource::RuleForStatus => "the rule's ttl for this status".into(),
        LifetimeSource::TargetedSMaxage(index) => format!("s-maxage in {}", targeted(index)),
        LifetimeSource::TargetedMaxAge(index) => format!("max-age in {}", targeted(index)),
        LifetimeSource::SMaxage => "s-maxage in Cache-Control".into(),
        LifetimeSource::MaxAge => "max-age in Cache-Control".into(),
        LifetimeSource::Expires => "Expires".into(),
        LifetimeSource::Heuristic => "a part of the time since Last-Modified".into(),
        LifetimeSource::Nothing => "nothing gave one".into(),
    }
}
