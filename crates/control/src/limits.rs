//! Every limit of control, with its reason. Those that an operator may choose stand in `control.toml`; the others hold for all.

use std::time::Duration;

use crate::Limit;

/// Bytes of a request's body, unless it is a configuration: 500 purges of the longest kind, as JSON.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// Bytes of a configuration. 10,000 sites of 800 bytes each; what every node has to fetch and parse.
pub const CONFIGURATION_BYTES_MAX: usize = 8 << 20;

/// Configurations whose texts are kept, the newest ones, beside those that have been stable or are being rolled out. As many of the longest
/// kind, and as many stable ones, are less than what an etcd holds unless it is told otherwise.
pub const TEXTS_KEPT_MAX: usize = 100;

/// Bytes of a piece of a configuration in a cell: below [`journal::TEXT_BYTES_MAX`].
pub(crate) const PIECE_BYTES: usize = 512 << 10;

/// Connections of nodes and other controls at a time. 300 nodes, their relays, and each of them asks for something else besides.
pub const CONNECTIONS_MAX: usize = 2_560;

/// Of these, connections of one node or control at a time: what it follows by, what it asks for beside that, and as many as it may dial until
/// it is noticed that a line has swallowed the ones before. It takes 80 of them to hold all the room.
pub const CONNECTIONS_PER_NODE_MAX: usize = 32;

/// Connections at a time that have shown a good token: a room full of scripts. Where there are more, each further one counts as a
/// stranger's.
pub const OPERATORS_MAX: usize = 512;

/// Connections at a time that have shown neither a node's certificate nor a good token, as every one has at first. Where there are more,
/// the oldest is closed: a node is one for two round trips, and has to be outrun by so many in that time.
pub const STRANGERS_MAX: usize = 1_024;

/// For how long a connection may be one of these. Then it gets no more requests through, and five seconds later it is closed.
pub const STRANGER_TIME: Duration = Duration::from_secs(10);

/// Connections from one address (of IPv6: a network of 64 bits) that are none of nodes. Nodes behind one address are not limited by
/// it, but for those that come at the same moment.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 256;

/// Bytes of what nodes ask for in order to join or to renew their certificate: a name and a certificate request, which have one or two
/// thousand. Also what there is room for on one connection: nobody has to show anything in order to send it.
pub const JOIN_BYTES_MAX: usize = 16 << 10;

/// How long it may take until that has come.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of bodies at a time that are sent with a token: some of the longest configurations, and thousands of purges.
pub const BODIES_BYTES_MAX: usize = 128 << 20;

/// How long it may take until one of these has come: 8 MiB in a minute are one Mbit/s.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a TLS handshake, and for a request's head. Nobody who means it needs longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests at a time on one HTTP/2 connection, which is what RFC 9113 §6.5.2 wants at least. More is for nobody to hold who has shown
/// nothing; a purging program that has so many under way writes thousands a second.
pub const STREAMS_MAX: u32 = 100;

/// Calls that wait to be written. Reaching it is answered with 503, and means that the journal is slower than its callers.
pub const PURGES_QUEUED_MAX: usize = 20_000;

/// How long a purge waits for others that can be written with it. Under the time that a disk or etcd needs anyway.
pub(crate) const PURGE_LINGER: Duration = Duration::from_millis(2);

/// Calls with an idempotency key in one commit: each is an expectation and a cell, and etcd takes 128 operations at a time.
pub(crate) const KEYED_PER_COMMIT_MAX: usize = 32;

/// How long a write is tried again while the journal cannot be reached: an election of etcd takes one to two seconds. Then the
/// caller is told.
pub(crate) const COMMIT_PATIENCE: Duration = Duration::from_secs(3);

/// The longest wait for receipts that a caller may ask for in one request; below what proxies in between allow.
pub const WAIT_MAX: Duration = Duration::from_secs(55);

/// Requests of a token per second, unless the token says another number: twice what purges must be able to do.
pub const REQUESTS_PER_TOKEN: u32 = 2_000;

/// The most that a token may be allowed.
pub const REQUESTS_PER_TOKEN_MAX: u32 = 100_000;

/// Refused tokens of one address per second, with a burst of ten seconds' worth: a secret has 256 bits and cannot be guessed,
/// so this is about the log and CPU.
pub const REFUSALS_PER_ADDRESS: u32 = 10;

/// Tokens that are alive at a time. Each request looks in all of them, by hash.
pub const TOKENS_MAX: usize = 10_000;

/// Nodes of a cluster.
pub const NODES_MAX: usize = 10_000;

/// Bytes of a reason or of the name of a token or node.
pub const REASON_BYTES_MAX: usize = 500;

/// How long an idempotency key is known, at least.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Bytes of an idempotency key: a UUID has 36.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;

/// How long records are kept: a node that was away for longer begins anew, and trusts nothing that it has stored.
pub const RECORDS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Records that are kept, however young. A node reads 100,000 in some seconds, and SQLite holds them in tens of megabytes.
pub const RECORDS_KEPT_MAX: usize = 100_000;

/// How often it is looked whether there is something to trim.
pub(crate) const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// How long the audit log is kept.
pub const AUDIT_KEPT_DAYS: i64 = 400;

/// How long results of page tests are kept: long enough to see what a change of last quarter has done.
pub const PAGE_TESTS_KEPT_DAYS: i64 = 90;

/// Page tests that are kept: each is a cell, and whoever keeps a result reads all of them.
pub const PAGE_TESTS_MAX: usize = 200;

/// Bytes of a result: nine rounds of two ways and three views from eight places have half of it.
pub const PAGE_TEST_BYTES_MAX: usize = 64 << 10;

/// Bytes of all results of one test: what an answer is made from. With nine rounds of one edge each hour, 90 days have a tenth of it.
pub const PAGE_TEST_KEPT_BYTES_MAX: u64 = 32 << 20;

/// Bytes of all results of all tests: an eighth of what an etcd holds unless it is told otherwise.
pub const PAGE_TESTS_KEPT_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a page test's name, which is a part of cells' names.
pub const PAGE_TEST_NAME_BYTES_MAX: usize = 60;

/// Bytes of the URL of a page that is tested.
pub const PAGE_TEST_URL_BYTES_MAX: usize = 2_000;

/// Series of a result: `perigee measure` has three views of each of eight edges, and two of the origin, from two places.
pub const PAGE_TEST_SERIES_MAX: usize = 64;

/// Entries of the audit log in an answer, and purges in the list of the newest ones.
pub const LISTED_MAX: usize = 1_000;

/// A node that has not been heard of for so long is out of contact: it beats each second, and a garbage collection or a lost
/// packet costs it a few.
pub const OUT_OF_CONTACT: Duration = Duration::from_secs(30);

/// How long a node's certificate is good: an expired one is the only thing left of a node that somebody forgot to retire.
/// Nodes ask for a new one after two thirds of it.
pub const NODE_CERTIFICATE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long control's own certificate is good. It makes a new one each day, and where the clock was wrong when it was made.
pub(crate) const SERVER_CERTIFICATE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an enrolment token is good, unless told otherwise, and at most.
pub const ENROLMENT_TTL: Duration = Duration::from_secs(3600);
/// See [`ENROLMENT_TTL`].
pub const ENROLMENT_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long it is kept after its end, for who asks what has become of it.
pub const ENROLMENTS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Nodes that one enrolment token lets in at most.
pub const ENROLMENT_USES_MAX: u32 = 1_000;

/// How often the canary purge is sent: what shows that purges do arrive, before somebody needs one.
pub const CANARY_INTERVAL: Duration = Duration::from_secs(60);

/// A canary purge whose last receipt takes longer raises the alarm. Purges arrive in milliseconds; a node may pause for some.
pub const CANARY_LATE: Duration = Duration::from_secs(5);

/// The surrogate key that canary purges name, and nothing else has.
pub const CANARY_TAG: &str = "perigee-canary";

/// How often the cells that others may have changed are read: tokens, nodes, plan. So long a revoked token may still be taken by
/// another control.
pub(crate) const VIEW_INTERVAL: Duration = Duration::from_millis(500);

/// The limits of control for people: of what, how much, and the name under which reaching one is counted.
pub fn limits_in_words() -> Vec<(&'static str, String, Option<&'static str>)> {
    let days = |time: Duration| format!("{} days", time.as_secs() / 86_400);
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    let mebibytes = |bytes: usize| format!("{} MiB", bytes >> 20);
    vec![
        (
            "requests of a token per second, and twice that at once",
            REQUESTS_PER_TOKEN.to_string(),
            Some(Limit::RequestsPerToken.as_str()),
        ),
        (
            "the most that `--requests-per-second` of a token may say",
            REQUESTS_PER_TOKEN_MAX.to_string(),
            None,
        ),
        (
            "requests without a good token per second and address, and ten seconds' worth at once",
            REFUSALS_PER_ADDRESS.to_string(),
            Some(Limit::RefusalsPerAddress.as_str()),
        ),
        ("calls that wait to be written", PURGES_QUEUED_MAX.to_string(), Some(Limit::PurgesQueued.as_str())),
        ("connections of nodes at a time", CONNECTIONS_MAX.to_string(), Some(Limit::Connections.as_str())),
        (
            "connections of one node at a time",
            CONNECTIONS_PER_NODE_MAX.to_string(),
            Some(Limit::ConnectionsPerNode.as_str()),
        ),
        (
            "connections that have shown a good token; above, each is treated as one without",
            OPERATORS_MAX.to_string(),
            Some(Limit::Operators.as_str()),
        ),
        (
            "connections that have shown neither; above, the oldest is closed",
            STRANGERS_MAX.to_string(),
            Some(Limit::Strangers.as_str()),
        ),
        ("time for which a connection may show neither", seconds(STRANGER_TIME), None),
        (
            "connections that are none of nodes, from one address (IPv6: /64)",
            STRANGERS_PER_ADDRESS_MAX.to_string(),
            Some(Limit::StrangersPerAddress.as_str()),
        ),
        ("requests at a time on one HTTP/2 connection", STREAMS_MAX.to_string(), None),
        ("time for a handshake, and for a request's head", seconds(HANDSHAKE_TIMEOUT), None),
        ("body of a request", mebibytes(BODY_BYTES_MAX), None),
        ("time until it has come", seconds(BODY_TIMEOUT), None),
        (
            "bodies at a time of requests with a token",
            mebibytes(BODIES_BYTES_MAX),
            Some(Limit::Bodies.as_str()),
        ),
        (
            "bodies at a time of one connection's requests to join or renew",
            format!("{} KiB", JOIN_BYTES_MAX >> 10),
            Some(Limit::Bodies.as_str()),
        ),
        ("time until one of these has come", seconds(JOIN_TIMEOUT), None),
        ("a configuration", mebibytes(CONFIGURATION_BYTES_MAX), None),
        (
            "configurations whose texts are kept, beside those that have been stable",
            TEXTS_KEPT_MAX.to_string(),
            None,
        ),
        ("longest `wait` for receipts", seconds(WAIT_MAX), None),
        ("tokens that are alive", TOKENS_MAX.to_string(), None),
        ("nodes of a cluster", NODES_MAX.to_string(), None),
        ("bytes of a reason, or of the name of a token or node", REASON_BYTES_MAX.to_string(), None),
        ("bytes of an idempotency key", IDEMPOTENCY_KEY_BYTES_MAX.to_string(), None),
        (
            "time for which an idempotency key is known, at least",
            format!("{} h", IDEMPOTENCY_KEPT.as_secs() / 3600),
            None,
        ),
        ("age of records that are kept", days(RECORDS_KEPT), None),
        ("records that are kept", RECORDS_KEPT_MAX.to_string(), None),
        ("entries of the audit log, and purges, in an answer", LISTED_MAX.to_string(), None),
        ("age of the audit log", format!("{AUDIT_KEPT_DAYS} days"), None),
        ("page tests", PAGE_TESTS_MAX.to_string(), None),
        ("bytes of a page test's result", PAGE_TEST_BYTES_MAX.to_string(), None),
        ("series of a page test's result", PAGE_TEST_SERIES_MAX.to_string(), None),
        ("bytes of a page test's name", PAGE_TEST_NAME_BYTES_MAX.to_string(), None),
        ("bytes of the URL of a page test", PAGE_TEST_URL_BYTES_MAX.to_string(), None),
        (
            "results of a page test; above, its oldest days are forgotten, and what is of the day itself is refused",
            mebibytes(PAGE_TEST_KEPT_BYTES_MAX as usize),
            Some(Limit::PageTestsKept.as_str()),
        ),
        (
            "results of all page tests; above, the oldest days are forgotten, and what is of the day itself is refused",
            mebibytes(PAGE_TESTS_KEPT_BYTES_MAX as usize),
            Some(Limit::PageTestsKept.as_str()),
        ),
        ("age of results of page tests", format!("{PAGE_TESTS_KEPT_DAYS} days"), None),
        ("silence after which a node is out of contact", seconds(OUT_OF_CONTACT), None),
        ("life of a node's certificate", days(NODE_CERTIFICATE), None),
        ("life of an enrolment token, at most", days(ENROLMENT_TTL_MAX), None),
        ("nodes that one lets in, at most", ENROLMENT_USES_MAX.to_string(), None),
    ]
}
