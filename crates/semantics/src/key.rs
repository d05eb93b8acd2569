//! The cache key: which requests ask for the same thing.
//!
//! A key is first a readable text, then its 128-bit hash. Every part is length-prefixed, so that no value can pretend
//! to be another part, and stands on its own line, so that `explain` can print it:
//!
//! ```text
//! site 4:shop
//! host 16:www.shop.example
//! path 6:/a%2Fb              RFC 3986 §6.2.2 equivalents written one way
//! query 3:w=1                no such line when there is no `?`
//! header 6:accept 9:text/html
//! header 6:x-lang absent     one line per header of the recipe
//! cookie 5:theme 4:dark
//! device mobile
//! ```
//!
//! The first four lines are the *URL key* ([`write_url_key`]); the recipe's lines come after it, and the variant
//! (`vary.rs`) after those. HEAD and GET share a key; the method is not in it. Nor is the scheme: a site is one site.
//!
//! **What is forwarded is what is keyed.** Whatever is merged here must not reach the origin in two spellings, or one
//! client could store its answer under another client's key. So a caller that may store the answer sends the origin
//! the host of [`normalise_host`], the path of [`normalise_path`] and the query of [`KeyRecipe::query_sent`]:
//! parameters that the recipe drops from the key do not reach the origin either. A request that is passed (never
//! stored) may go out as the client wrote it.
//!
//! Never merged, because origins tell them apart: `/a%2Fb` and `/a/b`; `//` and `/`; dot segments, plain or as `%2E`
//! (see [`has_dot_segment`]); letter case of the path; `?` with nothing behind it and no `?`; spellings in the query.

use crate::Fields;
use crate::fields::{is_one_of, write_decimal};
use siphasher::sip128::SipHasher13;
use std::borrow::Cow;

/// Which part of the query belongs to the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryPart {
    /// Every byte of it.
    #[default]
    All,
    /// Nothing: all queries ask for the same thing, and the origin sees none.
    None,
    /// Only parameters whose name is listed. A `*` at the end of a name stands for any ending.
    Keep(Vec<String>),
    /// Every parameter whose name is not listed. A `*` at the end of a name stands for any ending.
    Drop(Vec<String>),
}

/// The query's place in the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Which parameters count.
    pub part: QueryPart,
    /// Whether parameters are ordered by name, so that their order does not matter. Those of one name keep theirs.
    pub sort: bool,
}

/// What a rule puts into the key besides site, host and path. The default is the whole query and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRecipe {
    /// The query.
    pub query: Query,
    /// Names of request headers whose values belong to the key, lower-case.
    pub headers: Vec<String>,
    /// Names of cookies whose values belong to the key; case matters.
    pub cookies: Vec<String>,
    /// Whether the [`Device`] belongs to the key.
    pub device_class: bool,
}

/// The secret of the key hash: 16 bytes of chance, made once per store. Without it nobody can construct two URLs
/// with one key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeySeed(pub [u8; 16]);

/// What kind of screen asks, as far as the request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A telephone.
    Mobile,
    /// A tablet.
    Tablet,
    /// Anything else, and when nothing is known.
    Desktop,
}

// --- The key ---

/// SipHash-1-3 with 128 bits of `text` under `seed`: two texts with one hash do not happen. Allocates nothing.
pub fn hash(seed: &KeySeed, text: &[u8]) -> u128 {
    SipHasher13::new_with_key(&seed.0).hash(text).as_u128()
}

/// Appends the key text of a request to `out`. The caller clears and reuses `out`; with the default recipe nothing
/// else is allocated. Never fails: any bytes give some key, and different requests give different ones.
///
/// - `site`: the name of the site in the configuration.
/// - `host`: as the request named it, in any case, with or without port.
/// - `path`: from the first `/` to before the `?`; empty or `*` are taken as they are.
/// - `query`: what is behind the `?`; `None` when there is none.
/// - `fields`: of the request, after `vary::normalise_request`.
pub fn write_key(
    out: &mut Vec<u8>,
    recipe: &KeyRecipe,
    site: &str,
    host: &str,
    path: &[u8],
    query: Option<&[u8]>,
    fields: &Fields,
) {
    write_url_key(out, recipe, site, host, path, query);
    for name in &recipe.headers {
        out.extend_from_slice(b"header ");
        write_sized(out, |out| out.extend_from_slice(name.as_bytes()));
        out.push(b' ');
        write_value(out, fields.contains(name), |out| write_combined(out, name, fields));
    }
    for name in &recipe.cookies {
        out.extend_from_slice(b"cookie ");
        write_sized(out, |out| out.extend_from_slice(name.as_bytes()));
        out.push(b' ');
        let present = cookies(fields, name).next().is_some();
        write_value(out, present, |out| {
            for (index, value) in cookies(fields, name).enumerate() {
                out.extend_from_slice(if index == 0 { b"" } else { b"; " });
                out.extend_from_slice(value);
            }
        });
    }
    if recipe.device_class {
        out.extend_from_slice(b"device ");
        out.extend_from_slice(Device::of(fields).as_str().as_bytes());
        out.push(b'\n');
    }
}

/// Appends only the lines of site, host, path and query: what a purge by URL names, and how each key text begins.
pub fn write_url_key(
    out: &mut Vec<u8>,
    recipe: &KeyRecipe,
    site: &str,
    host: &str,
    path: &[u8],
    query: Option<&[u8]>,
) {
    out.extend_from_slice(b"site ");
    write_sized(out, |out| out.extend_from_slice(site.as_bytes()));
    out.extend_from_slice(b"\nhost ");
    write_sized(out, |out| {
        let start = out.len();
        out.extend_from_slice(without_default_port(host).as_bytes());
        out[start..].make_ascii_lowercase();
    });
    out.extend_from_slice(b"\npath ");
    write_sized(out, |out| write_normalised_path(out, path));
    out.push(b'\n');
    if let Some(query) = recipe.query_sent(query) {
        out.extend_from_slice(b"query ");
        write_sized(out, |out| out.extend_from_slice(&query));
        out.push(b'\n');
    }
}

// --- What the origin is sent ---

/// `host` in lower case and without `:80` or `:443`: what is keyed and what the origin gets as Host unless its
/// configuration overrides it. Other ports stay. Allocates only when something changes.
pub fn normalise_host(host: &str) -> Cow<'_, str> {
    let host = without_default_port(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    }
}

/// `path` with its percent-encodings written one way: unreserved characters decoded, hex digits in upper case
/// (RFC 3986 §6.2.2.1, §6.2.2.2).
///
/// `%2E` is left encoded although a dot is unreserved: decoding it could make a dot segment of what is none to the
/// origin. A path with a `%` that is not followed by two hex digits is left alone: nobody knows what its origin makes
/// of it. Allocates only when something changes.
pub fn normalise_path(path: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', path).is_none() {
        return path.into();
    }
    let mut normalised = Vec::with_capacity(path.len());
    write_normalised_path(&mut normalised, path);
    if normalised == path { path.into() } else { normalised.into() }
}

/// Whether a segment of `path` is `.` or `..`, also with the dots written as `%2E`, and also between `\` or encoded
/// slashes, which some origins take for `/`.
///
/// Browsers and curl remove such segments before they send. An origin may remove them too, and so serve `/account`
/// for `/static/%2e%2e/account`; a rule for `/static/*` must not store that. Callers pass such requests without
/// storing, or refuse them.
pub fn has_dot_segment(path: &[u8]) -> bool {
    let plain = memchr::memchr3(b'%', b'\\', b';', path).is_none();
    if plain && !path.starts_with(b".") && memchr::memmem::find(path, b"/.").is_none() {
        return false;
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match percent_encoded(rest) {
            Some(value @ (b'.' | b'/' | b'\\')) => (value, &rest[3..]),
            _ => (byte, after),
        };
        decoded.push(byte);
        rest = after;
    }
    decoded.split(|byte| matches!(byte, b'/' | b'\\' | b';')).any(|segment| matches!(segment, b"." | b".."))
}

impl KeyRecipe {
    /// The query that is keyed and that the origin gets; `None` means without `?`. Allocates only when the recipe
    /// selects or sorts.
    ///
    /// A parameter's name is everything before its first `=`, compared byte by byte and not decoded: another
    /// spelling of a name is another parameter, which is then kept out of both or let into both.
    pub fn query_sent<'a>(&self, query: Option<&'a [u8]>) -> Option<Cow<'a, [u8]>> {
        let query = query?;
        match self.query.part {
            QueryPart::None => return None,
            QueryPart::All if !self.query.sort => return Some(query.into()),
            _ => {}
        }
        let mut kept: Vec<&[u8]> = query
            .split(|&byte| byte == b'&')
            .filter(|parameter| !parameter.is_empty() && self.query.part.counts(parameter_name(parameter)))
            .collect();
        if self.query.sort {
            kept.sort_by_key(|parameter| parameter_name(parameter));
        }
        if kept.is_empty() { None } else { Some(kept.join(&b'&').into()) }
    }
}

impl QueryPart {
    fn counts(&self, name: &[u8]) -> bool {
        match self {
            QueryPart::All => true,
            QueryPart::None => false,
            QueryPart::Keep(names) => listed(names, name),
            QueryPart::Drop(names) => !listed(names, name),
        }
    }
}

impl Device {
    /// From `Sec-CH-UA-Mobile`, else from the words that browsers put into User-Agent.
    pub fn of(fields: &Fields) -> Device {
        let agent = fields.get("user-agent").unwrap_or_default();
        let says = |word: &str| memchr::memmem::find(agent, word.as_bytes()).is_some();
        let tablet = says("iPad") || says("Tablet") || says("Silk/") || (says("Android") && !says("Mobile"));
        match fields.get("sec-ch-ua-mobile") {
            _ if tablet => Device::Tablet,
            Some(b"?1") => Device::Mobile,
            Some(b"?0") => Device::Desktop,
            _ if says("Mobi") || says("iPhone") || says("iPod") => Device::Mobile,
            _ => Device::Desktop,
        }
    }

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Device::Mobile => "mobile",
            Device::Tablet => "tablet",
            Device::Desktop => "desktop",
        }
    }
}

impl std::fmt::Debug for KeySeed {
    /// Does not print the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySeed")
    }
}

// --- Pieces ---

/// Appends what `write` writes with its length and a colon before it: `5:hello`.
pub(crate) fn write_sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let end = out.len();
    write_decimal(out, (end - start) as u64);
    out.push(b':');
    out[start..].rotate_left(end - start);
}

/// Appends a sized value and the line's end, or `absent`: an absent header and an empty one are different requests.
pub(crate) fn write_value(out: &mut Vec<u8>, present: bool, write: impl FnOnce(&mut Vec<u8>)) {
    if present {
        write_sized(out, write);
        out.push(b'\n');
    } else {
        out.extend_from_slice(b"absent\n");
    }
}

/// Appends all lines of `name` as one list without the white space around its commas (RFC 9111 §4.1). Fields known
/// not to be lists are joined as they are. Empty members stay: nothing is known of an unknown field's syntax.
pub(crate) fn write_combined(out: &mut Vec<u8>, name: &str, fields: &Fields) {
    if !is_one_of(name.as_bytes(), SINGLE_VALUED) {
        return crate::list::write_joined(out, fields.get_all(name));
    }
    for (index, value) in fields.get_all(name).enumerate() {
        out.extend_from_slice(if index == 0 { b"" } else { b"; " });
        out.extend_from_slice(value);
    }
}

/// Request fields that are not lists and may hold commas: compared byte by byte.
const SINGLE_VALUED: &[&str] = &["authorization", "cookie", "host", "origin", "referer", "user-agent"];

/// The values of cookie `name`, in order, over all Cookie lines.
fn cookies<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.get_all("cookie").flat_map(|line| line.split(|&byte| byte == b';')).filter_map(move |pair| {
        let pair = crate::fields::trim(pair);
        let equals = memchr::memchr(b'=', pair)?;
        (&pair[..equals] == name.as_bytes()).then(|| &pair[equals + 1..])
    })
}

fn without_default_port(host: &str) -> &str {
    [":80", ":443", ":"].iter().find_map(|port| host.strip_suffix(port)).unwrap_or(host)
}

fn write_normalised_path(out: &mut Vec<u8>, path: &[u8]) {
    let start = out.len();
    let mut rest = path;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..percent]);
        rest = &rest[percent..];
        match percent_encoded(rest) {
            Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') => {
                out.push(byte)
            }
            Some(_) => out.extend(rest[..3].iter().map(u8::to_ascii_uppercase)),
            None => {
                out.truncate(start);
                return out.extend_from_slice(path);
            }
        }
        rest = &rest[3..];
    }
    out.extend_from_slice(rest);
}

/// The byte that `%XX` at the start of `text` stands for.
fn percent_encoded(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

fn parameter_name(parameter: &[u8]) -> &[u8] {
    &parameter[..memchr::memchr(b'=', parameter).unwrap_or(parameter.len())]
}

fn listed(names: &[String], name: &[u8]) -> bool {
    names.iter().any(|listed| match listed.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == listed.as_bytes(),
    })
}

#[cfg(test)]
mod tests;
