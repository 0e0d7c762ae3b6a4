"""A file that says which process does something, locked for as long as it does: one that a killed process left behind
says nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import Busy

ATTEMPTS: Final = 5
"""`held` takes the lock for a moment to look."""


class PidFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def lock(self, what: str, hint: str) -> Iterator[None]:
        """Hold it. Raises Busy ("`what` (process N).", `hint`) when another process does, OSError."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _flock(descriptor):
                raise Busy(f"{what} (process {self.pid() or 'unknown'}).", hint=hint)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
            yield
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def held(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def pid(self) -> int | None:
        """Of the process that holds it, or that was killed when it did."""
        try:
            return int(self.path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None


def up_file(volume: Path) -> PidFile:
    """Held by the `tonfs up` of a volume."""
    return PidFile(volume / "run" / "up.pid")


def _flock(descriptor: int) -> bool:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.05)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
