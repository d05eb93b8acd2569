"""Runs the shell blocks of one page of the manual in order, in one shell, as a reader would. Called by e2e/docs/run, in namespaces of
its own.

A block ```sh is run. If a block ```text follows it directly, that is what it must print: there `…` stands for anything in a line, a line
that is `…` alone for any lines, and blanks are as good as one. A block with shown output is a question, and is asked again until the answer
is so, as a reader would who finds something not started yet; for a minute at most. A block without must succeed the first time.

In a page:
    *Not run by the test: why.*                     before a block: why it cannot be
    <!-- test: after ../tutorial.md#some-heading --> the blocks of that page up to the end of that section come first
    <!-- test: address 203.0.113.53 -->             the loopback has that address
    <!-- test: shop -->                             e2e/docs/shop.py answers at 127.0.0.1:8000
"""

import os
import re
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE = 60
BLOCK_TIME_MAX = 300
HERE = os.path.dirname(os.path.abspath(__file__))


def anchor(heading):
    kept = [c for c in heading.strip().lower().replace("`", "") if c.isalnum() or c in "-_ "]
    return "".join(kept).replace(" ", "-")


class Block:
    def __init__(self, page, line, text):
        self.page, self.line, self.text = page, line, text
        self.wanted = None
        self.section = ""
        self.not_run = None


def read(page):
    """The blocks of a page, and what it asks of the test."""
    blocks, asks, section = [], [], ""
    open_as, begun, lines = None, 0, []
    before, gap = "", 0
    for number, line in enumerate(open(page, encoding="utf-8").read().split("\n"), 1):
        if open_as is None:
            fence = re.match(r"^\s*```(\w*)", line)
            if fence:
                open_as, begun, lines = fence.group(1), number, []
                continue
            heading = re.match(r"^#+ (.*)", line)
            if heading:
                section = anchor(heading.group(1))
            ask = re.match(r"^<!-- test: (.*) -->$", line)
            if ask:
                asks.append(ask.group(1).split())
            if line.strip():
                before, gap = line, gap + 1
        elif line.strip() == "```":
            if open_as == "sh":
                block = Block(page, begun, "\n".join(lines) + "\n")
                block.section = section
                reason = re.match(r"^\*Not run by the test: (.*)\*$", before)
                block.not_run = reason.group(1).rstrip(".") if reason else None
                blocks.append(block)
                gap = 0
            elif open_as == "text" and blocks and gap == 0:
                blocks[-1].wanted = lines
            open_as, before = None, ""
        else:
            lines.append(line)
    return blocks, asks


def as_pattern(wanted):
    """What a shown output stands for."""
    parts = []
    for line in wanted:
        line = " ".join(line.split())
        if line == "…":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            parts.append(".*?".join(re.escape(part) for part in line.split("…")) + r"\n")
    return re.compile("".join(parts))


def spaced(output):
    lines = [" ".join(line.split()) for line in output.strip("\n").split("\n")]
    return "\n".join(lines) + "\n"


class Shell:
    def __init__(self, folder, environment):
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.folder = folder

    def run(self, text):
        """What a block prints, and whether each command of it succeeded."""
        path = os.path.join(self.folder, ".block")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        end = "end-" + secrets.token_hex(8)
        # Each command counts, not only the last; and none of them reads what this shell is told next.
        line = f"failed=0; set -E; trap 'failed=$?' ERR; . ./.block </dev/null; trap - ERR; set +E; echo; echo {end} $failed\n"
        self.shell.stdin.write(line.encode())
        self.shell.stdin.flush()
        said, until = b"", time.monotonic() + BLOCK_TIME_MAX
        while True:
            ready, _, _ = select.select([self.shell.stdout], [], [], max(0, until - time.monotonic()))
            if not ready:
                return said.decode(errors="replace") + f"\n(did not end within {BLOCK_TIME_MAX} s)\n", False
            chunk = os.read(self.shell.stdout.fileno(), 65536)
            if not chunk:
                return said.decode(errors="replace") + "\n(the shell ended)\n", False
            said += chunk
            done = re.search(rf"\n{end} (\d+)\n".encode(), said)
            if done:
                return said[:done.start()].decode(errors="replace"), done.group(1) == b"0"


def run_block(shell, block):
    """Whether it did what the page says, and what it printed."""
    pattern = as_pattern(block.wanted) if block.wanted is not None else None
    until = time.monotonic() + PATIENCE
    while True:
        said, succeeded = shell.run(block.text)
        if succeeded and (pattern is None or pattern.fullmatch(spaced(said))):
            return True, said
        if pattern is None or time.monotonic() > until:
            return False, said
        time.sleep(0.5)


def main(page):
    blocks, asks = read(page)
    if not blocks:
        print(f"not ok {page}: it has a shell block to run")
        return 1
    first = []
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = tempfile.mkdtemp(prefix="perigee-docs-")
    os.makedirs(os.path.join(folder, ".bin"))
    os.symlink(os.environ["PERIGEE"], os.path.join(folder, ".bin", "perigee"))
    environment = dict(os.environ, HOME=folder, PATH=f"{folder}/.bin:{os.environ['PATH']}", LC_ALL="C.UTF-8")
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "PERIGEE_CONTROL", "PERIGEE_AUTHORITY", "PERIGEE_TOKEN", "PERIGEE"):
        environment.pop(name, None)
    shop = None
    for ask in asks:
        match ask:
            case ["after", place]:
                path, _, section = place.partition("#")
                path = os.path.normpath(os.path.join(os.path.dirname(page), path))
                there, _ = read(path)
                ends = [index for index, block in enumerate(there) if block.section == section]
                if not ends:
                    print(f"not ok {page}: {path} has a section with blocks that is called {section}")
                    return 1
                first += there[:ends[-1] + 1]
            case ["address", address]:
                subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
            case ["shop"]:
                shop = subprocess.Popen([sys.executable, os.path.join(HERE, "shop.py")], stdout=subprocess.PIPE)
                shop.stdout.readline()
            case _:
                print(f"not ok {page}: the test understands {' '.join(ask)!r}")
                return 1
    shell = Shell(folder, environment)
    failed = 0
    for block in first:
        good, said = run_block(shell, block)
        if not good:
            print(f"not ok {page}: what comes first, {block.page}:{block.line}\n{said}")
            return 1
    for block in blocks:
        name = f"{block.page}:{block.line} {block.text.split(chr(10))[0][:70]}"
        if block.not_run:
            print(f"not run, as the page says: {name}: {block.not_run}")
            continue
        good, said = run_block(shell, block)
        print(f"{'ok' if good else 'not ok'} {name}", flush=True)
        if not good:
            failed += 1
            print(said)
            if block.wanted is not None:
                print("wanted:\n" + "\n".join(block.wanted))
            for log in sorted(os.listdir(folder)):
                if log.endswith(".log"):
                    tail = open(os.path.join(folder, log), errors="replace").read().split("\n")[-8:]
                    print(f"{log}:\n" + "\n".join(tail))
            # What comes next counts on it.
            break
    if shop:
        shop.kill()
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(sys.argv[1]))
