//! What has been counted already: for each life of a node's program the newest sequence number, and which of those below it.

use std::collections::HashMap;

/// Numbers below the newest one of which is known whether they have come. Nodes keep a minute's, two each second at most; other
/// controls ten minutes'. What is older counts as come.
const WINDOW: u64 = 2_048;
const WORDS: usize = (WINDOW / 64) as usize;

/// The numbers of one life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    newest: u64,
    /// A bit for each number in the window, at the place of its remainder.
    bits: Box<[u64; WORDS]>,
    /// What the node says that it could not deliver.
    pub(super) lost: u64,
    /// When something came last, in s since 1970.
    pub(super) at: i64,
}

impl Default for Seen {
    fn default() -> Self {
        Seen { newest: 0, bits: Box::new([0; WORDS]), lost: 0, at: 0 }
    }
}

impl Seen {
    /// Whether this number has not come before; from now on it has.
    pub(super) fn is_new(&mut self, sequence: u64) -> bool {
        if sequence > self.newest {
            let gone = (sequence - self.newest).min(WINDOW);
            // Places of numbers that have left the window are those of numbers that have not come.
            (0..gone).for_each(|ahead| self.set(sequence - ahead, false));
            self.newest = sequence;
        } else if self.newest - sequence >= WINDOW || self.get(sequence) {
            return false;
        }
        self.set(sequence, true);
        true
    }

    fn get(&self, sequence: u64) -> bool {
        let place = sequence % WINDOW;
        self.bits[(place / 64) as usize] >> (place % 64) & 1 == 1
    }

    fn set(&mut self, sequence: u64, has_come: bool) {
        let place = sequence % WINDOW;
        let word = &mut self.bits[(place / 64) as usize];
        *word = *word & !(1 << (place % 64)) | u64::from(has_come) << (place % 64);
    }

    /// As it lies in the database.
    pub(super) fn write(&self) -> Vec<u8> {
        std::iter::once(&self.newest).chain(self.bits.iter()).flat_map(|word| word.to_le_bytes()).collect()
    }

    /// From the database; what cannot be read knows nothing.
    pub(super) fn read(bytes: &[u8], lost: u64, at: i64) -> Self {
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let newest = words.next().unwrap_or_default();
        let mut bits = Box::new([0; WORDS]);
        bits.iter_mut().zip(words).for_each(|(word, read)| *word = read);
        Seen { newest, bits, lost, at }
    }
}

/// All lives that are remembered, by node and epoch.
pub(super) type Lives = HashMap<(String, u64), Seen>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once_in_whatever_order_they_come() {
        let mut seen = Seen::default();
        for (sequence, is_new) in [(1, true), (3, true), (2, true), (2, false), (3, false), (1, false)] {
            assert_eq!(seen.is_new(sequence), is_new, "{sequence}");
        }
        assert!(seen.is_new(WINDOW + 3), "far ahead");
        assert!(!seen.is_new(3), "at the window's end, and known");
        assert!(!seen.is_new(2), "too old to know");
        assert!(seen.is_new(4) && !seen.is_new(4), "in the window, and never come");
        let read = Seen::read(&seen.write(), 0, 0);
        assert_eq!(read, seen);
        assert!(seen.is_new(100 * WINDOW) && seen.is_new(100 * WINDOW - 1) && !seen.is_new(WINDOW + 3));
    }
}
