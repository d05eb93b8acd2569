//! The zone that the router answers for, made from the configuration.
//!
//! ```text
//! cdn.example             SOA NS CAA DNSKEY…, and the operator's records
//! ns1.cdn.example         A AAAA of a nameserver that lies in the zone
//! shop.cdn.example        the site "shop": where to is chosen per client
//! fra.cdn.example         the PoP "fra"; fra.shop.cdn.example is it too, for the site "shop"
//! www.cdn.example         a domain of a site, if it lies in the zone; so do wildcards
//! ```
//!
//! Pure: values in, a zone or everything that is wrong with it out. Made at each change of the configuration.

use std::collections::HashMap;
use std::net::IpAddr;

use domain::base::iana::Class;
use domain::base::rdata::ComposeRecordData;
use domain::base::{Name, ToName};
use domain::zonefile::inplace::{Entry, Zonefile};
use model::{DnsSettings, Snapshot};

use crate::sign::Signer;
use crate::wire::{QUESTION_NAME, name_of, parent, rtype, write_record};

/// TTL of what seldom changes: NS, CAA, nameservers' addresses, keys.
pub const STATIC_TTL: u32 = 3_600;
/// For how long a resolver remembers that there is nothing: short, as a new site shall be seen soon.
pub const NEGATIVE_TTL: u32 = 60;
/// Types that the router makes itself, or that say what it would not do: NS and DNAME, of the names below them.
const NO_RECORDS: [u16; 10] = [
    rtype::SOA,
    rtype::NS,
    rtype::DNAME,
    rtype::DNSKEY,
    rtype::RRSIG,
    rtype::NSEC,
    rtype::NSEC3,
    rtype::NSEC3PARAM,
    rtype::CDS,
    rtype::CDNSKEY,
];
/// What a site's name, or a PoP's, is answered with.
const CHOSEN: [u16; 4] = [rtype::A, rtype::AAAA, rtype::HTTPS, rtype::CNAME];

/// A zone.
#[derive(Debug)]
pub struct Zone {
    /// Its name on the wire.
    pub apex: Vec<u8>,
    /// What is chosen per client: PoPs by index, one group per distinct list.
    pub groups: Vec<Vec<u16>>,
    /// For each group, whether one of its PoPs is another CDN, so that the answer to some clients is a CNAME.
    pub aliased: Vec<bool>,
    /// The group of each site that a PoP serves.
    pub sites: HashMap<Box<str>, usize>,
    /// SOA, as it stands in negative answers.
    pub soa: Set,
    nodes: HashMap<Vec<u8>, Node>,
    /// PoPs by the label that names them, and what is known of each.
    pop_labels: HashMap<Vec<u8>, u16>,
    pop_nodes: Vec<Node>,
    /// Below which names PoPs have names: sites' own, with their groups.
    above_pops: HashMap<Vec<u8>, usize>,
}

/// What is known of one name.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Clients are sent to one of this group of PoPs.
    pub group: Option<usize>,
    /// Clients are sent to this PoP, whoever they are; other records stand beside.
    pub pop: Option<u16>,
    /// Other records.
    pub sets: Vec<Set>,
}

/// Records of one name and type.
#[derive(Clone, Debug)]
pub struct Set {
    /// Their type.
    pub rtype: u16,
    /// How long they are kept.
    pub ttl: u32,
    /// Their contents, canonical.
    pub records: Vec<Vec<u8>>,
    /// As they stand in an answer, with the question's name.
    pub plain: Vec<u8>,
}

impl Set {
    fn new(rtype: u16, ttl: u32, records: Vec<Vec<u8>>) -> Set {
        let mut plain = Vec::new();
        records.iter().for_each(|record| write_record(&mut plain, &QUESTION_NAME, rtype, ttl, record));
        Set { rtype, ttl, records, plain }
    }
}

impl Node {
    /// The set of a type.
    pub fn set(&self, rtype: u16) -> Option<&Set> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }

    /// Whether it may be the name of a PoP, being neither a site's nor a machine's.
    fn is_free(&self) -> bool {
        self.group.is_none() && !self.sets.iter().any(|set| CHOSEN.contains(&set.rtype))
    }

    fn add(&mut self, rtype: u16, ttl: u32, record: Vec<u8>) {
        match self.sets.iter_mut().find(|set| set.rtype == rtype) {
            Some(set) if set.records.contains(&record) => {}
            Some(set) => {
                set.records.push(record);
                let ttl = set.ttl.min(ttl);
                *set = Set::new(rtype, ttl, std::mem::take(&mut set.records));
            }
            None => self.sets.push(Set::new(rtype, ttl, vec![record])),
        }
    }
}

/// What a name leads to.
pub enum Lookup<'z> {
    /// It is another zone's.
    Outside,
    /// There is no such name.
    Nothing,
    /// This is known of it; of a name that only has names below it, nothing.
    Node(&'z Node),
}

impl Zone {
    /// No zone at all: every name is another zone's. The groups of sites are there.
    pub fn nothing(snapshot: &Snapshot) -> Zone {
        let mut zone = Zone {
            apex: Vec::new(),
            groups: Vec::new(),
            aliased: Vec::new(),
            sites: HashMap::new(),
            soa: Set::new(rtype::SOA, 0, Vec::new()),
            nodes: HashMap::new(),
            pop_labels: HashMap::new(),
            pop_nodes: Vec::new(),
            above_pops: HashMap::new(),
        };
        zone.add_groups(snapshot);
        zone
    }

    /// The zone of a configuration that has one. `serial`: of its SOA. The errors are whole sentences.
    pub fn build(snapshot: &Snapshot, serial: u32, signer: Option<&Signer>) -> Result<Zone, Vec<String>> {
        let Some(dns) = &snapshot.routing.dns else {
            return Err(vec![
                "the configuration has no [dns], which says the zone to answer for; add it".to_owned(),
            ]);
        };
        let mut errors = Vec::new();
        let Some(apex) = name_of(&dns.zone) else {
            return Err(vec![format!("the zone {:?} is too long for a name of DNS", dns.zone)]);
        };
        let mut zone = Zone { soa: soa(dns, serial), apex, ..Zone::nothing(snapshot) };
        zone.add_apex(dns, signer);
        zone.add_pops(snapshot);
        zone.add_sites(snapshot, dns, &mut errors);
        zone.add_records(snapshot, dns, &mut errors);
        zone.fill_gaps();
        if errors.is_empty() { Ok(zone) } else { Err(errors) }
    }

    /// What a name, in lower case, leads to. Costs two look-ups, and one more for each label of a name that there is not.
    pub fn find(&self, name: &[u8]) -> Lookup<'_> {
        if let Some(node) = self.nodes.get(name) {
            return Lookup::Node(node);
        }
        if !self.holds(name) {
            return Lookup::Outside;
        }
        if let Some(pop) = self.pop_of(name) {
            return Lookup::Node(&self.pop_nodes[usize::from(pop)]);
        }
        // The nearest name that there is decides whether a wildcard stands in (RFC 4592 §3.3.1).
        let mut above = parent(name);
        while let Some(encloser) = above {
            if self.nodes.contains_key(encloser) {
                let mut wildcard = b"\x01*".to_vec();
                wildcard.extend(encloser);
                return self.nodes.get(&wildcard).map_or(Lookup::Nothing, Lookup::Node);
            }
            above = parent(encloser);
        }
        Lookup::Nothing
    }

    /// The PoP that a name is, unless it is a site's or a machine's: `POP.ZONE`, or `POP.SITE.ZONE` for the PoPs of that site.
    fn pop_of(&self, name: &[u8]) -> Option<u16> {
        let above = parent(name)?;
        let pop = *self.pop_labels.get(&name[..name.len() - above.len()])?;
        match self.above_pops.get(above) {
            Some(group) => self.groups[*group].contains(&pop).then_some(pop),
            None => (above == self.apex).then_some(pop),
        }
    }

    fn holds(&self, name: &[u8]) -> bool {
        let mut at = Some(name);
        while let Some(name) = at.filter(|name| name.len() >= self.apex.len()) {
            if name == self.apex {
                return true;
            }
            at = parent(name);
        }
        false
    }

    /// Its serial number; 0 without a zone.
    pub fn serial(&self) -> u32 {
        // The first of the five numbers at the end of SOA (RFC 1035 §3.3.13).
        let numbers = self.soa.records.first().and_then(|record| record.last_chunk::<20>());
        numbers.and_then(|numbers| numbers.first_chunk()).map_or(0, |serial| u32::from_be_bytes(*serial))
    }

    fn add_apex(&mut self, dns: &DnsSettings, signer: Option<&Signer>) {
        let mut node = Node::default();
        node.sets.push(self.soa.clone());
        for issuer in &dns.caa {
            let mut data = vec![0, 5];
            data.extend(b"issue");
            data.extend(issuer.bytes());
            node.add(rtype::CAA, STATIC_TTL, data);
        }
        if let Some(signer) = signer {
            node.add(rtype::DNSKEY, STATIC_TTL, signer.dnskey());
            node.add(rtype::CDNSKEY, STATIC_TTL, signer.dnskey());
            node.add(rtype::CDS, STATIC_TTL, signer.ds());
        }
        for (host, _) in &dns.nameservers {
            node.add(rtype::NS, STATIC_TTL, name_of(host).unwrap_or_default());
        }
        self.nodes.insert(self.apex.clone(), node);
        for (host, addresses) in &dns.nameservers {
            let Some(name) = name_of(host).filter(|name| self.holds(name)) else { continue };
            let node = self.nodes.entry(name).or_default();
            for address in addresses {
                let (rtype, data) = address_data(*address);
                node.add(rtype, STATIC_TTL, data);
            }
        }
    }

    fn add_pops(&mut self, snapshot: &Snapshot) {
        for (index, pop) in snapshot.routing.pops.iter().enumerate() {
            self.pop_nodes.push(Node { pop: Some(index as u16), ..Node::default() });
            // With a zone, a configuration with a name that is no label is refused.
            let mut label = vec![pop.name.len() as u8];
            label.extend(pop.name.to_ascii_lowercase().bytes());
            self.pop_labels.insert(label, index as u16);
        }
    }

    fn add_groups(&mut self, snapshot: &Snapshot) {
        for site in &snapshot.sites {
            let pops: Vec<u16> =
                snapshot.routing.pops_of(&site.pops).into_iter().map(|pop| pop as u16).collect();
            if pops.is_empty() {
                continue;
            }
            let group = self.groups.iter().position(|group| *group == pops).unwrap_or_else(|| {
                self.aliased
                    .push(pops.iter().any(|pop| snapshot.routing.pops[usize::from(*pop)].cname.is_some()));
                self.groups.push(pops);
                self.groups.len() - 1
            });
            self.sites.insert(site.name.clone(), group);
        }
    }

    fn add_sites(&mut self, snapshot: &Snapshot, dns: &DnsSettings, errors: &mut Vec<String>) {
        for site in &snapshot.sites {
            // With a zone, a configuration with a site that no PoP serves is refused.
            let Some(group) = self.sites.get(&site.name).copied() else { continue };
            let own = format!("{}.{}", site.name.to_ascii_lowercase(), dns.zone);
            self.above_pops.extend(name_of(&own).map(|name| (name, group)));
            let inside = site.domains.iter().map(|domain| domain.to_string());
            let names = inside.filter(|domain| name_of(domain).is_some_and(|name| self.holds(&name)));
            for text in std::iter::once(own).chain(names.collect::<Vec<_>>()) {
                let Some(name) = name_of(&text) else {
                    errors.push(format!(
                        "the site {:?} cannot be named {text:?} in DNS: a label has at most 63 bytes",
                        site.name
                    ));
                    continue;
                };
                let node = self.nodes.entry(name).or_default();
                if node.group.is_some_and(|other| other != group)
                    || node.sets.iter().any(|set| matches!(set.rtype, rtype::A | rtype::AAAA))
                {
                    errors.push(format!("{text:?} is wanted twice in the zone: by the site {:?}, and by another or by a nameserver; rename one", site.name));
                }
                node.group = Some(group);
            }
        }
    }

    fn add_records(&mut self, snapshot: &Snapshot, dns: &DnsSettings, errors: &mut Vec<String>) {
        let mut file = Zonefile::from(dns.records.as_str());
        file.extend_from_slice(b"\n");
        file.set_default_class(Class::IN);
        let Ok(origin) = Name::from_octets(self.apex.clone()) else { return };
        file.set_origin(Name::<Vec<u8>>::to_bytes(&origin));
        loop {
            let record = match file.next_entry() {
                Ok(None) => return,
                Ok(Some(Entry::Record(record))) => record,
                Ok(Some(Entry::Include { path, .. })) => {
                    errors.push(format!(
                        "records: $INCLUDE {path} is not followed; write the records themselves"
                    ));
                    return;
                }
                // The scanner cannot go on behind an error.
                Err(error) => {
                    errors.push(format!("records: {error} (line and column within [dns] records)"));
                    return;
                }
            };
            let mut owner = record.owner().to_vec().into_octets();
            owner.make_ascii_lowercase();
            let shown = record.owner();
            let kind = record.rtype().to_int();
            if record.class() != Class::IN {
                errors
                    .push(format!("records: {shown} is of the class {}; only IN is served", record.class()));
            } else if !self.holds(&owner) {
                errors.push(format!("records: {shown} does not lie in the zone {:?}", dns.zone));
            } else if NO_RECORDS.contains(&kind) {
                errors.push(format!(
                    "records: {shown} has {}, which the router makes itself, or does not serve",
                    record.rtype()
                ));
            } else {
                let mut data = Vec::new();
                if record.data().compose_canonical_rdata(&mut data).is_err() {
                    continue;
                }
                let is_apex = owner == self.apex;
                let pop = self.pop_of(&owner).map(|pop| &snapshot.routing.pops[usize::from(pop)]);
                let node = self.nodes.entry(owner).or_default();
                let chosen = node.group.is_some() && CHOSEN.contains(&kind);
                let pop = pop.filter(|pop| node.is_free() && (CHOSEN.contains(&kind) || pop.cname.is_some()));
                let is_aliased = node.group.is_some_and(|group| self.aliased[group]) && !is_apex;
                let cname_beside = (kind == rtype::CNAME && !node.sets.is_empty())
                    || (kind != rtype::CNAME && node.set(rtype::CNAME).is_some());
                if chosen {
                    errors.push(format!(
                        "records: {shown} is a site's, and its {} is chosen per client",
                        record.rtype()
                    ));
                } else if let Some(pop) = pop {
                    errors.push(format!(
                        "records: {shown} is the PoP {:?}'s name: beside its addresses, or its CNAME, there can be no {}",
                        pop.name,
                        record.rtype()
                    ));
                } else if is_aliased {
                    errors.push(format!(
                        "records: {shown} is a site's that some visitors get a CNAME to another CDN for, beside which DNS forbids {} (RFC 1034 §3.6.2)",
                        record.rtype()
                    ));
                } else if cname_beside {
                    errors.push(format!(
                        "records: {shown} has CNAME beside other records, which DNS forbids (RFC 1034 §3.6.2)"
                    ));
                } else {
                    node.add(kind, record.ttl().as_secs(), data);
                }
            }
        }
    }

    /// A name between the apex and another exists, though nothing is known of it (RFC 8020), or only whose PoP's it is.
    fn fill_gaps(&mut self) {
        let names: Vec<Vec<u8>> = self.nodes.keys().cloned().collect();
        for name in names {
            let mut above = parent(&name);
            while let Some(between) = above.filter(|between| between.len() > self.apex.len()) {
                self.nodes.entry(between.to_vec()).or_default();
                above = parent(between);
            }
        }
        let mut nodes = std::mem::take(&mut self.nodes);
        for (name, node) in nodes.iter_mut().filter(|(_, node)| node.is_free()) {
            node.pop = self.pop_of(name);
        }
        self.nodes = nodes;
    }
}

fn soa(dns: &DnsSettings, serial: u32) -> Set {
    let mut data = dns.nameservers.first().and_then(|(host, _)| name_of(host)).unwrap_or_else(|| vec![0]);
    let (local, host) = dns.contact.split_once('@').unwrap_or(("hostmaster", &dns.zone));
    // A dot before the @ is part of the first label (RFC 1035 §8).
    data.push(local.len() as u8);
    data.extend(local.bytes().map(|byte| byte.to_ascii_lowercase()));
    data.extend(name_of(host).unwrap_or_else(|| vec![0]));
    // Nobody transfers this zone; the usual values keep checkers quiet.
    for number in [serial, 7_200, 3_600, 1_209_600, NEGATIVE_TTL] {
        data.extend(number.to_be_bytes());
    }
    Set::new(rtype::SOA, NEGATIVE_TTL, vec![data])
}

/// Type and content of an address.
pub(crate) fn address_data(address: IpAddr) -> (u16, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (rtype::A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (rtype::AAAA, v6.octets().to_vec()),
    }
}

/// The content of HTTPS for a PoP with these addresses (RFC 9460): HTTP/2 and HTTP/3, and where they are.
pub(crate) fn https_data(addresses: &[IpAddr]) -> Vec<u8> {
    // Priority 1, the name itself; then parameters by ascending number: alpn, ipv4hint, ipv6hint.
    let mut data = vec![0, 1, 0];
    let mut parameter = |key: u16, value: &[u8]| {
        data.extend(key.to_be_bytes());
        data.extend((value.len() as u16).to_be_bytes());
        data.extend(value);
    };
    parameter(1, b"\x02h2\x02h3");
    for (key, wanted) in [(4, rtype::A), (6, rtype::AAAA)] {
        let hints: Vec<u8> = addresses
            .iter()
            .map(|address| address_data(*address))
            .filter(|(rtype, _)| *rtype == wanted)
            .flat_map(|(_, data)| data)
            .collect();
        if !hints.is_empty() {
            parameter(key, &hints);
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[[pop]]\nname = \"a\"\nlocation = \"FRA\"\nedges = \"192.0.2.1\"\n[[site]]\nname = \"shop\"\ndomains = [\"www.cdn.example\", \"*.cdn.example\", \"www.shop.example\"]\norigin = \"http://o.example\"\n";

    fn build(dns: &str) -> Result<Zone, Vec<String>> {
        let text = format!(
            "{HEAD}[dns]\nzone = \"cdn.example\"\nnameservers = {{ \"ns1.cdn.example\" = \"192.0.2.53\" }}\n{dns}"
        );
        let parsed = Snapshot::parse_cluster(&text, "c.toml");
        assert!(parsed.diagnostics.iter().all(|found| !found.is_error()), "{:?}", parsed.diagnostics);
        Zone::build(&parsed.snapshot.unwrap(), 1, None)
    }

    fn kind(zone: &Zone, name: &str) -> String {
        match zone.find(&name_of(name).unwrap()) {
            Lookup::Outside => "outside".to_owned(),
            Lookup::Nothing => "nothing".to_owned(),
            Lookup::Node(node) => {
                let types: Vec<String> = node.sets.iter().map(|set| set.rtype.to_string()).collect();
                let pop = node.pop.map_or_else(String::new, |pop| format!("PoP {pop} "));
                format!("{pop}{}{}", node.group.map_or("", |_| "chosen "), types.join(","))
            }
        }
    }

    #[test]
    fn names_are_those_of_sites_nameservers_and_records() {
        let zone = build(
            "caa = \"letsencrypt.org\"\nrecords = '''\n_acme.x.y 300 IN TXT \"token\"\nold CNAME www\n'''",
        )
        .unwrap();
        let kind = |name| kind(&zone, name);
        assert_eq!(kind("cdn.example"), "6,257,2");
        assert_eq!(kind("shop.cdn.example"), "chosen ");
        assert_eq!(kind("www.cdn.example"), "chosen ");
        assert_eq!(kind("anything.cdn.example"), "chosen ", "the wildcard");
        assert_eq!(kind("a.cdn.example"), "PoP 0 ");
        assert_eq!(kind("a.shop.cdn.example"), "PoP 0 ");
        assert_eq!(kind("a.y.cdn.example"), "nothing");
        assert_eq!(kind("ns1.cdn.example"), "1");
        assert_eq!(kind("below.ns1.cdn.example"), "nothing", "a wildcard ends at a name that exists");
        assert_eq!(kind("y.cdn.example"), "", "there are names below it");
        assert_eq!(kind("_acme.x.y.cdn.example"), "16");
        assert_eq!(kind("old.cdn.example"), "5");
        let nothing = Zone::nothing(&Snapshot::without_sites(model::EdgeSettings::default()));
        for name in ["", "cdn.example"] {
            assert!(matches!(nothing.find(&name_of(name).unwrap()), Lookup::Outside), "{name:?}");
        }
        for outside in ["www.shop.example", "example", "", "xcdn.example"] {
            assert_eq!(kind(outside), "outside", "{outside}");
        }
    }

    #[test]
    fn what_is_known_of_a_pops_name_or_below_it_leaves_it_the_pops() {
        let zone = build("records = '''\na TXT x\n_acme-challenge.a.shop TXT y\nb.other TXT z\n'''").unwrap();
        assert_eq!(kind(&zone, "a.cdn.example"), "PoP 0 16");
        assert_eq!(kind(&zone, "a.shop.cdn.example"), "PoP 0 ");
        assert_eq!(kind(&zone, "other.cdn.example"), "");
        let zone = build("").unwrap();
        assert_eq!(kind(&zone, "a.shop.cdn.example"), "PoP 0 ");
        let refused = |record: &str| build(&format!("records = '''\n{record}\n'''")).unwrap_err();
        for (record, name, rtype) in [
            ("a A 192.0.2.9", "a", "A"),
            ("a.shop AAAA 2001:db8::9", "a.shop", "AAAA"),
            ("a HTTPS 1 . alpn=h2", "a", "HTTPS"),
            ("A CNAME b", "A", "CNAME"),
        ] {
            let wanted = format!(
                "records: {name}.cdn.example is the PoP \"a\"'s name: beside its addresses, or its CNAME, there can be no {rtype}"
            );
            assert_eq!(refused(record), [wanted]);
        }
    }

    #[test]
    fn no_record_stands_beside_a_cname_to_another_cdn_but_at_the_zones_own_name() {
        let build = |records: &str| {
            let text = HEAD
                .replace(
                    "[[site]]",
                    "[[pop]]\nname = \"b\"\ncname = \"b.other.example\"\nedges = \"192.0.2.7\"\n[[site]]",
                )
                .replace("domains = [", "pops = [\"a\", \"b\"]\ndomains = [\"cdn.example\", ");
            let text = format!(
                "{text}[dns]\nzone = \"cdn.example\"\nnameservers = {{ \"ns1.cdn.example\" = \"192.0.2.53\" }}\nrecords = '''\n{records}\n'''"
            );
            let parsed = Snapshot::parse_cluster(&text, "c.toml");
            assert!(parsed.diagnostics.iter().all(|found| !found.is_error()), "{:?}", parsed.diagnostics);
            Zone::build(&parsed.snapshot.unwrap(), 1, None)
        };
        assert_eq!(
            build("shop TXT x").unwrap_err(),
            [
                "records: shop.cdn.example is a site's that some visitors get a CNAME to another CDN for, beside which DNS forbids TXT (RFC 1034 §3.6.2)"
            ]
        );
        assert_eq!(
            build("b TXT x").unwrap_err(),
            [
                "records: b.cdn.example is the PoP \"b\"'s name: beside its addresses, or its CNAME, there can be no TXT"
            ]
        );
        assert_eq!(
            kind(&build("@ TXT x\n_acme-challenge.shop TXT y").unwrap(), "cdn.example"),
            "chosen 6,2,16"
        );
    }

    #[test]
    fn what_the_zone_cannot_hold_is_told() {
        let errors = |records: &str| build(&format!("records = '''\n{records}\n'''")).unwrap_err();
        assert_eq!(
            errors("shop A 192.0.2.9"),
            ["records: shop.cdn.example is a site's, and its A is chosen per client"]
        );
        assert_eq!(
            errors("a.example. A 192.0.2.9"),
            ["records: a.example does not lie in the zone \"cdn.example\""]
        );
        assert_eq!(
            errors("sub NS ns.other.example."),
            ["records: sub.cdn.example has NS, which the router makes itself, or does not serve"]
        );
        for (record, rtype) in [
            ("sub DNAME other.example.", "DNAME"),
            ("sub NSEC3PARAM 1 0 0 -", "NSEC3PARAM"),
            ("sub NSEC3 1 0 0 - 2vptu5timamqttgl4luu9kg21e0aor3s A", "NSEC3"),
        ] {
            let wanted = format!(
                "records: sub.cdn.example has {rtype}, which the router makes itself, or does not serve"
            );
            assert_eq!(errors(record), [wanted]);
        }
        assert_eq!(
            errors("c TXT x\nc CNAME b"),
            ["records: c.cdn.example has CNAME beside other records, which DNS forbids (RFC 1034 §3.6.2)"]
        );
        assert!(errors("a A 300.0.2.9")[0].starts_with("records: 2:"), "{:?}", errors("a A 300.0.2.9"));
    }
}
