//! Any bytes as an HTTP date: no panic, and what is a date is written as one that reads back as the same second.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::{Wall, date};

fuzz_target!(|input: (i64, &[u8])| {
    let (now, text) = input;
    if let Some(moment) = date::parse(text, Wall(now)) {
        let written = date::format(moment);
        assert_eq!(
            date::parse(written.as_bytes(), Wall(now)).map(Wall::secs),
            Some(moment.secs()),
            "{written:?}"
        );
    }
    let written = date::format(Wall(now));
    assert!(date::parse(written.as_bytes(), Wall(0)).is_some(), "{written:?}");
});
