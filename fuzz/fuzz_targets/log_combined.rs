//! Any line as one of the combined format, alone and in a stream: read or refused, and never more than that.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its bytes.
const BEGINNINGS: &[&str] = &[
    "",
    "203.0.113.9 - - [23/Nov/2026:20:44:33 +0000] \"GET /",
    "203.0.113.9 - - [23/Nov/2026:20:44:33 +0000] \"GET /x HTTP/1.1\" 200 10 \"",
    "203.0.113.9 - - [",
];

fuzz_target!(|input: (u8, &[u8])| {
    let (beginning, bytes) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()].as_bytes();
    insight::log::fuzz(&[beginning, bytes].concat());
});
