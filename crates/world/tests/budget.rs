//! The budget of an origin: how much it is asked whatever happens, who comes first when that is less than is wanted, and what visitors
//! get meanwhile. Time stands still but for [`Play::pass_secs`], so that a second has as many requests as the test sees.

use edge::BudgetStatus;
use world::play::{Play, Talk, content, wait_until};
use world::{Gate, play};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");

/// A play whose origin has a budget; the second that counts as used up at the begin has passed.
fn with_budget(budget: &str) -> Play {
    let mut play = play();
    play.site(&format!("origin_options = {{ budget = {{ {budget} }} }}"));
    play.visitor();
    play.pass_secs(2);
    play
}

fn budget(play: &mut Play) -> BudgetStatus {
    play.handle().status().budgets.remove(0)
}

#[track_caller]
fn wait_for_waiting(play: &mut Play, count: u64) {
    wait_until(&format!("{count} requests to wait"), || budget(play).waiting == count);
}

fn lines(play: &mut Play) -> Vec<String> {
    let mut lines = Vec::new();
    play.origin(|o| {
        for seen in o.seen() {
            lines.push(seen.head.line.trim_end_matches(" HTTP/1.1").to_owned());
        }
    });
    lines
}

#[test]
fn no_second_has_more_requests_than_the_budget_and_what_has_no_turn_in_time_is_refused() {
    let mut play = with_budget("requests_per_second = 3, queue = \"200ms\"");
    play.origin(|o| {
        for number in 0..21 {
            let _ = o.get(&format!("/{number}")).header(FRESH.0, FRESH.1).body("one").always();
        }
    });
    let client = play.visitor();
    for second in 0..3 {
        let asked = second * 7..second * 7 + 7;
        let talks: Vec<Talk> = asked.map(|number| client.get(&format!("/{number}")).begin()).collect();
        let answers: Vec<_> = talks.into_iter().map(|mut talk| talk.answer()).collect();
        let (served, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.response().head.status() == 200);
        assert_eq!(served.len(), 3);
        for answer in refused {
            answer
                .status(503)
                .why("origin-budget")
                .header("Retry-After", "5")
                .header("Cache-Control", "no-store");
        }
        play.origin_saw((second + 1) * 3);
        play.pass_secs(2);
    }
    assert_eq!(budget(&mut play).refused, 12);
}

#[test]
fn validations_passes_and_unsafe_requests_draw_on_it_too() {
    let mut play = with_budget("requests_per_second = 1, queue = \"100ms\"");
    let client = play.visitor();
    let is_used_up = |play: &mut Play, line: &str| {
        client.get("/other").expect(503).why("origin-budget");
        assert_eq!(lines(play).last().unwrap(), line);
        play.pass_secs(2);
    };
    play.origin(|o| {
        drop(o.get("/a").header("Cache-Control", "max-age=9").header("ETag", "\"1\"").body("one"))
    });
    play.client(|c| drop(c.get("/a").expect(200)));
    is_used_up(&mut play, "GET /a");
    play.pass_secs(10);
    play.origin(|o| {
        drop(o.get("/a").expecting("If-None-Match", "\"1\"").reply(304).header(FRESH.0, FRESH.1))
    });
    play.client(|c| drop(c.get("/a").expect(200).why("revalidated")));
    is_used_up(&mut play, "GET /a");
    play.origin(|o| drop(o.post("/form").body("done")));
    play.client(|c| drop(c.post("/form").with_body("x").expect(200)));
    is_used_up(&mut play, "POST /form");
    play.origin(|o| drop(o.get("/mine").header("Cache-Control", "private").body("one")));
    play.client(|c| drop(c.get("/mine").expect(200)));
    is_used_up(&mut play, "GET /mine");
}

#[test]
fn another_try_draws_on_the_budget_of_the_origin_that_is_tried() {
    let mut play = play();
    play.config(
        "[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = [\"{origin}\", \"{backup}\"]\n\
         origin_options = { budget = { requests_per_second = 1, queue = \"100ms\" } }\n",
    );
    play.visitor();
    play.pass_secs(2);
    play.origin(|o| drop(o.get("/a").reply(500).body("no")));
    play.backup(|o| drop(o.get("/a").header(FRESH.0, FRESH.1).body("one")));
    play.client(|c| drop(c.get("/a").expect(200).body("one")));
    let used: Vec<u32> =
        play.handle().status().budgets.iter().map(|budget| budget.used.requests_per_second).collect();
    assert_eq!(used, [1, 1]);
    play.client(|c| drop(c.get("/b").expect(503).why("origin-budget")));
    play.pass_secs(2);
    // What the first has no turn for, the second may have.
    play.origin(|o| drop(o.post("/x").body("one")));
    play.backup(|o| drop(o.post("/x").body("two")));
    play.client(|c| {
        c.post("/x").with_body("1").expect(200).body("one");
        c.post("/x").with_body("2").expect(200).body("two");
    });
}

#[test]
fn what_is_in_flight_counts_until_the_last_byte_of_its_answer() {
    let gate = Gate::new();
    let mut play = with_budget("in_flight = 2, queue = \"60s\"");
    play.origin(|o| {
        o.get("/a").header(FRESH.0, FRESH.1).part("begin, ").hold(&gate).part("end");
        o.get("/b").header(FRESH.0, FRESH.1).body("one");
        o.get("/c").header(FRESH.0, FRESH.1).part("begin, ").hold(&gate).part("end");
        o.get("/d").header(FRESH.0, FRESH.1).body("one");
    });
    let client = play.visitor();
    let mut first = client.get("/a").begin();
    first.expect_head(200);
    client.get("/b").expect(200);
    wait_until("its end to be counted", || budget(&mut play).used.in_flight == 1);
    let mut third = client.get("/c").begin();
    third.expect_head(200);
    let mut fourth = client.get("/d").begin();
    wait_for_waiting(&mut play, 1);
    play.origin_saw(3);
    gate.open();
    fourth.expect(200);
}

#[test]
fn what_has_waited_in_vain_has_left_the_queue() {
    let gate = Gate::new();
    let mut play = with_budget("in_flight = 1, queue = \"100ms\"");
    play.origin(|o| {
        o.post("/held").hold(&gate).body("one");
        o.get("/a").header(FRESH.0, FRESH.1).body("one");
    });
    let client = play.visitor();
    let mut held = client.post("/held").begin();
    gate.wait_reached();
    client.post("/never").expect(503).why("origin-budget");
    wait_for_waiting(&mut play, 0);
    gate.open();
    held.expect(200);
    client.get("/a").expect(200);
}

#[test]
fn what_nobody_reads_on_is_ended_too_when_more_is_in_flight_than_is_allowed_for_longer_than_the_grace() {
    let mut play = with_budget("in_flight = 2, grace = \"5s\"");
    // More than fits between origin and visitor.
    let body = content(1, 48 << 20);
    play.origin(|o| {
        o.get("/one").header("Cache-Control", "private").body(&body);
        o.get("/two").header("Cache-Control", "private").body(&body);
        o.get("/three").header(FRESH.0, FRESH.1).body("three");
    });
    let client = play.visitor();
    let [(mut one, head_of_one), (mut two, head_of_two)] = ["/one", "/two"].map(|target| {
        let mut talk = client.get(target).begin();
        let head = talk.expect_head(200);
        (talk, head)
    });
    let smaller = play.config_text().replace("in_flight = 2", "in_flight = 1");
    play.reconfigure(&smaller);
    play.pass_secs(4);
    assert_eq!(budget(&mut play).used.in_flight, 2);
    play.pass_secs(2);
    wait_until("the newest to be ended", || budget(&mut play).used.in_flight == 1);
    assert_eq!(budget(&mut play).ended, 1);
    two.finish(&head_of_two).cut();
    one.finish(&head_of_one).whole();
    client.get("/three").expect(200);
}

#[test]
fn a_process_that_drains_draws_on_the_budget_of_the_one_that_serves() {
    if std::env::var_os("PERIGEE_PLAY_DISK").is_some() {
        // A play's own disk is not handed over; `handing_over` has plays with disks that are.
        return;
    }
    let gate = Gate::new();
    let mut play = with_budget("in_flight = 1, queue = \"60s\"");
    play.origin(|o| {
        o.get("/held").header("Cache-Control", "private").part("begin, ").hold(&gate).part("end");
        o.get("/old").header(FRESH.0, FRESH.1).body("old");
        o.get("/new").header(FRESH.0, FRESH.1).body("new");
    });
    let client = play.visitor();
    let mut held = client.get("/held").begin();
    let head = held.expect_head(200);
    let mut old = client.get("/old").begin();
    wait_for_waiting(&mut play, 1);
    let draining = play.upgrade();
    wait_until("the new process to count what the old one has in flight", || {
        budget(&mut play).used.in_flight == 1
    });
    // Who waited there waits here.
    wait_for_waiting(&mut play, 1);
    let mut new = play.visitor().get("/new").begin();
    wait_for_waiting(&mut play, 2);
    play.pass_secs(2);
    play.origin_saw(1);
    gate.open();
    held.finish(&head).whole();
    old.expect(200).body("old");
    new.expect(200).body("new");
    wait_until("all to have ended", || budget(&mut play).used.in_flight == 0);
    drop(draining);
}

#[test]
fn the_most_urgent_comes_first_and_of_those_what_most_have_asked_for() {
    let gate = Gate::new();
    let mut play = with_budget("in_flight = 1, queue = \"60s\"");
    play.origin(|o| {
        o.get("/first").hold(&gate).header(FRESH.0, FRESH.1).body("one");
        let targets =
            ["/rest", "/image", "/page", "/popular", "/rest-popular", "/warm", "/order"].map(str::to_owned);
        for target in targets {
            let reply = if target == "/order" { o.post(&target) } else { o.get(&target) };
            reply.header(FRESH.0, FRESH.1).body("one");
        }
    });
    let client = play.visitor();
    let mut talks = vec![client.get("/first").begin()];
    gate.wait_reached();
    let dest = |target: &str, dest: &str| client.get(target).header("Sec-Fetch-Dest", dest);
    talks.push(client.get("/warm").header("Accept", "text/html").header("Priority", "u=7").begin());
    talks.push(dest("/rest", "script").begin());
    talks.push(dest("/image", "image").begin());
    talks.push(dest("/page", "document").begin());
    talks.push(dest("/popular", "document").begin());
    talks.push(dest("/rest-popular", "font").begin());
    wait_for_waiting(&mut play, 6);
    for _ in 0..5 {
        talks.push(dest("/popular", "document").begin());
        talks.push(dest("/rest-popular", "font").begin());
    }
    talks.push(client.post("/order").begin());
    wait_for_waiting(&mut play, 7);
    wait_until("all to have asked", || budget(&mut play).askers == 17);
    gate.open();
    for talk in &mut talks {
        talk.expect(200);
    }
    let expected = [
        "GET /first",
        "POST /order",
        "GET /popular",
        "GET /page",
        "GET /image",
        "GET /rest-popular",
        "GET /rest",
        "GET /warm",
    ];
    assert_eq!(lines(&mut play), expected);
}

#[test]
fn who_has_something_stale_gets_it_at_the_deadline_and_its_fetch_waits_on() {
    let gate = Gate::new();
    let mut play = with_budget("in_flight = 1, queue = \"60s\", stale_deadline = \"50ms\"");
    play.origin(|o| {
        o.get("/a").header(FRESH.0, FRESH.1).body("old");
        o.get("/strict").header("Cache-Control", "max-age=60, must-revalidate").body("old");
        o.get("/held").hold(&gate).body("one");
        o.get("/strict").header(FRESH.0, FRESH.1).body("new");
        o.get("/a").header(FRESH.0, FRESH.1).body("new");
    });
    let client = play.visitor();
    client.get("/a").expect(200).body("old");
    client.get("/strict").expect(200).body("old");
    play.pass_secs(61);
    let mut held = client.get("/held").begin();
    gate.wait_reached();
    for _ in 0..3 {
        client.get("/a").expect(200).body("old").why("stale-budget").header_has("Cache-Status", "fwd=stale");
    }
    // What says that it must not be served stale is not, however short the budget (RFC 9111 §5.2.2.2).
    let mut strict = client.get("/strict").begin();
    wait_for_waiting(&mut play, 2);
    gate.open();
    held.expect(200);
    strict.expect(200).body("new");
    // And who has nothing else came first.
    wait_until("the fetch for it", || client.get("/a").expect(200).text() == "new");
    assert_eq!(lines(&mut play)[2..], ["GET /held", "GET /strict", "GET /a"]);
}

#[test]
fn a_slow_origin_makes_nobody_wait_longer_who_has_something_stale() {
    let gate = Gate::new();
    let mut play = with_budget("in_flight = 5, stale_deadline = \"50ms\"");
    play.origin(|o| {
        o.get("/a").header(FRESH.0, FRESH.1).body("old");
        o.get("/a").hold(&gate).header(FRESH.0, FRESH.1).body("new");
    });
    let client = play.visitor();
    client.get("/a").expect(200).body("old");
    play.pass_secs(61);
    client.get("/a").expect(200).body("old").why("stale-budget");
    gate.wait_reached();
    gate.open();
    wait_until("the new one", || client.get("/a").expect(200).text() == "new");
}

#[test]
fn what_was_purged_hard_is_never_served_stale() {
    let gate = Gate::new();
    let mut play = with_budget("in_flight = 1, queue = \"100ms\", stale_deadline = \"50ms\"");
    play.origin(|o| {
        o.get("/a").header(FRESH.0, FRESH.1).body("old");
        o.get("/held").hold(&gate).body("one");
    });
    let client = play.visitor();
    client.get("/a").expect(200).body("old");
    let mut held = client.get("/held").begin();
    gate.wait_reached();
    play.purge("everything");
    client.get("/a").expect(503).why("origin-budget");
    gate.open();
    held.expect(200);
}

#[test]
fn after_a_purge_of_everything_what_most_ask_for_is_back_first() {
    const KEYS: usize = 12;
    let mut play = with_budget("requests_per_second = 3, queue = \"60s\", stale_deadline = \"20ms\"");
    play.origin(|o| {
        for number in 0..KEYS {
            o.get(&format!("/{number}")).header(FRESH.0, FRESH.1).body("old");
            o.get(&format!("/{number}")).header(FRESH.0, FRESH.1).body("new");
        }
    });
    let client = play.visitor();
    for number in 0..KEYS {
        client.get(&format!("/{number}")).expect(200).body("old");
        play.pass_secs(number as u64 % 2 + 1);
    }
    play.pass_secs(2);
    // The budget of this second is used up by something else.
    play.origin(|o| (0..3).for_each(|_| drop(o.post("/form").body("done"))));
    (0..3).for_each(|_| drop(client.post("/form").expect(200)));
    play.soft_purge("everything");
    // The higher the number, the more ask for it. Nobody waits.
    for number in 0..KEYS {
        for _ in 0..=number {
            client.get(&format!("/{number}")).expect(200).body("old").why("stale-while-revalidate");
        }
    }
    for second in 1..=KEYS / 3 {
        play.pass_secs(2);
        play.origin_is_asked(KEYS + 3 + second * 3);
        play.origin_saw(KEYS + 3 + second * 3);
        let mut asked = lines(&mut play).split_off(KEYS + second * 3);
        asked.sort();
        let mut expected: Vec<String> =
            (KEYS - second * 3..KEYS - second * 3 + 3).map(|number| format!("GET /{number}")).collect();
        expected.sort();
        assert_eq!(asked, expected, "in second {second}");
    }
}

#[test]
fn a_budget_that_is_made_smaller_holds_at_once_and_counts_what_was_asked_before() {
    let mut play = with_budget("requests_per_second = 5, queue = \"100ms\"");
    play.origin(|o| {
        (0..8).for_each(|number| drop(o.get(&format!("/{number}")).header(FRESH.0, FRESH.1).body("one")));
    });
    let client = play.visitor();
    (0..4).for_each(|number| drop(client.get(&format!("/{number}")).expect(200)));
    let smaller = play.config_text().replace("requests_per_second = 5", "requests_per_second = 4");
    play.reconfigure(&smaller);
    client.get("/4").expect(503).why("origin-budget");
    play.pass_secs(2);
    (4..8).for_each(|number| drop(client.get(&format!("/{number}")).expect(200)));
    client.get("/9").expect(503).why("origin-budget");
}

#[test]
fn all_rules_with_one_origin_draw_on_one_budget() {
    let mut play = play();
    play.site(
        "origin_options = { budget = { requests_per_second = 1, queue = \"100ms\" } }\n\
         [[site.rule]]\npath = \"/slow/*\"\norigin_options = { timeouts = { first_byte = \"59s\" } }",
    );
    play.visitor();
    play.pass_secs(2);
    play.origin(|o| drop(o.get("/slow/a").header(FRESH.0, FRESH.1).body("one")));
    play.client(|c| {
        c.get("/slow/a").expect(200);
        c.get("/b").expect(503).why("origin-budget");
    });
    assert_eq!(play.handle().status().budgets.len(), 1);
}

#[test]
fn what_the_budget_does_is_seen_in_metrics() {
    let mut play = with_budget("requests_per_second = 1, in_flight = 7, queue = \"50ms\"");
    play.origin(|o| drop(o.get("/a").header(FRESH.0, FRESH.1).body("one")));
    play.client(|c| {
        c.get("/a").expect(200);
        c.get("/b").expect(503);
    });
    let text = play.handle().registry().render();
    let value = |family: &str, of: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{family}{{")) && line.contains(of));
        line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.to_owned())
    };
    let seen = [
        value("perigee_origin_budget", "of=\"in_flight\""),
        value("perigee_origin_budget_allowed", "of=\"requests_per_second\""),
        value("perigee_origin_budget_used", "of=\"requests_per_second\""),
        value("perigee_origin_budget_waiting", "site=\"site\""),
        value("perigee_origin_budget_refused_total", "site=\"site\""),
    ];
    let seen: Vec<&str> = seen.iter().map(|value| value.as_deref().unwrap_or("none")).collect();
    assert_eq!(seen, ["7", "1", "1", "0", "1"], "{text}");
}
