"""Client of the DHT: finds and publishes addresses, bag membership and provider records (reference protocol 4.4, 4.5).

Values from the network count only when their signatures hold. Errors: `DhtUnavailable` when no DHT node answered (we
are offline; nothing is known), None or an empty list when nodes answered and do not have the value.

    dht = DhtClient(endpoint, config.dht_nodes, clock, k=config.k, a=config.a)
    nursery.start_soon(dht.run)                # keeps what is announced below alive
    dht.announce_address()
    dht.announce_overlay(bag_id)
    found = await dht.find_address(adnl_id)    # (public key, (ip, port)) or None
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import trio

from ..clock import Clock
from ..errors import BadPacket, DhtUnavailable, TonfsError
from ..ids import AdnlId, BagId, ProviderKey
from ..log import get_logger
from . import dht_wire as wire
from . import tl
from .address import AddressList
from .api import AdnlEndpoint, UdpAddress
from .dht_table import Lookup, RoutingTable
from .dht_types import (
    NAME_ADDRESS,
    NAME_PROVIDER,
    DhtKey,
    DhtNode,
    DhtValue,
    Signer,
    address_key,
    merge_nodes,
    overlay_key,
    overlay_value,
    provider_record_key,
    signed_value,
    trusted,
)
from .keys import short_id
from .overlay import OverlayNode, parse_nodes, sign_node

log = get_logger(__name__)

QUERY_TIMEOUT: Final = 3.0
LOOKUP_TIMEOUT: Final = 20.0
TTL: Final = 3600
ADDRESS_EVERY: Final = 60.0
OVERLAY_EVERY: Final = 90.0
PROVIDER_EVERY: Final = 60.0
RETRY_AFTER: Final = 10.0
ADDRESS_CACHE: Final = 300.0
"""Seconds a found address is believed at most; a peer that fell silent is looked up again with fresh=True."""
NEAREST_CACHE: Final = 600.0
"""Seconds during which the nodes nearest to a key we publish are not searched again."""
PUBLISHERS: Final = 8
"""Records published at the same time."""


T = TypeVar("T")


class _Cache(Generic[T]):
    """Bounded map with expiry, in seconds of the trio clock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def get(self, key: bytes) -> T | None:
        item = self._items.get(key)
        if item is None or item[0] <= trio.current_time():
            return None
        return item[1]

    def put(self, key: bytes, value: T, seconds: float) -> None:
        self._items[key] = (trio.current_time() + seconds, value)
        self._items.move_to_end(key)
        while len(self._items) > self._limit:
            self._items.popitem(last=False)

    def drop(self, key: bytes) -> None:
        self._items.pop(key, None)


@dataclass
class _Job:
    """One record that `run` keeps alive."""

    publish: Callable[[], Awaitable[object]]
    every: float
    due: float
    busy: bool = False


class DhtClient:
    """One ADNL endpoint's view of the DHT. Safe for many tasks of one trio loop."""

    def __init__(
        self,
        endpoint: AdnlEndpoint,
        static_nodes: Sequence[DhtNode],
        clock: Clock,
        *,
        k: int = 6,
        a: int = 3,
        table: RoutingTable | None = None,
        introduce: Callable[[], DhtNode] | None = None,
    ) -> None:
        """`k` nearest nodes hold a value, `a` are asked at a time. A server passes its table and its own entry."""
        self._endpoint = endpoint
        self._clock = clock
        self._k = min(max(k, 1), 10)
        self._a = min(max(a, 1), 10)
        self._table = table if table is not None else RoutingTable(endpoint.id, static_nodes)
        self._introduce = introduce
        self._addresses: _Cache[tuple[bytes, UdpAddress]] = _Cache(4096)
        self._providers: _Cache[AdnlId] = _Cache(1024)
        self._nearest: _Cache[list[DhtNode]] = _Cache(4096)
        self._locks: dict[bytes, _SharedLock] = {}
        self._jobs: dict[tuple[str, bytes], _Job] = {}
        self._wake = trio.Event()

    @property
    def table(self) -> RoutingTable:
        return self._table

    # Finding.

    async def find_address(
        self, adnl_id: AdnlId, *, fresh: bool = False, timeout: float = LOOKUP_TIMEOUT
    ) -> tuple[bytes, UdpAddress] | None:
        """(public key, address) of an ADNL id, or None. `fresh` passes over the cache. Raises DhtUnavailable."""
        return await self._find_address(address_key(adnl_id).id, fresh, timeout)

    async def find_address_at(
        self, key_id: bytes, *, timeout: float = LOOKUP_TIMEOUT
    ) -> tuple[bytes, UdpAddress] | None:
        """The same when only the DHT key id of the address record is known."""
        return await self._find_address(key_id, False, timeout)

    async def _find_address(self, key_id: bytes, fresh: bool, timeout: float) -> tuple[bytes, UdpAddress] | None:
        async with self._one_at_a_time(key_id):
            cached = self._addresses.get(key_id)
            if cached is not None and not fresh:
                return cached
            values = await self.find_values(key_id, every=False, timeout=timeout)
            for value in values:
                found = self._read_address(value)
                if found is not None:
                    age = min(ADDRESS_CACHE, value.ttl - self._clock.now())
                    self._addresses.put(key_id, found, age)
                    return found
            self._addresses.drop(key_id)
            return None

    @staticmethod
    def _read_address(value: DhtValue) -> tuple[bytes, UdpAddress] | None:
        if value.rule != tl.DHT_RULE_SIGNATURE or value.key.name != NAME_ADDRESS:
            return None
        try:
            address = AddressList.parse(value.value).first
        except BadPacket:
            return None
        return None if address is None else (value.owner[4:], address)

    async def find_overlay_nodes(self, bag_id: BagId, *, timeout: float = LOOKUP_TIMEOUT) -> list[OverlayNode]:
        """Fresh members of a bag's overlay with good signatures, newest first; DHT nodes hold different subsets, so
        all near ones are asked. Raises DhtUnavailable."""
        key = overlay_key(bag_id)
        values = await self.find_values(key.id, every=True, timeout=timeout)
        now = self._clock.now()
        return merge_nodes([_good_nodes(value, now) for value in values], limit=64)

    async def find_provider(
        self, provider: ProviderKey, *, fresh: bool = False, timeout: float = LOOKUP_TIMEOUT
    ) -> AdnlId | None:
        """ADNL id in a provider's `storage-provider` record, or None. Raises DhtUnavailable."""
        key_id = provider_record_key(provider).id
        async with self._one_at_a_time(key_id):
            cached = self._providers.get(key_id)
            if cached is not None and not fresh:
                return cached
            for value in await self.find_values(key_id, every=False, timeout=timeout):
                reader = tl.Reader(value.value)
                try:
                    reader.expect(tl.PROVIDER_DHT_RECORD)
                    adnl_id = AdnlId(reader.int256())
                    reader.end()
                except BadPacket:
                    continue
                self._providers.put(key_id, adnl_id, min(ADDRESS_CACHE, value.ttl - self._clock.now()))
                return adnl_id
            self._providers.drop(key_id)
            return None

    async def find_values(self, key_id: bytes, *, every: bool, timeout: float) -> list[DhtValue]:
        """Values under a key, checked and not expired, best (largest ttl) first.

        `every` False: the search ends with the first hit. Raises DhtUnavailable when no DHT node answered.
        """
        search = _Search(self, key_id, every)
        with trio.move_on_after(timeout):
            await search.run()
        if not search.lookup.answers:
            raise DhtUnavailable("no DHT node answered")
        return sorted(search.values, key=lambda value: -value.ttl)

    async def find_nearest(self, key_id: bytes, *, timeout: float = LOOKUP_TIMEOUT) -> list[DhtNode]:
        """The k nearest nodes that answer. Raises DhtUnavailable when none does."""
        search = _Search(self, key_id, every=True, values=False)
        with trio.move_on_after(timeout):
            await search.run()
        found = search.lookup.result()
        if not found:
            raise DhtUnavailable("no DHT node answered")
        return found

    # Publishing once.

    async def publish_address(self, endpoint: AdnlEndpoint | None = None) -> int:
        """Store the address of this client's endpoint (or another of ours). Number of copies. Raises DhtUnavailable."""
        owner = endpoint if endpoint is not None else self._endpoint
        now = int(self._clock.now())
        addresses = AddressList((owner.address,), version=now, reinit_date=now)
        return await self.store(signed_value(owner, NAME_ADDRESS, addresses.boxed(), now + TTL))

    async def publish_provider(self, provider: Signer, adnl_id: AdnlId) -> int:
        """Store "this provider key is reached at this ADNL id". Number of copies. Raises DhtUnavailable."""
        record = tl.Writer(tl.PROVIDER_DHT_RECORD).int256(adnl_id).done()
        return await self.store(signed_value(provider, NAME_PROVIDER, record, int(self._clock.now()) + TTL))

    async def publish_overlay(self, bag_id: BagId, node: OverlayNode) -> int:
        """Store our membership, merged with the members already known (some peers overwrite what they do not
        mention, so the whole list goes out). Number of copies. Raises DhtUnavailable."""
        key = overlay_key(bag_id)
        nearest = await self._nearest_for(key)
        known: list[list[OverlayNode]] = []

        async def ask(target: DhtNode) -> None:
            result = await self._find_value(target, key.id)
            if isinstance(result, DhtValue):
                known.append(_good_nodes(result, self._clock.now()))

        async with trio.open_nursery() as nursery:
            for target in nearest:
                nursery.start_soon(ask, target)
        others = [[n for n in group if n.id != node.id] for group in known]
        members = merge_nodes([[node], *others])
        if node not in members:
            members[-1] = node
        return await self._store_at(nearest, overlay_value(bag_id, members, int(self._clock.now()) + TTL))

    async def store(self, value: DhtValue) -> int:
        """Store at the k nearest nodes. Number of copies made, at least 1. Raises DhtUnavailable."""
        return await self._store_at(await self._nearest_for(value.key), value)

    async def _nearest_for(self, key: DhtKey) -> list[DhtNode]:
        nearest = self._nearest.get(key.id)
        if nearest is None:
            nearest = await self.find_nearest(key.id)
            self._nearest.put(key.id, nearest, NEAREST_CACHE)
        return nearest

    async def _store_at(self, nodes: Sequence[DhtNode], value: DhtValue) -> int:
        copies = 0

        async def one(target: DhtNode) -> None:
            nonlocal copies
            answer = await self.ask(target, wire.Store(value))
            if answer == wire.STORED:
                copies += 1

        async with trio.open_nursery() as nursery:
            for target in nodes:
                nursery.start_soon(one, target)
        if copies * 2 < len(nodes):
            self._nearest.drop(value.key.id)
        if not copies:
            raise DhtUnavailable("no DHT node stored the record")
        return copies

    # Publishing for good.

    def announce_address(self, endpoint: AdnlEndpoint | None = None) -> None:
        """Keep the address record alive while `run` runs. Idempotent."""
        owner = endpoint if endpoint is not None else self._endpoint
        self._announce("address", owner.id, ADDRESS_EVERY, lambda: self.publish_address(owner))

    def announce_provider(self, provider: Signer, adnl_id: AdnlId) -> None:
        """Keep the provider record alive while `run` runs. Idempotent."""
        key = short_id(provider.public_key)
        self._announce("provider", key, PROVIDER_EVERY, lambda: self.publish_provider(provider, adnl_id))

    def announce_overlay(self, bag_id: BagId, endpoint: AdnlEndpoint | None = None) -> None:
        """Keep our membership in the bag's overlay alive while `run` runs, each time freshly signed. Idempotent."""
        owner = endpoint if endpoint is not None else self._endpoint

        async def publish() -> int:
            overlay = overlay_key(bag_id).owner_id
            node = sign_node(owner.public_key, owner.sign, overlay, int(self._clock.now()))
            return await self.publish_overlay(bag_id, node)

        self._announce("overlay", bag_id, OVERLAY_EVERY, publish)

    def withdraw_overlay(self, bag_id: BagId) -> None:
        """Stop announcing; records that are out end by themselves within an hour."""
        self._jobs.pop(("overlay", bag_id), None)

    def _announce(self, kind: str, key: bytes, every: float, publish: Callable[[], Awaitable[object]]) -> None:
        if (kind, key) not in self._jobs:
            self._jobs[(kind, key)] = _Job(publish, every, due=-math.inf)
            self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish everything announced, again and again. Never returns; failures are retried after RETRY_AFTER."""
        limiter = trio.CapacityLimiter(PUBLISHERS)
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                now = trio.current_time()
                for name, job in self._jobs.items():
                    if job.due <= now and not job.busy:
                        job.busy = True
                        nursery.start_soon(self._publish_one, name, job, limiter)
                nap = min((job.due for job in self._jobs.values() if not job.busy), default=math.inf) - now
                with trio.move_on_after(nap):
                    await self._wake.wait()
                self._wake = trio.Event()

    async def _publish_one(self, name: tuple[str, bytes], job: _Job, limiter: trio.CapacityLimiter) -> None:
        wait = job.every
        async with limiter:
            try:
                if self._jobs.get(name) is job:
                    await job.publish()
            except TonfsError as exc:
                wait = RETRY_AFTER
                log.info("record not published, will try again", kind=name[0], key=name[1], reason=exc.message)
        job.due, job.busy = trio.current_time() + wait, False
        self._wake.set()

    # One question to one node.

    async def ask(self, node: DhtNode, query: wire.Query, *, timeout: float = QUERY_TIMEOUT) -> bytes | None:
        """Answer bytes, or None for silence. The routing table learns from either."""
        address = node.address
        if address is None:
            return None
        sender = None if self._introduce is None else self._introduce()
        try:
            peer = self._endpoint.peer(node.public_key, address)
            answer = await peer.query(wire.pack_query(query, sender), timeout=timeout)
        except TonfsError:
            self._table.failed(node.id)
            return None
        if trusted(node):
            self._table.add(node)
        self._table.answered(node.id)
        return answer

    async def _find_value(self, node: DhtNode, key_id: bytes) -> DhtValue | list[DhtNode] | None:
        """A checked value, trustworthy nearer nodes, or None when there was no acceptable answer."""
        answer = await self.ask(node, wire.FindValue(key_id, self._k))
        if answer is None:
            return None
        try:
            result = wire.parse_value_result(answer)
            if isinstance(result, DhtValue):
                return self._accept(result, key_id)
        except BadPacket as exc:
            log.debug("bad answer from a DHT node", node=node.id, reason=exc.message)
            return None
        return [found for found in result if trusted(found)]

    def _accept(self, value: DhtValue, key_id: bytes) -> DhtValue:
        now = self._clock.now()
        if value.key.id != key_id:
            raise BadPacket("value of another key")
        if value.expired(now):
            raise BadPacket("expired value")
        value.check(now)
        return value

    async def _find_node(self, node: DhtNode, key_id: bytes) -> list[DhtNode] | None:
        answer = await self.ask(node, wire.FindNode(key_id, self._k))
        if answer is None:
            return None
        try:
            return [found for found in wire.parse_nodes(answer) if trusted(found)]
        except BadPacket as exc:
            log.debug("bad answer from a DHT node", node=node.id, reason=exc.message)
            return None

    def _start_lookup(self, key_id: bytes) -> Lookup:
        seeds = self._table.nearest(key_id, max(self._k, 10))
        return Lookup(key_id, seeds, width=self._k, parallel=self._a, own_id=self._endpoint.id)

    @asynccontextmanager
    async def _one_at_a_time(self, key_id: bytes) -> AsyncIterator[None]:
        """Tasks that look for the same key wait for the first one and then find its result in the cache."""
        shared = self._locks.setdefault(key_id, _SharedLock())
        shared.users += 1
        try:
            async with shared.lock:
                yield
        finally:
            shared.users -= 1
            if not shared.users:
                self._locks.pop(key_id, None)


class _SharedLock:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.users = 0


class _Search:
    """Drives one Lookup with up to `a` questions in the air."""

    def __init__(self, client: DhtClient, key_id: bytes, every: bool, values: bool = True) -> None:
        self.lookup = client._start_lookup(key_id)
        self.values: list[DhtValue] = []
        self._client = client
        self._key = key_id
        self._every = every
        self._want_values = values

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._refill()

    def _refill(self) -> None:
        for node in self.lookup.take():
            self._nursery.start_soon(self._ask, node)

    async def _ask(self, node: DhtNode) -> None:
        nearer: list[DhtNode] | None
        if self._want_values:
            result = await self._client._find_value(node, self._key)
            if isinstance(result, DhtValue):
                self.values.append(result)
                if not self._every:
                    self.lookup.answered(node.id)
                    self._nursery.cancel_scope.cancel()
                    return
                nearer = await self._client._find_node(node, self._key)
                nearer = nearer if nearer is not None else []
            else:
                nearer = result
        else:
            nearer = await self._client._find_node(node, self._key)
        if nearer is None:
            self.lookup.failed(node.id)
        else:
            self.lookup.answered(node.id, nearer)
        self._refill()


def _good_nodes(value: DhtValue, now: float) -> list[OverlayNode]:
    """The fresh members in a checked value."""
    if value.rule != tl.DHT_RULE_OVERLAY_NODES:
        return []
    return [node for node in parse_nodes(value.value) if node.fresh(now)]
