//! What one node of the edge is told about itself: where it listens, what it may use, and every limit. Each limit
//! has a default, a range and the reason for its default, here and nowhere else; the configuration reader, the
//! reference and the JSON Schema are made from these constants.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::rate::Rate;
use crate::units::ByteSize;

/// Default, least and most of one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<T> {
    /// Used when the configuration says nothing.
    pub default: T,
    /// The least that it may say.
    pub min: T,
    /// The most that it may say.
    pub max: T,
}

/// `default`, between `min` and `max`.
pub(crate) const fn bound<T: Copy>(default: T, min: T, max: T) -> Bound<T> {
    Bound { default, min, max }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Bytes of all field lines of a request. Apache's and nginx's usual 4 × 8 KiB.
pub const HEADER_BYTES: Bound<ByteSize> =
    bound(ByteSize::from_kib(32), ByteSize::from_kib(1), ByteSize::from_kib(1024));
/// Field lines of a request: hyper's and Apache's default; below `semantics::fields::LINES_MAX` by what the edge adds.
pub const HEADER_COUNT: Bound<u32> = bound(100, 8, 112);
/// Bytes of the request line. nginx's and Apache's 8 KiB, and what RFC 9112 §3 recommends at least.
pub const REQUEST_LINE: Bound<ByteSize> = bound(ByteSize::from_kib(8), ByteSize(512), ByteSize::from_kib(64));
/// Bytes of a request body. CloudFront's largest; nginx's 1 MiB breaks uploads.
pub const BODY_BYTES: Bound<ByteSize> =
    bound(ByteSize::from_mib(20 * 1024), ByteSize(0), ByteSize(u64::MAX >> 1));
/// Time for a whole request head, from its first byte. Against slow senders; Apache's `reqtimeout` lets 20 to 40 s pass.
pub const HEADER_TIMEOUT: Bound<Duration> = bound(secs(15), secs(1), secs(300));
/// Time for a TLS handshake, from the first byte to the last. nginx's `ssl_handshake_timeout` lets 60 s pass; a visitor
/// with a bad line needs three round trips.
pub const HANDSHAKE_TIMEOUT: Bound<Duration> = bound(secs(10), secs(1), secs(300));
/// Requests at a time on one HTTP/2 or HTTP/3 connection. RFC 9113 §5.1.2 recommends at least 100; nginx has 128.
pub const STREAMS: Bound<u32> = bound(100, 1, 1000);
/// Time for which a connection may wait for its next request. nginx's keepalive_timeout.
pub const IDLE_TIMEOUT: Bound<Duration> = bound(secs(75), secs(1), secs(3600));
/// Time without a byte of request body arriving. nginx's client_body_timeout.
pub const BODY_STALL: Bound<Duration> = bound(secs(60), secs(1), secs(3600));
/// Time without a byte of response leaving. nginx's send_timeout.
pub const WRITE_STALL: Bound<Duration> = bound(secs(60), secs(1), secs(3600));
/// Open connections of all workers.
pub const CONNECTIONS: Bound<u32> = bound(100_000, 16, 10_000_000);
/// Open connections of one client ([`client_network`]); 0 is no limit, as thousands of people may share one address.
pub const CONNECTIONS_PER_CLIENT: Bound<u32> = bound(0, 0, 1_000_000);
/// TLS handshakes under way in one worker. Each holds some 20 KiB, and its socket, for as long as [`HANDSHAKE_TIMEOUT`]; one
/// core ends a few thousand per second. A client may have a [`HANDSHAKES_CLIENT_SHARE`]th of them.
pub const HANDSHAKES: Bound<u32> = bound(4096, 16, 1_000_000);
/// Of the handshakes under way in a worker, one client may have one in so many: who begins some and lets them lie shuts
/// nobody else out.
pub const HANDSHAKES_CLIENT_SHARE: u32 = 4;
/// TLS handshakes of one client per second; 0 is no limit, as many people may share one address. A handshake is the dearest
/// thing that a visitor can make us do at so little cost: a quarter of a millisecond of CPU.
pub const HANDSHAKES_PER_CLIENT: Bound<u32> = bound(0, 0, 100_000);
/// How many seconds' worth of [`HANDSHAKES_PER_CLIENT`] may come at once: browsers open six connections per site.
pub const HANDSHAKES_BURST_SECS: u32 = 10;
/// The time in which requests are counted.
pub const RATE_PER: Bound<Duration> = bound(secs(1), Duration::from_millis(100), secs(24 * 3600));
/// Requests on one connection before it is closed: frees what leaks and spreads load. nginx's 1,000 shows in p99.
pub const REQUESTS_PER_CONNECTION: Bound<u32> = bound(100_000, 1, u32::MAX);
/// Time that running requests get to end when the node stops.
pub const DRAIN: Bound<Duration> = bound(secs(30), secs(0), secs(3600));
/// Time that a new process has to check everything, and again to open the disks, when it is to take this one's place: an index
/// of ten million records takes about a second.
pub const UPGRADE: Bound<Duration> = bound(secs(60), secs(1), secs(3600));
/// Time that running requests get to end when another process has taken this one's place: a long download is no reason not to
/// upgrade, and costs nobody anything but this process's memory. HAProxy's `hard-stop-after` is unlimited by default, which
/// lets a forgotten connection keep a process for ever.
pub const UPGRADE_DRAIN: Bound<Duration> = bound(secs(3600), secs(0), secs(86_400));
/// For how long a node of a cluster may not have heard of purges before a site's hits are validated. Below ten seconds, control's
/// own restart would do it; above a month, nobody means it.
pub const PURGE_LAG: (Duration, Duration) = (secs(10), secs(30 * 86_400));
/// Memory of the cache: bodies, heads and index.
pub const MEMORY: Bound<ByteSize> = bound(ByteSize::from_mib(512), ByteSize::from_mib(1), ByteSize(1 << 50));
/// Memory of bodies on their way to visitors, beside [`MEMORY`]. With less than a few of the edge's windows (4 MiB), one visitor
/// would shut others out. The default: see [`StoreSettings::in_flight`].
pub const IN_FLIGHT: (ByteSize, ByteSize) = (ByteSize::from_mib(8), ByteSize(1 << 50));
/// Disks of one node. More are put together below us, by RAID or LVM.
pub const DISKS_MAX: usize = 16;
/// The least that a disk may be given: less is a slip of the unit, as memory alone holds more.
pub const DISK_SIZE_MIN: ByteSize = ByteSize::from_mib(64);
/// The most that a disk may be given: what 32 bits can number in blocks of 4 KiB.
pub const DISK_SIZE_MAX: ByteSize = ByteSize(16 << 40);
/// Bytes that may be written to a disk per day, on average, as a multiple of its size. SSD makers rate drives in this
/// unit (DWPD), today's at 1 to 3 over five years. The default lies above: most caches are read far more than written
/// and stay below any budget by themselves, and where content changes fast a worn drive serves better than an empty one;
/// who disagrees writes the drive's rating. An average with a burst of one whole size, so that a new cache fills at full
/// speed.
pub const WRITES_PER_DAY: Bound<u32> = bound(10, 1, 1000);
/// One request of how many begins a trace: enough to see what is usual, and little to keep.
pub const TRACED_ONE_IN: Bound<u32> = bound(1000, 1, 1_000_000_000);
/// Worker threads; the default is one per core.
pub const WORKERS: Bound<u32> = bound(0, 1, 1024);

/// One node's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeSettings {
    /// Addresses for visitors. Default `127.0.0.1:8080`.
    pub listen: Vec<SocketAddr>,
    /// Addresses for visitors who speak TLS. None by default: they need a certificate.
    pub listen_tls: Vec<SocketAddr>,
    /// Where other edges reach this one: its PoP's, and those whose sites it shields. Nowhere by default.
    pub listen_tier: Vec<SocketAddr>,
    /// What it shows them, in files; on a node of a cluster, the cluster's certificates do.
    pub tier: Option<TierFiles>,
    /// Certificates in files of the operator's own.
    pub certificates: Vec<CertificateFiles>,
    /// TLS with visitors.
    pub tls: TlsSettings,
    /// Certificates that the edge orders by itself; `None` when it shall not.
    pub acme: Option<AcmeSettings>,
    /// Address of the admin API and of `/metrics`; loopback unless told otherwise. `None` is off.
    pub admin: Option<SocketAddr>,
    /// Worker threads; `None` is one per core.
    pub workers: Option<u32>,
    /// What the cache may use: `[store]` of the file.
    pub store: StoreSettings,
    /// Name of this node in Via, CDN-Loop and Cache-Status: a token.
    pub node: String,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// How a line of it looks.
    pub access_log_format: AccessLogFormat,
    /// Where traces go; `None` is off.
    pub traces: Option<TraceSettings>,
    /// Where networks are: a file that `perigee geo build` has made; `None`: nobody knows.
    pub location: Option<PathBuf>,
    /// Whether statistics are kept for whoever shows them.
    pub statistics: bool,
    /// Whether responses carry Server-Timing.
    pub server_timing: bool,
    /// Whose X-Forwarded-For, X-Forwarded-Proto and PROXY lines are believed.
    pub trusted_proxies: Vec<Network>,
    /// Whether connections begin with a PROXY protocol header (version 1 or 2).
    pub proxy_protocol: bool,
    /// The addresses from which origins are connected to: at most one of each family. None is the system's choice.
    pub origin_source: Vec<IpAddr>,
    /// Whether HTTP/3 is spoken on the UDP ports of `listen_tls`.
    pub http3: bool,
    /// Limits against what visitors may use up.
    pub limits: Limits,
}

/// Where traces go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// URL of a collector that takes OTLP over HTTP.
    pub to: String,
    /// A file whose line is said as Authorization.
    pub authorization_file: Option<PathBuf>,
    /// One request of so many begins a trace that is recorded.
    pub one_in: u32,
    /// Whether a visitor's `traceparent` is continued.
    pub believe_visitors: bool,
}

/// What edges show each other, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierFiles {
    /// This node's certificate, and those that lead from it to the authority; it has the node's name (a DNS name in its subject
    /// alternative names), or the URI `perigee://edge/NAME`.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that all of them believe.
    pub authority: PathBuf,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those that lead from it to a root.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Where an answer of its authority's OCSP responder comes from, that is shown with it; `None` has it fetched for
    /// certificates that demand one.
    pub ocsp: Option<Ocsp>,
}

/// Where OCSP responses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ocsp {
    /// From a file, as DER.
    File(PathBuf),
    /// From the responder that the certificate names.
    Fetch,
}

/// TLS with visitors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// File with the secret that session tickets are made from; `None` is one of the state directory's own.
    pub ticket_secret_file: Option<PathBuf>,
    /// Whether a visitor who returns may ask before the handshake is over (RFC 8470). Sessions are remembered then, by this edge
    /// alone, and tickets are not used.
    pub early_data: bool,
}

/// A version of TLS. Older ones are not spoken (RFC 8996).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// From whom certificates are ordered (ACME, RFC 8555), and for which domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The authority's directory, an https URL.
    pub directory: String,
    /// Where the authority writes to when something is the matter.
    pub email: Option<String>,
    /// PEM file with the roots to trust when talking to the authority; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// Directory that edges share their certificates by; `None` is `acme` in the state directory.
    pub store: Option<PathBuf>,
    /// Domains, in lower case; `None` is every exact domain of a site that no [`CertificateFiles`] is for.
    pub domains: Option<Vec<Box<str>>>,
    /// How a domain is shown to be ours: at least one.
    pub challenges: Vec<AcmeChallenge>,
}

/// The directory of Let's Encrypt, whose certificates all browsers take.
pub const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How a domain is shown to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// By a request to port 80 (RFC 8555 §8.3).
    Http01,
    /// By a handshake at port 443 (RFC 8737).
    TlsAlpn01,
}

/// What the cache may use of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Memory of the cache: [`MEMORY`].
    pub memory: ByteSize,
    /// See [`StoreSettings::in_flight`].
    pub in_flight: Option<ByteSize>,
    /// How the cache chooses what to keep in memory.
    pub eviction: Eviction,
    /// Where it keeps objects beside memory, in the order of the file: at most [`DISKS_MAX`], all with different
    /// paths. None: memory is all.
    pub disks: Vec<DiskSettings>,
}

/// One place on a disk where the cache keeps objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// Its directory, absolute; `None` is `store` in the state directory.
    pub path: Option<PathBuf>,
    /// Bytes that it may take there: [`DISK_SIZE_MIN`] to [`DISK_SIZE_MAX`].
    pub size: ByteSize,
    /// [`WRITES_PER_DAY`], in multiples of `size`.
    pub writes_per_day: u32,
}

/// How the cache chooses what to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Eviction {
    /// Size-aware and lazily promoted: best by objects.
    #[default]
    Lgdsf,
    /// Least recently used.
    Lru,
    /// SIEVE.
    Sieve,
    /// S3-FIFO.
    S3Fifo,
}

/// How messages of syslog travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyslogBy {
    /// A datagram each.
    Udp,
    /// Framed, over one connection.
    Tcp,
    /// To a local socket.
    Unix,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
    /// To syslog, by `udp` or `tcp` to `host:port`, or by `unix` to a path.
    Syslog(SyslogBy, String),
    /// In batches to an `http://` or `https://` URL.
    Http(String),
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Apache's combined format.
    Combined,
    /// The fields of CloudFront's standard log.
    Cloudfront,
    /// JSON with the names of Cloudflare's Logpush.
    Logpush,
}

/// Every limit for visitors; see the constants of the same names for ranges and reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// [`HEADER_BYTES`]; more is answered with 431.
    pub header_bytes_max: ByteSize,
    /// [`HEADER_COUNT`]; more is answered with 431.
    pub header_count_max: u32,
    /// [`REQUEST_LINE`]; more is answered with 414.
    pub request_line_max: ByteSize,
    /// [`BODY_BYTES`]; more is answered with 413.
    pub body_bytes_max: ByteSize,
    /// [`HEADER_TIMEOUT`]; then 408.
    pub header_timeout: Duration,
    /// [`HANDSHAKE_TIMEOUT`]; then the connection is closed.
    pub handshake_timeout: Duration,
    /// [`STREAMS`]; the visitor is told, and one more is refused.
    pub streams_max: u32,
    /// [`IDLE_TIMEOUT`]; then the connection is closed.
    pub idle_timeout: Duration,
    /// [`BODY_STALL`]; then the connection is closed.
    pub body_stall_timeout: Duration,
    /// [`WRITE_STALL`]; then the connection is closed.
    pub write_stall_timeout: Duration,
    /// [`CONNECTIONS`]; more are closed at once.
    pub connections_max: u32,
    /// [`CONNECTIONS_PER_CLIENT`]; more are closed at once.
    pub connections_per_client_max: Option<NonZeroU32>,
    /// How often one client may ask; more is answered with 429.
    pub requests_per_client: Option<Rate>,
    /// [`HANDSHAKES`]; more are closed at once.
    pub handshakes_max: u32,
    /// [`HANDSHAKES_PER_CLIENT`]; more are closed at once.
    pub handshakes_per_client: Option<Rate>,
    /// [`REQUESTS_PER_CONNECTION`]; the last response says `Connection: close`.
    pub requests_per_connection_max: u32,
    /// [`DRAIN`]; then connections are cut.
    pub drain_timeout: Duration,
    /// [`UPGRADE`]; then the new process is ended and the old one serves on.
    pub upgrade_timeout: Duration,
    /// [`UPGRADE_DRAIN`]; then the old process's connections are cut.
    pub upgrade_drain_timeout: Duration,
}

/// Who is counted as one client: an IPv4 address; of an IPv6 address its first 64 bits, which is what one household has at
/// least (RFC 6177 §2). An IPv4 address mapped into IPv6 counts as IPv4.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
        address => address,
    }
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

impl Network {
    /// Reads `203.0.113.0/24`, `2001:db8::/32` or one address. The error is a sentence part that follows the text.
    pub fn parse(text: &str) -> Result<Network, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| "is not an address or a network such as 203.0.113.0/24".to_owned())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix {
            None => bits,
            Some(prefix) => prefix
                .parse::<u8>()
                .ok()
                .filter(|len| *len <= bits)
                .ok_or_else(|| format!("has the prefix length {prefix:?}; it may be 0 to {bits}"))?,
        };
        let network = Network { address, prefix_len };
        let (first, _) = network.range();
        if first != address {
            return Err(format!("has bits set behind its prefix; the network is {first}/{prefix_len}"));
        }
        Ok(network)
    }

    /// Whether `address` is in the network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix_len);
                shift == 32 || u32::from(network) >> shift == u32::from(address) >> shift
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix_len);
                shift == 128 || u128::from(network) >> shift == u128::from(address) >> shift
            }
            _ => false,
        }
    }

    /// How many bits its addresses have in common.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Its first and its last address.
    pub fn range(&self) -> (IpAddr, IpAddr) {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0);
                let first = u32::from(address) & mask;
                (IpAddr::V4(first.into()), IpAddr::V4((first | !mask).into()))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len)).unwrap_or(0);
                let first = u128::from(address) & mask;
                (IpAddr::V6(first.into()), IpAddr::V6((first | !mask).into()))
            }
        }
    }
}

impl DiskSettings {
    /// A disk of `size` in the state directory, with every other choice at its default.
    pub fn of(size: ByteSize) -> DiskSettings {
        DiskSettings { path: None, size, writes_per_day: WRITES_PER_DAY.default }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            memory: MEMORY.default,
            in_flight: None,
            eviction: Eviction::default(),
            disks: Vec::new(),
        }
    }
}

impl StoreSettings {
    /// Memory of bodies on their way, beside [`StoreSettings::memory`]: [`IN_FLIGHT`]. By default half of that, no less than
    /// 32 MiB, which is five hundred visitors who are slow to take what memory lacks, at 64 KiB each, and no more than 1 GiB.
    pub fn in_flight(&self) -> ByteSize {
        self.in_flight.unwrap_or(ByteSize((self.memory.0 / 2).clamp(32 << 20, 1 << 30)))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes_max: HEADER_BYTES.default,
            header_count_max: HEADER_COUNT.default,
            request_line_max: REQUEST_LINE.default,
            body_bytes_max: BODY_BYTES.default,
            header_timeout: HEADER_TIMEOUT.default,
            handshake_timeout: HANDSHAKE_TIMEOUT.default,
            streams_max: STREAMS.default,
            idle_timeout: IDLE_TIMEOUT.default,
            body_stall_timeout: BODY_STALL.default,
            write_stall_timeout: WRITE_STALL.default,
            connections_max: CONNECTIONS.default,
            connections_per_client_max: NonZeroU32::new(CONNECTIONS_PER_CLIENT.default),
            requests_per_client: None,
            handshakes_max: HANDSHAKES.default,
            handshakes_per_client: None,
            requests_per_connection_max: REQUESTS_PER_CONNECTION.default,
            drain_timeout: DRAIN.default,
            upgrade_timeout: UPGRADE.default,
            upgrade_drain_timeout: UPGRADE_DRAIN.default,
        }
    }
}

impl Default for EdgeSettings {
    fn default() -> Self {
        EdgeSettings {
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080)],
            listen_tls: Vec::new(),
            listen_tier: Vec::new(),
            tier: None,
            certificates: Vec::new(),
            tls: TlsSettings::default(),
            acme: None,
            admin: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090)),
            workers: None,
            store: StoreSettings::default(),
            node: "perigee".to_owned(),
            access_log: AccessLog::default(),
            access_log_format: AccessLogFormat::default(),
            traces: None,
            location: None,
            statistics: true,
            server_timing: false,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            origin_source: Vec::new(),
            http3: true,
            limits: Limits::default(),
        }
    }
}
