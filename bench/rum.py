"""Share of a core that an edge needs for 10,000 page views a second, told by browsers.

Each view is a POST of its own with a token that the edge has given before, from one of 16,000 networks; what an ordinary one says is in
it. Beside it, at the same rate, the shortest answer of the edge (204, nothing told): what any request costs. All views must be counted.
"""
import argparse
import random
import re
import select
import socket
import time

import rig as bench
import servers

CONNECTIONS = 64
RATE = 10_000
NETWORKS = 16_000
HOST = "shop.example"


def head(method, target, client):
    return (f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {client}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
            f"Referer: http://{HOST}/tea/\r\n{'Content-Length: 0' if method == 'POST' else 'Accept: */*'}\r\n\r\n").encode()


def client_of(number):
    number %= NETWORKS
    return f"11.{number // 250}.{number % 250}.7"


def tokens(server, count):
    """Tokens by client, as scripts have them: asked for in pipelines, which nothing is measured of."""
    found, together = [], 50
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        for start in range(0, count, together):
            clients = [client_of(number) for number in range(start, min(start + together, count))]
            connection.sendall(b"".join(head("GET", "/.perigee/beacon.js", client) for client in clients))
            text, some = b"", []
            while len(some) < len(clients):
                piece = connection.recv(1 << 20)
                if not piece:
                    raise bench.CannotMeasure("the edge has closed the connection")
                text += piece
                some = re.findall(rb"\?v=([0-9a-f]{58})\"", text)
            # The last script's end.
            while not text.endswith(b"})();\n"):
                text += connection.recv(1 << 20)
            found += zip(some, clients)
    return found


def views(server, count, chance):
    requests = []
    for token, client in tokens(server, count):
        ttfb = chance.lognormvariate(4.5, 0.6)
        fcp = ttfb + chance.lognormvariate(5.5, 0.5)
        lcp = fcp + chance.lognormvariate(6, 0.7)
        told = (f"fcp={fcp:.1f}&lcp={lcp:.1f}&ttfb={ttfb:.1f}&load={lcp + 80:.1f}&redirect=0.4&dns=0&connect=0&tls=0&wait={ttfb * .9:.1f}"
                f"&cls={chance.random() / 5:.4f}&inp={chance.randrange(5, 40) * 8}&p=/group{chance.randrange(20)}/page")
        requests.append(head("POST", f"/.perigee/beacon?v={token.decode()}&{told}", client))
    return requests


def drive(server, requests):
    """Sends them at the rate, each when it is due on the next connection that waits for nothing; returns CPU seconds and seconds."""
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS)]
    poll, by_number = select.epoll(), {}
    for connection in idle:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        by_number[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    sent = answered = 0
    cpu, begun = server.cpu_us(), time.monotonic()
    while answered < len(requests):
        due = min(len(requests), int((time.monotonic() - begun) * RATE))
        while sent < due and idle:
            idle.pop().sendall(requests[sent])
            sent += 1
        for number, _ in poll.poll(0.0005):
            connection = by_number[number]
            answer = connection.recv(65_536)
            if not answer.startswith(b"HTTP/1.1 204 "):
                raise bench.CannotMeasure(f"an unexpected answer: {answer[:200]!r}")
            answered += 1
            idle.append(connection)
    seconds = time.monotonic() - begun
    cpu = (server.cpu_us() - cpu) / 1e6
    for connection in by_number.values():
        connection.close()
    return cpu, seconds


def counted(server):
    with socket.create_connection(("127.0.0.1", server.admin)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = b""
        while piece := connection.recv(65_536):
            text += piece
    return int(re.search(rb'perigee_page_views_told_total\{outcome="counted"\} (\d+)', text).group(1))


def main(options):
    rounds = options.rounds or (1 if options.quick else 5)
    seconds = 2 if options.quick else 6
    chance = random.Random(7)

    def measure(rig):
        origin = servers.nginx_files(rig, rig.path("root"))
        server = servers.perigee(rig, origin, edge='trusted_proxies = ["127.0.0.1"]', site="rum = true")
        told, plain, rates, sum_before = [], [], [], 0
        for turn in range(rounds):
            requests = views(server, seconds * RATE, chance)
            # What was counted is handed over before it is measured.
            time.sleep(2)
            cpu, took = drive(server, requests)
            sum_before += len(requests)
            if counted(server) != sum_before:
                raise bench.CannotMeasure(f"{counted(server)} of {sum_before} views were counted")
            told.append(cpu * 1e6 / len(requests))
            rates.append(len(requests) / took)
            cpu, _ = drive(server, [head("GET", "/.perigee/beacon?0", client_of(n)) for n in range(len(requests))])
            plain.append(cpu * 1e6 / len(requests))
            bench.say(f"round {turn + 1}: {told[-1]:.2f} µs a view, {plain[-1]:.2f} µs a plain request, {rates[-1]:.0f}/s")
        print(f"{rounds} rounds of {seconds} s at {bench.median(rates):.0f} requests/s over {CONNECTIONS} connections, access log and statistics on; "
              "median (lowest–highest)")
        bench.table(["", "µs of CPU each", "% of a core at 10,000/s"], [
            ["a page view", bench.spread(told), f"{bench.median(told):.1f}"],
            ["a plain request", bench.spread(plain), f"{bench.median(plain):.1f}"],
            ["what telling adds", bench.spread([one - other for one, other in zip(told, plain)]),
             f"{bench.median([one - other for one, other in zip(told, plain)]):.1f}"],
        ])
        bench.result(core_percent=f"{bench.median(told):.2f}", added_percent=f"{bench.median([one - other for one, other in zip(told, plain)]):.2f}",
                     rate=f"{bench.median(rates):.0f}")

    bench.run(measure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/rum.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: one round of two seconds")
    parser.add_argument("--rounds", type=int, help="rounds (5)")
    main(parser.parse_args())
