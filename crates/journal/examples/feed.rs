//! What following costs, for `bench/feed.sh`: `feed NODES RECORDS`. Hub and nodes over real sockets and mutual TLS in one process.
//!
//! Prints what a node costs in memory, how long one takes to catch up with all the records, how fast new ones are
//! confirmed by all, and how nodes come back after their control has died: the most in any second over the mean of ten.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use journal::feed::{
    Dialer, Down, Hello, Hub, Link, Node, Receipt, Relay, Report, Steering, Told, Vitals, follow,
};
use journal::memory::Memory;
use journal::{Commit, Journal, Mark};
use model::change::{Plan, receipt_signed};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use trust::testing::Authority;
use trust::{Identity, Peer, Role, verify};

const JOURNAL: &str = "bench";

fn main() {
    let numbers: Vec<usize> =
        std::env::args().skip(1).map(|text| text.parse().expect("usage: feed NODES RECORDS")).collect();
    let [nodes, records] = numbers[..] else { panic!("usage: feed NODES RECORDS") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(run(nodes, records));
}

async fn run(nodes: usize, records: usize) {
    let authority = Authority::new("cluster");
    let journal: Arc<dyn Journal> = Arc::new(Memory::new(JOURNAL, 1));
    let identities: Vec<_> = (0..nodes)
        .map(|number| Arc::new(authority.identity(Role::Edge, &format!("edge-{number}"), 1)))
        .collect();
    let keys: Vec<_> = identities.iter().map(|identity| identity.peer().public_key.clone()).collect();
    let check = Box::new(move |_: &Peer, report: &Report| {
        let number: usize = report.node["edge-".len()..].parse().map_err(|_| "a stranger".to_owned())?;
        let receipt = &report.receipt;
        let signed = receipt_signed(
            JOURNAL,
            &report.node,
            receipt.cursor.position,
            &receipt.cursor.digest,
            receipt.at_ms,
        );
        let is_signed = verify(&keys[number], &signed, &receipt.signature);
        is_signed.then_some(()).ok_or_else(|| "it is not signed".to_owned())
    });
    let hub = Hub::of_journal("c1", journal.clone(), Plan::default(), check).await.expect("a hub");
    let control = Arc::new(authority.identity(Role::Control, "c1", 1));
    let server = Server::start(&hub, &control, ([127, 0, 0, 1], 0).into()).await;
    let url = format!("https://{}", server.address);

    // A node that was away while all of it was written.
    reaches(&hub, write(&journal, 1).await).await;
    let before = hub.head();
    let memory = resident();
    let last = write(&journal, records).await;
    reaches(&hub, last).await;
    let per_record = resident().saturating_sub(memory) / records.max(1);
    let begin = Instant::now();
    let task = Follower::start(&identities[0], &url, Some((JOURNAL.into(), before)));
    has_receipts(&hub, 1, last).await;
    let catch_up = begin.elapsed();
    task.abort();

    // All of them, and records one by one.
    let memory = resident();
    let followers: Vec<_> = identities.iter().map(|identity| Follower::start(identity, &url, None)).collect();
    has_receipts(&hub, nodes, last).await;
    let per_node = resident().saturating_sub(memory) / nodes;
    let mut took = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        let position = write(&journal, 1).await;
        has_receipts(&hub, nodes, position).await;
        took.push(begin.elapsed().as_secs_f64() * 1e3);
        sleep(Duration::from_millis(20)).await;
    }
    took.sort_by(f64::total_cmp);

    // Their control dies and is back at once.
    sleep(Duration::from_secs(3)).await;
    let address = server.address;
    server.stop().await;
    let server = Server::start(&hub, &control, address).await;
    let mut seconds = [0; 10];
    for second in &mut seconds {
        let before = server.accepted.load(Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        *second = server.accepted.load(Ordering::Relaxed) - before;
    }
    let position = write(&journal, 1).await;
    has_receipts(&hub, nodes, position).await;
    let peak = seconds.iter().max().copied().unwrap_or_default() as f64 / (nodes as f64 / 10.0);
    println!("nodes that came back in each second: {seconds:?}");
    println!(
        "RESULT nodes={nodes} records={records} catch_up_ms={} record_bytes={per_record} node_bytes={per_node} \
         confirmed_p50_ms={:.1} confirmed_max_ms={:.1} reconnect_peak_over_mean={peak:.2}",
        catch_up.as_millis(),
        took[took.len() / 2],
        took[took.len() - 1],
    );
    followers.iter().for_each(JoinHandle::abort);
    server.stop().await;
}

// --- Nodes ---

/// Takes everything and does nothing but prove it.
struct Follower {
    identity: Arc<Identity>,
    state: Mutex<(Option<String>, Mark)>,
}

impl Follower {
    fn start(identity: &Arc<Identity>, url: &str, from: Option<(String, Mark)>) -> JoinHandle<()> {
        let (journal, mark) = from.map_or((None, Mark::default()), |(journal, mark)| (Some(journal), mark));
        let node = Follower { identity: identity.clone(), state: Mutex::new((journal, mark)) };
        let identity = identity.clone();
        let dialer = Dialer::new(vec![url.to_owned()], move || identity.clone());
        tokio::spawn(follow(Arc::new(node), Arc::new(dialer)))
    }
}

impl Node for Follower {
    fn hello(&self) -> Hello {
        let (journal, cursor) = self.state.lock().clone();
        Hello {
            node: self.identity.peer().name.clone(),
            journal,
            cursor,
            reports_only: false,
            steers: false,
            takes_leases: false,
        }
    }

    fn told(&self, lines: Vec<Down>) -> Told<'_> {
        let mut state = self.state.lock();
        for line in lines {
            match line {
                Down::Welcome(welcome) => state.0 = Some(welcome.journal),
                Down::Restart(restart) => state.1 = restart.at,
                Down::Records(line) => {
                    let records = line.records.into_iter().map(|record| record.into_record());
                    state.1 = records.fold(state.1, |mark, record| mark.then(&record));
                    assert_eq!(state.1.digest, line.digest);
                }
                Down::Beat(_)
                | Down::Steered(_)
                | Down::Counted(_)
                | Down::Leases(_)
                | Down::Refused { .. } => {}
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn reports(&self) -> Vec<Report> {
        let (Some(journal), cursor) = self.state.lock().clone() else { return Vec::new() };
        let node = self.identity.peer().name.clone();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_ms = since.as_millis() as i64;
        let signature =
            self.identity.sign(&receipt_signed(&journal, &node, cursor.position, &cursor.digest, at_ms));
        vec![Report {
            node,
            pop: "pop".into(),
            software: env!("CARGO_PKG_VERSION").into(),
            receipt: Receipt { cursor, at_ms, signature },
            running: None,
            refused: None,
            unwell: None,
            starts: 1,
            holdings: Default::default(),
            vitals: Vitals::default(),
            steering: Steering::default(),
            budgets: Vec::new(),
        }]
    }

    fn link(&self, _: Link<'_>) {}
}

// --- Control ---

/// Serves a hub, and counts who comes by a pipe in front of it.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

impl Server {
    async fn start(hub: &Arc<Hub>, identity: &Arc<Identity>, address: SocketAddr) -> Server {
        let behind = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = behind.local_addr().expect("an address");
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let identity = identity.clone();
        let nobody = Arc::new(Dialer::new(Vec::new(), || unreachable!("there is nobody above")));
        let serving = tokio::spawn(Relay::new(hub.clone(), nobody).serve(behind, move || identity.clone()));
        let count = accepted.clone();
        let piping = tokio::spawn(async move {
            let mut pipes = JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                pipes.spawn(async move {
                    let Ok(mut there) = TcpStream::connect(to).await else { return };
                    let _nodelay = (here.set_nodelay(true), there.set_nodelay(true));
                    let _ended = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                });
            }
        });
        Server { address, accepted, tasks: [serving, piping] }
    }

    async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _cancelled = task.await;
        }
    }
}

async fn write(journal: &Arc<dyn Journal>, count: usize) -> u64 {
    let mut position = 0;
    for number in 0..count {
        let url = format!("https://www.shop.example/images/{number}.jpg");
        let order = serde_json::json!({ "what": { "url": { "site": "shop", "url": url } } });
        let written = serde_json::json!({ "by": "ci", "at_ms": 0, "change": { "purge": [order] } });
        let commit = Commit { record: Some(written.to_string()), ..Commit::default() };
        position = journal.commit(commit).await.expect("a position");
    }
    position
}

async fn reaches(hub: &Hub, position: u64) {
    hub.heads().wait_for(|(head, _)| *head >= position).await.expect("a hub");
}

async fn has_receipts(hub: &Hub, nodes: usize, position: u64) {
    let mut news = hub.news();
    let is_there = |seen: &journal::feed::Seen| seen.report.receipt.cursor.position >= position;
    while hub.nodes().iter().filter(|seen| is_there(seen)).count() < nodes {
        news.changed().await.expect("a hub");
    }
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
}
