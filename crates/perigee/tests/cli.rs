//! The built binary from outside: help, wrong command lines, the life of an edge that needs no origin, and the disk of one
//! that has a small one. Each test has its own directory and ports that the system chooses.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use world::scratch::Scratch;

const GOOD: &str = "[[site]]\nname = \"shop\"\ndomains = \"*\"\norigin = \"http://127.0.0.1:9\"\n";

const FAILING_TEST: &str = "[[site.test]]\nget = \"/a\"\nexpect = { ttl = \"30d\" }\n";

/// Longest wait for a state that must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn perigee(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perigee"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs and wants this exit code and all of these words in what it prints.
fn check(arguments: &[&str], code: i32, words: &[&str]) {
    let output = perigee(arguments);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
    }
}

// --- Command lines ---

#[test]
fn every_command_has_help_with_examples() {
    check(&["--help"], 0, &["serve", "check", "purge", "explain", "Examples:", "perigee serve --origin"]);
    check(
        &["serve", "--help"],
        0,
        &["--origin", "--disk", "--listen", "--admin", "--state", "--config", "Examples:"],
    );
    check(
        &["purge", "--help"],
        0,
        &["--url", "--prefix", "--tag", "--site", "--everything", "--soft", "Examples:"],
    );
    check(&["explain", "--help"], 0, &["--header", "--json", "Examples:"]);
    check(&["check", "--help"], 0, &["--json", "Examples:"]);
    check(&["store", "--help"], 0, &["stat", "verify", "dump", "Examples:"]);
    for command in ["stat", "verify", "dump"] {
        check(&["store", command, "--help"], 0, &["--path", "--config", "--state", "--json", "Examples:"]);
    }
    check(&["--version"], 0, &["perigee 0."]);
}

#[test]
fn a_command_line_without_sense_exits_with_2_and_names_what_is_wrong() {
    check(&[], 2, &["Usage"]);
    check(&["nosuch"], 2, &["nosuch"]);
    check(&["serve"], 2, &["--origin URL or --config FILE", "Usage: perigee serve"]);
    check(
        &["serve", "--origin", "http://a", "--listen", "8080"],
        2,
        &["--listen", "127.0.0.1:8080 for this machine"],
    );
    check(&["serve", "--origin", "http://a", "--admin", "on"], 2, &["--admin", "address with port"]);
    check(&["serve", "--origin", "http://a", "--config", "b"], 2, &["cannot be used with"]);
    check(&["serve", "--origin", "http://a", "--listen", "here"], 2, &["here", "--listen"]);
    check(&["serve", "--config", "b", "--disk", "1GiB"], 2, &["cannot be used with"]);
    check(&["serve", "--disk", "1GiB"], 2, &["--origin URL or --config FILE"]);
    check(&["serve", "--origin", "http://a", "--disk", "20"], 2, &["--disk", "no unit", "20MiB"]);
    check(&["serve", "--origin", "http://a", "--disk", "1MiB"], 2, &["--disk", "64MiB to 16TiB"]);
    check(&["purge"], 2, &["--url", "--everything"]);
    check(&["purge", "--everything", "--site", "a"], 2, &["cannot be used with"]);
    check(&["purge", "--url", "http://a/", "--tag", "b"], 2, &["cannot be used with"]);
    check(&["explain"], 2, &["URL"]);
    check(&["store"], 2, &["Usage: perigee store"]);
    check(&["store", "stat", "--path", "a", "--config", "b"], 2, &["cannot be used with"]);
}

#[test]
fn what_is_named_and_of_no_use_is_named_with_what_is_wanted() {
    let scratch = Scratch::new("useless");
    let (directory, empty) = (scratch.0.to_str().unwrap(), scratch.file("empty", ""));
    let authority = "0".repeat(64);
    let unreadable = format!("{directory} cannot be read");
    for command in [&["router"][..], &["route", "192.0.2.1"]] {
        check(
            &[command, &["--config", directory]].concat(),
            1,
            &[&unreadable, "a text that this user may read"],
        );
    }
    check(
        &["nodes", "--control", "https://127.0.0.1:1", "--authority", &authority, "--token-file", &empty],
        1,
        &["--token-file", "is empty", "next: name the file that holds the token"],
    );
    check(&["doctor", "http://127.0.0.1:1/", "--through", "::1:8080"], 2, &["--through", "[::1]:8080"]);
    check(
        &["measure", "http://127.0.0.1:1/", "--browser", directory],
        1,
        &["the browser could not be started", directory, "has ended at once", "--browser FILE"],
    );
    let copied =
        "name = \"r1\"\nlisten = \"::1:7700\"\nstate = \"/x\"\ncontrol = \"https://127.0.0.1:7700\"\n";
    check(
        &["relay", "--config", &scratch.file("relay.toml", copied)],
        1,
        &["relay.toml", "\"::1:7700\" is not an address with port", "[::1]:7700"],
    );
}

#[test]
fn a_configuration_is_checked_without_an_edge() {
    let scratch = Scratch::new("check");
    check(&["check", &scratch.file("good.toml", GOOD)], 0, &["is good"]);
    let bad = scratch.file("bad.toml", format!("{GOOD}ttl = \"5 parsecs\"\n"));
    check(&["check", &bad], 1, &["5 parsecs", "bad.toml:5:7"]);
}

#[test]
fn commands_for_a_running_edge_say_how_to_get_one() {
    let scratch = Scratch::new("none");
    let state = scratch.0.to_str().unwrap();
    check(&["purge", "--everything", "--state", state], 1, &["admin-token", "perigee serve"]);
    check(&["explain", "http://a/", "--state", state], 1, &["admin-token", "--state DIR"]);
    fs::write(scratch.0.join("admin-token"), "0".repeat(64)).unwrap();
    fs::set_permissions(scratch.0.join("admin-token"), PermissionsExt::from_mode(0o600)).unwrap();
    check(
        &["purge", "--everything", "--state", state, "--admin", "127.0.0.1:1"],
        1,
        &["127.0.0.1:1", "--admin"],
    );
}

#[test]
fn an_edge_that_cannot_start_says_why_and_what_to_do() {
    let scratch = Scratch::new("refused");
    let state = scratch.0.join("state");
    let serve = |arguments: &[&str], words: &[&str]| {
        let common = ["serve", "--state", state.to_str().unwrap()];
        check(&[&common, arguments].concat(), 1, words);
    };
    serve(&["--config", "/nonexistent/perigee.toml"], &["/nonexistent/perigee.toml", "cannot be read"]);
    let bad = scratch.file("bad.toml", "[[site]]\nnam = \"x\"\n");
    serve(&["--config", &bad], &["bad.toml:2:1", "did you mean", "next:"]);
    let failing = scratch.file("failing.toml", format!("{GOOD}{FAILING_TEST}"));
    serve(&["--config", &failing], &["test failed", "failing.toml:7:18", "1 error"]);
    serve(&["--origin", "127.0.0.1:8000"], &["127.0.0.1:8000", "next:"]);
    assert!(!state.exists(), "nothing was made for an edge that could not start");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    serve(
        &["--origin", "http://127.0.0.1:9", "--listen", &address],
        &[&address, "another program listens there (ss -ltunp names it): stop it", "--listen"],
    );
    serve(
        &["--origin", "http://127.0.0.1:9", "--listen", "192.0.2.1:8080"],
        &["no such address", "--listen"],
    );
    let free = ["--origin", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"];
    serve(&[&free[..], &["--admin", &address]].concat(), &[&address, "--admin"]);
    serve(&[&free[..], &["--admin", "0.0.0.0:0"]].concat(), &["0.0.0.0:0", "--admin-remote"]);
}

// --- A running edge ---

/// An edge on ports of its own; killed when dropped.
struct Running {
    child: Child,
    state: PathBuf,
    errors: PathBuf,
}

impl Running {
    fn start(scratch: &Scratch, source: &[&str], admin: &str) -> Self {
        let (state, errors) = (scratch.0.join("state"), scratch.0.join("stderr"));
        let common =
            ["serve", "--listen", "127.0.0.1:0", "--admin", admin, "--state", state.to_str().unwrap()];
        let child = command(&[&common, source].concat())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let running = Running { child, state, errors };
        running.wait_for("Ctrl-C");
        running
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    fn wait_for(&self, words: &str) {
        wait(words, || self.said().contains(words));
    }

    fn run(&self, arguments: &[&str], code: i32, words: &[&str]) {
        check(&[arguments, &["--state", self.state.to_str().unwrap()]].concat(), code, words);
    }

    fn signal(&self, name: &str) {
        let done =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// GET on the admin API, with the token.
    fn admin(&self, path: &str) -> String {
        let address = fs::read_to_string(self.state.join("admin-address")).unwrap();
        let token = fs::read_to_string(self.state.join("admin-token")).unwrap();
        let mut stream = TcpStream::connect(address.trim()).unwrap();
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            token.trim()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        wait("the end of the process", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_edge_without_an_admin_api_serves() {
    let scratch = Scratch::new("off");
    let mut edge = Running::start(&scratch, &["--origin", "http://127.0.0.1:9"], "off");
    assert!(!edge.said().contains("admin"), "{}", edge.said());
    assert!(edge.said().contains("visitors  http://"), "{}", edge.said());
    edge.signal("TERM");
    assert_eq!(edge.exit_code(), Some(0));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_edge_greets_obeys_its_commands_and_stops() {
    let scratch = Scratch::new("life");
    let mut edge = Running::start(&scratch, &["--origin", "http://127.0.0.1:9"], "127.0.0.1:0");
    let said = edge.said();
    for words in ["http://127.0.0.1:9", "visitors  http://", "/metrics", "admin-token", "curl -sI"] {
        assert!(said.contains(words), "{said}");
    }
    check(
        &[
            "serve",
            "--origin",
            "http://127.0.0.1:9",
            "--admin",
            "off",
            "--state",
            edge.state.to_str().unwrap(),
        ],
        1,
        &[edge.state.to_str().unwrap(), "--state DIR"],
    );
    let token = fs::read_to_string(edge.state.join("admin-token")).unwrap();
    assert!(!said.contains(token.trim()), "the token is never printed");
    assert_eq!((mode(&edge.state), mode(&edge.state.join("admin-token"))), (0o700, 0o600));
    edge.run(&["purge", "--everything"], 0, &["Purged (hard)", "position 1", "every object"]);
    edge.run(&["purge", "--tag", "a", "--tag", "b", "--soft"], 0, &["Purged (soft)", "position 2", "\"b\""]);
    edge.run(&["purge", "--site", "default", "--json"], 0, &["\"position\": 3"]);
    edge.run(&["purge", "--site", "nosuch"], 1, &["nosuch", "next:"]);
    edge.run(&["purge", "--url", "/a"], 1, &["/a", "https://"]);
    edge.run(
        &["explain", "http://shop.example/a"],
        0,
        &["defaults", "host 12:shop.example", "absent (miss)"],
    );
    edge.run(&["explain", "http://shop.example/a", "--header", "broken"], 1, &["broken", "Name: value"]);
    edge.run(&["explain", "foo"], 1, &["foo", "absolute URL", "browser"]);
    edge.run(&["explain", "http://shop.example/a", "--method", "G E"], 1, &["G E", "not a method"]);
    edge.run(&["purge", "--tag", "a", "--tag", "b c"], 1, &["b c", "nothing was purged"]);
    edge.run(
        &["explain", "http://shop.example/a", "--method", "POST", "--json"],
        0,
        &["\"why\": \"method\""],
    );
    assert!(edge.admin("/metrics").contains("perigee_purges_total{scope=\"tag\",form=\"soft\"} 2\n"));
    edge.signal("TERM");
    assert_eq!(edge.exit_code(), Some(0), "{}", edge.said());
}

#[test]
fn a_changed_file_comes_into_force_and_a_broken_one_does_not() {
    let scratch = Scratch::new("reload");
    let file = scratch.file("perigee.toml", GOOD);
    let mut edge = Running::start(&scratch, &["--config", &file], "127.0.0.1:0");
    edge.run(&["purge", "--site", "second"], 1, &["second"]);
    scratch.file("perigee.toml", format!("{GOOD}ttl = \"5 parsecs\"\n"));
    edge.wait_for("the running configuration stays");
    assert!(edge.said().contains("perigee.toml:5:7"), "{}", edge.said());
    let status = edge.admin("/v1/status");
    assert!(status.contains("5 parsecs") && status.contains("\"refused\":1"), "{status}");
    assert!(edge.admin("/metrics").contains("perigee_config_reloads_total{result=\"failed\"} 1\n"));
    edge.run(&["purge", "--site", "shop"], 0, &["Purged"]);
    let second = GOOD.replace("shop", "second").replace('*', "second.example");
    scratch.file("perigee.toml", format!("{GOOD}{FAILING_TEST}{second}"));
    edge.wait_for("perigee.toml:7:18");
    wait("the refusal to be counted", || edge.admin("/v1/status").contains("\"refused\":2"));
    assert!(edge.admin("/v1/status").contains("test failed"), "a failed test is a refusal's reason");
    edge.run(&["purge", "--site", "second"], 1, &["second"]);
    scratch.file("perigee.toml", format!("{GOOD}{second}"));
    edge.signal("HUP");
    edge.wait_for("is in force");
    edge.run(&["purge", "--site", "second"], 0, &["Purged"]);
    assert!(edge.admin("/v1/status").contains("\"last_error\":null"));
    edge.signal("INT");
    assert_eq!(edge.exit_code(), Some(0));
}

// --- A disk ---

const MIB: usize = 1 << 20;

/// An origin whose bodies are as long as the path says (`/NAME/LENGTH`) and begin with the path. Lives as long as the process.
fn start_origin() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            let head = text(&head);
            let Some(path) = head.split(' ').nth(1) else { continue };
            let length: usize = path.rsplit('/').next().unwrap().parse().unwrap();
            let mut body = path.as_bytes().to_vec();
            body.resize(length, b'.');
            let head = format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nETag: \"1\"\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}

/// GET as a visitor of the edge.
fn visit(edge: &Running, path: &str) -> String {
    let said = edge.said();
    let address = said.split("visitors  http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer)
}

/// Standard output of `perigee store COMMAND` for this directory.
fn looked(command: &str, directory: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = perigee(&[&["store", command, "--path", directory.to_str().unwrap()], more].concat());
    (output.status.code(), text(&output.stdout))
}

#[test]
fn a_disk_can_be_looked_at_and_what_is_damaged_is_found() {
    let scratch = Scratch::new("disk");
    let origin = start_origin();
    let mut edge = Running::start(&scratch, &["--origin", &origin, "--disk", "64MiB"], "127.0.0.1:0");
    let store = edge.state.join("store");
    // More than memory takes of its 512 MiB.
    let long = format!("/long/{}", 11 * MIB);
    for path in ["/small/1000", "/other/2000", &long] {
        assert!(visit(&edge, path).contains("detail=absent"));
    }
    wait("all to be written", || looked("dump", &store, &[]).1.lines().count() == 14);

    let (code, lines) = looked("dump", &store, &[]);
    assert_eq!(code, Some(0));
    let columns: Vec<Vec<&str>> = lines.lines().map(|line| line.split('\t').collect()).collect();
    let row = |url: &str| columns.iter().find(|columns| columns[6].ends_with(url)).unwrap();
    // The position from which the first start goes on.
    assert_eq!(row("/small/1000")[..4], ["response", "200", "1000", "1000000"]);
    assert_eq!(row(&long)[..4], ["response in slices", "200", "11534336", "1000000"]);
    assert_eq!(columns.iter().filter(|columns| columns[0] == "slice").count(), 11);
    let (_, lines) = looked("dump", &store, &["--grep", "/small/", "--json"]);
    assert!(lines.contains("http://shop.example/small/1000") && lines.lines().count() == 1, "{lines}");

    edge.run(&["explain", "http://shop.example/small/1000"], 0, &["1000 bytes, in memory, key"]);
    edge.run(&["explain", &format!("http://shop.example{long}")], 0, &["slices on disk: 11 of 11"]);
    edge.run(&["store", "stat"], 0, &["62.0 MiB", "records  14", "one uses it now"]);
    edge.run(&["store", "stat", "--json"], 0, &["\"records\":14", "\"in_use\":true"]);
    edge.run(
        &["store", "verify"],
        0,
        &["14 records", "none damaged", "response in slices  1", "slice               11"],
    );
    let words = format!("[[store.disk]]\nsize = \"64MiB\"\npath = {store:?}\n");
    let file = scratch.file("perigee.toml", format!("{GOOD}{words}"));
    check(&["store", "verify", "--config", &file], 0, &["none damaged"]);
    edge.signal("TERM");
    assert_eq!(edge.exit_code(), Some(0));
    check(&["store", "verify", "--path", store.to_str().unwrap()], 0, &["14 records", "none damaged"]);

    let volume = store.join("volume");
    let mut bytes = fs::read(&volume).unwrap();
    let place = bytes.windows(12).position(|window| window == b"/other/2000.").unwrap();
    bytes[place + 1500] ^= 1;
    fs::write(&volume, bytes).unwrap();
    let (code, said) = looked("verify", &store, &[]);
    assert_eq!(code, Some(1), "{said}");
    for words in ["14 records", "1 DAMAGED", "damaged: segment 0, offset ", "a miss for visitors"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (code, said) = looked("verify", &store, &["--json"]);
    assert!(code == Some(1) && said.contains("\"damaged\":1") && said.contains("\"sound\":false"), "{said}");
    let (code, said) = looked("dump", &store, &[]);
    assert!(code == Some(0) && said.lines().any(|line| line.starts_with("damaged\t-\t-\t")), "{said}");
}

#[test]
fn a_directory_without_a_cache_says_so_and_what_to_do() {
    let scratch = Scratch::new("nodisk");
    let directory = scratch.0.to_str().unwrap();
    for command in ["stat", "verify", "dump"] {
        check(&["store", command, "--path", directory], 1, &[directory, "no cache in it", "--config FILE"]);
    }
    check(&["store", "stat", "--state", directory], 1, &["/store: there is no cache"]);
    scratch.file("volume", "");
    check(&["store", "stat", "--path", directory], 1, &["is empty", "begins it anew"]);
    scratch.file("volume", "somebody's diary ".repeat(1000));
    check(&["store", "stat", "--path", directory], 1, &["not a cache of Perigee's"]);
    assert_eq!(fs::metadata(scratch.0.join("volume")).unwrap().len(), 17_000, "it was left as it is");
    let file = scratch.file("perigee.toml", GOOD);
    check(&["store", "stat", "--config", &file], 1, &["names no disk", "[[store.disk]]"]);
    check(&["store", "stat", "--config", "/nonexistent"], 1, &["/nonexistent: cannot be read"]);
}
