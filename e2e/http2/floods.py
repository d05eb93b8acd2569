"""Floods of HTTP/2 frames, each with the limit that must end it.

A flood says more of the same for as long as the connection takes it. `begin` is said once before.
"""
import itertools
import struct
import time

from wire import *


class Flood:
    def __init__(self, name, limit, more, begin=None):
        # `more(wire, number)` is the next piece of the flood, some kilobytes at most.
        self.name, self.limit, self.more, self.begin = name, limit, more, begin

    def run(self, wire, seconds):
        """Floods until the server has had enough, or for `seconds`. Says how many pieces went out."""
        if self.begin:
            wire.say(self.begin(wire))
        deadline = time.monotonic() + seconds
        for number in itertools.count():
            if time.monotonic() > deadline or not wire.say(self.more(wire, number)):
                return number


def streams(wire, number, of):
    """What `of(stream)` says for the next hundred streams."""
    first = 2 * 100 * number + 3
    return b"".join(of(stream) for stream in range(first, first + 200, 2))


def rapid_reset(wire, number):
    return streams(wire, number, lambda stream: request(wire, stream, get("/never")) + rst_stream(stream))


def resets_of_one(wire, number):
    return rst_stream(1) * 100


def made_reset(wire, number):
    # A window beyond its maximum makes the server reset the stream itself, with the request already under way.
    return streams(wire, number, lambda stream: request(wire, stream, get("/never")) + window_update(stream, 0x7FFFFFFF))


def self_dependent(wire, number):
    # A stream that depends on itself does it too.
    return streams(wire, number, lambda stream: request(wire, stream, get("/never"))
                   + frame(PRIORITY, 0, stream, struct.pack(">IB", stream, 15)))


def malformed(wire, number):
    return streams(wire, number, lambda stream: request(wire, stream, get("/")[:2]))


def continuations(wire, number):
    return frame(CONTINUATION, 0, 1, b"") * 100 if number else frame(HEADERS, 0, 1, wire.block(get()))


def header_bomb(wire, number):
    # One entry of 3,900 bytes in the table, and then references to it of a byte each.
    if number == 0:
        return frame(HEADERS, 0, 1, wire.block(get()) + b"\x40\x01a\x7f\xbd\x1d" + b"v" * 3900)
    return frame(CONTINUATION, 0, 1, b"\xbe" * 1000)


def upload(wire):
    return request(wire, 1, post(path="/never"), END_HEADERS)


FLOODS = [
    Flood("rapid reset", "h2-resets h2-excess", rapid_reset),
    Flood("RST_STREAM again and again", "h2-resets", resets_of_one, lambda wire: request(wire, 1)),
    Flood("streams that the server must reset: windows", "h2-excess", made_reset),
    Flood("streams that the server must reset: priorities", "h2-excess", self_dependent),
    Flood("streams that the server must reset: malformed requests", "h2-excess", malformed),
    Flood("PING", "h2-pings", lambda wire, number: ping() * 100),
    Flood("SETTINGS", "h2-settings", lambda wire, number: settings((INITIAL_WINDOW_SIZE, 1000 + number)) * 100),
    Flood("PRIORITY", "h2-priorities",
          lambda wire, number: b"".join(frame(PRIORITY, 0, 2 * stream + 1, bytes([0, 0, 0, 0, 9])) for stream in range(100))),
    Flood("PRIORITY_UPDATE", "h2-priorities", lambda wire, number: frame(PRIORITY_UPDATE, 0, 0, struct.pack(">I", 1) + b"u=1") * 100),
    Flood("WINDOW_UPDATE of the connection", "h2-window-updates", lambda wire, number: window_update(0, 1) * 100),
    Flood("frames of an unknown kind", "h2-other-frames", lambda wire, number: frame(0xBB, 0, 0, b"") * 100),
    Flood("empty DATA", "h2-excess", lambda wire, number: frame(DATA, 0, 1, b"") * 100, upload),
    Flood("DATA of one byte that nobody takes", "h2-excess", lambda wire, number: frame(DATA, 0, 1, b"x") * 100, upload),
    Flood("CONTINUATION", "h2-excess", continuations),
    Flood("a header block that unpacks to megabytes", "h2-excess", header_bomb),
]
