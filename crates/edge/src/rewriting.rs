//! Pages and style sheets whose URLs a rule has rewritten: on their way in, before they are stored, so once for each fetch.
//! Everything behind `fetch` sees an origin that has always said so. The rewriter itself is the `website` crate's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use model::rewrite::Rewrite;
use semantics::Fields;
use semantics::coding::may_encode;
use semantics::fields::is_one_of;
use semantics::key::normalise_path;
use website::rewrite::{extended_policy, moved_links};
use website::{Kind, Page, Rewriter};

use crate::loaded::RuleAt;
use crate::object::Stored;
use crate::origin::{OriginResponse, Transform};
use crate::request::{Method, Request};
use crate::worker::{Shared, Worker};

/// What has become of pages and style sheets that were to be rewritten, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    whole: AtomicU64,
    failed_open: AtomicU64,
    left: AtomicU64,
}

impl Counts {
    /// Rewritten to their end; passed from some place on as they were; not begun, because they were encoded or forbade it.
    pub(crate) fn all(&self) -> [u64; 3] {
        [&self.whole, &self.failed_open, &self.left].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Changes the request to the origin where what comes may be rewritten: it has to come plain, and from its beginning.
pub(crate) fn ask_plain(at: &RuleAt, fields: &mut Fields) {
    if at.rule().rewrite.is_none() {
        return;
    }
    fields.remove("accept-encoding");
    fields.append_unchecked(b"Accept-Encoding", b"identity");
    // A part of the origin's bytes must not be put to what was rewritten: a date does not tell one from the other.
    if fields.get("if-range").is_some_and(|validator| !validator.contains(&b'"')) {
        fields.remove("if-range");
        fields.remove("range");
    }
}

/// The fields that ask for the whole of what these ask a part of, if that may be rewritten: see [`is_part`].
pub(crate) fn ask_whole(at: &RuleAt, fields: &Fields) -> Option<Fields> {
    if at.rule().rewrite.is_none() || !fields.contains("range") {
        return None;
    }
    let mut whole = fields.clone();
    whole.remove("range");
    whole.remove("if-range");
    Some(whole)
}

/// Whether this is a part of what is rewritten from its beginning only. Several parts do not say of what they are; what another
/// edge has sent, it has rewritten.
pub(crate) fn is_part(at: &RuleAt, response: &OriginResponse) -> bool {
    let is_several = |fields: &Fields| {
        fields.get("content-type").is_some_and(|kind| {
            kind.get(..20).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/byteranges"))
        })
    };
    response.status == 206
        && response.told.is_none()
        && at.rule().rewrite.is_some()
        && (concerns(at, &response.fields) || is_several(&response.fields))
}

/// Whether an answer with these fields is rewritten.
pub(crate) fn concerns(at: &RuleAt, fields: &Fields) -> bool {
    at.rule().rewrite.as_ref().is_some_and(|rewrite| kind_of(rewrite, fields).is_some())
}

/// As what it is rewritten; a style sheet gets no script, and nothing else where no files move.
fn kind_of(rewrite: &Rewrite, fields: &Fields) -> Option<Kind> {
    let kind = Kind::of_content_type(fields.get("content-type")?)?;
    (kind == Kind::Html || !rewrite.host.is_empty()).then_some(kind)
}

/// Has an answer rewritten as it comes, if the rule says so and it is a page or style sheet: its head now, its body while it is
/// read. `stale`: what the request was to confirm.
pub(crate) fn apply(
    worker: &Worker,
    at: &RuleAt,
    request: &Request,
    stale: Option<&Stored>,
    response: &mut OriginResponse,
) {
    let Some(rewrite) = &at.rule().rewrite else { return };
    // What another edge has sent, it has rewritten.
    if response.told.is_some() || !matches!(request.method, Method::Get | Method::Head) {
        return;
    }
    let page = Page {
        secure: request.secure,
        authority: request.authority.to_string(),
        // As it is keyed: what is stored is the same whoever has asked first.
        path: String::from_utf8_lossy(&normalise_path(request.path().as_bytes())).into_owned(),
    };
    match response.status {
        200 => {
            let Some(kind) = kind_of(rewrite, &response.fields) else { return };
            let shared = &worker.shared;
            if may_encode(response.fields.as_block()).is_none() {
                shared.rewrites.left.fetch_add(1, Ordering::Relaxed);
                return;
            }
            change_head(rewrite, &page, &mut response.fields);
            response.length = None;
            if request.method == Method::Get {
                let rewriter = Rewriter::new(rewrite, kind, &page);
                response.body.transform(Box::new(Rewriting { rewriter, shared: shared.clone() }));
            }
        }
        304 => match stale.map(|stale| stale.fields()) {
            Some(fields) if kind_of(rewrite, &fields).is_none() => {}
            // The visitor's own copy may have been rewritten.
            _ => change_head(rewrite, &page, &mut response.fields),
        },
        _ => {}
    }
}

/// What is said of other bytes goes, and what speaks of hosts speaks of the new one too.
fn change_head(rewrite: &Rewrite, page: &Page, fields: &mut Fields) {
    const OF_BYTES: [&str; 6] =
        ["content-length", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];
    const POLICIES: [&str; 2] = ["content-security-policy", "content-security-policy-report-only"];
    let has_tag = fields.contains("etag");
    let mut changed = Fields::new();
    for (name, value) in fields.iter() {
        // By a date alone, parts of the rewritten and of the origin's bytes could be taken for parts of one (RFC 9110 §8.8.2.2).
        let is_dropped =
            is_one_of(name, &OF_BYTES) || (!has_tag && name.eq_ignore_ascii_case(b"last-modified"));
        if is_dropped {
            continue;
        }
        let text = std::str::from_utf8(value).ok();
        let other = match text {
            Some(text) if is_one_of(name, &POLICIES) => extended_policy(rewrite, text),
            Some(text) if name.eq_ignore_ascii_case(b"link") => moved_links(rewrite, page, text),
            // Other bytes with the same meaning (RFC 9110 §8.8.1).
            Some(text) if name.eq_ignore_ascii_case(b"etag") && !text.starts_with("W/") => {
                Some(format!("W/{text}"))
            }
            // The origin is asked for one coding, whatever the visitor takes.
            Some(text) if name.eq_ignore_ascii_case(b"vary") => {
                let names = text.split(',').map(str::trim);
                let others: Vec<_> =
                    names.filter(|name| !name.eq_ignore_ascii_case("accept-encoding")).collect();
                if others.is_empty() {
                    continue;
                }
                Some(others.join(", "))
            }
            _ => None,
        };
        changed.append_unchecked(name, other.as_ref().map_or(value, |text| text.as_bytes()));
    }
    *fields = changed;
}

/// A body on its way through the rewriter.
struct Rewriting {
    rewriter: Rewriter,
    shared: Arc<Shared>,
}

impl Transform for Rewriting {
    fn push(&mut self, piece: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(piece.len() + piece.len() / 8);
        self.rewriter.push(piece, &mut out);
        out.into()
    }

    fn finish(self: Box<Self>) -> Bytes {
        let mut out = Vec::new();
        let report = self.rewriter.finish(&mut out);
        let counts = &self.shared.rewrites;
        let count = if report.failed_open { &counts.failed_open } else { &counts.whole };
        count.fetch_add(1, Ordering::Relaxed);
        out.into()
    }
}
