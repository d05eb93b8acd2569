//! May a stored response answer this request now? (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861.)
//!
//! Called on every hit: plain arithmetic on [`Facts`], no allocation, no look at the stored head. Whether the stored
//! response is the right one (key, Vary) is decided before, purges are applied by the caller, and
//! `only-if-cached` is the caller's: it turns every outcome that would wait for the origin into 504.

use crate::freshness::{Facts, Flags};
use crate::policy::{RequestCacheControl, UNREACHABLE_SECS};
use crate::{Policy, RequestDirectives, Wall, Why};

/// What may be done with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Answer with it.
    Fresh,
    /// Answer with it, and have it validated or fetched anew meanwhile.
    StaleWhileRevalidate,
    /// Ask the origin first: validate when there is a validator, else fetch.
    Revalidate {
        /// When the stored response may answer all the same, should the origin fail.
        stale_on: StaleOn,
    },
}

/// Which failures of the origin a stale response may hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StaleOn {
    /// None: the failure is the answer.
    Nothing,
    /// No connection, no answer in time, an answer that broke off before its head was complete; an open breaker.
    Unreachable,
    /// The above, and answers with 500, 502, 503 and 504 (RFC 5861 §4).
    Error,
}

/// The decision with the numbers for Age and Cache-Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// What may be done.
    pub reuse: Reuse,
    /// Seconds for Age.
    pub age: u32,
    /// Seconds of freshness left; zero or less when stale.
    pub ttl: i64,
    /// Why, as far as it is known before the origin has answered: `Fresh`, `StaleWhileRevalidate`, `Expired` or
    /// `RequestDirective`.
    pub why: Why,
}

/// Decides about the stored response with these facts. Never fails, never allocates.
///
/// - Fresh, unless the response says `no-cache`, or the policy honours requests and this one asks for a newer answer
///   (`no-cache`; `max-age` below the age or zero; `min-fresh` above what is left). A request's `max-age` does not count
///   for an immutable response (RFC 8246 §2).
/// - Stale within the stale-while-revalidate window of rule or response, or the request's own `max-stale`: answered, and
///   revalidated behind the answer, which is more than `max-stale` asks and costs its sender nothing.
/// - Else to be revalidated first.
///
/// ```
/// use semantics::{Facts, Flags, LifetimeSource, Policy, RequestDirectives, Reuse, Wall, decide_reuse};
/// let facts = Facts {
///     response_time: Wall(0), initial_age_ms: 0, lifetime: 60, stale_while_revalidate: 30, stale_if_error: 0,
///     status: 200, source: LifetimeSource::MaxAge, flags: Flags::NONE,
/// };
/// let at = |secs| decide_reuse(&facts, &RequestDirectives::default(), &Policy::default(), Wall::from_secs(secs)).reuse;
/// assert_eq!(at(59), Reuse::Fresh);
/// assert_eq!(at(60), Reuse::StaleWhileRevalidate);
/// assert!(matches!(at(90), Reuse::Revalidate { .. }));
/// ```
pub fn decide_reuse(facts: &Facts, request: &RequestDirectives, policy: &Policy, now: Wall) -> Assessment {
    let age = facts.age(now);
    let ttl = facts.ttl(now);
    let honour = policy.request_cache_control == RequestCacheControl::Honour;
    let refused = honour && wants_newer(facts, request, age, ttl);
    let no_cache = facts.flags.has(Flags::NO_CACHE);
    let (reuse, why) = if ttl > 0 && !no_cache && !refused {
        (Reuse::Fresh, Why::Fresh)
    } else if !no_cache && !refused && may_answer_stale(facts, request, policy, ttl) {
        (Reuse::StaleWhileRevalidate, Why::StaleWhileRevalidate)
    } else {
        let why = if refused && ttl > 0 && !no_cache { Why::RequestDirective } else { Why::Expired };
        (Reuse::Revalidate { stale_on: stale_on(facts, request, policy, now) }, why)
    };
    Assessment { reuse, age: u32::try_from(age).unwrap_or(u32::MAX), ttl, why }
}

/// Which failures of the origin the stored response may hide at this moment.
///
/// An unreachable origin is hidden for [`UNREACHABLE_SECS`] when neither rule nor response says how long (RFC 9111
/// §4.2.4: a cache that is disconnected may); error statuses only when the rule, the response or the request says so.
pub fn stale_on(facts: &Facts, request: &RequestDirectives, policy: &Policy, now: Wall) -> StaleOn {
    if facts.flags.has(Flags::NO_CACHE) {
        return StaleOn::Nothing;
    }
    let staleness = staleness(facts.ttl(now));
    let window = stale_if_error_secs(facts, policy);
    let asked = request.stale_if_error.map_or(0, u64::from);
    if staleness < window || (staleness < asked && !forbids_unnamed(facts)) {
        return StaleOn::Error;
    }
    let named = policy.stale_if_error.is_some() || facts.flags.has(Flags::STALE_IF_ERROR);
    if !named && !forbids_unnamed(facts) && staleness < UNREACHABLE_SECS {
        return StaleOn::Unreachable;
    }
    StaleOn::Nothing
}

/// Seconds after freshness for which the response may answer while it is fetched anew.
pub fn stale_while_revalidate_secs(facts: &Facts, policy: &Policy) -> u64 {
    window(facts, policy.stale_while_revalidate, facts.stale_while_revalidate)
}

/// Seconds after freshness for which the response may answer in place of an error.
pub fn stale_if_error_secs(facts: &Facts, policy: &Policy) -> u64 {
    window(facts, policy.stale_if_error, facts.stale_if_error)
}

/// The rule's window beats the response's; what forbids stale answers beats both, unless the rule has also replaced the
/// lifetime. See `policy.rs`.
fn window(facts: &Facts, rule: Option<u64>, response: u32) -> u64 {
    let forbidden = facts.flags.has(Flags::NEVER_STALE);
    match rule {
        Some(secs) if !forbidden || facts.source.is_rule() => secs,
        None if !forbidden => u64::from(response),
        _ => 0,
    }
}

/// Whether stale answers are forbidden except within a window that rule or response names.
fn forbids_unnamed(facts: &Facts) -> bool {
    facts.flags.has(Flags::NEVER_STALE.with(Flags::STALE_IF_NAMED))
}

fn may_answer_stale(facts: &Facts, request: &RequestDirectives, policy: &Policy, ttl: i64) -> bool {
    let staleness = staleness(ttl);
    let asked = match request.max_stale.filter(|_| !forbids_unnamed(facts)) {
        Some(u32::MAX) => u64::MAX,
        Some(secs) => u64::from(secs) + 1,
        None => 0,
    };
    staleness < stale_while_revalidate_secs(facts, policy).max(asked)
}

fn wants_newer(facts: &Facts, request: &RequestDirectives, age: u64, ttl: i64) -> bool {
    let too_old = |max_age: u32| max_age == 0 || age > u64::from(max_age);
    request.no_cache
        || (!facts.flags.has(Flags::IMMUTABLE) && request.max_age.is_some_and(too_old))
        || request.min_fresh.is_some_and(|secs| ttl < i64::from(secs))
}

/// Seconds for which a response has been stale: zero at the end of its freshness, and while it is fresh.
fn staleness(ttl: i64) -> u64 {
    u64::try_from(-ttl.min(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
