//! Nameservers take a configuration one at a time: whoever asks for a zone asks all of its nameservers, so what would silence one must
//! never reach two.
//!
//! ```text
//! all edges run it ─► ns1 is admitted ─► runs it, and answers itself for 5 s ─► ns2 is admitted ─► …
//!                        └─ refuses it, dies, is silent, does not answer, refuses its askers ─► undone, for all
//! ```
//!
//! Edges come first: visitors are sent to nobody who does not know their site yet. One that is out of contact, or does not answer
//! itself before it has the configuration, is passed over until that is mended. So none holds up the others, and each gets what is stable in the end.
//! Where nothing was stable before, all take it at once: none has anything to lose.

use super::watch::SILENCE_MS;
use super::{Before, CONFIRMED, Decision, Harm, Measure, NodeView, Rollout, Stage};

/// For how long a router must run it and answer before the next one takes it: some of its reports, each later than a question that
/// it has asked itself.
const SHOW_MS: u64 = 5_000;

impl Rollout {
    /// Has these routers wait until they are admitted; before the first step.
    pub fn have_wait(&mut self, routers: impl IntoIterator<Item = String>) {
        if self.stable.is_some() {
            self.waiting = routers.into_iter().collect();
            self.waiting.sort();
        }
    }

    /// The router that was admitted last, if it has still to show that it is well.
    pub fn admitted(&self) -> Option<&str> {
        self.admitted.as_deref()
    }

    /// Whether a node is to run it by now.
    pub fn is_for(&self, node: &NodeView) -> bool {
        self.audience.includes(&node.name, &node.pop) && !self.waiting.contains(&node.name)
    }

    /// Admits the next router, or waits for the one that was admitted last; `None` when there is none for now.
    pub(super) fn admit(&mut self, edges: &[NodeView], routers: &[NodeView]) -> Option<Decision> {
        if self.stage != Stage::All {
            return None;
        }
        if let Some(name) = self.admitted.take() {
            // One that was retired meanwhile is not waited for.
            let router = routers.iter().find(|router| router.name == name);
            if let Some(left) = router.and_then(|router| self.left_to_show(router)) {
                // Silent without harm, as most are that wait: the stage's longest time is the bound on that.
                let is_heard = !self.watch.is_silent(&name);
                self.admitted = Some(name);
                return is_heard.then_some(Decision::Wait(left));
            }
        }
        let is_late = |edge: &NodeView| {
            self.is_for(edge) && !self.watch.is_silent(&edge.name) && !self.has_arrived(edge)
        };
        if edges.iter().any(is_late) {
            return None;
        }
        let can_be = |router: &&NodeView| {
            self.is_waiting(router) && !self.is_passed_over(router) && self.watch.is_lively(&router.name)
        };
        let next = routers.iter().find(can_be)?;
        self.waiting.retain(|name| *name != next.name);
        self.watch.begin_for(&next.name);
        let before = Before { vitals: next.vitals, starts: next.starts, growth: 0.0 };
        self.before.entry(next.name.clone()).or_insert(before).starts = next.starts;
        self.admitted = Some(next.name.clone());
        Some(Decision::Admit(next.name.clone()))
    }

    fn is_waiting(&self, node: &NodeView) -> bool {
        self.waiting.contains(&node.name)
    }

    fn is_newest(&self, router: &NodeView) -> bool {
        self.admitted.as_ref() == Some(&router.name)
    }

    /// Whether a node is not waited for: it has nothing to say for or against.
    pub(super) fn is_passed_over(&self, node: &NodeView) -> bool {
        let is_unwell = || self.watch.seen(&node.name).is_some_and(|seen| seen.unwell > 0);
        self.watch.is_silent(&node.name) || (self.is_waiting(node) && is_unwell())
    }

    /// What is still missing before the next one is admitted, in words; `None` when nothing is.
    fn left_to_show(&self, router: &NodeView) -> Option<String> {
        let name = &router.name;
        let after = match &*self.waiting {
            [] => String::new(),
            waiting => format!("; then {}", waiting.join(", ")),
        };
        if !self.has_arrived(router) {
            return Some(format!("{name} to run it: nameservers take it one at a time{after}"));
        }
        let seen = self.watch.seen(name)?;
        let ran = seen.began.map_or(0, |began| self.watch.ago(began.at));
        let left = SHOW_MS.saturating_sub(ran);
        if left > 0 || !seen.is_new || seen.unwell > 0 {
            let seconds = left.div_ceil(1000).max(1);
            return Some(format!("{name} to run it well for {seconds} s more{after}"));
        }
        None
    }

    /// What speaks against it at routers.
    pub(super) fn find_harm_at_routers(&mut self, routers: &[NodeView]) -> Option<Harm> {
        let run: Vec<&NodeView> = routers.iter().filter(|router| self.is_for(router)).collect();
        run.iter()
            .find_map(|router| self.refusal_or_absence(router))
            .or_else(|| run.iter().find_map(|router| self.does_not_answer(router)))
            .or_else(|| run.iter().find_map(|router| self.starts_of_router(router)))
            .or_else(|| self.silence_of_routers(&run, routers))
            .or_else(|| self.numbers(routers))
    }

    fn does_not_answer(&self, router: &NodeView) -> Option<Harm> {
        let is_sure = self.watch.seen(&router.name).is_some_and(|seen| seen.unwell >= CONFIRMED);
        let why = router.unwell.as_ref().filter(|_| is_sure && self.has_arrived(router))?;
        Some(Harm { node: router.name.clone(), measure: Measure::SelfCheck, told: why.clone() })
    }

    /// Starts of its program: none of the one that was admitted last, of others one.
    fn starts_of_router(&self, router: &NodeView) -> Option<Harm> {
        let is_newest = self.is_newest(router);
        let before = match is_newest {
            true => self.before.get(&router.name).map(|before| before.starts),
            false => self.watch.seen(&router.name).and_then(|seen| seen.began).map(|began| began.starts),
        };
        let (starts, most) = (router.starts.saturating_sub(before?), u64::from(!is_newest));
        (starts > most).then(|| {
            let told = format!("has started anew {starts} times since it was to run it; allowed is {most}");
            Harm { node: router.name.clone(), measure: Measure::Starts, told }
        })
    }

    /// The one that was admitted last has gone silent, or several that run it have; not when most of those that wait have too, for then it
    /// is the way to them.
    fn silence_of_routers(&self, run: &[&NodeView], routers: &[NodeView]) -> Option<Harm> {
        // It was well when it was admitted: if it was never heard since, another control had begun to watch.
        let is_late = self.watch.elapsed() > SILENCE_MS;
        let is_lost = |router: &NodeView| {
            let seen = self.watch.seen(&router.name);
            let was_heard = seen.is_some_and(|seen| seen.was_there || seen.began.is_some());
            self.watch.is_silent(&router.name) && (was_heard || (is_late && self.is_newest(router)))
        };
        let lost: Vec<&NodeView> = run.iter().copied().filter(|router| is_lost(router)).collect();
        let newest = lost.iter().find(|router| self.is_newest(router));
        let node = newest.or_else(|| lost.first().filter(|_| lost.len() > 1))?;
        let waiting = || routers.iter().filter(|router| self.is_waiting(router));
        if waiting().filter(|router| self.watch.is_silent(&router.name)).count() * 2 > waiting().count() {
            return None;
        }
        let seconds = SILENCE_MS / 1000;
        let told = format!("has given no sign of life for {seconds} s since it was to run it");
        Some(Harm { node: node.name.clone(), measure: Measure::Silence, told })
    }
}
