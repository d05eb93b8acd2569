//! The visitors of `bench/upgrade.sh` that speak HTTP/2 and HTTP/3: they check each byte of each answer.
//! `visitors h2|h3 PORT SEED NEW KEPT DOWNLOADS SECONDS DOWNLOAD_SECONDS`
//!
//! `NEW` connections with one request each, spread over `SECONDS`; `KEPT` ones that ask again and again for as long; `DOWNLOADS`
//! that take `DOWNLOAD_SECONDS`, half of them slow at the origin, half at the visitor. Prints what came of them as one line of
//! JSON: the same counts as `bench/upgrade_load.py`, by the same rules, and each failure with its time and kind.
//!
//! A connection that says goodbye (GOAWAY) is left before the next request. A request that came too late is asked again where the
//! RFCs say that it was not processed: REFUSED_STREAM or a stream above the last one of GOAWAY (RFC 9113 §6.8, §8.7),
//! H3_REQUEST_REJECTED or a connection that was closed with H3_NO_ERROR before the answer began (RFC 9114 §4.1.1, §5.2).
//! That is counted apart. Everything else that is not the whole right answer is a failure.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use h3_quinn::OpenStreams;
use http::Request;
use quinn::Endpoint;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

const USAGE: &str = "visitors h2|h3 PORT SEED NEW KEPT DOWNLOADS SECONDS DOWNLOAD_SECONDS";

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Milliseconds between two requests on a kept connection.
const KEPT_PAUSE: std::ops::Range<u64> = 200..1800;
/// Sockets of HTTP/3 that connections share: enough for each of the server's workers to get its part of them, and few, as the
/// library holds 3 MiB for what each of them receives.
const ENDPOINTS: usize = 16;
const PIECE: usize = 64 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, numbers @ ..] = &arguments[..] else { panic!("usage: {USAGE}") };
    let numbers: Vec<u64> = numbers
        .iter()
        .map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}; {USAGE}")))
        .collect();
    let [port, seed, new, kept, downloads, seconds, download_seconds] = numbers[..] else {
        panic!("usage: {USAGE}")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let entered = runtime.enter();
    let endpoints = (0..ENDPOINTS).map(|_| Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket"));
    let visitors = Rc::new(Visitors {
        endpoints: endpoints.collect(),
        next_endpoint: Cell::new(0),
        address: ([127, 0, 0, 1], u16::try_from(port).expect("a port")).into(),
        is_http3: match &protocol[..] {
            "h2" => false,
            "h3" => true,
            other => panic!("{other}: unknown; {USAGE}"),
        },
        tls: TlsConnector::from(Arc::new(world::trusting::client(b"h2"))),
        quic: world::trusting::quic(),
        tally: RefCell::default(),
        chance: Cell::new(seed.wrapping_mul(2) | 1),
    });
    drop(entered);
    let run = visitors.clone().run(new, kept, downloads, seconds, download_seconds);
    LocalSet::new().block_on(&runtime, run);
    println!("{}", serde_json::to_string(&*visitors.tally.borrow()).expect("numbers and words"));
}

/// What happened.
#[derive(Default, Serialize)]
struct Tally {
    new: u64,
    kept: u64,
    told_to_close: u64,
    asked_again: u64,
    downloads: u64,
    failed: Vec<Failure>,
}

/// A request without its whole right answer.
#[derive(Serialize)]
struct Failure {
    /// When it was begun, connection included, and when it was known to have failed: seconds since the Unix epoch.
    began: f64,
    ended: f64,
    /// Where it stood, and what went wrong: few different texts.
    kind: String,
    /// Who wanted what.
    what: String,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Why there is no answer.
enum Missing {
    /// The connection takes no requests any more; nothing was sent.
    Leaving,
    /// It was not processed.
    NotProcessed,
    Failed(String),
}

fn failed(error: impl Display) -> Missing {
    Missing::Failed(error.to_string())
}

// --- What they do ---

struct Visitors {
    address: SocketAddr,
    is_http3: bool,
    tls: TlsConnector,
    quic: quinn::ClientConfig,
    endpoints: Vec<Endpoint>,
    next_endpoint: Cell<usize>,
    tally: RefCell<Tally>,
    chance: Cell<u64>,
}

impl Visitors {
    async fn run(self: Rc<Self>, new: u64, kept: u64, downloads: u64, seconds: u64, download_seconds: u64) {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(seconds);
        let mut tasks: Vec<_> = (0..kept).map(|_| spawn_local(self.clone().keep(end))).collect();
        tasks.extend(
            (0..downloads).map(|number| spawn_local(self.clone().download(number, download_seconds))),
        );
        for number in 0..new {
            sleep_until((begin + Duration::from_secs(seconds).mul_f64(number as f64 / new as f64)).into())
                .await;
            let visitors = self.clone();
            tasks.push(spawn_local(async move {
                let (path, began) = (format!("/small/{}", number % 1000), now());
                let asked = timeout(PATIENCE, visitors.ask_on(&mut None, &path, None)).await;
                visitors.note(began, asked, &format!("new connection, {path}"), |tally| tally.new += 1);
            }));
        }
        for task in tasks {
            task.await.expect("no visitor panics");
        }
        for endpoint in &self.endpoints {
            // Until the server has heard of the ends.
            endpoint.wait_idle().await;
        }
    }

    async fn keep(self: Rc<Self>, end: Instant) {
        let mut connection = None;
        sleep(Duration::from_millis(self.chance(0..KEPT_PAUSE.end))).await;
        while Instant::now() < end {
            let (path, began) = (format!("/small/{}", self.chance(0..1000)), now());
            let asked = timeout(PATIENCE, self.ask_on(&mut connection, &path, None)).await;
            if !matches!(asked, Ok(Ok(()))) {
                connection = None;
            }
            self.note(began, asked, &format!("kept connection, {path}"), |tally| tally.kept += 1);
            sleep(Duration::from_millis(self.chance(KEPT_PAUSE))).await;
        }
    }

    async fn download(self: Rc<Self>, number: u64, seconds: u64) {
        let is_slow_origin = number.is_multiple_of(2);
        let path = match is_slow_origin {
            true => format!("/slow/{number}?{seconds}"),
            false => format!("/large/{}", number % 8),
        };
        let pause = (!is_slow_origin).then(|| Duration::from_secs(seconds) / (LARGE / PIECE) as u32);
        let began = now();
        let asked =
            timeout(PATIENCE + 3 * Duration::from_secs(seconds), self.ask_on(&mut None, &path, pause)).await;
        self.note(began, asked, &format!("download {path}"), |tally| tally.downloads += 1);
    }

    /// Asks, on a new connection where there is none or it is over, and checks what comes.
    async fn ask_on(
        &self,
        connection: &mut Option<Connection>,
        path: &str,
        pause: Option<Duration>,
    ) -> Result<(), String> {
        // The first attempt may find that the connection is over, and each other one that it has just begun to be.
        for _ in 0..3 {
            if connection.is_none() {
                *connection = Some(self.connect().await?);
            }
            let Some(open) = connection else { continue };
            let mut checked = Checked::new(path);
            match open.get(path, &mut checked, pause).await {
                Ok(()) => return checked.end(),
                Err(Missing::Failed(reason)) => {
                    let place = if checked.at == 0 { "before" } else { "in" };
                    return Err(format!("{place} the answer: {reason}"));
                }
                Err(Missing::Leaving) => self.tally.borrow_mut().told_to_close += 1,
                Err(Missing::NotProcessed) => self.tally.borrow_mut().asked_again += 1,
            }
            *connection = None;
        }
        Err("not processed three times".to_owned())
    }

    fn note(
        &self,
        began: f64,
        asked: Result<Result<(), String>, tokio::time::error::Elapsed>,
        what: &str,
        count: impl FnOnce(&mut Tally),
    ) {
        let mut tally = self.tally.borrow_mut();
        let kind = match asked {
            Ok(Ok(())) => return count(&mut tally),
            Ok(Err(reason)) => reason,
            Err(_) => format!("no end after {PATIENCE:?}"),
        };
        tally.failed.push(Failure { began, ended: now(), kind, what: what.to_owned() });
    }

    /// A number in a range (xorshift64).
    fn chance(&self, range: std::ops::Range<u64>) -> u64 {
        let mut state = self.chance.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.chance.set(state);
        range.start + state % (range.end - range.start)
    }

    async fn connect(&self) -> Result<Connection, String> {
        match self.is_http3 {
            false => Http2::connect(self).await.map(Connection::Http2),
            true => Http3::connect(self).await.map(Connection::Http3),
        }
        .map_err(|error| format!("no connection: {error}"))
    }
}

// --- Connections ---

enum Connection {
    Http2(Http2),
    Http3(Http3),
}

impl Connection {
    /// Asks for `path`, with a pause for every [`PIECE`] that is read.
    async fn get(
        &mut self,
        path: &str,
        checked: &mut Checked,
        pause: Option<Duration>,
    ) -> Result<(), Missing> {
        let request = Request::get(format!("https://bench.example{path}")).body(()).map_err(failed)?;
        match self {
            Connection::Http2(http2) => http2.get(request, checked, pause).await,
            Connection::Http3(http3) => http3.get(request, checked, pause).await,
        }
    }
}

async fn rest(pause: Option<Duration>, bytes: usize) {
    if let Some(pause) = pause {
        sleep(pause.mul_f64(bytes as f64 / PIECE as f64)).await;
    }
}

struct Http2 {
    requests: h2::client::SendRequest<Bytes>,
    /// How the connection ended.
    ended: Rc<RefCell<Option<Result<(), h2::Error>>>>,
}

impl Http2 {
    async fn connect(visitors: &Visitors) -> Result<Http2, Box<dyn std::error::Error>> {
        let socket = TcpStream::connect(visitors.address).await?;
        socket.set_nodelay(true)?;
        let stream = visitors.tls.connect("bench.example".try_into()?, socket).await?;
        let (requests, connection) = h2::client::handshake(stream).await?;
        let ended = Rc::new(RefCell::new(None));
        let noted = ended.clone();
        spawn_local(async move {
            let end = connection.await;
            *noted.borrow_mut() = Some(end);
        });
        Ok(Http2 { requests, ended })
    }

    async fn get(
        &mut self,
        request: Request<()>,
        checked: &mut Checked,
        pause: Option<Duration>,
    ) -> Result<(), Missing> {
        if let Err(error) = poll_fn(|context| self.requests.poll_ready(context)).await {
            // Nothing was sent. A connection that ended without a goodbye is not one that says it.
            return Err(match &*self.ended.borrow() {
                None | Some(Ok(())) => Missing::Leaving,
                _ if is_goodbye(&error) => Missing::Leaving,
                Some(Err(end)) => failed(format!("{error}: {end}")),
            });
        }
        let (answer, _) = self.requests.send_request(request, true).map_err(|error| not_processed(&error))?;
        let (head, mut content) = answer.await.map_err(|error| not_processed(&error))?.into_parts();
        if head.status != 200 {
            return Err(failed(head.status));
        }
        while let Some(part) = content.data().await {
            let part = part.map_err(failed)?;
            checked.read(&part).map_err(failed)?;
            rest(pause, part.len()).await;
            content.flow_control().release_capacity(part.len()).map_err(failed)?;
        }
        Ok(())
    }
}

fn is_goodbye(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

/// What an error means that comes before any answer.
fn not_processed(error: &h2::Error) -> Missing {
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if is_refused || is_goodbye(error) { Missing::NotProcessed } else { failed(error) }
}

struct Http3 {
    requests: h3::client::SendRequest<OpenStreams, Bytes>,
    connection: quinn::Connection,
}

impl Http3 {
    async fn connect(visitors: &Visitors) -> Result<Http3, Box<dyn std::error::Error>> {
        let next = visitors.next_endpoint.get();
        visitors.next_endpoint.set(next.wrapping_add(1));
        let endpoint = &visitors.endpoints[next % visitors.endpoints.len()];
        let connecting = endpoint.connect_with(visitors.quic.clone(), visitors.address, "bench.example")?;
        let connection = connecting.await?;
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection.clone())).await?;
        spawn_local(async move {
            poll_fn(|context| driver.poll_close(context)).await;
        });
        Ok(Http3 { requests, connection })
    }

    async fn get(
        &mut self,
        request: Request<()>,
        checked: &mut Checked,
        pause: Option<Duration>,
    ) -> Result<(), Missing> {
        if self.is_closed_well() {
            return Err(Missing::Leaving);
        }
        let mut stream = match self.requests.send_request(request).await {
            Ok(stream) => stream,
            Err(StreamError::RemoteClosing { .. }) => return Err(Missing::Leaving),
            Err(error) => return Err(self.not_processed(&error)),
        };
        stream.finish().await.map_err(|error| self.not_processed(&error))?;
        let head = stream.recv_response().await.map_err(|error| self.not_processed(&error))?;
        if head.status() != 200 {
            return Err(failed(head.status()));
        }
        while let Some(mut part) = stream.recv_data().await.map_err(failed)? {
            let length = part.remaining();
            checked.read(&part.copy_to_bytes(length)).map_err(failed)?;
            rest(pause, length).await;
        }
        Ok(())
    }

    fn is_closed_well(&self) -> bool {
        let no_error = Code::H3_NO_ERROR.value();
        matches!(self.connection.close_reason(),
            Some(quinn::ConnectionError::ApplicationClosed(close)) if close.error_code.into_inner() == no_error)
    }

    /// What an error means that comes before any answer.
    fn not_processed(&self, error: &StreamError) -> Missing {
        match error {
            StreamError::RemoteTerminate { code: Code::H3_REQUEST_REJECTED, .. } => Missing::NotProcessed,
            _ if self.is_closed_well() => Missing::NotProcessed,
            error => failed(error),
        }
    }
}

// --- Answers ---

const SMALL: usize = 1024;
const LARGE: usize = 8 * 1024 * 1024;
const SLOW: usize = 256 * 1024;
const PATTERN: usize = 4096;

/// An answer as far as it has come: what `bench/upgrade_origin.py` sends for the path.
struct Checked {
    pattern: Vec<u8>,
    length: usize,
    at: usize,
}

impl Checked {
    fn new(path: &str) -> Self {
        let mut parts = path.split(['/', '?']).skip(1);
        let length = match parts.next() {
            Some("small") => SMALL,
            Some("large") => LARGE,
            _ => SLOW,
        };
        let number: u64 =
            parts.next().and_then(|number| number.parse().ok()).expect("each path has a number");
        // `body_of` in bench/servers.py.
        let mut state = number + 1;
        let words = (0..PATTERN / 8).flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()
        });
        Checked { pattern: words.collect(), length, at: 0 }
    }

    fn read(&mut self, part: &[u8]) -> Result<(), String> {
        let mut rest = part;
        while !rest.is_empty() {
            let from = self.at % PATTERN;
            let count = rest.len().min(PATTERN - from);
            if rest[..count] != self.pattern[from..from + count] {
                return Err(format!("wrong bytes after {}", self.at));
            }
            self.at += count;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn end(&self) -> Result<(), String> {
        match self.at == self.length {
            true => Ok(()),
            false => Err(format!("{} bytes, wanted {}", self.at, self.length)),
        }
    }
}
