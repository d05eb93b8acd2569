use super::*;
use proptest::prelude::*;

fn span(start: u64, end: u64) -> Span {
    Span::new(start, end).unwrap()
}

fn fields(lines: &[(&str, &str)]) -> Fields {
    lines.iter().copied().collect()
}

/// `-`: answered in full, `416`, one span as `a-b`, several joined by `+`.
fn shown(requested: &Requested) -> String {
    match requested {
        Requested::Ignore => "-".into(),
        Requested::Unsatisfiable => "416".into(),
        Requested::One(span) => format!("{}-{}", span.start, span.end),
        Requested::Several(spans) => {
            spans.iter().map(|span| format!("{}-{}", span.start, span.end)).collect::<Vec<_>>().join("+")
        }
    }
}

#[test]
fn a_range_is_read_against_the_length() {
    let check = |value: &str, complete_len, expected: &str| {
        assert_eq!(
            shown(&parse_range(value.as_bytes(), complete_len)),
            expected,
            "{value:?} of {complete_len}"
        );
    };
    check("bytes=0-1", 11, "0-1");
    check("bytes=1-", 11, "1-10");
    check("bytes=-1", 11, "10-10");
    check("bytes=-99", 11, "0-10");
    check("bytes=0-99999999999999999999999", 11, "0-10");
    check("bytes=10-10", 11, "10-10");
    check("BYTES=0-1", 11, "0-1");
    check("bytes= 0-1 ", 11, "0-1");
    check("bytes=,0-1,", 11, "0-1");
    check("bytes=11-", 11, "416");
    check("bytes=99999999999999999999999-", 11, "416");
    check("bytes=-0", 11, "416");
    check("bytes=0-", 0, "416");
    check("bytes=-5", 0, "-");
    for ignored in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=0-1x",
        "bytes=0--1",
        "bytes=+0-1",
        "bytes =0-1",
        "bytes=0 - 1",
        "lines=0-1",
        "bytes=0-1,x",
        "0-1",
        "bytes:0-1",
        "bytes=0-1;2-3",
        "bytes=1",
    ] {
        check(ignored, 11, "-");
    }
}

#[test]
fn several_ranges_are_sent_apart_only_when_that_is_worth_it() {
    let check = |value: &str, complete_len, expected: &str| {
        assert_eq!(
            shown(&parse_range(value.as_bytes(), complete_len)),
            expected,
            "{value:?} of {complete_len}"
        );
    };
    check("bytes=0-9,1000-1009", 10_000, "0-9+1000-1009");
    check("bytes=1000-1009, 0-9", 10_000, "1000-1009+0-9");
    check("bytes=1000-1009,0-9,500-1005", 10_000, "0-9+500-1009");
    check("bytes=0-9,50-59", 10_000, "0-59");
    check("bytes=0-9,90-99", 10_000, "0-9+90-99");
    check("bytes=0-9,89-99", 10_000, "0-99");
    check("bytes=0-9,20000-", 10_000, "0-9");
    check("bytes=20000-,30000-", 10_000, "416");
    check("bytes=0-,0-,0-,0-", 10_000, "0-9999");
    check("bytes=0-0,-1", 100, "-");
    check("bytes=0-0,-1", 1000, "0-0+999-999");
    check("bytes=0-18446744073709551615,5-", u64::MAX, "0-18446744073709551614");
    let many = |count| (0..count).map(|index| format!("{0}-{0}", index * 100)).collect::<Vec<_>>().join(",");
    let as_several = shown(&parse_range(format!("bytes={}", many(RANGES_MAX)).as_bytes(), 1_000_000));
    assert_eq!(as_several.split('+').count(), RANGES_MAX);
    check(&format!("bytes={}", many(RANGES_MAX + 1)), 1_000_000, "-");
}

#[test]
fn range_counts_for_one_get_with_a_matching_if_range() {
    let stored = fields(&[
        ("ETag", "\"a\""),
        ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Date", "Sun, 06 Nov 1994 08:49:38 GMT"),
    ]);
    let check = |method: &str, lines: &[(&str, &str)], expected: &str| {
        assert_eq!(
            shown(&select(method.as_bytes(), &fields(lines), &stored, 11)),
            expected,
            "{method} {lines:?}"
        );
    };
    let range = ("Range", "bytes=0-1");
    check("GET", &[range], "0-1");
    check("GET", &[], "-");
    check("HEAD", &[range], "-");
    check("POST", &[range], "-");
    check("GET", &[range, range], "-");
    check("GET", &[range, ("If-Range", "\"a\"")], "0-1");
    check("GET", &[range, ("If-Range", "\"b\"")], "-");
    check("GET", &[range, ("If-Range", "W/\"a\"")], "-");
    check("GET", &[range, ("If-Range", "Sun, 06 Nov 1994 08:49:37 GMT")], "0-1");
    check("GET", &[range, ("If-Range", "Sun, 06 Nov 1994 08:49:38 GMT")], "-");
    check("GET", &[range, ("If-Range", "")], "-");
    check("GET", &[range, ("If-Range", "\"a\""), ("If-Range", "\"a\"")], "-");
    check("GET", &[("Range", "bytes=99-"), ("If-Range", "\"a\"")], "416");
}

#[test]
fn a_weak_validator_never_matches_if_range() {
    let check = |stored: &[(&str, &str)], if_range: &str| {
        assert!(
            !if_range_matches(&fields(&[("If-Range", if_range)]), &fields(stored)),
            "{stored:?} {if_range}"
        );
    };
    check(&[("ETag", "W/\"a\"")], "W/\"a\"");
    check(&[("ETag", "W/\"a\"")], "\"a\"");
    check(&[("ETag", "\"a\""), ("ETag", "\"a\"")], "\"a\"");
    check(&[("ETag", "a")], "a");
    check(&[], "\"a\"");
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    check(&[("Last-Modified", modified)], modified);
    check(&[("Last-Modified", modified), ("Date", modified)], modified);
    check(&[("Last-Modified", "soon GMT"), ("Date", modified)], "soon GMT");
}

#[test]
fn a_content_range_reads_back_as_written() {
    for text in ["bytes 0-4/10", "bytes 4-9/10", "bytes 0-0/1", "bytes 5-7/*", "bytes */10", "bytes */0"] {
        assert_eq!(ContentRange::parse(text.as_bytes()).unwrap().to_string(), text);
    }
    assert!(ContentRange::parse(b"Bytes 0-1/2").is_some());
    for bad in [
        "",
        "bytes",
        "bytes 0-4",
        "bytes 4-3/10",
        "bytes 0-10/10",
        "bytes */*",
        "bytes 0-/10",
        "bytes -4/10",
        "lines 0-4/10",
        "bytes  0-4/10",
        "bytes=0-4/10",
        "bytes 0-4/x",
        "bytes 0-4/18446744073709551615",
        "ananananananana",
    ] {
        assert_eq!(ContentRange::parse(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn a_multipart_answer_is_as_long_as_it_says() {
    let body: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let spans = [span(0, 9), span(4000, 4999), span(200, 200)];
    let multipart =
        Multipart { boundary: "b0", content_type: Some(b"text/plain"), complete_len: 5000, spans: &spans };
    let mut out = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        multipart.write_part_head(&mut out, index);
        out.extend_from_slice(&body[span.start as usize..=span.end as usize]);
    }
    multipart.write_end(&mut out);
    assert_eq!(out.len() as u64, multipart.content_len());
    assert!(out.starts_with(
        b"--b0\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-9/5000\r\n\r\n\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\r\n--b0\r\n"
    ));
    assert!(out.ends_with(b"\r\n--b0--\r\n"));
    assert_eq!(multipart.media_type(), "multipart/byteranges; boundary=b0");
}

/// `offset+len content-range`, or `-` when the origin must be asked.
fn answered(part: Option<Part>, range: &str) -> String {
    match part.and_then(|part| part.answer(range.as_bytes())) {
        None => "-".into(),
        Some(slice) => format!("{}+{} {}", slice.offset, slice.len, slice.content_range),
    }
}

#[test]
fn a_stored_part_answers_what_lies_within_it() {
    let part = Part::of(Some(b"bytes=4-8"), b"bytes 4-8/10", 5);
    let check = |range: &str, expected: &str| assert_eq!(answered(part, range), expected, "{range}");
    check("bytes=4-8", "0+5 bytes 4-8/10");
    check("bytes=6-7", "2+2 bytes 6-7/10");
    check("bytes=6-9", "-");
    check("bytes=6-", "-");
    check("bytes=3-5", "-");
    check("bytes=-1", "-");
    check("bytes=9-", "-");
    check("bytes=4-5,7-8", "-");
    check("lines=4-5", "-");
    assert_eq!(part.unwrap().held(), Some(span(4, 8)));
    let tail = Part::of(Some(b"bytes=-5"), b"bytes 5-9/10", 5);
    assert_eq!(answered(tail, "bytes=-5"), "0+5 bytes 5-9/10");
    assert_eq!(answered(tail, "bytes=-2"), "3+2 bytes 8-9/10");
    assert_eq!(answered(tail, "bytes=7-"), "2+3 bytes 7-9/10");
    assert_eq!(answered(tail, "bytes=7-99"), "2+3 bytes 7-9/10");
    assert_eq!(answered(tail, "bytes=-6"), "-");
    let unknown = Part::of(None, b"bytes 5-9/*", 5);
    assert_eq!(answered(unknown, "bytes=6-7"), "1+2 bytes 6-7/*");
    assert_eq!(answered(unknown, "bytes=6-"), "-");
    assert_eq!(answered(unknown, "bytes=-2"), "-");
}

#[test]
fn content_range_counts_when_it_fits_the_body_whatever_was_asked() {
    let part = Part::of(Some(b"bytes=-5"), b"bytes 0-4/10", 5);
    assert_eq!(part.unwrap().held(), Some(span(0, 4)));
    assert_eq!(answered(part, "bytes=-5"), "-");
    assert_eq!(answered(part, "bytes=0-1"), "0+2 bytes 0-1/10");
}

#[test]
fn a_part_that_contradicts_itself_answers_each_question_by_its_own_reading() {
    let part = Part::of(Some(b"bytes=-5"), b"bytes 4-9/10", 5);
    let check = |range: &str, expected: &str| assert_eq!(answered(part, range), expected, "{range}");
    check("bytes=-5", "0+5 bytes 5-9/10");
    check("bytes=-1", "4+1 bytes 9-9/10");
    check("bytes=-6", "-");
    check("bytes=6-8", "2+3 bytes 6-8/10");
    check("bytes=6-", "2+3 bytes 6-8/10");
    check("bytes=9-", "-");
    check("bytes=3-", "-");
    assert_eq!(part.unwrap().held(), None);
    let not_a_suffix = Part::of(Some(b"bytes=4-"), b"bytes 4-9/10", 5);
    assert_eq!(answered(not_a_suffix, "bytes=-1"), "-");
    assert_eq!(answered(not_a_suffix, "bytes=4-"), "0+5 bytes 4-8/10");
    let other_suffix = Part::of(Some(b"bytes=-6"), b"bytes 4-9/10", 5);
    assert_eq!(answered(other_suffix, "bytes=-5"), "-");
}

#[test]
fn a_206_whose_place_is_unknown_is_no_part() {
    let check = |content_range: &str, body_len| {
        assert_eq!(Part::of(None, content_range.as_bytes(), body_len), None, "{content_range} {body_len}");
    };
    check("bytes 4-9/10", 7);
    check("bytes 4-9/10", 0);
    check("bytes 4-9/9", 6);
    check("bytes */10", 5);
    check("", 5);
    check("ananananananana", 5);
}

#[test]
fn parts_combine_only_under_one_strong_validator() {
    let check = |stored: &[(&str, &str)], new: &[(&str, &str)], expected| {
        assert_eq!(
            may_combine(&fields(stored), Some(10), &fields(new), Some(10)),
            expected,
            "{stored:?} {new:?}"
        );
        assert!(!may_combine(&fields(stored), Some(10), &fields(new), Some(11)));
        assert_eq!(may_combine(&fields(stored), None, &fields(new), Some(11)), expected);
    };
    let etag = |tag| ("ETag", tag);
    let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let later = ("Date", "Sun, 06 Nov 1994 08:49:39 GMT");
    check(&[etag("\"a\"")], &[etag("\"a\"")], true);
    check(&[etag("\"a\"")], &[etag("\"b\"")], false);
    check(&[etag("W/\"a\"")], &[etag("W/\"a\"")], false);
    check(&[etag("\"a\"")], &[], false);
    check(&[], &[], false);
    check(&[modified, later], &[modified, later], true);
    check(&[modified, later], &[modified], false);
    check(&[modified, ("Date", modified.1)], &[modified, later], false);
    check(&[modified, later, etag("\"a\"")], &[modified, later], false);
}

#[test]
fn what_is_missing_behind_a_part_is_asked_for() {
    let check = |held_bytes, complete_len, expected: Option<&str>| {
        let found = rest_after(held_bytes, complete_len, &Fields::new());
        assert_eq!(
            found.as_ref().map(|found| found.range.as_str()),
            expected,
            "{held_bytes} {complete_len:?}"
        );
    };
    check(5, Some(10), Some("bytes=5-"));
    check(9, Some(10), Some("bytes=9-"));
    check(5, None, Some("bytes=5-"));
    check(0, Some(10), None);
    check(0, None, None);
    check(10, Some(10), None);
    check(11, Some(10), None);
}

#[test]
fn the_rest_is_asked_for_under_the_strong_validator_if_there_is_one() {
    let check = |stored: &[(&str, &str)], expected: Option<&str>| {
        let found = rest_after(5, Some(10), &fields(stored)).unwrap();
        assert_eq!(found.if_range.as_deref(), expected.map(str::as_bytes), "{stored:?}");
    };
    let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let later = ("Date", "Sun, 06 Nov 1994 08:49:39 GMT");
    check(&[("ETag", "\"a\""), modified, later], Some("\"a\""));
    check(&[("ETag", "W/\"a\""), modified, later], None);
    check(&[modified, later], Some(modified.1));
    check(&[modified], None);
    check(&[], None);
}

proptest! {
    #[test]
    fn spans_of_an_answer_exist_and_do_not_touch(value in "bytes=[0-9,-]{0,24}", complete_len in 0u64..100_000) {
        match parse_range(value.as_bytes(), complete_len) {
            Requested::One(span) => prop_assert!(span.end < complete_len),
            Requested::Several(mut spans) => {
                prop_assert!((2..=RANGES_MAX).contains(&spans.len()));
                spans.sort_unstable();
                prop_assert!(spans.iter().all(|span| span.end < complete_len));
                prop_assert!(spans.windows(2).all(|pair| pair[0].end + GAP_MAX < pair[1].start));
            }
            Requested::Ignore | Requested::Unsatisfiable => {}
        }
    }

    #[test]
    fn a_part_never_gives_bytes_that_it_does_not_hold(
        asked in "bytes=([0-9]{1,2}-[0-9]{0,2}|-[0-9]{1,2})",
        content_range in "bytes [0-9]{1,2}-[0-9]{1,2}/([0-9]{1,2}|\\*)",
        body_len in 0u64..30,
        range in "bytes=([0-9]{1,2}-[0-9]{0,2}|-[0-9]{1,2})",
    ) {
        if let Some(part) = Part::of(Some(asked.as_bytes()), content_range.as_bytes(), body_len)
            && let Some(slice) = part.answer(range.as_bytes())
        {
            prop_assert!(slice.offset + slice.len <= body_len);
            let ContentRange::Span { span, complete } = slice.content_range else { panic!("unsatisfied") };
            prop_assert_eq!(span.len(), slice.len);
            prop_assert!(complete.is_none_or(|complete| span.end < complete));
        }
    }
}
