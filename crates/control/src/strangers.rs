//! How many connections there may be, and of whom: nodes always get in, whoever else comes.
//!
//! ```text
//! accepted ─► stranger ─► a node, by its certificate        CONNECTIONS_MAX, and CONNECTIONS_PER_NODE_MAX of each
//!               │    └──► an operator, by a good token      OPERATORS_MAX
//!               └─► after STRANGER_TIME, or for a newer one when there are STRANGERS_MAX: closed
//! ```
//!
//! Who is which shows with the first request that is let through, and not with a certificate alone: that of a retired node is still
//! the cluster's. The oldest stranger makes room, because a node is one for no longer than two round trips.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::crowd::{Counted, Crowd};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use trust::{Peer, Role};

use crate::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_NODE_MAX, OPERATORS_MAX, STRANGER_TIME, STRANGERS_MAX,
    STRANGERS_PER_ADDRESS_MAX,
};
use crate::{Counts, Limit};

/// Room for connections.
pub(crate) struct Rooms {
    nodes: Arc<Semaphore>,
    of_node: Arc<Crowd<Whose>>,
    operators: Arc<Semaphore>,
    strangers_max: usize,
    /// For how long a connection may be a stranger's.
    pub(crate) patience: Duration,
    of_address: Arc<Crowd>,
    strangers: Mutex<Strangers>,
    counts: Arc<Counts>,
}

/// A node, or another control, by what its certificate says.
type Whose = (Role, String);

/// Those that may be given up, the oldest first, and how many have ever come.
#[derive(Default)]
struct Strangers {
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    come: u64,
}

/// A connection's place.
pub(crate) struct Place {
    rooms: Arc<Rooms>,
    number: u64,
    /// Among those of its address.
    counted: Mutex<Option<Counted>>,
    known: OnceLock<(OwnedSemaphorePermit, Option<Counted<Whose>>)>,
}

impl Rooms {
    pub(crate) fn new(counts: Arc<Counts>) -> Rooms {
        Rooms {
            nodes: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            of_node: Crowd::new(CONNECTIONS_PER_NODE_MAX),
            operators: Arc::new(Semaphore::new(OPERATORS_MAX)),
            strangers_max: STRANGERS_MAX,
            patience: STRANGER_TIME,
            of_address: Crowd::new(STRANGERS_PER_ADDRESS_MAX),
            strangers: Mutex::default(),
            counts,
        }
    }

    /// Takes a stranger in, unless there are enough of its address, and says by what it is told that it is given up.
    pub(crate) fn admit(self: &Arc<Self>, from: IpAddr) -> Option<(Place, oneshot::Receiver<()>)> {
        let Some(counted) = self.of_address.admit(from) else {
            self.counts.reached(Limit::StrangersPerAddress);
            return None;
        };
        let (give_up, given_up) = oneshot::channel();
        let mut strangers = self.strangers.lock();
        if strangers.waiting.len() >= self.strangers_max
            && let Some((_, oldest)) = strangers.waiting.pop_first()
        {
            self.counts.reached(Limit::Strangers);
            // It may have left just now.
            let _told = oldest.send(());
        }
        strangers.come += 1;
        let number = strangers.come;
        strangers.waiting.insert(number, give_up);
        let counted = Mutex::new(Some(counted));
        Some((Place { rooms: Arc::clone(self), number, counted, known: OnceLock::new() }, given_up))
    }
}

impl Place {
    /// It is this node's.
    ///
    /// # Errors
    /// There is no room for it: which limit has been reached. It stays a stranger's.
    pub(crate) fn is_node(&self, peer: &Peer) -> Result<(), Limit> {
        if self.known.get().is_some() {
            return Ok(());
        }
        let of_node = self.rooms.of_node.admit_of((peer.role, peer.name.clone()));
        let of_node = of_node.ok_or_else(|| self.reached(Limit::ConnectionsPerNode))?;
        self.is_known_in(&self.rooms.nodes, Limit::Connections, Some(of_node))?;
        drop(self.counted.lock().take());
        Ok(())
    }

    /// It is an operator's. Where there is no room for it, it stays a stranger's.
    pub(crate) fn is_operator(&self) {
        if self.known.get().is_none() {
            let _or_a_stranger = self.is_known_in(&self.rooms.operators, Limit::Operators, None);
        }
    }

    /// Returns once it has been a stranger's for too long; never for one that is known then.
    pub(crate) async fn overdue(&self) {
        tokio::time::sleep(self.rooms.patience).await;
        if self.known.get().is_some() {
            std::future::pending().await
        }
    }

    fn is_known_in(
        &self,
        room: &Arc<Semaphore>,
        limit: Limit,
        of_node: Option<Counted<Whose>>,
    ) -> Result<(), Limit> {
        let permit = Arc::clone(room).try_acquire_owned().map_err(|_full| self.reached(limit))?;
        // Another request of the connection may have shown the same at the same moment.
        let _one_is_enough = self.known.set((permit, of_node));
        self.rooms.strangers.lock().waiting.remove(&self.number);
        Ok(())
    }

    fn reached(&self, limit: Limit) -> Limit {
        self.rooms.counts.reached(limit);
        limit
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.rooms.strangers.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::Ordering;

    use axum::routing::get;
    use axum::{Extension, Router};
    use http_body_util::{BodyExt, Empty};
    use hyper::body::Bytes;
    use hyper::client::conn::http1::{SendRequest, handshake};
    use hyper_util::rt::TokioIo;
    use journal::memory::Memory;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::server::{Client, serve};
    use crate::tls::Certificates;

    type Connection = SendRequest<Empty<Bytes>>;

    async fn ask(connection: &mut Connection) -> Result<Bytes, hyper::Error> {
        connection.ready().await?;
        let answer = connection.send_request(http::Request::new(Empty::new())).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn nodes_get_in_and_stay_whoever_else_comes() {
        let state = std::env::temp_dir().join(format!("perigee-strangers-{}", std::process::id()));
        trust::make_private_directory(&state).unwrap();
        let opened = crate::authority::open(&Memory::new("j", 1), &state).await;
        std::fs::remove_dir_all(&state).unwrap();
        let (authority, _) = opened.unwrap();
        let certificates =
            Certificates::new("c1", Vec::new(), Ipv4Addr::LOCALHOST.into(), &authority).unwrap();
        let counts = Arc::new(Counts::default());
        let mut rooms = Rooms::new(Arc::clone(&counts));
        rooms.strangers_max = 3;
        rooms.patience = Duration::from_secs(2);
        rooms.nodes = Arc::new(Semaphore::new(1));
        let is_node = async |Extension(client): Extension<Client>| {
            client.place.is_node(client.node.as_ref().unwrap()).is_ok().to_string()
        };
        let router = Router::new().route("/", get(is_node));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopping) = watch::channel(false);
        let server = serve(listener, Arc::clone(&certificates), router, Arc::new(rooms), stopping);
        let server = tokio::spawn(server);
        let crowd = async || {
            let mut crowd = Vec::new();
            for _ in 0..10 {
                crowd.push(TcpStream::connect(address).await.unwrap());
            }
            crowd
        };
        let node = async || -> Connection {
            let tls = TlsConnector::from(certificates.identity().client_config(b"http/1.1").unwrap());
            let stream = TcpStream::connect(address).await.unwrap();
            let stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender
        };

        let mut before = crowd().await;
        let mut first = node().await;
        assert_eq!(ask(&mut first).await.unwrap(), "true");
        for old in &mut before[..8] {
            // It is closed.
            let read = timeout(Duration::from_secs(20), old.read(&mut [0])).await;
            assert!(!matches!(read.unwrap(), Ok(1)));
        }
        assert_eq!(counts.limits[Limit::Strangers as usize].load(Ordering::Relaxed), 8);
        let _after = crowd().await;
        // There is room for one: another one stays a stranger, and is closed.
        let mut second = node().await;
        assert_eq!(ask(&mut second).await.unwrap(), "false");
        assert_eq!(counts.limits[Limit::Connections as usize].load(Ordering::Relaxed), 1);
        timeout(Duration::from_secs(20), async {
            while ask(&mut second).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(ask(&mut first).await.unwrap(), "true");
        server.abort();
    }
}
