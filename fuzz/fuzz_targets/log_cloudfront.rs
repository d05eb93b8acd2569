//! Any line as one of CloudFront's log, with any columns, alone and in a stream: read or refused, and never more than that.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its bytes.
const BEGINNINGS: &[&str] = &[
    "\t",
    "#Fields: date time cs-method cs-uri-stem sc-status ",
    "2026-11-23\t20:44:33\tFRA56\t2390\t203.0.113.9\tGET\ta\t/x\t200\t",
    "2026-11-23\t20:44:33\tFRA56\t2390\t203.0.113.9\tGET\ta\t/x\t200\t-\tx%2520y\ta=b\t-\tHit\tid\t",
];

fuzz_target!(|input: (u8, &[u8])| {
    let (beginning, bytes) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()].as_bytes();
    insight::log::fuzz(&[beginning, bytes].concat());
});
