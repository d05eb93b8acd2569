//! An edge as a node of a cluster, from outside: the built binary against a control that is played here, on the journal's own hub.
//! Each test has its own directory and ports that the system chooses.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use journal::feed::{Hub, Report};
use journal::memory::Memory;
use journal::{Commit, Journal};
use model::change::{Audience, Candidate, Change, Order, Plan, Version, What, Written, receipt_signed};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use trust::{EnrolmentToken, Identity, Peer, Role, fingerprint, text_hash, verify};
use world::edges::read_head;
use world::scratch::Scratch;

/// Longest wait for a state that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Purges in one record.
const TOGETHER: usize = 500;

#[track_caller]
fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

// --- The origin ---

/// Answers with the generation of what it has, which tests raise; remembers who asked for what, and with which condition.
struct Origin {
    address: SocketAddr,
    generation: Arc<AtomicU32>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Origin { address, generation: Arc::default(), seen: Arc::default() };
        let (generation, seen) = (origin.generation.clone(), origin.seen.clone());
        // It ends with the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (generation, seen) = (generation.clone(), seen.clone());
                thread::spawn(move || serve(stream.unwrap(), &generation, &seen));
            }
        });
        origin
    }

    fn asked(&self, path: &str) -> usize {
        let prefix = format!("GET {path} ");
        self.seen.lock().unwrap().iter().filter(|head| head.starts_with(&prefix)).count()
    }
}

fn serve(mut stream: TcpStream, generation: &AtomicU32, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Ok(head) = read_head(&mut reader) {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let generation = generation.load(Ordering::SeqCst);
        let etag = format!("\"{generation}\"");
        let is_same = head.to_ascii_lowercase().contains(&format!("if-none-match: {etag}"));
        seen.lock().unwrap().push(head);
        let answer = match is_same {
            true => {
                format!("HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\nCache-Control: max-age=100000\r\n\r\n")
            }
            false => {
                let body = format!("{path} {generation}");
                let length = body.len();
                format!(
                    "HTTP/1.1 200 OK\r\nETag: {etag}\r\nCache-Control: max-age=100000\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            }
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

// --- Control ---

/// A control: an authority, a journal, and a server that can go away and come back.
struct Control {
    runtime: Runtime,
    told: Arc<Told>,
    port: u16,
    serving: Option<tokio::task::JoinHandle<()>>,
    number: u64,
}

/// What its server answers from.
struct Told {
    issuer: Issuer<'static, KeyPair>,
    authority_pem: String,
    authority_key: aws_key::Key,
    identity: Identity,
    journal: Arc<dyn Journal>,
    hub: Mutex<Arc<Hub>>,
    blobs: Mutex<HashMap<String, Bytes>>,
    /// Seconds for which it makes certificates of nodes.
    life_secs: AtomicUsize,
    /// Seconds by which its clock is behind the nodes'.
    behind_secs: AtomicUsize,
    renewals: AtomicUsize,
    /// Its certificates of nodes say no PoP.
    is_older: AtomicBool,
    /// Where the node that came last said that it stands, and what it is.
    said: Mutex<(String, String)>,
}

/// The authority's key for signatures.
mod aws_key {
    use super::{KeyPair, Peer, Role};

    pub(super) struct Key(String);

    impl Key {
        pub(super) fn of(key: &KeyPair) -> Self {
            Key(key.serialize_pem())
        }

        /// As an identity of its own, which can sign.
        pub(super) fn signer(&self) -> trust::Identity {
            let key = KeyPair::from_pem(&self.0).unwrap();
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names =
                vec![rcgen::SanType::URI(Peer::uri(Role::Control, "authority").try_into().unwrap())];
            let certificate = params.self_signed(&key).unwrap().pem();
            trust::Identity::from_pem(&certificate, &certificate, &self.0).unwrap()
        }
    }
}

fn certificate(
    issuer: &Issuer<'static, KeyPair>,
    uris: &[String],
    key: &impl rcgen::PublicKeyData,
    begin: SystemTime,
    secs: u64,
) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
    params.not_before = begin.into();
    params.not_after = (begin + Duration::from_secs(secs)).into();
    params.signed_by(key, issuer).unwrap().pem()
}

impl Control {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "a cluster");
        let authority_pem = params.self_signed(&key).unwrap().pem();
        let authority_key = aws_key::Key::of(&key);
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let chain =
            certificate(&issuer, &[Peer::uri(Role::Control, "c1")], &own, SystemTime::now(), 1_000_000);
        let identity = Identity::from_pem(&authority_pem, &chain, &own.serialize_pem()).unwrap();
        let journal: Arc<dyn Journal> = Arc::new(Memory::new("j1", 1));
        let hub = runtime.block_on(hub_of(&journal));
        let told = Told {
            issuer,
            authority_pem,
            authority_key,
            identity,
            journal,
            hub: Mutex::new(hub),
            blobs: Mutex::default(),
            life_secs: AtomicUsize::new(100_000),
            behind_secs: AtomicUsize::new(0),
            renewals: AtomicUsize::new(0),
            is_older: AtomicBool::new(false),
            said: Mutex::default(),
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut control = Control { runtime, told: Arc::new(told), port, serving: None, number: 0 };
        control.come_back();
        control
    }

    /// Nobody reaches it any more.
    fn go_away(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = self.runtime.block_on(serving);
        }
    }

    fn come_back(&mut self) {
        let told = self.told.clone();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let listener = self.runtime.block_on(async {
            tokio::net::TcpSocket::new_v4().and_then(|socket| {
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                socket.listen(64)
            })
        });
        let listener = listener.unwrap();
        let acceptor = TlsAcceptor::from(told.identity.server_config().unwrap());
        self.serving = Some(self.runtime.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), told.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let shown = stream.get_ref().1.peer_certificates();
                    let peer = shown.map(|shown| Peer::of(&shown[0]).unwrap());
                    let service = service_fn(move |request| {
                        let (told, peer) = (told.clone(), peer.clone());
                        async move { Ok::<_, Infallible>(answer(&told, peer, request).await) }
                    });
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }));
    }

    /// As a control that was started anew: it knows what the journal still holds.
    fn start_anew(&mut self, plan: Plan) {
        let hub = self.runtime.block_on(Hub::of_journal("c1", self.told.journal.clone(), plan, check()));
        *self.told.hub.lock().unwrap() = hub.unwrap();
    }

    fn hub(&self) -> Arc<Hub> {
        self.told.hub.lock().unwrap().clone()
    }

    fn write(&self, change: Change) -> u64 {
        let written = Written { by: "test".into(), at_ms: 0, change };
        let record = Some(serde_json::to_string(&written).unwrap());
        self.runtime.block_on(self.told.journal.commit(Commit { record, ..Commit::default() })).unwrap()
    }

    fn purge(&self, paths: &[String]) -> u64 {
        let order = |path: &String| Order {
            what: What::Url { site: "site".into(), url: format!("http://site.example{path}") },
            soft: false,
        };
        let mut position = 0;
        for paths in paths.chunks(TOGETHER) {
            position = self.write(Change::Purge(paths.iter().map(order).collect()));
        }
        position
    }

    /// Has the configuration run by all.
    fn apply(&mut self, text: &str) -> (u64, Version) {
        let version = self.version(text);
        (self.plan(&version), version)
    }

    /// The next configuration, signed.
    fn version(&mut self, text: &str) -> Version {
        self.number += 1;
        let hash = text_hash(text.as_bytes());
        let signer = self.told.authority_key.signer();
        let signature = signer.sign(&Version::signed(self.number, &hash));
        let version = Version { number: self.number, hash, signature };
        self.told.blobs.lock().unwrap().insert(version.hash.clone(), Bytes::from(text.to_owned()));
        version
    }

    fn plan(&self, version: &Version) -> u64 {
        self.write(Change::Plan(Plan { stable: Some(version.clone()), candidate: None }))
    }

    fn token(&self) -> String {
        let token = EnrolmentToken {
            controls: vec![self.url()],
            authority: fingerprint(self.told.identity.authority()),
            id: "t1".into(),
            secret: "s3cret".into(),
        };
        token.to_string()
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The node's report, once it has acknowledged a position.
    #[track_caller]
    fn acknowledged(&self, position: u64) -> Report {
        let hub = self.hub();
        wait("the receipt", || hub.receipt("fra-1", position).is_some());
        hub.node("fra-1").unwrap().report
    }

    #[track_caller]
    fn reported(&self, what: &str, is_so: impl Fn(&Report) -> bool) -> Report {
        let hub = self.hub();
        wait(what, || hub.node("fra-1").is_some_and(|seen| is_so(&seen.report)));
        hub.node("fra-1").unwrap().report
    }
}

async fn hub_of(journal: &Arc<dyn Journal>) -> Arc<Hub> {
    Hub::of_journal("c1", journal.clone(), Plan::default(), check()).await.unwrap()
}

fn check() -> journal::feed::Check {
    Box::new(|peer, report| {
        let receipt = &report.receipt;
        let signed = receipt_signed(
            "j1",
            &report.node,
            receipt.cursor.position,
            &receipt.cursor.digest,
            receipt.at_ms,
        );
        match verify(&peer.public_key, &signed, &receipt.signature) {
            true => Ok(()),
            false => Err("the receipt is not signed by the node".to_owned()),
        }
    })
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(told: &Told, peer: Option<Peer>, request: Request<Incoming>) -> Response<Body> {
    let say = |status: u16, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
        *response.status_mut() = status.try_into().unwrap();
        response
    };
    let path = request.uri().path().to_owned();
    match (&*path, peer) {
        ("/v1/feed", Some(peer)) => {
            let hub = told.hub.lock().unwrap().clone();
            Response::new(hub.serve(peer, request.into_body()).boxed_unsync())
        }
        ("/v1/enroll", None) | ("/v1/renew", Some(_)) => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            if path == "/v1/enroll" && body["secret"] != "s3cret" {
                return say(
                    401,
                    r#"{"error":"the cluster has no such enrolment token","next":"ask for another"}"#.into(),
                );
            }
            if let (Some(pop), Some(role)) = (body["pop"].as_str(), body["role"].as_str()) {
                *told.said.lock().unwrap() = (pop.to_owned(), role.to_owned());
            }
            if path == "/v1/renew" {
                told.renewals.fetch_add(1, Ordering::SeqCst);
            }
            let request =
                CertificateSigningRequestParams::from_pem(body["request"].as_str().unwrap()).unwrap();
            let [secs, behind] =
                [&told.life_secs, &told.behind_secs].map(|secs| secs.load(Ordering::SeqCst) as u64);
            let begin = SystemTime::now() - Duration::from_secs(behind);
            let mut uris =
                vec![Peer::uri(Role::Edge, body["name"].as_str().unwrap_or("fra-1")), Peer::pop_uri("fra")];
            if told.is_older.load(Ordering::SeqCst) {
                uris.truncate(1);
            }
            let chain = certificate(&told.issuer, &uris, &request.public_key, begin, secs);
            let status = if path == "/v1/enroll" { 201 } else { 200 };
            say(
                status,
                serde_json::json!({ "certificate": chain, "authority": told.authority_pem, "pop": "fra" })
                    .to_string(),
            )
        }
        (path, Some(_)) => {
            let found = path
                .strip_prefix("/v1/blobs/")
                .and_then(|hash| told.blobs.lock().unwrap().get(hash).cloned());
            match found {
                Some(text) => Response::new(Full::new(text).boxed_unsync()),
                None => say(404, "{}".into()),
            }
        }
        (_, None) => say(401, "{}".into()),
    }
}

// --- The node ---

struct Node {
    child: Child,
    said: Arc<Mutex<String>>,
    visitors: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write_files(scratch: &Path, control: &Control) {
    let node = format!(
        "[cluster]\ncontrol = \"{}\"\npop = \"fra\"\n\n[edge]\nnode = \"fra-1\"\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
         workers = 1\n\n[store]\nmemory = \"16MiB\"\n\n[[store.disk]]\nsize = \"64MiB\"\n",
        control.url()
    );
    fs::write(scratch.join("node.toml"), node).unwrap();
    fs::write(scratch.join("token"), control.token()).unwrap();
}

fn command(scratch: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perigee"));
    command
        .arg("edge")
        .arg("--config")
        .arg(scratch.join("node.toml"))
        .arg("--state")
        .arg(scratch.join("state"));
    command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Node {
    fn start(scratch: &Scratch) -> Self {
        let token = scratch.0.join("token");
        let mut child = command(&scratch.0, &["--token", token.to_str().unwrap()]).spawn().unwrap();
        let said = Arc::<Mutex<String>>::default();
        let (errors, heard) = (child.stderr.take().unwrap(), said.clone());
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                eprintln!("node: {line}");
                let mut heard = heard.lock().unwrap();
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        let find = |what: &str| {
            let said = said.lock().unwrap();
            let line =
                said.lines().find_map(|line| line.trim().strip_prefix(what)?.trim().strip_prefix("http://"));
            line.and_then(|url| url.split('/').next().unwrap().parse().ok())
        };
        wait("the node to serve", || find("visitors").is_some() && find("admin").is_some());
        let (visitors, admin) = (find("visitors").unwrap(), find("admin").unwrap());
        Node { child, said, visitors, admin }
    }

    /// As a crash does.
    fn kill(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait("the node to end", || self.child.try_wait().unwrap().is_some());
    }

    /// Status and body of a visitor's request.
    fn get(&self, path: &str) -> (u16, String) {
        ask(self.visitors, &format!("GET {path} HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n"))
    }

    #[track_caller]
    fn gets(&self, path: &str, generation: u32) {
        assert_eq!(self.get(path), (200, format!("{path} {generation}")));
    }

    fn admin(&self, scratch: &Scratch, request: &str) -> (u16, serde_json::Value) {
        let token = fs::read_to_string(scratch.0.join("state/admin-token")).unwrap();
        let text = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: 19\r\nConnection: close\r\n\r\n{{\"everything\":true}}",
            token.trim()
        );
        let (status, body) = ask(self.admin, &text);
        (status, serde_json::from_str(&body).unwrap())
    }

    fn has_said(&self, what: &str) -> bool {
        self.said.lock().unwrap().contains(what)
    }
}

fn ask(address: SocketAddr, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn sites(origin: &Origin) -> String {
    format!(
        "[[site]]\nname = \"site\"\ndomains = [\"site.example\"]\norigin = \"http://{}\"\n",
        origin.address
    )
}

/// A node that has joined and runs the first configuration.
fn cluster() -> (Scratch, Origin, Control, Node, Version) {
    let (scratch, origin, mut control) = (Scratch::new("member"), Origin::start(), Control::start());
    let (_, version) = control.apply(&sites(&origin));
    write_files(&scratch.0, &control);
    let node = Node::start(&scratch);
    control.reported("the configuration to run", |report| report.running == Some(version.number));
    (scratch, origin, control, node, version)
}

fn paths(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("/p/{number}")).collect()
}

// --- Plays ---

#[test]
fn a_node_joins_runs_what_the_plan_says_and_proves_what_it_has_applied() {
    let (scratch, origin, control, node, _) = cluster();
    node.gets("/a", 0);
    node.gets("/kept", 0);
    // Routers look whether it lives: it is not judged by what they get.
    for _ in 0..5 {
        let probe =
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: perigee-router\r\nConnection: close\r\n\r\n";
        assert_eq!(ask(node.visitors, probe).0, 421);
    }
    origin.generation.store(1, Ordering::SeqCst);
    let position = control.purge(&["/a".to_owned()]);
    let report = control.acknowledged(position);
    node.gets("/a", 1);
    node.gets("/kept", 0);
    assert_eq!((&*report.pop, report.starts), ("fra", 1));
    let report = control.reported("the requests to be counted", |report| report.vitals.requests >= 4);
    assert_eq!(report.vitals.requests, 4);
    assert!(report.vitals.hits >= 1 && report.vitals.memory_bytes > 0);
    // The key was made there and stays there.
    let key = fs::metadata(scratch.0.join("state/cluster/key.pem")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    let (status, said) = node.admin(&scratch, "POST /v1/purge");
    assert_eq!(status, 403, "{said}");
    assert!(said["next"].as_str().unwrap().contains("through control"), "{said}");
    assert_eq!(node.admin(&scratch, "POST /v1/reload").0, 403);
    let (_, status) = node.admin(&scratch, "GET /v1/status");
    assert_eq!(status["cluster"]["position"], position);
    assert_eq!(
        (&status["cluster"]["connected"], &status["cluster"]["current"]),
        (&true.into(), &true.into())
    );
    let (_, metrics) =
        ask(node.admin, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(metrics.contains(&format!("perigee_journal_position {position}\n")), "{metrics}");
}

#[test]
fn a_node_without_a_configuration_says_503_so_that_routers_send_nobody_there() {
    let (scratch, origin, mut control) = (Scratch::new("member"), Origin::start(), Control::start());
    write_files(&scratch.0, &control);
    let node = Node::start(&scratch);
    let (status, body) = node.get("/a");
    assert_eq!(status, 503, "{body}");
    let (_, version) = control.apply(&sites(&origin));
    control.reported("the configuration to run", |report| report.running == Some(version.number));
    node.gets("/a", 0);
}

#[test]
fn a_node_that_is_not_let_in_says_why() {
    let (scratch, mut control) = (Scratch::new("member"), Control::start());
    write_files(&scratch.0, &control);
    let run = |more: &[&str]| {
        let output = command(&scratch.0, more).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run(&[]);
    assert!(said.contains("has not joined its cluster") && said.contains("--token FILE"), "{said}");
    let token = scratch.0.join("token");
    fs::write(&token, "perigee-join.nonsense").unwrap();
    let said = run(&["--token", token.to_str().unwrap()]);
    assert!(said.contains("this is no enrolment token"), "{said}");
    let wrong: EnrolmentToken = control.token().parse().unwrap();
    let wrong = EnrolmentToken { secret: "other".into(), ..wrong };
    fs::write(&token, wrong.to_string()).unwrap();
    let said = run(&["--token", token.to_str().unwrap()]);
    assert!(said.contains("no such enrolment token") && said.contains("next: ask for another"), "{said}");
    // The token is for another PoP than the file names, and control, an older one, lets the node in.
    fs::write(&token, control.token()).unwrap();
    let file = scratch.0.join("node.toml");
    let node = fs::read_to_string(&file).unwrap();
    fs::write(&file, node.replace("pop = \"fra\"", "pop = \"iad\"")).unwrap();
    let said = run(&["--token", token.to_str().unwrap()]);
    assert!(said.contains("the token is for PoP \"fra\", and this node's file says pop = \"iad\""), "{said}");
    assert!(said.contains("or perigee nodes retire fra-1, and have a token made"), "{said}");
    let told = ("iad".to_owned(), "edge".to_owned());
    assert_eq!(*control.told.said.lock().unwrap(), told, "a newer one can refuse it");
    assert!(run(&[]).contains("has not joined its cluster"));
    control.go_away();
}

#[test]
fn an_edge_whose_file_names_another_pop_than_it_has_joined_in_stays_there_serves_and_says_so() {
    let (scratch, origin, mut control) = (Scratch::new("member"), Origin::start(), Control::start());
    control.told.is_older.store(true, Ordering::SeqCst);
    control.told.life_secs.store(4, Ordering::SeqCst);
    control.apply(&sites(&origin));
    write_files(&scratch.0, &control);
    Node::start(&scratch).stop();
    let file = scratch.0.join("node.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("pop = \"fra\"", "pop = \"iad\"")).unwrap();
    let says = format!(
        "{}: pop = \"iad\", but this node has joined in PoP \"fra\", as its certificate says: it acts for \"fra\"",
        file.display()
    );
    let status = |node: &Node| node.admin(&scratch, "GET /v1/status").1["cluster"].clone();

    // A certificate of an older control says nothing, and the file goes on to be believed until there is another one.
    let node = Node::start(&scratch);
    control.reported("the configuration to run", |report| report.running == Some(1) && report.pop == "iad");
    assert_eq!((&status(&node)["pop"], &status(&node)["warning"]), (&"iad".into(), &serde_json::Value::Null));
    control.told.is_older.store(false, Ordering::SeqCst);
    wait("it to hear where it has joined", || node.has_said(&format!("{says} from its next start on;")));
    assert_eq!(status(&node)["pop"], "iad");
    node.stop();

    let node = Node::start(&scratch);
    assert!(node.has_said(&format!("perigee: warning: {says};")));
    control.reported("its place", |report| report.pop == "fra");
    let known = status(&node);
    assert_eq!(known["pop"], "fra");
    let warning = known["warning"].as_str().unwrap();
    assert!(warning.starts_with(&says), "{warning}");
    assert!(
        warning.contains("write pop = \"fra\" in [cluster], or") && warning.contains("nodes retire fra-1")
    );
    node.gets("/a", 0);
    node.stop();

    fs::write(&file, text).unwrap();
    let node = Node::start(&scratch);
    assert_eq!(status(&node)["warning"], serde_json::Value::Null);
    assert!(!node.has_said("but this node has joined"));
}

/// What a node's certificate says.
fn end_of_certificate(scratch: &Scratch) -> i64 {
    Identity::load(&scratch.0.join("state/cluster")).unwrap().unwrap().peer().valid.1
}

fn now_secs() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
fn a_node_boots_and_serves_from_its_own_disk_while_control_is_away() {
    let (scratch, origin, mut control) = (Scratch::new("member"), Origin::start(), Control::start());
    control.told.life_secs.store(4, Ordering::SeqCst);
    control.apply(&sites(&origin));
    write_files(&scratch.0, &control);
    let node = Node::start(&scratch);
    control.reported("the configuration to run", |report| report.running == Some(1));
    // It outlives its first certificate, because it has it renewed.
    let first = end_of_certificate(&scratch);
    wait("a renewal", || end_of_certificate(&scratch) > first);
    assert!(control.told.renewals.load(Ordering::SeqCst) > 0);
    let paths = paths(20);
    paths.iter().for_each(|path| node.gets(path, 0));
    let position = control.purge(&["/p/0".to_owned()]);
    control.acknowledged(position);
    control.go_away();
    origin.generation.store(1, Ordering::SeqCst);
    paths[1..].iter().for_each(|path| node.gets(path, 0));
    node.stop();
    let end = end_of_certificate(&scratch);
    wait("the certificate to end", || now_secs() > end);
    let begin = Instant::now();
    let node = Node::start(&scratch);
    println!("serving {} ms after the start, without control", begin.elapsed().as_millis());
    paths[1..].iter().for_each(|path| node.gets(path, 0));
    // What was purged before stays so.
    node.gets("/p/0", 1);
    assert_eq!(origin.asked("/p/1"), 1);
    control.come_back();
    let position = control.purge(&["/p/1".to_owned()]);
    control.acknowledged(position);
    node.gets("/p/1", 1);
    let report = control.reported("the second start", |report| report.starts == 2);
    assert_eq!(report.running, Some(1));
}

#[test]
fn a_node_whose_clock_is_days_ahead_does_not_renew_without_a_pause() {
    const DAY_SECS: usize = 24 * 60 * 60;
    let (scratch, origin, mut control) = (Scratch::new("member"), Origin::start(), Control::start());
    control.told.life_secs.store(7 * DAY_SECS, Ordering::SeqCst);
    control.told.behind_secs.store(9 * DAY_SECS, Ordering::SeqCst);
    write_files(&scratch.0, &control);
    let node = Node::start(&scratch);
    wait("the node to tell of its clock", || node.has_said("clock is 9 days ahead of control's; set it"));
    // It serves all the same, and its certificate was renewed once.
    let (_, version) = control.apply(&sites(&origin));
    control.reported("the configuration to run", |report| report.running == Some(version.number));
    node.gets("/a", 0);
    assert_eq!(control.told.renewals.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_purged_while_a_node_is_cut_off_is_in_force_once_it_is_not() {
    const PURGES: usize = 10_000;
    let (_scratch, origin, mut control, node, _) = cluster();
    let stored: Vec<String> = (0..100).map(|number| format!("/p/{}", number * (PURGES / 100))).collect();
    let kept: Vec<String> = (0..20).map(|number| format!("/kept/{number}")).collect();
    stored.iter().chain(&kept).for_each(|path| node.gets(path, 0));
    control.go_away();
    wait("the node to notice", || node.has_said("not connected with"));
    let position = control.purge(&paths(PURGES));
    origin.generation.store(1, Ordering::SeqCst);
    // Hits go on.
    stored.iter().chain(&kept).for_each(|path| node.gets(path, 0));
    let begin = Instant::now();
    control.come_back();
    control.acknowledged(position);
    println!("{PURGES} purges are in force {} ms after the healing", begin.elapsed().as_millis());
    stored.iter().for_each(|path| node.gets(path, 1));
    kept.iter().for_each(|path| node.gets(path, 0));
}

#[test]
fn a_node_that_has_missed_what_is_not_kept_any_more_has_everything_validated() {
    let (_scratch, origin, mut control, node, version) = cluster();
    let paths = paths(10);
    paths.iter().for_each(|path| node.gets(path, 0));
    control.go_away();
    wait("the node to notice", || node.has_said("not connected with"));
    let position = control.purge(&paths[..5]);
    control.runtime.block_on(control.told.journal.trim(position)).unwrap();
    control.start_anew(Plan { stable: Some(version), candidate: None });
    control.come_back();
    control.acknowledged(position);
    assert!(node.has_said("all that is stored is validated before it is served again"));
    // The same as before: one question each, and then hits again.
    for _ in 0..2 {
        paths.iter().for_each(|path| node.gets(path, 0));
    }
    assert!(paths.iter().all(|path| origin.asked(path) == 2), "{:?}", origin.seen.lock().unwrap());
    origin.generation.store(1, Ordering::SeqCst);
    let position = control.purge(&paths[..1]);
    control.acknowledged(position);
    node.gets(&paths[0], 1);
    node.gets(&paths[1], 0);
}

#[test]
fn a_crash_between_a_purge_and_its_place_makes_it_apply_again_and_never_leaves_one_out() {
    let (scratch, origin, control, mut node, _) = cluster();
    let paths = paths(10);
    paths.iter().for_each(|path| node.gets(path, 0));
    wait("all of it to be on disk", || {
        let (_, status) = node.admin(&scratch, "GET /v1/status");
        status["store"][1]["objects"].as_u64() >= Some(paths.len() as u64)
    });
    let place = scratch.0.join("state/cluster/place");
    let first = control.purge(&paths[..1]);
    control.acknowledged(first);
    let before = fs::read(&place).unwrap();
    let second = control.purge(&paths[1..2]);
    control.acknowledged(second);
    node.kill();
    // As if the place had not been written any more: what is in the purge log is ahead of it.
    fs::write(&place, before).unwrap();
    let third = control.purge(&paths[2..3]);
    origin.generation.store(1, Ordering::SeqCst);
    let node = Node::start(&scratch);
    control.acknowledged(third);
    paths[..3].iter().for_each(|path| node.gets(path, 1));
    paths[3..].iter().for_each(|path| node.gets(path, 0));
    drop(node);
    // A place that was damaged is no place: then nothing is trusted.
    fs::write(&place, "{").unwrap();
    let node = Node::start(&scratch);
    control.reported("the fourth start", |report| report.starts == 3);
    wait("the node to begin anew", || node.has_said("all that is stored is validated"));
    paths.iter().for_each(|path| node.gets(path, 1));
}

#[test]
fn a_configuration_that_is_no_good_or_not_the_clusters_is_refused_and_reported() {
    let (_scratch, origin, mut control, node, first) = cluster();
    node.gets("/a", 0);
    let refused = |report: &Report, number: u64| {
        report.refused.as_ref().is_some_and(|refusal| refusal.version.number == number)
    };
    let (_, bad) = control.apply("[[site]]\nname = \"site\"\ndomans = [\"site.example\"]\n");
    let report = control.reported("the refusal", |report| refused(report, bad.number));
    let why = report.refused.unwrap().why;
    assert!(why.starts_with("configuration 2:"), "{why}");
    assert_eq!(report.running, Some(first.number));
    // Its own test fails.
    let test = "[[site.test]]\nget = \"/a\"\nexpect = { ttl = \"30d\" }\n";
    let (_, failing) = control.apply(&format!("{}{test}", sites(&origin)));
    let report = control.reported("the refusal", |report| refused(report, failing.number));
    assert!(report.refused.unwrap().why.contains("test failed"));
    // Signed by somebody else, or by nobody.
    let stranger = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let stranger = aws_key::Key::of(&stranger).signer();
    for (number, signer) in [(100, Some(&stranger)), (101, None)] {
        let text = sites(&origin).replace("site.example", "stolen.example");
        let hash = text_hash(text.as_bytes());
        let signature = signer.map_or(String::new(), |signer| signer.sign(&Version::signed(number, &hash)));
        control.told.blobs.lock().unwrap().insert(hash.clone(), Bytes::from(text));
        control.plan(&Version { number, hash, signature });
        let report = control.reported("the refusal", |report| refused(report, number));
        assert!(report.refused.unwrap().why.contains("not signed"));
    }
    // One that is good comes into force as ever.
    let (_, good) = control.apply(&format!("{}ttl = \"1h\"\n", sites(&origin)));
    control.reported("the good one to run", |report| report.running == Some(good.number));
    node.gets("/a", 0);
}

#[test]
fn a_text_that_is_not_what_was_signed_is_never_run_and_asked_for_again() {
    let (_scratch, origin, mut control, node, first) = cluster();
    let text = sites(&origin).replace("site.example", "*");
    let hash = text_hash(text.as_bytes());
    control.told.blobs.lock().unwrap().insert(hash.clone(), Bytes::from_static(b"something else"));
    let signature = control.told.authority_key.signer().sign(&Version::signed(2, &hash));
    control.number = 2;
    control.plan(&Version { number: 2, hash: hash.clone(), signature });
    wait("the node to notice", || node.has_said("its text has the hash"));
    assert_eq!(control.reported("a report", |_| true).running, Some(first.number));
    control.told.blobs.lock().unwrap().insert(hash, Bytes::from(text));
    control.reported("the right one to run", |report| report.running == Some(2));
}

#[test]
fn a_node_goes_back_to_what_is_stable_from_its_own_disk() {
    let (scratch, origin, mut control, node, _) = cluster();
    let (_, stable) = control.apply(&format!("{}ttl = \"1h\"\n", sites(&origin)));
    control.reported("what is stable to run", |report| report.running == Some(stable.number));
    let version = control.version(&format!("{}ttl = \"2h\"\n", sites(&origin)));
    let candidate =
        Candidate { version: version.clone(), to: Audience::Pops(vec!["fra".into()]), waiting: Vec::new() };
    control.write(Change::Plan(Plan { stable: Some(stable.clone()), candidate: Some(candidate) }));
    control.reported("the candidate to run", |report| report.running == Some(version.number));
    // It boots with it too, unless it has died with it.
    drop(node);
    let node = Node::start(&scratch);
    assert!(node.has_said("the program has died"));
    // What kills it at once would do so again before anybody has heard of it.
    control.reported("that it has died, before the candidate is tried again", |report| {
        report.running == Some(stable.number) && report.starts == 2
    });
    let kept = fs::read_to_string(scratch.0.join("state/cluster/running")).unwrap();
    assert!(kept.contains(&stable.hash), "{kept}");
    control.reported("the candidate to run again", |report| {
        report.running == Some(version.number) && report.starts == 2
    });
    node.stop();
    control.go_away();
    let node = Node::start(&scratch);
    node.gets("/a", 0);
    assert_eq!(node.admin(&scratch, "GET /v1/status").1["cluster"]["running"], version.number);
    control.told.blobs.lock().unwrap().clear();
    control.come_back();
    control.plan(&stable);
    control.reported("what is stable to run again", |report| report.running == Some(stable.number));
    node.gets("/a", 0);
}

/// Ends a process that this test's node has started.
struct Successor(rustix::process::Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have ended.
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::KILL);
    }
}

#[test]
fn a_node_is_upgraded_in_place_and_follows_on() {
    let (scratch, origin, control, mut node, _) = cluster();
    node.gets("/a", 0);
    node.gets("/b", 0);
    let (status, begun) = node.admin(&scratch, "POST /v1/upgrade");
    assert_eq!(status, 202, "{begun}");
    let pid = || {
        let said = node.said.lock().unwrap();
        let line =
            said.lines().find_map(|line| line.split_once(": process ")?.1.split_once(" serves, after"));
        line.and_then(|(pid, _)| pid.parse().ok()).and_then(rustix::process::Pid::from_raw)
    };
    wait("the new process to serve", || pid().is_some());
    let _successor = Successor(pid().unwrap());
    wait("the old process to end", || node.child.try_wait().unwrap().is_some());
    node.gets("/b", 0);
    origin.generation.store(1, Ordering::SeqCst);
    let position = control.purge(&["/a".to_owned()]);
    let report = control.acknowledged(position);
    node.gets("/a", 1);
    // It has not crashed: that is what starts are counted for.
    assert_eq!((report.starts, report.running), (1, Some(1)));
}
