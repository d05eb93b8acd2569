//! Another process in the place of this one: sockets are passed on, purge log and disks let go of, and what is new is left to it.
//!
//! What it says in between is `succession`'s. Called by whoever upgrades an edge.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use observe::AccessLog;

use super::{Handle, StartError, hurry, write_missed};
use crate::handover::{Channel, Message};
use crate::purging;
use crate::quic::strays;
use crate::sockets::{Bound, Kind, Sockets};
use crate::succession::{self, Ask, Invalidation};

/// How long workers may take to notice that another process takes the connections.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);

impl Handle {
    /// Passes the listening sockets on; they stay open here.
    ///
    /// # Errors
    /// The other process has gone.
    pub fn pass_sockets(&self, channel: &Channel) -> io::Result<()> {
        channel.send_sockets(&self.sockets.lock())?;
        if self.steerings.is_empty() {
            return Ok(());
        }
        let (theirs, ours) = strays::pair()?;
        strays::listen(ours, self.steerings.clone())?;
        let mut strays = Sockets::default();
        strays.push(Bound { kind: Kind::Strays, asked: None, sockets: vec![theirs] });
        channel.send_sockets(&strays)
    }

    /// Closes purge log and disks, for another process to open them: takes no purge until [`Handle::resume`]. What was
    /// purged and written before is in them. Visitors are answered as ever, but nothing new comes on the disks.
    pub fn release(&self) {
        let log = {
            let mut log = self.shared.purge_log.lock();
            self.shared.succession.release();
            write_missed(log.as_mut());
            log.take()
        };
        // What is taken away while they are closed is kept for the other process.
        if !self.shared.disks.close()
            && let Some(log) = log
        {
            log.end();
        }
    }

    /// Takes back what was released, after the other process has ended.
    ///
    /// # Errors
    /// Purge log or disks cannot be opened again. Then the edge goes on from memory.
    pub fn resume(&self) -> Result<(), StartError> {
        let reopened = self.storage.reopen(&self.shared);
        for what in self.shared.succession.resume() {
            match what {
                Invalidation::Key(key) => {
                    self.shared.epochs.advance(key);
                    self.shared.forget(key);
                }
                Invalidation::Targets(kind, targets) => purging::record_told(&self.shared, targets, kind),
            }
        }
        reopened
    }

    /// Leaves everything that is new to the process at the other end, which serves by now, and puts in force here what is
    /// purged there; `heard` is what it has said of that already. To be followed by [`Handle::drain`]. `within`: time to end when that process stops or is gone.
    ///
    /// # Errors
    /// No thread for it: then nothing that is stored is used any more.
    pub fn hand_over(&self, channel: Channel, heard: Vec<Message>, within: Duration) -> io::Result<()> {
        let (shared, deadline) = (Arc::downgrade(&self.shared), self.deadline.clone());
        let access_log = self.access_log.clone();
        self.shared.succession.obey(move |ask| {
            let Some(shared) = shared.upgrade() else { return };
            match ask {
                Ask::Stop => hurry(&shared, &deadline, within),
                Ask::Reopen => {
                    shared.succession.ask_before(ask);
                    if let Some(Err(error)) = access_log.as_deref().map(AccessLog::reopen) {
                        eprintln!("perigee: the access log cannot be reopened by what drains: {error}");
                    }
                }
            }
        });
        let handed_over = succession::hand_over(&self.shared, channel, heard);
        let shared = Arc::downgrade(&self.shared);
        self.origins.hand_over(Box::new(move |word| {
            if let Some(shared) = shared.upgrade() {
                shared.succession.tell_after(&Message::Turns(word));
            }
        }));
        // Before this process takes no connection any more: at no moment is one refused.
        self.shared.quic.stop_reading();
        self.shared.succession.leave_quic();
        self.shared.is_gentle.store(true, Ordering::SeqCst);
        self.shared.draining.store(true, Ordering::SeqCst);
        self.sockets.lock().close();
        let begin = Instant::now();
        while self.shared.accepting.load(Ordering::Acquire) > 0 && begin.elapsed() < SETTLE_PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.shared.succession.settle();
        handed_over
    }

    /// Whether the process before this one has left everything that is new to this one.
    pub fn is_settled(&self) -> bool {
        self.shared.succession.is_settled()
    }

    /// Whether a process before this one has not ended yet.
    pub fn has_predecessor(&self) -> bool {
        self.shared.succession.has_predecessor()
    }
}

#[cfg(test)]
mod tests {
    use model::Snapshot;

    use super::*;
    use crate::admin::tests::world_in;

    #[test]
    fn no_purge_takes_back_the_position_of_a_log_that_is_opened_again() {
        let state = std::env::temp_dir().join(format!("perigee-resume-{}", std::process::id()));
        std::fs::create_dir_all(&state).unwrap();
        let text = "[store]\nmemory = \"1MiB\"\n[[store.disk]]\nsize = \"64MiB\"\n\n\
                    [[site]]\nname = \"shop\"\ndomains = [\"shop.example\"]\norigin = \"http://127.0.0.1:9\"\n";
        let world = world_in(Some(state.clone()), Snapshot::parse(text, "a test").snapshot.unwrap());
        let handle = &world.handle;
        let position = || handle.shared.purge_position.load(Ordering::Acquire);
        let before = position();
        handle.release();
        std::thread::scope(|scope| {
            // As one does who records a purge, and has seen the newest position.
            let recording = handle.shared.purge_log.lock();
            let resumed = scope.spawn(|| handle.resume());
            let begin = Instant::now();
            while position() == before && begin.elapsed() < Duration::from_millis(500) {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(position(), before, "it has not changed before the next one is in force");
            drop(recording);
            resumed.join().unwrap().unwrap();
        });
        assert!(position() > before);
        drop(world);
        std::fs::remove_dir_all(&state).unwrap();
    }
}
