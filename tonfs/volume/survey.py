"""Questions about the whole volume or a part of it, answered from a second connection: they never stop the doors.

What is seen is the last commit; the caller's `fresh` commits first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from ..errors import FsError
from ..ids import BagId, Inode
from . import extents as ext
from .api import ROOT
from .core import index_error
from .packs import Evicted, Packs
from .schema import COVERED, DIRTY

MAX_REPORT: Final = 20_000
"""Files and ranges in one answer of `dirty`."""
_REG: Final = "(mode & 61440) = 32768 AND nlink > 0"
_TREE: Final = (
    "WITH RECURSIVE tree(inode) AS (SELECT ? UNION SELECT n.inode FROM tree t JOIN name n ON n.parent = t.inode "
    "UNION SELECT a.inode FROM tree t JOIN attached a ON a.dir = t.inode) "
)


@dataclass(frozen=True, slots=True)
class DirtyFile:
    inode: Inode
    version: int
    path: bytes
    mode: int
    mtime_ns: int
    size: int
    content: str
    ranges: tuple[tuple[int, int], ...]
    """(offset, length) of data that no pack has."""


@dataclass(frozen=True, slots=True)
class DirtyReport:
    files: tuple[DirtyFile, ...]
    more: bool
    oldest: float | None
    """When the oldest dirty file last changed, seconds since 1970."""
    next_settle: float | None
    """When the next file that is still too fresh will have settled."""


@dataclass(frozen=True, slots=True)
class PackInfo:
    pack: int
    bag_id: BagId
    size: int
    live: int
    files: int
    created_ns: int
    proven: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Counts:
    files: int
    empty: int
    dirty: int
    packed: int
    proven: int
    logical: int
    local: int
    dirty_bytes: int
    proven_bytes: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class Range:
    """One range of a file, for `tonfs why`."""

    offset: int
    length: int
    state: str
    """dirty, zeros, packed or proven."""
    local: bool
    bag_id: BagId | None = None
    pack_offset: int = 0
    proven: int = 0
    wanted: int = 0


class Survey(Packs):
    """All methods are slow."""

    @contextmanager
    def _fresh(self) -> Iterator[sqlite3.Connection]:
        """A snapshot that has everything done so far."""
        with self.lock:
            if self._gen != self._committed:
                self._commit_locked()
        with self.reader_lock:
            try:
                self.reader.execute("BEGIN")
                try:
                    yield self.reader
                finally:
                    self.reader.execute("ROLLBACK")
            except sqlite3.Error as exc:
                raise index_error(exc) from exc

    def dirty(self, settle: float, limit_bytes: int, *, force: bool = False) -> DirtyReport:
        """Files with unpacked bytes, oldest change first, until their data reaches `limit_bytes` (at least one file).

        A file comes when nothing changed in it for `settle` seconds, or with `force`.
        """
        now = self.now_ns()
        latest = now - int(settle * 1e9)
        candidates: list[tuple[Any, ...]] = []
        zeros: list[tuple[Inode, int]] = []
        files: list[DirtyFile] = []
        total, ranges_total, more, next_settle = 0, 0, False, None
        with self._fresh() as db:
            rows = db.execute(
                "SELECT inode, version, mode, mtime, size, changed, flags FROM inode "
                "WHERE flags & 1 AND nlink > 0 ORDER BY changed"
            ).fetchall()
            for row in rows:
                if force or row[5] <= latest or row[5] > now + 1_000_000_000:
                    candidates.append(row)
                elif next_settle is None:
                    next_settle = row[5] / 1e9 + settle
            paths = _Paths(db)
            for row in candidates:
                if total >= limit_bytes or len(files) + ranges_total > MAX_REPORT:
                    more = True
                    break
                ranges = self._data_to_pack(db, Inode(row[0]), row[4], row[6])
                if ranges is None:
                    continue
                if not ranges:
                    zeros.append((Inode(row[0]), row[1]))
                    continue
                content = str(self.content.path(Inode(row[0])))
                files.append(
                    DirtyFile(Inode(row[0]), row[1], paths.of(row[0]), row[2], row[3], row[4], content, tuple(ranges))
                )
                total += sum(length for _, length in ranges)
                ranges_total += len(ranges)
        for inode, version in zeros:
            self.cover_zeros(inode, version)
        return DirtyReport(tuple(files), more, rows[0][5] / 1e9 if rows else None, next_settle)

    def _data_to_pack(
        self, db: sqlite3.Connection, inode: Inode, size: int, flags: int
    ) -> list[tuple[int, int]] | None:
        """None: the content file is gone (the file was removed a moment ago, or is damaged)."""
        known = ext.overlapping(db, inode, 0, size) if flags & COVERED else []
        out: list[tuple[int, int]] = []
        try:
            for low, high in ext.gaps(known, 0, size):
                out += self.content.data_ranges(inode, low, high)
        except FileNotFoundError:
            return None
        return out

    def packs(self) -> list[PackInfo]:
        with self._fresh() as db:
            rows = db.execute(
                "SELECT p.pack, p.bag_id, p.size, coalesce(sum(e.length), 0), count(DISTINCT e.inode), p.created, "
                "p.proven, p.wanted FROM pack p LEFT JOIN extent e ON e.pack = p.pack GROUP BY p.pack ORDER BY p.pack"
            ).fetchall()
        return [PackInfo(r[0], BagId(bytes(r[1])), *r[2:]) for r in rows]

    def evict_down_to(self, limit: int) -> Evicted | None:
        """Evict proven local copies, oldest change first, until at most `limit` bytes are here. None: nothing to do."""
        excess = self.counts().local - limit
        if excess <= 0:
            return None
        with self._fresh() as db:
            rows = db.execute(
                "SELECT e.inode, sum(e.length) FROM extent e JOIN pack p ON p.pack = e.pack "
                "JOIN inode i ON i.inode = e.inode "
                "WHERE e.local = 1 AND p.wanted > 0 AND p.proven >= p.wanted GROUP BY e.inode ORDER BY i.changed"
            ).fetchall()
        chosen: list[Inode] = []
        for inode, length in rows:
            if excess <= 0:
                break
            chosen.append(Inode(inode))
            excess -= length
        return self.evict(chosen) if chosen else None

    def find(self, parts: Sequence[bytes]) -> Inode | None:
        """The inode of a path, or None."""
        try:
            return self.resolve(parts).inode
        except FsError:
            return None

    def files_below(self, inode: Inode) -> list[tuple[Inode, int, int]]:
        """(inode, flags, size) of the regular files in a tree; of the file itself when it is one."""
        with self._fresh() as db:
            rows = db.execute(
                _TREE + f"SELECT i.inode, i.flags, i.size FROM tree t JOIN inode i ON i.inode = t.inode WHERE {_REG}",
                (inode,),
            ).fetchall()
        return [(Inode(r[0]), r[1], r[2]) for r in rows]

    def bags_below(self, inode: Inode) -> tuple[set[BagId], int, int]:
        """Bags that files of a tree refer to, number of its dirty files, their unpacked bytes."""
        with self._fresh() as db:
            if inode == ROOT:
                bags = db.execute("SELECT bag_id FROM pack p WHERE EXISTS (SELECT 1 FROM extent WHERE pack = p.pack)")
                found = {BagId(bytes(row[0])) for row in bags}
                count, size = self._dirty_sums(db)
                return found, count, size
            bags = db.execute(
                _TREE + "SELECT DISTINCT p.bag_id FROM tree t JOIN extent e ON e.inode = t.inode "
                "JOIN pack p ON p.pack = e.pack",
                (inode,),
            )
            found = {BagId(bytes(row[0])) for row in bags}
            count, size = db.execute(
                _TREE + "SELECT count(*), coalesce(sum(i.size - (SELECT coalesce(sum(length), 0) FROM extent e "
                f"WHERE e.inode = i.inode)), 0) FROM tree t JOIN inode i ON i.inode = t.inode WHERE i.flags & {DIRTY}",
                (inode,),
            ).fetchone()
            return found, count, size

    def _dirty_sums(self, db: sqlite3.Connection) -> tuple[int, int]:
        count, size = db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM inode WHERE flags & 1 AND nlink > 0"
        ).fetchone()
        (covered,) = db.execute(
            f"SELECT coalesce(sum(length), 0) FROM extent WHERE inode IN "
            f"(SELECT inode FROM inode WHERE flags & 1 AND nlink > 0 AND flags & {COVERED})"
        ).fetchone()
        return count, size - covered

    def counts(self) -> Counts:
        """Files and bytes by state."""
        with self._fresh() as db:
            total, empty, logical = db.execute(
                f"SELECT count(*), coalesce(sum(size = 0), 0), coalesce(sum(size), 0) FROM inode WHERE {_REG}"
            ).fetchone()
            dirty, dirty_bytes = self._dirty_sums(db)
            (oldest,) = db.execute("SELECT min(changed) FROM inode WHERE flags & 1 AND nlink > 0").fetchone()
            (away,) = db.execute("SELECT coalesce(sum(length), 0) FROM extent WHERE local = 0").fetchone()
            (proven_bytes,) = db.execute(
                "SELECT coalesce(sum(e.length), 0) FROM extent e JOIN pack p ON p.pack = e.pack "
                "WHERE p.proven >= p.wanted AND p.wanted > 0"
            ).fetchone()
            (packed,) = db.execute(
                "SELECT count(DISTINCT e.inode) FROM pack p JOIN extent e ON e.pack = p.pack "
                "JOIN inode i ON i.inode = e.inode "
                f"WHERE NOT (p.proven >= p.wanted AND p.wanted > 0) AND NOT i.flags & {DIRTY} AND i.nlink > 0"
            ).fetchone()
        proven = total - empty - dirty - packed
        when = None if oldest is None else oldest / 1e9
        return Counts(total, empty, dirty, packed, proven, logical, logical - away, dirty_bytes, proven_bytes, when)

    def ranges(self, inode: Inode) -> list[Range]:
        """Where each byte of a file is. Raises FsError(ENOENT)."""
        with self._fresh() as db:
            row = db.execute("SELECT size FROM inode WHERE inode = ?", (inode,)).fetchone()
            if row is None:
                raise FsError(f"There is no inode {inode}.", 2)
            packs = {r[0]: r[1:] for r in db.execute("SELECT pack, bag_id, proven, wanted FROM pack")}
            known = ext.overlapping(db, inode, 0, row[0])
            out = [Range(low, high - low, "dirty", True) for low, high in ext.gaps(known, 0, row[0])]
            for extent in known:
                if extent.pack is None:
                    out.append(Range(extent.offset, extent.length, "zeros", True))
                    continue
                bag_id, proven, wanted = packs[extent.pack]
                state = "proven" if proven >= wanted > 0 else "packed"
                out.append(
                    Range(
                        extent.offset, extent.length, state, extent.local, BagId(bytes(bag_id)), extent.pack_offset,
                        proven, wanted,
                    )
                )  # fmt: skip
        return sorted(out, key=lambda r: r.offset)


class _Paths:
    """Paths from the root by inode, each directory looked up once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._known: dict[int, bytes] = {ROOT: b""}

    def of(self, inode: int) -> bytes:
        known = self._known.get(inode)
        if known is not None:
            return known
        row = self._db.execute(
            "SELECT parent, key FROM name WHERE inode = ? UNION ALL "
            "SELECT parent, key FROM attached WHERE inode = ? LIMIT 1",
            (inode, inode),
        ).fetchone()
        if row is None:
            return b""
        above = self.of(row[0])
        name = bytes(row[1])
        path = (above + b"/" if above else b"") + name.rstrip(b"/")
        if name.endswith(b"/"):
            self._known[inode] = path
        return path
