//! Starting an edge, and what can be done with one that runs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::budget::lease::{Ask as LeaseAsk, Grant};
use model::change::Order;
use model::settings::{Eviction, MEMORY};
use model::{EdgeSettings, Snapshot};
use observe::{AccessLog, Observer, Registry};
use parking_lot::{Mutex, RwLock};
use semantics::Wall;
use semantics::key::KeySeed;
use stats::Country;
use store::disk::{DiskStats, EngineKind};
use store::{InFlight, Pages, Policy, Tier, TierConfig, TierStats};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::compress::encoder::Encoder;
use crate::flight::Flights;
use crate::handover::{Channel, Message};
use crate::hints::Hints;
use crate::in_flight::AboveBound;
use crate::listen::{self, Secure};
use crate::loaded::{Loaded, SiteNumbers};
use crate::measure::Measuring;
use crate::origin::{self, BudgetStatus, OriginStatus, Origins, OriginsShared, WORDS_MAX, probe_origins};
use crate::published::Published;
use crate::purge_log::PurgeLog;
use crate::purging::{self, Applied, PurgeError, Whose};
use crate::quic::{self, Listening, Quic, Steering};
use crate::rates::Rates;
use crate::rewriting;
use crate::rum::PageViews;
use crate::slices::Stretches;
use crate::sockets::{Kind, Sockets};
use crate::storage::{self, Place, Storage};
use crate::succession::{self, Ask, Succession};
use crate::tiering::Reads;
use crate::tiers::{Certified, TierIdentity};
use crate::tls::{Certificate, Challenge, ClientAuthorities, Offered, Tls, TlsBase};
use crate::tracing::Tracing;
use crate::worker::{Epochs, Heard, Shared, TICK, Worker};

mod readings;
mod upgrade;

/// What an edge is given besides its configuration.
pub struct Options {
    /// Addresses for visitors instead of the configuration's. Port 0 takes a free one: see [`Handle::addresses`].
    pub listen: Option<Vec<SocketAddr>>,
    /// The same for those who speak TLS.
    pub listen_tls: Option<Vec<SocketAddr>>,
    /// The same for other edges.
    pub listen_tier: Option<Vec<SocketAddr>>,
    /// What is shown to other edges; without, none is asked and none let in.
    pub tier: Option<TierIdentity>,
    /// The certificates of the configuration's files: [`crate::tls::read_certificates`].
    pub certificates: Vec<Certificate>,
    /// Whose certificates visitors may show: [`crate::tls::read_client_authorities`].
    pub client_authorities: Vec<ClientAuthorities>,
    /// Sockets that have been opened, or passed on, instead of either.
    pub sockets: Option<Sockets>,
    /// Where the time comes from.
    pub clock: Clock,
    /// The secret of the cache keys: 16 bytes of chance.
    pub key_seed: [u8; 16],
    /// What session tickets are made from: chance, at least 32 bytes. Edges with the same one resume each other's sessions.
    pub ticket_secret: Vec<u8>,
    /// Where the purge log is kept, and what is stored on disks that name no directory; needed as soon as there are disks.
    pub state: Option<PathBuf>,
    /// How disks are read; `None` takes the best that the system allows.
    pub disk_engine: Option<EngineKind>,
    /// Where events are counted.
    pub registry: Arc<Registry>,
    /// Where visitors are, by their addresses; `None` where nobody knows.
    pub locate: Option<Locate>,
    /// Where requests are logged; nowhere by default.
    pub access_log: Option<AccessLog>,
    /// How traces are begun and told; `None` is off.
    pub tracing: Option<Tracing>,
    /// The process that served before, which drains then: each purge is in force there too before it is acknowledged.
    pub predecessor: Option<Predecessor>,
    /// Whether control grants what may be used of origins' budgets ([`Handle::ask_for_leases`]). Until it has, an edge uses its
    /// floor; without control, all of it is the edge's own.
    pub budgets_are_leased: bool,
}

/// From an address to a country. Asked once for each connection, by a worker: it must not wait.
pub type Locate = Arc<dyn Fn(IpAddr) -> Country + Send + Sync>;

/// The process whose place an edge takes.
pub struct Predecessor {
    /// The way to it.
    pub channel: Channel,
    /// A pidfd of it, by which it is ended when it doesn't confirm a purge.
    pub process: Option<OwnedFd>,
    /// How many processes drain then, this one among them.
    pub draining: u32,
}

/// Why an edge did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be listened on.
    Listen(SocketAddr, io::Error),
    /// The TLS library refuses.
    Tls(rustls::Error),
    /// A thread or its runtime could not be made.
    Thread(io::Error),
    /// The purge log could not be opened: without it, a disk's contents cannot be trusted.
    PurgeLog(PathBuf, io::Error),
    /// None of the disks could be opened. Which, and why, is the sentence.
    Disks(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Listen(address, _) => write!(f, "cannot listen on {address}"),
            StartError::Tls(_) => f.write_str("cannot set TLS up"),
            StartError::Thread(_) => f.write_str("cannot start a worker thread"),
            StartError::PurgeLog(path, _) => write!(f, "cannot open the purge log {}", path.display()),
            StartError::Disks(reasons) => write!(f, "cannot open any disk: {reasons}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Listen(_, error) | StartError::Thread(error) | StartError::PurgeLog(_, error) => {
                Some(error)
            }
            StartError::Tls(error) => Some(error),
            StartError::Disks(_) => None,
        }
    }
}

/// For how long a drain keeps its memory: until hardly anybody can ask for something any more. Then what is left are long
/// downloads, and the process in its place has a memory of its own.
const MEMORY_KEPT: Duration = Duration::from_secs(120);

/// The data plane. See [`Edge::start`].
pub struct Edge;

/// A running edge. Dropping it does not stop it; [`Handle::stop`] does.
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    origins: Arc<OriginsShared>,
    addresses: Vec<SocketAddr>,
    /// To be passed on.
    sockets: Mutex<Sockets>,
    storage: Place,
    addresses_tls: Vec<SocketAddr>,
    steerings: Vec<Arc<Steering>>,
    tls: Arc<Mutex<TlsParts>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    access_log: Option<Arc<AccessLog>>,
    /// When what drains is cut.
    deadline: Arc<Mutex<Option<Instant>>>,
    started: Instant,
}

/// What TLS is made of, for the next time that it is made anew.
struct TlsParts {
    base: TlsBase,
    certificates: Vec<Certificate>,
    challenges: Vec<Challenge>,
}

/// What an operator wants to know at a glance.
#[derive(Clone, Debug)]
pub struct Status {
    /// How long the edge has been running.
    pub uptime: Duration,
    /// Open connections of visitors.
    pub connections: usize,
    /// Fetches in flight.
    pub flights: usize,
    /// Bytes of bodies in flight beside the memory tier, and the bound.
    pub bodies_in_flight: (u64, u64),
    /// Worker threads.
    pub workers: usize,
    /// Position of the newest purge in force.
    pub purge_position: u64,
    /// For how long the edge has not been told that it knows of all purges; `None` where nobody tells it.
    pub silence: Option<Duration>,
    /// What the memory tier holds and did.
    pub memory: TierStats,
    /// What each disk holds and did.
    pub disks: Vec<DiskStats>,
    /// The origins and how they are.
    pub origins: Vec<OriginStatus>,
    /// What may be asked of origins that have a budget, and what is.
    pub budgets: Vec<BudgetStatus>,
}

impl Edge {
    /// Listens and serves. Returns when every worker takes connections.
    ///
    /// # Errors
    /// An address that cannot be listened on, a thread that cannot be started. Origins are not contacted: an edge
    /// starts while its origins are down.
    pub fn start(snapshot: Snapshot, options: Options) -> Result<Handle, StartError> {
        let edge = snapshot.edge.clone();
        let Options {
            listen,
            sockets,
            listen_tls,
            listen_tier,
            tier,
            certificates,
            client_authorities,
            clock,
            key_seed,
            ticket_secret,
            state,
            disk_engine,
            registry,
            locate,
            access_log,
            tracing,
            predecessor,
            budgets_are_leased,
        } = options;
        let tls_base = TlsBase::new(&ticket_secret, clock.clone()).map_err(StartError::Tls)?;
        let tls = Tls::new(&tls_base, Offered::by(&snapshot), &certificates, &[]).map_err(StartError::Tls)?;
        let workers = workers(&edge);
        let site_numbers = SiteNumbers::default();
        let mut loaded = Loaded::new(snapshot, &client_authorities, &site_numbers, &registry, tier.is_some());
        let certified = Arc::new(Certified::default());
        if let Some(identity) = tier {
            certified.replace(identity);
        }
        let sources = &edge.origin_source;
        let origins = OriginsShared::new(clock.clone(), certified.clone(), sources, budgets_are_leased);
        let origins = Arc::new(origins);
        let (words, heard) = mpsc::channel(WORDS_MAX);
        if predecessor.is_some() {
            origins.follow();
        }
        for trouble in origins.configure(loaded.origin_groups()) {
            eprintln!("perigee: {trouble}");
        }
        loaded.origins = Some(origins.named(loaded.origin_groups()));
        let loaded = Arc::new(loaded);
        let in_flight = InFlight::new(edge.store.in_flight().0);
        let place = Place {
            in_flight: in_flight.clone(),
            settings: edge.store.clone(),
            state,
            key_seed,
            clock: clock.clone(),
            engine: disk_engine,
        };
        let Storage { disks, purge_log, positions, purges, past, newest } = place.open(&site_numbers)?;
        disks.switch(loaded.snapshot.switches.disk);
        let store = Tier::new(TierConfig {
            bytes_max: edge.store.memory.0 as usize,
            policy: match edge.store.eviction {
                Eviction::Lgdsf => Policy::default(),
                Eviction::Lru => Policy::Lru,
                Eviction::Sieve => Policy::Sieve,
                Eviction::S3Fifo => Policy::S3Fifo,
            },
            ..TierConfig::default()
        });
        registry.count_reload(clock.wall());
        let mut sockets = sockets;
        let quic = Arc::new(Quic::new(&key_seed, sockets.as_mut().and_then(Sockets::take_strays)));
        let shared = Arc::new(Shared {
            node: edge.node.clone(),
            clock,
            seed: KeySeed(key_seed),
            store,
            disks: Arc::new(disks),
            reads: Reads::new(edge.store.memory.0 as usize),
            stretches: Stretches::default(),
            encoder: Encoder::new(),
            quic: quic.clone(),
            hints: Hints::new(),
            rewrites: rewriting::Counts::default(),
            pages: Pages::new(in_flight.clone()).ok(),
            in_flight,
            above_bound: AboveBound::new(),
            flights: Flights::new(),
            loaded: Published::new(loaded),
            tls: Published::new(Arc::new(tls)),
            site_numbers,
            epochs: Epochs::new(),
            fill_bytes: AtomicU64::new(0),
            purges: RwLock::new(purges),
            past: Mutex::new(past),
            positions: RwLock::new(positions),
            purge_log: Mutex::new(purge_log),
            purge_position: AtomicU64::new(newest),
            heard: Heard::alone(),
            purge_positions: RwLock::default(),
            certified,
            measuring: Measuring::default(),
            rum: PageViews::new(),
            registry: registry.clone(),
            tracing,
            locate,
            connections: AtomicUsize::new(0),
            accepting: AtomicUsize::new(workers),
            clients: Arc::default(),
            rates: Rates::default(),
            draining: AtomicBool::new(false),
            is_gentle: AtomicBool::new(false),
            succession: Succession::new(words),
            cut: AtomicBool::new(false),
            next_generation: AtomicU64::new(storage::chance() as u64),
        });
        // Before anything can be stored.
        let first = shared.loaded.get().snapshot.clone();
        purging::adopt(&shared, first, drop).map_err(|error| {
            StartError::PurgeLog(place.log_path().unwrap_or_default(), io::Error::other(error.to_string()))
        })?;
        if let Some(predecessor) = predecessor {
            let weak = Arc::downgrade(&shared);
            origins.tell_before(Box::new(move |word| {
                if let Some(shared) = weak.upgrade() {
                    shared.succession.tell_before(&Message::Turns(word));
                }
            }));
            succession::follow(&shared, predecessor).map_err(StartError::Thread)?;
        }
        let memory = Arc::downgrade(&shared);
        // What memory answers for is what a restart must find on disk.
        shared.disks.keep(move |key| memory.upgrade().is_some_and(|shared| shared.store.peek(key).is_some()));
        let open = || {
            let (plain, tls) = (listen.unwrap_or(edge.listen), listen_tls.unwrap_or(edge.listen_tls));
            let tier = listen_tier.unwrap_or(edge.listen_tier);
            Sockets::open(&wanted(plain, tls, tier, edge.http3), Vec::new(), workers)
        };
        let sockets = sockets
            .map_or_else(open, Ok)
            .map_err(|(_, address, error)| StartError::Listen(address, error))?;
        let (addresses, addresses_tls) = (sockets.addresses(Kind::Http), sockets.addresses(Kind::Https));
        let mut steerings = Vec::new();
        let mut by_worker: Vec<Listeners> = (0..workers).map(|_| Listeners::default()).collect();
        let addresses_quic = sockets.addresses(Kind::Quic);
        for kind in [Kind::Http, Kind::Https, Kind::Tier] {
            let dealt = sockets.deal(kind, workers).map_err(StartError::Thread)?;
            for (worker, dealt) in by_worker.iter_mut().zip(dealt) {
                for socket in dealt {
                    let address = socket.local_addr().map_err(StartError::Thread)?;
                    let http3 = addresses_quic.contains(&address).then_some(address.port());
                    let secure = match kind {
                        Kind::Https => Secure::Tls { http3 },
                        Kind::Tier => Secure::Tier,
                        _ => Secure::Plain,
                    };
                    worker.tcp.push((socket, secure));
                }
            }
        }
        let dealt = sockets.deal_udp(workers).map_err(StartError::Thread)?;
        for (address, sockets) in addresses_quic.into_iter().zip(dealt) {
            let steering = Arc::new(Steering::new(quic.clone(), address, sockets.len()));
            steerings.push(steering.clone());
            for (socket, number) in sockets.into_iter().zip(0..) {
                let listening = Listening { socket, steering: steering.clone(), number };
                by_worker[usize::from(number) % workers].quic.push(listening);
            }
        }
        Encoder::start(&shared).map_err(StartError::Thread)?;
        let access_log = access_log.map(Arc::new);
        let cores = core_affinity::get_core_ids().filter(|cores| workers > 1 && cores.len() >= workers);
        let mut threads = Vec::with_capacity(workers);
        let mut heard = Some(heard);
        for (index, listeners) in by_worker.into_iter().enumerate() {
            let quic = quic.clone();
            let observer = Observer::new(&registry, access_log.as_deref());
            let (shared, origins, heard) = (shared.clone(), origins.clone(), heard.take());
            let core = cores.as_ref().map(|cores| cores[index]);
            let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                let local = LocalSet::new();
                local.block_on(&runtime, work(shared, origins, heard, observer, listeners, quic, index));
            });
            threads.push(thread.map_err(StartError::Thread)?);
        }
        let handle = Handle {
            shared,
            origins,
            addresses,
            sockets: Mutex::new(sockets),
            storage: place,
            addresses_tls,
            steerings,
            tls: Arc::new(Mutex::new(TlsParts { base: tls_base, certificates, challenges: Vec::new() })),
            workers: Mutex::new(threads),
            access_log,
            deadline: Arc::default(),
            started: Instant::now(),
        };
        handle.feed_readings();
        Ok(handle)
    }
}

/// What is listened on, by what is spoken there.
pub fn wanted(
    plain: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    tier: Vec<SocketAddr>,
    http3: bool,
) -> Vec<(Kind, SocketAddr)> {
    let plain = plain.into_iter().map(|address| (Kind::Http, address));
    let tier = tier.into_iter().map(|address| (Kind::Tier, address));
    let kinds: &[Kind] = if http3 { &[Kind::Https, Kind::Quic] } else { &[Kind::Https] };
    plain
        .chain(tier)
        .chain(tls.into_iter().flat_map(|address| kinds.iter().map(move |kind| (*kind, address))))
        .collect()
}

/// One worker's part in what is listened on.
#[derive(Default)]
struct Listeners {
    tcp: Vec<(std::net::TcpListener, Secure)>,
    quic: Vec<Listening>,
}

/// One worker's life: until the edge drains and its connections have ended.
async fn work(
    shared: Arc<Shared>,
    origins: Arc<OriginsShared>,
    heard: Option<mpsc::Receiver<origin::Heard>>,
    observer: Observer,
    listeners: Listeners,
    quic: Arc<Quic>,
    index: usize,
) {
    let id_seed = u64::from_le_bytes(shared.seed.0[..8].try_into().unwrap_or_default())
        ^ (index as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93)
        ^ shared.clock.wall().0 as u64;
    let worker = Rc::new(Worker::new(shared.clone(), Origins::new(origins.clone()), observer, id_seed));
    let weak = Rc::downgrade(&worker);
    worker.origins.report_to(&shared.registry, move |event| {
        if let Some(worker) = weak.upgrade() {
            worker.observer.emit_fetch(event, worker.shared.clock.wall());
        }
    });
    let sweep = tokio::task::spawn_local(worker.clone().sweep());
    let prober = (index == 0).then(|| tokio::task::spawn_local(probe_origins(origins.clone())));
    let hear = heard.map(|words| tokio::task::spawn_local(origins.clone().hear(words)));
    let watch = (index == 0).then(|| tokio::task::spawn_local(origins.watch_budgets()));
    let tcp = listeners.tcp.into_iter();
    let accepting: Vec<_> = tcp
        .filter_map(|(listener, secure)| Some((tokio::net::TcpListener::from_std(listener).ok()?, secure)))
        .map(|(listener, secure)| tokio::task::spawn_local(listen::accept(worker.clone(), listener, secure)))
        .collect();
    let listening = listeners.quic.into_iter();
    let endpoints: Vec<_> =
        listening.filter_map(|listening| told(quic::endpoint(&worker, listening))).collect();
    for endpoint in &endpoints {
        tokio::task::spawn_local(quic::accept(worker.clone(), endpoint.clone(), quic.clone()));
    }
    while !worker.is_draining() {
        tokio::time::sleep(TICK).await;
    }
    for task in accepting {
        task.abort();
        // However it ended, its socket is closed now.
        let _ = task.await;
    }
    shared.accepting.fetch_sub(1, Ordering::AcqRel);
    while shared.connections.load(Ordering::Relaxed) > 0 && !shared.cut.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for endpoint in &endpoints {
        quic::finish(&worker, endpoint).await;
    }
    sweep.abort();
    for task in prober.into_iter().chain(watch).chain(hear) {
        task.abort();
    }
}

/// How many workers an edge with these settings has.
pub fn workers(settings: &EdgeSettings) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    settings.workers.map_or_else(cores, |workers| workers as usize).max(1)
}

/// What it is, or a word to the operator.
fn told<T>(endpoint: io::Result<T>) -> Option<T> {
    endpoint.inspect_err(|error| eprintln!("perigee: HTTP/3 is not spoken by one worker: {error}")).ok()
}

impl Handle {
    /// The addresses that visitors connect to.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses that visitors connect to by TLS.
    pub fn addresses_tls(&self) -> &[SocketAddr] {
        &self.addresses_tls
    }

    /// Puts other certificates in force, and the TLS settings of the configuration in force: handshakes that start from now on see them; connections that stand are not
    /// touched.
    ///
    /// # Errors
    /// Those of the TLS library; the old ones stay in force.
    pub fn replace_certificates(&self, certificates: Vec<Certificate>) -> Result<(), rustls::Error> {
        let mut parts = self.tls.lock();
        let offered = self.with_snapshot(Offered::by);
        let tls = Tls::new(&parts.base, offered, &certificates, &parts.challenges)?;
        parts.certificates = certificates;
        self.shared.tls.replace(Arc::new(tls));
        Ok(())
    }

    /// Answers these challenges of a certificate authority from now on, and no others.
    ///
    /// # Errors
    /// Those of the TLS library; what was answered before still is.
    pub fn replace_challenges(&self, challenges: Vec<Challenge>) -> Result<(), rustls::Error> {
        let mut parts = self.tls.lock();
        let offered = self.with_snapshot(Offered::by);
        let tls = Tls::new(&parts.base, offered, &parts.certificates, &challenges)?;
        parts.challenges = challenges;
        self.shared.tls.replace(Arc::new(tls));
        Ok(())
    }

    /// The certificates in force, in the order in which they are tried.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.tls.lock().certificates.clone()
    }

    /// The edge's clock: a manual one can be moved by it.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Where events are counted.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.shared.registry
    }

    /// Puts another configuration in force: requests that start from now on see it whole, those under way keep the
    /// one they began with. What is read once, at the start, stays as it was: docs/operating.md lists it. `client_authorities`: [`crate::tls::read_client_authorities`] of it. Returns what is doubtful about
    /// the origins (an unreadable CA file), for the operator.
    ///
    /// # Errors
    /// With disks, what it stores under could not be written down, so that a purge after the next start could miss it. The old
    /// configuration stays in force.
    pub fn replace(
        &self,
        snapshot: Snapshot,
        client_authorities: &[ClientAuthorities],
    ) -> Result<Vec<String>, PurgeError> {
        purging::adopt(&self.shared, snapshot, |snapshot| {
            self.shared.store.resize(snapshot.edge.store.memory.0 as usize);
            self.shared.in_flight.set_max(snapshot.edge.store.in_flight().0);
            self.shared.disks.switch(snapshot.switches.disk);
            let offered = self.with_snapshot(Offered::by);
            let Shared { site_numbers, registry, .. } = &*self.shared;
            let mut loaded = Loaded::new(
                snapshot,
                client_authorities,
                site_numbers,
                registry,
                self.shared.certified.is_there(),
            );
            let mut troubles = self.origins.configure(loaded.origin_groups());
            loaded.origins = Some(self.origins.named(loaded.origin_groups()));
            self.shared.loaded.replace(Arc::new(loaded));
            troubles
                .extend(self.offer_again(offered).err().map(|error| format!("TLS is as it was: {error}")));
            self.shared.registry.count_reload(self.shared.clock.wall());
            troubles
        })
    }

    /// Makes handshakes what the configuration in force says, if that is not what they are: `before`.
    fn offer_again(&self, before: Offered) -> Result<(), rustls::Error> {
        let parts = self.tls.lock();
        let offered = self.with_snapshot(Offered::by);
        if offered != before {
            let tls = Tls::new(&parts.base, offered, &parts.certificates, &parts.challenges)?;
            self.shared.tls.replace(Arc::new(tls));
        }
        Ok(())
    }

    /// The configuration in force.
    pub fn with_snapshot<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.shared.loaded.get().snapshot)
    }

    /// Carries out what has been ordered for a whole cluster, as one: one position, one append to the purge log, one sync.
    /// When this returns, no request that starts later is answered with what the orders match, by any worker, also of processes
    /// before this one, and they are safe from a loss of power. What this node's configuration does not know purges more than it
    /// names, never less: a site by its name, a site whole where a host or a URL makes no sense. Applying an order again does no
    /// harm.
    ///
    /// # Errors
    /// The purge log cannot be written, or another process takes this one's place. It is to be tried again, there or here.
    pub fn apply(&self, orders: &[Order]) -> Result<Applied, PurgeError> {
        purging::apply(&self.shared, orders, Whose::Everybodys)
    }

    /// As [`Handle::apply`], with what has been ordered here alone: other edges do not know of it.
    ///
    /// # Errors
    /// As [`Handle::apply`].
    pub fn purge(&self, orders: &[Order]) -> Result<Applied, PurgeError> {
        purging::apply(&self.shared, orders, Whose::Own)
    }

    /// Has everything that was stored until now validated before it is served again, because something that was purged may be
    /// among it. While the origin fails, `stale_if_error` decides. Returns the position from which that holds.
    ///
    /// # Errors
    /// As [`Handle::apply`].
    pub fn distrust(&self) -> Result<u64, PurgeError> {
        purging::distrust(&self.shared)
    }

    /// Notes that at this moment, by the edge's clock, no purge was in force anywhere that is not in force here. An edge that is
    /// told so at all is fenced off, site by site, when it has not been for longer than [`Site::max_purge_lag`].
    ///
    /// [`Site::max_purge_lag`]: model::Site::max_purge_lag
    pub fn heard(&self, at: Wall) {
        self.shared.heard.set(at, &self.shared.clock);
    }

    /// Notes that the journal is in force here up to a position. `applied`: the last of the own positions that that took, as
    /// [`Handle::apply`] and [`Handle::distrust`] say; `None` when nothing was purged. What edges tell each other goes by it.
    pub fn reached(&self, journal: u64, applied: Option<u64>) {
        self.shared.purge_positions.write().reached(journal, applied);
    }

    /// Notes, before it follows anybody, that all that it has in force is of the journal up to this position.
    pub fn begins_at(&self, journal: u64) {
        let own = self.shared.purge_position.load(Ordering::Acquire);
        self.shared.purge_positions.write().reached(journal, Some(own));
    }

    /// Shows other edges another certificate from now on. Connections that stand are not touched.
    pub fn certify(&self, identity: TierIdentity) {
        self.shared.certified.replace(identity);
    }

    /// The addresses that other edges connect to.
    pub fn addresses_tier(&self) -> Vec<SocketAddr> {
        self.sockets.lock().addresses(Kind::Tier)
    }

    /// Begins to measure how long the way to visitors is, as an edge of this PoP, and to serve the beacon where the configuration says so.
    /// `secret`: from which the beacon's tokens are made; edges with the same one take each other's.
    pub fn measure(&self, pop: &str, secret: &[u8]) {
        self.shared.measuring.start(pop, secret);
        self.shared.rum.start(pop, secret);
    }

    /// What was measured since it was taken last; as much as fits into a report.
    pub fn take_measured(&self) -> model::steering::Steering {
        let (trips, dropped) = (self.shared.measuring.take(), self.shared.measuring.take_dropped());
        model::steering::Steering { trips, dropped, ..Default::default() }
    }

    /// Opens the access log anew, after it has been moved away; processes before this one that drain do so too.
    pub fn reopen_log(&self) -> io::Result<()> {
        self.shared.succession.ask_before(Ask::Reopen);
        self.access_log.as_deref().map_or(Ok(()), AccessLog::reopen)
    }

    /// What runs, in numbers.
    pub fn status(&self) -> Status {
        Status {
            uptime: self.started.elapsed(),
            connections: self.shared.connections.load(Ordering::Relaxed),
            flights: self.shared.flights.len(),
            bodies_in_flight: self.shared.in_flight.bytes(),
            workers: self.workers.lock().len(),
            purge_position: self.shared.purge_position.load(Ordering::Acquire),
            silence: self.shared.heard.silence(&self.shared.clock),
            memory: self.shared.store.stats(),
            disks: self.shared.disks.stats(),
            origins: self.origins.report(),
            budgets: self.budgets(),
        }
    }

    /// What may be asked of origins that have a budget, and what is; by site and origin.
    pub fn budgets(&self) -> Vec<BudgetStatus> {
        self.origins.budgets()
    }

    /// What each origin's budget asks of control now, by the names that both have for budgets; to be answered by
    /// [`Handle::grant`]. Nothing unless [`Options::budgets_are_leased`].
    pub fn ask_for_leases(&self) -> Vec<(String, LeaseAsk)> {
        self.origins.ask_for_leases()
    }

    /// Takes what control grants of the budget with that name. What is unknown or has run out is left aside.
    pub fn grant(&self, budget: &str, grant: Grant) {
        self.origins.grant(budget, grant);
    }

    /// Stops taking connections, lets running requests end for at most `within`, then cuts what is left. Says whether
    /// everything had ended by itself. Calling it again does nothing.
    pub fn stop(&self, within: Duration) -> bool {
        self.hurry(within);
        self.end()
    }

    /// As [`Handle::stop`], after [`Handle::hand_over`]: idle connections may stay for as long as they ever may, and what the
    /// process before this one still has is waited for too. [`Handle::hurry`] ends it sooner.
    pub fn drain(&self, within: Duration) -> bool {
        {
            let mut deadline = self.deadline.lock();
            // It may have been told to hurry by now.
            if deadline.is_none() {
                self.shared.is_gentle.store(true, Ordering::SeqCst);
                *deadline = Some(Instant::now() + within);
            }
        }
        self.end()
    }

    /// Makes a drain that runs, here and in the processes before this one, end within this time.
    pub fn hurry(&self, within: Duration) {
        hurry(&self.shared, &self.deadline, within);
    }

    fn end(&self) -> bool {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.sockets.lock().close();
        let threads = std::mem::take(&mut *self.workers.lock());
        let is_over = || self.deadline.lock().is_none_or(|deadline| Instant::now() >= deadline);
        let is_idle =
            || threads.iter().all(JoinHandle::is_finished) && !self.shared.succession.has_predecessor();
        let begin = Instant::now();
        let mut keeps_memory = true;
        while !is_over() && !is_idle() {
            std::thread::sleep(Duration::from_millis(5));
            if keeps_memory && begin.elapsed() > MEMORY_KEPT {
                keeps_memory = false;
                self.shared.store.resize(MEMORY.min.0 as usize);
            }
        }
        let ended = is_idle();
        self.shared.cut.store(true, Ordering::SeqCst);
        for thread in threads {
            let _ = thread.join();
        }
        write_missed(self.shared.purge_log.lock().as_mut());
        self.shared.encoder.stop();
        if !self.shared.disks.close() {
            self.shared.distrust_disks();
        }
        if let Some(log) = &self.access_log {
            log.stop(Duration::from_secs(5));
        }
        ended
    }
}

fn hurry(shared: &Shared, deadline: &Mutex<Option<Instant>>, within: Duration) {
    let at = Instant::now() + within;
    {
        let mut deadline = deadline.lock();
        shared.is_gentle.store(false, Ordering::SeqCst);
        *deadline = Some(deadline.map_or(at, |before| before.min(at)));
    }
    shared.succession.ask_before(Ask::Stop);
}

/// Writes what the purge log could not write before; if it still cannot, the operator is told.
fn write_missed(log: Option<&mut PurgeLog>) {
    if let Some(Err(error)) = log.map(PurgeLog::write_missed) {
        eprintln!("perigee: the purge log cannot be written: {error}; the last invalidations are forgotten");
    }
}
