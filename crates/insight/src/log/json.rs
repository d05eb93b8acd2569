//! The two logs of JSON objects: ours (`observe` has the keys), and Cloudflare's Logpush of `http_requests`. Keys that are
//! not known are passed over.

use std::borrow::Cow;
use std::collections::BTreeMap;

use semantics::{Fields, Outcome, Why};
use serde::Deserialize;
use serde_json::Value;

use super::{Fetch, Format, Record, Unreadable, clip, time, unreadable};

/// Selecting headers, and fields of an answer, that one line may tell.
const NAMES_MAX: usize = 64;

pub(super) fn read(line: &[u8]) -> Result<(Format, Record), Unreadable> {
    // Logs of ours begin with their time; those of Logpush have its names somewhere.
    if !line.starts_with(b"{\"time\":")
        && (contains(line, b"\"ClientRequest") || contains(line, b"\"EdgeResponse"))
    {
        return Ok((Format::Logpush, logpush(line)?));
    }
    Ok((Format::Json, ours(line)?))
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

fn not_json(error: &serde_json::Error) -> Unreadable {
    unreadable(format!("it is no such JSON object: {error}"))
}

// --- Ours ---

#[derive(Deserialize)]
struct Ours<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, default)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    #[serde(borrow, default)]
    scheme: Cow<'a, str>,
    #[serde(default)]
    authorized: bool,
    status: u16,
    #[serde(default)]
    body_bytes: u64,
    head_bytes: Option<u64>,
    first_byte_us: Option<u64>,
    #[serde(borrow)]
    why: Cow<'a, str>,
    age: Option<u32>,
    ttl: Option<i64>,
    #[serde(default)]
    collapsed: bool,
    #[serde(borrow)]
    encoded: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    selected_by: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    origin_status: Option<u16>,
    #[serde(default)]
    origin_us: u64,
    #[serde(borrow, default)]
    answer: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(borrow)]
    referer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_agent: Option<Cow<'a, str>>,
}

fn ours(line: &[u8]) -> Result<Record, Unreadable> {
    let said: Ours<'_> = serde_json::from_slice(line).map_err(|error| not_json(&error))?;
    let time = time::rfc3339(&said.time).ok_or_else(|| {
        unreadable(format!("the time {:?} is not like 2026-11-23T20:44:33.007Z", clip(&said.time)))
    })?;
    let why = Why::ALL.iter().find(|why| why.as_str() == said.why);
    let why = why.ok_or_else(|| unreadable(format!("no outcome is called {:?}", clip(&said.why))))?;
    let mut record = Record {
        time,
        method: said.method.into_owned(),
        target: said.target.into_owned(),
        secure: Some(said.scheme == "https"),
        authorized: said.authorized,
        client: said.client.into_owned(),
        status: said.status,
        body_bytes: said.body_bytes,
        head_bytes: said.head_bytes,
        first_byte_us: said.first_byte_us,
        outcome: Some(why.outcome()),
        why: Some(why.as_str()),
        age: said.age,
        ttl: said.ttl,
        collapsed: said.collapsed,
        encoded: said.encoded.is_some(),
        ..Record::default()
    };
    record.set_host(&said.host);
    record.selected_by = (said.selected_by.iter().take(NAMES_MAX))
        .filter_map(|(name, hash)| Some((name.clone().into_owned(), u32::from_str_radix(hash, 16).ok()?)))
        .collect();
    record.fetch = said.origin_status.map(|status| Fetch {
        status,
        us: said.origin_us,
        // Without any, the log is older than its `answer` key.
        answer: (!said.answer.is_empty()).then(|| fields_of(said.answer.iter())),
    });
    for (name, value) in [("Referer", &said.referer), ("User-Agent", &said.user_agent)] {
        if let Some(value) = value {
            record.add_field(name, value.as_bytes());
        }
    }
    Ok(record)
}

fn fields_of<'a, N: AsRef<str> + 'a, V: AsRef<str> + 'a>(
    lines: impl Iterator<Item = (&'a N, &'a V)>,
) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines.take(NAMES_MAX) {
        // What could not have been sent is left out.
        let _ = fields.append(name.as_ref(), value.as_ref());
    }
    fields
}

// --- Logpush ---

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Logpush<'a> {
    #[serde(borrow)]
    client_request_host: Cow<'a, str>,
    #[serde(borrow)]
    client_request_method: Cow<'a, str>,
    #[serde(rename = "ClientRequestURI", borrow)]
    client_request_uri: Cow<'a, str>,
    #[serde(borrow)]
    client_request_scheme: Option<Cow<'a, str>>,
    #[serde(borrow)]
    client_request_referer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    client_request_user_agent: Option<Cow<'a, str>>,
    #[serde(rename = "ClientIP", borrow, default)]
    client_ip: Cow<'a, str>,
    edge_start_timestamp: Option<Value>,
    edge_end_timestamp: Option<Value>,
    edge_response_status: u16,
    edge_response_bytes: Option<u64>,
    edge_response_body_bytes: Option<u64>,
    #[serde(borrow)]
    edge_response_content_type: Option<Cow<'a, str>>,
    edge_time_to_first_byte_ms: Option<u64>,
    #[serde(borrow)]
    cache_cache_status: Option<Cow<'a, str>>,
    origin_response_status: Option<u16>,
    origin_response_duration_ms: Option<u64>,
    #[serde(borrow, default)]
    response_headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

fn logpush(line: &[u8]) -> Result<Record, Unreadable> {
    let said: Logpush<'_> = serde_json::from_slice(line).map_err(|error| not_json(&error))?;
    let stamp = said.edge_end_timestamp.as_ref().or(said.edge_start_timestamp.as_ref());
    let time = match stamp {
        Some(Value::String(text)) => time::rfc3339(text),
        Some(Value::Number(number)) => number.as_i64().map(time::unix),
        _ => None,
    };
    let time =
        time.ok_or_else(|| unreadable("EdgeEndTimestamp or EdgeStartTimestamp is missing, or is no time"))?;
    let mut record = Record {
        time,
        method: said.client_request_method.into_owned(),
        target: said.client_request_uri.into_owned(),
        secure: said.client_request_scheme.map(|scheme| scheme == "https"),
        client: said.client_ip.into_owned(),
        status: said.edge_response_status,
        body_bytes: said.edge_response_body_bytes.or(said.edge_response_bytes).unwrap_or(0),
        first_byte_us: said.edge_time_to_first_byte_ms.map(|ms| ms.saturating_mul(1000)),
        content_type: said.edge_response_content_type.map(Cow::into_owned),
        ..Record::default()
    };
    record.set_host(&said.client_request_host);
    let status = said.cache_cache_status.map(|status| status.to_ascii_lowercase()).unwrap_or_default();
    (record.outcome, record.why) = match &*status {
        "hit" => (Some(Outcome::Hit), Some("fresh")),
        "stale" => (Some(Outcome::Hit), Some("stale-if-error")),
        "updating" => (Some(Outcome::Hit), Some("stale-while-revalidate")),
        "miss" => (Some(Outcome::Miss), Some("absent")),
        "expired" => (Some(Outcome::Miss), Some("expired")),
        "revalidated" => (Some(Outcome::Miss), Some("revalidated")),
        "bypass" => (Some(Outcome::Pass), Some("uncacheable")),
        "dynamic" => (Some(Outcome::Pass), Some("rule")),
        _ => (None, None),
    };
    // Logpush writes 0 where no origin was asked.
    record.fetch = said.origin_response_status.filter(|status| *status != 0).map(|status| Fetch {
        status,
        us: said.origin_response_duration_ms.unwrap_or(0).saturating_mul(1000),
        answer: (!said.response_headers.is_empty()).then(|| fields_of(said.response_headers.iter())),
    });
    for (name, value) in
        [("Referer", &said.client_request_referer), ("User-Agent", &said.client_request_user_agent)]
    {
        if let Some(value) = value {
            record.add_field(name, value.as_bytes());
        }
    }
    Ok(record)
}
