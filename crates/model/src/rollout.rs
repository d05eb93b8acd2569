//! A configuration on its way to all nodes: one node, its PoP, all; watched at each step, and undone by itself when it does
//! harm. A pure state machine that control steps each second with what the nodes report.
//!
//! ```text
//! measure ──► edge ──► pop ──► all ──► promoted      what is stable changes here and nowhere else
//!   30 s      90 s     60 s    300 s
//!               └────────┴───────┴───► undone        by harm, at once
//! ```
//!
//! A node is judged by what it did before (`measure`), and by what the nodes that run the stable configuration do at the same
//! time: it does harm when it has got worse than it was, by more than the others have. So
//! neither a node that was always slower nor an origin that fails for all speaks against a candidate. What counts as worse,
//! and how sure it has to be, is [`Gates`].
//!
//! With too few requests to judge a stage takes its longest time, and then goes on if nothing spoke against it: an idle
//! cluster must be able to roll out, and where nobody asks nobody is harmed. The roll-out says so
//! ([`Rollout::judged_on_few`]), and an operator who will not wait says [`Rollout::without_traffic`].
//!
//! In the last stage there is nobody left to compare with: what gets worse then is taken for the candidate's doing, also when
//! it is an origin's. To go back is the safe mistake. Slowness alone, which every machine and network has for some seconds, counts
//! there only while it lasts, and has to last for longer.
//!
//! Where nothing was stable before, there is nothing to go back to: without a configuration nodes answer nobody, which is worse
//! than any harm. Such a one is never undone by itself. What speaks against it holds it up before the last stage, where the others have
//! nothing to lose, and is only told in the last.
//!
//! Nameservers take it one at a time, once all edges run it ([`admission`]): whoever asks for a zone asks all of them.
//!
//! Nodes out of contact neither hold it up nor speak for it: they take up what is stable when they are back.
//!
//! The whole is written down by control whenever a step decided something, together with [`Rollout::plan`]; the watching
//! itself is not ([`Rollout`] is read without it), so that another control that goes on begins the stage's time anew.

mod admission;
mod gates;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::change::{Audience, Candidate, Plan, Version};
use crate::vitals::Vitals;
pub use gates::*;
use gates::{Allowance, Line, Share, Typical};
use watch::{Span, Watch};

/// How long the nodes are looked at before anything is changed.
const MEASURE_MS: u64 = 30_000;
/// Requests of a stage, or of a node's measuring, that are enough to judge by.
const REQUESTS_ENOUGH: u64 = 200;
/// Steps in a row that a share must be too large for, and reports in which a router does not answer: a moment is none.
const CONFIRMED: u32 = 3;
/// The same for slowness once all run it and nobody is left to compare with: longer than [`watch::RECENT_MS`], so that a hiccup of
/// origins or machines has left the window by itself, and short enough for what stays to be undone within 30 s. And reports of
/// [`watch::LATELY_MS`] in which a router that runs it does not answer.
const CONFIRMED_ALONE: u32 = 20;
/// One in so many nodes may start anew, or lose contact, for reasons of its own; but two may not.
const STARTS_SHARE: usize = 50;
const SILENCE_SHARE: usize = 5;
/// Nodes of which it is noted how they were before: each takes up to some 500 bytes of what is written of a roll-out, which is to fit
/// into a cell of the journal (1 MiB). The others are compared as nodes are that have joined since.
const MEASURED_MAX: usize = 1_500;

/// How long a stage takes.
struct Times {
    /// When all is well.
    least_ms: u64,
    /// With too few requests to say.
    most_ms: u64,
    /// For a node that is in contact to come to run it.
    arrival_ms: u64,
}

/// The first stage is longer than the longest that a program is known to take to fall over a configuration: a minute, for
/// what comes with timers.
const EDGE: Times = Times { least_ms: 90_000, most_ms: 300_000, arrival_ms: 20_000 };
const POP: Times = Times { least_ms: 60_000, most_ms: 180_000, arrival_ms: 60_000 };
/// The bake time: only then it is the last known good.
const ALL: Times = Times { least_ms: 300_000, most_ms: 600_000, arrival_ms: 60_000 };

/// A configuration on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rollout {
    /// What is rolled out.
    pub version: Version,
    /// What ran before, and is gone back to.
    pub stable: Option<Version>,
    /// Who wanted it.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// How far it has come.
    pub stage: Stage,
    /// Who runs it by now.
    pub audience: Audience,
    /// When each stage began, in ms since 1970 by control's clock: for people.
    pub began_ms: Vec<(Stage, i64)>,
    /// The node that is to run it first, if somebody named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// What it may be worse by.
    #[serde(default)]
    pub gates: Gates,
    /// Whether sites begin empty with it, as [`crate::diff::Difference::is_cold`] says of a changed cache key: misses are expected then.
    #[serde(default)]
    pub is_cold: bool,
    /// Whether stages take their least time however few requests there are: an operator may set it at any time.
    #[serde(default)]
    pub without_traffic: bool,
    /// Whether it is to go no further: it is watched, and undone, all the same.
    #[serde(default)]
    pub is_paused: bool,
    /// Whether somebody has it go back to an older one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rollback: bool,
    /// Whether a stage went by with too few requests to judge.
    #[serde(default)]
    pub judged_on_few: bool,
    /// Routers that do not run it yet: each is admitted when the one before runs it and answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
    /// The router that was admitted last, if it has still to show that it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admitted: Option<String>,
    /// Why it was undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harm: Option<Harm>,
    /// How each node was before.
    #[serde(default)]
    before: BTreeMap<String, Before>,
    #[serde(skip)]
    watch: Watch,
    /// For how many steps in a row a measure of a node has been too large.
    #[serde(skip)]
    streaks: HashMap<(String, Measure), u32>,
}

/// How far a roll-out has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nobody runs it yet: the nodes are looked at as they are.
    Measure,
    /// One node.
    Edge,
    /// Its PoP.
    Pop,
    /// All.
    All,
    /// It is what is stable now.
    Promoted,
    /// It did harm, or somebody took it back.
    Undone,
}

/// How a roll-out goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// One node, its PoP, all.
    #[default]
    Staged,
    /// All at once, for emergencies; watched, and undone, all the same.
    AtOnce,
}

/// A node, as control sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// The place where it stands; empty when it is in none.
    pub pop: String,
    /// Whether it is a router, and no edge: of its queries those count as errors that name nothing that it knows.
    pub is_router: bool,
    /// When its newest report came, in ms since 1970 by control's clock; 0 when none ever did.
    pub reported_ms: i64,
    /// The configuration that it runs.
    pub running: Option<u64>,
    /// The number of the configuration that it would not take, and why.
    pub refused: Option<(u64, String)>,
    /// Why it does not answer a question that it has asked itself, if so.
    pub unwell: Option<String>,
    /// Starts of its program.
    pub starts: u64,
    /// What it has counted.
    pub vitals: Vitals,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// These nodes run it from now on.
    Widen(Audience),
    /// And this router.
    Admit(String),
    /// It is what is stable.
    Promote,
    /// It is taken back everywhere.
    Undo(Harm),
    /// Nothing, until this: in words, for people.
    Wait(String),
}

/// What a candidate does harm by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harm {
    /// Where it showed.
    pub node: String,
    /// In what.
    pub measure: Measure,
    /// The value, and what was allowed: in words.
    pub told: String,
}

impl std::fmt::Display for Harm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.node, self.told)
    }
}

/// How a node was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Before {
    vitals: Vitals,
    starts: u64,
    /// Of its memory, percent per minute.
    growth: f64,
    /// Whether it is a router that did not answer what it asks itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    was_unwell: bool,
}

fn paused() -> Decision {
    Decision::Wait("an operator to let it go on: it is paused".to_owned())
}

impl Rollout {
    /// Begins. Nothing has changed yet for staged ones; one at once is for all from the first step on.
    pub fn begin(
        version: Version,
        stable: Option<Version>,
        pace: Pace,
        by: &str,
        reason: &str,
        now_ms: i64,
    ) -> Self {
        let (stage, audience) = match pace {
            Pace::Staged => (Stage::Measure, Audience::Nodes(Vec::new())),
            Pace::AtOnce => (Stage::All, Audience::All),
        };
        Rollout {
            version,
            stable,
            by: by.to_owned(),
            reason: reason.to_owned(),
            stage,
            audience,
            began_ms: vec![(stage, now_ms)],
            canary: None,
            gates: Gates::default(),
            is_cold: false,
            without_traffic: false,
            is_paused: false,
            is_rollback: false,
            judged_on_few: false,
            waiting: Vec::new(),
            admitted: None,
            harm: None,
            before: BTreeMap::new(),
            watch: Watch::default(),
            streaks: HashMap::new(),
        }
    }

    /// What the nodes are to run as far as it has come.
    pub fn plan(&self) -> Plan {
        let (stable, candidate) = match self.stage {
            Stage::Measure | Stage::Undone => (self.stable.clone(), None),
            Stage::Edge | Stage::Pop | Stage::All => {
                let (version, to) = (self.version.clone(), self.audience.clone());
                let candidate = Candidate { version, to, waiting: self.waiting.clone() };
                (self.stable.clone(), Some(candidate))
            }
            Stage::Promoted => (Some(self.version.clone()), None),
        };
        Plan { stable, candidate }
    }

    /// What a node has counted in this stage, as far as it has been watched: since it runs the candidate, where it is to.
    pub fn counted(&self, node: &str) -> Option<Vitals> {
        self.watch.counted(node, Span::Stage)
    }

    /// Whether it has ended, well or not.
    pub fn is_over(&self) -> bool {
        self.stage >= Stage::Promoted
    }

    /// Has it begin in a whole PoP, before the first step.
    pub fn begin_in_pop(&mut self, pop: &str, now_ms: i64) {
        self.audience = Audience::Pops(vec![pop.to_owned()]);
        self.enter(Stage::Pop, now_ms);
    }

    /// Takes it back because somebody wants that.
    pub fn take_back(&mut self, now_ms: i64) {
        if !self.is_over() {
            self.enter(Stage::Undone, now_ms);
        }
    }

    /// Goes on with what an operator or another control has written meanwhile. Of this one's memory only what it has watched stays
    /// good, and that within a stage.
    pub fn go_on_from(&mut self, written: Rollout) {
        let was = std::mem::replace(self, written);
        if was.version != self.version || was.began_ms != self.began_ms {
            return;
        }
        (self.watch, self.streaks) = (was.watch, was.streaks);
        if self.before.is_empty() {
            self.before = was.before;
        }
        for admitted in was.waiting.iter().filter(|name| !self.waiting.contains(name)) {
            self.watch.begin_for(admitted);
        }
    }

    /// One step, to be taken about each second, with all nodes that are known.
    ///
    /// - `now_ms`: control's clock. What it jumps by counts for nothing.
    /// - Returns `None` when it is over. After all but [`Decision::Wait`] the roll-out is another: it is to be written down
    ///   together with [`Rollout::plan`], and where that fails the step is to be taken again on what was.
    pub fn step(&mut self, now_ms: i64, nodes: &[NodeView]) -> Option<Decision> {
        if self.is_over() {
            return None;
        }
        let (version, audience, waiting, is_measuring) =
            (self.version.number, &self.audience, &self.waiting, self.stage == Stage::Measure);
        self.watch.observe(now_ms, nodes, |node| {
            let is_for = audience.includes(&node.name, &node.pop) && !waiting.contains(&node.name);
            is_measuring || !is_for || node.running == Some(version)
        });
        if self.watch.is_fresh() {
            // The first step of all, or the first of another control.
            if self.stage >= Stage::Pop && self.before.is_empty() {
                self.measure(nodes);
            }
            self.watch.begin_stage();
        }
        if self.stage == Stage::Measure {
            return Some(if self.is_paused { paused() } else { self.measured(now_ms, nodes) });
        }
        let (routers, edges): (Vec<NodeView>, Vec<NodeView>) =
            nodes.iter().cloned().partition(|node| node.is_router);
        let harm = match self.find_harm(&edges) {
            None => self.find_harm_at_routers(&routers),
            harm => harm,
        };
        Some(match harm {
            Some(harm) if self.stable.is_none() => self.bear(&harm, now_ms, nodes),
            Some(harm) => self.undo(harm, now_ms),
            None if self.is_paused => paused(),
            None => match self.admit(&edges, &routers) {
                Some(decision) => decision,
                None => self.advance(now_ms, nodes),
            },
        })
    }

    fn enter(&mut self, stage: Stage, now_ms: i64) {
        self.stage = stage;
        self.began_ms.push((stage, now_ms));
        self.watch.begin_stage();
        self.streaks.clear();
        if self.is_over() {
            // Nobody is compared any more.
            self.before.clear();
        }
    }

    /// The first configuration of all does harm.
    fn bear(&mut self, harm: &Harm, now_ms: i64, nodes: &[NodeView]) -> Decision {
        if self.is_paused {
            return paused();
        }
        if self.stage != Stage::All {
            return Decision::Wait(format!(
                "{harm}; nothing was stable before, so it is not taken back: it goes no further until that is mended, or an operator takes it back"
            ));
        }
        match self.advance(now_ms, nodes) {
            Decision::Wait(what) => {
                Decision::Wait(format!("{what}; {harm}, and nothing was stable before to go back to"))
            }
            decision => decision,
        }
    }

    fn undo(&mut self, harm: Harm, now_ms: i64) -> Decision {
        self.enter(Stage::Undone, now_ms);
        self.harm = Some(harm.clone());
        Decision::Undo(harm)
    }

    // --- Measuring ---

    fn measured(&mut self, now_ms: i64, nodes: &[NodeView]) -> Decision {
        // With nothing stable there is nothing to compare with.
        let wanted = if self.stable.is_some() { MEASURE_MS } else { 0 };
        let left = wanted.saturating_sub(self.watch.elapsed());
        if left > 0 {
            return Decision::Wait(format!(
                "the nodes are looked at as they are, for {} s more",
                left.div_ceil(1000)
            ));
        }
        if !nodes.is_empty() && nodes.iter().all(|node| node.is_router) {
            // Nameservers alone: there is nobody but them to begin with, and they take it one at a time.
            self.measure(nodes);
            self.audience = Audience::All;
            self.enter(Stage::All, now_ms);
            return Decision::Widen(Audience::All);
        }
        let Some(canary) = self.choose(nodes) else {
            return Decision::Wait(match &self.canary {
                Some(name) => format!(
                    "{name}, which is to run it first, is not in contact or does not run what is stable"
                ),
                None => "no node is in contact and runs what is stable".to_owned(),
            });
        };
        self.canary = Some(canary.clone());
        self.measure(nodes);
        self.audience = Audience::Nodes(vec![canary]);
        self.enter(Stage::Edge, now_ms);
        Decision::Widen(self.audience.clone())
    }

    /// The node that is to run it first: the one that was named, or the first of the smallest PoP.
    fn choose(&self, nodes: &[NodeView]) -> Option<String> {
        let stable = self.stable.as_ref().map(|stable| stable.number);
        let is_well = |node: &&NodeView| {
            !node.is_router
                && !self.watch.is_silent(&node.name)
                && (stable.is_none() || node.running == stable)
        };
        if let Some(name) = &self.canary {
            return nodes
                .iter()
                .find(|node| node.name == *name)
                .filter(is_well)
                .map(|node| node.name.clone());
        }
        let size = |pop: &str| nodes.iter().filter(|node| !node.is_router && node.pop == pop).count();
        let first = nodes.iter().filter(is_well).min_by_key(|node| (size(&node.pop), &node.pop, &node.name));
        first.map(|node| node.name.clone())
    }

    /// Notes how the nodes are: in the time that was measured, or in all their time if that had too few requests.
    fn measure(&mut self, nodes: &[NodeView]) {
        let of = |node: &NodeView| {
            let counted = self.watch.counted(&node.name, Span::Stage);
            let vitals = counted.filter(|counted| counted.requests >= REQUESTS_ENOUGH).unwrap_or(node.vitals);
            let growth = self.memory_line(&node.name).map_or(0.0, Line::growth);
            let was_unwell = self.unwell_reports(node) > 0 || self.was_unwell_lately(node);
            (node.name.clone(), Before { vitals, starts: node.starts, growth, was_unwell })
        };
        let is_first = |node: &NodeView| {
            self.canary.as_ref() == Some(&node.name) || self.audience.includes(&node.name, &node.pop)
        };
        let mut there: Vec<&NodeView> =
            nodes.iter().filter(|node| !self.watch.is_silent(&node.name)).collect();
        there.sort_by_key(|node| !(node.is_router || is_first(node)));
        self.before = there.into_iter().take(MEASURED_MAX).map(of).collect();
    }

    // --- Going on ---

    fn times(&self) -> &'static Times {
        match self.stage {
            Stage::Edge => &EDGE,
            Stage::Pop => &POP,
            _ => &ALL,
        }
    }

    fn audience_of<'n>(&'n self, nodes: &'n [NodeView]) -> impl Iterator<Item = &'n NodeView> {
        nodes.iter().filter(|node| self.audience.includes(&node.name, &node.pop))
    }

    /// Whether a node is in contact and runs the candidate.
    fn has_arrived(&self, node: &NodeView) -> bool {
        let began = self.watch.seen(&node.name).and_then(|seen| seen.began);
        !self.watch.is_silent(&node.name) && began.is_some() && node.running == Some(self.version.number)
    }

    /// What is next, when nothing speaks against it.
    fn advance(&mut self, now_ms: i64, nodes: &[NodeView]) -> Decision {
        let times = self.times();
        let there: Vec<&NodeView> =
            self.audience_of(nodes).filter(|node| !self.is_passed_over(node)).collect();
        let arrived: Vec<&NodeView> = there.iter().copied().filter(|node| self.has_arrived(node)).collect();
        // In the first stage the node's own time counts.
        let began =
            |node: &&NodeView| self.watch.seen(&node.name)?.began.map(|began| self.watch.ago(began.at));
        let elapsed = match self.stage {
            Stage::Edge => arrived.first().and_then(began).unwrap_or(0),
            _ => self.watch.elapsed(),
        };
        let edges = arrived.iter().filter(|node| !node.is_router);
        let counted = edges.filter_map(|node| self.watch.counted(&node.name, Span::Stage));
        let requests: u64 = counted.map(|counted| counted.requests).sum();
        let (missing, is_over) = (there.len() - arrived.len(), elapsed >= times.most_ms);
        let is_to = |node: &&NodeView| self.was_there(node) && self.is_for(node) && !self.is_left_out(node);
        let known = self.audience_of(nodes).filter(is_to).count().max(there.len());
        if missing > 0 || arrived.is_empty() || arrived.len() * 2 < known {
            let told = format!("{} of {known} nodes that are to run it are in contact and do", arrived.len());
            if self.watch.elapsed() < times.most_ms {
                return Decision::Wait(format!("more nodes to run it: {told}"));
            }
            if self.stable.is_none() {
                return match arrived.is_empty() {
                    true => Decision::Wait(format!("a node to run it: {told}")),
                    // They have nothing else to run, and those that are away none to come back to.
                    false => self.go_on(now_ms, nodes),
                };
            }
            // Nothing is known of most: that is no reason to go on, and none to wait for ever.
            let is_absent = |node: &&NodeView| !self.has_arrived(node);
            let absent = self.audience_of(nodes).filter(is_to).find(is_absent);
            let absent = absent.or_else(|| there.iter().copied().find(is_absent));
            let node = absent.map(|node| node.name.clone()).unwrap_or_default();
            return self.undo(Harm { node, measure: Measure::Silence, told }, now_ms);
        }
        if elapsed < times.least_ms {
            let left = (times.least_ms - elapsed).div_ceil(1000);
            return Decision::Wait(format!("{} to run it well for {left} s more", few(&arrived)));
        }
        if requests < REQUESTS_ENOUGH && !is_over && !self.without_traffic {
            let left = (times.most_ms - elapsed).div_ceil(1000);
            return Decision::Wait(format!(
                "{requests} of {REQUESTS_ENOUGH} requests to judge {} by, or {left} s more; an operator may go on without traffic",
                few(&arrived)
            ));
        }
        self.judged_on_few |= requests < REQUESTS_ENOUGH;
        self.go_on(now_ms, nodes)
    }

    fn go_on(&mut self, now_ms: i64, nodes: &[NodeView]) -> Decision {
        if self.stage == Stage::All {
            self.enter(Stage::Promoted, now_ms);
            return Decision::Promote;
        }
        let canary = nodes.iter().find(|node| Some(&node.name) == self.canary.as_ref());
        let pop = canary.map(|node| node.pop.clone()).unwrap_or_default();
        let reachable = || nodes.iter().filter(|node| !node.is_router && !self.watch.is_silent(&node.name));
        let in_pop = reachable().filter(|node| node.pop == pop).count();
        // A stage without a new node, or without one that is left to compare with, is none.
        let has_pop = self.stage == Stage::Edge && in_pop > 1 && in_pop < reachable().count();
        (self.audience, self.stage) = match has_pop {
            true => (Audience::Pops(vec![pop]), Stage::Pop),
            false => (Audience::All, Stage::All),
        };
        self.enter(self.stage, now_ms);
        Decision::Widen(self.audience.clone())
    }

    fn was_there(&self, node: &NodeView) -> bool {
        self.watch.seen(&node.name).is_some_and(|seen| seen.was_there)
    }

    // --- Judging ---

    fn find_harm(&mut self, nodes: &[NodeView]) -> Option<Harm> {
        let judged = self.audience_of(nodes).find_map(|node| self.refusal_or_absence(node));
        judged
            .or_else(|| self.starts(nodes))
            .or_else(|| self.silence(nodes))
            .or_else(|| self.numbers(nodes))
            .or_else(|| self.growth(nodes))
    }

    fn refusal_or_absence(&self, node: &NodeView) -> Option<Harm> {
        let harm = |measure, told| Some(Harm { node: node.name.clone(), measure, told });
        if let Some((_, why)) = node.refused.as_ref().filter(|(number, _)| *number == self.version.number) {
            return harm(Measure::Refusal, format!("would not take it: {why}"));
        }
        let seen = self.watch.seen(&node.name)?;
        let since = seen.reachable_since.filter(|_| seen.began.is_none())?;
        let waited = self.watch.ago(since);
        let allowed = self.times().arrival_ms;
        if waited <= allowed {
            return None;
        }
        harm(Measure::Arrival, format!("is in contact and has not come to run it in {} s", waited / 1000))
    }

    /// Starts of the nodes that run it: none in the first stage, later one of a node, once.
    fn starts(&self, nodes: &[NodeView]) -> Option<Harm> {
        let run: Vec<&NodeView> = self.audience_of(nodes).collect();
        let starts = |node: &NodeView| {
            let began = self.watch.seen(&node.name).and_then(|seen| seen.began).map(|began| began.starts);
            let before = self.before.get(&node.name).map(|before| before.starts);
            let before = if self.stage == Stage::Edge { before.or(began) } else { began };
            before.map_or(0, |before| node.starts.saturating_sub(before))
        };
        let started = || run.iter().filter(|node| starts(node) > 0);
        let most = match self.stage {
            Stage::Edge => 0,
            _ => (run.len() / STARTS_SHARE).max(1),
        };
        let again = run.iter().find(|node| starts(node) > 1);
        let node = again.or_else(|| started().next().filter(|_| started().count() > most))?;
        let told = match (self.stage, again) {
            (Stage::Edge, _) => {
                format!("has started anew {} times since it was to run it; allowed is none", starts(node))
            }
            (_, Some(_)) => {
                format!("has started anew {} times since it runs it; allowed is once", starts(node))
            }
            _ => format!(
                "and {} more have started anew since they run it; allowed is {most}",
                started().count() - 1
            ),
        };
        Some(Harm { node: node.name.clone(), measure: Measure::Starts, told })
    }

    /// Nodes that run it and have gone silent; not when the others have too, for then it is the way to them.
    fn silence(&self, nodes: &[NodeView]) -> Option<Harm> {
        let was_heard = |node: &NodeView| {
            let seen = self.watch.seen(&node.name);
            seen.is_some_and(|seen| seen.was_there || seen.began.is_some())
        };
        // The first node was well when it was chosen: if it was never heard since, another control had begun to watch.
        let is_late = self.stage == Stage::Edge && self.watch.elapsed() > watch::SILENCE_MS;
        let is_lost = |node: &&NodeView| {
            let is_first = is_late && self.audience.includes(&node.name, &node.pop);
            self.watch.is_silent(&node.name) && (was_heard(node) || is_first)
        };
        let (run, others): (Vec<&NodeView>, Vec<&NodeView>) = nodes
            .iter()
            .filter(|node| !self.watch.is_silent(&node.name) || is_lost(node))
            .partition(|node| self.audience.includes(&node.name, &node.pop));
        let lost: Vec<&NodeView> = run.iter().copied().filter(is_lost).collect();
        if !others.is_empty() && others.iter().filter(|node| is_lost(node)).count() * 2 > others.len() {
            return None;
        }
        let is_too_many = match self.stage {
            Stage::Edge => !lost.is_empty(),
            _ => lost.len() > 1 && lost.len() * SILENCE_SHARE >= run.len(),
        };
        let node = lost.first().filter(|_| is_too_many)?;
        let seconds = watch::SILENCE_MS / 1000;
        let told = match lost.len() - 1 {
            0 => format!("has given no sign of life for {seconds} s"),
            more => format!("and {more} more of {} have given no sign of life for {seconds} s", run.len()),
        };
        Some(Harm { node: node.name.clone(), measure: Measure::Silence, told })
    }

    fn numbers(&mut self, nodes: &[NodeView]) -> Option<Harm> {
        let is_comparable =
            |node: &&NodeView| !self.watch.is_silent(&node.name) && !self.watch.is_cold(&node.name);
        let (run, others): (Vec<&NodeView>, Vec<&NodeView>) =
            nodes.iter().filter(is_comparable).partition(|node| self.is_for(node));
        let run: Vec<&NodeView> = run.into_iter().filter(|node| self.has_arrived(node)).collect();
        let mut found: Vec<(Span, Harm)> = Vec::new();
        let mut looked = Vec::new();
        for span in [Span::Recent, Span::Stage] {
            let others = Group::of(self, &others, span);
            for node in &run {
                // Without a new report there is nothing new to say.
                if self.watch.seen(&node.name).is_some_and(|seen| seen.is_new) {
                    looked.push(node.name.clone());
                    let harms = self.compare(&node.name, &Group::of(self, &[node], span), &others, span);
                    found.extend(harms.into_iter().map(|harm| (span, harm)));
                }
            }
            if run.len() > 1 {
                let name = format!("{} and {} more", run[0].name, run.len() - 1);
                looked.push(name.clone());
                let harms = self.compare(&name, &Group::of(self, &run, span), &others, span);
                found.extend(harms.into_iter().map(|harm| (span, harm)));
            }
        }
        if self.stage == Stage::All {
            // What was slow a while ago and is no more would count to the end of the stage.
            found.retain(|(span, harm)| *span == Span::Recent || !harm.measure.is_slowness());
        }
        let found: Vec<Harm> = found.into_iter().map(|(_, harm)| harm).collect();
        self.streaks.retain(|(name, measure), _| {
            let is_found = found.iter().any(|harm| harm.node == *name && harm.measure == *measure);
            is_found || !looked.contains(name) || *measure == Measure::Memory
        });
        let mut counted = Vec::new();
        let mut worst = None;
        for harm in found {
            let key = (harm.node.clone(), harm.measure);
            if counted.contains(&key) {
                continue;
            }
            let streak = self.streaks.entry(key.clone()).or_insert(0);
            *streak += 1;
            counted.push(key);
            let is_alone = self.stage == Stage::All && harm.measure.is_slowness();
            let confirmed = if is_alone { CONFIRMED_ALONE } else { CONFIRMED };
            if *streak >= confirmed && worst.is_none() {
                worst = Some(harm);
            }
        }
        worst
    }

    /// What one of those that run it, or all of them together, is worse in.
    fn compare(&self, node: &str, candidate: &Group, others: &Group, span: Span) -> Vec<Harm> {
        let gates = if self.is_cold { self.gates.for_cold() } else { self.gates };
        let when = match span {
            Span::Recent => format!("in the last {} s", watch::RECENT_MS / 1000),
            Span::Stage => "since it runs it".to_owned(),
        };
        let slow_from = slow_class(&candidate.before);
        type Count = fn(&Vitals, usize) -> u64;
        let shares: [(Measure, &str, Allowance, Count); 4] = [
            (
                Measure::Errors,
                "of its answers were errors (5xx)",
                Allowance { factor: gates.errors_factor, floor: gates.errors_floor },
                |vitals, _| vitals.errors,
            ),
            (
                Measure::Personal,
                "of its answers were hits of what was made for one visitor",
                Allowance { factor: gates.personal_factor, floor: gates.personal_floor },
                |vitals, _| vitals.personal_hits,
            ),
            (
                Measure::Misses,
                "of its answers were not from the cache",
                Allowance { factor: gates.misses_factor, floor: gates.misses_floor },
                |vitals, _| vitals.requests.saturating_sub(vitals.hits),
            ),
            (
                Measure::Slow,
                "of its answers took longer than nearly all did before",
                Allowance { factor: gates.slow_factor, floor: gates.slow_floor },
                |vitals, slow_from| vitals.latency[slow_from..].iter().sum(),
            ),
        ];
        let mut found = Vec::new();
        for (measure, what, allowance, count) in shares {
            let share = |vitals: &Vitals| Share { bad: count(vitals, slow_from), of: vitals.requests };
            let judged = [&candidate.now, &candidate.before, &others.now, &others.before].map(share);
            if let Some(allowed) = exceeded(measure, allowance, judged) {
                let [now, before, ..] = judged.map(Share::percent);
                let told = format!("{now:.2} % {what} {when}; before {before:.2} %; allowed {allowed:.2} %");
                found.push(Harm { node: node.to_owned(), measure, told });
            }
        }
        let [now, before, others_now, others_before] =
            [&candidate.now, &candidate.before, &others.now, &others.before].map(Typical::of);
        if let (Some(now), Some(before)) = (now, before) {
            let with_others = match (others_now, others_before) {
                (Some(now), Some(before)) => now.times(before).0.max(1.0),
                _ => 1.0,
            };
            let (times, surely) = now.times(before);
            if surely > gates.latency_factor * with_others {
                let p50 = |vitals: &Vitals| vitals.latency_ms(50.0).unwrap_or_default();
                let told = format!(
                    "its answers took {times:.2} times as long {when} (median {:.0} ms, before {:.0} ms); allowed {:.2} times",
                    p50(&candidate.now),
                    p50(&candidate.before),
                    gates.latency_factor * with_others
                );
                found.push(Harm { node: node.to_owned(), measure: Measure::Latency, told });
            }
        }
        found
    }

    fn memory_line(&self, node: &str) -> Option<Line> {
        Line::through(self.watch.memory(node)).map(|line| line.at_least(gates::MEMORY_LEAST))
    }

    /// Memory of the nodes that run it.
    fn growth(&mut self, nodes: &[NodeView]) -> Option<Harm> {
        let is_comparable =
            |node: &&NodeView| !self.watch.is_silent(&node.name) && !self.watch.is_cold(&node.name);
        let line = |node: &&NodeView| self.memory_line(&node.name);
        let others =
            nodes.iter().filter(is_comparable).filter(|node| !self.audience.includes(&node.name, &node.pop));
        let others: Vec<f64> = others.filter_map(|node| line(&node)).map(Line::growth).collect();
        let others = match others.is_empty() {
            true => 0.0,
            false => others.iter().sum::<f64>() / others.len() as f64,
        };
        let run = self.audience_of(nodes).filter(is_comparable).filter(|node| self.has_arrived(node));
        let found = run.filter_map(|node| {
            let before = self.before.get(&node.name).map_or(0.0, |before| before.growth);
            let (line, allowed) = (line(&node)?, self.gates.growth + before.max(others).max(0.0));
            (line.sure_growth() > allowed).then(|| {
                let told = format!(
                    "its memory grew by {:.1} % a minute in the last {} s, to {} MiB; before {before:.1} %; allowed {allowed:.1} %",
                    line.growth(),
                    watch::MEMORY_MS / 1000,
                    node.vitals.memory_bytes >> 20,
                );
                (node.name.clone(), told)
            })
        });
        let found: Vec<(String, String)> = found.collect();
        self.streaks.retain(|(name, measure), _| {
            *measure != Measure::Memory || found.iter().any(|(node, _)| node == name)
        });
        for (node, told) in found {
            let streak = self.streaks.entry((node.clone(), Measure::Memory)).or_insert(0);
            *streak += 1;
            if *streak >= CONFIRMED {
                return Some(Harm { node, measure: Measure::Memory, told });
            }
        }
        None
    }
}

/// Some nodes together: what they counted in a span, and before.
struct Group {
    now: Vitals,
    before: Vitals,
}

impl Group {
    fn of(rollout: &Rollout, nodes: &[&NodeView], span: Span) -> Group {
        let mut group = Group { now: Vitals::default(), before: Vitals::default() };
        for node in nodes {
            if let Some(counted) = rollout.watch.counted(&node.name, span) {
                group.now.add(&counted);
                if let Some(before) = rollout.before.get(&node.name) {
                    group.before.add(&before.vitals);
                }
            }
        }
        group
    }
}

/// The class from which on at most one answer in a hundred was.
fn slow_class(before: &Vitals) -> usize {
    let of: u64 = before.latency.iter().sum();
    let mut slower = of;
    for (class, count) in before.latency.iter().enumerate() {
        if slower * 100 <= of {
            return class;
        }
        slower -= count;
    }
    before.latency.len()
}

/// What was allowed, when it is exceeded: by the node's own past, and by what the others have got worse by meanwhile, which is
/// not the candidate's doing.
fn exceeded(measure: Measure, allowance: Allowance, judged: [Share; 4]) -> Option<f64> {
    let [now, before, others_now, others_before] = judged;
    let is_known = |share: Share| share.of >= REQUESTS_MIN;
    let allowed = if is_known(before) {
        let are_known = is_known(others_now) && is_known(others_before);
        let others = if are_known { others_now.percent() - others_before.percent() } else { 0.0 };
        allowance.by(before) + allowance.factor * others.max(0.0)
    } else if measure == Measure::Errors || (is_known(others_now) && measure != Measure::Slow) {
        allowance.by(others_now)
    } else {
        // Slowness has no meaning without a before, and a first configuration begins empty.
        return None;
    };
    now.surely_exceeds(allowed).then_some(allowed)
}

/// The names of a few, or how many they are.
fn few(nodes: &[&NodeView]) -> String {
    match nodes {
        [] => "nobody".to_owned(),
        [one] => one.name.clone(),
        [one, two] => format!("{} and {}", one.name, two.name),
        [one, ..] => format!("{} and {} more", one.name, nodes.len() - 1),
    }
}
