//! A router as a node of a cluster: real processes, one control with a journal in SQLite.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use world::cluster::{Cluster, Shape};
use world::scratch::Scratch;

const PERIGEE: &str = env!("CARGO_BIN_EXE_perigee");

/// An answer of DNS: its code, and the last address in it.
#[derive(Debug, PartialEq)]
struct Answer {
    code: u8,
    address: Option<Ipv4Addr>,
}

/// Asks for the addresses of a name, by TCP; `None` while nobody answers.
fn ask(router: SocketAddr, name: &str) -> Option<Answer> {
    let answer = message(router, name)?;
    let has_answer = answer[7] > 0;
    let address = answer.last_chunk::<4>().filter(|_| has_answer).map(|bytes| Ipv4Addr::from(*bytes));
    Some(Answer { code: answer[3] & 0xf, address })
}

/// All addresses of a name, in the order of the answer, which has nothing else.
fn addresses(router: SocketAddr, name: &str) -> Vec<String> {
    let answer = message(router, name).unwrap();
    // Header, question, and records of 16 bytes, of which the last four are the address.
    let records = answer[12 + name.len() + 2 + 4..].chunks(16);
    records.map(|record| Ipv4Addr::from(*record.last_chunk::<4>().unwrap()).to_string()).collect()
}

fn message(router: SocketAddr, name: &str) -> Option<Vec<u8>> {
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
    Some(answer)
}

/// An answer of HTTP: its status, and all of it.
fn http(server: SocketAddr, method: &str, target: &str, fields: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\nConnection: close\r\n{fields}\r\n{body}")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (text[9..12].parse().unwrap(), text)
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

/// Where the tests' own address is, as location data.
fn location(directory: &Path) -> PathBuf {
    let (list, location) = (directory.join("list.csv"), directory.join("location.geo"));
    std::fs::write(&list, "127.0.0.0/8,FRA,DE\n").unwrap();
    let made = Command::new(PERIGEE)
        .args(["geo", "build", "--list"])
        .arg(&list)
        .arg("--output")
        .arg(&location)
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    location
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

/// Begins to roll a configuration out to all at once.
fn begin(cluster: &Cluster, text: &str) {
    let path = cluster.state("next.toml");
    std::fs::write(&path, text).unwrap();
    cluster.perigee(&["apply", &path.display().to_string(), "--stage", "all", "--reason", "a test"]);
}

fn rollout(cluster: &Cluster) -> serde_json::Value {
    serde_json::from_str(&cluster.perigee(&["rollout", "--json"])).unwrap()
}

#[test]
fn nameservers_take_a_configuration_one_at_a_time_and_one_that_refuses_it_keeps_the_others_from_it() {
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    cluster.start_router(None);
    cluster.start_router(None);
    let routers = [0, 1].map(|index| cluster.routers_mut()[index].address);
    let admins = [0, 1].map(|index| cluster.routers_mut()[index].admin.unwrap());
    let with = |address: &str, more: &str| configuration(address.parse().unwrap(), more);
    cluster.apply(&with("192.0.2.1", ""));
    cluster.make_stable();

    // They answer themselves, so one has it, then the other.
    begin(&cluster, &with("192.0.2.2", ""));
    let saw_one_alone = Cell::new(false);
    cluster.wait("both answer from it", || {
        let answers = routers.map(|router| ask(router, "shop.cdn.example"));
        saw_one_alone.set(saw_one_alone.get() || answers[0] != answers[1]);
        answers.iter().all(|answer| *answer == found("192.0.2.2"))
    });
    assert!(saw_one_alone.get(), "for some seconds only one had it");
    for admin in admins {
        assert_eq!(metric(admin, "perigee_router_unwell"), Some(0.0));
    }
    cluster.make_stable();

    // What no zone can hold is refused by one, so the other never hears of it, and edges give it back.
    begin(&cluster, &with("192.0.2.9", "records = \"shop A 192.0.2.7\""));
    cluster.wait("it is taken back", || rollout(&cluster)["state"] == "undone");
    let harm = rollout(&cluster)["harm"].clone();
    assert_eq!(harm["measure"], "refusal", "{harm}");
    let refusing = cluster.nodes().into_iter().filter(|node| node["refused"]["version"] == 3);
    let refusing: Vec<_> = refusing.map(|node| node["name"].clone()).collect();
    assert_eq!(refusing, [harm["node"].clone()]);
    assert_eq!(
        routers.map(|router| ask(router, "shop.cdn.example")),
        [found("192.0.2.2"), found("192.0.2.2")]
    );

    // One that is dead holds the other up for no longer than it is heard to be.
    cluster.routers_mut()[0].kill();
    cluster.wait("the first is found to be silent", || {
        let nodes = cluster.nodes();
        let heard = nodes.iter().find(|node| node["name"] == "ns1").unwrap()["heard_ms"].as_i64().unwrap();
        let newest = nodes.iter().filter_map(|node| node["heard_ms"].as_i64()).max().unwrap();
        newest - heard > 5_000
    });
    begin(&cluster, &with("192.0.2.3", ""));
    cluster.wait("the second has it", || ask(routers[1], "shop.cdn.example") == found("192.0.2.3"));
    cluster.routers_mut()[0].restart();
    cluster
        .wait("and the first, when it is back", || ask(routers[0], "shop.cdn.example") == found("192.0.2.3"));
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

/// Two PoPs, of which the first is the nearest; beacons are served.
const TWO: &str = "[[pop]]\nname = \"one\"\nlocation = \"FRA\"\nedges = [\"192.0.2.1\"]\n\
    [[pop]]\nname = \"two\"\nlocation = \"AMS\"\nedges = [\"192.0.2.2\"]\n[probe]\nkind = \"off\"\n\
    [measure]\nbeacons = true\n[dns]\nzone = \"cdn.example\"\n\
    nameservers = { \"ns1.cdn.example\" = [\"127.0.0.1\"] }\n\
    [[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://127.0.0.1:9\"\n";

#[test]
fn what_browsers_measure_at_an_edge_changes_what_a_router_answers() {
    let scratch = Scratch::new("beacons");
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    cluster.start_router(Some(&location(&scratch.0)));
    let router = cluster.routers_mut()[0].address;
    let admin = cluster.routers_mut()[0].admin.unwrap();
    cluster.apply(TWO);
    assert_eq!(ask(router, "shop.cdn.example"), found("192.0.2.1"), "the nearest");
    assert_eq!(ask(router, "two.cdn.example"), found("192.0.2.2"), "a PoP's own name");
    assert_eq!(ask(router, "two.shop.cdn.example"), found("192.0.2.2"), "and for a site");

    let edge = cluster.edges()[0].address;
    assert_eq!(http(edge, "POST", "/.perigee/beacon?nonsense&one=1", "", "").0, 400);
    assert_eq!(http(edge, "GET", "/.perigee/beacon?0", "", "").0, 204);
    for _ in 0..12 {
        let (status, script) = http(edge, "GET", "/.perigee/beacon.js", "", "");
        assert_eq!(status, 200, "{script}");
        let timed = "[\"one\",o+\"/.perigee/beacon\"],[\"two\",\"//two.cdn.example/.perigee/beacon\"]";
        assert!(script.contains(timed), "{script}");
        let token = script.split_once("beacon?").and_then(|_| script.rsplit_once("/.perigee/beacon?"));
        let token = token.unwrap().1.split('&').next().unwrap();
        let report = format!("/.perigee/beacon?{token}&one=190&two=14.5");
        assert_eq!(http(edge, "POST", &report, "", "").0, 204);
        assert_eq!(http(edge, "POST", &report, "", "").0, 403, "a second time");
    }
    cluster.wait("the router sends its visitors where it is fast", || {
        ask(router, "shop.cdn.example") == found("192.0.2.2")
    });
    let (status, why) = http(admin, "GET", "/v1/route?ip=127.0.0.1&site=shop", "", "");
    assert!(status == 200 && why.contains("\"why\": \"measured\""), "{why}");
    assert!(metric(admin, "perigee_router_samples_total") >= Some(24.0));
}

#[test]
fn edges_tell_a_router_what_they_think_of_each_other() {
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    cluster.start_router(None);
    let admin = cluster.routers_mut()[0].admin.unwrap();
    let edges = TWO.replace("192.0.2.1", "127.0.0.1").replace("192.0.2.2", "127.0.0.2");
    let port = cluster.edges()[0].address.port();
    cluster.apply(&edges.replace("kind = \"off\"", &format!("port = {port}")));
    // The edge stands in the one PoP and looks at the other, where nobody is; so does the router, which alone would not be enough.
    let metric = |name: &str| metric(admin, name).unwrap_or_default();
    cluster.wait("the other PoP is down", || metric("perigee_router_edge_up{edge=\"127.0.0.2\"}") == 0.0);
    assert!(metric("perigee_router_votes_total") >= 1.0);
    assert_eq!(metric("perigee_router_edge_up{edge=\"127.0.0.1\"}"), 1.0);
}

/// A router without a cluster, which ends with the test.
struct Alone {
    child: Child,
    router: SocketAddr,
    admin: SocketAddr,
    redirects: SocketAddr,
}

impl Alone {
    fn start(scratch: &Scratch, text: &str) -> Alone {
        let config = scratch.0.join("cluster.toml");
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(PERIGEE)
            .args(["router", "--config"])
            .arg(&config)
            .arg("--location")
            .arg(location(&scratch.0))
            .arg("--state")
            .arg(scratch.0.join("state"))
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--workers", "1"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says which ports it has got; what it says later is read too, so that it never waits for that.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut said = |before: &str, after: &str| -> SocketAddr {
            let line =
                lines.find_map(|line| Some(line.strip_prefix(before)?.strip_suffix(after)?.to_owned()));
            line.unwrap().parse().unwrap()
        };
        let router = said("answering on ", "");
        let admin = said("metrics on http://", "/metrics");
        let redirects = said("redirecting on http://", "/");
        std::thread::spawn(move || lines.for_each(drop));
        Alone { child, router, admin, redirects }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(what: &str, is_so: &dyn Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn who_holds_an_answer_when_its_pop_is_lost_has_the_spares_address_in_it() {
    let at = |host: u8, port: u16| TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port));
    // Of a port that is free at one address somebody may have it at another.
    let (fra, others) = (0..16)
        .find_map(|_| {
            let fra = at(2, 0).ok()?;
            let port = fra.local_addr().ok()?.port();
            Some((fra, [at(3, port).ok()?, at(4, port).ok()?]))
        })
        .expect("a port that is free at three addresses");
    let port = fra.local_addr().unwrap().port();
    // Nobody takes the connections to the first, which the kernel makes: it is lost before there are many.
    for other in others {
        std::thread::spawn(move || other.incoming().for_each(drop));
    }
    let mut text = format!(
        "[dns]\nzone = \"cdn.example\"\nnameservers = {{ \"ns1.cdn.example\" = [\"127.0.0.1\"] }}\nspare_within = \"10ms\"\n\
         [probe]\nkind = \"tcp\"\nport = {port}\n\
         [[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://127.0.0.1:9\"\n"
    );
    for (host, pop) in [(2, "FRA"), (3, "CDG"), (4, "JFK")] {
        text += &format!("[[pop]]\nname = \"{pop}\"\nlocation = \"{pop}\"\nedges = [\"127.0.0.{host}\"]\n");
    }
    let scratch = Scratch::new("spare");
    let alone = Alone::start(&scratch, &text);
    let held = addresses(alone.router, "shop.cdn.example");
    assert_eq!(held, ["127.0.0.2", "127.0.0.3"], "the nearest, and 8 ms from it the spare");
    assert_eq!(addresses(alone.router, "fra.shop.cdn.example"), ["127.0.0.2"]);
    let (_, route) = http(alone.admin, "GET", "/v1/route?ip=127.0.0.1&site=shop", "", "");
    assert!(route.contains("\"farther_ms\": 8.") && route.contains("\"pop\": \"CDG\""), "{route}");
    let said = |more: &[&str]| {
        let mut command = Command::new(PERIGEE);
        command
            .args(["route", "127.0.0.1", "--site", "shop", "--config"])
            .arg(scratch.0.join("cluster.toml"));
        let output = command.arg("--location").arg(scratch.0.join("location.geo")).args(more).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let (with, without) = (said(&[]), said(&["--without", "CDG"]));
    assert!(with.contains("2. CDG") && with.contains("  spare: the nearest to FRA, 8 ms away\n"), "{with}");
    let none = "\nno spare: none that can be one is within 10ms of FRA\n";
    assert!(without.contains("1. FRA") && without.contains(none), "the other is across an ocean: {without}");

    drop(fra);
    let spare = SocketAddr::new(held[1].parse().unwrap(), port);
    assert!(TcpStream::connect(spare).is_ok(), "before anybody has noticed");
    wait("the lost one is in no answer", &|| addresses(alone.router, "shop.cdn.example") == ["127.0.0.3"]);
}

#[test]
fn links_between_pops_are_shown_and_on_one_machine_none_is_judged() {
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let mut cluster = Cluster::start(Path::new(PERIGEE), shape);
    cluster.start_edge_in("two");
    cluster.start_router(None);
    let admin = cluster.routers()[0].admin.unwrap();
    let mesh = |more: &[&str]| {
        let output =
            Command::new(PERIGEE).args(["mesh", "--router", &admin.to_string()]).args(more).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (is_good, text) = mesh(&[]);
    assert!(is_good && text.starts_with("no links are known"), "{text}");

    // The edge of the second PoP probes that of the first, on this machine, which is 366 km away by their locations.
    let edges = TWO.replace("192.0.2.1", "127.0.0.1").replace("192.0.2.2", "127.0.0.2");
    let port = cluster.edges()[0].address.port();
    cluster.apply(&edges.replace("kind = \"off\"", &format!("port = {port}")));
    let link = || {
        let (status, text) = http(admin, "GET", "/v1/mesh?pop=two", "", "");
        let body = text.split_once("\r\n\r\n").filter(|_| status == 200).unwrap().1;
        serde_json::from_str::<serde_json::Value>(body).unwrap()["links"][0].clone()
    };
    cluster.wait("the link is known", || link().is_object());
    let known = link();
    assert_eq!(known["pops"], serde_json::json!(["one", "two"]));
    assert!((0.001..2.66).contains(&known["rtt_ms"].as_f64().unwrap()), "{known}");
    // One report is judged by nobody; after so long there are more.
    std::thread::sleep(Duration::from_secs(25));
    let known = link();
    assert!(known["km"].is_null() && known["light_ms"].is_null() && known["fault"].is_null(), "{known}");
    assert_eq!(metric(admin, "perigee_router_pop_pairs_faster_than_light"), Some(0.0));
    let log = cluster.routers()[0].log();
    assert!(!log.contains("cannot both be"), "{log}");
    let (_, text) = mesh(&[]);
    assert!(text.contains("\none two  ") && !text.contains("faster than light"), "{text}");
    let (is_good, text) = mesh(&["--pop", "two", "--json"]);
    assert!(is_good && text.contains("\"fault\": null"), "{text}");
    let (is_good, text) = mesh(&["--pop", "three"]);
    assert!(!is_good && text.contains("no PoP is called \"three\""), "{text}");
}

#[test]
fn a_router_alone_takes_samples_from_who_has_its_token() {
    let scratch = Scratch::new("samples");
    let alone = Alone::start(&scratch, TWO);
    let (router, admin, redirects) = (alone.router, alone.admin, alone.redirects);
    wait("the nearest is answered", &|| ask(router, "shop.cdn.example") == found("192.0.2.1"));
    // By HTTP: to the PoP's name for the site, which is not sent on again.
    for (method, target, status, location) in [
        ("GET", "/media/a.mp4?x=1", 302, "https://one.shop.cdn.example/media/a.mp4?x=1"),
        ("PUT", "/r/shop/media/a.mp4", 307, "https://one.shop.cdn.example/media/a.mp4"),
    ] {
        let (found, answer) = http(redirects, method, target, "", "");
        assert!(found == status && answer.contains(&format!("\r\nLocation: {location}\r\n")), "{answer}");
    }
    assert_eq!(http(redirects, "GET", "/r/nothing/a", "", "").0, 404);
    let (status, route) = http(redirects, "GET", "/v1/route?site=shop", "", "");
    assert!(status == 200 && route.contains("\"ip\": \"127.0.0.1\""), "{route}");
    let mut stream = TcpStream::connect(redirects).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: two.shop.cdn.example\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 421 "), "{text}");

    let sample = |pop: &str, ms: u32| {
        format!(r#"{{"network":"127.0.0.1","pop":"{pop}","count":20,"sum_ms":{}}}"#, 20 * ms)
    };
    let body = format!(r#"{{"samples":[{},{}]}}"#, sample("one", 190), sample("two", 14));
    assert_eq!(http(admin, "POST", "/v1/samples", "Authorization: Bearer x\r\n", &body).0, 401);
    let token = std::fs::read_to_string(scratch.0.join("state/admin-token")).unwrap();
    let shown = format!("Authorization: Bearer {}\r\n", token.trim());
    assert_eq!(http(admin, "POST", "/v1/samples", &shown, "{}").0, 400);
    assert_eq!(http(admin, "POST", "/v1/samples", &shown, &body).0, 202);
    wait("the faster is answered", &|| ask(router, "shop.cdn.example") == found("192.0.2.2"));
}
