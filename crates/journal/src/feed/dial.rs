//! Dialling out to controls and relays, and following one of them for as long as it speaks.

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::ControlAddress;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::lines::{Lines, Writer, lines_body};
use super::{BEAT, Down, Hello, Outbox, Report, SILENCE, Up};
use trust::{Identity, pinned_client_config};

/// How long a connection may take until it can be used, and an answer until its head is there.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);

/// A node dials again after a time between 0 and what its control has told it last ([`super::Beat`]), drawn evenly each time
/// (full jitter); within this before it has been told.
const SPREAD: Duration = Duration::from_secs(4);

/// Whatever a control says: a node tries again within this.
const SPREAD_MAX: Duration = Duration::from_secs(20);

/// After a refusal: only an operator can change it.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

/// Questions of one dialer under way, each on a connection of its own; more wait. A control takes 32 connections of a node, of which one is
/// the feed's, and some may be of lines that have swallowed them.
const ASKS_MAX: usize = 16;

/// Lines that are handed to a node together, at most.
const LINES_TOGETHER_MAX: usize = 64;

/// Who follows the journal by a feed.
pub trait Node: Send + Sync + 'static {
    /// Who it is and where it is, at each dial.
    fn hello(&self) -> Hello;

    /// Takes lines in order, as many as have come, so that what they order can be made durable together.
    ///
    /// # Errors
    /// It breaks off and dials anew: why.
    fn told(&self, lines: Vec<Down>) -> Told<'_>;

    /// What it has to say: asked for after each [`Node::told`], each second, and when [`Node::has_news`].
    fn reports(&self) -> Vec<Report>;

    /// Its statistics, which are said after what else it says.
    fn outbox(&self) -> Option<&Outbox> {
        None
    }

    /// Returns when there is something to say before the next second.
    fn has_news(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    /// Is told how it stands with the connection.
    fn link(&self, link: Link<'_>);
}

/// See [`Node::told`].
pub type Told<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// How it stands with the connection.
#[derive(Clone, Copy, Debug)]
pub enum Link<'a> {
    /// It follows this URL.
    Up(&'a str),
    /// It doesn't any more, or could not: which URL, and why.
    Down(&'a str, &'a str),
}

/// Where a node's controls are, and how to speak with them.
pub struct Dialer {
    urls: Vec<String>,
    tls: Box<dyn Fn() -> Result<Arc<rustls::ClientConfig>, rustls::Error> + Send + Sync>,
    asks: Semaphore,
}

impl Dialer {
    /// `identity` is asked at each dial, so that a renewed certificate is used at the next one.
    pub fn new(urls: Vec<String>, identity: impl Fn() -> Arc<Identity> + Send + Sync + 'static) -> Self {
        let tls = Box::new(move || identity().client_config(b"h2"));
        Dialer { urls, tls, asks: Semaphore::new(ASKS_MAX) }
    }

    /// For whoever has no certificate yet and knows the [`fingerprint`](trust::fingerprint) of the authority alone.
    pub fn pinned(urls: Vec<String>, authority: String) -> Self {
        let tls = Box::new(move || pinned_client_config(&authority, &[b"h2"]));
        Dialer { urls, tls, asks: Semaphore::new(ASKS_MAX) }
    }

    /// Asks the controls in turn, from any one on, until one answers 200.
    ///
    /// # Errors
    /// What each of them has said.
    pub async fn get(&self, path: &str, bytes_max: usize) -> Result<Bytes, String> {
        self.ask(Method::GET, path, None, bytes_max).await.and_then(|(status, body)| match status {
            StatusCode::OK => Ok(body),
            _ => Err(format!("{path}: answered {status}: {}", String::from_utf8_lossy(&body))),
        })
    }

    /// As [`Dialer::get`], with any method, content of JSON, and whatever status the first that can be reached answers, unless
    /// it is 404 or 5xx and another one says otherwise.
    ///
    /// # Errors
    /// None can be reached: why not.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        json: Option<Bytes>,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        // It is never closed.
        let _turn = self.asks.acquire().await.ok();
        let mut answer = Err("there is no control to ask".to_owned());
        for url in self.in_turn() {
            let asked = self.ask_one(url, &method, path, json.clone(), bytes_max);
            let next = asked.await.map_err(|why| format!("{url}: {why}"));
            let is_final = matches!(&next, Ok((status, _)) if *status != StatusCode::NOT_FOUND && !status.is_server_error());
            if is_final {
                return next;
            }
            answer = match (answer, next) {
                (Ok(answer), _) | (Err(_), Ok(answer)) => Ok(answer),
                (Err(before), Err(why)) if self.urls.len() > 1 => Err(format!("{before}; {why}")),
                (Err(_), Err(why)) => Err(why),
            };
        }
        answer
    }

    async fn ask_one(
        &self,
        url: &str,
        method: &Method,
        path: &str,
        json: Option<Bytes>,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        let mut connection = self.connect(url).await?;
        let body = json.map_or_else(|| Empty::new().boxed(), |json| http_body_util::Full::new(json).boxed());
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", url.trim_end_matches('/')))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body);
        let request = request.map_err(|error| error.to_string())?;
        let answer = async {
            let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), bytes_max).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        timeout(5 * DIAL_PATIENCE, answer)
            .await
            .unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
    }

    /// All URLs, beginning with any one.
    fn in_turn(&self) -> impl Iterator<Item = &str> {
        let first = chance_below(self.urls.len().max(1) as u64) as usize;
        self.urls.iter().cycle().skip(first).take(self.urls.len()).map(String::as_str)
    }

    async fn connect(
        &self,
        url: &str,
    ) -> Result<SendRequest<BoxBody<Bytes, std::convert::Infallible>>, String> {
        let dialling = async {
            let ControlAddress { host, port } = url.to_owned().try_into()?;
            let name = ServerName::try_from(host.clone()).map_err(|_| format!("{host:?} is no host"))?;
            let tls = (self.tls)().map_err(|error| error.to_string())?;
            let stream =
                TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
            // A small line must not wait for the acknowledgement of the one before.
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| {
                let next = trust::untimely(&error).map_or(String::new(), |next| format!("; {next}"));
                format!("{error}{next}")
            })?;
            let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            // It ends with its last sender and stream.
            tokio::spawn(connection);
            Ok(sender)
        };
        timeout(DIAL_PATIENCE, dialling)
            .await
            .unwrap_or_else(|_| Err("it did not take the connection in time".to_owned()))
    }
}

/// Follows one control after the other, for ever. Cancelling it is the way to end it.
pub async fn follow(node: Arc<dyn Node>, dialer: Arc<Dialer>) {
    let mut spread = SPREAD;
    loop {
        let mut wait = None;
        for url in dialer.in_turn() {
            let ended = follow_one(&*node, &dialer, url, &mut spread).await;
            node.link(Link::Down(url, &ended.why));
            if ended.is_refusal {
                wait = Some(REFUSED_WITHIN);
            }
            if ended.had_begun {
                break;
            }
        }
        let wait = wait.unwrap_or(spread).as_millis() as u64;
        sleep(Duration::from_millis(chance_below(wait + 1))).await;
    }
}

/// Why a feed is over.
struct Ended {
    why: String,
    /// Whether there was one at all: else the next URL is tried at once.
    had_begun: bool,
    is_refusal: bool,
}

async fn follow_one(node: &dyn Node, dialer: &Dialer, url: &str, spread: &mut Duration) -> Ended {
    let mut ended = Ended { why: String::new(), had_begun: false, is_refusal: false };
    ended.why = match begin(node, dialer, url).await {
        Err(why) => why,
        Ok((writer, mut lines)) => {
            ended.had_begun = true;
            node.link(Link::Up(url));
            match listen(node, &writer, &mut lines, spread, dialer.urls.len() > 1).await {
                Ok(()) => "it has ended the feed".to_owned(),
                Err(Stop::Refused(why)) => {
                    ended.is_refusal = true;
                    format!("it refuses this node: {why}")
                }
                Err(Stop::Broken(why)) => why,
            }
        }
    };
    ended
}

async fn begin(node: &dyn Node, dialer: &Dialer, url: &str) -> Result<(Writer, Lines<Incoming>), String> {
    let mut connection = dialer.connect(url).await?;
    let (writer, body) = lines_body();
    let request = Request::post(format!("{}/v1/feed", url.trim_end_matches('/'))).body(body.boxed());
    writer.say(&Up::Hello(node.hello())).await?;
    let answer = connection.send_request(request.map_err(|error| error.to_string())?);
    let answer = timeout(DIAL_PATIENCE, answer).await.map_err(|_| "it did not answer in time".to_owned())?;
    let response = answer.map_err(|error| error.to_string())?;
    let status = response.status();
    if status != StatusCode::OK {
        let said = Limited::new(response.into_body(), 64 << 10).collect().await;
        let said =
            said.map(|said| String::from_utf8_lossy(&said.to_bytes()).into_owned()).unwrap_or_default();
        return Err(format!("it answered {status}: {said}"));
    }
    Ok((writer, Lines::new(response.into_body())))
}

enum Stop {
    Broken(String),
    Refused(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Stop::Broken(why)
    }
}

async fn listen(
    node: &dyn Node,
    writer: &Writer,
    lines: &mut Lines<Incoming>,
    spread: &mut Duration,
    has_others: bool,
) -> Result<(), Stop> {
    // Until it has said that it takes them.
    let mut outbox = None;
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = tokio::time::Instant::now();
    let mut current = heard;
    loop {
        let first = tokio::select! {
            biased;
            line = lines.next::<Down>() => line?,
            () = node.has_news() => {
                say(node, outbox, writer).await?;
                continue;
            }
            _ = tick.tick() => {
                if heard.elapsed() > SILENCE {
                    return Err(format!("nothing was heard for {} s", SILENCE.as_secs()).to_owned().into());
                }
                if say(node, outbox, writer).await? == 0 {
                    say_line(writer, Up::Beat).await?;
                }
                continue;
            }
        };
        let Some(first) = first else { return Ok(()) };
        // The other end beats each second. Who reads after a longer time was stopped (or its machine): what it finds may be as old, and
        // the other end has given it up.
        if heard.elapsed() > SILENCE {
            return Err(format!("this process has read nothing for {} s", heard.elapsed().as_secs()).into());
        }
        heard = tokio::time::Instant::now();
        let mut together = vec![first];
        while together.len() < LINES_TOGETHER_MAX
            && let Some(line) = lines.buffered()?
        {
            together.push(line);
        }
        for line in &together {
            match line {
                Down::Refused { why } => return Err(Stop::Refused(why.clone())),
                Down::Welcome(welcome) => {
                    outbox = node.outbox().filter(|_| welcome.takes_statistics);
                    if let Some(outbox) = outbox {
                        outbox.begin();
                    }
                }
                Down::Counted(counted) => {
                    if let Some(outbox) = outbox {
                        outbox.confirm(counted);
                    }
                }
                Down::Beat(beat) => {
                    *spread = Duration::from_millis(beat.spread_ms).min(SPREAD_MAX);
                    if beat.is_current {
                        current = heard;
                    } else if has_others && current.elapsed() > 2 * SILENCE {
                        // Another one may know more.
                        return Err("it is cut off from the journal itself".to_owned().into());
                    }
                }
                _ => {}
            }
        }
        together.retain(|line| !matches!(line, Down::Counted(_)));
        if together.is_empty() {
            continue;
        }
        node.told(together).await?;
        say(node, outbox, writer).await?;
    }
}

/// Says what there is to say; returns how much that was.
async fn say(node: &dyn Node, outbox: Option<&Outbox>, writer: &Writer) -> Result<usize, String> {
    let reports = node.reports();
    let count = reports.len();
    for report in reports {
        say_line(writer, Up::Report(Box::new(report))).await?;
    }
    let lines = outbox.map(Outbox::next).unwrap_or_default();
    let count = count + lines.len();
    for line in lines {
        say_line(writer, Up::Statistics(Box::new((*line).clone()))).await?;
    }
    Ok(count)
}

async fn say_line(writer: &Writer, line: Up) -> Result<(), String> {
    // A control that reads nothing is as good as silent.
    let said = timeout(SILENCE, writer.say(&line)).await;
    said.map_err(|_| "it does not read what is said".to_owned())?
}

/// A number below `end`, which is at least 1, that nodes do not draw alike.
pub fn chance_below(end: u64) -> u64 {
    std::hash::RandomState::new().build_hasher().finish() % end.max(1)
}
