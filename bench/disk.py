"""Hits from disk against what the disk gives and what nginx spends, and what is written for each byte stored.

Reading: objects of 256 KiB, many times what the memory tier holds, drawn without repetition. Cold means that the page
cache was dropped just before the round. fio reads a file of the same total size on the same file system, in
alternation. CPU time is per hit, the server on one core and wrk on another, in alternation with nginx `proxy_cache`.

Writing: a small disk tier is filled by requests with Zipf popularity and log-normal sizes, once with the write budget
that is the default, whose burst is one disk's worth, and several times over with the largest that can be set.
"""
import argparse
import json
import math
import os
import random
import statistics
import subprocess
import time

import rig as bench
import servers

OBJECT = 256 * 1024
# Ten bodies, so that an answer with the wrong object shows nine times in ten.
BODIES = {str(digit): servers.body_of(OBJECT, digit + 1) for digit in range(10)}
CONNECTIONS = 32
FILL_PASSES = 6
# Of all requests, how many may reach the origin: what a tier may decline to keep.
MISSES_MAX = 0.001

ZIPF_EXPONENT = 0.9
SIZE_MEDIAN, SIZE_SIGMA, SIZE_CLASSES = 16 * 1024, 1.5, 64
# The bytes of all objects ÷ the size of the disk.
FOOTPRINT = 8
WRITE_SECONDS_MAX = 900
# The largest `writes_per_day`: filling the disk once more than its burst takes 86 s.
BUDGET_MAX = 1000
KINDS = ("fill", "rewrite", "overhead")


def main(options):
    rounds = options.rounds or (2 if options.quick else 5)
    objects = options.objects or (12_288 if options.quick else 16_384)
    seconds = 1 if options.quick else 2
    disk_mib, times = (512, 2) if options.quick else (1024, 5)

    def measure(rig):
        if not options.writing and not servers.installed("fio"):
            raise bench.CannotMeasure("fio is not installed")
        figures = {}
        if not options.writing:
            # The disk tier at 1.5 times its content, nginx's cache, fio's file.
            bench.need_disk(rig.dir, int(3.6 * objects * OBJECT) + 2**30)
            figures = reading(rig, rounds, objects, seconds)
        once, often = writing(rig, disk_mib, 1), writing(rig, disk_mib, times, BUDGET_MAX)
        bench.result(**figures, write_amplification=f"{once:.3f}", write_amplification_often=f"{often:.3f}")

    bench.run(measure)


# --- Reading ---


def reading(rig, rounds, objects, seconds):
    origin = servers.nginx_bodies(rig, "bodies", BODIES, r"^/o/\d*(\d)$")
    mebibytes = objects * OBJECT // 2**20
    ours = servers.perigee(rig, origin, bench.CORES, "64MiB", f"{mebibytes * 3 // 2}MiB")
    fill(ours, origin, objects)
    figures = {"read_over_fio": against_fio(rig, ours, origin, rounds, objects, seconds)}
    # From here on with one core, for which a server decides when it starts how many workers it has.
    rig.stop(ours)
    ours = rig.await_port(servers.launch_again(rig, ours))
    fill(ours, origin, objects)
    theirs = servers.nginx_cache(rig, origin, size=f"{mebibytes * 3 // 2}m")
    fill(theirs, origin, objects)
    figures |= against_nginx(rig, theirs, ours, origin, rounds, objects, seconds)
    for server in (ours, theirs, origin):
        rig.stop(server)
    return figures


def fill(server, origin, objects):
    """Asks for all objects, in order, until a whole pass over them leaves the origin alone."""
    for turn in range(FILL_PASSES):
        asked = servers.requests_of(origin)
        servers.store_objects(server, "o", objects)
        misses = servers.requests_of(origin) - asked - 1
        bench.say(f"{server.name}: {misses} of {objects} objects asked of the origin in pass {turn + 1}")
        if misses == 0:
            break
        time.sleep(2)
    if misses > MISSES_MAX * objects:
        raise bench.CannotMeasure(f"{server.name} still asks the origin for {misses} of {objects} objects")
    for number in random.Random(objects).sample(range(1, objects + 1), 20):
        bench.check_body(server, f"/o/{number}", BODIES[str(number % 10)])


def against_fio(rig, ours, origin, rounds, objects, seconds):
    """Bytes a second of cold hits ÷ bytes a second of fio, in alternation, both with all cores."""
    file = rig.path("fio")
    fio(file, objects * OBJECT, "--create_only=1")
    threads = min(2, len(bench.CORES))
    rates, shares = {"perigee": [], "fio": []}, []
    asked, requests = servers.requests_of(origin), 0
    for turn in range(rounds):
        way = bench.drop_page_cache(ours.root)
        found = disk_found(ours)
        load = bench.wrk(ours, "/", seconds, 2 * CONNECTIONS, threads, bench.CORES, "shuffle.lua",
                         ["o", objects, turn + 1, threads])
        must_be_cold(load, objects)
        if load.bytes < 0.98 * load.requests * OBJECT:
            raise bench.CannotMeasure(f"{load.bytes:.0f} bytes for {load.requests} answers of {OBJECT}")
        shares.append((disk_found(ours) - found) / load.requests)
        rates["perigee"].append(load.bytes / load.seconds / 1e6)
        requests += load.requests
        report = fio(file, objects * OBJECT, "--time_based", f"--runtime={seconds}", f"--randseed={turn + 1}")
        rates["fio"].append(report["jobs"][0]["read"]["bw_bytes"] / 1e6)
        bench.say(f"round {turn + 1}: perigee {rates['perigee'][-1]:.0f} MB/s, fio {rates['fio'][-1]:.0f} MB/s")
    misses = origin_was_spared(origin, asked, requests)
    os.remove(file)
    print(f"Cold reads of {OBJECT // 1024} KiB, {objects} objects, {rounds} rounds of {seconds} s in alternation, all "
          f"cores, page cache dropped by {way}; median (lowest–highest)")
    bench.table(["reader", "MB per second", "found on disk per request", "asked of the origin"], [
        ("perigee", bench.spread(rates["perigee"], 0), bench.spread(shares, 3), misses),
        ("fio, direct, depth 32", bench.spread(rates["fio"], 0), "", "")])
    return f"{bench.median(rates['perigee']) / bench.median(rates['fio']):.3f}"


def fio(file, size, *options):
    """Runs fio's random reads of `file`, which it makes when it is missing; returns its report."""
    argv = ["fio", "--name=read", f"--filename={file}", f"--size={size}", "--rw=randread", f"--bs={OBJECT}", "--direct=1",
            "--ioengine=libaio", "--iodepth=32", "--output-format=json", *options]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise bench.CannotMeasure(f"fio failed: {done.stdout}{done.stderr}")
    return json.loads(done.stdout[done.stdout.index("{"):])


def against_nginx(rig, theirs, ours, origin, rounds, objects, seconds):
    """CPU µs per hit, ours ÷ theirs, with all files in the page cache and with none."""
    rows, figures = [], {}
    for cold, name in ((False, "cpu_over_nginx"), (True, "cpu_over_nginx_cold")):
        costs, rates, shares = ({server: [] for server in (theirs, ours)} for _ in range(3))
        asked, requests = servers.requests_of(origin), 0
        if not cold:
            for server in (theirs, ours):
                servers.store_objects(server, "o", objects)
                requests += objects
        for turn in range(rounds):
            for server in (theirs, ours):
                if cold:
                    bench.drop_page_cache(rig.dir)
                found = disk_found(ours)
                cost, load = bench.cost(server, "/", seconds if cold else 2 * seconds, CONNECTIONS, OBJECT,
                                        script="shuffle.lua", arguments=["o", objects, turn + 1, 1])
                if cold:
                    must_be_cold(load, objects)
                costs[server].append(cost)
                rates[server].append(load.requests / load.seconds)
                shares[server].append((disk_found(ours) - found) / load.requests)
                requests += load.requests
                bench.say(f"{'cold' if cold else 'warm'} round {turn + 1}: {server.name} {cost:.1f} µs")
        misses = origin_was_spared(origin, asked, requests)
        rows += [(server.name, "cold" if cold else "warm", bench.spread(costs[server], 1), bench.spread(rates[server], 0),
                  bench.spread(shares[server], 3) if server is ours else "", misses) for server in (theirs, ours)]
        figures[name] = f"{bench.median(costs[ours]) / bench.median(costs[theirs]):.3f}"
    for server in (theirs, ours):
        bench.check_body(server, f"/o/{objects}", BODIES[str(objects % 10)])
    print(f"\nCPU µs per hit of {OBJECT // 1024} KiB, {objects} objects, {rounds} rounds in alternation, server on core "
          f"{bench.SERVER_CORE}, wrk on core {bench.LOAD_CORE}; median (lowest–highest)")
    bench.table(["server", "page cache", "µs of CPU per hit", "hits per second", "found on disk per request",
                 "asked of the origin by both"], rows)
    return figures


def disk_found(server):
    return servers.metric(server, "perigee_store_lookups_total", tier="disk", result="found")


def must_be_cold(load, objects):
    if load.requests > objects:
        raise bench.CannotMeasure(f"{load.requests} reads of {objects} objects: some were in the page cache again; "
                                  "ask for more with --objects N")


def origin_was_spared(origin, asked, requests):
    """How many of `requests` reached the origin, which must be next to none."""
    misses = servers.requests_of(origin) - asked - 1
    if misses > MISSES_MAX * requests:
        raise bench.CannotMeasure(f"{misses} of {requests} requests were no hits: the origin got them")
    return misses


# --- Writing ---


def writing(rig, disk_mib, times, writes_per_day=None):
    """Bytes written to the disk tier ÷ bytes of bodies stored in it, while it is filled `times` over.

    Where that is more than once, what was written after the first time counts: until then nothing is evicted.
    """
    disk = disk_mib * 2**20
    normal = statistics.NormalDist()
    # Classes are equally likely, so their sizes are quantiles of the log-normal distribution.
    sizes = {str(number): int(SIZE_MEDIAN * math.exp(SIZE_SIGMA * normal.inv_cdf((number - 0.5) / SIZE_CLASSES)))
             for number in range(1, SIZE_CLASSES + 1)}
    bodies = {name: servers.body_of(size, int(name)) for name, size in sizes.items()}
    objects = int(FOOTPRINT * disk / statistics.mean(sizes.values()))
    origin = servers.nginx_bodies(rig, "classes", bodies, r"^/z/\d+/(\d+)$")
    server = servers.perigee(rig, origin, bench.CORES, "64MiB", f"{disk_mib}MiB", log=False,
                             writes_per_day=writes_per_day)
    for name in sizes:
        bench.check_body(server, f"/z/{name}0000000/{name}", bodies[name])
    once, idle, requests, begun = None, 0, 0, time.monotonic()
    written, run = Written(server, origin), 0
    while written.total() < times * disk and idle < 3 and time.monotonic() < begun + WRITE_SECONDS_MAX:
        run += 1
        threads = min(2, len(bench.CORES))
        load = bench.wrk(server, "/", 2, 2 * CONNECTIONS, threads, bench.CORES, "zipf.lua",
                         [objects, SIZE_CLASSES, ZIPF_EXPONENT, run])
        requests += load.requests
        before, written = written, Written(server, origin)
        idle = 0 if written.total() > before.total() else idle + 1
        if once is None and written.total() >= disk:
            once = written
        bench.say(f"run {run}: {written.total() / 2**20:.0f} MiB written, "
                  f"{written.kinds['rewrite'] / 2**20:.0f} of them rewritten")
    # What was fetched last is still on its way to the disk, and to the origin's log.
    time.sleep(2)
    written = Written(server, origin)
    rig.must_run(server)
    if once is None:
        raise bench.CannotMeasure(f"only {written.total():.0f} bytes were written to a disk of {disk} "
                                  f"in {time.monotonic() - begun:.0f} s, by {requests} requests")
    for name in sizes:
        bench.check_body(server, f"/z/{name}0000000/{name}", bodies[name])
    show(written, once if times > 1 else None, disk, objects, requests)
    evicted = servers.metric(server, "perigee_store_evicted_objects_total", tier="disk")
    print(f"{evicted:.0f} objects evicted from the disk")
    rig.stop(server)
    rig.stop(origin)
    if times == 1:
        return written.total() / written.stored()
    return (written.total() - once.total()) / (written.stored() - once.stored())


class Written:
    """What has been written since the start, and what was stored for it."""

    def __init__(self, server, origin):
        self.kinds = {kind: servers.metric(server, "perigee_disk_written_bytes_total", kind=kind)
                      for kind in KINDS}
        self.payload = servers.metric(server, "perigee_disk_payload_bytes_total")
        self.kernel = server.written_bytes()
        with open(origin.access_log) as log:
            self.fetched = [int(line) for line in log]

    def total(self):
        return sum(self.kinds.values())

    def stored(self):
        """Bytes of bodies stored: those that the origin sent.

        Where the disk took in less than that, because not all was admitted, what it took in, heads included.
        """
        return min(sum(self.fetched), self.payload)


def show(written, once, disk, objects, requests):
    fetched, stored = sum(written.fetched), written.stored()
    print(f"\nWritten to a disk of {disk / 2**20:.0f} MiB that was filled {written.total() / disk:.1f} times over "
          f"by {requests} requests for {objects} objects; {len(written.fetched)} were fetched, "
          f"with {fetched / 2**20:.0f} MiB of bodies")
    base = "bodies fetched" if stored == fetched else "bytes admitted (not all was)"
    rows = [(kind, written.kinds[kind], once and once.kinds[kind]) for kind in KINDS]
    rows += [("all", written.total(), once and once.total()), ("as the kernel counts", written.kernel, once and once.kernel)]
    bench.table(["kind", "MiB", f"÷ {base}", "after the first time over"], [
        (name, f"{count / 2**20:.0f}", f"{count / stored:.3f}",
         f"{(count - first) / (stored - once.stored()):.3f}" if once else "")
        for name, count, first in rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/disk.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: two short rounds, fewer objects, a smaller disk")
    parser.add_argument("--rounds", type=int, help="rounds per figure (5)")
    parser.add_argument("--objects", type=int, help="objects of 256 KiB to read (16384)")
    parser.add_argument("--writing", action="store_true", help="measure writing only")
    main(parser.parse_args())
