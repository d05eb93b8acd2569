//! May this response be stored, and what must be kept out of the stored copy? (RFC 9111 §3; DESIGN's rule that nothing
//! private is shared.)
//!
//! Called once per response from an origin, when its head is here. The order of the checks is the order of
//! [`Refusal`]'s variants; the first that fails is the answer. What the rule says against the headers is in `policy.rs`.

use crate::directives::{ResponseDirectives, Scope};
use crate::freshness::LifetimeSource;
use crate::freshness::{self, Facts, Flags, is_heuristically_cacheable};
use crate::policy::{RequestCacheControl, SetCookie};
use crate::reuse::{stale_if_error_secs, stale_while_revalidate_secs};
use crate::target::Target;
use crate::{Fields, Policy, RequestDirectives, Wall};

/// The request whose response is judged.
#[derive(Clone, Copy, Debug)]
pub struct StoreRequest<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The request's fields as the client sent them.
    pub fields: &'a Fields,
    /// What it asked for; only looked at for POST.
    pub target: Target<'a>,
}

/// Why a response may not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Answers to this method are not stored: anything but GET, and POST that is no answer to a later GET.
    Method,
    /// The status is about this one request: 1xx, 304, and those of [`is_about_the_request`].
    Status,
    /// A 206 that does not say which part it is.
    Part,
    /// The client asked for `no-store`, and the policy honours that.
    RequestNoStore,
    /// `must-understand` with a status that this cache does not understand.
    MustUnderstand,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// `Vary: *`.
    VaryStar,
    /// The request had Authorization and neither response nor rule allows to share the answer.
    Authorization,
    /// Set-Cookie, and neither response nor rule allows to share it.
    SetCookie,
    /// The rule keeps answers with this status for no time.
    RuleForStatus,
    /// Nothing says that it may be reused, so keeping it would only make others wait for it.
    NoFreshness,
    /// Larger than what the store takes. Not found here; for callers that report one kind of refusal.
    TooLarge,
}

impl Refusal {
    /// A stable short name, for logs and tests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::Method => "method",
            Refusal::Status => "status",
            Refusal::Part => "part",
            Refusal::RequestNoStore => "request-no-store",
            Refusal::MustUnderstand => "must-understand",
            Refusal::NoStore => "no-store",
            Refusal::Private => "private",
            Refusal::VaryStar => "vary-star",
            Refusal::Authorization => "authorization",
            Refusal::SetCookie => "set-cookie",
            Refusal::RuleForStatus => "rule-for-status",
            Refusal::NoFreshness => "no-freshness",
            Refusal::TooLarge => "too-large",
        }
    }

    /// One sentence for people, with the way out where there is one.
    pub const fn sentence(self) -> &'static str {
        match self {
            Refusal::Method => "Answers to this method are not stored.",
            Refusal::Status => "This status is about one request and is not stored.",
            Refusal::Part => "The response is a part, but has no Content-Range that says which.",
            Refusal::RequestNoStore => {
                "The client asked with Cache-Control: no-store not to store the answer."
            }
            Refusal::MustUnderstand => {
                "The origin wants the status understood (must-understand), and it is unknown."
            }
            Refusal::NoStore => "The origin forbids storing (no-store).",
            Refusal::Private => "The origin says that the answer is for one user (private).",
            Refusal::VaryStar => "The origin says that no other request can match (Vary: *).",
            Refusal::Authorization => {
                "The request had Authorization; the origin would have to say public or s-maxage, or a rule share_authorized."
            }
            Refusal::SetCookie => {
                "The answer sets a cookie; the origin would have to say public or s-maxage, or a rule set_cookie."
            }
            Refusal::RuleForStatus => "The rule keeps answers with this status for no time (ttl_by_status).",
            Refusal::NoFreshness => "Neither origin nor rule gives it a lifetime, nor is there a validator.",
            Refusal::TooLarge => "It is larger than what the store takes.",
        }
    }
}

/// Decides whether the response may be stored for GET and HEAD requests with the same key, and with what freshness.
///
/// - `request_time`, `response_time`: when the request was sent and when the response's head was complete.
/// - A 206 is judged as the whole would be; the caller stores it as a part.
/// - POST: only with a Content-Location that is the request's own target and a lifetime from the origin; the answer
///   then serves later GETs (RFC 9110 §9.3.3).
/// - HEAD is refused: it has no content to store. See `update::update_from_head`.
///
/// The stored copy must then pass through [`strip_unstorable`]. RFC 9111 §3, §3.5, §5.2.2; RFC 9213; RFC 5861.
pub fn decide_store(
    request: &StoreRequest<'_>,
    status: u16,
    response: &Fields,
    policy: &Policy,
    request_time: Wall,
    response_time: Wall,
) -> Result<Facts, Refusal> {
    let is_post = request.method == "POST" && is_own_content(&request.target, status, response);
    if request.method != "GET" && !is_post {
        return Err(Refusal::Method);
    }
    if status < 200 || is_about_the_request(status) {
        return Err(Refusal::Status);
    }
    if status == 206 && !response.contains("content-range") {
        return Err(Refusal::Part);
    }
    let honour = policy.request_cache_control == RequestCacheControl::Honour;
    if honour && RequestDirectives::parse(request.fields).no_store {
        return Err(Refusal::RequestNoStore);
    }
    let directives = ResponseDirectives::of(response, &policy.targeted);
    refuse_unshareable(request, status, response, &directives, policy)?;
    let is_personal = request.fields.contains("authorization")
        || (response.contains("set-cookie") && keeps_cookie(&directives, policy));

    let initial_age_ms = freshness::initial_age_ms(response, request_time, response_time);
    let (lifetime, source) =
        freshness::lifetime(status, response, &directives, policy, response_time, initial_age_ms);
    if is_post && !source.is_explicit() {
        return Err(Refusal::Method);
    }
    let is_by_rule = source.is_rule() || source == LifetimeSource::RuleForSilence;
    if is_by_rule && freshness::ttl_for_status(status, policy) == Some(0) {
        return Err(Refusal::RuleForStatus);
    }
    let facts = Facts {
        response_time,
        initial_age_ms,
        lifetime,
        stale_while_revalidate: directives.stale_while_revalidate.unwrap_or(0),
        stale_if_error: directives.stale_if_error.unwrap_or(0),
        status,
        source,
        flags: flags(response, &directives, source.is_rule(), response_time)
            .with_if(is_personal, Flags::PERSONAL),
    };
    let known_cacheable = source.is_rule()
        || source == LifetimeSource::RuleForSilence
        || source.is_explicit()
        || directives.public
        || is_heuristically_cacheable(status);
    if !known_cacheable || !is_useful(&facts, policy) {
        return Err(Refusal::NoFreshness);
    }
    Ok(facts)
}

/// What the response says about whose it is.
fn refuse_unshareable(
    request: &StoreRequest<'_>,
    status: u16,
    response: &Fields,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> Result<(), Refusal> {
    if directives.must_understand && !is_understood(status) {
        return Err(Refusal::MustUnderstand);
    }
    if directives.no_store && !directives.must_understand {
        return Err(Refusal::NoStore);
    }
    if directives.private == Scope::Whole {
        return Err(Refusal::Private);
    }
    if response.get_all("vary").flat_map(crate::list::tokens).any(|member| member == b"*") {
        return Err(Refusal::VaryStar);
    }
    // RFC 9111 §3.5 asks for these words; a bare targeted max-age is not among them, for origins set it on everything.
    let shares_authorized = policy.share_authorized
        || directives.public
        || directives.s_maxage.is_some()
        || directives.must_revalidate_everywhere;
    if request.fields.contains("authorization") && !shares_authorized {
        return Err(Refusal::Authorization);
    }
    let is_refused = policy.set_cookie == SetCookie::Never
        || (keeps_cookie(directives, policy) && !shares_cookies(directives, policy));
    if response.contains("set-cookie") && is_refused {
        return Err(Refusal::SetCookie);
    }
    Ok(())
}

/// Whether Set-Cookie lines would be in a stored copy.
fn keeps_cookie(directives: &ResponseDirectives, policy: &Policy) -> bool {
    let is_torn_out = directives.private.names(b"set-cookie") || directives.no_cache.names(b"set-cookie");
    policy.set_cookie != SetCookie::Strip && !is_torn_out
}

/// Whether Set-Cookie lines may be in a shared copy.
fn shares_cookies(directives: &ResponseDirectives, policy: &Policy) -> bool {
    let named = directives.public
        || directives.s_maxage.is_some()
        || (directives.targeted.is_some() && directives.max_age.is_some());
    match policy.set_cookie {
        SetCookie::Refuse => named,
        SetCookie::Rfc9111 => true,
        SetCookie::Strip | SetCookie::Never => false,
    }
}

fn flags(response: &Fields, directives: &ResponseDirectives, by_rule: bool, now: Wall) -> Flags {
    let no_cache = directives.no_cache == Scope::Whole;
    let etag = response.get("etag").filter(|etag| !etag.is_empty());
    let is_weak = etag.is_some_and(|etag| etag.starts_with(b"W/"));
    Flags::NONE
        .with_if(no_cache && !by_rule, Flags::NO_CACHE)
        .with_if(no_cache || directives.must_revalidate, Flags::NEVER_STALE)
        .with_if(directives.s_maxage.is_some(), Flags::STALE_IF_NAMED)
        .with_if(directives.stale_if_error.is_some(), Flags::STALE_IF_ERROR)
        .with_if(directives.immutable, Flags::IMMUTABLE)
        .with_if(etag.is_some() && !is_weak, Flags::STRONG_ETAG)
        .with_if(is_weak, Flags::WEAK_ETAG)
        .with_if(freshness::last_modified(response, now).is_some(), Flags::LAST_MODIFIED)
}

/// Whether a stored copy could ever answer, or shorten an answer. What never can is not stored: it would make requests
/// queue behind each other for nothing.
fn is_useful(facts: &Facts, policy: &Policy) -> bool {
    let answers = !facts.flags.has(Flags::NO_CACHE)
        && (facts.lifetime > 0
            || stale_while_revalidate_secs(facts, policy) > 0
            || stale_if_error_secs(facts, policy) > 0);
    answers || facts.has_validator()
}

/// Whether a POST's answer is the content of its own target.
fn is_own_content(target: &Target<'_>, status: u16, response: &Fields) -> bool {
    let location = response.get("content-location").and_then(|reference| target.resolve(reference));
    (200..300).contains(&status) && status != 206 && location.as_deref() == Some(target.path_and_query)
}

/// Statuses that say something about how one request was put, sent or timed, so that the same key asked again may well
/// get another answer: storing one would let a client's odd header decide what others get. Never stored.
///
/// 304, 407, 408, 412, 413, 416, 417, 421, 425, 426, 428, 429, 431, 511.
pub const fn is_about_the_request(status: u16) -> bool {
    matches!(status, 304 | 407 | 408 | 412 | 413 | 416 | 417 | 421 | 425 | 426 | 428 | 429 | 431 | 511)
}

/// Statuses whose caching requirements this cache implements, for `must-understand` (RFC 9111 §5.2.2.3): those of RFC
/// 9110, and 451. A status of the same class that is not listed is served, and stored without `must-understand`.
pub const fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=206 | 300..=303 | 305 | 307 | 308 | 400..=411 | 414 | 415 | 422 | 451 | 500..=505
    )
}

/// Takes out of a response what must not be in the stored copy: the fields that `private` and `no-cache` name, and
/// Set-Cookie unless it may be shared. Hop-by-hop fields are not its business (`hop::strip_hop_by_hop`).
///
/// Removes Set-Cookie also where [`decide_store`] would have refused, so that a caller that keeps a response for other
/// reasons (after a 304, say) never shares one.
pub fn strip_unstorable(response: &mut Fields, policy: &Policy) {
    let directives = ResponseDirectives::of(response, &policy.targeted);
    if !shares_cookies(&directives, policy) {
        response.remove("set-cookie");
    }
    let named = |scope: &Scope| matches!(scope, Scope::Fields(_));
    if named(&directives.private) || named(&directives.no_cache) {
        response.retain(|name, _| !directives.private.names(name) && !directives.no_cache.names(name));
    }
}

#[cfg(test)]
mod tests;
