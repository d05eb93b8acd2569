//! One fetch on behalf of everybody who wants the same thing: ask the origin, decide whether its answer may be kept,
//! stream it to whoever follows and store it ([`landing`]). Runs as a task of its own, so that no visitor's departure ends it.

mod landing;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use model::rule::ClientCertificate;
use semantics::fields::is_one_of;
use semantics::key::{Device, normalise_host, normalise_path};
use semantics::range::{self, ContentRange, Span};
use semantics::tags::{self, tag_hash};
use semantics::vary::normalise_request;
use semantics::{Facts, Fields, Flags, StoreRequest, Target, Wall, Why, hop};
use tokio::sync::oneshot;

use crate::answer::OriginNote;
use crate::flight::{FillReader, Landing, Pilot};
use crate::intake::CLIENT_CERTIFICATE;
use crate::interim::Interim;
use crate::loaded::RuleAt;
use crate::object::{Item, Object, Stored};
use crate::origin::{Askers, OriginRequest, OriginResponse, RequestBody};
use crate::request::Request;
use crate::rewriting;
use crate::serve::{self, Wanted};
use crate::tiering::SLICE_BYTES;
use crate::tiers::{self, Told};
use crate::worker::Worker;

/// For how long an uncacheable answer makes others not queue for the same key. Varnish's default for hit-for-miss.
const PASS_HOLD_MS: u64 = 120_000;

/// Fields that frameworks take for the real URL, host, method or visitor, and that no key of ours holds: from a
/// stranger they would change what others get.
const OVERRIDES: &[&str] = &[
    "cf-connecting-ip",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    "proxy",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "x-script-name",
    "x-url-scheme",
];

/// Fields that this edge says itself.
const OURS: &[&str] = &[
    "host",
    "content-length",
    "expect",
    "x-device-class",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Request fields that make the answer depend on what this visitor has already.
const CONDITIONS: &[&str] =
    &["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"];

/// What a fetch is for.
pub(crate) struct Job {
    pub(crate) worker: Rc<Worker>,
    pub(crate) request: Rc<Request>,
    pub(crate) at: RuleAt,
    /// The key text of the request.
    pub(crate) text: Vec<u8>,
    /// The key that the flight is under.
    pub(crate) key: u128,
    /// The key that the object will be under, as far as is known.
    pub(crate) object_key: u128,
    /// Why the cache could not answer; `None` for a part of what it has.
    pub(crate) why: Option<Why>,
    /// The purge position when the fetch started.
    pub(crate) position: u64,
    /// The epoch of the primary key when the fetch started.
    pub(crate) epoch: u64,
    /// Who waits for it.
    pub(crate) askers: Askers,
    /// Whether the stale response may answer in place of a 5xx.
    pub(crate) hides_errors: bool,
    /// What is stored and stale: to be validated.
    pub(crate) stale: Option<Object>,
    /// Ask for this only.
    pub(crate) range: Option<RangeWanted>,
    /// Ask no other edge, only the origin: nothing of this is kept anywhere.
    pub(crate) is_direct: bool,
    /// What another edge has told of the answer, if it is one's.
    pub(crate) told: Option<Box<Told>>,
    /// Whether the answer is to be kept on this node, as it is unless another one does.
    pub(crate) is_kept: bool,
}

/// A range that is fetched instead of the whole.
#[derive(Clone)]
pub(crate) struct RangeWanted {
    /// The value of Range.
    pub(crate) value: Vec<u8>,
    /// The visitor's own value, where whole slices around it are asked for instead.
    pub(crate) asked: Option<Vec<u8>>,
    /// The value of If-Range.
    pub(crate) if_range: Option<Vec<u8>>,
    /// The parts that it completes, from the first byte on; `None` when the range itself was asked for.
    pub(crate) completes: Option<Object>,
}

impl RangeWanted {
    pub(crate) fn plain(value: Vec<u8>) -> Self {
        RangeWanted { value, asked: None, if_range: None, completes: None }
    }

    /// A part of the representation with this head; where there is another by now, the whole of that.
    pub(crate) fn part(span: Span, head: &Fields) -> Self {
        let if_range = range::strong_validator(head).map(<[u8]>::to_vec);
        let value = format!("bytes={}-{}", span.start(), span.end());
        RangeWanted { if_range, ..RangeWanted::plain(value.into_bytes()) }
    }
}

/// Why an answer is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// HTTP or the policy forbids it.
    Semantics(semantics::Refusal),
    /// It is larger than the store takes.
    TooLarge,
    /// It has more surrogate keys than are remembered, so that a purge could miss it.
    TooManyTags,
}

impl NotKept {
    /// Whether the next request under the same key is likely to meet the same refusal.
    fn is_of_the_response(self) -> bool {
        use semantics::Refusal;
        !matches!(
            self,
            NotKept::Semantics(
                Refusal::Method
                    | Refusal::RequestNoStore
                    | Refusal::Authorization
                    | Refusal::Status
                    | Refusal::Part
            )
        )
    }
}

/// How the one who asked for a fetch learns how it ended.
pub(crate) enum Outcome {
    /// Look at the flight.
    Landed,
    /// Look at the flight. Its copy may lack these Set-Cookie lines: they are for the asker, and so is the reader.
    Filling { cookies: Fields, reader: Option<FillReader> },
    /// A confirmed response that may no longer be kept: for the asker alone.
    Own(Object),
    /// The answer is not to be shared; here it is.
    Private(Box<OriginResponse>, Why),
    /// There is none.
    Failed(Why),
}

/// What the asker gets besides the landing.
pub(crate) struct Report {
    pub(crate) outcome: Outcome,
    pub(crate) origin: Box<OriginNote>,
}

/// Flies: everything from the request to the origin to the object in the store.
pub(crate) async fn fly(mut job: Job, pilot: Pilot, interim: Interim, report: oneshot::Sender<Report>) {
    loop {
        let fetched = tiers::fetch(&job, None, |status, fields| interim.push(status, fields)).await;
        let mut response = match fetched {
            Ok(response) => response,
            Err(error) => return job.fail(&pilot, &error, report),
        };
        rewriting::apply(&job.worker, &job.at, &job.request, job.stale.as_deref(), &mut response);
        let origin = Box::new(OriginNote::of(&response));
        job.note_told(&mut response);
        let judged = job.judge(response);
        match judged {
            // What was to be confirmed or completed is no more: ask for everything, without conditions.
            Judged::Whole => {
                (job.range, job.stale) = (None, None);
                continue;
            }
            Judged::Exact(range) => {
                job.range = Some(range);
                continue;
            }
            _ => {}
        }
        let tell = |outcome| {
            let _ = report.send(Report { outcome, origin });
        };
        match judged {
            Judged::Whole | Judged::Exact(_) => {}
            Judged::Confirmed(stored, None) => {
                job.land_stored(&pilot, stored);
                tell(Outcome::Landed);
            }
            Judged::Confirmed(stored, Some(reason)) => {
                if reason.is_of_the_response() {
                    job.worker.shared.forget(job.object_key);
                }
                pilot.flight().land(Landing::Private);
                job.finish(&pilot, false);
                tell(Outcome::Own(stored));
            }
            Judged::Keep { facts, fields, response, shape } => {
                let Some(room) = job.room_for(&shape).await else {
                    pilot.flight().land(Landing::Failed { why: Why::Limit, shared: true });
                    // Who has something stale gives that for a moment, and asks the origin for nothing.
                    job.finish(&pilot, true);
                    return tell(Outcome::Failed(Why::Limit));
                };
                let fill = job.start_fill(&pilot, facts, fields, &shape);
                let (cookies, reader) = (cookies_of(&response.fields), fill.read_from(0));
                tell(Outcome::Filling { cookies, reader });
                job.fill(&pilot, &fill, shape, response, room).await;
            }
            Judged::Troubled => {
                pilot.flight().land(Landing::Failed { why: Why::OriginProtocol, shared: true });
                job.finish(&pilot, true);
                tell(Outcome::Landed);
            }
            Judged::Private { response, reason } => {
                job.learn_from_head(&response);
                if reason.is_of_the_response() {
                    let until_ms = job.worker.shared.clock.monotonic_ms() + PASS_HOLD_MS;
                    job.worker.shared.disks.remove(job.object_key);
                    job.worker.insert(job.object_key, Arc::new(Item::Pass { until_ms }));
                }
                // The origin wants to be asked by somebody who is sure to be there, as the others may be (RFC 8470 §5.2).
                let is_too_early = response.status == 425 && job.request.fields.contains("early-data");
                pilot.flight().land(match is_too_early {
                    true => Landing::Failed { why: Why::Uncacheable, shared: false },
                    false => Landing::Private,
                });
                job.finish(&pilot, false);
                let why = if reason == NotKept::TooLarge { Why::TooLarge } else { Why::Uncacheable };
                tell(Outcome::Private(response, why));
            }
        }
        return;
    }
}

/// What to do with an answer.
enum Judged {
    /// The stored response is confirmed (304), under a new head; why that may not be kept, if it may not.
    Confirmed(Object, Option<NotKept>),
    /// It may be kept.
    Keep { facts: Facts, fields: Fields, response: Box<OriginResponse>, shape: Shape },
    /// The origin is in trouble and there is something stale that may answer instead.
    Troubled,
    /// A part that does not fit what it was to complete, or a 304 about something else: the whole is needed.
    Whole,
    /// More than the visitor's range was asked for, and the answer cannot be kept: ask for just that.
    Exact(RangeWanted),
    /// For the asker alone.
    Private { response: Box<OriginResponse>, reason: NotKept },
}

/// What an answer that is kept is of its representation.
pub(crate) enum Shape {
    /// All of it; so many bytes, if that is known.
    Whole { length: Option<u64> },
    /// The rest of it: these bytes go before.
    Rest { held: Vec<Bytes>, length: Option<u64> },
    /// A part, which goes to disk in slices if it can be put together with others.
    Part { length: u64, range: ContentRange, in_slices: bool },
}

impl Job {
    /// Notes what another edge has told of an answer: what this node knows of it is no more than that one did.
    pub(crate) fn note_told(&mut self, response: &mut OriginResponse) {
        self.told = response.told.take();
        self.position = self.told.as_ref().map_or(self.position, |told| told.position);
        self.is_kept = self.told.as_ref().is_none_or(|told| told.is_kept);
    }

    /// What of the visitor's fields goes to another edge: all but what concerns one connection, what this edge says itself, and
    /// conditions, which are this edge's own.
    pub(crate) fn retain_for_hop(&self, fields: &mut Fields) {
        hop::strip_hop_by_hop(fields);
        fields.retain(|name, _| {
            !is_one_of(name, OURS)
                && !is_one_of(name, CONDITIONS)
                && !is_one_of(name, &CLIENT_CERTIFICATE)
                && !tiers::is_ours(name)
        });
    }

    /// Adds what makes a request ask for no more than what is lacking here.
    pub(crate) fn add_conditions(&self, fields: &mut Fields) {
        if let Some(stale) = &self.stale {
            semantics::conditional::add_validators(&stale.fields(), fields);
        }
        if let Some(range) = &self.range {
            fields.append_unchecked(b"Range", &range.value);
            if let Some(if_range) = &range.if_range {
                fields.append_unchecked(b"If-Range", if_range);
            }
        }
    }

    /// The request as the origin gets it: whole and unconditional unless something stored is to be validated or
    /// completed, in the spelling that is keyed, without what would let one visitor speak for others.
    pub(crate) fn origin_request(&self) -> OriginRequest {
        let mut fields = forwarded_fields(&self.worker, &self.at, &self.request);
        fields.retain(|name, _| !is_one_of(name, CONDITIONS));
        normalise_request(&mut fields, &self.at.rule().policy.vary_normalise);
        self.add_conditions(&mut fields);
        OriginRequest {
            method: self.request.method.as_str().into(),
            target: sent_target(&self.at, &self.request).into(),
            host: normalise_host(&self.request.authority).into(),
            fields,
            body: RequestBody::Empty,
            retry_safe: self.request.method.is_safe(),
            takes_trailers: false,
            on_behalf_of: Some(self.at.counted_for()),
            upgrade: None,
            patience: None,
            askers: self.askers.clone(),
        }
    }

    fn judge(&self, response: OriginResponse) -> Judged {
        match self.judge_as_asked(response) {
            Judged::Private { response, reason } if response.status == 206 => match self.exact_range() {
                Some(range) => Judged::Exact(range),
                None => Judged::Private { response, reason },
            },
            judged => judged,
        }
    }

    /// The visitor's own range, if another was sent.
    fn exact_range(&self) -> Option<RangeWanted> {
        self.range.as_ref()?.asked.clone().map(RangeWanted::plain)
    }

    fn judge_as_asked(&self, mut response: OriginResponse) -> Judged {
        let now = response.response_time;
        if let Some(stale) = &self.stale {
            if response.status == 304 && !semantics::update::confirms(&stale.fields(), &response.fields) {
                return Judged::Whole;
            }
            if response.status == 304 {
                let (stored, reason) = self.confirm(stale, &response);
                return Judged::Confirmed(Object::new(stored), reason);
            }
            if matches!(response.status, 500 | 502..=504) && self.hides_errors {
                return Judged::Troubled;
            }
        }
        let completes = self.range.as_ref().and_then(|range| range.completes.as_ref());
        if completes.is_some() && response.status == 416 {
            return Judged::Whole;
        }
        if response.status == 206 && self.range.is_some() && rewriting::concerns(&self.at, &response.fields) {
            // What is rewritten is so from its beginning.
            return Judged::Whole;
        }
        self.at.rule().cors.on_receive(&mut response.fields);
        let response = Box::new(response);
        let method = self.request.method.as_str();
        let decided = self.facts(method, response.status, &response.fields, response.request_time, now);
        let facts = match decided {
            Ok(facts) => facts,
            Err(reason) => return Judged::Private { response, reason: NotKept::Semantics(reason) },
        };
        let mut shape = Shape::Whole { length: response.length };
        if response.status == 206 {
            match (completes, self.shape_of_part(&response)) {
                (Some(held), Some((range, length))) => match rest_of(held, &response.fields, range, length) {
                    Some(rest) => shape = rest,
                    None => return Judged::Whole,
                },
                (Some(_), None) => return Judged::Whole,
                (None, Some((range, length))) if self.is_for_asker(range, length) => {
                    shape = self.shape_of_range(range, length, &response.fields);
                }
                (None, _) => {
                    let reason = NotKept::Semantics(semantics::Refusal::Part);
                    return Judged::Private { response, reason };
                }
            }
        }
        let is_too_large = |length| length > self.worker.shared.store.object_bytes_max() as u64;
        // What another node keeps streams through here, however large it is.
        if shape.length().is_some_and(is_too_large) && !self.goes_in_slices(&shape) && self.is_kept {
            self.worker.count_limit(observe::Limit::ObjectBytes);
            return Judged::Private { response, reason: NotKept::TooLarge };
        }
        let Some(_) = self.tags(&response.fields) else {
            return Judged::Private { response, reason: NotKept::TooManyTags };
        };
        let mut fields = response.fields.clone();
        self.clean_for_storing(&mut fields, now);
        let facts = match &shape {
            Shape::Rest { .. } => Facts { status: 200, ..facts },
            Shape::Whole { .. } | Shape::Part { .. } => facts,
        };
        if !matches!(shape, Shape::Whole { .. }) {
            // Made anew for each answer; in a 200 it means nothing and is kept as it came.
            fields.remove("content-range");
        }
        Judged::Keep { facts, fields, response, shape }
    }

    /// Whether an answer to something other than GET may be kept as what GET would get, and as what.
    pub(crate) fn keep(
        &self,
        response: OriginResponse,
    ) -> Result<(Facts, Fields, Box<OriginResponse>, Shape), Box<OriginResponse>> {
        match self.judge(response) {
            Judged::Keep { facts, fields, response, shape } => Ok((facts, fields, response, shape)),
            Judged::Private { response, .. } => Err(response),
            Judged::Confirmed(..) | Judged::Troubled | Judged::Whole | Judged::Exact(_) => {
                unreachable!("nothing stored was asked about")
            }
        }
    }

    /// Content-Range and length of a 206 that may be kept: known both, and not more than it says.
    fn shape_of_part(&self, response: &OriginResponse) -> Option<(ContentRange, u64)> {
        let range = ContentRange::parse(response.fields.get("content-range")?)?;
        Some((range, response.length?))
    }

    /// Whether a part has what the visitor asked for, where more than that was asked of the origin: it may send another. Where
    /// it was asked for just that, what it sends is its answer, whatever that is.
    fn is_for_asker(&self, range: ContentRange, length: u64) -> bool {
        match range {
            _ if self.exact_range().is_none() => true,
            ContentRange::Span { span, complete } => {
                span.len() == length
                    && !matches!(serve::part_of(&self.request, span, complete), Wanted::Elsewhere)
            }
            ContentRange::Unsatisfied { .. } => false,
        }
    }

    /// What a 206 is that was not asked for to complete anything: whole slices of a representation that others can be put
    /// to, all of it, or a part by itself.
    fn shape_of_range(&self, range: ContentRange, length: u64, fields: &Fields) -> Shape {
        let alone = Shape::Part { length, range, in_slices: false };
        let is_aligned = self.range.as_ref().is_some_and(|range| range.asked.is_some());
        let ContentRange::Span { span, complete: Some(complete) } = range else { return alone };
        let reaches_end = span.end() + 1 == complete;
        if !is_aligned || span.len() != length {
            return alone;
        }
        if span.start() == 0 && reaches_end {
            return Shape::Rest { held: Vec::new(), length: Some(complete) };
        }
        let is_whole_slices =
            span.start().is_multiple_of(SLICE_BYTES) && (reaches_end || length.is_multiple_of(SLICE_BYTES));
        let in_slices = is_whole_slices && range::strong_validator(fields).is_some();
        Shape::Part { length, range, in_slices }
    }

    /// Whether a body is cut into slices on its way to disk: one that is long, and one that memory does not take. Its head stays
    /// in memory, so it is found also while its bytes are on their way to the disk.
    fn goes_in_slices(&self, shape: &Shape) -> bool {
        let length_max = SLICE_BYTES.min(self.worker.shared.store.object_bytes_max() as u64);
        let is_long = match shape {
            Shape::Part { in_slices, .. } => *in_slices,
            Shape::Whole { length } | Shape::Rest { length, .. } => {
                length.is_some_and(|length| length > length_max)
            }
        };
        is_long && !self.worker.shared.disks.is_empty() && self.is_kept
    }

    /// The stored response under the head that a 304 has updated (RFC 9111 §4.3.4).
    fn confirm(&self, stale: &Stored, response: &OriginResponse) -> (Stored, Option<NotKept>) {
        let mut fields = semantics::update::merge_304(&stale.fields(), &response.fields);
        semantics::storing::strip_unstorable(&mut fields, &self.at.rule().policy);
        // A part has no Content-Range in its stored head; it is as storable as the whole.
        let status = if stale.facts.status == 206 { 200 } else { stale.facts.status };
        let decided = self.facts("GET", status, &fields, response.request_time, response.response_time);
        let reason = decided.err().map(NotKept::Semantics);
        let decided = decided.unwrap_or_else(|_| stale.facts.confirmed(response.response_time));
        // For whom the body was made, a later request does not change.
        let was_personal = stale.facts.flags.has(Flags::PERSONAL);
        let facts = Facts {
            status: stale.facts.status,
            flags: decided.flags.with_if(was_personal, Flags::PERSONAL),
            ..decided
        };
        self.clean_for_storing(&mut fields, response.response_time);
        let tags = self.tags(&fields).unwrap_or_else(|| stale.tags().to_vec());
        (self.under(stale, facts, tags, &fields), reason)
    }

    /// A stored response under another head, as memory is to hold it: what was read from disk lies in a buffer of the
    /// reader's.
    fn under(&self, stored: &Stored, facts: Facts, tags: Vec<u64>, head: &Fields) -> Stored {
        match stored.is_as_read() {
            true => {
                let held = stored.compact(self.worker.shared.pages.as_ref());
                held.with_head(facts, self.position, tags, head)
            }
            false => stored.with_head(facts, self.position, tags, head),
        }
    }

    fn facts(
        &self,
        method: &str,
        status: u16,
        fields: &Fields,
        asked: Wall,
        answered: Wall,
    ) -> Result<Facts, semantics::Refusal> {
        let request =
            StoreRequest { method, fields: &self.request.fields, target: target_of(&self.at, &self.request) };
        let facts =
            semantics::decide_store(&request, status, fields, &self.at.rule().policy, asked, answered)?;
        let ttl_max = self.told.as_ref().and_then(|told| told.ttl);
        Ok(ttl_max.map_or(facts, |secs| facts.fresh_for_at_most(secs)))
    }

    /// Whether an answer that adds to what is stored may be kept as that was: a part need not say again how long it is fresh.
    pub(crate) fn may_be_kept(&self, response: &OriginResponse) -> bool {
        let (asked, answered) = (response.request_time, response.response_time);
        match self.facts("GET", response.status, &response.fields, asked, answered) {
            Ok(_) | Err(semantics::Refusal::NoFreshness) => true,
            Err(reason) => {
                !NotKept::Semantics(reason).is_of_the_response()
                    && reason != semantics::Refusal::Authorization
            }
        }
    }

    /// Takes off what must not be stored and adds what every response of ours says.
    fn clean_for_storing(&self, fields: &mut Fields, response_time: Wall) {
        semantics::storing::strip_unstorable(fields, &self.at.rule().policy);
        finish_head(&self.worker, fields, response_time);
        fields.remove("age");
    }

    fn tags(&self, fields: &Fields) -> Option<Vec<u64>> {
        tags_of(&self.worker, &self.at, fields)
    }
}

impl Shape {
    fn length(&self) -> Option<u64> {
        match self {
            Shape::Whole { length } | Shape::Rest { length, .. } => *length,
            Shape::Part { length, .. } => Some(*length),
        }
    }

    /// Bytes of the whole representation, if known.
    fn complete_len(&self) -> Option<u64> {
        match self {
            Shape::Part { range: ContentRange::Span { complete, .. }, .. } => *complete,
            Shape::Part { .. } => None,
            Shape::Whole { length } | Shape::Rest { length, .. } => *length,
        }
    }

    /// Where it begins in the representation.
    fn start(&self) -> u64 {
        match self {
            Shape::Part { range: ContentRange::Span { span, .. }, .. } => span.start(),
            Shape::Part { .. } | Shape::Whole { .. } | Shape::Rest { .. } => 0,
        }
    }
}

/// The parts that are held and what a 206 adds to them, if that makes the whole.
fn rest_of(held: &Stored, fields: &Fields, content_range: ContentRange, length: u64) -> Option<Shape> {
    let parts = held.parts()?;
    let ContentRange::Span { span, complete } = content_range else { return None };
    let complete = complete?;
    let fits = range::may_combine(&held.fields(), parts.complete_len, fields, Some(complete))
        && span.len() == length
        && span.end() + 1 == complete
        && parts.held_from(0) >= span.start();
    fits.then(|| Shape::Rest { held: parts.prefix(span.start()), length: Some(complete) })
}

/// Hashes of an answer's surrogate keys, the rule's too; `None` when there are more than can be remembered.
pub(crate) fn tags_of(worker: &Worker, at: &RuleAt, fields: &Fields) -> Option<Vec<u64>> {
    let seed = worker.shared.tag_seed();
    let tags = tags::tags_of(fields, &seed);
    let of_rule = at.rule().surrogate_keys.iter().map(|tag| tag_hash(&seed, tag.as_bytes()));
    (tags.dropped == 0).then(|| tags.hashes.into_iter().chain(of_rule).collect())
}

/// The Set-Cookie lines of an answer.
pub(crate) fn cookies_of(answer: &Fields) -> Fields {
    answer.get_all("set-cookie").map(|cookie| ("Set-Cookie", cookie)).collect()
}

// --- Requests to the origin ---

/// The fields that go to the origin: the visitor's, without what concerns this hop or speaks for others, with what
/// names the visitor and this edge, and as the rule changes them.
pub(crate) fn forwarded_fields(worker: &Worker, at: &RuleAt, request: &Request) -> Fields {
    let rule = at.rule();
    let mut fields = request.fields.clone();
    hop::strip_hop_by_hop(&mut fields);
    fields.retain(|name, _| {
        !is_one_of(name, OURS)
            && !is_one_of(name, OVERRIDES)
            && !is_one_of(name, &CLIENT_CERTIFICATE)
            && !tiers::is_ours(name)
    });
    if rule.client_certificate != ClientCertificate::Off
        && let Some(certificate) = request.shown.certificate(&at.loaded, at.site(), request.now)
    {
        fields.append_unchecked(b"Client-Cert", certificate);
    }
    rule.request_cookies.apply(&mut fields);
    append_way(&mut fields, worker, request);
    fields.append_unchecked(b"X-Forwarded-Host", normalise_host(&request.authority).as_bytes());
    if rule.key.device_class {
        fields.append_unchecked(b"X-Device-Class", Device::of(&request.fields).as_str().as_bytes());
    }
    rule.request_headers.apply(&mut fields);
    rewriting::ask_plain(at, &mut fields);
    fields
}

/// What goes to whoever is asked next: the way that the request has come, and its id.
pub(crate) fn append_way(fields: &mut Fields, worker: &Worker, request: &Request) {
    hop::append_via(fields, request.protocol.version(), &worker.shared.node);
    hop::append_cdn_loop(fields, &worker.shared.node);
    fields.append_unchecked(b"X-Forwarded-For", request.client.to_string().as_bytes());
    fields.append_unchecked(b"X-Forwarded-Proto", if request.secure { b"https" } else { b"http" });
    fields.append_unchecked(b"X-Request-Id", &request.id.text());
}

/// Path and query as the origin gets them: spelled as they are keyed, so that no spelling of a visitor's gets an answer
/// stored for others.
pub(crate) fn sent_target(at: &RuleAt, request: &Request) -> String {
    let path = normalise_path(request.path().as_bytes());
    let path = String::from_utf8_lossy(&path);
    match at.rule().key.query_sent(request.query().map(str::as_bytes)) {
        Some(query) => format!("{path}?{}", String::from_utf8_lossy(&query)),
        None => path.into_owned(),
    }
}

/// The target of a request as its response may refer to it.
pub(crate) fn target_of<'a>(at: &'a RuleAt, request: &'a Request) -> Target<'a> {
    let origin_authority = at.rule().origin.origins.iter().find_map(|origin| origin.host_override.as_deref());
    Target { authority: &request.authority, origin_authority, path_and_query: &request.target }
}

// --- Answers from the origin ---

/// What every response that comes through gets and loses, stored or passed: no field of the hop behind us, a Date
/// (RFC 9110 §6.6.1), this edge in Via. The framing is made anew for each visitor.
pub(crate) fn finish_head(worker: &Worker, fields: &mut Fields, response_time: Wall) {
    hop::strip_hop_by_hop(fields);
    tiers::strip(fields);
    fields.remove("content-length");
    // Where else the origin speaks is not where visitors should go (RFC 7838 §2.4 would have them believe it).
    fields.remove("alt-svc");
    if !fields.contains("date") {
        fields.append_unchecked(b"Date", semantics::date::format(response_time).as_str().as_bytes());
    }
    if hop::via_passes(fields, &worker.shared.node) == 0 {
        // A stored head that a 304 updates has it already.
        hop::append_via(fields, "1.1", &worker.shared.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes;

    #[test]
    fn a_flight_takes_little_room() {
        let bytes = sizes::of(|(job, pilot, interim, report)| fly(job, pilot, interim, report));
        sizes::check("the task of each fetch that others may follow, without the fetch itself", bytes, 3_408);
    }
}
