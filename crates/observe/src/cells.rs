//! The counters of one worker. Each has a single writer, the worker's [`crate::Observer`], and is read by
//! [`crate::Registry::render`] from another thread.
//!
//! A sum of several counters read while a worker runs may be one request apart; each counter by itself never goes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use semantics::coding::Coding;
use semantics::{Outcome, Why};

use crate::event::{Handshake, Hop, HopEnd, Limit, OriginFailure};
use crate::histogram::Histogram;

/// A counter with one writing thread: no read-modify-write instruction, so no locked bus cycle.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the owning worker may call this: a second writer would lose counts.
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An array of counters, one per value of a closed enum.
#[derive(Debug)]
pub(crate) struct Row<const N: usize>(pub(crate) [Counter; N]);

impl<const N: usize> Default for Row<N> {
    fn default() -> Self {
        Row(std::array::from_fn(|_| Counter::default()))
    }
}

pub(crate) const WHYS: usize = Why::ALL.len();
pub(crate) const OUTCOMES: usize = Outcome::ALL.len();
/// No response, then 1xx to 5xx.
pub(crate) const CLASSES: usize = 6;
pub(crate) const CLASS_NAMES: [&str; CLASSES] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The index into [`CLASS_NAMES`] of a status; anything outside of 100 to 599 counts as none.
pub(crate) fn class_of(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => class as usize,
        _ => 0,
    }
}

/// One worker's counters of one site. Aligned so that two workers' counters never share a pair of cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct SiteCells {
    pub(crate) whys: Row<WHYS>,
    pub(crate) classes: Row<CLASSES>,
    pub(crate) body_bytes_sent: Row<OUTCOMES>,
    pub(crate) head_bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) collapsed: Counter,
    pub(crate) stored: Counter,
    pub(crate) personal: Counter,
    pub(crate) encoded: Row<{ Coding::ALL.len() }>,
    pub(crate) body_bytes_saved: Counter,
    pub(crate) durations: [Histogram; OUTCOMES],
    pub(crate) first_bytes: [Histogram; OUTCOMES],
}

/// One worker's counters of one origin.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct OriginCells {
    pub(crate) classes: Row<CLASSES>,
    pub(crate) failures: Row<{ OriginFailure::ALL.len() }>,
    pub(crate) retries: Counter,
    pub(crate) connections_opened: Counter,
    pub(crate) connections_reused: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) connects: Histogram,
    pub(crate) first_bytes: Histogram,
}

/// Cells by slot; a slot that this worker never met has none.
pub(crate) type BySlot<T> = Vec<Option<Arc<T>>>;

/// All counters of one worker. The two lists grow when the worker first meets a slot; the locks are held for that and
/// while a render copies the list, never to count.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCells {
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_closed: Counter,
    pub(crate) limits: Row<{ Limit::ALL.len() }>,
    pub(crate) handshakes: Row<{ Handshake::ALL.len() }>,
    /// What came of asking other edges, by [`Hop`].
    pub(crate) hops: [Row<{ HopEnd::ALL.len() }>; Hop::ALL.len()],
    /// What other edges were answered, by [`Hop`].
    pub(crate) asked: [Row<OUTCOMES>; Hop::ALL.len()],
    pub(crate) log_lines: Counter,
    pub(crate) log_lines_dropped: Counter,
    pub(crate) sites: Mutex<BySlot<SiteCells>>,
    /// Of probes ([`crate::Event::is_probe`]), which are of no site and no visitor's.
    pub(crate) probes: OnceLock<Arc<SiteCells>>,
    pub(crate) origins: Mutex<BySlot<OriginCells>>,
}
