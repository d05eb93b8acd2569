//! One shard: the table of entries and their eviction queues behind one lock, and counters beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{RwLock, RwLockWriteGuard};

use crate::eviction::{self, Clock, Eviction, Step};
use crate::slots::{Slot, Slots};
use crate::tier::{Policy, Weigh};

/// Looks of the evictor under one hold of the lock.
const LOOKS_PER_HOLD: usize = 32;

/// A shard lies in cache lines of its own: a hit writes the lock word and a counter, both here.
#[repr(align(128))]
pub(crate) struct Shard<V> {
    entries: RwLock<Entries<V>>,
    pub(crate) counts: Counts,
}

/// Events of one shard. Relaxed: for display, not for decisions.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) insertions: AtomicU64,
    pub(crate) replacements: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) removals: AtomicU64,
    pub(crate) refused_too_large: AtomicU64,
    pub(crate) refused_no_room: AtomicU64,
    pub(crate) ghost_hits: AtomicU64,
    pub(crate) evicted_bytes: AtomicU64,
}

/// Adds one to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is under the lock.
pub(crate) struct Entries<V> {
    slots: Slots<V>,
    eviction: Box<dyn Eviction<V>>,
}

/// Result of [`Shard::evict`].
pub(crate) enum Evicted<V> {
    /// The entry is out; what it took of the budget is `slot.bytes`.
    Gone(Slot<V>),
    /// Entries were looked at and stay; another shard may be next.
    Nobody {
        /// How many were looked at.
        looks: usize,
    },
    /// The shard is empty.
    Empty,
}

impl<V: Weigh> Shard<V> {
    /// Most bytes that the table and the policy take per entry.
    pub(crate) const ENTRY_BYTES: usize = Slots::<V>::ENTRY_BYTES + eviction::ENTRY_BYTES;

    /// Most bytes that a shard takes whatever it holds.
    pub(crate) const FIXED_BYTES: usize =
        size_of::<Shard<V>>() + Slots::<V>::SLACK_BYTES + eviction::FIXED_BYTES;

    pub(crate) fn new(policy: Policy) -> Self {
        Shard {
            entries: RwLock::new(Entries { slots: Slots::new(), eviction: eviction::new(policy) }),
            counts: Counts::default(),
        }
    }

    /// A clone of the value. Counts the hit for the evictor when `wanted`, else leaves no trace.
    pub(crate) fn read(&self, key: u128, wanted: bool) -> Option<V>
    where
        V: Clone,
    {
        let entries = self.entries.read();
        let slot = entries.slots.at(entries.find(key)?);
        if wanted {
            slot.hit();
        }
        Some(slot.value.clone())
    }

    /// As [`Shard::read`], for a policy that moves entries on a hit.
    pub(crate) fn read_eagerly(&self, key: u128, clock: &Clock, rank: &AtomicU64) -> Option<V>
    where
        V: Clone,
    {
        let mut guard = self.entries.write();
        let entries = &mut *guard;
        let id = entries.find(key)?;
        entries.eviction.touch(&mut entries.slots, id, clock);
        entries.publish(rank);
        Some(entries.slots.at(id).value.clone())
    }

    /// The entries, to change them.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Entries<V>> {
        self.entries.write()
    }

    /// Evicts one entry, unless looking for it makes this shard's rank exceed `rank_max`: then another shard is next.
    /// With `force` the first candidate goes, hits or not.
    pub(crate) fn evict(&self, clock: &Clock, rank: &AtomicU64, rank_max: u64, force: bool) -> Evicted<V> {
        let mut guard = self.entries.write();
        let entries = &mut *guard;
        let mut looks = 0;
        let result = loop {
            match entries.eviction.step(&mut entries.slots, clock, force) {
                Step::Evict(id) => break Evicted::Gone(entries.take(id)),
                Step::Nothing => break Evicted::Empty,
                Step::Keep => looks += 1,
            }
            if looks >= LOOKS_PER_HOLD || entries.eviction.rank(&entries.slots) > rank_max {
                break Evicted::Nobody { looks };
            }
        };
        entries.publish(rank);
        result
    }

    /// Number of entries and bytes allocated for the index.
    pub(crate) fn size(&self) -> (u64, usize) {
        let entries = self.entries.read();
        let bytes =
            size_of::<Shard<V>>() + entries.slots.allocated_bytes() + entries.eviction.allocated_bytes();
        (u64::from(entries.slots.len()), bytes)
    }

    /// Keys and clones of all values.
    pub(crate) fn copy(&self) -> Vec<(u128, V)>
    where
        V: Clone,
    {
        let entries = self.entries.read();
        entries.slots.iter().map(|slot| (slot.key(), slot.value.clone())).collect()
    }
}

impl<V: Weigh> Entries<V> {
    /// The index of a key's entry.
    pub(crate) fn find(&self, key: u128) -> Option<u32> {
        self.slots.find(key)
    }

    /// The entry at an index from [`Entries::find`].
    pub(crate) fn at(&self, id: u32) -> &Slot<V> {
        self.slots.at(id)
    }

    /// Adds an entry for a key that has none. Returns whether the key was evicted not long ago.
    pub(crate) fn add(&mut self, key: u128, value: V, bytes: u32, clock: &Clock) -> bool {
        self.fit();
        value.note_kept(true);
        let id = self.slots.insert(Slot::new(key, value, bytes));
        self.eviction.admit(&mut self.slots, id, clock)
    }

    /// Exchanges the value of an entry and returns the old one.
    pub(crate) fn replace(&mut self, id: u32, value: V, bytes: u32, clock: &Clock) -> V {
        let slot = self.slots.at_mut(id);
        let bytes_before = std::mem::replace(&mut slot.bytes, bytes);
        value.note_kept(true);
        let old = std::mem::replace(&mut slot.value, value);
        old.note_kept(false);
        self.eviction.replace(&mut self.slots, id, bytes_before, clock);
        old
    }

    /// Takes an entry out for a reason other than eviction.
    pub(crate) fn remove(&mut self, id: u32) -> Slot<V> {
        self.eviction.unlink(&mut self.slots, id);
        self.take(id)
    }

    /// Tells the other shards this one's rank; after every change.
    pub(crate) fn publish(&self, rank: &AtomicU64) {
        rank.store(self.eviction.rank(&self.slots), Ordering::Relaxed);
    }

    /// Empties the shard and returns what was in it, to be dropped outside the lock.
    pub(crate) fn drain(&mut self, policy: Policy) -> Slots<V> {
        self.eviction = eviction::new(policy);
        self.slots.iter().for_each(|slot| slot.value.note_kept(false));
        std::mem::replace(&mut self.slots, Slots::new())
    }

    /// Takes an entry out of the table that is in no queue.
    fn take(&mut self, id: u32) -> Slot<V> {
        let slot = self.slots.take(id);
        slot.value.note_kept(false);
        let mut gap = id;
        while let Some(left) = self.slots.close(gap) {
            self.eviction.mend(&mut self.slots, left, gap);
            gap = left;
        }
        self.fit();
        slot
    }

    /// Rebuilds the table when its size no longer suits the number of entries.
    fn fit(&mut self) {
        if let Some(moves) = self.slots.fit() {
            self.eviction.follow(&moves);
        }
    }
}
