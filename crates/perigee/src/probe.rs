//! Asks a server for the heads of its answers: what a log does not tell of them. GET, as some origins answer HEAD otherwise,
//! and no more of the body than comes with the head.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use client::http;
use model::url::without_port;
use model::{Scheme, Url};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use semantics::Fields;

use crate::failure::Failure;

/// Time to connect, and between two bytes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that is asked: `http://` or `https://`, a host, and a port if it is not the scheme's own.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    authority: String,
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
            let config = trust::public_client(trust::public_roots(None)?)?;
            Ok(Arc::new(config.with_no_client_auth()))
        });
        let tls = tls.transpose().map_err(|error: String| Failure::new(format!("no TLS: {error}"), ""))?;
        let (authority, host) = (url.authority.to_owned(), bare(url.authority).to_owned());
        Ok(Probe { authority, host, port: url.port(), tls })
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
        let host = if host.is_empty() { &self.authority } else { host };
        // A target that could end the line was never one of a request.
        if !target.bytes().chain(host.bytes()).all(|byte| byte.is_ascii_graphic()) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: perigee-probe\r\nAccept: */*\r\n\
             Accept-Encoding: {codings}\r\nConnection: close\r\n\r\n"
        );
        let mut stream = http::connect((&*self.host, self.port), PATIENCE)?;
        let (status, head) = match &self.tls {
            None => exchange(&mut stream, request.as_bytes(), body_bytes_max)?,
            Some(config) => {
                let name = ServerName::try_from(bare(host).to_owned()).map_err(io::Error::other)?;
                let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                exchange(&mut StreamOwned::new(tls, stream), request.as_bytes(), body_bytes_max)?
            }
        };
        Ok((status, fields(&head)))
    }
}

/// A host as it is dialled and named in certificates, of `host:port` or `[host]:port`.
fn bare(authority: &str) -> &str {
    without_port(authority).trim_matches(['[', ']'])
}

/// Sends, and reads to the end of the head; what comes then, up to the end of the connection, is thrown away.
fn exchange(
    stream: &mut (impl Read + Write),
    request: &[u8],
    body_bytes_max: u64,
) -> io::Result<(u16, Vec<u8>)> {
    let answer = http::ask_head(stream, &[request])?;
    if body_bytes_max > 0 {
        // Some close without a word (TLS), which ends a body just as well.
        let _read = io::copy(&mut stream.take(body_bytes_max), &mut io::sink());
    }
    Ok(answer)
}

fn fields(head: &[u8]) -> Fields {
    let mut fields = Fields::new();
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        // A line that cannot be a field is passed over.
        let _ = fields.append(&line[..colon], line[colon + 1..].trim_ascii());
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

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
        let fields = fields(b"HTTP/1.1 200 OK\r\nVary: a\r\nbad line\r\nETag:  \"1\" ");
        assert_eq!(fields.get("etag"), Some(&b"\"1\""[..]));
    }

    #[test]
    fn a_server_is_asked_by_its_authority_for_its_final_answer() {
        let listener = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut part) = (Vec::new(), [0; 1024]);
            while !request.ends_with(b"\r\n\r\n") {
                let count = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..count]);
            }
            stream.write_all(b"HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 404 x\r\nETag: b\r\n\r\n").unwrap();
            String::from_utf8(request).unwrap()
        });
        let (status, fields) = Probe::new(&format!("http://{address}")).unwrap().ask("", "/x").unwrap();
        assert_eq!((status, fields.get("link"), fields.get("etag")), (404, None, Some(&b"b"[..])));
        let request = serving.join().unwrap();
        assert!(request.contains(&format!("\r\nHost: {address}\r\n")), "{request}");
    }
}
