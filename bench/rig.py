"""The measuring rig of all benches: processes, ports, CPU time, memory, load and tables.

It starts servers on free loopback ports, reads what they cost from /proc, and ends them by their own pid.
It judges nothing: each bench decides what to compare. Linux only, standard library only.
"""
import contextlib
import hashlib
import http.client
import os
import random
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
# The server under measurement has one core to itself, and the load generator another where there is one.
SERVER_CORE = CORES[0]
LOAD_CORE = CORES[-1]
FILES_MAX = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
# Ports come from here up to where the kernel takes those of outgoing connections.
PORT_MIN = 10_000


class CannotMeasure(Exception):
    """The bench could not do its measurement. The text says why; the script exits with 1."""


# --- Processes ---


class Server:
    """One started server: its pid, its address, how it was started, and what its whole process tree costs."""

    # Whether `port` speaks TLS.
    is_tls = False

    def __init__(self, name, process, port, log_path, argv):
        self.name = name
        self.process = process
        self.port = port
        self.log_path = log_path
        self.argv = argv

    def url(self, path):
        return f"{'https' if self.is_tls else 'http'}://127.0.0.1:{self.port}{path}"

    def pids(self):
        """The server's pid and those of its descendants."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    children.setdefault(int(stat_fields(entry)[1]), []).append(int(entry))
        found = [self.process.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def cpu_us(self):
        """User and system time in µs of all its processes and threads, ended children included."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                ticks += sum(int(field) for field in stat_fields(pid)[11:15])
        return ticks * 1e6 / TICKS_PER_SECOND

    def memory_bytes(self):
        """Proportional set size of all its processes: user memory, with shared pages counted once."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        return total * 1024

    def written_bytes(self):
        """Bytes that its main process has had written to block devices, as the kernel counts them."""
        with open(f"/proc/{self.process.pid}/io") as counts:
            return next(int(line.split()[1]) for line in counts if line.startswith("write_bytes:"))

    def log_tail(self):
        with open(self.log_path, errors="replace") as log:
            return "".join(log.readlines()[-20:])


def stat_fields(pid):
    """The fields of /proc/PID/stat from the third on (state, ppid, …); the name before them may hold spaces."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()


class Rig:
    """A temporary directory and the servers started in it; leaving the `with` block ends and removes all."""

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self.dir = tempfile.mkdtemp(prefix="perigee-bench-")
        # Workers that drop their privileges must still reach their files.
        os.chmod(self.dir, 0o755)
        self.servers = []
        self.ports = set()
        return self

    def __exit__(self, *_):
        for server in reversed(self.servers):
            self.stop(server)
        shutil.rmtree(self.dir, ignore_errors=True)

    def port(self):
        """A loopback port that is free now and was not handed out before.

        It lies below the ports of outgoing connections where there is room: a server that is started again finds its
        port free, and who asks for it meanwhile cannot be connected to itself.
        """
        with open("/proc/sys/net/ipv4/ip_local_port_range") as limits:
            end = int(limits.read().split()[0])
        while True:
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.randrange(PORT_MIN, end) if end > PORT_MIN + 1000 else 0))
                port = probe.getsockname()[1]
                if port not in self.ports:
                    self.ports.add(port)
                    return port

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, text):
        """Writes a file below the rig's directory and returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w" if isinstance(text, str) else "wb") as file:
            file.write(text)
        return path

    def start(self, name, argv, port, cores=None, cwd=None):
        """Starts a server on the given cores and waits until its port answers."""
        return self.await_port(self.launch(name, argv, port, cores, cwd))

    def await_port(self, server):
        """Waits until the port of `server` answers, and returns the server."""
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
                return server
            self.must_run(server)
            if time.monotonic() > deadline:
                raise CannotMeasure(f"{server.name} does not listen on port {server.port}:\n{server.log_tail()}")
            time.sleep(0.05)

    def launch(self, name, argv, port, cores=None, cwd=None):
        """Starts a server on the given cores and waits for nothing; a log of its name and port is added to."""
        log_path = self.path(f"{name.replace(' ', '-')}-{port}.log")
        cores = set(cores or CORES)

        def prepare():
            os.sched_setaffinity(0, cores)
            resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))

        with open(log_path, "ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=prepare, cwd=cwd or self.dir
            )
        server = Server(name, process, port, log_path, argv)
        self.servers.append(server)
        return server

    def must_run(self, server):
        """Refuses to go on without a server that ended by itself."""
        if (status := server.process.poll()) is not None:
            raise CannotMeasure(f"{server.name} ended by itself with {status}:\n{server.log_tail()}")

    def kill(self, server):
        """Ends a server as a crash would: SIGKILL, nothing written, nothing said. Returns the moment before it."""
        self.servers.remove(server)
        moment = time.monotonic()
        server.process.kill()
        server.process.wait()
        return moment

    def stop(self, server):
        """Ends a server by its own pid, and by their pids those of its children that outlive it."""
        if server not in self.servers:
            return
        self.servers.remove(server)
        pids = server.pids() if server.process.poll() is None else []
        with contextlib.suppress(ProcessLookupError):
            server.process.terminate()
        try:
            server.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
        for pid in pids[1:]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


# --- Asking and checking ---


def beside(name):
    """The path of a file that lies beside this one."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)


def fetch(server, path, headers=None):
    """One GET on a fresh connection: (status, header fields, body)."""
    if server.is_tls:
        # The certificate is the rig's own.
        trusting = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=trusting)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def check_body(server, path, body):
    """Refuses to measure a server that does not answer `path` with exactly `body`."""
    status, _, got = fetch(server, path)
    if status != 200 or got != body:
        raise CannotMeasure(
            f"{server.name} answers {path} with {status} and {len(got)} bytes "
            f"(sha256 {hashlib.sha256(got).hexdigest()[:12]}), wanted 200 and {len(body)} bytes"
        )


# --- The page cache ---


def drop_page_cache(*directories):
    """Makes the next reads of the files below `directories` reach the disk, and returns the way that was used.

    Where root may, the whole machine's page cache is dropped; else the pages of these files are.
    """
    os.sync()
    with contextlib.suppress(OSError), open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("1")
        return "drop_caches"
    for directory in directories:
        for folder, _, names in os.walk(directory):
            for name in names:
                with contextlib.suppress(OSError), open(os.path.join(folder, name), "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return "posix_fadvise"


def need_disk(directory, size):
    """Refuses to measure disks where there is no disk, or less room than `size` bytes."""
    with open("/proc/self/mounts") as mounts:
        points = [line.split()[1:3] for line in mounts]
    held = [(point, kind) for point, kind in points if (directory + "/").startswith(point.rstrip("/") + "/")]
    if max(held, key=lambda each: len(each[0]))[1] in ("tmpfs", "ramfs"):
        raise CannotMeasure(f"{directory} is in memory; name a directory on a disk with TMPDIR=DIRECTORY")
    if (free := shutil.disk_usage(directory).free) < size:
        raise CannotMeasure(f"{directory} has {free / 2**30:.1f} GiB free, and {size / 2**30:.1f} are needed; "
                            "name another directory with TMPDIR=DIRECTORY")


# --- Load ---


class Load:
    """What one run of wrk did: requests, seconds and the bytes that it read."""

    def __init__(self, text, server):
        found = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h), ([\d.]+)(B|KB|MB|GB|TB) read", text)
        if not found:
            raise CannotMeasure(f"wrk printed no result:\n{text}")
        self.requests = int(found[1])
        self.seconds = float(found[2]) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}[found[3]]
        self.bytes = float(found[4]) * 1024 ** ("B", "KB", "MB", "GB", "TB").index(found[5])
        if self.requests == 0:
            raise CannotMeasure(f"{server.name} answered nothing under load:\n{text}")
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        if bad:
            raise CannotMeasure(f"{server.name}: {bad[1]} of {self.requests} answers had the wrong status")
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", text)
        if errors and any(int(count) for count in errors.groups()):
            raise CannotMeasure(f"{server.name}: {errors[0]}")


def wrk(server, path, seconds, connections, threads=1, cores=None, script=None, arguments=(), headers=()):
    """Loads `server` from the load core (or `cores`) and returns a `Load`; any bad answer is an error."""
    return Load(run_wrk(server, path, seconds, connections, threads, cores, script, arguments, headers), server)


def run_wrk(server, path, seconds, connections, threads=1, cores=None, script=None, arguments=(), headers=()):
    """Runs wrk and returns what it printed: nothing when its script ended it before its time."""
    argv = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    for header in headers:
        argv += ["-H", header]
    if script:
        argv += ["-s", beside(script)]
    return run_load([*argv, server.url(path), "--", *map(str, arguments)], cores)


def run_load(argv, cores=None):
    """Runs a load generator on the load core (or `cores`) and returns what it printed."""
    cores = set(cores or {LOAD_CORE})
    done = subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    if done.returncode != 0:
        raise CannotMeasure(f"{argv[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


class H2Load:
    """What one run of h2load did: like `Load`."""

    def __init__(self, text, server):
        counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
        traffic = re.search(r"traffic: .*\((\d+)\) total, .*\((\d+)\) headers .*\((\d+)\) data", text)
        if not counts or not traffic:
            raise CannotMeasure(f"h2load printed no result:\n{text}")
        done, good, failed, errored = (int(count) for count in counts.groups())
        if good == 0 or failed or errored or good != done:
            raise CannotMeasure(f"{server.name}: {counts[0]}")
        self.requests, self.bytes = good, int(traffic[3])


def h2load(server, path, seconds, connections, streams, options=()):
    """Loads `server` over HTTP/2 from the load core; any bad answer is an error."""
    argv = ["h2load", "-D", str(seconds), "-c", str(connections), "-m", str(streams), "-t1", *options, server.url(path)]
    return H2Load(run_load(argv), server)


class H3Load:
    """What h3load counted."""

    def __init__(self, output, server):
        figures = dict(pair.split("=") for pair in output.split("RESULT ")[-1].split())
        self.requests, self.bytes = int(figures["requests"]), float(figures["bytes"])
        if figures["errors"] != "0" or not self.requests:
            raise CannotMeasure(f"{server.name}: {output}")


def h3load(server, path, seconds, connections, streams):
    """Loads `server` over HTTP/3 from the load core, by $H3LOAD; any bad answer is an error."""
    argv = [os.environ["H3LOAD"], f"127.0.0.1:{server.port}", "bench.example", path, str(connections), str(streams), str(seconds)]
    return H3Load(run_load(argv), server)


def cost(server, path, seconds, connections, body_bytes=0, by=wrk, **options):
    """CPU µs per request of `server` under load, with the load itself: (µs, Load).

    Requests are keep-alive; the bytes that arrived must hold `body_bytes` for each request that was counted.
    """
    before = server.cpu_us()
    load = by(server, path, seconds, connections, **options)
    spent = server.cpu_us() - before
    if load.bytes < 0.98 * load.requests * body_bytes:
        raise CannotMeasure(f"{server.name}: {load.bytes:.0f} bytes for {load.requests} answers of {body_bytes}")
    return spent / load.requests, load


# --- Figures ---


def median(values):
    return statistics.median(values)


def spread(values, digits=2):
    """`median (lowest–highest)` of the rounds."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def table(head, rows):
    """Prints aligned columns: the first to the left, the others to the right."""
    rows = [head] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip(), flush=True)
        if number == 0:
            print("  ".join("-" * width for width in widths), flush=True)


def say(text):
    """A progress line, kept apart from the figures."""
    print(text, file=sys.stderr, flush=True)


def result(**figures):
    """The last line of a bench: plain decimal numbers."""
    print("RESULT " + " ".join(f"{key}={value}" for key, value in figures.items()), flush=True)


def run(bench):
    """Runs `bench(rig)`; exits with 1 and says why when it could not measure."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))
    try:
        with Rig() as rig:
            bench(rig)
    except CannotMeasure as reason:
        say(f"Cannot measure: {reason}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
