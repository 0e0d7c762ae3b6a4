"""What the agent's tasks share: the volume's settings, the stores, and one seam for each room they talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from ..clock import Clock
from ..config import Settings
from ..errors import TonfsError
from ..ids import BagId, ProviderKey
from ..network.api import PeerNet
from .money import Money
from .store import AgentStore, Bag

PAUSED: Final = "paused"


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


class _BagLock:
    """Many may share it, or one may hold it alone. Those who want it alone wait for the present sharers only."""

    def __init__(self) -> None:
        self.door = trio.Lock()
        self.sharers = 0
        self.empty = trio.Event()
        self.users = 0


class BagLocks:
    """One lock a bag: fetches of a bag run side by side; preparing, dropping and closing it exclude them."""

    def __init__(self) -> None:
        self._locks: dict[BagId, _BagLock] = {}

    @asynccontextmanager
    async def alone(self, bag_id: BagId) -> AsyncIterator[None]:
        async with self._used(bag_id) as lock, lock.door:
            while lock.sharers:
                lock.empty = trio.Event()
                await lock.empty.wait()
            yield

    @asynccontextmanager
    async def shared(self, bag_id: BagId) -> AsyncIterator[None]:
        async with self._used(bag_id) as lock:
            async with lock.door:
                lock.sharers += 1
            try:
                yield
            finally:
                lock.sharers -= 1
                if not lock.sharers:
                    lock.empty.set()

    @asynccontextmanager
    async def _used(self, bag_id: BagId) -> AsyncIterator[_BagLock]:
        lock = self._locks.setdefault(bag_id, _BagLock())
        lock.users += 1
        try:
            yield lock
        finally:
            lock.users -= 1
            if not lock.users:
                del self._locks[bag_id]


@dataclass(frozen=True)
class Problem:
    """What keeps something from working now, with the error's code, for a person."""

    code: str
    text: str


class Problems:
    """Task or bag -> its problem. Whoever reports one under a key also clears it."""

    def __init__(self) -> None:
        self._found: dict[str, Problem] = {}

    def report(self, key: str, why: TonfsError) -> None:
        self._found[key] = Problem(why.code, f"{why.message} {why.hint}".strip())

    def clear(self, *keys: str) -> None:
        for key in keys:
            self._found.pop(key, None)

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        """Each text once, oldest first; how often it holds is added."""
        counts: dict[Problem, int] = {}
        for problem in self._found.values():
            counts[problem] = counts.get(problem, 0) + 1
        for problem, count in counts.items():
            yield problem if count == 1 else Problem(problem.code, f"{problem.text} ({count} times)")


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
    heard: dict[ProviderKey, float] = field(default_factory=dict)
    """When each provider last answered anything; tells 'they are silent' from 'we are offline'."""
    problems: Problems = field(default_factory=Problems)
    being_read: dict[BagId, float] = field(default_factory=dict)
    """Until when (trio time) the front may read what was fetched for it; such data is not dropped before."""
    to_seed: set[BagId] = field(default_factory=set)
    """Bags whose data is here and that the peer has not been told of yet."""
    started: bool = False
    """What an earlier process left half written is cleaned away."""
    in_doubt: bool = False
    """The front may know a pack that agent.db does not; the packer finds out."""

    def wanted(self, bag: Bag) -> int:
        """Replicas that a live bag shall have."""
        return self.settings.policy.replica.replicas if bag.replicas is None else bag.replicas

    def pack_directory(self, bag_id: BagId) -> Path:
        return self.volume / "packs" / bag_id.hex()

    @property
    def paused(self) -> bool:
        """Survives a restart: who stopped the spending has to allow it again."""
        return self.store.note(PAUSED) == "yes"

    @paused.setter
    def paused(self, value: bool) -> None:
        self.store.set_note(PAUSED, "yes" if value else "no")

    @property
    def flushing(self) -> bool:
        return self.clock.now() < self.flush_until

    def heard_from(self, provider: ProviderKey) -> None:
        self.heard[provider] = self.clock.now()

    def others_answered(self, provider: ProviderKey, since: float) -> bool:
        """Did any other provider answer at or after `since`?"""
        return any(key != provider and at >= since for key, at in self.heard.items())
