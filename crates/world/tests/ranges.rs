//! Parts of representations: from stored bodies, from stored parts, and never of two versions. RFC 9110 §13.1.5, §14,
//! §15.3.7, §15.5.17; RFC 9111 §3.3, §3.4.

use world::play;
use world::play::{Play, range_sent};

const BODY: &str = "0123456789";

fn stored() -> Play {
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a").header("Cache-Control", "max-age=3600").header("ETag", "\"1\"");
        reply.header("Last-Modified", "{now-100000}").header("Content-Type", "text/plain").body(BODY);
    });
    play.client(|c| c.get("/a").expect(200).body(BODY));
    play
}

#[test]
fn a_range_is_cut_from_the_stored_body() {
    let mut play = stored();
    for (range, content_range, body) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=0-1", "bytes 0-1/10", "01"),
        ("bytes=3-", "bytes 3-9/10", "3456789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-99", "bytes 0-9/10", BODY),
        ("bytes=8-99", "bytes 8-9/10", "89"),
        ("bytes= 2-4", "bytes 2-4/10", "234"),
        ("BYTES=2-4", "bytes 2-4/10", "234"),
    ] {
        play.client(|c| {
            let answer = c.get("/a").header("Range", range).expect(206).body(body).why("fresh");
            let length = body.len().to_string();
            answer
                .header("Content-Range", content_range)
                .header("Content-Length", &length)
                .header("ETag", "\"1\"")
        });
    }
    play.origin_saw(1);
}

#[test]
fn a_range_that_makes_no_sense_is_ignored() {
    let mut play = stored();
    for range in
        ["bytes", "bytes=", "bytes=a-b", "bytes=5-2", "lines=1-2", "bytes=1", "bytes=--1", "bytes=1-2-3"]
    {
        play.client(|c| c.get("/a").header("Range", range).expect(200).body(BODY));
    }
}

#[test]
fn a_range_behind_the_end_cannot_be_satisfied() {
    let mut play = stored();
    for range in ["bytes=10-", "bytes=10-20", "bytes=99-100", "bytes=-0"] {
        play.client(|c| {
            c.get("/a").header("Range", range).expect(416).whole().header("Content-Range", "bytes */10")
        });
    }
}

/// A body long enough that parts are worth their heads: ranges close together may be answered as one.
#[test]
fn several_ranges_come_as_parts() {
    let body: String = (0..1000).map(|number| format!("{number:04} ")).collect();
    let mut play = play();
    play.origin(|o| {
        let reply =
            o.get("/long").header("Cache-Control", "max-age=3600").header("Content-Type", "text/plain");
        reply.body(&body);
    });
    play.client(|c| {
        c.get("/long").expect(200).body(&body);
        let answer = c.get("/long").header("Range", "bytes=0-1, 2000-2008,-5").expect(206).whole();
        let answer = answer.no_header("Content-Range").why("fresh");
        let kind = answer.response().head.field("content-type").expect("a type");
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("multipart/byteranges");
        let text = answer.text();
        let parts: Vec<&str> = text.split(&format!("--{}", boundary.trim_matches('"'))).collect();
        assert_eq!(parts.len(), 5, "{text}");
        assert!(parts[4].starts_with("--"), "{text}");
        let expected = [("0-1", "00"), ("2000-2008", "0400 0401"), ("4995-4999", "0999 ")];
        for (part, (range, content)) in parts[1..].iter().zip(expected) {
            assert!(part.contains(&format!("Content-Range: bytes {range}/5000\r\n")), "{part}");
            assert!(part.contains("Content-Type: text/plain\r\n"), "{part}");
            assert!(part.ends_with(&format!("\r\n\r\n{content}\r\n")), "{part:?}");
        }
    });
}

#[test]
fn many_ranges_never_make_an_answer_much_larger_than_the_body() {
    let mut play = stored();
    let many = |part: &str| format!("bytes={}", vec![part; 500].join(","));
    for range in [many("0-"), many("0-9"), many("0-0"), many("-1")] {
        play.client(|c| {
            let answer = c.get("/a").header("Range", &range).expect_any().status_in(&[200, 206, 416]).whole();
            let bytes = answer.response().body.bytes.len();
            assert!(bytes < 2000, "{bytes} bytes for a body of ten");
        });
    }
}

#[test]
fn if_range_lets_a_range_through_for_the_same_version_only() {
    let mut play = stored();
    play.client(|c| {
        let ranged = || c.get("/a").header("Range", "bytes=0-1");
        ranged().header("If-Range", "\"1\"").expect(206).body("01");
        ranged().header("If-Range", "\"2\"").expect(200).body(BODY);
        ranged().header("If-Range", "W/\"1\"").expect(200).body(BODY);
        ranged().header("If-Range", "Thu, 01 Jan 2015 00:00:00 GMT").expect(200).body(BODY);
        ranged().header("If-None-Match", "\"1\"").expect(304).body("");
    });
}

#[test]
fn a_range_means_nothing_to_other_methods_than_get() {
    let mut play = stored();
    play.client(|c| {
        c.head("/a").header("Range", "bytes=0-1").expect(200).body("").header("Content-Length", "10")
    });
}

#[test]
fn a_part_that_was_fetched_answers_for_itself_and_for_less() {
    let mut play = play();
    play.origin(|o| {
        let reply = o
            .get("/a")
            .expecting("Range", range_sent("bytes=2-6"))
            .reply(206)
            .header("Cache-Control", "max-age=3600");
        reply.header("ETag", "\"1\"").header("Content-Range", "bytes 2-6/10").body("23456");
    });
    play.client(|c| {
        c.get("/a")
            .header("Range", "bytes=2-6")
            .expect(206)
            .body("23456")
            .header("Content-Range", "bytes 2-6/10");
        c.get("/a").header("Range", "bytes=2-6").expect(206).body("23456").why("fresh");
        c.get("/a")
            .header("Range", "bytes=3-4")
            .expect(206)
            .body("34")
            .why("fresh")
            .header("Content-Range", "bytes 3-4/10");
    });
}

#[test]
fn a_stored_part_is_completed_and_never_passes_for_the_whole() {
    let mut play = play();
    play.origin(|o| {
        let reply = o
            .get("/a")
            .expecting("Range", range_sent("bytes=0-4"))
            .reply(206)
            .header("Cache-Control", "max-age=3600");
        reply.header("ETag", "\"1\"").header("Content-Range", "bytes 0-4/10").body("01234");
    });
    play.client(|c| c.get("/a").header("Range", "bytes=0-4").expect(206).body("01234"));
    play.origin(|o| {
        let reply = o.get("/a").expecting("Range", "bytes=5-").expecting("If-Range", "\"1\"").reply(206);
        let reply = reply.header("Cache-Control", "max-age=3600").header("ETag", "\"1\"");
        reply.header("Content-Range", "bytes 5-9/10").body("56789");
    });
    play.client(|c| {
        c.get("/a").expect(200).body(BODY).no_header("Content-Range");
        c.get("/a").expect(200).body(BODY).why("fresh").header("Content-Length", "10");
    });
}

#[test]
fn parts_of_two_versions_are_never_put_together() {
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a").reply(206).header("Cache-Control", "max-age=3600").header("ETag", "\"1\"");
        reply.header("Content-Range", "bytes 0-4/10").body("01234");
    });
    play.client(|c| c.get("/a").header("Range", "bytes=0-4").expect(206).body("01234"));
    // The origin has another version now. A well-behaved one answers If-Range with the whole of it.
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=3600").header("ETag", "\"2\"").body("abcdefghij")
    });
    play.client(|c| {
        c.get("/a").expect(200).body("abcdefghij");
        c.get("/a").header("Range", "bytes=0-4").expect(206).body("abcde").why("fresh");
    });
}

#[test]
fn a_part_with_another_validator_is_refused_as_completion() {
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a").reply(206).header("Cache-Control", "max-age=3600").header("ETag", "\"1\"");
        reply.header("Content-Range", "bytes 0-4/10").body("01234");
    });
    play.client(|c| c.get("/a").header("Range", "bytes=0-4").expect(206).body("01234"));
    // This origin ignores If-Range: what it sends is of another version.
    play.origin(|o| {
        let reply = o.get("/a").reply(206).header("Cache-Control", "max-age=3600").header("ETag", "\"2\"");
        reply.header("Content-Range", "bytes 5-9/10").body("fghij");
        o.get("/a")
            .always()
            .header("Cache-Control", "max-age=3600")
            .header("ETag", "\"2\"")
            .body("abcdefghij");
    });
    play.client(|c| {
        let answer = c.get("/a").expect_any().status_in(&[200, 502]);
        if answer.response().head.status() == 200 && answer.response().body.end == world::wire::End::Whole {
            answer.body("abcdefghij");
        }
    });
}

#[test]
fn a_part_whose_length_belies_its_content_range_is_not_stored() {
    let mut play = play();
    // With a disk the slice around it is asked for first, and when that makes no sense, the range itself.
    let asked = if range_sent("bytes=0-8") == "bytes=0-8" { 1 } else { 2 };
    for _ in 0..asked {
        play.origin(|o| {
            let reply =
                o.get("/a").reply(206).header("Cache-Control", "max-age=3600").header("ETag", "\"1\"");
            reply.header("Content-Range", "bytes 0-8/10").body("01234");
        });
    }
    play.client(|c| c.get("/a").header("Range", "bytes=0-8").expect_any());
    play.origin(|o| {
        o.get("/a").always().header("Cache-Control", "max-age=3600").header("ETag", "\"1\"").body(BODY)
    });
    play.client(|c| {
        c.get("/a")
            .header("Range", "bytes=5-8")
            .expect_any()
            .status_in(&[200, 206])
            .header_has("cache-status", "fwd");
        c.get("/a").expect(200).body(BODY);
    });
}

#[test]
fn an_answer_to_a_range_that_nobody_asked_for_is_not_the_whole() {
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a").reply(206).header("Cache-Control", "max-age=3600").header("ETag", "\"1\"");
        reply.header("Content-Range", "bytes 0-4/10").body("01234");
        o.get("/a").always().header("Cache-Control", "max-age=3600").header("ETag", "\"1\"").body(BODY);
    });
    play.client(|c| {
        let first = c.get("/a").expect_any().status_in(&[200, 206, 502]);
        if first.response().head.status() == 200 {
            first.body(BODY);
        }
        c.get("/a").expect(200).body(BODY);
    });
}

#[test]
fn a_range_that_a_fill_under_way_has_already_is_cut_from_it() {
    let gate = world::Gate::new();
    let mut play = play();
    play.origin(|o| {
        let reply = o.get("/a").header("Cache-Control", "max-age=3600").header("ETag", "\"1\"");
        reply.header("Content-Length", "10").part("01234").hold(&gate).part("56789");
        // Going to the origin for the range is right too, if not as good; a wrong or late answer is not.
        let reply = o
            .get("/a")
            .always()
            .expecting("Range", range_sent("bytes=1-3"))
            .reply(206)
            .header("ETag", "\"1\"");
        reply.header("Cache-Control", "max-age=3600").header("Content-Range", "bytes 1-3/10").body("123");
    });
    let client = play.visitor();
    let mut whole = client.get("/a").begin();
    let head = whole.expect_head(200);
    whole.expect_part(&head, "01234");
    client
        .get("/a")
        .header("Range", "bytes=1-3")
        .expect(206)
        .body("123")
        .header("Content-Range", "bytes 1-3/10");
    gate.open();
    whole.expect_part(&head, "56789");
    client.get("/a").expect(200).body(BODY).why("fresh");
}
