"""CPU time per cache hit of 10 KiB: Perigee with statistics against Perigee without, in alternation on one pinned core.

Both have their access log on, as in hit.py. Statistics are counted by the worker, and written down by the same process each second.
"""
import argparse

import rig as bench
import servers

CONNECTIONS = 32
SIZE = servers.SIZES["10k"]


def main(options):
    rounds = options.rounds or (2 if options.quick else 10)
    seconds = 1 if options.quick else 4

    def measure(rig):
        body = servers.body_of(SIZE)
        rig.write("root/10k", body)
        origin = servers.nginx_files(rig, rig.path("root"))
        rivals = {
            "without": servers.perigee(rig, origin, edge="statistics = false"),
            "with": servers.perigee(rig, origin),
        }
        costs = {name: [] for name in rivals}
        for server in rivals.values():
            bench.check_body(server, "/10k", body)
            bench.wrk(server, "/10k", 1, CONNECTIONS)
        for turn in range(rounds):
            # Whoever comes first in a round comes second in the next.
            for name in sorted(rivals, reverse=turn % 2 == 0):
                cost, _ = bench.cost(rivals[name], "/10k", seconds, CONNECTIONS, SIZE)
                costs[name].append(cost)
                bench.say(f"round {turn + 1}: {name} {cost:.2f} µs")
        for server in rivals.values():
            bench.check_body(server, "/10k", body)
        print(f"CPU µs per hit of 10 KiB, {rounds} rounds of {seconds} s, {CONNECTIONS} connections, "
              f"server on core {bench.SERVER_CORE}, wrk on core {bench.LOAD_CORE}; median (lowest–highest)")
        bench.table(["statistics", "µs of CPU per hit"],
                    [[name, bench.spread(costs[name])] for name in ("without", "with")])
        # Of each round, so that what changes on the machine between two rounds counts for neither.
        ratios = [with_ / without for with_, without in zip(costs["with"], costs["without"])]
        bench.result(stats_cost=f"{bench.median(ratios):.3f}", lowest=f"{min(ratios):.3f}", highest=f"{max(ratios):.3f}")

    bench.run(measure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/stats.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: two rounds of one second")
    parser.add_argument("--rounds", type=int, help="rounds (10)")
    main(parser.parse_args())
