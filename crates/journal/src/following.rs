//! Following the journal, as decisions: what the lines of a feed order, and up to where that gets a node. What it takes to carry
//! it out is the node's, in this sequence:
//!
//! ```text
//! lines ─ take ─► Step ─► its orders are in force and on disk ─ reached ─► a receipt may be signed
//!                            └─► its place is on disk: before that where it has another plan or journal, else a moment later
//! ```
//!
//! A crash between any two makes a node apply again what it has applied already, which does no harm; nothing is left out. A
//! feed is believed no further than its records fit to each other: a gap ends the connection, and a digest unlike the node's
//! own, or a gap that stays, means that the node has lost its place. Then it asks to begin anew, and distrusts what it has stored.

use model::change::{Change, Order, Plan, Written};
use serde::{Deserialize, Serialize};

use crate::feed::{Down, Records};
use crate::{Mark, Record};

/// Gaps in a row after which a node has lost its place: one may be a connection that broke in the middle.
const GAPS_MAX: u32 = 2;

/// Up to where a node has followed which journal: what it keeps on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The journal; `None` before the first.
    pub journal: Option<String>,
    /// Up to here everything is in force, and purges are in the purge log.
    pub at: Mark,
    /// The newest plan up to there.
    #[serde(default)]
    pub plan: Plan,
}

/// A node that follows. See the module's text.
#[derive(Debug)]
pub struct Following {
    place: Place,
    /// What the other end of this connection follows, once it has said so.
    welcomed: Option<String>,
    /// The newest position that this connection has told of.
    head: u64,
    /// Whether the other end has said last that it knows of everything.
    is_above_current: bool,
    gaps: u32,
    is_lost: bool,
}

/// What some lines of a feed come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Purges, in order.
    pub orders: Vec<Order>,
    /// Purges may have been missed: everything stored before is to be validated. Why. To be done after the orders.
    pub distrust: Option<String>,
    /// Where the node is, once all of this is in force and, of purges, on disk.
    pub place: Place,
}

impl Following {
    /// From where it was.
    pub fn new(place: Place) -> Self {
        Following { place, welcomed: None, head: 0, is_above_current: false, gaps: 0, is_lost: false }
    }

    /// A connection begins: the journal that was followed, and up to where. Without a journal, the node begins anew.
    pub fn hello(&mut self) -> (Option<String>, Mark) {
        self.welcomed = None;
        self.head = 0;
        self.is_above_current = false;
        match self.is_lost {
            true => (None, Mark::default()),
            false => (self.place.journal.clone(), self.place.at),
        }
    }

    /// Where the node is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The newest position that is known of.
    pub fn head(&self) -> u64 {
        self.head.max(self.place.at.position)
    }

    /// Whether there was nothing more to tell when the other end was last heard.
    pub fn is_current(&self) -> bool {
        self.is_above_current
            && self.welcomed.is_some()
            && self.place.journal == self.welcomed
            && self.place.at.position >= self.head
    }

    /// Reads lines. Nothing is reached by it yet: [`Following::reached`].
    ///
    /// # Errors
    /// The connection is of no use: why. What the lines said before does not count.
    pub fn take(&mut self, lines: Vec<Down>) -> Result<Step, String> {
        let mut step = Step { orders: Vec::new(), distrust: None, place: self.place.clone() };
        for line in lines {
            match line {
                Down::Welcome(welcome) => {
                    self.welcomed = Some(welcome.journal);
                    self.head = welcome.head;
                    self.is_above_current = false;
                }
                Down::Beat(beat) => {
                    self.head = beat.head;
                    self.is_above_current = beat.is_current;
                }
                Down::Restart(restart) => {
                    let Some(journal) = self.welcomed.clone() else {
                        return Err("a restart came before the welcome".to_owned());
                    };
                    step.place = Place { journal: Some(journal), at: restart.at, plan: restart.plan };
                    self.head = self.head.max(restart.at.position);
                    step.distrust = Some(restart.why);
                }
                Down::Records(records) => self.read(records, &mut step)?,
                // No word of the journal's.
                Down::Steered(_) | Down::Leases(_) => {}
                Down::Refused { why } => return Err(why),
                // It is between whoever follows and its outbox.
                Down::Counted(_) => {}
            }
        }
        Ok(step)
    }

    /// What a step says is in force and on disk.
    pub fn reached(&mut self, place: Place) {
        self.place = place;
        self.gaps = 0;
        self.is_lost = false;
    }

    fn read(&mut self, records: Records, step: &mut Step) -> Result<(), String> {
        let at = step.place.at;
        if self.welcomed.is_none() || self.welcomed != step.place.journal {
            return Err("records came of a journal that is not the one that was followed".to_owned());
        }
        if records.after != at.position || records.records.is_empty() {
            self.gaps += 1;
            self.is_lost |= self.gaps >= GAPS_MAX;
            return Err(format!("records after {} came, not after {}", records.after, at.position));
        }
        let mut mark = at;
        for line in records.records {
            let record = line.into_record();
            if record.position <= mark.position {
                self.is_lost = true;
                return Err(format!("a record at {} came after one at {}", record.position, mark.position));
            }
            mark = mark.then(&record);
            step.take(&record);
        }
        if mark.digest != records.digest {
            self.is_lost = true;
            return Err(format!(
                "the digest at {} is {}, and not {}",
                mark.position, records.digest, mark.digest
            ));
        }
        self.head = self.head.max(records.head).max(mark.position);
        step.place.at = mark;
        Ok(())
    }
}

impl Step {
    fn take(&mut self, record: &Record) {
        match serde_json::from_str::<Written>(&record.text).map(|written| written.change) {
            Ok(Change::Purge(orders)) => self.orders.extend(orders),
            Ok(Change::Plan(plan)) => self.place.plan = plan,
            // Of a newer program, perhaps. It may be a purge.
            Err(error) => {
                self.distrust =
                    Some(format!("the record at {} is none that can be read here: {error}", record.position));
            }
        }
    }
}

#[cfg(test)]
mod tests;
