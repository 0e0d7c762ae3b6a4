"""The agent's side of the volume: what is dirty, which packs hold what, giving local copies up."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ..clock import Clock
from ..errors import FsError, NotFound, Refused
from ..ids import BagId, Inode, PackId
from ..log import get_logger
from . import extents as ext
from . import segments as seg
from .api import Change, ReadResult
from .core import locked
from .node import Node
from .schema import COVERED, DIRTY, SEGMENTED
from .uploads import Uploads

TOLD_FOR: Final = 300 * 10**9
"""Nanoseconds for which the agent's word about the replicas of a pack counts. It repeats it every minute; of one that
does not run nothing is known."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PackedFile:
    """Ranges of one inode at one version that a new pack holds: (offset in file, length, offset in the pack)."""

    inode: Inode
    version: int
    ranges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Committed:
    pack: PackId
    committed: tuple[Inode, ...]
    stale: tuple[Inode, ...]
    """Changed or vanished since they were read; they stay dirty."""


@dataclass(frozen=True, slots=True)
class Evicted:
    files: int
    bytes: int
    bags: tuple[BagId, ...]
    kept: tuple[tuple[Inode, str], ...]
    """Files of which something had to stay, and why."""


class Packs(Uploads):
    """Packs, extents, eviction."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        super().__init__(directory, clock)
        self._told: dict[BagId, int] = {}
        """When the agent last said how many replicas of a bag are proven, `now_ns`."""

    def told_lately(self, bag_id: BagId) -> bool:
        """Is what the index says of this pack's replicas the word of an agent that is at work?"""
        return 0 <= self.now_ns() - self._told.get(bag_id, -TOLD_FOR) < TOLD_FOR

    def commit_pack(self, bag_id: BagId, size: int, files: Sequence[PackedFile]) -> Committed:
        """Record that a bag holds these ranges; durable when it returns. Idempotent. Slow.

        Ranges that are not dirty (any more) keep what they have. Holes of a file whose data is packed become zeros
        that nobody stores.
        """
        with self.lock:
            result = self._commit_pack(bag_id, size, files)
        self.commit()
        return result

    @locked
    def _commit_pack(self, bag_id: BagId, size: int, files: Sequence[PackedFile]) -> Committed:
        done: list[Inode] = []
        stale: list[Inode] = []
        with self._atomic():
            self._sql(
                "INSERT OR IGNORE INTO pack (bag_id, size, created) VALUES (?, ?, ?)", (bag_id, size, self.now_ns())
            )
            (pack,) = self.db.execute("SELECT pack FROM pack WHERE bag_id = ?", (bag_id,)).fetchone()
            for item in files:
                node = self._unchanged(item.inode, item.version)
                if node is None:
                    stale.append(item.inode)
                else:
                    self._cover(node, pack, item.ranges)
                    done.append(item.inode)
        return Committed(PackId(pack), tuple(done), tuple(stale))

    def _unchanged(self, inode: Inode, version: int) -> Node | None:
        try:
            node = self._node(inode)
        except FsError:
            return None
        return node if node.is_file and node.version == version and node.nlink > 0 else None

    def _is_whole(self, node: Node) -> bool:
        """Bytes that were lost must not be taken for a hole."""
        try:
            self._must_be_whole(node)
        except FsError:
            return False
        return True

    def _cover(self, node: Node, pack: int, ranges: Iterable[tuple[int, int, int]]) -> None:
        for offset, length, pack_offset in ranges:
            end = offset + length
            if offset < 0 or length <= 0 or pack_offset < 0 or end > node.size:
                raise FsError(f"A packed range of inode {node.inode} lies outside the file.", errno.EINVAL)
            whole = ext.Extent(offset, length, pack, pack_offset, True)
            free = ext.gaps(ext.overlapping(self.index, node.inode, offset, end), offset, end)
            ext.insert(self.index, node.inode, [whole.part(low, high) for low, high in list(free)])
            node.set(COVERED)
        self._order(node.inode)
        self._cover_holes(node)
        ext.merge(self.index, node.inode, 0, node.size)
        self._reshape(node)
        self._touch(node, times=False)

    def _cover_holes(self, node: Node) -> None:
        """Uncovered ranges without data become zeros; ranges with data stay dirty, and all do when some were lost."""
        gaps = list(ext.gaps(ext.overlapping(self.index, node.inode, 0, node.size), 0, node.size))
        if gaps and not self._is_whole(node):
            return
        for low, high in gaps:
            data = self._data_ranges(node, low, high)
            holes = ext.gaps((ext.Extent(at, length, None, 0, True) for at, length in data), low, high)
            zeros = [ext.Extent(start, end - start, None, 0, True) for start, end in holes]
            ext.insert(self.index, node.inode, zeros)
            if zeros:
                node.set(COVERED)

    @locked
    def cover_zeros(self, inode: Inode, version: int) -> bool:
        """A dirty file without a byte of data needs no pack. False when it changed or has data after all."""
        node = self._unchanged(inode, version)
        if node is None:
            return False
        with self._atomic():
            self._begin()
            self._cover(node, 0, ())
        return not node.dirty

    @locked
    def pack_states(
        self, states: Iterable[tuple[BagId, int, int]], proved: Mapping[BagId, int] = MappingProxyType({})
    ) -> None:
        """(bag, proven replicas, wanted replicas) as the agent knows them now; `proved`: since when (nanoseconds) each
        of the proven replicas has passed an audit."""
        for bag_id, proven, wanted in states:
            since = proved.get(bag_id, 0) if proven else 0
            self._sql(
                "UPDATE pack SET proven = ?, wanted = ?, proved = ? WHERE bag_id = ?", (proven, wanted, since, bag_id)
            )
            self._told[bag_id] = self.now_ns()

    def drop_pack(self, bag_id: BagId) -> None:
        """Forget a bag that no file refers to; durable when it returns. Raises Refused, NotFound. Slow."""
        self._drop_pack(bag_id)
        self.commit()

    @locked
    def _drop_pack(self, bag_id: BagId) -> None:
        self._commit_locked()  # the index still has the extents of files that were just removed
        row = self.db.execute("SELECT pack FROM pack WHERE bag_id = ?", (bag_id,)).fetchone()
        if row is None:
            raise NotFound(f"No pack has the bag {bag_id.hex()}.")
        if self.db.execute("SELECT 1 FROM extent WHERE pack = ? LIMIT 1", row).fetchone() is not None:
            raise Refused(f"Files still refer to the bag {bag_id.hex()}.")
        self._sql("DELETE FROM pack WHERE pack = ?", row)
        self._told.pop(bag_id, None)

    # Local copies that the disk has lost -------------------------------------------------------------------------

    def read(self, inode: Inode, offset: int, length: int) -> ReadResult:
        """See `Namespace.read`. What the disk has lost and proven replicas have is remote from then on."""
        try:
            return super().read(inode, offset, length)
        except FsError as exc:
            if exc.errno != errno.EIO or not self._let_go_of_lost(inode):
                raise
        return super().read(inode, offset, length)

    @locked
    def _let_go_of_lost(self, inode: Inode) -> bool:
        """Only when every local byte may be evicted: what came back would lie beside a hole that nobody wrote."""
        if inode not in self._damaged:
            return False
        node = self._node(inode)
        packs = self.db.execute(
            "SELECT DISTINCT p.bag_id, p.proven, p.wanted FROM extent e JOIN pack p ON p.pack = e.pack "
            "WHERE e.inode = ? AND e.local = 1",
            (inode,),
        ).fetchall()
        safe = all(proven >= wanted > 0 and self.told_lately(BagId(bytes(bag))) for bag, proven, wanted in packs)
        if node.flags & DIRTY or not safe or not self._evict_one(inode, set(), []):
            return False
        log.warning("a file's local copy was lost, its replicas are read instead", inode=inode)
        return True

    # Eviction ---------------------------------------------------------------------------------------------------

    def evict(self, inodes: Sequence[Inode]) -> Evicted:
        """Give up local copies of what enough proven replicas hold. Dirty and unproven bytes stay. Slow."""
        files = freed = 0
        bags: set[BagId] = set()
        kept: list[tuple[Inode, str]] = []
        for start in range(0, len(inodes), 256):
            part = inodes[start : start + 256]
            gone: list[Inode] = []
            with self.lock:
                for inode in part:
                    size = self._evict_one(inode, bags, kept)
                    if size:
                        gone.append(inode)
                        freed += size
            if gone:
                self.commit()
                for inode in gone:
                    self._release(inode)
                self._tell(Change(inodes=tuple(gone)))
                files += len(gone)
        return Evicted(files, freed, tuple(sorted(bags)), tuple(kept))

    @locked
    def _evict_one(self, inode: Inode, bags: set[BagId], kept: list[tuple[Inode, str]]) -> int:
        """Mark what may go as remote; bytes that became remote."""
        try:
            node = self._node(inode)
        except FsError:
            return 0
        if not node.is_file or not node.size:
            return 0
        if node.flags & DIRTY:
            kept.append((inode, "not packed yet"))
        packs = self.db.execute(
            "SELECT p.pack, p.bag_id, p.proven, p.wanted, sum(e.length) FROM extent e JOIN pack p ON p.pack = e.pack "
            "WHERE e.inode = ? AND e.local = 1 GROUP BY p.pack",
            (inode,),
        ).fetchall()
        blocks = self._blocks(node)
        freed = 0
        for pack, bag_id, proven, wanted, length in packs:
            if not proven >= wanted > 0:
                kept.append((inode, f"{proven} of {wanted} replicas are proven"))
                continue
            if not self.told_lately(BagId(bytes(bag_id))):
                kept.append((inode, "the agent has not told of its replicas lately"))
                continue
            self._sql("UPDATE extent SET local = 0 WHERE inode = ? AND pack = ?", (inode, pack))
            bags.add(BagId(bytes(bag_id)))
            freed += length
        if freed:
            ext.merge(self.index, inode, 0, node.size)
            self._reshape(node)
            node.blocks = blocks
            left = self.db.execute(
                "SELECT 1 FROM extent WHERE inode = ? AND local = 1 AND pack IS NOT NULL LIMIT 1", (inode,)
            ).fetchone()
            if left is None and not node.flags & DIRTY:
                self._drop_local(node)
            elif node.flags & SEGMENTED:
                self._drop_remote_segments(node)
            self._touch_size(node, times=False)
        return freed

    def _drop_remote_segments(self, node: Node) -> None:
        """Bytes shared with other files: this one does not need them here any more."""
        kept = self._segments(node)
        for extent in ext.overlapping(self.index, node.inode, 0, node.size):
            if not extent.local:
                kept = [s for s in kept if s.own] + seg.without(
                    [s for s in kept if not s.own], extent.offset, extent.end
                )
        self._set_segments(node, seg.merged(kept))

    @locked
    def _release(self, inode: Inode) -> None:
        """After the commit: give the disk blocks back, unless the bytes were written or fetched again meanwhile."""
        try:
            node = self._node(inode)
        except FsError:
            return
        if node.placed:
            for extent in ext.overlapping(self.index, inode, 0, node.size):
                if not extent.local:
                    self._punch(node, extent.offset, extent.length)
