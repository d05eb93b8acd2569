//! `perigee measure` with a real browser: it sees a gain where there is one, and claims none where there is none. Nothing is
//! tested, with a word, where no Chromium is installed.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use world::cluster::{Cluster, Shape};

/// A page of four resources, until the test ends.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let target = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or("/").to_owned();
                    // A page with a script of another host, which the query names.
                    let beside = target
                        .strip_prefix("/?")
                        .map(|host| format!("<h1>Hi</h1><script src=\"http://{host}/a.js\"></script>"));
                    let (kind, body) = match &*target {
                        "/" => (
                            "text/html",
                            "<!doctype html><link rel=stylesheet href=/a.css><script src=/a.js></script><h1>Hello</h1><script src=/b.js></script>",
                        ),
                        page if page.starts_with("/?") => {
                            ("text/html", beside.as_deref().unwrap_or_default())
                        }
                        "/a.css" => ("text/css", "h1 { font-size: 5em }"),
                        _ => ("text/javascript", "var a = 1;"),
                    };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
                         Cache-Status: test; hit\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    head.clear();
                }
            });
        }
    });
    address
}

/// The command, where there is a browser for it.
fn command(arguments: &[&str]) -> Option<Command> {
    if browser::find().is_none() {
        eprintln!("no Chromium is installed: nothing was tested");
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_perigee"));
    command.arg("measure").args(arguments).stdin(Stdio::null());
    Some(command)
}

fn measure(arguments: &[&str]) -> Option<Output> {
    Some(command(arguments)?.output().unwrap())
}

#[test]
fn who_interrupts_it_is_left_with_no_browser_and_no_profile() {
    let server = serve().to_string();
    let arguments = ["http://shop.test/", "--origin", &server, "--via", &server, "--runs", "20"];
    let Some(mut command) = command(&arguments) else { return };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("round 1 of")), "it begins");
    let own = format!("perigee-browser-{}-", child.id());
    let profiles = || {
        let all = std::fs::read_dir(std::env::temp_dir()).unwrap();
        all.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&own)).count()
    };
    assert_eq!(profiles(), 2, "one for each way");
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(profiles(), 0);
}

#[test]
fn a_gain_is_shown_with_its_interval_and_a_budget_fails() {
    let server = serve().to_string();
    let scratch = std::env::temp_dir().join(format!("perigee-measure-{}.html", std::process::id()));
    let html = scratch.display().to_string();
    let Some(output) = measure(&[
        "http://shop.test/",
        "--origin",
        &server,
        "--via",
        &server,
        "--from",
        "far=300ms/0",
        "--emulate",
        "relay",
        "--runs",
        "9",
        "--json",
        "--html",
        &html,
        "--budget",
        "requests=1,lcp=20m",
    ]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("over budget: requests from far by way of CDN") && !said.contains("over budget: lcp"),
        "{said}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let place = &report["report"]["places"][0];
    assert_eq!((&place["emulated"], &place["emulated_by"]), (&json!(true), &json!("relay")));
    let comparison = |metric: &str| {
        let rows = place["comparisons"].as_array().unwrap().iter();
        rows.clone().find(|row| row["metric"] == metric && row["after"] == "CDN, first view").unwrap().clone()
    };
    for metric in ["ttfb", "load"] {
        let row = comparison(metric);
        assert_eq!(row["claimed"], true, "{row}");
        // A page of this kind takes two round trips before its first byte, and two more before its scripts.
        assert!(row["gain_ms"].as_f64().unwrap() > 400.0, "{row}");
        let low = row["interval95_ms"][0].as_f64().unwrap();
        assert!(low > 0.0 && low <= row["gain_ms"].as_f64().unwrap(), "{row}");
    }
    let first = place["series"].as_array().unwrap().iter().find(|one| one["view"] == "first view").unwrap();
    assert_eq!(first["typical"][0]["cache_status"], "test; hit");
    // Filmed, too: the origin's page shows later, and the pictures are in the report alone.
    let shown =
        |way: usize| place["films"][way]["changes_ms"].as_array().unwrap().last().unwrap().as_f64().unwrap();
    assert!(shown(0) > 400.0 && shown(1) >= 0.0, "{}", place["films"]);
    let page = std::fs::read_to_string(&scratch).unwrap();
    assert!(
        page.contains("What was to be seen") && page.contains("url(data:image/jpeg;base64,/9j/"),
        "no film"
    );
    std::fs::remove_file(&scratch).unwrap();
    assert!(page.contains("sooner") && page.contains("emulated by a relay") && page.ends_with("</html>\n"));
}

#[test]
fn packets_take_their_time_where_they_can_be_delayed() {
    let (server, other) = (serve(), serve());
    let arguments = |page: &str| {
        let from = ["--from", "far=200ms/40ms,50Mbit", "--emulate", "packets", "--runs", "2", "--json"];
        let way = [page, "--origin", &server.to_string(), "--via", &server.to_string()].map(str::to_owned);
        way.into_iter().chain(from.map(str::to_owned)).collect::<Vec<_>>()
    };
    let page = arguments(&format!("http://shop.test/?{other}"));
    let Some(output) = measure(&page.iter().map(String::as_str).collect::<Vec<_>>()) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("no packets can be delayed here") {
        assert_eq!(output.status.code(), Some(1), "what was asked for is not replaced by less");
        return eprintln!("{said}: nothing was tested");
    }
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let place = &report["report"]["places"][0];
    assert_eq!((&place["emulated_by"], &place["rate_bits"]), (&json!("packets"), &json!(50e6)));
    let series = |way: &str| {
        let all = place["series"].as_array().unwrap().iter();
        all.clone().find(|one| one["way"] == way && one["view"] == "first view").unwrap()
    };
    // Two round trips before the first byte, of which Chromium may begin one before it counts the navigation's start.
    for (way, least) in [("origin", 200.0), ("CDN", 40.0)] {
        let times = series(way)["metrics"]["ttfb"]["values"].as_array().unwrap();
        assert!(times.iter().all(|ms| ms.as_f64().unwrap() >= least), "{way}: {times:?}");
    }
    // What is not under test is reached, and stays where it is.
    let requests = series("CDN")["typical"].as_array().unwrap();
    let beside =
        requests.iter().find(|one| one["url"].as_str().unwrap().contains(&other.to_string())).unwrap();
    assert_eq!((&beside["status"], &beside["failure"]), (&json!(200), &Value::Null), "{beside}");
}

#[test]
fn control_keeps_what_is_measured_and_it_is_compared_with_what_was_before() {
    let server = serve().to_string();
    if browser::find().is_none() {
        return eprintln!("no Chromium is installed: nothing was tested");
    }
    let shape = Shape { etcd: 0, controls: 1, edges: 0, relayed: 0, disks: false };
    let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_perigee")), shape);
    let none = cluster.try_perigee(0, &["measure", "compare", "home"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("nobody has kept such a page test"), "{none:?}");
    let page = ["measure", "http://shop.test/", "--origin", &server, "--runs", "2", "--keep", "home"];
    cluster.perigee(&page);
    let over = cluster.try_perigee(0, &[&page[..], &["--budget", "requests=1"]].concat());
    assert_eq!(over.status.code(), Some(1), "kept, and over its budget all the same: {over:?}");
    let listed = cluster.perigee(&["measure", "list"]);
    assert!(
        listed.contains("home") && listed.contains("1 over") && listed.contains("http://shop.test/"),
        "{listed}"
    );
    let compared = cluster.perigee(&["measure", "compare", "home"]);
    assert!(
        compared.contains("From here, origin, first view") && compared.contains("told from chance"),
        "{compared}"
    );
    let too_old = cluster.try_perigee(0, &["measure", "compare", "home", "--ago", "1d"]);
    assert!(String::from_utf8_lossy(&too_old.stderr).contains("no result that is so old"), "{too_old:?}");

    // And again and again, until it is interrupted.
    let mut again = cluster.ready_perigee(0, &[&page[..], &["--every", "1m"]].concat());
    let mut again = again.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(again.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("Medians.")), "it has measured");
    let told = Command::new("kill").args(["-INT", &again.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(again.wait().unwrap().code(), Some(130));
}

#[test]
fn where_nothing_differs_nothing_is_claimed() {
    let server = serve().to_string();
    let Some(output) = measure(&[
        "http://shop.test/",
        "--origin",
        &server,
        "--via",
        &server,
        "--runs",
        "7",
        "--level",
        "0.0001",
    ]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("no difference that can be told from chance"), "{said}");
    assert!(!said.contains("sooner") && !said.contains("later"), "{said}");
}

#[test]
fn a_page_that_cannot_be_had_says_why() {
    let Some(output) = measure(&["http://shop.test/", "--origin", "127.0.0.1:1", "--runs", "1"]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("net::") && said.contains("next:"), "{said}");
}
