//! PoPs that answer probes and not visitors: what browsers say that could not reach them.
//!
//! A PoP is *grey* when half of at least twenty beacons, from at least eight networks, got no answer from it within a minute, and
//! fewer than a fifth of at least twenty that timed other PoPs; and until nine of ten get one again. It counts as down then. A minute
//! without a word is no word: it stays as it is for five.
//!
//! Pure: `now` is monotonic ms. Called by `server`.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

/// How long beacons count, in so many parts.
const WINDOW_MS: u64 = 60_000;
const PARTS: u64 = 6;
/// Beacons, and networks that they come from, without which nothing is said.
const BEACONS_MIN: u32 = 20;
const NETWORKS_MIN: usize = 8;
/// The share without an answer from which on a PoP is grey, if the others' is below [`OTHERS`]; and below which it is not any more.
const GREY: f64 = 0.5;
const OTHERS: f64 = 0.2;
const WELL: f64 = 0.1;
/// A grey PoP of which nothing is heard for so long is tried again.
const HOLD_MS: u64 = 300_000;

#[derive(Clone, Debug, Default)]
struct Part {
    number: u64,
    good: u32,
    failed: u32,
    networks: HashSet<IpAddr>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    parts: VecDeque<Part>,
    grey_since_ms: Option<u64>,
    heard_ms: u64,
}

/// All PoPs, by index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Greys(Vec<Seen>);

impl Greys {
    /// So many beacons of a network got an answer from a PoP, and so many did not.
    pub(crate) fn seen(&mut self, pop: u16, network: IpAddr, good: u32, failed: u32, now_ms: u64) {
        let index = usize::from(pop);
        if self.0.len() <= index {
            self.0.resize(index + 1, Seen::default());
        }
        let seen = &mut self.0[index];
        seen.heard_ms = now_ms;
        let number = now_ms / (WINDOW_MS / PARTS);
        if seen.parts.back().is_none_or(|part| part.number != number) {
            seen.parts.push_back(Part { number, ..Part::default() });
        }
        if let Some(part) = seen.parts.back_mut() {
            (part.good, part.failed) = (part.good.saturating_add(good), part.failed.saturating_add(failed));
            if part.networks.len() < NETWORKS_MIN {
                part.networks.insert(network);
            }
        }
    }

    /// Looks which PoPs are grey; the indices of those that have changed.
    pub(crate) fn look(&mut self, now_ms: u64) -> Vec<u16> {
        let first = (now_ms / (WINDOW_MS / PARTS)).saturating_sub(PARTS - 1);
        for seen in &mut self.0 {
            seen.parts.retain(|part| part.number >= first);
        }
        let sums: Vec<(u32, u32, usize)> = self.0.iter().map(Seen::sum).collect();
        let (good, failed) = sums.iter().fold((0, 0), |(good, failed), sum| (good + sum.0, failed + sum.1));
        let share = |good: u32, failed: u32| f64::from(failed) / f64::from((good + failed).max(1));
        let mut changed = Vec::new();
        for (index, (seen, sum)) in self.0.iter_mut().zip(&sums).enumerate() {
            let own = share(sum.0, sum.1);
            let enough = sum.0 + sum.1 >= BEACONS_MIN && sum.2 >= NETWORKS_MIN;
            let others = (good - sum.0, failed - sum.1);
            let is_grey = match seen.grey_since_ms {
                None => {
                    let fare_better =
                        others.0 + others.1 >= BEACONS_MIN && share(others.0, others.1) < OTHERS;
                    enough && own >= GREY && fare_better
                }
                Some(_) if enough => own >= WELL,
                Some(_) => now_ms.saturating_sub(seen.heard_ms) < HOLD_MS,
            };
            if is_grey != seen.grey_since_ms.is_some() {
                seen.grey_since_ms = is_grey.then_some(now_ms);
                changed.push(index as u16);
            }
        }
        changed
    }

    /// Whether a PoP is grey.
    pub(crate) fn is_grey(&self, pop: usize) -> bool {
        self.0.get(pop).is_some_and(|seen| seen.grey_since_ms.is_some())
    }

    /// Forgets everything: PoPs have other numbers now.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Seen {
    fn sum(&self) -> (u32, u32, usize) {
        let networks: HashSet<&IpAddr> = self.parts.iter().flat_map(|part| &part.networks).collect();
        let (good, failed) = self.parts.iter().fold((0u32, 0u32), |sum, part| {
            (sum.0.saturating_add(part.good), sum.1.saturating_add(part.failed))
        });
        // Sums of all PoPs must not run over either.
        (good.min(1 << 20), failed.min(1 << 20), networks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + (number << 8)).into())
    }

    #[test]
    fn a_pop_that_visitors_cannot_reach_is_grey_until_they_can() {
        let mut greys = Greys::default();
        for number in 0..30 {
            greys.seen(0, network(number), 1, 0, 1_000);
            greys.seen(1, network(number), u32::from(number % 3 == 0), u32::from(number % 3 != 0), 1_000);
        }
        assert_eq!(greys.look(1_000), [1]);
        assert!(greys.is_grey(1) && !greys.is_grey(0));
        assert_eq!(greys.look(100_000), [0u16; 0], "nothing was heard since");
        for number in 0..30 {
            greys.seen(1, network(number), 1, 0, 101_000);
        }
        assert_eq!(greys.look(101_000), [1]);
        assert!(!greys.is_grey(1));
    }

    #[test]
    fn few_liars_and_visitors_who_reach_nothing_make_no_pop_grey() {
        let mut greys = Greys::default();
        for _ in 0..100 {
            greys.seen(0, network(1), 0, 1, 1_000);
        }
        assert_eq!(greys.look(1_000), [0u16; 0], "one network");
        let mut greys = Greys::default();
        for number in 0..100 {
            greys.seen((number % 2) as u16, network(number), 0, 1, 1_000);
        }
        assert_eq!(greys.look(1_000), [0u16; 0], "it is the visitors who are cut off");
    }

    #[test]
    fn a_pop_is_not_grey_where_too_few_others_say_that_it_is_not_the_beacon() {
        let mut greys = Greys::default();
        for number in 0..30 {
            greys.seen(0, network(number), 0, 1, 1_000);
        }
        assert_eq!(greys.look(1_000), [0u16; 0], "it is timed alone");
        greys.seen(1, network(0), BEACONS_MIN - 1, 0, 1_000);
        assert_eq!(greys.look(1_000), [0u16; 0]);
        greys.seen(1, network(1), 1, 0, 1_000);
        assert_eq!(greys.look(1_000), [0]);
    }

    #[test]
    fn who_is_not_heard_of_any_more_is_tried_again() {
        let mut greys = Greys::default();
        for number in 0..30 {
            greys.seen(0, network(number), 0, 1, 1_000);
            greys.seen(1, network(number), 1, 0, 1_000);
        }
        assert_eq!(greys.look(1_000), [0]);
        assert_eq!(greys.look(HOLD_MS), [0u16; 0]);
        assert_eq!(greys.look(HOLD_MS + 1_000), [0]);
    }
}
