"""Extents of one inode: which ranges have their bytes in packs, and cutting, adding, merging them.

Plain functions on the index connection; the caller holds the lock, has begun a transaction, and keeps the flags of
the inode in step (`Extents.flags`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..ids import Inode
from .api import MAX_FILE_SIZE

_COLUMNS: Final = "offset, length, pack, pack_offset, local"


class Index(Protocol):
    """A connection, or what records changes on their way to one (`core.Index`)."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> sqlite3.Cursor: ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object: ...


@dataclass(frozen=True, slots=True)
class Extent:
    offset: int
    length: int
    pack: int | None
    """None: zeros."""
    pack_offset: int
    local: bool

    @property
    def end(self) -> int:
        return self.offset + self.length

    def part(self, start: int, end: int, *, local: bool | None = None) -> Extent:
        """The piece within [start, end), which must overlap."""
        low, high = max(start, self.offset), min(end, self.end)
        at = 0 if self.pack is None else self.pack_offset + low - self.offset
        return Extent(low, high - low, self.pack, at, self.local if local is None else local)

    def continues(self, other: Extent) -> bool:
        """`other` lies right behind and goes on in the same place."""
        return (
            self.end == other.offset
            and self.pack == other.pack
            and self.local == other.local
            and (self.pack is None or self.pack_offset + self.length == other.pack_offset)
        )


def overlapping(db: Index, inode: Inode, start: int, end: int) -> list[Extent]:
    """Extents that share at least one byte with [start, end), in order. `end` may lie behind the largest file."""
    out = []
    # The last extent that begins before `start` may reach into the range.
    row = db.execute(
        f"SELECT {_COLUMNS} FROM extent WHERE inode = ? AND offset < ? ORDER BY offset DESC LIMIT 1", (inode, start)
    ).fetchone()
    if row is not None and row[0] + row[1] > start:
        out.append(_extent(row))
    for row in db.execute(
        f"SELECT {_COLUMNS} FROM extent WHERE inode = ? AND offset >= ? AND offset < ? ORDER BY offset",
        (inode, start, min(end, MAX_FILE_SIZE)),
    ):
        out.append(_extent(row))
    return out


def _extent(row: tuple[int, int, int | None, int, int]) -> Extent:
    return Extent(row[0], row[1], row[2], row[3], bool(row[4]))


def gaps(extents: Iterable[Extent], start: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the parts of [start, end) that no extent covers."""
    position = start
    for extent in extents:
        if extent.offset > position:
            yield position, min(extent.offset, end)
        position = max(position, extent.end)
        if position >= end:
            return
    if position < end:
        yield position, end


def insert(db: Index, inode: Inode, extents: Iterable[Extent]) -> None:
    db.executemany(
        "INSERT INTO extent VALUES (?, ?, ?, ?, ?, ?)",
        [(inode, e.offset, e.length, e.pack, e.pack_offset, int(e.local)) for e in extents],
    )


def replace(db: Index, inode: Inode, old: Iterable[Extent], new: Iterable[Extent]) -> None:
    db.executemany("DELETE FROM extent WHERE inode = ? AND offset = ?", [(inode, e.offset) for e in old])
    insert(db, inode, new)


def carve(db: Index, inode: Inode, start: int, end: int) -> list[Extent]:
    """Make [start, end) uncovered. Returns what was cut."""
    hit = overlapping(db, inode, start, end)
    if hit:
        rest = [e.part(e.offset, start) for e in hit if e.offset < start]
        rest += [e.part(end, e.end) for e in hit if e.end > end]
        replace(db, inode, hit, rest)
    return hit


def merge(db: Index, inode: Inode, start: int, end: int) -> None:
    """Join neighbours in and around [start, end) that go on in the same place."""
    near = overlapping(db, inode, max(0, start - 1), end + 1)
    merged: list[Extent] = []
    for extent in near:
        if merged and merged[-1].continues(extent):
            last = merged[-1]
            merged[-1] = Extent(last.offset, last.length + extent.length, last.pack, last.pack_offset, last.local)
        else:
            merged.append(extent)
    if len(merged) < len(near):
        replace(db, inode, near, merged)


def shape(db: Index, inode: Inode, size: int) -> tuple[bool, bool, bool]:
    """(has extents, some of them remote, covers all of [0, size))."""
    count, covered, local = db.execute(
        "SELECT count(*), coalesce(sum(length), 0), coalesce(min(local), 1) FROM extent WHERE inode = ?", (inode,)
    ).fetchone()
    return count > 0, not local, covered == size
