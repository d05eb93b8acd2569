"""An origin whose bodies follow from URL and seed, for bench/crash.sh. Usage: crash_origin.py PORT SEED

/KIND/NUMBER/SIZE  SIZE bytes that no other path has, fresh for a day, with ranges and a strong ETag; of kind `o`, each
                   fourth NUMBER comes chunked, without its length, and each eighth slowly, in pieces with pauses
/asked             at once, as JSON: the paths that were asked for since this was asked last
"""
import asyncio
import contextlib
import hashlib
import json
import random
import re
import sys

PIECE = 64 * 1024
PAUSE = 0.02
POOL_BYTES = 64 * 1024 * 1024


class Bodies:
    """Bodies as windows into one pool of random bytes, at a place that the path says: cheap to make and to compare."""

    def __init__(self, seed):
        self.seed = seed
        self.pool = memoryview(random.Random(seed).randbytes(POOL_BYTES))

    def of(self, path, start=0, end=None):
        """Bytes `start` to `end` (not included) of the body of `path`, not copied."""
        size = int(path.rsplit("/", 1)[1])
        digest = hashlib.blake2b(f"{self.seed} {path}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "little") % (POOL_BYTES - size)
        return self.pool[place + start:place + min(size, size if end is None else end)]


class Origin:
    def __init__(self, seed):
        self.bodies = Bodies(seed)
        self.asked = []

    async def serve(self, reader, writer):
        """One connection: requests one after the other, until either side ends it."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                if path == "/asked":
                    self.asked, asked = [], self.asked
                    await self.answer(writer, "200 OK", "Cache-Control: no-store\r\n", json.dumps(asked).encode())
                else:
                    self.asked.append(path)
                    await self.object(writer, path, re.search(r"(?im)^range: *bytes=(\d+)-(\d*)\r$", head))
        writer.close()

    async def object(self, writer, path, wanted):
        _, kind, number, size = path.split("/")
        number, size = int(number), int(size)
        fields = f'Cache-Control: public, max-age=86400\r\nETag: "{number}-{size}"\r\nAccept-Ranges: bytes\r\n'
        chunked, slow = kind == "o" and number % 4 == 0, kind == "o" and number % 8 in (1, 4)
        if wanted is None:
            await self.answer(writer, "200 OK", fields, self.bodies.of(path), chunked, slow)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or size - 1) + 1, size)
        if start >= end:
            await self.answer(writer, "416 Range Not Satisfiable", f"Content-Range: bytes */{size}\r\n", b"")
            return
        fields += f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
        await self.answer(writer, "206 Partial Content", fields, self.bodies.of(path, start, end), False, slow)

    async def answer(self, writer, status, fields, body, chunked=False, slow=False):
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}{length}\r\n\r\n".encode())
        for place in range(0, len(body), PIECE):
            piece = body[place:place + PIECE]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
            if slow:
                await asyncio.sleep(PAUSE)
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


async def main(port, seed):
    server = await asyncio.start_server(Origin(seed).serve, "127.0.0.1", port, backlog=16384)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
