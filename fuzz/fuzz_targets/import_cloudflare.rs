//! Any text as rules of a Cloudflare zone: a place in it and a reason, or a configuration that is accepted and a word for each statement.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its text, and one after.
const ENDS: &[&str] = &["", "}", "\"}]}", "\"}]}]}", "\",\"action\":\"set_cache_settings\",\"action_parameters\":{\"cache\":true}}]}"];

const BEGINNINGS: &[&str] = &[
    "",
    "{\"rules\":[{\"expression\":\"",
    "{\"rules\":[{\"expression\":\"true\",\"action\":\"set_cache_settings\",\"action_parameters\":{\"",
    "{\"rules\":[{\"expression\":\"true\",\"action\":\"redirect\",\"action_parameters\":{\"from_value\":{\"target_url\":{\"value\":\"",
    "[{\"targets\":[{\"constraint\":{\"value\":\"",
    "[{\"targets\":[{\"constraint\":{\"value\":\"a.example/*\"}}],\"actions\":[{\"id\":\"",
];

fuzz_target!(|input: (u8, u8, &str)| {
    let (beginning, end, text) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()];
    let end = ENDS[usize::from(end) % ENDS.len()];
    import::fuzz(import::Source::Cloudflare, &format!("{beginning}{text}{end}"));
});
