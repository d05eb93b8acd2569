//! Any text as each kind of configuration: never a panic, findings that point into the text, a snapshot exactly when no
//! finding is an error, and a snapshot that can be matched and tested, and is no other than itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{Diagnostic, NodeSettings, RequestView, Scheme, Snapshot};
use semantics::Fields;

fuzz_target!(|text: &str| {
    let node = NodeSettings::parse(text, "fuzz");
    check(text, node.settings.is_none(), &node.diagnostics);
    let cluster = Snapshot::parse_cluster(text, "fuzz");
    check(text, cluster.snapshot.is_none(), &cluster.diagnostics);
    if cluster.snapshot.is_some() {
        assert!(model::diff(text, text).is_ok_and(|difference| difference.is_empty()));
    }
    let parsed = Snapshot::parse(text, "fuzz");
    check(text, parsed.snapshot.is_none(), &parsed.diagnostics);
    if let (Some(common), Some(whole)) = (cluster.snapshot, &parsed.snapshot) {
        assert!(
            common.for_node(whole.edge.clone()) == *whole,
            "what has no part of a node's own is the same alone"
        );
    }
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

fn check(text: &str, is_refused: bool, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?}");
        assert!(diagnostic.line > 0 && diagnostic.column > 0, "{diagnostic:?}");
        assert!(!diagnostic.message.is_empty() && !diagnostic.to_string().is_empty());
    }
    assert_eq!(is_refused, diagnostics.iter().any(Diagnostic::is_error));
}
