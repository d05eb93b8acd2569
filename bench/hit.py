"""CPU time per cache hit: Perigee against nginx `proxy_cache`, in alternation on one pinned core.

Wall-clock figures are shown beside and never judged: the load generator is often the slower of the two.
"""
import argparse

import rig as bench
import servers
from servers import SIZES

CONNECTIONS = 32


def main(options):
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = 1 if options.quick else 4

    def measure(rig):
        bodies = {f"/{name}": servers.body_of(size) for name, size in SIZES.items()}
        for path, body in bodies.items():
            rig.write(f"root{path}", body)
        root = rig.path("root")
        origin = servers.nginx_files(rig, root)
        theirs, ours = servers.nginx_cache(rig, origin), servers.perigee(rig, origin)
        rows, ratios = [], {}
        for name, size in SIZES.items():
            costs = alternate(name, origin, [theirs, ours], bodies, rounds, seconds)
            rows += [row(name, server, *costs[server]) for server in (theirs, ours)]
            ratios[name] = bench.median(costs[ours][0]) / bench.median(costs[theirs][0])
        rig.stop(theirs)
        rig.stop(ours)
        for start in others(rig, origin, root):
            server = start()
            for name in SIZES:
                costs = alternate(name, origin, [server], bodies, min(rounds, 2), seconds)
                rows.append(row(name, server, *costs[server]))
            rig.stop(server)
        print(f"CPU µs per hit, {rounds} rounds of {seconds} s, {CONNECTIONS} connections, "
              f"server on core {bench.SERVER_CORE}, wrk on core {bench.LOAD_CORE}; median (lowest–highest)")
        order = list(SIZES)
        bench.table(["server", "size", "µs of CPU per hit", "hits per second"],
                    [cells for _, cells in sorted(rows, key=lambda row: order.index(row[0]))])
        bench.result(**{f"ratio_{name}": f"{ratio:.3f}" for name, ratio in ratios.items()})

    bench.run(measure)


def alternate(name, origin, rivals, bodies, rounds, seconds):
    """Loads each rival in turn, round after round: rival → (µs per hit, hits per second), one each per round."""
    path = f"/{name}"
    costs = {server: ([], []) for server in rivals}
    for server in rivals:
        bench.check_body(server, path, bodies[path])
        bench.wrk(server, path, 1, CONNECTIONS)
    asked = servers.requests_of(origin)
    for turn in range(rounds):
        for server in rivals:
            cost, load = bench.cost(server, path, seconds, CONNECTIONS, SIZES[name])
            costs[server][0].append(cost)
            costs[server][1].append(load.requests / load.seconds)
            bench.say(f"{name} round {turn + 1}: {server.name} {cost:.2f} µs")
    for server in rivals:
        bench.check_body(server, path, bodies[path])
    if (misses := servers.requests_of(origin) - asked - 1) > 0:
        raise bench.CannotMeasure(f"{misses} of the requests for {path} were no hits: the origin got them")
    return costs


def row(name, server, costs, rates):
    return name, [server.name, name, bench.spread(costs), bench.spread(rates, 0)]


def others(rig, origin, root):
    """Starters of the servers shown beside the two that are compared."""
    yield lambda: servers.nginx_cache(rig, origin, sendfile=False)
    yield lambda: servers.nginx_static(rig, root)
    if servers.installed("varnishd"):
        yield lambda: servers.varnish(rig, origin)
    if servers.installed("haproxy"):
        yield lambda: servers.haproxy(rig, origin)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/hit.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: two rounds of one second")
    parser.add_argument("--rounds", type=int, help="rounds per size and server (5)")
    main(parser.parse_args())
