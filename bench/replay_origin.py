"""The origin of bench/replay.sh and bench/advise.sh: what a path says is what it answers.

Usage: replay_origin.py PORT [KIND…]     these kinds have an ETag, too

/KIND/NUMBER-SIZE.EXT   SIZE bytes; by KIND:
  long     max-age=3600, an ETag
  short    max-age=4, an ETag, and 304 to who has it
  plain    max-age=4, no validator
  silent   nothing about freshness, and no validator
  cookie   max-age=3600, and a cookie for everybody
  lang     max-age=3600, Vary: Accept-Language
  mine     private
  noise, order, keyed, raw, off, well
           as long; of `well`, the query is a part of the ETag
  stale    as short
  hashed   shared caches may keep it for a year, browsers for a minute; an ETag
  gone     404, without a word of freshness
"""
import asyncio
import sys

BODY = bytes(range(97, 123)) * 80_000
SAYS = {
    "long": "Cache-Control: max-age=3600\r\n",
    "short": "Cache-Control: max-age=4\r\n",
    "plain": "Cache-Control: max-age=4\r\n",
    "silent": "",
    "cookie": "Cache-Control: max-age=3600\r\nSet-Cookie: seen=1\r\n",
    "lang": "Cache-Control: max-age=3600\r\nVary: Accept-Language\r\n",
    "mine": "Cache-Control: private\r\n",
    "hashed": "Cache-Control: max-age=60, s-maxage=31536000\r\n",
    "well": "Cache-Control: max-age=31536000\r\n",
    "gone": "",
}
SAYS |= dict.fromkeys(("noise", "order", "keyed", "raw", "off"), SAYS["long"]) | {"stale": SAYS["short"]}
TAGGED = {"long", "short", "lang", "cookie", "noise", "order", "keyed", "raw", "off", "well", "stale", "hashed"}
TYPES = {"css": "text/css", "js": "text/javascript", "png": "image/png", "bin": "application/octet-stream"}


class Origin(asyncio.Protocol):
    """One connection: GET requests one after the other, kept alive."""

    received = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].decode("latin-1")
            self.received = self.received[end + 4:]
            self.answer(head)

    def answer(self, head):
        path, _, query = head.split(" ", 2)[1].partition("?")
        _, kind, name = path.split("/", 2)
        stem, _, extension = name.partition(".")
        size = int(stem.rpartition("-")[2])
        fields = SAYS[kind] + f"Content-Type: {TYPES.get(extension, 'text/html')}\r\n"
        tag = f'"{stem}{query if kind == "well" else ""}"'
        if kind in TAGGED:
            fields += f"ETag: {tag}\r\n"
            if f"if-none-match: {tag}" in head.lower():
                self.transport.write(f"HTTP/1.1 304 Not Modified\r\n{fields}\r\n".encode())
                return
        status = "404 Not Found" if kind == "gone" else "200 OK"
        self.transport.write(f"HTTP/1.1 {status}\r\n{fields}Content-Length: {size}\r\n\r\n".encode() + BODY[:size])


async def main(port):
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    TAGGED |= set(sys.argv[2:])
    asyncio.run(main(int(sys.argv[1])))
