//! Chance that is the same for the same seed.

use std::time::Duration;

/// [`model::Draw`] from its seed, with what the plays and the soak draw.
pub struct Draw(pub u64);

impl Draw {
    /// 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody iterates over it")]
    pub fn next(&mut self) -> u64 {
        let mut draw = model::Draw(self.0);
        let bits = draw.bits();
        self.0 = draw.0;
        bits
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
