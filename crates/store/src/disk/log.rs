//! The writing side of one volume: records are appended to open segments, published in the index once they are on the
//! disk, and evicted segment by segment, the oldest first.
//!
//! ```text
//!            ┌ small ─► open segment ┐   full: footer, sealed            free < FREE_MIN: the oldest is evicted
//! append ────┼ large ─► open segment ┼──────────────────────► in use ──────────────────────────────────┐
//!            └ kept  ─► open segment ┘   (in order of use)        ▲                                    │
//!                        ▲                                        └── header ◄─ free ◄─────────────────┤
//!                        └────────────── hit twice or held in memory, not expired, within the rewrite budget ◄───────────┘
//! ```
//!
//! Invariants:
//! - The index names only what has been written.
//! - Segments are evicted strictly in the order in which their use began, and what stands in place of an older value (a
//!   newer one, a removal) never goes to a segment whose use began before that of the older value's. So the newer
//!   outlives the older, and no restart finds an old value whose end has been forgotten. See [`Log::room_for`].
//! - A segment is evicted by writing zeros over its header and syncing; only then do its values leave the index, and only
//!   then is it free. So what a restart could find again is in the index, where a removal sees it.
//! - LSNs rise along each segment, and from run to run.
//!
//! It runs on one thread and takes its time as an argument; [`super::writer`] is that thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::buffers::{Buffer, Buffers};
use super::format::{
    BLOCK, CHUNK_BYTES, Entry, Kind, RUN_AT, RecordHead, Run, SegmentHeader, decode_footer, encode_footer,
    footer_bytes, footer_count, round_up,
};
use super::index::Place;
use super::snapshot::{OPEN, Snapshot};
use super::volume::{Health, Volume, count, is_full};
use super::writer::ROOM_KEPT;

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Uniform over all 128 bits, and not to be chosen by outsiders.
    pub key: u128,
    /// What the caller wants to know of the body: at most [`super::META_BYTES_MAX`] bytes.
    pub meta: Bytes,
    /// The body in pieces: at most [`super::BODY_BYTES_MAX`] bytes in all.
    pub body: Vec<Bytes>,
    /// Minutes since 1970 after which it is of no use and not copied forward.
    pub expiry: u32,
    /// A part of an object: listed apart.
    pub is_slice: bool,
}

impl Draft {
    /// Bytes of the body.
    pub fn body_len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// Bytes of the record that it will be, about.
    pub(crate) fn bytes(&self) -> u64 {
        (self.body_len() + self.meta.len() + 128) as u64
    }
}

/// The time, for those who are told it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Now {
    /// Minutes since 1970.
    pub(crate) minutes: u32,
    /// Since any moment, never back.
    pub(crate) monotonic: Duration,
}

/// Which open segment something goes to: what lives about equally long lies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Small,
    Large,
    Kept,
}

impl Class {
    pub(crate) const ALL: [Class; 3] = [Class::Small, Class::Large, Class::Kept];
}

/// Bytes that are gathered before they are written, unless nothing else is to be done.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes that a buffer of them keeps when they have been written.
const ROOM_KEPT_BYTES: usize = 64 << 10;

/// Fewest free segments: below it the oldest is evicted.
const FREE_MIN: usize = 3;

/// Hits that a value needs for being copied forward: one more hit than most ever get.
const KEEP_HEAT_MIN: u8 = 2;

/// Records that one step of eviction looks at; few in tests, so that much comes in between.
const EVICT_STEP: usize = if cfg!(test) { 3 } else { 256 };

/// Records that become known under one lock.
const PUBLISHED_AT_ONCE: usize = 64;

/// Bytes that eviction reads at a time.
const WINDOW_BYTES: usize = 1 << 20;

pub(crate) struct Log {
    volume: Arc<Volume>,
    buffers: Buffers,
    open: [Option<Open>; 3],
    /// Segments in use, in the order in which their use began.
    order: VecDeque<u32>,
    /// When each of them began, in the same order; [`Duration::ZERO`] for those found at the start.
    began: VecDeque<Duration>,
    free: VecDeque<u32>,
    evicting: Option<Evicting>,
    /// The sequence of the last segment whose eviction has begun.
    evicted_through: u64,
    next_sequence: u64,
    next_lsn: u64,
    dirty: bool,
    lost_removals: Vec<(u128, u64)>,
}

/// A segment that is being written.
pub(crate) struct Open {
    pub(crate) segment: u32,
    pub(crate) sequence: u64,
    /// All its records that are on the disk.
    pub(crate) entries: Vec<Entry>,
    /// Bytes from `base` on that are not written or share a block with what is to be.
    pub(crate) buffer: Vec<u8>,
    /// Where `buffer` belongs: a multiple of [`BLOCK`] from the segment's beginning.
    pub(crate) base: u64,
    /// What the end of `buffer` holds and the index doesn't know yet.
    pending: Vec<Pending>,
}

struct Pending {
    entry: Entry,
    reason: PendingFor,
}

/// Why a record is written.
#[derive(Clone, Copy)]
struct PendingFor {
    ticket: u64,
    /// It is a copy of what lies there, and how warm that was.
    copy_of: Option<Place>,
}

/// A value that was asked to be written.
pub(crate) struct Asked {
    pub(crate) draft: Draft,
    pub(crate) ticket: u64,
    /// An older value under the key is or may be on the disk, not in the index any more, and not to come back.
    pub(crate) replaces: Option<Older>,
}

/// Where the older value is that something stands in place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Older {
    /// In the segment whose use has this sequence.
    In(u64),
    /// Anywhere: it waited to be written itself when this was asked for, or a removal stands between them that a loss of power
    /// may take.
    Anywhere,
}

struct Evicting {
    segment: u32,
    /// `None` when its footer cannot be read.
    entries: Option<Vec<Entry>>,
    next: usize,
    window: Option<(u64, Buffer)>,
}

/// What a recovery hands over.
pub(crate) struct Recovered {
    /// To be written on.
    pub(crate) open: Vec<(Class, Open)>,
    /// Not to be written on: to get their footers.
    pub(crate) left_open: Vec<Open>,
    pub(crate) order: VecDeque<u32>,
    pub(crate) free: VecDeque<u32>,
    pub(crate) next_sequence: u64,
    pub(crate) next_lsn: u64,
    pub(crate) snapshot_generation: u64,
    pub(crate) run: Run,
}

impl Open {
    pub(crate) fn new(segment: u32, sequence: u64) -> Self {
        Open { segment, sequence, entries: Vec::new(), buffer: Vec::new(), base: BLOCK, pending: Vec::new() }
    }

    fn end(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// Whether a record of so many bytes fits before the footer.
    fn fits(&self, bytes: u64, segment_bytes: u64) -> bool {
        let footer = footer_bytes(self.entries.len() + self.pending.len() + 1);
        round_up(self.end() + bytes, BLOCK) + footer <= segment_bytes
    }

    /// Takes back what has not been written.
    fn forget_pending(&mut self) -> Vec<Pending> {
        if let Some(first) = self.pending.first() {
            self.buffer.truncate((u64::from(first.entry.offset) - self.base) as usize);
        }
        std::mem::take(&mut self.pending)
    }
}

impl Log {
    /// Takes over a volume that has been recovered, and begins the run on it.
    ///
    /// # Errors
    /// Those of writing the run: without it nothing else may be written.
    pub(crate) fn new(volume: Arc<Volume>, buffers: Buffers, recovered: Recovered) -> io::Result<Self> {
        let mut open = [None, None, None];
        for (class, segment) in recovered.open {
            open[class as usize] = Some(segment);
        }
        let mut log = Log {
            volume,
            buffers,
            open,
            began: recovered.order.iter().map(|_| Duration::ZERO).collect(),
            order: recovered.order,
            free: recovered.free,
            evicting: None,
            evicted_through: 0,
            next_sequence: recovered.next_sequence,
            next_lsn: recovered.next_lsn,
            dirty: false,
            lost_removals: Vec::new(),
        };
        log.begin_run(recovered.run)?;
        for left in recovered.left_open {
            // Without one, the segment is read record by record again at the next start.
            let _counted = log.write_footer(left.segment, left.sequence, &left.entries);
            log.dirty = true;
        }
        Ok(log)
    }

    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Since when the oldest segment has been in use, if eviction has come that far.
    pub(crate) fn oldest_began(&self) -> Option<Duration> {
        (self.free.len() <= FREE_MIN).then(|| self.began.front().copied()).flatten()
    }

    // --- Appending ---

    /// Appends a value. It is in force once it has been flushed, which a full buffer does by itself.
    ///
    /// # Errors
    /// Those of making room for it; the value is not appended then, and still counts as waiting.
    pub(crate) fn append(&mut self, asked: &Asked, now: Now) -> io::Result<()> {
        let Asked { draft, ticket, replaces } = asked;
        let class = if draft.body_len() < CHUNK_BYTES { Class::Small } else { Class::Large };
        let head = RecordHead {
            kind: Kind::Value,
            is_slice: draft.is_slice,
            key: draft.key,
            lsn: 0,
            sequence: 0,
            meta_len: draft.meta.len() as u32,
            body_len: draft.body_len() as u32,
            expiry: draft.expiry,
        };
        let pending = PendingFor { ticket: *ticket, copy_of: None };
        let class = self.room_for(class, *replaces, head.bytes(), now)?;
        self.add(class, head, &draft.meta, &draft.body, pending);
        count(&self.volume.counts.filled, 1);
        count(&self.volume.counts.payload_bytes, (draft.body_len() + draft.meta.len()) as u64);
        count(&self.volume.counts.filled_bytes, head.bytes());
        self.volume.admission.lock().filled(head.bytes());
        Ok(())
    }

    /// Appends the word that there is nothing under a key any more.
    ///
    /// # Errors
    /// As [`Log::append`]; the caller must come again.
    pub(crate) fn append_removal(&mut self, key: u128, ticket: u64, now: Now) -> io::Result<()> {
        let head = RecordHead {
            kind: Kind::Removal,
            is_slice: false,
            key,
            lsn: 0,
            sequence: 0,
            meta_len: 0,
            body_len: 0,
            expiry: 0,
        };
        let class = self.room_for(Class::Small, Some(Older::Anywhere), head.bytes(), now)?;
        self.add(class, head, &[], &[[]; 0], PendingFor { ticket, copy_of: None });
        count(&self.volume.counts.filled_bytes, head.bytes());
        Ok(())
    }

    /// Finds an open segment with room for so many bytes, or begins one: that of `class`, unless its use began before that
    /// of the segment with the older value, which would then outlive what stands in its place. The newest segment of all
    /// takes it instead.
    fn room_for(&mut self, class: Class, replaces: Option<Older>, bytes: u64, now: Now) -> io::Result<Class> {
        let newest = self.order.back().map_or(0, |segment| self.volume.sequence(*segment));
        let above = match replaces {
            None => 0,
            // A copy of it may have been appended behind it before it was replaced.
            Some(Older::In(sequence)) if sequence > self.evicted_through => sequence.min(newest),
            Some(_) => newest,
        };
        let takes = |class: &Class| {
            let open = self.open[*class as usize].as_ref();
            open.is_some_and(|open| {
                open.sequence >= above && open.fits(bytes, self.volume.layout.segment_bytes)
            })
        };
        let choices = [class].into_iter().chain(Class::ALL.into_iter().filter(|_| above > 0));
        if self.open[class as usize].is_some()
            && let Some(class) = choices.into_iter().find(takes)
        {
            return Ok(class);
        }
        if self.open[class as usize].is_some() {
            self.flush()?;
            self.seal(class);
        }
        self.begin_segment(class, now)?;
        Ok(class)
    }

    /// Appends a record to the open segment of `class`, which has room for it.
    fn add(
        &mut self,
        class: Class,
        mut head: RecordHead,
        meta: &[u8],
        body: &[impl AsRef<[u8]>],
        reason: PendingFor,
    ) {
        let salt = self.volume.layout.salt();
        let Some(open) = &mut self.open[class as usize] else { return };
        let offset = open.end() as u32;
        head.sequence = open.sequence;
        head.lsn = self.next_lsn;
        self.next_lsn += 1;
        head.write(&mut open.buffer, meta, body, salt);
        let entry = Entry {
            key: head.key,
            lsn: head.lsn,
            offset,
            bytes: head.bytes() as u32,
            expiry: head.expiry,
            kind: head.kind,
            is_slice: head.is_slice,
        };
        open.pending.push(Pending { entry, reason });
        if open.buffer.len() >= WRITE_BYTES {
            // What it could not write has been given up and counted, this record with it.
            let _counted = self.flush();
        }
    }

    fn begin_segment(&mut self, class: Class, now: Now) -> io::Result<()> {
        let mut begun = if self.may_have_room() { self.write_header(class) } else { Err(no_room()) };
        // The oldest goes at once, and nothing of it is kept; but not where there is hardly more than what is open.
        let is_spare = class != Class::Kept && self.order.len() > Class::ALL.len();
        if is_spare && begun.as_ref().is_err_and(is_full) && self.evict_step(now, false)? {
            self.free.rotate_right(1);
            begun = self.write_header(class);
        }
        let (segment, sequence) = begun?;
        self.dirty = true;
        self.free.pop_front();
        count(&self.volume.counts.overhead_bytes, BLOCK);
        self.volume.sequences[segment as usize].store(sequence, Ordering::Release);
        self.order.push_back(segment);
        self.began.push_back(now.monotonic);
        self.open[class as usize] = Some(Open::new(segment, sequence));
        Ok(())
    }

    /// Writes the header of the next free segment; which that is, and the sequence of its use.
    fn write_header(&mut self, class: Class) -> io::Result<(u32, u64)> {
        // That it is free has been synced: see `end_eviction`.
        let Some(&segment) = self.free.front() else { return Err(no_room()) };
        // No two segments get the same one: what failed may have arrived all the same.
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let layout = &self.volume.layout;
        let header = SegmentHeader { volume: layout.id, segment, class: class as u8, sequence };
        self.write(layout.segment_at(segment), &header.encode())?;
        Ok((segment, sequence))
    }

    /// Whether the next segment may be tried: once a write has found no room, not where the file system says that it has none
    /// for all of it. Only its promise ends that state; one that cannot promise anything is tried each time.
    fn may_have_room(&self) -> bool {
        let (Some(&segment), volume) = (self.free.front(), &self.volume) else { return false };
        if volume.health() != Health::Full {
            return true;
        }
        let promised = volume.media.allocate(volume.layout.segment_at(segment), volume.layout.segment_bytes);
        if promised.is_ok() {
            volume.set_full(false);
        }
        !promised.is_err_and(|error| is_full(&error))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = self.buffers.take(round_up(bytes.len() as u64, BLOCK) as usize);
        buffer[..bytes.len()].copy_from_slice(bytes);
        buffer[bytes.len()..].fill(0);
        let written = self.volume.media.write_at(&buffer, at);
        written.inspect_err(|error| self.volume.write_failed(error))
    }

    /// Makes it known that all volumes have come to another run, which volumes that are out of use have missed.
    pub(crate) fn begin_run(&self, run: Run) -> io::Result<()> {
        for at in RUN_AT {
            self.write(at, &run.encode(self.volume.layout.id))?;
            self.volume.media.sync()?;
        }
        Ok(())
    }

    /// Makes the next start begin the volume anew, if it still can be written.
    pub(crate) fn void(&self) -> io::Result<()> {
        let mut zeros = self.buffers.take(BLOCK as usize);
        zeros.fill(0);
        self.volume.media.write_at(&zeros, 0)?;
        self.volume.media.sync()
    }

    // --- Flushing ---

    /// Whether anything has been appended that is not on the disk.
    pub(crate) fn has_pending(&self) -> bool {
        self.open.iter().flatten().any(|open| !open.pending.is_empty())
    }

    /// Writes what has been appended and publishes it in the index.
    ///
    /// # Errors
    /// Those of writing. What was not written is given up, but for removals: see [`Log::take_lost_removals`].
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut published = Vec::new();
        let mut result = Ok(());
        for class in Class::ALL {
            let Some(open) = &self.open[class as usize] else { continue };
            if open.pending.is_empty() {
                continue;
            }
            let new_bytes: u64 = open.pending.iter().map(|pending| u64::from(pending.entry.bytes)).sum();
            let padded = round_up(open.buffer.len() as u64, BLOCK);
            let written = self.write(self.volume.layout.segment_at(open.segment) + open.base, &open.buffer);
            let Some(open) = &mut self.open[class as usize] else { continue };
            match written {
                Ok(()) => {
                    self.dirty = true;
                    count(&self.volume.counts.overhead_bytes, padded - new_bytes);
                    let segment = open.segment;
                    let more = open.pending.len();
                    if open.entries.capacity() - open.entries.len() < more {
                        // By an eighth and not by half: there may be a million of them.
                        open.entries.reserve_exact(more.max(open.entries.len() / 8));
                    }
                    open.entries.extend(open.pending.iter().map(|pending| pending.entry));
                    published.extend(open.pending.drain(..).map(|pending| (segment, pending)));
                    let kept = open.buffer.len() / BLOCK as usize * BLOCK as usize;
                    open.base += kept as u64;
                    open.buffer.drain(..kept);
                    open.buffer.shrink_to(ROOM_KEPT_BYTES);
                }
                Err(error) => {
                    let lost = open.forget_pending();
                    self.give_up(&lost);
                    if is_full(&error) {
                        // Nothing more goes there; another may have its room already.
                        self.seal(class);
                    }
                    result = Err(error);
                }
            }
        }
        published.sort_unstable_by_key(|(_, pending)| pending.entry.lsn);
        self.publish(&published);
        result
    }

    fn publish(&self, written: &[(u32, Pending)]) {
        // Few at a time, so that nobody who puts waits for long.
        written.chunks(PUBLISHED_AT_ONCE).for_each(|some| self.publish_some(some));
    }

    fn publish_some(&self, written: &[(u32, Pending)]) {
        let mut ledger = self.volume.ledger.lock();
        let index = &self.volume.index;
        for (segment, Pending { entry, reason: PendingFor { ticket, copy_of, .. } }) in written {
            let key = entry.key;
            let place = Place {
                segment: *segment,
                offset: entry.offset,
                bytes: entry.bytes,
                expiry: entry.expiry,
                heat: copy_of.map_or(0, |old| old.heat / 2),
                is_slice: entry.is_slice,
            };
            match (entry.kind, copy_of) {
                (Kind::Value, Some(old)) => drop(index.replace(key, old, &place)),
                (Kind::Value, None) => {
                    // What still waits was asked for later.
                    let is_last = ledger.written(key);
                    let is_removed = ledger.removed.get(&key).is_some_and(|removal| removal > ticket);
                    if is_last && !is_removed && index.put(key, &place).is_some() {
                        count(&self.volume.counts.removed, 1);
                    }
                }
                (Kind::Removal, _) => {
                    ledger.unsynced.insert(key);
                    if ledger.removed.get(&key) == Some(ticket) {
                        ledger.removed.remove(&key);
                        if ledger.removed.is_empty() && ledger.removed.capacity() > 2 * ROOM_KEPT {
                            ledger.removed = HashMap::new();
                        }
                    }
                }
            }
        }
    }

    /// What could not be written: an older value under the same key is no longer the key's either. And a write that failed
    /// may have arrived all the same, so whatever it was must not be found by the next start.
    fn give_up(&mut self, lost: &[Pending]) {
        self.lost_removals.extend(lost.iter().map(|pending| (pending.entry.key, pending.reason.ticket)));
        let mut ledger = self.volume.ledger.lock();
        let values =
            lost.iter().filter(|lost| lost.entry.kind == Kind::Value && lost.reason.copy_of.is_none());
        for Pending { entry, reason } in values {
            ledger.given_up(entry.key, reason.ticket);
            count(&self.volume.counts.refused_write_failed, 1);
        }
    }

    /// Removals that could not be written, with their tickets: to be asked for again.
    pub(crate) fn take_lost_removals(&mut self) -> Vec<(u128, u64)> {
        std::mem::take(&mut self.lost_removals)
    }

    /// Takes note that a value which waits will never be written.
    pub(crate) fn give_up_waiting(&mut self, asked: &Asked) {
        let mut ledger = self.volume.ledger.lock();
        if asked.replaces.is_some() {
            ledger.given_up(asked.draft.key, asked.ticket);
            self.lost_removals.push((asked.draft.key, asked.ticket));
        } else {
            ledger.written(asked.draft.key);
        }
        count(&self.volume.counts.refused_write_failed, 1);
    }

    /// Where it takes its buffers from.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Returns when all that was flushed is safe from a loss of power.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let synced = self.volume.media.sync();
        match &synced {
            Ok(()) => {
                self.dirty = false;
                let safe = std::mem::take(&mut self.volume.ledger.lock().unsynced);
                drop(safe);
            }
            Err(error) => self.volume.write_failed(error),
        }
        synced
    }

    /// Ends a segment that has been flushed: with its footer it need not be read record by record at the next start. One
    /// whose footer cannot be written is read so.
    pub(crate) fn seal(&mut self, class: Class) {
        let Some(open) = self.open[class as usize].take() else { return };
        debug_assert!(open.pending.is_empty());
        let _counted = self.write_footer(open.segment, open.sequence, &open.entries);
        self.dirty = true;
    }

    fn write_footer(&self, segment: u32, sequence: u64, entries: &[Entry]) -> io::Result<()> {
        let layout = &self.volume.layout;
        let footer = encode_footer(entries, sequence, layout.salt());
        count(&self.volume.counts.overhead_bytes, footer.len() as u64);
        self.write(layout.segment_at(segment) + layout.segment_bytes - footer.len() as u64, &footer)
    }

    /// What a snapshot of the index begins with. All that was appended before must have been flushed.
    pub(crate) fn snapshot(&self, generation: u64) -> Snapshot {
        let sequence = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Acquire);
        let mut sequences: Vec<u64> = self.volume.sequences.iter().map(sequence).collect();
        for open in self.open.iter().flatten() {
            sequences[open.segment as usize] |= OPEN;
        }
        Snapshot { generation, lsn: self.next_lsn, sequences }
    }

    // --- Eviction ---

    /// Evicts a little, if there are too few free segments. Says whether there is more to do.
    pub(crate) fn make_room(&mut self, now: Now) -> io::Result<bool> {
        let wanted = self.evicting.is_some() || self.free.len() < FREE_MIN;
        Ok(wanted && self.evict_step(now, true)?)
    }

    /// One step of evicting the oldest segment; `false` when there is none.
    ///
    /// # Errors
    /// Those of writing. It goes on where it was the next time.
    fn evict_step(&mut self, now: Now, keeps: bool) -> io::Result<bool> {
        let Some(mut evicting) = self.evicting.take().or_else(|| self.begin_eviction()) else {
            return Ok(false);
        };
        let len = evicting.entries.as_ref().map_or(0, Vec::len);
        let until = if keeps { len.min(evicting.next + EVICT_STEP) } else { len };
        while keeps && evicting.next < until {
            let entry = evicting.entries.as_ref().and_then(|entries| entries.get(evicting.next)).copied();
            evicting.next += 1;
            if let Some(entry) = entry {
                self.keep_record(&mut evicting, &entry, now);
            }
        }
        let ended = if until < len { Ok(()) } else { self.end_eviction(&evicting) };
        if until < len || ended.is_err() {
            self.evicting = Some(evicting);
        }
        ended.map(|()| true)
    }

    fn begin_eviction(&mut self) -> Option<Evicting> {
        let segment = *self.order.front()?;
        self.evicted_through = self.volume.sequence(segment);
        let is_open =
            |class: &Class| self.open[*class as usize].as_ref().is_some_and(|open| open.segment == segment);
        let entries = match Class::ALL.into_iter().find(is_open) {
            Some(class) => {
                // What could not be written has been given up and counted.
                let _counted = self.flush();
                // It gets no footer: a start that comes before its end reads it record by record.
                self.open[class as usize].take().map(|open| open.entries)
            }
            None => {
                let sequence = self.volume.sequence(segment);
                let footer = read_footer(&self.volume, &self.buffers, segment, sequence);
                footer.inspect_err(|error| self.volume.read_failed(error)).ok().flatten()
            }
        };
        Some(Evicting { segment, entries, next: 0, window: None })
    }

    /// Frees a segment of which all that is wanted has been copied.
    fn end_eviction(&mut self, evicting: &Evicting) -> io::Result<()> {
        // What is copied must be in the index before its old place leaves it. What could not be written has been given up.
        let _counted = self.flush();
        let segment = evicting.segment;
        self.write(self.volume.layout.segment_at(segment), &[0; 64])?;
        self.dirty = true;
        count(&self.volume.counts.overhead_bytes, BLOCK);
        // Segments must be empty in the order of their use also after a loss of power, and a free one must stay free.
        self.sync()?;
        let index = &self.volume.index;
        let mut evicted = 0;
        match &evicting.entries {
            Some(entries) => {
                for entry in entries.iter().filter(|entry| entry.kind == Kind::Value) {
                    let is_here = |place: &Place| (place.segment, place.offset) == (segment, entry.offset);
                    evicted += u64::from(index.remove_if(entry.key, is_here).is_some());
                }
            }
            None => index.retain(|place| place.segment != segment),
        }
        count(&self.volume.counts.evicted, evicted);
        self.volume.sequences[segment as usize].store(0, Ordering::Release);
        self.order.pop_front();
        self.began.pop_front();
        self.free.push_back(segment);
        Ok(())
    }

    /// Copies a record forward, if it is wanted.
    fn keep_record(&mut self, evicting: &mut Evicting, entry: &Entry, now: Now) {
        let is_here = |place: &Place| (place.segment, place.offset) == (evicting.segment, entry.offset);
        if entry.kind == Kind::Removal {
            return;
        }
        let Some(place) = self.volume.index.get(entry.key).filter(is_here) else { return };
        let is_wanted = (place.heat >= KEEP_HEAT_MIN || self.volume.is_in_use(entry.key))
            && place.expiry > now.minutes
            && self.volume.health() == Health::Well
            && self.volume.admission.lock().rewrite(u64::from(place.bytes));
        if is_wanted {
            let _stays_behind = self.copy_forward(evicting, entry, place, now);
        }
    }

    fn copy_forward(
        &mut self,
        evicting: &mut Evicting,
        entry: &Entry,
        place: Place,
        now: Now,
    ) -> Result<(), NotCopied> {
        let from = u64::from(entry.offset);
        let to = from + u64::from(entry.bytes);
        let holds = |window: &(u64, Buffer)| window.0 <= from && to <= window.0 + window.1.len() as u64;
        if !evicting.window.as_ref().is_some_and(holds) {
            let base = from / BLOCK * BLOCK;
            let len = round_up(to - base, BLOCK).max(WINDOW_BYTES as u64);
            let len = len.min(self.volume.layout.segment_bytes - base);
            let mut buffer = self.buffers.take(len as usize);
            let at = self.volume.layout.segment_at(evicting.segment) + base;
            let read = self.volume.media.read_at(&mut buffer, at).map_err(|error| {
                self.volume.read_failed(&error);
                NotCopied
            })?;
            buffer.truncate(read);
            evicting.window = Some((base, buffer));
        }
        let Some((base, window)) = &evicting.window else { return Err(NotCopied) };
        let bytes = window.get((from - base) as usize..(to - base) as usize).ok_or(NotCopied)?;
        let sequence = self.volume.sequence(evicting.segment);
        let whole = RecordHead::parse(bytes, self.volume.layout.salt())
            .filter(|(head, _)| head.key == entry.key && head.sequence == sequence);
        let whole = whole.and_then(|(head, before)| {
            let body = bytes.get(head.body_at()..head.body_at() + head.body_len as usize)?;
            head.verifies(before.sums, 0, body).then_some((head, before.meta, body))
        });
        let Some((head, meta, body)) = whole else {
            // It stays in the index until its segment is free: a removal that comes meanwhile must see it.
            count(&self.volume.counts.damaged, 1);
            return Err(NotCopied);
        };
        let class = self.room_for(Class::Kept, None, head.bytes(), now).map_err(|_counted| NotCopied)?;
        self.add(class, head, meta, &[body], PendingFor { ticket: 0, copy_of: Some(place) });
        count(&self.volume.counts.rewritten, 1);
        count(&self.volume.counts.rewritten_bytes, head.bytes());
        Ok(())
    }
}

impl super::volume::Ledger {
    /// One value of a key waits no longer; whether it was the last.
    fn written(&mut self, key: u128) -> bool {
        match self.waiting.get_mut(&key) {
            Some(waiting) if *waiting > 1 => {
                *waiting -= 1;
                false
            }
            _ => {
                self.waiting.remove(&key);
                if self.waiting.is_empty() && self.waiting.capacity() > 2 * ROOM_KEPT {
                    self.waiting = HashMap::new();
                }
                true
            }
        }
    }

    /// A value will never be written; what was asked for before it is superseded all the same, until a removal says so on
    /// the disk.
    fn given_up(&mut self, key: u128, ticket: u64) {
        self.written(key);
        let removed = self.removed.entry(key).or_insert(0);
        *removed = ticket.max(*removed);
    }
}

fn no_room() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// A record that stays behind when its segment is evicted; counted where it was found out.
struct NotCopied;

/// The footer of a segment; `None` when this use of it was not sealed, or the footer is damaged.
pub(crate) fn read_footer(
    volume: &Volume,
    buffers: &Buffers,
    segment: u32,
    sequence: u64,
) -> io::Result<Option<Vec<Entry>>> {
    let end = volume.layout.segment_at(segment) + volume.layout.segment_bytes;
    let read = |len: u64| {
        let mut buffer = buffers.take(len as usize);
        let read = volume.media.read_at(&mut buffer, end - len)?;
        buffer.truncate(read);
        io::Result::Ok(buffer)
    };
    let last = read(BLOCK)?;
    let Some(count) = footer_count(&last, sequence, volume.layout.salt()) else { return Ok(None) };
    let len = footer_bytes(count);
    if len > volume.layout.segment_bytes - BLOCK {
        return Ok(None);
    }
    let whole = if len == BLOCK { last } else { read(len)? };
    Ok(decode_footer(&whole, sequence, volume.layout.salt()))
}
