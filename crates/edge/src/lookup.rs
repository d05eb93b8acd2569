//! From a request to what is stored for it: key, variant, purge. Synchronous, and without an allocation on a hit.
//!
//! What memory lacks and a disk has is [`Found::OnDisk`]: the caller has it read and looks again, with what was read beside it.
//!
//! ```text
//! key text ─hash─► primary key ─► Object                      the one response
//!                              └► Variants ─ per Vary list ─► key text + request's values ─hash─► Object
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::purge::{Kind, Subject};
use model::{Rule, Site};
use semantics::key::{hash, normalise_path, write_url_key};
use semantics::reuse::stale_on;
use semantics::vary::{Vary, VarySpec, preferred_language, single_language};
use semantics::{
    Assessment, Facts, Fields, Flags, Policy, RequestCacheControl, RequestDirectives, Reuse, StaleOn, Wall,
    Why, decide_reuse,
};
use store::disk::Spot;

use crate::loaded::{RuleAt, view};
use crate::object::{Entry, Item, Object, SPECS_MAX, Stored, Variants};
use crate::request::{Method, Request};
use crate::tiering::{self, url_of};
use crate::tiers;
use crate::worker::Shared;

/// What is stored for a request.
pub(crate) enum Found {
    /// A response for this URL and this request's headers. `purged`: what is held against it. `next`: the best guess at where
    /// another answer would be stored.
    Object { key: u128, next: u128, stored: Object, purged: Option<Objection> },
    /// The last answer could not be stored: don't queue.
    Pass { key: u128 },
    /// Something under this key is on disk and must be read first.
    OnDisk { key: u128, spot: Spot },
    /// Nothing usable. `key` is the best guess at where the answer will be stored.
    Nothing { key: u128, why: Why },
}

/// Appends the key text of `request` to `text`, which is empty.
pub(crate) fn write_request_key(text: &mut Vec<u8>, at: &RuleAt, request: &Request) {
    at.rule().write_key(text, &at.site().name, &request.authority, &view(request));
}

/// What a request has had read from disk: by key, and `None` where that came to nothing. It answers the request also where
/// memory did not take it.
pub(crate) type FromDisk = [(u128, Option<Entry>)];

/// What is under a key.
enum Held {
    Entry(Entry),
    OnDisk(Spot),
    Nothing,
}

fn held(shared: &Shared, from_disk: &FromDisk, key: u128) -> Held {
    if let Some(entry) = shared.store.lookup(key) {
        return Held::Entry(entry);
    }
    if shared.disks.is_empty() {
        return Held::Nothing;
    }
    match from_disk.iter().find(|(read, _)| *read == key) {
        Some((_, entry)) => entry.clone().map_or(Held::Nothing, Held::Entry),
        None => shared.disks.lookup(key).map_or(Held::Nothing, Held::OnDisk),
    }
}

/// Looks for a stored response. `text` holds the key text; what is appended to it is taken off again.
pub(crate) fn find(
    shared: &Shared,
    at: &RuleAt,
    request: &Request,
    text: &mut Vec<u8>,
    from_disk: &FromDisk,
) -> Found {
    let primary = hash(&shared.seed, text);
    let entry = match held(shared, from_disk, primary) {
        Held::Entry(entry) => entry,
        Held::OnDisk(spot) => return Found::OnDisk { key: primary, spot },
        Held::Nothing => return Found::Nothing { key: primary, why: Why::Absent },
    };
    match &*entry {
        Item::Variants(variants) => find_variant(shared, at, request, text, variants, from_disk),
        _ => found(shared, at, request, primary, entry)
            .unwrap_or(Found::Nothing { key: primary, why: Why::Absent }),
    }
}

/// What an entry that is no index is good for; `None` for a mark that holds no longer.
fn found(shared: &Shared, at: &RuleAt, request: &Request, key: u128, entry: Entry) -> Option<Found> {
    if let Item::Pass { until_ms } = *entry {
        return (shared.clock.monotonic_ms() < until_ms).then_some(Found::Pass { key });
    }
    Object::of(entry).map(|stored| usable(shared, at, request, key, stored))
}

fn find_variant(
    shared: &Shared,
    at: &RuleAt,
    request: &Request,
    text: &mut Vec<u8>,
    variants: &Variants,
    from_disk: &FromDisk,
) -> Found {
    let rules = &at.rule().policy.vary_normalise;
    let mut newest = None;
    for spec in &variants.specs {
        let key = variant_key(shared, text, variants.generation, |text| {
            spec.write_variant(text, &request.fields, rules);
        });
        let next = *newest.get_or_insert(key);
        match held(shared, from_disk, key) {
            Held::Entry(entry) => match found(shared, at, request, key, entry) {
                Some(Found::Object { key, stored, purged, .. }) => {
                    return Found::Object { key, next, stored, purged };
                }
                Some(found) => return found,
                None => {}
            },
            Held::OnDisk(spot) => return Found::OnDisk { key, spot },
            Held::Nothing => {}
        }
    }
    if let Some(language) = preferred_language(&request.fields) {
        for spec in variants.specs.iter().filter(|spec| spec.names_header("accept-language")) {
            let key = variant_key(shared, text, variants.generation, |text| {
                spec.write_language_variant(text, &request.fields, rules, &language);
            });
            let entry = shared.store.lookup(key);
            let found = entry.and_then(|entry| found(shared, at, request, key, entry));
            if let Some(found @ Found::Object { .. }) = found {
                return found;
            }
        }
    }
    Found::Nothing { key: newest.unwrap_or(0), why: Why::Variant }
}

fn variant_key(
    shared: &Shared,
    text: &mut Vec<u8>,
    generation: u64,
    write: impl FnOnce(&mut Vec<u8>),
) -> u128 {
    let length = text.len();
    text.extend_from_slice(b"generation ");
    text.extend_from_slice(&generation.to_be_bytes());
    write(text);
    let key = hash(&shared.seed, text);
    text.truncate(length);
    key
}

fn usable(shared: &Shared, at: &RuleAt, request: &Request, key: u128, stored: Object) -> Found {
    let purged = match purged(shared, at, request, stored.tags(), stored.position()) {
        Purged::No { newest } => {
            if newest > stored.position() {
                stored.outlived(newest);
            }
            None
        }
        Purged::Yes(Kind::Hard) => return Found::Nothing { key, why: Why::Purged },
        Purged::Yes(Kind::Soft) => Some(Objection::SoftlyPurged),
        Purged::Yes(Kind::Doubt) => Some(Objection::Distrusted),
    };
    let purged = match purged {
        Some(Objection::Distrusted) => purged,
        _ if tiers::lags_behind(shared, request) || may_have_missed(shared, at, request, &stored) => {
            Some(Objection::Unheard)
        }
        _ => purged,
    };
    Found::Object { key, next: key, stored, purged }
}

/// What is held against something stored, though no hard purge matches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// A soft purge matches: it is stale from then on.
    SoftlyPurged,
    /// This node was told that it has missed purges, and has confirmed what came before as if it were in force: it must not
    /// serve this again before the origin has said that it is unchanged.
    Distrusted,
    /// Nothing has been heard for longer than the site allows. What may have been purged meanwhile, this node has confirmed to
    /// nobody: the site says whether it answers while the origin fails.
    Unheard,
}

/// Whether there may be a purge of it that this node has not heard of, given before the time that its site allows for that.
fn may_have_missed(shared: &Shared, at: &RuleAt, request: &Request, stored: &Object) -> bool {
    let Some(lag) = at.site().max_purge_lag else { return false };
    let is_silent = shared.heard.silence(&shared.clock).is_some_and(|silence| silence > lag);
    let age_ms = request.now.0.saturating_sub(stored.facts.response_time.0);
    is_silent && age_ms > lag.as_millis() as i64
}

/// Whether the origin may answer this request otherwise than others, so that these must not wait for what it fetches.
pub(crate) fn is_alone(at: &RuleAt, request: &Request, directives: &RequestDirectives) -> bool {
    let honours = at.rule().policy.request_cache_control == RequestCacheControl::Honour;
    request.fields.contains("authorization")
        || request.method == Method::Head
        || (honours && directives.no_store)
}

/// What becomes of something that is not hard purged.
pub(crate) fn assess(
    purged: Option<Objection>,
    facts: &Facts,
    at: &RuleAt,
    request: &Request,
    directives: &RequestDirectives,
) -> Assessment {
    let policy = &at.rule().policy;
    let assessment = decide_reuse(facts, directives, policy, request.now);
    after_purge(purged, assessment, facts, directives, policy, request.now)
}

fn after_purge(
    purged: Option<Objection>,
    mut assessment: Assessment,
    facts: &Facts,
    directives: &RequestDirectives,
    policy: &Policy,
    now: Wall,
) -> Assessment {
    match (purged, assessment.reuse) {
        (Some(Objection::SoftlyPurged), Reuse::Fresh) => {
            // Stale from now on. A soft purge allows by itself that the stale one answers meanwhile, unless the origin has
            // forbidden stale answers altogether.
            (assessment.reuse, assessment.why) = match facts.flags.has(Flags::NEVER_STALE) {
                true => (Reuse::Revalidate { stale_on: StaleOn::Nothing }, Why::Expired),
                false => (Reuse::StaleWhileRevalidate, Why::StaleWhileRevalidate),
            };
        }
        (Some(Objection::Distrusted), _) => {
            assessment.reuse = Reuse::Revalidate { stale_on: StaleOn::Nothing };
            assessment.why = Why::Expired;
        }
        (Some(Objection::Unheard), Reuse::Fresh | Reuse::StaleWhileRevalidate) => {
            assessment.reuse = Reuse::Revalidate { stale_on: stale_on(facts, directives, policy, now) };
            assessment.why = Why::Expired;
        }
        _ => return assessment,
    }
    assessment.ttl = assessment.ttl.min(0);
    assessment
}

/// What the purge clock says of something that was fetched at a position.
pub(crate) enum Purged {
    /// No purge up to `newest` matches.
    No { newest: u64 },
    /// One does.
    Yes(Kind),
}

/// Asks the purge clock; one atomic load when nothing has been purged since.
pub(crate) fn purged(shared: &Shared, at: &RuleAt, request: &Request, tags: &[u64], position: u64) -> Purged {
    let newest = shared.purge_position.load(Ordering::Acquire);
    if position >= newest {
        return Purged::No { newest: position };
    }
    with_subject(shared, at, request, tags, position, |subject| match shared.purges.read().check(subject) {
        None => Purged::No { newest },
        Some((kind, _)) => Purged::Yes(kind),
    })
}

/// Whether a hard purge matches something stored, so that nothing of it may be used for what is fetched from now on.
pub(crate) fn is_gone(shared: &Shared, at: &RuleAt, request: &Request, stored: &Stored) -> bool {
    let purged = purged(shared, at, request, stored.tags(), stored.position());
    matches!(purged, Purged::Yes(Kind::Hard))
}

/// Asks a purge clock about a request's object that has these tags and was fetched at a position.
pub(crate) fn with_subject<T>(
    shared: &Shared,
    at: &RuleAt,
    request: &Request,
    tags: &[u64],
    position: u64,
    ask: impl FnOnce(&Subject<'_>) -> T,
) -> T {
    let url = url_hash(shared, at.site(), at.rule(), &request.authority, request.path(), request.query());
    // As keys are: no spelling of a path may slip under a purge.
    let path = normalise_path(request.path().as_bytes());
    let path = String::from_utf8_lossy(&path);
    let site = at.site_number();
    ask(&Subject { site, url, host: &request.host, path: &path, tags, position })
}

/// The hash under which a URL is purged: its key text without what makes variants.
pub(crate) fn url_hash(
    shared: &Shared,
    site: &Site,
    rule: &Rule,
    authority: &str,
    path: &str,
    query: Option<&str>,
) -> u128 {
    let mut text = Vec::with_capacity(128);
    write_url_key(&mut text, &rule.key, &site.name, authority, path.as_bytes(), query.map(str::as_bytes));
    hash(&shared.seed, &text)
}

/// Where a response goes: its key, and the key that also leads to it by its language.
pub(crate) struct Place {
    pub(crate) key: u128,
    pub(crate) language_key: Option<u128>,
}

/// Decides where a response to `request` is stored and writes the variant index, if it varies. `text` is the key
/// text. The caller has refused `Vary: *` before. `announce` gets the key before the index leads anybody to it.
pub(crate) fn place(
    shared: &Shared,
    at: &RuleAt,
    request: &Request,
    response: &Fields,
    text: &mut Vec<u8>,
    is_kept: bool,
    announce: impl FnOnce(u128),
) -> Place {
    let primary = hash(&shared.seed, text);
    let Vary::Spec(spec) = VarySpec::of(response) else {
        announce(primary);
        return Place { key: primary, language_key: None };
    };
    let (generation, new_index) = index(shared, primary, &spec);
    let rules = &at.rule().policy.vary_normalise;
    let key = variant_key(shared, text, generation, |text| spec.write_variant(text, &request.fields, rules));
    let language = response.get("content-language").and_then(single_language);
    let language_key = language.filter(|_| spec.names_header("accept-language")).map(|language| {
        variant_key(shared, text, generation, |text| {
            spec.write_language_variant(text, &request.fields, rules, language)
        })
    });
    announce(key);
    if let Some(variants) = new_index {
        // What is only passed on is found while it passes, and not after a restart.
        if is_kept {
            shared.put_variants(primary, &variants, &url_of(request));
        }
        let _counted = shared.store.insert(primary, Arc::new(Item::Variants(variants)));
    }
    Place { key, language_key }
}

/// The generation of the index under `primary`, and the index with `spec` put first, where it is not.
fn index(shared: &Shared, primary: u128, spec: &VarySpec) -> (u64, Option<Variants>) {
    // Memory may have lost it since the request looked. Waiting for the disk here is rare, and costs less than all variants.
    let on_disk = || shared.disks.find(primary).and_then(|spot| tiering::peek(shared, primary, &spot));
    let entry = shared.store.lookup(primary).or_else(on_disk);
    let (generation, mut specs) = match entry.as_deref() {
        Some(Item::Variants(variants)) if variants.specs.first() == Some(spec) => {
            return (variants.generation, None);
        }
        Some(Item::Variants(variants)) => (variants.generation, variants.specs.clone()),
        _ => (shared.next_generation.fetch_add(1, Ordering::Relaxed), Vec::new()),
    };
    specs.retain(|known| known != spec);
    specs.insert(0, spec.clone());
    specs.truncate(SPECS_MAX);
    (generation, Some(Variants { generation, specs }))
}
