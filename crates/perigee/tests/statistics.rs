//! Statistics of a cluster of real processes: what clients and the origin have counted themselves is what control says, to the byte.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use world::cluster::{Cluster, Shape, has_etcd};

#[path = "statistics/export.rs"]
mod export;

const PERIGEE: &str = env!("CARGO_BIN_EXE_perigee");

/// An origin that counts what it was asked and what it has sent.
struct Origin {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Origin {
    fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            bytes: Arc::default(),
        };
        let (requests, bytes) = (origin.requests.clone(), origin.bytes.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, bytes) = (requests.clone(), bytes.clone());
                std::thread::spawn(move || answer(stream, &requests, &bytes));
            }
        });
        origin
    }

    fn configuration(&self) -> String {
        format!(
            "[[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://{}\"\n\
             [[site.rule]]\npath = \"/*.css\"\nttl = \"1h\"\n",
            self.address
        )
    }
}

fn answer(mut stream: TcpStream, requests: &AtomicU64, bytes: &AtomicU64) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, fields) = match path.split('?').next().unwrap_or_default() {
        "/broken" => ("500 Broken", ""),
        "/missing" => ("404 Not Found", ""),
        path if path.ends_with(".css") => ("200 OK", "Content-Type: text/css\r\n"),
        _ => ("200 OK", "Content-Type: text/html\r\nCache-Control: no-store\r\n"),
    };
    let body = path.repeat(100);
    let text = format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    requests.fetch_add(1, Ordering::SeqCst);
    bytes.fetch_add(text.len() as u64, Ordering::SeqCst);
    let _ = stream.write_all(text.as_bytes());
}

/// What a client has counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    requests: u64,
    bytes: u64,
    errors: u64,
    hits: u64,
    hit_bytes: u64,
    by_why: BTreeMap<String, u64>,
    by_url: BTreeMap<String, u64>,
}

impl Counted {
    fn get(&mut self, edge: SocketAddr, path: &str) {
        let mut stream = TcpStream::connect(edge).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let bytes = text.len() as u64;
        let line = text.lines().find_map(|line| line.strip_prefix("Cache-Status: ")).unwrap();
        let is_hit = line.contains("; hit");
        let why = line.rsplit_once("detail=").map_or("fresh", |(_, why)| why.trim());
        self.requests += 1;
        self.bytes += bytes;
        self.errors += u64::from(text.starts_with("HTTP/1.1 5"));
        self.hits += u64::from(is_hit);
        self.hit_bytes += if is_hit { bytes } else { 0 };
        *self.by_why.entry(why.to_owned()).or_default() += 1;
        *self.by_url.entry(format!("http://shop.example{path}")).or_default() += 1;
    }
}

fn ask(cluster: &Cluster, control: usize, arguments: &[&str]) -> Value {
    let output = cluster.try_perigee(control, &[&["stats"], arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Requests by key.
fn by_key(answer: &Value) -> BTreeMap<String, u64> {
    let totals = answer["totals"].as_array().unwrap().iter();
    let sums = totals.map(|sums| (sums["key"].as_str().unwrap().to_owned(), number(&sums["requests"])));
    sums.filter(|(_, requests)| *requests > 0).collect()
}

#[test]
fn what_clients_and_the_origin_have_counted_is_what_control_says() {
    let shape = match has_etcd() {
        true => Shape { etcd: 1, controls: 2, edges: 2, relayed: 1, disks: false },
        false => Shape { etcd: 0, controls: 1, edges: 2, relayed: 1, disks: false },
    };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    let origin = Origin::start();
    cluster.apply(&origin.configuration());
    let edges: Vec<SocketAddr> = cluster.edges().iter().map(|edge| edge.address).collect();
    let mut counted = Counted::default();
    let list = [("/a.css", 9), ("/b.css?v=2", 4), ("/private", 5), ("/broken", 3), ("/missing", 2)];
    for (path, times) in list {
        for turn in 0..times {
            counted.get(edges[turn % edges.len()], path);
        }
    }
    let arrived = |cluster: &Cluster, control: usize, requests: u64| {
        cluster.wait("control knows of all requests", || {
            number(&ask(cluster, control, &[])["totals"][0]["requests"]) >= requests
        });
    };
    let is_so = |cluster: &Cluster, control: usize, counted: &Counted| {
        let all = ask(cluster, control, &[]);
        let sums = &all["totals"][0];
        for (name, wanted) in [
            ("requests", counted.requests),
            ("bytes", counted.bytes),
            ("errors", counted.errors),
            ("hits", counted.hits),
            ("hit_bytes", counted.hit_bytes),
            ("origin_requests", origin.requests.load(Ordering::SeqCst)),
            ("origin_bytes", origin.bytes.load(Ordering::SeqCst)),
        ] {
            assert_eq!(number(&sums[name]), wanted, "{name} of {all}");
        }
        assert_eq!(by_key(&ask(cluster, control, &["--by", "why"])), counted.by_why);
        assert_eq!(number(&all["lost"]["reports"]), 0);
        let series: u64 = all["series"][0]["requests"].as_array().unwrap().iter().map(number).sum();
        assert_eq!(series, counted.requests, "the buckets are all there is");
    };
    for control in 0..shape.controls {
        arrived(&cluster, control, counted.requests);
        is_so(&cluster, control, &counted);
    }
    let one = |key: &str, requests| BTreeMap::from([(key.to_owned(), requests)]);
    assert_eq!(by_key(&ask(&cluster, 0, &["--by", "pop"])), one("one", counted.requests));
    assert_eq!(by_key(&ask(&cluster, 0, &["--by", "site", "--pop", "one"])), one("shop", counted.requests));
    let status = BTreeMap::from([("2xx".to_owned(), 18), ("4xx".to_owned(), 2), ("5xx".to_owned(), 3)]);
    assert_eq!(by_key(&ask(&cluster, 0, &["--by", "status"])), status);
    assert_eq!(by_key(&ask(&cluster, 0, &["--by", "country", "--class", "css"])), one("-", 13));

    // Lists follow within ten seconds. So few URLs are counted exactly.
    let items = |arguments: &[&str]| ask(&cluster, 0, arguments)["items"].as_array().unwrap().clone();
    let total = |items: &[Value]| items.iter().map(|item| number(&item["requests"])).sum::<u64>();
    cluster.wait("the lists have come", || total(&items_of(&cluster, &["top"])) >= counted.requests);
    let top = ask(&cluster, 0, &["top"]);
    let urls = top["items"].as_array().unwrap().iter();
    let urls: BTreeMap<String, u64> =
        urls.map(|item| (item["url"].as_str().unwrap().to_owned(), number(&item["requests"]))).collect();
    assert_eq!((urls, number(&top["error_at_most"])), (counted.by_url.clone(), 0));
    let errors = items(&["top", "--of", "errors"]);
    assert_eq!((errors.len(), total(&errors)), (1, counted.errors));
    let whys = items(&["why"]);
    assert_eq!(total(&whys), counted.requests);
    for item in whys.iter().filter(|item| item["is_hit"] == false) {
        let (why, example) = (item["why"].as_str().unwrap(), &item["example"]);
        assert!(example["cache_status"].as_str().unwrap().contains(why), "{item}");
    }

    // In words, as rows, and as a screen.
    let words = cluster.perigee(&["stats", "--by", "why"]);
    assert!(words.contains("fresh") && words.contains("HIT BYTES"), "{words}");
    let rows = cluster.perigee(&["stats", "--csv", "--by", "site"]);
    let sum: u64 =
        rows.lines().skip(1).map(|row| row.split(',').nth(2).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum, counted.requests, "{rows}");
    assert!(cluster.perigee(&["top", "--seconds", "60"]).contains("REQUESTS/S"));
    let refused = cluster.try_perigee(0, &["stats", "--step", "2s"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1s, 1m, 1h, 1d"));

    // While no control can be reached, edges count on; nothing is lost, and nothing counted twice.
    cluster.controls_mut().iter_mut().for_each(|control| control.kill());
    for turn in 0..12 {
        counted.get(edges[turn % edges.len()], "/a.css");
    }
    cluster.controls_mut().iter_mut().for_each(|control| control.restart());
    for control in 0..shape.controls {
        arrived(&cluster, control, counted.requests);
        is_so(&cluster, control, &counted);
    }
}

/// A site that is not configured any more has statistics all the same, and a node may come before its PoP.
#[test]
fn names_of_which_there_is_nothing_are_told() {
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    let origin = Origin::start();
    cluster.apply(&origin.configuration());
    cluster.make_stable();
    let edge = cluster.edges()[0].address;
    Counted::default().get(edge, "/a.css");
    cluster.wait("control knows of the request", || {
        number(&ask(&cluster, 0, &[])["totals"][0]["requests"]) == 1
    });
    let next = origin.configuration().replace("name = \"shop\"", "name = \"store\"")
        + "[[pop]]\nname = \"one\"\nlocation = \"FRA\"\nedges = \"192.0.2.1\"\n";
    cluster.apply(&next);
    cluster.make_stable();
    let said_of = |cluster: &Cluster, arguments: &[&str]| {
        let output = cluster.try_perigee(0, arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (arguments, words) in [
        (vec!["stats", "--site", "nosite"], "site: no configuration in force has a site of this name"),
        (vec!["stats", "--site", "nosite", "--csv"], "found \"nosite\"; wanted store"),
        (vec!["stats", "--site", "shop", "--site", "nosite"], "found \"nosite\""),
        // The name of a reason is counted too, and of no site.
        (vec!["stats", "top", "--site", "absent"], "found \"absent\""),
        (vec!["stats", "rum", "--pop", "shop"], "found \"shop\"; wanted one"),
        (
            vec!["stats", "why", "--pop", "mars"],
            "pop: no configuration in force and no node has a PoP of this name",
        ),
        (vec!["top", "--site", "nosite"], "next: name another; perigee stats --by site"),
    ] {
        let (code, said) = said_of(&cluster, &arguments);
        assert!(code == Some(1) && said.contains(words), "{arguments:?}: {said}");
    }
    for (site, wanted) in [("shop", 1), ("store", 0), ("-", 0)] {
        let all = ask(&cluster, 0, &["--site", site]);
        assert_eq!(number(&all["totals"][0]["requests"]), wanted, "{site}: {all}");
    }
    for (pop, is_warned) in [("mars", true), ("one", false)] {
        let (code, said) = said_of(&cluster, &["enroll", "--pop", pop]);
        assert!(code == Some(0) && said.contains("good for 1 node"), "{pop}: {said}");
        let warning = "\"mars\" is none of the configuration's PoPs (one)";
        assert_eq!(said.contains(warning), is_warned, "{pop}: {said}");
    }
}

fn items_of(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    ask(cluster, 0, arguments)["items"].as_array().unwrap().clone()
}
