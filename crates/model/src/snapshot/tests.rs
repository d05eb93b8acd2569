use semantics::Fields;

use super::*;
use crate::origin::Scheme;

fn snapshot(text: &str) -> Snapshot {
    let parsed = Snapshot::parse(text, "perigee.toml");
    assert!(!parsed.diagnostics.iter().any(Diagnostic::is_error), "{:#?}", parsed.diagnostics);
    parsed.snapshot.unwrap()
}

const SITES: &str = r#"
[[site]]
name = "exact"
domains = ["www.a.example", "192.0.2.1"]
origin = "https://o.example"
[[site]]
name = "wild"
domains = "*.a.example"
origin = "https://o.example"
[[site]]
name = "deeper"
domains = "*.b.a.example"
origin = "https://o.example"
"#;

#[test]
fn the_most_specific_domain_wins() {
    let check = |text: &str, host: &str, expected: Option<&str>| {
        let snapshot = snapshot(text);
        assert_eq!(snapshot.site_for(host).map(|site| &*site.name), expected, "{host}");
    };
    let with_any =
        format!("{SITES}[[site]]\nname = \"any\"\ndomains = \"*\"\norigin = \"https://o.example\"\n");
    for (host, expected) in [
        ("www.a.example", Some("exact")),
        ("www.a.example.", Some("exact")),
        ("192.0.2.1", Some("exact")),
        ("x.a.example", Some("wild")),
        ("x.y.a.example", Some("wild")),
        ("b.a.example", Some("wild")),
        ("x.b.a.example", Some("deeper")),
        ("a.example", None),
        ("xa.example", None),
        ("www.a.example.evil", None),
        ("", None),
        (".", None),
    ] {
        check(SITES, host, expected);
        check(&with_any, host, expected.or(Some("any")));
    }
}

const RULES: &str = r#"
[[site]]
name = "a"
domains = ["a.example", "b.example"]
origin = "https://o.example"
[[site.rule]]
name = "secure"
scheme = "http"
redirect = { to = "https://{host}{path}{query}" }
[[site.rule]]
name = "host"
hosts = "b.*"
[[site.rule]]
name = "post"
path = "/form"
methods = ["POST", "PUT"]
[[site.rule]]
name = "get"
path = "/form"
methods = "GET"
[[site.rule]]
name = "session"
with_cookie = { session = true, theme = false }
[[site.rule]]
name = "mobile"
path = "/m/*"
with_header = { User-Agent = "*Mobile*" }
[[site.rule]]
name = "tilde"
path = ["/~user/*", "*.css"]
[[site.rule]]
name = "missing"
status = ["404", "5xx"]
response_headers = { set = { X-Status = "bad" } }
browser_ttl = "1s"
"#;

#[test]
fn the_first_rule_whose_conditions_hold_decides() {
    let snapshot = snapshot(RULES);
    let check = |method: &str, url: &str, lines: &[(&str, &str)], expected: &str| {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap());
        let fields: Fields = lines.iter().copied().collect();
        let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
        let request = RequestView { method, scheme, host, path, query: None, fields: &fields };
        let matched = snapshot.sites[0].match_rule(&request);
        assert_eq!(matched.rule.name(), expected, "{method} {url}");
        assert_eq!(matched.rule.number == 0, matched.index == snapshot.sites[0].rules.len());
    };
    check("GET", "http://a.example/", &[], "secure");
    check("GET", "https://b.example/", &[], "host");
    check("POST", "https://a.example/form", &[], "post");
    check("HEAD", "https://a.example/form", &[], "get");
    check("DELETE", "https://a.example/form", &[], "defaults");
    check("GET", "https://a.example/", &[("Cookie", "a=1; session=x")], "session");
    check("GET", "https://a.example/", &[("Cookie", "session=x"), ("Cookie", "theme=y")], "defaults");
    check("GET", "https://a.example/", &[("Cookie", "mysession=x")], "defaults");
    check("GET", "https://a.example/m/x", &[("user-agent", "X Mobile Y")], "mobile");
    check("GET", "https://a.example/m/x", &[], "defaults");
    check("GET", "https://a.example/~user/x", &[], "tilde");
    check("GET", "https://a.example/%7Euser/x", &[], "tilde");
    check("GET", "https://a.example/%7euser/x", &[], "tilde");
    check("GET", "https://a.example/x.css", &[], "tilde");
    check("GET", "https://a.example/x.cs%73", &[], "tilde");
    check("GET", "https://a.example/x.css/", &[], "defaults");
}

#[test]
fn response_rules_wait_for_the_status() {
    let snapshot = snapshot(RULES);
    let fields = Fields::new();
    let request = RequestView {
        method: "GET",
        scheme: Scheme::Https,
        host: "a.example",
        path: "/",
        query: None,
        fields: &fields,
    };
    let site = &snapshot.sites[0];
    assert!(site.match_response(&request, 200).is_none());
    for status in [404, 500, 599] {
        assert_eq!(site.match_response(&request, status).unwrap().rule.name(), "missing");
    }
}
