#!/usr/bin/env python3
"""Runs a small shop, breaks it at known times, and records what its metrics say.

The shop is four nginx nodes behind HAProxy, with a store and a payments service behind the nodes and
wrk as its visitors. Everything listens on loopback and lives in a temporary folder. One loop scrapes once
a second, reads HAProxy's log in between, and carries out the timeline; nothing in here is simulated
but the time that the store and payments take to answer.

README.md says what is in the stream. record.sh is the way to start this.
"""

import argparse
import csv
import heapq
import itertools
import json
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from shop import HERE, NODES, ROUTES, Shop, raise_session

CODES = ["2xx", "4xx", "5xx"]
MINUTES = 43
WARM_UP_S = 20
SLOW_MS = 400


# --- what is measured ------------------------------------------------------------------------------

class Times:
    """Response times of one second, by what they belong to."""

    def __init__(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", port))
        self.of = {}

    def read_until(self, deadline):
        while (left := deadline - time.time()) > 0:
            self.socket.settimeout(left)
            try:
                self.take(self.socket.recv(512))
            except TimeoutError:
                return

    def take(self, line):
        words = line.decode(errors="replace").split()
        if len(words) != 4 or words[0] != "request":
            return  # HAProxy also logs that a server went down or came back
        _, backend, server, ms = words
        if int(ms) < 0:
            return  # the visitor went away first
        if backend == "payments":
            names = [("node", server)]
        else:
            names = [("node", server), ("route", backend)]
        for name in names:
            self.of.setdefault(name, []).append(int(ms))

    def drain(self):
        times, self.of = self.of, {}
        return times


def ask(address, request):
    """One question to a socket, and all of its answer."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(0.5)
        connection.connect(address)
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def haproxy_rows(shop):
    text = ask(str(shop.folder / "haproxy.sock"), b"show stat\n")
    rows = csv.DictReader(text.lstrip("# ").splitlines())
    return {(row["pxname"], row["svname"]): row for row in rows}


def stub_status(shop, node):
    """Requests so far and connections now, or nothing from a node that does not answer."""
    try:
        text = ask(("127.0.0.1", shop.ports[node]), b"GET /stub_status HTTP/1.0\r\n\r\n")
        words = text.split("\r\n\r\n", 1)[1].split()
        return int(words[9]), int(words[2])
    except (OSError, IndexError, ValueError):
        return None


def scrape(shop, times):
    """All points of this second, as (metric, labels, value, kind)."""
    rows = haproxy_rows(shop)
    times = times.drain()
    yield "http_requests_received_total", {"service": "shop"}, int(rows["shop", "FRONTEND"]["req_tot"]), "cumulative"
    for node in NODES:
        yield from server_points("shop", node, {route: rows[route, node] for route in ROUTES}, times)
        status = stub_status(shop, node)
        if status:
            labels = {"service": "shop", "node": node}
            yield "nginx_requests_total", labels, status[0], "cumulative"
            yield "nginx_connections_active", labels, status[1], "gauge"
    for route in ROUTES:
        if of := times.get(("route", route)):
            labels = {"service": "shop", "route": route}
            yield "http_route_response_time_ms", labels, mean(of), "gauge"
            yield "http_route_response_time_p95_ms", labels, p95(of), "gauge"
    yield from server_points("payments", "payments-1", {None: rows["payments", "payments-1"]}, times)


def server_points(service, node, by_route, times):
    labels = {"service": service, "node": node}
    for route, row in by_route.items():
        for code in CODES:
            of = {**labels, **({"route": route} if route else {}), "code": code}
            yield "http_requests_total", of, int(row[f"hrsp_{code}"]), "cumulative"

    def total(field):
        return sum(int(row[field]) for row in by_route.values())

    yield "http_response_bytes_total", labels, total("bout"), "cumulative"
    yield "http_redispatches_total", labels, total("wredis"), "cumulative"
    yield "http_response_errors_total", labels, total("eresp"), "cumulative"
    yield "http_retries_total", labels, total("wretr"), "cumulative"
    yield "http_requests_in_flight", labels, total("scur"), "gauge"
    up = next(iter(by_route.values()))["status"].startswith("UP")
    yield "http_server_up", labels, int(up), "gauge"
    if of := times.get(("node", node)):
        yield "http_response_time_ms", labels, mean(of), "gauge"


def mean(values):
    return round(sum(values) / len(values), 2)


def p95(values):
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


# --- the timeline ----------------------------------------------------------------------------------

class Stream:
    """The capture and its labels, as they grow."""

    def __init__(self, capture, labels):
        self.capture = open(capture, "w", encoding="utf-8")
        self.labels = open(labels, "w", encoding="utf-8")
        self.open_faults = {}

    def points(self, at, points):
        for metric, labels, value, kind in points:
            put(self.capture, {"t": stamp(at), "metric": metric, "labels": labels, "value": value, "kind": kind})

    def event(self, event, labels, body):
        put(self.capture, {"t": stamp(time.time()), "event": event, "labels": labels, "body": body})

    def fault(self, name, labels):
        self.open_faults[name] = (stamp(time.time()), labels)

    def undone(self, name):
        start, labels = self.open_faults.pop(name)
        put(self.labels, {"fault": name, "start": start, "end": stamp(time.time()), "labels": labels})

    def close(self):
        assert not self.open_faults, self.open_faults
        self.capture.close()
        self.labels.close()


def put(file, record):
    file.write(json.dumps(record, separators=(",", ":")) + "\n")


def stamp(at):
    ms = round(at * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def timeline(shop, stream):
    """What happens when: (minute, step). A step may return more of them, as (seconds later, step)."""

    def deploy(version, **labels):
        def step():
            stream.event("deploy", {"service": "shop", "version": version, **labels}, body(version, labels))
            return [(0.5 * i, lambda node=node: shop.deploy_node(node, version)) for i, node in enumerate(NODES)]
        return step

    def body(version, labels):
        return f"roll back shop to {version}" if "rollback" in labels else f"deploy shop {version}"

    def begin(name, labels, action):
        return lambda: (stream.fault(name, labels), action())[1]

    def end(name, action):
        return lambda: (stream.undone(name), action())[1]

    shop_labels = {"service": "shop"}
    return [
        (5, deploy("v2")),
        (10, begin("bad-deploy", shop_labels, deploy("v3"))),
        (13, end("bad-deploy", deploy("v2", rollback="true"))),
        (17, begin("slow-dependency", {}, lambda: shop.slow_down("payments-1", SLOW_MS))),
        (19.5, end("slow-dependency", lambda: shop.slow_down("payments-1", 0))),
        (23, begin("bad-node", {**shop_labels, "node": "shop-3"}, lambda: shop.spoil_node("shop-3", True))),
        (25.5, end("bad-node", lambda: shop.spoil_node("shop-3", False))),
        (29, begin("traffic-drop", shop_labels, lambda: shop.load(0.25))),
        (31.5, end("traffic-drop", lambda: shop.load(1))),
        (35, begin("node-dies", {**shop_labels, "node": "shop-2"}, lambda: shop.kill_node("shop-2"))),
        (37.5, end("node-dies", lambda: shop.start_node("shop-2"))),
    ]


def run(shop, stream, times, start):
    """Scrapes once a second and takes the timeline's steps as they come due."""
    number = itertools.count()
    due = [(start + minute * 60 * shop.scale, next(number), step) for minute, step in timeline(shop, stream)]
    heapq.heapify(due)
    seconds = round(MINUTES * 60 * shop.scale)
    for second in range(seconds + 1):
        tick = start + second
        while due and due[0][0] < tick:
            at, _, step = heapq.heappop(due)
            times.read_until(at)
            for later, more in step() or []:
                heapq.heappush(due, (at + later, next(number), more))
        times.read_until(tick)
        at = time.time()
        if at > tick + 0.5:
            # The machine stalled. Scrapes that catch up would all see the same moment: better a gap.
            print(f"{stamp(tick)} missed by {at - tick:.1f} s", flush=True)
            continue
        try:
            stream.points(at, list(scrape(shop, times)))
        except OSError as error:
            print(f"{stamp(at)} nothing scraped: {error}", flush=True)
        shop.check_alive()
        if second % 60 == 0:
            print(f"{stamp(at)} {second // 60} of {seconds // 60} min, load {os.getloadavg()[0]:.1f}", flush=True)
    assert not due, "the timeline is longer than the recording"


# --- from the command line -------------------------------------------------------------------------

def record(options):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="shop-"))
    folder.chmod(0o755)  # nginx's workers are nobody and must get through
    shop = Shop(folder, options.port_base, options.scale)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    raise_session(os.getpid())
    try:
        times = Times(shop.ports["log"])
        stream = Stream(folder / "shop.ndjson", folder / "shop.labels.ndjson")
        shop.start()
        start = math.ceil(time.time()) + WARM_UP_S
        shop.start_load(start)
        times.read_until(start - 1)
        times.drain()
        run(shop, stream, times, start)
        stream.close()
    finally:
        shop.stop()
    keep(folder, options.out)
    shutil.rmtree(folder)


def keep(folder, out):
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["zstd", "-19", "-q", "-f", str(folder / "shop.ndjson"), "-o", str(out / "shop.ndjson.zst")], check=True
    )
    shutil.copyfile(folder / "shop.labels.ndjson", out / "shop.labels.ndjson")
    print(f"wrote {out / 'shop.ndjson.zst'} and {out / 'shop.labels.ndjson'}")


def main():
    parser = argparse.ArgumentParser(description="Record the shop (see README.md).")
    parser.add_argument("--scale", type=float, default=1.0, help="stretch the timeline (0.1: ten times shorter)")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder for the two files (default: here)")
    parser.add_argument("--port-base", type=int, default=18080, help="first of nine loopback ports (default: 18080)")
    options = parser.parse_args()
    if options.scale != 1 and options.out == HERE:
        parser.error("--scale is for rehearsals: name an --out folder, so that the real recording stays")
    record(options)


if __name__ == "__main__":
    main()
