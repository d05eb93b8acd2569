//! One worker's io_uring: reads that are under way, and the task that reaps them.
//!
//! This file uses `unsafe` because the kernel writes into memory that we lend it. What makes that sound: the buffer of
//! each read, and the file it reads from, are owned by the ring from its submission to its completion, whatever becomes of
//! whoever wanted it; and a ring that is dropped first waits for every read that is under way.

#![expect(unsafe_code, reason = "the kernel writes into lent buffers; see the module's text")]

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};

use io_uring::{IoUring, opcode, types};
use tokio::io::unix::AsyncFd;

use super::buffers::Buffer;
use super::media::Media;

/// Reads that one worker has under way at most; more wait for their turn.
const READS_MAX: u32 = 128;

/// Reads under way and the ring that they are in.
pub(crate) struct Ring(RefCell<State>);

struct State {
    ring: IoUring,
    reads: Vec<Option<Read>>,
    free: Vec<usize>,
    /// Who waits for a place.
    queue: Vec<Waker>,
}

struct Read {
    buffer: Buffer,
    /// Keeps the file open.
    _media: Arc<dyn Media>,
    done: Option<i32>,
    /// Whether anybody still wants it.
    is_wanted: bool,
    waker: Option<Waker>,
}

impl Ring {
    /// Whether this process may use io_uring: containers often forbid it.
    pub(crate) fn is_allowed() -> bool {
        let Ok(ring) = IoUring::new(2) else { return false };
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::Read::CODE)
    }

    /// A ring for this thread, whose reads are reaped by a task of the current [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// A system without io_uring, or one that is out of descriptors or lockable memory.
    pub(crate) fn start() -> io::Result<Rc<Self>> {
        let ring = IoUring::builder().setup_clamp().build(READS_MAX)?;
        // A descriptor of its own, so that the task may outlive the ring.
        // SAFETY: the ring's descriptor is open for as long as `ring` lives, which is beyond this statement.
        let fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }.try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is the only one to close its descriptor, and does so after `AsyncFd` has deregistered it.
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
        let state = State { ring, reads: Vec::new(), free: Vec::new(), queue: Vec::new() };
        let this = Rc::new(Ring(RefCell::new(state)));
        tokio::task::spawn_local(reap(Rc::downgrade(&this), fd));
        Ok(this)
    }

    /// Reads into `buffer`, which comes back as long as what was read.
    pub(crate) async fn read(
        &self,
        media: Arc<dyn Media>,
        buffer: Buffer,
        offset: u64,
    ) -> io::Result<Buffer> {
        let Some(fd) = media.file().map(AsRawFd::as_raw_fd) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let place = self.place().await;
        // From here on, dropping this future leaves the read to the ring.
        let mut wanted = Wanted { ring: self, place, is_taken: false };
        self.0.borrow_mut().submit(place, fd, media, buffer, offset)?;
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if state.reads[place].as_ref().is_some_and(|read| read.done.is_none()) {
                // What the page cache or a fast disk had at once needs no round through the reactor.
                state.reap_all();
            }
            let Some(read) = &mut state.reads[place] else {
                return Poll::Ready(Err(io::Error::other("a read was lost")));
            };
            let Some(result) = read.done else {
                read.waker = Some(context.waker().clone());
                return Poll::Pending;
            };
            wanted.is_taken = true;
            let Some(mut read) = state.release(place) else {
                return Poll::Ready(Err(io::Error::other("a read was lost")));
            };
            if result < 0 {
                return Poll::Ready(Err(io::Error::from_raw_os_error(-result)));
            }
            read.buffer.truncate(result as usize);
            Poll::Ready(Ok(read.buffer))
        })
        .await
    }

    /// Waits for a place among the reads under way.
    async fn place(&self) -> usize {
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if let Some(place) = state.free.pop() {
                return Poll::Ready(place);
            }
            if state.reads.len() < READS_MAX as usize {
                state.reads.push(None);
                return Poll::Ready(state.reads.len() - 1);
            }
            state.queue.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// A place that somebody waits for.
struct Wanted<'a> {
    ring: &'a Ring,
    place: usize,
    is_taken: bool,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        let mut state = self.ring.0.borrow_mut();
        match &mut state.reads[self.place] {
            Some(Read { done: None, is_wanted, .. }) => *is_wanted = false,
            _ => drop(state.release(self.place)),
        }
    }
}

impl State {
    fn submit(
        &mut self,
        place: usize,
        fd: RawFd,
        media: Arc<dyn Media>,
        mut buffer: Buffer,
        offset: u64,
    ) -> io::Result<()> {
        let length = u32::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let entry = opcode::Read::new(types::Fd(fd), buffer.as_mut_ptr(), length)
            .offset(offset)
            .build()
            .user_data(place as u64);
        self.reads[place] = Some(Read { buffer, _media: media, done: None, is_wanted: true, waker: None });
        // SAFETY: the memory that the entry points to is the heap block of a `Buffer`, which does not move when the buffer
        // does, and which `self.reads` owns until `reap_all` has seen the completion; so does the open file behind `fd`.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // There are no more reads than places in the submission queue, and each is submitted at once.
        let submitted = pushed.map_err(io::Error::other).and_then(|()| self.ring.submit());
        match submitted {
            Ok(_) => Ok(()),
            // Not taken now (EBUSY, EAGAIN, EINTR): the entry stays in the queue and goes with the next submission, which
            // `reap` makes.
            Err(error) if matches!(error.raw_os_error(), Some(4 | 11 | 16)) => Ok(()),
            // The entry may still be in the queue: its memory stays lent.
            Err(error) => Err(error),
        }
    }

    fn release(&mut self, place: usize) -> Option<Read> {
        let read = self.reads[place].take();
        self.free.push(place);
        // All of them: one who has left would keep the place from the others.
        self.queue.drain(..).for_each(Waker::wake);
        read
    }

    /// Notes what has completed and wakes who waits for it.
    fn reap_all(&mut self) {
        let completed: Vec<(u64, i32)> =
            self.ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        for (place, result) in completed {
            let place = place as usize;
            let Some(Some(read)) = self.reads.get_mut(place) else { continue };
            read.done = Some(result);
            if !read.is_wanted {
                drop(self.release(place));
            } else if let Some(waker) = read.waker.take() {
                waker.wake();
            }
        }
    }

    fn under_way(&self) -> usize {
        self.reads.iter().flatten().filter(|read| read.done.is_none()).count()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // The kernel may still write into what is lent to it.
        while self.under_way() > 0 {
            if let Err(error) = self.ring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // Nothing can be waited for: better to lose the memory than to have it written to.
                std::mem::take(&mut self.reads).into_iter().for_each(std::mem::forget);
                return;
            }
            self.reap_all();
        }
    }
}

/// Runs as long as the ring.
async fn reap(ring: Weak<Ring>, fd: AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = fd.readable().await else { return };
        let Some(ring) = ring.upgrade() else { return };
        // Cleared before the look: what completes meanwhile makes it ready again.
        ready.clear_ready();
        let mut state = ring.0.borrow_mut();
        state.reap_all();
        if !state.ring.submission().is_empty() {
            let _again_later = state.ring.submit();
            state.reap_all();
        }
    }
}
