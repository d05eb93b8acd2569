//! A client that speaks HTTP/3, with the `h3` crate on `quinn`: what it makes of our frames nobody here wrote.

use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, ZeroRttAccepted};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::pieces::Pieces;
use super::{Identity, PATIENCE};

/// One connection of HTTP/3.
pub struct Http3 {
    quic: Quic,
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

/// A connection of QUIC.
pub struct Quic {
    runtime: Handle,
    endpoint: Endpoint,
    connection: Connection,
}

impl Quic {
    /// Connects to an edge that shows `identity`.
    pub fn connect(runtime: Handle, address: SocketAddr, identity: &Identity) -> Quic {
        Quic::try_connect(runtime, address, identity).expect("a handshake")
    }

    /// The same, with an edge that may not want it.
    ///
    /// # Errors
    /// The edge has refused.
    pub fn try_connect(
        runtime: Handle,
        address: SocketAddr,
        identity: &Identity,
    ) -> Result<Quic, ConnectionError> {
        let tls = QuicClientConfig::try_from(identity.client(b"h3")).expect("QUIC can use this TLS");
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let (endpoint, connection) = runtime.block_on(async {
            let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket opens");
            let connecting =
                endpoint.connect_with(config, address, "site.example").expect("a handshake begins");
            (endpoint, timeout(PATIENCE, connecting).await.expect("the edge answers"))
        });
        Ok(Quic { runtime, endpoint, connection: connection? })
    }

    /// Connects again to an edge that a connection has left tickets of, and does not wait for the handshake: what is said now is said
    /// with the first bytes. Whether the edge took them so is known later.
    pub fn connect_early(
        runtime: Handle,
        address: SocketAddr,
        identity: &Identity,
    ) -> (Quic, ZeroRttAccepted) {
        let mut tls = identity.client(b"h3");
        tls.enable_early_data = true;
        let tls = QuicClientConfig::try_from(tls).expect("QUIC can use this TLS");
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let (endpoint, (connection, accepted)) = runtime.block_on(async {
            let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket opens");
            let deadline = Instant::now() + PATIENCE;
            loop {
                assert!(Instant::now() < deadline, "no ticket for early data has come");
                let connecting = endpoint.connect_with(config.clone(), address, "site.example");
                match connecting.expect("a handshake begins").into_0rtt() {
                    Ok(early) => break (endpoint, early),
                    Err(connecting) => {
                        let first = timeout(PATIENCE, connecting).await.expect("the edge answers");
                        let first = first.expect("a handshake");
                        // Tickets come behind it.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        first.close(0_u32.into(), b"");
                    }
                }
            }
        });
        (Quic { runtime, endpoint, connection }, accepted)
    }

    /// Opens a stream one way, and says `bytes` on it; ends it, if `ends`.
    pub fn say(&self, bytes: &[u8], ends: bool) {
        let said = async {
            let mut stream = self.connection.open_uni().await.expect("a stream opens");
            stream.write_all(bytes).await.expect("there is room for a few bytes");
            if ends {
                let _ = stream.finish();
            } else {
                std::mem::forget(stream);
            }
        };
        self.runtime.block_on(async { timeout(PATIENCE, said).await }).expect("a stream opens in time");
    }

    /// Says `bytes` as a request, as many as are taken, and reads what comes for it.
    pub fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let asked = async {
            let (mut send, mut recv) = self.connection.open_bi().await.expect("a stream opens");
            let sent = async {
                if send.write_all(bytes).await.is_ok() {
                    let _ = send.finish();
                }
            };
            let mut answer = Vec::new();
            let read = async {
                while let Ok(Some(part)) = recv.read_chunk(usize::MAX, true).await {
                    answer.extend_from_slice(&part.bytes);
                }
            };
            tokio::join!(sent, read);
            answer
        };
        self.runtime.block_on(async { timeout(PATIENCE, asked).await }).expect("an answer or an end in time")
    }

    /// Waits until the edge closes the connection; its code.
    pub fn closed(&self) -> u64 {
        let closed = self.runtime.block_on(async { timeout(PATIENCE, self.connection.closed()).await });
        match closed.expect("the edge closes the connection in time") {
            ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("the connection ended otherwise: {other}"),
        }
    }

    /// Goes on from another address, as a phone does that leaves the house. Returns the new port.
    pub fn move_away(&self) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket opens");
        let port = socket.local_addr().expect("a bound socket").port();
        let _entered = self.runtime.enter();
        self.endpoint.rebind(socket).expect("the endpoint takes another socket");
        port
    }
}

impl Http3 {
    /// Begins HTTP/3.
    pub fn on(quic: Quic) -> Http3 {
        let requests = quic.runtime.block_on(async {
            let connection = h3_quinn::Connection::new(quic.connection.clone());
            let (mut driver, requests) = h3::client::new(connection).await.expect("HTTP/3 begins");
            tokio::spawn(async move { poll_fn(|context| driver.poll_close(context)).await });
            requests
        });
        Http3 { quic, requests }
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
        let asked = self.quic.runtime.spawn(async move {
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
        Asked { runtime: self.quic.runtime.clone(), asked }
    }

    /// Asks for a path, and has the content read piece by piece.
    ///
    /// # Errors
    /// No answer, or another one than 200.
    pub fn pieces(&self, path: &str) -> Result<Pieces, String> {
        let request = http::Request::get(format!("https://site.example{path}")).body(());
        let request = request.expect("a sound request");
        let mut requests = self.requests.clone();
        Pieces::begin(&self.quic.runtime, move |told| async move {
            let mut stream = requests.send_request(request).await.map_err(|error| error.to_string())?;
            stream.finish().await.map_err(|error| error.to_string())?;
            let (head, ()) = stream.recv_response().await.map_err(|error| error.to_string())?.into_parts();
            told.head(head.status).await;
            while let Some(mut part) = stream.recv_data().await.map_err(|error| error.to_string())? {
                told.part(part.copy_to_bytes(part.remaining())).await;
            }
            Ok(())
        })
    }

    /// The connection below.
    pub fn quic(&self) -> &Quic {
        &self.quic
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
