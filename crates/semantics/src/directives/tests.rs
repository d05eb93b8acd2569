use super::*;

fn response(lines: &[(&str, &str)]) -> ResponseDirectives {
    let fields: Fields = lines.iter().copied().collect();
    ResponseDirectives::of(&fields, &["Perigee-Cache-Control".into(), "CDN-Cache-Control".into()])
}

fn cache_control(value: &str) -> ResponseDirectives {
    response(&[("Cache-Control", value)])
}

#[test]
fn a_time_is_digits_and_anything_else_is_zero() {
    let check = |value: &str, expected: Option<u32>| {
        assert_eq!(cache_control(value).max_age, expected, "{value:?}");
    };
    check("max-age=60", Some(60));
    check("MaX-aGe=60", Some(60));
    check("foobar, max-age=60", Some(60));
    check("max-age=\"60\"", Some(60));
    check("max-age=0060", Some(60));
    check("max-age=2147483647", Some(2_147_483_647));
    check("max-age=2147483649", Some(SECS_MAX));
    check("max-age=99999999999999999999999999", Some(SECS_MAX));
    for malformed in [
        "max-age",
        "max-age=",
        "max-age=-60",
        "max-age=+60",
        "max-age='60'",
        "max-age=60.0",
        "max-age=60.5",
        "max-age=a60",
        "max-age=60a",
        "max-age =60",
        "max-age= 60",
        "max-age=\"60",
        "max-age=\"6\\0\"",
    ] {
        check(malformed, Some(0));
    }
    check("maxage=60", None);
    check("x-max-age=60", None);
    check("extension=\"max-age=60\"", None);
    check("extension=\"a, max-age=60, b\"", None);
    check("extension=\"max-age=60\", max-age=1", Some(1));
}

#[test]
fn of_a_repeated_time_the_first_counts() {
    assert_eq!(cache_control("max-age=1800, max-age=1").max_age, Some(1800));
    assert_eq!(cache_control("max-age=1, max-age=1800").max_age, Some(1));
    let two = response(&[("Cache-Control", "max-age=1"), ("Cache-Control", "max-age=1800, s-maxage=5")]);
    assert_eq!((two.max_age, two.s_maxage), (Some(1), Some(5)));
}

#[test]
fn private_and_no_cache_are_about_all_or_about_fields() {
    let check = |argument: &str, expected: &[&str]| {
        let expected = match expected {
            [] => Scope::Whole,
            names => Scope::Fields(names.iter().map(|name| name.as_bytes().to_vec()).collect()),
        };
        assert_eq!(cache_control(&format!("private{argument}")).private, expected, "{argument:?}");
        assert_eq!(cache_control(&format!("no-cache{argument}")).no_cache, expected, "{argument:?}");
    };
    check("", &[]);
    check("=\"\"", &[]);
    check("=", &[]);
    check("=\"a\"", &["a"]);
    check("=a", &["a"]);
    check("=\"a, Set-Cookie\"", &["a", "Set-Cookie"]);
    check("=\"a b\"", &[]);
    check(" =\"a\"", &[]);
    check("=\"a", &[]);
    // Without its Vary the copy would answer the wrong requests.
    check("=\"vary\"", &[]);
    check("=\"a, Content-Encoding\"", &[]);
    assert_eq!(cache_control("private=\"a\", private").private, Scope::Whole);
    assert_eq!(cache_control("private, private=\"a\"").private, Scope::Whole);
    assert!(cache_control("private=\"A\"").private.names(b"a"));
}

#[test]
fn a_quote_too_many_hides_no_restriction() {
    for open in ["x=\"a", "x=\"a\\\"", "max-age=\"60", "x=\"\"\""] {
        let found = cache_control(&format!("{open}, No-Store, private, no-cache"));
        assert!(found.no_store, "{open}");
        assert_eq!((found.private, found.no_cache), (Scope::Whole, Scope::Whole), "{open}");
        assert!(!cache_control(&format!("{open}, max-age=60")).no_store, "{open}");
    }
    assert!(!cache_control("x=\"a, no-store, b\"").no_store);
    assert!(cache_control("x=\"a, no-store\", \"").no_store);
    assert!(cache_control("max-age=\"60, \"no-store\"").no_store);
}

#[test]
fn the_first_sound_targeted_field_replaces_cache_control() {
    let check = |lines: &[(&str, &str)], targeted: Option<u8>, max_age: Option<u32>, no_store: bool| {
        let found = response(lines);
        assert_eq!(
            (found.targeted, found.max_age, found.no_store),
            (targeted, max_age, no_store),
            "{lines:?}"
        );
    };
    let cc = ("Cache-Control", "no-store");
    check(&[cc], None, None, true);
    check(&[cc, ("CDN-Cache-Control", "max-age=60")], Some(1), Some(60), false);
    check(&[cc, ("CDN-Cache-Control", "max-age=99999999999")], Some(1), Some(SECS_MAX), false);
    check(&[cc, ("CDN-Cache-Control", "max-age=-1")], Some(1), Some(0), false);
    check(&[cc, ("CDN-Cache-Control", "none")], Some(1), None, false);
    check(&[cc, ("CDN-Cache-Control", "max-age=60;x=1, y=(1 2)")], Some(1), Some(60), false);
    let both = [("CDN-Cache-Control", "max-age=60"), ("Perigee-Cache-Control", "max-age=5")];
    check(&both, Some(0), Some(5), false);
    let broken_first = [("Perigee-Cache-Control", "max-age = 5"), ("CDN-Cache-Control", "max-age=60")];
    check(&broken_first, Some(1), Some(60), false);
    check(&[("CDN-Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")], Some(1), Some(60), true);
    for ignored in [
        "",
        "max-age=60, &&&&&",
        "max-age=\"60\"",
        "max-age=60.5",
        "max-age",
        "MAX-AGE=60",
        "max-age =60",
        "max-age= 60",
        "max-age=60,",
    ] {
        check(&[cc, ("CDN-Cache-Control", ignored)], None, None, true);
    }
    assert!(!response(&[("CDN-Cache-Control", "no-store=?0")]).no_store);
    assert!(response(&[("CDN-Cache-Control", "no-store=1")]).no_store);
    assert_eq!(response(&[("CDN-Cache-Control", "private=1")]).private, Scope::Whole);
    assert!(response(&[("CDN-Cache-Control", "no-cache=\"a\"")]).no_cache.names(b"A"));
}

#[test]
fn requests_say_what_they_accept() {
    let check = |lines: &[(&str, &str)], expected: RequestDirectives| {
        let fields: Fields = lines.iter().copied().collect();
        assert_eq!(RequestDirectives::parse(&fields), expected, "{lines:?}");
    };
    let none = RequestDirectives::default();
    check(&[], none);
    check(&[("Pragma", "no-cache")], RequestDirectives { no_cache: true, ..none });
    check(&[("Pragma", "x, No-Cache")], RequestDirectives { no_cache: true, ..none });
    check(&[("Pragma", "unknown")], none);
    check(&[("Pragma", "no-cache"), ("Cache-Control", "x")], none);
    let all = RequestDirectives {
        max_age: Some(1),
        max_stale: Some(2),
        min_fresh: Some(3),
        stale_if_error: Some(4),
        no_cache: true,
        no_store: true,
        only_if_cached: true,
    };
    let line = "max-age=1, max-stale=2, min-fresh=3, stale-if-error=4, no-cache, no-store, only-if-cached";
    check(&[("Cache-Control", line)], all);
    check(&[("Cache-Control", "MAX-STALE")], RequestDirectives { max_stale: Some(u32::MAX), ..none });
    check(
        &[("Cache-Control", "max-stale=x, max-age=x, min-fresh=x")],
        RequestDirectives { max_stale: Some(0), max_age: Some(0), min_fresh: Some(SECS_MAX), ..none },
    );
}
