//! What one node lets through to one origin: counted exactly over any second, and at a time.
//!
//! ```text
//! begin ─► Running: counts in flight, and as if it were sent all the time
//!   │        └─ send ─► counts in the window that begins now
//!   └─ not now: at this time, or when one ends          end ─► counts in flight no longer
//! ```
//!
//! A request is counted for the window when it is sent and not when it gets its turn: between the two lies a connection, which
//! may take longer than a second. Until then it holds its place. So, however long the way, at most as many are sent in any
//! window as are allowed at its end.
//!
//! A gate that has just been made counts a window's worth as used up: what the process before it has sent is not known.

use std::collections::VecDeque;

use super::Amount;

/// What is counted as one second, in ms: longer, by what a request may be held up more on its way than the one before it.
pub const WINDOW_MS: u64 = 1_025;

/// Over how long the largest demand counts, in ms: half of it and up to all of it.
const DEMAND_MS: u64 = 10_000;

/// See the module's text. Times are monotonic ms.
#[derive(Clone, Debug)]
pub struct Gate {
    allowed: Amount,
    /// When requests were sent, and how many in that ms; the oldest first.
    sent: VecDeque<(u64, u32)>,
    in_window: u32,
    /// Begun and not yet sent.
    pending: u32,
    running: u32,
    /// Until then nothing begins.
    closed_until: u64,
    over_since: Option<u64>,
    /// The largest demand of this half of [`DEMAND_MS`] and of the one before.
    demand: [Amount; 2],
    half: u64,
}

/// Why a request cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// Not before this time.
    Before(u64),
    /// Not before something ends, or more is allowed.
    Full,
}

impl Gate {
    /// A gate that lets nothing through before a window has passed.
    pub fn new(now: u64) -> Gate {
        Gate {
            allowed: Amount::default(),
            sent: VecDeque::new(),
            in_window: 0,
            pending: 0,
            running: 0,
            closed_until: now + WINDOW_MS,
            over_since: None,
            demand: [Amount::default(); 2],
            half: 0,
        }
    }

    /// Lets nothing through until [`Gate::open`].
    pub fn hold(&mut self) {
        self.closed_until = u64::MAX;
    }

    /// Lets something through again when a window has passed.
    pub fn open(&mut self, now: u64) {
        self.closed_until = now + WINDOW_MS;
    }

    /// One goes on that another gate has let through and that this one has to count from now on. Whoever tells of it owes
    /// [`Gate::end`].
    pub fn adopt(&mut self) {
        self.running += 1;
    }

    /// What is allowed from now on.
    pub fn allow(&mut self, allowed: Amount, now: u64) {
        self.allowed = allowed;
        self.note_excess(now);
    }

    /// What is allowed.
    pub fn allowed(&self) -> Amount {
        self.allowed
    }

    /// A request begins, if it may. Whoever begins one owes [`Gate::send`] or [`Gate::not_sent`], then [`Gate::end`].
    ///
    /// # Errors
    /// It may not: when to ask again.
    pub fn begin(&mut self, now: u64) -> Result<(), NotNow> {
        self.check(now)?;
        self.pending += 1;
        self.running += 1;
        Ok(())
    }

    /// Whether a request may begin.
    ///
    /// # Errors
    /// As [`Gate::begin`].
    pub fn check(&mut self, now: u64) -> Result<(), NotNow> {
        self.forget(now);
        if now < self.closed_until {
            return Err(NotNow::Before(self.closed_until));
        }
        if self.running >= self.allowed.in_flight || self.pending >= self.allowed.requests_per_second {
            return Err(NotNow::Full);
        }
        if self.in_window + self.pending >= self.allowed.requests_per_second {
            let first = self.sent.front().map_or(now, |(at, _)| *at);
            return Err(NotNow::Before(first + WINDOW_MS + 1));
        }
        Ok(())
    }

    /// One that has begun is about to be sent. `false`: less is allowed by now than when it began, and it may not; it is as after
    /// [`Gate::not_sent`].
    #[must_use]
    pub fn send(&mut self, now: u64) -> bool {
        self.forget(now);
        let is_within = self.in_window + self.pending <= self.allowed.requests_per_second;
        self.not_sent();
        if is_within {
            self.in_window += 1;
            // Clocks of cores may differ by a ms.
            let now = self.sent.back().map_or(now, |(last, _)| now.max(*last));
            match self.sent.back_mut() {
                Some((at, count)) if *at == now => *count += 1,
                _ => self.sent.push_back((now, 1)),
            }
        }
        is_within
    }

    /// One that has begun will never be sent.
    pub fn not_sent(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// One has ended.
    pub fn end(&mut self, now: u64) {
        self.running = self.running.saturating_sub(1);
        self.note_excess(now);
    }

    /// Requests that go on.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Requests of the last window.
    pub fn in_window(&mut self, now: u64) -> u32 {
        self.forget(now);
        self.in_window + self.pending
    }

    /// How many of those that go on are to be ended: more have been going on than are allowed, for longer than `grace_ms`.
    pub fn excess(&self, now: u64, grace_ms: u64) -> u32 {
        match self.over_since {
            Some(since) if now.saturating_sub(since) >= grace_ms => {
                self.running.saturating_sub(self.allowed.in_flight)
            }
            _ => 0,
        }
    }

    /// What would be of use now, with what was of use in the last seconds: `waiting` requests wait.
    pub fn demand(&mut self, waiting: u32, now: u64) -> Amount {
        self.note_demand(waiting, now);
        self.demand[0].max(self.demand[1])
    }

    /// Takes note of what would be of use now.
    pub fn note_demand(&mut self, waiting: u32, now: u64) {
        let half = now / (DEMAND_MS / 2);
        if half != self.half {
            let before = if half == self.half + 1 { self.demand[0] } else { Amount::default() };
            (self.half, self.demand) = (half, [Amount::default(), before]);
        }
        let wanted = Amount {
            requests_per_second: self.in_window(now).saturating_add(waiting),
            in_flight: self.running.saturating_add(waiting),
        };
        self.demand[0] = self.demand[0].max(wanted);
    }

    fn note_excess(&mut self, now: u64) {
        match self.running > self.allowed.in_flight {
            true => self.over_since = self.over_since.or(Some(now)),
            false => self.over_since = None,
        }
    }

    fn forget(&mut self, now: u64) {
        // A ms that has begun counts as a whole.
        while let Some((_, count)) = self.sent.front().copied().filter(|(at, _)| at + WINDOW_MS < now) {
            self.sent.pop_front();
            self.in_window -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(requests_per_second: u32, in_flight: u32) -> Gate {
        let mut gate = Gate::new(0);
        gate.allow(Amount { requests_per_second, in_flight }, 0);
        gate
    }

    fn send(gate: &mut Gate, now: u64) -> Result<(), NotNow> {
        gate.begin(now).map(|()| assert!(gate.send(now)))
    }

    #[test]
    fn a_new_gate_counts_the_second_before_it_as_used_up() {
        let mut gate = open(10, 10);
        assert_eq!(gate.begin(0), Err(NotNow::Before(1_025)));
        assert_eq!(gate.begin(1_024), Err(NotNow::Before(1_025)));
        assert_eq!(gate.begin(1_025), Ok(()));
    }

    #[test]
    fn what_has_not_been_sent_yet_holds_its_place_in_every_window() {
        let mut gate = open(2, 10);
        assert_eq!((gate.begin(2_000), gate.begin(2_000)), (Ok(()), Ok(())));
        assert_eq!(gate.begin(9_000), Err(NotNow::Full), "both may be sent at any moment");
        assert!(gate.send(9_000));
        assert_eq!(gate.begin(10_026), Ok(()), "one has left the window, one has not been sent");
        gate.not_sent();
        assert_eq!(gate.begin(10_026), Ok(()));
        assert!(gate.send(10_026));
        assert_eq!(gate.begin(10_026), Err(NotNow::Before(11_052)));
    }

    #[test]
    fn what_has_begun_is_not_sent_when_less_is_allowed_by_then() {
        let mut gate = open(3, 10);
        (0..3).for_each(|_| gate.begin(2_000).unwrap());
        gate.allow(Amount { requests_per_second: 1, in_flight: 10 }, 2_500);
        assert_eq!([gate.send(2_500), gate.send(2_500), gate.send(2_500)], [false, false, true]);
    }

    #[test]
    fn what_goes_on_is_counted_until_it_ends() {
        let mut gate = open(100, 2);
        assert_eq!((send(&mut gate, 2_000), send(&mut gate, 2_000)), (Ok(()), Ok(())));
        assert_eq!(gate.begin(9_000), Err(NotNow::Full));
        gate.end(9_000);
        assert_eq!(gate.begin(9_000), Ok(()));
    }

    #[test]
    fn what_goes_on_above_what_is_allowed_is_in_excess_after_the_grace_alone() {
        let mut gate = open(100, 5);
        (0..5).for_each(|_| send(&mut gate, 2_000).unwrap());
        gate.allow(Amount { requests_per_second: 100, in_flight: 2 }, 3_000);
        assert_eq!(gate.excess(3_999, 1_000), 0);
        assert_eq!(gate.excess(4_000, 1_000), 3);
        (0..3).for_each(|_| gate.end(4_000));
        assert_eq!(gate.excess(9_000, 1_000), 0);
        gate.allow(Amount::default(), 9_000);
        assert_eq!(gate.excess(9_500, 1_000), 0, "counted anew");
    }

    #[test]
    fn the_largest_demand_of_the_last_seconds_is_told() {
        let mut gate = open(100, 5);
        send(&mut gate, 5_000).unwrap();
        assert_eq!(gate.demand(7, 5_000), Amount { requests_per_second: 8, in_flight: 8 });
        gate.end(5_100);
        assert_eq!(gate.demand(0, 9_000).requests_per_second, 8);
        assert_eq!(gate.demand(0, 14_900).requests_per_second, 8);
        assert_eq!(gate.demand(0, 15_000), Amount::default());
    }

    proptest! {
        #[test]
        fn no_window_of_a_second_has_more_than_is_allowed_and_none_is_lost_for_ever(
            limit in 1u32..20,
            steps in prop::collection::vec((0u64..400, 0u64..2_000, any::<bool>()), 1..300),
        ) {
            let mut gate = open(limit, 10_000);
            let (mut now, mut sent, mut pending): (u64, Vec<u64>, Vec<(u64, bool)>) = (2_000, vec![], vec![]);
            for (wait, way, is_sent) in steps {
                now += wait;
                pending.retain(|(at, is_sent)| {
                    if *at > now { return true }
                    match is_sent {
                        true => { assert!(gate.send(now)); sent.push(now) }
                        false => gate.not_sent(),
                    }
                    gate.end(now);
                    false
                });
                if gate.begin(now).is_ok() {
                    pending.push((now + way, is_sent));
                }
                let in_window = sent.iter().filter(|at| **at + 1_000 >= now).count();
                prop_assert!(in_window <= limit as usize, "{in_window} at {now}");
            }
            let last = now + 10_000;
            for (_, is_sent) in pending.drain(..) {
                if is_sent { assert!(gate.send(now)) } else { gate.not_sent() }
                gate.end(now);
            }
            for _ in 0..limit {
                prop_assert_eq!(gate.begin(last), Ok(()));
            }
        }
    }
}
