"""What a listing of objects shows of a directory's entry."""

from __future__ import annotations

from typing import NamedTuple

from ..ids import Inode


class Listed(NamedTuple):
    """An entry of a directory as an object, or a directory that leads to some."""

    key: bytes
    """`name`, for directories `name/`."""
    inode: Inode
    """That holds the object; of a directory without data the directory."""
    mode: int
    size: int
    mtime_ns: int
    version: int
    etag: str
    """Of the record while it holds, else ""."""
    checksums: str
    """JSON of the record's checksums while they hold, else "{}"."""
    checksum_type: str
    folder: Inode
    """The directory of `name/`, else 0."""
    marked: bool
    """A directory that is an object `name/`, with or without data."""

    @property
    def is_dir(self) -> bool:
        return self.folder != 0
