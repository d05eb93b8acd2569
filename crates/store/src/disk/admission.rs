//! What may be written: a budget of bytes per day for each disk, and a memory of what was refused.
//!
//! ```text
//! tokens   full ┬──────── half ────────┬──── none
//!               │ everything           │ what is small, or asked for a second time │ nothing
//! ```
//!
//! Flash wears out by writing, and most objects of the web are asked for once. So a disk has a budget, refilled all the
//! time, that lets a new cache fill at full speed (the burst is one whole disk) and then holds writes to what the operator
//! has allowed. Second-hit admission by a ghost list serves better than admitting all where the disk is small against the
//! traffic, and worse where it is large (`bench/policy.sh`); a budget decides that by itself.

use std::time::Duration;

use crate::ghost::Ghost;

/// Bodies up to this are written at first sight while there is any budget: they are asked for most and cost least.
pub(crate) const SMALL_BYTES: u64 = 4096;

/// Refused keys that are remembered: 4 bytes each.
const REMEMBERED: u32 = 1 << 20;

/// What part of the bytes filled may be written again to keep what is in use: two tenths, which keeps the write amplification
/// below 1.3 with footers and index snapshots.
const REWRITE_TENTHS: u64 = 2;

/// The budget of one disk.
pub(crate) struct Admission {
    ghost: Ghost,
    tokens: f64,
    burst: f64,
    per_second: f64,
    refilled: Duration,
    /// What rewriting may still take; grows with what is filled.
    rewrite_tokens: u64,
    rewrite_tokens_max: u64,
}

/// Why something is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// It was asked for once, and the budget is low. Remembered for the second time.
    FirstSight,
    /// The budget is used up.
    OverBudget,
}

impl Admission {
    /// - `disk_bytes`: the disk's size, which is also the burst.
    /// - `writes_per_day`: how many times that may be written per day.
    pub(crate) fn new(disk_bytes: u64, writes_per_day: u32, now: Duration) -> Self {
        let burst = disk_bytes as f64;
        let mut ghost = Ghost::new(1);
        ghost.fit(REMEMBERED);
        Admission {
            ghost,
            tokens: burst,
            burst,
            per_second: burst * f64::from(writes_per_day) / 86_400.0,
            refilled: now,
            rewrite_tokens: 0,
            rewrite_tokens_max: disk_bytes / 10,
        }
    }

    /// Whether a value of so many bytes may be written now (monotonic).
    pub(crate) fn admit(&mut self, key: u128, bytes: u64, now: Duration) -> Result<(), Unwanted> {
        let passed = now.saturating_sub(self.refilled).as_secs_f64();
        self.refilled = self.refilled.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        if self.tokens <= 0.0 {
            return Err(Unwanted::OverBudget);
        }
        if self.tokens < self.burst / 2.0 && bytes > SMALL_BYTES && self.ghost.recall(key).is_none() {
            self.ghost.remember(key, 0);
            return Err(Unwanted::FirstSight);
        }
        Ok(())
    }

    /// Takes note of bytes that were written for a fill.
    pub(crate) fn filled(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
        self.rewrite_tokens =
            (self.rewrite_tokens + bytes * REWRITE_TENTHS / 10).min(self.rewrite_tokens_max);
    }

    /// Whether so many bytes may be copied forward; takes them if so.
    pub(crate) fn rewrite(&mut self, bytes: u64) -> bool {
        let may = bytes <= self.rewrite_tokens && self.tokens > 0.0;
        if may {
            self.rewrite_tokens -= bytes;
            self.tokens -= bytes as f64;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots_test_key as key;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_new_disk_takes_everything_and_then_what_comes_twice_or_is_small() {
        let mut admission = Admission::new(1 << 30, 1, Duration::ZERO);
        assert_eq!(admission.admit(key(1), 100_000, Duration::ZERO), Ok(()));
        admission.filled(700 << 20);
        assert_eq!(admission.admit(key(2), 100_000, Duration::ZERO), Err(Unwanted::FirstSight));
        assert_eq!(admission.admit(key(2), 100_000, Duration::ZERO), Ok(()));
        assert_eq!(admission.admit(key(3), 4000, Duration::ZERO), Ok(()));
        admission.filled(400 << 20);
        assert_eq!(admission.admit(key(3), 4000, Duration::ZERO), Err(Unwanted::OverBudget));
    }

    #[test]
    fn the_budget_comes_back_with_time_up_to_one_disk() {
        let mut admission = Admission::new(1 << 30, 1, Duration::ZERO);
        admission.filled(1 << 30);
        assert_eq!(admission.admit(key(1), 10, Duration::ZERO), Err(Unwanted::OverBudget));
        assert_eq!(admission.admit(key(1), 100_000, HOUR), Err(Unwanted::FirstSight));
        assert_eq!(admission.admit(key(2), 100_000, 13 * HOUR), Ok(()));
        // A clock that goes back takes nothing away.
        assert_eq!(admission.admit(key(3), 100_000, HOUR), Ok(()));
    }

    #[test]
    fn rewriting_keeps_to_its_part_of_what_is_filled() {
        let mut admission = Admission::new(1 << 30, 1, Duration::ZERO);
        assert!(!admission.rewrite(1));
        admission.filled(10_000);
        assert!(admission.rewrite(1500) && !admission.rewrite(501) && admission.rewrite(500));
    }
}
