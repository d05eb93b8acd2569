"""What visitors lose when a running edge is replaced by a new binary, several times in a row, under load.

Each second has hundreds of new connections, a thousand that are kept, and downloads that outlast all the upgrades; each byte
of each answer is compared. Between two upgrades the binary is one that dies at start: that must change nothing, and is
refused with the reason. A failure is a request without its whole right answer, after what HTTP lets a client do by itself: see
upgrade_load.py. An upgrade counts when the process that serves is another one afterwards.
"""
import argparse
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


def main(options):
    share = 20 if options.quick else 1
    new, kept, downloads = 30_000 // share, 1000 // share, 100 // share
    seconds, download_seconds = (10, 8) if options.quick else (45, 30)

    def measure(rig):
        port = rig.port()
        origin = rig.start("origin", [sys.executable, bench.beside("upgrade_origin.py"), str(port)], port)
        is_tls = upgrade_load.PROTOCOLS[options.protocol][0]
        server = Upgraded(rig, origin, is_tls, options.disk)
        try:
            load = Load(options.protocol, server.port, (new, kept, downloads, seconds, download_seconds))
            # All of them while the downloads run.
            gap = download_seconds * 0.9 / (UPGRADES + 1)
            took, pids = [], [server.pid]
            for number in range(UPGRADES):
                time.sleep(gap)
                if number == 2:
                    server.refuse_broken()
                took.append(server.upgrade())
                pids.append(server.pid)
                bench.say(f"upgrade {number + 1}: process {server.pid} after {took[-1]:.0f} ms")
            tally = load.tally()
            ended = server.others_end(pids)
        finally:
            server.end()
        upgrades = len(set(pids)) - 1
        bench.table(["visitors", "answers"], [
            ("new connections", tally.new), (f"requests on {kept} kept connections", tally.kept),
            ("  of these told to close", tally.told_to_close), ("  of these asked again by HTTP's rules", tally.asked_again),
            (f"downloads of {download_seconds} s", tally.downloads), ("failures", tally.failures)])
        for line in tally.shown:
            print(f"  {line}")
        print(f"{upgrades} upgrades, ms from request to answer: {bench.spread(took, 0)}; a broken binary was refused; "
              f"old processes that had ended with their last connection: {ended} of {len(pids) - 1}")
        bench.result(upgrades=upgrades, failures=tally.failures, new=tally.new, kept=tally.kept,
                     downloads=tally.downloads, asked_again=tally.asked_again,
                     upgrade_ms=f"{bench.median(took):.0f}", ended=ended)

    bench.run(measure)


class Load:
    """The visitors, in processes of their own."""

    def __init__(self, protocol, port, arguments):
        new, kept, downloads, seconds, download_seconds = arguments
        each = (new // PROCESSES, kept // PROCESSES, downloads // PROCESSES, seconds, download_seconds)
        self.pipes, self.processes = [], []
        for number in range(PROCESSES):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(
                target=upgrade_load.serve, args=(theirs, protocol, port, number, each), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def tally(self):
        total = upgrade_load.Tally()
        for pipe in self.pipes:
            if not pipe.poll(600):
                raise bench.CannotMeasure("the visitors do not come to an end")
            total += pipe.recv()
        return total


class Upgraded:
    """A Perigee started from a path where another binary can be put, and whichever process serves in its place."""

    def __init__(self, rig, origin, is_tls, disk):
        self.binary = os.environ.get("PERIGEE", "")
        self.path = rig.path("perigee")
        os.symlink(os.path.abspath(self.binary), self.path)
        os.environ["PERIGEE"] = self.path
        self.rig = rig
        self.server = servers.perigee(rig, origin, cores=bench.CORES, tls=is_tls, disk="1GiB" if disk else None)
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
    parser.add_argument("--protocol", choices=upgrade_load.PROTOCOLS, default="h1", help="what the visitors speak")
    parser.add_argument("--disk", action="store_true", help="with a disk that is handed over")
    main(parser.parse_args())
