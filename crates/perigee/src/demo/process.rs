//! The demo's children: each a process of this program with a group of its own, that says what it has to say into a file, and that ends
//! when the demo does, in whatever way that ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::failure::Failure;

/// Tells a child whose it is: the number of its parent.
const PARENT: &str = "PERIGEE_DEMO_PARENT";

/// Lines of a log that are shown when its process has ended.
const LOG_LINES: usize = 8;

/// Between two looks at processes that are to end.
const LOOK: Duration = Duration::from_millis(20);

/// A child, or what is left of it.
#[derive(Debug)]
pub(super) struct Process {
    /// For people.
    pub(super) name: String,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts this program with other arguments; what it says is kept in `directory`. Call it on the main thread: the child ends with the
    /// thread that has made it.
    pub(super) fn start(name: &str, arguments: Vec<OsString>, directory: &Path) -> Result<Self, Failure> {
        let log = directory.join(format!("{name}.log"));
        let mut process = Process { name: name.to_owned(), arguments, log, child: None };
        process.start_again()?;
        Ok(process)
    }

    /// The same once more, after it has ended.
    pub(super) fn start_again(&mut self) -> Result<(), Failure> {
        self.kill();
        let spawn = || -> io::Result<Child> {
            use std::os::unix::process::CommandExt;
            let log = File::options().create(true).append(true).open(&self.log)?;
            Command::new(std::env::current_exe()?)
                .args(&self.arguments)
                .env(PARENT, std::process::id().to_string())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                // Ctrl-C is for the demo, which then ends its children in order.
                .process_group(0)
                .spawn()
        };
        let child = spawn().map_err(|error| {
            Failure::new(
                format!("{} cannot be started: {error}", self.name),
                "look at the limits of this user",
            )
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// How it has ended, once, if it has and nobody here did it.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// Whether it runs.
    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its number, for people who want to kill it themselves.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// As a loss of power would.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        // The whole group: an edge may have been replaced by another process.
        if let Some(group) = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32)) {
            let _gone = rustix::process::kill_process_group(group, signal);
        }
    }

    /// The end of what it has said.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
        lines.into_iter().rev().map(|line| format!("    {}\n", crate::visible(line))).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends processes: asks them first, and after `patience` no longer asks.
pub(super) fn stop_all<'a>(processes: impl Iterator<Item = &'a mut Process>, patience: Duration) {
    let mut processes: Vec<&mut Process> = processes.collect();
    for process in &processes {
        process.signal(Signal::TERM);
    }
    let until = Instant::now() + patience;
    while Instant::now() < until
        && processes.iter_mut().any(|process| process.has_ended().is_none() && process.runs())
    {
        std::thread::sleep(LOOK);
    }
    processes.iter_mut().for_each(|process| process.kill());
}

/// Of a process that was started by a demo: makes it end when that does, also when that is killed. Anybody else's is left alone.
pub(crate) fn tie_to_demo() {
    let Some(parent) =
        std::env::var(PARENT).ok().and_then(|parent| parent.parse().ok()).and_then(Pid::from_raw)
    else {
        return;
    };
    if rustix::process::getppid() == Some(parent) {
        let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        if let Err(error) = tied {
            eprintln!("perigee: this process will not end by itself when the demo is killed: {error}");
        }
    }
    // It may have ended before that; then nobody will tell.
    if rustix::process::test_kill_process(parent).is_err() {
        std::process::exit(1);
    }
}
