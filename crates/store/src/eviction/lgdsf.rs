//! LGDSF: greedy dual size frequency with lazy promotion, on first-in-first-out queues.
//!
//! An entry's utility is frequency / size^e. Utilities are quantised, four steps per octave, and each step has a queue.
//! An entry enters its queue with the priority L + utility, where L is the priority of the last evicted entry; so
//! priorities rise along each queue, and the lowest of all is at the front of one of them. The evictor looks at that
//! entry: with hits since it was queued, it gains them as frequency and queues again; else it goes, and L becomes its
//! priority. The ghost keeps half its frequency for its return.
//!
//! e = 1 serves the most requests from memory, e = 0 the most bytes, 0.5 lies between.

use super::{Clock, ENTRY_BYTES, Eviction, FIXED_BYTES, NOTHING, Step};
use crate::ghost::Ghost;
use crate::slots::{List, Moves, NONE, Slots};

/// Steps of utility: from 1 / 2^32 (a 4 GiB object asked for once, e = 1) to 2^8 (frequency 255, e = 0).
const QUEUES: usize = 4 * (32 + 8);

/// The step of utility 1.
const UNIT: f64 = 4.0 * 32.0;

#[derive(Clone, Copy)]
struct Queue {
    list: List,
    /// Rank of the first entry, kept here so that the evictor compares without touching entries.
    rank: u64,
}

pub(super) struct Lgdsf {
    e: f64,
    queues: Vec<Queue>,
    /// Which queues hold entries.
    occupied: [u64; QUEUES.div_ceil(64)],
    ghost: Ghost,
}

const _: () = assert!(QUEUES * size_of::<Queue>() <= FIXED_BYTES && ENTRY_BYTES >= 12);

impl Lgdsf {
    pub(super) fn new(e: f64) -> Self {
        Lgdsf {
            e: if e.is_nan() { 1.0 } else { e.clamp(0.0, 1.0) },
            queues: vec![Queue { list: List::EMPTY, rank: NOTHING }; QUEUES],
            occupied: [0; QUEUES.div_ceil(64)],
            ghost: Ghost::new(2),
        }
    }

    /// Appends an entry to the queue of its utility.
    fn queue<V>(&mut self, slots: &mut Slots<V>, id: u32, clock: &Clock) {
        let slot = slots.at_mut(id);
        let utility_log2 = f64::from(slot.frequency).log2() - self.e * f64::from(slot.bytes).log2();
        let step = (utility_log2 * 4.0 + UNIT).floor().clamp(0.0, (QUEUES - 1) as f64);
        let priority = f64::from_bits(clock.now()) + ((step - UNIT) / 4.0).exp2();
        slot.rank = priority.to_bits();
        slot.queue = step as u8;
        self.queues[step as usize].list.push(slots, id);
        self.look(slots, step as usize);
    }

    /// Brings the copy of the first entry's rank up to date.
    fn look<V>(&mut self, slots: &Slots<V>, queue: usize) {
        let first = self.queues[queue].list.first();
        let bit = 1 << (queue % 64);
        if first == NONE {
            self.occupied[queue / 64] &= !bit;
            self.queues[queue].rank = NOTHING;
        } else {
            self.occupied[queue / 64] |= bit;
            self.queues[queue].rank = slots.at(first).rank;
        }
    }

    /// The queue whose first entry has the lowest rank, and that rank.
    fn lowest(&self) -> (usize, u64) {
        let mut lowest = (0, NOTHING);
        for (word, bits) in self.occupied.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let queue = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let rank = self.queues[queue].rank;
                if rank < lowest.1 {
                    lowest = (queue, rank);
                }
            }
        }
        lowest
    }
}

impl<V> Eviction<V> for Lgdsf {
    fn admit(&mut self, slots: &mut Slots<V>, id: u32, clock: &Clock) -> bool {
        self.ghost.fit(slots.len());
        let slot = slots.at_mut(id);
        let recalled = self.ghost.recall(slot.key());
        slot.frequency = recalled.unwrap_or(0) + 1;
        self.queue(slots, id, clock);
        recalled.is_some()
    }

    fn replace(&mut self, slots: &mut Slots<V>, id: u32, _bytes_before: u32, clock: &Clock) {
        self.unlink(slots, id);
        self.queue(slots, id, clock);
    }

    fn step(&mut self, slots: &mut Slots<V>, clock: &Clock, force: bool) -> Step {
        let (queue, rank) = self.lowest();
        if rank == NOTHING {
            return Step::Nothing;
        }
        let id = self.queues[queue].list.first();
        self.unlink(slots, id);
        let slot = slots.at_mut(id);
        let hits = slot.hits();
        if hits > 0 && !force {
            slot.frequency = slot.frequency.saturating_add(hits);
            slot.set_hits(0);
            self.queue(slots, id, clock);
            return Step::Keep;
        }
        clock.raise(rank);
        self.ghost.remember(slot.key(), slot.frequency / 2);
        Step::Evict(id)
    }

    fn unlink(&mut self, slots: &mut Slots<V>, id: u32) {
        let queue = usize::from(slots.at(id).queue);
        self.queues[queue].list.unlink(slots, id);
        self.look(slots, queue);
        self.ghost.fit(slots.len());
    }

    fn mend(&mut self, slots: &mut Slots<V>, _from: u32, to: u32) {
        let queue = usize::from(slots.at(to).queue);
        slots.mend(to, &mut self.queues[queue].list);
    }

    fn follow(&mut self, moves: &Moves) {
        self.queues.iter_mut().for_each(|queue| queue.list.follow(moves));
    }

    fn rank(&self, _slots: &Slots<V>) -> u64 {
        self.lowest().1
    }

    fn allocated_bytes(&self) -> usize {
        self.queues.capacity() * size_of::<Queue>() + self.ghost.allocated_bytes()
    }
}
