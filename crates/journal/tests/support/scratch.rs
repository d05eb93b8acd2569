//! Directories that tests leave nothing behind in, and chance.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use journal::Chance;

/// Different in each test and run.
pub(crate) fn chance() -> Chance {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() << 24;
    Arc::new(move || {
        started ^ (u128::from(std::process::id()) << 96) ^ u128::from(DRAWN.fetch_add(1, Ordering::Relaxed))
    })
}

/// A directory that is gone when the test is over.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("perigee-journal-{:032x}", chance()()));
        std::fs::create_dir(&directory).unwrap();
        Scratch(directory)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
