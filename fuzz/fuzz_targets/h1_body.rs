//! Any bytes as a request body, counted or in chunks: the same content and the same end however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Option<u16>, u8, &[u8], &[u8])| {
    let (counted, data_max, cuts, bytes) = input;
    edge::fuzzing::h1_body(counted, bytes, cuts, data_max);
});
