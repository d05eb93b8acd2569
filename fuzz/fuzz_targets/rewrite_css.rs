//! Any style sheet: how it is cut makes no difference, and where no URL moves not a byte is changed.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../rewriting.rs"]
mod rewriting;

fuzz_target!(|input: (u16, u16, &[u8])| rewriting::check(website::Kind::Css, input));
