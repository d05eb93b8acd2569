//! What measured round trips are worth, without a router: the estimator alone, on the internet that `bench/beacons.py` gives to a running
//! one, and beside it what one would get that knew more than it can.
//!
//! `cargo run --release -p router --example synthetic -- beacons [SEEDS [TOWNS [SYSTEMS [RESTLESS]]]]`: mean over so many seeds. SYSTEMS 1: whose
//! each network is is known; 0: nobody knows; 2: nor that, but what is of one system lies side by side. RESTLESS 1: a visitor's own line takes
//! 15 ms more on average, so does each sample, and 3 of 100 some 300 ms. Columns: beacons; ms too slow; of
//! geography's; seeds in which visitors waited longer than by geography; of geography's, if everything that was measured of a network
//! were known exactly; the same, and all countries' paths too; and if of each town the mean of its networks were known exactly.

use std::net::{IpAddr, Ipv4Addr};

use crate::internet::{Chance, Internet};
use router::estimate::{Estimate, Estimates, Sample, prior_ms};
use router::systems::Systems;

const STAGES: [usize; 6] = [0, 10, 100, 300, 1_000, 10_000];

#[derive(Clone, Copy, PartialEq)]
enum Knowledge {
    /// Whose each network is.
    Systems,
    /// Nothing; the /19s of a town lie side by side.
    OfTowns,
    /// Nothing; those of a system do.
    OfSystems,
}

/// A visitor's town, network, and /24 of its 32.
type Visitor = (usize, usize, u32);

struct Trial {
    internet: Internet,
    estimates: Estimates,
    chance: Chance,
    by_weight: Vec<f64>,
    systems: Knowledge,
    is_restless: bool,
    /// By town and network, the number of its /19.
    places: Vec<Vec<u32>>,
    /// Which paths were measured: of a network, to a PoP.
    seen: std::collections::HashSet<(u32, usize)>,
}

impl Trial {
    fn visitor(&mut self) -> Visitor {
        let at = self.chance.unit();
        let town = self.by_weight.partition_point(|sum| *sum < at).min(self.by_weight.len() - 1);
        (town, self.chance.below(self.internet.network_count(town)), self.chance.below(32) as u32)
    }

    fn noise_ms(&mut self) -> f64 {
        if !self.is_restless {
            return self.chance.exponential(4.0);
        }
        let asleep_ms = if self.chance.unit() < 0.03 { self.chance.exponential(300.0) } else { 0.0 };
        asleep_ms + self.chance.exponential(15.0)
    }

    /// As the router has it.
    fn system(&self, (town, network, of_32): Visitor) -> u32 {
        match self.systems {
            Knowledge::Systems => self.internet.asn((town, network)),
            Knowledge::OfTowns | Knowledge::OfSystems => {
                let network_24 = (11 << 16) + self.places[town][network] * 32 + of_32;
                Systems::default().of(IpAddr::V4(Ipv4Addr::from(network_24 << 8)))
            }
        }
    }

    fn choose(&self, visitor: Visitor) -> usize {
        let (town, ..) = visitor;
        let one = &self.internet.towns[town];
        let known = self.estimates.known(town as u16 + 1, one.country, self.system(visitor));
        let mut order: Vec<usize> = (0..one.km.len()).collect();
        order.sort_by(|a, b| one.km[*a].total_cmp(&one.km[*b]));
        let candidates: Vec<(Estimate, f64)> =
            order.iter().map(|pop| (known.of(*pop as u16, one.km[*pop]), 0.0)).collect();
        order[Estimates::prefer(&candidates)]
    }

    fn beacon(&mut self) {
        let visitor = self.visitor();
        let count = self.internet.pops.len();
        let mut order: Vec<usize> = (0..count).collect();
        let km = self.internet.towns[visitor.0].km.clone();
        order.sort_by(|a, b| km[*a].total_cmp(&km[*b]));
        let mut pops = vec![self.choose(visitor)];
        while pops.len() < 4 {
            let pop = if pops.len() < 3 { order[self.chance.below(8)] } else { self.chance.below(count) };
            if !pops.contains(&pop) {
                pops.push(pop);
            }
        }
        let (town, network, _) = visitor;
        let (own, asn) = (self.internet.asn((town, network)), self.system(visitor));
        let line_ms = if self.is_restless { self.chance.exponential(15.0) } else { 0.0 };
        for pop in pops {
            let rtt_ms = self.internet.rtt_ms((town, network), pop) + line_ms + self.noise_ms();
            let sample = Sample {
                cell: visitor.0 as u16 + 1,
                country: self.internet.towns[visitor.0].country,
                asn,
                pop: pop as u16,
                km: km[pop],
                is_placed: true,
                rtt_ms,
                count: 1,
            };
            // What is refused is not learned, as in the router.
            if self.estimates.add(&sample).is_ok() {
                self.seen.insert((own, pop));
            }
        }
    }

    /// Mean ms too slow over all visitors, if they go where `choose` says.
    fn inflation(&self, choose: impl Fn(usize, usize) -> usize) -> f64 {
        let mut sum = 0.0;
        for (town, one) in self.internet.towns.iter().enumerate() {
            let networks = self.internet.network_count(town);
            for network in 0..networks {
                let rtt = |pop| self.internet.rtt_ms((town, network), pop);
                let best = (0..self.internet.pops.len()).map(rtt).fold(f64::INFINITY, f64::min);
                sum += one.weight / networks as f64 * (rtt(choose(town, network)) - best);
            }
        }
        sum
    }

    /// As [`Trial::choose`] says, for both /20s of each network.
    fn inflation_chosen(&self) -> f64 {
        let of = |of_32| self.inflation(|town, network| self.choose((town, network, of_32)));
        (of(0) + of(16)) / 2.0
    }

    /// The least on the mean of a town's networks.
    fn oracle_of_town(&self, town: usize) -> usize {
        let networks = 0..self.internet.network_count(town);
        let of =
            |pop| networks.clone().map(|network| self.internet.rtt_ms((town, network), pop)).sum::<f64>();
        let sums: Vec<f64> = (0..self.internet.pops.len()).map(of).collect();
        (0..sums.len()).min_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap_or(0)
    }

    /// The least of what is known exactly: of paths that were measured everything, of others the mean.
    fn oracle(&self, town: usize, network: usize, knows_stretch: bool) -> usize {
        let km = &self.internet.towns[town].km;
        let of = |pop: usize| match self.seen.contains(&(self.internet.asn((town, network)), pop)) {
            true => self.internet.rtt_ms((town, network), pop),
            false if knows_stretch => self.internet.without_detour_ms((town, network), pop) + 0.25 * 45.0,
            false => self.internet.access_ms((town, network)) + km[pop] / 100.0 * 1.9 + 0.25 * 45.0,
        };
        (0..km.len()).min_by(|a, b| of(*a).total_cmp(&of(*b))).unwrap_or(0)
    }
}

pub(super) fn run(arguments: &[u64]) {
    let number = |index: usize, default| arguments.get(index).copied().unwrap_or(default);
    let (seeds, towns) = (number(0, 5), number(1, 1_500) as usize);
    let systems = match number(2, 1) {
        0 => Knowledge::OfTowns,
        1 => Knowledge::Systems,
        _ => Knowledge::OfSystems,
    };
    let is_restless = number(3, 0) == 1;
    let mut rows = [[0.0; 6]; STAGES.len()];
    for seed in 1..=seeds {
        let mut chance = Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let internet = Internet::new(&mut chance, towns);
        let by_weight = internet.towns.iter().scan(0.0, |sum, town| {
            *sum += town.weight;
            Some(*sum)
        });
        let by_weight = by_weight.collect();
        let (estimates, seen) = (Estimates::default(), Default::default());
        let places = places(&internet, systems);
        let mut trial = Trial { internet, estimates, chance, by_weight, systems, is_restless, places, seen };
        let nearest = |town: &Vec<f64>| {
            (0..town.len()).min_by(|a, b| prior_ms(town[*a]).total_cmp(&prior_ms(town[*b]))).unwrap_or(0)
        };
        let geography = trial.inflation(|town, _| nearest(&trial.internet.towns[town].km));
        let of_towns = trial.inflation(|town, _| trial.oracle_of_town(town));
        let mut posted = 0;
        for (row, stage) in rows.iter_mut().zip(STAGES) {
            while posted < stage {
                trial.beacon();
                posted += 1;
            }
            let got = trial.inflation_chosen();
            let share = 1.0 / seeds as f64;
            row[0] += got * share;
            row[1] += got / geography * share;
            row[2] += f64::from(u8::from(got > geography + 1e-9));
            row[5] += of_towns / geography * share;
            for (at, knows) in [(3, false), (4, true)] {
                row[at] +=
                    share / geography * trial.inflation(|town, network| trial.oracle(town, network, knows));
            }
        }
    }
    for (row, stage) in rows.iter().zip(STAGES) {
        let [ms, share, worse, oracle, more, of_towns] = row;
        println!("{stage:>6} {ms:>7.2} {share:>6.3} {worse:>3.0} {oracle:>7.3} {more:>6.3} {of_towns:>6.3}");
    }
}

/// See [`Trial::places`].
fn places(internet: &Internet, systems: Knowledge) -> Vec<Vec<u32>> {
    let mut all: Vec<(usize, usize)> = (0..internet.towns.len())
        .flat_map(|town| (0..internet.network_count(town)).map(move |network| (town, network)))
        .collect();
    if systems == Knowledge::OfSystems {
        all.sort_by_key(|one| internet.asn(*one));
    }
    let mut places: Vec<Vec<u32>> =
        (0..internet.towns.len()).map(|town| vec![0; internet.network_count(town)]).collect();
    for (number, (town, network)) in all.into_iter().enumerate() {
        places[town][network] = number as u32;
    }
    places
}
