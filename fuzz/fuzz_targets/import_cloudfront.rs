//! Any text as a CloudFront distribution: a place in it and a reason, or a configuration that is accepted and a word for each statement.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its text, and one after.
const ENDS: &[&str] = &["", "}", "}}", "]}}}", "\"}}}"];

const BEGINNINGS: &[&str] = &[
    "",
    "{\"DefaultCacheBehavior\":{\"TargetOriginId\":\"a\",\"",
    "{\"DefaultCacheBehavior\":{\"ForwardedValues\":{\"",
    "{\"DefaultCacheBehavior\":{},\"Origins\":{\"Items\":[{\"Id\":\"a\",\"DomainName\":\"",
    "{\"DefaultCacheBehavior\":{},\"CacheBehaviors\":{\"Items\":[{\"PathPattern\":\"",
    "{\"DefaultCacheBehavior\":{},\"Aliases\":{\"Items\":[\"",
];

fuzz_target!(|input: (u8, u8, &str)| {
    let (beginning, end, text) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()];
    let end = ENDS[usize::from(end) % ENDS.len()];
    import::fuzz(import::Source::CloudFront, &format!("{beginning}{text}{end}"));
});
