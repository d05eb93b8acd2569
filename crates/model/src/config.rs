//! One TOML text → [`Snapshot`] and every diagnostic at once.
//!
//! Three steps, each of which goes on after an error: the `toml` crate parses and recovers; `check` holds every table
//! against the tables of `keys`; `edge`, `store`, `site` (with `choices` and `pieces`), `origins`, `cluster`, `routing` and
//! `tests_of_site` build the model's types and judge what needs more than one key (domains that collide, rules that can never match).
//! Findings come out in the order of the text.
//!
//! ```
//! let parsed = model::Snapshot::parse(
//!     r#"
//!     [[site]]
//!     name = "shop"
//!     domains = ["www.shop.example"]
//!     origin = "https://origin.shop.example"
//!
//!     [[site.rule]]
//!     path = "/static/*"
//!     ttl = "30 d"
//!     "#,
//!     "perigee.toml",
//! );
//! assert!(parsed.snapshot.is_none());
//! assert_eq!(parsed.diagnostics[0].message, r#"ttl: "30 d" is not a duration"#);
//! ```

mod acme;
mod check;
mod choices;
mod clients;
mod cluster;
mod edge;
mod keys;
mod origins;
mod pieces;
mod reference;
mod routing;
mod schema;
mod site;
mod store;
mod tests_of_site;
mod tiers;

use std::collections::HashMap;

use toml::de::DeTable;

use crate::cluster::{NodeSettings, ParsedNode};
use crate::diagnostic::{Diagnostic, Lines, Severity};
use crate::settings::EdgeSettings;
use crate::snapshot::{Parsed, Site, Snapshot};
use check::{Findings, Section, Span};
use keys::Table;

pub use reference::reference;
pub use schema::json_schema;

/// Longest text that is read. A configuration of 1,000 sites with ten rules each has about 2 MiB.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

impl Snapshot {
    /// Reads a file that says everything: one node and its sites. `source` is what messages call the text, usually the
    /// file's path.
    ///
    /// There is a snapshot exactly when no diagnostic is an error; warnings don't prevent it. Never panics, reads no
    /// file, and doesn't run the tests in the text ([`Snapshot::run_tests`] does).
    pub fn parse(text: &str, source: &str) -> Parsed {
        let (snapshot, diagnostics) = read(text, source, Document::Whole, build_whole);
        Parsed { snapshot, diagnostics }
    }

    /// Reads what the nodes of a cluster have in common, as [`Snapshot::parse`] does: sites, block list and switches. What
    /// is a node's own is an error. [`Snapshot::for_node`] then gives each node its snapshot; until then its settings are
    /// the defaults.
    pub fn parse_cluster(text: &str, source: &str) -> Parsed {
        let (snapshot, diagnostics) = read(text, source, Document::Cluster, |findings, root| {
            let sites = root.list("site").iter().filter_map(|item| item.table());
            sites.for_each(|site| clients::check(findings, site, None));
            build_common(findings, root, EdgeSettings::default())
        });
        Parsed { snapshot, diagnostics }
    }
}

impl NodeSettings {
    /// Reads the own file of a cluster's node, as [`Snapshot::parse`] does. Sites in it are an error.
    pub fn parse(text: &str, source: &str) -> ParsedNode {
        let (settings, diagnostics) = read(text, source, Document::Node, |findings, root| {
            let edge = build_own(findings, root, None);
            tiers::refuse_files(findings, root);
            let cluster = cluster::build(findings, root.table("cluster"));
            let section = root.table("edge");
            if section.is_none_or(|section| !section.has("node")) {
                let span = section.map_or(0..0, |section| section.span.clone());
                let help = "write e.g. node = \"fra-1\", in [edge]";
                findings.error(
                    &span,
                    "the node has no name, and no other of its cluster may have the same",
                    help,
                );
            }
            root.finish();
            Some(NodeSettings { edge, cluster: cluster? })
        });
        ParsedNode { settings, diagnostics }
    }
}

/// A kind of file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Document {
    /// One that says everything: [`Snapshot::parse`].
    #[default]
    Whole,
    /// What a cluster's nodes have in common: [`Snapshot::parse_cluster`].
    Cluster,
    /// What a node of a cluster is told in a file of its own: [`NodeSettings::parse`].
    Node,
}

impl Document {
    fn table(self) -> &'static Table {
        match self {
            Document::Whole => &keys::ROOT,
            Document::Cluster => &keys::CLUSTER,
            Document::Node => &keys::NODE,
        }
    }
}

/// Parses, checks and builds; what was built comes out only without an error.
fn read<T>(
    text: &str,
    source: &str,
    document: Document,
    build: impl FnOnce(&mut Findings<'_>, &Section) -> Option<T>,
) -> (Option<T>, Vec<Diagnostic>) {
    let mut findings = Findings { source, text, lines: Lines::of(text), is_broken: false, list: Vec::new() };
    if text.len() > TEXT_BYTES_MAX {
        findings.error(&(0..0), "the configuration is over 16 MiB long", "split it over several clusters");
        return (None, findings.list);
    }
    let (parsed, syntax_errors) = DeTable::parse_recoverable(text);
    let span_of = |error: &toml::de::Error| error.span().unwrap_or(text.len()..text.len());
    // The toml crate tells its errors apart by their words alone; the tests hold these. A second key of one name is read, and left out.
    let (doubles, stumbles): (Vec<_>, Vec<_>) =
        syntax_errors.iter().partition(|error| error.message() == "duplicate key");
    for double in doubles {
        findings.error(&span_of(double), "not TOML: duplicate key", "leave one of them out");
    }
    // Behind a missing quote or bracket the parser stumbles over what is right: only its first error is sure to be one. Of two
    // at one place, that of a quote says more than that of the comma which would do instead.
    let first = stumbles
        .into_iter()
        .min_by_key(|error| (span_of(error).start, !error.message().contains("opening quote")));
    let syntax = first.map(|error| {
        let message = format!("not TOML: {}", error.message());
        findings.at(
            Severity::Error,
            &span_of(error),
            message,
            "what stands behind it is checked once this is right",
        )
    });
    findings.is_broken = syntax.is_some();
    let root = findings.section(document.table(), 0..0, parsed.get_ref());
    let built = build(&mut findings, &root);
    let mut diagnostics = findings.list;
    if let Some(syntax) = syntax {
        // What the parser made of the text behind it may not be what was meant either.
        diagnostics.retain(|diagnostic| diagnostic.line < syntax.line && diagnostic.span.end > 0);
        diagnostics.push(syntax);
    }
    diagnostics.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
    diagnostics.dedup();
    let sound = !diagnostics.iter().any(Diagnostic::is_error);
    (built.filter(|_| sound), diagnostics)
}

fn build_whole(findings: &mut Findings<'_>, root: &Section) -> Option<Snapshot> {
    let sections: Vec<&Section> = root.list("site").iter().filter_map(|item| item.table()).collect();
    let edge = build_own(findings, root, Some(&sections));
    if edge.listen_tls.is_empty() && edge.trusted_proxies.is_empty() {
        let forced = sections.iter().filter_map(|section| section.item("https"));
        for item in forced.filter(|item| item.text().is_some_and(|(word, _)| word != "optional")) {
            findings.warn(
                &item.span,
                "visitors are sent to https, but this node does not listen with TLS and trusts no proxy that would say so",
                "add listen_tls to [edge]; behind something that speaks TLS, add its address to trusted_proxies",
            );
        }
    }
    sections.iter().for_each(|site| clients::check(findings, site, Some(&edge)));
    let snapshot = build_common(findings, root, edge);
    if let Some(snapshot) = &snapshot {
        tiers::check_node(findings, root, snapshot);
    }
    snapshot
}

/// What is a node's own. `sites`: those of the same file, if it is one that has sites.
fn build_own(findings: &mut Findings<'_>, root: &Section, sites: Option<&[&Section]>) -> EdgeSettings {
    let mut edge = edge::build(findings, root.table("edge"));
    edge.store = store::build(findings, root.table("store"));
    edge.certificates = edge::build_certificates(root);
    edge.tls = edge::build_tls(root.table("tls"));
    edge.acme = acme::build(findings, root.table("acme"), sites);
    if !edge.listen_tls.is_empty() && !root.has("certificate") && !root.has("acme") {
        let span = root
            .table("edge")
            .and_then(|section| section.item("listen_tls"))
            .map_or(0..0, |item| item.span.clone());
        findings.error(
            &span,
            "listen_tls without a certificate: no visitor could be answered",
            "add [[certificate]] with chain = \"….pem\" and key = \"….pem\", or [acme] with accept_terms = true",
        );
    }
    edge
}

/// What a cluster's nodes have in common, on a node with the settings `edge`.
fn build_common(findings: &mut Findings<'_>, root: &Section, edge: EdgeSettings) -> Option<Snapshot> {
    let mut sites: Vec<Site> = Vec::new();
    let sections: Vec<&Section> = root.list("site").iter().filter_map(|item| item.table()).collect();
    if root.has("site") && sections.is_empty() && findings.list.is_empty() {
        findings.error(&root.span, "the file has no site", "begin one with [[site]]");
    }
    let mut names: HashMap<String, u32> = HashMap::new();
    let mut domains: HashMap<String, (usize, u32)> = HashMap::new();
    for (index, section) in sections.iter().enumerate() {
        refuse_duplicates(findings, &sections, index, &mut names, &mut domains);
        if let Some(site) = site::build(findings, section, index) {
            sites.push(site);
        }
    }
    let switches = cluster::build_switches(root.table("switches"));
    let block = cluster::build_block(findings, root);
    let routing = routing::build(findings, root);
    tiers::check_shields(findings, root, &routing);
    root.finish();
    if sites.len() < sections.len() {
        return None;
    }
    switches.overrule(sites.iter_mut().flat_map(|site| site.rules.iter_mut().chain([&mut site.defaults])));
    let mut snapshot = Snapshot::of(edge, sites);
    (snapshot.switches, snapshot.block, snapshot.routing) = (switches, block, routing);
    Some(snapshot)
}

/// Each name and each domain belongs to one site.
///
/// - `names`: names of earlier sites, with their lines.
/// - `domains`: domains of earlier sites, with the index of the site and the line.
fn refuse_duplicates(
    findings: &mut Findings<'_>,
    sites: &[&Section],
    index: usize,
    names: &mut HashMap<String, u32>,
    domains: &mut HashMap<String, (usize, u32)>,
) {
    let site = sites[index];
    if let Some((name, span)) = site.text("name") {
        let line = findings.line(span);
        let first = *names.entry(name.to_owned()).or_insert(line);
        if first != line {
            let message = format!("two sites have the name {name:?}; the first is in line {first}");
            findings.error(span, message, "give each site its own name");
        }
    }
    for (domain, span) in site.list("domains").iter().filter_map(|item| item.text()) {
        let domain = domain.to_ascii_lowercase();
        let line = findings.line(span);
        match domains.get(&domain) {
            Some((other, first)) if *other == index => {
                let message =
                    format!("the domain {domain:?} stands twice in this site, first in line {first}");
                findings.warn(span, message, "leave one out");
            }
            Some((other, first)) => {
                let owner = sites[*other].text("name").map_or("", |(name, _)| name);
                let message =
                    format!("the domain {domain:?} belongs to the site {owner:?} already, in line {first}");
                findings.error(span, message, "each domain belongs to one site");
            }
            None => _ = domains.insert(domain, (index, line)),
        }
    }
}

/// Whether `name` can name a node or a site: letters, digits, `-`, `_` and `.`, 1 to 64 of them.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Refuses what is no name.
fn check_name(findings: &mut Findings<'_>, what: &str, name: &str, span: &Span) {
    if is_name(name) {
        return;
    }
    let cleaned: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .take(64)
        .collect();
    let help =
        if is_name(&cleaned) { format!("write e.g. {cleaned:?}") } else { "write e.g. \"shop\"".to_owned() };
    let message = format!("{what} {name:?} may have 1 to 64 letters, digits, \"-\", \"_\" and \".\"");
    findings.error(span, message, help);
}

#[cfg(test)]
mod tests;
