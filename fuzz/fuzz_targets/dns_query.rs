//! Any bytes as a query of DNS: what is answered can be read, counts its records rightly, and is no longer than allowed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    router::respond::fuzzing::respond(bytes);
    // A header that lets the rest be read, as chance finds it seldom.
    router::respond::fuzzing::respond(&[b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x04shop\x03cdn\x07example\0\0\x01\0\x01", bytes].concat());
});
