//! A log-linear histogram of microseconds with one writer.
//!
//! Each power of two is cut into four equal buckets, so a bucket's bounds differ by at most 25 %. Bounds are inclusive
//! above, as Prometheus wants them: `(2^o + s·2^(o-2), 2^o + (s+1)·2^(o-2)]` for octave `o` and quarter `s`. Below 4 µs
//! there is one bucket per µs. Everything over 2^27 µs (134 s) shares the last bucket.

use crate::cells::Counter;

/// Octaves 2 to 26 in quarters, the four single µs below, and one for the rest.
pub(crate) const BUCKETS: usize = 105;
const OVERFLOW: usize = BUCKETS - 1;

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

fn bucket_of(us: u64) -> usize {
    // Shifted by one so that a power of two is the last value of its bucket, not the first of the next.
    let shifted = us.saturating_sub(1);
    if shifted < 4 {
        return shifted as usize;
    }
    let octave = 63 - shifted.leading_zeros() as usize;
    let quarter = (shifted >> (octave - 2)) as usize & 3;
    ((octave - 1) * 4 + quarter).min(OVERFLOW)
}

fn upper_bound(index: usize) -> u64 {
    if index < 4 {
        return index as u64 + 1;
    }
    let (octave, quarter) = (index / 4 + 1, index % 4);
    (5 + quarter as u64) << (octave - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_the_bounds_of_its_bucket() {
        let near_powers = (0..27).flat_map(|power| [1u64 << power, (1 << power) + 1, (1 << power) * 5 / 4]);
        for us in (1..5000).chain(near_powers) {
            let index = bucket_of(us);
            if index == OVERFLOW {
                assert!(us > upper_bound(OVERFLOW - 1), "{us}");
                continue;
            }
            assert!(us <= upper_bound(index), "{us} over bucket {index}");
            assert!(index == 0 || us > upper_bound(index - 1), "{us} under bucket {index}");
        }
    }

    #[test]
    fn the_largest_values_share_the_last_bucket() {
        assert_eq!(bucket_of(1 << 27), OVERFLOW - 1);
        assert_eq!(bucket_of((1 << 27) + 1), OVERFLOW);
        assert_eq!(bucket_of(u64::MAX), OVERFLOW);
    }

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
