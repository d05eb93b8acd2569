//! How often may be asked: by client and by site, exact to the millisecond, for visitors alone.

use std::time::Duration;

use world::play;
use world::play::{Client, Play, speaks_http2};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// How many of some requests for `target` are answered, before one is refused.
#[track_caller]
fn answered(client: &Client, target: &str, line: (&str, &str)) -> usize {
    let ask = || client.get(target).header(line.0, line.1).expect_any();
    (0..100)
        .take_while(|_| match ask().response().head.status() {
            200 => true,
            429 => false,
            status => panic!("answered with {status}"),
        })
        .count()
}

fn limited(lines: &str) -> Play {
    let mut play = play();
    play.site(lines);
    for path in ["/a", "/b", "/open/a"] {
        play.origin(|o| o.get(path).header(FRESH.0, FRESH.1).body("one"));
    }
    let client = play.visitor();
    for path in ["/a", "/b", "/open/a"] {
        client.get(path).expect(200);
    }
    // From here on the bucket is empty.
    play.pass(Duration::from_secs(3600 / 2));
    play
}

#[test]
fn a_site_that_is_asked_too_often_says_when_to_come_back() {
    let mut play = limited("rate_limit = { requests = 2, per = \"10s\", burst = 3 }");
    let client = play.visitor();
    assert_eq!(answered(&client, "/a", ("X-A", "b")), 3);
    client
        .get("/a")
        .expect(429)
        .header("Retry-After", "5")
        .header("RateLimit", "\"requests\";r=0;t=5")
        .header("Cache-Control", "no-store")
        .why("limit");
    play.pass(Duration::from_millis(4999));
    client.get("/a").expect(429).header("Retry-After", "1");
    play.pass(Duration::from_millis(1));
    assert_eq!(answered(&client, "/a", ("X-A", "b")), 1);
    // All paths of the site count together.
    client.get("/b").expect(429);
    play.pass_secs(60);
    assert_eq!(answered(&client, "/a", ("X-A", "b")), 3);
    // Who runs the site is not a visitor of it.
    play.purge("everything");
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("two"));
    play.pass_secs(60);
    client.get("/a").expect(200).body("two");
}

#[test]
fn a_rule_has_a_limit_of_its_own_or_none() {
    let rules = "rate_limit = { requests = 3 }\n\
                 [[site.rule]]\npath = \"/b\"\nrate_limit = { requests = 6, per = \"1m\" }\n\
                 [[site.rule]]\npath = \"/open/*\"\nrate_limit = \"off\"\n";
    let mut play = limited(rules);
    let client = play.visitor();
    assert_eq!(answered(&client, "/a", ("X-A", "b")), 3);
    assert_eq!(answered(&client, "/b", ("X-A", "b")), 6);
    assert_eq!(answered(&client, "/open/a", ("X-A", "b")), 100);
    play.pass_secs(1);
    assert_eq!(answered(&client, "/a", ("X-A", "b")), 3);
    assert_eq!(answered(&client, "/b", ("X-A", "b")), 0);
}

/// A play whose visitors come through a proxy that is believed.
fn behind_proxy(lines: &str, limits: &str) -> Play {
    limited(&format!("{lines}\n[edge]\ntrusted_proxies = [\"127.0.0.1\"]\n\n[edge.limits]\n{limits}\n"))
}

#[test]
fn each_client_is_counted_for_itself_and_a_household_as_one() {
    let mut play = behind_proxy("rate_limit = { requests = 3 }", "");
    let client = play.visitor();
    let by = |address| answered(&client, "/a", ("X-Forwarded-For", address));
    assert_eq!(by("192.0.2.1"), 3);
    assert_eq!(by("192.0.2.1"), 0);
    assert_eq!(by("192.0.2.2"), 3);
    assert_eq!(by("2001:db8::1"), 3);
    assert_eq!(by("2001:db8::2"), 0);
    assert_eq!(by("2001:db8:0:1::1"), 3);
}

#[test]
fn all_clients_can_be_counted_together() {
    let mut play = behind_proxy("rate_limit = { requests = 3, by = \"all\" }", "");
    let client = play.visitor();
    assert_eq!(answered(&client, "/a", ("X-Forwarded-For", "192.0.2.1")), 3);
    assert_eq!(answered(&client, "/a", ("X-Forwarded-For", "192.0.2.2")), 0);
}

#[test]
fn one_client_may_ask_so_often_whatever_for() {
    let mut play = behind_proxy("", "requests_per_client = { requests = 5 }");
    let client = play.visitor();
    let by = |target, address| answered(&client, target, ("X-Forwarded-For", address));
    assert_eq!(by("/a", "192.0.2.1"), 5);
    assert_eq!(by("/b", "192.0.2.1"), 0);
    assert_eq!(by("/b", "192.0.2.2"), 5);
}

#[test]
fn one_client_may_have_so_many_connections_open() {
    if speaks_http2() {
        // They share one.
        return;
    }
    let mut play = play();
    play.config(&format!("[edge.limits]\nconnections_per_client_max = 2\n\n{}", play.config_text()));
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("one"));
    let client = play.visitor();
    let ask = "GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n";
    let (mut first, mut second) = (client.connect(), client.connect());
    first.say(ask).expect(200);
    second.say(ask).expect(200);
    client.connect().expect_closed();
    first.say(ask).expect(200);
    first.finish_saying().expect_closed();
    drop(first);
    world::play::wait_until("room for one more", || {
        let mut third = client.connect();
        third.say(ask).rest_or_response().is_some()
    });
}
