//! Asking an edge for a URL, as a visitor whom the site's name has led there would.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use warm::Url;

use crate::failure::Failure;
use crate::pace::Pace;

/// How long a connection may take, an answer until its head is there, and the wait for each part of its body.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const HEAD_PATIENCE: Duration = Duration::from_secs(90);
const PART_PATIENCE: Duration = Duration::from_secs(30);

/// How often one URL is tried, and how long it is waited in between unless the edge says otherwise.
const TRIES_MAX: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// In what the content may come that is only to be stored, and what is to be read: by [`warm::inflated`].
const ANY_CODING: &str = "zstd, br, gzip";
const READ_CODING: &str = "gzip";

/// Where an edge is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Edge {
    pub(crate) address: IpAddr,
    /// Without, the scheme's.
    pub(crate) port: Option<u16>,
}

impl Edge {
    fn of(&self, url: &Url) -> SocketAddr {
        SocketAddr::new(self.address, self.port.unwrap_or(if url.is_https() { 443 } else { 80 }))
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// What came of asking for a URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The edge has fetched and stored it.
    Warmed,
    /// The edge had it.
    Present,
    /// It is not stored, for this reason.
    Failed(String),
    /// The edge gave no answer, for this reason.
    Unanswered(String),
}

/// A connection that may be used again: to this host.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    is_https: bool,
    host: String,
}

pub(super) struct Fetcher {
    tls: TlsConnector,
    /// A turn for each request, the first and those that come again.
    pace: Pace,
}

impl Fetcher {
    /// `ca`: who may sign certificates, instead of the system's authorities. `rate`: requests per second, whoever is asked.
    pub(super) fn new(ca: Option<&Path>, rate: u32) -> Result<Fetcher, Failure> {
        let roots =
            trust::public_roots(ca).map_err(|why| Failure::new(why, "wanted are certificates in PEM"))?;
        let config = trust::public_client(roots)
            .map_err(|error| Failure::new(format!("TLS cannot be set up: {error}"), ""))?;
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Fetcher { tls: TlsConnector::from(Arc::new(config)), pace: Pace::new(rate) })
    }

    /// Has an edge store a URL, as often as it takes: what it says to try later is tried later.
    pub(super) async fn ask(&self, kept: &mut Option<Connection>, edge: &Edge, url: &Url) -> Outcome {
        let mut tries = 1;
        loop {
            let (outcome, pause) = match self.exchange(kept, edge, url, ANY_CODING).await {
                Ok(response) => {
                    let (status, fields) = (response.status(), response.headers().clone());
                    if let Err(reason) = drain(response, usize::MAX).await {
                        *kept = None;
                        (Outcome::Failed(reason), PAUSE)
                    } else if status == StatusCode::SERVICE_UNAVAILABLE {
                        (Outcome::Failed(format!("status 503, {}", detail(&fields))), pause(&fields))
                    } else {
                        return outcome(status, &fields);
                    }
                }
                Err(reason) => {
                    *kept = None;
                    (Outcome::Unanswered(reason), PAUSE)
                }
            };
            if tries >= TRIES_MAX {
                return outcome;
            }
            tries += 1;
            sleep(pause).await;
        }
    }

    /// The content of a URL, of at most `bytes_max` bytes.
    pub(super) async fn get(&self, edge: &Edge, url: &Url, bytes_max: usize) -> Result<Vec<u8>, String> {
        let response = self.exchange(&mut None, edge, url, READ_CODING).await?;
        match response.status() {
            StatusCode::OK => drain(response, bytes_max).await,
            status => Err(format!("status {}, {}", status.as_u16(), detail(response.headers()))),
        }
    }

    async fn exchange(
        &self,
        kept: &mut Option<Connection>,
        edge: &Edge,
        url: &Url,
        codings: &'static str,
    ) -> Result<Response<Incoming>, String> {
        sleep_until(self.pace.turn(Instant::now()).into()).await;
        let is_fit = |connection: &Connection| {
            connection.is_https == url.is_https()
                && connection.host == url.host()
                && !connection.sender.is_closed()
        };
        let mut connection = match kept.take().filter(is_fit) {
            Some(connection) => connection,
            None => self.connect(edge, url).await?,
        };
        let request = Request::get(url.target())
            .header(header::HOST, url.authority())
            .header(header::USER_AGENT, concat!("perigee-warm/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header(header::ACCEPT_ENCODING, codings)
            // RFC 9218 §4.1: for nobody who waits.
            .header("Priority", "u=7")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = async {
            connection.sender.ready().await?;
            connection.sender.send_request(request).await
        };
        let response = timeout(HEAD_PATIENCE, answer).await.map_err(|_| "no answer in time".to_owned())?;
        let response = response.map_err(|error| error.to_string())?;
        *kept = Some(connection);
        Ok(response)
    }

    async fn connect(&self, edge: &Edge, url: &Url) -> Result<Connection, String> {
        let connecting = async {
            let stream = TcpStream::connect(edge.of(url)).await.map_err(|error| error.to_string())?;
            let _faster = stream.set_nodelay(true);
            if !url.is_https() {
                return Self::speak(TokioIo::new(stream)).await;
            }
            let host = url.host().trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
            Self::speak(TokioIo::new(stream)).await
        };
        let sender = timeout(CONNECT_PATIENCE, connecting).await;
        let sender = sender.map_err(|_| "no connection in time".to_owned())?;
        let sender = sender.map_err(|reason| format!("no connection: {reason}"))?;
        Ok(Connection { sender, is_https: url.is_https(), host: url.host().to_owned() })
    }

    async fn speak<S>(stream: S) -> Result<SendRequest<Empty<Bytes>>, String>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    {
        let (sender, connection) = handshake(stream).await.map_err(|error| error.to_string())?;
        // It ends with its sender; what goes wrong comes to the exchange too.
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

/// Reads a body to its end: an edge keeps what has come whole.
async fn drain(response: Response<Incoming>, bytes_max: usize) -> Result<Vec<u8>, String> {
    let is_kept = bytes_max != usize::MAX;
    let (mut body, mut all) = (response.into_body(), Vec::new());
    loop {
        let frame = timeout(PART_PATIENCE, body.frame()).await;
        match frame.map_err(|_| "the answer came to a stop".to_owned())? {
            None => return Ok(all),
            Some(Err(error)) => return Err(format!("the answer broke off: {error}")),
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if is_kept {
                    all.extend_from_slice(&data);
                }
                if all.len() > bytes_max {
                    return Err(format!("it is longer than {bytes_max} bytes"));
                }
            }
        }
    }
}

/// What an edge says of what it did (RFC 9211): the last member is the edge that was asked.
fn member(fields: &HeaderMap) -> Option<Vec<&str>> {
    let line = fields.get_all("cache-status").iter().next_back()?.to_str().ok()?;
    Some(line.rsplit(", ").next()?.split(';').map(str::trim).collect())
}

fn detail(fields: &HeaderMap) -> String {
    let member = member(fields).unwrap_or_default();
    let detail = member.iter().find_map(|part| part.strip_prefix("detail="));
    detail.unwrap_or("and no Cache-Status").to_owned()
}

fn outcome(status: StatusCode, fields: &HeaderMap) -> Outcome {
    let status = status.as_u16();
    let Some(member) = member(fields) else {
        return Outcome::Failed(format!("status {status}, and no Cache-Status: is it an edge?"));
    };
    let has = |part: &str| member.contains(&part);
    match status {
        200..=399 if has("hit") => Outcome::Present,
        200..=399 if has("stored") || has("collapsed") => Outcome::Warmed,
        200..=399 => Outcome::Failed(format!("not stored, {}", detail(fields))),
        _ => Outcome::Failed(format!("status {status}, {}", detail(fields))),
    }
}

/// How long an edge wants to be left alone (RFC 9110 §10.2.3); a date is as good as nothing said.
fn pause(fields: &HeaderMap) -> Duration {
    let secs = fields.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    secs.map_or(PAUSE, Duration::from_secs).clamp(PAUSE, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_edge_says_tells_what_came_of_it() {
        let cases = [
            (200, "fra-1; hit; ttl=60; detail=fresh", Outcome::Present),
            (200, "fra-1; fwd=uri-miss; stored; detail=absent", Outcome::Warmed),
            (200, "fra-1; fwd=uri-miss; collapsed; detail=collapsed", Outcome::Warmed),
            (
                200,
                "shield; hit, fra-1; fwd=miss; detail=uncacheable",
                Outcome::Failed("not stored, uncacheable".into()),
            ),
            (301, "fra-1; hit; detail=fresh", Outcome::Present),
            (404, "fra-1; fwd=uri-miss; stored; detail=absent", Outcome::Failed("status 404, absent".into())),
            (421, "fra-1; detail=unknown-site", Outcome::Failed("status 421, unknown-site".into())),
        ];
        for (status, line, expected) in cases {
            let mut fields = HeaderMap::new();
            fields.insert("cache-status", line.parse().unwrap());
            assert_eq!(outcome(StatusCode::from_u16(status).unwrap(), &fields), expected, "{line}");
        }
        let is_none = outcome(StatusCode::OK, &HeaderMap::new());
        assert!(matches!(is_none, Outcome::Failed(reason) if reason.contains("is it an edge?")));
    }

    #[test]
    fn an_edge_is_asked_again_when_it_says() {
        let said = |value: &str| {
            let mut fields = HeaderMap::new();
            fields.insert(header::RETRY_AFTER, value.parse().unwrap());
            pause(&fields)
        };
        assert_eq!(said("5"), Duration::from_secs(5));
        assert_eq!((said("0"), said("soon"), said("99999")), (PAUSE, PAUSE, PAUSE_MAX));
    }
}
