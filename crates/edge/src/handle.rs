//! Starting an edge, and what can be done with one that runs.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::settings::Eviction;
use model::{Snapshot, breaker, health};
use observe::{
    AccessLog, BreakerReading, DiskReading, Observer, OriginReading, Readings, Registry, TierReading,
};
use parking_lot::{Mutex, RwLock};
use semantics::key::KeySeed;
use store::disk::{DiskStats, EngineKind, Health};
use store::{Pages, Policy, Tier, TierConfig, TierStats};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::compress::encoder::Encoder;
use crate::flight::Flights;
use crate::listen::{self, Secure};
use crate::loaded::{Loaded, SiteNumbers};
use crate::origin::{Origins, OriginsShared, probe_origins};
use crate::published::Published;
use crate::purge_log::PurgeLog;
use crate::purging::{self, PurgeError, PurgeRequest, Receipt};
use crate::rates::Rates;
use crate::slices::Stretches;
use crate::storage::{self, Storage};
use crate::tiering::Reads;
use crate::tls::{Certificate, Tls, TlsBase};
use crate::worker::{Epochs, Shared, TICK, Worker};

/// What an edge is given besides its configuration.
pub struct Options {
    /// Addresses for visitors instead of the configuration's. Port 0 takes a free one: see [`Handle::addresses`].
    pub listen: Option<Vec<SocketAddr>>,
    /// The same for those who speak TLS.
    pub listen_tls: Option<Vec<SocketAddr>>,
    /// The certificates of the configuration's files: [`crate::tls::read_certificates`].
    pub certificates: Vec<Certificate>,
    /// Where the time comes from.
    pub clock: Clock,
    /// The secret of the cache keys: 16 bytes of chance.
    pub key_seed: [u8; 16],
    /// Where the purge log is kept, and what is stored on disks that name no directory; needed as soon as there are disks.
    pub state: Option<PathBuf>,
    /// How disks are read; `None` takes the best that the system allows.
    pub disk_engine: Option<EngineKind>,
    /// Where events are counted.
    pub registry: Arc<Registry>,
    /// Where requests are logged; nowhere by default.
    pub access_log: Option<AccessLog>,
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

/// The data plane. See [`Edge::start`].
pub struct Edge;

/// A running edge. Dropping it does not stop it; [`Handle::stop`] does.
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    origins: Arc<OriginsShared>,
    addresses: Vec<SocketAddr>,
    addresses_tls: Vec<SocketAddr>,
    tls_base: TlsBase,
    workers: Mutex<Vec<JoinHandle<()>>>,
    access_log: Option<AccessLog>,
    started: Instant,
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
    /// Worker threads.
    pub workers: usize,
    /// Position of the newest purge in force.
    pub purge_position: u64,
    /// What the memory tier holds and did.
    pub memory: TierStats,
    /// What each disk holds and did.
    pub disks: Vec<DiskStats>,
    /// The origins and how they are.
    pub origins: Vec<OriginStatus>,
}

/// One origin as the edge sees it.
#[derive(Clone, Debug)]
pub struct OriginStatus {
    /// Its URL.
    pub origin: String,
    /// `up`, `aside` (requests failed in a row) or `down` (probes failed in a row).
    pub health: &'static str,
    /// `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// Attempts to get an answer from it.
    pub attempts: u64,
    /// Attempts that ended without one.
    pub failures: u64,
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
            listen_tls,
            certificates,
            clock,
            key_seed,
            state,
            disk_engine,
            registry,
            access_log,
        } = options;
        let tls_base = TlsBase::new().map_err(StartError::Tls)?;
        let tls = Tls::new(&tls_base, &certificates).map_err(StartError::Tls)?;
        let workers = edge.workers.map_or_else(cores, |workers| workers as usize).max(1);
        let site_numbers = SiteNumbers::default();
        let loaded = Arc::new(Loaded::new(snapshot, &site_numbers, &registry));
        let origins = Arc::new(OriginsShared::new(clock.clone()));
        for trouble in origins.configure(loaded.origin_groups()) {
            eprintln!("perigee: {trouble}");
        }
        let Storage { disks, purge_log, positions, purges, newest } =
            Storage::open(&edge.store, state.as_deref(), &key_seed, &clock, &site_numbers, disk_engine)?;
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
        let shared = Arc::new(Shared {
            node: edge.node.clone(),
            clock,
            seed: KeySeed(key_seed),
            store,
            disks: Arc::new(disks),
            reads: Reads::new(edge.store.memory.0 as usize),
            stretches: Stretches::default(),
            encoder: Encoder::new(),
            pages: Pages::new().ok(),
            flights: Flights::new(),
            loaded: Published::new(loaded),
            tls: Published::new(Arc::new(tls)),
            site_numbers,
            epochs: Epochs::new(),
            fill_bytes: AtomicU64::new(0),
            purges: RwLock::new(purges),
            positions,
            purge_log: Mutex::new(purge_log),
            purge_position: AtomicU64::new(newest),
            registry: registry.clone(),
            connections: AtomicUsize::new(0),
            clients: Arc::default(),
            rates: Rates::default(),
            draining: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            next_generation: AtomicU64::new(storage::chance() as u64),
        });
        let memory = Arc::downgrade(&shared);
        // What memory answers for is what a restart must find on disk.
        shared.disks.keep(move |key| memory.upgrade().is_some_and(|shared| shared.store.peek(key).is_some()));
        let mut by_worker: Vec<Vec<(std::net::TcpListener, Secure)>> =
            (0..workers).map(|_| Vec::new()).collect();
        let mut bind = |addresses: Vec<SocketAddr>, secure| {
            let bound = addresses.into_iter().map(|address| {
                let sockets =
                    listen::bind(address, workers).map_err(|error| StartError::Listen(address, error))?;
                let bound = sockets.first().and_then(|socket| socket.local_addr().ok());
                by_worker.iter_mut().zip(sockets).for_each(|(worker, socket)| worker.push((socket, secure)));
                Ok(bound.unwrap_or(address))
            });
            bound.collect::<Result<Vec<_>, _>>()
        };
        let addresses = bind(listen.unwrap_or(edge.listen), Secure::Plain)?;
        let addresses_tls = bind(listen_tls.unwrap_or(edge.listen_tls), Secure::Tls)?;
        Encoder::start(&shared).map_err(StartError::Thread)?;
        let cores = core_affinity::get_core_ids().filter(|cores| workers > 1 && cores.len() >= workers);
        let mut threads = Vec::with_capacity(workers);
        for (index, listeners) in by_worker.into_iter().enumerate() {
            let observer = Observer::new(&registry, access_log.as_ref());
            let (shared, origins) = (shared.clone(), origins.clone());
            let core = cores.as_ref().map(|cores| cores[index]);
            let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                let local = LocalSet::new();
                local.block_on(&runtime, work(shared, origins, observer, listeners, index));
            });
            threads.push(thread.map_err(StartError::Thread)?);
        }
        let handle = Handle {
            shared,
            origins,
            addresses,
            addresses_tls,
            tls_base,
            workers: Mutex::new(threads),
            access_log,
            started: Instant::now(),
        };
        handle.feed_readings();
        Ok(handle)
    }
}

/// One worker's life: until the edge drains and its connections have ended.
async fn work(
    shared: Arc<Shared>,
    origins: Arc<OriginsShared>,
    observer: Observer,
    listeners: Vec<(std::net::TcpListener, Secure)>,
    index: usize,
) {
    let id_seed = u64::from_le_bytes(shared.seed.0[..8].try_into().unwrap_or_default())
        ^ (index as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93)
        ^ shared.clock.wall().0 as u64;
    let worker = Rc::new(Worker::new(shared.clone(), Origins::new(origins.clone()), observer, id_seed));
    let weak = Rc::downgrade(&worker);
    worker.origins.report_to(&shared.registry, move |event| {
        if let Some(worker) = weak.upgrade() {
            worker.observer.emit_fetch(event);
        }
    });
    let sweep = tokio::task::spawn_local(worker.clone().sweep());
    let prober = (index == 0).then(|| tokio::task::spawn_local(probe_origins(origins)));
    let accepting: Vec<_> = listeners
        .into_iter()
        .filter_map(|(listener, secure)| Some((tokio::net::TcpListener::from_std(listener).ok()?, secure)))
        .map(|(listener, secure)| tokio::task::spawn_local(listen::accept(worker.clone(), listener, secure)))
        .collect();
    while !worker.is_draining() {
        tokio::time::sleep(TICK).await;
    }
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    while shared.connections.load(Ordering::Relaxed) > 0 && !shared.cut.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sweep.abort();
    if let Some(prober) = prober {
        prober.abort();
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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

    /// Puts other certificates in force: handshakes that start from now on see them; connections that stand are not
    /// touched.
    ///
    /// # Errors
    /// Those of the TLS library; the old ones stay in force.
    pub fn replace_certificates(&self, certificates: &[Certificate]) -> Result<(), rustls::Error> {
        let tls = Tls::new(&self.tls_base, certificates)?;
        self.shared.tls.replace(Arc::new(tls));
        Ok(())
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
    /// one they began with. Listening addresses, workers, memory policy, disks, node name and access log need a restart;
    /// memory may change. Returns what is doubtful about the origins (an unreadable CA file), for the operator.
    pub fn replace(&self, snapshot: Snapshot) -> Vec<String> {
        self.shared.store.resize(snapshot.edge.store.memory.0 as usize);
        let loaded = Arc::new(Loaded::new(snapshot, &self.shared.site_numbers, &self.shared.registry));
        let troubles = self.origins.configure(loaded.origin_groups());
        self.shared.loaded.replace(loaded);
        self.shared.registry.count_reload(self.shared.clock.wall());
        troubles
    }

    /// The configuration in force.
    pub fn with_snapshot<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.shared.loaded.get().snapshot)
    }

    /// Purges. When this returns, no request that starts later is answered with what the purge matches, by any worker.
    ///
    /// # Errors
    /// A target that makes no sense with this configuration; nothing is purged then.
    pub fn purge(&self, request: &PurgeRequest) -> Result<Receipt, PurgeError> {
        purging::purge(&self.shared, request)
    }

    /// Opens the access log anew, after it has been moved away.
    pub fn reopen_log(&self) -> io::Result<()> {
        self.access_log.as_ref().map_or(Ok(()), AccessLog::reopen)
    }

    /// What runs, in numbers.
    pub fn status(&self) -> Status {
        let origins = self.origins.report().into_iter().map(|report| OriginStatus {
            origin: report.name.to_string(),
            health: match report.health {
                health::State::Up => "up",
                health::State::Aside => "aside",
                health::State::Down => "down",
            },
            breaker: match report.breaker {
                breaker::State::Closed => "closed",
                breaker::State::Open => "open",
                breaker::State::HalfOpen => "half-open",
            },
            attempts: report.counts.attempts,
            failures: report.counts.failures,
        });
        Status {
            uptime: self.started.elapsed(),
            connections: self.shared.connections.load(Ordering::Relaxed),
            flights: self.shared.flights.len(),
            workers: self.workers.lock().len(),
            purge_position: self.shared.purge_position.load(Ordering::Acquire),
            memory: self.shared.store.stats(),
            disks: self.shared.disks.stats(),
            origins: origins.collect(),
        }
    }

    /// Stops taking connections, lets running requests end for at most `within`, then cuts what is left. Says whether
    /// everything had ended by itself. Calling it again does nothing.
    pub fn stop(&self, within: Duration) -> bool {
        self.shared.draining.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + within;
        let threads = std::mem::take(&mut *self.workers.lock());
        while Instant::now() < deadline && threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = threads.iter().all(JoinHandle::is_finished);
        self.shared.cut.store(true, Ordering::SeqCst);
        for thread in threads {
            let _ = thread.join();
        }
        if let Some(Err(error)) = self.shared.purge_log.lock().as_mut().map(PurgeLog::write_missed) {
            eprintln!(
                "perigee: the purge log cannot be written: {error}; the last invalidations are forgotten"
            );
        }
        self.shared.encoder.stop();
        self.shared.disks.close();
        // What was taken away and could not be written down as such would be back after the next start.
        self.shared.distrust_disks(|disks| disks.iter().any(|disk| disk.unwritten_removals > 0));
        if let Some(log) = &self.access_log {
            log.stop(Duration::from_secs(5));
        }
        ended
    }

    /// Tells the registry where to read what others keep.
    fn feed_readings(&self) {
        let (shared, origins) = (self.shared.clone(), self.origins.clone());
        let workers = self.workers.lock().len() as u64;
        self.shared.registry.read_from(move || {
            let stats = shared.store.stats();
            let disks = shared.disks.stats();
            Readings {
                disks: disks.iter().map(disk_reading).collect(),
                tiers: std::iter::once(TierReading {
                    tier: "memory",
                    bytes: stats.bytes,
                    bytes_max: stats.bytes_max,
                    objects: stats.entries,
                    found: stats.hits,
                    absent: stats.misses,
                    inserted: stats.insertions,
                    refused: stats.refused_too_large + stats.refused_no_room,
                    evicted: stats.evictions,
                    removed: stats.removals + stats.replacements,
                })
                .chain(disk_tier(&disks))
                .collect(),
                origins: origins
                    .report()
                    .iter()
                    .map(|report| OriginReading {
                        origin: shared.registry.origin(&report.name),
                        healthy: report.health == health::State::Up,
                        breaker: match report.breaker {
                            breaker::State::Closed => BreakerReading::Closed,
                            breaker::State::Open => BreakerReading::Open,
                            breaker::State::HalfOpen => BreakerReading::HalfOpen,
                        },
                        connections: report.open,
                        idle_connections: report.idle,
                    })
                    .collect(),
                purge_position: shared.purge_position.load(Ordering::Acquire),
                purges_remembered: {
                    let purges = shared.purges.read().stats();
                    (purges.urls + purges.tags + purges.prefixes + purges.sites) as u64
                },
                fills_in_flight: shared.flights.len() as u64,
                workers,
            }
        });
    }
}

/// All disks together, as one tier; `None` without any.
fn disk_tier(disks: &[DiskStats]) -> Option<TierReading> {
    let sum = |value: fn(&DiskStats) -> u64| disks.iter().map(value).sum();
    let tier = TierReading {
        tier: "disk",
        bytes: sum(|disk| disk.bytes),
        bytes_max: sum(|disk| disk.bytes_max),
        objects: sum(|disk| disk.records),
        found: sum(|disk| disk.found),
        absent: sum(|disk| disk.absent),
        inserted: sum(|disk| disk.filled),
        refused: sum(|disk| refused(disk).iter().sum()),
        evicted: sum(|disk| disk.evicted),
        removed: sum(|disk| disk.removed),
    };
    (!disks.is_empty()).then_some(tier)
}

fn refused(disk: &DiskStats) -> [u64; 4] {
    [disk.refused_first_sight, disk.refused_over_budget, disk.refused_queue_full, disk.refused_write_failed]
}

fn disk_reading(disk: &DiskStats) -> DiskReading {
    DiskReading {
        disk: disk.name.clone(),
        health: match disk.health {
            Health::Well => 0,
            Health::Full => 1,
            Health::Failed => 2,
        },
        written_bytes: [disk.filled_bytes, disk.rewritten_bytes, disk.overhead_bytes],
        payload_bytes: disk.payload_bytes,
        read_bytes: disk.read_bytes,
        refused: refused(disk),
        rewritten: disk.rewritten,
        damaged: disk.damaged,
        errors: [disk.read_errors, disk.write_errors],
        queued_bytes: disk.queued_bytes,
        reading: disk.reading,
        oldest_segment_secs: disk.oldest_segment_secs,
        index_bytes: disk.index_bytes,
    }
}
