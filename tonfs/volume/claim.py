"""A volume belongs to one process at a time: whoever holds the lock of `run/front.lock`."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import Busy, NotFound
from ..system import from_os


def claim(directory: Path) -> int:
    """Lock the volume for this process; the descriptor keeps it. Raises Busy, NotFound."""
    run = directory / "run"
    if not directory.is_dir():
        raise NotFound(f"There is no volume at {directory}.", hint="Make one with 'tonfs init'.")
    try:
        run.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(run / "front.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise from_os(exc) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise Busy(
            f"The volume {directory} is in use by another process.", hint="Unmount it first ('tonfs umount DIR')."
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
