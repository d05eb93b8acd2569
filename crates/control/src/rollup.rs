//! Statistics of the whole cluster, as long as they are kept: what nodes report, summed over time and places in a database beside
//! the journal.
//!
//! ```text
//! feed ─► Store::count ─► queue ─► thread: once each? ─► cells ─► views ─► one transaction ─► confirmed
//!                                                              1 s ─(a minute is over)─► 1 min ─► 1 h ─► 1 day
//! queries ─► connections of their own ─► the smallest view that has what is asked for
//! ```
//!
//! - A **view** ([`cells::Dims`]) has the sums by some of the dimensions. There is one for each that somebody may ask for over a
//!   year, and one with all of them, which is kept while it is small: [`VIEWS`].
//! - A bucket is in one row for each view. What comes late is added to its own bucket, and to each coarser one that has been summed
//!   up already; so nothing is counted twice, and nothing is lost by coming late.
//! - What a node has said is counted once, whoever repeats it: in the same transaction, it is noted ([`seen`]).

mod cells;
mod database;
#[cfg(feature = "measure")]
pub mod measure;
mod query;
mod rum;
mod seen;
mod top;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use journal::feed::{Confirm, Counted, Statistics};
use parking_lot::Mutex;
use rusqlite::Connection;
use stats::{Cell, Key, Report};

use crate::clock::now_ms;
use crate::export::Totals;

pub(crate) use cells::{Coord, Dim, Dims, Sums};
pub(crate) use query::{Answer, Ask, CannotSay, POINTS_MAX, Series};
pub(crate) use rum::{By as RumBy, RumAnswer, RumAsk};
pub(crate) use top::{Top, TopAsk};

use database::Database;

/// How the time is cut: seconds, minutes, hours, days. In s.
pub(crate) const STEPS: [i64; 4] = [1, 60, 3_600, 86_400];

/// For how long buckets of each step are kept, in s: an hour, a week, and thirteen months with a day to spare.
pub(crate) const KEPT: [i64; 4] = [3_600, 7 * 86_400, 400 * 86_400, 400 * 86_400];

/// The views that are kept, the smallest first. Whoever asks for something gets it from the first one that has it.
pub(crate) const VIEWS: &[Dims] = &[
    Dims(Dims::POP),
    Dims(Dims::SITE),
    Dims(Dims::POP | Dims::STATUS),
    Dims(Dims::POP | Dims::WHY),
    Dims(Dims::POP | Dims::CLASS),
    Dims(Dims::SITE | Dims::STATUS),
    Dims(Dims::SITE | Dims::RULE),
    Dims(Dims::SITE | Dims::WHY),
    Dims(Dims::SITE | Dims::CLASS),
    Dims(Dims::POP | Dims::COUNTRY),
    Dims(Dims::SITE | Dims::COUNTRY),
    Dims(Dims::SITE | Dims::POP),
    Dims::ALL,
];

/// Cells of a bucket in the view with all dimensions; with more, that bucket has none. A small cluster stays below it for ever; a
/// large one would need terabytes.
pub(crate) const ALL_CELLS_MAX: usize = 2_000;

/// Names that are told apart, of sites, PoPs, reasons and groups of pages, and kept for good; what comes later is `(others)`.
const NAMES_MAX: usize = 20_000;

/// How many there may be for one more that is the part of a path: browsers say those, and must not take the room of sites.
const NAMES_BEFORE_PATHS_MAX: usize = NAMES_MAX / 2;

/// Lines that may wait, and bytes of them: some seconds of the largest cluster. What is more is not confirmed, and said again.
const QUEUE_LINES_MAX: usize = 8_192;
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// How long lines are gathered for one transaction.
const GATHER: Duration = Duration::from_millis(400);

/// How far a node's clock may be off, in s. What is further is counted when it came.
const CLOCK_AHEAD_MAX: i64 = 60;

/// How often is looked what can be summed up or forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// The store. Ends with its last holder, when what waits has been written.
pub(crate) struct Store {
    queue: SyncSender<Message>,
    queued_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    is_ending: Arc<AtomicBool>,
}

/// What queries and the thread know.
struct Shared {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    counts: Counts,
    names: Mutex<Names>,
    /// What is added to besides, once it is written.
    exported: Mutex<Vec<Arc<Totals>>>,
}

/// What the store counts, for metrics.
#[derive(Default)]
pub(crate) struct Counts {
    /// Lines counted.
    pub(crate) lines: AtomicU64,
    /// Lines that had been counted before.
    pub(crate) repeated: AtomicU64,
    /// Lines that could not be read.
    pub(crate) damaged: AtomicU64,
    /// Lines for which there was no room.
    pub(crate) refused: AtomicU64,
    /// Transactions that failed.
    pub(crate) failed: AtomicU64,
}

enum Message {
    Line(Waiting),
    Wake,
}

/// A line, and who waits for it.
struct Waiting {
    line: Arc<Statistics>,
    pop: String,
    confirm: Confirm,
}

/// Sites and PoPs by number.
#[derive(Default)]
struct Names {
    numbers: HashMap<String, u32>,
    texts: HashMap<u32, String>,
}

impl Names {
    fn insert(&mut self, number: u32, text: &str) {
        self.numbers.insert(text.to_owned(), number);
        self.texts.insert(number, text.to_owned());
    }

    fn text(&self, number: u32) -> String {
        self.texts.get(&number).cloned().unwrap_or_else(|| "-".to_owned())
    }
}

impl Store {
    /// Opens or makes the database, and starts the thread that writes it.
    ///
    /// # Errors
    /// It cannot be opened: why.
    pub(crate) fn open(path: &Path) -> Result<Arc<Store>, String> {
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            readers: Mutex::default(),
            counts: Counts::default(),
            names: Mutex::default(),
            exported: Mutex::default(),
        });
        let opened = Database::open(path, &mut shared.names.lock());
        let database = opened.map_err(|error| format!("{}: {error}", path.display()))?;
        let (queue, waiting) = sync_channel(QUEUE_LINES_MAX);
        let (queued_bytes, is_ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut writer = Writer {
            database,
            shared: Arc::clone(&shared),
            queued_bytes: Arc::clone(&queued_bytes),
            is_ending: Arc::clone(&is_ending),
        };
        let thread = std::thread::Builder::new()
            .name("statistics".into())
            .spawn(move || writer.run(&waiting))
            .map_err(|error| format!("no thread for statistics: {error}"))?;
        Ok(Arc::new(Store { queue, queued_bytes, shared, thread: Mutex::new(Some(thread)), is_ending }))
    }

    /// Takes a line of a node of this PoP. Without room it is refused, and said again some time.
    pub(crate) fn count(&self, line: Arc<Statistics>, pop: String, confirm: Confirm) {
        let bytes = line.report.len();
        let is_too_much = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX;
        let waiting = Message::Line(Waiting { line, pop, confirm });
        if is_too_much
            || matches!(
                self.queue.try_send(waiting),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
            )
        {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds to these, from now on, what has been written down.
    pub(crate) fn export(&self, totals: Arc<Totals>) {
        self.shared.exported.lock().push(totals);
    }

    /// The text of a dimension's value.
    pub(crate) fn text(&self, dim: Dim, value: u32) -> String {
        cells::text_of(dim, value).unwrap_or_else(|| self.shared.names.lock().text(value))
    }

    /// What it has counted of itself.
    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Answers a question. Waits for the disk.
    pub(crate) fn ask(&self, ask: &Ask) -> Result<Answer, CannotSay> {
        self.shared.read(|connection, names| query::answer(connection, names, ask))
    }

    /// Of these sites or PoPs, those of which anything has been counted, however long ago. Waits for the disk.
    pub(crate) fn counted(
        &self,
        dim: Dim,
        mut names: Vec<String>,
        now: i64,
    ) -> Result<Vec<String>, CannotSay> {
        {
            let known = self.shared.names.lock();
            names.retain(|name| known.numbers.contains_key(name));
        }
        if names.is_empty() {
            return Ok(names);
        }
        let (coarsest, kept) = (STEPS.len() - 1, KEPT[STEPS.len() - 1]);
        let ask = Ask {
            from: now - kept,
            to: now + CLOCK_AHEAD_MAX,
            step: Some(coarsest),
            by: Some(dim),
            filters: BTreeMap::from([(dim, names)]),
            with_points: false,
            now,
        };
        Ok(self.ask(&ask)?.series.into_iter().map(|series| series.key).collect())
    }

    /// The URLs that were asked for most. Waits for the disk.
    pub(crate) fn top(&self, ask: &TopAsk) -> Result<Top, CannotSay> {
        self.shared.read(|connection, names| top::answer(connection, names, ask))
    }

    /// What browsers have told of page views. Waits for the disk.
    pub(crate) fn rum(&self, ask: &RumAsk) -> Result<RumAnswer, CannotSay> {
        self.shared.read(|connection, names| rum::answer(connection, names, ask))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        // A full queue wakes it as well.
        let _full = self.queue.try_send(Message::Wake);
        if let Some(thread) = self.thread.lock().take() {
            // It panics only with what it was doing, which is told elsewhere.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection, &Mutex<Names>) -> Result<T, CannotSay>,
    ) -> Result<T, CannotSay> {
        let kept = self.readers.lock().pop();
        let connection = kept.map_or_else(|| database::open_reader(&self.path), Ok)?;
        let done = work(&connection, &self.names);
        let mut readers = self.readers.lock();
        if readers.len() < database::READERS_MAX {
            readers.push(connection);
        }
        done
    }
}

// --- Writing ---

/// The thread that writes.
struct Writer {
    database: Database,
    shared: Arc<Shared>,
    queued_bytes: Arc<AtomicUsize>,
    is_ending: Arc<AtomicBool>,
}

/// What is written together.
#[derive(Default)]
struct Batch {
    /// Cells with all dimensions, by second.
    seconds: BTreeMap<i64, HashMap<Coord, Sums>>,
    tops: top::Gathered,
    views: rum::Gathered,
}

impl Writer {
    fn run(&mut self, queue: &Receiver<Message>) {
        let mut kept_house = Instant::now();
        loop {
            let mut lines = Vec::new();
            let is_over = self.gather(queue, &mut lines);
            if !lines.is_empty() {
                self.write(lines);
            }
            if kept_house.elapsed() >= HOUSEKEEPING {
                match self.database.keep_house(now_ms() / 1000) {
                    // At once again, behind the lines that have come.
                    Ok(true) => {}
                    Ok(false) => kept_house = Instant::now(),
                    Err(error) => {
                        kept_house = Instant::now();
                        self.tell(&error);
                    }
                }
            }
            if is_over || self.is_ending.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Waits for lines, and for those that come right behind. Returns whether there will be no more.
    fn gather(&self, queue: &Receiver<Message>, lines: &mut Vec<Waiting>) -> bool {
        let mut until = Instant::now() + HOUSEKEEPING;
        loop {
            match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Line(waiting)) => {
                    self.queued_bytes.fetch_sub(waiting.line.report.len(), Ordering::Relaxed);
                    if lines.is_empty() {
                        until = Instant::now() + GATHER;
                    }
                    lines.push(waiting);
                }
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    fn write(&mut self, lines: Vec<Waiting>) {
        match self.try_write(&lines) {
            Ok(()) => {
                for waiting in lines {
                    // Who is gone says it again to somebody, and hears of it then.
                    let _full = waiting.confirm.try_send(Counted::of(&waiting.line));
                }
            }
            // Nothing was confirmed: it all is said again.
            Err(error) => self.tell(&error),
        }
    }

    fn tell(&self, error: &rusqlite::Error) {
        // Once, and then at each power of two: a full disk is told, not recited.
        if (self.shared.counts.failed.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
            eprintln!("perigee: {}: statistics are not written: {error}", self.shared.path.display());
        }
    }

    fn try_write(&mut self, lines: &[Waiting]) -> Result<(), rusqlite::Error> {
        let (now, counts) = (now_ms() / 1000, &self.shared.counts);
        let mut work = self.database.begin(&self.shared.names)?;
        let mut batch = Batch::default();
        for Waiting { line, pop, .. } in lines {
            if !work.is_new(line, now) {
                counts.repeated.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let report = BASE64_STANDARD.decode(&line.report).map_err(|error| error.to_string());
            let report =
                report.and_then(|bytes| Report::decode(&bytes).map_err(|damaged| damaged.to_string()));
            match report {
                Ok(report) => {
                    counts.lines.fetch_add(1, Ordering::Relaxed);
                    batch.add(&mut work, report, pop, now)?;
                }
                Err(why) => {
                    if counts.damaged.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("perigee: statistics of {} cannot be read: a report {why}", line.node);
                    }
                }
            }
        }
        let seconds = batch.write(work)?;
        for totals in &*self.shared.exported.lock() {
            seconds.values().for_each(|cells| totals.add(cells));
        }
        Ok(())
    }
}

impl Batch {
    fn add(
        &mut self,
        work: &mut database::Work<'_>,
        report: Report,
        pop: &str,
        now: i64,
    ) -> Result<(), rusqlite::Error> {
        let is_odd = report.second > now + CLOCK_AHEAD_MAX || report.second < now - KEPT[0];
        let second = if is_odd { now } else { report.second };
        let pop = work.number(pop)?;
        let sites = report.sites.iter().map(|site| work.number(site)).collect::<Result<Vec<u32>, _>>()?;
        let cells = self.seconds.entry(second).or_default();
        for (key, cell) in &report.cells {
            let site = sites.get(key.site as usize).copied().unwrap_or_default();
            let why = key.why.map_or(Ok(0), |why| work.number(why.as_str()))?;
            cells.entry(Coord::of(key, site, pop, why)).or_default().merge(&Sums::of(key, cell));
        }
        self.tops.add(second, pop, &sites, report.lists, report.examples);
        self.views.add(work, second, pop, &sites, report.views)
    }

    /// Returns the cells that have been written.
    fn write(
        self,
        mut work: database::Work<'_>,
    ) -> Result<BTreeMap<i64, HashMap<Coord, Sums>>, rusqlite::Error> {
        for (second, cells) in &self.seconds {
            for view in VIEWS {
                let mut folded: HashMap<Coord, Sums> = HashMap::new();
                for (coord, sums) in cells {
                    folded.entry(coord.only(*view)).or_default().merge(sums);
                }
                work.add_cells(0, *view, *second, folded)?;
            }
        }
        self.tops.write(&mut work)?;
        self.views.write(&mut work)?;
        work.commit()?;
        Ok(self.seconds)
    }
}

impl Sums {
    /// What a node's cell counts as.
    fn of(key: &Key, cell: &Cell) -> Self {
        let is_error = key.status == stats::Status::ServerError;
        Sums {
            requests: cell.requests,
            hits: if key.is_hit() { cell.requests } else { 0 },
            errors: if is_error { cell.requests } else { 0 },
            bytes: cell.bytes,
            hit_bytes: if key.is_hit() { cell.bytes } else { 0 },
            origin_requests: cell.origin_requests,
            origin_bytes: cell.origin_bytes,
            first_byte: cell.first_byte.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
