"""What measured round trips are worth: mean ms that visitors wait longer than for their best PoP, by the beacons that were posted.

The internet is that of crates/router/examples/synthetic/internet.rs, made from a seed: towns, their networks, and paths with detours.
Each network has 32 /24s of its own; where its town is, location data says. A beacon times four PoPs (the one that DNS sends its visitor
to, two of the seven next by distance, one at random) and is posted to the router's admin address; 10 s after the last of a stage, DNS
is asked with client subnets where 5,000 visitors are sent. `worse_at_low_n`: rounds in which visitors waited longer after 10, 100
or 300 beacons than by geography alone. `share_…`: of what geography costs. `oracle_cells`: that share, if of each town the mean of its
networks were known exactly: who can't tell networks apart gets no better. Location data says also whose each network is, as
docs/routing.md asks for (`geo build --systems`). With `--prefixes` it doesn't; with `--blocks` neither, but what is of one system lies
side by side, as on the internet: two /24s of a /16 are of one system in 68 of 100 cases here, there in 85 (of one /20 in 95).
"""
import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import time

import geo
import rig as bench

STAGES = (0, 10, 100, 300, 1_000, 10_000)
# Of a network, in bits: 32 /24s.
NETWORK_BITS = 19
FIRST = 11 << 24


def main(options):
    rounds = 1 if options.quick else options.rounds
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    stages = STAGES[:5] if options.quick else STAGES

    def measure(rig):
        sums, oracle, worse = dict.fromkeys(stages, 0.0), 0.0, 0
        for number in range(rounds):
            inflation, of_cells = one_round(rig, options, seed + number, stages)
            print(f"round {number}: of geography's {inflation[0]:.2f} ms "
                  + ", ".join(f"{inflation[stage] / inflation[0]:.2f} after {stage}" for stage in stages[1:]), flush=True)
            oracle += of_cells / rounds
            worse += sum(inflation[stage] > inflation[0] + 1e-9 for stage in stages if 0 < stage <= 300)
            for stage in stages:
                sums[stage] += inflation[stage] / rounds
        print(f"seed {seed}, {rounds} rounds, 24 PoPs, {options.towns} towns, {options.visitors} visitors")
        bench.table(["beacons", "ms too slow", "of geography's"],
                    [(stage, f"{sums[stage]:.2f}", f"{sums[stage] / sums[0]:.2f}") for stage in stages])
        figures = {f"inflation_{name}": f"{sums[stage]:.2f}" for name, stage in (("0", 0), ("1k", 1_000), ("10k", 10_000)) if stage in sums}
        figures |= {f"share_{name}": f"{sums[stage] / sums[0]:.3f}" for name, stage in (("1k", 1_000), ("10k", 10_000)) if stage in sums}
        bench.result(**figures, oracle_cells=f"{oracle / sums[0]:.3f}", worse_at_low_n=worse)

    bench.run(measure)


def one_round(rig, options, seed, stages):
    chance = random.Random(seed)
    dumped = subprocess.run([os.environ["SYNTHETIC"], "internet", str(seed), str(options.towns)], capture_output=True, check=True)
    internet = json.loads(dumped.stdout)
    networks = [(town, network) for town in internet["towns"] for network in town["networks"]]
    if options.blocks:
        networks.sort(key=lambda pair: pair[1]["asn"])
    for number, (_, network) in enumerate(networks):
        network["address"] = FIRST + (number << (32 - NETWORK_BITS))
    name = f"beacons-{seed}"
    places = "".join(f"{text(network['address'])}/{NETWORK_BITS},{town['latitude']:.2f} {town['longitude']:.2f},{town['country']}\n"
                     for town, network in networks)
    location = rig.path(f"{name}.geo")
    argv = [os.environ["PERIGEE"], "geo", "build", "--list", rig.write(f"{name}.csv", places), "--output", location]
    if not (options.blocks or options.prefixes):
        systems = "".join(f"{text(network['address'])}\t{text(network['address'] + (1 << (32 - NETWORK_BITS)) - 1)}\t{network['asn']}\n"
                          for _, network in networks)
        argv += ["--systems", rig.write(f"{name}.tsv", systems)]
    bench.run_load(argv)
    admin = rig.port()
    router = geo.start(rig, location, internet["pops"], admin)
    with open(rig.path("state", "admin-token")) as file:
        token = file.read().strip()
    towns = [town["weight"] for town in internet["towns"]]

    def visitor():
        town = chance.choices(internet["towns"], weights=towns)[0]
        network = chance.choice(town["networks"])
        return town, network, network["address"] + (chance.randrange(1 << (24 - NETWORK_BITS)) << 8)

    visitors = [visitor() for _ in range(options.visitors)]
    inflation, posted, count = {}, 0, len(internet["pops"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("127.0.0.1", router.port))
        one.settimeout(5)
        for stage in stages:
            samples = []
            while posted < stage:
                town, network, address = visitor()
                order = sorted(range(count), key=town["km"].__getitem__)
                pops = [geo.ask(one, address >> 8)[0]]
                while len(pops) < 4:
                    pop = order[chance.randrange(8)] if len(pops) < 3 else chance.randrange(count)
                    if pop not in pops:
                        pops.append(pop)
                samples += [{"network": text(address), "pop": internet["pops"][pop], "count": 1,
                             "sum_ms": network["rtt_ms"][pop] + chance.expovariate(1 / 4)} for pop in pops]
                posted += 1
                if len(samples) >= 2_000:
                    post(admin, token, samples)
                    samples = []
            post(admin, token, samples)
            time.sleep(10 if stage else 0)
            waits = [network["rtt_ms"][geo.ask(one, address >> 8)[0]] - min(network["rtt_ms"]) for _, network, address in visitors]
            inflation[stage] = sum(waits) / len(waits)
    rig.stop(router)
    for town in internet["towns"]:
        sums = [sum(network["rtt_ms"][pop] for network in town["networks"]) for pop in range(count)]
        town["best_of_all"] = min(range(count), key=sums.__getitem__)
    waits = [network["rtt_ms"][town["best_of_all"]] - min(network["rtt_ms"]) for town, network, _ in visitors]
    return inflation, sum(waits) / len(waits)


def post(admin, token, samples):
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=20)
    connection.request("POST", "/v1/samples", json.dumps({"samples": samples}), {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 202:
        raise bench.CannotMeasure(f"samples were answered {answer.status}: {body.decode()}")
    connection.close()


def text(address):
    return socket.inet_ntoa(address.to_bytes(4, "big"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: one round, up to 1,000 beacons")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--visitors", type=int, default=5_000)
    parser.add_argument("--towns", type=int, default=1_500)
    parser.add_argument("--seed", type=int)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--prefixes", action="store_true", help="location data does not say whose each network is")
    which.add_argument("--blocks", action="store_true", help="nor does it then, but a system's networks lie side by side")
    main(parser.parse_args())
