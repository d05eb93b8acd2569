"""What an edge does with too little memory, and with twice what it can answer.

Memory: a control group lets it have 256 MiB (the page cache of its disk included). Visitors ask for ten times as much in objects of
64 KiB while a thousand slow readers each take an object of 1 GB, 4 KiB at a time. It must not be killed; each byte is compared.

Load: a control group lets it have a part of a core, so that the load generator can offer more than it can take. Each request is a
connection of its own, at times drawn beforehand, whatever earlier ones take. The peak is the most that came back at any rate; then
twice that is offered. What is not answered in 10 s is given up. Waits are counted from when a request was to be sent (`twice_p99_ms`),
and from when its connection was there (`admitted_p99_ms`): the system asks for one a second later again when it was let down.

As root alone: control groups, version 1 or 2.
"""
import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import re
import resource
import selectors
import socket
import sys
import threading
import time
import urllib.request

import rig as bench
import servers

MEMORY_MAX = 256 << 20
OBJECT_BYTES = 64 << 10
OBJECTS = 10 * MEMORY_MAX // OBJECT_BYTES
FILE_BYTES = 1 << 30
FILES = 10
READERS = 1000
SIP_BYTES = 4 << 10
# Of one core, in each of these periods: the kernel gives a millisecond at least.
CORE_SHARE = 0.02
PERIOD_US = 50_000
PATIENCE_S = 10
# By which the load generator may be late, and how often it may have been later.
LATE_MS_MAX = 500
ATTEMPTS = 3
# A prime, so that a slice in the wrong place shows.
BLOCK = servers.body_of(65_521)
CONTENT = BLOCK * 18
# What asking an edge that is in trouble may end with.
FAILURES = (OSError, http.client.HTTPException)


def main(options):
    seconds = 15 if options.quick else 60

    def measure(rig):
        figures = {**measure_memory(rig, seconds), **measure_load(rig, 8 if options.quick else 20)}
        bench.result(**figures)

    bench.run(measure)


# --- Control groups ---


class Group:
    """A control group of a process; gone when the `with` block is left, whatever still runs in it."""

    def __init__(self, controller):
        old = f"/sys/fs/cgroup/{controller}"
        self.is_old = os.path.isdir(old)
        self.above = old if self.is_old else "/sys/fs/cgroup"
        self.path = os.path.join(self.above, f"perigee-overload-{os.getpid()}")

    def __enter__(self):
        try:
            os.mkdir(self.path)
        except OSError as error:
            raise bench.CannotMeasure(f"control groups cannot be made here: {error}")
        return self

    def __exit__(self, *_):
        for _ in range(100):
            # A group that somebody is in cannot be removed.
            for pid in self.read("cgroup.procs").split():
                with contextlib.suppress(OSError), open(os.path.join(self.above, "cgroup.procs"), "w") as file:
                    file.write(pid)
            with contextlib.suppress(OSError):
                os.rmdir(self.path)
                return
            time.sleep(0.05)
        bench.say(f"{self.path} cannot be removed; do so when nobody is in it: rmdir {self.path}")

    def write(self, **values):
        for name, value in values.items():
            try:
                with open(os.path.join(self.path, name.replace("__", ".")), "w") as file:
                    file.write(str(value))
            except OSError as error:
                raise bench.CannotMeasure(f"{self.path}: {name} cannot be written: {error}")

    def read(self, name):
        with open(os.path.join(self.path, name)) as file:
            return file.read()

    def take(self, server):
        self.write(cgroup__procs=server.process.pid)


# --- Memory ---


def measure_memory(rig, seconds):
    origin = start_origin(rig)
    # As "Memory" in docs/operating.md says for so little.
    os.environ.update(MIMALLOC_ARENA_EAGER_COMMIT="0", MIMALLOC_PURGE_DELAY="0")
    edge = servers.perigee(rig, origin, memory="32MiB", disk="1GiB", cores=bench.CORES, edge="workers = 2")
    with Group("memory") as group:
        group.write(**({"memory__limit_in_bytes": MEMORY_MAX} if group.is_old else {"memory__max": MEMORY_MAX}))
        group.take(edge)
        readers, askers = Readers(edge), Askers(edge)
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=each, args=(until,), daemon=True) for each in [readers.read, *[askers.ask] * 8]]
        for thread in threads:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in threads):
            with contextlib.suppress(OSError), open(f"/proc/{edge.process.pid}/status") as status:
                most = max([most, *(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))])
            time.sleep(0.2)
        ended = edge.process.poll()
        kills = re.search(r"oom_kill (\d+)", group.read("memory.oom_control" if group.is_old else "memory.events"))
        if ended is None:
            counters = limits(edge)
        else:
            counters = {}
            bench.say(edge.log_tail())
        rig.stop(edge)
    del os.environ["MIMALLOC_ARENA_EAGER_COMMIT"], os.environ["MIMALLOC_PURGE_DELAY"]
    print(f"{MEMORY_MAX >> 20} MiB, {OBJECTS} objects of {OBJECT_BYTES >> 10} KiB, {READERS} readers of {FILES} objects of 1 GB, {seconds} s")
    bench.table(["", ""], [("answers to visitors", askers.good), ("refused (503)", askers.refused), ("failed", askers.failed),
                           ("wrong", askers.wrong + readers.wrong), ("readers that still read", readers.reading),
                           ("MiB that readers took", readers.taken >> 20), ("resident MiB at most", most >> 10),
                           *[(f"limit {name}", count) for name, count in counters.items()]])
    rig.stop(origin)
    return {"killed": int(ended is not None), "oom_kills": kills[1] if kills else "nan", "resident_max_mib": most >> 10,
            "answers": askers.good, "refused": askers.refused, "failed": askers.failed, "wrong": askers.wrong + readers.wrong,
            "readers": readers.reading, "shed": sum(counters.values())}


def limits(edge):
    """The limits that were reached, and how often."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{edge.admin}/metrics", timeout=30) as page:
            text = page.read().decode()
    except FAILURES as error:
        raise bench.CannotMeasure(f"the edge runs, and does not tell its metrics: {error}")
    found = re.findall(r'^perigee_limits_reached_total\{limit="([^"]+)"\} (\d+)$', text, re.M)
    return {name: int(count) for name, count in found if int(count) and name != "idle-time"}


class Readers:
    """A thousand visitors who take 1 GB each, a sip at a time."""

    def __init__(self, edge):
        self.edge, self.wrong, self.taken, self.reading = edge, 0, 0, 0

    def read(self, until):
        selector, states = selectors.DefaultSelector(), []
        for number in range(READERS):
            if time.monotonic() > until:
                break
            stream = socket.socket()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            # An edge that stands still is not waited for a thousand times.
            stream.settimeout(1)
            with contextlib.suppress(OSError):
                stream.connect(("127.0.0.1", self.edge.port))
                start = random.randrange(FILE_BYTES - (64 << 20)) if number % 2 else 0
                span = f"Range: bytes={start}-\r\n" if start else ""
                stream.sendall(f"GET /f/{number % FILES} HTTP/1.1\r\nHost: bench.example\r\n{span}\r\n".encode())
                stream.setblocking(False)
                states.append({"stream": stream, "at": start, "head": b""})
                selector.register(stream, selectors.EVENT_READ, states[-1])
        while time.monotonic() < until:
            round_ends = time.monotonic() + 1
            for key, _ in selector.select(timeout=1):
                if not self.sip(key.data):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    states.remove(key.data)
            time.sleep(max(0, round_ends - time.monotonic()))
        self.reading = sum(state["head"] is None for state in states)
        for state in states:
            state["stream"].close()

    def sip(self, state):
        try:
            data = state["stream"].recv(SIP_BYTES)
        except OSError:
            return False
        if not data:
            return False
        if state["head"] is not None:
            state["head"] += data
            head, found, data = state["head"].partition(b"\r\n\r\n")
            if not found:
                return True
            if head.split(b" ")[1] not in (b"200", b"206"):
                return False
            state["head"] = None
        self.taken += len(data)
        offset = state["at"] % len(BLOCK)
        self.wrong += data != CONTENT[offset:offset + len(data)]
        state["at"] += len(data)
        return True


class Askers:
    """Visitors who ask for one object after the other."""

    def __init__(self, edge):
        self.edge, self.good, self.refused, self.failed, self.wrong = edge, 0, 0, 0, 0

    def ask(self, until):
        while time.monotonic() < until:
            number = random.randrange(OBJECTS)
            try:
                status, _, body = bench.fetch(self.edge, f"/o/{number}")
            except FAILURES:
                self.failed += 1
                time.sleep(0.01)
                continue
            if status == 200:
                self.good += 1
                self.wrong += body != part(number, 0, OBJECT_BYTES)
            elif status == 503:
                self.refused += 1
            else:
                self.failed += 1


def part(number, start, end):
    offset = (number + start) % len(BLOCK)
    return CONTENT[offset:offset + end - start]


def start_origin(rig):
    port = rig.port()
    return rig.start("origin", [sys.executable, bench.beside("overload.py"), "--origin", str(port)], port, bench.CORES)


async def give(reader, writer):
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            _, kind, number = head.split(" ")[1].split("/")
            length = FILE_BYTES if kind == "f" else OBJECT_BYTES
            shift = 0 if kind == "f" else int(number)
            wanted = re.search(r"(?i)\r\nrange: bytes=(\d+)-(\d*)", head)
            start = int(wanted[1]) if wanted else 0
            end = min(int(wanted[2]) + 1, length) if wanted and wanted[2] else length
            span = f"Content-Range: bytes {start}-{end - 1}/{length}\r\n" if wanted else ""
            writer.write(f"HTTP/1.1 {'206 Partial Content' if wanted else '200 OK'}\r\nContent-Length: {end - start}\r\n{span}"
                         'ETag: "one"\r\nCache-Control: max-age=3600\r\n\r\n'.encode())
            while start < end:
                until = min(end, start + (256 << 10))
                writer.write(part(shift, start, until))
                await writer.drain()
                start = until


async def serve_origin(port):
    server = await asyncio.start_server(give, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


# --- Load ---


def measure_load(rig, seconds):
    origin = servers.nginx_words(rig, "x" * 1000)
    edge = servers.perigee(rig, origin, edge="workers = 1")
    servers_answer = bench.fetch(edge, "/hot")
    if servers_answer[0] != 200:
        raise bench.CannotMeasure(f"the edge answers {servers_answer[0]}")
    with Group("cpu") as group:
        quota = int(PERIOD_US * CORE_SHARE)
        group.write(**({"cpu__cfs_period_us": PERIOD_US, "cpu__cfs_quota_us": quota} if group.is_old else {"cpu__max": f"{quota} {PERIOD_US}"}))
        group.take(edge)
        rows, peak, rate = [], 0, 100
        while True:
            found = offer(rig, edge, rate, seconds / 2)
            rows.append(row(found))
            peak = max(peak, found["good"])
            if found["good"] < 0.9 * rate:
                break
            rate = int(rate * 1.4)
        if not peak:
            raise bench.CannotMeasure(f"the edge answered nothing at {rate} per second")
        twice = offer(rig, edge, 2 * peak, seconds)
        rows.append(row(twice))
        after = offer(rig, edge, peak / 2, seconds / 2)
        rows.append(row(after))
        rig.must_run(edge)
        rig.stop(edge)
    print(f"A connection for each request, {CORE_SHARE:.0%} of a core; the last two: twice the peak, then half of it")
    bench.table(["offered per s", "answered per s", "p50 ms", "p99 ms", "p99 ms once connected", "failed"], rows)
    return {"peak_per_s": f"{peak:.0f}", "twice_per_s": f"{twice['good']:.0f}", "twice_of_peak": f"{twice['good'] / peak:.2f}",
            "twice_p99_ms": f"{twice['p99_ms']:.0f}",
            "admitted_p99_ms": f"{twice['admitted_p99_ms']:.0f}", "after_p99_ms": f"{after['p99_ms']:.0f}"}


def row(found):
    return (f"{found['offered']:.0f}", f"{found['good']:.0f}", f"{found['p50_ms']:.1f}", f"{found['p99_ms']:.1f}", f"{found['admitted_p99_ms']:.1f}", found["failed"])


def offer(rig, edge, rate, seconds):
    argv = [sys.executable, bench.beside("overload.py"), "--offer", str(edge.port), str(rate), str(seconds)]
    # A moment in which the machine had no time for the generator is no reason to throw all away.
    for _ in range(ATTEMPTS):
        found = json.loads(bench.run_load(argv))
        if found["late_ms"] <= LATE_MS_MAX:
            return found
        bench.say(f"the load generator was {found['late_ms']:.0f} ms late at {rate:.0f} per second")
        rig.must_run(edge)
    raise bench.CannotMeasure(f"the load generator was late {ATTEMPTS} times in a row; try again when nothing else runs")


class One(asyncio.Protocol):
    """One request on a connection of its own."""

    def __init__(self, done):
        self.done, self.got = done, b""

    def connection_made(self, transport):
        transport.write(b"GET /hot HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n")

    def data_received(self, data):
        self.got += data

    def connection_lost(self, error):
        if not self.done.done():
            self.done.set_result(error is None and self.got.startswith(b"HTTP/1.1 200") and self.got.endswith(b"x" * 1000))


async def offer_here(port, rate, seconds):
    loop, times, failed, late, asked = asyncio.get_running_loop(), [], 0, 0, set()

    async def ask(due):
        nonlocal failed
        done, transport = loop.create_future(), None
        try:
            async with asyncio.timeout(PATIENCE_S):
                transport, _ = await loop.create_connection(lambda: One(done), "127.0.0.1", port)
                admitted = loop.time()
                is_good = await done
        except OSError:
            is_good = False
        finally:
            # Who gives up goes away.
            if transport is not None:
                transport.abort()
        if is_good:
            times.append((loop.time(), loop.time() - due, loop.time() - admitted))
        else:
            failed += 1

    begun = due = loop.time()
    while due < begun + seconds:
        due += random.expovariate(rate)
        await asyncio.sleep(max(0, due - loop.time()))
        late = max(late, loop.time() - due)
        task = asyncio.ensure_future(ask(due))
        asked.add(task)
        task.add_done_callback(asked.discard)
    # What comes back while requests are offered is the throughput; the first fifth fills queues.
    since, until = begun + seconds / 5, loop.time()
    await asyncio.gather(*asked)
    good = [took for at, took, _ in times if since <= at <= until]
    waits = sorted(took for _, took, _ in times)
    admitted = sorted(took for _, _, took in times)
    print(json.dumps({"offered": rate, "good": len(good) / (until - since), "failed": failed, "late_ms": late * 1e3,
                      "p50_ms": part_ms(waits, 50), "p99_ms": part_ms(waits, 99), "admitted_p99_ms": part_ms(admitted, 99)}))


def part_ms(seconds, percent):
    """What so many percent are below, of a sorted list."""
    return seconds[len(seconds) * percent // 100] * 1e3 if seconds else float("nan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--origin", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--offer", nargs=3, type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (bench.FILES_MAX, bench.FILES_MAX))
    if arguments.origin:
        asyncio.run(serve_origin(arguments.origin))
    elif arguments.offer:
        asyncio.run(offer_here(int(arguments.offer[0]), *arguments.offer[1:]))
    else:
        main(arguments)
