"""The visitors of bench/upgrade.sh who speak HTTP/1.1: one process of asyncio tasks, which check each byte of each answer.

What HTTP lets a client do is done: a connection that was told `close` is left, and a GET on a connection that had been used
before, and ended without a byte of an answer, is asked again on a new one (RFC 9110 §9.2.2). The latter is counted
apart. Everything else that is not the whole right answer is a failure.
"""
import asyncio
import functools
import random
import ssl
import time

from upgrade_origin import body

PATIENCE = 60
KEPT_PAUSE = 0.2, 1.8


class Tally:
    """What happened; sums with `+`. Each failure is `began` and `ended` (seconds since the Unix epoch), its `kind` in few
    different texts, and `what` was wanted."""

    COUNTS = "new", "kept", "told_to_close", "asked_again", "downloads"

    def __init__(self, failed=(), **counts):
        self.failed = list(failed)
        for name in self.COUNTS:
            setattr(self, name, counts.get(name, 0))

    def __add__(self, more):
        sums = {name: getattr(self, name) + getattr(more, name) for name in self.COUNTS}
        return Tally(self.failed + more.failed, **sums)

    def fail(self, began, what, reason):
        self.failed.append({"began": began, "ended": time.time(), "kind": repr(reason), "what": what})


class Lost(Exception):
    """A connection that had been used ended without a byte of an answer."""


@functools.cache
def any_certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Http1:
    """A connection that speaks HTTP/1.1, over TLS or not."""

    def __init__(self, port, is_tls):
        self.port, self.used, self.may_be_used = port, False, True
        self.tls = any_certificate() if is_tls else None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, limit=2**16)
        return self

    async def get(self, path, pause=0):
        """The body of the answer, read with `pause` seconds after every 64 KiB."""
        try:
            self.writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            await self.writer.drain()
            first = await self.reader.read(1)
        except ConnectionError as reason:
            first, lost = b"", reason
        else:
            lost = None
        if not first:
            raise Lost if self.used else lost or EOFError("the connection ended without an answer")
        head = first + await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        if not lines[0].startswith("http/1.1 200"):
            raise ValueError(lines[0])
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        self.used, self.may_be_used = True, fields.get("connection") != "close"
        left, pieces = int(fields["content-length"]), []
        while left:
            piece = await self.reader.read(min(left, 2**16))
            if not piece:
                raise EOFError(f"{left} bytes are missing")
            pieces.append(piece)
            left -= len(piece)
            if pause:
                await asyncio.sleep(pause * len(piece) / 2**16)
        return b"".join(pieces)

    def close(self):
        self.writer.close()


PROTOCOLS = {
    "h1": (False, lambda port: Http1(port, False)),
    "h1-tls": (True, lambda port: Http1(port, True)),
}


def check(path, got):
    _, kind, number = path.partition("?")[0].split("/")
    wanted = body(kind, int(number))
    if got != wanted:
        raise ValueError(f"{len(got)} bytes that are not the {len(wanted)} wanted")


class Visitors:
    def __init__(self, protocol, port, seed):
        self.connect, self.port = PROTOCOLS[protocol][1], port
        self.chance = random.Random(seed)
        self.tally = Tally()

    async def run(self, new, kept, downloads, seconds, download_seconds):
        """`new` connections with one request each, spread over `seconds`; `kept` ones that ask again and again for as long;
        `downloads` that take `download_seconds`, half of them slow at the origin, half at the visitor."""
        end = time.monotonic() + seconds
        tasks = [self.keep(end, number) for number in range(kept)]
        tasks += [self.download(number, download_seconds) for number in range(downloads)]
        tasks.append(self.open_new(new, seconds))
        await asyncio.gather(*tasks)
        return self.tally

    async def open_new(self, count, seconds):
        begin = time.monotonic()
        tasks = []
        for number in range(count):
            await asyncio.sleep(max(0, begin + number * seconds / count - time.monotonic()))
            tasks.append(asyncio.create_task(self.ask_once(f"/small/{number % 1000}")))
        await asyncio.gather(*tasks)

    async def ask_once(self, path):
        async def ask():
            connection = await self.connect(self.port).open()
            check(path, await connection.get(path))
            connection.close()

        began = time.time()
        try:
            await asyncio.wait_for(ask(), PATIENCE)
            self.tally.new += 1
        except Exception as reason:
            self.tally.fail(began, f"new connection, {path}", reason)

    async def keep(self, end, number):
        connection = None
        await asyncio.sleep(self.chance.uniform(0, KEPT_PAUSE[1]))
        while time.monotonic() < end:
            path, began = f"/small/{self.chance.randrange(1000)}", time.time()
            try:
                connection = await asyncio.wait_for(self.ask_on(connection, path), PATIENCE)
                self.tally.kept += 1
            except Exception as reason:
                self.tally.fail(began, f"kept connection {number}, {path}", reason)
                connection = None
            await asyncio.sleep(self.chance.uniform(*KEPT_PAUSE))
        if connection:
            connection.close()

    async def ask_on(self, connection, path):
        """Asks, on a new connection where there is none; the connection, if it may be used again."""
        connection = connection or await self.connect(self.port).open()
        try:
            check(path, await connection.get(path))
        except Lost:
            self.tally.asked_again += 1
            connection = await self.connect(self.port).open()
            check(path, await connection.get(path))
        if connection.may_be_used:
            return connection
        self.tally.told_to_close += 1
        connection.close()
        return None

    async def download(self, number, seconds):
        is_slow_origin = number % 2 == 0
        path = f"/slow/{number}?{seconds}" if is_slow_origin else f"/large/{number % 8}"
        # 8 MiB are 128 times 64 KiB.
        pause, began = 0 if is_slow_origin else seconds / 128, time.time()
        try:
            connection = await self.connect(self.port).open()
            check(path, await asyncio.wait_for(connection.get(path, pause), PATIENCE + 3 * seconds))
            connection.close()
            self.tally.downloads += 1
        except Exception as reason:
            self.tally.fail(began, f"download {path}", reason)


def serve(pipe, protocol, port, seed, arguments):
    pipe.send(asyncio.run(Visitors(protocol, port, seed).run(*arguments)))
