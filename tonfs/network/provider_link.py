"""Questions to storage providers: their prices, "please store this", and which peer serves the bags.

A provider is named by its key. The DHT leads from the key to an ADNL id and from there to an address (reference
contracts 4.5, 5); both are remembered and looked up again when the provider falls silent. Queries go by RLDP2.

Errors: `DhtUnavailable` (nothing is known; we are offline), `PeerUnreachable` (the DHT answered and has no record),
`PeerTimeout` (the provider did not answer), `BadPacket` (it answered nonsense).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import trio

from ..errors import PeerTimeout, PeerUnreachable, UsageError
from ..ids import Address, AdnlId, ProviderKey, raw_address
from ..log import get_logger
from . import provider_tl as wire
from .api import AdnlEndpoint, Peer, Rates, StorageStatus
from .dht_client import DhtClient

log = get_logger(__name__)

ROUTE_LIFE: Final = 600.0
"""Seconds before a provider's address is looked up again even when it answers."""
ADNL_LIFE: Final = 3600.0
"""Seconds for which the peer that serves a provider's bags is believed to stay the same."""
MAX_ROUTES: Final = 2048


@dataclass(frozen=True)
class _Route:
    peer: Peer
    until: float


class ProviderLink:
    """The client side of the provider protocol. Methods have the names and meanings of `PeerNet`."""

    def __init__(self, endpoint: AdnlEndpoint, dht: DhtClient) -> None:
        self._endpoint = endpoint
        self._dht = dht
        self._routes: OrderedDict[ProviderKey, _Route] = OrderedDict()
        self._storage_ids: OrderedDict[tuple[ProviderKey, Address], tuple[AdnlId, float]] = OrderedDict()
        self._doubted: set[ProviderKey] = set()

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates:
        """What storing `size` bytes would cost there."""
        request = wire.pack_request(wire.RatesRequest(size))
        return wire.parse_rates(await self._ask(provider, request, wire.MAX_RATES, timeout))

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus:
        """Ask to store the contract's bag (idempotent); the status, and a proof of that byte once it is active."""
        request = wire.pack_request(wire.StorageRequest(_account(contract), byte_to_proof))
        return wire.parse_storage(await self._ask(provider, request, wire.MAX_STORAGE, timeout))

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId:
        """ADNL id of the peer that serves this contract's bag, signed by that peer. Remembered for an hour."""
        key = (provider, contract)
        known = self._storage_ids.get(key)
        if known is not None and known[1] > trio.current_time():
            return known[0]
        request = wire.pack_request(wire.AdnlProofRequest(_account(contract)))
        answer = await self._ask(provider, request, wire.MAX_ADNL_PROOF, timeout)
        found = wire.parse_adnl_proof(answer, provider)
        self._storage_ids[key] = (found, trio.current_time() + ADNL_LIFE)
        while len(self._storage_ids) > MAX_ROUTES:
            self._storage_ids.popitem(last=False)
        return found

    def forget(self, provider: ProviderKey) -> None:
        """Drop what is remembered: the next question looks the provider up again, past all caches."""
        self._routes.pop(provider, None)
        if len(self._doubted) >= MAX_ROUTES:
            self._doubted.clear()
        self._doubted.add(provider)
        for key in [key for key in self._storage_ids if key[0] == provider]:
            del self._storage_ids[key]

    async def _ask(self, provider: ProviderKey, request: bytes, max_answer: int, timeout: float) -> bytes:
        """One question within `timeout` seconds, the look-up included.

        A remembered route gets half of the time; after that the DHT is asked again and the new route the rest.
        """
        deadline = trio.current_time() + timeout
        route = self._routes.get(provider)
        if route is not None and route.until > trio.current_time():
            try:
                return await route.peer.rldp_query(request, max_answer=max_answer, timeout=timeout / 2)
            except (PeerTimeout, PeerUnreachable):
                self.forget(provider)
        peer = None
        with trio.move_on_at(deadline):
            peer = await self._resolve(provider, fresh=route is not None or provider in self._doubted)
        left = deadline - trio.current_time()
        if peer is None or left <= 0:
            raise PeerTimeout(f"no time left to ask provider {provider.hex()[:16]}")
        try:
            answer = await peer.rldp_query(request, max_answer=max_answer, timeout=left)
        except (PeerTimeout, PeerUnreachable):
            self.forget(provider)
            raise
        self._doubted.discard(provider)
        self._routes[provider] = _Route(peer, trio.current_time() + ROUTE_LIFE)
        while len(self._routes) > MAX_ROUTES:
            self._routes.popitem(last=False)
        return answer

    async def _resolve(self, provider: ProviderKey, fresh: bool) -> Peer:
        """Provider key -> ADNL id -> address. Raises PeerUnreachable, DhtUnavailable."""
        adnl_id = await self._dht.find_provider(provider, fresh=fresh)
        if adnl_id is None:
            raise PeerUnreachable(f"provider {provider.hex()[:16]} has no record in the DHT")
        found = await self._dht.find_address(adnl_id, fresh=fresh)
        if found is None:
            # Go providers 0.4.x publish the DHT key id of their address record instead of their ADNL id.
            found = await self._dht.find_address_at(adnl_id)
        if found is None:
            raise PeerUnreachable(f"provider {provider.hex()[:16]} has no address in the DHT")
        return self._endpoint.peer(*found)


def _account(contract: Address) -> bytes:
    """The 32 bytes that name a contract in this protocol. Raises UsageError outside the basechain."""
    try:
        workchain, _, digits = raw_address(contract).partition(":")
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    if workchain != "0":
        raise UsageError(f"storage contracts live in workchain 0: {contract}")
    return bytes.fromhex(digits)
