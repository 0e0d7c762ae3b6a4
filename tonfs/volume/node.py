"""One inode in memory, and how it becomes a row of the index."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any, Final

from ..ids import Inode
from .api import Attr
from .schema import CONTENT, DIRTY, IMPLIED, SEGMENTED

if TYPE_CHECKING:
    from .folder import Folder
    from .segments import Segment

_INT64: Final = (1 << 63) - 1

COLUMNS: Final = (
    "inode, mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, birth, version, changed, flags, blob, safe"
)


def clamp_time(value: int) -> int:
    """The index keeps 64-bit nanoseconds: years 1678 to 2262; what lies beyond becomes the nearest."""
    return max(-_INT64, min(_INT64, value))


class Node:
    """Mutable inode; touched under the volume's lock only."""

    __slots__ = (
        "atime",
        "birth",
        "blob",
        "blocks",
        "changed",
        "ctime",
        "data",
        "data_changed",
        "flags",
        "folder",
        "gen",
        "gid",
        "indexed",
        "inode",
        "kept",
        "kept_gen",
        "mode",
        "mtime",
        "nlink",
        "parent",
        "rdev",
        "record",
        "record_changed",
        "safe",
        "segments",
        "shrunk",
        "size",
        "size_gen",
        "stored",
        "syncs",
        "uid",
        "used",
        "version",
    )

    def __init__(self, row: tuple[Any, ...], gen: int = 0, *, stored: bool = True) -> None:
        self.restore(row)
        self.gen = gen
        """Change counter of the volume at the last change of this inode or one of its names."""
        self.size_gen = gen
        """The same for changes that fdatasync must make durable (size, extents, links, inline bytes)."""
        self.shrunk = -1 if stored else 0
        """The same for the last time it lost bytes at its end, where the content file is cut when that is durable.
        0: the content file is as long as the file; -1: it may be longer, or have lost its end."""
        self.stored = stored
        """The index has (or is just getting) a row of it, or the journal has."""
        self.indexed = stored
        """The index has (or is just getting) a row of it: its removal is to be told."""
        self.used = True
        """Asked for since the cache was last swept."""
        self.syncs = 0
        self.data: bytearray | None = None
        """Inline bytes, once loaded. What lies behind them, up to the size, is a hole."""
        self.data_changed = False
        self.record: tuple[Any, ...] | None = None
        """Row of the table `record`, once loaded."""
        self.record_changed = False
        self.segments: list[Segment] | None = None
        self.folder: Folder | None = None
        """Names of a directory, once asked for."""
        self.parent = 0
        """Of a directory, once known."""
        self.kept: Any = None
        """For the mount: what it keeps with this inode, built when `gen` was `kept_gen`."""
        self.kept_gen = -1

    def restore(self, row: tuple[Any, ...]) -> None:
        """Take the values of a row."""
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
        self.blob: int
        self.safe: int
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
            self.blob,
            self.safe,
        ) = row
        if self.flags & CONTENT and not self.blob:
            self.blob = self.inode

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
            self.blob,
            self.safe,
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
    def placed(self) -> bool:
        """Its bytes lie in content files, not in the index."""
        return bool(self.flags & (CONTENT | SEGMENTED))

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
