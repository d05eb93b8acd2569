//! Early Hints (RFC 8297): what a page has asked browsers to load beside it (`Link: …; rel=preload`) is told to the next
//! visitor while the page itself is still being made. Only to those who speak HTTP/2 or later: there are programs that take an
//! interim response of HTTP/1.1 for the final one.
//!
//! Learnt from each answer of the origin to a visitor of whom it knew nothing (no cookie, no credentials), so that a page that
//! changes is behind by one such visitor at most; never from an answer that is for its visitor alone. A purge of the page ends
//! its hint, whether the page is stored or not: what it names may be gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use semantics::Fields;
use semantics::directives::{ResponseDirectives, Scope};
use semantics::key::hash;
use store::{Tier, TierConfig, Weigh};

use crate::answer::{Answer, Head};
use crate::fetch::tags_of;
use crate::loaded::RuleAt;
use crate::lookup::{self, Purged};
use crate::request::{Method, Protocol, Request};
use crate::worker::Worker;

/// What all hints may take: some ten thousand pages. Others are forgotten first that are asked for less.
const BYTES_MAX: usize = 4 << 20;

/// Of one page: lines of Link, and their bytes. More is not worth a packet before the page.
const LINES_MAX: usize = 16;
const LINE_BYTES_MAX: usize = 2048;

/// The hints of an edge, by page.
pub(crate) struct Hints(Tier<Arc<Hint>>);

struct Hint {
    /// The newest purge when they were learnt.
    position: u64,
    /// Hashes of the page's surrogate keys.
    tags: Vec<u64>,
    links: Fields,
}

impl Weigh for Hint {
    fn bytes(&self) -> usize {
        self.links.as_block().len() + size_of_val(self.tags.as_slice())
    }
}

impl Hints {
    pub(crate) fn new() -> Self {
        Hints(Tier::new(TierConfig { bytes_max: BYTES_MAX, ..TierConfig::default() }))
    }
}

/// What can be told to a visitor who is about to wait.
pub(crate) fn for_visitor(worker: &Worker, at: &RuleAt, request: &Request) -> Option<Fields> {
    let is_page = request.method == Method::Get
        && request.fields.get("sec-fetch-mode").is_none_or(|mode| mode == b"navigate");
    if !at.rule().early_hints || request.protocol < Protocol::Http2 || !is_page || request.asked.is_some() {
        return None;
    }
    let hint = worker.shared.hints.0.lookup(key(worker, at, request))?;
    let purged = lookup::purged(&worker.shared, at, request, &hint.tags, hint.position);
    matches!(purged, Purged::No { .. }).then(|| hint.links.clone())
}

/// Learns from an answer that the origin had a part in.
pub(crate) fn learn(worker: &Worker, at: &RuleAt, request: &Request, answer: &Answer) {
    if !at.rule().early_hints
        || request.method != Method::Get
        || answer.status != 200
        || answer.origin.is_none()
    {
        return;
    }
    if request.fields.contains("cookie") || request.fields.contains("authorization") {
        // Whatever the answer says of itself, it may have been made for this visitor.
        return;
    }
    let is_html = |kind: &[u8]| kind.len() >= 9 && kind[..9].eq_ignore_ascii_case(b"text/html");
    if !answer.head.field("content-type").is_some_and(is_html) {
        return;
    }
    let fields = match &answer.head {
        Head::Stored(stored) | Head::Negotiated(stored, _) => &stored.fields(),
        Head::Own(fields) => fields,
    };
    let links = links_of(fields);
    let hints = &worker.shared.hints.0;
    let key = key(worker, at, request);
    let tags = tags_of(worker, at, fields);
    let Some(tags) = tags.filter(|_| !links.is_empty() && is_for_all(fields)) else {
        hints.remove(key);
        return;
    };
    // A purge that comes between the answer and this is a purge more than it knows of, at worst.
    let position = worker.shared.purge_position.load(Ordering::Acquire);
    let _one_that_does_not_fit_is_forgotten = hints.insert(key, Arc::new(Hint { position, tags, links }));
}

fn key(worker: &Worker, at: &RuleAt, request: &Request) -> u128 {
    let mut text = worker.key_text.take();
    text.clear();
    lookup::write_request_key(&mut text, at, request);
    let key = hash(&worker.shared.seed, &text);
    worker.key_text.replace(text);
    key
}

/// The lines of Link that name what to load or whom to connect to.
fn links_of(fields: &Fields) -> Fields {
    let is_hint = |value: &[u8]| {
        let value = value.to_ascii_lowercase();
        [&b"preload"[..], b"preconnect"].iter().any(|rel| memchr::memmem::find(&value, rel).is_some())
    };
    let mut links = Fields::new();
    fields
        .iter()
        .filter(|(name, value)| {
            name.eq_ignore_ascii_case(b"link") && value.len() <= LINE_BYTES_MAX && is_hint(value)
        })
        .take(LINES_MAX)
        .for_each(|(_, value)| links.append_unchecked(b"Link", value));
    links
}

/// Whether the answer is not for its visitor alone.
fn is_for_all(fields: &Fields) -> bool {
    let directives = ResponseDirectives::of(fields, &[]);
    !directives.no_store && directives.private == Scope::default() && !fields.contains("set-cookie")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_to_be_loaded_or_connected_to_is_a_hint() {
        let fields: Fields = [
            ("Link", "</a.css>; rel=preload; as=style"),
            ("Link", "</page/2>; rel=\"next\""),
            ("link", "<https://cdn.shop.example>; REL=PRECONNECT"),
            ("Link", "</m.js>; rel=modulepreload"),
            ("X-Link", "</b.css>; rel=preload"),
        ]
        .into_iter()
        .collect();
        let links = links_of(&fields);
        let values: Vec<_> = links.iter().map(|(_, value)| String::from_utf8_lossy(value)).collect();
        assert_eq!(
            values,
            [
                "</a.css>; rel=preload; as=style",
                "<https://cdn.shop.example>; REL=PRECONNECT",
                "</m.js>; rel=modulepreload"
            ]
        );
    }

    #[test]
    fn nothing_is_learnt_from_what_is_for_one_visitor_alone() {
        let is_for_all = |name: &str, value: &str| is_for_all(&[(name, value)].into_iter().collect());
        assert!(is_for_all("Cache-Control", "no-cache"));
        assert!(!is_for_all("Cache-Control", "private"));
        assert!(!is_for_all("Cache-Control", "no-store"));
        assert!(!is_for_all("Set-Cookie", "session=1"));
    }
}
