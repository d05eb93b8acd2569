//! Sessions that the edge remembers, where early data is taken: each is used up by being resumed, so that what came with it early
//! cannot be sent again by somebody else (RFC 8446 §8.1).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;
use rustls::server::StoresServerSessions;

/// Sessions that are remembered, of all workers: the newest, about 300 bytes each. A visitor is given two.
const SESSIONS_MAX: usize = 65_536;

/// Parts with a lock of their own, so that workers seldom meet.
const SHARDS: usize = 16;

/// What is remembered.
#[derive(Debug)]
pub(super) struct Sessions {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// In each shard.
    most: usize,
}

#[derive(Debug, Default)]
struct Shard {
    sessions: HashMap<Vec<u8>, Vec<u8>>,
    /// Ids as they came, also of those that are used up.
    order: VecDeque<Vec<u8>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions::of(SESSIONS_MAX)
    }
}

impl Sessions {
    fn of(most: usize) -> Self {
        Sessions { shards: Default::default(), hasher: RandomState::new(), most: most.div_ceil(SHARDS) }
    }

    fn shard(&self, id: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let mut shard = self.shard(&id).lock();
        if shard.order.len() == self.most
            && let Some(oldest) = shard.order.pop_front()
        {
            shard.sessions.remove(&oldest);
        }
        shard.order.push_back(id.clone());
        shard.sessions.insert(id, session);
        true
    }

    /// What TLS 1.2 asks for, which has no early data.
    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.shard(id).lock().sessions.get(id).cloned()
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.shard(id).lock().sessions.remove(id)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_taken_once() {
        let sessions = Sessions::default();
        assert!(sessions.put(b"one".to_vec(), b"a secret".to_vec()));
        assert_eq!(sessions.get(b"one").as_deref(), Some(&b"a secret"[..]));
        assert_eq!(sessions.take(b"one").as_deref(), Some(&b"a secret"[..]));
        assert_eq!(sessions.take(b"one"), None);
        assert_eq!(sessions.get(b"one"), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let sessions = Sessions::of(16 * SHARDS);
        let id = |number: u32| number.to_be_bytes().to_vec();
        (0..10_000).for_each(|number| {
            sessions.put(id(number), vec![0]);
            // Those that are used up make none.
            if number % 3 == 0 {
                sessions.take(&id(number));
            }
        });
        let kept = (0..10_000).filter(|number| sessions.get(&id(*number)).is_some()).count();
        assert!(kept <= 16 * SHARDS, "{kept} are kept");
        assert!(sessions.get(&id(9_998)).is_some(), "the newest are kept");
        assert!(sessions.get(&id(0)).is_none() && sessions.get(&id(1)).is_none(), "the oldest are not");
        let remembered: usize = sessions.shards.iter().map(|shard| shard.lock().order.len()).sum();
        assert!(remembered <= 16 * SHARDS, "{remembered} ids are remembered");
    }
}
