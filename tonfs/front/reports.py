"""What stands behind `.tonfs/`: reports of front and agent together, and the few commands given there."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import trio

from ..control import report
from ..errors import FsError, NotRunning, TimedOut, TonfsError
from ..ids import Inode
from ..log import get_logger
from ..volume import Volume
from ..volume.api import Fetch
from .fetcher import AgentLink
from .methods import Methods

log = get_logger(__name__)

AGENT_TIMEOUT: Final = 5.0
CHUNK: Final = 1 << 20


class Reports:
    """`tonfs.fuse.virtual.Reports` for a front. `deadline`: seconds that a command may take."""

    def __init__(
        self, volume: Volume, network: str, methods: Methods, agent: AgentLink | None, fetch: Fetch, deadline: float
    ) -> None:
        self._volume = volume
        self._network = network
        self._methods = methods
        self._agent = agent
        self._fetch = fetch
        self._deadline = deadline
        self._commands: Mapping[str, Callable[[Inode], Awaitable[None]]] = {"evict": self._evict, "fetch": self._bring}

    async def report(self, name: str) -> Mapping[str, Any]:
        front = await self._methods.status({})
        whole = report.status(self._volume.directory, self._network, front, await self._ask_agent())
        body = {
            "status": lambda: whole,
            "queue": lambda: report.queue(whole),
            "providers": lambda: {"providers": whole["providers"]},
        }[name]()
        return {"schema": f"tonfs.{name}/1", **body}

    async def why(self, inode: Inode) -> Mapping[str, Any]:
        front = await self._methods.explain(inode)
        return {"schema": "tonfs.why/1", **report.why(front, await self._ask_agent())}

    async def _ask_agent(self) -> dict[str, Any] | None:
        if self._agent is None:
            return None
        try:
            return await self._agent.call("status", timeout=AGENT_TIMEOUT)
        except (NotRunning, TimedOut):
            return None

    async def command(self, name: str, value: bytes, inode: Inode | None) -> None:
        """`evict` and `fetch` below `.tonfs/why`; `flush`, `pause` and `resume` on `.tonfs` go to the agent.

        Raises FsError(EOPNOTSUPP) for other names, FsError(ETIMEDOUT) when it is not done in time (repeat it then).
        """
        with trio.move_on_after(self._deadline):
            if inode is None and name in ("flush", "pause", "resume"):
                if self._agent is None:
                    raise FsError("This front has no agent.", errno.EOPNOTSUPP)
                await self._agent.call(name, timeout=self._deadline)
            elif inode is not None and name in self._commands:
                await self._commands[name](inode)
            else:
                raise FsError(f"There is no command {name!r} here.", errno.EOPNOTSUPP)
            log.info("command from the mount", command=name, inode=inode)
            return
        raise FsError(f"The command {name!r} is not done yet; repeat it.", errno.ETIMEDOUT)

    async def _files(self, inode: Inode) -> list[Inode]:
        found = await trio.to_thread.run_sync(self._volume.files_below, inode, abandon_on_cancel=True)
        return list(dict.fromkeys(number for number, _, _ in found))

    async def _evict(self, inode: Inode) -> None:
        """As `tonfs evict`. FsError(EBUSY) when not one byte could go."""
        files = await self._files(inode)
        done = await trio.to_thread.run_sync(partial(self._volume.evict, files), abandon_on_cancel=True)
        if done.bags and self._agent is not None:
            params = {"bag_ids": [bag.hex() for bag in done.bags]}
            try:
                await self._agent.call("drop_local", params, timeout=self._deadline)
            except TonfsError as exc:  # the front's copies went; the agent lets go of its own later
                log.warning("the agent keeps its packs for now", reason=exc.message)
        if done.kept and not done.files:
            raise FsError(f"{os.fsdecode(self._volume.path_of(inode))} stays: {done.kept[0][1]}.", errno.EBUSY)

    async def _bring(self, inode: Inode) -> None:
        """As `tonfs fetch`."""
        for number in await self._files(inode):
            offset = 0
            while True:
                result = await trio.to_thread.run_sync(self._volume.read, number, offset, CHUNK)
                if result.missing:
                    await self._fetch(result.missing)
                    continue
                offset += CHUNK
                if offset >= result.size:
                    break
