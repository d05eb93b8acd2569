//! Control: the API by which operators change a cluster, and the place where its nodes learn of it. Any number of controls work on
//! one journal; none is the leader, and none holds anything that the others lack but the reports of its own nodes.
//!
//! ```text
//! operators ─ token ─► ┌ api ─ purges, configurations, roll-outs, nodes, tokens ─► journal ┐
//! nodes ─ certificate ─► └ hub ◄─ records ─ journal; reports, receipts ─► proofs, roll-outs ┘
//! ```
//!
//! It never imports the edge: what the two say to each other is in `journal` and `model`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use journal::Journal;
use journal::feed::Hub;
use model::rate::{Bucket, Buckets, Rate, TooMuch};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

mod advice;
mod api;
mod audit;
mod authority;
mod budgets;
mod canary;
mod cells;
mod clock;
mod configurations;
mod dashboard;
mod explain;
pub mod export;
mod housekeeping;
mod idempotency;
pub mod limits;
mod nodes;
mod page_tests;
mod peers;
mod pops;
mod problem;
mod purges;
mod rollouts;
mod rollup;
mod server;
mod sites;
mod statistics;
mod status;
mod strangers;
mod tail;
mod tls;
mod tokens;
mod vault;
mod view;

#[doc(hidden)]
pub use dashboard::outlines;
pub use page_tests::is_page_test_name;
#[cfg(feature = "measure")]
pub use rollup::measure;
pub use statistics::OwnStatistics;
pub use statistics::next_step;
pub use status::metric_families;
pub use tokens::Role;

use limits::{BODIES_BYTES_MAX, CANARY_INTERVAL, PURGES_QUEUED_MAX, REFUSALS_PER_ADDRESS};

/// Addresses whose refusals are counted.
const ADDRESSES_COUNTED: usize = 4_096;

/// How a control is started.
pub struct Options {
    /// Its name, for logs and nodes.
    pub name: String,
    /// Where it listens: operators and nodes come to one port.
    pub listen: SocketAddr,
    /// The names and addresses by which they reach it; its certificate is for these and the address of `listen`.
    pub names: Vec<String>,
    /// The state directory: the cluster's secret, the first token, the certificate that callers have to trust.
    pub state: PathBuf,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// How often the canary purge is sent.
    pub canary_interval: Duration,
    /// Who else is told what the cluster serves.
    pub exports: Vec<export::Export>,
}

impl Options {
    /// With every choice at its default.
    pub fn new(
        name: impl Into<String>,
        listen: SocketAddr,
        state: PathBuf,
        journal: Arc<dyn Journal>,
    ) -> Options {
        Options {
            name: name.into(),
            listen,
            names: Vec::new(),
            state,
            journal,
            canary_interval: CANARY_INTERVAL,
            exports: Vec::new(),
        }
    }
}

/// Starts controls.
pub struct Control;

/// A control that runs until it is told to stop.
pub struct Handle {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: JoinSet<&'static str>,
    server: JoinHandle<()>,
    shared: Arc<Shared>,
}

/// What all of a control's tasks know.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) authority: authority::Authority,
    pub(crate) vault: vault::Vault,
    pub(crate) view: Arc<view::View>,
    /// Serves the feed, and keeps what nodes report.
    pub(crate) hub: Arc<Hub>,
    pub(crate) peers: peers::Peers,
    pub(crate) tail: tail::Tail,
    pub(crate) statistics: Arc<rollup::Store>,
    /// Each tells others of what is counted, until it is taken away.
    pub(crate) exports: Mutex<Vec<export::Exporting>>,
    pub(crate) calls: mpsc::Sender<purges::Call>,
    /// Room for bodies of requests with a token, in bytes.
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) rates: Mutex<Rates>,
    /// Enrolment tokens for those whose address has failed too often.
    pub(crate) known_enrolments: nodes::KnownEnrolments,
    /// The newest text of metrics, and when it was made.
    pub(crate) metrics: Mutex<Option<(std::time::Instant, Bytes)>>,
    pub(crate) canary: canary::Canary,
    pub(crate) driver: rollouts::Driver,
    pub(crate) counts: Arc<Counts>,
    /// When this control began.
    pub(crate) begun: std::time::Instant,
    /// Why the journal could not be read when it was tried last.
    pub(crate) journal_error: Mutex<Option<String>>,
}

/// What is counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) purges: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) canaries_late: AtomicU64,
    pub(crate) limits: [AtomicU64; Limit::ALL.len()],
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    RequestsPerToken,
    RefusalsPerAddress,
    PurgesQueued,
    Connections,
    ConnectionsPerNode,
    Operators,
    Strangers,
    StrangersPerAddress,
    Bodies,
    PageTestsKept,
}

impl Limit {
    pub(crate) const ALL: [Limit; 10] = [
        Limit::RequestsPerToken,
        Limit::RefusalsPerAddress,
        Limit::PurgesQueued,
        Limit::Connections,
        Limit::ConnectionsPerNode,
        Limit::Operators,
        Limit::Strangers,
        Limit::StrangersPerAddress,
        Limit::Bodies,
        Limit::PageTestsKept,
    ];

    /// Its name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Limit::RequestsPerToken => "requests_per_token",
            Limit::RefusalsPerAddress => "refusals_per_address",
            Limit::PurgesQueued => "purges_queued",
            Limit::Connections => "connections",
            Limit::ConnectionsPerNode => "connections_per_node",
            Limit::Operators => "operators",
            Limit::Strangers => "strangers",
            Limit::StrangersPerAddress => "strangers_per_address",
            Limit::Bodies => "bodies",
            Limit::PageTestsKept => "page_tests_kept",
        }
    }
}

impl Counts {
    /// Notes that a limit was reached.
    pub(crate) fn reached(&self, limit: Limit) {
        self.limits[limit as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Control {
    /// Starts one. The first of a cluster makes its authority, its secret and the first token; each further one needs a copy of the
    /// secret.
    ///
    /// # Errors
    /// One sentence on what is in the way, and what to do.
    pub async fn start(options: Options) -> Result<Handle, String> {
        let Options { name, listen, names, state, journal, canary_interval, exports } = options;
        trust::make_private_directory(&state).map_err(|error| format!("{}: {error}", state.display()))?;
        let (authority, vault) = authority::open(&*journal, &state).await?;
        let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("{listen}: {error}"))?;
        let certificates = tls::Certificates::new(&name, names, address.ip(), &authority)?;
        tls::write_authority(&state, &authority)?;
        let view = Arc::new(view::View::default());
        view.refresh(&*journal).await.map_err(|error| error.to_string())?;
        let (seen, id) = (Arc::clone(&view), journal.id().to_owned());
        let check = Box::new(move |peer: &_, report: &_| nodes::check_report(&seen, &id, peer, report));
        let plan = view.get().plan.clone();
        let hub = Hub::of_journal(&name, Arc::clone(&journal), plan, check).await;
        let hub = hub.map_err(|error| error.to_string())?;
        let statistics = rollup::Store::open(&state.join("statistics.sqlite"))?;
        hub.count_by(Arc::new(statistics::Takes {
            store: Arc::clone(&statistics),
            view: Arc::clone(&view),
            hub: Arc::downgrade(&hub),
        }));
        let seen = Arc::clone(&view);
        hub.admit_by(Box::new(move |peer| nodes::check_peer(&seen, peer)));
        let exports = exports.into_iter().map(|export| export::Exporting::start(export, &name, &statistics));
        let exports = exports.collect::<Result<Vec<_>, _>>()?;
        let counts = Arc::new(Counts::default());
        let (calls, waiting) = mpsc::channel(PURGES_QUEUED_MAX);
        let shared = Arc::new(Shared {
            name,
            journal,
            authority,
            vault,
            view,
            hub,
            peers: peers::Peers::default(),
            tail: tail::Tail::new(),
            statistics,
            exports: Mutex::new(exports),
            calls,
            bodies: Arc::new(Semaphore::new(BODIES_BYTES_MAX)),
            rates: Mutex::new(Rates::new()),
            known_enrolments: nodes::KnownEnrolments::default(),
            metrics: Mutex::new(None),
            canary: canary::Canary::default(),
            driver: rollouts::Driver::default(),
            counts: Arc::clone(&counts),
            begun: std::time::Instant::now(),
            journal_error: Mutex::new(None),
        });
        let (router, _) = api::router(Arc::clone(&shared));
        let (stop, stopping) = watch::channel(false);
        let rooms = Arc::new(strangers::Rooms::new(counts));
        let server =
            tokio::spawn(server::serve(listener, Arc::clone(&certificates), router, rooms, stopping));
        let tail = Arc::clone(&shared);
        let mut tasks = JoinSet::new();
        let mut spawn = |name, work: Pin<Box<dyn Future<Output = ()> + Send>>| {
            tasks.spawn(async move {
                work.await;
                name
            });
        };
        let follow = async move { tail.tail.follow(Arc::clone(&tail.journal), Arc::clone(&tail.hub)).await };
        spawn("reading the journal", Box::pin(follow));
        spawn("writing purges", Box::pin(purges::write(Arc::clone(&shared), waiting)));
        spawn("reading cells", Box::pin(housekeeping::keep_view(Arc::clone(&shared))));
        let house = housekeeping::keep_house(Arc::clone(&shared), Arc::clone(&certificates));
        spawn("housekeeping", Box::pin(house));
        spawn("roll-outs", Box::pin(rollouts::drive(Arc::clone(&shared))));
        spawn("leasing budgets", Box::pin(budgets::keep(Arc::clone(&shared))));
        let peers = peers::keep(Arc::clone(&shared), Arc::clone(&certificates), address);
        spawn("reporting to other controls", Box::pin(peers));
        spawn("the canary purge", Box::pin(canary::sing(Arc::clone(&shared), canary_interval)));
        Ok(Handle { address, stop, tasks, server, shared })
    }
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns when a part of it has ended, which none does by itself: with it, this control is of no use. In words.
    pub async fn broken(&mut self) -> String {
        let ended = tokio::select! {
            ended = self.tasks.join_next() => ended.unwrap_or(Ok("everything")),
            ended = &mut self.server => ended.map(|()| "taking connections"),
        };
        match ended {
            Ok(name) => format!("a part of this control has ended: {name}"),
            Err(error) => format!("a part of this control has broken down: {error}"),
        }
    }

    /// Takes no more connections, lets running requests end, and ends.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _panicked = (&mut self.server).await;
        self.tasks.shutdown().await;
        let exports = std::mem::take(&mut *self.shared.exports.lock());
        // Waits for the last of what is told.
        let _panicked = tokio::task::spawn_blocking(move || export::end(&exports)).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The others end with their set.
        self.server.abort();
    }
}

impl Shared {
    /// Counts a request without a good token.
    pub(crate) fn refuse(&self, from: IpAddr) -> Result<(), TooMuch> {
        let counted = self.rates.lock().refuse(from);
        counted.inspect_err(|_| self.counts.reached(Limit::RefusalsPerAddress))
    }

    /// Whether the next request without a good token would be too many. Counts nothing.
    pub(crate) fn may_be_refused(&self, from: IpAddr) -> Result<(), TooMuch> {
        let asked = self.rates.lock().may_be_refused(from);
        asked.inspect_err(|_| self.counts.reached(Limit::RefusalsPerAddress))
    }

    /// Reads what requests look at.
    pub(crate) async fn refresh_view(&self) -> Result<(), journal::Error> {
        let done = self.view.refresh(&*self.journal).await;
        let error = done
            .as_ref()
            .map_or_else(|error| Some(error.to_string()), |unread| unread.as_ref().map(ToString::to_string));
        let before = std::mem::replace(&mut *self.journal_error.lock(), error.clone());
        match (&before, &error) {
            (None, Some(error)) => eprintln!("perigee: {error}"),
            (Some(_), None) => eprintln!("perigee: the journal can be read again"),
            _ => {}
        }
        done.map(drop)
    }
}

/// The OpenAPI document of the API.
pub fn openapi() -> String {
    api::openapi().to_pretty_json().unwrap_or_default()
}

// --- How often ---

/// How often tokens and addresses have come.
pub(crate) struct Rates {
    begun: Instant,
    tokens: HashMap<String, Bucket>,
    addresses: Buckets,
    hasher: RandomState,
}

impl Rates {
    fn new() -> Rates {
        Rates {
            begun: Instant::now(),
            tokens: HashMap::new(),
            addresses: Buckets::new(ADDRESSES_COUNTED),
            hasher: RandomState::new(),
        }
    }

    fn now_ns(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Counts a request of a token.
    pub(crate) fn take(&mut self, token: &tokens::Token) -> Result<(), TooMuch> {
        let now = self.now_ns();
        if self.tokens.len() > 2 * limits::TOKENS_MAX {
            self.tokens.retain(|_, bucket| !bucket.is_empty(now));
        }
        self.tokens.entry(token.hash.clone()).or_default().take(&tokens::rate_of(token), now)
    }

    const REFUSALS: Rate = Rate::new(REFUSALS_PER_ADDRESS, Duration::from_secs(1), 10 * REFUSALS_PER_ADDRESS);

    /// Counts a request without a good token.
    pub(crate) fn refuse(&mut self, from: IpAddr) -> Result<(), TooMuch> {
        let now = self.now_ns();
        self.addresses.take(self.hasher.hash_one(from), &Self::REFUSALS, now)
    }

    fn may_be_refused(&self, from: IpAddr) -> Result<(), TooMuch> {
        self.addresses.ask(self.hasher.hash_one(from), &Self::REFUSALS, self.now_ns())
    }
}
