//! How often clients have asked of late, and how much they have open: for the limits that are theirs ([`model::rate`]).
//! Nothing is kept, and nothing costs anything, while no such limit is set.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use model::rate::{Buckets, Rate, TooMuch};
use model::settings::client_network;
use parking_lot::Mutex;
use semantics::key::{KeySeed, hash};

/// Clients whose requests are remembered: 1 MiB of buckets. An attacker with more addresses than that has others forgotten,
/// not refused.
const BUCKETS: usize = 65_536;

/// Parts of them with a lock each.
const SHARDS: usize = 64;

/// What is counted apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// All requests of one client.
    Requests(IpAddr),
    /// TLS handshakes of one client.
    Handshakes(IpAddr),
    /// Requests to a site's rule, of one client or of all.
    Rule { site: u32, rule: u32, client: Option<IpAddr> },
}

/// Who has asked how often, of all workers.
#[derive(Default)]
pub(crate) struct Rates {
    /// Made when first something is counted.
    shards: OnceLock<Box<[Mutex<Buckets>]>>,
}

impl Rates {
    /// Counts one event, or says that it would be too much.
    pub(crate) fn take(
        &self,
        seed: &KeySeed,
        counted: Counted,
        rate: &Rate,
        now_ms: u64,
    ) -> Result<(), TooMuch> {
        // The seed is ours alone, so nobody can choose whose bucket to share.
        let key = hash(seed, &counted.to_bytes());
        let shards = self
            .shards
            .get_or_init(|| (0..SHARDS).map(|_| Mutex::new(Buckets::new(BUCKETS / SHARDS))).collect());
        let shard = &shards[(key >> 64) as usize % SHARDS];
        shard.lock().take(key as u64, rate, now_ms.saturating_mul(1_000_000))
    }
}

impl Counted {
    /// Different for all that is counted apart, and for no cache key.
    fn to_bytes(self) -> [u8; 32] {
        let (kind, site, rule, client) = match self {
            Counted::Requests(client) => (1, 0, 0, Some(client)),
            Counted::Handshakes(client) => (2, 0, 0, Some(client)),
            Counted::Rule { site, rule, client } => (3, site, rule, client),
        };
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(b"rate");
        bytes[4] = kind;
        bytes[5..9].copy_from_slice(&site.to_be_bytes());
        bytes[9..13].copy_from_slice(&rule.to_be_bytes());
        match client.map(client_network) {
            None => {}
            Some(IpAddr::V4(address)) => {
                bytes[13] = 4;
                bytes[14..18].copy_from_slice(&address.octets());
            }
            Some(IpAddr::V6(address)) => {
                bytes[13] = 6;
                bytes[14..30].copy_from_slice(&address.octets());
            }
        }
        bytes
    }
}

/// How many of something are open, in all and by client.
#[derive(Debug, Default)]
pub(crate) struct Open(Mutex<OpenNow>);

#[derive(Debug, Default)]
struct OpenNow {
    total: u32,
    by_client: HashMap<IpAddr, u32>,
}

/// Why one more may not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are enough in all.
    Total,
    /// This client has enough.
    Client,
}

/// One that is open, until this is dropped.
pub(crate) struct Opened {
    open: Arc<Open>,
    /// Whom it was counted for.
    client: Option<IpAddr>,
}

impl Open {
    /// How many are open.
    pub(crate) fn total(&self) -> u32 {
        self.0.lock().total
    }

    /// Opens one more, for nobody in particular where `client` is `None`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        client_max: u32,
        total_max: u32,
    ) -> Result<Opened, Full> {
        let client = client.map(client_network);
        let mut now = self.0.lock();
        if now.total >= total_max {
            return Err(Full::Total);
        }
        if let Some(client) = client {
            let count = now.by_client.entry(client).or_insert(0);
            if *count >= client_max {
                return Err(Full::Client);
            }
            *count += 1;
        }
        now.total += 1;
        Ok(Opened { open: self.clone(), client })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut now = self.open.0.lock();
        now.total -= 1;
        let Some(client) = self.client else { return };
        if let Entry::Occupied(mut count) = now.by_client.entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SEED: KeySeed = KeySeed([7; 16]);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_counted_apart_has_buckets_of_its_own() {
        let rates = Rates::default();
        let rate = Rate::new(1, Duration::from_secs(1), 1);
        let one = address("192.0.2.1");
        let rule = |site, rule, client| Counted::Rule { site, rule, client };
        for counted in [
            Counted::Requests(one),
            Counted::Requests(address("192.0.2.2")),
            Counted::Handshakes(one),
            rule(0, 0, Some(one)),
            rule(0, 0, None),
            rule(1, 0, None),
            rule(0, 1, None),
            Counted::Requests(address("2001:db8::1")),
            Counted::Requests(address("2001:db8:0:1::1")),
        ] {
            assert!(rates.take(&SEED, counted, &rate, 0).is_ok(), "{counted:?}");
            assert!(rates.take(&SEED, counted, &rate, 999).is_err(), "{counted:?}");
            assert!(rates.take(&SEED, counted, &rate, 1000).is_ok(), "{counted:?}");
        }
    }

    #[test]
    fn a_household_is_one_client() {
        let rates = Rates::default();
        let rate = Rate::new(1, Duration::from_secs(1), 2);
        let take = |text| rates.take(&SEED, Counted::Requests(address(text)), &rate, 0);
        assert!(take("2001:db8::1").is_ok());
        assert!(take("2001:db8::ffff:1:2:3").is_ok());
        assert!(take("2001:db8::2").is_err());
        assert!(take("192.0.2.1").is_ok() && take("::ffff:192.0.2.1").is_ok() && take("192.0.2.1").is_err());
    }

    #[test]
    fn what_is_closed_makes_room_and_leaves_nothing() {
        let open = Arc::new(Open::default());
        let (one, two) = (Some(address("192.0.2.1")), Some(address("192.0.2.2")));
        let first = open.enter(one, 2, 3).ok().unwrap();
        let second = open.enter(one, 2, 3).ok().unwrap();
        assert_eq!(open.enter(one, 2, 3).err(), Some(Full::Client));
        let third = open.enter(two, 2, 3).ok().unwrap();
        assert_eq!(open.enter(two, 2, 3).err(), Some(Full::Total));
        drop(first);
        let fourth = open.enter(one, 2, 3).ok().unwrap();
        let nobody = open.enter(None, 0, 4).ok().unwrap();
        drop((second, third, fourth, nobody));
        let now = open.0.lock();
        assert!(now.total == 0 && now.by_client.is_empty(), "{now:?}");
    }
}
