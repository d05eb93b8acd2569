//! Packets to those whose connections they belong to. A worker looks at the destination of each packet that its socket
//! gives it; what is another's goes into that one's inbox. What has no owner (a first packet, whose id its visitor made up)
//! is for whoever got it.
//!
//! An inbox is bounded and drops what is too much: to QUIC that is a lost packet.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

use super::Quic;
use super::id::{self, Owner};

/// Packets that may wait in an inbox, 1.2 KiB each: of a busy worker's, some 100 ms, for which another may keep it from its core.
const INBOX_PACKETS: usize = 1024;

/// A packet on its way between workers.
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: SocketAddr,
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
}

/// What the workers that listen on one address know together.
pub(crate) struct Steering {
    quic: Arc<Quic>,
    address: SocketAddr,
    inboxes: Box<[Inbox]>,
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
    pub(crate) fn new(quic: Arc<Quic>, address: SocketAddr, endpoints: usize) -> Self {
        Steering { quic, address, inboxes: (0..endpoints).map(|_| Inbox::default()).collect() }
    }

    pub(super) fn quic(&self) -> &Quic {
        &self.quic
    }

    pub(super) fn listens_on(&self, address: SocketAddr) -> bool {
        self.address == address
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
        self.quic.secrets.id.read(id)
    }

    /// Takes a packet that another process sends back.
    pub(super) fn deliver(&self, packet: Packet) {
        match self.owner(&packet.bytes) {
            Some(owner) if owner.start == self.quic.start => self.hand_over(owner, packet),
            _ => drop(self.quic.before.send(self.address, &packet)),
        }
    }

    /// Passes on what is not `own`'s; whether it is taken.
    fn pass_on(&self, own: Owner, meta: &RecvMeta, bytes: &[u8]) -> bool {
        let Some(owner) = self.owner(bytes).filter(|owner| *owner != own) else { return false };
        let packet = Packet { bytes: bytes.to_vec(), from: meta.addr, to: meta.dst_ip, ecn: meta.ecn };
        if owner.start != own.start {
            // Nobody's is ours: the endpoint tells the visitor that the connection is no more. But what is read at the moment at
            // which another process begins to may be that one's.
            return self.quic.before.send(self.address, &packet) || !self.quic.is_reading();
        }
        self.hand_over(owner, packet);
        true
    }

    /// Puts a packet into its owner's inbox.
    fn hand_over(&self, owner: Owner, packet: Packet) {
        let Some(inbox) = self.inboxes.get(usize::from(owner.endpoint)) else { return };
        let mut queue = inbox.queue.lock();
        if queue.packets.len() < INBOX_PACKETS {
            queue.packets.push_back(packet);
            inbox.is_filled.store(true, Ordering::Release);
        } else {
            self.quic.dropped.fetch_add(1, Ordering::Relaxed);
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
        let own = Owner { start: self.steering.quic.start, endpoint: self.number };
        let mut is_left = false;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let (mut at, mut kept) = (0, 0);
            while at < meta.len {
                let end = (at + meta.stride.max(1)).min(meta.len);
                if !self.steering.pass_on(own, meta, &buffer[at..end]) {
                    if kept != at {
                        buffer.copy_within(at..end, kept);
                    }
                    kept += end - at;
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
        // One task reads this socket for as long as it lives, so that its waker need not be told each time.
        if let Some(inbox) = inbox
            && (inbox.is_filled.load(Ordering::Acquire) || !self.is_known.swap(true, Ordering::AcqRel))
        {
            let count = inbox.take(context, buffers, metas);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        if !self.steering.quic.poll_reading(context) {
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
