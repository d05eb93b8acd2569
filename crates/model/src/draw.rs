//! Numbers as if by chance, and always the same for the same seed: SplitMix64 (Steele, Lea and Flood, 2014).

/// A sequence that its seed decides.
#[derive(Clone, Debug)]
pub struct Draw(
    /// The seed, and where the sequence stands.
    pub u64,
);

impl Draw {
    /// 64 bits. Of the 2^64 draws of a sequence no two are the same.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `end`, without it; 0 when there is nothing to choose from. The bias is below `end` / 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }

    /// From 0.0 up to 1.0, without it.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Another sequence, decided by this one.
    pub fn fork(&mut self) -> Draw {
        Draw(self.bits())
    }
}

/// 64 bits of which each depends on all of `value`.
pub const fn mix64(value: u64) -> u64 {
    Draw(value).bits()
}
