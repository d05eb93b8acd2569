//! A cluster with an origin that has a budget, as processes: two edges that follow control, one behind a relay, and an origin that
//! counts.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use world::cluster::{Cluster, Shape};

const RATE: u64 = 12;
const IN_FLIGHT: usize = 6;

/// An origin that takes a while for each answer.
#[derive(Default)]
struct Origin {
    asked: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
}

impl Origin {
    fn start() -> (Arc<Origin>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Arc::new(Origin::default());
        let serving = origin.clone();
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let origin = serving.clone();
                // It ends when the edge closes.
                spawn(move || origin.serve(stream));
            }
        });
        (origin, address)
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        loop {
            while !lines.next()?.ok()?.is_empty() {}
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.in_flight_max.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_millis(150));
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\n\r\nok";
            (&stream).write_all(answer).ok()?;
        }
    }
}

/// The answer to one request on a connection of its own.
fn get(edge: SocketAddr, host: &str, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(edge).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// What an edge may ask: requests per second.
fn allowed(admin: SocketAddr) -> u64 {
    let text = get(admin, "localhost", "/metrics").unwrap_or_default();
    let of_rate = |line: &&str| {
        line.starts_with("perigee_origin_budget_allowed{") && line.contains("of=\"requests_per_second\"")
    };
    let line = text.lines().find(of_rate).unwrap_or_default();
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

#[test]
fn the_nodes_of_a_cluster_share_a_budget_and_keep_a_floor_without_control() {
    let (origin, address) = Origin::start();
    let shape = Shape { etcd: 0, controls: 1, edges: 2, relayed: 1, disks: false };
    let mut cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_perigee")), shape);
    let begun = Instant::now();
    cluster.apply(&format!(
        "[[site]]\nname = \"shop\"\ndomains = [\"*\"]\norigin = \"http://{address}\"\norigin_options = {{ budget = {{ \
         requests_per_second = {RATE}, in_flight = {IN_FLIGHT}, reserve_percent = 50, nodes = 3, queue = \"1s\" }} }}\n"
    ));
    let edges: Vec<(SocketAddr, SocketAddr)> =
        cluster.edges().iter().map(|edge| (edge.address, edge.admin.unwrap())).collect();
    let each = |expected: &dyn Fn(u64) -> bool| edges.iter().all(|(_, admin)| expected(allowed(*admin)));
    let sum = || edges.iter().map(|(_, admin)| allowed(*admin)).sum::<u64>();
    cluster.wait("each edge to have its floor", || each(&|allowed| allowed >= 2));

    // Far more is wanted than there is, of all of them.
    let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 3]));
    let visitors: Vec<_> = (0..24)
        .map(|visitor| {
            let (is_over, served) = (is_over.clone(), served.clone());
            let edge = edges[visitor % 3].0;
            spawn(move || {
                for number in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer =
                        get(edge, "www.example", &format!("/{visitor}/{number}")).unwrap_or_default();
                    match answer.get(9..12) {
                        Some("200") => drop(served[visitor % 3].fetch_add(1, Ordering::SeqCst)),
                        Some("503") => assert!(answer.contains("detail=origin-budget"), "{answer}"),
                        _ => panic!("{answer}"),
                    }
                }
            })
        })
        .collect();
    let served_each = |count: usize| served.iter().all(|served| served.load(Ordering::SeqCst) >= count);
    cluster.wait("all of it to be leased, to each alike", || each(&|allowed| allowed == RATE / 3));
    cluster.wait("each to be served", || served_each(20));

    cluster.controls_mut()[0].freeze();
    cluster.wait("each edge to have nothing but its floor", || each(&|allowed| allowed == 2));
    let before: Vec<usize> = served.iter().map(|served| served.load(Ordering::SeqCst)).collect();
    cluster.wait("each to be served from its floor", || {
        served.iter().zip(&before).all(|(served, before)| served.load(Ordering::SeqCst) >= before + 6)
    });
    assert_eq!(sum(), 6);

    cluster.controls_mut()[0].thaw();
    cluster.wait("all of it to be leased again", || sum() == RATE);
    is_over.store(true, Ordering::SeqCst);
    visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
    let in_flight_max = origin.in_flight_max.load(Ordering::SeqCst);
    assert!(in_flight_max <= IN_FLIGHT, "{in_flight_max} in flight");
    let (asked, secs) = (origin.asked.load(Ordering::SeqCst) as u64, begun.elapsed().as_secs() + 1);
    assert!(asked <= RATE * (secs + 1), "{asked} requests in {secs} s");
    assert!(asked >= 60);
}
