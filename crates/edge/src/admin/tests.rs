use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use model::Snapshot;
use observe::{BuildInfo, Registry};

use super::*;
use crate::{Clock, Edge, Options};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[derive(Default)]
struct Paper(AtomicU64);

impl Configuration for Paper {
    fn certificates(&self) -> Vec<CertificateStatus> {
        vec![CertificateStatus {
            names: vec!["shop.example".into()],
            source: "acme".into(),
            ..Default::default()
        }]
    }

    fn reload(&self) -> Reload {
        let in_force = self.0.fetch_add(1, Ordering::Relaxed) == 0;
        Reload { in_force, message: "as the test says".into(), diagnostics: Vec::new() }
    }

    fn status(&self) -> ConfigurationStatus {
        ConfigurationStatus { source: "a test".into(), hash: "0f".into(), ..ConfigurationStatus::default() }
    }
}

pub(crate) struct World {
    pub(crate) handle: Arc<Handle>,
    admin: Admin,
}

impl Drop for World {
    fn drop(&mut self) {
        self.handle.stop(Duration::from_secs(1));
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn world() -> World {
    world_before("http://127.0.0.1:9")
}

fn world_before(origin: &str) -> World {
    world_of(Snapshot::for_origin(origin).unwrap())
}

fn world_of(snapshot: Snapshot) -> World {
    world_in(None, snapshot)
}

pub(crate) fn world_in(state: Option<PathBuf>, mut snapshot: Snapshot) -> World {
    snapshot.edge.workers = Some(1);
    let options = Options {
        listen: Some(vec![any_port()]),
        sockets: None,
        predecessor: None,
        budgets_are_leased: false,
        tracing: None,
        listen_tier: None,
        tier: None,
        listen_tls: None,
        certificates: Vec::new(),
        client_authorities: Vec::new(),
        clock: Clock::system(),
        key_seed: [7; 16],
        ticket_secret: vec![9; 32],
        state,
        disk_engine: None,
        locate: None,
        registry: Registry::new(BuildInfo { version: "0.0.0", commit: "" }),
        access_log: None,
    };
    let handle = Arc::new(Edge::start(snapshot, options).unwrap());
    let options = AdminOptions {
        address: any_port(),
        allow_remote: false,
        token: TOKEN.into(),
        socket: None,
        upgrades: None,
        further: None,
    };
    let admin = Admin::start(Arc::clone(&handle), Arc::new(Paper::default()), options).unwrap();
    World { handle, admin }
}

impl World {
    /// Sends a head line and fields as they are; status and body.
    fn send(&self, start: &str, fields: &str, body: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(self.admin.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = body.len();
        let request = format!("{start} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_ascii_lowercase().contains("access-control-"), "{head}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn ask(&self, start: &str, body: &str) -> (u16, serde_json::Value) {
        let fields =
            format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
        let (status, body) = self.send(start, &fields, body);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{start}: {body}")))
    }
}

const PATHS: [&str; 7] = [
    "GET /v1/certificates",
    "GET /v1/status",
    "POST /v1/purge",
    "GET /v1/explain?url=http://a/",
    "POST /v1/check",
    "POST /v1/reload",
    "GET /v1/config/schema",
];

#[test]
fn everything_but_health_and_metrics_wants_the_token() {
    let world = world();
    for start in PATHS.into_iter().chain(["GET /v1/nosuch", "GET /", "DELETE /v1/purge"]) {
        for fields in [
            "Host: localhost\r\n".to_owned(),
            format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", TOKEN.replace('0', "1")),
            format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", &TOKEN[..63]),
            "Host: localhost\r\nAuthorization: Basic eDp5\r\n".to_owned(),
        ] {
            assert_eq!(world.send(start, &fields, "{\"everything\":true}").0, 401, "{start} {fields}");
        }
    }
    assert_eq!(world.handle.status().purge_position, 0, "nothing was purged");
    for start in ["GET /healthz", "GET /readyz", "GET /metrics"] {
        assert_eq!(world.send(start, "Host: localhost\r\n", "").0, 200, "{start}");
    }
}

#[test]
fn an_edge_without_a_configuration_lives_and_is_not_ready() {
    let settings = Snapshot::for_origin("http://127.0.0.1:9").unwrap().edge;
    let world = world_of(Snapshot::without_sites(settings));
    let status = |start| world.send(start, "Host: localhost\r\n", "").0;
    assert_eq!((status("GET /healthz"), status("GET /readyz")), (200, 503));
}

#[test]
fn web_pages_are_refused_even_with_the_token() {
    let world = world();
    for start in PATHS.into_iter().chain(["GET /metrics", "GET /healthz", "GET /readyz"]) {
        for page in [
            "Host: localhost\r\nOrigin: https://evil.example\r\n",
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
            "Host: rebound.example\r\n",
        ] {
            let fields = format!("{page}Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
            assert_eq!(world.send(start, &fields, "{\"everything\":true}").0, 403, "{start} {page}");
        }
    }
    assert_eq!(world.handle.status().purge_position, 0, "nothing was purged");
}

#[test]
fn a_purge_answers_the_position_that_is_in_force() {
    let world = world();
    for (position, body) in [
        (1, r#"{"everything":true}"#),
        (2, r#"{"url":"http://shop.example/a?b=1","soft":true}"#),
        (3, r#"{"prefix":"http://shop.example/a/"}"#),
        (4, r#"{"site":"default"}"#),
        (5, r#"{"tags":["a","b"]}"#),
    ] {
        let (status, answer) = world.ask("POST /v1/purge", body);
        assert_eq!(
            (status, answer["position"].as_u64(), answer["in_force"].as_bool()),
            (200, Some(position), Some(true))
        );
        assert_eq!(world.handle.status().purge_position, position, "{body}");
    }
}

#[test]
fn while_a_purge_waits_others_are_answered() {
    let world = world();
    std::thread::scope(|scope| {
        let waiting = world.handle.shared.purge_log.lock();
        let purge = scope.spawn(|| world.ask("POST /v1/purge", r#"{"everything":true}"#).0);
        // Whether it waits yet shows in what it holds.
        let begin = Instant::now();
        while world.handle.shared.past.try_lock().is_some() {
            assert!(begin.elapsed() < Duration::from_secs(10), "the purge never begins");
            std::thread::sleep(Duration::from_millis(1));
        }
        for start in ["GET /healthz", "GET /readyz", "GET /metrics"] {
            assert_eq!(world.send(start, "Host: localhost\r\n", "").0, 200, "{start}");
        }
        assert_eq!(world.ask("GET /v1/status", "").0, 200);
        assert!(!purge.is_finished());
        drop(waiting);
        assert_eq!(purge.join().unwrap(), 200);
    });
}

#[test]
fn errors_are_json_with_what_was_wanted() {
    let world = world();
    for (start, body, wanted) in [
        ("POST /v1/purge", "{}", 400),
        ("POST /v1/purge", "not json", 400),
        ("POST /v1/purge", r#"{"everything":true,"x":1}"#, 400),
        ("POST /v1/purge", r#"{"site":"nosuch"}"#, 404),
        ("POST /v1/purge", r#"{"url":"/path"}"#, 400),
        ("GET /v1/purge", "", 405),
        ("POST /v1/status", "", 405),
        ("GET /v1/nosuch", "", 404),
        ("GET /v1/explain", "", 400),
        ("GET /v1/explain?url=%zz", "", 400),
        ("GET /v1/explain?url=http://a/&header=broken", "", 400),
        ("GET /v1/explain?uri=http://a/", "", 400),
    ] {
        let (status, answer) = world.ask(start, body);
        assert_eq!(status, wanted, "{start} {body}: {answer}");
        assert!(answer["error"].is_string(), "{start} {body}: {answer}");
    }
    let fields = format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: text/plain\r\n");
    assert_eq!(world.send("POST /v1/purge", &fields, "{\"everything\":true}").0, 415);
    assert_eq!(world.handle.status().purge_position, 0);
}

#[test]
fn explain_shows_site_rule_key_and_why() {
    let world = world();
    let (status, answer) =
        world.ask("GET /v1/explain?url=http%3A%2F%2FShop.example%2Fa%3Fx%3D1&header=Accept%3A+*/*", "");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["site"]["name"], "default");
    assert_eq!(answer["rule"]["name"], "defaults");
    assert_eq!(answer["decision"]["why"], "absent");
    assert_eq!(answer["key"][1], "host 12:shop.example");
    let (_, answer) = world.ask("GET /v1/explain?url=http://a/&method=POST", "");
    assert_eq!(answer["decision"]["why"], "method");
}

/// An origin that answers every request with these fields and an empty body.
fn origin(fields: &'static str) -> String {
    origin_with(fields, 0, Vec::new())
}

/// An origin that answers every request with these fields and so much of a body of that length.
fn origin_with(fields: &'static str, length: usize, body: Vec<u8>) -> String {
    let listener = std::net::TcpListener::bind(any_port()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap() == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(&[answer.as_bytes(), &body].concat()).unwrap();
        }
    });
    url
}

impl World {
    /// As a visitor: GET of `/a` at `shop.example`.
    fn visit(&self, fields: &str) {
        let mut stream = std::net::TcpStream::connect(self.handle.addresses()[0]).unwrap();
        let request = format!("GET /a HTTP/1.1\r\nHost: shop.example\r\n{fields}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// What `explain` says of `/a` with these further parameters.
    fn explain(&self, more: &str) -> serde_json::Value {
        let (status, answer) = self.ask(&format!("GET /v1/explain?url=http://shop.example/a{more}"), "");
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

#[test]
fn explain_shows_the_variant_that_answers_or_would() {
    let world = world_before(&origin("Cache-Control: max-age=60\r\nVary: Accept-Encoding, X-Kind"));
    assert!(world.explain("").get("variant").is_none(), "nothing is known of a URL that was never asked for");
    world.visit("Accept-Encoding: gzip, br\r\nX-Kind: a\r\n");
    let hit = world.explain("&header=Accept-Encoding:+br,gzip;q=0.5&header=X-Kind:+a");
    assert_eq!(hit["variant"]["vary"][0]["names"], serde_json::json!(["accept-encoding", "x-kind"]));
    let values = hit["variant"]["vary"][0]["values"].to_string();
    assert!(values.contains("vary accept-encoding") && values.contains("1:a"), "{values}");
    assert_eq!(hit["variant"]["key_hash"], hit["stored"]["key_hash"]);
    assert_eq!(hit["decision"]["why"], "fresh");
    let miss = world.explain("&header=X-Kind:+b");
    assert_eq!(miss["decision"]["why"], "variant");
    assert_ne!(miss["variant"]["key_hash"], hit["variant"]["key_hash"]);
}

#[test]
fn explain_tells_what_comes_of_a_stale_response() {
    let world = world_before(&origin("Cache-Control: max-age=60\r\nETag: \"1\""));
    world.visit("");
    let fresh = world.explain("");
    assert_eq!(fresh["freshness"]["stale_if_error"], 0);
    assert_eq!(fresh["freshness"]["stale_if_unreachable"], 86_400);
    world.ask("POST /v1/purge", r#"{"everything":true,"soft":true}"#);
    let purged = world.explain("");
    assert_eq!(purged["decision"]["why"], "stale-while-revalidate");
    let sum = purged["freshness"]["sum"].as_str().unwrap();
    assert!(sum.ends_with("; softly purged at position 1, so stale"), "{sum}");
    let alone = &world.explain("&header=Authorization:+me")["decision"];
    assert_eq!(alone["why"], "stale-while-revalidate");
    assert!(alone["sentence"].as_str().unwrap().contains("one such request at a time waits"), "{alone}");

    let world = world_before(&origin("Cache-Control: max-age=0, must-revalidate\r\nETag: \"1\""));
    world.visit("");
    let stale = world.explain("");
    assert_eq!(stale["decision"]["why"], "expired");
    assert_eq!(stale["decision"]["sentence"], "Stale; the next request asks the origin: has it changed?");
    assert_eq!(stale["freshness"]["stale_if_unreachable"], 0);
}

#[test]
fn explain_tells_of_a_body_in_slices_what_is_missing_of_it() {
    const MIB: usize = 1 << 20;
    let origin = origin_with("Cache-Control: max-age=60\r\nETag: \"1\"", 3 * MIB, vec![b'x'; MIB + MIB / 2]);
    let state = std::env::temp_dir().join(format!("perigee-slices-{}", std::process::id()));
    std::fs::create_dir_all(&state).unwrap();
    let text = format!(
        "[store]\nmemory = \"1MiB\"\n[[store.disk]]\nsize = \"64MiB\"\n\n\
         [[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"{origin}\"\n"
    );
    let world = world_in(Some(state.clone()), Snapshot::parse(&text, "a test").snapshot.unwrap());
    let mut stream = std::net::TcpStream::connect(world.handle.addresses()[0]).unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
    // It is broken off.
    let _ = stream.read_to_end(&mut Vec::new());
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.explain("")["stored"]["slices"] != serde_json::json!({ "on_disk": 1, "of": 3 }) {
        assert!(Instant::now() < deadline, "{}", world.explain(""));
        thread::sleep(Duration::from_millis(5));
    }
    let why = |more: &str| world.explain(more)["decision"]["why"].clone();
    assert_eq!(why(""), "partial");
    assert_eq!(why("&header=Range:+bytes=5-10"), "fresh");
    assert_eq!(why("&header=Range:+bytes=5-2000000"), "partial");
    assert_eq!(why("&header=Range:+bytes=5-10,-1"), "partial");
    assert_eq!(why("&header=Range:+bytes=9999999-"), "fresh");
    assert_eq!(why("&method=HEAD"), "fresh");
    assert_eq!(why("&header=If-None-Match:+%221%22"), "fresh");
    assert_eq!(why("&header=Cache-Control:+only-if-cached"), "only-if-cached");
    drop(world);
    let _ = std::fs::remove_dir_all(state);
}

#[test]
fn explain_names_the_rule_that_cuts_a_lifetime_or_answers_a_preflight() {
    let origin = origin("Cache-Control: max-age=3600");
    let text = format!(
        "[[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"{origin}\"\nttl_max = \"1m\"\n\
         cors = {{ origins = [\"https://app.example\"], methods = [\"PUT\"] }}\n"
    );
    let world = world_of(Snapshot::parse(&text, "test.toml").snapshot.unwrap());
    world.visit("");
    let lifetime = &world.explain("")["freshness"]["lifetime_from"];
    assert_eq!(lifetime, "the rule's ttl_max of 60 s from arrival");
    let asked =
        "&method=OPTIONS&header=Origin:+https://app.example&header=Access-Control-Request-Method:+PUT";
    assert_eq!(world.explain(asked)["decision"]["why"], "preflight");
    assert_eq!(world.explain("&method=OPTIONS")["decision"]["why"], "method");
}

#[test]
fn explain_refuses_what_is_no_request_in_its_own_words() {
    let world = world();
    let (status, answer) = world.ask("GET /v1/explain?url=foo", "");
    assert_eq!((status, &answer["error"]), (400, &"url is not an absolute URL".into()));
    assert!(!answer.to_string().contains("purge"), "{answer}");
    for method in ["G%20E", "", "G%0AE"] {
        let (status, answer) = world.ask(&format!("GET /v1/explain?url=http://a/&method={method}"), "");
        assert_eq!((status, &answer["error"]), (400, &"this is not a method".into()), "{method}");
    }
}

#[test]
fn several_surrogate_keys_are_purged_all_or_none() {
    let world = world();
    for body in
        [r#"{"tags":["good","bad key"]}"#, r#"{"tags":["good",""]}"#, r#"{"tags":["a","b"],"site":"no"}"#]
    {
        assert!(world.ask("POST /v1/purge", body).0 >= 400, "{body}");
        assert_eq!(world.handle.status().purge_position, 0, "{body}");
    }
    let (status, answer) = world.ask("POST /v1/purge", r#"{"site":"no"}"#);
    assert_eq!((status, answer["wanted"].as_str()), (404, Some("default")));
}

#[test]
fn status_check_schema_and_reload_answer() {
    let world = world();
    let (status, answer) = world.ask("GET /v1/status", "");
    assert_eq!((status, &answer["configuration"]["hash"]), (200, &serde_json::json!("0f")));
    assert_eq!(answer["workers"], 1);
    let (status, answer) = world.ask("POST /v1/check", "nonsense = ");
    assert_eq!((status, answer["ok"].as_bool()), (200, Some(false)));
    assert!(!answer["diagnostics"].as_array().unwrap().is_empty());
    let site = "[[site]]\nname = \"a\"\ndomains = \"*\"\norigin = \"http://127.0.0.1:9\"\n";
    assert_eq!(world.ask("POST /v1/check", site).1["ok"], true);
    let failing = format!("{site}[[site.test]]\nget = \"/a\"\nexpect = {{ ttl = \"30d\" }}\n");
    let (_, answer) = world.ask("POST /v1/check", &failing);
    assert_eq!((&answer["ok"], &answer["diagnostics"][0]["line"]), (&false.into(), &7.into()), "{answer}");
    assert!(world.ask("GET /v1/config/schema", "").1.is_object());
    assert_eq!(world.ask("GET /v1/certificates", "").1["certificates"][0]["names"][0], "shop.example");
    assert_eq!(world.ask("POST /v1/reload", "").0, 200);
    assert_eq!(world.ask("POST /v1/reload", "").0, 409, "a refused reload is no success");
}

#[test]
fn an_address_beyond_loopback_must_be_allowed_by_name() {
    let world = world();
    let start = |address: &str, allow_remote, token: &str| {
        let options = AdminOptions {
            address: address.parse().unwrap(),
            allow_remote,
            token: token.into(),
            socket: None,
            upgrades: None,
            further: None,
        };
        Admin::start(Arc::clone(&world.handle), Arc::new(Paper::default()), options).map(drop)
    };
    let refused = start("0.0.0.0:0", false, TOKEN).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    assert!(start("0.0.0.0:0", true, TOKEN).is_ok());
    assert!(start("127.0.0.1:0", false, "short").is_err());
}
