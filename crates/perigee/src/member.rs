//! What makes an edge or a router a node of a cluster: it follows the journal by a feed, puts in force what that says, and reports.
//!
//! ```text
//! control ─ feed ─► told: purges ─► works, purge log ─► place on disk ─► receipt ─► control
//!                     └─ plan ─► text by hash ─► hash, signature, parser, tests ─► in force, or a refusal in the report
//! ```
//!
//! Nothing here is in a visitor's way. While no control can be reached, the node serves what it has; how long a site puts up with
//! that is the site's `max_purge_lag`. What an edge does with what it is told stands in `member::edge`; a router in `router`.

mod certified;
mod edge;
mod join;
pub(crate) mod keep;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::edge::admin::ClusterStatus;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use journal::feed::{
    BUDGETS_MAX, Dialer, Down, Hello, Holdings, Link, Node, Outbox, Patience, Receipt, Refusal, Report,
    Statistics, Steered, Steering, Told as Taken, Vitals, Wanted, chance_below, follow,
};
use journal::following::{Following, Step};
use model::budget::lease::{Ask, Grant};
use model::change::{Order, Plan, Version, receipt_signed};
use model::config::TEXT_BYTES_MAX;
use observe::Registry;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use trust::{EnrolmentToken, Identity, Role};

pub(crate) use self::edge::EdgeWorks;
use crate::configuration::Told;
use crate::failure::Failure;
use crate::now_ms;
use crate::running::STATISTICS_EVERY;
pub(crate) use certified::Certified;
use keep::{Keep, Kept, Places, check_text, is_signed};

/// Purges that are put in force as one.
const ORDERS_TOGETHER_MAX: usize = 10_000;

/// A configuration that cannot be had is tried again after a time between 0 and this, drawn evenly.
const FETCH_RETRY_WITHIN: Duration = Duration::from_secs(4);

/// A program that has died with a configuration on trial tries none for so long after its start: control hears of the start
/// first, and takes back what did it. Otherwise what kills it at once would do so again before anybody has heard of it.
const TRIAL_AGAIN_AFTER_MS: i64 = 10_000;

/// How often origins' budgets are asked for anew, at most: a little below the beat of reports.
const ASKED_EVERY: Duration = Duration::from_millis(900);

/// How often the moment of last having heard is written down; what a restart forgets of it makes sites validate early.
const HEARD_WRITTEN_EVERY_MS: i64 = 5_000;

/// What a node does with what it is told.
pub(crate) trait Works: Send + Sync + 'static {
    /// Purges: returns, when they are in force and safe, the node's own number of the last one.
    fn purge(&self, orders: &[Order]) -> Result<u64, String>;
    /// Has everything validated that was stored until now; the node's own number of that.
    fn distrust(&self) -> Result<u64, String>;
    /// Before it follows anybody: all that it has in force is of the journal up to this position.
    fn begins_at(&self, position: u64);
    /// The journal is in force up to this position; `applied`: the last of the node's own numbers that that took.
    fn reached(&self, _position: u64, _applied: Option<u64>) {}
    /// The node has another certificate.
    fn certify(&self, _identity: &Identity) {}
    /// Nothing had been missed at this moment, in ms since 1970.
    fn heard(&self, _at_ms: i64) {}
    /// It is connected, or just begins; where it is, and the newest position that it knows of.
    fn follows(&self, position: u64, head: u64, is_connected: bool);
    /// It is not connected any more.
    fn lost_control(&self);
    /// Puts a configuration in force, or says why it can't be.
    fn take(&self, told: Told) -> Result<(), String>;
    /// What has been counted since it began.
    fn vitals(&self, since_ms: i64) -> Vitals;
    /// Why it does not answer what it asks itself, if it asks.
    fn unwell(&self) -> Option<String> {
        None
    }
    /// It begins to follow: `news` is to be notified when it has something to say before the next second.
    fn begins(&self, _news: Arc<Notify>) {}
    /// What it has to say to routers, since it was asked last.
    fn steering(&self) -> Steering {
        Steering::default()
    }
    /// Whether it wants to hear what nodes say to routers.
    fn steers(&self) -> bool {
        false
    }
    /// What a node says to routers.
    fn steered(&self, _: Steered) {}
    /// What it holds.
    fn holdings(&self) -> Holdings;
    /// What it wants of origins' budgets now, if it asks origins.
    fn ask_for_leases(&self) -> Vec<(String, Ask)> {
        Vec::new()
    }
    /// It is granted a part of a budget.
    fn grant(&self, _budget: &str, _grant: Grant) {}
    /// Where its visitors' requests are counted, if it has any.
    fn registry(&self) -> Option<&Registry>;
}

/// Which node, and where its cluster is, by its own file.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    /// That file, as messages name it.
    pub(crate) file: String,
    pub(crate) role: Role,
    pub(crate) name: String,
    /// The place where it stands; empty when it is in none.
    pub(crate) pop: String,
    pub(crate) controls: Vec<String>,
}

/// A node of a cluster.
pub(crate) struct Member {
    who: Who,
    /// Where it stands.
    pop: String,
    keep: Keep,
    places: Mutex<Places>,
    certified: Certified,
    following: Mutex<Following>,
    /// When the node last knew that it had missed nothing, as it was last written down.
    heard_written_ms: Mutex<i64>,
    /// The URL that it follows, or why it follows none.
    link: Mutex<Result<String, String>>,
    /// The plan, as far as it is known.
    plan: watch::Sender<Plan>,
    running: Mutex<Option<Version>>,
    refused: Mutex<Option<Refusal>>,
    starts: u64,
    /// The program before this one has died with a configuration that is not the stable one.
    died_on_trial: bool,
    since_ms: i64,
    /// What was asked of origins' budgets last, and when.
    asked: Mutex<Option<(Instant, Vec<Wanted>)>>,
    news: Arc<Notify>,
    /// Statistics on their way.
    outbox: Outbox,
    works: OnceLock<Arc<dyn Works>>,
    thread: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Member {
    /// The node that this machine is, by `who` and what it keeps in the state directory; joins first, if it has not.
    /// `token`: reads the enrolment token. `is_start`: the program has not taken the place of a running one.
    ///
    /// # Errors
    /// It has not joined and cannot; what it keeps is of no use.
    pub(crate) fn new(
        who: Who,
        state: &std::path::Path,
        token: impl FnOnce() -> Result<Option<EnrolmentToken>, Failure>,
        is_start: bool,
    ) -> Result<Arc<Self>, Failure> {
        let keep = Keep::of(state)?;
        let certified = Certified::new(&keep, &who, token)?;
        let identity = certified.identity();
        let pop = joined_pop(&who, &identity).unwrap_or(&who.pop).to_owned();
        if let Some(why) = misplaced(&who, &pop, &identity) {
            eprintln!("perigee: warning: {why}");
        }
        let Kept { place, heard_ms } = keep.place();
        Ok(Arc::new(Member {
            who,
            pop,
            starts: keep.count_start(is_start),
            died_on_trial: is_start && keep.died_on_trial(),
            places: Mutex::new(keep.places()),
            keep,
            certified,
            plan: watch::Sender::new(place.plan.clone()),
            following: Mutex::new(Following::new(place)),
            heard_written_ms: Mutex::new(heard_ms),
            link: Mutex::new(Err("not tried yet".to_owned())),
            running: Mutex::new(None),
            refused: Mutex::new(None),
            since_ms: now_ms(),
            asked: Mutex::new(None),
            news: Arc::default(),
            outbox: Outbox::new(Patience::NODE),
            works: OnceLock::new(),
            thread: Mutex::new(None),
        }))
    }

    /// The configurations that this node may begin with, the one that it is to run first: all that are here, and signed. After a
    /// crash on trial the stable one is first, so that a configuration that kills the program at once cannot keep it from
    /// hearing that it was taken back.
    pub(crate) fn candidates(&self) -> Vec<Told> {
        let plan = self.plan.borrow().clone();
        let wanted = plan.version_for(&self.who.name, &self.pop).cloned();
        let mut told: Vec<Told> = Vec::new();
        if self.died_on_trial {
            let with = match plan.stable {
                Some(_) => "it begins with the stable one",
                None => "there is none other, so it begins with that",
            };
            eprintln!("perigee: the program has died with a configuration on trial; {with}");
        }
        let safe = plan.stable.clone().filter(|_| self.died_on_trial);
        for version in safe.into_iter().chain(wanted).chain(self.keep.running()).chain(plan.stable) {
            if told.iter().all(|told| told.version != version) {
                told.extend(self.keep.told(&version, &self.identity()));
            }
        }
        told
    }

    /// The place where it stands; empty when it is in none.
    pub(crate) fn pop(&self) -> &str {
        &self.pop
    }

    /// Says which configuration the node begins with: after a death on trial not the one that was in force last.
    pub(crate) fn begins_with(&self, version: Option<Version>) {
        if let Some(version) = &version
            && let Err(error) = self.keep.write_running(version)
        {
            eprintln!("perigee: {}: cannot be written: {error}", self.keep.path().display());
        }
        *self.running.lock() = version;
    }

    /// What it shows to other edges.
    pub(crate) fn tier_identity(&self) -> Result<::edge::TierIdentity, Failure> {
        edge::tier_identity(&self.identity()).map_err(|why| {
            Failure::new(format!("the node's certificate is of no use to other edges: {why}"), "")
        })
    }

    /// Begins to follow, for the edge or router that runs.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(self: &Arc<Self>, works: Arc<dyn Works>) -> std::io::Result<()> {
        // In an upgrade, the process before this one has gone on until a moment ago.
        let Kept { place, heard_ms } = self.keep.place();
        *self.heard_written_ms.lock() = heard_ms;
        works.heard(heard_ms);
        works.begins_at(place.at.position);
        self.plan.send_replace(place.plan.clone());
        *self.following.lock() = Following::new(place);
        works.begins(Arc::clone(&self.news));
        let certified = works.clone();
        // It is attached once, when it has started.
        let _ = self.works.set(works);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let member = self.clone();
        let thread = std::thread::Builder::new().name("cluster".into()).spawn(move || {
            runtime.block_on(async move {
                let identity = member.clone();
                let dialer = Arc::new(Dialer::new(member.who.controls.clone(), move || identity.identity()));
                let renewed = |identity: &Identity| {
                    certified.certify(identity);
                    if let Some(why) = misplaced(&member.who, &member.pop, identity) {
                        eprintln!("perigee: warning: {why}");
                    }
                };
                // Each is cancelled between two of its waits; what it has begun to write by then is whole.
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    () = follow(member.clone(), dialer.clone()) => {}
                    () = member.keep_configured(&dialer) => {}
                    () = member.keep_counted() => {}
                    () = member.certified.keep_renewed(&member.keep, &dialer, renewed) => {}
                }
            });
        })?;
        *self.thread.lock() = Some((stop, thread));
        Ok(())
    }

    /// Follows no longer. What is in force stays so.
    pub(crate) fn stop(&self) {
        let Some((stop, thread)) = self.thread.lock().take() else { return };
        drop(stop);
        // It panics when the node does, which is told elsewhere.
        let _ = thread.join();
        self.keep.note_trial(false);
    }

    /// How it stands with the cluster.
    pub(crate) fn status(&self) -> ClusterStatus {
        let link = self.link.lock().clone();
        let (journal, position, is_current) = {
            let following = self.following.lock();
            let place = following.place();
            (place.journal.clone(), place.at.position, following.is_current())
        };
        let (refused, identity) = (self.refused.lock().clone(), self.identity());
        ClusterStatus {
            node: self.who.name.clone(),
            pop: self.pop.clone(),
            is_connected: link.is_ok(),
            control: link.as_ref().ok().cloned(),
            trouble: link.err(),
            journal,
            position,
            is_current,
            running: self.running.lock().as_ref().map(|version| version.number),
            refused: refused.map(|refused| (refused.version.number, refused.why)),
            certificate_until_ms: identity.peer().valid.1.saturating_mul(1000),
            warning: misplaced(&self.who, &self.pop, &identity),
        }
    }

    fn identity(&self) -> Arc<Identity> {
        self.certified.identity()
    }

    fn works(&self) -> Result<&Arc<dyn Works>, String> {
        self.works.get().ok_or_else(|| "the node has not started yet".to_owned())
    }

    // --- Statistics ---

    /// Puts what workers have counted on its way. Ends never.
    async fn keep_counted(&self) {
        // When it began, and a process's number: two lives of one node are never the same.
        let epoch = (now_ms() as u64) << 22 | u64::from(std::process::id() & 0x3f_ffff);
        let mut sequence = 0;
        let mut ticks = tokio::time::interval(STATISTICS_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(registry) = self.works().ok().and_then(|works| works.registry()) else { continue };
            let reports = registry.take_reports();
            registry.count_lost_reports(self.outbox.lost());
            if reports.is_empty() {
                continue;
            }
            for report in reports {
                sequence += 1;
                let line = Statistics {
                    node: self.who.name.clone(),
                    epoch,
                    sequence,
                    lost: registry.lost_reports(),
                    report: BASE64_STANDARD.encode(report.encode()),
                };
                self.outbox.push(Arc::new(line), None);
            }
            self.news.notify_one();
        }
    }

    // --- Purges ---

    fn take(&self, lines: Vec<Down>) -> Result<(), String> {
        let works = self.works()?;
        let (Step { orders, distrust, place }, is_new) = {
            let mut following = self.following.lock();
            let step = following.take(lines)?;
            let is_new = step.place != *following.place();
            (step, is_new)
        };
        let not_applied = |error: String| format!("what control ordered is not in force: {error}");
        let mut applied = None;
        for some in orders.chunks(ORDERS_TOGETHER_MAX) {
            applied = Some(works.purge(some).map_err(not_applied)?);
        }
        if let Some(why) = distrust {
            eprintln!("perigee: all that is stored is validated before it is served again: {why}");
            applied = Some(works.distrust().map_err(not_applied)?);
        }
        let now = now_ms();
        let mut heard_written_ms = self.heard_written_ms.lock();
        if is_new {
            let kept = Kept { place: place.clone(), heard_ms: *heard_written_ms };
            self.places
                .lock()
                .write(&kept)
                .map_err(|error| format!("{}: cannot be written: {error}", self.keep.path().display()))?;
        }
        let plan = place.plan.clone();
        let (is_current, head) = {
            let mut following = self.following.lock();
            following.reached(place.clone());
            (following.is_current(), following.head())
        };
        works.reached(place.at.position, applied);
        works.follows(place.at.position, head, true);
        self.plan.send_if_modified(|known| {
            let is_other = *known != plan;
            *known = plan;
            is_other
        });
        if is_current {
            works.heard(now);
            if now - *heard_written_ms >= HEARD_WRITTEN_EVERY_MS {
                *heard_written_ms = now;
                // What is not written of it makes sites validate early.
                let _ = self.places.lock().write(&Kept { place, heard_ms: now });
            }
        }
        Ok(())
    }

    // --- Budgets ---

    /// What is asked of origins' budgets: anew each second, however often it reports.
    fn wanted(&self, works: &dyn Works) -> Vec<Wanted> {
        let mut asked = self.asked.lock();
        if asked.as_ref().is_none_or(|(at, _)| at.elapsed() >= ASKED_EVERY) {
            let asks = works.ask_for_leases().into_iter().take(BUDGETS_MAX);
            let wanted = asks.map(|(budget, ask)| Wanted { budget, ask }).collect();
            *asked = Some((Instant::now(), wanted));
        }
        asked.as_ref().map(|(_, wanted)| wanted.clone()).unwrap_or_default()
    }

    fn lease(&self, lines: Vec<Down>) {
        let Ok(works) = self.works() else { return };
        for line in lines {
            let Down::Leases(leases) = line else { continue };
            for leased in leases.into_iter().filter(|leased| leased.node == self.who.name) {
                works.grant(&leased.budget, leased.grant);
            }
        }
    }

    // --- Configurations ---

    /// Runs what the plan says, from now on. Ends never.
    async fn keep_configured(&self, dialer: &Dialer) {
        let mut plans = self.plan.subscribe();
        loop {
            let plan = plans.borrow_and_update().clone();
            let wanted = plan.version_for(&self.who.name, &self.pop);
            let held_back_ms = match wanted == plan.stable.as_ref() {
                true => 0,
                false => self.held_back_ms(),
            };
            let is_done = match wanted {
                Some(version) if held_back_ms == 0 && self.is_to_be_tried(version) => {
                    self.run(version, dialer).await
                }
                _ => Ok(()),
            };
            // To go back to without asking anybody.
            let is_here = match &plan.stable {
                Some(stable) => self.fetch(stable, dialer).await.map(drop),
                None => Ok(()),
            };
            if let Err(why) = is_done.and(is_here) {
                eprintln!("perigee: {why}; trying again");
                tokio::select! {
                    biased;
                    _ = plans.changed() => {}
                    () = sleep_ms(chance_below(FETCH_RETRY_WITHIN.as_millis() as u64)) => {}
                }
                continue;
            }
            let running = self.running.lock().clone();
            let kept: Vec<&Version> =
                [wanted, plan.stable.as_ref(), running.as_ref()].into_iter().flatten().collect();
            self.keep.retain(&kept);
            self.keep.note_trial(running.is_some() && running != plan.stable);
            tokio::select! {
                biased;
                changed = plans.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_ms(held_back_ms), if held_back_ms > 0 => {}
            }
        }
    }

    /// For how long nothing but what is stable is to be tried.
    fn held_back_ms(&self) -> u64 {
        match self.died_on_trial {
            true => TRIAL_AGAIN_AFTER_MS
                .saturating_sub(now_ms() - self.since_ms)
                .clamp(0, TRIAL_AGAIN_AFTER_MS) as u64,
            false => 0,
        }
    }

    fn is_to_be_tried(&self, version: &Version) -> bool {
        self.running.lock().as_ref() != Some(version)
            && self.refused.lock().as_ref().is_none_or(|refused| refused.version != *version)
    }

    /// Puts a configuration in force, or notes why it will not be.
    ///
    /// # Errors
    /// It cannot be had now: why.
    async fn run(&self, version: &Version, dialer: &Dialer) -> Result<(), String> {
        if !is_signed(version, &self.identity()) {
            self.refuse(version, "it is not signed by the cluster's authority".to_owned());
            return Ok(());
        }
        let told = self.fetch(version, dialer).await?;
        let works = self.works()?;
        // Before it can do harm.
        self.keep.note_trial(self.plan.borrow().stable.as_ref() != Some(version));
        match works.take(told) {
            Ok(()) => {
                *self.running.lock() = Some(version.clone());
                *self.refused.lock() = None;
                if let Err(error) = self.keep.write_running(version) {
                    eprintln!("perigee: {}: cannot be written: {error}", self.keep.path().display());
                }
            }
            Err(why) => self.refuse(version, why),
        }
        self.news.notify_one();
        Ok(())
    }

    fn refuse(&self, version: &Version, why: String) {
        eprintln!("perigee: configuration {} is refused: {why}", version.number);
        *self.refused.lock() = Some(Refusal { version: version.clone(), why });
        self.news.notify_one();
    }

    /// A configuration that is signed, from this disk or else from control.
    async fn fetch(&self, version: &Version, dialer: &Dialer) -> Result<Told, String> {
        let (identity, number) = (self.identity(), version.number);
        if let Some(told) = self.keep.told(version, &identity) {
            return Ok(told);
        }
        if !is_signed(version, &identity) {
            return Err(format!("configuration {number} is not signed by the cluster's authority"));
        }
        let text = dialer.get(&format!("/v1/blobs/{}", version.hash), TEXT_BYTES_MAX).await;
        let text = text.map_err(|why| format!("configuration {number} cannot be had: {why}"))?;
        let told =
            check_text(version, text.to_vec()).map_err(|why| format!("configuration {number}: {why}"))?;
        self.keep
            .write_text(&told)
            .map_err(|error| format!("configuration {number} cannot be written to disk: {error}"))?;
        Ok(told)
    }
}

impl Node for Member {
    fn hello(&self) -> Hello {
        let (journal, cursor) = self.following.lock().hello();
        Hello {
            node: self.who.name.clone(),
            journal,
            cursor,
            reports_only: false,
            steers: self.works().is_ok_and(|works| works.steers()),
            takes_leases: true,
        }
    }

    fn told(&self, mut lines: Vec<Down>) -> Taken<'_> {
        if let Ok(works) = self.works() {
            let steered = lines.extract_if(.., |line| matches!(line, Down::Steered(_)));
            for line in steered {
                if let Down::Steered(steered) = line {
                    works.steered(*steered);
                }
            }
        }
        self.lease(lines.extract_if(.., |line| matches!(line, Down::Leases(_))).collect());
        if lines.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        // It waits for disks, and so does whoever sends more.
        let taken = self.take(lines);
        Box::pin(std::future::ready(taken))
    }

    fn reports(&self) -> Vec<Report> {
        let (journal, cursor) = {
            let following = self.following.lock();
            (following.place().journal.clone(), following.place().at)
        };
        let (Some(journal), Ok(works)) = (journal, self.works()) else { return Vec::new() };
        let at_ms = now_ms();
        let signed = receipt_signed(&journal, &self.who.name, cursor.position, &cursor.digest, at_ms);
        let receipt = Receipt { cursor, at_ms, signature: self.identity().sign(&signed) };
        vec![Report {
            node: self.who.name.clone(),
            pop: self.pop.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            receipt,
            running: self.running.lock().as_ref().map(|version| version.number),
            refused: self.refused.lock().clone(),
            unwell: works.unwell(),
            starts: self.starts,
            holdings: works.holdings(),
            vitals: works.vitals(self.since_ms),
            steering: works.steering(),
            budgets: self.wanted(&**works),
        }]
    }

    fn outbox(&self) -> Option<&Outbox> {
        Some(&self.outbox)
    }

    fn has_news(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.news.notified())
    }

    fn link(&self, link: Link<'_>) {
        let mut known = self.link.lock();
        match link {
            Link::Up(url) => {
                eprintln!("perigee: following {url}");
                *known = Ok(url.to_owned());
            }
            Link::Down(url, why) => {
                let now = Err(format!("{url}: {why}"));
                // Tried again and again with the same end, it is told once.
                if *known != now {
                    eprintln!("perigee: not connected with {url}: {why}");
                }
                *known = now;
                if let Ok(works) = self.works() {
                    works.lost_control();
                }
            }
        }
    }
}

/// The PoP that an edge has joined in, if its certificate says so.
///
/// It goes before what the node's own file says, which is only warned of: control rolls out to the PoP that the node has joined in, and a node that took
/// what is for another one would have roll-outs wait for it. To refuse to start would make an outage of a wrong word, on all edges whose files are
/// written by one template at once.
fn joined_pop<'a>(who: &Who, identity: &'a Identity) -> Option<&'a str> {
    identity.peer().pop.as_deref().filter(|_| who.role == Role::Edge)
}

/// What is wrong when a node's own file names another PoP than it has joined in, and what to do. `pop`: the one that it acts for, which is the file's
/// while it runs with a certificate that has said none before.
fn misplaced(who: &Who, pop: &str, identity: &Identity) -> Option<String> {
    let joined = joined_pop(who, identity).filter(|joined| *joined != who.pop)?;
    let Who { file, name, pop: said, .. } = who;
    let from = if joined == pop { "" } else { " from its next start on" };
    Some(format!(
        "{file}: pop = {said:?}, but this node has joined in PoP {joined:?}, as its certificate says: it acts for {joined:?}{from}; write \
         pop = {joined:?} in [cluster], or, where it has been moved: perigee nodes retire {name}, and have it join anew, without \
         \"cluster\" in its state directory and with a token of the PoP in which it stands (perigee enroll)"
    ))
}

/// Memory of this process, as the system says; 0 when it does not.
pub(crate) fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
