use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use semantics::coding::Coding;

use super::keys::{Kind, Table};
use super::*;
use crate::compress::Compress;
use crate::cors::Cors;
use crate::rule::Cache;
use crate::rum::Rum;
use crate::{ByteSize, DiskSettings, Scheme};

mod cluster;
mod corrupt;
mod diagnostics;
mod routing;
mod tiers;

/// The example of the documentation, which says every kind of thing that can be said.
fn example() -> &'static str {
    let document = include_str!("../../../../docs/configuration.md");
    let start = document.find("```toml\n# perigee.toml").unwrap() + "```toml\n".len();
    &document[start..start + document[start..].find("```").unwrap()]
}

#[test]
fn the_documented_example_is_read_as_it_says() {
    let parsed = Snapshot::parse(example(), "perigee.toml");
    assert_eq!(parsed.diagnostics, []);
    let snapshot = parsed.snapshot.unwrap();
    assert_eq!(snapshot.run_tests(), []);
    assert!(snapshot.test_count() >= 4);
    assert_eq!(snapshot.edge.store.memory, ByteSize::from_mib(2048));
    let disk = DiskSettings::of(ByteSize::from_mib(200 << 10));
    assert_eq!(snapshot.edge.store.disks, [DiskSettings { path: Some("/var/cache/perigee".into()), ..disk }]);
    assert_eq!(snapshot.edge.limits.header_count_max, 64);
    let shop = snapshot.site_named("shop").unwrap();
    assert_eq!(shop.domains.len(), 2);
    assert_eq!(shop.rules[1].policy.ttl, Some(30 * 86_400));
    assert_eq!(
        shop.rules[1].line,
        example().lines().position(|line| line.contains("\"static\"")).unwrap() as u32
    );
    assert_eq!(shop.rules[0].cache, Cache::Use);
    assert_eq!(shop.defaults.cors, Cors::Static);
    assert_eq!(shop.defaults.origin.origins[0].scheme, Scheme::Https);
    assert_eq!(shop.defaults.origin.origins.len(), 2);
}

#[test]
fn a_rule_says_what_the_site_says_unless_it_says_otherwise() {
    let text = r#"
        [[site]]
        name = "a"
        domains = "*"
        origin = "https://o.example"
        ttl = "1h"
        stale_if_error = "1d"
        response_headers = { set = { X-A = "site", X-B = "site" } }
        [[site.rule]]
        path = "/x"
        ttl = "1m"
        origin = "http://other.example:81/sub/"
        response_headers = { set = { X-B = "rule" } }
        [[site.rule]]
        path = "/y"
        origin_options = { timeouts = { connect = "1s" } }
    "#;
    let snapshot = Snapshot::parse(text, "f").snapshot.unwrap();
    let site = &snapshot.sites[0];
    let [first, second] = &site.rules[..] else { panic!("two rules") };
    assert_eq!((first.policy.ttl, first.policy.stale_if_error), (Some(60), Some(86_400)));
    assert_eq!(first.origin.origins[0].url(), "http://other.example:81/sub");
    let mut fields = semantics::Fields::new();
    first.response_headers.apply(&mut fields);
    assert_eq!(fields.as_block(), b"X-A: site\r\nX-B: rule\r\n");
    assert_eq!(second.policy.ttl, Some(3600));
    assert_eq!(second.origin.origins[0].timeouts.connect.as_secs(), 1);
    assert_eq!(site.defaults.origin.origins[0].timeouts.connect.as_secs(), 3);
}

#[test]
fn what_is_compressed_is_a_choice_of_sites_and_rules() {
    let text = r#"
        [[site]]
        name = "a"
        domains = "*"
        origin = "https://o.example"
        compress = { encodings = ["gzip", "br"], min_size = "2KiB" }
        [[site.rule]]
        path = "/off"
        compress = false
        [[site.rule]]
        path = "/some"
        compress = { types = ["text/*", "Application/JSON"], max_size = "1MiB" }
        [[site.rule]]
        path = "/same"
    "#;
    let snapshot = Snapshot::parse(text, "f").snapshot.unwrap();
    let site = &snapshot.sites[0];
    let of_site = site.defaults.compress.as_ref().unwrap();
    assert_eq!((&of_site.codings[..], &of_site.sizes), (&[Coding::Gzip, Coding::Br][..], &(2048..=4 << 20)));
    assert_eq!(site.rules[0].compress, None);
    let some = site.rules[1].compress.as_ref().unwrap();
    assert!(some.covers(b"application/json", 1 << 20) && !some.covers(b"application/wasm", 4096));
    assert_eq!(some.codings, Compress::default().codings);
    assert_eq!(site.rules[2].compress.as_ref(), Some(of_site));
    for (line, message) in [
        ("compress = { types = [\"css\"] }", "no Content-Type"),
        ("compress = { encodings = [] }", "empty list"),
        ("compress = { min_size = \"2MiB\", max_size = \"1MiB\" }", "nothing would be compressed"),
        ("compress = { encodings = [\"deflate\"] }", "deflate"),
    ] {
        let text =
            format!("[[site]]\nname = \"a\"\ndomains = \"*\"\norigin = \"https://o.example\"\n{line}\n");
        let parsed = Snapshot::parse(&text, "f");
        let found: Vec<_> = parsed.diagnostics.iter().map(|found| found.message.as_str()).collect();
        assert!(matches!(&found[..], [found] if found.contains(message)), "{line}: {found:?}");
    }
}

#[test]
fn a_finding_is_printed_with_its_line_and_a_caret() {
    let text = "[[site]]\nname = \"shop\"\n\tdomains = \"*\"\norigin = \"https://o.example\"\n\tttl = \"5 parsecs\"\n";
    let parsed = Snapshot::parse(text, "perigee.toml");
    let expected = "\
error: ttl: \"5 parsecs\" is not a duration
 --> perigee.toml:5:8
  |
5 |  ttl = \"5 parsecs\"
  |        ^^^^^^^^^^^
  = write e.g. \"90s\"
";
    assert_eq!(parsed.diagnostics[0].to_string(), expected);
}

#[test]
fn failing_tests_say_what_is_so_instead_and_by_which_rule() {
    let text = r#"
[[site]]
name = "shop"
domains = ["shop.example"]
origin = "https://o.example"
[[site.rule]]
name = "images"
path = "/i/*"
ttl = "1d"
browser_ttl = "1h"
[[site.rule]]
path = "/old/*"
redirect = { to = "/new/{1}", status = 301 }
[[site.rule]]
path = "/api/*"
cache = false
[[site.test]]
get = "/i/a.png"
expect = { rule = "images", ttl = "1d", cache = true, stored = true, browser_ttl = "1h", origin = "https://o.example/" }
[[site.test]]
get = "/i/a.png"
expect = { rule = 2, ttl = "2d", cache = false, stored = false, browser_ttl = "2h", redirect = "/", origin = "https://x.example" }
[[site.test]]
get = "/old/x?y"
expect = { rule = 2, redirect = "/new/y" }
[[site.test]]
get = "/api/x"
expect = { rule = "images", stored = true }
[[site.test]]
get = "/"
response_headers = { Cache-Control = "private, max-age=60", Content-Type = "text/css" }
expect = { rule = 0, stored = true, response_headers = { Access-Control-Allow-Origin = "*", X = true } }
[[site.test]]
get = "/"
response_headers = { Cache-Control = "max-age=60" }
expect = { ttl = "1m", response_headers = { Cache-Control = false } }
"#;
    let found: Vec<String> = Snapshot::parse(text, "f")
        .snapshot
        .unwrap()
        .run_tests()
        .iter()
        .map(|failure| format!("{}:{} {} | {}", failure.line, failure.column, failure.message, failure.help))
        .collect();
    let images = "shop.example/i/a.png is decided by rule 1 (images, line 6)";
    let expected = [
        format!("22:19 test failed: the rule should be rule 2, but is rule 1 (images, line 6) | {images}"),
        format!("22:42 test failed: cache should be false, but is true | {images}"),
        format!("22:58 test failed: the answer should be not stored, but is stored for 1d | {images}"),
        format!("22:28 test failed: ttl should be 2d, but is 1d (by rule) | {images}"),
        format!("22:79 test failed: browser_ttl should be 2h, but is 1h | {images}"),
        format!("22:96 test failed: the answer should be a redirect to \"/\", but is no redirect | {images}"),
        format!("22:110 test failed: the origin should be \"https://x.example\", but is \"https://o.example\" | {images}"),
        "25:33 test failed: the redirect should be \"/new/y\", but is \"/new/x\" | shop.example/old/x is decided by rule 2 (line 11)".to_owned(),
        "28:19 test failed: the rule should be \"images\", but is rule 3 (line 14) | shop.example/api/x is decided by rule 3 (line 14)".to_owned(),
        "28:38 test failed: the answer should be stored, but is not: the rule says cache = false | shop.example/api/x is decided by rule 3 (line 14)".to_owned(),
        "32:31 test failed: the answer should be stored, but is not: the origin says that the answer is for one user (private) | shop.example/ is decided by the site's own keys".to_owned(),
        "32:97 test failed: the response's x should be present, but is absent | shop.example/ is decided by the site's own keys".to_owned(),
        "36:61 test failed: the response's cache-control should be absent, but is \"max-age=60\" | shop.example/ is decided by the site's own keys".to_owned(),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_schema_knows_exactly_the_keys_that_the_reader_knows() {
    fn compare(table: &Table, schema: &Value) {
        let known: BTreeSet<&str> = table.keys().map(|key| key.name).collect();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "{}", table.title);
        assert_eq!(schema["additionalProperties"], false, "{}", table.title);
        table.keys().for_each(|key| descend(&key.kind, &properties[key.name]));
    }
    fn descend(kind: &Kind, schema: &Value) {
        match kind {
            Kind::Table(table) => compare(table, schema),
            Kind::Tables { of, .. } => compare(of, &schema["items"]),
            Kind::List(of) => descend(of, &schema["anyOf"][0]),
            Kind::Map { of, .. } => descend(of, &schema["additionalProperties"]),
            Kind::Either(kinds) => {
                kinds.iter().enumerate().for_each(|(index, kind)| descend(kind, &schema["anyOf"][index]));
            }
            _ => {}
        }
    }
    for document in [Document::Whole, Document::Cluster, Document::Node] {
        compare(document.table(), &serde_json::from_str(&json_schema(document)).unwrap());
    }
}

#[test]
fn every_key_of_the_tables_is_read_by_a_builder() {
    // Each builder asserts at its end that it has asked for every key of its table; this text reaches all builders.
    let text = r#"
        [edge]
        limits = {}
        [store]
        [[store.disk]]
        size = "1GiB"
        [[site]]
        name = "a"
        domains = "*"
        origin = "https://o.example"
        query = { keep = "a" }
        key = {}
        heuristic = {}
        request_cookies = { keep = "a" }
        request_headers = {}
        cors = { origins = "*" }
        origin_options = { tls = {}, timeouts = {}, retry = {}, breaker = {}, health = {}, request_headers = {} }
        [[site.rule]]
        redirect = { to = "/x" }
        [[site.test]]
        get = "/"
        expect = {}
        [[pop]]
        name = "fra"
        location = "FRA"
        edges = "192.0.2.1"
        [dns]
        zone = "cdn.example"
        nameservers = { "ns1.cdn.example" = "192.0.2.53" }
        [probe]
    "#;
    let errors: Vec<Diagnostic> =
        Snapshot::parse(text, "f").diagnostics.into_iter().filter(Diagnostic::is_error).collect();
    assert_eq!(errors, []);
}

#[test]
fn no_key_stands_twice_in_a_table_and_each_is_explained() {
    for table in super::reference::all_tables() {
        let names: Vec<&str> = table.keys().map(|key| key.name).collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "{}", table.title);
        for key in table.keys() {
            assert!(key.doc.ends_with(['.', '}']), "{} of {} has no sentence", key.name, table.title);
        }
    }
}

#[test]
fn documented_defaults_are_the_real_ones() {
    assert_eq!(super::keys::BREAKER_DEFAULT, crate::breaker::BreakerPolicy::default());
    let reference = reference();
    for (key, default) in [("down_after", 3), ("up_after", 2), ("aside_after", 5), ("floor_per_second", 1)] {
        let line = reference.lines().find(|line| line.starts_with(&format!("| `{key}`"))).unwrap();
        assert!(line.contains(&format!("| `{default}` |")), "{line}");
    }
    let health = crate::health::HealthPolicy::default();
    assert_eq!((health.down_after, health.up_after, health.aside_after, health.aside_ms), (3, 2, 5, 5000));
    let retry = crate::retry::RetryPolicy::default();
    assert_eq!((retry.percent, retry.floor_per_sec), (20, 1));
    let heuristic = semantics::Heuristic::default();
    assert_eq!(heuristic.fraction_percent, 10);
}

#[test]
fn what_is_rewritten_is_a_choice_of_sites_and_rules() {
    let site = |lines: &str| {
        format!(
            "[[site]]\nname = \"shop\"\ndomains = [\"www.shop.example\", \"cdn.shop.example\", \"*.lamps.example\"]\n\
             origin = \"http://127.0.0.1:8000\"\n{lines}\n"
        )
    };
    let text = site(
        "rewrite = { host = \"cdn.shop.example\", hosts = { \"IMG.shop.example:443\" = \"http://pics.example:81\" } }\n\
         [[site.rule]]\npath = \"/a/*\"\nrewrite = \"off\"\n\
         [[site.rule]]\npath = \"/b/*\"\nrewrite = { host = \"x.example\", paths = \"/static/*\", structured_data = true }\n",
    );
    let parsed = Snapshot::parse(&text, "f");
    assert_eq!(parsed.diagnostics, []);
    let snapshot = parsed.snapshot.unwrap();
    let shop = snapshot.site_named("shop").unwrap();
    let rewrite = shop.defaults.rewrite.as_ref().unwrap();
    assert_eq!(&*rewrite.host, "https://cdn.shop.example");
    // The site's own names move too, but for the one that files move to.
    let hosts: Vec<_> = rewrite.hosts.iter().map(|(from, to)| (&**from, &**to)).collect();
    let wanted =
        [("img.shop.example", "http://pics.example:81"), ("www.shop.example", "https://cdn.shop.example")];
    assert_eq!(hosts, wanted);
    assert_eq!(shop.rules[0].rewrite, None);
    let other = shop.rules[1].rewrite.as_ref().unwrap();
    assert!(
        other.structured_data && !other.social_images && other.moves(b"/static/x") && !other.moves(b"/a.css")
    );
    for (lines, message) in [
        ("rewrite = { host = \"https://a/b\" }", "no host that files can be fetched from"),
        ("rewrite = { host = \"a.example\", paths = \"static\" }", "matches nothing"),
        ("rewrite = { host = \"a.example\", hosts = { \"a/b\" = \"c.example\" } }", "is no host"),
        ("rewrite = { paths = \"/a\" }", "host"),
        ("rewrite = true", "rewrite"),
    ] {
        let found = Snapshot::parse(&site(lines), "f").diagnostics;
        assert!(found.iter().any(|found| found.message.contains(message)), "{lines}: {found:?}");
    }
}

#[test]
fn a_rule_says_of_page_views_what_it_says_on_top_of_its_site() {
    let text = "[[site]]\nname = \"shop\"\ndomains = [\"www.shop.example\"]\norigin = \"http://127.0.0.1:8000\"\n\
         rum = { one_in = 10, inject = true }\n\
         [[site.rule]]\npath = \"/pay/*\"\nrum = { group = \"checkout\", consent = true }\n\
         [[site.rule]]\npath = \"/private/*\"\nrum = false\n\
         [[site.rule]]\npath = \"/own/*\"\nrum = { inject = false }\nrewrite = { host = \"cdn.example\" }\n";
    let parsed = Snapshot::parse(text, "f");
    assert_eq!(parsed.diagnostics, []);
    let snapshot = parsed.snapshot.unwrap();
    let shop = snapshot.site_named("shop").unwrap();
    let site = Rum { one_in: 10, group: None, inject: true, consent: false };
    assert_eq!(shop.defaults.rum, Some(site.clone()));
    let script = |rule: &crate::Rule| rule.rewrite.as_ref().is_some_and(|rewrite| rewrite.script);
    assert!(script(&shop.defaults) && script(&shop.rules[0]));
    assert_eq!(
        shop.rules[0].rum,
        Some(Rum { group: Some("checkout".into()), consent: true, ..site.clone() })
    );
    assert_eq!((&shop.rules[1].rum, &shop.rules[1].rewrite), (&None, &None));
    assert_eq!(shop.rules[2].rum, Some(Rum { inject: false, ..site }));
    assert!(shop.rules[2].rewrite.is_some() && !script(&shop.rules[2]));
    for (line, message) in [
        ("rum = \"on\"", "rum"),
        ("rum = { one_in = 0 }", "one_in"),
        ("rum = { group = \"a b\" }", "the group"),
    ] {
        let found = Snapshot::parse(&text.replace("rum = false", line), "f").diagnostics;
        assert!(found.iter().any(|found| found.message.contains(message)), "{line}: {found:?}");
    }
}

#[test]
fn the_documentation_holds_the_reference_of_all_keys() {
    let document = include_str!("../../../../docs/configuration.md");
    let (_, rest) = document.split_once("<!-- from here on: perigee check --reference -->\n\n").unwrap();
    assert_eq!(rest.trim_end(), reference().trim_end());
}

#[test]
fn an_origin_alone_answers_every_host() {
    let snapshot = Snapshot::for_origin("http://127.0.0.1:8000").unwrap();
    let site = snapshot.site_for("whatever.example").unwrap();
    assert_eq!(&*site.name, "default");
    let origin = &site.defaults.origin.origins[0];
    assert_eq!((&*origin.host, origin.port, origin.scheme), ("127.0.0.1", 8000, Scheme::Http));
    let refused = Snapshot::for_origin("localhost:8000").unwrap_err();
    assert_eq!(refused.message, "the origin \"localhost:8000\" has no scheme");
    assert_eq!(refused.help, "write \"https://localhost:8000\" or \"http://localhost:8000\"");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[|\\]|\\{|\\}|=|\"|\n| |site|edge|rule|ttl|\\.|[a-z0-9é]){0,60}") {
        let _ = Snapshot::parse(&text, "f");
    }

    #[test]
    fn no_damage_to_a_good_text_makes_the_reader_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = example().as_bytes().to_vec();
        for (index, byte) in &edits {
            let at = index.index(bytes.len());
            bytes[at] = *byte;
        }
        if edits.len() > 4 {
            bytes.truncate(cut.index(bytes.len()));
        }
        let parsed = Snapshot::parse(&String::from_utf8_lossy(&bytes), "f");
        for diagnostic in &parsed.diagnostics {
            prop_assert!(!diagnostic.to_string().is_empty());
        }
        if let Some(snapshot) = parsed.snapshot {
            let _ = snapshot.run_tests();
        }
    }
}

/// The lines that a rule's first origin gets of a request with these fields, in the order of their names.
fn sent_to_the_first(rule: &crate::Rule, mut fields: semantics::Fields) -> String {
    rule.request_headers.apply(&mut fields);
    rule.origin.prepare(&mut fields);
    rule.origin.prepare_for(0, &mut fields);
    let line = |(name, value): (&[u8], &[u8])| {
        format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
    };
    let mut lines: Vec<String> = fields.iter().map(line).collect();
    lines.sort();
    lines.join(" ")
}

#[test]
fn what_one_origin_knows_the_edge_by_is_said_to_no_other() {
    let text = r#"
        [[site]]
        name = "a"
        domains = "a.example"
        origin = ["https://one.example", "https://two.example"]
        request_headers = { set = { Authorization = "Basic site", X-Site = "s" }, add = { Cookie = "edge=1" } }
        [site.origin_options]
        request_headers = { set = { X-Secret = "all" } }
        request_headers_of."https://two.example" = { set = { X-Own = "two" } }
        [[site.rule]]
        path = "/other/*"
        origin = "https://other.example"
        [[site.rule]]
        path = "/port/*"
        origin = ["https://one.example", "https://one.example:8443"]
        [[site.rule]]
        path = "/told/*"
        origin = "https://other.example"
        request_headers = { set = { Authorization = "Basic other" } }
        origin_options = { request_headers = { set = { X-Secret = "other" } } }
        [[site.rule]]
        path = "/two/*"
        origin = "https://two.example"
        [[site.rule]]
        path = "/deep/*"
        origin = "https://two.example/deep"
        [[site.rule]]
        path = "/plain/*"
        ttl = "1d"
    "#;
    let parsed = Snapshot::parse(text, "f");
    let site = &parsed.snapshot.expect("a good one").sites[0];
    let sent = |rule: &crate::Rule| sent_to_the_first(rule, semantics::Fields::new());
    let all = "Authorization=Basic site Cookie=edge=1 X-Secret=all X-Site=s";
    let of_two = "Authorization=Basic site Cookie=edge=1 X-Own=two X-Secret=all X-Site=s";
    let wanted =
        ["X-Site=s", "X-Site=s", "Authorization=Basic other X-Secret=other X-Site=s", of_two, all, all];
    for (rule, wanted) in site.rules.iter().zip(wanted) {
        assert_eq!(sent(rule), wanted, "line {}", rule.line);
    }
    assert_eq!((sent(&site.defaults), site.rules.len()), (all.to_owned(), wanted.len()));
}

#[test]
fn what_is_kept_from_the_sites_origins_is_kept_from_those_of_a_rule_too() {
    let text = r#"
        [[site]]
        name = "a"
        domains = "a.example"
        origin = ["https://one.example", "https://two.example"]
        request_headers = { set = { Proxy-Authorization = "Basic site", X-Blank = "" } }
        [site.origin_options]
        request_headers = { remove = ["Cookie"], set = { Authorization = "Basic site", X-User = "  ", X-Secret = "s" } }
        request_headers_of."https://two.example" = { set = { X-Own = "two" } }
        [[site.rule]]
        path = "/third/*"
        origin = "https://third.example"
        [[site.rule]]
        path = "/own/*"
        origin = ["https://third.example", "https://two.example"]
        origin_options.request_headers_of."https://third.example" = { set = { X-Own = "third" } }
        [[site.rule]]
        path = "/told/*"
        origin = "https://third.example"
        request_headers = { set = { Authorization = "Basic third", X-User = "edge" } }
    "#;
    let parsed = Snapshot::parse(text, "f");
    let site = &parsed.snapshot.expect("a good one").sites[0];
    let visitors = [
        "Authorization",
        "Cookie",
        "Proxy-Authorization",
        "X-Blank",
        "X-Own",
        "X-Secret",
        "X-Told",
        "X-User",
    ];
    let sent = |rule: &crate::Rule| {
        sent_to_the_first(rule, visitors.iter().map(|name| (*name, "visitor")).collect())
    };
    let wanted = [
        "X-Blank= X-Own=visitor X-Secret=visitor X-Told=visitor",
        "X-Blank= X-Own=third X-Secret=visitor X-Told=visitor",
        "Authorization=Basic third X-Blank= X-Own=visitor X-Secret=visitor X-Told=visitor X-User=edge",
    ];
    for (rule, wanted) in site.rules.iter().zip(wanted) {
        assert_eq!(sent(rule), wanted, "line {}", rule.line);
    }
    assert_eq!(site.rules.len(), wanted.len());
}
