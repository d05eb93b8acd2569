//! The figures of a plan, as `--json` prints them.

use insight::plan::places::networks;
use insight::plan::prices::Prices;
use insight::plan::{Coverage, Limit, best, knee, optimise::COUNT_MAX};
use serde::Serialize;

use super::PlanArgs;
use super::gather::{Demand, Gathered, Measured};
use crate::failure::Failure;

/// Candidates that are named as the next.
const NEXT_SHOWN: usize = 5;

/// All of it. Times are in ms, parts of demand 0 to 1, amounts in the table's currency per month.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) demand: Demand,
    pub(super) round_trips: RoundTrips,
    pub(super) today: Option<Today>,
    /// The best set of each size.
    pub(super) steps: Vec<Step>,
    pub(super) plan: Plan,
    /// The places that bring most to what there is today.
    pub(super) next: Vec<Next>,
    pub(super) networks: Vec<Other>,
    pub(super) prices: Priced,
    pub(super) attribution: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Where round trips are from.
#[derive(Debug, Serialize)]
pub(super) struct RoundTrips {
    pub(super) estimate: String,
    pub(super) measured: Measured,
}

/// How well demand is served.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Served {
    pub(super) mean_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) within_50_ms: f64,
    /// The part of demand of which that was measured; the rest is estimated.
    pub(super) measured: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Today {
    pub(super) what: String,
    #[serde(flatten)]
    pub(super) served: Served,
    /// What the PoPs cost; `None` without any.
    pub(super) cost: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) added: Vec<String>,
    #[serde(flatten)]
    pub(super) served: Served,
    pub(super) cost: f64,
    /// Less than with the step before, or today's PoPs; `None` for the first where there is nothing before.
    pub(super) gain_ms: Option<f64>,
    pub(super) gain_ms_per_100: Option<f64>,
    pub(super) is_knee: bool,
    pub(super) is_proven_best: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Plan {
    pub(super) reason: String,
    /// Those that there are, then those to add, in the order in which to build.
    pub(super) pops: Vec<Pop>,
    #[serde(flatten)]
    pub(super) served: Served,
    pub(super) cost: f64,
    pub(super) is_proven_best: bool,
    pub(super) page: Option<Page>,
    #[serde(skip)]
    pub(super) set: Vec<usize>,
}

/// What a page gains, which is an estimate: nothing but round trips is counted.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    pub(super) trips: f64,
    pub(super) today_ms: f64,
    pub(super) planned_ms: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Pop {
    pub(super) name: String,
    pub(super) city: String,
    pub(super) country: String,
    pub(super) is_new: bool,
    /// The part of demand that it serves.
    pub(super) share: f64,
    /// What it costs, itself and what it sends: of those that there are, today; of a new one, what it adds.
    pub(super) cost: f64,
    /// With it and those before it.
    pub(super) mean_ms: Option<f64>,
    pub(super) gain_ms: Option<f64>,
    pub(super) gain_ms_per_100: Option<f64>,
    pub(super) loss: Option<Loss>,
}

/// What it would be without.
#[derive(Debug, Serialize)]
pub(super) struct Loss {
    pub(super) mean_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) within_50_ms: f64,
    pub(super) busiest: String,
    pub(super) busiest_share: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Next {
    pub(super) name: String,
    pub(super) city: String,
    #[serde(flatten)]
    pub(super) served: Served,
    pub(super) gain_ms: Option<f64>,
    pub(super) cost: f64,
    pub(super) gain_ms_per_100: Option<f64>,
}

/// A public network.
#[derive(Debug, Serialize)]
pub(super) struct Other {
    pub(super) name: String,
    pub(super) as_of: String,
    pub(super) source: String,
    pub(super) cities: usize,
    pub(super) mean_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) within_50_ms: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Priced {
    pub(super) as_of: String,
    pub(super) source: String,
    pub(super) currency: String,
}

fn per_100(gain: Option<f64>, cost: f64) -> Option<f64> {
    gain.filter(|_| cost > 0.005).map(|gain| gain / cost * 100.0)
}

impl Report {
    pub(super) fn new(args: &PlanArgs, gathered: &Gathered, prices: &Prices) -> Result<Report, Failure> {
        let problem = &gathered.problem;
        let kept = problem.kept().to_vec();
        let base_cost = problem.cost(&kept);
        let with = |added: &[usize]| kept.iter().chain(added).copied().collect::<Vec<usize>>();
        let name = |offer: &usize| gathered.offers[*offer].place.name.clone();
        let served = |set: &[usize]| {
            problem.coverage(set).map(|coverage| Served::of(coverage, gathered.measured_share(set)))
        };
        let nothing = || Failure::new("nobody asks for anything", "the shares are all 0");
        let none_nearer = || {
            let message = "none of the places is nearer to anybody than the PoPs that there are";
            Failure::new(message, "name others by --places")
        };

        let today = match &gathered.origin {
            _ if !kept.is_empty() => served(&kept).map(|served| {
                let what = format!("{} PoP{}", kept.len(), if kept.len() == 1 { "" } else { "s" });
                Today { what, served, cost: Some(base_cost) }
            }),
            Some(origin) => Coverage::of(gathered.trips_to(&[origin.point])).map(|coverage| {
                let what = format!("all from {} ({})", origin.city, origin.name);
                Today { what, served: Served::of(coverage, 0.0), cost: None }
            }),
            None => None,
        };

        // The best set of each size.
        let left = gathered.offers.len() - kept.len();
        let mut before = today.as_ref().map(|today| today.served.mean_ms);
        let mut cost_before = 0.0;
        let mut means: Vec<f64> = before.filter(|_| !kept.is_empty()).into_iter().collect();
        let (mut steps, mut sets) = (Vec::new(), Vec::new());
        for count in 1..=usize::from(args.up_to).min(left) {
            let choice = best(&gathered.grouped, &Limit { count, budget: None });
            if choice.added.len() < count {
                break;
            }
            let added = problem.order(&choice.added);
            let served = served(&with(&added)).ok_or_else(nothing)?;
            let cost = problem.cost(&with(&added)) - base_cost;
            let gain_ms = before.map(|before| before - served.mean_ms);
            means.push(served.mean_ms);
            steps.push(Step {
                added: added.iter().map(name).collect(),
                gain_ms,
                gain_ms_per_100: per_100(gain_ms, cost - cost_before),
                cost,
                is_knee: false,
                is_proven_best: choice.is_proven,
                served: served.clone(),
            });
            sets.push(choice);
            (before, cost_before) = (Some(served.mean_ms), cost);
        }
        let without = usize::from(!kept.is_empty());
        let bend =
            knee(&means).and_then(|index| index.checked_sub(without)).filter(|index| *index < steps.len());
        if let Some(index) = bend {
            steps[index].is_knee = true;
        }

        let (choice, reason) = match (args.budget, args.pops) {
            (None, None) => {
                let index = bend.unwrap_or_else(|| steps.len().saturating_sub(1).min(2));
                let reason = if bend.is_some() { "up to the knee" } else { "no knee: at most 3 new" };
                (sets.get(index).cloned().ok_or_else(none_nearer)?, reason.to_owned())
            }
            (budget, pops) => {
                let limit = Limit { count: pops.map_or(COUNT_MAX, usize::from), budget };
                let amount =
                    budget.map(|budget| format!("for at most {budget:.0} {} a month", prices.currency));
                let count = pops.map(|pops| format!("at most {pops} new"));
                let reason: Vec<String> = count.into_iter().chain(amount).collect();
                (best(&gathered.grouped, &limit), reason.join(", "))
            }
        };
        let added = problem.order(&choice.added);
        let set = with(&added);
        if set.is_empty() {
            return Err(Failure::new(
                format!(
                    "no PoP can be had for {:.0} {} a month",
                    args.budget.unwrap_or(0.0),
                    prices.currency
                ),
                "raise --budget, or name cheaper places by --places or --prices",
            ));
        }
        let planned = served(&set).ok_or_else(nothing)?;
        let page = today.as_ref().map(|today| Page {
            trips: args.trips,
            today_ms: today.served.mean_ms * args.trips,
            planned_ms: planned.mean_ms * args.trips,
        });
        let plan = Plan {
            reason,
            pops: Report::pops(gathered, &added, &set, today.as_ref()),
            cost: problem.cost(&set) - base_cost,
            is_proven_best: choice.is_proven,
            served: planned,
            page,
            set,
        };

        let from = today.as_ref().map(|today| today.served.mean_ms);
        let mut next: Vec<Next> = (kept.len()..gathered.offers.len())
            .filter_map(|offer| {
                let served = served(&with(&[offer]))?;
                let cost = problem.cost(&with(&[offer])) - base_cost;
                let gain_ms = from.map(|from| from - served.mean_ms);
                let city = gathered.offers[offer].place.city.clone();
                Some(Next {
                    name: name(&offer),
                    city,
                    gain_ms,
                    cost,
                    gain_ms_per_100: per_100(gain_ms, cost),
                    served,
                })
            })
            .collect();
        next.sort_by(|a, b| a.served.mean_ms.total_cmp(&b.served.mean_ms).then(a.name.cmp(&b.name)));
        next.truncate(NEXT_SHOWN);

        let others = networks().into_iter().filter_map(|network| {
            let coverage = Coverage::of(gathered.trips_to(&network.points))?;
            Some(Other {
                name: network.name.to_owned(),
                as_of: network.as_of.to_owned(),
                source: network.source.to_owned(),
                cities: network.points.len(),
                mean_ms: coverage.mean_ms,
                p95_ms: coverage.p95_ms,
                within_50_ms: coverage.near,
            })
        });
        Ok(Report {
            demand: gathered.demand.clone(),
            round_trips: RoundTrips {
                estimate: format!(
                    "{:.0} ms and 1 ms per {:.0} km, as the router estimates",
                    router::estimate::PRIOR_MS,
                    router::estimate::PRIOR_KM_PER_MS
                ),
                measured: gathered.measured.clone(),
            },
            today,
            steps,
            plan,
            next,
            networks: others.collect(),
            prices: Priced {
                as_of: prices.as_of.clone(),
                source: prices.source.clone(),
                currency: prices.currency.clone(),
            },
            attribution: gathered.attribution.clone(),
            warnings: gathered.warnings.clone(),
        })
    }

    fn pops(gathered: &Gathered, added: &[usize], set: &[usize], today: Option<&Today>) -> Vec<Pop> {
        let problem = &gathered.problem;
        let (shares, losses) = (problem.shares(set), problem.losses(set));
        let kept = set.len() - added.len();
        let mut built = set[..kept].to_vec();
        let mut before = today.map(|today| today.served.mean_ms);
        let mut costs = problem.costs(&built);
        let mut rows = Vec::new();
        for (index, offer) in set.iter().enumerate() {
            let place = &gathered.offers[*offer].place;
            let is_new = index >= kept;
            if is_new {
                let cost_before = problem.cost(&built);
                built.push(*offer);
                costs.push(problem.cost(&built) - cost_before);
            }
            let mean_ms = problem.coverage(&built).map(|coverage| coverage.mean_ms).filter(|_| is_new);
            let gain_ms = before.zip(mean_ms).map(|(before, after)| before - after);
            let cost = costs[index];
            before = mean_ms.or(before);
            let name = |offer: usize| gathered.offers[offer].place.name.clone();
            let loss =
                losses[index].coverage.zip(losses[index].busiest).map(|(coverage, (busiest, share))| Loss {
                    mean_ms: coverage.mean_ms,
                    p95_ms: coverage.p95_ms,
                    within_50_ms: coverage.near,
                    busiest: name(busiest),
                    busiest_share: share,
                });
            rows.push(Pop {
                name: place.name.clone(),
                city: place.city.clone(),
                country: place.country.to_owned(),
                is_new,
                share: shares[index],
                cost,
                mean_ms,
                gain_ms,
                gain_ms_per_100: per_100(gain_ms, cost),
                loss,
            });
        }
        rows
    }
}

impl Served {
    fn of(coverage: Coverage, measured: f64) -> Served {
        Served { mean_ms: coverage.mean_ms, p95_ms: coverage.p95_ms, within_50_ms: coverage.near, measured }
    }

    /// Whether it is measured, in a word or two.
    pub(super) fn basis(&self) -> String {
        match self.measured {
            share if share < 0.0005 => "estimated".to_owned(),
            share if share > 0.9995 => "measured".to_owned(),
            share => format!("{:.0} % measured, the rest estimated", share * 100.0),
        }
    }
}
