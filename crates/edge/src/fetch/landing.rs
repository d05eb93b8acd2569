//! Landing: what becomes of an answer that may be kept. It streams to those who follow it, into memory if it fits there, and
//! to a disk in the one way that is chosen for it at the beginning: see [`ToDisk`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use observe::HopEnd;
use semantics::key::hash;
use semantics::range::{self, ContentRange, Part, Span};
use semantics::update::{HeadUpdate, update_from_head};
use semantics::{Facts, Fields, Why};
use store::Room;
use tokio::sync::oneshot;

use super::{Job, Outcome, RangeWanted, Report, Shape};
use crate::answer::{ContentRange as Described, OriginNote};
use crate::flight::{Arriving, End, FAILURE_HOLD_MS, Fill, Landing, Pilot};
use crate::in_flight::{For, SMALL_BYTES, UNREAD_BYTES_MAX, arrived, fill_bytes};
use crate::lookup::{self, Place};
use crate::object::{Object, Parts, Sliced, Stored};
use crate::origin::{FetchError, OriginResponse};
use crate::request::Method;
use crate::serve;
use crate::slices::{self, Alone};
use crate::tiering::{self, Cutter};
use crate::tiers;
use crate::worker::Worker;

/// What fills in flight may take in memory beside the tier, in objects of the largest size: with the default of 2 % each
/// about a quarter of the tier. What comes above it streams through without being kept.
const FILLS_KEPT_MAX: u64 = 12;

/// Longest body that is written again because its head has changed.
const REWRITTEN_BYTES_MAX: u64 = 16 * 1024;

/// How often a body that another edge has broken off is gone on with.
const RESUMED_MAX: u32 = 3;

impl Job {
    /// Stores a confirmed response and tells who waits.
    pub(super) fn land_stored(&self, pilot: &Pilot, stored: Object) {
        self.store(&stored.fields(), &stored, DiskCopy::of_confirmed(&stored));
        pilot.flight().land(Landing::Stored(stored));
        self.finish(pilot, false);
    }

    /// Leave for a fill to begin, before any of its body is read. None is needed for what is small; what turns out to be large
    /// waits then.
    pub(super) async fn room_for(&self, shape: &Shape) -> Option<Room> {
        let in_flight = &self.worker.shared.in_flight;
        match shape.length() {
            Some(length) if length > SMALL_BYTES => self.worker.leave(fill_bytes(length), For::New).await,
            _ => Some(in_flight.count(0)),
        }
    }

    /// Opens a fill under the key where it will be stored, and lets everybody in.
    pub(crate) fn start_fill(&self, pilot: &Pilot, facts: Facts, head: Fields, shape: &Shape) -> Arc<Fill> {
        let shared = &self.worker.shared;
        let place = self.place(&head, |key| {
            let key = serve::flight_key(&self.worker, &mut self.text.clone(), key, self.range.as_ref());
            shared.flights.board_variant(self.key, key, pilot.flight());
        });
        let key = place.key;
        let sliced = shape.complete_len().filter(|_| self.goes_in_slices(shape)).map(|len| {
            let id = tiering::slices_id(shared, &self.at, key, &head, Some(len), self.position);
            Sliced { id, key, len }
        });
        let fill = Arc::new(Fill {
            facts,
            position: self.position,
            tags: self.tags(&head).unwrap_or_default(),
            length: shape.length(),
            content_range: match shape {
                Shape::Part { range: ContentRange::Span { span, complete }, .. } => {
                    Some(Described::Bytes(span.start(), span.end(), *complete))
                }
                _ => None,
            },
            key,
            is_wider: self.exact_range().is_some(),
            leads_to_disk: sliced.is_some()
                && self.request.method == Method::Get
                && range::strong_validator(&head).is_some(),
            sliced: sliced.map(|sliced| (shared.clone(), sliced)),
            head,
            body: Arriving::new(&shared.in_flight),
        });
        if self.is_only_passing(&fill) {
            // Nobody new follows it: who comes later finds the head and reads what is there, on disk or in this fill.
            fill.abandon();
        }
        pilot.flight().land(Landing::Fill(fill.clone()));
        fill
    }

    /// Whether memory will hold no more of it than what passes by: it goes to disk alone, or another node keeps it.
    fn is_only_passing(&self, fill: &Fill) -> bool {
        let is_part = fill.content_range.is_some();
        let is_large =
            fill.length.is_some_and(|length| length > self.worker.shared.store.object_bytes_max() as u64);
        match fill.sliced {
            Some(_) => is_part || is_large,
            None => is_large,
        }
    }

    /// Streams the body into the fill, to disk and, if it came whole, into the store. `room`: what it has leave for.
    pub(crate) async fn fill(
        &self,
        pilot: &Pilot,
        fill: &Arc<Fill>,
        shape: Shape,
        mut response: Box<OriginResponse>,
        mut room: Room,
    ) {
        let counted = KeptBytes { worker: &self.worker, bytes: 0 };
        let mut kept = Some(counted).filter(|_| !self.is_only_passing(fill));
        // Who would follow a POST could be ahead of its own visitor, who cannot ask for the rest.
        let may_be_followed = self.request.method != Method::Post;
        let _followed = fill
            .sliced
            .as_ref()
            .filter(|_| may_be_followed)
            .map(|(shared, sliced)| slices::register(shared, sliced.id, shape.start(), fill));
        // A head to which the rest can be fetched need not wait for it.
        let head_is_stored = kept.is_none() && range::strong_validator(&fill.head).is_some();
        if head_is_stored {
            self.store_in_slices(fill);
        }
        if kept.is_none() {
            self.finish(pilot, false);
        }
        let (mut to_disk, _alone) = self.to_disk(fill, &shape);
        let mut left = shape.length().unwrap_or(u64::MAX);
        if let Shape::Rest { held, .. } = &shape {
            for piece in held {
                left = left.saturating_sub(piece.len() as u64);
                to_disk.push(piece);
                fill.push(piece.clone(), true).await;
            }
        }
        let mut resumed = 0;
        while let Some(piece) = response.body.chunk().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(_counted) => match self.go_on(fill, &shape, &mut resumed).await {
                    Some(rest) => {
                        response = rest;
                        continue;
                    }
                    None => return self.break_off(pilot, fill, to_disk, Why::OriginProtocol),
                },
            };
            if kept.as_mut().is_some_and(|kept| !kept.takes(piece.len())) {
                self.give_up_keeping(pilot, fill, &mut kept);
            }
            let may_wait = room.bytes() == 0 && fill.progress().bytes > SMALL_BYTES;
            let bytes = piece.len() as u64;
            let piece = arrived(&self.worker.shared.in_flight, &mut room, piece);
            // With the piece in hand: whether there is one more is not known before, and the end must not wait.
            if may_wait && !self.worker.settled(fill, left).await {
                if kept.is_none() {
                    return self.break_off(pilot, fill, to_disk, Why::Limit);
                }
                // Its window may be small enough.
                self.give_up_keeping(pilot, fill, &mut kept);
            }
            left = left.saturating_sub(bytes);
            // To the disk first: what the fill then gives up is on its way there.
            to_disk.push(&piece);
            if !fill.push(piece, to_disk.is_worth(left)).await {
                return self.break_off(pilot, fill, to_disk, Why::ClientGone);
            }
        }
        fill.end(End::Complete);
        let sliced = |id| Sliced { id, key: fill.key, len: fill.progress().bytes };
        let on_disk = to_disk.finish(kept.is_some(), range::strong_validator(&fill.head).is_some());
        match (self.finished(fill, &shape), on_disk) {
            (Some(stored), OnDisk::Slices(id)) => {
                self.store(&fill.head, &Object::new(stored), DiskCopy::Slices(sliced(id)));
            }
            (Some(stored), on_disk) => {
                let copy = match (on_disk, stored.parts(), fill.whole_body()) {
                    (_, Some(_), _) => DiskCopy::AsItIs,
                    (OnDisk::NotYet, None, Some(body)) => DiskCopy::Body(body),
                    (_, None, _) => DiskCopy::Nothing,
                };
                self.store(&fill.head, &Object::new(stored), copy);
            }
            (None, OnDisk::Slices(id)) if !head_is_stored && fill.content_range.is_none() => {
                let (tags, sliced) = (fill.tags.clone(), sliced(id));
                let stored = Stored::sliced(fill.facts, fill.position, tags, &fill.head, sliced);
                self.store(&fill.head, &Object::new(stored), DiskCopy::Slices(sliced));
            }
            (None, _) => {}
        }
        self.finish(pilot, false);
    }

    /// Keeps no more of a fill than a window that moves on for those who follow it; nobody new may. What was counted for it is free
    /// for others, however long it goes on.
    fn give_up_keeping(&self, pilot: &Pilot, fill: &Fill, kept: &mut Option<KeptBytes<'_>>) {
        *kept = None;
        fill.abandon();
        self.finish(pilot, false);
    }

    /// What is left of a body that another edge has broken off, from whoever has the same representation: the next edge, or the
    /// origin. `None` when the bytes could not be told from another version's, or it has been tried often enough.
    async fn go_on(&self, fill: &Fill, shape: &Shape, resumed: &mut u32) -> Option<Box<OriginResponse>> {
        let told = self.told.as_ref()?;
        let (end, complete) = match shape {
            Shape::Part { range: ContentRange::Span { span, complete }, .. } => (span.end() + 1, *complete),
            Shape::Part { .. } => return None,
            Shape::Whole { length } | Shape::Rest { length, .. } => ((*length)?, *length),
        };
        let start = shape.start() + fill.progress().bytes;
        if *resumed >= RESUMED_MAX || range::strong_validator(&fill.head).is_none() || start >= end {
            return None;
        }
        *resumed += 1;
        self.worker.observer.hop_ended(told.hop, HopEnd::Broken);
        let wanted = Span::new(start, end - 1)?;
        let rest = Job {
            worker: self.worker.clone(),
            request: self.request.clone(),
            at: self.at.clone(),
            text: Vec::new(),
            stale: None,
            range: Some(RangeWanted::part(wanted, &fill.head)),
            told: None,
            askers: self.askers.clone(),
            ..*self
        };
        let response = tiers::fetch(&rest, Some(&told.node), |_, _| {}).await;
        let response = response.inspect_err(|error| self.worker.log_failure(&self.request, error)).ok()?;
        let range = response.fields.get("content-range").and_then(ContentRange::parse)?;
        let ContentRange::Span { span, complete: of } = range else { return None };
        let is_rest = response.status == 206
            && span == wanted
            // Without it, what ends early and cleanly would pass for the whole.
            && response.length == Some(end - start)
            && (complete.is_none() || complete == of)
            && range::may_combine(&fill.head, complete, &response.fields, of);
        is_rest.then(|| Box::new(response))
    }

    /// Chooses how a fill gets to disk. While what comes with it lives, nobody else cuts what could not be put to this.
    fn to_disk(&self, fill: &Fill, shape: &Shape) -> (ToDisk<'_>, Option<Alone>) {
        let shared = &self.worker.shared;
        let cut = |id, is_long| {
            let cutter = Cutter::new(shared, id, fill.facts, shape.start());
            ToDisk::Slices { id, cutter, is_long }
        };
        match &fill.sliced {
            Some((_, sliced)) if range::strong_validator(&fill.head).is_some() => {
                (cut(sliced.id, true), None)
            }
            None if !self.is_kept => (ToDisk::Nothing, None),
            None if shape.length().is_some() || shared.disks.is_empty() => (ToDisk::AsOne, None),
            sliced => match slices::alone(shared, fill.key) {
                None if sliced.is_some() => (ToDisk::Nothing, None),
                None => (ToDisk::AsOne, None),
                alone => {
                    let id = sliced.as_ref().map_or_else(
                        || tiering::slices_id(shared, &self.at, fill.key, &fill.head, None, self.position),
                        |(_, sliced)| sliced.id,
                    );
                    (cut(id, sliced.is_some()), alone)
                }
            },
        }
    }

    /// The origin broke off, there was no room for more, or nobody is left who reads and too much is yet to come. What came is
    /// kept where the rest can be put to it.
    fn break_off(&self, pilot: &Pilot, fill: &Fill, to_disk: ToDisk<'_>, why: Why) {
        self.finish(pilot, false);
        fill.end(End::Broken(why));
        if to_disk.break_off() && range::strong_validator(&fill.head).is_some() {
            self.store_in_slices(fill);
        }
    }

    /// Stores the head of a fill whose body is on disk as far as it has come.
    fn store_in_slices(&self, fill: &Fill) {
        if let Some((_, sliced)) = &fill.sliced {
            // The head is that of the whole, whichever part of it came first.
            let facts = Facts {
                status: if fill.facts.status == 206 { 200 } else { fill.facts.status },
                ..fill.facts
            };
            let stored = Stored::sliced(facts, fill.position, fill.tags.clone(), &fill.head, *sliced);
            self.store(&fill.head, &Object::new(stored), DiskCopy::Slices(*sliced));
        }
    }

    /// What a fill that is complete leaves in the store.
    fn finished(&self, fill: &Fill, shape: &Shape) -> Option<Stored> {
        let body = fill.whole_body()?;
        let Shape::Part { length, range, .. } = shape else {
            let pages = self.worker.shared.pages.as_ref();
            return Some(Stored::whole(
                fill.facts,
                fill.position,
                fill.tags.clone(),
                &fill.head,
                &body,
                pages,
            ));
        };
        let content = body.concat();
        let asked = self.range.as_ref().map(|range| range.value.as_slice());
        let part = Part::of(asked, range.to_string().as_bytes(), *length)?;
        let mut parts = Parts { complete_len: part.complete_len(), runs: Vec::new(), lone: None };
        match part.held() {
            None => {
                parts.lone = Some(part);
                parts.runs.push((0, content.into()));
            }
            Some(span) => {
                // What is held already of the same representation stays; of another one it goes.
                let (shared, at, request) = (&self.worker.shared, &self.at, &self.request);
                let other = shared.store.peek(fill.key).and_then(Object::of);
                if let Some(other) = other.filter(|other| !lookup::is_gone(shared, at, request, other)) {
                    let same =
                        |known| range::may_combine(&other.fields(), known, &fill.head, parts.complete_len);
                    match other.parts() {
                        Some(held) if held.lone.is_none() && same(held.complete_len) => {
                            parts.runs.clone_from(&held.runs);
                        }
                        None if same(other.body_len()) => return None,
                        _ => {}
                    }
                }
                parts.insert(span.start(), content.into());
            }
        }
        Some(Stored::partial(fill.facts, fill.position, fill.tags.clone(), &fill.head, parts))
    }

    /// Puts an object where it belongs, unless that is another node or it has been invalidated meanwhile.
    fn store(&self, head: &Fields, stored: &Object, copy: DiskCopy) {
        if !self.is_kept {
            return;
        }
        let (shared, position) = (&self.worker.shared, stored.position());
        let primary = hash(&shared.seed, &self.text);
        let is_outdated = || shared.epochs.of(primary) != self.epoch;
        if is_outdated() || lookup::is_gone(shared, &self.at, &self.request, stored) {
            // What has come since must not be overwritten by what is older than an invalidation.
            return;
        }
        let place = self.place(head, |_| {});
        let keys = [Some(place.key), place.language_key];
        keys.into_iter().flatten().for_each(|key| self.worker.insert(key, stored.entry()));
        let url = || tiering::url_of(&self.request);
        match copy {
            DiskCopy::AsItIs => {}
            DiskCopy::Nothing => shared.disks.remove(place.key),
            DiskCopy::Body(body) => shared.put_response(place.key, stored, url(), body),
            DiskCopy::Slices(sliced) => {
                let tags = stored.tags().to_vec();
                let stored =
                    Stored::sliced(stored.facts, position, tags, head, Sliced { key: place.key, ..sliced });
                shared.put_response(place.key, &stored, url(), Vec::new());
            }
        }
        if is_outdated() {
            // An invalidation came in between and has found nothing to take away.
            // The index of variants too, which may have been put back meanwhile.
            keys.into_iter().flatten().chain([primary]).for_each(|key| shared.forget(key));
        }
    }

    fn place(&self, response: &Fields, announce: impl FnOnce(u128)) -> Place {
        let (shared, mut text) = (&self.worker.shared, self.text.clone());
        lookup::place(shared, &self.at, &self.request, response, &mut text, self.is_kept, announce)
    }

    /// What an answer to HEAD says about a stored answer to GET (RFC 9111 §4.3.5).
    pub(super) fn learn_from_head(&self, response: &OriginResponse) {
        let Some(stale) = self.stale.as_ref().filter(|_| self.request.method == Method::Head) else { return };
        if stale.facts.status != 200 {
            return;
        }
        let (asked, answered) = (response.request_time, response.response_time);
        match update_from_head(&stale.fields(), stale.body_len(), response.status, &response.fields) {
            HeadUpdate::Freshened(mut fields) => {
                semantics::storing::strip_unstorable(&mut fields, &self.at.rule().policy);
                let Ok(facts) = self.facts("GET", 200, &fields, asked, answered) else { return };
                self.clean_for_storing(&mut fields, answered);
                let tags = self.tags(&fields).unwrap_or_else(|| stale.tags().to_vec());
                let stored = self.under(stale, facts, tags, &fields);
                let stored = Object::new(stored);
                self.store(&fields, &stored, DiskCopy::of_confirmed(&stored));
            }
            HeadUpdate::Outdated => self.worker.shared.forget(self.object_key),
            HeadUpdate::Untouched => {}
        }
    }

    pub(super) fn finish(&self, pilot: &Pilot, failed: bool) {
        let shared = &self.worker.shared;
        let until = failed.then(|| shared.clock.monotonic_ms() + FAILURE_HOLD_MS);
        shared.flights.finish(self.key, pilot.flight(), until);
    }

    pub(super) fn fail(&self, pilot: &Pilot, error: &FetchError, report: oneshot::Sender<Report>) {
        let shared = error.is_shared();
        pilot.flight().land(Landing::Failed { why: error.why(), shared });
        self.finish(pilot, shared);
        self.worker.log_failure(&self.request, error);
        let origin = Box::new(OriginNote::of_error(error));
        let _ = report.send(Report { outcome: Outcome::Failed(error.why()), origin });
    }
}

/// How the body of a fill gets to disk, beside those who read it.
enum ToDisk<'a> {
    /// As one record, once memory has it whole.
    AsOne,
    /// In slices, while it passes by. Unless it `is_long` for certain, as one record if it turns out to be short.
    Slices { id: u128, cutter: Cutter<'a>, is_long: bool },
    /// Not at all: somebody else cuts what nothing of this could be put to.
    Nothing,
}

/// What is on disk of a body that has come to its end.
enum OnDisk {
    /// Nothing yet: it may be put as one record.
    NotYet,
    /// Slices, known by this.
    Slices(u128),
    /// Nothing, or nothing of use.
    Nothing,
}

impl ToDisk<'_> {
    fn push(&mut self, piece: &Bytes) {
        if let ToDisk::Slices { cutter, .. } = self {
            cutter.push(piece);
        }
    }

    /// Whether the disk alone is reason enough to fetch the `left` bytes.
    fn is_worth(&self, left: u64) -> bool {
        matches!(self, ToDisk::Slices { is_long: true, .. }) && left <= UNREAD_BYTES_MAX
    }

    /// After the last byte of the body.
    /// - `is_kept`: memory has it whole.
    /// - `can_be_mended`: a slice that could not be written may be fetched later.
    pub(super) fn finish(self, is_kept: bool, can_be_mended: bool) -> OnDisk {
        match self {
            ToDisk::AsOne => OnDisk::NotYet,
            ToDisk::Slices { cutter, is_long: false, .. } if is_kept && !cutter.has_cut() => OnDisk::NotYet,
            ToDisk::Slices { id, cutter, .. } => match cutter.finish() || can_be_mended {
                true => OnDisk::Slices(id),
                false => OnDisk::Nothing,
            },
            ToDisk::Nothing => OnDisk::Nothing,
        }
    }

    /// After the last byte that came, which was not the body's last. Whether slices of a long body have been cut.
    fn break_off(self) -> bool {
        let ToDisk::Slices { cutter, is_long, .. } = self else { return false };
        let has_cut = cutter.has_cut();
        cutter.finish_early();
        is_long && has_cut
    }
}

/// What a disk is to hold of a response that memory has got.
enum DiskCopy {
    /// What it has.
    AsItIs,
    /// Nothing.
    Nothing,
    /// The response with this body: at most one slice.
    Body(Vec<Bytes>),
    /// The head; the body lies in slices.
    Slices(Sliced),
}

impl DiskCopy {
    /// A new head over a body that disk and memory hold already. Writing a long body again for it would cost more than what is
    /// lost without: after a restart, the response is validated once more.
    fn of_confirmed(stored: &Stored) -> Self {
        match (stored.slices(), stored.body_len()) {
            (Some(sliced), _) => DiskCopy::Slices(*sliced),
            (None, Some(0)) => DiskCopy::Body(Vec::new()),
            (None, Some(length))
                if length <= REWRITTEN_BYTES_MAX && stored.body_at(0).len() as u64 == length =>
            {
                DiskCopy::Body(vec![Bytes::copy_from_slice(stored.body_at(0))])
            }
            _ => DiskCopy::AsItIs,
        }
    }
}

/// Bytes of one fill that is being kept, counted among those of all for as long as it is.
struct KeptBytes<'a> {
    worker: &'a Worker,
    bytes: u64,
}

impl KeptBytes<'_> {
    /// Whether `more` bytes are still within what one object and all fills together may take.
    fn takes(&mut self, more: usize) -> bool {
        let shared = &self.worker.shared;
        let all = shared.fill_bytes.fetch_add(more as u64, Ordering::Relaxed) + more as u64;
        self.bytes += more as u64;
        let largest = shared.store.object_bytes_max() as u64;
        if self.bytes > largest {
            self.worker.count_limit(observe::Limit::ObjectBytes);
            return false;
        }
        if all > largest * FILLS_KEPT_MAX {
            self.worker.count_limit(observe::Limit::BufferBytes);
            return false;
        }
        true
    }
}

impl Drop for KeptBytes<'_> {
    fn drop(&mut self) {
        self.worker.shared.fill_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
