//! What a process and the one that takes its place say to each other: over a pair of Unix sockets (SOCK_SEQPACKET), one JSON
//! object for each packet, file descriptors beside it.
//!
//! ```text
//! old ─► new   sockets, lock, errors      listening sockets, by kind and address; what else is passed on
//!              begin                      that was all; the protocol, and who passes it on
//! new ─► old   prepared                   everything is checked that can be without the disks
//! old ─► new   released                   purges wait; disks and purge log are closed
//! new ─► old   serving                    they are open here, and connections are taken
//! old ─► new   quic_left                  it reads the sockets of HTTP/3 no more
//! old ─► new   draining                   it takes no more connections, and hears of purges
//!    both      turns                      of origins' budgets: see `origin::turns`
//!    both      purge, done, forget, reopen, stop   until the old one has ended: see `succession`
//! ```
//!
//! It stays readable for later versions: fields are added, never changed; a process that speaks another [`PROTOCOL`] says so
//! and nothing happens. Only processes of one user that one has started speak it, so a packet that makes no sense is a bug, and
//! ends the channel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::purge_log::{Logged, LoggedKind};
use crate::sockets::{Bound, Kind, Sockets};

/// What the two speak. Another number means that they cannot.
pub const PROTOCOL: u32 = 3;

/// File descriptors beside one packet; the kernel allows 253.
const DESCRIPTORS_MAX: usize = 128;

/// Bytes of one packet: what always fits into a socket's buffer.
pub(crate) const PACKET_BYTES_MAX: usize = 64 * 1024;

/// One packet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Listening sockets, beside it. Several for the same address belong together.
    Sockets {
        /// What is spoken there.
        kind: Kind,
        /// The address that was asked for.
        asked: Option<SocketAddr>,
    },
    /// The lock of the state directory, beside it.
    Lock,
    /// Where messages to the operator go in the end, beside it; until then the old process reads them.
    Errors,
    /// All has been passed on.
    Begin {
        /// [`PROTOCOL`] of the old process.
        protocol: u32,
        /// Names this upgrade.
        upgrade: String,
        /// Version of the old process.
        version: String,
        /// Its process id.
        pid: u32,
        /// How many processes drain already, as far as is known.
        draining: u32,
    },
    /// Everything is checked that can be without the disks.
    Prepared {
        /// [`PROTOCOL`] of the new process.
        protocol: u32,
        /// Version of the new process.
        version: String,
    },
    /// Disks and purge log are closed.
    Released,
    /// Connections are taken.
    Serving,
    /// The sockets of QUIC are not read any more, but by the other side.
    QuicLeft,
    /// No connection is taken any more, but by the other side.
    Draining,
    /// A purge or an invalidation that is in force where it comes from.
    #[doc(hidden)]
    Purge(Purge),
    /// What `Purge` with this ticket asked for is in force.
    Done {
        /// Of the purge.
        ticket: u64,
    },
    /// What is stored under a key is no more.
    Forget {
        /// In hex.
        key: String,
    },
    /// What counts against origins' budgets.
    #[doc(hidden)]
    Turns(Word),
    /// The access log was moved away: open it anew.
    Reopen,
    /// The node stops: end within the ordinary drain time.
    Stop,
}

/// [`Message::Turns`]: see `origin::turns`. Budgets by their ids, turns by their numbers in the process that drains.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[doc(hidden)]
pub enum Word {
    Taken { budget: String, numbers: Vec<u64> },
    Told,
    Ask { budget: String, number: u64, rank: u8, count: u32 },
    Turn { budget: String, number: u64, is_granted: bool },
    GiveUp { budget: String, number: u64 },
    Over { budget: String, number: u64 },
}

/// [`Message::Purge`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Purge {
    /// To be answered by `Done`; 0 for one that nobody waits for.
    pub(crate) ticket: u64,
    pub(crate) kind: LoggedKind,
    pub(crate) targets: Vec<Logged>,
}

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// No room for file descriptors.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(one), Channel(other)))
    }

    /// An end that was inherited.
    pub fn new(socket: OwnedFd) -> Self {
        Channel(socket)
    }

    /// To be inherited.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// The same end again.
    ///
    /// # Errors
    /// No room for a file descriptor.
    pub fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel(self.0.try_clone()?))
    }

    /// For how long [`Channel::receive`] waits; `None` for as long as it takes.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        // Zero would mean for ever.
        let patience = patience.map(|patience| patience.max(Duration::from_millis(1)));
        Ok(set_socket_timeout(&self.0, Timeout::Recv, patience)?)
    }

    /// For how long [`Channel::send`] waits for room.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_send_patience(&self, patience: Duration) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Send, Some(patience))?)
    }

    /// Sends one packet, with at most 128 file descriptors beside it.
    ///
    /// # Errors
    /// The other side has gone, or reads nothing.
    pub fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a packet of {} bytes; wanted at most {PACKET_BYTES_MAX}", bytes.len()),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many file descriptors"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next packet, and what came beside it. Those descriptors are closed on exec.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other side has gone; `WouldBlock` when nothing came in time; `InvalidData`.
    pub fn receive(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received?,
            }
        };
        let mut descriptors = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = serde_json::from_slice(&bytes[..received.bytes])?;
        Ok((message, descriptors))
    }

    /// Passes listening sockets on.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_sockets(&self, sockets: &Sockets) -> io::Result<()> {
        for (kind, asked, descriptors) in sockets.passed() {
            for some in descriptors.chunks(DESCRIPTORS_MAX) {
                self.send(&Message::Sockets { kind, asked }, some)?;
            }
        }
        Ok(())
    }

    /// Ends it: both sides read its end.
    pub(crate) fn shut(&self) {
        // An error means that it has ended.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What was passed on.
#[derive(Debug)]
pub struct Inheritance {
    /// Listening sockets.
    pub sockets: Vec<Bound>,
    /// The lock of the state directory.
    pub lock: OwnedFd,
    /// Where messages go once this process serves.
    pub errors: OwnedFd,
    /// [`Message::Begin`].
    pub upgrade: String,
    /// Version of the process that passes it on.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// How many processes will drain.
    pub draining: u32,
}

impl Inheritance {
    /// Reads all that the old process passes on.
    ///
    /// # Errors
    /// It has gone, or speaks otherwise.
    pub fn receive(channel: &Channel) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let (mut sockets, mut lock, mut errors): (Vec<Bound>, _, _) = (Vec::new(), None, None);
        loop {
            let (message, mut descriptors) = channel.receive()?;
            match message {
                Message::Sockets { kind, asked } => {
                    let last = sockets.last_mut().filter(|last| {
                        // A chunk of those before. Two of the same that stand side by side are told apart by nothing.
                        (last.kind, last.asked) == (kind, asked)
                            && last.sockets.len().is_multiple_of(DESCRIPTORS_MAX)
                    });
                    match last {
                        Some(last) => last.sockets.append(&mut descriptors),
                        None => sockets.push(Bound { kind, asked, sockets: descriptors }),
                    }
                }
                Message::Lock => lock = descriptors.pop(),
                Message::Errors => errors = descriptors.pop(),
                Message::Begin { protocol, .. } if protocol != PROTOCOL => {
                    return Err(invalid(&format!("it speaks protocol {protocol}, this version {PROTOCOL}")));
                }
                Message::Begin { upgrade, version, pid, draining, .. } => {
                    let lock = lock.ok_or_else(|| invalid("no lock was passed on"))?;
                    let errors = errors.ok_or_else(|| invalid("no standard error was passed on"))?;
                    return Ok(Inheritance { sockets, lock, errors, upgrade, version, pid, draining });
                }
                _ => return Err(invalid("it said something that does not come first")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn more_sockets_than_fit_beside_one_packet_arrive_in_order_and_listen() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let wanted = [(Kind::Http, address), (Kind::Https, address)];
        let sockets = Sockets::open(&wanted, Vec::new(), DESCRIPTORS_MAX + 2).unwrap();
        let (old, new) = Channel::pair().unwrap();
        old.send_sockets(&sockets).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        old.send(&Message::Lock, &[file.as_fd()]).unwrap();
        old.send(&Message::Errors, &[file.as_fd()]).unwrap();
        let begin = Message::Begin {
            protocol: PROTOCOL,
            upgrade: "1".into(),
            version: "0".into(),
            pid: 1,
            draining: 0,
        };
        old.send(&begin, &[]).unwrap();
        let addresses = [sockets.addresses(Kind::Http)[0], sockets.addresses(Kind::Https)[0]];
        drop((sockets, file));
        let inherited = Inheritance::receive(&new).unwrap();
        assert_eq!(inherited.sockets.len(), 2);
        for (bound, address) in inherited.sockets.iter().zip(addresses) {
            assert_eq!((bound.address().unwrap(), bound.sockets.len()), (address, DESCRIPTORS_MAX + 2));
            assert!(TcpStream::connect(address).is_ok());
        }
    }

    #[test]
    fn another_protocol_and_an_early_end_are_refused() {
        let (old, new) = Channel::pair().unwrap();
        let begin = Message::Begin {
            protocol: PROTOCOL + 1,
            upgrade: "1".into(),
            version: "9".into(),
            pid: 1,
            draining: 0,
        };
        old.send(&begin, &[]).unwrap();
        assert!(
            Inheritance::receive(&new)
                .unwrap_err()
                .to_string()
                .contains(&format!("it speaks protocol {}", PROTOCOL + 1))
        );
        old.send(&Message::Serving, &[]).unwrap();
        assert_eq!(Inheritance::receive(&new).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(old);
        assert_eq!(Inheritance::receive(&new).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
