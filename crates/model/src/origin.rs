//! Where content comes from: origins, in the order in which they are tried, and how to talk to them. Built by the
//! configuration reader; read by the edge's origin client, which keeps pools by [`Origin`] (it is `Hash + Eq`) and
//! breaker, health and retry budget by [`OriginGroup`]'s names.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use semantics::Fields;

use crate::breaker::BreakerPolicy;
use crate::budget::BudgetPolicy;
use crate::diagnostic::did_you_mean;
use crate::health::HealthPolicy;
use crate::retry::RetryPolicy;
use crate::rule::HeaderOps;

/// The protocol below HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS, verified unless [`Tls::verify`] says otherwise.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// 80 or 443.
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// One server, and everything that decides how a connection to it is made and used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Name or address to connect to: lower-case, an IPv6 address without brackets.
    pub host: Box<str>,
    /// Port to connect to.
    pub port: u16,
    /// What is put in front of each path: empty, or `/…` without a `/` at its end.
    pub path_prefix: Box<str>,
    /// Sent as Host instead of what the visitor asked for.
    pub host_override: Option<Box<str>>,
    /// Whether HTTP/2 is spoken: by ALPN over TLS, with prior knowledge over plain TCP.
    pub http2: bool,
    /// TLS choices; read only with [`Scheme::Https`].
    pub tls: Tls,
    /// How long to wait for it.
    pub timeouts: Timeouts,
    /// Most connections per worker, idle ones included.
    pub connections_max: u32,
}

/// How an origin proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// PEM file with the certificates to trust instead of the system's.
    pub ca: Option<Box<str>>,
    /// Name asked for (SNI) and expected in the certificate; the origin's host when absent.
    pub server_name: Option<Box<str>>,
    /// The edge that is reached there: it shows the certificate of this node, and wants to see ours. `None` for origins.
    pub node: Option<Box<str>>,
    /// Whether the certificate is checked. `false` lets anyone on the way read and change everything.
    pub verify: bool,
}

/// How long the edge waits for an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// For the connection, TLS handshake included; and for an acknowledgement of what was sent on it, where it may be sent again.
    pub connect: Duration,
    /// From the request's end to the response's head.
    pub first_byte: Duration,
    /// Between two pieces of the body, in either direction.
    pub idle: Duration,
    /// From the start of the request to the end of the body; `None` is without end.
    pub total: Option<Duration>,
    /// How long an unused connection is kept.
    pub keep_alive: Duration,
}

/// How an origin is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Asked with GET, behind the origin's path prefix; begins with `/`.
    pub path: Box<str>,
    /// Time between two probes.
    pub interval: Duration,
    /// A probe without an answer after this time has failed.
    pub timeout: Duration,
    /// Statuses that mean "well".
    pub statuses: Vec<StatusRange>,
}

/// Statuses from the first to the last; `404` is `404..=404`, `5xx` is `500..=599`.
pub type StatusRange = RangeInclusive<u16>;

/// Origins in the order in which they are tried, and what makes the edge go on to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginGroup {
    /// At least one; the first is preferred.
    pub origins: Vec<Arc<Origin>>,
    /// Changes to each request that goes to this group, after the rule's own.
    pub request_headers: HeaderOps,
    /// Changes for one origin alone, after those: one for each of `origins`, or none at all. What an origin knows us by is its secret,
    /// and must not reach the one that stands in for it.
    pub request_headers_of: Vec<HeaderOps>,
    /// Statuses upon which a safe request goes to the next origin. A failed connection always does.
    pub fail_over_statuses: Vec<StatusRange>,
    /// How many retries are granted.
    pub retry: RetryPolicy,
    /// When an origin is no longer asked for a while.
    pub breaker: BreakerPolicy,
    /// When an origin counts as down.
    pub health: HealthPolicy,
    /// Active probes; `None` learns from visitors' requests only.
    pub probe: Option<Probe>,
    /// What each of the origins may be asked by all nodes together; `None` is without limit.
    pub budget: Option<BudgetPolicy>,
}

/// Limits and time-outs of origins: default, least and most, each with its reason.
pub mod bounds {
    use std::time::Duration;

    use crate::settings::{Bound, bound};

    const MS_10: Duration = Duration::from_millis(10);
    const HOUR: Duration = Duration::from_secs(3600);

    /// nginx's `proxy_connect_timeout` is 60 s, CloudFront's 10 s; 3 s leaves time to try the next origin.
    pub const CONNECT: Bound<Duration> = bound(Duration::from_secs(3), MS_10, Duration::from_secs(60));
    /// CloudFront's origin response timeout: 30 s.
    pub const FIRST_BYTE: Bound<Duration> = bound(Duration::from_secs(30), MS_10, HOUR);
    /// CloudFront's wait between packets of one response: 30 s.
    pub const IDLE: Bound<Duration> = bound(Duration::from_secs(30), MS_10, HOUR);
    /// No end by default: a large download on a slow line is no fault. The default here stands for "none".
    pub const TOTAL: Bound<Duration> = bound(Duration::ZERO, MS_10, Duration::from_secs(86_400));
    /// Below the 75 s after which nginx and the 60 s after which many load balancers close.
    pub const KEEP_ALIVE: Bound<Duration> = bound(Duration::from_secs(50), Duration::ZERO, HOUR);
    /// Connections per worker: enough for an origin of 100 ms to answer 2,560 requests per second and worker.
    pub const CONNECTIONS: Bound<u32> = bound(256, 1, 65_535);
    /// Time between two probes.
    pub const PROBE_INTERVAL: Bound<Duration> =
        bound(Duration::from_secs(5), Duration::from_millis(100), HOUR);
    /// Time for one probe.
    pub const PROBE_TIMEOUT: Bound<Duration> = bound(Duration::from_secs(2), MS_10, Duration::from_secs(60));
    /// Most origins in one group.
    pub const ORIGINS_MAX: usize = 16;
}

/// Answers 500, 502, 503 and 504 are an origin's own trouble: another origin may do better. CloudFront's usual set.
pub fn fail_over_statuses_default() -> Vec<StatusRange> {
    vec![500..=500, 502..=504]
}

impl Default for Tls {
    fn default() -> Self {
        Tls { ca: None, server_name: None, node: None, verify: true }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: bounds::CONNECT.default,
            first_byte: bounds::FIRST_BYTE.default,
            idle: bounds::IDLE.default,
            total: None,
            keep_alive: bounds::KEEP_ALIVE.default,
        }
    }
}

impl Origin {
    /// An origin by its URL, with every choice at its default: `https://origin.shop.example`,
    /// `http://10.0.0.7:8000/shop`, `http://[::1]:8000`. The URL's path becomes the path prefix.
    ///
    /// Refuses, with a reason that follows the text: another scheme, user names, a query, a fragment, no host, a bad
    /// port. Names are not resolved.
    pub fn parse(url: &str) -> Result<Origin, BadUrl> {
        let bad = |reason: &str, help: &str| Err(BadUrl { reason: reason.to_owned(), help: help.to_owned() });
        if url.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'\\') {
            return bad("has a character that no URL has", "write e.g. \"https://origin.shop.example\"");
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            let help = format!("write \"https://{url}\" or \"http://{url}\"");
            return bad("has no scheme", &help);
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => {
                let help = match did_you_mean(other, ["http", "https"]) {
                    Some(close) => format!("did you mean \"{close}\"?"),
                    None => "an origin speaks http or https".to_owned(),
                };
                return bad(&format!("has the scheme {other:?}"), &help);
            }
        };
        if rest.contains(['?', '#']) {
            return bad("has a query or a fragment", "leave out what is behind \"?\" or \"#\"");
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return bad(
                "has a user name",
                "send credentials with origin_options = { request_headers = { set = { Authorization = \"…\" } } }",
            );
        }
        let (host, port) = match split_port(authority) {
            Ok(parts) => parts,
            Err(reason) if reason.ends_with("port") => {
                return bad(reason, "a port is a number from 1 to 65535");
            }
            Err(reason) => return bad(reason, "write e.g. \"http://[2001:db8::1]:8080\""),
        };
        if host.is_empty() {
            return bad("has no host", "write e.g. \"https://origin.shop.example\"");
        }
        let is_address = host.parse::<std::net::IpAddr>().is_ok();
        if !is_address && !is_host_name(host) {
            return bad(
                &format!("has the host {host:?}, which is no name or address"),
                "write e.g. \"https://origin.shop.example\"",
            );
        }
        Ok(Origin {
            scheme,
            host: host.to_ascii_lowercase().into(),
            port: port.unwrap_or(scheme.default_port()),
            path_prefix: path.trim_end_matches('/').into(),
            host_override: None,
            http2: false,
            tls: Tls::default(),
            timeouts: Timeouts::default(),
            connections_max: bounds::CONNECTIONS.default,
        })
    }

    /// Host and port as in a URL: the port only when it is not the scheme's, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// The origin as a URL, for logs and messages; `tier:NAME` where it is another edge.
    pub fn url(&self) -> String {
        if let Some(node) = &self.tls.node {
            return format!("tier:{node}");
        }
        format!("{}://{}{}", self.scheme.as_str(), self.authority(), self.path_prefix)
    }
}

/// Why a text is no origin URL: a sentence part that follows the text, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl {
    /// What is wrong, as in `"has no scheme"`.
    pub reason: String,
    /// What to write instead.
    pub help: String,
}

impl std::fmt::Display for BadUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.reason, self.help)
    }
}

impl std::error::Error for BadUrl {}

impl OriginGroup {
    /// One origin, everything else at its default.
    pub fn of(origin: Origin) -> OriginGroup {
        OriginGroup {
            origins: vec![Arc::new(origin)],
            request_headers: HeaderOps::default(),
            request_headers_of: Vec::new(),
            fail_over_statuses: fail_over_statuses_default(),
            retry: RetryPolicy::default(),
            breaker: BreakerPolicy::default(),
            health: HealthPolicy::default(),
            probe: None,
            budget: None,
        }
    }

    /// Whether an answer with `status` sends a safe request to the next origin.
    pub fn fails_over(&self, status: u16) -> bool {
        self.fail_over_statuses.iter().any(|range| range.contains(&status))
    }

    /// Whether it has an origin on a server (scheme, host, port) that `other` does not ask.
    pub fn is_elsewhere(&self, other: &OriginGroup) -> bool {
        let is_same =
            |one: &Origin, known: &Origin| one.scheme == known.scheme && one.authority() == known.authority();
        !self.origins.iter().all(|one| other.origins.iter().any(|known| is_same(one, known)))
    }

    /// Applies the group's header changes to a request that leaves for it.
    pub fn prepare(&self, request: &mut Fields) {
        self.request_headers.apply(request);
    }

    /// Applies the changes for one origin alone, by its place in the group, to a request that is prepared.
    pub fn prepare_for(&self, origin: usize, request: &mut Fields) {
        if let Some(changes) = self.request_headers_of.get(origin) {
            changes.apply(request);
        }
    }
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port`.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("has a \"[\" without \"]\"")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("has no IPv6 address between its brackets");
            }
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err("has something other than a port behind \"]\""),
            }
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("has an IPv6 address without brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    match port {
        None => Ok((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => match port.parse::<u16>() {
            Ok(0) | Err(_) => Err("has a bad port"),
            Ok(port) => Ok((host, Some(port))),
        },
        Some(_) => Err("has a bad port"),
    }
}

/// Letters, digits, `-` and `_` in labels of 1 to 63 bytes, at most 253 in all (RFC 1123 §2.1; `_` is common in
/// names of containers).
pub(crate) fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}
