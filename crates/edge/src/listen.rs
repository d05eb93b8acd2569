//! Sockets and worker threads: each worker has its own listening socket on the same address (SO_REUSEPORT), so the
//! kernel spreads connections and no lock is shared between accept loops.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use observe::Limit;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::connection;
use crate::tcp_info;
use crate::worker::Worker;

/// Connections that the kernel holds until a worker takes them; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long visitors' connections wait at a worker that cannot keep up, about: see [`Queue`].
const WAIT: Duration = Duration::from_millis(500);

/// How often a worker that takes connections looks how long they have waited, at most.
const LOOK: Duration = Duration::from_millis(250);

/// What the kernel may hold all the same.
const BACKLOG_MIN: i32 = 64;

/// What the kernel may hold of one UDP socket's packets in either direction. It allows twice as much, to count its own
/// bookkeeping with: some 3,600 packets of full size, or a third of a second of 10,000 a second. What is read late, as all
/// cores are busy, is only late; what there is no room for costs its sender a second of waiting, when it is the first. quic-go
/// asks for 7 MiB.
const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;

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
    /// Not visitors but other edges, who speak TLS and show who they are.
    Tier,
}

/// Opens `count` sockets on one address. Port 0 becomes one free port for all of them.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // Sharing a port between our workers must not share it with another process: visitors would be split over two
    // caches. A socket that does not share tells whether somebody is there.
    if address.port() != 0 {
        let alone = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        alone.set_reuse_address(true)?;
        if address.is_ipv6() {
            alone.set_only_v6(true)?;
        }
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
        socket.bind(&address.into())?;
        Ok(UdpSocket::from(socket))
    });
    sockets.collect()
}

/// Has the kernel hold [`UDP_BUFFER_BYTES`] for each socket, or as much of it as it gives; a word to the operator when that is
/// less, as it is for who may not go beyond `net.core.rmem_max`.
pub(crate) fn widen<'a>(address: SocketAddr, sockets: impl IntoIterator<Item = &'a UdpSocket>) {
    let mut least = usize::MAX;
    for socket in sockets {
        if sockopt::set_socket_recv_buffer_size_force(socket, UDP_BUFFER_BYTES).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(socket, UDP_BUFFER_BYTES);
        }
        let _ = sockopt::set_socket_send_buffer_size(socket, UDP_BUFFER_BYTES);
        least = least.min(sockopt::socket_recv_buffer_size(socket).unwrap_or(usize::MAX));
    }
    let (given, wanted) = (least / 2, UDP_BUFFER_BYTES);
    if given < wanted {
        eprintln!(
            "perigee: the system holds {given} bytes of packets for {address}, wanted are {wanted}: HTTP/3 loses some when many \
             come at once. Set sysctl net.core.rmem_max={wanted}, and start or upgrade"
        );
    }
}

/// Packets that the kernel had no room for, of all UDP sockets at these ports, since they were opened.
pub(crate) fn dropped_packets(ports: &[u16]) -> u64 {
    let tables =
        ["/proc/net/udp", "/proc/net/udp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines.filter_map(|line| dropped_of(line, ports)).sum()
}

/// What a line of the kernel's table says: `slot: ADDRESS:PORT … drops`, with the port in hex.
fn dropped_of(line: &str, ports: &[u16]) -> Option<u64> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok().filter(|port| ports.contains(port));
    port.and_then(|_| line.split_whitespace().last()?.parse().ok())
}

/// Takes connections until the edge stops.
pub(crate) async fn accept(worker: Rc<Worker>, listener: tokio::net::TcpListener, secure: Secure) {
    let hold_waiting = |bound| _ = SockRef::from(&listener).listen(bound);
    let mut queue = Queue::new(Instant::now());
    while !worker.is_draining() {
        let accepted = match queue.is_bounded {
            false => listener.accept().await,
            true => match tokio::time::timeout(LOOK, listener.accept()).await {
                Ok(accepted) => accepted,
                Err(_nobody_waits) => {
                    queue.is_bounded = false;
                    hold_waiting(BACKLOG);
                    continue;
                }
            },
        };
        let (stream, peer) = match accepted {
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
        // Another edge waits for a second at most, in which its system would not ask again.
        if secure != Secure::Tier
            && let Some(bound) =
                queue.take(Instant::now(), || (tcp_info::waiting(&listener), tcp_info::waited(&stream)))
        {
            hold_waiting(bound);
            if queue.is_bounded {
                worker.count_limit(Limit::ConnectionsWaiting);
            }
        }
        let Some(open) = Open::count(&worker) else {
            worker.count_limit(Limit::Connections);
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::task::spawn_local(hold(open, stream, peer, secure));
    }
}

/// Bounds how long connections wait to be taken. A worker that cannot keep up lets the kernel hold no more of them than it takes
/// in [`WAIT`]: the kernel ignores the others, which costs the worker nothing, and who they are of asks again a second later by
/// TCP's own rules (RFC 6298 §2.1). Without, those who wait become so many, where a connection costs much, that they have
/// given up when they are answered: all work is in vain then.
struct Queue {
    looked: Instant,
    /// Whether fewer than [`BACKLOG`] may wait.
    is_bounded: bool,
}

impl Queue {
    fn new(now: Instant) -> Self {
        Queue { looked: now, is_bounded: false }
    }

    /// A connection was taken. Returns how many may wait from now on, at each look; `look` says how many do, and how long this one
    /// did. Others may take from the same socket, and set what they find.
    fn take(&mut self, now: Instant, look: impl FnOnce() -> (u32, Duration)) -> Option<i32> {
        if now.saturating_duration_since(self.looked) < LOOK {
            return None;
        }
        self.looked = now;
        let (waiting, waited) = look();
        self.is_bounded = waited > WAIT / 2;
        Some(match self.is_bounded {
            // They came while this one waited. Once no more come in than leave, that is how many are taken.
            true => ((f64::from(waiting) * WAIT.div_duration_f64(waited)) as i32).clamp(BACKLOG_MIN, BACKLOG),
            false => BACKLOG,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_is_read_by_port() {
        let line = "  712: 0100007F:01BB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 90210 2 0 17";
        assert_eq!(dropped_of(line, &[80, 443]), Some(17));
        assert_eq!(dropped_of(line, &[444]), None);
        let line = " 9: 00000000000000000000000001000000:20FB 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 1 2 0 3";
        assert_eq!(dropped_of(line, &[8443]), Some(3));
        for line in ["", "  sl  local_address rem_address   st", "1: 0100007F:01BB", "1: 0100007F:01BB x"] {
            assert_eq!(dropped_of(line, &[443]), None, "{line:?}");
        }
    }

    #[test]
    fn a_worker_that_cannot_keep_up_lets_no_more_wait_than_it_takes_in_half_a_second() {
        let mut now = Instant::now();
        let mut queue = Queue::new(now);
        let mut bound = |waiting, waited_ms| {
            now += LOOK;
            let bound = queue.take(now, || (waiting, Duration::from_millis(waited_ms)));
            assert_eq!(queue.take(now + LOOK / 2, || unreachable!("it has looked")), None);
            (bound.unwrap(), queue.is_bounded)
        };
        assert_eq!(bound(1_000, 200), (BACKLOG, false), "a crowd that came at once");
        assert_eq!(bound(3_000, 3_000), (500, true));
        assert_eq!(bound(500, 500), (500, true));
        assert_eq!(bound(130, 260), (250, true), "it has become slower");
        assert_eq!(bound(40, 4_000), (BACKLOG_MIN, true));
        assert_eq!(bound(20, 100), (BACKLOG, false), "it has caught up");
    }

    #[test]
    fn the_kernel_says_how_long_a_connection_has_waited() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap().remove(0);
        let began = Instant::now();
        let _visitor = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let (taken, _) = listener.accept().unwrap();
        let waited = tcp_info::waited(&taken);
        // The kernel counts in ticks of up to 10 ms.
        let tick = Duration::from_millis(10);
        assert!(waited >= 8 * tick && waited <= began.elapsed() + tick, "{waited:?}");
    }

    #[test]
    fn connections_that_nobody_takes_are_counted_and_bounded() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50));
        let _held: Vec<_> = (0..5).map(|_| connect().unwrap()).collect();
        assert_eq!(tcp_info::waiting(&listener), 5);
        SockRef::from(&listener).listen(5).unwrap();
        let _sixth = connect().unwrap();
        assert!(connect().is_err(), "Linux holds one more than it was told");
        SockRef::from(&listener).listen(BACKLOG).unwrap();
        connect().unwrap();
    }

    #[test]
    fn a_connections_task_stays_small() {
        let bytes = crate::sizes::of(|(open, stream, peer, secure)| hold(open, stream, peer, secure));
        crate::sizes::check("the task of each connection", bytes, 3_248);
    }

    #[test]
    fn all_addresses_of_both_families_can_be_listened_on() {
        let four = bind(SocketAddr::from(([0, 0, 0, 0], 0)), 2).unwrap();
        let port = four[0].local_addr().unwrap().port();
        let six = bind(SocketAddr::from(([0; 8], port)), 2).unwrap();
        assert_eq!(six[0].local_addr().unwrap().port(), port);
    }

    #[test]
    fn what_a_socket_has_no_room_for_is_counted() {
        let socket = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap().remove(0);
        sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        let address = socket.local_addr().unwrap();
        let ports = [address.port()];
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(dropped_packets(&ports), 0);
        (0..100).for_each(|_| _ = sender.send_to(&[0; 1200], address).unwrap());
        let dropped = dropped_packets(&ports);
        assert!((50..100).contains(&dropped), "{dropped} of 100, in a buffer of 4 KiB");
    }
}
