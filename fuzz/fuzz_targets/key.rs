//! Any request: what is forwarded has the key of what was asked, and a key tells its parts apart.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::KeyRecipe;
use semantics::key::{Query, QueryPart, has_dot_segment, normalise_host, normalise_path, write_url_key};

fn url_key(recipe: &KeyRecipe, host: &str, path: &[u8], query: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    write_url_key(&mut out, recipe, "site", host, path, query);
    out
}

fuzz_target!(|input: (u8, bool, &str, &[u8], Option<&[u8]>, &[u8])| {
    let (part, sort, host, path, query, other_path) = input;
    let part = match part % 4 {
        0 => QueryPart::All,
        1 => QueryPart::None,
        2 => QueryPart::Keep(vec!["a".into(), "b*".into()]),
        _ => QueryPart::Drop(vec!["a".into(), "b*".into()]),
    };
    let recipe = KeyRecipe { query: Query { part, sort }, ..KeyRecipe::default() };
    let key = url_key(&recipe, host, path, query);
    let sent_query = recipe.query_sent(query);
    let sent_path = normalise_path(path);
    // Hosts are checked before they are keyed; only of such a host is the normal form its own.
    if semantics::request_rules::is_host(host) {
        assert_eq!(url_key(&recipe, &normalise_host(host), &sent_path, sent_query.as_deref()), key);
    }
    assert_eq!(normalise_path(&sent_path), sent_path);
    assert_eq!(has_dot_segment(&sent_path), has_dot_segment(path));
    let same = normalise_path(other_path) == sent_path;
    assert_eq!(url_key(&recipe, host, other_path, query) == key, same);
});
