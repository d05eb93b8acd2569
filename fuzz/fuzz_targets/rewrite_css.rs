//! Any style sheet: how it is cut makes no difference, and where no URL moves not a byte is changed.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use model::glob::Glob;
use model::rewrite::Rewrite;
use website::{Kind, Page, Report, Rewriter};

fn rewritten(rewrite: &Arc<Rewrite>, pieces: &[&[u8]]) -> (Vec<u8>, Report) {
    let page = Page { secure: true, authority: "a.b".into(), path: "/c/d".into() };
    let mut rewriter = Rewriter::recording(rewrite, Kind::Css, &page);
    let mut out = Vec::new();
    pieces.iter().for_each(|piece| rewriter.push(piece, &mut out));
    let report = rewriter.finish(&mut out);
    (out, report)
}

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (first, second, text) = input;
    let rewrite = Rewrite {
        host: "https://x.y".into(),
        paths: vec![Glob::new("*")],
        social_images: true,
        structured_data: true,
        inline_scripts: vec![Glob::new("*")],
        ..Rewrite::default()
    };
    let rewrite = Arc::new(rewrite);
    let second = usize::from(second).min(text.len());
    let first = usize::from(first).min(second);
    let whole = rewritten(&rewrite, &[text]);
    assert_eq!(rewritten(&rewrite, &[&text[..first], &text[first..second], &text[second..]]), whole);
    // Where nothing moves, nothing changes.
    let nothing = Arc::new(Rewrite { host: "https://x.y".into(), paths: vec![Glob::new("!")], ..Rewrite::default() });
    let (same, report) = rewritten(&nothing, &[text]);
    if true {
        assert_eq!(same, text);
    }
    assert_eq!(report.changed, 0);
});
