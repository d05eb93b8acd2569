use model::change::{Version, What};

use super::*;
use crate::feed::{Beat, Line, Restart, Welcome};

fn purge(tag: &str) -> Change {
    Change::Purge(vec![Order { what: What::Tag { site: None, tag: tag.into() }, soft: false }])
}

fn plan(number: u64) -> Plan {
    let version = Version { number, hash: String::new(), signature: String::new() };
    Plan { stable: Some(version), candidate: None }
}

fn record(position: u64, change: Change) -> Record {
    let written = Written { by: "test".into(), at_ms: 0, change };
    Record { position, text: serde_json::to_string(&written).unwrap().into() }
}

fn welcome(journal: &str, head: u64) -> Down {
    Down::Welcome(Welcome { journal: journal.into(), from: "c1".into(), head, takes_statistics: true })
}

fn records(at: Mark, records: &[Record], head: u64) -> Down {
    let digest = records.iter().fold(at, |mark, record| mark.then(record)).digest;
    let lines = records.iter().filter_map(Line::of).collect();
    Down::Records(Records { after: at.position, records: lines, digest, head })
}

fn at(position: u64) -> Place {
    let mark = Mark { position, ..Mark::default() };
    Place { journal: Some("j".into()), at: mark, plan: Plan::default() }
}

fn tags(step: &Step) -> Vec<&str> {
    let tag = |order: &'_ Order| match &order.what {
        What::Tag { tag, .. } => Some(tag.clone()),
        _ => None,
    };
    let found: Vec<String> = step.orders.iter().filter_map(tag).collect();
    found.into_iter().map(|tag| &*tag.leak()).collect()
}

#[test]
fn records_become_orders_and_a_plan_and_count_once_they_are_reached() {
    let mut node = Following::new(at(4));
    assert_eq!(node.hello(), (Some("j".into()), at(4).at));
    let first = [record(7, purge("a")), record(9, Change::Plan(plan(1)))];
    let second = [record(10, purge("b")), record(12, Change::Plan(plan(2)))];
    let middle = first.iter().fold(at(4).at, |mark, record| mark.then(record));
    let lines = vec![welcome("j", 12), records(at(4).at, &first, 12), records(middle, &second, 12)];
    let step = node.take(lines).unwrap();
    assert_eq!((tags(&step), step.distrust.clone()), (vec!["a", "b"], None));
    assert_eq!((step.place.at.position, &step.place.plan), (12, &plan(2)));
    assert!(node.place().at.position == 4 && !node.is_current());
    node.reached(step.place);
    assert!(!node.is_current(), "whoever said it may be cut off");
    for (head, knows, is_current) in [(12, true, true), (12, false, false), (13, true, false)] {
        let beat = Beat { head, spread_ms: 0, is_current: knows };
        let step = node.take(vec![Down::Beat(beat)]).unwrap();
        assert!(step.orders.is_empty());
        assert_eq!(node.is_current(), is_current, "{beat:?}");
    }
}

#[test]
fn a_gap_breaks_off_and_one_that_stays_makes_the_node_begin_anew() {
    let mut node = Following::new(at(4));
    for wanted in [Some("j".to_owned()), Some("j".to_owned()), None] {
        assert_eq!(node.hello().0, wanted);
        let gap = records(at(5).at, &[record(7, purge("a"))], 7);
        assert!(node.take(vec![welcome("j", 7), gap]).unwrap_err().contains("records after 5 came"));
    }
    node.hello();
    let restart = Restart { at: Mark { position: 9, ..Mark::default() }, plan: plan(3), why: "new".into() };
    let step = node.take(vec![welcome("j", 9), Down::Restart(restart)]).unwrap();
    assert_eq!((step.distrust.as_deref(), &step.place.plan), (Some("new"), &plan(3)));
    node.reached(step.place);
    assert_eq!(node.hello(), (Some("j".into()), Mark { position: 9, ..Mark::default() }));
}

#[test]
fn a_digest_that_is_another_makes_the_node_begin_anew() {
    let mut node = Following::new(at(4));
    node.hello();
    let Down::Records(mut wrong) = records(at(4).at, &[record(7, purge("a"))], 7) else { unreachable!() };
    wrong.digest.0[0] ^= 1;
    assert!(node.take(vec![welcome("j", 7), Down::Records(wrong)]).unwrap_err().contains("the digest at 7"));
    assert_eq!(node.hello(), (None, Mark::default()));
}

#[test]
fn records_of_another_journal_count_for_nothing_without_a_restart() {
    let mut node = Following::new(at(4));
    node.hello();
    let more = || records(at(4).at, &[record(7, purge("a"))], 7);
    assert!(node.take(vec![more()]).is_err(), "before the welcome");
    assert!(node.take(vec![welcome("other", 7), more()]).is_err());
    let restart = Restart { at: at(4).at, plan: plan(1), why: "another journal".into() };
    let step = node.take(vec![welcome("other", 7), Down::Restart(restart), more()]).unwrap();
    assert_eq!(step.place.journal.as_deref(), Some("other"));
    assert_eq!((tags(&step), step.distrust.is_some()), (vec!["a"], true));
    node.hello();
    let restart = Restart { at: at(4).at, plan: plan(1), why: String::new() };
    assert!(node.take(vec![Down::Restart(restart)]).is_err(), "before the welcome");
}

#[test]
fn a_record_that_cannot_be_read_is_not_passed_over() {
    let mut node = Following::new(at(4));
    node.hello();
    let strange = Record { position: 7, text: r#"{"by":"x","at_ms":0,"change":{"vanish":1}}"#.into() };
    let step = node.take(vec![welcome("j", 7), records(at(4).at, &[strange], 7)]).unwrap();
    assert!(step.distrust.unwrap().contains("the record at 7"));
    assert_eq!(step.place.at.position, 7);
}

#[test]
fn a_place_is_read_as_it_was_written() {
    let place =
        Place { journal: Some("j".into()), at: Mark::default().then(&record(3, purge("a"))), plan: plan(2) };
    let text = serde_json::to_string(&place).unwrap();
    assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place);
    assert_eq!(
        serde_json::from_str::<Place>(
            r#"{"journal":null,"at":{"position":0,"digest":"00000000000000000000000000000000"}}"#
        )
        .unwrap(),
        Place::default()
    );
}

#[test]
fn damaged_lines_are_refused_or_make_sense_and_never_more() {
    let lines = [
        welcome("j", 12),
        records(at(4).at, &[record(7, purge("a")), record(9, Change::Plan(plan(1)))], 12),
        Down::Restart(Restart { at: at(9).at, plan: plan(2), why: "w".into() }),
        Down::Beat(Beat { head: 9, spread_ms: 1, is_current: true }),
    ];
    let texts: Vec<Vec<u8>> = lines.iter().map(|line| serde_json::to_vec(line).unwrap()).collect();
    let (mut read, mut refused) = (0, 0);
    for (text, index) in texts.iter().zip(0..) {
        for at_byte in 0..text.len() {
            for flip in [1u8, 2, 16, 0x80] {
                let mut damaged = text.clone();
                damaged[at_byte] ^= flip;
                let Ok(line) = serde_json::from_slice::<Down>(&damaged) else {
                    refused += 1;
                    continue;
                };
                read += 1;
                let mut node = Following::new(at(4));
                let first = if index == 0 { Vec::new() } else { vec![welcome("j", 12)] };
                let before = node.place().clone();
                if let Ok(step) = node.take(first.into_iter().chain([line]).collect()) {
                    // Records are believed for their digest alone.
                    assert!(index != 1 || step.orders.is_empty() || step.place.at != before.at);
                }
                assert_eq!(*node.place(), before);
            }
        }
    }
    assert!(read > 100 && refused > 1_000, "{read} {refused}");
}

// --- Under faults ---

/// What a node's disk holds, in the order in which it came there.
#[derive(Clone, Debug, PartialEq)]
enum Kept {
    /// This purge is in force.
    Purge(String),
    /// Everything stored until this moment is validated: nothing written until then can be missed.
    Distrust { written: usize },
}

/// A journal, a node's disk, and what lies between them.
struct Sim {
    chance: u64,
    journal: String,
    /// Everything that was ever written, with the journal and position that it has.
    written: Vec<(String, u64, String)>,
    kept: Vec<(Record, Mark)>,
    floor: Mark,
    newest_plan: Plan,
    disk: Vec<Kept>,
    place: Place,
    node: Following,
    receipts: u32,
    crashes: u32,
}

impl Sim {
    fn new(seed: u64) -> Self {
        Sim {
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            journal: "j0".into(),
            written: Vec::new(),
            kept: Vec::new(),
            floor: Mark::default(),
            newest_plan: Plan::default(),
            disk: Vec::new(),
            place: Place::default(),
            node: Following::new(Place::default()),
            receipts: 0,
            crashes: 0,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % end
    }

    fn head(&self) -> Mark {
        self.kept.last().map_or(self.floor, |(_, mark)| *mark)
    }

    fn write(&mut self) {
        let position = self.head().position + 1 + self.below(5);
        let change = match self.below(4) {
            0 => {
                self.newest_plan = plan(position);
                Change::Plan(self.newest_plan.clone())
            }
            _ => {
                let tag = format!("{}-{position}", self.journal);
                self.written.push((self.journal.clone(), position, tag.clone()));
                purge(&tag)
            }
        };
        let record = record(position, change);
        let mark = self.head().then(&record);
        self.kept.push((record, mark));
    }

    fn trim(&mut self) {
        let count = self.below(self.kept.len() as u64 + 1) as usize;
        if let Some((_, mark)) = self.kept.drain(..count).next_back() {
            self.floor = mark;
        }
    }

    fn begin_anew(&mut self) {
        self.journal = format!("j{}", self.written.len() + 1);
        self.kept.clear();
        self.floor = Mark::default();
        self.newest_plan = Plan::default();
    }

    /// What control says to a node that says hello.
    fn lines(&mut self) -> Vec<Down> {
        let (journal, cursor) = self.node.hello();
        let head = self.head();
        let mut lines = vec![welcome(&self.journal, head.position)];
        let from = if cursor == self.floor {
            Some(0)
        } else {
            self.kept.iter().position(|(_, mark)| *mark == cursor).map(|at| at + 1)
        };
        let from = from.filter(|_| journal.as_deref() == Some(&*self.journal));
        let (mut mark, rest) = match from {
            Some(from) => (cursor, self.kept[from..].to_vec()),
            None => {
                let restart = Restart { at: head, plan: self.newest_plan.clone(), why: "lost".into() };
                lines.push(Down::Restart(restart));
                (head, Vec::new())
            }
        };
        let mut rest = &*rest;
        while !rest.is_empty() {
            let (some, others) = rest.split_at(1 + self.below(rest.len() as u64) as usize);
            let some: Vec<Record> = some.iter().map(|(record, _)| record.clone()).collect();
            lines.push(records(mark, &some, head.position));
            mark = some.iter().fold(mark, |mark, record| mark.then(record));
            rest = others;
        }
        lines.push(Down::Beat(Beat { head: head.position, spread_ms: 0, is_current: true }));
        lines
    }

    /// Loses, repeats and reorders.
    fn spoil(&mut self, lines: Vec<Down>) -> Vec<Down> {
        let again = |line: &Down| serde_json::from_str(&serde_json::to_string(line).unwrap()).unwrap();
        let mut spoilt: Vec<Down> = Vec::new();
        for line in lines {
            match self.below(12) {
                0 => {}
                1 => {
                    spoilt.push(again(&line));
                    spoilt.push(line);
                }
                2 if !spoilt.is_empty() => spoilt.insert(spoilt.len() - 1, line),
                _ => spoilt.push(line),
            }
        }
        let length = self.below(2 * spoilt.len() as u64 + 1) as usize;
        spoilt.truncate(length.max(1));
        spoilt
    }

    /// Whether the node dies here; what only memory knew is gone.
    fn crashes(&mut self, one_in: u64) -> bool {
        let dies = one_in > 0 && self.below(one_in) == 0;
        if dies {
            self.crashes += 1;
            self.node = Following::new(self.place.clone());
        }
        dies
    }

    /// Has the node read lines, in batches. `one_in`: how likely a crash is at each point; 0 is never.
    fn follow(&mut self, mut lines: Vec<Down>, one_in: u64) {
        while !lines.is_empty() {
            let count = 1 + self.below(lines.len() as u64) as usize;
            let batch: Vec<Down> = lines.drain(..count).collect();
            let Ok(step) = self.node.take(batch) else { return };
            for order in &step.orders {
                if self.crashes(one_in * 4) {
                    return;
                }
                let What::Tag { tag, .. } = &order.what else { unreachable!() };
                self.disk.push(Kept::Purge(tag.clone()));
            }
            if step.distrust.is_some() {
                self.disk.push(Kept::Distrust { written: self.written.len() });
            }
            if self.crashes(one_in) {
                return;
            }
            self.place = step.place.clone();
            if self.crashes(one_in) {
                return;
            }
            self.node.reached(step.place);
            self.receipts += 1;
            self.check();
        }
    }

    /// What a receipt says is true: each purge up to its position is in force, or nothing that was stored before is trusted.
    fn check(&self) {
        let place = self.node.place();
        let trusted_from = self
            .disk
            .iter()
            .filter_map(|kept| match kept {
                Kept::Distrust { written } => Some(*written),
                Kept::Purge(_) => None,
            })
            .max()
            .unwrap_or(0);
        for (journal, position, tag) in &self.written[trusted_from..] {
            if Some(journal) == place.journal.as_ref() && *position <= place.at.position {
                assert!(self.disk.contains(&Kept::Purge(tag.clone())), "{tag} is missing at {place:?}");
            }
        }
    }
}

#[test]
fn whatever_is_lost_repeated_reordered_or_crashes_no_receipt_is_wrong_and_all_is_caught_up() {
    let (mut receipts, mut crashes) = (0, 0);
    for seed in 0..3_000 {
        let mut sim = Sim::new(seed);
        for _ in 0..30 {
            match sim.below(10) {
                0 => sim.trim(),
                1 if sim.below(8) == 0 => sim.begin_anew(),
                2..6 => (0..1 + sim.below(4)).for_each(|_| sim.write()),
                _ => {
                    let lines = sim.lines();
                    let lines = sim.spoil(lines);
                    sim.follow(lines, 12);
                }
            }
        }
        // Healed: at most three connections until nothing is missing.
        for _ in 0..3 {
            let lines = sim.lines();
            sim.follow(lines, 0);
        }
        assert!(sim.node.is_current(), "seed {seed}");
        assert_eq!(
            (sim.node.place().at, &sim.node.place().plan),
            (sim.head(), &sim.newest_plan),
            "seed {seed}"
        );
        assert_eq!(sim.place, *sim.node.place(), "seed {seed}");
        receipts += sim.receipts;
        crashes += sim.crashes;
    }
    assert!(receipts > 10_000 && crashes > 1_000, "{receipts} receipts, {crashes} crashes");
}
