"""Settled files become packs, packs become bags.

The front says which ranges live only here; they are copied into a pack whose bag is computed while it is written; the
front then commits the extents, unless a file changed meanwhile: then it stays dirty and is packed again later.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from ..bag import TorrentInfo
from ..bagfiles import StoredBag, WrittenPack, write_pack
from ..bagfiles.pack import PackInput, clean_drafts
from ..clock import rfc3339
from ..errors import BadPacket, Damaged, NotFound, Refused, Stale, TonfsError
from ..ids import BagId, Inode
from ..log import get_logger
from . import local
from .context import Agent
from .wire import KnownPack, front_bag, known_packs

log = get_logger(__name__)

TICK: Final = 1.0
LONGEST_PAUSE: Final = 60.0
COMMIT_TIMEOUT: Final = 60.0
ORPHAN_AGE: Final = 3600.0
"""Seconds after which a pack that the front does not know is deleted."""
WRITTEN: Final = "written "
"""Notes of this name and a BagID: a pack that was written and whose commit was not answered yet."""
PROBLEM: Final = "packer"


@dataclass(frozen=True)
class Work:
    """What the front offered to pack."""

    entries: tuple[PackInput, ...]
    bytes: int
    replicas: int | None
    """What is said for all of these; None: the volume's number."""
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
                ranges=tuple((int(offset), int(length)) for offset, length in f["ranges"]),
                sources=tuple((Path(str(path)), int(offset)) for path, offset in f["sources"]),
            )
            for f in reply["files"]
        )
        oldest, replicas = reply["oldest"], reply["replicas"]
        return Work(
            entries,
            sum(length for e in entries for _, length in e.ranges),
            None if replicas is None else int(replicas),
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
    """Run for ever: pack what is due; look again each second or when nudged, less often while the disk is full."""
    agent.to_seed.update(bag.bag_id for bag in agent.store.bags("live") if bag.local)
    agent.in_doubt = True
    failures = 0
    while True:
        packed = False
        try:
            if agent.in_doubt:
                await reconcile(agent)
                agent.in_doubt = False
            await local.seed_pending(agent)
            if not agent.paused:
                packed = await pack_once(agent)
        except Stale as exc:
            log.debug("packing is tried again", reason=exc.message)
        except TonfsError as exc:
            failures += 0 if exc.transient else 1
            agent.problems.report(PROBLEM, exc)
        except OSError as exc:
            failures += 1
            agent.problems.report(PROBLEM, TonfsError(f"A pack could not be written: {exc.strerror}."))
        else:
            failures = 0
            agent.problems.clear(PROBLEM)
        if not packed:
            await agent.pack_now.wait(min(TICK * 2.0 ** min(failures, 10), LONGEST_PAUSE))


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
    agent.in_doubt = True  # until the front's answer was recorded, nobody knows whose this pack is
    agent.store.set_note(WRITTEN + written.bag.bag_id.hex(), str(now))
    await _adopt(agent, written, now, work.replicas)
    agent.store.delete_note(WRITTEN + written.bag.bag_id.hex())
    agent.in_doubt = False
    return True


async def _adopt(agent: Agent, written: WrittenPack, now: float, replicas: int | None) -> None:
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
        agent.store.add_bag(bag, info.to_boc(), info.file_size, committed, now, replicas)
        log.info("pack sealed", bag_id=bag.hex(), files=committed, stale=len(reply["stale"]), size=info.file_size)
        agent.to_seed.add(bag)
        await local.seed_pending(agent)
        agent.replicate_now.set()
    elif agent.store.bag(bag) is None:
        log.info("pack dropped, all its files changed meanwhile", bag_id=bag.hex())
        await _throw_away(agent, bag)


async def _throw_away(agent: Agent, bag: BagId) -> None:
    """A pack that no file needs: the front forgets it first, and may say that it is needed after all (Refused)."""
    with contextlib.suppress(NotFound):
        await agent.front.call("drop_pack", {"bag_id": bag.hex()})
    await trio.to_thread.run_sync(partial(shutil.rmtree, agent.pack_directory(bag), ignore_errors=True))


async def reconcile(agent: Agent) -> None:
    """Make agent.db and the packs on disk agree with the front, which knows what files need.

    Between the front's commit and ours there may have been a crash, or an answer that did not come.
    """
    packs = agent.volume / "packs"
    if not agent.started:
        await trio.to_thread.run_sync(clean_drafts, packs)
        agent.started = True
    known = known_packs(await agent.front.call("packs"))
    for bag, pack in known.items():
        row = agent.store.bag(bag)
        if row is not None and row.state != "closed":
            continue
        if pack.live == 0:
            with contextlib.suppress(Refused):
                await _throw_away(agent, bag)
                agent.problems.clear(_key(bag))
        else:
            await _take_over(agent, bag, pack)
    await _sweep(agent, known)


async def _sweep(agent: Agent, known: Collection[BagId]) -> None:
    """Delete packs that we wrote and the front never took. Only old ones: a commit may still be on its way."""
    for name, written_at in agent.store.notes(WRITTEN).items():
        bag = front_bag(name.removeprefix(WRITTEN))
        row = agent.store.bag(bag)
        if bag not in known and (row is None or row.state == "closed"):
            if agent.clock.now() - float(written_at) < ORPHAN_AGE:
                continue
            log.info("a pack that no file needs is deleted", bag_id=bag.hex())
            await trio.to_thread.run_sync(partial(shutil.rmtree, agent.pack_directory(bag), ignore_errors=True))
        agent.store.delete_note(name)


async def _take_over(agent: Agent, bag: BagId, pack: KnownPack) -> None:
    """A pack that files need and that agent.db does not know."""
    key = _key(bag)
    try:
        info = await trio.to_thread.run_sync(_info_on_disk, agent.pack_directory(bag))
    except TonfsError as exc:
        text = f"{pack.files} files need the pack {bag.hex()[:12]}, which agent.db does not know: {exc.message}"
        agent.problems.report(key, Damaged(text))
        return
    agent.problems.clear(key)
    replicas = pack.replicas(agent.settings.policy.replica.replicas)
    agent.store.add_bag(bag, info.to_boc(), info.file_size, pack.files, agent.clock.now(), replicas)
    agent.to_seed.add(bag)
    log.info("pack taken over", bag_id=bag.hex(), files=pack.files)


def _key(bag: BagId) -> str:
    return f"pack {bag.hex()[:12]}"


def _info_on_disk(directory: Path) -> TorrentInfo:
    with contextlib.closing(StoredBag.open(directory)) as stored:
        if stored.info is None or stored.header is None:
            raise Damaged(f"The description of the bag in {directory} is not complete.")
        return stored.info
