"""The origin of bench/abuse.sh: bodies of known sizes, fresh for an hour, and what never comes. Usage: abuse_origin.py PORT

/1k, /10k, …    GET: a body of that size
/never          never answered, and never read any further
anything else   404
"""
import asyncio
import sys

from servers import SIZES, body_of

BODIES = {f"/{name}": body_of(size) for name, size in SIZES.items()}


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            path = line.split()[1].decode()
            while await reader.readline() not in (b"\r\n", b""):
                pass
            if path == "/never":
                # The edge gives up by itself, and closes.
                await writer.wait_closed()
                return
            body = BODIES.get(path)
            status, age = ("200 OK", 3600) if body else ("404 Not Found", 1)
            body = body or b""
            head = f"HTTP/1.1 {status}\r\nCache-Control: max-age={age}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
    except (OSError, IndexError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 16)
    await server.serve_forever()


asyncio.run(main())
