//! Any text as shares of countries, and as a price table: read or refused, and what is read can be used.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its text.
const BEGINNINGS: &[&str] = &[
    "",
    "country,share\nDE,31.5%\n",
    "as_of = \"2026-11\"\nsource = \"s\"\ncurrency = \"EUR\"\n[[price]]\nmonth = 1\ngb = 0.1\n",
    "as_of = \"2026-11\"\nsource = \"s\"\ncurrency = \"EUR\"\n[[price]]\nmonth = 1\ngb = 0.1\n[[price]]\ncountry = [",
];

fuzz_target!(|input: (u8, &str)| {
    let (beginning, text) = input;
    insight::plan::fuzz(&format!("{}{text}", BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()]));
});
