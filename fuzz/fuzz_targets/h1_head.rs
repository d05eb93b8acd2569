//! Any bytes as a request head: its end doesn't depend on how it is cut, and what is accepted is well formed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (cuts, bytes) = input;
    edge::fuzzing::h1_head(bytes, cuts);
});
