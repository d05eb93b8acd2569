//! Takes round trips that edges and beacons have measured: places them, refuses what cannot be true or is too much of one network, and
//! keeps what they say in [`Estimates`].
//!
//! Pure but for its counters: `now` is monotonic ms. Called by `server`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use model::steering::{RoundTrips, network_of};

use crate::estimate::{Estimates, Learned, Refused, Sample};
use crate::location::UNKNOWN;
use crate::table::World;

/// Round trips of one network (a /24 or /48) that are taken per [`WINDOW_MS`]: nobody moves an estimate who has one network.
const NETWORK_TRIPS_MAX: u32 = 64;
/// Networks that are counted per [`WINDOW_MS`]; those beyond wait for the next one. Some 4 MB.
const NETWORKS_MAX: usize = 100_000;
/// See [`NETWORK_TRIPS_MAX`]. What is known fades by as much per window as [`Estimates::fade`] says.
const WINDOW_MS: u64 = 600_000;

/// What came of what was measured, for metrics.
#[derive(Debug, Default)]
pub(crate) struct MeasureCounters {
    pub(crate) taken: AtomicU64,
    /// Of these, those whose system there was no room for.
    pub(crate) without_system: AtomicU64,
    pub(crate) faster_than_light: AtomicU64,
    pub(crate) out_of_range: AtomicU64,
    pub(crate) unknown_pop: AtomicU64,
    pub(crate) unlocated: AtomicU64,
    pub(crate) too_many: AtomicU64,
    pub(crate) full: AtomicU64,
    /// Those that the planner had no time for.
    pub(crate) dropped: AtomicU64,
    /// Reports that never came, as they were not read fast enough.
    pub(crate) missed: AtomicU64,
}

impl MeasureCounters {
    /// Why, and how many.
    pub(crate) fn refused(&self) -> [(&'static str, u64); 7] {
        [
            ("faster-than-light", &self.faster_than_light),
            ("out-of-range", &self.out_of_range),
            ("unknown-pop", &self.unknown_pop),
            ("unlocated", &self.unlocated),
            ("too-many", &self.too_many),
            ("full", &self.full),
            ("dropped", &self.dropped),
        ]
        .map(|(why, counter)| (why, counter.load(Relaxed)))
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Measurements {
    pub(crate) estimates: Arc<Estimates>,
    networks: HashMap<IpAddr, u32>,
    window: u64,
    /// Whether there is something that no table knows yet.
    pub(crate) is_new: bool,
}

impl Measurements {
    /// Takes round trips, as far as they can be believed.
    pub(crate) fn take(
        &mut self,
        trips: &RoundTrips,
        world: &World,
        now_ms: u64,
        counters: &MeasureCounters,
    ) {
        let count = |counter: &AtomicU64| _ = counter.fetch_add(u64::from(trips.count), Relaxed);
        if trips.count == 0 {
            return;
        }
        let window = now_ms / WINDOW_MS;
        if window != self.window {
            (self.window, self.is_new) = (window, true);
            self.networks.clear();
            Arc::make_mut(&mut self.estimates).fade();
        }
        let Some(pop) = world.pop_named(&trips.pop) else {
            return count(&counters.unknown_pop);
        };
        let network = network_of(trips.network);
        let cell = world.location.cell(network);
        if cell == UNKNOWN {
            return count(&counters.unlocated);
        }
        let has_room = self.networks.len() < NETWORKS_MAX || self.networks.contains_key(&network);
        let taken = self.networks.get(&network).copied().unwrap_or(0);
        let left = NETWORK_TRIPS_MAX.saturating_sub(taken);
        if !has_room || left == 0 {
            return count(&counters.too_many);
        }
        let sample = Sample {
            cell,
            country: world.location.cells()[usize::from(cell)].country,
            asn: world.location.systems().of(network),
            pop,
            km: world.km(cell, pop),
            is_placed: world.pops[usize::from(pop)].location.is_some(),
            rtt_ms: trips.sum_ms / f64::from(trips.count),
            count: trips.count.min(left),
        };
        match Arc::make_mut(&mut self.estimates).add(&sample) {
            Ok(learned) => {
                self.networks.insert(network, taken + sample.count);
                self.is_new = true;
                counters.taken.fetch_add(u64::from(sample.count), Relaxed);
                if learned == Learned::WithoutSystem {
                    counters.without_system.fetch_add(u64::from(sample.count), Relaxed);
                }
            }
            Err(Refused::FasterThanLight) => count(&counters.faster_than_light),
            Err(Refused::OutOfRange) => count(&counters.out_of_range),
            Err(Refused::Full) => count(&counters.full),
        }
    }

    /// The PoPs are others now, or cells are numbered anew.
    pub(crate) fn renumber(&mut self, before: &World, now: &World) {
        let estimates = Arc::make_mut(&mut self.estimates);
        if before.pops != now.pops {
            estimates.renumber(|pop| {
                let before = before.pops.get(usize::from(pop))?;
                // A PoP that has moved is another one.
                let is_it = |pop: &u16| now.pops[usize::from(*pop)].location == before.location;
                now.pop_named(&before.name).filter(is_it)
            });
        }
        if !Arc::ptr_eq(&before.location, &now.location) {
            estimates.forget_cells();
        }
    }
}

#[cfg(test)]
mod tests {
    use model::routing::place;

    use super::*;
    use crate::compile::Compiler;

    fn world() -> World {
        let mut compiler = Compiler::new();
        compiler.list("10.0.0.0/8,FRA\n", "list");
        let text = "[[pop]]\nname = \"fra\"\nlocation = \"FRA\"\nedges = \"192.0.2.1\"\n[[pop]]\nname = \"nrt\"\nlocation = \"NRT\"\nedges = \"192.0.2.2\"\n[[site]]\nname = \"s\"\ndomains = \"s.example\"\norigin = \"http://o.example\"\n";
        let snapshot = model::Snapshot::parse_cluster(text, "c.toml").snapshot.unwrap();
        World::new(snapshot.routing.pops, Arc::new(compiler.finish(0)))
    }

    fn trips(network: &str, pop: &str, count: u32, ms: f64) -> RoundTrips {
        let network = network.parse().unwrap();
        RoundTrips { network, pop: pop.to_owned(), count, sum_ms: ms * f64::from(count), failed: 0 }
    }

    #[test]
    fn one_network_counts_for_so_much_and_no_more() {
        let (world, counters) = (world(), MeasureCounters::default());
        let mut measurements = Measurements::default();
        for host in 0..200 {
            let trips = trips(&format!("10.1.1.{host}"), "fra", 1, 30.0);
            measurements.take(&trips, &world, 1_000, &counters);
        }
        assert_eq!(counters.taken.load(Relaxed), u64::from(NETWORK_TRIPS_MAX));
        assert_eq!(counters.too_many.load(Relaxed), 200 - u64::from(NETWORK_TRIPS_MAX));
        measurements.take(&trips("10.1.2.1", "fra", 1, 30.0), &world, 1_000, &counters);
        measurements.take(&trips("10.1.1.1", "fra", 1, 30.0), &world, 1_000 + WINDOW_MS, &counters);
        assert_eq!(counters.taken.load(Relaxed), u64::from(NETWORK_TRIPS_MAX) + 2);
    }

    #[test]
    fn what_cannot_be_is_refused_and_counted_by_reason() {
        let (world, counters) = (world(), MeasureCounters::default());
        let mut measurements = Measurements::default();
        assert!(place("NRT").unwrap().km(place("FRA").unwrap()) > 9_000.0);
        for (network, pop, ms) in [
            ("10.1.1.1", "nrt", 20.0),
            ("10.1.1.1", "fra", 60_000.0),
            ("10.1.1.1", "lhr", 20.0),
            ("192.0.2.1", "fra", 20.0),
        ] {
            measurements.take(&trips(network, pop, 1, ms), &world, 0, &counters);
        }
        let refused: Vec<u64> = counters.refused().map(|(_, count)| count).into();
        assert_eq!(refused, [1, 1, 1, 1, 0, 0, 0]);
        assert!(measurements.estimates.is_empty() && !measurements.is_new);
    }
}
