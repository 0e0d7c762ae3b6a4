"""From what a user types to paths inside the volume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..control import call_sync
from ..errors import NotRunning, UsageError


def volume_paths(volume: Path, words: Sequence[str]) -> list[str]:
    """Paths from the volume's root, without leading slash; none given means the whole volume.

    A word is a path below the mount point (absolute or relative to the current directory). Names are str with
    surrogateescape. Raises UsageError for paths outside the mount, NotRunning without a mount.
    """
    if not words:
        return [""]
    status = call_sync(volume / "run" / "front.sock", "status", who="front", timeout=30.0)
    mount = (status.get("mount") or {}).get("path")
    if not mount:
        raise NotRunning("The volume is not mounted, so paths mean nothing.", hint="Mount it with 'tonfs mount DIR'.")
    out = []
    for word in words:
        absolute = os.path.normpath(os.path.join(os.getcwd(), word))
        if absolute != mount and not absolute.startswith(mount.rstrip("/") + "/"):
            raise UsageError(f"{word} does not lie below the mount point {mount}.")
        out.append(absolute[len(mount) :].strip("/"))
    return out
