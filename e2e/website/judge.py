"""Judges what the doctor has found of the page with every construct, and what the edge has been asked for.

Usage: judge.py REPORT ACCESS_LOG STATUS      Prints `ok …` or `not ok …` for each check; exits with 1 when one is not.
"""
import json
import sys

from origin import FILES, FONTS

failures = 0


def check(name, holds, details=None):
    global failures
    failures += not holds
    print("ok" if holds else "not ok", "website:", name)
    if not holds and details is not None:
        print(json.dumps(details, indent=1))


# What browsers fetch from the page's own host alone: a worker, a symbol, subtitles, a document in the page.
STAY = {"/static/worker.js", "/static/sprite.svg", "/static/track.vtt", "/static/embed.svg"}
# What nobody fetches: alternatives that were not chosen, what is for installing, and pictures for others.
UNFETCHED = {"/static/set-2.png", "/static/stays.png", "/static/og.png", "/static/ld.png", "/static/app.webmanifest"}
MOVE = {path for path in FILES if path.startswith("/static/")} - STAY - UNFETCHED

with open(sys.argv[1]) as file:
    report = json.load(file)
findings = report["findings"]
bad = [finding for finding in findings if finding["verdict"] == "bad"]
check("the doctor finds nothing broken", not bad and sys.argv[3] == "0", bad)
for name in ["dom", "pixels", "console", "network", "csp", "workers", "integrity", "cors", "host"]:
    good = [finding for finding in findings if finding["check"] == name and finding["verdict"] == "good"]
    others = [finding for finding in findings if finding["check"] == name and finding["verdict"] != "good"]
    check(f"{name} is the same, or as it should be", good and not others, others or name)

asked = {"www.shop.test": set(), "cdn.shop.test": set()}
with open(sys.argv[2]) as file:
    for line in file:
        entry = json.loads(line)
        # What the doctor asks for by itself is not what a page fetches.
        if "perigee-doctor" not in entry.get("user_agent", ""):
            asked[entry["host"]].add(entry["target"].split("?")[0])
missing = sorted(MOVE - asked["cdn.shop.test"])
check(f"all {len(MOVE)} movable files come from the other host", not missing, missing)
doubled = sorted(MOVE & asked["www.shop.test"])
check("and none of them from the page's own", not doubled, doubled)
moved = sorted(asked["cdn.shop.test"] - MOVE - {"/favicon.ico"})
check("nothing else is asked of the other host", not moved, moved)
missing = sorted((STAY | {"/", "/api/stock.json", "/frame.html"}) - asked["www.shop.test"])
check("what has to stay is asked of the page's own host", not missing, missing)
if not FONTS:
    print("skip website: no font on this system to fetch with CORS")
sys.exit(failures > 0)
