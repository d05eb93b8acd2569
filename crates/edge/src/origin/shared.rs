//! What all workers know about the origins: health, breaker, retry budget, TLS settings, counters. One
//! [`OriginState`] per origin and policies; it lives as long as a configuration names it. Clocks come in through
//! [`Clock`], decisions from `model`'s state machines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::breaker::{self, Breaker, BreakerPolicy, Verdict};
use model::budget::BudgetPolicy;
use model::budget::lease::{Ask, Grant};
use model::health::{self, Health, HealthPolicy};
use model::origin::Probe;
use model::retry::{RetryBudget, RetryPolicy};
use model::{Origin, OriginGroup, Scheme};
use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use semantics::Wall;
use tokio::sync::Notify;

use super::budget::{Budget, BudgetStatus};
use super::connect::Endpoint;
use super::error::{FetchError, FetchErrorKind, Sent};
use super::tls::{Trust, client_config};
use super::turns::Turns;
use crate::clock::Clock;
use crate::tiers::Certified;

/// How often budgets are looked after.
const BUDGET_TICK: Duration = Duration::from_millis(250);

/// The origins' state, shared by all workers.
pub(crate) struct OriginsShared {
    clock: Clock,
    /// What is shown to other edges.
    certified: Arc<Certified>,
    sources: Arc<[IpAddr]>,
    states: RwLock<HashMap<Arc<Origin>, Vec<Arc<OriginState>>>>,
    /// Those of configurations that are not in force any more, as long as a request goes by one: see [`Named`].
    retired: RwLock<Vec<Weak<OriginState>>>,
    next_id: AtomicU64,
    /// By what nodes and controls name them.
    budgets: RwLock<HashMap<String, Arc<Budget>>>,
    /// Whether control grants what may be used of budgets; else all of it is this edge's own.
    are_leased: bool,
    /// What of budgets is this process's, before and after another one.
    pub(super) turns: Arc<Turns>,
    /// Tells the prober that the set has changed.
    pub(super) changed: Notify,
}

impl OriginsShared {
    /// No origins yet; `clock` is the edge's, `sources` are the addresses from which it connects to origins, `are_leased` is
    /// whether control grants what may be used of budgets.
    pub(crate) fn new(clock: Clock, certified: Arc<Certified>, sources: &[IpAddr], are_leased: bool) -> Self {
        OriginsShared {
            clock,
            certified,
            sources: sources.into(),
            states: RwLock::default(),
            retired: RwLock::default(),
            next_id: AtomicU64::new(0),
            budgets: RwLock::default(),
            are_leased,
            turns: Arc::default(),
            changed: Notify::new(),
        }
    }

    /// Takes note of the origins of a new configuration and forgets those that are no longer in it. What is known
    /// about the others stays. Reads CA files and the system's roots: call it off the workers.
    ///
    /// Returns one message per origin whose TLS settings cannot be used (an unreadable CA file, a bad server name);
    /// fetches from it fail with [`FetchErrorKind::Tls`].
    pub(crate) fn configure<'a>(&self, groups: impl IntoIterator<Item = &'a OriginGroup>) -> Vec<String> {
        let mut named = Vec::new();
        for group in groups {
            let states: Vec<_> = group
                .origins
                .iter()
                .map(|origin| self.known(origin, group).unwrap_or_else(|| self.made(origin, group)))
                .collect();
            if let Some(policy) = &group.budget {
                states
                    .iter()
                    .filter_map(|state| state.quota.as_ref())
                    .for_each(|quota| quota.configure(policy));
            }
            named.extend(states);
        }
        let quotas = || named.iter().filter_map(|state| state.quota.as_ref());
        self.budgets.write().retain(|_, budget| quotas().any(|named| Arc::ptr_eq(named, budget)));
        let mut gone = Vec::new();
        // Held meanwhile: who finds a state here no more finds it there.
        let mut retired = self.retired.write();
        retired.retain(|state| state.strong_count() > 0);
        self.states.write().retain(|_, states| {
            states.retain(|state| {
                let keep = named.iter().any(|named| named.id == state.id);
                if !keep {
                    gone.push(state.clone());
                }
                keep
            });
            !states.is_empty()
        });
        for state in gone {
            state.retired.store(true, Ordering::Relaxed);
            retired.push(Arc::downgrade(&state));
        }
        drop(retired);
        self.changed.notify_waiters();
        let trouble = named.iter().filter_map(|state| state.tls.as_ref().err());
        let mut trouble: Vec<String> = trouble.cloned().collect();
        trouble.dedup();
        trouble
    }

    /// The states of a configuration's origins, for it to hold.
    pub(crate) fn named<'a>(&self, groups: impl IntoIterator<Item = &'a OriginGroup>) -> Named {
        Named { _states: groups.into_iter().flat_map(|group| self.group(group)).collect() }
    }

    /// What is known about each origin, for metrics and for people; in no order.
    pub(crate) fn report(&self) -> Vec<OriginStatus> {
        let now = self.now();
        self.all().iter().map(|state| state.report(now)).collect()
    }

    /// The budgets, for metrics and for people; by site and origin.
    pub(crate) fn budgets(&self) -> Vec<BudgetStatus> {
        let mut reports: Vec<BudgetStatus> =
            self.all_budgets().iter().map(|budget| budget.report()).collect();
        reports.sort_by(|one, other| (&one.site, &one.origin).cmp(&(&other.site, &other.origin)));
        reports
    }

    /// What each budget asks of control now; nothing outside of a cluster.
    pub(crate) fn ask_for_leases(&self) -> Vec<(String, Ask)> {
        let budgets = self.all_budgets();
        budgets.iter().filter_map(|budget| Some((budget.id().to_owned(), budget.ask()?))).collect()
    }

    /// What control grants to the budget of that name.
    pub(crate) fn grant(&self, id: &str, grant: Grant) {
        if let Some(budget) = self.budget_named(id) {
            budget.grant(grant);
        }
    }

    /// Looks after what time changes in the budgets; never ends. One task in the process runs it.
    pub(crate) async fn watch_budgets(self: Arc<Self>) {
        loop {
            tokio::time::sleep(BUDGET_TICK).await;
            self.all_budgets().iter().for_each(|budget| budget.tick());
        }
    }

    /// The budget of that name, if the configuration has it.
    pub(super) fn budget_named(&self, id: &str) -> Option<Arc<Budget>> {
        self.budgets.read().get(id).cloned()
    }

    pub(super) fn all_budgets(&self) -> Vec<Arc<Budget>> {
        self.budgets.read().values().cloned().collect()
    }

    /// The one budget of an origin, which all groups of its site share.
    fn budget(&self, policy: &BudgetPolicy, origin: &Origin) -> Arc<Budget> {
        let name: Arc<str> = origin.url().into();
        let id = policy.id(&name);
        let mut budgets = self.budgets.write();
        let budget = budgets.entry(id).or_insert_with(|| {
            let chance = self.are_leased.then(|| crate::storage::chance() as u64);
            Arc::new(Budget::new(policy, &name, &self.clock, chance, &self.turns))
        });
        budget.clone()
    }

    /// The states of a group's origins, in the group's order.
    pub(super) fn group(&self, group: &OriginGroup) -> Vec<Arc<OriginState>> {
        let state = |origin| {
            let known = self.known(origin, group).or_else(|| self.retired(origin, group));
            known.unwrap_or_else(|| self.made(origin, group))
        };
        group.origins.iter().map(state).collect()
    }

    /// All states.
    pub(super) fn all(&self) -> Vec<Arc<OriginState>> {
        self.states.read().values().flatten().cloned().collect()
    }

    /// Monotonic milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    pub(super) fn wall(&self) -> Wall {
        self.clock.wall()
    }

    fn known(&self, origin: &Arc<Origin>, group: &OriginGroup) -> Option<Arc<OriginState>> {
        find(self.states.read().get(origin), group)
    }

    fn retired(&self, origin: &Arc<Origin>, group: &OriginGroup) -> Option<Arc<OriginState>> {
        let is_it = |state: &Arc<OriginState>| state.settings == *origin && state.policies.are_of(group);
        self.retired.read().iter().filter_map(Weak::upgrade).find(is_it)
    }

    fn made(&self, origin: &Arc<Origin>, group: &OriginGroup) -> Arc<OriginState> {
        // Reads files, so it is made outside the lock; another worker's may win.
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let quota = group.budget.as_ref().map(|policy| self.budget(policy, origin));
        let made = OriginState::new(id, origin, group, &self.certified, self.sources.clone(), quota);
        let made = Arc::new(made);
        let mut states = self.states.write();
        let of_origin = states.entry(origin.clone()).or_default();
        find(Some(of_origin), group).unwrap_or_else(|| {
            of_origin.push(made.clone());
            made
        })
    }
}

/// What a configuration holds of its origins' states: requests that it began go on by them when another is in force, and need none
/// made anew.
pub(crate) struct Named {
    _states: Vec<Arc<OriginState>>,
}

fn find(states: Option<&Vec<Arc<OriginState>>>, group: &OriginGroup) -> Option<Arc<OriginState>> {
    states?.iter().find(|state| state.policies.are_of(group)).cloned()
}

/// One origin as all workers know it.
pub(super) struct OriginState {
    /// Unique in the process; pools are kept by it.
    pub(super) id: u64,
    /// The origin's URL, for logs and reports.
    pub(super) name: Arc<str>,
    pub(super) settings: Arc<Origin>,
    pub(super) probe: Option<Probe>,
    /// What it may be asked; `None` is without limit.
    pub(super) quota: Option<Arc<Budget>>,
    pub(super) counters: Counters,
    /// Connections that are open, idle ones included.
    pub(super) open: Gauge,
    /// Connections that are idle.
    pub(super) idle: Gauge,
    sources: Arc<[IpAddr]>,
    policies: Policies,
    tls: Result<OriginTls, String>,
    condition: Mutex<Condition>,
    budget: Mutex<RetryBudget>,
    retired: AtomicBool,
}

#[derive(PartialEq)]
struct Policies {
    breaker: BreakerPolicy,
    health: HealthPolicy,
    retry: RetryPolicy,
    probe: Option<Probe>,
    /// Whose budget it draws on; the budget's numbers are its own affair.
    budget_of: Option<Box<str>>,
}

impl Policies {
    fn of(group: &OriginGroup) -> Self {
        Policies {
            breaker: group.breaker,
            health: group.health,
            retry: group.retry,
            probe: group.probe.clone(),
            budget_of: group.budget.as_ref().map(|budget| budget.site.clone()),
        }
    }

    fn are_of(&self, group: &OriginGroup) -> bool {
        self.breaker == group.breaker
            && self.health == group.health
            && self.retry == group.retry
            && self.probe == group.probe
            && self.budget_of.as_ref() == group.budget.as_ref().map(|budget| &budget.site)
    }
}

/// How a connection is secured.
enum OriginTls {
    /// Not at all.
    Plain,
    /// By the origin's certificate.
    Verified(Tls),
    /// By certificates on both sides, ours the newest: it is another edge.
    Edge { certified: Arc<Certified>, node: Box<str>, name: ServerName<'static> },
}

struct Tls {
    name: ServerName<'static>,
    /// Offers what the origin's settings say.
    config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone, for connections that are to be upgraded.
    http1: Arc<ClientConfig>,
}

struct Condition {
    health: Health,
    breaker: Breaker,
}

impl OriginState {
    fn new(
        id: u64,
        origin: &Arc<Origin>,
        group: &OriginGroup,
        certified: &Arc<Certified>,
        sources: Arc<[IpAddr]>,
        quota: Option<Arc<Budget>>,
    ) -> Self {
        OriginState {
            id,
            // Other edges are in the edges' own network, where that address may mean nothing.
            sources: if origin.tls.node.is_some() { Arc::default() } else { sources },
            name: origin.url().into(),
            settings: origin.clone(),
            probe: group.probe.clone(),
            quota,
            counters: Counters::default(),
            open: Gauge::default(),
            idle: Gauge::default(),
            policies: Policies::of(group),
            tls: tls_of(origin, certified),
            condition: Mutex::new(Condition {
                health: Health::new(group.health),
                breaker: Breaker::new(group.breaker),
            }),
            budget: Mutex::new(RetryBudget::new(group.retry)),
            retired: AtomicBool::new(false),
        }
    }

    /// Whether no configuration names it any more.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// How to connect; `http2` whether HTTP/2 may be offered.
    pub(super) fn endpoint(&self, http2: bool) -> Result<Endpoint<'_>, FetchError> {
        let unusable = |trouble: &str| FetchError::new(FetchErrorKind::Tls, Sent::Nothing, trouble);
        let tls = match &self.tls {
            Ok(OriginTls::Plain) => None,
            Ok(OriginTls::Verified(tls)) => {
                let config = if http2 { &tls.config } else { &tls.http1 };
                Some((config.clone(), tls.name.clone()))
            }
            Ok(OriginTls::Edge { certified, node, name }) => {
                let config = certified.client(node).map_err(|trouble| unusable(&trouble))?;
                Some((config, name.clone()))
            }
            Err(trouble) => return Err(unusable(trouble)),
        };
        Ok(Endpoint { host: &self.settings.host, port: self.settings.port, sources: &self.sources, tls })
    }

    /// Asks the breaker for leave to make an attempt.
    pub(super) fn admit(&self, now: u64) -> Option<breaker::Permit> {
        match self.condition.lock().breaker.allow(now) {
            Verdict::Allow(permit) | Verdict::Probe(permit) => Some(permit),
            Verdict::Refuse { .. } => None,
        }
    }

    /// Counts a first attempt of the budget that this origin's group draws on.
    pub(super) fn budget_request(&self, now: u64) {
        self.budget.lock().request(now);
    }

    /// Takes a retry out of that budget.
    pub(super) fn budget_take(&self, now: u64) -> bool {
        self.budget.lock().take(now)
    }

    /// Takes the end of a probe.
    pub(super) fn probed(&self, succeeded: bool, now: u64) {
        let event = if succeeded { health::Event::ProbeSucceeded } else { health::Event::ProbeFailed };
        if succeeded {
            self.counters.probes.add()
        } else {
            self.counters.probe_failures.add()
        }
        self.condition.lock().health.step(event, now);
    }

    pub(super) fn step(&self, succeeded: bool, permit: breaker::Permit, now: u64) {
        let (breaker_event, health_event) = match succeeded {
            true => (breaker::Event::Succeeded, health::Event::RequestSucceeded),
            false => (breaker::Event::Failed, health::Event::RequestFailed),
        };
        let mut condition = self.condition.lock();
        let turned = condition.breaker.step(breaker_event, permit, now);
        condition.health.step(health_event, now);
        drop(condition);
        if turned == Some(breaker::State::Open) {
            self.counters.breaker_openings.add();
        }
    }

    fn report(&self, now: u64) -> OriginStatus {
        let condition = self.condition.lock();
        let (health, breaker) = (condition.health.state(now), condition.breaker.state());
        drop(condition);
        let open = self.open.read();
        OriginStatus {
            name: self.name.clone(),
            health,
            breaker,
            open,
            // A kept connection that the origin has closed waits for the sweep.
            idle: self.idle.read().min(open),
            counts: self.counters.read(),
        }
    }
}

/// The order in which to try a group's origins now: those that are up, or all when none is.
pub(super) fn order(states: &[Arc<OriginState>], now: u64) -> Vec<usize> {
    if states.len() == 1 {
        return vec![0];
    }
    let health: Vec<Health> = states.iter().map(|state| state.condition.lock().health.clone()).collect();
    health::choose(&(0..states.len()).collect::<Vec<_>>(), &health, now).origins
}

fn tls_of(origin: &Origin, certified: &Arc<Certified>) -> Result<OriginTls, String> {
    if origin.scheme == Scheme::Http {
        return Ok(OriginTls::Plain);
    }
    let name = origin.tls.server_name.as_deref().unwrap_or(&origin.host);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{}: {name:?} is no name that a certificate can have", origin.url()))?;
    if let Some(node) = &origin.tls.node {
        return Ok(OriginTls::Edge { certified: certified.clone(), node: node.clone(), name });
    }
    let mut trust = Trust {
        ca_file: origin.tls.ca.as_deref().map(std::path::Path::new),
        verify: origin.tls.verify,
        http2: origin.http2,
    };
    let describe = |trouble| format!("{}: {trouble}", origin.url());
    let config = Arc::new(client_config(&trust).map_err(describe)?);
    let http1 = if origin.http2 {
        trust.http2 = false;
        Arc::new(client_config(&trust).map_err(describe)?)
    } else {
        config.clone()
    };
    Ok(OriginTls::Verified(Tls { name, config, http1 }))
}

// --- Counters ---

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident;)*) => {
        #[derive(Default)]
        pub(super) struct Counters { $(pub(super) $name: Counter,)* }

        /// An origin's counters since it was first configured.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[doc = $doc])+ pub $name: u64,)* }

        impl Counters {
            fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Attempts to get an answer, retries included.
    attempts;
    /// Attempts that ended without a complete head or body.
    failures;
    /// Connections opened.
    connections;
    /// Attempts that went over a kept connection.
    reused;
    /// Kept connections that turned out to be closed, so that the request was sent again on a new one.
    stale;
    /// Requests that came here because another origin of the group had failed them.
    fail_overs;
    /// Further attempts that the retry budget did not grant.
    budget_refusals;
    /// Attempts that the breaker refused.
    breaker_refusals;
    /// Times that the breaker opened.
    breaker_openings;
    /// Requests that had to wait for a connection.
    queued;
    /// Requests that were refused because too many waited.
    queue_full;
    /// Probes that got the expected answer.
    probes;
    /// Probes that did not.
    probe_failures;
}

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A number of things that exist now.
#[derive(Clone, Default)]
pub(super) struct Gauge(Arc<AtomicU64>);

/// One of the things that a [`Gauge`] counts, until it is dropped.
pub(super) struct Counted(Gauge);

impl Gauge {
    pub(super) fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One origin, for metrics and for people.
#[derive(Clone, Debug)]
pub struct OriginStatus {
    /// The origin's URL.
    pub name: Arc<str>,
    /// What probes and requests say about it.
    pub health: health::State,
    /// Whether it is asked at all.
    pub breaker: breaker::State,
    /// Connections open now, idle ones included.
    pub open: u64,
    /// Connections idle now; a shared HTTP/2 connection never counts as idle.
    pub idle: u64,
    /// Its counters.
    pub counts: Counts,
}
