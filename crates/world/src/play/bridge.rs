//! HTTP/2 for clients that speak HTTP/1.1: takes each of their requests to the edge as a stream of one connection over TLS,
//! and brings the answer back. So the plays that say nothing of a protocol are played in both.
//!
//! What the wire of HTTP/1.1 alone can say stays behind (RFC 9113 §8.2.2); a stream that is reset becomes a body that is
//! cut off, a client that goes away a stream that is reset, and a client that doesn't read a window that stays shut.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::wire::{Framing, Head, Wire};

use super::Identity;

/// Whom the bridge speaks to: a name in the play's certificate.
const NAME: &str = "site.example";

/// Window of the whole connection: so large that who doesn't read one answer holds up no other.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Requests at a time on one connection, when the edge has not said its number yet: what most clients assume.
const STREAMS: usize = 100;

/// A bridge to one edge.
pub(super) struct Bridge {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Bridge {
    /// Listens on a free port for clients of the edge at `edge`.
    pub(super) fn start(runtime: &Handle, edge: SocketAddr, identity: &Identity) -> Bridge {
        let _entered = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let address = listener.local_addr().expect("an address");
        let far = Arc::new(Far {
            edge,
            tls: TlsConnector::from(Arc::new(identity.client(b"h2"))),
            sender: Mutex::default(),
        });
        let task = runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(carry(far.clone(), socket));
            }
        });
        Bridge { address, task }
    }

    /// Where clients come.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The edge's side: one connection, made again when it has ended.
struct Far {
    edge: SocketAddr,
    tls: TlsConnector,
    sender: Mutex<Option<SendRequest<Bytes>>>,
}

impl Far {
    /// A sender that may send now.
    async fn ready(&self) -> io::Result<SendRequest<Bytes>> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.clone()
            && let Ok(ready) = sender.ready().await
        {
            return Ok(ready);
        }
        let socket = TcpStream::connect(self.edge).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let stream = self.tls.connect(name, socket).await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(CONNECTION_WINDOW_BYTES).initial_max_send_streams(STREAMS);
        let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(async move { drop(connection.await) });
        *kept = Some(sender.clone());
        sender.ready().await.map_err(io::Error::other)
    }
}

/// Carries one request over and its answer back. Whatever breaks on the far side breaks the near one.
async fn carry(far: Arc<Far>, socket: TcpStream) {
    let mut near = Wire::new(socket);
    if exchange(&far, &mut near).await.is_err() {
        near.reset();
    }
}

async fn exchange(far: &Far, near: &mut Wire) -> io::Result<()> {
    let Some(head) = near.read_head().await? else { return Ok(()) };
    let method = head.method_and_target().0.to_owned();
    let body = near.read_body(Framing::of_request(&head)).await.bytes;
    let request = request_of(&head)?;
    let (response, mut upload) =
        far.ready().await?.send_request(request, body.is_empty()).map_err(io::Error::other)?;
    let answering = async {
        if !body.is_empty() {
            send(&mut upload, body.into()).await?;
        }
        answer(near, &method, response).await
    };
    let answered = answering.await;
    if answered.is_err() {
        upload.send_reset(Reason::CANCEL);
    }
    answered
}

/// A head of HTTP/1.1 as one of HTTP/2.
fn request_of(head: &Head) -> io::Result<Request<()>> {
    let (method, target) = head.method_and_target();
    let host = head.field("host").unwrap_or_default();
    let uri = if target == "*" { "/" } else { target };
    let uri = Uri::builder().scheme("https").authority(host).path_and_query(uri).build();
    let mut request = Request::builder().method(method).uri(uri.map_err(io::Error::other)?);
    for (name, value) in head.fields.iter() {
        let name = HeaderName::from_bytes(name).map_err(io::Error::other)?;
        let is_of_this_hop = [HOST, CONNECTION, TRANSFER_ENCODING].contains(&name)
            || ["keep-alive", "upgrade", "proxy-connection", "te"].contains(&name.as_str());
        if !is_of_this_hop {
            request = request.header(name, HeaderValue::from_bytes(value).map_err(io::Error::other)?);
        }
    }
    request.body(()).map_err(io::Error::other)
}

async fn send(upload: &mut SendStream<Bytes>, mut body: Bytes) -> io::Result<()> {
    while !body.is_empty() {
        upload.reserve_capacity(body.len());
        match poll_fn(|context| upload.poll_capacity(context)).await {
            Some(Ok(room)) => {
                let piece = body.split_to(room.min(body.len()));
                upload.send_data(piece, body.is_empty()).map_err(io::Error::other)?;
            }
            // The answer may have come already, and says why.
            Some(Err(_)) | None => return Ok(()),
        }
    }
    Ok(())
}

/// Brings an answer back, unless the client goes away before.
async fn answer(near: &mut Wire, method: &str, mut response: ResponseFuture) -> io::Result<()> {
    loop {
        let interim = tokio::select! {
            biased;
            interim = poll_fn(|context| response.poll_informational(context)) => interim,
            () = gone(near) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let Some(interim) = interim else { break };
        let interim = interim.map_err(io::Error::other)?;
        near.write(&head_of(interim.status(), interim.headers(), None)).await?;
    }
    let response = tokio::select! {
        biased;
        response = &mut response => response.map_err(io::Error::other)?,
        () = gone(near) => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let (parts, mut content) = response.into_parts();
    let has_content = method != "HEAD" && ![204, 304].contains(&parts.status.as_u16());
    let framing = match (has_content, parts.headers.contains_key(CONTENT_LENGTH)) {
        (false, _) => None,
        (true, true) => Some(Framing::Length(0)),
        (true, false) => Some(Framing::Chunked),
    };
    near.write(&head_of(parts.status, &parts.headers, framing)).await?;
    bring(near, &mut content, framing == Some(Framing::Chunked)).await
}

/// Brings content back, piece by piece.
async fn bring(near: &mut Wire, content: &mut RecvStream, is_chunked: bool) -> io::Result<()> {
    loop {
        let piece = tokio::select! {
            biased;
            piece = content.data() => piece,
            () = gone(near) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let Some(piece) = piece else { break };
        let piece = piece.map_err(io::Error::other)?;
        if is_chunked && !piece.is_empty() {
            near.write(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        }
        near.write(&piece).await?;
        if is_chunked && !piece.is_empty() {
            near.write(b"\r\n").await?;
        }
        content.flow_control().release_capacity(piece.len()).map_err(io::Error::other)?;
    }
    let trailers = content.trailers().await.map_err(io::Error::other)?.unwrap_or_default();
    if is_chunked {
        let mut last = b"0\r\n".to_vec();
        lines_of(&trailers, &mut last);
        near.write(&last).await?;
    }
    Ok(())
}

/// Waits until the client has gone away.
async fn gone(near: &Wire) {
    loop {
        let mut byte = [0];
        match near.stream().peek(&mut byte).await {
            Ok(0) | Err(_) => return,
            // It says more than its request; nobody listens.
            Ok(_) => std::future::pending().await,
        }
    }
}

/// A head of HTTP/2 as one of HTTP/1.1.
fn head_of(status: StatusCode, fields: &HeaderMap, framing: Option<Framing>) -> Vec<u8> {
    let mut head =
        format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or("")).into_bytes();
    if framing == Some(Framing::Chunked) {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    lines_of(fields, &mut head);
    head
}

/// Field lines, and the empty one behind them.
fn lines_of(fields: &HeaderMap, into: &mut Vec<u8>) {
    for (name, value) in fields {
        into.extend_from_slice(name.as_str().as_bytes());
        into.extend_from_slice(b": ");
        into.extend_from_slice(value.as_bytes());
        into.extend_from_slice(b"\r\n");
    }
    into.extend_from_slice(b"\r\n");
}
