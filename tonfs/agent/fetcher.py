"""Bytes that are no longer here: fetched piece by piece for the front, and local pack data let go.

The peer writes verified pieces straight into the pack's files; the front reads them there when this answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trio

from ..bagfiles import StoredBag
from ..errors import NotFound, Refused, TonfsError, UsageError
from ..ids import BagId
from ..log import get_logger
from .context import Agent
from .placement import State
from .store import Bag

log = get_logger(__name__)

DATA: Final = b"data"
"""The file of a pack's bag that holds the ranges (docs/formats.md)."""


async def fetch(agent: Agent, bag_id: BagId, offset: int, length: int, timeout: float) -> None:
    """Make `[offset, offset + length)` of the pack's data present on disk.

    Raises NotFound for an unknown bag, UsageError for a range outside it, PeerUnreachable and TimedOut.
    """
    bag = agent.store.bag(bag_id)
    if bag is None:
        raise NotFound(f"The agent knows no bag {bag_id.hex()}.")
    directory = agent.pack_directory(bag_id)
    with trio.fail_after(timeout):
        async with agent.locks.hold(bag_id):
            stored = await trio.to_thread.run_sync(_open, bag, directory)
            if stored.header is None:
                await agent.net.fetch(bag_id, directory, [], timeout=timeout)
                stored = await trio.to_thread.run_sync(StoredBag.open, directory)
            try:
                pieces = stored.pieces_for(DATA, offset, length)
            except (KeyError, ValueError):
                raise UsageError(f"Bag {bag_id.hex()} has no bytes {offset}+{length}.") from None
            await agent.net.fetch(bag_id, directory, list(pieces), timeout=timeout)


def _open(bag: Bag, directory: Path) -> StoredBag:
    """The bag on disk; its directory is made anew when it was lost."""
    if (directory / "bag.json").exists():
        return StoredBag.open(directory)
    stored = StoredBag.prepare(directory, bag.bag_id, directory / "files")
    stored.set_info(bag.info)
    return stored


def may_drop(agent: Agent, bag: Bag) -> bool:
    """The last proven copy is never let go: enough placements, each active after an audit that fetched data."""
    wanted = agent.settings.policy.replica.replicas
    good = [p for p in agent.store.placements(bag.bag_id) if p.state is State.ACTIVE and p.audit_pieces > 0]
    return bag.state == "live" and len(good) >= wanted


async def drop_local(agent: Agent, bag_ids: list[BagId]) -> tuple[list[BagId], list[tuple[BagId, str]]]:
    """Delete the local data of these packs where that is safe. Returns (dropped, kept with the reason)."""
    dropped: list[BagId] = []
    kept: list[tuple[BagId, str]] = []
    for bag_id in bag_ids:
        bag = agent.store.bag(bag_id)
        try:
            if bag is None:
                raise NotFound("the agent does not know this bag")
            async with agent.locks.hold(bag_id):
                if not may_drop(agent, bag):
                    raise Refused("not enough audited replicas yet")
                agent.store.set_local(bag_id, False)
                await agent.net.forget(bag_id)
                await trio.to_thread.run_sync(_drop, agent.pack_directory(bag_id))
            dropped.append(bag_id)
        except TonfsError as exc:
            kept.append((bag_id, exc.message))
    if dropped:
        log.info("local pack data dropped", packs=len(dropped))
    return dropped, kept


def _drop(directory: Path) -> None:
    StoredBag.open(directory).drop_data()
