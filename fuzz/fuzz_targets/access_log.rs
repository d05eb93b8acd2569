//! Any bytes as an access log, in whatever format: no panic, and each line read, passed over or counted as malformed.

#![no_main]

use insight::log::Lines;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = Lines::new(bytes);
    let mut read = 0;
    while let Ok(Some(_)) = lines.next() {
        read += 1;
    }
    assert!(read + lines.malformed <= lines.count);
});
