//! From a client's network to a PoP: ranking of a cell's PoPs ([`World::rank`]), and the same for all cells at once ([`Table`]).
//!
//! ```text
//! networks of the operator ─┐ (longest first)
//! location ─► cell ─► choice┴─► a PoP, or a split of several by a hash of the /24 or /48
//! ```
//!
//! A ranking begins with geography's order and leaves it only for what was measured beyond doubt ([`Estimates::prefer`]). PoPs
//! that are down or drained are left out, unless nothing else is left: an answer is always given.
//!
//! Another CDN is a PoP that is in no place: it is taken to be as far as the nearest that is in one, and chosen for what was measured
//! alone, or for its share of all visitors, or when nothing else is left.
//!
//! The *scope* of an answer is the widest prefix around the client in which every network gets the same answer. Above /16 a pyramid
//! over the blocks says so in 16 steps, below the cells themselves do.
//!
//! Pure. A table is built anew when health, prices or measurements change, and swapped by the server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use model::routing::{EARTH_KM, km_between};
use model::{Draw, Pop, mix64};

use crate::estimate::{Estimate, Estimates, Known, PRIOR_KM_PER_MS};
use crate::health::fail_open;
use crate::location::{Cell, Location, UNKNOWN, first_64};
use crate::systems::wider;

/// PoPs that are compared for a cell: those that are nearest. A detour that leads past twelve others was never seen.
const NEAREST: usize = 12;
/// Threads that look for them.
const THREADS_MAX: usize = 4;
/// Choices from here on are numbers of splits.
const SPLIT: u16 = 0xf000;
/// In the pyramid: not all the same.
const MIXED: u16 = u16::MAX;
/// The longest client networks that are told apart.
pub const V4_BITS: u8 = 24;
/// See [`V4_BITS`]. Location data has /48s, resolvers name /56s.
pub const V6_BITS: u8 = 48;

/// What stays the same while nobody changes the configuration or the location data.
#[derive(Debug)]
pub struct World {
    /// The PoPs.
    pub pops: Vec<Pop>,
    /// Where networks are.
    pub location: Arc<Location>,
    /// Where each PoP is; nothing for another CDN.
    units: Vec<Option<[f64; 3]>>,
    cell_units: Vec<[f64; 3]>,
    /// For each cell, the [`NEAREST`] PoPs with the operator's bias, best first.
    nearest: Vec<u16>,
    networks: Networks,
}

/// What is known of the PoPs at an instant.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether each is down; those that are missing are up.
    pub down: Vec<bool>,
    /// The share of its visitors that each gets, while it comes back; 1 where missing.
    pub share: Vec<f64>,
    /// Prices of load, in ms; 0 where missing.
    pub prices: Vec<f64>,
    /// Cells whose visitors are split, for load.
    pub splits: HashMap<u16, Vec<(u16, f64)>>,
    /// Whether each has no room for visitors who come to it as another's spare; those that are missing have some.
    pub full: Vec<bool>,
    /// What was measured.
    pub estimates: Arc<Estimates>,
}

/// Why a PoP was chosen: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The operator has named the client's network.
    Network,
    /// It is the nearest.
    Distance,
    /// It was measured to be faster than the nearest.
    Measured,
    /// Nearer ones are full.
    Load,
    /// Nobody knows where the client is: all PoPs take their part.
    Unlocated,
    /// Everything looks down, so that nothing is believed.
    FailedOpen,
    /// It gets a share of all visitors, and this is one of them.
    Share,
    /// Nothing but the last resort is left, or has room.
    LastResort,
    /// Nothing but what drains is left.
    Drained,
}

impl Why {
    /// As logs and metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::Network => "network",
            Why::Distance => "distance",
            Why::Measured => "measured",
            Why::Load => "load",
            Why::Unlocated => "unlocated",
            Why::FailedOpen => "failed-open",
            Why::Share => "share",
            Why::LastResort => "last-resort",
            Why::Drained => "drained",
        }
    }
}

/// A PoP as a cell sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ranked {
    /// Its index.
    pub pop: u16,
    /// How far it is; 0 for a cell that is nowhere.
    pub km: f64,
    /// How long visitors are thought to wait.
    pub estimate: Estimate,
    /// The operator's bias and the price of its load.
    pub extra_ms: f64,
    /// Whether there is anything to judge it by: of another CDN that nobody has measured there isn't.
    pub is_known: bool,
}

impl Ranked {
    /// What is compared.
    pub fn score_ms(&self) -> f64 {
        self.estimate.ms() + self.costs_ms()
    }

    fn costs_ms(&self) -> f64 {
        if self.is_known { self.extra_ms } else { f64::INFINITY }
    }
}

/// PoPs of a group that may be chosen.
#[derive(Clone, Debug)]
struct Usable {
    /// Those that are chosen by what is best; never none, if the group has any.
    best: Vec<u16>,
    /// What that says about the choice.
    why: Why,
    shares: Shares,
    /// Further ones, which are there for what the others have no room for.
    resort: Vec<u16>,
}

/// PoPs that get a share of all visitors: each a stretch of the numbers from 0 to 1, its own whoever else is up. Which visitor belongs to which
/// follows from a hash of the network.
#[derive(Clone, Debug, Default)]
struct Shares(Vec<(f64, f64, u16)>);

impl Shares {
    /// `network`: the number of a /24 or /48.
    fn find(&self, network: u64) -> Option<u16> {
        if self.0.is_empty() {
            return None;
        }
        // Another number than splits draw, or the share of a split cell would come from one of its parts.
        let at = mix(network ^ SHARES);
        self.0.iter().find(|(from, to, _)| (*from..*to).contains(&at)).map(|(.., pop)| *pop)
    }
}

const SHARES: u64 = 1 << 63;

/// PoPs for a client, best first, and why the first is.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// In order.
    pub order: Vec<Ranked>,
    /// Why the first.
    pub why: Why,
    /// The client's cell.
    pub cell: u16,
}

/// PoPs that are somewhere, to be ordered by distance and the operator's bias.
struct Placed {
    /// Where, the bias in ms, and which.
    pops: Vec<([f64; 3], f64, u16)>,
    is_biased: bool,
}

impl Placed {
    /// Of `some`, those that are somewhere.
    fn of(some: impl Iterator<Item = u16>, units: &[Option<[f64; 3]>], pops: &[Pop]) -> Placed {
        let placed = some.filter_map(|pop| {
            let index = usize::from(pop);
            Some((units[index]?, pops[index].bias_ms, pop))
        });
        let pops: Vec<_> = placed.collect();
        Placed { is_biased: pops.iter().any(|(_, bias_ms, _)| *bias_ms != 0.0), pops }
    }

    /// The best `width` for a cell into `best`, which is emptied first: the best one first, and what comes equal in its order. Most are
    /// worse than what has been found, and cost one distance.
    fn best_of(&self, cell: &[f64; 3], width: usize, best: &mut Vec<(f64, u16)>) {
        best.clear();
        for (unit, bias_ms, pop) in &self.pops {
            // Without bias, the chord orders as the distance does, and takes no arc sine.
            let chord = (0..3).map(|axis| (unit[axis] - cell[axis]).powi(2)).sum::<f64>();
            let cost = match self.is_biased {
                false => chord,
                true => crate::estimate::prior_ms(km_between(*unit, *cell)) + bias_ms,
            };
            if best.len() < width || best.last().is_some_and(|(worst, _)| cost < *worst) {
                let at = best.partition_point(|(known, _)| *known <= cost);
                best.truncate(width - 1);
                best.insert(at.min(best.len()), (cost, *pop));
            }
        }
    }
}

/// The `width` best PoPs of each cell, best first.
fn nearest_of(cells: &[[f64; 3]], placed: &Placed, width: usize) -> Vec<u16> {
    let mut nearest = Vec::with_capacity(cells.len() * width);
    let mut best = Vec::with_capacity(width);
    for cell in cells {
        placed.best_of(cell, width, &mut best);
        nearest.extend(best.iter().map(|(_, pop)| *pop));
    }
    nearest
}

impl World {
    /// Puts PoPs and cells together. Cost: one distance for each pair of them.
    pub fn new(pops: Vec<Pop>, location: Arc<Location>) -> World {
        let units: Vec<Option<[f64; 3]>> = pops.iter().map(|pop| Some(pop.location?.unit())).collect();
        let cell_units: Vec<[f64; 3]> = location.cells().iter().map(|cell| cell.point.unit()).collect();
        let networks = Networks::of(&pops);
        let mut world = World { pops, location, units, cell_units, nearest: Vec::new(), networks };
        let width = world.width();
        // With a thousand PoPs these are tens of millions of distances, and a start waits for them.
        let placed = Placed::of(0..world.pops.len() as u16, &world.units, &world.pops);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let part = world.cell_units.len().div_ceil(threads).max(1);
        world.nearest = std::thread::scope(|scope| {
            let parts: Vec<_> = world
                .cell_units
                .chunks(part)
                .map(|cells| scope.spawn(|| nearest_of(cells, &placed, width)))
                .collect();
            let joined = parts.into_iter().map(|part| part.join());
            joined
                .flat_map(|nearest| nearest.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        world
    }

    /// The PoP of this name.
    pub fn pop_named(&self, name: &str) -> Option<u16> {
        self.pops.iter().position(|pop| *pop.name == *name).map(|index| index as u16)
    }

    /// Kilometres from the middle of a cell to a PoP; 0 from nowhere. To another CDN as many as to the nearest PoP: a guess that says
    /// neither that it is better nor that it is worse.
    pub fn km(&self, cell: u16, pop: u16) -> f64 {
        let nearest = || self.first_by_distance(cell).and_then(|pop| self.units[usize::from(pop)]);
        match (cell, self.units[usize::from(pop)].or_else(nearest)) {
            (UNKNOWN, _) | (_, None) => 0.0,
            (cell, Some(unit)) => km_between(unit, self.cell_units[usize::from(cell)]),
        }
    }

    fn is_placed(&self, pop: u16) -> bool {
        self.units[usize::from(pop)].is_some()
    }

    /// Whether a group has all PoPs that are in a place.
    fn is_everywhere(&self, group: &[u16]) -> bool {
        (0..self.pops.len() as u16).all(|pop| !self.is_placed(pop) || group.contains(&pop))
    }

    /// How many PoPs stand in `nearest` for each cell.
    fn width(&self) -> usize {
        self.units.iter().filter(|unit| unit.is_some()).count().min(NEAREST)
    }

    /// The nearest PoP of a cell, with the operator's bias; `None` without PoPs.
    pub fn first_by_distance(&self, cell: u16) -> Option<u16> {
        self.nearest(cell).first().copied()
    }

    fn nearest(&self, cell: u16) -> &[u16] {
        let width = self.width();
        &self.nearest[usize::from(cell) * width..][..width]
    }

    /// The PoPs of `group` for the visitors of a cell, of the autonomous system `asn` (0: whichever). Shares are not of a cell.
    pub fn rank(&self, cell: u16, asn: u32, group: &[u16], view: &View) -> Ranking {
        self.rank_usable(cell, asn, self.usable(group, view), view)
    }

    fn rank_usable(&self, cell: u16, asn: u32, usable: Usable, view: &View) -> Ranking {
        let Usable { mut best, why, resort, .. } = usable;
        settle(cell, &mut best, view);
        let mut ranking = self.order(cell, asn, &best, why, view);
        if let Some(most) = most_of(cell, view)
            && resort.contains(&most)
        {
            let known = view.estimates.known(cell, self.location.cells()[usize::from(cell)].country, asn);
            ranking.order.insert(0, self.ranked(cell, most, view, &known));
            ranking.why = Why::LastResort;
        }
        ranking
    }

    /// PoPs of `group` that take what the others have no room for.
    pub fn resorts(&self, group: &[u16], view: &View) -> Vec<u16> {
        self.usable(group, view).resort
    }

    /// The spare of each PoP: the nearest other one of `group` that is no farther from it than `within_ms`, whose address stands last in its
    /// answers. It is the same for all visitors of a PoP, wherever they are, as none of them is farther from it by more than that. `None` for a
    /// PoP without one. A spare is up, with all its visitors back, neither drained, a last resort, for a share nor another CDN, and has room; where
    /// nothing is believed it must look up.
    pub fn spares(&self, group: &[u16], view: &View, within_ms: f64) -> Vec<Option<u16>> {
        let (those, mut spares) = (self.may_be_spares(group, view), vec![None; self.pops.len()]);
        group.iter().for_each(|pop| spares[usize::from(*pop)] = self.nearest_spare(*pop, &those, within_ms));
        spares
    }

    /// As [`World::spares`], of one PoP of `group`.
    pub fn spare(&self, pop: u16, group: &[u16], view: &View, within_ms: f64) -> Option<u16> {
        self.nearest_spare(pop, &self.may_be_spares(group, view), within_ms)
    }

    fn nearest_spare(&self, pop: u16, those: &[u16], within_ms: f64) -> Option<u16> {
        let near = those.iter().filter_map(|other| Some((self.spare_ms(pop, *other, within_ms)?, *other)));
        near.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
    }

    fn may_be_spares(&self, group: &[u16], view: &View) -> Vec<u16> {
        let Usable { mut best, why, .. } = self.usable(group, view);
        let is_full = |pop: u16| view.full.get(usize::from(pop)).copied().unwrap_or(false);
        best.retain(|pop| {
            matches!(why, Why::Distance | Why::FailedOpen)
                && !view.down.get(usize::from(*pop)).copied().unwrap_or(false)
                && self.pops[usize::from(*pop)].share.is_none()
                && share(view, *pop) >= 1.0
                && !is_full(*pop)
        });
        best
    }

    /// How much longer visitors of `pop` wait at `other` at most, by distance and with its bias; `None` above `within_ms`, and if one of them is in no place.
    pub fn spare_ms(&self, pop: u16, other: u16, within_ms: f64) -> Option<f64> {
        let (from, to) = (self.units[usize::from(pop)]?, self.units[usize::from(other)]?);
        // The chord is never longer than the arc, and takes no arc sine: most are farther.
        let chord_most = within_ms * PRIOR_KM_PER_MS / EARTH_KM;
        if pop == other
            || (0..3).map(|axis| (from[axis] - to[axis]).powi(2)).sum::<f64>() > chord_most.powi(2)
        {
            return None;
        }
        let ms = km_between(from, to) / PRIOR_KM_PER_MS + self.pops[usize::from(other)].bias_ms;
        (ms <= within_ms).then_some(ms)
    }

    /// Ranks PoPs that may all be chosen, the reason being `why` if the nearest is.
    fn order(&self, cell: u16, asn: u32, usable: &[u16], why: Why, view: &View) -> Ranking {
        let known = view.estimates.known(cell, self.location.cells()[usize::from(cell)].country, asn);
        let mut order: Vec<Ranked> = usable.iter().map(|pop| self.ranked(cell, *pop, view, &known)).collect();
        if cell == UNKNOWN {
            order.sort_by_key(|one| !self.is_placed(one.pop));
            return Ranking { order, why: if why == Why::Distance { Why::Unlocated } else { why }, cell };
        }
        // Geography's order; what comes equal keeps the order of the file. What is in no place comes last.
        let by_distance = |one: &Ranked| one.estimate.prior_ms + self.pops[usize::from(one.pop)].bias_ms;
        order.sort_by(|a, b| {
            let nowhere = |one: &Ranked| !self.is_placed(one.pop);
            nowhere(a).cmp(&nowhere(b)).then(by_distance(a).total_cmp(&by_distance(b)))
        });
        let candidates: Vec<(Estimate, f64)> =
            order.iter().map(|one| (one.estimate, one.costs_ms())).collect();
        let nearest = order.first().map(|one| one.pop);
        let mut first = Estimates::prefer(&candidates);
        let mut chosen_for = if first == 0 { why } else { Why::Measured };
        // Prices are exact: no doubt is in them. They count where they alone turn the choice.
        let priced = order
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != first)
            .min_by(|a, b| a.1.score_ms().total_cmp(&b.1.score_ms()));
        if let (Some((index, other)), Some(now)) = (priced, order.get(first))
            && price(view, now.pop) > 0.0
            && other.score_ms() < now.score_ms()
        {
            (first, chosen_for) = (index, Why::Load);
        }
        if let Some(chosen) = (first < order.len()).then(|| order.remove(first)) {
            order.sort_by(|a, b| a.score_ms().total_cmp(&b.score_ms()));
            order.insert(0, chosen);
        }
        if let Some(most) = most_of(cell, view)
            && let Some(at) = order.iter().position(|one| one.pop == most)
        {
            let chosen = order.remove(at);
            order.insert(0, chosen);
            if nearest != Some(most) {
                chosen_for = Why::Load;
            }
        }
        Ranking { order, why: chosen_for, cell }
    }

    /// For a client: as [`World::rank`], after the operator's networks and shares.
    pub fn rank_client(&self, address: IpAddr, group: &[u16], view: &View) -> Ranking {
        let (cell, asn) = (self.location.cell(address), self.location.systems().of(address));
        let usable = self.usable(group, view);
        let shares = usable.shares.clone();
        let mut ranking = self.rank_usable(cell, asn, usable, view);
        let known = view.estimates.known(cell, self.location.cells()[usize::from(cell)].country, asn);
        for (.., pop) in &shares.0 {
            if ranking.order.iter().all(|one| one.pop != *pop) {
                ranking.order.push(self.ranked(cell, *pop, view, &known));
            }
        }
        let network = match address.to_canonical() {
            IpAddr::V4(v4) => u64::from(u32::from(v4) >> 8),
            IpAddr::V6(v6) => first_64(v6) >> 16,
        };
        let owner = self.networks.find(address, 128).map(|(pop, _)| (pop, Why::Network));
        let shared = shares.find(network).map(|pop| (pop, Why::Share));
        let place = |pop: u16| ranking.order.iter().position(|one| one.pop == pop);
        let first = [owner, shared].into_iter().flatten().find_map(|(pop, why)| Some((place(pop)?, why)));
        if let Some((at, why)) = first {
            let chosen = ranking.order.remove(at);
            ranking.order.insert(0, chosen);
            ranking.why = why;
        }
        ranking
    }

    fn ranked(&self, cell: u16, pop: u16, view: &View, known: &Known<'_>) -> Ranked {
        let km = self.km(cell, pop);
        let estimate = known.of(pop, km);
        let extra_ms = self.pops[usize::from(pop)].bias_ms + price(view, pop);
        Ranked { pop, km, estimate, extra_ms, is_known: self.is_placed(pop) || estimate.samples > 0.0 }
    }

    /// Which of `group` may be chosen.
    ///
    /// When more than half of those that are probed look down, it is the prober that is cut off, and all count as up. But when *all* of them
    /// look down and something else is there that doesn't, such as another CDN, visitors go there: that costs little if it is wrong.
    fn usable(&self, group: &[u16], view: &View) -> Usable {
        let pop = |pop: u16| &self.pops[usize::from(pop)];
        let looks_down = |pop: u16| view.down.get(usize::from(pop)).copied().unwrap_or(false);
        let of = |wanted: &dyn Fn(u16) -> bool| -> Vec<u16> {
            group.iter().copied().filter(|one| !pop(*one).drain && wanted(*one)).collect()
        };
        let is_normal = |one: u16| !pop(one).last_resort;
        let probed = of(&|one| is_normal(one) && !pop(one).edges.is_empty());
        let down = probed.iter().filter(|one| looks_down(**one)).count();
        let mut disbelieve = fail_open(down, probed.len());
        let resort = of(&|one| !is_normal(one) && !looks_down(one));
        let up = of(&|one| is_normal(one) && !looks_down(one));
        if down == probed.len() && !(up.is_empty() && resort.is_empty()) {
            disbelieve = false;
        }
        let normal = if disbelieve { of(&is_normal) } else { up };
        let (best, why, resort) = match (normal.is_empty(), resort.is_empty()) {
            (false, _) => (normal, if disbelieve { Why::FailedOpen } else { Why::Distance }, resort),
            (true, false) => (resort, Why::LastResort, Vec::new()),
            (true, true) => match of(&|_| true) {
                none if none.is_empty() => (group.to_vec(), Why::Drained, Vec::new()),
                all => (all, Why::FailedOpen, Vec::new()),
            },
        };
        let shares = self.shares(group, &best, view);
        let mut rest = best.clone();
        rest.retain(|one| pop(*one).share.is_none());
        Usable { best: if rest.is_empty() { best } else { rest }, why, shares, resort }
    }

    /// Stretches follow each other in the order of the group, so that one that goes moves nobody else's.
    fn shares(&self, group: &[u16], usable: &[u16], view: &View) -> Shares {
        let (mut shares, mut from) = (Vec::new(), 0.0);
        for one in group {
            let Some(percent) = self.pops[usize::from(*one)].share else { continue };
            let width = f64::from(percent) / 100.0;
            if usable.contains(one) {
                shares.push((from, from + width * share(view, *one), *one));
            }
            from += width;
        }
        Shares(shares)
    }
}

/// Of a cell that is split, where most of its visitors go.
fn most_of(cell: u16, view: &View) -> Option<u16> {
    view.splits.get(&cell)?.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(pop, _)| *pop)
}

/// Leaves out PoPs that are coming back and to which this cell has not returned yet, unless no other is left.
fn settle(cell: u16, usable: &mut Vec<u16>, view: &View) {
    let returned = |pop: &u16| {
        let share = share(view, *pop);
        share >= 1.0 || mix(u64::from(cell) << 16 | u64::from(*pop)) < share
    };
    if usable.iter().any(returned) {
        usable.retain(returned);
    }
}

fn share(view: &View, pop: u16) -> f64 {
    view.share.get(usize::from(pop)).copied().unwrap_or(1.0)
}

fn price(view: &View, pop: u16) -> f64 {
    view.prices.get(usize::from(pop)).copied().unwrap_or(0.0)
}

/// A number from 0 up to 1, as if by chance, and always the same for the same input.
fn mix(input: u64) -> f64 {
    Draw(input).unit()
}

// --- The operator's networks ---

/// Networks that belong to a PoP, found by the longest that holds an address.
#[derive(Debug, Default)]
struct Networks {
    /// Lengths that occur, longest first; of IPv6, an IPv4 one counts from 96.
    lengths: Vec<u8>,
    pops: HashMap<(u8, u128), u16>,
    /// First address and length of each, in order.
    order: Vec<(u128, u8)>,
}

impl Networks {
    fn of(pops: &[Pop]) -> Networks {
        let mut networks = Networks::default();
        for (pop, network) in pops
            .iter()
            .enumerate()
            .flat_map(|(index, pop)| pop.networks.iter().map(move |network| (index as u16, network)))
        {
            let (first, _) = network.range();
            let bits = network.prefix_len() + if first.is_ipv4() { 96 } else { 0 };
            networks.pops.insert((bits, number(first)), pop);
            networks.order.push((number(first), bits));
            if !networks.lengths.contains(&bits) {
                networks.lengths.push(bits);
            }
        }
        networks.lengths.sort_unstable_by(|a, b| b.cmp(a));
        networks.order.sort_unstable();
        networks
    }

    /// The PoP and the length (of IPv6) of the longest network of at most `bits` that holds the address.
    fn find(&self, address: IpAddr, bits: u8) -> Option<(u16, u8)> {
        if self.lengths.is_empty() {
            return None;
        }
        let address = number(address);
        self.lengths
            .iter()
            .filter(|length| **length <= bits)
            .find_map(|length| self.pops.get(&(*length, address & mask(*length))).map(|pop| (*pop, *length)))
    }

    /// Whether a network lies within the block of the address that has `bits`, and is longer.
    fn any_within(&self, address: u128, bits: u8) -> bool {
        let first = address & mask(bits);
        let last = first | !mask(bits);
        let from = self.order.partition_point(|(start, _)| *start < first);
        self.order[from..].iter().take_while(|(start, _)| *start <= last).any(|(_, length)| *length > bits)
    }
}

/// As a number of IPv6; IPv4 stands at ::ffff:0:0/96.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

// --- All cells at once ---

/// For one group of PoPs, where every network is sent.
#[derive(Debug)]
pub struct Table {
    choices: Vec<u16>,
    /// PoPs with the share up to which they are chosen.
    splits: Vec<Vec<(u16, f64)>>,
    /// Node `1 << level | prefix`: the PoP of all networks in that prefix, or [`MIXED`]. Levels 0 to 16.
    pyramid: Vec<u16>,
    /// Of IPv6, for each run a bit: whether it is sent elsewhere than the run before it.
    borders: Vec<u64>,
    usable: Vec<bool>,
    shares: Shares,
    by_system: Option<BySystem>,
}

/// What is chosen by the autonomous system too, where something is known of some: found out when it is first asked for.
#[derive(Debug)]
struct BySystem {
    view: View,
    best: Vec<u16>,
    /// Of these, those that are in no place.
    nowhere: Vec<u16>,
    /// Whether these are all PoPs, but for those that are down.
    everywhere: bool,
    why: Why,
    /// For each cell a bit: whether its choice depends on the system.
    cells: Vec<u64>,
    /// Cell, system and PoP, in 16, 32 and 16 bits; 0 is none yet. What shares a slot pushes the other out.
    known: Box<[AtomicU64]>,
}

impl BySystem {
    fn of(world: &World, group: &[u16], usable: &Usable, view: &View) -> Option<BySystem> {
        if !view.estimates.knows_systems() {
            return None;
        }
        let countries = view.estimates.countries_with_systems();
        let cells = world.location.cells();
        let mut bits = vec![0; cells.len().div_ceil(64)];
        for (cell, Cell { country, .. }) in cells.iter().enumerate().skip(1) {
            // A cell that is split for load is split as it is.
            if countries.contains(country) && !view.splits.contains_key(&(cell as u16)) {
                bits[cell / 64] |= 1 << (cell % 64);
            }
        }
        let known = (0..KNOWN_SLOTS).map(|_| AtomicU64::new(0)).collect();
        Some(BySystem {
            view: view.clone(),
            nowhere: usable.best.iter().copied().filter(|pop| !world.is_placed(*pop)).collect(),
            best: usable.best.clone(),
            everywhere: world.is_everywhere(group),
            why: usable.why,
            cells: bits,
            known,
        })
    }

    fn is_of(&self, cell: u16) -> bool {
        self.cells[usize::from(cell) / 64] >> (cell % 64) & 1 == 1
    }

    /// The PoP of a cell and system, if the system is one of which something is known.
    fn find(&self, world: &World, cell: u16, system: u32, otherwise: u16) -> u16 {
        let slot = mix64(u64::from(cell) << 32 | u64::from(system)) as usize % KNOWN_SLOTS;
        let key = u64::from(cell) << 48 | u64::from(system) << 16;
        let known = self.known[slot].load(Relaxed);
        if known & !0xffff == key && known != 0 {
            return known as u16;
        }
        let country = world.location.cells()[usize::from(cell)].country;
        let estimates = self.view.estimates.known(cell, country, system);
        let pop = match estimates.is_of_system() {
            true if estimates.is_of_wider_alone() && wider(system) != system => {
                self.find(world, cell, wider(system), otherwise)
            }
            true => {
                let nearest = if self.everywhere { world.nearest(cell) } else { &[] };
                let mut near = nearest.to_vec();
                near.retain(|pop| self.best.contains(pop));
                match near.is_empty() {
                    true => near.clone_from(&self.best),
                    false => near.extend(&self.nowhere),
                }
                settle(cell, &mut near, &self.view);
                let ranking = world.order(cell, system, &near, self.why, &self.view);
                ranking.order.first().map_or(otherwise, |one| one.pop)
            }
            false => otherwise,
        };
        self.known[slot].store(key | u64::from(pop), Relaxed);
        pop
    }
}

/// Choices by cell and system that a table remembers: half a MiB.
const KNOWN_SLOTS: usize = 1 << 16;

/// Where a client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The PoP.
    pub pop: u16,
    /// The length of the widest prefix around the client in which everybody gets the same answer; never more than was asked for.
    pub scope: u8,
}

impl Table {
    /// Ranks all cells for a group, which may not be empty. Some ms with two dozen PoPs.
    pub fn build(world: &World, group: &[u16], view: &View) -> Table {
        let all = world.usable(group, view);
        let (best, why) = (&all.best, all.why);
        let shared = all.shares.0.iter().map(|(.., pop)| pop);
        let mut is_usable = vec![false; world.pops.len()];
        best.iter().chain(shared).for_each(|pop| is_usable[usize::from(*pop)] = true);
        let mut is_best = vec![false; world.pops.len()];
        best.iter().for_each(|pop| is_best[usize::from(*pop)] = true);
        let nowhere: Vec<u16> = best.iter().copied().filter(|pop| !world.is_placed(*pop)).collect();
        let mut table = Table {
            choices: Vec::with_capacity(world.cell_units.len()),
            splits: Vec::new(),
            pyramid: Vec::new(),
            borders: Vec::new(),
            usable: is_usable,
            shares: all.shares.clone(),
            by_system: BySystem::of(world, group, &all, view),
        };
        let everywhere = world.is_everywhere(group);
        let priced = view.prices.iter().any(|price| *price > 0.0);
        let has_estimates = !view.estimates.is_empty();
        let slow = view.share.iter().any(|share| *share < 1.0);
        let mut near: Vec<u16> = Vec::new();
        let placed = Placed::of(best.iter().copied(), &world.units, &world.pops);
        let mut nearest = Vec::with_capacity(1);
        for cell in 0..world.cell_units.len() as u16 {
            if cell == UNKNOWN {
                let placed: Vec<u16> = best.iter().copied().filter(|pop| world.is_placed(*pop)).collect();
                let of = if placed.is_empty() { best } else { &placed };
                let shares: Vec<(u16, f64)> = of.iter().map(|pop| (*pop, share(view, *pop))).collect();
                let choice = table.choice_of(&shares);
                table.choices.push(choice);
                continue;
            }
            if let Some(parts) = view.splits.get(&cell) {
                let parts: Vec<(u16, f64)> = parts
                    .iter()
                    .copied()
                    .filter(|(pop, _)| best.contains(pop) || all.resort.contains(pop))
                    .collect();
                if !parts.is_empty() {
                    let choice = table.choice_of(&parts);
                    table.choices.push(choice);
                    continue;
                }
            }
            // The nearest that may be chosen are enough, where there are any; by distance alone, the first of them is it.
            near.clear();
            near.extend(world.nearest(cell).iter().copied().filter(|pop| is_best[usize::from(*pop)]));
            let measured = priced
                || (has_estimates && {
                    let country = world.location.cells()[usize::from(cell)].country;
                    !view.estimates.known(cell, country, 0).is_nothing()
                });
            if !measured && !slow {
                // Of a group with few PoPs none may be among the nearest of all.
                if near.is_empty() {
                    placed.best_of(&world.cell_units[usize::from(cell)], 1, &mut nearest);
                    near.extend(nearest.iter().map(|(_, pop)| *pop));
                }
                if let Some(first) = near.first() {
                    table.choices.push(*first);
                    continue;
                }
            }
            match near.is_empty() || !everywhere {
                true => near.clone_from(best),
                false => near.extend(&nowhere),
            }
            settle(cell, &mut near, view);
            let first = world.order(cell, 0, &near, why, view).order.first().map(|one| one.pop);
            table.choices.push(first.unwrap_or(group[0]));
        }
        table.build_pyramid(&world.location);
        let cells = world.location.run_cells();
        table.borders = vec![0; cells.len().div_ceil(64)];
        let mut before = None;
        for (run, cell) in cells.iter().enumerate() {
            let choice = (table.choices[usize::from(*cell)], table.is_one(*cell));
            if before != Some(choice) {
                table.borders[run / 64] |= 1 << (run % 64);
            }
            before = Some(choice);
        }
        table
    }

    fn is_usable(&self, pop: u16) -> bool {
        self.usable.get(usize::from(pop)).copied().unwrap_or(false)
    }

    fn choice_of(&mut self, shares: &[(u16, f64)]) -> u16 {
        if let [(pop, _)] = shares {
            return *pop;
        }
        let all: f64 = shares.iter().map(|(_, share)| share).sum();
        let mut sum = 0.0;
        let ladder: Vec<(u16, f64)> = shares
            .iter()
            .map(|(pop, share)| {
                sum += share / all;
                (*pop, sum)
            })
            .collect();
        if let Some(known) = self.splits.iter().position(|split| *split == ladder) {
            return SPLIT + known as u16;
        }
        if self.splits.len() >= usize::from(u16::MAX - SPLIT) {
            return shares.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(pop, _)| *pop);
        }
        self.splits.push(ladder);
        SPLIT + (self.splits.len() - 1) as u16
    }

    /// The PoP of a /24, whose cell is known.
    fn pop_of_24(&self, world: &World, cell: u16, network: u32) -> u16 {
        if let Some(pop) = self.shares.find(u64::from(network)) {
            return pop;
        }
        let choice = self.choices[usize::from(cell)];
        let pop = self.resolve(choice, u64::from(network));
        match &self.by_system {
            Some(by) if by.is_of(cell) => by.find(world, cell, world.location.systems().of_24(network), pop),
            _ => pop,
        }
    }

    /// Whether all networks of a cell are sent to one PoP.
    fn is_one(&self, cell: u16) -> bool {
        !self.is_split(cell) && self.by_system.as_ref().is_none_or(|by| !by.is_of(cell))
    }

    /// Whether each network of a cell is sent by itself.
    fn is_split(&self, cell: u16) -> bool {
        self.choices[usize::from(cell)] >= SPLIT || !self.shares.0.is_empty()
    }

    fn resolve(&self, choice: u16, network: u64) -> u16 {
        if choice < SPLIT {
            return choice;
        }
        let split = &self.splits[usize::from(choice - SPLIT)];
        let at = mix(network);
        split.iter().find(|(_, up_to)| at < *up_to).or(split.last()).map_or(0, |(pop, _)| *pop)
    }

    fn build_pyramid(&mut self, location: &Location) {
        let mut pyramid = vec![MIXED; 1 << 17];
        let mut leaves: HashMap<*const u16, u16> = HashMap::new();
        for block in 0..=u16::MAX {
            let all_the_same = |cells: &[u16]| {
                let first = self.choices[usize::from(cells[0])];
                let is_same = |cell: &u16| self.choices[usize::from(*cell)] == first && self.is_one(*cell);
                let same = cells.iter().all(is_same);
                if same { first } else { MIXED }
            };
            pyramid[1 << 16 | usize::from(block)] = match location.block(block) {
                Ok(cell) => all_the_same(&[cell]),
                Err(leaf) => *leaves.entry(leaf.cells.as_ptr()).or_insert_with(|| all_the_same(leaf.cells)),
            };
        }
        for node in (1..1 << 16).rev() {
            let (left, right) = (pyramid[2 * node], pyramid[2 * node + 1]);
            pyramid[node] = if left == right { left } else { MIXED };
        }
        self.pyramid = pyramid;
    }

    /// Where a client is sent whose address is known by its first `bits`.
    pub fn find(&self, world: &World, address: IpAddr, bits: u8) -> Found {
        let address = address.to_canonical();
        match address {
            IpAddr::V4(v4) => self.find_v4(world, v4, bits.min(32)),
            IpAddr::V6(v6) => self.find_v6(world, v6, bits.min(128)),
        }
    }

    fn find_v4(&self, world: &World, address: Ipv4Addr, bits: u8) -> Found {
        let network = u32::from(address) >> 8;
        let pop = self.pop_of_24(world, world.location.cell_of_24(network), network);
        let mut scope = self.scope_of_24(world, network, pop);
        let mut found = Found { pop, scope };
        if !world.networks.order.is_empty() {
            let number = number(address.into());
            if let Some((owner, length)) =
                world.networks.find(address.into(), bits + 96).filter(|(pop, _)| self.is_usable(*pop))
            {
                (found.pop, scope) = (owner, length - 96);
            }
            while scope < V4_BITS && world.networks.any_within(number, scope + 96) {
                scope += 1;
            }
            found.scope = scope;
        }
        Found { scope: found.scope.min(bits), ..found }
    }

    fn scope_of_24(&self, world: &World, network: u32, pop: u16) -> u8 {
        let block = (network >> 8) as u16;
        let node = 1usize << 16 | usize::from(block);
        if self.pyramid[node] == pop {
            let mut level = 16;
            while level > 0 && self.pyramid[node >> (17 - level)] == pop {
                level -= 1;
            }
            return level;
        }
        let (first, last) = self.stretch(world, network, pop);
        let mut scope = V4_BITS;
        for doubling in 1..=8 {
            let width = (1u16 << doubling) - 1;
            let own = network as u8;
            if own & !(width as u8) < first || own | width as u8 > last {
                break;
            }
            scope -= 1;
        }
        scope
    }

    /// The first and the last of the /24s around one, within its /16, that are all sent to `pop`.
    fn stretch(&self, world: &World, network: u32, pop: u16) -> (u8, u8) {
        let block = world.location.block((network >> 8) as u16);
        let network_first = network & !0xff;
        let run_at = |at: u8| match block {
            Ok(cell) => (cell, (0, u8::MAX)),
            Err(leaf) => {
                let run = leaf.run_of(at);
                (leaf.cells[run], leaf.range(run))
            }
        };
        // What lies behind `at` and is sent there: the rest of its run, as far as its system reaches where that counts, or itself where
        // each network is asked for.
        let reach = |at: u8| {
            let (cell, mut range) = run_at(at);
            let network = network_first | u32::from(at);
            if self.is_split(cell) {
                range = (at, at);
            } else if !self.is_one(cell) {
                let (first, last) = world.location.systems().around_24(network);
                let within = |network: u32| network.clamp(network_first, network_first | 0xff) as u8;
                range = (range.0.max(within(first)), range.1.min(within(last)));
            }
            (self.pop_of_24(world, cell, network) == pop).then_some(range)
        };
        let (mut first, mut last) = (network as u8, network as u8);
        while let Some((from, _)) = first.checked_sub(1).and_then(reach) {
            first = from;
        }
        while let Some((_, to)) = last.checked_add(1).and_then(reach) {
            last = to;
        }
        (first, last)
    }

    /// The first run of those around `run` that are all sent to the same place.
    fn border_before(&self, run: usize) -> usize {
        let mut word = run / 64;
        let mut bits = self.borders[word] & (u64::MAX >> (63 - run % 64));
        while bits == 0 && word > 0 {
            word -= 1;
            bits = self.borders[word];
        }
        word * 64 + bits.checked_ilog2().unwrap_or(0) as usize
    }

    /// The first run behind them; beyond the last run, if there is none.
    fn border_behind(&self, run: usize) -> usize {
        let mut word = (run + 1) / 64;
        let mut bits = self.borders.get(word).copied().unwrap_or(0) & (u64::MAX << ((run + 1) % 64));
        while bits == 0 && word < self.borders.len() {
            word += 1;
            bits = self.borders.get(word).copied().unwrap_or(0);
        }
        word * 64 + if bits == 0 { 0 } else { bits.trailing_zeros() as usize }
    }

    fn find_v6(&self, world: &World, address: Ipv6Addr, bits: u8) -> Found {
        let number = first_64(address);
        let run = world.location.run_of(number);
        let cell = world.location.run_cells()[run];
        let choice = self.choices[usize::from(cell)];
        let shared = self.shares.find(number >> 16);
        let mut pop = shared.unwrap_or_else(|| self.resolve(choice, number >> 16));
        let mut scope = V6_BITS;
        if choice < SPLIT && shared.is_none() {
            let by = self.by_system.as_ref().filter(|by| by.is_of(cell));
            let (first, end) = match by {
                // Others of the same choice may be of a cell where it depends on the system.
                Some(_) => (run, run + 1),
                None => (self.border_before(run), self.border_behind(run)),
            };
            let mut first = world.location.start_of(first).unwrap_or(0);
            let mut last = world.location.start_of(end).map_or(u64::MAX, |next| next - 1);
            if let Some(by) = by {
                let systems = world.location.systems();
                let asn = systems.of(address.into());
                pop = by.find(world, cell, asn, pop);
                let country = world.location.cells()[usize::from(cell)].country;
                // Of the whole wider prefix nothing was measured, if nothing was of this one.
                let is_known = by.view.estimates.known(cell, country, asn).is_of_system();
                let (of_system, to) = systems.around_48(number >> 16, !is_known);
                (first, last) = (first.max(of_system << 16), last.min(to << 16 | 0xffff));
            }
            if !self.shares.0.is_empty() {
                (first, last) = (number, number);
            }
            let within = |bits: u8| {
                let width = u64::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
                number & !width >= first && number | width <= last
            };
            while scope > 0 && within(scope - 1) {
                scope -= 1;
            }
        }
        let mut found = Found { pop, scope };
        if !world.networks.order.is_empty() {
            let whole = u128::from(address);
            if let Some((owner, length)) =
                world.networks.find(address.into(), bits).filter(|(pop, _)| self.is_usable(*pop))
            {
                (found.pop, found.scope) = (owner, length);
            }
            while found.scope < 64 && world.networks.any_within(whole, found.scope) {
                found.scope += 1;
            }
        }
        Found { scope: found.scope.min(bits), ..found }
    }
}

#[cfg(test)]
mod tests;
