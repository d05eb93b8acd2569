//! Any bytes as what an HTTP/2 visitor sends: the same frames are found however they are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (cuts, bytes) = input;
    edge::fuzzing::h2_frames(bytes, cuts);
});
