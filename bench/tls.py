"""CPU time per cache hit of 10 KiB over TLS, by HTTP/1.1 and HTTP/2, and per full handshake: Perigee against nginx
`proxy_cache`, in alternation on one pinned core. By HTTP/3 against Caddy, and against its own HTTP/2.

A handshake is a whole connection for one hit of 1 KiB: connect, full TLS 1.3 handshake, request, close. Both servers have the
same ECDSA certificate. Wall-clock figures are shown beside and never judged.
"""
import argparse

import rig as bench
import servers

CONNECTIONS = 32
H2_CONNECTIONS, H2_STREAMS = 8, 16
PATH, SIZE = "/10k", servers.SIZES["10k"]
SMALL_PATH, SMALL_SIZE = "/1k", servers.SIZES["1k"]


def by_http1(server, seconds):
    return bench.cost(server, PATH, seconds, CONNECTIONS, SIZE)


def by_http2(server, seconds):
    return bench.cost(server, PATH, seconds, H2_CONNECTIONS, SIZE, by=bench.h2load, streams=H2_STREAMS)


def by_http3(server, seconds):
    return bench.cost(server, PATH, seconds, H2_CONNECTIONS, SIZE, by=bench.h3load, streams=H2_STREAMS)


def by_handshake(server, seconds):
    return bench.cost(server, SMALL_PATH, seconds, CONNECTIONS, SMALL_SIZE, headers=["Connection: close"])


KINDS = {"h1": ("HTTP/1.1, keep-alive", by_http1), "h2": ("HTTP/2", by_http2), "handshake": ("full handshake", by_handshake),
         "h3": ("HTTP/3", by_http3)}


def main(options):
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = 1 if options.quick else 4

    def measure(rig):
        if not servers.installed("h2load"):
            raise bench.CannotMeasure("h2load is not installed")
        bodies = {path: servers.body_of(size) for path, size in ((PATH, SIZE), (SMALL_PATH, SMALL_SIZE))}
        for path, body in bodies.items():
            rig.write(f"root{path}", body)
        origin = servers.nginx_files(rig, rig.path("root"))
        nginx, ours = servers.nginx_cache(rig, origin, tls=True), servers.perigee(rig, origin, tls=True)
        # Nothing else here speaks HTTP/3; without it, ours is shown alone.
        caddy = servers.caddy_files(rig, rig.path("root")) if servers.installed("caddy") else None
        for server in filter(None, (nginx, ours, caddy)):
            for path, body in bodies.items():
                bench.check_body(server, path, body)
        asked = servers.requests_of(origin)
        rows, figures, ours_us = [], {}, {}
        for key, (kind, load) in KINDS.items():
            theirs = caddy if key == "h3" else nginx
            costs = {server: [] for server in filter(None, (theirs, ours))}
            rates = {server: [] for server in costs}
            for server in costs:
                load(server, 1)
            for turn in range(rounds):
                for server in costs:
                    cost, done = load(server, seconds)
                    costs[server].append(cost)
                    rates[server].append(done.requests / seconds)
                    bench.say(f"{kind}, round {turn + 1}: {server.name} {cost:.2f} µs")
            rows += [(server.name, kind, bench.spread(costs[server]), bench.spread(rates[server], 0)) for server in costs]
            ours_us[key] = bench.median(costs[ours])
            if theirs:
                figures[f"{key}_ratio"] = f"{ours_us[key] / bench.median(costs[theirs]):.3f}"
        figures["h3_over_h2"] = f"{ours_us['h3'] / ours_us['h2']:.2f}"
        for server in (nginx, ours):
            for path, body in bodies.items():
                bench.check_body(server, path, body)
        # One asks for the count itself, and one is HTTP/3's first, whose certificate wants a name for a host.
        if (misses := servers.requests_of(origin) - asked - 2) > 0:
            raise bench.CannotMeasure(f"{misses} requests were no hits: the origin got them")
        print(f"CPU µs per request, {rounds} rounds of {seconds} s, server on core {bench.SERVER_CORE}, load on core "
              f"{bench.LOAD_CORE}; HTTP/1.1: wrk, {CONNECTIONS} connections; HTTP/2: h2load, {H2_CONNECTIONS} × "
              f"{H2_STREAMS} streams; HTTP/3: the same by h3load; median (lowest–highest)")
        bench.table(["server", "what", "µs of CPU per request", "requests per second"], rows)
        bench.result(**figures)

    bench.run(measure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/tls.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: two rounds of one second")
    parser.add_argument("--rounds", type=int, help="rounds per figure (5)")
    main(parser.parse_args())
