//! `perigee warm` from outside: an edge with an origin, sitemaps that come through it, a log, a list; what is done is done once.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use world::scratch::Scratch;

/// Longest wait for a state that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// An origin that remembers what it was asked for, in order.
struct Origin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                // It ends when the edge closes.
                spawn(move || serve(stream, &seen));
            }
        });
        Origin { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        let line = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let target = line.split(' ').nth(1)?.to_owned();
        seen.lock().unwrap().push(target.clone());
        let (status, cache, body) = match target.as_str() {
            "/sitemap.xml" => ("200 OK", "no-store", INDEX.as_bytes().to_vec()),
            "/pages.xml" => ("200 OK", "no-store", PAGES.as_bytes().to_vec()),
            "/kept.xml" => ("200 OK", "max-age=600", format!("{PAGES}{}", " ".repeat(2_000)).into_bytes()),
            "/private" => ("200 OK", "private", b"yours".to_vec()),
            "/missing" => ("404 Not Found", "no-store", b"no".to_vec()),
            _ => ("200 OK", "max-age=600", b"ours".to_vec()),
        };
        let kind = if target.ends_with(".xml") { "application/xml" } else { "application/octet-stream" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: {cache}\r\n\r\n",
            body.len()
        );
        (&stream).write_all(head.as_bytes()).ok()?;
        (&stream).write_all(&body).ok()?;
    }
}

const INDEX: &str = r#"<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
    <sitemap><loc>http://www.shop.example/pages.xml</loc></sitemap>
    <sitemap><loc>http://elsewhere.example/pages.xml</loc></sitemap></sitemapindex>"#;

const PAGES: &str = r#"<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
    <url><loc>http://www.shop.example/</loc></url>
    <url><loc>http://www.shop.example/a?x=1&amp;y=2</loc></url>
    <url><loc>http://www.shop.example/private</loc></url>
    <url><loc>http://www.shop.example/missing</loc></url>
    <url><loc>http://www.shop.example/</loc></url></urlset>"#;

/// An edge in a process of its own, with a directory for all that is written.
struct Stage {
    edge: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Stage {
    fn start(name: &str, origin: &Origin, options: &str) -> Stage {
        let directory = std::env::temp_dir().join(format!("perigee-warm-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let config = format!(
            "[edge]\nlisten = \"{free}\"\nadmin = \"off\"\n\n[[site]]\nname = \"shop\"\ndomains = \"*\"\norigin = \"http://{}\"\n{options}\n",
            origin.address
        );
        fs::write(directory.join("perigee.toml"), config).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let edge = Command::new(env!("CARGO_BIN_EXE_perigee"))
            .arg("serve")
            .arg("--config")
            .arg(directory.join("perigee.toml"))
            .arg("--state")
            .arg(directory.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let stage = Stage { edge, address: free, directory };
        let begun = Instant::now();
        while TcpStream::connect(free).is_err() {
            let log = fs::read_to_string(stage.directory.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "the edge does not listen: {log}");
            sleep(Duration::from_millis(20));
        }
        stage
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perigee"));
        let edge = self.address.to_string();
        command.arg("warm").args(["--edge", &edge, "--rate", "200"]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Exit code, and the summary.
    fn warm(&self, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
        let Output { status, stdout, stderr } = self.command(arguments).arg("--json").output().unwrap();
        let summary = serde_json::from_slice(&stdout);
        (status.code(), summary.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr))))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.edge.kill();
        let _ = self.edge.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn a_sitemap_is_read_through_the_edge_and_each_of_its_pages_is_stored_once() {
    let origin = Origin::start();
    let stage = Stage::start("sitemap", &origin, "");
    let sitemap = ["--sitemap", "http://www.shop.example/sitemap.xml"];
    let (code, summary) = stage.warm(&sitemap);
    assert_eq!(code, Some(1), "two could not be stored");
    let expected = serde_json::json!({
        "total": 4, "warmed": 2, "present": 0, "skipped": 0, "left": 0, "bad": 1, "stopped": false,
        "failed": { "not stored, uncacheable": 1, "status 404, uncacheable": 1 },
    });
    assert_eq!(summary, expected);
    let mut asked = origin.asked();
    assert_eq!(asked[..2], ["/sitemap.xml", "/pages.xml"]);
    asked.sort();
    assert_eq!(asked, ["/", "/a?x=1&y=2", "/missing", "/pages.xml", "/private", "/sitemap.xml"]);
    let (_, again) = stage.warm(&sitemap);
    assert_eq!((again["warmed"].as_u64(), again["present"].as_u64()), (Some(0), Some(2)));
    let said = stage.command(&sitemap).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.starts_with("4 of 4: 0 warmed, 2 there already, 0 done before, 2 failed\n"), "{said}");
    assert!(
        said.contains("1 × status 404, hit-for-miss, e.g. http://www.shop.example/missing at "),
        "{said}"
    );
}

#[test]
fn a_sitemap_is_read_that_the_edge_has_in_zstd() {
    let origin = Origin::start();
    let stage = Stage::start("zstd", &origin, "");
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(stage.address).unwrap();
        let head = "Host: www.shop.example\r\nAccept-Encoding: zstd, br, gzip\r\nConnection: close\r\n";
        write!(stream, "GET /kept.xml HTTP/1.1\r\n{head}\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        if String::from_utf8_lossy(&answer).to_lowercase().contains("content-encoding: zstd") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no copy is made");
        sleep(Duration::from_millis(100));
    }
    let (_, summary) = stage.warm(&["--sitemap", "http://www.shop.example/kept.xml"]);
    assert_eq!(summary["total"], 4);
}

#[test]
fn what_is_asked_for_again_keeps_to_the_rate_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            // An edge that says "later" to each URL once.
            spawn(move || -> Option<()> {
                let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
                loop {
                    let line = lines.next()?.ok()?;
                    while !lines.next()?.ok()?.is_empty() {}
                    let mut seen = seen.lock().unwrap();
                    let is_first = !seen.iter().any(|(_, known)| *known == line);
                    seen.push((Instant::now(), line));
                    let answer = if is_first { "503 Later" } else { "200 OK\r\nCache-Status: e; stored" };
                    write!(&stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").ok()?;
                }
            });
        }
    });
    let scratch = Scratch::new("warm-rate");
    let urls: String = (0..8).map(|number| format!("http://www.shop.example/{number}\n")).collect();
    let urls = scratch.file("urls", &urls);
    let paced = ["--urls", &urls, "--edge", &address, "--rate", "4", "--parallel", "8"];
    let status = Command::new(env!("CARGO_BIN_EXE_perigee")).arg("warm").args(paced).status().unwrap();
    assert!(status.success());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 16);
    // Fifteen quarters of a second, less what the first may have come late.
    assert!(asked[15].0 - asked[0].0 > Duration::from_millis(3_500), "{asked:?}");
}

#[test]
fn an_edge_that_gives_no_answer_is_given_up() {
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
    let scratch = Scratch::new("warm-gone");
    let urls: String = (0..100).map(|number| format!("http://www.shop.example/{number}\n")).collect();
    let urls = scratch.file("urls", &urls);
    let edge = gone.to_string();
    let arguments = ["--urls", &urls, "--edge", &edge, "--rate", "200", "--parallel", "2", "--json"];
    let output = Command::new(env!("CARGO_BIN_EXE_perigee")).arg("warm").args(arguments).output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed = &summary["failed"];
    assert_eq!(failed["not asked for, as those before had no answer"], 96, "{summary}");
    assert_eq!(failed["no connection: Connection refused (os error 111)"], 4, "{summary}");
    assert_eq!((output.status.code(), &summary["left"]), (Some(1), &0.into()));
}

#[test]
fn what_a_log_has_most_of_is_fetched_first_within_the_budget_of_the_origin() {
    let origin = Origin::start();
    let budget = "origin_options = { budget = { requests_per_second = 2, in_flight = 1 } }";
    let stage = Stage::start("log", &origin, budget);
    let line = |target: &str| {
        format!("192.0.2.1 - - [23/Nov/2026:20:44:33 +0000] \"GET {target} HTTP/1.1\" 200 5 \"-\" \"-\"\n")
    };
    let log =
        [line("/seldom"), line("/often"), line("/often"), line("/often"), line("/twice"), line("/twice")];
    let log = stage.file("access.log", &log.concat());
    let without = stage.command(&["--log", &log]).output().unwrap();
    assert!(String::from_utf8_lossy(&without.stderr).contains("--host www.shop.example"));
    let (code, summary) =
        stage.warm(&["--log", &log, "--host", "www.shop.example", "--http", "--parallel", "1"]);
    assert_eq!((code, summary["warmed"].as_u64()), (Some(0), Some(3)), "{summary}");
    assert_eq!(origin.asked(), ["/often", "/twice", "/seldom"]);
}

#[test]
fn what_was_done_before_is_left_out_and_what_was_not_is_not() {
    let origin = Origin::start();
    let stage = Stage::start("resume", &origin, "");
    let urls = stage.file("urls", "http://www.shop.example/1\nhttp://www.shop.example/2\n");
    let done = stage.file("done", &format!("{} http://www.shop.example/1\n127.0.0.1:1 http", stage.address));
    let (code, summary) = stage.warm(&["--urls", &urls, "--resume", &done]);
    assert_eq!(code, Some(0));
    assert_eq!((summary["skipped"].as_u64(), summary["warmed"].as_u64()), (Some(1), Some(1)));
    assert_eq!(origin.asked(), ["/2"]);
    let text = fs::read_to_string(Path::new(&done)).unwrap();
    assert!(text.ends_with(&format!("\n{} http://www.shop.example/2\n", stage.address)), "{text}");
    let (_, summary) = stage.warm(&["--urls", &urls, "--resume", &done]);
    assert_eq!(summary["skipped"], 2);
}

#[test]
fn an_interrupt_ends_what_is_under_way_and_says_how_much_is_left() {
    let origin = Origin::start();
    let stage = Stage::start("stop", &origin, "");
    let urls: String = (0..5_000).map(|number| format!("http://www.shop.example/{number}\n")).collect();
    let urls = stage.file("urls", &urls);
    let done = stage.file("done", "");
    let mut warm = stage
        .command(&["--urls", &urls, "--resume", &done, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while origin.asked().len() < 10 {
        assert!(begun.elapsed() < PATIENCE, "nothing is fetched");
        sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_raw(warm.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (mut said, mut complained) = (String::new(), String::new());
    warm.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    warm.stderr.take().unwrap().read_to_string(&mut complained).unwrap();
    assert_eq!(warm.wait().unwrap().code(), Some(1));
    let summary: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(summary["stopped"], true);
    let (warmed, left) = (summary["warmed"].as_u64().unwrap(), summary["left"].as_u64().unwrap());
    assert!(warmed >= 9 && warmed + left == 5_000, "{said}");
    assert!(
        complained.contains("of 5000 fetches were left") && complained.contains("--resume"),
        "{complained}"
    );
    assert_eq!(fs::read_to_string(&done).unwrap().lines().count() as u64, warmed);
}

#[test]
fn what_cannot_be_done_is_said_with_the_next_step() {
    let origin = Origin::start();
    let stage = Stage::start("wrong", &origin, "");
    let page = stage.file("page.html", "<!DOCTYPE html><html></html>");
    let config =
        stage.file("cluster.toml", "[[site]]\nname = \"s\"\ndomains = \"*\"\norigin = \"http://o\"\n");
    let empty = stage.file("empty", "");
    let of_nothing = format!("there is no URL in {empty}");
    for (arguments, words) in [
        (vec!["--sitemap", &page], "document type"),
        (vec!["--sitemap", "http://www.shop.example/missing"], "status 404"),
        (vec!["--sitemap", "ftp://x/"], "neither http nor https"),
        (vec!["--urls", "/nonexistent"], "/nonexistent cannot be read: "),
        (vec!["--log", "/"], "next: name a file that this user can read"),
        (vec!["--urls", &empty], &of_nothing),
        (vec!["--urls", &empty, "--pop", "fra", "--config", &config], "there is no PoP \"fra\""),
    ] {
        let output = stage.command(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(words), "{arguments:?}: {said}");
    }
    let nobody =
        Command::new(env!("CARGO_BIN_EXE_perigee")).args(["warm", "--urls", &empty]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(2), "no edge is named");
}
