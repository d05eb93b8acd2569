//! What holds of any text that is rewritten, whatever its kind is: the targets of the kinds call it.

use std::sync::Arc;

use model::glob::Glob;
use model::rewrite::Rewrite;
use website::{Kind, Page, Report, Rewriter};

fn rewritten(rewrite: &Arc<Rewrite>, kind: Kind, pieces: &[&[u8]]) -> (Vec<u8>, Report) {
    let page = Page { secure: true, authority: "a.b".into(), path: "/c/d".into() };
    let mut rewriter = Rewriter::recording(rewrite, kind, &page);
    let mut out = Vec::new();
    pieces.iter().for_each(|piece| rewriter.push(piece, &mut out));
    let report = rewriter.finish(&mut out);
    (out, report)
}

/// How a text is cut makes no difference, and where no URL moves not a byte is changed but in a page's policy. The numbers say where
/// it is cut.
pub fn check(kind: Kind, (first, second, text): (u16, u16, &[u8])) {
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
    let whole = rewritten(&rewrite, kind, &[text]);
    assert_eq!(rewritten(&rewrite, kind, &[&text[..first], &text[first..second], &text[second..]]), whole);
    // Where nothing moves, nothing changes.
    let nothing = Arc::new(Rewrite { host: "https://x.y".into(), paths: vec![Glob::new("!")], ..Rewrite::default() });
    let (same, report) = rewritten(&nothing, kind, &[text]);
    if kind != Kind::Html || !same.windows(11).any(|window| window == b"https://x.y") {
        assert_eq!(same, text);
    }
    assert_eq!(report.changed, 0);
}
