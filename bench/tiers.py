"""What it costs to ask another edge, in CPU time of all edges together, and what a local hit costs on an edge that has others.

Perigee against itself, in alternation: an edge alone, and edges that act as one cache. All edges share one core, wrk has the
other. A peer hop is a hit that another edge of the PoP has: what one edge owns is asked of the other, over objects of which none is
hot. A shield hop is the same where the asking edge keeps what it gets, in a memory too small for it. The cost of a hop is what a
request costs more than a local hit, for each request that took it.
"""
import argparse
import os
import subprocess

import rig as bench
import servers

CONNECTIONS = 32
BODY = "0123456789abcdef" * 64


def main(options):
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = 1 if options.quick else 4
    count = 4000 if options.quick else 8000

    def measure(rig):
        origin = servers.nginx_words(rig, BODY)
        authority = Authority(rig)
        alone = edges(rig, origin, authority, {"alone": {}})["alone"]
        peers = edges(rig, origin, authority, {"fra-1": {"weight": 1}, "fra-2": {"weight": 100}})
        owner = edges(rig, origin, authority, {"one-1": {"weight": 100}, "one-2": {"weight": 1}})
        tiers = edges(rig, origin, authority, {"near-1": {"pop": "near", "memory": "1MiB"}, "far-1": {"pop": "far"}},
                      shield="far")
        scenes = {
            "local hit, alone": ([alone], "words", 1),
            "local hit, in a PoP": (list(owner.values()), "words", 1),
            "peer hop": (list(peers.values()), "words", count),
            "shield hop": (list(tiers.values()), "words", count),
        }
        costs = {name: ([], []) for name in scenes}
        for name, (servers_of, prefix, objects) in scenes.items():
            bench.check_body(servers_of[0], f"/{prefix}/1", BODY.encode())
            bench.run_wrk(servers_of[0], "/", 60, 1, script="spread.lua", arguments=(prefix, objects, "fill", 1))
        for turn in range(rounds):
            for name, (servers_of, prefix, objects) in scenes.items():
                cost, hops = one_round(servers_of, prefix, objects, seconds, turn)
                costs[name][0].append(cost)
                costs[name][1].append(hops)
        local = bench.median(costs["local hit, alone"][0])
        hop = {name: bench.median([(cost - local) / hops for cost, hops in zip(*costs[name])])
               for name in ("peer hop", "shield hop")}
        print(f"CPU µs per request of {len(BODY)} bytes, all edges together, {rounds} rounds of {seconds} s, {CONNECTIONS} connections; "
              "median (lowest–highest)")
        bench.table(["", "µs of CPU per request", "hops per request"],
                    [(name, bench.spread(values), bench.spread(hops)) for name, (values, hops) in costs.items()])
        in_pop = bench.median(costs["local hit, in a PoP"][0])
        bench.result(hop_us=f"{hop['peer hop']:.1f}", shield_hop_us=f"{hop['shield hop']:.1f}",
                     peer_hit_over_local=f"{in_pop / local:.3f}")

    bench.run(measure)


def one_round(edges_of, prefix, objects, seconds, turn):
    """Loads the first of the edges: CPU µs of all of them per request, and requests to other edges per request."""
    asked, spent = hops_of(edges_of[0]), sum(edge.cpu_us() for edge in edges_of)
    load = bench.wrk(edges_of[0], "/", seconds, CONNECTIONS, script="spread.lua", arguments=(prefix, objects, "ask", turn))
    spent = sum(edge.cpu_us() for edge in edges_of) - spent
    if load.bytes < 0.98 * load.requests * len(BODY):
        raise bench.CannotMeasure(f"{edges_of[0].name}: {load.bytes:.0f} bytes for {load.requests} answers")
    hops = (hops_of(edges_of[0]) - asked) / load.requests
    if objects > 1 and hops < 0.5:
        raise bench.CannotMeasure(f"{edges_of[0].name} has asked others for {hops:.0%} of its requests only")
    return spent / load.requests, hops


def hops_of(edge):
    """How many requests an edge has had answered by others."""
    _, _, page = bench.fetch(edge.admin, "/metrics")
    lines = [line for line in page.decode().splitlines() if line.startswith("perigee_tier_requests_total")]
    if any('end="answered"' not in line for line in lines):
        raise bench.CannotMeasure(f"{edge.name} was not answered by the others:\n" + "\n".join(lines))
    return sum(int(line.split()[-1]) for line in lines)


# --- Edges that ask each other ---


class Authority:
    """A certificate authority of the rig's own."""

    def __init__(self, rig):
        self.rig = rig
        self.certificate, self.key = rig.path("ca.pem"), rig.path("ca-key.pem")
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                     "-keyout", self.key, "-out", self.certificate, "-subj", "/CN=the edges")

    def sign(self, node):
        """A certificate for a node's name: (certificate, key) as paths."""
        paths = {kind: self.rig.path(f"{node}.{kind}") for kind in ("pem", "key", "csr", "ext")}
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", paths["key"],
                     "-out", paths["csr"], "-subj", f"/CN={node}")
        self.rig.write(f"{node}.ext", f"subjectAltName=DNS:{node}\n")
        self.openssl("x509", "-req", "-in", paths["csr"], "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
                     "-days", "30", "-extfile", paths["ext"], "-out", paths["pem"])
        return paths["pem"], paths["key"]

    @staticmethod
    def openssl(*arguments):
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise bench.CannotMeasure(f"openssl makes no certificate: {done.stderr}")


class Admin:
    """Where an edge's metrics are."""

    is_tls = False

    def __init__(self, port):
        self.port = port


def edges(rig, origin, authority, nodes, shield=None):
    """Starts edges that know of each other: name → server. One without `pop` or `weight` is alone."""
    binary = os.environ.get("PERIGEE", "")
    if not os.access(binary, os.X_OK):
        raise bench.CannotMeasure(f"PERIGEE names no executable: {binary!r}")
    ports = {name: rig.port() for name in nodes}
    pops = {}
    for name, node in nodes.items():
        if node:
            pops.setdefault(node.get("pop", "one"), []).append(name)
    common = ""
    for number, (pop, names) in enumerate(pops.items()):
        common += f'[[pop]]\nname = "{pop}"\nlocation = [1.0, 2.0]\nedges = "192.0.2.{number}"\n'
        for name in names:
            weight = nodes[name].get("weight", 1)
            common += f'[[pop.node]]\nname = "{name}"\ntier = "127.0.0.1:{ports[name]}"\nweight = {weight}\n'
    common += f'[[site]]\nname = "site"\ndomains = "*"\norigin = "http://127.0.0.1:{origin.port}"\n'
    common += f'shield = "{shield}"\n' if shield else ""
    started = {}
    for name, node in nodes.items():
        port, admin = rig.port(), rig.port()
        tier = ""
        if node:
            certificate, key = authority.sign(name)
            tier = f'listen_tier = "127.0.0.1:{ports[name]}"\n[edge.tier]\ncertificate = "{certificate}"\nkey = "{key}"\n' \
                   f'authority = "{authority.certificate}"\n'
        disk = f'[[store.disk]]\nsize = "{node["disk"]}"\nwrites_per_day = 1000\n' if "disk" in node else ""
        config = rig.write(f"{name}.toml", f'[edge]\nnode = "{name}"\nlisten = "127.0.0.1:{port}"\nadmin = "127.0.0.1:{admin}"\n'
                                           f'workers = 1\n{tier}[store]\nmemory = "{node.get("memory", "512MiB")}"\n{disk}{common}')
        argv = [binary, "serve", "--config", config, "--state", rig.path(f"{name}-state")]
        started[name] = rig.start(name, argv, port, node.get("cores", {bench.SERVER_CORE}))
        started[name].admin = Admin(admin)
    return started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/tiers.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2 rounds of 1 s")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds instead of 5")
    main(parser.parse_args())
