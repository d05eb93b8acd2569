//! The Cache-Status response field (RFC 9211): what this cache did, behind what the caches before it did.
//!
//! ```text
//! Cache-Status: shield; hit; ttl=90, perigee; fwd=stale; fwd-status=304; ttl=60; stored; detail=revalidated
//! ```
//!
//! Writes only; nothing here reads another cache's members, they are passed on. The caller appends the result as a
//! line of its own *after* the lines that came with the response, which is the order that §2 asks for.

use crate::Why;
use crate::fields::{is_tchar, write_decimal};

/// What this cache did with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// Name of this cache: a token is written as it is, anything else as a string (bytes outside ASCII print as `?`).
    pub node: &'a str,
    /// Why the request ended as it did; written as `detail`.
    pub why: Why,
    /// How the request was handled. [`Handling::of`] gives the usual one.
    pub handling: Handling,
    /// Freshness left, in seconds, at the moment of sending; negative when stale. Left out when unknown.
    pub ttl: Option<i64>,
}

/// Whether the request went on to the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Answered from the cache without forwarding: `hit`.
    Hit,
    /// Forwarded: `fwd`.
    Forwarded {
        /// Why it had to be.
        because: Fwd,
        /// Status that the next hop answered, where it differs from what the client gets (304, 206, a 5xx that a
        /// stale response covers). §2.3.
        status: Option<u16>,
        /// Whether the answer was stored. §2.5.
        stored: bool,
        /// Whether it shared its forwarded request with others. §2.6.
        collapsed: bool,
    },
    /// Neither: answered by the edge itself, or refused before the cache was asked.
    Neither,
}

/// Why a request was forwarded: the values of `fwd` (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fwd {
    /// Configured not to be handled by the cache.
    Bypass,
    /// The method requires it.
    Method,
    /// Nothing stored under the URL.
    UriMiss,
    /// Something is stored under the URL, but not for this request's headers.
    VaryMiss,
    /// Nothing usable stored, whichever of the two.
    Miss,
    /// Fresh, but the request's directives do not allow it.
    Request,
    /// Stored but stale.
    Stale,
    /// Stored in part, and not all that was asked for.
    Partial,
}

impl Fwd {
    /// The token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fwd::Bypass => "bypass",
            Fwd::Method => "method",
            Fwd::UriMiss => "uri-miss",
            Fwd::VaryMiss => "vary-miss",
            Fwd::Miss => "miss",
            Fwd::Request => "request",
            Fwd::Stale => "stale",
            Fwd::Partial => "partial",
        }
    }

    /// The usual reason for forwarding behind a [`Why`]; `None` for those that are not forwarded. Why names the end of
    /// a request and `fwd` its cause, so [`Why::Uncacheable`] and the origin's failures say `miss`: a caller that
    /// knows that a stale response was there says [`Fwd::Stale`] itself.
    pub const fn of(why: Why) -> Option<Fwd> {
        Some(match why {
            Why::Fresh | Why::StaleWhileRevalidate => return None,
            Why::StaleIfError | Why::StaleBudget | Why::Revalidated | Why::Expired => Fwd::Stale,
            Why::Collapsed | Why::Absent | Why::Purged => Fwd::UriMiss,
            Why::Variant => Fwd::VaryMiss,
            Why::RequestDirective => Fwd::Request,
            Why::Partial => Fwd::Partial,
            Why::Uncacheable | Why::TooLarge | Why::HitForMiss => Fwd::Miss,
            Why::Method => Fwd::Method,
            Why::Rule | Why::Upgrade => Fwd::Bypass,
            Why::OriginConnect | Why::OriginTimeout | Why::OriginProtocol => Fwd::Miss,
            Why::Redirect
            | Why::Challenge
            | Why::Beacon
            | Why::Preflight
            | Why::OnlyIfCached
            | Why::BadRequest
            | Why::Limit
            | Why::Blocked
            | Why::UnknownSite
            | Why::ClientCertificate
            | Why::Misdirected
            | Why::Loop
            | Why::OriginDown
            | Why::OriginBudget
            | Why::ClientGone
            | Why::Internal => return None,
        })
    }
}

impl Handling {
    /// The usual handling behind a [`Why`], with what the forwarding showed. A stale-if-error answer that was served
    /// at once because the origin is known to fail was not forwarded: its caller says [`Handling::Hit`].
    pub const fn of(why: Why, status: Option<u16>, stored: bool) -> Handling {
        match (why, Fwd::of(why)) {
            (Why::Fresh | Why::StaleWhileRevalidate, _) => Handling::Hit,
            (_, None) => Handling::Neither,
            (_, Some(because)) => {
                Handling::Forwarded { because, status, stored, collapsed: matches!(why, Why::Collapsed) }
            }
        }
    }
}

/// Appends one list member to `out`. Never fails; allocates only what `out` needs to grow. RFC 9211 §2, with the
/// grammar of RFC 8941 §3.1.2.
///
/// ```
/// use semantics::{Why, cache_status::{CacheStatus, Handling, write_cache_status}};
/// let mut out = Vec::new();
/// let status = CacheStatus { node: "fra-1", why: Why::Fresh, handling: Handling::Hit, ttl: Some(30) };
/// write_cache_status(&mut out, &status);
/// assert_eq!(out, b"fra-1; hit; ttl=30; detail=fresh");
/// ```
pub fn write_cache_status(out: &mut Vec<u8>, status: &CacheStatus<'_>) {
    if is_token(status.node) {
        out.extend_from_slice(status.node.as_bytes());
    } else {
        write_string(out, status.node.as_bytes());
    }
    match status.handling {
        Handling::Hit => out.extend_from_slice(b"; hit"),
        Handling::Forwarded { because, status, stored, collapsed } => {
            out.extend_from_slice(b"; fwd=");
            out.extend_from_slice(because.as_str().as_bytes());
            if let Some(status) = status {
                out.extend_from_slice(b"; fwd-status=");
                write_integer(out, i64::from(status));
            }
            if stored {
                out.extend_from_slice(b"; stored");
            }
            if collapsed {
                out.extend_from_slice(b"; collapsed");
            }
        }
        Handling::Neither => {}
    }
    if let Some(ttl) = status.ttl {
        out.extend_from_slice(b"; ttl=");
        write_integer(out, ttl);
    }
    out.extend_from_slice(b"; detail=");
    out.extend_from_slice(status.why.as_str().as_bytes());
}

/// `sf-token`: a letter or `*`, then token characters, `:` and `/`.
fn is_token(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'*')
        && bytes.all(|byte| is_tchar(byte) || matches!(byte, b':' | b'/'))
}

/// `sf-string`: visible ASCII and space.
fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => out.push(b'?'),
        }
    }
    out.push(b'"');
}

/// `sf-integer`: at most 15 digits, so the value is clamped to those.
fn write_integer(out: &mut Vec<u8>, value: i64) {
    const MAX: i64 = 999_999_999_999_999;
    if value < 0 {
        out.push(b'-');
    }
    write_decimal(out, value.clamp(-MAX, MAX).unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: CacheStatus<'_>) -> String {
        let mut out = Vec::new();
        write_cache_status(&mut out, &status);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_handling_has_its_parameters_in_order() {
        let check = |why, handling, ttl, expected: &str| {
            assert_eq!(written(CacheStatus { node: "edge", why, handling, ttl }), expected);
        };
        let usual = |why| Handling::of(why, None, false);
        check(Why::Fresh, usual(Why::Fresh), Some(0), "edge; hit; ttl=0; detail=fresh");
        check(
            Why::StaleWhileRevalidate,
            usual(Why::StaleWhileRevalidate),
            Some(-412),
            "edge; hit; ttl=-412; detail=stale-while-revalidate",
        );
        check(Why::Absent, usual(Why::Absent), None, "edge; fwd=uri-miss; detail=absent");
        check(
            Why::Revalidated,
            Handling::of(Why::Revalidated, Some(304), true),
            Some(60),
            "edge; fwd=stale; fwd-status=304; stored; ttl=60; detail=revalidated",
        );
        check(Why::Collapsed, usual(Why::Collapsed), None, "edge; fwd=uri-miss; collapsed; detail=collapsed");
        check(Why::BadRequest, usual(Why::BadRequest), None, "edge; detail=bad-request");
        check(Why::Fresh, Handling::Hit, Some(i64::MIN), "edge; hit; ttl=-999999999999999; detail=fresh");
    }

    #[test]
    fn a_name_that_is_no_token_is_a_string() {
        let check = |node, expected: &str| {
            let handling = Handling::Hit;
            let status = CacheStatus { node, why: Why::Fresh, handling, ttl: None };
            assert_eq!(written(status), format!("{expected}; hit; detail=fresh"));
        };
        check("fra1.cdn.example:443/a", "fra1.cdn.example:443/a");
        check("1a", r#""1a""#);
        check("", r#""""#);
        check(r#"a "b" \c"#, r#""a \"b\" \\c""#);
        check("é\r\n", r#""????""#);
    }

    #[test]
    fn every_why_is_hit_forwarded_or_neither_and_its_text_a_token() {
        for &why in Why::ALL {
            assert!(is_token(why.as_str()), "{why}");
            let hit = matches!(Handling::of(why, None, false), Handling::Hit);
            assert_eq!(hit, matches!(why, Why::Fresh | Why::StaleWhileRevalidate), "{why}");
        }
    }
}
