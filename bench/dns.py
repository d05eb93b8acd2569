"""CPU per DNS query that names a client's subnet, ours against gdnsd, in alternation on one pinned core.

Each query is for one of four names, A, with EDNS and a client subnet of a /24; dnsperf asks from another core, as fast as
it gets answers. gdnsd answers from its geoip plugin with the same two places and the same networks; it signs nothing, so that
signed answers are held against its unsigned ones. Cost is user and system time of the server's processes by answered queries.
Before that: ms from exec to the first answer, and resident memory, with the location data that `--location` names.
`--large` measures that alone, with 1,000 PoPs and 10,000 sites: half of these may be served from everywhere, the others from one of 16 regions.
"""
import argparse
import os
import random
import re
import socket
import statistics
import subprocess
import time

import rig as bench

NAMES = ["shop", "news", "img", "api"]
# Family 1, 24 bits, scope 0, 10.1.2.0
SUBNET = "8:000118000a0102"
NETWORKS = {"10.0.0.0/9": "fra", "10.128.0.0/9": "nrt"}
POPS, SITES, REGIONS = 1_000, 10_000, 16
ADDRESSES = {"fra": "192.0.2.1", "nrt": "192.0.2.2"}


def main(options):
    rounds = 1 if options.quick else options.rounds
    seconds = 2 if options.quick else 5

    def measure(rig):
        queries = rig.write("queries", "".join(f"{name}.cdn.example A\n" for name in NAMES))
        start_ms, memory = first_answer(rig, options.location)
        ways = [("perigee", lambda: perigee(rig, None), []), ("gdnsd", lambda: gdnsd(rig), []),
                ("perigee signed", lambda: perigee(rig, None, signed=True), ["-D"])]
        costs = {name: [] for name, _, _ in ways}
        rates = {name: [] for name, _, _ in ways}
        for _ in range(rounds):
            for name, start, flags in ways:
                server = start()
                check(server)
                ask(server, queries, 1, flags)
                before = server.cpu_us()
                count, rate = ask(server, queries, seconds, flags)
                costs[name].append((server.cpu_us() - before) / count)
                rates[name].append(rate)
                rig.stop(server)
        print(f"CPU µs per query with a client subnet, {rounds} rounds of {seconds} s")
        bench.table(["server", "µs per query", "range", "queries/s", "per CPU second"],
                    [(name, f"{statistics.median(cost):.2f}", f"{min(cost):.2f}–{max(cost):.2f}",
                      f"{statistics.median(rates[name]):.0f}", f"{1e6 / statistics.median(cost):.0f}") for name, cost in costs.items()])
        median = {name: statistics.median(cost) for name, cost in costs.items()}
        bench.result(qps_ratio=f"{median['gdnsd'] / median['perigee']:.2f}", qps_dnssec_ratio=f"{median['gdnsd'] / median['perigee signed']:.2f}",
                     start_ms=f"{start_ms:.0f}", resident_mb=f"{memory / 2**20:.0f}")

    bench.run((lambda rig: large(rig, options.location)) if options.large else measure)


def perigee(rig, location, signed=False):
    server = launch(rig, location, small(signed), "perigee signed" if signed else "perigee")
    return rig.await_port(server)


def small(signed):
    """Two PoPs and four sites, as gdnsd has them."""
    pops = "".join(f'[[pop]]\nname = "{name}"\nlocation = "{name.upper()}"\nedges = "{address}"\n' for name, address in ADDRESSES.items())
    sites = "".join(f'[[site]]\nname = "{name}"\ndomains = "{name}.example"\norigin = "http://o.example"\n' for name in NAMES)
    return f"""{pops}[dns]
zone = "cdn.example"
nameservers = {{ "ns1.cdn.example" = "127.0.0.1" }}
dnssec = {str(signed).lower()}
rate = 0
[probe]
kind = "off"
{sites}"""


def launch(rig, location, config, name):
    """Starts a router, and waits for nothing."""
    port = rig.port()
    config = rig.write(f"perigee-{port}.toml", config)
    if location is None:
        location = rig.path("bench.geo")
        networks = rig.write("list.csv", "".join(f"{network},{name.upper()}\n" for network, name in NETWORKS.items()))
        subprocess.run([os.environ["PERIGEE"], "geo", "build", "--list", networks, "--output", location], check=True, stdout=subprocess.DEVNULL)
    argv = [os.environ["PERIGEE"], "router", "--config", config, "--location", location, "--state", rig.path("state"),
            "--listen", f"127.0.0.1:{port}", "--admin", "off", "--workers", "1"]
    return rig.launch(name, argv, port, {bench.SERVER_CORE})


def gdnsd(rig):
    port = rig.port()
    top = f"gdnsd-{port}"
    nets = " ".join(f"{network} => [ {name}, {', '.join(other for other in ADDRESSES if other != name)} ]," for network, name in NETWORKS.items())
    places = ", ".join(f"{name} => {address}" for name, address in ADDRESSES.items())
    for folder in ("run", "state", "geoip"):
        os.makedirs(rig.path(top, folder), exist_ok=True)
    rig.write(f"{top}/config", f"""options => {{
  listen => [ 127.0.0.1:{port} ]
  run_dir => {rig.path(top, "run")}
  state_dir => {rig.path(top, "state")}
  udp_threads => 1
  tcp_threads => 1
}}
plugins => {{ geoip => {{
  maps => {{ places => {{ datacenters => [ {", ".join(ADDRESSES)} ], nets => {{ {nets} }} }} }}
  resources => {{ all => {{ map => places, dcmap => {{ {places} }} }} }}
}} }}
""")
    rig.write(f"{top}/zones/cdn.example", "@ SOA ns1 hostmaster ( 1 7200 30M 3D 900 )\n@ NS ns1\nns1 A 127.0.0.1\n"
              + "".join(f"{name} 30 DYNA geoip!all\n" for name in NAMES))
    return rig.start("gdnsd", ["gdnsd", "-c", rig.path(top), "start"], port, {bench.SERVER_CORE})


def check(server):
    """Refuses to measure a server that sends a client elsewhere than it should."""
    for network, name in NETWORKS.items():
        argv = ["dig", "@127.0.0.1", "-p", str(server.port), "shop.cdn.example", f"+subnet={network.split('/')[0]}/24", "+short"]
        answer = subprocess.run(argv, capture_output=True, text=True).stdout.split()
        if answer != [ADDRESSES[name]]:
            raise bench.CannotMeasure(f"{server.name} sends {network} to {answer}, wanted {ADDRESSES[name]}")


def ask(server, queries, seconds, flags):
    """Queries that were answered, and how many per second."""
    text = bench.run_load(["dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", queries, "-l", str(seconds), "-c", "8", "-T", "1",
                           "-q", "256", "-e", "-E", SUBNET, *flags])
    done = int(re.search(r"Queries completed:\s+(\d+)", text)[1])
    codes = re.search(r"Response codes:\s+(.*)", text)[1]
    if not codes.startswith("NOERROR") or "," in codes:
        raise bench.CannotMeasure(f"{server.name}: {codes}")
    return done, float(re.search(r"Queries per second:\s+([\d.]+)", text)[1])


def first_answer(rig, location, config=None):
    """ms from exec to the first answer, the median of five starts, and resident bytes then."""
    times, memory = [], []
    for _ in range(5):
        started = time.monotonic()
        server = launch(rig, location, config or small(False), "perigee")
        await_answer(rig, server)
        times.append((time.monotonic() - started) * 1e3)
        with open(f"/proc/{server.process.pid}/status") as status:
            memory.append(next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024)
        rig.stop(server)
    return statistics.median(times), statistics.median(memory)


def await_answer(rig, server):
    """Asks for a name by UDP each 5 ms until the server says where it is."""
    query = bytes([0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + b"\x04shop\x03cdn\x07example\0" + bytes([0, 1, 0, 1])
    deadline = time.monotonic() + 60
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(0.005)
        asker.connect(("127.0.0.1", server.port))
        while time.monotonic() < deadline:
            rig.must_run(server)
            try:
                asker.send(query)
                answer = asker.recv(512)
            except (ConnectionRefusedError, TimeoutError):
                time.sleep(0.001)
                continue
            if answer[3] & 15 or answer[7] == 0:
                raise bench.CannotMeasure(f"{server.name} answers {answer.hex()}, wanted an address of shop.cdn.example")
            return
    raise bench.CannotMeasure(f"{server.name} gives no answer in 60 s:\n{server.log_tail()}")


def large(rig, location):
    """ms from exec to the first answer, and resident memory, of a large configuration."""
    location = location or spread(rig)
    start_ms, memory = first_answer(rig, location, big_configuration())
    print(f"{POPS} PoPs, {SITES} sites, location data of {os.path.getsize(location) / 1e6:.1f} MB, five starts on one core")
    bench.table(["", "median"], [("exec to the first answer", f"{start_ms:.0f} ms"), ("resident", f"{memory / 2**20:.0f} MB")])
    bench.result(large_start_ms=f"{start_ms:.0f}", large_resident_mb=f"{memory / 2**20:.0f}")


def big_configuration():
    seed = random.Random(7)
    pops = "".join(f"""[[pop]]
name = "p{pop}"
location = [{seed.uniform(-60, 70):.3f}, {seed.uniform(-180, 180):.3f}]
edges = ["198.18.{pop // 250}.{pop % 250 + 1}"]
regions = ["r{pop % REGIONS}"]
""" for pop in range(POPS))
    names = ["shop"] + [f"s{number}" for number in range(1, SITES)]
    sites = "".join(f"""[[site]]
name = "{name}"
domains = "www.{name}.example"
origin = "http://o.example"
{f'pops = ["r{number // 2 % REGIONS}"]' if number % 2 else ""}
""" for number, name in enumerate(names))
    return f"""{pops}[dns]
zone = "cdn.example"
nameservers = {{ "ns1.cdn.example" = "127.0.0.1" }}
[probe]
kind = "off"
{sites}"""


def spread(rig):
    """Location data of networks all over the world: 60,000 places."""
    seed = random.Random(8)
    lines = (f"{number >> 8 & 255}.{number & 255}.0.0/16,{seed.uniform(-60, 70):.3f} {seed.uniform(-180, 180):.3f}\n" for number in range(256, 60_000))
    networks, location = rig.write("world.csv", "".join(lines)), rig.path("world.geo")
    subprocess.run([os.environ["PERIGEE"], "geo", "build", "--list", networks, "--output", location], check=True, stdout=subprocess.DEVNULL)
    return location


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="the start with 1,000 PoPs and 10,000 sites, and nothing else")
    parser.add_argument("--location", help="location data for the start and the memory (default: a list of two networks)")
    main(parser.parse_args())
