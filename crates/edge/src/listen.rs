//! Sockets and worker threads: each worker has its own listening socket on the same address (SO_REUSEPORT), so the
//! kernel spreads connections and no lock is shared between accept loops.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use observe::Limit;
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection;
use crate::worker::Worker;

/// Connections that the kernel holds until a worker takes them; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What the kernel may hold of one UDP socket's packets in either direction: 10 ms at 1.6 Gbit/s.
const UDP_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// How long a worker stops taking connections when it has run out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Whether visitors of an address speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secure {
    Plain,
    /// `http3`: the port where the same is spoken by HTTP/3, if it is.
    Tls {
        http3: Option<u16>,
    },
}

/// Opens `count` sockets on one address. Port 0 becomes one free port for all of them.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // Sharing a port between our workers must not share it with another process: visitors would be split over two
    // caches. A socket that does not share tells whether somebody is there.
    if address.port() != 0 {
        let alone = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        alone.set_reuse_address(true)?;
        alone.bind(&address.into())?;
        alone.listen(1)?;
    }
    let mut address = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The same for UDP, on a port that [`bind`] has found free for TCP.
pub(crate) fn bind_udp(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        Ok::<_, io::Error>(socket)
    };
    let alone = open()?;
    alone.bind(&address.into())?;
    drop(alone);
    let sockets = (0..count).map(|_| {
        let socket = open()?;
        socket.set_reuse_port(true)?;
        // The kernel gives what it may (`net.core.rmem_max`); less costs packets when many come at once.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
        socket.bind(&address.into())?;
        Ok(UdpSocket::from(socket))
    });
    sockets.collect()
}

/// Takes connections until the edge stops.
pub(crate) async fn accept(worker: Rc<Worker>, listener: tokio::net::TcpListener, secure: Secure) {
    while !worker.is_draining() {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // EMFILE and ENFILE stay until something closes; the others are one visitor's trouble.
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                ) {
                    worker.count_limit(Limit::Connections);
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                continue;
            }
        };
        let Some(open) = Open::count(&worker) else {
            worker.count_limit(Limit::Connections);
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::task::spawn_local(hold(open, stream, peer, secure));
    }
}

/// A connection that is open, and counted until it is dropped, also if serving it panics.
pub(crate) struct Open(Rc<Worker>);

impl Open {
    /// Counts one more, if there may be.
    pub(crate) fn count(worker: &Rc<Worker>) -> Option<Self> {
        let connections = &worker.shared.connections;
        let open = connections.fetch_add(1, Ordering::Relaxed);
        if open >= worker.limits().connections_max as usize {
            connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        worker.observer.connection_opened();
        Some(Open(worker.clone()))
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.observer.connection_closed();
    }
}

/// Serves a connection and counts it while it is open.
async fn hold(open: Open, stream: tokio::net::TcpStream, peer: SocketAddr, secure: Secure) {
    connection::serve(open.worker().clone(), stream, peer, secure).await;
}
