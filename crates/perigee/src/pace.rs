//! How many requests a second are sent, by however many that send them.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How late a turn may be taken without those behind it becoming late too: timers wake a millisecond or more too late.
const LATE: Duration = Duration::from_millis(5);

/// Gives out turns.
pub(crate) struct Pace {
    next: Mutex<Instant>,
    gap: Duration,
}

impl Pace {
    /// The first turn is now; `rate` in a second, at least 1.
    pub(crate) fn new(rate: u32) -> Pace {
        Pace { next: Mutex::new(Instant::now()), gap: Duration::from_secs(1) / rate }
    }

    /// When whoever asks `now` has its turn; not in the future where it is overdue.
    pub(crate) fn turn(&self, now: Instant) -> Instant {
        let Ok(mut next) = self.next.lock() else { return now + self.gap };
        let turn = (*next).max(now.checked_sub(LATE).unwrap_or(now));
        *next = turn + self.gap;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_by_timers_of_a_millisecond_and_nothing_is_made_up_for_a_pause() {
        for rate in [7, 700, 3_000, 10_000] {
            let pace = Pace::new(rate);
            let begun = *pace.next.lock().unwrap();
            let mut now = begun;
            let take = |now: &mut Instant| {
                // Woken at the millisecond after its turn.
                let ms = pace.turn(*now).saturating_duration_since(begun).as_micros().div_ceil(1_000);
                *now = (*now).max(begun + Duration::from_millis(ms as u64));
            };
            (0..=rate).for_each(|_| take(&mut now));
            let took = (now - begun).as_millis();
            assert!((995..=1_001).contains(&took), "{rate}: {took} ms");
            let pause = now + Duration::from_secs(10);
            now = pause;
            (0..=rate).for_each(|_| take(&mut now));
            let took = (now - pause).as_millis();
            assert!((990..=1_001).contains(&took), "{rate}: {took} ms after a pause");
        }
    }
}
