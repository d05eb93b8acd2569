//! What an edge does with orders that were given for a whole cluster: many purges as one, also of what its configuration does not
//! know, or has not for now; and what it serves while it cannot know what has been ordered.

use std::time::{Duration, Instant};

use model::change::{Order, What};
use semantics::Wall;
use world::play;
use world::play::Play;

const FRESH: &str = "max-age=86400";

fn url(site: &str, path: &str) -> Order {
    Order { what: What::Url { site: site.into(), url: format!("http://site.example{path}") }, soft: false }
}

fn apply(play: &mut Play, orders: &[Order]) -> usize {
    play.handle().apply(orders).expect("the purges are in force").widened
}

/// Stores what the origin says of each target.
fn store(play: &mut Play, targets: &[&str], text: &str) {
    play.origin(|o| {
        for target in targets {
            o.get(target)
                .header("Cache-Control", FRESH)
                .header("ETag", "\"1\"")
                .body(format!("{text} {target}"));
        }
    });
    play.client(|c| {
        for target in targets {
            c.get(target).expect(200).body(format!("{text} {target}"));
        }
    });
}

fn hits(play: &mut Play, targets: &[&str], text: &str) {
    play.client(|c| {
        for target in targets {
            c.get(target).expect(200).body(format!("{text} {target}")).why("fresh");
        }
    });
}

#[test]
fn many_orders_are_one_purge() {
    let mut play = play();
    let targets = ["/a", "/b", "/dir/c", "/kept"];
    store(&mut play, &targets, "old");
    let before = play.handle().status().purge_position;
    let orders = [
        url("site", "/a"),
        Order { soft: false, ..url("site", "/b") },
        url("site", "/a"),
        Order {
            what: What::Prefix { site: "site".into(), prefix: "http://site.example/dir/".into() },
            soft: false,
        },
        Order { what: What::Tag { site: None, tag: "none".into() }, soft: true },
    ];
    assert_eq!(apply(&mut play, &orders), 0);
    assert_eq!(play.handle().status().purge_position, before + 1);
    assert_eq!(apply(&mut play, &[]), 0);
    assert_eq!(play.handle().status().purge_position, before + 1);
    store(&mut play, &["/a", "/b", "/dir/c"], "new");
    hits(&mut play, &["/kept"], "old");
}

#[test]
fn an_order_that_this_node_cannot_tell_purges_more_and_is_never_left_out() {
    for (what, is_widened, is_gone) in [
        (What::Url { site: "site".into(), url: "http://other.test/x".into() }, false, false),
        (What::Url { site: "stranger".into(), url: "http://site.example/a".into() }, true, true),
        (What::Url { site: "site".into(), url: "no url".into() }, true, true),
        (What::Prefix { site: "site".into(), prefix: "http://site.example/?x".into() }, true, true),
        (What::Prefix { site: "site".into(), prefix: "//".into() }, true, true),
        (What::Tag { site: None, tag: String::new() }, true, true),
        (What::Tag { site: Some("site".into()), tag: String::new() }, true, true),
        (What::Site { site: "stranger".into() }, false, false),
        (What::Site { site: "site".into() }, false, true),
    ] {
        let mut play = play();
        store(&mut play, &["/a"], "old");
        assert_eq!(
            apply(&mut play, &[Order { what: what.clone(), soft: false }]) == 1,
            is_widened,
            "{what:?}"
        );
        match is_gone {
            true => store(&mut play, &["/a"], "new"),
            false => hits(&mut play, &["/a"], "old"),
        }
    }
}

#[test]
fn a_host_that_no_site_has_purges_the_named_site_whole() {
    let mut play = play();
    play.config("[[site]]\nname = \"site\"\ndomains = [\"site.example\"]\norigin = \"{origin}\"\n");
    store(&mut play, &["/a"], "old");
    let what = What::Url { site: "site".into(), url: "http://elsewhere.example/x".into() };
    assert_eq!(apply(&mut play, &[Order { what, soft: false }]), 1);
    store(&mut play, &["/a"], "new");
}

// --- Earlier configurations ---

const KEEP_W: &str = "query = { keep = [\"w\"] }\n";

#[test]
fn what_an_earlier_configuration_stored_is_purged_too_by_url() {
    for with_restart in [false, true] {
        let mut play = play();
        if with_restart {
            play.disk("64MiB");
        }
        let all = play.config_text();
        let some = format!("{all}{KEEP_W}");
        // Keyed by all of the query, of which the other configuration drops a part.
        store(&mut play, &["/a?w=1&x=2", "/b?w=1&x=2"], "old");
        if with_restart {
            play.written();
        }
        play.reconfigure(&some);
        if with_restart {
            // Not the one that it is started with: by now only the disk knows what there was.
            play.restart().reconfigure(&some);
        }
        apply(&mut play, &[url("site", "/a?w=1&x=2")]);
        if with_restart {
            play.restart();
        }
        play.reconfigure(&all);
        store(&mut play, &["/a?w=1&x=2"], "new");
        hits(&mut play, &["/b?w=1&x=2"], "old");
    }
}

#[test]
fn a_start_with_another_configuration_knows_from_the_disk_what_the_last_one_stored() {
    let mut play = play();
    play.disk("64MiB");
    let first = play.config_text();
    store(&mut play, &["/a?w=1&x=2", "/b?w=1&x=2"], "old");
    play.written().restart_with(&format!("{first}{KEEP_W}"));
    apply(&mut play, &[url("site", "/a?w=1&x=2")]);
    play.restart_with(&first);
    store(&mut play, &["/a?w=1&x=2"], "new");
    hits(&mut play, &["/b?w=1&x=2"], "old");
}

#[test]
fn what_was_stored_for_a_host_under_another_site_is_purged_too() {
    let of = |one: &str, two: &str| {
        format!(
            "[[site]]\nname = \"one\"\ndomains = [\"{one}\"]\norigin = \"{{origin}}\"\n\
             [[site]]\nname = \"two\"\ndomains = [\"{two}\"]\norigin = \"{{origin}}\"\n"
        )
    };
    let mut play = play();
    play.config(&of("site.example", "other.example"));
    store(&mut play, &["/a", "/dir/b", "/c"], "old");
    play.reconfigure(&of("other.example", "site.example"));
    let prefix = What::Prefix { site: "two".into(), prefix: "http://site.example/dir/".into() };
    apply(&mut play, &[url("two", "/a"), Order { what: prefix, soft: false }]);
    play.reconfigure(&of("site.example", "other.example"));
    store(&mut play, &["/a", "/dir/b"], "new");
    hits(&mut play, &["/c"], "old");
}

#[test]
fn a_surrogate_key_is_purged_on_sites_that_are_not_there_for_now() {
    let of = |name: &str| {
        format!(
            "[[site]]\nname = \"{name}\"\ndomains = [\"*\"]\norigin = \"{{origin}}\"\nsurrogate_keys = [\"k\"]\n"
        )
    };
    let mut play = play();
    play.config(&of("one"));
    store(&mut play, &["/a"], "old");
    play.reconfigure(&of("two"));
    apply(&mut play, &[Order { what: What::Tag { site: None, tag: "k".into() }, soft: false }]);
    play.reconfigure(&of("one"));
    store(&mut play, &["/a"], "new");
}

#[test]
fn a_recipe_that_comes_back_after_it_was_forgotten_finds_nothing_old() {
    let mut play = play();
    let text = play.config_text();
    let with = |number: usize| format!("{text}query = {{ keep = [\"w\", \"p{number}\"] }}\n");
    play.config(&with(0));
    store(&mut play, &["/a?w=1"], "old");
    for number in 1..=40 {
        play.reconfigure(&with(number));
    }
    // Nothing was purged meanwhile, but nobody could have told whether it was to cover this recipe.
    play.reconfigure(&with(0));
    store(&mut play, &["/a?w=1"], "new");
}

// --- Not knowing ---

fn heard_now(play: &mut Play) {
    let now = play.handle().clock().wall();
    play.handle().heard(now);
}

#[test]
fn hits_are_validated_once_nothing_has_been_heard_for_longer_than_the_site_allows() {
    let mut play = play();
    play.site("max_purge_lag = \"10m\"");
    store(&mut play, &["/a"], "old");
    heard_now(&mut play);
    play.pass_secs(600);
    hits(&mut play, &["/a"], "old");
    play.pass_secs(1);
    play.origin(|o| {
        o.get("/a").expecting("If-None-Match", "\"1\"").reply(304).header("Cache-Control", FRESH)
    });
    play.client(|c| c.get("/a").expect(200).body("old /a").why("revalidated"));
    // What was validated is as good as heard of, for as long as the site allows.
    play.pass_secs(600);
    hits(&mut play, &["/a"], "old");
    play.pass_secs(1);
    play.origin(|o| o.get("/a").header("Cache-Control", FRESH).body("new /a"));
    play.client(|c| c.get("/a").expect(200).body("new /a"));
    play.pass_secs(3600);
    heard_now(&mut play);
    hits(&mut play, &["/a"], "new");
    play.origin_saw(3);
}

#[test]
fn a_node_that_nobody_tells_anything_and_a_site_without_the_key_are_never_fenced() {
    for (lines, is_told) in [("max_purge_lag = \"10s\"", false), ("", true)] {
        let mut play = play();
        play.site(lines);
        store(&mut play, &["/a"], "old");
        if is_told {
            play.handle().heard(Wall(0));
        }
        play.pass_secs(3600);
        hits(&mut play, &["/a"], "old");
    }
}

#[test]
fn a_node_that_starts_after_a_long_silence_is_fenced_at_once() {
    let mut play = play();
    play.site("max_purge_lag = \"10m\"");
    store(&mut play, &["/a"], "old");
    play.pass_secs(900);
    let long_ago = Wall(play.handle().clock().wall().0 - 601_000);
    play.handle().heard(long_ago);
    play.origin(|o| {
        o.get("/a").expecting("If-None-Match", "\"1\"").reply(304).header("Cache-Control", FRESH)
    });
    play.client(|c| c.get("/a").expect(200).body("old /a").why("revalidated"));
}

#[test]
fn what_is_fenced_off_answers_while_the_origin_fails_as_the_site_says() {
    for (lines, answers) in [("stale_if_error = \"1d\"\n", true), ("stale_if_error = \"0s\"\n", false)] {
        let mut play = play();
        play.site(&format!("max_purge_lag = \"10s\"\n{lines}"));
        store(&mut play, &["/a"], "old");
        heard_now(&mut play);
        play.pass_secs(60);
        play.origin(|o| o.get("/a").reply(503).body("broken"));
        play.client(|c| match answers {
            true => c.get("/a").expect(200).body("old /a").why("stale-if-error"),
            false => c.get("/a").expect(503).body("broken"),
        });
    }
}

#[test]
fn what_is_distrusted_is_validated_before_it_is_served_also_after_a_restart() {
    for with_disk in [false, true] {
        let mut play = play();
        if with_disk {
            play.disk("64MiB");
        }
        store(&mut play, &["/same", "/other"], "old");
        if with_disk {
            play.written();
        }
        play.handle().distrust().expect("it is in force");
        if with_disk {
            play.restart();
        }
        play.origin(|o| {
            o.get("/same").expecting("If-None-Match", "\"1\"").reply(304).header("Cache-Control", FRESH);
            o.get("/other")
                .expecting("If-None-Match", "\"1\"")
                .header("Cache-Control", FRESH)
                .body("new /other");
        });
        play.client(|c| {
            c.get("/same").expect(200).body("old /same").why("revalidated");
            c.get("/other").expect(200).body("new /other");
        });
        hits(&mut play, &["/same"], "old");
        hits(&mut play, &["/other"], "new");
    }
}

#[test]
fn what_is_distrusted_never_answers_for_an_origin_that_fails() {
    for (passed, age) in [(0, "fresh"), (90_000, "stale")] {
        let mut play = play();
        play.site("stale_if_error = \"1d\"\nstale_while_revalidate = \"1d\"");
        store(&mut play, &["/a"], "old");
        play.pass_secs(passed);
        play.handle().distrust().expect("it is in force");
        play.origin(|o| o.get("/a").reply(503).body(age));
        play.client(|c| c.get("/a").expect(503).body(age));
    }
}

// --- How fast ---

#[test]
fn thousands_of_orders_a_second_are_in_force_and_on_disk() {
    const BATCHES: usize = 20;
    const ORDERS: usize = 500;
    let mut play = play();
    play.disk("64MiB");
    store(&mut play, &["/kept"], "old");
    let begin = Instant::now();
    for batch in 0..BATCHES {
        let orders: Vec<Order> = (0..ORDERS).map(|n| url("site", &format!("/p/{batch}/{n}"))).collect();
        assert_eq!(apply(&mut play, &orders), 0);
    }
    let took = begin.elapsed();
    println!(
        "{} orders in {BATCHES} batches: {took:?}, {:.0} a second",
        BATCHES * ORDERS,
        (BATCHES * ORDERS) as f64 / took.max(Duration::from_nanos(1)).as_secs_f64()
    );
    hits(&mut play, &["/kept"], "old");
    play.restart();
    assert_eq!(play.handle().apply(&[]).expect("nothing").widened, 0);
    let text = play.handle().registry().render();
    let remembered = text.lines().find_map(|line| line.strip_prefix("perigee_purges_remembered "));
    // The site counts as one.
    assert_eq!(remembered, Some("10001"));
}

#[test]
fn hits_of_what_may_have_been_meant_for_one_visitor_are_counted() {
    let mut play = play();
    play.origin(|o| {
        o.get("/cookie").header("Cache-Control", "public, max-age=60").header("Set-Cookie", "a=b").body("1");
        o.get("/own").header("Cache-Control", "public, max-age=60").body("2");
        o.get("/all").header("Cache-Control", "public, max-age=60").body("3");
    });
    for _ in 0..3 {
        play.client(|c| {
            c.get("/cookie").expect(200);
            c.get("/own").header("Authorization", "Basic YTpi").expect(200);
            c.get("/all").expect(200);
        });
    }
    let registry = play.handle().registry().clone();
    world::play::wait_until("the hits to be counted", || registry.totals().personal_hits == 4);
}
