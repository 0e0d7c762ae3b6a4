"""A DHT node: answers unmodified Go and C++ peers, keeps values within bounds, joins a swarm (reference 4.3 - 4.6).

Silence is the only refusal: a query that is malformed, badly signed or out of bounds gets no answer.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from typing import Final

import trio

from ..clock import Clock
from ..errors import BadPacket, DhtUnavailable
from ..log import get_logger
from . import dht_wire as wire
from .address import AddressList
from .api import AdnlEndpoint, Peer
from .dht_client import DhtClient
from .dht_table import RoutingTable, distance
from .dht_types import MAX_K, DhtNode, DhtValue, trusted

log = get_logger(__name__)

MAX_VALUES: Final = 50_000
MAX_BYTES: Final = 32 << 20
MAX_TOLD: Final = 7
"""Nodes in an answer: one datagram, so that also a client that asks once from an address yet unproven gets it whole."""
REFRESH_EVERY: Final = 60.0
"""Seconds between rounds of housekeeping: expiry, pings of known nodes, a search for our own neighbourhood and one
for a random place, so that nodes far from us are known too."""
PINGS_PER_ROUND: Final = 16


class ValueStore:
    """Values by key id, bounded by count and bytes. When it is full, values far from our id make room for nearer ones.

    Making room drops one value in a hundred at once and remembers how near they were: what is no nearer is refused
    without looking at anything until the next `expire`.
    """

    def __init__(self, own_id: bytes, max_values: int = MAX_VALUES, max_bytes: int = MAX_BYTES) -> None:
        self._own = own_id
        self._max_values = max_values
        self._max_bytes = max_bytes
        self._values: dict[bytes, DhtValue] = {}
        self._weight = 0
        self._cutoff = 1 << 256

    def __len__(self) -> int:
        return len(self._values)

    @property
    def weight(self) -> int:
        """Bytes held, about."""
        return self._weight

    def get(self, key_id: bytes, now: float) -> DhtValue | None:
        value = self._values.get(key_id)
        return None if value is None or value.expired(now) else value

    def put(self, value: DhtValue, now: float) -> bool:
        """Take in a checked value, merged with what is here. False when there is no room for it."""
        key_id = value.key.id
        known = self._values.get(key_id)
        if known is not None:
            self._set(key_id, value if known.expired(now) else known.merged(value, now))
            return True
        if self._full():
            if distance(key_id, self._own) >= self._cutoff:
                return False
            count = max(1, len(self._values) // 100)
            far = heapq.nlargest(count, self._values, key=lambda other: distance(other, self._own))
            self._cutoff = distance(far[-1], self._own)
            if distance(key_id, self._own) >= self._cutoff:
                return False
            for other in far:
                self._remove(other)
        self._set(key_id, value)
        return True

    def _full(self) -> bool:
        return len(self._values) >= self._max_values or self._weight >= self._max_bytes

    def _set(self, key_id: bytes, value: DhtValue) -> None:
        self._remove(key_id)
        self._values[key_id] = value
        self._weight += _weight(value)

    def _remove(self, key_id: bytes) -> None:
        old = self._values.pop(key_id, None)
        if old is not None:
            self._weight -= _weight(old)

    def expire(self, now: float) -> None:
        for key_id in [key_id for key_id, value in self._values.items() if value.expired(now)]:
            self._remove(key_id)
        self._cutoff = 1 << 256


def _weight(value: DhtValue) -> int:
    return len(value.value) + len(value.owner) + len(value.key.name) + 320


class DhtServer:
    """Serves one ADNL endpoint. `await nursery.start(server.run)` makes it answer and keeps it in the swarm."""

    def __init__(
        self,
        endpoint: AdnlEndpoint,
        clock: Clock,
        static_nodes: Sequence[DhtNode] = (),
        *,
        k: int = 6,
        a: int = 3,
        max_values: int = MAX_VALUES,
        rng: random.Random | None = None,
    ) -> None:
        """Without `static_nodes` it is the only node of its DHT, which is enough for a devnet. `rng` chooses where it
        looks around; give a seeded one to simulate."""
        self._random = rng if rng is not None else random.SystemRandom()
        self._endpoint = endpoint
        self._clock = clock
        self._k = k
        self._started = int(clock.now())
        self._table = RoutingTable(endpoint.id, static_nodes)
        self._values = ValueStore(endpoint.id, max_values)
        self._own_entry: DhtNode | None = None
        self.client = DhtClient(endpoint, static_nodes, clock, k=k, a=a, table=self._table, introduce=self.node_entry)

    @property
    def table(self) -> RoutingTable:
        return self._table

    @property
    def values(self) -> ValueStore:
        return self._values

    def node_entry(self) -> DhtNode:
        """Our own signed `dht.node`, re-signed once a minute: what belongs into a global config."""
        now = int(self._clock.now())
        if self._own_entry is None or self._own_entry.version + 60 <= now:
            addresses = AddressList((self._endpoint.address,), version=self._started, reinit_date=self._started)
            self._own_entry = DhtNode.create(self._endpoint, addresses, max(now, 1))
        return self._own_entry

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer queries until cancelled."""
        self._endpoint.set_handler(self.handle)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.client.run)
            task_status.started()
            while True:
                await self._housekeeping()
                await trio.sleep(REFRESH_EVERY)

    async def _housekeeping(self) -> None:
        self._values.expire(self._clock.now())
        if not len(self._table):
            return
        try:
            await self.client.find_nearest(self._endpoint.id)
            await self.client.find_nearest(self._random.randbytes(32))
        except DhtUnavailable:
            log.info("no other DHT node answers", known=len(self._table))
        async with trio.open_nursery() as nursery:
            for node in self._table.least_sure(PINGS_PER_ROUND):
                nursery.start_soon(self._refresh, node)

    async def _refresh(self, node: DhtNode) -> None:
        answer = await self.client.ask(node, wire.GetSignedAddressList())
        if answer is None:
            return
        try:
            found = wire.parse_node(answer)
        except BadPacket:
            return
        if found.id == node.id and trusted(found):
            self._table.add(found)

    # Answers.

    async def handle(self, peer: Peer, data: bytes, _rldp: bool) -> bytes | None:
        """QueryHandler: the answer, or None for everything that is not a correct DHT query."""
        try:
            sender, query = wire.parse_query(data)
            if sender is not None and sender.id == peer.id and trusted(sender):
                self._table.add(sender)
            return self._answer(query)
        except BadPacket as exc:
            log.debug("query without an answer", peer=peer.id, reason=exc.message)
            return None

    def _answer(self, query: wire.Query) -> bytes | None:
        match query:
            case wire.Ping(random_id):
                return wire.pack_pong(random_id)
            case wire.FindNode(key, k):
                return wire.pack_nodes(self._nearest(key, k))
            case wire.FindValue(key, k):
                value = self._values.get(key, self._clock.now())
                return (
                    wire.pack_value_not_found(self._nearest(key, k)) if value is None else wire.pack_value_found(value)
                )
            case wire.Store(value):
                return self._store(value)
            case wire.GetSignedAddressList():
                return self.node_entry().boxed()

    def _nearest(self, key: bytes, k: int) -> list[DhtNode]:
        good = (node for node in self._table.nearest(key, 2 * MAX_K) if trusted(node))
        return [node for node, _ in zip(good, range(max(0, min(k, MAX_TOLD))), strict=False)]

    def _store(self, value: DhtValue) -> bytes | None:
        now = self._clock.now()
        value.check(now)
        if value.expired(now) or self._table.closer_than_us(value.key.id, self._k + 10) >= self._k + 10:
            # Accepted and dropped, as the C++ node does: the sender has done nothing wrong.
            return wire.STORED
        return wire.STORED if self._values.put(value, now) else None
