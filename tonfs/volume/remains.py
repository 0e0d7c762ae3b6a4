"""What is still there of a file whose row in `inode` is gone, and whether it is enough to make the file again.

Rows of other tables and content files may be the last of somebody's bytes. They make a file when they say in one way
only where its bytes are; else nobody but a person can tell, and all of it stays as it is.
"""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..ids import Inode
from . import extents as ext
from .content import ContentStore
from .schema import CONTENT, INLINE, SEGMENTED

PER_INODE: Final = ("symlink", "xattr", "record", "extent", "object_part", "inline", "segment")
"""Tables whose rows belong to an inode."""


@dataclass(frozen=True, slots=True)
class Remains:
    mode: int
    size: int
    place: int
    """CONTENT, INLINE, SEGMENTED, or 0: no local bytes."""
    length: int = 0
    """Of the content file, with CONTENT. What lies behind it is in packs only, or zeros."""
    bare: bool = False
    """Only attributes and the like: nothing says what it was, or that it had bytes."""


class Leftovers:
    """Looks for what is left of inodes. The index may get rows meanwhile, but no row another content file."""

    def __init__(self, db: sqlite3.Connection, content: Path) -> None:
        self._db = db
        self._content = content
        self._taken: set[int] | None = None
        """Numbers of content files that are known for another inode's than their own."""

    def tables_of(self, inode: int) -> set[str]:
        """Those with rows of an inode."""
        return {table for table in PER_INODE if self._speaks(table, "inode", inode)}

    def nothing_of(self, inode: int) -> bool:
        """No row speaks of it, nothing lies in it, no content file has its number: what leads to it leads nowhere."""
        return (
            not self.tables_of(inode)
            and not self._speaks("name", "parent", inode)
            and not ContentStore.path_below(self._content, Inode(inode)).exists()
        )

    def remains(self, inode: int) -> Remains | None:
        """What there is of an inode without a row; None: nothing, or not clear what. Raises OSError."""
        tables = self.tables_of(inode)
        if self._speaks("name", "parent", inode) or self._speaks("upload_part", "inode", inode):
            return None  # a directory; or an upload counts on it
        places = tables & {"symlink", "inline", "segment"}
        length = self._content_length(inode)
        if length is not None:
            places.add("content")
        if len(places) > 1:
            return None
        (end,) = self._db.execute(
            "SELECT coalesce(max(offset + length), 0) FROM extent WHERE inode = ?", (inode,)
        ).fetchone()
        if "symlink" in places:
            (size,) = self._db.execute("SELECT length(target) FROM symlink WHERE inode = ?", (inode,)).fetchone()
            return None if end else Remains(stat.S_IFLNK | 0o777, size, 0)
        mode = stat.S_IFREG | 0o600
        if "inline" in places:
            (size,) = self._db.execute("SELECT length(data) FROM inline WHERE inode = ?", (inode,)).fetchone()
            return Remains(mode, max(size, end), INLINE)
        if "segment" in places:
            (size,) = self._db.execute("SELECT max(offset + length) FROM segment WHERE inode = ?", (inode,)).fetchone()
            return Remains(mode, max(size, end), SEGMENTED)
        here = length or 0
        behind = ext.overlapping(self._db, Inode(inode), here, end) if end > here else []
        if behind and any(ext.gaps(behind, here, end)):
            return None  # some of its bytes are nowhere: zeros must not stand for them
        if length is not None and any(extent.local and extent.pack is not None for extent in behind):
            return None  # the content file was cut as well
        if length is not None:
            return Remains(mode, max(length, end), CONTENT, length)
        if end:
            return Remains(mode, end, 0)
        return Remains(mode, 0, 0, bare=True) if tables & {"xattr", "record"} else None

    def _content_length(self, inode: int) -> int | None:
        """Of the content file that has its number, unless that is known for another inode's, or segments tell of it."""
        if self._taken is None:
            rows = self._db.execute(f"SELECT blob FROM inode WHERE flags & {CONTENT} AND blob NOT IN (0, inode)")
            self._taken = {blob for (blob,) in rows}
        if inode in self._taken or self._speaks("segment", "blob", inode):
            return None
        try:
            return ContentStore.path_below(self._content, Inode(inode)).stat().st_size
        except FileNotFoundError:
            return None

    def _speaks(self, table: str, column: str, inode: int) -> bool:
        return self._db.execute(f"SELECT 1 FROM {table} WHERE {column} = ? LIMIT 1", (inode,)).fetchone() is not None
