//! A gate in an origin's reply: the origin stops there until the test opens it. This is what makes races into plays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::wait_until;

/// Shut until [`Gate::open`]; clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    reached: Arc<AtomicUsize>,
}

impl Gate {
    /// A shut gate.
    #[expect(clippy::new_without_default, reason = "a gate is not a value with a natural default")]
    pub fn new() -> Gate {
        Gate { open: Arc::new(watch::Sender::new(false)), reached: Arc::default() }
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until a reply stands before the gate (or went through it).
    #[track_caller]
    pub fn wait_reached(&self) {
        wait_until("a reply to reach the gate", || self.reached.load(Ordering::SeqCst) > 0);
    }

    pub(super) async fn pass(&self) {
        self.reached.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
}
