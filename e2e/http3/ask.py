"""Asks an edge over HTTP/3 with aioquic, and says what it makes of the answers: `ask.py PORT FILES CHAIN`."""

import asyncio
import pathlib
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamReset


class Client(QuicConnectionProtocol):
    """One connection; each request waits for the end of its stream."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.waiting = {}

    def quic_event_received(self, event):
        if isinstance(event, StreamReset) and event.stream_id in self.waiting:
            self.waiting.pop(event.stream_id)["done"].set_exception(ConnectionError("reset"))
        for happened in self.http.handle_event(event):
            answer = self.waiting.get(happened.stream_id)
            if answer is None:
                continue
            if isinstance(happened, HeadersReceived):
                answer["heads"].append(dict(happened.headers))
            elif isinstance(happened, DataReceived):
                answer["body"] += happened.data
            if happened.stream_ended:
                self.waiting.pop(happened.stream_id)
                answer["done"].set_result((answer["heads"], bytes(answer["body"])))

    async def ask(self, method, path, fields=(), body=b""):
        stream = self._quic.get_next_available_stream_id()
        done = asyncio.get_running_loop().create_future()
        self.waiting[stream] = {"heads": [], "body": bytearray(), "done": done}
        head = [(b":method", method), (b":scheme", b"https"), (b":authority", b"site.example"), (b":path", path), *fields]
        self.http.send_headers(stream, head, end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        heads, content = await asyncio.wait_for(done, 20)
        return heads[-1], content


def check(name, holds):
    print(f"{'ok' if holds else 'not ok'} http3 by aioquic: {name}", flush=True)


async def main(port, files, chain):
    large = (pathlib.Path(files) / "large.bin").read_bytes()
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="site.example")
    configuration.verify_mode = ssl.CERT_REQUIRED
    configuration.load_verify_locations(chain)
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as client:
        head, body = await client.ask(b"GET", b"/large.bin")
        check("3 MB come byte by byte", (head[b":status"], body) == (b"200", large))
        head, body = await client.ask(b"GET", b"/large.bin")
        check("they come from the cache", b"hit" in head[b"cache-status"] and body == large)
        head, body = await client.ask(b"GET", b"/large.bin", [(b"range", b"bytes=1000000-1999999")])
        check("a part of them", (head[b":status"], body) == (b"206", large[1_000_000:2_000_000]))
        # No HEAD: aioquic wants the content that Content-Length tells of.
        head, body = await client.ask(b"GET", b"/large.bin", [(b"if-modified-since", head[b"last-modified"])])
        check("nothing, if nothing has changed", (head[b":status"], body) == (b"304", b""))
        answers = await asyncio.gather(*(client.ask(b"GET", b"/script.js") for _ in range(50)))
        check("50 requests at a time", all(head[b":status"] == b"200" for head, _ in answers))
        head, _ = await client.ask(b"POST", b"/page.html", [(b"content-length", b"500000")], b"a" * 500_000)
        check("an upload is passed on, and the origin's 501 comes back", head[b":status"] == b"501")
        cookies = [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-long", b"z" * 20_000)]
        head, _ = await client.ask(b"GET", b"/script.js", cookies)
        check("a long head", head[b":status"] == b"200")
        head, _ = await client.ask(b"GET", b"/script.js", [(b"x-long", b"z" * 40_000)])
        check("one that is too long", head[b":status"] == b"431")


asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
