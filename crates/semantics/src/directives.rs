//! Cache directives: Cache-Control of responses and requests (RFC 9111 §5.2), Pragma of requests (§5.4), targeted fields
//! (RFC 9213), stale-while-revalidate and stale-if-error (RFC 5861), immutable (RFC 8246).
//!
//! Cache-Control is read leniently and its mistakes conservatively: unknown directives are passed over; of a repeated one
//! the first counts (RFC 9111 §4.2.1 allows that); a time that is not all digits counts as zero, so that it makes a
//! response stale rather than heuristically fresh; one too large counts as [`SECS_MAX`]. Targeted fields are structured
//! and read strictly: a malformed one counts as absent.
//!
//! `private` and `no-cache` with field names keep those fields out of the stored copy and let the rest be shared (see
//! [`Scope`]). Pragma in responses says nothing.

use crate::Fields;
use crate::fields::{is_one_of, is_tchar, trim};
use crate::list::{members, tokens};
use crate::structured::{Item, dictionary};

/// The largest number of seconds that is told apart, about 68 years (RFC 9111 §1.2.2): what overflows becomes this.
pub const SECS_MAX: u32 = 1 << 31;

/// What `private` or `no-cache` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The directive is not there.
    #[default]
    Absent,
    /// Only these fields, which the stored copy then lacks.
    Fields(Vec<Vec<u8>>),
    /// The whole response.
    Whole,
}

/// The directives of one response that speak to this cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Where they come from: the place in `Policy::targeted`, or `None` for Cache-Control.
    pub targeted: Option<u8>,
    /// Seconds of freshness in any cache; at most [`SECS_MAX`].
    pub max_age: Option<u32>,
    /// Seconds of freshness in a shared cache.
    pub s_maxage: Option<u32>,
    /// Seconds after freshness for which a stale answer may hide a revalidation.
    pub stale_while_revalidate: Option<u32>,
    /// Seconds after freshness for which a stale answer may hide an error.
    pub stale_if_error: Option<u32>,
    /// Use only after validation.
    pub no_cache: Scope,
    /// For one user alone.
    pub private: Scope,
    /// Not to be stored.
    pub no_store: bool,
    /// May be shared even where that is not the default.
    pub public: bool,
    /// `must-revalidate` or `proxy-revalidate`: never use stale.
    pub must_revalidate: bool,
    /// `must-revalidate` itself, which also lifts the bar of Authorization (RFC 9111 §3.5); `proxy-revalidate` does not.
    pub must_revalidate_everywhere: bool,
    /// Store only when the status is understood; `no-store` then does not count.
    pub must_understand: bool,
    /// Will not change while fresh (RFC 8246).
    pub immutable: bool,
}

impl ResponseDirectives {
    /// The directives that count: of the first field in `targeted` that is present, well-formed and not empty, else of
    /// Cache-Control (RFC 9213 §2.2).
    pub fn of(response: &Fields, targeted: &[String]) -> ResponseDirectives {
        for (place, name) in targeted.iter().enumerate().take(usize::from(u8::MAX)) {
            let Some(value) = response.combined(name) else { continue };
            if let Some(mut directives) = from_targeted(&value) {
                directives.targeted = Some(place as u8);
                return directives;
            }
        }
        let mut directives = ResponseDirectives::default();
        for line in response.get_all("cache-control") {
            for member in members(line) {
                let (name, argument) = directive(member);
                directives.add(name, argument);
            }
            if ends_in_quotes(line) {
                directives.add_restrictions(line);
            }
        }
        directives
    }

    /// For a line with a quote too many, which would hide what comes after it: every restriction that stands between
    /// commas counts, quoted or not.
    fn add_restrictions(&mut self, line: &[u8]) {
        const RESTRICTIONS: [&str; 5] =
            ["no-store", "private", "no-cache", "must-revalidate", "proxy-revalidate"];
        for member in tokens(line) {
            let (name, _) = directive(member);
            let name = name.strip_prefix(b"\"").unwrap_or(name);
            let name = name.strip_suffix(b"\"").unwrap_or(name);
            if is_one_of(name, &RESTRICTIONS) {
                self.add(name, Argument::None);
            }
        }
    }

    fn add(&mut self, name: &[u8], argument: Argument<'_>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let first = |place: &mut Option<u32>| {
            place.get_or_insert(argument.secs());
        };
        match name.len() {
            6 if is("public") => self.public = true,
            7 if is("max-age") => first(&mut self.max_age),
            7 if is("private") => self.private.add(argument),
            8 if is("s-maxage") => first(&mut self.s_maxage),
            8 if is("no-cache") => self.no_cache.add(argument),
            8 if is("no-store") => self.no_store = true,
            9 if is("immutable") => self.immutable = true,
            14 if is("stale-if-error") => first(&mut self.stale_if_error),
            15 if is("must-revalidate") => {
                self.must_revalidate = true;
                self.must_revalidate_everywhere = true;
            }
            15 if is("must-understand") => self.must_understand = true,
            16 if is("proxy-revalidate") => self.must_revalidate = true,
            22 if is("stale-while-revalidate") => first(&mut self.stale_while_revalidate),
            _ => {}
        }
    }
}

/// A targeted field. `None` when it is malformed, empty, or has a time that is no integer (RFC 9213 §2.1 says not to
/// consume such; falling back to Cache-Control is what the origin would get from a cache without targeted fields).
///
/// A restriction counts whatever its value is, except `?0`; a negative time is zero.
fn from_targeted(value: &[u8]) -> Option<ResponseDirectives> {
    let mut directives = ResponseDirectives::default();
    let members = dictionary(value).filter(|members| !members.is_empty())?;
    for (name, item) in members {
        let is_time =
            [&b"max-age"[..], b"s-maxage", b"stale-while-revalidate", b"stale-if-error"].contains(&name);
        match item {
            Item::Boolean(false) => {}
            Item::Integer(secs) if is_time => {
                let secs = u32::try_from(secs.max(0)).unwrap_or(SECS_MAX).min(SECS_MAX);
                directives.add(name, Argument::Secs(secs));
            }
            _ if is_time => return None,
            Item::Boolean(true) => directives.add(name, Argument::None),
            Item::String(text) => directives.add(name, Argument::Text(&text)),
            Item::Token(token) => directives.add(name, Argument::Text(token)),
            Item::Integer(_) | Item::Other => directives.add(name, Argument::Malformed),
        }
    }
    Some(directives)
}

impl Scope {
    /// Fields that must not be torn out of a response: without them the copy would be another thing, not a poorer one.
    const ESSENTIAL: [&str; 5] =
        ["vary", "content-encoding", "content-type", "content-range", "cache-control"];

    fn add(&mut self, argument: Argument<'_>) {
        let names: Vec<&[u8]> = match argument {
            Argument::Text(text) => tokens(text).collect(),
            _ => Vec::new(),
        };
        let usable =
            |name: &&[u8]| name.iter().all(|&byte| is_tchar(byte)) && !is_one_of(name, &Scope::ESSENTIAL);
        if names.is_empty() || !names.iter().all(usable) {
            *self = Scope::Whole;
        }
        match self {
            Scope::Whole => {}
            Scope::Absent => *self = Scope::Fields(names.into_iter().map(<[u8]>::to_vec).collect()),
            Scope::Fields(known) => known.extend(names.into_iter().map(<[u8]>::to_vec)),
        }
    }

    /// Whether `name` is one of the fields that the directive is about.
    pub fn names(&self, name: &[u8]) -> bool {
        matches!(self, Scope::Fields(names) if names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }
}

// --- Requests ---

/// What a request asks of caches (RFC 9111 §5.2.1). Whether it is heeded is the policy's to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Not older than this many seconds.
    pub max_age: Option<u32>,
    /// Stale for at most this many seconds; [`u32::MAX`] for any time.
    pub max_stale: Option<u32>,
    /// Fresh for at least this many seconds more.
    pub min_fresh: Option<u32>,
    /// Stale for at most this many seconds when the origin fails (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
    /// Only after validation. Pragma says the same when there is no Cache-Control.
    pub no_cache: bool,
    /// Neither request nor response is to be stored.
    pub no_store: bool,
    /// Only from the cache, else 504.
    pub only_if_cached: bool,
}

impl RequestDirectives {
    /// Reads Cache-Control, or Pragma when there is none. Allocates nothing; without either field, two bit tests.
    ///
    /// ```
    /// use semantics::{Fields, RequestDirectives};
    /// let request: Fields = [("Cache-Control", "max-stale, only-if-cached")].into_iter().collect();
    /// let directives = RequestDirectives::parse(&request);
    /// assert!(directives.only_if_cached);
    /// assert_eq!(directives.max_stale, Some(u32::MAX));
    /// ```
    pub fn parse(request: &Fields) -> RequestDirectives {
        let mut directives = RequestDirectives::default();
        if !request.contains("cache-control") {
            let mut pragmas = request.get_all("pragma").flat_map(members);
            directives.no_cache = pragmas.any(|member| member.eq_ignore_ascii_case(b"no-cache"));
            return directives;
        }
        for member in request.get_all("cache-control").flat_map(members) {
            let (name, argument) = directive(member);
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            let first = |place: &mut Option<u32>| {
                place.get_or_insert(argument.secs());
            };
            match name.len() {
                7 if is("max-age") => first(&mut directives.max_age),
                8 if is("no-cache") => directives.no_cache = true,
                8 if is("no-store") => directives.no_store = true,
                9 if is("max-stale") && argument == Argument::None => {
                    directives.max_stale.get_or_insert(u32::MAX);
                }
                9 if is("max-stale") => first(&mut directives.max_stale),
                // A time that cannot be read asks for as much as can be asked.
                9 if is("min-fresh") => {
                    directives.min_fresh.get_or_insert(argument.delta().unwrap_or(SECS_MAX));
                }
                14 if is("stale-if-error") => first(&mut directives.stale_if_error),
                14 if is("only-if-cached") => directives.only_if_cached = true,
                _ => {}
            }
        }
        directives
    }
}

// --- One directive ---

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument<'a> {
    None,
    /// A token or what stood in quotes.
    Text(&'a [u8]),
    /// An integer of a structured field.
    Secs(u32),
    /// Neither: white space around `=`, quotes that don't end, escapes.
    Malformed,
}

impl Argument<'_> {
    /// The argument as seconds; zero when it is none.
    fn secs(self) -> u32 {
        self.delta().unwrap_or(0)
    }

    fn delta(self) -> Option<u32> {
        match self {
            Argument::Secs(secs) => Some(secs),
            Argument::Text(digits) => delta_seconds(digits),
            Argument::None | Argument::Malformed => None,
        }
    }
}

/// `delta-seconds` (RFC 9111 §1.2.2): digits only, at least one; what overflows is [`SECS_MAX`].
pub(crate) fn delta_seconds(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |secs, digit| {
        let digit = u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        Some(secs.saturating_mul(10).saturating_add(digit).min(SECS_MAX))
    })
}

/// Whether a quoted string in the line never ends.
fn ends_in_quotes(line: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    quoted
}

/// A list member as name and argument: `max-age=60`, `private="a, b"`, `no-store`.
fn directive(member: &[u8]) -> (&[u8], Argument<'_>) {
    let Some(equals) = memchr::memchr(b'=', member) else { return (member, Argument::None) };
    let (name, argument) = (&member[..equals], &member[equals + 1..]);
    let spaced = trim(name).len() != name.len() || trim(argument).len() != argument.len();
    let argument = match argument {
        _ if spaced => Argument::Malformed,
        [b'"', text @ .., b'"'] if !text.iter().any(|byte| matches!(byte, b'"' | b'\\')) => {
            Argument::Text(text)
        }
        [b'"', ..] => Argument::Malformed,
        text => Argument::Text(text),
    };
    (trim(name), argument)
}

#[cfg(test)]
mod tests;
