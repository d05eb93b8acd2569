//! Purges by URL, prefix, surrogate key, site and everything, hard and soft, and while a fill is under way: what was
//! fetched before a purge is never served after it (invariant 2).

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use world::play::{Answer, Client, Play};
use world::{Gate, play};

const FRESH: &str = "max-age=3600";

/// Stores each target's own text, under these extra header lines.
fn stored(targets: &[&str], lines: &[(&str, &str)]) -> Play {
    let mut play = play();
    store(&mut play, targets, lines);
    play
}

fn store(play: &mut Play, targets: &[&str], lines: &[(&str, &str)]) {
    play.origin(|o| {
        for target in targets {
            let mut reply = o.get(target).header("Cache-Control", FRESH).header("ETag", "\"1\"");
            for (name, value) in lines {
                reply = reply.header(name, value);
            }
            reply.body(format!("old {target}"));
        }
    });
    play.client(|c| {
        for target in targets {
            c.get(target).expect(200).body(format!("old {target}"));
        }
    });
}

/// Checks that `gone` are fetched anew, because they were purged, and `kept` are not.
#[track_caller]
fn check(play: &mut Play, gone: &[&str], kept: &[&str]) {
    play.origin(|o| {
        for target in gone {
            o.get(target).header("Cache-Control", FRESH).body(format!("new {target}"));
        }
    });
    play.client(|c| {
        for target in gone {
            c.get(target).expect(200).body(format!("new {target}")).why("purged");
            c.get(target).expect(200).body(format!("new {target}")).why("fresh");
        }
        for target in kept {
            c.get(target).expect(200).body(format!("old {target}")).why("fresh");
        }
    });
}

#[test]
fn a_url_is_purged_and_nothing_beside_it() {
    let mut play = stored(&["/a", "/a/b", "/a?x", "/ab"], &[]);
    play.purge("url http://site.example/a");
    check(&mut play, &["/a"], &["/a/b", "/a?x", "/ab"]);
    play.purge("url http://site.example/a?x");
    check(&mut play, &["/a?x"], &["/a/b", "/ab"]);
}

#[test]
fn a_url_is_purged_on_its_host_only() {
    let mut play = play();
    play.origin(|o| {
        for text in ["one", "two", "new one"] {
            o.get("/a").header("Cache-Control", FRESH).body(text);
        }
    });
    play.client(|c| {
        c.get("/a").host("one.example").expect(200).body("one");
        c.get("/a").host("two.example").expect(200).body("two");
    });
    play.purge("url http://ONE.example/a");
    play.client(|c| {
        c.get("/a").host("two.example").expect(200).body("two").why("fresh");
        c.get("/a").host("one.example").expect(200).body("new one").why("purged");
    });
}

#[test]
fn all_variants_of_a_url_go_together() {
    let mut play = play();
    let variants = |text: &str, o: &world::play::Origin| {
        for language in ["de", "fr"] {
            let reply = o.get("/a").expecting("Accept-Language", language).header("Cache-Control", FRESH);
            reply.header("Vary", "Accept-Language").body(format!("{text} {language}"));
        }
    };
    play.origin(|o| variants("old", o));
    play.client(|c| {
        for language in ["de", "fr"] {
            c.get("/a").header("Accept-Language", language).expect(200).body(format!("old {language}"));
        }
    });
    play.purge("url http://site.example/a");
    play.origin(|o| variants("new", o));
    play.client(|c| {
        for language in ["de", "fr"] {
            c.get("/a").header("Accept-Language", language).expect(200).body(format!("new {language}"));
        }
    });
}

#[test]
fn a_prefix_is_purged_and_nothing_beside_it() {
    let mut play = stored(&["/media/1", "/media/2?x", "/media/deep/3", "/medias", "/"], &[]);
    play.purge("prefix http://site.example/media/");
    check(&mut play, &["/media/1", "/media/2?x", "/media/deep/3"], &["/medias", "/"]);
}

#[test]
fn a_surrogate_key_is_purged_by_each_of_its_headers() {
    for (name, value) in [
        ("Surrogate-Key", "product-1 product-2"),
        ("Cache-Tag", "product-1,product-2"),
        ("xkey", "product-1 product-2"),
    ] {
        let mut play = stored(&["/a"], &[(name, value)]);
        store(&mut play, &["/b"], &[(name, "product-22")]);
        store(&mut play, &["/c"], &[]);
        play.purge("tag product-2");
        check(&mut play, &["/a"], &["/b", "/c"]);
    }
}

#[test]
fn a_rules_surrogate_key_purges_too() {
    let mut play = play();
    play.site("[[site.rule]]\npath = \"/static/*\"\nsurrogate_keys = [\"static\"]\n");
    store(&mut play, &["/static/a", "/b"], &[]);
    play.purge("tag static");
    check(&mut play, &["/static/a"], &["/b"]);
}

#[test]
fn a_site_is_purged_and_its_neighbour_is_not() {
    let mut play = play();
    play.config(
        "[[site]]\nname = \"one\"\ndomains = [\"one.example\"]\norigin = \"{origin}\"\n\
         [[site]]\nname = \"two\"\ndomains = [\"two.example\"]\norigin = \"{origin}\"\n",
    );
    play.origin(|o| {
        for text in ["one", "two", "new one"] {
            o.get("/a").header("Cache-Control", FRESH).body(text);
        }
    });
    play.client(|c| {
        c.get("/a").host("one.example").expect(200).body("one");
        c.get("/a").host("two.example").expect(200).body("two");
    });
    play.purge("site one");
    play.client(|c| {
        c.get("/a").host("two.example").expect(200).body("two").why("fresh");
        c.get("/a").host("one.example").expect(200).body("new one").why("purged");
    });
}

#[test]
fn everything_goes() {
    let mut play = stored(&["/a", "/b"], &[]);
    play.purge("everything");
    check(&mut play, &["/a", "/b"], &[]);
}

#[test]
fn a_purge_of_what_is_not_there_harms_nothing() {
    let mut play = stored(&["/a"], &[]);
    play.purge("url http://site.example/none").purge("tag none").purge("prefix http://site.example/none/");
    check(&mut play, &[], &["/a"]);
}

#[test]
fn what_is_fetched_after_a_purge_is_not_purged_by_it() {
    let mut play = stored(&["/a"], &[]);
    play.purge("everything").purge("url http://site.example/a");
    check(&mut play, &["/a"], &[]);
    play.pass_secs(1800);
    play.client(|c| c.get("/a").expect(200).body("new /a").why("fresh"));
}

#[test]
fn a_soft_purge_makes_stale_and_one_request_asks_the_origin_meanwhile() {
    let gate = Gate::new();
    let mut play = stored(&["/a", "/b"], &[]);
    play.soft_purge("url http://site.example/a");
    play.origin(|o| {
        o.get("/a").expecting("If-None-Match", "\"1\"").hold(&gate).header("Cache-Control", FRESH).body("new")
    });
    play.client(|c| c.get("/a").expect(200).body("old /a").why("stale-while-revalidate"));
    gate.wait_reached();
    play.client(|c| {
        c.get("/a").expect(200).body("old /a").why("stale-while-revalidate");
        c.get("/b").expect(200).body("old /b").why("fresh");
    });
    gate.open();
    let client = play.visitor();
    world::play::wait_until("the new response", || client.get("/a").expect(200).text() == "new");
    play.client(|c| c.get("/a").expect(200).body("new").why("fresh"));
}

#[test]
fn what_a_soft_purge_made_stale_is_fresh_again_when_the_origin_confirms_it() {
    let mut play = stored(&["/a"], &[]);
    play.soft_purge("everything");
    play.origin(|o| {
        o.get("/a").expecting("If-None-Match", "\"1\"").reply(304).header("Cache-Control", FRESH)
    });
    play.client(|c| c.get("/a").expect(200).body("old /a").why("stale-while-revalidate"));
    let client = play.visitor();
    world::play::wait_until("the confirmation", || {
        let answer = client.get("/a").expect(200).body("old /a");
        answer.response().head.field("cache-status").is_some_and(|status| status.contains("detail=fresh"))
    });
    play.origin_saw(2);
}

#[test]
fn what_a_soft_purge_made_stale_is_validated_by_those_too_whom_no_other_may_wait_for() {
    let mut play = stored(&["/a", "/b"], &[("Cache-Control", "public")]);
    play.soft_purge("everything");
    play.origin(|o| {
        let changed = o.get("/a").expecting("Authorization", "me").expecting("If-None-Match", "\"1\"");
        changed.header("Cache-Control", "public, max-age=3600").body("new");
        let confirmed = o.head("/b").expecting("If-None-Match", "\"1\"").reply(304);
        confirmed.header("Cache-Control", FRESH);
    });
    play.client(|c| {
        c.get("/a").header("Authorization", "me").expect(200).body("new").why("expired");
        c.get("/a").expect(200).body("new").why("fresh");
        c.head("/b").expect(200).why("revalidated");
        c.get("/b").expect(200).body("old /b").why("fresh");
    });
}

/// Lets 40 visitors with Authorization ask at once.
fn ask_authorized(play: &mut Play) -> Vec<JoinHandle<Answer>> {
    let ask = |client: Client| {
        std::thread::spawn(move || client.get("/a").header("Authorization", "me").expect(200))
    };
    (0..40).map(|_| ask(play.visitor())).collect()
}

/// How many of these visitors waited for the origin; each that did is answered with `text`, the others with what was stored.
#[track_caller]
fn waited(visitors: Vec<JoinHandle<Answer>>, text: &str, why: &str) -> usize {
    let answers = visitors.into_iter().map(|visitor| visitor.join().expect("it is answered"));
    let is_stale = |answer: &Answer| {
        let status = answer.response().head.field("cache-status").unwrap_or_default();
        status.contains("detail=stale-while-revalidate")
    };
    let (stale, waited): (Vec<_>, Vec<_>) = answers.partition(is_stale);
    let count = waited.len();
    stale.into_iter().for_each(|answer| drop(answer.body("old /a")));
    waited.into_iter().for_each(|answer| drop(answer.body(text).why(why)));
    count
}

#[test]
fn of_those_whom_no_other_may_wait_for_one_waits_for_a_slow_origin() {
    let gate = Gate::new();
    let mut play = play();
    // It waits for longer than 40 visitors take on a slow machine. A budget begins with nothing.
    play.site("origin_options = { budget = { in_flight = 100, stale_deadline = \"1m\" } }");
    play.visitor();
    play.pass_secs(2);
    store(&mut play, &["/a"], &[("Cache-Control", "public")]);
    play.soft_purge("everything");
    play.origin(|o| {
        let changed = o.get("/a").expecting("Authorization", "me").expecting("If-None-Match", "\"1\"");
        changed.hold(&gate).header("Cache-Control", "public, max-age=3600").body("new");
    });
    let visitors = ask_authorized(&mut play);
    world::play::wait_until("all answers but one", || {
        visitors.iter().filter(|visitor| !visitor.is_finished()).count() == 1
    });
    gate.wait_reached();
    play.client(|c| c.head("/a").expect(200).why("stale-while-revalidate"));
    gate.open();
    assert_eq!(waited(visitors, "new", "expired"), 1);
    let client = play.visitor();
    let ask = || client.get("/a").header("Authorization", "me").expect(200);
    // It is stored a moment after its last byte has been sent.
    world::play::wait_until("the new response", || ask().text() == "new");
    ask().body("new").why("fresh");
    play.origin_saw(2);
}

#[test]
fn a_softly_purged_part_is_validated_by_those_too_whom_no_other_may_wait_for() {
    let range = world::play::range_sent("bytes=0-3");
    let mut play = play();
    play.origin(|o| {
        let part = o.get("/a").expecting("Range", range).reply(206).header("Content-Range", "bytes 0-3/10");
        part.header("Cache-Control", "public, max-age=3600").header("ETag", "\"1\"").body("0123");
    });
    let ask = |c: &Client| c.get("/a").header("Authorization", "me").header("Range", "bytes=0-3").expect(206);
    play.client(|c| ask(c).body("0123"));
    play.soft_purge("everything");
    play.origin(|o| {
        let confirmed = o.get("/a").expecting("If-None-Match", "\"1\"").reply(304);
        confirmed.header("Cache-Control", "public, max-age=3600");
    });
    play.client(|c| ask(c).body("0123").why("revalidated"));
    play.origin(|o| o.get("/a").always().reply(503).body("broken"));
    play.soft_purge("everything");
    play.client(|c| ask(c).body("0123").why("stale-if-error"));
}

/// Time-outs of sockets run on the machine's clock, so this one is the shortest there is.
#[test]
fn of_those_whom_no_other_may_wait_for_one_waits_for_an_origin_that_hangs() {
    let gate = Gate::new();
    let mut play = play();
    play.site("origin_options = { timeouts = { first_byte = \"1s\" } }");
    store(&mut play, &["/a"], &[("Cache-Control", "public, stale-if-error=3600")]);
    play.soft_purge("everything");
    play.origin(|o| o.get("/a").always().hold(&gate).body("late"));
    let visitors = ask_authorized(&mut play);
    gate.wait_reached();
    assert_eq!(waited(visitors, "old /a", "stale-if-error"), 1);
    // The failure speaks for the key.
    assert_eq!(waited(ask_authorized(&mut play), "", ""), 0);
    play.pass_secs(2);
    assert_eq!(waited(ask_authorized(&mut play), "old /a", "stale-if-error"), 1);
    gate.open();
}

/// How long one waits is measured on the machine's clock.
#[test]
fn who_waits_for_an_origin_that_hangs_is_answered_with_what_is_stale_and_what_comes_later_is_stored() {
    let gate = Gate::new();
    let mut play = stored(&["/a"], &[("Cache-Control", "public")]);
    play.soft_purge("everything");
    play.origin(|o| {
        o.get("/a").hold(&gate).header("Cache-Control", "public, max-age=3600").body("new");
    });
    let ask = |c: &Client| c.get("/a").header("Authorization", "me").expect(200);
    let begin = Instant::now();
    play.client(|c| ask(c).body("old /a").why("stale-while-revalidate"));
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    gate.wait_reached();
    // Its fetch goes on, so nobody else begins one.
    play.client(|c| ask(c).body("old /a").why("stale-while-revalidate"));
    play.client(|c| c.head("/a").expect(200).why("stale-while-revalidate"));
    gate.open();
    let client = play.visitor();
    world::play::wait_until("the new response", || ask(&client).text() == "new");
    ask(&client).body("new").why("fresh");
    play.origin_saw(2);
}

#[test]
fn what_must_be_revalidated_does_not_answer_after_a_soft_purge() {
    let mut play = play();
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=3600, must-revalidate").body("old"));
    play.client(|c| c.get("/a").expect(200).body("old"));
    play.soft_purge("everything");
    play.origin(|o| o.get("/a").header("Cache-Control", FRESH).body("new"));
    play.client(|c| c.get("/a").expect(200).body("new"));
}

#[test]
fn after_a_soft_purge_a_stale_response_may_bridge_the_origins_failure() {
    let mut play = play();
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=3600, stale-if-error=3600").body("old"));
    play.client(|c| c.get("/a").expect(200).body("old"));
    play.soft_purge("everything");
    play.origin(|o| o.get("/a").always().reply(503).body("broken"));
    for _ in 0..20 {
        play.client(|c| {
            c.get("/a").expect(200).body("old").why_in(&["stale-while-revalidate", "stale-if-error"])
        });
    }
}

#[test]
fn after_a_hard_purge_nothing_old_answers_even_when_the_origin_fails() {
    let mut play = play();
    play.origin(|o| {
        let lived = "max-age=10, stale-while-revalidate=3600, stale-if-error=3600";
        o.get("/a").header("Cache-Control", lived).header("ETag", "\"1\"").body("old");
    });
    play.client(|c| c.get("/a").expect(200).body("old"));
    play.purge("url http://site.example/a");
    play.origin(|o| o.get("/a").always().expecting_no("If-None-Match").reply(503).body("broken"));
    play.client(|c| c.get("/a").expect(503).body("broken"));
}

#[test]
fn a_fill_that_was_under_way_at_a_purge_is_not_stored_as_fresh() {
    for what in
        ["url http://site.example/a", "prefix http://site.example/", "tag t", "site site", "everything"]
    {
        let gate = Gate::new();
        let mut play = play();
        play.origin(|o| {
            let reply = o.get("/a").header("Cache-Control", FRESH).header("Surrogate-Key", "t");
            reply.part("old, ").hold(&gate).part("end");
        });
        let mut talk = play.visitor().get("/a").begin();
        let head = talk.expect_head(200);
        talk.expect_part(&head, "old, ");
        play.purge(what);
        gate.open();
        talk.finish(&head).body("end");
        play.origin(|o| o.get("/a").header("Cache-Control", FRESH).body("new"));
        play.client(|c| c.get("/a").expect(200).body("new").why("absent"));
        play.client(|c| c.get("/a").expect(200).body("new").why("fresh"));
    }
}

#[test]
fn a_client_that_asks_after_a_purge_does_not_join_the_fill_from_before_it() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", FRESH).part("old, ").hold(&gate).part("end");
    });
    let mut old = play.visitor().get("/a").begin();
    let head = old.expect_head(200);
    old.expect_part(&head, "old, ");
    play.purge("url http://site.example/a");
    play.origin(|o| o.get("/a").header("Cache-Control", FRESH).body("new"));
    play.client(|c| c.get("/a").expect(200).body("new"));
    gate.open();
    old.finish(&head).body("end");
    play.client(|c| c.get("/a").expect(200).body("new").why("fresh"));
}

#[test]
fn a_revalidation_that_was_under_way_at_a_purge_does_not_bring_the_old_body_back() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| o.get("/a").header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body("old"));
    play.client(|c| c.get("/a").expect(200).body("old"));
    play.pass_secs(11);
    play.origin(|o| {
        o.get("/a").expecting("If-None-Match", "\"1\"").hold(&gate).reply(304).header("Cache-Control", FRESH)
    });
    let mut waiting = play.visitor().get("/a").begin();
    gate.wait_reached();
    play.purge("url http://site.example/a");
    gate.open();
    // This one asked before the purge and may still be told the old body.
    waiting.expect(200).body("old");
    play.origin(|o| o.get("/a").header("Cache-Control", FRESH).body("new"));
    play.client(|c| c.get("/a").expect(200).body("new"));
}
