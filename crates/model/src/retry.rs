//! How many retries an origin group may get, so that retrying cannot multiply an outage.
//!
//! Within any window, retries stay below a share of the first attempts plus a floor per second. Pure: `now` is
//! monotonic milliseconds given by the caller. The edge keeps one budget per origin group behind a mutex.
//!
//! What it doesn't do: it doesn't know whether a request is safe to repeat, nor when to wait (the edge does).

/// What a budget grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries per hundred first attempts. Default 20; 0 leaves the floor alone.
    pub percent: u32,
    /// Retries per second that are always granted, so that a quiet site can retry at all. Default 1. Unused ones add
    /// up over the window and no further.
    pub floor_per_sec: u32,
    /// Length of the window in seconds. Default 10, from 1 to [`WINDOW_SECS_MAX`].
    pub window_secs: u32,
}

/// Longest window in seconds.
pub const WINDOW_SECS_MAX: u32 = 60;

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { percent: 20, floor_per_sec: 1, window_secs: 10 }
    }
}

/// Counts first attempts and retries by second over a sliding window.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    policy: RetryPolicy,
    /// (first attempts, retries) of each second of the window, by second modulo the window.
    seconds: Vec<(u32, u32)>,
    newest: u64,
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// An unused budget. A window out of its range counts as the nearest in it.
    pub fn new(policy: RetryPolicy) -> Self {
        let window_secs = policy.window_secs.clamp(1, WINDOW_SECS_MAX);
        RetryBudget {
            policy: RetryPolicy { window_secs, ..policy },
            seconds: vec![(0, 0); window_secs as usize],
            newest: 0,
            requests: 0,
            retries: 0,
        }
    }

    /// Counts a first attempt.
    pub fn request(&mut self, now: u64) {
        let second = self.advance(now);
        self.seconds[second].0 += 1;
        self.requests += 1;
    }

    /// Takes one retry from the budget; `false` when the window's are used up.
    pub fn take(&mut self, now: u64) -> bool {
        let second = self.advance(now);
        let floor = u64::from(self.policy.floor_per_sec) * u64::from(self.policy.window_secs);
        let granted = self.requests * u64::from(self.policy.percent) / 100 + floor;
        if self.retries >= granted {
            return false;
        }
        self.seconds[second].1 += 1;
        self.retries += 1;
        true
    }

    /// Forgets what left the window and returns the slot of the current second. A `now` that goes back counts as the
    /// newest one seen.
    fn advance(&mut self, now: u64) -> usize {
        let window = self.seconds.len() as u64;
        let number = (now / 1000).max(self.newest);
        let passed = (number - self.newest).min(window);
        for back in 0..passed {
            let gone = std::mem::take(&mut self.seconds[((number - back) % window) as usize]);
            self.requests -= u64::from(gone.0);
            self.retries -= u64::from(gone.1);
        }
        self.newest = number;
        (number % window) as usize
    }
}

#[cfg(test)]
mod tests;
