//! What must hold for any bytes that a disk gives back, as functions that panic when it does not. Compiled for fuzzing only
//! (`--cfg fuzzing`); the targets in `fuzz/` call it.

use super::format::{
    BLOCK, Found, Kind, RecordHead, Run, SEGMENT_BYTES_MAX, SegmentHeader, Superblock, decode_footer,
    encode_footer, footer_bytes, sum,
};
use super::index::Index;

/// Any bytes as everything that is read from a disk: nothing panics, and what is accepted says the same when it is written
/// again.
///
/// - `is_sealed`: sums are put right first, so that what they guard is reached.
pub fn disk_record(bytes: &[u8], is_sealed: bool) {
    let salt = 7;
    let mut bytes = bytes.to_vec();
    if is_sealed {
        seal_record(&mut bytes, salt);
    }
    record(&bytes, salt);
    footer(&bytes, salt, is_sealed);
    blocks(&bytes, is_sealed);
    shard(&bytes);
}

/// Puts the sum of a record's head right, as far as it is one.
fn seal_record(bytes: &mut [u8], salt: u64) {
    let Some(head) = RecordHead::peek(bytes) else { return };
    if let Some(before) = bytes.get(8..head.body_at()) {
        let right = sum(before, salt).to_le_bytes();
        bytes[..8].copy_from_slice(&right);
    }
}

fn record(bytes: &[u8], salt: u64) {
    let Some((head, before)) = RecordHead::parse(bytes, salt) else { return };
    assert!(head.bytes() >= head.body_at() as u64 + u64::from(head.body_len));
    assert_eq!(before.meta.len(), head.meta_len as usize);
    let Some(body) = bytes.get(head.body_at()..head.body_at() + head.body_len as usize) else { return };
    let is_whole = head.verifies(before.sums, 0, body);
    let mut again = Vec::new();
    head.write(&mut again, before.meta, &[body], salt);
    assert_eq!(again.len() as u64, head.bytes());
    let Some((read, before_again)) = RecordHead::parse(&again, salt) else {
        panic!("{head:?} is not read back")
    };
    assert_eq!((read, before_again.meta), (head, before.meta));
    assert!(read.verifies(before_again.sums, 0, body));
    assert_eq!(is_whole, before.sums == before_again.sums, "{head:?}");
}

fn footer(bytes: &[u8], salt: u64, is_sealed: bool) {
    let sequence = 5;
    if let Some(entries) = decode_footer(bytes, sequence, salt) {
        assert_eq!(footer_bytes(entries.len()), bytes.len() as u64);
    }
    if !is_sealed {
        return;
    }
    // As the entries of a footer they survive being written and read.
    let entries: Vec<_> = bytes
        .chunks_exact(40)
        .map(|bytes| {
            let word =
                |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            super::format::Entry {
                key: u128::from(word(0)) << 96 | u128::from(word(4)),
                lsn: u64::from(word(8)) << 32 | u64::from(word(12)),
                offset: word(16) / 16 * 16,
                bytes: word(20) / 16 * 16,
                expiry: word(24),
                kind: if word(28) & 1 == 0 { Kind::Value } else { Kind::Removal },
                is_slice: word(28) & 2 == 0,
            }
        })
        .collect();
    let written = encode_footer(&entries, sequence, salt);
    let Some(read) = decode_footer(&written, sequence, salt) else { panic!("{entries:?} is not read back") };
    assert_eq!(read, entries);
}

fn blocks(bytes: &[u8], is_sealed: bool) {
    let mut block = bytes.to_vec();
    block.resize(BLOCK as usize, 0);
    if is_sealed {
        let right = sum(&block[..64], 0).to_le_bytes();
        block[64..72].copy_from_slice(&right);
    }
    if let Found::Volume(found) = Superblock::decode(&block) {
        assert!(found.segment_bytes <= SEGMENT_BYTES_MAX && found.file_bytes() > found.segment_at(0));
        assert_eq!(Superblock::decode(&found.encode()), Found::Volume(found));
    }
    let _short = Superblock::decode(bytes);
    for (volume, segment) in [(0, 0), (1, 2)] {
        if let Some(header) = SegmentHeader::decode(bytes, volume, segment) {
            assert_eq!(SegmentHeader::decode(&header.encode(), volume, segment), Some(header));
        }
        if let Some(run) = Run::decode(bytes, volume) {
            assert_eq!(Run::decode(&run.encode(volume), volume), Some(run));
        }
    }
}

/// A shard of the index is read only after its sum; all the same nothing in it may panic or be counted wrongly.
fn shard(bytes: &[u8]) {
    let index = Index::new();
    let Some(read) = index.read_shard(3, bytes, |place| place.segment < 100) else { return };
    let mut again = Vec::new();
    index.write_shard(3, &mut again);
    assert_eq!(again.len(), read);
    let mut kept = 0;
    index.retain(|_| {
        kept += 1;
        false
    });
    assert_eq!(index.len(), 0, "{kept} were counted otherwise");
}
