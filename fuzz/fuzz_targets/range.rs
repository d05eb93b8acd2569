//! Any Range and Content-Range: no answer has bytes that do not exist or are not held, or more parts than allowed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::range::{ContentRange, Multipart, Part, RANGES_MAX, Requested, parse_range};

// The unit is put before each value, for the fuzzer does not guess a word of six letters; lengths are small as a rule,
// so that ranges meet them.
fuzz_target!(|input: (u64, u8, u8, &[u8], &[u8], &[u8])| {
    let (large, complete_len, body_len, range, asked, content_range) = input;
    let range = &[b"bytes=", range].concat()[..];
    let asked = &[b"bytes=", asked].concat()[..];
    let content_range = &[b"bytes ", content_range].concat()[..];
    let complete_len = if large % 4 == 0 { large } else { u64::from(complete_len) * 16 };
    let body_len = u64::from(body_len);
    match parse_range(range, complete_len) {
        Requested::One(span) => assert!(span.end() < complete_len),
        Requested::Several(spans) => {
            assert!((2..=RANGES_MAX).contains(&spans.len()));
            assert!(spans.iter().all(|span| span.end() < complete_len));
            let multipart = Multipart { boundary: "b", content_type: None, complete_len, spans: &spans };
            assert!(multipart.content_len() > spans.iter().map(|span| span.len()).sum());
            let mut sorted = spans.clone();
            sorted.sort_unstable();
            assert!(sorted.windows(2).all(|pair| pair[0].end() + 1 < pair[1].start()));
        }
        Requested::Ignore | Requested::Unsatisfiable => {}
    }
    if let Some(content_range) = ContentRange::parse(content_range) {
        assert_eq!(ContentRange::parse(content_range.to_string().as_bytes()), Some(content_range));
    }
    if let Some(part) = Part::of(Some(asked), content_range, body_len) {
        assert!(part.held().is_none_or(|held| held.len() == body_len));
        if let Some(slice) = part.answer(range) {
            assert!(slice.offset.checked_add(slice.len).is_some_and(|end| end <= body_len));
            let ContentRange::Span { span, complete } = slice.content_range else { panic!("{slice:?}") };
            assert!(span.len() == slice.len && complete.is_none_or(|complete| span.end() < complete));
        }
    }
});
