//! Which entry goes next: the trait and its four policies. Every call happens under the shard's write lock.
//!
//! All but LRU learn of hits only from the counter in the entry, when they look at it. Each policy puts a rank on the
//! entry that it would consider next; the tier takes the entry of the shard with the lowest rank, so that the shards
//! together behave like one queue and a large object may take its room from all of them.

mod lgdsf;
mod lru;
mod s3fifo;
mod sieve;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::slots::{Moves, Slots};
use crate::tier::Policy;

/// The rank of a shard that has nothing to evict.
pub(crate) const NOTHING: u64 = u64::MAX;

/// What all shards of a tier count together: for LGDSF the priority of the last evicted entry (as the bits of a
/// non-negative `f64`, which sort like the number), for the others the number of insertions.
#[derive(Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn raise(&self, to: u64) {
        self.0.fetch_max(to, Ordering::Relaxed);
    }
}

/// One look of the evictor.
pub(crate) enum Step {
    /// This entry goes; it is in no list any more.
    Evict(u32),
    /// An entry was looked at and stays.
    Keep,
    /// There are no entries.
    Nothing,
}

/// An eviction policy over the entries of one shard.
pub(crate) trait Eviction<V>: Send + Sync {
    /// Takes a new entry in. Returns whether it was evicted not long ago.
    fn admit(&mut self, slots: &mut Slots<V>, id: u32, clock: &Clock) -> bool;

    /// Whether hits must be reported with `touch`, under the write lock.
    fn is_eager(&self) -> bool {
        false
    }

    /// Takes note of a hit.
    fn touch(&mut self, _slots: &mut Slots<V>, _id: u32, _clock: &Clock) {}

    /// Takes note that an entry's value was replaced and its weight was `bytes_before`.
    fn replace(&mut self, slots: &mut Slots<V>, id: u32, bytes_before: u32, clock: &Clock);

    /// Looks at the next candidate. With `force` it goes even if it has hits.
    fn step(&mut self, slots: &mut Slots<V>, clock: &Clock, force: bool) -> Step;

    /// Takes out an entry that leaves for other reasons.
    fn unlink(&mut self, slots: &mut Slots<V>, id: u32);

    /// Takes note that the entry `from` is now `to`.
    fn mend(&mut self, slots: &mut Slots<V>, from: u32, to: u32);

    /// Takes note that the table was rebuilt.
    fn follow(&mut self, moves: &Moves);

    /// The rank of the entry that `step` would look at; [`NOTHING`] without entries.
    fn rank(&self, slots: &Slots<V>) -> u64;

    /// Bytes allocated beside the entries.
    fn allocated_bytes(&self) -> usize;
}

/// Most bytes that a policy allocates per shard, and per entry.
pub(crate) const FIXED_BYTES: usize = 4096;
pub(crate) const ENTRY_BYTES: usize = 12;

/// An empty policy of the kind asked for.
pub(crate) fn new<V>(policy: Policy) -> Box<dyn Eviction<V>> {
    match policy {
        Policy::Lgdsf { e } => Box::new(lgdsf::Lgdsf::new(e)),
        Policy::Lru => Box::new(lru::Lru::new()),
        Policy::Sieve => Box::new(sieve::Sieve::new()),
        Policy::S3Fifo => Box::new(s3fifo::S3Fifo::new()),
    }
}
