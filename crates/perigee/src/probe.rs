//! Asks a server for the heads of its answers: what a log does not tell of them. GET, as some origins answer HEAD otherwise,
//! and no more of the body than comes with the head.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use model::{Scheme, Url};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use semantics::Fields;

use crate::failure::Failure;

/// Time to connect, and between two bytes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A server that is asked: `http://` or `https://`, a host, and a port if it is not the scheme's own.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

impl Probe {
    /// Reads a URL; what is behind the host is not used.
    pub(crate) fn new(url: &str) -> Result<Probe, Failure> {
        let wrong = || {
            Failure::new(
                format!("{url:?} is no place to ask"),
                "write a scheme and a host, as http://127.0.0.1:8000 or https://www.shop.example",
            )
        };
        let url = Url::parse(url).map_err(|_| wrong())?;
        let tls = (url.scheme == Scheme::Https).then(|| {
            let mut roots = RootCertStore::empty();
            let (_taken, _ignored) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            config.map(|config| Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
        });
        let tls = tls.transpose().map_err(|error| Failure::new(format!("no TLS: {error}"), ""))?;
        Ok(Probe { host: url.host().trim_matches(['[', ']']).to_owned(), port: url.port(), tls })
    }

    /// Status and fields of the answer to GET of `target` at `host`, or at the probed host where that is empty.
    pub(crate) fn ask(&self, host: &str, target: &str) -> io::Result<(u16, Fields)> {
        self.exchange("GET", host, target, "gzip, br", 0)
    }

    /// The same without a coding, and by any method; the body is read too, of at most `body_bytes_max`, so that a cache gets all of it.
    pub(crate) fn ask_whole(
        &self,
        method: &str,
        host: &str,
        target: &str,
        body_bytes_max: u64,
    ) -> io::Result<(u16, Fields)> {
        self.exchange(method, host, target, "identity", body_bytes_max)
    }

    fn exchange(
        &self,
        method: &str,
        host: &str,
        target: &str,
        codings: &str,
        body_bytes_max: u64,
    ) -> io::Result<(u16, Fields)> {
        let host = if host.is_empty() { &self.host } else { host };
        // A target that could end the line was never one of a request.
        if !target.bytes().chain(host.bytes()).all(|byte| byte.is_ascii_graphic()) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: perigee-probe\r\nAccept: */*\r\n\
             Accept-Encoding: {codings}\r\nConnection: close\r\n\r\n"
        );
        let address = (&*self.host, self.port).to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = match &self.tls {
            None => exchange(&mut stream, request.as_bytes(), body_bytes_max)?,
            Some(config) => {
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                exchange(&mut StreamOwned::new(tls, stream), request.as_bytes(), body_bytes_max)?
            }
        };
        parse(&head).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the answer is not HTTP/1"))
    }
}

/// Sends, and reads to the end of the head; what comes then, up to the end of the connection, is thrown away.
fn exchange(stream: &mut (impl Read + Write), request: &[u8], body_bytes_max: u64) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let (mut head, mut part) = (Vec::new(), [0; 4096]);
    while head.len() < HEAD_BYTES_MAX {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            head.truncate(end + 2);
            if body_bytes_max > 0 {
                // Some close without a word (TLS), which ends a body just as well.
                let _read = io::copy(&mut stream.take(body_bytes_max), &mut io::sink());
            }
            return Ok(head);
        }
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => head.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer has no complete head"))
}

fn parse(head: &[u8]) -> Option<(u16, Fields)> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let status = first.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()?;
    let mut fields = Fields::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        // A line that cannot be a field is passed over.
        let _ = fields.append(&line[..colon], line[colon + 1..].trim_ascii());
    }
    Some((status, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_ask_is_read_or_refused() {
        for (url, wanted) in [
            ("http://127.0.0.1:8000/x", Some(("127.0.0.1", 8000, false))),
            ("https://shop.example", Some(("shop.example", 443, true))),
            ("http://[::1]:81", Some(("::1", 81, false))),
            ("ftp://a", None),
            ("shop.example", None),
            ("http://", None),
            ("http://a:b", None),
        ] {
            let read = Probe::new(url).ok();
            let read = read.as_ref().map(|probe| (&*probe.host, probe.port, probe.tls.is_some()));
            assert_eq!(read, wanted, "{url}");
        }
    }

    #[test]
    fn heads_are_read() {
        let (status, fields) = parse(b"HTTP/1.1 200 OK\r\nVary: a\r\nbad line\r\nETag:  \"1\" \r\n").unwrap();
        assert_eq!((status, fields.get("etag")), (200, Some(&b"\"1\""[..])));
        assert!(parse(b"SSH-2.0\r\n").is_none());
    }
}
