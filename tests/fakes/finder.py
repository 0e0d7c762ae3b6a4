"""A DHT that is one dictionary: what `StorageNode` needs of it, shared by all nodes of a test."""

from __future__ import annotations

from collections import Counter

import trio

from tonfs.clock import Clock
from tonfs.errors import DhtUnavailable
from tonfs.ids import AdnlId, BagId
from tonfs.network.api import AdnlEndpoint, UdpAddress
from tonfs.network.overlay import OverlayNode, overlay_id, sign_node


class FakeDht:
    """`register` an endpoint once; then every node of the test uses `finder(endpoint)`."""

    def __init__(self, clock: Clock, *, delay: float = 0.02) -> None:
        self.clock = clock
        self.delay = delay
        self.online = True
        self.addresses: dict[AdnlId, tuple[bytes, UdpAddress]] = {}
        self.members: dict[BagId, dict[AdnlId, AdnlEndpoint]] = {}
        self.lookups: Counter[str] = Counter()

    def finder(self, endpoint: AdnlEndpoint) -> FakeFinder:
        self.addresses[endpoint.id] = (endpoint.public_key, endpoint.address)
        return FakeFinder(self, endpoint)


class FakeFinder:
    def __init__(self, dht: FakeDht, endpoint: AdnlEndpoint) -> None:
        self._dht = dht
        self._endpoint = endpoint

    async def _ask(self, kind: str) -> None:
        self._dht.lookups[kind] += 1
        await trio.sleep(self._dht.delay)
        if not self._dht.online:
            raise DhtUnavailable("no DHT node answered")

    async def find_address(self, adnl_id: AdnlId, *, fresh: bool = False) -> tuple[bytes, UdpAddress] | None:
        await self._ask("address")
        return self._dht.addresses.get(adnl_id)

    async def find_overlay_nodes(self, bag_id: BagId) -> list[OverlayNode]:
        await self._ask("overlay")
        now = int(self._dht.clock.now())
        return [
            sign_node(member.public_key, member.sign, overlay_id(bag_id), now)
            for member in list(self._dht.members.get(bag_id, {}).values())[-5:]
        ]

    def announce_overlay(self, bag_id: BagId, endpoint: AdnlEndpoint | None = None) -> None:
        self._dht.members.setdefault(bag_id, {})[self._endpoint.id] = self._endpoint

    def withdraw_overlay(self, bag_id: BagId) -> None:
        self._dht.members.get(bag_id, {}).pop(self._endpoint.id, None)
