//! Variants: which request headers choose between the stored responses of one key (RFC 9111 §4.1), and what their
//! values are when spelling does not count.
//!
//! The flow of a caller that caches:
//!
//! 1. [`normalise_request`] before anything else, so that **what is forwarded is what is keyed**: Accept-Encoding is
//!    reduced to the codings this cache knows, Accept-Language to one spelling, and what the site's rules name as told.
//! 2. On storing, [`VarySpec::of`] reads the response's Vary. [`Vary::Star`] is not stored (nothing could ever match).
//!    The spec is kept in the key's index entry ([`VarySpec::as_bytes`], a few bytes).
//! 3. [`VarySpec::write_variant`] appends the request's values to the key text; the hash of the whole is the variant's
//!    key. An absent header and an empty one differ; several lines of one name are one list; white space around commas
//!    does not count.
//! 4. When Vary names Accept-Language and the response has one Content-Language, the variant is also entered under
//!    [`VarySpec::write_language_variant`]; a request that finds nothing under its own variant key but has one most
//!    preferred language ([`preferred_language`]) looks there. So `fr;q=0.5, de` finds what `en, de` fetched, if that
//!    was German: a server that has the most preferred language sends it (RFC 9110 §12.5.4), while a less preferred one proves
//!    nothing, nor does `de` for `de-AT`.
//!
//! Spellings of Accept-Encoding in a browser are many, so without step 1 each would fetch and store its own copy.

use crate::Fields;
use crate::coding::{Accepted, Coding};
use crate::fields::is_tchar;
use crate::key::{write_combined, write_sized, write_value};
use crate::list::{members, tokens, weighted};
use std::borrow::Cow;

/// Most names that a Vary may hold; a response with more is treated as `Vary: *`. Real ones have up to six.
pub const NAMES_MAX: usize = 16;

/// Most bytes of all names of a Vary, with their commas; a response with more is treated as `Vary: *`.
pub const NAMES_BYTES_MAX: usize = 512;

/// Most members of an Accept-Language that are put in order; a longer one is compared as it is.
pub const LANGUAGES_MAX: usize = 32;

/// What a response's Vary says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// No Vary: one response for every request with the key.
    None,
    /// `*` somewhere, a name that is none, or more than the limits: never matches another request.
    Star,
    /// These headers choose.
    Spec(VarySpec),
}

/// The names of the selecting headers: lower-case, sorted, each once, 1 to [`NAMES_MAX`] of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VarySpec {
    /// The names joined by commas.
    names: Box<str>,
}

/// How a rule makes spellings of one request header equal, before it is forwarded and keyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalise {
    /// Letter case does not count.
    Lowercase,
    /// Order, repetition and white space of list members do not count. Splits at every comma: not for fields with
    /// quoted strings.
    SortedList,
    /// Only whether the header is there: its value becomes `1`.
    Presence,
    /// Only the first of these values that the client lists, highest weight first; without any of them, the header is
    /// removed. Case does not count. In Accept-Language a listed `de-AT` counts as `de` when only that is wanted.
    FirstOf(Vec<String>),
}

impl VarySpec {
    /// Reads all Vary lines of a response. RFC 9110 §12.5.5.
    pub fn of(response: &Fields) -> Vary {
        let mut names: Vec<String> = Vec::new();
        for name in response.get_all("vary").flat_map(tokens) {
            if name == b"*" || !name.iter().all(|&byte| is_tchar(byte)) || names.len() == NAMES_MAX {
                return Vary::Star;
            }
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if let Err(place) = names.binary_search(&name) {
                names.insert(place, name);
            }
        }
        let names = names.join(",");
        match names.len() {
            0 => Vary::None,
            1..=NAMES_BYTES_MAX => Vary::Spec(VarySpec { names: names.into() }),
            _ => Vary::Star,
        }
    }

    /// The form for storing; [`VarySpec::from_bytes`] reads it back. At most [`NAMES_BYTES_MAX`] bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.names.as_bytes()
    }

    /// Reads back what [`VarySpec::as_bytes`] gave. `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<VarySpec> {
        let names = std::str::from_utf8(bytes).ok()?;
        let spec = VarySpec { names: names.into() };
        let ordered = spec.names().zip(spec.names().skip(1)).all(|(name, next)| name < next);
        let sound = |name: &str| {
            !name.is_empty()
                && name != "*"
                && name.bytes().all(|byte| is_tchar(byte) && !byte.is_ascii_uppercase())
        };
        let fits = names.len() <= NAMES_BYTES_MAX && spec.names().count() <= NAMES_MAX;
        (fits && ordered && spec.names().all(sound)).then_some(spec)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.split(',')
    }

    /// Whether `name` (lower-case) is one of the selecting headers.
    pub fn names_header(&self, name: &str) -> bool {
        self.names().any(|candidate| candidate == name)
    }

    /// Appends the variant's lines to a key text: `vary accept-encoding 8:br, gzip`, one line per name. Two requests
    /// get the same lines exactly when one's response may answer the other. `rules` are the policy's.
    pub fn write_variant(&self, out: &mut Vec<u8>, request: &Fields, rules: &[(String, Normalise)]) {
        for name in self.names() {
            write_name(out, name);
            let start = out.len();
            let mut present = false;
            write_sized(out, |out| present = write_normalised(out, name, request, rules));
            if present {
                out.push(b'\n');
            } else {
                out.truncate(start);
                write_value(out, false, |_| {});
            }
        }
    }

    /// Whether two requests have the same [`VarySpec::write_variant`].
    pub fn is_same(&self, first: &Fields, second: &Fields, rules: &[(String, Normalise)]) -> bool {
        let lines = |request| {
            let mut lines = Vec::new();
            self.write_variant(&mut lines, request, rules);
            lines
        };
        lines(first) == lines(second)
    }

    /// As [`VarySpec::write_variant`], with the line of Accept-Language replaced by a response's language. Only for a
    /// spec that names Accept-Language; see step 4 of the module's text.
    ///
    /// - `language`: a language tag in any case, from Content-Language or [`preferred_language`].
    pub fn write_language_variant(
        &self,
        out: &mut Vec<u8>,
        request: &Fields,
        rules: &[(String, Normalise)],
        language: &[u8],
    ) {
        for name in self.names() {
            if name == "accept-language" {
                out.extend_from_slice(b"language ");
                write_value(out, true, |out| out.extend(language.iter().map(u8::to_ascii_lowercase)));
            } else {
                VarySpec { names: name.into() }.write_variant(out, request, rules);
            }
        }
    }
}

/// Whether `response`, which came for `first`, may answer `second` of the same key: their selecting headers are the same, or
/// the same but for Accept-Language, and it is in the language that `second` prefers (step 4 of the module's text).
/// RFC 9111 §4.1. `rules` are the policy's.
pub fn may_answer(response: &Fields, first: &Fields, second: &Fields, rules: &[(String, Normalise)]) -> bool {
    let spec = match VarySpec::of(response) {
        Vary::None => return true,
        Vary::Star => return false,
        Vary::Spec(spec) => spec,
    };
    if spec.is_same(first, second, rules) {
        return true;
    }
    let language = response.get("content-language").and_then(single_language);
    let Some(language) = language.filter(|_| spec.names_header("accept-language")) else { return false };
    let is_preferred = |preferred: Cow<'_, [u8]>| preferred.eq_ignore_ascii_case(language);
    let lines = |request| {
        let mut lines = Vec::new();
        spec.write_language_variant(&mut lines, request, rules, language);
        lines
    };
    preferred_language(second).is_some_and(is_preferred) && lines(first) == lines(second)
}

// --- What is forwarded ---

/// Rewrites the headers of a request that may be answered from the cache, so that the origin sees one spelling of
/// what is keyed as one. Idempotent. Leaves alone what is already normal, and all fields that nothing is known of.
///
/// Accept-Encoding becomes the canonical list (`identity` when nothing else is accepted, also for a client that sent
/// none: such a client must not get what another had compressed). Accept-Language is sorted by weight, then name.
/// Then come `rules`, which also override the treatment of Accept-Language.
pub fn normalise_request(request: &mut Fields, rules: &[(String, Normalise)]) {
    rewrite(request, "accept-encoding", rules);
    rewrite(request, "accept-language", rules);
    for (name, _) in rules {
        rewrite(request, name, rules);
    }
}

fn rewrite(request: &mut Fields, name: &str, rules: &[(String, Normalise)]) {
    let mut normal = Vec::new();
    if !write_normalised(&mut normal, name, request, rules) {
        request.remove(name);
    } else if request.get(name) != Some(&normal[..]) || request.get_all(name).count() > 1 {
        request.remove(name);
        request.append_unchecked(name.as_bytes(), &normal);
    }
}

/// Appends the normal form of one header; `false` when it counts as absent (then nothing was appended).
fn write_normalised(out: &mut Vec<u8>, name: &str, request: &Fields, rules: &[(String, Normalise)]) -> bool {
    if name == "accept-encoding" {
        out.extend_from_slice(Encodings::accepted_by(request).as_str().as_bytes());
        return true;
    }
    let rule = rules.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, rule)| rule);
    let start = out.len();
    match rule {
        None if name == "accept-language" => {
            return match Languages::of(request) {
                Languages::Ordered(languages) => {
                    write_languages(out, &languages);
                    !languages.is_empty()
                }
                Languages::TooMany => {
                    write_combined(out, name, request);
                    true
                }
            };
        }
        None => write_combined(out, name, request),
        Some(Normalise::Lowercase) => {
            write_combined(out, name, request);
            out[start..].make_ascii_lowercase();
        }
        Some(Normalise::SortedList) => {
            let mut sorted: Vec<&[u8]> = request.get_all(name).flat_map(tokens).collect();
            sorted.sort_unstable();
            sorted.dedup();
            out.extend_from_slice(&sorted.join(&b", "[..]));
        }
        Some(Normalise::Presence) => out.extend_from_slice(b"1"),
        Some(Normalise::FirstOf(allowed)) => {
            let Some(first) = first_of(allowed, name, request) else { return false };
            out.extend_from_slice(first.as_bytes());
        }
    }
    let present = request.contains(name);
    if !present {
        out.truncate(start);
    }
    present
}

/// The allowed value that the client lists first, counting higher weights before lower.
fn first_of<'a>(allowed: &'a [String], name: &str, request: &Fields) -> Option<&'a str> {
    let mut listed: Vec<(&[u8], u16)> =
        request.get_all(name).flat_map(members).filter_map(weighted).collect();
    listed.retain(|(_, weight)| *weight > 0);
    listed.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    let find = |value: &[u8]| allowed.iter().find(|allowed| allowed.as_bytes().eq_ignore_ascii_case(value));
    listed.iter().find_map(|(value, _)| {
        if let Some(found) = find(value) {
            return Some(found.as_str());
        }
        if !name.eq_ignore_ascii_case("accept-language") {
            return None;
        }
        // RFC 4647 §3.4: drop subtags from the end until something fits.
        let mut shorter = *value;
        while let Some(dash) = memchr::memrchr(b'-', shorter) {
            shorter = &shorter[..dash];
            if let Some(found) = find(shorter) {
                return Some(found.as_str());
            }
        }
        None
    })
}

// --- Accept-Encoding ---

/// The content codings that a client accepts, of those that this cache tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encodings {
    /// One bit each: zstd 1, br 2, gzip 4, and 8 for "identity is refused".
    bits: u8,
}

/// The canonical text of each combination of bits, in the order zstd, br, gzip.
const ENCODINGS: [&str; 16] = [
    "identity",
    "zstd",
    "br",
    "zstd, br",
    "gzip",
    "zstd, gzip",
    "br, gzip",
    "zstd, br, gzip",
    "identity;q=0",
    "zstd, identity;q=0",
    "br, identity;q=0",
    "zstd, br, identity;q=0",
    "gzip, identity;q=0",
    "zstd, gzip, identity;q=0",
    "br, gzip, identity;q=0",
    "zstd, br, gzip, identity;q=0",
];

impl Encodings {
    /// From all Accept-Encoding lines (RFC 9110 §12.5.3): weights above zero are equal, weight zero refuses, `*` stands
    /// for what is not listed, `x-gzip` is gzip, unknown codings vanish, a malformed weight makes its member vanish.
    /// No such header counts as identity only. Allocates nothing.
    pub fn accepted_by(request: &Fields) -> Encodings {
        let accepted = Accepted::of(request);
        let mut bits = u8::from(accepted.refuses_identity()) << 3;
        for (place, coding) in Coding::ALL.into_iter().enumerate() {
            bits |= u8::from(accepted.weight(coding) > 0) << place;
        }
        Encodings { bits }
    }

    /// The canonical field value, which is also what is forwarded: `zstd, br, gzip`; `identity` for none.
    pub const fn as_str(self) -> &'static str {
        ENCODINGS[self.bits as usize]
    }
}

// --- Accept-Language ---

/// The language that the request wants above all others, lower-case: the only member with the highest weight. `None`
/// when two share it, when it is `*`, when nothing is asked for, and when there are more than [`LANGUAGES_MAX`].
pub fn preferred_language(request: &Fields) -> Option<Cow<'_, [u8]>> {
    let Languages::Ordered(languages) = Languages::of(request) else { return None };
    let mut languages = languages.into_iter();
    let (best, weight) = languages.next()?;
    let alone = languages.next().is_none_or(|(_, next)| next < weight);
    (alone && weight > 0 && *best != b"*"[..]).then_some(best)
}

/// The language tag of a Content-Language that has exactly one (RFC 9110 §8.5): what a variant is entered under.
pub fn single_language(content_language: &[u8]) -> Option<&[u8]> {
    let mut languages = tokens(content_language);
    let language = languages.next()?;
    (languages.next().is_none() && is_language_range(language)).then_some(language)
}

enum Languages<'a> {
    /// Lower-case, by falling weight, then by name; each once, with its highest weight.
    Ordered(Vec<(Cow<'a, [u8]>, u16)>),
    TooMany,
}

impl Languages<'_> {
    fn of(request: &Fields) -> Languages<'_> {
        let mut languages: Vec<(Cow<'_, [u8]>, u16)> = Vec::new();
        for member in request.get_all("accept-language").flat_map(tokens) {
            let Some((language, weight)) = weighted(member) else { continue };
            if !is_language_range(language) {
                continue;
            }
            if languages.len() == LANGUAGES_MAX {
                return Languages::TooMany;
            }
            let lower = if language.iter().any(u8::is_ascii_uppercase) {
                language.to_ascii_lowercase().into()
            } else {
                language.into()
            };
            languages.push((lower, weight));
        }
        languages.sort_unstable_by(|(a, a_weight), (b, b_weight)| b_weight.cmp(a_weight).then(a.cmp(b)));
        for index in (1..languages.len()).rev() {
            if languages[..index].iter().any(|(earlier, _)| *earlier == languages[index].0) {
                languages.remove(index);
            }
        }
        Languages::Ordered(languages)
    }
}

fn write_languages(out: &mut Vec<u8>, languages: &[(Cow<'_, [u8]>, u16)]) {
    for (index, (language, weight)) in languages.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"" } else { b", " });
        out.extend_from_slice(language);
        if *weight < 1000 {
            let digits =
                [b'0' + (weight / 100) as u8, b'0' + (weight / 10 % 10) as u8, b'0' + (weight % 10) as u8];
            let shown = 3 - digits.iter().rev().take_while(|&&digit| digit == b'0').count();
            out.extend_from_slice(if shown == 0 { b";q=0" } else { b";q=0." });
            out.extend_from_slice(&digits[..shown]);
        }
    }
}

/// `language-range` of RFC 4647 §2.1, without its lengths.
fn is_language_range(text: &[u8]) -> bool {
    text == b"*"
        || (!text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-'))
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"vary ");
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
}

#[cfg(test)]
mod tests;
