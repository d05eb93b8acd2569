//! The thread that writes one disk, and the queue that leads to it. Whoever asks never waits: when the queue is full, the
//! copy is given up and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::log::{Asked, Draft, Log, Now};
use super::media::Shelf;
use super::snapshot;
use super::volume::{Health, Volume, count};

/// Bytes that may wait to be written: about half a second of a fast disk's work.
const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// How long what was appended waits for company before it is written: small values share blocks, and `kill -9` takes no more
/// than this.
const LINGER: Duration = Duration::from_millis(100);

/// How often what was written is made safe from a loss of power.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// How long a failed write keeps the next one waiting.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the index is written, at most; and how many times its size must have been filled since.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);
const SNAPSHOT_FILL_TIMES: u64 = 16;

/// Minutes since 1970, from wherever the owner takes its time.
pub(crate) type Minutes = Arc<dyn Fn() -> u32 + Send + Sync>;

enum Item {
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

    fn push(&self, item: Item) {
        self.waiting.lock().items.push_back(item);
        self.wake.notify_one();
    }

    fn pop(&self, patience: Duration) -> Next {
        let mut waiting = self.waiting.lock();
        if waiting.items.is_empty() && !waiting.stop {
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

enum Next {
    Item(Item),
    Nothing,
    Stop,
}

/// Asks for a value to be written, in place of the key's former one. `false`, counted, when it won't be.
pub(crate) fn put(volume: &Volume, queue: &Queue, draft: Draft) -> bool {
    let bytes = draft.bytes();
    let mut ledger = volume.ledger.lock();
    if queue.bytes() + bytes > QUEUE_BYTES_MAX {
        count(&volume.counts.refused_queue_full, 1);
        return false;
    }
    ledger.tickets += 1;
    let ticket = ledger.tickets;
    let waiting = ledger.waiting.entry(draft.key).or_insert(0);
    let replaces = volume.index.remove_if(draft.key, |_| true).is_some() || *waiting > 0;
    *waiting += 1;
    queue.bytes.fetch_add(bytes, Ordering::Relaxed);
    queue.push(Item::Value(Asked { draft, ticket, replaces }));
    true
}

/// Takes a key out, at once and for good. `false` when the disk has nothing under it.
pub(crate) fn remove(volume: &Volume, queue: &Queue, key: u128) -> bool {
    let mut ledger = volume.ledger.lock();
    if volume.index.remove_if(key, |_| true).is_none() && !ledger.waiting.contains_key(&key) {
        return false;
    }
    count(&volume.counts.removed, 1);
    ledger.tickets += 1;
    let ticket = ledger.tickets;
    ledger.removed.insert(key, ticket);
    queue.push(Item::Removal { key, ticket });
    true
}

/// Starts the thread.
pub(crate) fn start(
    log: Log,
    queue: Arc<Queue>,
    shelf: Arc<dyn Shelf>,
    minutes: Minutes,
    generation: u64,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("disk-writer".into()).spawn(move || {
        let started = Instant::now();
        let mut writer = Writer {
            volume: log.volume().clone(),
            log,
            queue,
            shelf,
            minutes,
            started,
            removals: VecDeque::new(),
            paused_until: Duration::ZERO,
            flushed: Duration::ZERO,
            synced: Duration::ZERO,
            snapshot: Snapshots { generation, taken: Duration::ZERO, filled_bytes: 0, running: None },
        };
        writer.run();
    })
}

struct Writer {
    volume: Arc<Volume>,
    log: Log,
    queue: Arc<Queue>,
    shelf: Arc<dyn Shelf>,
    minutes: Minutes,
    started: Instant,
    /// Removals that could not be written yet.
    removals: VecDeque<(u128, u64)>,
    paused_until: Duration,
    flushed: Duration,
    synced: Duration,
    snapshot: Snapshots,
}

struct Snapshots {
    generation: u64,
    taken: Duration,
    filled_bytes: u64,
    running: Option<JoinHandle<()>>,
}

impl Writer {
    fn run(&mut self) {
        loop {
            let now = self.now();
            let is_idle = match self.queue.pop(LINGER) {
                Next::Item(Item::Value(asked)) => {
                    if self.is_paused(now) || self.log.append(&asked, now).is_err() {
                        self.pause_after_failure(now);
                        self.log.give_up_waiting(&asked);
                    }
                    false
                }
                Next::Item(Item::Removal { key, ticket }) => {
                    self.removals.push_back((key, ticket));
                    false
                }
                Next::Nothing => true,
                Next::Stop => break,
            };
            self.tend(is_idle);
        }
        self.end();
    }

    /// What is to be done beside appending.
    fn tend(&mut self, is_idle: bool) {
        let now = self.now();
        self.removals.extend(self.log.take_lost_removals());
        if self.is_paused(now) {
            return;
        }
        while let Some((key, ticket)) = self.removals.pop_front() {
            if self.log.append_removal(key, ticket, now).is_err() {
                self.removals.push_front((key, ticket));
                return self.pause_after_failure(now);
            }
        }
        if !self.log.has_pending() {
            self.flushed = now.monotonic;
        } else if is_idle || now.monotonic.saturating_sub(self.flushed) >= LINGER {
            self.flushed = now.monotonic;
            if self.log.flush().is_err() {
                return self.pause_after_failure(now);
            }
        }
        while let Ok(true) = self.log.make_room(now) {
            if !is_idle {
                break;
            }
        }
        if now.monotonic.saturating_sub(self.synced) >= SYNC_INTERVAL {
            self.synced = now.monotonic;
            let _counted = self.log.sync();
            let oldest =
                self.log.oldest_began().map_or(0, |began| now.monotonic.saturating_sub(began).as_secs());
            self.queue.oldest_secs.store(oldest, Ordering::Relaxed);
        }
        self.snapshot_if_due(now);
    }

    fn is_paused(&self, now: Now) -> bool {
        now.monotonic < self.paused_until || self.volume.health() == Health::Failed
    }

    fn pause_after_failure(&mut self, now: Now) {
        if !self.is_paused(now) {
            self.paused_until = now.monotonic + PAUSE;
        }
    }

    fn snapshot_if_due(&mut self, now: Now) {
        if self.snapshot.running.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(ended) = self.snapshot.running.take()
        {
            let _ = ended.join();
        }
        let filled = self.volume.counts.filled_bytes.load(Ordering::Relaxed);
        let is_due = now.monotonic.saturating_sub(self.snapshot.taken) >= SNAPSHOT_INTERVAL
            && filled - self.snapshot.filled_bytes >= SNAPSHOT_FILL_TIMES * self.volume.index.memory_bytes();
        if !is_due || self.snapshot.running.is_some() || self.log.flush().is_err() || self.log.sync().is_err()
        {
            return;
        }
        (self.snapshot.taken, self.snapshot.filled_bytes) = (now.monotonic, filled);
        self.snapshot.generation += 1;
        let snapshot = self.log.snapshot(self.snapshot.generation);
        let (volume, shelf) = (self.volume.clone(), self.shelf.clone());
        let thread = std::thread::Builder::new().name("disk-snapshot".into());
        // Without it the next start reads more footers.
        self.snapshot.running = thread.spawn(move || write_snapshot(&volume, &*shelf, &snapshot)).ok();
    }

    /// Everything to the disk, and the index with it.
    fn end(&mut self) {
        self.tend(true);
        if let Some(running) = self.snapshot.running.take() {
            let _ = running.join();
        }
        if self.volume.health() == Health::Well && self.log.flush().is_ok() && self.log.sync().is_ok() {
            let snapshot = self.log.snapshot(self.snapshot.generation + 1);
            write_snapshot(&self.volume, &*self.shelf, &snapshot);
        }
        // What is still read from it is verified, whoever writes it now.
        self.volume.media.release();
    }

    fn now(&self) -> Now {
        Now { minutes: (self.minutes)(), monotonic: self.started.elapsed() }
    }
}

fn write_snapshot(volume: &Volume, shelf: &dyn Shelf, snapshot: &snapshot::Snapshot) {
    if let Err(error) = snapshot::write(volume, shelf, snapshot) {
        eprintln!(
            "perigee: {}: the index cannot be written, so the next start takes longer: {error}",
            volume.name
        );
    }
}
