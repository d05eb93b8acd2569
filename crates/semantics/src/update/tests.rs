use super::*;

fn fields(lines: &[(&str, &str)]) -> Fields {
    lines.iter().copied().collect()
}

#[test]
fn a_304_replaces_what_it_names_and_keeps_the_rest() {
    let check = |stored: &[(&str, &str)], news: &[(&str, &str)], expected: &[(&str, &str)]| {
        assert_eq!(merge_304(&fields(stored), &fields(news)), fields(expected), "{news:?}");
    };
    check(&[("A", "1"), ("B", "2")], &[], &[("A", "1"), ("B", "2")]);
    check(&[("A", "1"), ("B", "2")], &[("a", "3"), ("C", "4")], &[("B", "2"), ("a", "3"), ("C", "4")]);
    check(
        &[("A", "1"), ("A", "2")],
        &[("A", "3"), ("A", "4"), ("A", "5")],
        &[("A", "3"), ("A", "4"), ("A", "5")],
    );
    check(
        &[("Cache-Control", "max-age=1")],
        &[("Cache-Control", "max-age=9")],
        &[("Cache-Control", "max-age=9")],
    );
    // The stored bytes are what they were.
    let bytes = [("Content-Length", "36"), ("Content-Encoding", "gzip"), ("Content-Range", "bytes 0-1/2")];
    check(&bytes, &[("Content-Length", "0"), ("Content-Encoding", "br"), ("Content-Range", "x")], &bytes);
    check(&[], &[("Content-Encoding", "br")], &[]);
    let kind =
        [("Content-Type", "text/plain;charset=utf-8"), ("Content-Location", "/b"), ("Content-MD5", "x")];
    check(&[("Content-Type", "text/plain"), ("Content-MD5", "y")], &kind, &kind);
    // What belonged to the old transfer goes, even when the new one is silent.
    check(&[("Age", "9"), ("Date", "x"), ("A", "1")], &[], &[("A", "1")]);
    check(&[("Age", "9"), ("Date", "x")], &[("Date", "y"), ("Age", "1")], &[("Date", "y"), ("Age", "1")]);
    // Hop-by-hop fields are neither taken over nor do they take stored ones away.
    check(
        &[("A", "1")],
        &[("Connection", "a, close"), ("a", "2"), ("Transfer-Encoding", "chunked")],
        &[("A", "1")],
    );
}

#[test]
fn a_304_with_another_strong_tag_is_about_something_else() {
    let check = |stored: &[(&str, &str)], news: &[(&str, &str)], expected: bool| {
        assert_eq!(confirms(&fields(stored), &fields(news)), expected, "{stored:?} {news:?}");
    };
    check(&[("ETag", "\"a\"")], &[], true);
    check(&[("ETag", "\"a\"")], &[("ETag", "\"a\"")], true);
    check(&[("ETag", "W/\"a\"")], &[("ETag", "\"a\"")], true);
    check(&[("ETag", "\"a\"")], &[("ETag", "W/\"b\"")], true);
    check(&[("ETag", "\"a\"")], &[("ETag", "\"b\"")], false);
    check(&[("Last-Modified", "x")], &[("ETag", "\"b\"")], true);
    check(&[], &[("ETag", "\"b\"")], false);
}

#[test]
fn an_answer_to_head_freshens_or_outdates_what_is_stored() {
    let stored =
        fields(&[("ETag", "\"a\""), ("Last-Modified", "x"), ("T", "1"), ("Cache-Control", "max-age=2")]);
    let check = |status: u16, answer: &[(&str, &str)], expected: Option<&[(&str, &str)]>| {
        let found = update_from_head(&stored, Some(10), status, &fields(answer));
        let expected = expected.map_or(HeadUpdate::Outdated, |lines| HeadUpdate::Freshened(fields(lines)));
        assert_eq!(found, expected, "{status} {answer:?}");
    };
    let merged = [("ETag", "\"a\""), ("Last-Modified", "x"), ("Cache-Control", "max-age=2"), ("T", "2")];
    check(200, &[("T", "2")], Some(&merged));
    check(200, &[("Content-Length", "10"), ("T", "2")], Some(&merged));
    check(
        200,
        &[("ETag", "\"a\""), ("Cache-Control", "max-age=9")],
        Some(&[("Last-Modified", "x"), ("T", "1"), ("ETag", "\"a\""), ("Cache-Control", "max-age=9")]),
    );
    check(200, &[("ETag", "\"b\"")], None);
    check(200, &[("Last-Modified", "y")], None);
    check(200, &[("Content-Length", "11")], None);
    check(200, &[("Content-Length", "?")], None);
    check(404, &[], None);
    check(410, &[("T", "2")], None);
    for status in [204, 206, 301, 304, 401, 429, 500, 503] {
        let found = update_from_head(&stored, Some(10), status, &fields(&[("ETag", "\"b\"")]));
        assert_eq!(found, HeadUpdate::Untouched, "{status}");
    }
    let unknown = update_from_head(&fields(&[]), None, 200, &fields(&[("Content-Length", "3")]));
    assert!(matches!(unknown, HeadUpdate::Freshened(_)));
    let tagless = update_from_head(&fields(&[]), None, 200, &fields(&[("ETag", "\"a\"")]));
    assert_eq!(tagless, HeadUpdate::Outdated);
}
