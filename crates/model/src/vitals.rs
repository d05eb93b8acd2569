//! How a node is, in numbers that a roll-out is judged by ([`crate::rollout`]). The edge counts them, its reports carry them.

use serde::{Deserialize, Serialize};

/// Classes of latency: under 1, 2, 4 … 32,768 ms, and longer.
pub const LATENCY_CLASSES: usize = 17;

/// What a node has counted: all but the memory only grows, since `since_ms`. Two reports make a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// When counting began, in ms since 1970: start of the program.
    pub since_ms: i64,
    /// Requests answered.
    pub requests: u64,
    /// Of these with a status of 500 to 599.
    pub errors: u64,
    /// Of these answered from the cache.
    pub hits: u64,
    /// Of the hits those of stored responses that set a cookie, or that were fetched by a request with Authorization: what
    /// one visitor got, given to another. Right for some sites, whose origin or rule says so; more of them than before is
    /// how personal data would show. (Cookie in a request says nothing: hardly any request is without.)
    #[serde(default)]
    pub personal_hits: u64,
    /// Requests by how long the answer's head took, in powers of two of a millisecond: [`LATENCY_CLASSES`].
    pub latency: [u64; LATENCY_CLASSES],
    /// Bytes of memory that the process has now (resident), beside what it caches in memory.
    pub memory_bytes: u64,
}

impl Vitals {
    /// The class of a latency: index into [`Vitals::latency`].
    ///
    /// ```
    /// assert_eq!([0, 1, 3, 4, 32_767, 32_768, u64::MAX].map(model::vitals::Vitals::class), [0, 1, 2, 3, 15, 16, 16]);
    /// ```
    pub fn class(ms: u64) -> usize {
        (u64::BITS - ms.leading_zeros()).min(LATENCY_CLASSES as u32 - 1) as usize
    }

    /// What was counted after `earlier`; all of it when counting has begun anew since. Memory is as it is now.
    pub fn since(&self, earlier: &Vitals) -> Vitals {
        if self.since_ms != earlier.since_ms {
            return *self;
        }
        let mut latency = self.latency;
        latency.iter_mut().zip(earlier.latency).for_each(|(now, before)| *now = now.saturating_sub(before));
        Vitals {
            since_ms: self.since_ms,
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            hits: self.hits.saturating_sub(earlier.hits),
            personal_hits: self.personal_hits.saturating_sub(earlier.personal_hits),
            latency,
            memory_bytes: self.memory_bytes,
        }
    }

    /// Adds what another node has counted in the same time.
    pub fn add(&mut self, other: &Vitals) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.hits = self.hits.saturating_add(other.hits);
        self.personal_hits = self.personal_hits.saturating_add(other.personal_hits);
        self.latency.iter_mut().zip(other.latency).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
    }

    /// The latency in ms that `percent` of the requests stay under, taken as even within its class; `None` without requests.
    pub fn latency_ms(&self, percent: f64) -> Option<f64> {
        let all: u64 = self.latency.iter().sum();
        let mut left = all as f64 * percent / 100.0;
        for (class, count) in
            self.latency.iter().map(|count| *count as f64).enumerate().filter(|(_, count)| *count > 0.0)
        {
            if left <= count {
                let (from, to) =
                    (if class == 0 { 0.0 } else { 2f64.powi(class as i32 - 1) }, 2f64.powi(class as i32));
                return Some(from + (to - from) * left / count);
            }
            left -= count;
        }
        None
    }
}
