//! One finished request as one line of text: a JSON object, the combined format of web servers, or what other networks write. Formats straight
//! into the worker's buffer; allocates only when that buffer grows.
//!
//! JSON keys, in this order, absent ones left out: `time` (RFC 3339, UTC, ms), `id`, `trace`, `client`, `method`, `host`, `target`,
//! `protocol`, `scheme` (only `https`), `authorized`, `status`, `body_bytes`, `head_bytes`, `received_bytes`, `duration_us`, `first_byte_us`, `outcome`, `why`,
//! `site`, `asked_as` (of a request of another edge), `rule`, `age`, `ttl`, `collapsed`, `stored`, `encoded`, `selected_by`, `origin`, `origin_status`, `origin_us`, `attempts`,
//! `answer`, `referer`, `user_agent`. What reads them: `insight::log`.

use std::io::Write;
use std::net::IpAddr;

use semantics::date::civil_of;
use semantics::fields::{hex, write_decimal};
use semantics::{Fields, Wall};

use crate::escape;
use crate::event::{Event, Fetch};

pub(crate) mod foreign;

/// The names that go with an event's slots, already escaped for JSON.
pub(crate) struct LineNames<'a> {
    pub(crate) site: &'a [u8],
    pub(crate) origin: &'a [u8],
}

/// Appends one JSON line, line end included.
pub(crate) fn write_json(out: &mut Vec<u8>, stamp: &mut Stamp, event: &Event<'_>, names: LineNames<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    stamp.write_rfc3339(out, event.wall);
    out.extend_from_slice(b"\",\"id\":\"");
    out.extend_from_slice(&hex::<16>(event.request_id.into()));
    if let Some(trace_id) = event.trace_id {
        out.extend_from_slice(b"\",\"trace\":\"");
        out.extend_from_slice(&hex::<32>(trace_id));
    }
    out.extend_from_slice(b"\",\"client\":\"");
    write_address(out, event.client);
    text(out, b"\",\"method\":\"", event.method);
    text(out, b"\",\"host\":\"", event.host);
    text(out, b"\",\"target\":\"", event.target);
    out.extend_from_slice(b"\",\"protocol\":\"");
    out.extend_from_slice(event.protocol.as_bytes());
    if event.secure {
        out.extend_from_slice(b"\",\"scheme\":\"https");
    }
    out.push(b'"');
    if event.authorized {
        out.extend_from_slice(b",\"authorized\":true");
    }
    number(out, b",\"status\":", u64::from(event.status));
    number(out, b",\"body_bytes\":", event.body_bytes_sent);
    number(out, b",\"head_bytes\":", event.head_bytes_sent);
    number(out, b",\"received_bytes\":", event.bytes_received);
    number(out, b",\"duration_us\":", event.duration_us);
    number(out, b",\"first_byte_us\":", event.first_byte_us);
    out.extend_from_slice(b",\"outcome\":\"");
    out.extend_from_slice(event.why.outcome().as_str().as_bytes());
    out.extend_from_slice(b"\",\"why\":\"");
    out.extend_from_slice(event.why.as_str().as_bytes());
    out.extend_from_slice(b"\",\"site\":\"");
    out.extend_from_slice(names.site);
    out.push(b'"');
    if let Some(hop) = event.asked {
        out.extend_from_slice(b",\"asked_as\":\"");
        out.extend_from_slice(hop.as_str().as_bytes());
        out.push(b'"');
    }
    if let Some(rule) = event.rule {
        number(out, b",\"rule\":", u64::from(rule));
    }
    if let Some(age) = event.age {
        number(out, b",\"age\":", u64::from(age));
    }
    if let Some(ttl) = event.ttl {
        out.extend_from_slice(if ttl < 0 { b",\"ttl\":-" } else { b",\"ttl\":" });
        write_decimal(out, ttl.unsigned_abs());
    }
    if event.collapsed {
        out.extend_from_slice(b",\"collapsed\":true");
    }
    if event.stored {
        out.extend_from_slice(b",\"stored\":true");
    }
    if let Some((coding, _)) = event.encoded {
        out.extend_from_slice(b",\"encoded\":\"");
        out.extend_from_slice(coding.as_str().as_bytes());
        out.push(b'"');
    }
    if !event.selected_by.is_empty() {
        write_selectors(out, event.selected_by);
    }
    if let Some(fetch) = &event.fetch {
        write_fetch(out, fetch, names.origin);
    }
    if let Some(answer) = event.answer.filter(|answer| !answer.is_empty()) {
        write_answer(out, answer);
    }
    if let Some(referer) = event.referer {
        text(out, b",\"referer\":\"", referer);
        out.push(b'"');
    }
    if let Some(user_agent) = event.user_agent {
        text(out, b",\"user_agent\":\"", user_agent);
        out.push(b'"');
    }
    out.extend_from_slice(b"}\n");
}

fn write_fetch(out: &mut Vec<u8>, fetch: &Fetch, origin: &[u8]) {
    out.extend_from_slice(b",\"origin\":\"");
    out.extend_from_slice(origin);
    number(out, b"\",\"origin_status\":", u64::from(fetch.status));
    number(out, b",\"origin_us\":", fetch.duration_us);
    number(out, b",\"attempts\":", u64::from(fetch.attempts));
}

fn write_selectors(out: &mut Vec<u8>, selectors: &[(Box<str>, u32)]) {
    out.extend_from_slice(b",\"selected_by\":{");
    for (index, (name, hash)) in selectors.iter().enumerate() {
        text(out, if index == 0 { b"\"" } else { b",\"" }, name.as_bytes());
        // Writing into memory cannot fail.
        let _ = write!(out, "\":\"{hash:08x}\"");
    }
    out.push(b'}');
}

/// Longest value of an answer's field that is told whole: Cache-Control of real origins stays under 200 bytes.
const ANSWER_VALUE_BYTES_MAX: usize = 256;

fn write_answer(out: &mut Vec<u8>, answer: &Fields) {
    out.extend_from_slice(b",\"answer\":{");
    let before = out.len();
    for name in Event::ANSWER_FIELDS {
        let Some(value) = answer.combined(name) else { continue };
        text(out, if out.len() == before { b"\"" } else { b",\"" }, name.as_bytes());
        text(out, b"\":\"", &value[..value.len().min(ANSWER_VALUE_BYTES_MAX)]);
        out.push(b'"');
    }
    out.push(b'}');
}

/// Appends one line in the combined format: client, two dashes, time in brackets, request line, status, body bytes,
/// referer, user agent.
pub(crate) fn write_combined(out: &mut Vec<u8>, stamp: &mut Stamp, event: &Event<'_>) {
    write_address(out, event.client);
    out.extend_from_slice(b" - - [");
    stamp.write_combined(out, event.wall);
    out.extend_from_slice(b"] \"");
    escape::quoted(out, or_dash(Some(event.method)));
    out.push(b' ');
    escape::quoted(out, or_dash(Some(event.target)));
    out.push(b' ');
    out.extend_from_slice(event.protocol.as_bytes());
    number(out, b"\" ", u64::from(event.status));
    number(out, b" ", event.body_bytes_sent);
    out.extend_from_slice(b" \"");
    escape::quoted(out, or_dash(event.referer));
    out.extend_from_slice(b"\" \"");
    escape::quoted(out, or_dash(event.user_agent));
    out.extend_from_slice(b"\"\n");
}

fn or_dash(value: Option<&[u8]>) -> &[u8] {
    value.filter(|value| !value.is_empty()).unwrap_or(b"-")
}

fn text(out: &mut Vec<u8>, before: &[u8], value: &[u8]) {
    out.extend_from_slice(before);
    escape::json(out, value);
}

fn number(out: &mut Vec<u8>, before: &[u8], value: u64) {
    out.extend_from_slice(before);
    write_decimal(out, value);
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                write_decimal(out, u64::from(octet));
            }
        }
        // Writing into memory cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

// --- Time ---

/// Formats wall time, keeping the text of the last second: a busy worker needs a new one once in thousands of lines.
#[derive(Debug)]
pub(crate) struct Stamp {
    secs: i64,
    /// `2026-11-23T20:44:33.`
    rfc3339: Vec<u8>,
    /// `23/Nov/2026:20:44:33 +0000`
    combined: Vec<u8>,
}

/// 0001-01-01 and 9999-12-31, in seconds since the epoch: what four digits of year can say.
const SECS_MIN: i64 = -62_135_596_800;
const SECS_MAX: i64 = 253_402_300_799;

impl Stamp {
    pub(crate) fn new() -> Self {
        Stamp { secs: i64::MIN, rfc3339: Vec::new(), combined: Vec::new() }
    }

    pub(crate) fn write_rfc3339(&mut self, out: &mut Vec<u8>, wall: Wall) {
        self.renew(wall);
        out.extend_from_slice(&self.rfc3339);
        let ms = wall.0.rem_euclid(1000) as u16;
        let digits = [ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8);
        out.extend_from_slice(&digits);
        out.push(b'Z');
    }

    fn write_combined(&mut self, out: &mut Vec<u8>, wall: Wall) {
        self.renew(wall);
        out.extend_from_slice(&self.combined);
    }

    fn renew(&mut self, wall: Wall) {
        if wall.secs() == self.secs {
            return;
        }
        self.secs = wall.secs();
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let secs = self.secs.clamp(SECS_MIN, SECS_MAX);
        let (year, month, day) = civil_of(secs.div_euclid(86_400));
        let time = secs.rem_euclid(86_400);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        self.rfc3339.clear();
        self.combined.clear();
        // Writing into memory cannot fail.
        let _ = write!(self.rfc3339, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.");
        let name = MONTHS[month as usize - 1];
        let _ = write!(self.combined, "{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
    }
}

#[cfg(test)]
mod tests;
