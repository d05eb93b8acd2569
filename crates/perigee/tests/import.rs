//! `perigee import`, `parity` and `init` from outside: a real nginx and a Perigee with the imported configuration before the same
//! origin, asked for what the nginx has logged.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;
use world::authority::free_address;
use world::scratch::Scratch;

/// Longest wait for a state that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is ended with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, address: SocketAddr, log: &str) -> Running {
        let said = fs::File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        let running = Running(child);
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let said = fs::read_to_string(log).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "nobody listens at {address}: {said}");
            sleep(Duration::from_millis(20));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx has workers, which its first process ends when it is told to; killed, it would leave them.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let begun = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if begun.elapsed() > PATIENCE {
                let _ = self.0.kill();
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// An origin whose paths say what it answers, and which remembers what it was asked for.
struct Origin {
    address: SocketAddr,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Origin {
    fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(BTreeMap::new()));
        let seen = asked.clone();
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                spawn(move || serve(stream, &seen));
            }
        });
        Origin { address, asked }
    }

    fn asked(&self, target: &str) -> usize {
        self.asked.lock().unwrap().get(target).copied().unwrap_or(0)
    }
}

fn serve(stream: TcpStream, seen: &Mutex<BTreeMap<String, usize>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        let line = lines.next()?.ok()?;
        let mut host = String::new();
        loop {
            let line = lines.next()?.ok()?;
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("host:") {
                value.trim().clone_into(&mut host);
            }
        }
        let target = line.split(' ').nth(1)?.to_owned();
        let method = line.split(' ').next()?.to_owned();
        *seen.lock().unwrap().entry(target.clone()).or_default() += 1;
        let html = "Content-Type: text/plain\r\n";
        let (status, more) = match target.split(['?']).next()? {
            "/fresh" => (
                "200 OK",
                "Content-Type: text/plain\r\nCache-Control: max-age=600\r\nETag: \"1\"\r\n".to_owned(),
            ),
            "/private" => ("200 OK", format!("{html}Cache-Control: private\r\n")),
            "/no-store" => ("200 OK", format!("{html}Cache-Control: no-store\r\n")),
            "/cookie" => ("200 OK", format!("{html}Set-Cookie: session=secret\r\n")),
            "/vary" => ("200 OK", format!("{html}Cache-Control: max-age=60\r\nVary: X-Lang\r\n")),
            "/gone" => ("404 Not Found", html.to_owned()),
            "/moved" => ("301 Moved Permanently", format!("{html}Location: http://{host}/fresh\r\n")),
            "/static/app.css" => (
                "200 OK",
                "Content-Type: text/css\r\nCache-Control: no-cache\r\nSet-Cookie: a=1\r\nX-Powered-By: x\r\n"
                    .to_owned(),
            ),
            "/api/list" => {
                ("200 OK", "Content-Type: application/json\r\nCache-Control: max-age=60\r\n".to_owned())
            }
            _ => ("200 OK", html.to_owned()),
        };
        let body = format!("{host} {target}");
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{more}\r\n", body.len());
        (&stream).write_all(head.as_bytes()).ok()?;
        if method != "HEAD" {
            (&stream).write_all(body.as_bytes()).ok()?;
        }
    }
}

fn perigee(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perigee")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ask(address: SocketAddr, method: &str, target: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const NGINX: &str = r#"
daemon off;
user USER;
worker_processes 1;
pid DIR/nginx.pid;
error_log DIR/error.log;
events { worker_connections 256; }
http {
    access_log DIR/access.log combined;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    proxy_cache_path DIR/cache keys_zone=c:1m max_size=100m inactive=10m;
    upstream app { server ORIGIN; }
    server {
        listen LISTEN;
        server_name shop.example;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        add_header X-Site shop;
        location / {
            proxy_pass http://app;
            proxy_cache c;
            proxy_cache_valid 200 301 10m;
            proxy_cache_valid 404 1m;
            proxy_cache_lock on;
        }
        location /static/ {
            proxy_pass http://app;
            proxy_cache c;
            proxy_cache_valid 200 1h;
            proxy_ignore_headers Cache-Control Expires Set-Cookie;
            proxy_hide_header Set-Cookie;
            proxy_hide_header X-Powered-By;
            expires 1h;
        }
        location /api/ { proxy_pass http://app; }
        location = /old { return 301 http://$host/fresh; }
        location /hidden { return 403; }
    }
}
"#;

/// What is asked, by method and target.
const ASKED: &[(&str, &str)] = &[
    ("GET", "/fresh"),
    ("GET", "/fresh?page=2"),
    ("HEAD", "/head"),
    ("GET", "/silent"),
    ("GET", "/private"),
    ("GET", "/no-store"),
    ("GET", "/cookie"),
    ("GET", "/vary"),
    ("GET", "/gone"),
    ("GET", "/moved"),
    ("GET", "/static/app.css"),
    ("GET", "/api/list"),
    ("GET", "/old"),
    ("GET", "/hidden"),
];

#[test]
fn an_imported_nginx_answers_as_the_real_one_but_for_what_is_told() {
    if Command::new("nginx").arg("-v").output().is_err() {
        eprintln!("skipped: there is no nginx on this machine (Debian package nginx-light)");
        return;
    }
    let scratch = Scratch::new("parity");
    let (of_nginx, of_perigee) = (Origin::start(), Origin::start());
    let (old, new) = (free_address(), free_address());
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let config = NGINX
        .replace("DIR", &scratch.0.display().to_string())
        .replace("USER", user.trim())
        .replace("ORIGIN", &of_nginx.address.to_string())
        .replace("LISTEN", &old.to_string());
    let nginx_file = scratch.file("nginx.conf", &config);
    let _nginx = Running::start(
        Command::new("nginx").args(["-c", &nginx_file, "-e", &scratch.path("error.log")]),
        old,
        &scratch.path("nginx.out"),
    );

    // What visitors ask for is in the log of the real one.
    for (method, target) in ASKED {
        assert!(ask(old, method, target).starts_with("HTTP/1.1 "), "{target}");
    }
    let log = scratch.path("access.log");
    let begun = Instant::now();
    while fs::read_to_string(&log).unwrap_or_default().lines().count() < ASKED.len() {
        assert!(begun.elapsed() < PATIENCE, "the log has not all of it");
        sleep(Duration::from_millis(20));
    }

    // Imported, and started beside it.
    let imported = scratch.path("imported.toml");
    let output = perigee(&["import", "nginx", &nginx_file, "--out", &imported]);
    assert!(output.status.success(), "{}", said(&output));
    let again = perigee(&["import", "nginx", &nginx_file, "--out", &imported]);
    assert!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));
    let text = fs::read_to_string(&imported).unwrap();
    let text = text
        .replace("[edge]\n", "[edge]\nadmin = \"off\"\n")
        .replace(&old.to_string(), &new.to_string())
        .replace(&of_nginx.address.to_string(), &of_perigee.address.to_string())
        .replace("/var/cache/perigee", &scratch.path("store"));
    let perigee_file = scratch.file("perigee.toml", &text);
    let _perigee = Running::start(
        Command::new(env!("CARGO_BIN_EXE_perigee")).args([
            "serve",
            "--config",
            &perigee_file,
            "--state",
            &scratch.path("state"),
        ]),
        new,
        &scratch.path("perigee.out"),
    );

    // The log replayed at both.
    let (old_url, new_url) = (format!("http://{old}"), format!("http://{new}"));
    let arguments = [
        "parity",
        "--log",
        &log,
        "--host",
        "shop.example",
        "--old",
        &old_url,
        "--new",
        &new_url,
        "--rate",
        "200",
        "--json",
    ];
    let output = perigee(&arguments);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!(output.status.code(), Some(1), "{found:#}");
    assert_eq!(
        (found["asked"].as_u64(), found["left_out"].as_u64()),
        (Some(ASKED.len() as u64), Some(0)),
        "{found:#}"
    );
    assert_eq!(found["failed"], serde_json::json!([]), "{found:#}");
    let differences: Vec<String> = found["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!("{} {} → {}: {}", one["what"], one["old"], one["new"], one["examples"]).replace('"', "")
        })
        .collect();
    let mut differences: Vec<&str> = differences.iter().map(String::as_str).collect();
    differences.sort_unstable();
    assert_eq!(differences, EXPECTED, "{found:#}");

    // What nginx keeps is kept here, and what it fetches each time is fetched each time.
    for target in ["/fresh", "/fresh?page=2", "/silent", "/vary", "/gone", "/moved", "/static/app.css"] {
        assert_eq!((of_nginx.asked(target), of_perigee.asked(target)), (1, 1), "{target}");
    }
    for target in ["/private", "/no-store", "/cookie", "/api/list"] {
        assert!(of_nginx.asked(target) == 3 && of_perigee.asked(target) == 2, "{target}");
    }
    for target in ["/old", "/hidden"] {
        assert_eq!((of_nginx.asked(target), of_perigee.asked(target)), (0, 0), "{target}");
    }
}

/// What the two servers differ in, and why.
const EXPECTED: &[&str] = &[
    // A redirect has no body here, so nothing says of what type it is.
    "content-type text/html → nothing: [GET shop.example/old]",
    // What nginx refuses is refused by an origin that does not exist.
    "content-type text/html → text/html; charset=utf-8: [GET shop.example/hidden]",
    "lifetime nothing → no-store: [GET shop.example/hidden]",
    "status 403 → 502: [GET shop.example/hidden]",
    // nginx leaves it out of errors, unless the directive says always.
    "x-site nothing → shop: [GET shop.example/gone]",
];

#[test]
fn what_is_not_mapped_is_told_with_its_line_and_fails_when_that_is_asked_for() {
    let scratch = Scratch::new("report");
    let file = scratch.file(
        "site.conf",
        "server {\n  server_name a.example;\n  location / { proxy_pass http://10.0.0.1; sub_filter a b; }\n}\n",
    );
    let output = perigee(&["import", "nginx", &file, "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert!(output.status.success());
    assert_eq!((value["directives"].as_u64(), value["not_mapped"].as_u64()), (Some(5), Some(1)));
    assert_eq!(value["report"][4]["directive"], "sub_filter a b");
    assert_eq!(
        (value["report"][4]["line"].as_u64(), value["report"][4]["column"].as_u64()),
        (Some(3), Some(44))
    );
    assert!(value["config"].as_str().unwrap().contains("domains = \"a.example\""));
    assert_eq!(perigee(&["import", "nginx", &file, "--strict", "--json"]).status.code(), Some(1));
    let output = perigee(&["import", "nginx", &file]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("site.conf:3:44: sub_filter a b\n    not mapped: "),
        "{}",
        said(&output)
    );
    // What is closed because it cannot be said is counted at the end.
    let guarded = scratch.file(
        "guarded.conf",
        "server {\n  server_name a.example;\n  if ($geoip_country_code = XX) { return 403; }\n  location / { proxy_pass http://10.0.0.1; }\n}\n",
    );
    let output = perigee(&["import", "nginx", &guarded, "--out", &scratch.path("guarded.toml")]);
    assert!(said(&output).contains("\n1 rule answers nobody (502)"), "{}", said(&output));
    let output = perigee(&["import", "nginx", &guarded, "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!(value["refusals"].as_u64(), Some(1));
    let broken = scratch.file("broken.conf", "server {\n  listen 80\n}\n");
    let output = perigee(&["import", "nginx", &broken]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("broken.conf:2:3: the directive \"listen\" has no end"),
        "{}",
        said(&output)
    );
}

#[test]
fn init_writes_what_check_accepts_and_replaces_nothing_unasked() {
    let scratch = Scratch::new("init");
    let out = scratch.path("perigee.toml");
    let flags =
        ["init", "--host", "www.shop.example", "--origin", "http://127.0.0.1:8000", "--yes", "--out", &out];
    let output = perigee(&flags);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains(&format!("next: perigee check {out}")), "{}", said(&output));
    let checked = perigee(&["check", &out]);
    assert!(said(&checked).contains("is good: 1 site, 0 rules, 1 test"), "{}", said(&checked));
    let again = perigee(&flags);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("is there already"), "{}", said(&again));
    assert!(perigee(&[&flags[..], &["--force"]].concat()).status.success());
    // Where no file may be longer than half a kilobyte, the old one stays, and no part of a new one is left.
    let (whole, part) = (fs::read_to_string(&out).unwrap(), scratch.path("part.toml"));
    for more in [&["--force"][..], &["--out", &part]] {
        let flags = [&flags[..6], if more.len() == 1 { &flags[6..] } else { &[] }, more].concat();
        let limited = ["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_perigee")];
        let full = Command::new("sh").args(limited).args(flags).output().unwrap();
        assert!(said(&full).contains("cannot be written"), "{}", said(&full));
    }
    assert_eq!(fs::read_to_string(&out).unwrap(), whole);
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    // Nobody is there to be asked.
    let silent = perigee(&["init", "--out", &scratch.path("other.toml")]);
    assert!(said(&silent).contains("--host is not said"), "{}", said(&silent));
    // Before anything else is asked for, as the answers would be for nothing.
    for more in [&flags[1..6], &[]] {
        let acme = ["init", "--tls", "acme", "--out", &scratch.path("acme.toml")];
        let terms = perigee(&[&acme, more].concat());
        assert!(said(&terms).contains("--accept-terms"), "{}", said(&terms));
        assert!(!said(&terms).contains("is not said"), "{}", said(&terms));
    }
}

#[test]
fn completions_and_pages_for_man_are_made_for_every_subcommand() {
    let scratch = Scratch::new("shells");
    let output = perigee(&["completions", "bash"]);
    let script = scratch.file("perigee.bash", &output.stdout);
    assert!(Command::new("bash").args(["-n", &script]).status().unwrap().success());
    for (shell, sign) in [("zsh", "#compdef perigee"), ("fish", "complete -c perigee")] {
        assert!(said(&perigee(&["completions", shell])).contains(sign), "{shell}");
    }
    let pages = scratch.path("man");
    assert!(perigee(&["man", &pages]).status.success());
    for page in ["perigee.1", "perigee-import.1", "perigee-serve.1", "perigee-store-stat.1"] {
        let text = fs::read_to_string(scratch.0.join("man").join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
}

#[test]
fn a_configuration_is_appended_to_what_standard_output_is_appended_to() {
    let scratch = Scratch::new("import-append");
    let (site, log) =
        (scratch.file("site.conf", "server { listen 80; return 204; }"), scratch.file("log", "before\n"));
    let status = Command::new(env!("CARGO_BIN_EXE_perigee"))
        .args(["import", "nginx", &site, "--out", "/dev/stdout", "--force"])
        .stdout(fs::OpenOptions::new().append(true).open(&log).unwrap())
        .status();
    assert!(status.unwrap().success());
    let text = fs::read_to_string(log).unwrap();
    assert!(text.starts_with("before\n") && text.contains("[[site]]"), "{text}");
    assert!(text.contains("3 directives"), "the report behind it: {text}");
}
