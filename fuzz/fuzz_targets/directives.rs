//! Any bytes as Cache-Control and its relatives, in responses and requests: no panic, and never a time above the cap.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::Fields;
use semantics::directives::{RequestDirectives, ResponseDirectives, SECS_MAX};

const NAMES: [&str; 5] = ["Cache-Control", "CDN-Cache-Control", "Perigee-Cache-Control", "Pragma", "Vary"];

fuzz_target!(|lines: Vec<(u8, &[u8])>| {
    let fields: Fields =
        lines.iter().map(|(name, value)| (NAMES[usize::from(*name) % NAMES.len()], *value)).collect();
    let targeted = ["Perigee-Cache-Control".to_owned(), "CDN-Cache-Control".to_owned()];
    let response = ResponseDirectives::of(&fields, &targeted);
    let request = RequestDirectives::parse(&fields);
    for secs in [
        response.max_age,
        response.s_maxage,
        response.stale_while_revalidate,
        response.stale_if_error,
        request.max_age,
        request.max_stale,
        request.min_fresh,
        request.stale_if_error,
    ] {
        assert!(secs.is_none_or(|secs| secs <= SECS_MAX), "{fields:?}");
    }
});
