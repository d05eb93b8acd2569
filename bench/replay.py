"""How well `perigee replay` predicts, and how fast it reads.

For each workload an edge serves it under a plain configuration and logs it. From that log, `replay` predicts the hit ratios of
a draft with two sizes of memory. Then edges with the draft serve the same requests at the same times, and what they
measured is compared: by requests and by bytes. The speed is that of a log of a million lines, made of the recorded ones.
"""
import argparse
import asyncio
import gzip
import json
import os
import random
import struct
import subprocess
import sys
import time

import rig as bench

SEED = 7
CONNECTIONS = 24
LINES = 1_000_000

PLAIN = ""
DRAFT = """
query = { drop = ["utm_*"] }
[[site.rule]]
path = "/silent/*"
ttl = "1h"
[[site.rule]]
path = "/cookie/*"
set_cookie = "strip"
[[site.rule]]
path = "/plain/*"
ttl = "20s"
[[site.rule]]
path = "/lang/*"
vary = { "accept-language" = "presence" }
"""


# --- Workloads: lists of (target, header lines) ---


def shop(count):
    """Pages, styles, scripts and pictures of a shop: every way of being cached badly, with campaign parameters."""
    dice = random.Random(SEED)
    kinds = [("long", "css", 30, 6e3), ("short", "html", 150, 2e4), ("plain", "html", 200, 1.5e4), ("silent", "js", 150, 2e4),
             ("cookie", "css", 100, 1e4), ("lang", "html", 150, 2e4), ("mine", "html", 400, 8e3), ("long", "png", 3000, 3e4)]
    shares = [12, 14, 12, 10, 8, 10, 6, 28]
    sizes = random.Random(SEED + 1)
    tables = [[(number, size(sizes, median)) for number in range(titles)] for _, _, titles, median in kinds]
    requests = []
    for _ in range(count):
        index = dice.choices(range(len(kinds)), shares)[0]
        kind, extension, titles, _ = kinds[index]
        number, length = tables[index][zipf(dice, titles, 0.9)]
        query = f"?utm_source={dice.randrange(9)}" if dice.random() < 0.3 else ""
        language = dice.choices(["de", "en", "fr-FR, fr", "en, de"], [5, 3, 1, 1])[0]
        requests.append((f"/{kind}/{index}{number}-{length}.{extension}{query}", f"Accept-Language: {language}\r\n"))
    return requests


def media(count):
    """Few requests per object, and large ones among them: eviction decides."""
    dice = random.Random(SEED + 2)
    sizes = random.Random(SEED + 3)
    titles = [(number, size(sizes, 12e3 * (1 + number / 1000), 1.4)) for number in range(6000)]
    requests = []
    for place in range(count):
        if dice.random() < 0.15:
            number, length = 100_000 + place, size(dice, 3e4, 1.4)
        else:
            number, length = titles[zipf(dice, len(titles), 0.8)]
        requests.append((f"/long/{number}-{length}.bin", ""))
    return requests


def trace(count):
    """A recorded shop page of 2013, without sizes, which are drawn; the workload `media` where the trace is not there."""
    path = os.path.join(os.environ.get("PERIGEE_TRACES", bench.beside("../../shared/traces")), "web12.trace.xz")
    if not os.path.exists(path):
        print(f"{path} is not there: a generated one in its place", file=sys.stderr)
        return media(count)[::-1]
    packed = subprocess.run(["xz", "-dc", path], capture_output=True, check=True).stdout
    numbers = [number for (number,) in struct.iter_unpack(">I", packed[: 4 * count])]
    kinds = ["long", "long", "long", "plain", "silent", "short"]

    def target(number):
        own = random.Random(number)
        kind = own.choice(kinds)
        query = "?utm_campaign=a" if own.random() < 0.2 else ""
        return f"/{kind}/{number}-{size(own, 8e3)}.png{query}"

    return [(target(number), "") for number in numbers]


def size(dice, median, sigma=1.0):
    return int(min(2e6, max(60, dice.lognormvariate(0, sigma) * median)))


def zipf(dice, titles, alpha):
    """A rank that falls about like 1 / rank^alpha."""
    return min(titles - 1, int(titles * dice.random() ** (1 / (1 - min(alpha, 0.95) * 0.8))))


# --- Serving ---


def origin_of(rig, *tagged):
    """The origin; what is of these kinds has an ETag, too."""
    port = rig.port()
    return rig.start("origin", [sys.executable, bench.beside("replay_origin.py"), str(port), *tagged], port)


def edge(rig, origin, rules, memory):
    return start(rig, lambda root: f"""
[edge]
access_log = "{root}/access.log"
[store]
memory = "{memory}MiB"
[[site]]
name = "bench"
domains = ["*"]
origin = "http://127.0.0.1:{origin.port}"
{rules}""")


def start(rig, config_in):
    """Starts an edge with the configuration for its directory."""
    port, admin = rig.port(), rig.port()
    root = rig.path(f"perigee-{port}")
    config = rig.write(f"perigee-{port}/perigee.toml", config_in(root))
    argv = [os.environ["PERIGEE"], "serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}",
            "--state", root, "--config", config]
    server = rig.start("perigee", argv, port)
    server.root, server.config, server.log = root, config, f"{root}/access.log"
    return server


async def drive(port, requests, seconds):
    """Asks for all at their times, on connections that take turns; how late the last one was."""
    begin = time.monotonic()
    step = seconds / len(requests)
    turn = iter(enumerate(requests))
    late = 0.0

    async def visitor():
        nonlocal late
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number, (target, more) in turn:
            due = begin + number * step
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            late = max(late, time.monotonic() - due)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: shop.test\r\n{more}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            # What is not there is a part of some workloads.
            if (" 404 " if target.startswith("/gone/") else " 200 ") not in head.split("\r\n", 1)[0]:
                raise bench.CannotMeasure(f"GET {target} was answered with {head!r}")
            await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        writer.close()

    await asyncio.gather(*(visitor() for _ in range(CONNECTIONS)))
    return late


def serve(rig, origin, rules, memory, requests, seconds):
    """Runs one edge over the requests; its log and configuration stay."""
    server = edge(rig, origin, rules, memory)
    return server, run(rig, server, requests, seconds)


def run(rig, server, requests, seconds):
    """Has a started edge serve the requests, and stops it when its log has them all; how late the last one was."""
    late = asyncio.run(drive(server.port, requests, seconds))
    deadline = time.monotonic() + 20
    while count_lines(server.log) < len(requests):
        if time.monotonic() > deadline:
            raise bench.CannotMeasure(f"{server.log} has {count_lines(server.log)} of {len(requests)} lines")
        time.sleep(0.2)
    rig.stop(server)
    return late


def count_lines(path):
    with open(path, "rb") as log:
        return sum(1 for _ in log)


def measured(path):
    """Hit ratios by requests and bytes, as the log tells them."""
    requests = hits = bytes_all = bytes_hit = 0
    with open(path) as log:
        for line in map(json.loads, log):
            requests += 1
            bytes_all += line["body_bytes"]
            if line["outcome"] == "hit":
                hits += 1
                bytes_hit += line["body_bytes"]
    return hits / requests, bytes_hit / bytes_all


def predict(log, config):
    done = subprocess.run([os.environ["PERIGEE"], "replay", "--log", log, "--config", config, "--json"],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise bench.CannotMeasure(f"perigee replay: {done.stderr}")
    totals = json.loads(done.stdout)["report"]["predicted"][0]
    return totals["hit_ratio"], totals["byte_hit_ratio"]


def main(options):
    count, seconds = (6_000, 12) if options.quick else (24_000, 40)

    def measure(rig):
        rows, worst, logs = [], 0.0, []
        for make in (shop, media, trace):
            requests = make(count)
            footprint = sum({target.partition("?")[0]: int(target.partition("?")[0].rpartition("-")[2].partition(".")[0])
                             for target, _ in requests}.values()) / 2**20
            origin = origin_of(rig)
            recorded, late = serve(rig, origin, PLAIN, 256, requests, seconds)
            logs.append(recorded.log)
            plain = measured(recorded.log)[0]
            for share in (0.06, 0.5):
                memory = max(2, round(footprint * share))
                rerun, rerun_late = serve(rig, origin, DRAFT, memory, requests, seconds)
                by_requests, by_bytes = measured(rerun.log)
                said, said_bytes = predict(recorded.log, rerun.config)
                errors = [abs(said - by_requests) * 100, abs(said_bytes - by_bytes) * 100]
                worst = max(worst, *errors)
                rows.append((make.__name__, f"{memory} MiB", f"{plain:.1%}", f"{said:.2%}", f"{by_requests:.2%}",
                             f"{said_bytes:.2%}", f"{by_bytes:.2%}", f"{max(errors):.2f}", f"{max(late, rerun_late):.1f}"))
            rig.stop(origin)
        print(f"{count} requests in {seconds} s per run; the draft is predicted from the log of the plain configuration")
        bench.table(["workload", "memory", "plain", "predicted", "measured", "bytes predicted", "bytes measured",
                     "worst error, points", "late, s"], rows)
        bench.result(worst_error_points=round(worst, 2), lines_per_s=speed(rig, logs, recorded.config))

    bench.run(measure)


def speed(rig, logs, config):
    """Lines per second of a log of a million lines, gzipped as old logs are."""
    lines = [line for log in logs for line in open(log, "rb")]
    packed = rig.path("million.log.gz")
    with gzip.open(packed, "wb", compresslevel=1) as out:
        for start in range(0, LINES, len(lines)):
            out.writelines(lines[: LINES - start])
    begin = time.monotonic()
    predict(packed, config)
    return int(LINES / (time.monotonic() - begin))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests")
    main(parser.parse_args())
