"""`umount DIR && mount DIR`: umount(8) does not wait for the front, so the next one waits for the last."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..control import call_sync
from ..control.pidfile import PidFile
from ..errors import Busy, TonfsError
from ..fuse import is_mounted

PATIENCE: Final = 60.0
"""Seconds that a front may need to put the last bytes on the disk."""
SAY_AFTER: Final = 1.0


def wait_for_turn(volume: Path, patience: float = PATIENCE, say: Callable[[str], None] = lambda _: None) -> None:
    """Return when no front holds the volume, or when the one that does will go on (opening the volume then says so).
    `say` is told when that takes more than a moment. Raises Busy after `patience` seconds."""
    begun, said = time.monotonic(), False
    while is_held(volume) and not _goes_on(volume):
        waited = time.monotonic() - begun
        if waited > patience:
            raise Busy(
                f"The front that had {volume} before is still writing, after {waited:.0f} s.",
                hint=f"Look at {volume / 'log' / 'front.log'}.",
            )
        if waited > SAY_AFTER and not said:
            said = True
            say(f"The front that had {volume} before is still writing it to the disk; waiting for it …")
        time.sleep(0.02)


def is_held(volume: Path) -> bool:
    """A front has the volume open."""
    try:
        return PidFile(volume / "run" / "front.lock").held()
    except OSError:  # who opens the volume says why
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
