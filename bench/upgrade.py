"""What visitors lose when a running edge is replaced by a new binary, several times in a row, under load.

Over HTTP/1.1 in TLS, HTTP/2 and HTTP/3, one after the other. Each second has hundreds of new connections, a thousand that are
kept, and downloads that outlast all the upgrades; each byte of each answer is compared. Between two upgrades the binary is one that dies at start: that must change nothing, and is
refused with the reason. A failure is a request without its whole right answer, after what HTTP lets a client do by itself: see
upgrade_load.py and, for HTTP/2 and HTTP/3, crates/world/src/bin/visitors.rs. An upgrade counts when the process that serves is another one afterwards.

First the same load comes without any upgrade: what fails then is the machine's doing. Both counts are shown, and of each those
whose time touches an upgrade, or the same moments of the load without any.
"""
import argparse
import collections
import json
import multiprocessing
import os
import subprocess
import sys
import time

import rig as bench
import servers
import upgrade_load

PROCESSES = 2
UPGRADES = 5
BROKEN = "#!/bin/sh\necho this binary is broken >&2\nexit 3\n"
PATIENCE = 120
LOAD_PATIENCE = 1800

# How long after an upgrade's answer what fails may still be its doing: the old processes learn within a tick of 250 ms.
AFTERMATH = 1


# What is told beside the failures: limits that the edge reached, and packets of HTTP/3 that were lost on their way in, by queue.
TOLD_LIMITS = {"handshake-time": "handshakes over their time", "handshakes-unproven": "asked to show where they are (Retry)"}
TOLD_QUEUES = {"socket": "packets dropped at the sockets", "worker": "between workers", "process": "between processes"}

# By default each of those that matter on the internet.
PROTOCOLS = "h1-tls", "h2", "h3"


def main(options):
    share = 20 if options.quick else options.share
    sizes = [max(1, count // share // PROCESSES) * PROCESSES for count in (30_000, 1000, 100)]
    seconds = (10, 8) if options.quick else (options.seconds, options.seconds * 2 // 3)

    def measure(rig):
        port = rig.port()
        origin = rig.start("origin", [sys.executable, bench.beside("upgrade_origin.py"), str(port)], port)
        runs, alone = {}, {}
        for protocol in [options.protocol] if options.protocol else PROTOCOLS:
            bench.say(f"{protocol}, without upgrades")
            alone[protocol] = Alone(rig, origin, protocol, options.disk, sizes, seconds)
            bench.say(protocol)
            runs[protocol] = Run(rig, origin, protocol, options.disk, sizes, seconds)
        print(f"Visitors' answers over {UPGRADES} upgrades and one that is refused: {sizes[0]} new connections in {seconds[0]} s, "
              f"{sizes[1]} kept ones, {sizes[2]} downloads of {seconds[1]} s")
        columns = [(name, run) for protocol in runs for name, run in
                   ((f"{protocol} alone", alone[protocol]), (protocol, runs[protocol]))]
        lines = [("new connections", "new"), ("requests on kept connections", "kept"),
                 ("connections told to close", "told_to_close"), ("requests asked again by HTTP's rules", "asked_again"),
                 ("downloads", "downloads")]
        rows = [(name, *(getattr(run.tally, count) for _, run in columns)) for name, count in lines]
        rows.append(("failures", *(len(run.tally.failed) for _, run in columns)))
        moments = [runs[protocol].moments for protocol in runs for _ in range(2)]
        touching = [run.touching(of) for (_, run), of in zip(columns, moments)]
        rows.append(("of them under way at an upgrade, or at the same moments", *map(len, touching)))
        begun = [run.touching(of, "began") for (_, run), of in zip(columns, moments)]
        rows.append(("of them begun there", *map(len, begun)))
        for title, number in [("upgrades", lambda run: run.upgrades), ("ms from request to answer of an upgrade", lambda run: bench.spread(run.took, 0)),
                              ("old processes that ended with their last connection", lambda run: run.ended)]:
            rows.append((title, *("" if run in alone.values() else number(run) for _, run in columns)))
        rows.extend((title, *(run.counts[key] for _, run in columns)) for key, title in {**TOLD_LIMITS, **TOLD_QUEUES}.items())
        bench.table(["", *(name for name, _ in columns)], rows)
        for (name, run), at_upgrades in zip(columns, touching):
            kinds = collections.Counter(failure["kind"] for failure in run.tally.failed)
            at_kinds = collections.Counter(failure["kind"] for failure in at_upgrades)
            for kind, count in kinds.most_common():
                those = [failure for failure in run.tally.failed if failure["kind"] == kind]
                begun = bench.spread([failure["began"] - run.begin for failure in those], 1)
                lasted = bench.spread([failure["ended"] - failure["began"] for failure in those], 1)
                print(f"  {name}: {count} ({at_kinds[kind]} under way at those moments), begun at {begun} s, lasting {lasted} s: {kind}")
            if run.moments:
                print(f"  {name}: upgrades at " + ", ".join(f"{begin:.1f}–{end:.1f} s" for begin, end in run.moments))
        total = sum((run.tally for run in runs.values()), start=upgrade_load.Tally())
        bench.result(upgrades=sum(run.upgrades for run in runs.values()), failures=len(total.failed),
                     at_upgrades=sum(len(run.touching(run.moments)) for run in runs.values()),
                     failures_alone=sum(len(run.tally.failed) for run in alone.values()),
                     at_upgrades_alone=sum(len(alone[protocol].touching(run.moments)) for protocol, run in runs.items()),
                     new=total.new, kept=total.kept, downloads=total.downloads, asked_again=total.asked_again,
                     upgrade_ms=f"{bench.median([ms for run in runs.values() for ms in run.took]):.0f}",
                     ended=sum(run.ended for run in runs.values()))

    bench.run(measure)


class Alone:
    """The load of one protocol, and what came of it."""

    moments = ()

    def __init__(self, rig, origin, protocol, disk, sizes, seconds):
        server = Upgraded(rig, origin, protocol, disk)
        try:
            self.begin = time.time()
            load = Load(protocol, server.port, (*sizes, *seconds))
            self.counts = collections.Counter()
            self.disturb(server, seconds)
            self.tally = load.tally()
            self.read_counts(server)
            self.finish(server)
        finally:
            server.end()

    def read_counts(self, server):
        """Adds what the process that serves now has counted of the trouble with handshakes and packets."""
        for limit in TOLD_LIMITS:
            self.counts[limit] += int(servers.metric(server.server, "perigee_limits_reached_total", limit=limit))
        for queue in TOLD_QUEUES:
            dropped = int(servers.metric(server.server, "perigee_quic_packets_dropped_total", queue=queue))
            # The sockets are the same over all upgrades, and so is their count.
            self.counts[queue] = dropped if queue == "socket" else self.counts[queue] + dropped

    def disturb(self, server, seconds):
        pass

    def finish(self, server):
        pass

    def touching(self, moments, until="ended"):
        """The failures that were under way at any of these `(begin, end)`, in seconds from the load's begin; or, until they
        `began`, those that began there. What waits for 10 s before it fails is under way at most moments of a bad time."""
        spans = [(self.begin + begin, self.begin + end + AFTERMATH) for begin, end in moments]
        return [failure for failure in self.tally.failed
                if any(failure["began"] <= end and failure[until] >= begin for begin, end in spans)]


class Run(Alone):
    """The same with upgrades."""

    def disturb(self, server, seconds):
        # All of them while the downloads run.
        gap = seconds[1] * 0.9 / (UPGRADES + 1)
        self.took, self.moments, self.pids = [], [], [server.pid]
        for number in range(UPGRADES):
            time.sleep(gap)
            self.read_counts(server)
            begin = time.time() - self.begin
            if number == 2:
                server.refuse_broken()
            self.took.append(server.upgrade())
            self.moments.append((begin, time.time() - self.begin))
            self.pids.append(server.pid)
            bench.say(f"upgrade {number + 1}: process {server.pid} after {self.took[-1]:.0f} ms")

    def finish(self, server):
        self.ended = server.others_end(self.pids)
        self.upgrades = len(set(self.pids)) - 1


class Load:
    """The visitors, in processes of their own: of this bench, or, where each handshake costs too much in Python, of `visitors`."""

    def __init__(self, protocol, port, arguments):
        new, kept, downloads, seconds, download_seconds = arguments
        each = (new // PROCESSES, kept // PROCESSES, downloads // PROCESSES, seconds, download_seconds)
        is_own = protocol in upgrade_load.PROTOCOLS
        self.running = [(OwnVisitors if is_own else Visitors)(protocol, port, seed, each) for seed in range(PROCESSES)]

    def tally(self):
        return sum((running.tally() for running in self.running), start=upgrade_load.Tally())


class OwnVisitors:
    def __init__(self, protocol, port, seed, each):
        self.pipe, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(
            target=upgrade_load.serve, args=(theirs, protocol, port, seed, each), daemon=True)
        process.start()

    def tally(self):
        if not self.pipe.poll(LOAD_PATIENCE):
            raise bench.CannotMeasure("the visitors do not come to an end")
        return self.pipe.recv()


class Visitors:
    def __init__(self, protocol, port, seed, each):
        argv = [os.environ["VISITORS"], protocol, str(port), str(seed + 1), *map(str, each)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)

    def tally(self):
        try:
            output, _ = self.process.communicate(timeout=LOAD_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise bench.CannotMeasure("the visitors do not come to an end") from None
        if self.process.returncode != 0:
            raise bench.CannotMeasure(f"the visitors ended with {self.process.returncode}")
        return upgrade_load.Tally(**json.loads(output))


class Upgraded:
    """A Perigee started from a path where another binary can be put, and whichever process serves in its place."""

    def __init__(self, rig, origin, protocol, disk):
        self.binary = os.environ.get("PERIGEE", "")
        self.path = rig.path(f"perigee-for-{protocol}-{rig.port()}")
        os.symlink(os.path.abspath(self.binary), self.path)
        os.environ["PERIGEE"] = self.path
        self.rig = rig
        self.server = servers.perigee(rig, origin, cores=bench.CORES, tls=protocol != "h1", disk="1GiB" if disk else None)
        os.environ["PERIGEE"] = self.binary
        self.port, self.pid = self.server.port, self.server.process.pid
        self.started = [self.pid]

    def ask(self):
        return subprocess.run([self.binary, "upgrade", "--json", "--state", self.server.root],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)

    def upgrade(self):
        """Upgrades; how many ms it took for whoever asked."""
        begin = time.monotonic()
        done = self.ask()
        took = (time.monotonic() - begin) * 1000
        if done.returncode != 0:
            raise bench.CannotMeasure(f"an upgrade failed: {done.stdout}{done.stderr}{self.server.log_tail()}")
        self.pid = json.loads(done.stdout)["to"]["pid"]
        self.started.append(self.pid)
        return took

    def refuse_broken(self):
        """A binary that dies at start: the upgrade must fail and say so."""
        script = self.rig.write("broken", BROKEN)
        os.chmod(script, 0o755)
        os.rename(script, self.path)
        done = self.ask()
        if done.returncode != 1 or "this binary is broken" not in done.stderr:
            raise bench.CannotMeasure(f"a broken binary was not refused: {done.stdout}{done.stderr}")
        os.symlink(os.path.abspath(self.binary), self.path + ".new")
        os.rename(self.path + ".new", self.path)

    def others_end(self, pids):
        """How many of the old processes end once nobody is connected to them."""
        old = [pid for pid in pids if pid != self.pid]
        deadline = time.monotonic() + PATIENCE
        while any(map(is_running, old)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return sum(not is_running(pid) for pid in old)

    def end(self):
        for pid in reversed(self.started):
            if is_running(pid):
                os.kill(pid, 15)
        deadline = time.monotonic() + 10
        while any(map(is_running, self.started)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in self.started:
            if is_running(pid):
                os.kill(pid, 9)


def is_running(pid):
    try:
        return bench.stat_fields(pid)[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few seconds")
    parser.add_argument("--protocol", choices=["h1", *PROTOCOLS], help="what the visitors speak; by default " + ", ".join(PROTOCOLS))
    parser.add_argument("--share", type=int, default=1, metavar="N", help="the Nth part of the visitors")
    parser.add_argument("--seconds", type=int, default=45, metavar="N",
                        help="for how long new ones come (45); downloads take two thirds of it")
    parser.add_argument("--disk", action="store_true", help="with a disk that is handed over")
    main(parser.parse_args())
