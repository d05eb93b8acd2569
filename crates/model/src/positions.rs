//! What a node knows of the others' purges: from its own positions to those of the journal that all follow, and back.
//!
//! A node numbers its purges by itself ([`crate::purge`]), and an object carries the number that was known when its fetch began.
//! Between nodes only the journal's positions mean anything:
//!
//! ```text
//! journal   …17 │ 18 19 20 │ 21 │ 22 …        an answer says "21": whatever was purged up to there was in force
//! own       … 5 │    6     │  6 │  7 …        where it was fetched or last checked
//! ```
//!
//! Whoever asks another node says what the answer must know of ([`Positions::demands`]): the newest purge of just this that the
//! asker knows. A node that has not come so far validates what it has, and may then say that it knows of that
//! ([`Positions::raised`]): the purge was over before it was asked. The asker believes no claim but looks what was purged since
//! ([`Positions::accepts`]).
//!
//! What a node has purged on nobody's word but its visitors' or its own operator's, no position of the journal says anything
//! about: a copy of such a thing is taken only if it was validated for this node ([`NOW`]).

use std::collections::{HashSet, VecDeque};

use crate::purge::{Kind, Purge, PurgeClock, Subject};

/// As a claim: validated at the origin for this very request. As a demand: let it be. Above all positions.
pub const NOW: u64 = u64::MAX;

/// Steps that are remembered: copies that were fetched before the oldest are validated.
pub const STEPS_MAX: usize = 4096;

/// URLs that visitors' requests have invalidated and that are remembered; of twice as many, the older half is forgotten. What
/// is forgotten is older than so many others, and was never acknowledged to anybody.
pub const CHANGED_MAX: usize = 16_384;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    steps: VecDeque<Step>,
    own: PurgeClock,
    has_own: bool,
    changed: [HashSet<u128>; 2],
}

/// All of the journal up to `journal` was in force from the own position `own` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    own: u64,
    journal: u64,
}

impl Positions {
    /// The journal has been put in force up to `journal`, and own positions have come to `own` by that; `None` when nothing was
    /// purged since the last time. Where the journal's go back, it is another one or was put back, and what was known of its
    /// positions means nothing any more.
    pub fn reached(&mut self, journal: u64, own: Option<u64>) {
        let last = self.steps.back_mut();
        let own = own.unwrap_or(last.as_ref().map_or(0, |last| last.own));
        match last {
            Some(last) if last.own > own => return,
            Some(last) if last.journal > journal => {
                self.steps.clear();
                self.steps.push_back(Step { own, journal });
            }
            Some(last) if last.own == own => last.journal = journal,
            _ => self.steps.push_back(Step { own, journal }),
        }
        if self.steps.len() > STEPS_MAX {
            self.steps.pop_front();
        }
    }

    /// The journal's position that this node has reached; 0 where it follows none.
    pub fn newest(&self) -> u64 {
        self.steps.back().map_or(0, |step| step.journal)
    }

    /// Notes purges that no journal has, at an own position.
    pub fn purged_here(&mut self, purges: &[Purge], own: u64) {
        if !std::mem::replace(&mut self.has_own, true) {
            self.own = PurgeClock::new(crate::purge::Limits::default());
        }
        purges.iter().for_each(|purge| self.own.record(purge.clone(), own));
    }

    /// Notes that a visitor's request has changed a URL.
    pub fn changed(&mut self, url: u128) {
        let [newer, older] = &mut self.changed;
        newer.insert(url);
        if newer.len() > CHANGED_MAX {
            std::mem::swap(newer, older);
            newer.clear();
        }
    }

    // --- To be asked ---

    /// What can be claimed of something that carries the own position `own`.
    pub fn claim(&self, own: u64) -> u64 {
        let after = self.steps.partition_point(|step| step.own <= own);
        after.checked_sub(1).map_or(0, |at| self.steps[at].journal)
    }

    /// Whether what is stored must be validated before it answers a demand, because it may have been purged by what this node has
    /// not heard of.
    pub fn lags_behind(&self, demand: u64) -> bool {
        demand > self.newest()
    }

    /// What a fetch that begins now for this demand knows of, besides what this node does; 0 for nothing.
    pub fn raised(&self, demand: u64) -> u64 {
        if self.lags_behind(demand) { demand } else { 0 }
    }

    /// Whether a demand is met by what a fetch brings that another has begun, at an own position and with a
    /// [`Positions::raised`].
    pub fn may_follow(&self, demand: u64, own: u64, raised: u64) -> bool {
        demand == 0 || (demand != NOW && demand <= self.claim(own).max(of_others(raised)))
    }

    // --- To ask ---

    /// What is to be demanded of another node: to know of the newest purge of this subject. 0 when there was none; then any copy
    /// will do. `purges`: all that are in force here.
    pub fn demands(&self, purges: &PurgeClock, subject: &Subject<'_>) -> u64 {
        if self.is_purged_here(subject) {
            return NOW;
        }
        match purges.check(&Subject { position: 0, ..*subject }) {
            Some((Kind::Hard | Kind::Doubt, own)) => self.known_from(own),
            Some((Kind::Soft, _)) | None => 0,
        }
    }

    /// The own position up to which a copy with this claim is good, and at most `own`: that of the fetch that has brought it. Or
    /// what to demand when it is asked for again, because it is older than a purge of it.
    ///
    /// - `demand`: what whoever asked this node wants known, which this node takes nobody's word for.
    /// - `subject`: with the tags of the copy.
    pub fn accepts(
        &self,
        purges: &PurgeClock,
        subject: &Subject<'_>,
        claim: u64,
        demand: u64,
        own: u64,
    ) -> Result<u64, u64> {
        let wanted = self.raised(demand);
        if claim < wanted {
            return Err(wanted);
        }
        if claim == NOW {
            return Ok(own);
        }
        if self.is_purged_here(subject) {
            return Err(NOW);
        }
        let known = match self.steps.partition_point(|step| step.journal <= claim).checked_sub(1) {
            Some(at) => self.steps[at].own,
            None if self.steps.is_empty() => 0,
            // From before anything that this node knows.
            None => return Err(self.newest()),
        };
        match purges.check(&Subject { position: known, ..*subject }) {
            None => Ok(own),
            // Stale, as it is here.
            Some((Kind::Soft, _)) => Ok(known.min(own)),
            Some((Kind::Hard | Kind::Doubt, at)) => Err(self.known_from(at)),
        }
    }

    /// From which position of the journal on the purge at an own position is known.
    fn known_from(&self, own: u64) -> u64 {
        let at = self.steps.partition_point(|step| step.own < own);
        self.steps.get(at).map_or(NOW, |step| step.journal)
    }

    /// Whether something of this kind was ever purged or changed here on no journal's word.
    fn is_purged_here(&self, subject: &Subject<'_>) -> bool {
        self.changed.iter().any(|urls| urls.contains(&subject.url))
            || self.own.check(&Subject { position: 0, ..*subject }).is_some()
    }
}

/// What of a fetch's [`Positions::raised`] holds for those who have joined it later: what was validated for its first was so
/// before they asked.
pub fn of_others(raised: u64) -> u64 {
    if raised == NOW { 0 } else { raised }
}

#[cfg(test)]
mod tests;
