//! Early data (RFC 8446 §2.3, RFC 8470): what a visitor who returns asks with its first bytes, before the handshake is over.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use world::authority::{any_certificate, client_config, connect};
use world::play::{Play, play, wait_until};

const EARLY: &str = "[tls]\nearly_data = true\n";
const NAME: &str = "site.example";
const PATIENCE: Duration = Duration::from_secs(30);

/// A play whose edge takes early data.
fn early_play() -> Play {
    let mut play = play();
    let config = format!("{EARLY}{}", play.config_text());
    play.tls().config(&config);
    play
}

/// A client that remembers sessions and would use them for early data.
fn visitor() -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(client_config().crypto_provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is known")
        .dangerous()
        .with_custom_certificate_verifier(any_certificate())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_early_data = true;
    Arc::new(config)
}

fn address(play: &mut Play) -> SocketAddr {
    play.handle().addresses_tls()[0]
}

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the edge listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
    socket
}

/// A first visit, which leaves tickets.
fn come_once(play: &mut Play, visitor: &Arc<ClientConfig>) {
    let mut stream = connect(address(play), NAME, (**visitor).clone()).expect("a handshake");
    write!(stream, "GET /first HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n")
        .expect("the edge reads");
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
}

/// A visitor who has been there before, and has just sent its first bytes with a request in them.
struct Early {
    connection: ClientConnection,
    socket: TcpStream,
    first: Vec<u8>,
}

impl Early {
    fn begin(play: &mut Play, text: &str) -> Early {
        let visitor = visitor();
        come_once(play, &visitor);
        let name = NAME.try_into().expect("a name");
        let mut connection = ClientConnection::new(visitor, name).expect("TLS begins");
        let mut early = connection.early_data().expect("a session that takes early data is remembered");
        early.write_all(text.as_bytes()).expect("there is room for a request");
        let mut first = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut first).expect("a vector takes all");
        }
        let mut socket = socket(address(play));
        socket.write_all(&first).expect("the edge reads");
        Early { connection, socket, first }
    }

    /// Reads an answer up to its last bytes, and sends nothing meanwhile: not the end of the handshake either.
    fn listen(&mut self, end: &str) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(end.as_bytes()) {
            let count = match self.connection.read_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the edge answers"),
            };
            assert!(count > 0, "the edge closes after {:?}", String::from_utf8_lossy(&answer));
            self.connection.process_new_packets().expect("TLS as it should be");
            let mut part = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = self.connection.reader().read(&mut part) {
                answer.extend_from_slice(&part[..read]);
            }
        }
        String::from_utf8(answer).expect("text")
    }

    /// Ends the handshake, and asks as anybody else does.
    fn ask(&mut self, text: &str) {
        rustls::Stream::new(&mut self.connection, &mut self.socket)
            .write_all(text.as_bytes())
            .expect("the edge reads");
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n")
}

#[test]
fn who_returns_is_answered_before_the_handshake_is_over() {
    let mut play = early_play();
    play.origin(|o| {
        o.get("/first").reply(404);
        o.get("/a").header("Cache-Control", "max-age=60").body("the answer");
    });
    let mut early = Early::begin(&mut play, &get("/a"));
    let answer = early.listen("the answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(early.connection.is_early_data_accepted());
    play.origin_last_saw(|seen| {
        seen.header("Early-Data", "1");
    });
    early.ask(&get("/a"));
    let again = early.listen("the answer");
    assert!(again.contains("; hit"), "{again}");
    let resumed = "perigee_tls_handshakes_total{result=\"tls1.3-resumed\"} 1\n";
    wait_until("the count", || play.handle().registry().render().contains(resumed));
}

#[test]
fn what_is_sent_again_by_somebody_else_is_not_answered_again() {
    let mut play = early_play();
    play.origin(|o| {
        o.get("/first").reply(404);
        o.get("/a").header("Cache-Control", "no-store").body("the answer").always();
    });
    let mut early = Early::begin(&mut play, &get("/a"));
    early.listen("the answer");
    let mut replay = socket(address(&mut play));
    replay.write_all(&early.first).expect("the edge reads");
    replay.shutdown(std::net::Shutdown::Write).expect("the edge is told that no more comes");
    // A handshake is begun with it, which it cannot go on with.
    let _ = replay.read_to_end(&mut Vec::new());
    play.origin_saw(2);
}

#[test]
fn what_changes_something_waits_for_the_handshake() {
    let mut play = early_play();
    play.origin(|o| {
        o.get("/first").reply(404);
        o.post("/form").reply(201).body("taken");
    });
    let post = format!("POST /form HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 0\r\n\r\n");
    let refused = Early::begin(&mut play, &post).listen("</html>\n");
    assert!(refused.starts_with("HTTP/1.1 425 "), "{refused}");
    let mut stream = connect(address(&mut play), NAME, (*visitor()).clone()).expect("a handshake");
    write!(stream, "{post}").expect("the edge reads");
    let mut status = [0; 13];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 201 ");
    play.origin_last_saw(|seen| {
        seen.no_header("Early-Data");
    });
}

#[test]
fn a_websocket_is_not_opened_before_the_handshake_is_over() {
    let mut play = early_play();
    play.origin(|o| o.get("/first").reply(404));
    let wanted = "Upgrade: websocket\r\nConnection: Upgrade, early-data\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let asked = format!("GET /chat HTTP/1.1\r\nHost: {NAME}\r\n{wanted}\r\n\r\n");
    let refused = Early::begin(&mut play, &asked).listen("</html>\n");
    assert!(refused.starts_with("HTTP/1.1 425 "), "{refused}");
}

#[test]
fn those_who_wait_for_an_early_request_that_is_refused_are_one_fetch_again() {
    let gate = world::Gate::new();
    let mut play = early_play();
    play.origin(|o| {
        o.get("/first").reply(404);
        o.get("/a").hold(&gate).reply(425).body("later");
        o.get("/a").header("Cache-Control", "max-age=60").body("the answer");
    });
    let mut early = Early::begin(&mut play, &get("/a"));
    gate.wait_reached();
    let others: Vec<_> = (0..4).map(|_| play.visitor().get("/a").begin()).collect();
    gate.open();
    assert!(early.listen("later").starts_with("HTTP/1.1 425 "));
    for mut other in others {
        other.expect(200);
    }
    // The first visit, the early request, and one for all others.
    play.origin_saw(3);
}

#[test]
fn an_origin_that_wants_to_be_sure_is_asked_again_by_the_visitor() {
    let mut play = early_play();
    play.origin(|o| {
        o.get("/first").reply(404);
        o.get("/a").reply(425).body("later");
        o.get("/a").header("Cache-Control", "max-age=60").body("the answer");
    });
    let mut early = Early::begin(&mut play, &get("/a"));
    let refused = early.listen("later");
    assert!(refused.starts_with("HTTP/1.1 425 "), "{refused}");
    early.ask(&get("/a"));
    let answer = early.listen("the answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    play.origin_last_saw(|seen| {
        seen.no_header("Early-Data");
    });
}

#[test]
fn no_early_data_is_taken_unless_it_is_wanted() {
    let mut play = play();
    play.tls();
    play.origin(|o| o.get("/first").reply(404).always());
    let visitor = visitor();
    come_once(&mut play, &visitor);
    let name = NAME.try_into().expect("a name");
    let mut connection = ClientConnection::new(visitor.clone(), name).expect("TLS begins");
    assert!(connection.early_data().is_none());
}

#[test]
fn who_returns_by_http3_is_answered_too() {
    let mut play = early_play();
    play.origin(|o| {
        o.get("/a").header("Cache-Control", "max-age=60").body("the answer");
        o.post("/form").reply(201).always();
    });
    let (client, was_taken) = play.early_http3();
    let read = client.begin(Method::GET, "/a", &[], &[]);
    let written = client.begin(Method::POST, "/form", &[], b"a form");
    read.wait().expect(200).body("the answer");
    let written = written.wait();
    assert!(was_taken());
    assert!(matches!(written.head.status.as_u16(), 201 | 425), "{:?}", written.head);
    play.origin_last_saw(|seen| {
        let is_form = seen.head.method_and_target().1 == "/form";
        assert!(!is_form || written.head.status == 201);
    });
    client.ask(Method::POST, "/form", &[], b"a form").expect(201);
}
