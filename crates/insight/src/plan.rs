//! Where to put PoPs: how far visitors are from those that there are, which to add, what each brings, and what is lost with each.
//!
//! ```text
//! shares, logs ─► markets ──┐
//! PoPs, cities ─► places ───┼─► Problem: round trips of each market to each place ─► best ─► Choice ─► Coverage, Loss
//! prices ─► cost of each ───┘
//! ```
//!
//! Each market is served by the place with the shortest round trip, as the router would have it. What is made small is the mean
//! round trip of all demand. Neither the way between PoP and origin nor how full a PoP is counts here.
//!
//! Pure: round trips come from the caller, who knows whether they were measured. Called by `perigee plan`.

pub mod optimise;
pub mod places;
pub mod prices;
pub mod shares;

pub use optimise::{Choice, Limit, best};

/// A round trip that is called short: what a visitor hardly notices, some ten thousand steps of light in glass.
pub const NEAR_MS: f64 = 50.0;

/// What a place costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Per month, whatever it does.
    pub month: f64,
    /// Per GB that it sends.
    pub per_gb: f64,
}

/// Markets, places, and the way between them.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// Each market's part of the requests; all together are 1.
    demand: Vec<f64>,
    /// GB per month that each market asks for.
    gb: Vec<f64>,
    /// What each place costs.
    costs: Vec<Cost>,
    /// Round trips in ms: by place, then by market.
    ms: Vec<Vec<f64>>,
    /// Places that are there already and stay.
    kept: Vec<usize>,
}

/// How well demand is served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// Mean round trip.
    pub mean_ms: f64,
    /// 95 % of demand has at most this.
    pub p95_ms: f64,
    /// The part of demand with at most [`NEAR_MS`].
    pub near: f64,
}

/// What it would be without one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// The place that is gone.
    pub place: usize,
    /// How well demand is served then; `None` when no other is left.
    pub coverage: Option<Coverage>,
    /// The part of demand that has to move.
    pub moved: f64,
    /// The place with the most demand then, and its part.
    pub busiest: Option<(usize, f64)>,
}

impl Problem {
    /// `markets`: weight and GB per month of each; weights need not add up to anything. `places`: cost and round trip (ms) to each market.
    ///
    /// Panics when a place has not one round trip per market, or `kept` names no place.
    pub fn new(markets: &[(f64, f64)], places: Vec<(Cost, Vec<f64>)>, kept: Vec<usize>) -> Problem {
        let total: f64 = markets.iter().map(|(weight, _)| weight).sum();
        assert!(places.iter().all(|(_, ms)| ms.len() == markets.len()), "a round trip for each market");
        assert!(kept.iter().all(|place| *place < places.len()), "only places are kept");
        let (costs, ms) = places.into_iter().unzip();
        Problem {
            demand: markets
                .iter()
                .map(|(weight, _)| if total > 0.0 { weight / total } else { 0.0 })
                .collect(),
            gb: markets.iter().map(|(_, gb)| *gb).collect(),
            costs,
            ms,
            kept,
        }
    }

    /// The same with fewer markets: those with the same number in `groups` (one for each market, counted from 0) become one, whose round trips are
    /// the means of theirs. Choosing among few is quick; what was chosen is to be looked at with all.
    pub fn grouped(&self, groups: &[usize]) -> Problem {
        let count = groups.iter().max().map_or(0, |last| last + 1);
        let (mut demand, mut gb) = (vec![0.0; count], vec![0.0; count]);
        for (market, group) in groups.iter().enumerate() {
            demand[*group] += self.demand[market];
            gb[*group] += self.gb[market];
        }
        let merge = |ms: &Vec<f64>| {
            let mut sums = vec![0.0; count];
            for (market, group) in groups.iter().enumerate() {
                sums[*group] += self.demand[market] * ms[market];
            }
            sums.iter()
                .zip(&demand)
                .map(|(sum, demand)| if *demand > 0.0 { sum / demand } else { 0.0 })
                .collect()
        };
        let ms = self.ms.iter().map(merge).collect();
        Problem { demand, gb, costs: self.costs.clone(), ms, kept: self.kept.clone() }
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.costs.len()
    }

    /// The places that are there already.
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// Each market's part of the requests.
    pub fn demand(&self) -> &[f64] {
        &self.demand
    }

    /// Round trip, in ms.
    pub fn ms(&self, place: usize, market: usize) -> f64 {
        self.ms[place][market]
    }

    /// Which of `set` serves each market: the one with the shortest round trip, the lower number among equals. Empty when `set` is.
    pub fn assign(&self, set: &[usize]) -> Vec<usize> {
        if set.is_empty() {
            return Vec::new();
        }
        let nearest = |market: usize| {
            let order =
                |a: &&usize, b: &&usize| self.ms[**a][market].total_cmp(&self.ms[**b][market]).then(a.cmp(b));
            set.iter().min_by(order).copied().unwrap_or(0)
        };
        (0..self.demand.len()).map(nearest).collect()
    }

    /// How well `set` serves; `None` when it is empty, or nobody demands anything.
    pub fn coverage(&self, set: &[usize]) -> Option<Coverage> {
        let assigned = self.assign(set);
        let trips =
            assigned.iter().enumerate().map(|(market, place)| (self.ms[*place][market], self.demand[market]));
        Coverage::of(trips.collect())
    }

    /// The part of the demand that each of `set` serves, in its order.
    pub fn shares(&self, set: &[usize]) -> Vec<f64> {
        let mut shares = vec![0.0; self.costs.len()];
        for (market, place) in self.assign(set).into_iter().enumerate() {
            shares[place] += self.demand[market];
        }
        set.iter().map(|place| shares[*place]).collect()
    }

    /// What `set` costs per month: each of its places, and what each sends to whom it serves.
    pub fn cost(&self, set: &[usize]) -> f64 {
        self.costs(set).iter().sum()
    }

    /// The same for each of `set`, in its order.
    pub fn costs(&self, set: &[usize]) -> Vec<f64> {
        let mut costs: Vec<f64> = self.costs.iter().map(|cost| cost.month).collect();
        for (market, place) in self.assign(set).into_iter().enumerate() {
            costs[place] += self.gb[market] * self.costs[place].per_gb;
        }
        set.iter().map(|place| costs[*place]).collect()
    }

    /// What is lost with each of `set`, in its order.
    pub fn losses(&self, set: &[usize]) -> Vec<Loss> {
        let shares = self.shares(set);
        let without = |(index, place): (usize, &usize)| {
            let rest: Vec<usize> = set.iter().copied().filter(|other| other != place).collect();
            let loads = self.shares(&rest);
            let busiest =
                rest.iter().copied().zip(loads).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
            Loss { place: *place, coverage: self.coverage(&rest), moved: shares[index], busiest }
        };
        set.iter().enumerate().map(without).collect()
    }

    /// In which order to build `added`, beside what is kept: each time the one that brings most.
    pub fn order(&self, added: &[usize]) -> Vec<usize> {
        let (mut built, mut rest) = (self.kept.clone(), added.to_vec());
        let mut order = Vec::new();
        while !rest.is_empty() {
            let mean = |place: &usize| {
                let set: Vec<usize> = built.iter().copied().chain([*place]).collect();
                self.coverage(&set).map_or(f64::INFINITY, |coverage| coverage.mean_ms)
            };
            let first = (0..rest.len())
                .min_by(|a, b| mean(&rest[*a]).total_cmp(&mean(&rest[*b])).then(rest[*a].cmp(&rest[*b])));
            let place = rest.remove(first.unwrap_or(0));
            built.push(place);
            order.push(place);
        }
        order
    }
}

impl Coverage {
    /// Of round trips (ms), each with its weight. `None` when the weights are nothing.
    pub fn of(mut trips: Vec<(f64, f64)>) -> Option<Coverage> {
        let total: f64 = trips.iter().map(|(_, weight)| weight).sum();
        if total <= 0.0 {
            return None;
        }
        trips.sort_by(|a, b| a.0.total_cmp(&b.0));
        let sum: f64 = trips.iter().map(|(ms, weight)| ms * weight).sum();
        let near: f64 = trips.iter().filter(|(ms, _)| *ms <= NEAR_MS).map(|(_, weight)| weight).sum();
        let mut reached = 0.0;
        let at = trips.iter().find(|(_, weight)| {
            reached += weight;
            // So much more than what adding up many small parts may lose.
            reached >= total * (0.95 - 1e-12)
        });
        let p95_ms = at.or(trips.last()).map_or(0.0, |(ms, _)| *ms);
        Some(Coverage { mean_ms: sum / total, p95_ms, near: near / total })
    }
}

/// Where more PoPs begin to bring little: of the means (ms) with one more each time, the one farthest below the straight line from the first to
/// the last. Its index; `None` for fewer than three, or when nothing is gained.
///
/// The Kneedle criterion for a curve that falls ever more slowly (Satopää et al. 2011, "Finding a Kneedle in a Haystack").
pub fn knee(means_ms: &[f64]) -> Option<usize> {
    let (first, last) = (*means_ms.first()?, *means_ms.last()?);
    if means_ms.len() < 3 || first <= last {
        return None;
    }
    let below = |index: usize| {
        let along = index as f64 / (means_ms.len() - 1) as f64;
        first + (last - first) * along - means_ms[index]
    };
    let farthest = (0..means_ms.len()).max_by(|a, b| below(*a).total_cmp(&below(*b)).then(b.cmp(a)))?;
    // More than rounding may make of the ends, which lie on the line.
    (below(farthest) > 1e-9 * first).then_some(farthest)
}

/// What any bytes come to as country shares and as a price table, for fuzzing.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    if let Ok(shares) = shares::parse(text) {
        assert!(shares.rows.iter().all(|row| row.share.is_finite() && row.share >= 0.0));
        assert!(shares.rows.iter().any(|row| row.share > 0.0));
    }
    if let Ok(prices) = prices::Prices::parse(text, "fuzz") {
        let cost = prices.of(&places::Place::at("FRA", model::Point { latitude: 50.0, longitude: 8.6 }));
        assert!(cost.month >= 0.0 && cost.per_gb >= 0.0);
    }
}

#[cfg(test)]
mod tests;
