//! A log-linear histogram of microseconds with one writer: [`stats::histogram`] says how its buckets are cut.

use stats::histogram::{BUCKETS, bucket_of, upper_bound};

use crate::cells::Counter;

/// Powers of two that are shown as `le`, in µs: 32 µs to 67 s.
pub(crate) const SHOWN: std::ops::RangeInclusive<u32> = 5..=26;

/// One worker's counts. 848 bytes.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: std::array::from_fn(|_| Counter::default()), sum_us: Counter::default() }
    }
}

impl Histogram {
    /// Counts one value. Only the owner may call this.
    pub(crate) fn record(&self, us: u64) {
        self.buckets[bucket_of(us)].add(1);
        self.sum_us.add(us);
    }
}

/// The sum over workers, as read at one render.
#[derive(Debug)]
pub(crate) struct Merged {
    counts: [u64; BUCKETS],
    pub(crate) sum_us: u64,
}

impl Default for Merged {
    fn default() -> Self {
        Merged { counts: [0; BUCKETS], sum_us: 0 }
    }
}

impl Merged {
    pub(crate) fn add(&mut self, other: &Histogram) {
        for (sum, cell) in self.counts.iter_mut().zip(&other.buckets) {
            *sum = sum.wrapping_add(cell.read());
        }
        self.sum_us = self.sum_us.wrapping_add(other.sum_us.read());
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Values of at most `2^power` µs, `power` at least 3.
    pub(crate) fn count_up_to_power(&self, power: u32) -> u64 {
        self.counts[..=bucket_of(1 << power)].iter().sum()
    }

    /// The value that `per_mille` of all values are at or below, as the upper bound of its bucket, in µs; 0 without values.
    pub(crate) fn quantile_us(&self, per_mille: u64) -> u64 {
        let count = self.count();
        let rank = (u128::from(count) * u128::from(per_mille)).div_ceil(1000).max(1) as u64;
        let mut seen = 0;
        for (index, bucket) in self.counts.iter().enumerate() {
            seen += bucket;
            if seen >= rank {
                return upper_bound(index);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_count_exactly() {
        let histogram = Histogram::default();
        for us in [0, 1, 31, 32, 33, 64, 65] {
            histogram.record(us);
        }
        let mut merged = Merged::default();
        merged.add(&histogram);
        assert_eq!(merged.count_up_to_power(5), 4);
        assert_eq!(merged.count_up_to_power(6), 6);
        assert_eq!(merged.count(), 7);
        assert_eq!(merged.sum_us, 226);
    }

    #[test]
    fn quantiles_are_upper_bounds_of_their_bucket() {
        let mut merged = Merged::default();
        assert_eq!(merged.quantile_us(500), 0);
        let histogram = Histogram::default();
        (1..=100).for_each(|us| histogram.record(us));
        merged.add(&histogram);
        assert_eq!(merged.quantile_us(500), 56);
        assert_eq!(merged.quantile_us(1000), 112);
    }
}
