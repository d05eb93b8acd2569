//! When to stop asking a failing origin, and when to ask it again.
//!
//! ```text
//!          failures in a row, or too large a share of a window
//!  Closed ────────────────────────────────────────────────────► Open ◄─┐ every probe interval one
//!     ▲                                                           │     │ request goes through
//!     └──────────── enough probes succeeded ◄── HalfOpen ◄────────┘─────┘ (a failed probe: Open)
//! ```
//!
//! Pure: `now` is monotonic milliseconds given by the caller. The edge keeps one breaker per origin behind a mutex,
//! asks [`Breaker::allow`] before each attempt and reports each attempt's end with [`Breaker::step`].
//!
//! What it doesn't do: it doesn't decide what a failure is (the edge reports connect errors, time-outs and 5xx), nor
//! which origin comes next (`health`), nor whether to retry (`retry`).

/// What opens and closes a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Opens after this many failures without a success between them. Default 5, at least 1.
    pub consecutive_failures: u32,
    /// The first and the last of those failures must lie at least this many ms apart. Default 1,000: what fails in one
    /// moment, as when a proxy in between drops its connections, is one event and not a row.
    pub row_ms: u64,
    /// Opens when at least this share of the window's attempts failed, in percent. Default 50; above 100 is never.
    pub failure_percent: u8,
    /// The share counts only with at least this many attempts in the window. Default 20.
    pub attempts_min: u32,
    /// Length of the window in ms. Default 5,000; kept in ten steps.
    pub window_ms: u64,
    /// While not closed, one attempt goes through per this many ms. Default 1,000, at least 1. A probe that hangs
    /// does not hold up the next one: an origin that comes back is noticed within this time and its own response
    /// time, whatever the time-out of the probe before.
    pub probe_interval_ms: u64,
    /// Closes after this many successful probes in a row. Default 1, at least 1.
    pub probes_to_close: u32,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        BreakerPolicy {
            consecutive_failures: 5,
            row_ms: 1_000,
            failure_percent: 50,
            attempts_min: 20,
            window_ms: 5_000,
            probe_interval_ms: 1_000,
            probes_to_close: 1,
        }
    }
}

/// Leave to make one attempt; give it back with the attempt's end. One that is dropped without a report (the client
/// left before the origin could answer) harms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    epoch: u64,
}

/// Answer of [`Breaker::allow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go ahead.
    Allow(Permit),
    /// Go ahead; this attempt finds out whether the origin is back.
    Probe(Permit),
    /// Don't ask the origin.
    Refuse {
        /// Time until the next probe may go, in ms; at least 1.
        retry_after_ms: u64,
    },
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The origin answered.
    Succeeded,
    /// It did not, or with an error that counts.
    Failed,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// All attempts go through.
    Closed,
    /// None goes through until the next probe is due.
    Open,
    /// At least one probe is out or has succeeded; the rest is refused.
    HalfOpen,
}

impl State {
    /// `closed`, `open` or `half-open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half-open",
        }
    }
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    /// Counts openings and closings. A report about an attempt of an earlier epoch is ignored: what timed out after
    /// the origin came back says nothing about it now.
    epoch: u64,
    state: State,
    failures_in_row: u32,
    row_started_ms: u64,
    probes_succeeded: u32,
    next_probe_ms: u64,
    window: Window,
}

impl Breaker {
    /// A closed breaker. Values below their minimum count as the minimum.
    pub fn new(policy: BreakerPolicy) -> Self {
        let policy = BreakerPolicy {
            consecutive_failures: policy.consecutive_failures.max(1),
            attempts_min: policy.attempts_min.max(1),
            window_ms: policy.window_ms.max(SLOTS as u64),
            probe_interval_ms: policy.probe_interval_ms.max(1),
            probes_to_close: policy.probes_to_close.max(1),
            ..policy
        };
        Breaker {
            policy,
            epoch: 0,
            state: State::Closed,
            failures_in_row: 0,
            row_started_ms: 0,
            probes_succeeded: 0,
            next_probe_ms: 0,
            window: Window::default(),
        }
    }

    /// Whether an attempt may be made now. While not closed, at most one per probe interval may.
    pub fn allow(&mut self, now: u64) -> Verdict {
        let permit = Permit { epoch: self.epoch };
        if self.state == State::Closed {
            return Verdict::Allow(permit);
        }
        if now < self.next_probe_ms {
            return Verdict::Refuse { retry_after_ms: self.next_probe_ms - now };
        }
        self.state = State::HalfOpen;
        self.next_probe_ms = now.saturating_add(self.policy.probe_interval_ms);
        Verdict::Probe(permit)
    }

    /// Takes the end of an attempt that [`Breaker::allow`] let through. Returns the new state when the breaker
    /// opened (from closed) or closed.
    pub fn step(&mut self, event: Event, permit: Permit, now: u64) -> Option<State> {
        if permit.epoch != self.epoch {
            return None;
        }
        match (self.state, event) {
            (State::Closed, Event::Succeeded) => {
                self.failures_in_row = 0;
                self.window.add(now, self.policy.window_ms, false);
                None
            }
            (State::Closed, Event::Failed) => {
                if self.failures_in_row == 0 {
                    self.row_started_ms = now;
                }
                self.failures_in_row += 1;
                let (attempts, failures) = self.window.add(now, self.policy.window_ms, true);
                let in_row = self.failures_in_row >= self.policy.consecutive_failures
                    && now.saturating_sub(self.row_started_ms) >= self.policy.row_ms;
                let in_share = attempts >= u64::from(self.policy.attempts_min)
                    && failures * 100 >= attempts * u64::from(self.policy.failure_percent);
                (in_row || in_share).then(|| self.turn(State::Open, now))
            }
            (State::Open | State::HalfOpen, Event::Succeeded) => {
                self.probes_succeeded += 1;
                (self.probes_succeeded >= self.policy.probes_to_close).then(|| self.turn(State::Closed, now))
            }
            (State::Open | State::HalfOpen, Event::Failed) => {
                self.state = State::Open;
                self.probes_succeeded = 0;
                None
            }
        }
    }

    /// Where it stands, for display and metrics.
    pub fn state(&self) -> State {
        self.state
    }

    fn turn(&mut self, state: State, now: u64) -> State {
        self.epoch += 1;
        self.state = state;
        self.failures_in_row = 0;
        self.probes_succeeded = 0;
        self.next_probe_ms = now.saturating_add(self.policy.probe_interval_ms);
        self.window = Window::default();
        state
    }
}

// --- Window ---

const SLOTS: usize = 10;

/// Attempts and failures of the last `window_ms`, in ten slots; the oldest slot leaves as a whole.
#[derive(Clone, Debug, Default)]
struct Window {
    slots: [(u32, u32); SLOTS],
    /// Number of the newest slot since time began.
    newest: u64,
}

impl Window {
    /// Adds one attempt and returns (attempts, failures) of the window.
    fn add(&mut self, now: u64, window_ms: u64, failed: bool) -> (u64, u64) {
        let number = now / (window_ms / SLOTS as u64);
        let passed = number.saturating_sub(self.newest).min(SLOTS as u64);
        for step in 1..=passed {
            self.slots[((number - passed + step) % SLOTS as u64) as usize] = (0, 0);
        }
        self.newest = self.newest.max(number);
        let slot = &mut self.slots[(self.newest % SLOTS as u64) as usize];
        slot.0 = slot.0.saturating_add(1);
        slot.1 = slot.1.saturating_add(u32::from(failed));
        self.slots.iter().fold((0, 0), |sum, slot| (sum.0 + u64::from(slot.0), sum.1 + u64::from(slot.1)))
    }
}

#[cfg(test)]
mod tests;
