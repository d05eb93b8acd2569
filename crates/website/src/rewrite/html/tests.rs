use std::sync::Arc;

use model::glob::Glob;
use model::rewrite::Rewrite;
use proptest::prelude::*;

use super::PAGE_BYTES_MAX;
use crate::rewrite::{Kind, Page, Report, Rewriter};

fn rewrite() -> Rewrite {
    Rewrite { host: "https://cdn.example".into(), ..Rewrite::default() }
}

fn through(rewrite: Rewrite, pieces: &[&[u8]]) -> (Vec<u8>, Report) {
    through_at("/lamps/red.html", rewrite, pieces)
}

fn through_at(path: &str, rewrite: Rewrite, pieces: &[&[u8]]) -> (Vec<u8>, Report) {
    let page = Page { secure: true, authority: "www.example".into(), path: path.into() };
    let mut rewriter = Rewriter::recording(&Arc::new(rewrite), Kind::Html, &page);
    let mut out = Vec::new();
    for piece in pieces {
        rewriter.push(piece, &mut out);
    }
    let report = rewriter.finish(&mut out);
    (out, report)
}

fn text(rewrite: Rewrite, page: &str) -> String {
    String::from_utf8(through(rewrite, &[page.as_bytes()]).0).unwrap()
}

/// `~` stands for where files move to.
fn check(rewrite: &Rewrite, cases: &[(&str, &str)]) {
    for (page, becomes) in cases {
        let becomes = match *becomes {
            "=" => (*page).to_owned(),
            other => other.replace('~', "https://cdn.example"),
        };
        assert_eq!(text(rewrite.clone(), page), becomes);
    }
}

#[test]
fn every_use_of_a_file_that_may_come_from_elsewhere_moves() {
    check(
        &rewrite(),
        &[
            ("<p><img src=/a.png>", "<p><img src=~/a.png>"),
            ("<p><IMG  alt='x'\n SRC = '/a.png' />", "<p><IMG  alt='x'\n SRC = '~/a.png' />"),
            ("<p><img src=\" a.png \">", "<p><img src=\" ~/lamps/a.png \">"),
            (
                "<p><img srcset='/a.png 1x, ../w=1,h=2/b.png 2x, //www.example/c.png 3x'>",
                "<p><img srcset='~/a.png 1x, ~/w=1,h=2/b.png 2x, ~/c.png 3x'>",
            ),
            (
                "<p><img data-src=/a.png data-srcset='/b.png 2x' data-x=/c.png>",
                "<p><img data-src=~/a.png data-srcset='~/b.png 2x' data-x=/c.png>",
            ),
            ("<picture><source srcset='/a.webp'></picture>", "<picture><source srcset='~/a.webp'></picture>"),
            (
                "<video src=/a.mp4 poster=/a.jpg><source src=/b.webm></video>",
                "<video src=~/a.mp4 poster=~/a.jpg><source src=~/b.webm></video>",
            ),
            ("<audio src=/a.mp3></audio>", "<audio src=~/a.mp3></audio>"),
            (
                "<p><input type=image src=/a.png><input src=/b.png>",
                "<p><input type=image src=~/a.png><input src=/b.png>",
            ),
            (
                "<svg><image href=/a.png xlink:href='/b.png'/></svg>",
                "<svg><image href=~/a.png xlink:href='~/b.png'/></svg>",
            ),
            ("<p style='background:url(/a.png)'>", "<p style='background:url(~/a.png)'>"),
            ("<p style=\"background:url('../a.png')\">", "<p style=\"background:url('~/a.png')\">"),
            (
                "<p style=\"background:url(&quot;/a.png&quot;)\">",
                "<p style=\"background:url(&quot;~/a.png&quot;)\">",
            ),
            (
                "<p><style>@import '/a.css';b{c:url(d.png)}</style>",
                "<p><style>@import '~/a.css';b{c:url(~/lamps/d.png)}</style>",
            ),
            ("<p><script src=//www.example/a.js></script>", "<p><script src=~/a.js></script>"),
            (
                "<p><script src=/a.js integrity=sha384-x></script>",
                "<p><script src=~/a.js crossorigin=anonymous integrity=sha384-x></script>",
            ),
            (
                "<p><script crossorigin src=/a.js integrity=sha384-x></script>",
                "<p><script crossorigin src=~/a.js integrity=sha384-x></script>",
            ),
            (
                "<p><link integrity=sha384-x rel=stylesheet href=/a.css>",
                "<p><link crossorigin=anonymous integrity=sha384-x rel=stylesheet href=~/a.css>",
            ),
            ("<p><script src=https://other.example/a.js integrity=x></script>", "="),
        ],
    );
}

#[test]
fn links_move_by_what_they_are_for() {
    for rel in [
        "stylesheet",
        "Alternate StyleSheet",
        "shortcut icon",
        "apple-touch-icon",
        "modulepreload",
        "prefetch",
    ] {
        check(
            &rewrite(),
            &[(
                &format!("<p><link rel='{rel}' href=/a.css>"),
                &format!("<p><link rel='{rel}' href=~/a.css>"),
            )],
        );
    }
    for rel in ["canonical", "alternate", "next", "prev", "dns-prefetch", "amphtml", ""] {
        check(&rewrite(), &[(&format!("<p><link rel='{rel}' href=/a.css>"), "=")]);
    }
    check(
        &rewrite(),
        &[
            (
                "<p><link rel=preload as=font href=/a.woff2 crossorigin>",
                "<p><link rel=preload as=font href=~/a.woff2 crossorigin>",
            ),
            (
                "<p><link rel=preload as=image imagesrcset='/a.png 1x'>",
                "<p><link rel=preload as=image imagesrcset='~/a.png 1x'>",
            ),
            ("<p><link rel=preload as=fetch href=/a.wasm crossorigin>", "="),
            ("<p><link rel=preload as=worker href=/a.js>", "="),
            ("<p><link rel=icon crossorigin=use-credentials href=/a.ico>", "="),
            ("<p><link rel=manifest href=/a.webmanifest>", "="),
        ],
    );
}

#[test]
fn what_browsers_would_refuse_and_what_is_no_file_stays() {
    let page = concat!(
        "<p><a href=/a.pdf>a</a><form action=/a.css></form><iframe src=/a.svg></iframe><embed src=/c.svg>",
        "<svg><use href='/a.svg#b'/></svg><video><track src=/a.vtt></video>",
        "<p style='filter:url(/a.svg#b)'><script>new Worker('/a.js'); fetch('/b.js')</script>",
        "<noscript><a href=/a.css></a></noscript><img src=data:image/png;base64,AA==><!-- <img src=/a.png> -->",
        "<link rel=manifest href=/d.webmanifest>",
    );
    let (out, report) = through(rewrite(), &[page.as_bytes()]);
    assert_eq!(String::from_utf8(out).unwrap(), page);
    assert_eq!(report.changed, 0);
    let left: Vec<_> = report.entries.iter().map(|entry| (&*entry.url, entry.outcome.is_err())).collect();
    assert_eq!(left, [("/c.svg", true), ("/a.svg#b", true), ("/a.svg#b", true), ("/d.webmanifest", true)]);
}

#[test]
fn nothing_of_the_path_that_a_visitor_asks_for_ends_what_it_is_written_into() {
    let page = concat!(
        "<p><img src='logo.png' srcset='logo.png 1x'><p style='background:url(a.png)'><style>b{c:url(d.png)}</style>",
        "<link rel=stylesheet href=e.css><script type=importmap>{\"imports\":{\"f\":\"./g.js\"}}</script>",
    );
    for path in
        ["/index.php/'onerror=alert(document.domain)//x", "/a)b/", "/a\"b/", "/a>b/", "/a b/", "/a&quot/"]
    {
        let (out, report) = through_at(path, rewrite(), &[page.as_bytes()]);
        assert_eq!((String::from_utf8(out).unwrap(), report.changed), (page.into(), 0), "{path}");
    }
}

#[test]
fn a_base_counts_once_and_stays() {
    check(
        &rewrite(),
        &[(
            "<base href=https://www.example/shop/><base href=/x/><p><img src=a.png>",
            "<base href=https://www.example/shop/><base href=/x/><p><img src=~/shop/a.png>",
        )],
    );
}

#[test]
fn the_connection_is_made_early_once_and_only_from_the_head() {
    check(
        &rewrite(),
        &[
            (
                "<head><meta charset=utf-8><link rel=icon href=/a.ico><script src=/a.js></script>",
                "<head><meta charset=utf-8><link rel=preconnect href=\"~\"><link rel=icon href=~/a.ico><script src=~/a.js></script>",
            ),
            (
                "<head><link rel=preconnect href=https://cdn.example/ ><link rel=icon href=/a.ico>",
                "<head><link rel=preconnect href=https://cdn.example/ ><link rel=icon href=~/a.ico>",
            ),
            (
                "<head><title>x</title></head><body><img src=/a.png>",
                "<head><title>x</title></head><body><img src=~/a.png>",
            ),
        ],
    );
}

#[test]
fn a_policy_in_the_page_allows_the_other_host() {
    check(
        &rewrite(),
        &[
            (
                "<meta http-equiv=Content-Security-Policy content=\"img-src 'self'\">",
                "<meta http-equiv=Content-Security-Policy content=\"img-src 'self' ~\">",
            ),
            (
                "<meta content='img-src &#39;self&#39;' http-equiv=content-security-policy>",
                "<meta content='img-src &#39;self&#39; ~' http-equiv=content-security-policy>",
            ),
            ("<meta name=x content=\"img-src 'self'\">", "="),
        ],
    );
}

#[test]
fn previews_structured_data_and_inline_scripts_move_when_asked() {
    let page = concat!(
        "<meta property=og:image content=https://www.example/a.png><meta name=twitter:image content=/b.png>",
        "<script type=application/ld+json>{\"image\": \"https:\\/\\/www.example\\/c.png\", \"url\": \"https://www.example/\"}</script>",
        "<script>load(\"/static/d.js\", \"/e.js\")</script>",
    );
    check(&rewrite(), &[(page, "=")]);
    let all = Rewrite {
        social_images: true,
        structured_data: true,
        inline_scripts: vec![Glob::new("/static/*")],
        ..rewrite()
    };
    let moved = concat!(
        "<meta property=og:image content=~/a.png><meta name=twitter:image content=~/b.png>",
        "<script type=application/ld+json>{\"image\": \"https:\\/\\/cdn.example\\/c.png\", \"url\": \"https://www.example/\"}</script>",
        "<script>load(\"~/static/d.js\", \"/e.js\")</script>",
    );
    check(&all, &[(page, moved)]);
}

#[test]
fn whole_pages_get_the_script_of_page_views_once_and_nothing_else_changes() {
    let script = Rewrite { script: true, ..Rewrite::default() };
    let tag = "<script async src=\"/.perigee/beacon.js\"></script>";
    for (page, becomes) in [
        (
            "<!doctype html><html><head><meta charset=utf-8><title>a</title>|<link rel=icon href=/a.png></head><body>",
            true,
        ),
        ("<HTML><BODY>", true),
        (
            "<html><head><title>a</title></head>|<body class=b><p style=\"background:url(/a.png)\"><img src=/b.png>",
            true,
        ),
        ("<head>|<noscript><img src=/a.png></noscript>", true),
        // Parts of pages, and texts.
        ("<li><img src=/a.png></li>", false),
        ("no tags at all", false),
    ] {
        let page = if page.contains('|') || !becomes { page.to_owned() } else { page.replace("><", ">|<") };
        let wanted = page.replace('|', if becomes { tag } else { "" });
        assert_eq!(text(script.clone(), &page.replace('|', "")), wanted);
    }
    let both = Rewrite { script: true, ..rewrite() };
    let page = "<html><head><title>a</title><link rel=stylesheet href=/a.css>";
    let moved = format!(
        "<html><head><title>a</title>{tag}<link rel=preconnect href=\"https://cdn.example\">\
         <link rel=stylesheet href=https://cdn.example/a.css>"
    );
    assert_eq!(text(both, page), moved);
}

#[test]
fn an_import_map_moves() {
    check(
        &rewrite(),
        &[
            (
                "<p><script type=importmap>{\"imports\":{\"a\":\"/a.js\",\"b/\":\"/b/\"}}</script>",
                "<p><script type=importmap>{\"imports\":{\"a\":\"~/a.js\",\"b/\":\"~/b/\"}}</script>",
            ),
            ("<p><script type=importmap>{\"imports\":{\"a\":\"/a.js\"</script>", "="),
            ("<p><script type=importmap>{\"imports\":{\"a\":\"/a.js\"", "="),
        ],
    );
}

#[test]
fn other_hosts_move_where_they_are_told_to() {
    let rewrite = Rewrite { hosts: vec![("img.example".into(), "https://pics.example".into())], ..rewrite() };
    let page = "<p><img src=https://img.example/a.png><img src=//x.example/a.png><img src=/a.png>";
    let moved = "<p><img src=https://pics.example/a.png><img src=//x.example/a.png><img src=~/a.png>";
    check(&rewrite, &[(page, moved)]);
}

#[test]
fn bytes_of_any_encoding_pass() {
    let mut page = b"<p title='".to_vec();
    page.extend(0x80..=0xff);
    page.extend(b"'>\xff\xfe<style>a{b:'\xe9\x81';c:url(/x.png)}</style><script>'\xe4\xb8'</script><img alt=\x81\x40 src=/\xe9.png>");
    let (out, _) = through(rewrite(), &[&page]);
    let back: Vec<u8> = {
        let moved = b"https://cdn.example";
        let mut rest = out.as_slice();
        let mut back = Vec::new();
        while let Some(at) = rest.windows(moved.len()).position(|window| window == moved) {
            back.extend_from_slice(&rest[..at]);
            rest = &rest[at + moved.len()..];
        }
        back.extend_from_slice(rest);
        back
    };
    assert_ne!(out, page);
    assert_eq!(back, page);
}

#[test]
fn a_tag_that_is_too_long_lets_the_rest_pass_as_it_is() {
    let mut page = b"<p><img src=/a.png><script type=importmap>{".to_vec();
    page.extend(b"\"x\": 1}</script><img alt='");
    page.resize(page.len() + PAGE_BYTES_MAX + 1000, b'x');
    page.extend(b"'><img src=/b.png>");
    for size in [1000, 100_000] {
        let pieces: Vec<_> = page.chunks(size).collect();
        let (out, report) = through(rewrite(), &pieces);
        assert!(report.failed_open);
        assert_eq!(report.changed, 1);
        assert_eq!(out.len(), page.len() + "https://cdn.example".len());
        assert!(out.ends_with(b"'><img src=/b.png>"));
    }
}

#[test]
fn a_script_that_is_too_long_passes_alone() {
    let script = format!("{{\"imports\": {{\"a\": \"/a.js\", \"b\": \"{}\"}}}}", "x".repeat(2 * 1024 * 1024));
    let page = format!("<p><script type=importmap>{script}</script><img src=/a.png>");
    let (out, report) = through(rewrite(), &page.as_bytes().chunks(10_000).collect::<Vec<_>>());
    assert!(report.failed_open);
    let expected = page.replace("img src=", "img src=https://cdn.example");
    assert!(out == expected.as_bytes());
}

fn page() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "<img src=",
        "/a.png",
        ">",
        "\"",
        "'",
        "<style>",
        "</style>",
        "<script type=importmap>",
        "<script>",
        "</script>",
        "url(",
        ")",
        "<link rel=stylesheet href=",
        "<p style=",
        " ",
        "\n",
        "<!--",
        "-->",
        "<svg>",
        "<base href=",
        "=",
        "<head>",
        "<title>",
        "</title>",
        "{\"imports\":{\"a\":",
        "}}",
        "@import ",
        "\u{e9}",
        "<",
        "&quot;",
        "<![CDATA[",
        "<textarea>",
        "<template>",
        "<noscript>",
        "<meta http-equiv=Content-Security-Policy content=",
        "img-src 'self'",
        "integrity=x ",
        "srcset=",
        "/b.png 2x,",
        "<math>",
        "<plaintext>",
        "</p>",
        "<image href=",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat().into_bytes())
}

proptest! {
    #[test]
    fn how_a_page_is_cut_makes_no_difference(page in page(), cuts in prop::collection::vec(0_usize..300, 0..8)) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(page.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&page[from..cut]);
            from = cut;
        }
        pieces.push(&page[from..]);
        let cut = through(rewrite(), &pieces);
        let whole = through(rewrite(), &[&page]);
        prop_assert_eq!(String::from_utf8_lossy(&cut.0), String::from_utf8_lossy(&whole.0));
        prop_assert_eq!(cut.1, whole.1);
    }

    #[test]
    fn nothing_is_lost_or_added_where_nothing_moves(page in page(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let nothing = Rewrite { paths: vec![Glob::new("/nowhere")], ..rewrite() };
        let broken = [noise, page].concat();
        let (out, report) = through(nothing, &[&broken]);
        prop_assume!(!String::from_utf8_lossy(&out).contains("https://cdn.example"));
        prop_assert!(!report.failed_open);
        prop_assert_eq!(out, broken);
    }
}
