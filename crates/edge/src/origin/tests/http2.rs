//! HTTP/2 to origins, over TLS by ALPN and over plain TCP by configuration.

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::mpsc;

use super::secure::Authority;
use super::*;
use crate::tiers::{Certified, TierIdentity};

/// What an HTTP/2 origin saw, and how often it was connected to.
#[derive(Clone, Default)]
struct Seen {
    requests: Rc<RefCell<Vec<String>>>,
    connections: Rc<Cell<usize>>,
    /// Lets `/cut` go on to its reset.
    gate: Rc<Notify>,
}

/// An HTTP/2 origin over TLS that answers by path.
async fn start(authority: &Authority) -> (Origin, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = authority.server("origin.shop.example", &[b"h2", b"http/1.1"]);
    let seen = Seen::default();
    let noted = seen.clone();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            noted.connections.set(noted.connections.get() + 1);
            let (acceptor, noted) = (acceptor.clone(), noted.clone());
            tokio::task::spawn_local(
                async move { serve(acceptor.accept(stream).await.unwrap(), noted).await },
            );
        }
    });
    let mut origin = authority.origin(port, "origin.shop.example");
    origin.http2 = true;
    (origin, seen)
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Seen) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let authority = head.uri.authority().map_or("", |authority| authority.as_str());
        let line = format!("{} {authority} {} {:?}", head.method, head.uri.path(), head.headers.get("host"));
        seen.requests.borrow_mut().push(line);
        let asked = seen.requests.borrow().len();
        if head.uri.path() == "/go-away" && asked == 1 {
            connection.abrupt_shutdown(Reason::NO_ERROR);
            continue;
        }
        let path = head.uri.path().to_owned();
        let gate = seen.gate.clone();
        tokio::task::spawn_local(async move {
            let mut sent = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                sent.extend_from_slice(&data);
            }
            answer(&path, asked, sent, respond, &gate).await;
        });
    }
}

async fn answer(path: &str, asked: usize, sent: Vec<u8>, mut respond: SendResponse<Bytes>, gate: &Notify) {
    let head = |length: Option<&str>| {
        let mut head = http::Response::builder().status(200);
        if let Some(length) = length {
            head = head.header("content-length", length);
        }
        head.body(()).unwrap()
    };
    match path {
        "/refuse" if asked == 3 => respond.send_reset(Reason::REFUSED_STREAM),
        "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/cut" => {
            let mut body = respond.send_response(head(None), false).unwrap();
            body.send_data("hel".into(), false).unwrap();
            gate.notified().await;
            body.send_reset(Reason::INTERNAL_ERROR);
        }
        "/short" => {
            let mut body = respond.send_response(head(Some("5")), false).unwrap();
            body.send_data("hel".into(), true).unwrap();
        }
        "/trailers" => {
            let mut body = respond.send_response(head(None), false).unwrap();
            body.send_data("ok".into(), false).unwrap();
            body.send_trailers(http::HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                http::HeaderValue::from_static("7"),
            )]))
            .unwrap();
        }
        _ => {
            let body = if sent.is_empty() { b"ok".to_vec() } else { sent };
            let head = head(Some(&body.len().to_string()));
            respond.send_response(head, false).unwrap().send_data(body.into(), true).unwrap();
        }
    }
}

/// An HTTP/2 origin that does not answer a handshake before the test says so, how often it was connected to, and the gate.
async fn slow_to_shake_hands(authority: &Authority) -> (Origin, Rc<Cell<usize>>, Rc<tokio::sync::Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut origin = authority.origin(listener.local_addr().unwrap().port(), "origin.shop.example");
    origin.http2 = true;
    let acceptor = authority.server("origin.shop.example", &[b"h2"]);
    let (connections, gate) = (Rc::new(Cell::new(0)), Rc::new(tokio::sync::Semaphore::new(0)));
    let (noted, opened) = (connections.clone(), gate.clone());
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            noted.set(noted.get() + 1);
            let (acceptor, opened) = (acceptor.clone(), opened.clone());
            tokio::task::spawn_local(async move {
                opened.acquire().await.unwrap().forget();
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, Seen::default()).await;
                }
            });
        }
    });
    (origin, connections, gate)
}

#[test]
fn a_connection_that_is_being_made_outlives_the_requests_that_gave_up_on_it() {
    play(async {
        let authority = Authority::new("h2-slow-hands");
        let (origin, connections, gate) = slow_to_shake_hands(&authority).await;
        let group = OriginGroup::of(origin);
        let (origins, _) = origins();
        let origins = Rc::new(origins);
        let fetch = |path| {
            let (origins, group) = (origins.clone(), group.clone());
            tokio::task::spawn_local(async move { fetch_line(&origins, &group, get(path)).await })
        };
        let asked = [fetch("/1"), fetch("/2"), fetch("/3")];
        until("it is being made", || connections.get() == 1).await;
        for asked in asked {
            asked.abort();
            assert!(asked.await.unwrap_err().is_cancelled());
        }
        gate.add_permits(1);
        until("it is there", || origins.shared.report()[0].counts.connections == 1).await;
        assert_eq!(fetch("/4").await.unwrap(), "200 [2] \"ok\"");
        assert_eq!(connections.get(), 1, "one handshake for all");
    });
}

#[test]
fn another_edge_has_four_times_as_long_to_shake_hands_as_an_origin() {
    play(async {
        let made = rcgen::generate_simple_self_signed(["fra-1".to_owned()]).unwrap();
        let own = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let certified = Certified::default();
        certified.replace(TierIdentity::new([own.clone()], vec![own], key.into()).unwrap());
        let clock = Clock::manual(Wall::from_secs(1_000_000));
        let origins = Origins::new(Arc::new(OriginsShared::new(clock, Arc::new(certified), &[], false)));
        let authority = Authority::new("h2-never-shakes");
        let connect = Duration::from_millis(250);
        for (node, times) in [(None, 1..4), (Some("fra-2"), 4..8)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut origin = authority.origin(listener.local_addr().unwrap().port(), "origin.shop.example");
            origin.http2 = true;
            origin.timeouts.connect = connect;
            origin.tls.node = node.map(Box::from);
            let group = OriginGroup::of(origin);
            let begun = std::time::Instant::now();
            let attempt = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_to_end(&mut Vec::new()).await.unwrap();
                begun.elapsed()
            };
            let (_, lasted) = tokio::join!(fetch_line(&origins, &group, get("/")), attempt);
            assert!(times.contains(&(lasted.as_millis() / connect.as_millis())), "{node:?}: {lasted:?}");
        }
    });
}

#[test]
fn who_waited_for_a_connection_that_failed_tries_once_more() {
    play(async {
        let authority = Authority::new("h2-first-fails");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut origin = authority.origin(listener.local_addr().unwrap().port(), "origin.shop.example");
        origin.http2 = true;
        let acceptor = authority.server("origin.shop.example", &[b"h2"]);
        let group = OriginGroup::of(origin);
        let (origins, _) = origins();
        let origins = Rc::new(origins);
        let asked: Vec<_> = (0..3)
            .map(|_| {
                let (origins, group) = (origins.clone(), group.clone());
                tokio::task::spawn_local(async move { fetch_line(&origins, &group, get("/a")).await })
            })
            .collect();
        // All wait for it by now: they run before this does again.
        drop(listener.accept().await.unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(async move {
            serve(acceptor.accept(stream).await.unwrap(), Seen::default()).await;
        });
        let mut got = Vec::new();
        for asked in asked {
            got.push(asked.await.unwrap());
        }
        let well = got.iter().filter(|line| *line == "200 [2] \"ok\"").count();
        assert_eq!(well, 2, "{got:?}");
        assert_eq!(origins.shared.report()[0].counts.failures, 1);
    });
}

/// One fetch of `path`, and the lines that the origin saw.
fn check(path: &str, expected: &str, requests: usize) {
    play(async {
        let authority = Authority::new(&format!("h2{}", path.replace('/', "-")));
        let (origin, seen) = start(&authority).await;
        let (origins, _) = origins();
        let line = fetch_line(&origins, &OriginGroup::of(origin), get(path)).await;
        assert_eq!(line, expected, "{path}");
        assert_eq!(seen.requests.borrow().len(), requests, "{:?}", seen.requests);
    });
}

#[test]
fn a_stream_that_is_reset_never_ends_cleanly() {
    play(async {
        let authority = Authority::new("h2-cut");
        let (origin, seen) = start(&authority).await;
        let (origins, _) = origins();
        let mut response = origins.fetch(&OriginGroup::of(origin), get("/cut"), |_, _| {}).await.unwrap();
        assert_eq!(response.body.chunk().await.unwrap().unwrap(), "hel");
        seen.gate.notify_one();
        assert_eq!(read_body(&mut response).await, (String::new(), Err(FetchErrorKind::Truncated)));
    });
    check("/reset", "reset", 1);
}

#[test]
fn trailers_end_a_stream() {
    check("/trailers", "200 \"ok\"", 1);
}

#[test]
fn a_stream_that_the_origin_refused_is_asked_for_again_on_a_kept_connection() {
    play(async {
        let authority = Authority::new("h2-refused");
        let (origin, seen) = start(&authority).await;
        let group = OriginGroup::of(origin);
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &group, get("/a")).await, "200 [2] \"ok\"");
        // A reset of one stream says nothing about its connection, a refusal does.
        assert_eq!(fetch_line(&origins, &group, get("/reset")).await, "reset");
        assert_eq!(fetch_line(&origins, &group, get("/refuse")).await, "200 [2] \"ok\"");
        assert_eq!(seen.connections.get(), 2);
        assert_eq!(seen.requests.borrow().len(), 4);
    });
}

#[test]
fn a_body_shorter_than_its_length_is_an_error() {
    play(async {
        let authority = Authority::new("h2-short");
        let (origin, _) = start(&authority).await;
        let (origins, _) = origins();
        let line = fetch_line(&origins, &OriginGroup::of(origin), get("/short")).await;
        assert!(line.ends_with("then protocol") || line.ends_with("then truncated"), "{line}");
    });
}

#[test]
fn concurrent_requests_share_one_connection() {
    play(async {
        let authority = Authority::new("h2-shared");
        let (origin, seen) = start(&authority).await;
        let group = OriginGroup::of(origin);
        let (origins, _) = origins();
        let origins = Rc::new(origins);
        let fetches: Vec<_> = (0..10)
            .map(|_| {
                let (origins, group) = (origins.clone(), group.clone());
                tokio::task::spawn_local(async move { fetch_line(&origins, &group, get("/a")).await })
            })
            .collect();
        for fetch in fetches {
            assert_eq!(fetch.await.unwrap(), "200 [2] \"ok\"");
        }
        assert_eq!(seen.connections.get(), 1);
        assert_eq!(seen.requests.borrow()[0], "GET www.shop.example /a None");
    });
}

#[test]
fn a_body_goes_up_and_its_answer_comes_down() {
    play(async {
        let authority = Authority::new("h2-upload");
        let (origin, _) = start(&authority).await;
        let (origins, _) = origins();
        let (parts, receiver) = mpsc::channel(2);
        parts.try_send(Ok(BodyPart::Data("hello".into()))).unwrap();
        parts.try_send(Ok(BodyPart::End(Fields::new()))).unwrap();
        let mut upload = request("POST", "/");
        upload.body = RequestBody::Stream { length: Some(5), parts: receiver };
        let group = OriginGroup::of(origin);
        let mut response = origins.fetch(&group, upload, |_, _| {}).await.unwrap();
        assert_eq!(read_body(&mut response).await, ("hello".into(), Ok(())));
    });
}

#[test]
fn a_kept_connection_that_goes_away_is_replaced_for_safe_requests() {
    play(async {
        let authority = Authority::new("h2-away");
        let (origin, seen) = start(&authority).await;
        let group = OriginGroup::of(origin);
        let (origins, _) = origins();
        assert_eq!(fetch_line(&origins, &group, get("/go-away")).await, "reset");
        for _ in 0..2 {
            assert_eq!(fetch_line(&origins, &group, get("/a")).await, "200 [2] \"ok\"");
        }
        assert_eq!(seen.connections.get(), 2);
    });
}

#[test]
fn http2_over_plain_tcp_is_spoken_when_the_configuration_says_so() {
    play(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        origin.http2 = true;
        let seen = Seen::default();
        let noted = seen.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream, noted.clone()));
            }
        });
        let (origins, _) = origins();
        let group = OriginGroup::of(origin);
        for _ in 0..2 {
            assert_eq!(fetch_line(&origins, &group, get("/a")).await, "200 [2] \"ok\"");
        }
        assert_eq!(seen.requests.borrow().len(), 2);
    });
}

#[test]
fn after_an_upgrade_an_origin_still_declines_http2() {
    play(async {
        let authority = Authority::new("h2-declined");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut origin = authority.origin(listener.local_addr().unwrap().port(), "origin.shop.example");
        origin.http2 = true;
        let acceptor = authority.server("origin.shop.example", &[b"http/1.1"]);
        let (connections, gate) = (Rc::new(Cell::new(0)), Rc::new(tokio::sync::Semaphore::new(2)));
        let (noted, opened) = (connections.clone(), gate.clone());
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                noted.set(noted.get() + 1);
                let (acceptor, opened) = (acceptor.clone(), opened.clone());
                tokio::task::spawn_local(async move {
                    opened.acquire().await.unwrap().forget();
                    let mut stream = acceptor.accept(stream).await.unwrap();
                    let asked = read_request(&mut stream, false).await.unwrap();
                    let answer = match asked.contains("Upgrade: ") {
                        true => {
                            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                        }
                        false => "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let _ = stream.shutdown().await;
                });
            }
        });
        let group = OriginGroup::of(origin);
        let (origins, _) = origins();
        let origins = Rc::new(origins);
        assert_eq!(fetch_line(&origins, &group, get("/a")).await, "200 [2] \"ok\"");
        let mut upgrade = get("/chat");
        upgrade.upgrade = Some("websocket".into());
        assert!(origins.fetch(&group, upgrade, |_, _| {}).await.unwrap().tunnel.is_some());
        let asked = [1, 2].map(|_| {
            let (origins, group) = (origins.clone(), group.clone());
            tokio::task::spawn_local(async move { fetch_line(&origins, &group, get("/a")).await })
        });
        until("neither waits for the other", || connections.get() == 4).await;
        gate.add_permits(2);
        for asked in asked {
            assert_eq!(asked.await.unwrap(), "200 [2] \"ok\"");
        }
    });
}
