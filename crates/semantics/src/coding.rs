//! Content codings that this cache makes by itself (RFC 9110 §8.4): which one a request wants, what an encoded copy's
//! head says, and how its entity tags relate to those of the response that it was made of.
//!
//! A stored response that may be encoded has one **identity** representation, the origin's, and copies of its content in
//! other codings. Each is a representation of its own (§8.8.3): it has its own entity tag, which is the origin's with a
//! suffix, and all of them, identity too, carry `Vary: Accept-Encoding`. A copy's tag tells coding and effort, because a copy
//! that was made with more effort has other bytes under the same coding:
//!
//! ```text
//! "abc"  ─►  "abc--zstd"  "abc--zstd2"  "abc--br"  "abc--br2"  "abc--gzip"        W/"abc"  ─►  W/"abc--br"
//! ```
//!
//! What the origin has encoded itself is left alone ([`may_encode`]); its variants are [`crate::vary`]'s affair.

use crate::conditional::{entity_tags, is_same_weakly};
use crate::fields::{is_one_of, lines_of};
use crate::list::{members, tokens, weighted};
use crate::{Fields, conditional};

/// A content coding that copies are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Zstandard (RFC 8878), with windows that RFC 9659 allows.
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them, in the order of [`Accepted`]'s weights.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    /// The name in Content-Encoding and Accept-Encoding.
    pub const fn as_str(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Br => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// The coding of this name, in any case; `x-gzip` is gzip (RFC 9110 §8.4.1.3).
    pub fn of(name: &[u8]) -> Option<Coding> {
        match name.len() {
            2 if name.eq_ignore_ascii_case(b"br") => Some(Coding::Br),
            4 if name.eq_ignore_ascii_case(b"gzip") => Some(Coding::Gzip),
            4 if name.eq_ignore_ascii_case(b"zstd") => Some(Coding::Zstd),
            6 if name.eq_ignore_ascii_case(b"x-gzip") => Some(Coding::Gzip),
            _ => None,
        }
    }
}

/// One encoded form of a response's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Form {
    /// Brotli, as small as it gets.
    BrThorough,
    /// Zstandard, as small as it gets.
    ZstdThorough,
    /// Brotli, made quickly.
    Br,
    /// Zstandard, made quickly.
    Zstd,
    /// gzip. More effort gains it nothing worth having.
    Gzip,
}

impl Form {
    /// All of them, usually the smallest first: what is sent of those that are there and equally welcome. The index of each
    /// is `form as usize`.
    pub const ALL: [Form; 5] = [Form::BrThorough, Form::ZstdThorough, Form::Br, Form::Zstd, Form::Gzip];

    /// The quick form in a coding.
    pub const fn quick(coding: Coding) -> Form {
        match coding {
            Coding::Zstd => Form::Zstd,
            Coding::Br => Form::Br,
            Coding::Gzip => Form::Gzip,
        }
    }

    /// Its coding.
    pub const fn coding(self) -> Coding {
        match self {
            Form::Zstd | Form::ZstdThorough => Coding::Zstd,
            Form::Br | Form::BrThorough => Coding::Br,
            Form::Gzip => Coding::Gzip,
        }
    }

    /// Whether it took more effort than the quick one in its coding.
    pub const fn is_thorough(self) -> bool {
        matches!(self, Form::BrThorough | Form::ZstdThorough)
    }

    /// What is put behind the opaque part of the origin's entity tag.
    const fn suffix(self) -> &'static str {
        match self {
            Form::BrThorough => "--br2",
            Form::ZstdThorough => "--zstd2",
            Form::Br => "--br",
            Form::Zstd => "--zstd",
            Form::Gzip => "--gzip",
        }
    }
}

// --- Accept-Encoding ---

/// What a request says about codings: a weight for each, in thousandths; zero is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    codings: [u16; 3],
    identity: Option<u16>,
}

impl Accepted {
    /// From all Accept-Encoding lines (RFC 9110 §12.5.3): `*` stands for what is not listed, unknown codings vanish, a
    /// malformed weight makes its member vanish, of repeated members the highest weight counts. Without the header nothing
    /// but identity is accepted: who doesn't say that he can decode may not be able to. One pass, no allocation.
    pub fn of(request: &Fields) -> Accepted {
        let mut codings: [Option<u16>; 3] = [None; 3];
        let (mut identity, mut any) = (None, None);
        for value in request.get_all("accept-encoding") {
            for (name, weight) in tokens(value).filter_map(weighted) {
                let place = match Coding::of(name) {
                    Some(coding) => &mut codings[coding as usize],
                    None if name == b"*" => &mut any,
                    None if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                    None => continue,
                };
                *place = (*place).max(Some(weight));
            }
        }
        let codings = codings.map(|weight: Option<u16>| weight.or(any).unwrap_or(0));
        Accepted { codings, identity: identity.or(any) }
    }

    /// The weight of a coding.
    pub const fn weight(&self, coding: Coding) -> u16 {
        self.codings[coding as usize]
    }

    /// Whether content without a coding is refused by name.
    pub const fn refuses_identity(&self) -> bool {
        matches!(self.identity, Some(0))
    }

    /// The coding to answer with, of `candidates`: the one with the highest weight, the earliest of equal ones. `None` for
    /// identity, which is sent where no candidate is accepted, and where it was given a higher weight by name. Identity that is
    /// refused is sent all the same where there is nothing else: that is more use than 406.
    pub fn best<T: Copy>(
        &self,
        candidates: impl IntoIterator<Item = T>,
        coding: impl Fn(T) -> Coding,
    ) -> Option<T> {
        let mut best: Option<(u16, T)> = None;
        for candidate in candidates {
            let weight = self.weight(coding(candidate));
            if weight > best.as_ref().map_or(0, |(best, _)| *best) {
                best = Some((weight, candidate));
            }
        }
        best.filter(|(weight, _)| *weight >= self.identity.unwrap_or(0)).map(|(_, candidate)| candidate)
    }
}

/// Whether a request forbids to transform the content (RFC 9111 §5.2.1.6).
pub fn forbids_transforming(request: &Fields) -> bool {
    request.get_all("cache-control").any(has_no_transform)
}

fn has_no_transform(value: &[u8]) -> bool {
    members(value).any(|member| member.eq_ignore_ascii_case(b"no-transform"))
}

// --- Responses ---

/// The Content-Type of a response whose content may be encoded, without parameters; `None` where it may not be: it has a
/// Content-Encoding, says `no-transform` (RFC 9111 §5.2.2.6; in any field for caches), or has no Content-Type.
///
/// `head`: a block of [`Fields::as_block`].
pub fn may_encode(head: &[u8]) -> Option<&[u8]> {
    let mut media_type = None;
    for (name, value) in lines_of(head) {
        if name.eq_ignore_ascii_case(b"content-encoding") {
            // `identity` should not be there, and means nothing (RFC 9110 §8.4.1).
            if !value.eq_ignore_ascii_case(b"identity") {
                return None;
            }
        } else if name.eq_ignore_ascii_case(b"content-type") {
            media_type.get_or_insert(value);
        } else if name.len() >= 13
            && name[name.len() - 13..].eq_ignore_ascii_case(b"cache-control")
            && has_no_transform(value)
        {
            return None;
        }
    }
    let value = media_type?.split(|&byte| byte == b';').next()?;
    Some(crate::fields::trim(value)).filter(|value| !value.is_empty())
}

/// Appends the head of one representation of a response that may be encoded. Allocates nothing but `out`.
///
/// - `head`: the identity's, a block of [`Fields::as_block`].
/// - `form`: the copy that is sent; `None` for identity, which only gets its Vary.
///
/// A copy loses what is said of the identity's bytes: Content-MD5 and Digest, Repr-Digest and Content-Digest (RFC 9530 §2, §3),
/// and Accept-Ranges, for ranges are of identity alone.
pub fn write_head(out: &mut Vec<u8>, head: &[u8], form: Option<Form>) {
    let mut varies = false;
    let mut rest = head;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, behind) = rest.split_at(end + 1);
        rest = behind;
        let name_len = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(name_len);
        match (name_len, form) {
            (4, _) if name.eq_ignore_ascii_case(b"vary") => {
                let value = value.strip_prefix(b":").and_then(|value| value.strip_suffix(b"\r\n"));
                varies |= tokens(value.unwrap_or_default())
                    .any(|name| name.eq_ignore_ascii_case(b"accept-encoding"));
            }
            (4, Some(form)) if name.eq_ignore_ascii_case(b"etag") => {
                let value = value.strip_prefix(b":").and_then(|value| value.strip_suffix(b"\r\n"));
                out.extend_from_slice(b"ETag: ");
                write_tag(out, crate::fields::trim(value.unwrap_or_default()), form);
                out.extend_from_slice(b"\r\n");
                continue;
            }
            (16, Some(_)) if name.eq_ignore_ascii_case(b"content-encoding") => continue,
            (6 | 11 | 13 | 14, Some(_)) if is_one_of(name, &ABOUT_IDENTITY) => continue,
            _ => {}
        }
        out.extend_from_slice(line);
    }
    if let Some(form) = form {
        out.extend_from_slice(b"Content-Encoding: ");
        out.extend_from_slice(form.coding().as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if !varies {
        out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
}

/// [`write_head`] as field lines.
pub fn fields_of(head: &[u8], form: Option<Form>) -> Fields {
    let mut block = Vec::with_capacity(head.len() + 64);
    write_head(&mut block, head, form);
    Fields::from_block(&block)
}

const ABOUT_IDENTITY: [&str; 5] = ["digest", "content-md5", "repr-digest", "accept-ranges", "content-digest"];

// --- Entity tags ---

/// Appends the entity tag of a copy of the response with the tag `etag`. Weak stays weak.
pub fn write_tag(out: &mut Vec<u8>, etag: &[u8], form: Form) {
    let (inside, quote) = match etag.strip_suffix(b"\"") {
        Some(inside) => (inside, &b"\""[..]),
        None => (etag, &b""[..]),
    };
    out.extend_from_slice(inside);
    out.extend_from_slice(form.suffix().as_bytes());
    out.extend_from_slice(quote);
}

/// The origin's tag that a copy's tag was made of, and the form; `None` for a tag without one of our suffixes.
fn origin_tag(tag: &[u8]) -> Option<(Vec<u8>, Form)> {
    let (inside, quote) = match tag.strip_suffix(b"\"") {
        Some(inside) => (inside, &b"\""[..]),
        None => (tag, &b""[..]),
    };
    Form::ALL.into_iter().find_map(|form| {
        let origin = inside.strip_suffix(form.suffix().as_bytes())?;
        Some(([origin, quote].concat(), form))
    })
}

/// Whether a request compares entity tags: else [`translate`] and [`restore_tags`] need not be called.
pub fn compares_tags(request: &Fields) -> bool {
    request.contains("if-none-match") || request.contains("if-match")
}

/// The request with the tags of copies that its preconditions list turned into the tag of the response that they were made
/// of, so that [`conditional::evaluate_preconditions`] can compare them.
///
/// Only those in a coding that the request accepts: a cache behind us lists what it has for others too, and the 304 tells it
/// which of them to send (RFC 9111 §4.3.4).
///
/// - `etag`: of the stored response.
/// - `selected`: the form that would be sent now.
///
/// The form is that of the listed representation which a 304 confirms: the selected one if it is listed, else the first;
/// `None` when that is identity.
pub fn translate(
    request: &Fields,
    etag: &[u8],
    accepted: &Accepted,
    selected: Option<Form>,
) -> (Fields, Option<Form>) {
    let mut listed: Vec<Option<Form>> = Vec::new();
    let mut translated = Fields::new();
    for (name, value) in request.iter() {
        let is_none_match = name.eq_ignore_ascii_case(b"if-none-match");
        if !is_none_match && !name.eq_ignore_ascii_case(b"if-match") {
            translated.append_unchecked(name, value);
            continue;
        }
        let tags: Vec<Vec<u8>> = entity_tags(value)
            .map(|tag| {
                let copy = origin_tag(tag).filter(|(origin, form)| {
                    is_same_weakly(origin, etag) && accepted.weight(form.coding()) > 0
                });
                match copy {
                    Some((origin, form)) => {
                        listed.push(Some(form));
                        origin
                    }
                    None => {
                        if tag == b"*" {
                            listed.push(selected);
                        } else if conditional::is_same_weakly(tag, etag) {
                            listed.push(None);
                        }
                        tag.to_vec()
                    }
                }
            })
            .collect();
        translated.append_unchecked(name, &tags.join(&b", "[..]));
    }
    let form = if listed.contains(&selected) { selected } else { listed.first().copied().flatten() };
    (translated, form)
}

/// Turns the tags of copies in If-Match and If-None-Match into the origin's own, for a request that goes to it: to change
/// what a copy was made of, say.
pub fn restore_tags(request: &mut Fields) {
    for name in ["if-match", "if-none-match"] {
        let lines: Vec<Vec<u8>> = request
            .get_all(name)
            .map(|value| {
                let own = |tag: &[u8]| origin_tag(tag).map_or_else(|| tag.to_vec(), |(origin, _)| origin);
                entity_tags(value).map(own).collect::<Vec<_>>().join(&b", "[..])
            })
            .collect();
        request.remove(name);
        lines.iter().for_each(|value| request.append_unchecked(name.as_bytes(), value));
    }
}

#[cfg(test)]
mod tests;
