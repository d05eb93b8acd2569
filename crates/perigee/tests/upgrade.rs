//! Upgrades in place, from outside: the built binary, replaced under load by itself and by what is no good. Each test has its
//! own directory and ports that the system chooses; every process that it starts is in a group of its own, and ended with it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use world::edges::read_head;
use world::play::{Http2, Http3, Identity, Pieces, Quic};

/// Longest wait for a state that must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

// --- The origin ---

/// Answers each request with how many have come for its path, cacheable for long; `/slow` sends a line now and then until it is
/// told to end; `/large` is [`large`].
struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<std::collections::HashMap<String, usize>>>,
    finish: Arc<AtomicBool>,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin =
            Origin { address: listener.local_addr().unwrap(), seen: Arc::default(), finish: Arc::default() };
        let (seen, finish) = (origin.seen.clone(), origin.finish.clone());
        // It ends with the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, finish) = (seen.clone(), finish.clone());
                thread::spawn(move || serve(stream.unwrap(), &seen, &finish));
            }
        });
        origin
    }
}

/// More than all buffers between an origin and a visitor who does not read.
const LARGE: usize = 8 << 20;

fn large() -> &'static [u8] {
    static BODY: OnceLock<Vec<u8>> = OnceLock::new();
    let word = |number: u32| number.wrapping_mul(0x9e37_79b9).to_le_bytes();
    BODY.get_or_init(|| (0..LARGE as u32 / 4).flat_map(word).collect())
}

fn serve(mut stream: TcpStream, seen: &Mutex<std::collections::HashMap<String, usize>>, finish: &AtomicBool) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Ok(head) = read_head(&mut reader) {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let count = {
            let mut seen = seen.lock().unwrap();
            let count = seen.entry(path.clone()).or_default();
            *count += 1;
            *count
        };
        if path == "/slow" {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n");
            for number in 0..100 {
                while number == 99 && !finish.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                }
                if stream.write_all(b"0123456789").is_err() {
                    return;
                }
            }
            return;
        }
        if path == "/large" {
            let head =
                format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {LARGE}\r\n\r\n");
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(large())).is_err() {
                return;
            }
            continue;
        }
        let body = format!("{path} {count}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=10000\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

// --- Visitors ---

struct Visitor {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Visitor {
    fn new(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Visitor { reader: BufReader::new(stream.try_clone()?), stream })
    }

    fn send(&mut self, method: &str, path: &str) -> std::io::Result<()> {
        self.stream.write_all(
            format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        )
    }

    /// The body, and whether the connection may be used again.
    fn read(&mut self) -> std::io::Result<(String, bool)> {
        let head = read_head(&mut self.reader)?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(std::io::Error::other(head));
        }
        let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.reader.read_exact(&mut body)?;
        Ok((String::from_utf8(body).unwrap(), !head.contains("connection: close")))
    }

    fn ask(&mut self, method: &str, path: &str) -> (String, bool) {
        self.send(method, path).unwrap();
        self.read().unwrap()
    }
}

fn fetch(address: SocketAddr, path: &str) -> String {
    Visitor::new(address).unwrap().ask("GET", path).0
}

// --- The edge ---

/// An edge that was started as `perigee` in its own directory, where something else can be put in its place.
struct Running {
    directory: PathBuf,
    child: Child,
    address: SocketAddr,
}

const HANG: &str = "#!/bin/sh\necho here I hang >&2\nexec sleep 600\n";
const DIE: &str = "#!/bin/sh\necho no such thing as libfoo.so.7 >&2\nexit 3\n";

impl Running {
    fn start(name: &str, origin: &Origin, edge: &str) -> Self {
        Self::start_with(name, origin, edge, |_| {})
    }

    fn start_with(name: &str, origin: &Origin, edge: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let directory = std::env::temp_dir().join(format!("perigee-upgrade-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(directory.join("perigee"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
            .arg(directory.join("perigee.toml"))
            .arg("--state")
            .arg(directory.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("stderr")).unwrap())
            .process_group(0);
        prepare(&mut command);
        configure(&directory, origin, edge);
        install(&directory, None);
        let child = command.spawn().unwrap();
        let mut running = Running { directory, child, address: ([127, 0, 0, 1], 0).into() };
        running.wait_for("Ctrl-C");
        let said = running.said();
        let url = said.split("visitors  http://").nth(1).unwrap().split('/').next().unwrap();
        running.address = url.parse().unwrap();
        running
    }

    /// Another edge in the directory of one whose last process was killed, once the system has cleared it away.
    fn start_again(before: &Running) -> Self {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < PATIENCE, "it does not start: {}", before.said());
            let mut child = Command::new(before.directory.join("perigee"))
                .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
                .arg(before.directory.join("perigee.toml"))
                .arg("--state")
                .arg(before.directory.join("state"))
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            let said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
            if said.into_iter().any(|line| line.contains("Ctrl-C")) {
                let (directory, address) = (before.directory.clone(), before.address);
                return Running { directory, child, address };
            }
            child.wait().unwrap();
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.directory.join("stderr")).unwrap()
    }

    fn wait_for(&self, words: &str) {
        let begin = Instant::now();
        while !self.said().contains(words) {
            assert!(begin.elapsed() < PATIENCE, "it does not say {words:?}: {}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_perigee"))
            .args(arguments)
            .arg("--state")
            .arg(self.directory.join("state"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn purge(&self, url: &str) {
        let output = self.run(&["purge", "--url", url]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The process that serves from now on.
    fn upgrade(&self) -> u32 {
        let output = self.run(&["upgrade"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.said());
        said.split("(process ").nth(1).unwrap().split(')').next().unwrap().parse().unwrap()
    }

    /// It must fail, for a reason with these words.
    fn fail_to_upgrade(&self, words: &[&str]) {
        let output = self.run(&["upgrade"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "it does not say {word:?}: {said}");
        }
    }

    /// The process that answers the admin API.
    fn serving(&self) -> u32 {
        let path = |name: &str| fs::read_to_string(self.directory.join("state").join(name)).unwrap();
        let mut stream = TcpStream::connect(path("admin-address").trim()).unwrap();
        let request = format!(
            "GET /v1/upgrade HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            path("admin-token").trim()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let state = answer.split("\"state\":\"").nth(1).unwrap().split('"').next().unwrap();
        if state == "none" {
            return self.child.id();
        }
        let process = answer.split(if state == "done" { "\"to\":" } else { "\"from\":" }).nth(1).unwrap();
        process.split("\"pid\":").nth(1).unwrap().split([',', '}']).next().unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the edge said:\n{}", self.said());
        }
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn configure(directory: &std::path::Path, origin: &Origin, edge: &str) {
    let site = format!("[[site]]\nname = \"a\"\ndomains = \"*\"\norigin = \"http://{}\"\n", origin.address);
    fs::write(directory.join("new.toml"), format!("{edge}\n{site}")).unwrap();
    fs::rename(directory.join("new.toml"), directory.join("perigee.toml")).unwrap();
}

/// Puts the real binary, or a script, in the place of what was started.
fn install(directory: &std::path::Path, script: Option<&str>) {
    let new = directory.join("new");
    match script {
        None => symlink(env!("CARGO_BIN_EXE_perigee"), &new).unwrap(),
        Some(script) => {
            fs::write(&new, script).unwrap();
            fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    fs::rename(new, directory.join("perigee")).unwrap();
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// Visitors who ask all the time, until they are told to stop; how many answers they had. Each panics at the first that it
/// doesn't get.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let each = |is_kept: bool| {
            let (stop, answers) = (stop.clone(), answers.clone());
            thread::spawn(move || {
                let mut kept: Option<Visitor> = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut visitor = kept.take().unwrap_or_else(|| Visitor::new(address).unwrap());
                    let (body, may_be_used) = visitor.ask("GET", "/load");
                    assert!(body.starts_with("/load "), "{body}");
                    answers.fetch_add(1, Ordering::Relaxed);
                    kept = (is_kept && may_be_used).then_some(visitor);
                }
            })
        };
        let threads = [false, false, true, true].map(each).into();
        Load { stop, answers, threads }
    }

    fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

// --- Upgrades that succeed ---

#[test]
fn no_request_is_lost_over_five_upgrades_whatever_the_number_of_workers() {
    let origin = Origin::start();
    let running = Running::start("five", &origin, "[edge]\nworkers = 2");
    let mut slow = Visitor::new(running.address).unwrap();
    slow.send("GET", "/slow").unwrap();
    let load = Load::start(running.address);
    let mut before = running.child.id();
    for workers in [2, 5, 1, 3, 2] {
        configure(&running.directory, &origin, &format!("[edge]\nworkers = {workers}"));
        let some = load.answers() + 20;
        wait("answers", || load.answers() >= some);
        let pid = running.upgrade();
        assert_ne!(pid, before);
        assert_eq!(running.serving(), pid);
        before = pid;
    }
    let some = load.answers() + 20;
    wait("answers", || load.answers() >= some);
    load.end();
    assert!(is_alive(running.child.id()), "the first process still answers a slow request");
    origin.finish.store(true, Ordering::Relaxed);
    assert_eq!(slow.read().unwrap().0, "0123456789".repeat(100));
    drop(slow);
    wait("the end of the first process", || !is_alive(running.child.id()));
    assert!(fetch(running.address, "/after").starts_with("/after "));
}

#[test]
fn sigusr2_upgrades_too_and_an_idle_connection_gets_one_more_answer() {
    let origin = Origin::start();
    let running = Running::start("signal", &origin, "");
    let mut idle = Visitor::new(running.address).unwrap();
    assert_eq!(idle.ask("GET", "/idle"), ("/idle 1".to_owned(), true));
    let pid = running.child.id();
    assert!(Command::new("kill").args(["-USR2", &pid.to_string()]).status().unwrap().success());
    wait("another process", || running.serving() != pid);
    // Longer than a node that stops would have kept it.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(idle.ask("GET", "/idle"), ("/idle 1".to_owned(), false), "from memory, and goodbye");
    wait("the end of the old process", || !is_alive(pid));
}

#[test]
fn a_purge_is_in_force_in_every_process_that_still_answers() {
    let origin = Origin::start();
    let running = Running::start("purge", &origin, "[[store.disk]]\nsize = \"64MiB\"");
    let mut old: Vec<Visitor> = Vec::new();
    let mut visit = |number: usize| {
        let mut visitor = Visitor::new(running.address).unwrap();
        assert_eq!(visitor.ask("GET", "/p"), (format!("/p {number}"), true));
        old.push(visitor);
    };
    visit(1);
    // From the disk, or anew where the last second's had not been written.
    running.upgrade();
    visit(1);
    running.upgrade();
    visit(1);
    running.purge("http://a.example/p");
    // The oldest process is two links away from the one that was asked.
    let answers: Vec<String> = old.iter_mut().map(|visitor| visitor.ask("GET", "/p").0).collect();
    assert!(!answers.iter().any(|answer| answer == "/p 1"), "{answers:?}");
    // What the oldest has fetched since is purged there as well.
    assert!(running.said().contains("records: "), "{}", running.said());
}

#[test]
fn what_a_visitor_of_the_old_process_invalidates_is_gone_in_the_new_one_and_the_other_way() {
    let origin = Origin::start();
    let running = Running::start("invalidate", &origin, "");
    let mut old = Visitor::new(running.address).unwrap();
    let mut other = Visitor::new(running.address).unwrap();
    assert_eq!(old.ask("GET", "/a").0, "/a 1");
    assert_eq!(other.ask("GET", "/b").0, "/b 1");
    running.upgrade();
    assert_eq!(fetch(running.address, "/a"), "/a 2", "the new one begins with an empty memory");
    assert_eq!(old.ask("POST", "/a").0, "/a 3");
    wait("the invalidation in the new process", || fetch(running.address, "/a") != "/a 2");
    Visitor::new(running.address).unwrap().ask("POST", "/b");
    // On its way; the old connection has one answer left.
    thread::sleep(Duration::from_millis(500));
    assert_ne!(other.ask("GET", "/b").0, "/b 1");
}

#[test]
fn the_new_process_finds_on_disk_what_the_old_one_had_in_memory() {
    let origin = Origin::start();
    let running = Running::start("disk", &origin, "[[store.disk]]\nsize = \"64MiB\"");
    let paths: Vec<String> = (0..50).map(|number| format!("/{number}")).collect();
    for path in &paths {
        assert_eq!(fetch(running.address, path), format!("{path} 1"));
    }
    running.upgrade();
    for path in &paths {
        assert_eq!(fetch(running.address, path), format!("{path} 1"));
    }
    running.purge("http://a.example/0");
    running.upgrade();
    assert_eq!(fetch(running.address, "/0"), "/0 2");
    assert_eq!(fetch(running.address, "/1"), "/1 1");
}

#[test]
fn an_old_process_uses_nothing_stored_once_nobody_tells_it_of_purges() {
    let origin = Origin::start();
    let running = Running::start("orphan", &origin, "");
    let mut old = Visitor::new(running.address).unwrap();
    assert_eq!(old.ask("GET", "/o").0, "/o 1");
    let pid = running.upgrade();
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    // Whoever is started then knows nothing of the old process, and purges.
    let third = Running::start_again(&running);
    third.purge("http://a.example/o");
    assert_eq!(old.ask("GET", "/o"), ("/o 2".to_owned(), false));
    wait("the end of the old process", || !is_alive(running.child.id()));
}

#[test]
fn an_old_process_that_does_not_confirm_a_purge_is_ended_before_it_is_acknowledged() {
    let origin = Origin::start();
    let running = Running::start("stuck", &origin, "");
    let mut old = Visitor::new(running.address).unwrap();
    assert_eq!(old.ask("GET", "/s").0, "/s 1");
    running.upgrade();
    let pid = running.child.id();
    assert!(Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap().success());
    running.purge("http://a.example/s");
    wait("the end of the stuck process", || !is_alive(pid));
    assert!(running.said().contains("did not confirm a purge"), "{}", running.said());
    assert!(old.send("GET", "/s").and_then(|()| old.read()).is_err());
}

#[test]
fn whoever_stops_the_new_process_stops_those_that_drain() {
    let origin = Origin::start();
    let running = Running::start("stop", &origin, "[edge.limits]\ndrain_timeout = \"1s\"");
    let mut pids = vec![running.child.id()];
    let mut slow: Vec<Visitor> = Vec::new();
    for _ in 0..2 {
        let mut visitor = Visitor::new(running.address).unwrap();
        visitor.send("GET", "/slow").unwrap();
        slow.push(visitor);
        wait("the origin", || origin.seen.lock().unwrap().get("/slow") == Some(&slow.len()));
        pids.push(running.upgrade());
    }
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let last = pids.last().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &last]).status().unwrap().success());
    wait("the end of all of them", || !pids.iter().any(|pid| is_alive(*pid)));
}

// --- HTTP/2 and HTTP/3 ---

/// A connection that holds many requests.
enum Connection {
    Http2(Http2),
    Http3(Http3),
}

impl Connection {
    fn pieces(&self, path: &str) -> Result<Pieces, String> {
        match self {
            Connection::Http2(http2) => http2.pieces(path),
            Connection::Http3(http3) => http3.pieces(path),
        }
    }

    fn try_get(&self, path: &str) -> Result<String, String> {
        self.pieces(path)?.rest().map(|body| String::from_utf8(body).unwrap())
    }

    fn get(&self, path: &str) -> String {
        self.try_get(path).unwrap()
    }
}

/// Downloads, kept connections and new ones over a broken upgrade and two good ones.
fn outlive_upgrades(name: &str, connect: impl Fn(SocketAddr, &Identity) -> Connection) {
    let (origin, identity) = (Origin::start(), Identity::new());
    let files = std::env::temp_dir().join(format!("perigee-upgrade-{name}-tls-{}", std::process::id()));
    fs::create_dir_all(&files).unwrap();
    let (chain, key) = (files.join("chain.pem"), files.join("key.pem"));
    fs::write(&chain, identity.chain()).unwrap();
    fs::write(&key, identity.key()).unwrap();
    let edge = format!(
        "[edge]\nworkers = 2\nlisten_tls = \"127.0.0.1:0\"\n[[certificate]]\nchain = {chain:?}\nkey = {key:?}\n"
    );
    let running = Running::start(name, &origin, &edge);
    let said = running.said();
    let address: SocketAddr =
        said.split("https://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let connect = || connect(address, &identity);
    let large = large();
    let mut downloads: Vec<(Pieces, usize)> = Vec::new();
    let read_some = |downloads: &mut Vec<(Pieces, usize)>| {
        for (pieces, done) in downloads {
            let some = pieces.read(300_000).unwrap();
            assert!(some == large[*done..*done + 300_000], "what comes behind {done} bytes");
            *done += some.len();
        }
    };
    let (kept, idle) = (connect(), connect());
    assert_eq!((kept.get("/k"), idle.get("/k")), ("/k 1".to_owned(), "/k 1".to_owned()));
    downloads.push((connect().pieces("/large").unwrap(), 0));
    read_some(&mut downloads);

    install(&running.directory, Some(DIE));
    running.fail_to_upgrade(&["exit status: 3"]);
    install(&running.directory, None);
    read_some(&mut downloads);
    assert_eq!((kept.get("/k"), connect().get("/k")), ("/k 1".to_owned(), "/k 1".to_owned()));

    let mut pids = vec![running.child.id()];
    for upgrade in 1..=2 {
        pids.push(running.upgrade());
        // The new one begins with an empty memory.
        assert_eq!(connect().get("/k"), format!("/k {}", upgrade + 1));
        read_some(&mut downloads);
        downloads.push((connect().pieces("/large").unwrap(), 0));
        read_some(&mut downloads);
        if upgrade == 1 {
            // The old process answers on its own connections, until it has said goodbye.
            wait("goodbye", || kept.try_get("/k").inspect(|body| assert_eq!(body, "/k 1")).is_err());
        }
    }
    assert_eq!(idle.get("/k"), "/k 1", "an idle one was told nothing, and goes through both");
    assert!(pids.iter().all(|pid| is_alive(*pid)), "each has a download");
    for (pieces, done) in downloads {
        assert!(pieces.rest().unwrap() == large[done..], "what comes behind {done} bytes");
    }
    drop((kept, idle));
    wait("the end of the old processes", || !is_alive(pids[0]) && !is_alive(pids[1]));
    assert_eq!(connect().get("/k"), "/k 3");
    let _ = fs::remove_dir_all(files);
}

#[test]
fn http2_downloads_and_kept_connections_outlive_upgrades_and_new_ones_reach_the_new_process() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runtime = runtime.handle();
    outlive_upgrades("h2", |at, identity| Connection::Http2(Http2::connect(runtime.clone(), at, identity)));
}

#[test]
fn http3_downloads_and_kept_connections_outlive_upgrades_and_new_ones_reach_the_new_process() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runtime = runtime.handle();
    outlive_upgrades("h3", |at, identity| {
        Connection::Http3(Http3::on(Quic::connect(runtime.clone(), at, identity)))
    });
}

// --- Upgrades that fail ---

#[test]
fn a_new_process_that_does_not_get_ready_changes_nothing_and_whoever_asked_is_told_why() {
    let origin = Origin::start();
    let edge = "[edge.limits]\nupgrade_timeout = \"8s\"";
    let running = Running::start("fail", &origin, edge);
    let pid = running.child.id();
    let load = Load::start(running.address);
    let good = fs::read_to_string(running.directory.join("perigee.toml")).unwrap();

    install(&running.directory, Some(DIE));
    running.fail_to_upgrade(&["exit status: 3", "libfoo.so.7", "serves on"]);

    install(&running.directory, Some(HANG));
    let first = thread::scope(|scope| {
        let first = scope.spawn(|| running.run(&["upgrade"]));
        running.wait_for("here I hang");
        running.fail_to_upgrade(&["under way already"]);
        first.join().unwrap()
    });
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(said.contains("not ready within 8 s") && said.contains("here I hang"), "{said}");

    fs::remove_file(running.directory.join("perigee")).unwrap();
    running.fail_to_upgrade(&["cannot be started", "perigee"]);

    install(&running.directory, None);
    fs::write(running.directory.join("perigee.toml"), format!("{good}ttl = \"5 parsecs\"\n")).unwrap();
    running.fail_to_upgrade(&["exit status: 1", "5 parsecs"]);

    assert_eq!(running.serving(), pid);
    running.purge("http://a.example/load");
    fs::write(running.directory.join("perigee.toml"), good).unwrap();
    assert_ne!(running.upgrade(), pid, "and a good one can take over after all of them");
    let some = load.answers() + 20;
    wait("answers", || load.answers() >= some);
    load.end();
}

#[test]
fn an_edge_whose_successor_dies_with_the_disks_in_hand_takes_them_back() {
    let origin = Origin::start();
    let disk = "[[store.disk]]\nsize = \"64MiB\"\n";
    let running = Running::start("back", &origin, disk);
    assert_eq!(fetch(running.address, "/d"), "/d 1");
    assert_eq!(fetch(running.address, "/e"), "/e 1");
    let file = running.directory.join("file");
    fs::write(&file, "").unwrap();
    // All is well with this configuration until the disk is opened.
    configure(&running.directory, &origin, &format!("{disk}path = \"{}/disk\"", file.display()));
    running.fail_to_upgrade(&["exit status: 1", "cannot open any disk"]);
    configure(&running.directory, &origin, disk);
    assert_eq!(running.serving(), running.child.id());
    assert_eq!(fetch(running.address, "/d"), "/d 1");
    running.purge("http://a.example/d");
    assert_eq!(fetch(running.address, "/d"), "/d 2");
    assert_eq!(fetch(running.address, "/f"), "/f 1");
    running.upgrade();
    assert_eq!(fetch(running.address, "/d"), "/d 2", "written to the disk that was taken back");
    assert_eq!(fetch(running.address, "/e"), "/e 1");
    assert_eq!(fetch(running.address, "/f"), "/f 1");
}

// --- Under a service manager ---

#[test]
fn a_service_manager_is_told_which_process_serves_and_may_have_opened_the_sockets() {
    let origin = Origin::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = std::env::temp_dir().join(format!("perigee-notify-{}", std::process::id()));
    let _ = fs::remove_file(&socket);
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut bytes = [0; 4096];
        let len = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let running = Running::start_with("manager", &origin, "", |command| {
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let directory = PathBuf::from(&program);
        let errors = fs::File::create(directory.parent().unwrap().join("stderr")).unwrap();
        let mut shell = Command::new("/bin/sh");
        shell
            .args([
                "-c",
                "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec \"$@\"",
                "sh",
            ])
            .arg(program)
            .args(arguments)
            .env("NOTIFY_SOCKET", &socket)
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(errors)
            .process_group(0);
        *command = shell;
    });
    assert_eq!(running.address, address, "the manager's socket, whatever --listen says");
    let ready = |pid: u32| format!("MAINPID={pid}\nREADY=1");
    assert_eq!(told().trim_end(), ready(running.child.id()));
    assert!(Command::new("kill").args(["-HUP", &running.child.id().to_string()]).status().unwrap().success());
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told().trim_end(), ready(running.child.id()));
    let pid = running.upgrade();
    assert_eq!(told().trim_end(), ready(pid));
    assert!(fetch(address, "/m").starts_with("/m "));
    let _ = fs::remove_file(&socket);
}
