//! Nameservers take a configuration one at a time: whoever asks for a zone asks all of its nameservers, so what would silence one must
//! never reach two.
//!
//! ```text
//! all edges run it ─► ns1 is admitted ─► runs it, and answers itself for 5 s ─► ns2 is admitted ─► …
//!                        └─ refuses it, dies, is silent, does not answer, refuses its askers ─► undone, for all
//! ```
//!
//! Edges come first: visitors are sent to nobody who does not know their site yet. One that is out of contact is passed over until it
//! is back. One that does not answer itself before it has the configuration comes last, as that may be what mends it, and whether it answers
//! then says nothing. So none holds up the others, and each gets what is stable in the end.
//! Where nothing was stable before, all take it at once: none has anything to lose.

use super::watch::{LATELY_MS, SILENCE_MS, Seen};
use super::{ALL, Before, CONFIRMED, CONFIRMED_ALONE, Decision, Harm, Measure, NodeView, Rollout, Stage};

/// For how long a router must run it and answer before the next one takes it: some of its reports, each later than a question that
/// it has asked itself.
const SHOW_MS: u64 = 5_000;

/// How those are that a router is compared with.
struct Others {
    /// Whether they run the candidate too, as no other is left.
    none_waits: bool,
    /// Whether half of them or more do not answer now.
    are_ill_now: bool,
    /// The same, of late.
    are_ill_lately: bool,
}

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
        // No harm so far, or not by the candidate: it goes no further meanwhile.
        let ill = routers.iter().find_map(|router| Some((&router.name, self.does_not_answer(router)?)));
        if let Some((name, why)) = ill {
            return Some(Decision::Wait(format!("{name} to answer again: {why}")));
        }
        let is_late = |edge: &NodeView| {
            self.is_for(edge) && !self.watch.is_silent(&edge.name) && !self.has_arrived(edge)
        };
        if edges.iter().any(is_late) {
            return None;
        }
        let can_be = |router: &&NodeView| self.is_waiting(router) && self.watch.is_lively(&router.name);
        let come = || routers.iter().filter(can_be);
        // Nobody who may yet prove to be well comes after one that is not.
        let may_be_well = || come().any(|router| !self.was_unwell_lately(router));
        let next = match come().find(|router| self.is_well(router)) {
            None if may_be_well() => return None,
            None => come().find(|router| self.is_not_well(router))?,
            Some(well) => well,
        };
        let was_unwell = self.is_not_well(next);
        self.waiting.retain(|name| *name != next.name);
        self.watch.begin_for(&next.name);
        let now = Before { vitals: next.vitals, starts: next.starts, growth: 0.0, was_unwell };
        let before = self.before.entry(next.name.clone()).or_insert(now);
        (before.starts, before.was_unwell) = (next.starts, was_unwell);
        self.admitted = Some(next.name.clone());
        Some(Decision::Admit(next.name.clone()))
    }

    fn is_waiting(&self, node: &NodeView) -> bool {
        self.waiting.contains(&node.name)
    }

    fn is_newest(&self, router: &NodeView) -> bool {
        self.admitted.as_ref() == Some(&router.name)
    }

    /// For how many reports in a row it has said that it does not answer itself.
    pub(super) fn unwell_reports(&self, node: &NodeView) -> u32 {
        self.watch.seen(&node.name).map_or(0, |seen| seen.unwell)
    }

    /// Whether that is sure.
    fn is_unwell(&self, router: &NodeView) -> bool {
        self.unwell_reports(router) >= CONFIRMED
    }

    /// Whether it did not answer itself in so many reports of late, in a row or now and then.
    pub(super) fn was_unwell_lately(&self, router: &NodeView) -> bool {
        self.watch.missed(&router.name) >= CONFIRMED
    }

    /// Whether one that waits answers itself, and has for as long as it will have to show that it does.
    fn is_well(&self, router: &NodeView) -> bool {
        let answered_for = self.watch.seen(&router.name).map_or(0, |seen| self.watch.ago(seen.turned));
        self.unwell_reports(router) == 0 && answered_for >= SHOW_MS && !self.was_unwell_lately(router)
    }

    /// Whether one that waits does not, surely. Whoever is neither will soon be one of both.
    fn is_not_well(&self, router: &NodeView) -> bool {
        self.unwell_reports(router) > 0 && self.was_unwell_lately(router)
    }

    /// Whether a router answered itself when it was admitted. What one does that did not, or that has joined since, says less.
    fn was_well(&self, router: &NodeView) -> bool {
        self.before.get(&router.name).is_some_and(|before| !before.was_unwell)
    }

    /// Whether a node is not waited for: it has nothing to say for or against.
    pub(super) fn is_passed_over(&self, node: &NodeView) -> bool {
        self.watch.is_silent(&node.name) || self.is_left_out(node)
    }

    /// Whether it is a router whose turn comes later, or that is in no state to take it.
    pub(super) fn is_left_out(&self, node: &NodeView) -> bool {
        node.is_router
            && match self.is_waiting(node) {
                true => self.stage != Stage::All || self.is_not_well(node),
                false => !self.was_well(node) && !self.has_arrived(node),
            }
    }

    /// What is still missing before the next one is admitted, in words; `None` when nothing is.
    fn left_to_show(&self, router: &NodeView) -> Option<String> {
        let name = &router.name;
        let after = match &*self.waiting {
            [] => String::new(),
            waiting => format!("; then {}", waiting.join(", ")),
        };
        let seen = self.watch.seen(name)?;
        let was_well = self.was_well(router);
        if !self.has_arrived(router) {
            let is_over = self.watch.is_silent(name) || self.watch.ago(seen.told) > ALL.arrival_ms;
            let is_awaited = was_well || !is_over;
            return is_awaited.then(|| format!("{name} to run it: nameservers take it one at a time{after}"));
        }
        let began = seen.began.map_or(0, |began| began.at);
        let left = match was_well {
            true if seen.answered_ms >= SHOW_MS => 0,
            true => SHOW_MS.saturating_sub(self.watch.ago(began.max(seen.turned))),
            false => SHOW_MS.saturating_sub(self.watch.ago(began)),
        };
        if let Some(why) = self.does_not_answer(router) {
            return Some(format!("{name} to answer again: {why}{after}"));
        }
        if left > 0 || !seen.is_new {
            let seconds = left.div_ceil(1000).max(1);
            return Some(format!("{name} to run it well for {seconds} s more{after}"));
        }
        None
    }

    /// What speaks against it at routers.
    pub(super) fn find_harm_at_routers(&mut self, routers: &[NodeView]) -> Option<Harm> {
        let run: Vec<&NodeView> = routers.iter().filter(|router| self.is_for(router)).collect();
        let refusal_or_absence = |router: &NodeView| {
            let harm = self.refusal_or_absence(router)?;
            (harm.measure == Measure::Refusal || self.was_well(router)).then_some(harm)
        };
        run.iter()
            .find_map(|router| refusal_or_absence(router))
            .or_else(|| run.iter().find_map(|router| self.lack_of_answers(router, routers)))
            .or_else(|| run.iter().find_map(|router| self.starts_of_router(router)))
            .or_else(|| self.silence_of_routers(&run, routers))
            .or_else(|| self.numbers(&self.comparable(routers)))
    }

    /// Those whose numbers say something: one that is mended is asked again, and by whom is not the candidate's doing.
    fn comparable(&self, routers: &[NodeView]) -> Vec<NodeView> {
        routers.iter().filter(|router| !self.is_for(router) || self.was_well(router)).cloned().collect()
    }

    /// Why one that runs it does not answer itself, though it did when it was admitted.
    fn does_not_answer<'r>(&self, router: &'r NodeView) -> Option<&'r str> {
        let is_so = self.is_for(router) && self.was_well(router) && self.has_arrived(router);
        router.unwell.as_deref().filter(|_| is_so)
    }

    /// One that answered does not any more, surely, or now does and now does not; and not as most do that have nothing to do with the
    /// candidate.
    fn lack_of_answers(&self, router: &NodeView, routers: &[NodeView]) -> Option<Harm> {
        let seen = self.watch.seen(&router.name)?;
        let others = self.others(router, seen, routers);
        let now = self.does_not_answer(router).and_then(|why| self.lack_now(router, seen, &others, why));
        let told = now.or_else(|| self.lack_since_it_runs_it(router, seen, &others))?;
        Some(Harm { node: router.name.clone(), measure: Measure::Arrival, told })
    }

    /// How those are that it is compared with: those that wait, else those that run it too.
    fn others(&self, router: &NodeView, seen: &Seen, routers: &[NodeView]) -> Others {
        let there = || routers.iter().filter(|other| !self.watch.is_silent(&other.name));
        // What ails one that was unwell before is not what ails this one.
        let is_like = |other: &Seen| other.unwell == 0 || other.turned >= seen.told;
        let waiting: Vec<&NodeView> = there()
            .filter(|other| self.is_waiting(other) && self.watch.seen(&other.name).is_some_and(is_like))
            .collect();
        let run = || {
            there().filter(|other| self.is_for(other) && self.was_well(other) && other.name != router.name)
        };
        let none_waits = waiting.is_empty();
        let others: Vec<&NodeView> = if none_waits { run().collect() } else { waiting };
        let are_half = |is_ill: &dyn Fn(&NodeView) -> bool| {
            let ill = others.iter().filter(|other| is_ill(other)).count();
            ill > 0 && ill * 2 >= others.len()
        };
        Others {
            none_waits,
            are_ill_now: are_half(&|other| self.unwell_reports(other) > 0),
            are_ill_lately: are_half(&|other| self.was_unwell_lately(other)),
        }
    }

    /// It does not answer: for sure, in a row, or in too many reports of late; in words.
    fn lack_now(&self, router: &NodeView, seen: &Seen, others: &Others, why: &str) -> Option<String> {
        let stays = match (others.none_waits, others.are_ill_now) {
            (false, false) => self.is_unwell(router),
            // A flood, say: nothing is proven by it, and nothing waits for its end for ever.
            (false, true) => self.watch.ago(seen.turned) > ALL.most_ms,
            (true, false) if self.is_newest(router) => self.is_unwell(router),
            // Nobody is left to compare with.
            (true, _) => seen.unwell >= CONFIRMED_ALONE,
        };
        if stays {
            return Some(format!("does not answer any more: {why}"));
        }
        let missed = self.watch.missed(&router.name);
        (missed >= CONFIRMED_ALONE && (others.none_waits || !others.are_ill_lately)).then(|| {
            let seconds = LATELY_MS / 1000;
            format!("did not answer in {missed} or more reports of the last {seconds} s: {why}")
        })
    }

    /// One that now answers and now does not, which would be waited for without end; in words.
    fn lack_since_it_runs_it(&self, router: &NodeView, seen: &Seen, others: &Others) -> Option<String> {
        let most_ms = if others.are_ill_lately { ALL.most_ms } else { ALL.arrival_ms };
        let tried_ms = seen.began.map_or(0, |began| self.watch.ago(began.at));
        let is_to_show =
            self.is_newest(router) && self.was_well(router) && !self.watch.is_silent(&router.name);
        (is_to_show && seen.answered_ms < SHOW_MS && tried_ms > most_ms).then(|| {
            let (wanted, tried) = (SHOW_MS / 1000, tried_ms / 1000);
            format!("has not answered for {wanted} s in a row in the {tried} s since it runs it")
        })
    }

    /// Starts of its program: none of the one that was admitted last, if it was well, of others one.
    fn starts_of_router(&self, router: &NodeView) -> Option<Harm> {
        let is_newest = self.is_newest(router) && self.was_well(router);
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
        let is_newest = |router: &NodeView| self.is_newest(router) && self.was_well(router);
        let is_lost = |router: &NodeView| {
            let seen = self.watch.seen(&router.name);
            let was_heard = seen.is_some_and(|seen| seen.was_there || seen.began.is_some());
            self.watch.is_silent(&router.name) && (was_heard || (is_late && is_newest(router)))
        };
        let lost: Vec<&NodeView> = run.iter().copied().filter(|router| is_lost(router)).collect();
        let newest = lost.iter().find(|router| is_newest(router));
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
