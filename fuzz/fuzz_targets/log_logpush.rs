//! Any line as one of Cloudflare's Logpush, alone and in a stream: read or refused, and never more than that.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its bytes.
const BEGINNINGS: &[&str] = &[
    "{",
    r#"{"ClientRequestHost":"a","ClientRequestMethod":"GET","ClientRequestURI":"/x","EdgeResponseStatus":200,"EdgeStartTimestamp":"#,
    r#"{"ClientRequestHost":"a","ClientRequestMethod":"GET","ClientRequestURI":"/x","EdgeResponseStatus":200,"EdgeStartTimestamp":1,"CacheCacheStatus":""#,
    r#"{"ClientRequestHost":"a","ClientRequestMethod":"GET","ClientRequestURI":"/x","EdgeResponseStatus":200,"EdgeStartTimestamp":1,"ResponseHeaders":{""#,
];

fuzz_target!(|input: (u8, &[u8])| {
    let (beginning, bytes) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()].as_bytes();
    insight::log::fuzz(&[beginning, bytes].concat());
});
