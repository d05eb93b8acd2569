//! QUIC towards visitors (RFC 9000), by `quinn`: one endpoint per worker and address, on a UDP socket of its own.
//!
//! The kernel spreads packets over the workers' sockets by the visitor's address. A visitor who gets another address (a
//! phone that leaves the house) comes out at another worker; so does each one when the number of sockets changes. But a
//! connection lives in one worker. So the connection ids that we give out say which ([`id`]), and a worker that gets what
//! is not its own hands it on ([`steering`]), to another process if need be ([`strays`]).
//!
//! ```text
//!             ┌─ worker 0: socket ─► steering ─► endpoint ─► connection ─► connection::http3
//! packets ──► │                       │   ▲
//!             └─ worker 1: socket ─► steering ─► endpoint ─► …
//! ```

mod id;
mod steering;
pub(crate) mod strays;

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use aws_lc_rs::{hkdf, hmac};
use model::settings::HANDSHAKES_CLIENT_SHARE;
use observe::{Handshake, Limit};
use parking_lot::Mutex;
use quinn::{
    ConnectionError, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;

use crate::connection::{self, Visitor};
use crate::listen::Open;
use crate::rates::Opened;
use crate::tls::{self, Asking, Shown};
use crate::worker::Worker;

pub(crate) use steering::Steering;

/// Handshakes of one worker that may be under way before those who begin another must show that they are where they
/// say (RFC 9000 §8.1.2, Retry): a round trip more for them, and no state for a flood from invented addresses. As these
/// are counted for nobody, they are no more than what one client may have.
const HANDSHAKES_UNPROVEN_MAX: u32 = 128;

/// Beginnings of connections that a worker has read and not yet looked at, and what they may hold together. They wait for
/// one turn of the worker.
const INCOMING_MAX: usize = 1024;
const INCOMING_BYTES: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 * 1024 * 1024;

/// What a visitor may send of request bodies before we have taken it, as for HTTP/2: per stream, and in all.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of one connection that may be on their way or wait for it: what a slow visitor can make us hold, and enough for
/// 160 Mbit/s over 100 ms. Stored bodies are held by reference.
const SEND_WINDOW_BYTES: u64 = 2 * 1024 * 1024;

/// Streams in one direction that a visitor may have open: the three that RFC 9114 §6.2 demands, and some that mean nothing
/// to us.
const OTHER_STREAMS_MAX: u32 = 8;

/// How long an endpoint may take to tell visitors that it ends. It is told again to those who send meanwhile.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often a visitor is asked whether it is still there. QUIC ends a connection in which nothing comes; a request that waits
/// for its origin for longer must not end so. Browsers give up after 30 s; idle connections end by a deadline of ours.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The part of one worker in listening on one address.
pub(crate) struct Listening {
    pub(crate) socket: UdpSocket,
    pub(crate) steering: Arc<Steering>,
    /// Which of the address's endpoints.
    pub(crate) number: u16,
}

/// Secrets that all workers of a node share, and that outlive a process as long as its seed: for connection ids, for
/// proofs of address, and for telling visitors of connections that nobody knows any more.
struct Secrets {
    id: id::Key,
    token: Arc<hkdf::Prk>,
    reset: Arc<hmac::Key>,
}

impl Secrets {
    fn of(seed: &[u8; 16]) -> Self {
        let base = hmac::Key::new(hmac::HMAC_SHA256, seed);
        let derive = |purpose: &str| hmac::sign(&base, purpose.as_bytes());
        let id = derive("quic connection ids");
        Secrets {
            id: id::Key::of(id.as_ref()),
            token: Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(derive("quic tokens").as_ref())),
            reset: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derive("quic resets").as_ref())),
        }
    }
}

/// Which process reads the sockets. Never two of them: what one gets of the other's it would answer with the end of the connection.
enum Reading {
    /// The one before this, still; whom to wake when it has stopped.
    Before(Vec<Waker>),
    /// This one.
    Here,
    /// The one after this.
    After,
}

/// What all endpoints of a process share.
pub(crate) struct Quic {
    secrets: Secrets,
    /// Which start of the node this is.
    start: [u8; 3],
    reading: Mutex<Reading>,
    /// Whether that is [`Reading::Here`].
    is_reading: AtomicBool,
    before: strays::Before,
    /// Packets that there was no room for in a worker's inbox.
    dropped: AtomicU64,
}

impl Quic {
    /// `before`: the way to the process that served before. With one, nothing is read before [`Quic::start_reading`].
    pub(crate) fn new(seed: &[u8; 16], before: Option<OwnedFd>) -> Self {
        let chance = crate::storage::chance().to_le_bytes();
        Quic {
            secrets: Secrets::of(seed),
            start: [chance[0], chance[1], chance[2]],
            is_reading: AtomicBool::new(before.is_none()),
            reading: Mutex::new(match before {
                Some(_) => Reading::Before(Vec::new()),
                None => Reading::Here,
            }),
            before: strays::Before::new(before),
            dropped: AtomicU64::new(0),
        }
    }

    /// Packets that were lost on their way in, as there was no room for them: on the way to another worker, and to another process.
    pub(crate) fn dropped(&self) -> [u64; 2] {
        [self.dropped.load(Ordering::Relaxed), self.before.dropped()]
    }

    fn is_reading(&self) -> bool {
        self.is_reading.load(Ordering::Acquire)
    }

    /// Whether sockets are read here; if they are not yet, `context` is woken once they are.
    fn poll_reading(&self, context: &Context<'_>) -> bool {
        if self.is_reading() {
            return true;
        }
        match &mut *self.reading.lock() {
            Reading::Before(waiting) => {
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                false
            }
            Reading::Here => true,
            Reading::After => false,
        }
    }

    /// Reads the sockets, now that the process before this one does not. Does nothing when this one has left them already.
    pub(crate) fn start_reading(&self) {
        let mut reading = self.reading.lock();
        if let Reading::Before(waiting) = &mut *reading {
            let waiting = std::mem::take(waiting);
            *reading = Reading::Here;
            self.is_reading.store(true, Ordering::Release);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Leaves the sockets to the process that has them too, and gets the packets of its connections from that.
    pub(crate) fn stop_reading(&self) {
        *self.reading.lock() = Reading::After;
        self.is_reading.store(false, Ordering::Release);
    }
}

/// Makes a worker's endpoint. Must be called in its runtime.
pub(crate) fn endpoint(worker: &Worker, listening: Listening) -> io::Result<Endpoint> {
    let Listening { socket, steering, number } = listening;
    let Quic { secrets, start, .. } = steering.quic();
    let mut config = EndpointConfig::new(secrets.reset.clone());
    let (key, owner) = (secrets.id, id::Owner { start: *start, endpoint: number });
    config.cid_generator(move || Box::new(id::Generator::new(key, owner)));
    let (server, _) = server_config(secrets, worker).map_err(io::Error::other)?;
    let socket = steering::Steered::new(socket, steering, number)?;
    Endpoint::new_with_abstract_socket(config, Some(server), Arc::new(socket), Arc::new(TokioRuntime))
}

/// What a connection that begins now goes by; and what says afterwards what its visitor has shown, if anybody asks.
fn server_config(
    secrets: &Secrets,
    worker: &Worker,
) -> Result<(ServerConfig, Option<Arc<Asking>>), rustls::Error> {
    let (tls, asking) = worker.tls().quic(&worker.loaded())?;
    let limits = worker.limits();
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(limits.streams_max.into())
        .max_concurrent_uni_streams(OTHER_STREAMS_MAX.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(limits.idle_timeout.try_into().ok())
        .keep_alive_interval(Some(KEEP_ALIVE.min(limits.idle_timeout / 3)))
        .datagram_receive_buffer_size(None);
    let mut config = ServerConfig::new(tls, secrets.token.clone());
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    Ok((config, asking))
}

/// Takes connections until the edge stops.
pub(crate) async fn accept(worker: Rc<Worker>, endpoint: Endpoint, quic: Arc<Quic>) {
    while let Some(incoming) = endpoint.accept().await {
        // What was read before the sockets were left to another process is answered here.
        if worker.is_draining() && !worker.shared.is_gentle.load(Ordering::Relaxed) {
            incoming.refuse();
            continue;
        }
        if !worker.loaded().snapshot.switches.http3 {
            incoming.refuse();
            continue;
        }
        let limits = worker.limits();
        let mut client = connection::counted_client(&worker, incoming.remote_address().ip().to_canonical());
        if !incoming.remote_address_validated() {
            let is_rush = worker.handshakes.total()
                >= HANDSHAKES_UNPROVEN_MAX.min(limits.handshakes_max / HANDSHAKES_CLIENT_SHARE);
            let is_limited =
                limits.handshakes_per_client.is_some() || limits.connections_per_client_max.is_some();
            if is_rush || is_limited && client.is_some() {
                if is_rush {
                    worker.count_limit(Limit::HandshakesUnproven);
                }
                let _ = incoming.retry();
                continue;
            }
            // Anybody can put another's address on a packet.
            client = None;
        }
        let Some(open) = Open::count(&worker) else {
            worker.count_limit(Limit::Connections);
            incoming.ignore();
            continue;
        };
        let counted = connection::count(&worker, client)
            .and_then(|counted| Ok((counted, connection::count_handshake(&worker, client)?)));
        let Ok((counted, handshake)) = counted else {
            // Who is one too many for all comes again; who is too many by itself is told so.
            match worker.handshakes.total() >= limits.handshakes_max {
                true => incoming.ignore(),
                false => incoming.refuse(),
            }
            continue;
        };
        let Ok((config, asking)) = server_config(&quic.secrets, &worker) else { continue };
        tokio::task::spawn_local(async move {
            let _counted = counted;
            hold(open, incoming, Arc::new(config), asking, handshake).await;
        });
    }
}

/// Serves a connection, and counts it while it is open.
async fn hold(
    open: Open,
    incoming: Incoming,
    config: Arc<ServerConfig>,
    asking: Option<Arc<Asking>>,
    handshake: Opened,
) {
    let worker = open.worker();
    // What is asked early counts for an address, and goes to the origin under it: only for one that has been shown to be the visitor's.
    let is_proven = incoming.remote_address_validated();
    let Ok(connecting) = incoming.accept_with(config) else { return };
    let connection = match worker.tls().takes_early_data() && is_proven && asking.is_none() {
        // What comes before the handshake is over says so itself.
        true => match connecting.into_0rtt() {
            Ok((connection, shaken)) => {
                let (worker, shaking) = (worker.clone(), connection.clone());
                tokio::task::spawn_local(async move {
                    let _under_way = handshake;
                    let shaken = pin!(async {
                        shaken.await;
                        shaking.close_reason().map_or(Ok(()), Err)
                    });
                    if shake_hands(&worker, shaken).await.is_none() {
                        shaking.close(VarInt::from_u32(crate::h3::Code::NoError as u32), b"");
                    }
                });
                connection
            }
            Err(_) => return,
        },
        false => {
            let Some(connection) = shake_hands(worker, connecting).await else { return };
            drop(handshake);
            connection
        }
    };
    let peer = connection.remote_address().ip().to_canonical();
    let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'_>>>().ok());
    let shown = asking.map_or(Shown::Unasked, |asking| asking.shown(chain.as_deref().map(Vec::as_slice)));
    let country = worker.shared.country_of(peer);
    let visitor = Visitor { client: peer, country, peer, secure: true, shown, alt_svc: None, node: None };
    connection::serve_http3(worker.clone(), connection, visitor).await;
}

/// What a handshake comes to, and counts how it ended; `None` when it fails or takes too long.
async fn shake_hands<T>(
    worker: &Worker,
    handshake: impl Future<Output = Result<T, ConnectionError>> + Unpin,
) -> Option<T> {
    let watch = worker.watch();
    watch.set(worker.tick_after(worker.limits().handshake_timeout));
    let Some(shaken) = watch.within(handshake).await else {
        worker.count_limit(Limit::HandshakeTime);
        worker.observer.handshake_ended(Handshake::Timeout);
        return None;
    };
    worker.observer.handshake_ended(match &shaken {
        Ok(_) => Handshake::Quic,
        Err(error) => failed(error),
    });
    shaken.ok()
}

/// How a handshake that failed is counted.
fn failed(error: &ConnectionError) -> Handshake {
    // RFC 9001 §4.8: an alert of TLS is an error of this range.
    let alert = |code: u64| u8::try_from(code.checked_sub(0x100)?).ok();
    match error {
        ConnectionError::TransportError(error) => {
            alert(error.code.into()).map_or(Handshake::Malformed, tls::failed_by)
        }
        ConnectionError::ConnectionClosed(close) if alert(close.error_code.into()).is_some() => {
            Handshake::Refused
        }
        _ => Handshake::Closed,
    }
}

/// Lets what is still to be told be told: endings of connections.
pub(crate) async fn finish(worker: &Worker, endpoint: &Endpoint) {
    endpoint.close(VarInt::from_u32(crate::h3::Code::NoError as u32), b"");
    let begin = Instant::now();
    let is_over = || begin.elapsed() > FAREWELL || worker.shared.cut.load(Ordering::Relaxed);
    while endpoint.open_connections() > 0 && !is_over() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
