//! How a worker reads disks without waiting for them: io_uring where the system allows it, else a pool of threads. Chosen
//! once at the start.
//!
//! A ring belongs to one worker: reads are submitted from the request that wants them and reaped by a task on the same
//! thread, so no other thread is woken. The pool does the same with one thread hop per read.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::buffers::{Buffer, Buffers};
use super::media::Media;
use super::ring::Ring;

/// Threads of the pool: as many reads as one fast disk works on at a time.
const POOL_THREADS: usize = 16;

/// Which way reads take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// io_uring, a ring for each worker.
    Ring,
    /// A pool of threads that call `pread`.
    Pool,
}

impl EngineKind {
    /// The best that this system allows.
    pub fn probe() -> Self {
        if Ring::is_allowed() { EngineKind::Ring } else { EngineKind::Pool }
    }

    /// What people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineKind::Ring => "io_uring",
            EngineKind::Pool => "a pool of threads",
        }
    }
}

/// One worker's way to the disks.
pub(crate) enum Engine {
    Ring(Rc<Ring>),
    Pool(Arc<Pool>),
    /// The calling thread reads, and waits for it.
    Now,
}

impl Engine {
    /// Reads `len` bytes from `offset` on, or what there is before the end of the file.
    pub(crate) async fn read(
        &self,
        buffers: &Buffers,
        media: &Arc<dyn Media>,
        offset: u64,
        len: usize,
    ) -> io::Result<Buffer> {
        match (self, media.file()) {
            (Engine::Ring(ring), Some(_)) => {
                let read = ring.read(media.clone(), || buffers.take(len), offset).await?;
                if read.len() == len {
                    return Ok(read);
                }
                // The kernel may stop short of the end of a file; the end is where it stops twice.
                ring.read(media.clone(), || buffers.take(len), offset).await
            }
            (Engine::Ring(_), None) | (Engine::Now, _) => read_now(&**media, buffers.take(len), offset),
            (Engine::Pool(pool), _) => pool.read(media.clone(), buffers.clone(), offset, len).await,
        }
    }
}

fn read_now(media: &dyn Media, mut buffer: Buffer, offset: u64) -> io::Result<Buffer> {
    let read = media.read_at(&mut buffer, offset)?;
    buffer.truncate(read);
    Ok(buffer)
}

// --- Pool ---

struct Job {
    media: Arc<dyn Media>,
    buffers: Buffers,
    offset: u64,
    len: usize,
    reply: oneshot::Sender<io::Result<Buffer>>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    stop: bool,
}

/// Threads that read.
pub(crate) struct Pool {
    jobs: Arc<(Mutex<Jobs>, Condvar)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    pub(crate) fn start() -> io::Result<Self> {
        let jobs = Arc::new((Mutex::new(Jobs::default()), Condvar::new()));
        let threads = (0..POOL_THREADS).map(|number| {
            let jobs = jobs.clone();
            std::thread::Builder::new().name(format!("disk-reader-{number}")).spawn(move || work(&jobs))
        });
        Ok(Pool { threads: Mutex::new(threads.collect::<io::Result<_>>()?), jobs })
    }

    async fn read(
        &self,
        media: Arc<dyn Media>,
        buffers: Buffers,
        offset: u64,
        len: usize,
    ) -> io::Result<Buffer> {
        let (reply, answer) = oneshot::channel();
        self.jobs.0.lock().waiting.push_back(Job { media, buffers, offset, len, reply });
        self.jobs.1.notify_one();
        answer.await.map_err(|_| io::Error::other("the disk readers have ended"))?
    }
}

fn work(jobs: &(Mutex<Jobs>, Condvar)) {
    loop {
        let mut waiting = jobs.0.lock();
        let job = loop {
            match waiting.waiting.pop_front() {
                Some(job) => break job,
                None if waiting.stop => return,
                None => jobs.1.wait(&mut waiting),
            }
        };
        drop(waiting);
        // Nobody may wait for it any more.
        if !job.reply.is_closed() {
            let buffer = job.buffers.take(job.len);
            let _ = job.reply.send(read_now(&*job.media, buffer, job.offset));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs.0.lock().stop = true;
        self.jobs.1.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }
}

/// Counts a read for as long as it lives.
pub(crate) struct Reading<'a>(&'a AtomicU64);

impl<'a> Reading<'a> {
    pub(crate) fn begin(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Reading(counter)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
