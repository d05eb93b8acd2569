//! A client that speaks HTTP/2 over TLS, with the `h2` crate.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
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
        let connecting = async {
            let socket = TcpStream::connect(address).await.expect("the edge listens");
            let name = "site.example".try_into().expect("a name");
            let stream = connector.connect(name, socket).await.expect("a handshake");
            let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2 begins");
            // It ends with the connection.
            tokio::spawn(connection);
            requests
        };
        let requests = runtime.block_on(async { timeout(PATIENCE, connecting).await });
        Http2 { requests: requests.expect("the edge answers in time"), runtime }
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
}
