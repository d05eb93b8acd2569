//! How many of something there are at a time by who has them, so that one client or node cannot take all the room.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by key; addresses of IPv6 by network of 64 bits: whoever has one address of these has all. As large as what it counts.
#[derive(Debug)]
pub struct Crowd<K: Eq + Hash = IpAddr> {
    each_max: usize,
    counts: Mutex<HashMap<K, usize>>,
}

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub struct Counted<K: Eq + Hash = IpAddr> {
    crowd: Arc<Crowd<K>>,
    of: K,
}

impl Crowd {
    /// Counts one more; `None` when there are enough from this address.
    pub fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Counted> {
        self.admit_of(match from.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
            from => from,
        })
    }
}

impl<K: Clone + Eq + Hash> Crowd<K> {
    /// At most `each_max` of each.
    pub fn new(each_max: usize) -> Arc<Self> {
        Arc::new(Crowd { each_max, counts: Mutex::default() })
    }

    /// Counts one more; `None` when there are enough of these.
    pub fn admit_of(self: &Arc<Self>, of: K) -> Option<Counted<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(of.clone()).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Counted { crowd: Arc::clone(self), of })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_address_only_so_many_are_let_in() {
        const MAX: usize = 7;
        let crowd = Crowd::<IpAddr>::new(MAX);
        let from = |address: &str| crowd.admit(address.parse().unwrap());
        let mut inside: Vec<_> = (0..MAX).map(|_| from("192.0.2.1").unwrap()).collect();
        assert!(from("192.0.2.1").is_none());
        assert!(from("::ffff:192.0.2.1").is_none(), "the same address, written differently");
        assert!(from("192.0.2.2").is_some());
        inside.pop();
        assert!(from("192.0.2.1").is_some());
        let networks: Vec<_> = (0..MAX).map(|host| from(&format!("2001:db8::{host:x}")).unwrap()).collect();
        assert!(from("2001:db8::ffff:1").is_none());
        assert!(from("2001:db8:0:1::1").is_some());
        drop((inside, networks));
        assert!(crowd.counts.lock().unwrap().is_empty());
    }
}
