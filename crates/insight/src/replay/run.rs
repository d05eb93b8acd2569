//! One pass over a log under one configuration or several: what was recorded, what each predicts, and where they differ.

use std::collections::{BTreeMap, HashMap};

use semantics::{Outcome, Why};
use serde::Serialize;

use super::{CLAIM_PATIENCE_MS, Decision, Notes, Replay, Tally, Totals};
use crate::class::pattern;
use crate::log::{Format, Record, said_length};

/// Classes of URLs that are told apart; the rest is one.
const CLASSES_MAX: usize = 300;

/// What the rest is called.
const OTHERS: &str = "(others)";

/// Several configurations over the same requests.
pub struct Run {
    replays: Vec<Replay>,
    formats: BTreeMap<&'static str, u64>,
    foreign: u64,
    first_ms: Option<i64>,
    last_ms: i64,
    recorded: Tally,
    predicted: Vec<Tally>,
    classes: HashMap<String, Class>,
}

#[derive(Default)]
struct Class {
    recorded: Tally,
    predicted: Vec<Tally>,
    changes: BTreeMap<String, (u64, String)>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Requests by the format of their log.
    pub formats: BTreeMap<&'static str, u64>,
    /// Requests of hosts that are not in the configuration, or of other sites than the one that was asked for.
    pub foreign: u64,
    /// From the first to the last request, in seconds.
    pub span_secs: f64,
    /// What the log says happened.
    pub recorded: Totals,
    /// What each configuration predicts.
    pub predicted: Vec<Totals>,
    /// The same by class of URL, the busiest first.
    pub classes: Vec<ClassRow>,
    /// What was taken for granted, by configuration.
    pub assumptions: Vec<Vec<String>>,
}

/// One class of URLs.
#[derive(Clone, Debug, Serialize)]
pub struct ClassRow {
    /// As a pattern of the configuration.
    pub pattern: String,
    /// What the log says.
    pub recorded: Totals,
    /// What each configuration predicts.
    pub predicted: Vec<Totals>,
    /// Answers that would change.
    pub changes: Vec<Difference>,
}

/// A kind of change, how often, and one URL that meets it.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// From what to what.
    pub change: String,
    /// Requests.
    pub requests: u64,
    /// One of them.
    pub example: String,
}

impl Run {
    /// The first is the draft; the second, if there is one, what it is compared with instead of the record.
    pub fn new(replays: Vec<Replay>) -> Run {
        let predicted = vec![Tally::default(); replays.len()];
        Run {
            replays,
            formats: BTreeMap::new(),
            foreign: 0,
            first_ms: None,
            last_ms: 0,
            recorded: Tally::default(),
            predicted,
            classes: HashMap::new(),
        }
    }

    /// Takes the next request. What each configuration decides; `None` for one that does not have its host.
    pub fn take(&mut self, format: Format, record: &Record) -> Vec<Option<Decision>> {
        *self.formats.entry(format.as_str()).or_default() += 1;
        let decisions: Vec<_> = self.replays.iter_mut().map(|replay| replay.take(record)).collect();
        if decisions.iter().all(Option::is_none) {
            self.foreign += 1;
            return decisions;
        }
        self.first_ms.get_or_insert(record.time.0);
        self.last_ms = record.time.0.max(self.last_ms);
        let pattern = pattern(record.path());
        let full = self.classes.len() >= CLASSES_MAX && !self.classes.contains_key(&pattern);
        let class = self.classes.entry(if full { OTHERS.to_owned() } else { pattern }).or_default();
        class.predicted.resize_with(self.replays.len(), Tally::default);
        let origin = recorded_load(record);
        for tally in [&mut self.recorded, &mut class.recorded] {
            tally.add(record.why.unwrap_or("unknown"), record.outcome, record.body_bytes, origin);
        }
        for (index, decision) in decisions.iter().enumerate() {
            let Some(decision) = decision else { continue };
            let load = (u64::from(decision.origin_requests), decision.origin_bytes);
            for tally in [&mut self.predicted[index], &mut class.predicted[index]] {
                tally.add(decision.why.as_str(), Some(decision.why.outcome()), record.body_bytes, load);
            }
        }
        if let Some(change) = change(record, &decisions) {
            let entry = class.changes.entry(change).or_default();
            entry.0 += 1;
            if entry.1.is_empty() {
                entry.1 = format!("{}{}", record.host, record.target);
            }
        }
        decisions
    }

    /// The configurations, with what they had to take for granted.
    pub fn replays(&self) -> &[Replay] {
        &self.replays
    }

    /// What the `index`th configuration predicts so far.
    pub fn predicted(&self, index: usize) -> &Tally {
        &self.predicted[index]
    }

    /// What was recorded so far.
    pub fn recorded(&self) -> &Tally {
        &self.recorded
    }

    /// The sums.
    pub fn report(&self) -> Report {
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by(|(name, class), (other_name, other)| {
            (other.recorded.requests, *name).cmp(&(class.recorded.requests, *other_name))
        });
        let row = |(pattern, class): (&String, &Class)| ClassRow {
            pattern: pattern.clone(),
            recorded: class.recorded.totals(),
            predicted: class.predicted.iter().map(Tally::totals).collect(),
            changes: (class.changes.iter())
                .map(|(change, (requests, example))| Difference {
                    change: change.clone(),
                    requests: *requests,
                    example: example.clone(),
                })
                .collect(),
        };
        let span_ms = self.first_ms.map_or(0, |first| self.last_ms.saturating_sub(first));
        Report {
            formats: self.formats.clone(),
            foreign: self.foreign,
            span_secs: span_ms as f64 / 1000.0,
            recorded: self.recorded.totals(),
            predicted: self.predicted.iter().map(Tally::totals).collect(),
            classes: classes.into_iter().map(row).collect(),
            assumptions: (self.replays.iter())
                .map(|replay| Notes::sentences(&replay.notes, &replay.settings.assumed))
                .collect(),
        }
    }
}

/// Requests to the origin that a recorded request cost, and their bytes. A fetch that goes on behind a stale answer has no line of its own.
pub(crate) fn recorded_load(record: &Record) -> (u64, u64) {
    let is = |why: Why| record.why == Some(why.as_str());
    let behind = match record.is_alone() {
        false => is(Why::StaleWhileRevalidate),
        // Who has waited in vain has begun it; the others have not.
        true => {
            let waited_us = record.first_byte_us.unwrap_or(0);
            is(Why::StaleBudget)
                || is(Why::StaleWhileRevalidate) && waited_us >= CLAIM_PATIENCE_MS as u64 * 1_000
        }
    };
    match &record.fetch {
        Some(fetch) => {
            let told = fetch.answer.as_ref().and_then(said_length);
            let bytes = match fetch.status {
                0 | 304 => 0,
                _ if record.method == "HEAD" => 0,
                206 => record.body_bytes,
                _ => told.unwrap_or(record.body_bytes),
            };
            (1, bytes)
        }
        None => (u64::from(behind), 0),
    }
}

/// How an answer changes between the second configuration, or the record, and the first; `None` where it does not.
fn change(record: &Record, decisions: &[Option<Decision>]) -> Option<String> {
    let after = decisions.first()?.as_ref();
    let Some(before) = decisions.get(1) else {
        let (before, after) = (told(record.outcome?), told(after?.why.outcome()));
        return (before != after).then(|| format!("{before} → {after}"));
    };
    let (before, after) = match (before, after) {
        (None, None) => return None,
        (None, Some(_)) => return Some("no site → served".to_owned()),
        (Some(_), None) => return Some("served → no site".to_owned()),
        (Some(before), Some(after)) => (before, after),
    };
    let (was, is) = (told(before.why.outcome()), told(after.why.outcome()));
    if was != is {
        return Some(format!("{was} → {is}"));
    }
    if before.location != after.location {
        return Some("redirect → another redirect".to_owned());
    }
    let told_ttl = |ttl: Option<u64>| ttl.map_or("the origin's".to_owned(), |secs| format!("{secs} s"));
    (before.browser_ttl != after.browser_ttl)
        .then(|| format!("browser TTL {} → {}", told_ttl(before.browser_ttl), told_ttl(after.browser_ttl)))
}

/// Hit or miss is one answer; whether the cache is used, another.
fn told(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hit | Outcome::Miss => "cached",
        Outcome::Pass => "passed",
        Outcome::Local => "answered by the edge",
        Outcome::Error => "error",
    }
}
