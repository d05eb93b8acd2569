//! PoPs, the zone and the probes.

use std::time::Duration;

use super::*;
use crate::routing::{Point, ProbeKind};

const TEXT: &str = r#"
[[pop]]
name = "fra"
location = "FRA"
edges = ["192.0.2.1", "2001:db8::1"]
regions = ["eu"]
networks = ["10.0.0.0/8"]

[[pop]]
name = "vir"
location = "aws:us-east-1"
edges = "192.0.2.2"
bias = "20ms"
capacity = 5000

[[pop]]
name = "ams"
location = [52.37, 4]
edges = "192.0.2.3"
regions = ["eu", "nl"]
drain = true

[dns]
zone = "CDN.example."
nameservers = { "ns1.cdn.example" = "192.0.2.53", "ns.other.example" = [] }
spare_within = "15ms"
dnssec = true

[probe]
kind = "tcp"
port = 443
interval = "1s"

[[site]]
name = "shop"
domains = "www.shop.example"
origin = "https://origin.shop.example"
pops = ["eu"]
"#;

#[test]
fn pops_zone_and_probes_are_read_as_they_stand() {
    let parsed = Snapshot::parse_cluster(TEXT, "c.toml");
    assert_eq!(parsed.diagnostics, []);
    let snapshot = parsed.snapshot.unwrap();
    let routing = &snapshot.routing;
    let [fra, vir, ams] = &routing.pops[..] else { panic!("three PoPs") };
    assert_eq!((fra.edges.len(), fra.bias_ms, fra.capacity, fra.line), (2, 0.0, None, 2));
    assert_eq!((vir.bias_ms, vir.capacity), (20.0, Some(5000)));
    assert_eq!((ams.location, ams.drain), (Some(Point { latitude: 52.37, longitude: 4.0 }), true));
    let dns = routing.dns.as_ref().unwrap();
    assert_eq!((&*dns.zone, &*dns.contact, dns.dnssec), ("cdn.example", "hostmaster@cdn.example", true));
    assert_eq!((dns.nameservers.len(), dns.ttl), (2, Duration::from_secs(30)));
    assert_eq!(dns.spare_within, Some(Duration::from_millis(15)));
    let without = Snapshot::parse_cluster(&TEXT.replace("spare_within = \"15ms\"\n", ""), "c.toml");
    assert_eq!(without.snapshot.unwrap().routing.dns.unwrap().spare_within, None);
    assert_eq!((routing.probe.kind, routing.probe.port), (ProbeKind::Tcp, 443));
    assert_eq!(routing.pops_of(&snapshot.sites[0].pops), [0, 2]);
    assert_eq!(routing.pops_of(&[]), [0, 1, 2]);
    assert_eq!(routing.pops_of(&["vir".into(), "nl".into()]), [1, 2]);
}

const OTHER: &str = r#"
[[pop]]
name = "other"
cname = "Shop.Other-CDN.example."
beacon = "https://shop.other-cdn.example/pixel.gif"
share = 20
"#;

#[test]
fn another_cdn_is_a_pop_of_sites_that_name_it() {
    let text = format!("{}{OTHER}", TEXT.replace("pops = [\"eu\"]", "pops = [\"eu\", \"other\"]"));
    let parsed = Snapshot::parse_cluster(&text, "c.toml");
    assert_eq!(parsed.diagnostics, []);
    let snapshot = parsed.snapshot.unwrap();
    let other = &snapshot.routing.pops[3];
    assert_eq!((other.cname.as_deref(), other.share), (Some("shop.other-cdn.example"), Some(20)));
    assert_eq!((other.location, other.edges.len()), (None, 0));
    assert_eq!(snapshot.routing.pops_of(&snapshot.sites[0].pops), [0, 2, 3]);
    assert_eq!(snapshot.routing.pops_of(&[]), [0, 1, 2], "nobody is sent to another CDN without a word");
}

#[test]
fn another_cdn_that_cannot_be_one_is_refused_and_why() {
    let check = |from: &str, to: &str, wanted: &str| {
        let text = format!("{}{OTHER}", TEXT.replace("pops = [\"eu\"]", "pops = [\"eu\", \"other\"]"));
        assert!(text.contains(from), "{from}");
        let parsed = Snapshot::parse_cluster(&text.replace(from, to), "c.toml");
        let found: Vec<String> =
            parsed.diagnostics.iter().map(|found| format!("{} ({})", found.message, found.help)).collect();
        assert_eq!(found, [wanted]);
    };
    check(
        "cname = \"Shop",
        "location = \"FRA\"\ncname = \"Shop",
        "location beside cname: another CDN's places and machines are its own (leave location out)",
    );
    check(
        "Shop.Other-CDN.example.",
        "shop.cdn.example",
        "cname: \"shop.cdn.example\" lies in the zone itself, and is no other CDN's (write the name that the other CDN has given to your site)",
    );
    check(
        "\"www.shop.example\"",
        "\"cdn.example\"",
        "\"cdn.example\" is the zone itself, where DNS allows no CNAME (RFC 1034 §3.6.2), and the PoP \"other\" is one (give \"other\" edges, which are answered there; or take it out of the site's pops)",
    );
    check(
        "regions = [\"eu\"]\n",
        "regions = [\"eu\"]\nshare = 90\n",
        "the shares of this site's PoPs add up to 110 % (100 % is everybody: lower one, or take a PoP out of pops)",
    );
    check(
        "share = 20",
        "share = 20\nlast_resort = true",
        "share beside last_resort: it gets its share always, or visitors when no other is left (leave one out)",
    );
    check(
        "https://shop.other-cdn.example/pixel.gif",
        "http://shop.other-cdn.example/",
        "beacon: \"http://shop.other-cdn.example/\" is no URL that a browser could time (write e.g. \"https://shop.other-cdn.example/pixel.gif\")",
    );
    check(
        "location = \"FRA\"\n",
        "",
        "[[pop]] has no location (add location = \"FRA\"; or cname, if it is another CDN)",
    );
}

#[test]
fn a_site_that_no_pop_would_serve_is_refused_where_there_is_a_zone() {
    let (dns, rest) = TEXT[TEXT.find("[dns]").unwrap()..]
        .split_at(TEXT.find("[probe]").unwrap() - TEXT.find("[dns]").unwrap());
    let others = format!("{OTHER}{}", rest.replace("pops = [\"eu\"]\n", ""));
    assert_eq!(Snapshot::parse_cluster(&others, "c.toml").diagnostics, []);
    let parsed = Snapshot::parse_cluster(&format!("{dns}{others}"), "c.toml");
    let [found] = &parsed.diagnostics[..] else { panic!("{:?}", parsed.diagnostics) };
    assert_eq!(
        (&*found.message, &*found.help),
        (
            "every PoP is another CDN, and this site names none: its visitors would be sent nowhere",
            "name those that it may be served from, such as pops = [\"other\"]"
        )
    );
}

#[test]
fn where_there_is_no_zone_a_pop_may_have_any_name() {
    let (before, rest) = TEXT.split_at(TEXT.find("[dns]").unwrap());
    let text = format!("{before}{}", &rest[rest.find("[probe]").unwrap()..]);
    let text = text.replace("\"ams\"", "\"eu.FRA\"").replace("\"vir\"", "\"Fra\"");
    assert_eq!(Snapshot::parse_cluster(&text, "c.toml").diagnostics, []);
}

#[test]
fn what_cannot_be_routed_is_refused_with_its_place() {
    let check = |from: &str, to: &str, wanted: &str| {
        assert!(TEXT.contains(from), "{from}");
        let parsed = Snapshot::parse_cluster(&TEXT.replace(from, to), "c.toml");
        assert!(parsed.snapshot.is_none(), "{to}");
        let found: Vec<String> = parsed
            .diagnostics
            .iter()
            .map(|found| format!("{}: {} ({})", found.line, found.message, found.help))
            .collect();
        assert_eq!(found, [wanted]);
    };
    const PLACES: &str = "write the code of an airport, a cloud's region, or e.g. [50.11, 8.68]";
    check(
        "\"FRA\"",
        "\"QQQ\"",
        &format!("4: location: \"QQQ\" is no airport's code and no cloud's region ({PLACES})"),
    );
    check(
        "\"aws:us-east-1\"",
        "\"aws:us-eest-1\"",
        &format!(
            "11: location: \"aws:us-eest-1\" is no airport's code and no cloud's region (did you mean \"aws:us-east-1\"? Else {PLACES})"
        ),
    );
    check(
        "[52.37, 4]",
        "[152.37, 4]",
        "18: location: the latitude is 152.37; it may be -90 to 90 (latitude comes first, then longitude)",
    );
    check("[52.37, 4]", "[52.37, 400]", "18: location is 400; it may be -180 to 180 ()");
    check(
        "[52.37, 4]",
        "[1]",
        &format!("18: location has 1 numbers; wanted are latitude and longitude ({PLACES})"),
    );
    check(
        "\"192.0.2.3\"",
        "\"192.0.2.2\"",
        "19: edges: 192.0.2.2 belongs to the PoP \"vir\" already (an address is in one place)",
    );
    check(
        "name = \"ams\"",
        "name = \"vir\"",
        "17: two PoPs have the name \"vir\"; the first is in line 9 (give each PoP its own name)",
    );
    check(
        "\"nl\"",
        "\"fra\"",
        "20: the region \"fra\" has the name of a PoP (sites name both in one list: give the region another name)",
    );
    check(
        "pops = [\"eu\"]",
        "pops = [\"eo\"]",
        "38: pops: no PoP and no region has the name \"eo\" (did you mean \"eu\"?)",
    );
    let long = format!("name = \"{}\"", "a".repeat(64));
    for (name, cannot) in [("name = \"eu.ams\"", "eu.ams"), (&*long, &long[8..72])] {
        let wanted = format!(
            "17: the PoP's name {cannot:?} is no label of DNS, which it has to be in POP.ZONE (write at most 63 letters, digits, \"-\" and \"_\")"
        );
        check("name = \"ams\"", name, &wanted);
    }
    check(
        "name = \"ams\"",
        "name = \"VIR\"",
        "17: the PoPs \"vir\" and \"VIR\" have one name in DNS, where case says nothing (rename one)",
    );
    check(
        "[probe]",
        "[[site]]\nname = \"SHOP\"\ndomains = \"b.example\"\norigin = \"https://b.example\"\n\n[probe]",
        "40: the sites \"SHOP\" and \"shop\" have one name in DNS, where case says nothing (rename one)",
    );
    check("\"15ms\"", "\"2s\"", "26: spare_within is \"2s\"; it may be \"1ms\" to \"1s\" ()");
    check(
        "\"ns1.cdn.example\" = \"192.0.2.53\"",
        "\"ns1.cdn.example\" = []",
        "25: nameservers: \"ns1.cdn.example\" lies in the zone and has no address (add its addresses: nobody else could tell them)",
    );
}
