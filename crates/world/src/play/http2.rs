//! A client and an origin that speak HTTP/2, with the `h2` crate, frame by frame: for what happens within one stream.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::pieces::Pieces;
use super::{Identity, PATIENCE};

/// One connection of HTTP/2.
pub struct Http2 {
    runtime: Handle,
    requests: SendRequest<Bytes>,
}

impl Http2 {
    /// Connects to an edge that shows `identity`.
    pub fn connect(runtime: Handle, address: SocketAddr, identity: &Identity) -> Http2 {
        let connector = TlsConnector::from(Arc::new(identity.client(b"h2")));
        let connected = async {
            let socket = TcpStream::connect(address).await.expect("the edge listens");
            let name = "site.example".try_into().expect("a name");
            let stream = connector.connect(name, socket).await.expect("TLS begins");
            let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2 begins");
            tokio::spawn(connection);
            requests.ready().await.expect("the edge takes requests")
        };
        let requests = runtime.block_on(async { timeout(PATIENCE, connected).await });
        Http2 { runtime, requests: requests.expect("a connection in time") }
    }

    /// Asks for a path, and has the content read piece by piece.
    ///
    /// # Errors
    /// No answer, or another one than 200.
    pub fn pieces(&self, path: &str) -> Result<Pieces, String> {
        let request = http::Request::get(format!("https://site.example{path}")).body(());
        let request = request.expect("a sound request");
        let requests = self.requests.clone();
        Pieces::begin(&self.runtime, move |told| async move {
            let mut requests = requests.ready().await.map_err(|error| error.to_string())?;
            let (answer, _) = requests.send_request(request, true).map_err(|error| error.to_string())?;
            let (head, mut content) = answer.await.map_err(|error| error.to_string())?.into_parts();
            told.head(head.status).await;
            while let Some(part) = content.data().await {
                let part = part.map_err(|error| error.to_string())?;
                let length = part.len();
                told.part(part).await;
                content.flow_control().release_capacity(length).map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }

    /// What `scene` comes to, which speaks on this connection.
    #[track_caller]
    pub fn wait<T, S: Future<Output = T>>(&self, scene: impl FnOnce(SendRequest<Bytes>) -> S) -> T {
        let scene = scene(self.requests.clone());
        let done = self.runtime.block_on(async { timeout(PATIENCE, scene).await });
        done.expect("the scene ends in time")
    }
}

pub(super) fn start_origin<S: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    serve: Arc<impl Fn(http::Request<RecvStream>, SendResponse<Bytes>) -> S + Send + Sync + 'static>,
) -> String {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.expect("HTTP/2 begins");
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(serve(request, respond));
                }
            });
        }
    });
    format!("http://{address}")
}
