//! Ranges of long bodies with a disk: whole slices around them are fetched, once for all who want them, and never bytes of two
//! versions for one visitor. RFC 9110 §13.1.5, §14; RFC 9111 §3.4.

use world::play::{Answer, Client, Origin, Play, content, wait_until};
use world::wire::End;
use world::{Gate, play};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const MIB: usize = 1 << 20;
const SLICE: usize = MIB;

fn play_with_disk(memory: &str) -> Play {
    let mut play = play();
    play.disk(memory);
    play
}

/// A play whose origin serves a file under `/file`.
fn play_with_file(content: &[u8]) -> Play {
    let mut play = play_with_disk("64MiB");
    serve(&mut play, "\"1\"", content);
    play
}

/// From now on the origin serves this file, unless something else was said before.
fn serve(play: &mut Play, etag: &str, content: &[u8]) {
    play.origin(|o| o.get("/file").always().header(FRESH.0, FRESH.1).header("ETag", etag).file(content));
}

/// The Range of each request for the file that the origin saw, `-` for none.
fn asked(play: &mut Play) -> Vec<String> {
    let mut ranges = Vec::new();
    play.origin(|o| {
        let seen = o.seen().into_iter().filter(|seen| seen.head.method_and_target().1 == "/file");
        ranges = seen.map(|seen| seen.head.field("range").unwrap_or("-".to_owned())).collect();
    });
    ranges
}

/// The Range of slices `first..=last`.
fn slices(first: usize, last: usize) -> String {
    format!("bytes={}-{}", first * SLICE, (last + 1) * SLICE - 1)
}

/// Asks for bytes `first..=last` and checks each of them.
#[track_caller]
fn get(client: &Client, body: &[u8], first: usize, last: usize) -> Answer {
    let answer = client.get("/file").header("Range", &format!("bytes={first}-{last}")).expect(206);
    let last = last.min(body.len() - 1);
    let content_range = format!("bytes {first}-{last}/{}", body.len());
    answer.body(&body[first..=last]).header("Content-Range", &content_range)
}

// --- Whole slices ---

#[test]
fn a_cold_range_fetches_the_whole_slices_around_it() {
    let body = content(1, 8 * MIB);
    let mut play = play_with_file(&body);
    play.client(|c| get(c, &body, 3 * MIB + 10, 3 * MIB + 20).why("absent"));
    assert_eq!(asked(&mut play), [slices(3, 3)]);
    play.written().client(|c| {
        get(c, &body, 3 * MIB, 4 * MIB - 1).why("fresh");
        get(c, &body, 3 * MIB + 12, 3 * MIB + 12).why("fresh");
    });
    assert_eq!(asked(&mut play).len(), 1);
    // The next ones fill gaps, and only these.
    play.client(|c| get(c, &body, 2 * MIB + 5, 5 * MIB + 5).why("partial"));
    assert_eq!(asked(&mut play)[1..], [slices(2, 2), slices(4, 5)]);
    play.origin(|o| {
        let seen = o.seen();
        seen[0].no_header("If-Range");
        for seen in &seen[1..] {
            seen.header("If-Range", "\"1\"");
        }
    });
    play.written().restart().client(|c| get(c, &body, 2 * MIB, 6 * MIB - 1).why("fresh"));
    assert_eq!(asked(&mut play).len(), 3);
}

#[test]
fn a_whole_answer_fetches_only_the_slices_that_are_missing() {
    let body = content(1, 6 * MIB + 7);
    let mut play = play_with_file(&body);
    play.client(|c| get(c, &body, MIB, 2 * MIB));
    play.written().client(|c| {
        let answer = c.get("/file").expect(200).body(&body);
        assert_eq!(cache_status(&answer), "perigee; fwd=partial; stored; ttl=3600; detail=partial");
    });
    let whole = body.len() - 1;
    assert_eq!(asked(&mut play), [slices(1, 2), slices(0, 0), format!("bytes={}-{whole}", 3 * MIB)]);
    play.written().restart().client(|c| {
        c.get("/file").expect(200).body(&body).why("fresh");
        c.head("/file").expect(200).header("Content-Length", &body.len().to_string());
    });
    assert_eq!(asked(&mut play).len(), 3);
}

#[test]
fn each_form_of_a_range_gets_its_bytes_whether_they_are_there_or_not() {
    let len = 3 * MIB + 1000;
    let body = content(1, len);
    let forms: &[(&str, usize, usize)] = &[
        ("bytes=0-0", 0, 0),
        ("bytes=1048575-1048576", MIB - 1, MIB),
        ("bytes=3145728-", 3 * MIB, len - 1),
        ("bytes=2097153-", 2 * MIB + 1, len - 1),
        ("bytes=-1", len - 1, len - 1),
        ("bytes=-1000000", len - 1_000_000, len - 1),
        ("bytes=3145728-99999999", 3 * MIB, len - 1),
        ("bytes=0-", 0, len - 1),
    ];
    for memory in ["64MiB", "1MiB"] {
        for (range, first, last) in forms {
            let mut play = play_with_disk(memory);
            serve(&mut play, "\"1\"", &body);
            for _ in ["cold", "warm", "after a restart"] {
                play.client(|c| {
                    let answer = c.get("/file").header("Range", range).expect(206);
                    let content_range = format!("bytes {first}-{last}/{len}");
                    answer.body(&body[*first..=*last]).header("Content-Range", &content_range)
                });
                play.written();
            }
            play.restart().client(|c| {
                c.get("/file").header("Range", range).expect(206).body(&body[*first..=*last]);
                c.get("/file").expect(200).body(&body)
            });
        }
    }
}

#[test]
fn bodies_that_end_at_a_slice_and_ranges_that_cross_one_are_exact() {
    for len in [MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1] {
        let body = content(len as u64, len);
        let mut play = play_with_file(&body);
        let edges = [0, 1, MIB - 2, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB];
        for (first, last) in edges.into_iter().flat_map(|first| edges.map(|last| (first, last))) {
            if first <= last && first < len {
                play.client(|c| get(c, &body, first, last));
            }
        }
        play.client(|c| c.get("/file").expect(200).body(&body));
        play.written().restart();
        play.client(|c| {
            c.get("/file").expect(200).body(&body).why("fresh");
            c.get("/file").header("Range", &format!("bytes={len}-")).expect(416);
        });
    }
}

#[test]
fn a_range_behind_the_end_is_answered_so_whatever_is_known() {
    let len = MIB + 100;
    let body = content(1, len);
    for range in
        [format!("bytes={len}-"), format!("bytes={}-{}", len + 5, len + 9), "bytes=99999999-".to_owned()]
    {
        let mut play = play_with_file(&body);
        let ask = |play: &mut Play| {
            play.client(|c| {
                let answer = c.get("/file").header("Range", &range).expect(416).whole();
                answer.header("Content-Range", &format!("bytes */{len}"))
            });
        };
        ask(&mut play);
        assert!(asked(&mut play).len() <= 2, "{:?}", asked(&mut play));
        play.client(|c| get(c, &body, 5, 10));
        ask(&mut play);
        play.client(|c| c.get("/file").expect(200).body(&body));
        ask(&mut play);
    }
}

#[test]
fn several_ranges_come_as_parts_of_what_is_there_and_what_is_not() {
    let body = content(1, 5 * MIB);
    let mut play = play_with_file(&body);
    play.client(|c| get(c, &body, MIB, MIB));
    play.written();
    for whys in [&["partial"][..], &["fresh", "collapsed"]] {
        play.client(|c| {
            let answer = c.get("/file").header("Range", "bytes=1-2, 2097150-2097153, -3").expect(206).whole();
            let answer = answer.why_in(whys);
            let bytes = &answer.response().body.bytes;
            for (range, part) in [
                ("1-2", &body[1..=2]),
                ("2097150-2097153", &body[2_097_150..=2_097_153]),
                ("5242877-5242879", &body[5_242_877..]),
            ] {
                let head = format!("Content-Range: bytes {range}/5242880\r\n\r\n");
                let at = bytes.windows(head.len()).position(|window| window == head.as_bytes());
                let at = at.unwrap_or_else(|| panic!("no part {range}")) + head.len();
                assert_eq!(&bytes[at..at + part.len()], part, "part {range}");
            }
        });
        play.written();
    }
    assert_eq!(asked(&mut play), [slices(1, 1), slices(0, 0), slices(2, 2), slices(4, 4)]);
}

#[test]
fn if_range_of_a_visitor_lets_a_range_through_for_the_same_version_only() {
    let body = content(1, 3 * MIB);
    let mut play = play_with_file(&body);
    let ask = |play: &mut Play| {
        play.client(|c| {
            let ranged = || c.get("/file").header("Range", "bytes=1048570-1048580");
            ranged().header("If-Range", "\"1\"").expect(206).body(&body[1_048_570..=1_048_580]);
            ranged().header("If-Range", "\"2\"").expect(200).body(&body);
            ranged().header("If-Range", "W/\"1\"").expect(200).body(&body);
            ranged().header("If-None-Match", "\"1\"").expect(304).body("");
        });
    };
    ask(&mut play);
    play.written().restart();
    ask(&mut play);
    assert_eq!(asked(&mut play), ["-"]);
}

#[test]
fn random_ranges_are_exact_while_slices_come_and_go() {
    let len = 10 * MIB + 4321;
    let body = content(1, len);
    let mut play = play_with_file(&body);
    let mut state = 0x5eed_u64;
    let mut chance = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..300 {
        let first = chance(len);
        let last = match chance(4) {
            0 => first,
            1 => first + chance(3 * MIB),
            _ => first + chance(100_000),
        };
        play.client(|c| get(c, &body, first, last));
        match round % 30 {
            // Damage is one way in which a slice goes.
            10 => flip(&mut play, chance(4) + 1),
            20 => drop(play.written().restart()),
            _ => {}
        }
    }
    play.client(|c| c.get("/file").expect(200).body(&body));
}

/// Changes bytes all over the volume, at places that differ by `seed`.
fn flip(play: &mut Play, seed: usize) {
    use std::os::unix::fs::FileExt;
    play.written();
    let path = play.state().join("store/volume");
    let volume = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the volume is there");
    for at in (9 * MIB as u64..60 * MIB as u64).step_by(seed * 777_777) {
        let mut byte = [0];
        volume.read_at(&mut byte, at).expect("the volume can be read");
        volume.write_at(&[byte[0] ^ 1], at).expect("the volume can be written");
    }
    volume.sync_all().expect("the volume can be written");
}

#[test]
fn what_was_damaged_and_fetched_again_is_no_hit() {
    let body = content(1, 4 * MIB);
    let mut play = play_with_file(&body);
    play.client(|c| c.get("/file").expect(200).body(&body).why("absent"));
    damage(&mut play, &body[2 * MIB + 500_000..][..16]);
    // When its head is sent nothing is known of the damage. The metrics know, as the log does.
    play.client(|c| c.get("/file").expect(200).body(&body).why("fresh"));
    let handle = play.handle();
    wait_until("the fetch to be counted", || {
        handle.registry().render().contains("site=\"site\",outcome=\"miss\",why=\"partial\"} 1\n")
    });
    assert_eq!(asked(&mut play), ["-".to_owned(), slices(2, 2)]);
    play.written().client(|c| c.get("/file").expect(200).body(&body).why("fresh"));
    // Of damage to the first bytes it is known.
    damage(&mut play, &body[3 * MIB + 5..][..16]);
    play.client(|c| {
        let answer = get(c, &body, 3 * MIB + 5, 3 * MIB + 10);
        assert_eq!(cache_status(&answer), "perigee; fwd=partial; stored; ttl=3600; detail=partial");
    });
}

/// Changes these bytes on disk, and forgets what memory has.
fn damage(play: &mut Play, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    play.written();
    let path = play.state().join("store/volume");
    let content = std::fs::read(&path).expect("the volume can be read");
    let volume = std::fs::OpenOptions::new().write(true).open(path).expect("the volume is there");
    let places = content.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
    let places: Vec<u64> = places.map(|(at, _)| at as u64).collect();
    assert!(!places.is_empty(), "the bytes are on disk");
    for place in places {
        volume.write_at(&[!bytes[0]], place).expect("the volume can be written");
    }
    play.restart();
}

/// The edge's member of Cache-Status.
fn cache_status(answer: &Answer) -> String {
    let status = answer.response().head.field("cache-status").expect("an answer of an edge");
    status.rsplit(", ").next().unwrap_or_default().to_owned()
}

// --- Many at once ---

#[test]
fn ranges_of_one_slice_that_come_together_cost_one_fetch() {
    let body = content(1, 4 * MIB);
    let gate = Gate::new();
    let mut play = play_with_disk("64MiB");
    play.origin(|o| {
        let reply = o.get("/file").expecting("Range", &slices(1, 1)).header(FRESH.0, FRESH.1);
        reply.header("ETag", "\"1\"").hold_at(MIB + 1000, &gate).file(&body);
    });
    let client = play.visitor();
    let mut talks: Vec<_> = (0..30)
        .map(|number| {
            let first = MIB + 500 + number * 1000;
            (first, client.get("/file").header("Range", &format!("bytes={first}-{}", first + 5000)).begin())
        })
        .collect();
    gate.wait_reached();
    gate.open();
    for (first, talk) in &mut talks {
        talk.expect(206).body(&body[*first..=*first + 5000]);
    }
    assert_eq!(asked(&mut play), [slices(1, 1)]);
}

#[test]
fn ranges_of_one_gap_that_come_together_cost_one_fetch() {
    let body = content(1, 4 * MIB);
    let gate = Gate::new();
    let mut play = play_with_disk("64MiB");
    play.origin(|o| {
        o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"").file(&body);
        let reply = o.get("/file").expecting("Range", &slices(1, 2)).expecting("If-Range", "\"1\"");
        reply.header(FRESH.0, FRESH.1).header("ETag", "\"1\"").hold_at(MIB + 1000, &gate).file(&body);
    });
    play.client(|c| get(c, &body, 0, 5));
    play.written();
    let client = play.visitor();
    let mut first = client.get("/file").header("Range", "bytes=1048000-3145727").begin();
    gate.wait_reached();
    let answer = get(&client, &body, MIB, MIB + 500);
    assert_eq!(cache_status(&answer), "perigee; fwd=partial; collapsed; ttl=3600; detail=collapsed");
    let mut talks: Vec<_> = (0..30)
        .map(|number| {
            let first = MIB + number * 60_000;
            (first, client.get("/file").header("Range", &format!("bytes={first}-{}", first + 5000)).begin())
        })
        .collect();
    gate.open();
    first.expect(206).body(&body[1_048_000..=3_145_727]).why("partial");
    for (first, talk) in &mut talks {
        talk.expect(206).body(&body[*first..=*first + 5000]);
    }
    assert_eq!(asked(&mut play), [slices(0, 0), slices(1, 2)]);
}

#[test]
fn two_hundred_who_want_something_larger_than_memory_cost_one_fetch() {
    let body = content(1, 3 * MIB + 99);
    let gate = Gate::new();
    let mut play = play_with_disk("1MiB");
    play.origin(|o| {
        let reply = o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
        reply.hold_at(2 * MIB, &gate).file(&body);
    });
    let client = play.visitor();
    let mut talks: Vec<_> = (0..60).map(|_| (0, body.len() - 1, client.get("/file").begin())).collect();
    // From its head on, what is asked for by range is found in the fill too.
    let mut first = client.get("/file").begin();
    let head = first.expect_head(200);
    gate.wait_reached();
    for number in 0..139 {
        let (first, last) = match number % 4 {
            0 => (MIB - 10, MIB + 10),
            1 => (100 + number, 1_500_000),
            2 => (2 * MIB - 5, 2 * MIB + 5),
            _ => (3 * MIB - 1000, 3 * MIB + 50),
        };
        let range = format!("bytes={first}-{last}");
        talks.push((first, last, client.get("/file").header("Range", &range).begin()));
    }
    gate.open();
    // They read by turns, so none of them is much slower than the others.
    std::thread::scope(|scope| {
        for (first, last, talk) in &mut talks {
            let body = &body;
            scope.spawn(move || {
                let answer = talk.answer().status_in(&[200, 206]);
                answer.body(&body[*first..=*last]);
            });
        }
        first.finish(&head).body(&body);
    });
    assert_eq!(asked(&mut play), ["-"]);
    play.written().client(|c| c.get("/file").expect(200).body(&body).why("fresh"));
}

#[test]
fn after_a_purge_nobody_gets_slices_of_an_older_fill() {
    let (old, new) = (content(1, 6 * MIB), content(2, 6 * MIB));
    for memory in ["64MiB", "1MiB"] {
        let gate = Gate::new();
        let mut play = play_with_disk(memory);
        play.origin(|o| {
            // The same validator: a purge may be the only way to get rid of a wrong copy.
            let reply = o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
            reply.hold_at(3 * MIB, &gate).file(&old);
        });
        let client = play.visitor();
        let mut first = client.get("/file").begin();
        gate.wait_reached();
        play.purge("url http://site.example/file");
        serve(&mut play, "\"1\"", &new);
        get(&client, &new, 5, 2 * MIB);
        gate.open();
        first.expect(200).body(&old);
        client.get("/file").expect(200).body(&new);
        play.written().restart().client(|c| c.get("/file").expect(200).body(&new).why("fresh"));
    }
}

#[test]
fn after_an_unsafe_request_nobody_gets_slices_of_an_older_fill() {
    let (old, new) = (content(1, 6 * MIB), content(2, 6 * MIB));
    for memory in ["64MiB", "1MiB"] {
        let gate = Gate::new();
        let mut play = play_with_disk(memory);
        play.origin(|o| {
            let reply = o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
            reply.hold_at(3 * MIB, &gate).file(&old);
            o.post("/file").reply(204);
        });
        let client = play.visitor();
        let mut first = client.get("/file").begin();
        gate.wait_reached();
        client.post("/file").with_body("x").expect(204);
        serve(&mut play, "\"2\"", &new);
        client.get("/file").expect(200).body(&new);
        gate.open();
        first.expect(200).body(&old);
        client.get("/file").expect(200).body(&new).why("fresh");
        play.written().restart().client(|c| c.get("/file").expect(200).body(&new).why("fresh"));
    }
}

// --- Visitors who leave or are slow ---

/// A play whose only visitor has left, and whose origin has given him this much of the file before, the rest afterwards.
fn abandoned_at(at: usize, body: &[u8]) -> Play {
    let gate = Gate::new();
    let mut play = play_with_disk("1MiB");
    play.origin(|o| {
        let reply = o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
        reply.hold_at(at, &gate).file(body);
    });
    let mut first = play.visitor().get("/file").begin();
    first.expect_head(200);
    gate.wait_reached();
    first.reset();
    gate.open();
    play
}

#[test]
fn what_came_for_a_visitor_who_left_is_of_use() {
    let body = content(1, 40 * MIB);
    let mut play = abandoned_at(3 * MIB + 10, &body);
    let handle = play.handle();
    wait_until("the fetch to end", || handle.status().flights == 0 && handle.status().connections == 0);
    play.written();
    serve(&mut play, "\"1\"", &body);
    play.client(|c| {
        // How much had come by then nobody knows.
        get(c, &body, MIB - 1, 3 * MIB - 1).why_in(&["fresh", "partial"]);
        c.get("/file").expect(200).body(&body).why_in(&["fresh", "partial"])
    });
    let asked = asked(&mut play);
    assert_eq!(asked[0], "-");
    assert!(
        asked[1..].iter().all(|range| range.starts_with("bytes=") && *range != slices(0, 0)),
        "{asked:?}"
    );
    play.written().restart().client(|c| c.get("/file").expect(200).body(&body).why("fresh"));
}

#[test]
fn what_is_almost_there_is_fetched_to_its_end_though_its_visitor_left() {
    let body = content(1, 8 * MIB);
    let mut play = abandoned_at(MIB, &body);
    play.client(|c| c.get("/file").expect(200).body(&body));
    play.written().restart().client(|c| c.get("/file").expect(200).body(&body).why("fresh"));
}

#[test]
fn a_slow_reader_of_something_larger_than_memory_goes_on_from_disk() {
    let body = content(1, 24 * MIB);
    let mut play = play_with_disk("1MiB");
    play.origin(|o| o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"").file(&body));
    let client = play.visitor();
    let mut slow = client.get("/file").begin();
    let head = slow.expect_head(200);
    client.get("/file").expect(200).body(&body);
    play.written();
    slow.finish(&head).body(&body);
}

// --- Origins ---

#[test]
fn an_origin_that_knows_no_ranges_serves_them_all_the_same() {
    let body = content(1, 4 * MIB);
    for (memory, etag) in [("64MiB", "\"1\""), ("1MiB", "\"1\""), ("64MiB", "W/\"1\""), ("1MiB", "W/\"1\"")] {
        let mut play = play_with_disk(memory);
        play.origin(|o| o.get("/file").always().header(FRESH.0, FRESH.1).header("ETag", etag).body(&body));
        play.client(|c| get(c, &body, 2 * MIB - 5, 2 * MIB + 5));
        // Whoever wanted a part has it before the whole is stored: its head and four slices.
        wait_until("the whole to be written", || play.handle().status().disks[0].records == 5);
        play.client(|c| {
            get(c, &body, 0, 3 * MIB);
            c.get("/file").expect(200).body(&body).why("fresh")
        });
        play.restart().client(|c| get(c, &body, 2 * MIB - 5, 3 * MIB + 5).why("fresh"));
        assert_eq!(asked(&mut play), [slices(1, 2)]);
    }
}

#[test]
fn an_origin_that_knows_no_ranges_completes_what_was_begun() {
    let body = content(1, 24 * MIB);
    let gate = Gate::new();
    let mut play = play_with_disk("1MiB");
    play.origin(|o| {
        let reply = o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
        reply.hold_at(3 * MIB + 10, &gate).file(&body);
        o.get("/file").always().header(FRESH.0, FRESH.1).header("ETag", "\"1\"").body(&body);
    });
    let client = play.visitor();
    let mut first = client.get("/file").begin();
    first.expect_head(200);
    gate.wait_reached();
    first.reset();
    gate.open();
    let handle = play.handle();
    wait_until("the fetch to end", || handle.status().flights == 0 && handle.status().connections == 0);
    play.written().client(|c| c.get("/file").expect(200).body(&body).why("partial"));
    play.written().restart().client(|c| c.get("/file").expect(200).body(&body).why("fresh"));
}

#[test]
fn parts_without_a_strong_validator_are_never_put_together() {
    let (old, new) = (content(1, 4 * MIB), content(2, 4 * MIB));
    for (memory, etag) in
        [("64MiB", Some("W/\"1\"")), ("1MiB", Some("W/\"1\"")), ("64MiB", None), ("1MiB", None)]
    {
        let mut play = play_with_disk(memory);
        let part = |play: &mut Play, body: &[u8], first: usize, last: usize, asked: &str| {
            play.origin(|o| {
                let reply = o.get("/file").expecting("Range", asked).reply(206).header(FRESH.0, FRESH.1);
                let reply = etag.iter().fold(reply, |reply, etag| reply.header("ETag", etag));
                let reply = reply.header("Content-Range", &format!("bytes {first}-{last}/{}", body.len()));
                reply.body(&body[first..=last]);
            });
        };
        part(&mut play, &old, 0, MIB - 1, &slices(0, 0));
        if memory == "1MiB" {
            part(&mut play, &old, 10, 20, "bytes=10-20");
        }
        play.client(|c| get(c, &old, 10, 20));
        part(&mut play, &new, 2 * MIB, 3 * MIB - 1, &slices(2, 2));
        if memory == "1MiB" {
            part(&mut play, &new, 2 * MIB + 10, 2 * MIB + 20, "bytes=2097162-2097172");
        }
        play.client(|c| get(c, &new, 2 * MIB + 10, 2 * MIB + 20));
        play.origin(|o| {
            let reply = o.get("/file").always().header(FRESH.0, FRESH.1);
            etag.iter().fold(reply, |reply, etag| reply.header("ETag", etag)).body(&new)
        });
        play.client(|c| c.get("/file").expect(200).body(&new));
    }
}

/// What an origin does.
type Script<'a> = Box<dyn Fn(&Origin) + 'a>;

/// A file of which slice 0 is on disk, and what a later fetch of slice 1 gets from the origin.
fn play_with_gap(old: &[u8], gap: impl FnOnce(&Origin)) -> Play {
    let mut play = play_with_disk("64MiB");
    play.origin(|o| o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"").file(old));
    play.client(|c| get(c, old, 5, 10));
    play.written().origin(gap);
    play
}

#[test]
fn a_version_that_changes_between_slices_is_never_mixed() {
    let (old, new) = (content(1, 3 * MIB), content(2, 3 * MIB));
    let gaps: [(&str, Script<'_>); 5] = [
        (
            "the whole of another version",
            Box::new(|o| {
                o.get("/file")
                    .expecting("If-Range", "\"1\"")
                    .header(FRESH.0, FRESH.1)
                    .header("ETag", "\"2\"")
                    .file(&new);
            }),
        ),
        (
            "a part of another version",
            Box::new(|o| {
                let reply = o.get("/file").reply(206).header(FRESH.0, FRESH.1).header("ETag", "\"2\"");
                let reply =
                    reply.header("Content-Range", &format!("bytes {MIB}-{}/{}", 3 * MIB - 1, 3 * MIB));
                reply.body(&new[MIB..]);
            }),
        ),
        (
            "a part of another length",
            Box::new(|o| {
                let reply = o.get("/file").reply(206).header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
                let reply =
                    reply.header("Content-Range", &format!("bytes {MIB}-{}/{}", 3 * MIB - 1, 4 * MIB));
                reply.body(&new[MIB..]);
            }),
        ),
        (
            "another part",
            Box::new(|o| {
                let reply = o.get("/file").reply(206).header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
                let reply = reply.header("Content-Range", &format!("bytes 0-{}/{}", 2 * MIB - 1, 3 * MIB));
                reply.body(&new[..2 * MIB]);
            }),
        ),
        (
            "a part without a validator",
            Box::new(|o| {
                let reply = o.get("/file").reply(206).header(FRESH.0, FRESH.1);
                let reply =
                    reply.header("Content-Range", &format!("bytes {MIB}-{}/{}", 3 * MIB - 1, 3 * MIB));
                reply.body(&new[MIB..]);
            }),
        ),
    ];
    for (what, gap) in gaps {
        // Whose answer has begun gets no end of it.
        let mut play = play_with_gap(&old, &gap);
        play.client(|c| {
            let answer = c.get("/file").expect(200).cut_from(&old);
            assert!(answer.response().body.bytes.len() <= SLICE, "{what}");
        });
        serve(&mut play, "\"2\"", &new);
        play.client(|c| c.get("/file").expect(200).body(&new).header("ETag", "\"2\""));
        play.written().restart().client(|c| c.get("/file").expect(200).body(&new).why("fresh"));
        // Whose answer has not begun gets the new version.
        let mut play = play_with_gap(&old, &gap);
        serve(&mut play, "\"2\"", &new);
        play.client(|c| {
            get(c, &new, MIB + 5, MIB + 10).header("ETag", "\"2\"");
            get(c, &new, 5, 10).header("ETag", "\"2\"")
        });
    }
}

#[test]
fn an_answer_to_a_gap_that_must_not_be_stored_is_not() {
    let (old, new) = (content(1, 3 * MIB), content(2, 3 * MIB));
    for (name, value) in [("Cache-Control", "no-store"), ("Cache-Control", "private")] {
        let mut play = play_with_gap(&old, |o| {
            let reply = o.get("/file").reply(206).header(name, value).header("ETag", "\"1\"");
            let reply = reply.header("Content-Range", &format!("bytes {MIB}-{}/{}", 2 * MIB - 1, 3 * MIB));
            reply.body(&old[MIB..2 * MIB]);
            let reply = o.get("/file").always().header(name, value).header("ETag", "\"1\"");
            reply.file(&new);
        });
        play.client(|c| {
            get(c, &new, MIB + 5, MIB + 10);
            get(c, &new, MIB + 5, MIB + 10);
            get(c, &new, 5, 10)
        });
    }
}

#[test]
fn an_origin_in_trouble_costs_only_what_is_not_there() {
    let old = content(1, 3 * MIB);
    let mut play = play_with_gap(&old, |o| {
        o.get("/file").reply(503).body("down").always();
    });
    play.client(|c| {
        get(c, &old, 5, 10).why("fresh");
        // Nothing was promised yet.
        c.get("/file").header("Range", "bytes=1048576-1048580").expect_any().status_in(&[502, 503, 504]);
        c.get("/file").header("Range", "bytes=1048576-1048580, -1").expect_any().status_in(&[502, 503, 504]);
        // Something was.
        let answer = c.get("/file").expect(200).cut_from(&old);
        assert!(answer.response().body.bytes.len() <= SLICE);
        get(c, &old, 5, 10).why("fresh")
    });
}

#[test]
fn an_origin_that_breaks_off_is_asked_for_the_rest() {
    let body = content(1, 4 * MIB);
    for memory in ["64MiB", "1MiB"] {
        let mut play = play_with_disk(memory);
        play.origin(|o| {
            let reply = o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
            reply.break_at(2 * MIB + 500).file(&body);
        });
        serve(&mut play, "\"1\"", &body);
        play.client(|c| {
            // Whether the first visitor gets the rest depends on whether it has to be kept for others.
            let answer = c.get("/file").expect(200);
            match answer.response().body.end {
                End::Whole => answer.body(&body),
                End::Cut => answer.cut_from(&body),
            }
        });
        play.written().client(|c| c.get("/file").expect(200).body(&body));
        let asked = asked(&mut play);
        assert_eq!(asked[0], "-");
        assert!(asked[1..].iter().all(|range| range.starts_with("bytes=2097152-")), "{asked:?}");
    }
}

#[test]
fn an_origin_that_breaks_off_in_a_gap_leaves_whole_slices_only() {
    let body = content(1, 4 * MIB);
    let mut play = play_with_gap(&body, |o| {
        let reply = o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
        reply.break_at(2 * MIB + 500).file(&body);
    });
    play.client(|c| c.get("/file").expect(200).cut_from(&body));
    serve(&mut play, "\"1\"", &body);
    play.written().client(|c| c.get("/file").expect(200).body(&body).why("partial"));
    assert_eq!(asked(&mut play)[2..], [format!("bytes={}-{}", 2 * MIB, 4 * MIB - 1)]);
}

#[test]
fn a_part_that_is_not_the_one_asked_for_is_no_answer() {
    let body = content(1, 4 * MIB);
    for (first, last) in [(0, 999), (MIB, 2 * MIB - 1), (2 * MIB, 3 * MIB - 1), (3 * MIB, 3 * MIB + 4)] {
        let mut play = play_with_disk("64MiB");
        play.origin(|o| {
            let reply = o.get("/file").always().reply(206).header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
            let reply = reply.header("Content-Range", &format!("bytes {first}-{last}/{}", body.len()));
            reply.body(&body[first..=last]);
        });
        // Like any cache, it may pass on what the origin says; what it says is of those bytes.
        play.client(|c| {
            let answer =
                c.get("/file").header("Range", "bytes=100000-100009").expect_any().status_in(&[206, 502]);
            if answer.response().head.status() == 206 {
                let range = format!("bytes {first}-{last}/{}", body.len());
                answer.header("Content-Range", &range).body(&body[first..=last]);
            }
        });
        assert!(asked(&mut play).len() <= 4, "{:?}", asked(&mut play));
    }
}

// --- What concerns others ---

#[test]
fn an_answer_about_one_visitor_takes_nothing_away_from_the_others() {
    for status in [401, 403, 429] {
        let body = content(1, 8 * MIB);
        let mut play = play_with_disk("64MiB");
        play.origin(|o| {
            o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"").file(&body);
            // For the one who asks first for what is missing. Asked again, the origin would give it.
            o.get("/file").expecting("Cookie", "bad").reply(status).body("no");
        });
        serve(&mut play, "\"1\"", &body);
        play.client(|c| get(c, &body, 0, 10));
        play.client(|c| {
            let answer = c.get("/file").header("Range", "bytes=5000000-5000010").header("Cookie", "bad");
            answer.expect(502);
        });
        let before = asked(&mut play).len();
        play.client(|c| get(c, &body, 0, 10).why("fresh"));
        assert_eq!(asked(&mut play).len(), before, "status {status}");
        play.client(|c| get(c, &body, 5_000_000, 5_000_010));
    }
}

#[test]
fn only_if_cached_never_asks_the_origin_for_a_gap() {
    let body = content(1, 8 * MIB);
    let mut play = play_with_file(&body);
    play.client(|c| get(c, &body, 0, 10));
    play.written();
    let before = asked(&mut play).len();
    play.client(|c| {
        let only =
            |range: &str| c.get("/file").header("Cache-Control", "only-if-cached").header("Range", range);
        only("bytes=20-29").expect(206).body(&body[20..30]);
        only("bytes=5000000-5000010").expect(504).why("only-if-cached");
    });
    assert_eq!(asked(&mut play).len(), before);
}

#[test]
fn a_body_of_unknown_length_that_broke_off_is_never_joined_with_the_next() {
    let (first, second) = (content(1, 4 * MIB), content(2, 5 * MIB + 3));
    let mut play = play_with_disk("16MiB");
    let chunked = |o: &Origin, body: &[u8]| {
        let reply = o.get("/file").header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
        body.chunks(MIB / 2).fold(reply, |reply, part| reply.part(part))
    };
    play.origin(|o| drop(chunked(o, &first).reset()));
    let client = play.visitor();
    let _broken = client.get("/file").begin().rest_or_response();
    play.written();
    play.origin(|o| drop(chunked(o, &second)));
    play.client(|c| c.get("/file").expect(200).body(&second));
    play.written();
    play.client(|c| c.get("/file").expect(200).body(&second).why("fresh"));
    play.restart();
    play.client(|c| c.get("/file").expect(200).body(&second).why("fresh"));
}
