"""What `kill -9` at any moment does to the disk tier: wrong bytes, lost objects, and the time until it serves again.

The edge is killed at seeded moments under load and started again on the same state and disk. Each answer, before and
after, is compared byte for byte with what its URL says it must be. An answer that the kill cuts off is neither right nor
wrong; one that ends cleanly and is short or has a wrong byte is wrong. An object is kept when its first whole answer was
received more than 10 s before the kill and the first question for it after the restart is a hit; only whole objects
count, not ranges. An object that was lost counts once, and from its new answer on as stored again. Some starts are
killed too; nothing can be asked of those, so that they do not count as kills.
"""
import argparse
import http.client
import itertools
import json
import math
import multiprocessing
import os
import random
import sys
import time

import rig as bench
import servers
from crash_load import Tally, Visitors, judge
from crash_origin import Bodies

PROCESSES = 2
ANSWERS_MIN = 20_000
# The first life lasts so long that objects are settled at its end.
FIRST_LIFE = 13
LIFE_MIN, LIFE_MAX = 0.3, 5.5
START_KILLED = 0.1
PROBES = [f"/p/{number}/1024" for number in range(1000)]
PATIENCE = 120
# Enough that the clock's 10 ms ticks don't matter.
PURGES = 1000
SMALL = "x" * 100


def main(options):
    kills = options.kills or (6 if options.quick else 200)
    seed = random.randrange(2**32) if options.seed is None else options.seed

    def measure(rig):
        print(f"Seed {seed}")
        # 40 new objects a second of 240 KB on average, for 3 s on average.
        disk_gib = 2 + math.ceil(kills * 0.05)
        bench.need_disk(rig.dir, (disk_gib + 1) * 2**30)
        crashes = Crashes(rig, seed, f"{disk_gib}GiB")
        crashes.run(kills)
        crashes.show()
        if not options.quick and crashes.tally.answers < ANSWERS_MIN:
            raise bench.CannotMeasure(f"{crashes.tally.answers} answers are too few; {ANSWERS_MIN} are wanted")
        count = 50_000 if options.quick else 1_000_000
        million, purge_us, purged_served = restart_of_many(rig, seed, count)
        if not crashes.restarts or million is None:
            raise bench.CannotMeasure("no object was a hit after a restart: there is no restart to time")
        bench.result(kills=crashes.kills, answers=crashes.tally.answers, wrong=crashes.tally.wrong,
                     kept=f"{crashes.kept():.4f}", restart_ms=f"{bench.median(crashes.restarts):.1f}",
                     restart_max_ms=f"{max(crashes.restarts):.1f}", restart_1m_ms=f"{million:.1f}",
                     purge_us=f"{purge_us:.0f}", purged_served=purged_served)

    bench.run(measure)


class Crashes:
    """Many lives of one edge on one disk."""

    def __init__(self, rig, seed, disk):
        self.rig = rig
        self.chance = random.Random(f"{seed} moments")
        self.bodies = Bodies(seed)
        port = rig.port()
        self.origin = rig.start("origin", [sys.executable, bench.beside("crash_origin.py"), str(port), str(seed)], port)
        self.server = servers.perigee(rig, self.origin, bench.CORES, "64MiB", disk)
        self.tally, self.restarts = Tally(), []
        self.kills = self.starts_killed = self.asked_anyway = self.damage = self.evicted = 0
        self.probes = itertools.cycle(PROBES)
        self.visitors = []
        for number in range(PROCESSES):
            pipe, end = multiprocessing.get_context("fork").Pipe()
            visitors = Visitors(self.bodies, self.server.port, number, PROCESSES, servers.is_hit)
            multiprocessing.get_context("fork").Process(target=visitors.serve, args=(end,), daemon=True).start()
            self.visitors.append(pipe)

    def run(self, kills):
        for path in PROBES:
            self.ask(path)
        self.tell("load", None)
        time.sleep(FIRST_LIFE)
        for turn in range(kills):
            time.sleep(self.chance.uniform(LIFE_MIN, LIFE_MAX))
            killed = self.kill()
            self.start_again()
            bench.say(f"kill {turn + 1}: {self.tally.answers} answers, {self.tally.wrong} wrong, "
                      f"kept so far {self.kept():.4f}, " + (f"restart {self.restarts[-1]:.0f} ms" if self.restarts else "no hit yet"))
            self.tell("sweep" if turn == kills - 1 else "load", killed)
        # All that is settled is asked for after the last restart, not only what the load happened on.
        self.gather()
        self.rig.stop(self.server)
        self.rig.stop(self.origin)
        for pipe in self.visitors:
            pipe.close()

    def tell(self, order, moment):
        for pipe in self.visitors:
            pipe.send((order, moment))

    def gather(self):
        """Adds the life that ended, once all visitors have told theirs."""
        kept = set()
        for pipe in self.visitors:
            tally = pipe.recv()
            kept |= tally.kept_paths
            self.tally += tally
        _, _, asked = bench.fetch(self.origin, "/asked")
        self.asked_anyway += len(kept & set(json.loads(asked)))

    def kill(self):
        self.rig.must_run(self.server)
        self.damage += servers.metric(self.server, "perigee_disk_damaged_records_total")
        self.evicted += servers.metric(self.server, "perigee_store_evicted_objects_total", tier="disk")
        moment = self.rig.kill(self.server)
        self.kills += 1
        self.tell("end", moment)
        self.gather()
        return moment

    def start_again(self):
        """Starts the edge on what the last one left, and waits for the first hit or for the certainty that none comes."""
        if self.chance.random() < START_KILLED:
            self.starts_killed += 1
            self.server = servers.launch_again(self.rig, self.server, bench.CORES)
            time.sleep(self.chance.uniform(0, 0.1))
            self.rig.kill(self.server)
        begun = time.monotonic()
        self.server = servers.launch_again(self.rig, self.server, bench.CORES)
        milliseconds = first_hit(self.rig, self.server, begun, self.ask, itertools.islice(self.probes, len(PROBES)))
        if milliseconds is not None:
            self.restarts.append(milliseconds)

    def ask(self, path):
        """Asks once and checks the answer; whether it was a hit."""
        status, fields, body = bench.fetch(self.server, path)
        if status != 200:
            self.tally.other += 1
            return False
        self.tally.answers += 1
        if reason := judge(self.bodies, path, status, fields, body):
            self.tally.note_wrong(path, reason)
        return reason is None and servers.is_hit(fields)

    def kept(self):
        hits, asked = (sum(counts[place] for counts in self.tally.kept.values()) for place in (0, 1))
        return (hits - self.asked_anyway) / asked if asked else 0

    def show(self):
        tally = self.tally
        print(f"{self.kills} kills under load, {self.starts_killed} more while starting")
        bench.table(["what", "count"], [
            ("answers checked", tally.answers), ("of them ranges", tally.ranges), ("wrong or short", tally.wrong),
            ("other statuses", f"{tally.other} {tally.others or ''}".strip()), ("cut by a kill", tally.aborted),
            ("cut without a kill", tally.broken), ("restarts without a hit", self.kills - len(self.restarts)),
            ("hits that the origin was asked for", self.asked_anyway),
            ("damage that the edge counted", f"{self.damage:.0f}"), ("evicted from disk", f"{self.evicted:.0f}")])
        for text in tally.shown:
            print(f"  wrong: {text}")
        print()
        bench.table(["size", "asked after a restart", "hits", "kept"], [
            (name, asked, hits, f"{hits / asked:.4f}" if asked else "-") for name, (hits, asked) in tally.kept.items()])
        if self.restarts:
            print(f"\nFrom start to first hit, ms: {bench.spread(self.restarts, 1)}")
        if self.evicted:
            raise bench.CannotMeasure(f"{self.evicted:.0f} objects were evicted: what was lost cannot be told from them")


def first_hit(rig, server, begun, ask, paths):
    """Milliseconds from `begun`, just before the server was started, to its first right hit; None when all `paths` missed.

    A path is asked for once only: the second answer could be the first one's fill.
    """
    path = None
    while True:
        if time.monotonic() > begun + PATIENCE:
            raise bench.CannotMeasure(f"{server.name} does not answer {PATIENCE} s after its start:\n{server.log_tail()}")
        if path is None and (path := next(paths, None)) is None:
            return None
        try:
            if ask(path):
                return (time.monotonic() - begun) * 1000
        except (OSError, http.client.HTTPException):
            rig.must_run(server)
            time.sleep(0.001)
            continue
        path = None
        time.sleep(0.005)


def restart_of_many(rig, seed, count):
    """What `count` small objects on disk, all with one surrogate key, cost: milliseconds to the first hit after `kill -9`
    (None when there was none), CPU µs of a purge of them all, and how many of a thousand answered after a purge of them
    all and a `kill -9` right behind its acknowledgement.
    """
    bench.say(f"storing {count} small objects")
    origin = servers.nginx_words(rig, SMALL, "Surrogate-Key: all")
    server = servers.perigee(rig, origin, bench.CORES, "64MiB", "4GiB", log=False)
    servers.store_objects(server, "o", count)
    # What was fetched last may still be on its way to the disk.
    time.sleep(10)
    stored = servers.metric(server, "perigee_store_objects", tier="disk")
    chance = random.Random(f"{seed} many")
    paths = [f"/o/{number}" for number in chance.sample(range(1, count + 1), 20_000 + 1000)]
    server, milliseconds = after_kill(rig, server, iter(paths[1000:]))
    hits = sum(is_small_hit(server, path) for path in paths[:1000])
    purge_us = purge_all(server, PURGES)
    # The last one was acknowledged a moment ago.
    rig.kill(server)
    again = rig.await_port(servers.launch_again(rig, server, bench.CORES))
    served = sum(is_small_hit(again, path) for path in paths[:1000])
    print()
    bench.table(["small objects", "on disk before the kill", "of 1,000 kept", "first hit, ms", "CPU µs per purge of all",
                 "of 1,000 served after it and a kill"],
                [(count, f"{stored:.0f}", hits, "-" if milliseconds is None else f"{milliseconds:.1f}",
                  f"{purge_us:.0f}", served)])
    rig.stop(again)
    rig.stop(origin)
    return milliseconds, purge_us, served


def after_kill(rig, server, paths):
    """Kills a server and starts it again: the new one, and the milliseconds from its start to its first hit."""
    rig.kill(server)
    begun = time.monotonic()
    again = servers.launch_again(rig, server, bench.CORES)
    return again, first_hit(rig, again, begun, lambda path: is_small_hit(again, path), paths)


def is_small_hit(server, path):
    status, fields, body = bench.fetch(server, path)
    if status != 200 or body != SMALL.encode():
        raise bench.CannotMeasure(f"{server.name} answers {path} with {status} and {len(body)} bytes")
    return servers.is_hit(fields)


def purge_all(server, times):
    """CPU µs per acknowledged purge of the surrogate key that every object carries, HTTP and sync included."""
    with open(os.path.join(server.root, "admin-token")) as file:
        token = file.read().strip()
    connection = http.client.HTTPConnection("127.0.0.1", server.admin, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    before = server.cpu_us()
    for _ in range(times):
        connection.request("POST", "/v1/purge", json.dumps({"tags": ["all"]}), headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise bench.CannotMeasure(f"a purge was answered with {response.status}: {answer[:200]!r}")
    return (server.cpu_us() - before) / times


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/crash.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 6 kills, 50,000 small objects")
    parser.add_argument("--kills", type=int, help="kills under load (200)")
    parser.add_argument("--seed", type=int, help="what moments, sizes and bodies follow from (random, and printed)")
    main(parser.parse_args())
