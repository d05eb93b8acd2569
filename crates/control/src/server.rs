//! Connections: TLS, who is at the other end, HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use trust::Peer;

use crate::limits::{HANDSHAKE_TIMEOUT, JOIN_BYTES_MAX, STREAMS_MAX};
use crate::strangers::{Place, Rooms};
use crate::tls::Certificates;

/// After a failure to accept: file descriptors have run out, and come back when somebody leaves.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long running requests get to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// A node, as a certificate of the cluster's authority says; `None` for operators.
    pub(crate) node: Option<Peer>,
    /// What the connection counts as.
    pub(crate) place: Arc<Place>,
    /// Room for bodies without a token.
    pub(crate) bodies: Arc<Semaphore>,
}

/// Serves until it is told to stop; then running requests may end.
pub(crate) async fn serve(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    router: Router,
    rooms: Arc<Rooms>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stopping| *stopping) => break,
            // Nothing is lost: who has not been accepted waits in the socket's queue.
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some((place, given_up)) = rooms.admit(address.ip()) else { continue };
        let acceptor = TlsAcceptor::from(certificates.config());
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                biased;
                // Its sender is dropped, and this branch is off, once it is known who it is.
                Ok(()) = given_up => {}
                () = connection(stream, address, place, acceptor, router, stop) => {}
            }
        });
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    let _timeout = tokio::time::timeout(DRAIN, ended).await;
    connections.abort_all();
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
    acceptor: TlsAcceptor,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let _nodelay = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let node = certificate.and_then(|certificate| Peer::of(certificate).ok());
    let (place, bodies) = (Arc::new(place), Arc::new(Semaphore::new(JOIN_BYTES_MAX)));
    let client = Client { address, node, place: Arc::clone(&place), bodies };
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(client.clone());
        hyper::service::Service::call(&service, request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .keep_alive_timeout(Duration::from_secs(10));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        // An error is the other end's, which knows it.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stopping| *stopping) => {}
        () = place.overdue() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = tokio::time::timeout(DRAIN, connection).await;
}
