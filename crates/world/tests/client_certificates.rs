//! Visitors' certificates, by rule: who may pass, over each protocol, over resumed sessions, over connections that were made
//! for another site; and what the origin is told.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes};
use edge::tls::Certificate;
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, ResolvesClientCert};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, NamedGroup, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use world::authority::{any_certificate, wait_for};
use world::play;
use world::play::{PATIENCE, Play, Seen};

// --- Authorities and those who have certificates of theirs ---

/// An authority for clients, and the file that names it; gone when it is dropped.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    file: PathBuf,
}

impl Ca {
    fn new() -> Ca {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("Authority {number}"));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let file = std::env::temp_dir().join(format!("perigee-ca-{}-{number}.pem", std::process::id()));
        std::fs::write(&file, &pem).unwrap();
        Ca { issuer: Issuer::new(params, key), pem, file }
    }

    /// Somebody with a certificate until the end of the day `(year, month, day)` before.
    fn client(&self, until: (i32, u8, u8)) -> Client {
        Ca::issue(&self.issuer, until, Vec::new())
    }

    fn issue(
        issuer: &Issuer<'static, KeyPair>,
        until: (i32, u8, u8),
        intermediates: Vec<CertificateDer<'static>>,
    ) -> Client {
        let mut params = CertificateParams::new(vec!["somebody.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = KeyPair::generate().unwrap();
        let mut chain = vec![params.signed_by(&key, issuer).unwrap().der().clone()];
        chain.extend(intermediates);
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = aws_lc_rs::sign::any_supported_type(&private).unwrap();
        Client::with(Some(Arc::new(CertifiedKey::new(chain, signer))))
    }

    /// Somebody whose certificate holds for all of the play, and was issued by somebody whose own ends before that day.
    fn client_of_intermediate(&self, until: (i32, u8, u8)) -> Client {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Intermediate");
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Ca::issue(&Issuer::new(params, key), (2040, 1, 1), vec![der])
    }

    /// Somebody whose certificate holds for all of the play.
    fn somebody(&self) -> Client {
        self.client((2040, 1, 1))
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A visitor: what it shows, and the sessions that it remembers.
struct Client {
    shows: Arc<Shows>,
    sessions: Arc<dyn ClientSessionStore>,
}

/// What a client shows when it is asked, and how often it was.
#[derive(Debug)]
struct Shows {
    key: Option<Arc<CertifiedKey>>,
    asked: AtomicUsize,
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

impl Client {
    fn with(key: Option<Arc<CertifiedKey>>) -> Client {
        let shows = Arc::new(Shows { key, asked: AtomicUsize::new(0) });
        Client { shows, sessions: Arc::new(ClientSessionMemoryCache::new(8)) }
    }

    /// Who has no certificate.
    fn nobody() -> Client {
        Client::with(None)
    }

    /// The same, that offers sessions also to names that they are not of.
    fn confusing(self) -> Client {
        Client { sessions: Arc::new(OfAnyName(ClientSessionMemoryCache::new(8))), ..self }
    }

    /// How often it has been asked for a certificate: not when a session is resumed.
    fn asked(&self) -> usize {
        self.shows.asked.load(Ordering::SeqCst)
    }

    /// What the origin is told of it.
    fn field(&self) -> String {
        let certificate = &self.shows.key.as_ref().expect("it has a certificate").cert[0];
        format!(":{}:", BASE64_STANDARD.encode(certificate))
    }

    fn config(&self, over: Over) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions: &[&rustls::SupportedProtocolVersion] = match over {
            Over::Http1Tls12 => &[&rustls::version::TLS12],
            _ => &[&rustls::version::TLS13],
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(ANY.clone())
            .with_client_cert_resolver(self.shows.clone());
        config.resumption = rustls::client::Resumption::store(self.sessions.clone());
        config.alpn_protocols = vec![match over {
            Over::Http1 | Over::Http1Tls12 => b"http/1.1".to_vec(),
            Over::Http2 => b"h2".to_vec(),
            Over::Http3 => b"h3".to_vec(),
        }];
        config
    }
}

/// Sessions are bound to the verifier that they began with.
static ANY: std::sync::LazyLock<Arc<dyn rustls::client::danger::ServerCertVerifier>> =
    std::sync::LazyLock::new(any_certificate);

/// Sessions under one name, whatever theirs is.
#[derive(Debug)]
struct OfAnyName(ClientSessionMemoryCache);

fn any_name() -> ServerName<'static> {
    ServerName::try_from("any.example").unwrap()
}

impl ClientSessionStore for OfAnyName {
    fn set_kx_hint(&self, _name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(any_name(), group);
    }

    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&any_name())
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(any_name(), value);
    }

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&any_name())
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {
        self.0.remove_tls12_session(&any_name());
    }

    fn insert_tls13_ticket(&self, _name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(any_name(), value);
    }

    fn take_tls13_ticket(&self, _name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&any_name())
    }
}

// --- Connections ---

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Http1,
    Http1Tls12,
    Http2,
    Http3,
}

const ALL: [Over; 4] = [Over::Http1, Over::Http1Tls12, Over::Http2, Over::Http3];

/// What the edge has answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Checks that the origin has answered this request alone: its "no-store" is known from the second time on.
    #[track_caller]
    fn passes(&self) -> &Self {
        let known = self.field("cache-status").is_some_and(|told| told.ends_with("detail=hit-for-miss"));
        self.expect(200, if known { "hit-for-miss" } else { "uncacheable" })
    }

    /// Checks status and reason.
    #[track_caller]
    fn expect(&self, status: u16, why: &str) -> &Self {
        let is_why = self.field("cache-status").is_some_and(|told| told.ends_with(&format!("detail={why}")));
        assert!(self.status == status && is_why, "wanted {status} {why}: {self:?}");
        self
    }
}

/// An open connection to the edge.
struct Line<'a> {
    runtime: &'a Runtime,
    spoken: Spoken,
}

#[expect(clippy::large_enum_variant, reason = "there are a handful of them")]
enum Spoken {
    Http1(tokio_rustls::client::TlsStream<TcpStream>),
    Http2(h2::client::SendRequest<Bytes>),
    Http3(
        h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
        #[expect(dead_code, reason = "keeps it open")] quinn::Endpoint,
    ),
}

impl<'a> Line<'a> {
    /// Connects for `name`; the error is a handshake's.
    fn to(world: &'a World, over: Over, client: &Client, name: &str) -> Result<Line<'a>, String> {
        let (runtime, address, config) = (&world.runtime, world.address, client.config(over));
        let name = name.to_owned();
        let connected = async move {
            match over {
                Over::Http1 | Over::Http1Tls12 | Over::Http2 => {
                    let socket = TcpStream::connect(address).await.expect("the edge listens");
                    let name = ServerName::try_from(name).unwrap();
                    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
                    let stream = stream.map_err(|error| error.to_string())?;
                    if over != Over::Http2 {
                        return Ok::<Spoken, String>(Spoken::Http1(stream));
                    }
                    let (requests, connection) =
                        h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
                    tokio::spawn(connection);
                    Ok(Spoken::Http2(requests))
                }
                Over::Http3 => {
                    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
                    let tls = QuicClientConfig::try_from(config).unwrap();
                    let config = quinn::ClientConfig::new(Arc::new(tls));
                    let connecting = endpoint.connect_with(config, address, &name).unwrap();
                    let connection = connecting.await.map_err(|error| error.to_string())?;
                    let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection))
                        .await
                        .map_err(|error| error.to_string())?;
                    tokio::spawn(async move { poll_fn(|context| driver.poll_close(context)).await });
                    Ok(Spoken::Http3(requests, endpoint))
                }
            }
        };
        let spoken =
            runtime.block_on(async { timeout(PATIENCE, connected).await }).expect("it ends in time")?;
        Ok(Line { runtime, spoken })
    }

    /// Asks `https://HOST/PATH`; the error is the connection's.
    fn try_ask(&mut self, host: &str, path: &str, fields: &[(&str, &str)]) -> Result<Answer, String> {
        let mut request = http::Request::get(format!("https://{host}{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let asked = async {
            match &mut self.spoken {
                Spoken::Http1(stream) => ask_http1(stream, host, path, fields).await,
                Spoken::Http2(requests) => {
                    let mut requests = requests.clone().ready().await.map_err(|error| error.to_string())?;
                    let (answer, _) =
                        requests.send_request(request, true).map_err(|error| error.to_string())?;
                    let (head, mut content) = answer.await.map_err(|error| error.to_string())?.into_parts();
                    let mut body = Vec::new();
                    while let Some(part) = content.data().await {
                        body.extend_from_slice(&part.map_err(|error| error.to_string())?);
                    }
                    Ok(answer_of(&head, &body))
                }
                Spoken::Http3(requests, _) => {
                    let mut stream =
                        requests.send_request(request).await.map_err(|error| error.to_string())?;
                    stream.finish().await.map_err(|error| error.to_string())?;
                    let (head, ()) =
                        stream.recv_response().await.map_err(|error| error.to_string())?.into_parts();
                    let mut body = Vec::new();
                    while let Some(mut part) = stream.recv_data().await.map_err(|error| error.to_string())? {
                        body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
                    }
                    Ok(answer_of(&head, &body))
                }
            }
        };
        self.runtime.block_on(async { timeout(PATIENCE, asked).await }).expect("it ends in time")
    }

    #[track_caller]
    fn ask(&mut self, host: &str, path: &str) -> Answer {
        self.try_ask(host, path, &[]).expect("an answer")
    }
}

fn answer_of(head: &http::response::Parts, body: &[u8]) -> Answer {
    let fields =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let body = String::from_utf8_lossy(body).into_owned();
    Answer { status: head.status.as_u16(), fields: fields.collect(), body }
}

async fn ask_http1(
    stream: &mut tokio_rustls::client::TlsStream<TcpStream>,
    host: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Answer, String> {
    let mut text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n");
    fields.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut read = Vec::new();
    loop {
        if let Some((head, body)) = String::from_utf8_lossy(&read).split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let status =
                lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
            let fields: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let answer = Answer { status, fields, body: body.to_owned() };
            let length = answer.field("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Ok(answer);
            }
        }
        match stream.read_buf(&mut read).await {
            Ok(0) => return Err("closed".to_owned()),
            read => read.map_err(|error| error.to_string())?,
        };
    }
}

/// A runtime for clients, and where the edge is.
struct World {
    runtime: Runtime,
    address: SocketAddr,
}

impl World {
    /// Starts the play's edge.
    fn of(play: &mut Play) -> World {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["site.example", "www.site.example", "other.example", "open.example"];
        let wanted = CertificateParams::new(names.map(str::to_owned).to_vec()).unwrap();
        let chain = wanted.self_signed(&key).unwrap().pem();
        let certificate = Certificate::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        play.handle().replace_certificates(vec![certificate]).unwrap();
        World { runtime, address: play.handle().addresses_tls()[0] }
    }

    #[track_caller]
    fn line(&self, over: Over, client: &Client, name: &str) -> Line<'_> {
        Line::to(self, over, client, name).expect("a handshake")
    }

    /// Asks `site.example` on a connection of its own.
    #[track_caller]
    fn ask(&self, over: Over, client: &Client, path: &str) -> Answer {
        self.line(over, client, "site.example").ask("site.example", path)
    }

    /// Asks, and is refused in the handshake: with TLS 1.3 a client learns of it when it reads.
    #[track_caller]
    fn refused(&self, over: Over, client: &Client) {
        let asked = Line::to(self, over, client, "site.example")
            .and_then(|mut line| line.try_ask("site.example", "/a", &[]));
        assert!(asked.is_err(), "{over:?}: {asked:?}");
    }
}

/// Three sites: one that wants certificates, another that wants those of another authority, and one that wants none.
fn config(own: &Path, others: &Path) -> String {
    format!(
        r#"
        [edge]
        listen_tls = "127.0.0.1:0"
        [[certificate]]
        chain = "of the play"
        key = "of the play"
        [[site]]
        name = "site"
        domains = ["site.example", "www.site.example"]
        origin = "{{origin}}"
        client_ca = "{}"
        client_certificate = "required"
        [[site.rule]]
        path = "/open/*"
        client_certificate = "off"
        [[site.rule]]
        path = "/optional/*"
        client_certificate = "optional"
        [[site.rule]]
        path = "/moved"
        https = "redirect"
        redirect = {{ to = "/elsewhere" }}
        [[site]]
        name = "other"
        domains = "other.example"
        origin = "{{origin}}"
        client_ca = "{}"
        client_certificate = "optional"
        [[site]]
        name = "open"
        domains = "open.example"
        origin = "{{origin}}"
        "#,
        own.display(),
        others.display()
    )
}

fn stage(own: &Ca, others: &Ca) -> Play {
    let mut play = play();
    play.tls().config(&config(&own.file, &others.file));
    play
}

fn told(seen: &Seen, client: &Client) {
    seen.header("Client-Cert", &client.field()).no_header("Client-Cert-Chain");
}

// --- Scenes ---

#[test]
fn a_site_is_open_to_those_who_show_a_certificate_over_each_protocol() {
    let (ca, other) = (Ca::new(), Ca::new());
    for over in ALL {
        let mut play = stage(&ca, &other);
        play.origin(|o| o.get("/a").header("Cache-Control", "max-age=60").body("secret"));
        let world = World::of(&mut play);
        let (one, another, nobody) = (ca.somebody(), ca.somebody(), Client::nobody());
        let refused = world.ask(over, &nobody, "/a");
        refused.expect(403, "client-certificate");
        assert!(refused.body.contains("certificate") && refused.field("cache-control") == Some("no-store"));
        assert_eq!(nobody.asked(), 1, "{over:?}");
        let lie = [("client-cert", ":bGll:"), ("client-cert-chain", ":bGll:")];
        let mut line = world.line(over, &one, "site.example");
        let answer = line.try_ask("site.example", "/a", &lie).unwrap();
        assert_eq!(answer.expect(200, "absent").body, "secret", "{over:?}");
        play.origin_last_saw(|seen| told(seen, &one));
        assert_eq!(
            world.ask(over, &another, "/a").expect(200, "fresh").body,
            "secret",
            "{over:?}: it is shared"
        );
        world.ask(over, &nobody, "/a").expect(403, "client-certificate");
        play.origin_saw(1);
    }
}

#[test]
fn a_certificate_that_is_not_good_ends_the_handshake() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut play = stage(&ca, &other);
    let world = World::of(&mut play);
    let bad = [other.somebody(), ca.client((2026, 12, 31))];
    for (over, client) in ALL.into_iter().flat_map(|over| bad.iter().map(move |client| (over, client))) {
        world.refused(over, client);
        assert!(client.asked() > 0);
    }
    let series = "perigee_tls_handshakes_total{result=\"client-certificate\"} 8\n";
    wait_for("the count", || play.handle().registry().render().contains(series));
    play.origin_saw_nothing();
}

#[test]
fn several_authorities_may_stand_in_one_file() {
    let (ca, second) = (Ca::new(), Ca::new());
    std::fs::write(&ca.file, format!("{}\n{}", ca.pem, second.pem)).unwrap();
    let mut play = stage(&ca, &second);
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").always().body("a"));
    let world = World::of(&mut play);
    for client in [ca.somebody(), second.somebody()] {
        world.ask(Over::Http2, &client, "/a").passes();
        play.origin_last_saw(|seen| told(seen, &client));
    }
}

#[test]
fn a_connection_for_another_site_is_sent_elsewhere() {
    let (ca, other) = (Ca::new(), Ca::new());
    // The same authority: what another site was shown is still not shown to this one.
    for others in [&other, &ca] {
        let mut play = stage(&ca, others);
        play.origin(|o| {
            o.get("/open/a").header("Cache-Control", "no-store").always().body("open");
            o.get("/a").header("Cache-Control", "no-store").always().body("a");
        });
        let world = World::of(&mut play);
        for over in ALL {
            let client = others.somebody();
            for name in ["other.example", "open.example"] {
                let mut line = world.line(over, &client, name);
                line.ask("site.example", "/a").expect(421, "misdirected");
                line.ask("site.example", "/optional/a").expect(421, "misdirected");
                line.ask("site.example", "/open/a").passes();
                play.origin_last_saw(|seen| _ = seen.no_header("Client-Cert"));
                line.ask(name, "/a").passes();
                match name {
                    "other.example" => play.origin_last_saw(|seen| told(seen, &client)),
                    _ => play.origin_last_saw(|seen| _ = seen.no_header("Client-Cert")),
                };
            }
            if over != Over::Http3 {
                // Who names no host is shown the first certificate, and asked for none.
                let mut line = world.line(over, &ca.somebody(), "127.0.0.1");
                line.ask("site.example", "/a").expect(421, "misdirected");
            }
            let member = ca.somebody();
            let mut line = world.line(over, &member, "www.site.example");
            line.ask("site.example", "/a").passes();
            play.origin_last_saw(|seen| told(seen, &member));
        }
    }
}

#[test]
fn a_resumed_session_keeps_its_visitor_and_nobody_elses() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut play = stage(&ca, &other);
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").always().body("a"));
    let world = World::of(&mut play);
    for over in ALL {
        let (one, another, nobody) = (ca.somebody(), ca.somebody(), Client::nobody());
        for _ in 0..3 {
            for client in [&one, &another] {
                world.ask(over, client, "/a").passes();
                play.origin_last_saw(|seen| told(seen, client));
            }
            world.ask(over, &nobody, "/a").expect(403, "client-certificate");
        }
        assert_eq!(
            [one.asked(), another.asked(), nobody.asked()],
            [1, 1, 1],
            "{over:?}: sessions are resumed"
        );
    }
}

#[test]
fn a_session_of_another_site_is_not_resumed() {
    let (ca, other) = (Ca::new(), Ca::new());
    // With the same authority nothing but the name is another.
    for others in [&other, &ca] {
        let mut play = stage(&ca, others);
        play.origin(|o| o.get("/a").header("Cache-Control", "no-store").always().body("a"));
        let world = World::of(&mut play);
        for over in ALL {
            for name in ["other.example", "open.example"] {
                let client = others.somebody().confusing();
                world.line(over, &client, name).ask(name, "/a").passes();
                let before = client.asked();
                let asked = Line::to(&world, over, &client, "site.example")
                    .and_then(|mut line| line.try_ask("site.example", "/a", &[]));
                assert_eq!(client.asked(), before + 1, "{over:?}: a full handshake");
                match std::ptr::eq(others, &ca) {
                    true => _ = asked.unwrap().passes(),
                    false => assert!(asked.is_err(), "{over:?}: {asked:?}"),
                }
            }
        }
    }
}

#[test]
fn a_certificate_that_ends_or_is_believed_no_longer_passes_nowhere() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut play = stage(&ca, &other);
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").always().body("a"));
    let world = World::of(&mut play);
    let clients = || ALL.map(|over| (over, ca.client((2027, 1, 16))));
    let (short, long) = (clients(), ALL.map(|over| (over, ca.somebody())));
    let mut lines: Vec<(Line<'_>, bool)> = Vec::new();
    for (is_short, (over, client)) in
        short.iter().map(|one| (true, one)).chain(long.iter().map(|one| (false, one)))
    {
        let mut line = world.line(*over, client, "site.example");
        line.ask("site.example", "/a").passes();
        lines.push((line, is_short));
    }
    let below = ALL.map(|over| (over, ca.client_of_intermediate((2027, 1, 16))));
    for (over, client) in &below {
        world.ask(*over, client, "/a").passes();
    }
    play.pass(Duration::from_secs(86_400));
    for (line, is_short) in &mut lines {
        match is_short {
            true => line.ask("site.example", "/a").expect(403, "client-certificate"),
            false => line.ask("site.example", "/a").passes(),
        };
    }
    for (over, client) in short.iter().chain(&below) {
        // The session is resumed or not; a certificate of it has ended in either case.
        let asked = Line::to(&world, *over, client, "site.example")
            .and_then(|mut line| line.try_ask("site.example", "/a", &[]));
        assert!(asked.as_ref().map_or(true, |answer| answer.status == 403), "{over:?}: {asked:?}");
    }
    std::fs::write(&ca.file, &other.pem).unwrap();
    play.reconfigure(&config(&ca.file, &other.file));
    for (line, _) in lines.iter_mut().filter(|(_, is_short)| !is_short) {
        line.ask("site.example", "/a").expect(421, "misdirected");
    }
    for (over, client) in &long {
        let before = client.asked();
        world.refused(*over, client);
        assert_eq!(client.asked(), before + 1, "{over:?}: its session is not resumed");
    }
    world.ask(Over::Http2, &other.somebody(), "/a").passes();
}

#[test]
fn a_session_from_before_a_site_asked_is_not_resumed() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut play = stage(&ca, &other);
    let asking = config(&ca.file, &other.file);
    play.config(&asking.replace("\"required\"", "\"off\"").replace("\"optional\"", "\"off\""));
    play.origin(|o| o.get("/a").header("Cache-Control", "no-store").always().body("a"));
    let world = World::of(&mut play);
    let clients = ALL.map(|over| (over, ca.somebody()));
    for (over, client) in &clients {
        world.ask(*over, client, "/a").passes();
        play.origin_last_saw(|seen| _ = seen.no_header("Client-Cert"));
        assert_eq!(client.asked(), 0);
    }
    play.reconfigure(&asking);
    for (over, client) in &clients {
        world.ask(*over, client, "/a").passes();
        play.origin_last_saw(|seen| told(seen, client));
        assert_eq!(client.asked(), 1, "{over:?}");
    }
}

#[test]
fn an_optional_certificate_is_told_to_the_origin_which_may_vary_by_it() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut play = stage(&ca, &other);
    play.origin(|o| {
        for body in ["one", "another", "nobody"] {
            o.get("/optional/a")
                .header("Cache-Control", "max-age=60")
                .header("Vary", "Client-Cert")
                .body(body);
        }
        o.get("/optional/all")
            .header("Cache-Control", "max-age=60")
            .header("Vary", "Accept-Language")
            .body("all");
    });
    let world = World::of(&mut play);
    let (one, another, nobody) = (ca.somebody(), ca.somebody(), Client::nobody());
    for (client, body) in [(&one, "one"), (&another, "another"), (&nobody, "nobody")] {
        let answer = world.ask(Over::Http2, client, "/optional/a");
        assert_eq!((answer.status, &*answer.body, answer.field("vary")), (200, body, Some("*")));
    }
    play.origin_last_saw(|seen| _ = seen.no_header("Client-Cert"));
    for over in ALL {
        for (client, body) in [(&one, "one"), (&another, "another"), (&nobody, "nobody")] {
            assert_eq!(world.ask(over, client, "/optional/a").expect(200, "fresh").body, body);
        }
        // A visitor's word for who it is counts for nothing.
        let lie = [("client-cert", &*one.field())];
        let mut line = world.line(over, &nobody, "site.example");
        let answer = line.try_ask("site.example", "/optional/a", &lie).unwrap();
        assert_eq!(answer.expect(200, "fresh").body, "nobody", "{over:?}");
        assert_eq!(world.ask(over, &one, "/optional/all").field("vary"), Some("Accept-Language"));
    }
    play.origin_saw(4);
}

#[test]
fn who_comes_without_tls_can_show_nothing() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut play = stage(&ca, &other);
    play.origin(|o| {
        o.get("/optional/a").header("Cache-Control", "max-age=60").body("a");
        o.get("/open/a").header("Cache-Control", "max-age=60").body("open");
    });
    let client = play.visitor();
    let lie =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: site.example\r\nClient-Cert: :bGll:\r\n\r\n");
    client.raw(lie("/a")).status(403).why("client-certificate");
    client.raw(lie("/optional/a")).status(200).why("absent");
    play.origin_last_saw(|seen| _ = seen.no_header("Client-Cert"));
    client.raw(lie("/open/a")).status(200).why("absent");
    play.origin_last_saw(|seen| _ = seen.no_header("Client-Cert"));
    client.raw(lie("/moved")).status(301).header("Location", "https://site.example/moved");
    let world = World::of(&mut play);
    world.ask(Over::Http2, &Client::nobody(), "/moved").expect(403, "client-certificate");
    assert_eq!(world.ask(Over::Http2, &ca.somebody(), "/moved").field("location"), Some("/elsewhere"));
}
