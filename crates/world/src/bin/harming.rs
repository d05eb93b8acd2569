//! Configurations that are valid and do harm, rolled out on a cluster of real processes: `bench/harm.sh` runs it.
//! `harming PERIGEE [KIND …]`: with the program PERIGEE, these kinds; all without.
//!
//! It is the origins, the visitors and the operator at once. Every configuration has edges add its number to their answers, so
//! visitors know which edge runs which, whatever is reported. Harm counts from the first answer by the candidate, or from the first
//! failure where it comes later; it is undone when control says so and every edge that ran it has answered by the old one
//! again. What only a bug would do (crash, hang) is done to the process as soon as it runs the candidate.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use world::cluster::{Cluster, Shape};
use world::draw::Draw;
use world::operator::Operator;

/// Edges that there are.
const EDGES: usize = 10;
/// Requests a second that each edge gets, at times drawn beforehand.
const REQUESTS_PER_SECOND: f64 = 40.0;
/// The header by which an answer says which configuration it was made by.
const TRIED: &str = "x-tried";
/// The header by which an answer says that its visitor is a slow reader.
const TAKES_LONG: &str = "x-takes-long";
/// Between two looks at control's API.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks at what visitors have seen.
const GLANCE: Duration = Duration::from_millis(10);
/// Longest wait for the end of a roll-out, and for a state that must come.
const ROLLOUT_PATIENCE: Duration = Duration::from_secs(900);
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a visitor waits for the head of an answer.
const VISITOR_PATIENCE: Duration = Duration::from_secs(10);
/// Requests that visitors have under way at one edge at most: more are not sent.
const UNDER_WAY_MAX: usize = 4_000;
/// After which a program that has died is started again, as `packaging/systemd` has it.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// What comes late comes so long after the edge has begun to run the candidate.
const LATE_CRASH: Duration = Duration::from_secs(60);
const LATE_ERRORS: Duration = Duration::from_secs(20);
/// What is to be held.
const UNDONE_WITHIN: Duration = Duration::from_secs(30);
/// Objects that hits are of.
const OBJECTS: usize = 100;
const SEED: u64 = 7;

// --- Kinds ---

/// What is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ErrorsOnHalf,
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
    ErrorsLate,
    GoodSite,
    GoodRules,
    GoodOrigin,
}

/// All, by the names that the command line has for them.
const KINDS: [(&str, Kind); 15] = [
    ("errors-on-half", Kind::ErrorsOnHalf),
    ("errors-on-one-site", Kind::ErrorsOnOneSite),
    ("latency-twice", Kind::LatencyTwice),
    ("tail-only", Kind::TailOnly),
    ("leak", Kind::Leak),
    ("crash-at-once", Kind::CrashAtOnce),
    ("crash-late", Kind::CrashLate),
    ("hits-collapse", Kind::HitsCollapse),
    ("personal-shared", Kind::PersonalShared),
    ("refused", Kind::Refused),
    ("silent", Kind::Silent),
    ("errors-late", Kind::ErrorsLate),
    ("good-site", Kind::GoodSite),
    ("good-rules", Kind::GoodRules),
    ("good-origin", Kind::GoodOrigin),
];

impl Kind {
    /// What it is to be undone for; nothing for a good one.
    fn measures(self) -> &'static [&'static str] {
        match self {
            Kind::ErrorsOnHalf | Kind::ErrorsOnOneSite | Kind::ErrorsLate => &["errors"],
            Kind::LatencyTwice => &["latency", "slow"],
            Kind::TailOnly => &["slow"],
            Kind::Leak => &["memory"],
            Kind::CrashAtOnce | Kind::CrashLate => &["starts"],
            Kind::HitsCollapse => &["misses", "latency", "slow"],
            Kind::PersonalShared => &["personal"],
            Kind::Refused => &["refusal"],
            Kind::Silent => &["silence"],
            Kind::GoodSite | Kind::GoodRules | Kind::GoodOrigin => &[],
        }
    }

    fn is_good(self) -> bool {
        self.measures().is_empty()
    }

    /// The configuration of this number: the plain one with this kind's change.
    fn text(self, number: u64, origins: &Origins) -> String {
        let rule = |path: &str, keys: &str| format!("[[site.rule]]\npath = {path:?}\n{keys}\n");
        let at = |address: SocketAddr| format!("origin = \"http://{address}\"");
        let (mut shop, mut news) = (at(origins.plain), at(origins.plain));
        let (mut first, mut more) = (String::new(), String::new());
        match self {
            Kind::ErrorsOnHalf => {
                let failing = format!("cache = false\n{}", at(origins.failing));
                first =
                    rule("/fresh/*", &failing) + &rule("/live/*", &failing) + &rule("/account/*", &failing);
            }
            Kind::ErrorsOnOneSite => news = at(origins.failing),
            Kind::LatencyTwice => shop = at(origins.slow),
            Kind::TailOnly => shop = at(origins.slow_at_times),
            Kind::Leak => {
                let held = format!(
                    "cache = false\n{}\norigin_options = {{ connections_max = 8192 }}",
                    at(origins.holding)
                );
                first = rule("/live/*", &held);
            }
            Kind::HitsCollapse => first = rule("/*", "cache = false"),
            Kind::PersonalShared => first = rule("/account/*", "set_cookie = \"rfc9111\""),
            // The file is nowhere, which control cannot know.
            Kind::Refused => {
                more = format!(
                    "[[site]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n{}\nhttps = \"redirect\"\n\
                     client_certificate = \"required\"\nclient_ca = \"/etc/partner/clients-ca-that-is-not-here.pem\"\n",
                    at(origins.plain)
                );
            }
            Kind::ErrorsLate => first = rule("/fresh/*", &format!("cache = false\n{}", at(origins.late))),
            Kind::CrashAtOnce | Kind::CrashLate | Kind::Silent => {}
            Kind::GoodSite => {
                more = format!(
                    "[[site]]\nname = \"blog\"\ndomains = [\"blog.example\"]\n{}\nttl = \"5m\"\n",
                    at(origins.plain)
                );
            }
            Kind::GoodRules => {
                first = rule("/old/*", "redirect = { to = \"https://shop.example/o/{1}\", status = 301 }")
                    + &rule(
                        "/o/*",
                        "ttl = \"2d\"\nbrowser_ttl = \"1m\"\nresponse_headers = { set = { X-Frame-Options = \"DENY\" } }",
                    );
            }
            Kind::GoodOrigin => shop = at(origins.moved),
        }
        let tried = format!("response_headers = {{ set = {{ {TRIED} = \"{number}\" }} }}");
        let fresh = rule("/fresh/*", "cache = false");
        let live = rule("/live/*", "cache = false");
        format!(
            "[[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\n{shop}\n{tried}\n{first}{fresh}{live}\
             [[site]]\nname = \"news\"\ndomains = [\"news.example\"]\n{news}\n{tried}\n{fresh}{more}"
        )
    }
}

// --- What is true ---

struct World {
    edges: Vec<Edge>,
    /// The number of the configuration that is being tried.
    candidate: AtomicU64,
    is_over: AtomicBool,
    answers: AtomicU64,
    /// Has what is held end.
    release: watch::Sender<u64>,
}

/// An edge, as its visitors know it.
struct Edge {
    name: String,
    address: SocketAddr,
    /// Connections without a request under way.
    idle: Mutex<Vec<http1::SendRequest<Full<Bytes>>>>,
    under_way: AtomicUsize,
    sight: Mutex<Sight>,
}

/// What visitors have seen of the candidate at an edge.
#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    /// The first answer by it.
    first: Option<Instant>,
    /// When the latest request began that it has answered, and when it has answered last.
    last: Option<(Instant, Instant)>,
    /// The first answer of 500 to 599 since.
    failed: Option<Instant>,
    /// When the first request behind all those began that was answered by the old one, and when it was answered.
    back: Option<(Instant, Instant)>,
}

impl Sight {
    fn note(&mut self, is_candidate: bool, began: Instant, is_failure: bool) {
        let now = Instant::now();
        if is_candidate {
            self.first.get_or_insert(now);
            self.last = Some((self.last.map_or(began, |(last, _)| last.max(began)), now));
            self.back = self.back.filter(|(back, _)| *back > began);
        } else if self.last.is_some_and(|(last, _)| began > last) && self.back.is_none() && !is_failure {
            self.back = Some((began, now));
        }
        if is_failure && self.first.is_some() {
            self.failed.get_or_insert(now);
        }
    }
}

// --- Origins ---

/// Addresses of the origins.
#[derive(Clone, Copy, Debug)]
struct Origins {
    plain: SocketAddr,
    /// The same, elsewhere.
    moved: SocketAddr,
    failing: SocketAddr,
    slow: SocketAddr,
    slow_at_times: SocketAddr,
    late: SocketAddr,
    holding: SocketAddr,
}

/// How an origin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Plain,
    /// Everything is answered with 500.
    Failing,
    /// Everything takes 400 ms.
    Slow,
    /// Every fourth answer takes 2 s.
    SlowAtTimes,
    /// Begins to fail some time after the first request.
    Late,
    /// Gives much more than was asked for, to visitors who do not read it until they are told to end: each holds its buffers.
    Holding,
}

/// An origin, on a port of its own.
async fn start_origin(manner: Manner, release: watch::Receiver<u64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (first, count) = (Arc::new(Mutex::new(None::<Instant>)), Arc::new(AtomicU64::new(0)));
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (release, first, count) = (release.clone(), first.clone(), count.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let count = count.fetch_add(1, Ordering::Relaxed);
                    let since = first.lock().get_or_insert_with(Instant::now).elapsed();
                    let release = release.clone();
                    async move {
                        Ok::<_, Infallible>(answer(manner, request.uri().path(), count, since, release).await)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn answer(
    manner: Manner,
    path: &str,
    count: u64,
    since: Duration,
    mut release: watch::Receiver<u64>,
) -> Response<Content> {
    sleep(match manner {
        Manner::Slow => Duration::from_millis(400),
        Manner::SlowAtTimes if count.is_multiple_of(4) => Duration::from_secs(2),
        _ => Duration::from_millis(20),
    })
    .await;
    let fails = manner == Manner::Failing || (manner == Manner::Late && since > LATE_ERRORS);
    let response = Response::builder().header("content-type", "text/plain");
    let response = match path {
        _ if fails => response.status(StatusCode::INTERNAL_SERVER_ERROR),
        _ if path.starts_with("/o/") => response.header("cache-control", "max-age=86400"),
        _ if path.starts_with("/account/") => {
            response.header("cache-control", "max-age=86400").header("set-cookie", format!("session={count}"))
        }
        _ => response.header("cache-control", "no-store"),
    };
    let whole = Bytes::from("x".repeat(1_000));
    let content = match manner {
        Manner::Holding => {
            release.mark_unchanged();
            let released = async move { _ = release.changed().await };
            Content::Endless { piece: Bytes::from(vec![b'x'; 65_536]), released: Box::pin(released) }
        }
        _ => Content::Whole(Full::new(whole)),
    };
    response.header(TAKES_LONG, u16::from(manner == Manner::Holding)).body(content).expect("a response")
}

/// The content of an answer.
enum Content {
    Whole(Full<Bytes>),
    /// The same piece again and again, until it is released.
    Endless {
        piece: Bytes,
        released: Pin<Box<dyn Future<Output = ()> + Send>>,
    },
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(whole) => Pin::new(whole).poll_frame(context),
            Content::Endless { piece, released } => match released.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => Poll::Ready(Some(Ok(Frame::data(piece.clone())))),
            },
        }
    }
}

// --- Visitors ---

/// Sends visitors to an edge until all is over.
async fn send_visitors(world: Arc<World>, edge: usize) {
    let mut draw = Draw(SEED ^ (edge as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1));
    let mut due = Instant::now();
    while !world.is_over.load(Ordering::Relaxed) {
        due += draw.pause(REQUESTS_PER_SECOND);
        sleep(due.saturating_duration_since(Instant::now())).await;
        // What a machine was too busy to send in time is not sent in a burst.
        due = due.max(Instant::now() - Duration::from_secs(1));
        let (host, path) = match draw.below(100) {
            0..60 => ("shop.example", format!("/o/{}", draw.below(OBJECTS))),
            60..75 => ("shop.example", format!("/fresh/{}", draw.below(OBJECTS))),
            75..85 => ("shop.example", format!("/live/{}", draw.below(OBJECTS))),
            85..93 => ("shop.example", format!("/account/{}", draw.below(4))),
            _ => ("news.example", format!("/fresh/{}", draw.below(OBJECTS))),
        };
        let seat = &world.edges[edge];
        if seat.under_way.fetch_add(1, Ordering::Relaxed) < UNDER_WAY_MAX {
            let world = world.clone();
            tokio::spawn(async move {
                visit(&world, edge, host, &path).await;
                world.edges[edge].under_way.fetch_sub(1, Ordering::Relaxed);
            });
        } else {
            seat.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One request. That it fails is seen by others.
async fn visit(world: &World, edge: usize, host: &str, path: &str) {
    let seat = &world.edges[edge];
    let idle = seat.idle.lock().pop().filter(|sender| sender.is_ready());
    let asked = async {
        let mut sender = match idle {
            Some(sender) => sender,
            None => connect(seat.address).await?,
        };
        // Visitors have cookies.
        let cookie = format!("basket={}", "0123456789abcdef".repeat(32));
        let request = Request::builder().uri(path).header("host", host).header("cookie", cookie);
        let began = Instant::now();
        let response = sender.send_request(request.body(Full::default()).ok()?).await.ok()?;
        Some((sender, response, began))
    };
    let Ok(Some((sender, response, began))) = timeout(VISITOR_PATIENCE, asked).await else { return };
    world.answers.fetch_add(1, Ordering::Relaxed);
    let tried = response.headers().get(TRIED).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_failure = response.status().is_server_error();
    let is_candidate = tried == Some(world.candidate.load(Ordering::SeqCst));
    seat.sight.lock().note(is_candidate, began, is_failure);
    if response.headers().get(TAKES_LONG).is_some_and(|value| value == "1") {
        // Nothing of it is read; then the connection is closed.
        let _ = world.release.subscribe().changed().await;
    } else if response.into_body().collect().await.is_ok() {
        seat.idle.lock().push(sender);
    }
}

async fn connect(address: SocketAddr) -> Option<http1::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(driver);
    Some(sender)
}

// --- The operator ---

/// How control's API says that all stands.
struct Look {
    nodes: Vec<Value>,
    rollout: Value,
}

impl Look {
    fn is_over(&self) -> bool {
        !matches!(self.rollout["state"].as_str(), Some("running" | "paused"))
    }

    fn text(&self, key: &str) -> &str {
        self.rollout[key].as_str().unwrap_or_default()
    }

    fn edges(&self) -> impl Iterator<Item = &Value> {
        self.nodes.iter().filter(|node| node["role"] == "edge")
    }

    fn all_run(&self, number: u64) -> bool {
        let runs = |node: &&Value| {
            node["running"].as_u64() == Some(number) && node["in_service"] == Value::Bool(true)
        };
        self.edges().filter(runs).count() == EDGES
    }
}

struct Bench {
    cluster: Cluster,
    world: Arc<World>,
    operator: Operator,
    runtime: Runtime,
    origins: Origins,
    /// The number of the stable configuration.
    stable: u64,
    /// That of the newest.
    number: u64,
}

/// What came of one.
struct Outcome {
    kind: Kind,
    is_promoted: bool,
    /// Edges that ever ran it, or were told to and would not.
    ran: BTreeSet<String>,
    /// What it was undone for.
    measure: String,
    told: String,
    /// From when it could be seen until it was undone by control, and until visitors had the old one again.
    undone: Option<Duration>,
    back: Option<Duration>,
    /// Whether the old one is what every edge falls back to.
    is_good_kept: bool,
    took: Duration,
}

impl Outcome {
    fn print(&self) {
        let seconds =
            |span: Option<Duration>| span.map_or("-".to_owned(), |span| format!("{:.1}", span.as_secs_f64()));
        println!(
            "{} {:?}: {}; ran on {:?}; undone {} s after it could be seen, the old one back after {} s; last known good kept: {}; \
             {:.0} s in all; {}: {}",
            if self.is_as_wanted() { "ok " } else { "BAD" },
            self.kind,
            if self.is_promoted { "promoted" } else { "undone" },
            self.ran,
            seconds(self.undone),
            seconds(self.back),
            self.is_good_kept,
            self.took.as_secs_f64(),
            self.measure,
            self.told,
        );
    }

    fn is_as_wanted(&self) -> bool {
        match self.kind.is_good() {
            true => self.is_promoted && self.ran.len() == EDGES,
            false => {
                self.kind.measures().contains(&&*self.measure)
                    && self.is_good_kept
                    && self.ran.len() <= 1
                    && self.back.is_some_and(|back| back <= UNDONE_WITHIN)
            }
        }
    }
}

/// What is done to a process that runs the candidate.
#[derive(Default)]
struct Fault {
    /// When it was done first: harm can be seen from then on.
    done: Option<Instant>,
    /// And when last.
    again: Option<Instant>,
    /// Which edge is frozen, or down and since when.
    frozen: Option<usize>,
    down: Option<(usize, Instant)>,
}

impl Bench {
    /// A cluster whose first configuration is stable, with visitors.
    fn start(perigee: &Path) -> Bench {
        let shape = Shape { etcd: 0, controls: 1, edges: EDGES, relayed: 0, disks: false };
        let cluster = Cluster::start(perigee, shape);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads");
        let (release, _) = watch::channel(0);
        let origin = |manner| runtime.block_on(start_origin(manner, release.subscribe()));
        let origins = Origins {
            plain: origin(Manner::Plain),
            moved: origin(Manner::Plain),
            failing: origin(Manner::Failing),
            slow: origin(Manner::Slow),
            slow_at_times: origin(Manner::SlowAtTimes),
            late: origin(Manner::Late),
            holding: origin(Manner::Holding),
        };
        let edges = cluster.edges().iter().map(|edge| Edge {
            name: edge.name.clone(),
            address: edge.address,
            idle: Mutex::default(),
            under_way: AtomicUsize::new(0),
            sight: Mutex::default(),
        });
        let world = Arc::new(World {
            edges: edges.collect(),
            candidate: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            release,
        });
        let (authority, token) = cluster.access();
        let operator = Operator::new(&cluster.control_urls()[0], authority, token);
        let mut bench = Bench { cluster, world, operator, runtime, origins, stable: 1, number: 1 };
        // The plain one: that of a kind which changes nothing.
        bench.cluster.apply(&Kind::Silent.text(1, &bench.origins));
        for edge in 0..EDGES {
            bench.runtime.spawn(send_visitors(bench.world.clone(), edge));
        }
        bench.await_state("the first configuration is stable", ROLLOUT_PATIENCE, |look, _| {
            look.text("state") == "promoted"
        });
        bench
    }

    fn look(&mut self) -> Look {
        let (operator, runtime) = (&mut self.operator, &self.runtime);
        runtime.block_on(async {
            let nodes: Value =
                operator.call(Method::GET, "/v1/nodes", Bytes::new()).await.expect("the nodes");
            let rollout =
                operator.call(Method::GET, "/v1/rollouts/current", Bytes::new()).await.expect("the roll-out");
            Look { nodes: nodes["nodes"].as_array().cloned().unwrap_or_default(), rollout }
        })
    }

    fn await_state(&mut self, what: &str, patience: Duration, is_so: impl Fn(&Look, &World) -> bool) {
        let deadline = Instant::now() + patience;
        while !is_so(&self.look(), &self.world) {
            assert!(Instant::now() < deadline, "it never came that {what}\n{}", self.cluster.logs());
            std::thread::sleep(LOOK);
        }
    }

    /// Whether every edge has the stable configuration on its own disk, to fall back to, and runs nothing on trial.
    fn is_good_kept(&self) -> bool {
        self.world.edges.iter().all(|edge| {
            let keep = self.cluster.state(&edge.name).join("cluster");
            let read = |name: &str| fs::read_to_string(keep.join(name)).unwrap_or_default();
            let running: Value = serde_json::from_str(&read("running")).unwrap_or_default();
            let stable = &place(&read("place"))["plan"]["stable"];
            let hash = stable["hash"].as_str().unwrap_or_default();
            stable["number"].as_u64() == Some(self.stable)
                && running["number"].as_u64() == Some(self.stable)
                && keep.join("configurations").join(format!("{hash}.toml")).exists()
                && !keep.join("trial").exists()
        })
    }

    /// Rolls one out, and watches what comes of it.
    fn try_out(&mut self, kind: Kind) -> Outcome {
        let stable = self.stable;
        self.await_state(
            "all edges run the stable configuration, and are in service",
            PATIENCE,
            |look, _| look.is_over() && look.all_run(stable),
        );
        self.number += 1;
        let number = self.number;
        for edge in &self.world.edges {
            *edge.sight.lock() = Sight::default();
        }
        self.world.candidate.store(number, Ordering::SeqCst);
        let text = kind.text(number, &self.origins);
        let began = Instant::now();
        assert_eq!(
            self.cluster.roll_out(&text, &format!("{kind:?}")),
            number,
            "the number that was foreseen"
        );
        let (mut fault, mut told_to, mut looked) = (Fault::default(), None, began);
        let mut ran = BTreeSet::new();
        let (look, over) = loop {
            assert!(began.elapsed() < ROLLOUT_PATIENCE, "the roll-out does not end\n{}", self.cluster.logs());
            std::thread::sleep(GLANCE);
            self.do_fault(kind, &mut fault);
            for edge in &self.world.edges {
                if edge.sight.lock().first.is_some() {
                    ran.insert(edge.name.clone());
                }
            }
            if looked.elapsed() < LOOK {
                continue;
            }
            looked = Instant::now();
            let look = self.look();
            if look.text("stage") == "edge" {
                told_to.get_or_insert(looked);
            }
            for node in look.edges() {
                let refused = node["refused"]["version"].as_u64();
                if [node["running"].as_u64(), refused].contains(&Some(number)) {
                    ran.insert(node["name"].as_str().unwrap_or_default().to_owned());
                }
            }
            if look.is_over() {
                break (look, Instant::now());
            }
        };
        let is_promoted = look.text("state") == "promoted";
        if is_promoted {
            self.stable = number;
        }
        if let Some(edge) = fault.frozen.take() {
            self.cluster.edges()[edge].thaw();
        }
        if let Some((edge, _)) = fault.down.take() {
            self.cluster.edges_mut()[edge].restart();
        }
        let now_stable = self.stable;
        let is_back = |edge: &Edge| {
            let sight = edge.sight.lock();
            is_promoted || sight.first.is_none() || sight.back.is_some()
        };
        self.await_state("visitors have the old configuration again", PATIENCE, |look, world| {
            look.all_run(now_stable) && world.edges.iter().all(is_back)
        });
        self.world.release.send_modify(|generation| *generation += 1);
        let sights: Vec<Sight> = self.world.edges.iter().map(|edge| *edge.sight.lock()).collect();
        let first = sights.iter().filter_map(|sight| sight.first).min();
        let failed = sights.iter().filter_map(|sight| sight.failed).min();
        let visible = match kind {
            Kind::CrashAtOnce | Kind::CrashLate | Kind::Silent => fault.done,
            Kind::ErrorsLate => failed,
            Kind::Refused => told_to,
            _ => first,
        };
        let back = sights.iter().filter_map(|sight| sight.back).map(|(_, at)| at).max();
        let back = back.map_or(over, |back| back.max(over));
        let since = |at: Instant| visible.map(|visible| at.saturating_duration_since(visible));
        Outcome {
            kind,
            is_promoted,
            ran,
            measure: look.rollout["harm"]["measure"].as_str().unwrap_or_default().to_owned(),
            told: look.rollout["harm"]["told"].as_str().unwrap_or_default().to_owned(),
            undone: since(over).filter(|_| !is_promoted),
            back: since(back).filter(|_| !is_promoted),
            is_good_kept: look.rollout["stable"].as_u64() == Some(stable) && self.await_good_kept(),
            took: began.elapsed(),
        }
    }

    /// What an edge has written follows what it says by a moment.
    fn await_good_kept(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.is_good_kept() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn do_fault(&mut self, kind: Kind, fault: &mut Fault) {
        if let Some((edge, since)) = fault.down {
            if since.elapsed() >= RESTART_AFTER {
                self.cluster.edges_mut()[edge].restart();
                fault.down = None;
            }
            return;
        }
        let after = match kind {
            Kind::CrashAtOnce => Duration::ZERO,
            Kind::CrashLate => LATE_CRASH,
            Kind::Silent => Duration::from_secs(2),
            _ => return,
        };
        let now = Instant::now();
        for (number, edge) in self.world.edges.iter().enumerate() {
            let sight = *edge.sight.lock();
            let Some((first, (_, last))) = sight.first.zip(sight.last) else { continue };
            // Each time that it runs it again.
            let is_new = fault.again.is_none_or(|done| last > done);
            if now < first + after || !is_new || fault.frozen.is_some() {
                continue;
            }
            match kind {
                Kind::Silent => {
                    self.cluster.edges()[number].freeze();
                    fault.frozen = Some(number);
                }
                _ => {
                    self.cluster.edges_mut()[number].kill();
                    fault.down = Some((number, now));
                }
            }
            fault.done.get_or_insert(now);
            fault.again = Some(now);
            return;
        }
    }
}

/// The place that a node wrote last, of the two that its file has: `SUM NUMBER JSON` each.
fn place(file: &str) -> Value {
    let places = file.lines().filter_map(|line| {
        let (_, rest) = line.trim_start().split_once(' ')?;
        let (number, place) = rest.split_once(' ')?;
        Some((number.parse::<u64>().ok()?, serde_json::from_str(place).ok()?))
    });
    places.max_by_key(|(number, _)| *number).map_or(Value::Null, |(_, place)| place)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let usage = format!("usage: harming PERIGEE [KIND …]; kinds are {}", names.join(", "));
    let [perigee, wanted @ ..] = &arguments[..] else { panic!("{usage}") };
    let named = |name: &String| KINDS.iter().find(|(known, _)| known == name).expect(&usage).1;
    let kinds: Vec<Kind> = match wanted {
        [] => KINDS.map(|(_, kind)| kind).to_vec(),
        _ => wanted.iter().map(named).collect(),
    };
    let mut bench = Bench::start(Path::new(perigee));
    let mut outcomes = Vec::new();
    for kind in kinds {
        let outcome = bench.try_out(kind);
        outcome.print();
        outcomes.push(outcome);
    }
    bench.world.is_over.store(true, Ordering::Relaxed);
    let (good, harmful): (Vec<Outcome>, Vec<Outcome>) =
        outcomes.into_iter().partition(|outcome| outcome.kind.is_good());
    let seconds = |of: fn(&Outcome) -> Option<Duration>| {
        harmful.iter().filter_map(of).max().map_or(f64::NAN, |longest| longest.as_secs_f64())
    };
    println!(
        "RESULT kinds={} undone={} edges_max={} undone_s_max={:.1} decided_s_max={:.1} good_kept={} good={} promoted={} answers={}",
        harmful.len(),
        harmful.iter().filter(|outcome| outcome.is_as_wanted()).count(),
        harmful.iter().map(|outcome| outcome.ran.len()).max().unwrap_or_default(),
        seconds(|outcome| outcome.back),
        seconds(|outcome| outcome.undone),
        harmful.iter().filter(|outcome| outcome.is_good_kept).count(),
        good.len(),
        good.iter().filter(|outcome| outcome.is_as_wanted()).count(),
        bench.world.answers.load(Ordering::Relaxed),
    );
}
