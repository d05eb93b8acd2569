"""How well `perigee advise` predicts what its proposals bring, and whether it finds what is wrong and nothing else.

An edge serves each of the three workloads of replay.py under a plain configuration and logs it. For each proposal that is made from that
log, an edge with the proposal's configuration serves the same requests at the same times, and `advise --verify` says what came of it.
What is replayed is compared in points; an estimate (compression, visits of browsers) is shown, and does not count.

Then thirteen kinds of faults are planted in one site, each under a path of its own: all must be found. A site without faults must get no
proposal.
"""
import argparse
import json
import os
import random
import subprocess

import replay as workloads
import rig as bench

SEED = 11

# A fault, the path that it is planted under, and how its rule reads, where one is the fault.
PLANTED = {
    "missing-ttl": ("silent", ""),
    "short-ttl": ("short", ""),
    "query-noise": ("noise", ""),
    "query-order": ("order", ""),
    "set-cookie": ("cookie", ""),
    "useless-vary": ("lang", ""),
    "useless-key": ("keyed", 'key = { cookies = ["seen"] }'),
    "no-validators": ("plain", ""),
    "uncompressed": ("raw", "compress = false"),
    "short-browser-ttl": ("hashed", ""),
    "uncached-errors": ("gone", ""),
    "no-stale-while-revalidate": ("stale", ""),
    "cache-off": ("off", "cache = false"),
}
HEALTHY = 'stale_while_revalidate = "1m"\nstale_if_error = "1d"\n'
FAULTY = "".join(f'[[site.rule]]\npath = "/{path}/*"\n{rule}\n' for path, rule in PLANTED.values() if rule)


def planted(count):
    """Requests for few objects under each path, so that each is asked for a dozen times."""
    dice = random.Random(SEED)
    objects = count // 150
    kinds = [path for path, _ in PLANTED.values()]
    requests = []
    for place in range(count):
        kind = kinds[place % len(kinds)]
        number = dice.randrange(objects)
        more = f"Accept-Language: {dice.choice(['de', 'en', 'fr'])}\r\n" if kind == "lang" else ""
        if kind == "keyed":
            more = f"Cookie: seen={dice.randrange(9)}\r\n"
        query = {"noise": f"?utm_source={dice.randrange(9)}", "order": dice.choice(["?a=1&b=2", "?b=2&a=1"])}.get(kind, "")
        # Names that hold a hash, where that is what it is about; else numbers.
        length = (12_000 if kind == "plain" else 3000) + number
        name = f"{number:04}a9c2b7e1-{length}" if kind == "hashed" else f"{number}-{length}"
        extension = "html" if kind in ("noise", "order", "lang", "keyed", "stale", "gone") else "css"
        requests.append((f"/{kind}/{name}.{extension}{query}", more))
    return requests


def healthy(count):
    """Files with a hash in their name, and pages; all live long and have validators, and parameters that count."""
    dice = random.Random(SEED + 1)
    requests = []
    for place in range(count):
        number = dice.randrange(60)
        requests.append([(f"/well/{number:02}a9c2b7e1-{3000 + number}.css", ""), (f"/well/{number:02}3f9a1c2b-{9000 + number}.png", ""),
                         (f"/well/{number}-{4000 + number}.html?page={number}", "")][place % 3])
    return requests


def perigee(*argv):
    return subprocess.run([os.environ["PERIGEE"], *argv], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def advise(server):
    done = perigee("advise", "--log", server.log, "--config", server.config, "--json")
    if done.returncode != 0:
        raise bench.CannotMeasure(f"perigee advise: {done.stderr}")
    return json.loads(done.stdout)


def rerun(rig, server, origin, proposal, requests, seconds):
    """Serves the requests with a proposal applied; how late the last one was."""
    if proposal["faults"] == ["no-validators"]:
        # The one that its owner applies at the origin: paths say which kinds it is about.
        better = workloads.origin_of(rig, *{pattern.split("/")[1] for pattern in proposal["scope"]})
        with open(server.config) as config:
            text = config.read().replace(f"127.0.0.1:{origin.port}", f"127.0.0.1:{better.port}")
    else:
        better = None
        drafted = perigee("advise", "--log", server.log, "--config", server.config, "--draft", str(proposal["number"]))
        if drafted.returncode != 0:
            raise bench.CannotMeasure(f"perigee advise --draft: {drafted.stderr}")
        text = drafted.stdout
    again = workloads.start(rig, lambda root: text.replace(server.root, root))
    late = workloads.run(rig, again, requests, seconds)
    if better:
        rig.stop(better)
    return again, late


def measure_workload(rig, make, memory, count, seconds):
    """A row for each proposal, and the worst error of those that are replayed."""
    requests = make(count)
    origin = workloads.origin_of(rig)
    recorded, _ = workloads.serve(rig, origin, workloads.PLAIN, memory, requests, seconds)
    said = advise(recorded)
    proposals = rig.write(f"{make.__name__}.json", json.dumps(said))
    rows, errors = [], []
    for proposal in said["proposals"]:
        number, faults = proposal["number"], " and ".join(proposal["faults"])
        again, late = rerun(rig, recorded, origin, proposal, requests, seconds)
        verified = perigee("advise", "--verify", proposals, "--only", str(number), "--log", again.log, "--json")
        try:
            verdict = json.loads(verified.stdout)["verdicts"][0]
        except (ValueError, KeyError, IndexError) as strange:
            raise bench.CannotMeasure(f"perigee advise --verify: {verified.stderr}") from strange
        before, after, measured = proposal["before"], proposal["after"], verdict["measured"]
        # Shares are what they are; amounts, in hundredths of what there was.
        scale = max(before, 1e-9) if "bytes" in proposal["metric"] else 1
        error = abs(after - measured) / scale * 100
        if not proposal["is_estimate"]:
            errors.append(error)
        rows.append((make.__name__, faults, proposal["metric"], *(f"{value:.4g}" for value in (before, after, measured)),
                     f"{error:.2f}{' (estimate)' if proposal['is_estimate'] else ''}", f"{late:.1f}"))
    rig.stop(origin)
    return rows, errors


def find(rig, make, rules, count, seconds):
    """The faults that are found in a workload."""
    requests = make(count)
    origin = workloads.origin_of(rig)
    recorded, _ = workloads.serve(rig, origin, rules, 256, requests, seconds)
    found = [fault for proposal in advise(recorded)["proposals"] for fault in proposal["faults"]]
    rig.stop(origin)
    return found


def main(options):
    count, seconds = (6_000, 12) if options.quick else (24_000, 40)

    def measure(rig):
        rows, errors = [], []
        # The memory that each is recorded with: enough, but for the one that is about eviction.
        for make, memory in ((workloads.shop, 256), (workloads.media, 16), (workloads.trace, 256)):
            more, wrong = measure_workload(rig, make, memory, count, seconds)
            rows += more
            errors += wrong
        found = set(find(rig, planted, FAULTY, count, seconds))
        needless = find(rig, healthy, HEALTHY, count, seconds)
        print(f"{count} requests in {seconds} s per run; each proposal's configuration serves what it was made from")
        bench.table(["workload", "fault", "metric", "before", "predicted", "measured", "error, points", "late, s"], rows)
        missing = [fault for fault in PLANTED if fault not in found]
        print(f"planted and not found: {', '.join(missing) or 'none'}; proposed for a healthy site: {', '.join(needless) or 'nothing'}")
        if not errors:
            raise bench.CannotMeasure("no proposal was made that replay has predicted")
        bench.result(worst_error_points=round(max(errors), 2), proposals=len(errors), found=len(PLANTED) - len(missing),
                     planted=len(PLANTED), healthy_proposals=len(needless))

    bench.run(measure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests")
    main(parser.parse_args())
