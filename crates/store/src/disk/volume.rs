//! What readers and the writer of one disk share: the file, where everything is in it, and how it fares.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::admission::Admission;
use super::format::Superblock;
use super::index::{Index, Place};
use super::media::Media;

/// Errors of a disk, but for a full one, after which it is dropped until the next start. A medium that fails now and then
/// fails for good before long, and each error costs a visitor a wait.
pub(crate) const ERRORS_MAX: u32 = 16;

/// One disk.
pub(crate) struct Volume {
    /// What people call it: its directory.
    pub(crate) name: String,
    pub(crate) media: Arc<dyn Media>,
    pub(crate) layout: Superblock,
    pub(crate) index: Index,
    /// By segment: which use it is in; 0 for none.
    pub(crate) sequences: Box<[AtomicU64]>,
    pub(crate) counts: Counts,
    pub(crate) admission: Mutex<Admission>,
    pub(crate) ledger: Mutex<Ledger>,
    failed: AtomicBool,
    full: AtomicBool,
    errors: AtomicU32,
    fleet: Arc<Fleet>,
}

/// What all disks of a node know of one another.
#[derive(Default)]
pub(crate) struct Fleet {
    /// Disks dropped since the start.
    pub(crate) dropped: AtomicU64,
    /// Whether a key is in use where the disks cannot see it: see [`super::Disks::keep`].
    in_use: Arc<OnceLock<InUse>>,
}

impl Fleet {
    pub(crate) fn new(in_use: Arc<OnceLock<InUse>>) -> Self {
        Fleet { dropped: AtomicU64::new(0), in_use }
    }
}

pub(crate) type InUse = Box<dyn Fn(u128) -> bool + Send + Sync>;

/// What was asked of the writer and is not in the index yet.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Order of what is asked.
    pub(crate) tickets: u64,
    /// How many values of a key wait to be written.
    pub(crate) waiting: HashMap<u128, u32>,
    /// Keys removed, and by which ticket: a value asked for earlier must not come into the index any more.
    pub(crate) removed: HashMap<u128, u64>,
    /// Keys whose removal has been written but may not outlast a loss of power yet. A value that comes after it must not be
    /// forgotten before the removed one either, should the removal alone be lost: see `Log::room_for`.
    pub(crate) unsynced: HashSet<u128>,
}

macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Events of one disk since its start. Relaxed: for display, not for decisions.
        #[derive(Default)]
        pub(crate) struct Counts { $(pub(crate) $name: AtomicU64,)* }

        /// What a disk holds and did: totals since its start unless said otherwise.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct DiskStats {
            /// The disk's directory.
            pub name: String,
            /// How it fares now.
            pub health: Health,
            /// Records that the index knows of: objects and slices.
            pub records: u64,
            /// Bytes of memory that the index takes.
            pub index_bytes: u64,
            /// Bytes of its segments, used or not.
            pub bytes_max: u64,
            /// Bytes of the segments that are in use.
            pub bytes: u64,
            /// Bytes that wait to be written.
            pub queued_bytes: u64,
            /// Values that were put and cannot be looked up yet.
            pub waiting: u64,
            /// Removals that are in force and not on the disk yet.
            pub unwritten_removals: u64,
            /// Reads under way.
            pub reading: u64,
            /// Seconds for which the oldest segment has been in use; 0 before the disk was filled once.
            pub oldest_segment_secs: u64,
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counts {
            fn stats(&self) -> DiskStats {
                DiskStats { $($name: self.$name.load(Ordering::Relaxed),)* ..DiskStats::default() }
            }
        }
    };
}

counts! {
    /// Look-ups that found a record.
    found,
    /// Look-ups that found none.
    absent,
    /// Values written at first.
    filled,
    /// Values copied forward when their segment was evicted.
    rewritten,
    /// Bytes written for values and removals.
    filled_bytes,
    /// Bytes written to copy values forward.
    rewritten_bytes,
    /// Bytes written beside these: padding, segment headers and footers, index snapshots.
    overhead_bytes,
    /// Bytes of the bodies and metas in what was filled.
    payload_bytes,
    /// Values evicted.
    evicted,
    /// Values removed or replaced.
    removed,
    /// Values not written because they were asked for once and the write budget is low.
    refused_first_sight,
    /// Values not written because the write budget is used up.
    refused_over_budget,
    /// Values given up because the disk is slow: its queue was full.
    refused_queue_full,
    /// Values given up because the disk is full, or a write failed.
    refused_write_failed,
    /// Records that were not what was written.
    damaged,
    /// Reads that failed.
    read_errors,
    /// Writes that failed.
    write_errors,
    /// Bytes read.
    read_bytes,
}

/// How a disk fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It is read and written.
    #[default]
    Well,
    /// It is read; a write found no room.
    Full,
    /// It had too many errors and is out of use until the next start.
    Failed,
}

impl Health {
    /// As the API and reports have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Well => "well",
            Health::Full => "full",
            Health::Failed => "failed",
        }
    }
}

pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Whether there was no room, and nothing is wrong with the disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Volume {
    pub(crate) fn new(
        name: String,
        media: Arc<dyn Media>,
        layout: Superblock,
        admission: Admission,
        fleet: Arc<Fleet>,
    ) -> Self {
        Volume {
            name,
            media,
            layout,
            index: Index::new(),
            sequences: (0..layout.segments).map(|_| AtomicU64::new(0)).collect(),
            counts: Counts::default(),
            admission: Mutex::new(admission),
            ledger: Mutex::default(),
            failed: AtomicBool::new(false),
            full: AtomicBool::new(false),
            errors: AtomicU32::new(0),
            fleet,
        }
    }

    /// Whether a key is held in memory, so that its look-ups never come here.
    pub(crate) fn is_in_use(&self, key: u128) -> bool {
        self.fleet.in_use.get().is_some_and(|in_use| in_use(key))
    }

    pub(crate) fn sequence(&self, segment: u32) -> u64 {
        self.sequences.get(segment as usize).map_or(0, |sequence| sequence.load(Ordering::Acquire))
    }

    /// Where a place begins in the file.
    pub(crate) fn at(&self, place: &Place) -> u64 {
        self.layout.segment_at(place.segment) + u64::from(place.offset)
    }

    pub(crate) fn health(&self) -> Health {
        match (self.failed.load(Ordering::Relaxed), self.full.load(Ordering::Relaxed)) {
            (true, _) => Health::Failed,
            (false, true) => Health::Full,
            (false, false) => Health::Well,
        }
    }

    /// Takes note of whether there is room in the file system for what has none in the file yet.
    pub(crate) fn set_full(&self, full: bool) {
        if self.full.swap(full, Ordering::Relaxed) != full {
            match full {
                true => eprintln!(
                    "perigee: {}: the disk is full; what is stored is still served, and what is new takes the place of the oldest",
                    self.name
                ),
                false => eprintln!("perigee: {}: there is room again", self.name),
            }
        }
    }

    /// Takes note of a failed read.
    pub(crate) fn read_failed(&self, error: &io::Error) {
        count(&self.counts.read_errors, 1);
        self.error("read", error);
    }

    /// Takes note of a failed write.
    pub(crate) fn write_failed(&self, error: &io::Error) {
        count(&self.counts.write_errors, 1);
        match is_full(error) {
            true => self.set_full(true),
            false => self.error("write", error),
        }
    }

    fn error(&self, what: &str, error: &io::Error) {
        let errors = self.errors.fetch_add(1, Ordering::Relaxed) + 1;
        if errors == 1 {
            eprintln!(
                "perigee: {}: cannot {what}: {error}; after {ERRORS_MAX} errors the disk is dropped",
                self.name
            );
        }
        if errors >= ERRORS_MAX && !self.failed.swap(true, Ordering::Relaxed) {
            self.fleet.dropped.fetch_add(1, Ordering::Relaxed);
            eprintln!(
                "perigee: {}: dropped after {errors} errors, the last one: {error}; look at the disk, then start anew",
                self.name
            );
        }
    }

    /// Disks dropped since the start, this one among them if it was.
    pub(crate) fn dropped(&self) -> u64 {
        self.fleet.dropped.load(Ordering::Relaxed)
    }

    /// What the disk holds and did.
    pub(crate) fn stats(&self) -> DiskStats {
        let (waiting, unwritten_removals) = {
            let ledger = self.ledger.lock();
            (ledger.waiting.len() as u64, ledger.removed.len() as u64)
        };
        let in_use = self.sequences.iter().filter(|sequence| sequence.load(Ordering::Relaxed) > 0).count();
        DiskStats {
            name: self.name.clone(),
            health: self.health(),
            records: self.index.len(),
            index_bytes: self.index.memory_bytes(),
            waiting,
            unwritten_removals,
            bytes: in_use as u64 * self.layout.segment_bytes,
            bytes_max: u64::from(self.layout.segments) * self.layout.segment_bytes,
            ..self.counts.stats()
        }
    }
}
