//! The kept connections of one worker to one origin: HTTP/1.1 connections wait here between exchanges, last in, first
//! out; one HTTP/2 connection is shared by all exchanges. How many exchanges may run at once is bounded here, and so is the
//! queue of those that wait.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use observe::Slot;
use semantics::fields::LINES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::body::Upload;
use super::connect::{Meter, Names, Wire, connect};
use super::error::{FetchError, FetchErrorKind, Phase, Sent};
use super::shared::{Counted, OriginState};

/// Most bytes of a response's head.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Read buffer of an HTTP/1.1 connection, and so the largest chunk of a body; it grows to this with the traffic.
const READ_BUFFER_MAX: usize = 64 * 1024;

/// HTTP/2 flow-control windows: what a slow reader can make us hold, per stream and per connection.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// Towards another edge, whose one connection carries what many visitors read: no window of the connection, so that some who read
/// slowly stop nobody else, and a smaller one per stream (256 MiB with all streams full).
const EDGE_STREAM_WINDOW: u32 = 256 * 1024;
const EDGE_CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// An HTTP/2 connection in use that is silent for this long is pinged, and given up when the answer takes longer than
/// the second.
const PING_AFTER: Duration = Duration::from_secs(15);
const PING_ANSWER: Duration = Duration::from_secs(10);

/// The same for other edges, who may have to wait long for an origin and are told so apart from those who are gone.
const EDGE_PING_AFTER: Duration = Duration::from_secs(1);
const EDGE_PING_ANSWER: Duration = Duration::from_secs(2);

/// Exchanges that may wait for a connection, per connection that the origin may have. More are refused at once: what
/// waits behind four others on each connection is late anyway.
const QUEUED_PER_CONNECTION: usize = 4;

/// How long a connection to another edge is being made, in times that one request waits for it. Who is slow to shake hands is
/// slower still when it has to begin anew whenever a request gives up: each attempt costs it a handshake and leads to nothing. An
/// origin's next attempt may come to another one of its machines, so there it is once.
const EDGE_ATTEMPT_TIMES: u32 = 4;

/// Longest wait for a kept connection to finish the exchange before: it is only a matter of polling it once more.
const SETTLE: Duration = Duration::from_millis(100);

/// The kept connections to one origin.
pub(super) struct Pool {
    pub(super) origin: Arc<OriginState>,
    /// One permit per exchange that may run at once: the origin's `connections_max`.
    slots: Arc<Semaphore>,
    /// Exchanges that wait for one.
    waiting: Cell<usize>,
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Option<Multiplexed>>,
    /// The attempt to connect to an origin that may turn out to speak HTTP/2, for all who want a connection meanwhile.
    attempt: RefCell<Option<Attempt>>,
    /// The last connection was HTTP/1.1 although HTTP/2 was offered.
    declined_http2: Cell<bool>,
    sweeping: Cell<bool>,
    /// The origin's number in the metrics, once it is known.
    pub(super) metric: Cell<Option<Slot>>,
}

/// How an attempt to connect ends, once it has: with a connection to be shared, or with one of HTTP/1.1, which is kept for one of
/// those who wait.
type Attempt = watch::Receiver<Option<Result<Option<Multiplexed>, FetchError>>>;

struct Idle {
    sender: http1::SendRequest<Upload>,
    meter: Arc<Meter>,
    since: Instant,
    is_new: bool,
    _idle: Counted,
}

#[derive(Clone)]
struct Multiplexed {
    sender: http2::SendRequest<Upload>,
    meter: Arc<Meter>,
    since: Instant,
    /// As long as no exchange has had it, the same.
    last_used: Rc<Cell<Instant>>,
}

/// Which connections will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Any.
    Any,
    /// One that was opened after this.
    After(Instant),
    /// A new one that speaks HTTP/1.1 and is not kept: it will be upgraded.
    NewHttp1,
}

/// A connection on loan for one exchange. Dropped without [`Lease::give_back`], an HTTP/1.1 connection closes.
pub(super) struct Lease {
    sender: Sender,
    meter: Arc<Meter>,
    reused: bool,
    pool: Option<Rc<Pool>>,
}

enum Sender {
    Http1(http1::SendRequest<Upload>),
    Http2(Multiplexed),
}

impl Pool {
    pub(super) fn new(origin: Arc<OriginState>) -> Self {
        let slots = Arc::new(Semaphore::new(origin.settings.connections_max.max(1) as usize));
        Pool {
            origin,
            slots,
            waiting: Cell::new(0),
            idle: RefCell::default(),
            http2: RefCell::default(),
            attempt: RefCell::default(),
            declined_http2: Cell::new(false),
            sweeping: Cell::new(false),
            metric: Cell::new(None),
        }
    }

    /// Exchanges that run now.
    pub(super) fn in_flight(&self) -> u32 {
        let most = self.origin.settings.connections_max.max(1);
        most.saturating_sub(self.slots.available_permits() as u32)
    }

    /// Leave to have one exchange with the origin, until the permit is dropped. Waits in a bounded queue, for as long
    /// as for a connection.
    pub(super) async fn slot(&self) -> Result<OwnedSemaphorePermit, FetchError> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Ok(slot);
        }
        let settings = &self.origin.settings;
        let queue_max = settings.connections_max as usize * QUEUED_PER_CONNECTION;
        if self.waiting.get() >= queue_max {
            self.origin.counters.queue_full.add();
            let detail = format_args!("{queue_max} requests are waiting for a connection");
            return Err(FetchError::new(FetchErrorKind::QueueFull, Sent::Nothing, detail));
        }
        self.origin.counters.queued.add();
        let _place = Place::take(&self.waiting);
        match timeout(settings.timeouts.connect, self.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => {
                let detail = format_args!("all {} connections are in use", settings.connections_max);
                Err(FetchError::new(FetchErrorKind::Timeout(Phase::Queue), Sent::Nothing, detail))
            }
        }
    }

    /// A connection, kept or new. The caller bounds the time. Dropping the future gives up the attempt, unless others may share what
    /// comes of it: then it goes on.
    pub(super) async fn lease(
        self: &Rc<Self>,
        names: &Rc<Names>,
        wanted: Wanted,
    ) -> Result<Lease, FetchError> {
        if wanted == Wanted::NewHttp1 {
            return self.open(names, false).await;
        }
        if let Some(lease) = self.kept(wanted).await {
            return Ok(lease);
        }
        if self.origin.settings.http2 && !self.declined_http2.get() {
            if let Some(connection) = self.multiplexed_anew(names).await? {
                return Ok(self.share(connection));
            }
            if let Some(lease) = self.kept(wanted).await {
                return Ok(lease);
            }
        }
        self.open(names, true).await
    }

    /// A kept connection that is still open.
    async fn kept(self: &Rc<Self>, wanted: Wanted) -> Option<Lease> {
        let is_after = |time: Instant| match wanted {
            Wanted::After(then) => time > then,
            Wanted::Any | Wanted::NewHttp1 => true,
        };
        if let Some(connection) = self.multiplexed()
            && is_after(connection.since)
        {
            return Some(self.share(connection));
        }
        loop {
            let will_do = |idle: &mut Idle| wanted == Wanted::Any || idle.is_new && is_after(idle.since);
            let mut idle = self.idle.borrow_mut().pop_if(will_do)?;
            if idle.is_over(self.origin.settings.timeouts.keep_alive) {
                continue;
            }
            if idle.sender.is_ready() || matches!(timeout(SETTLE, idle.sender.ready()).await, Ok(Ok(()))) {
                return Some(Lease {
                    sender: Sender::Http1(idle.sender),
                    meter: idle.meter,
                    reused: !(idle.is_new && idle.since.elapsed() < SETTLE),
                    pool: Some(self.clone()),
                });
            }
        }
    }

    /// The HTTP/2 connection, if it is open.
    fn multiplexed(&self) -> Option<Multiplexed> {
        let mut http2 = self.http2.borrow_mut();
        if http2.as_ref().is_some_and(|connection| connection.sender.is_closed()) {
            *http2 = None;
        }
        http2.clone()
    }

    /// One more exchange on a connection.
    fn share(self: &Rc<Self>, connection: Multiplexed) -> Lease {
        let is_new = connection.last_used.replace(Instant::now()) == connection.since;
        // Later it may be stale.
        let reused = !(is_new && connection.since.elapsed() < SETTLE);
        let meter = connection.meter.clone();
        Lease { sender: Sender::Http2(connection), meter, reused, pool: Some(self.clone()) }
    }

    /// What comes of the attempt to connect that is under way, or of a new one. One that another request has begun may fail of what
    /// is over by now: then there is one more.
    async fn multiplexed_anew(self: &Rc<Self>, names: &Rc<Names>) -> Result<Option<Multiplexed>, FetchError> {
        let (is_ours, attempt) = self.attempt(names);
        match ended(attempt).await {
            Err(_) if !is_ours => {
                let (is_ours, attempt) = self.attempt(names);
                ended(attempt).await.map_err(|error| if is_ours { error } else { error.of_another() })
            }
            ended => ended,
        }
    }

    /// The attempt to connect that is under way; begins one when there is none, and says so.
    fn attempt(self: &Rc<Self>, names: &Rc<Names>) -> (bool, Attempt) {
        // One whose task is gone leads to nothing.
        let under_way = self.attempt.borrow().clone().filter(|attempt| attempt.has_changed().is_ok());
        if let Some(attempt) = under_way {
            return (false, attempt);
        }
        let (end, attempt) = watch::channel(None);
        *self.attempt.borrow_mut() = Some(attempt.clone());
        let (pool, names) = (self.clone(), names.clone());
        tokio::task::spawn_local(async move {
            let settings = &pool.origin.settings;
            let times = if settings.tls.node.is_some() { EDGE_ATTEMPT_TIMES } else { 1 };
            let most = settings.timeouts.connect * times;
            let ended = match timeout(most, pool.open(&names, true)).await {
                Ok(opened) => opened.map(Lease::into_pool),
                Err(_) => {
                    let kind = FetchErrorKind::Timeout(Phase::Connect);
                    Err(FetchError::new(kind, Sent::Nothing, format_args!("no connection within {most:?}")))
                }
            };
            *pool.attempt.borrow_mut() = None;
            end.send_replace(Some(ended));
        });
        (true, attempt)
    }

    /// A new connection. The caller bounds the time; dropping the future gives it up.
    pub(super) async fn open(self: &Rc<Self>, names: &Names, keep: bool) -> Result<Lease, FetchError> {
        self.make_room();
        let settings = &self.origin.settings;
        let wire = connect(names, self.origin.endpoint(keep)?, &self.origin.open).await?;
        self.origin.counters.connections.add();
        let meter = wire.meter();
        let http2 = keep && (wire.agreed_http2() || settings.http2 && settings.scheme == model::Scheme::Http);
        if keep {
            // What is not to be kept is never asked for HTTP/2.
            self.declined_http2.set(!http2);
        }
        let pool = keep.then(|| self.clone());
        if !http2 {
            let sender = Sender::Http1(handshake_http1(wire).await?);
            return Ok(Lease { sender, meter, reused: false, pool });
        }
        let sender = handshake_http2(wire, settings.tls.node.is_some()).await?;
        let now = Instant::now();
        let last_used = Rc::new(Cell::new(now));
        let connection = Multiplexed { sender, meter: meter.clone(), since: now, last_used };
        *self.http2.borrow_mut() = Some(connection.clone());
        self.sweep();
        Ok(Lease { sender: Sender::Http2(connection), meter, reused: false, pool })
    }

    fn keep(self: &Rc<Self>, idle: Idle) {
        self.idle.borrow_mut().push(idle);
        self.sweep();
    }

    /// Closes the connections that have waited longest, so that idle ones and those in use stay within the limit.
    fn make_room(&self) {
        let mut idle = self.idle.borrow_mut();
        let excess = idle.len().saturating_sub(self.slots.available_permits());
        let gone: Vec<Idle> = idle.drain(..excess).collect();
        drop(idle);
        drop(gone);
    }

    /// Lets a task close what has been idle for too long; it ends when nothing is kept.
    fn sweep(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), self.origin.settings.timeouts.keep_alive));
        }
    }

    /// Closes what is over; says whether anything is left.
    fn close_idle(&self, keep_alive: Duration) -> bool {
        let gone: Vec<Idle> =
            self.idle.borrow_mut().extract_if(.., |idle| idle.is_over(keep_alive)).collect();
        drop(gone);
        let over = |connection: &Multiplexed| {
            connection.sender.is_closed()
                // The pool's own clone and none of an exchange.
                || Rc::strong_count(&connection.last_used) == 1 && connection.last_used.get().elapsed() >= keep_alive
        };
        let mut http2 = self.http2.borrow_mut();
        if http2.as_ref().is_some_and(over) {
            *http2 = None;
        }
        http2.is_some() || !self.idle.borrow().is_empty()
    }

    /// How many HTTP/1.1 connections wait here.
    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.idle.borrow().iter().filter(|idle| !idle.sender.is_closed()).count()
    }
}

/// How an attempt to connect has ended.
async fn ended(mut attempt: Attempt) -> Result<Option<Multiplexed>, FetchError> {
    match attempt.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
        Ok(Some(ended)) => ended,
        _ => Err(FetchError::new(FetchErrorKind::Connect, Sent::Nothing, "connecting was given up")),
    }
}

/// A place in a pool's queue; left when dropped.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Place(waiting)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn sweep(pool: Weak<Pool>, keep_alive: Duration) {
    loop {
        sleep((keep_alive / 2).max(Duration::from_millis(10))).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.close_idle(keep_alive) {
            pool.sweeping.set(false);
            return;
        }
    }
}

impl Idle {
    fn is_over(&self, keep_alive: Duration) -> bool {
        self.sender.is_closed() || self.since.elapsed() >= keep_alive
    }
}

impl Lease {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Whether the connection had served an exchange before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Bytes that the connection has carried so far, for this exchange and others.
    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Never kept from now on.
    pub(super) fn forget(&mut self) {
        self.pool = None;
    }

    /// Sends the message; its body comes back when not a byte of the message was sent.
    pub(super) fn send(
        &mut self,
        message: http::Request<Upload>,
    ) -> impl Future<Output = Result<http::Response<Incoming>, (hyper::Error, Option<Upload>)>> + use<> {
        let (http1, http2) = match &mut self.sender {
            Sender::Http1(sender) => (Some(sender.try_send_request(message)), None),
            Sender::Http2(connection) => (None, Some(connection.sender.try_send_request(message))),
        };
        async move {
            let result = match (http1, http2) {
                (Some(sending), _) => sending.await,
                (_, Some(sending)) => sending.await,
                (None, None) => std::future::pending().await,
            };
            result.map_err(|mut error| {
                let upload = error.take_message().map(http::Request::into_body);
                (error.into_error(), upload)
            })
        }
    }

    /// The exchange is over, body and all: an HTTP/1.1 connection is kept for the next one.
    pub(super) fn give_back(self) {
        self.keep(false);
    }

    /// There was no exchange: a connection of HTTP/1.1 is kept for whoever wants one, and one that can be shared comes back.
    fn into_pool(self) -> Option<Multiplexed> {
        if let Sender::Http2(connection) = self.sender {
            return Some(connection);
        }
        self.keep(true);
        None
    }

    fn keep(self, is_new: bool) {
        if let (Sender::Http1(sender), Some(pool)) = (self.sender, self.pool) {
            let counted = pool.origin.idle.count();
            pool.keep(Idle { sender, meter: self.meter, since: Instant::now(), is_new, _idle: counted });
        }
    }
}

async fn handshake_http1(wire: Wire) -> Result<http1::SendRequest<Upload>, FetchError> {
    let (sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .max_headers(LINES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(READ_BUFFER_MAX)
        .handshake(TokioIo::new(wire))
        .await
        .map_err(handshake_failure)?;
    // Its errors come to the exchange as well; it ends when sender and body are gone.
    tokio::task::spawn_local(connection.with_upgrades());
    Ok(sender)
}

async fn handshake_http2(wire: Wire, is_edge: bool) -> Result<http2::SendRequest<Upload>, FetchError> {
    let (ping_after, ping_answer) =
        if is_edge { (EDGE_PING_AFTER, EDGE_PING_ANSWER) } else { (PING_AFTER, PING_ANSWER) };
    let (stream_window, connection_window) = if is_edge {
        (EDGE_STREAM_WINDOW, EDGE_CONNECTION_WINDOW)
    } else {
        (STREAM_WINDOW, CONNECTION_WINDOW)
    };
    let (sender, connection) = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(ping_after)
        .keep_alive_timeout(ping_answer)
        .handshake(TokioIo::new(wire))
        .await
        .map_err(handshake_failure)?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

fn handshake_failure(error: hyper::Error) -> FetchError {
    FetchError::new(FetchErrorKind::Connect, Sent::Nothing, error)
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
