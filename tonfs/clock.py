"""Time is injected: nothing below reads the host's clock except `SystemClock`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """UTC seconds since 1970. Durations and deadlines inside trio code use `trio.current_time()` instead."""

    def now(self) -> float: ...


class SystemClock:
    """The host's clock."""

    def now(self) -> float:
        return time.time()


class ManualClock:
    """A clock that tests set, or that follows another (`ManualClock(base=trio.current_time)`)."""

    def __init__(self, start: float = 1_700_000_000.0, base: Callable[[], float] | None = None) -> None:
        self._offset = start
        self._base = base

    def now(self) -> float:
        return self._offset + (self._base() if self._base is not None else 0.0)

    def advance(self, seconds: float) -> None:
        self._offset += seconds


def rfc3339(seconds: float | None) -> str | None:
    """UTC seconds as `2026-11-23T08:47:29Z`; None stays None."""
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
