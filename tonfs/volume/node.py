"""One inode in memory, and how it becomes a row of the index."""

from __future__ import annotations

import stat
from typing import Any, Final

from ..ids import Inode
from .api import Attr
from .schema import DIRTY, IMPLIED

_INT64: Final = (1 << 63) - 1

COLUMNS: Final = "inode, mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, birth, version, changed, flags"
UPSERT: Final = f"INSERT OR REPLACE INTO inode ({COLUMNS}) VALUES ({', '.join('?' * 15)})"


def clamp_time(value: int) -> int:
    """The index keeps 64-bit nanoseconds: years 1678 to 2262; what lies beyond becomes the nearest."""
    return max(-_INT64, min(_INT64, value))


class Node:
    """Mutable inode; touched under the volume's lock only."""

    __slots__ = (
        "atime",
        "birth",
        "blocks",
        "changed",
        "ctime",
        "flags",
        "gen",
        "gid",
        "inode",
        "mode",
        "mtime",
        "nlink",
        "rdev",
        "size",
        "size_gen",
        "uid",
        "unsynced",
        "version",
    )

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.inode: Inode
        self.mode: int
        self.nlink: int
        self.uid: int
        self.gid: int
        self.rdev: int
        self.size: int
        self.blocks: int
        self.atime: int
        self.mtime: int
        self.ctime: int
        self.birth: int
        self.version: int
        self.changed: int
        self.flags: int
        (
            self.inode,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            self.rdev,
            self.size,
            self.blocks,
            self.atime,
            self.mtime,
            self.ctime,
            self.birth,
            self.version,
            self.changed,
            self.flags,
        ) = row
        self.gen = 0
        """Change counter of the volume at the last change of this inode or one of its names."""
        self.size_gen = 0
        """The same for changes that fdatasync must make durable (size, extents, links)."""
        self.unsynced = False
        """The content file has bytes that were not fsynced since this process wrote them."""

    def row(self) -> tuple[int, ...]:
        return (
            self.inode,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            self.rdev,
            self.size,
            self.blocks,
            self.atime,
            self.mtime,
            self.ctime,
            self.birth,
            self.version,
            self.changed,
            self.flags,
        )

    def attr(self, blocks: int) -> Attr:
        return Attr(
            self.inode,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            self.rdev,
            self.size,
            blocks,
            self.atime,
            self.mtime,
            self.ctime,
            self.birth,
            self.version,
            bool(self.flags & IMPLIED),
        )

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def dirty(self) -> bool:
        return bool(self.flags & DIRTY)

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)

    def set(self, flag: int, on: bool = True) -> None:
        self.flags = self.flags | flag if on else self.flags & ~flag
