//! One request, one connection: HTTP/1.1, plain or by TLS with the system's roots. Redirects are the caller's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use semantics::Fields;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::page::Address;

/// Time for a connection, for an answer to begin, and for each further piece of it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time for one exchange: [`BODY_BYTES_MAX`] at 1 Mbit/s.
const EXCHANGE_MAX: Duration = Duration::from_secs(150);

/// Longest body that is read; what is longer counts as it is until there.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Asks for pages and files.
pub(super) struct Client {
    tls: Arc<rustls::ClientConfig>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    /// When the certificate ends, in seconds since the epoch.
    pub(super) certificate_ends: Option<i64>,
}

impl Client {
    pub(super) fn new() -> Result<Client, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Client { tls: Arc::new(tls) })
    }

    /// Asks for `to`, at `way` if that is given.
    pub(super) async fn get(
        &self,
        to: &Address,
        way: Option<SocketAddr>,
        fields: &[(&str, &str)],
    ) -> Result<Fetched, String> {
        let exchange = timeout(EXCHANGE_MAX, self.exchange(to, way, fields)).await;
        exchange.unwrap_or_else(|_| Err(format!("no whole answer within {EXCHANGE_MAX:?}")))
    }

    async fn exchange(
        &self,
        to: &Address,
        way: Option<SocketAddr>,
        fields: &[(&str, &str)],
    ) -> Result<Fetched, String> {
        let connected = match way {
            Some(way) => within(TcpStream::connect(way)).await?,
            None => within(TcpStream::connect(to.host_and_port())).await?,
        };
        let stream = connected.map_err(|error| match way {
            Some(way) => format!("no connection to {way}: {error}"),
            None => format!("no connection to {}: {error}", to.host_and_port()),
        })?;
        if !to.secure {
            return ask(stream, to, fields, None).await;
        }
        let name = ServerName::try_from(to.host().to_owned())
            .map_err(|_| format!("{} is no name for TLS", to.host()))?;
        let connector = TlsConnector::from(self.tls.clone());
        let stream = within(connector.connect(name, stream))
            .await?
            .map_err(|error| format!("TLS with {}: {error}", to.host()))?;
        let ends = stream.get_ref().1.peer_certificates().and_then(|chain| {
            let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
            Some(certificate.validity().not_after.timestamp())
        });
        ask(stream, to, fields, ends).await
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, String> {
    timeout(PATIENCE, work).await.map_err(|_| format!("no answer within {PATIENCE:?}"))
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    to: &Address,
    fields: &[(&str, &str)],
    certificate_ends: Option<i64>,
) -> Result<Fetched, String> {
    let failed = |error: hyper::Error| format!("the exchange failed: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection);
    let mut request =
        http::Request::get(&to.target).header("Host", &to.authority).header("User-Agent", "perigee-doctor");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|error| format!("{to} cannot be asked for: {error}"))?;
    let response = within(sender.send_request(request)).await?.map_err(failed)?;
    let (head, mut body) = response.into_parts();
    let fields = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let mut bytes = Vec::new();
    while bytes.len() < BODY_BYTES_MAX
        && let Some(frame) = within(body.frame()).await?
    {
        let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
        bytes.extend_from_slice(&data);
    }
    // Two copies are compared: where they are cut must not hang on how they came.
    bytes.truncate(BODY_BYTES_MAX);
    Ok(Fetched { status: head.status.as_u16(), fields, body: bytes, certificate_ends })
}

impl Fetched {
    /// A field's value as text; empty without.
    pub(super) fn field(&self, name: &str) -> String {
        self.fields
            .combined(name)
            .map(|value| String::from_utf8_lossy(&value).into_owned())
            .unwrap_or_default()
    }

    /// Its Content-Type without parameters, in lower case.
    fn media_type(&self) -> String {
        self.field("content-type").split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Whether browsers take it for a page.
    pub(super) fn is_page(&self) -> bool {
        matches!(&*self.media_type(), "" | "text/html" | "application/xhtml+xml")
    }

    pub(super) fn is(&self, media_type: &str) -> bool {
        self.media_type() == media_type
    }

    pub(super) fn is_of(&self, families: &[&str]) -> bool {
        let media_type = self.media_type();
        families.iter().any(|family| media_type.starts_with(family))
    }

    pub(super) fn is_text(&self) -> bool {
        self.is_of(&[
            "text/",
            "application/javascript",
            "application/json",
            "image/svg+xml",
            "application/manifest+json",
        ])
    }

    /// Where a redirect leads.
    pub(super) fn location(&self, from: &Address) -> Option<Address> {
        from.join(&self.field("location"))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What comes of a body that is sent in these pieces, with a pause before each.
    async fn fetched(pieces: usize, piece_bytes: usize, pause: Duration) -> Result<Fetched, String> {
        let (near, mut far) = duplex(64 * 1024);
        tokio::spawn(async move {
            let mut head = [0; 4096];
            let _ = far.read(&mut head).await;
            let _ = far.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
            for _ in 0..pieces {
                tokio::time::sleep(pause).await;
                let _ = far.write_all(&vec![b'x'; piece_bytes]).await;
            }
        });
        ask(near, &Address::parse("http://www.example/").unwrap(), &[], None).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_body_is_cut_at_one_byte_however_it_comes() {
        for piece_bytes in [10_000, 100_003] {
            let long = fetched(BODY_BYTES_MAX / piece_bytes + 10, piece_bytes, Duration::ZERO).await.unwrap();
            assert_eq!(long.body.len(), BODY_BYTES_MAX);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_its_time_as_long_as_it_comes() {
        let slow = fetched(5, 10, PATIENCE / 2).await.unwrap();
        assert_eq!(slow.body.len(), 50);
        let stuck = fetched(2, 10, PATIENCE * 2).await;
        assert_eq!(stuck.unwrap_err(), "no answer within 20s");
    }
}
