//! Where a journal of each engine lies while a test runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use journal::memory::Memory;
use journal::sqlite::Sqlite;
use journal::{Chance, Journal};

/// A place for one journal.
pub(crate) enum Place {
    Memory(Arc<Memory>),
    Sqlite(Scratch),
}

impl Place {
    pub(crate) fn memory() -> Place {
        Place::Memory(Arc::new(Memory::new("memory", 1)))
    }

    pub(crate) fn sqlite() -> Place {
        Place::Sqlite(Scratch::new())
    }

    /// As many handles to it as the engine allows at a time, at least one: those of an engine for many machines are apart.
    pub(crate) async fn open(&self, handles: usize) -> Vec<Arc<dyn Journal>> {
        let one: Arc<dyn Journal> = match self {
            Place::Memory(memory) => Arc::<Memory>::clone(memory),
            Place::Sqlite(scratch) => Arc::new(Sqlite::open(&scratch.path("journal"), &chance()).unwrap()),
        };
        vec![one; handles]
    }

    pub(crate) async fn open_one(&self) -> Arc<dyn Journal> {
        self.open(1).await.remove(0)
    }
}

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
