use super::*;

fn version(number: u64) -> Version {
    Version { number, hash: format!("{number:064x}"), signature: String::new() }
}

/// Nodes of these names and PoPs that have answered a hundred requests a second for a minute, and do so on.
struct Nodes {
    views: Vec<NodeView>,
    now_ms: i64,
    /// Those that go on with what they run, whatever the plan says.
    stuck: Vec<&'static str>,
}

impl Nodes {
    fn of(names: &[(&str, &str)]) -> Nodes {
        let view = |(name, pop): &(&str, &str)| NodeView {
            name: (*name).to_owned(),
            pop: (*pop).to_owned(),
            is_router: name.starts_with("ns"),
            reported_ms: 0,
            running: Some(3),
            refused: None,
            unwell: None,
            starts: 1,
            vitals: Vitals { since_ms: 1, memory_bytes: 1 << 30, ..Vitals::default() },
        };
        Nodes { views: names.iter().map(view).collect(), now_ms: 1_800_000_000_000, stuck: Vec::new() }
    }

    fn node(&mut self, name: &str) -> &mut NodeView {
        self.views.iter_mut().find(|view| view.name == name).unwrap()
    }

    /// A second goes by: those that are `there` follow the plan, answer and report.
    fn second(
        &mut self,
        rollout: &mut Rollout,
        there: impl Fn(&str) -> bool,
        requests: u64,
    ) -> Option<Decision> {
        self.now_ms += 1_000;
        let plan = rollout.plan();
        for view in self.views.iter_mut().filter(|view| there(&view.name)) {
            if !self.stuck.contains(&&*view.name) {
                view.running = plan.version_for(&view.name, &view.pop).map(|version| version.number);
            }
            view.reported_ms = self.now_ms;
            view.vitals.requests += requests;
            view.vitals.hits += requests * 9 / 10;
            view.vitals.latency[1] += requests * 9 / 10;
            view.vitals.latency[7] += requests - requests * 9 / 10;
        }
        rollout.step(self.now_ms, &self.views)
    }

    /// Seconds until it does something else than wait; what, and after how many.
    fn until_decided(
        &mut self,
        rollout: &mut Rollout,
        there: impl Fn(&str) -> bool,
        requests: u64,
    ) -> (Option<Decision>, u32) {
        for seconds in 1..4_000 {
            let decision = self.second(rollout, &there, requests);
            if !matches!(decision, Some(Decision::Wait(_))) {
                return (decision, seconds);
            }
        }
        panic!("it waits for ever: {:?}", rollout.step(self.now_ms, &self.views));
    }
}

const THREE_POPS: [(&str, &str); 7] = [
    ("fra-1", "fra"),
    ("fra-2", "fra"),
    ("fra-3", "fra"),
    ("ams-2", "ams"),
    ("ams-1", "ams"),
    ("nyc-1", "nyc"),
    ("nyc-2", "nyc"),
];

fn staged() -> Rollout {
    Rollout::begin(version(4), Some(version(3)), Pace::Staged, "anna", "why not", 0)
}

fn widen(audience: Audience) -> Option<Decision> {
    Some(Decision::Widen(audience))
}

#[test]
fn one_node_of_the_smallest_pop_comes_first_then_its_pop_then_all_and_then_it_is_stable() {
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    assert_eq!(rollout.plan(), Plan { stable: Some(version(3)), candidate: None });
    let all = |_: &str| true;
    let first = nodes.until_decided(&mut rollout, all, 100);
    assert_eq!(first, (widen(Audience::Nodes(vec!["ams-1".into()])), 31));
    assert_eq!(nodes.until_decided(&mut rollout, all, 100), (widen(Audience::Pops(vec!["ams".into()])), 91));
    assert_eq!(nodes.until_decided(&mut rollout, all, 100), (widen(Audience::All), 60));
    assert_eq!(rollout.plan().stable, Some(version(3)), "not before the bake time is over");
    assert_eq!(nodes.until_decided(&mut rollout, all, 100), (Some(Decision::Promote), 300));
    assert_eq!(rollout.plan(), Plan { stable: Some(version(4)), candidate: None });
    assert!(rollout.is_over() && !rollout.judged_on_few);
    assert_eq!(nodes.second(&mut rollout, all, 100), None);
    let stages: Vec<Stage> = rollout.began_ms.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages, [Stage::Measure, Stage::Edge, Stage::Pop, Stage::All, Stage::Promoted]);
}

#[test]
fn the_node_that_is_named_comes_first_and_is_waited_for() {
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    rollout.canary = Some("nyc-2".into());
    for _ in 0..60 {
        let waits = nodes.second(&mut rollout, |name| name != "nyc-2", 100);
        assert!(matches!(waits, Some(Decision::Wait(_))), "{waits:?}");
    }
    let (decision, _) = nodes.until_decided(&mut rollout, |_| true, 100);
    assert_eq!(decision, widen(Audience::Nodes(vec!["nyc-2".into()])));
}

#[test]
fn at_once_is_for_all_at_once_and_undone_all_the_same() {
    let (mut nodes, all) = (Nodes::of(&THREE_POPS), |_: &str| true);
    for harm in [false, true] {
        let mut rollout = Rollout::begin(version(4), Some(version(3)), Pace::AtOnce, "anna", "", 0);
        let to = Audience::All;
        assert_eq!(
            rollout.plan().candidate,
            Some(Candidate { version: version(4), to, waiting: Vec::new() })
        );
        if harm {
            for _ in 0..5 {
                nodes.second(&mut rollout, all, 100);
            }
            nodes.node("fra-3").vitals.errors += 200;
        }
        let (decision, seconds) = nodes.until_decided(&mut rollout, all, 100);
        match harm {
            false => assert_eq!((decision, seconds), (Some(Decision::Promote), 301)),
            true => {
                let Some(Decision::Undo(found)) = decision else { panic!("{decision:?}") };
                assert_eq!((&*found.node, found.measure), ("fra-3", Measure::Errors), "{found}");
                assert!(seconds <= 5);
                assert_eq!(rollout.plan(), Plan { stable: Some(version(3)), candidate: None });
            }
        }
    }
}

#[test]
fn an_idle_cluster_rolls_out_after_the_longest_times_and_says_so() {
    let (mut nodes, mut rollout, all) = (Nodes::of(&THREE_POPS), staged(), |_: &str| true);
    nodes.until_decided(&mut rollout, all, 0);
    assert_eq!(nodes.until_decided(&mut rollout, all, 0), (widen(Audience::Pops(vec!["ams".into()])), 301));
    assert!(rollout.judged_on_few);
    rollout.without_traffic = true;
    assert_eq!(nodes.until_decided(&mut rollout, all, 0), (widen(Audience::All), 60));
    assert_eq!(nodes.until_decided(&mut rollout, all, 0), (Some(Decision::Promote), 300));
}

#[test]
fn a_cluster_of_one_pop_or_one_node_has_fewer_stages() {
    let all = |_: &str| true;
    for names in [&THREE_POPS[..3], &THREE_POPS[..1]] {
        let (mut nodes, mut rollout) = (Nodes::of(names), staged());
        assert_eq!(nodes.until_decided(&mut rollout, all, 9).0, widen(Audience::Nodes(vec!["fra-1".into()])));
        assert_eq!(nodes.until_decided(&mut rollout, all, 9).0, widen(Audience::All));
        assert_eq!(nodes.until_decided(&mut rollout, all, 9).0, Some(Decision::Promote));
    }
}

#[test]
fn the_first_configuration_of_all_is_not_measured_against_anything() {
    let mut nodes = Nodes::of(&THREE_POPS);
    nodes.views.iter_mut().for_each(|view| view.running = None);
    let mut rollout = Rollout::begin(version(1), None, Pace::Staged, "anna", "", 0);
    let (decision, seconds) = nodes.until_decided(&mut rollout, |_| true, 100);
    assert_eq!((decision, seconds), (widen(Audience::Nodes(vec!["ams-1".into()])), 1));
    while !rollout.is_over() {
        nodes.until_decided(&mut rollout, |_| true, 100);
    }
    assert_eq!(rollout.stage, Stage::Promoted);
}

fn first_of_all(pace: Pace) -> (Nodes, Rollout) {
    let mut nodes = Nodes::of(&THREE_POPS);
    nodes.views.iter_mut().for_each(|view| view.running = None);
    (nodes, Rollout::begin(version(1), None, pace, "anna", "", 0))
}

#[test]
fn the_first_configuration_of_all_is_never_taken_back_to_none() {
    // A whole PoP dies while it is on trial everywhere, and some start anew again and again.
    let (mut nodes, mut rollout) = first_of_all(Pace::AtOnce);
    for _ in 0..30 {
        assert!(matches!(nodes.second(&mut rollout, |_| true, 100), Some(Decision::Wait(_))));
    }
    let there = |name: &str| !name.starts_with("fra");
    for second in 0..200 {
        nodes.node("nyc-1").starts += u64::from(second % 20 == 0);
        let decision = nodes.second(&mut rollout, there, 100);
        let Some(Decision::Wait(what)) = decision else { panic!("{decision:?}") };
        assert!(second < 25 || what.contains("nothing was stable before to go back to"), "{what}");
        assert_eq!(rollout.plan().version_for("nyc-1", "nyc"), Some(&version(1)));
    }
    assert_eq!(nodes.until_decided(&mut rollout, there, 100).0, Some(Decision::Promote));
    assert_eq!(rollout.plan().stable, Some(version(1)));

    // Nearly all are gone, and stay away: those that are left run it, and so will the others.
    let (mut nodes, mut rollout) = first_of_all(Pace::AtOnce);
    nodes.second(&mut rollout, |_| true, 100);
    assert_eq!(nodes.until_decided(&mut rollout, |name| name == "fra-1", 100).0, Some(Decision::Promote));
}

#[test]
fn the_first_configuration_of_all_goes_no_further_while_its_first_node_would_not_take_it() {
    let (mut nodes, mut rollout) = first_of_all(Pace::Staged);
    let (decision, _) = nodes.until_decided(&mut rollout, |_| true, 100);
    assert_eq!(decision, widen(Audience::Nodes(vec!["ams-1".into()])));
    nodes.node("ams-1").refused = Some((1, "no such certificate".into()));
    for _ in 0..400 {
        let decision = nodes.second(&mut rollout, |_| true, 100);
        let Some(Decision::Wait(what)) = decision else { panic!("{decision:?}") };
        assert!(what.contains("no such certificate") && what.contains("goes no further"), "{what}");
    }
    nodes.node("ams-1").refused = None;
    assert_eq!(nodes.until_decided(&mut rollout, |_| true, 100).0, widen(Audience::Pops(vec!["ams".into()])));
    assert!(!rollout.is_over());
    rollout.take_back(0);
    assert_eq!(rollout.stage, Stage::Undone, "an operator may");
}

#[test]
fn nodes_out_of_contact_hold_nothing_up_and_are_never_well() {
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    // The other of its PoP and one elsewhere are gone from the start: there is no stage of the PoP then.
    let there = |name: &str| name != "ams-2" && name != "nyc-2";
    nodes.until_decided(&mut rollout, there, 100);
    assert_eq!(nodes.until_decided(&mut rollout, there, 100), (widen(Audience::All), 91));
    assert_eq!(nodes.until_decided(&mut rollout, there, 100), (Some(Decision::Promote), 300));

    // Most are gone: nothing is known of them, and it is taken back in the end.
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    for _ in 0..2 {
        nodes.until_decided(&mut rollout, |_| true, 100);
    }
    nodes.until_decided(&mut rollout, |_| true, 100);
    assert_eq!(rollout.stage, Stage::All);
    let (decision, _) = nodes.until_decided(&mut rollout, |name| name.starts_with("fra"), 100);
    let Some(Decision::Undo(harm)) = decision else { panic!("{decision:?}") };
    assert_eq!(harm.measure, Measure::Silence, "{harm}");
}

#[test]
fn when_all_go_silent_it_is_the_way_to_them() {
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    nodes.until_decided(&mut rollout, |_| true, 100);
    for _ in 0..10 {
        nodes.second(&mut rollout, |_| true, 100);
    }
    for _ in 0..60 {
        let waits = nodes.second(&mut rollout, |_| false, 100);
        assert!(matches!(waits, Some(Decision::Wait(_))), "{waits:?}");
    }
    let (decision, _) = nodes.until_decided(&mut rollout, |_| true, 100);
    assert_eq!(decision, widen(Audience::Pops(vec!["ams".into()])));
}

#[test]
fn a_node_that_is_there_and_does_not_take_it_up_is_harm() {
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    nodes.until_decided(&mut rollout, |_| true, 100);
    for seconds in 1.. {
        nodes.now_ms += 1_000;
        let now_ms = nodes.now_ms;
        nodes.views.iter_mut().for_each(|view| view.reported_ms = now_ms);
        match rollout.step(now_ms, &nodes.views) {
            Some(Decision::Wait(_)) => assert!(seconds < 30),
            Some(Decision::Undo(harm)) => {
                assert_eq!((&*harm.node, harm.measure), ("ams-1", Measure::Arrival), "{harm}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn starts_of_one_node_are_no_harm_once_it_runs_everywhere_and_of_several_are() {
    for (restarted, is_harm) in
        [(&["fra-2"][..], false), (&["fra-2", "nyc-1"], true), (&["fra-2", "fra-2"], true)]
    {
        let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
        while rollout.stage != Stage::All {
            nodes.until_decided(&mut rollout, |_| true, 100);
        }
        for _ in 0..20 {
            nodes.second(&mut rollout, |_| true, 100);
        }
        for name in restarted {
            let view = nodes.node(name);
            view.starts += 1;
            view.vitals = Vitals { since_ms: 7, memory_bytes: 1 << 28, ..Vitals::default() };
        }
        let (decision, _) = nodes.until_decided(&mut rollout, |_| true, 100);
        assert_eq!(matches!(decision, Some(Decision::Undo(_))), is_harm, "{restarted:?}: {decision:?}");
    }
}

#[test]
fn sites_that_begin_empty_may_miss_when_the_order_says_so_and_must_not_fail() {
    for (is_cold, errors, is_harm) in [(false, 0, true), (true, 0, false), (true, 10, true)] {
        let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
        rollout.is_cold = is_cold;
        nodes.until_decided(&mut rollout, |_| true, 100);
        for _ in 0..60 {
            let view = nodes.node("ams-1");
            // Of the hundred that follow: none hits.
            view.vitals.hits -= 90;
            view.vitals.latency[1] -= 90;
            view.vitals.latency[7] += 90;
            view.vitals.errors += errors;
            nodes.second(&mut rollout, |_| true, 100);
        }
        assert_eq!(rollout.stage == Stage::Undone, is_harm, "{is_cold} {errors}: {:?}", rollout.harm);
    }
}

#[test]
fn what_is_worse_for_all_alike_is_not_the_candidates_doing() {
    for (elsewhere, is_harm) in [(true, false), (false, true)] {
        let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
        nodes.until_decided(&mut rollout, |_| true, 100);
        for _ in 0..30 {
            nodes.views.iter_mut().filter(|view| elsewhere || view.name == "ams-1").for_each(|view| {
                view.vitals.errors += 20;
            });
            nodes.second(&mut rollout, |_| true, 100);
        }
        assert_eq!(rollout.stage == Stage::Undone, is_harm, "{:?}", rollout.harm);
    }
}

#[test]
fn once_all_run_it_a_hiccup_is_no_harm_and_slowness_that_stays_is_undone_in_time() {
    for (slow_for, is_promoted) in [(8, true), (600, false)] {
        let mut nodes = Nodes::of(&THREE_POPS);
        let mut rollout = staged();
        while rollout.stage != Stage::All {
            nodes.second(&mut rollout, |_| true, 100);
        }
        let mut seconds = 0;
        while !rollout.is_over() {
            seconds += 1;
            if (60..60 + slow_for).contains(&seconds) {
                for view in &mut nodes.views {
                    view.vitals.requests += 20;
                    view.vitals.hits += 20;
                    view.vitals.latency[12] += 20;
                }
            }
            nodes.second(&mut rollout, |_| true, 100);
        }
        let place = format!("slow for {slow_for} s, over after {seconds} s: {:?}", rollout.harm);
        assert_eq!(rollout.stage == Stage::Promoted, is_promoted, "{place}");
        assert!(is_promoted || seconds - 60 <= 30, "{place}");
    }
}

#[test]
fn another_control_goes_on_and_begins_the_stage_anew() {
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    nodes.until_decided(&mut rollout, |_| true, 100);
    for _ in 0..80 {
        nodes.second(&mut rollout, |_| true, 100);
    }
    let written = serde_json::to_string(&rollout).unwrap();
    assert!(written.len() < 4_000, "{} bytes for seven nodes", written.len());
    let mut rollout: Rollout = serde_json::from_str(&written).unwrap();
    assert_eq!(
        nodes.until_decided(&mut rollout, |_| true, 100),
        (widen(Audience::Pops(vec!["ams".into()])), 92)
    );

    // It knows how many starts there were before.
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    nodes.until_decided(&mut rollout, |_| true, 100);
    let written = serde_json::to_string(&rollout).unwrap();
    nodes.node("ams-1").starts += 1;
    let mut rollout: Rollout = serde_json::from_str(&written).unwrap();
    let (decision, _) = nodes.until_decided(&mut rollout, |_| true, 100);
    let Some(Decision::Undo(harm)) = decision else { panic!("{decision:?}") };
    assert_eq!(harm.measure, Measure::Starts);

    // The first node is never heard of again.
    let mut rollout: Rollout = serde_json::from_str(&written).unwrap();
    (nodes.node("ams-1").starts, nodes.node("ams-1").reported_ms) = (1, 0);
    let (decision, seconds) = nodes.until_decided(&mut rollout, |name| name != "ams-1", 100);
    let Some(Decision::Undo(harm)) = decision else { panic!("{decision:?}") };
    assert!(harm.measure == Measure::Silence && seconds < 30, "{harm} after {seconds} s");
}

#[test]
fn what_nobody_watched_proves_nothing() {
    let (mut nodes, mut rollout) = (Nodes::of(&THREE_POPS), staged());
    nodes.until_decided(&mut rollout, |_| true, 100);
    nodes.second(&mut rollout, |_| true, 100);
    for jump in [86_400_000_000, -86_400_000_000, i64::MAX / 2] {
        nodes.now_ms = nodes.now_ms.saturating_add(jump);
        let waits = nodes.second(&mut rollout, |_| true, 100);
        assert!(matches!(waits, Some(Decision::Wait(_))), "{waits:?}");
    }
    rollout.take_back(0);
    assert_eq!((rollout.stage, nodes.second(&mut rollout, |_| true, 1)), (Stage::Undone, None));
}

#[test]
fn latency_is_read_off_between_the_classes() {
    let mut vitals = Vitals::default();
    assert_eq!(vitals.latency_ms(50.0), None);
    vitals.latency[4] = 100;
    assert_eq!((vitals.latency_ms(50.0), vitals.latency_ms(100.0)), (Some(12.0), Some(16.0)));
    assert_eq!(slow_class(&vitals), 5);
    vitals.latency[16] = 2;
    assert_eq!(slow_class(&vitals), 17);
    assert_eq!(slow_class(&Vitals::default()), 0);
}

#[test]
fn a_paused_rollout_goes_no_further_and_is_undone_all_the_same() {
    let mut nodes = Nodes::of(&THREE_POPS);
    let mut rollout = staged();
    let (decision, _) = nodes.until_decided(&mut rollout, |_| true, 100);
    assert!(matches!(decision, Some(Decision::Widen(_))), "{decision:?}");
    rollout.is_paused = true;
    for _ in 0..600 {
        let decision = nodes.second(&mut rollout, |_| true, 100);
        assert!(matches!(decision, Some(Decision::Wait(_))), "{decision:?}");
    }
    let canary = rollout.canary.clone().unwrap();
    nodes.node(&canary).starts += 1;
    let decision = nodes.second(&mut rollout, |_| true, 100);
    assert!(matches!(decision, Some(Decision::Undo(_))), "{decision:?}");
}

#[test]
fn a_rollout_can_begin_with_a_whole_pop() {
    let mut nodes = Nodes::of(&THREE_POPS);
    let mut rollout = staged();
    rollout.begin_in_pop("ams", nodes.now_ms);
    assert_eq!(rollout.plan().version_for("ams-1", "ams").map(|version| version.number), Some(4));
    assert_eq!(rollout.plan().version_for("fra-1", "fra").map(|version| version.number), Some(3));
    let (decision, _) = nodes.until_decided(&mut rollout, |_| true, 100);
    assert_eq!(decision, Some(Decision::Widen(Audience::All)));
}

const WITH_NAMESERVERS: [(&str, &str); 6] =
    [("fra-1", "fra"), ("fra-2", "fra"), ("ams-1", "ams"), ("ns1", "ams"), ("ns2", ""), ("ns3", "")];

fn with_nameservers(pace: Pace) -> (Nodes, Rollout) {
    let mut rollout = Rollout::begin(version(4), Some(version(3)), pace, "anna", "", 0);
    rollout.have_wait(["ns3", "ns1", "ns2"].map(str::to_owned));
    (Nodes::of(&WITH_NAMESERVERS), rollout)
}

impl Nodes {
    /// Who of the nameservers runs the candidate.
    fn nameservers_on_trial(&self) -> Vec<&str> {
        let run = self.views.iter().filter(|view| view.is_router && view.running == Some(4));
        run.map(|view| &*view.name).collect()
    }

    /// Until this one is admitted and has come to run it.
    fn until_admitted(&mut self, rollout: &mut Rollout, name: &str) {
        for _ in 0..600 {
            self.second(rollout, |_| true, 100);
            if rollout.admitted() == Some(name) && self.node(name).running == Some(4) {
                return;
            }
        }
        panic!("{name} is never admitted: {rollout:?}");
    }
}

#[test]
fn nameservers_take_it_one_at_a_time_and_not_before_all_edges() {
    for pace in [Pace::AtOnce, Pace::Staged] {
        let (mut nodes, mut rollout) = with_nameservers(pace);
        let mut admitted: Vec<(String, i64)> = Vec::new();
        while !rollout.is_over() {
            // An edge that is late holds the nameservers up.
            let is_late =
                rollout.stage == Stage::All && nodes.now_ms < rollout.began_ms.last().unwrap().1 + 8_000;
            let decision = nodes.second(&mut rollout, |name| !is_late || name != "fra-2", 100);
            if let Some(Decision::Admit(name)) = decision {
                assert!(
                    nodes.views.iter().filter(|view| !view.is_router).all(|view| view.running == Some(4))
                );
                admitted.push((name, nodes.now_ms));
            }
            assert!(nodes.nameservers_on_trial().len() <= admitted.len() || rollout.is_over());
        }
        assert_eq!(rollout.plan(), Plan { stable: Some(version(4)), candidate: None });
        let names: Vec<&str> = admitted.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["ns1", "ns2", "ns3"], "{pace:?}");
        for two in admitted.windows(2) {
            let seconds = (two[1].1 - two[0].1) / 1_000;
            assert!((5..10).contains(&seconds), "{admitted:?}");
        }
    }
}

#[test]
fn what_goes_wrong_at_a_nameserver_undoes_it_before_the_next_has_it() {
    type Ill = fn(&mut NodeView);
    let cases: [(Measure, Ill); 5] = [
        (Measure::Refusal, |view| view.refused = Some((4, "no such record".into()))),
        (Measure::Arrival, |view| view.unwell = Some("no answer in 500 ms".into())),
        (Measure::Starts, |view| view.starts = 2),
        (Measure::Errors, |view| view.vitals.errors += 60),
        (Measure::Silence, |_| {}),
    ];
    for (measure, make_ill) in cases {
        let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
        nodes.until_admitted(&mut rollout, "ns2");
        let is_silent = measure == Measure::Silence;
        for _ in 0..30 {
            if rollout.is_over() {
                break;
            }
            make_ill(nodes.node("ns2"));
            nodes.second(&mut rollout, |name| !is_silent || name != "ns2", 100);
            assert!(!nodes.nameservers_on_trial().contains(&"ns3"), "{measure:?}");
        }
        let harm = rollout.harm.clone().unwrap_or_else(|| panic!("{measure:?} is no harm: {rollout:?}"));
        assert_eq!((&*harm.node, harm.measure), ("ns2", measure), "{harm}");
        assert_eq!(rollout.plan(), Plan { stable: Some(version(3)), candidate: None });
    }
}

#[test]
fn a_nameserver_that_dies_later_is_none_of_it_and_two_are() {
    for (lost, is_harm) in [(&["ns1"][..], false), (&["ns1", "ns3"], true)] {
        let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
        nodes.until_admitted(&mut rollout, "ns3");
        for _ in 0..10 {
            nodes.second(&mut rollout, |_| true, 100);
        }
        assert_eq!((rollout.admitted(), nodes.nameservers_on_trial().len()), (None, 3));
        while !rollout.is_over() {
            nodes.second(&mut rollout, |name| !lost.contains(&name), 100);
        }
        assert_eq!(rollout.stage == Stage::Undone, is_harm, "{lost:?}: {:?}", rollout.harm);
    }
}

#[test]
fn a_nameserver_that_is_away_or_not_well_holds_nobody_up_and_has_its_turn_later() {
    for is_away in [true, false] {
        let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
        for second in 0..100 {
            nodes.node("ns1").unwell = (!is_away && second < 60).then(|| "no answer".to_owned());
            nodes.second(&mut rollout, |name| !is_away || second >= 60 || name != "ns1", 100);
            let run = nodes.nameservers_on_trial();
            assert!(run.len() == 3 || !run.contains(&"ns1"), "{second}: {run:?}");
            assert!(second != 59 || run.len() == 3 - usize::from(is_away), "the others have it: {run:?}");
        }
        assert_eq!(nodes.nameservers_on_trial().len(), 3);
        assert_eq!(nodes.until_decided(&mut rollout, |_| true, 100).0, Some(Decision::Promote));
    }
    // And one that stays away, since a moment ago, gets what is stable, whenever that is.
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.node("ns1").reported_ms = nodes.now_ms - 1_000;
    while !rollout.is_over() {
        nodes.second(&mut rollout, |name| name != "ns1", 100);
    }
    assert_eq!(rollout.plan().version_for("ns1", "ams"), Some(&version(4)));
}

#[test]
fn when_all_nameservers_are_out_of_contact_none_is_blamed() {
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.until_admitted(&mut rollout, "ns1");
    for _ in 0..60 {
        let decision = nodes.second(&mut rollout, |name| !name.starts_with("ns"), 100);
        assert!(matches!(decision, Some(Decision::Wait(_))), "{decision:?}");
    }
    while !rollout.is_over() {
        nodes.second(&mut rollout, |_| true, 100);
    }
    assert_eq!(
        (rollout.stage, nodes.nameservers_on_trial().len()),
        (Stage::Promoted, 3),
        "{:?}",
        rollout.harm
    );

    // Most of those that wait stay silent, and so does the one that was admitted: the last one is not kept waiting for ever.
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.views.push(NodeView { name: "ns4".into(), ..nodes.views[5].clone() });
    rollout.waiting.push("ns4".into());
    nodes.until_admitted(&mut rollout, "ns1");
    let (decision, seconds) =
        nodes.until_decided(&mut rollout, |name| !["ns1", "ns2", "ns3"].contains(&name), 100);
    assert!(matches!(decision, Some(Decision::Undo(_))) && seconds <= 600, "{decision:?} after {seconds} s");
}

#[test]
fn nameservers_alone_are_admitted_too_and_begin_at_once_where_nothing_was_stable() {
    let mut nodes = Nodes::of(&WITH_NAMESERVERS[3..]);
    let mut rollout = staged();
    rollout.have_wait(["ns1", "ns2", "ns3"].map(str::to_owned));
    nodes.until_admitted(&mut rollout, "ns2");
    assert_eq!(nodes.nameservers_on_trial(), ["ns1", "ns2"]);
    while !rollout.is_over() {
        nodes.second(&mut rollout, |_| true, 100);
    }
    assert_eq!(rollout.stage, Stage::Promoted);

    let mut first = Rollout::begin(version(1), None, Pace::AtOnce, "anna", "", 0);
    first.have_wait(["ns1", "ns2", "ns3"].map(str::to_owned));
    assert_eq!(first.waiting, Vec::<String>::new(), "they have nothing to lose");
}

#[test]
fn another_control_goes_on_with_the_nameserver_that_was_admitted() {
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.until_admitted(&mut rollout, "ns2");
    nodes.node("ns2").starts += 1;
    let mut other: Rollout = serde_json::from_str(&serde_json::to_string(&rollout).unwrap()).unwrap();
    assert_eq!((other.admitted(), &*other.waiting), (Some("ns2"), &["ns3".to_owned()][..]));
    let (decision, _) = nodes.until_decided(&mut other, |_| true, 100);
    let Some(Decision::Undo(harm)) = decision else { panic!("{decision:?}") };
    assert_eq!((&*harm.node, harm.measure), ("ns2", Measure::Starts));
}

#[test]
fn a_control_that_has_watched_goes_on_with_what_another_has_admitted() {
    for is_ill in [true, false] {
        let (mut nodes, mut a) = with_nameservers(Pace::AtOnce);
        let mut b = a.clone();
        loop {
            nodes.second(&mut a, |_| true, 100);
            if a.admitted().is_some() {
                break;
            }
            b.step(nodes.now_ms, &nodes.views);
        }
        if is_ill {
            nodes.node("ns1").unwell = Some(NO_ANSWER.to_owned());
        }
        let second = |nodes: &mut Nodes, a: &mut Rollout, b: &mut Rollout| {
            nodes.second(a, |_| true, 100);
            if b.waiting != a.waiting {
                b.go_on_from(serde_json::from_str(&serde_json::to_string(a).unwrap()).unwrap());
            }
            b.step(nodes.now_ms, &nodes.views)
        };
        for _ in 0..4 {
            let decision = second(&mut nodes, &mut a, &mut b);
            assert!(!matches!(decision, Some(Decision::Admit(_))), "{decision:?}");
            assert_eq!(b.waiting, ["ns2", "ns3"]);
        }
        assert_eq!((a.is_over(), b.is_over()), (is_ill, is_ill), "{:?} {:?}", a.harm, b.harm);
        if !is_ill {
            // Watched from the moment at which it was admitted, and not from a new one of the stage.
            while b.admitted() == Some("ns1") {
                second(&mut nodes, &mut a, &mut b);
            }
            assert_eq!((b.admitted(), &b.waiting), (Some("ns2"), &vec!["ns3".to_owned()]));
        }
    }
}

#[test]
fn what_is_written_of_many_nodes_is_not_too_long_for_a_cell() {
    const CELL_BYTES_MAX: usize = 1 << 20;
    let mut nodes = Nodes::of(&[("zrh-1", "zrh"), ("ns1", "")]);
    let many = 1_000_000_000_000;
    let vitals = Vitals {
        since_ms: 1_800_000_000_000,
        requests: 17 * many,
        errors: many,
        hits: many,
        personal_hits: many,
        latency: [many; 17],
        memory_bytes: many,
    };
    nodes.views.iter_mut().for_each(|view| view.vitals = vitals);
    let edge = nodes.views[0].clone();
    let more = |number: u32| NodeView { name: format!("{number:064}"), pop: "fra".into(), ..edge.clone() };
    nodes.views.splice(0..0, (0..4_000).map(more));
    let until_decided = |nodes: &mut Nodes, rollout: &mut Rollout| loop {
        nodes.now_ms += 4_000;
        match nodes.second(rollout, |_| true, 0) {
            Some(Decision::Wait(_)) => {}
            decision => return decision,
        }
    };
    let mut rollout = staged();
    rollout.have_wait(["ns1".to_owned()]);
    assert_eq!(until_decided(&mut nodes, &mut rollout), widen(Audience::Nodes(vec!["zrh-1".into()])));
    let written = serde_json::to_string(&rollout).unwrap().len();
    assert!(written < CELL_BYTES_MAX, "{written} bytes");
    assert!(["zrh-1", "ns1"].iter().all(|name| rollout.before.contains_key(*name)));

    let mut rollout = Rollout::begin(version(4), Some(version(3)), Pace::AtOnce, "anna", "", 0);
    nodes.second(&mut rollout, |_| true, 0);
    nodes.node("zrh-1").refused = Some((4, "no such certificate".into()));
    assert!(matches!(until_decided(&mut nodes, &mut rollout), Some(Decision::Undo(_))));
    let written = serde_json::to_string(&rollout).unwrap().len();
    assert!(written < 2_000, "{written} bytes that nobody reads any more");
}

const NO_ANSWER: &str = "gave no answer in 500 ms";

impl Nodes {
    /// A second in which these nameservers do not answer what they ask themselves, and the others do.
    fn second_of_silence(&mut self, rollout: &mut Rollout, mute: &[&str]) -> Option<Decision> {
        for view in self.views.iter_mut().filter(|view| view.is_router) {
            view.unwell = mute.contains(&&*view.name).then(|| NO_ANSWER.to_owned());
        }
        self.second(rollout, |_| true, 100)
    }

    /// The same until it is over; true when it is stable then.
    fn is_promoted_with(&mut self, rollout: &mut Rollout, mute: &[&str]) -> bool {
        while !rollout.is_over() {
            self.second_of_silence(rollout, mute);
        }
        rollout.stage == Stage::Promoted
    }
}

const NAMESERVERS: [&str; 3] = ["ns1", "ns2", "ns3"];

#[test]
fn nameservers_that_none_is_well_of_are_mended_one_at_a_time() {
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    let mut admitted = Vec::new();
    while !rollout.is_over() {
        let well: Vec<String> = nodes.nameservers_on_trial().into_iter().map(str::to_owned).collect();
        let mute: Vec<&str> =
            NAMESERVERS.into_iter().filter(|name| !well.iter().any(|well| well == name)).collect();
        if let Some(Decision::Admit(name)) = nodes.second_of_silence(&mut rollout, &mute) {
            admitted.push((name, nodes.now_ms));
        }
    }
    assert_eq!(rollout.stage, Stage::Promoted, "{:?}", rollout.harm);
    let names: Vec<&str> = admitted.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, NAMESERVERS);
    assert!(admitted.windows(2).all(|two| two[1].1 - two[0].1 >= 5_000), "{admitted:?}");
}

#[test]
fn nameservers_that_were_not_well_before_speak_against_nothing_but_by_refusing_it() {
    // They take it and still do not answer; of an edge and three nameservers most never take it; one never takes it, and starts anew.
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    assert!(nodes.is_promoted_with(&mut rollout, &NAMESERVERS), "{:?}", rollout.harm);
    assert_eq!(nodes.nameservers_on_trial().len(), 3);

    let mut rollout = Rollout::begin(version(4), Some(version(3)), Pace::AtOnce, "anna", "", 0);
    rollout.have_wait(NAMESERVERS.map(str::to_owned));
    let mut nodes = Nodes::of(&WITH_NAMESERVERS[2..]);
    nodes.stuck = NAMESERVERS.to_vec();
    assert!(nodes.is_promoted_with(&mut rollout, &NAMESERVERS), "{:?}", rollout.harm);

    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.stuck = vec!["ns1"];
    for _ in 0..120 {
        nodes.second_of_silence(&mut rollout, &["ns1"]);
        nodes.node("ns1").starts += u64::from(rollout.admitted() == Some("ns1"));
    }
    assert!(nodes.is_promoted_with(&mut rollout, &["ns1"]), "{:?}", rollout.harm);

    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    while rollout.admitted() != Some("ns1") {
        nodes.second_of_silence(&mut rollout, &["ns1"]);
    }
    nodes.node("ns1").refused = Some((4, "no such record".into()));
    assert!(!nodes.is_promoted_with(&mut rollout, &["ns1"]));
    assert_eq!(rollout.harm.unwrap().measure, Measure::Refusal);
}

#[test]
fn a_flood_that_silences_nameservers_without_it_too_undoes_nothing_and_lets_it_go_no_further() {
    for (others, is_flood) in [(&["ns2", "ns3"][..], true), (&["ns3"], true), (&[], false)] {
        let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
        nodes.until_admitted(&mut rollout, "ns1");
        let mute: Vec<&str> = others.iter().copied().chain(["ns1"]).collect();
        for _ in 0..120 {
            nodes.second_of_silence(&mut rollout, &mute);
        }
        assert_eq!(rollout.stage == Stage::All, is_flood, "{mute:?}: {:?}", rollout.harm);
        if is_flood {
            assert_eq!(nodes.nameservers_on_trial(), ["ns1"]);
            assert!(nodes.is_promoted_with(&mut rollout, &[]), "{:?}", rollout.harm);
        }
    }
    // It is no flood that has been there before; and one that does not end is undone at last.
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    while rollout.admitted() != Some("ns1") {
        nodes.second_of_silence(&mut rollout, &["ns2", "ns3"]);
    }
    assert!(!nodes.is_promoted_with(&mut rollout, &NAMESERVERS));
    assert!(nodes.now_ms < 1_800_000_060_000, "{}", nodes.now_ms);

    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.until_admitted(&mut rollout, "ns1");
    assert!(!nodes.is_promoted_with(&mut rollout, &NAMESERVERS));
    assert!(nodes.now_ms > 1_800_000_600_000, "{}", nodes.now_ms);
}

#[test]
fn once_all_nameservers_have_it_a_short_flood_is_no_harm_and_silence_that_stays_is() {
    for (mute, seconds, is_harm) in
        [(&NAMESERVERS[..], 15, false), (&NAMESERVERS, 30, true), (&["ns2"], 15, false), (&["ns2"], 30, true)]
    {
        for is_newest in [false, true] {
            let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
            nodes.until_admitted(&mut rollout, "ns3");
            for _ in 0..if is_newest { 0 } else { 10 } {
                nodes.second_of_silence(&mut rollout, &[]);
            }
            for _ in 0..seconds {
                nodes.second_of_silence(&mut rollout, mute);
            }
            assert_eq!(rollout.is_over(), is_harm, "{mute:?} for {seconds} s: {:?}", rollout.harm);
            assert!(is_harm || nodes.is_promoted_with(&mut rollout, &[]), "{:?}", rollout.harm);
        }
    }
    // While an edge's traffic says that all is well, none is called stable that silences a nameserver just now.
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    while nodes.now_ms < 1_800_000_295_000 {
        nodes.second_of_silence(&mut rollout, &[]);
    }
    for _ in 0..15 {
        let decision = nodes.second_of_silence(&mut rollout, &["ns2"]);
        let Some(Decision::Wait(what)) = decision else { panic!("{decision:?}") };
        assert!(what.contains(NO_ANSWER), "{what}");
    }
}

#[test]
fn five_seconds_of_answers_are_counted_from_the_last_one_that_was_missing() {
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.until_admitted(&mut rollout, "ns1");
    for _ in 0..3 {
        nodes.second_of_silence(&mut rollout, &[]);
    }
    for _ in 0..2 {
        nodes.second_of_silence(&mut rollout, &["ns1"]);
    }
    for second in 0..6 {
        assert_eq!(rollout.admitted(), Some("ns1"), "after {second} s of answers");
        nodes.second_of_silence(&mut rollout, &[]);
    }
    assert_eq!(rollout.admitted(), Some("ns2"));
}

impl Nodes {
    /// Until it is over: whoever is `mute` in a second, by what they run, does not answer what it asks itself. Seconds that it took.
    fn until_over(&mut self, rollout: &mut Rollout, mute: impl Fn(usize, &NodeView) -> bool) -> usize {
        for second in 1..3_000 {
            let of = |view: &NodeView| (view.is_router && mute(second, view)).then(|| NO_ANSWER.to_owned());
            self.views.iter_mut().for_each(|view| view.unwell = of(view));
            self.second(rollout, |_| true, 100);
            if rollout.is_over() {
                return second;
            }
        }
        panic!("it is never over: {rollout:?}");
    }
}

#[test]
fn a_nameserver_that_flaps_once_it_runs_it_undoes_it() {
    // Of so many seconds the last one is, or all but the last ones are, without an answer.
    type Flaps = fn(usize) -> bool;
    let flaps: [(Flaps, usize); 3] =
        [(|second| second % 3 > 0, 50), (|second| second % 4 == 0, 80), (|second| second % 5 == 0, 80)];
    for pace in [Pace::AtOnce, Pace::Staged] {
        for (flaps, most) in flaps {
            let (mut nodes, mut rollout) = with_nameservers(pace);
            nodes.until_admitted(&mut rollout, "ns1");
            let seconds = nodes.until_over(&mut rollout, |second, view| view.name == "ns1" && flaps(second));
            let harm = rollout.harm.clone().unwrap_or_else(|| panic!("{pace:?}: no harm: {rollout:?}"));
            assert_eq!((&*harm.node, harm.measure), ("ns1", Measure::Arrival), "{harm}");
            assert!(seconds < most, "{harm} after {seconds} s");
            assert_eq!(nodes.nameservers_on_trial(), ["ns1"]);
        }
    }
}

#[test]
fn nameservers_that_all_flap_undo_it_only_when_that_does_not_end() {
    for (until, is_undone) in [(300, false), (3_000, true)] {
        let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
        nodes.until_admitted(&mut rollout, "ns1");
        let seconds = nodes.until_over(&mut rollout, |second, _| second < until && second % 4 == 0);
        assert_eq!(rollout.stage == Stage::Undone, is_undone, "after {seconds} s: {:?}", rollout.harm);
        assert!(!is_undone || (600..620).contains(&seconds), "{seconds}");
    }
}

#[test]
fn a_nameserver_that_was_admitted_earlier_is_not_well_by_answering_now_and_then() {
    for is_newest_there in [true, false] {
        let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
        nodes.until_admitted(&mut rollout, "ns3");
        // The last one is still to come, and not away, or all have it.
        for _ in 0..if is_newest_there { 0 } else { 10 } {
            nodes.second_of_silence(&mut rollout, &[]);
        }
        let seconds = nodes.until_over(&mut rollout, |second, view| view.name == "ns2" && second % 20 > 0);
        assert_eq!(rollout.stage, Stage::Undone, "stable after {seconds} s");
        assert!(seconds < 30, "{seconds}");
        assert_eq!(rollout.harm.unwrap().node, "ns2");
    }
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.until_admitted(&mut rollout, "ns2");
    let seconds = nodes.until_over(&mut rollout, |second, view| view.name == "ns1" && second % 3 > 0);
    assert_eq!((rollout.stage, rollout.harm.unwrap().node), (Stage::Undone, "ns1".to_owned()));
    assert!(seconds < 40, "{seconds}");
}

#[test]
fn a_nameserver_that_flapped_before_speaks_against_nothing_and_comes_last() {
    type Flaps = fn(usize) -> bool;
    let flaps: [Flaps; 3] = [|second| second % 3 > 0, |second| second % 4 == 0, |second| second % 10 < 5];
    for pace in [Pace::AtOnce, Pace::Staged] {
        for flaps in flaps {
            let (mut nodes, mut rollout) = with_nameservers(pace);
            let order = std::cell::RefCell::new(Vec::new());
            nodes.until_over(&mut rollout, |second, view| {
                let mut order = order.borrow_mut();
                if view.running == Some(4) && !order.contains(&view.name) {
                    order.push(view.name.clone());
                }
                view.name == "ns1" && flaps(second)
            });
            assert_eq!(rollout.stage, Stage::Promoted, "{pace:?}: {:?}", rollout.harm);
            assert_eq!(order.into_inner(), ["ns2", "ns3", "ns1"], "{pace:?}");
        }
    }
    // A rare miss is none of that: it is watched as all are.
    let (mut nodes, mut rollout) = with_nameservers(Pace::Staged);
    nodes.until_over(&mut rollout, |second, view| match view.running {
        Some(4) => view.name == "ns1",
        _ => view.is_router && second % 40 == 0,
    });
    assert_eq!(rollout.harm.map(|harm| harm.node).as_deref(), Some("ns1"));
}

#[test]
fn a_nameserver_that_has_shown_it_while_it_was_paused_may_miss_an_answer() {
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.until_admitted(&mut rollout, "ns1");
    rollout.is_paused = true;
    for second in 0..200 {
        let mute: &[&str] = if second % 100 == 90 { &["ns1"] } else { &[] };
        nodes.second_of_silence(&mut rollout, mute);
    }
    rollout.is_paused = false;
    assert!(nodes.is_promoted_with(&mut rollout, &[]), "{:?}", rollout.harm);
}

#[test]
fn a_nameserver_that_is_mended_may_be_asked_again_for_what_it_does_not_know() {
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.until_over(&mut rollout, |_, view| view.name == "ns1" && view.running != Some(4));
    assert_eq!(rollout.stage, Stage::Promoted);
    // The same, with queries for names that it does not know as soon as it answers.
    for (was_well, is_undone) in [(false, false), (true, true)] {
        let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
        for _ in 0..600 {
            if nodes.node("ns1").running == Some(4) {
                nodes.node("ns1").vitals.errors += 60;
            }
            let is_mended = was_well || nodes.node("ns1").running == Some(4);
            let mute: &[&str] = if is_mended { &[] } else { &["ns1"] };
            nodes.second_of_silence(&mut rollout, mute);
        }
        assert!(rollout.is_over());
        assert_eq!(rollout.stage == Stage::Undone, is_undone, "{:?}", rollout.harm);
    }
}

#[test]
fn the_node_that_is_said_to_be_missing_is_one_that_was_to_run_it() {
    // The first of the list waits and is away, as most that wait are.
    let mut nodes = Nodes::of(&[
        ("ns0", ""),
        ("fra-1", "fra"),
        ("fra-2", "fra"),
        ("ams-1", "ams"),
        ("ns1", ""),
        ("ns2", ""),
        ("ns3", ""),
        ("ns4", ""),
    ]);
    let mut rollout = Rollout::begin(version(4), Some(version(3)), Pace::AtOnce, "anna", "", 0);
    rollout.have_wait(["ns0", "ns1", "ns2", "ns3", "ns4"].map(str::to_owned));
    while nodes.nameservers_on_trial() != ["ns1"] {
        nodes.second(&mut rollout, |name| name != "ns0", 100);
    }
    let there = |name: &str| !["ns0", "ns1", "ns2", "ns3"].contains(&name);
    let (decision, _) = nodes.until_decided(&mut rollout, there, 100);
    let Some(Decision::Undo(harm)) = decision else { panic!("{decision:?}") };
    assert_eq!((&*harm.node, harm.measure), ("ns1", Measure::Silence), "{harm}");
}

#[test]
fn a_nameserver_in_a_pop_does_not_hold_up_its_stage() {
    let mut nodes = Nodes::of(&[
        ("fra-1", "fra"),
        ("fra-2", "fra"),
        ("fra-3", "fra"),
        ("ams-1", "ams"),
        ("ams-2", "ams"),
        ("ns1", "ams"),
    ]);
    let mut rollout = staged();
    rollout.have_wait(["ns1".to_owned()]);
    while !rollout.is_over() {
        nodes.second(&mut rollout, |_| true, 100);
        assert!(rollout.stage == Stage::All || nodes.nameservers_on_trial().is_empty() || rollout.is_over());
    }
    let stages: Vec<Stage> = rollout.began_ms.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(
        stages,
        [Stage::Measure, Stage::Edge, Stage::Pop, Stage::All, Stage::Promoted],
        "{:?}",
        rollout.harm
    );
}

#[test]
fn what_controls_of_other_versions_write_is_read_and_what_this_one_writes_they_read() {
    let (mut nodes, mut rollout) = with_nameservers(Pace::AtOnce);
    nodes.until_admitted(&mut rollout, "ns1");
    assert!(!nodes.is_promoted_with(&mut rollout, &["ns1"]));
    let written = serde_json::to_string(&rollout).unwrap();
    // The words that the first version with roll-outs knew.
    let known = [
        "errors", "latency", "slow", "misses", "personal", "memory", "starts", "silence", "refusal",
        "arrival",
    ];
    let value: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert!(known.contains(&value["harm"]["measure"].as_str().unwrap()), "{written}");
    for (word, measure) in [("self_check", Measure::Arrival), ("phase_of_the_moon", Measure::Other)] {
        let theirs = written.replace(r#""measure":"arrival""#, &format!(r#""measure":"{word}""#));
        let read: Rollout = serde_json::from_str(&theirs).unwrap();
        assert_eq!(read.harm.unwrap().measure, measure);
    }
    // One that knew of no waiting and no turns.
    let mut older = value;
    let fields = older.as_object_mut().unwrap();
    fields.remove("waiting");
    fields.remove("admitted");
    let read: Rollout = serde_json::from_value(older).unwrap();
    assert_eq!((read.admitted(), read.waiting.len()), (None, 0));
}
