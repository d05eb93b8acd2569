//! A real Chromium visits a real server. Skipped, with a word, where no Chromium is installed.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use browser::{Browser, Options};

const PATIENCE: Duration = Duration::from_secs(60);

/// Serves a page of three resources, one of which is not there, until the test ends.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let target = head.split(' ').nth(1).unwrap_or("/").to_owned();
                let (status, kind, body) = match &*target {
                    "/" => (
                        "200 OK",
                        "text/html",
                        "<!doctype html><link rel=stylesheet href=/a.css><h1>Hello, visitor</h1><script src=/gone.js></script>",
                    ),
                    "/framed" => {
                        ("200 OK", "text/html", "<!doctype html><h1>Hello</h1><iframe src=/gone></iframe>")
                    }
                    "/hanging" => ("200 OK", "text/html", "<!doctype html><h1>Hello</h1><img src=/hang.png>"),
                    "/told" => (
                        "200 OK",
                        "text/html",
                        "<!doctype html><h1>Hello</h1><script>new EventSource('/events')</script>",
                    ),
                    "/events" | "/hang.png" => {
                        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
                        // Until the browser has had enough.
                        let _ = stream.read(&mut byte);
                        return;
                    }
                    "/old" => ("302 Found", "text/plain", ""),
                    "/a.css" => ("200 OK", "text/css", "h1 { font-size: 5em }"),
                    _ => ("404 Not Found", "text/plain", "no"),
                };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nLocation: /\r\n\
                     Cache-Control: max-age=60\r\nCache-Status: test; hit\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            });
        }
    });
    address
}

/// Gives `test` a browser for which `shop.test` is [`serve`]'s, if one is installed.
fn with_browser(test: impl AsyncFnOnce(&Browser)) {
    if browser::find().is_none() {
        eprintln!("no Chromium is installed: nothing was tested");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options { hosts: vec![("shop.test".into(), serve())], ..Options::default() };
        let browser = Browser::launch(&options).await.unwrap();
        test(&browser).await;
        browser.close().await;
    });
}

#[test]
fn a_visit_tells_requests_paints_and_what_the_next_one_spares() {
    with_browser(async |browser| {
        assert!(browser.version().contains('/'), "{}", browser.version());
        let mut page = browser.new_page().await.unwrap();
        let visit = page.visit("http://shop.test/old", PATIENCE).await.unwrap();
        let statuses: Vec<_> = visit
            .exchanges
            .iter()
            .filter(|one| !one.url.ends_with("favicon.ico"))
            .map(|one| (&*one.kind, one.status))
            .collect();
        assert_eq!(statuses, [("Document", 302), ("Document", 200), ("Stylesheet", 200), ("Script", 404)]);
        assert!(visit.is_complete);
        let document = &visit.exchanges[1];
        assert_eq!(document.field("cache-status"), Some("test; hit"));
        assert!(document.bytes > 100 && document.end_ms.unwrap() >= document.start_ms, "{document:?}");
        let (fcp, lcp) = (visit.fcp_ms.unwrap(), visit.lcp.clone().unwrap());
        let (ttfb, load) = (visit.ttfb_ms.unwrap(), visit.load_ms.unwrap());
        assert!(ttfb > 0.0 && load >= ttfb && fcp >= ttfb && lcp.at_ms >= ttfb, "{visit:?}");
        assert_eq!(lcp.what, "h1");

        let again = page.visit("http://shop.test/", PATIENCE).await.unwrap();
        let style = again.exchanges.iter().find(|one| one.kind == "Stylesheet").unwrap();
        assert!(style.is_from_cache, "{style:?}");
        page.close().await.unwrap();

        let mut fresh = browser.new_page().await.unwrap();
        let visit = fresh.visit("http://shop.test/", PATIENCE).await.unwrap();
        assert!(visit.exchanges.iter().all(|one| !one.is_from_cache));
        let refused = fresh.visit("http://127.0.0.1:1/", PATIENCE).await.unwrap();
        assert!(refused.exchanges[0].failure.as_deref().unwrap().starts_with("net::"), "{refused:?}");
        assert!(fresh.evaluate("nothing.at.all").await.is_err());
    });
}

#[test]
fn what_never_ends_has_no_time_and_frames_are_not_the_page() {
    with_browser(async |browser| {
        let mut page = browser.new_page().await.unwrap();
        let visit = page.visit("http://shop.test/framed", PATIENCE).await.unwrap();
        assert!(visit.exchanges.iter().any(|one| one.url.ends_with("/gone") && one.status == 404));
        let document = visit.document().unwrap();
        assert_eq!((&*document.url, document.status), ("http://shop.test/framed", 200));

        let visit = page.visit("http://shop.test/told", PATIENCE).await.unwrap();
        assert!(
            visit.is_complete && visit.load_ms.is_some(),
            "an EventSource is open, and no more is to come"
        );
        assert!(
            visit.exchanges.iter().any(|one| one.kind == "EventSource" && one.status == 200),
            "{visit:?}"
        );

        let visit = page.visit("http://shop.test/hanging", Duration::from_secs(2)).await.unwrap();
        assert!(!visit.is_complete && visit.ttfb_ms.is_some());
        assert_eq!(visit.load_ms, None, "the page has not loaded");
        page.close().await.unwrap();
    });
}

#[test]
fn a_film_shows_what_was_to_be_seen_and_measures_the_same() {
    with_browser(async |browser| {
        let mut page = browser.new_page().await.unwrap();
        let (visit, frames) = page.film("http://shop.test/", PATIENCE).await.unwrap();
        assert!(visit.is_complete && visit.fcp_ms.is_some(), "{visit:?}");
        assert!(frames.is_sorted_by_key(|frame| frame.at_ms) && !frames.is_empty());
        // JPEGs begin with FF D8 FF.
        assert!(frames.iter().all(|frame| frame.jpeg.starts_with("/9j/") && frame.jpeg.len() < 100_000));
        let (_, none) = page.film("http://gone.test/", PATIENCE).await.unwrap();
        assert!(none.is_empty(), "what cannot be had shows nothing");
    });
}
