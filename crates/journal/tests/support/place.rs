//! Where a journal of each engine lies while a test runs.

use std::sync::Arc;

use journal::Journal;
use journal::etcd::Etcd;
use journal::memory::Memory;
use journal::sqlite::Sqlite;

use crate::members::Members;
use crate::scratch::{Scratch, chance};

/// A place for one journal.
pub(crate) enum Place {
    Memory(Arc<Memory>),
    Sqlite(Scratch),
    Etcd(Box<Members>),
}

impl Place {
    pub(crate) async fn memory() -> Option<Place> {
        Some(Place::Memory(Arc::new(Memory::new("memory", 1))))
    }

    pub(crate) async fn sqlite() -> Option<Place> {
        Some(Place::Sqlite(Scratch::new()))
    }

    pub(crate) async fn etcd() -> Option<Place> {
        Members::start(1, &[]).await.map(|members| Place::Etcd(Box::new(members)))
    }

    /// Some handles to it: each for itself where the engine is for many machines.
    pub(crate) async fn open(&self, handles: usize) -> Vec<Arc<dyn Journal>> {
        let one: Arc<dyn Journal> = match self {
            Place::Memory(memory) => Arc::<Memory>::clone(memory),
            Place::Sqlite(scratch) => Arc::new(Sqlite::open(&scratch.path("journal"), &chance()).unwrap()),
            Place::Etcd(members) => {
                let mut all: Vec<Arc<dyn Journal>> = Vec::new();
                for _ in 0..handles {
                    all.push(Arc::new(Etcd::open(&members.settings, &chance()).await.unwrap()));
                }
                return all;
            }
        };
        vec![one; handles]
    }

    pub(crate) async fn open_one(&self) -> Arc<dyn Journal> {
        self.open(1).await.remove(0)
    }
}
