//! Chance that is the same for the same seed.

use std::time::Duration;

/// A small generator (SplitMix64; Steele, Lea and Flood, 2014), from its seed.
pub struct Draw(pub u64);

impl Draw {
    /// 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody iterates over it")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to before `end`, which counts as 1 at least.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// How long until the next of `rate` events a second, of a Poisson process.
    pub fn pause(&mut self, rate: f64) -> Duration {
        let part = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-part.ln() / rate)
    }
}
