//! One thread's loop over one UDP socket: up to 64 queries by one system call, their answers by another.
//!
//! Each worker has a socket of its own on the same address (`SO_REUSEPORT`), so that nothing is shared between them but the counters;
//! the kernel deals packets out by their sender. Answers leave from the address that was asked, as the sockets are bound
//! to one address each.
//!
//! What it doesn't do: it decides nothing about answers.

#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg, which no safe wrapper at hand offers with buffers that are kept"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// Packets per system call. More adds latency under load and saves little.
const BATCH: usize = 64;
/// Longest query that is read: a question and its options have a few hundred bytes.
const QUERY_BYTES_MAX: usize = 1_500;

/// Buffers that packets come into and answers leave from.
pub(crate) struct Batch {
    queries: Vec<[u8; QUERY_BYTES_MAX]>,
    answers: Vec<Vec<u8>>,
    senders: Vec<libc::sockaddr_storage>,
    reading: Vec<libc::iovec>,
    incoming: Vec<libc::mmsghdr>,
    writing: Vec<libc::iovec>,
    outgoing: Vec<libc::mmsghdr>,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        // SAFETY: all of these are plain C structures, for which zeros are a value: no address, no buffer.
        let (sender, iovec, message) =
            unsafe { std::mem::zeroed::<(libc::sockaddr_storage, libc::iovec, libc::mmsghdr)>() };
        Batch {
            queries: vec![[0; QUERY_BYTES_MAX]; BATCH],
            answers: (0..BATCH).map(|_| Vec::with_capacity(QUERY_BYTES_MAX)).collect(),
            senders: vec![sender; BATCH],
            reading: vec![iovec; BATCH],
            incoming: vec![message; BATCH],
            writing: vec![iovec; BATCH],
            outgoing: vec![message; BATCH],
        }
    }

    /// Waits for queries, for as long as the socket's time-out says, and sends what `answer` makes of each: it gets the query, its
    /// sender and an empty buffer, and says whether there is an answer. Returns how many queries there were.
    pub(crate) fn turn(
        &mut self,
        socket: &UdpSocket,
        mut answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> bool,
    ) -> std::io::Result<usize> {
        for index in 0..BATCH {
            self.reading[index] =
                libc::iovec { iov_base: self.queries[index].as_mut_ptr().cast(), iov_len: QUERY_BYTES_MAX };
            let header = &mut self.incoming[index].msg_hdr;
            header.msg_name = (&raw mut self.senders[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.reading[index];
            header.msg_iovlen = 1;
        }
        // SAFETY: each of the BATCH headers points to a sender and a buffer in vectors of `self`, none of which is moved or
        // resized before the call returns; lengths are those of what they point to.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.incoming.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else { return Err(std::io::Error::last_os_error()) };
        let mut ready = 0;
        for index in 0..count {
            let message = &self.incoming[index];
            let length = (message.msg_len as usize).min(QUERY_BYTES_MAX);
            // A cut query would be read as another one.
            let whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let sender = sender(&self.senders[index]).filter(|(_, port)| *port != 0 && whole);
            let Some((address, _)) = sender else { continue };
            if !answer(&self.queries[index][..length], address, &mut self.answers[index]) {
                continue;
            }
            let bytes = &mut self.answers[index];
            self.writing[ready] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let header = &mut self.outgoing[ready].msg_hdr;
            header.msg_name = (&raw mut self.senders[index]).cast();
            header.msg_namelen = self.incoming[index].msg_hdr.msg_namelen;
            header.msg_iov = &raw mut self.writing[ready];
            header.msg_iovlen = 1;
            ready += 1;
        }
        let mut sent = 0;
        while sent < ready {
            // SAFETY: as above; the headers from `sent` to `ready` were set in this call, and what they point to lives in `self`.
            let done = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.outgoing[sent..].as_mut_ptr(),
                    (ready - sent) as u32,
                    0,
                )
            };
            // What can't be sent to one (its network is unreachable) must not keep the others waiting.
            sent += usize::try_from(done).unwrap_or(0).max(1);
        }
        Ok(count)
    }
}

/// The address and port in what the kernel has written.
fn sender(storage: &libc::sockaddr_storage) -> Option<(IpAddr, u16)> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is what was written, and a sockaddr_storage is large and aligned enough for it.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            Some((Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            Some((Ipv6Addr::from(v6.sin6_addr.s6_addr).into(), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}
