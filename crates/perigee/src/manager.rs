//! The service manager, where there is one that speaks like systemd: it is told how the process fares (sd_notify(3)), and may
//! have opened the sockets (sd_listen_fds(3)). Elsewhere all of it does nothing.
//!
//! This file uses `unsafe` because file descriptors are passed by number.

#![expect(unsafe_code, reason = "file descriptors that are passed by number")]

use std::os::fd::{FromRawFd, OwnedFd};

use edge::sockets::{Bound, Kind};
use sd_notify::NotifyState;

use crate::failure::Failure;

/// The sockets that it has opened, by the names `http`, `https`, `quic` and `admin` (`FileDescriptorName=`). To be called
/// once, before this process opens anything.
pub(crate) fn take_sockets() -> Result<Vec<Bound>, Failure> {
    let passed = sd_notify::listen_fds_with_names().map_err(|error| {
        Failure::new(format!("LISTEN_FDS: the sockets cannot be taken: {error}"), "look at the socket unit")
    })?;
    let mut all: Vec<Bound> = Vec::new();
    for (number, name) in passed {
        // SAFETY: LISTEN_PID is this process, so that its parent has left it these numbers; nothing else here has taken
        // them, because they are taken once.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let kind = Kind::named(&name).ok_or_else(|| {
            Failure::new(
                format!("LISTEN_FDNAMES: a socket is named {name:?}; wanted http, https, quic or admin"),
                "write FileDescriptorName=http into its socket unit",
            )
        })?;
        all.push(Bound { kind, asked: None, sockets: vec![socket] });
    }
    Ok(all)
}

/// It serves, as this process.
pub(crate) fn ready() {
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

/// It reads its configuration again; to be followed by [`ready`].
pub(crate) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// It ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        eprintln!("perigee: NOTIFY_SOCKET: the service manager cannot be told: {error}");
    }
}
