//! The access log over HTTP: what the log thread writes at once becomes one POST, gzip, lines of text in it. A collector such as
//! Vector, Fluent Bit or ClickHouse's HTTP interface takes it from there.
//!
//! Only the log thread waits. While a collector is away, lines wait in the log's bounded queue; what does not fit is dropped and
//! counted (`perigee_log_lines_dropped_total`), as are lines that were tried in vain.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use client::http::parse_answer;

/// How long one batch is tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// For a connection, and between two bytes.
const STALL: Duration = Duration::from_secs(10);

/// Between two attempts: doubled each time, up to the second.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Bytes of an answer that are read: only its status counts.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// A writer of whole lines.
pub(crate) struct Batches {
    host: String,
    port: u16,
    target: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Batches {
    /// To `http://host[:port]/path` or `https://…`. Certificates are checked by the system's authorities.
    ///
    /// # Errors
    /// It is no such URL, or TLS cannot be set up: in a sentence.
    pub(crate) fn to(url: &str) -> Result<Self, String> {
        let wrong = || format!("{url:?} is no URL; wanted e.g. https://collector.example/logs");
        let (rest, is_tls) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (rest, true),
            (_, Some(rest)) => (rest, false),
            _ => return Err(wrong()),
        };
        let (place, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
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
        Ok(Batches { host: host.to_owned(), port, target: target.to_owned(), tls })
    }

    /// One attempt: the answer's status.
    fn post(&self, body: &[u8]) -> io::Result<u16> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut stream = None;
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, STALL) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let stream = stream.ok_or(last)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.set_write_timeout(Some(STALL))?;
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let head = format!(
            "POST {} HTTP/1.0\r\nHost: {host}:{}\r\nContent-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.target,
            self.port,
            body.len()
        );
        let answer = match &self.tls {
            None => exchange(stream, head.as_bytes(), body)?,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                exchange(StreamOwned::new(session, stream), head.as_bytes(), body)?
            }
        };
        parse_answer(&answer).map(|(status, _)| status).map_err(io::Error::other)
    }
}

fn client_config() -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    // One that cannot be read is one that nobody here believes.
    let (_added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn exchange(mut stream: impl Read + Write, head: &[u8], body: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(head)?;
    stream.write_all(body)?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
        // Without a close_notify: the status is there.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        read => _ = read?,
    }
    Ok(answer)
}

impl Write for Batches {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(lines)?;
        let body = encoder.finish()?;
        let (deadline, mut pause) = (Instant::now() + PATIENCE, PAUSE);
        loop {
            let failure = match self.post(&body) {
                Ok(200..300) => return Ok(lines.len()),
                // What is wrong with it stays wrong, but for what says "later".
                Ok(status @ 400..500) if !matches!(status, 408 | 425 | 429) => {
                    return Err(io::Error::other(format!("the collector answered {status}")));
                }
                Ok(status) => io::Error::other(format!("the collector answered {status}")),
                Err(error) => error,
            };
            if Instant::now() + pause > deadline {
                return Err(failure);
            }
            sleep(pause);
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one request with each status; the bodies that came, unpacked.
    fn collector(statuses: &'static [u16]) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/logs?stream=perigee", listener.local_addr().unwrap());
        let collecting = thread::spawn(move || {
            let mut bodies = Vec::new();
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                assert!(head.starts_with("POST /logs?stream=perigee HTTP/1.0\r\n"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                let mut text = String::new();
                flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
                bodies.push(text);
                write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
            bodies
        });
        (url, collecting)
    }

    #[test]
    fn a_batch_is_said_again_until_it_is_taken() {
        let (url, collecting) = collector(&[503, 204, 200]);
        let mut batches = Batches::to(&url).unwrap();
        assert_eq!(batches.write(b"{\"a\":1}\n").unwrap(), 8);
        assert_eq!(batches.write(b"{\"b\":2}\n").unwrap(), 8);
        assert_eq!(collecting.join().unwrap(), ["{\"a\":1}\n", "{\"a\":1}\n", "{\"b\":2}\n"]);
    }

    #[test]
    fn what_is_refused_for_good_is_not_said_again() {
        let (url, collecting) = collector(&[400]);
        let error = Batches::to(&url).unwrap().write(b"x\n").unwrap_err();
        assert!(error.to_string().contains("400"), "{error}");
        assert_eq!(collecting.join().unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_url_is_refused_at_the_start() {
        for wrong in ["ftp://a/", "http://", "https://:443/", "http://a:x/", "http://a/b c"] {
            assert!(Batches::to(wrong).is_err(), "{wrong}");
        }
    }
}
