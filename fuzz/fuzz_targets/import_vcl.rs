//! Any text as a program of Varnish: a place in it and a reason, or a configuration that is accepted and a word for each statement.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its text, and one after.
const ENDS: &[&str] = &["", ";}", ") { return (pass); } }", "\"; }"];

const BEGINNINGS: &[&str] = &[
    "",
    "backend a { .host = \"",
    "backend a { .host = \"b\"; } sub vcl_recv { if (",
    "backend a { .host = \"b\"; } sub vcl_recv { if (req.url ~ \"",
    "backend a { .host = \"b\"; } sub vcl_backend_response { set beresp.",
    "backend a { .host = \"b\"; } sub vcl_deliver { unset resp.http.",
];

fuzz_target!(|input: (u8, u8, &str)| {
    let (beginning, end, text) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()];
    let end = ENDS[usize::from(end) % ENDS.len()];
    import::fuzz(import::Source::Vcl, &format!("{beginning}{text}{end}"));
});
