//! The listening sockets of an edge: opened, or passed on by the process that served before or by a service manager; dealt
//! out to the workers; and passed on again.
//!
//! Each worker has a socket of its own on the same address (SO_REUSEPORT), with a queue of its own in the kernel. So every
//! socket that was passed on is accepted from, whatever the number of workers: where there are more sockets than workers,
//! a worker has several; where there are fewer, workers share one.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use socket2::{SockRef, Socket};

use crate::listen;

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HTTP over TCP.
    Http,
    /// HTTP over TLS over TCP.
    Https,
    /// HTTP over TLS over TCP, for other edges.
    Tier,
    /// HTTP/3 over UDP.
    Quic,
    /// The admin API.
    Admin,
    /// Packets of QUIC that the process which takes over sends back to the one before it; not listened on.
    Strays,
}

impl Kind {
    /// As a service manager names it: `http`, `https`, `tier`, `quic` or `admin`.
    pub fn named(name: &str) -> Option<Kind> {
        [
            ("http", Kind::Http),
            ("https", Kind::Https),
            ("tier", Kind::Tier),
            ("quic", Kind::Quic),
            ("admin", Kind::Admin),
        ]
        .into_iter()
        .find_map(|(known, kind)| (known == name).then_some(kind))
    }
}

/// Sockets of one kind on one address.
#[derive(Debug)]
pub struct Bound {
    /// What is spoken there.
    pub kind: Kind,
    /// The address that was asked for: its port may be 0. `None` from a service manager, whose configuration decides.
    pub asked: Option<SocketAddr>,
    /// The sockets; at least one.
    pub sockets: Vec<OwnedFd>,
}

impl Bound {
    /// Where they are.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let first = self.sockets.first().ok_or(io::ErrorKind::NotFound)?;
        let address = SockRef::from(first).local_addr()?;
        address.as_socket().ok_or_else(|| io::Error::other("not a socket of the internet"))
    }
}

/// All listening sockets of an edge.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Bound>);

impl Sockets {
    /// Takes sockets for these addresses: from `passed` where there are some, else opened, one for each worker, or one in all for
    /// the admin API. What is left
    /// in `passed` is closed. A service manager's sockets stand in for all addresses of their kind.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn open(
        wanted: &[(Kind, SocketAddr)],
        mut passed: Vec<Bound>,
        workers: usize,
    ) -> Result<Self, (Kind, SocketAddr, io::Error)> {
        let is_off = |kind| kind == Kind::Admin && !wanted.iter().any(|(wanted, _)| *wanted == kind);
        let mut all: Vec<Bound> =
            passed.extract_if(.., |bound| bound.asked.is_none() && !is_off(bound.kind)).collect();
        for &(kind, address) in wanted {
            if all.iter().any(|bound| bound.kind == kind && bound.asked.is_none()) {
                continue;
            }
            let is_it = |bound: &Bound| bound.kind == kind && bound.asked == Some(address);
            // The configuration may name now what the system had chosen before.
            let is_there = |bound: &Bound| bound.kind == kind && bound.address().ok() == Some(address);
            let at = passed.iter().position(is_it).or_else(|| passed.iter().position(is_there));
            let sockets = match at {
                Some(at) => passed.remove(at).sockets,
                None if kind == Kind::Quic => {
                    open_udp(&mut all, address, workers).map_err(|error| (kind, address, error))?
                }
                None => listen::bind(address, if kind == Kind::Admin { 1 } else { workers })
                    .map_err(|error| (kind, address, error))?
                    .into_iter()
                    .map(OwnedFd::from)
                    .collect(),
            };
            all.push(Bound { kind, asked: Some(address), sockets });
        }
        Ok(Sockets(all))
    }

    /// The sockets of QUIC as often as they are read, for each address: at least as often as there are workers.
    ///
    /// # Errors
    /// No room for another file descriptor.
    pub fn deal_udp(&self, workers: usize) -> io::Result<Vec<Vec<UdpSocket>>> {
        let by_address = self.0.iter().filter(|bound| bound.kind == Kind::Quic).map(|bound| {
            let numbers = 0..workers.max(bound.sockets.len());
            let dealt = numbers.map(|number| {
                let socket = Socket::from(bound.sockets[number % bound.sockets.len()].try_clone()?);
                socket.set_nonblocking(true)?;
                Ok(UdpSocket::from(socket))
            });
            let dealt: Vec<UdpSocket> = dealt.collect::<io::Result<_>>()?;
            listen::widen(bound.address()?, &dealt);
            Ok(dealt)
        });
        by_address.collect()
    }

    /// Takes out the socket over which strays go back.
    pub(crate) fn take_strays(&mut self) -> Option<OwnedFd> {
        let taken: Vec<Bound> = self.0.extract_if(.., |bound| bound.kind == Kind::Strays).collect();
        taken.into_iter().flat_map(|bound| bound.sockets).next()
    }

    /// Adds sockets that are to be passed on with the others.
    pub fn push(&mut self, bound: Bound) {
        self.0.push(bound);
    }

    /// The addresses of one kind, as they are.
    pub fn addresses(&self, kind: Kind) -> Vec<SocketAddr> {
        self.0.iter().filter(|bound| bound.kind == kind).filter_map(|bound| bound.address().ok()).collect()
    }

    /// Each socket as often as it is listened on: for each worker, those of one kind that are its own.
    ///
    /// # Errors
    /// No room for another file descriptor.
    pub fn deal(&self, kind: Kind, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
        let mut dealt: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for bound in self.0.iter().filter(|bound| bound.kind == kind) {
            for number in 0..workers.max(bound.sockets.len()) {
                let socket = Socket::from(bound.sockets[number % bound.sockets.len()].try_clone()?);
                socket.set_nonblocking(true)?;
                dealt[number % workers].push(TcpListener::from(socket));
            }
        }
        Ok(dealt)
    }

    /// What is to be passed on.
    pub fn passed(&self) -> impl Iterator<Item = (Kind, Option<SocketAddr>, Vec<BorrowedFd<'_>>)> {
        self.0
            .iter()
            .map(|bound| (bound.kind, bound.asked, bound.sockets.iter().map(OwnedFd::as_fd).collect()))
    }

    /// Closes them here. Where they were passed on, they are open there.
    pub fn close(&mut self) {
        self.0.clear();
    }
}

/// How many free ports of TCP are tried for UDP.
const FREE_PORT_ATTEMPTS: u32 = 16;

/// Opens the UDP ports that belong to an address of TLS. Where that may be at any port, it is moved to another one as long as
/// its number is not free for UDP.
fn open_udp(all: &mut [Bound], address: SocketAddr, workers: usize) -> io::Result<Vec<OwnedFd>> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let tls = all.iter_mut().find(|bound| bound.kind == Kind::Https && bound.asked == Some(address));
        let at = tls.as_ref().map_or(Ok(address), |bound| bound.address())?;
        match (listen::bind_udp(at, workers), tls) {
            (Ok(sockets), _) => return Ok(sockets.into_iter().map(OwnedFd::from).collect()),
            (Err(_), Some(tls)) if address.port() == 0 && attempts < FREE_PORT_ATTEMPTS => {
                tls.sockets = listen::bind(address, workers)?.into_iter().map(OwnedFd::from).collect();
            }
            (Err(error), _) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Sockets that were opened for some workers, passed on to others: whoever connects is accepted by one of them.
    fn check(before: usize, after: usize, by_worker: &[usize]) {
        let first = Sockets::open(&[(Kind::Http, any_port())], Vec::new(), before).unwrap();
        let address = first.addresses(Kind::Http)[0];
        let waiting: Vec<_> = (0..16).map(|_| TcpStream::connect(address).unwrap()).collect();
        let second = Sockets::open(&[(Kind::Http, any_port())], first.0, after).unwrap();
        assert_eq!(second.addresses(Kind::Http), [address], "the port that was free then, not another one");
        let dealt = second.deal(Kind::Http, after).unwrap();
        assert_eq!(dealt.iter().map(Vec::len).collect::<Vec<_>>(), by_worker, "{before} to {after}");
        let accepted: usize = dealt
            .iter()
            .flatten()
            .map(|listener| std::iter::from_fn(|| listener.accept().ok()).take(waiting.len()).count())
            .sum();
        assert_eq!(accepted, waiting.len(), "{before} to {after}");
    }

    #[test]
    fn every_socket_that_was_passed_on_is_accepted_from() {
        check(2, 2, &[1, 1]);
        check(5, 2, &[3, 2]);
        check(1, 3, &[1, 1, 1]);
        check(2, 3, &[1, 1, 1]);
    }

    #[test]
    fn an_address_that_is_new_is_opened_and_one_that_is_gone_is_closed() {
        let first = Sockets::open(&[(Kind::Http, any_port())], Vec::new(), 1).unwrap();
        let gone = first.addresses(Kind::Http)[0];
        let other = SocketAddr::from(([127, 0, 0, 1], 0));
        let second = Sockets::open(&[(Kind::Https, other)], first.0, 1).unwrap();
        assert!(second.addresses(Kind::Http).is_empty());
        assert_ne!(second.addresses(Kind::Https), [gone]);
        assert!(TcpStream::connect(gone).is_err(), "nobody is left who would accept there");
    }

    #[test]
    fn a_service_managers_sockets_stand_for_all_addresses_of_their_kind() {
        let managed = TcpListener::bind(any_port()).unwrap();
        let address = managed.local_addr().unwrap();
        let passed = vec![Bound { kind: Kind::Http, asked: None, sockets: vec![managed.into()] }];
        let wanted = [(Kind::Http, any_port()), (Kind::Http, SocketAddr::from(([127, 0, 0, 1], 1)))];
        let sockets = Sockets::open(&wanted, passed, 2).unwrap();
        assert_eq!(sockets.addresses(Kind::Http), [address]);
        assert_eq!(sockets.deal(Kind::Http, 2).unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    }
}
