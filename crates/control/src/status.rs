//! How control is: for operators as JSON, for Prometheus as text.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::canary::CanaryStatus;
use crate::limits::CANARY_LATE;
use crate::problem::Problem;
use crate::tokens::{Caller, Role};
use crate::{Limit, Shared};

/// How this control is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// Version of the program.
    version: String,
    /// Its name.
    control: String,
    /// The journal's name.
    journal: String,
    /// The newest position.
    head: u64,
    /// Why the journal could not be read when it was tried last; `null` when it could.
    journal_error: Option<String>,
    /// Nodes that are enrolled.
    nodes: usize,
    /// Of these, heard of in the last 30 seconds.
    nodes_in_contact: usize,
    /// Other controls that run and do not tell this one what their nodes report: as long as there is one, nobody is taken for out of
    /// contact, and purges wait for nodes that are silent.
    controls_unheard: Vec<String>,
    canary: CanaryStatus,
}

/// How control is
#[utoipa::path(get, path = "/v1/status", tag = "operators",
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Status>, Problem> {
    caller.may(Role::Viewer)?;
    let nodes = shared.view.get().nodes.len();
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        control: shared.name.clone(),
        journal: shared.journal.id().to_owned(),
        head: shared.tail.head(),
        journal_error: shared.journal_error.lock().clone(),
        nodes,
        nodes_in_contact: shared.in_contact(),
        controls_unheard: shared.unheard_controls(),
        canary: shared.canary.status(),
    }))
}

/// For how long metrics are answered with the same text: whoever asks often and reads none of it has one kept, and not thousands.
const METRICS_FRESH: Duration = Duration::from_millis(100);

/// A family of one metric: name, kind, what it says, and its value.
type Family = (&'static str, &'static str, &'static str, fn(&Shared) -> f64);

static FAMILIES: [Family; 10] = [
    ("perigee_control_journal_position", "gauge", "Newest position of the journal.", |shared| {
        shared.tail.head() as f64
    }),
    (
        "perigee_control_journal_reachable",
        "gauge",
        "Whether the journal could be read when it was tried last.",
        |shared| f64::from(u8::from(shared.journal_error.lock().is_none())),
    ),
    ("perigee_control_nodes", "gauge", "Nodes that are enrolled.", |shared| {
        shared.view.get().nodes.len() as f64
    }),
    (
        "perigee_control_nodes_in_contact",
        "gauge",
        "Nodes that have been heard of in the last 30 seconds.",
        |shared| shared.in_contact() as f64,
    ),
    (
        "perigee_control_controls_unheard",
        "gauge",
        "Other controls that run and do not tell this one what their nodes report.",
        |shared| shared.unheard_controls().len() as f64,
    ),
    (
        "perigee_control_canary_purge_seconds",
        "gauge",
        "From the last canary purge to its last receipt.",
        |shared| shared.canary.status().took_ms.unwrap_or_default() as f64 / 1000.0,
    ),
    (
        "perigee_control_canary_alarm",
        "gauge",
        "Whether the last canary purge was not proven in time.",
        |shared| f64::from(u8::from(shared.canary.status().alarm)),
    ),
    (
        "perigee_control_canary_late_total",
        "counter",
        "Canary purges that were not proven in time.",
        |shared| shared.counts.canaries_late.load(Ordering::Relaxed) as f64,
    ),
    ("perigee_control_purges_total", "counter", "Purges that have been written.", |shared| {
        shared.counts.purges.load(Ordering::Relaxed) as f64
    }),
    ("perigee_control_purge_records_total", "counter", "Records that they were written in.", |shared| {
        shared.counts.records.load(Ordering::Relaxed) as f64
    }),
];

/// What [`metrics`] shows: name, kind and what it says, of each family.
pub fn metric_families() -> Vec<(String, &'static str, &'static str)> {
    let mut families: Vec<_> =
        FAMILIES.iter().map(|(name, kind, help, _)| ((*name).to_owned(), *kind, *help)).collect();
    families.extend(
        OF_STATISTICS
            .iter()
            .map(|(name, help)| (format!("perigee_control_statistics_{name}_total"), "counter", *help)),
    );
    families.extend(
        [EXPORT_REQUESTS, CANARY_LATE_SECONDS, LIMITS_REACHED]
            .map(|(name, kind, help)| (name.to_owned(), kind, help)),
    );
    families
}

/// What is not one number of [`FAMILIES`]: name, kind, and what it says.
const EXPORT_REQUESTS: (&str, &str, &str) = (
    "perigee_control_export_requests_total",
    "counter",
    "Requests with statistics for others, by what became of them.",
);
const CANARY_LATE_SECONDS: (&str, &str, &str) =
    ("perigee_control_canary_late_seconds", "gauge", "The limit of the alarm.");
const LIMITS_REACHED: (&str, &str, &str) =
    ("perigee_control_limits_reached_total", "counter", "Times that a limit was reached.");

/// Of statistics: the end of the name, and what it says.
static OF_STATISTICS: [(&str, &str); 5] = [
    ("counted", "Statistics of a second of a node that were written down."),
    ("repeated", "Statistics that came again and were counted already."),
    ("damaged", "Statistics that could not be read."),
    ("refused", "Statistics for which there was no room; nodes say them again."),
    ("failed", "Transactions of statistics that failed; nodes say them again."),
];

/// Metrics in the text format of Prometheus. They say nothing that a stranger could use, and need no token.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut made = shared.metrics.lock();
    let fresh = made.as_ref().filter(|(at, _)| at.elapsed() < METRICS_FRESH).map(|(_, text)| text.clone());
    let text = fresh.unwrap_or_else(|| {
        let text = Bytes::from(metrics_text(&shared));
        *made = Some((Instant::now(), text.clone()));
        text
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn metrics_text(shared: &Shared) -> String {
    let counts = &shared.counts;
    let statistics = shared.statistics.counts();
    let values = [
        &statistics.lines,
        &statistics.repeated,
        &statistics.damaged,
        &statistics.refused,
        &statistics.failed,
    ];
    let of_statistics = OF_STATISTICS.iter().zip(values).map(|((name, help), count)| {
        let count = count.load(Ordering::Relaxed) as f64;
        (format!("perigee_control_statistics_{name}_total"), "counter", *help, count)
    });
    let lines =
        FAMILIES.iter().map(|(name, kind, help, value)| ((*name).to_owned(), *kind, *help, value(shared)));
    let mut text = String::new();
    for (name, kind, help, value) in lines.chain(of_statistics) {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    }
    let (name, kind, help) = EXPORT_REQUESTS;
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    for export in &*shared.exports.lock() {
        let counts = &export.counts;
        for (end, count) in [("sent", &counts.sent), ("failed", &counts.failed), ("dropped", &counts.dropped)]
        {
            let (to, count) = (label(&export.place), count.load(Ordering::Relaxed));
            text.push_str(&format!("{name}{{to=\"{to}\",end=\"{end}\"}} {count}\n"));
        }
    }
    let (name, kind, help) = CANARY_LATE_SECONDS;
    let late = CANARY_LATE.as_secs();
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {late}\n"));
    let (name, kind, help) = LIMITS_REACHED;
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    for (limit, count) in Limit::ALL.iter().zip(&counts.limits) {
        let (limit, count) = (limit.as_str(), count.load(Ordering::Relaxed));
        text.push_str(&format!("{name}{{limit=\"{limit}\"}} {count}\n"));
    }
    text
}

/// A label's value, as Prometheus' text format wants it.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_may_be_any_text() {
        assert_eq!(super::label("a\\b \"c\"\nd"), r#"a\\b \"c\"\nd"#);
    }
}
