//! What a running router makes of what nodes report, and keeps when lines of the configuration move: asked over sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use model::Snapshot;
use model::steering::{Steering, Vote};
use router::compile::Compiler;
use router::server::{Config, Router, Settings};
use serde_json::{Value, json};

/// Two PoPs that are 366 km apart, the first with further keys, behind these lines.
fn snapshot(before: &str, own: &str) -> Box<Snapshot> {
    read(&text(before, own))
}

fn text(before: &str, own: &str) -> String {
    format!(
        "{before}[[pop]]\nname = \"one\"\nlocation = \"FRA\"\nedges = [\"192.0.2.1\"]\n{own}\
         [[pop]]\nname = \"two\"\nlocation = \"AMS\"\nedges = [\"192.0.2.2\"]\n[probe]\nkind = \"off\"\n\
         [[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://192.0.2.9\"\n"
    )
}

fn read(text: &str) -> Box<Snapshot> {
    let parsed = Snapshot::parse_cluster(text, "cluster.toml");
    Box::new(parsed.snapshot.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics)))
}

fn start(snapshot: Box<Snapshot>, location: Option<PathBuf>) -> (Router, mpsc::Receiver<String>) {
    let any = "127.0.0.1:0".parse().unwrap();
    let settings = Settings {
        listen: vec![any],
        admin: Some(any),
        http: vec![],
        workers: 1,
        config: Config::Told(snapshot, 1),
        location,
        key: None,
        node: "ns1".to_owned(),
        cookie_secret: [7; 16],
        token: None,
    };
    let (told, telling) = mpsc::sync_channel(64);
    (Router::start(settings, move |line| _ = told.send(line.to_owned())).unwrap(), telling)
}

fn get(admin: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn a_pair_of_pops_that_is_faster_than_light_is_shown_counted_and_told_once_also_when_lines_move() {
    let (router, telling) = start(snapshot("", ""), None);
    let admin = router.admin.unwrap();
    let link = || serde_json::from_str::<Value>(&get(admin, "/v1/mesh?pop=two")).unwrap()["links"][0].clone();
    let report = |rtt_us: u32| {
        let vote = Vote { edge: "192.0.2.1".parse().unwrap(), down: false, rtt_us: Some(rtt_us) };
        router.steered("two-1", "two", Steering { votes: vec![vote], ..Steering::default() }, 0);
    };
    let is_counted = |count: u8| {
        get(admin, "/metrics").contains(&format!("\nperigee_router_pop_pairs_faster_than_light {count}\n"))
    };

    // What comes into force shows what is known at that instant. One moment is no proof.
    report(900);
    router.take(*snapshot("", ""), 2).unwrap();
    assert_eq!((&link()["pops"], &link()["rtt_ms"]), (&json!(["one", "two"]), &json!(0.9)));
    assert!(link()["fault"].is_null() && is_counted(0));
    std::thread::sleep(Duration::from_millis(10_100));
    report(800);
    router.take(*snapshot("\n\n", ""), 3).unwrap();
    let fault = link()["fault"].as_str().unwrap().to_owned();
    assert!(
        fault.starts_with("PoPs one and two cannot both be where their locations say (lines 3 and 7)"),
        "{fault}"
    );
    assert!(is_counted(1));
    router.take(*snapshot("\n", ""), 4).unwrap();
    assert!(link()["fault"].as_str().unwrap().contains("(lines 2 and 6)") && is_counted(1));
    let lines: Vec<String> = telling.try_iter().filter(|line| line.contains("cannot both be")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(get(admin, "/v1/mesh?pop=three").contains("no PoP is called"));
    router.stop();
}

#[test]
fn edges_are_shown_before_anything_is_seen_of_them() {
    let (router, _telling) = start(snapshot("", ""), None);
    let shown = get(router.admin.unwrap(), "/metrics");
    for edge in ["192.0.2.1", "192.0.2.2"] {
        assert!(shown.contains(&format!("\nperigee_router_edge_up{{edge=\"{edge}\"}} 1\n")), "{shown}");
    }
    router.stop();
}

#[test]
fn what_was_seen_of_edges_is_forgotten_when_they_are_not_to_be_probed_any_more() {
    let probed = text("", "").replace("\"off\"", "\"tcp\"\ninterval = \"60s\"");
    let (router, _telling) = start(read(&probed), None);
    let is_up = |up: u8| {
        get(router.admin.unwrap(), "/metrics").contains(&format!("edge_up{{edge=\"192.0.2.1\"}} {up}\n"))
    };
    assert!(is_up(1), "nothing is known of it yet");
    let vote = || {
        let vote = Vote { edge: "192.0.2.1".parse().unwrap(), down: true, rtt_us: None };
        for node in ["two-1", "two-2"] {
            router.steered(node, "two", Steering { votes: vec![vote], ..Steering::default() }, 0);
        }
    };
    vote();
    // Whatever was told before has been heard when a configuration is in force.
    router.take(*read(&probed), 2).unwrap();
    assert!(is_up(0));
    router.take(*snapshot("", ""), 3).unwrap();
    assert!(is_up(1), "nobody looks at it any more");
    vote();
    router.take(*snapshot("", ""), 4).unwrap();
    assert!(is_up(1), "who still has the configuration before has no say");
    router.stop();
}

/// Location data of two places; whoever takes it removes it.
fn location(test: &str) -> PathBuf {
    let mut compiler = Compiler::new();
    compiler.list("10.0.0.0/16,49.0 8.6,DE\n10.1.0.0/16,50.0 8.6,DE\n", "list");
    let path = std::env::temp_dir().join(format!("perigee-reports-{test}-{}.geo", std::process::id()));
    std::fs::write(&path, compiler.finish(0).encode(1).unwrap()).unwrap();
    path
}

#[test]
fn a_configuration_that_has_no_pop_yet_comes_into_force_and_so_does_the_next() {
    let path = location("none");
    let (router, _telling) = start(snapshot("", ""), Some(path.clone()));
    let route = |target: &str| get(router.admin.unwrap(), target);
    let text = text("", "");
    let (probe, site) = (text.find("[probe]").unwrap(), text.find("[[site]]").unwrap());
    for none in [
        &text[probe..],
        &text[site..],
        "[[pop]]\nname = \"other\"\ncname = \"a.example\"\n[[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://192.0.2.9\"\n",
    ] {
        assert_eq!(router.take(*read(none), 2), Ok(()), "{none}");
        assert!(route("/v1/route?ip=10.0.0.1&site=shop").contains("there is no PoP"), "{none}");
        assert!(route("/v1/route?ip=10.0.0.1&site=none").contains("no site is called"), "{none}");
    }
    assert_eq!(router.take(*snapshot("", ""), 3), Ok(()));
    assert!(route("/v1/route?ip=10.0.0.1&site=shop").contains("\"pop\": \"one\""));
    router.stop();
    let (router, _telling) = start(read(&text[probe..]), Some(path.clone()));
    router.stop();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn who_was_moved_as_a_pop_is_full_stays_so_when_lines_move_and_not_when_pops_change() {
    let path = location("full");
    let full = "capacity = 100\n";
    let (router, _telling) = start(snapshot("", full), Some(path.clone()));
    let moved = || !get(router.admin.unwrap(), "/metrics").contains("\nperigee_router_cells_moved 0\n");
    let begun = Instant::now();
    while !moved() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody is moved");
        router.steered("one-1", "one", Steering { mbps: Some(400.0), ..Steering::default() }, 0);
        std::thread::sleep(Duration::from_millis(200));
    }
    router.take(*snapshot("\n\n", full), 2).unwrap();
    assert!(moved());
    router.take(*snapshot("\n\n", "capacity = 1000\n"), 3).unwrap();
    assert!(!moved());
    router.stop();
    std::fs::remove_file(path).unwrap();
}
