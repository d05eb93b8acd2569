//! The memory tier: shards that keep one budget together.
//!
//! ```text
//! key ─► shard (low bits of the high half) ─► table cell (low half) ─► value
//! ```
//!
//! The budget is one number for all shards. An insertion first reserves its bytes; while they are not there, the entry
//! with the lowest rank of all shards goes. So the budget holds at every moment, and an object may take its room from
//! every shard: how large it may be does not depend on how many shards there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::eviction::{Clock, NOTHING};
use crate::shard::{Evicted, Shard, count};

/// Most shards of a tier.
const SHARDS_MAX: usize = 256;

/// Shards of a tier that does not say how many.
const SHARDS_DEFAULT: usize = 64;

/// A tier that does not say how many shards it wants has at most one per this many bytes.
const SHARD_BYTES_MIN: usize = 1 << 20;

/// Entries that one eviction may find hit and pass over before it takes the next candidate as it is.
const LOOKS_MAX: usize = 4096;

/// What a value weighs.
pub trait Weigh {
    /// Bytes that the value keeps allocated outside of `Self`: its heap, with the allocator's rounding where that is
    /// known. The tier asks once, on insertion; a value must not grow while it is stored.
    fn bytes(&self) -> usize;

    /// Told, under a lock, when an entry of a tier has taken it, and when it has it no longer: for whoever counts what is held
    /// beside the tier.
    fn note_kept(&self, _is_kept: bool) {}
}

impl<T: Weigh> Weigh for Arc<T> {
    /// The shared struct, its two counts, and its own heap.
    fn bytes(&self) -> usize {
        size_of::<T>() + 2 * size_of::<usize>() + T::bytes(self)
    }

    fn note_kept(&self, is_kept: bool) {
        T::note_kept(self, is_kept);
    }
}

/// Which entry leaves when the budget is full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// Greedy dual size frequency, lazily, on queues.
    Lgdsf {
        /// Weight of size, 0 to 1: 1 serves most requests, 0 most bytes. Out of range counts as the nearest in it.
        e: f64,
    },
    /// Least recently used. A hit takes the shard's write lock: for comparison.
    Lru,
    /// SIEVE.
    Sieve,
    /// S3-FIFO.
    S3Fifo,
}

impl Default for Policy {
    fn default() -> Self {
        Policy::Lgdsf { e: 1.0 }
    }
}

/// How a tier is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierConfig {
    /// Bytes for everything: values, tables, queues. Default 256 MiB. A part of about 6 KiB per shard is
    /// taken whatever is stored; a tier of less than that stores nothing. Not counted: while a shard's table
    /// is rebuilt, for some milliseconds, both of its tables exist.
    pub bytes_max: usize,
    /// Which entry leaves.
    pub policy: Policy,
    /// Number of shards: a power of two (else the next one) up to 256. Default (`None`): one per MiB, at most 64.
    pub shards: Option<usize>,
    /// Share of `bytes_max` that one object may take, 0 to 1. Default 0.02: 5 MiB of 256, 10 MiB of 512. Larger
    /// objects are refused: one of them costs the room of many that are asked for more often. Whatever the share, an
    /// object stays below 4 GiB.
    pub object_max_fraction: f64,
}

impl Default for TierConfig {
    fn default() -> Self {
        TierConfig {
            bytes_max: 256 << 20,
            policy: Policy::default(),
            shards: None,
            object_max_fraction: 0.02,
        }
    }
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Insertion {
    /// Stored under a key that held nothing.
    Inserted,
    /// Stored; the key's former value is gone.
    Replaced,
    /// Not stored. The key's former value, if any, is gone as well: it was to be replaced.
    Refused(Refusal),
}

/// Why a value was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Heavier than one object may be.
    TooLarge,
    /// Everything that could leave has left and the bytes are still not there: other insertions under way hold them.
    NoRoom,
}

/// What a tier holds and did. Counters since its creation; taken shard by shard, so that their sums may be off by
/// what happened meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Entries held.
    pub entries: u64,
    /// Bytes of the budget in use: values, entries, and the fixed part.
    pub bytes: u64,
    /// The budget.
    pub bytes_max: u64,
    /// Bytes really allocated for tables and queues; `bytes` counts an upper bound of them.
    pub index_bytes: u64,
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Values stored under a key that held nothing.
    pub insertions: u64,
    /// Values stored in place of another.
    pub replacements: u64,
    /// Entries that left for others.
    pub evictions: u64,
    /// Bytes that these took.
    pub evicted_bytes: u64,
    /// Entries that the caller removed.
    pub removals: u64,
    /// Insertions refused as [`Refusal::TooLarge`].
    pub refused_too_large: u64,
    /// Insertions refused as [`Refusal::NoRoom`].
    pub refused_no_room: u64,
    /// Insertions of what was evicted not long ago.
    pub ghost_hits: u64,
}

/// A map in memory with a budget; shared by reference between threads. See the module's text.
///
/// Keys must be uniform over all 128 bits and not to be chosen by outsiders (a keyed hash): shard, table and ghost use
/// their bits as they are.
pub struct Tier<V> {
    shards: Box<[Shard<V>]>,
    /// The rank of each shard's next candidate, side by side to be compared at a glance. Written on changes only.
    ranks: Box<[AtomicU64]>,
    config: TierConfig,
    eager: bool,
    bytes_max: AtomicUsize,
    /// Bytes in use and reserved. Never above `bytes_max`, but for the time that `resize` needs.
    bytes: AtomicUsize,
    clock: Clock,
}

impl<V: Weigh + Clone> Tier<V> {
    /// Bytes of the budget that an entry takes beside what its value weighs: its table cell, with the
    /// value itself, and what is remembered of evicted keys. An upper bound: 87 for a pointer; the average is a fifth lower.
    pub const ENTRY_BYTES: usize = Shard::<V>::ENTRY_BYTES;

    /// An empty tier.
    pub fn new(config: TierConfig) -> Self {
        let by_size = (config.bytes_max / SHARD_BYTES_MIN + 1).next_power_of_two() / 2;
        let shards = config.shards.unwrap_or(by_size.min(SHARDS_DEFAULT));
        let shards = shards.clamp(1, SHARDS_MAX).next_power_of_two();
        Tier {
            shards: (0..shards).map(|_| Shard::new(config.policy)).collect(),
            ranks: (0..shards).map(|_| AtomicU64::new(NOTHING)).collect(),
            eager: crate::eviction::new::<V>(config.policy).is_eager(),
            bytes_max: AtomicUsize::new(config.bytes_max),
            bytes: AtomicUsize::new(shards * Shard::<V>::FIXED_BYTES),
            clock: Clock::default(),
            config,
        }
    }

    /// The value of a key, and a hit for it. Cost: a shared lock of one shard, held for a table look-up and the
    /// clone; no allocation.
    pub fn lookup(&self, key: u128) -> Option<V> {
        let index = self.shard_of(key);
        let shard = &self.shards[index];
        let found = match self.eager {
            false => shard.read(key, true),
            true => shard.read_eagerly(key, &self.clock, &self.ranks[index]),
        };
        count(if found.is_some() { &shard.counts.hits } else { &shard.counts.misses });
        found
    }

    /// The value of a key, without counting: for inspection.
    pub fn peek(&self, key: u128) -> Option<V> {
        self.shards[self.shard_of(key)].read(key, false)
    }

    /// Stores a value in place of the key's former one. Evicts what is needed; drops outside any lock.
    pub fn insert(&self, key: u128, value: V) -> Insertion {
        self.insert_if(key, value, |_| true).unwrap_or(Insertion::Refused(Refusal::NoRoom))
    }

    /// Stores a value that was read from elsewhere, unless the key has one by now or `still` says that it no longer holds.
    /// Whoever makes it not hold and then calls [`Tier::remove`] can be sure that the key is empty: `still` runs under the
    /// shard's lock. It must be short and must not use the tier.
    pub fn restore(&self, key: u128, value: V, still: impl Fn() -> bool) -> bool {
        let inserted = self.insert_if(key, value, |is_empty| is_empty && still());
        matches!(inserted, Some(Insertion::Inserted | Insertion::Replaced))
    }

    /// `condition` is told whether the key is empty, under the shard's lock; `None` when it refused.
    fn insert_if(&self, key: u128, value: V, condition: impl Fn(bool) -> bool) -> Option<Insertion> {
        let index = self.shard_of(key);
        let shard = &self.shards[index];
        let bytes = value.bytes().saturating_add(Self::ENTRY_BYTES);
        let Some(bytes) = u32::try_from(bytes).ok().filter(|_| bytes <= self.object_bytes_max()) else {
            if condition(false) {
                drop(self.take(index, key, |_| true));
            }
            count(&shard.counts.refused_too_large);
            return Some(Insertion::Refused(Refusal::TooLarge));
        };
        let mut reserved = 0;
        loop {
            let mut entries = shard.write();
            let former = entries.find(key);
            let former_bytes = former.map_or(0, |id| entries.at(id).bytes as usize);
            let needed = (bytes as usize).saturating_sub(former_bytes);
            if reserved < needed && !self.reserve_at_once(needed - reserved) {
                drop(entries);
                if !self.reserve(needed - reserved) {
                    self.release(reserved);
                    if condition(false) {
                        drop(self.take(index, key, |_| true));
                    }
                    count(&shard.counts.refused_no_room);
                    return Some(Insertion::Refused(Refusal::NoRoom));
                }
                // The former value may have changed or left while the lock was open: look again. What is reserved
                // only grows and never beyond `bytes`, so this ends.
                reserved = needed;
                continue;
            }
            reserved = reserved.max(needed);
            if !condition(former.is_none()) {
                drop(entries);
                self.release(reserved);
                return None;
            }
            let old = match former {
                Some(id) => Some(entries.replace(id, value, bytes, &self.clock)),
                None => {
                    if entries.add(key, value, bytes, &self.clock) {
                        count(&shard.counts.ghost_hits);
                    }
                    None
                }
            };
            entries.publish(&self.ranks[index]);
            drop(entries);
            self.release(reserved + former_bytes - bytes as usize);
            return Some(match old {
                Some(old) => {
                    drop(old);
                    count(&shard.counts.replacements);
                    Insertion::Replaced
                }
                None => {
                    count(&shard.counts.insertions);
                    Insertion::Inserted
                }
            });
        }
    }

    /// Takes a value out.
    pub fn remove(&self, key: u128) -> Option<V> {
        self.remove_if(key, |_| true)
    }

    /// Takes a value out if it is still the one meant. `condition` runs under the shard's lock: it must be short and
    /// must not use the tier.
    pub fn remove_if(&self, key: u128, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        let index = self.shard_of(key);
        let taken = self.take(index, key, condition);
        if taken.is_some() {
            count(&self.shards[index].counts.removals);
        }
        taken
    }

    /// Takes everything out, shard by shard, and forgets what was evicted before. What is inserted meanwhile may stay.
    pub fn clear(&self) {
        for (shard, rank) in self.shards.iter().zip(&self.ranks) {
            let mut entries = shard.write();
            let drained = entries.drain(self.config.policy);
            entries.publish(rank);
            drop(entries);
            self.release(drained.iter().map(|slot| slot.bytes as usize).sum());
            shard.counts.removals.fetch_add(u64::from(drained.len()), Ordering::Relaxed);
        }
    }

    /// Changes the budget, and with it the weight that one object may have. Returns when what is held fits in it; the
    /// number of shards stays.
    pub fn resize(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        while self.bytes.load(Ordering::Relaxed) > bytes_max && self.evict() {}
    }

    /// Calls `look` for every entry, in no order, outside any lock. Entries that come or go meanwhile may be missed.
    /// Cost: clones one shard's values at a time. Counts no hits.
    pub fn for_each(&self, mut look: impl FnMut(u128, V)) {
        for shard in &self.shards {
            shard.copy().into_iter().for_each(|(key, value)| look(key, value));
        }
    }

    /// Most bytes that an object may take, [`Tier::ENTRY_BYTES`] included. The edge needs not collect a body that
    /// will be refused.
    pub fn object_bytes_max(&self) -> usize {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        (bytes_max as f64 * self.config.object_max_fraction.clamp(0.0, 1.0)) as usize
    }

    /// What the tier holds and did. Cost: a shared lock of each shard in turn.
    pub fn stats(&self) -> TierStats {
        let mut stats = TierStats {
            bytes: self.bytes.load(Ordering::Relaxed) as u64,
            bytes_max: self.bytes_max.load(Ordering::Relaxed) as u64,
            ..TierStats::default()
        };
        for shard in &self.shards {
            let (entries, index_bytes) = shard.size();
            stats.entries += entries;
            stats.index_bytes += index_bytes as u64;
            let counts = &shard.counts;
            for (sum, counter) in [
                (&mut stats.hits, &counts.hits),
                (&mut stats.misses, &counts.misses),
                (&mut stats.insertions, &counts.insertions),
                (&mut stats.replacements, &counts.replacements),
                (&mut stats.evictions, &counts.evictions),
                (&mut stats.evicted_bytes, &counts.evicted_bytes),
                (&mut stats.removals, &counts.removals),
                (&mut stats.refused_too_large, &counts.refused_too_large),
                (&mut stats.refused_no_room, &counts.refused_no_room),
                (&mut stats.ghost_hits, &counts.ghost_hits),
            ] {
                *sum += counter.load(Ordering::Relaxed);
            }
        }
        stats
    }

    // --- Budget ---

    /// Takes `bytes` of the budget, evicting until they are there. `false` when nothing is left to evict.
    fn reserve(&self, bytes: usize) -> bool {
        while !self.reserve_at_once(bytes) {
            if !self.evict() {
                return self.reserve_at_once(bytes);
            }
        }
        true
    }

    fn reserve_at_once(&self, bytes: usize) -> bool {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= bytes_max)
            })
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Evicts the entry with the lowest rank. `false` when there is none.
    fn evict(&self) -> bool {
        let mut looked = 0;
        loop {
            let Some((lowest, next)) = self.lowest_ranks() else { return false };
            let shard = &self.shards[lowest];
            match shard.evict(&self.clock, &self.ranks[lowest], next, looked >= LOOKS_MAX) {
                Evicted::Gone(slot) => {
                    self.release(slot.bytes as usize);
                    count(&shard.counts.evictions);
                    shard.counts.evicted_bytes.fetch_add(u64::from(slot.bytes), Ordering::Relaxed);
                    return true;
                }
                Evicted::Nobody { looks } => looked += looks,
                Evicted::Empty => {}
            }
        }
    }

    /// The shard with the lowest rank, and the lowest rank of the others.
    fn lowest_ranks(&self) -> Option<(usize, u64)> {
        let (mut lowest, mut rank, mut next) = (0, NOTHING, NOTHING);
        for (index, other) in self.ranks.iter().enumerate() {
            let other = other.load(Ordering::Relaxed);
            if other < rank {
                (lowest, next, rank) = (index, rank, other);
            } else {
                next = next.min(other);
            }
        }
        (rank != NOTHING).then_some((lowest, next))
    }

    // --- Shards ---

    fn shard_of(&self, key: u128) -> usize {
        (key >> 64) as usize & (self.shards.len() - 1)
    }

    fn take(&self, index: usize, key: u128, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        let mut entries = self.shards[index].write();
        let id = entries.find(key).filter(|id| condition(&entries.at(*id).value))?;
        let slot = entries.remove(id);
        entries.publish(&self.ranks[index]);
        drop(entries);
        self.release(slot.bytes as usize);
        Some(slot.value)
    }
}

#[cfg(test)]
mod tests;
