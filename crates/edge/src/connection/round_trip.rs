//! How long a packet and its answer take to a visitor, as the kernel has seen it.

#![expect(unsafe_code, reason = "the system call has no safe form in the crates at hand")]

use std::mem::{offset_of, size_of};
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

/// The least round trip of a connection so far, in µs; 0 when the kernel doesn't say.
pub(super) fn least_us(socket: &TcpStream) -> u32 {
    // SAFETY: all zeros are a value of this type, which has numbers alone.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let descriptor = socket.as_raw_fd();
    // SAFETY: the kernel writes `length` bytes at most, which `info` has, and the descriptor is open as long as `socket`.
    let result = unsafe {
        libc::getsockopt(
            descriptor,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    let known = offset_of!(libc::tcp_info, tcpi_min_rtt) + size_of::<u32>();
    match result == 0 && length as usize >= known && info.tcpi_min_rtt != u32::MAX {
        true => info.tcpi_min_rtt,
        false => 0,
    }
}
