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

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use model::Snapshot;
use model::crowd::Crowd;
use model::routing::POPS_MAX;
use model::steering::Steering;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use self::answers::{answer_admin, answer_visitor};
use self::metrics::PlanCounters;
use self::plan::Planner;
use crate::http::{Request, serve};
use crate::measure::MeasureCounters;
use crate::mesh::Links;
use crate::probe::{Seen, Targets, probe_all};
use crate::respond::{Counters, Now, Responder, State, Transport};
use crate::selfcheck::{self, SelfCheck};
use crate::udp::Batch;

mod answers;
mod files;
mod metrics;
mod plan;

pub use self::files::{FileConfig, check, read_config, read_location};
pub use self::metrics::metric_families;
pub use self::plan::spare_of;

/// TCP connections at a time; each takes a few KiB.
const TCP_CONNECTIONS_MAX: usize = 1_024;
/// Of these from one address, or IPv6 network of 64 bits: many resolvers of an operator, and not all there is. So also for HTTP.
const TCP_PER_ADDRESS_MAX: usize = 64;
/// How long a TCP connection may be silent, or take for a query or an answer (RFC 7766 §6.2.3 leaves it to us).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Bytes of a query by TCP.
const TCP_QUERY_BYTES_MAX: usize = 4_096;
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
    mesh: Mutex<Arc<Links>>,
    token: Option<String>,
    started: Instant,
    asked: SelfCheck,
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
        let busy = |address: SocketAddr, purpose: &str, flag: &str, error: std::io::Error| {
            StartError(vec![format!(
                "cannot listen on {address}{purpose}: {error}; choose another with {flag}"
            )])
        };
        for address in &settings.listen {
            let (sockets, listener) =
                bind(*address, settings.workers).map_err(|error| busy(*address, "", "--listen", error))?;
            listening.push(local(&listener, *address));
            udp.extend(sockets);
            tcp.push(listener);
        }
        let bind_http = |address: SocketAddr, purpose: &str, flag: &str| {
            std::net::TcpListener::bind(address).map_err(|error| busy(address, purpose, flag, error))
        };
        let admin = settings.admin.map(|address| bind_http(address, " for admin", "--admin")).transpose()?;
        let redirecting = settings.http.iter().map(|address| bind_http(*address, " for HTTP", "--http"));
        let redirecting = redirecting.collect::<Result<Vec<_>, _>>()?;
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
            mesh: Mutex::new(Arc::new(Links::none(&planner.world))),
            token: settings.token.clone(),
            started: Instant::now(),
            asked: SelfCheck::new(),
        });
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name).spawn(run);
            spawned.map_err(|error| StartError(vec![format!("cannot start a thread: {error}")]))
        };
        let mut threads = Vec::new();
        for (index, socket) in udp.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let run = move || serve_udp(&socket, &shared, index);
            threads.push(spawn(format!("udp-{index}"), Box::new(run))?);
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
        threads.push(spawn("io".to_owned(), Box::new(run_io))?);
        let forward = news.clone();
        // It ends with the runtime, which drops the probes' side of the channel.
        spawn("seen".to_owned(), Box::new(move || plan::forward_seen(seen_out, &forward)))?;
        let planned = Arc::clone(&shared);
        let run_plan = move || plan::run(&mut planner, &planned, &news_out, &targets_in);
        threads.push(spawn("plan".to_owned(), Box::new(run_plan))?);
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
                            serve(stream, peer.ip(), answer).await
                        }
                        Purpose::Redirect => {
                            let answer = |peer, request: &Request| answer_visitor(&shared, peer, request);
                            serve(stream, peer.ip(), answer).await
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

/// Tells what a node or a sampler has reported. Returns whether there was room for it.
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
