//! Log-linear buckets of microseconds.
//!
//! Each power of two is cut into four equal buckets, so a bucket's bounds differ by at most 25 %. Bounds are inclusive
//! above, as Prometheus wants them: `(2^o + s·2^(o-2), 2^o + (s+1)·2^(o-2)]` for octave `o` and quarter `s`. Below 4 µs
//! there is one bucket per µs. Everything over 2^27 µs (134 s) shares the last bucket.

use crate::bytes::{Reader, write_number};
use crate::report::Damaged;

/// Octaves 2 to 26 in quarters, the four single µs below, and one for the rest.
pub const BUCKETS: usize = 105;
/// The bucket of what is longer than all others hold.
pub const OVERFLOW: usize = BUCKETS - 1;

/// The bucket of a time.
pub fn bucket_of(us: u64) -> usize {
    // Shifted by one so that a power of two is the last value of its bucket, not the first of the next.
    let shifted = us.saturating_sub(1);
    if shifted < 4 {
        return shifted as usize;
    }
    let octave = 63 - shifted.leading_zeros() as usize;
    let quarter = (shifted >> (octave - 2)) as usize & 3;
    ((octave - 1) * 4 + quarter).min(OVERFLOW)
}

/// The longest time in a bucket, in µs; of the last one, where the one before ends and a quarter of an octave.
pub fn upper_bound(index: usize) -> u64 {
    if index < 4 {
        return index as u64 + 1;
    }
    let (octave, quarter) = (index / 4 + 1, index % 4);
    (5 + quarter as u64) << (octave - 2)
}

/// Counts of the buckets that have any, by bucket: a cell's times lie in a dozen of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(Vec<(u8, u64)>);

impl Histogram {
    /// From the counts of all buckets.
    pub fn of(counts: &[u32; BUCKETS]) -> Self {
        let found = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        Histogram(found.map(|(bucket, count)| (bucket as u8, u64::from(*count))).collect())
    }

    /// Adds to a bucket; what is beyond the last one counts there.
    pub fn add(&mut self, bucket: usize, count: u64) {
        let bucket = bucket.min(OVERFLOW) as u8;
        match self.0.binary_search_by_key(&bucket, |(known, _)| *known) {
            Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(count),
            Err(at) => self.0.insert(at, (bucket, count)),
        }
    }

    /// Adds what another one has.
    pub fn merge(&mut self, other: &Histogram) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        other.0.iter().for_each(|(bucket, count)| self.add(usize::from(*bucket), *count));
    }

    /// How many times it holds.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Times of at most so many µs, which is the upper bound of a bucket.
    pub fn count_up_to_us(&self, us: u64) -> u64 {
        let last = bucket_of(us) as u8;
        let within = self.0.iter().take_while(|(bucket, _)| *bucket <= last);
        within.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The time that `per_mille` of all are at or below, as the upper bound of its bucket, in µs; `None` without any.
    pub fn quantile_us(&self, per_mille: u64) -> Option<u64> {
        let rank = (u128::from(self.count()) * u128::from(per_mille)).div_ceil(1000).max(1) as u64;
        let mut seen = 0u64;
        let reaches = |(_, count): &&(u8, u64)| {
            seen = seen.saturating_add(*count);
            seen >= rank
        };
        self.0.iter().find(reaches).map(|(bucket, _)| upper_bound(usize::from(*bucket)))
    }

    /// Appends it to bytes; [`Histogram::read`] reads it back.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_number(out, self.0.len() as u64);
        let mut before = 0;
        for (bucket, count) in &self.0 {
            out.push(bucket - before);
            write_number(out, *count);
            before = *bucket;
        }
    }

    /// Adds what [`Histogram::write`] has written, without a histogram in between.
    ///
    /// # Errors
    /// It is no histogram; what was read before that is added.
    pub fn merge_from(&mut self, reader: &mut Reader<'_>) -> Result<(), Damaged> {
        let (count, mut bucket) = (reader.count(2)?, 0u8);
        for _ in 0..count {
            bucket = bucket.checked_add(reader.byte()?).ok_or(WRONG)?;
            self.add(usize::from(bucket), reader.number()?);
        }
        Ok(())
    }

    /// Reads what [`Histogram::write`] has written.
    ///
    /// # Errors
    /// It is no histogram.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = reader.count(2)?;
        let (mut found, mut bucket) = (Vec::with_capacity(count.min(BUCKETS)), 0u8);
        for index in 0..count {
            let gap = reader.byte()?;
            bucket = bucket.checked_add(gap).filter(|bucket| usize::from(*bucket) < BUCKETS).ok_or(WRONG)?;
            if gap == 0 && index > 0 {
                return Err(WRONG);
            }
            found.push((bucket, reader.number()?));
        }
        Ok(Histogram(found))
    }
}

const WRONG: Damaged = Damaged("has buckets that do not ascend");

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
    fn quantiles_are_upper_bounds_of_their_bucket_however_it_was_put_together() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        assert_eq!(low.quantile_us(500), None);
        (1..=50).for_each(|us| low.add(bucket_of(us), 1));
        (51..=100).for_each(|us| high.add(bucket_of(us), 1));
        high.merge(&low);
        assert_eq!(high.count(), 100);
        assert_eq!(high.quantile_us(500), Some(56));
        assert_eq!(high.quantile_us(1000), Some(112));
        let (mut merged, mut bytes) = (low.clone(), Vec::new());
        merged.merge(&high);
        high.write(&mut bytes);
        low.merge_from(&mut Reader(&bytes)).unwrap();
        assert_eq!(low, merged);
    }
}
