//! WebSocket by extended CONNECT, over HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220), to an origin that is asked over HTTP/1.1.

#![expect(clippy::unwrap_used, reason = "a socket that fails fails the test")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Method, Request};
use world::edges::read_head;
use world::play;
use world::play::{Play, content, speaks_http2, wait_until};

/// A play whose origin serves one connection with `serve`.
fn stage<T: Send + 'static>(
    rules: &str,
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Play, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let mut play = play();
    play.tls()
        .config(&format!("[[site]]\nname = \"site\"\ndomains = [\"*\"]\norigin = \"{origin}\"\n{rules}\n"));
    (play, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

/// Reads the handshake and agrees to it; what was asked.
fn agree(stream: &mut TcpStream) -> String {
    let asked = read_head(stream).unwrap();
    let line = asked.lines().find(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key: "));
    let key = line.unwrap()["sec-websocket-key: ".len()..].to_owned();
    let hash =
        digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    let accept = STANDARD.encode(hash);
    let agreed = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    );
    stream.write_all(agreed.as_bytes()).unwrap();
    asked.to_ascii_lowercase()
}

/// Sends back what comes, until the other side has said all.
fn echo(mut stream: TcpStream) -> String {
    let asked = agree(&mut stream);
    let mut back = stream.try_clone().unwrap();
    std::io::copy(&mut stream, &mut back).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    asked
}

fn connect(protocol: &'static str) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri("https://site.example/chat?room=1")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .header("origin", "https://site.example")
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

/// The next bytes; an empty frame may tell the end.
async fn part(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        let part = body.data().await?;
        if let Ok(part) = &part {
            body.flow_control().release_capacity(part.len()).unwrap();
        }
        if part.as_ref().map_or(true, |part| !part.is_empty()) {
            return Some(part);
        }
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await.unwrap().unwrap();
        stream.send_data(bytes.split_to(room.min(bytes.len())), false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
}

/// The status of what is answered to a request for `protocol`.
fn status(play: &mut Play, protocol: &'static str) -> u16 {
    play.http2().wait(async |mut requests: SendRequest<Bytes>| {
        let (response, _open) = requests.send_request(connect(protocol), false).unwrap();
        response.await.unwrap().status().as_u16()
    })
}

#[test]
fn words_come_back_over_http2_and_the_ends_too() {
    let (mut play, origin) = stage("", echo);
    play.http2().wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut say) = requests.send_request(connect("websocket"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(requests.is_extended_connect_protocol_enabled(), "the edge offers it");
        let field = |name| response.headers().get(name).map(HeaderValue::as_bytes);
        assert_eq!(field("sec-websocket-protocol"), Some(&b"chat"[..]));
        for absent in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
            assert_eq!(field(absent), None, "{absent}");
        }
        let mut body = response.into_body();
        say.send_data("hello".into(), false).unwrap();
        assert_eq!(part(&mut body).await.unwrap().unwrap(), "hello");
        // More than any window holds, both ways at once.
        let words = Bytes::from(content(1, 3_000_000));
        let (sent, wanted) = (words.clone(), words);
        let hear = async {
            let mut heard = Vec::new();
            while let Some(part) = part(&mut body).await {
                heard.extend_from_slice(&part.unwrap());
            }
            heard
        };
        let ((), heard) = tokio::join!(send(&mut say, sent), hear);
        assert!(heard == wanted, "{} bytes came back", heard.len());
    });
    let asked = origin.join().unwrap();
    let registry = play.handle().registry().clone();
    let counted = "perigee_sent_body_bytes_total{site=\"site\",outcome=\"pass\"} 3000005";
    wait_until("the tunnel's bytes to be counted", || registry.render().contains(counted));
    assert!(asked.starts_with("get /chat?room=1 http/1.1\r\n"), "{asked}");
    for line in ["upgrade: websocket", "connection: upgrade", "host: site.example", "via: 2.0 perigee"] {
        assert!(asked.contains(&format!("{line}\r\n")), "{line} in {asked}");
    }
    for line in ["sec-websocket-version: 13", "sec-websocket-protocol: chat", "origin: https://site.example"]
    {
        assert!(asked.contains(&format!("{line}\r\n")), "{line} in {asked}");
    }
}

#[test]
fn a_tunnel_over_http11_is_counted_when_it_has_ended() {
    if speaks_http2() {
        return;
    }
    let (mut play, origin) = stage("", |mut stream| {
        agree(&mut stream);
        let mut word = [0; 5];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
    });
    let mut talk = play.visitor().connect();
    talk.say(
        "GET /chat HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\nhello",
    );
    let heard = String::from_utf8(talk.rest()).unwrap();
    assert!(heard.starts_with("HTTP/1.1 101 ") && heard.ends_with("\r\n\r\nhello"), "{heard}");
    origin.join().unwrap();
    let registry = play.handle().registry().clone();
    let counted = "perigee_sent_body_bytes_total{site=\"site\",outcome=\"pass\"} 5";
    wait_until("the tunnel's bytes to be counted", || registry.render().contains(counted));
}

#[test]
fn how_a_tunnel_over_http11_broke_off_is_told() {
    if speaks_http2() {
        return;
    }
    let ask = "GET /chat HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";
    let (mut play, origin) = stage("", |mut stream| {
        agree(&mut stream);
        stream.read_exact(&mut [0]).unwrap();
        // What was not read makes the close a reset.
    });
    let mut talk = play.visitor().connect();
    talk.say(ask).expect_head(101);
    talk.say("more than one");
    talk.rest();
    origin.join().unwrap();
    told(&mut play, "error", "origin-protocol");

    let (mut play, origin) = stage("", |mut stream| {
        agree(&mut stream);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut talk = play.visitor().connect();
    talk.say(ask).expect_head(101);
    talk.reset();
    origin.join().unwrap();
    told(&mut play, "error", "client-gone");
}

/// Waits until one request of the site has been told so.
fn told(play: &mut Play, outcome: &str, why: &str) {
    let registry = play.handle().registry().clone();
    let told = format!("perigee_requests_total{{site=\"site\",outcome=\"{outcome}\",why=\"{why}\"}} 1\n");
    wait_until(&told, || registry.render().contains(&told));
}

#[test]
fn a_visitor_who_leaves_before_the_origin_agrees_is_told_of() {
    let (tell, told_so) = tokio::sync::oneshot::channel();
    let (mut play, origin) = stage("", |mut stream| {
        read_head(&mut stream).unwrap();
        tell.send(()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let client = play.http2();
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut say) = requests.send_request(connect("websocket"), false).unwrap();
        told_so.await.unwrap();
        say.send_reset(Reason::CANCEL);
        assert!(response.await.is_err());
    });
    origin.join().unwrap();
    told(&mut play, "error", "client-gone");
}

#[test]
fn an_origin_that_ends_the_tunnel_ends_the_stream() {
    let (mut play, origin) = stage("", |mut stream| {
        agree(&mut stream);
        stream.write_all(b"bye").unwrap();
    });
    play.http2().wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut say) = requests.send_request(connect("websocket"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(part(&mut body).await.unwrap().unwrap(), "bye");
        assert!(part(&mut body).await.is_none());
        say.send_data("bye".into(), true).unwrap();
    });
    origin.join().unwrap();
}

#[test]
fn an_origin_that_resets_the_tunnel_resets_the_stream() {
    let (mut play, origin) = stage("", |mut stream| {
        agree(&mut stream);
        stream.read_exact(&mut [0]).unwrap();
        // What was not read makes the close a reset.
    });
    play.http2().wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut say) = requests.send_request(connect("websocket"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        say.send_data("more than one".into(), false).unwrap();
        let error = part(&mut body).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CANCEL));
    });
    origin.join().unwrap();
}

#[test]
fn a_visitor_who_resets_the_stream_ends_the_tunnel() {
    let (mut play, origin) = stage("", |mut stream| {
        agree(&mut stream);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    });
    let client = play.http2();
    client.wait(async |mut requests: SendRequest<Bytes>| {
        let (response, mut say) = requests.send_request(connect("websocket"), false).unwrap();
        let _body = response.await.unwrap().into_body();
        say.send_reset(Reason::CANCEL);
    });
    assert_eq!(origin.join().unwrap(), b"");
}

#[test]
fn only_an_origin_that_speaks_websocket_opens_a_tunnel() {
    let answering = |text: &'static str| {
        move |mut stream: TcpStream| {
            read_head(&mut stream).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        }
    };
    for (text, wanted) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n",
            502,
        ),
    ] {
        let (mut play, origin) = stage("", answering(text));
        assert_eq!(status(&mut play, "websocket"), wanted, "{text}");
        origin.join().unwrap();
    }
}

#[test]
fn no_tunnel_is_opened_that_no_rule_lets_pass() {
    let mut play = play();
    play.tls().site("websocket = false");
    assert_eq!(status(&mut play, "websocket"), 501);
    assert_eq!(status(&mut play, "connect-udp"), 501);
    play.origin_saw(0);
}

#[test]
fn words_come_back_over_http3_and_the_ends_too() {
    let (mut play, origin) = stage("", echo);
    let client = play.quic();
    client.say(&[0x00, 0x04, 0x00], false);
    let head = section(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "site.example"),
        ("sec-websocket-version", "13"),
    ]);
    let answer = client.ask(&[&head[..], &[0x00, 0x05], b"hello", &[0x00, 0x05], b"again"].concat());
    // The head is a frame of type 1; behind it all is DATA.
    let (kind, length) = (answer[0], usize::from(u16::from_be_bytes([answer[1], answer[2]]) & 0x3fff));
    assert_eq!((kind, answer[1] >> 6), (1, 1), "{answer:?}");
    let mut rest = &answer[3 + length..];
    let mut words = Vec::new();
    while let [0, length, more @ ..] = rest {
        words.extend_from_slice(&more[..usize::from(*length)]);
        rest = &more[usize::from(*length)..];
    }
    assert_eq!((String::from_utf8_lossy(&words).as_ref(), rest), ("helloagain", &[][..]));
    let asked = origin.join().unwrap();
    assert!(asked.starts_with("get /chat http/1.1\r\n") && asked.contains("via: 3.0 perigee"), "{asked}");
}

/// A HEADERS frame, of literal lines.
fn section(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in lines {
        match name.len() {
            ..7 => section.push(0x20 | name.len() as u8),
            long => section.extend_from_slice(&[0x27, long as u8 - 7]),
        }
        section.extend_from_slice(name.as_bytes());
        section.push(value.len() as u8);
        section.extend_from_slice(value.as_bytes());
    }
    let mut frame = vec![0x01, 0x40 | (section.len() >> 8) as u8, section.len() as u8];
    frame.extend_from_slice(&section);
    frame
}
