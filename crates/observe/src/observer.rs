//! One worker's handle: counts what happened and formats the log line. The only writer of its counters.

use std::cell::RefCell;
use std::sync::Arc;

use semantics::Wall;

use crate::cells::{BySlot, OriginCells, SiteCells, WorkerCells, class_of};
use crate::escape;
use crate::event::{ConnectionUse, Event, FetchEnd, FetchEvent, Handshake, Hop, HopEnd, Limit, Slot};
use crate::line::{self, LineNames, Stamp, foreign};
use crate::log::{AccessLog, BUFFER_BYTES, Format, LogLink};
use crate::registry::{Names, Registry};
use crate::tally::Tally;

/// Age at which a buffer is handed over although it is not full.
const BUFFER_AGE_MAX_MS: i64 = 1000;

/// One worker's handle. Made anywhere, then moved to its worker; not shared between threads (`Send`, not `Sync`), which
/// is what makes each counter single-writer.
///
/// Dropping it hands its last lines to the log thread, waiting for room for up to 2 s. Its counts stay in the registry.
#[derive(Debug)]
pub struct Observer {
    registry: Arc<Registry>,
    cells: Arc<WorkerCells>,
    sites: RefCell<Vec<Option<Local<SiteCells>>>>,
    origins: RefCell<Vec<Option<Local<OriginCells>>>>,
    log: Option<RefCell<Lines>>,
    tally: Option<RefCell<Tally>>,
}

/// A slot as its worker knows it.
#[derive(Debug)]
struct Local<T> {
    cells: Arc<T>,
    /// The name, escaped for JSON.
    name: Box<[u8]>,
}

impl Observer {
    /// A handle for one worker. Without a log, events are only counted.
    pub fn new(registry: &Arc<Registry>, log: Option<&AccessLog>) -> Self {
        let cells = Arc::new(WorkerCells::default());
        registry.workers.lock().push(Arc::clone(&cells));
        Observer {
            registry: Arc::clone(registry),
            cells,
            sites: RefCell::default(),
            origins: RefCell::default(),
            log: log.map(|log| RefCell::new(Lines::new(log.link()))),
            tally: registry.statistics.is_on().then(|| RefCell::new(Tally::new())),
        }
    }

    /// Counts one finished request and logs it. Never waits and never fails; allocates only the first time that this
    /// worker meets a site or origin, and when a buffer is handed over.
    pub fn emit(&self, event: &Event<'_>) {
        let outcome = event.why.outcome() as usize;
        let mut sites = self.sites.borrow_mut();
        let site = local(&mut sites, event.site, |slot| self.meet_site(slot));
        match event.asked {
            Some(hop) => self.cells.asked[hop as usize].0[outcome].add(1),
            None if event.is_probe() => count(self.cells.probes.get_or_init(Arc::default), event),
            None => count(&site.cells, event),
        }
        if let Some(tally) = &self.tally {
            tally.borrow_mut().count(event, &self.registry.statistics);
        }
        let Some(log) = &self.log else { return };
        let mut origins = self.origins.borrow_mut();
        let origin: &[u8] = match &event.fetch {
            Some(fetch) => &local(&mut origins, fetch.origin, |slot| self.meet_origin(slot)).name,
            None => b"",
        };
        log.borrow_mut().append(&self.cells, event, LineNames { site: &site.name, origin });
    }

    /// Whether a line is written that tells what decides about reuse: worth finding out what [`Event::selected_by`] holds.
    pub fn writes_json(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.borrow().link.format == Format::Json)
    }

    /// Counts one finished attempt at an origin.
    pub fn emit_fetch(&self, event: &FetchEvent, now: Wall) {
        if let Some(tally) = &self.tally {
            tally.borrow_mut().count_fetch(event, now, &self.registry.statistics);
        }
        let mut origins = self.origins.borrow_mut();
        let cells = &*local(&mut origins, event.origin, |slot| self.meet_origin(slot)).cells;
        match event.end {
            FetchEnd::Answered(status) => cells.classes.0[class_of(status)].add(1),
            FetchEnd::Failed(failure) => cells.failures.0[failure as usize].add(1),
        }
        match event.connection {
            ConnectionUse::Opened { connect_us } => {
                cells.connections_opened.add(1);
                cells.connects.record(connect_us);
            }
            ConnectionUse::Reused => cells.connections_reused.add(1),
            ConnectionUse::Missing => {}
        }
        if let Some(us) = event.first_byte_us {
            cells.first_bytes.record(us);
        }
        cells.retries.add(u64::from(event.retry));
        cells.bytes_sent.add(event.bytes_sent);
        cells.bytes_received.add(event.bytes_received);
    }

    /// Counts an accepted client connection; [`Observer::connection_closed`] must follow on the same worker.
    pub fn connection_opened(&self) {
        self.cells.connections_accepted.add(1);
    }

    /// Counts the end of a client connection.
    pub fn connection_closed(&self) {
        self.cells.connections_closed.add(1);
    }

    /// Counts a limit that was reached.
    pub fn limit_reached(&self, limit: Limit) {
        self.cells.limits.0[limit as usize].add(1);
    }

    /// Counts what came of asking another edge.
    pub fn hop_ended(&self, hop: Hop, end: HopEnd) {
        self.cells.hops[hop as usize].0[end as usize].add(1);
    }

    /// Counts a TLS handshake that has ended.
    pub fn handshake_ended(&self, handshake: Handshake) {
        self.cells.handshakes.0[handshake as usize].add(1);
    }

    /// Hands over lines that are older than a second, and what was counted in a second that is over. A worker calls it some times
    /// a second, so that what came last before a quiet time arrives. Costs nothing when there is nothing.
    pub fn tick(&self, now: Wall) {
        if let Some(log) = &self.log {
            log.borrow_mut().hand_over_old(&self.cells, now);
        }
        if let Some(tally) = &self.tally {
            tally.borrow_mut().turn(now.secs(), &self.registry.statistics);
        }
    }

    #[cold]
    fn meet_site(&self, slot: Slot) -> Local<SiteCells> {
        meet(&mut self.cells.sites.lock(), &self.registry.sites.read(), slot)
    }

    #[cold]
    fn meet_origin(&self, slot: Slot) -> Local<OriginCells> {
        meet(&mut self.cells.origins.lock(), &self.registry.origins.read(), slot)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.borrow_mut().hand_over_last(&self.cells);
        }
        if let Some(tally) = &self.tally {
            tally.borrow_mut().hand_over_last(&self.registry.statistics);
        }
    }
}

/// Counts a request in its site's cells.
fn count(cells: &SiteCells, event: &Event<'_>) {
    let outcome = event.why.outcome() as usize;
    cells.whys.0[event.why as usize].add(1);
    cells.classes.0[class_of(event.status)].add(1);
    cells.body_bytes_sent.0[outcome].add(event.body_bytes_sent);
    cells.head_bytes_sent.add(event.head_bytes_sent);
    cells.bytes_received.add(event.bytes_received);
    cells.collapsed.add(u64::from(event.collapsed));
    cells.stored.add(u64::from(event.stored));
    cells.personal.add(u64::from(event.personal));
    if let Some((coding, saved)) = event.encoded {
        cells.encoded.0[coding as usize].add(1);
        cells.body_bytes_saved.add(saved);
    }
    cells.durations[outcome].record(event.duration_us);
    if event.status != 0 {
        cells.first_bytes[outcome].record(event.first_byte_us);
    }
}

fn local<T>(known: &mut Vec<Option<Local<T>>>, slot: Slot, meet: impl FnOnce(Slot) -> Local<T>) -> &Local<T> {
    let index = slot.0 as usize;
    if index >= known.len() {
        known.resize_with(index + 1, || None);
    }
    known[index].get_or_insert_with(|| meet(slot))
}

fn meet<T: Default>(cells: &mut BySlot<T>, names: &Names, slot: Slot) -> Local<T> {
    let index = slot.0 as usize;
    if index >= cells.len() {
        cells.resize_with(index + 1, || None);
    }
    let cells = Arc::clone(cells[index].get_or_insert_with(Arc::default));
    let mut name = Vec::new();
    escape::json(&mut name, names.name(slot).as_bytes());
    Local { cells, name: name.into() }
}

// --- Log lines on their way ---

/// The buffer that a worker fills.
#[derive(Debug)]
struct Lines {
    link: LogLink,
    bytes: Vec<u8>,
    count: u64,
    /// When the oldest line in `bytes` was made.
    since: Wall,
    stamp: Stamp,
}

impl Lines {
    fn new(link: LogLink) -> Self {
        Lines { link, bytes: Vec::new(), count: 0, since: Wall(0), stamp: Stamp::new() }
    }

    fn append(&mut self, cells: &WorkerCells, event: &Event<'_>, names: LineNames<'_>) {
        if self.count == 0 {
            self.since = event.wall;
            if self.bytes.capacity() == 0 {
                self.bytes = self.link.buffer();
            }
        }
        match self.link.format {
            Format::Json => line::write_json(&mut self.bytes, &mut self.stamp, event, names),
            Format::Combined => line::write_combined(&mut self.bytes, &mut self.stamp, event),
            Format::Cloudfront => foreign::write_cloudfront(&mut self.bytes, &mut self.stamp, event),
            Format::Logpush => foreign::write_logpush(&mut self.bytes, &mut self.stamp, event, names),
        }
        self.count += 1;
        cells.log_lines.add(1);
        if self.bytes.len() >= BUFFER_BYTES {
            self.hand_over(cells);
        } else {
            self.hand_over_old(cells, event.wall);
        }
    }

    fn hand_over_old(&mut self, cells: &WorkerCells, now: Wall) {
        // A clock set back counts as old: else lines could wait for hours.
        let age_ms = now.0.saturating_sub(self.since.0);
        if self.count > 0 && !(0..BUFFER_AGE_MAX_MS).contains(&age_ms) {
            self.hand_over(cells);
        }
    }

    fn hand_over(&mut self, cells: &WorkerCells) {
        if let Err(mut refused) = self.link.try_send(std::mem::take(&mut self.bytes)) {
            cells.log_lines_dropped.add(self.count);
            refused.clear();
            self.bytes = refused;
        }
        self.count = 0;
    }

    fn hand_over_last(&mut self, cells: &WorkerCells) {
        if self.count > 0 && !self.link.send_at_last(std::mem::take(&mut self.bytes)) {
            cells.log_lines_dropped.add(self.count);
        }
        self.count = 0;
    }
}

#[cfg(test)]
pub(crate) mod tests;
