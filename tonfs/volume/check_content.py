"""Are the local bytes there that the index counts on? The other half of level 1 of `tonfs fsck`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..ids import Inode
from .check import FILE, Finding, Fix, Progress, who
from .content import ContentStore
from .remains import Leftovers
from .schema import CONTENT, COVERED, DIRTY, INLINE, SEGMENTED, WINDOW_SIZE

_EVERY: Final = 4096
PLACES: Final = CONTENT | INLINE | SEGMENTED
_FETCH: Final = "fetch the missing bytes from their packs when they are read"
_REPLACE: Final = "Bring the file back from elsewhere, or remove it."


class ContentCheck:
    """One pass over `content/`. Sizes are compared, bytes are not read (that is level 2)."""

    def __init__(self, db: sqlite3.Connection, volume: Path, progress: Progress) -> None:
        self._db = db
        self._root = volume / "content"
        self._progress = progress
        self._leftovers = Leftovers(db, self._root)
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        self._next = int(meta["inode_next"])
        self._crashed = meta["clean"] != "1"
        self._base = int(meta["version_base"])
        self._used: set[int] = set()
        """Numbers of content files that something refers to."""
        self._short_of_bytes: set[int] = set()
        """Inodes whose unpacked bytes are not where they should be, or in no place at all."""

    def run(self) -> Iterator[Finding]:
        for check in (self._places, self._own_files, self._without_place, self._segments, self._inline, self._strays):
            yield from check()

    def _places(self) -> Iterator[Finding]:
        for (inode,) in self._db.execute(
            f"SELECT inode FROM inode WHERE flags & {PLACES} NOT IN (0, {CONTENT}, {INLINE}, {SEGMENTED}) "
            f"OR (flags & {PLACES} AND NOT {FILE})"
        ):
            self._short_of_bytes.add(inode)
            yield Finding("places", f"The bytes of inode {inode} are said to be in two places, or it can have none.")

    def _length(self, number: int) -> int | None:
        try:
            return os.stat(ContentStore.path_below(self._root, Inode(number))).st_size
        except FileNotFoundError:
            return None

    def _own_files(self) -> Iterator[Finding]:
        rows = self._db.execute(
            f"SELECT inode, size, flags, version, blob, safe FROM inode WHERE {FILE} AND flags & {CONTENT}"
        ).fetchall()
        for done, (inode, size, flags, version, blob, safe) in enumerate(rows):
            if done % _EVERY == 0:
                self._progress("content files", done, len(rows))
            self._used.add(blob or inode)
            length = self._length(blob or inode)
            if (length or 0) < min(size, WINDOW_SIZE):  # of an empty file nothing is missed
                yield self._short(inode, size, self._may_be_cut(version, length or 0, safe), flags, length)

    def _may_be_cut(self, version: int, there: int, safe: int) -> bool:
        """Bytes that were never fsynced may be gone after a loss of power; it is cut when met (trust.py)."""
        return there >= safe and (self._crashed or version < self._base)

    def _short(self, inode: int, size: int, cut: bool, flags: int, length: int | None) -> Finding:
        what = "is missing" if length is None else f"has only {length} bytes"
        fix = Fix("make_remote", (inode, length or 0), _FETCH)
        missing = size - (length or 0) if cut else 0
        return self._lost(inode, flags, f"The content file of {who(self._db, inode)} {what}", fix, missing)

    def _lost(self, inode: int, flags: int, text: str, fix: Fix, cut: int = 0) -> Finding:
        """Local bytes that are not there: packs may have them, or nobody. `cut`: how many were never promised."""
        self._short_of_bytes.add(inode)
        if flags & DIRTY:
            if cut:
                text += (
                    f"; it was being written at a crash, and the next mount cuts the {cut} bytes that no fsync kept."
                )
                return Finding("content-short", text, harmless=True)
            return Finding("content-lost", f"{text}; bytes that no pack has are lost. {_REPLACE}")
        if not flags & COVERED:
            return Finding("content-lost", f"{text}. {_REPLACE}")
        return Finding("content-lost", f"{text}; its packs have the bytes.", fix)

    def _without_place(self) -> Iterator[Finding]:
        """Extents say that packed bytes are here, too, and the inode has no place for them."""
        for inode, size in self._db.execute(
            f"SELECT inode, size FROM inode WHERE {FILE} AND NOT flags & {PLACES} AND inode IN "
            "(SELECT inode FROM extent WHERE local = 1 AND pack IS NOT NULL) "
            "AND inode NOT IN (SELECT inode FROM inline UNION SELECT inode FROM segment)"
        ):
            length = self._length(inode)
            if length is not None and length >= min(size, WINDOW_SIZE):
                self._used.add(inode)
                fix = Fix("set_flag", (inode, CONTENT), "say so")
                yield Finding("flags", f"Inode {inode} does not say that it has a content file.", fix)
            else:
                fix = Fix("make_remote", (inode, 0), _FETCH)
                yield Finding("content-lost", f"Inode {inode} has no local bytes; its packs have them.", fix)

    def _segments(self) -> Iterator[Finding]:
        """Segments lie inside their files, side by side, and in content files that are long enough."""
        lengths: dict[int, int | None] = {}
        bad: set[int] = set()
        # Also of inodes whose rows are gone: these may be the last that know where their bytes are.
        self._used.update(number for (number,) in self._db.execute("SELECT DISTINCT blob FROM segment"))
        rows = self._db.execute(
            "SELECT s.inode, s.offset, s.length, s.blob, s.blob_offset, i.size, i.flags, i.version, i.safe "
            "FROM segment s JOIN inode i ON i.inode = s.inode ORDER BY s.inode, s.offset"
        ).fetchall()
        last, end = 0, 0
        for inode, offset, length, blob, place, size, flags, version, safe in rows:
            end = end if inode == last else 0
            if blob not in lengths:
                lengths[blob] = self._length(blob)
            there = lengths[blob] or 0
            if inode not in bad and (offset < end or offset + length > size or length <= 0):
                bad.add(inode)
                self._short_of_bytes.add(inode)
                yield Finding("segments", f"The segments of inode {inode} do not fit into it.")
            elif inode not in bad and there < place + length:
                bad.add(inode)
                text = f"Content file {blob} of {who(self._db, inode)} has {there} bytes of {place + length}"
                kept = offset + max(0, there - place)
                missing = size - kept if self._may_be_cut(version, kept, safe) else 0
                yield self._lost(inode, flags, text, Fix("make_all_remote", (inode,), _FETCH), missing)
            last, end = inode, offset + length

    def _inline(self) -> Iterator[Finding]:
        for inode, flags in self._db.execute(
            f"SELECT inode, flags FROM inode WHERE flags & {INLINE} AND inode NOT IN (SELECT inode FROM inline)"
        ):
            text = f"The bytes of {who(self._db, inode)} are missing in the index"
            yield self._lost(inode, flags, text, Fix("make_all_remote", (inode,), _FETCH))
        for inode, size, length in self._db.execute(
            "SELECT n.inode, i.size, length(n.data) FROM inline n JOIN inode i ON i.inode = n.inode "
            "WHERE length(n.data) > i.size"
        ):
            self._short_of_bytes.add(inode)
            yield Finding("inline", f"Inode {inode} has {size} bytes, and {length} in the index.")

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
        if row is None and self._leftovers.remains(number) is None:
            text = f"{path} belongs to no file, and does not fit what else is left of inode {number}; it is kept."
            return Finding("content-stray", text)
        if row is None:
            fix = Fix("adopt", (number,), f"keep it as lost+found/#{number}")
            return Finding("content-stray", f"{path} belongs to no file.", fix)
        if row[0] & DIRTY and (number in self._short_of_bytes or not row[0] & PLACES):
            # Perhaps these are the very bytes that are looked for elsewhere.
            return Finding("content-stray", f"{path} is not used by inode {number}, whose bytes are incomplete.")
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
