//! The entries of a shard, in one open-addressed table, and the lists that run through them.
//!
//! An entry lies in its table cell: finding one costs one miss of the processor's cache where a table of indices would
//! cost two or three, which is what a lookup among millions of entries takes. The home of a key is its share of the
//! table's length; the cells from there to the first empty one are searched. Removing closes the gap: entries whose way
//! from home led across it move up. The table is kept between [`FULL_MIN`] and [`FULL_MAX`] percent full, so memory
//! follows the number of entries down as well as up; it is rebuilt in one sweep, since a longer table has its keys in the
//! same order.
//!
//! Links are cell numbers. Whoever moves entries tells the policy: see [`Slots::close`] and [`Slots::fit`].

use std::sync::atomic::{AtomicU8, Ordering};

/// No entry: the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// Most hits that are remembered between two looks of the evictor: three bits.
pub(crate) const HITS_MAX: u8 = 7;

/// Percent of the cells in use below which the table is rebuilt, above which it is, and after it was.
const FULL_MIN: usize = 64;
const FULL_MAX: usize = 86;
const FULL: usize = 74;

/// Cells of the smallest table that is not empty.
const CELLS_MIN: usize = 16;

/// One entry. First what a hit touches.
#[repr(C)]
pub(crate) struct Slot<V> {
    key: [u64; 2],
    pub(crate) value: V,
    hits: AtomicU8,
    pub(crate) frequency: u8,
    /// Which of the policy's lists it is in.
    pub(crate) queue: u8,
    /// What the entry takes of the budget: its value and its share of the index.
    pub(crate) bytes: u32,
    /// Orders evictions across shards; what it means is the policy's.
    pub(crate) rank: u64,
    next: u32,
    prev: u32,
}

impl<V> Slot<V> {
    pub(crate) fn new(key: u128, value: V, bytes: u32) -> Self {
        Slot {
            key: [(key >> 64) as u64, key as u64],
            value,
            hits: AtomicU8::new(0),
            frequency: 1,
            queue: 0,
            bytes,
            rank: 0,
            next: NONE,
            prev: NONE,
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
    cells: Vec<Option<Slot<V>>>,
    len: u32,
}

/// Where each entry went when the table was rebuilt.
pub(crate) struct Moves(Vec<u32>);

impl<V> Slots<V> {
    /// Most bytes that the table takes per entry.
    pub(crate) const ENTRY_BYTES: usize = (size_of::<Option<Slot<V>>>() * 100).div_ceil(FULL_MIN);

    /// Most bytes that it takes beyond that, for the smallest tables and for rounding.
    pub(crate) const SLACK_BYTES: usize = 2 * CELLS_MIN * size_of::<Option<Slot<V>>>();

    pub(crate) fn new() -> Self {
        Slots { cells: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<V>> {
        self.cells.iter().flatten()
    }

    /// The number of a key's cell.
    pub(crate) fn find(&self, key: u128) -> Option<u32> {
        if self.cells.is_empty() {
            return None;
        }
        let wanted = [(key >> 64) as u64, key as u64];
        let mut cell = self.home(wanted);
        while let Some(slot) = &self.cells[cell] {
            if slot.key == wanted {
                return Some(cell as u32);
            }
            cell = self.following(cell);
        }
        None
    }

    /// The entry in a cell that has one.
    pub(crate) fn at(&self, cell: u32) -> &Slot<V> {
        self.cells[cell as usize].as_ref().expect("links and lookups lead to cells in use")
    }

    /// The entry in a cell that has one.
    pub(crate) fn at_mut(&mut self, cell: u32) -> &mut Slot<V> {
        self.cells[cell as usize].as_mut().expect("links and lookups lead to cells in use")
    }

    /// Adds an entry, in no list, whose key has none. There must be room: [`Slots::fit`].
    pub(crate) fn insert(&mut self, slot: Slot<V>) -> u32 {
        self.len += 1;
        self.place(slot)
    }

    /// Takes an entry out that is in no list. Then the gap must be closed.
    pub(crate) fn take(&mut self, cell: u32) -> Slot<V> {
        self.len -= 1;
        self.cells[cell as usize].take().expect("only cells in use are emptied")
    }

    /// Moves one entry into the gap, if one must, and returns the cell that it left: the next gap. After each, the
    /// policy must mend what pointed there.
    pub(crate) fn close(&mut self, gap: u32) -> Option<u32> {
        let gap = gap as usize;
        let mut cell = self.following(gap);
        while let Some(slot) = &self.cells[cell] {
            if self.way(self.home(slot.key), cell) >= self.way(gap, cell) {
                self.cells.swap(gap, cell);
                return Some(cell as u32);
            }
            cell = self.following(cell);
        }
        None
    }

    /// Rebuilds the table if it is too small for one entry more or too large. The policy must follow the moves.
    pub(crate) fn fit(&mut self) -> Option<Moves> {
        let (cells, wanted) = (self.cells.len(), self.len as usize + 1);
        if wanted * 100 <= cells * FULL_MAX && (wanted * 100 >= cells * FULL_MIN || cells <= CELLS_MIN) {
            return None;
        }
        let cells = (wanted * 100 / FULL).max(CELLS_MIN);
        let mut old = Vec::with_capacity(cells);
        old.resize_with(cells, || None);
        std::mem::swap(&mut old, &mut self.cells);
        let mut moves = Moves(vec![NONE; old.len()]);
        for (from, cell) in old.into_iter().enumerate() {
            if let Some(slot) = cell {
                moves.0[from] = self.place(slot);
            }
        }
        for slot in self.cells.iter_mut().flatten() {
            slot.next = moves.of(slot.next);
            slot.prev = moves.of(slot.prev);
        }
        Some(moves)
    }

    /// Points the neighbours of the entry that moved to `cell`, and the ends of its list, to it.
    pub(crate) fn mend(&mut self, cell: u32, list: &mut List) {
        let (prev, next) = (self.at(cell).prev, self.at(cell).next);
        self.join(list, prev, cell);
        self.join(list, cell, next);
    }

    /// Bytes allocated.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Option<Slot<V>>>()
    }

    fn place(&mut self, slot: Slot<V>) -> u32 {
        let mut cell = self.home(slot.key);
        while self.cells[cell].is_some() {
            cell = self.following(cell);
        }
        self.cells[cell] = Some(slot);
        cell as u32
    }

    fn home(&self, key: [u64; 2]) -> usize {
        // The key as a fraction of all keys, of the length: any length will do.
        ((u128::from(key[1]) * self.cells.len() as u128) >> 64) as usize
    }

    fn following(&self, cell: usize) -> usize {
        if cell + 1 == self.cells.len() { 0 } else { cell + 1 }
    }

    /// Cells from one to another, around the end.
    fn way(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.cells.len() - from }
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

impl Moves {
    /// The new number of a cell.
    pub(crate) fn of(&self, cell: u32) -> u32 {
        if cell == NONE { NONE } else { self.0[cell as usize] }
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
    pub(crate) fn push<V>(&mut self, slots: &mut Slots<V>, cell: u32) {
        let last = self.last;
        slots.join(self, last, cell);
        slots.join(self, cell, NONE);
    }

    /// Takes an entry out and returns the one after it, or [`NONE`].
    pub(crate) fn unlink<V>(&mut self, slots: &mut Slots<V>, cell: u32) -> u32 {
        let (prev, next) = (slots.at(cell).prev, slots.at(cell).next);
        slots.join(self, prev, next);
        next
    }

    /// The entry after `cell`, or [`NONE`].
    pub(crate) fn after<V>(&self, slots: &Slots<V>, cell: u32) -> u32 {
        slots.at(cell).next
    }

    /// Follows a rebuilt table.
    pub(crate) fn follow(&mut self, moves: &Moves) {
        self.first = moves.of(self.first);
        self.last = moves.of(self.last);
    }
}
