"""`umount DIR && mount DIR`: umount(8) does not wait for the front, so the next one waits for the last."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..control import call_sync
from ..control.pidfile import PidFile
from ..errors import Busy, TonfsError
from ..fuse.mountpoint import free_stuck, where_mounted

PATIENCE: Final = 60.0
"""Seconds that a front may need to put the last bytes on the disk."""
SAY_AFTER: Final = 1.0


def wait_for_turn(volume: Path, patience: float = PATIENCE, say: Callable[[str], None] = lambda _: None) -> None:
    """Return when no front holds the volume. `say` is told when that takes more than a moment. Raises Busy when the one
    that holds it will go on, and after `patience` seconds."""
    if is_held(volume):
        free_stuck(volume)
    begun, said = time.monotonic(), False
    while is_held(volume):
        if (busy := _goes_on(volume)) is not None:
            raise busy
        waited = time.monotonic() - begun
        if waited > patience:
            raise Busy(
                f"The front that had {volume} before is still writing, or files of it are open, after {waited:.0f} s.",
                hint=f"Close what was opened below its mount point; look at {volume / 'log' / 'front.log'}.",
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


def _goes_on(volume: Path) -> Busy | None:
    """It is mounted, here or in another mount name space, or serves S3 only; None: it is about to end."""
    pid = PidFile(volume / "run" / "front.lock").pid()
    if point := where_mounted(volume):
        return Busy(f"The volume {volume} is mounted at {point}.", hint=f"Unmount it first: tonfs umount {point}")
    if pid is not None and (point := where_mounted(volume, pid)):
        return Busy(
            f"The volume {volume} is mounted at {point} in another mount name space, that of process {pid}.",
            hint=f"Unmount it there: nsenter -t {pid} -m umount {point}",
        )
    try:
        said = call_sync(volume / "run" / "front.sock", "ping", who="front", timeout=2.0)
    except TonfsError:
        return None
    if said["mount"]["path"] is not None:
        return None
    return Busy(f"The volume {volume} is in use by process {pid}, which serves S3.", hint="Stop that one first.")
