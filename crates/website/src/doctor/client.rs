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

/// Time for one exchange.
const PATIENCE: Duration = Duration::from_secs(20);

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
        let exchange = self.exchange(to, way, fields);
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }

    async fn exchange(
        &self,
        to: &Address,
        way: Option<SocketAddr>,
        fields: &[(&str, &str)],
    ) -> Result<Fetched, String> {
        let connected = match way {
            Some(way) => TcpStream::connect(way).await,
            None => TcpStream::connect(to.host_and_port()).await,
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
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| format!("TLS with {}: {error}", to.host()))?;
        let ends = stream.get_ref().1.peer_certificates().and_then(|chain| {
            let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
            Some(certificate.validity().not_after.timestamp())
        });
        ask(stream, to, fields, ends).await
    }
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
    let response = sender.send_request(request).await.map_err(failed)?;
    let (head, mut body) = response.into_parts();
    let fields = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
        bytes.extend_from_slice(&data);
        if bytes.len() > BODY_BYTES_MAX {
            break;
        }
    }
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
