//! The running router: its threads, its files, and how a change of either comes into force.
//!
//! ```text
//! udp-N   one per worker and address: receive, answer, send; look once per batch whether there is a new state
//! io      TCP, probes, admin: one thread, one runtime
//! plan    health, configuration and location data → a new state, made beside the others and swapped
//! ```
//!
//! Configuration and location data are files that are looked at once per second; on a node of a cluster the configuration is told by
//! whoever follows the journal ([`Router::take`]). What cannot be used is reported and counted, and the state before it stays. It
//! starts and answers without control, edges or network.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use model::crowd::Crowd;
use model::routing::{DNS_RATE, DNS_TTL, POPS_MAX};
use model::steering::{RoundTrips, Steering, Vote, network_of};
use model::{Pop, Routing, Snapshot};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::demand::{self, Demand, Relief};
use crate::explain;
use crate::grey::Greys;
use crate::health::EdgeHealth;
use crate::http::{self, Answer, Request};
use crate::location::{Location, UNKNOWN};
use crate::measure::{MeasureCounters, Measurements};
use crate::mesh::{Mesh, Ways};
use crate::probe::{Seen, Targets, probe_all};
use crate::respond::{Counters, FLAPPING_TTL, Now, PopAnswers, Responder, State, Transport};
use crate::selfcheck::{self, SelfCheck};
use crate::sign::Signer;
use crate::table::{Ranking, Table, V4_BITS, V6_BITS, View, World};
use crate::udp::Batch;
use crate::wire::name_of;
use crate::zone::{Lookup, Zone};

/// TCP connections at a time; each takes a few KiB.
const TCP_CONNECTIONS_MAX: usize = 1_024;
/// Of these from one address, or IPv6 network of 64 bits: many resolvers of an operator, and not all there is. So also for HTTP.
const TCP_PER_ADDRESS_MAX: usize = 64;
/// How long a TCP connection may be silent, or take for a query or an answer (RFC 7766 §6.2.3 leaves it to us).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Bytes of a query by TCP.
const TCP_QUERY_BYTES_MAX: usize = 4_096;
/// How often files are looked at, and states of PoPs that come back are advanced.
const LOOK: Duration = Duration::from_secs(1);
/// How often what was measured comes into force.
const MEASURED_EVERY: Duration = Duration::from_secs(2);
/// Connections to the admin address at a time, and to those for HTTP.
const ADMIN_CONNECTIONS_MAX: usize = 64;
const HTTP_CONNECTIONS_MAX: usize = 4_096;
/// What probes may have seen and nobody has looked at yet.
const SEEN_MAX: usize = 4 * POPS_MAX;
/// How long a thread that waits for packets doesn't look whether it shall stop.
const STOP_LOOK: Duration = Duration::from_millis(200);
/// Bytes of kernel buffer per socket: a burst of some thousand queries.
const SOCKET_BYTES: usize = 1 << 20;

/// What a router is told about itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses for queries, by UDP and TCP. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Address of `/healthz`, `/metrics`, `/v1/route`, `/v1/mesh` and `/v1/samples`.
    pub admin: Option<SocketAddr>,
    /// Addresses where HTTP requests are redirected to the closest PoP, and `/v1/route` is answered.
    pub http: Vec<SocketAddr>,
    /// Threads per address.
    pub workers: usize,
    /// Where the configuration comes from.
    pub config: Config,
    /// Location data; without, nobody's place is known.
    pub location: Option<PathBuf>,
    /// The zone's key, as PKCS #8, if there is one to sign with.
    pub key: Option<Vec<u8>>,
    /// This server's name.
    pub node: String,
    /// From which cookies are made; the same on all servers of a zone.
    pub cookie_secret: [u8; 16],
    /// Who shows it may tell what was measured, by the admin address. Without, nobody may.
    pub token: Option<String>,
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Config {
    /// A file, which is looked at once per second.
    File(Box<FileConfig>),
    /// Whoever starts the router, here and by [`Router::take`]: with the serial number of its zone. It may have no zone: then every
    /// question is another zone's.
    Told(Box<Snapshot>, u32),
}

/// A file with a configuration, as it was read before the router starts.
#[derive(Clone, Debug)]
pub struct FileConfig {
    path: PathBuf,
    seen: Option<SystemTime>,
    snapshot: Snapshot,
}

impl FileConfig {
    /// Reads it. The errors are whole sentences; `report` gets the warnings.
    pub fn read(path: PathBuf, report: &dyn Fn(&str)) -> Result<FileConfig, Vec<String>> {
        let seen = modified(&path);
        let snapshot = read_config(&path, report)?;
        Ok(FileConfig { path, seen, snapshot })
    }

    /// What it says.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// A router that runs. Dropping it leaves it running; [`Router::stop`] ends it.
pub struct Router {
    /// Where it listens for queries, with the ports that were taken.
    pub listening: Vec<SocketAddr>,
    /// Where it listens for admin.
    pub admin: Option<SocketAddr>,
    /// Where it redirects HTTP requests.
    pub http: Vec<SocketAddr>,
    shared: Arc<Shared>,
    news: mpsc::SyncSender<News>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the plan is made anew for.
enum News {
    Seen(Seen),
    /// A configuration, its serial number, and where it is to be said what came of it.
    Told(Box<Snapshot>, u32, mpsc::SyncSender<Result<(), Vec<String>>>),
    /// What a node says, of which PoP; nobody in particular, when both are empty.
    Steered(Box<str>, Box<str>, Box<Steering>),
}

/// What all threads see.
struct Shared {
    state: Mutex<Arc<State>>,
    /// Counts states, so that a worker sees by one load that there is a new one.
    generation: AtomicU64,
    stop: AtomicBool,
    counters: Vec<Arc<Counters>>,
    plan: PlanCounters,
    measured: MeasureCounters,
    /// As of some seconds ago.
    mesh: Mutex<Arc<Ways>>,
    probing: Mutex<HashMap<IpAddr, bool>>,
    token: Option<String>,
    started: Instant,
    asked: SelfCheck,
}

#[derive(Default)]
struct PlanCounters {
    states: AtomicU64,
    reloads: AtomicU64,
    reload_errors: AtomicU64,
    changes: AtomicU64,
    down: AtomicU64,
    probes_failed: AtomicU64,
    probes: AtomicU64,
    serial: AtomicU64,
    position: AtomicU64,
    head: AtomicU64,
    connected: AtomicU64,
    redirects: AtomicU64,
    redirects_refused: AtomicU64,
    votes: AtomicU64,
    grey: AtomicU64,
    relieved: AtomicU64,
    too_fast: AtomicU64,
    unwell: AtomicU64,
}

/// Why a router does not start. Whole sentences.
#[derive(Debug)]
pub struct StartError(pub Vec<String>);

impl Router {
    /// Starts. Returns when the first query would be answered. `report` gets what people should read: findings of files, PoPs that
    /// go and come.
    pub fn start(settings: Settings, report: impl Fn(&str) + Send + 'static) -> Result<Router, StartError> {
        let mut planner = Planner::new(&settings, Box::new(report)).map_err(StartError)?;
        let mut listening = Vec::new();
        let mut udp = Vec::new();
        let mut tcp = Vec::new();
        for address in &settings.listen {
            let (sockets, listener) = bind(*address, settings.workers).map_err(|error| {
                StartError(vec![format!("cannot listen on {address}: {error}; choose another with --listen")])
            })?;
            listening.push(local(&listener, *address));
            udp.extend(sockets);
            tcp.push(listener);
        }
        let admin = match settings.admin {
            None => None,
            Some(address) => Some(std::net::TcpListener::bind(address).map_err(|error| {
                StartError(vec![format!(
                    "cannot listen on {address} for admin: {error}; choose another with --admin"
                )])
            })?),
        };
        let mut redirecting = Vec::new();
        for address in &settings.http {
            redirecting.push(std::net::TcpListener::bind(address).map_err(|error| {
                StartError(vec![format!(
                    "cannot listen on {address} for HTTP: {error}; choose another with --http"
                )])
            })?);
        }
        let http =
            redirecting.iter().zip(&settings.http).map(|(one, address)| local(one, *address)).collect();
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        let shared = Arc::new(Shared {
            state: Mutex::new(planner.state()),
            generation: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            counters: (0..=udp.len()).map(|_| Arc::default()).collect(),
            plan: PlanCounters { serial: u64::from(planner.serial).into(), ..PlanCounters::default() },
            measured: MeasureCounters::default(),
            mesh: Mutex::new(Arc::new(Ways::none(&planner.world))),
            probing: Mutex::default(),
            token: settings.token.clone(),
            started: Instant::now(),
            asked: SelfCheck::new(),
        });
        let mut threads = Vec::new();
        let failed = |error: std::io::Error| StartError(vec![format!("cannot start a thread: {error}")]);
        for (index, socket) in udp.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let run = move || serve_udp(&socket, &shared, index);
            threads
                .push(std::thread::Builder::new().name(format!("udp-{index}")).spawn(run).map_err(failed)?);
        }
        let (seen_in, seen_out) = tokio::sync::mpsc::channel(SEEN_MAX);
        let (targets_in, targets_out) = tokio::sync::watch::channel(planner.targets());
        let (news, news_out) = mpsc::sync_channel(SEEN_MAX);
        let (io, io_news) = (Arc::clone(&shared), news.clone());
        // Of one that nobody steers nobody would hear what it finds.
        let asks_itself = matches!(settings.config, Config::Told(..));
        let own = if asks_itself { listening.clone() } else { Vec::new() };
        let run_io =
            move || serve_io(&io, tcp, (admin, redirecting), &targets_out, (&seen_in, &io_news), own);
        threads.push(std::thread::Builder::new().name("io".into()).spawn(run_io).map_err(failed)?);
        let plan = Arc::clone(&shared);
        let forward = news.clone();
        // It ends with the runtime, which drops the probes' side of the channel.
        let run_seen = move || forward_seen(seen_out, &forward);
        std::thread::Builder::new().name("seen".into()).spawn(run_seen).map_err(failed)?;
        let run_plan = move || run_plan(&mut planner, &plan, &news_out, &targets_in);
        threads.push(std::thread::Builder::new().name("plan".into()).spawn(run_plan).map_err(failed)?);
        Ok(Router { listening, admin: admin_address, http, shared, news, threads: Mutex::new(threads) })
    }

    /// Puts a configuration in force; returns when the next query would be answered from it. For routers that were started with
    /// [`Config::Told`].
    ///
    /// # Errors
    /// It cannot be used: everything that is wrong, in sentences. What was in force stays.
    pub fn take(&self, snapshot: Snapshot, serial: u32) -> Result<(), Vec<String>> {
        let stopped = || vec!["the router has stopped".to_owned()];
        let (answer, answered) = mpsc::sync_channel(1);
        self.news.send(News::Told(Box::new(snapshot), serial, answer)).map_err(|_| stopped())?;
        answered.recv().map_err(|_| stopped())?
    }

    /// Takes what a node of the cluster has reported: round trips count within some seconds. What comes faster than it can be taken is
    /// dropped, and counted, and so are the `missed` reports that the cluster had no time for.
    pub fn steered(&self, node: &str, pop: &str, steering: Steering, missed: u64) {
        self.shared.measured.missed.fetch_add(missed, Ordering::Relaxed);
        self.shared.measured.dropped.fetch_add(steering.dropped, Ordering::Relaxed);
        tell(&self.shared, &self.news, (node, pop), steering);
    }

    /// Queries that were read.
    pub fn queries(&self) -> u64 {
        self.shared.counters.iter().map(|counters| counters.queries.load(Ordering::Relaxed)).sum()
    }

    /// Queries for what there is not: names of other zones, and names that the zone does not have.
    pub fn queries_for_nothing(&self) -> u64 {
        let of = |counters: &Arc<Counters>| {
            counters.refused.load(Ordering::Relaxed) + counters.nxdomain.load(Ordering::Relaxed)
        };
        self.shared.counters.iter().map(of).sum()
    }

    /// Why it does not answer what it asks itself each second, if so: a sentence. For routers that were started with [`Config::Told`].
    pub fn unwell(&self) -> Option<String> {
        self.shared.asked.unwell()
    }

    /// Notes, for metrics, up to where the cluster's journal has been followed.
    pub fn follows(&self, position: u64, head: u64, is_connected: bool) {
        let plan = &self.shared.plan;
        plan.position.store(position, Ordering::Relaxed);
        plan.head.store(head, Ordering::Relaxed);
        plan.connected.store(u64::from(is_connected), Ordering::Relaxed);
    }

    /// Notes, for metrics, that the cluster's journal is not followed any more.
    pub fn lost_control(&self) {
        self.shared.plan.connected.store(0, Ordering::Relaxed);
    }

    /// Stops: what was received is answered, and all threads end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A thread that has panicked has said so; there is nothing left to stop.
            _ = thread.join();
        }
    }
}

fn local(listener: &std::net::TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// UDP sockets and a TCP listener on one address. With port 0, all take the port that the listener got.
fn bind(address: SocketAddr, workers: usize) -> std::io::Result<(Vec<UdpSocket>, std::net::TcpListener)> {
    // The kernel gives TCP a port that UDP may not have: then another is tried.
    let mut tries = 0;
    loop {
        let listener = std::net::TcpListener::bind(address)?;
        let bound = local(&listener, address);
        let sockets: std::io::Result<Vec<UdpSocket>> = (0..workers.max(1)).map(|_| bind_udp(bound)).collect();
        tries += 1;
        match sockets {
            Err(error) if error.kind() == ErrorKind::AddrInUse && address.port() == 0 && tries < 16 => {}
            sockets => return Ok((sockets?, listener)),
        }
    }
}

fn bind_udp(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // As much as the system allows: it is no error if that is less.
    _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    _ = socket.set_send_buffer_size(SOCKET_BYTES);
    socket.set_read_timeout(Some(STOP_LOOK))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A thread's view of the state: asks for it only when it has changed.
struct Current {
    state: Arc<State>,
    generation: u64,
}

impl Current {
    fn of(shared: &Shared) -> Current {
        let generation = shared.generation.load(Ordering::Acquire);
        Current { state: Arc::clone(&shared.state.lock()), generation }
    }

    fn refresh(&mut self, shared: &Shared, responder: &mut Responder) {
        if shared.generation.load(Ordering::Acquire) != self.generation {
            *self = Current::of(shared);
            responder.forget();
        }
    }
}

fn now(shared: &Shared) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { wall_secs: wall.as_secs() as u32, mono_ms: shared.started.elapsed().as_millis() as u64 }
}

/// Where a responder begins with addresses: whoever asks each by a connection of its own gets another one too.
fn turn() -> usize {
    RandomState::new().hash_one(0) as usize
}

fn serve_udp(socket: &UdpSocket, shared: &Shared, index: usize) {
    let mut batch = Batch::new();
    let mut responder = Responder::new(Arc::clone(&shared.counters[index]), turn());
    let mut current = Current::of(shared);
    while !shared.stop.load(Ordering::Relaxed) {
        let mut at = None;
        let turned = batch.turn(socket, |query, from, out| {
            let at = *at.get_or_insert_with(|| {
                current.refresh(shared, &mut responder);
                now(shared)
            });
            responder.respond(&current.state, query, from, Transport::Udp, at, out)
        });
        if let Err(error) = turned
            && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
        {
            // Such as a refused answer that comes back: nothing to do with the next query, but no reason to spin.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

// --- TCP, admin, probes ---

fn serve_io(
    shared: &Arc<Shared>,
    listeners: Vec<std::net::TcpListener>,
    (admin, redirecting): (Option<std::net::TcpListener>, Vec<std::net::TcpListener>),
    targets: &tokio::sync::watch::Receiver<Targets>,
    (seen, news): (&tokio::sync::mpsc::Sender<Seen>, &mpsc::SyncSender<News>),
    own: Vec<SocketAddr>,
) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let connections = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
        for listener in listeners {
            tokio::spawn(accept(listener, Arc::clone(shared), Arc::clone(&connections), Purpose::Dns));
        }
        if let Some(listener) = admin {
            let room = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
            tokio::spawn(accept(listener, Arc::clone(shared), room, Purpose::Admin(news.clone())));
        }
        let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
        for listener in redirecting {
            tokio::spawn(accept(listener, Arc::clone(shared), Arc::clone(&room), Purpose::Redirect));
        }
        tokio::spawn(probe_all(targets.clone(), seen.clone()));
        if !own.is_empty() {
            tokio::spawn(ask_itself(Arc::clone(shared), own));
        }
        while !shared.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(STOP_LOOK).await;
        }
    });
}

/// Ends never.
async fn ask_itself(shared: Arc<Shared>, own: Vec<SocketAddr>) {
    let mut ticks = tokio::time::interval(selfcheck::EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let of = Arc::clone(&shared);
        let in_force = move || {
            let state = Arc::clone(&of.state.lock());
            (state.zone.apex.clone(), state.zone.serial())
        };
        let unwell = selfcheck::ask_all(&own, in_force).await;
        shared.plan.unwell.store(u64::from(unwell.is_some()), Ordering::Relaxed);
        shared.asked.found(unwell);
    }
}

#[derive(Clone)]
enum Purpose {
    Dns,
    Admin(mpsc::SyncSender<News>),
    Redirect,
}

async fn accept(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    purpose: Purpose,
) {
    let Ok(listener) = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) else {
        return;
    };
    let crowd = Crowd::new(TCP_PER_ADDRESS_MAX);
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Whoever has enough of them is closed at once.
                let Some(counted) = crowd.admit(peer.ip()) else { continue };
                let (shared, purpose) = (Arc::clone(&shared), purpose.clone());
                tokio::spawn(async move {
                    // Whatever ends a connection is the peer's affair.
                    _ = match purpose {
                        Purpose::Dns => serve_tcp(stream, peer.ip(), &shared).await,
                        Purpose::Admin(news) => {
                            let answer = |_, request: &Request| answer_admin(&shared, &news, request);
                            http::serve(stream, peer.ip(), answer).await
                        }
                        Purpose::Redirect => {
                            let answer = |peer, request: &Request| answer_visitor(&shared, peer, request);
                            http::serve(stream, peer.ip(), answer).await
                        }
                    };
                    drop((permit, counted));
                });
            }
            // Out of descriptors, most likely: they come back when connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Queries one after the other, each with its length in front (RFC 7766 §8).
async fn serve_tcp(mut stream: TcpStream, peer: IpAddr, shared: &Shared) -> std::io::Result<()> {
    let counters = shared.counters.last().map(Arc::clone).unwrap_or_default();
    let mut responder = Responder::new(counters, turn());
    let mut query = Vec::new();
    let mut answer = Vec::new();
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            if length > TCP_QUERY_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            query.resize(length, 0);
            stream.read_exact(&mut query).await.map(|_| ())
        };
        tokio::time::timeout(TCP_IDLE, read).await??;
        let state = Arc::clone(&shared.state.lock());
        if !responder.respond(&state, &query, peer, Transport::Tcp, now(shared), &mut answer) {
            return Ok(());
        }
        let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        tokio::time::timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

fn answer_admin(shared: &Shared, news: &mpsc::SyncSender<News>, request: &Request) -> Answer {
    match (&*request.method, &*request.path) {
        ("GET" | "HEAD", "/healthz") => Answer::text(200, "ok\n"),
        ("GET" | "HEAD", "/metrics") => Answer::text(200, render(shared)),
        ("GET" | "HEAD", "/v1/route") => answer_route(shared, request, None),
        ("GET" | "HEAD", "/v1/mesh") => answer_mesh(shared, request),
        ("POST", "/v1/samples") => answer_samples(shared, news, request),
        (_, "/healthz" | "/metrics" | "/v1/route" | "/v1/mesh" | "/v1/samples") => {
            Answer::text(405, "wanted GET, and POST for /v1/samples\n")
        }
        _ => Answer::text(404, "here are /healthz, /metrics, /v1/route, /v1/mesh and /v1/samples\n"),
    }
}

/// A visitor's request: to the closest PoP, for `SITE.ZONE/PATH` of the site that it asks for, or that the path names: `/r/SITE/PATH`.
fn answer_visitor(shared: &Shared, peer: IpAddr, request: &Request) -> Answer {
    let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
    if request.path == "/v1/route" {
        return answer_route(shared, request, Some(peer));
    }
    let state = Arc::clone(&shared.state.lock());
    let Some(dns) = &state.snapshot.routing.dns else {
        return Answer::text(503, "this router has no zone: there is no name to redirect to\n");
    };
    let host = request.host.as_deref().unwrap_or_default().to_ascii_lowercase();
    let host = host.rsplit_once(':').map_or(&*host, |(name, _)| name);
    // A PoP's own name that leads here would lead here again.
    let is_pop = name_of(host)
        .is_some_and(|name| matches!(state.zone.find(&name), Lookup::Node(node) if node.pop.is_some()));
    if is_pop {
        count(&shared.plan.redirects_refused);
        return Answer::text(421, "this is a PoP's name, and not the PoP\n");
    }
    let named = request.path.strip_prefix("/r/").and_then(|rest| rest.split_once('/'));
    let (site, path) = match named {
        Some((site, path)) => (state.snapshot.site_named(site), path),
        None => (state.snapshot.site_for(host), request.path.trim_start_matches('/')),
    };
    let group = site.and_then(|site| Some((site, *state.zone.sites.get(&site.name)?)));
    let Some((site, group)) = group.filter(|_| request.path.starts_with('/')) else {
        count(&shared.plan.redirects_refused);
        return Answer::text(404, "no site has this domain, or this name after /r/\n");
    };
    let bits = if peer.is_ipv4() { V4_BITS } else { V6_BITS };
    let pop = state.tables[group].find(&state.world, peer, bits).pop;
    let pop = &state.world.pops[usize::from(pop)];
    // HTTPS records are given where every edge speaks TLS.
    let scheme = if dns.https { "https" } else { "http" };
    let query = request.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
    let host = match &pop.cname {
        // The name that the other CDN knows itself by.
        Some(cname) => cname.to_string(),
        None => format!("{}.{}.{}", pop.name.to_ascii_lowercase(), site.name.to_ascii_lowercase(), dns.zone),
    };
    let location = format!("{scheme}://{host}/{path}{query}");
    count(&shared.plan.redirects);
    Answer {
        status: if matches!(&*request.method, "GET" | "HEAD") { 302 } else { 307 },
        media: "text/plain",
        fields: format!("Location: {location}\r\nCache-Control: private, max-age={}\r\n", state.ttl),
        body: format!("{location}\n"),
    }
}

/// Where a client is sent now: `?ip=ADDRESS` (without, `asker`), and `&site=NAME` unless all PoPs may be chosen.
fn answer_route(shared: &Shared, request: &Request, asker: Option<IpAddr>) -> Answer {
    let wrong = |error: String, wanted: &str| {
        Answer::json(400, &serde_json::json!({ "error": error, "wanted": wanted }))
    };
    let ip = match request.parameter("ip") {
        Some(ip) => ip.parse().ok(),
        None => asker,
    };
    let Some(ip) = ip else {
        return wrong("the client's address is missing, or is none".to_owned(), "?ip=203.0.113.7&site=shop");
    };
    let state = Arc::clone(&shared.state.lock());
    let group: Vec<u16> = match request.parameter("site") {
        None => (0..state.world.pops.len() as u16).collect(),
        Some(site) => match state.zone.sites.get(&*site) {
            Some(group) => state.zone.groups[*group].clone(),
            None => return wrong(format!("no site is called {site:?}"), "the name of a [[site]]"),
        },
    };
    if group.is_empty() {
        return Answer::json(503, &serde_json::json!({ "error": "the configuration has no PoP" }));
    }
    let ranking = state.world.rank_client(ip, &group, &state.view);
    let spare = spare_of(&state.snapshot, &state.world, &ranking, &group, &state.view);
    Answer::json(200, &explain::ranking(&state.world, ip, &ranking, spare))
}

/// How long the ways between PoPs are: `?pop=NAME` of one of them alone.
fn answer_mesh(shared: &Shared, request: &Request) -> Answer {
    let (ways, pop) = (Arc::clone(&shared.mesh.lock()), request.parameter("pop"));
    match ways.as_json(pop.as_deref()) {
        Some(body) => Answer::json(200, &body),
        None => {
            let error = format!("no PoP is called {:?}", pop.unwrap_or_default());
            Answer::json(404, &serde_json::json!({ "error": error, "wanted": "the name of a [[pop]]" }))
        }
    }
}

/// What `POST /v1/samples` takes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Samples {
    samples: Vec<RoundTrips>,
}

fn answer_samples(shared: &Shared, news: &mpsc::SyncSender<News>, request: &Request) -> Answer {
    let shown = request.authorization.as_deref().and_then(|text| text.strip_prefix("Bearer "));
    let is_known = shared.token.as_deref().zip(shown).is_some_and(|(token, shown)| {
        aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), shown.as_bytes()).is_ok()
    });
    if !is_known {
        let error = "wanted Authorization: Bearer, with the token of the state directory (admin-token)";
        return Answer::json(401, &serde_json::json!({ "error": error }));
    }
    match serde_json::from_slice::<Samples>(&request.body) {
        Ok(Samples { samples }) => {
            let count = samples.len();
            let steering = Steering { trips: samples, ..Steering::default() };
            match tell(shared, news, ("", ""), steering) {
                true => Answer::json(202, &serde_json::json!({ "received": count })),
                false => {
                    Answer::json(503, &serde_json::json!({ "error": "too many at a time; none was taken" }))
                }
            }
        }
        Err(error) => {
            let wanted =
                r#"{"samples": [{"network": "203.0.113.0", "pop": "fra", "count": 1, "sum_ms": 23.4}]}"#;
            Answer::json(400, &serde_json::json!({ "error": error.to_string(), "wanted": wanted }))
        }
    }
}

/// Whether there was room for it.
fn tell(
    shared: &Shared,
    news: &mpsc::SyncSender<News>,
    (node, pop): (&str, &str),
    steering: Steering,
) -> bool {
    let count: u64 = steering.trips.iter().map(|trips| u64::from(trips.count)).sum();
    let is_told = news.try_send(News::Steered(node.into(), pop.into(), Box::new(steering))).is_ok();
    if !is_told {
        shared.measured.dropped.fetch_add(count, Ordering::Relaxed);
    }
    is_told
}

/// A family of one metric: name, what it says, its kind, and where it is counted.
type Family = (&'static str, &'static str, &'static str, fn(&Shared) -> &AtomicU64);

static FAMILIES: [Family; 21] = [
    ("perigee_router_states_total", "States that came into force.", "counter", |shared| &shared.plan.states),
    ("perigee_router_reloads_total", "Changed files that came into force.", "counter", |shared| {
        &shared.plan.reloads
    }),
    ("perigee_router_reload_errors_total", "Changed files that could not be used.", "counter", |shared| {
        &shared.plan.reload_errors
    }),
    ("perigee_router_serial", "Serial number of the zone in force.", "gauge", |shared| &shared.plan.serial),
    (
        "perigee_router_journal_position",
        "Up to where the cluster's journal has been followed; 0 without a cluster.",
        "gauge",
        |shared| &shared.plan.position,
    ),
    (
        "perigee_router_journal_head",
        "Newest position of the cluster's journal, as far as is known.",
        "gauge",
        |shared| &shared.plan.head,
    ),
    (
        "perigee_router_control_connected",
        "Whether a control of the cluster is followed.",
        "gauge",
        |shared| &shared.plan.connected,
    ),
    (
        "perigee_router_unwell",
        "Whether it does not answer what it asks itself each second, as a node of a cluster does.",
        "gauge",
        |shared| &shared.plan.unwell,
    ),
    ("perigee_router_redirects_total", "HTTP requests that were redirected to a PoP.", "counter", |shared| {
        &shared.plan.redirects
    }),
    (
        "perigee_router_redirects_refused_total",
        "HTTP requests of no site, or by a PoP's own name.",
        "counter",
        |shared| &shared.plan.redirects_refused,
    ),
    ("perigee_router_votes_total", "Votes of the cluster's nodes on edges.", "counter", |shared| {
        &shared.plan.votes
    }),
    (
        "perigee_router_pops_grey",
        "PoPs that answer probes, and most beacons do not reach.",
        "gauge",
        |shared| &shared.plan.grey,
    ),
    (
        "perigee_router_pop_pairs_faster_than_light",
        "Pairs of PoPs that are nearer to each other than their locations say, as edges' probes show.",
        "gauge",
        |shared| &shared.plan.too_fast,
    ),
    (
        "perigee_router_cells_moved",
        "Places whose visitors do not all go where they would, as PoPs are full.",
        "gauge",
        |shared| &shared.plan.relieved,
    ),
    (
        "perigee_router_reports_missed_total",
        "Reports of the cluster's nodes that this router was too slow for.",
        "counter",
        |shared| &shared.measured.missed,
    ),
    ("perigee_router_edge_changes_total", "Edges that went down or came up.", "counter", |shared| {
        &shared.plan.changes
    }),
    ("perigee_router_edges_down", "Edges that are down.", "gauge", |shared| &shared.plan.down),
    ("perigee_router_probes_total", "Probes of edges.", "counter", |shared| &shared.plan.probes),
    ("perigee_router_probes_failed_total", "Probes without a good answer.", "counter", |shared| {
        &shared.plan.probes_failed
    }),
    (
        "perigee_router_samples_total",
        "Round trips that were measured, and are believed.",
        "counter",
        |shared| &shared.measured.taken,
    ),
    (
        "perigee_router_samples_without_system_total",
        "Of these, round trips of which too many systems or prefixes were known to learn theirs.",
        "counter",
        |shared| &shared.measured.without_system,
    ),
];

/// Those with labels: name, what they say, kind.
const SAMPLES_REFUSED: (&str, &str, &str) =
    ("perigee_router_samples_refused_total", "Round trips that are not believed, by reason.", "counter");
const EDGE_UP: (&str, &str, &str) = ("perigee_router_edge_up", "Whether an edge is up.", "gauge");

/// What `/metrics` shows: name, kind and what it says, of each family.
pub fn metric_families() -> Vec<(String, &'static str, &'static str)> {
    let counters = Counters::default();
    let mut families: Vec<_> = counters
        .all()
        .map(|(name, help, _)| (format!("perigee_dns_{name}_total"), "counter", help.trim()))
        .collect();
    families.extend(FAMILIES.iter().map(|(name, help, kind, _)| ((*name).to_owned(), *kind, *help)));
    families.extend([SAMPLES_REFUSED, EDGE_UP].map(|(name, help, kind)| (name.to_owned(), kind, help)));
    families
}

fn render(shared: &Shared) -> String {
    let mut text = String::new();
    let mut line = |name: &str, help: &str, kind: &str, value: u64| {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    };
    let mut sums: Vec<(&str, &str, u64)> = Vec::new();
    for counters in &shared.counters {
        for (index, (name, help, value)) in counters.all().enumerate() {
            match sums.get_mut(index) {
                Some(sum) => sum.2 += value,
                None => sums.push((name, help.trim(), value)),
            }
        }
    }
    for (name, help, value) in sums {
        line(&format!("perigee_dns_{name}_total"), help, "counter", value);
    }
    for (name, help, kind, counter) in &FAMILIES {
        line(name, help, kind, counter(shared).load(Ordering::Relaxed));
    }
    let (name, help, kind) = SAMPLES_REFUSED;
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    for (why, count) in shared.measured.refused() {
        text.push_str(&format!("{name}{{why=\"{why}\"}} {count}\n"));
    }
    let edges = shared.probing.lock();
    let mut edges: Vec<(&IpAddr, &bool)> = edges.iter().collect();
    edges.sort();
    let (name, help, kind) = EDGE_UP;
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    for (edge, up) in edges {
        text.push_str(&format!("{name}{{edge=\"{edge}\"}} {}\n", u8::from(*up)));
    }
    text
}

// --- Plan ---

/// Makes states from files and from what is seen of the edges.
struct Planner {
    settings: Settings,
    report: Box<dyn Fn(&str) + Send>,
    snapshot: Arc<Snapshot>,
    world: Arc<World>,
    signer: Option<Arc<Signer>>,
    serial: u32,
    health: HashMap<IpAddr, EdgeHealth>,
    measurements: Measurements,
    mesh: Mesh,
    demand: Demand,
    greys: Greys,
    config_seen: Option<SystemTime>,
    location_seen: Option<SystemTime>,
    made: (Vec<f64>, bool),
    started: Instant,
}

impl Planner {
    fn new(settings: &Settings, report: Box<dyn Fn(&str) + Send>) -> Result<Planner, Vec<String>> {
        let (snapshot, serial, config_seen) = match &settings.config {
            Config::File(file) => (file.snapshot.clone(), serial_now(), file.seen),
            Config::Told(snapshot, serial) => ((**snapshot).clone(), *serial, None),
        };
        let (location, location_seen) = match &settings.location {
            None => (Arc::new(Location::empty()), None),
            Some(path) => (Arc::new(read_location(path)?), modified(path)),
        };
        let world = Arc::new(World::new(snapshot.routing.pops.clone(), location));
        let mut planner = Planner {
            settings: settings.clone(),
            report,
            mesh: Mesh::new(&world),
            world,
            signer: None,
            serial,
            health: HashMap::new(),
            measurements: Measurements::default(),
            demand: Demand::default(),
            greys: Greys::default(),
            config_seen,
            location_seen,
            snapshot: Arc::new(snapshot),
            made: (Vec::new(), false),
            started: Instant::now(),
        };
        planner.signer = make_signer(&planner.snapshot, settings.key.as_deref())?;
        planner.zone(&planner.snapshot, planner.serial, planner.signer.as_deref())?;
        Ok(planner)
    }

    fn zone(&self, snapshot: &Snapshot, serial: u32, signer: Option<&Signer>) -> Result<Zone, Vec<String>> {
        match (&self.settings.config, &snapshot.routing.dns) {
            (Config::Told(..), None) => Ok(Zone::nothing(snapshot)),
            _ => Zone::build(snapshot, serial, signer),
        }
    }

    fn routing(&self) -> &Routing {
        &self.snapshot.routing
    }

    fn targets(&self) -> Targets {
        let edges = self.routing().pops.iter().flat_map(|pop| pop.edges.iter().copied()).collect();
        Targets { edges, settings: self.routing().probe }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The share of its visitors that each PoP gets, by its best edge, and whether anything has changed lately.
    fn standing(&self) -> (Vec<f64>, bool) {
        let now = self.now_ms();
        let of = |edge: &IpAddr| self.health.get(edge).map_or(1.0, |health| health.share(now));
        // What cannot be probed, as it has no addresses, counts as well.
        let best = |pop: &Pop| pop.edges.iter().map(of).reduce(f64::max).unwrap_or(1.0);
        let shares = self.routing().pops.iter().map(best).collect();
        (shares, self.health.values().any(|health| health.is_flapping(now)))
    }

    /// What is known of the PoPs, of which each gets such a share of its visitors.
    fn view(&self, shares: &[f64]) -> View {
        let Relief { prices, splits } = self.demand.relief();
        let is_down = |(pop, share): (usize, &f64)| *share == 0.0 || self.greys.is_grey(pop);
        View {
            down: shares.iter().enumerate().map(is_down).collect(),
            // Down PoPs are chosen when nothing is believed any more; then their edges are answered as if they were up.
            share: shares.iter().map(|share| if *share == 0.0 { 1.0 } else { *share }).collect(),
            prices,
            splits,
            full: self.demand.full().to_vec(),
            estimates: Arc::clone(&self.measurements.estimates),
        }
    }

    /// Looks whether PoPs can take what they get, and whether visitors reach them; whether that has changed anything.
    fn look(&mut self) -> bool {
        let (shares, now) = (self.standing().0, self.now_ms());
        let view = self.view(&shares);
        let living = |pop: &Pop| {
            let up = pop.edges.iter().filter(|edge| !self.health.get(edge).is_some_and(EdgeHealth::is_down));
            if pop.edges.is_empty() { 1.0 } else { up.count() as f64 / pop.edges.len() as f64 }
        };
        let up: Vec<f64> = self.routing().pops.iter().map(living).collect();
        let moved = self.demand.look(&self.world, &view, &up, now);
        let is_fuller = self.demand.look_at_spares(&self.world, &up, spare_within_ms(&self.snapshot));
        if moved {
            let cells = self.demand.relief().splits.len();
            (self.report)(&match cells {
                0 => "all PoPs can take what they get: everybody goes where it is best".to_owned(),
                cells => format!("PoPs are full: visitors of {cells} places do not all go where it is best"),
            });
        }
        let changed = self.greys.look(now);
        for pop in &changed {
            let name = &self.routing().pops[usize::from(*pop)].name;
            let verdict = match self.greys.is_grey(usize::from(*pop)) {
                true => "is not reached by visitors, though it answers probes: it counts as down",
                false => "is reached by visitors again",
            };
            (self.report)(&format!("PoP {name} {verdict}"));
        }
        moved || is_fuller || !changed.is_empty()
    }

    /// Looks at the ways between PoPs.
    fn look_at_mesh(&mut self) -> Ways {
        let (ways, sentences) = self.mesh.look(self.now_ms());
        sentences.iter().for_each(|sentence| (self.report)(sentence));
        ways
    }

    /// Takes what a node says; returns how many edges went or came by it.
    fn steered(&mut self, node: &str, pop: &str, steering: &Steering, counters: &MeasureCounters) -> u64 {
        let (world, now) = (Arc::clone(&self.world), self.now_ms());
        let index = |name: &str| world.pops.iter().position(|pop| *pop.name == *name).map(|at| at as u16);
        let own = index(pop).filter(|_| !node.is_empty());
        for trips in &steering.trips {
            self.measurements.take(trips, &world, now, counters);
            let Some(at) = index(&trips.pop) else { continue };
            match own == Some(at) {
                // Its own visitors' connections, and beacons of pages that it has served: the latter say nothing of who is cut off.
                true => {
                    let cell = world.location.cell(trips.network);
                    if cell != UNKNOWN {
                        self.demand.seen(cell, at, trips.count);
                    }
                }
                false => {
                    let network = network_of(trips.network);
                    self.greys.seen(at, network, trips.count, trips.failed, now);
                }
            }
        }
        if let (Some(own), Some(mbps)) = (own, steering.mbps) {
            self.demand.load(node, own, mbps, now);
        }
        let mut changes = 0;
        let known = |edge: &IpAddr| world.pops.iter().any(|pop| pop.edges.contains(edge));
        for vote @ Vote { edge, down, .. } in &steering.votes {
            if let Some(own) = own {
                self.mesh.take(own, vote, now);
            }
            let is_known = self.health.contains_key(edge) || known(edge);
            if is_known && self.health.entry(*edge).or_default().vote(observer_id(node), *down, now) {
                self.tell_change(*edge);
                changes += 1;
            }
        }
        changes
    }

    fn tell_change(&self, edge: IpAddr) {
        let pop = self.routing().pops.iter().find(|pop| pop.edges.contains(&edge));
        let pop = pop.map_or("?", |pop| &*pop.name);
        let is_down = self.health.get(&edge).is_some_and(EdgeHealth::is_down);
        let verdict = if is_down { "is down: it does not answer probes" } else { "is up again" };
        (self.report)(&format!("edge {edge} of PoP {pop} {verdict}"));
    }

    /// A state from everything that is known.
    fn state(&mut self) -> Arc<State> {
        let (shares, flapping) = self.standing();
        let view = self.view(&shares);
        self.measurements.is_new = false;
        let Ok(zone) = self.zone(&self.snapshot, self.serial, self.signer.as_deref()) else {
            unreachable!("a configuration is taken over only when its zone could be built")
        };
        let dns = self.routing().dns.as_ref();
        let ttl = dns.map_or(DNS_TTL.default, |dns| dns.ttl).as_secs() as u32;
        let ttl = if flapping { ttl.min(FLAPPING_TTL) } else { ttl };
        let is_down = |edge: &IpAddr| self.health.get(edge).is_some_and(EdgeHealth::is_down);
        let pops = self.routing().pops.iter().map(|pop| {
            let living: Vec<IpAddr> = pop.edges.iter().copied().filter(|edge| !is_down(edge)).collect();
            let edges = if living.is_empty() { &pop.edges } else { &living };
            PopAnswers::new(pop, edges, ttl, dns.is_some_and(|dns| dns.https))
        });
        let state = State {
            tables: zone.groups.iter().map(|group| Table::build(&self.world, group, &view)).collect(),
            spares: zone
                .groups
                .iter()
                .map(|group| spares_of(&self.snapshot, &self.world, group, &view))
                .collect(),
            snapshot: Arc::clone(&self.snapshot),
            view,
            pops: pops.collect(),
            zone,
            world: Arc::clone(&self.world),
            ttl,
            signer: self.signer.clone(),
            client_subnet: dns.is_some_and(|dns| dns.client_subnet),
            rate: dns.map_or(DNS_RATE.default, |dns| dns.rate),
            node: self.settings.node.as_str().into(),
            cookie_secret: self.settings.cookie_secret,
        };
        self.made = (shares, flapping);
        Arc::new(state)
    }

    /// Takes what a probe saw; returns whether the edge went or came.
    fn take(&mut self, seen: Seen) -> bool {
        let now = self.now_ms();
        let changed = self.health.entry(seen.edge).or_default().step(0, seen.good, now);
        if changed {
            self.tell_change(seen.edge);
        }
        changed
    }

    /// Looks at the files. Returns what was taken over: `Some(Ok)` something, `Some(Err)` it could not be used.
    fn reload(&mut self) -> Option<Result<(), ()>> {
        let config_path = match &self.settings.config {
            Config::File(file) => Some(file.path.clone()),
            Config::Told(..) => None,
        };
        let config_seen = config_path.as_ref().and_then(|path| modified(path));
        let location_path = self.settings.location.clone();
        let location_seen = location_path.as_ref().and_then(|path| modified(path));
        if (config_seen, location_seen) == (self.config_seen, self.location_seen) {
            return None;
        }
        let location_path = location_path.filter(|_| location_seen != self.location_seen);
        (self.config_seen, self.location_seen) = (config_seen, location_seen);
        let reread = || -> Result<_, Vec<String>> {
            let snapshot = match &config_path {
                Some(path) => read_config(path, &*self.report)?,
                None => (*self.snapshot).clone(),
            };
            let location = location_path.map(|path| read_location(&path).map(Arc::new)).transpose()?;
            Ok((snapshot, location))
        };
        let serial = match config_path {
            Some(_) => serial_now().max(self.serial.wrapping_add(1)),
            None => self.serial,
        };
        let taken = reread().and_then(|(snapshot, location)| self.adopt(snapshot, serial, location));
        Some(match taken {
            Ok(()) => {
                (self.report)("the changed configuration or location data is in force");
                Ok(())
            }
            Err(errors) => {
                errors.iter().for_each(|error| (self.report)(error));
                (self.report)("the changed file is not used; what was in force before stays");
                Err(())
            }
        })
    }

    /// Takes a configuration over, and location data if there is a new one. Nothing is changed if it can't be used.
    fn adopt(
        &mut self,
        snapshot: Snapshot,
        serial: u32,
        location: Option<Arc<Location>>,
    ) -> Result<(), Vec<String>> {
        let signer = make_signer(&snapshot, self.settings.key.as_deref())?;
        self.zone(&snapshot, serial, signer.as_deref())?;
        let (old, new) = (&self.snapshot.routing.pops, &snapshot.routing.pops);
        if old != new || location.is_some() {
            // A line that is written above them makes no others of them.
            let is_same = |(old, new): (&Pop, &Pop)| Pop { line: new.line, ..old.clone() } == *new;
            let are_same = old.len() == new.len() && old.iter().zip(new).all(is_same) && location.is_none();
            let location = location.unwrap_or_else(|| Arc::clone(&self.world.location));
            let world = World::new(snapshot.routing.pops.clone(), location);
            self.measurements.renumber(&self.world, &world);
            if !are_same {
                self.demand.forget();
                self.greys.forget();
            }
            self.world = Arc::new(world);
            self.mesh.move_to(&self.world);
        }
        let edges: Vec<IpAddr> = snapshot.routing.pops.iter().flat_map(|pop| pop.edges.clone()).collect();
        self.health.retain(|edge, _| edges.contains(edge));
        (self.snapshot, self.signer, self.serial) = (Arc::new(snapshot), signer, serial);
        Ok(())
    }
}

/// An observer's number; the router's own is 0.
fn observer_id(node: &str) -> u32 {
    let mut hasher = siphasher::sip::SipHasher24::new();
    hasher.write(node.as_bytes());
    hasher.finish() as u32 | 1
}

fn make_signer(snapshot: &Snapshot, key: Option<&[u8]>) -> Result<Option<Arc<Signer>>, Vec<String>> {
    let Some(dns) = snapshot.routing.dns.as_ref().filter(|dns| dns.dnssec) else { return Ok(None) };
    let Some(key) = key else {
        return Err(vec!["the zone is to be signed (dnssec = true) and there is no key; give --state a directory to keep one in".to_owned()]);
    };
    let apex = name_of(&dns.zone).unwrap_or_default();
    Signer::new(key, &apex).map(|signer| Some(Arc::new(signer))).map_err(|_| {
        vec!["the zone's key is no P-256 key in PKCS #8; move it away to have one made anew".to_owned()]
    })
}

/// Whether a router with this zone key can use a configuration that it is told. The errors are whole sentences.
pub fn check(snapshot: &Snapshot, key: Option<&[u8]>) -> Result<(), Vec<String>> {
    let signer = make_signer(snapshot, key)?;
    match snapshot.routing.dns {
        Some(_) => Zone::build(snapshot, 1, signer.as_deref()).map(drop),
        None => Ok(()),
    }
}

fn spare_within_ms(snapshot: &Snapshot) -> Option<f64> {
    snapshot.routing.dns.as_ref()?.spare_within.map(|within| within.as_secs_f64() * 1e3)
}

fn spares_of(snapshot: &Snapshot, world: &World, group: &[u16], view: &View) -> Vec<Option<u16>> {
    spare_within_ms(snapshot).map_or_else(|| vec![None; world.pops.len()], |ms| world.spares(group, view, ms))
}

/// The spare of the first PoP of a ranking within `group`, if its answers have one.
pub fn spare_of(
    snapshot: &Snapshot,
    world: &World,
    ranking: &Ranking,
    group: &[u16],
    view: &View,
) -> Option<u16> {
    world.spare(ranking.order.first()?.pop, group, view, spare_within_ms(snapshot)?)
}

fn serial_now() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs() as u32)
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Reads a configuration. The errors are whole sentences; `report` gets the warnings.
pub fn read_config(file: &std::path::Path, report: &dyn Fn(&str)) -> Result<Snapshot, Vec<String>> {
    let path = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|error| vec![format!("{path} cannot be read: {error}")])?;
    // What the nodes of a cluster have in common, or a file that says everything: whichever has fewer errors was meant.
    let errors = |parsed: &model::Parsed| parsed.diagnostics.iter().filter(|found| found.is_error()).count();
    let mut parsed = Snapshot::parse_cluster(&text, &path);
    if parsed.snapshot.is_none() {
        let whole = Snapshot::parse(&text, &path);
        if errors(&whole) < errors(&parsed) {
            parsed = whole;
        }
    }
    let (errors, warnings): (Vec<_>, Vec<_>) = parsed.diagnostics.iter().partition(|found| found.is_error());
    warnings.iter().for_each(|warning| report(&warning.to_string()));
    parsed.snapshot.ok_or_else(|| errors.iter().map(|error| error.to_string()).collect())
}

/// Reads location data. The error is a sentence.
pub fn read_location(path: &std::path::Path) -> Result<Location, Vec<String>> {
    let shown = path.display();
    let file = std::fs::File::open(path).map_err(|error| {
        vec![format!("the location data {shown} cannot be read: {error}; perigee geo build makes it")]
    })?;
    Location::read(file).map_err(|error| {
        vec![format!("the location data {shown} {error}; make it anew with perigee geo build")]
    })
}

/// Hands on what probes see to a thread that may block, with a bound on how long.
fn forward_seen(mut seen: tokio::sync::mpsc::Receiver<Seen>, news: &mpsc::SyncSender<News>) {
    while let Some(one) = seen.blocking_recv() {
        if news.send(News::Seen(one)).is_err() {
            return;
        }
    }
}

fn run_plan(
    planner: &mut Planner,
    shared: &Shared,
    news: &mpsc::Receiver<News>,
    targets: &tokio::sync::watch::Sender<Targets>,
) {
    let mut looked = Instant::now();
    let mut measured = Instant::now();
    let mut balanced = Instant::now();
    let mut answers = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let (mut dirty, mut reloaded, mut looks_at_mesh) = (false, false, false);
        let mut next = news.recv_timeout(STOP_LOOK).ok();
        while let Some(one) = next {
            match one {
                News::Seen(seen) => {
                    shared.plan.probes.fetch_add(1, Ordering::Relaxed);
                    shared.plan.probes_failed.fetch_add(u64::from(!seen.good), Ordering::Relaxed);
                    if planner.take(seen) {
                        shared.plan.changes.fetch_add(1, Ordering::Relaxed);
                        dirty = true;
                    }
                }
                News::Steered(node, pop, steering) => {
                    let changes = planner.steered(&node, &pop, &steering, &shared.measured);
                    shared.plan.changes.fetch_add(changes, Ordering::Relaxed);
                    shared.plan.votes.fetch_add(steering.votes.len() as u64, Ordering::Relaxed);
                    dirty |= changes > 0;
                }
                News::Told(snapshot, serial, answer) => {
                    let taken = planner.adopt(*snapshot, serial, None);
                    count_reload(&shared.plan, taken.is_ok());
                    reloaded |= taken.is_ok();
                    answers.push((answer, taken));
                }
            }
            next = news.try_recv().ok();
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if let Some(taken) = planner.reload() {
                count_reload(&shared.plan, taken.is_ok());
                reloaded |= taken.is_ok();
            }
            dirty |= planner.standing() != planner.made;
            if balanced.elapsed().as_millis() as u64 >= demand::LOOK_MS {
                balanced = Instant::now();
                dirty |= planner.look();
                looks_at_mesh = true;
            }
            if planner.measurements.is_new && measured.elapsed() >= MEASURED_EVERY {
                measured = Instant::now();
                dirty = true;
            }
        }
        if reloaded {
            targets.send_if_modified(|now| {
                let new = planner.targets();
                let changed = *now != new;
                *now = new;
                changed
            });
        }
        if looks_at_mesh || reloaded {
            let ways = planner.look_at_mesh();
            shared.plan.too_fast.store(ways.too_fast_count() as u64, Ordering::Relaxed);
            *shared.mesh.lock() = Arc::new(ways);
        }
        if dirty || reloaded {
            let state = planner.state();
            *shared.state.lock() = state;
            shared.generation.fetch_add(1, Ordering::Release);
            shared.plan.states.fetch_add(1, Ordering::Relaxed);
            shared.plan.serial.store(u64::from(planner.serial), Ordering::Relaxed);
            let down = planner.health.values().filter(|health| health.is_down()).count();
            shared.plan.down.store(down as u64, Ordering::Relaxed);
            let grey = (0..planner.world.pops.len()).filter(|pop| planner.greys.is_grey(*pop)).count();
            shared.plan.grey.store(grey as u64, Ordering::Relaxed);
            let moved = planner.demand.relief().splits.len();
            shared.plan.relieved.store(moved as u64, Ordering::Relaxed);
        }
        for (answer, taken) in answers.drain(..) {
            // Whoever has asked may be gone.
            _ = answer.send(taken);
        }
        let up = planner
            .targets()
            .edges
            .into_iter()
            .map(|edge| (edge, !planner.health.get(&edge).is_some_and(EdgeHealth::is_down)));
        *shared.probing.lock() = up.collect();
    }
}

fn count_reload(plan: &PlanCounters, is_good: bool) {
    let counter = if is_good { &plan.reloads } else { &plan.reload_errors };
    counter.fetch_add(1, Ordering::Relaxed);
}
