//! The access log: one thread that takes full buffers from a bounded queue and writes them to a file or to stdout. No
//! worker ever waits for it; what does not fit into the queue is dropped and counted.
//!
//! Buffers hold whole lines, so lines of different workers never mix. Lines of one worker stay in order; between
//! workers they are in order to about a second.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::line::foreign::CLOUDFRONT_HEAD;
use crate::registry::Registry;
use crate::syslog::{Syslog, SyslogTo};

/// Bytes after which a worker hands its buffer over.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that may wait for the log thread: 4 MiB of lines, about a second of 30,000 requests per second.
const QUEUE_BUFFERS_MAX: usize = 64;
/// Emptied buffers kept for reuse.
const SPARE_BUFFERS_MAX: usize = 16;
/// How long a worker that shuts down waits for room in the queue.
const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(2);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Appended to this file; created with mode 0640 when missing.
    File(PathBuf),
    /// The process's standard output.
    Stdout,
    /// Messages of syslog, from a machine of this name.
    Syslog(SyslogTo, String),
}

/// How a request becomes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line, with all that the event holds.
    Json,
    /// The combined format that web server log tools read.
    Combined,
    /// The fields of CloudFront's standard log, separated by tabs; a new file begins with their names.
    Cloudfront,
    /// One JSON object per line, with the names of Cloudflare's Logpush.
    Logpush,
}

/// What [`AccessLog::start`] needs to know.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Where lines go.
    pub sink: Sink,
    /// How they look.
    pub format: Format,
}

/// The running log thread. Give it to each [`crate::Observer`]; call [`AccessLog::stop`] after all observers are gone.
#[derive(Debug)]
pub struct AccessLog {
    link: LogLink,
    path: Option<PathBuf>,
    reopened: Arc<Mutex<Option<File>>>,
    finished: Mutex<Receiver<()>>,
}

/// A worker's end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct LogLink {
    pub(crate) format: Format,
    queue: SyncSender<Message>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    /// Look at the reopened file; carries nothing, since a message may find the queue full.
    Wake,
    Stop,
}

impl AccessLog {
    /// Opens the sink and starts the log thread.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or no thread can be started.
    pub fn start(options: LogOptions, registry: &Arc<Registry>) -> io::Result<Self> {
        match options.sink {
            Sink::Stdout => Self::start_to(Box::new(io::stdout()), options.format, registry),
            Sink::File(path) => {
                let file = open(&path, options.format)?;
                Self::start_on(Box::new(file), Some(path), options.format, registry)
            }
            Sink::Syslog(to, host) => {
                Self::start_to(Box::new(Syslog::new(to, &host)), options.format, registry)
            }
        }
    }

    /// Starts the log thread on a writer, which is given whole lines and may wait: then lines wait in the queue, and are dropped and
    /// counted when that is full.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start_to(
        writer: Box<dyn Write + Send>,
        format: Format,
        registry: &Arc<Registry>,
    ) -> io::Result<Self> {
        Self::start_on(writer, None, format, registry)
    }

    fn start_on(
        writer: Box<dyn Write + Send>,
        path: Option<PathBuf>,
        format: Format,
        registry: &Arc<Registry>,
    ) -> io::Result<Self> {
        let (queue, messages) = mpsc::sync_channel(QUEUE_BUFFERS_MAX);
        let (done, finished) = mpsc::sync_channel(1);
        let spare = Arc::new(Mutex::new(Vec::new()));
        let reopened = Arc::new(Mutex::new(None));
        let mut drain = Drain {
            writer,
            torn: false,
            registry: Arc::clone(registry),
            reopened: Arc::clone(&reopened),
            spare: Arc::clone(&spare),
        };
        thread::Builder::new().name("access-log".into()).spawn(move || {
            drain.run(&messages);
            // Nobody may be waiting; that is fine.
            let _ = done.send(());
        })?;
        let link = LogLink { format, queue, spare };
        Ok(AccessLog { link, path, reopened, finished: Mutex::new(finished) })
    }

    /// Opens the log file anew, after rotation moved the old one away. Lines that are already queued go to the new file.
    /// Nothing to do for stdout.
    ///
    /// # Errors
    /// When the file cannot be opened: logging goes on to the old one.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        *self.reopened.lock() = Some(open(path, self.link.format)?);
        // A full queue wakes the thread as well.
        let _ = self.link.queue.try_send(Message::Wake);
        Ok(())
    }

    /// Writes what is queued and ends the log thread. Lines that observers still hold are not in the queue: drop the
    /// observers first. Waits for at most `within`; says whether everything was written in time.
    pub fn stop(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        // A thread that ended already takes no message, but may have left its word.
        self.link.send_until(Message::Stop, deadline);
        let left = deadline.saturating_duration_since(Instant::now());
        // An error is the time that ran out, or a thread that panicked: lines may be lost.
        self.finished.lock().recv_timeout(left).is_ok()
    }

    pub(crate) fn link(&self) -> LogLink {
        self.link.clone()
    }
}

fn open(path: &Path, format: Format) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    let mut file = options.open(path)?;
    if format == Format::Cloudfront && file.metadata()?.len() == 0 {
        file.write_all(CLOUDFRONT_HEAD.as_bytes())?;
    }
    Ok(file)
}

impl LogLink {
    /// An empty buffer, with room for [`BUFFER_BYTES`] and one line more.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.spare.lock().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES + 4096))
    }

    /// Hands lines over without waiting. `Err` gives the buffer back: the queue is full or the thread is gone.
    pub(crate) fn try_send(&self, lines: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.queue.try_send(Message::Lines(lines)) {
            Err(
                TrySendError::Full(Message::Lines(lines)) | TrySendError::Disconnected(Message::Lines(lines)),
            ) => Err(lines),
            _ => Ok(()),
        }
    }

    /// Hands lines over, waiting for room for a bounded time: only when a worker ends.
    pub(crate) fn send_at_last(&self, lines: Vec<u8>) -> bool {
        self.send_until(Message::Lines(lines), Instant::now() + HAND_OVER_TIME_MAX)
    }

    fn send_until(&self, mut message: Message, deadline: Instant) -> bool {
        loop {
            match self.queue.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => {
                    message = back;
                    thread::sleep(Duration::from_millis(2));
                }
                Err(_) => return false,
            }
        }
    }
}

// --- The log thread ---

struct Drain {
    writer: Box<dyn Write + Send>,
    /// The last write ended inside a line; the next one starts a new line first.
    torn: bool,
    registry: Arc<Registry>,
    reopened: Arc<Mutex<Option<File>>>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Drain {
    fn run(&mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            if let Some(file) = self.reopened.lock().take() {
                self.writer = Box::new(file);
                self.torn = false;
                self.registry.shared.log_reopens.fetch_add(1, Ordering::Relaxed);
            }
            match message {
                Message::Lines(lines) => self.write(lines),
                Message::Wake => {}
                Message::Stop => break,
            }
        }
        if self.writer.flush().is_err() {
            self.registry.shared.log_write_errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&mut self, mut lines: Vec<u8>) {
        if self.torn && write_counting(&mut self.writer, b"\n").is_ok() {
            self.torn = false;
        }
        if let Err(written) = write_counting(&mut self.writer, &lines).and_then(|()| self.flush()) {
            let shared = &self.registry.shared;
            let lost = lines[written..].iter().filter(|&&byte| byte == b'\n').count() as u64;
            shared.log_lines_lost.fetch_add(lost, Ordering::Relaxed);
            shared.log_write_errors.fetch_add(1, Ordering::Relaxed);
            self.torn |= written > 0 && lines[written - 1] != b'\n';
        }
        lines.clear();
        // A buffer that one odd line blew up is not worth keeping.
        if lines.capacity() <= 2 * BUFFER_BYTES {
            let mut spare = self.spare.lock();
            if spare.len() < SPARE_BUFFERS_MAX {
                spare.push(lines);
            }
        }
    }

    /// Stdout keeps a partial line back otherwise; a file has no buffer of its own.
    fn flush(&mut self) -> Result<(), usize> {
        self.writer.flush().map_err(|_| 0)
    }
}

/// Writes all of `bytes`, or says how many were written before it failed.
fn write_counting(writer: &mut dyn Write, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
