//! Stopping: nobody whose request is on its way loses it.

use std::time::Duration;

use world::play::speaks_http2;
use world::{Gate, play};

#[test]
fn a_request_under_way_is_answered_and_told_goodbye() {
    let gate = Gate::new();
    let mut play = play();
    play.origin(|o| {
        o.get("/slow").hold(&gate).header("Cache-Control", "max-age=60").body("late");
        o.get("/a").header("Cache-Control", "max-age=60").body("one");
    });
    let (idle, client) = (play.visitor(), play.visitor());
    let mut kept = idle.connect();
    kept.say("GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n");
    kept.expect(200).body("one").no_header("Connection");
    let mut waiting = client.get("/slow").begin();
    gate.wait_reached();
    let stopping = play.stop_edge(Duration::from_secs(20));
    // A connection that was idle when the stop began may still be used. How soon the edge knows of the stop is its own.
    loop {
        kept.say("GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n");
        let answer = kept.expect(200).body("one");
        if answer.response().head.field("connection").as_deref() == Some("close") {
            break;
        }
    }
    gate.open();
    let answer = waiting.expect(200).body("late");
    // HTTP/2 says it by GOAWAY.
    match speaks_http2() {
        true => answer.no_header("Connection"),
        false => answer.header("Connection", "close"),
    };
    assert!(stopping.join().unwrap_or(false), "everything ended by itself");
}
