//! Budgets of origins: the one place where an attempt at an origin may have to wait for its turn. One [`Budget`] per site and origin,
//! shared by all workers; without one nothing here is touched.
//!
//! ```text
//! attempt ─► turn ─┬─ the gate lets it through ─► Turn ─ send ─► answer, body, end ─► dropped: the next one's turn
//!                  └─ waits, by class and by how many have asked ─► Turn, or refused: queue full, too long
//! ```
//!
//! What counts is decided by [`model::budget::gate`], how much is allowed by [`model::budget::lease`] on a node of a cluster. Probes
//! of health are not counted: what they ask for is the owner's own setting, and a budget that is used up must not look like an
//! origin that is down. A tunnel counts until it is open. A process that drains after an upgrade draws on the gates of the one that
//! serves ([`super::turns`]).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use model::budget::gate::{Gate, NotNow};
use model::budget::lease::{Ask, Grant, Holder};
use model::budget::{Amount, BudgetPolicy, Class};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::error::{FetchError, FetchErrorKind, Sent};
use super::turns::Turns;
use crate::clock::Clock;

/// Requests that wait for one origin, at most; of more, the least urgent are refused.
pub(super) const WAITING_MAX: usize = 4_096;

/// How often it is looked whether a time has come, at least and at most.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(25);

/// Who waits for what is fetched: how many have asked, and the most urgent of them. All clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Askers(Arc<(AtomicU32, AtomicU8)>);

impl Askers {
    /// One, of that class.
    pub(crate) fn new(class: Class) -> Self {
        Askers(Arc::new((AtomicU32::new(1), AtomicU8::new(class.rank()))))
    }

    /// As many, the most urgent of that rank: as another process says.
    pub(super) fn of(rank: u8, count: u32) -> Self {
        Askers(Arc::new((AtomicU32::new(count), AtomicU8::new(rank))))
    }

    /// The rank of the most urgent of them, and how many they are.
    pub(super) fn parts(&self) -> (u8, u32) {
        (self.0.1.load(Ordering::Relaxed), self.count())
    }

    /// One more.
    pub(crate) fn join(&self, class: Class) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        self.0.1.fetch_min(class.rank(), Ordering::Relaxed);
    }

    /// As many again as have asked for what came to nothing.
    pub(crate) fn add(&self, before: &Askers) {
        self.0.0.fetch_add(before.count(), Ordering::Relaxed);
    }

    /// Whether there is nobody among them who has nothing to look at.
    pub(crate) fn are_in_background(&self) -> bool {
        self.0.1.load(Ordering::Relaxed) >= Class::BACKGROUND_RANK
    }

    fn count(&self) -> u32 {
        self.0.0.load(Ordering::Relaxed)
    }

    fn place(&self, number: u64) -> (u8, Reverse<u32>, u64) {
        (self.0.1.load(Ordering::Relaxed), Reverse(self.count()), number)
    }
}

/// What all workers know of one origin's budget.
pub(crate) struct Budget {
    id: String,
    origin: Arc<str>,
    clock: Clock,
    turns: Arc<Turns>,
    inner: Mutex<Inner>,
    refused: AtomicU64,
    ended: AtomicU64,
}

struct Inner {
    policy: BudgetPolicy,
    gate: Gate,
    /// What control grants; `None` outside of a cluster, where all of it is this node's own.
    holder: Option<Holder>,
    waiting: Vec<Waiter>,
    next_number: u64,
    /// What goes on, by number, the newest last.
    running: BTreeMap<u64, Running>,
    /// Whether a task looks at the time for those who wait.
    is_watched: bool,
    /// Whether the gate is that of another process now.
    is_handed_over: bool,
}

struct Running {
    /// Told when it is to be given up.
    give_up: watch::Sender<bool>,
    is_sent: bool,
}

struct Waiter {
    askers: Askers,
    number: u64,
    turn: oneshot::Sender<Turn>,
}

/// One request's leave. Dropped when its answer has ended, or has been given up.
pub(super) struct Turn {
    budget: Arc<Budget>,
    number: u64,
    is_sent: bool,
    given_up: GivenUp,
}

/// Tells when a request is to be given up. All clones tell the same.
#[derive(Clone)]
pub(super) struct GivenUp(watch::Receiver<bool>);

impl GivenUp {
    /// Returns when it is to be given up, or there is nothing any more that could be; never without a budget.
    pub(super) async fn wait_for(given_up: Option<&mut GivenUp>) {
        match given_up {
            // An error says that the turn is no more.
            Some(GivenUp(told)) => drop(told.wait_for(|is_given_up| *is_given_up).await),
            None => std::future::pending().await,
        }
    }
}

/// The budget of one site at one origin, for metrics and for people.
#[derive(Clone, Debug)]
pub struct BudgetStatus {
    /// The site.
    pub site: Box<str>,
    /// The origin's URL.
    pub origin: Arc<str>,
    /// What all nodes together may use.
    pub total: Amount,
    /// What this node may use now.
    pub allowed: Amount,
    /// What it uses: requests of the last second, and in flight.
    pub used: Amount,
    /// Requests that wait for their turn.
    pub waiting: u64,
    /// How often what they wait for has been asked for.
    pub askers: u64,
    /// Requests that had none in time, since the budget was configured.
    pub refused: u64,
    /// Answers that were ended, because less was allowed for too long.
    pub ended: u64,
}

impl Budget {
    /// `chance` where control grants it: see [`Holder::new`].
    pub(super) fn new(
        policy: &BudgetPolicy,
        origin: &Arc<str>,
        clock: &Clock,
        chance: Option<u64>,
        turns: &Arc<Turns>,
    ) -> Self {
        let now = clock.monotonic_ms();
        let mut gate = Gate::new(now);
        if turns.is_held() {
            gate.hold();
        }
        Budget {
            id: policy.id(origin),
            origin: origin.clone(),
            clock: clock.clone(),
            turns: turns.clone(),
            inner: Mutex::new(Inner {
                policy: policy.clone(),
                gate,
                holder: chance.map(|chance| Holder::new(chance, now)),
                waiting: Vec::new(),
                next_number: 0,
                running: BTreeMap::new(),
                is_watched: false,
                is_handed_over: turns.is_handed_over(),
            }),
            refused: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Takes the numbers of a new configuration; what is counted stays.
    pub(super) fn configure(&self, policy: &BudgetPolicy) {
        let now = self.clock.monotonic_ms();
        let mut inner = self.inner.lock();
        if inner.policy != *policy {
            inner.policy = policy.clone();
            inner.refresh(now);
        }
    }

    /// Waits for leave to send one request, in the order of [`Class`] and of how many have asked.
    ///
    /// # Errors
    /// There is no turn for it within the policy's `queue`, or too many wait who are more urgent.
    pub(super) async fn turn(self: &Arc<Self>, askers: &Askers) -> Result<Turn, FetchError> {
        let (put_out, waits, patience) = {
            let mut inner = self.inner.lock();
            let patience = inner.policy.queue;
            if inner.is_handed_over {
                let number = inner.next_number;
                inner.next_number += 1;
                return Ok(Turn::new(self, number, &mut inner));
            }
            if inner.waiting.is_empty()
                && let Some(number) = inner.begin(self.clock.monotonic_ms())
            {
                return Ok(Turn::new(self, number, &mut inner));
            }
            let number = inner.next_number;
            inner.next_number += 1;
            let (turn, waits) = oneshot::channel();
            let waiter = Waiter { askers: askers.clone(), number, turn };
            (inner.queue(waiter), waits, patience)
        };
        // Whoever was put out learns of it by this.
        drop(put_out);
        self.pump();
        self.watch();
        match timeout(patience, waits).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(self.refuse("too many wait who are more urgent")),
            Err(_) => {
                // What has just been given to it is given back when it is dropped.
                self.inner.lock().waiting.retain(|waiter| !waiter.turn.is_closed());
                Err(self.refuse(format_args!("no turn within {patience:?}")))
            }
        }
    }

    fn refuse(&self, why: impl std::fmt::Display) -> FetchError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let detail = format_args!("the budget of {} is used up: {why}", self.id);
        FetchError::new(FetchErrorKind::BudgetShort, Sent::Nothing, detail)
    }

    /// Gives out what turns there are.
    fn pump(self: &Arc<Self>) {
        let now = self.clock.monotonic_ms();
        let mut given = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.waiting.retain(|waiter| !waiter.turn.is_closed());
            while let Some(first) = inner.first()
                && let Some(number) = inner.begin(now)
            {
                let waiter = inner.waiting.swap_remove(first);
                given.push((waiter, Turn::new(self, number, &mut inner)));
            }
        }
        for (waiter, turn) in given {
            // Who has left meanwhile gives it back, without the lock.
            drop(waiter.turn.send(turn));
        }
    }

    /// Has a task look at the time, unless one does.
    fn watch(self: &Arc<Self>) {
        if !std::mem::replace(&mut self.inner.lock().is_watched, true) {
            tokio::task::spawn_local(watch(Watch(self.clone())));
        }
    }

    /// Looks after what time changes: what is allowed, what is wanted, and what goes on for too long above that.
    pub(super) fn tick(&self) {
        let now = self.clock.monotonic_ms();
        let mut inner = self.inner.lock();
        if inner.is_handed_over {
            return;
        }
        inner.refresh(now);
        let waiting = inner.waiting.len() as u32;
        inner.gate.note_demand(waiting, now);
        let grace_ms = inner.policy.grace.as_millis() as u64;
        let excess = inner.gate.excess(now, grace_ms) as usize;
        for running in inner.running.values().rev().take(excess) {
            running.give_up.send_replace(true);
        }
    }

    /// What is asked of control now; `None` outside of a cluster.
    pub(super) fn ask(&self) -> Option<Ask> {
        let now = self.clock.monotonic_ms();
        let mut inner = self.inner.lock();
        let (floor, waiting) = (inner.policy.floor(), inner.waiting.len() as u32);
        let demand = inner.gate.demand(waiting, now).minus(floor);
        let running = inner.gate.running().saturating_sub(floor.in_flight);
        inner.holder.as_mut().map(|holder| holder.ask(demand, running, now))
    }

    /// Takes what control grants.
    pub(super) fn grant(&self, grant: Grant) {
        let now = self.clock.monotonic_ms();
        let mut inner = self.inner.lock();
        if inner.holder.as_mut().is_some_and(|holder| holder.take(grant, now)) {
            inner.refresh(now);
        }
    }

    // --- Another process in this one's place ---

    /// The gate is another process's from now on: who waits here will wait there. It is told what has been sent and has not ended, by
    /// number; within the lock, so that the end of none is told first.
    pub(super) fn hand_over(self: &Arc<Self>, tell: impl FnOnce(Vec<u64>)) {
        let mut given = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.is_handed_over = true;
            for waiter in std::mem::take(&mut inner.waiting) {
                let turn = Turn::new(self, waiter.number, &mut inner);
                given.push((waiter, turn));
            }
            let sent = inner.running.iter().filter(|(_, running)| running.is_sent);
            tell(sent.map(|(number, _)| *number).collect());
        }
        for (waiter, turn) in given {
            drop(waiter.turn.send(turn));
        }
    }

    /// The other process has given leave to send that one; whether it is still wanted.
    pub(super) fn note_sent(&self, number: u64) -> bool {
        let mut inner = self.inner.lock();
        let running = inner.running.get_mut(&number);
        running.is_some_and(|running| !std::mem::replace(&mut running.is_sent, true))
    }

    /// The other process wants that one ended.
    pub(super) fn give_up(&self, number: u64) {
        if let Some(running) = self.inner.lock().running.get(&number) {
            running.give_up.send_replace(true);
        }
    }

    /// A turn of something that the process before this one has in flight.
    pub(super) fn adopt(self: &Arc<Self>) -> Turn {
        let mut inner = self.inner.lock();
        inner.gate.adopt();
        let number = inner.next_number;
        inner.next_number += 1;
        let mut turn = Turn::new(self, number, &mut inner);
        turn.is_sent = true;
        if let Some(running) = inner.running.get_mut(&number) {
            running.is_sent = true;
        }
        turn
    }

    /// All is adopted that there was. What was sent in the last second is not known.
    pub(super) fn open(self: &Arc<Self>) {
        self.inner.lock().gate.open(self.clock.monotonic_ms());
    }

    pub(super) fn report(&self) -> BudgetStatus {
        let now = self.clock.monotonic_ms();
        let mut inner = self.inner.lock();
        inner.refresh(now);
        let used = Amount { requests_per_second: inner.gate.in_window(now), in_flight: inner.gate.running() };
        BudgetStatus {
            site: inner.policy.site.clone(),
            origin: self.origin.clone(),
            total: inner.policy.total,
            allowed: inner.gate.allowed(),
            used,
            waiting: inner.waiting.len() as u64,
            askers: inner.waiting.iter().map(|waiter| u64::from(waiter.askers.count())).sum(),
            refused: self.refused.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    fn refresh(&mut self, now: u64) {
        let allowed = match &self.holder {
            None => self.policy.total,
            Some(holder) => self.policy.floor().plus(holder.allowed(now)),
        };
        self.gate.allow(allowed, now);
    }

    /// Begins one, if it may: its number.
    fn begin(&mut self, now: u64) -> Option<u64> {
        self.refresh(now);
        self.gate.begin(now).ok()?;
        self.next_number += 1;
        Some(self.next_number - 1)
    }

    /// Has one more wait; who is put out for it, if it is not itself.
    fn queue(&mut self, waiter: Waiter) -> Option<Waiter> {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.retain(|waiter| !waiter.turn.is_closed());
        }
        self.waiting.push(waiter);
        if self.waiting.len() <= WAITING_MAX {
            return None;
        }
        let places = self.waiting.iter().enumerate();
        let last = places.max_by_key(|(_, waiter)| waiter.askers.place(waiter.number))?.0;
        Some(self.waiting.swap_remove(last))
    }

    /// Whose turn it is: where among those that wait.
    fn first(&self) -> Option<usize> {
        let places = self.waiting.iter().enumerate();
        Some(places.min_by_key(|(_, waiter)| waiter.askers.place(waiter.number))?.0)
    }

    /// When it is worth looking again.
    fn wait(&mut self, now: u64) -> Duration {
        match self.gate.check(now) {
            Err(NotNow::Before(at)) => {
                Duration::from_millis(at.saturating_sub(now)).clamp(LOOK_MIN, LOOK_MAX)
            }
            Err(NotNow::Full) | Ok(()) => LOOK_MAX,
        }
    }
}

impl Turn {
    fn new(budget: &Arc<Budget>, number: u64, inner: &mut Inner) -> Turn {
        let (give_up, given_up) = watch::channel(false);
        inner.running.insert(number, Running { give_up, is_sent: false });
        Turn { budget: budget.clone(), number, is_sent: false, given_up: GivenUp(given_up) }
    }

    /// The request is about to be sent. `false`: it may not, because less is allowed by now or because it has been sent before;
    /// then another turn is needed.
    ///
    /// # Errors
    /// The process that has the gate has no turn for it.
    pub(super) async fn send(&mut self, askers: &Askers) -> Result<bool, FetchError> {
        if self.is_sent {
            return Ok(false);
        }
        let budget = &self.budget;
        {
            let now = budget.clock.monotonic_ms();
            let mut inner = budget.inner.lock();
            if !inner.is_handed_over {
                self.is_sent = true;
                inner.refresh(now);
                let is_within = inner.gate.send(now);
                if let Some(running) = inner.running.get_mut(&self.number) {
                    running.is_sent = is_within;
                }
                return Ok(is_within);
            }
        }
        if !budget.turns.ask(&budget.id, self.number, askers).await {
            return Err(budget.refuse("the process that serves now has no turn"));
        }
        self.is_sent = true;
        Ok(true)
    }

    /// What tells when it is to be given up.
    pub(super) fn given_up(&self) -> GivenUp {
        self.given_up.clone()
    }

    /// Why it was given up.
    pub(super) fn error(&self) -> FetchError {
        self.budget.ended.fetch_add(1, Ordering::Relaxed);
        let detail = format_args!("more of {} is in flight than is allowed, for too long", self.budget.id);
        FetchError::new(FetchErrorKind::BudgetShort, Sent::Answer, detail)
    }

    /// For another one in the place of this.
    pub(super) fn budget(&self) -> Arc<Budget> {
        self.budget.clone()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = self.budget.clock.monotonic_ms();
        let (is_told, has_others) = {
            let mut inner = self.budget.inner.lock();
            let was_sent = inner.running.remove(&self.number).is_some_and(|running| running.is_sent);
            if !inner.is_handed_over {
                if !self.is_sent {
                    inner.gate.not_sent();
                }
                inner.gate.end(now);
            }
            (inner.is_handed_over && was_sent, !inner.waiting.is_empty())
        };
        if is_told {
            self.budget.turns.over(&self.budget.id, self.number);
        }
        if has_others {
            self.budget.pump();
        }
    }
}

/// Looks at the time while somebody waits: nobody else does where the gate says "not before".
async fn watch(watch: Watch) {
    loop {
        let wait = {
            let now = watch.0.clock.monotonic_ms();
            let mut inner = watch.0.inner.lock();
            inner.waiting.retain(|waiter| !waiter.turn.is_closed());
            if inner.waiting.is_empty() {
                inner.is_watched = false;
                return;
            }
            inner.refresh(now);
            inner.wait(now)
        };
        sleep(wait).await;
        watch.0.pump();
    }
}

/// Whoever waits next finds that nobody looks any more, also when the worker has ended in the middle.
struct Watch(Arc<Budget>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.inner.lock().is_watched = false;
    }
}
