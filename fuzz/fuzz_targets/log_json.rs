//! Any line as one of our JSON access log, alone and in a stream: read or refused, and never more than that.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its bytes.
const BEGINNINGS: &[&str] = &[
    "",
    r#"{"time":"2026-11-23T20:44:33.007Z","method":"GET","host":"a","target":"/x","status":200,"why":"absent""#,
    r#"{"time":"2026-11-23T20:44:33.007Z","method":"GET","host":"a","target":"/x","status":200,"why":"fresh","selected_by":{""#,
    r#"{"time":"2026-11-23T20:44:33.007Z","method":"GET","host":"a","target":"/x","status":200,"why":"absent","origin_status":200,"answer":{""#,
];

fuzz_target!(|input: (u8, &[u8])| {
    let (beginning, bytes) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()].as_bytes();
    insight::log::fuzz(&[beginning, bytes].concat());
});
