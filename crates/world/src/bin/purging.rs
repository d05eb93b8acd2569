//! Purges under load, and whether anything that was purged is served after its receipt: `bench/purge.sh` runs it.
//! `purging PERIGEE CALLS RANDOM`: with the program PERIGEE, CALLS purges are timed; then RANDOM more go against slow fills and edges
//! that are killed, frozen and cut off.
//!
//! The edges are two PoPs, one of them the shield of the other, so that most answers have gone through several.
//!
//! It is the origin ([`world::shop`]), the visitors and the operators at once, so it knows the truth: each object has a version, which a
//! purge follows. A version that the origin gave out before a purge must not come from an edge to a request that began after that edge's
//! receipt for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use world::cluster::{Cluster, Shape};
use world::draw::Draw;
use world::operator::Operator;
use world::shop::{self, Page, Shop, version_of};

/// The host that visitors ask for.
const HOST: &str = "shop.example";
/// Objects that there are.
const OBJECTS: usize = 2_000;
/// Visitors at a time, each of whom asks about 300 times a second at most.
const VISITORS: usize = 8;
/// What the longest has more than 300 bytes: small, as it is purges that are timed.
const OBJECT_BYTES: usize = 400;
/// For how long an operator waits for the last receipt.
const PROVEN_WITHIN: Duration = Duration::from_secs(60);
/// Timed calls a second, of all operators together: every price of a shop in a quarter of an hour.
const CALLS_PER_SECOND: f64 = 100.0;
/// Calls that take longer are shown, by the second in which they were due.
const SLOW: Duration = Duration::from_millis(200);
const SEED: u64 = 42;

/// Purges that are ordered in one way.
#[derive(Clone, Copy)]
struct Phase {
    /// Calls to the API, each of which is timed to its last receipt.
    calls: usize,
    /// Objects that each call purges.
    per_call: usize,
    /// Operators, each of whom has one call at a time.
    concurrency: usize,
    /// Calls a second, of all together, at times drawn beforehand (a Poisson process), whatever earlier calls take: each is timed from
    /// when it was due. Without, each operator calls again at once.
    rate: Option<f64>,
}

/// What is true.
struct World {
    controls: Vec<String>,
    authority: String,
    token: String,
    /// Name and address of each edge.
    edges: Vec<(String, SocketAddr)>,
    shop: Arc<Shop>,
    /// The oldest version that an edge may still serve, by edge and object.
    floors: Vec<Vec<AtomicU64>>,
    answers: AtomicU64,
    hits: AtomicU64,
    /// Requests without a right answer; those to edges that have just been killed are among them.
    failures: AtomicU64,
    stale: AtomicU64,
    calls_failed: AtomicU64,
    shown: parking::Shown,
    is_over: AtomicBool,
}

mod parking {
    use std::sync::{Mutex, PoisonError};

    /// The first few of many words.
    #[derive(Default)]
    pub(crate) struct Shown(Mutex<Vec<String>>);

    impl Shown {
        pub(crate) fn add(&self, words: impl FnOnce() -> String) {
            let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.len() < 10 {
                shown.push(words());
            }
        }

        pub(crate) fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: purging PERIGEE CALLS RANDOM";
    let [perigee, calls, random] = &arguments[..] else { panic!("{usage}") };
    let [calls, random] = [calls, random].map(|text| text.parse::<usize>().expect(usage));
    let shape = Shape { etcd: 3, controls: 2, edges: 3, relayed: 2, disks: true };
    let mut cluster = Cluster::start(Path::new(perigee), shape);
    let (authority, token) = cluster.access();
    let numbers = || (0..OBJECTS).map(|_| AtomicU64::new(1)).collect::<Vec<_>>();
    let edges: Vec<_> = cluster.edges().iter().map(|edge| (edge.name.clone(), edge.address)).collect();
    let world = Arc::new(World {
        controls: cluster.control_urls(),
        authority: authority.to_owned(),
        token: token.to_owned(),
        shop: Arc::new(Shop::new(OBJECTS, OBJECT_BYTES, 0)),
        floors: edges.iter().map(|_| numbers()).collect(),
        edges,
        answers: AtomicU64::new(0),
        hits: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        stale: AtomicU64::new(0),
        calls_failed: AtomicU64::new(0),
        shown: parking::Shown::default(),
        is_over: AtomicBool::new(false),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(shop::serve(world.shop.clone(), SEED, listener, |_| {}));
    let pops = cluster.pops(&[("ams", 2), ("fra", 3)]);
    cluster.apply(&format!(
        "{pops}[[site]]\nname = \"shop\"\ndomains = [{HOST:?}]\nshield = \"ams\"\norigin = \"http://{address}\"\n"
    ));
    let visitors: Vec<_> =
        (0..VISITORS).map(|number| runtime.spawn(visit(world.clone(), number as u64))).collect();

    let timed = |phase: Phase| {
        let (begin, answers, hits) =
            (Instant::now(), world.answers.load(Ordering::Relaxed), world.hits.load(Ordering::Relaxed));
        let took = runtime.block_on(run(&world, phase));
        let per_second = took.len() as f64 / begin.elapsed().as_secs_f64();
        println!(
            "{} calls, {per_second:.0} a second, beside {} answers to visitors, of which {} hits",
            took.len(),
            world.answers.load(Ordering::Relaxed) - answers,
            world.hits.load(Ordering::Relaxed) - hits,
        );
        show_slow(&took);
        (took, per_second)
    };
    let (took, _) = timed(Phase { calls, per_call: 1, concurrency: 32, rate: Some(CALLS_PER_SECOND) });
    let (busy, busy_per_second) = timed(Phase { calls: calls / 4, per_call: 1, concurrency: 8, rate: None });
    let against = Phase { calls: random / 50, per_call: 50, concurrency: 4, rate: None };
    let (done, purging) = {
        let (world, done) = (world.clone(), Arc::new(AtomicBool::new(false)));
        let is_done = done.clone();
        let purging = runtime.spawn(async move {
            let took = run(&world, against).await;
            is_done.store(true, Ordering::SeqCst);
            took.len()
        });
        (done, purging)
    };
    let disturbances = disturb(&mut cluster, &done);
    let random_calls = runtime.block_on(purging).expect("the operators");
    // What was purged last is still asked for.
    std::thread::sleep(Duration::from_secs(1));
    world.is_over.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for visitor in visitors {
            let _ended = visitor.await;
        }
    });
    println!("{} more purges beside {disturbances} disturbances", random_calls * against.per_call);
    world.shown.take().iter().for_each(|words| println!("  {words}"));
    let failures = world.failures.load(Ordering::Relaxed);
    let at = |took: &[Took], pick: fn(&Took) -> Duration, part: f64| {
        let mut values: Vec<f64> = took.iter().map(|took| pick(took).as_secs_f64() * 1e3).collect();
        values.sort_by(f64::total_cmp);
        values.get((values.len() as f64 * part) as usize).or(values.last()).copied().unwrap_or(f64::NAN)
    };
    println!(
        "RESULT p50_ms={:.1} p99_ms={:.1} written_p50_ms={:.1} busy_p50_ms={:.1} busy_per_s={busy_per_second:.0} \
         stale_after_receipt={} calls={} random={} failed_calls={} answers={} failures={failures}",
        at(&took, |took| took.proven, 0.5),
        at(&took, |took| took.proven, 0.99),
        at(&took, |took| took.written, 0.5),
        at(&busy, |took| took.proven, 0.5),
        world.stale.load(Ordering::Relaxed),
        took.len(),
        random_calls * against.per_call,
        world.calls_failed.load(Ordering::Relaxed),
        world.answers.load(Ordering::Relaxed),
    );
}

/// Shows in which seconds calls were slow, and whether it was the writing: a pause that all calls of a moment share is not a tail.
fn show_slow(took: &[Took]) {
    let mut seconds: BTreeMap<u64, Vec<&Took>> = BTreeMap::new();
    took.iter().for_each(|took| seconds.entry(took.due.as_secs()).or_default().push(took));
    for (second, of) in seconds {
        let worst = |pick: fn(&Took) -> Duration| of.iter().map(|took| pick(took)).max().unwrap_or_default();
        let (written, proven) = (worst(|took| took.written), worst(|took| took.proven));
        if proven > SLOW {
            println!(
                "  {} calls of second {second}: written within {written:.1?}, proven within {proven:.1?}",
                of.len()
            );
        }
    }
}

/// How long a call took: until it was written, and until its last receipt.
struct Took {
    /// When it was due, since the phase began.
    due: Duration,
    written: Duration,
    proven: Duration,
}

async fn run(world: &Arc<World>, phase: Phase) -> Vec<Took> {
    let mut operators = JoinSet::new();
    for number in 0..phase.concurrency {
        let calls = phase.calls / phase.concurrency + usize::from(number < phase.calls % phase.concurrency);
        operators.spawn(operate(world.clone(), phase, number, calls));
    }
    let mut took = Vec::new();
    while let Some(ended) = operators.join_next().await {
        took.extend(ended.expect("an operator"));
    }
    took
}

/// Kills, freezes and cuts off until it is told that all is done. How often.
fn disturb(cluster: &mut Cluster, done: &AtomicBool) -> usize {
    let mut draw = Draw(SEED);
    let mut count = 0;
    while !done.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1_000 + draw.next() % 1_000));
        let edges = cluster.edges().len();
        match draw.below(4) {
            0 => cluster.edges_mut()[draw.below(edges)].restart(),
            1 => {
                let edge = &cluster.edges()[draw.below(edges)];
                edge.freeze();
                std::thread::sleep(Duration::from_millis(draw.next() % 3_000));
                edge.thaw();
            }
            2 => {
                if let Some(relay) = cluster.relay_mut() {
                    relay.restart();
                }
            }
            _ => {
                let controls = cluster.controls_mut();
                let which = draw.below(controls.len());
                controls[which].restart();
            }
        }
        count += 1;
    }
    count
}

// --- Visitors ---

async fn visit(world: Arc<World>, number: u64) {
    let mut draw = Draw(SEED ^ number.wrapping_mul(0x1234_5678_9abc_def1));
    let mut connections: Vec<Option<http1::SendRequest<Full<Bytes>>>> =
        world.edges.iter().map(|_| None).collect();
    while !world.is_over.load(Ordering::Relaxed) {
        let (edge, object) = (draw.below(world.edges.len()), draw.below(OBJECTS));
        let floor = world.floors[edge][object].load(Ordering::SeqCst);
        let asked = timeout(Duration::from_secs(10), ask(&world, edge, object, &mut connections[edge])).await;
        match asked {
            Ok(Ok((version, is_hit))) => {
                world.answers.fetch_add(1, Ordering::Relaxed);
                world.hits.fetch_add(u64::from(is_hit), Ordering::Relaxed);
                if version < floor {
                    world.stale.fetch_add(1, Ordering::Relaxed);
                    let name = &world.edges[edge].0;
                    world
                        .shown
                        .add(|| format!("{name} served object {object} at {version}, purged up to {floor}"));
                }
            }
            Ok(Err(why)) => {
                connections[edge] = None;
                world.failures.fetch_add(1, Ordering::Relaxed);
                world.shown.add(|| format!("{}: {why}", world.edges[edge].0));
                sleep(Duration::from_millis(50)).await;
            }
            Err(_) => {
                connections[edge] = None;
                world.failures.fetch_add(1, Ordering::Relaxed);
                world.shown.add(|| format!("{}: no answer in 10 s", world.edges[edge].0));
            }
        }
        // As many as a visitor's think time lets through: the machine has more to do than this.
        sleep(Duration::from_millis(1 + draw.next() % 4)).await;
    }
}

async fn ask(
    world: &World,
    edge: usize,
    object: usize,
    connection: &mut Option<http1::SendRequest<Full<Bytes>>>,
) -> Result<(u64, bool), String> {
    let words = |error: hyper::Error| error.to_string();
    if connection.as_ref().is_none_or(|connection| connection.is_closed()) {
        let address = world.edges[edge].1;
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
        tokio::spawn(driver);
        *connection = Some(sender);
    }
    let Some(sender) = connection else { return Err("no connection".into()) };
    let page = Page::Product(object);
    let request = Request::builder().uri(page.path()).header("host", HOST).body(Full::default());
    let response = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(words)?;
    let status = response.status();
    let is_hit = response
        .headers()
        .get_all("cache-status")
        .iter()
        .next_back()
        .is_some_and(|value| value.to_str().is_ok_and(|value| value.contains("; hit")));
    let version = version_of(response.headers());
    let body = response.into_body().collect().await.map_err(words)?.to_bytes();
    if status != StatusCode::OK {
        return Err(format!("answered {status}"));
    }
    match version {
        Some(version) if body == world.shop.body(page, version) => Ok((version, is_hit)),
        Some(version) => {
            let start = String::from_utf8_lossy(&body);
            Err(format!("a wrong body of {} at version {version}: {start:.60}", page.path()))
        }
        None => Err(format!("{} has lost its validator", page.path())),
    }
}

// --- Operators ---

async fn operate(world: Arc<World>, phase: Phase, operator: usize, calls: usize) -> Vec<Took> {
    let mut draw = Draw(SEED ^ (operator as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
    // Objects of its own, so that each version has one purge that it waits for.
    let own: Vec<usize> = (0..OBJECTS).filter(|object| object % phase.concurrency == operator).collect();
    let mut clients: Vec<Operator> =
        world.controls.iter().map(|control| Operator::new(control, &world.authority, &world.token)).collect();
    let mut took = Vec::with_capacity(calls);
    let rate = phase.rate.map(|rate| rate / phase.concurrency as f64);
    let start = Instant::now();
    let mut due = start;
    while took.len() < calls {
        let begin = match rate {
            Some(rate) => {
                due += draw.pause(rate);
                tokio::time::sleep_until(due.into()).await;
                due
            }
            None => Instant::now(),
        };
        // Different ones, so that as many are purged as are counted.
        let mut chosen = BTreeSet::new();
        while chosen.len() < phase.per_call {
            chosen.insert(own[draw.below(own.len())]);
        }
        let versions: Vec<u64> = chosen.iter().map(|object| world.shop.change(*object)).collect();
        let by_tag = draw.next().is_multiple_of(2);
        let name = |object: &usize| match (by_tag, Page::Product(*object)) {
            (true, page) => page.tag(),
            (false, page) => format!("http://{HOST}{}", page.path()),
        };
        let names: Vec<String> = chosen.iter().map(name).collect();
        let body = serde_json::json!({ (if by_tag { "tags" } else { "urls" }): names });
        let client = &mut clients[draw.below(world.controls.len())];
        let failed = world.calls_failed.load(Ordering::Relaxed);
        assert!(failed < 1_000, "too many calls fail: {:?}", world.shown.take());
        match client.purge(&body, PROVEN_WITHIN).await {
            Ok(proven) => {
                took.push(Took {
                    due: begin - start,
                    written: proven.written - begin,
                    proven: begin.elapsed(),
                });
                for (edge, (name, _)) in world.edges.iter().enumerate() {
                    if proven.by.contains(name) {
                        for (object, version) in chosen.iter().zip(&versions) {
                            world.floors[edge][*object].fetch_max(*version, Ordering::SeqCst);
                        }
                    }
                }
            }
            Err(why) => {
                world.calls_failed.fetch_add(1, Ordering::Relaxed);
                world.shown.add(|| format!("a purge by {}: {why}", client.control));
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
    took
}
