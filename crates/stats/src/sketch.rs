//! What is asked for most, without remembering all that is asked for: SpaceSaving (Metwally, Agrawal, El Abbadi: *Efficient
//! Computation of Frequent and Top-k Elements in Data Streams*, 2005).
//!
//! A [`Sketch`] remembers so many URLs. One that is new when there is no room takes the place of the one with the lowest count, and
//! takes over that count: so nothing that is asked for often is missed, and each count is too high by a known number at most.
//! A [`TopList`] is what is passed on of it; adding lists keeps both bounds.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use semantics::Why;

/// Bytes of a URL that are remembered; what is longer is cut, and still told apart from others by its hash.
pub const URL_BYTES_MAX: usize = 512;

/// URLs that are counted as they come, in bounded memory.
#[derive(Debug)]
pub struct Sketch {
    room: usize,
    /// A heap by count, the lowest first.
    heap: Vec<Counted>,
    /// Where in `heap` each is.
    places: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
}

#[derive(Debug)]
struct Counted {
    hash: u64,
    count: u64,
    over: u64,
    other: u64,
    of: Of,
    url: Vec<u8>,
}

/// What a URL is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Of {
    /// The site, as in [`crate::Key`].
    pub site: u32,
    /// Why it was not answered from the cache, where that is what is counted.
    pub why: Option<Why>,
}

/// A hash is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl Sketch {
    /// An empty one for so many URLs, which is at least 1. Takes memory as they come.
    pub fn new(room: usize) -> Self {
        Sketch { room: room.max(1), heap: Vec::new(), places: HashMap::default() }
    }

    /// Counts a URL: `weight` by what the list is ordered by, `other` beside it. `hash` tells URLs apart, as far as they are counted
    /// apart; `url` is copied where it is not known yet. A weight of 0 is not counted.
    pub fn count(&mut self, hash: u64, of: Of, url: &[u8], weight: u64, other: u64) {
        if weight == 0 {
            return;
        }
        let place = match self.places.get(&hash) {
            Some(place) => *place as usize,
            None if self.heap.len() < self.room => {
                self.heap.push(Counted { hash, count: 0, over: 0, other: 0, of, url: cut(url).to_vec() });
                let place = self.heap.len() - 1;
                self.places.insert(hash, place as u32);
                // Its count is 0, which nothing is below.
                self.rise(place)
            }
            None => {
                let lowest = &mut self.heap[0];
                self.places.remove(&lowest.hash);
                lowest.url.clear();
                lowest.url.extend_from_slice(cut(url));
                (lowest.hash, lowest.of, lowest.over, lowest.other) = (hash, of, lowest.count, 0);
                self.places.insert(hash, 0);
                0
            }
        };
        let counted = &mut self.heap[place];
        counted.count = counted.count.saturating_add(weight);
        counted.other = counted.other.saturating_add(other);
        self.sink(place);
    }

    /// Whether nothing has been counted.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            let Some(lower) =
                (left..self.heap.len().min(left + 2)).min_by_key(|child| self.heap[*child].count)
            else {
                return;
            };
            if self.heap[lower].count >= self.heap[place].count {
                return;
            }
            self.swap(place, lower);
            place = lower;
        }
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 && self.heap[(place - 1) / 2].count > self.heap[place].count {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
        place
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for place in [one, other] {
            self.places.insert(self.heap[place].hash, place as u32);
        }
    }

    /// What it has counted, as a list.
    pub fn into_list(self) -> TopList {
        let floor = if self.heap.len() < self.room { 0 } else { self.heap[0].count };
        let entry = |counted: Counted| Entry {
            of: counted.of,
            url: String::from_utf8_lossy(&counted.url).into_owned(),
            count: counted.count,
            over: counted.over,
            other: counted.other,
        };
        TopList { floor, entries: self.heap.into_iter().map(entry).collect() }
    }
}

fn cut(url: &[u8]) -> &[u8] {
    &url[..url.len().min(URL_BYTES_MAX)]
}

/// The URLs with the highest counts, and how wrong these may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopList {
    /// No URL has been counted more often than this above what the list says of it; one that is not in it, more often than this
    /// in all. 0: the list is exact but for each entry's `over`.
    pub floor: u64,
    /// In no order.
    pub entries: Vec<Entry>,
}

/// One URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is counted under.
    pub of: Of,
    /// Scheme, host, path and query; cut at [`URL_BYTES_MAX`].
    pub url: String,
    /// By what the list is ordered by.
    pub count: u64,
    /// By how much `count` may be too high.
    pub over: u64,
    /// The other one of requests and bytes, since it is in the list.
    pub other: u64,
}

impl TopList {
    /// Adds what other lists say.
    pub fn merge<'a>(&mut self, others: impl IntoIterator<Item = &'a TopList>) {
        let mut sums: HashMap<(Of, String), Entry> = HashMap::new();
        for entry in std::mem::take(&mut self.entries) {
            sums.insert((entry.of, entry.url.clone()), entry);
        }
        for other in others {
            self.floor = self.floor.saturating_add(other.floor);
            for entry in &other.entries {
                match sums.get_mut(&(entry.of, entry.url.clone())) {
                    Some(sum) => {
                        sum.count = sum.count.saturating_add(entry.count);
                        sum.over = sum.over.saturating_add(entry.over);
                        sum.other = sum.other.saturating_add(entry.other);
                    }
                    None => drop(sums.insert((entry.of, entry.url.clone()), entry.clone())),
                }
            }
        }
        self.entries = sums.into_values().collect();
    }

    /// Keeps so many, those with the highest counts, which are in order then.
    pub fn keep(&mut self, most: usize) {
        self.entries
            .sort_by(|a, b| (Reverse(a.count), &a.url, a.of.why).cmp(&(Reverse(b.count), &b.url, b.of.why)));
        if let Some(dropped) = self.entries.get(most) {
            self.floor = self.floor.saturating_add(dropped.count);
            self.entries.truncate(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OF: Of = Of { site: 1, why: None };

    fn sketch(room: usize, asked: &[u8]) -> Sketch {
        let mut sketch = Sketch::new(room);
        asked.iter().for_each(|url| sketch.count(u64::from(*url), OF, &[*url], 1, 10));
        sketch
    }

    #[test]
    fn with_room_for_all_it_is_exact() {
        let mut list = sketch(8, b"abacabad").into_list();
        list.keep(2);
        let entry = |url: &str, count, other| Entry { of: OF, url: url.into(), count, over: 0, other };
        assert_eq!(list.entries, [entry("a", 4, 40), entry("b", 2, 20)]);
        assert_eq!(list.floor, 1, "what was cut off was asked for once at most");
    }

    proptest! {
        /// However much more is asked for than it remembers, and however it is split over nodes.
        #[test]
        fn true_counts_lie_within_the_stated_bounds(
            asked in prop::collection::vec(prop::collection::vec(b'a'..=b'z', 0..200), 1..5),
            room in 1..12usize,
            kept in 1..12usize,
        ) {
            let mut lists = Vec::new();
            for part in &asked {
                let mut list = sketch(room, part).into_list();
                list.keep(kept);
                lists.push(list);
            }
            let mut sum = TopList::default();
            sum.merge(&lists);
            sum.keep(kept);
            for url in b'a'..=b'z' {
                let truth = asked.iter().flatten().filter(|asked| **asked == url).count() as u64;
                match sum.entries.iter().find(|entry| entry.url.as_bytes() == [url]) {
                    Some(entry) => prop_assert!(
                        (entry.count - entry.over..=entry.count + sum.floor).contains(&truth),
                        "{truth} of {entry:?}, floor {}", sum.floor
                    ),
                    None => prop_assert!(truth <= sum.floor, "{truth} over {}", sum.floor),
                }
            }
        }
    }
}
