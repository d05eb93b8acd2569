//! What all workers share: the names behind the slots, the list of workers' counters, and the few counters of events
//! so rare that they may be counted by anybody. Made once by the binary; read by the admin API.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use semantics::{Outcome, Wall, Why};
use stats::Country;
use stats::rum::View;

use crate::cells::{OUTCOMES, WorkerCells};
use crate::event::{PurgeForm, PurgeScope, Slot};
use crate::histogram::Merged;
use crate::readings::Readings;
use crate::tally::Statistics;

/// Sites with series of their own, the two reserved slots included; later ones share [`Slot::OTHERS`]. Bounds memory
/// (9 KiB per site and worker that has seen it) and the length of `/metrics`.
pub const SITES_MAX: usize = 1024;
/// Origins with series of their own, the two reserved slots included.
pub const ORIGINS_MAX: usize = 1024;

/// Names of certificates with series of their own: those whose end is nearest.
pub const CERTIFICATES_MAX: usize = 1024;

/// Names this build in `perigee_build_info`.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// The version, as `0.1.0`.
    pub version: &'static str,
    /// The commit it was built from; empty when unknown.
    pub commit: &'static str,
}

/// All metrics of one process. Shared by `Arc`.
pub struct Registry {
    pub(crate) build: BuildInfo,
    pub(crate) sites: RwLock<Names>,
    pub(crate) origins: RwLock<Names>,
    pub(crate) workers: Mutex<Vec<Arc<WorkerCells>>>,
    pub(crate) shared: Shared,
    pub(crate) statistics: Statistics,
    pub(crate) readings: Mutex<Option<Box<dyn Fn() -> Readings + Send>>>,
}

/// Counters that more than one thread may add to: rare events only.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) purges: [[AtomicU64; PurgeForm::ALL.len()]; PurgeScope::ALL.len()],
    pub(crate) purges_widened: AtomicU64,
    pub(crate) distrusts: AtomicU64,
    /// Whether there is a journal at all, its positions, and whether somebody tells of it now.
    pub(crate) follows: AtomicBool,
    pub(crate) journal_position: AtomicU64,
    pub(crate) journal_head: AtomicU64,
    pub(crate) is_connected: AtomicBool,
    pub(crate) reloads_ok: AtomicU64,
    pub(crate) reloads_failed: AtomicU64,
    pub(crate) config_loaded_ms: AtomicU64,
    pub(crate) orders_issued: AtomicU64,
    pub(crate) orders_failed: AtomicU64,
    pub(crate) staples_fetched: AtomicU64,
    pub(crate) staples_failed: AtomicU64,
    pub(crate) reports_lost: AtomicU64,
    pub(crate) log_lines_lost: AtomicU64,
    pub(crate) log_write_errors: AtomicU64,
    pub(crate) log_reopens: AtomicU64,
    pub(crate) spans_sent: AtomicU64,
    pub(crate) spans_refused: AtomicU64,
    pub(crate) spans_dropped: AtomicU64,
    /// Requests to the collector that failed for good.
    pub(crate) trace_failures: AtomicU64,
}

/// Names by slot, and slots by name.
pub(crate) struct Names {
    slots: HashMap<String, Slot>,
    names: Vec<String>,
    names_max: usize,
}

impl Names {
    fn new(names_max: usize) -> Self {
        Names { slots: HashMap::new(), names: vec!["-".into(), "(others)".into()], names_max }
    }

    pub(crate) fn name(&self, slot: Slot) -> &str {
        self.names.get(slot.0 as usize).map_or("-", String::as_str)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, &str)> {
        self.names.iter().enumerate().map(|(index, name)| (Slot(index as u32), name.as_str()))
    }
}

fn slot_for(names: &RwLock<Names>, name: &str) -> Slot {
    let mut names = names.write();
    if let Some(slot) = names.slots.get(name) {
        return *slot;
    }
    if names.names.len() >= names.names_max {
        return Slot::OTHERS;
    }
    let slot = Slot(names.names.len() as u32);
    names.names.push(name.to_owned());
    names.slots.insert(name.to_owned(), slot);
    slot
}

impl Registry {
    /// An empty registry.
    pub fn new(build: BuildInfo) -> Arc<Self> {
        Arc::new(Registry {
            build,
            sites: RwLock::new(Names::new(SITES_MAX)),
            origins: RwLock::new(Names::new(ORIGINS_MAX)),
            workers: Mutex::default(),
            shared: Shared::default(),
            statistics: Statistics::default(),
            readings: Mutex::new(None),
        })
    }

    /// The slot of a site, by its name in the configuration: the same name has the same slot for ever, so counters go
    /// on over reloads. Any text. From the 1023rd name on, [`Slot::OTHERS`]. Takes a lock: call when a snapshot is
    /// installed, not per request.
    pub fn site(&self, name: &str) -> Slot {
        slot_for(&self.sites, name)
    }

    /// The name of a site's slot.
    pub fn site_name(&self, slot: Slot) -> String {
        self.sites.read().name(slot).to_owned()
    }

    /// The slot of an origin, by its name or URL in the configuration. As [`Registry::site`].
    pub fn origin(&self, name: &str) -> Slot {
        slot_for(&self.origins, name)
    }

    /// Says where to read what others keep. Called once per render, on the rendering thread; it must not call the
    /// registry's `render` itself. Replaces an earlier callback.
    pub fn read_from(&self, readings: impl Fn() -> Readings + Send + 'static) {
        *self.readings.lock() = Some(Box::new(readings));
    }

    /// Counts a purge that is in force.
    pub fn count_purge(&self, scope: PurgeScope, form: PurgeForm) {
        self.shared.purges[scope as usize][form as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts purges that dropped more than they named.
    pub fn count_widened_purges(&self, count: u64) {
        self.shared.purges_widened.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts that all that was stored has to be validated.
    pub fn count_distrust(&self) {
        self.shared.distrusts.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how far a node of a cluster has followed the journal: all up to `position` is in force, `head` is the newest that it
    /// knows of.
    pub fn follow(&self, position: u64, head: u64, is_connected: bool) {
        self.shared.journal_position.store(position, Ordering::Relaxed);
        self.shared.journal_head.store(head, Ordering::Relaxed);
        self.shared.is_connected.store(is_connected, Ordering::Relaxed);
        self.shared.follows.store(true, Ordering::Relaxed);
    }

    /// Notes that nobody tells a node of the journal now.
    pub fn lose_control(&self) {
        self.shared.is_connected.store(false, Ordering::Relaxed);
    }

    /// Counts a configuration that is in force, the first included.
    pub fn count_reload(&self, now: Wall) {
        self.shared.reloads_ok.fetch_add(1, Ordering::Relaxed);
        self.shared.config_loaded_ms.store(now.0.max(0) as u64, Ordering::Relaxed);
    }

    /// Counts a configuration that was refused; the running one stays.
    pub fn count_failed_reload(&self) {
        self.shared.reloads_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an order that ended with a certificate.
    pub fn count_issued_certificate(&self) {
        self.shared.orders_issued.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an order that came to nothing.
    pub fn count_failed_order(&self) {
        self.shared.orders_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an OCSP response that was fetched.
    pub fn count_fetched_staple(&self) {
        self.shared.staples_fetched.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt to fetch one that came to nothing.
    pub fn count_failed_staple(&self) {
        self.shared.staples_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Has all observers that are made from now on keep statistics, for somebody who calls [`Registry::take_reports`] about once a
    /// second.
    pub fn keep_statistics(&self) {
        self.statistics.turn_on();
    }

    /// The statistics that have been handed over since this was called last: a report for each second, in order. A second
    /// may come in several reports: their sum is what happened. Empty where nobody keeps any.
    pub fn take_reports(&self) -> Vec<stats::Report> {
        self.statistics.take(|| self.sites.read().to_vec())
    }

    /// Counts what a visitor's browser has said of a page view, for the next report; `false` when nobody keeps statistics, or there
    /// is no room. `group`: [`stats::rum::GROUP_BYTES_MAX`] at most, and of a bounded number.
    pub fn count_view(&self, site: Slot, country: Country, group: &str, view: &View) -> bool {
        let of = stats::rum::Of { site: site.0, country, group: group.into() };
        self.statistics.is_on() && self.statistics.count_view(of, view)
    }

    /// Notes how many reports could not be delivered, since the start.
    pub fn count_lost_reports(&self, total: u64) {
        self.shared.reports_lost.store(total, Ordering::Relaxed);
    }

    /// Reports, or parts of one, that nobody has got: dropped before they were taken, or not delivered.
    pub fn lost_reports(&self) -> u64 {
        self.statistics.lost() + self.shared.reports_lost.load(Ordering::Relaxed)
    }

    /// All metrics in Prometheus' text format 0.0.4 (`text/plain; version=0.0.4`), each family with HELP and TYPE.
    /// Series that never counted anything are left out where a label has many values. Allocates the text; takes no
    /// lock that a worker needs for counting.
    pub fn render(&self) -> String {
        crate::render::render(self)
    }

    /// The sums that a status page shows first.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let (mut durations, mut first_bytes) = (Merged::default(), Merged::default());
        for worker in self.workers() {
            let accepted = worker.connections_accepted.read();
            totals.open_connections += accepted.saturating_sub(worker.connections_closed.read());
            totals.log_lines_dropped += worker.log_lines_dropped.read();
            for site in worker.sites.lock().iter().flatten() {
                for (why, count) in Why::ALL.iter().zip(&site.whys.0) {
                    totals.requests_by_outcome[why.outcome() as usize] += count.read();
                }
                totals.personal_hits += site.personal.read();
                totals.server_errors += site.classes.0[5].read();
                site.first_bytes.iter().for_each(|histogram| first_bytes.add(histogram));
                totals.body_bytes_sent += site.body_bytes_sent.0.iter().map(|cell| cell.read()).sum::<u64>();
                site.durations.iter().for_each(|histogram| durations.add(histogram));
            }
        }
        totals.log_lines_dropped += self.shared.log_lines_lost.load(Ordering::Relaxed);
        totals.duration_p50_us = durations.quantile_us(500);
        totals.duration_p99_us = durations.quantile_us(990);
        let mut before = 0;
        for (power, bucket) in FIRST_BYTE_POWERS.zip(&mut totals.first_bytes) {
            let so_far = first_bytes.count_up_to_power(power);
            *bucket = so_far.saturating_sub(before);
            before = so_far;
        }
        totals.first_bytes[FIRST_BYTE_BUCKETS - 1] = first_bytes.count().saturating_sub(before);
        totals
    }

    pub(crate) fn workers(&self) -> Vec<Arc<WorkerCells>> {
        self.workers.lock().clone()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("build", &self.build).finish_non_exhaustive()
    }
}

/// Powers of two of a µs that bound [`Totals::first_bytes`]: near 1 ms to near 32,768 ms.
const FIRST_BYTE_POWERS: std::ops::RangeInclusive<u32> = 10..=25;

/// One for each power, and one for what is longer.
pub const FIRST_BYTE_BUCKETS: usize = 17;

/// Sums over all workers and sites since start. Of visitors' requests: probes ([`crate::Event::is_probe`]) are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Finished requests by outcome, in the order of [`Outcome::ALL`].
    pub requests_by_outcome: [u64; OUTCOMES],
    /// Finished requests with a status of 500 to 599.
    pub server_errors: u64,
    /// Hits of what may have been made for another visitor ([`crate::Event::personal`]).
    pub personal_hits: u64,
    /// Requests by the time from their complete head to the first byte of the answer: up to 1, 2, 4 … 32,768 ms (of 1,024 µs,
    /// as the histograms have it), and longer.
    pub first_bytes: [u64; FIRST_BYTE_BUCKETS],
    /// Bytes of response bodies sent.
    pub body_bytes_sent: u64,
    /// Visitors' connections open now.
    pub open_connections: u64,
    /// Log lines that never reached the log.
    pub log_lines_dropped: u64,
    /// Half of all requests took at most so many µs (within 25 %).
    pub duration_p50_us: u64,
    /// 99 % of all requests took at most so many µs (within 25 %).
    pub duration_p99_us: u64,
}

impl Totals {
    /// All finished requests.
    pub fn requests(&self) -> u64 {
        self.requests_by_outcome.iter().sum()
    }

    /// Finished requests of one outcome.
    pub fn requests_of(&self, outcome: Outcome) -> u64 {
        self.requests_by_outcome[outcome as usize]
    }
}
