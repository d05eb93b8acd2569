"""How far the plans of `perigee plan` are from the optimum.

15 markets, drawn by a seed: countries of one or more continents, with shares as Zipf would have them. Each is planned for 1 to 8 PoPs. For up
to 4, all sets of the 109 places are tried here, one by one. For 5 to 8, of 40 places that are drawn too, HiGHS solves the p-median
problem as a mixed-integer program. And once with a budget, against all sets of up to 3. `worst_over_optimum`: the largest mean round trip
over that of the optimum, of all plans; `exact_4`: how many of the plans for up to 4 PoPs are as good as the optimum; `proven`: percent of
those for 5 to 8 that perigee itself calls proven; `estimates_marked`: how many of the texts say that they are estimates.
"""
import argparse
import itertools
import json
import os
import random
import subprocess
import tempfile
import time

import numpy as np
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_matrix

HERE = os.path.dirname(os.path.abspath(__file__))
MARKETS = [  # name, continents, countries
    ("Europe", "EU", 12), ("Europe, few", "EU", 4), ("North America", "NA", 6), ("South America", "SA", 8), ("Asia", "AS", 14),
    ("Africa", "AF", 16), ("Oceania and Asia", "OC AS", 12), ("Atlantic", "EU NA", 14), ("Pacific", "AS OC NA", 14),
    ("the Americas", "NA SA", 14), ("Europe and Africa", "EU AF", 18), ("world", "EU NA AS SA OC AF", 20),
    ("world, few", "EU NA AS SA OC AF", 6), ("world, other", "EU NA AS SA OC AF", 20), ("south", "SA AF OC", 16),
]


def main(options):
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)
    countries = {}
    with open(os.path.join(HERE, "../crates/insight/data/markets.txt")) as lines:
        for line in lines:
            if not line.startswith("#"):
                country, continent = line.split()[:2]
                countries.setdefault(continent, set()).add(country)
    with open(os.path.join(HERE, "../crates/insight/data/metros.txt")) as lines:
        metros = [line.split()[0] for line in lines if not line.startswith("#")]
    small_to = 3 if options.quick else 4
    large = (5,) if options.quick else (5, 6, 7, 8)
    worst, exact, small, proven, marked, begun = 1.0, 0, 0, [], 0, time.monotonic()
    print(f"seed {seed}")
    print(f"{'market':20} {'places':>6}  {'up to 4':>10}  {'5 to 8':>10}  {'budget':>10}")
    for name, continents, count in MARKETS[:3] if options.quick else MARKETS:
        known = sorted(country for continent in continents.split() for country in countries[continent])
        drawn = chance.sample(known, min(count, len(known)))
        shares = "".join(f"{country},{100 / (rank + 1):.2f}\n" for rank, country in enumerate(drawn))
        few = ",".join(chance.sample(metros, 40))
        with tempfile.TemporaryDirectory() as place:
            file = os.path.join(place, "shares.csv")
            with open(file, "w") as out:
                out.write(shares)
            # Up to 4 of all places.
            plan, problem = run(place, file, "--up-to", str(small_to))
            ratios = []
            for wanted, step in zip(brute(problem, small_to), plan["steps"]):
                ratios.append(problem.mean(step["added"]) / wanted)
                small += 1
                exact += ratios[-1] < 1 + 1e-9
                assert step["is_proven_best"], "up to 4 PoPs, each plan says that it is the best"
                assert abs(problem.mean(step["added"]) - step["mean_ms"]) < 1e-6, "the mean is that of the set"
            # 5 to 8 of some.
            plan, problem = run(place, file, "--up-to", str(max(large)), "--places", few)
            larger = []
            for pops in large:
                step = plan["steps"][pops - 1] if pops <= len(plan["steps"]) else None
                if step is None:
                    continue
                larger.append(problem.mean(step["added"]) / highs(problem, pops))
                proven.append(step["is_proven_best"])
            # With a budget, all sets of up to 3.
            budget = chance.randint(200, 700)
            plan, problem = run(place, file, "--up-to", "1", "--pops", "3", "--budget", str(budget))
            chosen = [pop["name"] for pop in plan["plan"]["pops"]]
            assert problem.month(chosen) <= budget + 1e-6, "the budget holds"
            within = problem.mean(chosen) / brute_budget(problem, budget)
            text = subprocess.run([os.environ["PERIGEE"], "plan", "--countries", file, "--up-to", "1"], capture_output=True, text=True, check=True).stdout
            marked += "Round trips are estimates" in text and "(estimated)" in text
        worst = max([worst, within] + ratios + larger)
        print(f"{name:20} {len(problem.demand):6}  {max(ratios):10.6f}  {max(larger, default=1):10.6f}  {within:10.6f}", flush=True)
    print(f"{time.monotonic() - begun:.0f} s")
    print(f"RESULT worst_over_optimum={worst:.6f} exact_4={exact} of_4={small} proven={100 * sum(proven) / max(1, len(proven)):.0f} estimates_marked={marked}")


class Problem:
    """What perigee has written by --problem-out."""

    def __init__(self, written):
        self.demand = np.array(written["demand"])
        self.ms = np.array([place["ms"] for place in written["places"]])
        self.months = np.array([place["month"] for place in written["places"]])
        self.index = {place["name"]: index for index, place in enumerate(written["places"])}

    def mean(self, names):
        return float(self.ms[[self.index[name] for name in names]].min(axis=0) @ self.demand)

    def month(self, names):
        return float(sum(self.months[self.index[name]] for name in names))


def run(place, file, *more):
    problem = os.path.join(place, "problem.json")
    command = [os.environ["PERIGEE"], "plan", "--countries", file, "--json", "--problem-out", problem, *more]
    plan = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    with open(problem) as text:
        return plan, Problem(json.load(text))


def brute(problem, to):
    """The least mean of all sets of each size."""
    ms, demand, count = problem.ms, problem.demand, len(problem.ms)
    best = [float((ms @ demand).min())] + [np.inf] * (to - 1)
    for size in range(1, to):
        for set_ in itertools.combinations(range(count - 1), size):
            rest = ms[set_[-1] + 1:]
            if len(rest):
                nearest = ms[list(set_)].min(axis=0)
                best[size] = min(best[size], float((np.minimum(nearest, rest) @ demand).min()))
    return best


def brute_budget(problem, budget):
    ms, demand, months, count = problem.ms, problem.demand, problem.months, len(problem.ms)
    best = min(float(ms[one] @ demand) for one in range(count) if months[one] <= budget)
    for size in (1, 2):
        for set_ in itertools.combinations(range(count - 1), size):
            left = budget - months[list(set_)].sum()
            fits = np.flatnonzero(months[set_[-1] + 1:] <= left + 1e-9) + set_[-1] + 1
            if len(fits):
                nearest = ms[list(set_)].min(axis=0)
                best = min(best, float((np.minimum(nearest, ms[fits]) @ demand).min()))
    return best


def highs(problem, pops):
    """The p-median problem: open exactly so many, give each market to an open one."""
    ms, demand = problem.ms, problem.demand
    sites, markets = ms.shape
    cost = np.concatenate([np.zeros(sites), (ms * demand).T.ravel()])
    rows, columns, values = [], [], []
    for market in range(markets):
        for site in range(sites):
            rows.append(market)
            columns.append(sites + market * sites + site)
            values.append(1.0)
    one_each = csr_matrix((values, (rows, columns)), shape=(markets, len(cost)))
    count = markets * sites
    rows = np.repeat(np.arange(count), 2)
    columns = np.stack([sites + np.arange(count), np.tile(np.arange(sites), markets)], axis=1).ravel()
    open_only = csr_matrix((np.tile([1.0, -1.0], count), (rows, columns)), shape=(count, len(cost)))
    so_many = csr_matrix((np.ones(sites), (np.zeros(sites), np.arange(sites))), shape=(1, len(cost)))
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(open_only, -np.inf, 0), LinearConstraint(so_many, pops, pops)]
    integrality = np.concatenate([np.ones(sites), np.zeros(count)])
    found = milp(cost, constraints=constraints, integrality=integrality, bounds=(0, 1), options={"mip_rel_gap": 0})
    assert found.status == 0, found.message
    return found.fun


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--seed", type=int, help="draw the same markets again")
    main(parser.parse_args())
