"""The loop gate: what pyfuse3's workers wait on, without a scheduler pass for every request.

pyfuse3's workers read requests one after the other under a `trio.Lock`, after `trio.lowlevel.wait_readable`. Both go
through trio's scheduler and epoll each time, which is most of what a small request costs (reference fuse.md, 3).
pyfuse3 looks `trio` up in its own module whenever it needs it; `install` puts a stand-in there:

* `Lock` becomes a gate. Entering it when it is open costs nothing, leaving it wakes nobody.
* `wait_readable` asks the kernel first (`poll`). Where the kernel runs program and server on one processor, one after
  the other, the next request is there by then. Where each has its own, it comes within a few microseconds, and asking
  again for `SPIN` seconds costs less than to go to sleep and be woken, much less in a virtual machine. A longer gap,
  as programs have that also compute, is slept through in `poll`, with the interpreter let go. Only when nothing comes
  for `PATIENCE`, or when other tasks are due their turn, does it go through the scheduler.
* When a handler suspends (a thread, the network), another worker must take over reading: an instrument looks after
  every step of a task whether the gate stands open, and wakes one that waits before it.
"""

from __future__ import annotations

import select
import time
import types
from collections.abc import Callable
from typing import Any, Final

import pyfuse3
import trio

BURST: Final = 64
"""Requests in a row before other tasks get their turn."""
SLICE: Final = 0.002
"""Seconds of requests in a row before other tasks get their turn."""
SPIN: Final = 50e-6
"""Seconds to ask again and again before sleeping."""
PATIENCE: Final = 1
"""Milliseconds to sleep until the next request before other tasks get their turn."""
RECENT: Final = 0.004
"""Seconds after a request in which the next one of the same program is to be expected."""
WORKERS: Final = 200
"""Requests that may wait for disk or network at the same time. One is made when all others are at work, and stays:
with room for fewer idle ones, pyfuse3 would end and start workers all the time."""


class Gate(trio.abc.Instrument):
    """One for a session. `suspended` says whether a request waits for disk or network: its end comes through the
    scheduler, and must not wait for our patience."""

    def __init__(self, suspended: Callable[[], bool] = lambda: False) -> None:
        self._suspended = suspended
        self._taken = False
        self._waiting: list[trio.lowlevel.Task] = []
        self.entered = 0
        self.at_once = 0
        """Requests that were read without a pass through the scheduler."""
        self._in_a_row = 0
        self._since = 0.0
        self._asked = -1e12
        """When a request was last done."""
        self._asker = select.poll()
        self._fd = -1
        self._ask: Callable[[int], Any] = self._asker.poll

    # In the place of trio.Lock ----------------------------------------------------------------------------------

    async def __aenter__(self) -> None:
        while self._taken:
            await self._park()
        self._taken = True
        self.entered += 1

    async def __aexit__(self, *exc: object) -> None:
        self._taken = False

    async def _park(self) -> None:
        task = trio.lowlevel.current_task()
        self._waiting.append(task)

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """The last that came is the first to go: its buffers are warm, the others' were perhaps never used."""
        if self._waiting and not self._taken:
            trio.lowlevel.reschedule(self._waiting.pop())

    # In the place of trio.lowlevel.wait_readable ------------------------------------------------------------------

    def busy(self) -> bool:
        """A request came within the last moment. From any thread."""
        return time.perf_counter() - self._asked < RECENT

    async def wait_readable(self, fd: int) -> None:
        """Returns when a request can be read. Raises trio.ClosedResourceError after `notify_closing`."""
        if fd != self._fd:
            self._fd = fd
            self._asker.register(fd, select.POLLIN)
        now = self._asked = time.perf_counter()
        if self._in_a_row < BURST and now - self._since < SLICE and self._comes_soon(now):
            self._in_a_row += 1
            self.at_once += 1
            return
        await trio.lowlevel.wait_readable(fd)
        self._in_a_row = 0
        self._since = time.perf_counter()

    def _comes_soon(self, now: float) -> bool:
        if self._ask(0):
            return True
        if self._suspended():
            return False
        until = now + SPIN
        while time.perf_counter() < until:
            if self._ask(0):
                return True
        return bool(self._ask(PATIENCE))


class _StandIn(types.ModuleType):
    """A module with some names replaced; all others are those of the original."""

    def __init__(self, original: types.ModuleType, **replaced: Any) -> None:
        super().__init__(original.__name__)
        self._original = original
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def install(gate: Gate) -> bool:
    """Put the gate into pyfuse3, inside the event loop, before `pyfuse3.main`. False where this pyfuse3 does not
    look up `trio` as ours does: its own loop serves then, just slower."""
    if getattr(pyfuse3, "trio", None) is not trio:
        return False
    lowlevel = _StandIn(trio.lowlevel, wait_readable=gate.wait_readable)
    pyfuse3.__dict__["trio"] = _StandIn(trio, Lock=lambda: gate, lowlevel=lowlevel)
    trio.lowlevel.add_instrument(gate)
    return True


def remove(gate: Gate) -> None:
    """Undo `install`."""
    pyfuse3.__dict__["trio"] = trio
    trio.lowlevel.remove_instrument(gate)
