//! What a client says outside the cache key never changes what other clients get, never gets an error stored for
//! them, and never makes the edge fetch from a host that the configuration does not name.

use world::play;
use world::play::{Play, speaks_http2};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// Headers by which frameworks have been made to answer for another URL, host, scheme or method.
const UNKEYED: [(&str, &str); 27] = [
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Scheme", "http"),
    ("X-Forwarded-Proto", "nonsense"),
    ("X-Forwarded-Port", "1"),
    ("X-Forwarded-Server", "evil.example"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Forwarded-For", "203.0.113.9\u{9}evil"),
    ("Forwarded", "for=evil;host=evil.example;proto=http"),
    ("X-Host", "evil.example"),
    ("X-HTTP-Host-Override", "evil.example"),
    ("X-Original-Host", "evil.example"),
    ("X-Original-URL", "/evil"),
    ("X-Rewrite-URL", "/evil"),
    ("X-Override-URL", "/evil"),
    ("X-HTTP-Method-Override", "POST"),
    ("X-HTTP-Method", "DELETE"),
    ("X-Method-Override", "HEAD"),
    ("X-Real-IP", "127.0.0.1"),
    ("True-Client-IP", "127.0.0.1"),
    ("Via", "1.1 evil"),
    ("Max-Forwards", "0"),
    ("TE", "trailers"),
    ("Proxy-Authorization", "Basic ZXZpbA=="),
    ("Content-Type", "text/evil"),
    ("Referer", "http://evil.example/"),
    ("User-Agent", "evil"),
    ("X-Oversized", "x"),
];

#[test]
fn a_header_outside_the_key_asks_for_the_same_stored_response() {
    let mut play = play();
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("for all"));
    play.client(|c| c.get("/a").expect(200).body("for all"));
    for (name, value) in UNKEYED {
        play.client(|c| c.get("/a").header(name, value).expect(200).body("for all").why("fresh"));
    }
}

#[test]
fn headers_that_rename_the_request_do_not_reach_the_origin() {
    let mut play = play();
    for name in [
        "X-Forwarded-Host",
        "X-Forwarded-Scheme",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X-Forwarded-Prefix",
        "X-Host",
        "X-Original-Host",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        play.origin(|o| o.get("/a").header("Cache-Control", "no-store").body("x"));
        play.client(|c| c.get("/a").header(name, "evil").expect(200));
        play.origin_last_saw(|seen| {
            let value = seen.head.field(name).unwrap_or_default();
            assert!(!value.contains("evil"), "{name}: {value} at the origin");
        });
    }
}

/// The origin answers `status` to a request with an odd header; somebody else then asks plainly.
fn error_for_odd_header(status: u16) -> Play {
    let mut play = play();
    play.origin(|o| {
        o.get("/a").reply(status).body("error");
        o.get("/a").header(FRESH.0, FRESH.1).body("good");
    });
    play.client(|c| c.get("/a").header("X-Odd", &"x".repeat(4000)).expect(status).body("error"));
    play
}

#[test]
fn an_error_that_an_odd_header_drew_from_the_origin_is_not_stored_for_others() {
    for status in [400, 403, 406, 408, 411, 412, 413, 415, 416, 417, 421, 429, 431, 500, 502, 503] {
        error_for_odd_header(status).client(|c| c.get("/a").expect(200).body("good"));
    }
}

/// Only a lifetime that the origin or `ttl_by_status` states makes an error last; a site's plain `ttl` does not.
#[test]
fn a_sites_ttl_does_not_make_errors_last() {
    for status in [400, 403, 405, 413, 414, 431, 500, 503] {
        let mut play = play();
        play.site("ttl = \"1h\"");
        play.origin(|o| {
            o.get("/a")
                .reply(status)
                .header("Last-Modified", "{now-100000}")
                .header("Cache-Control", "no-cache")
                .body("error");
            o.get("/a").body("good");
        });
        play.client(|c| {
            c.get("/a").header("X-Odd", "x").expect(status).body("error");
            c.get("/a").expect(200).body("good");
        });
    }
}

#[test]
fn refusals_of_the_edge_are_never_stored() {
    let mut play = play();
    play.client(|c| c.raw("GET /a HTTP/1.1\r\nHost: site.example\r\nX : y\r\n\r\n").status(400));
    play.client(|c| c.get("/a").header("X-Large", &"x".repeat(70_000)).expect(431));
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("good"));
    play.client(|c| c.get("/a").expect(200).body("good").why("absent"));
}

#[test]
fn a_body_on_get_is_not_stored_for_those_who_send_none() {
    let mut play = play();
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("with body"));
    play.client(|c| c.get("/a").with_body("select=evil").expect(200).body("with body"));
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("plain"));
    play.client(|c| c.get("/a").expect(200).body("plain"));
}

#[test]
fn connection_options_cannot_take_away_what_the_request_means() {
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "no-store").body("x");
    });
    play.client(|c| {
        let options = "close, Host, Cookie, Authorization, X-Forwarded-For, Content-Length, Cache-Control";
        c.get("/a").header("Connection", options).header("X-Forwarded-For", "203.0.113.9").expect(200)
    });
    play.origin_last_saw(|seen| {
        assert!(seen.head.fields.contains("host"), "{:?}", seen.head.fields);
        assert!(seen.head.fields.contains("x-forwarded-for"), "{:?}", seen.head.fields);
    });
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    if speaks_http2() {
        // There is no such field (RFC 9113 §8.2.2).
        return;
    }
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a").header(FRESH.0, FRESH.1).header("Connection", "X-Listed, close");
        let reply = reply
            .header("X-Listed", "1")
            .header("Keep-Alive", "timeout=1")
            .header("Proxy-Authenticate", "Basic");
        reply.header("Upgrade", "h2c").header("X-Kept", "1").body("x").close();
    });
    play.client(|c| {
        let asking =
            c.get("/a").header("Connection", "X-Mine, Upgrade, HTTP2-Settings").header("X-Mine", "1");
        let asking = asking.header("Upgrade", "h2c").header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA");
        let asking = asking
            .header("Keep-Alive", "timeout=1")
            .header("Proxy-Connection", "keep-alive")
            .header("TE", "gzip");
        asking
            .expect(200)
            .body("x")
            .no_header("X-Listed")
            .no_header("Proxy-Authenticate")
            .header("X-Kept", "1")
    });
    play.origin_last_saw(|seen| {
        for name in ["X-Mine", "Upgrade", "HTTP2-Settings", "Keep-Alive", "Proxy-Connection"] {
            seen.no_header(name);
        }
    });
    play.client(|c| {
        c.get("/a").expect(200).body("x").why("fresh").no_header("X-Listed").no_header("Upgrade")
    });
}

#[test]
fn a_host_that_no_site_names_is_refused_and_nothing_is_fetched() {
    let mut play = play();
    play.config("[[site]]\nname = \"site\"\ndomains = [\"site.example\"]\norigin = \"{origin}\"\n");
    play.client(|c| {
        for host in [
            "other.example",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "site.example.evil.example",
            "evil-site.example",
        ] {
            c.get("/a").host(host).expect_any().status_in(&[400, 404, 421]).why("unknown-site");
        }
    });
    play.origin_saw_nothing();
}

#[test]
fn neither_target_nor_host_chooses_the_origin() {
    let mut play = play();
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    play.origin(|o| o.on("*", "*").always().header("Cache-Control", "no-store").body("ours"));
    let there = format!("127.0.0.1:{port}");
    play.client(|c| {
        c.get("/a").host(&there).expect_any();
        c.raw(format!("GET http://{there}/a HTTP/1.1\r\nHost: {there}\r\n\r\n"));
        c.raw(format!("GET http://{there}/a HTTP/1.1\r\nHost: site.example\r\n\r\n"));
        c.raw(format!("GET //{there}/a HTTP/1.1\r\nHost: site.example\r\n\r\n"));
        c.raw(format!("GET /@{there}/a HTTP/1.1\r\nHost: site.example\r\n\r\n"));
        c.raw(format!("GET /../{there} HTTP/1.1\r\nHost: site.example\r\n\r\n"));
        c.raw(format!(
            "GET /a?url=http://{there}/ HTTP/1.1\r\nHost: site.example\r\nX-Forwarded-Host: {there}\r\n\r\n"
        ));
        c.raw(format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n"));
        c.raw(format!("GET https://{there}/a HTTP/1.1\r\nHost: {there}\r\n\r\n"));
    });
    assert!(elsewhere.accept().is_err(), "the edge connected to a host of the client's choice");
}

#[test]
fn an_absolute_target_that_contradicts_host_never_fills_the_cache_of_host() {
    let mut play = play();
    play.origin(|o| o.get("/a").always().header("Cache-Control", "no-store").body("other"));
    play.client(|c| {
        let answer = c.raw("GET http://other.example/a HTTP/1.1\r\nHost: site.example\r\n\r\n");
        answer.status_in(&[200, 400]);
    });
    play.origin(|o| {
        for seen in o.seen() {
            assert_ne!(seen.head.field("host").as_deref(), Some("site.example"), "{:?}", seen.head);
        }
    });
}

#[test]
fn two_hosts_of_one_site_never_share_a_response() {
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header(FRESH.0, FRESH.1).body("one");
        o.get("/a").header(FRESH.0, FRESH.1).body("two");
    });
    play.client(|c| {
        c.get("/a").host("one.example").expect(200).body("one");
        c.get("/a").host("two.example").expect(200).body("two");
        c.get("/a").host("ONE.example").expect(200).body("one").why("fresh");
    });
}

#[test]
fn different_spellings_never_share_what_the_origin_may_tell_apart() {
    let mut play = play();
    let targets = [
        "/a/b", "/a%2Fb", "/a//b", "/A/b", "/a/b/", "/a/b?", "/a/b?x", "/a/b?x=", "/a/b?X", "/a/b?x&y",
        "/a/b?y&x",
    ];
    play.origin(|o| {
        for target in targets {
            o.get(target).header(FRESH.0, FRESH.1).body(target);
        }
    });
    play.client(|c| {
        for target in targets {
            c.get(target).expect(200).body(target);
        }
        for target in targets {
            c.get(target).expect(200).body(target).why("fresh");
        }
    });
}

#[test]
fn dot_segments_never_store_one_path_under_another() {
    let mut play = play();
    play.origin(|o| o.on("GET", "*").always().header(FRESH.0, FRESH.1).body("dots"));
    play.client(|c| {
        for target in
            ["/static/../account", "/static/%2e%2e/account", "/static/..%2faccount", "/static/..\\account"]
        {
            c.raw(format!("GET {target} HTTP/1.1\r\nHost: site.example\r\n\r\n")).status_in(&[200, 400]);
        }
    });
    let before = std::cell::Cell::new(0);
    play.origin(|o| before.set(o.seen().len()));
    play.client(|c| c.get("/account").expect(200));
    play.origin_saw(before.get() + 1);
}

#[test]
fn a_request_that_has_been_here_before_is_refused() {
    let mut play = play();
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").body("x"));
    play.client(|c| c.get("/a").expect(200));
    let loop_value = std::cell::RefCell::new(String::new());
    play.origin_last_saw(|seen| {
        *loop_value.borrow_mut() = seen.head.field("cdn-loop").expect("CDN-Loop is sent")
    });
    play.client(|c| c.get("/a").header("CDN-Loop", &loop_value.borrow()).expect(508).why("loop"));
    play.origin_saw(1);
}

#[test]
fn the_error_page_does_not_repeat_the_request() {
    let mut play = play();
    play.client(|c| {
        let answer = c
            .raw("GET /<script>alert(1)</script> HTTP/1.1\r\nHost: site.example\r\n<script>: y\r\n\r\n")
            .status(400);
        assert!(!answer.text().contains("alert(1)"), "{}", answer.text());
    });
    play.origin_saw_nothing();
}

#[test]
fn what_a_rule_for_some_headers_stored_is_not_for_those_who_lack_them() {
    let mut play = play();
    play.site(
        "[[site.rule]]\npath = \"/*\"\nwith_header = { X-Beta = true }\norigin = \"{backup}\"\nttl = \"1m\"\n\
         [[site.rule]]\npath = \"/*\"\nttl = \"1m\"",
    );
    play.origin(|o| o.get("/a").body("everybody's"));
    play.backup(|o| o.get("/a").body("beta"));
    play.client(|c| {
        c.get("/a").header("X-Beta", "1").expect(200).body("beta");
        c.get("/a").expect(200).body("everybody's").why("absent");
        c.get("/a").header("X-Beta", "1").expect(200).body("beta").why("fresh");
        c.get("/a").expect(200).body("everybody's").why("fresh");
    });
}
