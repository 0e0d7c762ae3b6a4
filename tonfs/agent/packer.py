"""Settled files become packs, packs become bags.

The front says which ranges live only here; they are copied into a pack whose bag is computed while it is written; the
front then commits the extents, unless a file changed meanwhile: then it stays dirty and is packed again later.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from ..bagfiles import StoredBag, WrittenPack, write_pack
from ..bagfiles.pack import PackInput, clean_drafts
from ..clock import rfc3339
from ..errors import BadPacket, Damaged, TonfsError
from ..ids import Inode
from ..log import get_logger
from .context import Agent
from .wire import front_bag

log = get_logger(__name__)

TICK: Final = 1.0
COMMIT_TIMEOUT: Final = 60.0


@dataclass(frozen=True)
class Work:
    """What the front offered to pack."""

    entries: tuple[PackInput, ...]
    bytes: int
    oldest: float | None
    """When the oldest settled file became dirty, UTC seconds."""
    more: bool


def parse_work(reply: dict[str, Any]) -> Work:
    """The front's answer to `dirty`. Raises BadPacket."""
    try:
        entries = tuple(
            PackInput(
                inode=Inode(int(f["inode"])),
                version=int(f["version"]),
                path=str(f["path"]),
                mode=int(f["mode"]),
                mtime_ns=int(f["mtime_ns"]),
                size=int(f["size"]),
                content=Path(str(f["content"])),
                ranges=tuple((int(offset), int(length)) for offset, length in f["ranges"]),
            )
            for f in reply["files"]
        )
        oldest = reply["oldest"]
        return Work(
            entries,
            sum(length for e in entries for _, length in e.ranges),
            None if oldest is None else float(oldest),
            bool(reply["more"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise BadPacket(f"The front's list of dirty files is malformed: {exc!r}") from None


def is_due(work: Work, now: float, *, target: int, deadline: float, flushing: bool) -> bool:
    """Is this a pack worth sealing: full, waited for, or asked for?"""
    if not work.entries:
        return False
    if work.more or work.bytes >= target or flushing:
        return True
    return work.oldest is not None and now - work.oldest >= deadline


async def packer(agent: Agent) -> None:
    """Run for ever: pack what is due; look again each second or when nudged."""
    while True:
        packed = False
        if not agent.paused:
            try:
                packed = await pack_once(agent)
                agent.problems.pop("packer", None)
            except TonfsError as exc:
                agent.problems["packer"] = exc.message
                log.debug("packing did not work this time", reason=exc.message)
            except OSError as exc:
                agent.problems["packer"] = f"A pack could not be written: {exc.strerror}."
        if not packed:
            await agent.pack_now.wait(TICK)


async def pack_once(agent: Agent) -> bool:
    """Make one pack if one is due. Returns whether one was made."""
    policy = agent.settings.policy.pack
    params = {"settle": policy.settle, "limit_bytes": policy.target_size, "force": agent.flushing}
    work = parse_work(await agent.front.call("dirty", params))
    now = agent.clock.now()
    if not is_due(work, now, target=policy.target_size, deadline=policy.deadline, flushing=agent.flushing):
        return False
    stamp = rfc3339(now) or ""
    write = partial(write_pack, agent.volume / "packs", work.entries, created=stamp)
    written = await trio.to_thread.run_sync(write)
    await _adopt(agent, written, now)
    return True


async def _adopt(agent: Agent, written: WrittenPack, now: float) -> None:
    """Have the front commit the pack's extents, then seed it and find providers for it."""
    stored, bag = written.bag, written.bag.bag_id
    info = stored.info
    stored.close()
    if info is None:
        raise Damaged(f"The pack {bag.hex()} was written without its description.")
    params = {
        "bag_id": bag.hex(),
        "size": written.manifest.data_size,
        "extents": [
            {"inode": e.inode, "version": e.version, "ranges": [list(r) for r in e.ranges]} for e in written.extents
        ],
    }
    reply = await agent.front.call("commit_pack", params, timeout=COMMIT_TIMEOUT)
    committed = len(reply["committed"])
    if committed:
        agent.store.add_bag(bag, info.to_boc(), info.file_size, committed, now)
        log.info("pack sealed", bag_id=bag.hex(), files=committed, stale=len(reply["stale"]), size=info.file_size)
        await agent.net.seed(bag, agent.pack_directory(bag))
        agent.replicate_now.set()
    elif agent.store.bag(bag) is None:
        log.info("pack dropped, all its files changed meanwhile", bag_id=bag.hex())
        await trio.to_thread.run_sync(partial(shutil.rmtree, agent.pack_directory(bag), ignore_errors=True))


async def reconcile(agent: Agent) -> None:
    """After a start: adopt packs that the front knows and agent.db does not (a crash between the two), and seed."""
    clean_drafts(agent.volume / "packs")
    reply = await agent.front.call("packs")
    for pack in reply["packs"]:
        bag = front_bag(pack["bag_id"])
        directory = agent.pack_directory(bag)
        if agent.store.bag(bag) is None and directory.exists():
            stored = StoredBag.open(directory)
            if stored.info is not None:
                size, files = stored.info.file_size, int(pack["files"])
                agent.store.add_bag(bag, stored.info.to_boc(), size, files, agent.clock.now())
            stored.close()
    for row in agent.store.bags("live"):
        if row.local:
            await agent.net.seed(row.bag_id, agent.pack_directory(row.bag_id))
