//! The files of a router: how they are read, and whether a router can use what they say.
//!
//! Called by `plan`, by whoever starts a router, and by what wants the same of the same files without one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use model::Snapshot;

use crate::location::Location;
use crate::sign::Signer;
use crate::wire::name_of;
use crate::zone::Zone;

/// A file with a configuration, as it was read before the router starts.
#[derive(Clone, Debug)]
pub struct FileConfig {
    pub(super) path: PathBuf,
    pub(super) seen: Option<SystemTime>,
    pub(super) snapshot: Snapshot,
}

impl FileConfig {
    /// Reads it. The errors are whole sentences; `report` gets the warnings.
    pub fn read(path: PathBuf, report: &dyn Fn(&str)) -> Result<FileConfig, Vec<String>> {
        let seen = modified(&path);
        let snapshot = read_config(&path, report)?;
        Ok(FileConfig { path, seen, snapshot })
    }

    /// What it says.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// Reads a configuration. The errors are whole sentences; `report` gets the warnings.
pub fn read_config(file: &Path, report: &dyn Fn(&str)) -> Result<Snapshot, Vec<String>> {
    let path = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| {
        vec![format!("{path} cannot be read: {error}; it has to be a text that this user may read")]
    })?;
    // What the nodes of a cluster have in common, or a file that says everything: whichever has fewer errors was meant.
    let errors = |parsed: &model::Parsed| parsed.diagnostics.iter().filter(|found| found.is_error()).count();
    let mut parsed = Snapshot::parse_cluster(&text, &path);
    if parsed.snapshot.is_none() {
        let whole = Snapshot::parse(&text, &path);
        if errors(&whole) < errors(&parsed) {
            parsed = whole;
        }
    }
    let (errors, warnings): (Vec<_>, Vec<_>) = parsed.diagnostics.iter().partition(|found| found.is_error());
    warnings.iter().for_each(|warning| report(&warning.to_string()));
    parsed.snapshot.ok_or_else(|| errors.iter().map(|error| error.to_string()).collect())
}

/// Reads location data. The error is a sentence.
pub fn read_location(path: &Path) -> Result<Location, Vec<String>> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| {
        vec![format!("the location data {shown} cannot be read: {error}; perigee geo build makes it")]
    })?;
    Location::read(file).map_err(|error| {
        vec![format!("the location data {shown} {error}; make it anew with perigee geo build")]
    })
}

/// Whether a router with this zone key can use a configuration that it is told. The errors are whole sentences.
pub fn check(snapshot: &Snapshot, key: Option<&[u8]>) -> Result<(), Vec<String>> {
    let signer = make_signer(snapshot, key)?;
    match snapshot.routing.dns {
        Some(_) => Zone::build(snapshot, 1, signer.as_deref()).map(drop),
        None => Ok(()),
    }
}

/// When it was written last, if there is such a file.
pub(super) fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// What signs the zone; `None` if it is not to be signed. The errors are whole sentences.
pub(super) fn make_signer(
    snapshot: &Snapshot,
    key: Option<&[u8]>,
) -> Result<Option<Arc<Signer>>, Vec<String>> {
    let Some(dns) = snapshot.routing.dns.as_ref().filter(|dns| dns.dnssec) else { return Ok(None) };
    let Some(key) = key else {
        return Err(vec!["the zone is to be signed (dnssec = true) and there is no key; give --state a directory to keep one in".to_owned()]);
    };
    let apex = name_of(&dns.zone).unwrap_or_default();
    Signer::new(key, &apex).map(|signer| Some(Arc::new(signer))).map_err(|_| {
        vec!["the zone's key is no P-256 key in PKCS #8; move it away to have one made anew".to_owned()]
    })
}
