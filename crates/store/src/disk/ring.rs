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
use tokio::sync::Semaphore;

use super::buffers::Buffer;
use super::media::Media;

/// Reads that one worker has under way at most; more wait for their turn.
const READS_MAX: u32 = 128;

/// Reads under way and the ring that they are in.
pub(crate) struct Ring {
    state: RefCell<State>,
    /// As many permits as there are places. Fair, and a waiter who leaves passes his turn on.
    places: Rc<Semaphore>,
}

struct State {
    ring: IoUring,
    reads: Vec<Option<Read>>,
    free: Vec<usize>,
    places: Rc<Semaphore>,
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
        let places = Rc::new(Semaphore::new(READS_MAX as usize));
        let state = State {
            ring,
            reads: (0..READS_MAX).map(|_| None).collect(),
            free: (0..READS_MAX as usize).collect(),
            places: places.clone(),
        };
        let this = Rc::new(Ring { state: RefCell::new(state), places });
        tokio::task::spawn_local(reap(Rc::downgrade(&this), fd));
        Ok(this)
    }

    /// Reads into the buffer that `take` gives once there is a place, and which comes back as long as what was read: who waits for
    /// a disk that hangs holds none.
    pub(crate) async fn read(
        &self,
        media: Arc<dyn Media>,
        take: impl FnOnce() -> Buffer,
        offset: u64,
    ) -> io::Result<Buffer> {
        let Some(fd) = media.file().map(AsRawFd::as_raw_fd) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let permit = self.places.acquire().await.map_err(io::Error::other)?;
        let place = self.state.borrow_mut().submit(fd, media, take(), offset)?;
        // The place is the read's, which gives it back when it has completed, whatever becomes of this future: from here
        // on, dropping that leaves the read to the ring.
        permit.forget();
        let mut wanted = Wanted { ring: self, place, is_taken: false };
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.is_under_way(place) {
                // What the page cache or a fast disk had at once needs no round through the reactor.
                state.reap_all();
            }
            if state.is_under_way(place)
                && let Some(read) = &mut state.reads[place]
            {
                read.waker = Some(context.waker().clone());
                if !state.submit_all() {
                    // Nothing may be under way whose completion would give the next occasion.
                    context.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            wanted.is_taken = true;
            let Some((mut read, result)) = state.release(place) else {
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
        let mut state = self.ring.state.borrow_mut();
        match &mut state.reads[self.place] {
            Some(Read { done: None, is_wanted, .. }) => *is_wanted = false,
            _ => drop(state.release(self.place)),
        }
    }
}

impl State {
    /// Begins a read; whoever calls has a permit for its place, which is returned.
    fn submit(
        &mut self,
        fd: RawFd,
        media: Arc<dyn Media>,
        mut buffer: Buffer,
        offset: u64,
    ) -> io::Result<usize> {
        let length = u32::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let place = self.free.pop().ok_or_else(|| io::Error::other("no place for a read"))?;
        let entry = opcode::Read::new(types::Fd(fd), buffer.as_mut_ptr(), length)
            .offset(offset)
            .build()
            .user_data(place as u64);
        self.reads[place] = Some(Read { buffer, _media: media, done: None, is_wanted: true, waker: None });
        // SAFETY: the memory that the entry points to is the heap block of a `Buffer`, which does not move when the buffer
        // does, and which `self.reads` owns until `reap_all` has seen the completion; so does the open file behind `fd`.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if let Err(error) = pushed {
            // The kernel will never see it: there are no more places than the submission queue has, so this is a bug.
            self.reads[place] = None;
            self.free.push(place);
            return Err(io::Error::other(error));
        }
        // What is not taken now stays in the queue, its memory lent, and goes with a later submission.
        self.submit_all();
        Ok(place)
    }

    /// Hands what is in the submission queue to the kernel; whether it took all.
    fn submit_all(&mut self) -> bool {
        if self.ring.submission().is_empty() {
            return true;
        }
        let _busy_or_out_of_memory = self.ring.submit();
        self.ring.submission().is_empty()
    }

    fn is_under_way(&self, place: usize) -> bool {
        self.reads[place].as_ref().is_some_and(|read| read.done.is_none())
    }

    /// Takes a read that has completed out, with its result, and gives its place to the next.
    fn release(&mut self, place: usize) -> Option<(Read, i32)> {
        let read = self.reads[place].take_if(|read| read.done.is_some())?;
        self.free.push(place);
        self.places.add_permits(1);
        let result = read.done?;
        Some((read, result))
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
        let mut state = ring.state.borrow_mut();
        state.reap_all();
        state.submit_all();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::disk::buffers::Buffers;
    use crate::disk::{Directory, Shelf};

    const PAGES: u64 = 64;

    /// A file of pages that are full of their own number.
    fn numbered(name: &str) -> (std::path::PathBuf, Arc<dyn Media>) {
        let path = std::env::temp_dir().join(format!("perigee-ring-{name}-{}", std::process::id()));
        let media = Directory::create(&path).unwrap().open("pages", false).unwrap();
        let file = media.file().unwrap();
        (0..PAGES).for_each(|page| file.write_all_at(&[page as u8; 4096], page * 4096).unwrap());
        (path, media)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, future)
    }

    async fn read(ring: Rc<Ring>, buffers: Buffers, media: Arc<dyn Media>, page: u64) {
        let buffer = ring.read(media, || buffers.take(4096), page * 4096).await.unwrap();
        assert!(buffer.len() == 4096 && buffer.iter().all(|byte| *byte == page as u8));
    }

    #[test]
    fn reads_that_nobody_wants_any_more_take_nothing_from_the_others() {
        if !Ring::is_allowed() {
            eprintln!("io_uring is not allowed here, so this is not tested");
            return;
        }
        let (path, media) = numbered("dropped");
        let buffers = Buffers::default();
        run(async {
            let ring = Ring::start().unwrap();
            let ended = Rc::new(Cell::new(0));
            let mut chance = 1u64;
            for round in 0..40 {
                // More than there are places; every second is dropped sooner or later: before it has a place, while it is
                // read, or with its answer there.
                let tasks: Vec<_> = (0..400)
                    .map(|number| {
                        let read = read(ring.clone(), buffers.clone(), media.clone(), number % PAGES);
                        let ended = ended.clone();
                        tokio::task::spawn_local(async move {
                            read.await;
                            ended.set(ended.get() + 1);
                        })
                    })
                    .collect();
                for (number, task) in tasks.into_iter().enumerate() {
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
                    match (number % 2, chance >> 62) {
                        (0, _) => tokio::time::timeout(std::time::Duration::from_secs(20), task)
                            .await
                            .expect("a read hangs")
                            .unwrap(),
                        (_, 0) => tokio::task::yield_now().await,
                        _ => task.abort(),
                    }
                }
            }
            assert!(ended.get() >= 40 * 200);
            while ring.state.borrow().under_way() > 0 {
                tokio::task::yield_now().await;
                ring.state.borrow_mut().reap_all();
            }
            let state = ring.state.borrow();
            assert_eq!(state.free.len(), READS_MAX as usize);
            assert_eq!(state.places.available_permits(), READS_MAX as usize);
        });
        let _ = std::fs::remove_dir_all(path);
    }

    #[test]
    fn a_ring_that_is_dropped_waits_for_what_is_under_way() {
        if !Ring::is_allowed() {
            eprintln!("io_uring is not allowed here, so this is not tested");
            return;
        }
        let (path, media) = numbered("ended");
        let buffers = Buffers::default();
        for _ in 0..50 {
            run(async {
                let ring = Ring::start().unwrap();
                for page in 0..PAGES {
                    let mut reading = Box::pin(ring.read(media.clone(), || buffers.take(4096), page * 4096));
                    let mut context = std::task::Context::from_waker(Waker::noop());
                    let _ = reading.as_mut().poll(&mut context);
                }
            });
        }
        // Only what the ring has given back can be taken from here: whole, and alone.
        let taken: Vec<Buffer> = (0..PAGES * 2).map(|_| buffers.take(4096)).collect();
        assert!(taken.iter().all(|buffer| buffer.len() == 4096));
        let _ = std::fs::remove_dir_all(path);
    }
}
