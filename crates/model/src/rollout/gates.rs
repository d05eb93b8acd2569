//! What a candidate may be worse by, and the arithmetic that says whether it is: shares of requests by Wilson's score
//! interval, typical latency by the mean of its classes, memory by a straight line through it.
//!
//! A share is worse when the low end of the candidate's interval lies above what is allowed by the reference: so few requests
//! never condemn, and a large harm needs few. (E. B. Wilson, JASA 22, 1927; that two intervals apart are a stricter test than
//! one of the difference: N. Schenker and J. F. Gentleman, The American Statistician 55, 2001.) It is looked at each second,
//! on many nodes, so the interval is a wide one.

use serde::{Deserialize, Serialize};

use crate::settings::{Bound, bound};
use crate::vitals::Vitals;

/// How many standard errors a candidate's numbers are given the benefit of, on top of what is allowed: chance alone goes so
/// far once in 700 looks, and would have to do so in several in a row.
pub const ASSURANCE: f64 = 3.0;
/// Standard errors that a reference is given: it was measured for a short time too.
const REFERENCE_ASSURANCE: f64 = 1.0;
/// The same for latency, whose allowance is wide and whose noise is large: hits and misses lie far apart.
const LATENCY_ASSURANCE: f64 = 2.0;
/// Requests without which numbers of a node say nothing.
pub(crate) const REQUESTS_MIN: u64 = 30;
/// Bad ones without which a share says nothing: the interval is too narrow for a handful.
const BAD_MIN: u64 = 10;

/// Times as many failures as before and elsewhere. Canaries of half an hour at large operators use 1.5 to 2; ours is short.
pub const ERRORS_FACTOR: Bound<f64> = bound(2.0, 1.0, 100.0);
/// And so many percent of the requests on top: a site that fails alone is seen when it has more of the node's requests.
pub const ERRORS_FLOOR: Bound<f64> = bound(0.5, 0.0, 100.0);
/// Times as many misses.
pub const MISSES_FACTOR: Bound<f64> = bound(1.5, 1.0, 100.0);
/// And so many percent of the requests: popularity wanders by some.
pub const MISSES_FLOOR: Bound<f64> = bound(10.0, 0.0, 100.0);
/// Times as slow as before, typically (the geometric mean, which is the median of what is usual). A reload alone costs none.
pub const LATENCY_FACTOR: Bound<f64> = bound(1.5, 1.1, 100.0);
/// Times as many slow requests as before: those that took longer than 99 % did.
pub const SLOW_FACTOR: Bound<f64> = bound(2.0, 1.0, 100.0);
/// And so many percent of the requests.
pub const SLOW_FLOOR: Bound<f64> = bound(1.5, 0.0, 100.0);
/// Times as many hits of what was made for one visitor ([`Vitals::personal_hits`]): hardly any.
pub const PERSONAL_FACTOR: Bound<f64> = bound(1.2, 1.0, 100.0);
/// And so many percent of the requests: one in five hundred, which a few visitors can make by chance.
pub const PERSONAL_FLOOR: Bound<f64> = bound(0.2, 0.0, 100.0);
/// Percent of its memory that a process may grow by in a minute beyond what it did before and the others do: at the default
/// it would take it 20 minutes to double.
pub const GROWTH: Bound<f64> = bound(5.0, 0.5, 1000.0);
/// Bytes that a smaller process counts as when its growth is judged: one that has just begun fills buffers and tables, and needs
/// to grow by some 25 MiB a minute at the default to be called leaking.
pub(crate) const MEMORY_LEAST: f64 = (512 << 20) as f64;

/// What a candidate may be worse by. The defaults are those of the constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// [`ERRORS_FACTOR`].
    pub errors_factor: f64,
    /// [`ERRORS_FLOOR`].
    pub errors_floor: f64,
    /// [`MISSES_FACTOR`].
    pub misses_factor: f64,
    /// [`MISSES_FLOOR`].
    pub misses_floor: f64,
    /// [`LATENCY_FACTOR`].
    pub latency_factor: f64,
    /// [`SLOW_FACTOR`].
    pub slow_factor: f64,
    /// [`SLOW_FLOOR`].
    pub slow_floor: f64,
    /// [`PERSONAL_FACTOR`].
    pub personal_factor: f64,
    /// [`PERSONAL_FLOOR`].
    pub personal_floor: f64,
    /// [`GROWTH`].
    pub growth: f64,
}

impl Default for Gates {
    fn default() -> Self {
        Gates {
            errors_factor: ERRORS_FACTOR.default,
            errors_floor: ERRORS_FLOOR.default,
            misses_factor: MISSES_FACTOR.default,
            misses_floor: MISSES_FLOOR.default,
            latency_factor: LATENCY_FACTOR.default,
            slow_factor: SLOW_FACTOR.default,
            slow_floor: SLOW_FLOOR.default,
            personal_factor: PERSONAL_FACTOR.default,
            personal_floor: PERSONAL_FLOOR.default,
            growth: GROWTH.default,
        }
    }
}

impl Gates {
    /// Whether each is in its range.
    ///
    /// # Errors
    /// Which is not, and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let all = [
            ("errors_factor", self.errors_factor, ERRORS_FACTOR),
            ("errors_floor", self.errors_floor, ERRORS_FLOOR),
            ("misses_factor", self.misses_factor, MISSES_FACTOR),
            ("misses_floor", self.misses_floor, MISSES_FLOOR),
            ("latency_factor", self.latency_factor, LATENCY_FACTOR),
            ("slow_factor", self.slow_factor, SLOW_FACTOR),
            ("slow_floor", self.slow_floor, SLOW_FLOOR),
            ("personal_factor", self.personal_factor, PERSONAL_FACTOR),
            ("personal_floor", self.personal_floor, PERSONAL_FLOOR),
            ("growth", self.growth, GROWTH),
        ];
        match all.into_iter().find(|(_, value, range)| !(range.min..=range.max).contains(value)) {
            Some((name, value, range)) => {
                Err(format!("{name} is {value}; it may be {} to {}", range.min, range.max))
            }
            None => Ok(()),
        }
    }

    /// For a candidate that tells requests apart in another way than what is stored, so that it begins with empty sites: misses
    /// are expected, and that they take their time.
    pub(crate) fn for_cold(self) -> Gates {
        Gates {
            misses_factor: MISSES_FACTOR.max,
            misses_floor: MISSES_FLOOR.max,
            latency_factor: f64::INFINITY,
            slow_floor: SLOW_FLOOR.max,
            ..self
        }
    }
}

/// Something that can be too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Answers of 500 to 599.
    Errors,
    /// Typical latency.
    Latency,
    /// Requests that took longer than nearly all did before.
    Slow,
    /// Requests that the cache did not answer.
    Misses,
    /// Hits of what was made for one visitor.
    Personal,
    /// Memory.
    Memory,
    /// Starts of the program.
    Starts,
    /// The node gives no sign of life.
    Silence,
    /// The node would not take it.
    Refusal,
    /// The node does not come to run it, or runs it and does not answer what it asks itself: one word for both, as controls that were
    /// older than that question read no other.
    #[serde(alias = "self_check")]
    Arrival,
    /// What a control of a later version has found.
    #[serde(other)]
    Other,
}

impl Measure {
    /// Whether it is how long answers take.
    pub(crate) fn is_slowness(self) -> bool {
        matches!(self, Measure::Latency | Measure::Slow)
    }
}

/// So many of so many requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) bad: u64,
    pub(crate) of: u64,
}

impl Share {
    /// Whether it is over so many percent, more surely than chance would have it.
    pub(crate) fn surely_exceeds(self, allowed: f64) -> bool {
        self.of >= REQUESTS_MIN && self.bad >= BAD_MIN && self.interval(ASSURANCE).0 * 100.0 > allowed
    }

    pub(crate) fn percent(self) -> f64 {
        100.0 * self.bad as f64 / self.of.max(1) as f64
    }

    /// The interval in which the real share lies, as far as `assurance` standard errors go. From 0 to 1 without requests.
    fn interval(self, assurance: f64) -> (f64, f64) {
        let (n, square) = (self.of as f64, assurance * assurance);
        if self.of == 0 {
            return (0.0, 1.0);
        }
        let share = self.bad.min(self.of) as f64 / n;
        let middle = (share + square / (2.0 * n)) / (1.0 + square / n);
        let half =
            assurance * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt() / (1.0 + square / n);
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }
}

/// What a share may be by a reference, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) factor: f64,
    pub(crate) floor: f64,
}

impl Allowance {
    pub(crate) fn by(self, reference: Share) -> f64 {
        let (_, high) = reference.interval(REFERENCE_ASSURANCE);
        let high = if reference.of < REQUESTS_MIN { 0.0 } else { high };
        (self.factor * high * 100.0 + self.floor).min(100.0)
    }
}

/// Typical latency: mean of the classes, each of which is twice the one before, and its standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Typical {
    mean: f64,
    error: f64,
}

impl Typical {
    /// `None` with too few requests to say.
    pub(crate) fn of(vitals: &Vitals) -> Option<Typical> {
        let n: u64 = vitals.latency.iter().sum();
        if n < REQUESTS_MIN {
            return None;
        }
        let counts = || vitals.latency.iter().enumerate().map(|(class, count)| (class as f64, *count as f64));
        let n = n as f64;
        let mean = counts().map(|(class, count)| class * count).sum::<f64>() / n;
        let variance = counts().map(|(class, count)| (class - mean).powi(2) * count).sum::<f64>() / n;
        Some(Typical { mean, error: (variance / n).sqrt() })
    }

    /// Times as long as `before`, and the least that it surely is.
    pub(crate) fn times(self, before: Typical) -> (f64, f64) {
        let by = self.mean - before.mean;
        let error = self.error.hypot(before.error);
        (by.exp2(), (by - LATENCY_ASSURANCE * error).exp2())
    }
}

/// The straight line through some values over time, and how surely it rises.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Per second.
    pub(crate) slope: f64,
    error: f64,
    /// The mean value.
    pub(crate) level: f64,
}

impl Line {
    /// Through points of seconds and values, by least squares. `None` with too few to have a direction.
    pub(crate) fn through(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<Line> {
        let n = points.clone().count();
        if n < 8 {
            return None;
        }
        let count = n as f64;
        let mean = |value: fn((f64, f64)) -> f64| points.clone().map(value).sum::<f64>() / count;
        let (time, level) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.clone().map(|(t, _)| (t - time).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let slope = points.clone().map(|(t, value)| (t - time) * (value - level)).sum::<f64>() / spread;
        let rest: f64 = points.map(|(t, value)| (value - level - slope * (t - time)).powi(2)).sum();
        Some(Line { slope, error: (rest / (count - 2.0) / spread).sqrt(), level })
    }

    /// The same direction, with a level of at least this.
    pub(crate) fn at_least(self, least: f64) -> Line {
        Line { level: self.level.max(least), ..self }
    }

    /// Growth per minute, in percent of the level, that it surely is.
    pub(crate) fn sure_growth(self) -> f64 {
        self.growth_of(self.slope - ASSURANCE * self.error)
    }

    /// Growth per minute, in percent of the level.
    pub(crate) fn growth(self) -> f64 {
        self.growth_of(self.slope)
    }

    fn growth_of(self, slope: f64) -> f64 {
        100.0 * 60.0 * slope / self.level.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_wilsons() {
        // Worked by hand: 10 of 50 at 1.96 is 0.1124 to 0.3304.
        let (low, high) = Share { bad: 10, of: 50 }.interval(1.96);
        assert!((low - 0.1124).abs() < 1e-4 && (high - 0.3304).abs() < 1e-4, "{low} {high}");
        assert_eq!(Share { bad: 0, of: 0 }.interval(4.0), (0.0, 1.0));
        let (low, high) = Share { bad: 7, of: 7 }.interval(4.0);
        assert!(low > 0.2 && high == 1.0);
    }

    #[test]
    fn few_requests_condemn_nothing_and_a_large_harm_needs_few() {
        let errors = Allowance { factor: 2.0, floor: 0.5 };
        let before = Share { bad: 1, of: 1000 };
        for (bad, of, exceeds) in [
            (29, 29, false),
            (15, 30, true),
            (3, 30, false),
            (10, 1_000, false),
            (30, 1_000, true),
            (60, 10_000, false),
            (140, 10_000, true),
        ] {
            assert_eq!(Share { bad, of }.surely_exceeds(errors.by(before)), exceeds, "{bad} of {of}");
        }
    }

    #[test]
    fn twice_the_latency_is_twice_whatever_the_spread() {
        let mut before = Vitals::default();
        before.latency[3..9].copy_from_slice(&[100, 300, 400, 300, 100, 20]);
        let mut now = Vitals::default();
        now.latency[4..10].copy_from_slice(&[100, 300, 400, 300, 100, 20]);
        let (times, surely) = Typical::of(&now).unwrap().times(Typical::of(&before).unwrap());
        assert!((times - 2.0).abs() < 1e-9 && surely > 1.6, "{times} {surely}");
        assert!(Typical::of(&Vitals::default()).is_none());
    }

    #[test]
    fn a_line_knows_noise_from_growth() {
        let at =
            |step: u32, noise: f64| (f64::from(step), 1e9 + noise * (f64::from(step * 7919 % 101) - 50.0));
        let flat = Line::through((0..30).map(|step| at(step + 101, 1e5))).unwrap();
        assert!(flat.sure_growth() < 5.0, "{flat:?}");
        let grows = (0..30).map(|step| (f64::from(step), at(step + 101, 1e5).1 + 3e6 * f64::from(step)));
        let grows = Line::through(grows).unwrap();
        assert!(grows.sure_growth() > 10.0 && (grows.growth() - 18.0).abs() < 3.0, "{grows:?}");
        assert!(Line::through([(0.0, 1.0); 20].into_iter()).is_none());
    }

    #[test]
    fn gates_out_of_range_are_refused_by_name() {
        assert_eq!(Gates::default().check(), Ok(()));
        let gates = Gates { errors_factor: 0.5, ..Gates::default() };
        assert_eq!(gates.check().unwrap_err(), "errors_factor is 0.5; it may be 1 to 100");
        assert!(Gates { growth: f64::NAN, ..Gates::default() }.check().is_err());
        let partial: Gates = serde_json::from_str(r#"{"errors_floor": 1.0}"#).unwrap();
        assert_eq!(partial, Gates { errors_floor: 1.0, ..Gates::default() });
        assert!(serde_json::from_str::<Gates>(r#"{"error_floor": 1.0}"#).is_err());
    }
}
