//! One visitor's connection, from the accepted socket to the protocol that it speaks: who is there (PROXY protocol),
//! whether it is encrypted, and by which version of HTTP it goes on.
//!
//! ```text
//! socket ─► PROXY header? ─► TLS? ─┬─► HTTP/1.1
//!                                  └─► HTTP/2 (ALPN)
//!   other edge ─► TLS with certificates on both sides ─► HTTP/2
//! crate::quic ─────────────────────────► HTTP/3
//! ```

mod exchange;
pub(crate) mod frames;
mod halves;
mod http1;
mod http2;
mod http3;
mod stream;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::settings::HANDSHAKES_CLIENT_SHARE;
use observe::{Handshake, Limit};
use stats::Country;
use tokio::net::TcpStream;

use crate::listen::Secure;
use crate::rates::{Counted, Full, Opened};
use crate::tls::{self, ACME_PROTOCOL, Shown};
use crate::worker::{Watch, Worker};
use crate::{forwarded, proxy_protocol, tcp_info};

use stream::{Io, Prefixed, Sealed};

/// How long a connection or stream that speaks another protocol may be silent in both directions.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    /// The visitor's address, by PROXY protocol if it is on.
    pub(crate) client: IpAddr,
    /// Where that is.
    pub(crate) country: Country,
    /// The socket's peer.
    pub(crate) peer: IpAddr,
    pub(crate) secure: bool,
    /// What its handshake has shown.
    pub(crate) shown: Shown,
    /// The port where the same is spoken by HTTP/3, if there is one and it is not this.
    pub(crate) alt_svc: Option<u16>,
    /// The node that is there, if it is another edge, which asks for its own visitors.
    pub(crate) node: Option<Arc<str>>,
}

/// The visitor is gone, too slow, or the answer could not be completed: close without another word.
pub(crate) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Gone
    }
}

/// Serves one connection until either side has had enough.
pub(crate) async fn serve(worker: Rc<Worker>, socket: TcpStream, peer: SocketAddr, secure: Secure) {
    let alt_svc = match secure {
        Secure::Tls { http3: Some(port) } => Some(port),
        Secure::Tls { http3: None } | Secure::Plain | Secure::Tier => None,
    };
    let mut visitor = Visitor {
        client: peer.ip(),
        country: Country::UNKNOWN,
        peer: peer.ip(),
        secure: secure != Secure::Plain,
        shown: Shown::Nothing,
        alt_svc,
        node: None,
    };
    if secure == Secure::Tier {
        let Ok((io, node)) = meet_edge(&worker, socket).await else { return };
        visitor.node = Some(node);
        return Box::pin(http2::serve(worker, io, visitor)).await;
    }
    let mut first = Vec::new();
    if worker.loaded().snapshot.edge.proxy_protocol {
        let Ok(client) = read_proxy_header(&worker, &socket, &mut first).await else { return };
        let trusted = &worker.loaded().snapshot.edge.trusted_proxies;
        if let Some(client) = client.filter(|_| forwarded::is_trusted(trusted, visitor.peer)) {
            visitor.client = client;
        }
    }
    let client = counted_client(&worker, visitor.client);
    let Ok(_counted) = count(&worker, client) else { return };
    let measuring = &worker.shared.measuring;
    // To a proxy before us it would be another way than the visitor's.
    if let Some(client) = client.filter(|client| *client == visitor.peer)
        && measuring.wants_connection(&worker.loaded().snapshot)
    {
        measuring.connection(client, tcp_info::least_round_trip_us(&socket));
    }
    visitor.country = worker.shared.country_of(visitor.client);
    match secure {
        Secure::Plain | Secure::Tier => http1::serve(worker, Io::Plain(socket), visitor, first).await,
        Secure::Tls { .. } => {
            let socket = Prefixed::new(socket, first);
            let Ok((io, is_http2, shown)) = shake_hands(&worker, client, socket).await else { return };
            visitor.shown = shown;
            match is_http2 {
                true => Box::pin(http2::serve(worker, io, visitor)).await,
                false => http1::serve(worker, io, visitor, Vec::new()).await,
            }
        }
    }
}

/// Serves one connection of QUIC until either side has had enough.
pub(crate) async fn serve_http3(worker: Rc<Worker>, connection: quinn::Connection, visitor: Visitor) {
    let measuring = &worker.shared.clone().measuring;
    let measured = measuring.wants_connection(&worker.loaded().snapshot);
    let measured = measured.then(|| (connection.clone(), visitor.client));
    http3::serve(worker, connection, visitor).await;
    if let Some((connection, client)) = measured {
        measuring.connection(client, connection.rtt().as_micros().try_into().unwrap_or(0));
    }
}

/// Whom a connection is counted for; nobody, if it is of those who stand before us for others.
pub(crate) fn counted_client(worker: &Worker, client: IpAddr) -> Option<IpAddr> {
    let trusted = &worker.loaded().snapshot.edge.trusted_proxies;
    (!forwarded::is_trusted(trusted, client)).then_some(client)
}

/// Counts a connection while it is open, if its client may have only so many.
pub(crate) fn count(worker: &Worker, client: Option<IpAddr>) -> Result<Option<Opened>, Gone> {
    let (Some(client), Some(most)) = (client, worker.limits().connections_per_client_max) else {
        return Ok(None);
    };
    match worker.shared.clients.enter(Some(client), most.get(), u32::MAX) {
        Ok(opened) => Ok(Some(opened)),
        Err(_) => {
            worker.count_limit(Limit::ConnectionsPerClient);
            Err(Gone)
        }
    }
}

/// Counts a handshake while it is under way, if there may be one more. `client` is whom it is counted for.
pub(crate) fn count_handshake(worker: &Worker, client: Option<IpAddr>) -> Result<Opened, Gone> {
    let limits = worker.limits();
    if let (Some(rate), Some(client)) = (&limits.handshakes_per_client, client)
        && worker.take(Counted::Handshakes(client), rate).is_err()
    {
        worker.count_limit(Limit::HandshakesPerClient);
        return Err(Gone);
    }
    let of_client = limits.handshakes_max / HANDSHAKES_CLIENT_SHARE;
    worker.handshakes.enter(client, of_client, limits.handshakes_max).map_err(|full| {
        worker.count_limit(match full {
            Full::Total => Limit::Handshakes,
            Full::Client => Limit::HandshakesPerClient,
        });
        Gone
    })
}

/// The TLS handshake; whether HTTP/2 comes out of it, and what the visitor has shown. `client` is whom it is counted for.
async fn shake_hands(
    worker: &Rc<Worker>,
    client: Option<IpAddr>,
    socket: Prefixed,
) -> Result<(Io, bool, Shown), Gone> {
    let _under_way = count_handshake(worker, client)?;
    let watch = worker.watch();
    watch.set(worker.tick_after(worker.limits().handshake_timeout));
    let (config, asking) = worker.tls().tcp(&worker.loaded()).map_err(|_| Gone)?;
    let sealed = within(worker, &watch, Sealed::open(config, socket)).await?;
    let session = sealed.session();
    let protocol = session.alpn_protocol();
    if protocol == Some(ACME_PROTOCOL) {
        // The handshake was the answer (RFC 8737 §3).
        return Err(Gone);
    }
    let is_http2 = protocol == Some(b"h2");
    let shown = asking.map_or(Shown::Unasked, |asking| asking.shown(session.peer_certificates()));
    Ok((Io::Tls(Box::new(sealed)), is_http2, shown))
}

/// Waits for a handshake and counts how it ended.
async fn within(
    worker: &Worker,
    watch: &Watch,
    handshake: impl Future<Output = io::Result<Sealed>>,
) -> Result<Sealed, Gone> {
    let Some(shaken) = watch.within(Box::pin(handshake)).await else {
        worker.count_limit(Limit::HandshakeTime);
        worker.observer.handshake_ended(Handshake::Timeout);
        return Err(Gone);
    };
    worker.observer.handshake_ended(match &shaken {
        Ok(sealed) => tls::done(sealed.session()),
        Err(error) => tls::failed(error),
    });
    Ok(shaken?)
}

/// The handshake with another edge, which shows the certificate of a node of this configuration; which.
async fn meet_edge(worker: &Rc<Worker>, socket: TcpStream) -> Result<(Io, Arc<str>), Gone> {
    let watch = worker.watch();
    watch.set(worker.tick_after(worker.limits().handshake_timeout));
    let config = worker.shared.certified.server().map_err(|_| Gone)?;
    let sealed = within(worker, &watch, Sealed::open(config, Prefixed::new(socket, Vec::new()))).await?;
    let certificate = sealed.session().peer_certificates().and_then(|chain| chain.first()).ok_or(Gone)?;
    let names = trust::edge_names(certificate);
    let loaded = worker.loaded();
    let known = |name: &&String| loaded.snapshot.routing.pop_of_node(name).is_some();
    let node = names.iter().find(known).ok_or(Gone)?;
    let node = node.as_str().into();
    Ok((Io::Tls(Box::new(sealed)), node))
}

/// Reads the PROXY header; what comes behind it is left in `buffer`. `None` when it names no visitor.
async fn read_proxy_header(
    worker: &Rc<Worker>,
    socket: &TcpStream,
    buffer: &mut Vec<u8>,
) -> Result<Option<IpAddr>, Gone> {
    let watch = worker.watch();
    watch.set(worker.tick_after(worker.limits().header_timeout));
    loop {
        match proxy_protocol::parse(buffer) {
            Ok(proxy_protocol::Parsed::Header { length, client }) => {
                buffer.drain(..length);
                return Ok(client);
            }
            Ok(proxy_protocol::Parsed::More) => {}
            Err(proxy_protocol::BadHeader) => return Err(Gone),
        }
        watch.within(poll_fn(|context| socket.poll_read_ready(context))).await.ok_or(Gone)??;
        match socket.try_read_buf(buffer) {
            Ok(0) => return Err(Gone),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(Gone),
            _ => {}
        }
    }
}
