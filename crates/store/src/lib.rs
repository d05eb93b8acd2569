//! Bytes by key in memory: admission, eviction and a budget that is kept. Knows no HTTP and no clock.
//!
//! [`Tier`] maps uniformly hashed 128-bit keys to values that are cheap to clone (an `Arc`), and decides what stays
//! when the budget is full. The edge keeps its stored responses in one and shares it between its workers.
//!
//! [`Pages`] holds the bytes of large values where the kernel can send them from without a copy. [`InFlight`] counts and bounds
//! what bodies take beside the tier.
//!
//! What it doesn't do: freshness, purges, variants and collapsing are the caller's. A value is opaque but for its
//! weight.
//!
//! ```
//! use store::{Insertion, Policy, Tier, TierConfig, Weigh};
//!
//! #[derive(Clone)]
//! struct Page(std::sync::Arc<str>);
//! impl Weigh for Page {
//!     fn bytes(&self) -> usize {
//!         self.0.len() + 16
//!     }
//! }
//!
//! let tier = Tier::new(TierConfig { bytes_max: 16 << 20, ..TierConfig::default() });
//! let key = 0x5bd1_e995_9d1f_24c1_0f8e_63a7_4b1d_92c6;
//! assert_eq!(tier.insert(key, Page("hello".into())), Insertion::Inserted);
//! assert_eq!(&*tier.lookup(key).unwrap().0, "hello");
//! assert!(tier.remove(key).is_some() && tier.lookup(key).is_none());
//! # let _ = Policy::Lru;
//! ```

pub mod disk;
mod eviction;
mod ghost;
mod in_flight;
mod pages;
mod shard;
mod slots;
mod tier;

pub use in_flight::{InFlight, Room};
pub use pages::{PAGE_BYTES, Pages, Run};
pub use tier::{Insertion, Policy, Refusal, Tier, TierConfig, TierStats, Weigh};

/// A key for tests: uniform and reproducible.
#[cfg(test)]
fn slots_test_key(number: u64) -> u128 {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    u128::from(mix(number * 2 + 1)) << 64 | u128::from(mix(number * 2 + 2))
}
