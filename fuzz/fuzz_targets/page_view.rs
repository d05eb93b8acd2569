//! Any text as what a browser tells of a page view: what is accepted is within bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        edge::fuzzing::page_view(text);
    }
});
