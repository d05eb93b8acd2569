//! `perigee measure` with a real browser: it sees a gain where there is one, and claims none where there is none. Nothing is
//! tested, with a word, where no Chromium is installed.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::cluster::{Cluster, Shape};

/// Longest that a browser may take to be where a test wants it, while others build and test.
const PATIENCE: Duration = Duration::from_secs(120);

const PAGE: &str = "<!doctype html><link rel=stylesheet href=/a.css><script src=/a.js></script><h1>Hello</h1><script src=/b.js></script>";

/// A page of four resources, until the test ends.
fn serve() -> SocketAddr {
    let (listener, address) = listen();
    serve_on(listener, PAGE.to_owned(), None);
    address
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The page, and what it needs. `held`: the visit from which on the page does not come any more, and who is told of that.
fn serve_on(listener: TcpListener, page: String, held: Option<(usize, Sender<()>)>) {
    let visits = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (page, held, visits) = (page.clone(), held.clone(), visits.clone());
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
                    let visit = if target == "/" { visits.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
                    if let Some((first, told)) = &held
                        && visit >= *first
                    {
                        let _ = told.send(());
                        // Until the visitor has gone.
                        let _ = stream.read(&mut byte);
                        return;
                    }
                    let (kind, body) = match &*target {
                        "/" => ("text/html", &*page),
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
}

/// One that hangs up on everybody.
fn hang_up() -> SocketAddr {
    let (listener, address) = listen();
    std::thread::spawn(move || listener.incoming().for_each(drop));
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

/// A command that is to be watched. It does not outlive the test.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for pipe in pipes {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // Until it has ended; who listens no more need not be told.
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Running { child, lines }
    }

    /// Waits until it says something of this.
    fn wait_for(&self, words: &str) {
        let (until, mut said) = (Instant::now() + PATIENCE, Vec::new());
        while !said.last().is_some_and(|line: &String| line.contains(words)) {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            said.push(line.unwrap_or_else(|error| panic!("it does not say {words:?} ({error}): {said:#?}")));
        }
    }

    /// Waits for its end: its exit code, and what it has said since it was listened to.
    fn wait(&mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        (status.code(), self.lines.iter().collect::<Vec<_>>().join("\n"))
    }

    fn interrupt(&self) {
        let told = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    /// The browsers that it has started.
    fn browsers(&self) -> Vec<String> {
        let id = self.child.id();
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap().map(Result::unwrap);
        let children =
            threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        children.flat_map(|ids| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn measure(arguments: &[&str]) -> Option<Output> {
    Some(command(arguments)?.output().unwrap())
}

#[test]
fn who_interrupts_it_is_left_with_no_browser_and_no_profile() {
    let server = serve().to_string();
    let arguments = ["http://shop.test/", "--origin", &server, "--via", &server, "--runs", "20"];
    let Some(command) = command(&arguments) else { return };
    let mut running = Running::start(command);
    running.wait_for("round 1 of");
    let own = format!("perigee-browser-{}-", running.child.id());
    let profiles = || {
        let all = std::fs::read_dir(std::env::temp_dir()).unwrap();
        all.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&own)).count()
    };
    assert_eq!(profiles(), 2, "one for each way");
    running.interrupt();
    assert_eq!(running.wait().0, Some(130));
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
fn hosts_that_an_edge_alone_names_are_reached_and_those_at_an_edge_are_as_far_as_it() {
    let (origin, other) = (serve(), serve());
    let (listener, via) = listen();
    serve_on(
        listener,
        format!("{PAGE}<script src=http://{other}/a.js></script><script src=http://{via}/own.js></script>"),
        None,
    );
    let Some(output) = measure(&[
        "http://shop.test/",
        "--origin",
        &origin.to_string(),
        "--via",
        &via.to_string(),
        "--from",
        "far=200ms/40ms",
        "--emulate",
        "packets",
        "--runs",
        "1",
        "--json",
    ]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("no packets can be delayed here") {
        return eprintln!("{said}: nothing was tested");
    }
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = report["report"]["places"][0]["series"].as_array().unwrap();
    let edge = all.iter().find(|one| one["way"] == "CDN" && one["view"] == "first view").unwrap();
    let request = |url: String| {
        let mut found = edge["typical"].as_array().unwrap().iter();
        found.find(|one| one["url"] == url).unwrap()
    };
    let (beside, own) = (request(format!("http://{other}/a.js")), request(format!("http://{via}/own.js")));
    for one in [beside, own] {
        assert_eq!((&one["status"], &one["failure"]), (&json!(200), &Value::Null), "{one}");
    }
    let took = own["end_ms"].as_f64().unwrap() - own["start_ms"].as_f64().unwrap();
    assert!(took >= 40.0, "over the line, never sooner: {own}");
}

#[test]
fn what_does_not_come_by_one_way_is_no_gain_and_what_comes_by_none_is_said() {
    let (origin, gone) = (serve(), hang_up());
    let (listener, via) = listen();
    serve_on(listener, format!("{PAGE}<script src=http://{gone}/a.js></script>"), None);
    let (origin, via) = (origin.to_string(), via.to_string());
    let ways = |origin: &str| {
        measure(&["http://shop.test/", "--origin", origin, "--via", &via, "--runs", "1"]).map(|output| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), said)
        })
    };
    let Some((code, said)) = ways(&origin) else { return };
    assert!(code == Some(1) && said.contains("next:"), "{said}");
    assert!(said.contains(&format!("{gone} does not answer by way of CDN")), "{said}");
    let Some((code, said)) = ways(&via) else { return };
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{gone} does not answer, by any way")), "{said}");
}

#[test]
fn a_film_that_fails_takes_nothing_of_the_measurement_away() {
    let (listener, server) = listen();
    let (held, is_held) = channel();
    // One visit before, a first and a repeat view; then the film.
    serve_on(listener, PAGE.to_owned(), Some((4, held)));
    let html = std::env::temp_dir().join(format!("perigee-no-film-{}.html", std::process::id()));
    let (server, file) = (server.to_string(), html.display().to_string());
    let page = ["http://shop.test/", "--origin", &server, "--runs", "1", "--html", &file];
    let Some(command) = command(&page) else { return };
    let mut running = Running::start(command);
    running.wait_for("round 1 of");
    is_held.recv_timeout(PATIENCE).unwrap();
    let browsers = running.browsers();
    assert_eq!(browsers.len(), 1, "{browsers:?}");
    assert!(Command::new("kill").arg("-KILL").args(&browsers).status().unwrap().success());
    let (code, said) = running.wait();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("By way of origin nothing was filmed: the browser has ended"), "{said}");
    assert!(said.contains("Medians."), "{said}");
    let report = std::fs::read_to_string(&html).unwrap();
    std::fs::remove_file(&html).unwrap();
    assert!(report.contains("nothing was filmed: the browser has ended"), "{report}");
    assert!(report.contains("What was loaded, in the visit in the middle"), "{report}");
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
    let mut again = Running::start(cluster.ready_perigee(0, &[&page[..], &["--every", "1m"]].concat()));
    again.wait_for("Medians.");
    again.interrupt();
    assert_eq!(again.wait().0, Some(130));

    assert!(cluster.perigee(&["measure", "forget", "home"]).contains("home is forgotten"));
    let gone = cluster.try_perigee(0, &["measure", "forget", "home"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("nobody has kept such a page test"), "{gone:?}");
    assert!(!cluster.perigee(&["measure", "list"]).contains("home"));
}

#[test]
fn what_control_would_not_keep_is_not_measured() {
    let shape = Shape { etcd: 0, controls: 1, edges: 0, relayed: 0, disks: false };
    let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_perigee")), shape);
    let viewer = cluster.perigee(&["token", "add", "looks", "--role", "viewer"]);
    // No browser is needed for a refusal.
    let page = ["measure", "http://shop.test/", "--browser", "/nowhere", "--keep"];
    let refusal = |name: &str, more: &[&str], token: Option<&str>| {
        let mut command = cluster.ready_perigee(0, &[&page[..], &[name], more].concat());
        token.iter().for_each(|token| _ = command.env("PERIGEE_TOKEN", token));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let many = ["--via", "127.0.0.1:1", "--via", "127.0.0.1:2", "--runs", "200"];
    let cases: [(_, &[_], _, _); 4] = [
        ("home", &[], Some(viewer.trim()), "the token looks has the role viewer"),
        ("home", &[], Some("pgt_wrong"), "no token of this cluster"),
        ("a/b", &[], None, "no name of a page test"),
        ("home", &many, None, "control keeps 64 kinds, and 65536 bytes"),
    ];
    for (name, more, token, wanted) in cases {
        let said = refusal(name, more, token);
        assert!(said.contains(wanted) && !said.contains("the browser"), "{said}");
    }
    assert!(refusal("home", &[], None).contains("/nowhere has ended at once"), "and else it begins");
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
fn what_a_relay_cannot_do_is_refused_with_what_can() {
    let from = ["http://shop.test/", "--from", "phone=180ms/60ms,9Mbit", "--emulate", "relay"];
    let Some(output) = measure(&from) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("neither rate nor loss") && said.contains("--emulate packets"), "{said}");
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
