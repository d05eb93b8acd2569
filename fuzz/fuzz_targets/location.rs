//! Any bytes as location data, packed and not: what is taken can be asked for any address.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| router::location::fuzzing::decode(bytes));
