"""What a server must make of frames that are right, odd or wrong, by section of RFC 9113 and RFC 7541.

Each case is a function that says something on a fresh connection and returns what must come of it:
`goaway(codes)`, `reset(stream, codes)`, `malformed(stream)`, `answers(stream, status)`, or `lives()` for what must be
ignored. Where the server says less exactly what is wrong than the RFC asks for, the code that it says stands beside the
right one with the word `loosely`: the visitor is refused either way.
"""
import struct

from wire import *

CASES = []


def case(section, title):
    def keep(function):
        CASES.append((section, title, function))
        return function
    return keep


# --- What must come ---


class Wanted:
    def __init__(self, text, check):
        self.text, self.check = text, check


def names(codes):
    return " or ".join(NAMES[code] for code in codes)


def goaway(*codes, loosely=()):
    """The connection ends with one of these codes."""
    def check(wire):
        seen = wire.until(lambda got: got.kind == GOAWAY)
        assert seen[-1] is not None, f"the connection ended without a word after {seen}"
        assert seen[-1].code in (*codes, *loosely), f"{seen[-1]} after {seen[:-1]}"
        rest = wire.until(lambda got: False)
        assert rest[-1] is None
    return Wanted(f"GOAWAY {names(codes)}", check)


def reset(stream, *codes, loosely=()):
    """The stream ends with one of these codes, and the connection lives."""
    def check(wire):
        seen = wire.until(lambda got: got.kind in (GOAWAY, RST_STREAM))
        last = seen[-1]
        assert last is not None and last.kind == RST_STREAM, f"{seen}"
        assert last.stream == stream and last.code in (*codes, *loosely), f"{seen}"
        alive(wire)
    return Wanted(f"RST_STREAM {names(codes)}", check)


def stream_or_connection(stream, *codes, loosely=()):
    """Where the RFC leaves it to the server how much it ends."""
    def check(wire):
        seen = wire.until(lambda got: got.kind in (GOAWAY, RST_STREAM))
        assert seen[-1] is not None and seen[-1].code in (*codes, *loosely), f"{seen}"
    return Wanted(f"RST_STREAM or GOAWAY {names(codes)}", check)


def overrun(stream, *codes):
    """Content without end, whatever room the server gives: it ends the stream or the connection for it."""
    def check(wire):
        for _ in range(64 << 20 >> 14):
            wire.say(frame(DATA, 0, stream, bytes(FRAME)))
            try:
                seen = wire.until(lambda got: got.kind in (GOAWAY, RST_STREAM), patience=0.001)
            except TimeoutError:
                continue
            assert seen[-1] is not None and seen[-1].code in codes, f"{seen}"
            return
        raise AssertionError("64 MiB were taken")
    return Wanted(f"RST_STREAM or GOAWAY {names(codes)}", check)


def malformed(stream=1):
    """A malformed request (§8.1.1): the stream is reset as a protocol error, or answered with 400, or the whole connection is
    ended for it, which a server may do for any error of a stream. Nothing is served."""
    def check(wire):
        seen = wire.until(lambda got: got.kind in (GOAWAY, RST_STREAM, HEADERS))
        last = seen[-1]
        if last is not None and last.kind == HEADERS:
            status = dict(wire.decoder.decode(last.payload)).get(":status")
            assert status == "400", f"answered with {status}"
        else:
            assert last is not None and last.code == PROTOCOL_ERROR, f"{seen}"
            if last.kind == GOAWAY:
                return
            assert last.stream == stream, f"{seen}"
        alive(wire)
    return Wanted("RST_STREAM or GOAWAY PROTOCOL_ERROR, or 400", check)


def answers(stream=1, status="200"):
    def check(wire):
        seen = wire.until(lambda got: got.kind in (GOAWAY, RST_STREAM) or got.kind == HEADERS and got.stream == stream)
        assert seen[-1] is not None and seen[-1].kind == HEADERS, f"{seen}"
        got = dict(wire.decoder.decode(seen[-1].payload)).get(":status")
        assert got == status, f"answered with {got}"
        alive(wire)
    return Wanted(f"status {status}", check)


def lives():
    return Wanted("nothing", alive)


def ends():
    """The connection ends, with a GOAWAY or without."""
    def check(wire):
        seen = wire.until(lambda got: False)
        assert seen[-1] is None
        assert all(got.kind in (SETTINGS, GOAWAY, WINDOW_UPDATE) for got in seen[:-1]), f"{seen}"
    return Wanted("the end of the connection", check)


def alive(wire):
    """The connection still answers a PING."""
    mark = b"\0alive\0\0"
    wire.say(ping(mark))
    seen = wire.until(lambda got: got.kind == GOAWAY or got.kind == PING and got.flags & ACK and got.payload == mark)
    assert seen[-1] is not None and seen[-1].kind == PING, f"{seen}"


def exactly(check, text):
    return Wanted(text, check)


# --- 3.4 Preface ---


@case("3.4", "no preface but a request of HTTP/1.1")
def _(wire):
    wire.say(b"GET / HTTP/1.1\r\nHost: suite.example\r\n\r\n")
    return ends()
_.fresh = True


# --- 4 Frames ---


@case("4.1", "a frame of an unknown kind is ignored")
def _(wire):
    wire.say(frame(0xBB, 0, 0, bytes(8)))
    return lives()


@case("4.1", "undefined flags are ignored")
def _(wire):
    mark = b"flagged!"
    wire.say(frame(PING, 0x16, 0, mark))
    return lives()


@case("4.1", "the reserved bit of a stream identifier is ignored")
def _(wire):
    wire.say(frame(HEADERS, END_STREAM | END_HEADERS, 0x80000001, wire.block(get())))
    return answers()


@case("4.2", "DATA of the largest allowed size")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + frame(DATA, END_STREAM, 1, bytes(FRAME)))
    return answers()


@case("4.2", "DATA larger than allowed")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + frame(DATA, END_STREAM, 1, bytes(FRAME + 1)))
    return stream_or_connection(1, FRAME_SIZE_ERROR)


@case("4.2", "HEADERS larger than allowed")
def _(wire):
    block = wire.block(get("/", *((f"x-{number}", "v" * 4000) for number in range(5))))
    wire.say(frame(HEADERS, END_STREAM | END_HEADERS, 1, block))
    return goaway(FRAME_SIZE_ERROR)


@case("4.3", "a header block that ends too early")
def _(wire):
    wire.say(frame(HEADERS, END_STREAM | END_HEADERS, 1, wire.block(get()) + b"\x00\x05x-te"))
    return goaway(COMPRESSION_ERROR, loosely=[PROTOCOL_ERROR])


@case("4.3", "PRIORITY inside of a header block")
def _(wire):
    wire.say(request(wire, 1, flags=END_STREAM) + frame(PRIORITY, 0, 1, bytes([0, 0, 0, 0, 9])))
    return goaway(PROTOCOL_ERROR)


@case("4.3", "HEADERS of another stream inside of a header block")
def _(wire):
    wire.say(request(wire, 1, flags=END_STREAM) + request(wire, 3))
    return goaway(PROTOCOL_ERROR)


# --- 5 Streams ---


@case("5.1", "DATA on an idle stream")
def _(wire):
    wire.say(frame(DATA, END_STREAM, 1, b"test"))
    return goaway(PROTOCOL_ERROR)


@case("5.1", "RST_STREAM on an idle stream")
def _(wire):
    wire.say(rst_stream(1))
    return goaway(PROTOCOL_ERROR)


@case("5.1", "WINDOW_UPDATE on an idle stream")
def _(wire):
    wire.say(window_update(1, 100))
    return goaway(PROTOCOL_ERROR)


@case("5.1", "CONTINUATION on an idle stream")
def _(wire):
    wire.say(frame(CONTINUATION, END_HEADERS, 1, wire.block(get())))
    return goaway(PROTOCOL_ERROR)


@case("5.1", "DATA after END_STREAM")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + frame(DATA, END_STREAM, 1, b"test"))
    return stream_or_connection(1, STREAM_CLOSED, loosely=[PROTOCOL_ERROR])


@case("5.1", "HEADERS after END_STREAM")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + request(wire, 1))
    return stream_or_connection(1, STREAM_CLOSED, loosely=[PROTOCOL_ERROR])


@case("5.1", "CONTINUATION after END_STREAM")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + frame(CONTINUATION, END_HEADERS, 1, wire.block(get())))
    return goaway(STREAM_CLOSED, PROTOCOL_ERROR)


@case("5.1", "DATA on a stream that the client has reset")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + rst_stream(1) + frame(DATA, END_STREAM, 1, b"test"))
    return stream_or_connection(1, STREAM_CLOSED, loosely=[PROTOCOL_ERROR])


@case("5.1", "HEADERS on a stream that the client has reset")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + rst_stream(1) + request(wire, 1))
    return stream_or_connection(1, STREAM_CLOSED, loosely=[PROTOCOL_ERROR])


@case("5.1", "WINDOW_UPDATE and RST_STREAM on a closed stream are ignored")
def _(wire):
    wire.say(request(wire, 1))
    wire.until(lambda got: got.kind in (DATA, HEADERS) and got.flags & END_STREAM)
    wire.say(window_update(1, 100) + rst_stream(1))
    return lives()


@case("5.1.1", "a stream with an even identifier")
def _(wire):
    wire.say(request(wire, 2))
    return goaway(PROTOCOL_ERROR)


@case("5.1.1", "a stream with an identifier below the last")
def _(wire):
    wire.say(request(wire, 5) + request(wire, 3))
    return goaway(PROTOCOL_ERROR, STREAM_CLOSED)


@case("5.1.2", "more streams than were allowed")
def _(wire):
    most = wire.settings[MAX_CONCURRENT_STREAMS]
    for number in range(most + 1):
        wire.say(request(wire, 2 * number + 1, get("/wait")))
    return reset(2 * most + 1, REFUSED_STREAM, PROTOCOL_ERROR)


@case("5.3.1", "HEADERS that make a stream depend on itself")
def _(wire):
    depends = struct.pack(">IB", 1, 15)
    wire.say(frame(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, depends + wire.block(get())))
    return stream_or_connection(1, PROTOCOL_ERROR)


@case("5.3.1", "PRIORITY that makes a stream depend on itself")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 15)))
    return stream_or_connection(1, PROTOCOL_ERROR)


@case("5.5", "a frame of an unknown kind inside of a header block")
def _(wire):
    wire.say(request(wire, 1, flags=END_STREAM) + frame(0xBB, 0, 0, bytes(8)))
    return goaway(PROTOCOL_ERROR)


# --- 6.1 DATA, 6.2 HEADERS, 6.3 PRIORITY, 6.4 RST_STREAM ---


@case("6.1", "DATA on stream 0")
def _(wire):
    wire.say(frame(DATA, END_STREAM, 0, b"test"))
    return goaway(PROTOCOL_ERROR)


@case("6.1", "DATA with more padding than payload")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + frame(DATA, END_STREAM | PADDED, 1, b"\x06test"))
    return goaway(PROTOCOL_ERROR)


@case("6.1", "DATA with padding is content without it")
def _(wire):
    wire.say(request(wire, 1, post(("content-length", "4")), END_HEADERS)
             + frame(DATA, END_STREAM | PADDED, 1, b"\x04test" + bytes(4)))
    return answers()


@case("6.2", "HEADERS on stream 0")
def _(wire):
    wire.say(frame(HEADERS, END_STREAM | END_HEADERS, 0, wire.block(get())))
    return goaway(PROTOCOL_ERROR)


@case("6.2", "HEADERS with more padding than payload")
def _(wire):
    block = wire.block(get())
    wire.say(frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, bytes([len(block) + 1]) + block))
    return goaway(PROTOCOL_ERROR)


@case("6.2", "HEADERS with padding and a priority")
def _(wire):
    block = wire.block(get())
    wire.say(frame(HEADERS, END_STREAM | END_HEADERS | PADDED | PRIORITIZED, 1, b"\x08" + bytes([0, 0, 0, 0, 9]) + block + bytes(8)))
    return answers()


@case("6.3", "PRIORITY on stream 0")
def _(wire):
    wire.say(frame(PRIORITY, 0, 0, bytes([0, 0, 0, 0, 9])))
    return goaway(PROTOCOL_ERROR)


@case("6.3", "PRIORITY of four bytes")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + frame(PRIORITY, 0, 1, bytes(4)))
    return stream_or_connection(1, FRAME_SIZE_ERROR, loosely=[PROTOCOL_ERROR])


@case("6.3", "PRIORITY on an idle stream is ignored")
def _(wire):
    wire.say(frame(PRIORITY, 0, 7, bytes([0, 0, 0, 0, 9])) + request(wire, 1))
    return answers()


@case("6.4", "RST_STREAM on stream 0")
def _(wire):
    wire.say(rst_stream(0))
    return goaway(PROTOCOL_ERROR)


@case("6.4", "RST_STREAM of three bytes")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + frame(RST_STREAM, 0, 1, bytes(3)))
    return goaway(FRAME_SIZE_ERROR, loosely=[PROTOCOL_ERROR])


# --- 6.5 SETTINGS ---


@case("6.5", "an acknowledgement with a payload")
def _(wire):
    wire.say(frame(SETTINGS, ACK, 0, bytes(6)))
    return goaway(FRAME_SIZE_ERROR, loosely=[PROTOCOL_ERROR])


@case("6.5", "SETTINGS on a stream")
def _(wire):
    wire.say(frame(SETTINGS, 0, 1, struct.pack(">HI", MAX_CONCURRENT_STREAMS, 100)))
    return goaway(PROTOCOL_ERROR)


@case("6.5", "SETTINGS of three bytes")
def _(wire):
    wire.say(frame(SETTINGS, 0, 0, bytes(3)))
    return goaway(FRAME_SIZE_ERROR, loosely=[PROTOCOL_ERROR])


@case("6.5", "an acknowledgement of settings that were not sent")
def _(wire):
    wire.say(frame(SETTINGS, ACK) * 2)
    return goaway(PROTOCOL_ERROR)


@case("6.5.2", "ENABLE_PUSH neither 0 nor 1")
def _(wire):
    wire.say(settings((ENABLE_PUSH, 2)))
    return goaway(PROTOCOL_ERROR)


@case("6.5.2", "INITIAL_WINDOW_SIZE above its maximum")
def _(wire):
    wire.say(settings((INITIAL_WINDOW_SIZE, 1 << 31)))
    return goaway(FLOW_CONTROL_ERROR, loosely=[PROTOCOL_ERROR])


@case("6.5.2", "MAX_FRAME_SIZE below its minimum")
def _(wire):
    wire.say(settings((MAX_FRAME_SIZE, FRAME - 1)))
    return goaway(PROTOCOL_ERROR)


@case("6.5.2", "MAX_FRAME_SIZE above its maximum")
def _(wire):
    wire.say(settings((MAX_FRAME_SIZE, 1 << 24)))
    return goaway(PROTOCOL_ERROR)


@case("6.5.2", "an unknown setting is ignored")
def _(wire):
    wire.say(settings((0xFF, 1)))
    return lives()


@case("6.5.3", "settings are acknowledged")
def _(wire):
    wire.say(settings((MAX_CONCURRENT_STREAMS, 100)))

    def check(wire):
        count = 0
        for _ in range(2):
            count += wire.until(lambda got: got.kind == SETTINGS and got.flags & ACK)[-1] is not None
        assert count == 2, f"{count} of 2 acknowledged"
    return exactly(check, "SETTINGS with ACK")


@case("6.5.3", "of one setting twice, the last holds")
def _(wire):
    wire.say(settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)) + request(wire, 1))
    return first_data(1)


# --- 6.7 PING, 6.8 GOAWAY ---


@case("6.7", "a PING is answered with its payload")
def _(wire):
    return lives()


@case("6.7", "an answered PING is not answered")
def _(wire):
    wire.say(ping(b"answered", ACK) + ping(b"question"))

    def check(wire):
        seen = wire.until(lambda got: got.kind == PING)
        assert seen[-1] is not None and seen[-1].payload == b"question", f"{seen}"
    return exactly(check, "no answer")


@case("6.7", "PING on a stream")
def _(wire):
    wire.say(frame(PING, 0, 1, bytes(8)))
    return goaway(PROTOCOL_ERROR)


@case("6.7", "PING of six bytes")
def _(wire):
    wire.say(frame(PING, 0, 0, bytes(6)))
    return goaway(FRAME_SIZE_ERROR, loosely=[PROTOCOL_ERROR])


@case("6.8", "GOAWAY on a stream")
def _(wire):
    wire.say(frame(GOAWAY, 0, 1, struct.pack(">II", 0, NO_ERROR)))
    return goaway(PROTOCOL_ERROR)


@case("6.8", "what runs when a client says GOAWAY is answered")
def _(wire):
    wire.say(request(wire, 1) + frame(GOAWAY, 0, 0, struct.pack(">II", 0, NO_ERROR)))

    def check(wire):
        seen = wire.until(lambda got: got.kind == HEADERS)
        assert seen[-1] is not None, f"{seen}"
        assert dict(wire.decoder.decode(seen[-1].payload))[":status"] == "200"
    return exactly(check, "status 200")


# --- 6.9 WINDOW_UPDATE ---


def first_data(size, stream=1):
    def check(wire):
        seen = wire.until(lambda got: got.kind in (DATA, RST_STREAM, GOAWAY))
        assert seen[-1] is not None and seen[-1].kind == DATA and len(seen[-1].payload) == size, f"{seen}"
        alive(wire)
    return Wanted(f"DATA of {size} bytes", check)


@case("6.9", "WINDOW_UPDATE by 0 of the connection")
def _(wire):
    wire.say(window_update(0, 0))
    return goaway(PROTOCOL_ERROR)


@case("6.9", "WINDOW_UPDATE by 0 of a stream")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + window_update(1, 0))
    return stream_or_connection(1, PROTOCOL_ERROR)


@case("6.9", "WINDOW_UPDATE of three bytes")
def _(wire):
    wire.say(frame(WINDOW_UPDATE, 0, 0, bytes(3)))
    return goaway(FRAME_SIZE_ERROR, loosely=[PROTOCOL_ERROR])


@case("6.9.1", "no more is sent than the window has room for")
def _(wire):
    wire.say(settings((INITIAL_WINDOW_SIZE, 1)) + request(wire, 1))
    return first_data(1)


@case("6.9.1", "a window of the connection that would be too large")
def _(wire):
    wire.say(window_update(0, 0x7FFFFFFF) * 2)
    return goaway(FLOW_CONTROL_ERROR)


@case("6.9.1", "a window of a stream that would be too large")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + window_update(1, 0x7FFFFFFF) * 2)
    return reset(1, FLOW_CONTROL_ERROR)


@case("6.9.1", "DATA beyond the window that the server gave")
def _(wire):
    # Its origin takes nothing, so that the edge has room for so much and no more; how much is the machine's to say.
    wire.say(request(wire, 1, post(path="/never"), END_HEADERS))
    return overrun(1, FLOW_CONTROL_ERROR)


@case("6.9.2", "a window that grows by SETTINGS is used")
def _(wire):
    wire.say(settings((INITIAL_WINDOW_SIZE, 0)) + request(wire, 1))
    wire.until(lambda got: got.kind == HEADERS)
    wire.say(settings((INITIAL_WINDOW_SIZE, 1)))
    return first_data(1)


@case("6.9.2", "a window that SETTINGS have made negative is minded")
def _(wire):
    wire.say(settings((INITIAL_WINDOW_SIZE, 3)) + request(wire, 1))
    wire.until(lambda got: got.kind == DATA)
    # 3 were used: -1 after this, and 1 after two more.
    wire.say(settings((INITIAL_WINDOW_SIZE, 2)) + window_update(1, 2))
    return first_data(1)


# --- 6.10 CONTINUATION ---


def in_pieces(wire, stream, fields, pieces=3):
    block = wire.block(fields)
    size = len(block) // pieces + 1
    cut = [block[at:at + size] for at in range(0, len(block), size)]
    frames = [frame(HEADERS, END_STREAM, stream, cut[0])]
    frames += [frame(CONTINUATION, 0, stream, piece) for piece in cut[1:-1]]
    return b"".join(frames) + frame(CONTINUATION, END_HEADERS, stream, cut[-1])


@case("6.10", "a header block in several frames")
def _(wire):
    wire.say(in_pieces(wire, 1, get("/", ("x-long", "v" * 100))))
    return answers()


@case("6.10", "CONTINUATION on stream 0")
def _(wire):
    wire.say(request(wire, 1, flags=END_STREAM) + frame(CONTINUATION, END_HEADERS, 0, wire.block(get())))
    return goaway(PROTOCOL_ERROR)


@case("6.10", "CONTINUATION on another stream")
def _(wire):
    wire.say(request(wire, 1, flags=END_STREAM) + frame(CONTINUATION, END_HEADERS, 3, wire.block(get())))
    return goaway(PROTOCOL_ERROR)


@case("6.10", "CONTINUATION after END_HEADERS")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + frame(CONTINUATION, END_HEADERS, 1, wire.block([("x-a", "b")])))
    return goaway(PROTOCOL_ERROR)


@case("6.10", "CONTINUATION after CONTINUATION with END_HEADERS")
def _(wire):
    wire.say(in_pieces(wire, 1, get("/wait")) + frame(CONTINUATION, END_HEADERS, 1, wire.block([("x-a", "b")])))
    return goaway(PROTOCOL_ERROR)


@case("6.10", "DATA instead of CONTINUATION")
def _(wire):
    wire.say(request(wire, 1, post(), 0) + frame(DATA, END_STREAM, 1, b"test"))
    return goaway(PROTOCOL_ERROR)


# --- 6.6 PUSH_PROMISE, 7 Error codes ---


@case("8.4", "PUSH_PROMISE of a client")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + wire.block(get())))
    return goaway(PROTOCOL_ERROR)


@case("7", "RST_STREAM with an unknown code")
def _(wire):
    wire.say(request(wire, 1, get("/wait")) + rst_stream(1, 0xFF))
    return lives()


@case("7", "GOAWAY with an unknown code is an end like any other")
def _(wire):
    wire.say(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0xFF)))

    def check(wire):
        wire.say(ping(b"are you?"))
        seen = wire.until(lambda got: got.kind in (PING, GOAWAY))
        assert seen, "nothing came"
    return exactly(check, "an answer or the end")


# --- 8 HTTP ---


@case("8.1", "HEADERS in the middle without END_STREAM")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + request(wire, 1, [("x-a", "b")], END_HEADERS))
    return stream_or_connection(1, PROTOCOL_ERROR)


@case("8.1", "trailers are taken")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + frame(DATA, 0, 1, b"test")
             + request(wire, 1, [("x-checksum", "1")], END_HEADERS | END_STREAM))
    return answers()


def bad_fields(section, title, fields):
    @case(section, title)
    def _(wire):
        wire.say(request(wire, 1, fields))
        return malformed()


bad_fields("8.2.1", "a field name in upper case", get("/", ("X-Test", "ok")))
bad_fields("8.2.1", "a field name with a space", get("/", ("x test", "ok")))
bad_fields("8.2.1", "a field name with a colon", get("/", ("x:test", "ok")))
bad_fields("8.2.1", "an empty field name", get("/", ("", "ok")))
bad_fields("8.2.1", "a field value with LF", get("/", ("x-test", "a\nb: c")))
bad_fields("8.2.1", "a field value with CR", get("/", ("x-test", "a\rb")))
bad_fields("8.2.1", "a field value with NUL", get("/", ("x-test", "a\0b")))
bad_fields("8.2.2", "Connection", get("/", ("connection", "keep-alive")))
bad_fields("8.2.2", "Transfer-Encoding", get("/", ("transfer-encoding", "chunked")))
bad_fields("8.2.2", "Keep-Alive", get("/", ("keep-alive", "timeout=5")))
bad_fields("8.2.2", "Proxy-Connection", get("/", ("proxy-connection", "keep-alive")))
bad_fields("8.2.2", "Upgrade", get("/", ("upgrade", "websocket")))
bad_fields("8.2.2", "TE with anything but trailers", get("/", ("te", "trailers, deflate")))
bad_fields("8.3", "an unknown pseudo-header field", get() + [(":test", "ok")])
bad_fields("8.3", "a pseudo-header field of responses", get() + [(":status", "200")])
bad_fields("8.3", "a pseudo-header field after a field", [("x-test", "ok"), *get()])
bad_fields("8.3", "one pseudo-header field after a field",
           [(":method", "GET"), (":scheme", "https"), (":authority", "suite.example"), ("x-test", "ok"), (":path", "/")])
for missing in (":method", ":scheme", ":path"):
    bad_fields("8.3.1", f"no {missing}", [pair for pair in get() if pair[0] != missing])
for twice in (":method", ":scheme", ":path", ":authority"):
    pair = next(pair for pair in get() if pair[0] == twice)
    bad_fields("8.3.1", f"{twice} twice", [pair, *get()])
bad_fields("8.3.1", "an empty :path", get(""))
bad_fields("8.3.1", "a :path that is no path", get("not-a-path"))
bad_fields("8.3.1", "Host beside another :authority", get("/", ("host", "other.example")))
bad_fields("8.3.1", "user information in :authority", [*get()[:3], (":authority", "user@suite.example")])
bad_fields("8.3.1", "neither :authority nor Host", get()[:3])


@case("8.2.2", "TE: trailers is allowed")
def _(wire):
    wire.say(request(wire, 1, get("/", ("te", "trailers"))))
    return answers()


@case("8.2.3", "a Cookie in several lines")
def _(wire):
    wire.say(request(wire, 1, get("/cookie", ("cookie", "a=1"), ("cookie", "b=2"))))
    return answers()


@case("8.3.1", "Host alone")
def _(wire):
    wire.say(request(wire, 1, [*get()[:3], ("host", "suite.example")]))
    return answers()


@case("8.1", "a pseudo-header field in trailers")
def _(wire):
    wire.say(request(wire, 1, post(), END_HEADERS) + frame(DATA, 0, 1, b"test")
             + request(wire, 1, [(":path", "/other")], END_HEADERS | END_STREAM))
    # It should be refused (§8.1). The library takes it off, so that nobody gets to see it, and answers.
    return answers()


@case("8.1.1", "less content than Content-Length says")
def _(wire):
    wire.say(request(wire, 1, post(("content-length", "5")), END_HEADERS) + frame(DATA, END_STREAM, 1, b"test"))
    return malformed()


@case("8.1.1", "more content than Content-Length says, in several frames")
def _(wire):
    wire.say(request(wire, 1, post(("content-length", "5")), END_HEADERS)
             + frame(DATA, 0, 1, b"test") + frame(DATA, END_STREAM, 1, b"test"))
    return malformed()


@case("8.1.1", "no content where Content-Length says some")
def _(wire):
    wire.say(request(wire, 1, post(("content-length", "5"))))
    return malformed()


@case("8.1.1", "two Content-Lengths")
def _(wire):
    wire.say(request(wire, 1, post(("content-length", "4"), ("content-length", "5")), END_HEADERS)
             + frame(DATA, END_STREAM, 1, b"test"))
    return malformed()


@case("8.5", "CONNECT with :scheme and :path")
def _(wire):
    wire.say(request(wire, 1, get(method="CONNECT")))
    return refused()


@case("8.5", "CONNECT")
def _(wire):
    wire.say(request(wire, 1, [(":method", "CONNECT"), (":authority", "suite.example:443")]))
    return refused()


def refused():
    """Refused, by whatever word."""
    def check(wire):
        seen = wire.until(lambda got: got.kind in (RST_STREAM, HEADERS, GOAWAY))
        last = seen[-1]
        assert last is not None and last.kind != GOAWAY, f"{seen}"
        if last.kind == HEADERS:
            status = dict(wire.decoder.decode(last.payload))[":status"]
            assert status in ("400", "405", "501"), f"answered with {status}"
        alive(wire)
    return Wanted("RST_STREAM or a status that refuses", check)


# --- RFC 7541 ---


def bad_block(section, title, block):
    @case(f"HPACK {section}", title)
    def _(wire):
        wire.say(frame(HEADERS, END_STREAM | END_HEADERS, 1, block(wire)))
        return goaway(COMPRESSION_ERROR, loosely=[PROTOCOL_ERROR])


bad_block("2.3.3", "an index beyond the tables", lambda wire: wire.block(get()) + b"\xff\x50")
bad_block("4.2", "a change of the table's size at the end of a block", lambda wire: wire.block(get()) + b"\x20")
bad_block("5.1", "an integer without end", lambda wire: wire.block(get()) + b"\xff" + b"\xff" * 12)
bad_block("5.2", "padding of more than seven bits", lambda wire: wire.block(get()) + b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")
bad_block("5.2", "padding that isn't ones", lambda wire: wire.block(get()) + b"\x00\x85\xf2\xb2\x4a\x87\xff\x83\x49\x50\x90")
bad_block("5.2", "the symbol that ends strings", lambda wire: wire.block(get()) + b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f")
bad_block("6.1", "index 0", lambda wire: wire.block(get()) + b"\x80")
bad_block("6.3", "a table larger than allowed", lambda wire: b"\x3f\xe1\xff\x03" + wire.block(get()))
