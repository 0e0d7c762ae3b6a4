"""The mount goes first: while it is at work, the S3 door's thread takes a fraction of the interpreter's time.

Both live in one process, and only one thread of it runs Python at a time. Without this, busy clients of the door take
most of that from programs that use the mount.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

GRAIN: Final = 0.0004
"""Seconds of work after which a pause is due."""
PAUSE: Final = 8.0
"""Times as long as the work before it."""
LONGEST: Final = 0.01


class Turns:
    """For one thread. `mount_busy` says whether the mount has just answered a request."""

    def __init__(self, mount_busy: Callable[[], bool]) -> None:
        self._mount_busy = mount_busy
        self._worked: float | None = None
        """The thread's CPU time at the last pause, or when the mount began to be at work; None while it is not."""

    def take(self) -> None:
        """Call often. Pauses the whole thread, all its requests, so that the share is kept however many there are."""
        if not self._mount_busy():
            self._worked = None  # without asking for the CPU time, which costs more than many a step of a request
            return
        now = time.thread_time()
        if self._worked is None:
            self._worked = now
        elif (used := now - self._worked) >= GRAIN:
            time.sleep(min(used * PAUSE, LONGEST))
            self._worked = time.thread_time()
