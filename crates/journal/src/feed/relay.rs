//! A relay: follows a control, and is followed by the nodes of a region. Also whoever else serves a hub and nothing besides.
//!
//! It has no state that a restart would miss: it begins at the journal's head, and reads what its nodes have missed from above.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::crowd::{Counted, Crowd};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::{Dialer, Hub};
use trust::{Identity, Peer, text_hash};

/// Nodes at a time. A relay is for a region: what is more than this is several regions.
const CONNECTIONS_MAX: usize = 4_096;

/// Connections from one address that have not shown a certificate of the cluster, so that they leave nodes room.
const STRANGERS_PER_ADDRESS_MAX: usize = 256;

/// How long a handshake may take, and a connection without a certificate: it gets the word that this is a relay, and no more.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// After a failure to accept: file descriptors have run out, and come back when somebody leaves.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Configurations that are kept, and bytes of each.
const TEXTS_MAX: usize = 8;
const TEXT_BYTES_MAX: usize = 8 << 20;

/// What a relay answers from.
pub struct Relay {
    hub: Arc<Hub>,
    above: Arc<Dialer>,
    /// Configurations by hash, the newest last.
    texts: Mutex<VecDeque<(String, Bytes)>>,
    /// Held while one is fetched: all nodes want the same at the same moment.
    fetching: tokio::sync::Mutex<()>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Relay {
    /// For a hub, and who has what it lacks.
    pub fn new(hub: Arc<Hub>, above: Arc<Dialer>) -> Arc<Relay> {
        Arc::new(Relay { hub, above, texts: Mutex::default(), fetching: tokio::sync::Mutex::default() })
    }

    /// Serves nodes for ever; cancelling it ends their feeds. `identity` is asked for each connection, so that a renewed
    /// certificate is shown to the next one.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        identity: impl Fn() -> Arc<Identity> + Send + 'static,
    ) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let strangers = Crowd::new(STRANGERS_PER_ADDRESS_MAX);
        let mut connections = JoinSet::new();
        loop {
            let accepted = listener.accept().await;
            while connections.try_join_next().is_some() {}
            let Ok((stream, address)) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Who comes when there is no room is refused at once, so that it can try another one.
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let Some(stranger) = strangers.admit(address.ip()) else { continue };
            let Ok(tls) = identity().server_config() else { continue };
            let relay = self.clone();
            connections.spawn(async move {
                relay.connection(stream, stranger, TlsAcceptor::from(tls)).await;
                drop(permit);
            });
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, stranger: Counted, acceptor: TlsAcceptor) {
        let _nodelay = stream.set_nodelay(true);
        let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
        let chain = stream.get_ref().1.peer_certificates();
        let peer = chain
            .and_then(|chain| Peer::of(chain.first()?).ok())
            .filter(|peer| !peer.is_expired(super::now_ms() / 1000));
        let stranger = peer.is_none().then_some(stranger);
        let service = service_fn(move |request| {
            let (relay, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, Infallible>(relay.answer(peer, request).await) }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(10)));
        // It ends when the node goes, in whatever way.
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        match stranger {
            Some(_counted) => drop(timeout(HANDSHAKE_TIMEOUT, connection).await),
            None => drop(connection.await),
        }
    }

    async fn answer(&self, peer: Option<Peer>, request: Request<Incoming>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let is_known = matches!(&path[..], "/v1/feed" | "/v1/journal") || path.starts_with("/v1/blobs/");
        if !is_known {
            return refusal(
                StatusCode::NOT_FOUND,
                "a relay passes on what nodes follow; ask a control for this",
            );
        }
        let Some(peer) = peer else {
            let why = "the connection has no certificate of this cluster that is valid";
            return refusal(StatusCode::UNAUTHORIZED, why);
        };
        match (method, &path[..]) {
            (Method::POST, "/v1/feed") => {
                Response::new(self.hub.serve(peer, request.into_body()).boxed_unsync())
            }
            (Method::GET, "/v1/journal") => {
                let query = request.uri().query().unwrap_or_default();
                let number =
                    |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.parse().ok());
                let (Some(after), Some(limit)) = (number("after="), number("limit=")) else {
                    return refusal(StatusCode::BAD_REQUEST, "wanted ?after=POSITION&limit=NUMBER");
                };
                let (status, json) = self.hub.page(after, limit as usize).await;
                answer(status, json.into())
            }
            (Method::GET, path) if let Some(hash) = path.strip_prefix("/v1/blobs/") => self.text(hash).await,
            _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "wanted POST for /v1/feed, and GET for the others"),
        }
    }

    async fn text(&self, hash: &str) -> Answer {
        let held = || self.texts.lock().iter().find(|(known, _)| known == hash).map(|(_, text)| text.clone());
        if let Some(text) = held() {
            return answer(StatusCode::OK, text);
        }
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return refusal(StatusCode::BAD_REQUEST, "wanted the SHA-256 of a text, in hex");
        }
        let _turn = self.fetching.lock().await;
        if let Some(text) = held() {
            return answer(StatusCode::OK, text);
        }
        match self.above.get(&format!("/v1/blobs/{hash}"), TEXT_BYTES_MAX).await {
            Ok(text) if text_hash(&text) == hash => {
                let mut texts = self.texts.lock();
                texts.push_back((hash.to_owned(), text.clone()));
                if texts.len() > TEXTS_MAX {
                    texts.pop_front();
                }
                answer(StatusCode::OK, text)
            }
            Ok(_) => refusal(StatusCode::BAD_GATEWAY, "what came from above has another hash"),
            Err(why) => refusal(StatusCode::BAD_GATEWAY, &why),
        }
    }
}

fn answer(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

fn refusal(status: StatusCode, error: &str) -> Answer {
    let mut answer = answer(status, serde_json::json!({ "error": error }).to_string().into());
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}
