//! Every metric family, declared once: name, kind, unit, prose and labels. The exposition and the reference are made
//! from this table; a family that is not here cannot be rendered.

/// One metric family.
#[derive(Debug)]
pub struct Family {
    /// The full name: `perigee_<noun>_<unit>[_total]`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The unit of the value, in words.
    pub unit: &'static str,
    /// The names of its labels, in the order of the values given to each sample.
    pub labels: &'static [&'static str],
    /// A sentence for people: what is counted.
    pub help: &'static str,
}

/// The kinds of the text format that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never goes back while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets with `le`, a sum and a count.
    Histogram,
}

impl Kind {
    /// The word after `# TYPE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] in $unit:literal: $help:literal;)*) => {
        $(#[doc = $help] pub static $id: Family = Family {
            name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help,
        };)*

        /// All families, in the order in which they are rendered.
        pub static FAMILIES: &[&Family] = &[$(&$id),*];
    };
}

families! {
    BUILD_INFO = Gauge "perigee_build_info" ["version", "commit"] in "1":
        "Which build runs; the value is always 1.";
    REQUESTS = Counter "perigee_requests_total" ["site", "outcome", "why"] in "requests":
        "Finished requests by outcome and reason.";
    RESPONSES = Counter "perigee_responses_total" ["site", "class"] in "responses":
        "Finished requests by class of the status sent; none means that the client got no response.";
    SENT_BODY_BYTES = Counter "perigee_sent_body_bytes_total" ["site", "outcome"] in "bytes":
        "Bytes of response bodies sent to clients, with framing.";
    SENT_HEAD_BYTES = Counter "perigee_sent_head_bytes_total" ["site"] in "bytes":
        "Bytes of response heads sent to clients.";
    RECEIVED_BYTES = Counter "perigee_received_bytes_total" ["site"] in "bytes":
        "Bytes of requests received from clients, heads and bodies.";
    COLLAPSED = Counter "perigee_collapsed_requests_total" ["site"] in "requests":
        "Requests that joined a fill which another request had started.";
    STORED = Counter "perigee_stored_responses_total" ["site"] in "responses":
        "Origin responses that were stored.";
    PERSONAL_HITS = Counter "perigee_personal_hits_total" ["site"] in "requests":
        "Hits of stored responses that set a cookie or were fetched by a request with Authorization.";
    ENCODED_RESPONSES = Counter "perigee_encoded_responses_total" ["site", "coding"] in "responses":
        "Responses sent as an encoded copy that the edge had made.";
    SAVED_BODY_BYTES = Counter "perigee_saved_body_bytes_total" ["site"] in "bytes":
        "Bytes of response bodies that were not sent because an encoded copy is shorter.";
    DURATION = Histogram "perigee_request_duration_seconds" ["site", "outcome"] in "seconds":
        "Time from the complete request head to the last byte sent.";
    FIRST_BYTE = Histogram "perigee_request_first_byte_seconds" ["site", "outcome"] in "seconds":
        "Time from the complete request head to the first byte sent; requests without a response are not in it.";
    CONNECTIONS_ACCEPTED = Counter "perigee_connections_accepted_total" [] in "connections":
        "Client connections accepted.";
    CONNECTIONS_OPEN = Gauge "perigee_connections_open" [] in "connections":
        "Client connections open now, idle ones included.";
    LIMITS = Counter "perigee_limits_reached_total" ["limit"] in "events":
        "Times that a limit was reached and something was refused, closed or cut because of it.";
    HANDSHAKES = Counter "perigee_tls_handshakes_total" ["result"] in "handshakes":
        "TLS handshakes with clients by how they ended: done (with or without a session resumed, by version; or over QUIC), or why not.";
    HOP_REQUESTS = Counter "perigee_tier_requests_total" ["hop", "end"] in "requests":
        "Requests to other edges, as owners of a key in the PoP (peer) or before the origin (shield), by what came of them: answered; passed over as it was gone, behind a purge or had no answer of its own (refused); the origin had none (failed); the body broke off and was gone on with (broken).";
    HOP_ANSWERS = Counter "perigee_tier_answers_total" ["hop", "outcome"] in "requests":
        "Requests of other edges, in whose place this one was asked, by outcome. They are counted nowhere else: their visitors are those of the edges that ask.";
    QUIC_DROPPED = Counter "perigee_quic_packets_dropped_total" ["queue"] in "packets":
        "Packets of HTTP/3 that there was no room for on their way in: in the system's socket buffers, between workers, between the processes of an upgrade.";
    CERTIFICATE_ENDS = Gauge "perigee_certificate_not_after_timestamp_seconds" ["name"] in "seconds":
        "When the certificate that is shown for a name ends, in seconds since the Unix epoch; the 1,024 names whose end is nearest.";
    CERTIFICATE_ORDERS = Counter "perigee_certificate_orders_total" ["result"] in "orders":
        "Orders of certificates by what came of them.";
    OCSP_FETCHES = Counter "perigee_ocsp_fetches_total" ["result"] in "fetches":
        "Attempts to fetch an OCSP response for a certificate, by what came of them.";
    ORIGIN_RESPONSES = Counter "perigee_origin_responses_total" ["origin", "class"] in "responses":
        "Responses from origins by class of their status.";
    ORIGIN_FAILURES = Counter "perigee_origin_failures_total" ["origin", "failure"] in "attempts":
        "Attempts at origins that gave no useful response, by kind of failure.";
    ORIGIN_RETRIES = Counter "perigee_origin_retries_total" ["origin"] in "attempts":
        "Attempts at origins that were not the first of their request.";
    ORIGIN_CONNECTIONS_OPENED = Counter "perigee_origin_connections_opened_total" ["origin"] in "connections":
        "Attempts for which a new connection to the origin was made.";
    ORIGIN_CONNECTIONS_REUSED = Counter "perigee_origin_connections_reused_total" ["origin"] in "attempts":
        "Attempts that were carried by a connection from the pool.";
    ORIGIN_SENT_BYTES = Counter "perigee_origin_sent_bytes_total" ["origin"] in "bytes":
        "Bytes sent to origins.";
    ORIGIN_RECEIVED_BYTES = Counter "perigee_origin_received_bytes_total" ["origin"] in "bytes":
        "Bytes received from origins.";
    ORIGIN_CONNECT = Histogram "perigee_origin_connect_seconds" ["origin"] in "seconds":
        "Time to make a connection to an origin, name resolution and TLS included.";
    ORIGIN_FIRST_BYTE = Histogram "perigee_origin_first_byte_seconds" ["origin"] in "seconds":
        "Time from sending a request to an origin to the first byte of its answer.";
    ORIGIN_HEALTHY = Gauge "perigee_origin_healthy" ["origin"] in "bool":
        "Whether the origin passes its health checks: 1 or 0.";
    ORIGIN_BREAKER = Gauge "perigee_origin_breaker_state" ["origin"] in "state":
        "The origin's breaker: 0 closed, 1 half open, 2 open.";
    ORIGIN_CONNECTIONS = Gauge "perigee_origin_connections" ["origin", "state"] in "connections":
        "Connections to the origin now, busy or idle.";
    ORIGIN_BUDGET = Gauge "perigee_origin_budget" ["site", "origin", "of"] in "requests":
        "What a site may ask of an origin, by all nodes together: requests_per_second, and in_flight.";
    ORIGIN_BUDGET_ALLOWED = Gauge "perigee_origin_budget_allowed" ["site", "origin", "of"] in "requests":
        "What of that this edge may ask now: all of it, or on a node of a cluster its floor and what control has granted.";
    ORIGIN_BUDGET_USED = Gauge "perigee_origin_budget_used" ["site", "origin", "of"] in "requests":
        "What this edge asks: requests of the last second, and requests in flight.";
    ORIGIN_BUDGET_WAITING = Gauge "perigee_origin_budget_waiting" ["site", "origin"] in "requests":
        "Requests that wait for their turn at an origin whose budget is used up.";
    ORIGIN_BUDGET_REFUSED = Counter "perigee_origin_budget_refused_total" ["site", "origin"] in "requests":
        "Requests that had no turn in time at an origin whose budget is used up.";
    ORIGIN_BUDGET_ENDED = Counter "perigee_origin_budget_ended_total" ["site", "origin"] in "requests":
        "Requests to an origin that were ended because less was allowed than was in flight, for longer than the grace.";
    STORE_BYTES = Gauge "perigee_store_bytes" ["tier"] in "bytes":
        "Bytes charged to the tier's budget: bodies, heads and index.";
    STORE_BYTES_MAX = Gauge "perigee_store_max_bytes" ["tier"] in "bytes":
        "The tier's budget.";
    STORE_OBJECTS = Gauge "perigee_store_objects" ["tier"] in "objects":
        "Objects held.";
    STORE_LOOKUPS = Counter "perigee_store_lookups_total" ["tier", "result"] in "lookups":
        "Lookups that found or did not find an object, whatever became of it.";
    STORE_INSERTED = Counter "perigee_store_inserted_objects_total" ["tier"] in "objects":
        "Objects taken in.";
    STORE_REFUSED = Counter "perigee_store_refused_objects_total" ["tier"] in "objects":
        "Objects that the tier refused to take.";
    STORE_EVICTED = Counter "perigee_store_evicted_objects_total" ["tier"] in "objects":
        "Objects evicted to make room.";
    STORE_REMOVED = Counter "perigee_store_removed_objects_total" ["tier"] in "objects":
        "Objects removed or replaced by name.";
    DISK_HEALTH = Gauge "perigee_disk_health_state" ["disk"] in "state":
        "How the disk fares: 0 well, 1 full, 2 failed and out of use until the next start.";
    DISK_WRITTEN = Counter "perigee_disk_written_bytes_total" ["disk", "kind"] in "bytes":
        "Bytes written to the disk: for fills, for rewriting what is in use, and beside these (padding, footers, index).";
    DISK_PAYLOAD = Counter "perigee_disk_payload_bytes_total" ["disk"] in "bytes":
        "Bytes of bodies and heads in the fills; written bytes divided by these is the write amplification.";
    DISK_READ = Counter "perigee_disk_read_bytes_total" ["disk"] in "bytes":
        "Bytes read from the disk to answer visitors.";
    DISK_REFUSED = Counter "perigee_disk_refused_objects_total" ["disk", "reason"] in "objects":
        "Objects and slices that were not written: asked for once while the write budget is low, over the budget, the queue full, or a failed write.";
    DISK_REWRITTEN = Counter "perigee_disk_rewritten_objects_total" ["disk"] in "objects":
        "Objects and slices copied forward because they were in use when their segment was evicted.";
    DISK_DAMAGED = Counter "perigee_disk_damaged_records_total" ["disk"] in "records":
        "Records that were not what was written; each was a miss.";
    DISK_ERRORS = Counter "perigee_disk_errors_total" ["disk", "operation"] in "errors":
        "Reads and writes that failed.";
    DISK_QUEUED = Gauge "perigee_disk_queued_bytes" ["disk"] in "bytes":
        "Bytes that wait to be written.";
    DISK_READING = Gauge "perigee_disk_reads_in_flight" ["disk"] in "reads":
        "Reads under way.";
    DISK_OLDEST = Gauge "perigee_disk_oldest_segment_seconds" ["disk"] in "seconds":
        "Age of the segment that is evicted next, since the start; 0 until the disk was filled once.";
    DISK_INDEX = Gauge "perigee_disk_index_bytes" ["disk"] in "bytes":
        "Memory that the disk's index takes.";
    COPIES = Counter "perigee_copies_made_total" ["coding", "effort"] in "copies":
        "Encoded copies made, quickly or thoroughly.";
    COPIES_READ = Counter "perigee_copies_read_bytes_total" ["coding", "effort"] in "bytes":
        "Bytes of the bodies that the copies were made of.";
    COPIES_WRITTEN = Counter "perigee_copies_written_bytes_total" ["coding", "effort"] in "bytes":
        "Bytes of the copies.";
    COPIES_CPU = Counter "perigee_copies_cpu_seconds_total" ["coding", "effort"] in "seconds":
        "Processor time that making them took, on threads of low priority.";
    COPIES_NOT_MADE = Counter "perigee_copies_not_made_total" ["reason"] in "copies":
        "Copies that were asked for and not made: a queue was full, the copy was hardly smaller, or its coder failed.";
    REWRITES = Counter "perigee_rewrites_total" ["outcome"] in "responses":
        "Pages and style sheets that a rule has rewritten: whole; failed-open, when a limit let the rest pass as it was; left, because they were encoded or forbade it.";
    VIEWS = Counter "perigee_page_views_told_total" ["outcome"] in "page views":
        "Page views that browsers have told of (rum): counted; impossible, when it could not be read or a time cannot be; forged, when its token was not ours, too old or used before; too-many, of one network or in all.";
    FILLS = Gauge "perigee_fills_in_flight" [] in "fills":
        "Fetches being written into the cache now.";
    IN_FLIGHT = Gauge "perigee_store_in_flight_bytes" [] in "bytes":
        "Memory of bodies on their way, beside what the memory tier holds: being fetched, read from disk, written to it or sent.";
    IN_FLIGHT_MAX = Gauge "perigee_store_in_flight_max_bytes" [] in "bytes":
        "The bound of that: in_flight of [store].";
    PURGES = Counter "perigee_purges_total" ["scope", "form"] in "purges":
        "Purges in force, by what they name and what they do.";
    PURGES_WIDENED = Counter "perigee_purges_widened_total" [] in "purges":
        "Purges that dropped more than they name, because the configuration does not know the site or the host, or the URL is none.";
    DISTRUSTS = Counter "perigee_distrusts_total" [] in "times":
        "Times that all that was stored had to be validated before it was served again, because purges may have been missed.";
    PURGE_POSITION = Gauge "perigee_purge_position" [] in "position":
        "The last purge position in force on all workers.";
    PURGES_REMEMBERED = Gauge "perigee_purges_remembered" [] in "purges":
        "Purges that the purge clock remembers one by one.";
    JOURNAL_POSITION = Gauge "perigee_journal_position" [] in "position":
        "Up to where a node of a cluster has put the journal in force.";
    JOURNAL_HEAD = Gauge "perigee_journal_head" [] in "position":
        "The newest position of the journal that a node of a cluster knows of.";
    CONTROL_CONNECTED = Gauge "perigee_control_connected" [] in "bool":
        "Whether a node of a cluster is connected with a control or relay now: 1 or 0.";
    CONTROL_HEARD = Gauge "perigee_control_last_heard_seconds" [] in "seconds":
        "For how long a node of a cluster has not been told that all purges of the cluster are in force here; sites with max_purge_lag are validated above that.";
    RELOADS = Counter "perigee_config_reloads_total" ["result"] in "reloads":
        "Configurations that were taken or refused, the first one at start included.";
    CONFIG_LOADED = Gauge "perigee_config_loaded_timestamp_seconds" [] in "seconds":
        "When the running configuration was taken, in seconds since the Unix epoch.";
    WORKERS = Gauge "perigee_workers" [] in "workers":
        "Workers that answer requests.";
    REPORTS_LOST = Counter "perigee_statistics_lost_total" [] in "reports":
        "Statistics of a second that were dropped, because nobody took them in time.";
    LOG_LINES = Counter "perigee_log_lines_total" [] in "lines":
        "Access log lines made, dropped ones included.";
    LOG_LINES_DROPPED = Counter "perigee_log_lines_dropped_total" ["reason"] in "lines":
        "Access log lines that never reached the log: because the queue to the log thread was full, or because writing failed.";
    LOG_WRITE_ERRORS = Counter "perigee_log_write_errors_total" [] in "errors":
        "Failed writes to the access log.";
    LOG_REOPENS = Counter "perigee_log_reopens_total" [] in "reopens":
        "Times that the access log was reopened.";
    SPANS = Counter "perigee_spans_total" ["end"] in "spans":
        "Spans of traces: sent to the collector, refused by it (or tried in vain), or dropped because the queue was full.";
}
