//! The disk tier: values by key on one or several disks, which survive restarts, crashes and bad disks.
//!
//! ```text
//!            put ─► admission ─► queue ─► writer thread ─► segments on the disk ─► index
//!   lookup ─► index (memory only) ─► Spot ─► Reader (io_uring or threads) ─► verified bytes
//! ```
//!
//! A value is some **meta**, whose meaning is the caller's, and a body of at most [`BODY_BYTES_MAX`]; what is longer is cut
//! into slices under keys of their own. Looking up touches memory only, 17 bytes for each value; reading is asynchronous;
//! writing never makes anybody wait and never fails towards the caller: a copy that cannot be written is given up and
//! counted. Every byte is verified before it is given out; what is not what was written is a miss and a count.
//!
//! Each disk is a volume of its own: one file, one index, one writer. A key has its home on one of them, by rendezvous
//! weighted with their sizes; a disk that fails is passed over until the next start, and its keys find another home. What is
//! removed or replaced meanwhile it cannot be told of, so a disk that was dropped, or missing for a whole run, is begun
//! anew: the others have come to a later run than it has. The layout is drawn in `disk/format.rs`, the writing side in `disk/log.rs`, opening in `disk/recovery.rs`.
//!
//! What can come back after a restart although it was removed or replaced, all else having been closed off:
//! - what was removed within a tenth of a second before a `kill -9`, or two seconds before a loss of power;
//! - what was removed while the disk was full, if the process ended before there was room, unless the index could still be
//!   written at the end ([`Disks::close`] says so);
//! - what was removed while the only disk that was left had been dropped, if nothing at all could be written to it from
//!   then on to the end, and it works again later;
//! - what was replaced or removed by a record that rots on the disk, once the index is lost as well.
//!
//! What it doesn't do: it knows no HTTP, no freshness beyond an expiry, and no purges. Whoever reads a value compares its
//! position, which is in the meta.

mod admission;
mod buffers;
mod engine;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod index;
mod log;
mod media;
mod recovery;
mod ring;
mod snapshot;
mod volume;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::{InFlight, Room};
use admission::{Admission, Unwanted};
pub use buffers::buffer_bytes;
use buffers::{Buffer, Buffers};
pub use engine::EngineKind;
use engine::{Engine, Pool, Reading};
use format::{BLOCK, RecordHead, Run, round_up};
pub use format::{BODY_BYTES_MAX, CHUNK_BYTES, META_BYTES_MAX};
use index::Place;
pub use log::Draft;
use log::{Log, Recovered};
pub use media::{Directory, Media, Shelf};
use recovery::Wanted;
pub use recovery::{OpenError, Opened};
use ring::Ring;
pub use volume::{DiskStats, Health};
use volume::{Fleet, InUse, Volume, count};
use writer::{Queue, Writer};

/// One part in so many of the bound of bodies in flight may wait to be written, to all disks together, and as much beside it as one
/// in so many may buffers take that wait for their next use.
const QUEUED_SHARE: u64 = 4;
const KEPT_SHARE: u64 = 8;

/// How a disk is used.
pub struct DiskConfig {
    /// Where its files are.
    pub shelf: Arc<dyn Shelf>,
    /// Bytes of its volume; a volume of another size is begun anew.
    pub bytes: u64,
    /// How many times `bytes` may be written per day, on average.
    pub writes_per_day: u32,
}

/// What all disks need to be told.
pub struct DisksConfig {
    /// Names whoever made the keys and positions that are stored: what another owner stored is dropped.
    pub owner: u128,
    /// Chance, for the ids of volumes that are begun anew.
    pub chance: u128,
    /// Minutes since 1970.
    pub minutes: Arc<dyn Fn() -> u32 + Send + Sync>,
    /// How disks are read.
    pub engine: EngineKind,
    /// Counts what is read for as long as it is held, and bounds what may wait to be written: to a quarter of its own.
    pub in_flight: InFlight,
}

/// What came of opening each disk, by name.
pub type OpenReports = Vec<(String, Result<Opened, OpenError>)>;

/// All disks of a node. Shared between threads; dropping it does not end the writers: [`Disks::close`] does.
pub struct Disks {
    /// As they were last opened. Replaced as a whole, by [`Disks::reopen`]; what is being read keeps what it began with.
    set: RwLock<Arc<Set>>,
    in_use: Arc<OnceLock<InUse>>,
    buffers: Buffers,
    in_flight: InFlight,
    engine: EngineKind,
    pool: Option<Arc<Pool>>,
    started: Instant,
    /// See [`Disks::switch`].
    is_on: AtomicBool,
}

/// Disks that were opened together.
#[derive(Default)]
struct Set {
    disks: Vec<Disk>,
    fleet: Arc<Fleet>,
}

struct Disk {
    volume: Arc<Volume>,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<bool>>>,
    reading: AtomicU64,
    /// For the rendezvous: chance of this disk, and its size.
    weight: f64,
    seed: u64,
}

/// Where a value is, as far as the index knows; it may have gone by the time it is read.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    disk: usize,
    place: Place,
    sequence: u64,
}

impl Spot {
    /// Look-ups that found it since it was written, up to 7.
    pub fn heat(&self) -> u8 {
        self.place.heat
    }

    /// Whether both are the same record.
    pub fn is(&self, other: &Spot) -> bool {
        (self.disk, self.sequence) == (other.disk, other.sequence) && self.place.is(&other.place)
    }

    /// Bytes of its record on the disk.
    pub fn bytes(&self) -> u32 {
        self.place.bytes
    }
}

/// Why a value cannot be had. Either way it is a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It was evicted or replaced meanwhile, or the index had mistaken another for it.
    Gone,
    /// It was not what was written; counted.
    Damaged,
    /// The disk gave an error; counted.
    Failed,
}

/// A value as it was read: its meta, and as much of its body as was asked for.
pub struct Record {
    /// What the caller wrote with it.
    pub meta: Bytes,
    /// Bytes of the whole body.
    pub body_len: u32,
    /// The first bytes of the body.
    start: Bytes,
    head: RecordHead,
    sums: Bytes,
    spot: Spot,
}

impl Record {
    /// The whole body, if it was asked for: see [`Reader::read`].
    pub fn body(&self) -> Option<&Bytes> {
        (self.start.len() == self.body_len as usize).then_some(&self.start)
    }

    /// Whether it holds any of its body.
    pub fn holds_body(&self) -> bool {
        !self.start.is_empty()
    }
}

impl Disks {
    /// Opens disks and starts their writers. Each is told of apart: one that cannot be opened is left out.
    pub fn open(configs: Vec<DiskConfig>, common: &DisksConfig) -> (Self, OpenReports) {
        let (mut engine, mut pool) = (common.engine, None);
        if engine == EngineKind::Pool && !configs.is_empty() {
            pool = Pool::start().ok().map(Arc::new);
            if pool.is_none() {
                engine = EngineKind::Ring;
            }
        }
        let this = Disks {
            set: RwLock::default(),
            in_use: Arc::default(),
            buffers: Buffers::keeping(common.in_flight.bytes().1 / KEPT_SHARE),
            in_flight: common.in_flight.clone(),
            engine,
            pool,
            started: Instant::now(),
            is_on: AtomicBool::new(true),
        };
        let reports = this.reopen(configs, common);
        (this, reports)
    }

    /// Opens disks that were closed, and that somebody else may have written meanwhile, in place of what there was. What was
    /// removed while they were closed stays so. Until it returns, what was there is still read: it is verified.
    pub fn reopen(&self, configs: Vec<DiskConfig>, common: &DisksConfig) -> OpenReports {
        let mut set = Set { disks: Vec::new(), fleet: Arc::new(Fleet::new(self.in_use.clone())) };
        let mut reports = Vec::new();
        let looked: Vec<_> = configs
            .into_iter()
            .map(|config| {
                let seed = format::sum(config.shelf.name().as_bytes(), 0);
                let chance = common.chance ^ u128::from(seed);
                let wanted = Wanted { bytes: config.bytes, owner: common.owner, chance };
                let looked = recovery::look(&*config.shelf, &wanted, &self.buffers);
                (config, looked)
            })
            .collect();
        let runs = looked.iter().filter_map(|(_, looked)| looked.as_ref().ok());
        let latest = runs.map(recovery::Looked::run).max().unwrap_or_default();
        // Once in millions of starts all begins anew.
        let run = Some(latest.next()).filter(|run| run.is_possible()).unwrap_or(Run(1));
        let fleet = set.fleet.clone();
        let opened: Vec<_> = looked
            .into_iter()
            .map(|(config, looked)| {
                let admission = Admission::new(config.bytes, config.writes_per_day, Duration::ZERO);
                let opened = looked.and_then(|looked| {
                    recovery::open(&*config.shelf, looked, (latest, run), admission, &fleet, &self.buffers)
                });
                (config, opened)
            })
            .collect();
        // All at once, so that hardly any stop in between leaves one behind.
        for (config, opened) in opened {
            let name = config.shelf.name();
            let started = opened.and_then(|(volume, recovered, opened)| {
                set.disks.push(self.start(config, volume, recovered, common)?);
                Ok(opened)
            });
            reports.push((name, started));
        }
        let mut now = self.set.write();
        for disk in &now.disks {
            disk.volume.ledger.lock().removed.keys().for_each(|key| set.remove(*key));
        }
        *now = Arc::new(set);
        reports
    }

    fn start(
        &self,
        config: DiskConfig,
        volume: Arc<Volume>,
        recovered: Recovered,
        common: &DisksConfig,
    ) -> Result<Disk, OpenError> {
        let seed = format::sum(config.shelf.name().as_bytes(), 0);
        let (run, generation) = (recovered.run, recovered.snapshot_generation);
        let log = Log::new(volume.clone(), self.buffers.clone(), recovered)?;
        let queue = Arc::<Queue>::default();
        let minutes = common.minutes.clone();
        let writer = Writer::new(log, queue.clone(), config.shelf, minutes, run, generation);
        Ok(Disk {
            volume,
            queue,
            writer: Mutex::new(Some(writer::start(writer)?)),
            reading: AtomicU64::new(0),
            weight: config.bytes as f64,
            seed,
        })
    }

    /// Whether the disks are used at all; they are when they are opened. While they are not, nothing is found on them, and
    /// what is put is refused as for want of room, which takes away what was under the key before: so that what is found
    /// again later is as good as ever. Removing goes on.
    pub fn switch(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Whether there is any disk.
    pub fn is_empty(&self) -> bool {
        self.set.read().disks.is_empty()
    }

    /// Says which keys are in use although nobody looks them up here, because memory answers for them: those are kept as if
    /// they had been hit. Asked by the writers, for each value that would be evicted; the first call counts.
    pub fn keep(&self, in_use: impl Fn(u128) -> bool + Send + Sync + 'static) {
        let _first = self.in_use.set(Box::new(in_use));
    }

    /// Where the value of a key is, and a hit for it. Cost: one or two cache lines of memory per disk; never waits.
    pub fn lookup(&self, key: u128) -> Option<Spot> {
        let set = self.set.read();
        let found = set.find(key).filter(|_| self.is_on.load(Ordering::Relaxed));
        match found {
            Some(spot) => {
                let volume = &set.disks[spot.disk].volume;
                volume.index.warm(key);
                count(&volume.counts.found, 1);
            }
            None => {
                if let Some(home) = set.home(key) {
                    count(&set.disks[home].volume.counts.absent, 1);
                }
            }
        }
        found
    }

    /// Where the value of a key is, without counting: for whoever only wants to know.
    pub fn find(&self, key: u128) -> Option<Spot> {
        self.set.read().find(key).filter(|_| self.is_on.load(Ordering::Relaxed))
    }

    /// Whether a value of the key has been put and is not in the index yet.
    pub fn is_waiting(&self, key: u128) -> bool {
        self.is_on.load(Ordering::Relaxed)
            && self.set.read().disks.iter().any(|disk| {
                let ledger = disk.volume.ledger.lock();
                ledger.waiting.contains_key(&key) && !ledger.removed.contains_key(&key)
            })
    }

    /// Asks for a value to be written, in place of the key's former one. Whether it will be, as far as is known: the budget
    /// allows it and the queue has room. What is refused, and what was under the key before, is gone.
    ///
    /// A meta or body that is too long is refused.
    pub fn put(&self, draft: Draft) -> bool {
        let key = draft.key;
        let is_taken = self.take(draft);
        if !is_taken {
            self.remove(key);
        }
        is_taken
    }

    fn take(&self, draft: Draft) -> bool {
        if !self.is_on.load(Ordering::Relaxed) {
            return false;
        }
        let set = self.set.read();
        let Some(home) = set.home(draft.key) else { return false };
        let (volume, queue) = (&set.disks[home].volume, &set.disks[home].queue);
        let body_len = draft.body_len();
        if body_len > BODY_BYTES_MAX || draft.meta.len() > META_BYTES_MAX {
            return false;
        }
        let now = self.started.elapsed();
        let admitted = volume.admission.lock().admit(draft.key, body_len as u64, now);
        match admitted {
            Ok(()) => {}
            Err(Unwanted::FirstSight) => {
                count(&volume.counts.refused_first_sight, 1);
                return false;
            }
            Err(Unwanted::OverBudget) => {
                count(&volume.counts.refused_over_budget, 1);
                return false;
            }
        }
        // Where else it may lie: its home was another while a disk was missing.
        for (number, disk) in set.disks.iter().enumerate() {
            if number != home {
                writer::remove(&disk.volume, &disk.queue, draft.key);
            }
        }
        let queued_max = self.in_flight.bytes().1 / QUEUED_SHARE / set.disks.len() as u64;
        writer::put(volume, queue, draft, queued_max)
    }

    /// Takes a key out: no look-up that starts after this finds it, also after a restart, unless a crash comes before the
    /// next write, a tenth of a second. Cost: nothing where it isn't there, which is known from memory.
    pub fn remove(&self, key: u128) {
        self.set.read().remove(key);
    }

    /// A way to read, for the calling thread: see [`Reader`]. Where a ring cannot be had, reads are made on the spot by the
    /// pool.
    pub fn reader(self: &Arc<Self>) -> Reader {
        if self.is_empty() {
            return Reader { disks: self.clone(), engine: None };
        }
        let engine = match (&self.pool, self.engine) {
            (Some(pool), _) => Ok(Engine::Pool(pool.clone())),
            (None, _) => Ring::start().map(Engine::Ring),
        };
        let engine = engine.or_else(|_| Pool::start().map(|pool| Engine::Pool(Arc::new(pool))));
        Reader { disks: self.clone(), engine: engine.ok() }
    }

    /// [`Reader::read`] of a whole value on the spot: waits for the disk. For whoever looks, not for whoever serves.
    ///
    /// # Errors
    /// See [`Unread`].
    pub fn read_now(self: &Arc<Self>, key: u128, spot: &Spot) -> Result<Record, Unread> {
        let reader = Reader { disks: self.clone(), engine: Some(Engine::Now) };
        let mut reading = std::pin::pin!(reader.read(key, spot, usize::MAX));
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => read,
            Poll::Pending => Err(Unread::Failed),
        }
    }

    /// What each disk holds and did.
    pub fn stats(&self) -> Vec<DiskStats> {
        let set = self.set.read();
        let stats = set.disks.iter().map(|disk| DiskStats {
            queued_bytes: disk.queue.bytes(),
            reading: disk.reading.load(Ordering::Relaxed),
            oldest_segment_secs: disk.queue.oldest_secs(),
            ..disk.volume.stats()
        });
        stats.collect()
    }

    /// Writes what waits, and the index, and ends the writers. What is put afterwards is never written, and what is removed
    /// afterwards may be back at the next start. What is there can be read on.
    ///
    /// `false`: what was removed before may be back as well, as it could not be written down.
    pub fn close(&self) -> bool {
        let set = self.set.read().clone();
        set.disks.iter().for_each(|disk| disk.queue.stop());
        let writers = set.disks.iter().filter_map(|disk| disk.writer.lock().take());
        // Each is waited for.
        writers.map(|writer| writer.join().unwrap_or(false)).fold(true, |all, is_known| all & is_known)
    }
}

impl Set {
    fn find(&self, key: u128) -> Option<Spot> {
        let on = |number: usize| {
            let volume =
                &self.disks.get(number).filter(|disk| disk.volume.health() != Health::Failed)?.volume;
            let place = volume.index.get(key)?;
            let sequence = volume.sequence(place.segment);
            (sequence > 0).then_some(Spot { disk: number, place, sequence })
        };
        // At home first: elsewhere it may be older.
        let home = self.home(key)?;
        on(home).or_else(|| (0..self.disks.len()).filter(|number| *number != home).find_map(on))
    }

    fn remove(&self, key: u128) {
        for disk in &self.disks {
            writer::remove(&disk.volume, &disk.queue, key);
        }
    }

    /// The disk on which a key is at home: weighted rendezvous among those that are well.
    fn home(&self, key: u128) -> Option<usize> {
        if let [only] = self.disks.as_slice() {
            return (only.volume.health() != Health::Failed).then_some(0);
        }
        let score = |disk: &Disk| {
            let hash = format::sum(&key.to_le_bytes(), disk.seed);
            // A uniform number in (0, 1); -weight / ln of it orders disks so that each wins in proportion to its weight.
            let uniform = (hash >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON;
            -disk.weight / uniform.ln()
        };
        let healthy =
            self.disks.iter().enumerate().filter(|(_, disk)| disk.volume.health() != Health::Failed);
        healthy
            .map(|(number, disk)| (number, score(disk)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|best| best.0)
    }

    fn damaged(&self, key: u128, spot: &Spot) -> Unread {
        let Disk { volume, queue, .. } = &self.disks[spot.disk];
        if volume.sequence(spot.place.segment) != spot.sequence {
            return Unread::Gone;
        }
        writer::forget_damaged(volume, queue, key, &spot.place);
        Unread::Damaged
    }
}

/// One thread's way to read the disks. Its futures belong to that thread's `LocalSet`.
pub struct Reader {
    disks: Arc<Disks>,
    engine: Option<Engine>,
}

impl Reader {
    /// Reads the value at `spot` with the first `body_bytes` of its body, or all of it (`usize::MAX`), in one read.
    ///
    /// # Errors
    /// See [`Unread`]: all of them are misses.
    pub async fn read(&self, key: u128, spot: &Spot, body_bytes: usize) -> Result<Record, Unread> {
        // Up to the end of the last chunk that is wanted; what comes before the body is at most this much, or is asked
        // for again below.
        let before = RecordHead::before_body_guess(spot.place.bytes);
        let wanted = body_bytes.saturating_add(CHUNK_BYTES - 1) / CHUNK_BYTES;
        let wanted = wanted.saturating_mul(CHUNK_BYTES).saturating_add(before).min(spot.place.bytes as usize);
        let set = self.disks.set.read().clone();
        let set = &*set;
        let (mut bytes, mut skip) = self.fetch(set, key, spot, 0, wanted).await?;
        let head = RecordHead::peek(&bytes[skip..]).ok_or_else(|| set.damaged(key, spot))?;
        let needed = head.body_at()
            + round_up(body_bytes.min(head.body_len as usize) as u64, CHUNK_BYTES as u64) as usize;
        let needed = needed.min(head.body_at() + head.body_len as usize).min(spot.place.bytes as usize);
        if bytes.len() - skip < needed {
            (bytes, skip) = self.fetch(set, key, spot, 0, needed).await?;
        }
        let record = bytes.slice(skip..);
        let salt = set.disks[spot.disk].volume.layout.salt();
        let (head, before) = RecordHead::parse(&record, salt).ok_or_else(|| set.damaged(key, spot))?;
        if head.sequence != spot.sequence || head.kind != format::Kind::Value {
            return Err(set.damaged(key, spot));
        }
        if head.key != key {
            return Err(Unread::Gone);
        }
        // Whole chunks, or what there is of the last.
        let held = (record.len() - head.body_at()).min(head.body_len as usize);
        let held = if held == head.body_len as usize { held } else { held / CHUNK_BYTES * CHUNK_BYTES };
        let held = held.min(round_up(body_bytes.min(held) as u64, CHUNK_BYTES as u64) as usize);
        let start = record.slice(head.body_at()..head.body_at() + held);
        if !head.verifies(before.sums, 0, &start) {
            return Err(set.damaged(key, spot));
        }
        Ok(Record {
            meta: record.slice_ref(before.meta),
            sums: record.slice_ref(before.sums),
            body_len: head.body_len,
            start,
            head,
            spot: *spot,
        })
    }

    /// Bytes `range` of the body of a record that was read before, in one more read where they were not in that one.
    ///
    /// # Errors
    /// See [`Unread`]. A range outside of the body counts as [`Unread::Gone`].
    pub async fn part(&self, record: &Record, range: Range<usize>) -> Result<Bytes, Unread> {
        if range.start > range.end || range.end > record.body_len as usize {
            return Err(Unread::Gone);
        }
        if range.end <= record.start.len() {
            return Ok(record.start.slice(range));
        }
        let (head, spot) = (&record.head, &record.spot);
        let first = range.start / CHUNK_BYTES;
        let from = first * CHUNK_BYTES;
        let to = (round_up(range.end as u64, CHUNK_BYTES as u64) as usize).min(head.body_len as usize);
        let set = self.disks.set.read().clone();
        let set = &*set;
        let (bytes, skip) = self.fetch(set, head.key, spot, head.body_at() + from, to - from).await?;
        let bytes = bytes.slice(skip..);
        let chunks = bytes.slice(..(to - from).min(bytes.len()));
        if chunks.len() < to - from || !head.verifies(&record.sums, first, &chunks) {
            return Err(set.damaged(head.key, spot));
        }
        Ok(chunks.slice(range.start - from..range.end - from))
    }

    /// Reads `len` bytes of a record, from `offset` in it on: a buffer, and where in it they begin.
    async fn fetch(
        &self,
        set: &Set,
        key: u128,
        spot: &Spot,
        offset: usize,
        len: usize,
    ) -> Result<(Bytes, usize), Unread> {
        let Some(disk) = set.disks.get(spot.disk) else { return Err(Unread::Gone) };
        let volume = &disk.volume;
        let Some(engine) = &self.engine else { return Err(Unread::Failed) };
        let at = volume.at(&spot.place) + offset as u64;
        let base = at / BLOCK * BLOCK;
        let skip = (at - base) as usize;
        let aligned = round_up((skip + len) as u64, BLOCK) as usize;
        let reading = Reading::begin(&disk.reading);
        let read = engine.read(&self.disks.buffers, &volume.media, base, aligned).await;
        drop(reading);
        match read {
            Ok(buffer) => {
                count(&volume.counts.read_bytes, buffer.len() as u64);
                if buffer.len() < skip + len {
                    // The file is shorter than it was made.
                    return Err(set.damaged(key, spot));
                }
                Ok((
                    Bytes::from_owner(Counted {
                        _room: self.disks.in_flight.count(buffer.memory_bytes()),
                        buffer,
                    }),
                    skip,
                ))
            }
            Err(error) => {
                volume.read_failed(&error);
                Err(Unread::Failed)
            }
        }
    }
}

/// What was read, in flight until nothing refers to it.
struct Counted {
    buffer: Buffer,
    _room: Room,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

// --- Looking at a volume from outside ---

/// A volume that is only looked at, also while an edge uses it.
pub struct Inspection {
    volume: Arc<Volume>,
    buffers: Buffers,
    opened: Opened,
}

/// One record, as an inspection finds it.
pub struct Inspected {
    /// Its key.
    pub key: u128,
    /// Its segment, and its offset and bytes there.
    pub segment: u32,
    /// Bytes from the segment's beginning.
    pub offset: u32,
    /// Bytes of the record.
    pub bytes: u32,
    /// Minutes since 1970 after which it is of no use.
    pub expiry: u32,
    /// Whether it is a part of an object.
    pub is_slice: bool,
    /// Its meta and the length of its body; an error when it is not what was written.
    pub content: Result<(Bytes, u32), Unread>,
}

impl Inspection {
    /// Opens the volume on `shelf` for reading.
    ///
    /// # Errors
    /// Those of opening; nothing is ever made or written.
    pub fn open(shelf: &dyn Shelf) -> Result<Self, OpenError> {
        let buffers = Buffers::default();
        let (volume, opened) = recovery::open_read_only(shelf, &buffers)?;
        Ok(Inspection { volume, buffers, opened })
    }

    /// What was found.
    pub fn stats(&self) -> (Opened, DiskStats) {
        (self.opened, self.volume.stats())
    }

    /// Reads every record that the index knows, segment by segment, and verifies it whole. `look` returns whether to go on.
    ///
    /// # Errors
    /// A segment whose list of records cannot be read is passed over; only an error of the whole medium ends it.
    pub fn for_each(&self, mut look: impl FnMut(Inspected) -> bool) -> io::Result<()> {
        for segment in 0..self.volume.layout.segments {
            let sequence = self.volume.sequence(segment);
            if sequence == 0 {
                continue;
            }
            for entry in recovery::entries(&self.volume, &self.buffers, segment, sequence)? {
                let is_it = |place: &Place| (place.segment, place.offset) == (segment, entry.offset);
                if entry.kind != format::Kind::Value
                    || !self.volume.index.get(entry.key).is_some_and(|at| is_it(&at))
                {
                    continue;
                }
                let inspected = Inspected {
                    key: entry.key,
                    segment,
                    offset: entry.offset,
                    bytes: entry.bytes,
                    expiry: entry.expiry,
                    is_slice: entry.is_slice,
                    content: self.content(segment, sequence, &entry),
                };
                if !look(inspected) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn content(&self, segment: u32, sequence: u64, entry: &format::Entry) -> Result<(Bytes, u32), Unread> {
        let at = self.volume.layout.segment_at(segment) + u64::from(entry.offset);
        let base = at / BLOCK * BLOCK;
        let skip = (at - base) as usize;
        let mut buffer = self.buffers.take(round_up(skip as u64 + u64::from(entry.bytes), BLOCK) as usize);
        let read = self.volume.media.read_at(&mut buffer, base).map_err(|_| Unread::Failed)?;
        let bytes = buffer.get(skip..read.min(skip + entry.bytes as usize)).ok_or(Unread::Damaged)?;
        let (head, before) = RecordHead::parse(bytes, self.volume.layout.salt()).ok_or(Unread::Damaged)?;
        let body =
            bytes.get(head.body_at()..head.body_at() + head.body_len as usize).ok_or(Unread::Damaged)?;
        let is_whole = (head.key, head.sequence, head.lsn) == (entry.key, sequence, entry.lsn)
            && head.verifies(before.sums, 0, body);
        if is_whole { Ok((Bytes::copy_from_slice(before.meta), head.body_len)) } else { Err(Unread::Damaged) }
    }
}
