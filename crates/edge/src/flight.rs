//! Collapsing: at most one fetch per key is in flight, and everybody who wants the same thing follows it.
//!
//! A [`Flight`] is one fetch that others may wait for. It ends in one of the outcomes of [`Landing`]; when the origin's
//! answer may be stored that is a [`Fill`], which readers follow while it streams. Flights and fills are shared between
//! workers; the task that feeds them belongs to the worker that began it and not to any visitor, so a visitor who
//! leaves stops nothing, and a task that dies (drops its end) wakes all who wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use model::budget::Class;
use parking_lot::Mutex;
use semantics::{Facts, Fields, Why};
use store::InFlight;
use tokio::sync::watch;

use crate::answer::ContentRange;
use crate::in_flight::{SMALL_BYTES, sip, window_bytes};
use crate::object::{BLOCK_BYTES, Object, Sliced};
use crate::origin::Askers;
use crate::worker::Shared;

/// How long a failed fetch speaks for its key to those who hold a stale response: one attempt a second.
pub(crate) const FAILURE_HOLD_MS: u64 = 1_000;

/// How long a fill that is no longer kept waits for its slowest reader before it goes on without it.
pub(crate) const SLOWEST_PATIENCE: Duration = Duration::from_secs(5);

/// Blocks that all readers have passed and that are held until they are on disk.
const WAITING_BLOCKS_MAX: usize = 16;

/// How a fetch ended for those who wait for it.
#[derive(Clone)]
pub(crate) enum Landing {
    /// Not yet.
    Pending,
    /// A storable answer is streaming in.
    Fill(Arc<Fill>),
    /// A stored response was confirmed or made whole.
    Stored(Object),
    /// The answer was for the one who asked alone; everybody else fetches for themselves.
    Private,
    /// There is no answer. `shared`: the reason had nothing to do with this request, so it holds for all who waited.
    Failed { why: Why, shared: bool },
}

impl Landing {
    /// Hashes of the surrogate keys, as far as they are known by now.
    pub(crate) fn tags(&self) -> &[u64] {
        match self {
            Landing::Fill(fill) => &fill.tags,
            Landing::Stored(stored) => stored.tags(),
            Landing::Pending | Landing::Private | Landing::Failed { .. } => &[],
        }
    }
}

/// One fetch that others may wait for.
pub(crate) struct Flight {
    /// The purge position when the fetch started.
    pub(crate) position: u64,
    /// The epoch of its primary key when the fetch started.
    pub(crate) epoch: u64,
    /// Who waits for it.
    pub(crate) askers: Askers,
    /// What it knows of besides, because another edge has asked for it: a position of the journal.
    pub(crate) raised: u64,
    /// The request's headers, by which the origin chooses what to answer; none where nobody can follow.
    pub(crate) fields: Fields,
    /// The key under which it is on the board besides, since it is known what variant it brings.
    variant_key: OnceLock<u128>,
    landing: watch::Sender<Landing>,
    /// Monotonic milliseconds until which a failure, of this fetch or of the one before, speaks for the key.
    failed_until_ms: AtomicU64,
    /// Why it failed, as [`Why`]'s index.
    failed_why: AtomicU8,
}

impl Flight {
    /// A flight that is on no board: nobody else can follow it.
    pub(crate) fn solitary(start: &Start<'_>) -> Arc<Self> {
        Flight::new(start, Fields::new())
    }

    fn new(start: &Start<'_>, fields: Fields) -> Arc<Self> {
        Arc::new(Flight {
            position: start.position,
            epoch: start.epoch,
            askers: Askers::new(start.class),
            raised: start.raised,
            fields,
            variant_key: OnceLock::new(),
            landing: watch::Sender::new(Landing::Pending),
            failed_until_ms: AtomicU64::new(0),
            failed_why: AtomicU8::new(Why::Internal as u8),
        })
    }

    fn fail_until(&self, why: Why, until_ms: u64) {
        self.failed_why.store(why as u8, Ordering::Relaxed);
        self.failed_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// The failure that speaks for the key at `now_ms`.
    fn failing(&self, now_ms: u64) -> Option<Why> {
        let why = Why::ALL.get(usize::from(self.failed_why.load(Ordering::Relaxed)));
        (now_ms < self.failed_until_ms.load(Ordering::Relaxed)).then_some(why).flatten().copied()
    }

    /// Whether there is anything to follow: it goes on, or has come to something that others may have.
    fn is_alive(&self) -> bool {
        match &*self.landing.borrow() {
            Landing::Pending | Landing::Stored(_) => true,
            Landing::Fill(fill) => !matches!(fill.progress().end, Some(End::Broken(_))),
            Landing::Private | Landing::Failed { .. } => false,
        }
    }

    /// Whether a request joins it.
    fn takes(&self, start: &Start<'_>, may_follow: impl FnOnce(&Flight) -> bool) -> bool {
        let takes = self.is_alive() && self.epoch == start.epoch && may_follow(self);
        if takes {
            self.askers.join(start.class);
        }
        takes
    }

    /// Waits until the fetch has landed.
    pub(crate) async fn landed(&self) -> Landing {
        let mut receiver = self.landing.subscribe();
        let landing = receiver.wait_for(|landing| !matches!(landing, Landing::Pending)).await;
        match landing {
            Ok(landing) => landing.clone(),
            Err(_) => Landing::Failed { why: Why::Internal, shared: false },
        }
    }

    /// What it is now, without waiting.
    pub(crate) fn landing(&self) -> Landing {
        self.landing.borrow().clone()
    }

    /// Tells everybody who waits.
    pub(crate) fn land(&self, landing: Landing) {
        self.landing.send_replace(landing);
    }
}

type Shard = Mutex<HashMap<u128, Arc<Flight>>>;

/// What is known when a fetch starts.
pub(crate) struct Start<'a> {
    /// The request's headers.
    pub(crate) fields: &'a Fields,
    /// The newest purge position.
    pub(crate) position: u64,
    /// The epoch of the primary key.
    pub(crate) epoch: u64,
    /// What another edge has asked it to know of.
    pub(crate) raised: u64,
    /// Monotonic milliseconds.
    pub(crate) now_ms: u64,
    /// How urgent it is, where the origin has a budget.
    pub(crate) class: Class,
}

/// The flights of an edge, by key.
pub(crate) struct Flights {
    shards: Box<[Shard]>,
}

/// What [`Flights::board`] found.
pub(crate) enum Boarding {
    /// This request starts the fetch.
    Lead(Arc<Flight>),
    /// Another one has; follow it.
    Follow(Arc<Flight>),
    /// The last fetch failed less than [`FAILURE_HOLD_MS`] ago.
    Failing(Why),
}

impl Flights {
    pub(crate) fn new() -> Self {
        Flights { shards: (0..64).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, key: u128) -> &Shard {
        &self.shards[(key >> 64) as usize % self.shards.len()]
    }

    /// Joins the flight under `key`, or starts one. `may_follow` refuses a flight that started too long ago for this
    /// request (before a purge); such a flight is replaced, and goes on for those who follow it already.
    ///
    /// `has_stale`: the request has something to fall back on, so a failure that still holds is an answer. Others ask
    /// again, one for all.
    pub(crate) fn board(
        &self,
        key: u128,
        start: &Start<'_>,
        has_stale: bool,
        may_follow: impl Fn(&Flight) -> bool,
    ) -> Boarding {
        let mut current = self.current(key);
        // Judging takes locks and time, so the shard is free meanwhile. Each turn is one more fetch that another has begun then.
        loop {
            let failing =
                current.as_ref().and_then(|current| Some((current, current.failing(start.now_ms)?)));
            if let Some((current, why)) = failing.filter(|_| has_stale) {
                current.askers.join(start.class);
                return Boarding::Failing(why);
            }
            if let Some(current) = current.as_ref().filter(|current| current.takes(start, &may_follow)) {
                return Boarding::Follow(current.clone());
            }
            let flight = Flight::new(start, start.fields.clone());
            if let Some((current, why)) = failing {
                flight.fail_until(why, current.failed_until_ms.load(Ordering::Relaxed));
                flight.askers.add(&current.askers);
            }
            let mut shard = self.shard(key).lock();
            let newest = shard.get(&key);
            if newest.map(Arc::as_ptr) == current.as_ref().map(Arc::as_ptr) {
                shard.insert(key, flight.clone());
                return Boarding::Lead(flight);
            }
            current = newest.cloned();
        }
    }

    /// Joins the flight under `key`, if there is one that `may_follow` lets this request join.
    pub(crate) fn follow(
        &self,
        key: u128,
        start: &Start<'_>,
        may_follow: impl FnOnce(&Flight) -> bool,
    ) -> Option<Arc<Flight>> {
        self.current(key).filter(|current| current.takes(start, may_follow))
    }

    fn current(&self, key: u128) -> Option<Arc<Flight>> {
        self.shard(key).lock().get(&key).cloned()
    }

    /// Puts the flight that is on the board under `key` there under `variant_key` too, where those look who come once it is known
    /// how the answer varies, or that it does not. One that is there already stays.
    pub(crate) fn board_variant(&self, key: u128, variant_key: u128, flight: &Arc<Flight>) {
        let is_boarded = self.shard(key).lock().get(&key).is_some_and(|current| Arc::ptr_eq(current, flight));
        let mut shard = self.shard(variant_key).lock();
        let is_taken = shard.get(&variant_key).is_some_and(|current| current.is_alive());
        if is_boarded && !is_taken && flight.variant_key.set(variant_key).is_ok() {
            shard.insert(variant_key, flight.clone());
        }
    }

    /// Takes a finished flight off the board; a failed one stays until `failed_until_ms` has passed and is taken off
    /// by the next request or by [`Flights::sweep`].
    pub(crate) fn finish(&self, key: u128, flight: &Arc<Flight>, failed_until_ms: Option<u64>) {
        if let (Some(until), Landing::Failed { why, .. }) = (failed_until_ms, flight.landing()) {
            return flight.fail_until(why, until);
        }
        for key in [Some(key), flight.variant_key.get().copied()].into_iter().flatten() {
            let mut shard = self.shard(key).lock();
            if shard.get(&key).is_some_and(|current| Arc::ptr_eq(current, flight)) {
                shard.remove(&key);
            }
        }
    }

    /// Drops failures that hold no longer, and what a task that died has left.
    pub(crate) fn sweep(&self, now_ms: u64) {
        for shard in &self.shards {
            shard.lock().retain(|_, flight| flight.is_alive() || flight.failing(now_ms).is_some());
        }
    }

    /// How many fetches are in flight.
    pub(crate) fn len(&self) -> usize {
        let is_own = |(key, flight): &(&u128, &Arc<Flight>)| flight.variant_key.get() != Some(*key);
        self.shards.iter().map(|shard| shard.lock().iter().filter(is_own).count()).sum()
    }
}

/// A response that is being written into the cache while readers follow it.
pub(crate) struct Fill {
    /// What is known of the response for as long as it is stored.
    pub(crate) facts: Facts,
    /// The head as it will be stored.
    pub(crate) head: Fields,
    /// The purge position when its fetch started.
    pub(crate) position: u64,
    /// Hashes of its surrogate keys.
    pub(crate) tags: Vec<u64>,
    /// Length of the body, when the origin told it.
    pub(crate) length: Option<u64>,
    /// Which part of the representation it is, when it is not the whole.
    pub(crate) content_range: Option<ContentRange>,
    /// The key it will be stored under: that of its variant.
    pub(crate) key: u128,
    /// Whether more was asked for than the visitor's range: what each gets is cut from it.
    pub(crate) is_wider: bool,
    /// Where its bytes go on disk while they pass by. It begins at a slice's beginning then.
    pub(crate) sliced: Option<(Arc<Shared>, Sliced)>,
    /// Whether its readers find on disk, or get from the origin once more, what they miss here: what is there can be told from
    /// another version, and whoever it was fetched for may ask again, as only a GET may be.
    pub(crate) leads_to_disk: bool,
    /// What has come of its body.
    pub(crate) body: Arriving,
}

/// A body that is coming in, and who reads it.
pub(crate) struct Arriving {
    progress: watch::Sender<Progress>,
    data: Mutex<FillData>,
    in_flight: InFlight,
}

impl Arriving {
    /// Nothing yet. What is gathered into blocks counts in `in_flight`, as each piece has to that is pushed.
    pub(crate) fn new(in_flight: &InFlight) -> Self {
        Arriving { progress: watch::Sender::default(), data: Mutex::default(), in_flight: in_flight.clone() }
    }
}

/// How far a fill has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes that have arrived.
    pub(crate) bytes: u64,
    /// How it ended, when it has.
    pub(crate) end: Option<End>,
}

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every byte is there.
    Complete,
    /// The origin broke off, nobody was left to read it, or what fed it died: no reader may end cleanly. [`Why::Limit`]: there
    /// was no room for more, and what it had is given back.
    Broken(Why),
}

#[derive(Default)]
struct FillData {
    /// Sealed blocks of [`BLOCK_BYTES`]; emptied from the front once the copy is abandoned.
    blocks: Vec<Bytes>,
    /// Pieces after the last block.
    tail: Vec<Bytes>,
    tail_bytes: usize,
    /// The copy is too large to be kept: only a window for the readers remains.
    abandoned: bool,
    /// First byte that is still held.
    held_from: u64,
    /// Where each reader is: an abandoned copy must not run away from the slowest.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

impl Fill {
    /// Adds a piece. While the copy is kept this never waits; an abandoned one waits for its slowest reader. When nobody is
    /// left to read and it does not go on `unread`, the piece is not added: `false`.
    pub(crate) async fn push(&self, piece: Bytes, unread: bool) -> bool {
        let mut receiver = self.body.progress.subscribe();
        let mut slowest;
        loop {
            {
                let mut data = self.body.data.lock();
                if !data.abandoned {
                    break;
                }
                if data.readers.is_empty() && !unread {
                    return false;
                }
                let arrived = self.body.progress.borrow().bytes;
                slowest = data.readers.values().copied().min().unwrap_or(arrived);
                data.drop_before(slowest, |block| self.is_waiting(block));
                if arrived.saturating_sub(slowest) < window_bytes(&self.body.in_flight) {
                    break;
                }
                receiver.mark_unchanged();
            }
            // A reader that moves or leaves marks the channel as changed. One that does neither must not hold the others, nor
            // the origin if it can go on from disk.
            if tokio::time::timeout(SLOWEST_PATIENCE, receiver.changed()).await.is_err() {
                let mut data = self.body.data.lock();
                if self.leads_to_disk || data.readers.values().any(|at| *at > slowest) {
                    data.readers.retain(|_, at| *at > slowest);
                }
                drop(data);
                self.body.progress.send_modify(|_| {});
            }
        }
        let bytes = piece.len() as u64;
        self.body.data.lock().push(piece, &self.body.in_flight);
        self.body.progress.send_modify(|progress| progress.bytes += bytes);
        true
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        let mut progress = self.body.progress.subscribe();
        let _ended = progress.wait_for(|progress| progress.end.is_some()).await;
    }

    /// How many bytes it holds for its slowest reader; all that came while it is kept.
    pub(crate) fn window(&self) -> u64 {
        let (data, arrived) = (self.body.data.lock(), self.progress().bytes);
        let slowest = || data.readers.values().copied().min().unwrap_or(data.held_from);
        arrived.saturating_sub(if data.abandoned { slowest() } else { 0 })
    }

    /// Whether nothing of it is to be kept any longer, and nobody new may follow.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.body.data.lock().abandoned
    }

    /// Whether even the fastest of its readers has much to read, and nothing of it is to be kept.
    pub(crate) fn is_ahead(&self) -> bool {
        let (data, arrived) = (self.body.data.lock(), self.progress().bytes);
        let fastest = data.readers.values().max().filter(|_| data.abandoned);
        fastest.is_some_and(|fastest| arrived.saturating_sub(*fastest) > SMALL_BYTES)
    }

    /// Waits for none of its readers any longer, if they can go on without it, and holds nothing for them.
    pub(crate) fn leave_behind(&self) {
        if self.leads_to_disk {
            let (mut data, arrived) = (self.body.data.lock(), self.progress().bytes);
            data.readers.clear();
            data.drop_before(arrived, |block| self.is_waiting(block));
        }
    }

    /// Whether nobody reads it but, perhaps, one.
    pub(crate) fn has_one_reader(&self) -> bool {
        self.body.data.lock().readers.len() <= 1
    }

    /// Whether a block is on its way to disk, where nobody can read it yet.
    fn is_waiting(&self, block: usize) -> bool {
        let Some((shared, sliced)) = &self.sliced else { return false };
        let first = match self.content_range {
            Some(ContentRange::Bytes(first, ..)) => first / BLOCK_BYTES as u64,
            _ => 0,
        };
        shared.disks.is_waiting(shared.slice_key(sliced.id, first + block as u64))
    }

    /// Stops keeping the bytes: the object turned out larger than the cache takes.
    pub(crate) fn abandon(&self) {
        self.body.data.lock().abandoned = true;
    }

    /// Ends the fill. `Complete` must be told only after everything has been pushed. What is broken off for want of room gives back
    /// what it holds: slow readers would do so in minutes.
    pub(crate) fn end(&self, end: End) {
        // First: who finds nothing must find out why.
        self.body.progress.send_modify(|progress| progress.end = Some(end));
        if end == End::Broken(Why::Limit) {
            let mut data = self.body.data.lock();
            data.held_from = u64::MAX;
            let held = (std::mem::take(&mut data.blocks), std::mem::take(&mut data.tail));
            drop(data);
            drop(held);
        }
    }

    /// Bytes that have arrived and whether it has ended.
    pub(crate) fn progress(&self) -> Progress {
        *self.body.progress.borrow()
    }

    /// The body for [`Stored::whole`]; `None` when it was abandoned.
    pub(crate) fn whole_body(&self) -> Option<Vec<Bytes>> {
        let data = self.body.data.lock();
        if data.abandoned {
            return None;
        }
        if data.blocks.is_empty() {
            return Some(data.tail.clone());
        }
        let mut blocks = data.blocks.clone();
        if data.tail_bytes > 0 {
            blocks.push(concatenate(&data.tail, data.tail_bytes));
        }
        Some(blocks)
    }

    /// Starts reading at `offset`; `None` when those bytes are gone already.
    pub(crate) fn read_from(self: &Arc<Self>, offset: u64) -> Option<FillReader> {
        let mut data = self.body.data.lock();
        if offset < data.held_from {
            return None;
        }
        let id = data.next_reader;
        data.next_reader += 1;
        data.readers.insert(id, offset);
        Some(FillReader { fill: self.clone(), receiver: self.body.progress.subscribe(), id, offset })
    }
}

impl FillData {
    fn push(&mut self, mut piece: Bytes, in_flight: &InFlight) {
        while self.tail_bytes + piece.len() >= BLOCK_BYTES {
            let rest = piece.split_off(BLOCK_BYTES - self.tail_bytes);
            self.tail.push(piece);
            let block = concatenate(&self.tail, BLOCK_BYTES);
            self.blocks.push(in_flight.count(BLOCK_BYTES as u64).hold(block));
            self.tail.clear();
            (piece, self.tail_bytes) = (rest, 0);
        }
        self.tail_bytes += piece.len();
        if !piece.is_empty() {
            self.tail.push(piece);
        }
    }

    /// Gives up whole blocks before `offset`, in place, so that block numbers keep their meaning.
    fn drop_before(&mut self, offset: u64, is_needed: impl Fn(usize) -> bool) {
        let passed = (offset as usize / BLOCK_BYTES).min(self.blocks.len());
        let first_held = self.held_from as usize / BLOCK_BYTES;
        let first_needed = (first_held..passed).find(|block| is_needed(*block)).unwrap_or(passed);
        // A disk that hangs must not have all of it held.
        let block_count = first_needed.max(passed.saturating_sub(WAITING_BLOCKS_MAX));
        for block in &mut self.blocks[first_held.min(block_count)..block_count] {
            *block = Bytes::new();
        }
        self.held_from = self.held_from.max((block_count * BLOCK_BYTES) as u64);
    }

    fn at(&self, offset: u64) -> Bytes {
        let index = offset as usize / BLOCK_BYTES;
        if let Some(block) = self.blocks.get(index) {
            return block.slice(offset as usize % BLOCK_BYTES..);
        }
        let mut start = (self.blocks.len() * BLOCK_BYTES) as u64;
        for piece in &self.tail {
            let end = start + piece.len() as u64;
            if offset < end {
                return piece.slice((offset - start) as usize..);
            }
            start = end;
        }
        Bytes::new()
    }
}

fn concatenate(pieces: &[Bytes], total: usize) -> Bytes {
    let mut all = BytesMut::with_capacity(total);
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

/// The writing end of a flight: whoever holds it owes an outcome, and dropping it without one tells the waiters that
/// there will be none.
pub(crate) struct Pilot {
    flight: Arc<Flight>,
}

impl Pilot {
    pub(crate) fn new(flight: Arc<Flight>) -> Self {
        Pilot { flight }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        match self.flight.landing() {
            Landing::Pending => self.flight.land(Landing::Failed { why: Why::Internal, shared: false }),
            Landing::Fill(fill) if fill.progress().end.is_none() => fill.end(End::Broken(Why::Internal)),
            _ => {}
        }
    }
}

/// One reader of a fill.
pub(crate) struct FillReader {
    fill: Arc<Fill>,
    receiver: watch::Receiver<Progress>,
    id: u64,
    offset: u64,
}

impl FillReader {
    /// The next bytes as soon as there are any; `Ok(None)` at the clean end. Of what is broken off for want of room no more comes,
    /// also of what had arrived.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        loop {
            let progress = *self.receiver.borrow_and_update();
            if progress.end == Some(End::Broken(Why::Limit)) {
                return Err(Unread::Broken(Why::Limit));
            }
            if progress.bytes > self.offset {
                let (mut piece, abandoned) = {
                    let data = self.fill.body.data.lock();
                    if !data.readers.contains_key(&self.id) {
                        // The others have gone on, and what it would read next may be gone.
                        return Err(Unread::Behind);
                    }
                    (data.at(self.offset), data.abandoned)
                };
                if piece.is_empty() {
                    // It was broken off in this moment.
                    let end = self.fill.progress().end;
                    return Err(Unread::Broken(match end {
                        Some(End::Broken(why)) => why,
                        _ => Why::Internal,
                    }));
                }
                if abandoned {
                    piece = sip(&self.fill.body.in_flight, piece);
                }
                self.offset += piece.len() as u64;
                if let Some(at) = self.fill.body.data.lock().readers.get_mut(&self.id) {
                    *at = self.offset;
                }
                if abandoned {
                    self.fill.body.progress.send_modify(|_| {});
                }
                return Ok(Some(piece));
            }
            match progress.end {
                Some(End::Complete) => return Ok(None),
                Some(End::Broken(why)) => return Err(Unread::Broken(why)),
                None => {}
            }
            if self.receiver.changed().await.is_err() {
                return Err(Unread::Broken(Why::Internal));
            }
        }
    }

    /// Position of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

impl Drop for FillReader {
    fn drop(&mut self) {
        let abandoned = {
            let mut data = self.fill.body.data.lock();
            data.readers.remove(&self.id);
            data.abandoned
        };
        if abandoned {
            self.fill.body.progress.send_modify(|_| {});
        }
    }
}

/// Why a fill has no more for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It broke off in the middle of the body.
    Broken(Why),
    /// The reader was too slow, and is no longer waited for.
    Behind,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(fields: &Fields) -> Start<'_> {
        Start { fields, position: 0, epoch: 0, raised: 0, now_ms: 0, class: Class::default() }
    }

    fn lead(flights: &Flights, may_follow: impl Fn(&Flight) -> bool) -> Option<Arc<Flight>> {
        match flights.board(1, &start(&Fields::new()), false, may_follow) {
            Boarding::Lead(flight) => Some(flight),
            Boarding::Follow(_) | Boarding::Failing(_) => None,
        }
    }

    #[test]
    fn what_is_begun_while_another_is_judged_is_followed() {
        let flights = Flights::new();
        let outdated = lead(&flights, |_| true).unwrap();
        let newer = std::cell::OnceCell::new();
        let boarding = flights.board(1, &start(&Fields::new()), false, |flight| {
            assert!(flights.shard(1).try_lock().is_some(), "the shard is locked");
            let is_outdated = std::ptr::eq(flight, &*outdated);
            if is_outdated {
                let _once = newer.set(lead(&flights, |_| false).unwrap());
            }
            !is_outdated
        });
        let Boarding::Follow(followed) = boarding else { panic!("two fetch the same") };
        assert!(Arc::ptr_eq(&followed, newer.get().unwrap()));
    }
}
