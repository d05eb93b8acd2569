//! Any bytes as a traceparent: what is taken is written as it was meant.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::trace::TraceParent;

fuzz_target!(|bytes: &[u8]| {
    if let Some(parent) = TraceParent::parse(bytes) {
        assert!(parent.trace_id != 0 && parent.parent_id != 0);
        let text = parent.text();
        assert_eq!(TraceParent::parse(&text), Some(parent));
        assert_eq!(text[3..52], bytes[3..52]);
    }
});
