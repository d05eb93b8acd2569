//! What the disk tier changes for visitors: what was stored outlives a restart, a crash and a memory that is too small; what
//! was purged, invalidated or taken back does not. Ranges are in `disk_ranges.rs`, disks in trouble in `disk_faults.rs`.

use world::play;
use world::play::{Play, content};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One of each way in which a body is stored: none, beside its head, in pages, one slice, and several.
const SIZES: [(&str, usize); 7] = [
    ("/empty", 0),
    ("/small", 100),
    ("/paged", 300 * KIB),
    ("/slice", MIB),
    ("/slice-and-one", MIB + 1),
    ("/slices", 2 * MIB),
    ("/long", 3 * MIB + 5),
];

/// How an edge may come to start anew.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Stop,
    Crash,
}

impl Ending {
    const ALL: [Ending; 2] = [Ending::Stop, Ending::Crash];

    fn of(self, play: &mut Play) -> &mut Play {
        match self {
            Ending::Stop => play.restart(),
            Ending::Crash => play.crash(),
        }
    }
}

fn play_with_disk(memory: &str) -> Play {
    let mut play = play();
    play.disk(memory);
    play
}

// --- Restart ---

#[test]
fn what_was_stored_is_a_hit_after_a_restart_and_after_a_crash() {
    for ending in Ending::ALL {
        let mut play = play_with_disk("64MiB");
        for (path, len) in SIZES {
            let body = content(1, len);
            play.origin(|o| o.get(path).header(FRESH.0, FRESH.1).header("ETag", "\"1\"").body(&body));
            play.client(|c| c.get(path).expect(200).body(&body).why("absent"));
        }
        play.written();
        for _ in 0..2 {
            ending.of(&mut play);
            for (path, len) in SIZES {
                play.client(|c| {
                    c.get(path).expect(200).body(content(1, len)).why("fresh").header("ETag", "\"1\"")
                });
            }
        }
        play.origin_saw(SIZES.len());
    }
}

#[test]
fn a_body_of_unknown_length_is_a_hit_after_a_restart() {
    let mut play = play_with_disk("64MiB");
    for (path, len) in SIZES {
        let body = content(1, len);
        play.origin(|o| {
            let reply = o.get(path).header(FRESH.0, FRESH.1).head_now();
            // In pieces that are no multiples of anything.
            drop(body.chunks(100_003).fold(reply, |reply, piece| reply.part(piece)));
        });
        play.client(|c| c.get(path).expect(200).body(&body).why("absent"));
    }
    play.written().restart();
    for (path, len) in SIZES {
        play.client(|c| c.get(path).expect(200).body(content(1, len)).why("fresh"));
    }
    play.origin_saw(SIZES.len());
}

#[test]
fn variants_are_found_again_after_a_restart() {
    let mut play = play_with_disk("64MiB");
    let asked = [("de", "gzip"), ("de", "identity"), ("fr", "gzip")];
    for (language, coding) in asked {
        play.origin(|o| {
            let reply = o.get("/a").expecting("Accept-Language", language).header(FRESH.0, FRESH.1);
            reply.header("Vary", "Accept-Language, Accept-Encoding").body(format!("{language} {coding}"));
        });
        play.client(|c| {
            let asking = c.get("/a").header("Accept-Language", language).header("Accept-Encoding", coding);
            asking.expect(200).body(format!("{language} {coding}"));
        });
    }
    play.written().restart();
    play.client(|c| {
        let ask = |language: &str, coding: &str| {
            c.get("/a").header("Accept-Language", language).header("Accept-Encoding", coding)
        };
        for (language, coding) in asked {
            ask(language, coding).expect(200).body(format!("{language} {coding}")).why("fresh");
        }
        // Other spellings of the same wishes.
        ask("DE", "GZIP;q=0.9, foo").expect(200).body("de gzip").why("fresh");
    });
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).header("Vary", "Accept-Language").body("it"));
    play.client(|c| c.get("/a").header("Accept-Language", "it").expect(200).body("it").why("variant"));
    play.written().restart();
    play.client(|c| {
        c.get("/a").header("Accept-Language", "it").expect(200).body("it").why("fresh");
        let asking = c.get("/a").header("Accept-Language", "fr").header("Accept-Encoding", "gzip");
        asking.expect(200).body("fr gzip").why("fresh");
    });
}

#[test]
fn heads_and_conditions_are_answered_from_disk() {
    let mut play = play_with_disk("64MiB");
    for (path, len) in SIZES {
        play.origin(|o| {
            let reply = o.get(path).header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
            reply.header("Last-Modified", "{now-100}").body(content(1, len));
        });
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
    }
    play.written();
    for (path, len) in SIZES {
        play.restart();
        play.client(|c| {
            c.head(path).expect(200).body("").header("Content-Length", &len.to_string()).why("fresh");
        });
        play.restart();
        play.client(|c| {
            c.get(path).header("If-None-Match", "\"1\"").expect(304).body("").header("ETag", "\"1\"");
            c.get(path).header("If-None-Match", "\"2\"").expect(200).body(content(1, len));
            c.get(path).header("If-Match", "\"2\"").expect(412);
            let later = "Fri, 15 Jan 2027 09:00:00 GMT";
            c.get(path).header("If-Modified-Since", later).expect(304).body("");
        });
    }
    play.origin_saw(SIZES.len());
}

#[test]
fn freshness_and_age_go_on_counting_across_a_restart() {
    let mut play = play_with_disk("64MiB");
    for (path, len) in SIZES {
        play.origin(|o| o.get(path).header("Cache-Control", "max-age=60").body(content(1, len)));
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
    }
    play.written().pass_secs(20).restart().pass_secs(39);
    for (path, len) in SIZES {
        play.client(|c| c.get(path).expect(200).body(content(1, len)).why("fresh").age(59));
    }
    play.restart().pass_secs(1);
    for (path, len) in SIZES {
        play.origin(|o| o.get(path).header("Cache-Control", "max-age=60").body(content(2, len)));
        play.client(|c| c.get(path).expect(200).body(content(2, len)).why("expired"));
    }
}

#[test]
fn what_is_stale_after_a_restart_is_validated_and_fresh_again() {
    let mut play = play_with_disk("64MiB");
    for (path, len) in SIZES {
        play.origin(|o| {
            o.get(path).header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body(content(1, len))
        });
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
    }
    play.written().restart().pass_secs(20);
    for (path, len) in SIZES {
        play.origin(|o| {
            let reply = o.get(path).expecting("If-None-Match", "\"1\"").reply(304);
            reply.header("Cache-Control", "max-age=100").header("ETag", "\"1\"").header("X-New", "yes");
        });
        play.client(|c| {
            c.get(path).expect(200).body(content(1, len)).why("revalidated");
            c.get(path).expect(200).body(content(1, len)).why("fresh").header("X-New", "yes");
        });
    }
    play.written().restart();
    // The new head of a long body costs nothing to write, that of a short one little.
    for (path, len) in SIZES.into_iter().filter(|(_, len)| *len < 16 * KIB || *len > MIB) {
        play.client(|c| c.get(path).expect(200).body(content(1, len)).why("fresh").header("X-New", "yes"));
    }
}

#[test]
fn a_new_version_takes_the_place_of_the_old_one_on_disk() {
    let mut play = play_with_disk("64MiB");
    for (path, len) in SIZES {
        play.origin(|o| {
            o.get(path).header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body(content(1, len))
        });
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
    }
    play.written().restart().pass_secs(20);
    for (path, len) in SIZES {
        let body = content(2, len + 1);
        play.origin(|o| o.get(path).header(FRESH.0, FRESH.1).header("ETag", "\"2\"").body(&body));
        play.client(|c| c.get(path).expect(200).body(&body).why("expired"));
    }
    play.written().restart();
    for (path, len) in SIZES {
        play.client(|c| c.get(path).expect(200).body(content(2, len + 1)).why("fresh"));
    }
}

#[test]
fn something_stale_answers_after_a_restart_while_the_origin_is_down() {
    let mut play = play_with_disk("64MiB");
    for (path, len) in SIZES {
        play.origin(|o| {
            let reply = o.get(path).header("Cache-Control", "max-age=10, stale-if-error=1000");
            reply.header("ETag", "\"1\"").body(content(1, len));
        });
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
    }
    play.written().restart().pass_secs(20);
    for (path, len) in SIZES {
        play.origin(|o| o.get(path).reply(503).body("down"));
        play.client(|c| c.get(path).expect(200).body(content(1, len)).why("stale-if-error"));
    }
}

// --- Taking back ---

/// A play with something that each purge matches, and `/kept`, which only the two widest match: all of them on disk.
fn purgeable() -> Play {
    let mut play = play_with_disk("64MiB");
    for (path, len) in
        [("/a", 100), ("/dir/a", 100), ("/tagged", 100), ("/kept", 100), ("/dir/long", 2 * MIB)]
    {
        play.origin(|o| {
            let reply = o.get(path).header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
            let reply = if path == "/tagged" { reply.header("Surrogate-Key", "t u") } else { reply };
            reply.body(content(1, len));
        });
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
    }
    play.written();
    play
}

#[test]
fn a_hard_purge_stays_in_force_after_the_end_of_the_edge() {
    let narrow = [
        ("url http://site.example/a", "/a", 100),
        ("prefix http://site.example/dir/", "/dir/a", 100),
        ("url http://site.example/dir/long", "/dir/long", 2 * MIB),
        ("tag u", "/tagged", 100),
    ];
    for ending in Ending::ALL {
        let mut play = purgeable();
        play.restart();
        for (purge, ..) in &narrow {
            play.purge(purge);
        }
        ending.of(&mut play);
        for (purge, path, len) in narrow {
            play.origin(|o| {
                o.get(path).expecting_no("If-None-Match").header(FRESH.0, FRESH.1).body(content(2, len))
            });
            play.client(|c| c.get(path).expect(200).body(content(2, len)).why_in(&["purged", "absent"]));
            assert!(!purge.is_empty());
        }
        play.client(|c| c.get("/kept").expect(200).body(content(1, 100)).why("fresh"));
        // What came after the purge is not purged by it, also after the next start.
        play.written();
        ending.of(&mut play);
        for (_, path, len) in narrow {
            play.client(|c| c.get(path).expect(200).body(content(2, len)).why("fresh"));
        }
    }
}

#[test]
fn a_purge_of_a_site_or_of_everything_stays_in_force_after_the_end_of_the_edge() {
    for (ending, purge) in
        Ending::ALL.into_iter().flat_map(|ending| [(ending, "site site"), (ending, "everything")])
    {
        let mut play = purgeable();
        play.purge(purge);
        ending.of(&mut play);
        for (path, len) in [("/a", 100), ("/kept", 100), ("/dir/long", 2 * MIB)] {
            play.origin(|o| o.get(path).header(FRESH.0, FRESH.1).body(content(2, len)));
            play.client(|c| c.get(path).expect(200).body(content(2, len)).why("purged"));
        }
    }
}

#[test]
fn a_soft_purge_stays_in_force_after_the_end_of_the_edge() {
    for ending in Ending::ALL {
        let mut play = purgeable();
        play.soft_purge("url http://site.example/a").soft_purge("tag t");
        play.soft_purge("url http://site.example/dir/long");
        ending.of(&mut play);
        for (number, (path, len)) in
            [("/a", 100), ("/tagged", 100), ("/dir/long", 2 * MIB)].into_iter().enumerate()
        {
            play.origin(|o| {
                let reply = o.get(path).expecting("If-None-Match", "\"1\"").reply(304);
                reply.header(FRESH.0, FRESH.1).header("ETag", "\"1\"");
            });
            play.client(|c| c.get(path).expect(200).body(content(1, len)).why("stale-while-revalidate"));
            play.origin_is_asked(5 + number + 1);
        }
        play.client(|c| c.get("/kept").expect(200).body(content(1, 100)).why("fresh"));
    }
}

#[test]
fn an_unsafe_request_outdates_what_is_on_disk_for_good() {
    for ending in Ending::ALL {
        let mut play = play_with_disk("64MiB");
        for (path, len) in SIZES {
            play.origin(|o| {
                o.get(path).header(FRESH.0, FRESH.1).header("ETag", "\"1\"").body(content(1, len))
            });
            play.client(|c| c.get(path).expect(200).body(content(1, len)));
        }
        // Once with a memory that knows it, once with one that doesn't.
        play.written();
        if let Ending::Stop = ending {
            play.restart();
        }
        for (path, _) in SIZES {
            play.origin(|o| o.post(path).reply(204));
            play.client(|c| c.post(path).with_body("x").expect(204));
        }
        // A crash takes back what was removed a tenth of a second before it.
        play.removals_are_written();
        ending.of(&mut play);
        for (path, len) in SIZES {
            play.origin(|o| o.get(path).header(FRESH.0, FRESH.1).body(content(2, len)));
            play.client(|c| c.get(path).expect(200).body(content(2, len)).why("absent"));
        }
    }
}

#[test]
fn an_unsafe_request_outdates_all_variants_on_disk() {
    let mut play = play_with_disk("64MiB");
    let ask = |play: &mut Play, language: &str, text: &str, why: &str| {
        play.client(|c| {
            let answer = c.get("/a").header("Accept-Language", language).expect(200);
            answer.body(format!("{text} {language}")).why(why)
        });
    };
    for (text, why) in [("old", ["absent", "variant"]), ("new", ["absent", "variant"])] {
        for (language, why) in ["de", "fr"].into_iter().zip(why) {
            play.origin(|o| {
                let reply = o.get("/a").expecting("Accept-Language", language).header(FRESH.0, FRESH.1);
                reply.header("Vary", "Accept-Language").body(format!("{text} {language}"));
            });
            ask(&mut play, language, text, why);
        }
        play.written().restart();
        ["de", "fr"].into_iter().for_each(|language| ask(&mut play, language, text, "fresh"));
        if text == "old" {
            play.origin(|o| o.post("/a").reply(204));
            play.client(|c| c.post("/a").with_body("x").expect(204));
            play.restart();
        }
    }
}

#[test]
fn what_became_private_answers_nobody_from_disk() {
    for (path, len) in SIZES {
        let mut play = play_with_disk("64MiB");
        play.origin(|o| {
            o.get(path).header("Cache-Control", "max-age=10").header("ETag", "\"1\"").body(content(1, len))
        });
        play.client(|c| c.get(path).expect(200).body(content(1, len)));
        play.written().restart().pass_secs(20);
        play.origin(|o| {
            o.get(path).header("Cache-Control", "private").body("for one");
            o.get(path).header("Cache-Control", "private").body("for another");
            o.get(path).header("Cache-Control", "private").body("after the restart");
        });
        play.client(|c| {
            c.get(path).expect(200).body("for one");
            c.get(path).expect(200).body("for another");
        });
        play.removals_are_written().restart();
        play.client(|c| c.get(path).expect(200).body("after the restart").why("uncacheable"));
    }
}

#[test]
fn what_must_not_be_stored_never_reaches_the_disk() {
    let mut play = play_with_disk("64MiB");
    let secret = |len: usize| b"a secret of somebody; ".repeat(len / 22 + 1);
    let kinds: [(&str, &str, &str); 5] = [
        ("/no-store", "Cache-Control", "no-store, max-age=60"),
        ("/private", "Cache-Control", "private, max-age=60"),
        ("/cookie", "Set-Cookie", "id=1"),
        ("/vary", "Vary", "*"),
        ("/authorized", "X-Nothing", "x"),
    ];
    for len in [10, 300 * KIB, 3 * MIB] {
        for (path, name, value) in kinds {
            let body = secret(len);
            play.origin(|o| {
                let reply = o.get(path).header(name, value).header("ETag", "\"1\"");
                let reply = if name == "Cache-Control" { reply } else { reply.header(FRESH.0, FRESH.1) };
                reply.body(&body);
            });
            play.client(|c| {
                let asking = c.get(path);
                let asking =
                    if path == "/authorized" { asking.header("Authorization", "me") } else { asking };
                asking.expect(200).body(&body);
            });
        }
    }
    play.origin(|o| o.get("/public").header(FRESH.0, FRESH.1).body(b"known to all; ".repeat(1000)));
    play.client(|c| c.get("/public").expect(200));
    play.written().stop_edge(std::time::Duration::ZERO).join().expect("the edge stops");
    let bytes = std::fs::read(play.state().join("store/volume")).expect("the volume can be read");
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(holds(b"known to all; "), "what may be stored is in the file");
    assert!(!holds(b"a secret of somebody"), "what must not be stored is in the file");
}

// --- A memory that is too small ---

#[test]
fn what_is_too_large_for_memory_is_a_hit_from_disk() {
    let sizes =
        SIZES.into_iter().chain([("/21k", 21 * KIB), ("/64k", 64 * KIB), ("/far-too-large", 8 * MIB)]);
    for validator in ["\"1\"", "W/\"1\"", ""] {
        let mut play = play_with_disk("1MiB");
        for (path, len) in sizes.clone() {
            play.origin(|o| {
                let reply = o.get(path).header(FRESH.0, FRESH.1);
                let reply = if validator.is_empty() { reply } else { reply.header("ETag", validator) };
                reply.body(content(1, len));
            });
            play.client(|c| c.get(path).expect(200).body(content(1, len)).why("absent"));
            play.written();
            for _ in 0..2 {
                play.client(|c| c.get(path).expect(200).body(content(1, len)).why("fresh"));
            }
        }
        play.origin_saw(sizes.clone().count());
    }
}

#[test]
fn what_is_too_large_for_memory_is_stored_though_its_length_was_not_told() {
    let mut play = play_with_disk("1MiB");
    for (path, len) in SIZES.into_iter().chain([("/21k", 21 * KIB)]) {
        let body = content(1, len);
        play.origin(|o| {
            let reply = o.get(path).header(FRESH.0, FRESH.1).head_now();
            drop(body.chunks(100_003).fold(reply, |reply, piece| reply.part(piece)));
        });
        play.client(|c| c.get(path).expect(200).body(&body).why("absent"));
        play.written();
        play.client(|c| c.get(path).expect(200).body(&body).why("fresh"));
    }
}

#[test]
fn many_objects_go_between_memory_and_disk_and_stay_what_they_are() {
    let mut play = play_with_disk("1MiB");
    let len = |number: usize| 1000 + number * 701 % (30 * KIB);
    for number in 0..200 {
        let path = format!("/{number}");
        play.origin(|o| o.get(&path).header(FRESH.0, FRESH.1).body(content(number as u64, len(number))));
        play.client(|c| c.get(&path).expect(200).body(content(number as u64, len(number))));
    }
    play.written();
    let client = play.visitor();
    let mut chance = 1u64;
    for _ in 0..1000 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = (chance >> 33) as usize % 200;
        let body = content(number as u64, len(number));
        client.get(&format!("/{number}")).expect(200).body(body).why("fresh");
    }
    play.origin_saw(200);
    assert!(play.disk_stats().read_bytes > (2 * MIB) as u64, "most were read from disk");
}

#[test]
fn variants_go_between_memory_and_disk_and_are_found() {
    let mut play = play_with_disk("1MiB");
    let languages = ["de", "fr", "it"];
    let body = |number: usize, language: &str| format!("{number} {language} {}", "x".repeat(15_000));
    for round in 0..3 {
        for (number, language) in (0..60).flat_map(|number| languages.map(|language| (number, language))) {
            let path = format!("/{number}");
            if round == 0 {
                play.origin(|o| {
                    let reply = o.get(&path).header(FRESH.0, FRESH.1).header("Vary", "Accept-Language");
                    reply.body(body(number, language));
                });
            }
            play.client(|c| {
                let answer = c.get(&path).header("Accept-Language", language).expect(200);
                answer.body(body(number, language))
            });
            if round == 0 && number % 10 == 9 {
                play.written();
            }
        }
        play.written();
    }
    play.origin_saw(180);
}

#[test]
fn many_who_ask_for_something_cold_have_it_read_once() {
    let body = content(1, 900 * KIB);
    let mut play = play_with_disk("64MiB");
    play.origin(|o| o.get("/a").header(FRESH.0, FRESH.1).body(&body));
    play.client(|c| c.get("/a").expect(200).body(&body));
    play.written().restart();
    let client = play.visitor();
    let mut talks: Vec<_> = (0..40).map(|_| client.get("/a").begin()).collect();
    talks.iter_mut().for_each(|talk| drop(talk.expect(200).body(&body).why("fresh")));
    // Whoever comes after the first read is over has it read once more, and then it is in memory.
    let read = play.disk_stats().read_bytes;
    assert!(read < 3 * body.len() as u64, "{read} bytes were read");
    play.origin_saw(1);
}
