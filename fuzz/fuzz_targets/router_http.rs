//! Any bytes as a head of HTTP to the router's own addresses: a head is found where it ends, whatever follows.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    router::respond::fuzzing::http_head(bytes);
    router::respond::fuzzing::http_head(&[b"POST /v1/samples HTTP/1.1\r\n", bytes, b"\r\n\r\n"].concat());
});
