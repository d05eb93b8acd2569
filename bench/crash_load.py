"""The visitors of bench/crash.sh: threads that ask for a growing set of objects and check each byte of each answer.

One `Visitors` is one process with objects of its own. It outlives the edge's lives, because it remembers when each object
was first received whole: after a restart, its first question for an object tells whether the disk kept it.
"""
import bisect
import http.client
import random
import re
import signal
import threading
import time

THREADS = 6
# An object counts as stored when its first whole answer was received so long before the kill.
SETTLED_SECONDS = 10
# New objects per second and process, so that fills are under way at each kill and all fit on the disk.
NEW_PER_SECOND = 20
SIZE_MIN, SIZE_MAX = 100, 5 * 1024 * 1024
SIZE_CLASSES = {"up to 4 KiB": 4096, "up to 64 KiB": 65536, "up to 1 MiB": 2**20, "over 1 MiB": SIZE_MAX}
BIG = [f"/b/{number}/{40 * 1024 * 1024}" for number in range(4)]
RANGE_MAX = 1024 * 1024
WRONG_SHOWN = 5


def size_class(size):
    return list(SIZE_CLASSES)[bisect.bisect_left(list(SIZE_CLASSES.values()), size)]


def judge(bodies, path, status, fields, body):
    """None for a right answer, else what is wrong with one that ended cleanly; the status is 200 or 206."""
    start, end = 0, None
    if status == 206:
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", fields.get("Content-Range", ""))
        if not span or span[3] != path.rsplit("/", 1)[1]:
            return f"Content-Range {fields.get('Content-Range')!r}"
        start, end = int(span[1]), int(span[2]) + 1
    expected = bodies.of(path, start, end)
    if len(body) != len(expected):
        return f"{len(body)} bytes instead of {len(expected)}"
    if body != bytes(expected):
        place = next(place for place, (got, wanted) in enumerate(zip(body, expected)) if got != wanted)
        return f"byte {start + place} of {start}-{start + len(body) - 1} is wrong"
    return None


class Tally:
    """What one life brought; sums with `+=`."""

    def __init__(self):
        self.answers = self.ranges = self.wrong = self.other = self.aborted = self.broken = 0
        self.shown = []
        self.others = {}
        # Size class → [hits, asked] of the first questions for settled objects.
        self.kept = {name: [0, 0] for name in SIZE_CLASSES}
        self.kept_paths = set()
        self.aborts = []

    def __iadd__(self, more):
        for name in ("answers", "ranges", "wrong", "other", "aborted", "broken"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.shown = (self.shown + more.shown)[:WRONG_SHOWN]
        for status, count in more.others.items():
            self.others[status] = self.others.get(status, 0) + count
        for name, (hits, asked) in more.kept.items():
            self.kept[name][0] += hits
            self.kept[name][1] += asked
        return self

    def note_wrong(self, path, reason):
        self.wrong += 1
        self.shown = (self.shown + [f"{path}: {reason}"])[:WRONG_SHOWN]


class Visitors:
    def __init__(self, bodies, port, number, processes, is_hit):
        self.bodies, self.port, self.number, self.processes, self.is_hit = bodies, port, number, processes, is_hit
        self.lock = threading.Lock()
        self.paths = []
        # Index in `paths` → when its first whole answer, or the one that replaced a lost one, was received.
        self.done = {}
        self.unchecked = set()
        self.life = 0

    def serve(self, pipe):
        """Follows the bench: `load` begins a life after the kill of the last one, `end` or `sweep` answers its tally."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            try:
                order, moment = pipe.recv()
            except EOFError:
                return
            if order in ("load", "sweep"):
                self.begin(moment)
                threads = [threading.Thread(target=self.visit, args=(order, number)) for number in range(THREADS)]
                for thread in threads:
                    thread.start()
            if order in ("end", "sweep"):
                if order == "end":
                    self.stop.set()
                for thread in threads:
                    thread.join()
                if order == "end":
                    # What was cut while the edge lived was not cut by the kill.
                    self.tally.broken = sum(cut < moment for cut in self.tally.aborts)
                self.tally.aborted = len(self.tally.aborts) - self.tally.broken
                pipe.send(self.tally)

    def begin(self, killed):
        self.stop = threading.Event()
        self.tally = Tally()
        self.life += 1
        self.started = time.monotonic()
        self.new = 0
        settled = [] if killed is None else [
            index for index, moment in self.done.items() if moment < killed - SETTLED_SECONDS]
        self.unchecked = set(settled)
        # Those settled last are the likeliest to be lost, and are asked for first.
        self.newest = sorted(settled, key=self.done.get)[-200:]

    # --- Which object next ---

    def choose(self, chance, order):
        """(path, index or None, range or None, whether the answer tells if the object was kept), or None at the end."""
        with self.lock:
            if order == "sweep":
                return self.whole(next(iter(self.unchecked))) if self.unchecked else None
            if not self.paths or self.new < NEW_PER_SECOND * (time.monotonic() - self.started):
                self.new += 1
                return self.whole(self.add())
            draw = chance.random()
            if draw < 0.05:
                return self.part(chance.choice(BIG), chance)
            if draw < 0.25 and self.newest:
                return self.whole(self.newest.pop())
            if draw < 0.45:
                return self.whole(chance.randrange(max(0, len(self.paths) - 20), len(self.paths)))
            index = chance.randrange(len(self.paths))
            if draw < 0.55 and index not in self.unchecked:
                return self.part(self.paths[index], chance)
            return self.whole(index)

    def add(self):
        number = len(self.paths) * self.processes + self.number
        draw = random.Random(f"{self.bodies.seed} {number}").random()
        size = int(SIZE_MIN * (SIZE_MAX / SIZE_MIN) ** draw**2)
        self.paths.append(f"/o/{number}/{size}")
        return len(self.paths) - 1

    def whole(self, index):
        first = index in self.unchecked
        self.unchecked.discard(index)
        return self.paths[index], index, None, first

    def part(self, path, chance):
        size = int(path.rsplit("/", 1)[1])
        start = chance.randrange(size)
        return path, None, (start, min(size, start + chance.randint(1, RANGE_MAX)) - 1), False

    # --- Asking ---

    def visit(self, order, thread):
        chance = random.Random(f"{self.bodies.seed} {self.number} {thread} {self.life}")
        connection = None
        while not self.stop.is_set() and (choice := self.choose(chance, order)):
            path, index, span, first = choice
            if connection is None or chance.random() < 0.05:
                connection = self.close(connection) or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("GET", path, headers={"Range": "bytes=%d-%d" % span} if span else {})
                response = connection.getresponse()
                answer = response.status, response.headers, response.read()
            except (OSError, http.client.HTTPException):
                with self.lock:
                    self.tally.aborts.append(time.monotonic())
                connection = self.close(connection)
                time.sleep(0.005)
                continue
            self.note(path, index, span, first, *answer)
        self.close(connection)

    def close(self, connection):
        if connection:
            connection.close()

    def note(self, path, index, span, first, status, fields, body):
        now = time.monotonic()
        reason = None
        if status in (200, 206):
            reason = judge(self.bodies, path, status, fields, body)
            if status == 206 and reason is None:
                asked = "bytes %d-%d/" % span if span else "no range"
                if not fields["Content-Range"].startswith(asked):
                    reason = f"{fields['Content-Range']} instead of {asked}"
        with self.lock:
            tally = self.tally
            if status not in (200, 206):
                tally.other += 1
                tally.others[status] = tally.others.get(status, 0) + 1
            else:
                tally.answers += 1
                tally.ranges += status == 206
            if reason:
                tally.note_wrong(path, reason)
            if index is None:
                return
            right = status == 200 and reason is None
            hit = right and self.is_hit(fields)
            if right and (index not in self.done or first and not hit):
                self.done[index] = now
            if first:
                counts = tally.kept[size_class(int(path.rsplit("/", 1)[1]))]
                counts[0] += hit
                counts[1] += 1
                if hit:
                    tally.kept_paths.add(path)
