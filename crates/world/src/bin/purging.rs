//! Purges under load, and whether anything that was purged is served after its receipt: the load of `bench/purge.sh`.
//! `purging FILE`, a JSON of [`Plan`]. Prints one line of JSON: [`Outcome`].
//!
//! It is the origin, the visitors and the operators at once, so it knows the truth: each object has a version, which a purge
//! follows. A version that the origin gave out before a purge must not come from an edge to a request that began after that edge's
//! receipt for it. The origin is slow at times, so that fills are in flight while the purge arrives.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use journal::trust::pinned_client_config;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

/// What is to be done.
#[derive(Deserialize)]
struct Plan {
    /// Where the origin listens: `127.0.0.1:0` is for who only wants to know that it runs.
    origin: String,
    /// The host that visitors ask for.
    host: String,
    /// `https://…` of each control.
    controls: Vec<String>,
    /// The fingerprint of the cluster's authority.
    authority: String,
    /// A token that may purge.
    token: String,
    /// Where each edge takes visitors, by its name.
    edges: BTreeMap<String, String>,
    /// Objects.
    objects: usize,
    /// Calls to the API, each of which is timed to its last receipt.
    calls: usize,
    /// Objects that each call purges.
    per_call: usize,
    /// Calls at a time.
    concurrency: usize,
    /// Requests of visitors at a time.
    visitors: usize,
    /// One in so many of the origin's answers takes up to 300 ms.
    slow_one_in: u64,
    seed: u64,
}

/// What came of it.
#[derive(Serialize)]
struct Outcome {
    calls: usize,
    purged: usize,
    /// ms from the call to the last receipt.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// ms from the call to the answer that it is written.
    written_p50_ms: f64,
    purges_per_s: f64,
    stale_after_receipt: u64,
    answers: u64,
    hits: u64,
    failures: u64,
    calls_failed: u64,
    /// In words, some of what went wrong.
    shown: Vec<String>,
}

/// A small generator: the same seed, the same draws (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What is true.
struct World {
    plan: Plan,
    edges: Vec<String>,
    /// The version that the origin gives out, of each object.
    versions: Vec<AtomicU64>,
    /// The oldest version that an edge may still serve, by edge and object.
    floors: Vec<Vec<AtomicU64>>,
    answers: AtomicU64,
    hits: AtomicU64,
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
    let path = std::env::args().nth(1).expect("usage: purging FILE");
    let plan: Plan =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("the plan")).expect("a plan");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.expect("threads").block_on(run(plan));
    println!("{}", serde_json::to_string(&outcome).expect("JSON"));
}

async fn run(plan: Plan) -> Outcome {
    let listener = TcpListener::bind(&plan.origin).await.expect("the origin's address");
    let edges: Vec<String> = plan.edges.keys().cloned().collect();
    let numbers = || (0..plan.objects).map(|_| AtomicU64::new(1)).collect::<Vec<_>>();
    let world = Arc::new(World {
        versions: numbers(),
        floors: edges.iter().map(|_| numbers()).collect(),
        edges,
        plan,
        answers: AtomicU64::new(0),
        hits: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        stale: AtomicU64::new(0),
        calls_failed: AtomicU64::new(0),
        shown: parking::Shown::default(),
        is_over: AtomicBool::new(false),
    });
    tokio::spawn(origin(world.clone(), listener));
    let mut visitors = JoinSet::new();
    for number in 0..world.plan.visitors {
        visitors.spawn(visit(world.clone(), number as u64));
    }
    let begin = Instant::now();
    let mut operators = JoinSet::new();
    let concurrency = world.plan.concurrency.max(1);
    for number in 0..concurrency {
        let calls = world.plan.calls / concurrency + usize::from(number < world.plan.calls % concurrency);
        operators.spawn(operate(world.clone(), number, calls));
    }
    let mut took: Vec<(f64, f64)> = Vec::new();
    while let Some(ended) = operators.join_next().await {
        took.extend(ended.expect("an operator"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    // What was purged last is still asked for.
    sleep(Duration::from_millis(500)).await;
    world.is_over.store(true, Ordering::Relaxed);
    while visitors.join_next().await.is_some() {}
    let sorted = |pick: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = took.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (written, received) = (sorted(|took| took.0), sorted(|took| took.1));
    let at = |values: &[f64], part: f64| {
        values.get(((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1))).copied()
    };
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    Outcome {
        calls: received.len(),
        purged: received.len() * world.plan.per_call,
        p50_ms: at(&received, 0.5).unwrap_or_default(),
        p99_ms: at(&received, 0.99).unwrap_or_default(),
        max_ms: received.last().copied().unwrap_or_default(),
        written_p50_ms: at(&written, 0.5).unwrap_or_default(),
        purges_per_s: (received.len() * world.plan.per_call) as f64 / seconds,
        stale_after_receipt: count(&world.stale),
        answers: count(&world.answers),
        hits: count(&world.hits),
        failures: count(&world.failures),
        calls_failed: count(&world.calls_failed),
        shown: world.shown.take(),
    }
}

// --- The origin ---

async fn origin(world: Arc<World>, listener: TcpListener) {
    let seed = Arc::new(AtomicU64::new(world.plan.seed));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (world, seed) = (world.clone(), seed.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let world = world.clone();
                let drawn = Draw(seed.fetch_add(1, Ordering::Relaxed)).next();
                async move { Ok::<_, Infallible>(give(&world, &request, drawn).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The version is read first and sent last: what lies between is the time in which a purge may come.
async fn give(world: &World, request: &Request<Incoming>, drawn: u64) -> Response<Full<Bytes>> {
    let number = request.uri().path().strip_prefix("/o/").and_then(|number| number.parse::<usize>().ok());
    let Some(version) = number.and_then(|number| world.versions.get(number)) else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let version = version.load(Ordering::SeqCst);
    if drawn.is_multiple_of(world.plan.slow_one_in.max(1)) {
        sleep(Duration::from_millis(drawn / 7 % 300)).await;
    }
    let number = number.unwrap_or_default();
    Response::builder()
        .header("cache-control", "max-age=86400")
        .header("surrogate-key", format!("o{number} all"))
        .header("content-type", "text/plain")
        .body(Full::from(format!("{number} {version} {}", "x".repeat(500))))
        .unwrap_or_default()
}

// --- Visitors ---

async fn visit(world: Arc<World>, number: u64) {
    let mut draw = Draw(world.plan.seed ^ number.wrapping_mul(0x1234_5678_9abc_def1));
    let mut connections: Vec<Option<http1::SendRequest<Full<Bytes>>>> =
        world.edges.iter().map(|_| None).collect();
    while !world.is_over.load(Ordering::Relaxed) {
        let (edge, object) = (draw.below(world.edges.len()), draw.below(world.plan.objects));
        let floor = world.floors[edge][object].load(Ordering::SeqCst);
        let asked = timeout(Duration::from_secs(10), ask(&world, edge, object, &mut connections[edge])).await;
        match asked {
            Ok(Ok((version, is_hit))) => {
                world.answers.fetch_add(1, Ordering::Relaxed);
                world.hits.fetch_add(u64::from(is_hit), Ordering::Relaxed);
                if version < floor {
                    world.stale.fetch_add(1, Ordering::Relaxed);
                    let name = &world.edges[edge];
                    world
                        .shown
                        .add(|| format!("{name} served object {object} at {version}, purged up to {floor}"));
                }
            }
            Ok(Err(why)) => {
                connections[edge] = None;
                world.failures.fetch_add(1, Ordering::Relaxed);
                world.shown.add(|| format!("{}: {why}", world.edges[edge]));
                sleep(Duration::from_millis(50)).await;
            }
            Err(_) => {
                connections[edge] = None;
                world.failures.fetch_add(1, Ordering::Relaxed);
                world.shown.add(|| format!("{}: no answer in 10 s", world.edges[edge]));
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
        let address = &world.plan.edges[&world.edges[edge]];
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
        tokio::spawn(driver);
        *connection = Some(sender);
    }
    let Some(sender) = connection else { return Err("no connection".into()) };
    let request =
        Request::builder().uri(format!("/o/{object}")).header("host", &world.plan.host).body(Full::default());
    let response = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(words)?;
    let status = response.status();
    let is_hit = response
        .headers()
        .get("cache-status")
        .is_some_and(|value| value.to_str().is_ok_and(|value| value.contains("; hit")));
    let body = response.into_body().collect().await.map_err(words)?.to_bytes();
    if status != StatusCode::OK {
        return Err(format!("answered {status}"));
    }
    let text = String::from_utf8_lossy(&body);
    let mut words = text.split(' ');
    let is_right = words.next() == Some(&object.to_string()) && body.len() > 500;
    let version = words.next().and_then(|version| version.parse().ok()).filter(|_| is_right);
    version.map(|version| (version, is_hit)).ok_or_else(|| format!("a wrong body: {text:.60}"))
}

// --- Operators ---

/// What the API says of a purge, as far as it matters here.
#[derive(Deserialize)]
struct Proof {
    position: u64,
    #[serde(default)]
    state: String,
    #[serde(default)]
    receipts: Vec<ProofOfNode>,
}

#[derive(Deserialize)]
struct ProofOfNode {
    node: String,
}

async fn operate(world: Arc<World>, operator: usize, calls: usize) -> Vec<(f64, f64)> {
    let mut draw = Draw(world.plan.seed ^ (operator as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
    // Objects of its own, so that each version has one purge that it waits for.
    let concurrency = world.plan.concurrency.max(1);
    let own: Vec<usize> = (0..world.plan.objects).filter(|object| object % concurrency == operator).collect();
    let mut connection = None;
    let mut took = Vec::with_capacity(calls);
    for _ in 0..calls {
        let mut chosen: Vec<usize> = (0..world.plan.per_call).map(|_| own[draw.below(own.len())]).collect();
        chosen.sort_unstable();
        chosen.dedup();
        let versions: Vec<u64> =
            chosen.iter().map(|object| world.versions[*object].fetch_add(1, Ordering::SeqCst) + 1).collect();
        let by_tag = draw.next().is_multiple_of(2);
        let names: Vec<String> = chosen
            .iter()
            .map(|object| match by_tag {
                true => format!("o{object}"),
                false => format!("http://{}/o/{object}", world.plan.host),
            })
            .collect();
        let body = serde_json::json!({ (if by_tag { "tags" } else { "urls" }): names });
        let control = &world.plan.controls[draw.below(world.plan.controls.len())];
        let begin = Instant::now();
        match purge(&world, control, &mut connection, &body).await {
            Ok((proof, written)) => {
                took.push((written.as_secs_f64() * 1e3, begin.elapsed().as_secs_f64() * 1e3));
                for (edge, name) in world.edges.iter().enumerate() {
                    if proof.receipts.iter().any(|receipt| receipt.node == *name) {
                        for (object, version) in chosen.iter().zip(&versions) {
                            world.floors[edge][*object].fetch_max(*version, Ordering::SeqCst);
                        }
                    }
                }
            }
            Err(why) => {
                connection = None;
                world.calls_failed.fetch_add(1, Ordering::Relaxed);
                world.shown.add(|| format!("a purge by {control}: {why}"));
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
    took
}

type Api = (String, http2::SendRequest<Full<Bytes>>);

/// Purges, and waits for the last receipt. How long it took until it was written.
async fn purge(
    world: &World,
    control: &str,
    connection: &mut Option<Api>,
    body: &serde_json::Value,
) -> Result<(Proof, Duration), String> {
    let begin = Instant::now();
    let text = Bytes::from(body.to_string());
    let written: Proof = call(world, control, connection, Method::POST, "/v1/purges", text).await?;
    let took = begin.elapsed();
    for _ in 0..6 {
        let path = format!("/v1/purges/{}?wait=10s", written.position);
        let proof: Proof = call(world, control, connection, Method::GET, &path, Bytes::new()).await?;
        if proof.state == "done" {
            return Ok((proof, took));
        }
    }
    Err(format!("position {} was not done within a minute", written.position))
}

async fn call(
    world: &World,
    control: &str,
    connection: &mut Option<Api>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Proof, String> {
    if connection.as_ref().is_none_or(|(to, sender)| to != control || sender.is_closed()) {
        let address = control.strip_prefix("https://").ok_or("a control's URL begins with https://")?;
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let tls = pinned_client_config(&world.plan.authority, &[b"h2"]).map_err(|error| error.to_string())?;
        let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let stream =
            TlsConnector::from(tls).connect(name, stream).await.map_err(|error| error.to_string())?;
        let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, driver) = made.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        *connection = Some((control.to_owned(), sender));
    }
    let Some((_, sender)) = connection else { return Err("no connection".into()) };
    let request = Request::builder()
        .method(method)
        .uri(format!("{control}{path}"))
        .header("authorization", format!("Bearer {}", world.plan.token))
        .header("content-type", "application/json")
        .body(Full::from(body))
        .map_err(|error| error.to_string())?;
    let answered = timeout(Duration::from_secs(30), sender.send_request(request)).await;
    let response =
        answered.map_err(|_| "no answer in 30 s".to_owned())?.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    match status.is_success() {
        true => serde_json::from_slice(&body)
            .map_err(|error| format!("{path}: {error}: {}", String::from_utf8_lossy(&body))),
        false => Err(format!("{path}: answered {status}: {}", String::from_utf8_lossy(&body))),
    }
}
