//! Typed events in; metrics and access log out. The edge hands over what happened, this crate alone decides what
//! becomes a counter and what becomes a log line.
//!
//! ```text
//!   worker ── Observer::emit(&Event) ──► its own counters ◄── Registry::render() ── GET /metrics
//!                     │
//!                     ├─► its own 64 KiB buffer ──(full, or 1 s old)──► bounded queue ──► log thread ──► file | stdout | …
//!                     └─► its own tally ──(the second is over)──► Registry::take_reports() ──► whoever keeps statistics
//! ```
//!
//! A worker writes only memory that it owns: each counter has one writer, so it is a relaxed load and a relaxed
//! store, and a line is formatted into the worker's own buffer. Nothing here waits: when the queue to the log thread is
//! full, lines are dropped and counted. Label values come from closed enums and from the configuration, never from a
//! request, and the number of sites and origins with series of their own is bounded.
//!
//! Spans of traces that are sampled go the same way, through a queue of their own ([`Traces`]).
//!
//! Not here: error messages for people (the binary prints them), and whatever takes TLS: what goes over HTTP is given as a writer
//! ([`AccessLog::start_to`], [`Traces::start`]).

pub mod catalogue;
mod cells;
mod escape;
mod event;
mod exposition;
mod histogram;
mod line;
mod log;
mod observer;
mod readings;
mod registry;
mod render;
mod syslog;
mod tally;
mod traces;

pub use event::{
    ConnectionUse, Event, Fetch, FetchEnd, FetchEvent, Handshake, Hop, HopEnd, Limit, OriginFailure,
    PurgeForm, PurgeScope, Slot,
};
pub use log::{AccessLog, Format, LogOptions, Sink};
pub use observer::Observer;
pub use readings::{
    BreakerReading, BudgetReading, CertificateReading, CopiesReading, DiskReading, OriginReading, Readings,
    TierReading,
};
pub use registry::{
    BuildInfo, CERTIFICATES_MAX, FIRST_BYTE_BUCKETS, ORIGINS_MAX, Registry, SITES_MAX, Totals,
};
pub use syslog::SyslogTo;
pub use traces::{SPANS_QUEUED_MAX, Traces};
