"""The router as resolvers and operators see it: each check prints one line; see `run`."""
import contextlib
import http.server
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import dns.dnssec
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

PERIGEE = os.environ["PERIGEE"]
WAIT = 30
failed = 0


def check(name, good, found=""):
    global failed
    print(f"ok {name}" if good else f"not ok {name}: {found}", flush=True)
    failed += not good


def until(state, bound=WAIT):
    """Waits for a state, never for a time; False when it does not come."""
    end = time.monotonic() + bound
    while time.monotonic() < end:
        with contextlib.suppress(OSError, dns.exception.DNSException):
            if state():
                return True
        time.sleep(0.05)
    return False


def free_port(address="127.0.0.1"):
    with socket.socket() as one:
        one.bind((address, 0))
        return one.getsockname()[1]


class Edge:
    """An edge of which nothing but its life is asked."""

    def __init__(self, address, port):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(404)
                self.end_headers()

            def log_message(self, *_):
                pass

        kind = type("Server", (http.server.ThreadingHTTPServer,), {"address_family": socket.AF_INET6 if ":" in address else socket.AF_INET})
        self.server = kind((address, port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def die(self):
        self.server.shutdown()
        self.server.server_close()


CONFIG = """
[[pop]]
name = "fra"
location = "FRA"
edges = ["127.0.0.11"]
regions = ["eu"]

[[pop]]
name = "ams"
location = "AMS"
edges = ["127.0.0.12"]
regions = ["eu"]

[[pop]]
name = "nrt"
location = "NRT"
edges = ["127.0.0.13", "::1"]

[[pop]]
name = "other"
cname = "shop.other-cdn.example"
networks = ["10.77.0.0/16"]

[dns]
zone = "cdn.example"
nameservers = { "ns1.cdn.example" = ["127.0.0.1"] }
dnssec = true
https = true
caa = "letsencrypt.org"
ttl = "60s"
records = '''
txt 300 TXT "hello"
many TXT "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
many TXT "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
alias CNAME shop
'''

[probe]
port = PROBE
interval = "100ms"

[[site]]
name = "shop"
domains = ["www.shop.example", "*.shop.cdn.example"]
origin = "http://127.0.0.1:9"

[[site]]
name = "fenced"
domains = "fenced.example"
origin = "http://127.0.0.1:9"
pops = ["eu"]

[[site]]
name = "both"
domains = "both.example"
origin = "http://127.0.0.1:9"
pops = ["eu", "other"]
"""
LIST = "10.0.0.0/9,FRA\n10.128.0.0/9,NRT\n10.64.0.0/16,AMS\n2001:db8:f::/48,FRA\n"
ZONE = dns.name.from_text("cdn.example")


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


class Router:
    def __init__(self, work, config):
        self.port, self.admin = free_port(), free_port()
        self.log = open(os.path.join(work, "log"), "w+")
        self.process = subprocess.Popen(
            [PERIGEE, "router", "--config", config, "--location", os.path.join(work, "list.geo"), "--state", os.path.join(work, "state"),
             "--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}", "--node", "ns1", "--workers", "2"],
            stderr=self.log)

    def ask(self, name, rtype="A", subnet=None, dnssec=False, tcp=False, payload=1232, edns=True, options=()):
        options = list(options)
        if subnet:
            address, bits = subnet.split("/")
            options.append(dns.edns.ECSOption(address, int(bits)))
        query = dns.message.make_query(name, rtype, use_edns=0 if edns else -1, want_dnssec=dnssec, payload=payload, options=options)
        ask = dns.query.tcp if tcp else dns.query.udp
        return query, ask(query, "127.0.0.1", port=self.port, timeout=5)

    def addresses(self, name, subnet, rtype="A"):
        _, answer = self.ask(name, rtype, subnet)
        return sorted(item.to_text() for rrset in answer.answer for item in rrset)

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as page:
            return int(next(line for line in page.read().decode().splitlines() if line.startswith(f"{name} ")).split()[1])


def scope_of(answer):
    return next((option.scopelen for option in answer.options if isinstance(option, dns.edns.ECSOption)), None)


def signatures(router):
    """Validates whatever is asked with a library's own DNSSEC, from the key that the zone shows."""
    _, answer = router.ask("cdn.example", "DNSKEY", dnssec=True, tcp=True)
    keys = {ZONE: answer.find_rrset(answer.answer, ZONE, 1, dns.rdatatype.DNSKEY)}
    wrong, count = [], 0
    for name, rtype, subnet in [("shop.cdn.example", "A", "10.1.0.0/24"), ("shop.cdn.example", "A", "10.200.0.0/24"), ("SHOP.cdn.example", "AAAA", "10.200.0.0/24"),
                                ("x.shop.cdn.example", "A", None), ("shop.cdn.example", "HTTPS", "10.1.0.0/24"), ("cdn.example", "DNSKEY", None), ("cdn.example", "SOA", None),
                                ("cdn.example", "NS", None), ("cdn.example", "CAA", None), ("cdn.example", "CDS", None), ("cdn.example", "CDNSKEY", None), ("txt.cdn.example", "TXT", None),
                                ("many.cdn.example", "TXT", None), ("alias.cdn.example", "A", None), ("both.cdn.example", "A", "10.77.1.0/24"), ("other.cdn.example", "AAAA", None),
                                ("nothing.cdn.example", "A", None), ("txt.cdn.example", "A", None), ("cdn.example", "ANY", None)]:
        _, answer = router.ask(name, rtype, subnet, dnssec=True, tcp=True)
        for section in (answer.answer, answer.authority):
            for rrset in section:
                if rrset.rdtype == dns.rdatatype.RRSIG:
                    continue
                count += 1
                try:
                    dns.dnssec.validate(rrset, answer.find_rrset(section, rrset.name, 1, dns.rdatatype.RRSIG, rrset.rdtype), keys)
                except Exception as error:
                    wrong.append(f"{name} {rtype} {rrset.name}: {error!r}")
    check("signatures validate with dnspython", not wrong and count > 15, wrong or count)
    shown = run(PERIGEE, "router", "--config", router.config, "--state", router.state, "--ds").stdout.split()
    ds = dns.dnssec.make_ds(ZONE, keys[ZONE][0], "SHA256")
    check("the DS record is that of the key", shown[4:] and " ".join(shown[4:]).lower() == ds.to_text().lower(), (shown, ds.to_text()))


def properties(router):
    chance = random.Random()
    seed = chance.getrandbits(32)
    chance.seed(seed)
    bad = []
    for _ in range(400):
        if chance.random() < 0.7:
            bits = chance.randint(0, 32)
            number = chance.choice([0x0A000000 + chance.getrandbits(24), chance.getrandbits(32)])
            number &= (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF
            address = socket.inet_ntop(socket.AF_INET, struct.pack("!I", number))
        else:
            bits = chance.randint(0, 64)
            number = (0x20010DB8000F << 80 | chance.getrandbits(80)) >> (128 - bits) << (128 - bits) if bits else 0
            address = socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big"))
        query, answer = router.ask("shop.cdn.example", "A", f"{address}/{bits}")
        option = next(one for one in answer.options if isinstance(one, dns.edns.ECSOption))
        if (option.srclen, option.addrdata) != (bits, next(one for one in query.options).addrdata) or option.scopelen > bits:
            bad.append((address, bits, option.to_text()))
        # Everybody in the scope gets the same, unless the resolver has told too little for that.
        if option.scopelen < bits and ":" not in address and option.scopelen:
            keep = option.scopelen
            base = struct.unpack("!I", socket.inet_aton(address))[0] >> (32 - keep) << (32 - keep)
            other = (base | chance.getrandbits(32 - keep) if keep < 32 else base) & 0xFFFFFF00
            other = socket.inet_ntoa(struct.pack("!I", other))
            if keep <= 24 and router.addresses("shop.cdn.example", f"{other}/24") != sorted(item.to_text() for item in answer.answer[0]):
                bad.append((address, bits, keep, other))
    check("subnets are echoed, scopes hold and are not over the source", not bad, (seed, bad[:3]))

    wrong = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        good = router.ask("shop.cdn.example", "A", "10.0.0.0/24", dnssec=True)[0].to_wire()
        for _ in range(3000):
            packet = bytearray(good)
            for _ in range(chance.randint(1, 8)):
                packet[chance.randrange(2, len(packet))] = chance.getrandbits(8)
            if chance.random() < 0.3:
                packet = packet[:chance.randrange(len(packet))]
            one.sendto(bytes(packet), ("127.0.0.1", router.port))
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                answer = one.recv(65535)
                try:
                    dns.message.from_wire(answer, ignore_trailing=False, raise_on_truncation=False)
                except Exception as error:
                    wrong.append((answer.hex(), repr(error)))
                if len(answer) > 1232:
                    wrong.append(len(answer))
    check("hostile packets get readable answers of at most 1232 bytes", not wrong, (seed, wrong[:2]))
    check("and the router lives on", router.addresses("shop.cdn.example", "10.1.0.0/24") == ["127.0.0.11"])


def answers(router):
    check("the nearest PoP", router.addresses("shop.cdn.example", "10.1.0.0/24") == ["127.0.0.11"])
    check("another client, another PoP", router.addresses("shop.cdn.example", "10.200.0.0/24") == ["127.0.0.13"])
    check("by IPv6, too", router.addresses("shop.cdn.example", "2001:db8:f::/48") == ["127.0.0.11"])
    check("a wildcard", router.addresses("a.b.shop.cdn.example", "10.1.0.0/24") == ["127.0.0.11"])
    check("a fence is kept", router.addresses("fenced.cdn.example", "10.200.0.0/24") in (["127.0.0.11"], ["127.0.0.12"]))
    check("AAAA where there is one", router.addresses("shop.cdn.example", "10.200.0.0/24", "AAAA") == ["::1"])
    _, answer = router.ask("shop.cdn.example", "AAAA", "10.1.0.0/24")
    check("no AAAA is NOERROR with SOA", not answer.answer and answer.rcode() == 0 and answer.authority[0].rdtype == dns.rdatatype.SOA)
    _, answer = router.ask("nothing.cdn.example", "A")
    check("no such name is NXDOMAIN", answer.rcode() == dns.rcode.NXDOMAIN)
    _, answer = router.ask("www.other.example", "A")
    check("another zone is REFUSED", answer.rcode() == dns.rcode.REFUSED)
    _, answer = router.ask("alias.cdn.example", "A")
    check("CNAME", answer.answer[0].to_text().endswith("CNAME shop.cdn.example."))
    _, answer = router.ask("shop.cdn.example", "HTTPS", "10.200.0.0/24")
    check("HTTPS", 'alpn="h2,h3" ipv4hint="127.0.0.13" ipv6hint="::1"' in answer.answer[0].to_text(), answer.answer)
    _, answer = router.ask("txt.cdn.example", "TXT", "10.1.0.0/24")
    check("what is the same for all has scope 0", scope_of(answer) == 0)
    _, answer = router.ask("many.cdn.example", "TXT", edns=False)
    check("too large for 512 bytes: truncated", answer.flags & dns.flags.TC and not answer.answer)
    _, answer = router.ask("many.cdn.example", "TXT", edns=False, tcp=True)
    check("and whole by TCP", len(answer.answer[0]) == 2)
    with socket.create_connection(("127.0.0.1", router.port), timeout=5) as stream:
        wire = b"".join(struct.pack("!H", len(one)) + one for one in
                        (dns.message.make_query(f"{name}.cdn.example", "A").to_wire() for name in ("shop", "fenced", "no")))
        stream.sendall(wire)
        seen = [dns.query.receive_tcp(stream, time.time() + 5)[0].question[0].name.labels[0] for _ in range(3)]
    check("three queries in one TCP connection", seen == [b"shop", b"fenced", b"no"], seen)
    query, answer = router.ask("shop.cdn.example", "A", options=[dns.edns.GenericOption(10, b"12345678"), dns.edns.GenericOption(3, b"")])
    options = {int(option.otype): option.to_wire() for option in answer.options}
    check("cookie and NSID", options.get(3) == b"ns1" and options.get(10, b"")[:8] == b"12345678" and len(options[10]) == 24, options)


def tools(router):
    dig = run("dig", "@127.0.0.1", "-p", str(router.port), "shop.cdn.example", "+subnet=10.64.7.0/24", "+dnssec", "+nsid")
    check("dig: subnet, scope and cookie", "CLIENT-SUBNET: 10.64.7.0/24/16" in dig.stdout and "(good)" in dig.stdout and "127.0.0.12" in dig.stdout, dig.stdout)
    check("dig finds nothing to warn of", "WARNING" not in dig.stdout.replace("WARNING: recursion requested but not available", ""), dig.stdout)
    kdig = run("kdig", "@127.0.0.1", "-p", str(router.port), "cdn.example", "ANY", "+tcp", "+dnssec")
    check("kdig: minimal ANY", "RFC8482" in kdig.stdout and "WARNING" not in kdig.stdout, kdig.stdout)
    explained = run(PERIGEE, "route", "10.64.7.9", "--site", "fenced", "--config", router.config, "--location", router.location, "--without", "ams", "--json")
    first = json.loads(explained.stdout)
    check("perigee route: what if a PoP were gone", first["order"][0]["pop"] == "fra" and first["why"] == "distance", explained.stdout + explained.stderr)


def analysed(router, work):
    """dnsviz asks as a validating resolver would, from the DS record on: every record and denial must be secure, and nothing warned of."""
    if not all(map(shutil.which, ("dnsviz", "named", "named-checkconf"))):
        print("skip dnsviz: wanted dnsviz, named and named-checkconf (packages dnsviz, bind9, bind9-utils)", flush=True)
        return
    ds = run(PERIGEE, "router", "--config", router.config, "--state", router.state, "--ds").stdout.split(" DS ")[1].strip()
    probed, keys = os.path.join(work, "probed.json"), os.path.join(work, "keys")
    _, answer = router.ask("cdn.example", "DNSKEY", tcp=True)
    with open(keys, "w") as file:
        file.write(answer.answer[0].to_text() + "\n")
    server = f"127.0.0.1:{router.port}"
    asked = run("dnsviz", "probe", "-A", "-4", "-a", "cdn.example", "-x", f"cdn.example+:ns1.cdn.example={server}", "-N", "cdn.example:ns1.cdn.example=127.0.0.1",
                "-D", f"cdn.example:{ds}", "-o", probed, "cdn.example", "shop.cdn.example")
    shown = run("dnsviz", "print", "-t", keys, "-r", probed)
    states = re.findall(r"^\s*\[(.)\]", shown.stdout, re.MULTILINE)
    wrong = re.findall(r"^\s*[EW]:.*", shown.stdout, re.MULTILINE)
    check(f"dnsviz finds {len(states)} records and proofs secure", len(states) > 30 and set(states) == {"."} and not wrong, asked.stderr + shown.stdout + shown.stderr)


def failover(router, edges, probe):
    edges["127.0.0.11"].die()
    gone = until(lambda: router.addresses("shop.cdn.example", "10.1.0.0/24") == ["127.0.0.12"])
    check("a dead edge gets nobody any more", gone)
    _, answer = router.ask("shop.cdn.example", "A", "10.1.0.0/24")
    check("answers are kept shorter meanwhile", answer.answer[0].ttl == 10, answer.answer[0].ttl)
    edges["127.0.0.12"].die()
    edges["127.0.0.13"].die()
    edges["::1"].die()
    check("when all look dead, all are answered", until(lambda: router.addresses("shop.cdn.example", "10.200.0.0/24") == ["127.0.0.13"]
                                                        and router.metric("perigee_router_edges_down") == 4))
    for address in edges:
        edges[address] = Edge(address, probe)
    back = until(lambda: router.addresses("shop.cdn.example", "10.1.0.0/24") == ["127.0.0.11"]
                 and router.metric("perigee_router_edges_down") == 0)
    check("who comes back is answered again", back)


def reload(router):
    with open(router.config) as file:
        text = file.read()

    def write(changed):
        with open(router.config + ".new", "w") as file:
            file.write(changed)
        os.rename(router.config + ".new", router.config)

    write(text.replace('name = "fenced"', 'name = "renamed"'))
    check("a changed configuration comes into force", until(lambda: router.addresses("renamed.cdn.example", "10.1.0.0/24") == ["127.0.0.11"]))
    write(text.replace('location = "FRA"', 'location = "QQQ"'))
    check("a bad one is counted, and what was there stays", until(lambda: router.metric("perigee_router_reload_errors_total") == 1)
          and router.addresses("renamed.cdn.example", "10.1.0.0/24") == ["127.0.0.11"])


def main():
    with tempfile.TemporaryDirectory() as work:
        probe = free_port("127.0.0.11")
        config = os.path.join(work, "cluster.toml")
        with open(config, "w") as file:
            file.write(CONFIG.replace("PROBE", str(probe)))
        with open(os.path.join(work, "list.csv"), "w") as file:
            file.write(LIST)
        built = run(PERIGEE, "geo", "build", "--list", os.path.join(work, "list.csv"), "--output", os.path.join(work, "list.geo"))
        check("perigee geo build", built.returncode == 0 and "4 networks in 3 cells" in built.stdout, built.stdout + built.stderr)
        edges = {address: Edge(address, probe) for address in ("127.0.0.11", "127.0.0.12", "127.0.0.13", "::1")}
        router = Router(work, config)
        router.config, router.state, router.location = config, os.path.join(work, "state"), os.path.join(work, "list.geo")
        try:
            if not until(lambda: router.ask("cdn.example", "SOA")):
                router.log.seek(0)
                check("the router answers", False, router.log.read())
                return
            answers(router)
            signatures(router)
            tools(router)
            analysed(router, work)
            properties(router)
            failover(router, edges, probe)
            reload(router)
        finally:
            router.process.terminate()
            check("SIGTERM ends it well", router.process.wait(timeout=WAIT) == 0)


main()
sys.exit(1 if failed else 0)
