//! What earlier configurations have stored things under, so that a purge by URL covers it too: after a change back, what was
//! stored before is reachable again, and must not have slept through a purge.
//!
//! A purge by URL is one of hashes, and a hash depends on the site that has the host and on which part of the query its rules
//! key. So for each site that there has been, its domains and its rules' recipes are remembered: those in force and, as far
//! as there is room, those before. What is forgotten is forgotten for all: when a site that has forgotten something gets a
//! domain or recipe that is not remembered, it is purged whole, before that is in force.
//!
//! With disks, the purge log has all of it, so that it lives as long as what was stored.

use std::collections::HashMap;

use model::Snapshot;
use semantics::key::{KeyRecipe, Query, QueryPart};
use serde::{Deserialize, Serialize};

/// Recipes remembered for each site; as many more as are in force.
const RECIPES_MAX: usize = 16;

/// Domains remembered for each site; as many more as are in force.
const DOMAINS_MAX: usize = 256;

/// Sites remembered; as many more as are in force. As many as a purge clock knows.
const SITES_MAX: usize = 65_536;

/// All sites that there have been.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    sites: HashMap<Box<str>, PastSite>,
    /// The sites that have or had a domain.
    by_domain: HashMap<Box<str>, Vec<Box<str>>>,
}

/// One site, now and before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PastSite {
    /// How its rules have keyed the query, the newest first. Nothing else of a recipe makes a difference for a URL.
    recipes: Vec<KeyRecipe>,
    /// As they are written, the newest first.
    domains: Vec<Box<str>>,
    /// Whether there have been more of either.
    has_forgotten: bool,
}

/// One site as it stands in the purge log. The newest line of a site counts; one without a name says that whole sites have
/// been forgotten.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
pub(crate) struct SiteLine {
    pub(crate) known: Box<str>,
    domains: Vec<Box<str>>,
    queries: Vec<LoggedQuery>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forgot: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
struct LoggedQuery {
    part: LoggedPart,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sort: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
enum LoggedPart {
    All,
    None,
    Keep(Vec<String>),
    Drop(Vec<String>),
}

/// What taking a configuration up has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// What is to be written down before the configuration is in force.
    pub(crate) lines: Vec<SiteLine>,
    /// Sites that are to be purged whole before: what they get may be something that was forgotten.
    pub(crate) to_purge: Vec<Box<str>>,
}

impl Past {
    /// What a purge log has told, line by line.
    pub(crate) fn of(lines: impl IntoIterator<Item = SiteLine>) -> Self {
        let mut past = Past::default();
        for line in lines {
            let recipes = line.queries.iter().map(LoggedQuery::to_recipe).collect();
            let site = PastSite { recipes, domains: line.domains, has_forgotten: line.forgot };
            past.sites.insert(line.known, site);
        }
        past.index();
        past
    }

    /// Remembers a configuration that is about to come into force.
    pub(crate) fn take(&mut self, snapshot: &Snapshot) -> Taken {
        self.take_with(snapshot, SITES_MAX)
    }

    fn take_with(&mut self, snapshot: &Snapshot, sites_max: usize) -> Taken {
        let mut taken = Taken::default();
        let has_forgotten_sites = self.sites.contains_key("");
        for site in &snapshot.sites {
            let mut recipes: Vec<KeyRecipe> = Vec::new();
            for rule in site.rules.iter().chain([&site.defaults]) {
                let recipe = KeyRecipe { query: rule.key.query.clone(), ..KeyRecipe::default() };
                if !recipes.contains(&recipe) {
                    recipes.push(recipe);
                }
            }
            let before = self.sites.get(&site.name);
            let mut now = PastSite {
                recipes,
                domains: site.domains.clone(),
                has_forgotten: before.map_or(has_forgotten_sites, |before| before.has_forgotten),
            };
            let is_known = before.is_some_and(|before| {
                now.recipes.iter().all(|recipe| before.recipes.contains(recipe))
                    && now.domains.iter().all(|domain| before.domains.contains(domain))
            });
            if now.has_forgotten && !is_known {
                taken.to_purge.push(site.name.clone());
            }
            if let Some(before) = before {
                now.has_forgotten |= remember(&mut now.recipes, &before.recipes, RECIPES_MAX);
                now.has_forgotten |= remember(&mut now.domains, &before.domains, DOMAINS_MAX);
            }
            if before != Some(&now) {
                taken.lines.push(SiteLine::of(&site.name, &now));
                self.sites.insert(site.name.clone(), now);
            }
        }
        if self.sites.len() > sites_max.max(snapshot.sites.len() + 1) {
            self.sites.retain(|name, _| snapshot.site_named(name).is_some());
            let forgotten = PastSite { has_forgotten: true, ..PastSite::default() };
            taken.lines.push(SiteLine::of("", &forgotten));
            self.sites.insert("".into(), forgotten);
        }
        self.index();
        taken
    }

    /// What differs from what a purge log knows.
    pub(crate) fn lines_beyond(&self, known: &Past) -> Vec<SiteLine> {
        let unknown = self.sites.iter().filter(|(name, site)| known.sites.get(*name) != Some(site));
        unknown.map(|(name, site)| SiteLine::of(name, site)).collect()
    }

    /// The recipes of a site; `None` for one that is not remembered.
    pub(crate) fn recipes_of(&self, site: &str) -> Option<&[KeyRecipe]> {
        self.sites.get(site).map(|site| &*site.recipes)
    }

    /// The sites that have or had a host: lower-case, without port.
    pub(crate) fn sites_of(&self, host: &str) -> Vec<&str> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut found: Vec<&str> = Vec::new();
        let mut add = |domain: &str| {
            let sites = self.by_domain.get(domain).into_iter().flatten();
            sites.for_each(|site| {
                if !found.contains(&&**site) {
                    found.push(site);
                }
            });
        };
        add(host);
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            add(&format!("*.{parent}"));
            rest = parent;
        }
        add("*");
        found
    }

    fn index(&mut self) {
        self.by_domain.clear();
        for (name, site) in &self.sites {
            for domain in &site.domains {
                self.by_domain.entry(domain.clone()).or_default().push(name.clone());
            }
        }
    }
}

/// Puts what there was behind what there is. Whether something had to be left out.
fn remember<T: Clone + PartialEq>(now: &mut Vec<T>, before: &[T], max: usize) -> bool {
    let max = max.max(now.len());
    let old: Vec<T> = before.iter().filter(|old| !now.contains(old)).cloned().collect();
    now.extend(old);
    let has_too_many = now.len() > max;
    now.truncate(max);
    has_too_many
}

impl SiteLine {
    fn of(name: &str, site: &PastSite) -> Self {
        SiteLine {
            known: name.into(),
            domains: site.domains.clone(),
            queries: site.recipes.iter().map(|recipe| LoggedQuery::of(&recipe.query)).collect(),
            forgot: site.has_forgotten,
        }
    }
}

impl LoggedQuery {
    fn of(query: &Query) -> Self {
        let part = match &query.part {
            QueryPart::All => LoggedPart::All,
            QueryPart::None => LoggedPart::None,
            QueryPart::Keep(names) => LoggedPart::Keep(names.clone()),
            QueryPart::Drop(names) => LoggedPart::Drop(names.clone()),
        };
        LoggedQuery { part, sort: query.sort }
    }

    fn to_recipe(&self) -> KeyRecipe {
        let part = match &self.part {
            LoggedPart::All => QueryPart::All,
            LoggedPart::None => QueryPart::None,
            LoggedPart::Keep(names) => QueryPart::Keep(names.clone()),
            LoggedPart::Drop(names) => QueryPart::Drop(names.clone()),
        };
        KeyRecipe { query: Query { part, sort: self.sort }, ..KeyRecipe::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(sites: &[(&str, &str, &str)]) -> Snapshot {
        let text: String = sites
            .iter()
            .map(|(name, domains, query)| {
                format!(
                    "[[site]]\nname = \"{name}\"\ndomains = [{domains}]\norigin = \"http://127.0.0.1\"\n\
                     [[site.rule]]\npath = \"/x/*\"\nquery = {query}\n"
                )
            })
            .collect();
        let parsed = Snapshot::parse(&text, "test");
        parsed.snapshot.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
    }

    fn keep(name: &str) -> String {
        format!("{{ keep = [\"{name}\"] }}")
    }

    #[test]
    fn what_a_site_had_stays_known_and_is_told_by_its_lines() {
        let mut past = Past::default();
        let mut lines = past.take(&snapshot(&[("a", "\"x.example\"", &keep("p"))])).lines;
        let second = past.take(&snapshot(&[
            ("a", "\"y.example\"", &keep("q")),
            ("b", "\"*.example\", \"z.test\"", "{ drop = [\"u\"], sort = true }"),
        ]));
        assert_eq!((second.lines.len(), second.to_purge.len()), (2, 0));
        lines.extend(second.lines);
        assert_eq!(past.sites_of("x.example."), ["a", "b"]);
        assert_eq!(past.sites_of("z.test"), ["b"]);
        assert!(past.sites_of("other.test").is_empty());
        // The default keys all of the query.
        assert_eq!(past.recipes_of("a").unwrap().len(), 3);
        assert!(past.recipes_of("c").is_none());
        let text: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        let told = Past::of(text.iter().map(|line| serde_json::from_str(line).unwrap()));
        assert_eq!(told.sites, past.sites);
        assert!(past.lines_beyond(&told).is_empty() && past.lines_beyond(&Past::default()).len() == 2);
    }

    #[test]
    fn the_same_configuration_again_has_nothing_to_write() {
        let mut past = Past::default();
        let configuration = snapshot(&[("a", "\"x.example\"", &keep("p"))]);
        past.take(&configuration);
        assert_eq!(past.take(&configuration), Taken::default());
    }

    #[test]
    fn what_comes_back_after_it_was_forgotten_purges_its_site() {
        let mut past = Past::default();
        let with = |name: usize| snapshot(&[("a", "\"x.example\"", &keep(&format!("p{name}")))]);
        // One place is the default's.
        for name in 0..RECIPES_MAX - 1 {
            assert!(past.take(&with(name)).to_purge.is_empty(), "{name}");
        }
        assert!(past.take(&with(0)).to_purge.is_empty(), "remembered");
        assert!(past.take(&with(99)).to_purge.is_empty(), "the oldest goes: nothing was forgotten before");
        assert!(past.take(&with(0)).to_purge.is_empty(), "still remembered");
        assert_eq!(past.take(&with(1)).to_purge, ["a".into()], "forgotten");
        assert!(past.take(&with(1)).to_purge.is_empty());
        assert_eq!(past.take(&with(100)).to_purge, ["a".into()], "never seen, or forgotten: who knows");
    }

    #[test]
    fn a_site_that_comes_back_after_sites_were_forgotten_is_purged() {
        let mut past = Past::default();
        let of = |name: &str| snapshot(&[(name, "\"x.example\"", &keep("p"))]);
        for name in ["a", "b"] {
            assert!(past.take_with(&of(name), 2).to_purge.is_empty());
        }
        assert!(past.take_with(&of("c"), 2).to_purge.is_empty());
        assert!(past.sites_of("x.example") == ["c"]);
        assert_eq!(past.take_with(&of("a"), 3).to_purge, ["a".into()]);
    }
}
