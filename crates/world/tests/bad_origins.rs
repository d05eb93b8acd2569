//! Origins that break off, contradict themselves or say what no origin may say: no wrong or short body leaves as
//! whole (invariant 4), nothing of it is stored, and the next request gets a new chance. RFC 9112 §6.3, §8; RFC 9111 §3.

use world::wire::End;
use world::{Gate, play};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// The origin first answers with `broken`, then well. The first client must not take the first answer for whole, and
/// the second must get the second one.
#[track_caller]
fn check_cut(broken: &str, script: impl Fn(&world::play::Origin)) {
    let mut play = play();
    play.origin(|o| {
        script(o);
        o.get("/a").header(FRESH.0, FRESH.1).body("whole");
    });
    let mut talk = play.visitor().get("/a").begin();
    let rest = talk.rest_or_response();
    if let Some(response) = rest {
        let status = response.response().head.status();
        let cut = response.response().body.end == End::Cut;
        assert!(cut || status >= 500, "{broken}: a broken answer ended well:\n{response:?}");
    }
    play.client(|c| c.get("/a").expect(200).body("whole").why_in(&["absent"]));
    play.client(|c| c.get("/a").expect(200).body("whole").why("fresh"));
}

#[test]
fn a_body_cut_short_is_neither_stored_nor_ended() {
    check_cut("fewer bytes than Content-Length", |o| {
        o.get("/a").header(FRESH.0, FRESH.1).header("Content-Length", "10").part("short").close();
    });
    check_cut("a reset inside Content-Length", |o| {
        o.get("/a").header(FRESH.0, FRESH.1).header("Content-Length", "10").part("short").reset();
    });
    check_cut("chunks without the last", |o| {
        o.get("/a").header(FRESH.0, FRESH.1).part("short").close();
    });
    check_cut("a close inside a chunk", |o| {
        o.get("/a").header(FRESH.0, FRESH.1).part("short").raw("a\r\nhalf").close();
    });
    check_cut("a close inside the trailers", |o| {
        o.get("/a").header(FRESH.0, FRESH.1).part("short").raw("0\r\nX-Trailer: a\r\n").close();
    });
    check_cut("a reset after chunks", |o| {
        o.get("/a").header(FRESH.0, FRESH.1).part("short").reset();
    });
    check_cut("a reset of a body that only the close ends", |o| {
        o.get("/a").header(FRESH.0, FRESH.1).until_close().part("short").reset();
    });
}

#[test]
fn chunks_that_break_the_grammar_are_neither_stored_nor_ended() {
    for broken in [
        "xyz\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello, world\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
    ] {
        check_cut(broken, |o| {
            o.get("/a").header(FRESH.0, FRESH.1).part("begin ").raw(broken).close();
        });
    }
}

#[test]
fn a_response_head_that_breaks_the_rules_is_no_answer() {
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n{lines}\r\nhello");
    for (name, raw) in [
        ("two lengths that differ", head("Content-Length: 5\r\nContent-Length: 4\r\n")),
        ("a list of lengths that differ", head("Content-Length: 5, 4\r\n")),
        ("a length that is no number", head("Content-Length: five\r\n")),
        ("a negative length", head("Content-Length: -5\r\n")),
        ("a length that overflows", head("Content-Length: 99999999999999999999\r\n")),
        ("a name with a space", head("X Y: z\r\nContent-Length: 5\r\n")),
        ("a space before the colon", head("X-Y : z\r\nContent-Length: 5\r\n")),
        ("NUL in a value", head("X-Y: a\0b\r\nContent-Length: 5\r\n")),
        ("not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned()),
        ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned()),
        ("a status that is no number", "HTTP/1.1 abc OK\r\nContent-Length: 5\r\n\r\nhello".to_owned()),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le".to_owned()),
        ("an endless head", format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(3 << 20))),
        (
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello".to_owned(),
        ),
    ] {
        let mut play = play();
        play.origin(|o| o.get("/a").always().raw(&raw).close());
        play.client(|c| {
            let answer = c.get("/a").expect_any();
            let status = answer.response().head.status();
            assert!(matches!(status, 502..=504), "{name}: {status}");
            answer.whole();
        });
    }
}

#[test]
fn an_origin_that_closes_without_an_answer_is_a_bad_gateway() {
    let mut play = play();
    play.origin(|o| o.get("/a").always().close());
    play.client(|c| c.get("/a").expect(502).whole().header("Cache-Control", "no-store"));
}

#[test]
fn an_origin_that_nobody_can_reach_is_a_bad_gateway() {
    play().config("[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{nowhere}\"\n").client(|c| {
        c.get("/a").expect_any().status_in(&[502, 503]).why_in(&["origin-connect", "origin-down"])
    });
}

#[test]
fn bytes_behind_a_response_never_become_the_next_one() {
    play()
        .origin(|o| {
            let stray = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 6\r\n\r\nforged";
            let first = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 5\r\n\r\nfirst";
            o.get("/first").raw(format!("{first}{stray}"));
            o.get("/second").header(FRESH.0, FRESH.1).body("second");
        })
        .client(|c| {
            c.get("/first").expect(200).body("first");
            c.get("/second").expect(200).body("second");
            c.get("/second").expect(200).body("second").why("fresh");
        });
}

#[test]
fn an_excess_of_body_is_cut_to_its_length() {
    play()
        .origin(|o| o.get("/a").header(FRESH.0, FRESH.1).header("Content-Length", "5").part("hello, world"))
        .client(|c| c.get("/a").expect(200).body("hello"))
        .client(|c| c.get("/a").expect(200).body("hello").why("fresh"));
}

#[test]
fn a_body_behind_204_and_304_is_not_taken_for_a_response() {
    for status in [204, 304] {
        play()
            .origin(|o| {
                o.get("/none").raw(format!(
                    "HTTP/1.1 {status} X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
                ));
                o.get("/next").body("next");
            })
            .client(|c| {
                c.get("/none").expect(status).body("");
                c.get("/next").expect(200).body("next");
            });
    }
}

#[test]
fn every_reader_of_a_fill_that_breaks_can_tell() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.get("/a").header(FRESH.0, FRESH.1).part("begin").hold(&gate).close();
    });
    let client = play.visitor();
    let mut talks: Vec<_> = (0..10).map(|_| client.get("/a").begin()).collect();
    let heads: Vec<_> = talks.iter_mut().map(|talk| talk.expect_head(200)).collect();
    for (talk, head) in talks.iter_mut().zip(&heads) {
        talk.expect_part(head, "begin");
    }
    gate.open();
    for (talk, head) in talks.iter_mut().zip(&heads) {
        talk.finish(head).cut();
    }
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body("whole"));
    play.client(|c| c.get("/a").expect(200).body("whole"));
}

#[test]
fn a_broken_revalidation_leaves_the_stored_body_as_it_was() {
    play()
        .origin(|o| {
            o.get("/a")
                .header("Cache-Control", "max-age=10, stale-if-error=600")
                .header("ETag", "\"1\"")
                .body("one")
        })
        .client(|c| c.get("/a").expect(200).body("one"))
        .pass_secs(11)
        .origin(|o| {
            o.get("/a").always().header(FRESH.0, FRESH.1).header("Content-Length", "10").part("tw").close();
        })
        .client(|c| {
            // The head of the new answer was good, so either answer is right, but never a whole one of two bytes.
            let answer = c.get("/a").expect(200);
            if answer.response().body.end == End::Whole {
                answer.body("one");
            }
        });
}

#[test]
fn a_body_delimited_by_close_is_told_in_chunks_and_stored() {
    play()
        .origin(|o| o.get("/a").header(FRESH.0, FRESH.1).until_close().part("one, ").part("two").close())
        .client(|c| c.get("/a").expect(200).body("one, two").header("Transfer-Encoding", "chunked"))
        .client(|c| c.get("/a").expect(200).body("one, two").why("fresh").header("Content-Length", "8"));
}

#[test]
fn trailers_do_not_become_headers() {
    play()
        .origin(|o| {
            let raw = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n\
                       5\r\nhello\r\n0\r\nSet-Cookie: a=b\r\nX-Forged: 1\r\n\r\n";
            o.get("/a").raw(raw);
        })
        .client(|c| c.get("/a").expect(200).body("hello").no_header("Set-Cookie").no_header("X-Forged"))
        .client(|c| c.get("/a").expect(200).body("hello").why("fresh").no_header("Set-Cookie").no_header("X-Forged"));
}
