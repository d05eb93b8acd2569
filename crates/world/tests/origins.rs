//! The way to the origins and the visitors' way in: fail-over, what is retried, what the origin is told, forwarded
//! addresses, PROXY protocol, reconfiguration.

use world::play::{Play, scheme, speaks_http2};
use world::{Gate, play};

fn two_origins() -> Play {
    let mut play = play();
    play.config("[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = [\"{origin}\", \"{backup}\"]\n");
    play
}

#[test]
fn the_second_origin_answers_when_the_first_fails() {
    for status in [500, 502, 503, 504] {
        two_origins()
            .origin(|o| o.get("/a").reply(status).body("broken"))
            .backup(|o| o.get("/a").header("Cache-Control", "max-age=60").body("from the second"))
            .client(|c| {
                c.get("/a").expect(200).body("from the second");
                c.get("/a").expect(200).body("from the second").why("fresh");
            });
    }
}

#[test]
fn the_second_origin_answers_when_the_first_closes_or_cannot_be_reached() {
    two_origins()
        .origin(|o| o.get("/a").always().close())
        .backup(|o| o.get("/a").body("from the second"))
        .client(|c| c.get("/a").expect(200).body("from the second"));
    play()
        .config("[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = [\"{nowhere}\", \"{backup}\"]\n")
        .backup(|o| o.get("/a").body("from the second"))
        .client(|c| c.get("/a").expect(200).body("from the second"));
}

#[test]
fn an_ordinary_error_is_an_answer_and_no_reason_to_ask_elsewhere() {
    for status in [400, 403, 404, 410, 501] {
        two_origins()
            .origin(|o| o.get("/a").reply(status).body("no"))
            .client(|c| c.get("/a").expect(status).body("no"));
    }
}

#[test]
fn a_request_that_changes_things_is_never_sent_twice() {
    two_origins()
        .origin(|o| o.post("/a").close())
        .client(|c| c.post("/a").with_body("x").expect_any().status_in(&[502]));
    two_origins()
        .origin(|o| o.post("/a").reply(503).body("broken"))
        .client(|c| c.post("/a").with_body("x").expect(503).body("broken"));
}

#[test]
fn an_answer_that_breaks_off_is_not_glued_to_another_origins() {
    let gate = Gate::new();
    let mut play = two_origins();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=60").part("first ").hold(&gate).close();
    });
    let mut talk = play.visitor().get("/a").begin();
    let head = talk.expect_head(200);
    talk.expect_part(&head, "first ");
    gate.open();
    talk.finish(&head).cut();
}

#[test]
fn a_connection_that_the_origin_closed_between_requests_costs_no_error() {
    let mut play = play();
    play.origin(|o| {
        // Keep-alive is promised, and the connection closed all the same.
        o.get("/1").raw("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 1\r\n\r\n1").close();
        o.get("/2").header("Cache-Control", "no-store").body("2");
    });
    play.client(|c| {
        c.get("/1").expect(200).body("1");
        c.get("/2").expect(200).body("2");
    });
}

#[test]
fn connections_to_the_origin_are_used_again() {
    let mut play = play();
    play.site("[[site.rule]]\npath = \"*\"\ncache = false\n");
    play.origin(|o| o.get("/a").always().body("x"));
    for _ in 0..20 {
        play.client(|c| c.get("/a").expect(200).body("x"));
    }
    // One idle connection per worker is enough for clients that come one by one.
    play.origin(|o| assert!(o.connections() <= 4, "{} connections for 20 requests", o.connections()));
}

#[test]
fn the_origin_is_told_who_asks_and_by_which_way() {
    let mut play = play();
    play.origin(|o| o.get("/a?b=c").header("Cache-Control", "no-store").body("x"));
    play.client(|c| c.get("/a?b=c").host("Shop.Example:8080").header("X-Mine", "1").expect(200));
    play.origin_last_saw(|seen| {
        assert_eq!(seen.head.line, "GET /a?b=c HTTP/1.1");
        assert_eq!(
            seen.head.field("host").map(|host| host.to_ascii_lowercase()).as_deref(),
            Some("shop.example:8080")
        );
        seen.header("x-mine", "1")
            .header("x-forwarded-for", "127.0.0.1")
            .header("x-forwarded-proto", scheme());
        let received = if speaks_http2() { "2.0 " } else { "1.1 " };
        assert!(seen.head.field("via").is_some_and(|via| via.starts_with(received)), "{:?}", seen.head);
        assert!(seen.head.field("cdn-loop").is_some(), "{:?}", seen.head);
    });
}

#[test]
fn an_untrusted_visitor_cannot_say_who_it_is() {
    let mut play = play();
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").body("x"));
    play.client(|c| {
        let other = if scheme() == "http" { "https" } else { "http" };
        c.get("/a").header("X-Forwarded-For", "203.0.113.9").header("X-Forwarded-Proto", other).expect(200)
    });
    play.origin_last_saw(|seen| {
        seen.header("x-forwarded-proto", scheme());
        let last = seen.head.field("x-forwarded-for").unwrap_or_default();
        assert!(last.ends_with("127.0.0.1"), "{last}");
    });
}

#[test]
fn a_host_override_and_a_path_prefix_change_what_the_origin_is_asked() {
    let mut play = play();
    play.config(
        "[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}/base\"\n\
         origin_options = { host = \"inner.example\", request_headers = { set = { X-Secret = \"s\" } } }\n",
    );
    play.origin(|o| {
        let reply = o.get("/base/a").expecting("Host", "inner.example").expecting("X-Secret", "s");
        reply.header("Cache-Control", "max-age=60").body("x");
    });
    play.client(|c| {
        c.get("/a").header("X-Secret", "guess").expect(200).body("x");
        c.get("/a").expect(200).body("x").why("fresh").no_header("X-Secret");
    });
}

// --- PROXY protocol ---

fn behind_proxy() -> Play {
    let mut play = play();
    play.config(
        "[edge]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
         [[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\n",
    );
    play
}

const ASK: &[u8] = b"GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n";

#[test]
fn a_visitors_address_comes_from_the_proxy_header() {
    let v2 =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\x7f\0\0\x01\x30\x39\0\x50"[..], ASK].concat();
    let v1 = [&b"PROXY TCP4 203.0.113.9 127.0.0.1 12345 80\r\n"[..], ASK].concat();
    for bytes in [v1, v2] {
        let mut play = behind_proxy();
        play.origin(|o| o.get("/a").header("Cache-Control", "no-store").body("x"));
        play.client(|c| c.raw(&bytes).status(200).body("x"));
        play.origin_last_saw(|seen| {
            let forwarded = seen.head.field("x-forwarded-for").unwrap_or_default();
            assert!(forwarded.ends_with("203.0.113.9"), "{forwarded}");
        });
    }
}

#[test]
fn a_visitor_behind_a_proxy_header_cannot_claim_another_address() {
    let mut play = behind_proxy();
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").body("x"));
    let forged = "PROXY TCP4 203.0.113.9 127.0.0.1 12345 80\r\nGET /a HTTP/1.1\r\nHost: site.example\r\n\
                  X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\n\r\n";
    play.client(|c| c.raw(forged).status(200).body("x"));
    play.origin_last_saw(|seen| {
        assert_eq!(seen.head.field("x-forwarded-for").as_deref(), Some("203.0.113.9"));
        assert_eq!(seen.head.field("x-forwarded-proto").as_deref(), Some("http"));
    });
}

#[test]
fn a_health_check_of_the_proxy_itself_keeps_the_sockets_address() {
    let mut play = behind_proxy();
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").body("x"));
    let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], ASK].concat();
    play.client(|c| c.raw(&local).status(200).body("x"));
    play.origin_last_saw(|seen| {
        let forwarded = seen.head.field("x-forwarded-for").unwrap_or_default();
        assert!(forwarded.ends_with("127.0.0.1"), "{forwarded}");
    });
}

#[test]
fn a_missing_or_broken_proxy_header_ends_the_connection() {
    let with = |header: &[u8]| [header, ASK].concat();
    for (name, bytes) in [
        ("none", ASK.to_vec()),
        ("an address that is none", with(b"PROXY TCP4 nonsense 127.0.0.1 1 80\r\n")),
        ("an address of the other family", with(b"PROXY TCP4 ::1 ::1 1 80\r\n")),
        ("a port out of range", with(b"PROXY TCP4 203.0.113.9 127.0.0.1 99999 80\r\n")),
        ("a word too few", with(b"PROXY TCP4 203.0.113.9 127.0.0.1 1\r\n")),
        ("a line that ends with LF alone", with(b"PROXY TCP4 203.0.113.9 127.0.0.1 1 80\n")),
        ("a line too long", with(format!("PROXY TCP4 {}\r\n", "1".repeat(200)).as_bytes())),
        ("version 3", with(b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\xcb\0\x71\x09\x7f\0\0\x01\x30\x39\0\x50")),
        ("a block too short", with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\xcb\0\x71\x09")),
    ] {
        let mut play = behind_proxy();
        play.origin(|o| {
            o.get("/a").always().header("Cache-Control", "no-store").header("Connection", "close").body("x")
        });
        let mut talk = play.visitor().connect();
        talk.say(&bytes);
        if let Some(answer) = talk.rest_or_response() {
            assert_eq!(answer.response().head.status(), 400, "{name}");
        }
        play.origin(|o| assert!(o.received().is_empty(), "{name}: the origin was asked"));
    }
}

// --- Reconfiguration ---

#[test]
fn a_new_configuration_holds_for_requests_that_begin_after_it() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| o.get("/old").hold(&gate).header("Cache-Control", "no-store").body("old"));
    let mut under_way = play.visitor().get("/old").begin();
    gate.wait_reached();
    play.reconfigure(
        "[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{backup}\"\nresponse_headers = { set = { X-New = \"1\" } }\n",
    );
    play.backup(|o| o.get("/new").header("Cache-Control", "no-store").body("new"));
    play.client(|c| c.get("/new").expect(200).body("new").header("X-New", "1"));
    gate.open();
    under_way.expect(200).body("old").no_header("X-New");
}

#[test]
fn what_is_stored_survives_a_new_configuration() {
    let mut play = play();
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body("one"));
    play.client(|c| c.get("/a").expect(200).body("one"));
    play.reconfigure(
        "[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\nbrowser_ttl = \"5s\"\n",
    );
    play.client(|c| c.get("/a").expect(200).body("one").why("fresh").header("Cache-Control", "max-age=5"));
}

#[test]
fn options_go_no_further_than_max_forwards_lets_them() {
    let mut play = play();
    play.origin(|o| o.on("OPTIONS", "/a").expecting("Max-Forwards", "1").reply(200).body("for OPTIONS"));
    play.client(|c| {
        c.ask("OPTIONS", "/a").header("Max-Forwards", "2").expect(200).body("for OPTIONS").why("method");
        c.ask("OPTIONS", "/a").header("Max-Forwards", "0").expect(204).why("preflight");
    });
    play.origin_saw(1);
}
