"""An origin that waits until it is told to go on, for bench/one_fetch.sh. Usage: one_fetch_origin.py PORT

/…?size=N         N bytes, of which the one at offset K is K modulo 251, whole or by range; fresh for an hour
/held/…?size=N    the same: the first half of what is asked for at once, the rest when it is opened
/open/held/…       opens what is held of that target, for good
/log              as JSON: each request's target, Range, CDN-Loop and the bytes that it was sent
"""
import collections
import json
import socketserver
import sys
import threading
from urllib.parse import parse_qs, urlsplit

PERIOD = 251
PIECE = bytes(range(PERIOD)) * 4180
gates = collections.defaultdict(threading.Event)
asked = []


class Origin(socketserver.StreamRequestHandler):
    """One connection: GET requests one after the other, kept alive."""

    def handle(self):
        while (line := self.rfile.readline().split()) and len(line) == 3:
            fields = {}
            while (field := self.rfile.readline().strip()):
                name, _, value = field.decode("latin-1").partition(":")
                fields[name.lower()] = value.strip()
            self.answer(line[1].decode(), fields)

    def answer(self, target, fields):
        if target == "/log":
            return self.send(200, "no-store", json.dumps(asked).encode())
        if target.startswith("/open/"):
            gates[target[len("/open"):]].set()
            return self.send(200, "no-store", b"open\n")
        size = int(parse_qs(urlsplit(target).query)["size"][0])
        begin, end, status, described = 0, size, "200 OK", ""
        wanted = fields.get("range", "")
        if wanted.startswith("bytes="):
            first, _, last = wanted[len("bytes="):].partition("-")
            begin, end = int(first), min(int(last or size), size - 1) + 1
            status, described = "206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{size}\r\n"
        seen = {"target": target, "range": wanted, "loop": fields.get("cdn-loop", ""), "bytes": 0}
        asked.append(seen)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {end - begin}\r\n{described}ETag: \"one\"\r\n" \
               "Cache-Control: public, max-age=3600\r\n\r\n"
        self.wfile.write(head.encode())
        if target.startswith("/held/"):
            half = begin + (end - begin) // 2
            self.send_bytes(begin, half, seen)
            gates[target].wait()
            begin = half
        self.send_bytes(begin, end, seen)

    def send_bytes(self, begin, end, seen):
        while begin < end:
            shift = begin % PERIOD
            piece = memoryview(PIECE)[shift:shift + min(end - begin, len(PIECE) - PERIOD)]
            self.wfile.write(piece)
            begin += len(piece)
            seen["bytes"] += len(piece)

    def send(self, status, cache_control, body):
        self.wfile.write(f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\nCache-Control: {cache_control}\r\n\r\n".encode() + body)


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 1024
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        """An edge has left, or was killed."""


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Origin).serve_forever()
