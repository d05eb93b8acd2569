//! Whether an edge lives, from what several observers see of it; and whether that verdict is to be believed.
//!
//! An observer says *down* after two misses in a row, and *up* again after four good probes over at least five seconds. An
//! edge is down when two of three observers say so (at least half of those who were heard lately, and at least two). When more than half of
//! all edges look down at once, it is the observers that are cut off: everything counts as up ([`fail_open`]).
//!
//! Pure: `now` is monotonic ms. Called by `server`, and by `observe` at edges.

/// Misses in a row after which an observer says *down*.
const MISSES: u32 = 2;
/// Good probes in a row after which it says *up* again, and over how many ms at least: a server that restarts answers once or
/// twice before it is ready.
const SUCCESSES: u32 = 4;
/// See [`SUCCESSES`].
const RECOVERY_MS: u64 = 5_000;
/// An observer that was not heard for so long has no say: ten probes at the default interval.
const SILENCE_MS: u64 = 5_000;
/// Time over which a PoP that came back gets its visitors back, cell by cell: its cache and connections are cold.
const SLOW_START_MS: u64 = 10_000;
/// After a change of state, answers are kept shorter for so long: there may be another.
const FLAPPING_MS: u64 = 60_000;

/// What one observer has seen of an edge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    down: bool,
    misses: u32,
    successes: u32,
    success_since_ms: u64,
}

impl Sight {
    /// Takes a probe's end. Returns whether it says something else now.
    pub(crate) fn step(&mut self, good: bool, now_ms: u64) -> bool {
        let before = self.down;
        if good {
            if self.successes == 0 {
                self.success_since_ms = now_ms;
            }
            (self.misses, self.successes) = (0, self.successes.saturating_add(1));
            if self.successes >= SUCCESSES && now_ms.saturating_sub(self.success_since_ms) >= RECOVERY_MS {
                self.down = false;
            }
        } else {
            (self.misses, self.successes) = (self.misses.saturating_add(1), 0);
            self.down |= self.misses >= MISSES;
        }
        self.down != before
    }

    /// Whether it says *down*.
    pub(crate) fn is_down(&self) -> bool {
        self.down
    }
}

/// One observer of an edge.
#[derive(Clone, Debug)]
struct Observer {
    id: u32,
    heard_ms: u64,
    sight: Sight,
}

/// One edge; up, as long as nothing is known of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct EdgeHealth {
    observers: Vec<Observer>,
    down: bool,
    /// When `down` last changed, if ever.
    changed_ms: Option<u64>,
}

/// Observers of one edge that are remembered; those of whom nothing was heard longest make room.
const OBSERVERS_MAX: usize = 16;

impl EdgeHealth {
    /// Takes what `observer` saw. Returns whether the edge's state changed.
    pub(crate) fn step(&mut self, observer: u32, good: bool, now_ms: u64) -> bool {
        self.observer(observer, now_ms).sight.step(good, now_ms);
        self.judge(now_ms)
    }

    /// Takes what `observer` says, which has steps of its own. Returns whether the edge's state changed.
    pub(crate) fn vote(&mut self, observer: u32, down: bool, now_ms: u64) -> bool {
        self.observer(observer, now_ms).sight.down = down;
        self.judge(now_ms)
    }

    fn observer(&mut self, id: u32, now_ms: u64) -> &mut Observer {
        let index = match self.observers.iter().position(|one| one.id == id) {
            Some(index) => index,
            None => {
                if self.observers.len() >= OBSERVERS_MAX {
                    let oldest = self.observers.iter().enumerate().min_by_key(|(_, one)| one.heard_ms);
                    if let Some((oldest, _)) = oldest {
                        self.observers.swap_remove(oldest);
                    }
                }
                self.observers.push(Observer { id, heard_ms: now_ms, sight: Sight::default() });
                self.observers.len() - 1
            }
        };
        let one = &mut self.observers[index];
        one.heard_ms = now_ms;
        one
    }

    /// Down when at least half of those who were heard lately say so, and no fewer than two of them, if there are two: two of
    /// three, two of four, three of five.
    fn judge(&mut self, now_ms: u64) -> bool {
        let heard = self.observers.iter().filter(|one| now_ms.saturating_sub(one.heard_ms) <= SILENCE_MS);
        let (count, against) = heard
            .fold((0usize, 0), |(count, against), one| (count + 1, against + usize::from(one.sight.down)));
        let down = count > 0 && against >= count.min(2).max(count.div_ceil(2));
        let changed = down != self.down;
        if changed {
            (self.down, self.changed_ms) = (down, Some(now_ms));
        }
        changed
    }

    /// Whether it is thought to be down.
    pub(crate) fn is_down(&self) -> bool {
        self.down
    }

    /// Whether its state changed lately.
    pub(crate) fn is_flapping(&self, now_ms: u64) -> bool {
        self.changed_ms.is_some_and(|changed| now_ms.saturating_sub(changed) < FLAPPING_MS)
    }

    /// The share of its visitors that it gets: 0 while down, 1 usually, in between while it has just come back.
    pub(crate) fn share(&self, now_ms: u64) -> f64 {
        match (self.down, self.changed_ms) {
            (true, _) => 0.0,
            (false, None) => 1.0,
            (false, Some(changed)) => {
                let since = now_ms.saturating_sub(changed);
                // Some at once, so that the way back is tried.
                (since as f64 / SLOW_START_MS as f64).clamp(0.1, 1.0)
            }
        }
    }
}

/// Whether a verdict "down" is to be ignored: more than half look down, and there is more than one.
pub(crate) fn fail_open(down: usize, all: usize) -> bool {
    (all > 1 && down * 2 > all) || (all == 1 && down == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_edge_is_down_after_two_misses_and_up_after_five_good_seconds() {
        let mut edge = EdgeHealth::default();
        assert!(!edge.step(0, true, 0) && !edge.step(0, false, 500));
        assert!(edge.step(0, false, 1_000), "the second miss in a row");
        assert_eq!((edge.is_down(), edge.share(1_000)), (true, 0.0));
        let back = (0..20).find(|n| edge.step(0, true, 1_500 + n * 500)).unwrap();
        assert_eq!(back, 10);
        let now = 1_500 + back * 500;
        assert_eq!((edge.share(now), edge.share(now + 5_000), edge.share(now + 10_000)), (0.1, 0.5, 1.0));
        assert!(edge.is_flapping(now) && !edge.is_flapping(now + FLAPPING_MS));
    }

    #[test]
    fn one_observer_of_three_takes_nobody_down() {
        let mut edge = EdgeHealth::default();
        for round in 0..20 {
            let now = round * 500;
            edge.step(0, false, now);
            edge.step(1, true, now);
            edge.step(2, true, now);
            assert!(!edge.is_down());
        }
        edge.step(1, false, 10_000);
        assert!(edge.step(1, false, 10_500), "two of three");
    }

    #[test]
    fn votes_of_edges_count_beside_the_routers_own_sight() {
        let mut edge = EdgeHealth::default();
        for round in 0..4 {
            edge.step(0, false, round * 500);
            for observer in 1..4 {
                edge.vote(observer, false, round * 500);
            }
        }
        assert!(!edge.is_down(), "the router alone sees it down");
        assert!(edge.vote(1, true, 2_000), "two of four");
        assert!(edge.vote(1, false, 2_100));
    }

    #[test]
    fn who_is_not_heard_any_more_has_no_say() {
        let mut edge = EdgeHealth::default();
        edge.step(0, false, 0);
        edge.step(0, false, 100);
        assert!(edge.is_down());
        assert!(edge.step(1, true, 10_000), "the only one who speaks now sees it well");
    }

    #[test]
    fn when_most_look_down_nobody_is_believed() {
        assert!(
            !fail_open(0, 3) && !fail_open(1, 3) && fail_open(2, 3) && fail_open(1, 1) && !fail_open(1, 2)
        );
    }

    proptest! {
        #[test]
        fn no_flap_without_two_misses_in_a_row(probes in prop::collection::vec(any::<bool>(), 1..200)) {
            let mut edge = EdgeHealth::default();
            for (index, good) in probes.iter().enumerate() {
                edge.step(0, *good, index as u64 * 500);
                if probes[..=index].windows(2).all(|pair| pair[0] || pair[1]) {
                    prop_assert!(!edge.is_down());
                }
            }
        }
    }
}
