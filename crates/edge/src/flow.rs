//! The request machine: everything that decides how a request is answered, in one place. Each step returns the next
//! step and calls no other; helpers compute, the machine decides; each way out carries one [`Why`].
//!
//! ```text
//! begin ─► match ─┬─ redirect, preflight, refusal ──────────────────────────────► answer
//!                 ├─ method or rule says pass ─► Pass ─────────► origin ────────► answer
//!                 └─ look up ─┬─ on disk ─► Read ─► look up
//!                             ├─ fresh ─────────────────────────────────────────► answer   (no waiting, no task)
//!                             ├─ stale, may be served ─► answer, and a fetch in the background
//!                             ├─ the same, and fetches for nobody else: the first of them ─► fetch
//!                             └─ stale or missing ─► Board ─┬─ lead ──► fetch ─┐
//!                                                           ├─ follow ─────────┼─► landed ─► answer
//!                                                           └─ failing ────────┘
//! ```
//!
//! [`Flow::begin`] runs without waiting and answers every hit. What has to wait becomes a [`Flow`], which
//! [`Flow::finish`] drives.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::Cache;
use model::budget::Class;
use model::positions::of_others;
use model::rule::CountedBy;
use observe::Limit;
use semantics::cache_status::Fwd;
use semantics::coding::{compares_tags, restore_tags};
use semantics::conditional::is_conditional;
use semantics::hop::Forwarding;
use semantics::key::{has_dot_segment, hash, normalise_host};
use semantics::{Assessment, Fields, RequestDirectives, Reuse, StaleOn, Why, decide_reuse, hop};
use store::disk::Spot;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::answer::{Answer, Body, Note, OriginNote};
use crate::beacon;
use crate::fetch::{self, Job, Outcome, RangeWanted, Report};
use crate::flight::{Boarding, Fill, FillReader, Flight, Landing, Pilot, Start};
use crate::hints;
use crate::interim::Interim;
use crate::loaded::{RuleAt, view};
use crate::lookup::{self, Found, FromDisk, Purged};
use crate::object::{Entry, Item, Object};
use crate::origin::{Askers, OriginRequest, OriginResponse, RequestBody};
use crate::rates::Counted;
use crate::refusal::Refusal;
use crate::request::{Method, Protocol, Request};
use crate::rewriting;
use crate::serve;
use crate::slices::Trouble;
use crate::tiering;
use crate::tiers;
use crate::tracing::{self, Asking};
use crate::urgency;
use crate::websocket::{self, Handshake};
use crate::worker::Worker;

/// How often one request may board again because what it followed was not for it.
const BOARDINGS_MAX: u32 = 3;

/// How often, and how many times at most, it is looked whether a record has come to the disk: twice as long as the writer
/// lets small ones wait for company.
const WRITTEN_INTERVAL: Duration = Duration::from_millis(5);
const WRITTEN_LOOKS_MAX: u32 = 40;

/// How long the one waits for the origin who fetches for nobody else, while the others get what is stale: less than visitors do before they
/// leave (3 s), and more than most origins take.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);

/// What [`Flow::begin`] came to.
#[expect(clippy::large_enum_variant, reason = "a hit is passed on at once and must not cost an allocation")]
pub(crate) enum Begun {
    /// The answer, without having waited.
    Answer(Answer),
    /// Something has to be waited for.
    Waiting(Box<Flow>),
}

/// A request that waits for an origin or for another request's fetch.
pub(crate) struct Flow {
    worker: Rc<Worker>,
    request: Rc<Request>,
    at: RuleAt,
    directives: RequestDirectives,
    /// The cache key's text; empty where the cache is not asked, until a POST passes.
    text: Vec<u8>,
    step: Step,
    interim: Interim,
    boardings: u32,
    /// What has been read from disk for this request.
    from_disk: Vec<(u128, Option<Entry>)>,
    /// Whether it has waited for something to be written.
    has_waited: bool,
    origin: Option<Box<OriginNote>>,
    /// Set-Cookie lines of the origin's answer that the stored copy may lack.
    cookies: Fields,
    /// Until when it waits for something newer than what it has, where that has an end.
    patience: Option<Instant>,
    /// This request's reader of the fill that it began: it must not be without one for a moment.
    reader: Option<FillReader>,
    /// What the fetch that answers knew of: its own position, and what it was asked to know of.
    knew: Option<(u64, u64)>,
}

/// Where a waiting request stands.
enum Step {
    /// Ask the origin for this request alone.
    Pass { why: Why },
    /// Join a fetch or begin one.
    Board(Want),
    /// Begin this fetch.
    TakeOff { want: Want, pilot: Pilot },
    /// Look again: what was followed was for other requests' headers, or something has been read from disk.
    Again,
    /// Read what is stored from disk.
    Read { key: u128, spot: Spot },
    /// What is stored has left memory and is not on disk yet: wait for that.
    Written { key: u128 },
    /// There is an answer whose body is on disk: make sure of its first bytes before it is promised.
    Prime(Answer),
    /// Wait for the fetch of another request.
    Follow { want: Want, flight: Arc<Flight> },
    /// Wait for the fetch that this request began.
    Lead { want: Want, flight: Arc<Flight>, report: oneshot::Receiver<Report> },
    /// The fetch has landed; `own` if this request began it.
    Landed { want: Want, landing: Landing, own: bool },
    /// The origin's answer is for this request alone.
    Private { why: Why, response: Box<OriginResponse> },
    /// There is no answer from the origin, or it is not waited for any longer.
    Failed { want: Want, why: Why },
    /// Done.
    Done(Answer),
}

/// What a request that could not be answered from the cache wants fetched.
struct Want {
    /// What the fetch is known by: the key of the object, or of one range of it.
    key: u128,
    /// Where it would be stored.
    object_key: u128,
    /// Why the cache could not answer.
    why: Why,
    /// What is stored and stale, and whether it may answer if the origin fails.
    stale: Option<(Object, Assessment)>,
    /// Only this range.
    range: Option<RangeWanted>,
    /// Whether the fetch may be shared with others at all.
    alone: bool,
}

/// What the cache says about a request.
enum Looked {
    Answer(Answer),
    /// Serve this and validate it in the background.
    Refresh(Answer, Want),
    Wait(Step),
}

impl Flow {
    /// Everything that can be decided without waiting.
    pub(crate) fn begin(worker: &Rc<Worker>, request: &Rc<Request>) -> Begun {
        // Another edge has asked all this of its visitor.
        let is_visitor = request.asked.is_none();
        if is_visitor && let Some(answer) = at_the_door(worker, request) {
            return Begun::Answer(answer);
        }
        let Some(at) = RuleAt::of(worker.loaded(), request) else {
            let has_sites = !worker.loaded().snapshot.sites.is_empty();
            let refusal = if has_sites { Refusal::UnknownSite } else { Refusal::NoSites };
            return Begun::Answer(refusal.answer(request));
        };
        if let Some(limit) = at.rule().rate_limit.as_ref().filter(|_| is_visitor) {
            let client = (limit.by == CountedBy::Client).then_some(request.client);
            let counted = Counted::Rule { site: at.site_number(), rule: limit.of_rule, client };
            if let Err(refused) = worker.take(counted, &limit.rate) {
                worker.count_limit(Limit::RateLimit);
                let answer = Answer { rule: Some(at), ..Refusal::TooOften(refused).answer(request) };
                return Begun::Answer(answer);
            }
        }
        if hop::is_loop(&request.fields, &worker.shared.node) {
            return Begun::Answer(Refusal::Loop.answer(request));
        }
        let local = serve::locally(&at, request);
        // Browsers make a preflight without what tells who they are (Fetch, 4.8), and who is sent to TLS could show nothing.
        let is_for_all = local.as_ref().is_some_and(|answer| answer.note.why == Why::Preflight)
            || at.rule().sends_to_https(&view(request));
        if !is_for_all
            && let wanted = at.rule().client_certificate
            && let Err(refused) = request.shown.check(wanted, &at.loaded, at.site(), request.now)
        {
            return Begun::Answer(Answer { rule: Some(at), ..refused.answer(request) });
        }
        if let Some(answer) = local {
            return Begun::Answer(answer);
        }
        let wait = |step, text: Vec<u8>, directives, at| {
            Begun::Waiting(Box::new(Flow {
                worker: worker.clone(),
                request: request.clone(),
                at,
                directives,
                text,
                step,
                interim: Interim::default(),
                boardings: 0,
                from_disk: Vec::new(),
                has_waited: false,
                origin: None,
                cookies: Fields::new(),
                patience: None,
                reader: None,
                knew: None,
            }))
        };
        let directives = RequestDirectives::default();
        if at.rule().websocket && request.wants_websocket {
            return wait(Step::Pass { why: Why::Upgrade }, Vec::new(), directives, at);
        }
        if request.wants_websocket && request.protocol >= Protocol::Http2 {
            // Where it can be declined without another word, the request would be one for the page; here it is for a tunnel.
            return Begun::Answer(Refusal::Rule(501, "WebSocket is not spoken here.").answer(request));
        }
        if !request.method.is_cacheable() || request.has_body {
            return wait(Step::Pass { why: Why::Method }, Vec::new(), directives, at);
        }
        let may_use = at.rule().cache != Cache::Pass && !worker.shared.succession.is_orphan();
        if !may_use || has_dot_segment(request.path().as_bytes()) {
            return wait(Step::Pass { why: Why::Rule }, Vec::new(), directives, at);
        }
        let directives = RequestDirectives::parse(&request.fields);
        let mut text = worker.key_text.take();
        text.clear();
        lookup::write_request_key(&mut text, &at, request);
        let looked = look(worker, &at, request, &directives, &mut text, &[], false);
        if let (Some(trace), Looked::Answer(_) | Looked::Refresh(..) | Looked::Wait(Step::TakeOff { .. })) =
            (&request.trace, &looked)
        {
            trace.looked(request.started);
        }
        let begun = match looked {
            Looked::Answer(answer) if answer.is_from_slices() => {
                wait(Step::Prime(answer), text.clone(), directives, at)
            }
            Looked::Answer(answer) => Begun::Answer(answer),
            Looked::Refresh(answer, want) => {
                refresh(worker, request, &at, text.clone(), want);
                match answer.is_from_slices() {
                    true => wait(Step::Prime(answer), text.clone(), directives, at),
                    false => Begun::Answer(answer),
                }
            }
            Looked::Wait(step) => wait(step, text.clone(), directives, at),
        };
        worker.key_text.replace(text);
        begun
    }

    /// Whether the connection may become the origin's.
    pub(crate) fn is_upgrade(&self) -> bool {
        matches!(self.step, Step::Pass { why: Why::Upgrade })
    }

    /// By which rule it answers.
    pub(crate) fn at(&self) -> RuleAt {
        self.at.clone()
    }

    /// Interim responses that come while the flow waits.
    pub(crate) fn interim(&self) -> Interim {
        self.interim.clone()
    }

    /// Drives the flow to its answer. Always ends: the origin's time-outs bound each fetch, and a fetch that dies
    /// tells those who follow.
    pub(crate) async fn finish(mut self: Box<Self>, body: RequestBody) -> Answer {
        let mut step = std::mem::replace(&mut self.step, Step::Again);
        let mut body = Some(body);
        if let Some(links) = hints::for_visitor(&self.worker, &self.at, &self.request) {
            self.interim.push(103, links);
        }
        loop {
            step = match step {
                Step::Pass { why } => self.pass(why, body.take().unwrap_or(RequestBody::Empty)).await,
                Step::Again => self.again(),
                Step::Read { key, spot } => self.read(key, &spot).await,
                Step::Written { key } => self.written(key).await,
                Step::Prime(answer) => self.prime(answer).await,
                Step::Board(want) => self.board(want),
                Step::TakeOff { want, pilot } => self.take_off(want, pilot),
                Step::Follow { want, flight } => match self.in_time(&want, flight.landed()).await {
                    Ok(landing) if !may_answer(&self.at, &self.request, &flight, &landing) => Step::Again,
                    Ok(landing) => Step::Landed { want, landing, own: false },
                    Err(why) => Step::Failed { want, why },
                },
                Step::Lead { want, flight, report } => self.lead(want, &flight, report).await,
                Step::Landed { want, landing, own } => self.landed(want, landing, own),
                Step::Private { why, response } => Step::Done(self.passed(*response, Note::of(why))),
                // Purged while this request waited: it is as one that comes now.
                Step::Failed { want, .. } if want.is_gone(&self) => Step::Again,
                Step::Failed { want, why } => Step::of_answer(self.failed(want, why)),
                Step::Done(mut answer) => {
                    answer.origin = self.origin.take();
                    self.tell_position(&mut answer);
                    hints::learn(&self.worker, &self.at, &self.request, &answer);
                    return answer;
                }
            };
        }
    }

    // --- Steps ---

    /// Looks again, for a request that has followed something that was not for it.
    fn again(&mut self) -> Step {
        // It may be something else that is found now.
        self.knew = None;
        let mut text = std::mem::take(&mut self.text);
        let looked = look(
            &self.worker,
            &self.at,
            &self.request,
            &self.directives,
            &mut text,
            &self.from_disk,
            self.has_waited,
        );
        self.text = text;
        match looked {
            Looked::Answer(answer) => Step::of_answer(answer),
            Looked::Refresh(answer, want) => {
                refresh(&self.worker, &self.request, &self.at, self.text.clone(), want);
                Step::of_answer(answer)
            }
            Looked::Wait(step) => step,
        }
    }

    /// Has something read from disk, and looks again with it. Each key is read once, so this ends.
    async fn read(&mut self, key: u128, spot: &Spot) -> Step {
        let Ok(entry) = tiering::read(&self.worker, key, spot).await else {
            return Step::Done(self.no_answer(Why::Limit));
        };
        self.from_disk.push((key, entry));
        Step::Again
    }

    /// Waits, once and not for long, for a record to come to the disk: asking the origin again would take longer.
    async fn written(&mut self, key: u128) -> Step {
        self.has_waited = true;
        for _ in 0..WRITTEN_LOOKS_MAX {
            if !self.worker.shared.disks.is_waiting(key) {
                break;
            }
            tokio::time::sleep(WRITTEN_INTERVAL).await;
        }
        Step::Again
    }

    async fn prime(&mut self, mut answer: Answer) -> Step {
        let reader = match &mut answer.body {
            Body::Sliced(reader) | Body::Multipart(_, Some(reader), ..) => reader,
            _ => return Step::Done(answer),
        };
        if self.directives.only_if_cached && !reader.is_all_here() {
            return Step::Done(Refusal::OnlyIfCached.answer(&self.request));
        }
        let primed = reader.prime().await;
        if let Some(trace) = &self.request.trace {
            trace.looked(self.request.started);
        }
        match primed {
            Ok(()) => {
                let missing = answer.missing();
                if answer.note.take_back(missing) {
                    // It is no newer than what is stored of it.
                    self.knew = None;
                }
                Step::Done(answer)
            }
            Err(Trouble::Outdated) if self.boardings <= BOARDINGS_MAX => {
                self.boardings += 1;
                self.worker.shared.forget_slices(reader.sliced());
                self.from_disk.clear();
                Step::Again
            }
            Err(Trouble::Outdated) => Step::Done(self.no_answer(Why::OriginProtocol)),
            Err(Trouble::Origin(why)) => Step::Done(self.no_answer(why)),
            Err(Trouble::Crowded) => Step::Done(self.no_answer(Why::Limit)),
        }
    }

    fn board(&mut self, mut want: Want) -> Step {
        if let Some(trace) = &self.request.trace {
            trace.looked(self.request.started);
        }
        self.boardings += 1;
        want.alone |= self.boardings > BOARDINGS_MAX;
        tiers::note_miss(&self.worker, self.at.loaded.tiers().is_some(), &self.text);
        let class = want.class(&self.at, &self.request);
        let start = start(&self.worker, &self.request, &self.text, class);
        if want.alone {
            return self.take_off(want, Pilot::new(Flight::solitary(&start)));
        }
        let flights = &self.worker.shared.flights;
        let may_follow = |flight: &Flight| {
            let landing = flight.landing();
            self.is_current(landing.tags(), flight.position)
                && tiers::may_follow(&self.worker.shared, &self.request, flight)
                && may_answer(&self.at, &self.request, flight, &landing)
        };
        let boarding = match want.follow_unvaried(&self.worker, &self.at, &self.text, &start, may_follow) {
            Some(flight) => Boarding::Follow(flight),
            None => flights.board(want.key, &start, want.may_serve_stale(), may_follow),
        };
        match boarding {
            Boarding::Follow(flight) => {
                self.knew = Some((flight.position, of_others(flight.raised)));
                Step::Follow { want, flight }
            }
            Boarding::Failing(why) => Step::Failed { want, why },
            Boarding::Lead(flight) => match want.came_meanwhile(&self.worker, &flight) {
                true => Step::Again,
                false => self.take_off(want, Pilot::new(flight)),
            },
        }
    }

    /// Begins the fetch as a task of its own.
    fn take_off(&mut self, want: Want, pilot: Pilot) -> Step {
        let flight = pilot.flight().clone();
        self.knew = Some((flight.position, flight.raised));
        let (sender, report) = oneshot::channel();
        let job = want.job(&self.worker, &self.request, &self.at, self.text.clone(), &flight);
        tokio::task::spawn_local(fetch::fly(job, pilot, self.interim.clone(), sender));
        Step::Lead { want, flight, report }
    }

    async fn lead(&mut self, want: Want, flight: &Flight, report: oneshot::Receiver<Report>) -> Step {
        let report = match self.in_time(&want, report).await {
            Ok(Ok(report)) => report,
            Ok(Err(_)) => return Step::Failed { want, why: Why::Internal },
            Err(why) => return Step::Failed { want, why },
        };
        self.origin = Some(report.origin);
        match report.outcome {
            Outcome::Landed => Step::Landed { want, landing: flight.landing(), own: true },
            Outcome::Filling { cookies, reader } => {
                (self.cookies, self.reader) = (cookies, reader);
                Step::Landed { want, landing: flight.landing(), own: true }
            }
            Outcome::Own(object) => Step::Landed { want, landing: Landing::Stored(object), own: true },
            Outcome::Private(response, why) => {
                let why = if want.why == Why::HitForMiss { want.why } else { why };
                Step::Private { why, response }
            }
            Outcome::Failed(why) => Step::Failed { want, why },
        }
    }

    /// Waits for a fetch, be it that it has no turn or that the origin is slow: where there is something stale that may be served, for no longer
    /// than the origin's budget says; without one, where that may be served at once, than [`CLAIM_PATIENCE`]. Then it says why the
    /// stale one answers, and the fetch goes on.
    async fn in_time<T>(&mut self, want: &Want, fetch: impl Future<Output = T>) -> Result<T, Why> {
        let (patience, why) = match &self.at.rule().origin.budget {
            Some(budget) if want.may_serve_stale() => (budget.stale_deadline, Why::OriginBudget),
            None if want.is_claim() => (CLAIM_PATIENCE, Why::StaleWhileRevalidate),
            _ => return Ok(fetch.await),
        };
        let until = *self.patience.get_or_insert_with(|| Instant::now() + patience);
        tokio::time::timeout_at(until, fetch).await.map_err(|_| why)
    }

    fn landed(&mut self, want: Want, landing: Landing, own: bool) -> Step {
        match landing {
            Landing::Stored(stored) => {
                let assessment = self.assess(&stored);
                let is_for_us = own
                    || (assessment.reuse == Reuse::Fresh
                        && self.is_current(stored.tags(), stored.position()));
                let is_enough = stored.parts().is_none() || serve::parts_answer(&self.request, &stored);
                if !is_for_us || !is_enough {
                    return Step::Board(Want { alone: true, stale: None, ..want });
                }
                let why = if own { Why::Revalidated } else { Why::Collapsed };
                let mut note = Note::of(why);
                (note.stored, note.collapsed) = (own, !own);
                note.forwarded = Some(Fwd::Stale);
                note.forwarded_status = Some(304);
                Step::of_answer(serve::stored(
                    &self.worker,
                    &self.at,
                    &self.request,
                    stored,
                    &assessment,
                    note,
                ))
            }
            Landing::Fill(fill) => self.follow_fill(want, &fill, own),
            Landing::Private => Step::Pass { why: Why::Uncacheable },
            Landing::Failed { why, shared } if own || shared || want.may_serve_stale() => {
                Step::Failed { want, why }
            }
            Landing::Failed { .. } | Landing::Pending => Step::Again,
        }
    }

    /// Answers from a response that streams in.
    fn follow_fill(&mut self, want: Want, fill: &Arc<Fill>, own: bool) -> Step {
        let assessment = self.assess_facts(&fill.facts);
        if !own && (assessment.reuse != Reuse::Fresh || !self.is_current(&fill.tags, fill.position)) {
            return Step::Board(Want { alone: true, ..want });
        }
        let mut note = Note::of(if own { want.why } else { Why::Collapsed });
        (note.stored, note.collapsed) = (own, !own);
        note.forwarded = Fwd::of(want.why);
        match serve::fill(&self.worker, &self.at, &self.request, fill, self.reader.take(), &assessment, note)
        {
            Some(mut answer) => {
                answer.add_cookies(&self.cookies);
                match &answer.body {
                    // What streams in is sent as it comes.
                    Body::Sliced(reader) if reader.is_following() => Step::Done(answer),
                    _ => Step::of_answer(answer),
                }
            }
            // What it fetched itself and is not for it would not be so the next time either.
            None if own => Step::Done(self.no_answer(Why::OriginProtocol)),
            None => Step::Board(Want { alone: true, ..want }),
        }
    }

    /// Asks the origin for this request alone.
    async fn pass(&mut self, why: Why, body: RequestBody) -> Step {
        if self.request.method == Method::Post {
            lookup::write_request_key(&mut self.text, &self.at, &self.request);
        }
        let class = urgency::class_of(&self.at, &self.request, None, false);
        let request = self.request.clone();
        let start = start(&self.worker, &request, &self.text, class);
        self.knew = Some((start.position, start.raised));
        let mut fields = fetch::forwarded_fields(&self.worker, &self.at, &self.request);
        if hop::count_forward(self.request.method.as_str().as_bytes(), &mut fields) == Forwarding::EndsHere {
            // Nobody behind is asked, so nothing is known of what may be asked for (RFC 9110 §7.6.2).
            return Step::Done(serve::own(&self.at, 204, Fields::new(), Why::Preflight));
        }
        if !self.request.method.is_safe() && compares_tags(&fields) && self.at.rule().compress.is_some() {
            // Who has read a copy changes what it was made of.
            restore_tags(&mut fields);
        }
        let handshake = match self.request.protocol {
            Protocol::Http2 | Protocol::Http3 if why == Why::Upgrade => {
                let handshake = Handshake::begin();
                handshake.ask(&mut fields);
                Some(handshake)
            }
            _ => None,
        };
        // What others answer than GET and HEAD is not rewritten, and must not be asked for twice.
        let mut whole =
            self.request.method.is_safe().then(|| rewriting::ask_whole(&self.at, &fields)).flatten();
        let mut body = body;
        if !matches!(body, RequestBody::Empty) {
            // It cannot be sent twice.
            fields = whole.take().unwrap_or(fields);
        }
        let fetched = loop {
            let asking = Asking::begin(&self.worker, &self.request, tracing::FETCH, Some(why), &mut fields);
            let request = OriginRequest {
                method: self.request.method.as_str().into(),
                target: fetch::sent_target(&self.at, &self.request).into(),
                host: normalise_host(&self.request.authority).into(),
                fields,
                retry_safe: self.request.method.is_safe() && matches!(body, RequestBody::Empty),
                body: std::mem::replace(&mut body, RequestBody::Empty),
                takes_trailers: self.request.takes_trailers,
                on_behalf_of: Some(self.at.counted_for()),
                upgrade: (why == Why::Upgrade).then(|| "websocket".into()),
                patience: None,
                askers: Askers::new(class),
            };
            let interim = self.interim.clone();
            let fetched =
                self.worker.origins.fetch(&self.at.rule().origin, request, move |status, fields| {
                    interim.push(status, fields);
                });
            let mut fetched = fetched.await;
            Asking::ended(asking, &mut fetched);
            let is_unfit = fetched.as_ref().is_ok_and(|response| rewriting::is_part(&self.at, response));
            match whole.take().filter(|_| is_unfit) {
                Some(without_range) => fields = without_range,
                None => break fetched,
            }
        };
        match fetched {
            Ok(mut response) => {
                rewriting::apply(&self.worker, &self.at, &self.request, None, &mut response);
                self.origin = Some(Box::new(OriginNote::of(&response)));
                if let Some(handshake) = handshake {
                    return Step::Done(self.opened(response, &handshake));
                }
                let key = hash(&self.worker.shared.seed, &self.text);
                let begun = invalidate(&self.worker, &self.at, &self.request, &response, key);
                // What this very request has outdated does not concern its own answer; what another has meanwhile does.
                let start = Start { epoch: start.epoch + begun, ..start };
                match self.own_content(response, &start) {
                    Ok(step) => step,
                    Err(response) => Step::Done(self.passed(*response, Note::of(why))),
                }
            }
            Err(error) => {
                self.worker.log_failure(&self.request, &error);
                self.origin = Some(Box::new(OriginNote::of_error(&error)));
                Step::Done(self.no_answer(error.why()))
            }
        }
    }

    /// An answer to POST that says that it is what GET would get (Content-Location, RFC 9110 §9.3.3) is stored as that.
    fn own_content(
        &mut self,
        response: OriginResponse,
        start: &Start<'_>,
    ) -> Result<Step, Box<OriginResponse>> {
        let is_pass = self.at.rule().cache == Cache::Pass
            || self.at.rule().rewrite.is_some()
            || has_dot_segment(self.request.path().as_bytes());
        if self.request.method != Method::Post || is_pass {
            return Err(Box::new(response));
        }
        let key = hash(&self.worker.shared.seed, &self.text);
        let flight = Flight::solitary(start);
        let want = Want { key, object_key: key, why: Why::Method, stale: None, range: None, alone: true };
        let job = want.job(&self.worker, &self.request, &self.at, self.text.clone(), &flight);
        let (facts, head, response, shape) = job.keep(response)?;
        let pilot = Pilot::new(flight);
        self.cookies = fetch::cookies_of(&response.fields);
        let fill = job.start_fill(&pilot, facts, head, &shape);
        self.reader = fill.read_from(0);
        let landing = Landing::Fill(fill.clone());
        let room = self.worker.shared.in_flight.count(0);
        tokio::task::spawn_local(async move { job.fill(&pilot, &fill, shape, response, room).await });
        Ok(Step::Landed { want, landing, own: true })
    }

    /// What the origin's answer to our handshake means to a visitor who asked by CONNECT: success opens the tunnel, so
    /// nothing else may look like it (RFC 9110 §9.3.6).
    fn opened(&self, mut response: OriginResponse, handshake: &Handshake) -> Answer {
        let note = Note::of(Why::Upgrade);
        if response.tunnel.is_some() && handshake.is_accepted(&response.fields) {
            websocket::forget_accept(&mut response.fields);
            return Answer { status: 200, length: None, ..self.passed(response, note) };
        }
        match response.tunnel.is_some() || (200..300).contains(&response.status) {
            true => self.no_answer(Why::OriginProtocol),
            false => self.passed(response, note),
        }
    }

    fn passed(&self, response: OriginResponse, note: Note) -> Answer {
        serve::passed(&self.worker, &self.at, &self.request, response, note)
    }

    /// Serves something stale if that is allowed, or says that there is nothing.
    fn failed(&mut self, want: Want, why: Why) -> Answer {
        match want.stale {
            Some((stored, assessment)) if stale_on(&assessment) >= StaleOn::Unreachable => {
                let mut note = Note::of(match why {
                    Why::OriginBudget => Why::StaleBudget,
                    Why::StaleWhileRevalidate => why,
                    _ => Why::StaleIfError,
                });
                note.forwarded_status =
                    self.origin.as_ref().map(|origin| origin.status).filter(|status| *status > 0);
                serve::stored(&self.worker, &self.at, &self.request, stored, &assessment, note)
            }
            _ => self.no_answer(why),
        }
    }

    /// The error page, counted for its site.
    fn no_answer(&self, why: Why) -> Answer {
        let refusal = match why {
            Why::Limit => Refusal::Crowded,
            why => Refusal::Origin(why),
        };
        let mut answer = refusal.answer(&self.request);
        answer.rule = Some(self.at.clone());
        answer
    }

    /// Notes what an answer knows of, for another edge: what came of a fetch, what that knew of.
    fn tell_position(&self, answer: &mut Answer) {
        let Some((position, raised)) = self.knew.filter(|_| self.request.asked.is_some()) else { return };
        match answer.position {
            // What was stored before, served because nothing newer can be had.
            Some(_)
                if matches!(
                    answer.note.why,
                    Why::StaleIfError | Why::StaleBudget | Why::StaleWhileRevalidate
                ) => {}
            Some(_) => answer.raised = raised,
            None => (answer.position, answer.raised) = (Some(position), raised),
        }
    }

    /// Whether no purge since `position` matches this request's URL or these tags.
    fn is_current(&self, tags: &[u64], position: u64) -> bool {
        let purged = lookup::purged(&self.worker.shared, &self.at, &self.request, tags, position);
        matches!(purged, Purged::No { .. })
    }

    fn assess(&self, stored: &Object) -> Assessment {
        self.assess_facts(&stored.facts)
    }

    fn assess_facts(&self, facts: &semantics::Facts) -> Assessment {
        decide_reuse(facts, &self.directives, &self.at.rule().policy, self.worker.shared.clock.wall())
    }
}

impl Step {
    fn of_answer(answer: Answer) -> Step {
        if answer.is_from_slices() { Step::Prime(answer) } else { Step::Done(answer) }
    }
}

impl Want {
    fn may_serve_stale(&self) -> bool {
        self.stale.as_ref().is_some_and(|(_, assessment)| stale_on(assessment) >= StaleOn::Unreachable)
    }

    /// Whether what is stale may answer without waiting, as it does for all others who fetch for themselves.
    fn is_claim(&self) -> bool {
        self.stale.as_ref().is_some_and(|(_, assessment)| assessment.reuse == Reuse::StaleWhileRevalidate)
    }

    /// Whether what is stale has been purged since.
    fn is_gone(&self, flow: &Flow) -> bool {
        let is_gone = |stored| lookup::is_gone(&flow.worker.shared, &flow.at, &flow.request, stored);
        self.stale.as_ref().is_some_and(|(stored, _)| is_gone(stored))
    }

    /// How urgent it is.
    fn class(&self, at: &RuleAt, request: &Request) -> Class {
        let stored = self.stale.as_ref().map(|(stored, _)| stored);
        urgency::class_of(at, request, stored, self.may_serve_stale())
    }

    /// A flight that validates something stale, unless one does already or has just failed.
    fn lead(&self, worker: &Worker, request: &Request, at: &RuleAt, text: &[u8]) -> Option<Pilot> {
        let start = start(worker, request, text, self.class(at, request));
        let may_follow = |flight: &Flight| may_answer(at, request, flight, &flight.landing());
        if self.follow_unvaried(worker, at, text, &start, may_follow).is_some() {
            return None;
        }
        match worker.shared.flights.board(self.key, &start, true, |_| true) {
            Boarding::Lead(flight) if !self.came_meanwhile(worker, &flight) => Some(Pilot::new(flight)),
            _ => None,
        }
    }

    /// Joins, where an index leads to variants, the flight for what has none: its answer does not vary any more, or it is
    /// not known whether it does, as it began before there was the index, for the same variant as this request.
    fn follow_unvaried(
        &self,
        worker: &Worker,
        at: &RuleAt,
        text: &[u8],
        start: &Start<'_>,
        may_follow: impl FnOnce(&Flight) -> bool,
    ) -> Option<Arc<Flight>> {
        let shared = &worker.shared;
        let primary = hash(&shared.seed, text);
        let key = serve::flight_key(worker, &mut text.to_vec(), primary, self.range.as_ref());
        if self.alone || key == self.key {
            return None;
        }
        let rules = &at.rule().policy.vary_normalise;
        let is_same_variant = |flight: &Flight| match shared.store.peek(primary).as_deref() {
            Some(Item::Variants(variants)) => {
                let newest = variants.specs.first();
                newest.is_some_and(|spec| spec.is_same(&flight.fields, start.fields, rules))
            }
            _ => false,
        };
        shared.flights.follow(key, start, |flight| {
            may_follow(flight) && (!matches!(flight.landing(), Landing::Pending) || is_same_variant(flight))
        })
    }

    /// Whether another fetch has stored what is wanted since this request looked: then there is nothing to fetch, and
    /// `flight`, just begun, lands on that. Between looking and boarding a whole fetch can end on another core.
    fn came_meanwhile(&self, worker: &Worker, flight: &Arc<Flight>) -> bool {
        // Who follows it wants what knows of more than what was stored may.
        if flight.raised > 0 {
            return false;
        }
        let shared = &worker.shared;
        let found = shared.store.peek(self.key).or_else(|| shared.store.peek(self.object_key));
        let landing = match found {
            None => return false,
            // A fetch for another part of it: what is wanted is there, or on its way.
            Some(entry) if self.range.is_some() => match Object::of(entry) {
                Some(object) if object.slices().is_some() => {
                    Landing::Failed { why: Why::Internal, shared: false }
                }
                _ => return false,
            },
            Some(entry) => match (&*entry, Object::of(entry.clone()), &self.stale) {
                (_, Some(object), Some((stale, _))) if object.is(stale) => return false,
                (_, Some(object), _) if object.parts().is_none() => Landing::Stored(object),
                (Item::Variants(_), _, _) if self.why == Why::Absent => {
                    Landing::Failed { why: Why::Internal, shared: false }
                }
                _ => return false,
            },
        };
        flight.land(landing);
        shared.flights.finish(self.key, flight, None);
        true
    }

    fn job(
        &self,
        worker: &Rc<Worker>,
        request: &Rc<Request>,
        at: &RuleAt,
        text: Vec<u8>,
        flight: &Arc<Flight>,
    ) -> Job {
        // It may have been purged since this request looked, and what comes of the flight is stored as if it had come after that.
        let is_there = |found: &Object| !lookup::is_gone(&worker.shared, at, request, found);
        let stale = self.stale.as_ref().map(|(stored, _)| stored).filter(|stored| is_there(stored));
        let is_good = |range: &&RangeWanted| range.completes.as_ref().is_none_or(is_there);
        Job {
            worker: worker.clone(),
            request: request.clone(),
            at: at.clone(),
            text,
            key: self.key,
            object_key: self.object_key,
            why: Some(self.why),
            position: flight.position,
            epoch: flight.epoch,
            askers: flight.askers.clone(),
            hides_errors: self.stale.as_ref().is_some_and(|(_, stale)| stale_on(stale) == StaleOn::Error),
            stale: stale.cloned(),
            range: self.range.as_ref().filter(is_good).cloned(),
            is_direct: self.why == Why::HitForMiss,
            told: None,
            is_kept: true,
        }
    }
}

/// What concerns who asks, whatever for: challenges of an authority, the block list, how often one may ask, and beacons.
fn at_the_door(worker: &Worker, request: &Request) -> Option<Answer> {
    if let Some(answer) = serve::challenge(worker, request) {
        return Some(answer);
    }
    if worker.loaded().snapshot.block.contains(request.client) {
        return Some(Refusal::Blocked.answer(request));
    }
    if let Some(rate) = &worker.loaded().snapshot.edge.limits.requests_per_client
        && let Err(refused) = worker.take(Counted::Requests(request.client), rate)
    {
        worker.count_limit(Limit::RequestsPerClient);
        return Some(Refusal::TooOften(refused).answer(request));
    }
    beacon::answer(worker, request)
}

/// What is known when a fetch for the key text `text` starts.
fn start<'a>(worker: &Worker, request: &'a Request, text: &[u8], class: Class) -> Start<'a> {
    let shared = &worker.shared;
    Start {
        fields: &request.fields,
        raised: tiers::raised(shared, request),
        position: shared.purge_position.load(Ordering::Acquire),
        epoch: shared.epochs.of(hash(&shared.seed, text)),
        now_ms: shared.clock.monotonic_ms(),
        class,
    }
}

/// Whether what a flight has come to may answer `request`, by the headers that choose between answers.
fn may_answer(at: &RuleAt, request: &Request, flight: &Flight, landing: &Landing) -> bool {
    let rules = &at.rule().policy.vary_normalise;
    let may_answer =
        |head: &Fields| semantics::vary::may_answer(head, &flight.fields, &request.fields, rules);
    match landing {
        Landing::Fill(fill) => may_answer(&fill.head),
        Landing::Stored(stored) => may_answer(&stored.fields()),
        Landing::Pending | Landing::Private | Landing::Failed { .. } => true,
    }
}

/// Which failures of the origin a stored response may hide.
fn stale_on(assessment: &Assessment) -> StaleOn {
    match assessment.reuse {
        Reuse::Revalidate { stale_on } => stale_on,
        Reuse::Fresh | Reuse::StaleWhileRevalidate => StaleOn::Error,
    }
}

/// What the cache says: the hit path, and the first half of every miss.
fn look(
    worker: &Rc<Worker>,
    at: &RuleAt,
    request: &Rc<Request>,
    directives: &RequestDirectives,
    text: &mut Vec<u8>,
    from_disk: &FromDisk,
    has_waited: bool,
) -> Looked {
    let alone = lookup::is_alone(at, request, directives);
    let found = lookup::find(&worker.shared, at, request, text, from_disk);
    let mut board = |object_key, next, why, stale, range: Option<RangeWanted>| {
        if directives.only_if_cached {
            return Looked::Answer(Refusal::OnlyIfCached.answer(request));
        }
        let key = serve::flight_key(worker, text, next, range.as_ref());
        Looked::Wait(Step::Board(Want { key, object_key, why, stale, range, alone }))
    };
    let (object_key, next, stored, purged) = match found {
        Found::Object { key, next, stored, purged } => (key, next, stored, purged),
        Found::OnDisk { key, spot } => return Looked::Wait(Step::Read { key, spot }),
        Found::Pass { .. } if directives.only_if_cached => {
            return Looked::Answer(Refusal::OnlyIfCached.answer(request));
        }
        Found::Pass { .. } if is_conditional(&request.fields) || request.fields.contains("range") => {
            // What is not kept is asked for as the visitor asks: a part, or only if it has changed.
            return Looked::Wait(Step::Pass { why: Why::HitForMiss });
        }
        Found::Pass { key } => {
            // Nobody waits for anybody, but an answer that may be kept by now is.
            let why = Why::HitForMiss;
            let want = Want { key, object_key: key, why, stale: None, range: None, alone: true };
            return Looked::Wait(Step::Board(want));
        }
        Found::Nothing { key, why: Why::Absent | Why::Variant }
            if !has_waited && worker.shared.disks.is_waiting(key) =>
        {
            return Looked::Wait(Step::Written { key });
        }
        Found::Nothing { key, why } => {
            if why == Why::Purged && !directives.only_if_cached {
                // Dead weight from now on.
                worker.shared.forget(key);
            }
            return board(key, key, why, None, serve::range_to_fetch(worker, request));
        }
    };
    let assessment = lookup::assess(purged, &stored.facts, at, request, directives);
    if stored.parts().is_some() && !serve::parts_answer(request, &stored) {
        let fresh = matches!(assessment.reuse, Reuse::Fresh);
        let range = serve::range_to_complete(worker, request, fresh.then_some(&stored));
        return board(object_key, next, Why::Partial, None, range);
    }
    match assessment.reuse {
        Reuse::Fresh => {
            Looked::Answer(serve::stored(worker, at, request, stored, &assessment, Note::of(Why::Fresh)))
        }
        Reuse::StaleWhileRevalidate => {
            // Who fetches for nobody else does so under another key.
            let key = if alone { !next } else { next };
            let (why, stale) = (Why::Expired, Some((stored.clone(), assessment)));
            let want = Want { key, object_key, why, stale, range: None, alone };
            // What it fetches may not be for others, and where all are such, nothing would come of it behind their answers: one at
            // a time waits for it.
            if alone
                && !directives.only_if_cached
                && let Some(pilot) = want.lead(worker, request, at, text)
            {
                return Looked::Wait(Step::TakeOff { want, pilot });
            }
            let note = Note::of(Why::StaleWhileRevalidate);
            let answer = serve::stored(worker, at, request, stored, &assessment, note);
            if alone { Looked::Answer(answer) } else { Looked::Refresh(answer, want) }
        }
        Reuse::Revalidate { .. } => {
            // A stored part has no head of its own to be validated with: it is asked for again.
            let is_part = stored.parts().is_some();
            let range = if is_part { serve::range_to_fetch(worker, request) } else { None };
            let why = assessment.why;
            board(object_key, next, why, (!is_part).then_some((stored, assessment)), range)
        }
    }
}

/// Validates something stale in the background, unless that is happening already or has just failed.
fn refresh(worker: &Rc<Worker>, request: &Rc<Request>, at: &RuleAt, text: Vec<u8>, want: Want) {
    if let Some(pilot) = want.lead(worker, request, at, &text) {
        let (sender, _) = oneshot::channel();
        let job = want.job(worker, request, at, text, pilot.flight());
        tokio::task::spawn_local(fetch::fly(job, pilot, Interim::default(), sender));
    }
}

/// Makes unreachable what an unsafe request has outdated: the target, and what Location, Content-Location and
/// Cache-Group-Invalidation name on the same site (RFC 9111 §4.4, RFC 9875). How many epochs of `key` that has begun.
fn invalidate(worker: &Worker, at: &RuleAt, request: &Request, response: &OriginResponse, key: u128) -> u64 {
    let method = request.method.as_str();
    let target = fetch::target_of(at, request);
    let outdated =
        semantics::invalidation::invalidated_by(method, response.status, &target, &response.fields);
    for group in &outdated.groups {
        crate::purging::invalidate_group(&worker.shared, at, group);
    }
    let invalidate_url = |url: &String| crate::purging::invalidate_url(&worker.shared, at, request, url, key);
    outdated.targets.iter().map(invalidate_url).sum()
}
