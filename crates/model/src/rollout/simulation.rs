//! A cluster of ten nodes that behave as nodes do, and what a roll-out makes of twelve kinds of harmful configuration and of
//! many good ones. All chance is from the seed that a failure names.

use super::*;

const STABLE: u64 = 3;
const CANDIDATE: u64 = 4;
/// When a roll-out is stepped at the latest; the longest is an idle cluster's.
const SECONDS_MAX: i64 = 1_800;
/// Within which harm must be undone.
const UNDONE_SECS: i64 = 30;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.share()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.share().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * self.share()).cos()
    }

    /// How many come when `mean` are expected.
    fn count(&mut self, mean: f64) -> u64 {
        if mean > 10.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.share(), 0);
        while product > limit {
            product *= self.share();
            count += 1;
        }
        count
    }
}

/// What a configuration does to a node that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harmful {
    ErrorsOnHalf,
    /// A twentieth of what is asked for fails.
    ErrorsOnOneSite,
    LatencyTwice,
    TailOnly,
    Leak,
    CrashAtOnce,
    CrashLate,
    HitsCollapse,
    PersonalShared,
    Refused,
    Silent,
    ErrorsUnderLoad,
}

const HARMFUL: [Harmful; 12] = [
    Harmful::ErrorsOnHalf,
    Harmful::ErrorsOnOneSite,
    Harmful::LatencyTwice,
    Harmful::TailOnly,
    Harmful::Leak,
    Harmful::CrashAtOnce,
    Harmful::CrashLate,
    Harmful::HitsCollapse,
    Harmful::PersonalShared,
    Harmful::Refused,
    Harmful::Silent,
    Harmful::ErrorsUnderLoad,
];

/// What goes on meanwhile and has nothing to do with the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// The load rises and falls by half within ten minutes.
    Diurnal,
    /// One node starts anew.
    Restart,
    /// Nobody asks but a probe now and then.
    Idle,
    /// An origin of all nodes fails for some seconds, while there are nodes to compare with.
    OriginFails,
    /// Reports get lost, one in ten, and control steps unevenly.
    LossyReports,
    /// The clock of control jumps.
    ClockJumps,
    /// A node is away for the whole time, another for half a minute.
    Away,
}

const MEANWHILE: [Meanwhile; 8] = [
    Meanwhile::Nothing,
    Meanwhile::Diurnal,
    Meanwhile::Restart,
    Meanwhile::Idle,
    Meanwhile::OriginFails,
    Meanwhile::LossyReports,
    Meanwhile::ClockJumps,
    Meanwhile::Away,
];

struct Node {
    /// As it is.
    view: NodeView,
    /// As it said last.
    reported: NodeView,
    requests_per_second: f64,
    error_share: f64,
    hit_share: f64,
    personal_share: f64,
    /// Chance of each class of latency, of a hit and of a miss.
    latency: [[f64; crate::vitals::LATENCY_CLASSES]; 2],
    memory: f64,
    /// Version it is to run, and seconds until it does.
    coming: Option<(u64, i64)>,
    /// When it came to run the candidate.
    loaded: Option<i64>,
    /// Until when it is not there.
    away_until: i64,
}

struct Cluster {
    chance: Chance,
    nodes: Vec<Node>,
    meanwhile: Meanwhile,
    /// Of [`Meanwhile`]: when, and which node.
    at: i64,
    whom: usize,
    /// How much more than usual is asked just now; wanders.
    wobble: f64,
}

/// Log-normal latency of this median, in classes.
fn classes(median_ms: f64) -> [f64; crate::vitals::LATENCY_CLASSES] {
    let below = |ms: f64| {
        // The normal distribution, by its logistic neighbour.
        1.0 / (1.0 + (-1.702 * (ms / median_ms).ln() / 0.9).exp())
    };
    let mut classes = [0.0; crate::vitals::LATENCY_CLASSES];
    let mut before = 0.0;
    for (class, chance) in classes.iter_mut().enumerate() {
        let up_to =
            if class + 1 == crate::vitals::LATENCY_CLASSES { 1.0 } else { below(2f64.powi(class as i32)) };
        *chance = up_to - before;
        before = up_to;
    }
    classes
}

impl Cluster {
    fn new(seed: u64, meanwhile: Meanwhile) -> Cluster {
        let mut chance = Chance(seed);
        let pops = ["ams", "ams", "fra", "fra", "fra", "fra", "nyc", "nyc", "nyc", "nyc"];
        let nodes = pops.iter().enumerate().map(|(number, pop)| {
            let idle = meanwhile == Meanwhile::Idle;
            let memory = chance.between(300e6, 900e6);
            let view = NodeView {
                name: format!("{pop}-{number}"),
                pop: (*pop).to_owned(),
                is_router: false,
                reported_ms: 0,
                running: Some(STABLE),
                refused: None,
                unwell: None,
                starts: chance.bits() % 5 + 1,
                vitals: Vitals { since_ms: 1, ..Vitals::default() },
            };
            Node {
                reported: view.clone(),
                view,
                requests_per_second: if idle { 0.02 } else { chance.between(40.0, 150.0) },
                error_share: chance.between(0.0, 0.003),
                hit_share: chance.between(0.7, 0.96),
                personal_share: if number % 3 == 0 { 0.001 } else { 0.0 },
                latency: [classes(0.8), classes(chance.between(40.0, 250.0))],
                memory,
                coming: None,
                loaded: None,
                away_until: 0,
            }
        });
        let nodes = nodes.collect();
        let within = if meanwhile == Meanwhile::OriginFails { 150 } else { 480 };
        let (at, whom) = ((chance.bits() % within) as i64, (chance.bits() % 10) as usize);
        Cluster { chance, nodes, meanwhile, at, whom, wobble: 1.0 }
    }

    /// One second: everybody learns of the plan, answers what is asked, and reports.
    fn second(&mut self, second: i64, now_ms: i64, plan: &Plan, harmful: Option<Harmful>) {
        let Cluster { chance, nodes, meanwhile, at, whom, wobble } = self;
        *wobble = (*wobble * 0.9 + 0.1 + 0.02 * chance.normal()).clamp(0.7, 1.4);
        let tide = match meanwhile {
            Meanwhile::Diurnal => 1.0 + 0.5 * (second as f64 / 600.0 * std::f64::consts::TAU).sin(),
            _ => 1.0,
        };
        // Busy and quiet half minutes, for what fails under load only.
        let is_busy = second % 60 >= 30;
        for (number, node) in nodes.iter_mut().enumerate() {
            let is_it = number == *whom && second == *at;
            match meanwhile {
                Meanwhile::Restart if is_it => {
                    node.start(now_ms);
                    node.away_until = second + 5;
                }
                Meanwhile::Away if is_it => node.away_until = second + 30,
                Meanwhile::Away if number == 9 => node.away_until = i64::MAX,
                _ => {}
            }
            if second < node.away_until {
                continue;
            }
            let wanted = plan.version_for(&node.view.name, &node.view.pop).map(|version| version.number);
            node.follow(wanted, second, chance, harmful);
            let harm = node.loaded.map(|loaded| second - loaded).zip(harmful);
            match harm {
                Some((0, Harmful::CrashAtOnce)) | Some((60, Harmful::CrashLate)) => {
                    node.start(now_ms);
                    node.away_until = second + 2;
                    continue;
                }
                Some((2.., Harmful::Silent)) => continue,
                _ => {}
            }
            let harm = harm.map(|(_, harmful)| harmful);
            let busy = if is_busy && harmful == Some(Harmful::ErrorsUnderLoad) { 1.6 } else { 1.0 };
            let fails = *meanwhile == Meanwhile::OriginFails && (*at..*at + 20).contains(&second);
            node.answer(tide * *wobble * busy, fails, is_busy, harm, chance);
            let is_lost = *meanwhile == Meanwhile::LossyReports && chance.share() < 0.1;
            if !is_lost {
                node.view.reported_ms = now_ms;
                node.reported = node.view.clone();
            }
        }
    }
}

impl Node {
    fn start(&mut self, now_ms: i64) {
        self.view.starts += 1;
        self.view.vitals = Vitals { since_ms: now_ms, ..Vitals::default() };
        self.memory *= 0.3;
    }

    fn follow(&mut self, wanted: Option<u64>, second: i64, chance: &mut Chance, harmful: Option<Harmful>) {
        if wanted != self.view.running && self.coming.is_none_or(|(version, _)| Some(version) != wanted) {
            self.coming = wanted.map(|version| (version, second + 1 + (chance.bits() % 3) as i64));
        }
        let Some((version, _)) = self.coming.filter(|(_, at)| second >= *at) else { return };
        self.coming = None;
        if version == CANDIDATE && harmful == Some(Harmful::Refused) {
            self.view.refused = Some((CANDIDATE, "sites.toml:7:3: unknown key \"tttl\"".to_owned()));
            self.loaded.get_or_insert(second);
            return;
        }
        self.view.running = Some(version);
        self.loaded = (version == CANDIDATE).then_some(second);
    }

    fn answer(
        &mut self,
        load: f64,
        origin_fails: bool,
        is_busy: bool,
        harm: Option<Harmful>,
        chance: &mut Chance,
    ) {
        let mean = self.requests_per_second * load;
        let hit_share = (self.hit_share + 0.005 * chance.normal()).clamp(0.0, 0.99);
        let hit_share = if harm == Some(Harmful::HitsCollapse) { hit_share * 0.3 } else { hit_share };
        let slower =
            (0.05 * chance.normal()).abs() + f64::from(u8::from(harm == Some(Harmful::LatencyTwice)));
        let vitals = &mut self.view.vitals;
        let (mut requests, last) = (0, crate::vitals::LATENCY_CLASSES - 1);
        for class in 0..=last {
            let of = |of: usize, class: usize| self.latency[of][class];
            let at = |class: usize| hit_share * of(0, class) + (1.0 - hit_share) * of(1, class);
            let whole = slower.floor() as usize;
            let part = slower - slower.floor();
            let from = |by: usize| class.checked_sub(by).map_or(0.0, at);
            let mut share = (1.0 - part) * from(whole) + part * from(whole + 1);
            if harm == Some(Harmful::TailOnly) {
                share = 0.94 * share + if class == 13 { 0.06 } else { 0.0 };
            }
            // Rarer than once in a roll-out.
            let count = if mean * share < 1e-5 { 0 } else { chance.count(mean * share) };
            vitals.latency[class] += count;
            requests += count;
        }
        let hits = chance.count(requests as f64 * hit_share).min(requests);
        let error_share = self.error_share
            + match harm {
                Some(Harmful::ErrorsOnHalf) => 0.5,
                Some(Harmful::ErrorsOnOneSite) => 0.05,
                Some(Harmful::ErrorsUnderLoad) if is_busy => 0.1,
                _ => 0.0,
            }
            + if origin_fails { 0.25 * (1.0 - hit_share) } else { 0.0 };
        let personal = self.personal_share + if harm == Some(Harmful::PersonalShared) { 0.03 } else { 0.0 };
        vitals.requests += requests;
        vitals.hits += hits;
        vitals.errors += chance.count(requests as f64 * error_share).min(requests);
        vitals.personal_hits += chance.count(requests as f64 * personal).min(hits);
        if harm == Some(Harmful::Leak) {
            self.memory *= 1.004;
        }
        vitals.memory_bytes = (self.memory * (1.0 + 0.004 * chance.normal())) as u64;
    }
}

/// What came of a roll-out.
struct Outcome {
    rollout: Rollout,
    seconds: i64,
    /// Who ever ran the candidate, or was to.
    ran: Vec<String>,
    /// When harm could first be seen at a node, in seconds.
    visible: Option<i64>,
    waits: Vec<String>,
}

fn play(seed: u64, meanwhile: Meanwhile, harmful: Option<Harmful>) -> Outcome {
    let version = |number| Version { number, hash: format!("{number:064x}"), signature: String::new() };
    let mut cluster = Cluster::new(seed, meanwhile);
    let mut clock_ms = 1_800_000_000_000;
    let mut rollout = Rollout::begin(
        version(CANDIDATE),
        Some(version(STABLE)),
        Pace::Staged,
        "anna",
        "a new rule",
        clock_ms,
    );
    if harmful == Some(Harmful::ErrorsUnderLoad) {
        rollout.canary = Some("fra-3".to_owned());
    }
    let (mut ran, mut visible, mut waits) = (Vec::new(), None, Vec::new());
    for second in 0..SECONDS_MAX {
        clock_ms += match meanwhile {
            Meanwhile::ClockJumps if second % 97 == 96 => {
                [3_600_000, -7_200_000, 315_360_000_000][second as usize % 3]
            }
            Meanwhile::LossyReports => 400 + (cluster.chance.bits() % 1_200) as i64,
            _ => 1_000,
        };
        cluster.second(second, clock_ms, &rollout.plan(), harmful);
        for node in &cluster.nodes {
            if node.loaded.is_some() && !ran.contains(&node.view.name) {
                ran.push(node.view.name.clone());
            }
        }
        visible = visible.or_else(|| {
            let loaded = cluster.nodes.iter().filter_map(|node| node.loaded).min()?;
            let is_visible = match harmful? {
                Harmful::CrashLate => second >= loaded + 60,
                Harmful::ErrorsUnderLoad => second % 60 >= 30,
                _ => true,
            };
            is_visible.then_some(second)
        });
        let views: Vec<NodeView> = cluster.nodes.iter().map(|node| node.reported.clone()).collect();
        if meanwhile == Meanwhile::LossyReports && second == 149 {
            // Another control goes on from what is written down.
            let written = serde_json::to_string(&rollout).unwrap();
            rollout = serde_json::from_str(&written).unwrap();
        }
        match rollout.step(clock_ms, &views) {
            Some(Decision::Wait(why)) => waits.push(why),
            Some(_) if rollout.is_over() => return Outcome { rollout, seconds: second, ran, visible, waits },
            Some(_) | None => {}
        }
    }
    Outcome { rollout, seconds: SECONDS_MAX, ran, visible, waits }
}

#[test]
fn each_kind_of_harm_reaches_one_node_and_is_undone_in_time() {
    for harmful in HARMFUL {
        let mut latest = 0;
        for seed in 0..20 {
            let meanwhile = if seed % 2 == 0 { Meanwhile::Nothing } else { Meanwhile::Diurnal };
            let outcome = play(seed, meanwhile, Some(harmful));
            let place = format!("{harmful:?}, seed {seed}, {:?}", outcome.waits.last());
            assert_eq!(outcome.rollout.stage, Stage::Undone, "{place}");
            assert_eq!(outcome.ran.len(), 1, "{place}: {:?}", outcome.ran);
            let took = outcome.seconds - outcome.visible.unwrap();
            assert!(took <= UNDONE_SECS, "{place}: undone after {took} s");
            latest = latest.max(took);
            let plan = outcome.rollout.plan();
            assert_eq!(plan.stable.map(|stable| stable.number), Some(STABLE), "{place}");
            assert_eq!(plan.candidate, None, "{place}");
            let harm = outcome.rollout.harm.unwrap();
            let wanted: &[Measure] = match harmful {
                Harmful::ErrorsOnHalf | Harmful::ErrorsOnOneSite | Harmful::ErrorsUnderLoad => {
                    &[Measure::Errors]
                }
                Harmful::LatencyTwice => &[Measure::Latency],
                Harmful::TailOnly => &[Measure::Slow],
                Harmful::Leak => &[Measure::Memory],
                Harmful::CrashAtOnce | Harmful::CrashLate => &[Measure::Starts],
                Harmful::HitsCollapse => &[Measure::Misses, Measure::Latency, Measure::Slow],
                Harmful::PersonalShared => &[Measure::Personal],
                Harmful::Refused => &[Measure::Refusal],
                Harmful::Silent => &[Measure::Silence],
            };
            assert!(wanted.contains(&harm.measure), "{place}: {harm}");
            if seed == 0 {
                println!("{harmful:?}: {harm}");
            }
        }
        println!("{harmful:?}: undone within {latest} s of the moment it could be seen");
    }
}

#[test]
fn good_configurations_are_promoted_whatever_goes_on_meanwhile() {
    let (mut undone, mut times) = (Vec::new(), BTreeMap::<String, (i64, i64)>::new());
    let count = 200;
    for seed in 0..count {
        let meanwhile = MEANWHILE[seed as usize % MEANWHILE.len()];
        let outcome = play(1_000 + seed, meanwhile, None);
        if outcome.rollout.stage == Stage::Promoted {
            let time = times.entry(format!("{meanwhile:?}")).or_insert((i64::MAX, 0));
            *time = (time.0.min(outcome.seconds), time.1.max(outcome.seconds));
            assert_eq!(outcome.rollout.judged_on_few, meanwhile == Meanwhile::Idle, "seed {seed}");
            assert_eq!(outcome.rollout.plan().stable.map(|stable| stable.number), Some(CANDIDATE));
        } else {
            undone.push(format!(
                "seed {seed}, {meanwhile:?}: {:?} {:?}",
                outcome.rollout.harm,
                outcome.waits.last()
            ));
        }
    }
    println!("{} of {count} undone: {undone:#?}; seconds from order to promotion: {times:?}", undone.len());
    assert!(undone.len() * 100 <= count as usize, "{undone:#?}");
}
