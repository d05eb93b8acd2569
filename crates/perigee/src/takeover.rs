//! A start in another process's place: takes what that one passes on, gets ready, and says so. The other side is `upgrader`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use edge::Predecessor;
use edge::admin::{Upgrade, UpgradeState};
use edge::handover::{Channel, Inheritance, Message, PROTOCOL};
use edge::sockets::Bound;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::failure::Failure;
use crate::state::Lock;
use crate::upgrader::VARIABLE;

/// How long the other process may take to pass everything on.
const PATIENCE: Duration = Duration::from_secs(10);

/// The place of another process, to be taken.
pub(crate) struct Takeover {
    begin: Instant,
    channel: Channel,
    errors: OwnedFd,
    upgrade: String,
    from: (String, u32),
    draining: u32,
    process: Option<OwnedFd>,
}

impl Takeover {
    /// Takes what is passed on, if this process was started for that.
    pub(crate) fn receive() -> Result<Option<(Self, Vec<Bound>, Lock)>, Failure> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let begin = Instant::now();
        let received = channel_of_stdin().and_then(|channel| {
            channel.set_patience(Some(PATIENCE))?;
            let inheritance = Inheritance::receive(&channel)?;
            Ok((channel, inheritance))
        });
        let (channel, inheritance) = received.map_err(|error| {
            Failure::new(
                format!("{VARIABLE} is set, but nothing can be taken over: {error}"),
                "it is set by `perigee upgrade` alone; unset it to start an edge",
            )
        })?;
        let Inheritance { sockets, lock, errors, upgrade, version, pid, draining } = inheritance;
        // Without it, a process that doesn't confirm a purge cannot be ended.
        let process = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let from = (version, pid);
        let takeover = Takeover { begin, channel, errors, upgrade, from, draining, process };
        Ok(Some((takeover, sockets, Lock::passed_on(lock))))
    }

    /// What the admin API tells of it.
    pub(crate) fn upgrade(&self) -> Upgrade {
        Upgrade {
            id: self.upgrade.clone(),
            state: UpgradeState::Opening,
            from: self.from.clone(),
            to: Some((env!("CARGO_PKG_VERSION").into(), std::process::id())),
            took: self.begin.elapsed(),
            within: Duration::ZERO,
            error: None,
            said: Vec::new(),
        }
    }

    /// How many processes drain once this one serves, at most.
    pub(crate) fn draining(&self) -> u32 {
        self.draining
    }

    /// Says that everything is checked that can be, and waits until purge log and disks may be opened.
    pub(crate) fn prepared(&self) -> Result<(), Failure> {
        let prepared =
            Message::Prepared { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() };
        let answered = self.channel.send(&prepared, &[]).and_then(|()| {
            // The other process sets the limits: it ends this one.
            self.channel.set_patience(None)?;
            self.channel.receive()
        });
        match answered {
            Ok((Message::Released, _)) => Ok(()),
            Ok((other, _)) => Err(gone(&io::Error::other(format!("it said {other:?}")))),
            Err(error) => Err(gone(&error)),
        }
    }

    /// The process whose place is taken, as the edge wants to know it.
    pub(crate) fn predecessor(&mut self) -> Result<Predecessor, Failure> {
        let channel = self.channel.try_clone().map_err(|error| gone(&error))?;
        Ok(Predecessor { channel, process: self.process.take(), draining: self.draining })
    }

    /// Says that this process serves. Its standard error is its own from now on.
    pub(crate) fn serving(self) -> Result<(), Failure> {
        rustix::stdio::dup2_stderr(&self.errors).map_err(|error| gone(&error.into()))?;
        self.channel.send(&Message::Serving, &[]).map_err(|error| gone(&error))
    }
}

fn gone(error: &io::Error) -> Failure {
    Failure::new(format!("the process that was to be replaced is out of reach: {error}"), "")
}

/// The channel, which is this process's standard input; there is nothing to be read there afterwards.
fn channel_of_stdin() -> io::Result<Channel> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Channel::new(socket))
}
