//! Conditional requests (RFC 9110 §13, RFC 9111 §4.3): those of clients, answered from what is stored, and those that
//! this cache makes to validate what is stored. If-Range is in `range.rs`.
//!
//! Entity tags are compared leniently where that can do no harm: a tag without quotes equals the same with quotes,
//! because origins and clients that forget them mean the same thing by it. Beyond that only the exact bytes count;
//! `w/"x"` is its own (strong) tag.

use crate::freshness::Facts;
use crate::{Fields, Wall, date, fields};

/// What a client's preconditions say about a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// They hold, or there are none: answer with the response.
    Proceed,
    /// The client has it already: 304.
    NotModified,
    /// The client wants it only in a state that it isn't in: 412.
    Failed,
}

/// The values of a stored head that preconditions are compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validators<'a> {
    /// ETag, as stored.
    pub etag: Option<&'a [u8]>,
    /// Last-Modified, as stored.
    pub last_modified: Option<&'a [u8]>,
    /// Date, as stored.
    pub date: Option<&'a [u8]>,
}

impl<'a> Validators<'a> {
    /// From a head.
    pub fn of(stored: &'a Fields) -> Self {
        Validators {
            etag: stored.get("etag"),
            last_modified: stored.get("last-modified"),
            date: stored.get("date"),
        }
    }

    /// From a stored block ([`Fields::as_block`]), in one pass and without allocation. Of repeated lines the first counts.
    pub fn of_block(block: &'a [u8]) -> Self {
        let mut validators = Validators::default();
        for (name, value) in fields::lines_of(block) {
            let place = match name.len() {
                4 if name.eq_ignore_ascii_case(b"etag") => &mut validators.etag,
                4 if name.eq_ignore_ascii_case(b"date") => &mut validators.date,
                13 if name.eq_ignore_ascii_case(b"last-modified") => &mut validators.last_modified,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        validators
    }
}

// --- Conditions of clients ---

/// Whether the request has any precondition that [`evaluate_preconditions`] looks at. A few bit tests for a request
/// without.
pub fn is_conditional(request: &Fields) -> bool {
    ["if-none-match", "if-modified-since", "if-match", "if-unmodified-since"]
        .iter()
        .any(|name| request.contains(name))
}

/// Evaluates a request's preconditions against the stored response that would answer it, in the order of RFC 9110
/// §13.2.2. Only for a response that may be used now (fresh, or just validated). Allocates nothing.
///
/// - Stored responses other than 2xx make every precondition void (§13.2.1).
/// - If-Match compares strongly, If-None-Match weakly; both take lists and `*`. If-None-Match silences
///   If-Modified-Since whatever comes of it.
/// - If-Modified-Since counts only with GET and HEAD and as exactly one date. Without Last-Modified, the response's Date
///   stands in, and without that the time it arrived (RFC 9111 §4.3.2).
/// - If-Unmodified-Since without a Last-Modified to compare with is void.
pub fn evaluate_preconditions(
    request: &Fields,
    method: &str,
    stored: &Validators<'_>,
    facts: &Facts,
    now: Wall,
) -> Precondition {
    if !(200..300).contains(&facts.status) || !is_conditional(request) {
        return Precondition::Proceed;
    }
    let modified = stored.last_modified.and_then(|value| date::parse(value, now));
    if request.contains("if-match") {
        if !lists(request, "if-match", stored.etag, is_same_strongly) {
            return Precondition::Failed;
        }
    } else if let Some(since) = single_date(request, "if-unmodified-since", now)
        && modified.is_some_and(|modified| modified > since)
    {
        return Precondition::Failed;
    }
    let reads = matches!(method, "GET" | "HEAD");
    if request.contains("if-none-match") {
        return match lists(request, "if-none-match", stored.etag, is_same_weakly) {
            false => Precondition::Proceed,
            true if reads => Precondition::NotModified,
            true => Precondition::Failed,
        };
    }
    if reads && let Some(since) = single_date(request, "if-modified-since", now) {
        let stand_in =
            || stored.date.and_then(|value| date::parse(value, now)).unwrap_or(facts.response_time);
        if modified.unwrap_or_else(stand_in).secs() <= since.secs() {
            return Precondition::NotModified;
        }
    }
    Precondition::Proceed
}

/// Whether a field of the stored head stays out of the 304 that answers a conditional request: what describes content
/// that is not sent. Everything else goes along, ETag, Vary, Cache-Control and Expires above all (RFC 9110 §15.4.5).
pub fn is_left_out_of_304(name: &[u8]) -> bool {
    const CONTENT: [&str; 6] = [
        "content-length",
        "content-type",
        "content-encoding",
        "content-language",
        "content-range",
        "trailer",
    ];
    fields::is_one_of(name, &CONTENT)
}

/// Whether the list in the lines of `name` has the tag. `*` stands for any response there is.
fn lists(request: &Fields, name: &str, etag: Option<&[u8]>, is_same: fn(&[u8], &[u8]) -> bool) -> bool {
    request.get_all(name).any(|value| {
        value == b"*" || etag.is_some_and(|etag| entity_tags(value).any(|candidate| is_same(candidate, etag)))
    })
}

/// The members of a list of entity tags. A comma between quotes belongs to the tag; a backslash is a letter like any
/// other there (RFC 9110 §8.8.3), unlike in quoted strings.
pub(crate) fn entity_tags(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value
        .split(move |&byte| {
            quoted ^= byte == b'"';
            byte == b',' && !quoted
        })
        .map(fields::trim)
        .filter(|tag| !tag.is_empty())
}

/// Weak comparison of entity tags (RFC 9110 §8.8.3.2): weakness does not count.
pub fn is_same_weakly(a: &[u8], b: &[u8]) -> bool {
    opaque(a) == opaque(b)
}

/// Strong comparison of entity tags: equal, and neither is weak.
pub fn is_same_strongly(a: &[u8], b: &[u8]) -> bool {
    !a.starts_with(b"W/") && !b.starts_with(b"W/") && opaque(a) == opaque(b)
}

fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    match tag {
        [b'"', inside @ .., b'"'] => inside,
        _ => tag,
    }
}

fn single_date(request: &Fields, name: &str, now: Wall) -> Option<Wall> {
    let mut values = request.get_all(name);
    let value = values.next()?;
    if values.next().is_some() { None } else { date::parse(value, now) }
}

// --- Conditions of this cache ---

/// Makes a request for the stored response a validation: adds If-None-Match with its entity tag and If-Modified-Since
/// with its Last-Modified, those that it has, as the origin wrote them (RFC 9111 §4.3.1). A Last-Modified that is no
/// date is left out. The caller has removed the client's own preconditions.
pub fn add_validators(stored: &Fields, request: &mut Fields) {
    let validators = Validators::of(stored);
    if let Some(etag) = validators.etag.filter(|etag| !etag.is_empty()) {
        request.append_unchecked(b"If-None-Match", etag);
    }
    // The moment only matters for two-digit years, and only the form is looked at.
    if let Some(modified) = validators.last_modified.filter(|value| date::parse(value, Wall(0)).is_some()) {
        request.append_unchecked(b"If-Modified-Since", modified);
    }
}

#[cfg(test)]
mod tests;
