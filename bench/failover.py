"""How soon a PoP that dies gets no new answers, and one that is back does, with default settings.

Three PoPs with one edge each. The edge that a client is sent to is killed at random moments, and started again when the router has noticed; the
client asks every 10 ms. `p99_s`, `back_s`: the largest of all kills. Then all edges drop one probe of a hundred: `flaps` counts the
changes that the router saw. At last all are killed: every query must be answered.
"""
import argparse
import os
import random
import socket
import statistics
import struct
import sys
import time
import urllib.request

import rig as bench

# Answers each connection with 404 after its request; drops one of `sys.argv[3]`, if that is not 0.
EDGE = """
import random, socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=64)
loss = float(sys.argv[3])
while True:
    stream, _ = server.accept()
    with stream:
        try:
            stream.settimeout(1)
            stream.recv(1024)
            if random.random() >= loss:
                stream.sendall(b"HTTP/1.1 404 Not Found\\r\\nContent-Length: 0\\r\\n\\r\\n")
        except OSError:
            pass
"""
EDGES = {"fra": "127.0.0.11", "ams": "127.0.0.12", "nrt": "127.0.0.13"}
QUESTION = b"\x04shop\x03cdn\x07example\0\0\x01\0\x01"


def main(options):
    kills = 2 if options.quick else options.kills
    quiet = 5 if options.quick else 120

    def measure(rig):
        port = rig.port()
        router = start(rig, port)
        edges = {name: edge(rig, name, port) for name in EDGES}
        wait(lambda: ask(router) == EDGES["fra"], 20, "the first answer")
        gone, back = [], []
        for _ in range(kills):
            time.sleep(random.random() * 2)
            moment = rig.kill(edges["fra"])
            gone.append(wait(lambda: ask(router) != EDGES["fra"], 30, "a dead PoP is left") - moment)
            edges["fra"] = edge(rig, "fra", port)
            moment = time.monotonic()
            back.append(wait(lambda: ask(router) == EDGES["fra"], 60, "a PoP that is back is answered") - moment)
            wait(lambda: metric(router, "perigee_router_edges_down") == 0, 30, "all are up")
        for name in EDGES:
            rig.stop(edges[name])
            edges[name] = edge(rig, name, port, loss=0.01)
        wait(lambda: metric(router, "perigee_router_edges_down") == 0, 60, "all are up again")
        before = metric(router, "perigee_router_edge_changes_total")
        probes = metric(router, "perigee_router_probes_failed_total")
        time.sleep(quiet)
        flaps = metric(router, "perigee_router_edge_changes_total") - before
        lost = metric(router, "perigee_router_probes_failed_total") - probes
        for name in EDGES:
            rig.kill(edges[name])
        wait(lambda: metric(router, "perigee_router_edges_down") == 3, 30, "all are down")
        if ask(router) not in EDGES.values():
            raise bench.CannotMeasure("with all PoPs down, a query was not answered")
        bench.table(["", "median s", "largest s"], [("a dead PoP is left", f"{statistics.median(gone):.2f}", f"{max(gone):.2f}"),
                                                    ("one that is back is answered", f"{statistics.median(back):.2f}", f"{max(back):.2f}")])
        print(f"{kills} kills; {quiet} s with 1 % loss: {lost} probes lost")
        bench.result(p99_s=f"{max(gone):.2f}", back_s=f"{max(back):.2f}", flaps=flaps)

    bench.run(measure)


def wait(state, bound, what):
    """The moment at which the state came."""
    end = time.monotonic() + bound
    while time.monotonic() < end:
        if state():
            return time.monotonic()
        time.sleep(0.01)
    raise bench.CannotMeasure(f"after {bound} s it is still not so that {what}")


def edge(rig, name, port, loss=0.0):
    server = rig.launch(f"edge-{name}", [sys.executable, "-c", EDGE, EDGES[name], str(port), str(loss)], port)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection((EDGES[name], port), timeout=1).close()
            return server
        except OSError:
            rig.must_run(server)
            time.sleep(0.02)
    raise bench.CannotMeasure(f"the edge {name} does not listen")


def start(rig, probe):
    port, admin = rig.port(), rig.port()
    pops = "".join(f'[[pop]]\nname = "{name}"\nlocation = "{name.upper()}"\nedges = "{address}"\n' for name, address in EDGES.items())
    config = rig.write("failover.toml", f"""{pops}[dns]
zone = "cdn.example"
nameservers = {{ "ns1.cdn.example" = "127.0.0.1" }}
[probe]
port = {probe}
[[site]]
name = "shop"
domains = "shop.example"
origin = "http://o.example"
""")
    networks = rig.write("list.csv", "127.0.0.0/8,FRA\n")
    location = rig.path("failover.geo")
    bench.run_load([os.environ["PERIGEE"], "geo", "build", "--list", networks, "--output", location])
    argv = [os.environ["PERIGEE"], "router", "--config", config, "--location", location, "--state", rig.path("state"),
            "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--workers", "1"]
    router = rig.start("perigee", argv, port)
    router.admin = admin
    return router


def ask(router):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(2)
        one.sendto(struct.pack("!HHHHHH", random.getrandbits(16), 0, 1, 0, 0, 0) + QUESTION, ("127.0.0.1", router.port))
        return socket.inet_ntoa(one.recv(1500)[-4:])


def metric(router, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{router.admin}/metrics", timeout=5) as page:
        return int(next(line for line in page.read().decode().splitlines() if line.startswith(f"{name} ")).split()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--kills", type=int, default=20)
    main(parser.parse_args())
