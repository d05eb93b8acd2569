//! How near the spreading of load comes to the best there is: prints an instance and what `router::load` makes of it, for
//! `bench/load.py` to hold against the optimum of the linear program.
//!
//! `cargo run --release -p router --example synthetic -- load SEED`: 24 PoPs that can each take 1.5 times the mean, 3,000 towns.
//! Lines: `capacity NUMBER`, then per town `demand pop:cost,… pop:share,…`, at last `took MS`.

use crate::internet::{Chance, Internet};
use router::load::{Costs, balance};

pub(super) fn run(arguments: &[u64]) {
    let seed = arguments.first().copied().unwrap_or(1);
    let mut chance = Chance(seed);
    let internet = Internet::new(&mut chance, 3_000);
    let demand: Vec<f64> = internet.towns.iter().map(|town| town.weight).collect();
    let costs: Vec<Costs> = (0..internet.towns.len())
        .map(|town| {
            (0..internet.pops.len()).map(|pop| (pop as u16, internet.rtt_ms((town, 0), pop))).collect()
        })
        .collect();
    let capacity = 1.5 / internet.pops.len() as f64;
    let started = std::time::Instant::now();
    let plan = balance(&demand, &costs, &vec![capacity; internet.pops.len()]);
    let took = started.elapsed().as_millis();
    println!("capacity {capacity}");
    let list = |parts: &[(u16, f64)]| {
        parts.iter().map(|(pop, number)| format!("{pop}:{number}")).collect::<Vec<_>>().join(",")
    };
    for (town, demand) in demand.iter().enumerate() {
        println!("{demand} {} {}", list(&costs[town]), list(&plan.shares[town]));
    }
    println!("took {took}");
}
