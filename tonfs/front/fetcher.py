"""Bytes that are not here: asked of the agent, read from the pack it fetched them into, put into the content file.

Every wait has a deadline. Read-ahead follows the order in which a pack is read: a large file and a tree of small
files that were packed together look the same from there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from ..errors import Damaged, NotRunning, TimedOut, TonfsError
from ..ids import BagId, Inode, PackId
from ..log import get_logger
from ..volume import RemoteRange, Volume

log = get_logger(__name__)

BLOCK: Final = 256 << 10
"""A file's missing bytes are fetched in blocks of this size, aligned in the file."""
FIRST_WINDOW: Final = 256 << 10
LAST_WINDOW: Final = 4 << 20
SLACK: Final = 1 << 20
"""A read this far behind the last one still counts as sequential."""
PARALLEL: Final = 4
RETRY: Final = 0.5
AGENT_GRACE: Final = 15.0
"""How long a read waits for an agent that does not run (it may be starting again)."""


class AgentLink(Protocol):
    """`ControlClient` satisfies it."""

    async def call(self, method: str, params: dict[str, Any] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
        """Raises NotRunning, TimedOut, or what the agent says."""
        ...


@dataclass
class _Track:
    """How a pack is being read."""

    end: int = 0
    window: int = 0
    ahead: int = 0
    """Read-ahead has been asked for up to here."""
    busy: bool = False


class Fetcher:
    """Run `run` for its life; then `await fetcher(ranges)` makes them local, from any task."""

    def __init__(self, volume: Volume, agent: AgentLink | None, *, deadline: float) -> None:
        self._volume = volume
        self._agent = agent
        self._deadline = deadline
        self._busy: dict[tuple[Inode, int], trio.Event] = {}
        self._limit = trio.CapacityLimiter(PARALLEL)
        self._tracks: dict[PackId, _Track] = {}
        self._nursery: trio.Nursery | None = None
        self.fetched = 0
        """Bytes brought back since the start."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Home of the read-ahead tasks."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def __call__(self, ranges: Sequence[RemoteRange]) -> None:
        """Raises TimedOut at the deadline, NotRunning, PeerUnreachable, Damaged, FsError."""
        if self._agent is None:
            raise NotRunning("The bytes are not on this machine, and the mount is offline.")
        try:
            with trio.fail_after(self._deadline):
                blocks = {
                    (where.inode, number): None
                    for where in ranges
                    for number in range(where.offset // BLOCK, (where.offset + where.length - 1) // BLOCK + 1)
                }
                try:
                    async with trio.open_nursery() as nursery:
                        for inode, number in blocks:
                            nursery.start_soon(self._block, inode, number)
                except BaseExceptionGroup as group:  # `except*` would wrap what it raises before 3.11.4
                    ours, others = group.split(TonfsError)
                    if others is not None or ours is None:
                        raise others or group from None
                    raise _first(ours) from None
        except trio.TooSlowError:
            raise TimedOut(f"The network did not deliver within {self._deadline:g} s.") from None

    async def _block(self, inode: Inode, number: int) -> None:
        """Make one block of a file local; tasks that want the same one wait for the first."""
        key = (inode, number)
        while (busy := self._busy.get(key)) is not None:
            await busy.wait()
        done = self._busy[key] = trio.Event()
        try:
            for where in self._volume.remote_ranges(inode, number * BLOCK, (number + 1) * BLOCK):
                async with self._limit:
                    await self._one(where)
        finally:
            del self._busy[key]
            done.set()

    async def _one(self, where: RemoteRange) -> None:
        await self._ask(where.bag_id, where.pack_offset, where.length)
        data = await trio.to_thread.run_sync(self._from_pack, where)
        self._volume.fill(where, where.offset, data)
        self.fetched += len(data)
        self._look_ahead(where)

    async def _ask(self, bag_id: BagId, offset: int, length: int) -> None:
        """The agent has it on disk when this returns. Tries again while trying can help and the deadline allows."""
        assert self._agent is not None
        params = {"bag_id": bag_id.hex(), "offset": offset, "length": length, "timeout": self._deadline}
        begun = trio.current_time()
        while True:
            try:
                await self._agent.call("fetch", params, timeout=self._deadline)
                return
            except TonfsError as exc:
                missing = isinstance(exc, NotRunning) and trio.current_time() - begun > AGENT_GRACE
                if not exc.transient or missing:
                    raise
                log.debug("fetch is tried again", bag_id=bag_id.hex(), reason=exc.message)
            await trio.sleep(RETRY)

    def _pack_path(self, bag_id: BagId) -> Path:
        return self._volume.directory / "packs" / bag_id.hex() / "files" / "pack" / "data"

    def _from_pack(self, where: RemoteRange) -> bytes:
        path = self._pack_path(where.bag_id)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise Damaged(f"The agent fetched bytes of bag {where.bag_id.hex()}, but {path} says: {exc}.") from None
        try:
            data = os.pread(fd, where.length, where.pack_offset)
        finally:
            os.close(fd)
        if len(data) != where.length:
            raise Damaged(f"The pack file {path} is too short.")
        return data

    # Read-ahead -------------------------------------------------------------------------------------------------

    def _look_ahead(self, where: RemoteRange) -> None:
        """Sequential so far: have the agent fetch what comes next in the pack, twice as much each time."""
        track = self._tracks.setdefault(where.pack, _Track())
        end = where.pack_offset + where.length
        if track.end and -SLACK <= where.pack_offset - track.end <= max(SLACK, track.window):
            track.window = min(max(FIRST_WINDOW, track.window * 2), LAST_WINDOW)
        else:
            track.window, track.ahead = 0, end
        track.end = max(end, track.end) if track.window else end
        size = self._volume.pack_size(where.pack)
        start, stop = max(track.ahead, end), min(end + track.window, size)
        if self._nursery is None or track.busy or stop - start < FIRST_WINDOW // 2:
            return
        track.busy, track.ahead = True, stop
        self._nursery.start_soon(self._ahead, track, where.bag_id, start, stop)

    async def _ahead(self, track: _Track, bag_id: BagId, start: int, stop: int) -> None:
        try:
            with trio.move_on_after(self._deadline):
                await self._ask(bag_id, start, stop - start)
        except TonfsError as exc:
            log.debug("read-ahead failed", bag_id=bag_id.hex(), reason=exc.message)
        finally:
            track.busy = False


def _first(group: BaseExceptionGroup[TonfsError]) -> TonfsError:
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    assert isinstance(inner, TonfsError)
    return inner
