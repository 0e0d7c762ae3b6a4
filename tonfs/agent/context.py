"""What the agent's tasks share: the volume's settings, the stores, and one seam for each room they talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

from ..clock import Clock
from ..config import Settings
from ..ids import BagId, ProviderKey
from ..network.api import PeerNet
from .money import Money
from .store import AgentStore


class Front(Protocol):
    """The front's control socket (ControlClient satisfies it)."""

    async def call(
        self, method: str, params: dict[str, Any] | None = None, *, timeout: float = 30.0
    ) -> dict[str, Any]: ...


class Nudge:
    """Wakes a periodic task early. Many nudges before the task looks count as one."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout: float) -> None:
        """Return when nudged or after `timeout` seconds."""
        with trio.move_on_after(timeout):
            await self._event.wait()
        self._event = trio.Event()


class BagLocks:
    """One lock a bag: fetching, dropping and closing the same bag exclude each other."""

    def __init__(self) -> None:
        self._locks: dict[BagId, tuple[trio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, bag_id: BagId) -> AsyncIterator[None]:
        lock, users = self._locks.get(bag_id, (trio.Lock(), 0))
        self._locks[bag_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[bag_id]
            if users == 1:
                del self._locks[bag_id]
            else:
                self._locks[bag_id] = (lock, users - 1)


@dataclass
class Agent:
    """Everything a task of the agent may touch. `paused` stops spending and packing, never serving and reading."""

    volume: Path
    settings: Settings
    clock: Clock
    store: AgentStore
    front: Front
    net: PeerNet
    money: Money
    locks: BagLocks = field(default_factory=BagLocks)
    pack_now: Nudge = field(default_factory=Nudge)
    replicate_now: Nudge = field(default_factory=Nudge)
    audit_now: Nudge = field(default_factory=Nudge)
    flush_until: float = 0.0
    """Files count as settled, and packs as due, until this time (`tonfs wait`)."""
    paused: bool = False
    heard: dict[ProviderKey, float] = field(default_factory=dict)
    """When each provider last answered anything; tells 'they are silent' from 'we are offline'."""
    problems: dict[str, str] = field(default_factory=dict)
    """Task -> what keeps it from working; shown by status."""

    def pack_directory(self, bag_id: BagId) -> Path:
        return self.volume / "packs" / bag_id.hex()

    @property
    def flushing(self) -> bool:
        return self.clock.now() < self.flush_until

    def heard_from(self, provider: ProviderKey) -> None:
        self.heard[provider] = self.clock.now()

    def others_answered(self, provider: ProviderKey, since: float) -> bool:
        """Did any other provider answer at or after `since`?"""
        return any(key != provider and at >= since for key, at in self.heard.items())
