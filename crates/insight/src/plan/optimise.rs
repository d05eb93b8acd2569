//! The best places to add: those with the least mean round trip, at most so many, for at most so much.
//!
//! First a choice by greed, made better by adding and swapping while that helps. Then the whole tree of choices is searched for a better
//! one, and branches are cut off that cannot have one: what several places bring together is never more than the sum of what each
//! brings alone (the gain is submodular; Cornuéjols, Fisher and Nemhauser 1977). For up to [`EXACT_MAX`] places the search always comes
//! to its end; beyond, it ends after [`WORK_MAX`] steps with the best that was found, and says so.
//!
//! The same problem has the same answer, always: among equals the lower numbers win.

use super::Problem;

/// Up to so many places the choice is always proven the best.
pub const EXACT_MAX: usize = 4;
/// Places that are added at most.
pub const COUNT_MAX: usize = 32;
/// Comparisons of a market with a place, after which a search for more than [`EXACT_MAX`] ends: a second or less.
pub const WORK_MAX: u64 = 200_000_000;
/// What counts as better, in ms: more than rounding can do.
const BETTER_MS: f64 = 1e-9;

/// What may be added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// How many places; at most [`COUNT_MAX`].
    pub count: usize,
    /// What the cost per month may grow by; `None` is no bound.
    pub budget: Option<f64>,
}

/// What to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The places, ascending.
    pub added: Vec<usize>,
    /// Whether nothing better exists; else nothing better was found.
    pub is_proven: bool,
}

/// The best places to add to those that are kept. See the module's text.
pub fn best(problem: &Problem, limit: &Limit) -> Choice {
    best_within(problem, limit, WORK_MAX)
}

/// As [`best`], with another bound than [`WORK_MAX`].
pub(super) fn best_within(problem: &Problem, limit: &Limit, work_max: u64) -> Choice {
    let count = limit.count.min(COUNT_MAX).min(problem.places() - problem.kept.len());
    let mut search = Search::new(problem, Limit { count, ..*limit }, work_max);
    search.incumbent();
    let rest: Vec<usize> = (0..problem.places()).filter(|place| !problem.kept.contains(place)).collect();
    let current = search.start.clone();
    search.descend(&mut Vec::new(), &current, &rest);
    let is_proven = search.work < search.work_max;
    search.best.sort_unstable();
    Choice { added: search.best, is_proven }
}

struct Search<'p> {
    problem: &'p Problem,
    limit: Limit,
    /// Round trip of each market to the nearest place that is kept; to beyond the farthest of all when none is.
    start: Vec<f64>,
    /// What all may cost together.
    budget: Option<f64>,
    /// What sending costs at least, whoever sends.
    sending_min: f64,
    best: Vec<usize>,
    best_ms: f64,
    work: u64,
    work_max: u64,
}

impl<'p> Search<'p> {
    fn new(problem: &'p Problem, limit: Limit, work_max: u64) -> Self {
        let extreme = |market: usize| {
            let all = problem.ms.iter().map(|ms| ms[market]);
            let kept = problem.kept.iter().map(|place| problem.ms[*place][market]);
            match problem.kept.is_empty() {
                // More than counts as better: a single place is better than none.
                true => all.fold(0.0, f64::max) + 2.0 * BETTER_MS,
                false => kept.fold(f64::INFINITY, f64::min),
            }
        };
        let start: Vec<f64> = (0..problem.demand.len()).map(extreme).collect();
        let per_gb_min = problem.costs.iter().map(|cost| cost.per_gb).fold(f64::INFINITY, f64::min);
        let gb: f64 = problem.gb.iter().sum();
        let best_ms = mean(problem, &start);
        Search {
            problem,
            limit,
            budget: limit.budget.map(|budget| budget + problem.cost(&problem.kept)),
            sending_min: if gb > 0.0 { gb * per_gb_min } else { 0.0 },
            start,
            best: Vec::new(),
            best_ms,
            work: 0,
            work_max: if limit.count <= EXACT_MAX { u64::MAX } else { work_max },
        }
    }

    fn with(&self, added: &[usize]) -> Vec<usize> {
        self.problem.kept.iter().chain(added).copied().collect()
    }

    fn is_affordable(&self, added: &[usize]) -> bool {
        self.budget
            .is_none_or(|budget| added.is_empty() || self.problem.cost(&self.with(added)) <= budget + 1e-9)
    }

    fn month(&self, added: &[usize]) -> f64 {
        self.with(added).iter().map(|place| self.problem.costs[*place].month).sum()
    }

    fn mean_with(&self, added: &[usize]) -> f64 {
        let nearest = |market: usize| {
            added.iter().map(|place| self.problem.ms[*place][market]).fold(self.start[market], f64::min)
        };
        (0..self.start.len()).map(|market| self.problem.demand[market] * nearest(market)).sum()
    }

    fn consider(&mut self, added: &[usize], mean_ms: f64) -> bool {
        let is_better = mean_ms < self.best_ms - BETTER_MS && self.is_affordable(added);
        if is_better {
            (self.best, self.best_ms) = (added.to_vec(), mean_ms);
        }
        is_better
    }

    // --- By greed ---

    fn incumbent(&mut self) {
        for per_cost in [false, true] {
            if per_cost && self.budget.is_none() {
                break;
            }
            let mut added = Vec::new();
            while added.len() < self.limit.count {
                let Some(place) = self.greediest(&added, per_cost) else { break };
                added.push(place);
            }
            let mean_ms = self.mean_with(&added);
            self.consider(&added, mean_ms);
        }
        while self.swap() {}
    }

    /// The affordable place that brings most, or most for its price.
    fn greediest(&self, added: &[usize], per_cost: bool) -> Option<usize> {
        let before = self.mean_with(added);
        let cost_before = self.problem.cost(&self.with(added));
        let mut found: Option<(f64, usize)> = None;
        for place in (0..self.problem.places())
            .filter(|place| !self.problem.kept.contains(place) && !added.contains(place))
        {
            let more: Vec<usize> = added.iter().copied().chain([place]).collect();
            let gain = before - self.mean_with(&more);
            if gain <= BETTER_MS || !self.is_affordable(&more) {
                continue;
            }
            let price = (self.problem.cost(&self.with(&more)) - cost_before).max(0.01);
            let worth = if per_cost { gain / price } else { gain };
            if found.is_none_or(|(most, _)| worth > most) {
                found = Some((worth, place));
            }
        }
        found.map(|(_, place)| place)
    }

    /// One place more, or another one in the place of one: the best such step. Whether there was any.
    fn swap(&mut self) -> bool {
        let from = self.best.clone();
        let mut steps: Vec<Option<usize>> = (0..from.len()).map(Some).collect();
        if from.len() < self.limit.count {
            steps.push(None);
        }
        let mut improved = false;
        for out in steps {
            for place in (0..self.problem.places())
                .filter(|place| !self.problem.kept.contains(place) && !from.contains(place))
            {
                let left =
                    from.iter().enumerate().filter(|(index, _)| Some(*index) != out).map(|(_, place)| *place);
                let added: Vec<usize> = left.chain([place]).collect();
                let mean_ms = self.mean_with(&added);
                improved |= self.consider(&added, mean_ms);
            }
        }
        improved
    }

    // --- By branch and bound ---

    /// Looks through all choices that have `chosen` and others of `rest`. `current`: round trips with `chosen`.
    fn descend(&mut self, chosen: &mut Vec<usize>, current: &[f64], rest: &[usize]) {
        let left = self.limit.count - chosen.len();
        if left == 0 || self.work >= self.work_max {
            return;
        }
        self.work += (rest.len() * current.len()) as u64;
        let mean_ms = mean(self.problem, current);
        let room = self.budget.map(|budget| budget - self.sending_min - self.month(chosen));
        let fits = |place: usize| room.is_none_or(|room| self.problem.costs[place].month <= room + 1e-9);
        let mut gains: Vec<(f64, usize)> = (rest.iter().filter(|place| fits(**place)))
            .map(|place| (self.gain(*place, current), *place))
            .filter(|(gain, _)| *gain > BETTER_MS)
            .collect();
        gains.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let places: Vec<usize> = gains.iter().map(|(_, place)| *place).collect();
        for index in 0..gains.len() {
            let bound = self.bound(&gains[index..], left, room);
            if mean_ms - bound >= self.best_ms - BETTER_MS {
                return;
            }
            let (gain, place) = gains[index];
            chosen.push(place);
            self.consider(chosen, mean_ms - gain);
            if left > 1 {
                let next: Vec<f64> =
                    current.iter().zip(&self.problem.ms[place]).map(|(now, ms)| now.min(*ms)).collect();
                self.descend(chosen, &next, &places[index + 1..]);
            }
            chosen.pop();
        }
    }

    fn gain(&self, place: usize, current: &[f64]) -> f64 {
        let saved = self.problem.ms[place].iter().zip(current).map(|(ms, now)| (now - ms).max(0.0));
        saved.zip(&self.problem.demand).map(|(saved, demand)| saved * demand).sum()
    }

    /// No `left` of these, for no more than `room`, bring more than this together. `gains` descend.
    fn bound(&self, gains: &[(f64, usize)], left: usize, room: Option<f64>) -> f64 {
        let by_count: f64 = gains.iter().take(left).map(|(gain, _)| gain).sum();
        let Some(mut room) = room else { return by_count };
        let mut by_worth: Vec<(f64, f64)> =
            gains.iter().map(|(gain, place)| (*gain, self.problem.costs[*place].month)).collect();
        by_worth.sort_by(|a, b| (b.0 * a.1).total_cmp(&(a.0 * b.1)));
        let mut by_budget = 0.0;
        for (gain, month) in by_worth {
            if month > room {
                // A part of the last one, as if places could be cut.
                by_budget += gain * (room / month).max(0.0);
                break;
            }
            by_budget += gain;
            room -= month;
        }
        by_count.min(by_budget)
    }
}

fn mean(problem: &Problem, ms: &[f64]) -> f64 {
    ms.iter().zip(&problem.demand).map(|(ms, demand)| ms * demand).sum()
}
