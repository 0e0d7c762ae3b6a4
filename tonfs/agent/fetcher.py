"""Bytes that are no longer here: fetched piece by piece for the front, and local pack data let go.

The peer writes verified pieces straight into the pack's files; the front reads them there when this answers.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Final

import trio

from ..bagfiles import StoredBag
from ..errors import Damaged, NotFound, Refused, TimedOut, TonfsError, UsageError
from ..ids import BagId
from ..log import get_logger
from . import local
from .context import Agent
from .placement import State
from .store import Bag, Placement

log = get_logger(__name__)

DATA: Final = b"data"
"""The file of a pack's bag that holds the ranges (docs/formats.md)."""
STALE_AFTER: Final = 3600.0
"""An audit older than this, and than three intervals, lets no local data go."""
READ_LEASE: Final = 5.0
"""Seconds for which the front may read what was fetched; a drop and a new fetch would lay the file out anew, sparse."""
DROP_TRIES: Final = 3
"""Pauses of its readers that a drop of a pack waits for; one that is read all the time stays."""


async def fetch(agent: Agent, bag_id: BagId, offset: int, length: int, timeout: float) -> None:
    """Make `[offset, offset + length)` of the pack's data present on disk.

    Raises NotFound for an unknown bag, UsageError for a range outside it, PeerUnreachable when nobody has it,
    TimedOut after `timeout` seconds.
    """
    bag = agent.store.bag(bag_id)
    if bag is None or bag.state == "closed":
        raise NotFound(f"The agent knows no bag {bag_id.hex()}.")
    if offset < 0 or length <= 0:
        raise UsageError(f"There is no range {offset}+{length}.")
    try:
        with trio.fail_after(timeout):
            await _fetch(agent, bag, offset, length)
    except trio.TooSlowError:
        raise TimedOut(f"Bag {bag_id.hex()} did not come within {timeout:g} s.") from None


async def _fetch(agent: Agent, bag: Bag, offset: int, length: int) -> None:
    directory = agent.pack_directory(bag.bag_id)
    await local.make_ready(agent, bag)
    for attempt in range(2):
        try:
            async with agent.locks.shared(bag.bag_id):
                await _fetch_missing(agent, bag, offset, length)
                agent.being_read[bag.bag_id] = trio.current_time() + READ_LEASE
            if local.pack_file(directory).exists():
                return
            reason = "the pack's data file is not there"
        except (NotFound, Damaged) as exc:
            reason = exc.message
        if attempt == 0:  # the notes on disk say more than there is
            await local.lost(agent, bag, reason)
    raise Damaged(f"Bag {bag.bag_id.hex()} cannot be kept in {directory}: {reason}.")


async def _fetch_missing(agent: Agent, bag: Bag, offset: int, length: int) -> None:
    directory = agent.pack_directory(bag.bag_id)
    pieces = await trio.to_thread.run_sync(_missing, bag, directory, offset, length)
    if pieces is None:
        await agent.net.fetch(bag.bag_id, directory, [], timeout=_left())
        pieces = await trio.to_thread.run_sync(_missing, bag, directory, offset, length)
    if pieces:
        await agent.net.fetch(bag.bag_id, directory, pieces, timeout=_left())


def _left() -> float:
    """Seconds until the deadline that is in force."""
    left = trio.current_effective_deadline() - trio.current_time()
    return 3600.0 if math.isinf(left) else max(0.0, left)


def _missing(bag: Bag, directory: Path, offset: int, length: int) -> list[int] | None:
    """Pieces of the range that are not here; None while the header is not known. Raises UsageError."""
    with contextlib.closing(StoredBag.open(directory)) as stored:
        if stored.header is None:
            return None
        entry = stored.header.file(DATA)
        if entry is None or offset + length > entry.size:
            raise UsageError(f"Bag {bag.bag_id.hex()} has no bytes {offset}+{length}.")
        return [piece for piece in stored.pieces_for(DATA, offset, length) if not stored.have(piece)]


def is_replica(placement: Placement) -> bool:
    """Does this placement count as a copy: active, and its last audit brought data?"""
    return placement.state is State.ACTIVE and placement.audit_pieces > 0


def _check_may_drop(agent: Agent, bag_id: BagId) -> None:
    """The last proven copy is never let go: enough replicas, each audited not long ago. Raises NotFound, Refused."""
    bag = agent.store.bag(bag_id)
    if bag is None:
        raise NotFound("the agent does not know this bag")
    policy, now = agent.settings.policy, agent.clock.now()
    oldest = now - max(STALE_AFTER, 3 * policy.audit.interval)
    good = [p for p in agent.store.placements(bag.bag_id) if is_replica(p) and oldest <= (p.audit_at or 0.0) <= now]
    if bag.state != "live" or len(good) < agent.wanted(bag):
        raise Refused("not enough audited replicas yet")


async def drop_local(agent: Agent, bag_ids: list[BagId]) -> tuple[list[BagId], list[tuple[BagId, str]]]:
    """Delete the local data of these packs where that is safe. Returns (dropped, kept with the reason).

    Those that are being read wait for a pause of their readers, who go on meanwhile.
    """
    dropped: list[BagId] = []
    kept: list[tuple[BagId, str]] = []
    left = list(dict.fromkeys(bag_ids))
    for _ in range(DROP_TRIES):
        await trio.sleep_until(max((agent.being_read.get(bag_id, 0.0) for bag_id in left), default=0.0))
        busy: list[BagId] = []
        for bag_id in left:
            try:
                (dropped if await _drop_unread(agent, bag_id) else busy).append(bag_id)
            except TonfsError as exc:
                kept.append((bag_id, exc.message))
        left = busy
    kept.extend((bag_id, "it is being read") for bag_id in left)
    if dropped:
        log.info("local pack data dropped", packs=len(dropped))
    return dropped, kept


async def _drop_unread(agent: Agent, bag_id: BagId) -> bool:
    """Did the pack's data go? Not while the front may read it. Raises NotFound, Refused."""
    async with agent.locks.alone(bag_id):
        if agent.being_read.get(bag_id, 0.0) > trio.current_time():
            return False
        agent.being_read.pop(bag_id, None)
        _check_may_drop(agent, bag_id)
        await agent.net.forget(bag_id)
        agent.to_seed.add(bag_id)  # again, should an audit have failed meanwhile
        _check_may_drop(agent, bag_id)
        agent.to_seed.discard(bag_id)
        agent.store.set_local(bag_id, False)  # before the data goes: a crash must not promise what is gone
        await trio.to_thread.run_sync(_drop, agent.pack_directory(bag_id))
        return True


def _drop(directory: Path) -> None:
    with contextlib.closing(StoredBag.open(directory)) as stored:
        stored.drop_data()
