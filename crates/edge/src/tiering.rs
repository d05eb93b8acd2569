//! Between the memory tier and the disks: what is stored goes to both, what memory has lost is read back, and what is
//! forgotten is forgotten in both.
//!
//! ```text
//! fill ─► memory: the whole, if it fits          ─► disk: one record up to 1 MiB, else a head and slices of 1 MiB
//! miss in memory ─► index ─► read, verified ─► answer;  small, or read again soon ─► memory
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use semantics::key::hash;
use semantics::policy::UNREACHABLE_SECS;
use semantics::range::strong_validator;
use semantics::{Facts, Fields};
use store::disk::{Draft, Spot, buffer_bytes};
use tokio::sync::watch;

use crate::in_flight::{For, SMALL_BYTES};
use crate::loaded::RuleAt;
use crate::meta::{Meta, ResponseMeta};
use crate::object::{BLOCK_BYTES, Entry, Item, Object, Sliced, Stored, Variants};
use crate::request::Request;
use crate::worker::{Shared, Worker};

/// Bytes of a slice. Also the size of the blocks that a fill gathers.
pub(crate) const SLICE_BYTES: u64 = BLOCK_BYTES as u64;

/// Bodies up to this go back to memory when they are read once; larger ones when they are read a second time soon.
const PROMOTE_BYTES: usize = 64 * 1024;

/// What one of the last reads of a larger body stands for in memory: they are remembered for about as long as memory
/// would have kept what they have read.
const RECENT_BYTES: usize = 128 * 1024;

/// Minutes for which a variant index is worth keeping: as long as anything it leads to may be.
const VARIANTS_MINUTES: u32 = 366 * 24 * 60;

type ReadsShard = Mutex<HashMap<u128, Read>>;

/// Reads that others may follow.
pub(crate) struct Reads {
    shards: Box<[ReadsShard]>,
    /// Fingerprints of larger bodies that were read lately; each place holds the last of its keys.
    recent: Box<[AtomicU32]>,
}

/// One of them. What has come under the key since it began is another record, which is not what it reads.
#[derive(Clone)]
struct Read {
    spot: Spot,
    progress: watch::Receiver<Progress>,
}

#[derive(Clone)]
enum Progress {
    Reading,
    Done(Result<Option<Entry>, Crowded>),
}

/// There is no room in memory for what would be read.
#[derive(Clone, Copy)]
pub(crate) struct Crowded;

impl Reads {
    /// For a memory tier of so many bytes.
    pub(crate) fn new(memory_bytes: usize) -> Self {
        let recent = (memory_bytes / RECENT_BYTES).max(1);
        Reads {
            shards: (0..64).map(|_| Mutex::default()).collect(),
            recent: (0..recent).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Whether a key was read lately; it has been from now on.
    pub(crate) fn is_again(&self, key: u128) -> bool {
        let print = (key >> 96) as u32 | 1;
        let place = &self.recent[key as usize % self.recent.len()];
        place.swap(print, Ordering::Relaxed) == print
    }

    fn shard(&self, key: u128) -> &ReadsShard {
        &self.shards[(key >> 64) as usize % self.shards.len()]
    }
}

/// Takes a read off the list however it ends.
struct Leading<'a> {
    reads: &'a Reads,
    key: u128,
    spot: Spot,
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let mut shard = self.reads.shard(self.key).lock();
        if shard.get(&self.key).is_some_and(|read| read.spot.is(&self.spot)) {
            shard.remove(&self.key);
        }
    }
}

/// Reads what is stored under a key. Who asks for the same at the same time, on any worker, gets it from the same read.
/// `None` is a miss.
///
/// # Errors
/// When there is no room for it in time. Who follows needs none.
pub(crate) async fn read(worker: &Worker, key: u128, spot: &Spot) -> Result<Option<Entry>, Crowded> {
    let reads = &worker.shared.reads;
    let (sender, receiver) = watch::channel(Progress::Reading);
    let followed = {
        let mut shard = reads.shard(key).lock();
        let followed = shard.get(&key).filter(|read| read.spot.is(spot)).cloned();
        if followed.is_none() {
            shard.insert(key, Read { spot: *spot, progress: receiver });
        }
        followed
    };
    if let Some(mut followed) = followed {
        let done = followed.progress.wait_for(|progress| matches!(progress, Progress::Done(_))).await;
        return match done.as_deref() {
            Ok(Progress::Done(entry)) => entry.clone(),
            // Whoever read has left; at worst several read the same.
            _ => read_alone(worker, key, spot).await,
        };
    }
    let leading = Leading { reads, key, spot: *spot };
    let entry = read_alone(worker, key, spot).await;
    drop(leading);
    sender.send_replace(Progress::Done(entry.clone()));
    entry
}

/// [`read`], on the spot and without leaving a trace: for whoever only wants to know.
pub(crate) fn peek(shared: &Shared, key: u128, spot: &Spot) -> Option<Entry> {
    let record = shared.disks.read_now(key, spot).ok()?;
    entry_of(shared, key, &record.meta, record.body()?.clone()).map(|(entry, _)| entry)
}

async fn read_alone(worker: &Worker, key: u128, spot: &Spot) -> Result<Option<Entry>, Crowded> {
    let bytes = buffer_bytes(u64::from(spot.bytes()));
    // Given back once what was read counts itself.
    let _room = match u64::from(spot.bytes()) {
        ..=SMALL_BYTES => worker.shared.in_flight.count(0),
        _ => worker.leave(bytes, For::New).await.ok_or(Crowded)?,
    };
    Ok(read_in_room(worker, key, spot).await)
}

async fn read_in_room(worker: &Worker, key: u128, spot: &Spot) -> Option<Entry> {
    let shared = &worker.shared;
    let record = worker.disk_reader.read(key, spot, usize::MAX).await.ok()?;
    let body = record.body()?.clone();
    let small = body.len() <= PROMOTE_BYTES;
    let Some((entry, is_light)) = entry_of(shared, key, &record.meta, body) else {
        // Written by something else than this program, or for another key.
        shared.disks.remove(key);
        return None;
    };
    if is_light || small || shared.reads.is_again(key) {
        let in_memory = match &*entry {
            Item::Object(stored) if !is_light => {
                Arc::new(Item::Object(stored.compact(shared.pages.as_ref())))
            }
            _ => entry.clone(),
        };
        // What has been purged is found out at the next look-up; what has been forgotten is no longer there.
        shared.store.restore(key, in_memory, || shared.disks.find(key).is_some_and(|now| now.is(spot)));
    }
    Some(entry)
}

/// What a record says, and whether it is little beside a head.
fn entry_of(shared: &Shared, key: u128, meta: &[u8], body: Bytes) -> Option<(Entry, bool)> {
    match Meta::parse(meta)? {
        Meta::Slice => None,
        Meta::Variants(variants, _) => Some((Arc::new(Item::Variants(variants)), true)),
        Meta::Response(ResponseMeta { facts, position, tags, head, slices, .. }) => {
            // At a position that the log doesn't know, purges may have been lost.
            shared.positions.read().know(position).then_some(())?;
            let stored = match slices {
                Some((id, len)) => Stored::sliced(facts, position, tags, &head, Sliced { id, key, len }),
                None => Stored::read(facts, position, tags, &head, body),
            };
            Some((Object::new(stored).entry(), slices.is_some()))
        }
    }
}

impl Shared {
    /// Takes away what is stored under a key: no request that starts after this finds it.
    pub(crate) fn forget(&self, key: u128) {
        // The disks first: what is being read from them must find out that it is gone. See `Tier::restore`.
        self.disks.remove(key);
        drop(self.store.remove(key));
    }

    /// Takes away a response whose body lies in these slices, and no other that has come in its place.
    pub(crate) fn forget_slices(&self, sliced: &Sliced) {
        let held = self.store.peek(sliced.key).and_then(Object::of);
        if held.is_none_or(|held| held.slices().is_some_and(|slices| slices.id == sliced.id)) {
            self.forget(sliced.key);
        }
    }

    /// Whether a slice can be had without asking the origin.
    pub(crate) fn has_slice(&self, key: u128) -> bool {
        self.store.peek(key).is_some() || self.disks.find(key).is_some() || self.disks.is_waiting(key)
    }

    /// The key of one slice of a body.
    pub(crate) fn slice_key(&self, id: u128, number: u64) -> u128 {
        let mut text = [0; 30];
        text[..6].copy_from_slice(b"slice ");
        text[6..22].copy_from_slice(&id.to_le_bytes());
        text[22..].copy_from_slice(&number.to_le_bytes());
        hash(&self.seed, &text)
    }

    /// Asks for a slice to be written.
    pub(crate) fn put_slice(&self, id: u128, number: u64, facts: &Facts, body: Vec<Bytes>) -> bool {
        let key = self.slice_key(id, number);
        let expiry = useful_until(facts);
        self.disks.put(Draft { key, meta: Bytes::from_static(Meta::SLICE), body, expiry, is_slice: true })
    }

    /// Asks for a response to be written whose body lies in slices, or is `body`.
    pub(crate) fn put_response(&self, key: u128, stored: &Stored, url: String, body: Vec<Bytes>) {
        if self.disks.is_empty() {
            return;
        }
        let meta = ResponseMeta {
            facts: stored.facts,
            position: stored.position(),
            tags: stored.tags().to_vec(),
            head: stored.fields(),
            url,
            slices: stored.slices().map(|sliced| (sliced.id, sliced.len)),
        };
        let (meta, expiry) = (meta.write().into(), useful_until(&stored.facts));
        self.disks.put(Draft { key, meta, body, expiry, is_slice: false });
    }

    /// Asks for a variant index to be written.
    pub(crate) fn put_variants(&self, key: u128, variants: &Variants, url: &str) {
        if self.disks.is_empty() {
            return;
        }
        let expiry = minutes(self.clock.wall().secs()) + VARIANTS_MINUTES;
        let meta = variants.write(url).into();
        self.disks.put(Draft { key, meta, body: Vec::new(), expiry, is_slice: false });
    }
}

/// The minute after which a response is of no use, not even stale.
fn useful_until(facts: &Facts) -> u32 {
    let fresh = i64::from(facts.lifetime) - (facts.initial_age_ms / 1000).min(i64::MAX as u64) as i64;
    let stale = u64::from(facts.stale_while_revalidate.max(facts.stale_if_error)).max(UNREACHABLE_SECS);
    minutes(facts.response_time.secs().saturating_add(fresh.max(0)).saturating_add(stale as i64))
}

/// Minutes since 1970.
pub(crate) fn minutes(secs: i64) -> u32 {
    u32::try_from(secs / 60).unwrap_or(if secs < 0 { 0 } else { u32::MAX })
}

/// The URL as people know it, for those who look at a disk.
pub(crate) fn url_of(request: &Request) -> String {
    let scheme = if request.secure { "https" } else { "http" };
    format!("{scheme}://{}{}", request.authority, request.target)
}

// --- Cutting ---

/// Cuts a body that streams by into slices and has them written.
pub(crate) struct Cutter<'a> {
    shared: &'a Shared,
    id: u128,
    facts: Facts,
    /// Position of `held`'s first byte in the whole body: a multiple of [`SLICE_BYTES`].
    at: u64,
    held: Vec<Bytes>,
    held_bytes: u64,
    /// Whether every slice so far is to be written.
    is_intact: bool,
}

impl<'a> Cutter<'a> {
    /// From byte `at` of the body on.
    pub(crate) fn new(shared: &'a Shared, id: u128, facts: Facts, at: u64) -> Self {
        Cutter { shared, id, facts, at, held: Vec::new(), held_bytes: 0, is_intact: true }
    }

    /// The next bytes.
    pub(crate) fn push(&mut self, piece: &Bytes) {
        let mut piece = piece.clone();
        while self.held_bytes + piece.len() as u64 > SLICE_BYTES {
            let rest = piece.split_off((SLICE_BYTES - self.held_bytes) as usize);
            self.hold(piece);
            self.cut();
            piece = rest;
        }
        self.hold(piece);
    }

    fn hold(&mut self, piece: Bytes) {
        self.held_bytes += piece.len() as u64;
        if !piece.is_empty() {
            self.held.push(piece);
        }
    }

    fn cut(&mut self) {
        let number = self.at / SLICE_BYTES;
        self.at += self.held_bytes;
        self.held_bytes = 0;
        let body = std::mem::take(&mut self.held);
        let is_there = self.shared.disks.find(self.shared.slice_key(self.id, number)).is_some();
        self.is_intact &= is_there || self.shared.put_slice(self.id, number, &self.facts, body);
    }

    /// Whether anything was cut off yet: until then the body may be one record.
    pub(crate) fn has_cut(&self) -> bool {
        self.at > 0
    }

    /// After the last byte of the body: the last slice. Whether all are to be written.
    pub(crate) fn finish(mut self) -> bool {
        if self.held_bytes > 0 {
            self.cut();
        }
        self.is_intact
    }

    /// After the last byte that came, which was not the body's last: a slice that came whole is kept.
    pub(crate) fn finish_early(mut self) {
        if self.held_bytes == SLICE_BYTES {
            self.cut();
        }
    }
}

/// What the slices of a representation are known by. With a strong validator and a known length, whoever fetches a part of it
/// names it alike; not after a purge, which may be the only way to get rid of a wrong copy under the same validator. All
/// else is a representation of its own.
pub(crate) fn slices_id(
    shared: &Shared,
    at: &RuleAt,
    key: u128,
    head: &Fields,
    len: Option<u64>,
    position: u64,
) -> u128 {
    let mut text = Vec::with_capacity(160);
    text.extend_from_slice(b"slices ");
    text.extend_from_slice(&key.to_le_bytes());
    text.extend_from_slice(&position.to_le_bytes());
    text.extend_from_slice(at.site().name.as_bytes());
    match len.zip(strong_validator(head)) {
        Some((len, validator)) => {
            text.extend_from_slice(&len.to_le_bytes());
            text.extend_from_slice(validator);
        }
        None => {
            let unique = shared.next_generation.fetch_add(1, Ordering::Relaxed);
            text.extend_from_slice(b" alone ");
            text.extend_from_slice(&unique.to_le_bytes());
        }
    }
    hash(&shared.seed, &text)
}
