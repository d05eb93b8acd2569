//! What `/metrics` of a router shows, and where most of it is counted: `respond` and `measure` count by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Shared;
use crate::measure::MeasureCounters;
use crate::respond::Counters;

/// What metrics of one name have in common.
#[derive(Clone, Copy)]
struct Family<'a> {
    name: &'a str,
    kind: &'static str,
    help: &'static str,
}

impl Family<'_> {
    /// What stands before them in Prometheus' text format.
    fn head(&self) -> String {
        let Family { name, kind, help } = self;
        format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
    }

    /// One without labels.
    fn with(&self, value: u64) -> String {
        format!("{}{} {value}\n", self.head(), self.name)
    }
}

macro_rules! plan_counters {
    ($($field:ident: $name:literal, $kind:literal, $help:literal;)*) => {
        /// What is counted of the plan, of HTTP and of who steers it.
        #[derive(Default)]
        pub(super) struct PlanCounters {
            $(pub(super) $field: AtomicU64,)*
        }

        impl PlanCounters {
            fn all(&self) -> impl Iterator<Item = (Family<'static>, u64)> {
                [$((Family { name: $name, kind: $kind, help: $help }, self.$field.load(Relaxed)),)*].into_iter()
            }
        }
    };
}

plan_counters! {
    states: "perigee_router_states_total", "counter", "States that came into force.";
    reloads: "perigee_router_reloads_total", "counter", "Changed files that came into force.";
    reload_errors: "perigee_router_reload_errors_total", "counter", "Changed files that could not be used.";
    serial: "perigee_router_serial", "gauge", "Serial number of the zone in force.";
    position: "perigee_router_journal_position", "gauge", "Up to where the cluster's journal has been followed; 0 without a cluster.";
    head: "perigee_router_journal_head", "gauge", "Newest position of the cluster's journal, as far as is known.";
    connected: "perigee_router_control_connected", "gauge", "Whether a control of the cluster is followed.";
    unwell: "perigee_router_unwell", "gauge", "Whether it does not answer what it asks itself each second, as a node of a cluster does.";
    redirects: "perigee_router_redirects_total", "counter", "HTTP requests that were redirected to a PoP.";
    redirects_refused: "perigee_router_redirects_refused_total", "counter", "HTTP requests of no site, or by a PoP's own name.";
    votes: "perigee_router_votes_total", "counter", "Votes of the cluster's nodes on edges.";
    grey: "perigee_router_pops_grey", "gauge", "PoPs that answer probes, and most beacons do not reach.";
    too_fast: "perigee_router_pop_pairs_faster_than_light", "gauge", "Pairs of PoPs that are nearer to each other than their locations say, as edges' probes show.";
    relieved: "perigee_router_cells_moved", "gauge", "Places whose visitors do not all go where they would, as PoPs are full.";
    changes: "perigee_router_edge_changes_total", "counter", "Edges that went down or came up.";
    down: "perigee_router_edges_down", "gauge", "Edges that are down.";
    probes: "perigee_router_probes_total", "counter", "Probes of edges.";
    probes_failed: "perigee_router_probes_failed_total", "counter", "Probes without a good answer.";
}

/// Those without labels, and their values.
fn families(plan: &PlanCounters, measured: &MeasureCounters) -> impl Iterator<Item = (Family<'static>, u64)> {
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
    let counted = |(name, help, counter): (_, _, &AtomicU64)| {
        (Family { name, kind: "counter", help }, counter.load(Relaxed))
    };
    plan.all().chain(of_measured.map(counted))
}

// Those with labels.
const SAMPLES_REFUSED: Family<'_> = Family {
    name: "perigee_router_samples_refused_total",
    kind: "counter",
    help: "Round trips that are not believed, by reason.",
};
const EDGE_UP: Family<'_> =
    Family { name: "perigee_router_edge_up", kind: "gauge", help: "Whether an edge is up." };

/// What `/metrics` shows: name, kind and what it says, of each family.
pub fn metric_families() -> Vec<(String, &'static str, &'static str)> {
    let dns = Counters::default();
    let dns = dns.all().map(|(name, help, _)| (dns_name(name), "counter", help));
    let (plan, measured) = (PlanCounters::default(), MeasureCounters::default());
    let own = families(&plan, &measured).map(|(family, _)| family).chain([SAMPLES_REFUSED, EDGE_UP]);
    dns.chain(own.map(|Family { name, kind, help }| (name.to_owned(), kind, help))).collect()
}

fn dns_name(counter: &str) -> String {
    format!("perigee_dns_{counter}_total")
}

/// All of it in Prometheus' text format.
pub(super) fn render(shared: &Shared) -> String {
    let mut text = String::new();
    let mut sums: Vec<_> = Counters::default().all().collect();
    for counters in &shared.counters {
        sums.iter_mut().zip(counters.all()).for_each(|((.., sum), (.., value))| *sum += value);
    }
    for (name, help, sum) in sums {
        text.push_str(&Family { name: &dns_name(name), kind: "counter", help }.with(sum));
    }
    for (family, value) in families(&shared.plan, &shared.measured) {
        text.push_str(&family.with(value));
    }
    text.push_str(&SAMPLES_REFUSED.head());
    for (why, count) in shared.measured.refused() {
        text.push_str(&format!("{}{{why=\"{why}\"}} {count}\n", SAMPLES_REFUSED.name));
    }
    text.push_str(&EDGE_UP.head());
    let state = Arc::clone(&shared.state.lock());
    for (edge, up) in &state.up {
        text.push_str(&format!("{}{{edge=\"{edge}\"}} {}\n", EDGE_UP.name, u8::from(*up)));
    }
    text
}
