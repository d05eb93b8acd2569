//! Memory of bodies on their way, `[store] in_flight`: at the bound new requests for large bodies are refused and counted, all else
//! goes on, and every byte that comes is right.

use std::time::{Duration, Instant};

use world::play::{Client, Origin, Play, Talk, content, wait_until};
use world::{Gate, play};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const MIB: usize = 1 << 20;
const REFUSED: &str = "perigee_limits_reached_total{limit=\"bodies-in-flight\"}";
const BYTES: &str = "perigee_store_in_flight_bytes";

/// A play whose edge has a disk and may have so much in flight. Its origin serves `file` under `/file`, and holds at these
/// bytes of it until the gate is open.
fn stage(in_flight: &str, file: &[u8], held: &[usize], gate: &Gate) -> Play {
    let mut play = play();
    play.disk("64MiB");
    let config = play.config_text();
    play.config(&config.replacen("[store]", &format!("[store]\nin_flight = \"{in_flight}\""), 1));
    play.origin(|o| {
        let reply = o.get("/file").always().header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
        held.iter().fold(reply, |reply, at| reply.hold_at(*at, gate)).file(file);
    });
    play
}

/// The origin holds `count` bodies of 1 MiB, `/0` and so on, for each of which as much is reserved until the gate is open.
fn hold_room(origin: &Origin, count: usize, body: &[u8], gate: &Gate) {
    for number in 0..count {
        let reply = origin.get(&format!("/{number}")).header("Content-Length", &MIB.to_string());
        let reply = reply.header(FRESH.0, FRESH.1).header("ETag", "\"2\"").head_now();
        reply.hold(gate).part(&body[..MIB]);
    }
}

/// Has these slices on disk, and the first in memory.
fn warm(play: &mut Play, body: &[u8], slices: &[usize]) {
    for slice in slices {
        play.client(|c| {
            range(c, slice * MIB, slice * MIB).expect(206).body(&body[slice * MIB..=slice * MIB])
        });
        play.written();
    }
    for _ in ["once", "again", "from memory"] {
        play.client(|c| range(c, 0, 9).expect(206).body(&body[..10]).why("fresh"));
    }
    wait_for_nothing(play);
}

/// The value of a series of the metrics.
fn metric(play: &mut Play, series: &str) -> u64 {
    let text = play.handle().registry().render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("a number"))
}

/// Waits until nothing is on its way any more.
#[track_caller]
fn wait_for_nothing(play: &mut Play) {
    wait_until("nothing to be in flight", || metric(play, BYTES) == 0);
}

fn range(client: &Client, first: usize, last: usize) -> Talk {
    client.get("/file").header("Range", &format!("bytes={first}-{last}")).begin()
}

/// Checks that these ranges of `body` are the parts of a multipart answer.
#[track_caller]
fn check_parts(mut bytes: &[u8], body: &[u8], ranges: &[(usize, usize)]) {
    for (first, last) in ranges {
        let head = format!("Content-Range: bytes {first}-{last}/{}\r\n\r\n", body.len());
        let at = bytes.windows(head.len()).position(|window| window == head.as_bytes());
        bytes = &bytes[at.unwrap_or_else(|| panic!("no part {first}-{last}")) + head.len()..];
        let part = &body[*first..=*last];
        assert!(bytes.starts_with(part), "part {first}-{last}");
        bytes = &bytes[part.len()..];
    }
}

// --- At the bound ---

#[test]
fn fetches_that_come_at_once_do_not_all_find_room_and_who_is_refused_is_told_when_to_come_back() {
    let (body, gate) = (content(1, 44 * MIB), Gate::new());
    let held: Vec<_> = (0..12).map(|number| (2 * number + 1) * MIB).collect();
    let mut play = stage("8MiB", &body, &held, &gate);
    warm(&mut play, &body, &[0, 42]);
    let client = play.visitor();
    let talks: Vec<_> = held.iter().map(|at| (*at, range(&client, *at, at + 9))).collect();
    // Each has leave for its slice.
    wait_until("all but eight to be refused", || metric(&mut play, REFUSED) == 4);
    assert_eq!(metric(&mut play, BYTES), 8 * MIB as u64);
    let small = content(2, 64 << 10);
    play.origin(|o| o.get("/small").header(FRESH.0, FRESH.1).body(&small));
    play.client(|c| {
        // What is small, and what memory has, is answered; what would have to be read is not.
        c.get("/small").expect(200).body(&small);
        c.get("/small").expect(200).body(&small).why("fresh");
        range(c, 5, 9).expect(206).body(&body[5..10]).why("fresh");
        range(c, 42 * MIB, 42 * MIB).expect(503).header("Retry-After", "5").why("limit");
        let several = format!("bytes={}-{},5-9", 42 * MIB, 42 * MIB + 9);
        c.get("/file").header("Range", &several).expect(503).header("Retry-After", "5").why("limit")
    });
    gate.open();
    let mut refused = 2;
    for (at, mut talk) in talks {
        let answer = talk.answer().status_in(&[206, 503]);
        match answer.response().head.status() {
            206 => drop(answer.body(&body[at..at + 10])),
            _ => {
                refused += 1;
                answer.header("Retry-After", "5").why("limit");
            }
        }
    }
    assert_eq!((refused, metric(&mut play, REFUSED)), (6, 6));
    // Whoever was shut out is let in again.
    play.client(|c| {
        for at in &held {
            range(c, *at, at + 9).expect(206).body(&body[*at..at + 10]);
        }
        range(c, 42 * MIB, 42 * MIB).expect(206)
    });
    assert_eq!(metric(&mut play, REFUSED), 6);
    play.written();
    wait_for_nothing(&mut play);
}

#[test]
fn fetches_from_a_silent_origin_hold_little_and_shut_nobody_out() {
    let (body, gate) = (content(1, 44 * MIB), Gate::new());
    let held: Vec<_> = (0..4).map(|number| (10 * number + 1) * MIB).collect();
    let mut play = stage("8MiB", &body, &held, &gate);
    warm(&mut play, &body, &[0, 42]);
    let client = play.visitor();
    let begin = |at: &usize| (*at, range(&client, *at, at + 8 * MIB - 1));
    let mut talks: Vec<_> = held.iter().map(begin).collect();
    wait_until("four fetches to be under way", || metric(&mut play, BYTES) == 4 * MIB as u64);
    let within = 42 * MIB + 5;
    play.client(|c| range(c, within, within + 400_000).expect(206).body(&body[within..=within + 400_000]));
    assert_eq!(metric(&mut play, REFUSED), 0);
    gate.open();
    let (at, mut first) = talks.remove(0);
    for (_, talk) in talks {
        talk.reset();
    }
    first.expect(206).body(&body[at..at + 8 * MIB]);
    wait_for_nothing(&mut play);
    assert_eq!(metric(&mut play, REFUSED), 0);
}

#[test]
fn a_large_body_that_is_new_is_refused_at_the_bound_and_one_that_turns_out_to_be_large_waits() {
    let (body, gate) = (content(1, 16 * MIB), Gate::new());
    let mut play = stage("8MiB", &body, &[], &gate);
    let (small, short, long) = (content(2, 256 << 10), content(3, 200 << 10), content(4, 2 * MIB));
    play.origin(|o| {
        hold_room(o, 8, &body, &gate);
        o.get("/small").header(FRESH.0, FRESH.1).body(&small);
        o.get("/short").header(FRESH.0, FRESH.1).part(&short);
        o.get("/long").header(FRESH.0, FRESH.1).part(&long);
    });
    let client = play.visitor();
    let mut talks: Vec<_> = (0..8).map(|number| client.get(&format!("/{number}")).begin()).collect();
    let mut heads: Vec<_> = talks.iter_mut().map(|talk| talk.expect_head(200)).collect();
    play.client(|c| c.get("/file").expect(503).header("Retry-After", "5").why("limit"));
    play.client(|c| c.get("/small").expect(200).body(&small));
    play.client(|c| c.get("/short").expect(200).body(&short));
    talks.push(client.get("/long").begin());
    heads.extend(talks.last_mut().map(|talk| talk.expect_head(200)));
    gate.open();
    for ((talk, head), body) in
        talks.iter_mut().zip(&heads).zip([&body[..MIB]; 8].into_iter().chain([&long[..]]))
    {
        talk.finish(head).body(body);
    }
    assert_eq!(metric(&mut play, REFUSED), 1);
    play.written().client(|c| c.get("/file").expect(200).body(&body));
    play.written();
    wait_for_nothing(&mut play);
}

#[test]
fn who_is_under_way_and_finds_no_room_waits_and_is_broken_off_in_the_end() {
    let (body, gate) = (content(1, 44 * MIB), Gate::new());
    let held: Vec<_> = (0..8).map(|number| (10 + 2 * number) * MIB).collect();
    let mut play = stage("8MiB", &body, &held, &gate);
    warm(&mut play, &body, &[0]);
    let client = play.visitor();
    let talks: Vec<_> = held.iter().map(|at| (*at, range(&client, *at, at + 9))).collect();
    wait_until("all room to be taken", || metric(&mut play, BYTES) == 8 * MIB as u64);
    // Memory has its first slice, and the next one would have to be fetched.
    let mut broken_off = range(&client, 10, 2 * MIB);
    let answer = broken_off.expect(206).cut();
    assert_eq!(answer.response().body.bytes, body[10..MIB]);
    assert_eq!(metric(&mut play, REFUSED), 1);
    wait_until("it to be counted as what it is", || {
        let text = play.handle().registry().render();
        text.lines().any(|line| line.starts_with("perigee_requests_total") && line.contains("why=\"limit\""))
    });
    let mut parts = client
        .get("/file")
        .header("Range", &format!("bytes=10-20,{}-{},500000-500001", MIB - 2, MIB + 2))
        .begin();
    let mut waiting = range(&client, 10, 2 * MIB);
    let (head, of_parts) = (waiting.expect_head(206), parts.expect_head(206));
    gate.open();
    waiting.finish(&head).body(&body[10..=2 * MIB]);
    let bytes = parts.finish(&of_parts).whole().response().body.bytes.clone();
    check_parts(&bytes, &body, &[(10, 20), (MIB - 2, MIB + 2), (500_000, 500_001)]);
    for (at, mut talk) in talks {
        talk.expect(206).body(&body[at..at + 10]);
    }
    assert_eq!(metric(&mut play, REFUSED), 1);
    play.written();
    wait_for_nothing(&mut play);
}

#[test]
fn an_answer_that_follows_a_fetch_and_is_broken_off_at_the_bound_is_counted_as_that() {
    let (body, begun, gate) = (content(1, 32 * MIB), Gate::new(), Gate::new());
    let mut play = stage("8MiB", b"", &[], &gate);
    play.origin(|o| {
        // Without a validator nobody can go on with it elsewhere.
        let reply =
            o.get("/direct").header(FRESH.0, FRESH.1).header("Content-Length", &body.len().to_string());
        reply.part(&body[..400 << 10]).hold(&begun).part(&body[400 << 10..]);
        hold_room(o, 7, &body, &gate);
    });
    let client = play.visitor();
    let mut direct = client.get("/direct").begin();
    let head = direct.expect_head(200);
    let mut talks: Vec<_> = (0..7).map(|number| client.get(&format!("/{number}")).begin()).collect();
    talks.iter_mut().for_each(|talk| drop(talk.expect_head(200)));
    begun.open();
    wait_until("more to be in flight than may be", || metric(&mut play, BYTES) > 8 * MIB as u64);
    wait_until("it to be broken off", || metric(&mut play, REFUSED) == 1);
    direct.finish(&head).cut_from(&body);
    wait_until("it to be counted as what it is", || {
        let text = play.handle().registry().render();
        text.lines().any(|line| line.starts_with("perigee_requests_total") && line.contains("why=\"limit\""))
    });
    gate.open();
    drop(talks);
    wait_for_nothing(&mut play);
}

#[test]
fn the_end_of_a_body_of_unknown_length_waits_for_no_room() {
    let (body, gate) = (content(1, MIB), Gate::new());
    let mut play = stage("8MiB", b"", &[], &gate);
    let (end, half) = (content(2, (256 << 10) + 1), 400 << 10);
    play.origin(|o| {
        for number in 0..40 {
            let reply = o.get(&format!("/{number}")).header(FRESH.0, FRESH.1);
            reply.part(&body[..half]).hold(&gate).part(&body[half..]);
        }
        o.get("/end").header(FRESH.0, FRESH.1).part(&end);
    });
    let client = play.visitor();
    let talks: Vec<_> = (0..40).map(|number| client.get(&format!("/{number}")).begin()).collect();
    wait_until("more to be in flight than may be", || metric(&mut play, BYTES) > 8 * MIB as u64);
    // Thirty and more are in turn, each for a quarter of a second.
    let begun = Instant::now();
    play.client(|c| c.get("/end").expect(200).body(&end));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    gate.open();
    for mut talk in talks {
        talk.expect(200).body(&body);
    }
    play.written();
    wait_for_nothing(&mut play);
}

// --- Slow readers ---

#[test]
fn the_last_reader_of_what_only_passes_stays_with_it_while_memory_is_short() {
    let (body, gate) = (content(1, 40 * MIB), Gate::new());
    let mut play = stage("8MiB", b"", &[], &gate);
    play.origin(|o| {
        // It knows no ranges, and is asked once.
        o.get("/long").header(FRESH.0, FRESH.1).header("ETag", "\"2\"").body(&body);
        hold_room(o, 4, &body, &gate);
    });
    let client = play.visitor();
    let mut talks: Vec<_> = (0..4).map(|number| client.get(&format!("/{number}")).begin()).collect();
    talks.iter_mut().for_each(|talk| drop(talk.expect_head(200)));
    assert!(metric(&mut play, BYTES) >= 4 * MIB as u64);
    let mut slow = client.get("/long").begin();
    let head = slow.expect_head(200);
    // What it could read next is on disk, and more than a disk alone is worth is yet to come.
    wait_until("a slice to be written", || play.handle().status().disks[0].records > 1);
    play.written();
    slow.finish(&head).body(&body);
    assert_eq!(metric(&mut play, REFUSED), 0);
    gate.open();
    drop(talks);
    wait_for_nothing(&mut play);
}

#[test]
fn a_fetch_for_the_disk_goes_on_above_the_bound_without_a_reader_who_takes_nothing() {
    let (body, begun, end, gate) = (content(1, 28 * MIB), Gate::new(), Gate::new(), Gate::new());
    let mut play = play();
    play.disk("64MiB");
    let config = play.config_text();
    play.config(&config.replacen("[store]", "[store]\nin_flight = \"8MiB\"", 1));
    let part = content(2, 250 << 10);
    play.origin(|o| {
        let reply = o.get("/file").always().header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
        reply.hold_at(10 * MIB + 9, &begun).hold_at(25 * MIB, &end).file(&body);
        // So much each needs no leave.
        for number in 0..40 {
            o.get(&format!("/{number}")).header(FRESH.0, FRESH.1).part(&part).hold(&gate).part("end");
        }
    });
    warm(&mut play, &body, &[0]);
    let client = play.visitor();
    let mut slow = range(&client, 10 * MIB, 26 * MIB - 1);
    let head = slow.expect_head(206);
    let talks: Vec<_> = (0..40).map(|number| client.get(&format!("/{number}")).begin()).collect();
    wait_until("more to be in flight than may be", || metric(&mut play, BYTES) > 9 * MIB as u64);
    begun.open();
    // All but the last slice has left the origin, of which the sockets hold but a part.
    end.wait_reached();
    assert!(metric(&mut play, BYTES) > 8 * MIB as u64);
    end.open();
    gate.open();
    drop(talks);
    slow.finish(&head).body(&body[10 * MIB..26 * MIB]);
    assert_eq!(metric(&mut play, REFUSED), 0);
    wait_for_nothing(&mut play);
}

#[test]
fn the_own_content_of_a_post_waits_for_its_visitor_who_cannot_ask_for_the_rest() {
    let body = content(1, 40 * MIB);
    let mut play = stage("8MiB", b"", &[], &Gate::new());
    play.origin(|o| {
        let reply = o.post("/own").header("Content-Location", "/own").header("ETag", "\"2\"");
        reply.header(FRESH.0, FRESH.1).body(&body);
        o.get("/own").always().header("ETag", "\"2\"").header(FRESH.0, FRESH.1).file(&body);
    });
    let mut slow = play.visitor().post("/own").with_body("x").begin();
    let head = slow.expect_head(200);
    wait_until("a slice to be written", || play.handle().status().disks[0].records > 1);
    // One who has the same at the same time does not follow, so as not to be ahead.
    play.client(|c| c.get("/own").expect(200).body(&body));
    // Longer than anybody is waited for who can go on from disk.
    std::thread::sleep(Duration::from_secs(6));
    slow.finish(&head).body(&body);
    wait_for_nothing(&mut play);
}

#[test]
fn slow_readers_hold_little_and_get_every_byte_while_others_are_answered() {
    let body = content(1, 48 * MIB);
    let mut play = stage("8MiB", &body, &[], &Gate::new());
    // On a busy machine, too, nobody is ended for taking nothing meanwhile.
    let config = play.config_text();
    play.config(&format!("[edge.limits]\nwrite_stall_timeout = \"1h\"\n\n{config}"));
    let slices: Vec<_> = (0..48).collect();
    warm(&mut play, &body, &slices);
    let small = content(2, 100 << 10);
    play.origin(|o| o.get("/small").header(FRESH.0, FRESH.1).body(&small));
    let client = play.visitor();
    // Each from another place on: what they take, they do not share.
    let begin = |number| {
        let start = number * (MIB + 4321);
        let mut talk = client.get("/file").header("Range", &format!("bytes={start}-")).begin();
        let head = talk.expect_head(206);
        (start, talk, head)
    };
    let readers: Vec<_> = (0..40).map(begin).collect();
    let mut most = 0;
    for round in 0..30 {
        play.client(|c| c.get("/small").expect(200).body(&small));
        let ranges = [(7, 70_000), (20 * MIB + round, 21 * MIB + 9), (MIB - 3, MIB + 3), (100_000, 100_009)];
        let asked = ranges.map(|(first, last)| format!("{first}-{last}")).join(",");
        let answer = client.get("/file").header("Range", &format!("bytes={asked}")).expect(206).whole();
        check_parts(&answer.response().body.bytes, &body, &ranges);
        most = most.max(metric(&mut play, BYTES));
    }
    // A sip for each, and no slice; what is read at this moment comes to it.
    assert!(most <= 9 * MIB as u64, "{most}");
    assert_eq!(metric(&mut play, REFUSED), 0);
    for (number, (start, mut talk, head)) in readers.into_iter().enumerate() {
        match number % 5 {
            0 => {
                // Each part has its own time.
                for part in body[start..].chunks(MIB) {
                    talk.expect_part(&head, part);
                }
                talk.finish(&head).whole();
            }
            _ => talk.reset(),
        }
    }
    wait_for_nothing(&mut play);
}

#[test]
fn the_bound_changes_with_the_configuration_and_is_told() {
    let mut play = stage("8MiB", b"", &[], &Gate::new());
    assert_eq!(metric(&mut play, "perigee_store_in_flight_max_bytes"), 8 * MIB as u64);
    let config = play.config_text();
    play.reconfigure(&config.replace("in_flight = \"8MiB\"", "in_flight = \"9MiB\""));
    assert_eq!(metric(&mut play, "perigee_store_in_flight_max_bytes"), 9 * MIB as u64);
    play.reconfigure(&config.replace("in_flight = \"8MiB\"", ""));
    assert_eq!(metric(&mut play, "perigee_store_in_flight_max_bytes"), 32 * MIB as u64);
}
