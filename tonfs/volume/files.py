"""Bytes of files as POSIX sees them: read, write, truncate, fetched ranges."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from ..errors import FsError
from ..ids import BagId, Inode, PackId
from . import extents as ext
from .api import MAX_FILE_SIZE, Attr, ReadResult, RemoteRange, SetAttr
from .content import write_through
from .contents import INLINE_MAX
from .core import locked
from .node import Node, clamp_time
from .schema import CONTENT, COVERED, DIRTY, RECORD, REMOTE, SEGMENTED, WINDOW_SIZE
from .syncs import Syncs

WINDOW: Final = 1 << 20
"""A write over local packed bytes makes this much around it dirty at once, so that the barrier is rarely paid."""
_SPECIAL: Final = COVERED | RECORD | SEGMENTED
_REG: Final = stat.S_IFREG
_FMT: Final = 0o170000


class Files(Syncs):
    """File contents. See `core.py` for the rules that keep index and content files in step."""

    def _file(self, inode: Inode) -> Node:
        node = self._nodes.get(inode)
        if node is None or self._saved is not None:
            node = self._node(inode)
        if node.mode & _FMT != _REG:
            raise FsError("Not a regular file.", errno.EISDIR if node.is_dir else errno.EINVAL)
        return node

    # Attributes -------------------------------------------------------------------------------------------------

    def mode(self, inode: Inode) -> int:
        """See `Namespace.mode`."""
        node = self._nodes.get(inode)
        if node is None:
            with self.lock:
                node = self._node(inode)
        return node.mode

    @locked
    def setattr(self, inode: Inode, change: SetAttr) -> Attr:
        return self._attr(
            self.set_live(inode, change.mode, change.uid, change.gid, change.atime_ns, change.mtime_ns, change.ctime_ns)
        )

    def set_live(
        self,
        inode: Inode,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
    ) -> Node:
        """See `Namespace.set_live`."""
        with self.lock:
            node = self._node(inode)
            if uid is not None:
                node.uid = uid
            if gid is not None:
                node.gid = gid
            if mode is not None:
                node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
            if atime_ns is not None:
                node.atime = clamp_time(atime_ns)
            if mtime_ns is not None:
                node.mtime = clamp_time(mtime_ns)
            self._touch(node, now=None if ctime_ns is None else clamp_time(ctime_ns))
            if node.blocks < 0:
                self._blocks(node)
            return node

    # Reading ----------------------------------------------------------------------------------------------------

    @locked
    def read(self, inode: Inode, offset: int, length: int) -> ReadResult:
        node = self._file(inode)
        if offset < 0 or length < 0:
            raise FsError("Negative offset or length.", errno.EINVAL)
        end = min(offset + length, node.size)
        if offset >= end:
            return ReadResult(b"", (), node.version, node.size)
        if node.flags & REMOTE:
            return self._read_mixed(node, offset, end)
        return ReadResult(self._local(node, offset, end), (), node.version, node.size)

    def read_into(self, inode: Inode, offset: int, buffer: memoryview) -> int:
        """See `Namespace.read_into`."""
        with self.lock:
            node = self._file(inode)
            count = min(len(buffer), node.size - offset)
            if count <= 0:
                return 0
            flags = node.flags
            if flags & (REMOTE | SEGMENTED) or offset < 0:
                return -1
            if flags & CONTENT:
                try:
                    whole = self._read_content(node, offset, buffer[:count]) == count
                except FileNotFoundError:
                    whole = False
                except OSError as exc:
                    raise self._os_error(exc) from exc
                return count if whole else -1  # lost: `read` knows what to do
            try:
                data = self._inline(node)
            except FsError:
                return -1
            if offset + count > len(data):
                return -1
            buffer[:count] = data[offset : offset + count]
            return count

    def _read_mixed(self, node: Node, start: int, end: int) -> ReadResult:
        """Some ranges are not here, or are zeros that nobody stores."""
        hit = ext.overlapping(self.index, node.inode, start, end)
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
        hit = ext.overlapping(self.index, inode, start, end)
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
            for e in ext.overlapping(self.index, where.inode, offset, end)
            if not e.local and e.pack == where.pack and e.pack_offset - e.offset == shift
        ]
        if not parts:
            return False
        self.space.require()
        self._must_be_whole(node)
        blocks = self._blocks(node)
        view = memoryview(data)
        self._begin()
        for part in parts:
            self._store(node, part.offset, view[part.offset - offset : part.end - offset])
        for part in parts:
            ext.carve(self.index, node.inode, part.offset, part.end)
            ext.insert(self.index, node.inode, [part.part(part.offset, part.end, local=True)])
        ext.merge(self.index, node.inode, offset, end)
        if node.placed:
            self._order(node.inode)
        self._reshape(node)
        node.blocks = blocks  # fetching changes nothing that stat shows
        self._touch(node, times=False)
        return True

    # Writing ----------------------------------------------------------------------------------------------------

    def _reshape(self, node: Node) -> None:
        """Set the flags that follow from the extents."""
        covered, remote, whole = (
            ext.shape(self.index, node.inode, node.size) if node.has(COVERED) else (False, False, False)
        )
        node.set(COVERED, covered)
        node.set(REMOTE, remote)
        node.set(DIRTY, node.size > 0 and not whole)

    def _vouched(self, node: Node, start: int, end: int) -> bool:
        """An extent or record says what the content file has in [start, end). Inline bytes and the index change in
        one transaction, they need no care."""
        if not node.placed:
            return False
        if node.flags & RECORD and self._record_current(node):
            return True
        return bool(node.flags & COVERED) and any(e.local for e in ext.overlapping(self.index, node.inode, start, end))

    def _record_current(self, node: Node) -> bool:
        row = self._record_row(node)
        return row is not None and row[1] == node.version

    def _changed_bytes(self, node: Node) -> None:
        now = self.now_ns()
        node.mtime = node.changed = node.ctime = now
        node.version = max(node.version, self._version_base) + 1
        if node.placed or node.flags & REMOTE:
            node.blocks = -1
        else:
            node.blocks = (len(node.data or b"") + 4095 >> 12) << 3
        self._gen = node.gen = self._gen + 1
        self._pending.nodes[node.inode] = node

    def _stop_vouching(self, node: Node, start: int, end: int) -> None:
        """Rule 1: the index forgets, durably, what it knew of local bytes that are about to change."""
        if node.flags & COVERED:
            self._begin()
            low, high = start // WINDOW * WINDOW, -(-end // WINDOW) * WINDOW
            for extent in ext.overlapping(self.index, node.inode, low, high):
                if extent.local:
                    part = extent.part(low, high)
                    ext.carve(self.index, node.inode, part.offset, part.end)
            # Where zeros were vouched for, the content file has a hole.
            self._reshape(node)
        self._changed_bytes(node)
        self._barrier()

    @locked
    def would_wait(self, inode: Inode, offset: int, length: int) -> bool:
        node = self._nodes.get(inode)
        if node is None or not node.placed:
            return False
        if node.shrunk > self._durable and offset + length > node.size:
            return True
        return bool(node.flags & (COVERED | RECORD)) and self._vouched(node, offset, offset + length)

    def write(self, inode: Inode, offset: int, data: bytes | memoryview) -> int:
        with self.lock:
            node = self._file(inode)
            length = len(data)
            end = offset + length
            if offset < 0:
                raise FsError("Negative offset.", errno.EINVAL)
            if end > MAX_FILE_SIZE:
                raise FsError("The offset is over the limit.", errno.EFBIG)
            if not length:
                return 0
            if self.space.low:
                self.space.require()
            try:
                if node.flags & _SPECIAL:
                    self._write_special(node, offset, end, data)
                else:
                    self._write_plain(node, offset, end, data)
            except OSError as exc:
                self._changed_bytes(node)  # some of it may have been written
                raise self._os_error(exc) from exc
            if self._data_waiting > 1 << 22:
                self._commit_if_large()
            return length

    def pour(self, staged: Inode, data: bytes | memoryview) -> None:
        """See `Namespace.pour`. What is not simple is a `write`."""
        with self.lock:
            node = self._file(staged)
            offset, end = node.size, node.size + len(data)
            simple = not node.flags & _SPECIAL and not node.shrunk and INLINE_MAX < end <= WINDOW_SIZE
            if not simple or not data:
                self.write(staged, offset, data)
                return
            self.space.require()
            try:
                if not node.placed:
                    self._spill(node, end)
                blob = Inode(node.blob)
                fd = self.content.duplicate(blob)
            except OSError as exc:
                raise self._os_error(exc) from exc
        if fd is None:
            raise self._lost(node, "its content file")
        failure: OSError | None = None
        try:
            write_through(fd, offset, data)
        except OSError as exc:
            failure = exc
        finally:
            os.close(fd)
        with self.lock:
            node = self._file(staged)
            self._changed_bytes(node)
            self._note_written(blob)  # a sync that began before the last byte was there does not count
            if failure is None:
                node.size, node.size_gen = end, node.gen
                node.set(DIRTY)
        if failure is not None:
            raise self._os_error(failure) from failure

    def _write_plain(self, node: Node, offset: int, end: int, data: bytes | memoryview) -> None:
        self._store(node, offset, data)
        grown = end > node.size
        if grown:
            node.size = end
        self._changed_bytes(node)
        flags = node.flags
        if grown or not flags & CONTENT or not flags & DIRTY:
            node.size_gen = node.gen
            node.flags = flags | DIRTY

    def _write_special(self, node: Node, offset: int, end: int, data: bytes | memoryview) -> None:
        if self._vouched(node, offset, end):
            self._stop_vouching(node, offset, end)
        if node.flags & COVERED:
            self._begin()
        self._store(node, offset, data)
        if node.flags & COVERED and ext.carve(self.index, node.inode, offset, end) and node.placed:
            # Bytes that were only remote: the index may forget the pack once the new ones are on the disk.
            self._order(node.inode)
        node.size = max(node.size, end)
        self._changed_bytes(node)
        node.size_gen = node.gen
        if node.flags & COVERED:
            self._reshape(node)
        else:
            node.set(DIRTY)

    @locked
    def truncate(self, inode: Inode, size: int) -> Attr:
        return self._attr(self._resize(inode, size))

    def resize(self, inode: Inode, size: int) -> Node:
        """See `Namespace.resize`."""
        with self.lock:
            try:
                node = self._resize(inode, size)
                if node.blocks < 0:
                    self._blocks(node)
                return node
            except OSError as exc:
                raise self._os_error(exc) from exc

    def _resize(self, inode: Inode, size: int) -> Node:
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
        return node

    def _grow(self, node: Node, size: int) -> None:
        self.space.require()
        if node.flags & RECORD and node.placed and self._record_current(node):
            self._stop_vouching(node, 0, 0)
        self._extend(node, size)
        node.size = size
        self._changed_bytes(node)
        node.size_gen = node.gen
        if node.flags & COVERED:
            self._reshape(node)
        node.set(DIRTY)

    def _shrink(self, node: Node, size: int) -> None:
        """Rule 3: content files are cut when the index knows the shorter file durably (`Contents._trim`)."""
        if node.flags & COVERED:
            self._begin()
            ext.carve(self.index, node.inode, size, node.size)
        self._shorten(node, size)
        node.size = size
        self._changed_bytes(node)
        node.size_gen = node.gen
        if node.inode in self._trimming:
            node.shrunk = node.gen
        self._reshape(node)
