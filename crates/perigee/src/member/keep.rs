//! What a node of a cluster keeps, so that it boots and serves from its own disk alone.
//!
//! ```text
//! STATE/cluster/               0700
//!   key.pem, certificate.pem, authority.pem    who it is, and whom it believes (`trust`)
//!   place                      up to where it has followed which journal, the newest plan, when it last heard
//!   running                    the configuration that it last put in force
//!   starts                     how often its program was started
//!   trial                      there while a configuration runs that is not the stable one
//!   configurations/HASH.toml   texts: of the plan's stable configuration, and of the one in force
//! ```
//!
//! Each file is replaced as a whole, but for the place, which is written with each purge: see [`Places`]. A text is believed for its hash, and the hash for the cluster's signature, each time that it
//! is read: nothing in here is trusted because it is here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::following::Place;
use model::change::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trust::{Identity, make_private_directory, text_hash, write_private};

use crate::configuration::Told;
use crate::failure::Failure;

const DIRECTORY: &str = "cluster";
const PLACE: &str = "place";
const RUNNING: &str = "running";
const STARTS: &str = "starts";
const TRIAL: &str = "trial";
const TEXTS: &str = "configurations";

/// The directory of a node's own.
#[derive(Clone, Debug)]
pub(crate) struct Keep(PathBuf);

/// A place, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) place: Place,
    /// When the node last knew that it had missed nothing, in ms since 1970; 0 for never.
    #[serde(default)]
    pub(crate) heard_ms: i64,
}

impl Keep {
    /// In this state directory. Makes it.
    pub(crate) fn of(state: &Path) -> Result<Self, Failure> {
        let keep = Keep(state.join(DIRECTORY));
        for directory in [keep.0.clone(), keep.0.join(TEXTS)] {
            make_private_directory(&directory).map_err(|error| {
                Failure::new(
                    format!("{}: cannot be created: {error}", directory.display()),
                    "choose a place that this user may write to with --state DIR",
                )
            })?;
        }
        Ok(keep)
    }

    /// Where identities are kept.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Up to where the node has followed; from the beginning when that cannot be read: then it begins anew, and trusts nothing
    /// that was stored before.
    pub(crate) fn place(&self) -> Kept {
        let path = self.0.join(PLACE);
        match read_places(&path) {
            Ok(found) => found.map(|(_, kept)| kept).unwrap_or_default(),
            Err(error) => {
                eprintln!("perigee: {}: {error}; this node begins anew", path.display());
                Kept::default()
            }
        }
    }

    /// To write the place.
    pub(crate) fn places(&self) -> Places {
        Places { path: self.0.join(PLACE), open: None }
    }

    /// The configuration that was last put in force.
    pub(crate) fn running(&self) -> Option<Version> {
        self.read(RUNNING).unwrap_or_else(|error| {
            eprintln!("perigee: {error}");
            None
        })
    }

    pub(crate) fn write_running(&self, version: &Version) -> io::Result<()> {
        write_private(&self.0.join(RUNNING), &serde_json::to_vec(version)?)
    }

    /// Counts one more start, if this is one; how many there have been.
    pub(crate) fn count_start(&self, is_start: bool) -> u64 {
        let starts = self.read::<u64>(STARTS).unwrap_or_default() + u64::from(is_start);
        let path = self.0.join(STARTS);
        if let Err(error) = write_private(&path, starts.to_string().as_bytes()) {
            eprintln!("perigee: {}: cannot be written: {error}", path.display());
        }
        starts
    }

    /// Notes whether a configuration is on trial.
    pub(crate) fn note_trial(&self, is_on_trial: bool) {
        let path = self.0.join(TRIAL);
        let noted = match is_on_trial {
            true if path.exists() => return,
            true => write_private(&path, b""),
            false => fs::remove_file(&path),
        };
        match noted {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("perigee: {}: cannot be written: {error}", path.display());
            }
            _ => {}
        }
    }

    /// Whether the program has ended, not of its own accord, while a configuration was on trial.
    pub(crate) fn died_on_trial(&self) -> bool {
        self.0.join(TRIAL).exists()
    }

    /// A configuration that is here and as the cluster has signed it.
    pub(crate) fn told(&self, version: &Version, identity: &Identity) -> Option<Told> {
        if !is_signed(version, identity) {
            return None;
        }
        let text = fs::read(self.text_path(&version.hash)?).ok()?;
        check_text(version, text).ok()
    }

    /// Keeps a configuration's text.
    pub(crate) fn write_text(&self, told: &Told) -> io::Result<()> {
        let Some(path) = self.text_path(&told.version.hash) else { return Ok(()) };
        write_private(&path, told.text.as_bytes())
    }

    /// Takes away all texts but these.
    pub(crate) fn retain(&self, versions: &[&Version]) {
        let Ok(files) = fs::read_dir(self.0.join(TEXTS)) else { return };
        for file in files.flatten() {
            let is_wanted = versions.iter().any(|version| {
                self.text_path(&version.hash).is_some_and(|path| path.file_name() == Some(&file.file_name()))
            });
            if !is_wanted {
                // It is in nobody's way.
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// `None` for what is no hash: it comes from elsewhere, and becomes a file name.
    fn text_path(&self, hash: &str) -> Option<PathBuf> {
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hash.then(|| self.0.join(TEXTS).join(format!("{hash}.toml")))
    }

    fn read<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, String> {
        let path = self.0.join(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| format!("{}: is not what was written: {error}", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
            Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
        }
    }
}

/// Whether the cluster's authority has signed this version.
pub(crate) fn is_signed(version: &Version, identity: &Identity) -> bool {
    identity.is_by_authority(&Version::signed(version.number, &version.hash), &version.signature)
}

/// Whether a text is that of a version.
///
/// # Errors
/// In words, if not.
pub(crate) fn check_text(version: &Version, text: Vec<u8>) -> Result<Told, String> {
    let found = text_hash(&text);
    if found != version.hash {
        return Err(format!("its text has the hash {found}; wanted {}", version.hash));
    }
    let text = String::from_utf8(text).map_err(|error| format!("its text is not UTF-8: {error}"))?;
    Ok(Told { version: version.clone(), text: text.into() })
}

/// The file of the place: two slots of equal length, written in turn, each with a sum. A place is written over the one before the last, so
/// that no loss of power takes both, and nothing of the file changes but its content: one sync of one block, where a new file of a new name
/// takes three.
///
/// ```text
/// <64 hex digits: SHA-256 of the rest of the line> <number, one higher each time> <JSON>\n spaces up to the next slot
/// ```
pub(crate) struct Places {
    path: PathBuf,
    open: Option<Slots>,
}

struct Slots {
    file: File,
    length: usize,
    number: u64,
}

/// Length of a slot: a block. Longer ones have twice as much, or four times.
const SLOT_BYTES: usize = 4_096;
/// A file that is longer is none of ours.
const PLACES_BYTES_MAX: u64 = 64 << 20;

impl Places {
    /// Writes a place. When this returns, it is safe also from a loss of power.
    ///
    /// # Errors
    /// Of the file system; the place before it is still there.
    pub(crate) fn write(&mut self, kept: &Kept) -> io::Result<()> {
        // After a failure, the file is looked at anew.
        let written = match self.open.take() {
            Some(slots) => slots.write(kept)?,
            None => None,
        };
        self.open = Some(match written {
            Some(slots) => slots,
            None => self.begin(kept)?,
        });
        Ok(())
    }

    /// Writes a new file with two slots that are long enough.
    fn begin(&self, kept: &Kept) -> io::Result<Slots> {
        let number = read_places(&self.path).ok().flatten().map_or(0, |(number, _)| number) + 1;
        let line = line_of(number, kept)?;
        let length = line.len().next_multiple_of(SLOT_BYTES).next_power_of_two();
        let mut content = vec![b' '; 2 * length];
        let start = slot_of(number) * length;
        content[start..start + line.len()].copy_from_slice(&line);
        write_private(&self.path, &content)?;
        let file = OpenOptions::new().write(true).open(&self.path)?;
        Ok(Slots { file, length, number })
    }
}

impl Slots {
    /// `None` when it is longer than a slot.
    fn write(self, kept: &Kept) -> io::Result<Option<Slots>> {
        let number = self.number + 1;
        let mut line = line_of(number, kept)?;
        if line.len() > self.length {
            return Ok(None);
        }
        line.resize(self.length, b' ');
        self.file.write_all_at(&line, (slot_of(number) * self.length) as u64)?;
        self.file.sync_data()?;
        Ok(Some(Slots { number, ..self }))
    }
}

fn slot_of(number: u64) -> usize {
    usize::from(!number.is_multiple_of(2))
}

fn line_of(number: u64, kept: &Kept) -> io::Result<Vec<u8>> {
    let rest = format!("{number} {}", serde_json::to_string(kept)?);
    Ok(format!("{} {rest}\n", text_hash(rest.as_bytes())).into_bytes())
}

/// The newest place in a file, and its number; `None` without a file.
fn read_places(path: &Path) -> Result<Option<(u64, Kept)>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(PLACES_BYTES_MAX).read_to_end(&mut bytes).map_err(cannot)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    if bytes.starts_with(b"{") {
        // As it was written before there were slots.
        return serde_json::from_slice(&bytes).map(|kept| Some((0, kept))).map_err(|error| error.to_string());
    }
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let found = [first, second].into_iter().filter_map(read_place);
    found.max_by_key(|(number, _)| *number).map(Some).ok_or_else(|| "is not what was written".to_owned())
}

fn read_place(slot: &[u8]) -> Option<(u64, Kept)> {
    let end = slot.iter().position(|byte| *byte == b'\n')?;
    let (sum, rest) = std::str::from_utf8(&slot[..end]).ok()?.split_once(' ')?;
    if text_hash(rest.as_bytes()) != sum {
        return None;
    }
    let (number, json) = rest.split_once(' ')?;
    Some((number.parse().ok()?, serde_json::from_str(json).ok()?))
}

#[cfg(test)]
mod tests {
    use journal::Mark;
    use world::scratch::Scratch;

    use super::*;

    fn kept(position: u64, journal: &str) -> Kept {
        let at = Mark { position, ..Mark::default() };
        Kept {
            place: Place { journal: Some(journal.to_owned()), at, ..Place::default() },
            heard_ms: position as i64,
        }
    }

    #[test]
    fn the_newest_place_is_read_whoever_wrote_it_and_however_long_it_is() {
        let scratch = Scratch::new("newest");
        let keep = Keep::of(&scratch.0).unwrap();
        assert_eq!(keep.place(), Kept::default());
        let mut places = keep.places();
        for position in 1..=5 {
            places.write(&kept(position, "j")).unwrap();
            assert_eq!(keep.place(), kept(position, "j"));
        }
        let long = "j".repeat(3 * SLOT_BYTES);
        places.write(&kept(6, &long)).unwrap();
        assert_eq!(keep.place(), kept(6, &long));
        // After a start, and of a position that is earlier: that of another journal.
        for position in [3, 4, 2] {
            keep.places().write(&kept(position, "k")).unwrap();
            assert_eq!(keep.place(), kept(position, "k"));
        }
        let mut again = keep.places();
        [7, 8].into_iter().for_each(|position| again.write(&kept(position, "k")).unwrap());
        assert_eq!(keep.place(), kept(8, "k"));
    }

    #[test]
    fn a_write_that_was_torn_leaves_the_place_before_it_and_two_begin_anew() {
        let scratch = Scratch::new("torn");
        let keep = Keep::of(&scratch.0).unwrap();
        let path = keep.path().join(PLACE);
        let mut places = keep.places();
        (1..=4).for_each(|position| places.write(&kept(position, "j")).unwrap());
        let whole = fs::read(&path).unwrap();
        let newest = slot_of(4) * SLOT_BYTES;
        let line = whole[newest..].iter().position(|byte| *byte == b'\n').unwrap();
        for at in 0..line {
            let mut torn = whole.clone();
            torn[newest + at] ^= 1;
            fs::write(&path, &torn).unwrap();
            assert_eq!(keep.place(), kept(3, "j"), "byte {at}");
        }
        fs::write(&path, b"").unwrap();
        assert_eq!(keep.place(), Kept::default());
        fs::write(&path, serde_json::to_vec(&kept(8, "j")).unwrap()).unwrap();
        assert_eq!(keep.place(), kept(8, "j"), "of a former version");
        keep.places().write(&kept(9, "j")).unwrap();
        assert_eq!(keep.place(), kept(9, "j"));
    }
}
