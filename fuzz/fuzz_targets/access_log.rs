//! Any text as an access log: no panic, each URL once, and all that was read accounted for.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use warm::{Url, asked_of_log};

fuzz_target!(|text: &str| {
    let asked = asked_of_log(text.lines(), Some("www.shop.example"), true, 1_000);
    let urls: HashSet<&Url> = asked.urls.iter().collect();
    assert_eq!(urls.len(), asked.urls.len());
    assert!(urls.len() + asked.bad + asked.left_out <= text.lines().count());
});
