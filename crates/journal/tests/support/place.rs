//! Where a journal of each engine lies while a test runs.

use std::sync::Arc;

use journal::Journal;
use journal::memory::Memory;
use journal::sqlite::Sqlite;

use crate::scratch::{Scratch, chance};

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
