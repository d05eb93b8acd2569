//! Reading a body that lies in slices on disk: each is read where it is there, followed where it is being fetched, and
//! fetched where it is missing, whole slices at a time and once for all who want them.
//!
//! ```text
//! next slice ─► in memory? ─► its pages
//!           ├─► on disk?   ─► read, verified;  read again soon ─► memory
//!           ├─► in a stretch? ─► follow the fill
//!           └─► nowhere ─► begin a stretch: Range, If-Range ─► 206 of the same representation, or the object is outdated
//! ```
//!
//! A stretch is what one fetch brings: consecutive slices, or the whole body.
//!
//! Only bytes of one representation ever come together: same strong validator, same length, else nothing.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use semantics::Why;
use semantics::range::{self, ContentRange, Span};
use store::disk::{Record, buffer_bytes};
use store::{Room, Run};

use crate::answer::ContentRange as Described;
use crate::fetch::{Job, RangeWanted};
use crate::flight::{Arriving, End, Fill, FillReader, Unread};
use crate::in_flight::{For, SIP_BYTES, SMALL_BYTES, arrived, fill_bytes, is_tight};
use crate::loaded::RuleAt;
use crate::object::{Item, Object, Sliced};
use crate::origin::{Askers, OriginResponse};
use crate::pieces::Piece;
use crate::request::Request;
use crate::tiering::{Cutter, SLICE_BYTES};
use crate::tiers;
use crate::urgency;
use crate::worker::{Shared, Worker};

/// Bytes that are read from disk at a time: a slow visitor holds the first and the last of a slice in memory, unless that is
/// short: then [`SIP_BYTES`].
const PIECE_BYTES: u64 = 256 * 1024;

/// Most slices of one stretch: a visitor who leaves leaves no more than this to be fetched for nobody.
const STRETCH_SLICES_MAX: u64 = 16;

/// Most slices that are looked for before an answer begins: how many a body has knows no bound, and hits must not wait for it.
const LOOKED_SLICES_MAX: usize = 256;

/// How far behind a stretch's progress a slice may lie that is waited for instead of being fetched.
const AHEAD_BYTES_MAX: u64 = 4 * SLICE_BYTES;

/// How much of a body is read in vain from an origin that knows no ranges, for the sake of what comes behind it.
const SKIPPED_BYTES_MAX: u64 = 64 * SLICE_BYTES;

/// How often one reader tries again after something went wrong on its way.
const TROUBLES_MAX: u32 = 3;

/// How long a slice that is being written is waited for, and how often it is looked for.
const WRITTEN_PATIENCE: Duration = Duration::from_secs(1);
const WRITTEN_INTERVAL: Duration = Duration::from_millis(5);

/// How often who waits for room looks whether somebody else has begun what it wants.
const FOLLOWED_INTERVAL: Duration = Duration::from_millis(20);

/// Fetches under way of bodies that lie in slices, by the id of those.
#[derive(Default)]
pub(crate) struct Stretches {
    by_body: Mutex<HashMap<u128, Vec<Stretch>>>,
    /// Keys of responses that are being cut and that nothing else can be put to: a second copy would be of no use.
    alone: Mutex<HashSet<u128>>,
}

/// The only one to cut a response, for as long as it lives.
pub(crate) struct Alone {
    shared: Arc<Shared>,
    key: u128,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.shared.stretches.alone.lock().remove(&self.key);
    }
}

/// What one fetch brings.
#[derive(Clone)]
struct Stretch {
    /// First byte, and how many.
    start: u64,
    len: u64,
    fill: Arc<Fill>,
    /// Whether it breaks off when nobody is left to read it.
    needs_reader: bool,
    /// Why it broke off.
    failed: Arc<OnceLock<Failed>>,
}

/// Why a slice cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The origin has another representation by now: what is stored is of no use.
    Outdated,
    /// The origin gives nothing.
    Origin(Why),
    /// There is no room in memory for it.
    Crowded,
}

impl Trouble {
    /// That of who has tried often enough, when what it followed was last broken off for this reason.
    fn after_all(why: Why) -> Self {
        if why == Why::Limit { Trouble::Crowded } else { Trouble::Origin(Why::OriginProtocol) }
    }
}

/// A stretch for as long as it goes on. However it ends, those who follow it learn of it.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    id: u128,
    stretch: Stretch,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let fill = &self.stretch.fill;
        if fill.progress().end.is_none() {
            fill.end(End::Broken(Why::Internal));
        }
        let mut stretches = self.shared.stretches.by_body.lock();
        if let Some(of_body) = stretches.get_mut(&self.id) {
            of_body.retain(|stretch| !Arc::ptr_eq(&stretch.fill, fill));
            if of_body.is_empty() {
                stretches.remove(&self.id);
            }
        }
    }
}

/// Lets readers find a fill whose bytes begin at `start` of the body.
pub(crate) fn register(shared: &Arc<Shared>, id: u128, start: u64, fill: &Arc<Fill>) -> Registered {
    let len = fill.length.unwrap_or(u64::MAX);
    let stretch = Stretch { start, len, fill: fill.clone(), needs_reader: true, failed: Arc::default() };
    shared.stretches.by_body.lock().entry(id).or_default().push(stretch.clone());
    Registered { shared: shared.clone(), id, stretch }
}

/// Makes the caller the only one to cut the response under a key; `None` when somebody is.
pub(crate) fn alone(shared: &Arc<Shared>, key: u128) -> Option<Alone> {
    let is_first = shared.stretches.alone.lock().insert(key);
    is_first.then(|| Alone { shared: shared.clone(), key })
}

impl Stretches {
    /// A reader at `offset` of the body, if a stretch has that byte or will have it soon.
    fn follow(&self, id: u128, offset: u64) -> Option<(FillReader, Stretch)> {
        let stretches = self.by_body.lock();
        stretches
            .get(&id)?
            .iter()
            .find_map(|stretch| stretch.reader_at(offset).map(|reader| (reader, stretch.clone())))
    }

    /// The stretch that has this byte of the body, or will have it.
    fn bringing(&self, id: u128, offset: u64) -> Option<Stretch> {
        let stretches = self.by_body.lock();
        stretches.get(&id)?.iter().find(|stretch| stretch.brings(offset)).cloned()
    }

    /// [`Stretches::follow`], or the stretch that `begin` makes, if it makes one: decided at once for all workers.
    fn follow_or_begin(
        &self,
        id: u128,
        offset: u64,
        begin: impl FnOnce() -> Option<Stretch>,
    ) -> Option<(Option<FillReader>, Stretch, IsNew)> {
        let mut stretches = self.by_body.lock();
        let of_body = stretches.entry(id).or_default();
        if let Some((reader, stretch)) =
            of_body.iter().find_map(|stretch| Some((stretch.reader_at(offset)?, stretch)))
        {
            return Some((Some(reader), stretch.clone(), IsNew::Followed));
        }
        let Some(stretch) = begin() else {
            if of_body.is_empty() {
                stretches.remove(&id);
            }
            return None;
        };
        of_body.push(stretch.clone());
        Some((stretch.reader_at(offset), stretch, IsNew::Begun))
    }
}

/// How a reader came to a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IsNew {
    /// Somebody else has begun it.
    Followed,
    /// It has, with its visitor's request.
    Begun,
}

impl Stretch {
    /// How a reader has come to something that was missing. What brings a body for the first time is the stored one, as far as
    /// it has come.
    fn joined(&self, is_new: IsNew) -> Option<IsNew> {
        (!self.needs_reader).then_some(is_new)
    }

    fn brings(&self, offset: u64) -> bool {
        let within = offset.checked_sub(self.start).is_some_and(|within| within < self.len);
        within && !matches!(self.fill.progress().end, Some(End::Broken(_)))
    }

    fn reader_at(&self, offset: u64) -> Option<FillReader> {
        let progress = self.fill.progress();
        let within = offset.checked_sub(self.start).filter(|within| *within < self.len)?;
        let is_near = within <= progress.bytes.saturating_add(AHEAD_BYTES_MAX);
        let is_broken = matches!(progress.end, Some(End::Broken(_))) && within >= progress.bytes;
        (is_near && !is_broken).then(|| self.fill.read_from(within)).flatten()
    }
}

/// One answer's reader of a body in slices.
pub(crate) struct SliceReader {
    worker: Rc<Worker>,
    request: Rc<Request>,
    at: RuleAt,
    object: Object,
    sliced: Sliced,
    offset: u64,
    end: u64,
    source: Source,
    /// Read before it was asked for.
    primed: Option<Piece>,
    troubles: u32,
    /// A slice that could not be read: not to be read again.
    unreadable: Option<u64>,
    whom: For,
    /// How what was missing came so far.
    joined: Option<IsNew>,
}

enum Source {
    None,
    Memory(Arc<Run>),
    Slice(Box<Record>, u64),
    Fetch(FillReader, Stretch, IsNew),
}

impl SliceReader {
    /// Reads bytes `start..end` of `object`; `None` when its body is not in slices.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        request: &Rc<Request>,
        at: &RuleAt,
        object: &Object,
        start: u64,
        end: u64,
    ) -> Option<Self> {
        Some(SliceReader {
            worker: worker.clone(),
            request: request.clone(),
            at: at.clone(),
            sliced: *object.slices()?,
            object: object.clone(),
            offset: start,
            end,
            source: Source::None,
            primed: None,
            troubles: 0,
            unreadable: None,
            whom: For::UnderWay,
            joined: None,
        })
    }

    /// Goes on at other bytes, unless it is about to.
    pub(crate) fn seek(&mut self, start: u64, end: u64) {
        if (self.offset - self.primed.as_ref().map_or(0, Piece::len), self.end) == (start, end) {
            return;
        }
        (self.offset, self.end, self.source, self.primed) = (start, end, Source::None, None);
    }

    /// Follows a fill that has byte [`SliceReader::new`]'s `start` next, for as long as it can.
    pub(crate) fn follow(&mut self, reader: FillReader, fill: &Arc<Fill>, fill_start: u64) {
        let len = fill.length.unwrap_or(u64::MAX);
        let (failed, fill) = (Arc::default(), fill.clone());
        let stretch = Stretch { start: fill_start, len, fill, needs_reader: true, failed };
        self.source = Source::Fetch(reader, stretch, IsNew::Followed);
    }

    /// Makes sure that there is a first piece, before anything is promised to the visitor.
    pub(crate) async fn prime(&mut self) -> Result<(), Trouble> {
        if range::strong_validator(&self.object.fields()).is_none() && !self.is_all_here() {
            // What is missing could not be put to the rest, which would show only in the middle of the answer.
            self.worker.shared.forget_slices(&self.sliced);
            return Err(Trouble::Outdated);
        }
        if self.primed.is_none() {
            self.whom = For::New;
            let primed = self.advance().await;
            self.whom = For::UnderWay;
            self.primed = primed?;
        }
        Ok(())
    }

    /// Whether all that is wanted is there, as far as the index knows: the origin need not be asked.
    pub(crate) fn is_all_here(&self) -> bool {
        let shared = &self.worker.shared;
        let mut wanted = self.offset / SLICE_BYTES..self.end.div_ceil(SLICE_BYTES);
        wanted.all(|number| shared.has_slice(shared.slice_key(self.sliced.id, number)))
    }

    /// How what is missing of bytes `start..end` will come, as far as is known ([`missing`]), or has come already.
    pub(crate) fn misses(&self, start: u64, end: u64) -> Option<IsNew> {
        missing(&self.worker.shared, &self.sliced, start, end).max(self.joined)
    }

    /// How what was missing came so far.
    pub(crate) fn joined(&self) -> Option<IsNew> {
        self.joined
    }

    /// What it has yet to read: first byte, and the one behind the last.
    pub(crate) fn left(&self) -> (u64, u64) {
        (self.offset, self.end)
    }

    /// Whether it reads what is being fetched already.
    pub(crate) fn is_following(&self) -> bool {
        matches!(self.source, Source::Fetch(..))
    }

    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Trouble> {
        match self.primed.take() {
            Some(piece) => Ok(Some(piece)),
            None => self.advance().await,
        }
    }

    /// What it reads.
    pub(crate) fn sliced(&self) -> &Sliced {
        &self.sliced
    }

    async fn advance(&mut self) -> Result<Option<Piece>, Trouble> {
        let in_flight = &self.worker.shared.in_flight.clone();
        // Decided once: what it takes itself must not have it begin again.
        let is_tight = is_tight(in_flight);
        while self.offset < self.end {
            let (within, piece_bytes) =
                (self.offset % SLICE_BYTES, if is_tight { SIP_BYTES } else { PIECE_BYTES });
            // Up to a multiple of a piece, so that each byte is read and verified once.
            let until = (within / piece_bytes + 1) * piece_bytes;
            match &mut self.source {
                Source::None => self.find_source(is_tight).await?,
                Source::Memory(run) => {
                    let (run, until) = (run.clone(), if is_tight { until } else { SLICE_BYTES });
                    let until = until.min(run.len()).min(within + (self.end - self.offset));
                    self.offset += until - within;
                    self.source = Source::None;
                    let room = is_tight.then(|| in_flight.try_room(until - within)).flatten();
                    return Ok(Some(match room.and_then(|room| copied(&run, within, until, room)) {
                        Some(copy) => Piece::Bytes(copy),
                        None => Piece::Pages(run, within, until),
                    }));
                }
                // Nothing is held while it waits.
                Source::Slice(record, _) if is_tight && record.holds_body() => self.source = Source::None,
                Source::Slice(record, number) => {
                    let number = *number;
                    let until = until.min(u64::from(record.body_len)).min(within + (self.end - self.offset));
                    let bytes = buffer_bytes(until - within);
                    let room = match self.sliced.len {
                        ..=SMALL_BYTES => in_flight.count(bytes),
                        _ => self.worker.leave(bytes, self.whom).await.ok_or(Trouble::Crowded)?,
                    };
                    let read = self.worker.disk_reader.part(record, within as usize..until as usize).await;
                    let is_last = until == u64::from(record.body_len);
                    match read {
                        Ok(mut piece) => {
                            if is_tight {
                                piece = room.hold(Bytes::copy_from_slice(&piece));
                            }
                            self.offset += piece.len() as u64;
                            if is_last {
                                self.source = Source::None;
                            }
                            return Ok(Some(Piece::Bytes(piece)));
                        }
                        Err(_counted) => {
                            self.unreadable = Some(number);
                            self.source = Source::None;
                        }
                    }
                }
                Source::Fetch(reader, stretch, is_new) => match reader.next().await {
                    Ok(Some(mut piece)) => {
                        piece.truncate((self.end - self.offset).min(piece.len() as u64) as usize);
                        self.offset += piece.len() as u64;
                        // What only passes ends with its last reader, and would be asked for once more.
                        let may_leave = !(stretch.needs_reader && stretch.fill.has_one_reader());
                        if is_tight && may_leave && self.has_next() {
                            // Else the fill would lie there until the visitor has taken this.
                            self.source = Source::None;
                        }
                        return Ok(Some(Piece::Bytes(piece)));
                    }
                    Ok(None) => self.source = Source::None,
                    // What it missed is on disk by now, or is fetched again.
                    Err(Unread::Behind) => self.source = Source::None,
                    Err(Unread::Broken(why)) => {
                        let trouble = match stretch.failed.get() {
                            Some(Failed::Shared(trouble)) => Some(*trouble),
                            // To ask again in the same words brings the same answer.
                            Some(Failed::OfAsker) if *is_new == IsNew::Begun => {
                                Some(Trouble::Origin(Why::OriginProtocol))
                            }
                            Some(Failed::OfAsker) | None => None,
                        };
                        self.source = Source::None;
                        self.trouble(trouble, why)?;
                    }
                },
            }
        }
        Ok(None)
    }

    /// Whether the next byte can be had at once without the origin, and what comes behind it from there.
    fn has_next(&self) -> bool {
        let shared = &self.worker.shared;
        let key = shared.slice_key(self.sliced.id, self.offset / SLICE_BYTES);
        range::strong_validator(&self.object.fields()).is_some()
            && (shared.store.peek(key).is_some() || shared.disks.find(key).is_some())
    }

    /// Counts something that went wrong and can be tried in another way, or says that it cannot. `why`: what is said when it has
    /// been tried often enough.
    fn trouble(&mut self, trouble: Option<Trouble>, why: Why) -> Result<(), Trouble> {
        self.troubles += 1;
        match trouble {
            // The origin has been asked and gives nothing: asking again at once helps nobody.
            Some(trouble) => Err(trouble),
            None if self.troubles > TROUBLES_MAX => Err(Trouble::after_all(why)),
            None => Ok(()),
        }
    }

    async fn find_source(&mut self, is_tight: bool) -> Result<(), Trouble> {
        let (shared, number) = (self.worker.shared.clone(), self.offset / SLICE_BYTES);
        let key = shared.slice_key(self.sliced.id, number);
        // The same slice again is no second hit.
        let held = match is_tight && !self.offset.is_multiple_of(SLICE_BYTES) {
            true => shared.store.peek(key),
            false => shared.store.lookup(key),
        };
        if let Some(entry) = held
            && let Item::Slice(run) = &*entry
            && run.len() == self.slice_len(number)
        {
            self.source = Source::Memory(run.clone());
            return Ok(());
        }
        let mut waited = Duration::ZERO;
        loop {
            if self.unreadable != Some(number)
                && let Some(spot) = shared.disks.lookup(key)
            {
                let is_hot = !is_tight && shared.reads.is_again(key);
                let first = match self.offset % SLICE_BYTES {
                    _ if is_hot => SLICE_BYTES,
                    0 if !is_tight => PIECE_BYTES,
                    _ => 0,
                };
                let room = shared.in_flight.try_room(buffer_bytes(first));
                let first = if room.is_some() { first as usize } else { 0 };
                let is_hot = is_hot && first > 0;
                match self.worker.disk_reader.read(key, &spot, first).await {
                    Ok(record) if u64::from(record.body_len) == self.slice_len(number) => {
                        self.source = match is_hot.then(|| promoted(&shared, key, &record)).flatten() {
                            Some(run) => Source::Memory(run),
                            None => Source::Slice(Box::new(record), number),
                        };
                        return Ok(());
                    }
                    // A slice of the wrong length was not written for this body.
                    Ok(_) => shared.disks.remove(key),
                    Err(_counted) => {}
                }
                self.unreadable = Some(number);
            }
            if let Some((reader, stretch)) = shared.stretches.follow(self.sliced.id, self.offset) {
                self.joined = self.joined.max(stretch.joined(IsNew::Followed));
                self.source = Source::Fetch(reader, stretch, IsNew::Followed);
                return Ok(());
            }
            if waited >= WRITTEN_PATIENCE || !shared.disks.is_waiting(key) {
                // It may have come to the disk since the look above.
                if self.unreadable != Some(number) && shared.disks.find(key).is_some() {
                    continue;
                }
                break;
            }
            tokio::time::sleep(WRITTEN_INTERVAL).await;
            waited += WRITTEN_INTERVAL;
        }
        self.fetch(number, is_tight).await
    }

    fn slice_len(&self, number: u64) -> u64 {
        (self.sliced.len - number * SLICE_BYTES).min(SLICE_BYTES)
    }

    /// Begins a stretch at slice `number`, or follows one that somebody else has begun just now.
    async fn fetch(&mut self, number: u64, is_tight: bool) -> Result<(), Trouble> {
        let shared = self.worker.shared.clone();
        let head = self.object.fields();
        if range::strong_validator(&head).is_none() {
            // Nothing that is fetched now could be put to what is there.
            shared.forget_slices(&self.sliced);
            return Err(Trouble::Outdated);
        }
        let last_wanted = (self.end - 1) / SLICE_BYTES;
        let is_missing = |number: &u64| !shared.has_slice(shared.slice_key(self.sliced.id, *number));
        let slices_max = if is_tight { 1 } else { STRETCH_SLICES_MAX };
        let more = (number + 1..=last_wanted).take(slices_max as usize - 1).take_while(is_missing).count();
        let start = number * SLICE_BYTES;
        let end = ((number + 1 + more as u64) * SLICE_BYTES).min(self.sliced.len);
        let Some(span) = Span::new(start, end - 1) else { return Err(Trouble::Outdated) };
        let begin = || {
            let fill = Fill {
                facts: self.object.facts,
                position: self.object.position(),
                tags: self.object.tags().to_vec(),
                length: Some(end - start),
                content_range: Some(Described::Bytes(start, end - 1, Some(self.sliced.len))),
                key: self.sliced.key,
                is_wider: true,
                sliced: Some((shared.clone(), self.sliced)),
                leads_to_disk: true,
                head: head.clone(),
                body: Arriving::new(&shared.in_flight),
            };
            // Whoever is slow goes on from disk, and does not keep all of it in memory meanwhile.
            fill.abandon();
            let (fill, failed) = (Arc::new(fill), Arc::default());
            Stretch { start, len: end - start, fill, needs_reader: false, failed }
        };
        let bytes = fill_bytes(end - start);
        let (mut asked, mut room) = (None, None);
        let worker = self.worker.clone();
        let mut leave = std::pin::pin!(worker.leave(bytes, self.whom));
        // Before it begins: as many as come at once would all find room else. Who can follow needs none, also if it has waited.
        let (reader, stretch, is_new) = loop {
            let begin_in_room = || {
                room = match self.sliced.len {
                    ..=SMALL_BYTES => Some(shared.in_flight.count(bytes)),
                    _ => asked.take().or_else(|| shared.in_flight.try_room(bytes)),
                };
                room.is_some().then(&begin)
            };
            match shared.stretches.follow_or_begin(self.sliced.id, self.offset, begin_in_room) {
                Some(found) => break found,
                None => {
                    if let Ok(room) = tokio::time::timeout(FOLLOWED_INTERVAL, leave.as_mut()).await {
                        asked = Some(room.ok_or(Trouble::Crowded)?);
                    }
                }
            }
        };
        self.joined = self.joined.max(stretch.joined(is_new));
        if let Some(room) = room {
            let work = Gap {
                job: self.job(&stretch, span),
                object: self.object.clone(),
                sliced: self.sliced,
                span,
                registered: Registered { shared, id: self.sliced.id, stretch: stretch.clone() },
            };
            tokio::task::spawn_local(work.fetch(room));
        }
        match reader {
            Some(reader) => {
                self.source = Source::Fetch(reader, stretch, is_new);
                Ok(())
            }
            None => self.trouble(None, Why::OriginProtocol),
        }
    }

    fn job(&self, stretch: &Stretch, span: Span) -> Job {
        Job {
            worker: self.worker.clone(),
            request: self.request.clone(),
            at: self.at.clone(),
            text: Vec::new(),
            key: 0,
            object_key: self.sliced.key,
            why: None,
            position: stretch.fill.position,
            epoch: 0,
            askers: Askers::new(urgency::class_of(&self.at, &self.request, Some(&self.object), false)),
            hides_errors: false,
            stale: None,
            range: Some(RangeWanted::part(span, &stretch.fill.head)),
            is_direct: false,
            told: None,
            is_kept: true,
        }
    }
}

/// How what is missing of bytes `start..end` of a body will come; `None` when nothing is. As far as the index knows, which does
/// not know of damage, and for the first [`LOOKED_SLICES_MAX`] slices.
pub(crate) fn missing(shared: &Shared, sliced: &Sliced, start: u64, end: u64) -> Option<IsNew> {
    let numbers = start / SLICE_BYTES..end.div_ceil(SLICE_BYTES);
    let how = |number| {
        let has = || shared.has_slice(shared.slice_key(sliced.id, number));
        if has() {
            return None;
        }
        match shared.stretches.bringing(sliced.id, number * SLICE_BYTES) {
            Some(stretch) => stretch.joined(IsNew::Followed),
            // What is brought gets to the disk before that ends.
            None if has() => None,
            None => Some(IsNew::Begun),
        }
    };
    numbers.take(LOOKED_SLICES_MAX).map(how).max().flatten()
}

/// Puts a slice that was read whole into memory as well.
fn promoted(shared: &Shared, key: u128, record: &Record) -> Option<Arc<Run>> {
    let run = Arc::new(shared.pages.as_ref()?.store(&[record.body()?]).ok()?);
    // Slices are never invalidated: what leads to them is.
    shared.store.restore(key, Arc::new(Item::Slice(run.clone())), || true);
    Some(run)
}

/// Bytes of pages as a copy, in the room for it.
fn copied(run: &Run, start: u64, end: u64, room: Room) -> Option<Bytes> {
    let mut copy = vec![0; (end - start) as usize];
    let read = run.read(start, &mut copy).ok()?;
    (read == copy.len()).then(|| room.hold(copy.into()))
}

/// The fetch of one stretch.
struct Gap {
    job: Job,
    object: Object,
    sliced: Sliced,
    span: Span,
    registered: Registered,
}

/// Why a stretch came to nothing, where those who want it had better not ask again at once.
#[derive(Clone, Copy)]
enum Failed {
    /// For all who want these slices.
    Shared(Trouble),
    /// For who asked, perhaps for no other: the answer was about the asker.
    OfAsker,
}

impl Gap {
    /// `room`: what the stretch has leave for.
    async fn fetch(self, room: Room) {
        let Registered { shared, stretch, .. } = &self.registered;
        let Err(failed) = self.pump(&stretch.fill, room).await else { return };
        let _first = stretch.failed.set(failed);
        if let Failed::Shared(Trouble::Outdated) = failed {
            shared.forget_slices(&self.sliced);
        }
        stretch.fill.end(End::Broken(Why::OriginProtocol));
    }

    /// Ends the fill where nothing has failed, and where whoever wants the rest is to ask again.
    async fn pump(&self, fill: &Arc<Fill>, mut room: Room) -> Result<(), Failed> {
        let Job { worker, request, .. } = &self.job;
        let fetched = tiers::fetch(&self.job, None, |_, _| {}).await;
        let mut response = fetched.map_err(|error| {
            worker.log_failure(request, &error);
            Failed::Shared(Trouble::Origin(error.why()))
        })?;
        match response.status {
            200 | 206 | 404 | 410 | 412 | 416 => {}
            500.. => return Err(Failed::Shared(Trouble::Origin(Why::OriginProtocol))),
            // Not allowed, too many requests, a redirect: no word about what is stored.
            _ => return Err(Failed::OfAsker),
        }
        let Some(mut skipped) = self.bytes_before(&response) else {
            return Err(Failed::Shared(Trouble::Outdated));
        };
        if !self.job.may_be_kept(&response) {
            return Err(match request.fields.contains("authorization") {
                true => Failed::OfAsker,
                false => Failed::Shared(Trouble::Outdated),
            });
        }
        let mut cutter = Cutter::new(&worker.shared, self.sliced.id, self.object.facts, self.span.start());
        let mut left = self.span.len();
        let mut is_settled = true;
        while left > 0
            && is_settled
            && let Some(Ok(mut piece)) = response.body.chunk().await
        {
            let before = skipped.min(piece.len() as u64);
            skipped -= before;
            drop(piece.split_to(before as usize));
            piece.truncate(left.min(piece.len() as u64) as usize);
            let bytes = piece.len() as u64;
            left -= bytes;
            let piece = arrived(&worker.shared.in_flight, &mut room, piece);
            // To the disk first: what the fill then gives up is on its way there.
            cutter.push(&piece);
            fill.push(piece, true).await;
            is_settled = left == 0 || room.bytes() > 0 || worker.settled(fill, left).await;
        }
        if left > 0 {
            cutter.finish_early();
            fill.end(End::Broken(match response.told {
                _ if !is_settled => Why::Limit,
                // Another edge has broken off.
                Some(_) => Why::OriginProtocol,
                None => return Err(Failed::Shared(Trouble::Origin(Why::OriginProtocol))),
            }));
            return Ok(());
        }
        cutter.finish();
        fill.end(End::Complete);
        if response.status == 206 {
            // The end of the message, so that the connection can be used again.
            let _nothing = response.body.chunk().await;
        }
        Ok(())
    }

    /// How many bytes of an answer come before those of the stretch; `None` when it is none of the same representation.
    fn bytes_before(&self, response: &OriginResponse) -> Option<u64> {
        let complete = Some(self.sliced.len);
        if !range::may_combine(&self.object.fields(), complete, &response.fields, complete) {
            return None;
        }
        let range = response.fields.get("content-range").and_then(ContentRange::parse);
        match response.status {
            206 => (range == Some(ContentRange::Span { span: self.span, complete })
                && response.length.is_none_or(|length| length == self.span.len()))
            .then_some(0),
            // The origin knows no ranges. What comes before is there already, or not wanted.
            200 => (response.length == complete && self.span.start() <= SKIPPED_BYTES_MAX)
                .then_some(self.span.start()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_followed_in_vain_too_often_is_told_of_little_room_if_that_was_it() {
        assert_eq!(Trouble::after_all(Why::Limit), Trouble::Crowded);
        assert_eq!(Trouble::after_all(Why::OriginProtocol), Trouble::Origin(Why::OriginProtocol));
    }
}
