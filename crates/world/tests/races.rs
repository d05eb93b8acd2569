//! Races: orders of events that once broke an invariant, each played out to its end.

use world::play::{Client, Play, Reply, Talk, speaks_http2, wait_until};
use world::wire::Head;
use world::{Gate, play};

const FRESH: &str = "max-age=3600";

/// A play whose edge has one worker, with further lines for `[edge]`. One worker takes what comes in the order in which
/// it comes, so that [`let_it_read`] tells when it has read what was sent before.
fn one_worker(edge: &str) -> Play {
    let mut play = play();
    play.config(&format!(
        "[edge]\nworkers = 1\n{edge}\n\n[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{{origin}}\"\n"
    ));
    play.origin(|o| o.get("/later").header("Cache-Control", "no-store").body("later").always());
    play
}

/// Returns when somebody who came after all the others was asked for at the origin and has an answer.
fn let_it_read(client: &Client) {
    client.get("/later").expect(200).body("later");
}

/// How often the origin was asked for `/a`.
fn asked_for_a(play: &mut Play) -> usize {
    let mut asked = 0;
    play.origin(|o| asked = o.seen().iter().filter(|seen| seen.head.method_and_target().1 == "/a").count());
    asked
}

/// Blank lines before a request, cut by the network: `HeadScan::scan` slices behind the end of the buffer.
#[test]
fn blank_lines_in_pieces_do_not_kill_the_connection() {
    let mut play = one_worker("");
    play.origin(|o| o.get("/a").header("Cache-Control", FRESH).body("one"));
    let client = play.visitor();
    let mut talk = client.connect();
    talk.say("\r\n\r\n");
    let_it_read(&client);
    talk.say("G");
    let_it_read(&client);
    talk.say("ET /a HTTP/1.1\r\nHost: site.example\r\n\r\n");
    talk.expect(200).body("one");
}

/// Who asks after a purge by tag must not follow a fetch that began before it.
#[test]
fn after_a_tag_purge_nobody_follows_an_older_fetch() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.origin(|o| {
        o.get("/a").hold(&gate).header("Cache-Control", FRESH).header("Surrogate-Key", "t").body("old");
        o.get("/a").header("Cache-Control", FRESH).header("Surrogate-Key", "t").body("new").always();
    });
    let client = play.visitor();
    let mut first = client.get("/a").begin();
    gate.wait_reached();
    play.purge("tag t");
    // Which tags the answer under way will have nobody knows yet: the second waits for it, and must not take it.
    let mut second = client.get("/a").begin();
    let_it_read(&client);
    gate.open();
    first.expect(200).body("old");
    second.expect(200).body("new");
}

/// A whole is asked for while a stale part is validated: the part must not be its answer.
#[test]
fn a_validated_part_is_no_answer_to_who_wants_the_whole() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.origin(|o| {
        o.get("/a")
            .reply(206)
            .header("Cache-Control", "max-age=10, stale-while-revalidate=100")
            .header("ETag", "\"1\"")
            .header("Content-Range", "bytes 5-9/10")
            .body("56789");
    });
    play.client(|c| c.get("/a").header("Range", "bytes=5-9").expect(206).body("56789"));
    play.pass_secs(20);
    play.origin(|o| {
        o.get("/a").hold(&gate).reply(304).header("Cache-Control", "max-age=10").header("ETag", "\"1\"");
        o.get("/a").header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body("0123456789").always();
    });
    let client = play.visitor();
    client.get("/a").header("Range", "bytes=5-9").expect(206).body("56789");
    gate.wait_reached();
    let mut second = client.get("/a").begin();
    let_it_read(&client);
    gate.open();
    second.expect(200).body("0123456789");
}

/// A part that a 304 has confirmed is fresh again.
#[test]
fn a_confirmed_part_is_fresh() {
    let mut play = play();
    play.origin(|o| {
        o.get("/a")
            .reply(206)
            .header("Cache-Control", "max-age=10, stale-while-revalidate=100")
            .header("ETag", "\"1\"")
            .header("Content-Range", "bytes 5-9/10")
            .body("56789");
    });
    play.client(|c| c.get("/a").header("Range", "bytes=5-9").expect(206).body("56789"));
    play.pass_secs(20);
    play.origin(|o| {
        o.get("/a").reply(304).header("ETag", "\"1\"");
    });
    play.client(|c| c.get("/a").header("Range", "bytes=5-9").expect(206).body("56789"));
    let client = play.visitor();
    wait_until("the confirmed part to be fresh", || {
        let answer = client.get("/a").header("Range", "bytes=5-9").expect(206).body("56789");
        let answer = answer.why_in(&["fresh", "stale-while-revalidate"]);
        answer.response().head.field("cache-status").is_some_and(|status| status.contains("detail=fresh"))
    });
}

/// A 304 that says `private` is about one visitor: its fields do not go into what others get.
#[test]
fn what_a_private_304_says_is_not_kept() {
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body("one");
    });
    play.client(|c| c.get("/a").expect(200).body("one"));
    play.pass_secs(20);
    play.origin(|o| {
        let reply = o.get("/a").reply(304).header("ETag", "\"1\"");
        reply.header("Cache-Control", "private").header("X-User", "alice");
        o.get("/a").header("Cache-Control", "max-age=10").body("two");
    });
    play.client(|c| {
        c.get("/a").header("Cookie", "user=alice").expect(200).body("one");
        c.get("/a").expect(200).no_header("X-User").body("two");
    });
}

/// An object of a rule that sees cookies is outdated by a POST that matches another rule.
#[test]
fn a_post_outdates_what_other_rules_stored() {
    let mut play = play();
    play.site(
        "[[site.rule]]\npath = \"/*\"\nwith_header = { X-App = \"1\" }\nkey = { headers = [\"X-App\"] }",
    );
    play.origin(|o| {
        o.get("/a").header("Cache-Control", FRESH).body("old");
        o.post("/a").body("done");
        o.get("/a").header("Cache-Control", FRESH).body("new").always();
    });
    play.client(|c| {
        c.get("/a").header("X-App", "1").expect(200).body("old");
        c.post("/a").with_body("x").expect(200);
        c.get("/a").header("X-App", "1").expect(200).body("new");
    });
}

/// The conditions of a POST were the origin's to judge.
#[test]
fn a_post_with_if_match_gets_the_answer_of_the_origin() {
    let mut play = play();
    play.origin(|o| {
        o.post("/a")
            .header("Cache-Control", FRESH)
            .header("Content-Location", "/a")
            .header("ETag", "\"2\"")
            .body("two");
    });
    play.client(|c| c.post("/a").header("If-Match", "\"1\"").with_body("x").expect(200).body("two"));
}

/// A purge while a POST is under way.
#[test]
fn the_answer_to_a_post_is_as_old_as_its_request() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.post("/a").hold(&gate).header("Cache-Control", FRESH).header("Content-Location", "/a").body("old");
        o.get("/a").header("Cache-Control", FRESH).body("new");
    });
    let client = play.visitor();
    let mut post = client.post("/a").with_body("x").begin();
    gate.wait_reached();
    play.purge("url http://site.example/a");
    gate.open();
    post.expect(200).body("old");
    client.get("/a").expect(200).body("new");
}

/// The same when another POST has changed it meanwhile: its visitor has been told that it is done.
#[test]
fn the_answer_to_a_post_is_older_than_what_was_posted_meanwhile() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.post("/a").hold(&gate).header("Cache-Control", FRESH).header("Content-Location", "/a").body("old");
        o.post("/a").body("done");
        o.get("/a").header("Cache-Control", FRESH).body("new");
    });
    let client = play.visitor();
    let mut post = client.post("/a").with_body("x").begin();
    gate.wait_reached();
    client.post("/a").with_body("y").expect(200).body("done");
    gate.open();
    post.expect(200).body("old");
    client.get("/a").expect(200).body("new");
}

/// A fetch of a variant, overtaken by a POST: what it brings is outdated.
#[test]
fn a_post_outdates_the_variant_that_is_in_flight() {
    let gate = Gate::new();
    let mut play = play();
    let vary = ("Vary", "X-Kind");
    play.origin(|o| {
        o.get("/a").header("Cache-Control", FRESH).header(vary.0, vary.1).body("first kind");
        o.get("/a").hold(&gate).header("Cache-Control", FRESH).header(vary.0, vary.1).body("old");
        o.post("/a").body("done");
        o.get("/a").header("Cache-Control", FRESH).header(vary.0, vary.1).body("new").always();
    });
    let client = play.visitor();
    client.get("/a").header("X-Kind", "1").expect(200);
    let mut slow = client.get("/a").header("X-Kind", "2").begin();
    gate.wait_reached();
    client.post("/a").with_body("x").expect(200);
    gate.open();
    slow.expect(200).body("old");
    client.get("/a").header("X-Kind", "2").expect(200).body("new");
}

/// The same for a range that is in flight.
#[test]
fn a_post_outdates_the_range_that_is_in_flight() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        let part = |reply: world::play::Reply, body: &str| {
            reply.reply(206).header("Cache-Control", FRESH).header("Content-Range", "bytes 0-2/10").body(body)
        };
        part(o.get("/a").hold(&gate), "old");
        o.post("/a").body("done");
        part(o.get("/a"), "new").always();
    });
    let client = play.visitor();
    let mut slow = client.get("/a").header("Range", "bytes=0-2").begin();
    gate.wait_reached();
    client.post("/a").with_body("x").expect(200);
    gate.open();
    slow.expect(206).body("old");
    client.get("/a").header("Range", "bytes=0-2").expect(206).body("new");
}

/// What Connection takes away before the origin must not choose the variant.
#[test]
fn connection_cannot_hide_what_chooses_the_variant() {
    if speaks_http2() {
        // There is no such field (RFC 9113 §8.2.2).
        return;
    }
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", FRESH).header("Vary", "X-Kind").body("no kind");
        o.get("/a").header("Cache-Control", FRESH).header("Vary", "X-Kind").body("kind 1").always();
    });
    play.client(|c| {
        c.get("/a").header("X-Kind", "1").header("Connection", "x-kind").expect(200).body("no kind");
        c.get("/a").header("X-Kind", "1").expect(200).body("kind 1");
    });
}

/// The same for a header in the key.
#[test]
fn connection_cannot_hide_what_is_keyed() {
    if speaks_http2() {
        // There is no such field (RFC 9113 §8.2.2).
        return;
    }
    let mut play = play();
    play.site("key = { headers = [\"X-Kind\"] }").origin(|o| {
        o.get("/a").header("Cache-Control", FRESH).body("no kind");
        o.get("/a").header("Cache-Control", FRESH).body("kind 1").always();
    });
    play.client(|c| {
        c.get("/a").header("X-Kind", "1").header("Connection", "x-kind").expect(200).body("no kind");
        c.get("/a").header("X-Kind", "1").expect(200).body("kind 1");
    });
}

/// Within a second of a failure a missing key is still fetched once.
#[test]
fn after_a_failure_a_missing_key_still_costs_one_fetch() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.origin(|o| {
        o.get("/a").close();
        o.get("/a").hold(&gate).header("Cache-Control", FRESH).body("one").always();
    });
    let client = play.visitor();
    client.get("/a").expect_any();
    let before = asked_for_a(&mut play);
    let mut talks: Vec<Talk> = (0..10).map(|_| client.get("/a").begin()).collect();
    gate.wait_reached();
    let_it_read(&client);
    gate.open();
    for talk in &mut talks {
        talk.expect(200).body("one");
    }
    assert_eq!(asked_for_a(&mut play), before + 1);
}

/// Ranges and conditions of what is passed reach the origin.
#[test]
fn a_range_of_what_is_not_kept_stays_a_range() {
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "no-store").body("0123456789");
        o.get("/a")
            .expecting("Range", "bytes=0-2")
            .reply(206)
            .header("Cache-Control", "no-store")
            .header("Content-Range", "bytes 0-2/10")
            .body("012");
    });
    play.client(|c| {
        c.get("/a").expect(200);
        c.get("/a").header("Range", "bytes=0-2").expect(206).body("012");
    });
}

/// A condition on what is passed.
#[test]
fn a_condition_on_what_is_not_kept_reaches_the_origin() {
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "no-store").header("ETag", "\"1\"").body("0123456789");
        o.get("/a").expecting("If-None-Match", "\"1\"").reply(304).header("ETag", "\"1\"");
    });
    play.client(|c| {
        c.get("/a").expect(200);
        c.get("/a").header("If-None-Match", "\"1\"").expect(304);
    });
}

/// A first piece larger than the cache takes: nobody reads yet, but somebody will.
#[test]
fn an_answer_too_large_to_keep_reaches_the_one_who_asked() {
    let body = vec![b'x'; 400_000];
    let mut play = play();
    let config =
        "[store]\nmemory = \"1MiB\"\n\n[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\n";
    play.config(config);
    play.origin(|o| {
        for n in 0..20 {
            o.get(&format!("/{n}")).header("Cache-Control", FRESH).part(&body);
        }
    });
    let client = play.visitor();
    for n in 0..20 {
        client.get(&format!("/{n}")).expect(200).whole().body(&body);
    }
}

/// One request with `Cache-Control: no-store` must not undo collapsing for the others.
#[test]
fn a_request_with_no_store_does_not_undo_collapsing() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.site("request_cache_control = \"honour\"");
    play.origin(|o| {
        o.get("/a").hold(&gate).header("Cache-Control", FRESH).body("one").always();
    });
    let client = play.visitor();
    let mut first = client.get("/a").header("Cache-Control", "no-store").begin();
    gate.wait_reached();
    let mut talks: Vec<Talk> = (0..10).map(|_| client.get("/a").begin()).collect();
    let_it_read(&client);
    gate.open();
    first.expect(200);
    for talk in &mut talks {
        talk.expect(200).body("one");
    }
    let fetches = asked_for_a(&mut play);
    assert!(fetches <= 2, "{fetches} fetches");
}

/// The last chunk comes alone, the origin takes its time: no deadline may cut the answer.
#[test]
fn an_upload_that_is_over_has_no_deadline() {
    let gate = Gate::new();
    let body = "x".repeat(48 << 20);
    let mut play = one_worker(
        "limits = { header_timeout = \"1s\", body_stall_timeout = \"1s\", write_stall_timeout = \"20s\" }",
    );
    play.origin(|o| o.post("/a").hold(&gate).body(&body));
    let client = play.visitor();
    // Somebody who came later and took as long has had his time: so would the upload.
    let outlast_the_deadline = || {
        let mut late = client.connect();
        late.say("GET /a HTTP/1.1\r\n").expect(408);
    };
    let mut talk = client.connect();
    talk.say("POST /a HTTP/1.1\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    let_it_read(&client);
    talk.say("0\r\n\r\n");
    gate.wait_reached();
    outlast_the_deadline();
    gate.open();
    let head = talk.expect_head(200);
    outlast_the_deadline();
    talk.expect_part(&head, &body);
}

/// Each 304 must not add lines to the stored head: not Via, and no other.
#[test]
fn a_head_does_not_grow_with_each_304() {
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body("one");
        let reply = o.get("/a").reply(304).header("Cache-Control", "max-age=10").header("ETag", "\"1\"");
        reply.header("X-Seen", "yes").always();
    });
    let client = play.visitor();
    client.get("/a").expect(200).body("one").why("absent");
    let mut first = None;
    for _ in 0..50 {
        play.pass_secs(20);
        client.get("/a").expect(200).body("one").why("revalidated");
        let stored = client.get("/a").expect(200).body("one").why("fresh");
        let fields = &stored.response().head.fields;
        assert_eq!(fields.get_all("via").count(), 1, "{fields:?}");
        let lines = fields.len();
        assert_eq!(lines, *first.get_or_insert(lines), "{fields:?}");
    }
}

/// A long answer to a pipelining client that is told to close comes whole.
#[test]
fn the_last_answer_of_a_connection_comes_whole() {
    let body = "x".repeat(3 << 20);
    let mut play = one_worker("");
    play.origin(|o| o.get("/a").header("Cache-Control", FRESH).body(&body));
    let client = play.visitor();
    client.raw("GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n").status(200);
    for _ in 0..10 {
        let mut talk = client.connect();
        let mut text = String::from("GET /a HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n");
        for _ in 0..2000 {
            text.push_str("GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n");
        }
        talk.say(&text);
        // By then the edge has written what the socket takes, and closed if that was all.
        let head = talk.expect_head(200);
        let_it_read(&client);
        talk.expect_part(&head, &body);
    }
}

/// An interim response that HTTP/1.0 does not get must be taken from the queue all the same.
#[test]
fn an_interim_response_does_not_hang_the_worker_of_an_http_1_0_client() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.origin(|o| {
        o.get("/a")
            .interim(103, "Link: </a.css>; rel=preload\r\n")
            .hold(&gate)
            .header("Cache-Control", "max-age=60")
            .body("one");
    });
    let client = play.visitor();
    let mut talk = client.connect();
    talk.say("GET /a HTTP/1.0\r\nHost: site.example\r\n\r\n");
    gate.wait_reached();
    // By then the edge has had the interim response.
    let_it_read(&client);
    gate.open();
    talk.expect(200).body("one");
}

// --- Vary that changes ---

/// Reads each talk up to `part` of its answer, while the origin holds the rest.
fn each_has(talks: &mut [Talk], part: &str) -> Vec<Head> {
    let heads = talks.iter_mut().map(|talk| {
        let head = talk.expect_head(200);
        talk.expect_part(&head, part);
        head
    });
    heads.collect()
}

/// Each answer ends with this.
#[track_caller]
fn each_ends(talks: &mut [Talk], heads: &[Head], rest: &str) {
    talks.iter_mut().zip(heads).for_each(|(talk, head)| _ = talk.finish(head).body(rest));
}

/// An answer that varies no longer is for all who wait for it, and for all who come while it streams in.
#[test]
fn an_answer_that_varies_no_longer_is_for_all() {
    let (head, rest) = (Gate::new(), Gate::new());
    let mut play = one_worker("");
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=10").header("Vary", "X-Kind").body("kind 1");
        o.get("/a").hold(&head).header("Cache-Control", FRESH).part("for ").hold(&rest).part("all");
        o.get("/a").header("Cache-Control", FRESH).body("once more").always();
    });
    let client = play.visitor();
    let ask = |kind: &str| client.get("/a").header("X-Kind", kind).begin();
    ask("1").expect(200).body("kind 1");
    play.pass_secs(20);
    let mut talks = vec![ask("1")];
    head.wait_reached();
    talks.extend([ask("1"), ask("1"), ask("1")]);
    let_it_read(&client);
    head.open();
    let mut heads = each_has(&mut talks, "for ");
    let mut later = vec![ask("1"), ask("2"), ask("3")];
    heads.extend(each_has(&mut later, "for "));
    rest.open();
    talks.extend(later);
    each_ends(&mut talks, &heads, "all");
    assert_eq!(asked_for_a(&mut play), 2);
}

/// An answer that varies on something else is for those who agree in that; one fetch serves all others who agree.
#[test]
fn an_answer_that_varies_on_something_else_is_for_those_who_agree_in_that() {
    let (head, rest) = (Gate::new(), Gate::new());
    let mut play = one_worker("");
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=10").header("Vary", "X-Kind").body("kind 1");
        let reply = o.get("/a").expecting("X-Size", "small").hold(&head).header("Cache-Control", FRESH);
        reply.header("Vary", "X-Size").part("sma").hold(&rest).part("ll");
        let reply = o.get("/a").expecting("X-Size", "large").header("Cache-Control", FRESH);
        reply.header("Vary", "X-Size").part("lar").hold(&rest).part("ge");
        o.get("/a").header("Cache-Control", FRESH).body("once more").always();
    });
    let client = play.visitor();
    let ask = |kind: &str, size: &str| client.get("/a").header("X-Kind", kind).header("X-Size", size).begin();
    ask("1", "small").expect(200).body("kind 1");
    play.pass_secs(20);
    let mut small = vec![ask("1", "small")];
    head.wait_reached();
    let mut large: Vec<Talk> = (0..4).map(|_| ask("1", "large")).collect();
    small.push(ask("1", "small"));
    let_it_read(&client);
    head.open();
    let mut small_heads = each_has(&mut small, "sma");
    let mut later = vec![ask("1", "small"), ask("2", "small")];
    small_heads.extend(each_has(&mut later, "sma"));
    small.extend(later);
    let large_heads = each_has(&mut large, "lar");
    rest.open();
    each_ends(&mut small, &small_heads, "ll");
    each_ends(&mut large, &large_heads, "ge");
    assert_eq!(asked_for_a(&mut play), 3);
}

/// The response that is validated was chosen by an older Vary: who agrees only in the newer one must not get it.
#[test]
fn what_is_confirmed_is_for_those_only_whom_its_own_vary_allows() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.origin(|o| {
        let reply = o.get("/a").header("Cache-Control", "max-age=10").header("Vary", "X-Kind");
        reply.header("ETag", "\"1\"").body("kind 1");
        o.get("/a").header("Cache-Control", FRESH).header("Vary", "X-Size").body("large");
        let reply = o.get("/a").expecting("If-None-Match", "\"1\"").hold(&gate).reply(304);
        reply.header("Cache-Control", "max-age=10").header("ETag", "\"1\"");
        o.get("/a").header("Cache-Control", FRESH).header("Vary", "X-Kind").body("kind 2").always();
    });
    let client = play.visitor();
    let ask = |kind: &str, size: &str| client.get("/a").header("X-Kind", kind).header("X-Size", size).begin();
    ask("1", "small").expect(200).body("kind 1");
    ask("2", "large").expect(200).body("large");
    play.pass_secs(20);
    let mut first = ask("1", "small");
    gate.wait_reached();
    let mut second = ask("2", "small");
    let_it_read(&client);
    gate.open();
    first.expect(200).body("kind 1");
    second.expect(200).body("kind 2");
}

/// Who prefers the same language in other words waits for the same fetch, and has its answer.
#[test]
fn an_answer_in_the_preferred_language_is_for_all_who_prefer_it() {
    let (head, rest) = (Gate::new(), Gate::new());
    let mut play = one_worker("");
    let german = |reply: Reply, freshness| {
        let reply = reply.header("Cache-Control", freshness).header("Vary", "Accept-Language");
        reply.header("Content-Language", "de")
    };
    play.origin(|o| {
        german(o.get("/a"), "max-age=10").body("alt");
        german(o.get("/a").hold(&head), FRESH).part("ne").hold(&rest).part("u");
        german(o.get("/a"), FRESH).body("noch einmal").always();
    });
    let client = play.visitor();
    let ask = |languages: &str| client.get("/a").header("Accept-Language", languages).begin();
    ask("de").expect(200).body("alt");
    play.pass_secs(20);
    let mut talks = vec![ask("en;q=0.5, de")];
    head.wait_reached();
    talks.extend([ask("fr;q=0.5, de"), ask("de, en;q=0.3"), ask("en;q=0.5, de")]);
    let_it_read(&client);
    head.open();
    let heads = each_has(&mut talks, "ne");
    rest.open();
    each_ends(&mut talks, &heads, "u");
    assert_eq!(asked_for_a(&mut play), 2);
}

/// That the responses vary comes out by a fetch that nobody can follow, while another one is under way.
#[test]
fn who_comes_after_vary_came_out_follows_the_fetch_that_began_before() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.origin(|o| {
        let reply = o.get("/a").hold(&gate).header("Cache-Control", FRESH).header("Vary", "X-Kind");
        reply.body("kind 1");
        let reply = o.get("/a").expecting("Authorization", "Basic eDp5").header("Vary", "X-Kind");
        reply.header("Cache-Control", "public, max-age=3600").body("kind 2");
        o.get("/a").header("Cache-Control", FRESH).header("Vary", "X-Kind").body("another kind").always();
    });
    let client = play.visitor();
    let ask = |kind: &str| client.get("/a").header("X-Kind", kind);
    let mut first = ask("1").begin();
    gate.wait_reached();
    ask("2").header("Authorization", "Basic eDp5").expect(200).body("kind 2");
    // Known to have another answer, so it waits for nobody.
    ask("3").expect(200).body("another kind");
    let mut second = ask("1").begin();
    let_it_read(&client);
    gate.open();
    first.expect(200).body("kind 1").why("absent");
    second.expect(200).body("kind 1").why("collapsed");
    assert_eq!(asked_for_a(&mut play), 3);
}

// --- A purge between looking and fetching: what was found before it must not be stored as what came after it. ---

/// An origin that sends a wrong part first, and is mended in place, under the same ETag.
fn begin_wrongly(play: &mut Play, gate: &Gate) {
    play.origin(|o| {
        o.get("/a")
            .reply(206)
            .header("Cache-Control", FRESH)
            .header("ETag", "\"1\"")
            .header("Content-Range", "bytes 0-4/10")
            .body("wrong");
        o.get("/a").hold(gate).header("Cache-Control", FRESH).header("ETag", "\"1\"").file("0123456789");
        o.get("/a").header("Cache-Control", FRESH).header("ETag", "\"1\"").file("0123456789").always();
    });
}

/// Who has followed a fetch from before the purge fetches alone then, and still has the part that it found.
#[test]
fn a_purged_part_does_not_come_back_as_the_beginning_of_the_whole() {
    let gate = Gate::new();
    let mut play = one_worker("");
    begin_wrongly(&mut play, &gate);
    let client = play.visitor();
    client.get("/a").header("Range", "bytes=0-4").expect(206).body("wrong");
    let mut first = client.get("/a").begin();
    gate.wait_reached();
    let mut second = client.get("/a").begin();
    let_it_read(&client);
    play.purge("url http://site.example/a");
    gate.open();
    first.expect(200);
    second.expect(200).body("0123456789");
    client.get("/a").expect(200).body("0123456789");
}

/// What is stored under the key when a part has come may be purged, too.
#[test]
fn a_purged_part_is_not_put_to_one_that_was_fetched_after_the_purge() {
    let gate = Gate::new();
    let mut play = one_worker("");
    begin_wrongly(&mut play, &gate);
    let client = play.visitor();
    client.get("/a").header("Range", "bytes=0-4").expect(206).body("wrong");
    let mut first = client.get("/a").header("Range", "bytes=5-9").begin();
    gate.wait_reached();
    let mut second = client.get("/a").header("Range", "bytes=5-9").begin();
    let_it_read(&client);
    play.purge("url http://site.example/a");
    gate.open();
    first.expect(206).body("56789");
    second.expect(206).body("56789");
    client.get("/a").header("Range", "bytes=0-4").expect(206).body("01234");
}

/// The same for something stale: the origin says that it is unchanged, and its ETag is all that it goes by.
#[test]
fn what_is_stale_and_purged_is_not_confirmed() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body("wrong");
        o.get("/a").hold(&gate).header("Cache-Control", FRESH).header("ETag", "\"2\"").body("other");
        o.get("/a").header("Cache-Control", FRESH).header("ETag", "\"1\"").file("right").always();
    });
    let client = play.visitor();
    client.get("/a").expect(200).body("wrong");
    play.pass_secs(20);
    let mut first = client.get("/a").begin();
    gate.wait_reached();
    let mut second = client.get("/a").begin();
    let_it_read(&client);
    play.purge("url http://site.example/a");
    gate.open();
    first.expect(200).body("other");
    second.expect(200).body("right");
    client.get("/a").expect(200).body("right");
}

/// What may answer when the origin fails may have been purged meanwhile.
#[test]
fn what_is_stale_and_purged_does_not_answer_when_the_origin_fails() {
    let gate = Gate::new();
    let mut play = one_worker("");
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=10, stale-if-error=1000").body("old");
        o.get("/a").hold(&gate).reply(500).body("trouble");
        o.get("/a").header("Cache-Control", FRESH).body("new");
    });
    let client = play.visitor();
    client.get("/a").expect(200).body("old");
    play.pass_secs(20);
    let mut first = client.get("/a").begin();
    gate.wait_reached();
    play.purge("url http://site.example/a");
    gate.open();
    first.expect(200).body("new");
    client.get("/a").expect(200).body("new");
}
