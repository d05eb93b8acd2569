//! Large bodies in pages that the kernel can send without copying them.
//!
//! One anonymous file in memory (`memfd_create`) holds them all, each from a page boundary on. A socket is given
//! references to its pages (`sendfile`) instead of a copy of their bytes, which is most of the cost of a large hit.
//!
//! ```text
//! file   ├ run 0 ┤ hole ├──── run 2 ────┤├ run 3 ┤ …  never written twice
//! ```
//!
//! Space in the file is given out once and never again: a run that is dropped becomes a hole, its memory goes back to
//! the system, and the file's 2^63 bytes last for centuries. So there is no allocator, nothing fragments, and pages
//! that a socket still holds when their run goes are never overwritten by another body.
//!
//! A run counts as in flight unless a tier keeps it, whose budget has it then: one that was evicted and is still being sent does.
//!
//! What it doesn't do: it bounds nothing and opens no file of the file system.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create, sendfile};
use rustix::io::{pread, pwrite};

use crate::InFlight;

/// Granularity of the file: what a run is rounded up to.
pub const PAGE_BYTES: u64 = 4096;

/// A file in memory that runs are put into. Cheap to clone; all clones are the same file.
#[derive(Clone, Debug)]
pub struct Pages {
    file: Arc<File>,
}

#[derive(Debug)]
struct File {
    fd: OwnedFd,
    next: AtomicU64,
    in_flight: InFlight,
}

/// Consecutive bytes in the file; given back when dropped.
#[derive(Debug)]
pub struct Run {
    file: Arc<File>,
    offset: u64,
    len: u64,
    /// How many entries of a tier hold it.
    kept: AtomicU32,
}

impl Pages {
    /// An empty file, whose runs count in `in_flight`. Costs one descriptor.
    ///
    /// # Errors
    /// A kernel without `memfd_create`, or no free descriptor.
    pub fn new(in_flight: InFlight) -> io::Result<Self> {
        let fd = memfd_create("bodies", MemfdFlags::CLOEXEC)?;
        Ok(Pages { file: Arc::new(File { fd, next: AtomicU64::new(0), in_flight }) })
    }

    /// Copies `pieces` into a new run.
    ///
    /// # Errors
    /// When the system has no memory left for it; nothing is kept then.
    pub fn store(&self, pieces: &[impl AsRef<[u8]>]) -> io::Result<Run> {
        let len = pieces.iter().map(|piece| piece.as_ref().len() as u64).sum::<u64>();
        let rounded = len.next_multiple_of(PAGE_BYTES);
        let offset = self.file.next.fetch_add(rounded, Ordering::Relaxed);
        // Made first, so that an error below gives back what has been written.
        let run = Run { file: self.file.clone(), offset, len, kept: AtomicU32::new(0) };
        self.file.in_flight.add(run.memory_bytes() as i64);
        let mut at = offset;
        for piece in pieces {
            let mut rest = piece.as_ref();
            while !rest.is_empty() {
                let written = pwrite(&self.file.fd, rest, at)?;
                at += written as u64;
                rest = &rest[written..];
            }
        }
        Ok(run)
    }
}

impl Run {
    /// Bytes in the run.
    #[expect(clippy::len_without_is_empty, reason = "nobody stores an empty run")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> u64 {
        self.len.next_multiple_of(PAGE_BYTES)
    }

    /// Notes that an entry of a tier has it from now on, or no longer: see [`crate::Weigh::note_kept`].
    pub fn note_kept(&self, is_kept: bool) {
        let bytes = self.memory_bytes() as i64;
        if is_kept && self.kept.fetch_add(1, Ordering::Relaxed) == 0 {
            self.file.in_flight.add(-bytes);
        }
        if !is_kept && self.kept.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.file.in_flight.add(bytes);
        }
    }

    /// Gives the pages of bytes `start..end` to a socket, as many as it takes: at least one byte, or an error
    /// (`WouldBlock` when it takes none now). `end` is at most [`Run::len`].
    ///
    /// # Errors
    /// Those of `sendfile(2)`; a range outside of the run.
    pub fn send(&self, socket: impl AsFd, start: u64, end: u64) -> io::Result<usize> {
        if start >= end || end > self.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut offset = self.offset + start;
        match sendfile(socket, &self.file.fd, Some(&mut offset), (end - start) as usize)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => Ok(sent),
        }
    }

    /// Copies bytes from `start` on into `buffer`, as many as there are.
    ///
    /// # Errors
    /// Those of `pread(2)`.
    pub fn read(&self, start: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.len.saturating_sub(start).min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < wanted {
            match pread(&self.file.fd, &mut buffer[done..wanted], self.offset + start + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(done)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Cannot fail for a range inside of a file in memory; if it did, the memory would be lost and nothing else.
        let _ = fallocate(&self.file.fd, flags, self.offset, self.memory_bytes().max(1));
        if *self.kept.get_mut() == 0 {
            self.file.in_flight.add(-(self.memory_bytes() as i64));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{Insertion, Tier, TierConfig, Weigh};

    fn content(len: usize, seed: u8) -> Vec<u8> {
        (0..len).map(|index| (index % 251) as u8 ^ seed).collect()
    }

    /// Blocks of 512 bytes that the file takes.
    fn memory(pages: &Pages) -> u64 {
        rustix::fs::fstat(&pages.file.fd).unwrap().st_blocks as u64 * 512
    }

    #[test]
    fn what_was_stored_is_read_and_sent_byte_for_byte() {
        let pages = Pages::new(InFlight::default()).unwrap();
        let bodies: Vec<_> = [1, 4096, 100_000, 300_001].map(|len| content(len, len as u8)).into();
        let runs: Vec<_> =
            bodies.iter().map(|body| pages.store(&[&body[..1], &body[1..]]).unwrap()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for (body, run) in bodies.iter().zip(&runs) {
            let mut read = vec![0; body.len() + 10];
            assert_eq!(run.read(0, &mut read).unwrap(), body.len());
            assert_eq!(&read[..body.len()], body);
            let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut receiver, _) = listener.accept().unwrap();
            let (start, end) = (body.len() as u64 / 3, body.len() as u64);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let mut at = start;
                    while at < end {
                        at += run.send(&sender, at, end).unwrap() as u64;
                    }
                });
                let mut received = Vec::new();
                receiver.read_to_end(&mut received).unwrap();
                assert_eq!(received, &body[start as usize..]);
            });
        }
    }

    #[test]
    fn a_dropped_run_gives_its_memory_back() {
        let pages = Pages::new(InFlight::default()).unwrap();
        let kept = pages.store(&[content(10_000, 1)]).unwrap();
        let before = memory(&pages);
        let dropped: Vec<_> = (0..100).map(|seed| pages.store(&[content(100_000, seed)]).unwrap()).collect();
        assert!(memory(&pages) >= before + 100 * 100_000);
        drop(dropped);
        assert_eq!(memory(&pages), before);
        assert_eq!(kept.memory_bytes(), 12_288);
    }

    #[test]
    fn a_run_is_in_flight_unless_a_tier_keeps_it() {
        #[derive(Clone)]
        struct Body(Arc<Run>);
        impl Weigh for Body {
            fn bytes(&self) -> usize {
                self.0.memory_bytes() as usize
            }

            fn note_kept(&self, is_kept: bool) {
                self.0.note_kept(is_kept);
            }
        }
        let in_flight = InFlight::default();
        let pages = Pages::new(in_flight.clone()).unwrap();
        let body = || Body(Arc::new(pages.store(&[content(300_000, 1)]).unwrap()));
        let tier =
            Tier::new(TierConfig { bytes_max: 1 << 20, object_max_fraction: 0.5, ..TierConfig::default() });
        let (first, bytes) = (body(), 303_104);
        assert_eq!(in_flight.bytes().0, bytes);
        assert_eq!(tier.insert(1 << 64, first.clone()), Insertion::Inserted);
        assert_eq!(in_flight.bytes().0, 0);
        // Under a second key, in place of itself, and replaced: it is kept until none has it.
        assert_eq!(tier.insert(2 << 64, first.clone()), Insertion::Inserted);
        assert_eq!(tier.insert(2 << 64, first.clone()), Insertion::Replaced);
        assert_eq!(tier.insert(1 << 64, body()), Insertion::Replaced);
        assert_eq!(in_flight.bytes().0, 0);
        drop(tier.remove(2 << 64));
        assert_eq!(in_flight.bytes().0, bytes);
        drop(first);
        assert_eq!(in_flight.bytes().0, 0);
        // Evicted while it is being sent.
        let sent = tier.lookup(1 << 64).unwrap();
        tier.resize(1 << 10);
        assert_eq!(in_flight.bytes().0, bytes);
        drop(sent);
        assert_eq!(in_flight.bytes().0, 0);
        // What the tier refuses is in flight for as long as somebody has it; what is cleared is not.
        let refused = body();
        assert!(matches!(tier.insert(3 << 64, refused.clone()), Insertion::Refused(_)));
        assert_eq!(in_flight.bytes().0, bytes);
        tier.resize(1 << 20);
        assert_eq!(tier.insert(3 << 64, refused), Insertion::Inserted);
        tier.clear();
        assert_eq!((tier.stats().entries, in_flight.bytes().0), (0, 0));
    }

    #[test]
    fn a_range_outside_of_the_run_is_refused() {
        let pages = Pages::new(InFlight::default()).unwrap();
        let run = pages.store(&[b"abc"]).unwrap();
        for (start, end) in [(0, 4), (3, 3), (2, 1)] {
            let error = run.send(io::stdout(), start, end).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(run.read(5, &mut [0; 4]).unwrap(), 0);
    }
}
