//! Sums over requests, and what had to be taken for granted.

use std::collections::BTreeMap;

use semantics::Outcome;
use serde::Serialize;

/// Sums over requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Answered from the cache without waiting for the origin.
    pub hits: u64,
    /// Bytes of bodies that were sent.
    pub bytes: u64,
    /// Those of hits.
    pub hit_bytes: u64,
    /// Requests to origins.
    pub origin_requests: u64,
    /// Bytes of bodies that came from there.
    pub origin_bytes: u64,
    /// Requests by reason; of a log without any, under `unknown`.
    pub whys: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Adds a request.
    pub fn add(&mut self, why: &'static str, outcome: Option<Outcome>, bytes: u64, origin: (u64, u64)) {
        self.requests += 1;
        self.bytes += bytes;
        if outcome == Some(Outcome::Hit) {
            self.hits += 1;
            self.hit_bytes += bytes;
        }
        self.origin_requests += origin.0;
        self.origin_bytes += origin.1;
        *self.whys.entry(why).or_default() += 1;
    }

    /// For people and programs.
    pub fn totals(&self) -> Totals {
        Totals {
            requests: self.requests,
            hits: self.hits,
            hit_ratio: ratio(self.hits, self.requests),
            bytes: self.bytes,
            hit_bytes: self.hit_bytes,
            byte_hit_ratio: ratio(self.hit_bytes, self.bytes),
            origin_requests: self.origin_requests,
            origin_bytes: self.origin_bytes,
            whys: self.whys.clone(),
        }
    }
}

/// A part of a whole, from 0 to 1; 0 of nothing.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A [`Tally`] as it is printed.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "as in `Tally`")]
pub struct Totals {
    pub requests: u64,
    pub hits: u64,
    pub hit_ratio: f64,
    pub bytes: u64,
    pub hit_bytes: u64,
    pub byte_hit_ratio: f64,
    pub origin_requests: u64,
    pub origin_bytes: u64,
    pub whys: BTreeMap<&'static str, u64>,
}

/// How often something had to be taken for granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The log does not say whether it came over TLS.
    pub scheme_unknown: u64,
    /// Found stored by the log's first request for it: stored before the log began.
    pub stored_before: u64,
    /// A header or cookie of the key or of Vary whose value the log does not have: one value for all.
    pub selectors_unknown: u64,
    /// A rule was chosen by headers, of which the log has two.
    pub chosen_by_fields: u64,
    /// Keys of which only age and TTL are known.
    pub learnt_from_hits: u64,
    /// Keys whose fields come from a look at the origin.
    pub probed: u64,
    /// Keys whose fields are guessed.
    pub assumed: u64,
    /// Too large for memory.
    pub refused: u64,
}

impl Notes {
    /// The same as sentences, only those that apply.
    pub fn sentences(&self, assumed: &super::Assumed) -> Vec<String> {
        let lines = [
            (self.scheme_unknown, "requests: the log does not say whether they came over TLS, so all of them did".to_owned()),
            (self.stored_before, "requests were hits for what had been stored before the log began; they are hits here too".to_owned()),
            (self.selectors_unknown, "times a header or cookie chose between variants and the log does not have its value: one variant for all".to_owned()),
            (self.chosen_by_fields, "requests met a rule with conditions on headers or cookies; the log has only Referer and User-Agent".to_owned()),
            (self.learnt_from_hits, "objects were never fetched in this log: their lifetime is taken from age and ttl".to_owned()),
            (self.probed, "objects: their headers are those that a look at the origin has found for their class".to_owned()),
            (self.refused, "times something was too large for memory, or found no room there".to_owned()),
            (
                self.assumed,
                format!(
                    "objects: the log has no headers of theirs; what was kept lives {} s, static content where the log tells no outcome {} s, \
                     all else is not kept (--probe asks the origin instead)",
                    assumed.kept_secs, assumed.static_secs
                ),
            ),
        ];
        let lines = lines.into_iter().filter(|(count, _)| *count > 0);
        lines.map(|(count, text)| format!("{count} {text}")).collect()
    }
}
