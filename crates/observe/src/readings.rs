//! Values that are read when metrics are rendered, because somebody else keeps them: the store's tiers, the origins'
//! health, the purge clock. Plain numbers, so that this crate knows neither store nor edge.

use semantics::Wall;
use semantics::coding::Coding;

use crate::event::Slot;

/// What the edge knows at the moment of a render. Handed in by the callback of [`crate::Registry::read_from`].
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// The store's tiers; at most a handful.
    pub tiers: Vec<TierReading>,
    /// Encoded copies: one for each form.
    pub copies: Vec<CopiesReading>,
    /// Copies asked for and not made: queue full, hardly smaller, coder failed.
    pub copies_not_made: [u64; 3],
    /// Pages and style sheets rewritten whole, in part, and not at all although a rule says so.
    pub rewrites: [u64; 3],
    /// Page views that browsers have told of: counted, refused as unreadable or impossible, as forged, late or told before, and as too
    /// many of one network or in all.
    pub views: [u64; 4],
    /// The disks; a handful.
    pub disks: Vec<DiskReading>,
    /// The origins of the running snapshot.
    pub origins: Vec<OriginReading>,
    /// The budgets of origins, of the running snapshot.
    pub budgets: Vec<BudgetReading>,
    /// When the certificates in force end, by name: at most [`crate::CERTIFICATES_MAX`].
    pub certificates: Vec<CertificateReading>,
    /// Packets of QUIC that there was no room for on their way in: in the system's buffers, between workers, between processes.
    pub quic_dropped: [u64; 3],
    /// The last purge position in force on all workers.
    pub purge_position: u64,
    /// For how long the edge has not been told that it knows of all purges; `None` where nobody tells it.
    pub silence_ms: Option<u64>,
    /// Purges that the clock remembers one by one.
    pub purges_remembered: u64,
    /// Fills in flight.
    pub fills_in_flight: u64,
    /// Bytes of bodies in flight beside the memory tier, and the bound.
    pub bodies_in_flight: (u64, u64),
    /// Workers that answer requests.
    pub workers: u64,
}

/// The budget of one site at one origin. Pairs are requests per second, and requests in flight.
#[derive(Clone, Debug)]
pub struct BudgetReading {
    /// The site.
    pub site: String,
    /// The origin's URL.
    pub origin: String,
    /// What all nodes together may use.
    pub total: [u64; 2],
    /// What this edge may use now.
    pub allowed: [u64; 2],
    /// What it uses.
    pub used: [u64; 2],
    /// Requests that wait for their turn.
    pub waiting: u64,
    /// Requests that had none in time; total since the budget was configured.
    pub refused: u64,
    /// Answers that were ended because less was allowed for too long; total likewise.
    pub ended: u64,
}

/// The certificate of one name.
#[derive(Clone, Debug)]
pub struct CertificateReading {
    /// The name, as the certificate has it.
    pub name: String,
    /// Its end.
    pub not_after: Wall,
}

/// One tier of the store. All but the bytes and objects held are totals since start.
#[derive(Clone, Debug, Default)]
pub struct TierReading {
    /// Which tier: `memory`, or `disk` for all disks together.
    pub tier: &'static str,
    /// Bytes charged to the budget: bodies, heads and index.
    pub bytes: u64,
    /// The budget in bytes.
    pub bytes_max: u64,
    /// Objects held.
    pub objects: u64,
    /// Lookups that found something.
    pub found: u64,
    /// Lookups that found nothing.
    pub absent: u64,
    /// Objects taken in.
    pub inserted: u64,
    /// Objects refused, as too large or over the budget.
    pub refused: u64,
    /// Objects evicted to make room.
    pub evicted: u64,
    /// Objects removed or replaced by name.
    pub removed: u64,
}

/// Encoded copies of one form. Totals since start.
#[derive(Clone, Copy, Debug)]
pub struct CopiesReading {
    /// Their coding, as in Content-Encoding.
    pub coding: Coding,
    /// Whether they were made as small as they get.
    pub is_thorough: bool,
    /// Copies made.
    pub made: u64,
    /// Bytes of the bodies that they were made of.
    pub bytes_in: u64,
    /// Their own bytes.
    pub bytes_out: u64,
    /// Processor time, in µs.
    pub cpu_us: u64,
}

/// One disk. Totals since start, but for what is said to be now.
#[derive(Clone, Debug, Default)]
pub struct DiskReading {
    /// Its directory.
    pub disk: String,
    /// Now: 0 well, 1 full, 2 failed.
    pub health: u64,
    /// Bytes written for fills, for rewriting, and beside these.
    pub written_bytes: [u64; 3],
    /// Bytes of bodies and heads in the fills.
    pub payload_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Objects not written: first sight, over budget, queue full, write failed.
    pub refused: [u64; 4],
    /// Objects copied forward.
    pub rewritten: u64,
    /// Records that were not what was written.
    pub damaged: u64,
    /// Failed reads and writes.
    pub errors: [u64; 2],
    /// Bytes waiting to be written now.
    pub queued_bytes: u64,
    /// Reads under way now.
    pub reading: u64,
    /// Age of the oldest segment now.
    pub oldest_segment_secs: u64,
    /// Memory of the index now.
    pub index_bytes: u64,
}

/// One origin's state.
#[derive(Clone, Copy, Debug)]
pub struct OriginReading {
    /// Which origin.
    pub origin: Slot,
    /// Whether it is asked at all: passing its health checks.
    pub healthy: bool,
    /// Its breaker.
    pub breaker: BreakerReading,
    /// Connections open now, idle ones included.
    pub connections: u64,
    /// Connections idle in the pools.
    pub idle_connections: u64,
}

/// A breaker's state. The metric's value is the position in this list: 0, 1, 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerReading {
    /// Requests pass.
    Closed,
    /// A few requests pass, to see whether the origin is back.
    HalfOpen,
    /// No request passes.
    Open,
}
