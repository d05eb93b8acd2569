"""What floods cost a visitor who behaves: its latency with each of them against without, and what memory they take.

A visitor asks on one connection of HTTP/2 every few milliseconds, and times each answer. A flood comes from one process, on
the visitor's core and behind it in priority: it begins anew as often as the server ends its connection. The server has the
other core. Each second of a flood is followed by one in which it stands still, as the machine may have other things to do,
which both seconds then share.

Then browsers: many connections with pages of many requests, left in the middle, with pings and window updates. None of
them may reach a limit.
"""
import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time

import rig as bench
import servers

sys.path.insert(0, bench.beside("../e2e/http2"))
import floods
import wire

PATH, SIZE = "/1k", servers.SIZES["1k"]
INTERVAL = 0.004
BROWSERS, PAGES, REQUESTS = 8, 25, 60
# What a page is made of.
PAGE = ["/1k", "/1k", "/10k", "/10k", "/10k", "/100k"]


# --- The visitor ---


def latencies(port, seconds):
    """Seconds from each request to the end of its answer."""
    connection = wire.Wire(port).begin()
    connection.say(wire.window_update(0, 0x7FFFFFFF - wire.WINDOW))
    taken, stream = [], 1
    end = time.monotonic() + seconds
    due = time.monotonic()
    while due < end:
        time.sleep(max(0, due - time.monotonic()))
        begin = time.monotonic()
        connection.say(wire.request(connection, stream, wire.get(PATH)))
        seen = connection.until(lambda got: got.kind in (wire.DATA, wire.HEADERS) and got.flags & wire.END_STREAM
                                or got.kind in (wire.RST_STREAM, wire.GOAWAY))
        if seen[-1] is None or seen[-1].kind in (wire.RST_STREAM, wire.GOAWAY):
            raise bench.CannotMeasure(f"a visitor who behaves was disturbed: {seen[-1]}")
        taken.append(time.monotonic() - begin)
        stream += 2
        due = max(due + INTERVAL, time.monotonic())
    connection.close()
    return taken


def p99(taken):
    return sorted(taken)[len(taken) * 99 // 100]


# --- Floods ---


def flood_again(port, name, seconds, count):
    """Floods for so long, with a new connection whenever one is ended."""
    # Behind the visitor; the kernel lets only root go ahead of others.
    os.setpriority(os.PRIO_PROCESS, 0, 0 if os.geteuid() == 0 else 19)
    os.sched_setaffinity(0, {bench.LOAD_CORE})
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        # The server may end it in the middle of its beginning.
        with contextlib.suppress(OSError, AssertionError):
            if name == "handshakes":
                wire.tls_socket(port).close()
            else:
                flood = next(flood for flood in floods.FLOODS if flood.name == name)
                connection = wire.Wire(port).begin()
                flood.run(connection, left)
                connection.close()
        count.value += 1


def beside_flood(server, name, seconds):
    """The visitor's latencies without and with a flood that runs for so long, and what the flood did."""
    count = multiprocessing.Value("L", 0)
    process = multiprocessing.Process(target=flood_again, args=(server.port, name, 2 * seconds, count))
    process.start()
    without, taken, spent = [], [], 0
    try:
        for _ in range(seconds):
            os.kill(process.pid, signal.SIGCONT)
            before = server.cpu_us()
            taken += latencies(server.port, 1)
            spent += server.cpu_us() - before
            os.kill(process.pid, signal.SIGSTOP)
            without += latencies(server.port, 1)
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.join()
    return without, taken, count.value, spent / seconds / 1e6


# --- Browsers ---


def browse(server, pages):
    """What a browser does with a site: pages of many requests, left in the middle again and again."""
    chance = random.Random(1)
    for _ in range(BROWSERS):
        connection = wire.Wire(server.port).begin((wire.INITIAL_WINDOW_SIZE, 6 << 20), (wire.HEADER_TABLE_SIZE, 65536))
        connection.say(wire.window_update(0, 15 << 20))
        stream = 1
        for page in range(pages):
            asked = []
            for _ in range(REQUESTS):
                connection.say(wire.request(connection, stream, wire.get(chance.choice(PAGE))))
                asked.append(stream)
                stream += 2
            connection.say(wire.frame(wire.PRIORITY_UPDATE, 0, 0, asked[0].to_bytes(4, "big") + b"u=1") * 3)
            if page % 3 == 0:
                # Gone to the next page before this one has come.
                connection.say(b"".join(wire.rst_stream(number) for number in asked[REQUESTS // 3:]))
                asked = asked[:REQUESTS // 3]
            missing = set(asked)
            while missing:
                got = connection.next()
                if got is None or got.kind == wire.GOAWAY:
                    raise bench.CannotMeasure(f"a browser was sent away: {got}")
                if got.kind == wire.DATA and got.payload:
                    connection.say(wire.window_update(0, len(got.payload)))
                if got.flags & wire.END_STREAM and got.kind in (wire.DATA, wire.HEADERS) or got.kind == wire.RST_STREAM:
                    missing.discard(got.stream)
            connection.say(wire.ping())
            # A page is looked at for a while.
            time.sleep(0.05)
        connection.close()


def main(options):
    seconds = options.seconds or (2 if options.quick else 20)
    names = [*(flood.name for flood in floods.FLOODS), "handshakes"]
    if options.only is not None:
        names = [name for name in names if options.only in name]
        if not names:
            sys.exit(f"bench/abuse.sh: no flood's name contains {options.only!r}")

    def measure(rig):
        os.sched_setaffinity(0, {bench.LOAD_CORE})
        if os.geteuid() == 0:
            # The server's and the visitor's, so that other work on the machine is not measured.
            os.setpriority(os.PRIO_PROCESS, 0, -15)
        port = rig.port()
        origin = rig.start("origin", [sys.executable, bench.beside("abuse_origin.py"), str(port)], port, {bench.LOAD_CORE})
        server = servers.perigee(rig, origin, tls=True)
        for name, size in servers.SIZES.items():
            bench.check_body(server, f"/{name}", servers.body_of(size))

        def limits():
            return servers.metric(server, "perigee_limits_reached_total")

        browse(server, 3 if options.quick else PAGES)
        if reached := limits():
            raise bench.CannotMeasure(f"browsers reached limits {reached:.0f} times")
        bench.say(f"{BROWSERS} browsers reached no limit")
        # What the server keeps for its busiest moment is no growth of a flood.
        latencies(server.port, 1)
        before = server.memory_bytes()
        rows, worst, most = [], 0.0, 0.0
        for name in names:
            reached = limits()
            without, taken, connections, cpu = beside_flood(server, name, seconds)
            grown = (server.memory_bytes() - before) / 2**20
            ratio = p99(taken) / p99(without)
            worst, most = max(worst, ratio), max(most, grown)
            if name != "handshakes" and limits() == reached:
                raise bench.CannotMeasure(f"{name}: no limit was reached")
            bench.say(f"{name}: {ratio:.2f}")
            rows.append((name, f"{p99(without) * 1e3:.2f}", f"{p99(taken) * 1e3:.2f}", f"{ratio:.2f}", f"{grown:.1f}",
                         connections, f"{cpu:.2f}"))
            bench.check_body(server, PATH, servers.body_of(SIZE))
        print(f"Latency of hits of 1 KiB over HTTP/2, one every {INTERVAL * 1e3:.0f} ms, ms, p99, while a flood runs for "
              f"{seconds} s; server on core {bench.SERVER_CORE}, visitor and flood on core {bench.LOAD_CORE}; growth of memory "
              f"since before the first flood, MiB; connections that the flood took; cores that the server then used")
        bench.table(("flood", "without", "with", "ratio", "MiB", "connections", "cores"), rows)
        bench.result(worst_p99_ratio=f"{worst:.2f}", memory_mib=f"{most:.1f}")

    bench.run(measure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/abuse.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute")
    parser.add_argument("--seconds", type=int, help="how long each flood runs; 20 unless told")
    parser.add_argument("--only", metavar="WORDS", help="only the floods whose names contain this, to look at one again")
    main(parser.parse_args())
