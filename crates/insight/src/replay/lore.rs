//! What is known of the origin's answers, by key: learnt as the log goes by, judged at once by the rule that it meets, and kept as
//! a few numbers.
//!
//! From what is told to what is guessed: the fields of a recorded answer; age and TTL of a recorded hit; what a look at the origin
//! has told of the class of the URL; the outcome that another cache has recorded; the kind of content that the name tells.

use std::collections::HashMap;
use std::sync::Arc;

use semantics::{Facts, Fields, Outcome, Refusal, StoreRequest, Target, Vary, VarySpec, Wall, decide_store};

use super::{Asked, HEAD_BYTES_ADDED, HEAD_BYTES_ASSUMED, Notes, Settings};
use crate::class::{Kind, pattern};
use crate::log::{Record, said_length};

/// Keys that are remembered at least; twice as many at most, at some 150 bytes each.
const KEYS_MIN: usize = 600_000;

/// What is taken for granted of answers whose fields nobody knows.
#[derive(Clone, Copy, Debug)]
pub struct Assumed {
    /// Seconds for which an answer that another cache kept is fresh.
    pub kept_secs: u64,
    /// Seconds for which static content is fresh, where the log has no outcome either.
    pub static_secs: u64,
}

impl Default for Assumed {
    /// An hour, and a day: the default times of the CDNs whose logs these are lie between.
    fn default() -> Self {
        Assumed { kept_secs: 3600, static_secs: 86_400 }
    }
}

/// What a look at the origin has told: status and fields, by [`pattern`] of the URL.
pub type Probed = HashMap<String, (u16, Fields)>;

/// What is known of the answers under a key.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Whether it may be kept, and for how long; times are relative to `facts.response_time`.
    pub(super) judged: Result<Facts, Refusal>,
    /// Whether it may be kept although the request had Authorization.
    pub(super) shares_authorized: bool,
    pub(super) vary: Option<Arc<VarySpec>>,
    /// A hash of ETag or Last-Modified; 0 without.
    pub(super) validator: u64,
    pub(super) status: u16,
    pub(super) length: u64,
    pub(super) head: u32,
    /// Whether the record that is looked at is the first for this key.
    pub(super) is_first: bool,
}

impl Default for Known {
    fn default() -> Self {
        Known {
            judged: Err(Refusal::NoFreshness),
            shares_authorized: false,
            vary: None,
            validator: 0,
            status: 0,
            length: 0,
            head: HEAD_BYTES_ASSUMED as u32,
            is_first: true,
        }
    }
}

/// Two generations: when the young one is full it becomes the old one, and what was old is forgotten.
#[derive(Default)]
pub(super) struct Lore {
    young: HashMap<u128, Known>,
    old: HashMap<u128, Known>,
    specs: Vec<Arc<VarySpec>>,
    /// Content-Type by pattern, as the log tells it.
    types: HashMap<String, String>,
}

/// Lists of Vary that are kept once for all that have them.
const SPECS_MAX: usize = 1000;

/// Patterns whose type is remembered.
const TYPES_MAX: usize = 10_000;

impl Lore {
    pub(super) fn get(&self, key: u128) -> Option<&Known> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    /// The type of a record's content, if this or an earlier one has told it.
    pub(super) fn content_type(&self, record: &Record) -> Option<String> {
        record.content_type.clone().or_else(|| self.types.get(&pattern(record.path())).cloned())
    }

    /// Takes in what a record says of the answer under its key.
    pub(super) fn learn(&mut self, key: u128, asked: &Asked<'_>, settings: &Settings, notes: &mut Notes) {
        let record = asked.record;
        let former = self.young.remove(&key).or_else(|| self.old.remove(&key));
        let is_first = former.is_none();
        let mut known = match (&record.fetch, former) {
            (Some(fetch), former) if fetch.status != 0 && fetch.answer.is_some() => {
                let answer = fetch.answer.clone().unwrap_or_default();
                self.note_type(record, &answer);
                match (fetch.status, former) {
                    (304, Some(former)) => self.confirmed(asked, former, answer),
                    (304, None) => self.judge(asked, record.status, answer, settings),
                    (status, _) => self.judge(asked, status, answer, settings),
                }
            }
            (_, Some(mut former)) => {
                former.is_first = false;
                former
            }
            (_, None) => self.guess(asked, settings, notes),
        };
        known.is_first = is_first;
        self.put(key, known);
    }

    fn put(&mut self, key: u128, known: Known) {
        if self.young.len() >= KEYS_MIN {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, known);
    }

    fn note_type(&mut self, record: &Record, answer: &Fields) {
        let Some(kind) = answer.get("content-type") else { return };
        let pattern = pattern(record.path());
        if self.types.len() < TYPES_MAX && !self.types.contains_key(&pattern) {
            self.types.insert(pattern, String::from_utf8_lossy(kind).into_owned());
        }
    }

    /// A 304: the body is what it was, the fields say how long it lives from now on.
    fn confirmed(&mut self, asked: &Asked<'_>, former: Known, answer: Fields) -> Known {
        let says = ["cache-control", "cdn-cache-control", "perigee-cache-control", "expires"];
        if !says.iter().any(|name| answer.contains(name)) {
            return former;
        }
        let judged = judge(asked, former.status, &answer, false);
        Known { judged: judged.or(former.judged), ..former }
    }

    /// What the fields of an answer say.
    fn judge(&mut self, asked: &Asked<'_>, status: u16, mut answer: Fields, settings: &Settings) -> Known {
        let record = asked.record;
        asked.rule.cors.on_receive(&mut answer);
        let sent = match record.method == "HEAD" || record.encoded {
            true => 0,
            false => record.body_bytes,
        };
        let vary = match VarySpec::of(&answer) {
            Vary::Spec(spec) => Some(self.intern(spec)),
            Vary::None | Vary::Star => None,
        };
        let length = said_length(&answer).unwrap_or(sent);
        let validator_of = |answer: &Fields| {
            let tag = answer.get("etag").filter(|tag| !tag.is_empty());
            tag.or(answer.get("last-modified")).map(hash_of)
        };
        if validator_of(&answer).is_none() && settings.validated.contains(&pattern(record.path())) {
            // Before it is judged: what can be validated may be kept although it says nothing of a lifetime.
            set(&mut answer, "ETag", &format!("\"{length:x}\""));
        }
        Known {
            judged: judge(asked, status, &answer, false),
            shares_authorized: judge(asked, status, &answer, true).is_ok(),
            vary,
            validator: validator_of(&answer).unwrap_or(0),
            status,
            length,
            head: record
                .head_bytes
                .map_or(HEAD_BYTES_ASSUMED, |bytes| bytes.saturating_sub(HEAD_BYTES_ADDED).max(60))
                as u32,
            is_first: true,
        }
    }

    /// An answer of which the log has no fields.
    fn guess(&mut self, asked: &Asked<'_>, settings: &Settings, notes: &mut Notes) -> Known {
        let record = asked.record;
        let mut fields = Fields::new();
        let mut status = if record.status == 304 { 200 } else { record.status };
        let kind = record.content_type.as_deref().map(str::as_bytes);
        if let (Some(age), Some(ttl)) = (record.age, record.ttl) {
            notes.learnt_from_hits += 1;
            let lifetime = i64::from(age).saturating_add(ttl).max(0);
            let names: Vec<&str> = (record.selected_by.iter())
                .map(|(name, _)| &**name)
                .filter(|name| !name.contains(':') && *name != "device")
                .collect();
            set(&mut fields, "Cache-Control", &format!("max-age={lifetime}"));
            if !names.is_empty() {
                set(&mut fields, "Vary", &names.join(", "));
            }
        } else if let Some((probed_status, probed)) = settings.probed.get(&pattern(record.path())) {
            notes.probed += 1;
            fields = probed.clone();
            fields.remove("content-length");
            status = *probed_status;
        } else {
            notes.assumed += 1;
            let secs = match record.outcome {
                _ if status >= 400 || status == 0 => None,
                Some(Outcome::Hit | Outcome::Miss) => Some(settings.assumed.kept_secs),
                Some(Outcome::Pass | Outcome::Local | Outcome::Error) => None,
                None => Kind::of(record.path(), kind).is_static().then_some(settings.assumed.static_secs),
            };
            let said = secs.map_or("no-store".to_owned(), |secs| format!("max-age={secs}"));
            set(&mut fields, "Cache-Control", &said);
            set(&mut fields, "Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT");
        }
        self.judge(asked, status, fields, settings)
    }

    fn intern(&mut self, spec: VarySpec) -> Arc<VarySpec> {
        if let Some(known) = self.specs.iter().find(|known| ***known == spec) {
            return known.clone();
        }
        let spec = Arc::new(spec);
        if self.specs.len() < SPECS_MAX {
            self.specs.push(spec.clone());
        }
        spec
    }
}

/// The real decision, at the time at which the answer came.
fn judge(asked: &Asked<'_>, status: u16, answer: &Fields, authorized: bool) -> Result<Facts, Refusal> {
    let mut fields = Fields::new();
    if authorized {
        set(&mut fields, "Authorization", "-");
    }
    let target = Target {
        authority: &asked.record.host,
        origin_authority: None,
        path_and_query: &asked.record.target,
    };
    let request = StoreRequest { method: "GET", fields: &fields, target };
    let fetched = asked.record.fetch.as_ref().map_or(0, |fetch| fetch.us / 1000);
    let arrived = asked.record.time;
    let sent = Wall(arrived.0 - fetched.min(1 << 40) as i64);
    // A part is judged as the whole would be: which one it is, the log does not tell.
    let status = if status == 206 { 200 } else { status };
    decide_store(&request, status, answer, &asked.rule.policy, sent, arrived)
}

fn set(fields: &mut Fields, name: &str, value: &str) {
    // Names and values are made here, of what can stand in a field.
    let _ = fields.append(name, value);
}

fn hash_of(value: &[u8]) -> u64 {
    // FNV-1a: two tags of one URL that collide cost one wrong byte count.
    let hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}
