//! Purges as people ask for them, turned into the purge clock's targets; and their receipts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::purge::{Kind, Purge, Target};
use model::{Scheme, Site};
use observe::{PurgeForm, PurgeScope};
use semantics::key::{KeyRecipe, hash, normalise_path, write_url_key};
use semantics::tags::tag_hash;

use crate::loaded::{Loaded, RuleAt};
use crate::lookup;
use crate::request::Request;
use crate::succession::Invalidation;
use crate::worker::Shared;

/// What to purge, as an operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// One URL with all its variants: `https://www.shop.example/a.css?v=2`.
    Url(String),
    /// All URLs that start so: `https://www.shop.example/media/`. The path alone counts, a query is refused.
    Prefix(String),
    /// All responses that carry a surrogate key, of one site or of all.
    Tag {
        /// The key, as in Surrogate-Key or Cache-Tag.
        tag: String,
        /// The site's name; `None` for every site.
        site: Option<String>,
    },
    /// Everything of one site.
    Site(String),
    /// Everything.
    Everything,
}

/// A purge to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeRequest {
    /// What.
    pub target: PurgeTarget,
    /// Whether what it matches may still be served while it is validated. A hard purge makes a miss.
    pub soft: bool,
}

/// Proof of a purge: from `position` on, no worker of this node serves what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its place in the order of purges; each object remembers the place at which its fetch began.
    pub position: u64,
    /// How many sites it concerns.
    pub sites: usize,
}

/// Why a purge was not carried out. Nothing has been purged then, unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeError {
    /// Not an absolute http or https URL.
    NotAUrl(String),
    /// No site of the configuration has the URL's host.
    UnknownHost(String),
    /// No site of the configuration has this name.
    UnknownSite(String),
    /// A prefix with a query.
    QueryInPrefix(String),
    /// An empty surrogate key.
    EmptyTag,
    /// The purge could not be written down, so a restart would forget it. Nothing was purged.
    NotLogged(String),
    /// The purge is in force, but not safe: a loss of power could make this node forget it.
    NotSafe(String),
    /// Another process is about to take this one's place. Nothing was purged.
    HandingOver,
}

impl std::fmt::Display for PurgeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PurgeError::NotAUrl(url) => {
                write!(f, "{url:?} is not an absolute URL; write e.g. \"https://www.shop.example/a.css\"")
            }
            PurgeError::UnknownHost(host) => {
                write!(f, "no site of the configuration serves the host {host:?}; write one of its domains")
            }
            PurgeError::UnknownSite(site) => write!(f, "no site of the configuration is called {site:?}"),
            PurgeError::QueryInPrefix(url) => {
                write!(
                    f,
                    "the prefix {url:?} has a query; prefixes match paths, leave out \"?\" and what follows"
                )
            }
            PurgeError::EmptyTag => write!(f, "the surrogate key is empty"),
            PurgeError::NotLogged(error) => {
                write!(f, "the purge log cannot be written, so nothing was purged: {error}")
            }
            PurgeError::NotSafe(error) => {
                write!(f, "the purge is in force, but a loss of power could undo it: {error}")
            }
            PurgeError::HandingOver => write!(f, "the edge is being upgraded, so nothing was purged"),
        }
    }
}

impl std::error::Error for PurgeError {}

/// Puts a purge in force: after this returns, no request that starts later is answered with what it matches, also not by a
/// process before this one that has not ended yet.
pub(crate) fn purge(shared: &Shared, request: &PurgeRequest) -> Result<Receipt, PurgeError> {
    let loaded = shared.loaded.get();
    let targets = targets(shared, &loaded, &request.target)?;
    let kind = if request.soft { Kind::Soft } else { Kind::Hard };
    let sites =
        if request.target == PurgeTarget::Everything { loaded.snapshot.sites.len() } else { targets.len() };
    let recorded = record(shared, targets.clone(), kind, Durability::Required);
    if matches!(recorded, Ok(_) | Err(PurgeError::NotSafe(_))) {
        shared.succession.purge_before(shared, kind, &targets);
    }
    let position = recorded?;
    let scope = match request.target {
        PurgeTarget::Url(_) => PurgeScope::Url,
        PurgeTarget::Prefix(_) => PurgeScope::Prefix,
        PurgeTarget::Tag { .. } => PurgeScope::Tag,
        PurgeTarget::Site(_) => PurgeScope::Site,
        PurgeTarget::Everything => PurgeScope::Everything,
    };
    shared.registry.count_purge(scope, if request.soft { PurgeForm::Soft } else { PurgeForm::Hard });
    Ok(Receipt { position, sites })
}

/// Makes what is stored under a URL of the same host unreachable, because an unsafe request has changed it. `url` is
/// path and query. What is in flight for it is not stored either.
pub(crate) fn invalidate_url(shared: &Shared, at: &RuleAt, request: &Request, url: &str) {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (url, None),
    };
    let site = at.site();
    let mut seen: Vec<(&KeyRecipe, bool)> = Vec::new();
    for rule in site.rules.iter().chain([&site.defaults]).filter(|rule| !rule.is_response_rule()) {
        let recipe = &rule.key;
        let way = (recipe, lookup::is_chosen_by_fields(rule));
        if seen.contains(&way) {
            continue;
        }
        seen.push(way);
        let mut text = Vec::with_capacity(128);
        let query = query.map(str::as_bytes);
        write_url_key(&mut text, recipe, &site.name, &request.authority, path.as_bytes(), query);
        let is_plain = recipe.headers.is_empty() && recipe.cookies.is_empty() && !recipe.device_class;
        if is_plain && !lookup::is_chosen_by_fields(rule) {
            // The URL has one key in this rule: taking it away costs nothing later, unlike a purge that each hit would
            // have to check.
            for secure in [false, true] {
                let length = text.len();
                lookup::write_scheme(&mut text, secure);
                let key = hash(&shared.seed, &text).0;
                text.truncate(length);
                // The epoch first: what is in flight must not be stored after the removal.
                shared.epochs.advance(key);
                shared.forget(key);
                shared.succession.tell(shared, &Invalidation::Key(key));
            }
        } else {
            let url = hash(&shared.seed, &text).0;
            record_at_once(shared, Target::Url { site: at.site_number(), url });
        }
    }
}

/// Makes what carries a cache group stale (RFC 9875 §3: invalidation, as by an unsafe method).
pub(crate) fn invalidate_group(shared: &Shared, at: &RuleAt, group: &[u8]) {
    let tag = tag_hash(&shared.tag_seed(), group);
    record_at_once(shared, Target::Tag { site: at.site_number(), tag });
}

/// What has to be true of a purge before it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// It is safe from a loss of power. Whoever asked for it is told so.
    Required,
    /// It comes from a visitor's request, which must not wait for a disk: safe from the end of the process, if that can be.
    Wanted,
}

/// Puts a hard purge of one target in force that nobody is told of.
fn record_at_once(shared: &Shared, target: Target) {
    record_told(shared, vec![target.clone()], Kind::Hard);
    shared.succession.tell(shared, &Invalidation::Targets(Kind::Hard, vec![target]));
}

/// Puts a purge in force of which everybody else knows.
pub(crate) fn record_told(shared: &Shared, targets: Vec<Target>, kind: Kind) {
    let _always = record(shared, targets, kind, Durability::Wanted);
}

fn record(
    shared: &Shared,
    targets: Vec<Target>,
    kind: Kind,
    durability: Durability,
) -> Result<u64, PurgeError> {
    // Held until the purge is in force, so that positions come into force in their order; look-ups never take it.
    let mut log = shared.purge_log.lock();
    let position = shared.purge_position.load(Ordering::Relaxed) + 1;
    let is_required = durability == Durability::Required;
    // Whoever takes over reads the log as it is now: it must not learn of this one later.
    if is_required && !shared.succession.is_serving() {
        return Err(PurgeError::HandingOver);
    }
    let appended =
        log.as_mut().map(|log| log.append(position, kind, &targets, &shared.site_numbers, is_required));
    let to_sync = match appended {
        None => None,
        Some(Ok(file)) => file,
        Some(Err(error)) if is_required => return Err(PurgeError::NotLogged(error.to_string())),
        Some(Err(error)) => {
            // The log has kept it, to be written with the next one.
            eprintln!("perigee: the purge log cannot be written: {error}");
            None
        }
    };
    {
        let mut purges = shared.purges.write();
        targets.into_iter().for_each(|target| purges.record(Purge { target, kind }, position));
        shared.purge_position.store(position, Ordering::Release);
    }
    drop(log);
    // Nobody else has to wait for the disk; what is purged earlier than it is safe is purged all the same.
    match to_sync {
        Some(file) if is_required => {
            file.sync_data().map_err(|error| PurgeError::NotSafe(error.to_string())).map(|()| position)
        }
        Some(file) => {
            // Once in many; whoever has asked doesn't wait for it.
            let _ = std::thread::Builder::new().name("purge-log".into()).spawn(move || file.sync_data());
            Ok(position)
        }
        None => Ok(position),
    }
}

fn targets(shared: &Shared, loaded: &Arc<Loaded>, target: &PurgeTarget) -> Result<Vec<Target>, PurgeError> {
    let number = |site: &Site| shared.site_numbers.of(&site.name);
    let named =
        |name: &String| loaded.snapshot.site_named(name).ok_or_else(|| PurgeError::UnknownSite(name.clone()));
    Ok(match target {
        PurgeTarget::Everything => vec![Target::Everything],
        PurgeTarget::Site(name) => vec![Target::Site(number(named(name)?))],
        PurgeTarget::Tag { tag, .. } if tag.is_empty() => return Err(PurgeError::EmptyTag),
        PurgeTarget::Tag { tag, site } => {
            let sites = match site {
                Some(name) => vec![named(name)?],
                None => loaded.snapshot.sites.iter().collect(),
            };
            let tag = tag_hash(&shared.tag_seed(), tag.as_bytes());
            sites.into_iter().map(|site| Target::Tag { site: number(site), tag }).collect()
        }
        PurgeTarget::Url(url) => {
            let url = Url::parse(url)?;
            let site = url.site(loaded)?;
            // Which rule stored it may have depended on more than the URL: each way to key the query is purged.
            let mut hashes: Vec<u128> = site
                .rules
                .iter()
                .chain([&site.defaults])
                .map(|rule| lookup::url_hash(shared, site, rule, url.authority, url.path, url.query))
                .collect();
            hashes.sort_unstable();
            hashes.dedup();
            hashes.into_iter().map(|url| Target::Url { site: number(site), url }).collect()
        }
        PurgeTarget::Prefix(text) => {
            let url = Url::parse(text)?;
            if url.query.is_some() {
                return Err(PurgeError::QueryInPrefix(text.clone()));
            }
            let site = url.site(loaded)?;
            let path = normalise_path(url.path.as_bytes());
            let path = String::from_utf8_lossy(&path).into_owned();
            vec![Target::Prefix { site: number(site), host: Some(url.host()), path }]
        }
    })
}

/// An absolute URL, taken apart.
pub(crate) struct Url<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) authority: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

impl<'a> Url<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, PurgeError> {
        let not_a_url = || PurgeError::NotAUrl(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(not_a_url)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(not_a_url()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if !semantics::request_rules::is_host(authority)
            || tail.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
        {
            return Err(not_a_url());
        }
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (tail, None),
        };
        Ok(Url { scheme, authority, path: if path.is_empty() { "/" } else { path }, query })
    }

    /// The host, lower case, without port.
    pub(crate) fn host(&self) -> String {
        crate::intake::without_port(self.authority).to_ascii_lowercase()
    }

    pub(crate) fn site<'l>(&self, loaded: &'l Loaded) -> Result<&'l Site, PurgeError> {
        let host = self.host();
        loaded.snapshot.site_for(&host).ok_or(PurgeError::UnknownHost(host))
    }
}
