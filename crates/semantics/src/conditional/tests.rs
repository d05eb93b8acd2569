use super::*;
use crate::freshness::{Flags, LifetimeSource};

const NOW: Wall = Wall::from_secs(784_111_777);
const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
const LATER: &str = "Sun, 06 Nov 1994 09:00:00 GMT";

fn facts(status: u16) -> Facts {
    Facts {
        response_time: NOW,
        initial_age_ms: 0,
        lifetime: 60,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        status,
        source: LifetimeSource::MaxAge,
        flags: Flags::NONE,
    }
}

fn check(method: &str, request: &[(&str, &str)], stored: &[(&str, &str)], expected: Precondition) {
    let request: Fields = request.iter().copied().collect();
    let stored: Fields = stored.iter().copied().collect();
    for validators in [Validators::of(&stored), Validators::of_block(stored.as_block())] {
        let found = evaluate_preconditions(&request, method, &validators, &facts(200), NOW);
        assert_eq!(found, expected, "{method} {request:?} {stored:?}");
    }
}

#[test]
fn if_none_match_compares_weakly_and_takes_lists() {
    let check = |value: &str, etag: &str, expected: Precondition| {
        check("GET", &[("If-None-Match", value)], &[("ETag", etag)], expected);
    };
    use Precondition::{NotModified, Proceed};
    check("\"a\"", "\"a\"", NotModified);
    check("W/\"a\"", "\"a\"", NotModified);
    check("\"a\"", "W/\"a\"", NotModified);
    check("\"A\"", "\"a\"", Proceed);
    check("\"b\"", "\"a\"", Proceed);
    check("\"a\", \"b\", \"c\"", "\"a\"", NotModified);
    check("\"b\",\"a\",\"c\"", "\"a\"", NotModified);
    check("\"b\", \"c\" ,\t\"a\"", "\"a\"", NotModified);
    check("\"a,b\"", "\"a,b\"", NotModified);
    check("\"a,b\"", "\"a\"", Proceed);
    check("\"\\\", \"a\"", "\"a\"", NotModified);
    check("\"\u{fc}\"", "\"\u{fc}\"", NotModified);
    check("*", "\"a\"", NotModified);
    check("\"*\"", "\"a\"", Proceed);
    check("", "\"a\"", Proceed);
    // Quotes that somebody forgot.
    check("a", "\"a\"", NotModified);
    check("\"a\"", "a", NotModified);
    check("a", "a", NotModified);
    // Wrong marks of weakness are part of the tag.
    check("w/\"a\"", "w/\"a\"", NotModified);
    check("w/\"a\"", "W/\"a\"", Proceed);
    check("W\\\"a\"", "W\\\"a\"", NotModified);
    check("W\"a\"", "W\"a\"", NotModified);
}

#[test]
fn if_none_match_without_an_entity_tag_and_for_other_methods() {
    use Precondition::{Failed, NotModified, Proceed};
    check("GET", &[("If-None-Match", "\"a\"")], &[], Proceed);
    check("GET", &[("If-None-Match", "*")], &[], NotModified);
    check("HEAD", &[("If-None-Match", "\"a\"")], &[("ETag", "\"a\"")], NotModified);
    check("PUT", &[("If-None-Match", "\"a\"")], &[("ETag", "\"a\"")], Failed);
    check("PUT", &[("If-None-Match", "*")], &[], Failed);
    check(
        "GET",
        &[("If-None-Match", "\"b\""), ("If-None-Match", "\"a\"")],
        &[("ETag", "\"a\"")],
        NotModified,
    );
}

#[test]
fn if_modified_since_compares_with_last_modified_else_date_else_arrival() {
    let check = |method: &str, value: &str, stored: &[(&str, &str)], expected: Precondition| {
        check(method, &[("If-Modified-Since", value)], stored, expected);
    };
    use Precondition::{NotModified, Proceed};
    let modified = [("Last-Modified", AT), ("Date", LATER)];
    check("GET", AT, &modified, NotModified);
    check("HEAD", LATER, &modified, NotModified);
    check("GET", EARLIER, &modified, Proceed);
    check("GET", "Sunday, 06-Nov-94 08:49:37 GMT", &modified, NotModified);
    check("GET", "Sun Nov  6 08:49:37 1994", &modified, NotModified);
    check("GET", "yesterday", &modified, Proceed);
    check("GET", "", &modified, Proceed);
    check("POST", LATER, &modified, Proceed);
    check("GET", AT, &[("Date", AT)], NotModified);
    check("GET", EARLIER, &[("Date", AT)], Proceed);
    check("GET", AT, &[("Last-Modified", "?"), ("Date", AT)], NotModified);
    check("GET", AT, &[], NotModified);
    check("GET", EARLIER, &[], Proceed);
}

#[test]
fn preconditions_come_in_the_order_of_the_rfc() {
    use Precondition::{Failed, NotModified, Proceed};
    let stored = [("ETag", "\"a\""), ("Last-Modified", AT)];
    check("GET", &[], &stored, Proceed);
    // If-None-Match silences If-Modified-Since, whichever way it goes.
    check("GET", &[("If-None-Match", "\"a\""), ("If-Modified-Since", EARLIER)], &stored, NotModified);
    check("GET", &[("If-None-Match", "\"b\""), ("If-Modified-Since", LATER)], &stored, Proceed);
    check(
        "GET",
        &[("If-None-Match", "\"b\""), ("If-Modified-Since", LATER)],
        &[("Last-Modified", AT)],
        Proceed,
    );
    check("GET", &[("If-Modified-Since", LATER), ("If-Modified-Since", LATER)], &stored, Proceed);
    check("GET", &[("If-Match", "\"a\"")], &stored, Proceed);
    check("GET", &[("If-Match", "\"b\", \"a\"")], &stored, Proceed);
    check("GET", &[("If-Match", "*")], &stored, Proceed);
    check("GET", &[("If-Match", "\"b\"")], &stored, Failed);
    check("GET", &[("If-Match", "\"a\"")], &[], Failed);
    check("GET", &[("If-Match", "W/\"a\"")], &[("ETag", "W/\"a\"")], Failed);
    check("GET", &[("If-Match", "\"a\""), ("If-None-Match", "\"a\"")], &stored, NotModified);
    check("GET", &[("If-Match", "\"b\""), ("If-None-Match", "\"a\"")], &stored, Failed);
    check("GET", &[("If-Unmodified-Since", EARLIER)], &stored, Failed);
    check("GET", &[("If-Unmodified-Since", AT)], &stored, Proceed);
    check("GET", &[("If-Unmodified-Since", "?")], &stored, Proceed);
    check("GET", &[("If-Unmodified-Since", EARLIER)], &[], Proceed);
    check("GET", &[("If-Match", "\"a\""), ("If-Unmodified-Since", EARLIER)], &stored, Proceed);
}

#[test]
fn errors_and_redirects_have_no_preconditions() {
    let request: Fields = [("If-None-Match", "*")].into_iter().collect();
    for (status, expected) in [
        (200, Precondition::NotModified),
        (204, Precondition::NotModified),
        (301, Precondition::Proceed),
        (404, Precondition::Proceed),
    ] {
        let found = evaluate_preconditions(&request, "GET", &Validators::default(), &facts(status), NOW);
        assert_eq!(found, expected, "{status}");
    }
}

#[test]
fn a_validation_asks_with_what_is_stored() {
    let check = |stored: &[(&str, &str)], expected: &str| {
        let stored: Fields = stored.iter().copied().collect();
        let mut request = Fields::new();
        add_validators(&stored, &mut request);
        assert_eq!(request.as_block(), expected.as_bytes());
    };
    check(&[], "");
    check(&[("ETag", "W/\"a\"")], "If-None-Match: W/\"a\"\r\n");
    check(&[("ETag", "a")], "If-None-Match: a\r\n");
    check(&[("ETag", "")], "");
    check(&[("Last-Modified", "0")], "");
    check(
        &[("Last-Modified", AT), ("ETag", "\"a\"")],
        &format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {AT}\r\n"),
    );
}

#[test]
fn a_304_leaves_out_what_describes_content() {
    for name in ["Content-Length", "content-type", "Content-Encoding"] {
        assert!(is_left_out_of_304(name.as_bytes()), "{name}");
    }
    for name in ["ETag", "Content-Location", "Vary", "Cache-Control", "Expires", "Date", "Last-Modified"] {
        assert!(!is_left_out_of_304(name.as_bytes()), "{name}");
    }
}
