//! Where feeds are served from, in controls and relays: the newest records in memory, and what nodes have reported.
//!
//! ```text
//!  source (journal, or the feed above) ─► held records ─► session per node ─► its cursor
//!                                          nodes by name ◄─ reports ◄──────────┘
//!                                              └─► Forward ─► other controls, or the control above a relay
//! ```
//!
//! Here is who is known and what comes from the source; [`held`] is what is held, [`session`] one feed, [`forward`] the way up.

mod forward;
mod held;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;
use model::budget::lease::Grant;
use model::change::{Change, Plan, Written};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{sleep, timeout};

use super::dial::{Dialer, Node};
use super::lines::{LinesBody, lines_body};
use super::outbox::{Confirm, Outbox, Patience};
use super::{BUDGETS_MAX, Leased, Line, PLAN_CELL, Report, SILENCE, Statistics, Steered, Wanted, now_ms};
use crate::{Error, Journal, Mark, Page, Record, Work};
use trust::{Peer, Role};

use forward::{Forward, PassOn};
use held::Held;

/// Records in one line, at most.
const LINE_RECORDS_MAX: usize = 512;

/// Receipts that are remembered of each node: of older positions, a later receipt is the proof.
const RECEIPTS_MAX: usize = 1_024;

/// Reports for routers that wait to be passed on; a router that does not read them misses the oldest.
const STEERED_MAX: usize = 1_024;

/// How often it is asked whether the newest record is still the journal's, and whether there is nothing newer.
const CONFIRM_EVERY: Duration = Duration::from_secs(2);

/// Bytes of a name or a signature in a report, and of the reason for a refusal.
const WORD_BYTES_MAX: usize = 256;
const WHY_BYTES_MAX: usize = 8 << 10;

/// Where a hub reads what it doesn't hold.
pub trait Source: Send + Sync + 'static {
    /// As [`Journal::read`].
    fn read(&self, after: u64, limit: usize) -> Work<'_, Page>;
}

impl Source for Arc<dyn Journal> {
    fn read(&self, after: u64, limit: usize) -> Work<'_, Page> {
        Journal::read(&**self, after, limit)
    }
}

/// A page as it travels to a relay: the answer to `GET /v1/journal?after=N`.
#[derive(Debug, Serialize, Deserialize)]
pub struct PageText {
    records: Vec<Line>,
    has_more: bool,
    floor: Mark,
}

impl Source for Arc<Dialer> {
    fn read(&self, after: u64, limit: usize) -> Work<'_, Page> {
        let dialer = self.clone();
        Box::pin(async move {
            let path = format!("/v1/journal?after={after}&limit={limit}");
            let asked = dialer.ask(http::Method::GET, &path, None, 2 * super::LINE_BYTES_MAX).await;
            let (status, body) = asked.map_err(Error::Unavailable)?;
            let wrong = |error: serde_json::Error| Error::Unavailable(format!("{path}: {error}"));
            match status.as_u16() {
                200 => {
                    let text: PageText = serde_json::from_slice(&body).map_err(wrong)?;
                    let records = text.records.into_iter().map(Line::into_record).collect();
                    Ok(Page { records, has_more: text.has_more, floor: text.floor })
                }
                410 => Err(Error::Trimmed(serde_json::from_slice(&body).map_err(wrong)?)),
                _ => Err(Error::Unavailable(format!("{path}: answered {status}"))),
            }
        })
    }
}

/// Decides whether a report may be believed: that the node is one of the cluster's, and its receipt signed by its key.
/// `peer` is whoever has said it, a relay or another control perhaps.
pub type Check = Box<dyn Fn(&Peer, &Report) -> Result<(), String> + Send + Sync>;

/// Decides whether a feed may go on: that the node has not been retired since it began.
pub type Admit = Box<dyn Fn(&Peer) -> Result<(), String> + Send + Sync>;

/// Takes statistics: writes them down, or passes them on.
pub trait Counting: Send + Sync + 'static {
    /// Takes some, and says by `confirm` when they are written down, which may be at once. `peer` is whoever has said them, a
    /// relay or another control perhaps. Never waits: what there is no room for is dropped, and said again some time.
    ///
    /// # Errors
    /// `peer` may not speak for that node, or what it says is of no use: why. It is not said again.
    fn count(&self, peer: &Peer, line: Arc<Statistics>, confirm: Confirm) -> Result<(), String>;
}

/// Statistics on their way to other controls: to those that there are, and for those that will be seen in a moment.
struct SharedStatistics {
    with: Vec<Weak<Outbox>>,
    recent: Outbox,
}

/// See the module's text.
pub struct Hub {
    name: String,
    source: Box<dyn Source>,
    check: Check,
    admit: OnceLock<Admit>,
    inner: Mutex<Inner>,
    /// The head's position, and how often the hub has begun anew.
    head: watch::Sender<(u64, u64)>,
    /// Counts reports.
    news: watch::Sender<u64>,
    /// What nodes report for routers.
    steered: broadcast::Sender<Steered>,
    /// Changes when something has been granted.
    leases: watch::Sender<()>,
    counting: OnceLock<Arc<dyn Counting>>,
    /// What is shared with other controls.
    shared: Mutex<SharedStatistics>,
    /// Another control has said something here for the first time.
    newcomer: Notify,
}

struct Inner {
    /// `None` in a relay that has not heard from above yet.
    journal: Option<String>,
    begun_anew: u64,
    plan: Plan,
    held: Held,
    nodes: BTreeMap<String, Known>,
    /// Other controls that say what their nodes report, and when they have said anything last.
    reporters: BTreeMap<String, Instant>,
    reports: u64,
    /// What has been granted and not told yet, by node and budget.
    leases: BTreeMap<String, BTreeMap<String, Grant>>,
    /// When it was last known that there is nothing newer than the head.
    confirmed: Option<Instant>,
}

/// What is known of a node.
struct Known {
    report: Report,
    heard: Instant,
    heard_ms: i64,
    is_from_below: bool,
    /// The peer that has said it: the node itself, a relay, another control.
    by: String,
    number: u64,
    receipts: VecDeque<super::Receipt>,
}

/// A node as the hub sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it has said last.
    pub report: Report,
    /// How long ago.
    pub silent_for: Duration,
    /// When, in ms since 1970 by this machine's clock.
    pub heard_ms: i64,
}

impl Hub {
    /// The hub of a control. Reads the journal from its floor, then follows it. `plan` is the plan in force when the journal
    /// holds no record of one any more.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn of_journal(
        name: &str,
        journal: Arc<dyn Journal>,
        plan: Plan,
        check: Check,
    ) -> Result<Arc<Hub>, Error> {
        let first = journal.read(0, 1).await;
        let floor = match first {
            Ok(page) => page.floor,
            Err(Error::Trimmed(floor)) => floor,
            Err(error) => return Err(error),
        };
        let hub = Hub::new(name, Box::new(journal.clone()), check);
        hub.begin(journal.id(), floor, plan);
        hub.read_on(&*journal).await?;
        let weak = Arc::downgrade(&hub);
        tokio::spawn(tail(weak, journal));
        Ok(hub)
    }

    /// The hub of a relay, and the node by which it follows a control.
    pub fn of_relay(name: &str, dialer: Arc<Dialer>, check: Check) -> (Arc<Hub>, Arc<dyn Node>) {
        let hub = Hub::new(name, Box::new(dialer), check);
        let node = Forward::new(&hub, false, Patience::RELAY);
        hub.count_by(Arc::new(PassOn(Arc::clone(&node.outbox))));
        (hub, Arc::new(node))
    }

    /// The node by which a control tells another one what its nodes report.
    pub fn reporter(self: &Arc<Self>) -> Arc<dyn Node> {
        let node = Forward::new(self, true, Patience::CONTROL);
        let mut shared = self.shared.lock();
        shared.recent.lines().into_iter().for_each(|line| node.outbox.push(line, None));
        shared.with.retain(|outbox| outbox.strong_count() > 0);
        shared.with.push(Arc::downgrade(&node.outbox));
        drop(shared);
        Arc::new(node)
    }

    /// Says who takes statistics from now on; the first one who is said to stays it.
    pub fn count_by(&self, counting: Arc<dyn Counting>) {
        // It is said when the hub is made.
        let _ = self.counting.set(counting);
    }

    /// Says who decides from now on, each second, whether a feed may go on; the first one who is said to stays it. Without, it may for
    /// as long as the certificate that it began with is good.
    pub fn admit_by(&self, admit: Admit) {
        // It is said when the hub is made.
        let _ = self.admit.set(admit);
    }

    fn admit(&self, peer: &Peer) -> Result<(), String> {
        match self.admit.get() {
            Some(admit) => admit(peer),
            None if peer.is_expired(now_ms() / 1000) => {
                Err(format!("the certificate of {} has run out", peer.name))
            }
            None => Ok(()),
        }
    }

    /// Passes statistics on to all other controls.
    pub fn share(&self, line: &Arc<Statistics>) {
        let shared = self.shared.lock();
        shared.recent.push(Arc::clone(line), None);
        for outbox in shared.with.iter().filter_map(Weak::upgrade) {
            outbox.push(Arc::clone(line), None);
        }
    }

    fn new(name: &str, source: Box<dyn Source>, check: Check) -> Arc<Hub> {
        Arc::new(Hub {
            name: name.to_owned(),
            source,
            check,
            admit: OnceLock::new(),
            inner: Mutex::new(Inner {
                journal: None,
                begun_anew: 0,
                plan: Plan::default(),
                held: Held::default(),
                nodes: BTreeMap::new(),
                reporters: BTreeMap::new(),
                reports: 0,
                leases: BTreeMap::new(),
                confirmed: None,
            }),
            head: watch::Sender::new((0, 0)),
            leases: watch::Sender::new(()),
            news: watch::Sender::new(0),
            steered: broadcast::Sender::new(STEERED_MAX),
            counting: OnceLock::new(),
            newcomer: Notify::new(),
            shared: Mutex::new(SharedStatistics {
                with: Vec::new(),
                recent: Outbox::new(Patience::NEW_CONTROL),
            }),
        })
    }

    /// The newest position, with its digest.
    pub fn head(&self) -> Mark {
        self.inner.lock().held.head()
    }

    /// The plan in force.
    pub fn plan(&self) -> Plan {
        self.inner.lock().plan.clone()
    }

    /// All nodes that have ever reported here, by name.
    pub fn nodes(&self) -> Vec<Seen> {
        self.inner.lock().nodes.values().map(Known::seen).collect()
    }

    /// A node, if it has ever reported here.
    pub fn node(&self, name: &str) -> Option<Seen> {
        self.inner.lock().nodes.get(name).map(Known::seen)
    }

    /// The earliest receipt that is remembered of a node for a position.
    pub fn receipt(&self, node: &str, position: u64) -> Option<super::Receipt> {
        let inner = self.inner.lock();
        let receipts = &inner.nodes.get(node)?.receipts;
        let at = receipts.partition_point(|receipt| receipt.cursor.position < position);
        receipts.range(at..).find(|receipt| inner.held.has(receipt.cursor)).cloned()
    }

    /// For how long another control has said nothing here of its nodes; `None` when it never has.
    pub fn silence_of(&self, control: &str) -> Option<Duration> {
        self.inner.lock().reporters.get(control).map(Instant::elapsed)
    }

    /// Returns once another control has said something here for the first time: it knows of this one, and this one perhaps not of it.
    pub async fn newcomer(&self) {
        self.newcomer.notified().await;
    }

    /// Forgets a node that has been retired.
    pub fn forget(&self, node: &str) {
        let mut inner = self.inner.lock();
        inner.nodes.remove(node);
        inner.leases.remove(node);
    }

    /// What nodes that are there want of origins' budgets, as far as it has been reported after the report of that number: the
    /// node's name, whether it can be told from here what it is granted, and what it wants. With the number of the newest report.
    pub fn wanted(&self, after: u64) -> (u64, Vec<(String, bool, Vec<Wanted>)>) {
        let inner = self.inner.lock();
        let new = inner.nodes.iter().filter(|(_, known)| {
            known.number > after && !known.report.budgets.is_empty() && known.heard.elapsed() < SILENCE
        });
        let wanted =
            new.map(|(node, known)| (node.clone(), known.is_from_below, known.report.budgets.clone()));
        (inner.reports, wanted.collect())
    }

    /// Has nodes told what they are granted, directly or by their relay. Of what cannot be told before the next grant, the newest
    /// is told.
    pub fn grant(&self, leases: Vec<Leased>) {
        if leases.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        for Leased { node, budget, grant } in leases {
            if inner.nodes.contains_key(&node) {
                inner.leases.entry(node).or_default().insert(budget, grant);
            }
        }
        drop(inner);
        self.leases.send_replace(());
    }

    /// What is to be told to a peer.
    fn leases_by(&self, peer: &str) -> Vec<Leased> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let nodes = &inner.nodes;
        let own =
            inner.leases.extract_if(.., |node, _| nodes.get(node).is_some_and(|known| known.by == peer));
        own.flat_map(|(node, grants)| {
            grants.into_iter().map(move |(budget, grant)| Leased { node: node.clone(), budget, grant })
        })
        .collect()
    }

    /// Changes with each report.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Changes with each record: the newest position, and how often the hub had to begin anew.
    pub fn heads(&self) -> watch::Receiver<(u64, u64)> {
        self.head.subscribe()
    }

    /// The answer to `GET /v1/journal`: a status and JSON.
    pub async fn page(&self, after: u64, limit: usize) -> (http::StatusCode, String) {
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        match self.source.read(after, limit.clamp(1, LINE_RECORDS_MAX)).await {
            Ok(page) => {
                let records = page.records.iter().filter_map(Line::of).collect();
                let text = PageText { records, has_more: page.has_more, floor: page.floor };
                (http::StatusCode::OK, json(serde_json::to_string(&text)))
            }
            Err(Error::Trimmed(floor)) => (http::StatusCode::GONE, json(serde_json::to_string(&floor))),
            Err(error) => {
                let error = serde_json::json!({ "error": error.to_string() });
                (http::StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        }
    }

    /// Takes from above what a node reports for routers. What nodes below say has been told already.
    fn steered_above(&self, line: Steered) {
        let is_own = |known: &Known| known.is_from_below && known.heard.elapsed() < SILENCE;
        if !self.inner.lock().nodes.get(&line.node).is_some_and(is_own) {
            // The router may have left since.
            let _told = self.steered.send(line);
        }
    }

    /// Takes a report.
    ///
    /// # Errors
    /// It is not believed, or shows that the node has read something else than this journal.
    pub fn report(&self, peer: &Peer, report: Report) -> Result<(), String> {
        let words = [&report.node, &report.pop, &report.software, &report.receipt.signature];
        let whys = [report.refused.as_ref().map(|refused| &refused.why), report.unwell.as_ref()];
        let is_too_long = |why: &&String| why.len() > WHY_BYTES_MAX;
        if words.iter().any(|text| text.len() > WORD_BYTES_MAX) || whys.iter().flatten().any(is_too_long) {
            return Err("a report with texts that are too long".to_owned());
        }
        if !report.steering.is_bounded() {
            return Err("a report that says too much for routers".to_owned());
        }
        let is_too_long = |wanted: &Wanted| wanted.budget.len() > WHY_BYTES_MAX;
        if report.budgets.len() > BUDGETS_MAX || report.budgets.iter().any(is_too_long) {
            return Err("a report with too much of budgets".to_owned());
        }
        (self.check)(peer, &report)?;
        if !report.steering.is_empty() && self.steered.receiver_count() > 0 {
            let (node, pop, steering) = (report.node.clone(), report.pop.clone(), report.steering.clone());
            // Without a router there is nobody to tell.
            let _told = self.steered.send(Steered { node, pop, steering, missed: 0 });
        }
        let mut inner = self.inner.lock();
        let (cursor, is_from_below) = (report.receipt.cursor, peer.role != Role::Control);
        if let Some(digest) = inner.held.digest_at(cursor.position)
            && digest != cursor
        {
            return Err(format!(
                "{} has another digest at position {} than this journal",
                report.node, cursor.position
            ));
        }
        inner.reports += 1;
        let number = inner.reports;
        let (heard, heard_ms) = (Instant::now(), now_ms());
        match inner.nodes.get_mut(&report.node) {
            // What a relay repeats may be older than what the node has said itself meanwhile.
            Some(known)
                if known.report.receipt.at_ms > report.receipt.at_ms && known.heard.elapsed() < SILENCE => {}
            Some(known) => {
                let is_new = known.report.receipt.cursor.position != cursor.position;
                if known.report.receipt.cursor.position > cursor.position {
                    // It has begun anew: what it had, it may have lost.
                    known.receipts.clear();
                }
                if is_new {
                    known.receipts.push_back(report.receipt.clone());
                    if known.receipts.len() > RECEIPTS_MAX {
                        known.receipts.pop_front();
                    }
                }
                *known = Known {
                    receipts: std::mem::take(&mut known.receipts),
                    report,
                    heard,
                    heard_ms,
                    is_from_below,
                    by: peer.name.clone(),
                    number,
                };
            }
            None => {
                let receipts = VecDeque::from([report.receipt.clone()]);
                let name = report.node.clone();
                let by = peer.name.clone();
                inner
                    .nodes
                    .insert(name, Known { report, heard, heard_ms, is_from_below, by, number, receipts });
            }
        }
        drop(inner);
        self.news.send_replace(number);
        Ok(())
    }

    /// Serves a feed: `body` is what `peer` says, the answer's body what it is told.
    pub fn serve<B>(self: &Arc<Self>, peer: Peer, body: B) -> LinesBody
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display,
    {
        let (writer, answer) = lines_body();
        let hub = self.clone();
        tokio::spawn(async move {
            if let Err(why) = hub.session(&peer, body, &writer).await {
                eprintln!("perigee: the feed of {} has ended: {why}", peer.name);
            }
        });
        answer
    }

    // --- What comes from the source ---

    fn begin(&self, journal: &str, at: Mark, plan: Plan) {
        let mut inner = self.inner.lock();
        inner.journal = Some(journal.to_owned());
        inner.begun_anew += 1;
        inner.plan = plan;
        inner.held = Held::from(at);
        self.head.send_replace((at.position, inner.begun_anew));
    }

    fn push(&self, records: Vec<Record>) {
        let mut inner = self.inner.lock();
        for record in records {
            if let Ok(Written { change: Change::Plan(plan), .. }) = serde_json::from_str(&record.text) {
                inner.plan = plan;
            }
            inner.held.push(record);
        }
        self.head.send_replace((inner.held.head().position, inner.begun_anew));
    }

    /// Takes what the engine has been told of, as long as it was confirmed lately that the head is the journal's. Whether there was any.
    fn take_heard(&self, journal: &dyn Journal) -> bool {
        let is_confirmed =
            self.inner.lock().confirmed.is_some_and(|confirmed| confirmed.elapsed() < CONFIRM_EVERY);
        let records = if is_confirmed { journal.heard(self.head(), LINE_RECORDS_MAX) } else { Vec::new() };
        let is_any = !records.is_empty();
        if is_any {
            self.push(records);
        }
        is_any
    }

    /// Records right above a position, up to `limit`; `None` when they are not held here any more.
    pub fn held(&self, after: u64, limit: usize) -> Option<Vec<Record>> {
        let inner = self.inner.lock();
        Some(inner.held.above(after)?.take(limit).map(|(record, _)| record.clone()).collect())
    }

    /// Reads what is new, from the newest record that is held on: it must still be there. Where it isn't, the journal's engine has
    /// been put back to what it was earlier, or this hub was away for days: it begins anew, and so do nodes that know more.
    async fn read_on(&self, journal: &dyn Journal) -> Result<(), Error> {
        loop {
            let (head, newest) = {
                let inner = self.inner.lock();
                (inner.held.head(), inner.held.newest().cloned())
            };
            let after = newest.as_ref().map_or(head.position, |newest| newest.position - 1);
            let mut anew = None;
            let (records, has_more) = match journal.read(after, LINE_RECORDS_MAX).await {
                Err(Error::Trimmed(floor)) if floor == head => {
                    let page = journal.read(head.position, LINE_RECORDS_MAX).await?;
                    (page.records, page.has_more)
                }
                Err(Error::Trimmed(floor)) => {
                    anew = Some(floor);
                    (Vec::new(), true)
                }
                Err(error) => return Err(error),
                Ok(mut page) => {
                    let is_there = match &newest {
                        Some(newest) => page.records.first() == Some(newest),
                        None => page.floor == head,
                    };
                    if !is_there {
                        anew = Some(page.floor);
                    }
                    page.records.drain(..usize::from(newest.is_some()).min(page.records.len()));
                    (page.records, page.has_more)
                }
            };
            if let Some(floor) = anew {
                eprintln!(
                    "perigee: the journal does not go on from position {}: reading it anew",
                    head.position
                );
                let plan = journal.cell(PLAN_CELL).await?;
                let plan = plan.and_then(|cell| serde_json::from_slice(&cell.value).ok());
                self.begin(journal.id(), floor, plan.unwrap_or_else(|| self.plan()));
                continue;
            }
            if !records.is_empty() {
                self.push(records);
            }
            if !has_more {
                self.inner.lock().confirmed = Some(Instant::now());
                return Ok(());
            }
        }
    }
}

impl Inner {
    /// Whether it was known a moment ago that there is nothing newer than the head.
    fn is_current(&self) -> bool {
        self.confirmed.is_some_and(|confirmed| confirmed.elapsed() < SILENCE)
    }
}

impl Known {
    fn seen(&self) -> Seen {
        Seen { report: self.report.clone(), silent_for: self.heard.elapsed(), heard_ms: self.heard_ms }
    }
}

/// Follows the journal for as long as there is a hub.
async fn tail(hub: Weak<Hub>, journal: Arc<dyn Journal>) {
    loop {
        let Some(head) = hub.upgrade().map(|hub| hub.head().position) else { return };
        let changed = timeout(CONFIRM_EVERY, journal.changed(head)).await;
        let Some(hub) = hub.upgrade() else { return };
        let read = match changed {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) if hub.take_heard(&*journal) => Ok(()),
            Ok(Ok(())) | Err(_) => hub.read_on(&*journal).await,
        };
        if let Err(error) = read {
            eprintln!("perigee: the journal cannot be followed: {error}; trying again");
            sleep(Duration::from_millis(500)).await;
        }
    }
}

#[cfg(test)]
mod tests;
