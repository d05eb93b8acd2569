//! The two files of a cluster: what its nodes have in common, and what each is told alone.

use super::*;
use crate::cluster::{ClusterSettings, ControlAddress, Switches};

pub(super) const NODE: &str = r#"
[cluster]
control = ["https://control-1.example", "https://[2001:db8::1]:7701/"]
pop = "fra"

[edge]
node = "fra-1"
listen = "0.0.0.0:80"

[store]
memory = "1GiB"
"#;

pub(super) const CLUSTER: &str = r#"
block = ["203.0.113.0/24", "2001:db8:bad::/48"]

[switches]
compress = false

[[site]]
name = "shop"
domains = "www.shop.example"
origin = "https://origin.shop.example"

[[site.test]]
get = "/"
expect = { rule = 0 }
"#;

fn messages(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(|found| format!("{}:{}: {}", found.line, found.column, found.message)).collect()
}

#[test]
fn a_node_has_its_own_settings_and_the_clusters_sites() {
    let parsed = NodeSettings::parse(NODE, "node.toml");
    assert_eq!(parsed.diagnostics, []);
    let NodeSettings { edge, cluster } = parsed.settings.unwrap();
    let control = |host: &str, port| ControlAddress { host: host.into(), port };
    let controls = vec![control("control-1.example", 7700), control("2001:db8::1", 7701)];
    assert_eq!(controls[1].to_string(), "https://[2001:db8::1]:7701");
    assert_eq!(cluster, ClusterSettings { control: controls, pop: "fra".into() });

    let common = Snapshot::parse_cluster(CLUSTER, "sites.toml");
    assert_eq!(common.diagnostics, []);
    let common = common.snapshot.unwrap();
    assert_eq!(common.edge, EdgeSettings::default());
    let snapshot = common.for_node(edge.clone());
    assert_eq!((&*snapshot.edge.node, snapshot.edge.store.memory), ("fra-1", ByteSize::from_mib(1024)));
    assert_eq!(snapshot.site_for("www.shop.example").map(|site| &*site.name), Some("shop"));
    assert_eq!(snapshot.switches, Switches { compress: false, ..Switches::default() });
    assert!(snapshot.block.contains("203.0.113.77".parse().unwrap()));
    assert!(!snapshot.block.contains("203.0.114.1".parse().unwrap()));
    assert_eq!(snapshot.run_tests(), []);

    // One file says the same.
    let whole = format!("{CLUSTER}{}", &NODE[NODE.find("[edge]").unwrap()..]);
    let whole = Snapshot::parse(&whole, "sites.toml").snapshot.unwrap();
    assert_eq!(whole, snapshot);
}

#[test]
fn what_belongs_into_the_other_file_is_refused_and_told_where() {
    for (text, told, help) in [
        ("[edge]\nlisten = \"0.0.0.0:80\"\n", "\"edge\" is a node's own affair", "node's own file"),
        ("[store]\n", "\"store\" is a node's own affair", "node's own file"),
        ("[cluster]\n", "\"cluster\" is a node's own affair", "node's own file"),
        ("[[certificate]]\n", "\"certificate\" is a node's own affair", "node's own file"),
    ] {
        let parsed = Snapshot::parse_cluster(&format!("{CLUSTER}{text}"), "sites.toml");
        assert!(parsed.snapshot.is_none());
        let [found] = &parsed.diagnostics[..] else { panic!("{:?}", messages(&parsed.diagnostics)) };
        assert!(found.message.starts_with(told) && found.help.contains(help), "{found}");
        assert!(found.line >= 15, "{found}");
    }
    let listen = Snapshot::parse_cluster(&format!("listen = \"0.0.0.0:80\"\n{CLUSTER}"), "sites.toml");
    assert_eq!(
        messages(&listen.diagnostics),
        ["1:1: \"listen\" is a node's own affair and has no place in a cluster's configuration"]
    );
    for text in ["[[site]]\nname = \"a\"\n", "[switches]\nhttp3 = false\n"] {
        let parsed = NodeSettings::parse(&format!("{NODE}{text}"), "node.toml");
        assert!(parsed.settings.is_none());
        let [found] = &parsed.diagnostics[..] else { panic!("{:?}", messages(&parsed.diagnostics)) };
        assert!(found.message.contains("is the same for the whole cluster"), "{found}");
        assert!(found.help.contains("perigee apply"), "{found}");
    }
    let whole = format!("[cluster]\ncontrol = \"https://c.example\"\n{}", example());
    let whole = Snapshot::parse(&whole, "perigee.toml");
    assert_eq!(
        messages(&whole.diagnostics),
        ["1:2: \"cluster\" belongs to a node of a cluster, which has its sites from there"]
    );
}

#[test]
fn a_node_needs_a_name_and_somebody_to_follow() {
    let parsed = NodeSettings::parse("", "node.toml");
    assert_eq!(
        messages(&parsed.diagnostics),
        [
            "1:1: a node's file has no cluster",
            "1:1: the node has no name, and no other of its cluster may have the same"
        ]
    );
    for (control, told) in [
        ("[]", "control is an empty list"),
        ("\"http://control.example\"", "is not https"),
        ("\"control.example:7700\"", "has no scheme"),
        ("\"https://control.example/v1\"", "has a path"),
        ("7700", "control is the number 7700"),
    ] {
        let text = format!("[cluster]\ncontrol = {control}\n[edge]\nnode = \"fra-1\"\n");
        let parsed = NodeSettings::parse(&text, "node.toml");
        assert!(parsed.settings.is_none(), "{control}");
        let [found] = &parsed.diagnostics[..] else { panic!("{:?}", messages(&parsed.diagnostics)) };
        assert!(found.message.contains(told) && found.line == 2, "{found}");
    }
    let text =
        "[cluster]\ncontrol = \"https://c.example\"\npop = \"Frankfurt am Main\"\n[edge]\nnode = \"fra-1\"\n";
    let parsed = NodeSettings::parse(text, "node.toml");
    assert!(parsed.diagnostics[0].message.starts_with("the PoP's name \"Frankfurt am Main\""));
}

#[test]
fn certificates_of_a_node_may_be_for_domains_that_its_file_does_not_name() {
    let acme = "[acme]\naccept_terms = true\ndomains = [\"www.shop.example\"]\n";
    assert_eq!(NodeSettings::parse(&format!("{NODE}{acme}"), "node.toml").diagnostics, []);
}

#[test]
fn a_block_list_is_refused_where_it_is_no_list_of_networks_or_everybody() {
    let site = &CLUSTER[CLUSTER.find("[[site]]").unwrap()..];
    for (block, told) in [
        ("\"0.0.0.0/0\"", "is everybody"),
        ("[\"::/0\"]", "is everybody"),
        ("[\"203.0.113.0/33\"]", "has the prefix length \"33\""),
        ("[\"203.0.113.9/24\"]", "has bits set behind its prefix; the network is 203.0.113.0/24"),
        ("[\"evil.example\"]", "is not an address or a network"),
        ("[1]", "wanted is an address or a network"),
    ] {
        let parsed = Snapshot::parse_cluster(&format!("block = {block}\n{site}"), "sites.toml");
        let [found] = &parsed.diagnostics[..] else { panic!("{:?}", messages(&parsed.diagnostics)) };
        assert!(found.message.contains(told) && found.line == 1 && found.is_error(), "{found}");
    }
}

#[test]
fn a_long_block_list_is_read() {
    let entries: Vec<String> =
        (0..100_000_u32).map(|number| format!("\"{}\"", std::net::Ipv4Addr::from(number * 16_384))).collect();
    let text = format!("block = [{}]\n{}", entries.join(", "), &CLUSTER[CLUSTER.find("[[site]]").unwrap()..]);
    let snapshot = Snapshot::parse_cluster(&text, "sites.toml").snapshot.unwrap();
    assert!(snapshot.block.contains("0.0.64.0".parse().unwrap()));
    assert!(!snapshot.block.contains("0.0.64.1".parse().unwrap()));
}

#[test]
fn a_switch_that_is_off_overrules_sites_and_rules() {
    let rules = "compress = true\n[[site.rule]]\npath = \"/a\"\ncompress = true\nearly_hints = true\nwebsocket = true\n";
    let site = &CLUSTER[CLUSTER.find("[[site]]").unwrap()..CLUSTER.find("[[site.test]]").unwrap()];
    for is_on in [true, false] {
        let text = format!(
            "[switches]\ncompress = {is_on}\nearly_hints = {is_on}\nwebsocket = {is_on}\n{site}{rules}"
        );
        let snapshot = Snapshot::parse_cluster(&text, "sites.toml").snapshot.unwrap();
        let site = &snapshot.sites[0];
        for rule in [&site.defaults, &site.rules[0]] {
            assert_eq!([rule.compress.is_some(), rule.early_hints, rule.websocket], [is_on; 3]);
        }
    }
}
