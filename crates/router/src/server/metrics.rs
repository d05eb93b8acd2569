//! What `/metrics` of a router shows.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use crate::respond::Counters;

/// What is counted of the plan and of HTTP.
#[derive(Default)]
pub(super) struct PlanCounters {
    pub(super) states: AtomicU64,
    pub(super) reloads: AtomicU64,
    pub(super) reload_errors: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) down: AtomicU64,
    pub(super) probes_failed: AtomicU64,
    pub(super) probes: AtomicU64,
    pub(super) serial: AtomicU64,
    pub(super) position: AtomicU64,
    pub(super) head: AtomicU64,
    pub(super) connected: AtomicU64,
    pub(super) redirects: AtomicU64,
    pub(super) redirects_refused: AtomicU64,
    pub(super) votes: AtomicU64,
    pub(super) grey: AtomicU64,
    pub(super) relieved: AtomicU64,
    pub(super) too_fast: AtomicU64,
    pub(super) unwell: AtomicU64,
}

/// A family of one metric: name, what it says, its kind, and where it is counted.
type Family = (&'static str, &'static str, &'static str, fn(&Shared) -> &AtomicU64);

static FAMILIES: [Family; 21] = [
    ("perigee_router_states_total", "States that came into force.", "counter", |shared| &shared.plan.states),
    ("perigee_router_reloads_total", "Changed files that came into force.", "counter", |shared| {
        &shared.plan.reloads
    }),
    ("perigee_router_reload_errors_total", "Changed files that could not be used.", "counter", |shared| {
        &shared.plan.reload_errors
    }),
    ("perigee_router_serial", "Serial number of the zone in force.", "gauge", |shared| &shared.plan.serial),
    (
        "perigee_router_journal_position",
        "Up to where the cluster's journal has been followed; 0 without a cluster.",
        "gauge",
        |shared| &shared.plan.position,
    ),
    (
        "perigee_router_journal_head",
        "Newest position of the cluster's journal, as far as is known.",
        "gauge",
        |shared| &shared.plan.head,
    ),
    (
        "perigee_router_control_connected",
        "Whether a control of the cluster is followed.",
        "gauge",
        |shared| &shared.plan.connected,
    ),
    (
        "perigee_router_unwell",
        "Whether it does not answer what it asks itself each second, as a node of a cluster does.",
        "gauge",
        |shared| &shared.plan.unwell,
    ),
    ("perigee_router_redirects_total", "HTTP requests that were redirected to a PoP.", "counter", |shared| {
        &shared.plan.redirects
    }),
    (
        "perigee_router_redirects_refused_total",
        "HTTP requests of no site, or by a PoP's own name.",
        "counter",
        |shared| &shared.plan.redirects_refused,
    ),
    ("perigee_router_votes_total", "Votes of the cluster's nodes on edges.", "counter", |shared| {
        &shared.plan.votes
    }),
    (
        "perigee_router_pops_grey",
        "PoPs that answer probes, and most beacons do not reach.",
        "gauge",
        |shared| &shared.plan.grey,
    ),
    (
        "perigee_router_pop_pairs_faster_than_light",
        "Pairs of PoPs that are nearer to each other than their locations say, as edges' probes show.",
        "gauge",
        |shared| &shared.plan.too_fast,
    ),
    (
        "perigee_router_cells_moved",
        "Places whose visitors do not all go where they would, as PoPs are full.",
        "gauge",
        |shared| &shared.plan.relieved,
    ),
    (
        "perigee_router_reports_missed_total",
        "Reports of the cluster's nodes that this router was too slow for.",
        "counter",
        |shared| &shared.measured.missed,
    ),
    ("perigee_router_edge_changes_total", "Edges that went down or came up.", "counter", |shared| {
        &shared.plan.changes
    }),
    ("perigee_router_edges_down", "Edges that are down.", "gauge", |shared| &shared.plan.down),
    ("perigee_router_probes_total", "Probes of edges.", "counter", |shared| &shared.plan.probes),
    ("perigee_router_probes_failed_total", "Probes without a good answer.", "counter", |shared| {
        &shared.plan.probes_failed
    }),
    (
        "perigee_router_samples_total",
        "Round trips that were measured, and are believed.",
        "counter",
        |shared| &shared.measured.taken,
    ),
    (
        "perigee_router_samples_without_system_total",
        "Of these, round trips of which too many systems or prefixes were known to learn theirs.",
        "counter",
        |shared| &shared.measured.without_system,
    ),
];

/// Those with labels: name, what they say, kind.
const SAMPLES_REFUSED: (&str, &str, &str) =
    ("perigee_router_samples_refused_total", "Round trips that are not believed, by reason.", "counter");
const EDGE_UP: (&str, &str, &str) = ("perigee_router_edge_up", "Whether an edge is up.", "gauge");

/// What `/metrics` shows: name, kind and what it says, of each family.
pub fn metric_families() -> Vec<(String, &'static str, &'static str)> {
    let counters = Counters::default();
    let mut families: Vec<_> = counters
        .all()
        .map(|(name, help, _)| (format!("perigee_dns_{name}_total"), "counter", help.trim()))
        .collect();
    families.extend(FAMILIES.iter().map(|(name, help, kind, _)| ((*name).to_owned(), *kind, *help)));
    families.extend([SAMPLES_REFUSED, EDGE_UP].map(|(name, help, kind)| (name.to_owned(), kind, help)));
    families
}

pub(super) fn render(shared: &Shared) -> String {
    let mut text = String::new();
    let mut line = |name: &str, help: &str, kind: &str, value: u64| {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    };
    let mut sums: Vec<(&str, &str, u64)> = Vec::new();
    for counters in &shared.counters {
        for (index, (name, help, value)) in counters.all().enumerate() {
            match sums.get_mut(index) {
                Some(sum) => sum.2 += value,
                None => sums.push((name, help.trim(), value)),
            }
        }
    }
    for (name, help, value) in sums {
        line(&format!("perigee_dns_{name}_total"), help, "counter", value);
    }
    for (name, help, kind, counter) in &FAMILIES {
        line(name, help, kind, counter(shared).load(Ordering::Relaxed));
    }
    let (name, help, kind) = SAMPLES_REFUSED;
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    for (why, count) in shared.measured.refused() {
        text.push_str(&format!("{name}{{why=\"{why}\"}} {count}\n"));
    }
    let edges = shared.probing.lock();
    let mut edges: Vec<(&IpAddr, &bool)> = edges.iter().collect();
    edges.sort();
    let (name, help, kind) = EDGE_UP;
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    for (edge, up) in edges {
        text.push_str(&format!("{name}{{edge=\"{edge}\"}} {}\n", u8::from(*up)));
    }
    text
}
