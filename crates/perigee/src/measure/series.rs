//! Visits of one kind, in numbers; and budgets for them.

use browser::Visit;
use insight::stats::{self, RankTest};
use model::ByteSize;
use model::units::parse_duration;
use serde_json::{Value, json};

/// Which visit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum View {
    /// A new visitor, and nothing in the edge.
    Cold,
    /// A new visitor.
    First,
    /// The same visitor once more.
    Repeat,
}

impl View {
    pub(super) const fn words(self) -> &'static str {
        match self {
            View::Cold => "first view, cold edge",
            View::First => "first view",
            View::Repeat => "repeat view",
        }
    }
}

/// What is measured of a visit.
pub(super) const METRICS: [(&str, Unit); 7] = [
    ("ttfb", Unit::Ms),
    ("fcp", Unit::Ms),
    ("lcp", Unit::Ms),
    ("load", Unit::Ms),
    ("cls", Unit::Score),
    ("bytes", Unit::Bytes),
    ("requests", Unit::Count),
];

/// How many of [`METRICS`], from the first on, are times, and compared.
pub(super) const TIMES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Ms,
    Score,
    Bytes,
    Count,
}

impl Unit {
    pub(super) fn words(self, value: f64) -> String {
        match self {
            Unit::Ms if value >= 1000.0 => format!("{:.2} s", value / 1000.0),
            Unit::Ms => format!("{value:.0} ms"),
            Unit::Score => format!("{value:.3}"),
            Unit::Bytes => crate::replay::bytes(value as u64),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

/// One visit.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) visit: Visit,
    pub(super) values: [Option<f64>; METRICS.len()],
}

impl Shot {
    pub(super) fn of(visit: Visit) -> Shot {
        let values = [
            visit.ttfb_ms,
            visit.fcp_ms,
            visit.lcp.as_ref().map(|paint| paint.at_ms),
            visit.load_ms,
            Some(visit.cls),
            Some(visit.bytes as f64),
            Some(visit.exchanges.iter().filter(|one| !one.is_from_cache).count() as f64),
        ];
        Shot { visit, values }
    }
}

/// All visits of one kind.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) way: String,
    pub(super) is_edge: bool,
    pub(super) view: View,
    pub(super) shots: Vec<Shot>,
}

impl Series {
    pub(super) fn new(way: &str, is_edge: bool, view: View, shots: Vec<Shot>) -> Series {
        Series { way: way.to_owned(), is_edge, view, shots }
    }

    pub(super) fn name(&self) -> String {
        format!("{}, {}", self.way, self.view.words())
    }

    /// The values of a metric; visits that have none are left out.
    pub(super) fn values(&self, metric: usize) -> Vec<f64> {
        self.shots.iter().filter_map(|shot| shot.values[metric]).collect()
    }

    pub(super) fn median(&self, metric: usize) -> Option<f64> {
        stats::median(&self.values(metric))
    }

    pub(super) fn interval(&self, metric: usize) -> Option<(f64, f64)> {
        stats::median_interval(&self.values(metric), 0.95, metric as u64)
    }

    /// The visit in the middle by load time: the one to be shown.
    pub(super) fn typical(&self) -> Option<&Shot> {
        let mut order: Vec<&Shot> = self.shots.iter().collect();
        // What never came to its load event took longest.
        let load = |shot: &Shot| shot.visit.load_ms.unwrap_or(f64::INFINITY);
        order.sort_by(|one, other| load(one).total_cmp(&load(other)));
        order.get(order.len() / 2).copied()
    }

    /// Of the typical visit, how many requests the cache in front of the origin answered, and how many it had.
    pub(super) fn hits(&self) -> (usize, usize) {
        let Some(shot) = self.typical() else { return (0, 0) };
        let status = |one: &browser::Exchange| one.field("cache-status").map(is_hit);
        let told: Vec<bool> =
            shot.visit.exchanges.iter().filter(|one| !one.is_from_cache).filter_map(status).collect();
        (told.iter().filter(|hit| **hit).count(), told.len())
    }

    pub(super) fn json(&self) -> Value {
        let metrics: serde_json::Map<String, Value> = (METRICS.iter().enumerate())
            .map(|(index, (name, _))| {
                let value = json!({
                    "median": self.median(index),
                    "interval95": self.interval(index),
                    "values": self.shots.iter().map(|shot| shot.values[index]).collect::<Vec<_>>(),
                });
                ((*name).to_owned(), value)
            })
            .collect();
        let requests = self.typical().map(|shot| shot.visit.exchanges.as_slice()).unwrap_or_default();
        let requests: Vec<Value> = (requests.iter())
            .map(|one| {
                json!({
                    "url": one.url, "kind": one.kind, "status": one.status, "protocol": one.protocol, "start_ms": one.start_ms,
                    "head_ms": one.head_ms, "end_ms": one.end_ms, "bytes": one.bytes, "from_browser_cache": one.is_from_cache,
                    "cache_status": one.field("cache-status"), "failure": one.failure,
                })
            })
            .collect();
        let hits = self.hits();
        json!({ "way": self.way, "view": self.view.words(), "metrics": metrics, "typical": requests, "hits": hits.0, "of": hits.1 })
    }
}

/// Whether the cache closest to the visitor, the last of the list, says that it had it (RFC 9211 §2).
fn is_hit(status: &str) -> bool {
    let last = status.rsplit([',', '\n']).next().unwrap_or_default();
    let mut parts = last.split(';').map(str::trim).skip(1);
    parts.clone().any(|part| part == "hit") && !parts.any(|part| part.starts_with("fwd"))
}

/// One way against another, in one metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub(super) metric: usize,
    pub(super) before: f64,
    pub(super) after: f64,
    /// Interval of the gain, with 95 % confidence.
    pub(super) interval: (f64, f64),
    pub(super) test: RankTest,
    /// Whether it may be claimed.
    pub(super) is_claimed: bool,
}

impl Comparison {
    /// `None` where one side has no values.
    pub(super) fn of(before: &Series, after: &Series, metric: usize) -> Option<Comparison> {
        Comparison::between(&before.values(metric), &after.values(metric), metric)
    }

    /// The same of values.
    pub(super) fn between(old: &[f64], new: &[f64], metric: usize) -> Option<Comparison> {
        Some(Comparison {
            metric,
            before: stats::median(old)?,
            after: stats::median(new)?,
            interval: stats::gain_interval(old, new, 0.95, metric as u64)?,
            test: stats::rank_test(old, new)?,
            is_claimed: false,
        })
    }
}

/// The most that medians may be.
#[derive(Clone, Debug)]
pub(super) struct Budget(pub(super) Vec<(usize, f64)>);

impl Budget {
    /// Reads `lcp=2.5s,bytes=1MiB,requests=50`.
    pub(super) fn parse(text: &str) -> Result<Budget, String> {
        let parts = text.split(',').filter(|part| !part.trim().is_empty()).map(|part| {
            let (name, most) =
                part.trim().split_once('=').ok_or(format!("{part:?} has no =; write e.g. lcp=2.5s"))?;
            let metric = METRICS.iter().position(|(known, _)| *known == name);
            let names: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
            let metric = metric.ok_or(format!("{name:?} is not measured; there are {}", names.join(", ")))?;
            let value = match METRICS[metric].1 {
                Unit::Ms => milliseconds(most),
                Unit::Bytes => ByteSize::parse(most).ok().map(|size| size.0 as f64),
                Unit::Score | Unit::Count => most.parse().ok(),
            };
            let value = value.filter(|value: &f64| value.is_finite() && *value >= 0.0);
            Ok((
                metric,
                value.ok_or(format!("{most:?} is no amount for {name}; write e.g. 2.5s, 1MiB or 50"))?,
            ))
        });
        parts.collect::<Result<Vec<_>, String>>().map(Budget)
    }
}

/// `2.5s`, `300ms`; tenths too, which the configuration does not take.
fn milliseconds(text: &str) -> Option<f64> {
    let secs = text
        .strip_suffix('s')
        .filter(|number| !number.ends_with('m'))
        .and_then(|number| number.parse::<f64>().ok());
    secs.map(|secs| secs * 1000.0)
        .or_else(|| parse_duration(text).ok().map(|time| time.as_secs_f64() * 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_or_refused() {
        let read = |text| Budget::parse(text).map(|budget| budget.0);
        assert_eq!(
            read("lcp=2.5s, ttfb=300ms,bytes=1MiB,requests=50,cls=0.1"),
            Ok(vec![(2, 2500.0), (0, 300.0), (5, 1_048_576.0), (6, 50.0), (4, 0.1)])
        );
        for (bad, wanted) in [
            ("lcp", "no ="),
            ("speed=1s", "not measured"),
            ("lcp=fast", "no amount"),
            ("cls=-1", "no amount"),
        ] {
            assert!(read(bad).unwrap_err().contains(wanted), "{bad}");
        }
    }

    #[test]
    fn a_page_that_never_loads_is_not_the_fastest() {
        let shot = |load_ms| Shot::of(Visit { load_ms, ..Visit::default() });
        let series = Series::new("edge", true, View::First, vec![shot(None), shot(Some(900.0)), shot(None)]);
        assert_eq!((series.median(0), series.median(3)), (None, Some(900.0)));
        assert_eq!(series.typical().unwrap().visit.load_ms, None);
    }

    #[test]
    fn only_the_last_cache_counts() {
        assert!(is_hit("shield; fwd=miss, edge; hit; ttl=3"));
        assert!(!is_hit("shield; hit, edge; fwd=miss; stored"));
        assert!(!is_hit("edge; hit; fwd=stale"));
    }
}
