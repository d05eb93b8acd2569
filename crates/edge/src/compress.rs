//! Encoded copies of what is stored: which of them answers a request, and when one is asked for. They are made elsewhere
//! ([`encoder`]), never while somebody waits: until a copy is there, its visitors get identity.
//!
//! A copy is an object of its own in the store, under a key that is made of nothing but site, **content** and form. It is
//! found through the object whose content it encodes, after that one's freshness, purges and preconditions have been looked
//! at, and it goes out under that one's head ([`semantics::coding::write_head`]). So there is nothing to be kept in step: a
//! purge, an invalidation, a new version or a 304 concerns the object alone, and a copy of other bytes cannot be found.
//! The same content under several keys, as the variants of an origin that sends `Vary: Accept-Encoding` needlessly, has its
//! copies once.
//!
//! ```text
//! key ─► Object { head, body, Copies { digest, asked, ready, hits } }
//!                               └─ digest ^ form ─► Object { encoded body }     in memory and on disk like any
//! ```

mod coders;
pub(crate) mod encoder;

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use model::compress::Compress;
use semantics::coding::{self, Accepted, Coding, Form};

use crate::compress::encoder::Asked;
use crate::loaded::RuleAt;
use crate::object::{Object, Stored};
use crate::request::Request;
use crate::tiering::{self, url_of};
use crate::worker::{Shared, Worker};

/// Hits of an object upon which it is encoded with more effort. That saves 5 to 15 % of what the quick copy has, at about
/// 3 ms of processor time for each KiB of the body: for a style sheet of 70 KiB, which costs 200 ms, 1.5 KiB a hit.
const HOT_HITS: u16 = 50;

/// Longest body that is encoded with more effort: 3 s of a processor that nobody else wants.
const THOROUGH_BYTES_MAX: u64 = 1024 * 1024;

// --- What an object knows of its copies ---

/// What is known of an object's copies: marks, without a lock. All are hints: a copy that is said to be there may have been
/// evicted.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Whether it is encoded at all, and by which configuration that was judged: see [`Copies::verdict`].
    verdict: AtomicU16,
    /// One bit per form: asked for, [`READY`] behind them, and [`HITS`] on top.
    state: AtomicU16,
    /// Of site and content, the low part first; zero until the first copy was asked for. In quarters, for there are millions of
    /// objects, and whole ones would leave gaps.
    digest: [AtomicU32; 4],
}

/// Where the bits of forms that are there begin, and where the hits.
const READY: u32 = 5;
const HITS: u32 = 10;

/// Verdicts are kept with so many bits of the configuration's number.
const VERSION_BITS: u32 = 15;

impl Copies {
    /// For the same content under another head: what is there is there; what is only asked for is asked for again.
    pub(crate) fn of_same_content(&self) -> Self {
        let state = self.state.load(Ordering::Acquire);
        let ready = state >> READY & 0x1f;
        Copies {
            verdict: AtomicU16::new(0),
            state: AtomicU16::new(state & !0x1f | ready),
            digest: self.digest.each_ref().map(|quarter| match ready {
                // It may be half written.
                0 => AtomicU32::new(0),
                _ => quarter.load(Ordering::Relaxed).into(),
            }),
        }
    }

    /// The verdict of configuration `version`, if that was asked before.
    fn verdict(&self, version: u16) -> Option<bool> {
        let verdict = self.verdict.load(Ordering::Relaxed);
        (verdict >> 1 == version).then_some(verdict & 1 == 1)
    }

    fn is_ready(&self, form: Form) -> bool {
        self.state.load(Ordering::Acquire) >> (READY + form as u32) & 1 == 1
    }

    /// Marks a form as asked for; whether it was not before.
    fn ask(&self, form: Form) -> bool {
        let bit = 1 << form as u16;
        self.state.load(Ordering::Relaxed) & bit == 0 && self.state.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// A form that was asked for will not come: whoever wants it asks again.
    fn forget(&self, form: Form) {
        self.state.fetch_and(!(1 << form as u16 | 1 << (READY + form as u32)), Ordering::AcqRel);
    }

    fn set_ready(&self, form: Form) {
        self.state.fetch_or(1 << (READY + form as u32), Ordering::AcqRel);
    }

    /// Counts a hit, up to [`HOT_HITS`]; whether it is hot. From then on nothing is written any more.
    fn hit(&self) -> bool {
        if self.state.load(Ordering::Relaxed) >> HITS >= HOT_HITS {
            return true;
        }
        self.state.fetch_add(1 << HITS, Ordering::Relaxed);
        false
    }

    /// Zero as long as it is not known.
    fn digest(&self) -> u128 {
        let quarters = self.digest.iter().rev();
        quarters.fold(0, |digest, quarter| digest << 32 | u128::from(quarter.load(Ordering::Relaxed)))
    }

    /// Before the first form is said to be ready.
    fn set_digest(&self, digest: u128) {
        for (place, quarter) in self.digest.iter().enumerate() {
            quarter.store((digest >> (32 * place)) as u32, Ordering::Relaxed);
        }
    }
}

/// The key of a copy. A digest is uniform over all its bits, and so is this.
fn copy_key(digest: u128, form: Form) -> u128 {
    digest ^ (form as u128 + 1)
}

// --- Choosing ---

/// How a request is answered whose response may be encoded.
pub(crate) struct Choice {
    pub(crate) accepted: Accepted,
    /// The copy to send; `None` for identity.
    pub(crate) copy: Option<(Form, Object)>,
}

impl Choice {
    /// The form that is sent; `None` for identity.
    pub(crate) fn form(&self) -> Option<Form> {
        self.copy.as_ref().map(|(form, _)| *form)
    }

    /// Whether a range must not be sent: what the visitor has may be the beginning of a copy, and a date, unlike an entity
    /// tag, does not tell that from identity.
    pub(crate) fn forbids_range(&self, request: &Request) -> bool {
        let is_date = |value: &[u8]| !value.contains(&b'"');
        request.fields.get("if-range").is_some_and(is_date)
            && Coding::ALL.iter().any(|coding| self.accepted.weight(*coding) > 0)
    }
}

/// Whether responses with this head are encoded under the rule. `length`: of the body, if it is known.
pub(crate) fn is_encoded(at: &RuleAt, status: u16, head: &[u8], length: Option<u64>) -> bool {
    let Some(compress) = at.rule().compress.as_ref().filter(|_| !matches!(status, 204 | 206 | 304)) else {
        return false;
    };
    let length = length.unwrap_or(*compress.sizes.start());
    coding::may_encode(head).is_some_and(|media_type| compress.covers(media_type, length))
}

/// What a stored response is answered with, and `None` where there is nothing to choose: it is sent as it lies. Asks for the
/// copy that would have been better. Costs one load and a comparison for what is not encoded.
pub(crate) fn choose(worker: &Worker, at: &RuleAt, request: &Request, stored: &Object) -> Option<Choice> {
    // Other edges that store it get identity, and encode it for their own visitors.
    let compress = at.rule().compress.as_ref();
    let compress = compress.filter(|_| request.asked.as_ref().is_none_or(|asked| asked.passes_on))?;
    if !is_stored_encoded(at, stored) {
        return None;
    }
    let mut choice = Choice { accepted: Accepted::of(&request.fields), copy: None };
    if request.fields.contains("range") || coding::forbids_transforming(&request.fields) {
        // Ranges are of identity: a copy may be replaced by a smaller one between two of them.
        return Some(choice);
    }
    let Some(wanted) = choice.accepted.best(compress.codings.iter().copied(), |coding| coding) else {
        return Some(choice);
    };
    let copies = &stored.copies;
    let ready = || Form::ALL.into_iter().filter(|form| copies.is_ready(*form) && is_allowed(compress, *form));
    while let Some(form) = choice.accepted.best(ready(), Form::coding) {
        match worker.shared.store.lookup(copy_key(copies.digest(), form)).and_then(Object::of) {
            Some(copy) => {
                choice.copy = Some((form, copy));
                break;
            }
            // Evicted, or on disk.
            None => copies.forget(form),
        }
    }
    let weight = |form: Form| choice.accepted.weight(form.coding());
    if choice.form().is_none_or(|form| weight(form) < choice.accepted.weight(wanted)) {
        ask(worker, at, request, stored, Form::quick(wanted));
    }
    if copies.hit() && stored.body_len().is_some_and(|len| len <= THOROUGH_BYTES_MAX) {
        let thorough = [Form::BrThorough, Form::ZstdThorough];
        let forms = thorough.into_iter().filter(|form| is_allowed(compress, *form));
        if let Some(form) = choice.accepted.best(forms, Form::coding)
            && weight(form) == choice.accepted.weight(wanted)
        {
            ask(worker, at, request, stored, form);
        }
    }
    Some(choice)
}

/// The copies of a stored response that are there, with their bytes and where they lie: for people. `None` where none are
/// made of it.
pub(crate) fn held(shared: &Shared, at: &RuleAt, stored: &Stored) -> Option<Vec<(Form, u64, &'static str)>> {
    let digest = stored.copies.digest();
    let find = |form: Form| {
        let key = copy_key(digest, form);
        if let Some(copy) = shared.store.peek(key).and_then(Object::of) {
            return Some((form, copy.body_len()?, "memory"));
        }
        let spot = shared.disks.find(key)?;
        let copy = tiering::peek(shared, key, &spot).and_then(Object::of)?;
        Some((form, copy.body_len()?, "disk"))
    };
    let forms = || Form::ALL.into_iter().filter(|_| digest != 0).filter_map(find).collect();
    is_stored_encoded(at, stored).then(forms)
}

/// [`is_encoded`], looked up.
fn is_stored_encoded(at: &RuleAt, stored: &Stored) -> bool {
    // Never 0, with which every object begins.
    let version = at.loaded.version % ((1 << VERSION_BITS) - 1) + 1;
    if let Some(verdict) = stored.copies.verdict(version) {
        return verdict;
    }
    // Only what is whole in memory can be encoded.
    let length = stored.body_len().filter(|_| stored.slices().is_none());
    let verdict = length.is_some() && is_encoded(at, stored.facts.status, stored.head(), length);
    stored.copies.verdict.store(version << 1 | u16::from(verdict), Ordering::Relaxed);
    verdict
}

fn is_allowed(compress: &Compress, form: Form) -> bool {
    compress.codings.contains(&form.coding())
}

fn ask(worker: &Worker, at: &RuleAt, request: &Request, stored: &Object, form: Form) {
    // What was just read from disk is not what the next request finds.
    if stored.is_as_read() || !stored.copies.ask(form) {
        return;
    }
    let asked =
        Asked { object: stored.downgrade(), form, site: at.site().name.clone(), url: url_of(request).into() };
    if !worker.shared.encoder.ask(asked) {
        stored.copies.forget(form);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_one_form_leave_the_others_alone() {
        let copies = Copies::default();
        for form in Form::ALL {
            assert!(!copies.is_ready(form));
            assert!(copies.ask(form) && !copies.ask(form));
            copies.set_ready(form);
        }
        copies.forget(Form::Br);
        let ready: Vec<Form> = Form::ALL.into_iter().filter(|form| copies.is_ready(*form)).collect();
        assert_eq!(ready, [Form::BrThorough, Form::ZstdThorough, Form::Zstd, Form::Gzip]);
        assert!(copies.ask(Form::Br));
        copies.set_digest(u128::MAX - 7);
        let same = copies.of_same_content();
        assert!(same.ask(Form::Br), "what was only asked for is asked for again");
        assert!(same.is_ready(Form::Gzip) && !same.ask(Form::Gzip));
        assert_eq!(same.digest(), u128::MAX - 7);
    }

    #[test]
    fn an_object_is_hot_after_so_many_hits_and_stays_so() {
        let copies = Copies::default();
        copies.set_ready(Form::Gzip);
        assert_eq!((0..200).filter(|_| copies.hit()).count(), 200 - usize::from(HOT_HITS));
        assert!(copies.is_ready(Form::Gzip) && !copies.is_ready(Form::Zstd));
    }

    #[test]
    fn a_verdict_is_that_of_its_configuration() {
        let copies = Copies::default();
        assert_eq!(copies.verdict(1), None);
        copies.verdict.store(1 << 1 | 1, Ordering::Relaxed);
        assert_eq!((copies.verdict(1), copies.verdict(2)), (Some(true), None));
    }
}
