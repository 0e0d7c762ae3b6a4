"""An ADNL network in memory: endpoints and peers that satisfy `tonfs.network.api` without sockets.

    net = FakeNet(nursery, delay=0.02, loss=0.1)
    a, b = net.endpoint("a"), net.endpoint("b")
    b.set_handler(handler)                       # async (peer, query, by_rldp) -> bytes | None
    answer = await a.peer(b.public_key, b.address).query(b"...", timeout=5)

Handlers run as tasks of the nursery, so one that raises fails the test. A query is executed once, however often it
is re-sent (a real node answers repeats from its cache). Use it under the autojump clock: waiting costs nothing.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

import trio
from nacl.signing import SigningKey

from tonfs.errors import PeerTimeout, PeerUnreachable
from tonfs.ids import AdnlId
from tonfs.network.api import QueryHandler, UdpAddress

MAX_PLAIN = 8192
"""Largest query or answer over plain ADNL; more is a bug of the code under test (reference protocol 2.6)."""
RESEND_EVERY = 0.5
TRUST_LEARNED = 10.0
"""An address given to `peer` counts unless the peer was heard from another one within these seconds."""


def short_id(public_key: bytes) -> AdnlId:
    return AdnlId(sha256(bytes.fromhex("c6b41348") + public_key).digest())


@dataclass(frozen=True)
class Sent:
    """One query that left an endpoint: who, to whom, its first constructor id as a number, by RLDP."""

    source: AdnlId
    target: AdnlId
    constructor: int
    rldp: bool
    size: int


class FakePeer:
    """One remote id as seen from `owner`."""

    def __init__(self, owner: FakeEndpoint, public_key: bytes, address: UdpAddress | None) -> None:
        self._owner = owner
        self.public_key = public_key
        self._id = short_id(public_key)
        self.address_known = address
        self.heard_at = -math.inf
        self.acknowledged_at = -math.inf

    @property
    def id(self) -> AdnlId:
        return self._id

    @property
    def address(self) -> UdpAddress | None:
        return self.address_known

    @property
    def last_heard(self) -> float | None:
        latest = max(self.heard_at, self.acknowledged_at)
        return None if latest == -math.inf else latest

    async def query(self, data: bytes, *, timeout: float) -> bytes:
        assert len(data) <= MAX_PLAIN, "too large for plain ADNL"
        return await self._owner.net.exchange(
            self._owner, self, data, rldp=False, max_answer=MAX_PLAIN, timeout=timeout
        )

    async def rldp_query(self, data: bytes, *, max_answer: int, timeout: float) -> bytes:
        return await self._owner.net.exchange(
            self._owner, self, data, rldp=True, max_answer=max_answer, timeout=timeout
        )


class FakeEndpoint:
    """One identity. `kill()` makes it deaf and mute, `revive()` brings it back, `move()` changes its address."""

    def __init__(self, net: FakeNet, key: SigningKey, address: UdpAddress) -> None:
        self.net = net
        self._key = key
        self._address = address
        self._handler: QueryHandler | None = None
        self._peers: dict[AdnlId, FakePeer] = {}
        self.alive = True

    @property
    def id(self) -> AdnlId:
        return short_id(self.public_key)

    @property
    def public_key(self) -> bytes:
        return bytes(self._key.verify_key)

    @property
    def address(self) -> UdpAddress:
        return self._address

    @property
    def handler(self) -> QueryHandler | None:
        return self._handler

    def sign(self, message: bytes) -> bytes:
        return bytes(self._key.sign(message).signature)

    def set_handler(self, handler: QueryHandler) -> None:
        self._handler = handler

    def peer(self, public_key: bytes, address: UdpAddress) -> FakePeer:
        peer_id = short_id(public_key)
        peer = self._peers.get(peer_id)
        if peer is None:
            peer = self._peers[peer_id] = FakePeer(self, public_key, address)
        elif trio.current_time() - peer.heard_at > TRUST_LEARNED:
            peer.address_known = address
        return peer

    def known_peer(self, peer_id: AdnlId) -> FakePeer | None:
        return self._peers.get(peer_id)

    def kill(self) -> None:
        self.alive = False

    def revive(self) -> None:
        self.alive = True

    def move(self, address: UdpAddress) -> None:
        self.net.place(self, address)
        self._address = address

    def heard_from(self, other: FakeEndpoint) -> FakePeer:
        """What a datagram teaches the receiver: the sender's key and newest address."""
        peer = self.peer(other.public_key, other.address)
        peer.address_known = other.address
        peer.heard_at = trio.current_time()
        return peer


@dataclass
class FakeNet:
    """Wires endpoints together. All times in seconds of the trio clock; randomness is seeded."""

    nursery: trio.Nursery
    delay: float = 0.01
    loss: float = 0.0
    bytes_per_second: float = 0.0
    """0: no limit. Else an exchange also takes (query + answer) / rate."""
    seed: int = 0
    sent: list[Sent] = field(default_factory=list)
    executed: Counter[int] = field(default_factory=Counter)
    """How often handlers ran, by constructor id of the query."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._places: dict[tuple[UdpAddress, AdnlId], FakeEndpoint] = {}
        self._cuts: set[frozenset[AdnlId]] = set()
        self._next_port = 10_000

    def endpoint(self, name: str = "", *, seed: bytes | None = None, address: UdpAddress | None = None) -> FakeEndpoint:
        """A new identity; the key comes from `seed` (32 bytes) or from `name`. Identities may share an address."""
        self._next_port += 1
        key = SigningKey(seed if seed is not None else sha256(f"fake {name or self._next_port}".encode()).digest())
        endpoint = FakeEndpoint(self, key, address or ("127.0.0.1", self._next_port))
        self.place(endpoint, endpoint.address)
        return endpoint

    def place(self, endpoint: FakeEndpoint, address: UdpAddress) -> None:
        self._places.pop((endpoint.address, endpoint.id), None)
        self._places[(address, endpoint.id)] = endpoint

    def partition(self, left: Iterable[FakeEndpoint], right: Iterable[FakeEndpoint]) -> None:
        """No packet passes between the two groups until `heal`."""
        others = list(right)
        self._cuts |= {frozenset((a.id, b.id)) for a in left for b in others}

    def heal(self) -> None:
        self._cuts.clear()

    def _passes(self, source: FakeEndpoint, target: FakeEndpoint) -> bool:
        if not (source.alive and target.alive) or frozenset((source.id, target.id)) in self._cuts:
            return False
        return self._random.random() >= self.loss

    async def exchange(
        self, source: FakeEndpoint, peer: FakePeer, data: bytes, *, rldp: bool, max_answer: int, timeout: float
    ) -> bytes:
        """One query with re-sending. Raises PeerTimeout, PeerUnreachable."""
        if peer.address is None:
            raise PeerUnreachable(f"no address of {peer.id.hex()[:8]}")
        constructor = int.from_bytes(data[:4], "little")
        self.sent.append(Sent(source.id, peer.id, constructor, rldp, len(data)))
        call = _Call(self, source, data, rldp)
        with trio.move_on_after(timeout):
            while True:
                target = self._places.get((peer.address, peer.id))
                if target is not None:
                    self.nursery.start_soon(call.attempt, target)
                with trio.move_on_after(max(RESEND_EVERY, 4 * self.delay)):
                    await call.answered.wait()
                    break
            answer = call.answer
            assert answer is not None
            if self.bytes_per_second:
                await trio.sleep((len(data) + len(answer)) / self.bytes_per_second)
            if len(answer) <= max_answer:
                return answer
            assert rldp, f"answer of {len(answer)} bytes is too large for plain ADNL"
            await trio.sleep_forever()
        raise PeerTimeout(f"{peer.id.hex()[:8]} did not answer in {timeout:g} s")


class _Call:
    """One query id: executed at most once at the target, answered again for each repeat that arrives."""

    def __init__(self, net: FakeNet, source: FakeEndpoint, data: bytes, rldp: bool) -> None:
        self.net, self.source, self.data, self.rldp = net, source, data, rldp
        self.answered = trio.Event()
        self.answer: bytes | None = None
        self._started = False
        self._result: bytes | None = None
        self._done = trio.Event()

    async def attempt(self, target: FakeEndpoint) -> None:
        await trio.sleep(self.net.delay)
        if not self.net._passes(self.source, target):
            return
        seen = target.heard_from(self.source)
        known = self.source.known_peer(target.id)
        if known is not None:  # a node acknowledges what reaches it, whether or not it answers
            known.acknowledged_at = trio.current_time()
        if not self._started:
            self._started = True
            handler = target.handler
            if handler is not None:
                self.net.executed[int.from_bytes(self.data[:4], "little")] += 1
                self._result = await handler(seen, self.data, self.rldp)
            self._done.set()
        else:
            await self._done.wait()
        await trio.sleep(self.net.delay)
        if self._result is not None and self.net._passes(target, self.source):
            self.source.heard_from(target)
            self.answer = self._result
            self.answered.set()
