//! A cluster of real processes: three etcd servers, two controls, a relay, five edges. Skipped, with a word, where there is no etcd.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use world::cluster::{Cluster, Shape, has_etcd};

const PERIGEE: &str = env!("CARGO_BIN_EXE_perigee");

/// An origin whose content has a version.
struct Origin {
    address: SocketAddr,
    version: Arc<AtomicU64>,
}

impl Origin {
    fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, version) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(1)));
        let current = version.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let version = current.load(Ordering::SeqCst);
                std::thread::spawn(move || answer(stream, version));
            }
        });
        Origin { address, version }
    }

    fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn configuration(&self) -> String {
        format!(
            "[[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://{}\"\n\
             [[site.rule]]\npath = \"/*\"\nttl = \"1h\"\n",
            self.address
        )
    }
}

fn answer(mut stream: TcpStream, version: u64) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    let body = format!("version {version}");
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nSurrogate-Key: all\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// The version that an edge serves, and whether from its cache.
fn get(edge: SocketAddr, path: &str) -> (u64, bool) {
    let mut stream = TcpStream::connect(edge).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let is_hit = text.lines().any(|line| line.starts_with("Cache-Status:") && line.contains("; hit"));
    let version = text.rsplit_once("\r\n\r\nversion ").map(|(_, version)| version.parse().unwrap());
    (version.unwrap_or_else(|| panic!("{text}")), is_hit)
}

fn purge(cluster: &Cluster, control: usize, what: &[&str]) -> Value {
    let arguments = [&["purge", "--cluster", "--wait", "--json"], what].concat();
    let output = cluster.try_perigee(control, &arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}\n{}", cluster.logs());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn receipts(proof: &Value) -> Vec<String> {
    let mut nodes: Vec<String> = proof["receipts"]
        .as_array()
        .unwrap_or_else(|| panic!("{proof}"))
        .iter()
        .map(|receipt| receipt["node"].as_str().unwrap().to_owned())
        .collect();
    nodes.sort();
    nodes
}

#[test]
fn a_change_and_a_purge_reach_every_node_with_proof_whatever_is_lost_on_the_way() {
    if !has_etcd() {
        eprintln!("skipped: etcd is not installed (Debian package etcd-server)");
        return;
    }
    let shape = Shape { etcd: 3, controls: 2, edges: 3, relayed: 2, disks: true };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    let origin = Origin::start();
    cluster.apply(&origin.configuration());
    let edges: Vec<(String, SocketAddr)> =
        cluster.edges().iter().map(|edge| (edge.name.clone(), edge.address)).collect();
    let names: Vec<String> = edges.iter().map(|(name, _)| name.clone()).collect();
    let fill = |version: u64| {
        for (name, edge) in &edges {
            assert_eq!(get(*edge, "/a").0, version, "{name}");
            assert_eq!(get(*edge, "/a"), (version, true), "{name}");
        }
    };
    fill(1);

    // Each control shows the receipts of all nodes, whichever control or relay they follow.
    for control in [0, 1] {
        let version = origin.next_version();
        let proof = purge(&cluster, control, &["--url", "http://shop.example/a"]);
        assert_eq!(receipts(&proof), names, "{proof}");
        fill(version);
    }

    // A member of etcd, a control and the relay are lost: what is left does it.
    cluster.etcd_mut()[0].kill();
    cluster.controls_mut()[0].kill();
    let version = origin.next_version();
    let proof = purge(&cluster, 1, &["--tag", "all"]);
    assert_eq!(receipts(&proof), names, "{proof}");
    fill(version);
    cluster.relay_mut().unwrap().restart();
    cluster.controls_mut()[0].restart();
    cluster.etcd_mut()[0].restart();

    // An edge that was away applies what it has missed, and serves nothing of it from its disk.
    cluster.edges_mut()[0].kill();
    let version = origin.next_version();
    let proof = purge(&cluster, 1, &["--site", "shop"]);
    assert!(!receipts(&proof).contains(&names[0]), "{proof}");
    cluster.edges_mut()[0].restart();
    let position = proof["position"].as_u64().unwrap();
    cluster.wait("the edge that was away has caught up", || {
        let nodes = cluster.nodes();
        let node = nodes.iter().find(|node| node["name"] == names[0].as_str()).unwrap();
        node["position"].as_u64().is_some_and(|at| at >= position)
    });
    fill(version);
}

#[test]
fn without_control_edges_serve_and_start_and_no_purge_is_said_to_be_done() {
    let shape = Shape { etcd: 0, controls: 1, edges: 2, relayed: 0, disks: true };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    let origin = Origin::start();
    cluster.apply(&origin.configuration());
    let addresses: Vec<SocketAddr> = cluster.edges().iter().map(|edge| edge.address).collect();
    for edge in &addresses {
        get(*edge, "/a");
        assert_eq!(get(*edge, "/a"), (1, true));
    }
    cluster.controls_mut()[0].kill();
    let output = cluster.try_perigee(0, &["purge", "--cluster", "--everything", "--wait"]);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));

    cluster.edges_mut()[0].restart();
    for edge in &addresses {
        get(*edge, "/a");
        assert_eq!(get(*edge, "/a"), (1, true), "hits go on, also after a start from disk alone");
    }
    cluster.controls_mut()[0].restart();
    origin.next_version();
    let proof = purge(&cluster, 0, &["--everything"]);
    assert_eq!(receipts(&proof).len(), 2, "{proof}");
    for edge in &addresses {
        assert_eq!(get(*edge, "/a").0, 2);
    }
}
