//! From something stored, streaming or passed to an [`Answer`]: preconditions, ranges and what the answer says of
//! itself. Pure on its inputs; control flow stays in [`crate::flow`].

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use semantics::coding::{self, Accepted};
use semantics::conditional::{
    Precondition, Validators, evaluate_preconditions, is_conditional, is_left_out_of_304,
};
use semantics::range::{self, Completion, Multipart, RangeSpec, Requested, Span};
use semantics::{Assessment, Facts, Fields, Flags, Why, key};

use crate::answer::{Answer, Body, ContentRange, Head, Note, Part};
use crate::compress::{self, Choice};
use crate::fetch::{RangeWanted, finish_head};
use crate::flight::{Fill, FillReader};
use crate::loaded::{RuleAt, view};
use crate::object::{Object, Stored};
use crate::origin::OriginResponse;
use crate::request::{Method, Request};
use crate::slices::SliceReader;
use crate::tiering::SLICE_BYTES;
use crate::worker::Worker;

/// Answers from a stored response.
pub(crate) fn stored(
    worker: &Rc<Worker>,
    at: &RuleAt,
    request: &Rc<Request>,
    stored: Object,
    assessment: &Assessment,
    note: Note,
) -> Answer {
    let personal = stored.facts.flags.has(Flags::PERSONAL);
    let note = Note { ttl: Some(assessment.ttl), personal, ..note };
    let age = Some(u64::from(assessment.age));
    let choice = compress::choose(worker, at, request, &stored);
    if let Some(answer) = conditional(at, request, stored.head(), &stored.facts, choice.as_ref(), age, note) {
        return Answer { position: Some(stored.position()), ..answer };
    }
    let Some(length) = stored.body_len() else { return from_parts(at, request, stored, age, note) };
    let head = match &choice {
        Some(choice) => Head::Negotiated(stored.clone(), choice.form()),
        None => Head::Stored(stored.clone()),
    };
    let mut answer = Answer {
        age,
        length: Some(length),
        rule: Some(at.clone()),
        position: Some(stored.position()),
        ..Answer::new(stored.facts.status, head, note)
    };
    if let Some((form, copy)) = choice.as_ref().and_then(|choice| choice.copy.clone()) {
        let encoded = copy.body_len().unwrap_or(0);
        answer.note.encoded = Some((form, length.saturating_sub(encoded)));
        answer.length = Some(encoded);
        answer.body = Body::Stored(copy, 0, encoded);
        return answer;
    }
    let is_ranged = choice.is_none_or(|choice| !choice.forbids_range(request));
    if answer.status == 200 && is_ranged && request.fields.contains("range") {
        let selected =
            range::select(request.method.as_str().as_bytes(), &request.fields, &stored.fields(), length);
        match selected {
            Requested::Ignore => {}
            Requested::Unsatisfiable => return unsatisfiable(answer, length),
            Requested::One(span) => {
                answer.status = 206;
                answer.length = Some(span.len());
                answer.content_range = Some(ContentRange::Bytes(span.start(), span.end(), Some(length)));
                answer.body = body_of(worker, at, request, stored, span.start(), span.end() + 1);
                return answer;
            }
            Requested::Several(spans) => {
                let (start, end) = spans.first().map_or((0, 0), |span| (span.start(), span.end() + 1));
                let reader = SliceReader::new(worker, request, at, &stored, start, end).map(Box::new);
                return several(worker, answer, stored, reader, &spans, length);
            }
        }
    }
    answer.body = body_of(worker, at, request, stored, 0, length);
    answer
}

/// Bytes `start..end` of a stored body, wherever it lies. What is not sent is not read either.
fn body_of(
    worker: &Rc<Worker>,
    at: &RuleAt,
    request: &Rc<Request>,
    stored: Object,
    start: u64,
    end: u64,
) -> Body {
    if stored.slices().is_some() && request.method == Method::Head {
        return Body::Empty;
    }
    match SliceReader::new(worker, request, at, &stored, start, end) {
        Some(reader) => Body::Sliced(Box::new(reader)),
        None => Body::Stored(stored, start, end),
    }
}

/// What the request's preconditions come to, unless that is to go on. `head`: of the stored response.
fn conditional(
    at: &RuleAt,
    request: &Request,
    head: &[u8],
    facts: &Facts,
    choice: Option<&Choice>,
    age: Option<u64>,
    note: Note,
) -> Option<Answer> {
    if !is_conditional(&request.fields) {
        return None;
    }
    let validators = Validators::of_block(head);
    let evaluate = |fields: &Fields| {
        evaluate_preconditions(fields, request.method.as_str(), &validators, facts, request.now)
    };
    let mut form = choice.and_then(Choice::form);
    let precondition = match (choice, validators.etag) {
        (Some(choice), Some(etag)) if coding::compares_tags(&request.fields) => {
            let (translated, listed) = coding::translate(&request.fields, etag, &choice.accepted, form);
            form = listed;
            evaluate(&translated)
        }
        _ => evaluate(&request.fields),
    };
    match precondition {
        Precondition::Proceed => None,
        Precondition::NotModified => {
            let fields = match choice {
                Some(_) => coding::fields_of(head, form),
                None => Fields::from_block(head),
            };
            Some(not_modified(at, fields, age, note))
        }
        Precondition::Failed => Some(precondition_failed(at, note)),
    }
}

fn not_modified(at: &RuleAt, mut fields: Fields, age: Option<u64>, note: Note) -> Answer {
    fields.retain(|name, _| !is_left_out_of_304(name));
    Answer { age, rule: Some(at.clone()), ..Answer::new(304, Head::Own(fields), note) }
}

fn precondition_failed(at: &RuleAt, note: Note) -> Answer {
    Answer { length: Some(0), rule: Some(at.clone()), ..Answer::new(412, Head::Own(Fields::new()), note) }
}

fn unsatisfiable(answer: Answer, length: u64) -> Answer {
    Answer {
        status: 416,
        length: Some(0),
        content_range: Some(ContentRange::Unsatisfied(length)),
        body: Body::Empty,
        ..answer
    }
}

fn several(
    worker: &Worker,
    mut answer: Answer,
    stored: Object,
    reader: Option<Box<SliceReader>>,
    spans: &[Span],
    length: u64,
) -> Answer {
    let boundary = worker.request_id().text();
    let boundary = String::from_utf8_lossy(&boundary);
    let multipart = Multipart {
        boundary: &boundary,
        content_type: stored.field("content-type"),
        complete_len: length,
        spans,
    };
    let parts = spans.iter().enumerate().map(|(index, span)| {
        let mut head = Vec::with_capacity(128);
        multipart.write_part_head(&mut head, index);
        Part { head: head.into(), start: span.start(), end: span.end() + 1 }
    });
    let parts = parts.collect();
    let mut closing = Vec::with_capacity(32);
    multipart.write_end(&mut closing);
    answer.status = 206;
    answer.length = Some(multipart.content_len());
    answer.content_type = Some(multipart.media_type());
    answer.body = Body::Multipart(stored.clone(), reader, parts, closing.into());
    answer
}

// --- Parts of a representation ---

/// Whether the parts held of a representation answer this request.
pub(crate) fn parts_answer(request: &Request, stored: &Object) -> bool {
    held_part(request, stored).is_some()
}

/// Where the bytes asked for lie among the held parts: offset and length there, and what Content-Range says.
fn held_part(request: &Request, stored: &Object) -> Option<(u64, u64, range::ContentRange)> {
    let parts = stored.parts()?;
    let asked = request.fields.get("range").filter(|_| request.method == Method::Get)?;
    if request.fields.contains("if-range") && !range::if_range_matches(&request.fields, &stored.fields()) {
        return None;
    }
    if let Some(lone) = &parts.lone {
        let slice = lone.answer(asked)?;
        return Some((slice.offset, slice.len, slice.content_range));
    }
    let wanted = match (range::single_spec(asked)?, parts.complete_len) {
        (spec, Some(complete)) => spec.resolve(complete)?,
        (RangeSpec::From { first, last: Some(last) }, None) => Span::new(first, last)?,
        _ => return None,
    };
    let content_range = range::ContentRange::Span { span: wanted, complete: parts.complete_len };
    (parts.held_from(wanted.start()) >= wanted.len()).then_some((wanted.start(), wanted.len(), content_range))
}

fn from_parts(at: &RuleAt, request: &Request, stored: Object, age: Option<u64>, note: Note) -> Answer {
    let mut answer = Answer {
        age,
        length: Some(0),
        rule: Some(at.clone()),
        position: Some(stored.position()),
        ..Answer::new(206, Head::Stored(stored.clone()), note)
    };
    if let Some((offset, length, content_range)) = held_part(request, &stored) {
        answer.length = Some(length);
        answer.content_range = match content_range {
            range::ContentRange::Span { span, complete } => {
                Some(ContentRange::Bytes(span.start(), span.end(), complete))
            }
            range::ContentRange::Unsatisfied { complete } => Some(ContentRange::Unsatisfied(complete)),
        };
        answer.body = Body::Stored(stored, offset, offset + length);
    }
    answer
}

/// The Range to send on when nothing usable is stored: the visitor's own, if it is one plain range without If-Range. With
/// disks, the whole slices around it: they serve others too.
pub(crate) fn range_to_fetch(worker: &Worker, request: &Request) -> Option<RangeWanted> {
    if request.method != Method::Get || request.fields.contains("if-range") {
        return None;
    }
    let mut lines = request.fields.get_all("range");
    let (Some(asked), None) = (lines.next(), lines.next()) else { return None };
    let whole_slices = match range::single_spec(asked)? {
        RangeSpec::From { first, last } if !worker.shared.disks.is_empty() => {
            let start = first / SLICE_BYTES * SLICE_BYTES;
            Some(match last {
                Some(last) => {
                    format!("bytes={start}-{}", last / SLICE_BYTES * SLICE_BYTES + (SLICE_BYTES - 1))
                }
                None => format!("bytes={start}-"),
            })
        }
        _ => None,
    };
    let asked = asked.to_vec();
    Some(match whole_slices {
        Some(value) => RangeWanted { asked: Some(asked), ..RangeWanted::plain(value.into()) },
        None => RangeWanted::plain(asked),
    })
}

/// The Range to send when some parts are held: the visitor's, or, for the whole, what is missing of it.
pub(crate) fn range_to_complete(
    worker: &Worker,
    request: &Request,
    held: Option<&Object>,
) -> Option<RangeWanted> {
    if request.fields.contains("range") {
        return range_to_fetch(worker, request);
    }
    let held = held.filter(|_| request.method == Method::Get)?;
    let parts = held.parts().filter(|parts| parts.lone.is_none())?;
    let held_bytes = parts.held_from(0);
    let Completion { range, if_range } = range::rest_after(held_bytes, parts.complete_len, &held.fields())?;
    Some(RangeWanted { if_range, completes: Some(held.clone()), ..RangeWanted::plain(range.into()) })
}

/// The key of a fetch: that of the object, or of this range of it.
pub(crate) fn flight_key(
    worker: &Worker,
    text: &mut Vec<u8>,
    key: u128,
    range: Option<&RangeWanted>,
) -> u128 {
    let Some(range) = range else { return key };
    let length = text.len();
    text.extend_from_slice(&key.to_be_bytes());
    text.extend_from_slice(b" range ");
    text.extend_from_slice(&range.value);
    let key = key::hash(&worker.shared.seed, text);
    text.truncate(length);
    key
}

// --- What streams ---

/// Answers from a fill; `None` when the bytes it needs have passed already.
pub(crate) fn fill(
    worker: &Rc<Worker>,
    at: &RuleAt,
    request: &Rc<Request>,
    fill: &Arc<Fill>,
    reader: Option<FillReader>,
    assessment: &Assessment,
    note: Note,
) -> Option<Answer> {
    let personal = fill.facts.flags.has(Flags::PERSONAL);
    let note = Note { ttl: Some(assessment.ttl), personal, ..note };
    let age = Some(u64::from(assessment.age)).filter(|age| *age > 0);
    let status = fill.facts.status;
    let head = fill.head.as_block();
    // What streams in has no copies yet. What is already on its way to slices won't have any.
    let is_encoded = request.asked.is_none()
        && fill.sliced.is_none()
        && compress::is_encoded(at, status, head, fill.length);
    let choice = is_encoded.then(|| Choice { accepted: Accepted::of(&request.fields), copy: None });
    if request.method.is_cacheable()
        && let Some(answer) = conditional(at, request, head, &fill.facts, choice.as_ref(), age, note)
    {
        return Some(Answer { position: Some(fill.position), ..answer });
    }
    let head = if is_encoded { coding::fields_of(head, None) } else { fill.head.clone() };
    let mut answer = Answer {
        age,
        length: fill.length,
        content_range: fill.content_range,
        rule: Some(at.clone()),
        position: Some(fill.position),
        ..Answer::new(status, Head::Own(head), note)
    };
    let (mut start, mut end) = (0, None);
    let is_ranged = choice.is_none_or(|choice| !choice.forbids_range(request));
    if let (200, Some(length), true) = (status, fill.length, is_ranged) {
        match range::select(request.method.as_str().as_bytes(), &request.fields, &fill.head, length) {
            Requested::Ignore | Requested::Several(_) => {}
            Requested::Unsatisfiable => return Some(unsatisfiable(answer, length)),
            Requested::One(span) => {
                (start, end) = (span.start(), Some(span.end() + 1));
                answer.status = 206;
                answer.length = Some(span.len());
                answer.content_range = Some(ContentRange::Bytes(span.start(), span.end(), Some(length)));
            }
        }
    }
    // With disks, those who follow may have asked for another range within the same slices.
    let may_differ = fill.is_wider || (note.collapsed && !worker.shared.disks.is_empty());
    if let Some(ContentRange::Bytes(first, last, complete)) = fill.content_range.filter(|_| may_differ) {
        let wanted = match part_of(request, Span::new(first, last)?, complete) {
            Wanted::Held(wanted) => wanted,
            Wanted::Nothing(complete) => return Some(unsatisfiable(answer, complete)),
            Wanted::Elsewhere => return None,
        };
        answer.length = Some(wanted.len());
        answer.content_range = Some(ContentRange::Bytes(wanted.start(), wanted.end(), complete));
        (start, end) = (wanted.start() - first, Some(wanted.end() + 1 - first));
    }
    let reader = reader.filter(|reader| reader.offset() == start).or_else(|| fill.read_from(start));
    let Some((_, sliced)) = &fill.sliced else {
        answer.body = Body::Fill(reader?, end);
        return Some(answer);
    };
    if request.method == Method::Head {
        return Some(answer);
    }
    let fill_start = match fill.content_range {
        Some(ContentRange::Bytes(first, ..)) => first,
        _ => 0,
    };
    answer.body = match (reader, fill.leads_to_disk) {
        (Some(reader), false) => Body::Fill(reader, end),
        (None, false) => return None,
        (reader, true) => {
            let object = Stored::sliced(fill.facts, fill.position, fill.tags.clone(), &fill.head, *sliced);
            let (from, to) = (fill_start + start, end.map_or(sliced.len, |end| fill_start + end));
            let mut slices = SliceReader::new(worker, request, at, &Object::new(object), from, to)?;
            if let Some(reader) = reader {
                slices.follow(reader, fill, fill_start);
            }
            Body::Sliced(Box::new(slices))
        }
    };
    Some(answer)
}

/// What a request wants of a representation of which a part is at hand.
pub(crate) enum Wanted {
    /// These bytes, which are in it.
    Held(Span),
    /// Bytes that a representation of this length has not.
    Nothing(u64),
    /// Bytes that are not in it.
    Elsewhere,
}

/// What a request wants of the part `held` of a representation, whose length may be known.
pub(crate) fn part_of(request: &Request, held: Span, complete: Option<u64>) -> Wanted {
    let asked = request.fields.get("range").and_then(range::single_spec);
    let wanted = match (asked, complete) {
        (Some(spec), Some(complete)) => match spec.resolve(complete) {
            Some(wanted) => Some(wanted),
            None => return Wanted::Nothing(complete),
        },
        (Some(RangeSpec::From { first, last: Some(last) }), None) => Span::new(first, last.min(held.end())),
        _ => Some(held),
    };
    wanted.filter(|wanted| held.covers(*wanted)).map_or(Wanted::Elsewhere, Wanted::Held)
}

/// Where an authority asks for the answer to HTTP-01 (RFC 8555 §8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// What an authority is answered that looks whose a domain is. A token that is not outstanding is the site's affair.
pub(crate) fn challenge(worker: &Worker, request: &Request) -> Option<Answer> {
    let token = request.path().strip_prefix(CHALLENGE_PATH)?;
    let tls = worker.tls();
    let answer = tls.key_authorization(token).filter(|_| request.method.is_cacheable())?;
    let mut fields = Fields::new();
    fields.append_unchecked(b"Content-Type", b"application/octet-stream");
    fields.append_unchecked(b"Cache-Control", b"no-store");
    let body = Bytes::copy_from_slice(answer.as_bytes());
    Some(Answer {
        length: Some(body.len() as u64),
        body: if request.method == Method::Head { Body::Empty } else { Body::Bytes(body) },
        ..Answer::new(200, Head::Own(fields), Note::of(Why::Challenge))
    })
}

/// What the edge answers by itself, by rule: a redirect, a preflight.
pub(crate) fn locally(at: &RuleAt, request: &Request) -> Option<Answer> {
    let view = view(request);
    if let Some((status, location)) = at.rule().location(&view) {
        let mut fields = Fields::new();
        fields.append("Location", location).ok()?;
        return Some(own(at, status, fields, Why::Redirect));
    }
    let fields = at.rule().cors.preflight(&view)?;
    Some(own(at, 204, fields, Why::Preflight))
}

/// Answers with what the origin said to this request alone.
pub(crate) fn passed(
    worker: &Worker,
    at: &RuleAt,
    request: &Request,
    response: OriginResponse,
    note: Note,
) -> Answer {
    let mut fields = response.fields;
    let told = fields.get("content-length").and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    let length = if request.method == Method::Head { told } else { response.length };
    finish_head(worker, &mut fields, response.response_time);
    Answer {
        length,
        body: match response.tunnel {
            Some(tunnel) => Body::Tunnel(Box::new(tunnel)),
            None => Body::Origin(Box::new(response.body)),
        },
        rule: Some(at.clone()),
        ..Answer::new(response.status, Head::Own(fields), note)
    }
}

/// An answer of the edge's own, without content.
pub(crate) fn own(at: &RuleAt, status: u16, fields: Fields, why: Why) -> Answer {
    Answer {
        length: (status != 204).then_some(0),
        rule: Some(at.clone()),
        ..Answer::new(status, Head::Own(fields), Note::of(why))
    }
}
