//! `[[pop.node]]`, the shields of sites and what a node's own file says of tiers: built, and held against each other.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::check::{Findings, Item, Section, Span};
use super::check_name;
use crate::diagnostic::did_you_mean;
use crate::routing::Routing;
use crate::snapshot::Snapshot;
use crate::tiers::{Node, SHIELDS_MAX, Shield, WEIGHT};

/// The nodes of a PoP; what is wrong has been told.
pub(super) fn build_nodes(findings: &mut Findings<'_>, pop: &Section) -> Vec<Node> {
    let sections = pop.list("node").iter().filter_map(Item::table);
    let built = sections.filter_map(|section| {
        let name = section.text("name").map(|(name, span)| {
            check_name(findings, "the node's name", name, span);
            Box::<str>::from(name)
        });
        let address = section.text("tier").and_then(|(text, span)| address(findings, text, span));
        let weight = section.number("weight").unwrap_or(WEIGHT.default);
        section.finish();
        Some(Node { name: name?, address: address?, weight })
    });
    built.collect()
}

fn address(findings: &mut Findings<'_>, text: &str, span: &Span) -> Option<SocketAddr> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() || address.port() == 0 => {
            let message = format!("tier: {text:?} is an address to listen on, and not one that others reach");
            findings.error(span, message, "write the node's own address, e.g. \"10.0.0.1:7443\"");
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            let message = format!("tier: {text:?} is not an address with port");
            findings.error(span, message, "write e.g. \"10.0.0.1:7443\"; names are not resolved here");
            None
        }
    }
}

/// A node is in one PoP, and has an address of its own.
pub(super) fn refuse_doubles(findings: &mut Findings<'_>, pops: &[&Section]) {
    let mut names: HashMap<&str, u32> = HashMap::new();
    let mut addresses: HashMap<SocketAddr, &str> = HashMap::new();
    for node in pops.iter().flat_map(|pop| pop.list("node")).filter_map(Item::table) {
        let Some((name, span)) = node.text("name") else { continue };
        let line = findings.line(span);
        let first = *names.entry(name).or_insert(line);
        if first != line {
            let message = format!("two nodes have the name {name:?}; the first is in line {first}");
            findings.error(span, message, "a node is in one PoP, once");
        }
        let Some((text, span)) = node.text("tier") else { continue };
        let other = text.parse().ok().and_then(|address| addresses.insert(address, name));
        if let Some(other) = other.filter(|other| *other != name) {
            let message = format!("tier: {text} is the address of the node {other:?} already");
            findings.error(span, message, "each node listens at an address of its own");
        }
    }
}

// --- Shields ---

/// What a site says of its shields: those from somewhere first, then that from everywhere.
pub(super) fn build_shields(site: &Section) -> Vec<Shield> {
    let names = |section: &Section, key| -> Vec<Box<str>> {
        section.list(key).iter().filter_map(Item::text).map(|(name, _)| name.into()).collect()
    };
    let from = site.list("shield_from").iter().filter_map(Item::table);
    let mut shields: Vec<Shield> = from
        .map(|section| {
            let shield = Shield { from: names(section, "from"), pops: names(section, "pops") };
            section.finish();
            shield
        })
        .collect();
    let pops = names(site, "shield");
    shields.extend((!pops.is_empty()).then(|| Shield { from: Vec::new(), pops }));
    shields
}

/// What a site names as its shield must be there, and must be reachable.
pub(super) fn check_shields(findings: &mut Findings<'_>, root: &Section, routing: &Routing) {
    let sections: Vec<&Section> = root.list("pop").iter().filter_map(Item::table).collect();
    if routing.pops.len() < sections.len() {
        // Told already; what is missing from the list is not unknown.
        return;
    }
    let known: Vec<&str> = routing.pops.iter().map(|pop| &*pop.name).collect();
    let regions = || routing.pops.iter().flat_map(|pop| pop.regions.iter().map(|region| &**region));
    for site in root.list("site").iter().filter_map(Item::table) {
        check_list(findings, "shield", site.item("shield"), routing, &known);
        let only: Vec<&str> =
            site.list("shield").iter().filter_map(Item::text).map(|(name, _)| name).collect();
        if let ([one], Some(item)) = (&only[..], site.item("shield"))
            && known == [*one]
        {
            let message = format!("shield: {one:?} is the only PoP, and would shield nobody but itself");
            findings.warn(&item.span, message, "its nodes are one cache without it: leave shield out");
        }
        for section in site.list("shield_from").iter().filter_map(Item::table) {
            check_list(findings, "pops", section.item("pops"), routing, &known);
            for (name, span) in section.list("from").iter().filter_map(Item::text) {
                if !known.contains(&name) && !regions().any(|region| region == name) {
                    let help = match did_you_mean(name, known.iter().copied().chain(regions())) {
                        Some(close) => format!("did you mean {close:?}?"),
                        None => "name a [[pop]], or one of the `regions` of some".to_owned(),
                    };
                    findings.error(span, format!("from: no PoP and no region has the name {name:?}"), help);
                }
            }
            if let Some(item) = section.item("from").filter(|item| item.list().is_empty()) {
                findings.error(&item.span, "from is an empty list", "for all PoPs, write shield = [\"fra\"]");
            }
        }
    }
}

fn check_list(
    findings: &mut Findings<'_>,
    key: &str,
    item: Option<&Item>,
    routing: &Routing,
    known: &[&str],
) {
    let Some(item) = item else { return };
    let mut seen = Vec::new();
    for (name, span) in item.list().iter().filter_map(Item::text) {
        match routing.pop_named(name) {
            None => {
                let help = match did_you_mean(name, known.iter().copied()) {
                    Some(close) => format!("did you mean {close:?}?"),
                    None => "name a [[pop]] that has a [[pop.node]]".to_owned(),
                };
                findings.error(span, format!("{key}: no PoP has the name {name:?}"), help);
            }
            Some(pop) if pop.nodes.is_empty() => {
                let message = format!("{key}: the PoP {name:?} has no [[pop.node]], so nobody could ask it");
                findings.error(span, message, "add [[pop.node]] with name and tier to it");
            }
            Some(_) if seen.contains(&name) => {
                findings.error(span, format!("{key}: {name:?} stands twice"), "leave one out");
            }
            Some(_) => seen.push(name),
        }
    }
    if seen.len() > SHIELDS_MAX {
        let message = format!("{key} has {} PoPs; it may have {SHIELDS_MAX}", seen.len());
        findings.error(&item.span, message, "one and another to fall back to are enough");
    }
}

// --- A node's own file ---

/// On an edge by itself: whether it is one of the nodes, and can show who it is.
pub(super) fn check_node(findings: &mut Findings<'_>, root: &Section, snapshot: &Snapshot) {
    let (edge, routing) = (&snapshot.edge, &snapshot.routing);
    let section = root.table("edge");
    let span = |key| {
        let item = section.and_then(|section| section.item(key));
        item.map_or_else(|| section.map_or(0..0, |section| section.span.clone()), |item| item.span.clone())
    };
    if edge.tier.is_none() && !edge.listen_tier.is_empty() {
        let message = "listen_tier without [edge.tier]: this node could show nobody who it is";
        let help =
            "add certificate, key and authority to [edge.tier], or run perigee edge, as a node of a cluster";
        findings.error(&span("listen_tier"), message, help);
    }
    let is_node = routing.pop_of_node(&edge.node).is_some();
    if edge.tier.is_some() && !is_node {
        let message =
            format!("no [[pop.node]] has the name of this node, {:?}: it asks the origins itself", edge.node);
        findings.warn(&span("node"), message, "correct node, or add it to its PoP");
    }
    if is_node && edge.tier.is_some() && edge.listen_tier.is_empty() {
        let message = "this node is one of its PoP, and listens for none of the others";
        findings.warn(&span("node"), message, "add listen_tier with the port of its [[pop.node]]");
    }
    if is_node && edge.tier.is_some() {
        let message = "an edge by itself numbers its own purges: the others know nothing of them";
        let help = "what is purged here is validated at the origin before it is taken from another edge; for purges that all know, run a cluster";
        findings.warn(&span("tier"), message, help);
    }
}

/// On a node of a cluster, the cluster's certificates show who it is.
pub(super) fn refuse_files(findings: &mut Findings<'_>, root: &Section) {
    if let Some(item) = root.table("edge").and_then(|section| section.item("tier")) {
        let message = "[edge.tier] on a node of a cluster, which shows the cluster's certificate";
        findings.error(&item.span, message, "leave it out");
    }
}
