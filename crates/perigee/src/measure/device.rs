//! What emulation at packet level asks of the kernel: a network namespace whose only device, besides loopback, is a TUN device that
//! this process holds the other end of. Needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN) and `/dev/net/tun`; nothing of it is seen outside.
//!
//! This file uses `unsafe` because device requests (netdevice(7)) are structures that are passed by address.

#![expect(unsafe_code, reason = "device requests have no safe form in the crates at hand")]

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Not `tun…`: Chromium takes who has but tunnels for offline.
const NAME: &str = "eth0";

const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFADDR: Opcode = 0x8916;
const SIOCSIFNETMASK: Opcode = 0x891c;

const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// `IFF_TUN | IFF_NO_PI`: packets of IP, and nothing before them.
const IFF_TUN_NO_PI: u16 = 0x0001 | 0x1000;
/// `IFF_UP | IFF_RUNNING`.
const IFF_UP_RUNNING: u16 = 0x1 | 0x40;

/// `struct ifreq`: a name, and a union of 24 bytes where pointers have eight, which is as large as any.
#[repr(C, align(8))]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

impl Request {
    fn new(name: &str, value: &[u8]) -> Request {
        let mut request = Request { name: [0; 16], value: [0; 24] };
        // One byte stays zero: names end with it.
        request.name.iter_mut().take(15).zip(name.bytes()).for_each(|(to, from)| *to = from);
        request.value.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
        request
    }

    fn send<const CODE: Opcode>(mut self, to: impl AsFd) -> io::Result<()> {
        // SAFETY: each of the codes reads and writes one `struct ifreq`, and `self` is as large and aligned as that.
        Ok(unsafe { ioctl(to, Updater::<CODE, Request>::new(&mut self)) }?)
    }
}

/// A new namespace, and the packets of its device, which has these addresses in one network of 24 bits. Lives as long as one of both.
pub(super) fn namespace(addresses: &[Ipv4Addr]) -> io::Result<(OwnedFd, File)> {
    apart(|| {
        // SAFETY: of what a thread shares, this changes its network namespace alone; no memory and no descriptor.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        // A new visitor's system remembers nothing of earlier connections. Where /proc is read-only it may.
        let _ = std::fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1");
        let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        Request::new(NAME, &IFF_TUN_NO_PI.to_ne_bytes()).send::<TUNSETIFF>(&device)?;
        let asked = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        for (number, address) in addresses.iter().enumerate() {
            let name = if number == 0 { NAME.to_owned() } else { format!("{NAME}:{number}") };
            Request::new(&name, &socket_address(*address)).send::<SIOCSIFADDR>(&asked)?;
            // Devices of this kind have none but the other end within reach otherwise.
            Request::new(&name, &socket_address(MASK)).send::<SIOCSIFNETMASK>(&asked)?;
        }
        for name in ["lo", NAME] {
            Request::new(name, &IFF_UP_RUNNING.to_ne_bytes()).send::<SIOCSIFFLAGS>(&asked)?;
        }
        Ok((File::open("/proc/thread-self/ns/net")?.into(), device))
    })
}

/// `struct sockaddr_in`: family, port, address.
fn socket_address(address: Ipv4Addr) -> Vec<u8> {
    [&AddressFamily::INET.as_raw().to_ne_bytes()[..], &[0, 0], &address.octets()].concat()
}

/// Does something within a namespace: what it opens belongs to that.
pub(super) fn within<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    apart(|| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })
}

/// On a thread of its own, which is all that a namespace is entered by.
fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("its thread has panicked")))
    })
}
