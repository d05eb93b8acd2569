//! Any bytes as a field section of QPACK: bounded, and the same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Two bytes of zeros begin each section that can be read.
    edge::fuzzing::h3_section(&[&[0, 0], bytes].concat());
    edge::fuzzing::h3_section(bytes);
});
