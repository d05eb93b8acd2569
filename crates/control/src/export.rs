//! Statistics for other systems: what has been counted since this control began, as sums that only grow, told every few seconds to
//! whoever takes Prometheus remote-write or OTLP.
//!
//! ```text
//! rollup's writer, once a line is counted ─► Totals ─(every few seconds)─► requests ─► bounded queue ─► thread ─► one POST each
//! ```
//!
//! - Nobody waits for it: adding to [`Totals`] is adding in memory, and the queue gives up its oldest request when it is full.
//! - A request that is given up costs points on a chart, and no sum: the next one has everything again. The zero that a new series
//!   begins at is told once; where that request is given up, what came before the next one is in the sum, and not in its increase.
//! - How bytes come to a collector is not known here: each request is written to a writer as a whole, which tries as long as it likes.

mod otlp;
mod remote_write;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::clock::now_ms;
use crate::rollup::{Coord, Dim, Dims, Store, Sums};

/// How often, unless said otherwise, and what may be said.
pub const EVERY: Duration = Duration::from_secs(10);
/// More often than nodes report would say nothing new.
pub const EVERY_MIN: Duration = Duration::from_secs(1);
/// Prometheus takes a series for gone after five minutes of silence.
pub const EVERY_MAX: Duration = Duration::from_secs(120);

/// Combinations of what is told apart; those that come later share one, `(others)`. Some hundred MiB, for whoever asks for all.
pub const SERIES_MAX: usize = 50_000;

/// Requests that wait, in bytes before compression: ten minutes of a large cluster. The oldest is given up for a newer one.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Combinations in one request: some MB, below what collectors take.
const ROWS_PER_REQUEST: usize = 500;

/// How long the end waits for the last requests of all.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bounds of times to the first byte: powers of two of µs, which are bounds of the buckets that nodes count in. 256 µs to 8.4 s.
const BOUNDS: std::ops::RangeInclusive<u32> = 8..=23;

/// What a collector takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus remote-write 1.0, before Snappy.
    RemoteWrite,
    /// `ExportMetricsServiceRequest` of OTLP.
    Otlp,
}

/// What sums are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By(Dims);

impl By {
    /// From the names of dimensions: `site`, `pop`, `country`, `class`, `rule`, `status`, `why`.
    ///
    /// # Errors
    /// One is none of them: which.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<By, String> {
        let dim = |name: &'a str| Dim::ALL.into_iter().find(|dim| dim.as_str() == name).ok_or(name);
        let dims = names.into_iter().try_fold(Dims::default(), |dims, name| Ok(dims.with(dim(name)?)));
        let dims = dims.map_err(|name: &str| {
            let all: Vec<&str> = Dim::ALL.iter().map(|dim| dim.as_str()).collect();
            format!("{name:?} is nothing to tell apart; wanted some of {}", all.join(", "))
        })?;
        // Rules are numbered within their site.
        Ok(By(if dims.has(Dim::Rule) { dims.with(Dim::Site) } else { dims }))
    }
}

/// Where to, what, and how often.
pub struct Export {
    /// How it is called in metrics and messages.
    pub place: String,
    /// In which form.
    pub form: Form,
    /// What is told apart.
    pub by: By,
    /// What each series has besides: names that are good for Prometheus, and none of the dimensions'.
    pub labels: BTreeMap<String, String>,
    /// How often.
    pub every: Duration,
    /// Takes one request at a time.
    pub to: Box<dyn Write + Send>,
}

/// Requests by what became of them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// The collector has taken them.
    pub(crate) sent: AtomicU64,
    /// The collector has refused them, or was away for too long.
    pub(crate) failed: AtomicU64,
    /// There was no more room.
    pub(crate) dropped: AtomicU64,
}

/// One export that runs. Ends when it is dropped; with what was counted last, by [`end`].
pub(crate) struct Exporting {
    pub(crate) place: String,
    pub(crate) counts: Arc<Counts>,
    queue: Arc<Queue>,
}

impl Exporting {
    pub(crate) fn start(export: Export, control: &str, store: &Arc<Store>) -> Result<Exporting, String> {
        let Export { place, form, by, labels, every, to } = export;
        let totals = Arc::new(Totals::new(by.0));
        store.export(Arc::clone(&totals));
        let (queue, counts) = (Arc::new(Queue::default()), Arc::new(Counts::default()));
        let teller = Teller {
            form,
            control: control.to_owned(),
            labels,
            started_ms: now_ms(),
            store: Arc::downgrade(store),
        };
        let (told, count) = (Arc::clone(&queue), Arc::clone(&counts));
        spawn("export", move || teller.run(&totals, &told, every, &count))?;
        let (waiting, count, called) = (Arc::clone(&queue), Arc::clone(&counts), place.clone());
        spawn("export-sending", move || send(&waiting, to, &count, &called))?;
        Ok(Exporting { place, counts, queue })
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.queue.ask_for_end();
    }
}

/// Ends all of them with what was counted last, but for those whose collectors are away. Waits for two seconds at most.
pub(crate) fn end(exports: &[Exporting]) {
    exports.iter().for_each(|export| export.queue.ask_for_end());
    let until = Instant::now() + FAREWELL;
    exports.iter().for_each(|export| export.queue.wait_for_last(until));
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|error| format!("no thread for exports: {error}"))
}

fn send(queue: &Queue, mut to: Box<dyn Write + Send>, counts: &Counts, place: &str) {
    while let Some(request) = queue.pop() {
        match to.write_all(&request) {
            Ok(()) => _ = counts.sent.fetch_add(1, Ordering::Relaxed),
            // Once, and then at each power of two.
            Err(error) => {
                if (counts.failed.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
                    eprintln!("perigee: statistics for {place} are not taken: {error}");
                }
            }
        }
    }
    queue.drained();
}

// --- Sums ---

/// What was counted since the start, by what is told apart.
pub(crate) struct Totals {
    dims: Dims,
    /// `None`: all for which there was no room.
    sums: Mutex<HashMap<Option<Coord>, Total>>,
}

struct Total {
    sums: Sums,
    is_new: bool,
}

impl Totals {
    fn new(dims: Dims) -> Totals {
        Totals { dims, sums: Mutex::default() }
    }

    /// Adds cells with all dimensions.
    pub(crate) fn add(&self, cells: &HashMap<Coord, Sums>) {
        let mut all = self.sums.lock();
        for (coord, sums) in cells {
            let coord = Some(coord.only(self.dims));
            let has_room = all.len() < SERIES_MAX || all.contains_key(&coord);
            let total = all.entry(coord.filter(|_| has_room));
            total.or_insert_with(|| Total { sums: Sums::default(), is_new: true }).sums.merge(sums);
        }
    }

    /// All of them, in no order.
    fn take(&self, store: &Store) -> Vec<Row> {
        let copied: Vec<(Option<Coord>, Sums, bool)> = {
            let mut all = self.sums.lock();
            let copy = |(coord, total): (&Option<Coord>, &mut Total)| {
                (*coord, total.sums.clone(), std::mem::take(&mut total.is_new))
            };
            all.iter_mut().map(copy).collect()
        };
        let row = |(coord, sums, is_new): (Option<Coord>, Sums, bool)| {
            let of = Dim::ALL.into_iter().filter(|dim| self.dims.has(*dim));
            let text = |dim: Dim| {
                coord.map_or_else(|| "(others)".to_owned(), |coord| store.text(dim, coord.0[dim as usize]))
            };
            Row { of: of.map(|dim| (dim.as_str(), text(dim))).collect(), sums, is_new }
        };
        copied.into_iter().map(row).collect()
    }
}

/// The sums of one combination.
struct Row {
    of: Vec<(&'static str, String)>,
    sums: Sums,
    /// Whether it is told for the first time.
    is_new: bool,
}

/// What all rows of a telling have in common.
struct Telling<'a> {
    control: &'a str,
    labels: &'a BTreeMap<String, String>,
    started_ms: i64,
    /// When it was told last, or the start.
    before_ms: i64,
    at_ms: i64,
}

/// One of the sums. Its name in OTLP becomes, where Prometheus takes OTLP, the one that it has in remote-write.
struct Metric {
    name: &'static str,
    otlp: &'static str,
    unit: &'static str,
    about: &'static str,
    of: fn(&Sums) -> u64,
}

const METRICS: [Metric; 7] = [
    Metric {
        name: "perigee_cluster_requests_total",
        otlp: "perigee.cluster.requests",
        unit: "{request}",
        about: "Finished requests of visitors.",
        of: |sums| sums.requests,
    },
    Metric {
        name: "perigee_cluster_hits_total",
        otlp: "perigee.cluster.hits",
        unit: "{request}",
        about: "Requests that were answered from the cache: also stale, and revalidated as unchanged.",
        of: |sums| sums.hits,
    },
    Metric {
        name: "perigee_cluster_errors_total",
        otlp: "perigee.cluster.errors",
        unit: "{request}",
        about: "Requests that were answered with 500 to 599.",
        of: |sums| sums.errors,
    },
    Metric {
        name: "perigee_cluster_sent_bytes_total",
        otlp: "perigee.cluster.sent",
        unit: "By",
        about: "Bytes sent to visitors, heads and bodies.",
        of: |sums| sums.bytes,
    },
    Metric {
        name: "perigee_cluster_hit_sent_bytes_total",
        otlp: "perigee.cluster.hit.sent",
        unit: "By",
        about: "Of the bytes sent to visitors, those of hits.",
        of: |sums| sums.hit_bytes,
    },
    Metric {
        name: "perigee_cluster_origin_requests_total",
        otlp: "perigee.cluster.origin.requests",
        unit: "{request}",
        about: "Attempts at origins. They belong to a site, a rule and a PoP; by anything else, they are under \"-\".",
        of: |sums| sums.origin_requests,
    },
    Metric {
        name: "perigee_cluster_origin_received_bytes_total",
        otlp: "perigee.cluster.origin.received",
        unit: "By",
        about: "Bytes received from origins.",
        of: |sums| sums.origin_bytes,
    },
];

/// Times to the first byte: name, name in OTLP and a sentence; in s.
const FIRST_BYTE: [&str; 3] = [
    "perigee_cluster_first_byte_seconds",
    "perigee.cluster.first_byte",
    "From a request's complete head to the first byte of its answer.",
];

/// A bound of [`BOUNDS`] in s: exact, as a power of two of µs divided by a million can be.
fn bound_secs(power: u32) -> f64 {
    (1_u64 << power) as f64 / 1e6
}

/// Tells what was counted.
struct Teller {
    form: Form,
    control: String,
    labels: BTreeMap<String, String>,
    started_ms: i64,
    store: std::sync::Weak<Store>,
}

impl Teller {
    fn run(&self, totals: &Totals, queue: &Queue, every: Duration, counts: &Counts) {
        let mut before_ms = self.started_ms;
        let mut next = Instant::now() + every;
        loop {
            let is_over = queue.wait_for_end(next);
            next = (next + every).max(Instant::now());
            let Some(store) = self.store.upgrade() else { return queue.close() };
            // A clock that was set back tells nothing older than it has told.
            let at_ms = now_ms().max(before_ms + 1);
            let telling = Telling {
                control: &self.control,
                labels: &self.labels,
                started_ms: self.started_ms,
                before_ms,
                at_ms,
            };
            for rows in totals.take(&store).chunks(ROWS_PER_REQUEST) {
                let request = match self.form {
                    Form::RemoteWrite => remote_write::request(&telling, rows),
                    Form::Otlp => otlp::request(&telling, rows),
                };
                counts.dropped.fetch_add(queue.push(request), Ordering::Relaxed);
            }
            before_ms = at_ms;
            if is_over {
                return queue.close();
            }
        }
    }
}

// --- Requests that wait ---

/// A queue between one who tells and one who sends.
#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The end has been asked for.
    is_ending: bool,
    /// Nothing more is told.
    is_closed: bool,
    /// Nothing more is sent.
    is_drained: bool,
}

impl Queue {
    /// Returns how many were given up for it.
    fn push(&self, request: Vec<u8>) -> u64 {
        let mut state = self.state.lock();
        state.bytes += request.len();
        state.requests.push_back(request);
        let mut dropped = 0;
        while state.bytes > QUEUE_BYTES_MAX {
            let Some(oldest) = state.requests.pop_front() else { break };
            state.bytes -= oldest.len();
            dropped += 1;
        }
        self.changed.notify_all();
        dropped
    }

    /// Waits for one; `None`: there will be none.
    fn pop(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        loop {
            if let Some(request) = state.requests.pop_front() {
                state.bytes -= request.len();
                return Some(request);
            }
            if state.is_closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Waits until then. Returns whether the end has been asked for.
    fn wait_for_end(&self, until: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.is_ending && !self.changed.wait_until(&mut state, until).timed_out() {}
        state.is_ending
    }

    fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn drained(&self) {
        self.state.lock().is_drained = true;
        self.changed.notify_all();
    }

    fn ask_for_end(&self) {
        self.state.lock().is_ending = true;
        self.changed.notify_all();
    }

    /// Waits until nothing more is sent.
    fn wait_for_last(&self, until: Instant) {
        let mut state = self.state.lock();
        while !state.is_drained && !self.changed.wait_until(&mut state, until).timed_out() {}
    }
}

#[cfg(test)]
mod tests;
