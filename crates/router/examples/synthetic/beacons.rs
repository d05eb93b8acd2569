//! What measurements are worth: mean ms that visitors wait longer than for their best PoP, by the number of visitors whose beacons
//! were taken. Each beacon times four PoPs: the one that is chosen, two of the seven next, one at random.
//!
//! `cargo run --release -p router --example synthetic -- beacons [rounds] [seed]`; the internet is that of `internet`. `AS` columns are
//! for a router that knows visitors' networks; answers by DNS know the town alone so far.

use crate::internet::{Chance, Internet};
use router::estimate::{Estimate, Estimates, Sample};

const COUNTS: [usize; 6] = [0, 10, 100, 300, 1_000, 10_000];
const VISITORS: usize = 5_000;

fn candidates(
    internet: &Internet,
    estimates: &Estimates,
    visitor: (usize, usize),
    with_system: bool,
) -> Vec<(usize, Estimate)> {
    let town = &internet.towns[visitor.0];
    let asn = if with_system { internet.asn(visitor) } else { 0 };
    let mut list: Vec<(usize, Estimate)> = (0..internet.pops.len())
        .map(|pop| (pop, estimates.of(visitor.0 as u16, town.country, asn, pop as u16, town.km[pop])))
        .collect();
    list.sort_by(|a, b| a.1.prior_ms.total_cmp(&b.1.prior_ms));
    list
}

fn choose(internet: &Internet, estimates: &Estimates, visitor: (usize, usize), with_system: bool) -> usize {
    let list = candidates(internet, estimates, visitor, with_system);
    let costs: Vec<(Estimate, f64)> = list.iter().take(12).map(|(_, estimate)| (*estimate, 0.0)).collect();
    list[Estimates::prefer(&costs)].0
}

fn beacon(internet: &Internet, estimates: &mut Estimates, chance: &mut Chance) {
    let visitor = internet.visitor(chance);
    let list = candidates(internet, estimates, visitor, false);
    let chosen = choose(internet, estimates, visitor, false);
    let mut pops = vec![chosen];
    while pops.len() < 4 {
        let pop = if pops.len() < 3 { list[chance.below(8)].0 } else { chance.below(internet.pops.len()) };
        if !pops.contains(&pop) {
            pops.push(pop);
        }
    }
    let town = &internet.towns[visitor.0];
    for pop in pops {
        let rtt_ms = internet.rtt_ms(visitor, pop) + chance.exponential(4.0);
        let sample = Sample {
            cell: visitor.0 as u16,
            country: town.country,
            asn: internet.asn(visitor),
            pop: pop as u16,
            km: town.km[pop],
            rtt_ms,
        };
        // What can't be true is left out, as the router does.
        _ = estimates.add(&sample);
    }
}

pub(super) fn run(arguments: &[u64]) {
    let rounds = arguments.first().copied().unwrap_or(5);
    let first_seed = arguments.get(1).copied().unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |since| since.as_secs())
    });
    let mut sums = [[0.0; COUNTS.len()]; 2];
    let mut worse = 0;
    println!("seed {first_seed}, {rounds} rounds, 24 PoPs, 1,500 towns, {VISITORS} visitors each");
    for round in 0..rounds {
        let mut chance = Chance(first_seed.wrapping_add(round).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let internet = Internet::new(&mut chance, 1_500);
        let visitors: Vec<(usize, usize)> = (0..VISITORS).map(|_| internet.visitor(&mut chance)).collect();
        let mut estimates = Estimates::default();
        let mut taken = 0;
        let mut geography = 0.0;
        for (column, count) in COUNTS.iter().enumerate() {
            while taken < *count {
                beacon(&internet, &mut estimates, &mut chance);
                taken += 1;
            }
            for (row, with_system) in [false, true].into_iter().enumerate() {
                let inflation: f64 = visitors
                    .iter()
                    .map(|visitor| {
                        let best = (0..internet.pops.len())
                            .map(|pop| internet.rtt_ms(*visitor, pop))
                            .fold(f64::MAX, f64::min);
                        internet.rtt_ms(*visitor, choose(&internet, &estimates, *visitor, with_system)) - best
                    })
                    .sum::<f64>()
                    / VISITORS as f64;
                sums[row][column] += inflation / rounds as f64;
                if *count == 0 {
                    geography = inflation;
                } else if row == 0 && *count <= 300 && inflation > geography + 1e-9 {
                    worse += 1;
                }
            }
        }
    }
    println!("{:>8} {:>12} {:>12}", "beacons", "ms too slow", "with AS");
    for (column, count) in COUNTS.iter().enumerate() {
        println!("{count:>8} {:>12.2} {:>12.2}", sums[0][column], sums[1][column]);
    }
    println!(
        "RESULT inflation_0={:.2} inflation_1k={:.2} inflation_10k={:.2} worse_at_low_n={worse} inflation_1k_as={:.2} inflation_10k_as={:.2}",
        sums[0][0], sums[0][4], sums[0][5], sums[1][4], sums[1][5]
    );
}
