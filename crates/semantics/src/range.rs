//! Byte ranges (RFC 9110 §14): what part of a representation a request asks for, how the answer says which part it is,
//! and which parts of a representation a cache holds (RFC 9111 §3.3, §3.4).
//!
//! Four groups, each usable alone:
//!
//! - [`select`] and [`parse_range`] read Range against a body of known length, [`if_range_matches`] reads If-Range.
//! - [`ContentRange`] and [`Multipart`] write the answer.
//! - [`Part`] says what one stored 206 can answer, also when its Content-Range and its body contradict each other.
//! - [`rest_after`] asks for what is missing behind a part, [`may_combine`] says whether the answer fits to it.
//!
//! Only the unit `bytes`; a Range in another unit or with bad syntax is ignored, as §14.2 asks, and answered in full.
//! Multipart answers are written, never read: what the edge asks of an origin is one range.

use crate::Fields;
use crate::list::tokens;
use std::fmt;

/// Most ranges in one request; one with more is answered in full. Players and PDF readers ask for a few at a time;
/// §14.2 warns of sets made to exhaust the server.
pub const RANGES_MAX: usize = 16;

/// Bytes between two ranges up to which they are sent as one: about what another part's head costs (§15.3.7.2).
pub const GAP_MAX: u64 = 80;

/// A run of bytes of a representation, from `start` to `end` inclusive, counted from 0. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    start: u64,
    end: u64,
}

/// One `range-spec` as it was written, before the length of the representation is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-` or `first-last`, with `last` not before `first`.
    From {
        /// First byte wanted.
        first: u64,
        /// Last byte wanted; `None` to the end.
        last: Option<u64>,
    },
    /// `-n`: the last `n` bytes.
    Suffix(u64),
}

/// What a Range field means for a representation of known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// No usable Range: answer 200 with everything.
    Ignore,
    /// Well-formed, but none of it exists: answer 416 with [`ContentRange::Unsatisfied`].
    Unsatisfiable,
    /// Answer 206 with this span and a Content-Range.
    One(Span),
    /// Answer 206 with these spans as multipart/byteranges: 2 to [`RANGES_MAX`], no two of them touching.
    Several(Vec<Span>),
}

impl Span {
    /// `None` when `end` is before `start`.
    pub const fn new(start: u64, end: u64) -> Option<Span> {
        if start <= end { Some(Span { start, end }) } else { None }
    }

    /// The `len` bytes from `start`; `None` when there are none or they end beyond `u64::MAX`.
    pub const fn with_len(start: u64, len: u64) -> Option<Span> {
        let Some(before_end) = len.checked_sub(1) else { return None };
        match start.checked_add(before_end) {
            Some(end) => Some(Span { start, end }),
            None => None,
        }
    }

    /// First byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Last byte, inclusive.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many bytes: at least 1. Saturates for the span of all `u64`.
    #[expect(clippy::len_without_is_empty, reason = "a span is never empty")]
    pub const fn len(self) -> u64 {
        (self.end - self.start).saturating_add(1)
    }

    /// Whether every byte of `other` is in `self`.
    pub const fn covers(self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

impl RangeSpec {
    /// The bytes meant of a representation of `complete_len` bytes; `None` when there are none of them.
    pub fn resolve(self, complete_len: u64) -> Option<Span> {
        let last_byte = complete_len.checked_sub(1)?;
        match self {
            RangeSpec::From { first, last } => {
                Span::new(first, last.map_or(last_byte, |last| last.min(last_byte)))
            }
            RangeSpec::Suffix(0) => None,
            RangeSpec::Suffix(len) => Span::new(complete_len.saturating_sub(len), last_byte),
        }
    }
}

// --- Range and If-Range ---

/// What a request gets of a stored 200 response: Range (§14.2) under the condition of If-Range (§13.1.5).
///
/// - `method`: Range counts for GET only; for HEAD and others it is ignored.
/// - `stored`: head of the stored response, for its validators.
/// - `complete_len`: length of its whole body in bytes.
///
/// A caller evaluates If-None-Match and the like before (§13.2.2). More than one Range line is ignored. A request
/// without Range costs one look-up.
pub fn select(method: &[u8], request: &Fields, stored: &Fields, complete_len: u64) -> Requested {
    let mut lines = request.get_all("range");
    let (Some(range), None) = (lines.next(), lines.next()) else { return Requested::Ignore };
    if method != b"GET" || !if_range_matches(request, stored) {
        return Requested::Ignore;
    }
    parse_range(range, complete_len)
}

/// Reads one Range value for a representation of `complete_len` bytes.
///
/// Ranges that do not exist are passed over while another does. Of several ranges, those that overlap or lie within
/// [`GAP_MAX`] of each other are sent as one and in ascending order, otherwise the order stays as asked. More than
/// [`RANGES_MAX`], or parts that with their heads would be no shorter than the whole, are answered in full. Of an empty
/// representation every range is unsatisfiable except a suffix, which is the whole (§14.1.2). Allocates only for
/// several ranges.
///
/// ```
/// use semantics::range::{Requested, Span, parse_range};
/// assert_eq!(parse_range(b"bytes=-1", 11), Requested::One(Span::new(10, 10).unwrap()));
/// assert_eq!(parse_range(b"bytes=11-", 11), Requested::Unsatisfiable);
/// assert_eq!(parse_range(b"lines=1-2", 11), Requested::Ignore);
/// ```
pub fn parse_range(value: &[u8], complete_len: u64) -> Requested {
    let Some(specs) = range_specs(value) else { return Requested::Ignore };
    let mut spans: Vec<Span> = Vec::new();
    let mut first = None;
    let mut count = 0;
    for spec in specs {
        count += 1;
        let Some(spec) = spec else { return Requested::Ignore };
        if count > RANGES_MAX {
            return Requested::Ignore;
        }
        if complete_len == 0 && matches!(spec, RangeSpec::Suffix(1..)) {
            return Requested::Ignore;
        }
        match (first, spec.resolve(complete_len)) {
            (_, None) => {}
            (None, span) => first = span,
            (Some(first), Some(span)) => {
                if spans.is_empty() {
                    spans.push(first);
                }
                spans.push(span);
            }
        }
    }
    match first {
        _ if count == 0 => Requested::Ignore,
        None => Requested::Unsatisfiable,
        Some(only) if spans.is_empty() => Requested::One(only),
        Some(_) => several(spans, complete_len),
    }
}

/// The specs of a Range value; `None` when it is not in bytes. A member that breaks the grammar is an inner `None`.
fn range_specs(value: &[u8]) -> Option<impl Iterator<Item = Option<RangeSpec>>> {
    let equals = memchr::memchr(b'=', value)?;
    value[..equals].eq_ignore_ascii_case(b"bytes").then(|| tokens(&value[equals + 1..]).map(range_spec))
}

fn range_spec(text: &[u8]) -> Option<RangeSpec> {
    let dash = memchr::memchr(b'-', text)?;
    let (first, last) = (&text[..dash], &text[dash + 1..]);
    if first.is_empty() {
        return Some(RangeSpec::Suffix(position(last)?));
    }
    let first = position(first)?;
    let last = if last.is_empty() { None } else { Some(position(last)?) };
    last.is_none_or(|last| first <= last).then_some(RangeSpec::From { first, last })
}

/// `1*DIGIT`; numbers beyond `u64` are as good as its maximum.
pub(crate) fn position(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        Some(number.saturating_mul(10).saturating_add(u64::from(digit)))
    })
}

fn several(mut spans: Vec<Span>, complete_len: u64) -> Requested {
    let mut sorted = spans.clone();
    sorted.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        match joined.last_mut() {
            Some(last) if span.start <= last.end.saturating_add(GAP_MAX) => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    if joined.len() < spans.len() {
        spans = joined;
    }
    let cost = spans.iter().fold(0u64, |sum, span| sum.saturating_add(span.len()).saturating_add(GAP_MAX));
    match spans[..] {
        [only] => Requested::One(only),
        _ if cost >= complete_len => Requested::Ignore,
        _ => Requested::Several(spans),
    }
}

/// Whether Range may be honoured as far as If-Range is concerned; `true` without If-Range. RFC 9110 §13.1.5.
///
/// An entity tag must equal the stored ETag and neither may be weak. A date must equal the stored Last-Modified
/// exactly, and that must be a strong validator ([`last_modified_is_strong`]). Anything else is no match, and so are
/// several If-Range lines: the client then gets the whole.
pub fn if_range_matches(request: &Fields, stored: &Fields) -> bool {
    let mut lines = request.get_all("if-range");
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(tag), None) if tag.starts_with(b"\"") => strong_etag(stored) == Some(tag),
        (Some(date), None) if date.ends_with(b"GMT") => {
            stored.get("last-modified") == Some(date) && last_modified_is_strong(stored)
        }
        _ => false,
    }
}

/// The ETag of a response when it has exactly one and that is strong (§8.8.3).
pub fn strong_etag(response: &Fields) -> Option<&[u8]> {
    let mut lines = response.get_all("etag");
    let (Some(tag), None) = (lines.next(), lines.next()) else { return None };
    let inside = tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!inside.contains(&b'"')).then_some(tag)
}

/// Whether the Last-Modified of a response is a strong validator: at least one second older than its Date, so that a
/// second change within the same second would have shown (§8.8.2.2). The obsolete date formats count as weak: one of
/// them leaves out the century.
pub fn last_modified_is_strong(response: &Fields) -> bool {
    let date = |name| {
        let value = response.get(name).filter(|value| value.get(3) == Some(&b','))?;
        crate::date::parse(value, crate::Wall::default())
    };
    match (date("last-modified"), date("date")) {
        (Some(modified), Some(sent)) => modified.secs() < sent.secs(),
        _ => false,
    }
}

/// What If-Range may name of a response: its ETag, or Last-Modified where it has none; `None` unless that is strong (§13.1.5).
pub fn strong_validator(response: &Fields) -> Option<&[u8]> {
    match response.contains("etag") {
        true => strong_etag(response),
        false => response.get("last-modified").filter(|_| last_modified_is_strong(response)),
    }
}

// --- Content-Range ---

/// A Content-Range in bytes (§14.4). `Display` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentRange {
    /// `bytes 0-4/10` or `bytes 0-4/*`.
    Span {
        /// The bytes enclosed.
        span: Span,
        /// Length of the whole representation, if told; then greater than the span's end.
        complete: Option<u64>,
    },
    /// `bytes */10`, with 416.
    Unsatisfied {
        /// Length of the whole representation.
        complete: u64,
    },
}

impl ContentRange {
    /// Reads a value. `None` for another unit, bad syntax, an end before the start, an end at or behind the complete
    /// length: then nothing is known of the body's place, and it must not be combined with anything (§14.4).
    pub fn parse(value: &[u8]) -> Option<ContentRange> {
        let space = memchr::memchr(b' ', value)?;
        let (unit, rest) = (&value[..space], &value[space + 1..]);
        let slash = memchr::memchr(b'/', rest).filter(|_| unit.eq_ignore_ascii_case(b"bytes"))?;
        let (range, complete) = (&rest[..slash], &rest[slash + 1..]);
        let complete = if complete == b"*" { None } else { Some(exact_position(complete)?) };
        if range == b"*" {
            return complete.map(|complete| ContentRange::Unsatisfied { complete });
        }
        let dash = memchr::memchr(b'-', range)?;
        let span = Span::new(exact_position(&range[..dash])?, exact_position(&range[dash + 1..])?)?;
        complete.is_none_or(|complete| span.end < complete).then_some(ContentRange::Span { span, complete })
    }
}

/// As [`position`], but a number beyond `u64` is an error: it says where stored bytes lie.
fn exact_position(digits: &[u8]) -> Option<u64> {
    position(digits).filter(|&number| number < u64::MAX)
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContentRange::Span { span, complete: Some(complete) } => {
                write!(f, "bytes {}-{}/{complete}", span.start, span.end)
            }
            ContentRange::Span { span, complete: None } => write!(f, "bytes {}-{}/*", span.start, span.end),
            ContentRange::Unsatisfied { complete } => write!(f, "bytes */{complete}"),
        }
    }
}

// --- multipart/byteranges ---

/// The frame of a multipart/byteranges body (§14.6): everything but the bytes of the representation.
///
/// ```text
/// --boundary CRLF Content-Type: … CRLF Content-Range: … CRLF CRLF   head 0, then the bytes of span 0
/// CRLF --boundary CRLF …                                            head 1, then the bytes of span 1
/// CRLF --boundary-- CRLF                                            end
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Multipart<'a> {
    /// 1 to 70 characters out of letters and digits, from chance, so that it does not occur in the body.
    pub boundary: &'a str,
    /// Content-Type of the representation, which goes into each part.
    pub content_type: Option<&'a [u8]>,
    /// Length of the whole representation.
    pub complete_len: u64,
    /// The spans, as in [`Requested::Several`].
    pub spans: &'a [Span],
}

impl Multipart<'_> {
    /// The Content-Type of the answer itself.
    pub fn media_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Appends what comes before the bytes of span `index`.
    pub fn write_part_head(&self, out: &mut Vec<u8>, index: usize) {
        if index > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"--");
        out.extend_from_slice(self.boundary.as_bytes());
        if let Some(content_type) = self.content_type {
            out.extend_from_slice(b"\r\nContent-Type: ");
            out.extend_from_slice(content_type);
        }
        if let Some(&span) = self.spans.get(index) {
            let range = ContentRange::Span { span, complete: Some(self.complete_len) };
            out.extend_from_slice(format!("\r\nContent-Range: {range}").as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// Appends what comes after the bytes of the last span.
    pub fn write_end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(self.boundary.as_bytes());
        out.extend_from_slice(b"--\r\n");
    }

    /// Exact length of the whole answer, for Content-Length.
    pub fn content_len(&self) -> u64 {
        let mut frame = Vec::with_capacity(128);
        let mut len = 0u64;
        for (index, span) in self.spans.iter().enumerate() {
            frame.clear();
            self.write_part_head(&mut frame, index);
            len = len.saturating_add(span.len()).saturating_add(frame.len() as u64);
        }
        frame.clear();
        self.write_end(&mut frame);
        len.saturating_add(frame.len() as u64)
    }
}

// --- What one stored 206 can answer ---

/// Where the bytes of one complete 206 message lie in the representation.
///
/// When the body is as long as Content-Range says, Content-Range is right and nothing else counts, whatever was asked.
///
/// When the body is **shorter** than Content-Range says although the message was complete by its own framing, the
/// origin contradicts itself (`bytes=-5` answered with `Content-Range: bytes 4-9/10` and five bytes). Two readings
/// remain, and each is used only for the kind of question that it is the origin's own answer to:
///
/// - *by position*: the first byte is where Content-Range says, and the end is overstated. That is how RFC 9111 §3.3
///   treats a body that ended early: a shorter prefix of the claimed span. It answers `first-last` and `first-`. A
///   range that reaches into the claimed but missing end is answered with the bytes there are, as the origin did:
///   §15.3.7 lets a 206 hold a subset of the range, and its Content-Range then says which.
/// - *by the question*: a request for the last n bytes that got exactly n bytes got the last n. It answers the same
///   suffix and shorter ones.
///
/// The readings can disagree about single bytes, so such a part answers alone: it is never combined with others,
/// completed, or counted as held ([`Part::held`] is `None`). A body **longer** than Content-Range says is no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What Content-Range claims.
    claimed: Span,
    /// Where the bytes lie by position.
    by_position: Span,
    /// Where the bytes lie by the question, when that says something else.
    by_question: Option<Span>,
    complete: Option<u64>,
}

/// A piece of a stored part's body, and the Content-Range that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where it starts in the *stored body*, in bytes.
    pub offset: u64,
    /// How many bytes: at least 1.
    pub len: u64,
    /// What the answer's Content-Range says. Never more bytes than `len`.
    pub content_range: ContentRange,
}

impl Part {
    /// - `asked`: the Range that the origin was sent, if any.
    /// - `content_range`: value of the answer's Content-Range.
    /// - `body_len`: bytes of its body, which must have been complete by its own framing (a connection cut before
    ///   Content-Length was reached is not a message, and not given here).
    /// - Returns `None` when the place of the bytes is not known; such a 206 is passed on and not stored.
    pub fn of(asked: Option<&[u8]>, content_range: &[u8], body_len: u64) -> Option<Part> {
        let ContentRange::Span { span: claimed, complete } = ContentRange::parse(content_range)? else {
            return None;
        };
        let by_position = Span::with_len(claimed.start, body_len).filter(|held| claimed.covers(*held))?;
        let mut by_question = None;
        if by_position != claimed
            && let (Some(RangeSpec::Suffix(asked)), Some(complete)) = (asked.and_then(single_spec), complete)
            && asked == body_len
        {
            by_question = RangeSpec::Suffix(asked).resolve(complete).filter(|tail| tail.len() == body_len);
        }
        Some(Part { claimed, by_position, by_question, complete })
    }

    /// The span that may be put with other parts of the representation: `None` when the part contradicts itself.
    pub fn held(&self) -> Option<Span> {
        (self.by_position == self.claimed).then_some(self.by_position)
    }

    /// Length of the whole representation, if the origin told it.
    pub fn complete_len(&self) -> Option<u64> {
        self.complete
    }

    /// What this part alone answers to a Range value; `None` when the origin must be asked: bytes are missing, there
    /// are several ranges, or it is malformed. If-Range is the caller's to check first, by [`if_range_matches`].
    pub fn answer(&self, range: &[u8]) -> Option<Slice> {
        let spec = single_spec(range)?;
        let (place, wanted) = match (spec, self.by_question) {
            (RangeSpec::Suffix(_), Some(tail)) => (tail, spec.resolve(self.complete?)?),
            (RangeSpec::Suffix(_), None) => (self.held()?, spec.resolve(self.complete?)?),
            (RangeSpec::From { first, last }, _) => {
                let wanted = match self.complete {
                    Some(complete) => spec.resolve(complete)?,
                    None => Span::new(first, last?)?,
                };
                let end = if wanted.end <= self.claimed.end {
                    wanted.end.min(self.by_position.end)
                } else {
                    wanted.end
                };
                (self.by_position, Span::new(first, end)?)
            }
        };
        place.covers(wanted).then(|| Slice {
            offset: wanted.start - place.start,
            len: wanted.len(),
            content_range: ContentRange::Span { span: wanted, complete: self.complete },
        })
    }
}

/// The spec of a Range value that has exactly one.
pub fn single_spec(range: &[u8]) -> Option<RangeSpec> {
    let mut specs = range_specs(range)?;
    let spec = specs.next()??;
    specs.next().is_none().then_some(spec)
}

// --- Several parts of one representation ---

/// Whether the parts in two responses to GET belong to one representation and may be put together: both have the same
/// strong validator, and the complete lengths do not contradict each other. RFC 9111 §3.4, RFC 9110 §15.3.7.3.
///
/// The validator is the ETag if either has one, else Last-Modified if it is strong in both. Without a strong validator
/// two parts are never combined, even if everything else is equal.
///
/// - `stored_complete`, `new_complete`: from each Content-Range, or the Content-Length of a 200.
pub fn may_combine(
    stored: &Fields,
    stored_complete: Option<u64>,
    new: &Fields,
    new_complete: Option<u64>,
) -> bool {
    let lengths_agree = match (stored_complete, new_complete) {
        (Some(stored), Some(new)) => stored == new,
        _ => true,
    };
    let validator = strong_validator(stored);
    lengths_agree && validator.is_some() && validator == strong_validator(new)
}

/// What to ask the origin for, to complete what is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Value of Range.
    pub range: String,
    /// Value of If-Range, so that a changed representation comes whole. `None` when the stored head has no strong
    /// validator: then only a 200 is of use, and a 206 cannot be combined; the caller drops it and asks again in full.
    pub if_range: Option<Vec<u8>>,
}

/// The request that fetches what is missing of a representation of which the first `held_bytes` are held.
///
/// - `complete_len`: its length in bytes; `None` when unknown.
/// - `stored`: head of the stored part, for its validator.
/// - Returns `None` when nothing is missing, or when everything is: then the plain request is right.
pub fn rest_after(held_bytes: u64, complete_len: Option<u64>, stored: &Fields) -> Option<Completion> {
    if held_bytes == 0 || complete_len.is_some_and(|len| held_bytes >= len) {
        return None;
    }
    let if_range = strong_validator(stored).map(<[u8]>::to_vec);
    Some(Completion { range: format!("bytes={held_bytes}-"), if_range })
}

#[cfg(test)]
mod tests;
