//! The origin side against real sockets on loopback. An origin is a script: what it does on its first connection, on
//! its second, and so on. Nothing sleeps: tests wait for states, each with a bound; time-outs under test are small.

mod events;
mod failing;
mod framing;
mod http2;
mod keeping;
mod secure;
mod sending;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::{Origin, OriginGroup};
use semantics::{Fields, Wall};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::error::Fault;
use super::*;
use crate::clock::Clock;

/// Runs `test` on a runtime like a worker's. No test may take longer than this.
fn play(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        timeout(Duration::from_secs(20), test).await.expect("the test took too long");
    }));
}

/// Waits until `state` holds.
async fn until(what: &str, state: impl Fn() -> bool) {
    let waiting = async {
        while !state() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// What a scripted origin does next on a connection.
#[derive(Clone)]
enum Act {
    /// Reads a request's head and body (by its framing) and notes it.
    Read,
    /// Reads a request's head alone and notes it.
    ReadHead,
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Says nothing more until the test is over.
    Hang,
    /// Waits for the test.
    Wait(Rc<Notify>),
    /// Closes with a reset instead of an end.
    Reset,
    /// Sends back whatever comes.
    Echo,
}

use Act::{Echo, Hang, Read, ReadHead, Reset, Wait};

fn send(bytes: impl AsRef<[u8]>) -> Act {
    Act::Send(bytes.as_ref().to_vec())
}

/// A scripted origin. After the last act of a connection it closes it; connections beyond the script are closed at
/// once.
struct Scripted {
    port: u16,
    seen: Rc<RefCell<Vec<String>>>,
    connections: Rc<Cell<usize>>,
    ended: Rc<Cell<usize>>,
}

impl Scripted {
    async fn start(script: Vec<Vec<Act>>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let origin = Scripted { port, seen: Rc::default(), connections: Rc::default(), ended: Rc::default() };
        let (seen, connections, ended) =
            (origin.seen.clone(), origin.connections.clone(), origin.ended.clone());
        tokio::task::spawn_local(async move {
            let mut script = script.into_iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.set(connections.get() + 1);
                let acts = script.next().unwrap_or_default();
                let (seen, ended) = (seen.clone(), ended.clone());
                tokio::task::spawn_local(async move {
                    let reset = acts.iter().any(|act| matches!(act, Reset));
                    if perform(&mut stream, acts, &seen).await.is_ok() && reset {
                        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    } else if !reset {
                        let _ = stream.shutdown().await;
                    }
                    drop(stream);
                    ended.set(ended.get() + 1);
                });
            }
        });
        origin
    }

    fn origin(&self) -> Origin {
        let mut origin = Origin::parse(&format!("http://127.0.0.1:{}", self.port)).unwrap();
        origin.timeouts.first_byte = Duration::from_secs(10);
        origin
    }

    fn group(&self) -> OriginGroup {
        OriginGroup::of(self.origin())
    }

    fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }

    /// First lines of the requests seen.
    fn asked(&self) -> Vec<String> {
        self.seen().iter().map(|request| request.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

async fn perform(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    acts: Vec<Act>,
    seen: &RefCell<Vec<String>>,
) -> io::Result<()> {
    for act in acts {
        match act {
            Read => {
                let request = read_request(stream, true).await?;
                seen.borrow_mut().push(request);
            }
            ReadHead => {
                let request = read_request(stream, false).await?;
                seen.borrow_mut().push(request);
            }
            Act::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Hang => std::future::pending().await,
            Wait(notify) => notify.notified().await,
            Reset => return Ok(()),
            Echo => {
                let mut buffer = [0; 1024];
                loop {
                    let read = stream.read(&mut buffer).await?;
                    if read == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buffer[..read]).await?;
                }
            }
        }
    }
    Ok(())
}

/// A request's text, with its body as it was framed.
async fn read_request(stream: &mut (impl AsyncRead + Unpin), body: bool) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        let whole = text.windows(4).position(|window| window == b"\r\n\r\n").is_some_and(|end| {
            let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
            let chunked = head.contains("transfer-encoding: chunked");
            let rest = &text[end + 4..];
            let chunks_end = || {
                let last = rest.windows(3).position(|window| window == b"0\r\n");
                last.is_some_and(|_| rest.ends_with(b"\r\n\r\n"))
            };
            !body || rest.len() >= length && (!chunked || chunks_end())
        });
        if whole {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        if stream.read_buf(&mut text).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// An origin that takes no connection, for as long as the socket lives: bound, so that nobody else gets the port, and
/// not listening.
fn refusing() -> (socket2::Socket, Origin) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, Origin::parse(&format!("http://{address}")).unwrap())
}

/// A group whose breaker opens after failures in a row, also in one moment.
fn hasty(mut group: OriginGroup) -> OriginGroup {
    group.breaker.row_ms = 0;
    group
}

/// A worker's origins on a clock that the test moves.
fn origins() -> (Origins, Clock) {
    let clock = Clock::manual(Wall::from_secs(1_000_000));
    (Origins::new(Arc::new(OriginsShared::new(clock.clone(), Arc::default(), &[], false))), clock)
}

fn get(target: &str) -> OriginRequest {
    request("GET", target)
}

fn request(method: &str, target: &str) -> OriginRequest {
    OriginRequest {
        method: method.into(),
        target: target.into(),
        host: "www.shop.example".into(),
        fields: Fields::new(),
        body: RequestBody::Empty,
        retry_safe: matches!(method, "GET" | "HEAD" | "OPTIONS"),
        takes_trailers: false,
        on_behalf_of: None,
        upgrade: None,
        patience: None,
        askers: Askers::default(),
    }
}

/// Reads a body to its end: its bytes, and how it ended.
async fn read_body(response: &mut OriginResponse) -> (String, Result<(), FetchErrorKind>) {
    let mut bytes = Vec::new();
    let end = loop {
        match response.body.chunk().await {
            Some(Ok(chunk)) => bytes.extend_from_slice(&chunk),
            Some(Err(error)) => break Err(error.kind()),
            None => break Ok(()),
        }
    };
    (String::from_utf8_lossy(&bytes).into_owned(), end)
}

/// One fetch as a line: `200 [length] "body"`, with what cut it short, or the error's name.
async fn fetch_line(origins: &Origins, group: &OriginGroup, request: OriginRequest) -> String {
    match origins.fetch(group, request, |_, _| {}).await {
        Ok(mut response) => {
            let (body, end) = read_body(&mut response).await;
            let length = response.length.map_or(String::new(), |length| format!(" [{length}]"));
            let end = end.map_or_else(|kind| format!(" then {}", kind.as_str()), |()| String::new());
            format!("{}{length} {body:?}{end}", response.status)
        }
        Err(error) => error.kind().as_str().to_owned(),
    }
}

#[test]
fn who_waits_for_an_origin_takes_little_room() {
    let ((origins, _), (_socket, origin)) = (origins(), refusing());
    let group = OriginGroup::of(origin);
    let fetching = origins.fetch(&group, get("/"), |_, _| {});
    crate::sizes::check("each fetch from an origin", size_of_val(&*fetching), 4_104);
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
