//! Which origins of a group are fit to be asked, from probes (active) and from the requests themselves (passive), and
//! in which order to try them.
//!
//! Pure: `now` is monotonic milliseconds given by the caller. The edge keeps one [`Health`] per origin, feeds it the
//! ends of probes and of requests, and calls [`choose`] when it needs an origin.
//!
//! What it doesn't do: it sends no probes and keeps no load figures. The breaker is the faster, finer switch per
//! origin; health decides the order beforehand.

/// When an origin counts as down, and when as up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Probes that must fail in a row before the origin is down. Default 3, at least 1.
    pub down_after: u32,
    /// Probes that must succeed in a row before it is up again. Default 2, at least 1.
    pub up_after: u32,
    /// Requests that must fail in a row before it is set aside. Default 5; 0 is never.
    pub aside_after: u32,
    /// For how long it is set aside, in ms. Default 5,000. Afterwards a single failure sets it aside again, until a
    /// request succeeds.
    pub aside_ms: u64,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        HealthPolicy { down_after: 3, up_after: 2, aside_after: 5, aside_ms: 5_000 }
    }
}

/// What was learned about an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A probe got the expected answer.
    ProbeSucceeded,
    /// It did not.
    ProbeFailed,
    /// A visitor's request was answered.
    RequestSucceeded,
    /// It was not, or with an error that counts.
    RequestFailed,
}

/// How an origin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Fit to be asked; also before anything is known.
    Up,
    /// Requests failed in a row; not asked for a while.
    Aside,
    /// Probes failed in a row; not asked until they succeed.
    Down,
}

impl State {
    /// `up`, `aside` or `down`.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Aside => "aside",
            State::Down => "down",
        }
    }
}

/// One origin's health.
#[derive(Clone, Debug)]
pub struct Health {
    policy: HealthPolicy,
    down: bool,
    /// Probes in a row that speak against `down`.
    probes_against: u32,
    requests_failed: u32,
    aside_until_ms: u64,
}

impl Health {
    /// An origin of which nothing is known: up. Values below their minimum count as the minimum.
    pub fn new(policy: HealthPolicy) -> Self {
        let policy =
            HealthPolicy { down_after: policy.down_after.max(1), up_after: policy.up_after.max(1), ..policy };
        Health { policy, down: false, probes_against: 0, requests_failed: 0, aside_until_ms: 0 }
    }

    /// Takes an event. Returns the new state when it differs from the one before.
    pub fn step(&mut self, event: Event, now: u64) -> Option<State> {
        let before = self.state(now);
        match event {
            Event::ProbeSucceeded => self.probe(true),
            Event::ProbeFailed => self.probe(false),
            Event::RequestSucceeded => {
                self.requests_failed = 0;
                self.aside_until_ms = 0;
            }
            Event::RequestFailed => {
                self.requests_failed = self.requests_failed.saturating_add(1);
                if self.policy.aside_after > 0 && self.requests_failed >= self.policy.aside_after {
                    self.aside_until_ms = now.saturating_add(self.policy.aside_ms);
                }
            }
        }
        let after = self.state(now);
        (after != before).then_some(after)
    }

    /// How the origin is at `now`.
    pub fn state(&self, now: u64) -> State {
        match (self.down, now < self.aside_until_ms) {
            (true, _) => State::Down,
            (false, true) => State::Aside,
            (false, false) => State::Up,
        }
    }

    fn probe(&mut self, succeeded: bool) {
        if succeeded != self.down {
            self.probes_against = 0;
            return;
        }
        self.probes_against += 1;
        let needed = if self.down { self.policy.up_after } else { self.policy.down_after };
        if self.probes_against >= needed {
            self.down = !succeeded;
            self.probes_against = 0;
            // Probes have the last word: what failed before the origin came back no longer counts.
            self.requests_failed = 0;
            self.aside_until_ms = 0;
        }
    }
}

/// Which origins to try, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Indices into the group, best first; empty only when `order` was.
    pub origins: Vec<usize>,
    /// No origin was up, so that all are tried after all: those set aside before those that are down.
    pub failed_open: bool,
}

/// The origins of `order` that are up, in that order. When none is, all of them: a wrong verdict on health must not
/// take a site down that its origins could still serve.
///
/// - `order`: indices into `states`, in the order of preference; an index out of range counts as up.
pub fn choose(order: &[usize], states: &[Health], now: u64) -> Choice {
    let state = |index: &usize| states.get(*index).map_or(State::Up, |health| health.state(now));
    let origins: Vec<usize> = order.iter().copied().filter(|index| state(index) == State::Up).collect();
    if !origins.is_empty() {
        return Choice { origins, failed_open: false };
    }
    let mut origins = order.to_vec();
    origins.sort_by_key(|index| state(index) == State::Down);
    Choice { failed_open: !origins.is_empty(), origins }
}

#[cfg(test)]
mod tests;
