//! Least recently used: one list, a hit moves the entry to its end. For comparison: every hit takes the write lock.

use super::{Clock, Eviction, NOTHING, Step};
use crate::slots::{List, Moves, NONE, Slots};

pub(super) struct Lru {
    list: List,
}

impl Lru {
    pub(super) fn new() -> Self {
        Lru { list: List::EMPTY }
    }
}

impl<V> Eviction<V> for Lru {
    fn admit(&mut self, slots: &mut Slots<V>, id: u32, clock: &Clock) -> bool {
        slots.at_mut(id).rank = clock.tick();
        self.list.push(slots, id);
        false
    }

    fn is_eager(&self) -> bool {
        true
    }

    fn touch(&mut self, slots: &mut Slots<V>, id: u32, clock: &Clock) {
        self.list.unlink(slots, id);
        // Reads the count of insertions and leaves it: hits of different shards share no counter.
        slots.at_mut(id).rank = clock.now();
        self.list.push(slots, id);
    }

    fn replace(&mut self, slots: &mut Slots<V>, id: u32, _bytes_before: u32, clock: &Clock) {
        self.touch(slots, id, clock);
    }

    fn step(&mut self, slots: &mut Slots<V>, _clock: &Clock, _force: bool) -> Step {
        let first = self.list.first();
        if first == NONE {
            return Step::Nothing;
        }
        self.list.unlink(slots, first);
        Step::Evict(first)
    }

    fn unlink(&mut self, slots: &mut Slots<V>, id: u32) {
        self.list.unlink(slots, id);
    }

    fn mend(&mut self, slots: &mut Slots<V>, _from: u32, to: u32) {
        slots.mend(to, &mut self.list);
    }

    fn follow(&mut self, moves: &Moves) {
        self.list.follow(moves);
    }

    fn rank(&self, slots: &Slots<V>) -> u64 {
        match self.list.first() {
            NONE => NOTHING,
            first => slots.at(first).rank,
        }
    }

    fn allocated_bytes(&self) -> usize {
        0
    }
}
