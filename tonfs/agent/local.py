"""The packs on this disk: seeding them, noticing that one was lost, making room for what is fetched again.

A pack's directory may vanish or be damaged by something that is not tonfs. The bag lives on at its providers: it is
audited, repaired and read from there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from ..bagfiles import StoredBag
from ..errors import BadData, Damaged, NotFound, Refused, TonfsError
from ..log import get_logger
from .context import Agent
from .placement import State
from .store import Bag, Placement

log = get_logger(__name__)

SEEDING: Final = "seeding"


def pack_file(directory: Path) -> Path:
    """The file of a pack's bag that holds the ranges (docs/formats.md, "Pack")."""
    return directory / "files" / "pack" / "data"


def data_here(agent: Agent, bag: Bag) -> bool:
    """Is the whole pack on this disk, as far as can be seen without reading it?"""
    directory = agent.pack_directory(bag.bag_id)
    return bag.local and (directory / "bag.json").exists() and pack_file(directory).exists()


def has_copy(agent: Agent, bag: Bag, placements: Collection[Placement]) -> bool:
    """Can a new provider get the data from somewhere: from us, or from one that passes its audits?"""
    return data_here(agent, bag) or any(p.state is State.ACTIVE for p in placements)


async def seed_pending(agent: Agent) -> None:
    """Tell the peer of every bag that waits for it; those whose files are gone or damaged are marked as not here."""
    for bag_id in list(agent.to_seed):
        bag = agent.store.bag(bag_id)
        if bag is not None and bag.state == "live" and bag.local:
            try:
                await agent.net.seed(bag_id, agent.pack_directory(bag_id))
            except (NotFound, BadData, Damaged, Refused) as exc:
                await lost(agent, bag, exc.message)
            except TonfsError as exc:
                agent.problems.report(SEEDING, exc)
                return
        agent.to_seed.discard(bag_id)
    agent.problems.clear(SEEDING)


async def lost(agent: Agent, bag: Bag, reason: str) -> None:
    """The pack on this disk is gone or damaged: from now on the bag is one that others hold."""
    log.warning("a pack is not on this disk any more", bag_id=bag.bag_id.hex(), reason=reason)
    agent.store.set_local(bag.bag_id, False)
    async with agent.locks.alone(bag.bag_id):
        await agent.net.forget(bag.bag_id)
        await trio.to_thread.run_sync(_take_stock, bag, agent.pack_directory(bag.bag_id))


def _take_stock(bag: Bag, directory: Path) -> None:
    """What is no longer there counts as missing from now on."""
    with opened(bag, directory) as stored:
        if stored.header is None or not pack_file(directory).exists():
            stored.verify()


async def make_ready(agent: Agent, bag: Bag) -> None:
    """There is a directory that pieces can be checked and written with, if need be without any data."""
    directory = agent.pack_directory(bag.bag_id)
    if not (directory / "bag.json").exists():
        async with agent.locks.alone(bag.bag_id):
            await agent.net.forget(bag.bag_id)
            await trio.to_thread.run_sync(_prepare, bag, directory)


def _prepare(bag: Bag, directory: Path) -> None:
    with opened(bag, directory):
        pass


@contextmanager
def opened(bag: Bag, directory: Path) -> Iterator[StoredBag]:
    """The bag on disk; made anew when it is not there. A directory that cannot be used is moved aside, not deleted."""
    try:
        stored = StoredBag.prepare(directory, bag.bag_id)
    except (Damaged, Refused) as exc:
        aside = _aside(directory)
        log.warning("a damaged pack is moved aside", directory=str(directory), to=aside.name, reason=exc.message)
        os.rename(directory, aside)
        stored = StoredBag.prepare(directory, bag.bag_id)
    with contextlib.closing(stored):
        stored.set_info(bag.info)
        yield stored


def _aside(directory: Path) -> Path:
    number = 1
    while (path := directory.with_name(f"{directory.name}.damaged-{number}")).exists():
        number += 1
    return path
