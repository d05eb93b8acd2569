"""Throughput on one and two cores, and what a hit costs with few and with very many objects stored.

The objects are about 100 bytes. They are asked for uniformly at random, each as likely as any other, which is the worst
case for the processor's caches; beside it, only the first thousand of them are, which leaves what the store itself
costs when it holds more. Throughput is wall-clock: with two cores in all, the
load generator takes its part of them.
"""
import argparse

import rig as bench
import servers

CONNECTIONS = 32
BODY = "x" * 100
COUNTS = {"1e3": 10**3, "1e5": 10**5, "1e7": 10**7}


def main(options):
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = 1 if options.quick else 4

    def measure(rig):
        figures = throughput(rig, rounds, seconds)
        costs = {name: by_count(rig, name, rounds, seconds)
                 for name in (list(COUNTS)[:2] if options.quick else COUNTS)}
        print(f"\nCPU µs per hit by objects stored, {rounds} rounds of {seconds} s; median (lowest–highest)")
        bench.table(["objects", "any of them", "of the first thousand"],
                    [(name, bench.spread(any_of), bench.spread(few)) for name, (any_of, few) in costs.items()])
        medians = {name: bench.median(any_of) for name, (any_of, _) in costs.items()}
        few_medians = [bench.median(few) for _, few in costs.values()]
        figures |= {f"cost_{name}": f"{cost:.2f}" for name, cost in medians.items()}
        bench.result(**figures, flat_ratio=f"{medians[list(costs)[-1]] / medians['1e3']:.3f}",
                     flat_ratio_of_thousand=f"{few_medians[-1] / few_medians[0]:.3f}")

    bench.run(measure)


def throughput(rig, rounds, seconds):
    """Hits per second of a 10 KiB object with the server on one core and on two."""
    body = servers.body_of(servers.SIZES["10k"])
    rig.write("root/10k", body)
    origin = servers.nginx_files(rig, rig.path("root"))
    # With more than two cores the load has cores of its own; with two it shares them.
    load_cores = set(bench.CORES[2:]) or set(bench.CORES)
    rows, figures = [], {}
    for workers in (1, 2):
        cores = {bench.SERVER_CORE} if workers == 1 else servers.both_cores()
        rivals = [servers.nginx_cache(rig, origin, cores, workers), servers.perigee(rig, origin, cores)]
        rates = {server: [] for server in rivals}
        spent = {server: [] for server in rivals}
        for server in rivals:
            bench.check_body(server, "/10k", body)
            bench.wrk(server, "/10k", 1, CONNECTIONS, cores=load_cores)
        for _ in range(rounds):
            for server in rivals:
                cost, load = bench.cost(server, "/10k", seconds, 2 * CONNECTIONS, len(body), threads=2,
                                        cores=load_cores if workers == 2 else {bench.LOAD_CORE})
                rates[server].append(load.requests / load.seconds)
                spent[server].append(cost)
        for server in rivals:
            bench.check_body(server, "/10k", body)
            rows.append((server.name, workers, bench.spread(rates[server], 0), bench.spread(spent[server])))
            rig.stop(server)
        figures[f"throughput_{workers}"] = f"{bench.median(rates[rivals[1]]):.0f}"
    print(f"Hits per second of 10 KiB, {rounds} rounds of {seconds} s; median (lowest–highest)")
    bench.table(["server", "cores", "hits per second", "µs of CPU per hit"], rows)
    return figures


def by_count(rig, name, rounds, seconds):
    """CPU µs per hit in each round, with `COUNTS[name]` objects stored: of any of them, and of the first thousand."""
    count = COUNTS[name]
    origin = servers.nginx_words(rig, BODY)
    # The log goes nowhere here: ten million fills would write gigabytes.
    server = servers.perigee(rig, origin, memory="12GiB", log=False)
    bench.say(f"storing {count} objects")
    servers.store_objects(server, "o", count)
    # All are there: a second, random look at them reaches the origin for none.
    asked = servers.requests_of(origin)
    servers.ask_objects(server, "o", count, 1)
    costs = {count: [], COUNTS["1e3"]: []} if count > COUNTS["1e3"] else {count: []}
    for turn in range(rounds):
        for among, values in costs.items():
            cost, _ = servers.ask_objects(server, "o", among, seconds, seed=turn + 1)
            values.append(cost)
            bench.say(f"{name} round {turn + 1}, among {among}: {cost:.2f} µs")
    misses = servers.requests_of(origin) - asked - 1
    if misses > count / 1000:
        raise bench.CannotMeasure(f"{misses} requests were no hits: not all of {count} objects are stored")
    bench.check_body(server, f"/o/{count}", BODY.encode())
    rig.stop(server)
    rig.stop(origin)
    return costs[count], costs[COUNTS["1e3"]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/scale.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: two rounds of one second, no 10^7 objects")
    parser.add_argument("--rounds", type=int, help="rounds per figure (5)")
    main(parser.parse_args())
