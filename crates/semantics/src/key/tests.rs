use super::*;
use proptest::prelude::*;

fn text(recipe: &KeyRecipe, host: &str, target: &str, fields: &Fields) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut out = Vec::new();
    write_key(&mut out, recipe, "shop", host, path.as_bytes(), query.map(str::as_bytes), fields);
    String::from_utf8(out).unwrap()
}

fn plain(host: &str, target: &str) -> String {
    text(&KeyRecipe::default(), host, target, &Fields::new())
}

fn selected(part: QueryPart, sort: bool, query: &str) -> Option<String> {
    let recipe = KeyRecipe { query: Query { part, sort }, ..KeyRecipe::default() };
    recipe.query_sent(Some(query.as_bytes())).map(|query| String::from_utf8(query.into_owned()).unwrap())
}

#[test]
fn a_key_is_readable() {
    assert_eq!(
        plain("WWW.Shop.Example:443", "/a/b?x=1&y"),
        "site 4:shop\nhost 16:www.shop.example\npath 4:/a/b\nquery 5:x=1&y\n"
    );
    let recipe = KeyRecipe {
        headers: vec!["accept".into(), "x-none".into(), "x-empty".into()],
        cookies: vec!["theme".into(), "gone".into()],
        device_class: true,
        ..KeyRecipe::default()
    };
    let fields: Fields = [
        ("Accept", "a , b"),
        ("accept", "c"),
        ("X-Empty", ""),
        ("Cookie", "s=1; theme=dark; Theme=x; theme=b"),
    ]
    .into_iter()
    .collect();
    assert_eq!(
        text(&recipe, "h", "/", &fields),
        "site 4:shop\nhost 1:h\npath 1:/\nheader 6:accept 5:a,b,c\nheader 6:x-none absent\nheader 7:x-empty 0:\n\
         cookie 5:theme 7:dark; b\ncookie 4:gone absent\ndevice desktop\n"
    );
}

#[test]
fn equivalent_spellings_share_a_key_and_others_do_not() {
    for (one, other) in [("/%7Euser", "/~user"), ("/%c3%a4", "/%C3%A4"), ("/%61", "/a"), ("/a%2d", "/a-")] {
        assert_eq!(plain("h", one), plain("h", other), "{one} {other}");
    }
    for (one, other) in [
        ("/a%2Fb", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/%2e%2e/b", "/../b"),
        ("/a", "/A"),
        ("/a", "/a/"),
        ("/a?", "/a"),
        ("/a?b=%61", "/a?b=a"),
        ("/a%3Fb", "/a?b"),
        ("/%", "/%25"),
        ("/%2561", "/%61"),
        ("/a?x&y", "/a?y&x"),
        ("/a;b", "/a"),
        ("/a%00", "/a"),
    ] {
        assert_ne!(plain("h", one), plain("h", other), "{one} {other}");
    }
    assert_eq!(plain("h:80", "/"), plain("H:443", "/"));
    assert_ne!(plain("h:8080", "/"), plain("h", "/"));
}

#[test]
fn a_value_cannot_pretend_to_be_another_line() {
    assert_ne!(plain("h", "/a\nquery 1:x"), plain("h", "/a?x"));
    assert_ne!(plain("h\npath 1:/", ""), plain("h", "/"));
}

#[test]
fn the_query_recipe_selects_what_is_keyed_and_sent() {
    let keep = |names: &[&str]| QueryPart::Keep(names.iter().map(|name| (*name).into()).collect());
    let drop = |names: &[&str]| QueryPart::Drop(names.iter().map(|name| (*name).into()).collect());
    let check = |part, sort, query, expected: Option<&str>| {
        assert_eq!(selected(part, sort, query).as_deref(), expected, "{query:?}");
    };
    check(QueryPart::All, false, "b=1&&a", Some("b=1&&a"));
    check(QueryPart::All, false, "", Some(""));
    check(QueryPart::All, true, "b=2&a=9&b=1", Some("a=9&b=2&b=1"));
    check(QueryPart::None, false, "b=1", None);
    check(keep(&["w", "h"]), false, "h=2&x=1&w=3", Some("h=2&w=3"));
    check(keep(&["w", "h"]), true, "w=3&x=1&h=2", Some("h=2&w=3"));
    check(keep(&["w"]), false, "%77=1", None);
    check(keep(&["w"]), false, "wide=1&w", Some("w"));
    check(keep(&["w"]), false, "a=1;w=2", None);
    check(drop(&["utm_*", "fbclid"]), false, "utm_source=x&id=1&fbclid=2", Some("id=1"));
    check(drop(&["utm_*"]), false, "utm_source=x", None);
    check(drop(&["utm_*"]), false, "utm=x", Some("utm=x"));
}

#[test]
fn a_dot_segment_is_found_in_every_disguise() {
    for path in
        ["/..", "/a/../b", "/./a", "/%2e%2E/a", "/a/.%2e", "/a%2f..%2fb", "/a\\..\\b", "/..;x/b", "/a/..;"]
    {
        assert!(has_dot_segment(path.as_bytes()), "{path}");
    }
    for path in ["/", "/a.b", "/...", "/.well-known/x", "/a..", "/..a", "*", ""] {
        assert!(!has_dot_segment(path.as_bytes()), "{path}");
    }
}

#[test]
fn the_device_is_told_by_hint_or_agent() {
    let check = |fields: &[(&str, &str)], expected| {
        assert_eq!(Device::of(&fields.iter().copied().collect()), expected, "{fields:?}");
    };
    check(&[], Device::Desktop);
    check(&[("Sec-CH-UA-Mobile", "?1")], Device::Mobile);
    check(
        &[("User-Agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148")],
        Device::Mobile,
    );
    check(&[("User-Agent", "Mozilla/5.0 (Linux; Android 15; Pixel 9) Mobile Safari/537.36")], Device::Mobile);
    check(&[("User-Agent", "Mozilla/5.0 (Linux; Android 15; SM-X910) Safari/537.36")], Device::Tablet);
    check(&[("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Chrome/142.0")], Device::Desktop);
}

#[test]
fn the_seed_changes_every_key() {
    let (one, other) = (KeySeed([1; 16]), KeySeed([2; 16]));
    assert_eq!(hash(&one, b"a"), hash(&one, b"a"));
    assert_ne!(hash(&one, b"a"), hash(&other, b"a"));
    assert_ne!(hash(&one, b"a"), hash(&one, b"b"));
    assert_eq!(format!("{other:?}"), "KeySeed");
}

proptest! {
    #[test]
    fn what_is_forwarded_has_the_key_of_what_was_asked(
        host in "[a-zA-Z.]{1,8}(:(80|443|8080))?",
        path in prop::collection::vec(prop::sample::select(b"/a%2eEfF7~.Z".to_vec()), 0..20),
        query in prop::option::of("[abw=&%;]{0,12}"),
        sort: bool,
        part in prop::sample::select(vec![
            QueryPart::All, QueryPart::None, QueryPart::Keep(vec!["a".into()]), QueryPart::Drop(vec!["w*".into()]),
        ]),
    ) {
        let recipe = KeyRecipe { query: Query { part, sort }, ..KeyRecipe::default() };
        let query = query.as_deref().map(str::as_bytes);
        let (mut asked, mut sent) = (Vec::new(), Vec::new());
        write_url_key(&mut asked, &recipe, "s", &host, &path, query);
        let (host, path, query) = (normalise_host(&host), normalise_path(&path), recipe.query_sent(query));
        write_url_key(&mut sent, &recipe, "s", &host, &path, query.as_deref());
        prop_assert_eq!(asked, sent);
    }

    #[test]
    fn different_parts_give_different_keys(
        one in (".{0,6}", ".{0,6}", prop::option::of(".{0,6}")),
        other in (".{0,6}", ".{0,6}", prop::option::of(".{0,6}")),
    ) {
        let key = |(site, path, query): &(String, String, Option<String>)| {
            let mut out = Vec::new();
            let query = query.as_deref().map(str::as_bytes);
            write_key(&mut out, &KeyRecipe::default(), site, "h", path.as_bytes(), query, &Fields::new());
            out
        };
        let same = one.0 == other.0
            && one.2 == other.2
            && normalise_path(one.1.as_bytes()) == normalise_path(other.1.as_bytes());
        prop_assert_eq!(key(&one) == key(&other), same);
    }
}
