//! The newest records of a journal, each with the mark after it, by which a node's cursor is known to be of this journal or of another.
//! What lies below the floor is in the journal alone. The hub calls it under its lock; it waits for nothing and reads no clock.

use std::collections::VecDeque;

use crate::{Mark, Record};

/// Records kept in memory, at most; who needs older ones makes the hub read them from its source.
const HELD_MAX: usize = 100_000;

/// Bytes of their texts, at most.
const HELD_BYTES_MAX: usize = 64 << 20;

/// See the module's text.
#[derive(Default)]
pub(super) struct Held {
    floor: Mark,
    /// With the mark after each.
    records: VecDeque<(Record, Mark)>,
    bytes: usize,
}

impl Held {
    /// Nothing, until the record above `floor` comes.
    pub(super) fn from(floor: Mark) -> Held {
        Held { floor, ..Held::default() }
    }

    /// What lies before the first record.
    pub(super) fn floor(&self) -> Mark {
        self.floor
    }

    /// What lies before the record that is to come.
    pub(super) fn head(&self) -> Mark {
        self.records.back().map_or(self.floor, |(_, mark)| *mark)
    }

    /// The newest record.
    pub(super) fn newest(&self) -> Option<&Record> {
        self.records.back().map(|(record, _)| record)
    }

    /// Takes the record above the head, and lets the oldest go that there is no room for.
    pub(super) fn push(&mut self, record: Record) {
        let mark = self.head().then(&record);
        self.bytes += record.text.len();
        self.records.push_back((record, mark));
        self.let_go(HELD_MAX);
    }

    pub(super) fn let_go(&mut self, held_max: usize) {
        while self.records.len() > held_max || self.bytes > HELD_BYTES_MAX {
            let Some((gone, mark)) = self.records.pop_front() else { break };
            self.bytes -= gone.text.len();
            self.floor = mark;
        }
    }

    /// Records right above a position, with the mark after each; `None` when they are not held any more.
    pub(super) fn above(&self, position: u64) -> Option<impl Iterator<Item = &(Record, Mark)>> {
        let first = self.records.partition_point(|(record, _)| record.position <= position);
        (position >= self.floor.position).then(|| self.records.range(first..))
    }

    /// Whether this is what the journal holds up to there, as far as is known here.
    pub(super) fn has(&self, mark: Mark) -> bool {
        mark.position <= self.head().position
            && self.digest_at(mark.position).is_none_or(|known| known == mark)
    }

    /// The mark at a position, when it is that of the floor or of a record that is held.
    pub(super) fn digest_at(&self, position: u64) -> Option<Mark> {
        if position == self.floor.position {
            return Some(self.floor);
        }
        let at = self.records.binary_search_by_key(&position, |(record, _)| record.position).ok()?;
        Some(self.records[at].1)
    }
}
