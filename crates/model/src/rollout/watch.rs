//! What a roll-out has seen of the nodes, in the memory of whoever steps it. Time is what was watched: gaps, jumps of the
//! clock and hours without anybody stepping count for nothing, so that nothing is ever proven by them.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{CONFIRMED_ALONE, NodeView};
use crate::vitals::Vitals;

/// The most that one step counts for, whatever the clock says.
const STEP_MS_MAX: u64 = 5_000;
/// A node without a sign of life for so long is silent: fifteen reports.
pub(super) const SILENCE_MS: u64 = 15_000;
/// Within which one reports that is alive: three reports.
const LIVELY_MS: u64 = 3_000;
/// The time of "now" for shares: short, so that what begins late is not lost in what was good before.
pub(super) const RECENT_MS: u64 = 10_000;
/// And for memory, whose noise needs more points.
pub(super) const MEMORY_MS: u64 = 30_000;
/// The time of "lately" for whether a router answers itself, for those that now do and now do not.
pub(super) const LATELY_MS: u64 = 60_000;
/// For so long after its start a node is cold, and its numbers are not compared.
const COLD_MS: u64 = 600_000;
/// Reports of a node that are remembered: more than come in [`MEMORY_MS`].
const SAMPLES_MAX: usize = 40;

#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    last_ms: Option<i64>,
    /// Milliseconds watched.
    now: u64,
    stage_began: u64,
    /// Whether a stage has begun in this watch.
    is_begun: bool,
    nodes: HashMap<String, Seen>,
}

/// What was seen of one node.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    reported_ms: i64,
    heard: u64,
    starts: u64,
    cold_until: u64,
    /// Whether it was in contact when the stage began.
    pub(super) was_there: bool,
    /// Whether it has reported since the step before.
    pub(super) is_new: bool,
    /// When it was first in contact in this stage, to be cleared when contact is lost.
    pub(super) reachable_since: Option<u64>,
    /// Where this stage began for it: a node that is to run the candidate, when it did.
    pub(super) began: Option<Began>,
    /// How many reports have come since it is watched; the first may be an old one.
    reports: u32,
    /// For how many reports in a row it has said that it does not answer itself.
    pub(super) unwell: u32,
    /// When it has said so, as far as that is within [`LATELY_MS`]: no more than are counted, newest last.
    missed: VecDeque<u64>,
    /// The longest, in ms, that it has answered itself without a break since this stage began for it.
    pub(super) answered_ms: u64,
    /// Since when its reports say that it answers itself, or that it does not.
    pub(super) turned: u64,
    /// When it was to begin with what it is to run now.
    pub(super) told: u64,
    samples: VecDeque<(u64, Vitals)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Began {
    pub(super) at: u64,
    pub(super) vitals: Vitals,
    pub(super) starts: u64,
}

impl Watch {
    /// `is_begun`: whether this stage has begun for a node, as far as it depends on what it runs.
    pub(super) fn observe(&mut self, now_ms: i64, nodes: &[NodeView], is_begun: impl Fn(&NodeView) -> bool) {
        let step =
            self.last_ms.map_or(0, |last| now_ms.saturating_sub(last).clamp(0, STEP_MS_MAX as i64) as u64);
        self.last_ms = Some(now_ms);
        self.now += step;
        let now = self.now;
        let names: HashSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        self.nodes.retain(|name, _| names.contains(name.as_str()));
        for node in nodes {
            let seen = self.nodes.entry(node.name.clone()).or_insert_with(|| Seen {
                reported_ms: 0,
                heard: 0,
                starts: node.starts,
                cold_until: 0,
                was_there: false,
                is_new: false,
                reachable_since: None,
                began: None,
                reports: 0,
                unwell: 0,
                missed: VecDeque::new(),
                answered_ms: 0,
                turned: now,
                told: now,
                samples: VecDeque::new(),
            });
            seen.is_new = node.reported_ms != seen.reported_ms && node.reported_ms > 0;
            if seen.is_new {
                (seen.reported_ms, seen.heard) = (node.reported_ms, now);
                seen.reports = seen.reports.saturating_add(1);
                if seen.reports == 1 || node.unwell.is_some() != (seen.unwell > 0) {
                    seen.turned = now;
                }
                seen.unwell = if node.unwell.is_some() { seen.unwell.saturating_add(1) } else { 0 };
                if node.unwell.is_some() {
                    seen.missed.push_back(now);
                }
                while seen.missed.len() > CONFIRMED_ALONE as usize
                    || seen.missed.front().is_some_and(|first| now - first > LATELY_MS)
                {
                    seen.missed.pop_front();
                }
                if node.starts != seen.starts {
                    seen.starts = node.starts;
                    seen.cold_until = now + COLD_MS;
                }
                while seen.samples.len() >= SAMPLES_MAX
                    || seen.samples.front().is_some_and(|first| now - first.0 > MEMORY_MS)
                {
                    seen.samples.pop_front();
                }
                seen.samples.push_back((now, node.vitals));
                if seen.began.is_none() && is_begun(node) {
                    seen.began = Some(Began { at: now, vitals: node.vitals, starts: node.starts });
                }
                if let Some(began) = seen.began.filter(|_| seen.unwell == 0) {
                    seen.answered_ms = seen.answered_ms.max(now - began.at.max(seen.turned));
                }
            }
            match seen.is_silent(now) {
                true => seen.reachable_since = None,
                false => _ = seen.reachable_since.get_or_insert(now),
            }
        }
    }

    /// From now on another stage is watched.
    pub(super) fn begin_stage(&mut self) {
        let now = self.now;
        self.stage_began = now;
        self.is_begun = true;
        self.nodes.values_mut().for_each(|seen| seen.begin(now));
    }

    /// This stage begins for one node only now.
    pub(super) fn begin_for(&mut self, name: &str) {
        let now = self.now;
        if let Some(seen) = self.nodes.get_mut(name) {
            seen.begin(now);
        }
    }

    /// Whether it has only begun to watch.
    pub(super) fn is_fresh(&self) -> bool {
        !self.is_begun
    }

    /// For how long this stage has been watched, in ms.
    pub(super) fn elapsed(&self) -> u64 {
        self.now - self.stage_began
    }

    /// How long ago `at` was.
    pub(super) fn ago(&self, at: u64) -> u64 {
        self.now.saturating_sub(at)
    }

    pub(super) fn seen(&self, name: &str) -> Option<&Seen> {
        self.nodes.get(name)
    }

    pub(super) fn is_silent(&self, name: &str) -> bool {
        self.nodes.get(name).is_none_or(|seen| seen.is_silent(self.now))
    }

    /// Whether it reports just now, for sure: one that has died of late is not silent yet.
    pub(super) fn is_lively(&self, name: &str) -> bool {
        self.nodes
            .get(name)
            .is_some_and(|seen| seen.reports > 1 && self.now.saturating_sub(seen.heard) <= LIVELY_MS)
    }

    /// In how many reports it has said lately that it does not answer itself; of more than [`CONFIRMED_ALONE`] that many.
    pub(super) fn missed(&self, name: &str) -> u32 {
        let missed = self.nodes.get(name).map(|seen| seen.missed.iter());
        missed.map_or(0, |missed| missed.filter(|at| self.ago(**at) <= LATELY_MS).count() as u32)
    }

    pub(super) fn is_cold(&self, name: &str) -> bool {
        self.nodes.get(name).is_none_or(|seen| self.now < seen.cold_until)
    }

    /// What a node has counted of late, or since this stage began for it. `None` where that cannot be told.
    pub(super) fn counted(&self, name: &str, span: Span) -> Option<Vitals> {
        let seen = self.nodes.get(name)?;
        let (newest, vitals) = seen.samples.back()?;
        let began = seen.began?;
        let earlier = match span {
            Span::Stage => began.vitals,
            Span::Recent => {
                let from = newest.saturating_sub(RECENT_MS);
                let sample =
                    seen.samples.iter().rev().find(|(at, _)| *at <= from).filter(|(at, _)| *at >= began.at);
                sample.map_or(began.vitals, |(_, vitals)| *vitals)
            }
        };
        (earlier.since_ms == vitals.since_ms).then(|| vitals.since(&earlier))
    }

    /// Seconds and bytes of memory, of late.
    pub(super) fn memory(&self, name: &str) -> impl Iterator<Item = (f64, f64)> + Clone {
        let seen = self.nodes.get(name);
        let from = seen.and_then(|seen| seen.began).map_or(u64::MAX, |began| began.at);
        let samples = seen.into_iter().flat_map(|seen| &seen.samples).filter(move |(at, _)| *at >= from);
        samples.map(|(at, vitals)| (*at as f64 / 1000.0, vitals.memory_bytes as f64))
    }
}

/// The time that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// [`RECENT_MS`].
    Recent,
    /// Since the stage began.
    Stage,
}

impl Seen {
    fn begin(&mut self, now: u64) {
        self.was_there = !self.is_silent(now);
        self.reachable_since = self.was_there.then_some(now);
        (self.began, self.told, self.answered_ms) = (None, now, 0);
    }

    fn is_silent(&self, now: u64) -> bool {
        self.reported_ms == 0 || now.saturating_sub(self.heard) > SILENCE_MS
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_step_takes_its_time_by_nodes_and_not_by_pairs_of_them() {
        let node = |number: usize| NodeView {
            name: format!("edge-of-frankfurt-{number}"),
            pop: "fra".into(),
            is_router: false,
            reported_ms: 1,
            running: None,
            refused: None,
            unwell: None,
            starts: 1,
            vitals: Vitals::default(),
        };
        let nodes: Vec<NodeView> = (0..50_000).map(node).collect();
        let (mut watch, begun) = (Watch::default(), Instant::now());
        (0..2).for_each(|second| watch.observe(1_000 * second, &nodes, |_| false));
        // Unoptimized, it takes 0.8 s, and by pairs 20 s.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        watch.observe(2_000, &nodes[1..], |_| false);
        assert!(watch.seen(&nodes[0].name).is_none() && watch.seen(&nodes[1].name).is_some());
    }
}
