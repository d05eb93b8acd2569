//! From an [`Answer`] to a response head and an access-log event. The stored block goes out as it lies; a
//! copy is edited only where a rule, the visitor's Origin or a multipart answer asks for it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use model::Https;
use model::rule::ClientCertificate;
use observe::{Event, Fetch, Slot};
use semantics::cache_status::{CacheStatus, write_cache_status};
use semantics::coding;
use semantics::directives::{ResponseDirectives, Scope};
use semantics::fields::{is_one_of, lines_of, trim};
use semantics::key::{Device, hash, write_key};
use semantics::{Fields, KeyRecipe, Outcome, Vary, VarySpec, Why};

use crate::answer::{Answer, Body, ContentRange, Head, Note, OriginNote};
use crate::h1;
use crate::h3::qpack;
use crate::intake::CLIENT_CERTIFICATE;
use crate::loaded::{RuleAt, view};
use crate::request::{AltSvc, Method, Protocol, Request};
use crate::tiers;
use crate::tracing;
use crate::worker::Worker;

/// For how long a visitor may go by what Alt-Svc says (RFC 7838 §3.1): a day, the RFC's default, and what others say.
const ALT_SVC_SECS: u32 = 86_400;

/// How the end of a response is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The head is all there is: HEAD, 1xx, 204, 304.
    NoBody,
    /// Content-Length.
    Length,
    /// Chunked coding.
    Chunked,
    /// The end of the connection (HTTP/1.0).
    Close,
}

/// How the content of `answer` is framed towards `request`'s sender. RFC 9112 §6.3.
fn framing(request: &Request, answer: &Answer) -> Framing {
    match answer.length {
        _ if has_no_content(request, answer) => Framing::NoBody,
        Some(_) => Framing::Length,
        None if request.protocol == Protocol::Http10 => Framing::Close,
        None => Framing::Chunked,
    }
}

/// Whether the head is all there is. RFC 9110 §6.4.1.
pub(crate) fn has_no_content(request: &Request, answer: &Answer) -> bool {
    request.method == Method::Head || matches!(answer.status, 101 | 204 | 304)
}

/// Appends the whole HTTP/1.1 head, with the empty line, and says how the body is framed.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    worker: &Worker,
    request: &Request,
    answer: &Answer,
    close: bool,
) -> Framing {
    let framing = framing(request, answer);
    h1::write_status_line(out, answer.status);
    write_fields(out, worker, request, answer);
    if framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match request.protocol {
        _ if answer.status == 101 => out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        _ if close || framing == Framing::Close => out.extend_from_slice(b"Connection: close\r\n"),
        Protocol::Http10 => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Protocol::Http11 | Protocol::Http2 | Protocol::Http3 => {}
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// For a year, what browsers that preload such hosts want at least.
const STRICT_TRANSPORT: &[u8] = b"Strict-Transport-Security: max-age=31536000\r\n";

/// The head as HTTP/2 sends it; `out` lends its room. Values are not copied once more.
pub(crate) fn response_head(
    out: &mut Vec<u8>,
    worker: &Worker,
    request: &Request,
    answer: &Answer,
) -> (http::Response<()>, u64) {
    write_fields(out, worker, request, answer);
    let block = Bytes::copy_from_slice(out);
    out.clear();
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in lines_of(&block) {
        if let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(mut value) = HeaderValue::from_maybe_shared(block.slice_ref(value))
        {
            // No two are alike: in the visitor's table it would only push out what is worth keeping (RFC 7541 §6.2).
            value.set_sensitive(name == "x-request-id");
            headers.append(name, value);
        }
    }
    (response, block.len() as u64)
}

/// The head as an encoded field section of HTTP/3; `out` lends its room.
pub(crate) fn response_section(
    out: &mut Vec<u8>,
    worker: &Worker,
    request: &Request,
    answer: &Answer,
) -> (Vec<u8>, u64) {
    write_fields(out, worker, request, answer);
    let mut section = Vec::with_capacity(out.len());
    qpack::begin(&mut section);
    qpack::write_status(&mut section, answer.status);
    lines_of(out).for_each(|(name, value)| qpack::write_line(&mut section, name, value));
    (section, out.len() as u64)
}

/// Appends the field lines of an answer but for those that concern the connection.
fn write_fields(out: &mut Vec<u8>, worker: &Worker, request: &Request, answer: &Answer) {
    let is_for_edge = request.asked.is_some();
    let edited = match is_for_edge {
        false => edited_fields(request, answer),
        true => bare_fields(answer),
    };
    if request.secure
        && !is_for_edge
        && answer.rule.as_ref().is_some_and(|at| at.rule().https == Https::Strict)
    {
        let is_said = match &edited {
            Some(fields) => fields.contains("strict-transport-security"),
            None => answer.head.field("strict-transport-security").is_some(),
        };
        // Once at most, and never without TLS (RFC 6797 §7).
        if !is_said {
            out.extend_from_slice(STRICT_TRANSPORT);
        }
    }
    // What is stored has one.
    let has_date = match (&edited, &answer.head) {
        (Some(fields), Head::Own(_)) | (None, Head::Own(fields)) => fields.contains("date"),
        (_, Head::Stored(_) | Head::Negotiated(..)) => true,
    };
    let mut alt_svc = request.alt_svc;
    match (edited, &answer.head) {
        (Some(fields), _) => {
            // An operator who writes one knows better: a port that is mapped on the way.
            alt_svc = alt_svc.filter(|_| !fields.contains("alt-svc"));
            out.extend_from_slice(fields.as_block());
        }
        (None, Head::Stored(stored)) => out.extend_from_slice(stored.head()),
        (None, Head::Negotiated(stored, form)) => coding::write_head(out, stored.head(), *form),
        (None, Head::Own(fields)) => out.extend_from_slice(fields.as_block()),
    }
    if !has_date {
        // RFC 9110 §6.6.1.
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(semantics::date::format(request.now).as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match alt_svc {
        Some(AltSvc::Http3(port)) => {
            let line = format_args!("Alt-Svc: h3=\":{port}\"; ma={ALT_SVC_SECS}\r\n");
            let _ = std::io::Write::write_fmt(out, line);
        }
        Some(AltSvc::Clear) => out.extend_from_slice(b"Alt-Svc: clear\r\n"),
        None => {}
    }
    if let Some(age) = answer.age {
        h1::write_number(out, "Age", age);
    }
    match answer.content_range {
        Some(ContentRange::Bytes(first, last, complete)) => {
            let complete = complete.map_or("*".to_owned(), |complete| complete.to_string());
            out.extend_from_slice(format!("Content-Range: bytes {first}-{last}/{complete}\r\n").as_bytes());
        }
        Some(ContentRange::Unsatisfied(complete)) => {
            out.extend_from_slice(format!("Content-Range: bytes */{complete}\r\n").as_bytes());
        }
        None => {}
    }
    out.extend_from_slice(b"Cache-Status: ");
    write_cache_status(out, &cache_status(worker, &answer.note));
    out.extend_from_slice(b"\r\nX-Request-Id: ");
    out.extend_from_slice(&request.id.text());
    out.extend_from_slice(b"\r\n");
    if let Some(length) = answer.length
        && !matches!(answer.status, 101 | 204 | 304)
    {
        h1::write_number(out, "Content-Length", length);
    }
    if is_for_edge {
        return tiers::write_told(out, &worker.shared, request, answer);
    }
    if answer.rule.as_ref().is_some_and(|at| at.loaded.snapshot.edge.server_timing) {
        write_server_timing(out, request, answer);
    }
}

/// The field lines of the answer where they differ from those of its head; `None` where they don't.
fn edited_fields(request: &Request, answer: &Answer) -> Option<Fields> {
    let at = answer.rule.as_ref()?;
    let (site, rule) = (at.site(), at.rule());
    let by_status = site.match_response(&view(request), answer.status).map(|matched| matched.rule);
    let browser_ttl = by_status.and_then(|rule| rule.browser_ttl).or(rule.browser_ttl);
    let cors = rule.cors.depends_on_origin();
    let is_of_one_visitor =
        rule.client_certificate != ClientCertificate::Off && varies_by_certificate(answer);
    let bare = bare_fields(answer);
    let is_needed = is_of_one_visitor
        || by_status.is_some()
        || browser_ttl.is_some()
        || cors
        || bare.is_some()
        || !rule.response_headers.is_empty();
    if !is_needed {
        return None;
    }
    let mut fields = bare.unwrap_or_else(|| answer.head.fields());
    let is_by_status = by_status.is_some_and(|rule| rule.browser_ttl.is_some());
    if let Some(ttl) = browser_ttl.filter(|_| is_for_browsers(is_by_status, answer.status, &fields)) {
        fields.remove("expires");
        let _ = fields.set("Cache-Control", format!("max-age={}", ttl.secs()));
    }
    if cors {
        rule.cors.on_deliver(&request.fields, &mut fields);
    }
    if is_of_one_visitor {
        // The visitor's own cache cannot compare what it never sent (RFC 9440 §2.4).
        let _ = fields.set("Vary", "*");
    }
    rule.response_headers.apply(&mut fields);
    if let Some(rule) = by_status {
        rule.response_headers.apply(&mut fields);
    }
    Some(fields)
}

/// The same for another edge, which changes for its visitors what is to be changed: as stored, but for what describes the
/// content that is sent.
fn bare_fields(answer: &Answer) -> Option<Fields> {
    let is_other_range = answer.content_range.is_some() && answer.head.field("content-range").is_some();
    if answer.content_type.is_none() && !is_other_range {
        return None;
    }
    let mut fields = answer.head.fields();
    if answer.content_range.is_some() {
        fields.remove("content-range");
    }
    if let Some(content_type) = &answer.content_type {
        let _ = fields.set("Content-Type", content_type);
    }
    Some(fields)
}

/// Whether the origin chose the answer by who the visitor is.
fn varies_by_certificate(answer: &Answer) -> bool {
    answer.head.field("vary").is_some()
        && (answer.head.fields().get_all("vary").flat_map(|line| line.split(|byte| *byte == b',')))
            .any(|name| is_one_of(trim(name), &CLIENT_CERTIFICATE))
}

/// Whether a rule's browser TTL may replace what a response says: not for errors, unless the rule is about that status, nor
/// for what the origin wants kept from caches.
fn is_for_browsers(is_by_status: bool, status: u16, fields: &Fields) -> bool {
    let directives = ResponseDirectives::of(fields, &[]);
    (is_by_status || status < 400) && !directives.no_store && directives.private == Scope::default()
}

fn cache_status<'a>(worker: &'a Worker, note: &Note) -> CacheStatus<'a> {
    CacheStatus { node: &worker.shared.node, why: note.why, handling: note.handling(), ttl: note.ttl }
}

/// Server-Timing (W3C): what the edge took in all, and those that it had to ask: other edges, the origin.
fn write_server_timing(out: &mut Vec<u8>, request: &Request, answer: &Answer) {
    let edge_ms = request.started.elapsed().as_secs_f64() * 1000.0;
    let _ = std::io::Write::write_fmt(out, format_args!("Server-Timing: edge;dur={edge_ms:.3}"));
    if let Some(origin) = &answer.origin {
        out.extend_from_slice(b", ");
        out.extend_from_slice(origin.timing().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// What is left of an answer when its body is gone: what the log tells.
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) note: Note,
    pub(crate) age: Option<u64>,
    pub(crate) rule: Option<RuleAt>,
    pub(crate) origin: Option<Box<OriginNote>>,
}

impl Answer {
    /// Parts the body from what is told of it.
    pub(crate) fn split(self) -> (Body, Told) {
        let Answer { status, head, age, note, body, rule, origin, .. } = self;
        (body, Told { status, head, note, age, rule, origin })
    }
}

/// How many bytes went where.
pub(crate) struct Sent {
    pub(crate) head_bytes: u64,
    pub(crate) body_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) first_byte: Duration,
}

/// Tells the observer of a finished request.
pub(crate) fn emit(worker: &Worker, request: &Request, told: &Told, why: Why, sent: &Sent) {
    let duration = request.started.elapsed();
    let fetch = told.origin.as_deref().map(|origin| Fetch {
        origin: worker.shared.registry.origin(&origin.name),
        status: origin.status,
        duration_us: origin.first_byte_us,
        attempts: origin.attempts,
    });
    let selected_by = match worker.observer.writes_json() {
        true => selectors(worker, request, told),
        false => Vec::new(),
    };
    worker.observer.emit(&Event {
        asked: request.asked.as_ref().map(|asked| asked.hop),
        wall: semantics::Wall(request.now.0.saturating_add(duration.as_millis() as i64)),
        duration_us: duration.as_micros() as u64,
        first_byte_us: sent.first_byte.as_micros() as u64,
        client: request.client,
        country: request.country,
        method: request.method.as_str().as_bytes(),
        host: request.host.as_bytes(),
        target: request.target.as_bytes(),
        protocol: request.protocol.as_str(),
        secure: request.secure,
        authorized: request.fields.contains("authorization"),
        status: told.status,
        head_bytes_sent: sent.head_bytes,
        body_bytes_sent: sent.body_bytes,
        bytes_received: sent.received_bytes,
        why,
        cache_status: cache_status(worker, &told.note),
        class: told.head.class(),
        collapsed: told.note.collapsed,
        stored: told.note.stored,
        personal: told.note.personal && why.outcome() == Outcome::Hit,
        encoded: told
            .note
            .encoded
            .filter(|_| sent.body_bytes > 0)
            .map(|(form, saved)| (form.coding(), saved)),
        age: told.age.map(|age| age.min(u64::from(u32::MAX)) as u32),
        ttl: told.note.ttl,
        site: told.rule.as_ref().map_or(Slot::NONE, RuleAt::slot),
        rule: told.rule.as_ref().map(|at| at.rule().number),
        selected_by: &selected_by,
        fetch,
        answer: told.origin.as_deref().map(|origin| &origin.answer),
        request_id: request.id.0,
        trace_id: request.trace.as_ref().map(|trace| trace.id),
        referer: request.fields.get("referer"),
        user_agent: request.fields.get("user-agent"),
    });
    tracing::finish(worker, request, || tracing::Finished {
        status: told.status,
        why,
        site: told.rule.as_ref().map_or(Slot::NONE, RuleAt::slot),
        rule: told.rule.as_ref().map(|at| at.rule().number),
        is_collapsed: told.note.collapsed,
        sent_bytes: sent.head_bytes + sent.body_bytes,
    });
}

/// Tells the observer of a request whose visitor has left before there was an answer.
pub(crate) fn emit_gone(worker: &Worker, request: &Request, at: RuleAt) {
    let told = Told {
        status: 0,
        head: Head::Own(Fields::new()),
        note: Note::of(Why::ClientGone),
        age: None,
        rule: Some(at),
        origin: None,
    };
    let sent = Sent {
        head_bytes: 0,
        body_bytes: 0,
        received_bytes: request.received_bytes.get(),
        first_byte: request.started.elapsed(),
    };
    emit(worker, request, &told, Why::ClientGone, &sent);
}

/// What of the request chose this answer among others of its URL: by Vary, and by what its rule puts into the key. Empty, and
/// without an allocation, for most.
fn selectors(worker: &Worker, request: &Request, told: &Told) -> Vec<(Box<str>, u32)> {
    let Some(rule) = told.rule.as_ref().map(RuleAt::rule) else { return Vec::new() };
    let (seed, mut text) = (&worker.shared.seed, Vec::new());
    let mut selectors: Vec<(Box<str>, u32)> = Vec::new();
    let mut add = |name: String, text: &[u8]| selectors.push((name.into(), hash(seed, text) as u32));
    let by_headers = match told.head.vary() {
        Vary::Spec(spec) => spec.names().map(str::to_owned).collect(),
        Vary::None | Vary::Star => Vec::new(),
    };
    let of_recipe = rule.key.headers.iter().filter(|name| !by_headers.contains(*name));
    for name in by_headers.iter().chain(of_recipe) {
        let Some(spec) = VarySpec::from_bytes(name.as_bytes()) else { continue };
        text.clear();
        spec.write_variant(&mut text, &request.fields, &rule.policy.vary_normalise);
        add(name.clone(), &text);
    }
    for name in &rule.key.cookies {
        text.clear();
        let recipe = KeyRecipe { cookies: vec![name.clone()], ..KeyRecipe::default() };
        write_key(&mut text, &recipe, "", "", b"", None, &request.fields);
        add(format!("cookie:{name}"), &text);
    }
    if rule.key.device_class {
        add("device".to_owned(), Device::of(&request.fields).as_str().as_bytes());
    }
    selectors
}
