use semantics::Fields;

use super::*;
use crate::glob::Glob;
use crate::origin::Scheme;

#[track_caller]
fn check(template: &str, pattern: &str, host: &str, path: &str, query: Option<&str>, expected: &str) {
    let glob = Glob::new(pattern);
    let redirect = Redirect::parse(template, 308, glob.star_count()).unwrap();
    let fields = Fields::new();
    let request = RequestView { method: "GET", scheme: Scheme::Http, host, path, query, fields: &fields };
    let captures = glob.captures(path.as_bytes()).unwrap();
    assert_eq!(redirect.location(&request, path.as_bytes(), &captures), expected, "{template} {path}");
}

#[track_caller]
fn check_refused(template: &str, expected: &str) {
    assert_eq!(Redirect::parse(template, 308, 1).unwrap_err(), expected, "{template}");
}

#[test]
fn placeholders_are_filled_in_from_the_request() {
    check("https://{host}{path}{query}", "*", "a.example", "/x/y", Some("q=1"), "https://a.example/x/y?q=1");
    check("https://{host}{path}{query}", "*", "a.example", "/x", None, "https://a.example/x");
    check("{scheme}://www.a.example{path}", "*", "a.example", "/x", None, "http://www.a.example/x");
    check("/new/{1}.html", "/old/*.htm", "a.example", "/old/a/b.htm", None, "/new/a/b.html");
    check("/new/{2}/{1}", "/*/to/*", "a.example", "/a/to/b", None, "/new/b/a");
    check("/{{x}}", "*", "a.example", "/", None, "/%7Bx%7D");
}

#[test]
fn no_request_can_choose_the_host_that_it_is_sent_to() {
    check("/{1}", "/out/*", "a.example", "/out//evil.example", None, "/evil.example");
    check("/{1}", "/out/*", "a.example", "/out/\\evil.example", None, "/evil.example");
    check(
        "https://b.example/{1}",
        "/*",
        "a.example",
        "/@evil.example",
        None,
        "https://b.example/@evil.example",
    );
    check_refused("https://b.example{1}", "would let a request choose the host; put a \"/\" behind the host");
    check_refused("https://{1}/", "would let a request choose the host; put a \"/\" behind the host");
    check_refused(
        "{path}",
        "must begin with \"https://\", \"http://\", \"{scheme}://\" or \"/\"; for the same host write \"/…\" or \"{scheme}://{host}{path}\"",
    );
    check_refused("//evil.example", "must begin with \"https://\", \"http://\", \"{scheme}://\" or \"/\"");
    check_refused(
        "javascript:alert(1)",
        "must begin with \"https://\", \"http://\", \"{scheme}://\" or \"/\"",
    );
    check_refused("", "must begin with \"https://\", \"http://\", \"{scheme}://\" or \"/\"");
}

#[test]
fn line_breaks_and_other_bytes_are_encoded() {
    check("/{1}", "/*", "a.example", "/a\r\nSet-Cookie: x", None, "/a%0D%0ASet-Cookie:%20x");
    check("/{1}", "/*", "a.example", "/é\"<", None, "/%C3%A9%22%3C");
}

#[test]
fn a_bad_template_says_what_is_wrong() {
    check_refused("https://", "has no host");
    check_refused("https:///x", "has no host");
    check_refused("https://{path}", "has no host");
    check_refused("/{nope}", "has {nope}, which is none of {scheme}, {host}, {path}, {query}, {1} to {9}");
    check_refused("/{1", "has a \"{\" without \"}\"; a brace itself is \"{{\"");
    check_refused("/1}", "has a \"}\" without \"{\"; a brace itself is \"}}\"");
    check_refused("/{2}", "uses {2}, but a path of the rule has 1 \"*\"");
    check_refused("/a b", "has the character ' ', which no URL has; percent-encode it");
}
