//! Why a request would be answered as it would be, now: its site, rule, key and variant, what is stored under it, the
//! freshness sum, the decision. Looks with the same functions that the request machine uses, changes nothing and asks no
//! origin; the look-up counts in the store's statistics like any other, and what is on disk is read for it.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::http::StatusCode;
use model::purge::Subject;
use model::rule::Cache;
use model::{Rule, Scheme, Site, Url};
use semantics::coding::Form;
use semantics::conditional::is_conditional;
use semantics::fields::is_tchar;
use semantics::freshness::{Flags, lifetime_origin};
use semantics::key::{has_dot_segment, hash};
use semantics::policy::UNREACHABLE_SECS;
use semantics::range::{self, Requested};
use semantics::reuse::{Assessment, stale_if_error_secs, stale_on, stale_while_revalidate_secs};
use semantics::{Facts, Fields, Policy, RequestDirectives, StaleOn, Wall, Why};
use serde_json::{Value, json};
use stats::Country;

use super::api::{Problem, budget_json};
use super::purge::hosts_served;
use crate::Handle;
use crate::compress;
use crate::loaded::{RuleAt, view};
use crate::lookup::{self, Found, Objection};
use crate::object::{Item, Sliced, Stored, Variants};
use crate::request::{Method, Protocol, Request, RequestId};
use crate::serve::parts_answer;
use crate::slices::{self, IsNew};
use crate::tiering::{self, SLICE_BYTES};
use crate::tiers;
use crate::tls::Shown;
use crate::urgency::class_of;
use crate::worker::Shared;

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
    let loaded = Rc::new(shared.loaded.get());
    let at = RuleAt::of(loaded, &request).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no site of the configuration has this host")
            .found(&*request.host)
            .wanted(handle.with_snapshot(hosts_served))
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
    if rule.origin.budget.is_some() {
        let content = class_of(&at, &request, None, false).content.as_str();
        let all = handle.budgets();
        let of_rule = all.iter().filter(|budget| {
            *budget.site == *site.name
                && rule.origin.origins.iter().any(|origin| origin.url() == *budget.origin)
        });
        let budgets: Vec<Value> = of_rule.map(budget_json).collect();
        explanation["budget"] = json!({ "content": content, "origins": budgets });
    }
    if let Some((status, location)) = rule.location(&view(&request)) {
        explanation["redirect"] = json!({ "status": status, "location": location });
        return Ok(decided(explanation, Why::Redirect));
    }
    if rule.cors.preflight(&view(&request)).is_some() {
        return Ok(decided(explanation, Why::Preflight));
    }
    if !request.method.is_cacheable() {
        return Ok(decided(explanation, Why::Method));
    }
    if rule.cache == Cache::Pass || has_dot_segment(request.path().as_bytes()) {
        return Ok(decided(explanation, Why::Rule));
    }
    let mut text = Vec::with_capacity(256);
    lookup::write_request_key(&mut text, &at, &request);
    let tiers = tiers::explain(&at, &text);
    if !tiers.is_empty() {
        explanation["tiers"] =
            tiers.iter().map(|(hop, node)| json!({ "as": hop.as_str(), "node": node })).collect();
    }
    explanation["key"] = String::from_utf8_lossy(&text).lines().collect();
    // Before the look-up, which may take out what has been purged.
    let primary = hash(&shared.seed, &text);
    let entry = shared.store.peek(primary);
    let mut from_disk = Vec::new();
    let found = loop {
        match lookup::find(shared, &at, &request, &mut text, &from_disk) {
            Found::OnDisk { key, spot } => from_disk.push((key, tiering::peek(shared, key, &spot))),
            found => break found,
        }
    };
    let read = from_disk.iter().find(|(key, _)| *key == primary).and_then(|(_, entry)| entry.clone());
    if let Some(Item::Variants(variants)) = entry.or(read).as_deref() {
        explanation["variant"] = variant_json(variants, &found, &request, &rule.policy);
    }
    let directives = RequestDirectives::parse(&request.fields);
    let (why, sentence) = match found {
        Found::Pass { .. } => (Why::HitForMiss, None),
        Found::Nothing { why, .. } => (why, None),
        Found::OnDisk { .. } => unreachable!("read above"),
        Found::Object { key, stored, purged, .. } => {
            let (tags, position) = (stored.tags(), stored.position());
            let clock = |subject: &Subject<'_>| shared.purges.read().check(subject);
            let purge =
                purged.and_then(|_| lookup::with_subject(shared, &at, &request, tags, position, clock));
            let purged_at = purge.map(|(_, position)| position);
            let assessment = lookup::assess(purged, &stored.facts, &at, &request, &directives);
            explanation["stored"] = stored_json(key, &stored, purged);
            explanation["stored"]["head_in"] = match from_disk.iter().any(|(read, _)| *read == key) {
                true => "disk".into(),
                false => "memory".into(),
            };
            explanation["stored"]["copies"] = copies_json(shared, &at, &stored);
            if let Some(sliced) = stored.slices() {
                explanation["stored"]["slices"] = slices_json(shared, sliced);
            }
            explanation["freshness"] =
                freshness_json(&stored.facts, &rule.policy, request.now, &assessment, purged, purged_at);
            let is_hit = matches!(assessment.why, Why::Fresh | Why::StaleWhileRevalidate);
            match missing(shared, &request, &stored).filter(|_| is_hit) {
                _ if stored.parts().is_some() && !parts_answer(&request, &stored) => (Why::Partial, None),
                Some(IsNew::Begun) => (Why::Partial, None),
                Some(IsNew::Followed) => (Why::Collapsed, None),
                None => {
                    let alone = lookup::is_alone(&at, &request, &directives) && !directives.only_if_cached;
                    (assessment.why, stale_sentence(&stored.facts, &assessment, alone))
                }
            }
        }
    };
    let asks_origin = !matches!(why, Why::Fresh | Why::StaleWhileRevalidate);
    if asks_origin && directives.only_if_cached {
        return Ok(decided(explanation, Why::OnlyIfCached));
    }
    let mut explanation = decided(explanation, why);
    if let Some(sentence) = sentence {
        explanation["decision"]["sentence"] = sentence.into();
    }
    Ok(explanation)
}

/// What happens to a stale response at the next request: the sentence of its [`Why`] tells what has happened after it.
fn stale_sentence(facts: &Facts, assessment: &Assessment, alone: bool) -> Option<&'static str> {
    Some(match (assessment.why, facts.flags.has(Flags::NO_CACHE), facts.has_validator()) {
        (Why::StaleWhileRevalidate, ..) if alone => {
            "Stale; one such request at a time waits for the origin, not for long, and the others are answered with it."
        }
        (Why::StaleWhileRevalidate, ..) => {
            "Stale; the next request is answered with it, and the origin is asked behind that answer."
        }
        (Why::Expired, true, true) => {
            "Never used unasked (no-cache); the next request asks the origin: has it changed?"
        }
        (Why::Expired, true, false) => {
            "Never used unasked (no-cache); the next request asks the origin: for a new one, as it has no validator."
        }
        (Why::Expired, false, true) => "Stale; the next request asks the origin: has it changed?",
        (Why::Expired, false, false) => {
            "Stale; the next request asks the origin: for a new one, as it has no validator."
        }
        _ => return None,
    })
}

/// Which headers choose, what this request has in them, and where that leads. Several lists when the origin's Vary
/// has changed, the newest first.
fn variant_json(variants: &Variants, found: &Found, request: &Request, policy: &Policy) -> Value {
    let key = match found {
        Found::Object { key, .. }
        | Found::Pass { key }
        | Found::Nothing { key, .. }
        | Found::OnDisk { key, .. } => key,
    };
    let lists = variants.specs.iter().map(|spec| {
        let mut lines = Vec::new();
        spec.write_variant(&mut lines, &request.fields, &policy.vary_normalise);
        json!({
            "names": spec.names().collect::<Vec<_>>(),
            "values": String::from_utf8_lossy(&lines).lines().collect::<Vec<_>>(),
        })
    });
    json!({ "key_hash": format!("{key:032x}"), "vary": lists.collect::<Vec<_>>() })
}

fn request(question: &Question, now: Wall) -> Result<Request, Problem> {
    if question.method.is_empty() || !question.method.bytes().all(is_tchar) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "this is not a method")
            .found(format!("{:?}", question.method))
            .wanted("a word such as GET")
            .next("give one method, without spaces"));
    }
    let url = Url::parse(&question.url).map_err(|mistake| Problem::mistake("url", &question.url, mistake))?;
    let target = match url.query {
        Some(query) => format!("{}?{query}", url.path),
        None => url.path.to_owned(),
    };
    Ok(Request {
        country: Country::UNKNOWN,
        method: Method::of(&question.method),
        target: target.into(),
        path_len: url.path.len(),
        host: url.host().into(),
        authority: url.authority.into(),
        fields: question.fields.clone(),
        protocol: Protocol::Http11,
        secure: url.scheme == Scheme::Https,
        shown: Shown::Nothing,
        asked: None,
        alt_svc: None,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        started: Instant::now(),
        now,
        id: RequestId(0),
        trace: None,
        expects_continue: false,
        has_body: false,
        wants_websocket: false,
        takes_trailers: false,
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
        "client_certificate": rule.client_certificate.as_str(),
    })
}

fn stored_json(key: u128, stored: &Stored, purged: Option<Objection>) -> Value {
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
        "softly_purged": purged == Some(Objection::SoftlyPurged),
        "in_doubt": matches!(purged, Some(Objection::Distrusted | Objection::Unheard)),
        "fields": SHOWN.iter().filter_map(shown).collect::<std::collections::BTreeMap<_, _>>(),
    })
}

/// Which encoded copies of a body there are; `null` where none are made.
fn copies_json(shared: &Shared, at: &RuleAt, stored: &Stored) -> Value {
    let form_json = |(form, bytes, place): (Form, u64, &str)| {
        json!({
            "coding": form.coding().as_str(),
            "effort": if form.is_thorough() { "thorough" } else { "quick" },
            "bytes": bytes,
            "in": place,
        })
    };
    match compress::held(shared, at, stored) {
        Some(forms) => forms.into_iter().map(form_json).collect(),
        None => Value::Null,
    }
}

/// How what is missing of a body in slices will come, as far as the request wants it.
fn missing(shared: &Shared, request: &Request, stored: &Stored) -> Option<IsNew> {
    let sliced =
        stored.slices().filter(|_| request.method == Method::Get && !is_conditional(&request.fields))?;
    let missing = |start, end| slices::missing(shared, sliced, start, end);
    match range::select(b"GET", &request.fields, &stored.fields(), sliced.len) {
        Requested::Ignore => missing(0, sliced.len),
        Requested::Unsatisfiable => None,
        Requested::One(span) => missing(span.start(), span.end() + 1),
        Requested::Several(spans) => {
            spans.iter().map(|span| missing(span.start(), span.end() + 1)).max().flatten()
        }
    }
}

/// How much of a body in slices is there.
fn slices_json(shared: &Shared, sliced: &Sliced) -> Value {
    let count = sliced.len.div_ceil(SLICE_BYTES);
    let is_there = |number: &u64| shared.disks.find(shared.slice_key(sliced.id, *number)).is_some();
    json!({ "on_disk": (0..count).filter(is_there).count(), "of": count })
}

fn freshness_json(
    facts: &Facts,
    policy: &Policy,
    now: Wall,
    assessment: &Assessment,
    purged: Option<Objection>,
    purged_at: Option<u64>,
) -> Value {
    let soft_at = purged_at.filter(|_| purged == Some(Objection::SoftlyPurged));
    let source = lifetime_origin(facts, policy);
    let has = |flag| facts.flags.has(flag);
    let purged = match (purged, purged_at) {
        (Some(Objection::Distrusted), at) => {
            let at = at.unwrap_or_default();
            format!(
                "; purges before position {at} may have been missed, so to be validated before it is served"
            )
        }
        (Some(Objection::Unheard), _) => {
            "; no purges have been heard of for longer than max_purge_lag, so in doubt".into()
        }
        (_, Some(at)) => format!("; softly purged at position {at}, so stale"),
        (_, None) => String::new(),
    };
    let (on_error, on_unreachable) = failure_windows(facts, policy);
    json!({
        "lifetime": facts.lifetime,
        "lifetime_from": source,
        "age": assessment.age,
        "age_on_arrival": facts.initial_age_ms / 1000,
        "ttl": facts.ttl(now),
        "sum": format!(
            "lifetime {} s ({source}) - age {} s ({} s on arrival) = {} s{purged}",
            facts.lifetime, assessment.age, facts.initial_age_ms / 1000, facts.ttl(now)
        ),
        "stale_while_revalidate": stale_while_revalidate_secs(facts, policy),
        "stale_if_error": on_error,
        "stale_if_unreachable": on_unreachable,
        "softly_purged_at": soft_at,
        "stored_at_ms": now.0.min(facts.response_time.0),
        "no_cache": has(Flags::NO_CACHE),
        "never_stale": has(Flags::NEVER_STALE),
        "immutable": has(Flags::IMMUTABLE),
        "has_validator": facts.has_validator(),
    })
}

/// Seconds after freshness for which the response may answer instead of an error of the origin, and while no
/// connection to it can be had.
fn failure_windows(facts: &Facts, policy: &Policy) -> (u64, u64) {
    let end = i64::from(facts.lifetime) * 1000 - i64::try_from(facts.initial_age_ms).unwrap_or(i64::MAX);
    let end = Wall(facts.response_time.0.saturating_add(end));
    let secs = stale_if_error_secs(facts, policy);
    match stale_on(facts, &RequestDirectives::default(), policy, end) {
        StaleOn::Error => (secs, secs),
        StaleOn::Unreachable => (0, UNREACHABLE_SECS),
        StaleOn::Nothing => (0, 0),
    }
}
