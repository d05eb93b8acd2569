//! What would have come of recorded requests under a configuration: predicted, before anything is deployed.
//!
//! A request goes the way that it would go through an edge, with the same code where there is some: site and rule of `model`, key,
//! storing and reuse of `semantics`, eviction of `store`. Bodies have a length and no bytes. What the origin would have said
//! is learnt from the log as it goes by ([`lore`]).
//!
//! ```text
//! record ─► site, rule ─┬─ redirect ─────────────────────────────────────► local
//!                       ├─ method, rule, refused as recorded ────────────► as it is
//!                       └─ key ─► look up ─┬─ fresh, or stale and allowed ► hit
//!                                          ├─ the same, and fetches for nobody else: the first of them ─┐
//!                                          └─ ask the origin ─► lore ─► store or not ─► miss, pass ◄────┘
//! ```
//!
//! What it leaves out, and says in its report: purges, ranges beyond their length, visitors' conditions and Cache-Control, the
//! time that a fetch takes, several edges (the log of one node is replayed as one node). A disk is a second tier that takes
//! everything and evicts by SIEVE, which is close to what segments with reinsertion do.

mod lore;
mod run;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;

use model::rule::RequestView;
use model::settings::Eviction;
use model::{Cache, Matched, Rule, Scheme, Site, Snapshot};
use semantics::key::{has_dot_segment, hash, write_key};
use semantics::{
    KeyRecipe, KeySeed, Normalise, Refusal, RequestDirectives, Reuse, StaleOn, VarySpec, Wall, Why,
    decide_reuse,
};
use store::{Insertion, Policy, Tier, TierConfig, Weigh};

use crate::log::Record;
pub use lore::{Assumed, Probed};
use lore::{Known, Lore};
pub(crate) use run::recorded_load;
pub use run::{ClassRow, Difference, Report, Run};
pub(crate) use tally::ratio;
pub use tally::{Notes, Tally, Totals};

/// How long an answer that may not be kept makes others not wait for its key: `edge`'s own time.
const PASS_HOLD_MS: i64 = 120_000;

/// How long a failed fetch speaks for its key: `edge`'s own time.
const FAILURE_HOLD_MS: i64 = 1_000;

/// How long one who fetches for nobody else waits for the origin where it has no budget: `edge`'s own time.
const CLAIM_PATIENCE_MS: i64 = 2_000;

/// Claims that are kept without a look at which of them are over.
const CLAIMS_MIN: usize = 1_000;

/// What a stored response takes beside its head and body: the edge's struct, the reference that the tier counts, and what an
/// allocator rounds up.
const ITEM_BYTES: usize = 96 + 16 + 16;

/// Bodies from this size on lie in pages of [`store::PAGE_BYTES`].
const PAGED_BYTES_MIN: u64 = 192 * 1024;

/// Head lines that an edge adds to each answer, about: Age, Cache-Status, Via, Date, and the status line.
const HEAD_BYTES_ADDED: u64 = 190;

/// A head whose length is not known.
const HEAD_BYTES_ASSUMED: u64 = 350;

/// What to replay under beside the configuration's text.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Memory of the cache, instead of the configuration's.
    pub memory_bytes: Option<u64>,
    /// Only this site; requests of others are passed over. It also takes those without a host.
    pub site: Option<String>,
    /// What is taken for granted where the log does not tell.
    pub assumed: Assumed,
    /// What a look at the origin has told of classes of URLs.
    pub probed: Arc<Probed>,
    /// Classes of URLs whose answers are taken to have a validator: what would come of it if the origin sent one.
    pub validated: Vec<String>,
}

/// One configuration, and what its cache holds at this point of the log.
pub struct Replay {
    snapshot: Arc<Snapshot>,
    settings: Settings,
    site: Option<usize>,
    memory: Tier<Arc<Item>>,
    disk: Option<Tier<Arc<Item>>>,
    lore: Lore,
    /// Fetches of those who fetch for nobody else, by key: meanwhile the others get what is stale.
    claims: HashMap<u128, Claim>,
    text: Vec<u8>,
    generation: u64,
    /// The time of the first record.
    began: Option<Wall>,
    /// What it had to take for granted, and how often.
    pub notes: Notes,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Why it ended so.
    pub why: Why,
    /// The number of the rule that decided; 0 for the site's own keys.
    pub rule: u32,
    /// The site's place in the configuration.
    pub site: usize,
    /// Requests to the origin, those in the background included.
    pub origin_requests: u32,
    /// Bytes of the bodies that came from there.
    pub origin_bytes: u64,
    /// Where it would be sent.
    pub location: Option<String>,
    /// The `max-age` that a rule has visitors told.
    pub browser_ttl: Option<u64>,
    /// Whether its body came in a coding that the edge makes itself, or would.
    pub compressed: bool,
    /// Why the answer could not be kept.
    pub refusal: Option<Refusal>,
}

/// What lies under a key.
enum Item {
    Object(Object),
    /// Which headers choose: the newest list alone, as one site seldom has two for one URL.
    Variants(Arc<VarySpec>, u64),
    Pass {
        until: Wall,
    },
    /// An encoded copy.
    Copy(u64),
}

/// A fetch that nobody else may follow.
struct Claim {
    until: Wall,
    /// Whether it brings nothing new.
    confirms: bool,
    /// Whether one who may be followed has begun a fetch beside it: there is one at a time.
    is_refreshed: bool,
}

#[derive(Clone, Copy)]
struct Object {
    facts: semantics::Facts,
    validator: u64,
    length: u64,
    head: u32,
    /// When it had come: who asked before followed the fetch.
    landed: Wall,
}

impl Weigh for Item {
    fn bytes(&self) -> usize {
        let body = match self {
            Item::Object(object) => {
                let body = match object.length {
                    length if length >= PAGED_BYTES_MIN => length.next_multiple_of(store::PAGE_BYTES) + 128,
                    length => length,
                };
                (body + u64::from(object.head)) as usize
            }
            Item::Variants(spec, _) => spec.as_bytes().len() + 32,
            Item::Pass { .. } => 0,
            Item::Copy(length) => (*length + HEAD_BYTES_ASSUMED) as usize,
        };
        // The tier adds this struct, and what counts references to it.
        (ITEM_BYTES + body).saturating_sub(size_of::<Item>() + 16)
    }
}

impl Decision {
    /// Takes what a fetch in the background costs: its outcome is no concern of this visitor's.
    fn fetch_behind(&mut self, fetched: &Decision) {
        self.origin_requests = fetched.origin_requests;
        self.origin_bytes = fetched.origin_bytes;
    }
}

/// A request and what decides about it.
struct Asked<'a> {
    record: &'a Record,
    site: &'a Site,
    rule: &'a Rule,
    /// When it came.
    now: Wall,
}

impl Replay {
    /// An empty cache under `snapshot`. The error names a site that it does not have.
    pub fn new(snapshot: Snapshot, settings: Settings) -> Result<Replay, String> {
        let site = match &settings.site {
            None => None,
            Some(name) => {
                let known = snapshot.site_named(name).map(|site| site.index);
                Some(known.ok_or_else(|| {
                    let names: Vec<_> =
                        snapshot.sites.iter().take(10).map(|site| format!("{:?}", site.name)).collect();
                    format!("there is no site {name:?} in the configuration; it has {}", names.join(", "))
                })?)
            }
        };
        let store = &snapshot.edge.store;
        let memory_bytes = settings.memory_bytes.unwrap_or(store.memory.0);
        let memory = Tier::new(TierConfig {
            bytes_max: usize::try_from(memory_bytes).unwrap_or(usize::MAX),
            policy: match store.eviction {
                Eviction::Lgdsf => Policy::default(),
                Eviction::Lru => Policy::Lru,
                Eviction::Sieve => Policy::Sieve,
                Eviction::S3Fifo => Policy::S3Fifo,
            },
            ..TierConfig::default()
        });
        let disk_bytes: u64 = store.disks.iter().map(|disk| disk.size.0).sum();
        let disk = (disk_bytes > 0).then(|| {
            Tier::new(TierConfig {
                bytes_max: usize::try_from(disk_bytes).unwrap_or(usize::MAX),
                policy: Policy::Sieve,
                object_max_fraction: 1.0,
                ..TierConfig::default()
            })
        });
        Ok(Replay {
            snapshot: Arc::new(snapshot),
            settings,
            site,
            memory,
            disk,
            lore: Lore::default(),
            claims: HashMap::new(),
            text: Vec::new(),
            generation: 0,
            began: None,
            notes: Notes::default(),
        })
    }

    /// The configuration that is replayed under.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What it was told beside the configuration.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What memory holds and did.
    pub fn memory(&self) -> store::TierStats {
        self.memory.stats()
    }

    /// Takes the next request; they come in the order of the log. `None` when it is none of this configuration's sites'.
    pub fn take(&mut self, record: &Record) -> Option<Decision> {
        self.began.get_or_insert(record.time);
        let snapshot = self.snapshot.clone();
        self.site_of(&snapshot, record).map(|site| self.decide(site, record))
    }

    fn site_of<'s>(&self, snapshot: &'s Snapshot, record: &Record) -> Option<&'s Site> {
        let found = match &*record.host {
            "" => None,
            host => snapshot.site_for(host),
        };
        match self.site {
            Some(only) if record.host.is_empty() => Some(&snapshot.sites[only]),
            Some(only) => found.filter(|site| site.index == only),
            // A log without hosts, and a configuration with one site: it can be no other.
            None if record.host.is_empty() && snapshot.sites.len() == 1 => snapshot.sites.first(),
            None => found,
        }
    }

    fn decide(&mut self, site: &Site, record: &Record) -> Decision {
        let scheme = match record.secure {
            Some(false) => Scheme::Http,
            Some(true) => Scheme::Https,
            None => {
                self.notes.scheme_unknown += 1;
                Scheme::Https
            }
        };
        let view = RequestView {
            method: &record.method,
            scheme,
            host: &record.host,
            path: record.path(),
            query: record.query(),
            fields: &record.fields,
        };
        let Matched { rule, .. } = site.match_rule(&view);
        let mut decision = Decision {
            why: Why::Absent,
            rule: rule.number,
            site: site.index,
            origin_requests: 0,
            origin_bytes: 0,
            location: None,
            browser_ttl: rule.browser_ttl.map(|ttl| ttl.secs()),
            compressed: false,
            refusal: None,
        };
        let recorded = record.why.and_then(|word| Why::ALL.iter().find(|why| why.as_str() == word)).copied();
        if let Some(why) = recorded.filter(|why| is_kept(*why)) {
            decision.why = why;
            return decision;
        }
        if let Some((_, location)) = rule.location(&view) {
            (decision.why, decision.location) = (Why::Redirect, Some(location));
            return decision;
        }
        let us = record.first_byte_us.unwrap_or(0);
        let now = Wall(record.time.0.saturating_sub((us / 1000).min(i64::MAX as u64) as i64));
        let asked = Asked { record, site, rule, now };
        let is_read = matches!(&*record.method, "GET" | "HEAD");
        if !is_read || rule.cache == Cache::Pass || has_dot_segment(record.path().as_bytes()) {
            decision.why = if is_read { Why::Rule } else { Why::Method };
            decision.origin_requests = 1;
            decision.origin_bytes = record.body_bytes;
            if !is_read && (200..400).contains(&record.status) {
                // What an unsafe request may have changed is not answered from the cache (RFC 9111 §4.4).
                self.write_key(&asked);
                let primary = self.hash();
                self.forget(primary);
            }
            self.fail_as_recorded(&asked, &mut decision);
            return decision;
        }
        self.write_key(&asked);
        self.look(&asked, &mut decision);
        decision
    }

    /// The way of a request that may be answered from the cache. The key's text has been written.
    fn look(&mut self, asked: &Asked<'_>, decision: &mut Decision) {
        let primary = self.hash();
        let is_part = asked.record.status == 206;
        self.lore.learn(primary, asked, &self.settings, &mut self.notes);
        let (mut key, mut found) = (primary, self.lookup(primary, asked.now));
        if let Some(Item::Variants(spec, generation)) = found.as_deref() {
            key = self.variant_key(asked, spec, *generation);
            found = self.lookup(key, asked.now);
            decision.why = Why::Variant;
        }
        if is_part && !matches!(found.as_deref(), Some(Item::Object(_))) {
            // A part that is kept by itself: requests for the same length are taken for requests for the same part.
            key = self.key_with(format!("part {}\n", asked.record.body_bytes).as_bytes());
            found = self.lookup(key, asked.now);
        }
        let stored = match found.as_deref() {
            Some(Item::Object(object)) => Some(*object),
            Some(Item::Pass { until }) if asked.now < *until => {
                decision.why = Why::HitForMiss;
                None
            }
            _ => None,
        };
        let stored = stored.or_else(|| self.stored_before(asked, primary, &mut key, decision.why));
        let directives = RequestDirectives::default();
        let Some(object) = stored else { return self.fetch(asked, primary, key, None, decision) };
        let assessment = decide_reuse(&object.facts, &directives, &asked.rule.policy, asked.now);
        let is_alone = asked.record.is_alone();
        let claim = self.claims.get_mut(&key).filter(|claim| asked.now < claim.until);
        let is_claimed = claim.is_some();
        // Who may be followed does not see the claim, and fetches beside it.
        let beside = match claim {
            Some(claim) if !is_alone && !claim.is_refreshed => {
                claim.is_refreshed = true;
                Some(if claim.confirms { 0 } else { object.length })
            }
            _ => None,
        };
        decision.why = match asked.now < object.landed {
            // Nobody follows the fetch that brings it: what was stale answers meanwhile.
            true if is_claimed => Why::StaleWhileRevalidate,
            true => Why::Collapsed,
            false => assessment.why,
        };
        match assessment.reuse {
            Reuse::Fresh => {
                if asked.now < object.landed
                    && let Some(bytes) = beside
                {
                    (decision.origin_requests, decision.origin_bytes) = (1, bytes);
                }
                self.serve_copy(asked, key, object, decision);
            }
            Reuse::StaleWhileRevalidate if is_alone => {
                if !is_claimed {
                    self.claim(asked, primary, key, object, decision);
                }
            }
            Reuse::StaleWhileRevalidate => {
                let mut behind = decision.clone();
                self.fetch(asked, primary, key, Some((object, StaleOn::Error)), &mut behind);
                decision.fetch_behind(&behind);
            }
            Reuse::Revalidate { stale_on } => {
                self.fetch(asked, primary, key, Some((object, stale_on)), decision);
            }
        }
    }

    /// The way of one who fetches for nobody else: it waits for the origin as long as its recorded request took and its patience lasts.
    fn claim(&mut self, asked: &Asked<'_>, primary: u128, key: u128, stale: Object, decision: &mut Decision) {
        let mut fetched = Decision { why: Why::Expired, ..decision.clone() };
        self.fetch(asked, primary, key, Some((stale, StaleOn::Error)), &mut fetched);
        if self.claims.len() >= CLAIMS_MIN {
            self.claims.retain(|_, claim| asked.now < claim.until);
        }
        let hold_ms = if fetched.why == Why::StaleIfError { FAILURE_HOLD_MS } else { 0 };
        let claim = Claim {
            until: Wall(asked.record.time.0 + hold_ms),
            confirms: fetched.why == Why::Revalidated,
            is_refreshed: false,
        };
        self.claims.insert(key, claim);
        let (patience_ms, why) = match &asked.rule.origin.budget {
            Some(budget) => (budget.stale_deadline.as_millis() as i64, Why::StaleBudget),
            None => (CLAIM_PATIENCE_MS, Why::StaleWhileRevalidate),
        };
        if asked.record.time.0 - asked.now.0 < patience_ms {
            *decision = fetched;
        } else {
            decision.why = why;
            decision.fetch_behind(&fetched);
        }
    }

    /// What was stored before the log began: a recorded hit for something that has not been seen tells of it.
    fn stored_before(
        &mut self,
        asked: &Asked<'_>,
        primary: u128,
        key: &mut u128,
        why: Why,
    ) -> Option<Object> {
        let record = asked.record;
        let age = record.age.filter(|_| why != Why::HitForMiss && !record.collapsed)?;
        let is_hit = record.outcome == Some(semantics::Outcome::Hit);
        let known = self.lore.get(primary)?;
        let stored = Wall(asked.now.0 - i64::from(age) * 1000);
        // One that was stored later waits in the log behind those who followed its fetch.
        let is_older = self.began.is_some_and(|began| stored < began);
        if !is_hit || !is_older || !known.is_first || record.status == 206 {
            return None;
        }
        let mut object = known.object(stored)?;
        object.facts.response_time = stored;
        object.facts.initial_age_ms = 0;
        self.notes.stored_before += 1;
        let vary = known.vary.clone();
        *key = self.place(asked, primary, vary);
        self.insert(*key, Item::Object(object));
        Some(object)
    }

    /// Asks the origin, and keeps the answer if it may be kept.
    fn fetch(
        &mut self,
        asked: &Asked<'_>,
        primary: u128,
        key: u128,
        stale: Option<(Object, StaleOn)>,
        decision: &mut Decision,
    ) {
        decision.origin_requests += 1;
        if let Some(why) = failure(asked.record) {
            let may_hide = stale.is_some_and(|(_, stale_on)| stale_on >= StaleOn::Unreachable);
            decision.why = if may_hide { Why::StaleIfError } else { why };
            return;
        }
        let known = self.lore.get(primary).cloned().unwrap_or_default();
        let is_head = asked.record.method == "HEAD";
        let hides = stale.is_some_and(|(_, stale_on)| stale_on == StaleOn::Error);
        if hides && matches!(known.status, 500 | 502..=504) {
            decision.why = Why::StaleIfError;
            return;
        }
        let confirmed = stale
            .map(|(object, _)| object)
            .filter(|object| object.validator != 0 && object.validator == known.validator);
        let length = match asked.record.status {
            206 => asked.record.body_bytes,
            _ if is_head => confirmed.map_or(0, |object| object.length),
            _ => known.length,
        };
        if confirmed.is_none() {
            decision.origin_bytes += length;
        }
        let authorized = asked.record.authorized && !known.shares_authorized;
        let judged = match known.judged {
            _ if is_head && confirmed.is_none() => Err(Refusal::Method),
            Ok(_) if authorized => Err(Refusal::Authorization),
            Ok(_) if self.is_too_large(length + u64::from(known.head)) => Err(Refusal::TooLarge),
            judged => judged,
        };
        if is_head
            && confirmed.is_none()
            && let Some((object, _)) = stale
        {
            self.learn_from_head(asked, key, object, &known, authorized);
        }
        match judged {
            Ok(mut facts) => {
                facts.response_time = asked.now;
                if confirmed.is_some() {
                    decision.why = Why::Revalidated;
                }
                let landed = asked.record.time;
                let object = Object { facts, validator: known.validator, length, head: known.head, landed };
                let key = match asked.record.status {
                    206 => key,
                    _ => self.place(asked, primary, known.vary),
                };
                self.insert(key, Item::Object(object));
            }
            Err(refusal) => {
                decision.refusal = Some(refusal);
                if confirmed.is_some() {
                    // For the asker alone, under its new head.
                    decision.why = Why::Revalidated;
                    if is_of_the_response(refusal) {
                        self.forget(key);
                    }
                    return;
                }
                if decision.why != Why::HitForMiss {
                    let is_large = refusal == Refusal::TooLarge;
                    decision.why = if is_large { Why::TooLarge } else { Why::Uncacheable };
                }
                if is_of_the_response(refusal) {
                    let until = Wall(asked.now.0 + PASS_HOLD_MS);
                    self.insert(primary, Item::Pass { until });
                }
            }
        }
    }

    /// What an answer to HEAD says of what is stored (RFC 9111 §4.3.5).
    fn learn_from_head(
        &mut self,
        asked: &Asked<'_>,
        key: u128,
        stored: Object,
        known: &Known,
        authorized: bool,
    ) {
        // A validator that it names is another one: the same would have confirmed what is stored.
        let is_same = known.validator == 0 && (known.length == 0 || known.length == stored.length);
        match (known.status, known.judged) {
            (200, Ok(mut facts)) if is_same && !authorized => {
                facts.response_time = asked.now;
                self.insert(key, Item::Object(Object { facts, landed: asked.record.time, ..stored }));
            }
            (200, _) if is_same => {}
            (200 | 404 | 410, _) => self.forget(key),
            _ => {}
        }
    }

    /// A request that is passed on, and met an origin that failed.
    fn fail_as_recorded(&self, asked: &Asked<'_>, decision: &mut Decision) {
        if let Some(why) = failure(asked.record) {
            (decision.why, decision.origin_bytes) = (why, 0);
        }
    }

    /// The encoded copy of a hit, which takes room of its own.
    fn serve_copy(&mut self, asked: &Asked<'_>, key: u128, object: Object, decision: &mut Decision) {
        let kind = self.lore.content_type(asked.record);
        let covers = asked.rule.compress.as_ref().is_some_and(|compress| {
            let essence = kind.as_deref().map(|kind| kind.split(';').next().unwrap_or(kind).trim());
            essence.is_some_and(|essence| compress.covers(essence.as_bytes(), object.length))
        });
        if !asked.record.encoded || !covers {
            return;
        }
        decision.compressed = true;
        let copy = key ^ 0x636f_7079;
        if self.lookup(copy, asked.now).is_none() {
            self.insert(copy, Item::Copy(asked.record.body_bytes));
        }
    }

    // --- Keys ---

    /// Writes the key's text: what `edge` would, with hashes for what the log has hashes of.
    fn write_key(&mut self, asked: &Asked<'_>) {
        let (record, rule) = (asked.record, asked.rule);
        self.text.clear();
        let recipe = KeyRecipe { query: rule.key.query.clone(), ..KeyRecipe::default() };
        let (path, query) = (record.path().as_bytes(), record.query().map(str::as_bytes));
        write_key(&mut self.text, &recipe, &asked.site.name, &record.host, path, query, &record.fields);
        for name in &rule.key.headers {
            write_selector(&mut self.text, record, name, rule, &mut self.notes);
        }
        for name in &rule.key.cookies {
            write_hash(&mut self.text, record, &format!("cookie:{name}"), &mut self.notes);
        }
        if rule.key.device_class {
            let device = semantics::key::Device::of(&record.fields).as_str();
            self.text.extend_from_slice(device.as_bytes());
        }
        if record.secure != Some(false) {
            self.text.extend_from_slice(b"scheme https\n");
        }
        if !rule.conditions.headers.is_empty() || !rule.conditions.cookies.is_empty() {
            self.text.extend_from_slice(format!("rule {}\n", rule.number).as_bytes());
            self.notes.chosen_by_fields += 1;
        }
    }

    fn hash(&self) -> u128 {
        // Nobody attacks a replay: the same keys each time make the same predictions.
        const SEED: KeySeed = KeySeed(*b"perigee insight\0");
        hash(&SEED, &self.text)
    }

    fn key_with(&mut self, more: &[u8]) -> u128 {
        let length = self.text.len();
        self.text.extend_from_slice(more);
        let key = self.hash();
        self.text.truncate(length);
        key
    }

    fn variant_key(&mut self, asked: &Asked<'_>, spec: &VarySpec, generation: u64) -> u128 {
        let mut more = format!("generation {generation}\n").into_bytes();
        for name in spec.names() {
            write_selector(&mut more, asked.record, name, asked.rule, &mut self.notes);
        }
        self.key_with(&more)
    }

    /// Where an answer goes; writes the index of variants, if it varies.
    fn place(&mut self, asked: &Asked<'_>, primary: u128, vary: Option<Arc<VarySpec>>) -> u128 {
        let Some(spec) = vary else { return primary };
        let generation = match self.memory.peek(primary).as_deref() {
            Some(Item::Variants(known, generation)) if *known == spec => *generation,
            _ => {
                self.generation += 1;
                self.insert(primary, Item::Variants(spec.clone(), self.generation));
                self.generation
            }
        };
        self.variant_key(asked, &spec, generation)
    }

    // --- The store ---

    fn lookup(&self, key: u128, now: Wall) -> Option<Arc<Item>> {
        if let Some(item) = self.memory.peek(key)
            && matches!(&*item, Item::Object(object) if now < object.landed)
        {
            // Still a fetch that is followed: no hit that the store could count.
            return Some(item);
        }
        if let Some(item) = self.memory.lookup(key) {
            return Some(item);
        }
        let item = self.disk.as_ref()?.lookup(key)?;
        let _refused_where_too_large = self.memory.insert(key, item.clone());
        Some(item)
    }

    fn insert(&mut self, key: u128, item: Item) {
        let item = Arc::new(item);
        if let Some(disk) = &self.disk {
            let _ = disk.insert(key, item.clone());
        }
        match self.memory.insert(key, item) {
            Insertion::Inserted | Insertion::Replaced => {}
            Insertion::Refused(_) => self.notes.refused += 1,
        }
    }

    fn forget(&mut self, key: u128) {
        self.memory.remove(key);
        if let Some(disk) = &self.disk {
            disk.remove(key);
        }
    }

    fn is_too_large(&self, bytes: u64) -> bool {
        self.disk.is_none() && bytes > self.memory.object_bytes_max() as u64
    }
}

/// Whether a recorded outcome does not depend on the cache, and stays what it was.
fn is_kept(why: Why) -> bool {
    matches!(
        why,
        Why::Upgrade
            | Why::Challenge
            | Why::Preflight
            | Why::OnlyIfCached
            | Why::BadRequest
            | Why::Limit
            | Why::Blocked
            | Why::UnknownSite
            | Why::ClientCertificate
            | Why::Misdirected
            | Why::Loop
            | Why::ClientGone
            | Why::Internal
    )
}

/// How the origin failed when it was asked for this request, if it did.
fn failure(record: &Record) -> Option<Why> {
    let recorded = record.why.and_then(|word| Why::ALL.iter().find(|why| why.as_str() == word)).copied();
    let failed = recorded.filter(|why| {
        matches!(why, Why::OriginConnect | Why::OriginTimeout | Why::OriginProtocol | Why::OriginDown)
    });
    let gave_none = record.fetch.as_ref().is_some_and(|fetch| fetch.status == 0);
    failed.or(gave_none.then_some(Why::OriginConnect))
}

/// Whether the next request for the key is likely to meet the same refusal.
fn is_of_the_response(refusal: Refusal) -> bool {
    !matches!(
        refusal,
        Refusal::Method | Refusal::RequestNoStore | Refusal::Authorization | Refusal::Status | Refusal::Part
    )
}

/// Appends what a selecting header says, as the rule has it compared.
fn write_selector(out: &mut Vec<u8>, record: &Record, name: &str, rule: &Rule, notes: &mut Notes) {
    let normalise = &rule.policy.vary_normalise;
    let way = normalise.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, way)| way);
    if matches!(way, Some(Normalise::Presence)) && record.selector(name).is_some() {
        out.extend_from_slice(format!("header {name} 1\n").as_bytes());
        return;
    }
    match VarySpec::from_bytes(name.as_bytes()) {
        // The log has the words of these themselves.
        Some(spec) if matches!(name, "user-agent" | "referer") => {
            spec.write_variant(out, &record.fields, normalise);
        }
        _ => write_hash(out, record, name, notes),
    }
}

fn write_hash(out: &mut Vec<u8>, record: &Record, name: &str, notes: &mut Notes) {
    match record.selector(name) {
        Some(hash) => out.extend_from_slice(format!("selector {name} {hash:08x}\n").as_bytes()),
        None => {
            notes.selectors_unknown += 1;
            out.extend_from_slice(format!("selector {name} ?\n").as_bytes());
        }
    }
}

impl Known {
    fn object(&self, landed: Wall) -> Option<Object> {
        let facts = self.judged.ok()?;
        Some(Object { facts, validator: self.validator, length: self.length, head: self.head, landed })
    }
}

#[cfg(test)]
mod tests;
