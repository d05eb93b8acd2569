//! Any lines: what is accepted stays one line each, and the block reads back as the same lines.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::Fields;
use semantics::fields::{lines_of, value_in};

fuzz_target!(|input: (Vec<(&[u8], &[u8])>, &[u8])| {
    let (lines, raw) = input;
    let mut fields = Fields::new();
    let mut accepted = 0;
    for (name, value) in &lines {
        accepted += usize::from(fields.append(name, value).is_ok());
    }
    assert_eq!(fields.len(), accepted);
    assert_eq!(lines_of(fields.as_block()).count(), accepted);
    assert_eq!(Fields::from_block(fields.as_block()), fields);
    for (name, value) in &lines {
        assert_eq!(fields.contains(name), fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)));
        if let Ok(name) = std::str::from_utf8(name) {
            assert_eq!(value_in(fields.as_block(), name), fields.get(name));
        }
        let mut changed = fields.clone();
        if changed.set(name, value).is_ok() {
            assert_eq!(changed.get_all(name).count(), 1);
        }
        changed.remove(name);
        assert!(!changed.contains(name));
    }
    // A block that was not made by `Fields` must not do worse than lose lines.
    let _ = Fields::from_block(raw);
});
