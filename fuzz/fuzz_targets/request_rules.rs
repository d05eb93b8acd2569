//! Any request head: it is refused, or it has one sound host, one body length and a path.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::Fields;
use semantics::hop::{count_forward, is_loop, strip_hop_by_hop};
use semantics::request_rules::{Body, Form, Version, check_request, is_host};

const NAMES: [&str; 8] =
    ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "CDN-Loop", "Max-Forwards", "X"];

fuzz_target!(|input: (bool, &[u8], &[u8], Vec<(u8, &[u8])>)| {
    let (old, method, target, lines) = input;
    let mut fields: Fields =
        lines.iter().map(|(name, value)| (NAMES[usize::from(*name) % NAMES.len()], *value)).collect();
    let version = if old { Version::Http10 } else { Version::Http11 };
    if let Ok(checked) = check_request(method, target, version, &fields) {
        assert!(is_host(checked.host) || (old && checked.host.is_empty()));
        assert!(checked.path.starts_with(b"/") || checked.form == Form::Asterisk);
        assert!(!checked.path.contains(&b'?'));
        let framing = fields.get_all("content-length").count() + fields.get_all("transfer-encoding").count();
        assert_eq!(checked.body == Body::None, framing == 0);
        assert!(!(fields.contains("content-length") && fields.contains("transfer-encoding")));
    }
    let _ = is_loop(&fields, "perigee");
    let hosts = fields.get_all("host").count();
    strip_hop_by_hop(&mut fields);
    assert_eq!(fields.get_all("host").count(), hosts);
    assert!(!fields.contains("connection") && !fields.contains("transfer-encoding"));
    let stripped = fields.clone();
    strip_hop_by_hop(&mut fields);
    assert_eq!(fields, stripped);
    let _ = count_forward(method, &mut fields);
});
