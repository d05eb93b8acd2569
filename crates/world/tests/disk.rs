//! What the disk tier changes for visitors: what was stored outlives a restart and memory, what was purged or invalidated
//! doesn't, and of a long body only what is wanted is fetched.

use world::play;

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const MIB: usize = 1 << 20;

/// Bytes that differ from place to place.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 % 251) as u8 ^ (at >> 16) as u8).collect()
}

#[test]
fn what_was_stored_is_a_hit_after_a_restart() {
    let mut play = play();
    play.disk("64MiB");
    for (path, len) in
        [("/empty", 0), ("/small", 100), ("/paged", 300_000), ("/slice", MIB), ("/long", 3 * MIB + 5)]
    {
        let body = content(len);
        play.origin(|o| o.get(path).header(FRESH.0, FRESH.1).header("ETag", "\"1\"").body(&body));
        play.client(|c| c.get(path).expect(200).body(&body).why("absent"));
        play.written();
    }
    play.restart();
    for (path, len) in
        [("/empty", 0), ("/small", 100), ("/paged", 300_000), ("/slice", MIB), ("/long", 3 * MIB + 5)]
    {
        play.client(|c| c.get(path).expect(200).body(content(len)).why("fresh").header("ETag", "\"1\""));
    }
    play.origin_saw(5);
}
