//! Every key that the configuration file knows: its kind, range, default and one sentence. The reader, the JSON Schema
//! and the reference are made from these tables, so that none can know a key that the others don't.

use std::time::Duration;

use super::site::RULES_MAX;
use crate::breaker::BreakerPolicy;
use crate::budget;
use crate::compress;
use crate::origin::bounds;
use crate::routing;
use crate::settings::{self, Bound};
use crate::tiers;
use crate::units::ByteSize;

/// A table of the file: what may stand in it.
#[derive(Debug)]
pub(crate) struct Table {
    /// As messages call it: `[edge]`, `[[site]]`, `query`.
    pub(crate) title: &'static str,
    /// Groups of keys; a group may stand in several tables.
    pub(crate) groups: &'static [&'static [Key]],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    pub(crate) default: Shown,
    pub(crate) doc: &'static str,
}

/// What a value may be.
#[derive(Debug)]
pub(crate) enum Kind {
    Bool,
    /// Text of a form that the builder reads; `what` names the form, as in "a URL".
    Text {
        what: &'static str,
        example: &'static str,
    },
    OneOf(&'static [&'static str]),
    Number {
        min: i64,
        max: i64,
    },
    /// A number with decimals, or a whole one.
    Decimal {
        min: i64,
        max: i64,
    },
    Time {
        min: Duration,
        max: Duration,
    },
    Size {
        min: ByteSize,
        max: ByteSize,
    },
    /// An array, or one value alone.
    List(&'static Kind),
    /// A table with names that the file chooses; `what` says of what.
    Map {
        what: &'static str,
        of: &'static Kind,
    },
    Table(&'static Table),
    /// An array of tables; `max` is how many it may have.
    Tables {
        of: &'static Table,
        max: Option<usize>,
    },
    /// The first whose TOML type fits.
    Either(&'static [Kind]),
}

/// A default as documentation shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown {
    None,
    Text(&'static str),
    Time(Duration),
    Size(ByteSize),
    Number(i64),
}

impl Table {
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: false, default: Shown::None, doc }
}

const fn time(name: &'static str, bound: Bound<Duration>, doc: &'static str) -> Key {
    let kind = Kind::Time { min: bound.min, max: bound.max };
    Key { name, kind, required: false, default: Shown::Time(bound.default), doc }
}

const fn size(name: &'static str, bound: Bound<ByteSize>, doc: &'static str) -> Key {
    let kind = Kind::Size { min: bound.min, max: bound.max };
    Key { name, kind, required: false, default: Shown::Size(bound.default), doc }
}

const fn number(name: &'static str, bound: Bound<u32>, doc: &'static str) -> Key {
    let kind = Kind::Number { min: bound.min as i64, max: bound.max as i64 };
    Key { name, kind, required: false, default: Shown::Number(bound.default as i64), doc }
}

const fn bound(default: u32, min: u32, max: u32) -> Bound<u32> {
    Bound { default, min, max }
}

impl Key {
    const fn required(self) -> Key {
        Key { required: true, ..self }
    }

    const fn or(self, default: &'static str) -> Key {
        Key { default: Shown::Text(default), ..self }
    }
}

const fn text(what: &'static str, example: &'static str) -> Kind {
    Kind::Text { what, example }
}

const fn tables(of: &'static Table) -> Kind {
    Kind::Tables { of, max: None }
}

/// A TTL: whole seconds, at most [`crate::Ttl::MAX`].
const TTL: Kind = Kind::Time { min: Duration::ZERO, max: Duration::from_secs(1 << 31) };
const HEADER_NAME: Kind = text("a header name", "X-Device");
const HEADER_VALUE: Kind = text("a header value", "nosniff");
const COOKIE_NAME: Kind = text("a cookie name", "session");
const PATTERN: Kind = text("a text with \"*\" for any part", "*mobile*");
const URL: Kind = text("a URL", "https://origin.shop.example");
const STATUS: Kind =
    Kind::Either(&[Kind::Number { min: 100, max: 599 }, text("a status, a class or a range", "5xx")]);

/// A file that says everything.
pub(crate) static ROOT: Table = Table { title: "the file", groups: &[OF_NODE, OF_CLUSTER] };

/// What a cluster's nodes have in common.
pub(crate) static CLUSTER: Table = Table { title: "a cluster's configuration", groups: &[OF_CLUSTER] };

/// What a node of a cluster is told in a file of its own.
pub(crate) static NODE: Table = Table {
    title: "a node's file",
    groups: &[
        &[key("cluster", Kind::Table(&OF_WHICH), "The cluster that the node belongs to.").required()],
        OF_NODE,
    ],
};

const OF_NODE: &[Key] = &[
    key("edge", Kind::Table(&EDGE), "What this node is told about itself."),
    key("store", Kind::Table(&STORE), "What the cache may use of this node."),
    key(
        "certificate",
        tables(&CERTIFICATE),
        "One certificate for visitors who speak TLS. The names in it say which sites it is for; of several for a name, the first that the visitor can use.",
    ),
    key("tls", Kind::Table(&VISITORS_TLS), "TLS with visitors."),
    key("acme", Kind::Table(&ACME), "Certificates that the edge orders and renews by itself (RFC 8555)."),
];

const OF_CLUSTER: &[Key] = &[
    key(
        "block",
        Kind::List(&text("an address or a network", "203.0.113.0/24")),
        "Clients that are answered with 403, whatever they ask for: at most 500,000 addresses and networks.",
    )
    .or("none"),
    key("switches", Kind::Table(&SWITCHES), "What is switched off, for emergencies."),
    key("site", tables(&SITE), "One site: domains, origins and rules.").required(),
    key(
        "pop",
        Kind::Tables { of: &POP, max: Some(routing::POPS_MAX) },
        "One place where edges are, to which the router sends visitors.",
    ),
    key("dns", Kind::Table(&DNS), "The DNS zone that the router answers for."),
    key("probe", Kind::Table(&PROBE), "How the router sees whether an edge lives."),
    key("measure", Kind::Table(&MEASURE), "What edges measure of the way to visitors, for the router."),
];

const NAME: Kind = text("a name of letters, digits, \"-\", \"_\" and \".\"", "fra");
const DEGREES: Kind = Kind::Decimal { min: -180, max: 180 };

static POP: Table = Table {
    title: "[[pop]]",
    groups: &[&[
        key("name", NAME, "Its name: in messages, metrics, and as a label of DNS. With `[dns]` it has at most 63 characters and no \".\", and differs from others' not by case alone.").required(),
        key(
            "location",
            Kind::Either(&[text("a place", "FRA"), Kind::List(&DEGREES)]),
            "Where it is, unless it is another CDN: the code of an airport (\"FRA\"), a region of a cloud (\"aws:eu-central-1\"; aws, gcp, azure, oci, alibaba, ibm, digitalocean, linode, vultr), or latitude and longitude ([50.11, 8.68]).",
        )
        .or("needed without `cname`"),
        key(
            "edges",
            Kind::List(&text("an address", "203.0.113.10")),
            "The addresses that visitors are sent to, IPv4 and IPv6, at most 64. Of another CDN, only for a domain that is the zone itself, where no CNAME may stand.",
        )
        .or("needed without `cname`"),
        key(
            "cname",
            text("a domain", "shop.other-cdn.example"),
            "Another CDN, by the name that it has for your site: the PoP is that CDN, and its visitors get a CNAME. Only sites that name it, or a region of it, in `pops` use it.",
        ),
        key(
            "beacon",
            text("a URL", "https://shop.other-cdn.example/pixel.gif"),
            "Of another CDN, something small that pages' beacons time; without, nobody is sent there for its being faster.",
        )
        .or("is not timed"),
        key(
            "node",
            Kind::Tables { of: &POP_NODE, max: Some(tiers::NODES_MAX) },
            "One edge of the PoP, as the others reach it. Those that are named act as one cache.",
        ),
        key("regions", Kind::List(&NAME), "Names of your own for groups of PoPs, which sites may name in `pops`.")
            .or("none"),
        key(
            "networks",
            Kind::List(&text("an address or a network", "203.0.113.0/24")),
            "Clients that are sent here before anything else is asked, such as those of a provider that the PoP stands in. The longest network wins.",
        )
        .or("none"),
        time(
            "bias",
            routing::BIAS,
            "Added to what this PoP's visitors are thought to wait: it is chosen where it is nearer than others by more than this.",
        ),
        key(
            "share",
            Kind::Number { min: *routing::SHARE_PERCENT.start(), max: *routing::SHARE_PERCENT.end() },
            "Percent of a site's visitors that are sent here wherever they are, always the same ones (by a hash of their /24 or /48), while it is up; the others go to PoPs without a share.",
        )
        .or("whoever it is best for"),
        key(
            "capacity",
            Kind::Number { min: 1, max: u32::MAX as i64 },
            "What it can take, in Mbit/s of responses' bodies, all its edges together; above it, those visitors are sent elsewhere who lose least. Edges of a cluster report what they send.",
        )
        .or("no bound"),
        key("drain", Kind::Bool, "Nobody new is sent here.").or("false"),
        key("last_resort", Kind::Bool, "Visitors are sent here only when no other PoP is left, or when all others are full.").or("false"),
    ]],
};

static POP_NODE: Table = Table {
    title: "[[pop.node]]",
    groups: &[&[
        key("name", NAME, "Its name: that of `node` in its own file, which its certificate shows.")
            .required(),
        key(
            "tier",
            text("an address with port", "10.0.0.1:7443"),
            "Where the other edges reach it: what its own file says as `listen_tier`, or what leads there.",
        )
        .required(),
        number("weight", tiers::WEIGHT, "Its share of the PoP's keys, in relation to the other nodes'."),
    ]],
};

static SHIELD: Table = Table {
    title: "[[site.shield_from]]",
    groups: &[&[
        key("from", Kind::List(&NAME), "Names of PoPs and of their regions: those that ask so.").required(),
        key(
            "pops",
            Kind::List(&NAME),
            "The PoPs through which they ask, the first that answers; at most 3. An empty list asks the origin.",
        )
        .required(),
    ]],
};

static DNS: Table = Table {
    title: "[dns]",
    groups: &[&[
        key(
            "zone",
            text("a domain", "cdn.example"),
            "Its name. Each site has a name in it, `SITE.ZONE`, which its domains' CNAMEs point to; domains of sites that lie in the zone are answered themselves.",
        )
        .required(),
        key(
            "nameservers",
            Kind::Map { what: "a name", of: &Kind::List(&text("an address", "203.0.113.53")) },
            "The zone's nameservers, as its parent delegates to them, with their addresses if they lie in the zone.",
        )
        .required(),
        key("contact", text("a mail address", "hostmaster@cdn.example"), "Whom to write to, as the zone's SOA says.")
            .or("hostmaster@ the zone"),
        time("ttl", routing::DNS_TTL, "How long resolvers keep where a visitor is sent."),
        key(
            "spare_within",
            Kind::Time { min: *routing::SPARE_WITHIN.start(), max: *routing::SPARE_WITHIN.end() },
            "An answer also has, last, an address of the PoP nearest to the chosen one, if visitors wait at most so much longer there by distance: browsers try it when the chosen PoP cannot be reached. Resolvers change the order, so it gets a part of the visitors all the time.",
        )
        .or("no such address"),
        key("dnssec", Kind::Bool, "Whether answers are signed (ECDSA P-256). The parent needs the DS record that `perigee router` shows.")
            .or("false"),
        key("client_subnet", Kind::Bool, "Whether the client's network counts that a resolver names (RFC 7871), instead of the resolver's own address.")
            .or("true"),
        key("https", Kind::Bool, "Whether HTTPS records (RFC 9460) tell browsers of HTTP/2 and HTTP/3 before they connect.")
            .or("true"),
        key("caa", Kind::List(&text("an issuer's domain", "letsencrypt.org")), "Who may issue certificates for names of the zone (RFC 8659).")
            .or("nothing is said"),
        key(
            "records",
            text("lines of a zone file", "@ 300 IN TXT \"hello\""),
            "Further records, as in a zone file (RFC 1035 §5), relative to the zone.",
        )
        .or("none"),
        number("rate", routing::DNS_RATE, "Answers of one kind per second to one network (/24, /56), per worker; the rest is dropped, or told to come by TCP. 0 is no limit."),
    ]],
};

static PROBE: Table = Table {
    title: "[probe]",
    groups: &[&[
        key(
            "kind",
            Kind::OneOf(&["http", "tcp", "off"]),
            "What is asked of each address: `GET /` by HTTP/1.1, which any answer below 500 satisfies; a TCP connection; nothing: all count as up.",
        )
        .or("\"http\""),
        key("port", Kind::Number { min: 1, max: 65_535 }, "On which port.").or("80"),
        time("interval", routing::PROBE_INTERVAL, "Time between two probes of an edge."),
        time("timeout", routing::PROBE_TIMEOUT, "Time that an edge has to answer."),
    ]],
};

static MEASURE: Table = Table {
    title: "[measure]",
    groups: &[&[
        key("connections", Kind::Bool, "Whether edges of a cluster note how long the round trip of a visitor's connection is: of one connection in sixteen, by network (/24, /48).")
            .or("true"),
        key("beacons", Kind::Bool, "Whether edges of a cluster serve the script `/.perigee/beacon.js`, which has browsers time some PoPs, and take what it measures.")
            .or("false"),
    ]],
};

static OF_WHICH: Table = Table {
    title: "[cluster]",
    groups: &[&[
        key(
            "control",
            Kind::List(&text("an https URL", "https://control-1.example:7700")),
            "Where control, or a relay of it, is reached; of several, any that answers. The port is 7700 unless it is named.",
        )
        .required(),
        key(
            "pop",
            text("a name of letters, digits, \"-\", \"_\" and \".\"", "fra"),
            "The PoP in which the node stands, as its token says. Changes reach one PoP before they reach all.",
        )
        .or("none"),
    ]],
};

const fn switch(name: &'static str, doc: &'static str) -> Key {
    key(name, Kind::Bool, doc).or("true")
}

static SWITCHES: Table = Table {
    title: "[switches]",
    groups: &[&[
        switch("http2", "HTTP/2 with visitors; without, they are offered HTTP/1.1 alone."),
        switch(
            "http3",
            "HTTP/3; without, visitors are told to forget it and new connections of it are refused.",
        ),
        switch("compress", "Encoded copies; without, none is made and none is sent."),
        switch("early_hints", "Early Hints (103)."),
        switch("disk", "Disks; without, nothing is read from them or written to them. Purges go on."),
        switch("websocket", "WebSocket; without, a request for it is passed on as if it asked for a page."),
    ]],
};

static EDGE: Table = Table {
    title: "[edge]",
    groups: &[&[
        key("listen", Kind::List(&text("an address with port", "0.0.0.0:8080")), "Addresses for visitors.")
            .or("\"127.0.0.1:8080\""),
        key(
            "listen_tls",
            Kind::List(&text("an address with port", "0.0.0.0:443")),
            "Addresses for visitors who speak TLS, with HTTP/2 or HTTP/1.1; and on the same UDP ports HTTP/3, unless `http3` is false.",
        )
        .or("none"),
        key(
            "listen_tier",
            Kind::List(&text("an address with port", "10.0.0.1:7443")),
            "Addresses at which the other edges of the PoP, and those that it shields, reach this one: the `tier` of its [[pop.node]]. Only edges that show a certificate are let in.",
        )
        .or("none"),
        key(
            "tier",
            Kind::Table(&TIER),
            "What this node shows to other edges, and whom it believes. A node of a cluster has that from its cluster.",
        )
        .or("none"),
        key(
            "admin",
            text("an address with port, or \"off\"", "127.0.0.1:9090"),
            "Address of the admin API and of /metrics.",
        )
        .or("\"127.0.0.1:9090\""),
        Key {
            default: Shown::Text("one per core"),
            ..number("workers", settings::WORKERS, "Worker threads.")
        },
        key(
            "node",
            text("a name of letters, digits, \"-\", \"_\" and \".\"", "fra-1"),
            "Name of this node in Via, CDN-Loop and Cache-Status.",
        )
        .or("\"perigee\""),
        key(
            "access_log",
            text("a file, \"stdout\", \"off\", syslog or a URL", "/var/log/perigee/access.log"),
            "Where the access log goes: also syslog+udp://host:514, syslog+tcp://host:601, syslog+unix:///dev/log (RFC 5424), or an http:// or https:// URL that takes batches of lines (POST, gzip).",
        )
        .or("\"off\""),
        key("access_log_format", Kind::OneOf(&["json", "combined", "cloudfront", "logpush"]), "How a line of the access log looks: as JSON, as web servers write it, with the fields of CloudFront's standard log, or with the names of Cloudflare's Logpush.")
            .or("\"json\""),
        key("traces", Kind::Table(&TRACES), "Which requests are traced, and who is told.").or("none"),
        key(
            "location",
            text("a file", "/etc/perigee/location.geo"),
            "Where networks are, so that statistics know visitors' countries: as made by `perigee geo build`.",
        )
        .or("none"),
        key(
            "statistics",
            Kind::Bool,
            "Whether requests are counted by site, rule, country, content, reason and status for control, and URLs by how often they are asked for.",
        )
        .or("true"),
        key("server_timing", Kind::Bool, "Whether responses carry Server-Timing.").or("false"),
        key(
            "trusted_proxies",
            Kind::List(&text("an address or a network", "203.0.113.0/24")),
            "Whose X-Forwarded-For, X-Forwarded-Proto and PROXY lines are believed.",
        )
        .or("none"),
        key(
            "proxy_protocol",
            Kind::Bool,
            "Whether TCP connections begin with a PROXY protocol header (version 1 or 2).",
        )
        .or("false"),
        key(
            "origin_source",
            Kind::List(&text("an address", "203.0.113.10")),
            "The addresses of this machine from which origins are connected to: one IPv4 and one IPv6 address at most.",
        )
        .or("the system's choice"),
        key(
            "http3",
            Kind::Bool,
            "Whether HTTP/3 is spoken on the UDP ports of listen_tls, and visitors are told of it (Alt-Svc).",
        )
        .or("true"),
        key("limits", Kind::Table(&LIMITS), "Limits against what visitors may use up."),
    ]],
};

static TIER: Table = Table {
    title: "[edge.tier]",
    groups: &[&[
        key(
            "certificate",
            text("a PEM file", "/etc/perigee/tier.pem"),
            "This node's certificate, with its name (that of `node`) as a DNS name in it, or the URI perigee://edge/NAME; then those that lead to the authority.",
        )
        .required(),
        key("key", text("a PEM file", "/etc/perigee/tier-key.pem"), "Its private key.").required(),
        key(
            "authority",
            text("a PEM file", "/etc/perigee/tier-ca.pem"),
            "The authority whose certificates the edges show each other. Use one that issues no others.",
        )
        .required(),
    ]],
};

static TRACES: Table = Table {
    title: "[edge.traces]",
    groups: &[&[
        key(
            "to",
            text("an http:// or https:// URL", "http://127.0.0.1:4318/v1/traces"),
            "Who collects traces: OTLP over HTTP (protocol buffers, gzip).",
        )
        .required(),
        number(
            "one_in",
            settings::TRACED_ONE_IN,
            "One request of so many begins a trace that is recorded. All others have ids too, so that whoever is asked next does not record them either.",
        ),
        key(
            "believe_visitors",
            Kind::Bool,
            "Whether a visitor's `traceparent` is continued, with its word whether it is recorded. Other edges' always is.",
        )
        .or("false"),
        key(
            "authorization_file",
            text("a file", "/etc/perigee/traces-authorization"),
            "A file whose line is said to the collector as Authorization.",
        )
        .or("none"),
    ]],
};

static LIMITS: Table = Table {
    title: "limits",
    groups: &[&[
        size(
            "header_bytes_max",
            settings::HEADER_BYTES,
            "Bytes of all field lines of a request; more gets 431.",
        ),
        number("header_count_max", settings::HEADER_COUNT, "Field lines of a request; more gets 431."),
        size("request_line_max", settings::REQUEST_LINE, "Bytes of the request line; more gets 414."),
        size("body_bytes_max", settings::BODY_BYTES, "Bytes of a request body; more gets 413."),
        time("header_timeout", settings::HEADER_TIMEOUT, "Time for a whole request head; then 408."),
        time("handshake_timeout", settings::HANDSHAKE_TIMEOUT, "Time for a TLS handshake."),
        number("streams_max", settings::STREAMS, "Requests at a time on one HTTP/2 or HTTP/3 connection."),
        time("idle_timeout", settings::IDLE_TIMEOUT, "How long a connection may wait for its next request."),
        time("body_stall_timeout", settings::BODY_STALL, "Time without a byte of request body arriving."),
        time("write_stall_timeout", settings::WRITE_STALL, "Time without a byte of response leaving."),
        number("connections_max", settings::CONNECTIONS, "Open connections of all workers."),
        number(
            "connections_per_client_max",
            settings::CONNECTIONS_PER_CLIENT,
            "Open connections of one client; 0 is no limit.",
        ),
        key(
            "requests_per_client",
            Kind::Table(&REQUESTS_PER_CLIENT),
            "How often one client may ask, whatever for; more gets 429.",
        )
        .or("no limit"),
        number(
            "handshakes_max",
            settings::HANDSHAKES,
            "TLS handshakes under way in one worker, those of HTTP/3 among them, and four times as many as one client may have of them.",
        ),
        number(
            "handshakes_per_client",
            settings::HANDSHAKES_PER_CLIENT,
            "TLS handshakes of one client per second, those of HTTP/3 among them, with ten seconds' worth at once; 0 is no limit.",
        ),
        number(
            "requests_per_connection_max",
            settings::REQUESTS_PER_CONNECTION,
            "Requests on one connection before it is closed.",
        ),
        time("drain_timeout", settings::DRAIN, "Time that running requests get to end when the node stops."),
        time(
            "upgrade_timeout",
            settings::UPGRADE,
            "Time that a new process has to get ready to take over; then the old one serves on.",
        ),
        time(
            "upgrade_drain_timeout",
            settings::UPGRADE_DRAIN,
            "Time that running requests get to end when a new process has taken over.",
        ),
    ]],
};

/// How often something may be asked for.
const RATE: &[Key] = &[
    key("requests", Kind::Number { min: 1, max: 1_000_000 }, "How many requests pass in each `per`.")
        .required(),
    time("per", settings::RATE_PER, "The time that they are counted in."),
    key("burst", Kind::Number { min: 1, max: 1_000_000 }, "How many of them may come at once.")
        .or("as `requests`"),
];

static REQUESTS_PER_CLIENT: Table = Table { title: "requests_per_client", groups: &[RATE] };

static RATE_LIMIT: Table = Table {
    title: "rate_limit",
    groups: &[
        RATE,
        &[key(
            "by",
            Kind::OneOf(&["client", "all"]),
            "Who is counted together: each client (an IPv4 address, or the first 64 bits of an IPv6 one), or all.",
        )
        .or("\"client\"")],
    ],
};

static CERTIFICATE: Table = Table {
    title: "[[certificate]]",
    groups: &[&[
        key(
            "chain",
            text("a PEM file", "/etc/ssl/shop/fullchain.pem"),
            "The certificate, followed by those that lead to a root.",
        )
        .required(),
        key("key", text("a PEM file", "/etc/ssl/shop/privkey.pem"), "Its private key.").required(),
        key(
            "ocsp",
            text("a DER file, or \"fetch\"", "/etc/ssl/shop/ocsp.der"),
            "An OCSP response that is shown with it (stapling) until it ends: from a file, which comes into force by itself when it changes; or fetched, and again at half of its life, from the responder that the certificate names.",
        )
        .or("\"fetch\" for a certificate that demands one (RFC 7633), else none"),
    ]],
};

static VISITORS_TLS: Table = Table {
    title: "[tls]",
    groups: &[&[
        key(
            "min_version",
            Kind::OneOf(&["1.2", "1.3"]),
            "The oldest version that is spoken. Browsers since 2018 speak 1.3.",
        )
        .or("\"1.2\""),
        key(
            "ticket_secret_file",
            text("a file", "/etc/perigee/ticket-secret"),
            "32 bytes of chance or more, readable by this user alone. Edges with the same ones resume each other's sessions.",
        )
        .or("one of its own, in the state directory"),
        key(
            "early_data",
            Kind::Bool,
            "Whether a visitor who returns may ask with its first bytes (0-RTT), which saves a round trip. Only what is safe is answered before the handshake is over; the origin is told by Early-Data: 1, and may refuse with 425 (RFC 8470). Sessions are resumed by the edge that they began at then, not by others with the same secret.",
        )
        .or("false"),
    ]],
};

static ACME: Table = Table {
    title: "[acme]",
    groups: &[&[
        key(
            "accept_terms",
            Kind::Bool,
            "That you accept the authority's terms of service: true, or nothing is ordered.",
        )
        .required(),
        key(
            "email",
            text("an address", "admin@shop.example"),
            "Where the authority writes to when something is the matter.",
        )
        .or("none"),
        key("directory", URL, "The authority's directory.").or("Let's Encrypt"),
        key(
            "ca_file",
            text("a PEM file", "/etc/ssl/private-ca.pem"),
            "The roots to trust when talking to the authority, for one of your own.",
        )
        .or("the system's"),
        key(
            "domains",
            Kind::List(&text("a domain of a site", "www.shop.example")),
            "Domains to order for, each with a certificate of its own.",
        )
        .or("every domain of a site without `*` that no [[certificate]] is for"),
        key(
            "challenges",
            Kind::List(&Kind::OneOf(&["http-01", "tls-alpn-01"])),
            "How the authority sees that a domain is yours: by port 80 (http-01) or port 443 (tls-alpn-01); after a failure, the next one.",
        )
        .or("[\"http-01\", \"tls-alpn-01\"]"),
        key(
            "store",
            text("a directory", "/mnt/shared/perigee-acme"),
            "Where account, certificates and keys are kept. Edges that share it share the certificates, and answer for each other.",
        )
        .or("`acme` in the state directory"),
    ]],
};

static STORE: Table = Table {
    title: "[store]",
    groups: &[&[
        size("memory", settings::MEMORY, "Memory of the cache: bodies, heads and index."),
        key(
            "in_flight",
            Kind::Size { min: settings::IN_FLIGHT.0, max: settings::IN_FLIGHT.1 },
            "Memory of bodies on their way, beside `memory`: being fetched, read from disk, written to it or sent. At the bound, requests for large bodies that memory lacks get 503; small ones go on.",
        )
        .or("half of `memory`, from 32MiB to 1GiB"),
        key(
            "eviction",
            Kind::OneOf(&["lgdsf", "lru", "sieve", "s3-fifo"]),
            "How the cache chooses what to keep in memory.",
        )
        .or("\"lgdsf\""),
        key(
            "disk",
            Kind::Tables { of: &DISK, max: Some(settings::DISKS_MAX) },
            "One disk where the cache is kept too, beside memory.",
        ),
    ]],
};

static DISK: Table = Table {
    title: "[[store.disk]]",
    groups: &[&[
        key(
            "path",
            text("a directory", "/var/cache/perigee"),
            "Its directory, as an absolute path. One disk may leave it out.",
        )
        .or("`store` in the state directory"),
        key(
            "size",
            Kind::Size { min: settings::DISK_SIZE_MIN, max: settings::DISK_SIZE_MAX },
            "Bytes that the cache may take there.",
        )
        .required(),
        number(
            "writes_per_day",
            settings::WRITES_PER_DAY,
            "Bytes written to it per day, on average, as a multiple of its size (DWPD). Below it everything is written at first sight, above it only what is small or asked for a second time.",
        ),
    ]],
};

pub(crate) static SITE: Table = Table {
    title: "[[site]]",
    groups: &[
        &[
            key(
                "name",
                text("a name of letters, digits, \"-\", \"_\" and \".\"", "shop"),
                "Name of the site: part of each cache key, of logs and of metrics.",
            )
            .required(),
            key(
                "domains",
                Kind::List(&text("a domain, \"*.\" and a domain, or \"*\"", "www.shop.example")),
                "Hosts that the site answers for. An exact domain wins over a wildcard, a longer wildcard over a shorter one.",
            )
            .required(),
            key(
                "origin",
                ORIGIN,
                "Where the content comes from; of a list, at most 16, the first that is well. A path in the URL is put in front of every path.",
            )
            .required(),
            key(
                "max_purge_lag",
                Kind::Time { min: settings::PURGE_LAG.0, max: settings::PURGE_LAG.1 },
                "On a node of a cluster that has not heard of purges for longer: what was fetched longer ago is validated before it is served; stale_if_error decides while the origin fails.",
            )
            .or("none: hits go on however long it takes"),
            key(
                "client_ca",
                text("a PEM file", "/etc/ssl/shop/clients-ca.pem"),
                "The authorities whose certificates visitors may show: see client_certificate. Intermediates come from the visitor. A changed file comes into force by itself.",
            )
            .or("none; visitors are not asked for a certificate"),
            key(
                "pops",
                Kind::List(&NAME),
                "Where the site is served: names of PoPs and of their regions. Visitors are sent nowhere else.",
            )
            .or("everywhere"),
            key(
                "shield",
                Kind::List(&NAME),
                "The PoPs through which all others ask the origin, so that it sees one fetch: the first that answers, at most 3. Then the origin.",
            )
            .or("none: each PoP asks the origin"),
            key(
                "shield_from",
                tables(&SHIELD),
                "What is asked instead of `shield` from some PoPs; the first that fits decides.",
            )
            .or("none"),
        ],
        ORIGIN_KEYS,
        CHOICES,
        &[
            key("rule", Kind::Tables { of: &RULE, max: Some(RULES_MAX) }, "One rule; the first that matches decides. What it doesn't say, the site's own keys say."),
            key("test", tables(&TEST), "One test of the rules, run by `perigee check` and before the file comes into force."),
        ],
    ],
};

const ORIGIN: Kind = Kind::List(&URL);

const ORIGIN_KEYS: &[Key] =
    &[key("origin_options", Kind::Table(&ORIGIN_OPTIONS), "How the edge talks to the origin or origins.")];

static RULE: Table = Table {
    title: "[[site.rule]]",
    groups: &[
        &[
            key("name", text("a name", "images"), "What messages, logs and tests call the rule.")
                .or("rule and its number"),
            key(
                "path",
                Kind::List(&text("a path with \"*\" for any part", "/static/*")),
                "Paths that the rule is for. \"*\" stands for any text, also none, also across \"/\"; nothing else is special, but \"(?i)\" at the start: letter case is ignored. The query is not part of the path.",
            ),
            key(
                "methods",
                Kind::List(&text("a method", "GET")),
                "Methods that the rule is for; GET includes HEAD.",
            ),
            key(
                "hosts",
                Kind::List(&text("a host with \"*\" for any part", "cdn.shop.example")),
                "Hosts that the rule is for.",
            ),
            key("scheme", Kind::OneOf(&["http", "https"]), "What the visitor speaks."),
            key(
                "with_header",
                Kind::Map { what: "a header name", of: &TEST_OF_VALUE },
                "Headers that the request must have: a text with \"*\", true for any value, false for none. \"(?i)\" at the start of a text ignores letter case.",
            ),
            key(
                "with_cookie",
                Kind::Map { what: "a cookie name", of: &TEST_OF_VALUE },
                "Cookies that the request must have, written like with_header.",
            ),
            key(
                "status",
                Kind::List(&STATUS),
                "Makes it a response rule: used once the response's status is known, for response_headers and browser_ttl only.",
            ),
            key("origin", ORIGIN, "Other origins than the site's, at most 16."),
        ],
        ORIGIN_KEYS,
        CHOICES,
    ],
};

const TEST_OF_VALUE: Kind = Kind::Either(&[Kind::Bool, PATTERN]);

static QUERY_VALUES: [Kind; 2] = [Kind::OneOf(&["all", "ignore"]), Kind::Table(&QUERY)];

static COOKIES_VALUES: [Kind; 2] = [Kind::OneOf(&["all", "none"]), Kind::Table(&COOKIES)];

static CORS_VALUES: [Kind; 2] = [Kind::OneOf(&["static", "off", "all"]), Kind::Table(&CORS)];

static COMPRESS_VALUES: [Kind; 2] = [Kind::Bool, Kind::Table(&COMPRESS)];

static REWRITE_VALUES: [Kind; 2] = [Kind::OneOf(&["off"]), Kind::Table(&REWRITE)];

static RUM_VALUES: [Kind; 2] = [Kind::Bool, Kind::Table(&RUM)];

static RATE_LIMIT_VALUES: [Kind; 2] = [Kind::OneOf(&["off"]), Kind::Table(&RATE_LIMIT)];

/// What a site says for all its rules, and a rule for itself.
const CHOICES: &[Key] = &[
    key("cache", Kind::Bool, "Whether the cache is used. false: every request goes to the origin.").or("true"),
    key("ttl", TTL, "How long a good answer (200, 203, 204, 206, 300, 301, 308) is fresh, whatever its headers say. Doesn't lift private, no-store or Set-Cookie.")
        .or("HTTP decides"),
    key(
        "ttl_by_status",
        Kind::Map { what: "a status (404), a class (5xx) or a range (500-503)", of: &TTL },
        "The same by status, errors among them: { \"404\" = \"10s\", \"5xx\" = \"1s\" }. 0s: not stored, also not to answer when stale.",
    )
    .or("HTTP decides"),
    key(
        "ttl_overrides",
        Kind::Either(&[Kind::Bool, Kind::OneOf(&["unless-no-cache"])]),
        "Whether ttl and ttl_by_status replace what the origin says of a lifetime. false: they hold for what it says nothing of. unless-no-cache: they do, but for what says no-cache.",
    )
    .or("true"),
    key("ttl_max", TTL, "How long an answer is fresh at most, if that is by the origin's word or by guess.").or("no bound"),
    key("browser_ttl", TTL, "The max-age that visitors are told.").or("the origin's"),
    key("stale_while_revalidate", TTL, "How long past its freshness a response may answer while it is fetched anew.")
        .or("the origin's"),
    key("stale_if_error", TTL, "How long past its freshness a response may answer because the origin fails.")
        .or("the origin's; 1d when no connection can be had"),
    key(
        "set_cookie",
        Kind::OneOf(&["refuse", "rfc9111", "strip", "never"]),
        "Responses with Set-Cookie: not stored unless the origin says they are for all; stored as RFC 9111 allows; stored without the cookie; not stored, whatever the origin says.",
    )
    .or("\"refuse\""),
    key(
        "targeted",
        Kind::List(&HEADER_NAME),
        "Response fields that speak to this cache before Cache-Control does, most important first (RFC 9213).",
    )
    .or("[\"Perigee-Cache-Control\", \"CDN-Cache-Control\"]"),
    key("heuristic", Kind::Table(&HEURISTIC), "Freshness by guess, when the origin says nothing."),
    key(
        "request_cache_control",
        Kind::OneOf(&["ignore", "honour"]),
        "Whether visitors' Cache-Control can make the edge ask the origin.",
    )
    .or("\"ignore\""),
    key(
        "share_authorized",
        Kind::Bool,
        "Whether answers to requests with Authorization may be shared although the origin doesn't say so.",
    )
    .or("false"),
    key(
        "query",
        Kind::Either(&QUERY_VALUES),
        "Which parameters of the query tell two requests apart. What is left out of the key is not sent to the origin either.",
    )
    .or("\"all\""),
    key("key", Kind::Table(&CACHE_KEY), "What else tells two requests apart."),
    key(
        "vary",
        Kind::Map {
            what: "a header name",
            of: &Kind::Either(&[
                Kind::OneOf(&["lowercase", "sorted", "presence"]),
                Kind::List(&text("a value", "de")),
            ]),
        },
        "How spellings of a request header are made equal before keying and forwarding: \"lowercase\", \"sorted\" (a list), \"presence\", or the list of values that count.",
    ),
    key(
        "request_headers",
        Kind::Table(&HEADER_CHANGES),
        "Changes to the request before it goes to the origin. A site's come before its rule's; where the rule has origins that the site has not, a site's set no Authorization, Cookie or Proxy-Authorization, but remove the visitor's.",
    ),
    key(
        "request_cookies",
        Kind::Either(&COOKIES_VALUES),
        "Which cookies the origin sees.",
    )
    .or("\"all\""),
    key("response_headers", Kind::Table(&HEADER_CHANGES), "Changes to the response before it goes to the visitor. A site's come before its rule's."),
    key(
        "surrogate_keys",
        Kind::List(&text("a surrogate key", "static")),
        "Keys for purging that each stored response gets besides the origin's own.",
    )
    .or("none"),
    key("redirect", Kind::Table(&REDIRECT), "Answer at once with a redirect."),
    key(
        "https",
        Kind::OneOf(&["optional", "redirect", "strict"]),
        "Whether visitors have to use TLS. redirect: who does not is sent there (301 for GET and HEAD, else 308). strict: and is told to stay there for a year (Strict-Transport-Security), so that there is no way back.",
    )
    .or("\"optional\""),
    key(
        "client_certificate",
        Kind::OneOf(&["off", "optional", "required"]),
        "Whether visitors show who they are by a certificate of their own, from one of the site's `client_ca`. optional: the origin gets what they show, in Client-Cert (RFC 9440). required: who shows none gets 403.",
    )
    .or("\"off\""),
    key(
        "cors",
        Kind::Either(&CORS_VALUES),
        "Cross-origin reading: opened to all for static types (CSS, JavaScript, fonts, images, media, WebAssembly) and else the origin's affair; the origin's affair; opened to all; or a table.",
    )
    .or("\"static\""),
    key(
        "rate_limit",
        Kind::Either(&RATE_LIMIT_VALUES),
        "How often may be asked; more gets 429. A site's counts for all its rules together, but for those that have one of their own or \"off\".",
    )
    .or("\"off\""),
    key("websocket", Kind::Bool, "Whether a request to switch to WebSocket is passed on.").or("true"),
    key(
        "early_hints",
        Kind::Bool,
        "Whether visitors who wait for a page are told (103) what its last answer had them preload by Link.",
    )
    .or("true"),
    key(
        "compress",
        Kind::Either(&COMPRESS_VALUES),
        "Whether encoded copies are made of what is stored and not encoded by the origin; what is passed is never touched. A table says of what.",
    )
    .or("true"),
    key(
        "rewrite",
        Kind::Either(&REWRITE_VALUES),
        "Whether the URLs of static files in pages and style sheets (GET, 200, text/html and text/css) are made to lead to another host. Done once, before what comes is stored. See website.md.",
    )
    .or("\"off\""),
    key(
        "rum",
        Kind::Either(&RUM_VALUES),
        "Whether browsers tell how fast pages are (real user monitoring), by the script /.perigee/beacon.js. A table says how; a rule's adds to its site's. See rum.md.",
    )
    .or("false"),
];

static HEURISTIC: Table = Table {
    title: "heuristic",
    groups: &[&[
        number("percent", bound(10, 0, 100), "Share of the time since Last-Modified; 0 turns guessing off."),
        Key {
            default: Shown::Time(Duration::from_secs(semantics::policy::HEURISTIC_SECS_MAX)),
            ..key("max", TTL, "Longest guess.")
        },
    ]],
};

static QUERY: Table = Table {
    title: "query",
    groups: &[&[
        key(
            "keep",
            Kind::List(&text("a parameter", "w")),
            "Only these count. A \"*\" at the end stands for any ending.",
        ),
        key("drop", Kind::List(&text("a parameter", "utm_*")), "All but these count."),
        key("sort", Kind::Bool, "Whether the order of parameters doesn't matter.").or("false"),
    ]],
};

static CACHE_KEY: Table = Table {
    title: "key",
    groups: &[&[
        key("headers", Kind::List(&HEADER_NAME), "Request headers whose values count."),
        key("cookies", Kind::List(&COOKIE_NAME), "Cookies whose values count."),
        key("device", Kind::Bool, "Whether mobile, tablet and desktop are told apart.").or("false"),
    ]],
};

static HEADER_CHANGES: Table = Table {
    title: "header changes",
    groups: &[&[
        key("remove", Kind::List(&HEADER_NAME), "Headers to drop; done first."),
        key("set", Kind::Map { what: "a header name", of: &HEADER_VALUE }, "Headers to replace."),
        key(
            "add",
            Kind::Map { what: "a header name", of: &Kind::List(&HEADER_VALUE) },
            "Header lines to add beside those that are there.",
        ),
    ]],
};

static COOKIES: Table = Table {
    title: "request_cookies",
    groups: &[&[
        key("keep", Kind::List(&COOKIE_NAME), "Only these; \"*\" stands for any part of a name."),
        key("drop", Kind::List(&COOKIE_NAME), "All but these."),
    ]],
};

static REDIRECT: Table = Table {
    title: "redirect",
    groups: &[&[
        key(
            "to",
            text("a URL or a path", "https://{host}{path}{query}"),
            "Where to. {scheme}, {host}, {path}, {query} (with its \"?\") and {1} to {9} (what a \"*\" of the path stands for) are filled in; {{ and }} are braces.",
        )
        .required(),
        key("status", Kind::Number { min: 301, max: 308 }, "301, 302, 303, 307 or 308.").or("308"),
    ]],
};

static COMPRESS: Table = Table {
    title: "compress",
    groups: &[&[
        key(
            "types",
            Kind::List(&text("a Content-Type with \"*\" for any part", "text/*")),
            "Content-Types of what is compressed.",
        )
        .or("text, JavaScript, JSON, XML, SVG, WebAssembly, uncompressed fonts and the like"),
        key(
            "encodings",
            Kind::List(&Kind::OneOf(&["zstd", "br", "gzip"])),
            "Codings of the copies. The first that a visitor accepts is made first; of those that are there and equally welcome, the smallest is sent.",
        )
        .or("[\"zstd\", \"br\", \"gzip\"]"),
        size("min_size", compress::MIN_SIZE, "Least bytes of a body that is compressed."),
        size("max_size", compress::MAX_SIZE, "Most bytes of one. With disks nothing above 1 MiB is: such a body lies in slices."),
    ]],
};

static REWRITE: Table = Table {
    title: "rewrite",
    groups: &[&[
        key(
            "host",
            text("a host, or an origin", "cdn.shop.example"),
            "Where static files of the page's own host are fetched from; by https unless \"http://…\" is said.",
        )
        .required(),
        key(
            "hosts",
            Kind::Map { what: "a host", of: &text("a host, or an origin", "cdn.shop.example") },
            "The same for files of other hosts: { \"img.shop.example\" = \"cdn.shop.example\" }.",
        ),
        key("paths", Kind::List(&text("a path with \"*\" for any part", "/static/*")), "Paths that move.")
            .or("those with the ending of a style sheet, script, picture, font, sound or film"),
        key("social_images", Kind::Bool, "Whether pictures of previews move (og:image, twitter:image).").or("false"),
        key("structured_data", Kind::Bool, "Whether files named in JSON-LD move.").or("false"),
        key(
            "inline_scripts",
            Kind::List(&text("a path with \"*\" for any part", "/static/*")),
            "Paths that move in strings of inline scripts too, also with their slashes escaped.",
        )
        .or("none"),
    ]],
};

static RUM: Table = Table {
    title: "rum",
    groups: &[&[
        number("one_in", bound(1, 1, 100_000), "One of so many page views is told of."),
        key("group", text("1 to 64 letters, digits, \"-\", \"_\" and \".\"", "checkout"), "What views of these pages are counted as.")
            .or("the first part of each page's path, of 64 different ones in an hour"),
        key("inject", Kind::Bool, "Whether the edge puts the script into pages (GET, 200, text/html) as they come from the origin. Without, pages have it themselves.")
            .or("false"),
        key("consent", Kind::Bool, "Whether the script waits until the page says that the visitor has agreed.").or("false"),
    ]],
};

static CORS: Table = Table {
    title: "cors",
    groups: &[&[
        key(
            "origins",
            Kind::List(&text("\"*\" or an origin", "https://shop.example")),
            "Whose scripts may read.",
        )
        .required(),
        key(
            "methods",
            Kind::List(&text("a method", "PUT")),
            "Methods besides GET, HEAD and POST that are allowed.",
        ),
        key("headers", Kind::List(&HEADER_NAME), "Request headers that are allowed."),
        key("expose", Kind::List(&HEADER_NAME), "Response headers that scripts may read."),
        key("credentials", Kind::Bool, "Whether requests may carry cookies; needs a list of origins.")
            .or("false"),
        Key {
            default: Shown::Time(CORS_MAX_AGE),
            ..key("max_age", TTL, "How long a browser may remember the answer to a preflight.")
        },
    ]],
};

/// Chromium's longest.
pub(crate) const CORS_MAX_AGE: Duration = Duration::from_secs(7200);

static ORIGIN_OPTIONS: Table = Table {
    title: "origin_options",
    groups: &[&[
        key("host", text("a host", "shop.internal.example"), "Host that origins are asked for.")
            .or("what the visitor asked for"),
        key("http2", Kind::Bool, "Whether HTTP/2 is spoken: by ALPN over TLS, with prior knowledge over plain TCP.")
            .or("false"),
        key("tls", Kind::Table(&TLS), "How origins prove who they are."),
        key(
            "request_headers",
            Kind::Table(&HEADER_CHANGES),
            "Changes to each request that goes to these origins and to no others, after the rule's own: where secrets belong. A rule with origins that the site has not begins with what they keep from an origin alone: what they remove, or set to \"\", and the visitor's Authorization, Cookie and Proxy-Authorization that they replace.",
        ),
        key(
            "request_headers_of",
            Kind::Map { what: "one of the origins", of: &Kind::Table(&HEADER_CHANGES) },
            "Changes to the requests that go to one origin of the list and to no other: what it knows the edge by.",
        ),
        number("connections_max", bounds::CONNECTIONS, "Connections to one origin per worker."),
        key("timeouts", Kind::Table(&TIMEOUTS), "How long the edge waits."),
        key(
            "fail_over",
            Kind::List(&STATUS),
            "Statuses upon which a safe request goes to the next origin. A failed connection always does; [] is no status.",
        )
        .or("[500, \"502-504\"]"),
        key("retry", Kind::Table(&RETRY), "How many retries are granted."),
        key(
            "budget",
            Kind::Table(&BUDGET),
            "What each of the origins may be asked, by all nodes together; for a site and not for a rule.",
        )
        .or("no limit"),
        key("breaker", Kind::Table(&BREAKER), "When a failing origin is no longer asked for a while."),
        key("health", Kind::Table(&HEALTH), "How origins are asked whether they are well."),
    ]],
};

static TLS: Table = Table {
    title: "tls",
    groups: &[&[
        key(
            "ca",
            text("a PEM file", "/etc/perigee/origin-ca.pem"),
            "Certificates to trust instead of the system's.",
        ),
        key(
            "server_name",
            text("a host", "origin.shop.example"),
            "Name asked for and expected in the certificate.",
        )
        .or("the origin's host"),
        key("verify", Kind::Bool, "Whether the certificate is checked.").or("true"),
    ]],
};

static TIMEOUTS: Table = Table {
    title: "timeouts",
    groups: &[&[
        time(
            "connect",
            bounds::CONNECT,
            "For a connection, TLS included. Also for a sign of the origin's machine on one that there is: who has acknowledged \
             nothing for so long is gone, and what may be sent again is, on a new connection.",
        ),
        time("first_byte", bounds::FIRST_BYTE, "From the request's end to the response's head."),
        time("idle", bounds::IDLE, "Between two pieces of a body."),
        Key {
            default: Shown::Text("no end"),
            ..time("total", bounds::TOTAL, "From the request's start to the body's end.")
        },
        time("keep_alive", bounds::KEEP_ALIVE, "How long an unused connection is kept."),
    ]],
};

static RETRY: Table = Table {
    title: "retry",
    groups: &[&[
        number("percent", bound(20, 0, 100), "Retries per hundred requests."),
        number("floor_per_second", bound(1, 0, 1000), "Retries per second that are always granted."),
    ]],
};

static BUDGET: Table = Table {
    title: "budget",
    groups: &[&[
        Key {
            default: Shown::Text("no limit"),
            ..number(
                "requests_per_second",
                budget::bounds::REQUESTS_PER_SECOND,
                "Requests that may be sent in any second, retries and validations among them.",
            )
        },
        Key {
            default: Shown::Text("no limit"),
            ..number(
                "in_flight",
                budget::bounds::IN_FLIGHT,
                "Requests that may go on at a time, until the answer's last byte.",
            )
        },
        time("queue", budget::bounds::QUEUE, "How long a request waits for its turn; then it is refused."),
        time(
            "stale_deadline",
            budget::bounds::STALE_DEADLINE,
            "How long a visitor waits for a newer answer, where there is a stale one that may be served.",
        ),
        number(
            "reserve_percent",
            budget::bounds::RESERVE,
            "Share of the budget that nodes of a cluster have for good, to go on when they are cut off.",
        ),
        number(
            "nodes",
            budget::bounds::NODES,
            "Edges of the cluster, at most: the reserve is divided by as many.",
        ),
        time(
            "grace",
            budget::bounds::GRACE,
            "How long what is in flight may go on above what a node is allowed by then; the newest is ended first.",
        ),
    ]],
};

const fn ms(default_ms: u64, min_ms: u64, max_ms: u64) -> Bound<Duration> {
    Bound {
        default: Duration::from_millis(default_ms),
        min: Duration::from_millis(min_ms),
        max: Duration::from_millis(max_ms),
    }
}

pub(super) const BREAKER_DEFAULT: BreakerPolicy = BreakerPolicy {
    consecutive_failures: 5,
    row_ms: 1_000,
    failure_percent: 50,
    attempts_min: 20,
    window_ms: 5_000,
    probe_interval_ms: 1_000,
    probes_to_close: 1,
};

static BREAKER: Table = Table {
    title: "breaker",
    groups: &[&[
        number(
            "consecutive_failures",
            bound(BREAKER_DEFAULT.consecutive_failures, 1, 1000),
            "Opens after this many failures in a row.",
        ),
        time("row", ms(BREAKER_DEFAULT.row_ms, 0, 600_000), "The row must last at least this long."),
        number(
            "failure_percent",
            bound(BREAKER_DEFAULT.failure_percent as u32, 1, 101),
            "Opens when this share of the window's attempts failed; 101 is never.",
        ),
        number(
            "attempts_min",
            bound(BREAKER_DEFAULT.attempts_min, 1, 100_000),
            "The share counts only with this many attempts.",
        ),
        time("window", ms(BREAKER_DEFAULT.window_ms, 100, 600_000), "Length of the window."),
        time(
            "probe_interval",
            ms(BREAKER_DEFAULT.probe_interval_ms, 10, 600_000),
            "While open, one attempt goes through per this time.",
        ),
        number(
            "probes_to_close",
            bound(BREAKER_DEFAULT.probes_to_close, 1, 100),
            "Closes after this many good attempts in a row.",
        ),
    ]],
};

static HEALTH: Table = Table {
    title: "health",
    groups: &[&[
        key(
            "path",
            text("a path", "/healthz"),
            "Asked with GET on each origin; without it there are no probes.",
        )
        .or("none"),
        time("interval", bounds::PROBE_INTERVAL, "Time between two probes."),
        time("timeout", bounds::PROBE_TIMEOUT, "A probe without an answer after this time has failed."),
        key("statuses", Kind::List(&STATUS), "Statuses that mean \"well\".").or("\"2xx\", \"3xx\""),
        number("down_after", bound(3, 1, 100), "Failed probes in a row after which an origin is down."),
        number("up_after", bound(2, 1, 100), "Good probes in a row after which it is up again."),
        number(
            "aside_after",
            bound(5, 0, 1000),
            "Failed requests in a row after which it is set aside; 0 is never.",
        ),
        time("aside", ms(5_000, 100, 3_600_000), "For how long it is set aside."),
    ]],
};

static TEST: Table = Table {
    title: "[[site.test]]",
    groups: &[&[
        key("get", text("a path, with query", "/static/a.css?v=1"), "What is asked for.").required(),
        key("method", text("a method", "POST"), "The request's method.").or("\"GET\""),
        key("host", text("a host", "www.shop.example"), "The request's host.").or("the site's first domain"),
        key("scheme", Kind::OneOf(&["http", "https"]), "What the visitor speaks.").or("\"https\""),
        key("headers", Kind::Map { what: "a header name", of: &HEADER_VALUE }, "The request's headers."),
        key("status", Kind::Number { min: 100, max: 599 }, "The status that the origin answers with.")
            .or("200"),
        key(
            "response_headers",
            Kind::Map { what: "a header name", of: &HEADER_VALUE },
            "The headers that the origin answers with.",
        ),
        key("expect", Kind::Table(&EXPECT), "What must come of it.").required(),
    ]],
};

static EXPECT: Table = Table {
    title: "expect",
    groups: &[&[
        key(
            "rule",
            Kind::Either(&[Kind::Number { min: 0, max: 100_000 }, text("a rule's name", "images")]),
            "The rule that decides: its number from 1, 0 for the site's own keys, or its name.",
        ),
        key("cache", Kind::Bool, "Whether the cache is used."),
        key("stored", Kind::Bool, "Whether the answer is stored."),
        key("ttl", TTL, "How long the answer is fresh."),
        key("browser_ttl", TTL, "The max-age that the visitor is told by rule."),
        key(
            "redirect",
            text("a URL or a path", "https://www.shop.example/"),
            "Where the visitor is redirected to.",
        ),
        key("origin", URL, "The origin that is asked first."),
        key(
            "request_headers",
            Kind::Map { what: "a header name", of: &TEST_OF_VALUE },
            "Headers that the origin gets, by rule.",
        ),
        key(
            "response_headers",
            Kind::Map { what: "a header name", of: &TEST_OF_VALUE },
            "Headers that the visitor gets, by rule.",
        ),
    ]],
};

/// What is to be said of a key that the table lacks because it belongs into another file: what is wrong, and what to do.
pub(crate) fn elsewhere(table: &Table, name: &str) -> Option<(String, String)> {
    let is = |which: &'static Table| std::ptr::eq(table, which);
    let told = |message: &str, help: &str| Some((format!("{name:?} {message}"), help.to_owned()));
    let of_node = NODE.key(name).or_else(|| EDGE.key(name)).or_else(|| STORE.key(name)).is_some();
    if is(&CLUSTER) && of_node {
        return told(
            "is a node's own affair and has no place in a cluster's configuration",
            "put it into the node's own file, which perigee edge --config reads",
        );
    }
    if is(&NODE) && CLUSTER.key(name).is_some() {
        return told(
            "is the same for the whole cluster and has no place in a node's file",
            "put it into the cluster's configuration, which perigee apply reads",
        );
    }
    if is(&ROOT) && NODE.key(name).is_some() {
        return told(
            "belongs to a node of a cluster, which has its sites from there",
            "take it out, or take the sites out and run perigee edge --config",
        );
    }
    None
}

/// Keys that people write from habit, with what stands for them here.
pub(crate) const HABITS: &[(&str, &str)] = &[
    ("path_prefix", "put the prefix into the origin's URL: origin = \"https://origin.example/prefix\""),
    ("paths", "the key is path, also for a list"),
    ("domain", "the key is domains, also for one"),
    ("max_age", "for the edge write ttl, for browsers browser_ttl"),
    ("s_maxage", "write ttl"),
    ("edge_ttl", "write ttl"),
    ("grace", "write stale_while_revalidate, and stale_if_error"),
    ("bypass", "write cache = false"),
    ("pass", "write cache = false"),
    ("rules", "each rule begins with [[site.rule]]"),
    ("sites", "each site begins with [[site]]"),
    ("tests", "each test begins with [[site.test]]"),
    ("ratelimit", "write rate_limit = { requests = 50 }"),
    ("limit_req", "write rate_limit = { requests = 50 }"),
    ("limit_conn", "write connections_per_client_max, in [edge.limits]"),
    ("gzip", "write compress, with encodings = [\"gzip\"] for this coding alone"),
    ("brotli", "write compress, with encodings = [\"br\"] for this coding alone"),
    ("backend", "write origin"),
    ("upstream", "write origin"),
    ("proxy_pass", "write origin"),
    ("headers", "write request_headers or response_headers"),
    ("blocklist", "write block = [\"203.0.113.0/24\"], before the first table"),
    ("deny", "write block = [\"203.0.113.0/24\"], before the first table"),
    ("kill_switches", "write [switches]"),
    ("memory", "it stands in [store]"),
    ("eviction", "it stands in [store]"),
    ("policy", "write eviction, in [store]"),
    ("disk", "each disk begins with [[store.disk]]"),
    ("disks", "each disk begins with [[store.disk]]"),
    ("method", "the key is methods, also for one"),
    (
        "host",
        "the key is hosts; for the Host that origins are asked for write origin_options = { host = \"…\" }",
    ),
];
