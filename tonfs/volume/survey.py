"""Questions about the whole volume or a part of it, answered from a second connection: they never stop the doors.

What is seen is the last commit; the caller's `fresh` commits first.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..clock import Clock
from ..errors import FsError
from ..ids import BagId, Inode
from . import extents as ext
from . import segments as seg
from .api import ROOT
from .core import index_error
from .node import Node
from .packs import Evicted, Packs
from .replicas import REPLICAS, Asked, AskedOfPacks, most
from .schema import CONTENT, COVERED, DIRTY, SEGMENTED
from .words import Words

MAX_REPORT: Final = 20_000
"""Files and ranges in one answer of `dirty`."""
KEPT_SPOOLS: Final = 3


def _wide_sum(column: str) -> str:
    """Two columns for `_joined`: sums of sizes may pass 2^63 (sparse files), where SQLite's `sum` fails."""
    return f"sum({column} >> 32), sum({column} & 4294967295)"


def _joined(high: int | None, low: int | None) -> int:
    return ((high or 0) << 32) + (low or 0)


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
    ranges: tuple[tuple[int, int], ...]
    """(offset, length) of data that no pack has."""
    sources: tuple[tuple[str, int], ...]
    """(file on this machine, offset in it) of each range. The file may vanish when the bytes are changed."""


@dataclass(frozen=True, slots=True)
class DirtyReport:
    files: tuple[DirtyFile, ...]
    """All of these want the same number of replicas."""
    replicas: int | None
    """This one; None: the volume's."""
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
    asked: Asked


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


@dataclass
class _Group:
    replicas: int | None
    files: list[DirtyFile] = field(default_factory=list)
    bytes: int = 0


class Survey(Packs):
    """All methods are slow."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        super().__init__(directory, clock)
        self._asked = AskedOfPacks()

    @contextmanager
    def _fresh(self) -> Iterator[sqlite3.Connection]:
        """A snapshot that has everything done so far."""
        with self.lock:
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
        next_settle: float | None = None
        with self._fresh() as db:
            rows = db.execute(
                "SELECT inode, changed FROM inode WHERE flags & 1 AND nlink > 0 ORDER BY changed"
            ).fetchall()
            for row in rows:
                if force or row[1] <= latest or row[1] > now + 1_000_000_000:
                    candidates.append(row)
                elif next_settle is None:
                    next_settle = row[1] / 1e9 + settle
            paths = _Paths(db)
            spool = Spool(self.directory / "spool")
            replicas, files, more = self._collect(candidates, limit_bytes, Words(db, REPLICAS), paths, spool)
            spool.finish()
        return DirtyReport(tuple(files), replicas, more, rows[0][1] / 1e9 if rows else None, next_settle)

    def _collect(
        self, candidates: Sequence[tuple[Any, ...]], limit_bytes: int, words: Words, paths: _Paths, spool: Spool
    ) -> tuple[int | None, list[DirtyFile], bool]:
        """Of the files that want the same number of replicas: those that fill a pack first, else those with the oldest
        among them. The others come another time."""
        groups: dict[int | None, _Group] = {}
        items = 0
        group: _Group | None = None
        for inode, _ in candidates:
            if group is not None and (group.bytes >= limit_bytes or items > MAX_REPORT):
                return group.replicas, group.files, True
            file = self._to_pack(Inode(inode), paths, spool)
            if file is not None:
                replicas = most(words.of(inode))
                group = groups.setdefault(replicas, _Group(replicas))
                group.files.append(file)
                group.bytes += sum(length for _, length in file.ranges)
                items += 1 + len(file.ranges)
        first = next(iter(groups.values()), _Group(None))
        return first.replicas, first.files, False

    def _to_pack(self, inode: Inode, paths: _Paths, spool: Spool) -> DirtyFile | None:
        """None: it is not dirty any more, or has nothing but holes, or is damaged."""
        with self.lock:
            try:
                node = self._node(inode)
                if not node.dirty or node.nlink == 0:
                    return None
                ranges, sources = self._sources(node, spool)
            except (FsError, FileNotFoundError):
                return None
            if not ranges:
                self.cover_zeros(inode, node.version)
                return None
            path = paths.of(inode)
            return DirtyFile(inode, node.version, path, node.mode, node.mtime, node.size, tuple(ranges), tuple(sources))

    def _sources(self, node: Node, spool: Spool) -> tuple[list[tuple[int, int]], list[tuple[str, int]]]:
        """Data that no pack has, and where it can be read. Raises FsError(EIO) for a file that has lost some."""
        self._must_be_whole(node)
        known = ext.overlapping(self.index, node.inode, 0, node.size) if node.flags & COVERED else []
        ranges: list[tuple[int, int]] = []
        sources: list[tuple[str, int]] = []
        for low, high in ext.gaps(known, 0, node.size):
            for offset, length in self._data_ranges(node, low, high):
                if node.flags & CONTENT:
                    places = [(offset, length, (str(self.content.path(Inode(node.blob))), offset))]
                elif node.flags & SEGMENTED:
                    places = [
                        (part.offset, part.length, (str(self.content.path(part.blob)), part.blob_offset))
                        for part in seg.overlapping(self._segments(node), offset, offset + length)
                    ]
                else:
                    places = [(offset, length, spool.add(self._local(node, offset, offset + length)))]
                for at, count, source in places:
                    ranges.append((at, count))
                    sources.append(source)
        return ranges, sources

    def damaged(self, most: int) -> tuple[int, list[bytes]]:
        """Files that were found to have lost bytes, and still have: how many, and paths of some."""
        paths: list[bytes] = []
        with self.lock:
            for inode in sorted(self._damaged):
                if not self._exists(inode) or self._is_whole(self._node(inode)):
                    self._damaged.discard(inode)
                elif len(paths) < most:
                    paths.append(self.path_of(inode))
            return len(self._damaged), paths

    def _exists(self, inode: Inode) -> bool:
        """It has a name."""
        try:
            return self._node(inode).nlink > 0
        except FsError:
            return False

    def packs(self) -> list[PackInfo]:
        with self._fresh() as db:
            rows = db.execute(
                "SELECT p.pack, p.bag_id, p.size, coalesce(sum(e.length), 0), count(DISTINCT e.inode), p.created, "
                "p.proven, p.wanted FROM pack p LEFT JOIN extent e ON e.pack = p.pack GROUP BY p.pack ORDER BY p.pack"
            ).fetchall()
            asked = self._asked.of(db, [row[0] for row in rows])
        return [PackInfo(r[0], BagId(bytes(r[1])), r[2], r[3], r[4], r[5], r[6], r[7], asked[r[0]]) for r in rows]

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
            count, high, low = db.execute(
                _TREE + f"SELECT count(*), {_wide_sum('unpacked')} FROM (SELECT i.size - "
                "(SELECT coalesce(sum(length), 0) FROM extent e WHERE e.inode = i.inode) AS unpacked "
                f"FROM tree t JOIN inode i ON i.inode = t.inode WHERE i.flags & {DIRTY})",
                (inode,),
            ).fetchone()
            return found, count, _joined(high, low)

    def _dirty_sums(self, db: sqlite3.Connection) -> tuple[int, int]:
        count, *size = db.execute(
            f"SELECT count(*), {_wide_sum('size')} FROM inode WHERE flags & 1 AND nlink > 0"
        ).fetchone()
        covered = db.execute(
            f"SELECT {_wide_sum('length')} FROM extent WHERE inode IN "
            f"(SELECT inode FROM inode WHERE flags & 1 AND nlink > 0 AND flags & {COVERED})"
        ).fetchone()
        return count, _joined(*size) - _joined(*covered)

    def counts(self) -> Counts:
        """Files and bytes by state."""
        with self._fresh() as db:
            total, empty, *size = db.execute(
                f"SELECT count(*), coalesce(sum(size = 0), 0), {_wide_sum('size')} FROM inode WHERE {_REG}"
            ).fetchone()
            logical = _joined(*size)
            dirty, dirty_bytes = self._dirty_sums(db)
            (oldest,) = db.execute("SELECT min(changed) FROM inode WHERE flags & 1 AND nlink > 0").fetchone()
            away = _joined(*db.execute(f"SELECT {_wide_sum('length')} FROM extent WHERE local = 0").fetchone())
            proven_bytes = db.execute(
                f"SELECT {_wide_sum('e.length')} FROM extent e JOIN pack p ON p.pack = e.pack "
                "WHERE p.proven >= p.wanted AND p.wanted > 0"
            ).fetchone()
            (packed,) = db.execute(
                "SELECT count(DISTINCT e.inode) FROM pack p JOIN extent e ON e.pack = p.pack "
                "JOIN inode i ON i.inode = e.inode "
                f"WHERE NOT (p.proven >= p.wanted AND p.wanted > 0) AND NOT i.flags & {DIRTY} AND i.nlink > 0"
            ).fetchone()
        proven = total - empty - dirty - packed
        when = None if oldest is None else oldest / 1e9
        return Counts(
            total, empty, dirty, packed, proven, logical, logical - away, dirty_bytes, _joined(*proven_bytes), when
        )

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


class Spool:
    """Inline bytes on their way to the packer: one file a report. The last few reports' files are kept."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / secrets.token_hex(8)
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> tuple[str, int]:
        """Where they can be read once `finish` was called."""
        self._parts.append(data)
        self._size += len(data)
        return str(self._path), self._size - len(data)

    def finish(self) -> None:
        folder = self._path.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        old = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in old[: max(0, len(old) - KEPT_SPOOLS)]:
            path.unlink(missing_ok=True)
        if self._parts:
            self._path.write_bytes(b"".join(self._parts))


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
