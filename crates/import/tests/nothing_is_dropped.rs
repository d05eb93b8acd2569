//! Whatever stands in a text is in its report, once, at its place, with a word for what became of it; and what comes out is accepted.

use import::{Imported, Source, import};
use model::Snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Directives that are known, in places where they belong and where they don't, and some that nobody knows.
const NAMES: &[&str] = &[
    "proxy_pass",
    "proxy_cache",
    "proxy_cache_valid",
    "proxy_cache_key",
    "proxy_cache_bypass",
    "proxy_no_cache",
    "proxy_set_header",
    "proxy_hide_header",
    "proxy_ignore_headers",
    "proxy_cache_use_stale",
    "proxy_read_timeout",
    "proxy_next_upstream",
    "add_header",
    "expires",
    "gzip",
    "gzip_types",
    "listen",
    "server_name",
    "return",
    "rewrite",
    "set",
    "deny",
    "allow",
    "limit_req",
    "include",
    "try_files",
    "root",
    "ssl_certificate",
    "error_page",
    "keepalive",
    "internal",
    "auth_basic",
    "no_such_directive",
    "x",
];

const ARGS: &[&str] = &[
    "on",
    "off",
    "any",
    "200",
    "301",
    "404",
    "10m",
    "1d",
    "bad",
    "/",
    "/a",
    "=",
    "~",
    "^~",
    "@named",
    "http://10.0.0.1",
    "http://app/x/",
    "http://$host",
    "$cookie_a",
    "$http_x",
    "$var",
    "$request_uri",
    "Host",
    "X-A",
    "\"\"",
    "'two words'",
    "\"\\\"\"",
    "c",
    "error",
    "updating",
    "1.2.3.4",
    "*.a.example",
    "443",
    "ssl",
    "zone=z",
    "\\.(a|b)$",
    "${x}",
    "permanent",
];

const BLOCKS: &[&str] =
    &["http", "server", "location", "if", "upstream", "map", "types", "limit_except", "stream", "nonsense"];

#[derive(Clone, Debug)]
struct Tree {
    words: Vec<String>,
    block: Option<Vec<Tree>>,
}

fn words(names: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let args = prop::collection::vec(prop::sample::select(ARGS), 0..4);
    (prop::sample::select(names), args)
        .prop_map(|(name, args)| [name].into_iter().chain(args).map(str::to_owned).collect())
}

fn trees() -> impl Strategy<Value = Vec<Tree>> {
    let leaf = words(NAMES).prop_map(|words| Tree { words, block: None });
    let tree = leaf.prop_recursive(4, 48, 6, |inner| {
        (words(BLOCKS), prop::collection::vec(inner, 0..6))
            .prop_map(|(words, block)| Tree { words, block: Some(block) })
    });
    prop::collection::vec(tree, 0..8)
}

/// Writes each directive in a line of its own; notes line and name of each.
fn write(trees: &[Tree], text: &mut String, noted: &mut Vec<(u32, String)>) {
    for tree in trees {
        let line = text.matches('\n').count() as u32 + 1;
        noted.push((line, tree.words[0].clone()));
        text.push_str(&tree.words.join(" "));
        match &tree.block {
            None => text.push_str("; # a comment; { }\n"),
            Some(block) => {
                text.push_str(" {\n");
                write(block, text, noted);
                text.push_str("}\n");
            }
        }
    }
}

fn hold(imported: &Imported) {
    let parsed = Snapshot::parse(&imported.config, "imported");
    assert!(parsed.snapshot.is_some(), "{}\n{:?}", imported.config, parsed.diagnostics);
    for item in &imported.items {
        assert!(!item.outcomes.is_empty(), "{item:?}");
        assert!(item.outcomes.iter().all(|outcome| !outcome.text().is_empty()), "{item:?}");
    }
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(items) if !items.is_empty() => items.iter().map(leaves).sum(),
        Value::Object(members) if !members.is_empty() => members.values().map(leaves).sum(),
        _ => 1,
    }
}

fn scalars() -> impl Strategy<Value = Value> {
    const TEXTS: &[&str] = &[
        "",
        "a",
        "https-only",
        "redirect-to-https",
        "*",
        "/x/?*",
        "origin",
        "658327ea-f89d-4fab-a63d-7e88639e58f6",
        "whitelist",
        "set_cache_settings",
        "true",
        "(http.host eq \"a\")",
        "override_origin",
        "cache_level",
        "*a.example/b/*",
        "not/a path",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        prop::sample::select(TEXTS).prop_map(Value::from),
    ]
}

/// Values under names that importers look for.
fn values(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    scalars().prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(names), inner), 0..6).prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

const OF_CLOUDFRONT: &[&str] = &[
    "Items",
    "Quantity",
    "Id",
    "DomainName",
    "OriginPath",
    "Origins",
    "OriginGroups",
    "CacheBehaviors",
    "PathPattern",
    "TargetOriginId",
    "ViewerProtocolPolicy",
    "CachePolicyId",
    "ForwardedValues",
    "Cookies",
    "Forward",
    "Headers",
    "MinTTL",
    "DefaultTTL",
    "MaxTTL",
    "Enabled",
    "TrustedSigners",
    "CustomErrorResponses",
    "ErrorCode",
    "ErrorCachingMinTTL",
    "Whatever",
    "CustomOriginConfig",
    "OriginProtocolPolicy",
    "HTTPPort",
    "Members",
    "OriginId",
    "Aliases",
    "AllowedMethods",
    "Compress",
];

const OF_CLOUDFLARE: &[&str] = &[
    "result",
    "rules",
    "phase",
    "action",
    "expression",
    "action_parameters",
    "cache",
    "edge_ttl",
    "mode",
    "default",
    "browser_ttl",
    "cache_key",
    "custom_key",
    "query_string",
    "include",
    "targets",
    "constraint",
    "value",
    "actions",
    "id",
    "priority",
    "status",
    "enabled",
    "description",
    "headers",
    "operation",
    "from_value",
    "target_url",
    "status_code_ttl",
    "status_code",
    "other",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_directive_of_nginx_is_in_the_report(trees in trees()) {
        let (mut text, mut noted) = (String::new(), Vec::new());
        write(&trees, &mut text, &mut noted);
        let site = "server { server_name last.example; location / { proxy_pass http://10.9.9.9; } }";
        let count = noted.len();
        text.push_str(site);
        let imported = import(Source::Nginx, &text, "nginx.conf").unwrap_or_else(|broken| panic!("{broken}\n{text}"));
        hold(&imported);
        let told: Vec<(u32, String)> = imported.items[..count]
            .iter()
            .map(|item| (item.place.line, item.directive.split(' ').next().unwrap_or_default().to_owned()))
            .collect();
        prop_assert_eq!(told, noted);
        prop_assert_eq!(imported.items.len(), count + 4);
    }

    #[test]
    fn every_value_of_a_distribution_is_in_the_report(behaviour in values(OF_CLOUDFRONT), more in values(OF_CLOUDFRONT)) {
        let value = json!({ "DistributionConfig": {
            "DefaultCacheBehavior": behaviour, "CacheBehaviors": { "Items": [more.clone()] }, "Origins": { "Items": [more.clone()] },
            "CustomErrorResponses": more.clone(), "OriginGroups": more,
        }});
        let imported = import(Source::CloudFront, &value.to_string(), "d.json").unwrap_or_else(|broken| panic!("{broken}\n{value}"));
        hold(&imported);
        prop_assert_eq!(imported.items.len(), leaves(&value));
    }

    #[test]
    fn every_value_of_cloudflares_rules_is_in_the_report(rule in values(OF_CLOUDFLARE), answer in values(OF_CLOUDFLARE)) {
        let good = json!({ "expression": "true", "action": "set_cache_settings", "action_parameters": { "cache": true } });
        let value = json!([{ "rules": [rule.clone(), good] }, { "targets": answer.clone(), "actions": rule }, answer]);
        let imported = import(Source::Cloudflare, &value.to_string(), "r.json").unwrap_or_else(|broken| panic!("{broken}\n{value}"));
        hold(&imported);
        prop_assert_eq!(imported.items.len(), leaves(&value));
    }

    #[test]
    fn every_statement_of_vcl_is_in_the_report(lines in prop::collection::vec((0..VCL.len(), any::<bool>()), 0..20)) {
        let mut text = "backend default { .host = \"10.0.0.1\"; }\nsub vcl_recv {\n".to_owned();
        let mut count = 3;
        for (line, is_inside) in &lines {
            let statement = VCL[*line];
            count += 1 + usize::from(*is_inside);
            text.push_str(&if *is_inside { format!("if (req.url ~ \"^/a\") {{ {statement} }}\n") } else { format!("{statement}\n") });
        }
        text.push('}');
        let imported = import(Source::Vcl, &text, "a.vcl").unwrap_or_else(|broken| panic!("{broken}\n{text}"));
        hold(&imported);
        prop_assert_eq!(imported.items.len(), count);
    }
}

const VCL: &[&str] = &[
    "return (pass);",
    "return (hash);",
    "return (synth(403));",
    "unset req.http.Cookie;",
    "set req.http.X = \"1\";",
    "set req.http.X = req.http.Y + \"1\";",
    "set req.backend_hint = default;",
    "set req.backend_hint = other;",
    "call something;",
    "set req.url = regsub(req.url, \"a\", \"b\");",
    "unset req.http.X-\\ y;",
    "std.collect(req.http.Cookie);",
    "nonsense;",
    "set beresp.ttl = 1h;",
    "set beresp.grace = 9999999w;",
    "set req.http.Host = \"a b\";",
    "unset resp.http.Connection;",
];

#[test]
fn what_is_broken_is_told_with_its_place() {
    let check = |source, text: &str, wanted: &str| {
        let broken = import(source, text, "file").unwrap_err();
        assert_eq!(broken.to_string(), wanted);
    };
    check(Source::Nginx, "server {\n  listen 80", "file:2:3: the directive \"listen\" has no end");
    check(Source::Nginx, "server {\n", "file:2:1: the text ends within a block");
    check(Source::Nginx, "a;\n }", "file:2:2: \"}\" without \"{\"");
    check(Source::Nginx, "a \"b;", "file:1:3: the text that begins with \" has no end");
    check(Source::Nginx, "events {}", "file:1:1: nothing in this nginx configuration becomes a site");
    check(Source::CloudFront, "{\n \"a\": }", "file:2:7: this is not JSON: expected value");
    check(
        Source::CloudFront,
        "{\"Origins\": {}}",
        "file:1:13: there is no DefaultCacheBehavior: this is not the configuration of a distribution",
    );
    check(Source::Cloudflare, "[]", "file:1:1: there are no rules in it: neither rulesets nor page rules");
    check(Source::Vcl, "sub vcl_recv { return (pass) }", "file:1:16: the statement has no end");
    check(Source::Vcl, "sub a {\n/* x", "file:2:1: the comment has no end");
}
