"""A slow origin that remembers who asked what and when, for bench/stampede.sh. Usage: slow_origin.py PORT DELAY_SECONDS

/cacheable/…    after the delay, the same 16 KiB for everyone, fresh for an hour
/uncacheable/…  after the delay, `no-store` and a body that no other request gets
/log            at once, as JSON: each request's [path, arrival], in seconds of the monotonic clock
"""
import asyncio
import itertools
import json
import sys
import time

from servers import body_of

SHARED_BODY = body_of(16 * 1024)
serial = itertools.count(1)
arrivals = []


class Origin(asyncio.Protocol):
    """One connection: GET requests one after the other, kept alive."""

    def __init__(self, delay):
        self.delay = delay
        self.received = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            path = self.received[:end].split(b" ", 2)[1].decode()
            self.received = self.received[end + 4:]
            if path == "/log":
                self.answer("no-store", json.dumps(arrivals).encode())
                continue
            arrivals.append([path, time.monotonic()])
            if path.startswith("/cacheable/"):
                parts = "public, max-age=3600", SHARED_BODY
            else:
                parts = "no-store", b"serial %d\n" % next(serial)
            asyncio.get_running_loop().call_later(self.delay, self.answer, *parts)

    def answer(self, cache_control, body):
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nCache-Control: {cache_control}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def main(port, delay):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Origin(delay), "127.0.0.1", port, backlog=16384)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
