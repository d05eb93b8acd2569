//! Any text as a configuration: never a panic, findings that point into the text, a snapshot exactly when no finding is
//! an error, and a snapshot that can be matched and tested.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{Diagnostic, RequestView, Scheme, Snapshot};
use semantics::Fields;

fuzz_target!(|text: &str| {
    let parsed = Snapshot::parse(text, "fuzz");
    for diagnostic in &parsed.diagnostics {
        assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?}");
        assert!(!diagnostic.message.is_empty() && !diagnostic.to_string().is_empty());
    }
    assert_eq!(parsed.snapshot.is_none(), parsed.diagnostics.iter().any(Diagnostic::is_error));
    let Some(snapshot) = parsed.snapshot else { return };
    snapshot.run_tests();
    let fields: Fields = [("Cookie", "a=b")].into_iter().collect();
    for site in &snapshot.sites {
        for path in ["/", "/a/b.css", "/%61//../x"] {
            let request = RequestView {
                method: "GET",
                scheme: Scheme::Http,
                host: "a.example",
                path,
                query: Some("q"),
                fields: &fields,
            };
            let matched = site.match_rule(&request);
            if let Some((_, location)) = matched.rule.location(&request) {
                assert!(!location.starts_with("//") && !location.contains(['\r', '\n']), "{location}");
            }
            site.match_response(&request, 404);
        }
    }
});
