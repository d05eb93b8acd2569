//! Requests to the authority: HTTPS over the one TLS library, with the system's roots or those of a file. A connection for
//! each request: an order needs a dozen, a few times a year.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one request to the authority may take. Let's Encrypt's own client waits 45 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);
/// Bytes of an answer that are read: chains have a few KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The client that instant-acme asks by.
#[derive(Clone)]
pub(crate) struct Https(TlsConnector);

impl Https {
    /// Trusts the certificates in `ca_file`, or the system's without one. The error names the file.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let roots = trust::public_roots(ca_file).map_err(|why| format!("ca_file {why}"))?;
        let config = trust::public_client(roots)?.with_no_client_auth();
        Ok(Https(TlsConnector::from(Arc::new(config))))
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<hyper::body::Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let connector = self.0.clone();
        Box::pin(async move {
            match tokio::time::timeout(REQUEST_TIMEOUT, send(connector, request)).await {
                Ok(answered) => answered.map_err(Error::Other),
                Err(_) => Err(Error::Other("the authority did not answer in time".into())),
            }
        })
    }
}

async fn send(
    connector: TlsConnector,
    request: Request<BodyWrapper<hyper::body::Bytes>>,
) -> Result<BytesResponse, Box<dyn std::error::Error + Send + Sync>> {
    let (mut parts, body) = request.into_parts();
    if parts.uri.scheme_str() != Some("https") {
        return Err(format!("{} is not an https URL", parts.uri).into());
    }
    let authority = parts.uri.authority().cloned().ok_or("the URL has no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let socket = TcpStream::connect((&*host, authority.port_u16().unwrap_or(443)))
        .await
        .map_err(|error| format!("{authority} cannot be reached: {error}"))?;
    let stream = connector
        .connect(ServerName::try_from(host)?, socket)
        .await
        .map_err(|error| format!("no TLS with {authority}: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer; what went wrong with it is what `send_request` says.
    let driving = tokio::spawn(connection);
    parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let body = body.collect().await?.to_bytes();
    let answer = sender.send_request(Request::from_parts(parts, Full::new(body))).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
    driving.abort();
    Ok(BytesResponse::from(http::Response::from_parts(head, Full::new(body))))
}
