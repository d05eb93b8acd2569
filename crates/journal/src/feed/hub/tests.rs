use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::change::{Audience, Candidate, Version, receipt_signed};
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::feed::dial::{Link, Told};
use crate::feed::{Down, Hello, Receipt, Relay, Steering, Vitals, follow};
use crate::memory::Memory;
use crate::{Commit, Digest};
use trust::testing::Authority;
use trust::{Identity, fingerprint, pinned_client_config, text_hash, verify};

const PATIENCE: Duration = Duration::from_secs(20);

/// Ends what it stands for when it is dropped.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves a hub over real sockets. Its URL.
async fn serve(hub: &Arc<Hub>, identity: Identity, above: Arc<Dialer>) -> (String, Running) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (relay, identity) = (Relay::new(hub.clone(), above), Arc::new(identity));
    (url, Running(tokio::spawn(relay.serve(listener, move || identity.clone()))))
}

/// A node that writes down what it is told.
struct Recorder {
    identity: Arc<Identity>,
    state: Mutex<Recorded>,
}

#[derive(Clone, Debug, Default)]
struct Recorded {
    journal: Option<String>,
    cursor: Mark,
    texts: Vec<String>,
    restarts: Vec<String>,
    plan: Plan,
    downs: Vec<String>,
    /// What it was told that nodes report for routers, and how often it has reported itself.
    steered: Vec<(String, f64)>,
    reports: u32,
}

impl Recorder {
    fn new(identity: Identity) -> Arc<Recorder> {
        Arc::new(Recorder { identity: Arc::new(identity), state: Mutex::default() })
    }

    fn follow(self: &Arc<Self>, urls: &[&str]) -> Running {
        let identity = self.identity.clone();
        let urls = urls.iter().map(|url| url.to_string()).collect();
        let dialer = Arc::new(Dialer::new(urls, move || identity.clone()));
        Running(tokio::spawn(follow(self.clone(), dialer)))
    }

    fn recorded(&self) -> Recorded {
        self.state.lock().clone()
    }

    async fn reaches(&self, is_there: impl Fn(&Recorded) -> bool) -> Recorded {
        let deadline = Instant::now() + PATIENCE;
        while !is_there(&self.recorded()) {
            assert!(Instant::now() < deadline, "not reached: {:?}", self.recorded());
            sleep(Duration::from_millis(5)).await;
        }
        self.recorded()
    }
}

impl Node for Recorder {
    fn hello(&self) -> Hello {
        let state = self.recorded();
        let node = self.identity.peer().name.clone();
        Hello {
            node,
            journal: state.journal,
            cursor: state.cursor,
            reports_only: false,
            steers: self.identity.peer().role == Role::Router,
            takes_leases: false,
        }
    }

    fn told(&self, lines: Vec<Down>) -> Told<'_> {
        let mut state = self.state.lock();
        let take = || {
            for line in lines {
                match line {
                    Down::Welcome(welcome) => state.journal = Some(welcome.journal),
                    Down::Restart(restart) => {
                        state.cursor = restart.at;
                        state.plan = restart.plan;
                        state.restarts.push(restart.why);
                    }
                    Down::Records(line) => {
                        assert_eq!(line.after, state.cursor.position, "a gap");
                        for record in line.records.into_iter().map(Line::into_record) {
                            state.cursor = state.cursor.then(&record);
                            state.texts.push(record.text.to_string());
                        }
                        assert_eq!(line.digest, state.cursor.digest);
                    }
                    Down::Steered(line) => {
                        state.steered.push((line.node, line.steering.mbps.unwrap_or_default()));
                    }
                    Down::Beat(_) | Down::Counted(_) | Down::Leases(_) | Down::Refused { .. } => {}
                }
            }
            Ok(())
        };
        let taken = take();
        Box::pin(std::future::ready(taken))
    }

    fn reports(&self) -> Vec<Report> {
        let is_edge = self.identity.peer().role == Role::Edge;
        let state = {
            let mut state = self.state.lock();
            state.reports += 1;
            state.clone()
        };
        let Some(journal) = state.journal else { return Vec::new() };
        let node = self.identity.peer().name.clone();
        let signed = receipt_signed(&journal, &node, state.cursor.position, &state.cursor.digest, 7);
        let receipt = Receipt { cursor: state.cursor, at_ms: 7, signature: self.identity.sign(&signed) };
        let pop = "fra".to_owned();
        vec![Report {
            node,
            pop,
            software: "1".into(),
            receipt,
            running: None,
            refused: None,
            unwell: None,
            starts: 1,
            holdings: Default::default(),
            vitals: Vitals::default(),
            steering: Steering { mbps: is_edge.then_some(f64::from(state.reports)), ..Steering::default() },
            budgets: Vec::new(),
        }]
    }

    fn link(&self, link: Link<'_>) {
        if let Link::Down(_, why) = link {
            self.state.lock().downs.push(why.to_owned());
        }
    }
}

async fn write(journal: &Arc<dyn Journal>, texts: impl IntoIterator<Item = String>) -> u64 {
    let mut position = 0;
    for text in texts {
        let record = Some(text);
        position = journal.commit(Commit { record, ..Commit::default() }).await.unwrap();
    }
    position
}

fn texts(numbers: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("{{\"number\":{number}}}"))
}

async fn has_receipt(hub: &Hub, node: &str, position: u64) -> Receipt {
    let mut news = hub.news();
    let wait = async {
        loop {
            if let Some(receipt) = hub.receipt(node, position) {
                return receipt;
            }
            news.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, wait).await.expect("no receipt")
}

fn any() -> Check {
    Box::new(|_, _| Ok(()))
}

struct Cluster {
    authority: Authority,
    journal: Arc<dyn Journal>,
    hub: Arc<Hub>,
    url: String,
    _serving: Running,
}

impl Cluster {
    async fn new() -> Cluster {
        let authority = Authority::new("cluster");
        let journal: Arc<dyn Journal> = Arc::new(Memory::new("j1", 1));
        let hub = Hub::of_journal("c1", journal.clone(), Plan::default(), any()).await.unwrap();
        let nobody = Arc::new(Dialer::new(Vec::new(), || unreachable!("there is nobody above")));
        let (url, serving) = serve(&hub, authority.identity(Role::Control, "c1", 7), nobody).await;
        Cluster { authority, journal, hub, url, _serving: serving }
    }

    fn edge(&self, name: &str) -> Arc<Recorder> {
        Recorder::new(self.authority.identity(Role::Edge, name, 7))
    }
}

#[tokio::test]
async fn a_node_is_told_everything_in_order_and_its_receipt_is_signed() {
    let cluster = Cluster::new().await;
    write(&cluster.journal, texts(0..10)).await;
    cluster.hub.reaches(10).await;
    let edge = cluster.edge("fra-1");
    let _following = edge.follow(&[&cluster.url]);
    let new = edge.reaches(|state| !state.restarts.is_empty()).await;
    assert_eq!((new.restarts, new.texts), (vec!["the node is new".to_owned()], vec![]), "nothing to undo");
    let position = write(&cluster.journal, texts(10..1_500)).await;
    let receipt = has_receipt(&cluster.hub, "fra-1", position).await;
    assert_eq!(edge.recorded().texts, texts(10..1_500).collect::<Vec<_>>());
    assert_eq!(receipt.cursor, cluster.hub.head());
    let signed =
        receipt_signed("j1", "fra-1", receipt.cursor.position, &receipt.cursor.digest, receipt.at_ms);
    assert!(verify(&edge.identity.peer().public_key, &signed, &receipt.signature));
    assert_eq!(cluster.hub.nodes().len(), 1);
}

#[tokio::test]
async fn a_node_that_was_away_is_told_what_it_has_missed_whether_it_is_held_or_not() {
    let cluster = Cluster::new().await;
    let edge = cluster.edge("fra-1");
    let following = edge.follow(&[&cluster.url]);
    let position = write(&cluster.journal, texts(0..5)).await;
    has_receipt(&cluster.hub, "fra-1", position).await;
    drop(following);
    let position = write(&cluster.journal, texts(5..1_200)).await;
    cluster.hub.reaches(position).await;
    cluster.hub.inner.lock().held.let_go(3);
    let _following = edge.follow(&[&cluster.url]);
    has_receipt(&cluster.hub, "fra-1", position).await;
    let seen = edge.recorded();
    assert_eq!(seen.restarts.len(), 1, "{:?}", seen.restarts);
    assert_eq!(seen.texts.last(), texts(1_199..1_200).last().as_ref());
    assert_eq!(seen.texts[seen.texts.len() - 1_195..], texts(5..1_200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_node_behind_what_is_kept_or_with_another_digest_begins_anew() {
    let cluster = Cluster::new().await;
    let edge = cluster.edge("fra-1");
    let following = edge.follow(&[&cluster.url]);
    let position = write(&cluster.journal, texts(0..50)).await;
    has_receipt(&cluster.hub, "fra-1", position).await;
    drop(following);

    // The journal is trimmed past its cursor meanwhile.
    let position = write(&cluster.journal, texts(50..100)).await;
    cluster.hub.reaches(position).await;
    cluster.hub.inner.lock().held.let_go(0);
    cluster.journal.trim(position).await.unwrap();
    let following = edge.follow(&[&cluster.url]);
    let seen = edge.reaches(|state| state.restarts.len() == 2).await;
    assert!(seen.restarts[1].contains("and the journal is kept from"), "{:?}", seen.restarts);
    assert_eq!(seen.cursor, cluster.hub.head());
    drop(following);

    // What it has read is not what the journal holds.
    edge.state.lock().cursor.digest = Digest([7; 16]);
    let following = edge.follow(&[&cluster.url]);
    let seen = edge.reaches(|state| state.restarts.len() == 3).await;
    assert!(seen.restarts[2].contains("digest"), "{:?}", seen.restarts);
    drop(following);

    // It has followed another journal.
    edge.state.lock().journal = Some("other".into());
    let _following = edge.follow(&[&cluster.url]);
    let seen = edge.reaches(|state| state.restarts.len() == 4).await;
    assert!(seen.restarts[3].contains("the journal other"), "{:?}", seen.restarts);
}

#[tokio::test]
async fn a_plan_is_known_to_whoever_begins_after_it() {
    let cluster = Cluster::new().await;
    let version = Version { number: 3, hash: "ab".into(), signature: String::new() };
    let plan = Plan {
        stable: None,
        candidate: Some(Candidate {
            version,
            to: Audience::Nodes(vec!["fra-1".into()]),
            waiting: Vec::new(),
        }),
    };
    let written = Written { by: "a".into(), at_ms: 1, change: Change::Plan(plan.clone()) };
    let position = write(&cluster.journal, [serde_json::to_string(&written).unwrap()]).await;
    cluster.hub.reaches(position).await;
    let edge = cluster.edge("fra-1");
    let _following = edge.follow(&[&cluster.url]);
    let seen = edge.reaches(|state| !state.restarts.is_empty()).await;
    assert_eq!(seen.plan, plan);
}

#[tokio::test]
async fn nodes_behind_a_relay_are_told_and_heard_as_if_there_were_none() {
    let cluster = Cluster::new().await;
    let identity = Arc::new(cluster.authority.identity(Role::Relay, "eu", 7));
    let dialer = Arc::new(Dialer::new(vec![cluster.url.clone()], move || identity.clone()));
    let (hub, node) = Hub::of_relay("eu", dialer.clone(), any());
    let following = Running(tokio::spawn(follow(node.clone(), dialer.clone())));
    let identity = cluster.authority.identity(Role::Relay, "eu", 7);
    let (url, _serving) = serve(&hub, identity, dialer.clone()).await;
    let edges = ["fra-1", "fra-2"].map(|name| cluster.edge(name));
    let following_relay = edges.clone().map(|edge| edge.follow(&[&url]));
    for edge in &edges {
        edge.reaches(|state| !state.restarts.is_empty()).await;
    }
    let position = write(&cluster.journal, texts(0..20)).await;
    for edge in &edges {
        has_receipt(&cluster.hub, &edge.identity.peer().name, position).await;
        assert_eq!(edge.recorded().texts, texts(0..20).collect::<Vec<_>>());
    }

    // The relay is cut off, and one of its nodes too: both come back to everything that they have missed.
    drop((following, following_relay));
    let position = write(&cluster.journal, texts(20..40)).await;
    let _following = Running(tokio::spawn(follow(node, dialer)));
    hub.reaches(position).await;
    hub.inner.lock().held.let_go(2);
    let _following_relay = edges.clone().map(|edge| edge.follow(&[&url]));
    for edge in &edges {
        has_receipt(&cluster.hub, &edge.identity.peer().name, position).await;
        let seen = edge.recorded();
        assert_eq!(seen.texts, texts(0..40).collect::<Vec<_>>());
        assert_eq!(seen.restarts.len(), 1, "{:?}", seen.restarts);
    }
}

#[tokio::test]
async fn a_router_behind_a_relay_hears_all_nodes_and_each_report_once() {
    let cluster = Cluster::new().await;
    let identity = Arc::new(cluster.authority.identity(Role::Relay, "eu", 7));
    let dialer = Arc::new(Dialer::new(vec![cluster.url.clone()], move || identity.clone()));
    let (hub, node) = Hub::of_relay("eu", dialer.clone(), any());
    let _following = Running(tokio::spawn(follow(node, dialer.clone())));
    let identity = cluster.authority.identity(Role::Relay, "eu", 7);
    let (url, _serving) = serve(&hub, identity, dialer).await;
    let (near, far) = (cluster.edge("near"), cluster.edge("far"));
    let _edges = [near.follow(&[&url]), far.follow(&[&cluster.url])];
    near.reaches(|state| !state.restarts.is_empty()).await;
    let router = Recorder::new(cluster.authority.identity(Role::Router, "ns1", 7));
    let _router = router.follow(&[&url]);
    // The relay follows control already, and asks it for more now.
    let of = |state: &Recorded, node: &str| -> Vec<f64> {
        state.steered.iter().filter(|(from, _)| from == node).map(|(_, number)| *number).collect()
    };
    let heard = router.reaches(|state| of(state, "far").len() > 2 && of(state, "near").len() > 4).await;
    for node in ["near", "far"] {
        let numbers = of(&heard, node);
        assert!(numbers.is_sorted_by(|a, b| a < b), "{node}: {numbers:?}");
    }
}

#[tokio::test]
async fn controls_tell_each_other_what_their_nodes_report() {
    let cluster = Cluster::new().await;
    let other = Hub::of_journal("c2", cluster.journal.clone(), Plan::default(), any()).await.unwrap();
    let identity = Arc::new(cluster.authority.identity(Role::Control, "c2", 7));
    let dialer = Arc::new(Dialer::new(vec![cluster.url.clone()], move || identity.clone()));
    let _reporting = Running(tokio::spawn(follow(other.reporter(), dialer.clone())));
    timeout(PATIENCE, cluster.hub.newcomer())
        .await
        .expect("it does not notice that there is another control");
    let (url, _serving) = serve(&other, cluster.authority.identity(Role::Control, "c2", 7), dialer).await;
    let edge = cluster.edge("fra-1");
    let _following = edge.follow(&[&url]);
    edge.reaches(|state| !state.restarts.is_empty()).await;
    let position = write(&cluster.journal, texts(0..3)).await;
    has_receipt(&cluster.hub, "fra-1", position).await;
}

#[tokio::test]
async fn a_node_cannot_take_anothers_name_and_is_told_so() {
    struct Impostor(Arc<Recorder>);
    impl Node for Impostor {
        fn hello(&self) -> Hello {
            Hello { node: "fra-2".into(), ..self.0.hello() }
        }
        fn told(&self, lines: Vec<Down>) -> Told<'_> {
            self.0.told(lines)
        }
        fn reports(&self) -> Vec<Report> {
            Vec::new()
        }
        fn link(&self, link: Link<'_>) {
            self.0.link(link);
        }
    }
    let cluster = Cluster::new().await;
    let edge = cluster.edge("fra-1");
    let identity = edge.identity.clone();
    let dialer = Arc::new(Dialer::new(vec![cluster.url.clone()], move || identity.clone()));
    let _following = Running(tokio::spawn(follow(Arc::new(Impostor(edge.clone())), dialer)));
    let seen = edge.reaches(|state| !state.downs.is_empty()).await;
    assert!(seen.downs[0].contains("\"fra-2\"") && seen.downs[0].contains("refuses"), "{:?}", seen.downs);
    assert!(seen.restarts.is_empty() && cluster.hub.nodes().is_empty());
}

#[tokio::test]
async fn strangers_at_a_relay_get_a_word_and_hold_few_of_its_places_and_none_for_long() {
    let cluster = Cluster::new().await;
    let authority = fingerprint(cluster.edge("fra-1").identity.authority());
    let joining = Dialer::pinned(vec![cluster.url.clone()], authority.clone());
    let (status, why) = joining.ask(http::Method::POST, "/v1/enroll", None, 1 << 10).await.unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(String::from_utf8_lossy(&why).contains("ask a control"), "{why:?}");

    let address = cluster.url.strip_prefix("https://").unwrap();
    let tls = TlsConnector::from(pinned_client_config(&authority, &[b"h2"]).unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let mut quiet = tls.connect(ServerName::try_from("relay").unwrap(), stream).await.unwrap();
    let mut said = Vec::new();
    let ends = quiet.read_to_end(&mut said);
    let _ended = timeout(Duration::from_secs(10), ends).await.expect("it is kept").ok();

    let mut strangers = Vec::new();
    let mut is_full = async || {
        while strangers.len() < 400 {
            let mut stranger = TcpStream::connect(address).await.unwrap();
            // Who is let in is waited for to begin a handshake.
            if timeout(Duration::from_millis(5), stranger.read_u8()).await.is_ok() {
                return true;
            }
            strangers.push(stranger);
        }
        false
    };
    assert!(timeout(Duration::from_secs(4), is_full()).await.unwrap(), "one address takes all the room");
    drop(strangers);
    let edge = cluster.edge("fra-1");
    let _following = edge.follow(&[&cluster.url]);
    edge.reaches(|state| state.journal.is_some()).await;
}

#[tokio::test]
async fn a_dialer_asks_the_next_control_when_one_is_away() {
    let cluster = Cluster::new().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let identity = cluster.edge("fra-1").identity.clone();
    let urls = vec![format!("https://{gone}"), cluster.url.clone()];
    let dialer = Dialer::new(urls, move || identity.clone());
    for _ in 0..4 {
        let asked =
            dialer.ask(http::Method::GET, "/v1/journal?after=0&limit=5", None, 1 << 20).await.unwrap();
        assert_eq!(asked.0, StatusCode::OK);
    }
    let nobody = Dialer::new(vec![format!("https://{gone}")], {
        let identity = cluster.edge("fra-1").identity.clone();
        move || identity.clone()
    });
    let why = nobody.get("/v1/journal?after=0&limit=5", 1 << 20).await.unwrap_err();
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn a_dialer_has_so_many_questions_under_way_and_the_others_wait() {
    let cluster = Cluster::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let identity = cluster.edge("fra-1").identity.clone();
    let urls = vec![format!("https://{}", listener.local_addr().unwrap())];
    let dialer = Arc::new(Dialer::new(urls, move || identity.clone()));
    let asking: Vec<_> = (0..40)
        .map(|_| {
            let dialer = dialer.clone();
            Running(tokio::spawn(async move { drop(dialer.get("/v1/journal", 1).await) }))
        })
        .collect();
    let mut open = Vec::new();
    while let Ok(accepted) = timeout(Duration::from_millis(500), listener.accept()).await {
        open.push(accepted.unwrap());
    }
    assert_eq!(open.len(), 16);
    drop(open);
    timeout(PATIENCE, listener.accept()).await.expect("nobody has its turn").unwrap();
    drop(asking);
}

#[tokio::test]
async fn a_relay_fetches_a_text_once_for_all_who_ask() {
    let cluster = Cluster::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let above = format!("https://{}", listener.local_addr().unwrap());
    let tls = cluster.authority.identity(Role::Control, "c2", 7).server_config().unwrap();
    let (text, fetched) = (Bytes::from("all nodes want it"), Arc::new(AtomicUsize::new(0)));
    let path = format!("/v1/blobs/{}", text_hash(&text));
    let (content, count) = (text.clone(), fetched.clone());
    let _above = Running(tokio::spawn(async move {
        loop {
            let stream = TlsAcceptor::from(tls.clone()).accept(listener.accept().await.unwrap().0).await;
            let (content, count) = (content.clone(), count.clone());
            let service = service_fn(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Ok::<_, Infallible>(http::Response::new(Full::new(content.clone()))))
            });
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream.unwrap()), service);
            tokio::spawn(connection);
        }
    }));
    let dialer = |url: &str, identity: Identity| {
        let identity = Arc::new(identity);
        Arc::new(Dialer::new(vec![url.to_owned()], move || identity.clone()))
    };
    let relay = || cluster.authority.identity(Role::Relay, "r1", 7);
    let (url, _serving) = serve(&cluster.hub, relay(), dialer(&above, relay())).await;
    let node = dialer(&url, cluster.authority.identity(Role::Edge, "fra-1", 7));
    let mut asking = JoinSet::new();
    for _ in 0..10 {
        let (node, path) = (node.clone(), path.clone());
        asking.spawn(async move { node.get(&path, 1 << 10).await });
    }
    for got in asking.join_all().await {
        assert_eq!(got, Ok(text.clone()));
    }
    assert_eq!(fetched.load(Ordering::Relaxed), 1);
}

impl Hub {
    async fn reaches(&self, position: u64) {
        let mut heads = self.heads();
        let reached = heads.wait_for(|(head, _)| *head >= position);
        timeout(PATIENCE, reached).await.expect("the hub does not follow").unwrap();
    }
}

/// A journal whose engine can be exchanged for another one of the same name.
struct PutBack(Mutex<Arc<dyn Journal>>);

impl PutBack {
    fn now(&self) -> Arc<dyn Journal> {
        self.0.lock().clone()
    }
}

impl Journal for PutBack {
    fn id(&self) -> &str {
        "j1"
    }

    fn commit(&self, commit: Commit) -> Work<'_, u64> {
        Box::pin(async move { self.now().commit(commit).await })
    }

    fn read(&self, after: u64, limit: usize) -> Work<'_, Page> {
        Box::pin(async move { self.now().read(after, limit).await })
    }

    fn changed(&self, after: u64) -> Work<'_, ()> {
        Box::pin(async move { self.now().changed(after).await })
    }

    fn cell(&self, name: &str) -> Work<'_, Option<crate::Cell>> {
        let name = name.to_owned();
        Box::pin(async move { self.now().cell(&name).await })
    }

    fn cells(&self, prefix: &str) -> Work<'_, Vec<crate::Cell>> {
        let prefix = prefix.to_owned();
        Box::pin(async move { self.now().cells(&prefix).await })
    }

    fn trim(&self, through: u64) -> Work<'_, ()> {
        Box::pin(async move { self.now().trim(through).await })
    }
}

/// An engine that is put back to what it was earlier gives positions a second time: what was proven by the first ones is worth
/// nothing.
#[tokio::test]
async fn a_journal_that_is_put_back_is_read_anew_and_so_is_it_by_nodes() {
    for written_again in [0, 3, 5, 9] {
        let authority = Authority::new("cluster");
        let first: Arc<dyn Journal> = Arc::new(Memory::new("j1", 1));
        let engine = Arc::new(PutBack(Mutex::new(first)));
        let journal: Arc<dyn Journal> = engine.clone();
        let hub = Hub::of_journal("c1", journal.clone(), Plan::default(), any()).await.unwrap();
        let nobody = Arc::new(Dialer::new(Vec::new(), || unreachable!("there is nobody above")));
        let (url, _serving) = serve(&hub, authority.identity(Role::Control, "c1", 7), nobody).await;
        let edge = Recorder::new(authority.identity(Role::Edge, "fra-1", 7));
        let _following = edge.follow(&[&url]);
        edge.reaches(|state| !state.restarts.is_empty()).await;
        write(&journal, texts(0..10)).await;
        has_receipt(&hub, "fra-1", 10).await;
        let held = hub.held(7, 2).unwrap();
        assert_eq!(held.iter().map(|record| record.position).collect::<Vec<_>>(), [8, 9]);
        assert_eq!(hub.held(10, 2), Some(Vec::new()));

        let earlier: Arc<dyn Journal> = Arc::new(Memory::new("j1", 1));
        let head = write(&earlier, texts(0..5).chain(texts(100..100 + written_again))).await;
        *engine.0.lock() = earlier;
        let state = edge.reaches(|state| state.restarts.len() == 2).await;
        hub.reaches(head).await;
        assert_eq!(hub.head().position, head);
        assert!(!state.restarts[1].is_empty());
        assert!(hub.receipt("fra-1", 10).is_none(), "{written_again}: proven by what is not there any more");
        let position = write(&journal, texts(200..210)).await;
        assert_eq!(has_receipt(&hub, "fra-1", position).await.cursor, hub.head());
    }
}

/// What waits in the socket of a process that was stopped is not what control says now.
#[test]
fn a_node_that_was_stopped_dials_anew_instead_of_believing_what_has_waited() {
    struct Stopped(Arc<Recorder>, Mutex<bool>);
    impl Node for Stopped {
        fn hello(&self) -> Hello {
            self.0.hello()
        }
        fn told(&self, lines: Vec<Down>) -> Told<'_> {
            let is_first = lines.iter().any(|line| matches!(line, Down::Records(_)))
                && !std::mem::replace(&mut *self.1.lock(), true);
            if is_first {
                // The whole thread, and with it this runtime.
                std::thread::sleep(SILENCE + Duration::from_millis(500));
            }
            self.0.told(lines)
        }
        fn reports(&self) -> Vec<Report> {
            self.0.reports()
        }
        fn link(&self, link: Link<'_>) {
            self.0.link(link);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cluster = runtime.block_on(Cluster::new());
    let edge = cluster.edge("fra-1");
    let (identity, url) = (edge.identity.clone(), cluster.url.clone());
    let node = Arc::new(Stopped(edge.clone(), Mutex::new(false)));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let stopped = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dialer = Arc::new(Dialer::new(vec![url], move || identity.clone()));
        runtime.block_on(async {
            tokio::select! {
                () = follow(node, dialer) => {}
                _ = ended => {}
            }
        });
    });
    runtime.block_on(async {
        edge.reaches(|state| !state.restarts.is_empty()).await;
        let position = write(&cluster.journal, texts(0..3)).await;
        // Whichever it notices first: that time has passed, or that something is there to be read.
        let stopped = |why: &String| {
            why.contains("this process has read nothing for") || why.contains("nothing was heard for")
        };
        edge.reaches(|state| state.downs.iter().any(stopped)).await;
        has_receipt(&cluster.hub, "fra-1", position).await;
    });
    end.send(()).unwrap();
    stopped.join().unwrap();
}

// --- Statistics ---

/// Writes statistics down, as control does.
#[derive(Default)]
struct Ledger(Mutex<Vec<(String, u64, String)>>);

impl Counting for Ledger {
    fn count(&self, peer: &Peer, line: Arc<Statistics>, confirm: Confirm) -> Result<(), String> {
        self.0.lock().push((line.node.clone(), line.sequence, peer.name.clone()));
        let _full = confirm.try_send(crate::feed::Counted::of(&line));
        Ok(())
    }
}

/// A node that has statistics to tell.
struct Teller {
    recorder: Arc<Recorder>,
    outbox: Outbox,
}

impl Node for Teller {
    fn hello(&self) -> Hello {
        self.recorder.hello()
    }

    fn told(&self, lines: Vec<Down>) -> Told<'_> {
        self.recorder.told(lines)
    }

    fn reports(&self) -> Vec<Report> {
        Vec::new()
    }

    fn outbox(&self) -> Option<&Outbox> {
        Some(&self.outbox)
    }

    fn link(&self, _: Link<'_>) {}
}

#[tokio::test]
async fn statistics_reach_control_through_a_relay_and_are_kept_until_they_have() {
    let mut cluster = Cluster::new().await;
    let ledger = Arc::new(Ledger::default());
    cluster.hub.count_by(ledger.clone());
    let identity = Arc::new(cluster.authority.identity(Role::Relay, "eu", 7));
    let above = Arc::new(Dialer::new(vec![cluster.url.clone()], move || identity.clone()));
    let (relay, forward) = Hub::of_relay("eu", above.clone(), any());
    let _following = Running(tokio::spawn(follow(forward, above.clone())));
    let identity = cluster.authority.identity(Role::Relay, "eu", 7);
    let (relay_url, _relaying) = serve(&relay, identity, above).await;

    let recorder = cluster.edge("fra-1");
    let teller = Arc::new(Teller { recorder: recorder.clone(), outbox: Outbox::new(Patience::NODE) });
    let line = |node: &str, sequence| {
        let (node, report) = (node.to_owned(), "cmVwb3J0".to_owned());
        Arc::new(Statistics { node, epoch: 1, sequence, lost: 0, report })
    };
    // What was counted before there was anybody to tell, and what a node may not say.
    teller.outbox.push(line("fra-1", 1), None);
    teller.outbox.push(line("other", 1), None);
    teller.outbox.push(line("fra-1", 2), None);
    let identity = recorder.identity.clone();
    let dialer = Arc::new(Dialer::new(vec![relay_url], move || identity.clone()));
    let _telling = Running(tokio::spawn(follow(teller.clone(), dialer)));
    let waits_for = async |count: usize| {
        let deadline = Instant::now() + PATIENCE;
        while teller.outbox.len() > count {
            assert!(Instant::now() < deadline, "{} are not confirmed", teller.outbox.len());
            sleep(Duration::from_millis(5)).await;
        }
    };
    waits_for(1).await;
    let by_relay = |sequence| ("fra-1".to_owned(), sequence, "eu".to_owned());
    assert_eq!(*ledger.0.lock(), [by_relay(1), by_relay(2)]);
    assert_eq!(teller.outbox.lost(), 0);

    // Of what control did not confirm, the node keeps all.
    cluster._serving = Running(tokio::spawn(std::future::pending()));
    teller.outbox.push(line("fra-1", 3), None);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(teller.outbox.len(), 2);
}
