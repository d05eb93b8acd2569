//! Purges as they are ordered, turned into the purge clock's targets.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::change::{Order, What};
use model::purge::{Kind, Purge, Target};
use model::rule::write_scheme;
use model::{Scheme, Snapshot, Url};
use observe::{PurgeForm, PurgeScope};
use semantics::key::{KeyRecipe, hash, normalise_path, write_url_key};
use semantics::tags::tag_hash;

use crate::loaded::RuleAt;
use crate::past::Past;
use crate::request::Request;
use crate::succession::Invalidation;
use crate::worker::Shared;

/// Proof of several purges that were put in force as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Their place in the order of purges.
    pub position: u64,
    /// How many of them have purged more than they name, because this node could not tell what that is.
    pub widened: usize,
}

/// Why a purge was not carried out. Nothing has been purged then, unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeError {
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

/// Who else knows of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Every node of the cluster, by its journal.
    Everybodys,
    /// Nobody else.
    Own,
}

/// Puts purges in force as one: after this returns, no request that starts later is answered with what they match, also not by a
/// process before this one that has not ended yet. What this node cannot make sense of purges more, never less.
pub(crate) fn apply(shared: &Shared, orders: &[Order], whose: Whose) -> Result<Applied, PurgeError> {
    if orders.is_empty() {
        return Ok(Applied { position: shared.purge_position.load(Ordering::Acquire), widened: 0 });
    }
    // Held until they are in force: a configuration that comes into force meanwhile could store under what is not purged.
    let past = shared.past.lock();
    let aims: Vec<Aim> = orders.iter().map(|order| aim(shared, &past, &order.what)).collect();
    let widened = aims.iter().filter(|aim| aim.is_widened).count();
    let kind = |order: &Order| if order.soft { Kind::Soft } else { Kind::Hard };
    let mut seen = HashSet::new();
    let mut purges = Vec::with_capacity(aims.len());
    let mut for_before = Vec::new();
    for (order, Aim { targets, for_before: other, .. }) in orders.iter().zip(aims) {
        let kind = kind(order);
        for_before.extend(other.into_iter().map(|target| Purge { target, kind }));
        for target in targets {
            let purge = Purge { target, kind };
            if seen.insert(purge.clone()) {
                purges.push(purge);
            }
        }
    }
    let recorded = record(shared, &purges, Durability::Required, whose);
    drop(past);
    let (position, to_sync) = recorded?;
    for_before.extend(purges);
    make_safe(shared, to_sync, &for_before)?;
    for order in orders {
        let scope = match order.what {
            What::Url { .. } => PurgeScope::Url,
            What::Prefix { .. } => PurgeScope::Prefix,
            What::Tag { .. } => PurgeScope::Tag,
            What::Site { .. } => PurgeScope::Site,
            What::Everything => PurgeScope::Everything,
        };
        shared.registry.count_purge(scope, if order.soft { PurgeForm::Soft } else { PurgeForm::Hard });
    }
    shared.registry.count_widened_purges(widened as u64);
    Ok(Applied { position, widened })
}

/// Makes everything that was stored until now subject to validation before it is served again: something that was purged may
/// be among it.
pub(crate) fn distrust(shared: &Shared) -> Result<u64, PurgeError> {
    let purges = [Purge { target: Target::Everything, kind: Kind::Doubt }];
    let (position, to_sync) = record(shared, &purges, Durability::Required, Whose::Everybodys)?;
    make_safe(shared, to_sync, &purges)?;
    shared.registry.count_distrust();
    Ok(position)
}

/// Remembers what a configuration stores under, and calls `replace`, which puts it in force. Purges that come meanwhile wait,
/// so that each knows the one or both.
///
/// # Errors
/// It could not be written down: then the configuration must not come into force, and has not.
pub(crate) fn adopt<T>(
    shared: &Shared,
    snapshot: Snapshot,
    replace: impl FnOnce(Snapshot) -> T,
) -> Result<T, PurgeError> {
    let mut past = shared.past.lock();
    let mut next = past.clone();
    let taken = next.take(&snapshot);
    let noted = shared.purge_log.lock().as_mut().map_or(Ok(None), |log| log.note_sites(taken.lines));
    // Without the lock: what visitors' requests invalidate goes into the log too.
    let synced = noted.and_then(|to_sync| to_sync.map_or(Ok(()), |file| file.sync_data()));
    synced.map_err(|error| PurgeError::NotLogged(error.to_string()))?;
    let site = |name: &str| Target::Site(shared.site_numbers.of(name));
    let purges: Vec<Purge> =
        taken.to_purge.iter().map(|name| Purge { target: site(name), kind: Kind::Hard }).collect();
    if !purges.is_empty() {
        let names = taken.to_purge.join(", ");
        eprintln!(
            "perigee: what earlier configurations of {names} have stored is dropped: there were too many to remember"
        );
        let (_, to_sync) = record(shared, &purges, Durability::Required, Whose::Everybodys)?;
        make_safe(shared, to_sync, &purges)?;
    }
    *past = next;
    Ok(replace(snapshot))
}

/// Makes what is stored under a URL of the same host unreachable, because an unsafe request has changed it. `url` is
/// path and query. What is in flight for it is not stored either. How many epochs of `own` that has begun.
pub(crate) fn invalidate_url(shared: &Shared, at: &RuleAt, request: &Request, url: &str, own: u128) -> u64 {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (url, None),
    };
    let site = at.site();
    let mut seen: Vec<(&KeyRecipe, bool)> = Vec::new();
    let mut begun = 0;
    for rule in site.rules.iter().chain([&site.defaults]).filter(|rule| !rule.is_response_rule()) {
        let recipe = &rule.key;
        let way = (recipe, rule.has_own_keys());
        if seen.contains(&way) {
            continue;
        }
        seen.push(way);
        let mut text = Vec::with_capacity(128);
        let query = query.map(str::as_bytes);
        write_url_key(&mut text, recipe, &site.name, &request.authority, path.as_bytes(), query);
        if shared.certified.is_there() {
            shared.purge_positions.write().changed(hash(&shared.seed, &text));
        }
        let is_plain = recipe.headers.is_empty() && recipe.cookies.is_empty() && !recipe.device_class;
        if is_plain && !rule.has_own_keys() {
            // The URL has one key in this rule: taking it away costs nothing later, unlike a purge that each hit would
            // have to check.
            for scheme in [Scheme::Http, Scheme::Https] {
                let length = text.len();
                write_scheme(&mut text, scheme);
                let key = hash(&shared.seed, &text);
                text.truncate(length);
                // The epoch first: what is in flight must not be stored after the removal.
                shared.epochs.advance(key);
                begun += u64::from(shared.epochs.is_shared(key, own));
                shared.forget(key);
                shared.succession.tell(shared, &Invalidation::Key(key));
            }
        } else {
            let url = hash(&shared.seed, &text);
            record_at_once(shared, Target::Url { site: at.site_number(), url });
        }
    }
    begun
}

/// Makes what carries a cache group stale (RFC 9875 §3: invalidation, as by an unsafe method).
pub(crate) fn invalidate_group(shared: &Shared, at: &RuleAt, group: &[u8]) {
    let tag = tag_hash(&shared.tag_seed(), group);
    record_at_once(shared, Target::Tag { site: Some(at.site_number()), tag });
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

/// Puts a purge in force that a visitor's request, or the process that is being replaced, has brought about: as far as other edges
/// are concerned, nobody knows of it but this one.
pub(crate) fn record_told(shared: &Shared, targets: Vec<Target>, kind: Kind) {
    let purges: Vec<Purge> = targets.into_iter().map(|target| Purge { target, kind }).collect();
    let Ok((_, Some(file))) = record(shared, &purges, Durability::Wanted, Whose::Own) else { return };
    // Once in many; whoever has asked doesn't wait for it.
    let _ = std::thread::Builder::new().name("purge-log".into()).spawn(move || file.sync_data());
}

/// Returns when purges that are in force here are so in the processes before this one too, and safe from a loss of power: `to_sync`
/// comes from [`record`].
fn make_safe(shared: &Shared, to_sync: Option<Arc<File>>, purges: &[Purge]) -> Result<(), PurgeError> {
    let synced = to_sync.map_or(Ok(()), |file| file.sync_data());
    shared.succession.purge_before(shared, purges);
    synced.map_err(|error| PurgeError::NotSafe(error.to_string()))
}

/// Puts purges in force at one position. What comes with it is to be synced before they are acknowledged; nobody else has to
/// wait for the disk, and what is purged earlier than it is safe is purged all the same.
fn record(
    shared: &Shared,
    purges: &[Purge],
    durability: Durability,
    whose: Whose,
) -> Result<(u64, Option<Arc<File>>), PurgeError> {
    // Held until the purges are in force, so that positions come into force in their order; look-ups never take it.
    let mut log = shared.purge_log.lock();
    let position = shared.purge_position.load(Ordering::Relaxed) + 1;
    let is_required = durability == Durability::Required;
    // Whoever takes over reads the log as it is now: it must not learn of this one later.
    if is_required && !shared.succession.is_serving() {
        return Err(PurgeError::HandingOver);
    }
    let appended = log.as_mut().map(|log| log.append(position, purges, &shared.site_numbers, is_required));
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
    if whose == Whose::Own && shared.certified.is_there() {
        shared.purge_positions.write().purged_here(purges, position);
    }
    let mut clock = shared.purges.write();
    purges.iter().for_each(|purge| clock.record(purge.clone(), position));
    let before = shared.purge_position.fetch_max(position, Ordering::AcqRel);
    debug_assert!(before < position, "{before} was in force before {position}");
    Ok((position, to_sync))
}

/// What an order comes to on this node.
struct Aim {
    targets: Vec<Target>,
    /// For a process that drains: it may have stored under what nobody here knows.
    for_before: Option<Target>,
    is_widened: bool,
}

impl Aim {
    fn at(targets: Vec<Target>) -> Self {
        Aim { targets, for_before: None, is_widened: false }
    }

    fn widened(target: Target) -> Self {
        Aim { targets: vec![target], for_before: None, is_widened: true }
    }
}

/// What an order matches here: on every site that has or had the host, under each recipe that such a site has or had.
fn aim(shared: &Shared, past: &Past, what: &What) -> Aim {
    let number = |site: &str| shared.site_numbers.of(site);
    let (site, text) = match what {
        What::Everything => return Aim::at(vec![Target::Everything]),
        What::Site { site } => return Aim::at(vec![Target::Site(number(site))]),
        What::Tag { site, tag } => {
            let site = site.as_deref().map(number);
            if tag.is_empty() {
                return Aim::widened(site.map_or(Target::Everything, Target::Site));
            }
            return Aim::at(vec![Target::Tag { site, tag: tag_hash(&shared.tag_seed(), tag.as_bytes()) }]);
        }
        What::Url { site, url } => (site, url),
        What::Prefix { site, prefix } => (site, prefix),
    };
    let whole = || Aim::widened(Target::Site(number(site)));
    let Ok(url) = Url::parse(text) else { return whole() };
    let host = url.host();
    let mut sites = past.sites_of(&host);
    if sites.is_empty() {
        return whole();
    }
    // A site that this node doesn't know may be one that it knows by an older name: what has the host is purged too.
    let is_unknown = past.recipes_of(site).is_none();
    let mut targets = Vec::new();
    if is_unknown {
        targets.push(Target::Site(number(site)));
    } else if !sites.contains(&&**site) {
        sites.push(site);
    }
    let prefix = |site: &str| {
        let path = String::from_utf8_lossy(&normalise_path(url.path.as_bytes())).into_owned();
        Target::Prefix { site: number(site), host: Some(host.clone()), path }
    };
    if matches!(what, What::Prefix { .. }) {
        targets.extend(sites.into_iter().map(prefix));
        return Aim { targets, for_before: None, is_widened: is_unknown || url.query.is_some() };
    }
    let (path, query) = (url.path.as_bytes(), url.query.map(str::as_bytes));
    let mut text = Vec::with_capacity(128);
    for site in sites {
        let mut hashes: Vec<u128> = Vec::new();
        for recipe in past.recipes_of(site).unwrap_or_default() {
            text.clear();
            write_url_key(&mut text, recipe, site, url.authority, path, query);
            let url = hash(&shared.seed, &text);
            if !hashes.contains(&url) {
                hashes.push(url);
                targets.push(Target::Url { site: number(site), url });
            }
        }
    }
    Aim {
        targets,
        for_before: shared.succession.has_predecessor().then(|| prefix(site)),
        is_widened: is_unknown,
    }
}
