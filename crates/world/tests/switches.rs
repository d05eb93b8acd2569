//! What can be switched off for the whole cluster, each in both positions and while requests come; and whom nobody
//! serves. Early Hints are in `hints.rs`.

use bytes::Bytes;
use h2::client::SendRequest;
use world::play;
use world::play::{Play, content, speaks_http2, wait_for_copy, wait_until};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// Throws switches: `play`'s configuration with a table of them.
fn throw(play: &mut Play, switches: &str) {
    let config = format!("[switches]\n{switches}\n\n{}", play.config_text());
    play.reconfigure(&config);
}

/// Calls `look` with the switch on, off and on again.
fn in_both_positions(play: &mut Play, switch: &str, mut look: impl FnMut(&mut Play, bool)) {
    look(play, true);
    for is_on in [false, true] {
        throw(play, &format!("{switch} = {is_on}"));
        look(play, is_on);
    }
}

#[test]
fn http3_is_announced_and_taken_only_while_its_switch_is_on() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("one"));
    in_both_positions(&mut play, "http3", |play, is_on| {
        let answer = play.tls_ask("GET /a HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n");
        let told = answer.lines().find(|line| line.starts_with("Alt-Svc: ")).unwrap_or_default();
        assert_eq!(told.contains("h3="), is_on, "{answer}");
        assert_eq!(told == "Alt-Svc: clear", !is_on, "browsers are to forget it: {answer}");
        assert_eq!(play.takes_quic(), is_on);
    });
}

#[test]
fn a_connection_of_http3_ends_with_the_request_behind_the_switch() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("one"));
    let client = play.http3();
    client.get("/a").expect(200).body("one");
    throw(&mut play, "http3 = false");
    // What was on its way is answered; then it is over.
    wait_until("the connection to end", || {
        client.begin(http::Method::GET, "/a", &[], b"").try_wait().is_err()
    });
}

#[test]
fn http2_is_chosen_only_while_its_switch_is_on() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("one"));
    in_both_positions(&mut play, "http2", |play, is_on| {
        let chosen = play.chosen_protocol(&[b"h2", b"http/1.1"]).unwrap();
        assert_eq!(chosen, if is_on { &b"h2"[..] } else { b"http/1.1" });
        let answer = play.tls_ask("GET /a HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

#[test]
fn a_connection_of_http2_ends_with_the_request_behind_the_switch() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("one"));
    let client = play.http2();
    let ask = || {
        client.wait(async |requests: SendRequest<Bytes>| {
            let request = http::Request::get("https://site.example/a").body(()).unwrap();
            let (response, _) = requests.ready().await?.send_request(request, true)?;
            response.await.map(|response| response.status().as_u16())
        })
    };
    assert_eq!(ask().unwrap(), 200);
    throw(&mut play, "http2 = false");
    wait_until("the connection to end", || match ask() {
        Ok(status) => {
            assert_eq!(status, 200, "what was on its way is answered");
            false
        }
        Err(_) => true,
    });
}

#[test]
fn encoded_copies_are_made_and_sent_only_while_their_switch_is_on() {
    let mut play = play();
    let body = "a { color: red }\n".repeat(400);
    play.origin(|o| o.get("/a.css").header(FRESH.0, FRESH.1).header("Content-Type", "text/css").body(&body));
    in_both_positions(&mut play, "compress", |play, is_on| {
        let client = play.visitor();
        let coding = || {
            let answer = client.get("/a.css").header("Accept-Encoding", "gzip").expect(200);
            answer.response().head.field("content-encoding")
        };
        match is_on {
            true => wait_for_copy("an encoded copy", || coding().as_deref() == Some("gzip")),
            false => (0..3).for_each(|_| assert_eq!(coding(), None)),
        }
    });
}

#[test]
fn websocket_is_passed_on_only_while_its_switch_is_on() {
    let mut play = play();
    play.origin(|o| o.get("/chat").header("Cache-Control", "no-store").body("a page").always());
    in_both_positions(&mut play, "websocket", |play, is_on| {
        play.client(|c| {
            drop(
                c.raw(
                    "GET /chat HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                )
                .status(200)
                .body("a page"),
            );
        });
        play.origin_last_saw(|seen| {
            match is_on {
                true => seen.header("Upgrade", "websocket"),
                false => seen.no_header("Upgrade"),
            };
        });
    });
}

#[test]
fn disks_are_read_and_written_only_while_their_switch_is_on() {
    let mut play = play();
    // Memory holds hardly more than one of these.
    play.disk("1MiB");
    let paths = ["/a", "/b", "/c", "/d"];
    let body = |path: &str| content(path.len() as u64 + u64::from(path.as_bytes()[1]), 700_000);
    play.origin(|o| {
        for path in paths {
            o.get(path).header(FRESH.0, FRESH.1).body(body(path));
        }
    });
    for path in paths {
        play.client(|c| c.get(path).expect(200).body(body(path)).why("absent"));
    }
    play.written();
    let hits = |play: &mut Play| {
        let mut hits = 0;
        for path in paths {
            let answer = play.visitor().get(path).expect(200).body(body(path));
            let status = answer.response().head.field("cache-status").unwrap_or_default();
            hits += usize::from(status.contains("; hit"));
        }
        hits
    };
    assert_eq!(hits(&mut play), 4);
    throw(&mut play, "disk = false");
    // What was replaced meanwhile must not come back with the disk; what has not is as good as before.
    play.origin(|o| {
        for path in paths {
            o.get(path).header(FRESH.0, FRESH.1).body(body(path)).always();
        }
    });
    let written = play.disk_stats().filled;
    assert!(hits(&mut play) < 4, "memory alone cannot hold them");
    play.written();
    assert_eq!(play.disk_stats().filled, written, "nothing comes on the disk");
    throw(&mut play, "disk = true");
    hits(&mut play);
    play.written();
    assert_eq!(hits(&mut play), 4);
}

#[test]
fn what_is_purged_or_replaced_while_disks_are_off_does_not_come_back_with_them() {
    let mut play = play();
    play.disk("64MiB");
    play.origin(|o| {
        o.get("/purged").header(FRESH.0, FRESH.1).body("old");
        o.get("/replaced").header("Cache-Control", "max-age=1").body("old");
        o.get("/kept").header(FRESH.0, FRESH.1).body("old");
    });
    for path in ["/purged", "/replaced", "/kept"] {
        play.client(|c| c.get(path).expect(200).body("old"));
    }
    play.written();
    throw(&mut play, "disk = false");
    let url = format!("url {}://site.example/purged", world::play::scheme());
    play.purge(&url).pass_secs(2);
    play.origin(|o| {
        o.get("/purged").header(FRESH.0, FRESH.1).body("new");
        o.get("/replaced").header(FRESH.0, FRESH.1).body("new");
    });
    for (path, body) in [("/purged", "new"), ("/replaced", "new"), ("/kept", "old")] {
        play.client(|c| c.get(path).expect(200).body(body));
    }
    // The next process knows only what is on the disk.
    play.removals_are_written().restart();
    play.origin(|o| {
        o.get("/purged").header(FRESH.0, FRESH.1).body("new");
        o.get("/replaced").header(FRESH.0, FRESH.1).body("new");
    });
    for (path, body, why) in
        [("/purged", "new", "purged"), ("/replaced", "new", "absent"), ("/kept", "old", "fresh")]
    {
        play.client(|c| c.get(path).expect(200).body(body).why_in(&[why, "absent"]));
    }
}

#[test]
fn whoever_is_on_the_block_list_is_refused_before_anything_else() {
    let mut play = play();
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("one"));
    play.client(|c| c.get("/a").expect(200).body("one").why("absent"));
    let site = play.config_text();
    play.reconfigure(&format!("block = [\"127.0.0.0/8\", \"2001:db8::/32\"]\n{site}"));
    play.client(|c| {
        c.get("/a").expect(403).why("blocked").header("Cache-Control", "no-store");
        c.get("/absent").expect(403).why("blocked");
        c.post("/a").with_body("x").expect(403).why("blocked");
        c.get("/a").host("nobody.example").expect(403).why("blocked")
    });
    play.reconfigure(&format!("block = \"127.0.0.2\"\n{site}"));
    play.client(|c| c.get("/a").expect(200).body("one").why("fresh"));
    play.origin_saw(1);
}

#[test]
fn the_client_that_a_trusted_proxy_names_is_the_one_that_is_blocked() {
    if speaks_http2() {
        return;
    }
    let mut play = play();
    let config = format!(
        "block = \"203.0.113.0/24\"\n[edge]\ntrusted_proxies = [\"127.0.0.1\"]\n{}",
        play.config_text()
    );
    play.config(&config);
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("one"));
    play.client(|c| {
        c.get("/a").header("X-Forwarded-For", "203.0.113.9").expect(403).why("blocked");
        c.get("/a").header("X-Forwarded-For", "203.0.114.9").expect(200).body("one")
    });
}
