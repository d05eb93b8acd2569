//! The entries of a shard, in a dense array of blocks, and the lists that run through them.
//!
//! Entries are always `0..len`: removing one moves the last into its place. So memory follows the number of entries
//! down as well as up, there is no free list, and links and table cells are 32-bit indices. Blocks, not one vector,
//! so that growing never copies a shard's entries under its lock.

use std::sync::atomic::{AtomicU8, Ordering};

/// No entry: the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// Most hits that are remembered between two looks of the evictor: three bits.
pub(crate) const HITS_MAX: u8 = 7;

/// Entries per block.
const BLOCK: usize = 256;

/// One entry. Key and value first: what a hit reads lies together.
#[repr(C)]
pub(crate) struct Slot<V> {
    key: [u64; 2],
    pub(crate) value: V,
    /// Orders evictions across shards; what it means is the policy's.
    pub(crate) rank: u64,
    /// What the entry takes of the budget: its value and its share of the index.
    pub(crate) bytes: u32,
    next: u32,
    prev: u32,
    hits: AtomicU8,
    pub(crate) frequency: u8,
    /// Which of the policy's lists it is in.
    pub(crate) queue: u8,
}

impl<V> Slot<V> {
    pub(crate) fn new(key: u128, value: V, bytes: u32) -> Self {
        Slot {
            key: [(key >> 64) as u64, key as u64],
            value,
            rank: 0,
            bytes,
            next: NONE,
            prev: NONE,
            hits: AtomicU8::new(0),
            frequency: 1,
            queue: 0,
        }
    }

    pub(crate) fn key(&self) -> u128 {
        u128::from(self.key[0]) << 64 | u128::from(self.key[1])
    }

    /// Counts a hit: one relaxed increment, and none at all for what is known to be hot.
    pub(crate) fn hit(&self) {
        if self.hits.load(Ordering::Relaxed) < HITS_MAX {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn hits(&self) -> u8 {
        // Increments that race at the limit overshoot by a few.
        self.hits.load(Ordering::Relaxed).min(HITS_MAX)
    }

    pub(crate) fn set_hits(&mut self, hits: u8) {
        *self.hits.get_mut() = hits;
    }
}

/// All entries of a shard.
pub(crate) struct Slots<V> {
    /// All full but the last ones: at most one partly filled and one empty block, kept against thrashing.
    blocks: Vec<Vec<Slot<V>>>,
    len: u32,
}

impl<V> Slots<V> {
    /// Most bytes that are allocated beyond `len` entries.
    pub(crate) const SLACK_BYTES: usize = 2 * BLOCK * size_of::<Slot<V>>();

    pub(crate) fn new() -> Self {
        Slots { blocks: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn at(&self, id: u32) -> &Slot<V> {
        &self.blocks[id as usize / BLOCK][id as usize % BLOCK]
    }

    pub(crate) fn at_mut(&mut self, id: u32) -> &mut Slot<V> {
        &mut self.blocks[id as usize / BLOCK][id as usize % BLOCK]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<V>> {
        self.blocks.iter().flatten()
    }

    /// Appends an entry and returns its index. The caller keeps the number of entries below [`NONE`].
    pub(crate) fn push(&mut self, slot: Slot<V>) -> u32 {
        let (id, block) = (self.len, self.len as usize / BLOCK);
        if block == self.blocks.len() {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        self.blocks[block].push(slot);
        self.len += 1;
        id
    }

    /// Takes an entry that is in no list. The last entry, if it is another one, moves to `id`: the caller mends what
    /// points to it ([`Slots::mend`] and the table).
    pub(crate) fn swap_remove(&mut self, id: u32) -> Slot<V> {
        let last = self.len - 1;
        let block = last as usize / BLOCK;
        let mut slot = self.blocks[block].pop().expect("the block of the last entry is not empty");
        self.len = last;
        if self.blocks[block].is_empty() {
            self.blocks.truncate(block + 1);
        }
        if id != last {
            std::mem::swap(&mut slot, self.at_mut(id));
        }
        slot
    }

    /// Points the neighbours of the entry that moved to `id`, and the ends of its list, to it.
    pub(crate) fn mend(&mut self, id: u32, list: &mut List) {
        let (prev, next) = (self.at(id).prev, self.at(id).next);
        self.join(list, prev, id);
        self.join(list, id, next);
    }

    /// Bytes allocated.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Vec<Slot<V>>>() + self.blocks.len() * BLOCK * size_of::<Slot<V>>()
    }

    fn join(&mut self, list: &mut List, before: u32, after: u32) {
        match before {
            NONE => list.first = after,
            _ => self.at_mut(before).next = after,
        }
        match after {
            NONE => list.last = before,
            _ => self.at_mut(after).prev = before,
        }
    }
}

/// A doubly linked list through [`Slots`]: first in is `first`.
#[derive(Clone, Copy)]
pub(crate) struct List {
    first: u32,
    last: u32,
}

impl List {
    pub(crate) const EMPTY: List = List { first: NONE, last: NONE };

    /// The oldest entry, or [`NONE`].
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// Appends an entry that is in no list.
    pub(crate) fn push<V>(&mut self, slots: &mut Slots<V>, id: u32) {
        let last = self.last;
        slots.join(self, last, id);
        slots.join(self, id, NONE);
    }

    /// Takes an entry out and returns the one after it, or [`NONE`].
    pub(crate) fn unlink<V>(&mut self, slots: &mut Slots<V>, id: u32) -> u32 {
        let (prev, next) = (slots.at(id).prev, slots.at(id).next);
        slots.join(self, prev, next);
        next
    }

    /// The entry after `id`, or [`NONE`].
    pub(crate) fn after<V>(&self, slots: &Slots<V>, id: u32) -> u32 {
        slots.at(id).next
    }
}
