//! The sums as Prometheus takes them: a series for each number, with a sample of now.
//!
//! A series that is told for the first time has a sample of 0 before, at the time of the last telling: without it, `increase()` would
//! not count what is in its first sample.

use prost::Message;
use stats::remote_write::{Label, Sample, TimeSeries, WriteRequest};

use super::{BOUNDS, FIRST_BYTE, METRICS, Row, Telling, bound_secs};

pub(super) fn request(telling: &Telling<'_>, rows: &[Row]) -> Vec<u8> {
    let mut series = Vec::with_capacity(rows.len() * (METRICS.len() + BOUNDS.count() + 2));
    for row in rows {
        let mut push = |name: &str, le: Option<String>, value: u64| {
            let labels = labels(telling, row, name, le);
            let before = row.is_new.then_some(Sample { value: 0.0, at_ms: telling.before_ms });
            let now = Sample { value: value as f64, at_ms: telling.at_ms };
            series.push(TimeSeries { labels, samples: before.into_iter().chain([now]).collect() });
        };
        for metric in &METRICS {
            push(metric.name, None, (metric.of)(&row.sums));
        }
        let (times, name) = (&row.sums.first_byte, FIRST_BYTE[0]);
        for power in BOUNDS {
            let le = Some(bound_secs(power).to_string());
            push(&format!("{name}_bucket"), le, times.count_up_to_us(1 << power));
        }
        push(&format!("{name}_bucket"), Some("+Inf".to_owned()), times.count());
        push(&format!("{name}_count"), None, times.count());
    }
    WriteRequest { series }.encode_to_vec()
}

fn labels(telling: &Telling<'_>, row: &Row, name: &str, le: Option<String>) -> Vec<Label> {
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
    let mut labels = vec![label("__name__", name), label("control", telling.control)];
    labels.extend(telling.labels.iter().map(|(name, value)| label(name, value)));
    labels.extend(row.of.iter().map(|(name, value)| label(name, value)));
    labels.extend(le.map(|le| label("le", &le)));
    labels.retain(|label| !label.value.is_empty());
    labels.sort();
    labels
}
