"""Holds what `router::load` makes of synthetic instances against the optimum of the linear program (scipy's HiGHS).

Usage: load.py PROGRAM [ROUNDS [SEED]]. `excess_percent`: demand above any PoP's capacity; `cost_ratio`: mean ms of our plan ÷ the
optimum's; each is the worst of all rounds. `free_ms` is without capacities.
"""
import random
import subprocess
import sys

import numpy
from scipy.optimize import linprog
from scipy.sparse import lil_matrix


def read(text):
    capacity, towns, took = 0, [], 0
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "capacity":
            capacity = float(rest)
        elif kind == "took":
            took = int(rest)
        else:
            costs, shares = (dict((int(pop), float(number)) for pop, number in (pair.split(":") for pair in part.split(","))) for part in rest.split(" "))
            towns.append((float(kind), costs, shares))
    return capacity, towns, took


def optimum(capacity, towns):
    """Mean ms of the best plan: for each town, which share goes to which PoP."""
    pops = len(towns[0][1])
    cost = numpy.array([demand * costs[pop] for demand, costs, _ in towns for pop in range(pops)])
    whole, room = lil_matrix((len(towns), len(cost))), lil_matrix((pops, len(cost)))
    for town, (demand, _, _) in enumerate(towns):
        for pop in range(pops):
            whole[town, town * pops + pop] = 1
            room[pop, town * pops + pop] = demand
    return linprog(cost, A_ub=room.tocsr(), b_ub=numpy.full(pops, capacity), A_eq=whole.tocsr(), b_eq=numpy.ones(len(towns)), method="highs").fun


def main(program, rounds=3, seed=None):
    seed = int(seed) if seed else random.SystemRandom().getrandbits(31)
    worst_ratio = worst_excess = slowest = 0
    print(f"seed {seed}\n{'round':>5} {'free ms':>8} {'optimum':>8} {'ours':>8} {'ratio':>7} {'excess %':>9} {'took ms':>8}")
    for index in range(int(rounds)):
        text = subprocess.run([program, "load", str(seed + index)], check=True, capture_output=True, text=True).stdout
        capacity, towns, took = read(text)
        loads = [0.0] * len(towns[0][1])
        ours = free = 0
        for demand, costs, shares in towns:
            free += demand * min(costs.values())
            for pop, share in shares.items():
                loads[pop] += demand * share
                ours += demand * share * costs[pop]
        best = optimum(capacity, towns)
        excess = 100 * sum(max(0, load - capacity) for load in loads)
        print(f"{index:>5} {free:>8.2f} {best:>8.2f} {ours:>8.2f} {ours / best:>7.4f} {excess:>9.3f} {took:>8}")
        worst_ratio, worst_excess, slowest = max(worst_ratio, ours / best), max(worst_excess, excess), max(slowest, took)
    print(f"RESULT cost_ratio={worst_ratio:.4f} excess_percent={worst_excess:.3f} took_ms={slowest}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
