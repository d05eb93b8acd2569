//! Who is sent elsewhere when a PoP would get more than it can take.
//!
//! Two steps. *Prices*: each PoP above its capacity becomes dearer, each below it cheaper, until cells choosing the least of
//! cost + price nearly fit. *Repair*: from what is still too full, parts of cells move to where there is room, those first that lose least.
//! The repair may split a cell; which of its visitors go where follows from a hash of their network, so that one visitor stays put.
//!
//! When all capacities together don't suffice, every PoP gets its share of the excess in proportion to its capacity.
//!
//! Pure. Called by `demand`, and measured against the optimum of the linear program by `bench/load.sh`.

/// Rounds in which prices are sought. After so many the steps are below a tenth of a ms.
const ROUNDS: usize = 300;
/// The first step: how much dearer, in ms, a PoP becomes that would get twice what it can take.
const STEP_MS: f64 = 40.0;

/// A cell's choices: PoPs and what they cost its visitors, in ms.
pub type Costs = Vec<(u16, f64)>;

/// How load is spread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What each PoP costs on top, in ms.
    pub prices: Vec<f64>,
    /// For each cell, to which PoPs its visitors go, and which share of them; shares add up to 1. Empty for a cell without a choice.
    pub shares: Vec<Vec<(u16, f64)>>,
}

/// Spreads `demand` (of each cell) over PoPs with these `capacities` (infinite for no bound).
///
/// `costs` has one entry per cell, `demand` too. Cost: about 300 × the number of all choices.
pub fn balance(demand: &[f64], costs: &[Costs], capacities: &[f64]) -> Plan {
    let total: f64 = demand.iter().sum();
    let room: f64 = capacities.iter().sum();
    let scale = if total > room && room > 0.0 { total / room * 1.000_001 } else { 1.0 };
    let capacities: Vec<f64> = capacities.iter().map(|capacity| capacity * scale).collect();
    let prices = find_prices(demand, costs, &capacities);
    let mut shares: Vec<Vec<(u16, f64)>> = costs
        .iter()
        .map(|costs| cheapest(costs, &prices).map_or_else(Vec::new, |pop| vec![(pop, 1.0)]))
        .collect();
    repair(demand, costs, &capacities, &mut shares);
    Plan { prices, shares }
}

fn cheapest(costs: &Costs, prices: &[f64]) -> Option<u16> {
    let price = |pop: u16| prices.get(usize::from(pop)).copied().unwrap_or(0.0);
    costs.iter().min_by(|a, b| (a.1 + price(a.0)).total_cmp(&(b.1 + price(b.0)))).map(|(pop, _)| *pop)
}

fn find_prices(demand: &[f64], costs: &[Costs], capacities: &[f64]) -> Vec<f64> {
    let mut prices = vec![0.0; capacities.len()];
    let mut sums = vec![0.0; capacities.len()];
    let mut taken = 0.0;
    for round in 0..ROUNDS {
        let mut loads = vec![0.0; capacities.len()];
        for (cell, costs) in costs.iter().enumerate() {
            if let Some(pop) = cheapest(costs, &prices) {
                loads[usize::from(pop)] += demand[cell];
            }
        }
        if round == 0 && loads.iter().zip(capacities).all(|(load, capacity)| load <= capacity) {
            return prices;
        }
        let step = STEP_MS / (1.0 + round as f64 / 8.0);
        for (pop, price) in prices.iter_mut().enumerate() {
            if capacities[pop].is_finite() {
                let excess = (loads[pop] - capacities[pop]) / capacities[pop].max(1e-9);
                *price = (*price + step * excess.clamp(-1.0, 1.0)).max(0.0);
            }
        }
        // The mean of the later rounds lies nearer to the optimum than any of them.
        if round >= ROUNDS / 2 {
            taken += 1.0;
            sums.iter_mut().zip(&prices).for_each(|(sum, price)| *sum += price);
        }
    }
    sums.iter().map(|sum| sum / taken).collect()
}

/// Moves what is too much to where there is room, least regret first; then moves back what has room now.
fn repair(demand: &[f64], costs: &[Costs], capacities: &[f64], shares: &mut [Vec<(u16, f64)>]) {
    let mut loads = vec![0.0; capacities.len()];
    for (cell, parts) in shares.iter().enumerate() {
        for (pop, share) in parts {
            loads[usize::from(*pop)] += share * demand[cell];
        }
    }
    // Every pass moves from PoPs that are too full, or to PoPs that are cheaper and have room; each move lowers the excess
    // or the cost, and the bound keeps a bad case from taking long.
    for _ in 0..4 {
        let mut moves: Vec<(f64, usize, u16, u16)> = Vec::new();
        for (cell, parts) in shares.iter().enumerate() {
            for (from, _) in parts {
                let Some(own) = cost_of(&costs[cell], *from) else { continue };
                let full = loads[usize::from(*from)] > capacities[usize::from(*from)] * (1.0 + 1e-9);
                for (to, cost) in &costs[cell] {
                    let has_room = loads[usize::from(*to)] < capacities[usize::from(*to)];
                    if to != from && has_room && (full || *cost < own) {
                        moves.push((cost - own, cell, *from, *to));
                    }
                }
            }
        }
        if moves.is_empty() {
            break;
        }
        moves.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (regret, cell, from, to) in moves {
            let (from_index, to_index) = (usize::from(from), usize::from(to));
            let room = capacities[to_index] - loads[to_index];
            let excess = loads[from_index] - capacities[from_index];
            let wanted = if regret < 0.0 { f64::INFINITY } else { excess };
            let Some(part) = shares[cell].iter().find(|(pop, _)| *pop == from).map(|(_, share)| *share)
            else {
                continue;
            };
            let amount = wanted.min(room).min(part * demand[cell]);
            if amount <= 0.0 || demand[cell] <= 0.0 {
                continue;
            }
            shift(&mut shares[cell], from, to, amount / demand[cell]);
            loads[from_index] -= amount;
            loads[to_index] += amount;
        }
    }
}

fn cost_of(costs: &Costs, pop: u16) -> Option<f64> {
    costs.iter().find(|(one, _)| *one == pop).map(|(_, cost)| *cost)
}

fn shift(parts: &mut Vec<(u16, f64)>, from: u16, to: u16, share: f64) {
    if let Some(part) = parts.iter_mut().find(|(pop, _)| *pop == from) {
        part.1 -= share;
    }
    match parts.iter_mut().find(|(pop, _)| *pop == to) {
        Some(part) => part.1 += share,
        None => parts.push((to, share)),
    }
    parts.retain(|(_, share)| *share > 1e-9);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Load of each PoP, and mean cost.
    fn outcome(demand: &[f64], costs: &[Costs], plan: &Plan, pops: usize) -> (Vec<f64>, f64) {
        let (mut loads, mut cost, mut all) = (vec![0.0; pops], 0.0, 0.0);
        for (cell, parts) in plan.shares.iter().enumerate() {
            for (pop, share) in parts {
                loads[usize::from(*pop)] += share * demand[cell];
                cost += share * demand[cell] * cost_of(&costs[cell], *pop).unwrap();
            }
            all += demand[cell];
        }
        (loads, cost / all)
    }

    #[test]
    fn with_room_everybody_is_served_where_it_is_best() {
        let costs = vec![vec![(0, 10.0), (1, 20.0)], vec![(0, 30.0), (1, 5.0)]];
        let plan = balance(&[1.0, 1.0], &costs, &[2.0, f64::INFINITY]);
        assert_eq!(plan.shares, [[(0, 1.0)], [(1, 1.0)]]);
        assert_eq!(plan.prices, [0.0, 0.0]);
    }

    #[test]
    fn who_loses_least_makes_room() {
        // Both cells like PoP 0; the second loses 2 ms elsewhere, the first 50.
        let costs = vec![vec![(0, 10.0), (1, 60.0)], vec![(0, 10.0), (1, 12.0)]];
        let plan = balance(&[1.0, 1.0], &costs, &[1.0, 5.0]);
        assert_eq!(plan.shares, [[(0, 1.0)], [(1, 1.0)]]);
    }

    #[test]
    fn a_cell_that_is_too_large_for_a_pop_is_split() {
        let plan = balance(&[4.0], &[vec![(0, 10.0), (1, 12.0)]], &[3.0, 3.0]);
        let (loads, _) = outcome(&[4.0], &[vec![(0, 10.0), (1, 12.0)]], &plan, 2);
        assert!(loads[0] <= 3.0 + 1e-6 && loads[1] <= 3.0 + 1e-6, "{loads:?}");
        assert!(loads[0] > 2.9, "{loads:?}");
    }

    proptest! {
        #[test]
        fn no_demand_is_lost_and_no_pop_overfull_while_all_cells_may_go_everywhere(
            demand in prop::collection::vec(0.1f64..10.0, 1..40),
            costs in prop::collection::vec(5.0f64..200.0, 40 * 5),
            shares in prop::collection::vec(0.1f64..1.0, 5),
            slack in 1.0f64..2.0,
        ) {
            let total: f64 = demand.iter().sum();
            let all: f64 = shares.iter().sum();
            let capacities: Vec<f64> = shares.iter().map(|share| share / all * total * slack).collect();
            let costs: Vec<Costs> = (0..demand.len())
                .map(|cell| (0..5u16).map(|pop| (pop, costs[cell * 5 + usize::from(pop)])).collect())
                .collect();
            let plan = balance(&demand, &costs, &capacities);
            for parts in &plan.shares {
                prop_assert!((parts.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-6);
            }
            let (loads, _) = outcome(&demand, &costs, &plan, 5);
            for (load, capacity) in loads.iter().zip(&capacities) {
                prop_assert!(*load <= capacity * 1.001 + 1e-6, "{loads:?} {capacities:?}");
            }
        }
    }
}
