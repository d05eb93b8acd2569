//! A journal in memory, for tests and simulations. It forgets everything when it is dropped, and on a seed it does what the
//! others do only on bad days: it delays, loses answers, cannot be reached, trims, and gives pages as no engine may give them, so
//! that readers can be tried against all of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::Draw;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Cell, Commit, Error, Journal, Mark, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Page, Record, Work};

/// How often it does what, of 1,000 times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Cannot be reached: nothing happens.
    pub unavailable: u16,
    /// The answer to a commit gets lost; by equal odds it was written or not.
    pub unknown: u16,
    /// A page has a record twice, or lacks one, or has two exchanged, or begins too early.
    pub unruly: u16,
    /// A commit is followed by trimming through a record of the older half.
    pub trim: u16,
    /// `changed` returns early.
    pub early: u16,
    /// Each operation takes a random time up to this.
    pub delay_max: Duration,
}

/// A journal in memory.
pub struct Memory {
    id: String,
    state: Mutex<State>,
    head: watch::Sender<u64>,
}

struct State {
    counter: u64,
    floor: Mark,
    /// With the mark up to each.
    records: VecDeque<(Record, Mark)>,
    cells: BTreeMap<String, (u64, Vec<u8>)>,
    draw: Draw,
    faults: Faults,
}

impl Memory {
    /// An empty one without faults. All chance comes from `seed`.
    pub fn new(id: &str, seed: u64) -> Self {
        let (floor, faults) = (Mark::default(), Faults::default());
        let (records, cells) = (VecDeque::new(), BTreeMap::new());
        let state = State { counter: 0, floor, records, cells, draw: Draw(seed), faults };
        Memory { id: id.to_owned(), state: Mutex::new(state), head: watch::Sender::new(0) }
    }

    /// From now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Waits as long as chance says, then fails or not.
    async fn reach(&self) -> Result<(), Error> {
        let (delay, is_lost) = {
            let mut state = self.state.lock();
            let most = u64::try_from(state.faults.delay_max.as_micros()).unwrap_or(u64::MAX);
            let delay = if most == 0 { 0 } else { state.draw.bits() % most };
            let odds = state.faults.unavailable;
            (delay, state.happens(odds))
        };
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(delay)).await;
        }
        if is_lost { Err(Error::Unavailable("simulated".into())) } else { Ok(()) }
    }
}

impl Journal for Memory {
    fn id(&self) -> &str {
        &self.id
    }

    fn commit(&self, commit: Commit) -> Work<'_, u64> {
        Box::pin(async move {
            commit.check()?;
            self.reach().await?;
            let mut state = self.state.lock();
            let odds = state.faults.unknown;
            let is_lost = state.happens(odds);
            if is_lost && state.happens(500) {
                return Err(Error::Unknown("simulated".into()));
            }
            let position = state.commit(commit)?;
            let odds = state.faults.trim;
            if state.happens(odds) {
                let older = state.records.len() / 2;
                let index = usize::try_from(state.draw.bits()).unwrap_or(0) % older.max(1);
                if let Some(through) = state.records.get(index).map(|(record, _)| record.position) {
                    state.trim(through);
                }
            }
            drop(state);
            if position > 0 {
                self.head.send_modify(|head| *head = position.max(*head));
            }
            if is_lost { Err(Error::Unknown("simulated".into())) } else { Ok(position) }
        })
    }

    fn read(&self, after: u64, limit: usize) -> Work<'_, Page> {
        Box::pin(async move {
            self.reach().await?;
            let mut state = self.state.lock();
            let mut page = state.read(after, limit.clamp(1, PAGE_RECORDS_MAX))?;
            let odds = state.faults.unruly;
            if state.happens(odds) {
                state.disorder(&mut page.records);
            }
            Ok(page)
        })
    }

    fn changed(&self, after: u64) -> Work<'_, ()> {
        Box::pin(async move {
            self.reach().await?;
            let is_early = {
                let mut state = self.state.lock();
                let odds = state.faults.early;
                state.happens(odds)
            };
            if is_early {
                return Ok(());
            }
            let mut head = self.head.subscribe();
            let ended = |_| Error::Unavailable("the journal has been dropped".into());
            head.wait_for(|head| *head > after).await.map(drop).map_err(ended)
        })
    }

    fn cell(&self, name: &str) -> Work<'_, Option<Cell>> {
        let name = name.to_owned();
        Box::pin(async move {
            self.reach().await?;
            let found = self.state.lock().cells.get(&name).cloned();
            Ok(found.map(|(version, value)| Cell { name, value, version }))
        })
    }

    fn cells(&self, prefix: &str) -> Work<'_, Vec<Cell>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            self.reach().await?;
            let state = self.state.lock();
            let from = state.cells.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
            let cell = |(name, (version, value)): (&String, &(u64, Vec<u8>))| Cell {
                name: name.clone(),
                value: value.clone(),
                version: *version,
            };
            Ok(from.map(cell).collect())
        })
    }

    fn trim(&self, through: u64) -> Work<'_, ()> {
        Box::pin(async move {
            self.reach().await?;
            self.state.lock().trim(through);
            Ok(())
        })
    }
}

impl State {
    fn commit(&mut self, commit: Commit) -> Result<u64, Error> {
        let version = |name: &String| self.cells.get(name).map_or(0, |(version, _)| *version);
        if let Some((name, _)) = commit.expect.iter().find(|(name, wanted)| version(name) != *wanted) {
            return Err(Error::Conflict(name.clone()));
        }
        self.counter += 1;
        for (name, value) in commit.cells {
            match value {
                Some(value) => self.cells.insert(name, (self.counter, value)),
                None => self.cells.remove(&name),
            };
        }
        let Some(text) = commit.record else { return Ok(0) };
        let record = Record { position: self.counter, text: text.into() };
        let head = self.records.back().map_or(self.floor, |(_, mark)| *mark);
        self.records.push_back((record.clone(), head.then(&record)));
        Ok(self.counter)
    }

    fn read(&self, after: u64, limit: usize) -> Result<Page, Error> {
        if after < self.floor.position {
            return Err(Error::Trimmed(self.floor));
        }
        let first = self.records.partition_point(|(record, _)| record.position <= after);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (record, _) in self.records.range(first..) {
            if records.len() == limit || bytes >= PAGE_BYTES_MAX {
                return Ok(Page { records, has_more: true, floor: self.floor });
            }
            bytes += record.text.len();
            records.push(record.clone());
        }
        Ok(Page { records, has_more: false, floor: self.floor })
    }

    fn trim(&mut self, through: u64) {
        while let Some((_, mark)) = self.records.pop_front_if(|(record, _)| record.position <= through) {
            self.floor = mark;
        }
    }

    /// What an unreliable network could make of a page.
    fn disorder(&mut self, records: &mut Vec<Record>) {
        let Some(last) = records.len().checked_sub(1) else { return };
        let index = usize::try_from(self.draw.bits() >> 1).unwrap_or(0) % records.len();
        let earlier = self.records.iter().rev().find(|(record, _)| record.position < records[0].position);
        match (self.draw.0 % 4, earlier) {
            (0, _) => records.insert(index, records[index].clone()),
            (1, _) => _ = records.remove(index),
            (2, Some((earlier, _))) => records.insert(0, earlier.clone()),
            _ if index < last => records.swap(index, last),
            _ => _ = records.pop(),
        }
    }

    fn happens(&mut self, of_1000: u16) -> bool {
        of_1000 > 0 && self.draw.bits() % 1_000 < u64::from(of_1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: usize) -> Commit {
        Commit { record: Some(n.to_string()), ..Commit::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_acknowledged_is_kept_whatever_else_goes_wrong() {
        for seed in 0..20 {
            let journal = Memory::new("m", seed);
            let delay_max = Duration::from_secs(1);
            journal.set_faults(Faults { unavailable: 100, unknown: 200, delay_max, ..Faults::default() });
            let (mut sure, mut maybe) = (Vec::new(), 0);
            for n in 0..200 {
                match journal.commit(record(n)).await {
                    Ok(position) => sure.push(Record { position, text: n.to_string().into() }),
                    Err(Error::Unknown(_)) => maybe += 1,
                    Err(Error::Unavailable(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            journal.set_faults(Faults::default());
            let all = journal.read(0, 1_000).await.unwrap().records;
            assert!(sure.iter().all(|record| all.contains(record)), "seed {seed}");
            assert!(
                all.len() > sure.len() && all.len() < sure.len() + maybe,
                "seed {seed}: neither always nor never"
            );
        }
    }

    #[tokio::test]
    async fn an_unruly_page_is_not_what_an_engine_may_give() {
        let journal = Memory::new("m", 7);
        for n in 0..10 {
            journal.commit(record(n)).await.unwrap();
        }
        let right = journal.read(4, 4).await.unwrap();
        journal.set_faults(Faults { unruly: 1_000, ..Faults::default() });
        for _ in 0..100 {
            assert_ne!(journal.read(4, 4).await.unwrap(), right);
        }
    }

    #[tokio::test]
    async fn it_trims_at_will_and_says_so() {
        let journal = Memory::new("m", 7);
        journal.set_faults(Faults { trim: 300, ..Faults::default() });
        for n in 0..100 {
            journal.commit(record(n)).await.unwrap();
        }
        let Err(Error::Trimmed(floor)) = journal.read(0, 1).await else { panic!("it did not trim") };
        assert!(!journal.read(floor.position, 1).await.unwrap().records.is_empty());
    }
}
