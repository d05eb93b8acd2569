//! Which stored objects a purge has made unusable, answered by comparing positions: a purge is a clock, not a hunt.
//!
//! Every purge has a journal position. Every stored object carries the position that was known when its fetch
//! started. An object may be used only if no purge that matches it has a higher position. Recording a purge
//! therefore costs the same however many objects it hits, and a fill in flight while the purge arrives is caught too.
//!
//! ```text
//! everything ─ Marks{hard, soft}, doubt             highest position of each kind
//! tag  hash ── Marks                                 on whatever site
//! site 7 ───── Marks                                 whole site, and the floor that folded entries leave behind
//!         ├── url  hash → Marks
//!         ├── tag  hash → Marks
//!         └── prefix hash(host?, path[..n]) → Marks   one lookup per distinct length n in use
//! ```
//!
//! Only the highest position of each kind matters per target, so each target is two numbers and repeated purges of
//! one target never grow anything.
//!
//! What it doesn't do: it finds no objects, deletes nothing, persists nothing and gives out no positions. The edge
//! keeps one `PurgeClock` behind a reader-writer lock and its [`PurgeClock::newest`] in an atomic beside it, written
//! after `record` and before the purge is acknowledged: a hit whose object is not older than that atomic needs no
//! lock. After `check` answered `None` the edge may raise the object's position to the clock's `newest`, because no
//! purge up to there matches it; so each object takes the longer way at most once per purge. (That holds where purges
//! are recorded in the order of their positions, as a journal's follower does.)

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// How a purge treats what it matches. `Hard` is the stronger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Stale: must be revalidated; may be served stale meanwhile.
    Soft,
    /// Perhaps gone: must be revalidated before it is served, unless the origin fails and stale answers are allowed then. For
    /// everything, by whoever cannot tell what was purged; of anything narrower it counts as `Hard`.
    Doubt,
    /// Gone: must not be served again.
    Hard,
}

/// What a purge matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Every object of every site.
    Everything,
    /// Every object of one site.
    Site(u32),
    /// Every object of a site whose path starts with these bytes, on one host or, with `None`, on all its hosts.
    /// A plain string prefix: `/static` matches `/static.css` too, `/static/` does not. An empty path is the whole
    /// host. The host is lower case, without port. Of a prefix longer than [`PREFIX_BYTES_MAX`] only that many bytes
    /// count, so that more is purged, not less.
    Prefix {
        /// The site.
        site: u32,
        /// The host, or all of the site's hosts.
        host: Option<String>,
        /// The first bytes of the path.
        path: String,
    },
    /// Every object that carries this surrogate key.
    Tag {
        /// The site; every site without, known or not.
        site: Option<u32>,
        /// The surrogate key's hash.
        tag: u64,
    },
    /// One URL of a site: all its variants, methods and stored forms.
    Url {
        /// The site.
        site: u32,
        /// The hash of the URL, without what makes variants.
        url: u128,
    },
}

/// One purge, as the journal carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Purge {
    /// What it matches.
    pub target: Target,
    /// What it does to it.
    pub kind: Kind,
}

/// What must be known of a stored object to tell whether a purge matches it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The site it was stored under.
    pub site: u32,
    /// The hash of its URL, the same that [`Target::Url`] carries.
    pub url: u128,
    /// Its host, lower case, without port.
    pub host: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// The hashes of its surrogate keys.
    pub tags: &'a [u64],
    /// The position that was known when its fetch started, or a later one at which `check` answered `None`.
    pub position: u64,
}

/// How many bytes of a prefix count. Longer prefixes match as if cut here.
pub const PREFIX_BYTES_MAX: usize = 1024;

/// How many targets are remembered one by one, over all sites together.
///
/// When a kind of target is over its limit, the site with the most of them forgets the older half, and instead treats
/// all of its objects that are older than the newest forgotten purge as purged (as hard or as soft as that one was). So do
/// all sites together for tags that were purged on all.
/// So memory is bounded and nothing comes back; a site that purges more single targets than this re-fetches more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// URLs; default 262,144 (about 56 bytes each).
    pub urls_max: usize,
    /// Tags; default 131,072.
    pub tags_max: usize,
    /// Prefixes; default 16,384.
    pub prefixes_max: usize,
    /// Sites; default 65,536. Above it a purge of a site not yet known counts for everything.
    pub sites_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { urls_max: 262_144, tags_max: 131_072, prefixes_max: 16_384, sites_max: 65_536 }
    }
}

/// How much a [`PurgeClock`] holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeStats {
    /// URLs remembered one by one.
    pub urls: usize,
    /// Tags remembered one by one.
    pub tags: usize,
    /// Prefixes remembered one by one.
    pub prefixes: usize,
    /// Sites with any purge.
    pub sites: usize,
    /// Times the older half of a site's targets was folded into a floor for that site.
    pub folds: u64,
    /// Targets forgotten that way.
    pub folded: u64,
}

/// All purges so far, as positions. See the module's text for how the edge shares it.
///
/// Cloning copies one pointer per site; the first `record` into a site after that copies the site's tables.
#[derive(Clone, Debug, Default)]
pub struct PurgeClock {
    limits: Limits,
    newest: u64,
    everything: Marks,
    /// What is older may have been purged.
    doubt: u64,
    tags_of_all: Table,
    sites: HashMap<u32, Arc<SiteClock>>,
    urls: usize,
    tags: usize,
    prefixes: usize,
    folds: u64,
    folded: u64,
}

impl PurgeClock {
    /// A clock without purges.
    pub fn new(limits: Limits) -> Self {
        PurgeClock { limits, ..PurgeClock::default() }
    }

    /// The highest position recorded; 0 before the first purge. An object with this position or a higher one is
    /// not purged.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Remembers `purge` at `position` (at least 1; 0 matches no object).
    ///
    /// Purges may come in any order and repeatedly; the result is the same. Constant time, except when a limit of
    /// [`Limits`] is reached: then linear in the largest site's targets of that kind, amortised constant.
    pub fn record(&mut self, purge: Purge, position: u64) {
        self.newest = self.newest.max(position);
        let site_number = match &purge.target {
            Target::Everything if purge.kind == Kind::Doubt => {
                self.doubt = self.doubt.max(position);
                return;
            }
            Target::Everything => return self.everything.raise(purge.kind, position),
            Target::Tag { site: None, tag } => {
                self.tags += usize::from(self.tags_of_all.raise(u128::from(*tag), purge.kind, position));
                return self.fold_tags();
            }
            Target::Site(site)
            | Target::Prefix { site, .. }
            | Target::Tag { site: Some(site), .. }
            | Target::Url { site, .. } => *site,
        };
        if !self.sites.contains_key(&site_number) && self.sites.len() >= self.limits.sites_max {
            return self.everything.raise(purge.kind, position);
        }
        let site = Arc::make_mut(self.sites.entry(site_number).or_default());
        site.newest = site.newest.max(position);
        match purge.target {
            Target::Everything => {}
            Target::Site(_) => site.whole.raise(purge.kind, position),
            Target::Url { url, .. } => {
                self.urls += usize::from(site.urls.raise(url, purge.kind, position));
                if self.urls > self.limits.urls_max {
                    self.fold(|site| site.urls.marks.len(), |site| site.urls.fold());
                }
            }
            Target::Tag { tag, .. } => {
                self.tags += usize::from(site.tags.raise(u128::from(tag), purge.kind, position));
                self.fold_tags();
            }
            Target::Prefix { host, path, .. } => {
                let path = &path.as_bytes()[..path.len().min(PREFIX_BYTES_MAX)];
                let scope = match &host {
                    None => &mut site.any_host,
                    Some(_) => &mut site.one_host,
                };
                let key = path.iter().fold(prefix_start(host.as_deref()), prefix_step);
                self.prefixes += usize::from(scope.raise(path.len(), key, purge.kind, position));
                if self.prefixes > self.limits.prefixes_max {
                    self.fold(SiteClock::prefix_count, SiteClock::fold_prefixes);
                }
            }
        }
    }

    /// Whether a purge forbids using this object as fresh, and the highest position of a matching purge of that kind.
    ///
    /// - `None`: no matching purge is newer than `subject.position`.
    /// - `Hard` when any newer matching purge is hard, whatever soft ones came before or after it: once gone, gone.
    /// - `Doubt` when there is a newer doubt about everything, and none is hard.
    /// - `Soft` when all newer matching purges are soft.
    ///
    /// One comparison when no purge at all is newer than the object, two lookups when none of its site is; else one
    /// lookup per tag and per distinct prefix length in use. Never allocates.
    pub fn check(&self, subject: &Subject) -> Option<(Kind, u64)> {
        if self.newest <= subject.position {
            return None;
        }
        let mut found = Newer { position: subject.position, marks: Marks::default() };
        found.add(self.everything);
        if self.tags_of_all.newest > subject.position {
            subject.tags.iter().for_each(|tag| found.add(self.tags_of_all.look(u128::from(*tag))));
        }
        if let Some(site) = self.sites.get(&subject.site)
            && site.newest > subject.position
        {
            site.check(subject, &mut found);
        }
        match found.marks {
            Marks { hard: 0, .. } if self.doubt > subject.position => Some((Kind::Doubt, self.doubt)),
            Marks { hard: 0, soft: 0 } => None,
            Marks { hard: 0, soft } => Some((Kind::Soft, soft)),
            Marks { hard, .. } => Some((Kind::Hard, hard)),
        }
    }

    /// What is held, and what was folded.
    pub fn stats(&self) -> PurgeStats {
        PurgeStats {
            urls: self.urls,
            tags: self.tags,
            prefixes: self.prefixes,
            sites: self.sites.len(),
            folds: self.folds,
            folded: self.folded,
        }
    }

    /// Forgets tags, if there are too many.
    fn fold_tags(&mut self) {
        if self.tags <= self.limits.tags_max {
            return;
        }
        let of_a_site = self.sites.values().map(|site| site.tags.marks.len()).max().unwrap_or(0);
        let of_all = self.tags_of_all.marks.len();
        if of_all < of_a_site {
            return self.fold(|site| site.tags.marks.len(), |site| site.tags.fold());
        }
        let floor = self.tags_of_all.fold();
        self.everything.raise(Kind::Hard, floor.hard);
        self.everything.raise(Kind::Soft, floor.soft);
        let gone = of_all - self.tags_of_all.marks.len();
        self.tags -= gone;
        self.folds += 1;
        self.folded += gone as u64;
    }

    fn fold(&mut self, count: fn(&SiteClock) -> usize, fold: fn(&mut SiteClock) -> Marks) {
        let Some(site) = self.sites.values_mut().max_by_key(|site| count(site)) else { return };
        let site = Arc::make_mut(site);
        let before = [site.urls.marks.len(), site.tags.marks.len(), site.prefix_count()];
        let floor = fold(site);
        site.whole.raise(Kind::Hard, floor.hard);
        site.whole.raise(Kind::Soft, floor.soft);
        let gone = [
            before[0] - site.urls.marks.len(),
            before[1] - site.tags.marks.len(),
            before[2] - site.prefix_count(),
        ];
        self.urls -= gone[0];
        self.tags -= gone[1];
        self.prefixes -= gone[2];
        self.folds += 1;
        self.folded += gone.iter().sum::<usize>() as u64;
    }
}

// --- One site ---

#[derive(Clone, Debug, Default)]
struct SiteClock {
    newest: u64,
    whole: Marks,
    urls: Table,
    tags: Table,
    any_host: Prefixes,
    one_host: Prefixes,
}

impl SiteClock {
    fn check(&self, subject: &Subject, found: &mut Newer) {
        found.add(self.whole);
        if self.urls.newest > found.position {
            found.add(self.urls.look(subject.url));
        }
        if self.tags.newest > found.position {
            for &tag in subject.tags {
                found.add(self.tags.look(u128::from(tag)));
            }
        }
        self.any_host.check(None, subject.path, found);
        self.one_host.check(Some(subject.host), subject.path, found);
    }

    fn prefix_count(&self) -> usize {
        self.any_host.table.marks.len() + self.one_host.table.marks.len()
    }

    fn fold_prefixes(&mut self) -> Marks {
        let mut scopes = [&mut self.any_host, &mut self.one_host];
        scopes.sort_by_key(|scope| scope.table.marks.len());
        scopes[1].table.fold()
    }
}

// --- Marks and tables ---

/// The highest position of each kind of purge on one target; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    hard: u64,
    soft: u64,
}

impl Marks {
    fn raise(&mut self, kind: Kind, position: u64) {
        let mark = match kind {
            Kind::Hard | Kind::Doubt => &mut self.hard,
            Kind::Soft => &mut self.soft,
        };
        *mark = position.max(*mark);
    }

    fn newest(self) -> u64 {
        self.hard.max(self.soft)
    }
}

/// Collects the marks that are newer than an object.
struct Newer {
    position: u64,
    marks: Marks,
}

impl Newer {
    fn add(&mut self, marks: Marks) {
        if marks.hard > self.position {
            self.marks.raise(Kind::Hard, marks.hard);
        }
        if marks.soft > self.position {
            self.marks.raise(Kind::Soft, marks.soft);
        }
    }
}

/// Marks by hashed target.
#[derive(Clone, Debug, Default)]
struct Table {
    newest: u64,
    marks: HashMap<u128, Marks, BuildHasherDefault<Uniform>>,
}

impl Table {
    /// Returns whether the target is new.
    fn raise(&mut self, key: u128, kind: Kind, position: u64) -> bool {
        self.newest = self.newest.max(position);
        match self.marks.entry(key) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().raise(kind, position);
                false
            }
            Entry::Vacant(entry) => {
                entry.insert(Marks::default()).raise(kind, position);
                true
            }
        }
    }

    fn look(&self, key: u128) -> Marks {
        self.marks.get(&key).copied().unwrap_or_default()
    }

    /// Forgets the older half (at least one) and returns the highest positions among what was forgotten.
    fn fold(&mut self) -> Marks {
        let mut positions: Vec<u64> = self.marks.values().map(|marks| marks.newest()).collect();
        let Some(middle) = positions.len().checked_sub(1).map(|last| last / 2) else {
            return Marks::default();
        };
        let (_, &mut through, _) = positions.select_nth_unstable(middle);
        let mut floor = Marks::default();
        self.marks.retain(|_, marks| {
            let keep = marks.newest() > through;
            if !keep {
                floor.raise(Kind::Hard, marks.hard);
                floor.raise(Kind::Soft, marks.soft);
            }
            keep
        });
        floor
    }
}

/// Prefixes of one scope: marks by the hash of (host, prefix), and the prefix lengths in use.
#[derive(Clone, Debug, Default)]
struct Prefixes {
    table: Table,
    /// Sorted and distinct. A length stays after its last prefix was folded away: it costs one lookup.
    lengths: Vec<u16>,
}

impl Prefixes {
    fn raise(&mut self, length: usize, key: u64, kind: Kind, position: u64) -> bool {
        // PREFIX_BYTES_MAX fits in u16.
        if let Err(place) = self.lengths.binary_search(&(length as u16)) {
            self.lengths.insert(place, length as u16);
        }
        self.table.raise(u128::from(key), kind, position)
    }

    fn check(&self, host: Option<&str>, path: &str, found: &mut Newer) {
        if self.table.newest <= found.position {
            return;
        }
        let (mut hash, mut from) = (prefix_start(host), 0);
        for &length in &self.lengths {
            let Some(more) = path.as_bytes().get(from..usize::from(length)) else { break };
            hash = more.iter().fold(hash, prefix_step);
            from = usize::from(length);
            found.add(self.table.look(u128::from(hash)));
        }
    }
}

// Prefixes are known by a 64-bit FNV-1a hash, which can be extended byte by byte: one walk over the path gives the
// hash of every prefix. A path made to collide with a purged prefix is purged as well, which harms nobody else; only
// operators make purges.

fn prefix_start(host: Option<&str>) -> u64 {
    let basis = 0xcbf2_9ce4_8422_2325;
    match host {
        None => basis,
        // A byte that is in no host ends it, so that (host, path) has one reading.
        Some(host) => host.as_bytes().iter().chain(&[0xff]).fold(basis, prefix_step),
    }
}

fn prefix_step(hash: u64, byte: &u8) -> u64 {
    (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Hashes keys that are hashes already by mixing their halves once.
#[derive(Default)]
struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, prefix_step);
    }

    fn write_u128(&mut self, key: u128) {
        let folded = (key as u64) ^ (key >> 64) as u64;
        self.0 = (folded ^ (folded >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests;
