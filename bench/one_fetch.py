"""How often the origin is asked when thousands of clients of five edges want the same thing at once.

Two edges are the shield of a PoP of three; all are processes with a disk each, and both cores are shared by all. The clients, spread
over the edges, each have a connection and ask at the same moment:

cold     an object that nobody has; the origin gives it out when all have asked
range    the same part of an object of 2 GB, on its way in the same manner
parts    any parts of it, each client another, after one client of each edge has read it from end to end
killed   an object that nobody has, and the edge of the shield that fetches it is killed with SIGKILL in the middle of it; the
         clients are those of the three edges that are not the shield

Each byte is compared. Requests at the origin are counted by the origin. An edge that is short of processor time is passed over by the
others after 3 s, as one that stands still, which costs a request more: on a machine that is busy otherwise, ask with fewer clients.
"""
import argparse
import json
import os
import random
import selectors
import signal
import socket
import sys
import time

import rig as bench
from one_fetch_origin import PERIOD, PIECE
from tiers import Authority, edges

PATIENCE = 240
PART = 64 * 1024


def main(options):
    clients = options.clients or (500 if options.quick else 10_000)
    large = (64 << 20) if options.quick else (2 << 30)

    def measure(rig):
        port = rig.port()
        origin = rig.start("origin", [sys.executable, bench.beside("one_fetch_origin.py"), str(port)], port)
        # One third more than the object: on each, as the volumes are laid out at the start. All is written at first sight: what the
        # default of `writes_per_day` spares disks of this size is fetched again, and that is not what is asked here.
        disk = "1GiB" if options.no_whole else f"{max(256, (large >> 20) * 4 // 3)}MiB"
        pops = {"ams-1": "ams", "ams-2": "ams", "fra-1": "fra", "fra-2": "fra", "fra-3": "fra"}
        nodes = {name: {"pop": pop, "memory": "256MiB", "disk": disk, "cores": bench.CORES} for name, pop in pops.items()}
        fleet = edges(rig, origin, Authority(rig), nodes, shield="ams")
        rows = []

        def phase(name, target, wanted, through=fleet, while_held=None):
            """All ask; what is held is let go when all have asked and `while_held` is done."""
            before, before_gone = len(log(origin)), sum(gone(edge) for edge in through.values())
            begin = time.monotonic()
            crowd = Crowd(list(through.values()), target, wanted)
            crowd.ask()
            if while_held:
                crowd.read_until(lambda: any(asked["target"] == target for asked in log(origin)))
                # Who is read later than this joins what is under way, or finds it.
                time.sleep(1)
                while_held()
                bench.fetch(origin, f"/open{target}")
            crowd.read_until(lambda: False)
            asked = log(origin)[before:]
            passed_over = sum(gone(edge) for edge in through.values()) - before_gone
            bytes_sent = sum(each["bytes"] for each in asked)
            row = (name, len(wanted), len(asked), f"{bytes_sent / 2**20:.1f}", crowd.failed, passed_over, f"{time.monotonic() - begin:.1f}")
            rows.append(row)
            if crowd.failed:
                print(f"{name}: {crowd.shown}", file=sys.stderr)
            if passed_over:
                lines = [line for edge in through.values() for line in edge.log_tail().splitlines() if "tier:" in line]
                print("\n".join(lines[-3:]), file=sys.stderr)
            return len(asked), crowd.failed

        def kill_who_asked():
            asked = next(each for each in log(origin) if each["target"].startswith("/held/killed"))
            dying = asked["loop"].rsplit(",")[-1].strip().split(";")[0]
            if pops.get(dying) != "ams":
                raise bench.CannotMeasure(f"the origin was asked by {dying!r}, wanted a node of the shield: {asked}")
            doomed.append(fleet[dying])
            os.kill(fleet[dying].process.pid, signal.SIGKILL)

        doomed = []
        cold = phase("cold", f"/held/cold?size={PART}", [None] * clients, while_held=lambda: None)
        middle = large * 3 // 4
        same = phase("range", f"/held/large?size={large}", [(middle, middle + PART)] * clients, while_held=lambda: None)
        phases = {"": cold, "range_": same}
        if not options.no_whole:
            large_target = f"/large?size={large}"
            phases["whole_"] = phase("whole", large_target, [(0, large)] * len(fleet))
            draw = random.Random(1)
            begins = [draw.randrange(large - PART) for _ in range(clients)]
            phases["parts_"] = phase("parts", large_target, [(begin, begin + PART) for begin in begins])
        killed_target = f"/held/killed?size={2 * PART}"
        near = {name: edge for name, edge in fleet.items() if pops[name] == "fra"}
        phases["killed_"] = phase("killed", killed_target, [None] * clients, through=near, while_held=kill_who_asked)
        for edge in doomed:
            edge.process.wait()
            rig.servers.remove(edge)
        print(f"{clients} clients of five edges, an origin, and an object of {large >> 20} MiB")
        bench.table(["", "clients", "origin requests", "MiB sent by the origin", "wrong or missing answers", "edges passed over", "s"], rows)
        bench.result(clients=clients, **{f"{name}origin_requests": asked for name, (asked, _) in phases.items()},
                     failed=sum(failed for _, failed in phases.values()))

    bench.run(measure)


def gone(edge):
    """How often an edge has passed another one over that gave no answer in time."""
    lines = bench.fetch(edge.admin, "/metrics")[2].decode().splitlines()
    return sum(int(line.split()[-1]) for line in lines
               if line.startswith("perigee_tier_requests_total") and 'end="gone"' in line)


def log(origin):
    """What the origin was asked."""
    return json.loads(bench.fetch(origin, "/log")[2])


# --- Clients ---


class Crowd:
    """Clients of several edges, each with a connection of its own. `wanted`: for each the range (first byte, end), or None for all."""

    def __init__(self, servers, target, wanted):
        self.waiting = selectors.DefaultSelector()
        self.failed, self.shown = 0, ""
        self.clients = [Client(servers[number % len(servers)], target, span) for number, span in enumerate(wanted)]
        for client in self.clients:
            self.waiting.register(client.socket, selectors.EVENT_READ, client)

    def ask(self):
        for client in self.clients:
            client.socket.send(client.request)

    def read_until(self, is_so):
        """Reads until all have their answers, or that is so."""
        deadline = time.monotonic() + PATIENCE
        looked = 0
        while self.waiting.get_map() and time.monotonic() < deadline:
            for key, _ in self.waiting.select(timeout=0.05):
                ended = key.data.read()
                if ended is not None:
                    self.waiting.unregister(key.fileobj)
                    key.fileobj.close()
                    self.failed += bool(ended)
                    self.shown = self.shown or ended
            if time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                if is_so():
                    return
        late = len(self.waiting.get_map())
        if late:
            self.failed += late
            self.shown = self.shown or f"{late} have no whole answer after {PATIENCE} s"
            for key in list(self.waiting.get_map().values()):
                key.fileobj.close()
        self.waiting.close()


class Client:
    """One that asks once, and compares what comes as it comes."""

    def __init__(self, server, target, span):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.socket.setblocking(False)
        self.status, self.at = (206, span[0]) if span else (200, 0)
        self.span = span
        self.end = span[1] if span else None
        wanted = f"Range: bytes={span[0]}-{span[1] - 1}\r\n" if span else ""
        self.request = f"GET {target} HTTP/1.1\r\nHost: site.example\r\n{wanted}\r\n".encode()
        self.head = b""
        self.is_in_body = False

    def read(self):
        """None while more is to come, "" when all has come that was wanted, else what is wrong."""
        try:
            part = self.socket.recv(1 << 20)
        except BlockingIOError:
            return None
        except OSError as error:
            return str(error)
        if not part:
            return f"the connection ended at {self.at} of {self.end}: {self.head!r}"
        if not self.is_in_body:
            self.head += part
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return None
            part, self.head, self.is_in_body = self.head[end + 4:], self.head[:end], True
            lines = self.head.decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:])
            length = int(fields.get("content-length", -1))
            if int(lines[0].split(" ")[1]) != self.status or (self.end and length != self.end - self.at):
                return f"a wrong answer: {self.head!r}"
            self.end = self.end or length
        shift = self.at % PERIOD
        rest = memoryview(part)
        while rest:
            expected = memoryview(PIECE)[shift:shift + len(rest)]
            if rest[:len(expected)] != expected:
                return f"wrong bytes after {self.at}"
            shift = (shift + len(expected)) % PERIOD
            rest = rest[len(expected):]
        self.at += len(part)
        if self.at > self.end:
            return f"more than was wanted: {self.at} of {self.end}"
        return "" if self.at == self.end else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/one_fetch.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 500 clients, and an object of 64 MiB")
    parser.add_argument("--no-whole", action="store_true", help="without reading the large object from end to end")
    parser.add_argument("--clients", type=int, metavar="N", help="clients instead of 10,000")
    main(parser.parse_args())
