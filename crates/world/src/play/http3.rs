//! A client that speaks HTTP/3, with the `h3` crate on `quinn`: what it makes of our frames nobody here wrote.

use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{Identity, PATIENCE};

/// One connection.
pub struct Http3 {
    runtime: Handle,
    endpoint: Endpoint,
    connection: Connection,
    requests: SendRequest<OpenStreams, Bytes>,
}

/// What came for a request.
#[derive(Debug)]
pub struct Http3Answer {
    /// The head.
    pub head: http::response::Parts,
    /// The content, or what came of it.
    pub body: Vec<u8>,
    /// The trailer fields.
    pub trailers: Option<http::HeaderMap>,
    /// Whether the answer came to a clean end; else how it broke off.
    pub end: Result<(), String>,
}

impl Http3Answer {
    /// Checks status and end.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!((self.head.status.as_u16(), &self.end), (status, &Ok(())), "{:?}", self.head);
        self
    }

    /// Checks the content.
    #[track_caller]
    pub fn body(self, wanted: impl AsRef<[u8]>) -> Self {
        let wanted = wanted.as_ref();
        assert!(
            self.body == wanted,
            "{} bytes came, {} were wanted, or others",
            self.body.len(),
            wanted.len()
        );
        self
    }

    /// Checks a field.
    #[track_caller]
    pub fn header(self, name: &str, wanted: &str) -> Self {
        assert_eq!(self.field(name), Some(wanted), "{name} in {:?}", self.head);
        self
    }

    /// A field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Http3 {
    pub(super) fn connect(runtime: Handle, address: SocketAddr, identity: &Identity) -> Http3 {
        let tls = QuicClientConfig::try_from(identity.client(b"h3")).expect("QUIC can use this TLS");
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let (endpoint, connection, requests) = runtime.block_on(async {
            let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket opens");
            let connecting =
                endpoint.connect_with(config, address, "site.example").expect("a handshake begins");
            let connection =
                timeout(PATIENCE, connecting).await.expect("the edge answers").expect("a handshake");
            let quic = h3_quinn::Connection::new(connection.clone());
            let (mut driver, requests) = h3::client::new(quic).await.expect("HTTP/3 begins");
            tokio::spawn(async move { poll_fn(|context| driver.poll_close(context)).await });
            (endpoint, connection, requests)
        });
        Http3 { runtime, endpoint, connection, requests }
    }

    /// Asks for a path of `site.example`.
    pub fn get(&self, path: &str) -> Http3Answer {
        self.ask(http::Method::GET, path, &[], &[])
    }

    /// Asks, with fields and content.
    pub fn ask(&self, method: http::Method, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Http3Answer {
        self.begin(method, path, fields, body).wait()
    }

    /// Begins to ask.
    pub fn begin(&self, method: http::Method, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Asked {
        let mut request = http::Request::builder().method(method).uri(format!("https://site.example{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a sound request");
        let (mut requests, body) = (self.requests.clone(), Bytes::copy_from_slice(body));
        let asked = self.runtime.spawn(async move {
            let mut stream = requests.send_request(request).await.map_err(|error| error.to_string())?;
            if !body.is_empty() {
                stream.send_data(body).await.map_err(|error| error.to_string())?;
            }
            stream.finish().await.map_err(|error| error.to_string())?;
            let (head, ()) = stream.recv_response().await.map_err(|error| error.to_string())?.into_parts();
            let mut answer = Http3Answer { head, body: Vec::new(), trailers: None, end: Ok(()) };
            loop {
                match stream.recv_data().await {
                    Ok(Some(mut part)) => {
                        while part.has_remaining() {
                            let length = part.chunk().len();
                            answer.body.extend_from_slice(part.chunk());
                            part.advance(length);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        answer.end = Err(error.to_string());
                        return Ok(answer);
                    }
                }
            }
            answer.trailers = stream.recv_trailers().await.map_err(|error| error.to_string())?;
            Ok(answer)
        });
        Asked { runtime: self.runtime.clone(), asked }
    }

    /// Goes on from another address, as a phone does that leaves the house. Returns the new port.
    pub fn move_away(&self) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket opens");
        let port = socket.local_addr().expect("a bound socket").port();
        let _entered = self.runtime.enter();
        self.endpoint.rebind(socket).expect("the endpoint takes another socket");
        port
    }

    /// The QUIC connection, for what no HTTP/3 client would say.
    pub fn quic(&self) -> &Connection {
        &self.connection
    }

    /// Where futures of it run.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// A request that waits for its answer.
pub struct Asked {
    runtime: Handle,
    asked: tokio::task::JoinHandle<Result<Http3Answer, String>>,
}

impl Asked {
    /// The answer, which must have a head.
    #[track_caller]
    pub fn wait(self) -> Http3Answer {
        self.try_wait().expect("an answer")
    }

    /// The answer, or why there is none.
    #[track_caller]
    pub fn try_wait(self) -> Result<Http3Answer, String> {
        let asked = self.runtime.block_on(async { timeout(PATIENCE, self.asked).await });
        asked.expect("the answer comes in time").expect("the client does not panic")
    }
}
