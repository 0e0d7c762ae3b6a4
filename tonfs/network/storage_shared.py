"""What the parts of the storage peer share: the seam to the DHT, the node's things, and a fetch that waits."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from ..clock import Clock
from ..errors import TonfsError
from ..ids import AdnlId, BagId
from .address import usable
from .api import AdnlEndpoint, UdpAddress
from .memory_pool import Pool
from .overlay import OverlayNode
from .piece_source import PieceSource
from .storage_transfer import Reputation


class Finder(Protocol):
    """What a swarm needs of the DHT (`DhtClient` is one). Raises DhtUnavailable when no DHT node answers."""

    async def find_address(self, adnl_id: AdnlId, *, fresh: bool = False) -> tuple[bytes, UdpAddress] | None: ...

    async def find_overlay_nodes(self, bag_id: BagId) -> list[OverlayNode]: ...

    def announce_overlay(self, bag_id: BagId, endpoint: AdnlEndpoint | None = None) -> None: ...

    def withdraw_overlay(self, bag_id: BagId) -> None: ...


HAVE_BUDGET: Final = 64 << 20
"""Bytes of what peers said that they have, and of what they were told that we have."""

Progress = Callable[[int, int], None]
"""(pieces here, pieces in the bag)."""


@dataclass
class Shared:
    """What all swarms of a node have in common."""

    endpoint: AdnlEndpoint
    finder: Finder
    clock: Clock
    rng: random.Random
    source: PieceSource
    reputation_of: Callable[[BagId, AdnlId], Reputation]
    links: int = 0
    """Sessions of all swarms."""
    have_sets: Pool = field(default_factory=lambda: Pool(HAVE_BUDGET))

    @property
    def reachable(self) -> bool:
        """Others can dial us. Without an address we are in no record, as C++ in client mode (4.7)."""
        return usable(self.endpoint.address)


class Waiter:
    """One fetch: what it waits for now, and what came for it."""

    def __init__(self) -> None:
        self.since = trio.current_time()
        self.missing = 0
        self.needs_info = False
        self.failure: TonfsError | None = None
        self.bytes = 0
        self.wrong = 0
        self._event = trio.Event()

    @property
    def satisfied(self) -> bool:
        return not self.needs_info and not self.missing

    def look(self) -> None:
        """Let the fetch go on if it can."""
        if self.satisfied or self.failure is not None:
            self._event.set()

    async def wait(self) -> None:
        """Until it is satisfied. Raises the failure."""
        while self.failure is None and not self.satisfied:
            self._event = trio.Event()
            await self._event.wait()
        if self.failure is not None:
            raise self.failure

    def fail(self, exc: TonfsError) -> None:
        self.failure = exc
        self.look()
