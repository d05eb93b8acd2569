//! Early Hints of the edge's own (RFC 8297): what a page had browsers load is told to the next one who waits for it.

use world::play;
use world::play::Play;

/// The HEADERS frame with `:status: 103`, of the static table, up to the status.
fn begins_with_hints(answer: &[u8]) -> bool {
    (answer[0], &answer[2..5]) == (0x01, &[0, 0, 0xc0 | 24][..])
}

/// A HEADERS frame that asks for a page, with one more line.
fn ask(more: Option<(&str, &str)>) -> Vec<u8> {
    let lines =
        [(":method", "GET"), (":scheme", "https"), (":authority", "site.example"), (":path", "/page")];
    let mut section = vec![0, 0];
    for (name, value) in lines.into_iter().chain(more) {
        match name.len().checked_sub(7) {
            Some(rest) => section.extend_from_slice(&[0x27, rest as u8]),
            None => section.push(0x20 | name.len() as u8),
        }
        section.extend_from_slice(name.as_bytes());
        section.push(value.len() as u8);
        section.extend_from_slice(value.as_bytes());
    }
    let length = (section.len() as u16 | 0x4000).to_be_bytes();
    [&[0x01][..], &length, &section].concat()
}

/// A page that nobody may keep without asking, with a header line of its own.
fn page(play: &mut Play, name: &str, value: &str) {
    play.origin(|o| {
        o.get("/page")
            .header("Content-Type", "text/html")
            .header("Link", "</a.css>; rel=preload; as=style")
            .header(name, value)
            .body("page")
    });
}

/// Whether the next visitor of the page is told to load something before it comes.
fn is_hinted(play: &mut Play, more: Option<(&str, &str)>) -> bool {
    let client = play.quic();
    client.say(&[0x00, 0x04, 0x00], false);
    let answer = client.ask(&ask(more));
    assert!(answer.ends_with(b"\x00\x04page"), "{answer:?}");
    begins_with_hints(&answer)
}

#[test]
fn the_next_visitor_who_waits_for_a_page_is_told_what_it_preloads() {
    let mut play = play();
    play.tls();
    page(&mut play, "Cache-Control", "no-cache");
    assert!(!is_hinted(&mut play, None), "nobody knows yet");
    page(&mut play, "Cache-Control", "no-cache");
    assert!(is_hinted(&mut play, None));
    page(&mut play, "Cache-Control", "no-cache");
    assert!(
        !is_hinted(&mut play, Some(("sec-fetch-mode", "cors"))),
        "a script that fetches it preloads nothing"
    );
    play.purge("everything");
    page(&mut play, "Cache-Control", "no-cache");
    assert!(!is_hinted(&mut play, None), "what it named may be gone");
}

#[test]
fn a_purge_of_something_else_leaves_what_is_known_of_a_page() {
    let mut play = play();
    play.tls();
    page(&mut play, "Surrogate-Key", "t");
    assert!(!is_hinted(&mut play, None), "nobody knows yet");
    for (purged, wanted) in [
        ("tag perigee-canary", true),
        ("tag t", false),
        ("url http://site.example/other", true),
        ("url http://site.example/page", false),
    ] {
        play.purge(purged);
        page(&mut play, "Surrogate-Key", "t");
        assert_eq!(is_hinted(&mut play, None), wanted, "{purged}");
    }
}

#[test]
fn nothing_is_told_of_pages_that_are_for_one_visitor() {
    for (name, value) in
        [("Cache-Control", "private"), ("Cache-Control", "no-store"), ("Set-Cookie", "session=1")]
    {
        let mut play = play();
        play.tls();
        for _ in 0..2 {
            page(&mut play, name, value);
            assert!(!is_hinted(&mut play, None), "{name}: {value}");
        }
    }
}

#[test]
fn a_site_may_want_no_hints() {
    let mut play = play();
    play.site("early_hints = false").tls();
    for _ in 0..2 {
        page(&mut play, "Cache-Control", "no-cache");
        assert!(!is_hinted(&mut play, None));
    }
}

#[test]
fn nothing_is_told_or_learnt_while_the_switch_is_off() {
    let mut play = play();
    play.tls();
    page(&mut play, "Cache-Control", "no-cache");
    assert!(!is_hinted(&mut play, None), "nobody knows yet");
    let config = play.config_text();
    for (switch, wanted) in [("true", true), ("false", false), ("true", true)] {
        play.reconfigure(&format!("[switches]\nearly_hints = {switch}\n{config}"));
        page(&mut play, "Cache-Control", "no-cache");
        assert_eq!(is_hinted(&mut play, None), wanted, "early_hints = {switch}");
    }
}
