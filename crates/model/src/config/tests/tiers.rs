//! Nodes of PoPs, shields, and what a node's own file says of tiers.

use super::*;
use crate::tiers::Shield;

const TEXT: &str = r#"
[[pop]]
name = "fra"
location = "FRA"
edges = "192.0.2.1"
regions = "eu"
[[pop.node]]
name = "fra-1"
tier = "10.0.0.1:7443"
[[pop.node]]
name = "fra-2"
tier = "10.0.0.2:7443"
weight = 3

[[pop]]
name = "ams"
location = "AMS"
edges = "192.0.2.2"
regions = "eu"
[[pop.node]]
name = "ams-1"
tier = "10.1.0.1:7443"

[[pop]]
name = "syd"
location = "SYD"
edges = "192.0.2.3"

[[site]]
name = "shop"
domains = "www.shop.example"
origin = "https://origin.shop.example"
shield = ["fra", "ams"]
[[site.shield_from]]
from = ["syd"]
pops = ["ams"]
"#;

#[test]
fn nodes_and_shields_are_read_as_they_stand() {
    let parsed = Snapshot::parse_cluster(TEXT, "c.toml");
    assert_eq!(parsed.diagnostics, []);
    let snapshot = parsed.snapshot.unwrap();
    let routing = &snapshot.routing;
    let nodes: Vec<_> = routing.pops[0].nodes.iter().map(|node| (&*node.name, node.weight)).collect();
    assert_eq!(nodes, [("fra-1", 1), ("fra-2", 3)]);
    assert_eq!(routing.pops[0].nodes[0].address, "10.0.0.1:7443".parse().unwrap());
    assert_eq!(routing.pop_of_node("ams-1").map(|pop| &*pop.name), Some("ams"));
    assert_eq!(routing.pop_of_node("fra"), None);
    let site = &snapshot.sites[0];
    let from = |pop: &str| {
        let shields = site.shields_from(routing.pop_named(pop).unwrap());
        shields.iter().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(from("syd"), ["ams"], "the first that fits");
    assert_eq!(from("ams"), ["fra"], "the second asks the first, and not itself");
    assert_eq!(from("fra"), [""; 0], "the first asks the origin");
    assert_eq!(site.shields.last(), Some(&Shield { from: vec![], pops: vec!["fra".into(), "ams".into()] }));
}

#[test]
fn tiers_that_could_not_work_are_refused_with_their_place() {
    for (from, to, wanted) in [
        ("name = \"fra-2\"", "name = \"fra-1\"", "two nodes have the name \"fra-1\"; the first is in line 8"),
        (
            "10.0.0.2:7443",
            "10.0.0.1:7443",
            "tier: 10.0.0.1:7443 is the address of the node \"fra-1\" already",
        ),
        ("10.0.0.2:7443", "10.0.0.2", "tier: \"10.0.0.2\" is not an address with port"),
        (
            "10.0.0.2:7443",
            "0.0.0.0:7443",
            "tier: \"0.0.0.0:7443\" is an address to listen on, and not one that others reach",
        ),
        ("weight = 3", "weight = 0", "weight"),
        ("shield = [\"fra\", \"ams\"]", "shield = [\"far\", \"ams\"]", "shield: no PoP has the name \"far\""),
        ("shield = [\"fra\", \"ams\"]", "shield = \"eu\"", "shield: no PoP has the name \"eu\""),
        (
            "shield = [\"fra\", \"ams\"]",
            "shield = \"syd\"",
            "shield: the PoP \"syd\" has no [[pop.node]], so nobody could ask it",
        ),
        ("shield = [\"fra\", \"ams\"]", "shield = [\"fra\", \"fra\"]", "shield: \"fra\" stands twice"),
        ("from = [\"syd\"]", "from = [\"eur\"]", "from: no PoP and no region has the name \"eur\""),
        ("from = [\"syd\"]", "from = []", "from is an empty list"),
        ("pops = [\"ams\"]", "pops = [\"asm\"]", "pops: no PoP has the name \"asm\""),
    ] {
        assert!(TEXT.contains(from), "{from}");
        let parsed = Snapshot::parse_cluster(&TEXT.replacen(from, to, 1), "c.toml");
        let found: Vec<_> = parsed.diagnostics.iter().map(|found| found.message.as_str()).collect();
        assert!(found.iter().any(|message| message.contains(wanted)), "{to}: {found:?}");
        assert!(parsed.snapshot.is_none(), "{to}");
    }
}

#[test]
fn a_nodes_own_file_says_where_others_reach_it() {
    let of_node = |more: &str| {
        let text = format!(
            "[cluster]\ncontrol = \"https://c.example\"\n[edge]\nnode = \"fra-1\"\nlisten_tier = \"10.0.0.1:7443\"\n{more}"
        );
        NodeSettings::parse(&text, "node.toml")
    };
    let settings = of_node("").settings.unwrap();
    assert_eq!(settings.edge.listen_tier, ["10.0.0.1:7443".parse().unwrap()]);
    let files = "[edge.tier]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\nauthority = \"a.pem\"\n";
    let refused = of_node(files).diagnostics;
    assert_eq!(
        refused[0].message,
        "[edge.tier] on a node of a cluster, which shows the cluster's certificate"
    );

    let alone = |edge: &str| {
        let parsed = Snapshot::parse(&format!("{edge}\n{TEXT}"), "perigee.toml");
        let messages: Vec<_> = parsed.diagnostics.iter().map(|found| found.message.clone()).collect();
        (parsed.snapshot.is_some(), messages.join("; "))
    };
    for (edge, is_usable, wanted) in [
        ("[edge]\nlisten_tier = \"10.0.0.1:7443\"", false, "listen_tier without [edge.tier]"),
        (&*format!("[edge]\nnode = \"fra-1\"\n{files}"), true, "listens for none of the others"),
        (
            &*format!("[edge]\nnode = \"fra-7\"\n{files}"),
            true,
            "no [[pop.node]] has the name of this node, \"fra-7\"",
        ),
        (
            &*format!("[edge]\nnode = \"fra-1\"\nlisten_tier = \"10.0.0.1:7443\"\n{files}"),
            true,
            "an edge by itself numbers its own purges",
        ),
        ("[edge]\nnode = \"fra-1\"", true, ""),
    ] {
        let (usable, found) = alone(edge);
        assert_eq!(usable, is_usable, "{edge}: {found}");
        assert!(found.contains(wanted) && found.is_empty() == wanted.is_empty(), "{edge}: {found}");
    }
}
