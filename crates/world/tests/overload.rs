//! A worker that is held up while visitors come: who is asked to come again, what is counted, and that all who waited are
//! answered. The worker is held where it looks up in which country a visitor is; how long connections wait is the kernel's to say,
//! so here time passes.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge::{Clock, Edge, Handle, Options};
use model::{EdgeSettings, Snapshot};
use parking_lot::{Condvar, Mutex};
use stats::Country;
use world::edges::{Authority, CountingOrigin, free, options, reply, wait_until};
use world::play::PATIENCE;

/// Who comes while the worker is held up, and for how long it is: of so few a second, half a second's worth is less than the kernel
/// may always hold.
const CROWD: usize = 100;
const HELD: Duration = Duration::from_secs(1);

/// What the kernel may always hold, and one more, as Linux counts.
const ALWAYS: usize = 64 + 1;

/// Longest wait for a connection for which there is room: the kernel makes it, whatever the edge does.
const AT_ONCE: Duration = Duration::from_millis(200);

/// What holds a worker up.
#[derive(Clone, Default)]
struct Brake(Arc<(Mutex<Held>, Condvar)>);

#[derive(Default)]
struct Held {
    is_on: bool,
    /// Connections that may go on all the same.
    let_go: usize,
    /// Connections that have come here.
    reached: usize,
}

impl Brake {
    /// In the worker: waits, for a bounded time, unless it may go on.
    fn pass(&self) {
        let mut held = self.0.0.lock();
        held.reached += 1;
        let deadline = Instant::now() + 3 * PATIENCE;
        while held.is_on && held.let_go == 0 && !self.0.1.wait_until(&mut held, deadline).timed_out() {}
        held.let_go = held.let_go.saturating_sub(1);
    }

    /// Lets nobody on, or everybody.
    fn set(&self, is_on: bool) {
        self.0.0.lock().is_on = is_on;
        self.0.1.notify_all();
    }

    fn let_one_go(&self) {
        self.0.0.lock().let_go += 1;
        self.0.1.notify_all();
    }

    fn reached(&self) -> usize {
        self.0.0.lock().reached
    }
}

/// An edge with one worker, which the brake can hold up.
struct Stage {
    edge: Handle,
    brake: Brake,
    tier: SocketAddr,
}

impl Stage {
    fn start() -> Stage {
        let origin =
            CountingOrigin::start(|_, stream| reply(stream, "Cache-Control: max-age=600\r\n", b"hello"));
        let tier = free();
        let config = format!(
            "[[pop]]\nname = \"fra\"\nlocation = [1.0, 2.0]\nedges = \"192.0.2.1\"\n\
             [[pop.node]]\nname = \"fra-1\"\ntier = \"{tier}\"\n\
             [[site]]\nname = \"site\"\ndomains = \"*\"\norigin = \"{}\"\n",
            origin.url()
        );
        let common = Snapshot::parse_cluster(&config, "overload.toml").snapshot.unwrap();
        let settings = EdgeSettings { node: "fra-1".to_owned(), workers: Some(1), ..EdgeSettings::default() };
        let brake = Brake::default();
        let held = brake.clone();
        let options = Options {
            listen_tier: Some(vec![tier]),
            tier: Some(Authority::default().identity("fra-1")),
            locate: Some(Arc::new(move |_| {
                held.pass();
                Country::UNKNOWN
            })),
            ..options(Clock::system())
        };
        let edge = Edge::start(common.for_node(settings), options).unwrap();
        Stage { edge, brake, tier }
    }

    fn address(&self) -> SocketAddr {
        self.edge.addresses()[0]
    }

    /// Has the worker stand still, with this visitor.
    fn hold_up(&self) -> TcpStream {
        self.brake.set(true);
        let reached = self.brake.reached();
        let visitor = TcpStream::connect(self.address()).unwrap();
        wait_until("the worker stands still", || self.brake.reached() > reached);
        visitor
    }

    /// How often connections were found to have waited too long.
    fn counted(&self) -> u64 {
        let text = self.edge.registry().render();
        let series = "perigee_limits_reached_total{limit=\"connections-waiting\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(series));
        count.map_or(0, |count| count.parse().unwrap())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.brake.set(false);
        self.edge.stop(Duration::ZERO);
    }
}

/// Connections that the kernel makes at once, until it ignores one; so many at most.
fn connect(address: SocketAddr, most: usize) -> Vec<TcpStream> {
    (0..most).map_while(|_| TcpStream::connect_timeout(&address, AT_ONCE).ok()).collect()
}

#[track_caller]
fn is_answered(mut visitor: TcpStream) {
    visitor.set_read_timeout(Some(3 * PATIENCE)).unwrap();
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    visitor.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("hello"), "{text}");
}

/// Whether a socket of this machine waits for an answer from there to its first packet, by the kernel's table.
fn has_unanswered(address: SocketAddr) -> bool {
    let SocketAddr::V4(address) = address else { return false };
    let there = format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        // 02 is SYN_SENT.
        fields.next() == Some(&*there) && fields.next() == Some("02")
    })
}

#[test]
fn who_waits_too_long_for_a_worker_keeps_others_from_waiting_and_all_are_answered() {
    let stage = Stage::start();
    let mut visitors = vec![stage.hold_up()];
    visitors.extend(connect(stage.address(), CROWD));
    assert_eq!(visitors.len(), 1 + CROWD, "before the worker has looked, many may wait");
    std::thread::sleep(HELD);
    assert_eq!(stage.counted(), 0);
    stage.brake.let_one_go();
    wait_until("it has taken the crowd, and stands still again", || stage.brake.reached() == 2);
    assert_eq!(stage.counted(), 1);

    // It cannot keep up, so the kernel holds few more, and ignores the others until there is room.
    visitors.extend(connect(stage.address(), 2 * ALWAYS));
    assert_eq!(visitors.len(), 1 + CROWD + ALWAYS);
    let (address, came) = (stage.address(), Instant::now());
    let ignored = std::thread::spawn(move || TcpStream::connect_timeout(&address, 3 * PATIENCE).unwrap());
    wait_until("a visitor who is ignored", || has_unanswered(address));
    stage.brake.set(false);
    visitors.into_iter().for_each(is_answered);
    let ignored = ignored.join().unwrap();
    assert!(
        came.elapsed() >= Duration::from_millis(900),
        "the system asks again after a second, and no sooner"
    );
    is_answered(ignored);

    // It has caught up: a crowd that comes at once may wait again.
    wait_until("many may wait", || {
        let mut visitors = vec![stage.hold_up()];
        visitors.extend(connect(stage.address(), CROWD));
        let count = visitors.len();
        stage.brake.set(false);
        visitors.into_iter().for_each(is_answered);
        count == 1 + CROWD
    });
}

#[test]
fn other_edges_wait_for_as_long_as_it_takes() {
    let stage = Stage::start();
    let visitor = stage.hold_up();
    let edges = connect(stage.tier, CROWD);
    assert_eq!(edges.len(), CROWD);
    std::thread::sleep(HELD);
    stage.brake.set(false);
    is_answered(visitor);
    wait_until("all are taken", || stage.edge.status().connections >= CROWD);
    assert_eq!(stage.counted(), 0);
}
