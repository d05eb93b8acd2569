//! The CDN that is put under fire, its operators, and the course of the whole.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::faults::{Fault, FaultsDone};
use super::{
    Arrivals, DOMAIN, FILES, Options, Outcome, PAGE_BYTES, PAGES, Phase, REQUESTS_PER_SECOND, STALLED_MAX,
    Seen, TRIED, Watched,
};
use crate::cluster::{Cluster, Process, Seat, Shape};
use crate::draw::Draw;
use crate::ground::Fields;
use crate::operator::Operator;
use crate::shop::{self, Page, Shop};

/// The PoP of each edge, in order; the shield's is `ams`.
pub(super) const POPS: [&str; 4] = ["fra", "fra", "ams", "iad"];
/// Whose disk is small enough to be filled, and its size.
pub(super) const SMALL_DISK: usize = 1;
const SMALL_DISK_MIB: u32 = 96;
/// Routers.
const ROUTERS: usize = 2;
/// Operators who change prices, each of whom has one purge under way.
const OPERATORS: usize = 3;
/// Longest wait for what must come at last.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// For how long an operator waits for a purge to be proven before it orders another.
const PROVEN_WITHIN: Duration = Duration::from_secs(120);
/// What a shell says of a program that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;
/// After all agree again, what visitors had begun before has this long to end.
const SETTLE: Duration = Duration::from_secs(2);

/// Everything there is.
pub(super) struct Rig {
    pub(super) cluster: Cluster,
    pub(super) ground: Arc<Fields>,
    pub(super) world: Arc<Watched>,
    pub(super) draw: Draw,
    /// Where the small disk is to be found, if there is one.
    pub(super) small_disk: Option<PathBuf>,
    pub(super) origin: SocketAddr,
    operators: Vec<Operator>,
    runtime: Runtime,
    interrupted: Arc<AtomicBool>,
    agree_within: Duration,
    /// Steps after which the machine had too little time to say how soon all agreed.
    unjudged: usize,
    /// Of the others, the longest time until all agreed.
    agreed_longest: Duration,
}

/// Does all of it.
pub(super) fn run(options: &Options) -> Outcome {
    println!("seed {}", options.seed);
    let began = Instant::now();
    let mut rig = Rig::start(options);
    println!("all is up after {:.0} s", began.elapsed().as_secs_f64());
    let mut done = FaultsDone::default();
    let began = Instant::now();
    let mut steps = 0;
    while began.elapsed() < options.length && steps < options.steps_max && !rig.is_interrupted() {
        steps += 1;
        let fault = Fault::drawn(&mut rig, &mut done, options);
        let Err(panic) =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.step(steps, &fault, &mut done)))
        else {
            continue;
        };
        let why = panic.downcast_ref::<String>().map(String::as_str);
        let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        rig.world.violation("ended", || why.to_owned());
        break;
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    rig.end(steps, minutes, &done, options)
}

impl Rig {
    fn start(options: &Options) -> Rig {
        let ground = Arc::new(Fields::lay());
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let interrupted = await_interrupt(&runtime);
        let origins = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = origins.block_on(TcpListener::bind((ground.hub_address(), 0))).expect("a port");
        let origin = listener.local_addr().expect("an address");
        let controls = if options.etcd == 0 { 1 } else { 2 };
        let shape = Shape { etcd: options.etcd, controls, edges: 0, relayed: 0, disks: false };
        let mut cluster = Cluster::start_on(ground.clone(), &options.perigee, shape);
        cluster.start_relay();
        let mut small_disk = None;
        for (index, pop) in POPS.iter().enumerate() {
            let mut store = "memory = \"16MiB\"\n[[store.disk]]\nsize = \"128MiB\"\n".to_owned();
            if index == SMALL_DISK && ground.can_cut() {
                let directory = cluster.directory().join("small-disk");
                std::fs::create_dir_all(&directory).expect("a directory");
                small_disk = Some(ground.mount(&directory, SMALL_DISK_MIB).expect("a small disk"));
                let _ = writeln!(store, "path = {:?}", directory.join("store"));
            }
            cluster.add_edge(Seat { pop, is_relayed: *pop == "iad", store: &store });
        }
        (0..ROUTERS).for_each(|_| _ = cluster.start_router(None));
        let seen = |edge: &Process| Seen { name: edge.name.clone(), address: edge.address };
        let edges: Vec<Seen> = cluster.edges().iter().map(seen).collect();
        let shop = Arc::new(Shop::new(PAGES, PAGE_BYTES, FILES));
        let numbers = || shop.versions.iter().map(|_| AtomicU64::new(1)).collect::<Vec<_>>();
        let world = Arc::new(Watched {
            seed: options.seed,
            arrivals: Mutex::new(Arrivals::default()),
            routers: cluster.routers().iter().map(|router| router.address).collect(),
            service_port: edges[0].address.port(),
            hub: ground.hub_address(),
            floors: edges.iter().map(|_| numbers()).collect(),
            edges,
            proven: numbers(),
            shop: shop.clone(),
            purges: AtomicU64::new(0),
            refused: Mutex::default(),
            phase: Mutex::new((0, Phase::Disturbed)),
            step: Mutex::new("at the start".to_owned()),
            requests: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            lost: [const { AtomicU64::new(0) }; 4],
            violations: Mutex::default(),
            said: AtomicU64::new(0),
            late_ms: AtomicU64::new(0),
            stalled_ms: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let of_origin = world.clone();
        std::thread::spawn(move || {
            let watched = of_origin.clone();
            let asked = move |from| watched.origin_is_asked(from);
            origins.spawn(shop::serve(shop, of_origin.seed, listener, asked));
            origins.block_on(watch_lateness(&of_origin));
        });
        let first = operators(&cluster);
        let agree_within = options.agree_within;
        let draw = Draw(options.seed);
        let mut rig = Rig {
            cluster,
            ground,
            world,
            draw,
            small_disk,
            origin,
            operators: first,
            interrupted,
            runtime,
            agree_within,
            unjudged: 0,
            agreed_longest: Duration::ZERO,
        };
        let text = rig.configuration(1, "");
        rig.cluster.apply(&text);
        for number in 0..options.visitors {
            rig.runtime.spawn(super::visitors::visit(rig.world.clone(), number));
        }
        for number in 0..OPERATORS {
            rig.runtime.spawn(change_prices(rig.world.clone(), operators(&rig.cluster), number));
        }
        rig.await_routers();
        sleep(SETTLE);
        rig
    }

    /// The configuration of this number, with more sites.
    pub(super) fn configuration(&self, number: u64, more: &str) -> String {
        let mut text = String::new();
        let mut pops = POPS.to_vec();
        pops.dedup();
        for (place, pop) in pops.iter().enumerate() {
            let edges = self.cluster.edges().iter().zip(&POPS).filter(|(_, of)| *of == pop);
            let edges: Vec<_> = edges.map(|(edge, _)| edge).collect();
            let addresses: Vec<_> = edges.iter().map(|edge| edge.address.ip().to_string()).collect();
            let _ =
                writeln!(text, "[[pop]]\nname = {pop:?}\nlocation = [{place}.5, 2.0]\nedges = {addresses:?}");
            for edge in edges {
                let tier = edge.tier.map(|tier| tier.to_string()).unwrap_or_default();
                let _ = writeln!(text, "[[pop.node]]\nname = {:?}\ntier = {tier:?}", edge.name);
            }
        }
        let (port, origin, budget) = (self.world.service_port, self.origin, REQUESTS_PER_SECOND);
        let _ = writeln!(
            text,
            "[dns]\nzone = \"cdn.example\"\nhttps = false\nspare_within = \"5ms\"\nnameservers = {{ \"ns1.cdn.example\" = [\"192.0.2.53\"] }}\n\
             [probe]\nport = {port}\n\
             [[site]]\nname = \"shop\"\ndomains = [{DOMAIN:?}]\nshield = \"ams\"\norigin = \"http://{origin}\"\n\
             response_headers = {{ set = {{ {TRIED} = \"{number}\" }} }}\n\
             origin_options = {{ budget = {{ requests_per_second = {budget}, nodes = {}, reserve_percent = 40 }} }}\n{more}",
            POPS.len()
        );
        text
    }

    /// Whether somebody wants it to end, after the step that is under way.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    // --- Steps ---

    /// Does something, ends it, and waits until all agree again; then a moment of calm.
    fn step(&mut self, number: usize, fault: &Fault, done: &mut FaultsDone) {
        *self.world.step.lock() = format!("step {number}, {fault}");
        println!("{:>5} {fault}", number);
        self.world.said.store(0, Ordering::Relaxed);
        self.world.enter(Phase::Disturbed);
        self.do_fault(fault, done);
        let healed = Instant::now();
        self.world.enter(Phase::Disturbed);
        self.agree(healed, self.agree_within + fault.more_to_agree());
        self.await_routers();
        self.none_has_ended();
        sleep(SETTLE);
        self.world.enter(Phase::Calm);
        sleep(Duration::from_millis(1_000 + self.draw.below(2_000) as u64));
        self.world.enter(Phase::Disturbed);
    }

    /// Waits until every edge and router has the position of a purge that is ordered now, and the configuration that it is to have, at
    /// each control. From then on nothing may be served that was purged before.
    fn agree(&mut self, healed: Instant, within: Duration) {
        let proven: Vec<u64> =
            self.world.proven.iter().map(|version| version.load(Ordering::SeqCst)).collect();
        let (mut position, mut lags, stalled) = (None, String::new(), self.world.stalled());
        let agreed = loop {
            if position.is_none() {
                position = self.order_purge();
            }
            match position.map(|position| self.laggards(position)) {
                None => lags = "no control takes a purge".to_owned(),
                Some(found) if found.is_empty() => {
                    break healed.elapsed().saturating_sub(self.world.stalled() - stalled);
                }
                Some(found) => lags = found,
            }
            assert!(healed.elapsed() < PATIENCE, "they never agree: {lags}\n{}", self.cluster.logs());
            sleep(LOOK);
        };
        for (edge, index) in
            (0..POPS.len()).flat_map(|edge| (0..proven.len()).map(move |index| (edge, index)))
        {
            self.world.raise_floor(edge, index, proven[index]);
        }
        let stalled = self.world.stalled() - stalled;
        if agreed > within && stalled > STALLED_MAX {
            self.unjudged += 1;
        } else if agreed > within {
            self.world.violation("agreement", || format!("{:.1} s; until then {lags}", agreed.as_secs_f64()));
        }
        if stalled <= STALLED_MAX {
            self.agreed_longest = self.agreed_longest.max(agreed);
        }
        println!(
            "    all agree after {:.1} s, beside {:.1} s without any time",
            agreed.as_secs_f64(),
            stalled.as_secs_f64()
        );
    }

    fn order_purge(&mut self) -> Option<u64> {
        let body = json!({ "tags": ["nothing-has-it"] });
        let (operators, runtime) = (&mut self.operators, &self.runtime);
        operators.iter_mut().find_map(|operator| runtime.block_on(operator.order_purge(&body)).ok())
    }

    /// Who is not there yet, as any control sees it; empty when all are.
    fn laggards(&mut self, position: u64) -> String {
        let names: Vec<String> = self
            .cluster
            .edges()
            .iter()
            .chain(self.cluster.routers())
            .map(|process| process.name.clone())
            .collect();
        let (operators, runtime) = (&mut self.operators, &self.runtime);
        let mut lags = String::new();
        for operator in operators {
            let rollout: Result<Value, _> =
                runtime.block_on(operator.call(Method::GET, "/v1/rollouts/current", Bytes::new()));
            let nodes: Result<Value, _> =
                runtime.block_on(operator.call(Method::GET, "/v1/nodes", Bytes::new()));
            let (rollout, nodes) = match rollout.and_then(|rollout| Ok((rollout, nodes?))) {
                Ok(found) => found,
                Err(error) => return format!("{} says nothing: {error}", operator.control),
            };
            let nodes = nodes["nodes"].as_array().cloned().unwrap_or_default();
            for name in &names {
                let Some(node) = nodes.iter().find(|node| node["name"] == name.as_str()) else {
                    let _ = write!(lags, "{name} is unknown at {}; ", operator.control);
                    continue;
                };
                let (running, wanted) = (node["running"].as_u64(), node["wanted"].as_u64());
                // What is on trial is tried again only some time after a death.
                let is_right = running.is_some()
                    && (running == wanted
                        || node["refused"]["version"].as_u64() == wanted
                        || running == rollout["stable"].as_u64() && rollout["state"] == "running");
                let at = node["position"].as_u64().unwrap_or_default();
                if at < position || !is_right || node["in_service"] != true {
                    let _ = write!(
                        lags,
                        "{} has {name} at {at} of {position}, running {running:?} of {wanted:?}, in service: {}; ",
                        operator.control, node["in_service"]
                    );
                }
            }
        }
        lags
    }

    /// Waits until every router sees all edges.
    fn await_routers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for router in self.cluster.routers() {
            let admin = router.admin.expect("a router has metrics");
            while metric(admin, "perigee_router_edges_down") != Some(0.0) {
                assert!(
                    Instant::now() < deadline,
                    "{} never sees all edges up\n{}",
                    router.name,
                    router.log()
                );
                sleep(LOOK);
            }
        }
    }

    /// Whoever should run does.
    fn none_has_ended(&mut self) {
        let mut ended = Vec::new();
        let cluster = &mut self.cluster;
        for process in cluster.processes_mut() {
            if let Some(status) = process.ended() {
                ended.push((process.name.clone(), status));
                process.restart();
            }
        }
        for (name, status) in ended {
            self.world.violation("ended", || format!("{name} has ended by itself: {status}"));
        }
    }

    /// One operator's answer, of the first control that gives any.
    pub(super) fn ask(&mut self, method: &Method, path: &str, body: &str) -> Result<Value, String> {
        let mut why = String::new();
        for operator in &mut self.operators {
            let asked = operator.call(method.clone(), path, Bytes::from(body.to_owned()));
            match self.runtime.block_on(asked) {
                Ok(value) => return Ok(value),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    // --- The end ---

    fn end(mut self, steps: usize, minutes: f64, done: &FaultsDone, options: &Options) -> Outcome {
        self.world.over.store(true, Ordering::SeqCst);
        let world = self.world.clone();
        let violations = world.violation_count();
        println!("\n{done}");
        for (kind, count) in world.violations.lock().iter() {
            println!("{kind}: {count} violations");
        }
        if violations > 0 {
            self.cluster.keep();
            println!("logs and state are kept in {}", self.cluster.directory().display());
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let share = |asked: u64, answered: u64| answered as f64 * 100.0 / asked.max(1) as f64;
        let lost: Vec<u64> = world.lost.iter().map(read).collect();
        println!(
            "RESULT minutes={minutes:.1} steps={steps} requests={} answered={:.3}% pop_lost_requests={} pop_lost_answered={:.3}% \
             after_35s_requests={} after_35s_answered={:.3}% purges={} agreed_s_max={:.1} not_judged={} origin_requests={} origin_most_in_1s={} \
             violations={violations} seed={}",
            read(&world.requests),
            share(read(&world.requests), read(&world.answered)),
            lost[0],
            share(lost[0], lost[1]),
            lost[2],
            share(lost[2], lost[3]),
            read(&world.purges),
            self.agreed_longest.as_secs_f64(),
            self.unjudged,
            read(&world.shop.asked),
            world.arrivals.lock().most,
            options.seed,
        );
        self.runtime.shutdown_background();
        Outcome { steps, requests: read(&world.requests), answered: read(&world.answered), violations }
    }
}

/// By how much what is due comes late here: the most of the last seconds.
async fn watch_lateness(world: &Watched) {
    let pause = Duration::from_millis(5);
    let (mut most, mut before, mut since) = (0, 0, Instant::now());
    while !world.is_over() {
        let began = Instant::now();
        tokio::time::sleep(pause).await;
        let late = (began.elapsed() - pause).as_millis() as u64;
        if late > pause.as_millis() as u64 {
            world.stalled_ms.fetch_add(late, Ordering::Relaxed);
        }
        most = most.max(late + 1);
        if since.elapsed() > Duration::from_secs(2) {
            (before, most, since) = (most, 0, Instant::now());
        }
        world.late_ms.store(most.max(before), Ordering::Relaxed);
    }
}

/// True once somebody has said SIGINT or SIGTERM. Who says so twice has it end at once: what it has started ends with it.
fn await_interrupt(runtime: &Runtime) -> Arc<AtomicBool> {
    async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let noted = interrupted.clone();
    let _in_it = runtime.enter();
    let [mut interrupt, mut terminate] =
        [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).expect("signals"));
    runtime.spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        println!("    ending after this step; once more ends it at once");
        noted.store(true, Ordering::Relaxed);
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(INTERRUPTED);
    });
    interrupted
}

/// A number of a node's metrics.
pub(super) fn metric(admin: SocketAddr, name: &str) -> Option<f64> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&admin, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

// --- Operators ---

fn operators(cluster: &Cluster) -> Vec<Operator> {
    let (authority, token) = cluster.access();
    cluster.control_urls().iter().map(|url| Operator::new(url, authority, token)).collect()
}

/// Changes prices and files, and purges what had the old ones, until all is over.
async fn change_prices(world: Arc<Watched>, mut operators: Vec<Operator>, number: usize) {
    let mut draw = Draw(world.seed ^ (number as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
    // Of its own, so that each version has one purge that it waits for.
    let own: Vec<usize> =
        (0..world.shop.versions.len()).filter(|index| index % OPERATORS == number).collect();
    while !world.is_over() {
        tokio::time::sleep(Duration::from_millis(200 + draw.below(1_200) as u64)).await;
        let changed: Vec<usize> = (0..=draw.below(3)).map(|_| own[draw.below(own.len())]).collect();
        let mut versions = Vec::new();
        for index in &changed {
            versions.push((*index, world.shop.change(*index)));
        }
        let pages = changed.iter().map(|index| world.shop.versioned(*index));
        let body = match draw.below(12) {
            0 => json!({ "site": "shop" }),
            1..7 => json!({ "tags": pages.map(Page::tag).collect::<Vec<_>>() }),
            _ => {
                let urls = pages.map(|page| format!("http://{DOMAIN}{}", page.path()));
                json!({ "urls": urls.collect::<Vec<_>>() })
            }
        };
        // Whatever is done to the controls, at last one takes it, and then all who are in service prove it.
        while !world.is_over() {
            let at = draw.below(operators.len());
            if let Ok(proven) = operators[at].purge(&body, PROVEN_WITHIN).await {
                world.purges.fetch_add(1, Ordering::Relaxed);
                for (index, version) in &versions {
                    world.proven[*index].fetch_max(*version, Ordering::SeqCst);
                    for (edge, seen) in world.edges.iter().enumerate() {
                        if proven.by.contains(&seen.name) {
                            world.raise_floor(edge, *index, *version);
                        }
                    }
                }
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}
