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
//! Each file is replaced as a whole. A text is believed for its hash, and the hash for the cluster's signature, each time that it
//! is read: nothing in here is trusted because it is here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use journal::following::Place;
use model::change::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trust::{Identity, text_hash};

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
            DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| {
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
        self.read(PLACE).unwrap_or_else(|error| {
            eprintln!("perigee: {error}; this node begins anew");
            Kept::default()
        })
    }

    /// Replaces the place. When this returns, it is safe also from a loss of power.
    pub(crate) fn write_place(&self, kept: &Kept) -> io::Result<()> {
        self.write(PLACE, &serde_json::to_vec(kept)?, true)
    }

    /// The configuration that was last put in force.
    pub(crate) fn running(&self) -> Option<Version> {
        self.read(RUNNING).unwrap_or_else(|error| {
            eprintln!("perigee: {error}");
            None
        })
    }

    pub(crate) fn write_running(&self, version: &Version) -> io::Result<()> {
        self.write(RUNNING, &serde_json::to_vec(version)?, true)
    }

    /// Counts one more start, if this is one; how many there have been.
    pub(crate) fn count_start(&self, is_start: bool) -> u64 {
        let starts = self.read::<u64>(STARTS).unwrap_or_default() + u64::from(is_start);
        if let Err(error) = self.write(STARTS, starts.to_string().as_bytes(), false) {
            eprintln!("perigee: {}: cannot be written: {error}", self.0.join(STARTS).display());
        }
        starts
    }

    /// Notes whether a configuration is on trial.
    pub(crate) fn note_trial(&self, is_on_trial: bool) {
        let path = self.0.join(TRIAL);
        let noted = match is_on_trial {
            true if path.exists() => return,
            true => write_whole(&path, b"", true),
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
        write_whole(&path, told.text.as_bytes(), true)
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

    fn write(&self, name: &str, bytes: &[u8], is_safe: bool) -> io::Result<()> {
        write_whole(&self.0.join(name), bytes, is_safe)
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

/// Writes beside and renames. Without `is_safe` a loss of power may leave the old one, or an empty file.
fn write_whole(path: &Path, bytes: &[u8], is_safe: bool) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    if is_safe {
        file.sync_data()?;
    }
    fs::rename(&beside, path)?;
    match path.parent().filter(|_| is_safe) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
