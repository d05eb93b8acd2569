//! Packets to those whose connections they belong to. A worker looks at the destination of each packet that its socket
//! gives it; what is another's goes into that one's inbox. What has no owner (a first packet, whose id its visitor made up)
//! is for whoever got it.
//!
//! An inbox is bounded and drops what is too much: to QUIC that is a lost packet.
//!
//! A process that takes another one's place reads the same sockets. From then on the older one reads none: what is its own
//! comes from the younger one, over a pair of Unix sockets, into the same inboxes. Several that drain form a chain.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

use super::id::{self, Key, Owner};

/// Packets that may wait in an inbox: as many as a socket's usual buffer holds.
const INBOX_PACKETS: usize = 256;

/// A packet on its way between workers.
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: SocketAddr,
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
}

/// What the workers that listen on one address know together.
pub(crate) struct Steering {
    key: Key,
    generation: u8,
    inboxes: Box<[Inbox]>,
    /// Whether packets are taken from the sockets.
    reads: AtomicBool,
    /// To the process whose place this one has taken.
    older: Option<OwnedFd>,
}

#[derive(Default)]
struct Inbox {
    is_filled: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<Packet>,
    waker: Option<Waker>,
}

impl Steering {
    /// - `older`: to the process whose place this one takes. With one, nothing is read before [`Steering::read`].
    pub(crate) fn new(
        secrets: &super::Secrets,
        generation: u8,
        older: Option<OwnedFd>,
        sockets: usize,
    ) -> Self {
        Steering {
            key: secrets.id,
            generation,
            inboxes: (0..sockets).map(|_| Inbox::default()).collect(),
            reads: AtomicBool::new(older.is_none()),
            older,
        }
    }

    /// Takes packets from the sockets from now on, or no longer.
    pub(crate) fn read(&self, reads: bool) {
        self.reads.store(reads, Ordering::Release);
        for inbox in &self.inboxes {
            if let Some(waker) = inbox.queue.lock().waker.take() {
                waker.wake();
            }
        }
    }

    /// Takes what the process that has taken this one's place gets for this one, until that has ended. Blocks.
    pub(crate) fn receive(&self, younger: &OwnedFd) {
        let mut bytes = vec![0; FOREIGN_BYTES_MAX];
        loop {
            match rustix::net::recv(younger, &mut bytes[..], rustix::net::RecvFlags::empty()) {
                Ok((0, _)) => return,
                Ok((count, _)) => {
                    if let Some((owner, packet)) = foreign::read(&bytes[..count]) {
                        self.hand_over(owner, packet);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    pub(crate) fn generation(&self) -> u8 {
        self.generation
    }

    /// Whose packet it is, by the connection id that it is sent to (RFC 9000 §17.2, §17.3; RFC 8999).
    fn owner(&self, packet: &[u8]) -> Option<Owner> {
        let id = match packet.first()? {
            0x80.. => {
                let length = usize::from(*packet.get(5)?);
                packet.get(6..6 + length)?
            }
            _ => packet.get(1..1 + id::LENGTH)?,
        };
        self.key.read(id)
    }

    /// Puts a packet into its owner's inbox.
    fn hand_over(&self, owner: Owner, packet: Packet) {
        if owner.generation != self.generation {
            if let Some(older) = &self.older {
                // A queue that is full loses packets, as the network does.
                let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
                let _ = rustix::net::send(older, &foreign::write(owner, &packet), flags);
            }
            return;
        }
        let Some(inbox) = self.inboxes.get(usize::from(owner.socket)) else { return };
        let mut queue = inbox.queue.lock();
        if queue.packets.len() < INBOX_PACKETS {
            queue.packets.push_back(packet);
            inbox.is_filled.store(true, Ordering::Release);
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

impl Inbox {
    /// Moves packets into `buffers`; how many. With none, `context` is woken when there are some.
    fn take(&self, context: &Context<'_>, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut queue = self.queue.lock();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some(packet) = queue.packets.pop_front() else { break };
            let len = packet.bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&packet.bytes[..len]);
            *meta = RecvMeta { addr: packet.from, len, stride: len, ecn: packet.ecn, dst_ip: packet.to };
            count += 1;
        }
        if queue.packets.is_empty() {
            self.is_filled.store(false, Ordering::Release);
            queue.waker = Some(context.waker().clone());
        }
        count
    }
}

/// One worker's socket, and its inbox.
pub(crate) struct Steered {
    socket: Arc<dyn AsyncUdpSocket>,
    steering: Arc<Steering>,
    number: u16,
    /// Whether the inbox knows whom to wake.
    is_known: AtomicBool,
}

impl Steered {
    pub(crate) fn new(socket: UdpSocket, steering: Arc<Steering>, number: u16) -> io::Result<Self> {
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Steered { socket, steering, number, is_known: AtomicBool::new(false) })
    }

    /// Takes what is another's out of what was received, and passes it on. Whether anything is left.
    fn sort(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> bool {
        let own = Owner { generation: self.steering.generation, socket: self.number };
        let mut is_left = false;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let (mut at, mut kept) = (0, 0);
            while at < meta.len {
                let end = (at + meta.stride.max(1)).min(meta.len);
                let owner = self.steering.owner(&buffer[at..end]).filter(|owner| *owner != own);
                match owner {
                    Some(owner) => {
                        let bytes = buffer[at..end].to_vec();
                        let packet = Packet { bytes, from: meta.addr, to: meta.dst_ip, ecn: meta.ecn };
                        self.steering.hand_over(owner, packet);
                    }
                    None => {
                        if kept != at {
                            buffer.copy_within(at..end, kept);
                        }
                        kept += end - at;
                    }
                }
                at = end;
            }
            meta.len = kept;
            is_left |= kept > 0;
        }
        is_left
    }
}

impl fmt::Debug for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steered").field("number", &self.number).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Steered {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let inbox = self.steering.inboxes.get(usize::from(self.number));
        let reads = self.steering.reads.load(Ordering::Acquire);
        // One task reads this socket for as long as it lives, so that its waker need not be told each time.
        if let Some(inbox) = inbox
            && (inbox.is_filled.load(Ordering::Acquire)
                || !reads
                || !self.is_known.swap(true, Ordering::AcqRel))
        {
            let count = inbox.take(context, buffers, metas);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        if !reads && !self.steering.reads.load(Ordering::Acquire) {
            // Looked at again after the inbox has learnt whom to wake.
            return Poll::Pending;
        }
        loop {
            let count = ready!(self.socket.poll_recv(context, buffers, metas))?;
            if self.sort(buffers, &mut metas[..count]) {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// Bytes of a packet between processes: the largest that UDP carries, and what is told of it.
const FOREIGN_BYTES_MAX: usize = 64 * 1024 + 64;

/// Packets between processes: whose it is, where from and where to, and its bytes.
mod foreign {
    use std::net::{IpAddr, SocketAddr};

    use quinn::udp::EcnCodepoint;

    use super::{Owner, Packet};

    /// Generation, socket, ECN, port, the two addresses as IPv6, and which of them are IPv4 or missing.
    const HEAD_BYTES: usize = 1 + 2 + 1 + 2 + 16 + 16 + 1;

    const FROM_IS_V4: u8 = 1;
    const TO_IS_V4: u8 = 2;
    const HAS_TO: u8 = 4;

    pub(super) fn write(owner: Owner, packet: &Packet) -> Vec<u8> {
        let mapped = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let mut kinds = if packet.from.is_ipv4() { FROM_IS_V4 } else { 0 };
        if let Some(to) = packet.to {
            kinds |= HAS_TO | if to.is_ipv4() { TO_IS_V4 } else { 0 };
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES + packet.bytes.len());
        bytes.push(owner.generation);
        bytes.extend_from_slice(&owner.socket.to_be_bytes());
        bytes.push(packet.ecn.map_or(0, |ecn| ecn as u8));
        bytes.extend_from_slice(&packet.from.port().to_be_bytes());
        bytes.extend_from_slice(&mapped(packet.from.ip()));
        bytes.extend_from_slice(&packet.to.map_or([0; 16], mapped));
        bytes.push(kinds);
        bytes.extend_from_slice(&packet.bytes);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<(Owner, Packet)> {
        let (head, content) = bytes.split_at_checked(HEAD_BYTES)?;
        let kinds = head[HEAD_BYTES - 1];
        let address = |at: usize, is_v4: bool| {
            let octets: [u8; 16] = head[at..at + 16].try_into().ok()?;
            let address = std::net::Ipv6Addr::from(octets);
            match is_v4 {
                true => address.to_ipv4_mapped().map(IpAddr::V4),
                false => Some(IpAddr::V6(address)),
            }
        };
        let owner = Owner { generation: head[0], socket: u16::from_be_bytes([head[1], head[2]]) };
        let port = u16::from_be_bytes([head[4], head[5]]);
        let packet = Packet {
            bytes: content.to_vec(),
            from: SocketAddr::new(address(6, kinds & FROM_IS_V4 != 0)?, port),
            to: match kinds & HAS_TO {
                0 => None,
                _ => Some(address(22, kinds & TO_IS_V4 != 0)?),
            },
            ecn: EcnCodepoint::from_bits(head[3]),
        };
        Some((owner, packet))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_packet_arrives_in_the_other_process_as_it_left() {
            let check = |from: &str, to: Option<&str>, ecn| {
                let owner = Owner { generation: 7, socket: 513 };
                let packet = Packet {
                    bytes: b"bytes".to_vec(),
                    from: from.parse().unwrap(),
                    to: to.map(|to| to.parse().unwrap()),
                    ecn,
                };
                let written = write(owner, &packet);
                let (read_owner, read) = read(&written).unwrap();
                assert_eq!(read_owner, owner);
                assert_eq!(
                    (read.bytes, read.from, read.to, read.ecn),
                    (packet.bytes, packet.from, packet.to, ecn)
                );
                assert!(super::read(&written[..HEAD_BYTES - 1]).is_none());
            };
            check("192.0.2.1:4433", Some("192.0.2.2"), Some(EcnCodepoint::Ect0));
            check("[2001:db8::1]:65535", Some("2001:db8::2"), Some(EcnCodepoint::Ce));
            check("[2001:db8::1]:1", None, None);
        }
    }
}
