use super::*;
use proptest::prelude::*;

fn request(lines: &[(&str, &str)]) -> Fields {
    lines.iter().copied().collect()
}

fn spec(vary: &str) -> VarySpec {
    match VarySpec::of(&request(&[("Vary", vary)])) {
        Vary::Spec(spec) => spec,
        other => panic!("{vary:?} is {other:?}"),
    }
}

fn variant(vary: &str, lines: &[(&str, &str)]) -> String {
    let mut out = Vec::new();
    spec(vary).write_variant(&mut out, &request(lines), &[]);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_vary_is_read_over_all_its_lines() {
    let check = |lines: &[&str], expected: &str| {
        let response: Fields = lines.iter().map(|line| ("Vary", *line)).collect();
        let found = match VarySpec::of(&response) {
            Vary::None => "none".to_string(),
            Vary::Star => "star".to_string(),
            Vary::Spec(spec) => spec.names().collect::<Vec<_>>().join(" "),
        };
        assert_eq!(found, expected, "{lines:?}");
    };
    check(&[], "none");
    check(&[""], "none");
    check(&[" , "], "none");
    check(&["Foo"], "foo");
    check(&["foo, Bar,,baz", "FOO"], "bar baz foo");
    for star in ["*", "*, *", ", *", "*, Foo", "Foo, *", "Foo,*"] {
        check(&[star], "star");
    }
    check(&["*", "*"], "star");
    check(&["", "*"], "star");
    check(&["Foo", "*"], "star");
    check(&["a b"], "star");
    check(&[r#""foo, *"#], "star");
    let many: Vec<String> = (0..=NAMES_MAX).map(|index| format!("x{index}")).collect();
    check(&[&many[..NAMES_MAX].join(",")], &{
        let mut sorted = many[..NAMES_MAX].to_vec();
        sorted.sort();
        sorted.join(" ")
    });
    check(&[&many.join(",")], "star");
    check(&[&"x".repeat(NAMES_BYTES_MAX + 1)], "star");
}

#[test]
fn a_spec_reads_back_from_its_bytes_and_nothing_else_does() {
    let spec = spec("Accept-Encoding, Foo");
    assert_eq!(VarySpec::from_bytes(spec.as_bytes()), Some(spec));
    for bad in ["", "*", "b,a", "a,a", "a,", "A", "a b", "\u{e9}"] {
        assert_eq!(VarySpec::from_bytes(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn a_variant_is_the_values_of_the_named_headers() {
    assert_eq!(variant("Foo", &[("Foo", "1"), ("Other", "2")]), "vary foo 1:1\n");
    let same = |vary, one: &[(&str, &str)], other: &[(&str, &str)]| {
        assert_eq!(variant(vary, one), variant(vary, other), "{one:?} {other:?}");
    };
    let differ = |vary, one: &[(&str, &str)], other: &[(&str, &str)]| {
        assert_ne!(variant(vary, one), variant(vary, other), "{one:?} {other:?}");
    };
    differ("Foo", &[("Foo", "1")], &[("Foo", "2")]);
    differ("Foo", &[], &[("Foo", "1")]);
    differ("Foo", &[], &[("Foo", "")]);
    same("Foo, Bar, Baz", &[("Foo", "1"), ("Baz", "7")], &[("Baz", "7"), ("Foo", "1")]);
    differ("Foo, Bar", &[("Foo", "1"), ("Bar", "a")], &[("Foo", "1"), ("Bar", "b")]);
    same("Foo", &[("Foo", "1, 2")], &[("Foo", "1"), ("foo", "2")]);
    same("Foo", &[("Foo", "1,2")], &[("Foo", " 1, 2 ")]);
    differ("Foo", &[("Foo", "1 2")], &[("Foo", "12")]);
    differ("Foo", &[("Foo", "A")], &[("Foo", "a")]);
    differ("Foo", &[("Foo", r#""a, b""#)], &[("Foo", r#""a,b""#)]);
    differ("Cookie", &[("Cookie", "a=1, b")], &[("Cookie", "a=1,b")]);
    differ("User-Agent", &[("User-Agent", "x (a, b)")], &[("User-Agent", "x (a,b)")]);
    differ("Foo, Bar", &[("Foo", "1\nvary bar 1:2")], &[("Foo", "1"), ("Bar", "2")]);
}

#[test]
fn accept_language_ignores_order_case_and_space_but_not_weight() {
    let check = |value: &str, expected: &str| {
        let text = variant("Accept-Language", &[("Accept-Language", value)]);
        assert_eq!(text, format!("vary accept-language {}:{expected}\n", expected.len()), "{value:?}");
    };
    for value in ["en, de", "de, en", "eN, De", " en ,   de", "en;q=1, de;q=1.000", "en,de,en;q=0.3"] {
        check(value, "de, en");
    }
    check("fr;q=0.5, de;q=1.0", "de, fr;q=0.5");
    check("de;q=0.125, en;q=0.10, fr;q=0, *;q=0.01", "de;q=0.125, en;q=0.1, *;q=0.01, fr;q=0");
    check("de;q=7, en", "en");
    let many = (0..=LANGUAGES_MAX).map(|index| format!("l{index}")).collect::<Vec<_>>().join(",");
    check(&many, &many);
    let absent = "vary accept-language absent\n";
    assert_eq!(variant("Accept-Language", &[]), absent);
    assert_eq!(variant("Accept-Language", &[("Accept-Language", "")]), absent);
}

#[test]
fn a_stored_language_answers_only_the_request_that_prefers_it() {
    let check = |content: &str, accept: &str, expected| {
        let request = request(&[("Accept-Language", accept)]);
        let (wanted, stored) = (preferred_language(&request), single_language(content.as_bytes()));
        let selects = wanted.zip(stored).is_some_and(|(wanted, stored)| wanted.eq_ignore_ascii_case(stored));
        assert_eq!(selects, expected, "{content} {accept}");
    };
    check("de", "fr;q=0.5, de;q=1.0", true);
    check("DE", "de", true);
    check("de-at", "de-AT, de;q=0.9", true);
    check("de", "de-AT, de;q=0.9", false);
    check("de-AT", "de", false);
    check("de", "en, de", false);
    check("de", "fr, de;q=0.5", false);
    check("de", "de;q=0", false);
    check("de, en", "de", false);
    check("de", "*", false);
    check("*", "*", false);
    check("de", "", false);
    check("", "de", false);
}

#[test]
fn a_language_variant_is_found_by_preference() {
    let spec = spec("Accept-Language, Accept-Encoding");
    let text = |lines: &[(&str, &str)], language: &[u8]| {
        let mut out = Vec::new();
        spec.write_language_variant(&mut out, &request(lines), &[], language);
        String::from_utf8(out).unwrap()
    };
    let stored = text(&[("Accept-Language", "en, de"), ("Accept-Encoding", "br")], b"DE");
    assert_eq!(stored, "vary accept-encoding 2:br\nlanguage 2:de\n");
    let asked = [("Accept-Language", "fr;q=0.5, de;q=1.0"), ("Accept-Encoding", "br;q=0.3")];
    let preferred = preferred_language(&request(&asked)).unwrap().into_owned();
    assert_eq!(text(&asked, &preferred), stored);
    assert_ne!(text(&asked[..1], &preferred), stored);
}

#[test]
fn accept_encoding_is_reduced_to_the_codings_that_are_known() {
    let check = |value: &str, expected: &str| {
        assert_eq!(
            Encodings::accepted_by(&request(&[("Accept-Encoding", value)])).as_str(),
            expected,
            "{value:?}"
        );
    };
    check("gzip, deflate, br, zstd", "zstd, br, gzip");
    check("gzip, deflate, br", "br, gzip");
    check("BR;q=1.0, gzip;q=0.2", "br, gzip");
    check("x-gzip", "gzip");
    check("gzip;q=0, br", "br");
    check("gzip;q=0, x-gzip", "gzip");
    check("gzip;q=0.0", "identity");
    check("deflate, dcb", "identity");
    check("", "identity");
    check("identity", "identity");
    check("*", "zstd, br, gzip");
    check("*;q=0.1, br;q=0", "zstd, gzip");
    check("gzip, *;q=0", "gzip, identity;q=0");
    check("gzip, identity;q=0", "gzip, identity;q=0");
    check("gzip, identity;q=0.1, *;q=0", "gzip");
    check("*;q=0", "identity;q=0");
    check("gzip;q=x, br", "br");
    assert_eq!(Encodings::accepted_by(&Fields::new()).as_str(), "identity");
}

#[test]
fn a_rule_says_what_of_a_header_counts() {
    let check = |rule: Normalise, lines: &[(&str, &str)], expected: Option<&str>| {
        let name = lines[0].0;
        let mut normal = request(lines);
        normalise_request(&mut normal, &[(name.to_ascii_lowercase(), rule)]);
        assert_eq!(normal.combined(name).as_deref(), expected.map(str::as_bytes), "{lines:?}");
    };
    let first_of = |values: &[&str]| Normalise::FirstOf(values.iter().map(|value| (*value).into()).collect());
    check(Normalise::Lowercase, &[("X", "Ab"), ("x", "C")], Some("ab,c"));
    check(Normalise::SortedList, &[("X", "b,,a "), ("x", "b")], Some("a, b"));
    check(Normalise::Presence, &[("X", "anything")], Some("1"));
    check(first_of(&["eu", "us"]), &[("X", "US")], Some("us"));
    check(first_of(&["eu", "us"]), &[("X", "mars")], None);
    check(
        first_of(&["text/html", "image/avif"]),
        &[("Accept", "image/avif;q=0.8, text/html")],
        Some("text/html"),
    );
    check(first_of(&["de", "en"]), &[("Accept-Language", "fr, de-AT;q=0.9, en;q=0.8")], Some("de"));
    check(first_of(&["de", "en"]), &[("Accept-Language", "fr, de;q=0")], None);
}

#[test]
fn what_is_normal_already_is_left_alone() {
    let mut normal =
        request(&[("Accept-Encoding", "br, gzip"), ("Accept-Language", "de, en;q=0.5"), ("Foo", "b ,a")]);
    let before = normal.clone();
    normalise_request(&mut normal, &[]);
    assert_eq!(normal, before);
}

fn any_rule() -> impl Strategy<Value = Normalise> {
    prop_oneof![
        Just(Normalise::Lowercase),
        Just(Normalise::SortedList),
        Just(Normalise::Presence),
        Just(Normalise::FirstOf(vec!["de".into(), "b".into(), "gzip".into()])),
    ]
}

proptest! {
    #[test]
    fn what_is_forwarded_has_the_variant_of_what_was_asked(
        lines in prop::collection::vec((
            prop::sample::select(vec!["Accept-Encoding", "Accept-Language", "Foo", "Bar", "Cookie"]),
            "[deghizpbr*,;q=.01 \"A-]{0,16}",
        ), 0..5),
        rules in prop::collection::vec((prop::sample::select(vec!["foo", "bar", "accept-language"]), any_rule()), 0..2),
    ) {
        let rules: Vec<(String, Normalise)> = rules.into_iter().map(|(name, rule)| (name.to_string(), rule)).collect();
        let spec = spec("Accept-Encoding, Accept-Language, Foo, Bar, Cookie");
        let asked: Fields = lines.into_iter().collect();
        let mut sent = asked.clone();
        normalise_request(&mut sent, &rules);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        spec.write_variant(&mut before, &asked, &rules);
        spec.write_variant(&mut after, &sent, &rules);
        prop_assert_eq!(String::from_utf8_lossy(&before), String::from_utf8_lossy(&after));
        let mut again = sent.clone();
        normalise_request(&mut again, &rules);
        prop_assert_eq!(again, sent);
    }
}

#[test]
fn a_response_answers_those_who_agree_in_what_it_varies_on_or_prefer_its_language() {
    let check = |response: &[(&str, &str)], first: &[(&str, &str)], second: &[(&str, &str)], expected| {
        let rules = [("foo".to_owned(), Normalise::Lowercase)];
        let found = may_answer(&request(response), &request(first), &request(second), &rules);
        assert_eq!(found, expected, "{response:?} for {first:?}, and {second:?}");
    };
    check(&[], &[("Foo", "1")], &[("Foo", "2")], true);
    check(&[("Vary", "*")], &[], &[], false);
    check(&[("Vary", "Foo")], &[("Foo", "a")], &[("Foo", "A"), ("Bar", "2")], true);
    check(&[("Vary", "Foo")], &[("Foo", "a")], &[("Foo", "b")], false);
    check(&[("Vary", "Foo")], &[("Foo", "")], &[], false);
    let german = [("Vary", "Accept-Language, Foo"), ("Content-Language", "de")];
    let first = [("Accept-Language", "de"), ("Foo", "a")];
    check(&german, &first, &[("Accept-Language", "fr;q=0.5, DE"), ("Foo", "A")], true);
    check(&german, &first, &[("Accept-Language", "fr, de;q=0.5"), ("Foo", "a")], false);
    check(&german, &first, &[("Accept-Language", "fr;q=0.5, de"), ("Foo", "b")], false);
    check(&german[..1], &first, &[("Accept-Language", "fr;q=0.5, de"), ("Foo", "a")], false);
    check(&[("Vary", "Foo"), german[1]], &first, &[("Accept-Language", "de"), ("Foo", "b")], false);
}
