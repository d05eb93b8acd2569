//! The language itself, without an edge: clients talk to the scripted origin.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Gate, play};

#[test]
fn an_origin_answers_what_was_scripted_each_reply_once_and_in_order() {
    play()
        .without_edge()
        .origin(|o| {
            o.get("/a").reply(200).header("X-Number", "1").body("one");
            o.get("/a").reply(404).header("Expires", "{now+60}").body("two");
            o.post("/a").expecting("Content-Length", "3").reply(201);
        })
        .client(|c| {
            c.get("/a")
                .expect(200)
                .body("one")
                .header("x-number", "1")
                .header("Date", "Fri, 15 Jan 2027 08:00:00 GMT");
            c.post("/a").with_body("abc").expect(201).body("");
        })
        .pass_secs(61)
        .client(|c| {
            c.get("/a")
                .expect(404)
                .body("two")
                .header("Expires", "Fri, 15 Jan 2027 08:02:01 GMT")
                .no_header("x-number")
        })
        .origin_saw(3)
        .origin_last_saw(|seen| {
            seen.header("host", "site.example").no_header("accept");
        });
}

#[test]
fn a_body_arrives_piece_by_piece_as_the_gate_allows() {
    let (first, second) = (Gate::new(), Gate::new());
    let mut play = play();
    play.without_edge().origin(|o| {
        o.get("/chunked").hold(&first).part("one").hold(&second).part("two");
    });
    let mut talk = play.visitor().get("/chunked").begin();
    first.wait_reached();
    first.open();
    let head = talk.expect_head(200);
    talk.expect_part(&head, "one");
    second.wait_reached();
    second.open();
    talk.finish(&head).body("two");
}

#[test]
fn bodies_that_end_early_are_told_from_whole_ones() {
    play()
        .without_edge()
        .origin(|o| {
            o.get("/length").header("Content-Length", "10").part("abc").close();
            o.get("/chunks").part("abc").close();
            o.get("/reset").header("Content-Length", "10").part("abc").reset();
            o.get("/close").until_close().part("abc").close();
            o.get("/raw").raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
        })
        .client(|c| {
            c.get("/length").expect(200).cut();
            c.get("/chunks").expect(200).cut();
            assert_eq!(c.get("/close").expect(200).whole().text(), "abc");
            c.get("/raw").expect(200).body("a");
            c.get("/reset").begin().rest();
        });
}

#[test]
fn interim_responses_come_before_the_final_one() {
    play()
        .without_edge()
        .origin(|o| o.get("/").interim(103, "Link: </a.css>; rel=preload\r\n").body("x"))
        .client(|c| c.get("/").expect(200).interim(&[103]).body("x"));
}

#[test]
fn what_was_not_foreseen_and_what_did_not_happen_fail_the_play() {
    for (act, complaint) in [
        (0, "nobody foresaw that the origin is asked for GET /unforeseen HTTP/1.1"),
        (1, "nobody asked the origin for GET /unused"),
        (2, "Accept is None"),
    ] {
        let fails = catch_unwind(AssertUnwindSafe(|| {
            let mut play = play();
            play.without_edge();
            match act {
                0 => drop(play.visitor().get("/unforeseen").expect(500)),
                1 => drop(play.origin(|o| o.get("/unused").body("x"))),
                _ => {
                    play.origin(|o| o.get("/").expecting("Accept", "x").body("x"));
                    play.client(|c| c.get("/").expect(200));
                }
            }
        }));
        let message = *fails.expect_err("the play fails").downcast::<String>().unwrap();
        assert!(message.contains(complaint), "{message}");
    }
}

#[test]
fn the_origin_remembers_every_byte_it_received() {
    let mut play = play();
    play.without_edge().origin(|o| o.post("/a").body("x"));
    play.origin_saw_nothing();
    play.client(|c| {
        c.raw("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    });
    play.origin_last_saw(|seen| assert_eq!(seen.body.bytes, b"abc"));
    play.origin(|o| assert!(o.received().starts_with(b"POST /a HTTP/1.1\r\nHost: x\r\n")));
}

#[test]
fn a_file_is_served_whole_in_parts_and_not_at_all() {
    let gate = Gate::new();
    let mut play = play();
    play.without_edge().origin(|o| {
        o.get("/file").always().header("ETag", "\"1\"").file("0123456789");
        o.get("/held").header("ETag", "\"1\"").hold_at(5, &gate).break_at(7).file("0123456789");
    });
    play.client(|c| {
        c.get("/file").expect(200).body("0123456789");
        let part = || c.get("/file").header("Range", "bytes=3-4");
        part().expect(206).body("34").header("Content-Range", "bytes 3-4/10");
        part().header("If-Range", "\"1\"").expect(206).body("34");
        part().header("If-Range", "\"2\"").expect(200).body("0123456789");
        c.get("/file").header("Range", "bytes=10-").expect(416).header("Content-Range", "bytes */10");
        c.get("/file").header("If-None-Match", "\"1\"").expect(304).body("");
    });
    let mut talk = play.visitor().get("/held").header("Range", "bytes=2-").begin();
    let head = talk.expect_head(206);
    talk.expect_part(&head, "234");
    gate.wait_reached();
    gate.open();
    talk.expect_part(&head, "56").expect_closed();
}
