//! What an origin's owner allows it to be asked: so many requests in any second and so many at a time, over all nodes together.
//!
//! ```text
//! budget ─┬─ reserve: a floor for each node, of which no word of control is needed
//!         └─ the rest: leased out by demand ([`lease`])          floor + lease = what a node's gate allows ([`gate`])
//! ```
//!
//! Who comes first when it is short is [`Class`]'s to say. Pure: the edge holds gates and waits, control keeps the table of
//! leases in a cell of the journal.

pub mod class;
pub mod gate;
pub mod lease;
#[cfg(test)]
mod simulation;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use class::{Class, Content};

use crate::settings::{Bound, bound};

/// A part of a budget, or all of it. Whole numbers: of nodes that may begin one request each five seconds, all may begin theirs
/// in the same second, so a share below one is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Amount {
    /// Requests that may begin in any second.
    pub requests_per_second: u32,
    /// Requests that may go on at a time.
    pub in_flight: u32,
}

/// A budget as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BudgetPolicy {
    /// The site that it is for.
    pub site: Box<str>,
    /// What one origin of the site may be asked, by all nodes together.
    pub total: Amount,
    /// How long a request may wait for its turn.
    pub queue: Duration,
    /// How long a visitor waits for a newer answer where there is a stale one that may be served.
    pub stale_deadline: Duration,
    /// The share of the budget that is given to nodes for good, in per cent.
    pub reserve_percent: u32,
    /// How many nodes the reserve is for.
    pub nodes: u32,
    /// How long what is in flight may go on above what a node is allowed; then the newest of it is ended.
    pub grace: Duration,
}

/// Values of `budget`: default, least and most, each with its reason.
pub mod bounds {
    use super::*;

    /// More than any origin behind a cache is asked. Stands for "no limit" where the key is absent.
    pub const REQUESTS_PER_SECOND: Bound<u32> = bound(1_000_000, 1, 1_000_000);
    /// As above.
    pub const IN_FLIGHT: Bound<u32> = bound(1_000_000, 1, 1_000_000);
    /// Long enough for a burst to pass; visitors leave after about 3 s.
    pub const QUEUE: Bound<Duration> = bound(Duration::from_secs(2), Duration::ZERO, Duration::from_secs(60));
    /// What visitors hardly notice.
    pub const STALE_DEADLINE: Bound<Duration> =
        bound(Duration::from_millis(500), Duration::ZERO, Duration::from_secs(60));
    /// In per cent: enough to go on when cut off, and little that lies idle otherwise.
    pub const RESERVE: Bound<u32> = bound(20, 0, 100);
    /// A small cluster.
    pub const NODES: Bound<u32> = bound(8, 1, 4_096);
    /// Longer than nearly all fetches.
    pub const GRACE: Bound<Duration> =
        bound(Duration::from_secs(60), Duration::from_secs(1), Duration::from_secs(3600));
}

impl Amount {
    /// The most there is.
    pub const MAX: Amount =
        Amount { requests_per_second: bounds::REQUESTS_PER_SECOND.max, in_flight: bounds::IN_FLIGHT.max };

    /// Of each, `change` of both.
    pub fn with(self, other: Amount, change: impl Fn(u32, u32) -> u32) -> Amount {
        Amount {
            requests_per_second: change(self.requests_per_second, other.requests_per_second),
            in_flight: change(self.in_flight, other.in_flight),
        }
    }

    /// Both together.
    pub fn plus(self, other: Amount) -> Amount {
        self.with(other, u32::saturating_add)
    }

    /// What is left; nothing below nothing.
    pub fn minus(self, other: Amount) -> Amount {
        self.with(other, u32::saturating_sub)
    }

    /// The smaller of each.
    pub fn min(self, other: Amount) -> Amount {
        self.with(other, u32::min)
    }

    /// The larger of each.
    pub fn max(self, other: Amount) -> Amount {
        self.with(other, u32::max)
    }

    /// Whether neither is more than the other's.
    pub fn is_within(self, other: Amount) -> bool {
        self.min(other) == self
    }
}

impl BudgetPolicy {
    /// What each node may use without asking: its share of the reserve, rounded down. 0 is possible, and then a node that is cut
    /// off fetches nothing.
    pub fn floor(&self) -> Amount {
        let share = |of: u32| {
            let share = u64::from(of) * u64::from(self.reserve_percent) / 100 / u64::from(self.nodes.max(1));
            u32::try_from(share).unwrap_or(u32::MAX)
        };
        Amount {
            requests_per_second: share(self.total.requests_per_second),
            in_flight: share(self.total.in_flight),
        }
    }

    /// What is leased out: all but the floors.
    pub fn leasable(&self) -> Amount {
        self.total.with(self.floor(), |total, floor| total - floor.saturating_mul(self.nodes))
    }

    /// By which nodes and controls name the budget of one origin: the site and the origin's URL.
    pub fn id(&self, origin: &str) -> String {
        format!("{} {origin}", self.site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(requests_per_second: u32, in_flight: u32, reserve_percent: u32, nodes: u32) -> BudgetPolicy {
        BudgetPolicy {
            site: "shop".into(),
            total: Amount { requests_per_second, in_flight },
            queue: bounds::QUEUE.default,
            stale_deadline: bounds::STALE_DEADLINE.default,
            reserve_percent,
            nodes,
            grace: bounds::GRACE.default,
        }
    }

    #[test]
    fn floors_and_leases_are_together_the_budget_and_no_more() {
        let cases = [
            (200, 50, 20, 8, (5, 1), (160, 42)),
            (200, 50, 0, 8, (0, 0), (200, 50)),
            (5, 5, 20, 8, (0, 0), (5, 5)),
            (64, 64, 100, 8, (8, 8), (0, 0)),
            (1_000_000, 1, 20, 1, (200_000, 0), (800_000, 1)),
        ];
        for (rate, in_flight, reserve, nodes, floor, leasable) in cases {
            let policy = policy(rate, in_flight, reserve, nodes);
            let pair = |amount: Amount| (amount.requests_per_second, amount.in_flight);
            assert_eq!(pair(policy.floor()), floor);
            assert_eq!(pair(policy.leasable()), leasable);
        }
    }
}
