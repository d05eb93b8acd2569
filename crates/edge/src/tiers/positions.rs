//! What a node knows of the others' purges: from its own positions to those of the journal that all follow, and back.
//!
//! A node numbers its purges by itself, and an object carries the number that was known when its fetch began. Between nodes only
//! the journal's positions mean anything:
//!
//! ```text
//! journal   …17 │ 18 19 20 │ 21 │ 22 …        an answer says "21": whatever was purged up to there was in force
//! own       … 5 │    6     │  6 │  7 …        where it was fetched or last checked
//! ```
//!
//! What a node has purged on nobody's word but its visitors' or its own operator's, no position of the journal says anything
//! about: a copy of such a thing is taken only if it was validated for this node ([`NOW`]).

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use model::purge::{Limits, Purge, PurgeClock, Subject};
use parking_lot::RwLock;

/// As a claim: validated at the origin for this very request. As a demand: let it be. Above all positions.
pub(crate) const NOW: u64 = u64::MAX;

/// Steps that are remembered: copies that were fetched before the oldest are validated.
const STEPS_MAX: usize = 4096;

/// URLs that visitors' requests have invalidated and that are remembered; of twice as many, the older half is forgotten. What
/// is forgotten is older than so many others, and was never acknowledged to anybody.
const CHANGED_MAX: usize = 16_384;

/// See the module's text.
#[derive(Default)]
pub(crate) struct JournalPositions {
    steps: RwLock<VecDeque<Step>>,
    newest: AtomicU64,
    own: RwLock<PurgeClock>,
    changed: RwLock<[HashSet<u128>; 2]>,
}

/// All of the journal up to `journal` was in force from the own position `own` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    own: u64,
    journal: u64,
}

/// What a claim means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// All up to this own position was in force there.
    UpTo(u64),
    /// It is from before anything that this node knows.
    TooOld,
}

impl JournalPositions {
    /// The journal has been put in force up to `journal`, and own positions have come to `own` by that.
    pub(crate) fn reached(&self, own: u64, journal: u64) {
        let mut steps = self.steps.write();
        match steps.back_mut() {
            Some(last) if last.own == own => last.journal = last.journal.max(journal),
            Some(last) if last.own > own => return,
            // It is another journal, or was put back: what was said of its positions means nothing any more.
            Some(last) if last.journal > journal => {
                steps.clear();
                steps.push_back(Step { own, journal });
            }
            _ => steps.push_back(Step { own, journal }),
        }
        if steps.len() > STEPS_MAX {
            steps.pop_front();
        }
        self.newest.store(journal, Ordering::Release);
    }

    /// The own position of the newest step.
    pub(crate) fn newest_own(&self) -> u64 {
        self.steps.read().back().map_or(0, |step| step.own)
    }

    /// The journal's position that this node has reached; 0 where it follows none.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// What can be claimed of something that carries the own position `own`.
    pub(crate) fn claim(&self, own: u64) -> u64 {
        let steps = self.steps.read();
        let after = steps.partition_point(|step| step.own <= own);
        after.checked_sub(1).map_or(0, |at| steps[at].journal)
    }

    /// What to demand so that the purge at the own position `own` is known there.
    pub(crate) fn demand(&self, own: u64) -> u64 {
        let steps = self.steps.read();
        steps.get(steps.partition_point(|step| step.own < own)).map_or(NOW, |step| step.journal)
    }

    /// What `claim`, which is not [`NOW`], says about own positions.
    pub(crate) fn known(&self, claim: u64) -> Known {
        let steps = self.steps.read();
        match steps.partition_point(|step| step.journal <= claim).checked_sub(1) {
            Some(at) => Known::UpTo(steps[at].own),
            None if steps.is_empty() => Known::UpTo(0),
            None => Known::TooOld,
        }
    }

    /// Notes purges that no journal has.
    pub(crate) fn purged_here(&self, purges: &[Purge], own: u64) {
        let mut clock = self.own.write();
        if clock.newest() == 0 {
            *clock = PurgeClock::new(Limits::default());
        }
        purges.iter().for_each(|purge| clock.record(purge.clone(), own));
    }

    /// Notes that a visitor's request has changed a URL.
    pub(crate) fn changed(&self, url: u128) {
        let [newer, older] = &mut *self.changed.write();
        newer.insert(url);
        if newer.len() > CHANGED_MAX {
            std::mem::swap(newer, older);
            newer.clear();
        }
    }

    /// Whether something of this kind was ever purged or changed here on no journal's word.
    pub(crate) fn is_purged_here(&self, subject: &Subject<'_>) -> bool {
        let is_changed = || self.changed.read().iter().any(|urls| urls.contains(&subject.url));
        is_changed() || self.own.read().check(&Subject { position: 0, ..*subject }).is_some()
    }
}

#[cfg(test)]
mod tests {
    use model::purge::{Kind, Target};

    use super::*;

    #[test]
    fn claims_are_never_newer_and_demands_never_older_than_what_is_known() {
        let positions = JournalPositions::default();
        assert_eq!((positions.claim(9), positions.demand(9)), (0, NOW), "without a journal");
        assert_eq!(positions.known(0), Known::UpTo(0));
        positions.reached(5, 17);
        positions.reached(6, 20);
        positions.reached(6, 21);
        positions.reached(8, 22);
        for (own, claim, demand) in
            [(4, 0, 17), (5, 17, 17), (6, 21, 21), (7, 21, 22), (8, 22, 22), (9, 22, NOW)]
        {
            assert_eq!((positions.claim(own), positions.demand(own)), (claim, demand), "{own}");
        }
        for (claim, known) in [
            (0, Known::TooOld),
            (16, Known::TooOld),
            (17, Known::UpTo(5)),
            (20, Known::UpTo(5)),
            (21, Known::UpTo(6)),
            (22, Known::UpTo(8)),
            (99, Known::UpTo(8)),
        ] {
            assert_eq!(positions.known(claim), known, "{claim}");
        }
        assert_eq!(positions.newest(), 22);
    }

    #[test]
    fn what_was_forgotten_is_too_old() {
        let positions = JournalPositions::default();
        (1..=STEPS_MAX as u64 + 10).for_each(|step| positions.reached(step, step * 2));
        assert_eq!(positions.known(20), Known::TooOld);
        assert_eq!(positions.known(22), Known::UpTo(11));
    }

    #[test]
    fn own_purges_and_changes_are_remembered_whatever_is_claimed() {
        let positions = JournalPositions::default();
        let subject = |url, tags| Subject { site: 1, url, host: "a.example", path: "/x", tags, position: 0 };
        assert!(!positions.is_purged_here(&subject(7, &[3])));
        positions.changed(7);
        assert!(positions.is_purged_here(&subject(7, &[])));
        assert!(!positions.is_purged_here(&subject(8, &[3])));
        let tag = Purge { target: Target::Tag { site: Some(1), tag: 3 }, kind: Kind::Hard };
        positions.purged_here(&[tag], 12);
        assert!(positions.is_purged_here(&subject(8, &[3])));
        (100..100 + 2 * CHANGED_MAX as u128 + 2).for_each(|url| positions.changed(url));
        assert!(!positions.is_purged_here(&subject(7, &[])), "forgotten after many others");
    }
}
