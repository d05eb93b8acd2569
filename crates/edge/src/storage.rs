//! Opening what outlives the process: the purge log first, then the disks whose contents it speaks for.

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use model::purge::{Limits, Purge, PurgeClock};
use model::settings::StoreSettings;
use semantics::key::{KeySeed, hash};
use store::disk::{Directory, DiskConfig, Disks, DisksConfig, EngineKind, OpenError, Opened};

use crate::clock::Clock;
use crate::handle::StartError;
use crate::loaded::SiteNumbers;
use crate::meta::{Meta, ResponseMeta};
use crate::purge_log::{Positions, PurgeLog};
use crate::tiering::minutes;

/// Directory of a disk that names none, in the state directory.
pub(crate) const DEFAULT_DIRECTORY: &str = "store";

/// The purge log's file in the state directory.
const PURGE_LOG: &str = "purges";

/// What outlives the process, opened.
pub(crate) struct Storage {
    pub(crate) disks: Disks,
    /// `None` where there have never been disks: then nothing outlives the process that a purge could be about.
    pub(crate) purge_log: Option<PurgeLog>,
    /// Which positions the log knows.
    pub(crate) positions: Positions,
    pub(crate) purges: PurgeClock,
    /// The newest purge's position.
    pub(crate) newest: u64,
}

impl Storage {
    /// Opens the purge log and the disks, and tells the operator what was found. A disk that cannot be opened is left out, as
    /// long as there is another.
    ///
    /// # Errors
    /// Disks without a state directory or a purge log; no disk that can be opened.
    pub(crate) fn open(
        settings: &StoreSettings,
        state: Option<&Path>,
        key_seed: &[u8; 16],
        clock: &Clock,
        sites: &SiteNumbers,
        engine: Option<EngineKind>,
    ) -> Result<Self, StartError> {
        let mut purges = PurgeClock::new(Limits::default());
        let common = |owner| {
            let clock = clock.clone();
            DisksConfig {
                owner,
                chance: chance(),
                minutes: Arc::new(move || minutes(clock.wall().secs())),
                engine: engine.unwrap_or_else(EngineKind::probe),
            }
        };
        let path = state.map(|state| state.join(PURGE_LOG));
        if settings.disks.is_empty() {
            // What is purged or outdated from now on cannot be taken away from the disks that there were.
            if let Some(path) = path.filter(|path| path.exists()) {
                PurgeLog::revoke(&path).map_err(|error| StartError::PurgeLog(path, error))?;
                eprintln!(
                    "perigee: there are no disks now; what earlier ones hold is dropped when they come back"
                );
            }
            let (disks, _) = Disks::open(Vec::new(), &common(0));
            let positions = Positions::default();
            return Ok(Storage { disks, purge_log: None, positions, purges, newest: 0 });
        }
        let (Some(state), Some(path)) = (state, path) else {
            return Err(StartError::Disks("there is no state directory".to_owned()));
        };
        let (log, replayed) = PurgeLog::open(&path, chance(), sites)
            .map_err(|error| StartError::PurgeLog(path.clone(), error))?;
        if let Some(reason) = &replayed.begun_anew {
            eprintln!(
                "perigee: {}: {reason}; what is on disk cannot be trusted any more and is dropped",
                path.display()
            );
        }
        for (position, kind, target) in replayed.purges {
            purges.record(Purge { target, kind }, position);
        }
        let owner = hash(&KeySeed(*key_seed), &[b"owner", &log.id().to_le_bytes()[..]].concat()).0;
        let common = common(owner);
        let mut configs = Vec::new();
        let mut failed = Vec::new();
        for disk in &settings.disks {
            let path = disk.path.clone().unwrap_or_else(|| state.join(DEFAULT_DIRECTORY));
            match Directory::create(&path) {
                Ok(shelf) => configs.push(DiskConfig {
                    shelf: Arc::new(shelf),
                    bytes: disk.size.0,
                    writes_per_day: disk.writes_per_day,
                }),
                Err(error) => failed.push(format!("{}: {error}", path.display())),
            }
        }
        let started = Instant::now();
        let (disks, reports) = Disks::open(configs, &common);
        for (name, opened) in reports {
            match opened {
                Ok(opened) => eprintln!("perigee: {name}: {}", sentence(&opened)),
                Err(error) => failed.push(format!("{name}: {}", told(&error))),
            }
        }
        if disks.is_empty() {
            return Err(StartError::Disks(failed.join("; ")));
        }
        failed.iter().for_each(|reason| eprintln!("perigee: {reason}; this disk is not used"));
        eprintln!(
            "perigee: disks are open after {} ms, read by {}",
            started.elapsed().as_millis(),
            common.engine.as_str()
        );
        let positions = replayed.positions;
        Ok(Storage { disks, purge_log: Some(log), positions, purges, newest: replayed.newest })
    }
}

fn told(error: &OpenError) -> String {
    match error {
        OpenError::Io(cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

fn sentence(opened: &Opened) -> String {
    let sparse = if opened.is_sparse { "; the file system promises no room for all of it" } else { "" };
    match (opened.is_new, opened.scanned) {
        (true, _) => format!("begun anew{sparse}"),
        (false, 0) => format!("records: {}{sparse}", opened.records),
        (false, scanned) => {
            format!("records: {}; segments read record by record: {scanned}{sparse}", opened.records)
        }
    }
}

/// A number that nobody can foresee, from the operating system.
pub(crate) fn chance() -> u128 {
    let half = || u128::from(std::hash::RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

// --- For `perigee store` ---

/// What can be told of a directory that holds a disk of the cache.
pub mod inspect {
    pub use store::disk::{Inspection, OpenError};

    use super::*;

    /// One record, in words.
    pub struct Item {
        /// Its key.
        pub key: u128,
        /// `response`, `response in slices`, `variants`, `slice`, or `damaged`.
        pub form: &'static str,
        /// The URL that it was stored for; empty for slices.
        pub url: String,
        /// The response's status.
        pub status: Option<u16>,
        /// Bytes of the body, slices included whether they are there or not.
        pub body_bytes: u64,
        /// Bytes of the record on disk.
        pub record_bytes: u32,
        /// The purge position that was known when its fetch began.
        pub position: Option<u64>,
        /// Minutes since 1970 after which it is of no use.
        pub expiry: u32,
        /// Where it lies: segment, and offset in it.
        pub place: (u32, u32),
    }

    /// Opens the disk in a directory for reading; an edge may use it meanwhile.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(directory: &Path) -> Result<Inspection, OpenError> {
        Inspection::open(&Directory::read_only(directory))
    }

    /// Where `perigee serve` keeps a disk that names no directory.
    pub fn default_directory(state: &Path) -> PathBuf {
        state.join(DEFAULT_DIRECTORY)
    }

    /// Reads and verifies every record; `look` returns whether to go on.
    ///
    /// # Errors
    /// Those of reading the list of records of a segment.
    pub fn for_each(disk: &Inspection, mut look: impl FnMut(Item) -> bool) -> io::Result<()> {
        disk.for_each(|record| {
            let mut item = Item {
                key: record.key,
                form: "damaged",
                url: String::new(),
                status: None,
                body_bytes: 0,
                record_bytes: record.bytes,
                position: None,
                expiry: record.expiry,
                place: (record.segment, record.offset),
            };
            if let Ok((meta, body_len)) = &record.content {
                item.body_bytes = u64::from(*body_len);
                match Meta::parse(meta) {
                    Some(Meta::Slice) => item.form = "slice",
                    Some(Meta::Variants(_, url)) => (item.form, item.url) = ("variants", url),
                    Some(Meta::Response(ResponseMeta { facts, position, url, slices, .. })) => {
                        item.form = if slices.is_some() { "response in slices" } else { "response" };
                        item.body_bytes = slices.map_or(item.body_bytes, |(_, len)| len);
                        (item.url, item.status, item.position) = (url, Some(facts.status), Some(position));
                    }
                    None => {}
                }
            }
            look(item)
        })
    }
}
