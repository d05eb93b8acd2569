//! Many clients, one fetch: who follows a fill, who must not, and that nobody waits for nothing (invariant 5).

use world::play::Talk;
use world::{Gate, play};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

#[test]
fn many_clients_that_miss_one_key_cost_one_fetch_and_read_along() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header(FRESH.0, FRESH.1).part("begin, ").hold(&gate).part("end");
    });
    let client = play.visitor();
    let mut talks: Vec<Talk> = (0..40).map(|_| client.get("/a").begin()).collect();
    // Each gets the first part while the origin still holds the second.
    let heads: Vec<_> = talks
        .iter_mut()
        .map(|talk| {
            let head = talk.expect_head(200);
            talk.expect_part(&head, "begin, ");
            head
        })
        .collect();
    play.origin_saw(1);
    gate.open();
    for (talk, head) in talks.iter_mut().zip(&heads) {
        talk.finish(head).body("end");
    }
    play.client(|c| c.get("/a").expect(200).body("begin, end").why("fresh"));
}

#[test]
fn clients_that_wait_for_the_head_get_it_from_the_one_fetch() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| o.get("/a").hold(&gate).header(FRESH.0, FRESH.1).body("one"));
    let client = play.visitor();
    let mut talks: Vec<Talk> = (0..40).map(|_| client.get("/a").begin()).collect();
    gate.wait_reached();
    gate.open();
    for talk in &mut talks {
        talk.expect(200).body("one").why_in(&["absent", "collapsed", "fresh"]);
    }
    play.origin_saw(1);
}

#[test]
fn a_fill_outlives_the_client_that_began_it() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header(FRESH.0, FRESH.1).part("begin, ").hold(&gate).part("end");
    });
    let client = play.visitor();
    let mut first = client.get("/a").begin();
    let head = first.expect_head(200);
    first.expect_part(&head, "begin, ");
    let mut second = client.get("/a").begin();
    let second_head = second.expect_head(200);
    first.reset();
    gate.open();
    second.finish(&second_head).body("begin, end");
    // It is stored a moment after its last byte has been sent.
    play.client(|c| c.get("/a").expect(200).body("begin, end").why_in(&["fresh", "collapsed"]));
}

#[test]
fn a_client_that_leaves_does_not_disturb_the_others() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| o.get("/a").hold(&gate).header(FRESH.0, FRESH.1).body("one"));
    let client = play.visitor();
    let mut talks: Vec<Talk> = (0..10).map(|_| client.get("/a").begin()).collect();
    gate.wait_reached();
    for talk in talks.drain(..5) {
        talk.reset();
    }
    gate.open();
    for talk in &mut talks {
        talk.expect(200).body("one");
    }
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up() {
    let body = vec![b'x'; 8 << 20];
    let mut play = play();
    // With a validator, so that what memory does not take can be followed on disk.
    play.origin(|o| o.get("/large").header(FRESH.0, FRESH.1).header("ETag", "\"1\"").body(&body));
    let client = play.visitor();
    let _lazy = client.get("/large").begin();
    client.get("/large").expect(200).body(&body);
    client.get("/large").expect(200).body(&body);
    play.origin_saw(1);
}

#[test]
fn an_uncacheable_answer_goes_to_one_client_and_the_others_fetch_at_once() {
    let (head_gate, slow) = (Gate::new(), Gate::new());
    let mut play = play();
    play.origin(|o| {
        o.get("/mine")
            .hold(&head_gate)
            .header("Cache-Control", "private")
            .part("first, ")
            .hold(&slow)
            .part("end");
        for number in 2..=5 {
            o.get("/mine").header("Cache-Control", "private").body(format!("answer {number}"));
        }
    });
    let client = play.visitor();
    let mut first = client.get("/mine").begin();
    head_gate.wait_reached();
    let mut others: Vec<Talk> = (0..4).map(|_| client.get("/mine").begin()).collect();
    head_gate.open();
    // The first answer is still under way; each of the others has one of its own.
    let mut bodies: Vec<String> = others.iter_mut().map(|talk| talk.expect(200).text()).collect();
    bodies.sort();
    assert_eq!(bodies, ["answer 2", "answer 3", "answer 4", "answer 5"]);
    let head = first.expect_head(200);
    slow.open();
    first.finish(&head).body("first, end");
}

#[test]
fn behind_an_uncacheable_answer_nobody_queues() {
    let slow = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.get("/mine").header("Cache-Control", "private").body("one");
        o.get("/mine").hold(&slow).header("Cache-Control", "private").body("slow");
        o.get("/mine").header("Cache-Control", "private").body("three");
    });
    play.client(|c| c.get("/mine").expect(200).body("one").why("uncacheable"));
    let client = play.visitor();
    let mut second = client.get("/mine").begin();
    slow.wait_reached();
    client.get("/mine").expect(200).body("three").why("hit-for-miss");
    slow.open();
    second.expect(200).body("slow").why("hit-for-miss");
}

#[test]
fn an_answer_that_becomes_cacheable_again_is_stored() {
    play()
        .origin(|o| {
            o.get("/a").header("Cache-Control", "private").body("mine");
            o.get("/a").header(FRESH.0, FRESH.1).body("for all");
        })
        .client(|c| {
            c.get("/a").expect(200).body("mine").why("uncacheable");
            c.get("/a").expect(200).body("for all");
            c.get("/a").expect(200).body("for all").why("fresh");
        });
}

#[test]
fn requests_that_change_things_are_never_collapsed() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.post("/a").hold(&gate).body("one");
        o.post("/a").body("two");
    });
    let client = play.visitor();
    let mut first = client.post("/a").with_body("x").begin();
    gate.wait_reached();
    client.post("/a").with_body("y").expect(200).body("two").why("method");
    gate.open();
    first.expect(200).body("one");
}

#[test]
fn a_follower_for_whom_the_answer_turns_out_to_vary_gets_its_own() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a").expecting("Accept-Language", "de").hold(&gate).header(FRESH.0, FRESH.1);
        reply.header("Vary", "Accept-Language").body("deutsch");
        let reply = o.get("/a").expecting("Accept-Language", "fr").header(FRESH.0, FRESH.1);
        reply.header("Vary", "Accept-Language").body("français");
    });
    let client = play.visitor();
    let mut first = client.get("/a").header("Accept-Language", "de").begin();
    gate.wait_reached();
    let mut second = client.get("/a").header("Accept-Language", "fr").begin();
    let mut third = client.get("/a").header("Accept-Language", "de").begin();
    gate.open();
    first.expect(200).body("deutsch");
    second.expect(200).body("français");
    third.expect(200).body("deutsch");
    play.origin_saw(2);
}

#[test]
fn who_comes_while_a_varying_answer_streams_in_follows_it() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a").expecting("Accept-Language", "de").header(FRESH.0, FRESH.1);
        reply.header("Vary", "Accept-Language").part("deut").hold(&gate).part("sch");
        let reply = o.get("/a").expecting("Accept-Language", "fr").header(FRESH.0, FRESH.1);
        reply.header("Vary", "Accept-Language").body("français");
    });
    let client = play.visitor();
    let mut first = client.get("/a").header("Accept-Language", "de").begin();
    let first_head = first.expect_head(200);
    first.expect_part(&first_head, "deut");
    // By now it is known that the answer varies, and nothing is stored.
    let mut second = client.get("/a").header("Accept-Language", "de").begin();
    let second_head = second.expect_head(200);
    second.expect_part(&second_head, "deut");
    client.get("/a").header("Accept-Language", "fr").expect(200).body("français").why("variant");
    gate.open();
    first.finish(&first_head).body("sch").why("absent");
    second.finish(&second_head).body("sch").why("collapsed");
    play.origin_saw(2);
}

#[test]
fn when_the_one_fetch_fails_every_waiter_hears_of_it() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| o.get("/a").always().hold(&gate).close());
    let client = play.visitor();
    let mut talks: Vec<Talk> = (0..20).map(|_| client.get("/a").begin()).collect();
    gate.wait_reached();
    gate.open();
    for talk in &mut talks {
        talk.answer().status_in(&[502, 503]).whole();
    }
}

#[test]
fn a_fetch_without_waiters_is_not_waited_for_by_the_next() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| o.get("/a").hold(&gate).header("Cache-Control", "no-store").body("abandoned"));
    let first = play.visitor().get("/a").begin();
    gate.wait_reached();
    first.reset();
    play.origin(|o| o.get("/b").header(FRESH.0, FRESH.1).body("other"));
    play.client(|c| c.get("/b").expect(200).body("other"));
    gate.open();
}

#[test]
fn what_turned_out_too_large_to_keep_leaves_room_for_others() {
    let gate = Gate::new();
    let mut play = play();
    play.config(
        "[store]\nmemory = \"1MiB\"\n\n[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\n",
    );
    // Longer than the 20 KiB that one object may take, which nobody knows beforehand, and more of them than fills that are kept.
    let begin = vec![b'x'; 40 << 10];
    play.origin(|o| {
        for number in 0..13 {
            o.get(&format!("/{number}")).header(FRESH.0, FRESH.1).part(&begin).hold(&gate).part("end");
        }
        o.get("/small").header(FRESH.0, FRESH.1).body("small");
    });
    let client = play.visitor();
    let mut talks: Vec<Talk> = (0..13).map(|number| client.get(&format!("/{number}")).begin()).collect();
    let heads: Vec<_> = talks
        .iter_mut()
        .map(|talk| {
            let head = talk.expect_head(200);
            talk.expect_part(&head, &begin);
            head
        })
        .collect();
    client.get("/small").expect(200).body("small").why("absent");
    client.get("/small").expect(200).body("small").why_in(&["fresh", "collapsed"]);
    gate.open();
    for (talk, head) in talks.iter_mut().zip(&heads) {
        talk.finish(head).body("end");
    }
}
