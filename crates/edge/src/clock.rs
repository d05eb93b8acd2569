//! The edge's two clocks as one value that is handed in: wall time for freshness and logs, monotonic time for
//! durations and deadlines. Tests hand in a manual clock and move it; nothing here is swapped under `cfg(test)`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use semantics::Wall;

/// Where the edge takes the time from. Cheap to clone; all clones agree.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    manual: Option<Arc<Manual>>,
}

#[derive(Debug)]
struct Manual {
    start_ms: i64,
    now_ms: AtomicI64,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Clock { started: Instant::now(), manual: None }
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it. Monotonic time follows wall time.
    pub fn manual(start: Wall) -> Self {
        let manual = Manual { start_ms: start.0, now_ms: AtomicI64::new(start.0) };
        Clock { started: Instant::now(), manual: Some(Arc::new(manual)) }
    }

    /// Moves a manual clock; says whether there was one to move.
    pub fn advance(&self, by: Duration) -> bool {
        let Some(manual) = &self.manual else { return false };
        manual.now_ms.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
        true
    }

    /// Wall time now.
    pub fn wall(&self) -> Wall {
        match &self.manual {
            Some(manual) => Wall(manual.now_ms.load(Ordering::SeqCst)),
            None => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => Wall(since.as_millis() as i64),
                Err(before) => Wall(-(before.duration().as_millis() as i64)),
            },
        }
    }

    /// Milliseconds since the clock was made; never goes back.
    pub fn monotonic_ms(&self) -> u64 {
        match &self.manual {
            Some(manual) => (manual.now_ms.load(Ordering::SeqCst) - manual.start_ms).max(0) as u64,
            None => self.started.elapsed().as_millis() as u64,
        }
    }
}
