//! Lines as other networks write them, so that what reads theirs reads ours: Amazon CloudFront's standard log (33 fields, tab
//! separated), and the names of Cloudflare's Logpush for HTTP requests (JSON).

use semantics::fields::{hex, write_decimal};
use semantics::{Outcome, Wall, Why};

use super::{LineNames, Stamp, number, text, write_address};
use crate::event::Event;

/// What a file of CloudFront's standard log begins with.
pub(crate) const CLOUDFRONT_HEAD: &str = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) \
cs-uri-stem sc-status cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header \
cs-protocol cs-bytes time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version \
fle-status fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type sc-content-type sc-content-len \
sc-range-start sc-range-end\n";

/// Appends one line of CloudFront's standard log. What is not known here is `-`, as there: cookies, ports, ciphers, ranges.
pub(crate) fn write_cloudfront(out: &mut Vec<u8>, stamp: &mut Stamp, event: &Event<'_>) {
    let (path, query) = split(event.target);
    stamp.write_date_and_time(out, event.wall);
    field(out, event.cache_status.node.as_bytes());
    number(out, b"\t", event.head_bytes_sent + event.body_bytes_sent);
    out.push(b'\t');
    write_address(out, event.client);
    for value in [event.method, event.host, path] {
        field(out, value);
    }
    match event.status {
        0 => out.extend_from_slice(b"\t000"),
        status => number(out, b"\t", u64::from(status)),
    }
    for value in [event.referer, event.user_agent, query] {
        field(out, value.unwrap_or_default());
    }
    let result = result_type(event);
    out.extend_from_slice(b"\t-\t");
    out.extend_from_slice(result.as_bytes());
    out.push(b'\t');
    out.extend_from_slice(&hex::<16>(event.request_id.into()));
    field(out, event.host);
    out.extend_from_slice(if event.secure { b"\thttps" } else { b"\thttp" });
    number(out, b"\t", event.bytes_received);
    seconds(out, event.duration_us);
    out.extend_from_slice(b"\t-\t-\t-\t");
    out.extend_from_slice(result.as_bytes());
    out.push(b'\t');
    out.extend_from_slice(event.protocol.as_bytes());
    // HTTP/2.0 and HTTP/3.0 are what is written there.
    if !event.protocol.contains('.') {
        out.extend_from_slice(b".0");
    }
    out.extend_from_slice(b"\t-\t-\t-");
    seconds(out, event.first_byte_us);
    out.push(b'\t');
    out.extend_from_slice(detailed(event.why, result).as_bytes());
    out.extend_from_slice(b"\t-");
    number(out, b"\t", event.body_bytes_sent);
    out.extend_from_slice(b"\t-\t-\n");
}

fn result_type(event: &Event<'_>) -> &'static str {
    match event.why {
        Why::Limit => "LimitExceeded",
        Why::Redirect => "Redirect",
        Why::Revalidated if event.status < 400 => "RefreshHit",
        why if why.outcome() == Outcome::Error || event.status >= 400 => "Error",
        why if why.outcome() == Outcome::Hit => "Hit",
        _ => "Miss",
    }
}

fn detailed(why: Why, result: &'static str) -> &'static str {
    match why {
        Why::OriginConnect => "OriginConnectError",
        Why::OriginTimeout | Why::OriginProtocol | Why::OriginDown => "OriginCommError",
        Why::ClientGone => "ClientCommError",
        _ => result,
    }
}

/// Path and query of a target.
fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// A tab, and a value that holds none: percent-encoded where it is not plain, the percent sign too, as CloudFront does.
fn field(out: &mut Vec<u8>, value: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'\t');
    if value.is_empty() {
        out.push(b'-');
    }
    for &byte in value.iter().take(crate::escape::FIELD_BYTES_MAX) {
        match byte {
            0..=0x20
            | 0x7f..
            | b'"'
            | b'%'
            | b'<'
            | b'>'
            | b'['
            | b'\\'
            | b']'
            | b'^'
            | b'`'
            | b'{'..=b'}' => {
                out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

/// A tab, and seconds with three decimals.
fn seconds(out: &mut Vec<u8>, us: u64) {
    number(out, b"\t", us / 1_000_000);
    let ms = us / 1000 % 1000;
    out.extend([b'.', b'0' + (ms / 100) as u8, b'0' + (ms / 10 % 10) as u8, b'0' + (ms % 10) as u8]);
}

/// Appends one JSON line under Logpush's names. Fields of things that there are none of here are left out.
pub(crate) fn write_logpush(out: &mut Vec<u8>, stamp: &mut Stamp, event: &Event<'_>, names: LineNames<'_>) {
    let (path, _) = split(event.target);
    out.extend_from_slice(b"{\"EdgeStartTimestamp\":\"");
    let begun = event.wall.0.saturating_sub((event.duration_us / 1000) as i64);
    stamp.write_rfc3339(out, Wall(begun));
    out.extend_from_slice(b"\",\"EdgeEndTimestamp\":\"");
    stamp.write_rfc3339(out, event.wall);
    out.extend_from_slice(b"\",\"RayID\":\"");
    out.extend_from_slice(&hex::<16>(event.request_id.into()));
    out.extend_from_slice(b"\",\"ClientIP\":\"");
    write_address(out, event.client);
    out.extend_from_slice(b"\",\"ClientCountry\":\"");
    let country = event.country.to_string().to_ascii_lowercase();
    out.extend_from_slice(country.as_bytes());
    text(out, b"\",\"ClientRequestMethod\":\"", event.method);
    text(out, b"\",\"ClientRequestHost\":\"", event.host);
    text(out, b"\",\"ClientRequestURI\":\"", event.target);
    text(out, b"\",\"ClientRequestPath\":\"", path);
    text(out, b"\",\"ClientRequestProtocol\":\"", event.protocol.as_bytes());
    text(out, b"\",\"ClientRequestScheme\":\"", if event.secure { b"https" } else { b"http" });
    text(out, b"\",\"ClientRequestReferer\":\"", event.referer.unwrap_or_default());
    text(out, b"\",\"ClientRequestUserAgent\":\"", event.user_agent.unwrap_or_default());
    number(out, b"\",\"ClientRequestBytes\":", event.bytes_received);
    number(out, b",\"EdgeResponseStatus\":", u64::from(event.status));
    number(out, b",\"EdgeResponseBytes\":", event.head_bytes_sent + event.body_bytes_sent);
    number(out, b",\"EdgeResponseBodyBytes\":", event.body_bytes_sent);
    number(out, b",\"EdgeTimeToFirstByteMs\":", event.first_byte_us / 1000);
    text(out, b",\"EdgeColoCode\":\"", event.cache_status.node.as_bytes());
    out.extend_from_slice(b"\",\"CacheCacheStatus\":\"");
    out.extend_from_slice(cache_status(event.why).as_bytes());
    out.extend_from_slice(b"\",\"ZoneName\":\"");
    out.extend_from_slice(names.site);
    out.push(b'"');
    if let Some(fetch) = &event.fetch {
        number(out, b",\"OriginResponseStatus\":", u64::from(fetch.status));
        number(out, b",\"OriginResponseDurationMs\":", fetch.duration_us / 1000);
    }
    out.extend_from_slice(b"}\n");
}

fn cache_status(why: Why) -> &'static str {
    match why {
        Why::Fresh | Why::Collapsed => "hit",
        Why::StaleWhileRevalidate => "updating",
        Why::StaleIfError | Why::StaleBudget => "stale",
        Why::Revalidated => "revalidated",
        Why::Expired => "expired",
        Why::Uncacheable | Why::TooLarge | Why::HitForMiss => "bypass",
        Why::Method | Why::Rule | Why::Upgrade => "dynamic",
        why if why.outcome() == Outcome::Miss => "miss",
        _ => "unknown",
    }
}

impl Stamp {
    /// `2026-11-23`, a tab, `20:44:33`.
    fn write_date_and_time(&mut self, out: &mut Vec<u8>, wall: Wall) {
        let start = out.len();
        self.write_rfc3339(out, wall);
        // What is more is the fraction; what is less cannot be, for years of four digits.
        out.truncate(start + "2026-11-23T20:44:33".len());
        if let Some(between) = out.get_mut(start + "2026-11-23".len()) {
            *between = b'\t';
        }
    }
}

/// A number in decimal, for messages that are framed by their length.
pub(crate) fn decimal(out: &mut Vec<u8>, value: u64) {
    write_decimal(out, value);
}
