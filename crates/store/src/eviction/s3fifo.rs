//! S3-FIFO (Yang et al., SOSP 2023): a small queue on probation with a tenth of the bytes, a main queue, and a ghost of
//! as many keys as there are residents. What was hit more than once on probation moves to the main queue; the rest is
//! evicted into the ghost, from where a return goes straight to the main queue. The main queue takes an entry with
//! hits back in for one of them, three at most.

use super::{Clock, Eviction, NOTHING, Step};
use crate::ghost::Ghost;
use crate::slots::{List, Moves, NONE, Slots};

const SMALL: u8 = 0;
const MAIN: u8 = 1;

/// Hits on probation that lead to the main queue.
const PROMOTE: u8 = 2;

/// Hits that count in the main queue.
const LIVES: u8 = 3;

pub(super) struct S3Fifo {
    queues: [List; 2],
    bytes: [u64; 2],
    ghost: Ghost,
}

impl S3Fifo {
    pub(super) fn new() -> Self {
        S3Fifo { queues: [List::EMPTY; 2], bytes: [0; 2], ghost: Ghost::new(1) }
    }

    fn queue<V>(&mut self, slots: &mut Slots<V>, id: u32, queue: u8, rank: u64) {
        let slot = slots.at_mut(id);
        slot.queue = queue;
        slot.rank = rank;
        self.bytes[usize::from(queue)] += u64::from(slot.bytes);
        self.queues[usize::from(queue)].push(slots, id);
    }
}

impl<V> Eviction<V> for S3Fifo {
    fn admit(&mut self, slots: &mut Slots<V>, id: u32, clock: &Clock) -> bool {
        self.ghost.fit(slots.len());
        let recalled = self.ghost.recall(slots.at(id).key()).is_some();
        self.queue(slots, id, if recalled { MAIN } else { SMALL }, clock.tick());
        recalled
    }

    fn replace(&mut self, slots: &mut Slots<V>, id: u32, bytes_before: u32, _clock: &Clock) {
        let slot = slots.at(id);
        let bytes = &mut self.bytes[usize::from(slot.queue)];
        *bytes = *bytes + u64::from(slot.bytes) - u64::from(bytes_before);
    }

    fn step(&mut self, slots: &mut Slots<V>, clock: &Clock, force: bool) -> Step {
        let [small, main] = self.queues.map(|queue| queue.first());
        let from_small = small != NONE && (main == NONE || self.bytes[0] * 9 >= self.bytes[1]);
        let id = if from_small { small } else { main };
        if id == NONE {
            return Step::Nothing;
        }
        self.unlink(slots, id);
        let hits = slots.at(id).hits().min(LIVES);
        if from_small && hits >= PROMOTE && !force {
            slots.at_mut(id).set_hits(0);
            self.queue(slots, id, MAIN, clock.now());
            return Step::Keep;
        }
        if !from_small && hits > 0 && !force {
            slots.at_mut(id).set_hits(hits - 1);
            self.queue(slots, id, MAIN, clock.now());
            return Step::Keep;
        }
        if from_small {
            self.ghost.remember(slots.at(id).key(), 0);
        }
        Step::Evict(id)
    }

    fn unlink(&mut self, slots: &mut Slots<V>, id: u32) {
        let slot = slots.at(id);
        let queue = usize::from(slot.queue);
        self.bytes[queue] -= u64::from(slot.bytes);
        self.queues[queue].unlink(slots, id);
        self.ghost.fit(slots.len());
    }

    fn mend(&mut self, slots: &mut Slots<V>, _from: u32, to: u32) {
        let queue = usize::from(slots.at(to).queue);
        slots.mend(to, &mut self.queues[queue]);
    }

    fn follow(&mut self, moves: &Moves) {
        self.queues.iter_mut().for_each(|queue| queue.follow(moves));
    }

    /// The age of the probation queue sets the pace between shards; within a shard the tenth does.
    fn rank(&self, slots: &Slots<V>) -> u64 {
        match self.queues.map(|queue| queue.first()) {
            [NONE, NONE] => NOTHING,
            [NONE, first] | [first, _] => slots.at(first).rank,
        }
    }

    fn allocated_bytes(&self) -> usize {
        self.ghost.allocated_bytes()
    }
}
