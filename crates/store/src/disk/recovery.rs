//! Opening a volume: what is on the disk becomes an index again, whatever ended the last run.
//!
//! ```text
//! superblock ─► segment headers ─► index snapshot ─► footers of what was sealed since ─► scan of what was open
//!  or begin       which use each     most of it          in the order of their LSNs        record by record, to the
//!  anew           segment is in                                                            first that is not whole
//! ```
//!
//! Bodies are not read: each is verified when it is asked for.
//!
//! Volumes of one node are started together, and each start is a **run**, numbered on all of them before anything else is
//! written. A volume whose number is behind the others' has missed a run, or was dropped during one: keys have been removed
//! and replaced without it, so it is begun anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::admission::Admission;
use super::buffers::{Buffer, Buffers};
use super::format::{
    BLOCK, Entry, Found, Kind, META_BYTES_MAX, RECORD_HEAD, RUN_AT, RecordHead, Run, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SEGMENTS_AT, SEGMENTS_MIN, SegmentHeader, Superblock,
};
use super::index::Place;
use super::log::{Class, Open, Recovered, read_footer};
use super::media::{Media, Shelf};
use super::snapshot::{self, OPEN};
use super::volume::{Fleet, Volume};

/// The volume's file.
const VOLUME: &str = "volume";

/// Threads that read headers and footers, and that fill the index.
const READERS: usize = 8;

/// Parts of the keys in which what segments say is applied.
const PARTS_BITS: u32 = 4;
const PARTS: usize = 1 << PARTS_BITS;

/// Fewest records that are worth threads.
const SIDE_BY_SIDE_MIN: u64 = 100_000;

/// Bytes that a scan reads at a time: more than any record.
const WINDOW_BYTES: usize = 2 << 20;

/// Why a volume cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The file cannot be made, read or written.
    Io(io::Error),
    /// The file is in use by another process.
    InUse,
    /// The file is not ours and not empty: it is not touched.
    Foreign,
    /// It is to be read only, and there is no volume.
    Nothing,
    /// Too small for a volume.
    TooSmall,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OpenError::Io(_) => "the file `volume` cannot be opened",
            OpenError::InUse => "another process uses it",
            OpenError::Foreign => "its file `volume` is not a cache of ours and is left as it is",
            OpenError::Nothing => "there is no cache in it",
            OpenError::TooSmall => "the size is too small",
        })
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io(error) => Some(error),
            OpenError::InUse | OpenError::Foreign | OpenError::Nothing | OpenError::TooSmall => None,
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse,
            _ => OpenError::Io(error),
        }
    }
}

/// How a volume was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// It was begun anew: it was empty, damaged, of another size, version or owner, or was dropped or missing while other
    /// disks were in use.
    pub is_new: bool,
    /// Records found.
    pub records: u64,
    /// Whether an index snapshot spared reading all footers.
    pub had_snapshot: bool,
    /// Segments whose footers were read.
    pub footers: usize,
    /// Segments that were read record by record.
    pub scanned: usize,
    /// The file system could not promise room for the whole size.
    pub is_sparse: bool,
}

/// What a volume should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) bytes: u64,
    pub(crate) owner: u128,
    /// For the id of a volume that is begun anew.
    pub(crate) chance: u128,
}

/// Splits a size into segments: 64 MiB each, or less where there would be fewer than 256. What is kept in memory of an open
/// segment is then little against the index.
pub(crate) fn layout(wanted: &Wanted) -> Option<Superblock> {
    let room = wanted.bytes.checked_sub(SEGMENTS_AT)?;
    let segment_bytes = (room / 256).next_power_of_two().clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    let segments = u32::try_from(room / segment_bytes).ok()?.min(super::format::SEGMENTS_MAX);
    let layout = Superblock { id: wanted.chance, owner: wanted.owner, segment_bytes, segments };
    (segments >= SEGMENTS_MIN).then_some(layout)
}

/// A volume's file that is open and has been looked at.
pub(crate) struct Looked {
    media: Arc<dyn Media>,
    found: Option<(Superblock, Run)>,
    new: Superblock,
}

impl Looked {
    /// The last run that the volume took part in.
    pub(crate) fn run(&self) -> Run {
        self.found.map(|(_, run)| run).unwrap_or_default()
    }
}

/// Opens a volume's file for writing and sees what is in it.
pub(crate) fn look(shelf: &dyn Shelf, wanted: &Wanted, buffers: &Buffers) -> Result<Looked, OpenError> {
    let media = shelf.open(VOLUME, true)?;
    let mut new = layout(wanted).ok_or(OpenError::TooSmall)?;
    let found = match read_superblock(&*media, buffers)? {
        Found::Foreign => return Err(OpenError::Foreign),
        Found::Volume(found) => {
            if found.id == new.id {
                // Chance that isn't: nothing that lies there may pass for the new volume's.
                new.id = new.id.wrapping_add(1);
            }
            // The layout follows from the size: another one means another size.
            (Superblock { id: new.id, ..found } == new).then_some(found)
        }
        Found::Nothing => None,
    };
    let found = found.and_then(|found| {
        let runs = RUN_AT.map(|at| {
            let block = read_block(&*media, at, buffers).ok()?;
            Run::decode(&block, found.id)
        });
        Some((found, runs.into_iter().flatten().max()?))
    });
    Ok(Looked { media, found, new })
}

/// Takes back what is in a volume, or begins it; it may be written once [`Log::begin_run`] has been called for all.
///
/// - `latest`: the highest run of all volumes of the node; `run` the one that is being begun.
///
/// [`Log::begin_run`]: super::log::Log::begin_run
pub(crate) fn open(
    shelf: &dyn Shelf,
    looked: Looked,
    (latest, run): (Run, Run),
    admission: Admission,
    fleet: &Arc<Fleet>,
    buffers: &Buffers,
) -> Result<(Arc<Volume>, Recovered, Opened), OpenError> {
    let Looked { media, found, new } = looked;
    let found = found.filter(|(_, last)| *last == latest && *last < run).map(|(found, _)| found);
    let mut opened = Opened { is_new: found.is_none(), ..Opened::default() };
    let layout = found.unwrap_or(new);
    opened.is_sparse = media.allocate(0, layout.file_bytes()).is_err();
    if found.is_none() {
        let mut block = buffers.take(BLOCK as usize);
        block.copy_from_slice(&layout.encode());
        media.write_at(&block, 0)?;
        media.sync()?;
    }
    let volume = Volume::new(shelf.name(), media, layout, admission, fleet.clone());
    let recovered = recover(&volume, shelf, buffers, run, &mut opened)?;
    Ok((Arc::new(volume), recovered, opened))
}

/// Opens a volume to be looked at: nothing is written.
pub(crate) fn open_read_only(
    shelf: &dyn Shelf,
    buffers: &Buffers,
) -> Result<(Arc<Volume>, Opened), OpenError> {
    let media = shelf.open(VOLUME, true)?;
    let layout = match read_superblock(&*media, buffers)? {
        Found::Foreign => return Err(OpenError::Foreign),
        Found::Nothing => return Err(OpenError::Nothing),
        Found::Volume(layout) => layout,
    };
    let admission = Admission::new(layout.file_bytes(), 1, std::time::Duration::ZERO);
    let volume = Volume::new(shelf.name(), media, layout, admission, Arc::default());
    let mut opened = Opened::default();
    recover(&volume, shelf, buffers, Run::default(), &mut opened)?;
    Ok((Arc::new(volume), opened))
}

fn read_superblock(media: &dyn Media, buffers: &Buffers) -> io::Result<Found> {
    Ok(Superblock::decode(&read_block(media, 0, buffers)?))
}

fn read_block(media: &dyn Media, at: u64, buffers: &Buffers) -> io::Result<Buffer> {
    let mut block = buffers.take(BLOCK as usize);
    let read = media.read_at(&mut block, at)?;
    block.truncate(read);
    Ok(block)
}

/// A segment that was in use.
struct Used {
    segment: u32,
    sequence: u64,
    class: u8,
}

fn recover(
    volume: &Volume,
    shelf: &dyn Shelf,
    buffers: &Buffers,
    run: Run,
    opened: &mut Opened,
) -> Result<Recovered, OpenError> {
    let mut used = if opened.is_new { Vec::new() } else { read_headers(volume, buffers)? };
    used.sort_unstable_by_key(|used| used.sequence);
    let mut current = vec![0; volume.layout.segments as usize];
    for used in &used {
        current[used.segment as usize] = used.sequence;
        volume.sequences[used.segment as usize].store(used.sequence, Ordering::Release);
    }
    let snapshot = if opened.is_new { None } else { snapshot::read(volume, shelf, &current) };
    opened.had_snapshot = snapshot.is_some();
    let snapshot_lsn = snapshot.as_ref().map_or(0, |snapshot| snapshot.lsn);

    // Sealed before the snapshot is all in there.
    let then = |used: &Used| {
        snapshot.as_ref().and_then(|snapshot| snapshot.sequences.get(used.segment as usize).copied())
    };
    let since: Vec<&Used> = used.iter().filter(|used| then(used) != Some(used.sequence)).collect();
    let footers = side_by_side(since.len(), |next| {
        let used = since[next];
        read_footer(volume, buffers, used.segment, used.sequence)
    })?;

    let mut replay: Vec<(u32, Vec<Entry>)> = Vec::new();
    let mut open: [Option<Open>; 3] = [None, None, None];
    let mut left_open = Vec::new();
    for (used, footer) in since.into_iter().zip(footers) {
        let is_known = then(used) == Some(used.sequence | OPEN);
        let is_new = |entry: &Entry| !is_known || entry.lsn >= snapshot_lsn;
        match footer {
            Ok(Some(mut entries)) => {
                opened.footers += 1;
                entries.retain(is_new);
                replay.push((used.segment, entries));
            }
            // A segment that cannot be read is no reason not to start: its records fail one by one when they are asked
            // for.
            Err(error) => volume.read_failed(&error),
            Ok(None) => {
                opened.scanned += 1;
                let found = scan(volume, buffers, used);
                replay.push((
                    used.segment,
                    found.open.entries.iter().filter(|entry| is_new(entry)).copied().collect(),
                ));
                let place = &mut open[usize::from(used.class) % 3];
                match found.goes_on {
                    true => left_open.extend(place.replace(found.open)),
                    false => left_open.push(found.open),
                }
            }
        }
    }
    apply_all(volume, &replay);
    drop(replay);
    opened.records = volume.index.len();
    let in_use: Vec<u32> = used.iter().map(|used| used.segment).collect();
    let free = (0..volume.layout.segments).filter(|segment| current[*segment as usize] == 0).collect();
    Ok(Recovered {
        open: Class::ALL.into_iter().zip(open).filter_map(|(class, open)| Some((class, open?))).collect(),
        left_open,
        next_sequence: run.first_sequence(),
        next_lsn: run.first_lsn(),
        run,
        snapshot_generation: snapshot.map_or(0, |snapshot| snapshot.generation),
        order: in_use.into(),
        free,
    })
}

/// Applies what segments say, in the order of their LSNs: a part of the keys at a time, on several threads.
fn apply_all(volume: &Volume, replay: &[(u32, Vec<Entry>)]) {
    let entries: u64 = replay.iter().map(|(_, entries)| entries.len() as u64).sum();
    volume.index.reserve(entries.saturating_sub(volume.index.len()));
    let next = AtomicUsize::new(0);
    let apply_some = || {
        let mut some = Vec::new();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= PARTS {
                return;
            }
            some.clear();
            for (segment, entries) in replay {
                let in_part =
                    entries.iter().filter(|entry| (entry.key >> (128 - PARTS_BITS)) as usize == part);
                some.extend(in_part.map(|entry| (*segment, *entry)));
            }
            some.sort_unstable_by_key(|(_, entry)| entry.lsn);
            some.iter().for_each(|(segment, entry)| apply(volume, *segment, entry));
        }
    };
    if entries < SIDE_BY_SIDE_MIN {
        return apply_some();
    }
    std::thread::scope(|scope| {
        for _ in 1..READERS {
            scope.spawn(apply_some);
        }
        apply_some();
    });
}

fn apply(volume: &Volume, segment: u32, entry: &Entry) {
    let place = Place {
        segment,
        offset: entry.offset,
        bytes: entry.bytes,
        expiry: entry.expiry,
        heat: 0,
        is_slice: entry.is_slice,
    };
    match entry.kind {
        Kind::Removal => drop(volume.index.remove_if(entry.key, |_| true)),
        Kind::Value => {
            // A snapshot that knew it already knows how warm it is.
            let heat =
                volume.index.get(entry.key).filter(|found| found.is(&place)).map_or(0, |found| found.heat);
            volume.index.put(entry.key, &Place { heat, ..place });
        }
    }
}

fn read_headers(volume: &Volume, buffers: &Buffers) -> io::Result<Vec<Used>> {
    let headers = side_by_side(volume.layout.segments as usize, |segment| {
        let segment = segment as u32;
        // What cannot be read is as good as unused; the error shows again when it is written.
        let block = read_block(&*volume.media, volume.layout.segment_at(segment), buffers).ok()?;
        let header = SegmentHeader::decode(&block, volume.layout.id, segment)?;
        Some(Used { segment, sequence: header.sequence, class: header.class })
    })?;
    Ok(headers.into_iter().flatten().collect())
}

/// What `read` gives for each number below `count`, in their order: up to [`READERS`] are read at a time.
fn side_by_side<T: Send>(count: usize, read: impl Fn(usize) -> T + Sync) -> io::Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let read_some = || {
        let mut some = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return some;
            }
            some.push((number, read(number)));
        }
    };
    let joined = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS.min(count)).map(|_| scope.spawn(read_some)).collect();
        readers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let joined: Result<Vec<_>, _> = joined.into_iter().collect();
    let joined = joined.map_err(|_| io::Error::other("a thread that reads the volume died"))?;
    let mut all: Vec<(usize, T)> = joined.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, read)| read).collect())
}

/// The records of a segment, sealed or not.
pub(crate) fn entries(
    volume: &Volume,
    buffers: &Buffers,
    segment: u32,
    sequence: u64,
) -> io::Result<Vec<Entry>> {
    let sealed = read_footer(volume, buffers, segment, sequence)?;
    Ok(sealed.unwrap_or_else(|| scan(volume, buffers, &Used { segment, sequence, class: 0 }).open.entries))
}

/// What a scan has found.
struct Scanned {
    open: Open,
    /// Whether writing can go on behind it.
    goes_on: bool,
}

/// Reads an open segment record by record, up to the first that is not whole.
fn scan(volume: &Volume, buffers: &Buffers, used: &Used) -> Scanned {
    let mut open = Open::new(used.segment, used.sequence);
    let start = volume.layout.segment_at(used.segment);
    let mut end = BLOCK;
    let mut window: Option<(u64, Buffer)> = None;
    let mut last_lsn = 0;
    loop {
        // All that stands before a body must be in the window.
        let wanted = (end + (RECORD_HEAD + 8 * 16 + META_BYTES_MAX) as u64).min(volume.layout.segment_bytes);
        if !window.as_ref().is_some_and(|(base, bytes)| *base <= end && wanted <= base + bytes.len() as u64) {
            let base = end / BLOCK * BLOCK;
            let len = (WINDOW_BYTES as u64).min(volume.layout.segment_bytes - base);
            let mut bytes = buffers.take(len as usize);
            match volume.media.read_at(&mut bytes, start + base) {
                Ok(read) => bytes.truncate(read),
                Err(error) => {
                    volume.read_failed(&error);
                    break;
                }
            }
            window = Some((base, bytes));
        }
        let Some((base, bytes)) = &window else { break };
        let Some(rest) = bytes.get((end - base) as usize..) else { break };
        let Some((head, _)) = RecordHead::parse(rest, volume.layout.salt()) else { break };
        let fits = end + head.bytes() <= volume.layout.segment_bytes;
        if head.sequence != used.sequence || head.lsn <= last_lsn || !fits {
            break;
        }
        last_lsn = head.lsn;
        open.entries.push(Entry {
            key: head.key,
            lsn: head.lsn,
            offset: end as u32,
            bytes: head.bytes() as u32,
            expiry: head.expiry,
            kind: head.kind,
            is_slice: head.is_slice,
        });
        end += head.bytes();
    }
    // Writing goes on in the middle of the last block, so its beginning must be written again.
    open.base = end / BLOCK * BLOCK;
    let rest = (end - open.base) as usize;
    let mut block = buffers.take(BLOCK as usize);
    let goes_on = matches!(volume.media.read_at(&mut block, start + open.base), Ok(read) if read >= rest);
    open.buffer.extend_from_slice(&block[..rest]);
    Scanned { open, goes_on }
}
