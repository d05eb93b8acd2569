//! Any bytes as an answer of etcd's gateway.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u16, &[u8])| {
    let (after, status, bytes) = input;
    journal::fuzzing::etcd_answer(bytes, after, status);
});
