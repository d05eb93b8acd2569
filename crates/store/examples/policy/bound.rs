//! What no cache can exceed on a given sequence of requests, by knowing the future.
//!
//! [`Belady`] is exact and for objects of one weight. [`Bounds`] is an upper bound for objects of any weight: PFOO-L of
//! Berger, Beckmann and Harchol-Balter, *Practical Bounds on Optimal Caching with Variable Object Sizes*, Proceedings
//! of the ACM on Measurement and Analysis of Computing Systems 2(2), 2018.
//!
//! For a request to hit, its object must have been held since the one before it: that takes its weight times the
//! requests between. A cache has its capacity times the number of requests to give, in all. PFOO-L takes the cheapest
//! hits first until that is spent and asks only that the sum fits, not that it fits at every moment; the last hit
//! counts in part. So it is the optimum of a problem with fewer constraints.

use std::collections::{BTreeSet, HashMap};

/// One request, as a cache sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// The object.
    pub(crate) object: u64,
    /// What a hit is worth by bytes.
    pub(crate) bytes: u64,
    /// What holding it takes of the capacity, at least 1.
    pub(crate) weight: u64,
}

/// A hit that is possible: its cost in weight times requests, and its bytes.
struct Interval {
    cost: u64,
    bytes: u64,
}

/// PFOO-L for one sequence and any capacity.
pub(crate) struct Bounds {
    requests: u64,
    bytes: u64,
    /// Cheapest first, per request and per byte.
    by_object: Vec<Interval>,
    by_byte: Vec<Interval>,
}

impl Bounds {
    /// Prepares the bounds. Cost: two sorted lists of 16 bytes per request.
    pub(crate) fn new(accesses: &[Access]) -> Self {
        let intervals = || {
            let mut last = HashMap::new();
            let possible = accesses.iter().enumerate().filter_map(move |(now, access)| {
                let before = last.insert(access.object, now)?;
                Some(Interval { cost: access.weight * (now - before) as u64, bytes: access.bytes })
            });
            possible.collect::<Vec<_>>()
        };
        let (mut by_object, mut by_byte) = (intervals(), intervals());
        by_object.sort_unstable_by_key(|interval| interval.cost);
        by_byte.sort_unstable_by(|a, b| {
            (u128::from(a.cost) * u128::from(b.bytes)).cmp(&(u128::from(b.cost) * u128::from(a.bytes)))
        });
        let bytes = accesses.iter().map(|access| access.bytes).sum();
        Bounds { requests: accesses.len() as u64, bytes, by_object, by_byte }
    }

    /// Highest object hit ratio that any cache of this capacity could have.
    pub(crate) fn objects(&self, capacity: u64) -> f64 {
        self.fill(&self.by_object, capacity, |_| 1.0) / self.requests as f64
    }

    /// Highest byte hit ratio that any cache of this capacity could have; another cache than that of `objects`.
    pub(crate) fn bytes(&self, capacity: u64) -> f64 {
        self.fill(&self.by_byte, capacity, |interval| interval.bytes as f64) / self.bytes as f64
    }

    fn fill(&self, intervals: &[Interval], capacity: u64, worth: impl Fn(&Interval) -> f64) -> f64 {
        let mut left = u128::from(capacity) * u128::from(self.requests);
        let mut sum = 0.0;
        for interval in intervals {
            let cost = u128::from(interval.cost);
            if cost > left {
                return sum + worth(interval) * (left as f64 / interval.cost as f64);
            }
            left -= cost;
            sum += worth(interval);
        }
        sum
    }
}

/// The clairvoyant policy for objects of one weight: what is asked for last, or never again, goes; a newcomer may be
/// that itself. Belady, *A Study of Replacement Algorithms for a Virtual-Storage Computer*, IBM Systems Journal 1966.
pub(crate) struct Belady;

impl Belady {
    /// Highest object hit ratio that a cache for so many objects can have; weights and bytes are not looked at.
    pub(crate) fn objects(accesses: &[Access], objects_max: usize) -> f64 {
        let mut next_of = vec![usize::MAX; accesses.len()];
        let mut later = HashMap::new();
        for (now, access) in accesses.iter().enumerate().rev() {
            next_of[now] = later.insert(access.object, now).unwrap_or(usize::MAX);
        }
        // Held objects by their next request; those that have none are not held.
        let mut held = BTreeSet::new();
        let mut hits = 0;
        for (now, next) in next_of.into_iter().enumerate() {
            hits += usize::from(held.remove(&now));
            if next != usize::MAX {
                held.insert(next);
                if held.len() > objects_max {
                    held.pop_last();
                }
            }
        }
        hits as f64 / accesses.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accesses(sequence: &[(u64, u64)]) -> Vec<Access> {
        sequence.iter().map(|&(object, bytes)| Access { object, bytes, weight: bytes }).collect()
    }

    #[test]
    fn belady_keeps_what_is_asked_for_next() {
        let sequence = accesses(&[1, 2, 3, 1, 2, 3, 1, 2, 3].map(|object| (object, 1)));
        assert_eq!(Belady::objects(&sequence, 0), 0.0);
        assert_eq!(Belady::objects(&sequence, 1), 2.0 / 9.0);
        assert_eq!(Belady::objects(&sequence, 3), 6.0 / 9.0);
    }

    #[test]
    fn a_bound_takes_the_cheapest_hits_and_a_part_of_the_last() {
        // Cost 10 * 2, 1 * 2 and, for the last, 10 * 1.
        let bounds = Bounds::new(&accesses(&[(1, 10), (2, 1), (1, 10), (2, 1), (3, 10), (3, 10)]));
        // 6 requests and a capacity of 2 give 12: the small object and the one that comes at once.
        assert_eq!(bounds.objects(2), 2.0 / 6.0);
        assert_eq!(bounds.objects(1), (1.0 + 4.0 / 10.0) / 6.0);
        assert_eq!(bounds.objects(1000), 3.0 / 6.0);
        // By bytes, what comes at once is the cheapest, then both others alike.
        assert_eq!(bounds.bytes(1), 6.0 / 42.0);
        assert_eq!(bounds.bytes(1000), 21.0 / 42.0);
    }
}
