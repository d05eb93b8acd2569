//! What measured round trips are worth, without a router: the estimator alone, on the internet that `bench/beacons.py` gives to a running
//! one, and beside it what one would get that knew more than it can.
//!
//! `cargo run --release -p router --example synthetic -- beacons [SEEDS [TOWNS [SYSTEMS]]]`: mean over so many seeds. SYSTEMS 0: nobody
//! knows whose a network is. Columns: beacons; ms too slow; of geography's; seeds in which visitors waited longer than by geography; of
//! geography's, if everything that was measured of a network were known exactly; the same, and all countries' paths too.

use crate::internet::{Chance, Internet};
use router::estimate::{Estimate, Estimates, Sample, prior_ms};

const STAGES: [usize; 6] = [0, 10, 100, 300, 1_000, 10_000];

struct Trial {
    internet: Internet,
    estimates: Estimates,
    chance: Chance,
    by_weight: Vec<f64>,
    systems: bool,
    /// Which paths were measured: of a network, to a PoP.
    seen: std::collections::HashSet<(u32, usize)>,
}

impl Trial {
    fn visitor(&mut self) -> (usize, usize) {
        let at = self.chance.unit();
        let town = self.by_weight.partition_point(|sum| *sum < at).min(self.by_weight.len() - 1);
        (town, self.chance.below(self.internet.network_count(town)))
    }

    fn choose(&self, (town, network): (usize, usize)) -> usize {
        let one = &self.internet.towns[town];
        let asn = if self.systems { self.internet.asn((town, network)) } else { 0 };
        let known = self.estimates.known(town as u16 + 1, one.country, asn);
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
        let asn = self.internet.asn(visitor);
        for pop in pops {
            let rtt_ms = self.internet.rtt_ms(visitor, pop) + self.chance.exponential(4.0);
            let sample = Sample {
                cell: visitor.0 as u16 + 1,
                country: self.internet.towns[visitor.0].country,
                asn: if self.systems { asn } else { 0 },
                pop: pop as u16,
                km: km[pop],
                is_placed: true,
                rtt_ms,
                count: 1,
            };
            // What is refused is not learned, as in the router.
            if self.estimates.add(&sample).is_ok() {
                self.seen.insert((asn, pop));
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
    let (seeds, towns, systems) = (number(0, 5), number(1, 1_500) as usize, number(2, 1) == 1);
    let mut rows = [[0.0; 5]; STAGES.len()];
    for seed in 1..=seeds {
        let mut chance = Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let internet = Internet::new(&mut chance, towns);
        let by_weight = internet.towns.iter().scan(0.0, |sum, town| {
            *sum += town.weight;
            Some(*sum)
        });
        let by_weight = by_weight.collect();
        let (estimates, seen) = (Estimates::default(), Default::default());
        let mut trial = Trial { internet, estimates, chance, by_weight, systems, seen };
        let nearest = |town: &Vec<f64>| {
            (0..town.len()).min_by(|a, b| prior_ms(town[*a]).total_cmp(&prior_ms(town[*b]))).unwrap_or(0)
        };
        let geography = trial.inflation(|town, _| nearest(&trial.internet.towns[town].km));
        let mut posted = 0;
        for (row, stage) in rows.iter_mut().zip(STAGES) {
            while posted < stage {
                trial.beacon();
                posted += 1;
            }
            let got = trial.inflation(|town, network| trial.choose((town, network)));
            let share = 1.0 / seeds as f64;
            row[0] += got * share;
            row[1] += got / geography * share;
            row[2] += f64::from(u8::from(got > geography + 1e-9));
            for (at, knows) in [(3, false), (4, true)] {
                row[at] +=
                    share / geography * trial.inflation(|town, network| trial.oracle(town, network, knows));
            }
        }
    }
    for (row, stage) in rows.iter().zip(STAGES) {
        let [ms, share, worse, oracle, more] = row;
        println!("{stage:>6} {ms:>7.2} {share:>6.3} {worse:>3.0} {oracle:>7.3} {more:>6.3}");
    }
}
