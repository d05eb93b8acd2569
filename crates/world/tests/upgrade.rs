//! WebSocket through the edge: after 101 the connection belongs to the two ends, byte for byte.

#![expect(clippy::unwrap_used, reason = "a socket that fails fails the test")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use edge::{Clock, Edge};
use model::Snapshot;
use world::edges::{options, read_head};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: site.example\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";

/// An edge before an origin that serves one connection with `serve`; what the visitor gets from `visit`.
fn play<T>(serve: impl FnOnce(TcpStream) + Send + 'static, visit: impl FnOnce(TcpStream) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut snapshot = Snapshot::for_origin(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    snapshot.edge.workers = Some(1);
    let origin = thread::spawn(move || serve(listener.accept().unwrap().0));
    let edge = Edge::start(snapshot, options(Clock::system())).unwrap();
    let seen = visit(TcpStream::connect(edge.addresses()[0]).unwrap());
    origin.join().unwrap();
    edge.stop(std::time::Duration::from_secs(5));
    seen
}

#[test]
fn after_101_both_ends_speak_through_the_edge() {
    let serve = |mut stream: TcpStream| {
        let asked = read_head(&mut stream).unwrap().to_ascii_lowercase();
        assert!(
            asked.contains("upgrade: websocket\r\n") && asked.contains("connection: upgrade\r\n"),
            "{asked}"
        );
        assert!(asked.contains("sec-websocket-key: x3jjhmbdl1ezlkh9gbhxdw==\r\n"), "{asked}");
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\nfirst";
        stream.write_all(agreed.as_bytes()).unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word.map(|byte| byte.to_ascii_uppercase())).unwrap();
    };
    play(serve, |mut stream| {
        // The first bytes of the other protocol may come with the request.
        stream.write_all(format!("{ASK}hello").as_bytes()).unwrap();
        let head = read_head(&mut stream).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("detail=upgrade"), "{head}");
        assert!(head.contains("sec-websocket-accept: hsmrc0smlyukagmm5oppg2hagwk=\r\n"), "{head}");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"firstHELLO");
    });
}

#[test]
fn an_origin_that_declines_answers_as_usual() {
    let serve = |mut stream: TcpStream| {
        read_head(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").unwrap();
    };
    play(serve, |mut stream| {
        stream.write_all(ASK.as_bytes()).unwrap();
        let head = read_head(&mut stream).unwrap();
        assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("Content-Length: 2\r\n"), "{head}");
        let mut body = [0; 2];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"no");
    });
}
