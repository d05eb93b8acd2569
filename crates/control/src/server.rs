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
use model::crowd::{Counted, Crowd};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use trust::Peer;

use crate::limits::{CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, STRANGERS_PER_ADDRESS_MAX, STREAMS_MAX};
use crate::tls::Certificates;
use crate::{Counts, Limit};

/// After a failure to accept: file descriptors have run out, and come back when somebody leaves.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long running requests get to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// A node, as a certificate of the cluster's authority says; `None` for operators.
    pub(crate) node: Option<Peer>,
}

/// Serves until it is told to stop; then running requests may end.
pub(crate) async fn serve(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    router: Router,
    counts: Arc<Counts>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let strangers = Crowd::new(STRANGERS_PER_ADDRESS_MAX);
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
        // Who comes when there is no room is refused at once, so that it can try another control.
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            counts.reached(Limit::Connections);
            continue;
        };
        let Some(stranger) = strangers.admit(address.ip()) else {
            counts.reached(Limit::StrangersPerAddress);
            continue;
        };
        let acceptor = TlsAcceptor::from(certificates.config());
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, address, stranger, acceptor, router, stop).await;
            drop(permit);
        });
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    let _timeout = tokio::time::timeout(DRAIN, ended).await;
    connections.abort_all();
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    stranger: Counted,
    acceptor: TlsAcceptor,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let _nodelay = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let client = Client { address, node: certificate.and_then(|certificate| Peer::of(certificate).ok()) };
    let _stranger = client.node.is_none().then_some(stranger);
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
        _ = stop.wait_for(|stopping| *stopping) => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}
