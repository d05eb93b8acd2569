//! The thread that writes one disk, and the queue that leads to it. Whoever asks never waits: when the queue is full, the
//! copy is given up and counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::format::Run;
use super::index::Place;
use super::log::{Asked, Draft, Log, Now, Older};
use super::media::Shelf;
use super::snapshot::{self, Prepared, Snapshot};
use super::volume::{Health, Ledger, Volume, count};

/// Bytes that may wait to be written: about half a second of a fast disk's work.
const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// Values up to this have a part of the queue of their own.
const SMALL_BYTES: u64 = 64 << 10;

/// Things for which a queue keeps room when it is empty: a full one of small values takes tens of megabytes.
pub(crate) const ROOM_KEPT: usize = 1024;

/// How long what was appended waits for company before it is written: small values share blocks, and `kill -9` takes no more
/// than this.
const LINGER: Duration = Duration::from_millis(100);

/// How often what was written is made safe from a loss of power.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// Steps of eviction for each thing that is written: what is copied forward needs segments too.
const ROOM_STEPS: u32 = 4;

/// How long a failed write keeps the next one waiting.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the index is written, at most; and how many times its size must have been filled since.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);
const SNAPSHOT_FILL_TIMES: u64 = 16;

/// Minutes since 1970, from wherever the owner takes its time.
pub(crate) type Minutes = Arc<dyn Fn() -> u32 + Send + Sync>;

/// What is asked of a writer.
pub(crate) enum Item {
    Value(Asked),
    Removal { key: u128, ticket: u64 },
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    stop: bool,
}

/// What waits to be written to one disk.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    bytes: AtomicU64,
    /// Seconds since the oldest segment's use began.
    oldest_secs: AtomicU64,
}

impl Queue {
    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn oldest_secs(&self) -> u64 {
        self.oldest_secs.load(Ordering::Relaxed)
    }

    /// Nothing is taken any more after [`Queue::stop`].
    fn push(&self, item: Item) {
        let mut waiting = self.waiting.lock();
        if !waiting.stop {
            waiting.items.push_back(item);
            self.wake.notify_one();
        }
    }

    fn is_stopped(&self) -> bool {
        self.waiting.lock().stop
    }

    /// The next thing to do; waits for it if there is none.
    pub(crate) fn pop(&self, patience: Duration) -> Next {
        let mut waiting = self.waiting.lock();
        if waiting.items.is_empty() && !waiting.stop {
            if waiting.items.capacity() > ROOM_KEPT {
                waiting.items = VecDeque::new();
            }
            self.wake.wait_for(&mut waiting, patience);
        }
        match waiting.items.pop_front() {
            Some(Item::Value(asked)) => {
                self.bytes.fetch_sub(asked.draft.bytes(), Ordering::Relaxed);
                Next::Item(Item::Value(asked))
            }
            Some(item) => Next::Item(item),
            None if waiting.stop => Next::Stop,
            None => Next::Nothing,
        }
    }

    /// Asks for the end, once all that waits is written.
    pub(crate) fn stop(&self) {
        self.waiting.lock().stop = true;
        self.wake.notify_one();
    }
}

/// What a writer is to do.
pub(crate) enum Next {
    Item(Item),
    Nothing,
    Stop,
}

/// Asks for a value to be written, in place of the key's former one. `false`, counted, when it won't be: as when as many bytes
/// wait as may.
pub(crate) fn put(volume: &Volume, queue: &Queue, draft: Draft, waiting_max: u64) -> bool {
    let bytes = draft.bytes();
    let mut ledger = volume.ledger.lock();
    if queue.is_stopped() || !may_wait(bytes, queue.bytes(), waiting_max.min(QUEUE_BYTES_MAX)) {
        count(&volume.counts.refused_queue_full, 1);
        return false;
    }
    ledger.tickets += 1;
    let ticket = ledger.tickets;
    let old = volume.index.remove_if(draft.key, |_| true);
    let waiting = ledger.waiting.entry(draft.key).or_insert(0);
    *waiting += 1;
    let is_first = *waiting == 1;
    let may_return = ledger.removed.contains_key(&draft.key) || ledger.unsynced.contains(&draft.key);
    let replaces = match old.map(|place| volume.sequence(place.segment)) {
        Some(sequence) if is_first && sequence > 0 => Some(Older::In(sequence)),
        None if is_first && !may_return => None,
        _ => Some(Older::Anywhere),
    };
    queue.bytes.fetch_add(bytes, Ordering::Relaxed);
    queue.push(Item::Value(Asked { draft, ticket, replaces }));
    true
}

/// Whether so many bytes may wait beside those that do: small values alone have the last eighth, and alone one of any size may.
fn may_wait(bytes: u64, waiting: u64, waiting_max: u64) -> bool {
    let kept_free = if bytes <= SMALL_BYTES { 0 } else { waiting_max / 8 };
    waiting == 0 || waiting + bytes <= waiting_max - kept_free
}

/// Takes a key out, at once and for good. `false` when the disk has nothing under it.
pub(crate) fn remove(volume: &Volume, queue: &Queue, key: u128) -> bool {
    let mut ledger = volume.ledger.lock();
    let is_removed = volume.index.remove_if(key, |_| true).is_some() || ledger.waiting.contains_key(&key);
    if is_removed {
        count(&volume.counts.removed, 1);
        ask_removal(&mut ledger, queue, key);
    }
    is_removed
}

/// Forgets a record that is not what was written, for good, unless something else has come to its place meanwhile.
pub(crate) fn forget_damaged(volume: &Volume, queue: &Queue, key: u128, place: &Place) {
    let mut ledger = volume.ledger.lock();
    if volume.index.remove_if(key, |found| found.is(place)).is_some() {
        count(&volume.counts.damaged, 1);
        ask_removal(&mut ledger, queue, key);
    }
}

fn ask_removal(ledger: &mut Ledger, queue: &Queue, key: u128) {
    ledger.tickets += 1;
    let ticket = ledger.tickets;
    ledger.removed.insert(key, ticket);
    queue.push(Item::Removal { key, ticket });
}

/// Starts the thread; what [`Writer::end`] says comes out of it.
pub(crate) fn start(mut writer: Writer) -> std::io::Result<JoinHandle<bool>> {
    std::thread::Builder::new().name("disk-writer".into()).spawn(move || writer.run())
}

/// What the thread does, step by step.
pub(crate) struct Writer {
    volume: Arc<Volume>,
    log: Log,
    queue: Arc<Queue>,
    shelf: Arc<dyn Shelf>,
    minutes: Minutes,
    started: Instant,
    /// Removals that could not be written yet, with the last ticket of each key: one at that covers all before.
    removals: BTreeMap<u128, u64>,
    /// The last ticket that came out of the queue.
    popped: u64,
    /// The run that was begun with this start, and the one that the volume has come to: one more for each disk dropped since.
    first_run: Run,
    run: Run,
    is_void: bool,
    paused_until: Duration,
    flushed: Duration,
    synced: Duration,
    snapshot: Snapshots,
}

struct Snapshots {
    generation: u64,
    /// When it was last looked whether one is due.
    looked: Duration,
    taken: Duration,
    filled_bytes: u64,
    running: Option<JoinHandle<Option<Prepared>>>,
    prepared: Option<Prepared>,
}

impl Writer {
    /// - `run`: which was begun for this start.
    /// - `generation`: of the newest index snapshot.
    pub(crate) fn new(
        log: Log,
        queue: Arc<Queue>,
        shelf: Arc<dyn Shelf>,
        minutes: Minutes,
        run: Run,
        generation: u64,
    ) -> Self {
        Writer {
            volume: log.volume().clone(),
            log,
            queue,
            shelf,
            minutes,
            started: Instant::now(),
            removals: BTreeMap::new(),
            popped: 0,
            first_run: run,
            run,
            is_void: false,
            paused_until: Duration::ZERO,
            flushed: Duration::ZERO,
            synced: Duration::ZERO,
            snapshot: Snapshots {
                generation,
                looked: Duration::ZERO,
                taken: Duration::ZERO,
                filled_bytes: 0,
                running: None,
                prepared: None,
            },
        }
    }

    fn run(&mut self) -> bool {
        loop {
            let next = self.queue.pop(LINGER);
            // Taken after the wait, which may have been long.
            let now = self.now();
            if matches!(next, Next::Stop) {
                return self.end(now);
            }
            self.step(next, now);
            self.snapshot_if_due(now);
        }
    }

    /// Does what is next, and what is due beside it.
    pub(crate) fn step(&mut self, next: Next, now: Now) {
        let is_idle = match next {
            Next::Item(Item::Value(asked)) => {
                self.popped = asked.ticket;
                // What could not be removed before goes first, so that it doesn't take the new value with it.
                let may_write = self.write_removals(now);
                if !may_write || self.log.append(&asked, now).is_err() {
                    self.pause_after_failure(now);
                    self.log.give_up_waiting(&asked);
                }
                false
            }
            Next::Item(Item::Removal { key, ticket }) => {
                self.popped = ticket;
                self.await_removal(key, ticket);
                false
            }
            Next::Nothing | Next::Stop => true,
        };
        self.tend(is_idle, now);
    }

    /// What is to be done beside appending.
    fn tend(&mut self, is_idle: bool, now: Now) {
        if self.volume.health() == Health::Failed {
            return self.retire(now);
        }
        if !self.write_removals(now) {
            return;
        }
        if !self.log.has_pending() {
            self.flushed = now.monotonic;
        } else if is_idle || now.monotonic.saturating_sub(self.flushed) >= LINGER {
            self.flushed = now.monotonic;
            if self.log.flush().is_err() {
                return self.pause_after_failure(now);
            }
        }
        for step in 1.. {
            match self.log.make_room(now) {
                Ok(true) if is_idle || step < ROOM_STEPS => {}
                Ok(_) => break,
                Err(_counted) => return self.pause_after_failure(now),
            }
        }
        if now.monotonic.saturating_sub(self.synced) >= SYNC_INTERVAL {
            self.synced = now.monotonic;
            let _counted = self.log.sync();
            self.log.buffers().trim();
            let oldest =
                self.log.oldest_began().map_or(0, |began| now.monotonic.saturating_sub(began).as_secs());
            self.queue.oldest_secs.store(oldest, Ordering::Relaxed);
        }
        self.outlive_dropped(now);
        self.finish_snapshot();
    }

    /// Appends the removals that wait; whether all are, and writing may go on.
    fn write_removals(&mut self, now: Now) -> bool {
        for (key, ticket) in self.log.take_lost_removals() {
            self.await_removal(key, ticket);
        }
        if self.is_paused(now) {
            return false;
        }
        while let Some((key, ticket)) = self.removals.pop_first() {
            if self.log.append_removal(key, ticket, now).is_err() {
                self.await_removal(key, ticket);
                self.pause_after_failure(now);
                return false;
            }
        }
        true
    }

    fn await_removal(&mut self, key: u128, ticket: u64) {
        let last = self.removals.entry(key).or_insert(ticket);
        *last = ticket.max(*last);
    }

    /// This disk was dropped: what is removed or replaced from now on would be found on it by the next start. So it is to be
    /// begun anew then. Here it says so itself, as far as it can still be written.
    fn retire(&mut self, now: Now) {
        let _nobody_asks = (self.log.take_lost_removals(), std::mem::take(&mut self.removals));
        let ledger = std::mem::take(&mut self.volume.ledger.lock().removed);
        drop(ledger);
        if !self.is_void && now.monotonic >= self.paused_until {
            self.paused_until = now.monotonic + PAUSE;
            self.is_void = self.log.void().is_ok();
        }
    }

    /// Other disks were dropped: this one comes to another run, which they have missed.
    fn outlive_dropped(&mut self, now: Now) {
        let run = Run(self.first_run.0 + self.volume.dropped());
        if run > self.run {
            match self.log.begin_run(run) {
                Ok(()) => self.run = run,
                Err(_counted) => self.pause_after_failure(now),
            }
        }
    }

    fn is_paused(&self, now: Now) -> bool {
        now.monotonic < self.paused_until || self.volume.health() == Health::Failed
    }

    fn pause_after_failure(&mut self, now: Now) {
        if now.monotonic >= self.paused_until {
            self.paused_until = now.monotonic + PAUSE;
        }
    }

    fn snapshot_if_due(&mut self, now: Now) {
        if self.snapshot.running.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(ended) = self.snapshot.running.take()
        {
            self.snapshot.prepared = ended.join().ok().flatten();
        }
        if self.snapshot.running.is_some() || self.snapshot.prepared.is_some() {
            return;
        }
        if let Some(snapshot) = self.due_snapshot(now) {
            let (volume, shelf) = (self.volume.clone(), self.shelf.clone());
            let thread = std::thread::Builder::new().name("disk-snapshot".into());
            let prepare = move || {
                let prepared = snapshot::prepare(&volume, &*shelf, snapshot);
                prepared.inspect_err(|error| report(&volume, error)).ok()
            };
            // Without it the next start reads more footers.
            self.snapshot.running = thread.spawn(prepare).ok();
        }
    }

    /// Removals that wait, to be written when they can be.
    #[cfg(test)]
    pub(crate) fn waiting_removals(&self) -> usize {
        self.removals.len()
    }

    /// Takes a snapshot that has been prepared, to finish it when the time has come.
    #[cfg(test)]
    pub(crate) fn take_prepared(&mut self, prepared: Prepared) {
        self.snapshot.prepared = Some(prepared);
    }

    /// Finishes the snapshot, once all is on the disk that it may miss.
    fn finish_snapshot(&mut self) {
        let is_due = |prepared: &mut Prepared| prepared.through_ticket <= self.popped;
        let Some(prepared) = self.snapshot.prepared.take_if(is_due) else { return };
        if self.log.flush().is_ok()
            && self.removals.is_empty()
            && self.log.sync().is_ok()
            && let Err(error) = snapshot::finish(&self.volume, &prepared)
        {
            report(&self.volume, &error);
        }
    }

    /// Begins a snapshot of the index, if it is time for one.
    pub(crate) fn due_snapshot(&mut self, now: Now) -> Option<Snapshot> {
        if now.monotonic.saturating_sub(self.snapshot.looked) < SYNC_INTERVAL {
            return None;
        }
        self.snapshot.looked = now.monotonic;
        let filled = self.volume.counts.filled_bytes.load(Ordering::Relaxed);
        let is_due = now.monotonic.saturating_sub(self.snapshot.taken) >= SNAPSHOT_INTERVAL
            && self.removals.is_empty()
            && !self.is_paused(now)
            && filled - self.snapshot.filled_bytes >= SNAPSHOT_FILL_TIMES * self.volume.index.memory_bytes();
        if !is_due || self.log.flush().is_err() || self.log.sync().is_err() {
            return None;
        }
        (self.snapshot.taken, self.snapshot.filled_bytes) = (now.monotonic, filled);
        self.snapshot.generation += 1;
        Some(self.log.snapshot(self.snapshot.generation))
    }

    /// Everything to the disk, and the index with it. Whether the next start will know what has been removed.
    pub(crate) fn end(&mut self, now: Now) -> bool {
        // Twice: what finds no room in its segment has that of another then.
        for _ in 0..2 {
            self.paused_until = Duration::ZERO;
            self.tend(true, now);
        }
        if let Some(running) = self.snapshot.running.take() {
            let _ = running.join();
        }
        if self.volume.health() != Health::Failed {
            let _given_up = self.log.flush();
        }
        // Also when the disk is full: what is removed and cannot be written is missing in the index as it is written here.
        let is_written = self.volume.health() != Health::Failed && self.log.sync().is_ok() && {
            let snapshot = self.log.snapshot(self.snapshot.generation + 1);
            let prepared = snapshot::prepare(&self.volume, &*self.shelf, snapshot);
            let written = prepared.and_then(|prepared| snapshot::finish(&self.volume, &prepared));
            written.inspect_err(|error| report(&self.volume, error)).is_ok()
        };
        // What is still read from it is verified, whoever writes it now.
        self.volume.media.release();
        let ledger = self.volume.ledger.lock();
        is_written || ledger.removed.is_empty() && ledger.unsynced.is_empty()
    }

    fn now(&self) -> Now {
        Now { minutes: (self.minutes)(), monotonic: self.started.elapsed() }
    }
}

fn report(volume: &Volume, error: &std::io::Error) {
    eprintln!(
        "perigee: {}: the index cannot be written, so the next start takes longer: {error}",
        volume.name
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_small_may_wait_where_slices_may_not_any_more() {
        const MIB: u64 = 1 << 20;
        assert!(may_wait(MIB, 6 * MIB, 8 * MIB));
        assert!(!may_wait(MIB + 1, 6 * MIB, 8 * MIB));
        assert!(may_wait(SMALL_BYTES, 8 * MIB - SMALL_BYTES, 8 * MIB));
        assert!(!may_wait(SMALL_BYTES, 8 * MIB - SMALL_BYTES + 1, 8 * MIB));
        assert!(may_wait(MIB, 0, 1) && !may_wait(1, 1, 1));
    }
}
