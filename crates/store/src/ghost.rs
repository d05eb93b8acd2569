//! What was evicted lately, by fingerprint: so that an object that comes back soon is known for one.
//!
//! Sets of 16 cells of 4 bytes; a set is a short queue, newest first, so that the oldest falls out. A cell is 26 bits of
//! the key and 6 bits of frequency. Two keys are mistaken for one another with a probability of about
//! 16 · sets / 2^26 (1 in 60 at a million cells), which makes a newcomer look more popular than it is and nothing worse.

/// Cells per set.
const WAYS: usize = 16;

/// Bits of a fingerprint.
const PRINT_BITS: u32 = 26;

/// Highest frequency that is remembered.
const FREQUENCY_MAX: u8 = 62;

/// Fingerprints of a number of evicted entries that follows the number of residents.
pub(crate) struct Ghost {
    /// Cells wanted per four residents.
    cells_per_four: usize,
    sets: Vec<[u32; WAYS]>,
}

impl Ghost {
    /// A ghost that remembers about `residents_times` as many keys as there are residents.
    pub(crate) fn new(residents_times: usize) -> Self {
        Ghost { cells_per_four: residents_times * 4, sets: vec![[0; WAYS]; 1] }
    }

    /// Adapts the size to the number of residents: rebuilt when an eighth too small or half too large.
    pub(crate) fn fit(&mut self, residents: u32) {
        let wanted = (residents as usize * self.cells_per_four / 4).max(WAYS);
        let cells = self.sets.len() * WAYS;
        if cells * 8 >= wanted * 7 && cells <= wanted * 3 / 2 + WAYS {
            return;
        }
        let old = std::mem::replace(&mut self.sets, vec![[0; WAYS]; wanted.div_ceil(WAYS)]);
        for cell in old.iter().flat_map(|set| set.iter().rev()).filter(|cell| **cell != 0) {
            self.push(*cell);
        }
    }

    /// Remembers an evicted key, as the newest.
    pub(crate) fn remember(&mut self, key: u128, frequency: u8) {
        // A cell is never 0 because the frequency is stored plus one.
        self.push((print(key) << 6) | (u32::from(frequency.min(FREQUENCY_MAX)) + 1));
    }

    /// Takes a key out and returns its frequency, when it is known.
    pub(crate) fn recall(&mut self, key: u128) -> Option<u8> {
        let print = print(key);
        let set = self.set_of(print);
        let cells = &mut self.sets[set];
        let found = cells.iter().position(|cell| *cell != 0 && cell >> 6 == print)?;
        let frequency = (cells[found] & 63) as u8 - 1;
        cells[found..].rotate_left(1);
        cells[WAYS - 1] = 0;
        Some(frequency)
    }

    /// Bytes allocated.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.sets.capacity() * size_of::<[u32; WAYS]>()
    }

    fn push(&mut self, cell: u32) {
        let set = self.set_of(cell >> 6);
        let cells = &mut self.sets[set];
        cells.rotate_right(1);
        cells[0] = cell;
    }

    fn set_of(&self, print: u32) -> usize {
        // Ranges of fingerprints rather than a remainder: any number of sets, and a rebuild keeps neighbours together.
        ((u64::from(print) * self.sets.len() as u64) >> PRINT_BITS) as usize
    }
}

/// The key's highest bits: neither the shard's nor the table's.
fn print(key: u128) -> u32 {
    (key >> (128 - PRINT_BITS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> u128 {
        crate::slots_test_key(number)
    }

    #[test]
    fn an_evicted_key_is_known_once() {
        let mut ghost = Ghost::new(2);
        ghost.remember(key(1), 3);
        assert_eq!(ghost.recall(key(2)), None);
        assert_eq!(ghost.recall(key(1)), Some(3));
        assert_eq!(ghost.recall(key(1)), None);
    }

    #[test]
    fn about_the_newest_twice_as_many_as_residents_are_known() {
        let mut ghost = Ghost::new(2);
        ghost.fit(1000);
        (0..10_000).for_each(|number| ghost.remember(key(number), 0));
        let known = |ghost: &mut Ghost, range: std::ops::Range<u64>| {
            range.filter(|number| ghost.recall(key(*number)).is_some()).count()
        };
        assert!(known(&mut ghost, 9_000..10_000) > 950);
        let old = known(&mut ghost, 0..6_000);
        assert!(old < 60, "{old}");
    }

    #[test]
    fn size_follows_the_residents_and_memory_is_kept() {
        let mut ghost = Ghost::new(2);
        for number in 0..1500 {
            ghost.fit(number as u32);
            ghost.remember(key(number), 1);
        }
        assert!((1400..1500).all(|number| ghost.recall(key(number)) == Some(1)));
        assert!(ghost.allocated_bytes() <= 1500 * 12 + 128);
        ghost.fit(10);
        assert!(ghost.allocated_bytes() <= 256);
    }
}
