//! Where each key's record is: 16 bytes of memory per object, and one or two cache lines per look-up.
//!
//! ```text
//! key ─► shard (10 bits) ─► bucket A (20 bits) or bucket B (20 other bits), 4 slots of 16 bytes in each
//!
//! slot   word 0   fingerprint 40 │ length / 16 17 │ heat 3 │ slice 1 │ in use 1 │ – 2
//!        word 1   segment 20 │ offset / 16 22 │ expiry in minutes / 1 22
//! ```
//!
//! The fingerprint is the two bucket choices themselves, 20 bits each: so a slot can be moved to its other bucket, and a
//! shard rebuilt at another size, without reading a key back from disk. Two keys share a fingerprint and a shard with a
//! probability of 2^-50; the record's own key tells them apart then, at the price of one read.
//!
//! A shard grows by a fiftieth when it is [`FULL_PERCENT`] full or an insertion finds no way: so the slots of ten million
//! objects take 17 bytes each on average, not the 16 to 32 of a table that doubles. Its buckets lie in pieces of one size,
//! which an allocator packs without holes, and which are still there when the shard grows.
//!
//! What it doesn't do: it keeps no order; eviction goes by segment. Expiry is rounded up to minutes and ends in 2^22 of
//! them after [`EPOCH_MINUTES`].

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::format::UNIT;

/// Shards: a rebuild holds one for well under a millisecond at ten million objects.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 10;

const WAYS: usize = 4;

/// Percent of the slots in use above which a shard grows. Two choices of four slots hold up to 98.
const FULL_PERCENT: usize = 97;

/// Entries that one insertion may move out of its way, eight being looked at for each.
const MOVES_MAX: usize = 64;

/// Highest heat.
pub(crate) const HEAT_MAX: u8 = 7;

/// Minutes from 1970 to 2026: where the slots' expiry begins.
const EPOCH_MINUTES: u32 = 29_453_760;

const CHOICE_BITS: u32 = 20;
const LENGTH_SHIFT: u32 = 40;
const LENGTH_MASK: u64 = (1 << 17) - 1;
const HEAT_SHIFT: u32 = 57;
const SLICE_BIT: u64 = 1 << 60;
const USED_BIT: u64 = 1 << 61;
const PRINT_MASK: u64 = (1 << 40) - 1;
const OFFSET_BITS: u32 = 22;
const EXPIRY_BITS: u32 = 22;

/// Where a record is, and what is known of it without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    /// Bytes from the segment's beginning: a multiple of 16 below 64 MiB.
    pub(crate) offset: u32,
    /// Bytes of the record: a multiple of 16 below 2 MiB.
    pub(crate) bytes: u32,
    /// Minutes since 1970.
    pub(crate) expiry: u32,
    /// Hits since it was written, up to [`HEAT_MAX`]; halved when it is copied forward.
    pub(crate) heat: u8,
    pub(crate) is_slice: bool,
}

impl Place {
    /// Whether both are the same record.
    pub(crate) fn is(&self, other: &Place) -> bool {
        (self.segment, self.offset) == (other.segment, other.offset)
    }
}

#[derive(Default)]
struct Slot([AtomicU64; 2]);

#[derive(Default)]
#[repr(align(64))]
struct Bucket([Slot; WAYS]);

const _: () = assert!(size_of::<Bucket>() == 64);

/// Buckets that lie together: 1 KiB.
const PIECE: usize = 16;

type Piece = Box<[Bucket; PIECE]>;

#[derive(Default)]
struct Shard {
    pieces: Vec<Piece>,
    len: usize,
}

/// Both words of a slot.
type Words = [u64; 2];

/// All places of a volume. Shared between threads.
pub(crate) struct Index {
    shards: Box<[RwLock<Shard>]>,
}

fn shard_of(key: u128) -> usize {
    (key >> (128 - SHARD_BITS)) as usize
}

fn print_of(key: u128) -> u64 {
    (key >> 64) as u64 & PRINT_MASK
}

fn pack(print: u64, place: &Place) -> Words {
    let length = u64::from(place.bytes / UNIT as u32) & LENGTH_MASK;
    let slice = if place.is_slice { SLICE_BIT } else { 0 };
    let expiry = place.expiry.saturating_sub(EPOCH_MINUTES).min((1 << EXPIRY_BITS) - 1);
    [
        print | length << LENGTH_SHIFT | u64::from(place.heat.min(HEAT_MAX)) << HEAT_SHIFT | slice | USED_BIT,
        u64::from(place.segment) << (OFFSET_BITS + EXPIRY_BITS)
            | u64::from(place.offset / UNIT as u32) << EXPIRY_BITS
            | u64::from(expiry),
    ]
}

fn unpack(words: Words) -> Place {
    let offset = (words[1] >> EXPIRY_BITS) & ((1 << OFFSET_BITS) - 1);
    Place {
        segment: (words[1] >> (OFFSET_BITS + EXPIRY_BITS)) as u32,
        offset: offset as u32 * UNIT as u32,
        bytes: ((words[0] >> LENGTH_SHIFT) & LENGTH_MASK) as u32 * UNIT as u32,
        expiry: (words[1] & ((1 << EXPIRY_BITS) - 1)) as u32 + EPOCH_MINUTES,
        heat: (words[0] >> HEAT_SHIFT) as u8 & HEAT_MAX,
        is_slice: words[0] & SLICE_BIT != 0,
    }
}

impl Slot {
    fn words(&self) -> Words {
        [self.0[0].load(Ordering::Relaxed), self.0[1].load(Ordering::Relaxed)]
    }

    fn set(&mut self, words: Words) {
        self.0 = words.map(AtomicU64::new);
    }

    fn is_free(&self) -> bool {
        self.0[0].load(Ordering::Relaxed) & USED_BIT == 0
    }
}

impl Shard {
    fn buckets(&self) -> usize {
        self.pieces.len() * PIECE
    }

    fn bucket(&self, bucket: usize) -> &[Slot; WAYS] {
        &self.pieces[bucket / PIECE][bucket % PIECE].0
    }

    fn bucket_mut(&mut self, bucket: usize) -> &mut [Slot; WAYS] {
        &mut self.pieces[bucket / PIECE][bucket % PIECE].0
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.pieces.iter().flat_map(|piece| piece.iter()).flat_map(|bucket| &bucket.0)
    }

    fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.pieces.iter_mut().flat_map(|piece| piece.iter_mut()).flat_map(|bucket| &mut bucket.0)
    }

    fn choices(&self, print: u64) -> [usize; 2] {
        let buckets = self.buckets() as u64;
        let low = print & ((1 << CHOICE_BITS) - 1);
        let high = print >> CHOICE_BITS;
        [low, high].map(|choice| ((choice * buckets) >> CHOICE_BITS) as usize)
    }

    /// Bucket and way of a fingerprint.
    fn find(&self, print: u64) -> Option<(usize, usize)> {
        if self.pieces.is_empty() {
            return None;
        }
        self.choices(print).into_iter().find_map(|bucket| {
            let is_it = |slot: &Slot| slot.words()[0] & (PRINT_MASK | USED_BIT) == print | USED_BIT;
            self.bucket(bucket).iter().position(is_it).map(|way| (bucket, way))
        })
    }

    /// Adds a slot whose fingerprint is not there.
    fn add(&mut self, words: Words) {
        if (self.len + 1) * 100 > self.buckets() * WAYS * FULL_PERCENT {
            self.rebuild();
        }
        let mut left = words;
        while let Err(homeless) = self.place(left) {
            left = homeless;
            self.rebuild();
        }
        self.len += 1;
    }

    /// Puts a slot into one of its buckets, moving others to theirs; gives back one that found no home.
    fn place(&mut self, mut words: Words) -> Result<(), Words> {
        let mut avoid = usize::MAX;
        for step in 0..MOVES_MAX {
            let choices = self.choices(words[0] & PRINT_MASK);
            for bucket in choices {
                if let Some(slot) = self.bucket_mut(bucket).iter_mut().find(|slot| slot.is_free()) {
                    slot.set(words);
                    return Ok(());
                }
            }
            // Who is in the way and has room in its other bucket? Nearly always one of the eight has.
            for bucket in choices {
                for way in 0..WAYS {
                    let moved = self.bucket(bucket)[way].words();
                    let [one, other] = self.choices(moved[0] & PRINT_MASK);
                    let other = if one == bucket { other } else { one };
                    if let Some(slot) = self.bucket_mut(other).iter_mut().find(|slot| slot.is_free()) {
                        slot.set(moved);
                        self.bucket_mut(bucket)[way].set(words);
                        return Ok(());
                    }
                }
            }
            // Not back to where the last one came from, and a way that differs from step to step.
            let bucket = if choices[0] == avoid { choices[1] } else { choices[0] };
            let way = (words[0] as usize ^ step) % WAYS;
            let slot = &mut self.bucket_mut(bucket)[way];
            let moved = slot.words();
            slot.set(words);
            words = moved;
            avoid = bucket;
        }
        Err(words)
    }

    /// Makes room for a fiftieth more.
    fn rebuild(&mut self) {
        let pieces = self.pieces.len();
        self.resize((pieces + pieces / 50).max(pieces + 1));
    }

    /// Makes it so many pieces, or more if need be.
    ///
    /// Buckets keep their order, so most slots find a place in what their bucket has become; only the others are looked for
    /// a place as if they were new, which is what costs when a shard is nearly full.
    fn resize(&mut self, pieces: usize) {
        let mut wanted = pieces.max(self.pieces.len());
        let used: Vec<(Words, usize)> = self
            .slots()
            .enumerate()
            .filter(|(_, slot)| !slot.is_free())
            .map(|(at, slot)| {
                let words = slot.words();
                let is_second = self.choices(words[0] & PRINT_MASK)[0] != at / WAYS;
                (words, usize::from(is_second))
            })
            .collect();
        let mut crowded = Vec::new();
        loop {
            self.pieces.reserve_exact(wanted - self.pieces.len());
            self.pieces.resize_with(wanted, Piece::default);
            self.slots_mut().for_each(|slot| slot.set([0, 0]));
            crowded.clear();
            for (words, choice) in &used {
                let bucket = self.choices(words[0] & PRINT_MASK)[*choice];
                match self.bucket_mut(bucket).iter_mut().find(|slot| slot.is_free()) {
                    Some(slot) => slot.set(*words),
                    None => crowded.push(*words),
                }
            }
            if crowded.iter().all(|words| self.place(*words).is_ok()) {
                return;
            }
            wanted += 1 + wanted / 50;
        }
    }
}

impl Index {
    pub(crate) fn new() -> Self {
        Index { shards: (0..SHARDS).map(|_| RwLock::default()).collect() }
    }

    /// Where the record of a key is, if it isn't that of another with the same fingerprint.
    pub(crate) fn get(&self, key: u128) -> Option<Place> {
        let shard = self.shards[shard_of(key)].read();
        let (bucket, way) = shard.find(print_of(key))?;
        Some(unpack(shard.bucket(bucket)[way].words()))
    }

    /// Counts a hit.
    pub(crate) fn warm(&self, key: u128) {
        let shard = self.shards[shard_of(key)].read();
        if let Some((bucket, way)) = shard.find(print_of(key)) {
            let word = &shard.bucket(bucket)[way].0[0];
            let now = word.load(Ordering::Relaxed);
            if (now >> HEAT_SHIFT) as u8 & HEAT_MAX < HEAT_MAX {
                // A hit that another one overtakes is lost: heat is a hint.
                let _ =
                    word.compare_exchange(now, now + (1 << HEAT_SHIFT), Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Puts a place in, in place of the key's former one, which is returned.
    pub(crate) fn put(&self, key: u128, place: &Place) -> Option<Place> {
        let mut shard = self.shards[shard_of(key)].write();
        let words = pack(print_of(key), place);
        match shard.find(print_of(key)) {
            Some((bucket, way)) => {
                let slot = &mut shard.bucket_mut(bucket)[way];
                let old = unpack(slot.words());
                slot.set(words);
                Some(old)
            }
            None => {
                shard.add(words);
                None
            }
        }
    }

    /// Puts a place in only where `old` still is the key's; whether it was.
    pub(crate) fn replace(&self, key: u128, old: &Place, place: &Place) -> bool {
        let mut shard = self.shards[shard_of(key)].write();
        match shard.find(print_of(key)) {
            Some((bucket, way)) if unpack(shard.bucket(bucket)[way].words()).is(old) => {
                shard.bucket_mut(bucket)[way].set(pack(print_of(key), place));
                true
            }
            _ => false,
        }
    }

    /// Takes a key out if `condition` holds for its place.
    pub(crate) fn remove_if(&self, key: u128, condition: impl FnOnce(&Place) -> bool) -> Option<Place> {
        let mut shard = self.shards[shard_of(key)].write();
        let (bucket, way) = shard.find(print_of(key))?;
        let place = unpack(shard.bucket(bucket)[way].words());
        if !condition(&place) {
            return None;
        }
        shard.bucket_mut(bucket)[way].set([0, 0]);
        shard.len -= 1;
        Some(place)
    }

    /// Takes out all whose place does not meet `keep`. Cost: a walk over everything, shard by shard.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&Place) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let mut gone = 0;
            for slot in shard.slots_mut() {
                if !slot.is_free() && !keep(&unpack(slot.words())) {
                    slot.set([0, 0]);
                    gone += 1;
                }
            }
            shard.len -= gone;
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().len as u64).sum()
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let bytes_of = |shard: &Shard| {
            shard.buckets() * size_of::<Bucket>() + shard.pieces.capacity() * size_of::<Piece>()
        };
        let bytes = self.shards.iter().map(|shard| bytes_of(&shard.read()));
        (bytes.sum::<usize>() + SHARDS * size_of::<RwLock<Shard>>()) as u64
    }

    // --- Snapshots ---

    /// Appends one shard: its number of buckets, then all slots as they lie. See `snapshot.rs`.
    pub(crate) fn write_shard(&self, number: usize, out: &mut Vec<u8>) {
        let shard = self.shards[number].read();
        out.extend_from_slice(&(shard.buckets() as u64).to_le_bytes());
        for slot in shard.slots() {
            slot.words().iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        }
    }

    /// Takes one shard back from the beginning of `bytes`, leaving out places that `keep` refuses. Returns the bytes
    /// read; `None` when they are no shard.
    pub(crate) fn read_shard(
        &self,
        number: usize,
        bytes: &[u8],
        keep: impl Fn(&Place) -> bool,
    ) -> Option<usize> {
        let count = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?) as usize;
        let all = bytes.get(8..8usize.checked_add(count.checked_mul(size_of::<Bucket>())?)?)?;
        if !count.is_multiple_of(PIECE) {
            return None;
        }
        let mut shard = self.shards[number].write();
        shard.pieces = Vec::with_capacity(count / PIECE);
        shard.pieces.resize_with(count / PIECE, Piece::default);
        let mut len = 0;
        for (slot, bytes) in shard.slots_mut().zip(all.chunks_exact(size_of::<Slot>())) {
            let (low, high) = bytes.split_at(8);
            let words = [low, high].map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
            if words[0] & USED_BIT != 0 && keep(&unpack(words)) {
                slot.set(words);
                len += 1;
            }
        }
        shard.len = len;
        Some(8 + all.len())
    }

    /// Makes room for so many more at once, which would otherwise be made little by little.
    pub(crate) fn reserve(&self, more: u64) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let slots = shard.len as u64 + more / SHARDS as u64;
            let pieces = (slots * 100 / FULL_PERCENT as u64 / (WAYS * PIECE) as u64) as usize;
            if pieces > shard.pieces.len() {
                shard.resize(pieces);
            }
        }
    }

    pub(crate) const SHARDS: usize = SHARDS;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots_test_key as key;

    fn place(number: u64) -> Place {
        Place {
            segment: (number % (1 << 20)) as u32,
            offset: (number * 16 % (64 << 20)) as u32,
            bytes: ((number % 70_000) * 16 + 64) as u32,
            expiry: EPOCH_MINUTES + (number % 1_000_000) as u32,
            heat: 0,
            is_slice: number % 2 == 1,
        }
    }

    #[test]
    fn what_was_put_in_last_is_found_and_nothing_else() {
        let index = Index::new();
        for number in 0..200_000 {
            assert!(index.put(key(number), &place(number)).is_none());
        }
        for number in 0..200_000 {
            assert_eq!(index.get(key(number)), Some(place(number)));
        }
        assert!((200_000..400_000).all(|number| index.get(key(number)).is_none()));
        assert_eq!(index.put(key(5), &place(6)), Some(place(5)));
        assert_eq!(index.get(key(5)), Some(place(6)));
        assert_eq!(index.len(), 200_000);
        // Shards are small here, and grow by a piece.
        assert!(index.memory_bytes() < 200_000 * 21, "{}", index.memory_bytes());
    }

    #[test]
    fn a_place_is_replaced_or_removed_only_if_it_is_the_one_meant() {
        let index = Index::new();
        index.put(key(1), &place(1));
        assert!(!index.replace(key(1), &place(2), &place(3)));
        assert!(index.replace(key(1), &place(1), &place(3)));
        assert!(index.remove_if(key(1), |found| found.is(&place(1))).is_none());
        assert!(index.remove_if(key(1), |found| found.is(&place(3))).is_some());
        assert_eq!((index.get(key(1)), index.len()), (None, 0));
    }

    #[test]
    fn heat_rises_to_its_maximum_and_stays() {
        let index = Index::new();
        index.put(key(1), &place(1));
        for hits in 0..20u8 {
            assert_eq!(index.get(key(1)).unwrap().heat, hits.min(HEAT_MAX));
            index.warm(key(1));
        }
        assert_eq!(index.get(key(1)), Some(Place { heat: HEAT_MAX, ..place(1) }));
    }

    #[test]
    fn a_shard_comes_back_from_its_bytes_without_what_is_refused() {
        let index = Index::new();
        for number in 0..20_000 {
            index.put(key(number), &place(number));
        }
        let back = Index::new();
        for shard in 0..Index::SHARDS {
            let mut bytes = Vec::new();
            index.write_shard(shard, &mut bytes);
            assert_eq!(back.read_shard(shard, &bytes, |place| !place.is_slice), Some(bytes.len()));
            assert!(bytes.len() < 9 || back.read_shard(shard, &bytes[..bytes.len() - 1], |_| true).is_none());
            assert_eq!(back.read_shard(shard, &bytes, |place| !place.is_slice), Some(bytes.len()));
        }
        assert_eq!(back.len(), 10_000);
        (0..20_000).for_each(|number| {
            assert_eq!(back.get(key(number)), Some(place(number)).filter(|place| !place.is_slice));
        });
        for number in 0..20_000 {
            back.put(key(number), &place(number));
        }
        assert_eq!(back.len(), 20_000);
    }
}
