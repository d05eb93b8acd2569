//! A cluster with an origin that has a budget, as processes: edges that follow control, one behind a relay, and an origin that
//! counts. `PERIGEE_STORM=ROUNDS` has the storm go on for longer than in an ordinary run, `PERIGEE_STORM_SEED=N` draws others.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use world::cluster::{Cluster, Shape};
use world::draw::Draw;

const RATE: u64 = 12;
const IN_FLIGHT: usize = 6;

/// An origin that takes a while for each answer.
#[derive(Default)]
struct Origin {
    asked: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    /// When each request came, and for what.
    arrivals: Mutex<Vec<(Instant, String)>>,
}

impl Origin {
    fn start() -> (Arc<Origin>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Arc::new(Origin::default());
        let serving = origin.clone();
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let origin = serving.clone();
                // It ends when the edge closes.
                spawn(move || origin.serve(stream));
            }
        });
        (origin, address)
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        loop {
            let first = lines.next()?.ok()?;
            while !lines.next()?.ok()?.is_empty() {}
            let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
            self.arrivals.lock().unwrap().push((Instant::now(), target));
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.in_flight_max.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_millis(150));
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\n\r\nok";
            (&stream).write_all(answer).ok()?;
        }
    }
}

/// The answer to one request on a connection of its own.
fn get(edge: SocketAddr, host: &str, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(edge).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// What an edge may ask: requests per second.
fn allowed(admin: SocketAddr) -> u64 {
    let text = get(admin, "localhost", "/metrics").unwrap_or_default();
    let of_rate = |line: &&str| {
        line.starts_with("perigee_origin_budget_allowed{") && line.contains("of=\"requests_per_second\"")
    };
    let line = text.lines().find(of_rate).unwrap_or_default();
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

#[test]
fn the_nodes_of_a_cluster_share_a_budget_and_keep_a_floor_without_control() {
    let (origin, address) = Origin::start();
    let shape = Shape { etcd: 0, controls: 1, edges: 2, relayed: 1, disks: false };
    let mut cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_perigee")), shape);
    let begun = Instant::now();
    cluster.apply(&format!(
        "[[site]]\nname = \"shop\"\ndomains = [\"*\"]\norigin = \"http://{address}\"\norigin_options = {{ budget = {{ \
         requests_per_second = {RATE}, in_flight = {IN_FLIGHT}, reserve_percent = 50, nodes = 3, queue = \"1s\" }} }}\n"
    ));
    let edges: Vec<(SocketAddr, SocketAddr)> =
        cluster.edges().iter().map(|edge| (edge.address, edge.admin.unwrap())).collect();
    let each = |expected: &dyn Fn(u64) -> bool| edges.iter().all(|(_, admin)| expected(allowed(*admin)));
    let sum = || edges.iter().map(|(_, admin)| allowed(*admin)).sum::<u64>();
    cluster.wait("each edge to have its floor", || each(&|allowed| allowed >= 2));

    // Far more is wanted than there is, of all of them.
    let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 3]));
    let visitors: Vec<_> = (0..24)
        .map(|visitor| {
            let (is_over, served) = (is_over.clone(), served.clone());
            let edge = edges[visitor % 3].0;
            spawn(move || {
                for number in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer =
                        get(edge, "www.example", &format!("/{visitor}/{number}")).unwrap_or_default();
                    match answer.get(9..12) {
                        Some("200") => drop(served[visitor % 3].fetch_add(1, Ordering::SeqCst)),
                        Some("503") => assert!(answer.contains("detail=origin-budget"), "{answer}"),
                        _ => panic!("{answer}"),
                    }
                }
            })
        })
        .collect();
    let served_each = |count: usize| served.iter().all(|served| served.load(Ordering::SeqCst) >= count);
    cluster.wait("all of it to be leased, to each alike", || each(&|allowed| allowed == RATE / 3));
    cluster.wait("each to be served", || served_each(20));

    cluster.controls_mut()[0].freeze();
    cluster.wait("each edge to have nothing but its floor", || each(&|allowed| allowed == 2));
    let before: Vec<usize> = served.iter().map(|served| served.load(Ordering::SeqCst)).collect();
    cluster.wait("each to be served from its floor", || {
        served.iter().zip(&before).all(|(served, before)| served.load(Ordering::SeqCst) >= before + 6)
    });
    assert_eq!(sum(), 6);

    cluster.controls_mut()[0].thaw();
    cluster.wait("all of it to be leased again", || sum() == RATE);
    is_over.store(true, Ordering::SeqCst);
    visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
    let in_flight_max = origin.in_flight_max.load(Ordering::SeqCst);
    assert!(in_flight_max <= IN_FLIGHT, "{in_flight_max} in flight");
    let (asked, secs) = (origin.asked.load(Ordering::SeqCst) as u64, begun.elapsed().as_secs() + 1);
    assert!(asked <= RATE * (secs + 1), "{asked} requests in {secs} s");
    assert!(asked >= 60);
}

// --- A storm ---

const STORM_RATE: usize = 40;
const STORM_IN_FLIGHT: usize = 21;
const STALE_DEADLINE: Duration = Duration::from_millis(500);
/// What a busy machine may add to it. Who waits for a turn waits for up to 20 s.
const SLACK: Duration = Duration::from_secs(5);
const OBJECTS: usize = 300;
const VISITORS: usize = 14;
const ROUNDS: u64 = 10;

/// A rank by Zipf's law with the exponent 0.9: the sums of its weights are given.
fn rank(draw: &mut Draw, sums: &[f64]) -> usize {
    let drawn = (draw.next() >> 11) as f64 / (1_u64 << 53) as f64 * sums[sums.len() - 1];
    sums.partition_point(|sum| *sum < drawn)
}

/// What visitors know of the storm.
struct Storm {
    edges: Vec<SocketAddr>,
    sums: Vec<f64>,
    /// Of each edge, odd while something is done to it.
    troubles: Vec<AtomicU64>,
    /// Hard purges of everything, begun and ended.
    purges: AtomicU64,
    /// By edge and object: one more than the number of hard purges after which the edge has answered from what it keeps.
    kept: Vec<Vec<AtomicU64>>,
    is_over: AtomicBool,
    served: AtomicUsize,
    stale: AtomicUsize,
    refused: AtomicUsize,
    longest_ms: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Storm {
    fn visit(&self, mut draw: Draw) {
        while !self.is_over.load(Ordering::SeqCst) {
            let (at, object) = (draw.below(self.edges.len()), rank(&mut draw, &self.sums));
            let state = || (self.troubles[at].load(Ordering::SeqCst), self.purges.load(Ordering::SeqCst));
            let before = state();
            let kept = self.kept[at][object].load(Ordering::SeqCst);
            let begun = Instant::now();
            let answer = get(self.edges[at], "www.example", &format!("/{object}"));
            let took = begun.elapsed();
            let is_calm = before == state() && before.0 % 2 == 0 && before.1 % 2 == 0;
            let answer = answer.unwrap_or_default();
            let last = answer.lines().rfind(|line| line.starts_with("Cache-Status:")).unwrap_or_default();
            match answer.get(9..12) {
                Some("200") => {
                    self.served.fetch_add(1, Ordering::SeqCst);
                    self.stale.fetch_add(usize::from(last.contains("detail=stale")), Ordering::SeqCst);
                    if is_calm && last.contains("; hit") {
                        self.kept[at][object].store(before.1 + 1, Ordering::SeqCst);
                    }
                }
                Some("503") if answer.contains("detail=origin-budget") => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                }
                // Whoever asks one that is killed gets nothing, and one that has just begun may have no leave to ask.
                _ if !is_calm => {}
                _ => self.wrong.lock().unwrap().push(format!("edge {at}: {answer:?}")),
            }
            if is_calm && kept == before.1 + 1 {
                self.longest_ms.fetch_max(took.as_millis() as u64, Ordering::SeqCst);
                if took > STALE_DEADLINE + SLACK {
                    self.wrong
                        .lock()
                        .unwrap()
                        .push(format!("edge {at} took {took:?} for {object}: {answer}"));
                }
            }
            sleep(Duration::from_millis(2 + draw.below(10) as u64));
        }
    }

    /// Does something to an edge, of which visitors are to know.
    fn trouble(&self, at: usize, what: impl FnOnce()) {
        self.troubles[at].fetch_add(1, Ordering::SeqCst);
        what();
        self.troubles[at].fetch_add(1, Ordering::SeqCst);
    }
}

/// By how much this machine lets somebody sleep too long, at the most, until it is told to end.
fn oversleep(is_over: &AtomicBool) -> Duration {
    let (pause, mut longest) = (Duration::from_millis(5), Duration::ZERO);
    while !is_over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        sleep(pause);
        longest = longest.max(begun.elapsed() - pause);
    }
    longest
}

#[test]
fn purges_of_everything_at_full_load_and_partitions_never_bring_the_origin_more_than_its_budget() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, rounds) =
        (number("PERIGEE_STORM_SEED").unwrap_or(3), number("PERIGEE_STORM").unwrap_or(ROUNDS));
    println!("PERIGEE_STORM_SEED={seed}");
    let (origin, address) = Origin::start();
    let shape = Shape { etcd: 0, controls: 1, edges: 5, relayed: 2, disks: false };
    let mut cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_perigee")), shape);
    // The shield follows control; of the five others, two follow the relay.
    let text = cluster.pops(&[("ams", 2), ("fra", 5)]);
    cluster.apply(&format!(
        "{text}[[site]]\nname = \"shop\"\ndomains = [\"*\"]\nshield = \"ams\"\nttl = \"2s\"\norigin = \"http://{address}\"\n\
         origin_options = {{ budget = {{ requests_per_second = {STORM_RATE}, in_flight = {STORM_IN_FLIGHT}, reserve_percent = 35, \
         nodes = 7, queue = \"20s\", stale_deadline = \"500ms\", grace = \"8s\" }} }}\n"
    ));
    let edges: Vec<_> = cluster.edges().iter().map(|edge| edge.address).collect();
    let mut sum = 0.0;
    let sums = (1..=OBJECTS).map(|rank| {
        sum += (rank as f64).powf(-0.9);
        sum
    });
    let storm = Storm {
        sums: sums.collect(),
        troubles: edges.iter().map(|_| AtomicU64::new(0)).collect(),
        purges: AtomicU64::new(0),
        kept: edges.iter().map(|_| (0..OBJECTS).map(|_| AtomicU64::new(0)).collect()).collect(),
        edges,
        is_over: AtomicBool::new(false),
        served: AtomicUsize::new(0),
        stale: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        longest_ms: AtomicU64::new(0),
        wrong: Mutex::default(),
    };
    let begun = Instant::now();
    let (late, purged_at) = std::thread::scope(|scope| {
        let late = scope.spawn(|| oversleep(&storm.is_over));
        for visitor in 0..VISITORS as u64 {
            let (storm, draw) = (&storm, Draw(seed ^ (visitor + 1).wrapping_mul(0x1234_5678_9abc_def1)));
            scope.spawn(move || storm.visit(draw));
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut draw = Draw(seed);
            (0..rounds).for_each(|_| disturb(&mut cluster, &storm, &mut draw));
            let purged_at = Instant::now();
            purge(&cluster, &storm, false);
            let before = storm.served.load(Ordering::SeqCst);
            cluster
                .wait("visitors to be served again", || storm.served.load(Ordering::SeqCst) > before + 500);
            purged_at
        }));
        storm.is_over.store(true, Ordering::SeqCst);
        (late.join().unwrap(), ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let arrivals = std::mem::take(&mut *origin.arrivals.lock().unwrap());
    let (served, stale) = (storm.served.load(Ordering::SeqCst), storm.stale.load(Ordering::SeqCst));
    let in_flight_max = origin.in_flight_max.load(Ordering::SeqCst);
    let spans = arrivals.windows(STORM_RATE + 1).map(|some| some[STORM_RATE].0 - some[0].0);
    let shortest = spans.min().unwrap_or(Duration::MAX);
    println!(
        "{served} answers, {stale} of them stale, {} refused, in {:?}; the origin had {} requests, {} of them at most in {shortest:?}, \
         {in_flight_max} at a time; longest wait beside something stale {} ms; this machine is late by up to {late:?}",
        storm.refused.load(Ordering::SeqCst),
        begun.elapsed(),
        arrivals.len(),
        STORM_RATE + 1,
        storm.longest_ms.load(Ordering::SeqCst),
    );
    let wrong = storm.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "seed {seed}: {} wrong, first {}", wrong.len(), wrong[0]);
    assert!(in_flight_max <= STORM_IN_FLIGHT, "{in_flight_max} in flight");
    assert!(shortest + late >= Duration::from_secs(1), "{} requests within {shortest:?}", STORM_RATE + 1);
    assert!(served > 500 && stale > 20, "{served} served, {stale} stale");
    // What most ask for is back first.
    let mut back: Vec<usize> = Vec::new();
    for (_, target) in arrivals.iter().filter(|(at, _)| *at > purged_at) {
        let object = target.trim_start_matches('/').parse().unwrap();
        if !back.contains(&object) {
            back.push(object);
        }
    }
    let mean = |some: &[usize]| some.iter().sum::<usize>() as f64 / some.len().max(1) as f64;
    let (first, last) = (mean(&back[..back.len() / 3]), mean(&back[back.len() - back.len() / 3..]));
    assert!(back.len() > 30 && first < last, "{} came back, ranks {first:.0} before {last:.0}", back.len());
}

fn purge(cluster: &Cluster, storm: &Storm, is_soft: bool) {
    if is_soft {
        cluster.perigee(&["purge", "--cluster", "--everything", "--soft"]);
        return;
    }
    storm.purges.fetch_add(1, Ordering::SeqCst);
    cluster.perigee(&["purge", "--cluster", "--everything", "--wait"]);
    storm.purges.fetch_add(1, Ordering::SeqCst);
}

/// One round: something is purged, or stands still, or is killed.
fn disturb(cluster: &mut Cluster, storm: &Storm, draw: &mut Draw) {
    let at = draw.below(storm.edges.len());
    let pause = Duration::from_millis(500 + draw.below(2_500) as u64);
    match draw.below(6) {
        0 => purge(cluster, storm, false),
        1 => purge(cluster, storm, true),
        // All that there is has run out when it is back.
        2 => {
            cluster.controls_mut()[0].freeze();
            sleep(2 * pause);
            cluster.controls_mut()[0].thaw();
        }
        // Those behind it hear nothing, and its connections are cut.
        3 => cluster.relay_mut().unwrap().restart(),
        4 => storm.trouble(at, || cluster.edges_mut()[at].restart()),
        _ => storm.trouble(at, || {
            cluster.edges()[at].freeze();
            sleep(pause);
            cluster.edges()[at].thaw();
        }),
    }
    sleep(Duration::from_millis(500));
}
