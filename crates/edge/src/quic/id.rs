//! Connection ids that say whose they are, to us alone.
//!
//! ```text
//! ├─ nonce: 6 ─┤├─ owner: 5, masked by the nonce ─┤├─ check: 3 ─┤
//! ```
//!
//! Nobody else can tell two ids of one connection from those of two (RFC 9000 §5.1): each has a nonce of its own, and what
//! is masked and checked goes by a key. The check keeps ids that visitors make up from being sent around.

use std::hash::Hasher;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};
use siphasher::sip::SipHasher13;

const NONCE: usize = 6;
const OWNER: usize = 5;
const CHECK: usize = 3;

/// Bytes of an id. RFC 9000 §17.2 allows 20.
pub(super) const LENGTH: usize = NONCE + OWNER + CHECK;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Which start of the node, by chance: the processes before and after an upgrade in place differ by it.
    pub(crate) start: [u8; 3],
    /// Which of the endpoints on its address.
    pub(crate) endpoint: u16,
}

/// The secret of a node's ids.
#[derive(Clone, Copy)]
pub(crate) struct Key(u64, u64);

impl Key {
    /// From 16 secret bytes or more.
    pub(super) fn of(secret: &[u8]) -> Self {
        let word = |at: usize| secret[at..at + 8].iter().fold(0, |word, &byte| (word << 8) | u64::from(byte));
        Key(word(0), word(8))
    }

    fn hash(self, parts: &[&[u8]]) -> [u8; 8] {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        parts.iter().for_each(|part| hasher.write(part));
        hasher.finish().to_le_bytes()
    }

    fn make(self, nonce: &[u8], owner: Owner) -> [u8; LENGTH] {
        let mut id = [0; LENGTH];
        id[..NONCE].copy_from_slice(nonce);
        let [high, low] = owner.endpoint.to_be_bytes();
        let [first, second, third] = owner.start;
        let told = [first, second, third, high, low];
        let mask = self.hash(&[nonce]);
        for at in 0..OWNER {
            id[NONCE + at] = told[at] ^ mask[at];
        }
        id[NONCE + OWNER..].copy_from_slice(&self.hash(&[nonce, &told])[..CHECK]);
        id
    }

    /// Whose id it is; `None` if it is none of ours.
    pub(super) fn read(self, id: &[u8]) -> Option<Owner> {
        if id.len() != LENGTH {
            return None;
        }
        let (nonce, masked) = id.split_at(NONCE);
        let mask = self.hash(&[nonce]);
        let told: [u8; OWNER] = std::array::from_fn(|at| masked[at] ^ mask[at]);
        let check = self.hash(&[nonce, &told]);
        let [first, second, third, high, low] = told;
        let owner = Owner { start: [first, second, third], endpoint: u16::from_be_bytes([high, low]) };
        (masked[OWNER..] == check[..CHECK]).then_some(owner)
    }
}

/// Makes the ids of one worker.
pub(super) struct Generator {
    key: Key,
    owner: Owner,
    /// What the nonces of this start begin with, and how many there were.
    start: u64,
    count: u64,
}

impl Generator {
    pub(super) fn new(key: Key, owner: Owner) -> Self {
        Generator { key, owner, start: crate::storage::chance() as u64, count: 0 }
    }
}

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count += 1;
        let nonce = self.key.hash(&[b"nonce", &self.start.to_le_bytes(), &self.count.to_le_bytes()]);
        ConnectionId::new(&self.key.make(&nonce[..NONCE], self.owner))
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_owner_to_those_with_the_key() {
        let (key, other) = (Key(1, 2), Key(1, 3));
        let mut seen = std::collections::HashSet::new();
        for owner in [Owner { start: [0; 3], endpoint: 0 }, Owner { start: [255, 1, 2], endpoint: 1023 }] {
            let mut ids = Generator::new(key, owner);
            for _ in 0..1000 {
                let id = ids.generate_cid();
                assert!(seen.insert(id.to_vec()), "each id is new");
                assert_eq!(key.read(&id), Some(owner));
                assert_eq!(other.read(&id), None);
                let mut changed = id.to_vec();
                changed[seen.len() % LENGTH] ^= 0x10;
                assert_eq!(key.read(&changed), None);
                assert_eq!(key.read(&id[1..]), None);
            }
        }
    }
}
