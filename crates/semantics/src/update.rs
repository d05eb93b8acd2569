//! What an answer without content says about a stored response: 304 to a validation (RFC 9111 §4.3.4) and 200 to HEAD
//! (§4.3.5). The merged head is judged anew by [`crate::decide_store`] and cleaned by
//! [`crate::storing::strip_unstorable`] like any other.

use crate::conditional::{Validators, is_same_weakly};
use crate::fields::is_one_of;
use crate::{Fields, hop};

/// Whether a 304 is about the stored response.
///
/// `false` when it names another representation by a strong entity tag: then nothing stored may be updated or used
/// (RFC 9111 §4.3.4) and the origin is to be asked again without conditions. Origins that do this are broken, and
/// believing them would give new headers to an old body.
pub fn confirms(stored: &Fields, not_modified: &Fields) -> bool {
    match (stored.get("etag"), not_modified.get("etag")) {
        (Some(old), Some(new)) => new.starts_with(b"W/") || is_same_weakly(old, new),
        (None, Some(new)) => new.starts_with(b"W/") || stored.contains("last-modified"),
        (_, None) => true,
    }
}

/// The stored head with everything that a 304 brings (RFC 9111 §3.2).
///
/// Each field of the 304 replaces all stored lines of its name and goes to the end, except
///
/// - Content-Length, Content-Encoding and Content-Range, which describe the stored bytes, and the stored bytes have not
///   changed;
/// - hop-by-hop fields, and those that its Connection lists.
///
/// Stored Age and Date go in any case: they told of another transfer. When the 304 has no Date the result has none, and
/// the caller adds the time of arrival as to every response (RFC 9110 §6.6.1).
///
/// Costs a new head.
pub fn merge_304(stored: &Fields, not_modified: &Fields) -> Fields {
    let mut news = not_modified.clone();
    hop::strip_hop_by_hop(&mut news);
    news.retain(|name, _| !is_one_of(name, &["content-length", "content-encoding", "content-range"]));
    let mut merged = stored.clone();
    merged.retain(|name, _| {
        !name.eq_ignore_ascii_case(b"age") && !name.eq_ignore_ascii_case(b"date") && !news.contains(name)
    });
    for (name, value) in news.iter() {
        merged.append_unchecked(name, value);
    }
    merged
}

/// What an answer to HEAD says about the stored answer to GET with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadUpdate {
    /// Nothing.
    Untouched,
    /// It is the same representation; this is its head now.
    Freshened(Fields),
    /// It is another representation, or gone: the stored one is stale from now on.
    Outdated,
}

/// Judges an answer to HEAD. RFC 9111 §4.3.5.
///
/// - `stored_bytes`: length of the stored content, when it is all there.
/// - 200 whose ETag, Last-Modified and Content-Length, those that it has, are those of the stored response: freshened.
///   With any other value: outdated.
/// - 404 and 410: outdated. Any other status, an error of the origin say, says nothing.
///
/// Only for stored responses with status 200.
pub fn update_from_head(
    stored: &Fields,
    stored_bytes: Option<u64>,
    status: u16,
    answer: &Fields,
) -> HeadUpdate {
    match status {
        200 => {}
        404 | 410 => return HeadUpdate::Outdated,
        _ => return HeadUpdate::Untouched,
    }
    let (old, new) = (Validators::of(stored), Validators::of(answer));
    let same_etag = new.etag.is_none_or(|tag| old.etag.is_some_and(|known| is_same_weakly(known, tag)));
    let same_date = new.last_modified.is_none_or(|modified| old.last_modified == Some(modified));
    let length = answer.get("content-length").map(|length| std::str::from_utf8(length).ok()?.parse().ok());
    let same_length = length.is_none_or(|length| stored_bytes.is_none() || length == stored_bytes);
    if same_etag && same_date && same_length {
        HeadUpdate::Freshened(merge_304(stored, answer))
    } else {
        HeadUpdate::Outdated
    }
}

#[cfg(test)]
mod tests;
