"""CPU time per cache hit of 10 KiB: Perigee with statistics against Perigee without, in alternation on one pinned core.

Both have their access log on, as in hit.py. Statistics are counted by the worker, and written down by the same process each second.

With `--sink`: the slowest hundredth of the hits while access log and traces go to a collector that takes connections and never says a word,
against hits of an edge without either, and of one whose log goes to a file.
"""
import argparse
import re
import socket

import rig as bench
import servers

CONNECTIONS = 32
SIZE = servers.SIZES["10k"]
# Times two seconds of load after which queues of some MiB must be full.
FILLING_MAX = 60


def p99_ms(server, seconds):
    """What 99 % of the hits take at most, in ms, as wrk says."""
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "--latency", server.url("/10k")]
    text = bench.run_load(argv)
    bench.Load(text, server)
    found = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", text)
    if not found:
        raise bench.CannotMeasure(f"wrk printed no 99 %:\n{text}")
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def sinks(options):
    rounds = options.rounds or (2 if options.quick else 10)
    seconds = 1 if options.quick else 4

    def measure(rig):
        body = servers.body_of(SIZE)
        rig.write("root/10k", body)
        origin = servers.nginx_files(rig, rig.path("root"))
        # The kernel takes connections for it, and nobody reads them.
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(64)
            to = f"http://127.0.0.1:{silent.getsockname()[1]}"
            rivals = {
                "none": servers.perigee(rig, origin, log=False),
                "file": servers.perigee(rig, origin),
                "dead": servers.perigee(rig, origin, log=False, edge=f'access_log = "{to}/"\n[edge.traces]\nto = "{to}/"\none_in = 5'),
            }
            times = {name: [] for name in rivals}
            for server in rivals.values():
                bench.check_body(server, "/10k", body)
                bench.wrk(server, "/10k", 1, CONNECTIONS)
            dropped = lambda: {
                "log lines": servers.metric(rivals["dead"], "perigee_log_lines_dropped_total"),
                "spans": servers.metric(rivals["dead"], "perigee_spans_total", end="dropped"),
            }
            # Until every queue before the silent collector is full.
            for _ in range(FILLING_MAX):
                if all(dropped().values()):
                    break
                bench.wrk(rivals["dead"], "/10k", 2, CONNECTIONS)
            else:
                raise bench.CannotMeasure(f"the silent collector had nothing dropped: {dropped()}")
            for turn in range(rounds):
                for name in sorted(rivals, reverse=turn % 2 == 0):
                    times[name].append(p99_ms(rivals[name], seconds))
                    bench.say(f"round {turn + 1}: {name} {times[name][-1]:.3f} ms")
            lost = dropped()
        print(f"p99 of hits of 10 KiB, {rounds} rounds of {seconds} s, {CONNECTIONS} connections; median (lowest–highest)")
        bench.table(["access log and traces go to", "p99, ms"], [[name, bench.spread(times[name], 3)] for name in rivals])
        print(", ".join(f"{count:.0f} {what} dropped and counted" for what, count in lost.items()))
        ratio = lambda other: bench.median([dead / alive for dead, alive in zip(times["dead"], times[other])])
        bench.result(sink_p99_ratio=f"{ratio('none'):.3f}", over_file=f"{ratio('file'):.3f}")

    bench.run(measure)


def main(options):
    if options.sink:
        return sinks(options)
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
    parser.add_argument("--sink", action="store_true", help="p99 with a collector that is dead, against none")
    parser.add_argument("--rounds", type=int, help="rounds (10)")
    main(parser.parse_args())
