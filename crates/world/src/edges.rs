//! Several edges in this process that ask each other, an origin that counts, and visitors who read to the end: for what no
//! single edge can show. All on real sockets; the edges share one clock's word and are told of purges one by one, so that a
//! test decides who knows what.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edge::{Clock, Edge, Handle, Options, TierIdentity};
use model::change::{Order, What};
use model::{EdgeSettings, Snapshot};
use observe::{BuildInfo, Registry};
use parking_lot::{Condvar, Mutex};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use semantics::Wall;

use crate::play::{BEGIN_SECS, PATIENCE};
use crate::scratch::Scratch;

/// Whose certificates edges show each other.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }
}

impl Authority {
    /// Certificate and key with a URI such as `perigee://edge/fra-1`.
    pub fn sign(&self, uri: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri).expect("a URI"))];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    /// What a node shows.
    pub fn identity(&self, node: &str) -> TierIdentity {
        let (certificate, key) = self.sign(&format!("perigee://edge/{node}"));
        TierIdentity::new([self.certificate.clone()], vec![certificate], key).expect("an identity")
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

// --- The origin ---

/// A request as the origin got it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// The whole head.
    pub head: String,
}

impl Asked {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

type Answering = dyn Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync;

/// An origin that answers by a function and remembers what it was asked.
pub struct CountingOrigin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl CountingOrigin {
    /// Begins to listen; ends with the process.
    pub fn start(answer: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        CountingOrigin::start_at(Ipv4Addr::LOCALHOST.into(), answer)
    }

    /// The same, at an address.
    pub fn start_at(
        address: IpAddr,
        answer: impl Fn(&Asked, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer): (_, Arc<Answering>) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || {
                    while let Ok(head) = read_head(&mut stream) {
                        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                        let asked = Asked { target, head };
                        seen.lock().push(asked.clone());
                        if answer(&asked, &mut stream).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        CountingOrigin { address, asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked for a target so far.
    pub fn asked(&self, target: &str) -> Vec<Asked> {
        self.asked.lock().iter().filter(|asked| asked.target == target).cloned().collect()
    }
}

/// Writes an answer with this head (lines with `\r\n`) and body.
pub fn reply(stream: &mut TcpStream, head: &str, body: &[u8]) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{head}\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// What holds threads until it is opened.
#[derive(Clone, Default)]
pub struct Hold(Arc<(Mutex<bool>, Condvar)>);

impl Hold {
    /// Lets all go on.
    pub fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub fn wait(&self) {
        let mut open = self.0.0.lock();
        let deadline = Instant::now() + 3 * PATIENCE;
        while !*open && !self.0.1.wait_until(&mut open, deadline).timed_out() {}
    }
}

// --- The edges ---

/// What an edge is started with that listens for plain connections on any port of loopback, and has nothing besides; its secrets
/// are the same each time.
pub fn options(clock: Clock) -> Options {
    Options {
        listen: Some(vec![any_port()]),
        listen_tls: None,
        listen_tier: None,
        tier: None,
        sockets: None,
        predecessor: None,
        budgets_are_leased: false,
        tracing: None,
        certificates: Vec::new(),
        client_authorities: Vec::new(),
        clock,
        key_seed: [7; 16],
        ticket_secret: vec![9; 32],
        state: None,
        disk_engine: None,
        registry: Registry::new(BuildInfo { version: "test", commit: "test" }),
        access_log: None,
        locate: None,
    }
}

/// A port of loopback that the system chooses.
pub fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A node and its PoP.
pub type Place = (&'static str, &'static str);

/// Several edges with one configuration.
pub struct Edges {
    authority: Authority,
    clock: Clock,
    config: String,
    tier: HashMap<&'static str, SocketAddr>,
    running: HashMap<&'static str, Handle>,
    directory: Option<Scratch>,
}

impl Edges {
    /// Starts an edge for each place. `site`: lines of the only site, with its origin.
    pub fn start(places: &[Place], site: &str) -> Edges {
        Edges::start_with(places, site, false)
    }

    /// The same, each with a disk.
    pub fn start_with_disks(places: &[Place], site: &str) -> Edges {
        Edges::start_with(places, site, true)
    }

    fn start_with(places: &[Place], site: &str, has_disks: bool) -> Edges {
        let tier: HashMap<_, _> = places.iter().map(|(_, node)| (*node, free())).collect();
        let mut pops: Vec<&str> = places.iter().map(|(pop, _)| *pop).collect();
        pops.dedup();
        let mut config = String::new();
        for (number, pop) in pops.iter().enumerate() {
            config.push_str(&format!(
                "[[pop]]\nname = \"{pop}\"\nlocation = [1.0, 2.0]\nedges = \"192.0.2.{number}\"\n"
            ));
            for (_, node) in places.iter().filter(|(of, _)| of == pop) {
                config.push_str(&format!("[[pop.node]]\nname = \"{node}\"\ntier = \"{}\"\n", tier[node]));
            }
        }
        config.push_str(&format!("[[site]]\nname = \"site\"\ndomains = \"*\"\n{site}\n"));
        let mut edges = Edges {
            authority: Authority::default(),
            clock: Clock::manual(Wall::from_secs(BEGIN_SECS)),
            config,
            tier,
            running: HashMap::new(),
            directory: has_disks.then(|| Scratch::new("edges")),
        };
        places.iter().for_each(|(_, node)| edges.begin(node));
        edges
    }

    /// Starts the edge of this name, if it does not run.
    pub fn begin(&mut self, node: &'static str) {
        let parsed = Snapshot::parse_cluster(&self.config, "edges.toml");
        let diagnostics: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
        let common = parsed.snapshot.unwrap_or_else(|| panic!("{}\n{}", self.config, diagnostics.join("\n")));
        let mut settings = EdgeSettings {
            node: node.to_owned(),
            workers: Some(1),
            server_timing: true,
            ..EdgeSettings::default()
        };
        settings.store.memory = model::ByteSize::from_mib(64);
        let state = self.directory.as_ref().map(|scratch| scratch.0.join(node));
        if let Some(state) = &state {
            std::fs::create_dir_all(state).expect("a directory");
            settings.store.disks.push(model::DiskSettings::of(model::ByteSize::from_mib(128)));
        }
        let options = Options {
            listen_tier: Some(vec![self.tier[node]]),
            tier: Some(self.authority.identity(node)),
            key_seed: seed_of(node),
            state,
            ..options(self.clock.clone())
        };
        let handle = Edge::start(common.for_node(settings), options).expect("the edge starts");
        self.running.insert(node, handle);
    }

    /// Ends an edge as a crash does: connections are cut.
    pub fn kill(&mut self, node: &str) {
        if let Some(handle) = self.running.remove(node) {
            handle.stop(Duration::ZERO);
        }
    }

    /// The edge of this name.
    pub fn edge(&self, node: &str) -> &Handle {
        &self.running[node]
    }

    /// Gives an edge another configuration: the common one, changed.
    pub fn reconfigure(&self, node: &str, change: impl Fn(&str) -> String) {
        let parsed = Snapshot::parse_cluster(&change(&self.config), "edges.toml");
        let handle = self.edge(node);
        let settings = handle.with_snapshot(|snapshot| snapshot.edge.clone());
        let common = parsed.snapshot.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        handle.replace(common.for_node(settings), &[]).expect("the configuration comes into force");
    }

    /// Where visitors reach it.
    pub fn address(&self, node: &str) -> SocketAddr {
        self.running[node].addresses()[0]
    }

    /// Where other edges reach it.
    pub fn tier_address(&self, node: &str) -> SocketAddr {
        self.tier[node]
    }

    /// Whose certificates they show.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Moves time on, for all.
    pub fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// Tells an edge of a purge, which the journal has at this position.
    pub fn purge(&self, node: &str, journal: u64, what: What, soft: bool) {
        let applied = self.edge(node).apply(&[Order { what, soft }]).expect("the purge is in force");
        self.edge(node).reached(journal, Some(applied.position));
    }

    /// Asks an edge, with more field lines (each with `\r\n`).
    pub fn get_with(&self, node: &str, target: &str, lines: &str) -> Got {
        get(self.address(node), target, lines)
    }

    /// Asks an edge; it must answer 200.
    #[track_caller]
    pub fn get(&self, node: &str, target: &str) -> Got {
        let got = self.get_with(node, target, "");
        assert_eq!(got.status, 200, "{}", got.head);
        got
    }

    /// Of a family of metrics, the sample with these labels; 0 without.
    pub fn metric(&self, node: &str, sample: &str) -> u64 {
        let text = self.edge(node).registry().render();
        let line = text.lines().find_map(|line| line.strip_prefix(sample));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Edges {
    fn drop(&mut self) {
        self.running.drain().for_each(|(_, handle)| _ = handle.stop(Duration::ZERO));
    }
}

/// Secrets differ: nothing may go by what one node alone knows.
fn seed_of(node: &str) -> [u8; 16] {
    let bytes = node.as_bytes();
    std::array::from_fn(|index| bytes[index % bytes.len()])
}

/// A port that is free, and stays so until the edge takes it: on a loopback address of this process's own, where no other test
/// draws one.
pub fn free() -> SocketAddr {
    let [.., a, b, c] = std::process::id().to_be_bytes();
    let own = [127, 1 + a % 254, b, 1 + c % 254];
    TcpListener::bind((std::net::Ipv4Addr::from(own), 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

// --- Visitors ---

/// What a visitor got.
#[derive(Clone, Debug)]
pub struct Got {
    /// The status; 0 when there was no answer.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The content.
    pub body: Vec<u8>,
    /// Whether all came that Content-Length promises.
    pub is_whole: bool,
}

impl Got {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// All lines of Cache-Status, in order.
    pub fn cache_status(&self) -> String {
        let lines = self.head.lines().filter_map(|line| line.strip_prefix("Cache-Status: "));
        let upstream = self.head.lines().filter_map(|line| line.strip_prefix("cache-status: "));
        upstream.chain(lines).collect::<Vec<_>>().join(", ")
    }
}

/// Asks at an address and reads to the end.
pub fn get(address: SocketAddr, target: &str, lines: &str) -> Got {
    ask(address, "GET", target, lines).unwrap_or_else(|error| Got {
        status: 0,
        head: format!("no answer: {error}"),
        body: Vec::new(),
        is_whole: false,
    })
}

/// Asks with any method, without content.
pub fn ask(address: SocketAddr, method: &str, target: &str, lines: &str) -> io::Result<Got> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(6 * PATIENCE))?;
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes())?;
    let head = read_head(&mut stream)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    let ended = stream.read_to_end(&mut body).is_ok();
    let length = field(&head, "content-length").and_then(|length| length.parse().ok());
    let is_whole = ended && length.is_none_or(|length: usize| length == body.len());
    Ok(Got { status, head, body, is_whole })
}

/// Has `visitors` ask at once; what each got.
pub fn crowd(addresses: &[SocketAddr], visitors: usize, target: &str, lines: &str) -> Vec<Got> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..visitors)
            .map(|_| {
                let address = addresses[next.fetch_add(1, Ordering::Relaxed) % addresses.len()];
                std::thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn_scoped(scope, move || get(address, target, lines))
                    .expect("a thread")
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a visitor")).collect()
    })
}

/// Reads to the empty line after a head, with it, and no further.
pub fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + 3 * PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
