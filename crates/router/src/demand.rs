//! How much is asked for where, from what edges report; and who is sent elsewhere while a PoP would get more than it can take.
//!
//! Edges report the Mbit/s that they send, and round trips of some of their connections, which say where those come from. So a PoP's load
//! is shared out among the cells of its visitors, and stays with them wherever they are sent: moving them does not change what is
//! believed of them, and nothing swings.
//!
//! A plan begins when a PoP would get more than it can take, and ends when no PoP would get nine tenths of it without one. In
//! between it is made anew when it doesn't hold any more, and once per minute.
//!
//! Pure: `now` is monotonic ms. Called by `server`; spreads by `load`.

use std::collections::HashMap;

use crate::load::{Costs, Plan, balance};
use crate::location::UNKNOWN;
use crate::respond::ADDRESSES_MAX;
use crate::table::{View, World};

/// How often it is looked at.
pub(crate) const LOOK_MS: u64 = 10_000;
/// A node that was not heard for so long sends nothing.
const SILENCE_MS: u64 = 15_000;
/// What is left of the visitors of a cell after each [`LOOK_MS`]: those of the last minute count.
const KEEP: f64 = 0.85;
/// Less of them than this is forgotten.
const WEIGHT_MIN: f64 = 0.05;
/// Cells and PoPs that are counted.
const WEIGHTS_MAX: usize = 100_000;
/// A plan ends when no PoP would get more than this share of its capacity without it.
const CALM: f64 = 0.9;
/// A PoP is full for visitors who come to it as another's spare, when with their part of all of these it would get more than the former share of its
/// capacity, or with all of one PoP that is lost more than the latter; and while that is more than these.
const FULL: [f64; 2] = [0.9, 1.0];
const STAYS_FULL: [f64; 2] = [0.8, 0.9];
/// A plan that holds is made anew after this.
const REMAKE_MS: u64 = 60_000;

/// What a node sends.
#[derive(Clone, Debug)]
struct Node {
    pop: u16,
    mbps: f64,
    heard_ms: u64,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Relief {
    /// What each PoP costs on top, in ms.
    pub(crate) prices: Vec<f64>,
    /// Cells whose visitors do not all go where they would.
    pub(crate) splits: HashMap<u16, Vec<(u16, f64)>>,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    nodes: HashMap<Box<str>, Node>,
    /// Visitors of a cell at a PoP.
    weights: HashMap<(u16, u16), f64>,
    relief: Option<Made>,
    /// What each PoP gets as visitors are sent now, and what it can take; empty while nothing bounds that.
    expected: Vec<(f64, f64)>,
    /// Whether each PoP has no room for visitors who come to it as another's spare; empty while all have.
    full: Vec<bool>,
}

/// A cell's PoPs, each with its share of the cell's visitors.
type Parts = Vec<(u16, f64)>;

/// A relief, the shares that it was made of, and when that was.
#[derive(Clone, Debug)]
struct Made {
    relief: Relief,
    shares: HashMap<u16, Parts>,
    at_ms: u64,
}

impl Demand {
    /// A node of `pop` sends so much.
    pub(crate) fn load(&mut self, node: &str, pop: u16, mbps: f64, now_ms: u64) {
        if mbps.is_finite() && mbps >= 0.0 {
            self.nodes.insert(node.into(), Node { pop, mbps, heard_ms: now_ms });
        }
    }

    /// Visitors of `cell` were seen at `pop`.
    pub(crate) fn seen(&mut self, cell: u16, pop: u16, count: u32) {
        if self.weights.len() < WEIGHTS_MAX || self.weights.contains_key(&(cell, pop)) {
            *self.weights.entry((cell, pop)).or_default() += f64::from(count);
        }
    }

    /// Mbit/s of each PoP.
    pub(crate) fn loads(&self, pops: usize) -> Vec<f64> {
        let mut loads = vec![0.0; pops];
        for node in self.nodes.values() {
            if let Some(load) = loads.get_mut(usize::from(node.pop)) {
                *load += node.mbps;
            }
        }
        loads
    }

    /// What is in force.
    pub(crate) fn relief(&self) -> Relief {
        self.relief.as_ref().map(|made| made.relief.clone()).unwrap_or_default()
    }

    /// Whether each PoP has no room for visitors who come to it as another's spare; empty while all have.
    pub(crate) fn full(&self) -> &[bool] {
        &self.full
    }

    /// Looks for that, where spares are no farther than `within_ms`; to be called after [`Demand::look`]. Returns whether it has changed.
    pub(crate) fn look_at_spares(&mut self, world: &World, up: &[f64], within_ms: Option<f64>) -> bool {
        let mut full = within_ms.map_or_else(Vec::new, |ms| self.full_within(world, up, ms));
        if !full.contains(&true) {
            full.clear();
        }
        let is_other = full != self.full;
        self.full = full;
        is_other
    }

    /// As if each PoP were the spare of all within `within_ms`. Of a PoP with n addresses that live, one of n + 1 visitors takes the spare's for the first,
    /// where resolvers change the order; and when it is lost, all who hold an answer of it come at once.
    fn full_within(&self, world: &World, up: &[f64], within_ms: f64) -> Vec<bool> {
        let pops = 0..self.expected.len().min(world.pops.len()) as u16;
        let is_full = |pop: u16| {
            let (own, capacity) = self.expected[usize::from(pop)];
            let (mut with_parts, mut with_one) = (own, own);
            for other in pops.clone().filter(|other| world.spare_ms(*other, pop, within_ms).is_some()) {
                let other = usize::from(other);
                let edges = &world.pops[other].edges;
                let v4 = edges.iter().filter(|edge| edge.is_ipv4()).count();
                let fewest = [v4, edges.len() - v4].into_iter().filter(|count| *count > 0).min();
                // They are taken to be of that family: then more visitors come.
                let dead = ((1.0 - up.get(other).unwrap_or(&1.0)) * edges.len() as f64).round() as usize;
                let living = fewest.unwrap_or(0).saturating_sub(dead).clamp(1, ADDRESSES_MAX);
                let (load, _) = self.expected[other];
                with_parts += load / (living + 1) as f64;
                with_one = with_one.max(own + load);
            }
            let was_full = self.full.get(usize::from(pop)).copied().unwrap_or(false);
            let [of_parts, of_one] = if was_full { STAYS_FULL } else { FULL };
            with_parts > capacity * of_parts || with_one > capacity * of_one
        };
        pops.clone().map(is_full).collect()
    }

    /// Forgets everything: PoPs or cells have other numbers now.
    pub(crate) fn forget(&mut self) {
        *self = Demand::default();
    }

    /// Looks whether PoPs can take what they get; to be called every [`LOOK_MS`]. `up`: the share of each PoP's edges that live. Returns
    /// whether what is in force has changed.
    pub(crate) fn look(&mut self, world: &World, view: &View, up: &[f64], now_ms: u64) -> bool {
        self.nodes.retain(|_, node| now_ms.saturating_sub(node.heard_ms) <= SILENCE_MS);
        let before = self.relief();
        self.plan(world, view, up, now_ms);
        self.weights.retain(|_, weight| {
            *weight *= KEEP;
            *weight >= WEIGHT_MIN
        });
        self.relief() != before
    }

    fn plan(&mut self, world: &World, view: &View, up: &[f64], now_ms: u64) {
        let bound = |(pop, up): (&model::Pop, &f64)| {
            pop.capacity.map_or(f64::INFINITY, |capacity| f64::from(capacity) * up)
        };
        let capacities: Vec<f64> = world.pops.iter().zip(up).map(bound).collect();
        let loads = self.loads(world.pops.len());
        if capacities.iter().all(|capacity| capacity.is_infinite()) || loads.iter().all(|load| *load == 0.0) {
            (self.relief, self.expected) = (None, Vec::new());
            return;
        }
        let plain = View { prices: Vec::new(), splits: HashMap::new(), ..view.clone() };
        let group: Vec<u16> = (0..world.pops.len() as u16).collect();
        let resorts = world.resorts(&group, &plain);
        let demand = self.demand(world, &loads);
        let mut cells: Vec<(u16, f64)> = demand.into_iter().collect();
        cells.sort_unstable_by_key(|(cell, _)| *cell);
        let costs: Vec<Costs> = cells
            .iter()
            .map(|(cell, _)| {
                let ranking = world.rank(*cell, 0, &group, &plain);
                // Of another CDN that nobody has measured, nobody knows what it costs.
                let known = ranking.order.iter().filter(|one| one.is_known);
                let mut costs: Costs = known.take(CHOICES).map(|one| (one.pop, one.score_ms())).collect();
                costs.extend(resorts.iter().map(|pop| (*pop, RESORT_MS)));
                costs
            })
            .collect();
        // What each PoP would get, if each cell's visitors went to these, and what it can take.
        let expect = |shares: &dyn Fn(usize) -> Parts| -> Vec<(f64, f64)> {
            let mut loads = vec![0.0; capacities.len()];
            for (index, (_, demand)) in cells.iter().enumerate() {
                shares(index).iter().for_each(|(pop, share)| loads[usize::from(*pop)] += share * demand);
            }
            loads.into_iter().zip(capacities.iter().copied()).collect()
        };
        let fullest = |expected: &[(f64, f64)]| {
            expected.iter().map(|(load, capacity)| load / capacity.max(1e-9)).fold(0.0, f64::max)
        };
        let natural = |index: usize| costs[index].first().map_or_else(Vec::new, |(pop, _)| vec![(*pop, 1.0)]);
        self.expected = expect(&natural);
        let without = fullest(&self.expected);
        if let Some(Made { shares, at_ms, .. }) = &self.relief {
            let now = |index: usize| shares.get(&cells[index].0).cloned().unwrap_or_else(|| natural(index));
            let expected = expect(&now);
            if without >= CALM && fullest(&expected) <= 1.0 && now_ms.saturating_sub(*at_ms) < REMAKE_MS {
                self.expected = expected;
                return;
            }
        }
        let is_calm = if self.relief.is_some() { without < CALM } else { without <= 1.0 };
        if is_calm {
            self.relief = None;
            return;
        }
        let amounts: Vec<f64> = cells.iter().map(|(_, demand)| *demand).collect();
        let Plan { prices, shares } = balance(&amounts, &costs, &capacities);
        let shares: HashMap<u16, Parts> =
            cells.iter().map(|(cell, _)| *cell).zip(shares).filter(|(_, parts)| !parts.is_empty()).collect();
        self.expected = expect(&|index| shares.get(&cells[index].0).cloned().unwrap_or_default());
        let mut splits = shares.clone();
        for (index, (cell, _)) in cells.iter().enumerate() {
            if splits.get(cell).is_some_and(|parts| *parts == natural(index)) {
                splits.remove(cell);
            }
        }
        self.relief = Some(Made { relief: Relief { prices, splits }, shares, at_ms: now_ms });
    }

    /// Mbit/s that the visitors of each cell ask for: each PoP's load, shared out by who was seen there.
    fn demand(&self, world: &World, loads: &[f64]) -> HashMap<u16, f64> {
        let mut sums = vec![0.0; loads.len()];
        for ((_, pop), weight) in &self.weights {
            if let Some(sum) = sums.get_mut(usize::from(*pop)) {
                *sum += weight;
            }
        }
        let mut demand: HashMap<u16, f64> = HashMap::new();
        for ((cell, pop), weight) in &self.weights {
            if let (Some(load), Some(sum)) = (loads.get(usize::from(*pop)), sums.get(usize::from(*pop))) {
                *demand.entry(*cell).or_default() += load * weight / sum;
            }
        }
        // Of a PoP that says nothing of its visitors, they are taken to be those around it, all alike.
        for (pop, load) in loads.iter().enumerate().filter(|(pop, load)| **load > 0.0 && sums[*pop] == 0.0) {
            let cells: Vec<u16> = (1..world.location.cells().len() as u16)
                .filter(|cell| *cell != UNKNOWN && world.first_by_distance(*cell) == Some(pop as u16))
                .collect();
            let each = load / cells.len().max(1) as f64;
            cells.into_iter().for_each(|cell| *demand.entry(cell).or_default() += each);
        }
        demand
    }
}

/// What a PoP of last resort costs: more than any other that has room, however far it is and however dear.
const RESORT_MS: f64 = 100_000.0;
/// PoPs that a cell's visitors may be sent to.
const CHOICES: usize = 12;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compile::Compiler;
    use crate::table::{Table, Why};

    /// A thousand /24s near Frankfurt, and ten places around it; Frankfurt can take 100 Mbit/s, Amsterdam and Paris anything.
    fn world() -> World {
        let mut compiler = Compiler::new();
        let mut list = String::new();
        for place in 0..10 {
            list.push_str(&format!(
                "10.{place}.0.0/16,{:.2} {:.2},DE\n",
                49.0 + 0.26 * f64::from(place),
                8.6
            ));
        }
        compiler.list(&list, "list");
        let pops = ["FRA", "AMS", "CDG"].map(|code| {
            let capacity = if code == "FRA" { "capacity = 100\n" } else { "" };
            format!(
                "[[pop]]\nname = \"{code}\"\nlocation = \"{code}\"\nedges = \"192.0.2.{}\"\n{capacity}",
                code.len() + usize::from(code.as_bytes()[0])
            )
        });
        let text = format!(
            "{}[[site]]\nname = \"s\"\ndomains = \"s.example\"\norigin = \"http://o.example\"\n",
            pops.concat()
        );
        let snapshot = model::Snapshot::parse_cluster(&text, "c.toml").snapshot.unwrap();
        World::new(snapshot.routing.pops, Arc::new(compiler.finish(0)))
    }

    fn cells(world: &World) -> Vec<u16> {
        (0..10).map(|place| world.location.cell(std::net::Ipv4Addr::new(10, place, 0, 1).into())).collect()
    }

    #[test]
    fn a_pop_that_is_full_sends_away_who_loses_least_and_takes_them_back_when_it_is_calm() {
        let (world, mut demand) = (world(), Demand::default());
        let cells = cells(&world);
        let up = [1.0; 3];
        let report = |demand: &mut Demand, mbps: f64, at: u64| {
            demand.load("fra-1", 0, mbps, at);
            cells.iter().for_each(|cell| demand.seen(*cell, 0, 10));
        };
        report(&mut demand, 90.0, 0);
        assert!(!demand.look(&world, &View::default(), &up, 0), "there is room");
        report(&mut demand, 150.0, 10_000);
        assert!(demand.look(&world, &View::default(), &up, 10_000));
        let relief = demand.relief();
        let left: f64 = cells
            .iter()
            .map(|cell| match relief.splits.get(cell) {
                None => 15.0,
                Some(parts) => {
                    15.0 * parts.iter().filter(|(pop, _)| *pop == 0).map(|(_, share)| share).sum::<f64>()
                }
            })
            .sum();
        assert!(left <= 100.0 + 1e-6 && left > 95.0, "{left} {relief:?}");
        // The same again changes nothing, nor does a little less.
        for (mbps, at) in [(150.0, 20_000), (145.0, 30_000), (95.0, 40_000)] {
            report(&mut demand, mbps, at);
            assert!(!demand.look(&world, &View::default(), &up, at), "{mbps}");
        }
        report(&mut demand, 80.0, 50_000);
        assert!(demand.look(&world, &View::default(), &up, 50_000));
        assert_eq!(demand.relief(), Relief::default());
    }

    /// Frankfurt, with so many addresses; Amsterdam, 7 ms away, can take 100 Mbit/s.
    fn frankfurt_and_amsterdam(edges: u8) -> World {
        let World { mut pops, location, .. } = world();
        pops[0].edges = (0..edges).map(|host| [192, 0, 2, host].into()).collect();
        (pops[0].capacity, pops[1].capacity) = (Some(1_000), Some(100));
        World::new(pops, location)
    }

    #[test]
    fn a_spare_has_room_for_all_of_one_that_is_lost_and_none_again_until_it_has_some_for_longer() {
        let world = frankfurt_and_amsterdam(1);
        let check = |within_ms: f64, steps: &[(f64, bool)]| {
            let (mut demand, mut was_full) = (Demand::default(), false);
            for (at, (mbps, is_full)) in (0..).step_by(10_000).zip(steps) {
                // All visitors are Frankfurt's.
                demand.load("fra-1", 0, *mbps, at);
                demand.look(&world, &View::default(), &[1.0; 3], at);
                let is_other = demand.look_at_spares(&world, &[1.0; 3], Some(within_ms));
                let wanted: &[bool] = if *is_full { &[false, true, false] } else { &[] };
                assert_eq!((demand.full(), is_other), (wanted, was_full != *is_full), "{mbps}");
                was_full = *is_full;
            }
            assert_eq!(demand.look_at_spares(&world, &[1.0; 3], None), was_full, "no spares are wanted");
            assert!(demand.full().is_empty());
        };
        check(15.0, &[(0.0, false), (99.0, false), (101.0, true)]);
        check(15.0, &[(101.0, true), (95.0, true), (101.0, true), (89.0, false), (95.0, false)]);
        check(5.0, &[(101.0, false), (170.0, false)]);
    }

    #[test]
    fn a_spare_has_room_for_its_part_of_who_is_sent_to_those_around_it() {
        // Amsterdam has 82 of its own; of Frankfurt's, one of n + 1 comes.
        let is_full = |edges: u8, up: f64, mbps: f64| {
            let expected = vec![(mbps, 1_000.0), (82.0, 100.0), (0.0, f64::INFINITY)];
            let mut demand = Demand { expected, ..Demand::default() };
            demand.look_at_spares(&frankfurt_and_amsterdam(edges), &[up, 1.0, 1.0], Some(15.0))
        };
        assert_eq!([is_full(1, 1.0, 15.0), is_full(1, 1.0, 17.0)], [false, true], "82 + 17 / 2 > 90");
        assert!(!is_full(3, 1.0, 17.0), "82 + 17 / 4");
        assert!(is_full(3, 1.0 / 3.0, 17.0), "two of three are dead");
        assert!(!is_full(1, 0.0, 0.0));
    }

    #[test]
    fn answers_follow_a_relief_and_say_why() {
        let (world, mut demand) = (world(), Demand::default());
        demand.load("fra-1", 0, 400.0, 0);
        assert!(
            demand.look(&world, &View::default(), &[1.0; 3], 0),
            "also without a word on where visitors are"
        );
        let Relief { prices, splits } = demand.relief();
        let view = View { prices, splits, ..View::default() };
        let table = Table::build(&world, &[0, 1, 2], &view);
        let to_fra = (0..1_000u32)
            .filter(|host| {
                let address = std::net::Ipv4Addr::from(0x0a00_0000 | (host % 10) << 16 | (host / 10) << 8);
                table.find(&world, address.into(), 24).pop == 0
            })
            .count();
        assert!((200..300).contains(&to_fra), "{to_fra} of 1,000, where a quarter fits");
        let moved = (0..10).map(|place| std::net::Ipv4Addr::new(10, place, 0, 1).into());
        assert!(moved.into_iter().any(|ip| world.rank_client(ip, &[0, 1, 2], &view).why == Why::Load));
    }

    #[test]
    fn what_no_pop_has_room_for_goes_to_the_last_resort_and_no_more() {
        let (plain, mut demand) = (world(), Demand::default());
        let mut pops = plain.pops.clone();
        pops.iter_mut().for_each(|pop| pop.capacity = Some(100));
        let other = model::Pop {
            name: "other".into(),
            location: None,
            cname: Some("other.example".into()),
            edges: Vec::new(),
            capacity: None,
            last_resort: true,
            ..pops[0].clone()
        };
        pops.push(other);
        let world = World::new(pops, Arc::clone(&plain.location));
        let up = [1.0; 4];
        demand.load("fra-1", 0, 250.0, 0);
        assert!(demand.look(&world, &View::default(), &up, 0));
        let to_other = |demand: &Demand| {
            let splits = demand.relief().splits;
            let parts = splits.values().flatten().filter(|(pop, _)| *pop == 3);
            parts.map(|(_, share)| share / 10.0).sum::<f64>()
        };
        assert_eq!(to_other(&demand), 0.0, "there is room elsewhere");
        demand.load("fra-1", 0, 400.0, 70_000);
        assert!(demand.look(&world, &View::default(), &up, 70_000));
        let other = to_other(&demand);
        assert!((other - 0.25).abs() < 0.001, "{other}: 100 of 400 have no room");
        let Relief { prices, splits } = demand.relief();
        let view = View { prices, splits, ..View::default() };
        let sent = |group: &[u16]| {
            let table = Table::build(&world, group, &view);
            let client =
                |host: u32| std::net::Ipv4Addr::from(0x0a00_0000 | (host % 10) << 16 | (host / 10) << 8);
            (0..1_000).filter(|host| table.find(&world, client(*host).into(), 24).pop == 3).count()
        };
        assert!((200..300).contains(&sent(&[0, 1, 2, 3])), "{}", sent(&[0, 1, 2, 3]));
        assert_eq!(sent(&[0, 1, 2]), 0, "a site that does not name it stays within its fence");
        let moved = (0..10).map(|place| std::net::Ipv4Addr::new(10, place, 0, 1).into());
        let whys: Vec<Why> = moved.map(|ip| world.rank_client(ip, &[0, 1, 2, 3], &view).why).collect();
        assert!(whys.contains(&Why::LastResort), "{whys:?}");
    }

    #[test]
    fn who_is_not_heard_sends_nothing() {
        let (world, mut demand) = (world(), Demand::default());
        demand.load("fra-1", 0, 400.0, 0);
        demand.look(&world, &View::default(), &[1.0; 3], 0);
        assert!(demand.look(&world, &View::default(), &[1.0; 3], SILENCE_MS + 1));
        assert_eq!(demand.relief(), Relief::default());
    }
}
