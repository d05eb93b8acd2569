//! Session tickets (RFC 5077, RFC 8446 §4.6.1) that every edge with the same secret understands: the keys are made from the
//! secret and the time, so that edges share and change them without talking.
//!
//! ```text
//! secret ─ HKDF-Extract ─► root ─ HKDF-Expand(period) ─┬─► name  16 bytes: says which key
//!                                                      └─► key   32 bytes: AES-256-GCM
//! ticket = name │ nonce 12 │ encrypted session │ tag 16
//! ```
//!
//! A key encrypts for [`PERIOD`] and decrypts for one more, and one before for edges whose clocks are ahead. Past sessions of
//! TLS 1.2 are as secret as the secret: it must be kept like a private key, and changed now and then. Those of TLS 1.3 keep
//! their forward secrecy, as each resumption adds a fresh key exchange.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use parking_lot::RwLock;
use rustls::server::ProducesTickets;

use crate::clock::Clock;

/// How long a key encrypts. As long as nginx's and Cloudflare's setups commonly do: a night's visitors come back with it.
const PERIOD: Duration = Duration::from_secs(8 * 3600);

const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// Makes and reads tickets for all workers.
pub(super) struct Tickets {
    root: Prk,
    clock: Clock,
    keys: RwLock<Arc<Keys>>,
}

/// The keys around one period.
struct Keys {
    period: i64,
    /// That of the period first, as most tickets are its; then the one before, then the one after.
    keys: [Key; 3],
}

struct Key {
    name: [u8; NAME_BYTES],
    key: RandomizedNonceKey,
}

/// Length of what is expanded.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Tickets {
    /// Tickets under `secret`: chance, at least 32 bytes of it.
    pub(super) fn new(secret: &[u8], clock: Clock) -> Result<Self, rustls::Error> {
        let root = Salt::new(HKDF_SHA256, b"perigee session tickets").extract(secret);
        let keys = Keys::of(&root, period_of(&clock)).ok_or(rustls::Error::FailedToGetRandomBytes)?;
        Ok(Tickets { root, clock, keys: RwLock::new(Arc::new(keys)) })
    }

    /// The keys of now. Made once a period, by whoever comes first.
    fn keys(&self) -> Option<Arc<Keys>> {
        let period = period_of(&self.clock);
        let known = self.keys.read().clone();
        if known.period == period {
            return Some(known);
        }
        let made = Arc::new(Keys::of(&self.root, period)?);
        *self.keys.write() = made.clone();
        Some(made)
    }
}

fn period_of(clock: &Clock) -> i64 {
    clock.wall().0.div_euclid(PERIOD.as_millis() as i64)
}

impl Keys {
    fn of(root: &Prk, period: i64) -> Option<Keys> {
        let key = |period: i64| Key::of(root, period);
        let keys = [key(period)?, key(period.wrapping_sub(1))?, key(period.wrapping_add(1))?];
        Some(Keys { period, keys })
    }
}

impl Key {
    fn of(root: &Prk, period: i64) -> Option<Key> {
        let mut made = [0; NAME_BYTES + KEY_BYTES];
        let info = period.to_be_bytes();
        root.expand(&[&info], Bytes(made.len())).ok()?.fill(&mut made).ok()?;
        let (name, key) = made.split_at(NAME_BYTES);
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
        Some(Key { name: name.try_into().ok()?, key })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, &[])
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, &[])
    }
}

impl Tickets {
    /// Makes a ticket that [`Tickets::open`] reads with the same `binding` alone.
    pub(super) fn seal(&self, plain: &[u8], binding: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys()?;
        let Key { name, key } = &keys.keys[0];
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from([name, binding].concat()), &mut sealed).ok()?;
        let mut ticket = Vec::with_capacity(NAME_BYTES + NONCE_LEN + sealed.len());
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    /// What a ticket holds; `None` when it is not one of ours, not for this `binding`, or too old.
    pub(super) fn open(&self, ticket: &[u8], binding: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        if sealed.len() < TAG_BYTES {
            return None;
        }
        let keys = self.keys()?;
        // Names are no secret: they stand in each ticket.
        let key = keys.keys.iter().find(|key| key.name == *name)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length =
            key.key.open_in_place(nonce, Aad::from([&key.name, binding].concat()), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use semantics::Wall;

    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn edge(clock: &Clock) -> Tickets {
        Tickets::new(&SECRET, clock.clone()).unwrap()
    }

    #[test]
    fn a_ticket_is_read_with_its_binding_alone() {
        let tickets = edge(&Clock::manual(Wall(0)));
        let ticket = tickets.seal(b"a session", b"of one site").unwrap();
        assert_eq!(tickets.open(&ticket, b"of one site").as_deref(), Some(&b"a session"[..]));
        assert_eq!(tickets.open(&ticket, b"of another"), None);
        assert_eq!(tickets.decrypt(&ticket), None);
        assert_eq!(tickets.open(&tickets.encrypt(b"a session").unwrap(), b"of one site"), None);
    }

    #[test]
    fn edges_with_one_secret_read_each_others_tickets_for_at_least_a_period_and_at_most_two() {
        let start = Wall(1_000 * PERIOD.as_millis() as i64);
        let clock = Clock::manual(start);
        let (one, other) = (edge(&clock), edge(&clock));
        let early = one.encrypt(b"a session").unwrap();
        clock.advance(PERIOD - Duration::from_secs(1));
        let late = one.encrypt(b"a session").unwrap();
        assert_eq!(early[..16], late[..16], "one key all the time");
        clock.advance(Duration::from_secs(1));
        assert_ne!(one.encrypt(b"a session").unwrap()[..16], early[..16], "then another");
        clock.advance(PERIOD - Duration::from_secs(2));
        for ticket in [&early, &late] {
            assert_eq!(other.decrypt(ticket).as_deref(), Some(&b"a session"[..]));
        }
        clock.advance(Duration::from_secs(2));
        assert_eq!(other.decrypt(&late), None, "its key is gone");
    }

    #[test]
    fn a_clock_that_is_ahead_costs_nothing() {
        let start = Wall(1_000 * PERIOD.as_millis() as i64);
        let ahead = edge(&Clock::manual(start));
        let behind = edge(&Clock::manual(Wall(start.0 - 60_000)));
        assert!(behind.decrypt(&ahead.encrypt(b"a session").unwrap()).is_some());
        assert!(ahead.decrypt(&behind.encrypt(b"a session").unwrap()).is_some());
    }

    #[test]
    fn another_secret_reads_nothing() {
        let clock = Clock::manual(Wall(0));
        let other = Tickets::new(&[8; 32], clock.clone()).unwrap();
        assert_eq!(other.decrypt(&edge(&clock).encrypt(b"a session").unwrap()), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(plain: Vec<u8>, at: u16, flip in 1_u8..) {
            let tickets = edge(&Clock::manual(Wall(0)));
            let mut ticket = tickets.encrypt(&plain).unwrap();
            prop_assert_eq!(tickets.decrypt(&ticket), Some(plain));
            let at = at as usize % ticket.len();
            ticket[at] ^= flip;
            prop_assert_eq!(tickets.decrypt(&ticket), None);
            prop_assert_eq!(tickets.decrypt(&ticket[..at]), None);
        }
    }
}
