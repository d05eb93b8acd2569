//! The thread that looks after a set of domains. Once a second it looks whether the store has changed, hands out what is in
//! it, and begins the orders that are due. A domain that fails costs the others nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use semantics::Wall;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::challenge::Challenge;
use crate::order::{ORDER_TIMEOUT, Ordering, suggested};
use crate::plan::{self, Failures, Validity, Window};
use crate::store::{Asked, Store, Stored};
use crate::{Event, Node, Settings};

/// How often the store is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After so many looks everything is read again, also where a file system shows no change.
const LOOKS_UNTIL_READ: u32 = 60;
/// Orders under way at a time. A new edge with many domains shall not be taken for an attack by its authority.
const ORDERS_MAX: usize = 4;
/// How long a domain is left alone after an order, also one that another edge holds or whose files cannot be written.
const TURN_INTERVAL: Duration = Duration::from_secs(5);

/// A service that runs. Dropping it does not stop it; [`Service::stop`] does.
pub struct Service {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How it stands with one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Which one.
    pub domain: Box<str>,
    /// The dates of the certificate that is served, if there is one.
    pub validity: Option<Validity>,
    /// Who issued it.
    pub issuer: Option<String>,
    /// When the next order is due; in the past, or at the beginning of time, while there is none.
    pub due: Wall,
    /// What failed since the last success.
    pub failures: Option<Failures>,
}

struct Shared {
    /// What is asked for.
    domains: Mutex<Vec<Box<str>>>,
    /// How it stood at the last look.
    states: Mutex<Vec<State>>,
    woken: Notify,
    stopping: std::sync::atomic::AtomicBool,
}

impl Service {
    /// Begins to look after `domains`: lower-case host names. Returns at once; what is in the store is handed to `node`
    /// from the new thread.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(
        settings: Settings,
        store: Store,
        domains: Vec<Box<str>>,
        node: Arc<dyn Node>,
    ) -> std::io::Result<Service> {
        let shared = Arc::new(Shared {
            domains: Mutex::new(domains),
            states: Mutex::default(),
            woken: Notify::new(),
            stopping: false.into(),
        });
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let task_shared = shared.clone();
        let thread = std::thread::Builder::new().name("acme".into()).spawn(move || {
            let work =
                Rc::new(Work { shared: task_shared, settings, store, node, known: RefCell::default() });
            // Dropping the set ends the orders that are under way; their locks are given back.
            LocalSet::new().block_on(&runtime, work.run());
        })?;
        Ok(Service { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Looks after these domains from now on.
    pub fn replace_domains(&self, domains: Vec<Box<str>>) {
        *self.shared.domains.lock() = domains;
        self.shared.woken.notify_one();
    }

    /// How it stands, in the order of the domains.
    pub fn states(&self) -> Vec<State> {
        self.shared.states.lock().clone()
    }

    /// Ends it, with the orders that are under way. What the node was given stays with it.
    pub fn stop(&self) {
        self.shared.stopping.store(true, std::sync::atomic::Ordering::SeqCst);
        self.shared.woken.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    settings: Settings,
    store: Store,
    node: Arc<dyn Node>,
    known: RefCell<Known>,
}

/// What the service has found so far.
#[derive(Default)]
struct Known {
    /// What is served.
    certificates: BTreeMap<Box<str>, Stored>,
    failures: HashMap<Box<str>, Failures>,
    /// When the authority wants a renewal, of which certificate, and until when that is believed.
    windows: HashMap<Box<str>, Suggestion>,
    /// What is answered.
    asked: Vec<Asked>,
    under_way: HashSet<Box<str>>,
    /// Until when a domain is left alone.
    resting: HashMap<Box<str>, Instant>,
    /// As the store was when it was last read.
    read: Option<Look>,
    looks: u32,
    /// Troubles that have been told.
    told: HashSet<String>,
}

/// When the directories of the store had last changed, and which domains were asked for.
type Look = ([Option<SystemTime>; 3], Vec<Box<str>>);

struct Suggestion {
    window: Option<Window>,
    not_after: Wall,
    until: Wall,
}

impl Work {
    async fn run(self: Rc<Self>) {
        if let Err(error) = self.store.create() {
            self.trouble(format!("the store of certificates cannot be made: {error}"));
        }
        while !self.shared.stopping.load(std::sync::atomic::Ordering::SeqCst) {
            self.look();
            self.begin_orders();
            self.ask_for_suggestions();
            // Being woken loses nothing: whatever is waited for is looked at again.
            let _ = tokio::time::timeout(LOOK_INTERVAL, self.shared.woken.notified()).await;
        }
    }

    /// Reads what has changed in the store, and hands it out.
    fn look(&self) {
        let now = self.node.now();
        let domains = self.shared.domains.lock().clone();
        let state = (self.store.changed(), domains);
        let mut known = self.known.borrow_mut();
        known.looks += 1;
        let is_same = known.read.as_ref() == Some(&state) && known.looks < LOOKS_UNTIL_READ;
        if !is_same {
            known.looks = 0;
            let (certificates, troubles) = self.read_certificates(&state.1, &known.certificates);
            let has_changed = !is_alike(&known.certificates, &certificates);
            known.certificates = certificates;
            known.failures = (state.1.iter())
                .filter_map(|domain| Some((domain.clone(), self.store.failures(domain)?)))
                .collect();
            // While a file was being written the directory may have changed a moment before.
            known.read = Some(state);
            if has_changed {
                self.node.serve(known.certificates.values().cloned().collect());
            }
            drop(known);
            troubles.into_iter().for_each(|trouble| self.trouble(trouble));
        } else {
            drop(known);
        }
        self.answer(now);
        let states = self.states_now();
        *self.shared.states.lock() = states;
    }

    /// What is in the store, and what `known` has where it gives nothing: a file system may be away for a while, and what
    /// was good a moment ago is good still.
    fn read_certificates(
        &self,
        domains: &[Box<str>],
        known: &BTreeMap<Box<str>, Stored>,
    ) -> (BTreeMap<Box<str>, Stored>, Vec<String>) {
        let mut troubles = Vec::new();
        let found = domains.iter().filter_map(|domain| {
            let stored = self.store.certificate(domain).unwrap_or_else(|trouble| {
                troubles.push(trouble.to_string());
                None
            });
            Some((domain.clone(), stored.or_else(|| known.get(domain).cloned())?))
        });
        let found = found.collect();
        (found, troubles)
    }

    /// Hands out what the authority may ask for.
    fn answer(&self, now: Wall) {
        let asked = match self.store.challenges(now) {
            Ok(asked) => asked,
            Err(error) => return self.trouble(format!("the store of certificates cannot be read: {error}")),
        };
        if self.known.borrow().asked == asked {
            return;
        }
        let challenges: Result<Vec<_>, _> = asked.iter().map(Challenge::of).collect();
        match challenges {
            Ok(challenges) => {
                self.node.answer(challenges);
                self.known.borrow_mut().asked = asked;
            }
            Err(error) => self.trouble(format!("a challenge cannot be answered: {error}")),
        }
    }

    fn states_now(&self) -> Vec<State> {
        let known = self.known.borrow();
        let domains = self.shared.domains.lock().clone();
        let states = domains.into_iter().map(|domain| {
            let stored = known.certificates.get(&domain);
            let validity = stored.map(|stored| stored.validity);
            let window = stored.and_then(|stored| known.suggestion(stored)?.window);
            let failures = known.failures.get(&domain).cloned();
            State {
                due: plan::due(&domain, validity.as_ref(), window, failures.as_ref()),
                validity,
                issuer: stored.map(|stored| stored.issuer.clone()),
                failures,
                domain,
            }
        });
        states.collect()
    }

    /// Begins what is due, up to [`ORDERS_MAX`] at a time. What has no certificate, or the one that ends first, goes first.
    fn begin_orders(self: &Rc<Self>) {
        let now = self.node.now();
        let mut due = self.shared.states.lock().clone();
        self.known.borrow_mut().resting.retain(|_, until| *until > Instant::now());
        due.retain(|state| {
            let known = self.known.borrow();
            let is_busy =
                known.under_way.contains(&state.domain) || known.resting.contains_key(&state.domain);
            state.due <= now && !is_busy
        });
        due.sort_by_key(|state| state.validity.map_or(i64::MIN, |validity| validity.not_after.0));
        let room = ORDERS_MAX.saturating_sub(self.known.borrow().under_way.len());
        for state in due.into_iter().take(room) {
            self.known.borrow_mut().under_way.insert(state.domain.clone());
            let work = self.clone();
            tokio::task::spawn_local(async move {
                work.order(&state.domain).await;
                let mut known = work.known.borrow_mut();
                known.under_way.remove(&state.domain);
                // Whatever came of it, and could not be written down perhaps: others have their turn.
                known.resting.insert(state.domain, Instant::now() + TURN_INTERVAL);
                work.shared.woken.notify_one();
            });
        }
    }

    /// Orders for one domain, unless another edge does or has done so.
    async fn order(&self, domain: &str) {
        let now = self.node.now();
        let lock = match self.store.lock(domain, now) {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                return self
                    .trouble(format!("{domain}: the store of certificates cannot be written: {error}"));
            }
        };
        let current = match self.store.certificate(domain) {
            Ok(current) => current,
            Err(damaged) if damaged.kind() == ErrorKind::InvalidData => None,
            // It may be good, and others may be able to read it.
            Err(error) => return self.trouble(error.to_string()),
        };
        let failures = self.store.failures(domain);
        let window = current.as_ref().and_then(|stored| self.known.borrow().suggestion(stored)?.window);
        let validity = current.as_ref().map(|stored| stored.validity);
        if plan::due(domain, validity.as_ref(), window, failures.as_ref()) > now {
            return;
        }
        let count = failures.as_ref().map_or(0, |failures| failures.count) as usize;
        let kinds = &self.settings.challenges;
        let Some(kind) = kinds.get(count % kinds.len().max(1)).copied() else { return };
        let ordering = Ordering {
            settings: &self.settings,
            store: &self.store,
            domain,
            kind,
            now,
            replaces: current.as_ref(),
        };
        let answer = || async {
            self.answer(self.node.now());
            tokio::time::sleep(self.settings.settle).await;
        };
        let ordered = match tokio::time::timeout(ORDER_TIMEOUT, ordering.run(answer)).await {
            Ok(ordered) => ordered,
            Err(_) => Err(format!("it was not done after {} s", ORDER_TIMEOUT.as_secs())),
        };
        match ordered {
            Ok(stored) => {
                self.store.forget_failures(domain);
                let renewal = plan::renewal(domain, &stored.validity, None);
                let not_after = stored.validity.not_after;
                self.node.tell(Event::Issued { domain: domain.into(), not_after, renewal });
            }
            Err(reason) => {
                let failed = plan::failed(domain, failures.as_ref(), reason, self.node.now());
                if let Err(error) = self.store.put_failures(domain, &failed) {
                    self.trouble(format!("the store of certificates cannot be written: {error}"));
                }
                self.known.borrow_mut().failures.insert(domain.into(), failed.clone());
                let Failures { count, reason, next_ms } = failed;
                self.node.tell(Event::Failed { domain: domain.into(), reason, count, next: Wall(next_ms) });
            }
        }
        drop(lock);
        self.known.borrow_mut().read = None;
    }

    /// Asks the authority, of one certificate at a time, when it wants it renewed.
    fn ask_for_suggestions(self: &Rc<Self>) {
        let now = self.node.now();
        let mut known = self.known.borrow_mut();
        let until = |stored: &Stored| known.suggestion(stored).map_or(Wall(i64::MIN), |it| it.until);
        let first = known.certificates.values().min_by_key(|stored| until(stored));
        let Some(stored) = first.filter(|stored| until(stored) <= now).cloned() else { return };
        let not_after = stored.validity.not_after;
        let suggestion = move |window, until| Suggestion { window, not_after, until };
        // Until the answer is there, and where there is none, what was suggested stays.
        let window = known.suggestion(&stored).and_then(|before| before.window);
        let unanswered = suggestion(window, plan::next_question(now, Duration::MAX));
        known.windows.insert(stored.domain.clone(), unanswered);
        let work = self.clone();
        tokio::task::spawn_local(async move {
            if let Some((window, retry)) = suggested(&work.settings, &work.store, &stored).await {
                let answered = suggestion(Some(window), plan::next_question(now, retry));
                work.known.borrow_mut().windows.insert(stored.domain, answered);
            }
        });
    }

    /// Tells of a trouble once.
    fn trouble(&self, what: String) {
        if self.known.borrow_mut().told.insert(what.clone()) {
            self.node.tell(Event::Trouble(what));
        }
    }
}

impl Known {
    /// What the authority has said of this very certificate.
    fn suggestion(&self, stored: &Stored) -> Option<&Suggestion> {
        self.windows.get(&stored.domain).filter(|it| it.not_after == stored.validity.not_after)
    }
}

fn is_alike(one: &BTreeMap<Box<str>, Stored>, other: &BTreeMap<Box<str>, Stored>) -> bool {
    one.len() == other.len() && one.values().zip(other.values()).all(|(one, other)| one.pem == other.pem)
}

#[cfg(test)]
mod tests;
