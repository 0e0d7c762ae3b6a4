"""Kernel requests -> volume calls, errors -> errno, mount points."""

from __future__ import annotations

from .mount import Mount
from .mountpoint import FS_TYPE, find_mount, is_dead, prepare, real_path, unmount, volume_of
from .options import MountOptions, parse_options

__all__ = [
    "FS_TYPE",
    "Mount",
    "MountOptions",
    "find_mount",
    "is_dead",
    "parse_options",
    "prepare",
    "real_path",
    "unmount",
    "volume_of",
]
