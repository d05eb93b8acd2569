//! Edges of a cluster as tiers: five processes with the certificates of their cluster, two of them the shield of three.

use std::net::SocketAddr;
use std::path::Path;

use world::cluster::{Cluster, Shape};
use world::edges::{CountingOrigin, Hold, crowd, get, reply, wait_until};

const PERIGEE: &str = env!("CARGO_BIN_EXE_perigee");

/// Visitors at once, on as many connections: what a machine of two cores opens within the patience of this test.
const VISITORS: usize = 500;

fn configuration(cluster: &Cluster, origin: &CountingOrigin) -> String {
    let text = cluster.pops(&[("ams", 2), ("fra", 3)]);
    let site = "[[site]]\nname = \"shop\"\ndomains = [\"site.example\"]\nshield = \"ams\"\nttl = \"1h\"\n";
    format!("{text}{site}origin = \"{}\"\n", origin.url())
}

#[test]
fn five_processes_fetch_once_also_after_a_purge_and_past_a_shield_that_stands_still() {
    let hold = Hold::default();
    let held = hold.clone();
    let origin = CountingOrigin::start(move |_, stream| {
        held.wait();
        reply(stream, "Surrogate-Key: all\r\nETag: \"one\"\r\n", b"one")
    });
    let shape = Shape { etcd: 0, controls: 1, edges: 5, relayed: 0, disks: true };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    cluster.apply(&configuration(&cluster, &origin));
    let addresses: Vec<SocketAddr> = cluster.edges().iter().map(|edge| edge.address).collect();
    let all_get = |path: &str, visitors: usize| {
        let answers = crowd(&addresses, visitors, path, "");
        let bad = answers.iter().find(|got| got.status != 200 || got.body != b"one");
        assert!(bad.is_none(), "{path}: {bad:?}\n{}", cluster.logs());
    };

    std::thread::scope(|scope| {
        let crowd = scope.spawn(|| all_get("/cold", VISITORS));
        wait_until("the origin is asked", || !origin.asked("/cold").is_empty());
        hold.open();
        crowd.join().expect("all are answered");
    });
    assert_eq!(
        origin.asked("/cold").len(),
        1,
        "one fetch for {VISITORS} visitors of five edges\n{}",
        cluster.logs()
    );

    for path in ["/a", "/b"] {
        all_get(path, 10);
        assert_eq!(origin.asked(path).len(), 1, "{path}");
    }
    cluster.perigee(&["purge", "--cluster", "--wait", "--tag", "all"]);
    for path in ["/a", "/b"] {
        all_get(path, 100);
        assert_eq!(origin.asked(path).len(), 2, "{path}: once more for all, when all know of the purge");
    }

    // A shield that stands still takes connections and answers nothing.
    cluster.edges()[0].freeze();
    for number in 0..4 {
        let path = format!("/still-{number}");
        let got = get(addresses[2], &path, "");
        assert_eq!(
            (got.status, got.body.as_slice()),
            (200, &b"one"[..]),
            "{path}: {}\n{}",
            got.head,
            cluster.logs()
        );
        // Once more where this machine has let one that lives stand still, too.
        let asked = origin.asked(&path).len();
        assert!((1..=2).contains(&asked), "{path}: {asked}");
    }
    cluster.edges()[0].thaw();
    cluster.edges_mut()[1].kill();
    for number in 0..4 {
        let got = get(addresses[3], &format!("/gone-{number}"), "");
        assert_eq!((got.status, got.body.as_slice()), (200, &b"one"[..]), "{}", got.head);
    }
}
