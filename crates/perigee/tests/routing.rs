//! A router as a node of a cluster: real processes, one control with a journal in SQLite.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use world::cluster::{Cluster, Shape};

const PERIGEE: &str = env!("CARGO_BIN_EXE_perigee");

/// An answer of DNS: its code, and the last address in it.
#[derive(Debug, PartialEq)]
struct Answer {
    code: u8,
    address: Option<Ipv4Addr>,
}

/// Asks for the addresses of a name, by TCP; `None` while nobody answers.
fn ask(router: SocketAddr, name: &str) -> Option<Answer> {
    let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut stream = TcpStream::connect(router).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&(query.len() as u16).to_be_bytes()).ok()?;
    stream.write_all(&query).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).ok()?;
    let has_answer = answer[7] > 0;
    let address = answer.last_chunk::<4>().filter(|_| has_answer).map(|bytes| Ipv4Addr::from(*bytes));
    Some(Answer { code: answer[3] & 0xf, address })
}

/// A number of a router's metrics.
fn metric(router: SocketAddr, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(router).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: router\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// One PoP with this address.
fn configuration(address: IpAddr, more: &str) -> String {
    format!(
        "[[pop]]\nname = \"fra\"\nlocation = \"FRA\"\nedges = [\"{address}\"]\n[probe]\nkind = \"off\"\n\
         [dns]\nzone = \"cdn.example\"\nnameservers = {{ \"ns1.cdn.example\" = [\"127.0.0.1\"] }}\n{more}\n\
         [[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://127.0.0.1:9\"\n"
    )
}

fn found(address: &str) -> Option<Answer> {
    Some(Answer { code: 0, address: Some(address.parse().unwrap()) })
}

const REFUSED: Option<Answer> = Some(Answer { code: 5, address: None });

#[test]
fn a_router_answers_what_its_cluster_says_and_starts_from_its_own_disk() {
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    cluster.start_router(None);
    let router = cluster.routers_mut()[0].address;
    let admin = cluster.routers_mut()[0].admin.unwrap();
    assert_eq!(ask(router, "shop.cdn.example"), REFUSED, "no zone yet");

    cluster.apply(&configuration("192.0.2.1".parse().unwrap(), ""));
    assert_eq!(ask(router, "shop.cdn.example"), found("192.0.2.1"));
    assert_eq!(metric(admin, "perigee_router_control_connected"), Some(1.0));
    assert_eq!(metric(admin, "perigee_router_serial"), Some(1.0));

    cluster.perigee(&["rollout", "undo"]);
    // What no zone can hold is refused by the router, which says so, and stays with what it has.
    let refused = configuration("192.0.2.9".parse().unwrap(), "records = \"shop A 192.0.2.7\"");
    let path = std::env::temp_dir().join(format!("perigee-routing-{}.toml", std::process::id()));
    std::fs::write(&path, refused).unwrap();
    cluster.perigee(&["apply", &path.display().to_string(), "--stage", "all", "--reason", "a test"]);
    std::fs::remove_file(&path).unwrap();
    cluster.wait("the router has refused it", || {
        cluster.nodes().iter().any(|node| node["role"] == "router" && node["refused"]["version"] == 2)
    });
    assert_eq!(ask(router, "shop.cdn.example"), found("192.0.2.1"));

    // Without control it starts with what it had.
    cluster.controls_mut()[0].kill();
    cluster.routers_mut()[0].restart();
    assert_eq!(ask(router, "shop.cdn.example"), found("192.0.2.1"));
    cluster.controls_mut()[0].restart();
    cluster.perigee(&["rollout", "undo"]);
    cluster.apply(&configuration("192.0.2.2".parse().unwrap(), ""));
    assert_eq!(ask(router, "shop.cdn.example"), found("192.0.2.2"));
}

#[test]
fn a_purge_is_proven_without_a_router_that_is_gone() {
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    cluster.start_router(None);
    cluster.apply(&configuration("192.0.2.1".parse().unwrap(), ""));
    cluster.routers_mut()[0].freeze();
    let text = cluster.perigee(&["purge", "--cluster", "--wait", "--json", "--everything"]);
    let proof: serde_json::Value = serde_json::from_str(&text).unwrap();
    let nodes: Vec<&str> = proof["receipts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|receipt| receipt["node"].as_str().unwrap())
        .collect();
    assert_eq!((nodes, &proof["laggards"]), (vec!["edge-1"], &serde_json::json!([])));
    cluster.routers_mut()[0].thaw();
}
