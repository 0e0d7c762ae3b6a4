"""`umount DIR && mount DIR`: umount(8) does not wait for the front, so the next one waits for the last."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from ..control import call_sync
from ..errors import TonfsError
from ..fuse import is_mounted

PATIENCE: Final = 30.0
"""Seconds that a front may need to put the last bytes on the disk."""


def wait_for_turn(volume: Path, patience: float = PATIENCE) -> None:
    """Return when no front holds the volume, when the one that does will go on, or after `patience` seconds."""
    end = time.monotonic() + patience
    while is_held(volume) and not _goes_on(volume) and time.monotonic() < end:
        time.sleep(0.02)


def is_held(volume: Path) -> bool:
    """A front has the volume open."""
    try:
        fd = os.open(volume / "run" / "front.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _goes_on(volume: Path) -> bool:
    """It is mounted, or serves S3 only, or has not got that far yet."""
    if is_mounted(volume):
        return True
    try:
        said = call_sync(volume / "run" / "front.sock", "ping", who="front", timeout=2.0)
    except TonfsError:
        return False
    return said["mount"]["path"] is None
