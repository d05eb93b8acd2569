//! Connections: TLS, who is at the other end, HTTP/1.1 or HTTP/2.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use journal::trust::Peer;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

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
    let strangers = Arc::new(Strangers::default());
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

/// Connections that have not shown a node's certificate, by address.
#[derive(Default)]
struct Strangers(Mutex<HashMap<IpAddr, usize>>);

/// One of them.
struct Stranger {
    all: Arc<Strangers>,
    from: IpAddr,
}

impl Strangers {
    /// `None` when there are enough of them from this address.
    fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Stranger> {
        let from = match from.to_canonical() {
            // Whoever has one address of these has all.
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
            from => from,
        };
        let mut counts = self.0.lock();
        let count = counts.entry(from).or_default();
        if *count >= STRANGERS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Stranger { all: Arc::clone(self), from })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    stranger: Stranger,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_address_only_so_many_strangers_are_let_in() {
        let strangers = Arc::new(Strangers::default());
        let from = |address: &str| strangers.admit(address.parse().unwrap());
        let mut inside: Vec<_> = (0..STRANGERS_PER_ADDRESS_MAX).map(|_| from("192.0.2.1").unwrap()).collect();
        assert!(from("192.0.2.1").is_none());
        assert!(from("::ffff:192.0.2.1").is_none(), "the same address, written differently");
        assert!(from("192.0.2.2").is_some());
        inside.pop();
        assert!(from("192.0.2.1").is_some());
        let networks: Vec<_> = (0..STRANGERS_PER_ADDRESS_MAX)
            .map(|host| from(&format!("2001:db8::{host:x}")).unwrap())
            .collect();
        assert!(from("2001:db8::ffff:1").is_none());
        assert!(from("2001:db8:0:1::1").is_some());
        drop((inside, networks));
        assert!(strangers.0.lock().is_empty());
    }
}
