"""Are the local bytes there that the index counts on? The other half of level 1 of `tonfs fsck`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..ids import Inode
from .check import FILE, Finding, Fix, Progress, tables_with_inodes
from .content import ContentStore
from .schema import CONTENT, COVERED, DIRTY

WINDOW: Final = 1 << 40
_EVERY: Final = 4096
PLACES: Final = CONTENT | 512 | 1024
"""Flags of inodes whose bytes are somewhere: CONTENT, INLINE, SEGMENTED."""


class ContentCheck:
    """One pass over `content/`. Sizes are compared, bytes are not read (that is level 2)."""

    def __init__(self, db: sqlite3.Connection, volume: Path, progress: Progress) -> None:
        self._db = db
        self._root = volume / "content"
        self._progress = progress
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        self._next = int(meta["inode_next"])
        self._crashed = meta["clean"] != "1"
        self._base = int(meta.get("version_base", 0))
        tables = tables_with_inodes(db)
        self._inline, self._segments = "inline" in tables, "segment" in tables
        self._used: set[int] = set()
        """Numbers of content files that something refers to."""

    def run(self) -> Iterator[Finding]:
        yield from self._own_files()
        yield from self._without_place()
        if self._segments:
            yield from self._shared_files()
        if self._inline:
            yield from self._in_the_index()
        yield from self._strays()

    def _length(self, number: int) -> int | None:
        try:
            return os.stat(ContentStore.path_below(self._root, Inode(number))).st_size
        except FileNotFoundError:
            return None

    def _own_files(self) -> Iterator[Finding]:
        blob = "blob" if self._segments else "0"
        rows = self._db.execute(
            f"SELECT inode, size, flags, version, {blob} FROM inode WHERE {FILE} AND flags & {CONTENT}"
        ).fetchall()
        for done, (inode, size, flags, version, number) in enumerate(rows):
            if done % _EVERY == 0:
                self._progress("content files", done, len(rows))
            self._used.add(number or inode)
            length = self._length(number or inode)
            if length is None or length < min(size, WINDOW):
                yield self._short(inode, flags, version, length)

    def _short(self, inode: int, flags: int, version: int, length: int | None) -> Finding:
        what = "is missing" if length is None else f"has only {length} bytes"
        text = f"The content file of inode {inode} {what}"
        if flags & DIRTY:
            if self._crashed or version < self._base:
                # Bytes that were never fsynced may be gone after a loss of power; the file is cut when it is met.
                return Finding("content-short", f"{text}; it was being written at a crash.", harmless=True)
            return Finding("content-lost", f"{text}; bytes that no pack has are lost.")
        if not flags & COVERED:
            return Finding("content-lost", f"{text}.")
        fix = Fix("make_remote", (inode, length or 0), "fetch the missing bytes from their packs when they are read")
        return Finding("content-lost", f"{text}; its packs have the bytes.", fix)

    def _without_place(self) -> Iterator[Finding]:
        """Extents say that packed bytes are here, too, and the inode has no place for them."""
        for inode, size in self._db.execute(
            f"SELECT inode, size FROM inode WHERE {FILE} AND NOT flags & {PLACES} AND inode IN "
            "(SELECT inode FROM extent WHERE local = 1 AND pack IS NOT NULL)"
        ):
            length = self._length(inode)
            if length is not None and length >= min(size, WINDOW):
                self._used.add(inode)
                fix = Fix("set_flag", (inode, CONTENT), "say so")
                yield Finding("flags", f"Inode {inode} does not say that it has a content file.", fix)
            else:
                fix = Fix("make_remote", (inode, 0), "fetch the bytes from their packs when they are read")
                yield Finding("content-lost", f"Inode {inode} has no local bytes; its packs have them.", fix)

    def _shared_files(self) -> Iterator[Finding]:
        rows = self._db.execute(
            "SELECT s.blob, max(s.blob_offset + s.length), min(s.inode) FROM segment s GROUP BY s.blob"
        ).fetchall()
        for number, end, inode in rows:
            self._used.add(number)
            length = self._length(number)
            if length is None or length < end:
                what = "is missing" if length is None else f"has {length} bytes of {end}"
                yield Finding("content-lost", f"The content file {number} (of inode {inode}) {what}.")

    def _in_the_index(self) -> Iterator[Finding]:
        from .schema import INLINE

        for (inode,) in self._db.execute(
            f"SELECT inode FROM inode WHERE flags & {INLINE} AND inode NOT IN (SELECT inode FROM inline)"
        ):
            yield Finding("content-lost", f"The bytes of inode {inode} are missing in the index.")

    def _strays(self) -> Iterator[Finding]:
        """Content files that nothing refers to."""
        doomed = {number for (number,) in self._db.execute("SELECT inode FROM doomed")}
        crash = 0
        for number, path in self._files():
            if number in self._used:
                continue
            if number in doomed or number >= self._next:
                crash += 1
                continue
            row = self._db.execute("SELECT flags, size FROM inode WHERE inode = ?", (number,)).fetchone()
            yield self._stray(number, path, row)
        if crash:
            text = f"{crash} content files belong to files that a crash undid or that were just removed."
            yield Finding("content-left", text, harmless=True)

    def _stray(self, number: int, path: Path, row: tuple[Any, ...] | None) -> Finding:
        if row is None:
            fix = Fix("adopt", (number,), f"keep it as lost+found/#{number}")
            return Finding("content-stray", f"{path} belongs to no file.", fix)
        if row[0] & DIRTY:  # perhaps these are the very bytes that are looked for elsewhere
            return Finding(
                "content-stray", f"{path} is not used by inode {number}, which has unpacked bytes elsewhere."
            )
        fix = Fix("drop_content", (number,), "remove it: every byte of the file is elsewhere")
        return Finding("content-stray", f"{path} is left over; inode {number} does not use it.", fix)

    def _files(self) -> Iterator[tuple[int, Path]]:
        if not self._root.is_dir():
            return
        for shard in sorted(self._root.iterdir()):
            for entry in sorted(os.listdir(shard)) if shard.is_dir() else ():
                try:
                    number = int(entry, 16)
                except ValueError:
                    continue
                if ContentStore.path_below(self._root, Inode(number)) == shard / entry:
                    yield number, shard / entry


def check_content(db: sqlite3.Connection, volume: Path, progress: Progress) -> Iterator[Finding]:
    """Content files against the index. Raises OSError."""
    yield from ContentCheck(db, volume, progress).run()
