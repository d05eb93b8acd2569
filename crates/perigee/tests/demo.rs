//! The demo from outside: it begins, does what its tour says, and leaves nothing behind, however it ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for a state that must come: a whole cluster begins, on a machine that does more.
const PATIENCE: Duration = Duration::from_secs(180);

struct Demo {
    process: Child,
    said: Receiver<String>,
    heard: Vec<String>,
    directory: PathBuf,
}

impl Demo {
    /// Begins one with a directory of its own for what it keeps.
    fn start(name: &str, arguments: &[&str]) -> Demo {
        let directory = std::env::temp_dir().join(format!("perigee-demos-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Demo::start_in(directory, arguments)
    }

    fn start_in(directory: PathBuf, arguments: &[&str]) -> Demo {
        let mut process = Command::new(env!("CARGO_BIN_EXE_perigee"))
            .args(["demo", "--json", "--seed", "7"])
            .args(arguments)
            .env("TMPDIR", &directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, said) = channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
        Demo { process, said, heard: Vec::new(), directory }
    }

    fn press(&mut self, key: char) {
        write!(self.process.stdin.as_mut().unwrap(), "{key}").unwrap();
    }

    /// The next line that has this in it.
    #[track_caller]
    fn hear(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.heard.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{text:?} was not said:\n{}", self.heard.join("\n"))
                }
            }
        }
    }

    /// Waits until the table of cities is so.
    #[track_caller]
    fn await_cities(&mut self, what: &str, is_so: impl Fn(&[String]) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.press('c');
            self.hear("WITHOUT CDN");
            let rows: Vec<String> = (0..16).map(|_| self.hear("")).collect();
            if is_so(&rows) {
                return;
            }
            assert!(Instant::now() < until, "it never came that {what}:\n{}", rows.join("\n"));
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Names and numbers of its children, as the guide says them.
    fn children(&mut self) -> Vec<(String, i32)> {
        let line = self.hear("or kill -9 one of: ");
        let (_, list) = line.split_once("or kill -9 one of: ").unwrap();
        let child = |pair: &str| {
            let (name, pid) = pair.split_once(' ').unwrap();
            (name.to_owned(), pid.parse().unwrap())
        };
        list.split(", ").map(child).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id() as i32).unwrap(), signal).unwrap();
    }

    /// What it printed, and whether it ended well.
    fn end(&mut self) -> (String, bool) {
        let until = Instant::now() + PATIENCE;
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it does not end:\n{}", self.heard.join("\n"));
            thread::sleep(Duration::from_millis(20));
        }
        let mut text = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        (text, self.process.wait().unwrap().success())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a process is there and is more than a number that nobody has asked for.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(name, rest)| name.contains("(perigee") && !rest.starts_with('Z'))
}

#[track_caller]
fn assert_all_end(children: &[(String, i32)]) {
    let until = Instant::now() + PATIENCE;
    while let Some((name, pid)) = children.iter().find(|(_, pid)| runs(*pid)) {
        assert!(Instant::now() < until, "{name} ({pid}) runs on");
        thread::sleep(Duration::from_millis(20));
    }
}

fn demos_in(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_tour_shows_what_it_says_and_leaves_nothing_behind() {
    let mut demo = Demo::start("tour", &["--rate", "3"]);
    let children = demo.children();
    assert_eq!(children.len(), 6, "{children:?}");
    demo.await_cities("every PoP serves", |rows| {
        ["fra", "iad", "sin"]
            .iter()
            .all(|pop| rows.iter().any(|row| row.split_whitespace().any(|cell| cell == *pop)))
    });

    // A price: every edge signs, and then says nothing else.
    demo.press('p');
    demo.hear("costs");
    let mut signed: Vec<String> =
        (0..4).map(|_| demo.hear("has it, signed ").split_whitespace().next().unwrap().to_owned()).collect();
    signed.sort();
    assert_eq!(signed, ["fra-1", "fra-2", "iad-1", "sin-1"]);
    demo.hear("Asked again: 0 edges show the old price");
    let seen = demo.hear("visitors have seen that price");
    assert!(!seen.contains("price 0 times") && seen.ends_with("the old one 0 times, ever."), "{seen}");

    // A PoP dies: its cities are served elsewhere, and again by it when it is back.
    demo.press('3');
    demo.hear("Singapore: all its edges were killed");
    let served = demo.hear("after its death");
    assert!(served.contains("the last of its cities has had a page from elsewhere"), "{served}");
    demo.press('3');
    demo.hear("Singapore: it is healthy again");

    // One edge of two dies by another hand: that is said, and it can be had back.
    let (_, edge) = children.iter().find(|(name, _)| name == "fra-2").unwrap();
    kill_process(Pid::from_raw(*edge).unwrap(), Signal::KILL).unwrap();
    demo.hear("fra-2 has ended (signal: 9 (SIGKILL))");
    demo.press('r');
    demo.hear("Started again: fra-2.");

    demo.await_cities("every city has looked at the shop without the CDN", |rows| {
        rows.iter().all(|row| row.ends_with(" ms"))
    });
    demo.signal(Signal::TERM);
    let (text, well) = demo.end();
    assert!(well, "{text}");
    let seen: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(seen["seed"], 7);
    for never in ["price_pages_after_proof_with_an_old_price", "carts_of_others_seen"] {
        assert_eq!(seen[never], 0, "{never}: {text}");
    }
    assert!(
        seen["hits"].as_u64() > Some(0) && seen["requests"].as_u64() > seen["origin_requests"].as_u64(),
        "{text}"
    );
    assert!(
        seen["cities"].as_array().unwrap().iter().all(|city| city["first_page_without_cdn_p50_ms"].is_u64()),
        "{text}"
    );
    let events: Vec<&str> =
        seen["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["price", "pop_killed", "pop_back"], "{text}");
    assert_eq!((&seen["events"][0]["state"], &seen["events"][0]["receipts"]), (&"done".into(), &4.into()));
    assert_all_end(&children);
    assert_eq!(demos_in(&demo.directory), [] as [PathBuf; 0]);
    fs::remove_dir(&demo.directory).unwrap();
}

#[test]
fn a_demo_that_is_killed_takes_its_children_along_and_the_next_one_clears_up() {
    let mut demo = Demo::start("killed", &[]);
    let children = demo.children();
    demo.signal(Signal::KILL);
    assert!(!demo.end().1);
    assert_all_end(&children);
    assert_eq!(demos_in(&demo.directory).len(), 1);

    // The next one cannot have its port, says so, and leaves nothing either.
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = used.local_addr().unwrap().port();
    let mut next = Demo::start_in(demo.directory.clone(), &["--port-base", &port.to_string()]);
    next.hear(&format!("error: 127.0.0.1:{port} cannot be listened on"));
    next.hear("next: choose another --port-base");
    assert!(!next.end().1);
    assert_eq!(demos_in(&demo.directory), [] as [PathBuf; 0]);
    fs::remove_dir(&demo.directory).unwrap();
}

#[test]
fn a_demo_ends_by_itself_when_its_time_is_over() {
    let mut demo = Demo::start("minutes", &["--minutes", "0.05"]);
    let children = demo.children();
    let (text, well) = demo.end();
    let seconds = text.split("\"seconds\": ").nth(1).and_then(|rest| {
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse::<u32>().ok()
    });
    assert!(well && seconds.is_some_and(|seconds| seconds >= 3), "{text}");
    assert_all_end(&children);
    fs::remove_dir(&demo.directory).unwrap();
}
