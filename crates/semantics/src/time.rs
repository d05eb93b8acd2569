//! Wall time, as a value. Nothing below the purity line reads a clock: `now` always comes in by parameter.

/// A moment of wall time: milliseconds since the Unix epoch. May jump when the machine's clock is set; durations
/// between two of them are never trusted to be positive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

impl Wall {
    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Wall(secs.saturating_mul(1000))
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Seconds from `earlier` to `self`, rounded down; 0 when the clock went backwards.
    pub const fn secs_since(self, earlier: Wall) -> u64 {
        let ms = self.0.saturating_sub(earlier.0);
        if ms <= 0 { 0 } else { (ms / 1000) as u64 }
    }
}
