"""A small CDN through 24 hours of a clock that runs fast: what grows after the first eight?

A control on SQLite, three edges in two PoPs with memory and disk, a router and an origin, all under one false clock
(day_clock.c): each false second is 1/120 of a true one, and longer where the machine has no time. Time-outs run by it too; those that can
be configured are generous, and state lies in memory (/dev/shm) unless TMPDIR names a place, as the waits of a disk are
not shortened. What goes on, by the false clock:

- all the time: visitors of ever new addresses, URLs, query strings, cookies, languages and hosts, by HTTP/1.1 and TLS, on
  kept connections and new ones; ranges, POST, floods above a rate limit; page views; questions to the router from ever new
  networks; measured round trips posted to it; control is asked for statistics;
- each tenth minute purges, by key, URL, prefix and site; each hour five minutes in which the origin fails in part;
- each hour another configuration, staged as `perigee apply` has it or at once, in which the site of the last hour is gone
  and a new one is there; a new certificate for visitors; tokens of operators and for nodes made and taken back.

At the end of each hour visitors pause, and each process is looked at: memory, threads, files, sockets, state, logs, series and
gauges of /metrics, records of the journal, names in statistics. Growth is the Theil-Sen slope (the median of all pairs) over the last hours
times their length. A measure grew when that is more than its bound; what grows by design is named with what bounds it, and not counted.

Not done: HTTP/2 and HTTP/3, certificates by ACME, upgrades, faults of processes (`soak.sh`), the renewal of nodes' certificates, which is due
after more than four days; access logs are off. Visitors ask as often in a true second as ever: in a false one hardly at all.
"""
import argparse
import collections
import contextlib
import ctypes
import functools
import http.client
import itertools
import json
import os
import random
import re
import signal
import socket
import sqlite3
import ssl
import statistics
import struct
import sys
import threading
import time

import geo
import rig as bench

HOUR = 3600
HOURS = 24
# After so many, tables and caches are as full as they get.
WARM_UP = 8
RATE = 120
VISITORS = 6
# Pause of a visitor between two requests, in true seconds.
THINK = 0.02
# Longest wait of this script for anything, in true seconds.
PATIENCE = 60
# From the pause of visitors to the look, in false seconds: connections without a request, and their sockets, are gone.
SETTLED_AFTER = 150
EDGES = {"fra-1": "fra", "fra-2": "fra", "iad-1": "iad"}

MIB = 2**20
# measure → how much growth is none: at least so much, or so much of its median.
# Series begin when a word of a closed list is said for the first time, so that some rare ones still come.
BOUNDS = {"rss": (4 * MIB, 0.05), "anonymous": (4 * MIB, 0.05), "heap": (4 * MIB, 0.05), "state": (MIB, 0.01), "log": (MIB, 0),
          "threads": (1, 0), "fds": (2, 0), "sockets": (2, 0), "series": (0, 0.01), "series_of_former_sites": (0, 0),
          "records": (0, 0), "names": (0, 0), "gauge": (10, 0.05)}
IN_MIB = ("rss", "anonymous", "heap", "state", "log")
# A measure, of a process or of all → what bounds its growth by design.
BY_DESIGN = {
    ("control", "state"): "statistics for 13 months, the journal for 7 days",
    ("control", "rss"): "caches of SQLite: 32 MiB for who writes, 16 MiB for each of four who read",
    ("control", "anonymous"): "caches of SQLite, as above",
    ("control", "records"): "7 days or 100,000 records",
    ("control", "names"): "20,000",
    "series_of_former_sites": "until the next start, of 1,024 sites",
    "perigee_purges_remembered": "262,144 URLs, 131,072 keys, 16,384 prefixes",
    "perigee_disk_oldest_segment_seconds": "an age",
    "perigee_router_serial": "a number of versions",
}


def main(options):
    hours = options.hours or (3 if options.quick else HOURS)
    warm_up = min(WARM_UP, hours // 3)
    seed = random.randrange(2**32) if options.seed is None else options.seed

    def measure(rig):
        print(f"Seed {seed}, {hours} hours, {options.rate} times as fast")
        day = Day(rig, seed, options.rate)
        day.open()
        for hour in range(1, hours + 1):
            day.live(hour)
        day.close()
        day.show(warm_up)

    bench.run(measure)


class Clock:
    """The false clock: the thread that ticks, and what it shows."""

    def __init__(self, rig, rate):
        library, page = rig.path("day_clock.so"), rig.path("clock")
        bench.run_load(["cc", "-O2", "-shared", "-fPIC", "-o", library, bench.beside("day_clock.c"), "-ldl"])
        self.ticker = ctypes.CDLL(library)
        self.ticker.make.argtypes = [ctypes.c_char_p, ctypes.c_int64]
        self.ticker.passed.restype = ctypes.c_int64
        self.ticker.make(page.encode(), rate)
        threading.Thread(target=self.ticker.tick, daemon=True).start()
        self.under = ["env", f"LD_PRELOAD={library}", f"DAY_CLOCK={page}"]

    def now(self):
        """False seconds since the start."""
        return self.ticker.passed() / 1e9

    def sleep_until(self, moment):
        while self.now() < moment:
            time.sleep(0.005)


class Day:
    """The CDN, what is done to it, and what was seen of it."""

    def __init__(self, rig, seed, rate):
        self.rig, self.chance, self.clock = rig, random.Random(f"{seed} day"), Clock(rig, rate)
        self.seed = seed
        self.processes, self.counts, self.samples, self.series = {}, {}, [], {}
        self.paused, self.over = threading.Event(), threading.Event()
        self.lock, self.threads, self.sale = threading.Lock(), [], 0

    def count(self, what, by=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + by

    # --- The CDN ---

    def start(self, name, argv, port):
        self.processes[name] = self.rig.start(name, self.clock.under + argv, port)
        return self.processes[name]

    def open(self):
        rig, perigee = self.rig, os.environ.get("PERIGEE", "")
        if not os.access(perigee, os.X_OK):
            raise bench.CannotMeasure(f"PERIGEE names no executable: {perigee!r}")
        self.origin = rig.port()
        argv = [sys.executable, bench.beside("day_origin.py"), str(self.origin)]
        rig.start("origin", self.clock.under + argv, self.origin)
        port = rig.port()
        config = rig.write("control.toml", f"""
name = "control"
listen = "127.0.0.1:{port}"
names = ["127.0.0.1"]
state = "{rig.path("control")}"
[journal]
sqlite = "{rig.path("control", "journal.sqlite")}"
""")
        self.start("control", [perigee, "control", "--config", config], port).is_tls = True
        with open(rig.path("control", "admin-token")) as file:
            self.token = file.read().strip()
        self.port, self.port_tls, self.tier = rig.port(), rig.port(), rig.port()
        for number, (name, pop) in enumerate(EDGES.items(), 11):
            self.start_edge(perigee, name, pop, f"127.0.0.{number}")
        self.start_router(perigee)
        self.apply(stage="all")
        self.wait("every node runs the configuration", lambda: self.running() >= 1)
        self.wait("the first roll-out is over", lambda: self.call("GET", "/v1/rollouts/current")["state"] == "promoted")
        for number in range(VISITORS):
            visitor = Visitor(self, random.Random(f"{self.seed} visitor {number}"))
            self.begin(visitor.visit)
        self.begin(self.ask_router)
        self.begin(self.ask_control)

    def begin(self, what):
        thread = threading.Thread(target=what, daemon=True)
        self.threads.append(thread)
        thread.start()

    def start_edge(self, perigee, name, pop, address):
        rig, admin = self.rig, self.rig.port()
        chain, key = self.certificate(name)
        config = rig.write(f"{name}.toml", f"""
[cluster]
control = ["https://127.0.0.1:{self.processes["control"].port}"]
pop = "{pop}"
[edge]
node = "{name}"
listen = "{address}:{self.port}"
listen_tls = "{address}:{self.port_tls}"
listen_tier = "{address}:{self.tier}"
admin = "127.0.0.1:{admin}"
workers = 1
trusted_proxies = ["127.0.0.0/8"]
limits = {{ header_timeout = "5m", handshake_timeout = "5m", idle_timeout = "75s" }}
[[certificate]]
chain = "{chain}"
key = "{key}"
[store]
memory = "8MiB"
in_flight = "16MiB"
[[store.disk]]
size = "64MiB"
writes_per_day = 1000
""")
        token = rig.write(f"{name}.token", self.enroll({"role": "edge", "pop": pop}))
        argv = [perigee, "edge", "--config", config, "--token", token, "--state", rig.path(name)]
        server = self.start(name, argv, admin)
        server.admin, server.address = admin, address

    def start_router(self, perigee):
        rig, port, admin = self.rig, self.rig.port(), self.rig.port()
        networks = rig.write("networks.csv", "".join(f"{first}.0.0.0/8,{'FRA' if first % 2 else 'IAD'}\n" for first in range(11, 100)))
        location = rig.path("location.geo")
        bench.run_load([perigee, "geo", "build", "--list", networks, "--output", location])
        config = rig.write("router.toml", f"""
node = "router"
listen = ["127.0.0.1:{port}"]
admin = "127.0.0.1:{admin}"
state = "{rig.path("router")}"
workers = 1
location = "{location}"
[cluster]
control = ["https://127.0.0.1:{self.processes["control"].port}"]
""")
        token = rig.write("router.token", self.enroll({"role": "router"}))
        server = self.start("router", [perigee, "router", "--config", config, "--token", token], admin)
        server.admin, server.dns = admin, port

    def enroll(self, wanted):
        """A token for a node that is to join."""
        made = []
        self.wait("control makes a token", lambda: made.append(self.call("POST", "/v1/enrolment-tokens", wanted)) or True)
        return made[0]["token"]

    def certificate(self, name):
        """A new certificate for visitors of an edge, in the place of the old one: (chain, key)."""
        chain, key = self.rig.path(f"{name}-chain.pem"), self.rig.path(f"{name}-key.pem")
        bench.run_load(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                        "-keyout", key, "-out", chain, "-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example"])
        return chain, key

    def configuration(self):
        pops = ""
        for pop, location in (("fra", "FRA"), ("iad", "IAD")):
            nodes = [(name, self.processes[name].address) for name, place in EDGES.items() if place == pop]
            pops += f'[[pop]]\nname = "{pop}"\nlocation = "{location}"\nedges = {json.dumps([address for _, address in nodes])}\n'
            pops += "".join(f'[[pop.node]]\nname = "{name}"\ntier = "{address}:{self.tier}"\n' for name, address in nodes)
        origin = f"""origin = "http://127.0.0.1:{self.origin}"
[site.origin_options]
timeouts = {{ connect = "1m", first_byte = "10m", idle = "10m" }}
health = {{ path = "/health", interval = "30s", timeout = "30s" }}
"""
        return f"""{pops}
[probe]
port = {self.port}
interval = "15s"
timeout = "15s"
[measure]
connections = true
beacons = true
[dns]
zone = "cdn.example"
nameservers = {{ "ns1.cdn.example" = ["127.0.0.1"] }}
[[site]]
name = "shop"
domains = ["shop.example"]
shield = "fra"
rum = true
stale_if_error = "10m"
response_headers = {{ set = {{ X-Hour = "{self.sale}" }} }}
{origin}
[[site.rule]]
name = "limited"
path = "/limited/*"
rate_limit = {{ requests = 2, per = "10s" }}
[[site.rule]]
name = "rule-{self.sale % 2}"
path = "/vary/*"
vary = {{ Accept-Language = "lowercase" }}
[[site]]
name = "sale-{self.sale}"
domains = ["sale.example"]
{origin}
"""

    # --- What an operator does ---

    def call(self, method, path, body=None, token=None):
        """What control answers."""
        control = self.processes["control"]
        connection = http.client.HTTPSConnection("127.0.0.1", control.port, timeout=PATIENCE, context=trusting())
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, path, body and json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        if response.status >= 300:
            raise Refused(f"{method} {path} was answered {response.status}: {text[:300].decode(errors='replace')}")
        return json.loads(text) if text else None

    def try_call(self, what, *call):
        """The same, of what may fail, and is counted."""
        try:
            answer = self.call(*call)
            self.count(what)
            return answer
        except (Refused, OSError, http.client.HTTPException) as reason:
            self.count(f"{what}, failed")
            bench.say(f"  {what}: {reason}")

    def apply(self, stage):
        added = self.try_call("configurations", "POST", "/v1/configurations", {"text": self.configuration(), "reason": "another hour"})
        if added:
            self.try_call("roll-outs", "POST", "/v1/rollouts", {"version": added["version"], "stage": stage})

    def running(self):
        """The oldest configuration that a node runs."""
        nodes = self.call("GET", "/v1/nodes")["nodes"]
        return min((node.get("running") or 0 for node in nodes), default=0) if len(nodes) > len(EDGES) else 0

    def wait(self, what, is_so):
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(Refused, OSError, http.client.HTTPException):
                if is_so():
                    return
            if time.monotonic() > end:
                logs = "".join(f"--- {name}\n{server.log_tail()}" for name, server in self.processes.items())
                raise bench.CannotMeasure(f"it never came that {what}\n{logs}")
            time.sleep(0.1)

    def live(self, hour):
        """One hour, from its changes to the look at its end."""
        began, true = (hour - 1) * HOUR + self.first, time.monotonic()
        self.renew(hour)
        for minute, order in zip(range(10, 60, 10), itertools.cycle(self.purges(hour))):
            self.clock.sleep_until(began + minute * 60)
            self.try_call("purges", "POST", "/v1/purges", order)
            for server in self.processes.values():
                self.rig.must_run(server)
        self.clock.sleep_until(began + HOUR - SETTLED_AFTER - 30)
        if rollout := self.try_call("questions to control", "GET", "/v1/rollouts/current"):
            self.count(f"roll-outs {rollout['state']}")
        self.paused.set()
        self.clock.sleep_until(self.clock.now() + SETTLED_AFTER)
        self.samples.append({name: self.look(name, server) for name, server in self.processes.items()})
        self.paused.clear()
        self.clock.sleep_until(began + HOUR)
        last = self.samples[-1]
        bench.say(f"hour {hour}, {time.monotonic() - true:.0f} s: " + ", ".join(
            f"{name} {one['rss'] / MIB:.1f} MiB {one['threads']}/{one['fds']}" for name, one in last.items()) + f"; {self.counts}")

    @functools.cached_property
    def first(self):
        """When the first hour began."""
        return self.clock.now()

    def renew(self, hour):
        self.sale = hour
        self.apply("edge" if hour % 2 else "all")
        for name in EDGES:
            self.certificate(name)
            self.processes[name].process.send_signal(signal.SIGHUP)
        self.try_call("tokens", "POST", "/v1/tokens", {"name": f"hour-{hour}", "role": "purger", "ttl": "2h"})
        if hour > 1:
            self.try_call("tokens taken back", "DELETE", f"/v1/tokens/hour-{hour - 1}")
        made = self.try_call("tokens for nodes", "POST", "/v1/enrolment-tokens", {"role": "edge", "pop": "iad"})
        if made:
            self.try_call("tokens for nodes taken back", "DELETE", f"/v1/enrolment-tokens/{made['id']}")

    def purges(self, hour):
        group = self.chance.randrange(50)
        return [{"tags": [f"group-{group}"]}, {"urls": [f"http://shop.example/o/{self.chance.randrange(4000)}" for _ in range(20)]},
                {"prefix": f"http://shop.example/page/{hour % 10}"}, {"tag": "pages", "soft": True}, {"site": f"sale-{self.sale}"}]

    # --- Who asks ---

    def goes_on(self):
        """Whether there is more to ask; waits while there is a pause."""
        while self.paused.is_set() and not self.over.is_set():
            time.sleep(0.01)
        return not self.over.is_set()

    def ask_router(self):
        chance, router = random.Random(f"{self.seed} networks"), self.processes["router"]
        with open(self.rig.path("router", "admin-token")) as file:
            headers = {"Authorization": f"Bearer {file.read().strip()}"}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect(("127.0.0.1", router.dns))
            one.settimeout(2)
            while self.goes_on():
                for _ in range(20):
                    network = chance.randrange(11 << 16, 100 << 16)
                    try:
                        one.send(question(network))
                        one.recv(1500)
                        self.count("questions")
                    except OSError:
                        self.count("questions, failed")
                samples = [{"network": f"{network >> 16}.{network >> 8 & 255}.{network & 255}.0", "pop": chance.choice(("fra", "iad")), "count": 1,
                            "sum_ms": chance.uniform(5, 200)} for network in (chance.randrange(11 << 16, 100 << 16) for _ in range(10))]
                connection = http.client.HTTPConnection("127.0.0.1", router.admin, timeout=PATIENCE)
                with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                    connection.request("POST", "/v1/samples", json.dumps({"samples": samples}), headers)
                    self.count("samples" if connection.getresponse().status == 202 else "samples, refused")
                time.sleep(0.2)

    def ask_control(self):
        """What a dashboard asks."""
        paths = ["/v1/stats?by=pop", "/v1/stats?by=site", "/v1/stats/why?site=shop", "/v1/stats/top?of=misses", "/v1/stats/rum?by=country&site=shop",
                 "/v1/nodes", "/v1/purges", "/v1/rollouts/current", "/v1/status", "/v1/audit"]
        for path in itertools.cycle(paths):
            if not self.goes_on():
                return
            self.try_call("questions to control", "GET", path)
            time.sleep(0.5)

    def close(self):
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE)

    # --- What is seen ---

    def look(self, name, server):
        """Every measure of one process, by its name."""
        self.rig.must_run(server)
        pid = server.process.pid
        with open(f"/proc/{pid}/smaps_rollup") as file:
            memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if line.endswith("kB\n")}
        files = [read_link(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        found = {
            "rss": memory["Rss"], "anonymous": memory["Anonymous"], "heap": heap_of(pid), "threads": len(os.listdir(f"/proc/{pid}/task")),
            "fds": len(files), "sockets": sum(file.startswith("socket:") for file in files),
            "state": size_below(self.rig.path(name)), "log": os.path.getsize(server.log_path),
        }
        series, gauges = read_metrics(self.metrics(server))
        of_former = {one for one in series if 'site="sale-' in one and f'site="sale-{self.sale}"' not in one}
        found["series"], found["series_of_former_sites"] = len(series - of_former), len(of_former)
        self.series.setdefault(name, []).append(series - of_former)
        if name == "control":
            found["records"] = rows_of(self.rig.path("control", "journal.sqlite"), "record")
            found["names"] = rows_of(self.rig.path("control", "statistics.sqlite"), "names")
        return found | gauges

    def metrics(self, server):
        if server.is_tls:
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE, context=trusting())
        else:
            connection = http.client.HTTPConnection("127.0.0.1", server.admin, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    def show(self, warm_up):
        last = self.samples[warm_up:]
        rows, worst, grown = [], {}, []
        for name in self.processes:
            for measure in sorted(set().union(*(sample[name] for sample in last))):
                values = [sample[name].get(measure, 0) for sample in last]
                growth, kind = slope(values) * (len(values) - 1), measure if measure in BOUNDS else "gauge"
                least, share = BOUNDS[kind]
                has_grown = growth > max(least, share * statistics.median(values))
                why = BY_DESIGN.get((name, measure)) or BY_DESIGN.get(measure) or ("a position" if measure.endswith(("_position", "_head")) else None)
                if has_grown and not why:
                    grown.append(f"{name} {measure}")
                if measure in BOUNDS and not why:
                    worst[measure] = max(worst.get(measure, 0), growth)
                if measure in BOUNDS or has_grown:
                    figures = (values[0], max(values), values[-1], growth)
                    told = [f"{figure / MIB:.2f}" if measure in IN_MIB else f"{figure:.0f}" for figure in figures]
                    rows.append((f"{name} {measure}", *told, ("by design: " + why if why else "grew") if has_grown else ""))
        print(f"After {warm_up} hours, over {len(last) - 1} more; memory, state and logs in MiB")
        bench.table(["process, measure", "at first", "most", "at last", "growth", ""], rows)
        for name, series in self.series.items():
            more = collections.Counter(re.sub(r"\{.*", "", one) for one in series[-1] - series[warm_up])
            if more:
                print(f"{name}, new series: " + ", ".join(f"{count} {family}" for family, count in more.most_common(8)))
        print(", ".join(f"{count} {what}" for what, count in sorted(self.counts.items())))
        bench.result(hours=len(self.samples), requests=self.counts.get("requests", 0), rss_growth_mib_max=f"{worst['rss'] / MIB:.2f}",
                     heap_growth_mib_max=f"{worst['heap'] / MIB:.2f}", threads_growth=f"{worst['threads']:.1f}", fds_growth=f"{worst['fds']:.1f}",
                     series_growth=f"{worst['series']:.1f}", state_growth_mib=f"{worst['state'] / MIB:.2f}", grown=len(grown))


class Refused(Exception):
    """Control said no."""


class Visitor:
    """One who asks in many ways, from ever new addresses; answers are counted, not judged."""

    def __init__(self, day, chance):
        self.day, self.chance = day, chance

    def visit(self):
        while self.day.goes_on():
            edge = self.day.processes[self.chance.choice(list(EDGES))]
            try:
                self.stay(edge)
            except (OSError, http.client.HTTPException):
                self.day.count("requests, cut off")

    def stay(self, edge):
        """Some requests on one connection, from one address."""
        chance, day = self.chance, self.day
        source = (f"127.{chance.randrange(1, 255)}.{chance.randrange(256)}.{chance.randrange(1, 255)}", 0)
        if chance.random() < 0.25:
            connection = http.client.HTTPSConnection(edge.address, day.port_tls, timeout=PATIENCE, source_address=source, context=trusting())
        else:
            connection = http.client.HTTPConnection(edge.address, day.port, timeout=PATIENCE, source_address=source)
        with contextlib.closing(connection):
            for _ in range(chance.choice((1, 5, 20))):
                if not day.goes_on() or day.paused.is_set():
                    return
                self.ask(connection)
                time.sleep(THINK)

    def ask(self, connection):
        chance, way = self.chance, self.chance.random()
        fields = {"Host": "shop.example", "User-Agent": f"visitor/{chance.randrange(10**6)}", "Cookie": f"id={chance.getrandbits(64):x}"}
        if chance.random() < 0.5:
            fields["X-Forwarded-For"] = f"{chance.randrange(11, 100)}.{chance.randrange(256)}.{chance.randrange(256)}.7"
        method, path, body = "GET", f"/o/{int(4000 * chance.random() ** 3)}", None
        if way < 0.15:
            path += f"?q={chance.getrandbits(48):x}"
        elif way < 0.25:
            path, fields["Accept-Encoding"] = f"/page/{chance.randrange(200)}.html", chance.choice(("zstd", "br", "gzip"))
        elif way < 0.30:
            start = chance.randrange(400)
            fields["Range"] = f"bytes={start}-{start + 99}"
        elif way < 0.35:
            path = f"/account/{chance.getrandbits(40):x}"
        elif way < 0.38:
            method, path, body = "POST", f"/cart/{chance.randrange(1000)}", b"x" * chance.randrange(4000)
        elif way < 0.43:
            path = f"/failing/{chance.randrange(50)}"
        elif way < 0.47:
            path = f"/limited/{chance.randrange(50)}"
        elif way < 0.52:
            path, fields["Accept-Language"] = f"/vary/{chance.randrange(20)}", f"x-{chance.randrange(10**6)}"
        elif way < 0.58:
            path, fields["Host"] = f"/sale/{chance.randrange(100)}", "sale.example"
        elif way < 0.60:
            fields["Host"] = f"{chance.getrandbits(32):x}.example"
        elif way < 0.62:
            method = f"M{chance.randrange(10**6)}"
        elif way < 0.70:
            return self.view(connection, fields)
        self.say(connection, method, path, body, fields)

    def say(self, connection, method, path, body, fields):
        connection.request(method, path, body, fields)
        response = connection.getresponse()
        text = response.read()
        self.day.count("requests")
        self.day.count(f"{response.status // 100}xx")
        return text

    def view(self, connection, fields):
        """A page view, told as the script would."""
        found = re.search(rb"\?v=([0-9a-f]+)\"", self.say(connection, "GET", "/.perigee/beacon.js", None, fields))
        if found:
            ttfb = self.chance.uniform(10, 200)
            told = f"ttfb={ttfb:.1f}&fcp={ttfb + 50:.1f}&lcp={ttfb + 200:.1f}&load={ttfb + 300:.1f}&p=/group{self.chance.getrandbits(32):x}/page"
            self.say(connection, "POST", f"/.perigee/beacon?v={found[1].decode()}&{told}", None, fields)
            self.day.count("page views")


# --- Tools ---


def slope(values):
    """Growth per step: the median of the slopes of all pairs."""
    return statistics.median((values[b] - values[a]) / (b - a) for a in range(len(values)) for b in range(a + 1, len(values)))


def read_metrics(text):
    """All series, and the sum of each gauge's."""
    gauges = {line.split()[2]: 0.0 for line in text.splitlines() if line.startswith("# TYPE ") and line.endswith(" gauge")}
    series = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in series:
        name = re.match(r"\w+", line)[0]
        if name in gauges and not name.endswith(("_timestamp_seconds", "_uptime_seconds")):
            gauges[name] += float(line.rsplit(" ", 1)[1])
    return {line.rsplit(" ", 1)[0] for line in series}, gauges


def size_below(directory):
    """Bytes that the files below a directory take."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
    return total


def heap_of(pid):
    """Bytes that the program's own allocator holds: mimalloc's memory is from 2 to 30 TiB, unlike libc's, of which SQLite has its own."""
    total, is_heap = 0, False
    with open(f"/proc/{pid}/smaps") as regions:
        for line in regions:
            if begin := re.match(r"([0-9a-f]+)-[0-9a-f]+ ", line):
                is_heap = 2 << 40 <= int(begin[1], 16) < 30 << 40
            elif is_heap and line.startswith("Anonymous:"):
                total += int(line.split()[1]) * 1024
    return total


def rows_of(database, table):
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def read_link(path):
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def question(network):
    """A question for the shop's address, from a /24."""
    option = struct.pack("!HHHBB", 8, 7, 1, 24, 0) + struct.pack("!I", network << 8)[:3]
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(option)) + option
    return struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 1) + geo.QUESTION + opt


@functools.cache
def trusting():
    """Certificates here are of clocks that are ahead."""
    return ssl._create_unverified_context()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/day.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 3 hours, in which caches and tables still fill, and more is said to have grown")
    parser.add_argument("--hours", type=int, help="hours (24)")
    parser.add_argument("--rate", type=int, default=RATE, help="how many times faster the clock goes (120)")
    parser.add_argument("--seed", type=int, help="what is asked follows from (random, and printed)")
    if "TMPDIR" not in os.environ and os.path.isdir("/dev/shm"):
        os.environ["TMPDIR"] = "/dev/shm"
    main(parser.parse_args())
