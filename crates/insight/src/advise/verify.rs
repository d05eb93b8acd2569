//! What a proposal is measured by: in the log that it was made from, and in a later one.

use std::collections::HashSet;

use semantics::Outcome;
use serde::Serialize;

use super::{Metric, Proposal};
use crate::class::pattern;
use crate::log::Record;
use crate::replay::Decision;

/// How far a measured share may be from what was predicted: one point.
const TOLERANCE: f64 = 0.01;

/// How far a measured amount may be from what was predicted, as a share of the change.
const TOLERANCE_OF_CHANGE: f64 = 0.2;

/// Visitors and URLs whose repetition is noticed.
const SEEN_MAX: usize = 1_000_000;

/// The sums of one proposal: requests of its classes, before and after.
pub(super) struct Scope {
    patterns: Vec<String>,
    metric: Metric,
    requests: u64,
    sums: [f64; 2],
    seen: HashSet<u64>,
}

impl Scope {
    pub(super) fn new(patterns: &[String], metric: Metric) -> Scope {
        Scope { patterns: patterns.to_vec(), metric, requests: 0, sums: [0.0; 2], seen: HashSet::new() }
    }

    fn covers(&self, record: &Record) -> bool {
        self.patterns.is_empty() || self.patterns.contains(&pattern(record.path()))
    }

    /// Adds a request with what two configurations make of it.
    pub(super) fn add(&mut self, record: &Record, decisions: [&Decision; 2]) {
        if !self.covers(record) {
            return;
        }
        self.requests += 1;
        for (sum, decision) in self.sums.iter_mut().zip(decisions) {
            *sum += match self.metric {
                Metric::HitRatio => f64::from(u8::from(decision.why.outcome() == Outcome::Hit)),
                Metric::ErrorRatio => f64::from(u8::from(is_of_the_origin(decision.why.as_str()))),
                Metric::OriginRequestsPerRequest => f64::from(decision.origin_requests),
                Metric::OriginBytesPerRequest => decision.origin_bytes as f64,
                Metric::BytesPerRequest | Metric::RepeatRatio => 0.0,
            };
        }
    }

    /// Adds a request as it was recorded.
    fn add_recorded(&mut self, record: &Record) {
        if !self.covers(record) {
            return;
        }
        self.requests += 1;
        self.sums[0] += match self.metric {
            Metric::HitRatio => f64::from(u8::from(record.outcome == Some(Outcome::Hit))),
            Metric::ErrorRatio => f64::from(u8::from(record.why.is_some_and(is_of_the_origin))),
            Metric::OriginRequestsPerRequest => crate::replay::recorded_load(record).0 as f64,
            Metric::OriginBytesPerRequest => crate::replay::recorded_load(record).1 as f64,
            Metric::BytesPerRequest => record.body_bytes as f64,
            Metric::RepeatRatio => {
                let visit = visit_of(record);
                let is_new = self.seen.len() >= SEEN_MAX || self.seen.insert(visit);
                f64::from(u8::from(!is_new))
            }
        };
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn values(&self) -> (f64, f64) {
        let of = |sum: f64| sum / self.requests.max(1) as f64;
        (of(self.sums[0]), of(self.sums[1]))
    }
}

fn is_of_the_origin(why: &str) -> bool {
    why.starts_with("origin-")
}

/// A number for a visitor's asking for a URL.
pub(super) fn visit_of(record: &Record) -> u64 {
    let agent = record.fields.get("user-agent").unwrap_or_default();
    let parts = [record.client.as_bytes(), agent, record.host.as_bytes(), record.target.as_bytes()];
    parts.iter().flat_map(|part| part.iter().chain(b"\n")).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What a later log says of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As was predicted, or better.
    Kept,
    /// Better than before, and less than was predicted.
    Partly,
    /// Not better than before.
    Failed,
    /// The log has no request that it is about.
    Unknown,
}

/// Looks at a later log.
pub struct Verifier {
    proposals: Vec<(Proposal, Scope)>,
}

impl Verifier {
    /// For proposals that have been applied.
    pub fn new(proposals: Vec<Proposal>) -> Verifier {
        let with_scope = |proposal: Proposal| {
            let scope = Scope::new(&proposal.scope, proposal.metric);
            (proposal, scope)
        };
        Verifier { proposals: proposals.into_iter().map(with_scope).collect() }
    }

    /// Takes the next request.
    pub fn take(&mut self, record: &Record) {
        self.proposals.iter_mut().for_each(|(_, scope)| scope.add_recorded(record));
    }

    /// Each proposal with what was measured.
    pub fn verdicts(self) -> Vec<(Proposal, f64, Verdict)> {
        let judge = |(proposal, scope): (Proposal, Scope)| {
            let measured = scope.values().0;
            let verdict = match scope.requests() {
                0 => Verdict::Unknown,
                _ => verdict(&proposal, measured),
            };
            (proposal, measured, verdict)
        };
        self.proposals.into_iter().map(judge).collect()
    }
}

fn verdict(proposal: &Proposal, measured: f64) -> Verdict {
    let change = proposal.after - proposal.before;
    let missing = (proposal.after - measured) * change.signum();
    let tolerance = match proposal.metric {
        Metric::HitRatio | Metric::OriginRequestsPerRequest | Metric::ErrorRatio | Metric::RepeatRatio
            if !proposal.is_estimate =>
        {
            TOLERANCE
        }
        _ => change.abs() * TOLERANCE_OF_CHANGE,
    };
    match missing {
        missing if missing <= tolerance => Verdict::Kept,
        missing if missing < change.abs() * 0.9 => Verdict::Partly,
        _ => Verdict::Failed,
    }
}
