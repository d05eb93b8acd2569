//! Starts the program anew in this process's place, by signal or by the admin API, and comes back when that fails. The other
//! side is `takeover`; what both say to each other is drawn in `edge::handover`.
//!
//! The new process is a child with the arguments of this one. Its standard input is the channel, by which it is given the
//! sockets; its standard error is read here until it serves, so that whoever asked is told why it did not.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use edge::Handle;
use edge::admin::{Admin, Upgrade, UpgradeState, Upgrades};
use edge::handover::{Channel, Message, PROTOCOL};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::state::Lock;

/// Tells a process that it was started to take another one's place.
pub(crate) const VARIABLE: &str = "PERIGEE_UPGRADE";

/// Variables by which a service manager speaks to one process: the new one is spoken to in another way, or asks by itself.
const NOT_INHERITED: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// Processes that may drain at once, each with its cache in memory.
const DRAINING_MAX: u32 = 8;

/// Invalidations that a new process may tell of before it says that it serves.
const HEARD_MAX: usize = 10_000;

/// Lines of the new process's standard error that are told to whoever asked.
const LINES_TOLD: usize = 20;

/// Bytes of such a line.
const LINE_BYTES: usize = 1000;

/// How long a process that has said that it ends may take to do so.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// How long the sockets may take to be passed on.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

/// Replaces this process by another.
pub(crate) struct Upgrader {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Processes that drain already.
    draining: u32,
    running: OnceLock<Running>,
    last: Mutex<Option<Upgrade>>,
    count: Mutex<u32>,
    handed_over: Notify,
}

/// What runs, and is given away.
struct Running {
    handle: Arc<Handle>,
    admin: Mutex<Option<Admin>>,
    lock: Mutex<Option<Lock>>,
}

impl Upgrader {
    /// - `draining`: how many processes drain already, this one's predecessor among them.
    /// - `last`: the upgrade that this process owes its place to.
    pub(crate) fn new(draining: u32, last: Option<Upgrade>) -> io::Result<Arc<Self>> {
        let mut arguments = std::env::args_os();
        // As it was called, so that a link that points elsewhere by now is followed. Looked up now: once it is replaced, the
        // system calls the file that this process was started from deleted.
        let called = arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let program = match called {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(Arc::new(Upgrader {
            program,
            arguments: arguments.collect(),
            draining,
            running: OnceLock::new(),
            last: Mutex::new(last),
            count: Mutex::new(0),
            handed_over: Notify::new(),
        }))
    }

    /// Says what runs, once it does. `admin` can be had back by [`Upgrader::take_admin`].
    pub(crate) fn attach(&self, handle: Arc<Handle>, admin: Option<Admin>, lock: Lock) {
        let running = Running { handle, admin: Mutex::new(admin), lock: Mutex::new(Some(lock)) };
        // It is attached once, when it has started.
        let _ = self.running.set(running);
    }

    /// Ends the admin API.
    pub(crate) fn end_admin(&self) {
        if let Some(running) = self.running.get() {
            drop(running.admin.lock().take());
        }
    }

    /// Returns when another process has taken this one's place.
    pub(crate) async fn handed_over(&self) {
        self.handed_over.notified().await;
    }

    fn try_begin(&self) -> Result<(String, &Running), String> {
        let Some(running) = self.running.get() else { return Err("the edge has not started yet".into()) };
        if std::process::id() == 1 {
            return Err(
                "this process is number 1 of its container, which ends with it; replace the container".into(),
            );
        }
        let draining = if running.handle.has_predecessor() { self.draining } else { 0 };
        if draining >= DRAINING_MAX {
            return Err(format!(
                "{draining} processes before this one still end their connections; wanted less than {DRAINING_MAX}: \
                 wait, or end the oldest"
            ));
        }
        let mut last = self.last.lock();
        let own = last.as_ref().filter(|last| last.from.1 == std::process::id());
        match own.map(|own| own.state) {
            Some(UpgradeState::Starting | UpgradeState::Opening) => {
                return Err("an upgrade is under way already".into());
            }
            Some(UpgradeState::Done) => {
                return Err("another process has taken this one's place already".into());
            }
            Some(UpgradeState::Failed) | None => {}
        }
        let id = {
            let mut count = self.count.lock();
            *count += 1;
            format!("{}-{count}", std::process::id())
        };
        *last = Some(Upgrade {
            id: id.clone(),
            state: UpgradeState::Starting,
            from: (env!("CARGO_PKG_VERSION").into(), std::process::id()),
            to: None,
            took: Duration::ZERO,
            within: running.handle.with_snapshot(|snapshot| snapshot.edge.limits.upgrade_timeout) * 2,
            error: None,
            said: Vec::new(),
        });
        Ok((id, running))
    }

    fn note(&self, note: impl FnOnce(&mut Upgrade)) {
        if let Some(last) = self.last.lock().as_mut() {
            note(last);
        }
    }

    fn run(&self, id: &str, running: &Running) {
        let begin = Instant::now();
        eprintln!("perigee: upgrade {id}: starting {}", self.program.display());
        match self.attempt(id, running, begin) {
            Ok(pid) => {
                let took = begin.elapsed();
                self.note(|last| (last.state, last.took) = (UpgradeState::Done, took));
                eprintln!("perigee: upgrade {id}: process {pid} serves, after {} ms", took.as_millis());
                self.handed_over.notify_one();
            }
            Err(Failed { why, said }) => {
                eprintln!("perigee: upgrade {id} failed: {why}; this process serves on");
                self.note(|last| {
                    (last.state, last.took) = (UpgradeState::Failed, begin.elapsed());
                    (last.error, last.said) = (Some(why), said);
                });
            }
        }
    }

    fn attempt(&self, id: &str, running: &Running, begin: Instant) -> Result<u32, Failed> {
        let within = running.handle.with_snapshot(|snapshot| snapshot.edge.limits.upgrade_timeout);
        let (channel, other) = Channel::pair().map_err(Failed::system)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env(VARIABLE, id).stdin(other.into_fd()).stderr(Stdio::piped());
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        let spawned = command.spawn();
        // Its end of the channel lives in it alone, so that this end reads when it has gone.
        drop(command);
        let mut child = spawned
            .map_err(|error| Failed::of(format!("{} cannot be started: {error}", self.program.display())))?;
        let said = Said::of(child.stderr.take());
        let pid = child.id();
        let fail = |child: &mut Child, error: &io::Error| said.failure(child, error, within);
        let prepared = self.pass_on(&channel, id, running).and_then(|()| {
            channel.set_patience(Some(within.saturating_sub(begin.elapsed())))?;
            channel.receive()
        });
        let version = match prepared {
            Ok((Message::Prepared { protocol: PROTOCOL, version }, _)) => version,
            Ok((other, _)) => return Err(fail(&mut child, &not_understood(&other))),
            Err(error) => return Err(fail(&mut child, &error)),
        };
        self.note(|last| {
            (last.state, last.to, last.took) = (UpgradeState::Opening, Some((version, pid)), begin.elapsed());
        });
        let pause = |is_paused| {
            if let Some(admin) = running.admin.lock().as_ref() {
                admin.pause(is_paused);
            }
        };
        pause(true);
        running.handle.release();
        let serving = wait_until_serving(&channel, within);
        let (heard, failed) = match serving {
            Ok(heard) => (heard, None),
            Err(error) => (Vec::new(), Some(fail(&mut child, &error))),
        };
        if let Some(mut failed) = failed {
            // It has ended by now, so that nobody else writes what is opened here.
            if let Err(error) = running.handle.resume() {
                failed.why.push_str(&format!(
                    "; what was closed for it cannot be opened again ({error}), so this process serves from memory"
                ));
            }
            pause(false);
            return Err(failed);
        }
        let drain = running.handle.with_snapshot(|snapshot| snapshot.edge.limits.drain_timeout);
        if let Err(error) = running.handle.hand_over(channel, heard, drain) {
            // Then this process ends as if the other one had gone: it uses nothing that is stored.
            eprintln!("perigee: no thread to hear of purges: {error}");
        }
        drop(running.admin.lock().take());
        // Held by the new process alone from now on, so that a third can start should that one crash.
        drop(running.lock.lock().take());
        Ok(pid)
    }

    fn pass_on(&self, channel: &Channel, id: &str, running: &Running) -> io::Result<()> {
        channel.set_send_patience(SEND_PATIENCE)?;
        running.handle.pass_sockets(channel)?;
        if let Some(lock) = running.lock.lock().as_ref() {
            channel.send(&Message::Lock, &[lock.as_fd()])?;
        }
        channel.send(&Message::Errors, &[io::stderr().as_fd()])?;
        let draining = if running.handle.has_predecessor() { self.draining } else { 0 };
        let begin = Message::Begin {
            protocol: PROTOCOL,
            upgrade: id.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            draining: draining + 1,
        };
        channel.send(&begin, &[])
    }
}

/// Waits until the new process serves; what it has said of purges and invalidations until then.
fn wait_until_serving(channel: &Channel, within: Duration) -> io::Result<Vec<Message>> {
    channel.send(&Message::Released, &[])?;
    let begin = Instant::now();
    let mut heard = Vec::new();
    while heard.len() < HEARD_MAX {
        channel.set_patience(Some(within.saturating_sub(begin.elapsed())))?;
        match channel.receive()?.0 {
            Message::Serving => return Ok(heard),
            // It takes connections a moment before it says so.
            message @ (Message::Purge(_) | Message::Forget { .. }) => heard.push(message),
            other => return Err(not_understood(&other)),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it said too much before it served"))
}

fn not_understood(message: &Message) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it said {message:?}"))
}

/// What begins upgrades for the admin API.
pub(crate) struct Begins(pub(crate) Arc<Upgrader>);

impl Upgrades for Begins {
    fn begin(&self) -> Result<Upgrade, String> {
        let (id, _) = self.0.try_begin()?;
        let upgrader = Arc::clone(&self.0);
        let begun = self.last();
        let work = move || {
            if let Some(running) = upgrader.running.get() {
                upgrader.run(&id, running);
            }
        };
        if let Err(error) = thread::Builder::new().name("upgrade".into()).spawn(work) {
            let why = format!("no thread can be started: {error}");
            self.0.note(|last| (last.state, last.error) = (UpgradeState::Failed, Some(why.clone())));
            return Err(why);
        }
        begun.ok_or_else(|| "it has not begun".into())
    }

    fn last(&self) -> Option<Upgrade> {
        let mut last = self.0.last.lock().clone()?;
        // Of the process before this one: it is done when that one has said so.
        let is_settled = || self.0.running.get().is_some_and(|running| running.handle.is_settled());
        if last.from.1 != std::process::id() && is_settled() {
            last.state = UpgradeState::Done;
        }
        Some(last)
    }
}

/// Why it came to nothing.
struct Failed {
    why: String,
    said: Vec<String>,
}

impl Failed {
    fn of(why: String) -> Self {
        Failed { why, said: Vec::new() }
    }

    fn system(error: io::Error) -> Self {
        Failed::of(format!("the system refuses: {error}"))
    }
}

// --- What the new process says ---

/// Reads a new process's standard error: each line goes to this process's own, and the last ones are kept.
struct Said {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: Receiver<()>,
}

impl Said {
    fn of(errors: Option<ChildStderr>) -> Self {
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        let (ends, ended) = sync_channel(1);
        let kept = lines.clone();
        let read = move || {
            let mut errors = BufReader::new(errors.into_iter().next().ok_or(io::ErrorKind::NotFound)?);
            let mut line = Vec::new();
            while errors.read_until(b'\n', &mut line)? > 0 {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end();
                eprintln!("{text}");
                let mut kept = kept.lock();
                if kept.len() == LINES_TOLD {
                    kept.pop_front();
                }
                kept.push_back(text.chars().take(LINE_BYTES).collect());
                line.clear();
            }
            drop(ends);
            Ok::<_, io::Error>(())
        };
        // Without a thread nothing is known of what it says; the pipe is closed then.
        let _ = thread::Builder::new().name("upgrade-errors".into()).spawn(read);
        Said { lines, ended }
    }

    /// Makes sure that the process has ended, and says why it came to nothing.
    fn failure(&self, child: &mut Child, error: &io::Error, within: Duration) -> Failed {
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let status = if is_late { None } else { end_of(child) };
        if status.is_none() {
            // An error means that it has ended.
            let _ = child.kill().and_then(|()| child.wait());
        }
        let why = match (is_late, status) {
            (true, _) => format!("the new process was not ready within {} s and was ended", within.as_secs()),
            (false, Some(status)) => format!("the new process ended before it was ready ({status})"),
            (false, None) => format!("the new process cannot be understood and was ended: {error}"),
        };
        // What it wrote last may still be on its way; a process that it has started may hold the other end for long.
        let _ = self.ended.recv_timeout(END_PATIENCE);
        Failed { why, said: self.lines.lock().iter().cloned().collect() }
    }
}

fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if begin.elapsed() < END_PATIENCE => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => return None,
        }
    }
}
