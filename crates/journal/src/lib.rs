//! The journal: an ordered, durable log of changes with cells beside it, and the feed by which nodes follow it.
//!
//! ```text
//! writer ─ commit ─► ┌ engine: SQLite (one machine) or etcd (many) ┐ ─ read, changed ─► hub ─ feed ─► nodes, relays
//!                    └ records by position · cells by name · floor ┘                       ◄─ reports ─
//! ```
//!
//! - A **record** is a text at a **position**. Positions ascend and may have gaps. What is acknowledged is never lost, and whoever
//!   reads after a position gets every record above it, in order, or is told that the journal has been trimmed past it.
//! - A **cell** is a named value with a version; a commit may require versions, so that of two writers who knew the same one
//!   wins. Cells and records of a commit appear together or not at all. Nobody elects a leader.
//! - The **digest** of a position is a chain over all records up to it: two who have the same digest have read the same.
//! - **Trimming** takes old records away and moves the **floor**: the position and digest from which a reader can begin.

pub mod etcd;
pub mod feed;
pub mod following;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod sqlite;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// Bytes of a record's text or a cell's value, at most: what etcd takes in one request, less what surrounds it.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Bytes of a commit, at most: its text, and the names and values of its cells. etcd takes 1.5 MiB in one request, in which a
/// name may stand three times.
pub const COMMIT_BYTES_MAX: usize = 5 << 18;

/// Cells that a commit may write, and as many that it may expect: with what an engine adds, half of the 128 operations that etcd
/// takes at once.
pub const CELLS_MAX: usize = 32;

/// Bytes of a cell's name; 1 at least.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Records in a page, whatever limit was asked for.
pub const PAGE_RECORDS_MAX: usize = 1_000;

/// Bytes of texts after which a page ends: memory of a reader, and what goes through one connection at a time.
pub const PAGE_BYTES_MAX: usize = 2 << 20;

/// Where chance comes from: names of journals and of commits, which must not come twice, and how long to wait before dialling again.
pub type Chance = Arc<dyn Fn() -> u128 + Send + Sync>;

/// A future of an engine.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// An engine.
pub trait Journal: Send + Sync + 'static {
    /// The journal's name: drawn by chance when it was begun. Positions of another journal mean nothing.
    fn id(&self) -> &str;

    /// Writes all of it, or nothing. When this returns `Ok`, it is safe from the loss of any one machine's power (SQLite) or of
    /// a minority of machines (etcd). The position is that of the last record; 0 without any.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a cell has another version than expected; nothing was written. After [`Error::Unknown`], it may
    /// have been written or not: read before trying again. [`Error::Broken`] when it is larger than [`Commit::check`] allows.
    fn commit(&self, commit: Commit) -> Work<'_, u64>;

    /// Up to `limit` records above a position, in order; fewer where [`PAGE_RECORDS_MAX`] or [`PAGE_BYTES_MAX`] end the page, at
    /// least one if there is any.
    ///
    /// # Errors
    /// [`Error::Trimmed`] when records above it have been taken away.
    fn read(&self, after: u64, limit: usize) -> Work<'_, Page>;

    /// Up to `limit` records right above a mark that the engine has been told of without asking; none when it would have to ask. It
    /// may know less than [`Journal::read`] does, and nothing else: they follow that mark.
    fn heard(&self, _after: Mark, _limit: usize) -> Vec<Record> {
        Vec::new()
    }

    /// Returns once there is a record above a position, which it may do early.
    fn changed(&self, after: u64) -> Work<'_, ()>;

    /// A cell; `None` when it is absent.
    fn cell(&self, name: &str) -> Work<'_, Option<Cell>>;

    /// All cells whose names start so, by name.
    fn cells(&self, prefix: &str) -> Work<'_, Vec<Cell>>;

    /// Takes records up to a position away and moves the floor to the last of them. Below the floor it does nothing.
    fn trim(&self, through: u64) -> Work<'_, ()>;
}

/// What is to be written together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Cells that must have these versions; 0: must be absent.
    pub expect: Vec<(String, u64)>,
    /// Cells to write; `None` removes.
    pub cells: Vec<(String, Option<Vec<u8>>)>,
    /// The text of a record to append. One at most: a commit has one position.
    pub record: Option<String>,
}

impl Commit {
    /// Writes one cell that must have this version (0: be absent); without a value it is removed.
    pub fn swap(name: impl Into<String>, version: u64, value: Option<Vec<u8>>) -> Self {
        let name = name.into();
        Commit { expect: vec![(name.clone(), version)], cells: vec![(name, value)], record: None }
    }

    /// Whether it is within the limits, which are the same for each engine, so that what one takes another takes too.
    ///
    /// # Errors
    /// [`Error::Broken`] with what was found and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        let refuse =
            |found: String| Err(Error::Broken(format!("a commit has {found}; split it into several")));
        for (what, count) in [("writes", self.cells.len()), ("expects", self.expect.len())] {
            if count > CELLS_MAX {
                return refuse(format!("{count} cells that it {what}, {CELLS_MAX} are allowed"));
            }
        }
        let mut bytes = 0;
        let texts = self.record.iter().map(|text| ("the record".to_owned(), text.len()));
        let values = self.cells.iter().map(|(name, value)| {
            let length = value.as_ref().map_or(0, Vec::len);
            (format!("cell {:?}", name.chars().take(40).collect::<String>()), length)
        });
        for (what, length) in texts.chain(values) {
            if length > TEXT_BYTES_MAX {
                return refuse(format!("{length} bytes in {what}, {TEXT_BYTES_MAX} are allowed"));
            }
            bytes += length;
        }
        let mut written = HashSet::new();
        for (name, _) in &self.cells {
            bytes += name.len();
            if !written.insert(name) {
                return refuse(format!("two values for cell {name:?}"));
            }
        }
        let names = self.cells.iter().map(|(name, _)| name).chain(self.expect.iter().map(|(name, _)| name));
        if let Some(name) = names.into_iter().find(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return refuse(format!(
                "a cell's name of {} bytes, 1 to {NAME_BYTES_MAX} are allowed",
                name.len()
            ));
        }
        if bytes > COMMIT_BYTES_MAX {
            return refuse(format!("{bytes} bytes, {COMMIT_BYTES_MAX} are allowed"));
        }
        Ok(())
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub position: u64,
    /// Its text: JSON of [`model::change::Written`], byte for byte as it was written.
    pub text: Arc<str>,
}

/// A part of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub records: Vec<Record>,
    /// Whether there are more.
    pub has_more: bool,
    /// From where a reader can begin.
    pub floor: Mark,
}

/// A cell as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
    /// Changes with each write; at least 1.
    pub version: u64,
}

/// A position and what has been read up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The position; 0 before the first record.
    pub position: u64,
    /// The chain over all records up to it.
    pub digest: Digest,
}

/// A chain over records: 16 bytes, in hex where it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

impl Mark {
    /// The mark after one more record.
    pub fn then(self, record: &Record) -> Mark {
        let mut bytes = Vec::with_capacity(24 + record.text.len());
        bytes.extend_from_slice(&self.digest.0);
        bytes.extend_from_slice(&record.position.to_be_bytes());
        bytes.extend_from_slice(record.text.as_bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..16]);
        Mark { position: record.position, digest: Digest(half) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        let wrong = || serde::de::Error::custom(format!("{text:?} is not a digest; wanted 32 hex digits"));
        number.map(|number| Digest(number.to_be_bytes())).ok_or_else(wrong)
    }
}

/// Why an engine did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A cell has another version than expected: its name.
    Conflict(String),
    /// The journal begins later by now.
    Trimmed(Mark),
    /// Nothing was written or read, and trying again may help: the engine cannot be reached, is busy, has no leader.
    Unavailable(String),
    /// It may have been written or not: the answer got lost.
    Unknown(String),
    /// Trying again is of no use: what was found, and what to do.
    Broken(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Conflict(cell) => write!(f, "{cell:?} has been changed by somebody else meanwhile"),
            Error::Trimmed(floor) => write!(f, "the journal begins after position {} by now", floor.position),
            Error::Unavailable(why) => write!(f, "the journal cannot be reached, nothing was written: {why}"),
            Error::Unknown(why) => write!(f, "whether it was written is not known: {why}"),
            Error::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}
