//! What the edge reports: one [`Event`] per finished request, one [`FetchEvent`] per finished attempt at an origin,
//! and the closed enums that become label values. Only borrowed values and numbers; building one allocates nothing.

use std::net::IpAddr;

use semantics::cache_status::CacheStatus;
use semantics::coding::Coding;
use semantics::{Fields, Wall, Why};
use stats::{Class, Country};

/// One finished request, as log and metrics see it. Emitted once, after the last byte to the client or when the
/// client is given up.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Another edge has asked, for its visitor, and counts it: in whose place this one was asked.
    pub asked: Option<Hop>,
    /// Wall time at which the request ended: the time of the log line.
    pub wall: Wall,
    /// From the complete request head to the last byte of the response, in µs.
    pub duration_us: u64,
    /// From the complete request head to the first byte of the response, in µs; 0 when nothing was sent.
    pub first_byte_us: u64,
    /// The visitor's address, after PROXY protocol and trusted forwarding fields.
    pub client: IpAddr,
    /// Where that is.
    pub country: Country,
    /// The method as sent. Any bytes; escaped in the log.
    pub method: &'a [u8],
    /// The host asked for. Any bytes.
    pub host: &'a [u8],
    /// Path and query as sent. Any bytes.
    pub target: &'a [u8],
    /// The protocol between visitor and edge, as `HTTP/1.1`. Must hold no quote, backslash or control byte.
    pub protocol: &'static str,
    /// Whether the visitor's connection is encrypted.
    pub secure: bool,
    /// Whether the request has Authorization.
    pub authorized: bool,
    /// The status sent; 0 when no response was sent.
    pub status: u16,
    /// Bytes of response head sent.
    pub head_bytes_sent: u64,
    /// Bytes of response body sent, with framing.
    pub body_bytes_sent: u64,
    /// Bytes of request received, head and body.
    pub bytes_received: u64,
    /// Why it ended so.
    pub why: Why,
    /// What Cache-Status says of it.
    pub cache_status: CacheStatus<'a>,
    /// What kind of content was sent.
    pub class: Class,
    /// Whether this request joined a fill that another one had started.
    pub collapsed: bool,
    /// Whether the origin's answer was stored.
    pub stored: bool,
    /// Whether the cache answered with what may have been made for another visitor: it set a cookie, or was fetched by a
    /// request with Authorization.
    pub personal: bool,
    /// The coding of the encoded copy that was sent, and how many bytes fewer it took than the body itself.
    pub encoded: Option<(Coding, u64)>,
    /// Seconds of age of the stored response that answered.
    pub age: Option<u32>,
    /// Seconds of freshness left; negative when stale. Absent when nothing stored was involved.
    pub ttl: Option<i64>,
    /// The site, [`Slot::NONE`] when no site has the host.
    pub site: Slot,
    /// The matched rule's place in its site, from 1; 0 for the site's defaults.
    pub rule: Option<u32>,
    /// What of the request chose between variants of the answer: the selecting headers, cookies (`cookie:name`) and `device`,
    /// each with a short hash of its value. Names are lower-case tokens.
    pub selected_by: &'a [(Box<str>, u32)],
    /// The origin's part, when one was asked on behalf of this request.
    pub fetch: Option<Fetch>,
    /// What the origin's answer said of its reuse: field lines whose names are in [`Event::ANSWER_FIELDS`], and no values that
    /// are anybody's secret. Any bytes.
    pub answer: Option<&'a Fields>,
    /// The request's id; 16 hex digits in the log.
    pub request_id: u64,
    /// The trace that it is in; 32 hex digits in the log.
    pub trace_id: Option<u128>,
    /// The Referer field. Any bytes.
    pub referer: Option<&'a [u8]>,
    /// The User-Agent field. Any bytes.
    pub user_agent: Option<&'a [u8]>,
}

impl Event<'_> {
    /// The fields of an origin's answer that decide about its reuse, lower-case. Of `set-cookie` it is only told that there is
    /// one (`1`).
    pub const ANSWER_FIELDS: &'static [&'static str] = &[
        "age",
        "cache-control",
        "cdn-cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "etag",
        "expires",
        "last-modified",
        "perigee-cache-control",
        "set-cookie",
        "vary",
    ];

    /// Whether it is a probe by which routers and other edges see that this one lives: some each second, for no site, from nobody
    /// who visits. Whoever borrows their name hides nothing but requests for no site.
    pub fn is_probe(&self) -> bool {
        self.why == Why::UnknownSite && self.user_agent == Some(b"perigee-router")
    }
}

/// The origin's part in one request.
#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    /// The origin that gave the answer, or the last one tried.
    pub origin: Slot,
    /// Its status; 0 when it gave none.
    pub status: u16,
    /// From the first attempt's start to the answer's head, or to giving up, in µs.
    pub duration_us: u64,
    /// Attempts made, the first included.
    pub attempts: u32,
}

/// One finished attempt at an origin: a retried or failed-over request emits several.
#[derive(Clone, Copy, Debug)]
pub struct FetchEvent {
    /// The origin asked.
    pub origin: Slot,
    /// For which site, and for which of its rules, as [`Event::rule`] numbers them; `None` when it was no origin but another edge.
    pub on_behalf_of: Option<(Slot, u32)>,
    /// Whether its connection was opened for this attempt.
    pub connection: ConnectionUse,
    /// From sending the request to the first byte of the answer, in µs; absent when none came.
    pub first_byte_us: Option<u64>,
    /// How it ended.
    pub end: FetchEnd,
    /// Bytes sent to the origin.
    pub bytes_sent: u64,
    /// Bytes received from the origin.
    pub bytes_received: u64,
    /// Whether this was not the request's first attempt.
    pub retry: bool,
}

/// The connection of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionUse {
    /// A new connection was made, name resolution and TLS included, in so many µs.
    Opened {
        /// µs until the connection could carry a request.
        connect_us: u64,
    },
    /// One from the pool carried the request.
    Reused,
    /// There was none: connecting failed or was not tried.
    Missing,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchEnd {
    /// A whole response with this status.
    Answered(u16),
    /// No useful response.
    Failed(OriginFailure),
}

/// A number that stands for a site or an origin in counters: from [`crate::Registry::site`] and
/// [`crate::Registry::origin`], valid for the registry's life, over reloads too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(crate) u32);

impl Slot {
    /// No site or origin known: label value `-`.
    pub const NONE: Slot = Slot(0);
    /// Shared by all that came after the bound was reached: label value `(others)`.
    pub const OTHERS: Slot = Slot(1);
}

macro_rules! labels {
    ($(#[doc = $about:literal])* $name:ident { $(#[doc = $doc:literal] $variant:ident = $text:literal,)* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $doc] $variant,)* }

        impl $name {
            /// All values, in declaration order; the index of each is `value as usize`.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The stable text form: the label value.
            pub const fn as_str(self) -> &'static str { match self { $($name::$variant => $text,)* } }

            /// One sentence for people.
            pub fn sentence(self) -> &'static str { match self { $($name::$variant => $doc.trim(),)* } }
        }
    };
}

labels! {
    /// How a TLS handshake with a visitor ended.
    Handshake {
        /// In a new session of TLS 1.3.
        Tls13 = "tls1.3",
        /// In a resumed session of TLS 1.3.
        Tls13Resumed = "tls1.3-resumed",
        /// In a new session of TLS 1.2.
        Tls12 = "tls1.2",
        /// In a resumed session of TLS 1.2.
        Tls12Resumed = "tls1.2-resumed",
        /// Over QUIC, in a new or a resumed session of TLS 1.3: which of them its library does not say.
        Quic = "quic",
        /// A certificate authority that looks whose a domain is saw its answer (RFC 8737).
        Challenge = "challenge",
        /// There is no certificate for the name, or none that the visitor can use.
        NoCertificate = "no-certificate",
        /// Version, cipher suites or key exchange are not those that are spoken here.
        NothingInCommon = "nothing-in-common",
        /// The visitor refused: an alert came, for instance because it does not trust the certificate.
        Refused = "refused",
        /// The certificate that the visitor showed is not good: expired, or issued by nobody whom the site believes.
        ClientCertificate = "client-certificate",
        /// What came was no TLS, or broke its rules.
        Malformed = "malformed",
        /// It took too long.
        Timeout = "timeout",
        /// The connection ended in the middle.
        Closed = "closed",
    }
}

labels! {
    /// A limit that a visitor or an origin can run into. Reaching one is counted, always.
    Limit {
        /// Open connections of the whole edge.
        Connections = "connections",
        /// Connections that wait to be taken, where a worker cannot keep up; at most four times a second.
        ConnectionsWaiting = "connections-waiting",
        /// Open connections of one client.
        ConnectionsPerClient = "connections-per-client",
        /// TLS handshakes under way in one worker, those of QUIC among them.
        Handshakes = "handshakes",
        /// TLS handshakes of one client, under way or per second.
        HandshakesPerClient = "handshakes-per-client",
        /// How often one client may ask for anything.
        RequestsPerClient = "requests-per-client",
        /// How often may be asked by a site's or a rule's word.
        RateLimit = "rate-limit",
        /// Time for a TLS handshake.
        HandshakeTime = "handshake-time",
        /// More handshakes than may be under way before visitors who come by QUIC must show where they are.
        HandshakesUnproven = "handshakes-unproven",
        /// Time for a complete request head.
        HeadTime = "head-time",
        /// Bytes of a request head.
        HeadBytes = "head-bytes",
        /// Field lines of a request head.
        HeadLines = "head-lines",
        /// Bytes of a request target.
        TargetBytes = "target-bytes",
        /// Bytes of a request body.
        BodyBytes = "body-bytes",
        /// Slowest allowed pace of a request body.
        BodyTime = "body-time",
        /// Time for which a client may take no bytes.
        SendTime = "send-time",
        /// Time for which a kept-alive connection may be idle. Normal; counted so that its effect can be seen.
        IdleTime = "idle-time",
        /// Frames and streams of HTTP/3 that say nothing, more than anybody needs.
        IdleFrames = "idle-frames",
        /// Requests on one connection.
        RequestsPerConnection = "requests-per-connection",
        /// RST_STREAM frames of a visitor on an HTTP/2 connection.
        Http2Resets = "h2-resets",
        /// PING frames on an HTTP/2 connection.
        Http2Pings = "h2-pings",
        /// SETTINGS frames on an HTTP/2 connection.
        Http2Settings = "h2-settings",
        /// PRIORITY and PRIORITY_UPDATE frames on an HTTP/2 connection.
        Http2Priorities = "h2-priorities",
        /// WINDOW_UPDATE frames on an HTTP/2 connection.
        Http2WindowUpdates = "h2-window-updates",
        /// Frames of unknown kinds, and GOAWAY, on an HTTP/2 connection.
        Http2OtherFrames = "h2-other-frames",
        /// What else is too much on an HTTP/2 connection: CONTINUATION, tiny or empty DATA, huge headers, stream errors.
        Http2Excess = "h2-excess",
        /// Memory of large bodies on their way, by `in_flight` of `[store]`.
        BodiesInFlight = "bodies-in-flight",
        /// Bytes of a response that the edge will buffer.
        BufferBytes = "buffer-bytes",
        /// Bytes of a stored object.
        ObjectBytes = "object-bytes",
    }
}

labels! {
    /// Why an attempt at an origin gave no useful answer.
    OriginFailure {
        /// The origin's name could not be resolved.
        Resolve = "resolve",
        /// The connection was refused or unreachable.
        Connect = "connect",
        /// No connection within the connect time-out.
        ConnectTimeout = "connect-timeout",
        /// The TLS handshake failed, verification included.
        Tls = "tls",
        /// No first byte in time.
        FirstByteTimeout = "first-byte-timeout",
        /// No byte for longer than the idle time-out.
        IdleTimeout = "idle-timeout",
        /// The whole exchange took longer than allowed.
        TotalTimeout = "total-timeout",
        /// The connection ended before the answer was complete.
        Cut = "cut",
        /// The answer broke HTTP's rules.
        Protocol = "protocol",
        /// The answer was over a limit.
        TooLarge = "too-large",
        /// The breaker was open; the origin was not asked.
        Breaker = "breaker",
        /// The origin's budget was used up; it was not asked, or no longer.
        Budget = "budget",
        /// All connections were in use for too long.
        Busy = "busy",
        /// The visitor went away, and nobody else wanted the answer.
        Abandoned = "abandoned",
    }
}

labels! {
    /// What a purge names.
    PurgeScope {
        /// One URL.
        Url = "url",
        /// All paths with a prefix.
        Prefix = "prefix",
        /// All objects with a surrogate key.
        Tag = "tag",
        /// One site.
        Site = "site",
        /// All that is stored.
        Everything = "everything",
    }
}

labels! {
    /// What a purge does to what it matches.
    PurgeForm {
        /// Gone: the next request is a miss.
        Hard = "hard",
        /// Stale: revalidated, and served stale meanwhile where that is allowed.
        Soft = "soft",
    }
}

/// In whose place an edge is asked by another edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// As the owner of a key in its PoP.
    Peer,
    /// As a shield before the origin.
    Shield,
}

impl Hop {
    /// Both.
    pub const ALL: [Hop; 2] = [Hop::Peer, Hop::Shield];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Hop::Peer => "peer",
            Hop::Shield => "shield",
        }
    }
}

/// What came of asking another edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopEnd {
    /// Its answer was taken.
    Answered,
    /// It gave none: it was passed over.
    Gone,
    /// Its answer was older than a purge that is known here: it was asked again, or passed over.
    Behind,
    /// It answered that it has none, for a reason of its own: it was passed over.
    Refused,
    /// It answered that the origin has none.
    Failed,
    /// It broke off in the middle of a body, which was gone on with elsewhere.
    Broken,
}

impl HopEnd {
    /// All, in the order of their counters.
    pub const ALL: [HopEnd; 6] =
        [HopEnd::Answered, HopEnd::Gone, HopEnd::Behind, HopEnd::Refused, HopEnd::Failed, HopEnd::Broken];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            HopEnd::Answered => "answered",
            HopEnd::Gone => "gone",
            HopEnd::Behind => "behind",
            HopEnd::Refused => "refused",
            HopEnd::Failed => "failed",
            HopEnd::Broken => "broken",
        }
    }
}
