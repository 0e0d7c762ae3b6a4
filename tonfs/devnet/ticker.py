"""When the next block is made: every interval, sooner after a message, never too soon (reference devnet 1.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from .chain_api import Block, DevnetChain

DEFAULT_INTERVAL: Final = 1.5
SMALLEST_GAP: Final = 1.5
"""Go clients cache the last block for a second and build their wallet messages from it: faster blocks break them."""


class Ticker:
    """Makes blocks: one per `interval` seconds, also empty ones. `hurry()` makes the next one due as soon as 1.5 s
    (or the interval, if that is shorter) have passed since the last."""

    def __init__(
        self, chain: DevnetChain, interval: float = DEFAULT_INTERVAL, *, on_block: Callable[[Block], None] | None = None
    ) -> None:
        self._chain = chain
        self._interval = interval
        self._gap = min(interval, SMALLEST_GAP)
        self._on_block = on_block
        self._hurry = trio.Event()
        self._made = trio.Event()

    @property
    def interval(self) -> float:
        return self._interval

    def hurry(self) -> None:
        """A message waits in the queue."""
        self._hurry.set()

    async def next_block(self) -> Block:
        """The next block, when it is made."""
        await self._made.wait()
        return self._chain.last

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Raises Damaged when the chain's coins do not add up after a block."""
        task_status.started()
        last = trio.current_time()
        while True:
            with trio.move_on_at(last + self._interval):
                await self._hurry.wait()
                await trio.sleep_until(last + self._gap)
            self._hurry = trio.Event()
            last = trio.current_time()
            block = self._chain.tick()
            self._made.set()
            self._made = trio.Event()
            if self._on_block is not None:
                self._on_block(block)
