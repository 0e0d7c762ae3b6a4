"""A UDP path between 127.0.0.2:PORT and 127.0.0.1:PORT that loses, delays and shapes datagrams, one by one.

    python benchmarks/relay.py --port PORT [--loss 0.05] [--delay 0.015] [--mbit 100] [--queue 0.1] [--drop-first 3]

`delay` is for one direction, in seconds; `queue`: seconds that the shaped link holds at most; `drop-first`: datagrams
towards the program that are lost before any passes. A process of its own; ends with its stdin. Trains of datagrams pass
as trains, so that the relay is no bottleneck.
"""

from __future__ import annotations

import argparse
import heapq
import random
import select
import sys
import time
from collections import deque

from tonfs.network.udp import Train, UdpSocket

FRONT = "127.0.0.2"
HEADERS = 42
"""Ethernet, IP and UDP: what a shaped link carries besides."""


class Link:
    """One direction for all clients; `free_at`: when all that waits has left."""

    def __init__(self) -> None:
        self.free_at = 0.0


class Path:
    """One direction for one client."""

    def __init__(self, out: UdpSocket, target: tuple[str, int], link: Link, options: argparse.Namespace) -> None:
        self.out, self.target, self.link, self.options = out, target, link, options

    def departures(self, datagrams: list[bytes], now: float) -> list[tuple[float, bytes]]:
        """When each datagram leaves; those that find no room in the queue do not."""
        rate, delay = self.options.mbit * 125_000, self.options.delay
        if not rate:
            return [(now + delay, datagram) for datagram in datagrams]
        found, link = [], self.link
        for datagram in datagrams:
            start = max(link.free_at, now)
            if start - now <= self.options.queue:
                link.free_at = start + (len(datagram) + HEADERS) / rate
                found.append((link.free_at + delay, datagram))
        return found


class Relay:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.random = random.Random(options.seed)
        self.front = UdpSocket((FRONT, options.port))
        self.paths: dict[UdpSocket, dict[tuple[str, int], Path]] = {self.front: {}}
        self.backs: dict[tuple[str, int], UdpSocket] = {}
        self.waiting: list[tuple[float, int, Path, deque[tuple[float, bytes]]]] = []
        self.there, self.back = Link(), Link()
        self.to_drop = options.drop_first
        self.number = 0

    def path(self, sock: UdpSocket, source: tuple[str, int]) -> Path:
        if sock is self.front:
            back = self.backs.get(source)
            if back is None:
                back = self.backs[source] = UdpSocket(("127.0.0.1", 0))
                self.paths[back] = {("", 0): Path(self.front, source, self.back, self.options)}
                target = ("127.0.0.1", self.options.port)
                self.paths[self.front][source] = Path(back, target, self.there, self.options)
            return self.paths[sock][source]
        return self.paths[sock][("", 0)]

    def take(self, sock: UdpSocket) -> None:
        for _ in range(16):
            arrived = sock.receive()
            if arrived is None:
                return
            size, step, source = arrived
            if not size:
                continue
            datagrams = Train(sock.buffer[:size], step).datagrams()
            if self.options.loss:
                datagrams = [one for one in datagrams if self.random.random() >= self.options.loss]
            if sock is self.front and self.to_drop:
                dropped = min(self.to_drop, len(datagrams))
                self.to_drop -= dropped
                del datagrams[:dropped]
            if datagrams:
                path = self.path(sock, source)
                leaving = deque(path.departures(datagrams, time.monotonic()))
                if leaving:
                    self.number += 1
                    heapq.heappush(self.waiting, (leaving[0][0], self.number, path, leaving))

    def pass_on(self) -> float | None:
        """Send what is due; seconds until something is."""
        while self.waiting:
            now = time.monotonic()
            due, number, path, leaving = self.waiting[0]
            if due > now:
                return due - now
            heapq.heappop(self.waiting)
            ready = []
            while leaving and leaving[0][0] <= now:
                datagram = leaving.popleft()[1]
                ready.append(Train(datagram, len(datagram)))
            path.out.send(ready, path.target)
            if leaving:
                heapq.heappush(self.waiting, (leaving[0][0], number, path, leaving))
        return None

    def run(self) -> None:
        while True:
            wait = self.pass_on()
            readable, _, _ = select.select([sys.stdin, *(one.sock for one in self.paths)], [], [], wait)
            if sys.stdin in readable:
                return
            for sock in [one for one in self.paths if one.sock in readable]:
                self.take(sock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--mbit", type=float, default=0.0)
    parser.add_argument("--queue", type=float, default=0.1)
    parser.add_argument("--drop-first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    relay = Relay(parser.parse_args())
    print("ready", flush=True)
    relay.run()


if __name__ == "__main__":
    main()
