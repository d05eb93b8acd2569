//! Any Vary and any request: a spec reads back from its bytes, and what is forwarded has the variant of what was asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::vary::{normalise_request, preferred_language, single_language};
use semantics::{Fields, Normalise, Vary, VarySpec};

const NAMES: [&str; 6] = ["Accept-Encoding", "Accept-Language", "Foo", "Bar", "Baz", "Cookie"];

fuzz_target!(|input: (u8, &[u8], Vec<(u8, &[u8])>)| {
    let (rule, vary, lines) = input;
    let mut response = Fields::new();
    let _ = response.append("Vary", vary);
    if let Vary::Spec(spec) = VarySpec::of(&response) {
        assert_eq!(VarySpec::from_bytes(spec.as_bytes()), Some(spec));
    }
    let rule = match rule % 4 {
        0 => Normalise::Lowercase,
        1 => Normalise::SortedList,
        2 => Normalise::Presence,
        _ => Normalise::FirstOf(vec!["de".into(), "b".into()]),
    };
    let rules = [("foo".to_owned(), rule)];
    let asked: Fields =
        lines.iter().map(|(name, value)| (NAMES[usize::from(*name) % NAMES.len()], *value)).collect();
    let mut sent = asked.clone();
    normalise_request(&mut sent, &rules);
    let Vary::Spec(spec) = VarySpec::of(&NAMES.iter().map(|name| ("Vary", *name)).collect()) else {
        panic!("the names are plain");
    };
    let variant = |request: &Fields| {
        let mut out = Vec::new();
        spec.write_variant(&mut out, request, &rules);
        out
    };
    assert_eq!(variant(&asked), variant(&sent));
    let mut again = sent.clone();
    normalise_request(&mut again, &rules);
    assert_eq!(again, sent);
    if let Some(language) = preferred_language(&asked) {
        assert!(single_language(&language).is_some());
    }
});
