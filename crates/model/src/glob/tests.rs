use super::*;

#[track_caller]
fn check(pattern: &str, matching: &[&str], others: &[&str]) {
    let glob = Glob::new(pattern);
    for text in matching {
        assert!(glob.matches(text.as_bytes()), "{pattern} should match {text}");
        assert!(glob.captures(text.as_bytes()).is_some(), "{pattern} should capture {text}");
    }
    for text in others {
        assert!(!glob.matches(text.as_bytes()), "{pattern} should not match {text}");
        assert!(glob.captures(text.as_bytes()).is_none(), "{pattern} should not capture {text}");
    }
}

#[test]
fn a_star_stands_for_any_run_of_bytes() {
    check(
        "/static/*",
        &["/static/", "/static/a.css", "/static/a/b/c"],
        &["/static", "/Static/a", "/x/static/a"],
    );
    check("*.css", &[".css", "/a.css", "/a/b.css"], &["/a.css2", "/a.CSS", "css"]);
    check("/a/*/b", &["/a//b", "/a/x/b", "/a/x/y/b", "/a/b/b"], &["/a/b", "/a/x/bc", "/a/x/b/"]);
    check("*", &["", "/", "anything"], &[]);
    check("/", &["/"], &["", "//", "/a"]);
    check("*a*a*", &["aa", "xaxax", "aaa"], &["a", "", "b"]);
    check("/a*a", &["/aa", "/aba", "/aaa"], &["/a", "/ab"]);
    check("/x/**/y", &["/x//y", "/x/1/2/y"], &["/x/y"]);
}

#[test]
fn nothing_but_the_star_is_special() {
    check("/a?b[c]{d}\\", &["/a?b[c]{d}\\"], &["/axb[c]{d}\\", "/a?bc{d}\\"]);
}

#[test]
fn letter_case_is_passed_over_where_the_pattern_says_so() {
    check("(?i)/Admin/*", &["/admin/", "/ADMIN/x", "/aDmIn/é"], &["/admin", "/bdmin/"]);
    check("(?i)*.php", &["/a.php", "/a.PhP", ".php"], &["/a.php5", "php"]);
    check("(?i)*bad*bot*", &["BadBot/1.0", "a bad ROBOT"], &["bot bad"]);
    check("(?i)", &[""], &["(?i)"]);
    for (pattern, other, covers) in [
        ("(?i)/a/*", "/A/b", true),
        ("(?i)/a/*", "(?i)/A/B/*", true),
        ("/a/*", "(?i)/a/b", false),
        ("*", "(?i)/a", true),
        ("/1/*", "(?i)/1/a", true),
    ] {
        assert_eq!(Glob::new(pattern).covers(&Glob::new(other)), covers, "{pattern} covers {other}");
    }
    assert_eq!(Glob::new("(?i)/OLD/*").captures(b"/old/X").unwrap().of(1), b"X");
    assert_eq!(Glob::new("(?i)/x**").as_str(), "(?i)/x*");
}

#[test]
fn captures_are_what_the_stars_stand_for() {
    let glob = Glob::new("/old/*/p-*.html");
    let captures = glob.captures(b"/old/a/b/p-12.html").unwrap();
    assert_eq!(
        (captures.of(1), captures.of(2), captures.of(3), captures.of(0)),
        (&b"a/b"[..], &b"12"[..], &b""[..], &b""[..])
    );
    assert_eq!(Glob::new("/old/*").captures(b"/old/x").unwrap().of(1), b"x");
}

#[test]
fn a_pattern_covers_what_it_matches_whatever_the_stars_of_the_other_are() {
    for (pattern, other, covers) in [
        ("*", "/a/*", true),
        ("/a/*", "/a/b/*", true),
        ("/a/*", "/a/b", true),
        ("/a/b/*", "/a/*", false),
        ("*.css", "/a/*.css", true),
        ("/a/*.css", "*.css", false),
        ("/a/*", "*/a/", false),
        ("/a", "/a", true),
        ("/a", "/*", false),
        ("/*/b/*", "/x/b/b/*", true),
        ("/*a", "/*aa", true),
    ] {
        assert_eq!(Glob::new(pattern).covers(&Glob::new(other)), covers, "{pattern} covers {other}");
    }
}
