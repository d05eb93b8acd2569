//! Any bytes as an HTTP/3 stream: its frames don't depend on how it is cut, and none is kept that is too long.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8], &[u8])| {
    let (is_request, cuts, bytes) = input;
    edge::fuzzing::h3_frames(is_request, bytes, cuts);
});
