//! Time, read in one place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day in the unit of [`now_ms`].
pub(crate) const DAY_MS: i64 = 24 * 3600 * 1000;

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A duration in the unit of [`now_ms`].
pub(crate) fn ms(duration: Duration) -> i64 {
    duration.as_millis() as i64
}

/// The day of a moment, from 1970-01-01, in UTC.
pub(crate) fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}
