"""Kernel requests -> volume calls, errors -> errno, mount points."""

from __future__ import annotations

from .mount import Mount
from .mountpoint import (
    FS_TYPE,
    change_flags,
    find_mount,
    free_stuck,
    is_dead,
    mounts,
    prepare,
    real_path,
    tonfs_mount,
    unmount,
    volume_of,
)
from .options import MountOptions, known_options, parse_options

__all__ = [
    "FS_TYPE",
    "Mount",
    "MountOptions",
    "change_flags",
    "find_mount",
    "free_stuck",
    "is_dead",
    "known_options",
    "mounts",
    "parse_options",
    "prepare",
    "real_path",
    "tonfs_mount",
    "unmount",
    "volume_of",
]
