//! Packets between the process that served before and the one in its place. Both have the same UDP sockets, and whoever
//! reads one gets packets for the other. So only one reads: the new process begins when the old one has stopped, and sends
//! back what belongs to the old one's connections: over a pair of Unix sockets (SOCK_SEQPACKET) that is passed on with
//! the others. Of several processes that drain, each sends on what is none of its own.
//!
//! What there is no room for is lost, as packets are. An end of the socket says that the other process has ended: from then
//! on its connections are nobody's, and their visitors are told so (stateless reset, RFC 9000 §10.3).
//!
//! ```text
//! ├ format: 1 ┤├ listening address: 19 ┤├ sender: 19 ┤├ address that it was sent to: 19 ┤├ ECN: 1 ┤├ packet ─
//! address: family (0: none, 4, 6), 16 bytes (the first four of IPv4), port
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use quinn::udp::EcnCodepoint;
use rustix::net::sockopt;
use socket2::{Domain, Socket, Type};

use super::steering::{Packet, Steering};

/// The layout above: another one would be another number, which is not understood, and lost.
const FORMAT: u8 = 1;
const ADDRESS_BYTES: usize = 19;
const HEAD_BYTES: usize = 1 + 3 * ADDRESS_BYTES + 1;

/// The largest packet, and its head.
const BYTES_MAX: usize = HEAD_BYTES + 65_535;

/// What the kernel may hold of packets on their way to the other process; it allows twice as much, as with UDP sockets. Its default
/// is room for 93 packets, which is a moment of a thousand connections and a hundred downloads.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The way to the process before this one, while there is one.
#[derive(Default)]
pub(super) struct Before {
    socket: RwLock<Option<Socket>>,
    is_there: AtomicBool,
    /// Packets that there was no room for.
    dropped: AtomicU64,
}

impl Before {
    pub(super) fn new(socket: Option<OwnedFd>) -> Self {
        let is_there = AtomicBool::new(socket.is_some());
        Before { socket: RwLock::new(socket.map(Socket::from)), is_there, dropped: AtomicU64::new(0) }
    }

    /// Sends a packet back that came in on `listening`. `false` when there is nobody who could have it.
    pub(super) fn send(&self, listening: SocketAddr, packet: &Packet) -> bool {
        if !self.is_there.load(Ordering::Acquire) {
            return false;
        }
        let sent = match &*self.socket.read() {
            Some(socket) => {
                socket.send_with_flags(&encode(listening, packet), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            }
            None => return false,
        };
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.is_there.store(false, Ordering::Release);
                *self.socket.write() = None;
                false
            }
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Ok(_) => true,
        }
    }
}

impl Before {
    /// Packets that there was no room for.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Makes the pair: the first end is for the process that comes, the second is listened to here, until the other process has
/// ended.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (theirs, ours) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    // What the kernel gives counts for whoever sends.
    if sockopt::set_socket_send_buffer_size_force(&theirs, BUFFER_BYTES).is_err() {
        let _ = theirs.set_send_buffer_size(BUFFER_BYTES);
    }
    Ok((theirs.into(), ours.into()))
}

/// Listens for packets that the process in this one's place sends back, in a thread of its own.
pub(crate) fn listen(socket: OwnedFd, steerings: Vec<Arc<Steering>>) -> io::Result<()> {
    let socket = Socket::from(socket);
    let listen = move || {
        let mut buffer = vec![0; BYTES_MAX];
        loop {
            let length = match io::Read::read(&mut &socket, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            };
            if let Some((listening, packet)) = decode(&buffer[..length])
                && let Some(steering) = steerings.iter().find(|steering| steering.listens_on(listening))
            {
                steering.deliver(packet);
            }
        }
    };
    std::thread::Builder::new().name("strays".to_owned()).spawn(listen).map(drop)
}

fn encode(listening: SocketAddr, packet: &Packet) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + packet.bytes.len());
    out.push(FORMAT);
    write_address(&mut out, Some(listening));
    write_address(&mut out, Some(packet.from));
    write_address(&mut out, packet.to.map(|ip| SocketAddr::new(ip, 0)));
    out.push(packet.ecn.map_or(0, |ecn| ecn as u8));
    out.extend_from_slice(&packet.bytes);
    out
}

fn decode(bytes: &[u8]) -> Option<(SocketAddr, Packet)> {
    let (head, packet) = bytes.split_at_checked(HEAD_BYTES)?;
    let (format, rest) = head.split_first()?;
    let (ecn, addresses) = rest.split_last()?;
    let mut addresses = addresses.chunks_exact(ADDRESS_BYTES).map(read_address);
    let mut next = || addresses.next().flatten();
    let (listening, from, to) = (next(), next(), next());
    if *format != FORMAT {
        return None;
    }
    let packet = Packet {
        bytes: packet.to_vec(),
        from: from?,
        to: to.map(|to| to.ip()),
        ecn: EcnCodepoint::from_bits(*ecn),
    };
    Some((listening?, packet))
}

fn write_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    let mut bytes = [0; 16];
    let family = match address.map(|address| address.ip()) {
        None => 0,
        Some(IpAddr::V4(ip)) => {
            bytes[..4].copy_from_slice(&ip.octets());
            4
        }
        Some(IpAddr::V6(ip)) => {
            bytes = ip.octets();
            6
        }
    };
    out.push(family);
    out.extend_from_slice(&bytes);
    out.extend_from_slice(&address.map_or(0, |address| address.port()).to_be_bytes());
}

fn read_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.get(1..ADDRESS_BYTES)?.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    match bytes[0] {
        4 => Some(SocketAddr::from(([ip[0], ip[1], ip[2], ip[3]], port))),
        6 => Some(SocketAddr::from((*ip, port))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_as_they_were_sent() {
        let listening = [SocketAddr::from(([192, 0, 2, 1], 443)), SocketAddr::from(([1; 16], 8443))];
        for (listening, to, ecn) in
            [(listening[0], None, None), (listening[1], Some(listening[1].ip()), Some(EcnCodepoint::Ce))]
        {
            let packet = Packet { bytes: vec![7; 1200], from: listening, to, ecn };
            let encoded = encode(listening, &packet);
            let (at, read) = decode(&encoded).expect("it is read");
            assert_eq!(
                (at, read.from, read.to, read.ecn, read.bytes),
                (listening, listening, to, ecn, vec![7; 1200])
            );
            assert!(decode(&encoded[..HEAD_BYTES - 1]).is_none());
        }
    }

    #[test]
    fn hundreds_of_packets_may_wait_and_what_is_more_is_counted() {
        let (theirs, _ours) = pair().expect("a pair");
        let before = Before::new(Some(theirs));
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let packet = Packet { bytes: vec![7; 1200], from, to: None, ecn: None };
        let sent = (0..10_000).take_while(|_| before.send(from, &packet) && before.dropped() == 0).count();
        // Who may not go beyond the system's limits has room for 93.
        assert!(sent >= 90, "{sent}");
        assert_eq!(before.dropped(), 1);
    }

    #[test]
    fn an_end_of_the_socket_is_noticed() {
        let (theirs, ours) = pair().expect("a pair");
        let before = Before::new(Some(theirs));
        let packet =
            Packet { bytes: vec![1], from: SocketAddr::from(([127, 0, 0, 1], 1)), to: None, ecn: None };
        assert!(before.send(packet.from, &packet));
        drop(ours);
        assert!(!before.send(packet.from, &packet));
        assert!(!Before::new(None).send(packet.from, &packet));
    }
}
