"""A UDP network in virtual time for `Hub`s: delay, loss, duplicates, reordering, a bottleneck; all seeded.

net = SimNet(loss=0.05, delay=0.02)
a, b = net.node(seed_a), net.node(seed_b)
b.handler = lambda data: data + b"!"
answers = net.ask(a, b, b"hello")         # runs the clock until the answer is there, or None after the timeout
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from hashlib import sha256

from tonfs.network.address import AddressList
from tonfs.network.adnl_hub import Hub, Pair
from tonfs.network.api import UdpAddress
from tonfs.network.keys import KeyPair

START = 1_700_000_000.0


class SimNode:
    """A hub with one identity at one address. `handler(data)` answers at once; None is silence."""

    def __init__(self, net: SimNet, key: KeyPair, address: UdpAddress) -> None:
        self.net = net
        self.key = key
        self.address = address
        self.handler: Callable[[bytes], bytes | None] = lambda data: None
        self.asked: list[bytes] = []
        listed = AddressList((address,), version=int(net.now()), reinit_date=int(net.now())).bare()
        self.hub = Hub(net, lambda: listed)
        self.local = self.hub.add_identity(key)

    def pair(self, other: SimNode) -> Pair:
        remote = self.hub.remote(self.local, other.key.public_key, other.address, self.net.time)
        return self.hub.pair_of(self.local, remote, self.net.time)

    def flush(self) -> None:
        while True:
            for trains, address in self.hub.take_outgoing(self.net.time):
                for train in trains:
                    for datagram in train.datagrams():
                        self.net.send(datagram, self.address, address)
            if not self.hub.incoming:
                return
            incoming, self.hub.incoming = self.hub.incoming, []
            for query in incoming:
                self.asked.append(query.data)
                query.answer(self.handler(query.data), self.net.time)
                self.hub.touch(query.pair)


class SimNet:
    """`rate`: datagrams per second through the one bottleneck, whose queue holds `queue` of them."""

    def __init__(
        self,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        delay: float = 0.001,
        jitter: float = 0.0,
        rate: float = 0.0,
        queue: int = 1000,
        seed: int = 1,
    ) -> None:
        self.time = 1000.0
        self.loss, self.duplicate, self.delay, self.jitter = loss, duplicate, delay, jitter
        self.rate, self.queue = rate, queue
        self.random = random.Random(seed)
        self.nodes: dict[UdpAddress, SimNode] = {}
        self.sent = 0
        self.on_wire: Callable[[bytes, UdpAddress, UdpAddress], None] = lambda datagram, source, target: None
        self._heap: list[tuple[float, int, bytes, UdpAddress, UdpAddress]] = []
        self._count = 0
        self._free_at = 0.0

    def now(self) -> float:
        """Clock: unix time."""
        return START + self.time

    def node(self, seed: int, port: int = 0) -> SimNode:
        address = ("10.0.0.1", port or 1000 + seed)
        node = SimNode(self, KeyPair.from_seed(sha256(b"%d" % seed).digest()), address)
        self.nodes[address] = node
        return node

    def send(self, datagram: bytes, source: UdpAddress, target: UdpAddress) -> None:
        self.sent += 1
        self.on_wire(datagram, source, target)
        for _ in range(2 if self.random.random() < self.duplicate else 1):
            if self.random.random() < self.loss:
                continue
            start = self.time
            if self.rate:
                self._free_at = max(self._free_at, self.time)
                if (self._free_at - self.time) * self.rate > self.queue:
                    continue
                self._free_at += 1 / self.rate
                start = self._free_at
            self._count += 1
            arrival = start + self.delay + self.random.random() * self.jitter
            heapq.heappush(self._heap, (arrival, self._count, datagram, source, target))

    def _flush(self) -> None:
        for node in list(self.nodes.values()):
            node.flush()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; stop early when `until` says so. Returns its last word."""
        end = self.time + seconds
        self._flush()
        while not until():
            upcoming = [node.hub.next_deadline() for node in self.nodes.values()]
            if self._heap:
                upcoming.append(self._heap[0][0])
            when = min(upcoming, default=end)
            if when > end:
                self.time = end
                break
            self.time = max(self.time, when)
            touched = []
            while self._heap and self._heap[0][0] <= self.time:
                _, _, datagram, source, target = heapq.heappop(self._heap)
                node = self.nodes.get(target)
                if node is not None:
                    node.hub.receive(datagram, source, self.time)
                    touched.append(node)
            for node in self.nodes.values():
                if node.hub.next_deadline() <= self.time:
                    node.hub.on_timer(self.time)
                    touched.append(node)
            for node in dict.fromkeys(touched):
                node.flush()
        return until()

    def ask(self, source: SimNode, target: SimNode, data: bytes, *, timeout: float = 10.0) -> bytes | None:
        """An ADNL query."""
        answers: list[bytes] = []
        pair = source.pair(target)
        query_id = self.random.randbytes(32)
        pair.peer.query(query_id, data, answers.append, self.time)
        source.hub.touch(pair)
        self.run(timeout, lambda: bool(answers))
        pair.peer.cancel(query_id)
        return answers[0] if answers else None

    def ask_rldp(
        self, source: SimNode, target: SimNode, data: bytes, *, max_answer: int = 1 << 23, timeout: float = 30.0
    ) -> bytes | None:
        """An RLDP query."""
        answers: list[bytes] = []
        pair = source.pair(target)
        transfer_id = pair.rldp.query(data, max_answer, timeout, answers.append, self.time)
        source.hub.touch(pair)
        self.run(timeout, lambda: bool(answers))
        pair.rldp.cancel(transfer_id, self.time)
        source.hub.touch(pair)
        source.flush()
        return answers[0] if answers else None
