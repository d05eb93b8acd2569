//! What goes to collectors over HTTP: what is written at once becomes one POST. Lines of the access log, which a collector such as
//! Vector, Fluent Bit or ClickHouse's HTTP interface takes; statistics as Prometheus remote-write or OTLP; traces as OTLP.
//!
//! Only the thread that writes waits. What comes while a collector is away waits in the bounded queue before that thread; what does
//! not fit is dropped and counted there, as is what was tried in vain.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use client::http;

/// How long one batch is tried: of lines, of which more come all the time, and of what has a queue for longer absences.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_OF_EXPORTS: Duration = Duration::from_secs(300);

/// For a connection, and between two bytes.
const STALL: Duration = Duration::from_secs(10);

/// Between two attempts: doubled each time, up to the second.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// What is in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Lines of text.
    Lines,
    /// A request of Prometheus remote-write 1.0.
    RemoteWrite,
    /// A request of OTLP.
    Otlp,
}

impl Content {
    /// What is said of it in the head.
    fn fields(self) -> &'static str {
        match self {
            Content::Lines => "Content-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\n",
            Content::RemoteWrite => {
                "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                 X-Prometheus-Remote-Write-Version: 0.1.0\r\n"
            }
            Content::Otlp => "Content-Type: application/x-protobuf\r\nContent-Encoding: gzip\r\n",
        }
    }

    fn encode(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Content::RemoteWrite => snap::raw::Encoder::new().compress_vec(bytes).map_err(io::Error::other),
            Content::Lines | Content::Otlp => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }

    fn patience(self) -> Duration {
        match self {
            Content::Lines => PATIENCE,
            Content::RemoteWrite | Content::Otlp => PATIENCE_OF_EXPORTS,
        }
    }
}

/// A writer of whole batches.
pub(crate) struct Batches {
    host: String,
    port: u16,
    target: String,
    tls: Option<Arc<ClientConfig>>,
    content: Content,
    /// The value of Authorization.
    authorization: Option<String>,
}

/// What a collector has answered.
struct Answer {
    status: u16,
    /// When it wants to be asked again (RFC 9110 §10.2.3); dates are not read.
    retry_after: Option<Duration>,
}

impl Batches {
    /// To `http://host[:port]/path` or `https://…`. Certificates are checked by the system's authorities.
    ///
    /// # Errors
    /// It is no such URL, or TLS cannot be set up: in a sentence.
    pub(crate) fn to(url: &str, content: Content) -> Result<Self, String> {
        let wrong = || format!("{url:?} is no URL; wanted e.g. https://collector.example/logs");
        let (rest, is_tls) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (rest, true),
            (_, Some(rest)) => (rest, false),
            _ => return Err(wrong()),
        };
        let (place, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // Not repeated: what is before it may be secret.
        if place.contains('@') {
            return Err(
                "the URL has a name or a password; exports and traces take an authorization_file".to_owned()
            );
        }
        let default = if is_tls { 443 } else { 80 };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (place, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || rest.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
            return Err(wrong());
        }
        let target = if target.is_empty() { "/" } else { target };
        let tls = is_tls.then(client_config).transpose()?;
        Ok(Batches {
            host: host.to_owned(),
            port,
            target: target.to_owned(),
            tls,
            content,
            authorization: None,
        })
    }

    /// With a value for Authorization: visible characters and spaces.
    ///
    /// # Errors
    /// It has others, or none.
    pub(crate) fn authorized(mut self, value: &str) -> Result<Self, String> {
        if value.is_empty() || value.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
            return Err("what is to be said as Authorization is not one line of text".to_owned());
        }
        self.authorization = Some(value.to_owned());
        Ok(self)
    }

    /// Where it goes, without what may be secret in a query.
    pub(crate) fn place(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{}:{}{path}", self.host, self.port)
    }

    /// One attempt.
    fn post(&self, body: &[u8]) -> io::Result<Answer> {
        let mut stream = http::connect((self.host.as_str(), self.port), STALL)?;
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let authorization = self.authorization.as_ref();
        let authorization =
            authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {host}:{}\r\nUser-Agent: perigee/{}\r\n{}{authorization}Content-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.target,
            self.port,
            env!("CARGO_PKG_VERSION"),
            self.content.fields(),
            body.len()
        );
        let request = [head.as_bytes(), body];
        // Some collectors keep the connection, and some bodies never end: nothing behind the head counts.
        let (status, head) = match &self.tls {
            None => http::ask_head(&mut stream, &request)?,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                http::ask_head(&mut StreamOwned::new(session, stream), &request)?
            }
        };
        Ok(Answer { status, retry_after: retry_after(&head) })
    }
}

fn retry_after(head: &[u8]) -> Option<Duration> {
    http::field(head, "retry-after")?.parse().ok().map(Duration::from_secs)
}

fn client_config() -> Result<Arc<ClientConfig>, String> {
    Ok(Arc::new(trust::public_client(trust::public_roots(None)?)?.with_no_client_auth()))
}

impl Write for Batches {
    fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
        let body = self.content.encode(batch)?;
        let (deadline, mut pause) = (Instant::now() + self.content.patience(), PAUSE);
        loop {
            let (failure, asked) = match self.post(&body) {
                Ok(Answer { status: 200..300, .. }) => return Ok(batch.len()),
                // What is wrong with it stays wrong, but for what says "later".
                Ok(Answer { status: status @ 400..500, .. }) if !matches!(status, 408 | 425 | 429) => {
                    return Err(io::Error::other(format!("the collector answered {status}")));
                }
                Ok(Answer { status, retry_after }) => {
                    (io::Error::other(format!("the collector answered {status}")), retry_after)
                }
                Err(error) => (error, None),
            };
            let wait = asked.unwrap_or_default().max(pause);
            if wait > deadline.saturating_duration_since(Instant::now()) {
                return Err(failure);
            }
            sleep(wait);
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one request with each status, and keeps the connections; the bodies that came, unpacked.
    fn collector(statuses: &'static [u16]) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/logs?stream=perigee", listener.local_addr().unwrap());
        let collecting = thread::spawn(move || {
            let (mut bodies, mut kept) = (Vec::new(), Vec::new());
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                assert!(head.starts_with("POST /logs?stream=perigee HTTP/1.1\r\n"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                let mut text = String::new();
                flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
                bodies.push(text);
                write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 9\r\nRetry-After: 0\r\n\r\n").unwrap();
                kept.push(stream);
            }
            bodies
        });
        (url, collecting)
    }

    #[test]
    fn a_batch_is_said_again_until_it_is_taken() {
        let (url, collecting) = collector(&[503, 204, 200]);
        let mut batches = Batches::to(&url, Content::Lines).unwrap();
        assert_eq!(batches.write(b"{\"a\":1}\n").unwrap(), 8);
        assert_eq!(batches.write(b"{\"b\":2}\n").unwrap(), 8);
        assert_eq!(collecting.join().unwrap(), ["{\"a\":1}\n", "{\"a\":1}\n", "{\"b\":2}\n"]);
    }

    #[test]
    fn what_is_refused_for_good_is_not_said_again() {
        let (url, collecting) = collector(&[400]);
        let error = Batches::to(&url, Content::Lines).unwrap().write(b"x\n").unwrap_err();
        assert!(error.to_string().contains("400"), "{error}");
        assert_eq!(collecting.join().unwrap().len(), 1);
    }

    #[test]
    fn a_collector_says_when_it_wants_to_be_asked_again() {
        let asked = |fields: &str| retry_after(format!("HTTP/1.1 429 x\r\n{fields}").as_bytes());
        assert_eq!(asked("A: b\r\nretry-after:  7 "), Some(Duration::from_secs(7)));
        assert_eq!(asked("Retry-After: Fri, 27 Nov 2026 00:00:00 GMT"), None);
        assert_eq!(asked("A: b"), None);
    }

    #[test]
    fn what_is_said_as_authorization_is_one_line() {
        let batches = || Batches::to("http://a/write?token=secret", Content::Otlp).unwrap();
        assert_eq!(batches().authorized("Bearer x").unwrap().place(), "a:80/write");
        for wrong in ["", "Bearer x\r\nHost: b", "Bearer \u{e9}"] {
            assert!(batches().authorized(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_at_the_start() {
        for wrong in ["ftp://a/", "http://", "https://:443/", "http://a:x/", "http://a/b c"] {
            assert!(Batches::to(wrong, Content::Lines).is_err(), "{wrong}");
        }
        for wrong in ["http://user:secret@a/", "https://secret@a:80"] {
            let why = Batches::to(wrong, Content::Lines).err().unwrap();
            assert!(why.contains("password") && !why.contains("secret"), "{why}");
        }
    }
}
