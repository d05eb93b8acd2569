//! What belongs to one connection and must not pass through: hop-by-hop fields (RFC 9110 §7.6.1), and the fields by
//! which messages record their way: Via (§7.6.3), Max-Forwards (§7.6.2), CDN-Loop (RFC 8586).
//!
//! Order matters. A caller strips a request before it looks at any other field (a client may list `Authorization` in
//! Connection, and the decision to store must see the request that the origin sees), and strips a response before it
//! decides to store it. Who needs `Upgrade` or `TE` reads them before.

use crate::Fields;
use crate::fields::{is_one_of, trim};
use crate::list::tokens;
use crate::range;

/// Most hops that a CDN-Loop may record before the request is taken for one that runs in circles through others.
pub const CDN_HOPS_MAX: usize = 16;

/// Fields that concern one connection whether or not Connection lists them.
///
/// The three Proxy- fields of authentication are meant for us and nobody behind us; RFC 9111 §3.1 forbids to store
/// them. `Trailer` announces what this hop may drop (RFC 9110 §6.5.1), `TE` is said anew by who will pass trailers on.
/// `Keep-Alive` and `Proxy-Connection` are old habits; `HTTP2-Settings` goes with the withdrawn upgrade to h2c.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that mean something in a head alone, besides those of [`HOP_BY_HOP`] and [`END_TO_END`].
const HEAD_ONLY: [&str; 28] = [
    "accept-ranges",
    "allow",
    "alt-svc",
    "clear-site-data",
    "content-disposition",
    "content-language",
    "content-location",
    "content-security-policy",
    "expect",
    "forwarded",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "origin",
    "referer",
    "retry-after",
    "strict-transport-security",
    "surrogate-control",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-http-method-override",
    "x-real-ip",
];

/// Fields that Connection cannot remove although it lists them.
///
/// RFC 9110 §7.6.1 forbids to list a field that is meant for all recipients. A message that does so anyway must not
/// make a private response look public, a body look decoded, or a loop look like a first visit.
const END_TO_END: [&str; 20] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "cdn-loop",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "host",
    "last-modified",
    "pragma",
    "range",
    "set-cookie",
    "vary",
    "via",
];

/// What Max-Forwards says to a TRACE or OPTIONS request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Forward; the field, if any, has been counted down.
    Onward,
    /// It was zero: this hop answers, as the final recipient.
    EndsHere,
}

// --- Hop-by-hop ---

/// Removes every hop-by-hop field, from a request or a response, before it is forwarded or stored: the known ones and
/// those that Connection lists, except those that are never hop-by-hop (Host, Content-Length, Cache-Control, Vary,
/// Set-Cookie, Authorization, CDN-Loop and their like).
///
/// Afterwards nothing says how the body was framed: that the caller knows by then. Rebuilds the block only when there
/// is something to remove.
pub fn strip_hop_by_hop(fields: &mut Fields) {
    if !HOP_BY_HOP.iter().any(|name| fields.contains(name)) {
        return;
    }
    let mut listed: Vec<Vec<u8>> = fields
        .get_all("connection")
        .flat_map(tokens)
        .filter(|option| !is_one_of(option, &END_TO_END))
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    // They may be thousands, beside a hundred fields.
    listed.sort_unstable();
    let is_listed = |name: &[u8]| {
        let name = || name.iter().map(u8::to_ascii_lowercase);
        listed.binary_search_by(|option| option.iter().copied().cmp(name())).is_ok()
    };
    fields.retain(|name, _| !is_one_of(name, &HOP_BY_HOP) && !is_listed(name));
}

/// Whether Connection lists `option` (`close`, `keep-alive`, `upgrade`), in any case, on any line.
pub fn connection_lists(fields: &Fields, option: &str) -> bool {
    fields.get_all("connection").flat_map(tokens).any(|listed| listed.eq_ignore_ascii_case(option.as_bytes()))
}

/// Whether the sender of a request wants to see trailer fields of its answer, and passes them on (RFC 9110 §10.1.4).
pub fn takes_trailers(request: &Fields) -> bool {
    request.get_all("te").flat_map(tokens).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Removes from a trailer section what must not stand there (RFC 9110 §6.5.1): fields that frame or route a message,
/// authenticate, modify a request, control a response, or say how its content is to be read. A recipient that merged
/// them into the head would be deceived by whoever wrote the content. ETag is made for either place (§8.8.3).
pub fn strip_trailers(trailers: &mut Fields) {
    if trailers.is_empty() {
        return;
    }
    let is_of_heads =
        |name: &[u8]| [&HOP_BY_HOP[..], &END_TO_END, &HEAD_ONLY].iter().any(|names| is_one_of(name, names));
    trailers.retain(|name, _| name.eq_ignore_ascii_case(b"etag") || !is_of_heads(name));
}

// --- Via ---

/// Records this hop in Via, behind those before it. RFC 9110 §7.6.3.
///
/// - `version`: protocol version in which the message was *received*, without the name: `1.1`, `1.0`, `2.0`, `3.0`.
/// - `pseudonym`: a token for this hop; anything else is left out, because it would break the list.
pub fn append_via(fields: &mut Fields, version: &str, pseudonym: &str) {
    if is_token(version) && is_token(pseudonym) {
        fields.append_unchecked(b"Via", format!("{version} {pseudonym}").as_bytes());
    }
}

/// How often `pseudonym` has recorded itself in Via, in any case.
pub fn via_passes(fields: &Fields, pseudonym: &str) -> usize {
    fields
        .get_all("via")
        .flat_map(tokens)
        .filter(|hop| {
            let mut words = hop.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
            words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.as_bytes()))
        })
        .count()
}

// --- CDN-Loop ---

/// How often the CDN `id` has forwarded this request already: 0 for one from outside. RFC 8586 §2.
///
/// Ids compare without case, parameters are passed over.
pub fn cdn_passes(request: &Fields, id: &str) -> usize {
    cdn_infos(request).filter(|info| info.eq_ignore_ascii_case(id.as_bytes())).count()
}

/// Whether a request must be refused because it runs in circles: `id` is recorded already, or more than [`CDN_HOPS_MAX`]
/// hops are.
pub fn is_loop(request: &Fields, id: &str) -> bool {
    request.contains("cdn-loop") && (cdn_passes(request, id) > 0 || cdn_infos(request).count() > CDN_HOPS_MAX)
}

/// Records this CDN in CDN-Loop, behind those before it. An `id` that is neither token nor `host[:port]` is left out.
pub fn append_cdn_loop(request: &mut Fields, id: &str) {
    let sound = |byte: u8| crate::fields::is_tchar(byte) || matches!(byte, b':' | b'[' | b']');
    if !id.is_empty() && id.bytes().all(sound) {
        request.append_unchecked(b"CDN-Loop", id.as_bytes());
    }
}

fn cdn_infos(request: &Fields) -> impl Iterator<Item = &[u8]> {
    request
        .get_all("cdn-loop")
        .flat_map(crate::list::members)
        .map(|info| trim(info.split(|&byte| byte == b';').next().unwrap_or_default()))
}

// --- Max-Forwards ---

/// Counts Max-Forwards down for a request that is about to be forwarded. Only TRACE and OPTIONS have it; for other
/// methods, and for a value that is no number, nothing happens. One that is too large for an integer counts as
/// [`u32::MAX`]. RFC 9110 §7.6.2.
pub fn count_forward(method: &[u8], request: &mut Fields) -> Forwarding {
    if !matches!(method, b"TRACE" | b"OPTIONS") {
        return Forwarding::Onward;
    }
    let count = request.get("max-forwards").and_then(range::position);
    match count.map(|count| u32::try_from(count).unwrap_or(u32::MAX)) {
        None => Forwarding::Onward,
        Some(0) => Forwarding::EndsHere,
        Some(count) => {
            request.remove("max-forwards");
            request.append_unchecked(b"Max-Forwards", (count - 1).to_string().as_bytes());
            Forwarding::Onward
        }
    }
}

// --- Pieces ---

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(crate::fields::is_tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(block: &str) -> Fields {
        block.lines().filter_map(|line| line.split_once(':')).collect()
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_lists_are_removed() {
        let check = |before: &str, after: &str| {
            let mut stripped = fields(before);
            strip_hop_by_hop(&mut stripped);
            assert_eq!(stripped, fields(after), "{before}");
        };
        check("Connection: a, b\na: 1\nB: 2\nc: 3", "c: 3");
        check("Connection: close\nConnection: , x\nX: 1\ny: 2", "y: 2");
        check("Connection:\na: 1", "a: 1");
        check("a: 1\nb: 2", "a: 1\nb: 2");
        check(
            "Connection: Cache-Control, Set-Cookie, Vary\nCache-Control: private\nVary: x",
            "Cache-Control: private\nVary: x",
        );
        check("Connection: CDN-Loop, Host\nHost: a\nCDN-Loop: perigee", "Host: a\nCDN-Loop: perigee");
        for name in [
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authentication-Info",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "HTTP2-Settings",
        ] {
            check(&format!("{name}: x\nTest-Header: y"), "Test-Header: y");
        }
        let kept = "Content-Length: 10\nContent-MD5: x\nContent-Range: x\nSet-Cookie2: a=c\nPublic-Key-Pins: x\n\
                    Clear-Site-Data: cookies\nX-XSS-Protection: 1; mode=block\nWWW-Authenticate: Basic\nLink: </a>";
        check(kept, kept);
    }

    #[test]
    fn trailers_lose_what_must_stand_in_a_head() {
        let kept =
            "grpc-status: 0\ngrpc-message: ok\nServer-Timing: db;dur=1\nDigest: x\nETag: \"a\"\nx-sum: 7";
        let mut trailers = fields(kept);
        for name in [
            "Content-Length",
            "transfer-encoding",
            "Host",
            "Set-Cookie",
            "Cookie",
            "Authorization",
            "WWW-Authenticate",
            "Cache-Control",
            "Vary",
            "Age",
            "Content-Type",
            "Content-Encoding",
            "Content-Range",
            "Location",
            "Trailer",
            "TE",
            "Connection",
            "If-None-Match",
            "Range",
            "X-Forwarded-For",
        ] {
            trailers.append(name, "x").expect("there is room");
        }
        strip_trailers(&mut trailers);
        assert_eq!(trailers, fields(kept));
    }

    #[test]
    fn trailers_are_taken_by_who_says_so() {
        let check = |te: &str, expected| {
            assert_eq!(takes_trailers(&[("TE", te)].into_iter().collect()), expected, "{te}");
        };
        check("trailers", true);
        check("gzip;q=0.5, Trailers", true);
        check("trailers-not", false);
        check("gzip", false);
        assert!(!takes_trailers(&Fields::new()));
    }

    #[test]
    fn via_names_each_hop_in_order() {
        let mut fields = fields("Via: 1.0 fred, 1.1 Perigee (comment), HTTP/2 other");
        assert_eq!(via_passes(&fields, "perigee"), 1);
        append_via(&mut fields, "1.1", "perigee");
        assert_eq!(via_passes(&fields, "perigee"), 2);
        assert_eq!(fields.get_all("via").last(), Some(&b"1.1 perigee"[..]));
        append_via(&mut fields, "1.1", "no token");
        append_via(&mut fields, "1.1", "a,b");
        assert_eq!(fields.len(), 2);
    }

    #[test]
    fn a_request_that_came_through_here_before_is_a_loop() {
        let check = |value: &str, expected| {
            let request: Fields = [("CDN-Loop", value)].into_iter().collect();
            assert_eq!(is_loop(&request, "perigee"), expected, "{value}");
        };
        check("", false);
        check("other", false);
        check("perigee", true);
        check("other, Perigee ; v=1", true);
        check(r#"other; note="perigee, perigee""#, false);
        check("not-perigee, perigee.example", false);
        check(&"x,".repeat(CDN_HOPS_MAX), false);
        check(&"x,".repeat(CDN_HOPS_MAX + 1), true);
        let mut request = fields("CDN-Loop: a");
        append_cdn_loop(&mut request, "perigee");
        append_cdn_loop(&mut request, "bad id");
        assert_eq!((cdn_passes(&request, "perigee"), cdn_passes(&request, "a")), (1, 1));
    }

    #[test]
    fn max_forwards_counts_down_for_trace_and_options_only() {
        let check = |method: &str, value: &str, expected, left: &str| {
            let mut request: Fields = [("Max-Forwards", value)].into_iter().collect();
            assert_eq!(count_forward(method.as_bytes(), &mut request), expected, "{method} {value}");
            assert_eq!(request.get("max-forwards"), Some(left.as_bytes()), "{method} {value}");
        };
        check("TRACE", "2", Forwarding::Onward, "1");
        check("OPTIONS", "0", Forwarding::EndsHere, "0");
        check("GET", "0", Forwarding::Onward, "0");
        check("OPTIONS", "4294967295", Forwarding::Onward, "4294967294");
        check("OPTIONS", "99999999999999999999", Forwarding::Onward, "4294967294");
        for no_number in ["x", "", "+0", "-1", "0, 0", "1.0"] {
            check("TRACE", no_number, Forwarding::Onward, no_number);
        }
        assert_eq!(count_forward(b"TRACE", &mut Fields::new()), Forwarding::Onward);
    }
}
