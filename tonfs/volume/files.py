"""Bytes of files: read, write, truncate, fetched ranges, fsync."""

from __future__ import annotations

import errno
import stat
from typing import Final

from ..errors import FsError
from ..ids import BagId, Inode, PackId
from ..log import get_logger
from . import extents as ext
from .api import MAX_FILE_SIZE, Attr, ReadResult, RemoteRange, SetAttr
from .core import locked
from .names import Names
from .node import Node, clamp_time
from .schema import CONTENT, COVERED, DIRTY, RECORD, REMOTE

log = get_logger(__name__)

WINDOW: Final = 1 << 20
"""A write over local packed bytes makes this much around it dirty at once, so that the barrier is rarely paid."""


class Files(Names):
    """File contents. See `core.py` for the rules that keep index and content files in step."""

    def _file(self, inode: Inode) -> Node:
        node = self._node(inode)
        if not node.is_file:
            raise FsError("Not a regular file.", errno.EISDIR if node.is_dir else errno.EINVAL)
        return node

    # Attributes -------------------------------------------------------------------------------------------------

    @locked
    def setattr(self, inode: Inode, change: SetAttr) -> Attr:
        node = self._node(inode)
        if change.uid is not None:
            node.uid = change.uid
        if change.gid is not None:
            node.gid = change.gid
        if change.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(change.mode)
        if change.atime_ns is not None:
            node.atime = clamp_time(change.atime_ns)
        if change.mtime_ns is not None:
            node.mtime = clamp_time(change.mtime_ns)
        self._touch(node, now=None if change.ctime_ns is None else clamp_time(change.ctime_ns))
        return self._attr(node)

    # Reading ----------------------------------------------------------------------------------------------------

    @locked
    def read(self, inode: Inode, offset: int, length: int) -> ReadResult:
        node = self._file(inode)
        if offset < 0 or length < 0:
            raise FsError("Negative offset or length.", errno.EINVAL)
        end = min(offset + length, node.size)
        if offset >= end:
            return ReadResult(b"", (), node.version, node.size)
        if not node.flags & REMOTE and node.flags & CONTENT:
            return ReadResult(self._local(node, offset, end), (), node.version, node.size)
        return self._read_mixed(node, offset, end)

    def _local(self, node: Node, start: int, end: int) -> bytes:
        """Bytes of the content file. What should be there and is not is an error, never zeros."""
        try:
            data = self.content.read(node.inode, start, end - start)
        except FileNotFoundError:
            log.error("a content file is missing", inode=node.inode)
            raise FsError(f"Inode {node.inode} has lost its content file.", errno.EIO) from None
        if len(data) != end - start:
            log.error("a content file is too short", inode=node.inode, size=node.size)
            raise FsError(f"The content file of inode {node.inode} is too short.", errno.EIO)
        return data

    def _read_mixed(self, node: Node, start: int, end: int) -> ReadResult:
        """Some ranges are not here, or are zeros that nobody stores."""
        hit = ext.overlapping(self.db, node.inode, start, end)
        away = [e.part(start, end) for e in hit if not e.local]
        if away:
            return ReadResult(b"", tuple(self._remote(node, e) for e in away), node.version, node.size)
        parts: list[bytes] = []
        position = start
        for extent in (e.part(start, end) for e in hit if e.pack is None):
            if extent.offset > position:
                parts.append(self._local(node, position, extent.offset))
            parts.append(bytes(extent.length))
            position = extent.end
        if position < end:
            parts.append(self._local(node, position, end))
        return ReadResult(b"".join(parts), (), node.version, node.size)

    def _remote(self, node: Node, extent: ext.Extent) -> RemoteRange:
        row = self.db.execute("SELECT bag_id FROM pack WHERE pack = ?", (extent.pack,)).fetchone()
        if row is None or extent.pack is None:
            raise FsError(f"Inode {node.inode} refers to an unknown pack.", errno.EIO)
        return RemoteRange(
            node.inode,
            node.version,
            extent.offset,
            extent.length,
            PackId(extent.pack),
            BagId(bytes(row[0])),
            extent.pack_offset,
        )

    @locked
    def remote_ranges(self, inode: Inode, start: int, end: int) -> tuple[RemoteRange, ...]:
        """What of [start, end) is not here; for read-ahead and `tonfs fetch`."""
        node = self._file(inode)
        if not node.flags & REMOTE:
            return ()
        end = min(end, node.size)
        hit = ext.overlapping(self.db, inode, start, end)
        return tuple(self._remote(node, e.part(start, end)) for e in hit if not e.local)

    @locked
    def pack_size(self, pack: PackId) -> int:
        """Bytes of a pack's data; 0 when it is not known."""
        row = self.db.execute("SELECT size FROM pack WHERE pack = ?", (pack,)).fetchone()
        return row[0] if row else 0

    @locked
    def fill(self, where: RemoteRange, offset: int, data: bytes) -> bool:
        try:
            node = self._file(where.inode)
        except FsError:
            return False
        end = offset + len(data)
        shift = where.pack_offset - where.offset
        parts = [
            e.part(offset, end)
            for e in ext.overlapping(self.db, where.inode, offset, end)
            if not e.local and e.pack == where.pack and e.pack_offset - e.offset == shift
        ]
        if not parts:
            return False
        self.space.require()
        self._need_content(node)
        view = memoryview(data)
        for part in parts:
            self.content.write(node.inode, part.offset, view[part.offset - offset : part.end - offset])
        self._begin()
        for part in parts:
            ext.carve(self.db, node.inode, part.offset, part.end)
            ext.insert(self.db, node.inode, [part.part(part.offset, part.end, local=True)])
        ext.merge(self.db, node.inode, offset, end)
        self._order(node.inode)
        blocks = self._blocks(node)
        self._reshape(node)
        node.blocks = blocks  # fetching changes nothing that stat shows
        self._touch(node, times=False)
        return True

    # Writing ----------------------------------------------------------------------------------------------------

    def _reshape(self, node: Node) -> None:
        """Set the flags that follow from the extents."""
        covered, remote, whole = (
            ext.shape(self.db, node.inode, node.size) if node.has(COVERED) else (False, False, False)
        )
        node.set(COVERED, covered)
        node.set(REMOTE, remote)
        node.set(DIRTY, node.size > 0 and not whole)

    def _need_content(self, node: Node) -> None:
        """A content file of at least the file's length; bytes it may have beyond mean nothing."""
        if not node.flags & CONTENT:
            self.content.create(node.inode)
            node.set(CONTENT)
            if node.size:
                self.content.truncate(node.inode, node.size)

    def _vouched(self, node: Node, start: int, end: int) -> bool:
        """An extent or record says what the content file has in [start, end)."""
        if node.flags & RECORD and self._record_current(node):
            return True
        return bool(node.flags & COVERED) and any(e.local for e in ext.overlapping(self.db, node.inode, start, end))

    def _record_current(self, node: Node) -> bool:
        row = self.db.execute("SELECT version FROM record WHERE inode = ?", (node.inode,)).fetchone()
        return row is not None and row[0] == node.version

    def _changed_bytes(self, node: Node) -> None:
        now = self.now_ns()
        node.mtime = node.changed = now
        node.version += 1
        node.blocks = -1
        self._touch(node, now=now)

    def _stop_vouching(self, node: Node, start: int, end: int) -> None:
        """Rule 1: the index forgets, durably, what it knew of local bytes that are about to change."""
        if node.flags & COVERED:
            self._begin()
            low, high = start // WINDOW * WINDOW, -(-end // WINDOW) * WINDOW
            for extent in ext.overlapping(self.db, node.inode, low, high):
                if extent.local:
                    part = extent.part(low, high)
                    ext.carve(self.db, node.inode, part.offset, part.end)
            # Where zeros were vouched for, the content file has a hole.
            self._need_content(node)
            self._reshape(node)
        self._changed_bytes(node)
        self._barrier()

    @locked
    def would_wait(self, inode: Inode, offset: int, length: int) -> bool:
        node = self._nodes.get(inode)
        if node is None or not node.flags & (COVERED | RECORD):
            return False
        return self._vouched(node, offset, offset + length)

    @locked
    def write(self, inode: Inode, offset: int, data: bytes | memoryview) -> int:
        node = self._file(inode)
        length = len(data)
        end = offset + length
        if offset < 0:
            raise FsError("Negative offset.", errno.EINVAL)
        if end > MAX_FILE_SIZE:
            raise FsError("The offset is over the limit.", errno.EFBIG)
        if not length:
            return 0
        self.space.require()
        if node.flags & (COVERED | RECORD) and self._vouched(node, offset, end):
            self._stop_vouching(node, offset, end)
        self._need_content(node)
        if end > node.size:
            self._cut_tail(node)
        try:
            self.content.write(inode, offset, data)
        except OSError:
            self._changed_bytes(node)  # some of it may have been written
            raise
        if node.flags & COVERED:
            self._begin()
            if ext.carve(self.db, inode, offset, end):
                # Bytes that were only remote: the index may forget the pack once the new ones are on the disk.
                self._order(inode)
        grown = end > node.size
        if grown:
            node.size = end
        self._changed_bytes(node)
        if grown or node.flags & COVERED or not node.flags & DIRTY:
            node.size_gen = node.gen
        if node.flags & COVERED:
            self._reshape(node)
        else:
            node.set(DIRTY)
        return length

    def _cut_tail(self, node: Node) -> None:
        """The file is about to grow: what the content file has beyond its end must read as zeros."""
        if self.content.length(node.inode) > node.size:
            self.content.truncate(node.inode, node.size)

    @locked
    def truncate(self, inode: Inode, size: int) -> Attr:
        node = self._file(inode)
        if size < 0:
            raise FsError("Negative size.", errno.EINVAL)
        if size > MAX_FILE_SIZE:
            raise FsError("The size is over the limit.", errno.EFBIG)
        if size > node.size:
            self._grow(node, size)
        elif size < node.size:
            self._shrink(node, size)
        else:
            now = self.now_ns()
            node.mtime = now
            self._touch(node, now=now)
        return self._attr(node)

    def _grow(self, node: Node, size: int) -> None:
        self.space.require()
        if node.flags & RECORD and self._record_current(node):
            self._stop_vouching(node, 0, 0)
        self._need_content(node)
        self._cut_tail(node)
        self.content.truncate(node.inode, size)
        node.size = size
        self._changed_bytes(node)
        node.size_gen = node.gen
        node.set(DIRTY)

    def _shrink(self, node: Node, size: int) -> None:
        """Rule 3: the commit comes first, and is durable when the disk may know the longer file."""
        if node.flags & COVERED:
            self._begin()
            ext.carve(self.db, node.inode, size, node.size)
        node.size = size
        self._changed_bytes(node)
        node.size_gen = node.gen
        self._reshape(node)
        if not node.flags & CONTENT:
            return
        self._barrier()
        if self.content.length(node.inode) > size:
            self.content.truncate(node.inode, size)

    # Durability -------------------------------------------------------------------------------------------------

    def sync(self, inode: Inode, *, data_only: bool = False) -> None:
        """See `Namespace.sync`."""
        with self.lock:
            node = self._node(inode)
            has_content, named = bool(node.flags & CONTENT), node.nlink > 0
            need = node.size_gen if data_only else node.gen
        if has_content:
            try:
                self._sync_content(inode)
            except OSError as exc:
                raise self._os_error(exc) from exc
        if named and need > self._durable:
            self.commit()

    def sync_content(self, inode: Inode) -> None:
        """Only the bytes; for staged files."""
        try:
            self._sync_content(inode)
        except OSError as exc:
            raise self._os_error(exc) from exc
