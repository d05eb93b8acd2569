//! Two edges in one process, one of which takes the other's place: what becomes of purges at each step, which between
//! two processes is a matter of milliseconds.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use edge::handover::{Channel, Message};
use edge::sockets::{Bound, Sockets};
use edge::{Clock, Edge, Handle, Options, Predecessor, PurgeError};
use model::Snapshot;
use model::change::{Order, What};
use world::edges::{any_port, options};
use world::play::{Http3, Identity, Quic};
use world::scratch::Scratch;

/// Longest wait for a state that must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(state: &Path, channel: Option<Channel>) -> Handle {
    let text = "[edge]\nworkers = 1\n[[store.disk]]\nsize = \"64MiB\"\n\
                [[site]]\nname = \"a\"\ndomains = \"*\"\norigin = \"http://127.0.0.1:9\"\n";
    let options = Options {
        state: Some(state.to_owned()),
        predecessor: channel.map(|channel| Predecessor { channel, process: None, draining: 1 }),
        ..options(Clock::system())
    };
    Edge::start(Snapshot::parse(text, "test").snapshot.unwrap(), options).unwrap()
}

fn purge(edge: &Handle, url: &str) -> Result<u64, PurgeError> {
    let what = What::Url { site: "a".into(), url: url.into() };
    edge.purge(&[Order { what, soft: false }]).map(|applied| applied.position)
}

fn position(edge: &Handle) -> u64 {
    edge.status().purge_position
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_edge_takes_no_purge_while_its_log_is_away_and_goes_on_above_all_positions_once_it_is_back() {
    let scratch = Scratch::new("away");
    let edge = start(&scratch.0, None);
    let first = purge(&edge, "http://a.example/1").unwrap();
    edge.release();
    assert_eq!(purge(&edge, "http://a.example/2"), Err(PurgeError::HandingOver));
    assert_eq!(position(&edge), first, "what was refused is not in force");
    // Somebody else opens all of it, purges, and goes.
    let other = start(&scratch.0, None);
    let theirs = purge(&other, "http://a.example/3").unwrap();
    assert!(theirs > first);
    other.stop(Duration::ZERO);
    edge.resume().unwrap();
    assert!(position(&edge) > theirs, "no position is given out twice");
    assert!(purge(&edge, "http://a.example/2").unwrap() > theirs);
    edge.stop(Duration::ZERO);
}

#[test]
fn a_purge_is_acknowledged_only_once_the_edge_that_drains_has_it_in_force() {
    let scratch = Scratch::new("both");
    let old = start(&scratch.0, None);
    let before = purge(&old, "http://a.example/1").unwrap();
    old.release();
    let (ours, theirs) = Channel::pair().unwrap();
    let new = start(&scratch.0, Some(theirs));
    thread::scope(|scope| {
        let asked = scope.spawn(|| purge(&new, "http://a.example/2").unwrap());
        wait("the purge in the new edge", || position(&new) > before + 1);
        assert!(!asked.is_finished(), "the old one has not heard of it");
        // It comes first: the new edge took connections before it said that it serves.
        let (heard, _) = ours.receive().unwrap();
        assert!(matches!(heard, Message::Purge(_)), "{heard:?}");
        assert_eq!(position(&old), before);
        old.hand_over(ours, vec![heard], Duration::ZERO).unwrap();
        assert!(asked.join().unwrap() > before);
        assert!(position(&old) > before, "in force there before it was acknowledged");
    });
    wait("the old edge to say that it drains", || new.is_settled());
    let known = position(&old);
    purge(&new, "http://a.example/3").unwrap();
    assert!(position(&old) > known);
    assert_eq!(purge(&old, "http://a.example/4"), Err(PurgeError::HandingOver), "nobody asks it any more");
    old.stop(Duration::ZERO);
    new.stop(Duration::ZERO);
}

#[test]
fn only_one_edge_at_a_time_reads_what_begins_a_connection_of_http3_and_none_is_refused() {
    let identity = Identity::new();
    let text =
        "[edge]\nworkers = 2\n[[site]]\nname = \"a\"\ndomains = \"*\"\norigin = \"http://127.0.0.1:9\"\n";
    let start = |predecessor: Option<(Channel, Sockets)>| {
        let (channel, sockets) = predecessor.unzip();
        let options = Options {
            listen_tls: Some(vec![any_port()]),
            certificates: vec![identity.certificate()],
            sockets,
            predecessor: channel.map(|channel| Predecessor { channel, process: None, draining: 1 }),
            ..options(Clock::system())
        };
        Edge::start(Snapshot::parse(text, "test").snapshot.unwrap(), options).unwrap()
    };
    let old = start(None);
    let address = old.addresses_tls()[0];
    let (ours, theirs) = Channel::pair().unwrap();
    old.pass_sockets(&ours).unwrap();
    ours.send(&Message::Lock, &[]).unwrap();
    let mut sockets = Sockets::default();
    while let (Message::Sockets { kind, asked }, passed) = theirs.receive().unwrap() {
        sockets.push(Bound { kind, asked, sockets: passed });
    }
    let new = start(Some((theirs, sockets)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connect = |_| Http3::on(Quic::connect(runtime.handle().clone(), address, &identity));
    let connections = || (old.status().connections, new.status().connections);
    // The new one has the sockets, and the old one has not left them.
    let before: Vec<Http3> = (0..16).map(connect).collect();
    assert_eq!(connections(), (16, 0));
    let (after, handed_over) = thread::scope(|scope| {
        let handing_over = scope.spawn(|| old.hand_over(ours, Vec::new(), Duration::ZERO));
        // Each stands, whichever of the two has it.
        let during: Vec<Http3> = (0..64).map(connect).collect();
        (during, handing_over.join().unwrap())
    });
    handed_over.unwrap();
    let (here, there) = connections();
    assert_eq!(here + there, 80);
    let last = connect(0);
    assert_eq!(connections(), (here, there + 1));
    // No origin is there, so what they get is an error; but they get it.
    before.iter().chain(&after).chain([&last]).for_each(|client| assert_eq!(client.get("/").end, Ok(())));
    drop((before, after, last));
    old.stop(Duration::ZERO);
    new.stop(Duration::ZERO);
}
