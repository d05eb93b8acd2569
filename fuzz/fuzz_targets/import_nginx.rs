//! Any text as a configuration of nginx: a place in it and a reason, or a configuration that is accepted and a word for each statement.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// The fuzzer does not guess names: one of these comes before its text, and one after.
const ENDS: &[&str] = &[
    "",
    "; }}",
    " { proxy_pass http://10.0.0.1; } }",
    "\nserver { server_name b.example; location / { proxy_pass http://10.0.0.1; } }",
];

const BEGINNINGS: &[&str] = &[
    "",
    "server { server_name a.example; location ",
    "server { server_name a.example; location / { proxy_cache c; proxy_pass http://10.0.0.1; ",
    "proxy_cache_path /c keys_zone=c:1m max_size=1g; map $http_cookie $v { ",
    "server { server_name a.example; rewrite ",
    "server { server_name a.example; if (",
    "# configuration file /a:\nhttp { include b; }\n# configuration file /b:\nserver { ",
];

fuzz_target!(|input: (u8, u8, &str)| {
    let (beginning, end, text) = input;
    let beginning = BEGINNINGS[usize::from(beginning) % BEGINNINGS.len()];
    let end = ENDS[usize::from(end) % ENDS.len()];
    import::fuzz(import::Source::Nginx, &format!("{beginning}{text}{end}"));
});
