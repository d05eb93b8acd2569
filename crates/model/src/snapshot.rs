//! One immutable version of the whole configuration, and the way from a request to its site and rule.
//!
//! Built once ([`Snapshot::parse`], [`Snapshot::for_origin`], or [`Snapshot::parse_cluster`] and then
//! [`Snapshot::for_node`]), then only read: the edge holds it in an `Arc`, takes
//! it at a request's start and keeps it to the end. Finding site and rule allocates nothing, unless a path has
//! percent-encodings that must be written another way first.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use semantics::key::normalise_path;

use crate::block::BlockList;
use crate::cluster::Switches;
use crate::diagnostic::{Diagnostic, Lines, Severity};
use crate::origin::{Origin, OriginGroup};
use crate::routing::{Pop, Routing};
use crate::rule::{Matched, RequestView, Rule};
use crate::settings::EdgeSettings;
use crate::site_test::SiteTest;
use crate::tiers::Shield;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// What the node is told about itself.
    pub edge: EdgeSettings,
    /// What is switched off.
    pub switches: Switches,
    /// Whom nobody serves.
    pub block: BlockList,
    /// Where visitors are sent, by the router.
    pub routing: Routing,
    /// The sites, in the order of the file.
    pub sites: Vec<Site>,
    domains: DomainIndex,
}

/// What [`Snapshot::parse`] found out.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The configuration; `None` when a diagnostic is an error.
    pub snapshot: Option<Snapshot>,
    /// Everything that is wrong or doubtful, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// After the tests of its sites: each expectation that fails is an error, in its place, and with any error there is no snapshot.
    pub fn tested(self) -> Parsed {
        let Parsed { snapshot, mut diagnostics } = self;
        diagnostics.extend(snapshot.iter().flat_map(Snapshot::run_tests));
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        let snapshot = snapshot.filter(|_| !diagnostics.iter().any(Diagnostic::is_error));
        Parsed { snapshot, diagnostics }
    }
}

/// One or more domains served from origins under one list of rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Its name: part of each key, of logs and of metrics. Letters, digits, `-`, `_` and `.`, at most 64.
    pub name: Box<str>,
    /// Its place in [`Snapshot::sites`].
    pub index: usize,
    /// Its domains, lower-case: `www.shop.example`, `*.shop.example`, `*`.
    pub domains: Vec<Box<str>>,
    /// PEM file with the authorities whose certificates its visitors may show; `None` asks nobody for one.
    pub client_ca: Option<PathBuf>,
    /// Where it is served: names of PoPs and of regions; everywhere when empty. See [`Routing::pops_of`].
    pub pops: Vec<Box<str>>,
    /// Through which PoPs its origin is asked: the first whose `from` fits. See [`Site::shields_from`].
    pub shields: Vec<Shield>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
    /// What applies when no rule matches.
    pub defaults: Rule,
    /// For how long a node may not have heard of purges before its hits are validated; for ever without.
    pub max_purge_lag: Option<Duration>,
    /// Its tests, in order.
    pub tests: Vec<SiteTest>,
    /// Line of the configuration where it begins; 0 when there is no configuration.
    pub line: u32,
    /// Whether any rule waits for the response's status.
    pub(crate) has_response_rules: bool,
}

impl Snapshot {
    /// A configuration of one site, `default`, that serves every host from the origin at `url`, with every choice at
    /// its default. The error points into `url`.
    #[expect(clippy::result_large_err, reason = "called once, at the start")]
    pub fn for_origin(url: &str) -> Result<Snapshot, Diagnostic> {
        let origin = Origin::parse(url).map_err(|bad| {
            let message = format!("the origin {url:?} {}", bad.reason);
            Diagnostic::at(Severity::Error, "--origin", url, &Lines::of(url), 0..url.len(), message, bad.help)
        })?;
        let defaults = Rule::defaults(Arc::new(OriginGroup::of(origin)), 0);
        let site = Site {
            name: "default".into(),
            index: 0,
            domains: vec!["*".into()],
            client_ca: None,
            pops: Vec::new(),
            shields: Vec::new(),
            rules: Vec::new(),
            defaults,
            max_purge_lag: None,
            tests: Vec::new(),
            line: 0,
            has_response_rules: false,
        };
        Ok(Snapshot::of(EdgeSettings::default(), vec![site]))
    }

    /// What a node of a cluster has before it has been told of any site: it answers nobody's requests.
    pub fn without_sites(edge: EdgeSettings) -> Snapshot {
        Snapshot::of(edge, Vec::new())
    }

    /// Puts sites together. A domain that two sites claim belongs to the first; the reader has refused that.
    pub(crate) fn of(edge: EdgeSettings, sites: Vec<Site>) -> Snapshot {
        let domains = DomainIndex::of(&sites);
        let (switches, block, routing) = Default::default();
        Snapshot { edge, switches, block, routing, sites, domains }
    }

    /// What a cluster's configuration ([`Snapshot::parse_cluster`]) is on one of its nodes, which has these settings.
    pub fn for_node(&self, edge: EdgeSettings) -> Snapshot {
        Snapshot { edge, ..self.clone() }
    }

    /// The site that answers for `host`: lower-case, without port. An exact domain wins over a wildcard, a longer
    /// wildcard over a shorter one, any over `*`. `None` when the configuration has no such host, and then nothing
    /// may be fetched for it. A dot at the end does not count. Two hash look-ups for most hosts, no allocation.
    pub fn site_for(&self, host: &str) -> Option<&Site> {
        self.domains.find(host).map(|index| &self.sites[index])
    }

    /// The site of this name.
    pub fn site_named(&self, name: &str) -> Option<&Site> {
        self.sites.iter().find(|site| &*site.name == name)
    }
}

impl Site {
    /// The rule that decides about a request: the first whose conditions hold, else the site's defaults.
    ///
    /// Paths are compared in their normalised spelling, so that `/%73tatic/` is `/static/`. A path with dot segments
    /// ([`semantics::key::has_dot_segment`]) is compared as it is, and the caller must not store its answer.
    pub fn match_rule(&self, request: &RequestView<'_>) -> Matched<'_> {
        self.find(request, |rule| !rule.is_response_rule())
            .unwrap_or(Matched { rule: &self.defaults, index: self.rules.len() })
    }

    /// The PoPs through which edges of `pop` ask its origin, in the order in which they are asked: none for those that are
    /// themselves the first. Of several, `pop` itself ends the list: what comes after it is farther from the origin's owner's
    /// wish than itself.
    pub fn shields_from(&self, pop: &Pop) -> &[Box<str>] {
        let fits = |shield: &&Shield| {
            shield.from.is_empty()
                || shield.from.iter().any(|name| *name == pop.name || pop.regions.contains(name))
        };
        let pops = self.shields.iter().find(fits).map_or(&[][..], |shield| &shield.pops);
        &pops[..pops.iter().position(|name| *name == pop.name).unwrap_or(pops.len())]
    }

    /// The response rule that changes an answer with `status`, if any. Costs nothing for a site without such rules.
    pub fn match_response(&self, request: &RequestView<'_>, status: u16) -> Option<Matched<'_>> {
        if !self.has_response_rules {
            return None;
        }
        self.find(request, |rule| rule.conditions.statuses.iter().any(|range| range.contains(&status)))
    }

    fn find(&self, request: &RequestView<'_>, eligible: impl Fn(&Rule) -> bool) -> Option<Matched<'_>> {
        if self.rules.is_empty() {
            return None;
        }
        let path = normalise_path(request.path.as_bytes());
        let mut candidates = self.rules.iter().enumerate().filter(|(_, rule)| eligible(rule));
        candidates
            .find(|(_, rule)| rule.conditions.hold(request, &path))
            .map(|(index, rule)| Matched { rule, index })
    }
}

/// From a host to the index of its site.
#[derive(Clone, Debug, Default, PartialEq)]
struct DomainIndex {
    exact: HashMap<Box<str>, usize>,
    /// `*.shop.example` under `shop.example`.
    wildcards: HashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl DomainIndex {
    fn of(sites: &[Site]) -> DomainIndex {
        let mut index = DomainIndex::default();
        for site in sites {
            for domain in &site.domains {
                match domain.strip_prefix("*.") {
                    _ if &**domain == "*" => _ = index.any.get_or_insert(site.index),
                    Some(parent) => _ = index.wildcards.entry(parent.into()).or_insert(site.index),
                    None => _ = index.exact.entry(domain.clone()).or_insert(site.index),
                }
            }
        }
        index
    }

    fn find(&self, host: &str) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(index) = self.exact.get(host) {
            return Some(*index);
        }
        if !self.wildcards.is_empty() {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(index) = self.wildcards.get(parent) {
                    return Some(*index);
                }
                rest = parent;
            }
        }
        self.any
    }
}

#[cfg(test)]
mod tests;
