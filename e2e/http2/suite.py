"""HTTP/2 towards visitors, by clients that nobody here wrote: frames by hand with HPACK of PyPI's `hpack`, whole
connections with its `h2`, and nghttp2's `nghttp` and `h2load`.

Starts the binary that PERIGEE names before an origin of its own, and prints `ok …`, `not ok …` or `skip …` per check.
"""
import contextlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request

import h2.config
import h2.connection
import h2.events

import wire
from cases import CASES
from floods import FLOODS
from stalls import STALLS

# How long a flood may go on before it must have been stopped.
FLOOD_SECONDS = 10
# How long the edge waits for a visitor who gets nothing done.
STALL_SECONDS = 2
LARGE = bytes(range(256)) * 4096

failures = 0


def report(name, check):
    """Runs one check; what goes wrong with it is told and counted."""
    global failures
    try:
        check()
    except Exception as error:
        failures += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error) or type(error).__name__
        print(f"not ok {name}: {text} ({os.path.basename(where.filename)}:{where.lineno})", flush=True)
    else:
        print(f"ok {name}", flush=True)


# --- The origin ---


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    over = threading.Event()

    def do_GET(self):
        if self.path in ("/wait", "/never"):
            self.over.wait(60 if self.path == "/never" else 5)
        content = LARGE if self.path.startswith("/large") else b"hello"
        if self.path == "/cookie":
            assert self.headers.get_all("cookie") == ["a=1; b=2"], self.headers.get_all("cookie")
        self.send_response(200)
        self.send_header("Cache-Control", "no-store" if self.path in ("/wait", "/never") else "max-age=600")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        if self.path == "/never":
            # Takes none of the content.
            self.over.wait(60)
            self.close_connection = True
            return
        content = b""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/wait":
            self.over.wait(5)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class OriginServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_):
        """An edge that gives a request up closes its connection."""


# --- The edge ---


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Edge:
    def __init__(self, root, origin_port):
        binary = os.environ["PERIGEE"]
        chain, key = os.path.join(root, "chain.pem"), os.path.join(root, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", key, "-out", chain, "-days", "2", "-subj", "/CN=suite.example",
                        "-addext", "subjectAltName=DNS:suite.example,IP:127.0.0.1"], check=True, capture_output=True)
        self.port, self.admin = free_port(), free_port()
        config = os.path.join(root, "perigee.toml")
        with open(config, "w") as file:
            file.write(f"""
[edge]
listen_tls = "127.0.0.1:{self.port}"

[tls]
early_data = true

[edge.limits]
header_timeout = "{STALL_SECONDS}s"
handshake_timeout = "{STALL_SECONDS}s"
body_stall_timeout = "{STALL_SECONDS}s"
write_stall_timeout = "{STALL_SECONDS}s"

[[certificate]]
chain = "{chain}"
key = "{key}"

[[site]]
name = "suite"
domains = ["*"]
origin = "http://127.0.0.1:{origin_port}"
origin_options = {{ connections_max = 2000 }}
""")
        os.mkdir(os.path.join(root, "state"))
        with open(os.path.join(root, "log"), "w") as log:
            self.process = subprocess.Popen(
                [binary, "serve", "--config", config, "--listen", f"127.0.0.1:{free_port()}",
                 "--admin", f"127.0.0.1:{self.admin}", "--state", os.path.join(root, "state")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(root, "log")) as log:
                    sys.exit(f"not ok the edge starts: {log.read()[-2000:]}")
            time.sleep(0.05)

    def limits(self):
        """How often each limit was reached."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as metrics:
            text = metrics.read().decode()
        found = re.findall(r'^perigee_limits_reached_total\{limit="([^"]+)"\} (\d+)', text, re.M)
        return {name: int(count) for name, count in found}

    def grown(self, before, names):
        """Waits until one of the limits has been reached since `before`."""
        deadline = time.monotonic() + wire.PATIENCE
        while True:
            now = self.limits()
            grown = {name: count - before[name] for name, count in now.items() if count > before[name]}
            if any(name in names for name in grown):
                return grown
            assert time.monotonic() < deadline, f"reached {grown or 'nothing'}, wanted {' or '.join(names)}"
            time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# --- A visitor who behaves ---


class Visitor:
    """One connection by the `h2` package."""

    def __init__(self, port):
        self.socket = wire.tls_socket(port)
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.connection.data_to_send())

    def ask(self, path, content=None):
        """Status and content of one answer."""
        stream = self.connection.get_next_available_stream_id()
        fields = wire.get(path, method="GET" if content is None else "POST")
        self.connection.send_headers(stream, fields, end_stream=content is None)
        self.flush()
        left = content or b""
        status, body, is_over = None, b"", False
        while not is_over:
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size) if left else 0
            if room:
                self.connection.send_data(stream, left[:room], end_stream=len(left) <= room)
                left = left[room:]
                self.flush()
                continue
            data = self.socket.recv(65536)
            assert data, "the connection ended"
            for event in self.connection.receive_data(data):
                match event:
                    case h2.events.ResponseReceived(stream_id=of, headers=fields) if of == stream:
                        status = dict(fields)[":status"]
                    case h2.events.DataReceived(stream_id=of, data=piece, flow_controlled_length=length):
                        body += piece
                        self.connection.acknowledge_received_data(length, of)
                    case h2.events.StreamEnded(stream_id=of):
                        is_over = of == stream
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        raise AssertionError(f"{event}")
            self.flush()
        return status, body

    def close(self):
        self.socket.close()


class Steady(threading.Thread):
    """Asks on one connection again and again until it is told to stop."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.visitor = Visitor(port)
        self.over = threading.Event()
        self.answers, self.trouble = 0, None

    def run(self):
        try:
            while not self.over.is_set():
                got = self.visitor.ask("/")
                assert got == ("200", b"hello"), got
                self.answers += 1
        except Exception as error:
            self.trouble = error

    def finish(self):
        self.over.set()
        self.join(wire.PATIENCE)
        assert self.trouble is None, f"a visitor who behaves was disturbed: {self.trouble!r}"
        assert self.answers > 0, "a visitor who behaves got no answer"


# --- Checks ---


def run_case(edge, case):
    connection = wire.Wire(edge.port)
    try:
        if not getattr(case, "fresh", False):
            connection.begin()
        case(connection).check(connection)
    finally:
        connection.close()


def run_flood(edge, flood):
    before = edge.limits()
    steady = Steady(edge.port)
    steady.start()
    connection = wire.Wire(edge.port).begin()
    try:
        flood.run(connection, FLOOD_SECONDS)
        seen = connection.until(lambda got: got.kind == wire.GOAWAY)
        assert seen[-1] is None or seen[-1].code == wire.ENHANCE_YOUR_CALM, f"{seen[-1]}"
        edge.grown(before, flood.limit.split())
    finally:
        connection.close()
        steady.finish()


def run_stall(edge, stall):
    before = edge.limits()
    steady = Steady(edge.port)
    steady.start()
    try:
        stall.run(edge.port)
        edge.grown(before, [stall.limit])
    finally:
        steady.finish()


def ordinary(edge):
    visitor = Visitor(edge.port)
    assert visitor.ask("/") == ("200", b"hello")
    assert visitor.ask("/large") == ("200", LARGE)
    assert visitor.ask("/echo", LARGE) == ("200", LARGE)
    visitor.close()


def tell(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, (done.stdout + done.stderr)[-500:]
    return done.stdout


def by_nghttp(edge, *options):
    urls = [f"https://127.0.0.1:{edge.port}/large?{number}" for number in range(2)]
    out = tell(["nghttp", "--no-verify-peer", "-nv", *options, *urls])
    assert out.count(":status: 200") == 2 and "recv GOAWAY" not in out and "recv RST_STREAM" not in out, out[-500:]


def by_h2load(edge, *options):
    out = tell(["h2load", "-n", "4000", "-t1", *options, f"https://127.0.0.1:{edge.port}/"])
    assert "4000 done, 4000 succeeded, 0 failed, 0 errored" in out, out[-500:]


def early_by_openssl(edge, root):
    """A session of one connection lets the next one ask with its first bytes."""
    session, early = os.path.join(root, "session"), os.path.join(root, "early")
    asked = "GET /early HTTP/1.1\r\nHost: suite.example\r\nConnection: close\r\n\r\n"
    with open(early, "w") as file:
        file.write(asked)
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.port}", "-servername", "suite.example", "-tls1_3", "-alpn", "http/1.1",
               # Read on when there is nothing more to say.
               "-ign_eof"]
    first = subprocess.run([*command, "-sess_out", session], input=asked, capture_output=True, text=True, timeout=60)
    assert "hello" in first.stdout, (first.stdout + first.stderr)[-500:]
    out = tell([*command, "-sess_in", session, "-early_data", early])
    assert "Early data was accepted" in out and "hello" in out, out[-800:]
    # The session is used up; what was sent early is not asked again by this client, so that there is nothing to answer.
    again = subprocess.run([*command[:-1], "-sess_in", session, "-early_data", early], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "Early data was rejected" in again.stdout and "hello" not in again.stdout, (again.stdout + again.stderr)[-800:]


def main():
    root = tempfile.mkdtemp(prefix="perigee-http2-")
    origin = OriginServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    edge = Edge(root, origin.server_port)
    try:
        before = edge.limits()
        report("h2: answers, downloads and uploads", lambda: ordinary(edge))
        report("openssl: early data is answered, once", lambda: early_by_openssl(edge, root))
        if shutil.which("nghttp") and shutil.which("h2load"):
            report("nghttp: two downloads", lambda: by_nghttp(edge))
            report("nghttp: headers in CONTINUATION", lambda: by_nghttp(edge, "--continuation"))
            report("nghttp: padding", lambda: by_nghttp(edge, "--padding=200"))
            report("nghttp: a window of a kilobyte", lambda: by_nghttp(edge, "--window-bits=10"))
            report("h2load: 4 connections of 100 streams", lambda: by_h2load(edge, "-c4", "-m100"))
            report("h2load: 40 connections of one stream", lambda: by_h2load(edge, "-c40", "-m1"))
        else:
            print("skip nghttp and h2load: not installed", flush=True)
        reached = {name for name, count in edge.limits().items() if count > before[name]} - {"idle-time"}
        report("no limit is reached by all this", lambda: check_equal(reached, set()))
        for section, title, case in CASES:
            report(f"{section}: {title}", lambda case=case: run_case(edge, case))
        for flood in FLOODS:
            report(f"flood: {flood.name}", lambda flood=flood: run_flood(edge, flood))
        for stall in STALLS:
            report(f"stall: {stall.name}", lambda stall=stall: run_stall(edge, stall))
        report("the edge goes on", lambda: ordinary(edge))
    finally:
        Origin.over.set()
        edge.stop()
        origin.shutdown()
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(1 if failures else 0)


def check_equal(got, wanted):
    assert got == wanted, f"{got}, wanted {wanted}"


if __name__ == "__main__":
    main()
