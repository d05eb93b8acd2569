"""The origin of bench/day.sh. Usage: day_origin.py PORT

/o/N, /sale/N   up to 60 KiB that N says, fresh for an hour, with validators, ranges and surrogate keys
/page/N.html    text that compresses well, fresh for ten minutes
/vary/N         one for each Accept-Language
/failing/N      503 from minute 20 to 25 of each hour, else fresh for a minute
else            never kept, with a cookie
"""
import asyncio
import contextlib
import email.utils
import random
import re
import sys
import time

BODY_MAX = 60 * 1024
POOL = memoryview(random.Random(1).randbytes(4 * 2**20))
TEXT = b"<!doctype html><title>Shoes</title>" + b"<p>One of many shoes, and what there is to say of it.</p>\n" * 150
MODIFIED = email.utils.formatdate(time.time() - 30 * 86400, usegmt=True)


def answer(path, head):
    """(status, further fields, body) for a request."""
    kind = path.split("/", 2)[1]
    number = int(found[0]) if (found := re.findall(r"\d+", path)) else 0
    if kind == "failing" and 20 <= time.time() % 3600 / 60 < 25:
        return "503 Service Unavailable", "Cache-Control: no-store\r\n", b"not now"
    if kind == "page":
        return "200 OK", "Content-Type: text/html\r\nCache-Control: max-age=600\r\nSurrogate-Key: pages\r\n", TEXT
    if kind in ("o", "sale", "vary", "failing"):
        tag = f'"{number}"'
        fields = (f"Cache-Control: max-age={60 if kind == 'failing' else 3600}\r\nETag: {tag}\r\nLast-Modified: {MODIFIED}\r\n"
                  f"Surrogate-Key: {kind} group-{number % 50}\r\n")
        if kind == "vary":
            fields += "Vary: Accept-Language\r\n"
        if f"if-none-match: {tag}" in head.lower():
            return "304 Not Modified", fields, b""
        start = number * 7919 % (len(POOL) - BODY_MAX)
        return "200 OK", fields, POOL[start:start + 500 + number * 104_729 % (BODY_MAX - 500)]
    return "200 OK", f"Cache-Control: private, no-store\r\nSet-Cookie: visitor={random.getrandbits(64):x}\r\n", b"yours"


async def serve(reader, writer):
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            if length := re.search(r"(?im)^content-length: *(\d+)", head):
                await reader.readexactly(int(length[1]))
            status, fields, body = answer(head.split(" ", 2)[1], head)
            date = email.utils.formatdate(time.time(), usegmt=True)
            length = "" if status.startswith("304") else f"Content-Length: {len(body)}\r\n"
            writer.write(f"HTTP/1.1 {status}\r\nDate: {date}\r\n{fields}{length}\r\n".encode())
            if not head.startswith("HEAD "):
                writer.write(body)
            await writer.drain()
    writer.close()


async def main(port):
    await (await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)).serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
