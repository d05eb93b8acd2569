//! When a certificate is ordered: at once where there is none, at two thirds of its life or when the authority suggests
//! (RFC 9773), and after failures later each time. Values in, values out; what looks like chance is a hash, so that all
//! edges with one store come to the same moment, and different domains to different ones.

use std::hash::Hasher;
use std::time::Duration;

use semantics::Wall;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// The span by which renewals of certificates with the same dates are spread: a thirtieth of their life, three days of
/// ninety.
const SPREAD_PART: i64 = 30;

/// Time before the second attempt. Let's Encrypt lets a name fail five times an hour: this one, fourfold each time, comes
/// to four.
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// The longest time between two attempts: four a day, so that what was repaired at night is noticed in the morning.
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);
/// A wait is lengthened by up to a quarter, so that what failed together does not come back together.
const RETRY_SPREAD_PART: u64 = 4;

/// Between two questions when the authority wants a certificate renewed. Whatever it names itself, a minute at least (RFC 9773
/// §4.3), so that the other certificates have their turn.
const QUESTION_INTERVAL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(6 * 3600));

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Wall,
    /// The last.
    pub not_after: Wall,
}

/// Attempts that came to nothing since the last that did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// How many.
    pub count: u32,
    /// Why the last one did.
    pub reason: String,
    /// When the next may begin, in ms since the epoch.
    pub next_ms: i64,
}

/// Between which moments the authority wants a certificate to be renewed (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub start: Wall,
    /// The last.
    pub end: Wall,
}

/// When a certificate of `domain` is to be renewed.
pub fn renewal(domain: &str, validity: &Validity, window: Option<Window>) -> Wall {
    let (start, span) = match window {
        Some(window) => (window.start.0, window.end.0.saturating_sub(window.start.0)),
        None => {
            let life = validity.not_after.0.saturating_sub(validity.not_before.0);
            (validity.not_before.0.saturating_add(life / 3 * 2), life / SPREAD_PART)
        }
    };
    Wall(start.saturating_add(part_of(span.max(0) as u64, domain, validity.not_after.0) as i64))
}

/// When the next order for `domain` may begin.
pub fn due(
    domain: &str,
    current: Option<&Validity>,
    window: Option<Window>,
    failures: Option<&Failures>,
) -> Wall {
    let wanted = current.map_or(Wall(i64::MIN), |validity| renewal(domain, validity, window));
    Wall(failures.map_or(i64::MIN, |failures| failures.next_ms).max(wanted.0))
}

/// What is noted after an attempt that failed at `now`.
pub fn failed(domain: &str, before: Option<&Failures>, reason: String, now: Wall) -> Failures {
    let count = before.map_or(0, |failures| failures.count).saturating_add(1);
    let wait = RETRY_FIRST.saturating_mul(4_u32.saturating_pow(count - 1)).min(RETRY_MAX).as_millis() as u64;
    let wait = wait + part_of(wait / RETRY_SPREAD_PART, domain, i64::from(count));
    Failures { count, reason, next_ms: now.0.saturating_add(wait as i64) }
}

/// When the authority is asked again when it wants a certificate renewed, after an answer at `now` that is to be believed for
/// so long: in a minute to 6 h.
pub fn next_question(now: Wall, retry: Duration) -> Wall {
    let (least, most) = QUESTION_INTERVAL;
    Wall(now.0.saturating_add(retry.clamp(least, most).as_millis() as i64))
}

/// A part of `span`, between none and all of it.
fn part_of(span: u64, domain: &str, number: i64) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(domain.as_bytes());
    hasher.write_i64(number);
    ((u128::from(hasher.finish()) * u128::from(span)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const LIFE: Validity = Validity { not_before: Wall(1_000 * DAY), not_after: Wall(1_090 * DAY) };

    #[test]
    fn a_renewal_is_due_at_two_thirds_of_life_spread_over_three_days_of_ninety() {
        let mut days: Vec<i64> = (0..200)
            .map(|number| renewal(&format!("{number}.example"), &LIFE, None).0 / (DAY / 24))
            .collect();
        assert!(days.iter().all(|hour| (1_060 * 24..1_063 * 24).contains(hour)), "{days:?}");
        days.sort_unstable();
        days.dedup();
        assert!(days.len() > 40, "they are spread: {}", days.len());
        assert_eq!(
            renewal("a.example", &LIFE, None),
            renewal("a.example", &LIFE, None),
            "for all edges the same"
        );
    }

    #[test]
    fn the_authority_may_want_it_sooner() {
        let window = Window { start: Wall(1_010 * DAY), end: Wall(1_012 * DAY) };
        let moment = renewal("a.example", &LIFE, Some(window)).0;
        assert!((1_010 * DAY..1_012 * DAY).contains(&moment));
        let backwards = Window { start: Wall(5), end: Wall(1) };
        assert_eq!(renewal("a.example", &LIFE, Some(backwards)), Wall(5));
    }

    #[test]
    fn the_authority_is_asked_again_when_it_says_but_not_at_once_and_not_never() {
        for (retry_s, wait_s) in [(0, 60), (59, 60), (3_600, 3_600), (86_400, 21_600), (u64::MAX, 21_600)] {
            let next = next_question(Wall(5), Duration::from_secs(retry_s));
            assert_eq!(next, Wall(5 + wait_s * 1_000), "Retry-After: {retry_s}");
        }
    }

    #[test]
    fn what_has_no_certificate_is_due_at_once_and_after_a_failure_later_each_time() {
        assert_eq!(due("a.example", None, None, None), Wall(i64::MIN));
        let mut failures = None;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let next = failed("a.example", failures.as_ref(), "refused".into(), Wall(0));
            assert_eq!(due("a.example", None, None, Some(&next)).0, next.next_ms);
            waits.push(next.next_ms / 60_000);
            failures = Some(next);
        }
        let least = [1, 4, 16, 64, 256, 360, 360, 360];
        for (wait, least) in waits.iter().zip(least) {
            assert!((least..=least + least / 4).contains(wait), "{waits:?}");
        }
        let renewal = renewal("a.example", &LIFE, None);
        let old = Failures { count: 1, reason: String::new(), next_ms: 0 };
        assert_eq!(
            due("a.example", Some(&LIFE), None, Some(&old)),
            renewal,
            "an old failure does not bring it forward"
        );
    }

    #[test]
    fn dates_at_the_ends_of_time_are_no_trouble() {
        let odd = Validity { not_before: Wall(i64::MAX), not_after: Wall(i64::MIN) };
        let _ = renewal("a.example", &odd, None);
        let endless = Validity { not_before: Wall(i64::MIN), not_after: Wall(i64::MAX) };
        let _ = renewal("a.example", &endless, Some(Window { start: Wall(i64::MAX), end: Wall(i64::MAX) }));
        let many = Failures { count: u32::MAX, reason: String::new(), next_ms: i64::MAX };
        let _ = failed("a.example", Some(&many), String::new(), Wall(i64::MAX));
    }
}
