//! What the kernel knows of a TCP socket.

#![expect(unsafe_code, reason = "the system call has no safe form in the crates at hand")]

use std::mem::{offset_of, size_of};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The least round trip of a connection so far, in µs; 0 when the kernel doesn't say.
pub(crate) fn least_round_trip_us(connection: &impl AsRawFd) -> u32 {
    let known = offset_of!(libc::tcp_info, tcpi_min_rtt) + size_of::<u32>();
    // Before the first one it says the largest number.
    read(connection, known).map(|info| info.tcpi_min_rtt).filter(|&us| us != u32::MAX).unwrap_or(0)
}

/// The connections of a listening socket that wait to be taken; 0 when the kernel doesn't say.
pub(crate) fn waiting(listener: &impl AsRawFd) -> u32 {
    // Where it counts packets of a connection it counts connections of a listening socket (tcp_get_info of Linux).
    let known = offset_of!(libc::tcp_info, tcpi_unacked) + size_of::<u32>();
    read(listener, known).map_or(0, |info| info.tcpi_unacked)
}

/// How long a connection that was just taken has waited for that, since it was there; 0 when the kernel doesn't say.
pub(crate) fn waited(connection: &impl AsRawFd) -> Duration {
    // Nothing was sent on it yet: the kernel counts from when it was made (tcp_create_openreq_child of Linux).
    let known = offset_of!(libc::tcp_info, tcpi_last_data_sent) + size_of::<u32>();
    let waited_ms = read(connection, known).map_or(0, |info| info.tcpi_last_data_sent);
    Duration::from_millis(waited_ms.into())
}

/// Whether the kernel has bytes of a connection that are not sent yet, as the other side takes no more, or that it has sent again without an
/// acknowledgement (RFC 6298).
pub(crate) fn is_stuck(connection: &impl AsRawFd) -> bool {
    let known = offset_of!(libc::tcp_info, tcpi_notsent_bytes) + size_of::<u32>();
    read(connection, known).is_some_and(|info| info.tcpi_retransmits > 0 || info.tcpi_notsent_bytes > 0)
}

/// Whether the kernel has sent bytes of a connection again and again, and the other side's has not acknowledged anything for so long: its
/// machine is gone, or the way there. Who merely takes nothing acknowledges all the same.
pub(crate) fn is_unheard(connection: &impl AsRawFd, within: Duration) -> bool {
    let known = offset_of!(libc::tcp_info, tcpi_last_ack_recv) + size_of::<u32>();
    read(connection, known).is_some_and(|info| {
        // One packet may be lost anywhere, and the connection have been idle before.
        info.tcpi_retransmits > 1 && u128::from(info.tcpi_last_ack_recv) >= within.as_millis()
    })
}

/// What the kernel tells, if that is its first `known` bytes at least.
fn read(socket: &impl AsRawFd, known: usize) -> Option<libc::tcp_info> {
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
    (result == 0 && length as usize >= known).then_some(info)
}
