//! The newest records as the watch has brought them, so that whoever follows need not ask for each. Only what goes on without a gap, each
//! digest following from the one before; whatever does not fit is left to reading, which says what is wrong.

use std::collections::VecDeque;

use crate::{Digest, Mark, PAGE_BYTES_MAX, Record};

/// Records kept, at most, and bytes of their texts: seconds of the busiest journal, so that a follower that was held up finds them.
const RECORDS_MAX: usize = 2_048;
const BYTES_MAX: usize = 4 << 20;

/// See the module's text.
#[derive(Default)]
pub(super) struct Recent {
    /// Before the first of them; `None` while nothing is watched.
    base: Option<Mark>,
    /// With the mark after each.
    records: VecDeque<(Record, Mark)>,
    bytes: usize,
}

impl Recent {
    /// A watch begins after a mark.
    pub(super) fn begin(&mut self, after: Mark) {
        *self = Recent { base: Some(after), ..Recent::default() };
    }

    /// Nothing is watched any more.
    pub(super) fn end(&mut self) {
        *self = Recent::default();
    }

    /// Adds a record, with the digest that was written with it.
    pub(super) fn bring(&mut self, record: Record, digest: Digest) {
        let Some(last) = self.last() else { return };
        let mark = Mark { position: record.position, digest };
        if record.position <= last.position {
            // It was known before the watch told of it. Unless it is another one by now.
            if self.at(mark.position).is_some_and(|known| known != mark) {
                self.begin(last);
            }
            return;
        }
        if last.then(&record) != mark {
            // Who is there already goes on from there; nobody else is led past what is missing.
            self.begin(mark);
            return;
        }
        self.bytes += record.text.len();
        self.records.push_back((record, mark));
        while self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX {
            let Some((gone, mark)) = self.records.pop_front() else { break };
            self.bytes -= gone.text.len();
            self.base = Some(mark);
        }
    }

    /// Adds what was written here, where nothing is missing before it: else the watch will bring both.
    pub(super) fn wrote(&mut self, records: Vec<(Record, Digest)>) {
        for (record, digest) in records {
            if self.last().is_some_and(|last| last.position.checked_add(1) == Some(record.position)) {
                self.bring(record, digest);
            }
        }
    }

    /// Up to `limit` records that follow a mark. None when it is not known here.
    pub(super) fn after(&self, mark: Mark, limit: usize) -> Vec<Record> {
        if self.at(mark.position) != Some(mark) {
            return Vec::new();
        }
        let first = self.records.partition_point(|(_, known)| known.position <= mark.position);
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let before = bytes;
            bytes += record.text.len();
            before < PAGE_BYTES_MAX
        };
        self.records.range(first..).map(|(record, _)| record).take(limit).take_while(fits).cloned().collect()
    }

    /// Whether a record at that position is here, or would not be brought.
    pub(super) fn reaches(&self, position: u64) -> bool {
        self.last().is_none_or(|last| last.position >= position)
    }

    fn last(&self) -> Option<Mark> {
        self.records.back().map(|(_, mark)| *mark).or(self.base)
    }

    fn at(&self, position: u64) -> Option<Mark> {
        let base = self.base?;
        let index = position.checked_sub(base.position)?;
        match usize::try_from(index).ok()?.checked_sub(1) {
            None => Some(base),
            Some(index) => self.records.get(index).map(|(_, mark)| *mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(from: Mark, texts: &[&str]) -> Vec<(Record, Mark)> {
        let mut mark = from;
        let next = |text: &&str| {
            let record = Record { position: mark.position + 1, text: (*text).into() };
            mark = mark.then(&record);
            (record, mark)
        };
        texts.iter().map(next).collect()
    }

    fn texts(recent: &Recent, mark: Mark) -> Vec<String> {
        recent.after(mark, 100).iter().map(|record| record.text.to_string()).collect()
    }

    #[test]
    fn what_the_watch_brings_follows_the_mark_that_it_began_after() {
        let all = chain(Mark::default(), &["a", "b", "c", "d"]);
        let begin = all[0].1;
        let mut recent = Recent::default();
        recent.bring(all[1].0.clone(), all[1].1.digest);
        assert!(texts(&recent, begin).is_empty() && recent.reaches(99), "nothing is watched");
        recent.begin(begin);
        for (record, mark) in &all[1..] {
            assert!(!recent.reaches(mark.position));
            recent.bring(record.clone(), mark.digest);
            // The one who has written it, and the watch.
            recent.bring(record.clone(), mark.digest);
            assert!(recent.reaches(mark.position));
        }
        assert_eq!(texts(&recent, begin), ["b", "c", "d"]);
        assert_eq!(texts(&recent, all[2].1), ["d"]);
        assert_eq!(recent.after(begin, 2).len(), 2);
        assert!(texts(&recent, all[3].1).is_empty(), "there is no more");
        assert!(texts(&recent, Mark::default()).is_empty(), "older than the watch");
        assert!(texts(&recent, Mark { position: 2, ..begin }).is_empty(), "of another journal");
        recent.end();
        assert!(texts(&recent, begin).is_empty());
    }

    #[test]
    fn nobody_is_led_past_a_gap_or_a_digest_that_does_not_follow() {
        let all = chain(Mark::default(), &["a", "b", "c", "d"]);
        let mut recent = Recent::default();
        recent.begin(Mark::default());
        recent.bring(all[0].0.clone(), all[0].1.digest);
        recent.bring(all[2].0.clone(), all[2].1.digest);
        recent.bring(all[3].0.clone(), all[3].1.digest);
        assert!(texts(&recent, Mark::default()).is_empty() && texts(&recent, all[0].1).is_empty());
        assert_eq!(texts(&recent, all[2].1), ["d"]);

        recent.begin(Mark::default());
        recent.bring(all[0].0.clone(), all[0].1.digest);
        let changed = Record { text: "x".into(), ..all[1].0.clone() };
        recent.bring(changed, all[1].1.digest);
        assert!(texts(&recent, all[0].1).is_empty());

        // A record that was known is another one now.
        recent.begin(Mark::default());
        all[..2].iter().for_each(|(record, mark)| recent.bring(record.clone(), mark.digest));
        recent.bring(all[0].0.clone(), Digest([7; 16]));
        assert!(texts(&recent, Mark::default()).is_empty());
    }

    #[test]
    fn it_keeps_the_newest_within_its_bounds() {
        let text = "x".repeat(100);
        let all = chain(Mark::default(), &vec![text.as_str(); RECORDS_MAX + 10]);
        let mut recent = Recent::default();
        recent.begin(Mark::default());
        all.iter().for_each(|(record, mark)| recent.bring(record.clone(), mark.digest));
        assert!(texts(&recent, all[8].1).is_empty());
        assert_eq!(recent.after(all[9].1, usize::MAX).len(), RECORDS_MAX);
        let long = "x".repeat(BYTES_MAX / 2 + 1);
        let more = chain(all[all.len() - 1].1, &[&long, &long]);
        more.iter().for_each(|(record, mark)| recent.bring(record.clone(), mark.digest));
        assert_eq!((recent.records.len(), recent.bytes), (1, long.len()));
        assert_eq!(recent.after(more[0].1, 5).len(), 1);
    }
}
