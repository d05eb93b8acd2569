//! How often something may happen: so often at once, and so often over time.
//!
//! A leaky bucket in the form of the generic cell rate algorithm: one number, the moment at which the bucket will have
//! run empty. Each event fills it by one interval, time drains it, and an event that would make it run over is refused and
//! fills nothing. Over any span of `t`, at most `burst + t ÷ interval` events pass, and no fewer if more are tried.
//!
//! Pure: `now_ns` is monotonic time given by the caller. A time that goes back only makes the bucket drain later.
//!
//! What it doesn't do: it doesn't know who is counted together (`crate::settings`, the edge), nor what is done about those
//! who are refused.

use std::ops::Range;
use std::time::Duration;

/// So many at once, and one per interval afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// What passes in one moment; at least 1.
    burst: u32,
    /// Time from one event to the next; at least 1 ns.
    interval_ns: u64,
}

impl Rate {
    /// `count` events in each `per`, of which `burst` may come at once. Each counts as 1 where it is 0.
    pub const fn new(count: u32, per: Duration, burst: u32) -> Rate {
        let count = if count == 0 { 1 } else { count };
        let interval = per.as_nanos() / count as u128;
        let interval = if interval > INTERVAL_NS_MAX as u128 { INTERVAL_NS_MAX } else { interval as u64 };
        Rate {
            burst: if burst == 0 { 1 } else { burst },
            interval_ns: if interval == 0 { 1 } else { interval },
        }
    }

    /// What passes in one moment.
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    /// What the bucket holds, as time.
    const fn depth_ns(&self) -> u64 {
        self.interval_ns.saturating_mul(self.burst as u64)
    }
}

/// One event a day is the slowest rate there is.
const INTERVAL_NS_MAX: u64 = 24 * 60 * 60 * 1_000_000_000;

/// What has happened of late. Empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    empty_at_ns: u64,
}

/// It would have been too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch {
    /// Time until one more passes, in ns; at least 1.
    pub wait_ns: u64,
}

impl TooMuch {
    /// Whole seconds until one more passes, for Retry-After: at least 1.
    pub fn wait_secs(&self) -> u64 {
        self.wait_ns.div_ceil(1_000_000_000)
    }
}

impl Bucket {
    /// Takes one event, or refuses it.
    pub fn take(&mut self, rate: &Rate, now_ns: u64) -> Result<(), TooMuch> {
        let filled_to = self.empty_at_ns.max(now_ns).saturating_add(rate.interval_ns);
        let room_to = now_ns.saturating_add(rate.depth_ns());
        if filled_to > room_to {
            return Err(TooMuch { wait_ns: filled_to - room_to });
        }
        self.empty_at_ns = filled_to;
        Ok(())
    }

    /// Takes `count` events back, as far as the bucket holds so many.
    pub fn give_back(&mut self, rate: &Rate, count: u32) {
        self.empty_at_ns = self.empty_at_ns.saturating_sub(rate.interval_ns.saturating_mul(u64::from(count)));
    }

    /// Whether nothing of what has happened counts any more.
    pub fn is_empty(&self, now_ns: u64) -> bool {
        self.empty_at_ns <= now_ns
    }
}

// --- Many buckets ---

/// Buckets by key, in a bounded room: a key that is new where all have something takes the place of the one that will be
/// empty first. So a flood of keys can make others be forgotten, who then may do more than they should, and never less.
///
/// Keys are hashes that strangers cannot choose. Memory: 16 bytes for each of `capacity`.
#[derive(Clone, Debug)]
pub struct Buckets {
    slots: Box<[(u64, Bucket)]>,
}

/// Slots that a key may lie in: one cache line or two to look through.
const WAYS: usize = 8;

impl Buckets {
    /// Room for `capacity` keys, rounded up to a power of two; at least 8.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.next_power_of_two().max(WAYS);
        Buckets { slots: vec![(0, Bucket::default()); capacity].into() }
    }

    /// [`Bucket::take`] of the bucket of `key`.
    pub fn take(&mut self, key: u64, rate: &Rate, now_ns: u64) -> Result<(), TooMuch> {
        let set = self.set(key);
        let set = &mut self.slots[set];
        if let Some((_, bucket)) = set.iter_mut().find(|(other, _)| *other == key) {
            return bucket.take(rate, now_ns);
        }
        let mut bucket = Bucket::default();
        let taken = bucket.take(rate, now_ns);
        if let Some(slot) = set.iter_mut().min_by_key(|(_, bucket)| bucket.empty_at_ns) {
            *slot = (key, bucket);
        }
        taken
    }

    /// What [`Buckets::take`] would say. Takes nothing.
    pub fn ask(&self, key: u64, rate: &Rate, now_ns: u64) -> Result<(), TooMuch> {
        let known = self.slots[self.set(key)].iter().find(|(other, _)| *other == key);
        known.map_or_else(Bucket::default, |(_, bucket)| *bucket).take(rate, now_ns)
    }

    /// The slots that a key may lie in.
    fn set(&self, key: u64) -> Range<usize> {
        let sets = self.slots.len() / WAYS;
        let first = (key as usize % sets) * WAYS;
        first..first + WAYS
    }
}

#[cfg(test)]
mod tests;
