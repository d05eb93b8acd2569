//! What the tests are played with: controls on one journal, callers who check each answer's form, and nodes that follow the feed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use control::{Control, Handle, Options};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use journal::feed::{Dialer, Down, Hello, Link, Node, Receipt, Report, Steering, Told, Wanted, follow};
use journal::memory::Memory;
use journal::{Cell, Commit, Journal, Page, Work};
use journal::{Mark, Record};
use model::budget::Amount;
use model::budget::lease::Holder;
use model::change::receipt_signed;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use trust::{EnrolmentToken, Identity, fingerprint, pinned_client_config};

/// Longest wait for a state that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration of two sites.
pub(crate) const SITES: &str = r#"
[[site]]
name = "shop"
domains = ["www.shop.example", "cdn.shop.example"]
origin = "http://127.0.0.1:8000"

[[site]]
name = "blog"
domains = ["blog.example"]
origin = "http://127.0.0.1:8001"
"#;

/// A cluster with one control, and more if the test wants.
pub(crate) struct Stage {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) control: Handle,
    pub(crate) admin: String,
    pub(crate) fingerprint: String,
    directory: PathBuf,
}

/// A journal in memory that fails on a wish.
pub(crate) struct Failing {
    inner: Memory,
    /// While set, cells cannot be listed.
    pub(crate) is_unlisted: AtomicBool,
    /// From this moment on it cannot be written; for a second, what is written has no answer.
    pub(crate) unwritable_from: Mutex<Option<Instant>>,
    /// How often an enrolment token was looked for.
    pub(crate) enrolments: AtomicU64,
    /// How often all of them were.
    pub(crate) lists: AtomicU64,
}

impl Failing {
    pub(crate) fn new() -> Arc<Failing> {
        let inner = Memory::new("test", 1);
        let (is_unlisted, unwritable_from) = (AtomicBool::new(false), Mutex::new(None));
        Arc::new(Failing {
            inner,
            is_unlisted,
            unwritable_from,
            enrolments: AtomicU64::new(0),
            lists: AtomicU64::new(0),
        })
    }
}

impl Journal for Failing {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn commit(&self, commit: Commit) -> Work<'_, u64> {
        let from = *self.unwritable_from.lock();
        Box::pin(async move {
            match from.map(|from| from.elapsed().as_secs()) {
                None => self.inner.commit(commit).await,
                Some(0) => {
                    self.inner.commit(commit).await?;
                    Err(journal::Error::Unknown("the answer is lost".into()))
                }
                Some(_) => Err(journal::Error::Unavailable("an election".into())),
            }
        })
    }

    fn read(&self, after: u64, limit: usize) -> Work<'_, Page> {
        self.inner.read(after, limit)
    }

    fn changed(&self, after: u64) -> Work<'_, ()> {
        self.inner.changed(after)
    }

    fn cell(&self, name: &str) -> Work<'_, Option<Cell>> {
        self.enrolments.fetch_add(u64::from(name.starts_with("enrolments/")), Ordering::Relaxed);
        self.inner.cell(name)
    }

    fn cells(&self, prefix: &str) -> Work<'_, Vec<Cell>> {
        self.lists.fetch_add(u64::from(prefix == "enrolments/"), Ordering::Relaxed);
        if self.is_unlisted.load(Ordering::Relaxed) {
            return Box::pin(async { Err(journal::Error::Unavailable("an election".into())) });
        }
        self.inner.cells(prefix)
    }

    fn trim(&self, through: u64) -> Work<'_, ()> {
        self.inner.trim(through)
    }
}

/// What has been answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

/// A directory that nobody else has.
pub(crate) fn directory() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("perigee-control-{}-{count}", std::process::id()));
    let _absent = std::fs::remove_dir_all(&path);
    path
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl Stage {
    /// On a journal in memory.
    pub(crate) async fn start() -> Stage {
        Stage::on(Arc::new(Memory::new("test", 1))).await
    }

    pub(crate) async fn on(journal: Arc<dyn Journal>) -> Stage {
        let directory = directory();
        let mut options = Options::new("c1", loopback(), directory.join("c1"), Arc::clone(&journal));
        options.canary_interval = Duration::from_millis(200);
        let control = Control::start(options).await.unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.join("c1").join(name)).unwrap();
        let authority = CertificateDer::from_pem_slice(read("ca.pem").as_bytes()).unwrap();
        Stage {
            journal,
            control,
            admin: read("admin-token").trim().to_owned(),
            fingerprint: fingerprint(&authority),
            directory,
        }
    }

    /// The state directory of a control.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Another control of the cluster, which has been given the secret.
    pub(crate) async fn another(&self, name: &str) -> Handle {
        let state = self.state(name);
        std::fs::create_dir_all(&state).unwrap();
        std::fs::copy(self.state("c1").join("cluster-secret"), state.join("cluster-secret")).unwrap();
        Control::start(Options::new(name, loopback(), state, Arc::clone(&self.journal))).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &self.admin, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, &self.admin, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &self.admin, &[], None).await
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        self.call_at(self.control.address(), method, path, token, headers, body).await
    }

    pub(crate) async fn call_at(
        &self,
        address: SocketAddr,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let tls = pinned_client_config(&self.fingerprint, &[b"http/1.1"]).unwrap();
        ask(address, tls, method, path, token, headers, body).await
    }

    /// A token with a role, and perhaps a scope.
    pub(crate) async fn token(&self, name: &str, role: &str, sites: Option<&[&str]>) -> String {
        let made = self.post("/v1/tokens", json!({ "name": name, "role": role, "sites": sites })).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["secret"].as_str().unwrap().to_owned()
    }

    /// Adds [`SITES`] and rolls it out to all.
    pub(crate) async fn configure(&self) {
        let added = self.post("/v1/configurations", json!({ "text": SITES, "reason": "begin" })).await;
        assert_eq!(added.status, 201, "{added:?}");
        let begun = self.post("/v1/rollouts", json!({ "version": 1, "stage": "all" })).await;
        assert!(begun.status < 300, "{begun:?}");
        self.wait("the first configuration", async |stage| {
            let versions = stage.get("/v1/configurations").await;
            versions.body["stable"] == 1 || versions.body["candidate"] == 1
        })
        .await;
    }

    /// Waits for a state.
    pub(crate) async fn wait(&self, what: &str, is_so: impl AsyncFn(&Stage) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self).await {
            assert!(Instant::now() < until, "{what} has not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes an enrolment token that has ended so many days ago; its id.
    pub(crate) async fn ended_token(&self, days_ago: i64) -> String {
        let made = self.post("/v1/enrolment-tokens", json!({ "role": "relay" })).await;
        let made: EnrolmentToken = made.body["token"].as_str().unwrap().parse().unwrap();
        let cell = self.journal.cell(&format!("enrolments/{}", made.id)).await.unwrap().unwrap();
        let mut enrolment: Value = serde_json::from_slice(&cell.value).unwrap();
        enrolment["expires_ms"] = json!(now_ms() - days_ago * 86_400_000);
        let cells = vec![(cell.name, Some(enrolment.to_string().into_bytes()))];
        self.journal.commit(Commit { cells, ..Commit::default() }).await.unwrap();
        made.id
    }

    /// Waits for what this control sweeps a second after its start, and then once a day.
    pub(crate) async fn first_sweep(&self) {
        let cell = format!("enrolments/{}", self.ended_token(31).await);
        self.wait("the first sweep", async |stage| stage.journal.cell(&cell).await.unwrap().is_none()).await;
    }

    /// Makes what is rolled out stable, as minutes of good behaviour would.
    pub(crate) async fn make_stable(&self) {
        loop {
            let rollout = self.journal.cell("rollout").await.unwrap().unwrap();
            let plan = self.journal.cell("plan").await.unwrap().unwrap();
            let mut promoted: Value = serde_json::from_slice(&rollout.value).unwrap();
            promoted["stage"] = json!("promoted");
            let stable = json!({ "stable": promoted["version"] });
            let record = json!({ "by": "test", "at_ms": now_ms(), "change": { "plan": &stable } });
            let commit = journal::Commit {
                expect: vec![(rollout.name.clone(), rollout.version), (plan.name.clone(), plan.version)],
                cells: vec![
                    (rollout.name, Some(promoted.to_string().into_bytes())),
                    (plan.name, Some(stable.to_string().into_bytes())),
                ],
                record: Some(record.to_string()),
            };
            match self.journal.commit(commit).await {
                Ok(_) => return,
                Err(journal::Error::Conflict(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// An edge that has been enrolled and follows.
    pub(crate) async fn node(&self, name: &str, pop: &str) -> Arc<TestNode> {
        self.enrol("edge", name, pop).await
    }

    /// A router that has been enrolled and follows.
    pub(crate) async fn router(&self, name: &str) -> Arc<TestNode> {
        self.enrol("router", name, "").await
    }

    async fn enrol(&self, role: &str, name: &str, pop: &str) -> Arc<TestNode> {
        let wish = json!({ "role": role, "pop": pop, "name": name });
        let made = self.post("/v1/enrolment-tokens", wish).await;
        assert_eq!(made.status, 201, "{made:?}");
        let token: EnrolmentToken = made.body["token"].as_str().unwrap().parse().unwrap();
        let joined = self.join(&token, None).await;
        assert_eq!(joined.status, 201, "{joined:?}");
        TestNode::follow(self.control.address(), joined.identity.unwrap(), pop)
    }

    /// Enrols.
    pub(crate) async fn join(&self, token: &EnrolmentToken, name: Option<&str>) -> Joined {
        self.join_with(&rcgen::KeyPair::generate().unwrap(), token, name).await
    }

    /// Enrols with a key.
    pub(crate) async fn join_with(
        &self,
        key: &rcgen::KeyPair,
        token: &EnrolmentToken,
        name: Option<&str>,
    ) -> Joined {
        assert_eq!(token.authority, self.fingerprint);
        let request = rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
        let body = json!({ "id": token.id, "secret": token.secret, "name": name, "request": request });
        let answer = self.call("POST", "/v1/enroll", "", &[], Some(body)).await;
        let text = |key: &str| answer.body[key].as_str().unwrap_or_default().to_owned();
        let identity = Identity::from_pem(&text("authority"), &text("certificate"), &key.serialize_pem())
            .ok()
            .map(Arc::new);
        Joined { status: answer.status, body: answer.body, identity }
    }
}

#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) identity: Option<Arc<Identity>>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.directory);
    }
}

/// One request on a connection of its own. Checks the answer against the document.
pub(crate) async fn ask(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    method: &str,
    path: &str,
    token: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::builder().method(method).uri(path).header("host", address.to_string());
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
    if head.headers.get("content-type").is_some_and(|kind| kind == "application/json") {
        check_form(method, path, head.status.as_u16(), &body);
    }
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

/// A connection by HTTP/2, with a body of any kind.
pub(crate) async fn by_http2<B>(stage: &Stage) -> hyper::client::conn::http2::SendRequest<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    by_http2_of(stage, pinned_client_config(&stage.fingerprint, &[b"h2"]).unwrap()).await
}

/// [`by_http2`], with what is shown and trusted.
pub(crate) async fn by_http2_of<B>(
    stage: &Stage,
    tls: Arc<rustls::ClientConfig>,
) -> hyper::client::conn::http2::SendRequest<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(stage.control.address()).await.unwrap();
    // A request must not wait for the acknowledgement of the one before.
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TokioIo::new(TlsConnector::from(tls).connect(name, stream).await.unwrap());
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A POST of JSON by the admin. Status and content of the answer.
pub(crate) async fn ask_by_http2(
    stage: &Stage,
    sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let request = http::Request::post(format!("https://{}{path}", stage.control.address()))
        .header("authorization", format!("Bearer {}", stage.admin))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let content = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&content).unwrap())
}

/// The document.
pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&control::openapi()).unwrap());

/// Whether an answer is as the document says.
fn check_form(method: &str, path: &str, status: u16, body: &Value) {
    let path = path.split('?').next().unwrap();
    let is_like = |template: &str| {
        let (template, path): (Vec<&str>, Vec<&str>) =
            (template.split('/').collect(), path.split('/').collect());
        template.len() == path.len()
            && template.iter().zip(&path).all(|(part, given)| part.starts_with('{') || part == given)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let Some((_, item)) = paths.iter().find(|(template, _)| is_like(template)) else { return };
    let responses = &item[method.to_ascii_lowercase()]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let Some(schema) = response["content"]["application/json"].get("schema") else { return };
    let schema = json!({ "components": DOCUMENT["components"], "allOf": [schema] });
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(body).map(|error| error.to_string()).collect();
    assert!(
        errors.is_empty(),
        "{method} {path} answered {status} in another form than documented: {errors:?}: {body}"
    );
}

// --- Nodes ---

/// A node that follows, and applies what it is told unless it is held.
pub(crate) struct TestNode {
    pub(crate) identity: Arc<Identity>,
    pop: String,
    state: Mutex<State>,
    /// While set, nothing is applied.
    pub(crate) is_held: AtomicBool,
    /// While set, the program has an error in each answer.
    pub(crate) is_ill: AtomicBool,
    /// While set, it says nothing but that it is alive.
    pub(crate) is_mute: AtomicBool,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    journal: Option<String>,
    cursor: Mark,
    receipt: Option<Receipt>,
    running: Option<u64>,
    requests: u64,
    errors: u64,
    /// What it has been told, as text.
    told: Vec<String>,
    last_down: Option<String>,
    /// Whether it was told something while it was held.
    has_missed: bool,
    /// What it wants of one budget.
    wants: Option<Wants>,
}

/// A node's part in a budget.
struct Wants {
    budget: String,
    demand: Amount,
    holder: Holder,
    begun: Instant,
    asked: Option<(Instant, Wanted)>,
}

impl Wants {
    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn ask(&mut self) -> Wanted {
        if let Some((at, wanted)) = &self.asked
            && at.elapsed() < Duration::from_millis(500)
        {
            return wanted.clone();
        }
        let now = self.now_ms();
        let ask = self.holder.ask(self.demand, 0, now);
        let wanted = Wanted { budget: self.budget.clone(), ask };
        self.asked = Some((Instant::now(), wanted.clone()));
        wanted
    }
}

impl TestNode {
    /// From now on it wants this of a budget.
    pub(crate) fn want(&self, budget: &str, demand: Amount) {
        let seq = now_ms() as u64;
        let (budget, holder) = (budget.to_owned(), Holder::new(seq, 0));
        let wants = Wants { budget, demand, holder, begun: Instant::now(), asked: None };
        self.state.lock().wants = Some(wants);
    }

    /// What it has been granted and may use now.
    pub(crate) fn granted(&self) -> Amount {
        let state = self.state.lock();
        state.wants.as_ref().map(|wants| wants.holder.allowed(wants.now_ms())).unwrap_or_default()
    }

    pub(crate) fn follow(address: SocketAddr, identity: Arc<Identity>, pop: &str) -> Arc<TestNode> {
        let node = Arc::new(TestNode {
            identity: Arc::clone(&identity),
            pop: pop.to_owned(),
            state: Mutex::default(),
            is_held: AtomicBool::new(false),
            is_ill: AtomicBool::new(false),
            is_mute: AtomicBool::new(false),
            task: Mutex::default(),
        });
        let dialer = Dialer::new(vec![format!("https://{address}")], move || Arc::clone(&identity));
        *node.task.lock() = Some(tokio::spawn(follow(Arc::clone(&node) as Arc<dyn Node>, Arc::new(dialer))));
        node
    }

    /// Falls silent, for good.
    pub(crate) fn stop(&self) {
        self.task.lock().take().unwrap().abort();
    }

    pub(crate) fn name(&self) -> &str {
        &self.identity.peer().name
    }

    /// What it has been told.
    pub(crate) fn told_text(&self) -> String {
        self.state.lock().told.join("\n")
    }

    pub(crate) fn last_down(&self) -> Option<String> {
        self.state.lock().last_down.clone()
    }

    pub(crate) fn running(&self) -> Option<u64> {
        self.state.lock().running
    }

    fn sign(&self, state: &mut State) {
        let at_ms = now_ms();
        let journal = state.journal.clone().unwrap_or_default();
        let signed =
            receipt_signed(&journal, self.name(), state.cursor.position, &state.cursor.digest, at_ms);
        state.receipt = Some(Receipt { cursor: state.cursor, at_ms, signature: self.identity.sign(&signed) });
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

pub(crate) fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Node for TestNode {
    fn hello(&self) -> Hello {
        let state = self.state.lock();
        Hello {
            node: self.name().to_owned(),
            journal: state.journal.clone(),
            cursor: state.cursor,
            reports_only: false,
            steers: false,
            takes_leases: true,
        }
    }

    fn told(&self, lines: Vec<Down>) -> Told<'_> {
        Box::pin(async move {
            let mut state = self.state.lock();
            if state.has_missed && !self.is_held.load(Ordering::Relaxed) {
                state.has_missed = false;
                return Err("what was missed is to be told again".to_owned());
            }
            for line in lines {
                match line {
                    Down::Welcome(welcome) => state.journal = Some(welcome.journal),
                    Down::Restart(restart) => {
                        state.cursor = restart.at;
                        state.running =
                            restart.plan.version_for(self.name(), &self.pop).map(|version| version.number);
                    }
                    Down::Records(records) if !self.is_held.load(Ordering::Relaxed) => {
                        for line in records.records {
                            let record: Record = line.into_record();
                            state.cursor = state.cursor.then(&record);
                            let written: model::change::Written = serde_json::from_str(&record.text).unwrap();
                            if let model::change::Change::Plan(plan) = written.change {
                                state.running =
                                    plan.version_for(self.name(), &self.pop).map(|version| version.number);
                            }
                            state.told.push(record.text.to_string());
                        }
                    }
                    Down::Records(_) => state.has_missed = true,
                    Down::Leases(leases) => {
                        for leased in leases {
                            assert_eq!(leased.node, self.name());
                            if let Some(wants) = &mut state.wants {
                                let now = wants.now_ms();
                                wants.holder.take(leased.grant, now);
                            }
                        }
                    }
                    Down::Beat(_) | Down::Steered(_) | Down::Counted(_) | Down::Refused { .. } => {}
                }
            }
            self.sign(&mut state);
            Ok(())
        })
    }

    fn reports(&self) -> Vec<Report> {
        let mut state = self.state.lock();
        if state.journal.is_none() || self.is_mute.load(Ordering::Relaxed) {
            return Vec::new();
        }
        state.requests += 100;
        if self.is_ill.load(Ordering::Relaxed) {
            state.errors += 50;
        }
        self.sign(&mut state);
        let vitals = journal::feed::Vitals {
            requests: state.requests,
            errors: state.errors,
            hits: state.requests / 2,
            ..Default::default()
        };
        let receipt = state.receipt.clone().unwrap();
        vec![Report {
            node: self.name().to_owned(),
            pop: self.pop.clone(),
            software: "test".into(),
            receipt,
            running: state.running,
            refused: None,
            unwell: None,
            starts: 1,
            holdings: Default::default(),
            vitals,
            steering: Steering::default(),
            budgets: state.wants.as_mut().map(Wants::ask).into_iter().collect(),
        }]
    }

    fn link(&self, link: Link<'_>) {
        if let Link::Down(_, why) = link {
            self.state.lock().last_down = Some(why.to_owned());
        }
    }
}
