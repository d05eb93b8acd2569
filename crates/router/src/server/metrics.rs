//! What `/metrics` of a router shows, and where most of it is counted: `respond` and `measure` count by themselves.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Shared;
use crate::measure::MeasureCounters;
use crate::respond::Counters;

/// A family of one metric: name, what it says, its kind, and its value.
type Family = (&'static str, &'static str, &'static str, u64);

macro_rules! plan_counters {
    ($($field:ident: $name:literal, $help:literal, $kind:literal;)*) => {
        /// What is counted of the plan, of HTTP and of who steers it.
        #[derive(Default)]
        pub(super) struct PlanCounters {
            $(pub(super) $field: AtomicU64,)*
        }

        impl PlanCounters {
            fn all(&self) -> impl Iterator<Item = Family> {
                [$(($name, $help, $kind, self.$field.load(Relaxed)),)*].into_iter()
            }
        }
    };
}

plan_counters! {
    states: "perigee_router_states_total", "States that came into force.", "counter";
    reloads: "perigee_router_reloads_total", "Changed files that came into force.", "counter";
    reload_errors: "perigee_router_reload_errors_total", "Changed files that could not be used.", "counter";
    serial: "perigee_router_serial", "Serial number of the zone in force.", "gauge";
    position: "perigee_router_journal_position", "Up to where the cluster's journal has been followed; 0 without a cluster.", "gauge";
    head: "perigee_router_journal_head", "Newest position of the cluster's journal, as far as is known.", "gauge";
    connected: "perigee_router_control_connected", "Whether a control of the cluster is followed.", "gauge";
    unwell: "perigee_router_unwell", "Whether it does not answer what it asks itself each second, as a node of a cluster does.", "gauge";
    redirects: "perigee_router_redirects_total", "HTTP requests that were redirected to a PoP.", "counter";
    redirects_refused: "perigee_router_redirects_refused_total", "HTTP requests of no site, or by a PoP's own name.", "counter";
    votes: "perigee_router_votes_total", "Votes of the cluster's nodes on edges.", "counter";
    grey: "perigee_router_pops_grey", "PoPs that answer probes, and most beacons do not reach.", "gauge";
    too_fast: "perigee_router_pop_pairs_faster_than_light", "Pairs of PoPs that are nearer to each other than their locations say, as edges' probes show.", "gauge";
    relieved: "perigee_router_cells_moved", "Places whose visitors do not all go where they would, as PoPs are full.", "gauge";
    changes: "perigee_router_edge_changes_total", "Edges that went down or came up.", "counter";
    down: "perigee_router_edges_down", "Edges that are down.", "gauge";
    probes: "perigee_router_probes_total", "Probes of edges.", "counter";
    probes_failed: "perigee_router_probes_failed_total", "Probes without a good answer.", "counter";
}

/// Those without labels.
fn families(plan: &PlanCounters, measured: &MeasureCounters) -> impl Iterator<Item = Family> {
    let of_measured = [
        (
            "perigee_router_reports_missed_total",
            "Reports of the cluster's nodes that this router was too slow for.",
            &measured.missed,
        ),
        (
            "perigee_router_samples_total",
            "Round trips that were measured, and are believed.",
            &measured.taken,
        ),
        (
            "perigee_router_samples_without_system_total",
            "Of these, round trips of which too many systems or prefixes were known to learn theirs.",
            &measured.without_system,
        ),
    ];
    plan.all().chain(of_measured.map(|(name, help, counter)| (name, help, "counter", counter.load(Relaxed))))
}

/// Those with labels: name, what they say, kind.
const SAMPLES_REFUSED: (&str, &str, &str) =
    ("perigee_router_samples_refused_total", "Round trips that are not believed, by reason.", "counter");
const EDGE_UP: (&str, &str, &str) = ("perigee_router_edge_up", "Whether an edge is up.", "gauge");

/// What `/metrics` shows: name, kind and what it says, of each family.
pub fn metric_families() -> Vec<(String, &'static str, &'static str)> {
    let dns = Counters::default();
    let dns = dns.all().map(|(name, help, _)| (format!("perigee_dns_{name}_total"), "counter", help));
    let (plan, measured) = (PlanCounters::default(), MeasureCounters::default());
    let own = families(&plan, &measured).map(|(name, help, kind, _)| (name, help, kind));
    let own = own.chain([SAMPLES_REFUSED, EDGE_UP]);
    dns.chain(own.map(|(name, help, kind)| (name.to_owned(), kind, help))).collect()
}

/// All of it in Prometheus' text format.
pub(super) fn render(shared: &Shared) -> String {
    let head = |name: &str, help: &str, kind: &str| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    let mut text = String::new();
    let mut line = |name: &str, help: &str, kind: &str, value: u64| {
        text.push_str(&format!("{}{name} {value}\n", head(name, help, kind)));
    };
    let mut sums: Vec<_> = Counters::default().all().collect();
    for counters in &shared.counters {
        sums.iter_mut().zip(counters.all()).for_each(|((.., sum), (.., value))| *sum += value);
    }
    for (name, help, sum) in sums {
        line(&format!("perigee_dns_{name}_total"), help, "counter", sum);
    }
    for (name, help, kind, value) in families(&shared.plan, &shared.measured) {
        line(name, help, kind, value);
    }
    let (name, help, kind) = SAMPLES_REFUSED;
    text.push_str(&head(name, help, kind));
    for (why, count) in shared.measured.refused() {
        text.push_str(&format!("{name}{{why=\"{why}\"}} {count}\n"));
    }
    let edges = shared.probing.lock();
    let mut edges: Vec<(&IpAddr, &bool)> = edges.iter().collect();
    edges.sort();
    let (name, help, kind) = EDGE_UP;
    text.push_str(&head(name, help, kind));
    for (edge, up) in edges {
        text.push_str(&format!("{name}{{edge=\"{edge}\"}} {}\n", u8::from(*up)));
    }
    text
}
