//! The scenario language: a test reads like a play. The origin does, a client asks, time passes, expect.
//!
//! ```no_run
//! use std::time::Duration;
//! world::play()
//!     .origin(|o| o.get("/a").reply(200).header("Cache-Control", "max-age=60").body("one"))
//!     .client(|c| drop(c.get("/a").expect(200).body("one").why("absent")))
//!     .client(|c| drop(c.get("/a").expect(200).body("one").why("fresh").age(0)))
//!     .pass(Duration::from_secs(61))
//!     .origin(|o| o.get("/a").reply(200).body("two"))
//!     .client(|c| drop(c.get("/a").expect(200).body("two").why("expired")));
//! ```
//!
//! The edge runs in this process on real sockets with a clock that only [`Play::pass`] moves. The origin answers only
//! what was scripted, each reply once and in order: a request that nobody foresaw and a reply that nobody asked for
//! both fail the test when the play ends. So "this came from the cache" needs no words. Nothing sleeps to let
//! something happen: waits are for states ([`Gate::wait_reached`], [`Play::origin_is_asked`]) and bounded by [`PATIENCE`].

mod answer;
mod bridge;
mod client;
mod gate;
mod http2;
mod http3;
mod origin;
mod pieces;
mod stage;
#[cfg(test)]
mod tests;
mod tls;

use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use answer::Answer;
pub use client::{Asking, Client, Talk};
pub use gate::Gate;
pub use http2::Http2;
pub use http3::{Asked as Http3Asked, Http3, Http3Answer, Quic};
pub use origin::{Origin, Reply, Seen};
pub use pieces::Pieces;
use stage::Stage;
pub use tls::Identity;

/// Longest wait for any state. Far above what a loaded machine needs, and a failure says what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait for what threads of the lowest priority make, which is encoded copies: while others use all cores, such a thread has 1.5 %
/// of one, and a copy that takes it half a second alone takes it half a minute.
const CODERS_PATIENCE: Duration = Duration::from_secs(60);

/// Wall time at which every play begins: seconds since the epoch, 2027-01-15 08:00:00 GMT.
pub const BEGIN_SECS: i64 = 1_800_000_000;

/// Set to the bytes of memory (`256MiB`, or little as `1MiB`), each play has a disk: what is true without one must be so with
/// one. The plays of `tests/disk*.rs` say for themselves what they have.
pub const DISK_EVERYWHERE: &str = "PERIGEE_PLAY_DISK";

/// Set to `h2`, the requests of each play reach the edge over HTTP/2 and TLS: what is true of one protocol must be so of the
/// other. What a client says byte for byte ([`Client::connect`], [`Client::raw`]) stays HTTP/1.1 without TLS, and is then
/// from another client of another scheme.
pub const PROTOCOL_EVERYWHERE: &str = "PERIGEE_PLAY_PROTOCOL";

/// Whether the requests of a play travel over HTTP/2.
pub fn speaks_http2() -> bool {
    std::env::var_os(PROTOCOL_EVERYWHERE).is_some_and(|protocol| protocol == "h2")
}

/// By which scheme the requests of a play come to the edge.
pub fn scheme() -> &'static str {
    if speaks_http2() { "https" } else { "http" }
}

/// The Range that the origin gets to see for a visitor's of bytes of the first slice: with disks, all of that slice is fetched.
pub fn range_sent(range: &str) -> &str {
    if std::env::var_os(DISK_EVERYWHERE).is_some() { "bytes=0-1048575" } else { range }
}

/// Begins a play with one site that answers every host from the scripted origin.
pub fn play() -> Play {
    Play::new()
}

/// One play: origins, an edge that starts when a client first asks, and the clock.
pub struct Play {
    config: String,
    stage: Option<Stage>,
    origin: Origin,
    backup: Origin,
    runtime: tokio::runtime::Runtime,
    direct: bool,
    state: Option<State>,
    tls: Option<Identity>,
}

/// An edge in whose place there is another one. Cut when it is dropped.
pub struct Draining(Option<Stage>);

impl Draining {
    /// Its connections.
    pub fn connections(&self) -> usize {
        self.0.as_ref().map_or(0, |stage| stage.handle().status().connections)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Stage::stop);
    }
}

/// A directory for what outlives an edge, removed with the play.
struct State(PathBuf);

impl State {
    fn new() -> State {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("perigee-play-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        State(path)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Copies the files of a directory, and of those in it.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory can be read").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            std::fs::create_dir_all(&to).expect("a directory can be made");
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a file can be copied");
        }
    }
}

impl Play {
    fn new() -> Play {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let clock = origin::OriginClock::new(BEGIN_SECS);
        Play {
            config: "[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\n".to_owned(),
            stage: None,
            origin: Origin::start(&runtime, "origin", clock.clone()),
            backup: Origin::start(&runtime, "backup", clock),
            runtime,
            direct: false,
            state: None,
            tls: speaks_http2().then(Identity::new),
        }
    }

    /// Clients talk to the origin itself: for tests of the language.
    pub fn without_edge(&mut self) -> &mut Self {
        self.direct = true;
        self
    }

    /// Replaces the configuration before the edge starts. `{origin}`, `{backup}` and `{nowhere}` stand for URLs: two
    /// scripted origins, and a port where nobody listens.
    pub fn config(&mut self, toml: &str) -> &mut Self {
        assert!(self.stage.is_none(), "the edge runs already: use `reconfigure`");
        self.config = toml.to_owned();
        self
    }

    /// The configuration, for changing it and coming back.
    pub fn config_text(&self) -> String {
        self.config.clone()
    }

    /// The default site with further lines of its own, before the edge starts; the lines may end in rules.
    pub fn site(&mut self, lines: &str) -> &mut Self {
        let config = format!("{}{lines}\n", self.config);
        self.config(&config)
    }

    /// Has the edge listen for TLS and QUIC too, with a certificate for `site.example`, before it starts.
    pub fn tls(&mut self) -> &mut Self {
        assert!(self.stage.is_none(), "the edge runs already");
        self.tls = Some(Identity::new());
        self
    }

    /// A client that speaks HTTP/2 to the edge, on a connection of its own.
    pub fn http2(&mut self) -> Http2 {
        let address = *self.stage().handle().addresses_tls().first().expect("the edge listens for TLS");
        let identity = self.tls.as_ref().expect("the play has TLS");
        Http2::connect(self.runtime.handle().clone(), address, identity)
    }

    /// An origin that speaks HTTP/2 over plain TCP, and has `serve` answer each request; its URL.
    pub fn http2_origin<S: Future<Output = ()> + Send + 'static>(
        &mut self,
        serve: impl Fn(http::Request<h2::RecvStream>, h2::server::SendResponse<bytes::Bytes>) -> S
        + Send
        + Sync
        + 'static,
    ) -> String {
        http2::start_origin(&self.runtime, Arc::new(serve))
    }

    /// A client that speaks HTTP/3 to the edge, on a connection of its own.
    pub fn http3(&mut self) -> Http3 {
        let address = *self.stage().handle().addresses_tls().first().expect("the edge listens for TLS");
        let identity = self.tls.as_ref().expect("the play has TLS");
        Http3::on(Quic::connect(self.runtime.handle().clone(), address, identity))
    }

    /// A client that has been there before and speaks HTTP/3 with its first bytes; and what says whether they were taken.
    pub fn early_http3(&mut self) -> (Http3, impl FnOnce() -> bool) {
        let address = *self.stage().handle().addresses_tls().first().expect("the edge listens for TLS");
        let identity = self.tls.as_ref().expect("the play has TLS");
        let runtime = self.runtime.handle().clone();
        let (quic, accepted) = Quic::connect_early(runtime.clone(), address, identity);
        (Http3::on(quic), move || runtime.block_on(accepted))
    }

    /// A connection of QUIC to the edge, on which nothing has been said.
    pub fn quic(&mut self) -> Quic {
        let address = *self.stage().handle().addresses_tls().first().expect("the edge listens for TLS");
        let identity = self.tls.as_ref().expect("the play has TLS");
        Quic::connect(self.runtime.handle().clone(), address, identity)
    }

    /// Whether the edge takes a connection of QUIC.
    pub fn takes_quic(&mut self) -> bool {
        let address = *self.stage().handle().addresses_tls().first().expect("the edge listens for TLS");
        let identity = self.tls.as_ref().expect("the play has TLS");
        Quic::try_connect(self.runtime.handle().clone(), address, identity).is_ok()
    }

    /// Which of the protocols that are offered by ALPN the edge chooses.
    pub fn chosen_protocol(&mut self, offered: &[&[u8]]) -> Option<Vec<u8>> {
        let address = *self.stage().handle().addresses_tls().first().expect("the edge listens for TLS");
        let identity = self.tls.as_ref().expect("the play has TLS");
        let mut config = identity.client(b"");
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let stream = crate::authority::connect(address, "site.example", config).expect("TLS begins");
        stream.conn.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// Asks over TLS and HTTP/1.1, in plain words, and reads until the edge closes.
    pub fn tls_ask(&mut self, text: &str) -> String {
        let address = *self.stage().handle().addresses_tls().first().expect("the edge listens for TLS");
        self.tls.as_ref().expect("the play has TLS").ask(address, text)
    }

    /// Gives the edge a disk of 128 MiB, which outlives [`Play::restart`], and `memory` (`"1MiB"`), before it starts.
    pub fn disk(&mut self, memory: &str) -> &mut Self {
        let store = format!("[store]\nmemory = \"{memory}\"\n\n[[store.disk]]\nsize = \"128MiB\"\n\n");
        let config = format!("{store}{}", self.config);
        self.state = Some(State::new());
        self.config(&config)
    }

    /// [`Play::disk`] on several directories, each of 64 MiB, and what the edge keeps beside them.
    pub fn disks(&mut self, memory: &str, paths: &[&Path]) -> &mut Self {
        let mut store = format!("[store]\nmemory = \"{memory}\"\n\n");
        for path in paths {
            store.push_str(&format!("[[store.disk]]\npath = \"{}\"\nsize = \"64MiB\"\n\n", path.display()));
        }
        let config = format!("{store}{}", self.config);
        self.state.get_or_insert_with(State::new);
        self.config(&config)
    }

    /// Where the edge keeps what outlives it: `store/volume` is the file of its disk.
    pub fn state(&mut self) -> &Path {
        &self.state.get_or_insert_with(State::new).0
    }

    /// Waits until all that was stored is on disk.
    #[track_caller]
    pub fn written(&mut self) -> &mut Self {
        let handle = self.stage().handle();
        wait_until("the disk to be written", || handle.status().disks.iter().all(|disk| disk.waiting == 0));
        self
    }

    /// Waits until what was taken away until now is so on disk too: something stored after it is.
    #[track_caller]
    pub fn removals_are_written(&mut self) -> &mut Self {
        self.origin(|o| o.get("/removals-are-written").header("Cache-Control", "max-age=3600").body("yes"));
        self.client(|c| drop(c.get("/removals-are-written").expect(200)));
        self.written()
    }

    /// The statistics of all seconds that are over since it was asked last.
    pub fn reports(&mut self) -> Vec<stats::Report> {
        self.stage().handle().registry().take_reports()
    }

    /// Stops the edge and starts it again, later by nothing, with what it keeps on disk and an empty memory.
    pub fn restart(&mut self) -> &mut Self {
        let stage = self.stage.take().expect("the edge runs");
        let now_ms = stage.now_ms();
        stage.stop();
        self.start(now_ms);
        self
    }

    /// [`Play::restart`] with another configuration.
    pub fn restart_with(&mut self, toml: &str) -> &mut Self {
        self.config = toml.to_owned();
        self.restart()
    }

    /// Has another edge take this one's place, which drains from then on, as long as what is returned lives. For plays without
    /// a disk.
    pub fn upgrade(&mut self) -> Draining {
        let old = self.stage.take().expect("the edge runs");
        self.stage = Some(old.succeed(&self.config_in_force(), self.tls.as_ref()));
        Draining(Some(old))
    }

    /// Ends the edge as a crash does, and starts another with what it left on disk: nothing is written or closed any more.
    pub fn crash(&mut self) -> &mut Self {
        let stage = self.stage.take().expect("the edge runs");
        let now_ms = stage.now_ms();
        // A thread cannot be killed. What it writes from now on goes to files that nobody reads again.
        let (left, found) = (self.state.take().expect("the edge has a disk"), State::new());
        copy(&left.0, &found.0);
        stage.stop();
        self.state = Some(found);
        self.start(now_ms);
        self
    }

    /// What the edge's disk holds and did.
    pub fn disk_stats(&mut self) -> store::disk::DiskStats {
        self.stage().handle().status().disks.remove(0)
    }

    /// Replaces the configuration of the running edge.
    pub fn reconfigure(&mut self, toml: &str) -> &mut Self {
        let text = self.fill_in(toml);
        self.stage().replace(&text);
        self
    }

    /// Scripts the origin.
    pub fn origin<T>(&mut self, script: impl FnOnce(&Origin) -> T) -> &mut Self {
        script(&self.origin);
        self
    }

    /// Scripts the second origin.
    pub fn backup<T>(&mut self, script: impl FnOnce(&Origin) -> T) -> &mut Self {
        script(&self.backup);
        self
    }

    /// Lets clients ask.
    pub fn client<T>(&mut self, scene: impl FnOnce(&Client) -> T) -> &mut Self {
        scene(&self.visitor());
        self
    }

    /// A client to keep: for requests that stay open over several scenes.
    pub fn visitor(&mut self) -> Client {
        let (address, plain) = if self.direct {
            (self.origin.address().to_owned(), self.origin.address().to_owned())
        } else {
            (self.stage().address(), self.stage().plain_address())
        };
        Client::new(self.runtime.handle().clone(), address, plain)
    }

    /// Moves time on, for the edge and for the origin's `Date`.
    pub fn pass(&mut self, time: Duration) -> &mut Self {
        if !self.direct {
            self.stage().advance(time);
        }
        self.origin.clock().advance(time);
        self
    }

    /// [`Play::pass`] in seconds.
    pub fn pass_secs(&mut self, secs: u64) -> &mut Self {
        self.pass(Duration::from_secs(secs))
    }

    /// Starts the edge, if it may have reasons not to: those.
    pub fn try_start(&mut self) -> Result<(), String> {
        assert!(self.stage.is_none(), "the edge runs already");
        let config = self.config_in_force();
        let state = self.state.as_ref().map(|state| &*state.0);
        let runtime = self.runtime.handle();
        self.stage = Some(Stage::try_start(runtime, &config, BEGIN_SECS * 1000, state, self.tls.as_ref())?);
        Ok(())
    }

    /// [`Play::purge`] that the edge may refuse; why it did.
    pub fn try_purge(&mut self, what: &str) -> Result<(), String> {
        self.stage().try_purge(what, false).map_err(|error| error.to_string())
    }

    /// [`Play::purge`] that the edge must refuse; why it did.
    #[track_caller]
    pub fn refused_purge(&mut self, what: &str) -> String {
        self.try_purge(what).expect_err("the purge is refused")
    }

    /// The edge itself, for what has no word here.
    pub fn handle(&mut self) -> &edge::Handle {
        self.stage().handle()
    }

    /// Begins to stop the edge; the thread that is returned says whether all requests ended within the time.
    pub fn stop_edge(&mut self, within: Duration) -> std::thread::JoinHandle<bool> {
        self.stage.take().expect("the edge runs").begin_stop(within)
    }

    /// Purges, hard or soft, on the running edge, and returns when the edge has acknowledged it.
    /// - `what`: `url http://host/path`, `prefix http://host/path`, `tag NAME`, `site` or `everything`.
    pub fn purge(&mut self, what: &str) -> &mut Self {
        self.stage().purge(what, false);
        self
    }

    /// [`Play::purge`], soft: what matches becomes stale.
    pub fn soft_purge(&mut self, what: &str) -> &mut Self {
        self.stage().purge(what, true);
        self
    }

    /// Waits until the origin has been asked `count` requests in all.
    #[track_caller]
    pub fn origin_is_asked(&mut self, count: usize) -> &mut Self {
        let origin = self.origin.clone();
        wait_until(&format!("{count} requests at the origin"), move || origin.seen().len() >= count);
        self
    }

    /// Checks that the origin has received exactly `count` requests so far.
    #[track_caller]
    pub fn origin_saw(&mut self, count: usize) -> &mut Self {
        let seen = self.origin.seen();
        let lines: Vec<&str> = seen.iter().map(|seen| seen.head.line.as_str()).collect();
        assert_eq!(lines.len(), count, "requests at the origin: {lines:?}");
        self
    }

    /// Checks that not one byte has reached the origin.
    #[track_caller]
    pub fn origin_saw_nothing(&mut self) -> &mut Self {
        let bytes = self.origin.received();
        assert!(bytes.is_empty(), "the origin received {:?}", String::from_utf8_lossy(&bytes));
        self
    }

    /// Checks the last request that the origin received.
    pub fn origin_last_saw(&mut self, check: impl FnOnce(&Seen)) -> &mut Self {
        let seen = self.origin.seen();
        check(seen.last().expect("the origin was asked"));
        self
    }

    fn stage(&mut self) -> &mut Stage {
        if self.stage.is_none() {
            self.start(BEGIN_SECS * 1000);
        }
        self.stage.as_mut().expect("it was just started")
    }

    fn start(&mut self, now_ms: i64) {
        let config = self.config_in_force();
        let state = self.state.as_ref().map(|state| &*state.0);
        self.stage = Some(Stage::start(self.runtime.handle(), &config, now_ms, state, self.tls.as_ref()));
    }

    /// The configuration with what stands for something filled in, and a disk if each play has one.
    fn config_in_force(&mut self) -> String {
        let mut config = self.fill_in(&self.config);
        if let Some(memory) = std::env::var_os(DISK_EVERYWHERE)
            && !config.contains("[[store.disk]]")
        {
            if !config.contains("[store]") {
                config.push_str(&format!("\n[store]\nmemory = \"{}\"\n", memory.display()));
            }
            config.push_str("\n[[store.disk]]\nsize = \"64MiB\"\n");
            self.state.get_or_insert_with(State::new);
        }
        config
    }

    fn fill_in(&self, toml: &str) -> String {
        let mut text = toml
            .replace("{origin}", &format!("http://{}", self.origin.address()))
            .replace("{backup}", &format!("http://{}", self.backup.address()));
        if text.contains("{nowhere}") {
            let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            text = text.replace("{nowhere}", &format!("http://{}", free.expect("a free port")));
        }
        text
    }
}

impl Drop for Play {
    /// The end of the play: whatever was not foreseen, or did not happen, fails the test.
    fn drop(&mut self) {
        if let Some(stage) = self.stage.take() {
            stage.stop();
        }
        let mut complaints = self.origin.complaints();
        complaints.extend(self.backup.complaints());
        if !std::thread::panicking() {
            assert!(
                complaints.is_empty(),
                "the play did not go by its script:\n  {}",
                complaints.join("\n  ")
            );
        } else {
            complaints.iter().for_each(|complaint| eprintln!("also: {complaint}"));
        }
    }
}

/// A body that differs from place to place, and from that of another `seed`.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let word = |at: u64| {
        let mixed = (at ^ seed.rotate_left(32)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8) as u64).flat_map(|at| word(at).to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// Waits until `holds`, for at most [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait(PATIENCE, what, holds);
}

/// [`wait_until`] for an encoded copy: for a minute at most, as its coder has the lowest priority.
#[track_caller]
pub fn wait_for_copy(what: &str, holds: impl FnMut() -> bool) {
    wait(CODERS_PATIENCE, what, holds);
}

#[track_caller]
fn wait(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < patience,
            "waited {patience:?} in vain for {what} ({})",
            Location::caller()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
