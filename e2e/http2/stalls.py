"""Visitors who hold something and get nothing done, each with the limit that must end it.

Each says what must come of it: the edge's time-outs are short here, and nothing is judged by the clock.
"""
import socket
import threading

from wire import *


class Stall:
    def __init__(self, name, limit, run):
        self.name, self.limit, self.run = name, limit, run


def ends_calmly(wire):
    """The connection ends with ENHANCE_YOUR_CALM."""
    seen = wire.until(lambda got: got.kind == GOAWAY)
    assert seen[-1] is not None and seen[-1].code == ENHANCE_YOUR_CALM, f"{seen[-3:]}"
    assert wire.until(lambda got: False)[-1] is None


def handshake(port):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
        # The beginning of a ClientHello.
        plain.sendall(b"\x16\x03\x01\x02\x00")
        assert plain.recv(1) == b"", "a handshake that is not done was answered"


def preface(port):
    connection = Wire(port)
    connection.say(PREFACE[:10])
    seen = connection.until(lambda got: False)
    assert seen[-1] is None, f"{seen}"


def half_a_frame(port):
    connection = Wire(port).begin()
    connection.say(request(connection, 1)[:20])
    ends_calmly(connection)


def dripping_head(port):
    connection = Wire(port).begin()
    head = request(connection, 1, get("/", ("x-long", "v" * 8000)))
    over = threading.Event()

    def drip():
        for at in range(len(head)):
            connection.say(head[at:at + 1])
            if over.wait(0.1):
                return

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        ends_calmly(connection)
    finally:
        over.set()
        dripping.join()


def shut_window(port):
    connection = Wire(port).begin((INITIAL_WINDOW_SIZE, 0))
    connection.say(request(connection, 1, get("/large")))
    seen = connection.until(lambda got: got.kind in (RST_STREAM, GOAWAY))
    assert seen[-1] is not None and seen[-1].kind == RST_STREAM and seen[-1].stream == 1, f"{seen}"
    # The connection lives, and so do its other streams.
    connection.say(request(connection, 3) + window_update(3, 100))
    seen = connection.until(lambda got: got.kind == DATA and got.flags & END_STREAM)
    assert seen[-1] is not None and seen[-1].stream == 3, f"{seen}"


def shut_window_small(port):
    # What is small is handed to the connection whole, and waits there.
    connection = Wire(port).begin((INITIAL_WINDOW_SIZE, 0))
    connection.say(request(connection, 1))
    ends_calmly(connection)


def shut_connection_window(port):
    connection = Wire(port).begin((INITIAL_WINDOW_SIZE, 1 << 24))
    connection.say(request(connection, 1, get("/large")) + request(connection, 3, get("/large?3")))
    seen = connection.until(lambda got: got.kind in (RST_STREAM, GOAWAY))
    assert seen[-1] is not None, f"{seen}"


def deaf(port):
    # Opens all windows and reads nothing.
    connection = Wire(port).begin((INITIAL_WINDOW_SIZE, 0x7FFFFFFF))
    connection.say(window_update(0, 0x7FFFFFFF - WINDOW))
    for number in range(60):
        connection.say(request(connection, 2 * number + 1, get(f"/large?{number}")))
    deadline = threading.Event()
    # Until the edge has given up, it says nothing that could be waited for: the counter tells.
    deadline.wait(PATIENCE / 2)
    connection.close()


def upload(port):
    connection = Wire(port).begin()
    connection.say(request(connection, 1, post(("content-length", "10")), END_HEADERS) + frame(DATA, 0, 1, b"half"))
    seen = connection.until(lambda got: got.kind in (RST_STREAM, GOAWAY, HEADERS))
    assert seen[-1] is not None and seen[-1].kind != GOAWAY, f"{seen}"
    if seen[-1].kind == HEADERS:
        status = dict(connection.decoder.decode(seen[-1].payload))[":status"]
        assert status == "408", f"answered with {status}"


STALLS = [
    Stall("a handshake that does not go on", "handshake-time", handshake),
    Stall("a preface that does not go on", "head-time", preface),
    Stall("half a frame", "head-time", half_a_frame),
    Stall("a head by drops", "head-time", dripping_head),
    Stall("a window that stays shut", "send-time", shut_window),
    Stall("a window that stays shut, before something small", "send-time", shut_window_small),
    Stall("a window of the connection that stays shut", "send-time", shut_connection_window),
    Stall("a visitor who reads nothing", "send-time", deaf),
    Stall("content that does not go on", "body-time", upload),
]
