//! What one worker thread owns and what all of them share. A worker is a current-thread runtime on its own core; what
//! is in [`Worker`] is touched by no other thread, what is in [`Shared`] by all.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use model::purge::PurgeClock;
use model::rate::{Rate, TooMuch};
use model::settings::Limits;
use model::tiers::HotKeys;
use model::{Draw, Switches};
use parking_lot::{Mutex, RwLock};
use semantics::Wall;
use semantics::key::KeySeed;
use semantics::tags::TagSeed;
use stats::Country;
use store::disk::{Disks, Health};
use store::{InFlight, Pages, Tier};

use crate::clock::Clock;
use crate::compress::encoder::Encoder;
use crate::flight::Flights;
use crate::handle::Locate;
use crate::hints::Hints;
use crate::in_flight::AboveBound;
use crate::loaded::{Loaded, SiteNumbers};
use crate::measure::Measuring;
use crate::object::Entry;
use crate::origin::{FetchError, Origins};
use crate::past::Past;
use crate::published::{Held, Hold, Published};
use crate::purge_log::{Positions, PurgeLog};
use crate::quic::Quic;
use crate::rates::{Counted, Open, Rates};
use crate::request::{Request, RequestId};
use crate::rewriting;
use crate::rum::PageViews;
use crate::slices::Stretches;
use crate::succession::Succession;
use crate::tiering::Reads;
use crate::tiers::Certified;
use crate::tls::Tls;
use crate::tracing::{Tracer, Tracing};

/// What all workers of an edge share.
pub(crate) struct Shared {
    /// This node's name in Cache-Status, Via and CDN-Loop.
    pub(crate) node: String,
    pub(crate) clock: Clock,
    pub(crate) seed: KeySeed,
    pub(crate) store: Tier<Entry>,
    /// What outlives memory and the process; none by default.
    pub(crate) disks: Arc<Disks>,
    /// Reads from disk that others may follow.
    pub(crate) reads: Reads,
    /// Fetches of parts of bodies that lie on disk.
    pub(crate) stretches: Stretches,
    /// Makes encoded copies.
    pub(crate) encoder: Encoder,
    pub(crate) quic: Arc<Quic>,
    /// What pages have asked browsers to load.
    pub(crate) hints: Hints,
    /// What has become of what was to be rewritten.
    pub(crate) rewrites: rewriting::Counts,
    /// Memory of bodies on their way, beside `store`.
    pub(crate) in_flight: InFlight,
    /// Which fill goes on while more is in flight than may be.
    pub(crate) above_bound: AboveBound,
    /// Where large bodies lie; `None` where the system has no such files.
    pub(crate) pages: Option<Pages>,
    pub(crate) flights: Flights,
    pub(crate) loaded: Published<Loaded>,
    pub(crate) tls: Published<Tls>,
    pub(crate) site_numbers: SiteNumbers,
    /// Counts invalidations by unsafe requests, by primary key: what was fetched before one is not stored after it.
    pub(crate) epochs: Epochs,
    /// Bytes of fills that are being kept, of all workers.
    pub(crate) fill_bytes: AtomicU64,
    pub(crate) purges: RwLock<PurgeClock>,
    /// What earlier configurations have stored under. Taken before the purge log's lock.
    pub(crate) past: Mutex<Past>,
    /// Which positions of what is on disk mean anything.
    pub(crate) positions: RwLock<Positions>,
    /// Where purges are written down; `None` while nothing outlives the process.
    pub(crate) purge_log: Mutex<Option<PurgeLog>>,
    /// The newest purge position: an object fetched at or after it needs no look at `purges`.
    pub(crate) purge_position: AtomicU64,
    /// What that means to other edges.
    pub(crate) purge_positions: RwLock<model::positions::Positions>,
    /// What is shown to other edges.
    pub(crate) certified: Arc<Certified>,
    /// When whoever orders purges was last heard, with nothing more to tell.
    pub(crate) heard: Heard,
    /// How long the way to visitors is.
    pub(crate) measuring: Measuring,
    /// What browsers tell of page views.
    pub(crate) rum: PageViews,
    pub(crate) registry: Arc<observe::Registry>,
    /// How traces are begun and told; `None` while they are off.
    pub(crate) tracing: Option<Tracing>,
    /// Where visitors are.
    pub(crate) locate: Option<Locate>,
    pub(crate) connections: AtomicUsize,
    /// Connections by client, while that has a limit.
    pub(crate) clients: Arc<Open>,
    /// Who has asked how often, while that has a limit.
    pub(crate) rates: Rates,
    /// Workers that take connections.
    pub(crate) accepting: AtomicUsize,
    /// No connection takes another request; idle ones close within a tick, unless it is gentle.
    pub(crate) draining: AtomicBool,
    /// Another process takes the new connections: idle ones may wait here for as long as they ever may.
    pub(crate) is_gentle: AtomicBool,
    /// The processes before and after this one.
    pub(crate) succession: Succession,
    /// What has not ended by now is cut.
    pub(crate) cut: AtomicBool,
    /// Tells one variant index from another.
    pub(crate) next_generation: AtomicU64,
}

/// When a node was last told that it knows of all purges: in ms of the monotonic clock, which may be before that began.
pub(crate) struct Heard(AtomicI64);

/// By how much the wall clock may be set back while this goes unnoticed: what keeping it right takes.
const AHEAD_MAX_MS: i64 = 60_000;

impl Heard {
    /// A node that nobody tells anything.
    pub(crate) fn alone() -> Self {
        Heard(AtomicI64::new(i64::MAX))
    }

    /// It was heard at `at`: never, if that is to come, as the clock has gone back since and nobody knows how long ago it was.
    pub(crate) fn set(&self, at: Wall, clock: &Clock) {
        let ago = match clock.wall().0.saturating_sub(at.0) {
            ago if ago < -AHEAD_MAX_MS => i64::MAX,
            ago => ago.max(0),
        };
        self.0.store((clock.monotonic_ms() as i64).saturating_sub(ago), Ordering::Release);
    }

    /// For how long nothing was heard; `None` where there is nobody to hear.
    pub(crate) fn silence(&self, clock: &Clock) -> Option<Duration> {
        let at = self.0.load(Ordering::Acquire);
        let silent = (clock.monotonic_ms() as i64).saturating_sub(at).max(0);
        (at != i64::MAX).then(|| Duration::from_millis(silent as u64))
    }
}

/// Counters of invalidations by key. Two keys that share one cost each other nothing but an object that is not kept.
pub(crate) struct Epochs(Box<[AtomicU64]>);

impl Epochs {
    pub(crate) fn new() -> Self {
        Epochs((0..EPOCHS).map(|_| AtomicU64::new(0)).collect())
    }

    /// The epoch of a primary key now.
    pub(crate) fn of(&self, primary: u128) -> u64 {
        self.counter(primary).load(Ordering::Acquire)
    }

    /// Begins a new one: what is in flight under the key is outdated.
    pub(crate) fn advance(&self, primary: u128) {
        self.counter(primary).fetch_add(1, Ordering::AcqRel);
    }

    /// Whether what begins a new epoch of one of two keys does so of the other.
    pub(crate) fn is_shared(&self, one: u128, other: u128) -> bool {
        std::ptr::eq(self.counter(one), self.counter(other))
    }

    fn counter(&self, primary: u128) -> &AtomicU64 {
        &self.0[primary as usize % EPOCHS]
    }
}

impl Shared {
    /// The secret under which surrogate keys are hashed.
    pub(crate) fn tag_seed(&self) -> TagSeed {
        TagSeed(self.seed.0)
    }

    /// Where a visitor is.
    pub(crate) fn country_of(&self, client: IpAddr) -> Country {
        self.locate.as_ref().map_or(Country::UNKNOWN, |locate| locate(client))
    }

    /// Makes the next start drop what the disks hold, because they can't be told all that is taken away.
    pub(crate) fn distrust_disks(&self) {
        let mut log = self.purge_log.lock();
        if log.as_ref().is_some_and(PurgeLog::end) {
            *log = None;
        }
    }
}

/// What one worker owns.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) origins: Origins,
    pub(crate) observer: observe::Observer,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) disk_reader: store::disk::Reader,
    /// TLS handshakes under way.
    pub(crate) handshakes: Arc<Open>,
    loaded: Hold<Loaded>,
    tls: Hold<Tls>,
    buffers: RefCell<Vec<Vec<u8>>>,
    watches: RefCell<Vec<Rc<Watch>>>,
    tick: Cell<u32>,
    /// Ticks since it began to drain.
    drained_ticks: Cell<u32>,
    /// Which of [`GOODBYE_TICKS`] is the next connection's.
    next_turn: Cell<u32>,
    next_id: Cell<u64>,
    failures_told: Cell<(u32, u32)>,
    /// What this worker's visitors ask for that the cache has not.
    pub(crate) hot_keys: RefCell<HotKeys>,
    /// Reused by each request for its cache key.
    pub(crate) key_text: RefCell<Vec<u8>>,
}

/// How often deadlines are looked at. A deadline fires at most this much late.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How often it is looked whether a disk has failed.
const DISKS_LOOKED_AT_TICKS: u32 = 4;

/// For how many ticks a node that stops keeps idle connections open: a request on its way is answered and told
/// `Connection: close`, instead of meeting a closed socket.
const IDLE_GRACE_TICKS: u32 = 6;

/// The tick of a drain at which a connection is told to go.
#[derive(Clone, Copy)]
pub(crate) struct Turn(u32);

/// While another process takes over, connections with many streams are told to go at one of so many ticks: they all come back with
/// a handshake, and all at once would be more than a busy machine can take (with HTTP/3, 168 to 383 of 30,000 failed then).
const GOODBYE_TICKS: u32 = 12;

/// Most failures of origins that one worker writes to standard error per [`TICK`].
const FAILURES_TOLD_MAX: u32 = 3;

/// Counters of invalidations; keys share them by their low bits.
const EPOCHS: usize = 4096;

/// Capacity of a connection's buffers, and how many a worker keeps for the next request.
const BUFFER_BYTES: usize = 16 * 1024;
const BUFFERS_KEPT: usize = 256;

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        origins: Origins,
        observer: observe::Observer,
        id_seed: u64,
    ) -> Self {
        Worker {
            origins,
            observer,
            tracer: shared.tracing.clone().map(Tracer::new),
            disk_reader: shared.disks.reader(),
            handshakes: Arc::default(),
            loaded: Hold::of(&shared.loaded),
            tls: Hold::of(&shared.tls),
            buffers: RefCell::default(),
            watches: RefCell::default(),
            tick: Cell::new(0),
            drained_ticks: Cell::new(0),
            next_turn: Cell::new(0),
            next_id: Cell::new(id_seed),
            failures_told: Cell::new((0, 0)),
            hot_keys: RefCell::default(),
            key_text: RefCell::default(),
            shared,
        }
    }

    /// The configuration that a request which starts now keeps to its end.
    pub(crate) fn loaded(&self) -> Held<Loaded> {
        self.loaded.get(&self.shared.loaded)
    }

    /// What a handshake that starts now goes by.
    pub(crate) fn tls(&self) -> Held<Tls> {
        self.tls.get(&self.shared.tls)
    }

    /// The next request's id: a Weyl sequence through a bijective mixer (SplitMix64), so that no two are the same.
    pub(crate) fn request_id(&self) -> RequestId {
        let mut ids = Draw(self.next_id.get());
        let id = ids.bits();
        self.next_id.set(ids.0);
        RequestId(id)
    }

    /// An empty buffer of [`BUFFER_BYTES`] capacity.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back. One that has grown or was given away is dropped.
    pub(crate) fn return_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if buffer.capacity() == BUFFER_BYTES && buffers.len() < BUFFERS_KEPT {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// A deadline watch for a connection; forgotten when the connection drops its end.
    pub(crate) fn watch(&self) -> Rc<Watch> {
        let watch = Rc::new(Watch {
            deadline: Cell::new(u32::MAX),
            idle: Cell::new(false),
            expired: Cell::new(false),
            waker: Cell::new(None),
        });
        self.watches.borrow_mut().push(watch.clone());
        watch
    }

    /// The tick at which a wait of `timeout` that starts now is over.
    pub(crate) fn tick_after(&self, timeout: Duration) -> u32 {
        let ticks = timeout.as_millis().div_ceil(TICK.as_millis()) as u32;
        self.tick.get().saturating_add(ticks).saturating_add(1)
    }

    /// Whether the edge is stopping.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// When a new connection is to be told that it ends, while another process takes over: one after the other.
    pub(crate) fn turn(&self) -> Turn {
        let turn = self.next_turn.get();
        self.next_turn.set((turn + 1) % GOODBYE_TICKS);
        Turn(turn)
    }

    /// Whether a connection that has had `served` requests is to be told that it ends. While another process takes over, it is
    /// when its turn has come, and it has had its first answer: its visitor came for that. `is_spoken`: the switch of its protocol.
    pub(crate) fn says_goodbye(
        &self,
        turn: Turn,
        served: u32,
        is_spoken: impl Fn(&Switches) -> bool,
    ) -> bool {
        match self.is_draining() {
            true if self.shared.is_gentle.load(Ordering::Relaxed) => {
                served > 0 && self.drained_ticks.get() >= turn.0
            }
            true => true,
            false => !is_spoken(&self.loaded().snapshot.switches),
        }
    }

    /// The limits of the running configuration.
    pub(crate) fn limits(&self) -> Limits {
        self.loaded().snapshot.edge.limits
    }

    /// Puts something into the store; a refusal is counted there.
    pub(crate) fn insert(&self, key: u128, entry: Entry) {
        let _counted = self.shared.store.insert(key, entry);
    }

    /// Tells the operator why an origin gave no answer; visitors see less. At most [`FAILURES_TOLD_MAX`] lines a tick:
    /// an outage is told, not recited. The metrics count them all.
    pub(crate) fn log_failure(&self, request: &Request, error: &FetchError) {
        let (tick, told) = self.failures_told.get();
        let told = if tick == self.tick.get() { told } else { 0 };
        self.failures_told.set((self.tick.get(), told + 1));
        if told < FAILURES_TOLD_MAX {
            let id = request.id.text();
            eprintln!("request {}: {error}", String::from_utf8_lossy(&id));
        }
    }

    /// Whether something may be done once more at `rate`.
    pub(crate) fn take(&self, counted: Counted, rate: &Rate) -> Result<(), TooMuch> {
        let shared = &self.shared;
        shared.rates.take(&shared.seed, counted, rate, shared.clock.monotonic_ms())
    }

    /// Counts that a limit was reached.
    pub(crate) fn count_limit(&self, limit: observe::Limit) {
        self.observer.limit_reached(limit);
    }

    /// Runs as long as the worker: expires deadlines, and lets the observer hand over what it has buffered.
    pub(crate) async fn sweep(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let tick = self.tick.get().wrapping_add(1);
            self.tick.set(tick);
            // Visitors who are just about to send get an answer that says goodbye; only then idle connections are closed.
            self.drained_ticks.set(self.drained_ticks.get() + u32::from(self.is_draining()));
            let is_gentle = self.shared.is_gentle.load(Ordering::Relaxed);
            let closes_idle = self.drained_ticks.get() >= IDLE_GRACE_TICKS && !is_gentle;
            self.watches.borrow_mut().retain(|watch| {
                let is_over = tick >= watch.deadline.get() || (closes_idle && watch.idle.get());
                if is_over && !watch.expired.get() {
                    watch.expired.set(true);
                    if let Some(waker) = watch.waker.take() {
                        waker.wake();
                    }
                }
                Rc::strong_count(watch) > 1
            });
            // Of what all share, one worker would do; so little work needs none that is singled out.
            if tick.is_multiple_of(DISKS_LOOKED_AT_TICKS)
                && self.shared.disks.stats().iter().all(|disk| disk.health == Health::Failed)
            {
                self.shared.distrust_disks();
            }
            self.observer.tick(self.shared.clock.wall());
            self.shared.flights.sweep(self.shared.clock.monotonic_ms());
        }
    }
}

/// One connection's current deadline. Setting it is one store: the sweep compares, nobody arms a timer.
pub(crate) struct Watch {
    deadline: Cell<u32>,
    /// Between two requests: closing harms nobody.
    idle: Cell<bool>,
    expired: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Watch {
    /// Sets the tick ([`Worker::tick_after`]) at which the wait that begins now is over.
    pub(crate) fn set(&self, deadline: u32) {
        self.deadline.set(deadline);
        self.expired.set(false);
        self.idle.set(false);
    }

    /// The same for the wait between two requests.
    pub(crate) fn set_idle(&self, deadline: u32) {
        self.deadline.set(deadline);
        self.expired.set(false);
        self.idle.set(true);
    }

    /// No deadline: something else bounds the wait.
    pub(crate) fn clear(&self) {
        self.set(u32::MAX);
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_expired(&self) -> bool {
        self.expired.get()
    }

    /// Wakes whoever is registered, to look again.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for `future`, but not past the deadline: `None` then. It comes pinned, since what is given to an async function by
    /// value takes its room there twice.
    pub(crate) async fn within<T>(&self, mut future: impl Future<Output = T> + Unpin) -> Option<T> {
        poll_fn(|context| {
            if self.is_expired() {
                return Poll::Ready(None);
            }
            let polled = Pin::new(&mut future).poll(context);
            if polled.is_pending() {
                self.register(context);
            }
            polled.map(Some)
        })
        .await
    }

    /// Whom to wake when it passes.
    pub(crate) fn register(&self, context: &Context<'_>) {
        let waker = match self.waker.take() {
            Some(waker) if waker.will_wake(context.waker()) => waker,
            _ => context.waker().clone(),
        };
        self.waker.set(Some(waker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_at_a_time_to_come_was_never_heard() {
        let clock = Clock::manual(Wall(1_000_000_000));
        let heard = Heard::alone();
        let silence = |ahead_ms: i64| {
            heard.set(Wall(clock.wall().0 + ahead_ms), &clock);
            heard.silence(&clock).map(|silence| silence.as_secs())
        };
        assert_eq!([silence(-5000), silence(0), silence(59_000)], [Some(5), Some(0), Some(0)]);
        assert!(silence(61_000) > Some(1_000_000));
    }
}
