//! What the bytes on a disk mean. Layout, sums and bounds are here and nowhere else; reading and writing is elsewhere.
//!
//! All numbers are little-endian. A **volume** is one file:
//!
//! ```text
//! 0        superblock (4 KiB)
//! 4 KiB    run (4 KiB), and the same again: rises with each start, before anything else is written
//! 1 MiB    segment 0 ├ segment 1 ├ … ├ segment n-1          each `segment_bytes` long
//! ```
//!
//! A **segment** is written front to back, once per use. Its header makes the use known by a sequence number, so that
//! what an earlier use has left is never taken for its own:
//!
//! ```text
//! 0              header (64 bytes in a block of 4 KiB); zeros when the segment has been evicted
//! 4 KiB          record │ record │ …                         back to back, each from a multiple of 16 bytes on
//! …              unused
//! end-footer     entry × count │ 0 … │ trailer (64 bytes)    once sealed; a multiple of 4 KiB
//! ```
//!
//! A **record** is a value (or the word that there is none any more) under a 128-bit key:
//!
//! ```text
//!  0  8  sum of [8 .. body)                32  8  sequence of the segment
//!  8  4  magic                             40  4  meta length
//! 12  1  kind: 1 value, 2 removal          44  4  body length
//! 13  1  flags: 1 slice                    48  4  expiry, minutes since 1970
//! 14  2  chunk count                       52  4  zero
//! 16 16  key                               56  8  log sequence number (LSN): the order of all records of a volume
//! 64  8  × chunk count: sum of each 64 KiB of the body
//!  …     meta, then body, then zeros up to a multiple of 16
//! ```
//!
//! Sums are XXH3-64. Those of records and footers are seeded with the volume's id, which is chance: so nothing that an earlier
//! volume has left in the same file passes, nor a body that was made up to look like records. A chunk's is seeded with key, LSN and number, so that the right bytes in the wrong place are wrong.
//! A footer **entry** is what the index needs of a record: key 16, LSN 8, offset / 16 4, length / 16 4, expiry 4, kind and
//! flags 4; 40 bytes.
//!
//! Sequences and LSNs have the run in their upper bits. So what a loss of power has hidden behind a hole, whose numbers
//! nobody knows any more, is older than all that later runs write.
//!
//! What it doesn't do: it keeps no versions apart. A volume of another [`VERSION`] is begun anew: a cache can be refilled.

use twox_hash::XxHash3_64;

/// Changes with any change of what is drawn above.
pub(crate) const VERSION: u32 = 1;

/// What reads and writes of a volume are aligned to.
pub(crate) const BLOCK: u64 = 4096;

/// Where the first segment begins.
pub(crate) const SEGMENTS_AT: u64 = 1 << 20;

/// Granularity of places and lengths.
pub(crate) const UNIT: u64 = 16;

/// Bytes of a body under one sum.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Most bytes of one record's body: what is longer is cut into slices by the caller.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Most bytes of one record's meta.
pub const META_BYTES_MAX: usize = 256 * 1024;

pub(crate) const RECORD_HEAD: usize = 64;
pub(crate) const ENTRY_BYTES: usize = 40;
const TRAILER_BYTES: usize = 64;

const VOLUME_MAGIC: [u8; 8] = *b"perigeeV";
const RUN_MAGIC: [u8; 8] = *b"perigeeR";
const SEGMENT_MAGIC: [u8; 8] = *b"perigeeS";
const FOOTER_MAGIC: [u8; 8] = *b"perigeeF";
const RECORD_MAGIC: u32 = 0x7c1d_5eb9;

pub(crate) fn sum(bytes: &[u8], seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

pub(crate) fn round_up(bytes: u64, to: u64) -> u64 {
    bytes.next_multiple_of(to)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().unwrap_or_default())
}

// --- Superblock ---

/// How a volume is laid out and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Chance; tells this volume from one made anew in its place.
    pub(crate) id: u128,
    /// Whose keys and positions it holds: a volume of another owner is of no use.
    pub(crate) owner: u128,
    pub(crate) segment_bytes: u64,
    pub(crate) segments: u32,
}

/// What stands at the beginning of a volume file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Volume(Superblock),
    /// Nothing but zeros, or ours and damaged, or of another version: may be begun anew.
    Nothing,
    /// Something that is not ours: must not be touched.
    Foreign,
}

impl Superblock {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK as usize];
        block[..8].copy_from_slice(&VOLUME_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[16..32].copy_from_slice(&self.id.to_le_bytes());
        block[32..48].copy_from_slice(&self.owner.to_le_bytes());
        block[48..56].copy_from_slice(&self.segment_bytes.to_le_bytes());
        block[56..60].copy_from_slice(&self.segments.to_le_bytes());
        let check = sum(&block[..64], 0);
        block[64..72].copy_from_slice(&check.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8]) -> Found {
        if block.iter().all(|byte| *byte == 0) {
            return Found::Nothing;
        }
        if !block.starts_with(&VOLUME_MAGIC) {
            return Found::Foreign;
        }
        if block.len() < BLOCK as usize {
            return Found::Nothing;
        }
        let this = Superblock {
            id: u128_at(block, 16),
            owner: u128_at(block, 32),
            segment_bytes: u64_at(block, 48),
            segments: u32_at(block, 56),
        };
        let is_sound = u64_at(block, 64) == sum(&block[..64], 0)
            && u32_at(block, 8) == VERSION
            && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&this.segment_bytes)
            && this.segment_bytes.is_multiple_of(BLOCK)
            && (SEGMENTS_MIN..=SEGMENTS_MAX).contains(&this.segments);
        if is_sound { Found::Volume(this) } else { Found::Nothing }
    }

    /// Bytes of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        SEGMENTS_AT + u64::from(self.segments) * self.segment_bytes
    }

    /// What the sums of this volume's records and footers are seeded with.
    pub(crate) fn salt(&self) -> u64 {
        self.id as u64 ^ (self.id >> 64) as u64
    }

    /// Where a segment begins in the file.
    pub(crate) fn segment_at(&self, segment: u32) -> u64 {
        SEGMENTS_AT + u64::from(segment) * self.segment_bytes
    }
}

// --- Run ---

/// Where the run stands, twice.
pub(crate) const RUN_AT: [u64; 2] = [BLOCK, 2 * BLOCK];

/// Bits of a segment's sequence and of an LSN below those of the run.
const SEQUENCE_BITS: u32 = 32;
const LSN_BITS: u32 = 40;

/// Highest run: a start every second for half a year.
const RUN_MAX: u64 = (1 << (64 - LSN_BITS)) - 1;

/// How many times the volumes of a node have been started together: see `recovery.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run(pub(crate) u64);

impl Run {
    pub(crate) fn next(self) -> Self {
        Run(self.0 + 1)
    }

    /// Whether there are numbers left for it.
    pub(crate) fn is_possible(self) -> bool {
        self.0 <= RUN_MAX
    }

    pub(crate) fn first_sequence(self) -> u64 {
        self.0 << SEQUENCE_BITS | 1
    }

    pub(crate) fn first_lsn(self) -> u64 {
        self.0 << LSN_BITS | 1
    }

    pub(crate) fn encode(self, volume: u128) -> Vec<u8> {
        let mut block = vec![0; BLOCK as usize];
        block[..8].copy_from_slice(&RUN_MAGIC);
        block[8..24].copy_from_slice(&volume.to_le_bytes());
        block[24..32].copy_from_slice(&self.0.to_le_bytes());
        let check = sum(&block[..32], 0);
        block[32..40].copy_from_slice(&check.to_le_bytes());
        block
    }

    /// `None` when it is another volume's, or damaged.
    pub(crate) fn decode(block: &[u8], volume: u128) -> Option<Self> {
        let is_ours = block.len() >= 40
            && block[..8] == RUN_MAGIC
            && u128_at(block, 8) == volume
            && u64_at(block, 32) == sum(&block[..32], 0);
        is_ours.then(|| Run(u64_at(block, 24))).filter(|run| run.is_possible())
    }
}

/// Fewest and most segments: one open for each class, two free, and some to hold things; what an index slot can name.
pub(crate) const SEGMENTS_MIN: u32 = 8;
pub(crate) const SEGMENTS_MAX: u32 = 1 << 20;

/// Shortest and longest segment: room for the longest record and its footer; what an index slot can name.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 2 << 20;
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 20;

// --- Segment header ---

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) volume: u128,
    pub(crate) segment: u32,
    pub(crate) class: u8,
    /// Which use of which segment this is: rises with each use of any segment of the volume. Never 0.
    pub(crate) sequence: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK as usize];
        block[..8].copy_from_slice(&SEGMENT_MAGIC);
        block[8..24].copy_from_slice(&self.volume.to_le_bytes());
        block[24..28].copy_from_slice(&self.segment.to_le_bytes());
        block[28] = self.class;
        block[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        let check = sum(&block[..56], 0);
        block[56..64].copy_from_slice(&check.to_le_bytes());
        block
    }

    /// The header of `segment` of `volume`; `None` when it was never used or is damaged.
    pub(crate) fn decode(block: &[u8], volume: u128, segment: u32) -> Option<Self> {
        if block.len() < 64 || block[..8] != SEGMENT_MAGIC || u64_at(block, 56) != sum(&block[..56], 0) {
            return None;
        }
        let this = SegmentHeader {
            volume: u128_at(block, 8),
            segment: u32_at(block, 24),
            class: block[28],
            sequence: u64_at(block, 32),
        };
        (this.volume == volume && this.segment == segment && this.sequence > 0).then_some(this)
    }
}

// --- Records ---

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Value,
    /// Whatever has a lower LSN under this key is no more.
    Removal,
}

/// A record without its meta and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) kind: Kind,
    pub(crate) is_slice: bool,
    pub(crate) key: u128,
    pub(crate) lsn: u64,
    pub(crate) sequence: u64,
    pub(crate) meta_len: u32,
    pub(crate) body_len: u32,
    pub(crate) expiry: u32,
}

impl RecordHead {
    fn chunks(&self) -> usize {
        (self.body_len as usize).div_ceil(CHUNK_BYTES)
    }

    /// Bytes before the body.
    pub(crate) fn body_at(&self) -> usize {
        RECORD_HEAD + 8 * self.chunks() + self.meta_len as usize
    }

    /// Bytes of the whole record.
    pub(crate) fn bytes(&self) -> u64 {
        round_up(self.body_at() as u64 + u64::from(self.body_len), UNIT)
    }

    /// Bytes before the body of a record of `bytes`, when its meta is about as long as most.
    pub(crate) fn before_body_guess(bytes: u32) -> usize {
        RECORD_HEAD + 8 * (bytes as usize).div_ceil(CHUNK_BYTES) + 1024
    }

    fn chunk_seed(&self, chunk: usize) -> u64 {
        (self.key as u64) ^ self.lsn.rotate_left(20) ^ (chunk as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Appends the whole record. `meta` and the pieces of `body` are as long as the head says; `salt` is the volume's.
    pub(crate) fn write(&self, out: &mut Vec<u8>, meta: &[u8], body: &[impl AsRef<[u8]>], salt: u64) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
        out.push(if self.kind == Kind::Value { 1 } else { 2 });
        out.push(u8::from(self.is_slice));
        out.extend_from_slice(&(self.chunks() as u16).to_le_bytes());
        out.extend_from_slice(&self.key.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.meta_len.to_le_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        out.extend_from_slice(&self.expiry.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.lsn.to_le_bytes());
        let sums = out.len();
        out.resize(sums + 8 * self.chunks(), 0);
        out.extend_from_slice(meta);
        let body_at = out.len();
        body.iter().for_each(|piece| out.extend_from_slice(piece.as_ref()));
        debug_assert_eq!(out.len() - start, self.body_at() + self.body_len as usize);
        for chunk in 0..self.chunks() {
            let from = body_at + chunk * CHUNK_BYTES;
            let check = sum(&out[from..out.len().min(from + CHUNK_BYTES)], self.chunk_seed(chunk));
            out[sums + 8 * chunk..][..8].copy_from_slice(&check.to_le_bytes());
        }
        let check = sum(&out[start + 8..body_at], salt);
        out[start..start + 8].copy_from_slice(&check.to_le_bytes());
        out.resize(start + self.bytes() as usize, 0);
    }

    /// Reads the fixed part, without its sum: what is needed to know how much more to read. `None` when it is none.
    pub(crate) fn peek(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < RECORD_HEAD || u32_at(bytes, 8) != RECORD_MAGIC {
            return None;
        }
        let this = RecordHead {
            kind: match bytes[12] {
                1 => Kind::Value,
                2 => Kind::Removal,
                _ => return None,
            },
            is_slice: bytes[13] & 1 != 0,
            key: u128_at(bytes, 16),
            sequence: u64_at(bytes, 32),
            meta_len: u32_at(bytes, 40),
            body_len: u32_at(bytes, 44),
            expiry: u32_at(bytes, 48),
            lsn: u64_at(bytes, 56),
        };
        let chunks = usize::from(u16::from_le_bytes([bytes[14], bytes[15]]));
        let fits = this.meta_len as usize <= META_BYTES_MAX
            && this.body_len as usize <= BODY_BYTES_MAX
            && chunks == this.chunks();
        fits.then_some(this)
    }

    /// Reads a record's head and everything before the body, verified. `None` when it is damaged, cut short, or none.
    pub(crate) fn parse(bytes: &[u8], salt: u64) -> Option<(Self, Before<'_>)> {
        let this = Self::peek(bytes)?;
        let before = bytes.get(..this.body_at())?;
        if u64_at(before, 0) != sum(&before[8..], salt) {
            return None;
        }
        let meta = RECORD_HEAD + 8 * this.chunks();
        Some((this, Before { sums: &before[RECORD_HEAD..meta], meta: &before[meta..] }))
    }

    /// Whether `bytes`, which begin with chunk `first` of the body and end with a chunk or the body, are what was
    /// written. `sums` are those of [`Before`].
    pub(crate) fn verifies(&self, sums: &[u8], first: usize, bytes: &[u8]) -> bool {
        bytes.chunks(CHUNK_BYTES).zip(first..).all(|(chunk, number)| {
            sums.get(8 * number..8 * number + 8)
                .is_some_and(|wanted| u64_at(wanted, 0) == sum(chunk, self.chunk_seed(number)))
        })
    }
}

/// What stands before a record's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before<'a> {
    /// The chunks' sums, as they lie there.
    pub(crate) sums: &'a [u8],
    pub(crate) meta: &'a [u8],
}

// --- Footer ---

/// What the index needs of a record. Packed, because those of a whole segment are kept in memory until it is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed(8))]
pub(crate) struct Entry {
    pub(crate) key: u128,
    pub(crate) lsn: u64,
    /// Bytes from the segment's beginning.
    pub(crate) offset: u32,
    /// Bytes of the record.
    pub(crate) bytes: u32,
    pub(crate) expiry: u32,
    pub(crate) kind: Kind,
    pub(crate) is_slice: bool,
}

const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES);

/// Bytes that the footer of `count` records takes.
pub(crate) fn footer_bytes(count: usize) -> u64 {
    round_up((count * ENTRY_BYTES + TRAILER_BYTES) as u64, BLOCK)
}

pub(crate) fn encode_footer(entries: &[Entry], sequence: u64, salt: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(footer_bytes(entries.len()) as usize);
    for entry in entries {
        out.extend_from_slice(&{ entry.key }.to_le_bytes());
        out.extend_from_slice(&entry.lsn.to_le_bytes());
        out.extend_from_slice(&(entry.offset / UNIT as u32).to_le_bytes());
        out.extend_from_slice(&(entry.bytes / UNIT as u32).to_le_bytes());
        out.extend_from_slice(&entry.expiry.to_le_bytes());
        let kind = u32::from(entry.kind == Kind::Removal);
        out.extend_from_slice(&(kind | u32::from(entry.is_slice) << 1).to_le_bytes());
    }
    let entries_sum = sum(&out, salt);
    out.resize(footer_bytes(entries.len()) as usize, 0);
    let trailer = out.len() - TRAILER_BYTES;
    let place = &mut out[trailer..];
    place[..8].copy_from_slice(&FOOTER_MAGIC);
    place[8..16].copy_from_slice(&sequence.to_le_bytes());
    place[16..20].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    place[24..32].copy_from_slice(&entries_sum.to_le_bytes());
    let check = sum(&place[..56], salt);
    place[56..64].copy_from_slice(&check.to_le_bytes());
    out
}

/// How many entries the footer has whose trailer ends `bytes`; `None` unless this use of the segment was sealed.
pub(crate) fn footer_count(bytes: &[u8], sequence: u64, salt: u64) -> Option<usize> {
    let trailer = bytes.get(bytes.len().checked_sub(TRAILER_BYTES)?..)?;
    let is_ours = trailer[..8] == FOOTER_MAGIC
        && u64_at(trailer, 56) == sum(&trailer[..56], salt)
        && u64_at(trailer, 8) == sequence;
    is_ours.then(|| u32_at(trailer, 16) as usize)
}

/// The entries of a whole footer; `None` when it is damaged.
pub(crate) fn decode_footer(bytes: &[u8], sequence: u64, salt: u64) -> Option<Vec<Entry>> {
    let count = footer_count(bytes, sequence, salt)?;
    let listed = bytes.get(..count.checked_mul(ENTRY_BYTES)?)?;
    let trailer = &bytes[bytes.len() - TRAILER_BYTES..];
    if bytes.len() as u64 != footer_bytes(count) || u64_at(trailer, 24) != sum(listed, salt) {
        return None;
    }
    let entries = listed.chunks_exact(ENTRY_BYTES).map(|entry| {
        let flags = u32_at(entry, 36);
        Entry {
            key: u128_at(entry, 0),
            lsn: u64_at(entry, 16),
            offset: u32_at(entry, 24).saturating_mul(UNIT as u32),
            bytes: u32_at(entry, 28).saturating_mul(UNIT as u32),
            expiry: u32_at(entry, 32),
            kind: if flags & 1 != 0 { Kind::Removal } else { Kind::Value },
            is_slice: flags & 2 != 0,
        }
    });
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(meta: &[u8], body: &[u8]) -> RecordHead {
        RecordHead {
            kind: Kind::Value,
            is_slice: false,
            key: crate::slots_test_key(7),
            lsn: 99,
            sequence: 5,
            meta_len: meta.len() as u32,
            body_len: body.len() as u32,
            expiry: 12345,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        for len in [0, 1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, BODY_BYTES_MAX] {
            let body: Vec<u8> = (0..len).map(|at| ((at * 31) >> 3) as u8).collect();
            let head = head(b"meta", &body);
            let mut out = Vec::new();
            head.write(&mut out, b"meta", &body.chunks(1000).collect::<Vec<_>>(), 3);
            assert_eq!(out.len() as u64, head.bytes());
            let (read, before) = RecordHead::parse(&out, 3).unwrap();
            assert_eq!((read, before.meta), (head, &b"meta"[..]));
            let stored = &out[read.body_at()..read.body_at() + len];
            assert_eq!(stored, body);
            assert!(read.verifies(before.sums, 0, stored));
        }
    }

    #[test]
    fn no_flipped_bit_of_a_record_goes_unnoticed() {
        let body: Vec<u8> = (0..200).collect();
        let head = head(b"meta", &body);
        let mut out = Vec::new();
        head.write(&mut out, b"meta", &[&body], 3);
        for bit in 0..(head.body_at() + body.len()) * 8 {
            let mut bytes = out.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let is_whole = RecordHead::parse(&bytes, 3).is_some_and(|(head, before)| {
                head.verifies(before.sums, 0, &bytes[head.body_at()..head.body_at() + head.body_len as usize])
            });
            assert!(!is_whole, "bit {bit}");
        }
    }

    #[test]
    fn the_right_bytes_in_the_wrong_chunk_are_wrong() {
        let body = vec![3; 2 * CHUNK_BYTES];
        let head = head(b"", &body);
        let mut out = Vec::new();
        head.write(&mut out, b"", &[&body], 3);
        let (head, before) = RecordHead::parse(&out, 3).unwrap();
        assert!(head.verifies(before.sums, 1, &body[CHUNK_BYTES..]));
        let swapped: Vec<u8> = [&before.sums[8..], &before.sums[..8]].concat();
        assert!(!head.verifies(&swapped, 0, &body));
    }

    #[test]
    fn a_footer_comes_back_only_for_its_own_use_of_the_segment() {
        for count in [0, 1, 100, 101, 5000] {
            let entry = |number: u32| Entry {
                key: crate::slots_test_key(u64::from(number)),
                lsn: u64::from(number) + 1,
                offset: 4096 + number * 160,
                bytes: 160,
                expiry: number,
                kind: if number.is_multiple_of(3) { Kind::Removal } else { Kind::Value },
                is_slice: number.is_multiple_of(2),
            };
            let entries: Vec<Entry> = (0..count).map(entry).collect();
            let bytes = encode_footer(&entries, 8, 3);
            assert_eq!(bytes.len() as u64, footer_bytes(entries.len()));
            assert_eq!(decode_footer(&bytes, 8, 3).unwrap(), entries);
            assert!(decode_footer(&bytes, 9, 3).is_none() && decode_footer(&bytes, 8, 4).is_none());
            let mut damaged = bytes.clone();
            damaged[0] ^= 1;
            assert!(count == 0 || decode_footer(&damaged, 8, 3).is_none());
        }
    }

    #[test]
    fn a_record_of_another_volume_is_none() {
        let mut out = Vec::new();
        head(b"", b"body").write(&mut out, b"", &[b"body"], 3);
        assert!(RecordHead::parse(&out, 3).is_some() && RecordHead::parse(&out, 4).is_none());
    }

    #[test]
    fn a_run_comes_back_only_for_its_volume_and_numbers_rise_with_it() {
        let block = Run(7).encode(5);
        assert_eq!((Run::decode(&block, 5), Run::decode(&block, 6)), (Some(Run(7)), None));
        assert_eq!(Run::decode(&[&block[..24], &[9], &block[25..]].concat(), 5), None);
        assert!(Run(8).first_lsn() > Run(7).first_lsn() && Run(8).first_sequence() > Run(7).first_sequence());
        assert!(!Run(RUN_MAX).next().is_possible());
    }

    #[test]
    fn a_foreign_file_is_told_from_an_empty_and_from_a_damaged_one() {
        let superblock = Superblock { id: 1, owner: 2, segment_bytes: SEGMENT_BYTES_MIN, segments: 9 };
        let block = superblock.encode();
        assert_eq!(Superblock::decode(&block), Found::Volume(superblock));
        assert_eq!(Superblock::decode(&[0; 4096]), Found::Nothing);
        assert_eq!(Superblock::decode(&[]), Found::Nothing);
        let mut damaged = block.clone();
        damaged[33] ^= 1;
        assert_eq!(Superblock::decode(&damaged), Found::Nothing);
        assert_eq!(Superblock::decode(&[b'x'; 4096]), Found::Foreign);
        assert_eq!(Superblock::decode(b"notes"), Found::Foreign);
        assert_eq!(Superblock::decode(&block[..100]), Found::Nothing);
    }
}
