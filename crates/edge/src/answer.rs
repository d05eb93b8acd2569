//! What the flow decided to send, before any protocol has written it: the seam between the request machine and the
//! protocols. All of them render its head by [`crate::deliver`].

use std::sync::Arc;

use bytes::Bytes;
use observe::Event;
use semantics::cache_status::{Fwd, Handling};
use semantics::coding::{self, Form};
use semantics::fields::is_one_of;
use semantics::{Fields, Vary, VarySpec, Why};
use stats::Class;

use crate::flight::FillReader;
use crate::loaded::RuleAt;
use crate::object::Object;
use crate::origin::{FetchError, OriginBody, OriginResponse, Tunnel};
use crate::slices::{IsNew, SliceReader};

/// One final response.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    /// Age in seconds, for what comes from the cache (RFC 9111 §5.1).
    pub(crate) age: Option<u64>,
    pub(crate) note: Note,
    /// What Content-Length says; `None` leaves the framing to the protocol.
    pub(crate) length: Option<u64>,
    pub(crate) content_range: Option<ContentRange>,
    /// Replaces the stored Content-Type: a multipart boundary.
    pub(crate) content_type: Option<String>,
    pub(crate) body: Body,
    /// The rule whose response header operations apply; `None` for the edge's own words.
    pub(crate) rule: Option<RuleAt>,
    /// The origin's part in it, for the log.
    pub(crate) origin: Option<Box<OriginNote>>,
    /// The purge position that it carries; `None` for what comes from no cache.
    pub(crate) position: Option<u64>,
    /// What it knows of besides: see [`crate::flight::Flight::raised`].
    pub(crate) raised: u64,
}

/// Where the field lines come from.
pub(crate) enum Head {
    /// A stored response's block, sent as it lies there.
    Stored(Object),
    /// A stored response's block as that of one of its representations ([`semantics::coding::write_head`]): of a copy in this
    /// form, or of identity.
    Negotiated(Object, Option<Form>),
    /// Lines made for this answer.
    Own(Fields),
}

impl Head {
    /// The first value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        match self {
            Head::Stored(stored) | Head::Negotiated(stored, _) => stored.field(name),
            Head::Own(fields) => fields.get(name),
        }
    }

    /// What kind of content it is the head of.
    pub(crate) fn class(&self) -> Class {
        match self {
            Head::Stored(stored) | Head::Negotiated(stored, _) => stored.class(),
            Head::Own(fields) => Class::of(fields.get("content-type")),
        }
    }

    /// Which request headers choose between answers like this one, if any.
    pub(crate) fn vary(&self) -> Vary {
        if self.field("vary").is_none() {
            return Vary::None;
        }
        match self {
            Head::Stored(stored) | Head::Negotiated(stored, _) => VarySpec::of(&stored.fields()),
            Head::Own(fields) => VarySpec::of(fields),
        }
    }

    /// The field lines, to be changed.
    pub(crate) fn fields(&self) -> Fields {
        match self {
            Head::Stored(stored) => stored.fields(),
            Head::Negotiated(stored, form) => coding::fields_of(stored.head(), *form),
            Head::Own(fields) => fields.clone(),
        }
    }
}

/// What Cache-Status says (RFC 9211).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) why: Why,
    /// Seconds of freshness left, negative when stale.
    pub(crate) ttl: Option<i64>,
    /// Why the request went on, where the outcome does not tell: a stale response that the origin replaced.
    pub(crate) forwarded: Option<Fwd>,
    /// The status that the origin answered with, where the visitor gets another.
    pub(crate) forwarded_status: Option<u16>,
    pub(crate) stored: bool,
    pub(crate) collapsed: bool,
    /// Whether what answers may have been made for one visitor ([`semantics::Flags::PERSONAL`]).
    pub(crate) personal: bool,
    /// The form that is sent, and how many bytes fewer than identity it has.
    pub(crate) encoded: Option<(Form, u64)>,
}

impl Note {
    pub(crate) fn of(why: Why) -> Self {
        Note {
            why,
            ttl: None,
            forwarded: None,
            forwarded_status: None,
            stored: false,
            collapsed: false,
            personal: false,
            encoded: None,
        }
    }

    /// Whether the request went on, and how.
    pub(crate) fn handling(&self) -> Handling {
        if self.why == Why::StaleIfError && self.forwarded_status.is_none() {
            return Handling::Hit;
        }
        match Handling::of(self.why, self.forwarded_status, self.stored) {
            Handling::Forwarded { because, status, stored, collapsed } => Handling::Forwarded {
                because: self.forwarded.unwrap_or(because),
                status,
                stored,
                collapsed: collapsed || self.collapsed,
            },
            other => other,
        }
    }

    /// Takes back that it is a hit, if it is one and some of the body is not stored any more (RFC 9211 §2.2, `partial`).
    /// `joined`: how that comes. Returns whether it was.
    pub(crate) fn take_back(&mut self, joined: Option<IsNew>) -> bool {
        let Some(joined) = joined.filter(|_| self.handling() == Handling::Hit) else { return false };
        let is_own = joined == IsNew::Begun;
        self.why = if is_own { Why::Partial } else { Why::Collapsed };
        self.forwarded = Some(Fwd::Partial);
        (self.stored, self.collapsed) = (is_own, !is_own);
        true
    }
}

/// Content-Range of a 206 or 416.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ContentRange {
    /// First and last byte, and the complete length if known.
    Bytes(u64, u64, Option<u64>),
    /// `bytes */N`.
    Unsatisfied(u64),
}

/// Where the content comes from.
pub(crate) enum Body {
    /// None at all.
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// Bytes `start..end` of a stored body.
    Stored(Object, u64, u64),
    /// Bytes of a stored body that lies on disk.
    Sliced(Box<SliceReader>),
    /// Several ranges of a stored body, each with its part head, and the closing delimiter; with the reader of a body that
    /// lies on disk.
    Multipart(Object, Option<Box<SliceReader>>, Vec<Part>, Bytes),
    /// A fill that streams in, from the reader's offset to `end` (exclusive), or to its end.
    Fill(FillReader, Option<u64>),
    /// The origin's answer to this request alone.
    Origin(Box<OriginBody>),
    /// After 101: the connection to the origin, which speaks another protocol now.
    Tunnel(Box<Tunnel>),
}

/// One part of a multipart/byteranges body.
pub(crate) struct Part {
    pub(crate) head: Bytes,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What the log says of the origin.
#[derive(Clone, Debug)]
pub(crate) struct OriginNote {
    pub(crate) name: Arc<str>,
    pub(crate) status: u16,
    pub(crate) first_byte_us: u64,
    pub(crate) attempts: u32,
    /// What its answer says of its reuse: [`observe::Event::answer`].
    pub(crate) answer: Fields,
    /// What another edge has told of what it took, if one was asked.
    behind: Option<Box<str>>,
}

impl Answer {
    /// An answer without content; what differs is set by its maker.
    pub(crate) fn new(status: u16, head: Head, note: Note) -> Self {
        Answer {
            status,
            head,
            age: None,
            note,
            length: None,
            content_range: None,
            content_type: None,
            body: Body::Empty,
            rule: None,
            origin: None,
            position: None,
            raised: 0,
        }
    }

    /// Whether its body has to be read from disk.
    pub(crate) fn is_from_slices(&self) -> bool {
        matches!(self.body, Body::Sliced(_) | Body::Multipart(_, Some(_), ..))
    }

    /// How what is missing of a stored body will come, as far as is known.
    pub(crate) fn missing(&self) -> Option<IsNew> {
        match &self.body {
            Body::Sliced(reader) => {
                let (start, end) = reader.left();
                reader.misses(start, end)
            }
            Body::Multipart(_, Some(reader), parts, _) => {
                parts.iter().map(|part| reader.misses(part.start, part.end)).max().flatten()
            }
            _ => None,
        }
    }

    /// Adds Set-Cookie lines that the head lacks.
    pub(crate) fn add_cookies(&mut self, cookies: &Fields) {
        if let Head::Own(fields) = &mut self.head
            && !fields.contains("set-cookie")
        {
            cookies.iter().for_each(|(name, value)| fields.append_unchecked(name, value));
        }
    }
}

impl OriginNote {
    /// Of an answer.
    pub(crate) fn of(response: &OriginResponse) -> Self {
        OriginNote {
            name: response.info.origin.clone(),
            status: response.status,
            first_byte_us: response.info.first_byte_us,
            attempts: response.info.attempts,
            answer: told_of(response),
            behind: response.told.as_ref().map(|told| told.timing.clone().unwrap_or_default()),
        }
    }

    /// What the hops behind took, the nearest first, as in Server-Timing (W3C).
    pub(crate) fn timing(&self) -> String {
        match &self.behind {
            Some(behind) => behind.to_string(),
            None => format!("origin;dur={:.3}", self.first_byte_us as f64 / 1000.0),
        }
    }

    /// Of a failure.
    pub(crate) fn of_error(error: &FetchError) -> Self {
        let name = error.origin().unwrap_or("-").into();
        OriginNote { name, status: 0, first_byte_us: 0, attempts: 1, answer: Fields::new(), behind: None }
    }
}

/// The fields of an origin's answer that decide about its reuse, without what is anybody's secret.
fn told_of(response: &OriginResponse) -> Fields {
    let mut told = Fields::with_capacity(8, 256);
    for (name, value) in response.fields.iter() {
        match is_one_of(name, Event::ANSWER_FIELDS) {
            false => {}
            true if name.eq_ignore_ascii_case(b"set-cookie") => {
                if !told.contains("set-cookie") {
                    told.append_unchecked(name, b"1");
                }
            }
            true => told.append_unchecked(name, value),
        }
    }
    told
}
