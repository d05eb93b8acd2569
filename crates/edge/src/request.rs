//! One request as the flow sees it, whatever protocol brought it: [`crate::intake`] makes it.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Instant;

use semantics::{Fields, Wall};
use stats::Country;

use crate::tiers::Asked;
use crate::tls::Shown;
use crate::tracing::Trace;

/// What a visitor is told of HTTP/3 (RFC 7838 §3).
#[derive(Clone, Copy, Debug)]
pub(crate) enum AltSvc {
    /// It is spoken on this port.
    Http3(u16),
    /// It is not spoken any more, whatever was said.
    Clear,
}

/// A validated request head and what the edge knows about where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The method, as sent; methods are case-sensitive (RFC 9110 §9.1).
    pub(crate) method: Method,
    /// Path and query as the client sent them: starts with `/`, or is `*` for OPTIONS.
    pub(crate) target: Box<str>,
    /// Length of the path within `target`: the query, if any, starts at `path_len + 1`.
    pub(crate) path_len: usize,
    /// The host that was asked, lower case, without port.
    pub(crate) host: Box<str>,
    /// The authority as sent, for an origin that gets the visitor's Host.
    pub(crate) authority: Box<str>,
    /// All field lines.
    pub(crate) fields: Fields,
    /// The protocol that brought it.
    pub(crate) protocol: Protocol,
    /// Whether the visitor's connection is encrypted (here, or at a trusted proxy before us).
    pub(crate) secure: bool,
    /// What its connection has shown of the visitor.
    pub(crate) shown: Shown,
    /// That another edge asks, for its visitor.
    pub(crate) asked: Option<Asked>,
    /// What the visitor is to be told of HTTP/3.
    pub(crate) alt_svc: Option<AltSvc>,
    /// The visitor's address, after PROXY protocol and trusted X-Forwarded-For.
    pub(crate) client: IpAddr,
    /// Where that is.
    pub(crate) country: Country,
    /// When the head was complete.
    pub(crate) started: Instant,
    /// The same moment as wall time.
    pub(crate) now: Wall,
    /// Identifies the request in the log, on error pages and towards the origin.
    pub(crate) id: RequestId,
    /// Where it stands in a trace; `None` while traces are off.
    pub(crate) trace: Option<Trace>,
    /// Whether it asks for WebSocket: to switch to it, or by CONNECT, which is GET here.
    pub(crate) wants_websocket: bool,
    /// Whether trailer fields of the answer are wanted (TE, RFC 9110 §10.1.4).
    pub(crate) takes_trailers: bool,
    /// Whether the visitor waits for 100 before it sends the content (RFC 9110 §10.1.1).
    pub(crate) expects_continue: bool,
    /// Whether content follows the head.
    pub(crate) has_body: bool,
    /// Bytes of head and body that have been read.
    pub(crate) received_bytes: Cell<u64>,
}

impl Request {
    /// The path, without the query.
    pub(crate) fn path(&self) -> &str {
        &self.target[..self.path_len]
    }

    /// The query without `?`; `None` when there is no `?`.
    pub(crate) fn query(&self) -> Option<&str> {
        self.target.get(self.path_len + 1..)
    }
}

/// A request method: the common ones without an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Trace,
    Connect,
    Other(Box<str>),
}

impl Method {
    /// From the token on the wire.
    pub(crate) fn of(token: &str) -> Self {
        match token {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            "TRACE" => Method::Trace,
            "CONNECT" => Method::Connect,
            other => Method::Other(other.into()),
        }
    }

    /// The token.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Connect => "CONNECT",
            Method::Other(token) => token,
        }
    }

    /// Whether the method asks for no change (RFC 9110 §9.2.1). Unknown methods are unsafe.
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options | Method::Trace)
    }

    /// Whether a stored response may answer (RFC 9110 §9.2.3, as this cache implements it).
    pub(crate) fn is_cacheable(&self) -> bool {
        matches!(self, Method::Get | Method::Head)
    }
}

/// The protocol between visitor and edge, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// HTTP/1.0: no chunked coding towards the visitor.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
}

impl Protocol {
    /// As in Via (RFC 9110 §7.6.3).
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Protocol::Http10 => "1.0",
            Protocol::Http11 => "1.1",
            Protocol::Http2 => "2.0",
            Protocol::Http3 => "3.0",
        }
    }

    /// As in the access log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
            Protocol::Http3 => "HTTP/3",
        }
    }
}

/// 64 bits, shown as 16 hex digits. Unique per worker start, not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    /// The text form, in a buffer on the stack.
    pub(crate) fn text(self) -> [u8; 16] {
        semantics::fields::hex(self.0.into())
    }
}
