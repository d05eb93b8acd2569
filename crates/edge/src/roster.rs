//! Which disks were in use, from one start to the next: what a disk that was missing holds must not come back, because what
//! was taken away meanwhile, by unsafe requests or by newer responses, could not be taken away from it. (A purge could: the
//! purge log knows it.) A file in the state directory:
//!
//! ```text
//! {"version":1,"in_use":["store","/mnt/nvme1"]}
//! ```
//!
//! A disk that is not in it is begun anew, also after the edge has run without any. Where there is no such file there have
//! never been disks, and each is taken as it is. Disks in the state directory go by their names there, so it can be moved.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::purge_log::{replace, sync_directory};

const VERSION: u32 = 1;

/// The file's name.
const FILE: &str = "disks";

/// The disks in use, by name, as the next start will know them.
pub(crate) struct Roster {
    state: PathBuf,
    in_use: BTreeSet<String>,
}

/// What the last start has left.
pub(crate) enum Known {
    /// There were never any disks.
    Nothing,
    /// These were used to its end.
    Disks(BTreeSet<String>),
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    in_use: BTreeSet<String>,
}

impl Roster {
    /// What the last start has left in a state directory. A file that is damaged names no disk.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn read(state: &Path) -> io::Result<Known> {
        let bytes = match fs::read(state.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Known::Nothing),
            Err(error) => return Err(error),
        };
        let written: Option<Written> = serde_json::from_slice(&bytes).ok();
        let written = written.filter(|written| written.version == VERSION);
        Ok(Known::Disks(written.map(|written| written.in_use).unwrap_or_default()))
    }

    /// Notes which disks are in use from now on, by the names of their shelves; in force when it returns.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn begin(state: &Path, names: &[String]) -> io::Result<Self> {
        let in_use = names.iter().map(|name| name_in(state, name)).collect();
        let roster = Roster { state: state.to_owned(), in_use };
        roster.write()?;
        Ok(roster)
    }

    /// Notes that a disk cannot be used any more, or could not be told what was taken away.
    pub(crate) fn strike(&mut self, name: &str) {
        if self.in_use.remove(&name_in(&self.state, name))
            && let Err(error) = self.write()
        {
            eprintln!(
                "perigee: {}: cannot be written: {error}; remove what is on the disk {name} before the next start",
                self.state.join(FILE).display()
            );
        }
    }

    fn write(&self) -> io::Result<()> {
        let written = Written { version: VERSION, in_use: self.in_use.clone() };
        let path = self.state.join(FILE);
        replace(&path, &serde_json::to_vec(&written)?)?;
        sync_directory(&path)
    }
}

impl Known {
    /// Whether what a disk holds is to be trusted.
    pub(crate) fn trusts(&self, state: &Path, name: &str) -> bool {
        match self {
            Known::Nothing => true,
            Known::Disks(in_use) => in_use.contains(&name_in(state, name)),
        }
    }
}

fn name_in(state: &Path, name: &str) -> String {
    let path = Path::new(name);
    path.strip_prefix(state).unwrap_or(path).display().to_string()
}
