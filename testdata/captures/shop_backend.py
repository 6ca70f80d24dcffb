#!/usr/bin/env python3
"""The store and the payments service of the shop: answers every GET after a while.

    shop_backend.py PORT MEDIAN_MS CONTROL

Answer times are log-normal around MEDIAN_MS, as those of a service that is not overloaded are. CONTROL is a
file with the milliseconds to add to each; it is read ten times a second, so that a service can be made slow
while it runs. Serves on loopback until it is killed.
"""

import asyncio
import math
import pathlib
import random
import sys

SPREAD = 0.3


class Backend(asyncio.Protocol):
    """One keep-alive connection."""

    extra_ms = 0.0

    def __init__(self, median_ms):
        self.median_ms = median_ms
        self.received = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, self.received = self.received.split(b"\r\n\r\n", 1)
            path = head.split(b" ", 2)[1]
            delay_ms = self.median_ms * math.exp(random.gauss(0, SPREAD)) + Backend.extra_ms
            asyncio.get_running_loop().call_later(delay_ms / 1000, self.answer, path)

    def answer(self, path):
        if self.transport.is_closing():
            return
        body = b"<h1>" + path + b"</h1>" + b"." * (4000 if path.startswith(b"/product/") else 1500)
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def serve(port, median_ms, control):
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Backend(median_ms), "127.0.0.1", port)
    while True:
        try:
            Backend.extra_ms = float(control.read_text())
        except (OSError, ValueError):
            pass  # not written yet: keep what was
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), pathlib.Path(sys.argv[3])))
