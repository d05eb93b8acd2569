"""User memory per idle keep-alive connection, plain, by TLS and by HTTP/2, per visitor who waits for an origin, and per small
object stored beside its head and body.

All are growth of the proportional set size (/proc/PID/smaps_rollup) of all of a server's processes; the kernel's own
buffers are not in it. Each server is warmed up first, so that what it takes once is not counted.
"""
import argparse
import socket
import ssl
import time
import types

import rig as bench
import servers

BODY = "x" * 100


def main(options):
    connections = 1000 if options.quick else 8000
    objects = 50_000 if options.quick else 1_000_000

    def measure(rig):
        rows, own = [], {}
        for way, start in servers_to_compare(rig):
            server = start()
            growth = idle_bytes(server, way, connections)
            rows.append((server.name, way.name, f"{growth:.0f}"))
            if server.name == "perigee":
                own[way.key] = f"{growth:.0f}"
            rig.stop(server)
        print(f"User memory per idle connection after one request each, {connections} connections")
        bench.table(["server", "by", "bytes"], rows)
        own |= waiting_bytes(rig, connections // 2)
        overhead = object_overhead(rig, objects)
        bench.result(**own, object_overhead_bytes=f"{overhead:.0f}")

    bench.run(measure)


def servers_to_compare(rig):
    origin = servers.nginx_words(rig, BODY)
    yield Plain, lambda: servers.perigee(rig, origin)
    yield Plain, lambda: servers.nginx_cache(rig, origin)
    if servers.installed("varnishd"):
        yield Plain, lambda: servers.varnish(rig, origin)
    if servers.installed("haproxy"):
        yield Plain, lambda: servers.haproxy(rig, origin)
    for way in (Tls, Http2):
        yield way, lambda: servers.perigee(rig, origin, tls=True)
        yield way, lambda: servers.nginx_cache(rig, origin, tls=True)


# --- Ways to connect ---


class Plain:
    name, key = "HTTP/1.1", "plain_bytes"

    @staticmethod
    def connect(server):
        return socket.create_connection(("127.0.0.1", server.port), timeout=30)

    @staticmethod
    def begin(server, connection, _of=1):
        """Asks once, and reads nothing."""
        connection.sendall(f"GET /idle HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())

    @classmethod
    def ask(cls, server, connection):
        """Asks once and reads the whole answer."""
        cls.begin(server, connection)
        answer = b""
        while not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(BODY.encode())):
            part = connection.recv(65536)
            if not part:
                raise bench.CannotMeasure(f"{server.name} closed a connection after {answer!r}")
            answer += part


class Tls(Plain):
    name, key = "HTTP/1.1 over TLS", "tls_bytes"
    protocol = "http/1.1"

    @classmethod
    def connect(cls, server):
        context = ssl._create_unverified_context()
        context.set_alpn_protocols([cls.protocol])
        secure = context.wrap_socket(Plain.connect(server))
        if secure.selected_alpn_protocol() != cls.protocol:
            raise bench.CannotMeasure(f"{server.name} does not speak {cls.protocol}")
        return secure


class Http2(Tls):
    name, key = "HTTP/2", "h2_bytes"
    protocol = "h2"

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    @classmethod
    def begin(cls, server, connection, streams):
        """Asks on so many streams of a new connection, and reads nothing."""
        host = f"127.0.0.1:{server.port}".encode()
        # HPACK (RFC 7541): GET and https are indexed, path and authority literals with an indexed name.
        head = b"\x82\x87\x04\x05/idle\x01" + bytes([len(host)]) + host
        heads = b"".join(cls.frame(1, 5, 2 * stream + 1, head) for stream in range(streams))
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + cls.frame(4, 0, 0) + heads)

    @classmethod
    def ask(cls, server, connection):
        cls.begin(server, connection, 1)
        received, body = b"", b""
        while True:
            while len(received) < 9 or len(received) < 9 + int.from_bytes(received[:3], "big"):
                part = connection.recv(65536)
                if not part:
                    raise bench.CannotMeasure(f"{server.name} closed a connection after {received!r}")
                received += part
            end = 9 + int.from_bytes(received[:3], "big")
            kind, flags, payload, received = received[3], received[4], received[9:end], received[end:]
            if kind == 4 and not flags & 1:
                connection.sendall(cls.frame(4, 1, 0))
            if kind == 0:
                body += payload
            if kind in (0, 1) and flags & 1:
                break
        if body != BODY.encode():
            raise bench.CannotMeasure(f"{server.name} answered with {body!r}")


# --- Connections ---


def idle_bytes(server, way, count):
    """Bytes of growth per connection when `count` connections stay open after one answered request each."""
    open_and_ask(server, way, 200, closing=True)
    before = settled_memory(server)
    connections = open_and_ask(server, way, count)
    after = settled_memory(server)
    for each in connections:
        # All must still be open: a server that closed them would look thrifty.
        each.setblocking(False)
        try:
            if each.recv(1) == b"":
                raise bench.CannotMeasure(f"{server.name} closed idle connections")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        each.close()
    return (after - before) / count


def open_and_ask(server, way, count, closing=False):
    """Opens `count` connections and asks once on each; returns them unless `closing`."""
    connections = []
    for _ in range(count):
        connections.append(way.connect(server))
        way.ask(server, connections[-1])
    if closing:
        for each in connections:
            each.close()
        return []
    return connections


def settled_memory(server):
    """Memory once it has stayed the same within 0.1 % for two seconds, which is longer than the allocator waits before it gives
    pages back; after 15 s at most."""
    readings = [server.memory_bytes()]
    while len(readings) < 30:
        time.sleep(0.5)
        readings.append(server.memory_bytes())
        latest = readings[-5:]
        if len(latest) == 5 and max(latest) - min(latest) <= min(latest) / 1000:
            break
    return readings[-1]


# --- Visitors who wait ---


def waiting_bytes(rig, count):
    """Bytes of growth per visitor when `count` wait for one answer of an origin that says nothing; over HTTP/2, each
    connection has a hundred of them. What the first request takes once is in it."""
    rows, grown = [], {}
    for key, way, streams in (("waiting", Plain, 1), ("waiting_h2", Http2, 100)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            origin = types.SimpleNamespace(port=listener.getsockname()[1])
            server = servers.perigee(rig, origin, tls=way is Http2)
            before = settled_memory(server)
            connections = []
            for _ in range(count // streams):
                connections.append(way.connect(server))
                way.begin(server, connections[-1], streams)
            grown[f"{key}_bytes"] = f"{(settled_memory(server) - before) / count:.0f}"
            must_be_waited_for(listener)
            rows.append((way.name, streams, grown[f"{key}_bytes"]))
            for each in connections:
                each.close()
            rig.stop(server)
    print(f"\nUser memory per visitor of Perigee, where {count} wait for one answer of a silent origin")
    bench.table(["by", "of a connection", "bytes"], rows)
    return grown


def must_be_waited_for(listener):
    """The origin was asked, and who asked still waits for its answer."""
    listener.settimeout(5)
    try:
        asked, _ = listener.accept()
        with asked:
            asked.recv(65536)
            asked.setblocking(False)
            if asked.recv(1) == b"":
                raise bench.CannotMeasure("the edge waits no longer")
    except BlockingIOError:
        pass
    except TimeoutError:
        raise bench.CannotMeasure("the edge asked nothing")


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
