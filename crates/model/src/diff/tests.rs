use super::*;

const OLD: &str = r#"
block = ["203.0.113.0/24", "198.51.100.7"]

[[site]]
name = "shop"
domains = ["www.shop.example", "cdn.shop.example"]
origin = "https://origin.shop.example"
origin_options = { timeouts = { connect = "1s" } }

[[site.rule]]
name = "static"
path = ["/static/*"]
ttl = "1h"

[[site.rule]]
path = "/api/*"
cache = false

[[site]]
name = "blog"
domains = "blog.example"
origin = "https://origin.blog.example"
"#;

fn texts(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let difference = diff(old, new).unwrap();
    let changes = difference.changes.iter().map(Change::to_string).collect();
    let warnings = difference.warnings.iter().map(|warning| match &warning.site {
        Some(site) => format!("{site}: {}", warning.message),
        None => warning.message.clone(),
    });
    (changes, warnings.collect())
}

/// What is said when `from` in the old text becomes `to`.
#[track_caller]
fn check(from: &str, to: &str, changes: &[&str], warnings: &[&str], is_cold: bool) {
    assert!(OLD.contains(from), "{from}");
    let new = OLD.replacen(from, to, 1);
    let (found, warned) = texts(OLD, &new);
    assert_eq!(found, changes);
    assert_eq!(warned.len(), warnings.len(), "{warned:#?}");
    for (warned, wanted) in warned.iter().zip(warnings) {
        assert!(warned.contains(wanted), "{warned}\n{wanted}");
    }
    assert_eq!(diff(OLD, &new).unwrap().is_cold, is_cold);
}

#[test]
fn the_same_in_other_words_is_no_difference() {
    let new = OLD
        .replace("domains = \"blog.example\"", "domains = [\"blog.example\"] # alone")
        .replace("path = [\"/static/*\"]", "path = \"/static/*\"");
    let difference = diff(OLD, &new).unwrap();
    assert_eq!(difference, Difference::default());
    assert!(difference.is_empty() && difference.to_string().is_empty());
}

#[test]
fn each_key_is_told_with_its_place_and_both_values() {
    check("ttl = \"1h\"", "ttl = \"2h\"", &["site shop, rule static: ttl: \"1h\" → \"2h\""], &[], false);
    check(
        "connect = \"1s\"",
        "connect = \"2s\", idle = \"9s\"",
        &[
            "site shop: origin_options.timeouts.connect: \"1s\" → \"2s\"",
            "site shop: origin_options.timeouts.idle: + \"9s\"",
        ],
        &[],
        false,
    );
    check(
        "path = \"/api/*\"\ncache = false",
        "path = \"/api/*\"\ncache = false\nbrowser_ttl = \"0\"",
        &["site shop, rule 2 (\"/api/*\"): browser_ttl: + \"0\""],
        &[],
        false,
    );
    check(
        "\"198.51.100.7\"",
        "\"198.51.100.8\"",
        &["all sites: block: [\"198.51.100.7\"] → [\"198.51.100.8\"]"],
        &[],
        false,
    );
    check(
        "[[site]]\nname = \"blog\"",
        "[[site.rule]]\nname = \"new\"\npath = \"/new\"\n\n[[site]]\nname = \"blog\"",
        &["+ site shop, rule new: path = \"/new\""],
        &[],
        false,
    );
    check(
        "\n[[site.rule]]\npath = \"/api/*\"\ncache = false\n",
        "",
        &["− site shop, rule 2 (\"/api/*\"): cache = false, path = \"/api/*\""],
        &[],
        false,
    );
}

#[test]
fn what_begins_empty_is_warned_of() {
    let wanted = "requests are told apart in another way (static): what is stored is not found";
    check(
        "ttl = \"1h\"",
        "ttl = \"1h\"\nquery = \"ignore\"",
        &["site shop, rule static: query: + \"ignore\""],
        &[wanted],
        true,
    );
    check(
        "origin_options = {",
        "key = { cookies = \"lang\" }\norigin_options = {",
        &["site shop: key: + { cookies = \"lang\" }"],
        // The rule that passes stores nothing.
        &["(the site's own keys, static)"],
        true,
    );
    check(
        "ttl = \"1h\"",
        "cache = false",
        &["site shop, rule static: cache: + false", "site shop, rule static: ttl: − \"1h\""],
        &["the cache is not used any more (static)"],
        true,
    );
    check(
        "[[site]]\nname = \"blog\"",
        "[[site.rule]]\npath = \"/img/*\"\nquery = { keep = \"w\" }\n\n[[site]]\nname = \"blog\"",
        &["+ site shop, rule 3 (\"/img/*\"): path = \"/img/*\", query = { keep = \"w\" }"],
        &["what rule 3 (\"/img/*\") is for is told apart in another way than before"],
        true,
    );
}

#[test]
fn sites_and_domains_that_go_are_warned_of() {
    check(
        "domains = \"blog.example\"",
        "domains = [\"blog.example\", \"new.example\"]",
        &["site blog: domains: \"blog.example\" → [\"blog.example\", \"new.example\"]"],
        &[],
        false,
    );
    check(
        ", \"cdn.shop.example\"]",
        "]",
        &["site shop: domains: − [\"cdn.shop.example\"]"],
        &["shop: cdn.shop.example is gone"],
        false,
    );
    let moved = OLD
        .replace(", \"cdn.shop.example\"]", "]")
        .replace("domains = \"blog.example\"", "domains = [\"blog.example\", \"cdn.shop.example\"]");
    let (_, warnings) = texts(OLD, &moved);
    assert_eq!(warnings, ["shop: cdn.shop.example goes to the site blog: there it begins empty"]);
    assert!(diff(OLD, &moved).unwrap().is_cold);
    let (changes, warnings) = texts(OLD, &OLD[..OLD.find("[[site]]\nname = \"blog\"").unwrap()]);
    assert_eq!(
        changes,
        ["− site blog: domains = \"blog.example\", origin = \"https://origin.blog.example\""]
    );
    assert!(warnings[0].starts_with("blog: is gone"), "{warnings:?}");
}

#[test]
fn what_is_looser_or_stays_longer_is_warned_of() {
    for (lines, wanted) in [
        (
            "set_cookie = \"rfc9111\"",
            "static: answers that set a cookie are stored, and the cookie given to others",
        ),
        ("set_cookie = \"strip\"", "static: answers that set a cookie are stored without it"),
        ("share_authorized = true", "static: answers to requests with Authorization are given to others"),
        ("ttl_by_status = { 404 = \"30d\" }", "static: ttl is raised to 30d"),
    ] {
        let (_, warnings) = texts(OLD, &OLD.replace("ttl = \"1h\"", &format!("ttl = \"1h\"\n{lines}")));
        assert_eq!(warnings.len(), 1, "{lines}: {warnings:?}");
        assert!(warnings[0].contains(wanted), "{warnings:?}");
        // Taking it back is none.
        let (_, warnings) = texts(&OLD.replace("ttl = \"1h\"", &format!("ttl = \"1h\"\n{lines}")), OLD);
        assert_eq!(warnings, [] as [String; 0], "{lines}");
    }
    let long = OLD.replace("ttl = \"1h\"", "ttl = \"8d\"");
    assert!(texts(OLD, &long).1[0].contains("raised to"), "{:?}", texts(OLD, &long));
    assert!(texts(&long, &long.replace("8d", "7d")).1.is_empty());
    // By a key of the site that all its rules have from it.
    let (_, warnings) =
        texts(OLD, &OLD.replace("origin_options = {", "share_authorized = true\norigin_options = {"));
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[test]
fn switches_and_wide_networks_are_warned_of() {
    let off = format!("{}\n[switches]\nhttp3 = false\ndisk = true\n", OLD);
    let (changes, warnings) = texts(OLD, &off);
    assert_eq!(changes, ["all sites: switches: + { disk = true, http3 = false }"]);
    assert_eq!(warnings, ["http3 is switched off, on all sites"]);
    assert!(texts(&off, OLD).1.is_empty());
    let wide = OLD.replace("\"198.51.100.7\"", "\"10.0.0.0/8\"");
    assert_eq!(texts(OLD, &wide).1, ["a wide network is blocked: 10.0.0.0 to 10.255.255.255"]);
    assert!(texts(&wide, &wide.replace("1h", "2h")).1.is_empty());
}

#[test]
fn the_order_of_rules_counts() {
    let first = OLD.find("[[site.rule]]\nname").unwrap();
    let second = OLD.find("[[site.rule]]\npath").unwrap();
    let end = OLD.find("[[site]]\nname = \"blog\"").unwrap();
    let new = [&OLD[..first], &OLD[second..end], &OLD[first..second], &OLD[end..]].concat();
    let (changes, warnings) = texts(OLD, &new);
    assert_eq!(changes, ["site shop: rule: + another order"]);
    assert!(warnings[0].contains("the first that matches decides"));
}

#[test]
fn texts_with_errors_are_told_apart_by_name() {
    let bad = OLD.replace("ttl = \"1h\"", "ttl = 1");
    assert_eq!(diff(OLD, &bad).unwrap_err()[0].source, "the new text");
    assert_eq!(diff(&bad, OLD).unwrap_err()[0].source, "the old text");
}

#[test]
fn a_program_can_read_it() {
    let difference = diff(OLD, &OLD.replace("ttl = \"1h\"", "ttl = \"30d\"")).unwrap();
    assert_eq!(
        serde_json::to_value(&difference).unwrap(),
        serde_json::json!({
            "changes": [{ "site": "shop", "rule": "static", "key": "ttl", "from": "\"1h\"", "to": "\"30d\"" }],
            "warnings": [{
                "site": "shop",
                "message": "static: ttl is raised to 30d: what is stored wrongly stays for so long, unless it is purged",
            }],
            "is_cold": false,
        })
    );
}
