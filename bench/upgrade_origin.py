"""The origin of bench/upgrade.sh. Usage: upgrade_origin.py PORT

/small/N            at once, 1 KiB that follow from N, fresh for a day
/large/N            at once, 8 MiB that follow from N, fresh for a day
/slow/N?SECONDS     256 KiB that follow from N, never stored, spread over so many seconds
"""
import asyncio
import functools
import sys

from servers import body_of

SMALL, LARGE, SLOW = 1024, 8 * 1024 * 1024, 256 * 1024
PIECES = 100


@functools.cache
def pattern(number):
    return body_of(4096, seed=number + 1)


def body(kind, number):
    """What `/kind/number` must be."""
    size = {"small": SMALL, "large": LARGE, "slow": SLOW}[kind]
    return (pattern(number) * (size // 4096 + 1))[:size]


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            path, _, seconds = target.partition("?")
            _, kind, number = path.split("/")
            content = body(kind, int(number))
            stored = "no-store" if kind == "slow" else "public, max-age=86400"
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n"
                         f"Cache-Control: {stored}\r\n\r\n".encode())
            if kind != "slow":
                writer.write(content)
                await writer.drain()
                continue
            step = -(-len(content) // PIECES)
            for start in range(0, len(content), step):
                writer.write(content[start:start + step])
                await writer.drain()
                await asyncio.sleep(float(seconds) / PIECES)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port):
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
