//! Opening what outlives the process: the purge log first, then the disks whose contents it speaks for.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use model::ByteSize;
use model::purge::{Limits, Purge, PurgeClock};
use model::settings::StoreSettings;
use rustix::fs::statvfs;
use semantics::key::{KeySeed, hash};
use store::InFlight;
use store::disk::{Directory, DiskConfig, Disks, DisksConfig, EngineKind, OpenError, OpenReports, Opened};

use crate::clock::Clock;
use crate::handle::StartError;
use crate::loaded::SiteNumbers;
use crate::meta::{Meta, ResponseMeta};
use crate::past::Past;
use crate::purge_log::{Positions, PurgeLog, Replayed};
use crate::tiering::minutes;
use crate::worker::Shared;

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
    /// What sites have had.
    pub(crate) past: Past,
    /// The newest purge's position.
    pub(crate) newest: u64,
}

/// Where it is, and what it needs to be told.
pub(crate) struct Place {
    pub(crate) settings: StoreSettings,
    pub(crate) state: Option<PathBuf>,
    pub(crate) key_seed: [u8; 16],
    pub(crate) clock: Clock,
    pub(crate) engine: Option<EngineKind>,
    /// What counts what is read from the disks.
    pub(crate) in_flight: InFlight,
}

impl Place {
    /// Opens the purge log and the disks, and tells the operator what was found. A disk that cannot be opened is left out, as
    /// long as there is another.
    ///
    /// # Errors
    /// Disks without a state directory or a purge log; no disk that can be opened.
    pub(crate) fn open(&self, sites: &SiteNumbers) -> Result<Storage, StartError> {
        let mut purges = PurgeClock::new(Limits::default());
        if self.settings.disks.is_empty() {
            // What is purged or outdated from now on cannot be taken away from the disks that there were.
            if let Some(path) = self.log_path().filter(|path| path.exists()) {
                PurgeLog::revoke(&path).map_err(|error| StartError::PurgeLog(path, error))?;
                eprintln!(
                    "perigee: there are no disks now; what earlier ones hold is dropped when they come back"
                );
            }
            let (disks, _) = Disks::open(Vec::new(), &self.common(0));
            let positions = Positions::default();
            let past = Past::default();
            return Ok(Storage { disks, purge_log: None, positions, purges, past, newest: 0 });
        }
        let (log, replayed) = self.open_log(sites)?;
        for (position, kind, target) in &replayed.purges {
            purges.record(Purge { target: target.clone(), kind: *kind }, *position);
        }
        let mut opened = None;
        self.open_disks(&log, |configs, common| {
            let (disks, reports) = Disks::open(configs, common);
            opened = Some(disks);
            reports
        })?;
        let disks = opened.ok_or_else(|| StartError::Disks("none was opened".to_owned()))?;
        let Replayed { positions, past, newest, .. } = replayed;
        Ok(Storage { disks, purge_log: Some(log), positions, purges, past, newest })
    }

    /// Opens again what was closed for another process, which did not come to use it for long. What the edge has
    /// invalidated meanwhile stays so.
    ///
    /// # Errors
    /// As [`Place::open`]; then the edge goes on from memory, and the next start drops what the disks hold.
    pub(crate) fn reopen(&self, shared: &Shared) -> Result<(), StartError> {
        if self.settings.disks.is_empty() {
            return Ok(());
        }
        let past = shared.past.lock();
        let reopened = self.open_log(&shared.site_numbers).and_then(|(mut log, replayed)| {
            log.note_sites(past.lines_beyond(&replayed.past))
                .and_then(|to_sync| to_sync.map_or(Ok(()), |file| file.sync_data()))
                .map_err(|error| StartError::PurgeLog(log.path().to_owned(), error))?;
            {
                // Held as by who records a purge: a position that is on its way into force must not take this one back.
                let _no_other = shared.purge_log.lock();
                let mut purges = shared.purges.write();
                let known = shared.purge_position.load(Ordering::Relaxed);
                // Of the other process, if there are any: what was not acknowledged may be in force.
                for (position, kind, target) in replayed.purges {
                    if position > known {
                        purges.record(Purge { target, kind }, position);
                    }
                }
                shared.purge_position.fetch_max(replayed.newest, Ordering::AcqRel);
            }
            *shared.positions.write() = replayed.positions;
            self.open_disks(&log, |configs, common| shared.disks.reopen(configs, common))?;
            Ok(log)
        });
        match reopened {
            Ok(log) => *shared.purge_log.lock() = Some(log),
            Err(error) => {
                let revoked = self.log_path().map_or(Ok(()), |path| PurgeLog::revoke(&path));
                if let Err(cause) = revoked {
                    eprintln!(
                        "perigee: the purge log cannot be removed: {cause}; remove it before the next start"
                    );
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Where the purge log is.
    pub(crate) fn log_path(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|state| state.join(PURGE_LOG))
    }

    fn common(&self, owner: u128) -> DisksConfig {
        let clock = self.clock.clone();
        DisksConfig {
            owner,
            chance: chance(),
            minutes: Arc::new(move || minutes(clock.wall().secs())),
            engine: self.engine.unwrap_or_else(EngineKind::probe),
            in_flight: self.in_flight.clone(),
        }
    }

    fn open_log(&self, sites: &SiteNumbers) -> Result<(PurgeLog, Replayed), StartError> {
        let path =
            self.log_path().ok_or_else(|| StartError::Disks("there is no state directory".to_owned()))?;
        let (log, replayed) = PurgeLog::open(&path, chance(), sites)
            .map_err(|error| StartError::PurgeLog(path.clone(), error))?;
        if let Some(reason) = &replayed.begun_anew {
            eprintln!(
                "perigee: {}: {reason}; what is on disk cannot be trusted any more and is dropped",
                path.display()
            );
        }
        Ok((log, replayed))
    }

    fn open_disks(
        &self,
        log: &PurgeLog,
        open: impl FnOnce(Vec<DiskConfig>, &DisksConfig) -> OpenReports,
    ) -> Result<(), StartError> {
        let owner = hash(&KeySeed(self.key_seed), &[b"owner", &log.id().to_le_bytes()[..]].concat());
        let common = self.common(owner);
        let mut configs = Vec::new();
        let mut sizes = HashMap::new();
        let mut failed = Vec::new();
        for disk in &self.settings.disks {
            let default = || self.state.clone().unwrap_or_default().join(DEFAULT_DIRECTORY);
            let path = disk.path.clone().unwrap_or_else(default);
            match Directory::create(&path) {
                Ok(shelf) => {
                    sizes.insert(path.display().to_string(), disk.size);
                    configs.push(DiskConfig {
                        shelf: Arc::new(shelf),
                        bytes: disk.size.0,
                        writes_per_day: disk.writes_per_day,
                    });
                }
                Err(error) => failed.push(format!("{}: {error}", path.display())),
            }
        }
        let started = Instant::now();
        let mut opened_any = false;
        for (name, opened) in open(configs, &common) {
            match opened {
                Ok(opened) => {
                    opened_any = true;
                    let size = sizes.get(&name).copied().unwrap_or_default();
                    eprintln!("perigee: {name}: {}", sentence(&opened, Path::new(&name), size));
                }
                Err(error) => failed.push(format!("{name}: {}", told(&error))),
            }
        }
        if !opened_any {
            return Err(StartError::Disks(failed.join("; ")));
        }
        failed.iter().for_each(|reason| eprintln!("perigee: {reason}; this disk is not used"));
        eprintln!(
            "perigee: disks are open after {} ms, read by {}",
            started.elapsed().as_millis(),
            common.engine.as_str()
        );
        Ok(())
    }
}

fn told(error: &OpenError) -> String {
    match error {
        OpenError::Io(cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

fn sentence(opened: &Opened, directory: &Path, size: ByteSize) -> String {
    let sparse = match opened.is_sparse {
        true => {
            let free = statvfs(directory).map_or(0, |system| system.f_bavail.saturating_mul(system.f_frsize));
            let free = ByteSize(free >> 20 << 20);
            format!("; the file system promises no room for all of it ({size} wanted, {free} free)")
        }
        false => String::new(),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_says_how_much_is_wanted_and_how_much_is_free() {
        let opened = Opened { is_new: true, is_sparse: true, ..Opened::default() };
        let told = sentence(&opened, Path::new("/"), ByteSize(20 << 30));
        assert!(told.contains("room for all of it (20GiB wanted, ") && told.ends_with("B free)"), "{told}");
    }
}
