//! Any bytes as lines of a feed, and as credentials.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    journal::fuzzing::feed_lines(bytes);
    journal::fuzzing::credentials(bytes);
});
