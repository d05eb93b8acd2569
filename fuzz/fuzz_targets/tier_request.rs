//! Any fields as a request of another edge: taken whole or not at all, and nothing of it goes on.

#![no_main]

use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 8] = [
    "Perigee-Tier-Hop",
    "Perigee-Tier-Position",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Request-Id",
    "perigee-tier-",
    "Cookie",
    "PERIGEE-TIER-TTL",
];

/// The fuzzer does not guess words: mostly one of these stands in place of its bytes.
const VALUES: [&[u8]; 6] = [b"peer", b"shield", b"now", b"192.0.2.1", b"https", b"00000000000000ff"];

fuzz_target!(|input: Vec<(u8, u8, &[u8])>| {
    let lines: Vec<(&str, &[u8])> = input
        .iter()
        .take(64)
        .map(|(name, value, bytes)| {
            let value = VALUES.get(usize::from(*value) % 8).copied().unwrap_or(bytes);
            (NAMES[usize::from(*name) % NAMES.len()], value)
        })
        .collect();
    edge::fuzzing::tier_request(&lines);
});
