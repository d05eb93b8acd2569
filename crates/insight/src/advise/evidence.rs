//! What a log shows of a site's faults: counts by class of URL and rule, and whether what tells requests apart tells answers apart.
//! In bounded memory, in one pass.

use std::collections::{HashMap, HashSet};

use model::url::is_fingerprinted;
use semantics::directives::{ResponseDirectives, Scope};
use semantics::{Fields, Refusal, Why};

use super::verify::visit_of;
use crate::class::{Kind, may_be_fingerprinted, pattern};
use crate::log::{Record, said_length};
use crate::replay::{Decision, Replay};

/// Classes that are told apart.
const CLASSES_MAX: usize = 1000;

/// Answers that are remembered to be compared with later ones.
const GROUPS_MAX: usize = 600_000;

/// Selectors and parameters that are compared, and those of one request.
const NAMES_MAX: usize = 2000;
const NAMES_OF_ONE_MAX: usize = 24;

/// Below this, a browser that comes again next month asks for a file anew although its name says that it is the same.
const BROWSER_SECS_MIN: u32 = 30 * 86_400;

/// Bodies shorter than this are not worth compressing.
const COMPRESSED_BYTES_MIN: u64 = 1024;

/// Everything that was seen.
#[derive(Default)]
pub struct Evidence {
    pub(super) classes: HashMap<Where, Class>,
    /// By what tells requests apart.
    pub(super) selectors: HashMap<(usize, u32, Selector), Sameness>,
    groups: HashMap<u64, (u64, u64)>,
    visits: HashSet<u64>,
}

/// A class of URLs that one rule of one site decides about; 0 is the site's own keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Where {
    pub(super) site: usize,
    pub(super) rule: u32,
    pub(super) pattern: String,
}

/// What tells two requests for a path apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Selector {
    /// A parameter of the query.
    Parameter(String),
    /// The order of parameters.
    Order,
    /// A header of Vary, or of the key; `cookie:name`; `device`.
    Header(String),
}

/// How often answers were the same although a selector differed, and how often not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sameness {
    pub(super) same: u64,
    pub(super) different: u64,
}

/// What was seen of a class.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// Of the first answer.
    pub(super) kind: Kind,
    /// Whether each answer was of a static kind.
    pub(super) is_static: bool,
    /// Whether each name may hold a hash of its content.
    pub(super) may_be_hashed: bool,
    pub(super) requests: u64,
    /// Good answers that say nothing of how long they are fresh.
    pub(super) silent: u64,
    /// Answers that were not kept for their cookie.
    pub(super) set_cookie: u64,
    /// GETs that a rule keeps from the cache.
    pub(super) passed_by_rule: u64,
    /// 404 and 410 that the origin was asked for.
    pub(super) missing: u64,
    /// Fetches of what had been fetched before: unchanged, changed; unchanged and without a validator.
    pub(super) again_same: u64,
    pub(super) again_changed: u64,
    pub(super) again_unvalidated: u64,
    /// The shortest lifetime that the origin has named.
    pub(super) lifetime_min: Option<u32>,
    /// Requests for names that hold a hash, by browsers that may keep it for too short a time, and how many of those came again.
    pub(super) short_in_browsers: u64,
    pub(super) repeated: u64,
    /// Text that was sent as it is although it may be kept.
    pub(super) uncompressed: u64,
    /// Bytes of all answers.
    pub(super) bytes: u64,
    /// Visitors who waited because something had gone stale.
    pub(super) waited: u64,
    /// Requests that ended in an error of the origin.
    pub(super) failed: u64,
}

impl Evidence {
    /// Whether there were more classes than are told apart.
    pub(super) fn is_full(&self) -> bool {
        self.classes.len() >= CLASSES_MAX
    }

    /// Takes a request, and what the configuration as it is makes of it.
    pub(super) fn take(&mut self, record: &Record, decision: &Decision, replay: &Replay) {
        let pattern = pattern(record.path());
        let probed = replay.settings().probed.get(&pattern);
        let answer = record.fetch.as_ref().and_then(|fetch| fetch.answer.as_ref());
        let answer = answer.or(probed.map(|(_, fields)| fields));
        let content_type = answer.and_then(|answer| answer.get("content-type"));
        let content_type = content_type.or(record.content_type.as_deref().map(str::as_bytes));
        let place = Where { site: decision.site, rule: decision.rule, pattern };
        if self.classes.len() >= CLASSES_MAX && !self.classes.contains_key(&place) {
            return;
        }
        let site = &replay.snapshot().sites[decision.site];
        let rule = match decision.rule {
            0 => &site.defaults,
            number => &site.rules[number as usize - 1],
        };
        let kind = Kind::of(record.path(), content_type);
        let class = self.classes.entry(place).or_insert_with(|| Class::of(kind));
        class.is_static &= kind.is_static();
        class.may_be_hashed &= may_be_fingerprinted(record.path());
        class.requests += 1;
        class.bytes += record.body_bytes;
        let is_get = record.method == "GET";
        if !is_get {
            return;
        }
        class.set_cookie += u64::from(decision.refusal == Some(Refusal::SetCookie));
        class.passed_by_rule += u64::from(decision.why == Why::Rule && record.status == 200);
        class.missing += u64::from(matches!(record.status, 404 | 410) && decision.origin_requests > 0);
        class.waited += u64::from(matches!(decision.why, Why::Expired | Why::Revalidated));
        class.failed += u64::from(decision.why.as_str().starts_with("origin-"));
        let Some(answer) = answer else { return };
        let directives = ResponseDirectives::of(answer, &rule.policy.targeted);
        let named = directives.s_maxage.or(directives.max_age);
        if let Some(secs) = named {
            class.lifetime_min = Some(class.lifetime_min.map_or(secs, |least| least.min(secs)));
        }
        let is_private = directives.no_store || directives.private != Scope::default();
        let guess = ["expires", "last-modified"].iter().any(|name| answer.contains(name));
        if named.is_none()
            && !guess
            && !is_private
            && directives.no_cache == Scope::default()
            && record.status == 200
        {
            class.silent += 1;
        }
        let in_browsers = rule
            .browser_ttl
            .map_or(directives.max_age, |ttl| Some(ttl.secs().min(u64::from(u32::MAX)) as u32));
        if is_fingerprinted(record.path()) && in_browsers.unwrap_or(0) < BROWSER_SECS_MIN {
            class.short_in_browsers += 1;
        }
        let is_kept = decision.refusal.is_none() && decision.why != Why::Rule;
        let length = length_of(record, answer);
        let covers = rule.compress.as_ref().is_some_and(|compress| {
            let essence =
                content_type.and_then(|kind| kind.split(|byte| *byte == b';').next()).unwrap_or_default();
            compress.covers(essence.trim_ascii(), length.max(COMPRESSED_BYTES_MIN))
        });
        let is_plain = !answer.contains("content-encoding") && !record.encoded;
        if is_kept && class.kind.is_text() && is_plain && !covers && length >= COMPRESSED_BYTES_MIN {
            class.uncompressed += 1;
        }
        if record.fetch.as_ref().is_some_and(|fetch| matches!(fetch.status, 200 | 304)) {
            let place = (decision.site, decision.rule);
            self.compare(place, record, answer, rule.key.query.sort);
        }
    }

    /// Notes visitors who come again for names that hold a hash. Apart from [`Evidence::take`], as hits count too, which tell
    /// nothing of the answer.
    pub(super) fn repeat(&mut self, record: &Record, decision: &Decision) {
        if record.method != "GET" || !is_fingerprinted(record.path()) || self.visits.len() >= GROUPS_MAX {
            return;
        }
        let is_again = !self.visits.insert(visit_of(record));
        let place = Where { site: decision.site, rule: decision.rule, pattern: pattern(record.path()) };
        if let Some(class) = self.classes.get_mut(&place).filter(|_| is_again) {
            class.repeated += 1;
        }
    }

    /// Compares an answer with earlier ones for requests that differ in one thing only.
    fn compare(&mut self, place: (usize, u32), record: &Record, answer: &Fields, is_sorted: bool) {
        let is_confirmed = record.fetch.as_ref().is_some_and(|fetch| fetch.status == 304);
        let signature = signature_of(record, answer);
        let variant: Vec<_> =
            record.selected_by.iter().map(|(name, hash)| format!("{name}={hash:x}")).collect();
        let url = [record.host.as_str(), &record.target].join("");
        let key = hash_of(&["url", &url, &variant.join(",")]);
        if let Some(same) = self.meets(key, 0, signature, is_confirmed) {
            let where_ = Where { site: place.0, rule: place.1, pattern: pattern(record.path()) };
            if let Some(class) = self.classes.get_mut(&where_) {
                let has_validator = answer.contains("etag") || answer.contains("last-modified");
                class.again_same += u64::from(same);
                class.again_changed += u64::from(!same);
                class.again_unvalidated += u64::from(same && !has_validator && !is_confirmed);
            }
        }
        let Some(signature) = signature.filter(|_| !is_confirmed) else { return };
        let mut found = Vec::new();
        if let Some(query) = record.query().filter(|query| !query.is_empty()) {
            let parameters: Vec<&str> = query.split('&').take(NAMES_OF_ONE_MAX).collect();
            for (index, parameter) in parameters.iter().enumerate() {
                let name = parameter.split('=').next().unwrap_or_default();
                let others: Vec<&str> = parameters
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| *at != index)
                    .map(|(_, other)| *other)
                    .collect();
                let group = hash_of(&["query", &record.host, record.path(), name, &others.join("&")]);
                let value = hash_of(&[parameter]);
                found.push((Selector::Parameter(name.to_owned()), group, value));
            }
            let mut sorted = parameters.clone();
            sorted.sort_unstable();
            if parameters.len() > 1 && !is_sorted {
                let group = hash_of(&["order", &record.host, record.path(), &sorted.join("&")]);
                found.push((Selector::Order, group, hash_of(&[query])));
            }
        }
        for (name, value) in record.selected_by.iter().take(NAMES_OF_ONE_MAX) {
            if name == "accept-encoding" {
                continue;
            }
            let others: Vec<&str> = variant
                .iter()
                .filter(|other| !other.starts_with(&format!("{name}=")))
                .map(|other| &**other)
                .collect();
            let group = hash_of(&["header", &url, name, &others.join(",")]);
            found.push((Selector::Header(name.clone()), group, u64::from(*value)));
        }
        for (selector, group, value) in found {
            let same = self.meets(group, value, Some(signature), false);
            let full = self.selectors.len() >= NAMES_MAX;
            let key = (place.0, place.1, selector);
            if let Some(same) = same
                && (!full || self.selectors.contains_key(&key))
            {
                let sameness = self.selectors.entry(key).or_default();
                sameness.same += u64::from(same);
                sameness.different += u64::from(!same);
            }
        }
    }

    /// Whether an answer of the group that another value got was the same; `None` where there was none, or only for this value.
    /// The value 0 is compared with itself.
    fn meets(&mut self, group: u64, value: u64, signature: Option<u64>, is_confirmed: bool) -> Option<bool> {
        let known = self.groups.get(&group).copied();
        if let Some(signature) = signature
            && (known.is_some() || self.groups.len() < GROUPS_MAX)
        {
            self.groups.insert(group, (value, signature));
        }
        let (known_value, known_signature) = known?;
        if known_value == value && value != 0 {
            return None;
        }
        if is_confirmed {
            return Some(true);
        }
        Some(known_signature == signature?)
    }
}

impl Class {
    fn of(kind: Kind) -> Class {
        Class {
            kind,
            is_static: true,
            may_be_hashed: true,
            requests: 0,
            silent: 0,
            set_cookie: 0,
            passed_by_rule: 0,
            missing: 0,
            again_same: 0,
            again_changed: 0,
            again_unvalidated: 0,
            lifetime_min: None,
            short_in_browsers: 0,
            repeated: 0,
            uncompressed: 0,
            bytes: 0,
            waited: 0,
            failed: 0,
        }
    }
}

fn length_of(record: &Record, answer: &Fields) -> u64 {
    said_length(answer).unwrap_or(record.body_bytes)
}

/// What tells one content from another: the entity tag, else length, date and type. `None` where nothing does.
fn signature_of(record: &Record, answer: &Fields) -> Option<u64> {
    if let Some(tag) = answer.get("etag").filter(|tag| !tag.is_empty()) {
        return Some(hash_of(&["etag", &String::from_utf8_lossy(tag)]));
    }
    let text = |name| String::from_utf8_lossy(answer.get(name).unwrap_or_default()).into_owned();
    let length = length_of(record, answer);
    (length > 0).then(|| {
        let parts =
            [length.to_string(), text("last-modified"), text("content-type"), text("content-encoding")];
        hash_of(&parts.each_ref().map(String::as_str))
    })
}

fn hash_of(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
