//! `[[pop]]`, `[dns]`, `[probe]`, `[measure]` and the `pops` of sites → [`Routing`].

use std::collections::HashMap;
use std::net::IpAddr;

use super::check::{Findings, Item, Section};
use super::check_name;
use crate::diagnostic::did_you_mean;
use crate::origin::is_host_name;
use crate::routing::{
    DNS_RATE, DNS_TTL, DnsSettings, EDGES_MAX, MeasureSettings, Point, Pop, ProbeKind, ProbeSettings,
    Routing, place, place_names,
};
use crate::settings::Network;

/// What the file says about routing; what is wrong has been told.
pub(super) fn build(findings: &mut Findings<'_>, root: &Section) -> Routing {
    let sections: Vec<&Section> = root.list("pop").iter().filter_map(Item::table).collect();
    let pops: Vec<Pop> = sections.iter().filter_map(|section| build_pop(findings, section)).collect();
    if pops.len() == sections.len() {
        refuse_doubles(findings, &sections, &pops);
        super::tiers::refuse_doubles(findings, &sections);
        check_sites(findings, root, &pops);
        check_other_cdns(findings, root, &sections, &pops);
    }
    if !pops.is_empty() && pops.len() == sections.len() && pops.iter().all(|pop| pop.last_resort) {
        findings.error(&sections[0].span, "every PoP is a last resort", "leave last_resort out of one");
    }
    let dns = root.table("dns").and_then(|section| build_dns(findings, section));
    if root.has("dns") {
        check_labels(findings, root);
    }
    if let Some(section) = root.table("dns").filter(|_| !root.has("pop")) {
        let help = "add [[pop]] with name, location and edges";
        findings.error(&section.span, "[dns] without a PoP: there is nowhere to send visitors to", help);
    }
    Routing {
        pops,
        dns,
        probe: build_probe(root.table("probe")),
        measure: build_measure(root.table("measure")),
    }
}

// --- PoPs ---

fn build_pop(findings: &mut Findings<'_>, section: &Section) -> Option<Pop> {
    let name = section.text("name").map(|(name, span)| {
        check_name(findings, "the PoP's name", name, span);
        Box::<str>::from(name)
    });
    let location = section.item("location").and_then(|item| build_location(findings, item));
    let cname = section.text("cname").map(|(text, span)| (domain(findings, "cname", text, span), span));
    let beacon = section.text("beacon").map(|(text, span)| {
        check_beacon(findings, text, span, cname.is_some());
        Box::<str>::from(text)
    });
    let is_complete = match cname {
        Some(_) => refuse_beside_cname(findings, section),
        None => ["location", "edges"].map(|key| wanted(findings, section, key)) == [true; 2],
    };
    let edges = addresses(findings, "edges", section.item("edges"));
    if let Some(item) = section.item("edges") {
        if item.list().is_empty() {
            findings.error(&item.span, "edges is an empty list", "write e.g. edges = [\"203.0.113.10\"]");
        } else if edges.len() > EDGES_MAX {
            let message = format!("edges has {} addresses; it may have {EDGES_MAX}", edges.len());
            findings.error(&item.span, message, "put a load balancer in front, or make it two PoPs");
        }
    }
    let nodes = super::tiers::build_nodes(findings, section);
    let mut networks = Vec::new();
    for (text, span) in section.list("networks").iter().filter_map(Item::text) {
        match Network::parse(text) {
            Ok(network) => networks.push(network),
            Err(reason) => findings.error(span, format!("networks: {text:?} {reason}"), ""),
        }
    }
    let mut regions = Vec::new();
    for (region, span) in section.list("regions").iter().filter_map(Item::text) {
        check_name(findings, "the region's name", region, span);
        regions.push(Box::<str>::from(region));
    }
    let bias_ms = section.time("bias").map_or(0.0, |bias| bias.as_secs_f64() * 1e3);
    let share = section.number("share").and_then(|percent| u8::try_from(percent).ok());
    let capacity = section.number("capacity");
    let drain = section.bool("drain").unwrap_or(false);
    let last_resort = section.bool("last_resort").unwrap_or(false);
    if let Some(item) = section.item("share").filter(|_| last_resort) {
        let message = "share beside last_resort: it gets its share always, or visitors when no other is left";
        findings.error(&item.span, message, "leave one out");
    }
    section.finish();
    let cname = match cname {
        Some((name, _)) => Some(name?),
        None => None,
    };
    // What is no place has been told already.
    if !is_complete || (cname.is_none() && location.is_none()) {
        return None;
    }
    Some(Pop {
        name: name?,
        location,
        cname,
        beacon,
        share,
        edges,
        nodes,
        regions,
        networks,
        bias_ms,
        capacity,
        drain,
        last_resort,
        line: findings.line(&section.span),
    })
}

/// Whether a PoP that is no other CDN has what it needs.
fn wanted(findings: &mut Findings<'_>, section: &Section, key: &'static str) -> bool {
    if !section.has(key) {
        let example = if key == "edges" { "[\"203.0.113.10\"]" } else { "\"FRA\"" };
        findings.error(
            &section.span,
            format!("[[pop]] has no {key}"),
            format!("add {key} = {example}; or cname, if it is another CDN"),
        );
    }
    section.has(key)
}

/// Another CDN is everywhere, and nothing of it acts as an edge of ours.
fn refuse_beside_cname(findings: &mut Findings<'_>, section: &Section) -> bool {
    let mut is_good = true;
    for key in ["location", "node", "capacity"].into_iter().filter(|key| section.has(key)) {
        let span = section.item(key).map_or(&section.span, |item| &item.span);
        findings.error(
            span,
            format!("{key} beside cname: another CDN's places and machines are its own"),
            format!("leave {key} out"),
        );
        is_good = false;
    }
    is_good
}

fn check_beacon(findings: &mut Findings<'_>, text: &str, span: &super::Span, has_cname: bool) {
    let host = text.strip_prefix("https://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'?' | b'#'));
    if !is_plain || !host.is_some_and(is_host_name) {
        let message = format!("beacon: {text:?} is no URL that a browser could time");
        findings.error(span, message, "write e.g. \"https://shop.other-cdn.example/pixel.gif\"");
    } else if !has_cname {
        findings.error(span, "beacon without cname: edges of one's own are timed anyway", "leave it out");
    }
}

/// What only shows when zone, sites and PoPs are seen together.
fn check_other_cdns(findings: &mut Findings<'_>, root: &Section, sections: &[&Section], pops: &[Pop]) {
    let zone = root.table("dns").and_then(|dns| dns.text("zone")).map(|(zone, _)| zone);
    let zone = zone.map(|zone| zone.strip_suffix('.').unwrap_or(zone).to_ascii_lowercase());
    for (pop, section) in pops.iter().zip(sections) {
        let inside = pop.cname.as_ref().zip(zone.as_ref()).filter(|(name, zone)| is_inside(name, zone));
        if let (Some((name, _)), Some(item)) = (inside, section.item("cname")) {
            let message = format!("cname: {name:?} lies in the zone itself, and is no other CDN's");
            findings.error(&item.span, message, "write the name that the other CDN has given to your site");
        }
    }
    let routing = Routing { pops: pops.to_vec(), ..Routing::default() };
    for site in root.list("site").iter().filter_map(Item::table) {
        let names: Vec<Box<str>> =
            site.list("pops").iter().filter_map(Item::text).map(|(name, _)| name.into()).collect();
        let chosen: Vec<&Pop> = routing.pops_of(&names).into_iter().map(|index| &pops[index]).collect();
        let span = site.item("pops").map_or(&site.span, |item| &item.span);
        if zone.is_some() && names.is_empty() && chosen.is_empty() && !pops.is_empty() {
            let message =
                "every PoP is another CDN, and this site names none: its visitors would be sent nowhere";
            let help = format!("name those that it may be served from, such as pops = [{:?}]", pops[0].name);
            findings.error(span, message, help);
        }
        let sum: u32 = chosen.iter().filter_map(|pop| pop.share).map(u32::from).sum();
        if sum > 100 {
            let message = format!("the shares of this site's PoPs add up to {sum} %");
            findings.error(span, message, "100 % is everybody: lower one, or take a PoP out of pops");
        }
        let bare = chosen.iter().find(|pop| pop.cname.is_some() && pop.edges.is_empty());
        let is_zone = |domain: &str| {
            zone.as_ref()
                .is_some_and(|zone| domain.strip_suffix('.').unwrap_or(domain).eq_ignore_ascii_case(zone))
        };
        let apex = site.list("domains").iter().filter_map(Item::text).find(|(domain, _)| is_zone(domain));
        if let (Some(pop), Some((domain, span))) = (bare, apex) {
            let message = format!(
                "{domain:?} is the zone itself, where DNS allows no CNAME (RFC 1034 §3.6.2), and the PoP {:?} is one",
                pop.name
            );
            let help = format!(
                "give {:?} edges, which are answered there; or take it out of the site's pops",
                pop.name
            );
            findings.error(span, message, help);
        }
    }
}

fn build_location(findings: &mut Findings<'_>, item: &Item) -> Option<Point> {
    const HELP: &str = "write the code of an airport, a cloud's region, or e.g. [50.11, 8.68]";
    if let Some((name, span)) = item.text() {
        let found = place(name).or_else(|| place(&name.to_ascii_uppercase()));
        if found.is_none() {
            let close = did_you_mean(name, place_names().filter(|known| known.contains(':')));
            let help =
                close.map_or_else(|| HELP.to_owned(), |close| format!("did you mean {close:?}? Else {HELP}"));
            let message = format!("location: {name:?} is no airport's code and no cloud's region");
            findings.error(span, message, help);
        }
        return found;
    }
    let numbers: Vec<f64> = item.list().iter().filter_map(Item::decimal).collect();
    match numbers[..] {
        [latitude, longitude] if (-90.0..=90.0).contains(&latitude) => Some(Point { latitude, longitude }),
        [latitude, _] => {
            let message = format!("location: the latitude is {latitude}; it may be -90 to 90");
            findings.error(&item.span, message, "latitude comes first, then longitude");
            None
        }
        // A number out of range has been told already.
        _ if findings.list.iter().any(|finding| item.span.contains(&finding.span.start)) => None,
        _ => {
            let message =
                format!("location has {} numbers; wanted are latitude and longitude", numbers.len());
            findings.error(&item.span, message, HELP);
            None
        }
    }
}

/// Addresses that visitors, or resolvers, can be told. One that stands twice counts once.
fn addresses(findings: &mut Findings<'_>, key: &str, item: Option<&Item>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (text, span) in item.map_or(&[][..], Item::list).iter().filter_map(Item::text) {
        match text.parse::<IpAddr>() {
            Ok(address) if addresses.contains(&address) => {
                findings.warn(span, format!("{key}: {text:?} stands twice"), "leave one out");
            }
            Ok(address) => addresses.push(address),
            Err(_) => {
                let message = format!("{key}: {text:?} is not an address");
                findings.error(
                    span,
                    message,
                    "write e.g. \"203.0.113.10\" or \"2001:db8::10\", without a port",
                );
            }
        }
    }
    addresses
}

/// PoPs' names and regions' are used in one list, so none may mean two things; an address belongs to one PoP, a network too.
fn refuse_doubles(findings: &mut Findings<'_>, sections: &[&Section], pops: &[Pop]) {
    let mut names: HashMap<&str, u32> = HashMap::new();
    let mut edges: HashMap<IpAddr, &str> = HashMap::new();
    let mut networks: HashMap<Network, &str> = HashMap::new();
    for (pop, section) in pops.iter().zip(sections) {
        let span = section.item("name").map_or(section.span.clone(), |item| item.span.clone());
        if let Some(line) = names.insert(&pop.name, pop.line) {
            let message = format!("two PoPs have the name {:?}; the first is in line {line}", pop.name);
            findings.error(&span, message, "give each PoP its own name");
        }
        for (edge, item) in pop.edges.iter().zip(section.list("edges")) {
            if let Some(other) = edges.insert(*edge, &pop.name).filter(|other| *other != &*pop.name) {
                let message = format!("edges: {edge} belongs to the PoP {other:?} already");
                findings.error(&item.span, message, "an address is in one place");
            }
        }
        for (network, item) in pop.networks.iter().zip(section.list("networks")) {
            if let Some(other) = networks.insert(*network, &pop.name).filter(|other| *other != &*pop.name) {
                let message = format!("networks: it belongs to the PoP {other:?} already");
                findings.error(&item.span, message, "leave it out of one of them");
            }
        }
    }
    for (pop, section) in pops.iter().zip(sections) {
        for (region, item) in pop.regions.iter().zip(section.list("regions")) {
            if names.contains_key(&**region) {
                let message = format!("the region {region:?} has the name of a PoP");
                findings.error(
                    &item.span,
                    message,
                    "sites name both in one list: give the region another name",
                );
            }
        }
    }
}

/// What a site names must be there: a slip would shut its visitors out.
fn check_sites(findings: &mut Findings<'_>, root: &Section, pops: &[Pop]) {
    let known: Vec<&str> = pops
        .iter()
        .flat_map(|pop| std::iter::once(&*pop.name).chain(pop.regions.iter().map(|region| &**region)))
        .collect();
    let sites = root.list("site").iter().filter_map(Item::table);
    for (name, span) in sites.flat_map(|site| site.list("pops")).filter_map(Item::text) {
        if !known.contains(&name) {
            let help = match did_you_mean(name, known.iter().copied()) {
                Some(close) => format!("did you mean {close:?}?"),
                None => "name a [[pop]], or one of the `regions` of some".to_owned(),
            };
            findings.error(span, format!("pops: no PoP and no region has the name {name:?}"), help);
        }
    }
}

// --- The zone ---

/// In a zone, names of PoPs are labels, and names that differ by case alone are one.
fn check_labels(findings: &mut Findings<'_>, root: &Section) {
    for (key, many) in [("pop", "PoPs"), ("site", "sites")] {
        let mut known: HashMap<String, &str> = HashMap::new();
        let sections = root.list(key).iter().filter_map(Item::table);
        for (name, span) in sections.filter_map(|section| section.text("name")) {
            if key == "pop" && (name.contains('.') || name.len() > 63) {
                let message =
                    format!("the PoP's name {name:?} is no label of DNS, which it has to be in POP.ZONE");
                findings.error(span, message, "write at most 63 letters, digits, \"-\" and \"_\"");
            }
            // Two that are equal have been told already.
            if let Some(other) = known.insert(name.to_ascii_lowercase(), name).filter(|other| *other != name)
            {
                let message = format!(
                    "the {many} {other:?} and {name:?} have one name in DNS, where case says nothing"
                );
                findings.error(span, message, "rename one");
            }
        }
    }
}

fn build_dns(findings: &mut Findings<'_>, section: &Section) -> Option<DnsSettings> {
    let zone = section.text("zone").and_then(|(text, span)| domain(findings, "zone", text, span));
    let mut nameservers = Vec::new();
    for (name, item) in section.map("nameservers") {
        let host = domain(findings, "nameservers", &name.text, &name.span);
        let addresses = addresses(findings, "nameservers", Some(item));
        let (Some(host), Some(zone)) = (host, &zone) else { continue };
        let inside = is_inside(&host, zone);
        if inside && addresses.is_empty() {
            let message = format!("nameservers: {host:?} lies in the zone and has no address");
            findings.error(&item.span, message, "add its addresses: nobody else could tell them");
        } else if !inside && !addresses.is_empty() {
            let message = format!("nameservers: {host:?} does not lie in the zone {zone:?}");
            findings.warn(&item.span, message, "its addresses are another zone's affair: write []");
        }
        nameservers.push((host, addresses));
    }
    if let Some(item) = section.item("nameservers").filter(|_| section.map("nameservers").is_empty()) {
        let help = "write e.g. nameservers = { \"ns1.cdn.example\" = [\"203.0.113.53\"] }";
        findings.error(&item.span, "nameservers is empty", help);
    }
    let contact = match (section.text("contact"), &zone) {
        (Some((text, span)), _) => {
            let good = text.split_once('@').is_some_and(|(local, host)| {
                (1..=63).contains(&local.len())
                    && local.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"'))
                    && is_host_name(host)
            });
            if !good {
                let message = format!("contact: {text:?} is not a mail address");
                findings.error(span, message, "write e.g. \"hostmaster@cdn.example\"");
            }
            text.into()
        }
        (None, zone) => format!("hostmaster@{}", zone.as_deref().unwrap_or("localhost")).into(),
    };
    let caa = section.list("caa").iter().filter_map(Item::text);
    let caa: Vec<_> = caa.filter_map(|(text, span)| domain(findings, "caa", text, span)).collect();
    let settings = DnsSettings {
        zone: zone.clone().unwrap_or_default(),
        nameservers,
        contact,
        ttl: section.time("ttl").unwrap_or(DNS_TTL.default),
        spare_within: section.time("spare_within"),
        dnssec: section.bool("dnssec").unwrap_or(false),
        client_subnet: section.bool("client_subnet").unwrap_or(true),
        https: section.bool("https").unwrap_or(true),
        caa,
        records: section.text("records").map_or_else(String::new, |(text, _)| text.to_owned()),
        rate: section.number("rate").unwrap_or(DNS_RATE.default),
        line: findings.line(&section.span),
    };
    section.finish();
    zone.map(|_| settings)
}

/// Whether `name` is `zone` or below it; both lower-case, without a dot at the end.
fn is_inside(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn domain(findings: &mut Findings<'_>, key: &str, text: &str, span: &super::Span) -> Option<Box<str>> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    // 200, so that names below it fit into the 255 bytes of DNS.
    if is_host_name(&name) && name.len() <= 200 {
        return Some(name.into());
    }
    findings.error(span, format!("{key}: {text:?} is no domain"), "write e.g. \"cdn.example\"");
    None
}

fn build_probe(section: Option<&Section>) -> ProbeSettings {
    let defaults = ProbeSettings::default();
    let Some(section) = section else { return defaults };
    let settings = ProbeSettings {
        kind: match section.text("kind") {
            Some(("tcp", _)) => ProbeKind::Tcp,
            Some(("off", _)) => ProbeKind::Off,
            _ => ProbeKind::Http,
        },
        port: section.number("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(defaults.port),
        interval: section.time("interval").unwrap_or(defaults.interval),
        timeout: section.time("timeout").unwrap_or(defaults.timeout),
    };
    section.finish();
    settings
}

fn build_measure(section: Option<&Section>) -> MeasureSettings {
    let defaults = MeasureSettings::default();
    let Some(section) = section else { return defaults };
    let settings = MeasureSettings {
        connections: section.bool("connections").unwrap_or(defaults.connections),
        beacons: section.bool("beacons").unwrap_or(defaults.beacons),
    };
    section.finish();
    settings
}
