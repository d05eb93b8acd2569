//! The index on disk: two files, written in turn, so that one is always whole. They only spare work at the start: what they
//! say is checked against the segments, and without them all footers are read.
//!
//! ```text
//! 0      header (4 KiB): magic 8 │ version 4 │ segments 4 │ volume 16 │ generation 8 │ LSN 8 │ sum 8
//! 4 KiB  sequence 8 × segments (highest bit: open), sum 8
//!        shard × 1024: length 8 │ buckets as they lie in memory (index.rs) │ sum 8
//! ```
//!
//! A snapshot knows every record below its LSN. It is taken shard by shard while the writer goes on, so it may know later
//! ones as well: those are said again by the segments, and saying them in their order makes the same of both. It may also
//! miss what has been removed or replaced meanwhile, so its header goes last, when the segments say so too: else a value
//! would be missing here, hence never be removed again, and come back should the snapshot be lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{BLOCK, VERSION, sum};
use super::index::{Index, Place};
use super::media::{Media, Shelf};
use super::volume::{Volume, count};

const NAMES: [&str; 2] = ["index-a", "index-b"];

const MAGIC: [u8; 8] = *b"perigeeI";

/// Most bytes that one shard may take in a file: 64 MiB, four million records.
const SHARD_BYTES_MAX: usize = 64 << 20;

/// What a snapshot says beside the index itself.
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) lsn: u64,
    /// By segment, as they were when it was begun; with [`OPEN`] where more was to come.
    pub(crate) sequences: Vec<u64>,
}

/// Marks the sequence of a segment that was being written.
pub(crate) const OPEN: u64 = 1 << 63;

/// A snapshot that lacks its header.
pub(crate) struct Prepared {
    file: Arc<dyn Media>,
    snapshot: Snapshot,
    bytes: u64,
    /// What was asked for up to here may be in it.
    pub(crate) through_ticket: u64,
}

/// Writes a snapshot but for its header; `lsn` and `sequences` are those from before it is begun, with everything below
/// `lsn` published and synced.
///
/// # Errors
/// Those of writing. The other file is as it was.
pub(crate) fn prepare(volume: &Volume, shelf: &dyn Shelf, snapshot: Snapshot) -> io::Result<Prepared> {
    let file = shelf.open(NAMES[(snapshot.generation % 2) as usize], false)?;
    // Until it has a header again the file is no snapshot.
    file.write_at(&[0; BLOCK as usize], 0)?;
    file.sync()?;
    let mut at = BLOCK;
    let mut put = |bytes: &mut Vec<u8>| {
        let check = sum(bytes, snapshot.generation);
        bytes.extend_from_slice(&check.to_le_bytes());
        file.write_at(bytes, at)?;
        at += bytes.len() as u64;
        bytes.clear();
        io::Result::Ok(())
    };
    let mut bytes: Vec<u8> = snapshot.sequences.iter().flat_map(|sequence| sequence.to_le_bytes()).collect();
    put(&mut bytes)?;
    for shard in 0..Index::SHARDS {
        volume.index.write_shard(shard, &mut bytes);
        put(&mut bytes)?;
    }
    file.sync()?;
    let through_ticket = volume.ledger.lock().tickets;
    Ok(Prepared { file, snapshot, bytes: at, through_ticket })
}

/// Makes a snapshot of what was prepared. All that was asked for up to its ticket has been written and synced.
///
/// # Errors
/// Those of writing. The other file is as it was.
pub(crate) fn finish(volume: &Volume, prepared: &Prepared) -> io::Result<()> {
    let Prepared { file, snapshot, bytes, .. } = prepared;
    let mut header = vec![0; BLOCK as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&volume.layout.segments.to_le_bytes());
    header[16..32].copy_from_slice(&volume.layout.id.to_le_bytes());
    header[32..40].copy_from_slice(&snapshot.generation.to_le_bytes());
    header[40..48].copy_from_slice(&snapshot.lsn.to_le_bytes());
    let check = sum(&header[..48], 0);
    header[48..56].copy_from_slice(&check.to_le_bytes());
    file.write_at(&header, 0)?;
    file.sync()?;
    count(&volume.counts.overhead_bytes, *bytes);
    Ok(())
}

/// Reads the newest snapshot that is whole into the index, but for places in segments whose use has changed since:
/// `current` are the sequences as the segments say them. `None` when there is none; the index is empty then.
pub(crate) fn read(volume: &Volume, shelf: &dyn Shelf, current: &[u64]) -> Option<Snapshot> {
    let mut found: Vec<_> = NAMES
        .into_iter()
        .filter_map(|name| {
            let file = shelf.open(name, false).ok()?;
            let snapshot = read_header(volume, &*file)?;
            Some((snapshot, file))
        })
        .collect();
    found.sort_by_key(|(snapshot, _)| std::cmp::Reverse(snapshot.generation));
    found.into_iter().find_map(|(snapshot, file)| {
        let whole = read_shards(volume, &*file, &snapshot, current);
        if whole.is_none() {
            volume.index.retain(|_| false);
        }
        whole.map(|()| snapshot)
    })
}

fn read_header(volume: &Volume, file: &dyn Media) -> Option<Snapshot> {
    let number = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let mut header = [0; BLOCK as usize];
    let read = file.read_at(&mut header, 0).ok()?;
    let is_ours = read == header.len()
        && header[..8] == MAGIC
        && number(&header, 48)? == sum(&header[..48], 0)
        && header[8..12] == VERSION.to_le_bytes()
        && header[12..16] == volume.layout.segments.to_le_bytes()
        && header[16..32] == volume.layout.id.to_le_bytes();
    if !is_ours {
        return None;
    }
    let generation = number(&header, 32)?;
    let mut bytes = vec![0; volume.layout.segments as usize * 8 + 8];
    let table = read_part(file, BLOCK, &mut bytes, generation)?;
    let sequences = table.chunks_exact(8).filter_map(|bytes| number(bytes, 0)).collect();
    Some(Snapshot { generation, lsn: number(&header, 40)?, sequences })
}

/// Fills `bytes` and gives what stands before their sum, if that is right.
fn read_part<'a>(file: &dyn Media, at: u64, bytes: &'a mut [u8], generation: u64) -> Option<&'a [u8]> {
    let read = file.read_at(bytes, at).ok()?;
    let (content, check) = bytes.get(..read)?.split_at_checked(bytes.len().checked_sub(8)?)?;
    (check == sum(content, generation).to_le_bytes()).then_some(content)
}

fn read_shards(volume: &Volume, file: &dyn Media, snapshot: &Snapshot, current: &[u64]) -> Option<()> {
    let is_same: Vec<bool> = snapshot
        .sequences
        .iter()
        .zip(current)
        .map(|(then, now)| *then & !OPEN > 0 && *then & !OPEN == *now)
        .collect();
    let keep = |place: &Place| is_same.get(place.segment as usize).copied().unwrap_or(false);
    // Each shard's length stands before it, so the places of all are found first, and then they are read side by side.
    let mut places = Vec::with_capacity(Index::SHARDS);
    let mut at = BLOCK + snapshot.sequences.len() as u64 * 8 + 8;
    for _ in 0..Index::SHARDS {
        let mut count = [0; 8];
        (file.read_at(&mut count, at).ok()? == 8).then_some(())?;
        let len = usize::try_from(u64::from_le_bytes(count)).ok()?.checked_mul(64)?.checked_add(16)?;
        (len <= SHARD_BYTES_MAX).then_some(())?;
        places.push((at, len));
        at += len as u64;
    }
    let next = AtomicU64::new(0);
    let read_some = || {
        let mut bytes = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(&(at, len)) = places.get(number) else { return Some(()) };
            bytes.resize(len, 0);
            let content = read_part(file, at, &mut bytes, snapshot.generation)?;
            volume.index.read_shard(number, content, keep)?;
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read_some)).collect();
        readers.into_iter().all(|reader| matches!(reader.join(), Ok(Some(())))).then_some(())
    })
}

/// Threads that read a snapshot.
const READERS: usize = 4;
