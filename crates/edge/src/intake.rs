//! From a parsed head to a [`Request`] that the flow can trust: one host, one body length, a known target form, the
//! visitor's real address.

use std::rc::Rc;
use std::time::Instant;

use model::settings::HEADER_BYTES;
use model::url::without_port;
use semantics::request_rules::{Body, Form, Version, check_request};
use semantics::{Fields, hop};

use crate::answer::Answer;
use crate::connection::Visitor;
use crate::forwarded;
use crate::h1::Head;
use crate::h1::body::Framing;
use crate::refusal::Refusal;
use crate::request::{AltSvc, Method, Protocol, Request};
use crate::tiers::Asked;
use crate::tls::Shown;
use crate::worker::Worker;

/// What tells an origin who a visitor is (RFC 9440 §2).
pub(crate) const CLIENT_CERTIFICATE: [&str; 2] = ["client-cert", "client-cert-chain"];

/// A request and how its connection goes on.
pub(crate) struct Intake {
    pub(crate) request: Request,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
}

/// Checks a head by [`semantics::request_rules`] and the limits, and takes it apart.
pub(crate) fn request(
    worker: &Worker,
    head: Head<'_>,
    visitor: &Visitor,
    is_early: bool,
    head_len: u64,
    started: Instant,
) -> Result<Intake, Refusal> {
    let loaded = worker.loaded();
    let edge = &loaded.snapshot.edge;
    let request_line = head.method.len() + head.target.len() + " HTTP/1.1 ".len();
    if request_line as u64 > edge.limits.request_line_max.0 {
        return Err(Refusal::TargetTooLong(edge.limits.request_line_max.0));
    }
    // Another edge has counted its visitor's, and adds its own.
    if visitor.node.is_none() && head.fields.len() > edge.limits.header_count_max as usize {
        return Err(Refusal::TooManyLines(edge.limits.header_count_max as usize));
    }
    let Head { method, target, protocol, mut fields } = head;
    let version = match protocol {
        Protocol::Http10 => Version::Http10,
        Protocol::Http11 => Version::Http11,
        Protocol::Http2 | Protocol::Http3 => Version::Http2,
    };
    let checked = check_request(method.as_bytes(), target.as_bytes(), version, &fields);
    let checked = checked.map_err(|refused| Refusal::Rule(refused.status(), refused.sentence()))?;
    if method == "TRACE" {
        // It would show the visitor what proxies on the way have added (RFC 9110 §9.3.8).
        return Err(Refusal::Rule(405, "TRACE is not answered here."));
    }
    let framing = match checked.body {
        Body::None | Body::Length(0) => Framing::None,
        Body::Length(length) => Framing::Length(length),
        Body::Chunked => Framing::Chunked,
    };
    let (keep_alive, expects_continue) = (checked.keeps_alive, checked.expects_continue);
    // The path and query lie at the end of the target in each form but one: `http://host` without a path.
    let path_len = checked.path.len();
    let target: Box<str> = match checked.form {
        Form::Origin => target.into(),
        Form::Absolute | Form::Asterisk => {
            let mut target = String::from_utf8_lossy(checked.path).into_owned();
            if let Some(query) = checked.query {
                target.push('?');
                target.push_str(&String::from_utf8_lossy(query));
            }
            target.into()
        }
    };
    let authority: Box<str> = checked.host.into();
    if checked.form == Form::Absolute {
        // RFC 9112 §3.2.2: Host is replaced by what the target says, before anything reads it.
        let _ = fields.set("host", authority.as_bytes());
    }
    let wants_websocket = asks_for_websocket(method, protocol, &fields);
    if is_early && (wants_websocket || !is_replayable(method, framing)) {
        return Err(TOO_EARLY);
    }
    let takes_trailers = hop::takes_trailers(&fields);
    let (mut client, mut country, mut secure) = (visitor.client, visitor.country, visitor.secure);
    if !edge.trusted_proxies.is_empty() && forwarded::is_trusted(&edge.trusted_proxies, visitor.client) {
        client = forwarded::client(&edge.trusted_proxies, &fields, client);
        secure = forwarded::secure(&fields).unwrap_or(secure);
        if client != visitor.client {
            country = worker.shared.country_of(client);
        }
    }
    // From here on nobody sees what concerns this hop alone: neither key nor variant nor origin.
    hop::strip_hop_by_hop(&mut fields);
    if is_early {
        // RFC 8470 §5.1: who answers next can ask for it again, when it is sure to come from the visitor.
        let _ = fields.set("early-data", b"1");
    }
    let (mut asked, mut id) = (None, None);
    if let Some(node) = &visitor.node {
        if loaded.snapshot.routing.pop_of_node(node).is_none() {
            // It was one when its connection began.
            return Err(Refusal::Blocked);
        }
        let taken = Asked::take(&mut fields);
        let (by_edge, on_behalf) = taken.ok_or(Refusal::Syntax("an edge asks without saying for whom"))?;
        (client, secure) = (on_behalf.client, on_behalf.secure);
        (asked, id) = (Some(by_edge), Some(on_behalf.id));
    }
    let trace = worker.tracer.as_ref().map(|tracer| tracer.begin(&mut fields, asked.is_some()));
    let host: Box<str> = without_port(&authority).to_ascii_lowercase().into();
    let now = worker.shared.clock.wall();
    if loaded.asks_for_certificates() {
        // Only the edge says who it is (RFC 9440 §2.4): what is keyed or varies by it must not go by a visitor's word.
        for name in CLIENT_CERTIFICATE {
            fields.remove(name);
        }
        let site = loaded.snapshot.site_for(&host);
        let certificate = site.and_then(|site| visitor.shown.certificate(&loaded, site, now));
        if let Some(certificate) = certificate {
            fields.append_unchecked(b"Client-Cert", certificate);
        }
    }
    let request = Request {
        method: Method::of(method),
        target,
        path_len,
        host,
        authority,
        fields,
        protocol,
        secure,
        shown: visitor.shown.clone(),
        asked,
        alt_svc: visitor.alt_svc.map(|port| match loaded.snapshot.switches.http3 {
            true => AltSvc::Http3(port),
            false => AltSvc::Clear,
        }),
        client,
        country,
        started,
        now,
        id: id.unwrap_or_else(|| worker.request_id()),
        trace,
        expects_continue,
        has_body: framing != Framing::None,
        wants_websocket,
        takes_trailers,
        received_bytes: head_len.into(),
    };
    Ok(Intake { request, framing, keep_alive })
}

/// A head that came apart already, as HTTP/2 and HTTP/3 have it, but for its field lines.
pub(crate) struct Parts<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) authority: Option<&'a str>,
    /// Whether nothing follows the head.
    pub(crate) ends: bool,
    /// Whether it came before the visitor's handshake was over.
    pub(crate) is_early: bool,
    pub(crate) protocol: Protocol,
    /// The protocol that CONNECT is to open (`:protocol`: RFC 8441 §4, RFC 9220 §3).
    pub(crate) connects_to: Option<&'a str>,
}

/// The same as [`request`] for a head in parts, whose lines are well formed and their names lower case.
pub(crate) fn request_of_parts<'a, I: Iterator<Item = (&'a [u8], &'a [u8])>>(
    worker: &Worker,
    parts: &Parts<'_>,
    lines: impl Fn() -> I,
    visitor: &Visitor,
    started: Instant,
) -> Result<Intake, Refusal> {
    let &Parts { method, target, authority, ends, is_early, protocol, connects_to } = parts;
    if is_early && (!ends || connects_to.is_some()) {
        return Err(TOO_EARLY);
    }
    let method = match connects_to {
        None => method,
        // From here on it is what HTTP/1.1 would have asked.
        Some(opened) if opened.eq_ignore_ascii_case("websocket") => "GET",
        Some(_) => return Err(Refusal::Rule(501, "No such protocol is spoken here.")),
    };
    let (count, bytes) = lines()
        .fold((0, 0), |(count, bytes), (name, value)| (count + 1, bytes + name.len() + value.len() + 4));
    let head_len = (bytes + target.len() + authority.map_or(0, str::len)) as u64;
    let header_bytes_max = match visitor.node {
        None => worker.limits().header_bytes_max.0,
        Some(_) => HEADER_BYTES.max.0,
    };
    if head_len > header_bytes_max {
        return Err(Refusal::HeadTooLarge(header_bytes_max));
    }
    let mut fields = Fields::with_capacity(count + 1, bytes + 32);
    if let Some(authority) = authority {
        // RFC 9113 §8.3.1: a Host that differs is not to be believed, and not to be passed on.
        if lines().any(|(name, value)| name == b"host" && !value.eq_ignore_ascii_case(authority.as_bytes())) {
            return Err(Refusal::Syntax("Host and :authority differ"));
        }
        fields.append_unchecked(b"host", authority.as_bytes());
    }
    let mut cookies = Vec::new();
    for (name, value) in lines() {
        let value = semantics::fields::trim(value);
        match name {
            b"host" if authority.is_some() => {}
            // RFC 9113 §8.2.3, RFC 9114 §4.2.1: split for compression, and one line again for everybody else.
            b"cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value);
            }
            _ => fields.append_unchecked(name, value),
        }
    }
    if !cookies.is_empty() {
        fields.append_unchecked(b"cookie", &cookies);
    }
    let head = Head { method, target, protocol, fields };
    let mut intake = request(worker, head, visitor, is_early, head_len, started)?;
    let is_empty = intake.request.fields.contains("content-length");
    if connects_to.is_some() {
        if is_empty || intake.framing != Framing::None {
            return Err(Refusal::Syntax("a request for a tunnel has a Content-Length"));
        }
        intake.request.wants_websocket = true;
    } else if intake.framing == Framing::None && !ends && !is_empty {
        // Its end tells its length.
        intake.framing = Framing::Chunked;
        intake.request.has_body = true;
    } else if ends && intake.framing != Framing::None {
        return Err(Refusal::Syntax("the content is shorter than Content-Length says"));
    }
    Ok(intake)
}

/// RFC 8470 §5.2.
const TOO_EARLY: Refusal = Refusal::Rule(425, "This is not answered before the TLS handshake is over.");

/// Whether it may be answered though somebody else may have sent it again (RFC 8470 §4): it changes nothing (RFC 9110 §9.2.1).
fn is_replayable(method: &str, framing: Framing) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS") && framing == Framing::None
}

/// Whether a request wants to switch to WebSocket (RFC 6455 §4.1).
fn asks_for_websocket(method: &str, protocol: Protocol, fields: &Fields) -> bool {
    method == "GET"
        && protocol == Protocol::Http11
        && fields.get("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && hop::connection_lists(fields, "upgrade")
}

/// The answer to a head that was refused, and what stands for its request; the limit that it broke is counted.
pub(crate) fn refused(
    worker: &Worker,
    visitor: &Visitor,
    protocol: Protocol,
    refusal: &Refusal,
) -> (Rc<Request>, Answer) {
    if let Some(limit) = refusal.limit() {
        worker.count_limit(limit);
    }
    let mut request = unreadable(worker, visitor);
    request.protocol = protocol;
    // Another edge must not take it for an answer of the origin.
    request.asked = visitor.node.as_ref().map(|_| Asked {
        hop: observe::Hop::Peer,
        demand: 0,
        passes_on: false,
        is_instead: false,
    });
    let answer = refusal.answer(&request);
    (Rc::new(request), answer)
}

/// What is known of a request whose head could not be read: for the log and the error page.
pub(crate) fn unreadable(worker: &Worker, visitor: &Visitor) -> Request {
    Request {
        method: Method::Other("-".into()),
        target: "-".into(),
        path_len: 1,
        host: "-".into(),
        authority: "-".into(),
        fields: Fields::new(),
        protocol: Protocol::Http11,
        secure: false,
        shown: Shown::Nothing,
        asked: None,
        alt_svc: None,
        client: visitor.client,
        country: visitor.country,
        started: Instant::now(),
        now: worker.shared.clock.wall(),
        id: worker.request_id(),
        trace: None,
        expects_continue: false,
        has_body: false,
        wants_websocket: false,
        takes_trailers: false,
        received_bytes: 0.into(),
    }
}
