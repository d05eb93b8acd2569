"""What the origin sees when thousands of clients miss one key at the same moment.

First all want a cacheable object: one origin request should do, and every body must be right. Then the answer
turns out to be uncacheable: those who waited must be let go at once, each to an answer of its own. A request counts as
queued when it reached the origin half an origin answer later than it could have: after the first answer
showed what the key is, or, in a second burst, after the client had asked.
"""
import argparse
import json
import selectors
import socket
import sys
import time

import rig as bench
import servers
from slow_origin import SHARED_BODY

DELAY = 1.0
PATIENCE = 30


def main(options):
    crowd = 1000 if options.quick else 10_000
    few = 100 if options.quick else 1000

    def measure(rig):
        rows, ours = [], None
        for start in (servers.perigee, servers.nginx_cache, servers.varnish):
            if start is servers.varnish and not servers.installed("varnishd"):
                continue
            origin = slow_origin(rig)
            server = start(rig, origin, cores=bench.CORES)
            figures = stampede(server, origin, crowd, few)
            rows.append((server.name, *figures.values()))
            ours = ours or figures
            rig.stop(server)
            rig.stop(origin)
        print(f"{crowd} clients miss one cacheable key, then twice {few} clients an uncacheable one; "
              f"the origin takes {DELAY:.0f} s")
        bench.table(["server", "origin fetches", "wrong bodies", "all served, s",
                     "uncacheable queued", "all served, s", "again, s"], rows)
        bench.result(fetches=ours["fetches"], wrong=ours["wrong"], uncacheable_queued=ours["queued"])

    bench.run(measure)


def slow_origin(rig):
    port = rig.port()
    script = bench.beside("slow_origin.py")
    return rig.start("slow origin", [sys.executable, script, str(port), str(DELAY)], port)


def stampede(server, origin, crowd, few):
    """Both bursts against one server, as the columns of the table."""
    answers, _, seconds = burst(server, "/cacheable/1", crowd)
    fetches = len(arrivals(origin, "/cacheable/1"))
    wrong = sum(answer != (200, SHARED_BODY) for answer in answers)
    queued, spans, bodies = 0, [], []
    for again in (False, True):
        seen = len(arrivals(origin, "/uncacheable/1"))
        answers, sent, span = burst(server, "/uncacheable/1", few)
        at_origin = sorted(arrivals(origin, "/uncacheable/1")[seen:])
        released = sent if again else at_origin[0] + DELAY
        queued += sum(arrival > released + DELAY / 2 for arrival in at_origin)
        # Those that never got through waited too.
        queued += max(0, few - len(at_origin))
        spans.append(f"{span:.1f}")
        bodies += answers
    # Nobody may get what was made for another.
    wrong += sum(status != 200 for status, _ in bodies) + len(bodies) - len(set(bodies))
    return {"fetches": fetches, "wrong": wrong, "seconds": f"{seconds:.1f}", "queued": queued,
            "first": spans[0], "again": spans[1]}


def arrivals(origin, path):
    """When each request for `path` reached the origin, in the order of arrival."""
    _, _, log = bench.fetch(origin, "/log")
    return [arrival for asked, arrival in json.loads(log) if asked == path]


# --- The crowd ---


def burst(server, path, count):
    """`count` open connections ask for `path` at once: ([(status, body)], last sent, seconds until all were served).

    An answer that is cut short, or not there after `PATIENCE` seconds, is (0, what came).
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    sockets = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) for _ in range(count)]
    waiting = selectors.DefaultSelector()
    answers = []
    for each in sockets:
        each.setblocking(False)
        waiting.register(each, selectors.EVENT_READ, bytearray())
    start = time.monotonic()
    for each in sockets:
        each.send(request)
    sent = time.monotonic()
    while waiting.get_map() and time.monotonic() < start + PATIENCE:
        for key, _ in waiting.select(timeout=1):
            part = receive(key.fileobj)
            key.data.extend(part)
            answer = complete(key.data)
            if answer or not part:
                answers.append(answer or (0, bytes(key.data)))
                waiting.unregister(key.fileobj)
    seconds = time.monotonic() - start
    answers += [(0, bytes(key.data)) for key in waiting.get_map().values()]
    waiting.close()
    for each in sockets:
        each.close()
    return answers, sent, seconds


def receive(connection):
    try:
        return connection.recv(262144)
    except ConnectionError:
        return b""


def complete(received):
    """(status, body) once the answer is whole, by its length or its last chunk; None before."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    lines = bytes(received[:head_end]).split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    body = bytes(received[head_end + 4:])
    if b"content-length" in fields:
        return (status, body) if len(body) == int(fields[b"content-length"]) else None
    return (status, joined_chunks(body)) if body.endswith(b"0\r\n\r\n") else None


def joined_chunks(body):
    joined = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        joined += rest[:length]
        body = rest[length + 2:]
    return joined


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/stampede.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 1,000 clients, then 100")
    main(parser.parse_args())
