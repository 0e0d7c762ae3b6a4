"""Verbs that work in the foreground until somebody ends them."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio


async def until_signal(
    said: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """A task for `nursery.start`: `said` is called at the first signal that asks this process to end."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            said()
            return


def run_until_signal(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until it ends, or a signal ends it in order. Raises what it raises."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(until_signal, nursery.cancel_scope.cancel)
            await work()
            nursery.cancel_scope.cancel()

    trio.run(main)
