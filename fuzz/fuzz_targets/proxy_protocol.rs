//! Any bytes as a PROXY header: decided once it is complete, and whatever follows it changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess words and addresses: mostly one of these comes before its bytes.
const BEGINNINGS: [&[u8]; 7] = [
    b"",
    b"PROXY ",
    b"PROXY TCP4 192.0.2.1 ",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 ",
    b"PROXY TCP6 2001:db8::1 ::1 ",
    b"PROXY UNKNOWN",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
];

fuzz_target!(|input: (u8, &[u8])| {
    let (beginning, bytes) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()];
    edge::fuzzing::proxy_protocol(&[beginning, bytes].concat());
});
