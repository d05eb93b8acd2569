//! How long a stored response answers, and what may answer when it has gone stale. RFC 9111 §4, §5; RFC 5861;
//! RFC 8246; RFC 9213.

use world::play::Play;
use world::{Gate, play};

/// Stores `one` under these response headers and checks that it answers for `secs` seconds and not a second longer.
#[track_caller]
fn check_lifetime(lines: &[(&str, &str)], secs: u64) {
    let mut play = play();
    play.origin(|o| {
        let mut reply = o.get("/a");
        for (name, value) in lines {
            reply = reply.header(name, value);
        }
        reply.body("one");
    });
    play.client(|c| c.get("/a").expect(200).body("one").why(if secs > 0 { "absent" } else { "uncacheable" }));
    if secs > 0 {
        play.pass_secs(secs - 1);
        play.client(|c| c.get("/a").expect(200).body("one").why("fresh"));
        play.pass_secs(1);
    }
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").body("two"));
    play.client(|c| c.get("/a").expect(200).body("two"));
}

#[test]
fn a_response_is_fresh_for_as_long_as_its_origin_says() {
    for (lines, secs) in [
        (&[("Cache-Control", "max-age=60")][..], 60),
        (&[("Cache-Control", "max-age=60, s-maxage=120")], 120),
        (&[("Cache-Control", "max-age=60"), ("Cache-Control", "s-maxage=5")], 5),
        (&[("Cache-Control", "max-age=60"), ("CDN-Cache-Control", "max-age=600")], 600),
        (&[("CDN-Cache-Control", "max-age=600"), ("Perigee-Cache-Control", "max-age=6")], 6),
        (&[("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=600")], 600),
        (&[("Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")], 0),
        (&[("Expires", "{now+90}")], 90),
        (&[("Expires", "{now+90}"), ("Cache-Control", "max-age=30")], 30),
        (&[("Expires", "0")], 0),
        (&[("Last-Modified", "{now-1000}")], 100),
        (&[("Cache-Control", "max-age=60"), ("Age", "50")], 10),
        // Date has whole seconds: the response may be up to one younger than it says, and gets the benefit of that.
        (&[("Cache-Control", "max-age=60"), ("Date", "{now-50}")], 11),
        (&[("Cache-Control", "max-age=60, no-store")], 0),
        (&[("Cache-Control", "max-age=60, private")], 0),
        (&[("Cache-Control", "no-cache")], 0),
        (&[], 0),
    ] {
        check_lifetime(lines, secs);
    }
}

#[test]
fn age_counts_the_time_before_this_cache_and_in_it() {
    play()
        .origin(|o| o.get("/a").header("Cache-Control", "max-age=100").header("Age", "10").body("one"))
        .client(|c| c.get("/a").expect(200).body("one"))
        .pass_secs(20)
        .client(|c| c.get("/a").expect(200).body("one").age(30).why("fresh"));
}

#[test]
fn an_error_without_a_lifetime_is_not_stored_and_one_with_a_lifetime_is() {
    play()
        .origin(|o| {
            o.get("/plain").reply(500).body("broken");
            o.get("/plain").reply(200).header("Cache-Control", "max-age=60").body("well");
            o.get("/gone").reply(404).header("Cache-Control", "max-age=60").body("nothing here");
        })
        .client(|c| {
            c.get("/plain").expect(500).body("broken");
            c.get("/plain").expect(200).body("well");
            c.get("/gone").expect(404).body("nothing here");
            c.get("/gone").expect(404).body("nothing here").why("fresh");
        });
}

#[test]
fn a_site_can_say_how_long_errors_last() {
    play()
        .site("ttl_by_status = { \"404\" = \"10s\" }")
        .origin(|o| o.get("/a").reply(404).body("one"))
        .client(|c| c.get("/a").expect(404).body("one"))
        .pass_secs(9)
        .client(|c| c.get("/a").expect(404).body("one").why("fresh"))
        .pass_secs(1)
        .origin(|o| o.get("/a").reply(200).header("Cache-Control", "no-store").body("two"))
        .client(|c| c.get("/a").expect(200).body("two"));
}

#[test]
fn a_rule_can_say_how_long_the_edge_and_the_browser_keep_a_response() {
    play()
        .site("[[site.rule]]\npath = \"/static/*\"\nttl = \"1h\"\nbrowser_ttl = \"5m\"\n")
        .origin(|o| o.get("/static/a.css").header("Content-Type", "text/css").body("a{}"))
        .client(|c| c.get("/static/a.css").expect(200).body("a{}").header("Cache-Control", "max-age=300"))
        .pass_secs(3599)
        .client(|c| c.get("/static/a.css").expect(200).body("a{}").why("fresh"));
}

// --- Revalidation ---

#[test]
fn a_stale_response_is_revalidated_and_304_refreshes_what_is_stored() {
    play()
        .origin(|o| {
            let reply = o.get("/a").header("Cache-Control", "max-age=10").header("ETag", "\"1\"");
            reply.header("Last-Modified", "{now-100000}").header("X-Version", "1").body("one");
        })
        .client(|c| c.get("/a").expect(200).body("one").header("X-Version", "1"))
        .pass_secs(11)
        .origin(|o| {
            let reply = o.get("/a").expecting("If-None-Match", "\"1\"").reply(304);
            reply.header("Cache-Control", "max-age=50").header("ETag", "\"1\"").header("X-Version", "2");
        })
        .client(|c| c.get("/a").expect(200).body("one").why("revalidated").header("X-Version", "2"))
        .pass_secs(49)
        .client(|c| c.get("/a").expect(200).body("one").why("fresh").header("X-Version", "2").age(49));
}

#[test]
fn a_changed_response_takes_the_place_of_the_stale_one() {
    play()
        .origin(|o| o.get("/a").header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body("one"))
        .client(|c| c.get("/a").expect(200).body("one"))
        .pass_secs(11)
        .origin(|o| {
            let reply = o.get("/a").expecting("If-None-Match", "\"1\"").header("Cache-Control", "max-age=10");
            reply.header("ETag", "\"2\"").body("two");
        })
        .client(|c| c.get("/a").expect(200).body("two").why("expired"))
        .client(|c| c.get("/a").expect(200).body("two").why("fresh").header("ETag", "\"2\""));
}

#[test]
fn a_visitors_validators_are_answered_from_the_cache() {
    play()
        .origin(|o| {
            let reply = o.get("/a").header("Cache-Control", "max-age=60").header("ETag", "\"1\"");
            reply.header("Last-Modified", "{now-1000}").body("one");
        })
        .client(|c| {
            c.get("/a").expect(200).body("one");
            for matching in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "*"] {
                c.get("/a").header("If-None-Match", matching).expect(304).body("").header("ETag", "\"1\"");
            }
            c.get("/a").header("If-None-Match", "\"2\"").expect(200).body("one");
            c.get("/a").header("If-Modified-Since", "Fri, 15 Jan 2027 07:59:59 GMT").expect(304).body("");
            c.get("/a").header("If-Modified-Since", "Fri, 15 Jan 2027 06:00:00 GMT").expect(200).body("one");
            let asking = c.get("/a").header("If-Modified-Since", "Fri, 15 Jan 2027 07:59:59 GMT");
            asking.header("If-None-Match", "\"2\"").expect(200).body("one");
        });
}

#[test]
fn a_visitors_validator_does_not_narrow_what_is_stored() {
    play()
        .origin(|o| {
            // The origin would answer 304 to this visitor; the cache must not end up with a response without body.
            let reply = o.get("/a").header("Cache-Control", "max-age=60").header("ETag", "\"1\"");
            reply.expecting_no("If-None-Match").body("one");
        })
        .client(|c| c.get("/a").header("If-None-Match", "\"1\"").expect(304).body(""))
        .client(|c| c.get("/a").expect(200).body("one").why("fresh"));
}

// --- Stale responses ---

fn stored(cache_control: &str) -> Play {
    let mut play = play();
    play.origin(|o| o.get("/a").header("Cache-Control", cache_control).header("ETag", "\"1\"").body("one"));
    play.client(|c| c.get("/a").expect(200).body("one"));
    play
}

#[test]
fn a_stale_response_answers_at_once_while_one_request_revalidates_it() {
    let gate = Gate::new();
    let mut play = stored("max-age=10, stale-while-revalidate=30");
    play.pass_secs(20);
    play.origin(|o| o.get("/a").hold(&gate).header("Cache-Control", "max-age=10").body("two"));
    play.client(|c| c.get("/a").expect(200).body("one").why("stale-while-revalidate").age(20));
    gate.wait_reached();
    play.client(|c| c.get("/a").expect(200).body("one").why("stale-while-revalidate"));
    gate.open();
    let client = play.visitor();
    world::play::wait_until("the new response", || client.get("/a").expect(200).text() == "two");
    play.client(|c| c.get("/a").expect(200).body("two").why("fresh"));
    play.origin_saw(2);
}

#[test]
fn who_fetches_for_nobody_else_waits_for_the_origin_within_the_window_too() {
    for (name, value, site) in
        [("Authorization", "me", ""), ("Cache-Control", "no-store", "request_cache_control = \"honour\"")]
    {
        let mut play = play();
        play.site(site);
        play.origin(|o| {
            o.get("/a").header("Cache-Control", "max-age=10, stale-while-revalidate=30").body("one")
        });
        play.client(|c| c.get("/a").expect(200).body("one"));
        play.pass_secs(20);
        play.origin(|o| o.get("/a").header("Cache-Control", "max-age=10").body("two"));
        play.client(|c| c.get("/a").header(name, value).expect(200).body("two").why("uncacheable"));
        play.origin(|o| o.get("/a").always().reply(503).body("broken"));
        play.client(|c| c.get("/a").header(name, value).expect(200).body("one").why("stale-if-error"));
    }
}

#[test]
fn behind_its_window_a_stale_response_waits_for_the_origin() {
    let mut play = stored("max-age=10, stale-while-revalidate=30");
    play.pass_secs(41);
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=10").body("two"));
    play.client(|c| c.get("/a").expect(200).body("two").why("expired"));
}

#[test]
fn a_stale_response_answers_when_the_origin_fails() {
    for status in [500, 502, 503, 504] {
        let mut play = stored("max-age=10, stale-if-error=60");
        play.pass_secs(20);
        play.origin(|o| o.get("/a").always().reply(status).body("broken"));
        play.client(|c| c.get("/a").expect(200).body("one").why("stale-if-error").age(20));
    }
    let mut play = stored("max-age=10, stale-if-error=60");
    play.pass_secs(20);
    play.origin(|o| o.get("/a").always().close());
    play.client(|c| c.get("/a").expect(200).body("one").why("stale-if-error"));
}

#[test]
fn behind_its_window_a_failing_origin_shows() {
    let mut play = stored("max-age=10, stale-if-error=60");
    play.pass_secs(71);
    play.origin(|o| o.get("/a").always().reply(500).body("broken"));
    play.client(|c| c.get("/a").expect(500).body("broken"));
}

#[test]
fn what_must_be_revalidated_never_answers_stale() {
    for directive in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=10"] {
        let mut play = stored(&format!("max-age=10, {directive}"));
        play.pass_secs(20);
        play.origin(|o| o.get("/a").always().close());
        play.client(|c| c.get("/a").expect_any().status_in(&[502, 503, 504]).whole());
    }
}

#[test]
fn a_failing_origin_is_left_alone_and_stale_responses_do_not_wait_for_it() {
    let mut play = stored("max-age=10, stale-if-error=3600");
    play.pass_secs(20);
    play.origin(|o| o.get("/a").always().close());
    for _ in 0..50 {
        play.client(|c| c.get("/a").expect(200).body("one").why("stale-if-error"));
    }
    let seen = std::cell::Cell::new(0);
    play.origin(|o| seen.set(o.seen().len()));
    assert!(seen.get() < 25, "the failing origin was asked {} times for 50 requests", seen.get());
}

/// Time-outs of sockets run on the machine's clock, so this one is the shortest there is.
#[test]
fn an_origin_that_hangs_is_waited_for_once_and_no_longer_than_its_time_out() {
    let gate = Gate::new();
    let mut play = play();
    play.site("origin_options = { timeouts = { first_byte = \"1s\" } }");
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=10, stale-if-error=3600").body("one"));
    play.client(|c| c.get("/a").expect(200).body("one"));
    play.pass_secs(20);
    play.origin(|o| o.get("/a").always().hold(&gate).body("late"));
    play.client(|c| c.get("/a").expect(200).body("one").why("stale-if-error"));
    let begin = std::time::Instant::now();
    for _ in 0..10 {
        play.client(|c| c.get("/a").expect(200).body("one").why("stale-if-error"));
    }
    assert!(begin.elapsed().as_millis() < 900, "stale responses waited {:?} for the origin", begin.elapsed());
    gate.open();
}

#[test]
fn an_origin_that_hangs_without_anything_stored_is_a_gateway_time_out() {
    let gate = Gate::new();
    let mut play = play();
    play.site("origin_options = { timeouts = { first_byte = \"1s\" } }");
    play.origin(|o| o.get("/a").always().hold(&gate).body("late"));
    play.client(|c| c.get("/a").expect(504).whole().why("origin-timeout"));
    gate.open();
}

#[test]
fn only_if_cached_never_asks_the_origin() {
    play()
        .site("request_cache_control = \"honour\"")
        .client(|c| c.get("/a").header("Cache-Control", "only-if-cached").expect(504))
        .origin_saw_nothing()
        .origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body("one"))
        .client(|c| {
            c.get("/a").expect(200).body("one");
            c.get("/a").header("Cache-Control", "only-if-cached").expect(200).body("one").why("fresh");
        });
}

#[test]
fn visitors_cannot_make_the_edge_ask_the_origin_unless_the_site_lets_them() {
    let mut play = stored("max-age=60");
    for (name, value) in
        [("Cache-Control", "no-cache"), ("Cache-Control", "max-age=0"), ("Pragma", "no-cache")]
    {
        play.client(|c| c.get("/a").header(name, value).expect(200).body("one").why("fresh"));
    }
    world::play()
        .site("request_cache_control = \"honour\"")
        .origin(|o| {
            o.get("/a").header("Cache-Control", "max-age=60").body("one");
            o.get("/a").header("Cache-Control", "max-age=60").body("two");
        })
        .client(|c| {
            c.get("/a").expect(200).body("one");
            c.get("/a").header("Cache-Control", "no-cache").expect(200).body("two").why("request-directive");
        });
}
