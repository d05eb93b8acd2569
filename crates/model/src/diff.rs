//! What tells two configurations of a cluster apart: key by key for the eye, and what of it needs a second thought. For
//! `perigee diff`, and for a roll-out that has to know whether sites begin empty.
//!
//! Lines come from the texts, so that they say what people wrote; warnings come from what the texts mean, so that a key of the
//! site that changes all its rules is seen in each.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use toml::{Table, Value};

use crate::cluster::Switches;
use crate::diagnostic::Diagnostic;
use crate::rule::{Cache, Rule};
use crate::settings::Network;
use crate::snapshot::{Site, Snapshot};
use crate::units::write_duration;
use semantics::policy::SetCookie;

/// A TTL that is raised beyond this is warned of: what is stored wrongly then stays for so long, unless somebody purges it.
pub const TTL_LONG_SECS: u64 = 7 * 86_400;
/// Networks that are blocked and as short as this, or shorter, are warned of: providers have such.
const BLOCK_WIDE: (u8, u8) = (12, 28);
/// Characters of a value that are shown.
const SHOWN_MAX: usize = 160;
/// Keys that say what a rule is for: a rule without a name is known by them.
const CONDITIONS: [&str; 7] = ["path", "methods", "hosts", "scheme", "with_header", "with_cookie", "status"];

/// What tells two configurations apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// In the order of sites and keys.
    pub changes: Vec<Change>,
    /// What needs a second thought.
    pub warnings: Vec<Warning>,
    /// Whether sites, or parts of them, begin empty: [`crate::rollout::Rollout::is_cold`].
    pub is_cold: bool,
}

/// One key that is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The site; `None` for what concerns all.
    pub site: Option<String>,
    /// The rule: its name, or its number in the new text (in the old one if it is gone) and what it is for.
    pub rule: Option<String>,
    /// The key, with those of the tables around it: `origin_options.timeouts.connect`. Empty for a site or rule as a whole.
    pub key: String,
    /// Its value before, as TOML; `None` when it was not there.
    pub from: Option<String>,
    /// Its value now.
    pub to: Option<String>,
}

/// Something to think about twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The site; `None` for what concerns all.
    pub site: Option<String>,
    /// What it does: a sentence.
    pub message: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match (&self.site, &self.rule) {
            (Some(site), Some(rule)) => format!("site {site}, rule {rule}"),
            (Some(site), None) => format!("site {site}"),
            (None, _) => "all sites".to_owned(),
        };
        let key = if self.key.is_empty() { String::new() } else { format!(": {}", self.key) };
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{place}{key}: {from} → {to}"),
            (None, Some(to)) if self.key.is_empty() => write!(f, "+ {place}: {to}"),
            (None, Some(to)) => write!(f, "{place}{key}: + {to}"),
            (Some(from), None) if self.key.is_empty() => write!(f, "− {place}: {from}"),
            (Some(from), None) => write!(f, "{place}{key}: − {from}"),
            (None, None) => write!(f, "{place}{key}"),
        }
    }
}

impl fmt::Display for Difference {
    /// A line for each, the warnings last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))?;
        self.warnings.iter().try_for_each(|warning| match &warning.site {
            Some(site) => writeln!(f, "warning: site {site}: {}", warning.message),
            None => writeln!(f, "warning: {}", warning.message),
        })
    }
}

/// Compares two texts that [`Snapshot::parse_cluster`] takes.
///
/// # Errors
/// One of them has errors: those of the new one, or else of the old one, by these names.
pub fn diff(old: &str, new: &str) -> Result<Difference, Vec<Diagnostic>> {
    let read = |text: &str, name: &str| {
        let parsed = Snapshot::parse_cluster(text, name);
        let snapshot = parsed.snapshot.ok_or(parsed.diagnostics)?;
        // What a snapshot came from is TOML.
        Ok::<_, Vec<Diagnostic>>((snapshot, text.parse::<Table>().unwrap_or_default()))
    };
    let ((new, new_text), (old, old_text)) = (read(new, "the new text")?, read(old, "the old text")?);
    let mut difference = Difference::default();
    let common = |text: &Table| -> Table {
        text.iter()
            .filter(|(key, _)| *key != "site")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    difference.compare(None, None, "", &common(&old_text), &common(&new_text));
    difference.warn_of_common(&old, &new, &new_text);
    let (old_sites, new_sites) = (tables(&old_text, "site"), tables(&new_text, "site"));
    for (site, text) in old.sites.iter().zip(&old_sites) {
        match new.sites.iter().zip(&new_sites).find(|(other, _)| other.name == site.name) {
            Some((other, other_text)) => difference.compare_sites((site, text), (other, other_text)),
            None => {
                difference.push(Some(site), None, "", Some(shown_table(text)), None);
                difference.warn(Some(site), "is gone: what it stored is of no use, and its domains are served by nobody unless they went to another site".to_owned());
            }
        }
    }
    for (site, text) in
        new.sites.iter().zip(&new_sites).filter(|(site, _)| old.site_named(&site.name).is_none())
    {
        difference.push(Some(site), None, "", None, Some(shown_table(text)));
    }
    difference.warn_of_domains(&old, &new);
    Ok(difference)
}

impl Difference {
    /// Whether both say the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn push(
        &mut self,
        site: Option<&Site>,
        rule: Option<&str>,
        key: &str,
        from: Option<String>,
        to: Option<String>,
    ) {
        let (site, rule) = (site.map(|site| site.name.to_string()), rule.map(str::to_owned));
        self.changes.push(Change { site, rule, key: key.to_owned(), from, to });
    }

    fn warn(&mut self, site: Option<&Site>, message: String) {
        self.warnings.push(Warning { site: site.map(|site| site.name.to_string()), message });
    }

    /// Key by key; `under` is where the tables stand.
    fn compare(&mut self, site: Option<&Site>, rule: Option<&str>, under: &str, old: &Table, new: &Table) {
        let keys: BTreeMap<&String, ()> = old.keys().chain(new.keys()).map(|key| (key, ())).collect();
        for key in keys.into_keys() {
            let path = if under.is_empty() { key.clone() } else { format!("{under}.{key}") };
            match (old.get(key), new.get(key)) {
                (Some(Value::Table(old)), Some(Value::Table(new))) => {
                    self.compare(site, rule, &path, old, new)
                }
                (Some(old), Some(new)) if items(old) == items(new) => {}
                (Some(old @ Value::Array(_)), Some(new @ Value::Array(_))) => {
                    let (old, new) = (items(old), items(new));
                    let gone: Vec<Value> = old.iter().filter(|item| !new.contains(item)).cloned().collect();
                    let come: Vec<Value> = new.iter().filter(|item| !old.contains(item)).cloned().collect();
                    if gone.is_empty() && come.is_empty() {
                        self.push(
                            site,
                            rule,
                            &path,
                            Some(shown(&Value::Array(old))),
                            Some(shown(&Value::Array(new))),
                        );
                        continue;
                    }
                    let list = |items: Vec<Value>| match items.len() {
                        0 => None,
                        1..=8 => Some(shown(&Value::Array(items))),
                        count => Some(format!("{count} entries")),
                    };
                    let (gone, come) = (list(gone), list(come));
                    self.push(site, rule, &path, gone, come);
                }
                (old, new) => self.push(site, rule, &path, old.map(shown), new.map(shown)),
            }
        }
    }

    fn compare_sites(&mut self, (old, old_text): (&Site, &Table), (new, new_text): (&Site, &Table)) {
        let own = |text: &Table| -> Table {
            let own = text.iter().filter(|(key, _)| !matches!(key.as_str(), "rule" | "test" | "name"));
            own.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        self.compare(Some(new), None, "", &own(old_text), &own(new_text));
        let (old_rules, new_rules) = (tables(old_text, "rule"), tables(new_text, "rule"));
        let (old_ids, new_ids) = (identities(&old_rules), identities(&new_rules));
        let place = |id: &(String, usize), of: &[(String, usize)]| of.iter().position(|other| other == id);
        let mut pairs = vec![(&old.defaults, &new.defaults)];
        let mut order = Vec::new();
        for (index, id) in old_ids.iter().enumerate() {
            let Some(at) = place(id, &new_ids) else {
                let name = title(&old_rules[index], index);
                self.push(Some(new), Some(&name), "", Some(shown_table(&old_rules[index])), None);
                self.warn_of_lone(new, &name, &old.rules[index], &old.defaults);
                continue;
            };
            order.push(at);
            pairs.push((&old.rules[index], &new.rules[at]));
            let name = title(&new_rules[at], at);
            let named = |text: &Table| -> Table {
                text.iter().filter(|(key, _)| *key != "name").map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            self.compare(Some(new), Some(&name), "", &named(&old_rules[index]), &named(&new_rules[at]));
        }
        for (index, _) in new_ids.iter().enumerate().filter(|(_, id)| place(id, &old_ids).is_none()) {
            let name = title(&new_rules[index], index);
            self.push(Some(new), Some(&name), "", None, Some(shown_table(&new_rules[index])));
            self.warn_of_lone(new, &name, &new.rules[index], &new.defaults);
            self.warn_of_looser(new, &name, &new.defaults, &new.rules[index]);
        }
        if !order.is_sorted() {
            self.push(Some(new), None, "rule", None, Some("another order".to_owned()));
            self.warn(
                Some(new),
                "its rules come in another order: the first that matches decides".to_owned(),
            );
        }
        let tests = |text: &Table| items(text.get("test").unwrap_or(&Value::Array(Vec::new())));
        if tests(old_text) != tests(new_text) {
            let count = |text| Some(format!("{} tests", tests(text).len()));
            self.push(Some(new), None, "test", count(old_text), count(new_text));
        }
        self.warn_of_rules(new, &pairs);
    }

    // --- Warnings ---

    fn warn_of_rules(&mut self, site: &Site, pairs: &[(&Rule, &Rule)]) {
        let names = |differs: &dyn Fn(&Rule, &Rule) -> bool| -> Option<String> {
            let names: Vec<String> =
                pairs.iter().filter(|(old, new)| differs(old, new)).map(|(_, new)| called(new)).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if let Some(names) = names(&|old, new| has_other_key(old, new)) {
            self.is_cold = true;
            let message = format!(
                "requests are told apart in another way ({names}): what is stored is not found, and these begin empty"
            );
            self.warn(Some(site), message);
        }
        if let Some(names) = names(&|old, new| old.cache == Cache::Use && new.cache == Cache::Pass) {
            self.is_cold = true;
            self.warn(
                Some(site),
                format!("the cache is not used any more ({names}): the origin gets every request"),
            );
        }
        for (old, new) in pairs {
            self.warn_of_looser(site, &called(new), old, new);
        }
    }

    /// A rule that comes or goes takes requests from, or leaves them to, another: the site's own keys, at least.
    fn warn_of_lone(&mut self, site: &Site, name: &str, rule: &Rule, defaults: &Rule) {
        if !rule.is_response_rule() && rule.redirect.is_none() && has_other_key(rule, defaults) {
            self.is_cold = true;
            let message =
                format!("what rule {name} is for is told apart in another way than before: it begins empty");
            self.warn(Some(site), message);
        }
    }

    fn warn_of_looser(&mut self, site: &Site, name: &str, old: &Rule, new: &Rule) {
        let (before, now) = (&old.policy, &new.policy);
        let looseness = |choice: SetCookie| match choice {
            SetCookie::Never => 0,
            SetCookie::Refuse => 1,
            SetCookie::Strip => 2,
            SetCookie::Rfc9111 => 3,
        };
        if looseness(now.set_cookie) > looseness(before.set_cookie) {
            let message = match now.set_cookie {
                SetCookie::Rfc9111 => {
                    format!("{name}: answers that set a cookie are stored, and the cookie given to others")
                }
                SetCookie::Refuse => {
                    format!(
                        "{name}: answers that set a cookie are stored with it where their origin says that they are for all"
                    )
                }
                _ => format!(
                    "{name}: answers that set a cookie are stored without it; they may have been made for one visitor"
                ),
            };
            self.warn(Some(site), message);
        }
        if now.share_authorized && !before.share_authorized {
            let message = format!("{name}: answers to requests with Authorization are given to others");
            self.warn(Some(site), message);
        }
        let longest = |rule: &Rule| {
            rule.policy.ttl.into_iter().chain(rule.policy.ttl_by_status.iter().map(|(_, ttl)| *ttl)).max()
        };
        if let Some(ttl) = longest(new).filter(|ttl| *ttl > TTL_LONG_SECS && Some(*ttl) > longest(old)) {
            let ttl = write_duration(std::time::Duration::from_secs(ttl));
            let message = format!(
                "{name}: ttl is raised to {ttl}: what is stored wrongly stays for so long, unless it is purged"
            );
            self.warn(Some(site), message);
        }
    }

    fn warn_of_common(&mut self, old: &Snapshot, new: &Snapshot, text: &Table) {
        let (before, now) = (&old.switches, &new.switches);
        type Switch = fn(&Switches) -> bool;
        let switches: [(&str, Switch); 6] = [
            ("http2", |switches| switches.http2),
            ("http3", |switches| switches.http3),
            ("compress", |switches| switches.compress),
            ("early_hints", |switches| switches.early_hints),
            ("disk", |switches| switches.disk),
            ("websocket", |switches| switches.websocket),
        ];
        for (name, _) in switches.iter().filter(|(_, is_on)| is_on(before) && !is_on(now)) {
            self.warn(None, format!("{name} is switched off, on all sites"));
        }
        // Without disks what does not fit into memory is missed.
        self.is_cold |= before.disk && !now.disk;
        let blocked = text.get("block").map(items).unwrap_or_default();
        let networks = blocked.iter().filter_map(Value::as_str).filter_map(|text| Network::parse(text).ok());
        for network in networks {
            let (first, last) = network.range();
            let short = if first.is_ipv4() { BLOCK_WIDE.0 } else { BLOCK_WIDE.1 };
            let was_blocked = old.block.contains(first) && old.block.contains(last);
            if network.prefix_len() <= short && !was_blocked {
                self.warn(None, format!("a wide network is blocked: {first} to {last}"));
            }
        }
    }

    fn warn_of_domains(&mut self, old: &Snapshot, new: &Snapshot) {
        for (site, domain) in
            old.sites.iter().flat_map(|site| site.domains.iter().map(move |domain| (site, domain)))
        {
            let owner = new.sites.iter().find(|other| other.domains.contains(domain));
            match owner {
                Some(owner) if owner.name != site.name => {
                    self.is_cold = true;
                    let message = format!("{domain} goes to the site {}: there it begins empty", owner.name);
                    self.warn(Some(site), message);
                }
                None if new.site_named(&site.name).is_some() => {
                    self.warn(
                        Some(site),
                        format!("{domain} is gone: it is served by nobody, unless a wildcard is for it"),
                    );
                }
                _ => {}
            }
        }
    }
}

/// Whether what was stored by one rule is not found by the other.
fn has_other_key(old: &Rule, new: &Rule) -> bool {
    old.cache == Cache::Use
        && new.cache == Cache::Use
        && (old.key != new.key || old.policy.vary_normalise != new.policy.vary_normalise)
}

fn called(rule: &Rule) -> String {
    if rule.number == 0 { "the site's own keys".to_owned() } else { rule.name().into_owned() }
}

/// The tables of an array.
fn tables(of: &Table, key: &str) -> Vec<Table> {
    of.get(key).map(items).unwrap_or_default().iter().filter_map(|item| item.as_table().cloned()).collect()
}

/// A list, or one value alone as a list.
fn items(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        alone => vec![alone.clone()],
    }
}

/// What rules are known by: their names, or what they are for; and which of several such.
fn identities(rules: &[Table]) -> Vec<(String, usize)> {
    let mut known: Vec<(String, usize)> = Vec::new();
    for rule in rules {
        let id = match rule.get("name") {
            Some(name) => format!("name {name}"),
            None => {
                let conditions = CONDITIONS.iter().filter_map(|key| Some((key, items(rule.get(*key)?))));
                conditions.map(|(key, value)| format!("{key} {}\n", Value::Array(value))).collect()
            }
        };
        let earlier = known.iter().filter(|(other, _)| *other == id).count();
        known.push((id, earlier));
    }
    known
}

/// What people call a rule: its name, or its number and what it is for.
fn title(rule: &Table, index: usize) -> String {
    let number = index + 1;
    match (rule.get("name").and_then(Value::as_str), rule.get("path")) {
        (Some(name), _) => name.to_owned(),
        (None, Some(path)) => format!("{number} ({})", shown(path)),
        (None, None) => number.to_string(),
    }
}

fn shown(value: &Value) -> String {
    cut(&value.to_string())
}

/// A table on one line, without its name.
fn shown_table(table: &Table) -> String {
    let keys = table.iter().filter(|(key, _)| *key != "name" && *key != "test");
    cut(&keys.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", "))
}

/// As much as is worth reading; control characters must not reach a terminal.
fn cut(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
