//! The sums as OTLP takes them: cumulative since this control began.

use prost::Message;
use stats::otlp::{
    CUMULATIVE, Data, HistogramPoint, Histograms, KeyValue, Metric, Metrics, NumberPoint, Resource,
    ResourceMetrics, Scope, ScopeMetrics, Sum,
};

use super::{BOUNDS, FIRST_BYTE, METRICS, Row, Telling, bound_secs};

pub(super) fn request(telling: &Telling<'_>, rows: &[Row]) -> Vec<u8> {
    let (start_ns, at_ns) = (ns(telling.started_ms), ns(telling.at_ms));
    let attributes = |row: &Row| -> Vec<KeyValue> {
        row.of.iter().map(|(name, value)| KeyValue::text(name, value.as_str())).collect()
    };
    let sum = |metric: &super::Metric| Metric {
        name: metric.otlp.to_owned(),
        description: metric.about.to_owned(),
        unit: metric.unit.to_owned(),
        data: Some(Data::Sum(Sum {
            points: rows
                .iter()
                .map(|row| NumberPoint {
                    start_ns,
                    at_ns,
                    value: Some(i64::try_from((metric.of)(&row.sums)).unwrap_or(i64::MAX)),
                    attributes: attributes(row),
                })
                .collect(),
            temporality: CUMULATIVE,
            is_monotonic: true,
        })),
    };
    let [_, name, about] = FIRST_BYTE;
    let first_byte = Metric {
        name: name.to_owned(),
        description: about.to_owned(),
        unit: "s".to_owned(),
        data: Some(Data::Histogram(Histograms {
            points: rows
                .iter()
                .map(|row| HistogramPoint {
                    start_ns,
                    at_ns,
                    count: row.sums.first_byte.count(),
                    bucket_counts: buckets(row),
                    bounds: BOUNDS.map(bound_secs).collect(),
                    attributes: attributes(row),
                })
                .collect(),
            temporality: CUMULATIVE,
        })),
    };
    let mut resource = vec![
        KeyValue::text("service.name", "perigee"),
        KeyValue::text("service.instance.id", telling.control),
    ];
    resource.extend(telling.labels.iter().map(|(name, value)| KeyValue::text(name, value.as_str())));
    let scope = ScopeMetrics {
        scope: Some(Scope::of_perigee(env!("CARGO_PKG_VERSION"))),
        metrics: METRICS.iter().map(sum).chain([first_byte]).collect(),
    };
    let resource = ResourceMetrics { resource: Some(Resource { attributes: resource }), scopes: vec![scope] };
    Metrics { resources: vec![resource] }.encode_to_vec()
}

/// What is in each bucket, and what is beyond the last bound.
fn buckets(row: &Row) -> Vec<u64> {
    let times = &row.sums.first_byte;
    let up_to = BOUNDS.map(|power| times.count_up_to_us(1 << power)).chain([times.count()]);
    let mut before = 0;
    up_to.map(|count| count - std::mem::replace(&mut before, count)).collect()
}

fn ns(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or_default().saturating_mul(1_000_000)
}
