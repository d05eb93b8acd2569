//! TLS towards visitors: what is offered, sessions that other edges resume, thousands of names.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge::tls::Certificate;
use edge::{Clock, Edge, Handle, Options};
use model::Snapshot;
use model::settings::{CertificateFiles, Ocsp};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion};
use semantics::Wall;
use world::authority::{client_config, connect, shown, shown_staple, wait_for};
use world::edges::{any_port, options};
use world::responder::Responder;

const SITE: &str = "[[site]]\nname = \"shop\"\ndomains = \"*\"\norigin = \"http://127.0.0.1:9\"\n";
const DOMAIN: &str = "www.shop.example";

/// An edge that shows certificates for these names.
fn edge(config: &str, names: &[&str], secret: u8, clock: &Clock) -> Handle {
    let certificate = |name: &&str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let wanted = rcgen::CertificateParams::new([(*name).to_owned()]).unwrap();
        let (chain, key) = (wanted.self_signed(&key).unwrap().pem(), key.serialize_pem());
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    };
    let options = Options {
        listen_tls: Some(vec![any_port()]),
        certificates: names.iter().map(certificate).collect(),
        ticket_secret: vec![secret; 32],
        ..options(clock.clone())
    };
    Edge::start(Snapshot::parse(config, "play.toml").snapshot.expect("a good configuration"), options)
        .unwrap()
}

fn clock() -> Clock {
    Clock::manual(Wall(1_800_000_000_000))
}

fn tls(edge: &Handle) -> SocketAddr {
    edge.addresses_tls()[0]
}

/// A whole exchange; how the handshake went.
fn visit(address: SocketAddr, config: &ClientConfig) -> (HandshakeKind, ProtocolVersion) {
    let mut stream = connect(address, DOMAIN, config.clone()).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n").unwrap();
    // Tickets come with the answer.
    let _ = stream.read_to_end(&mut Vec::new());
    (stream.conn.handshake_kind().unwrap(), stream.conn.protocol_version().unwrap())
}

fn client(version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    let template = client_config();
    let mut config = ClientConfig::builder_with_provider(template.crypto_provider().clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(world::authority::any_certificate())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

#[test]
fn a_session_is_resumed_by_another_edge_with_the_same_secret() {
    let clock = clock();
    let (one, other) = (edge(SITE, &[DOMAIN], 1, &clock), edge(SITE, &[DOMAIN], 1, &clock));
    let foreign = edge(SITE, &[DOMAIN], 2, &clock);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = client(version);
        assert_eq!(visit(tls(&one), &client), (HandshakeKind::Full, version.version));
        assert_eq!(visit(tls(&other), &client), (HandshakeKind::Resumed, version.version), "by another edge");
        clock.advance(Duration::from_secs(8 * 3600));
        assert_eq!(visit(tls(&one), &client).0, HandshakeKind::Resumed, "with the key before");
        clock.advance(Duration::from_secs(16 * 3600));
        assert_eq!(visit(tls(&other), &client).0, HandshakeKind::Full, "its key is gone");
        assert_eq!(visit(tls(&foreign), &client).0, HandshakeKind::Full, "another secret");
    }
    wait_for("the count", || {
        let metrics = other.registry().render();
        metrics.contains("perigee_tls_handshakes_total{result=\"tls1.3-resumed\"} 1\n")
            && metrics.contains("perigee_tls_handshakes_total{result=\"tls1.2-resumed\"} 1\n")
    });
    [one, other, foreign].iter().for_each(|edge| _ = edge.stop(Duration::ZERO));
}

#[test]
fn the_hybrid_key_exchange_is_offered() {
    let edge = edge(SITE, &[DOMAIN], 1, &clock());
    let mut provider = client_config().crypto_provider().as_ref().clone();
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519MLKEM768);
    assert_eq!(provider.kx_groups.len(), 1, "the client knows it");
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(world::authority::any_certificate())
        .with_no_client_auth();
    let stream = connect(tls(&edge), DOMAIN, config).unwrap();
    let group = stream.conn.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    edge.stop(Duration::ZERO);
}

#[test]
fn an_old_version_is_refused_and_counted_by_kind() {
    let edge = edge(&format!("[tls]\nmin_version = \"1.3\"\n{SITE}"), &[DOMAIN], 1, &clock());
    assert!(connect(tls(&edge), DOMAIN, client(&rustls::version::TLS12)).is_err());
    assert!(shown(tls(&edge), "nobody.example").is_err(), "there is no certificate for it");
    let mut stray = std::net::TcpStream::connect(tls(&edge)).unwrap();
    stray.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = stray.read_to_end(&mut Vec::new());
    drop(std::net::TcpStream::connect(tls(&edge)).unwrap());
    assert_eq!(visit(tls(&edge), &client(&rustls::version::TLS13)).1, ProtocolVersion::TLSv1_3);
    for kind in ["nothing-in-common", "no-certificate", "malformed", "closed", "tls1.3"] {
        let series = format!("perigee_tls_handshakes_total{{result=\"{kind}\"}} 1\n");
        wait_for(kind, || edge.registry().render().contains(&series));
    }
    edge.stop(Duration::ZERO);
}

/// Asks without TLS.
fn ask_plain(edge: &Handle, method: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(edge.addresses()[0]).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {DOMAIN}:8080\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn visitors_without_tls_are_redirected_and_those_with_it_are_told_to_stay() {
    let rules = "[[site.rule]]\npath = \"/open/*\"\nhttps = \"optional\"\nredirect = { to = \"/elsewhere\" }\n\
                [[site.rule]]\npath = \"/moved/*\"\nredirect = { to = \"/there\" }\n";
    for (https, is_strict) in [("redirect", false), ("strict", true)] {
        let edge = edge(&format!("{SITE}https = \"{https}\"\n{rules}"), &[DOMAIN], 1, &clock());
        let answer = ask_plain(&edge, "GET", "/a%2Fb?c=d");
        assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
        assert!(answer.contains(&format!("Location: https://{DOMAIN}/a%2Fb?c=d\r\n")), "{answer}");
        assert!(!answer.contains("Strict-Transport-Security"), "never without TLS: {answer}");
        assert!(ask_plain(&edge, "DELETE", "/a").starts_with("HTTP/1.1 308 "), "the method stays");
        let open = ask_plain(&edge, "GET", "/open/a");
        assert!(open.contains("Location: /elsewhere\r\n"), "a rule may say otherwise: {open}");
        let secure = world::authority::get(tls(&edge), DOMAIN, "/moved/a").unwrap();
        assert!(secure.contains("ocation: /there\r\n"), "{secure}");
        edge.stop(Duration::ZERO);
        assert_eq!(secure.contains("Strict-Transport-Security: max-age=31536000\r\n"), is_strict, "{secure}");
    }
}

#[test]
fn an_ocsp_response_is_shown_until_it_ends() {
    let directory = std::env::temp_dir().join(format!("perigee-staple-{}", std::process::id()));
    let Some(responder) = Responder::new(&directory, DOMAIN) else { return };
    let files = CertificateFiles {
        chain: directory.join("chain.pem"),
        key: directory.join("key.pem"),
        ocsp: Some(Ocsp::File(responder.answer(60))),
    };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let clock = Clock::manual(Wall(since.as_millis() as i64));
    let edge = edge(SITE, &[DOMAIN], 1, &clock);
    let wanted = std::fs::read(directory.join("answer.der")).unwrap();
    edge.replace_certificates(vec![Certificate::read(&files).unwrap()]).unwrap();
    assert!(shown_staple(tls(&edge), DOMAIN).unwrap() == wanted);
    clock.advance(Duration::from_secs(59 * 60));
    assert!(shown_staple(tls(&edge), DOMAIN).unwrap() == wanted, "a minute before its end");
    clock.advance(Duration::from_secs(60));
    assert!(shown_staple(tls(&edge), DOMAIN).unwrap().is_empty(), "it has ended");
    responder.say(false);
    let ocsp = Some(Ocsp::File(responder.answer(60)));
    let refused = Certificate::read(&CertificateFiles { ocsp, ..files }).unwrap_err();
    assert_eq!((refused.len(), &*refused[0].what), (1, "says that the certificate has been revoked"));
    edge.stop(Duration::ZERO);
    std::fs::remove_dir_all(&directory).unwrap();
}
