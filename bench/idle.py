"""User memory per idle keep-alive connection, and per small object stored beside its head and body.

Both are growth of the proportional set size (/proc/PID/smaps_rollup) of all of a server's processes; the kernel's own
buffers are not in it. Each server is warmed up first, so that what it takes once is not counted.
"""
import argparse
import socket
import time

import rig as bench
import servers

BODY = "x" * 100


def main(options):
    connections = 1000 if options.quick else 8000
    objects = 50_000 if options.quick else 1_000_000

    def measure(rig):
        rows, plain = [], None
        for start in servers_to_compare(rig):
            server = start()
            growth = idle_bytes(server, connections)
            rows.append((server.name, f"{growth:.0f}"))
            if server.name == "perigee":
                plain = growth
            rig.stop(server)
        print(f"User memory per idle connection after one request each, {connections} connections")
        bench.table(["server", "bytes"], rows)
        overhead = object_overhead(rig, objects)
        bench.result(plain_bytes=f"{plain:.0f}", object_overhead_bytes=f"{overhead:.0f}")

    bench.run(measure)


def servers_to_compare(rig):
    origin = servers.nginx_words(rig, BODY)
    yield lambda: servers.perigee(rig, origin)
    yield lambda: servers.nginx_cache(rig, origin)
    if servers.installed("varnishd"):
        yield lambda: servers.varnish(rig, origin)
    if servers.installed("haproxy"):
        yield lambda: servers.haproxy(rig, origin)


# --- Connections ---


def idle_bytes(server, count):
    """Bytes of growth per connection when `count` connections stay open after one answered request each."""
    open_and_ask(server, 200, closing=True)
    before = settled_memory(server)
    sockets = open_and_ask(server, count)
    after = settled_memory(server)
    for each in sockets:
        # All must still be open: a server that closed them would look thrifty.
        each.setblocking(False)
        try:
            if each.recv(1) == b"":
                raise bench.CannotMeasure(f"{server.name} closed idle connections")
        except BlockingIOError:
            pass
        each.close()
    return (after - before) / count


def open_and_ask(server, count, closing=False):
    """Opens `count` connections, asks once on each and reads the whole answer; returns them unless `closing`."""
    request = f"GET /idle HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    sockets = []
    for _ in range(count):
        each = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        each.sendall(request)
        answer = b""
        while not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(BODY.encode())):
            part = each.recv(65536)
            if not part:
                raise bench.CannotMeasure(f"{server.name} closed a connection after {answer!r}")
            answer += part
        sockets.append(each)
    if closing:
        for each in sockets:
            each.close()
        return []
    return sockets


def settled_memory(server):
    """Memory once two readings half a second apart agree to 0.1 %, for 10 s at most."""
    last = server.memory_bytes()
    for _ in range(20):
        time.sleep(0.5)
        now = server.memory_bytes()
        if abs(now - last) <= last / 1000:
            return now
        last = now
    return last


# --- Objects ---


def object_overhead(rig, count):
    """Bytes of growth per stored object beyond its body and its head as the origin sent it."""
    origin = servers.nginx_words(rig, BODY)
    server = servers.perigee(rig, origin, cores=bench.CORES, memory="8GiB", log=False)
    head = head_bytes(origin)
    servers.store_objects(server, "warm", count // 20)
    before = settled_memory(server)
    rows = []
    for step in (4, 2, 1):
        stored = count // step
        servers.store_objects(server, "o", stored)
        growth = (settled_memory(server) - before) / stored
        rows.append((stored, f"{growth:.0f}", head, len(BODY), f"{growth - head - len(BODY):.0f}"))
    asked = servers.requests_of(origin)
    servers.ask_objects(server, "o", count, 1)
    if (misses := servers.requests_of(origin) - asked - 1) > 0:
        raise bench.CannotMeasure(f"{misses} requests were no hits: not all of {count} objects are stored")
    print("\nMemory per object stored in Perigee, bytes")
    bench.table(["objects", "growth", "head", "body", "overhead"], rows)
    rig.stop(server)
    rig.stop(origin)
    return float(rows[-1][-1])


def head_bytes(origin):
    """Bytes of the origin's header fields that a cache must keep: all lines but those for the connection only."""
    _, fields, _ = bench.fetch(origin, "/o/1")
    return sum(len(f"{name}: {value}\r\n") for name, value in fields.items() if name.lower() != "connection")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/idle.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 1,000 connections, 50,000 objects")
    main(parser.parse_args())
