//! What keeps a site from being cached well, and what to do about it: proposals, each with the line of configuration that it
//! takes, and with what the log says would come of it.
//!
//! ```text
//! log ─► evidence, by class of URL and rule ─► candidates: a fault, and an edit of the configuration
//! log ─► replay of the configuration as it is, and of each candidate ─► proposals: those that are worth it, the best first
//! ```
//!
//! Nothing is proposed that the log has no evidence for and that replay does not find worth it ([`Worth`]): a site without
//! faults gets no proposal. What is proposed never lifts `private` or `no-store`, and never shares what has Authorization.
//!
//! Afterwards, [`verify`] looks at a new log and says whether it came as it was predicted.

mod edit;
mod evidence;
mod faults;
mod verify;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::log::{Format, Record};
use crate::replay::{Replay, Run, Settings};
pub use edit::Edit;
pub use evidence::Evidence;
pub use verify::{Verdict, Verifier};

/// Candidates that one pass evaluates: each holds a cache of its own.
const CANDIDATES_MAX: usize = 32;

/// How many times the gain of another proposal more memory has to bring: it has its price.
const MEMORY_WORTH: f64 = 4.0;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Static content without a lifetime.
    MissingTtl,
    /// Static content that is fetched again and again, and has not changed.
    ShortTtl,
    /// Parameters of the query that make no difference.
    QueryNoise,
    /// The same parameters in another order.
    QueryOrder,
    /// Set-Cookie on static content.
    SetCookie,
    /// Vary by a header that makes no difference.
    UselessVary,
    /// A header or cookie in the key that makes no difference.
    UselessKey,
    /// Nothing to validate with, so that what has not changed is sent again.
    NoValidators,
    /// Text that is sent without compression.
    Uncompressed,
    /// Names that hold a hash of the content, and browsers that may not keep it.
    ShortBrowserTtl,
    /// Errors that are asked for again and again.
    UncachedErrors,
    /// Visitors wait while what has gone stale is fetched anew.
    NoStaleWhileRevalidate,
    /// Visitors see the origin's failures although there is something stale.
    NoStaleIfError,
    /// A rule keeps cacheable content from the cache.
    CacheOff,
    /// Memory is too small for what is asked for.
    SmallMemory,
}

impl Fault {
    /// As the JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::MissingTtl => "missing-ttl",
            Fault::ShortTtl => "short-ttl",
            Fault::QueryNoise => "query-noise",
            Fault::QueryOrder => "query-order",
            Fault::SetCookie => "set-cookie",
            Fault::UselessVary => "useless-vary",
            Fault::UselessKey => "useless-key",
            Fault::NoValidators => "no-validators",
            Fault::Uncompressed => "uncompressed",
            Fault::ShortBrowserTtl => "short-browser-ttl",
            Fault::UncachedErrors => "uncached-errors",
            Fault::NoStaleWhileRevalidate => "no-stale-while-revalidate",
            Fault::NoStaleIfError => "no-stale-if-error",
            Fault::CacheOff => "cache-off",
            Fault::SmallMemory => "small-memory",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is measured of a fault, over the requests of its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of requests that are hits.
    HitRatio,
    /// Share of requests that end in an error of the origin.
    ErrorRatio,
    /// Requests to the origin per request.
    OriginRequestsPerRequest,
    /// Bytes from the origin per request.
    OriginBytesPerRequest,
    /// Bytes to visitors per request.
    BytesPerRequest,
    /// Share of requests by visitors who had asked for the same before.
    RepeatRatio,
}

/// A fault that has been found, and a way out.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What is wrong; several where one alone would not help.
    pub faults: Vec<Fault>,
    /// What the log has shown.
    pub evidence: String,
    /// The site's name.
    pub site: String,
    /// Classes of URLs that it is about; all of the site where empty.
    pub scope: Vec<String>,
    /// What changes in the configuration; `None` where the origin has to change.
    pub edit: Option<Edit>,
    /// What its owner has to do at the origin, where that is the way.
    pub at_origin: Option<String>,
    /// What is measured.
    pub metric: Metric,
    /// The prediction, where replay cannot tell: from the log itself, before and after.
    pub estimate: Option<(f64, f64)>,
    /// Classes whose answers are taken to have validators.
    pub validated: Vec<String>,
}

/// A candidate that is worth it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Its place in the list, from 1.
    pub number: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What the log has shown.
    pub evidence: String,
    /// The site's name.
    pub site: String,
    /// Classes of URLs that it is about; all of the site where empty.
    pub scope: Vec<String>,
    /// The lines of configuration, or what to do at the origin.
    pub change: String,
    /// How to apply it.
    pub apply: String,
    /// How to undo it.
    pub undo: String,
    /// What is measured.
    pub metric: Metric,
    /// Of the log, as the configuration is.
    pub before: f64,
    /// What is predicted.
    pub after: f64,
    /// Whether `after` is an estimate that no replay has made.
    pub is_estimate: bool,
    /// Hits more per request of the whole log, from 0 to 1.
    pub hits_gained: f64,
    /// Requests that the origin is spared, of all that it had.
    pub origin_spared: f64,
    /// The configuration with it; empty where the origin has to change.
    #[serde(skip)]
    pub draft: String,
}

/// How much a proposal has to bring to be one; any of these is enough.
#[derive(Clone, Copy, Debug)]
pub struct Worth {
    /// Hits more, as a share of all requests.
    pub hits: f64,
    /// Requests or bytes that the origin is spared, as a share of what it had.
    pub origin: f64,
    /// Bytes or repeated requests that visitors are spared, as a share of the site's.
    pub visitors: f64,
    /// Errors that visitors are spared, as a share of all requests.
    pub errors: f64,
}

impl Default for Worth {
    /// Half a point of hits, 2 % of the origin's load, 2 % of what visitors load, one error in a thousand requests: less is
    /// lost in the difference between two days.
    fn default() -> Self {
        Worth { hits: 0.005, origin: 0.02, visitors: 0.02, errors: 0.001 }
    }
}

/// The first pass: gathers evidence. Feed it the whole log, then ask for [`Survey::candidates`].
pub struct Survey {
    run: Run,
    evidence: Evidence,
    text: String,
}

impl Survey {
    /// For this configuration, of which `text` is the source.
    pub fn new(text: String, replay: Replay) -> Survey {
        Survey { run: Run::new(vec![replay]), evidence: Evidence::default(), text }
    }

    /// Takes the next request.
    pub fn take(&mut self, format: Format, record: &Record) {
        let decisions = self.run.take(format, record);
        let Some(Some(decision)) = decisions.into_iter().next() else { return };
        if let Some(replay) = self.run.replays().first() {
            self.evidence.take(record, &decision, replay);
            self.evidence.repeat(record, &decision);
        }
    }

    /// What was recorded.
    pub fn requests(&self) -> u64 {
        self.run.recorded().requests
    }

    /// What looks like a fault, most requests first.
    pub fn candidates(&self) -> Vec<Candidate> {
        let Some(replay) = self.run.replays().first() else { return Vec::new() };
        let mut candidates = faults::find(&self.evidence, replay, &self.text);
        candidates.truncate(CANDIDATES_MAX);
        candidates
    }
}

/// The second pass: replays the configuration and each candidate's draft.
pub struct Trial {
    run: Run,
    candidates: Vec<Tried>,
    scopes: Vec<Measured>,
    refused: Vec<Candidate>,
}

/// What is measured of a candidate; of one for hits, also what the origin is spared, where that is what it brings.
struct Measured {
    own: verify::Scope,
    load: verify::Scope,
}

struct Tried {
    candidate: Candidate,
    draft: String,
    /// Its place among the replays.
    at: usize,
}

impl Trial {
    /// `parse` makes a snapshot of a draft's text; a draft that it refuses is no proposal: see [`Trial::refused`].
    pub fn new(
        text: &str,
        candidates: Vec<Candidate>,
        settings: &Settings,
        parse: impl Fn(&str) -> Option<model::Snapshot>,
    ) -> Option<Trial> {
        let mut replays = vec![Replay::new(parse(text)?, settings.clone()).ok()?];
        let (mut tried, mut refused) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let draft = candidate.edit.as_ref().map(|edit| edit.apply(text));
            let settings = Settings { validated: candidate.validated.clone(), ..settings.clone() };
            let snapshot = parse(draft.as_deref().unwrap_or(text));
            let Some(replay) = snapshot.and_then(|snapshot| Replay::new(snapshot, settings).ok()) else {
                refused.push(candidate);
                continue;
            };
            tried.push(Tried { candidate, draft: draft.unwrap_or_default(), at: replays.len() });
            replays.push(replay);
        }
        let measure = |one: &Tried| Measured {
            own: verify::Scope::new(&one.candidate.scope, one.candidate.metric),
            load: verify::Scope::new(&one.candidate.scope, Metric::OriginRequestsPerRequest),
        };
        let scopes = tried.iter().map(measure).collect();
        Some(Trial { run: Run::new(replays), candidates: tried, scopes, refused })
    }

    /// What could not be tried, as the configuration with it is none: the change, and where.
    pub fn refused(&self) -> impl Iterator<Item = (String, String)> {
        let edits = self.refused.iter().filter_map(|candidate| candidate.edit.as_ref());
        edits.map(|edit| (edit.lines(), edit.apply_words()))
    }

    /// Takes the next request.
    pub fn take(&mut self, format: Format, record: &Record) {
        let decisions = self.run.take(format, record);
        for (tried, scope) in self.candidates.iter().zip(&mut self.scopes) {
            let pair = [decisions[0].as_ref(), decisions[tried.at].as_ref()];
            if let [Some(before), Some(after)] = pair
                && self.run.replays()[0].snapshot().sites[before.site].name.as_ref() == tried.candidate.site
            {
                scope.own.add(record, [before, after]);
                scope.load.add(record, [before, after]);
            }
        }
    }

    /// Those that are worth it, the best first.
    pub fn proposals(self, worth: &Worth) -> Vec<Proposal> {
        let all = self.run.predicted(0).clone();
        let mut proposals = Vec::new();
        for (tried, scope) in self.candidates.into_iter().zip(self.scopes) {
            let after = self.run.predicted(tried.at);
            let share = |part: u64, of: u64| crate::replay::ratio(part, of);
            let gained = (after.hits as f64 - all.hits as f64) / all.requests.max(1) as f64;
            let spared = 1.0 - share(after.origin_requests, all.origin_requests.max(1));
            let spared_bytes = 1.0 - share(after.origin_bytes, all.origin_bytes.max(1));
            let is_load = tried.candidate.metric == Metric::HitRatio && gained < worth.hits;
            let (metric, scope) = match is_load {
                true => (Metric::OriginRequestsPerRequest, scope.load),
                false => (tried.candidate.metric, scope.own),
            };
            let (before_value, after_value) = match tried.candidate.estimate {
                Some(estimate) => estimate,
                None => scope.values(),
            };
            let of_site = share(scope.requests(), all.requests);
            let is_worth = match metric {
                // Twice the memory is always good for something.
                _ if tried.candidate.faults == [Fault::SmallMemory] => gained >= worth.hits * MEMORY_WORTH,
                Metric::HitRatio => true,
                Metric::OriginRequestsPerRequest => spared >= worth.origin,
                Metric::OriginBytesPerRequest => spared_bytes >= worth.origin,
                Metric::ErrorRatio => (before_value - after_value) * of_site >= worth.errors,
                Metric::BytesPerRequest => {
                    let bytes = share(all.bytes, all.requests.max(1)).max(1.0);
                    (before_value - after_value) * of_site / bytes >= worth.visitors
                }
                Metric::RepeatRatio => (before_value - after_value) * of_site >= worth.visitors,
            };
            if !is_worth {
                continue;
            }
            let candidate = tried.candidate;
            let (apply, undo) = match &candidate.edit {
                Some(edit) => (edit.apply_words(), edit.undo_words()),
                None => {
                    ("at the origin; the configuration stays".to_owned(), "undo it at the origin".to_owned())
                }
            };
            proposals.push(Proposal {
                number: 0,
                faults: candidate.faults,
                evidence: candidate.evidence,
                site: candidate.site,
                scope: candidate.scope,
                change: candidate.edit.as_ref().map(Edit::lines).or(candidate.at_origin).unwrap_or_default(),
                apply,
                undo,
                metric,
                before: before_value,
                after: after_value,
                is_estimate: candidate.estimate.is_some(),
                hits_gained: gained,
                origin_spared: spared,
                draft: tried.draft,
            });
        }
        drop_needless(&mut proposals);
        proposals.sort_by(|one, other| rank(other).total_cmp(&rank(one)));
        for (index, proposal) in proposals.iter_mut().enumerate() {
            proposal.number = index + 1;
        }
        proposals
    }
}

/// What a proposal is ranked by: hits, and what the origin is spared, count as they are; an error counts as ten hits.
fn rank(proposal: &Proposal) -> f64 {
    let own = match proposal.metric {
        Metric::ErrorRatio => (proposal.before - proposal.after) * 10.0,
        Metric::BytesPerRequest => (proposal.before - proposal.after) / proposal.before.max(1.0) * 0.1,
        Metric::RepeatRatio => (proposal.before - proposal.after) * 0.1,
        Metric::HitRatio | Metric::OriginRequestsPerRequest | Metric::OriginBytesPerRequest => 0.0,
    };
    proposal.hits_gained + proposal.origin_spared * 0.2 + own
}

/// Two faults together are proposed only where that brings clearly more than each alone.
fn drop_needless(proposals: &mut Vec<Proposal>) {
    const CLEARLY: f64 = 0.002;
    let singles: Vec<(Vec<String>, Fault, f64)> = (proposals.iter())
        .filter(|one| one.faults.len() == 1)
        .map(|one| (one.scope.clone(), one.faults[0], rank(one)))
        .collect();
    proposals.retain(|one| {
        one.faults.len() == 1 || {
            let parts =
                singles.iter().filter(|(scope, fault, _)| *scope == one.scope && one.faults.contains(fault));
            rank(one) > parts.map(|(.., gained)| gained).sum::<f64>() + CLEARLY
        }
    });
}

#[cfg(test)]
mod tests;
