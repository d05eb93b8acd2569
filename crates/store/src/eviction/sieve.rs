//! SIEVE (Zhang et al., NSDI 2024): one list in order of insertion and a hand that walks it from the oldest to the newest
//! and begins again. What the hand finds hit loses its mark and stays in place; what it finds without goes.

use super::{Clock, Eviction, NOTHING, Step};
use crate::slots::{List, Moves, NONE, Slots};

/// Bits of a rank for the order of insertion; the rest counts the hand's laps.
const STAMP_BITS: u32 = 40;

pub(super) struct Sieve {
    list: List,
    /// The entry to look at next; [`NONE`] only when the list is empty.
    hand: u32,
    laps: u64,
}

impl Sieve {
    pub(super) fn new() -> Self {
        Sieve { list: List::EMPTY, hand: NONE, laps: 0 }
    }

    fn advance(&mut self, next: u32) {
        self.hand = next;
        if next == NONE {
            self.hand = self.list.first();
            self.laps += 1;
        }
    }
}

impl<V> Eviction<V> for Sieve {
    fn admit(&mut self, slots: &mut Slots<V>, id: u32, clock: &Clock) -> bool {
        slots.at_mut(id).rank = clock.tick() & ((1 << STAMP_BITS) - 1);
        self.list.push(slots, id);
        if self.hand == NONE {
            self.hand = id;
        }
        false
    }

    fn replace(&mut self, _slots: &mut Slots<V>, _id: u32, _bytes_before: u32, _clock: &Clock) {}

    fn step(&mut self, slots: &mut Slots<V>, _clock: &Clock, force: bool) -> Step {
        let id = self.hand;
        if id == NONE {
            return Step::Nothing;
        }
        if slots.at(id).hits() > 0 && !force {
            slots.at_mut(id).set_hits(0);
            let next = self.list.after(slots, id);
            self.advance(next);
            return Step::Keep;
        }
        self.unlink(slots, id);
        Step::Evict(id)
    }

    fn unlink(&mut self, slots: &mut Slots<V>, id: u32) {
        let next = self.list.unlink(slots, id);
        if self.hand == id {
            self.advance(next);
        }
    }

    fn mend(&mut self, slots: &mut Slots<V>, from: u32, to: u32) {
        slots.mend(to, &mut self.list);
        if self.hand == from {
            self.hand = to;
        }
    }

    fn follow(&mut self, moves: &Moves) {
        self.list.follow(moves);
        self.hand = moves.of(self.hand);
    }

    fn rank(&self, slots: &Slots<V>) -> u64 {
        match self.hand {
            NONE => NOTHING,
            hand => (self.laps << STAMP_BITS | slots.at(hand).rank).min(NOTHING - 1),
        }
    }

    fn allocated_bytes(&self) -> usize {
        0
    }
}
