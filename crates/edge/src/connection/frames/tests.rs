use std::io::IoSlice;
use std::time::Duration;

use proptest::prelude::*;
use semantics::Wall;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, length: usize) -> Vec<u8> {
    let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, 0, 0, 0, 0, 1]);
    bytes.resize(HEAD_BYTES + length, kind);
    bytes
}

fn client(frames: &[(u8, usize)]) -> Vec<u8> {
    frames.iter().fold(PREFACE.to_vec(), |mut bytes, (kind, length)| {
        bytes.extend(frame(*kind, *length));
        bytes
    })
}

/// A connection on which the preface has come.
fn conduct() -> (Conduct, Clock) {
    let clock = Clock::manual(Wall(0));
    let conduct = Conduct::new(clock.clone());
    conduct.receive(PREFACE);
    (conduct, clock)
}

/// How many frames of a kind pass at once; at most `tries`.
fn passing(conduct: &Conduct, kind: u8, tries: usize) -> usize {
    let frame = frame(kind, 4);
    (0..tries)
        .take_while(|_| {
            conduct.receive(&frame);
            conduct.exceeded().is_none()
        })
        .count()
}

#[test]
fn each_kind_has_a_limit_with_a_name_of_its_own() {
    for (kind, burst, limit) in [
        (RST_STREAM, 500, Limit::Http2Resets),
        (PING, 200, Limit::Http2Pings),
        (SETTINGS, 50, Limit::Http2Settings),
        (PRIORITY, 500, Limit::Http2Priorities),
        (PRIORITY_UPDATE, 500, Limit::Http2Priorities),
        (WINDOW_UPDATE, 8192, Limit::Http2WindowUpdates),
        (0x7, 100, Limit::Http2OtherFrames),
        (0xb5, 100, Limit::Http2OtherFrames),
    ] {
        let (conduct, _) = conduct();
        assert_eq!(passing(&conduct, kind, 100_000), burst, "{limit:?}");
        assert_eq!(conduct.exceeded(), Some(limit));
    }
}

#[test]
fn requests_and_content_are_bounded_elsewhere() {
    let (conduct, _) = conduct();
    for kind in [DATA, HEADERS, CONTINUATION] {
        assert_eq!(passing(&conduct, kind, 10_000), 10_000);
    }
}

#[test]
fn a_budget_comes_back_with_time() {
    let (conduct, clock) = conduct();
    assert_eq!(passing(&conduct, RST_STREAM, 500), 500);
    for _ in 0..100 {
        clock.advance(Duration::from_secs(1));
        assert_eq!(passing(&conduct, RST_STREAM, 33), 33);
    }
    assert_eq!(passing(&conduct, RST_STREAM, 33), 0);
}

#[test]
fn what_is_received_may_be_acknowledged() {
    let (conduct, _) = conduct();
    let data = frame(DATA, 16384);
    for _ in 0..100_000 {
        conduct.send(&[IoSlice::new(&data[..9]), IoSlice::new(&data[9..])], data.len());
        assert_eq!(passing(&conduct, WINDOW_UPDATE, 2) + passing(&conduct, PING, 1), 3);
    }
}

#[test]
fn what_was_not_sent_gives_no_reason() {
    let (conduct, _) = conduct();
    let data = frame(DATA, 16384);
    assert_eq!(passing(&conduct, PING, 200), 200);
    conduct.send(&[IoSlice::new(&data)], 8);
    assert_eq!(passing(&conduct, PING, 1), 0);
}

#[test]
fn a_head_has_begun_until_its_last_frame_is_complete() {
    let (conduct, _) = conduct();
    let mut headers = frame(HEADERS, 10);
    assert!(!conduct.is_heading());
    conduct.receive(&headers);
    assert!(conduct.is_heading());
    let mut last = frame(CONTINUATION, 10);
    last[4] = END_HEADERS;
    conduct.receive(&last[..18]);
    assert!(conduct.is_heading());
    conduct.receive(&last[18..]);
    assert!(!conduct.is_heading());
    headers[4] = END_HEADERS;
    conduct.receive(&headers);
    assert!(!conduct.is_heading());
    conduct.receive(&[0]);
    assert!(conduct.is_heading());
}

/// What a browser does in an hour on one connection: pages of 80 requests, each with its priorities, left in the middle
/// again and again, with pings and frames of unknown kinds between.
#[test]
fn a_browser_reaches_no_limit() {
    let (conduct, clock) = conduct();
    conduct.receive(&[frame(SETTINGS, 24), frame(WINDOW_UPDATE, 4), frame(SETTINGS, 0)].concat());
    let data = frame(DATA, 8192);
    for page in 0..1200 {
        for request in 0..80 {
            conduct.receive(&[frame(HEADERS, 120), frame(0x1a, 6), frame(PRIORITY_UPDATE, 9)].concat());
            for _ in 0..4 {
                conduct.send(&[IoSlice::new(&data)], data.len());
                conduct.receive(&frame(WINDOW_UPDATE, 4).repeat(2));
            }
            if page % 2 == 0 && request >= 20 {
                conduct.receive(&frame(RST_STREAM, 4));
            }
        }
        conduct.receive(&frame(PING, 8));
        clock.advance(Duration::from_secs(3));
        assert_eq!(conduct.exceeded(), None, "page {page}");
    }
}

proptest! {
    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut(
        frames in prop::collection::vec((any::<u8>(), prop_oneof![0usize..20, 0usize..20_000]), 0..20),
        cuts in prop::collection::vec(1usize..3000, 1..50),
    ) {
        let bytes = client(&frames);
        let (mut seen, mut scan) = (Vec::new(), FrameScan::of_client());
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while let Some(cut) = cuts.next().filter(|_| !rest.is_empty()) {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            scan.scan(piece, |kind, _| seen.push(kind));
            rest = behind;
        }
        let kinds: Vec<u8> = frames.iter().map(|(kind, _)| *kind).collect();
        prop_assert_eq!(seen, kinds);
        // Nothing is left of them: the next begins anew.
        prop_assert!(scan.is_between_frames());
    }
}
