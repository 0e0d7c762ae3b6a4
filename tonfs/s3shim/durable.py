"""One commit for all requests that wait for one: the disk is asked once, and one thread does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .door import Slow


class GroupCommit:
    """`await commit()` returns when everything that was done before the call is durable. Lives in one asyncio loop."""

    def __init__(self, commit: Callable[[], None], slow: Slow) -> None:
        self._commit = commit
        self._slow = slow
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Raises what the volume's commit raises."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        await done

    async def _work(self) -> None:
        """Who comes while a commit is under way goes with the next one: that one began too early for him."""
        while self._waiting:
            group, self._waiting = self._waiting, []
            error: BaseException | None = None
            try:
                await self._slow(self._commit)
            except BaseException as exc:
                error = exc
            for done in group:
                if done.done():
                    continue  # the client went away
                if error is None:
                    done.set_result(None)
                elif isinstance(error, asyncio.CancelledError):
                    done.cancel()
                else:
                    done.set_exception(error)
        self._task = None
