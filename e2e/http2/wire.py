"""HTTP/2 as frames on a TLS socket: says anything, right or wrong, and reads what comes. Judges nothing."""
import socket
import ssl
import struct
import time

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)

(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)
NAMES = ("NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR "
         "REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM").split()

# Longest wait for anything that must come.
PATIENCE = 10
WINDOW = 65_535
FRAME = 16_384


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst_stream(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def ping(payload=b"12345678", flags=0):
    return frame(PING, flags, 0, payload)


class Seen:
    """A frame that came."""

    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload
        self.code = None
        if kind == RST_STREAM:
            self.code = struct.unpack(">I", payload)[0]
        elif kind == GOAWAY:
            self.code = struct.unpack(">I", payload[4:8])[0]

    def __repr__(self):
        kind = "DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION".split()
        name = kind[self.kind] if self.kind < len(kind) else hex(self.kind)
        code = f" {NAMES[self.code]}" if self.code is not None and self.code < len(NAMES) else ""
        return f"{name}{code} on {self.stream} ({len(self.payload)} bytes)"


def tls_socket(port, protocols=("h2",)):
    context = ssl.create_default_context()
    # The certificate is the suite's own.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain)


class Wire:
    """One connection. After `begin` both preface and settings have been said and heard."""

    def __init__(self, port):
        self.socket = tls_socket(port)
        self.buffer = b""
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.is_over = False
        self.settings = {}

    def begin(self, *pairs):
        self.say(PREFACE + settings(*pairs))
        first = self.next()
        assert first and first.kind == SETTINGS and not first.flags & ACK, f"the server began with {first}"
        for at in range(0, len(first.payload), 6):
            name, value = struct.unpack(">HI", first.payload[at:at + 6])
            self.settings[name] = value
        self.say(frame(SETTINGS, ACK))
        return self

    def say(self, data):
        """Sends bytes; a server that has ended the connection meanwhile is no error."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def next(self, patience=PATIENCE):
        """The next frame; `None` when the connection has ended. Raises `TimeoutError` when neither comes."""
        deadline = time.monotonic() + patience
        while True:
            if len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) >= 9 + length:
                    kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
                    payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
                    return Seen(kind, flags, stream & 0x7FFFFFFF, payload)
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                raise
            except OSError:
                more = b""
            if not more:
                self.is_over = True
                return None
            self.buffer += more

    def until(self, wanted, patience=PATIENCE):
        """Frames up to the first that `wanted` takes, or to the end (then the last is `None`)."""
        seen = []
        deadline = time.monotonic() + patience
        while True:
            got = self.next(max(0.001, deadline - time.monotonic()))
            seen.append(got)
            if got is None or wanted(got):
                return seen

    def block(self, fields):
        """A header block; names and values as they are given."""
        return self.encoder.encode([(name, value) for name, value in fields], huffman=False)

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass


def get(path="/", *more, method="GET"):
    return [(":method", method), (":scheme", "https"), (":path", path), (":authority", "suite.example"), *more]


def post(*more, path="/echo"):
    return get(path, *more, method="POST")


def request(wire, stream, fields=None, flags=END_STREAM | END_HEADERS):
    return frame(HEADERS, flags, stream, wire.block(fields or get()))
