//! What is shared and what never is: private answers, cookies, credentials, variants; HEAD and interim responses;
//! invalidation by requests that change things. RFC 9111 §3, §3.5, §4.1, §4.3.5, §4.4; RFC 9110 §9.3.2, §15.2.

use world::play::{Play, wait_until};
use world::{Gate, play};

/// The first answer carries these lines, to a request with those; a second client asks plainly.
#[track_caller]
fn check_shared(site: &str, request: &[(&str, &str)], response: &[(&str, &str)], shared: bool) {
    let mut play = play();
    play.site(site).origin(|o| {
        let mut reply = o.get("/a");
        for (name, value) in response {
            reply = reply.header(name, value);
        }
        reply.body("first");
        if !shared {
            o.get("/a").header("Cache-Control", "no-store").body("second");
        }
    });
    play.client(|c| {
        let mut asking = c.get("/a");
        for (name, value) in request {
            asking = asking.header(name, value);
        }
        asking.expect(200).body("first");
        let second = c.get("/a").expect_any().text();
        let wanted = if shared { "first" } else { "second" };
        assert_eq!(second, wanted, "site: {site:?}, request: {request:?}, response: {response:?}");
    });
}

#[test]
fn nothing_private_is_shared() {
    for value in ["private", "private, max-age=60", "max-age=60, private", "no-store", "PRIVATE, s-maxage=60"]
    {
        check_shared("", &[], &[("Cache-Control", value)], false);
    }
}

#[test]
fn a_cookie_is_shared_only_when_the_origin_says_that_the_response_is_for_all() {
    let cookie = ("Set-Cookie", "session=1");
    for (site, lines, shared) in [
        ("", &[("Cache-Control", "max-age=60"), cookie][..], false),
        ("", &[("Expires", "{now+60}"), cookie], false),
        ("ttl = \"1h\"", &[cookie], false),
        ("", &[("Cache-Control", "public, max-age=60"), cookie], true),
        ("", &[("Cache-Control", "s-maxage=60"), cookie], true),
        ("", &[("CDN-Cache-Control", "max-age=60"), cookie], true),
        ("set_cookie = \"rfc9111\"", &[("Cache-Control", "max-age=60"), cookie], true),
        ("set_cookie = \"strip\"", &[("Cache-Control", "max-age=60"), cookie], true),
        ("", &[("Cache-Control", "private, max-age=60"), cookie], false),
        ("set_cookie = \"rfc9111\"", &[("Cache-Control", "private, max-age=60"), cookie], false),
    ] {
        check_shared(site, &[], lines, shared);
    }
}

#[test]
fn a_stripped_cookie_reaches_only_the_client_whose_request_drew_it() {
    let gate = Gate::new();
    let mut play = play();
    play.site("set_cookie = \"strip\"");
    play.origin(|o| {
        let reply =
            o.get("/a").hold(&gate).header("Cache-Control", "max-age=60").header("Set-Cookie", "session=1");
        reply.body("x");
    });
    let client = play.visitor();
    let mut first = client.get("/a").begin();
    gate.wait_reached();
    let mut followers: Vec<_> = (0..5).map(|_| client.get("/a").begin()).collect();
    gate.open();
    first.expect(200).body("x").header("Set-Cookie", "session=1");
    for follower in &mut followers {
        follower.expect(200).body("x").no_header("Set-Cookie");
    }
    client.get("/a").expect(200).body("x").why("fresh").no_header("Set-Cookie");
    play.origin_saw(1);
}

#[test]
fn an_answer_to_credentials_is_shared_only_when_the_origin_or_a_rule_says_so() {
    let credentials = &[("Authorization", "Basic dTpw")];
    for (site, lines, shared) in [
        ("", &[("Cache-Control", "max-age=60")][..], false),
        ("", &[("Expires", "{now+60}")], false),
        ("", &[("Cache-Control", "public, max-age=60")], true),
        ("", &[("Cache-Control", "s-maxage=60")], true),
        ("", &[("Cache-Control", "must-revalidate, max-age=60")], true),
        // A targeted field means what it says, and a bare max-age is no permission (RFC 9111 §3.5, RFC 9213 §2.2).
        ("", &[("CDN-Cache-Control", "max-age=60")], false),
        ("", &[("CDN-Cache-Control", "public, max-age=60")], true),
        ("share_authorized = true", &[("Cache-Control", "max-age=60")], true),
        ("share_authorized = true", &[("Cache-Control", "private, max-age=60")], false),
    ] {
        check_shared(site, credentials, lines, shared);
    }
}

#[test]
fn a_private_answer_never_becomes_stale_for_somebody_else() {
    play()
        .origin(|o| {
            o.get("/a").header("Cache-Control", "private, max-age=60, stale-if-error=600").body("mine")
        })
        .client(|c| c.get("/a").header("Cookie", "session=1").expect(200).body("mine"))
        .origin(|o| o.get("/a").always().reply(503).body("broken"))
        .client(|c| c.get("/a").expect(503).body("broken"));
}

// --- Vary ---

#[test]
fn variants_are_kept_apart_by_what_vary_names() {
    play()
        .origin(|o| {
            for agent in ["one", "two"] {
                let reply = o.get("/a").expecting("User-Agent", agent).header("Cache-Control", "max-age=60");
                reply.header("Vary", "User-Agent").body(format!("for {agent}"));
            }
            let reply = o.get("/a").expecting_no("User-Agent").header("Cache-Control", "max-age=60");
            reply.header("Vary", "User-Agent").body("for none");
        })
        .client(|c| {
            c.get("/a").header("User-Agent", "one").expect(200).body("for one").why("absent");
            c.get("/a").header("User-Agent", "two").expect(200).body("for two").why("variant");
            c.get("/a").expect(200).body("for none").why("variant");
            c.get("/a").header("User-Agent", "one").expect(200).body("for one").why("fresh");
            c.get("/a").header("User-Agent", "two").expect(200).body("for two").why("fresh");
            c.get("/a").expect(200).body("for none").why("fresh");
        });
}

#[test]
fn a_response_that_varies_by_everything_is_not_stored() {
    for vary in ["*", "Accept, *", "*, Accept"] {
        check_shared("", &[], &[("Cache-Control", "max-age=60"), ("Vary", vary)], false);
    }
}

#[test]
fn spellings_of_accept_encoding_that_mean_the_same_are_one_variant() {
    play()
        .origin(|o| {
            let reply = o.get("/a").header("Cache-Control", "max-age=60").header("Vary", "Accept-Encoding");
            reply.header("Content-Encoding", "gzip").body("zipped");
            let reply = o.get("/a").header("Cache-Control", "max-age=60").header("Vary", "Accept-Encoding");
            reply.body("plain");
        })
        .client(|c| {
            c.get("/a").header("Accept-Encoding", "gzip").expect(200).body("zipped");
            for same in ["GZIP", "gzip;q=1.0", " gzip ", "gzip, identity"] {
                c.get("/a").header("Accept-Encoding", same).expect(200).body("zipped").why("fresh");
            }
            c.get("/a").expect(200).body("plain").why("variant");
            c.get("/a").header("Accept-Encoding", "gzip;q=0").expect(200).body("plain").why("fresh");
        });
}

#[test]
fn a_later_answer_may_vary_by_more_than_an_earlier_one() {
    play()
        .origin(|o| {
            o.get("/a").header("Cache-Control", "max-age=10").body("for all");
            let reply = o.get("/a").header("Cache-Control", "max-age=60").header("Vary", "X-Kind");
            reply.body("kind one");
            let reply = o.get("/a").header("Cache-Control", "max-age=60").header("Vary", "X-Kind");
            reply.body("kind two");
        })
        .client(|c| c.get("/a").header("X-Kind", "2").expect(200).body("for all"))
        .pass_secs(11)
        .client(|c| {
            c.get("/a").header("X-Kind", "1").expect(200).body("kind one");
            c.get("/a").header("X-Kind", "2").expect(200).body("kind two");
            c.get("/a").header("X-Kind", "1").expect(200).body("kind one").why("fresh");
        });
}

#[test]
fn cross_origin_reading_of_static_files_is_not_keyed_on_who_reads() {
    play()
        .origin(|o| {
            let reply =
                o.get("/a.css").header("Cache-Control", "max-age=60").header("Content-Type", "text/css");
            reply.body("a{}");
        })
        .client(|c| {
            for origin in ["https://one.example", "https://two.example"] {
                let answer = c.get("/a.css").header("Origin", origin).expect(200).body("a{}");
                answer.header("Access-Control-Allow-Origin", "*").header("Timing-Allow-Origin", "*");
            }
            c.get("/a.css").expect(200).body("a{}").why("fresh");
        });
}

// --- HEAD, interim responses ---

#[test]
fn head_is_answered_from_a_stored_get() {
    play()
        .origin(|o| o.get("/a").header("Cache-Control", "max-age=60").header("ETag", "\"1\"").body("one"))
        .client(|c| {
            c.get("/a").expect(200).body("one");
            let answer = c.head("/a").expect(200).body("").why("fresh");
            answer.header("Content-Length", "3").header("ETag", "\"1\"");
        });
}

#[test]
fn head_is_told_the_length_that_get_would_have() {
    play()
        .origin(|o| {
            o.on("*", "/a").header("Cache-Control", "max-age=60").header("Content-Length", "3").part("one");
        })
        .client(|c| c.head("/a").expect(200).body("").header("Content-Length", "3"));
}

#[test]
fn the_answer_to_head_never_becomes_the_body_of_get() {
    play()
        .origin(|o| {
            o.on("*", "/a").header("Cache-Control", "max-age=60").header("Content-Length", "3").part("one");
        })
        .client(|c| c.head("/a").expect(200).body(""))
        .origin(|o| o.get("/a").always().header("Cache-Control", "max-age=60").body("one"))
        .client(|c| {
            c.get("/a").expect(200).body("one");
            c.get("/a").expect(200).body("one").why("fresh");
        });
}

#[test]
fn interim_responses_pass_through_and_are_not_stored() {
    play()
        .origin(|o| {
            let reply =
                o.get("/a").interim(103, "Link: </a.css>; rel=preload; as=style\r\n").interim(102, "");
            reply.header("Cache-Control", "max-age=60").body("one");
        })
        .client(|c| {
            let answer = c.get("/a").expect(200).body("one").interim(&[103, 102]).no_header("Link");
            let hints = &answer.response().interim[0];
            assert_eq!(hints.field("link").as_deref(), Some("</a.css>; rel=preload; as=style"));
            c.get("/a").expect(200).body("one").interim(&[]).why("fresh").no_header("Link");
        });
}

#[test]
fn a_client_of_http_1_0_gets_no_interim_responses_and_no_chunks() {
    play()
        .origin(|o| {
            let reply = o
                .get("/a")
                .interim(103, "Link: </a.css>; rel=preload\r\n")
                .header("Cache-Control", "no-store");
            reply.part("one, ").part("two");
        })
        .client(|c| {
            let answer = c.raw("GET /a HTTP/1.0\r\nHost: site.example\r\n\r\n").status(200).interim(&[]);
            answer.body("one, two").no_header("Transfer-Encoding");
        });
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let mut play = play();
    play.origin(|o| o.post("/a").header("Cache-Control", "no-store").body("taken"));
    let mut talk = play.visitor().connect();
    talk.say("POST /a HTTP/1.1\r\nHost: site.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    talk.expect_head(100);
    talk.say("hello");
    talk.expect(200).body("taken");
    play.origin_last_saw(|seen| assert_eq!(seen.body.bytes, b"hello"));
}

// --- Invalidation ---

#[test]
fn a_request_that_changes_a_url_makes_what_is_stored_of_it_stale() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
        play()
            .origin(|o| {
                o.get("/a").header("Cache-Control", "max-age=3600").body("old");
                o.on(method, "/a").reply(200).body("done");
                o.get("/a").header("Cache-Control", "max-age=3600").body("new");
            })
            .client(|c| {
                c.get("/a").expect(200).body("old");
                c.ask(method, "/a").with_body("x").expect(200).body("done");
                c.get("/a").expect(200).body("new");
            });
    }
}

#[test]
fn a_change_that_failed_leaves_what_is_stored() {
    for status in [400, 403, 404, 500, 503] {
        play()
            .origin(|o| {
                o.get("/a").header("Cache-Control", "max-age=3600").body("old");
                o.post("/a").reply(status).body("no");
            })
            .client(|c| {
                c.get("/a").expect(200).body("old");
                c.post("/a").with_body("x").expect(status).body("no");
                c.get("/a").expect(200).body("old").why("fresh");
            });
    }
}

#[test]
fn a_change_reaches_the_locations_that_its_answer_names_on_the_same_host_only() {
    play()
        .origin(|o| {
            for text in ["/list", "/item", "/other"] {
                o.get(text).header("Cache-Control", "max-age=3600").body(format!("old {text}"));
            }
            let reply = o.post("/form").reply(201).header("Location", "http://site.example/item");
            reply.header("Content-Location", "/list").body("done");
            o.post("/form").reply(201).header("Location", "http://elsewhere.example/other").body("done");
            for text in ["/list", "/item"] {
                o.get(text).header("Cache-Control", "max-age=3600").body(format!("new {text}"));
            }
        })
        .client(|c| {
            for target in ["/list", "/item", "/other"] {
                c.get(target).expect(200).body(format!("old {target}"));
            }
            c.post("/form").with_body("x").expect(201);
            c.post("/form").with_body("x").expect(201);
            for target in ["/list", "/item"] {
                c.get(target).expect(200).body(format!("new {target}"));
            }
            c.get("/other").expect(200).body("old /other").why("fresh");
        });
}

#[test]
fn a_cache_group_goes_together() {
    play()
        .origin(|o| {
            o.get("/a")
                .header("Cache-Control", "max-age=3600")
                .header("Cache-Groups", "\"scripts\"")
                .body("old a");
            o.get("/b")
                .header("Cache-Control", "max-age=3600")
                .header("Cache-Groups", "\"styles\"")
                .body("old b");
            o.post("/deploy").reply(200).header("Cache-Group-Invalidation", "\"scripts\"").body("done");
            o.get("/a").header("Cache-Control", "max-age=3600").body("new a");
        })
        .client(|c| {
            c.get("/a").expect(200).body("old a");
            c.get("/b").expect(200).body("old b");
            c.post("/deploy").with_body("x").expect(200);
            c.get("/a").expect(200).body("new a");
            c.get("/b").expect(200).body("old b").why("fresh");
        });
}

#[test]
fn hits_of_what_may_be_one_visitors_are_counted() {
    let mut play = play();
    play.site("set_cookie = \"rfc9111\"");
    let count = |play: &mut Play| {
        let text = play.handle().registry().render();
        let line = text.lines().find(|line| line.starts_with("perigee_personal_hits_total{site=\"site\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    play.origin(|o| {
        o.get("/plain").header("Cache-Control", "max-age=60").body("x");
        o.get("/cookie").header("Cache-Control", "max-age=60").header("Set-Cookie", "session=1").body("x");
        o.get("/known").header("Cache-Control", "public, max-age=60").header("ETag", "\"1\"").body("x");
    });
    play.client(|c| {
        for path in ["/plain", "/cookie", "/known"] {
            let asking = c.get(path);
            match path {
                "/known" => asking.header("Authorization", "Basic eDp5").expect(200),
                _ => asking.expect(200),
            };
        }
    });
    assert_eq!(count(&mut play), 0, "whoever fetches it gets what is theirs");
    play.client(|c| drop(c.get("/plain").expect(200).why("fresh")));
    play.client(|c| drop(c.get("/cookie").expect(200).why("fresh").header("Set-Cookie", "session=1")));
    wait_until("the hit to be counted", || count(&mut play) == 1);
    play.client(|c| drop(c.get("/known").expect(200).why("fresh")));
    wait_until("the hit to be counted", || count(&mut play) == 2);
    // Somebody unknown has it validated: the body is still the one that was made for somebody known.
    play.pass_secs(61);
    play.origin(|o| {
        o.get("/known").expecting("If-None-Match", "\"1\"").reply(304).header("Cache-Control", "max-age=60")
    });
    play.client(|c| drop(c.get("/known").expect(200).why("revalidated")));
    play.client(|c| drop(c.get("/known").expect(200).why("fresh")));
    wait_until("the hit to be counted", || count(&mut play) == 3);
}
