"""The local bytes of files, in one of three places: inline, one content file, or segments of several.

* inline: up to `INLINE_MAX` bytes in memory, written behind into the index. What lies behind them is a hole, so a file
  of any size without data is inline, too.
* CONTENT: one content file with the same offsets, at least as long as the file (up to `WINDOW_SIZE`).
* SEGMENTED: parts of several content files. Beyond a window each terabyte gets a content file of its own; bytes may be
  shared with other inodes (`sharing.py`) and are then never changed in place: a write goes to a new place.

What should be there and is not is an error, never zeros. The layers above decide what may be changed when.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from ..errors import FsError
from ..ids import Inode
from ..log import get_logger
from . import segments as seg
from .names import Names
from .node import Node
from .records import RECORD_COLUMNS
from .schema import CONTENT, INLINE, RECORD, REMOTE, SEGMENTED, WINDOW_SIZE
from .segments import Segment

log = get_logger(__name__)

INLINE_MAX: Final = 16 << 10
MOST_DAMAGED: Final = 1000
"""Files that are remembered as damaged, and told of in the log."""
_PAGE: Final = 4096
_RECORD_SQL: Final = f"SELECT inode, {', '.join(RECORD_COLUMNS)} FROM record WHERE inode = ?"


class Contents(Names):
    """See the module."""

    _damaged: set[Inode]
    """Files of which bytes were found missing."""

    def _open(self) -> None:
        super()._open()
        self._damaged = set()

    # Loading ----------------------------------------------------------------------------------------------------

    def _inline(self, node: Node) -> bytearray:
        data = node.data
        if data is None:
            data = bytearray()
            if node.flags & INLINE:
                row = self._read.execute("SELECT data FROM inline WHERE inode = ?", (node.inode,)).fetchone()
                if row is None:
                    raise self._lost(node, "its bytes in the index")
                data += row[0]
                self._data_kept += len(data)
            node.data = data
        return data

    def _segments(self, node: Node) -> list[Segment]:
        if node.segments is None:
            rows = self.db.execute(
                "SELECT offset, length, blob, blob_offset, own FROM segment WHERE inode = ? ORDER BY offset",
                (node.inode,),
            ).fetchall()
            node.segments = [Segment(row[0], row[1], Inode(row[2]), row[3], bool(row[4])) for row in rows]
        return node.segments

    def _lost(self, node: Node, what: str) -> FsError:
        if node.inode not in self._damaged and len(self._damaged) < MOST_DAMAGED:
            self._damaged.add(node.inode)
            log.error("bytes of a file are missing on the disk", inode=node.inode, size=node.size, what=what)
        return FsError(f"Inode {node.inode} has lost {what}.", errno.EIO)

    def _record_row(self, node: Node) -> tuple[Any, ...] | None:
        if node.record is None and node.flags & RECORD:
            node.record = self._read.execute(_RECORD_SQL, (node.inode,)).fetchone()
        return node.record

    def _blobs(self, inode: Inode) -> list[Inode]:
        node = self._nodes.get(inode)
        if node is None or not node.placed:
            return []
        blobs = [Inode(node.blob)] if node.flags & CONTENT else list({s.blob for s in self._segments(node)})
        return [blob for blob in blobs if blob in self._unsynced or (self._suspect and blob not in self._synced)]

    def _blocks(self, node: Node) -> int:
        if node.blocks < 0:
            if node.inode in self._trimming:  # what lies behind its end goes with the next commit
                pages = sum(-(-length // _PAGE) for _, length in self._data_ranges(node, 0, node.size))
                blocks = pages * (_PAGE // 512)
            elif node.flags & CONTENT:
                blocks = self.content.blocks(Inode(node.blob))
            elif node.flags & SEGMENTED:
                blocks = self._segment_blocks(node)
            else:
                blocks = -(-len(self._inline(node)) // _PAGE) * (_PAGE // 512)
            if node.flags & REMOTE:
                (away,) = self.db.execute(
                    "SELECT coalesce(sum(length), 0) FROM extent WHERE inode = ? AND local = 0", (node.inode,)
                ).fetchone()
                blocks += -(-away // 512)
            node.blocks = blocks
            node.kept_gen = -1  # what the mount keeps shows another number
        return node.blocks

    def _segment_blocks(self, node: Node) -> int:
        """Content files of its own count as they are, of shared ones the share."""
        own: set[Inode] = set()
        shared = 0
        for segment in self._segments(node):
            if segment.own:
                own.add(segment.blob)
            else:
                shared += -(-segment.length // 512)
        return shared + sum(self.content.blocks(blob) for blob in own)

    # Reading ----------------------------------------------------------------------------------------------------

    def _local(self, node: Node, start: int, end: int) -> bytes:
        """Local bytes of [start, end), which lies within the file."""
        if node.flags & CONTENT:
            return self._from_blob(node, Inode(node.blob), start, end - start)
        if node.flags & SEGMENTED:
            parts = [
                bytes(high - low) if part is None else self._from_blob(node, part.blob, part.blob_offset, high - low)
                for low, high, part in seg.pieces(self._segments(node), start, end)
            ]
            return parts[0] if len(parts) == 1 else b"".join(parts)
        data = bytes(self._inline(node)[start:end])
        return data if len(data) == end - start else data + bytes(end - start - len(data))

    def _from_blob(self, node: Node, blob: Inode, offset: int, length: int) -> bytes:
        try:
            data = self.content.read(blob, offset, length)
        except FileNotFoundError:
            raise self._lost(node, "its content file") from None
        if len(data) != length:
            raise self._lost(node, "the end of its content file")
        return data

    def _data_ranges(self, node: Node, start: int, end: int) -> list[tuple[int, int]]:
        """(offset, length) of what is not a hole."""
        if node.flags & CONTENT:
            return self.content.data_ranges(Inode(node.blob), start, end)
        if node.flags & SEGMENTED:
            out = []
            for part in seg.overlapping(self._segments(node), start, end):
                found = self.content.data_ranges(part.blob, part.blob_offset, part.blob_offset + part.length)
                out += [(at - part.blob_offset + part.offset, length) for at, length in found]
            return out
        end = min(end, len(self._inline(node)))
        return [(start, end - start)] if end > start else []

    # Writing ----------------------------------------------------------------------------------------------------

    def _store(self, node: Node, offset: int, data: bytes | memoryview) -> None:
        """Put bytes into their place. What lies between the end of the file and `offset` reads as zeros afterwards.

        Raises OSError; some bytes may have been written then.
        """
        end = offset + len(data)
        if not node.placed:
            if end <= INLINE_MAX:
                self._store_inline(node, offset, data)
                return
            self._spill(node, end)
        if node.flags & CONTENT:
            if end <= WINDOW_SIZE:
                if node.shrunk < 0 or (node.shrunk and end > node.size):
                    self._mind_tail(node, grows=end > node.size)
                blob = Inode(node.blob)
                self._note_written(blob)
                self.content.write(blob, offset, data)
                return
            self._to_segments(node)
        self._store_segments(node, offset, memoryview(data))

    def _store_inline(self, node: Node, offset: int, data: bytes | memoryview) -> None:
        kept = node.data
        if kept is None:
            kept = self._inline(node)
        before = len(kept)
        if offset > before:
            kept += bytes(offset - before)
        kept[offset : offset + len(data)] = data
        grown = len(kept) - before
        self._data_kept += grown
        self._data_waiting += grown if node.data_changed else len(kept)
        node.data_changed = True
        node.flags |= INLINE

    def _new_blob(self, node: Node) -> Inode:
        """A number for a content file: the inode's own, or, when the index knows the inode already, one that is not in
        the index yet: recovery then sees that nothing refers to the file, should a crash come before the commit."""
        number = self._new_inode() if node.blob or node.stored else node.inode
        node.blob, node.safe = number, 0
        self._new_blobs = True
        return number

    def _spill(self, node: Node, end: int, *, segmented: bool = False) -> None:
        """From inline to a content file (or segments, when the file reaches beyond the first window)."""
        data = self._inline(node)
        if segmented or max(end, node.size) > WINDOW_SIZE:
            node.set(SEGMENTED)
            node.segments = []
            if data:
                self._store_segments(node, 0, memoryview(bytes(data)))
        else:
            blob = self._new_blob(node)
            self.content.create(blob)
            self._note_written(blob)
            node.set(CONTENT)
            if data:
                self.content.write(blob, 0, bytes(data))
            if node.size:
                self.content.truncate(blob, node.size)
            node.shrunk = 0
        node.set(INLINE, False)
        if (node.stored and node.size) or node.inode in self._replacing:
            self._order(node.inode)  # rule 2: until the commit these bytes, or that it is a hole, are in the index
        node.data_changed = node.stored
        node.data = None

    def _to_segments(self, node: Node) -> None:
        """From one content file to segments; its bytes stay where they are."""
        old = Segment(0, min(node.size, WINDOW_SIZE), Inode(node.blob), 0, True)
        node.set(CONTENT, False)
        node.set(SEGMENTED)
        node.segments = []
        self._set_segments(node, [old] if old.length else [])
        if not old.length:
            self._doom(old.blob, at_once=not node.stored)

    def _store_segments(self, node: Node, offset: int, data: memoryview) -> None:
        fresh: list[Segment] = []
        for low, high, part in list(seg.pieces(self._segments(node), offset, offset + len(data))):
            if part is not None and part.own:
                self._must_be_whole(node, (part,))
                self._to_blob(part.blob, part.blob_offset, data[low - offset : high - offset])
                continue
            while low < high:  # window by window
                until = min(high, (low // WINDOW_SIZE + 1) * WINDOW_SIZE)
                blob, base = self._own_blob(node, low // WINDOW_SIZE, fresh)
                self._to_blob(blob, low - base, data[low - offset : until - offset])
                fresh.append(Segment(low, until - low, blob, low - base, True))
                low = until
        if fresh:
            if offset < node.size:
                self._order(node.inode)  # rule 2: until the commit the file's bytes here lie elsewhere
            kept = self._segments(node)
            for segment in fresh:
                kept = seg.without(kept, segment.offset, segment.end)
            self._set_segments(node, seg.merged([*kept, *fresh]))

    def _own_blob(self, node: Node, window: int, fresh: list[Segment]) -> tuple[Inode, int]:
        """(content file, file offset of its first byte) for new bytes of a window; places in it never collide."""
        base = window * WINDOW_SIZE
        for segment in [*fresh, *self._segments(node)]:
            if segment.own and segment.offset - segment.blob_offset == base and segment.offset // WINDOW_SIZE == window:
                if segment not in fresh:
                    self._must_be_whole(node, (segment,))
                return segment.blob, base
        blob = self._new_blob(node)
        self.content.create(blob)
        return blob, base

    def _must_be_whole(self, node: Node, segments: Iterable[Segment] | None = None) -> None:
        """Its content files (or those of some segments) have lost nothing. Raises FsError(EIO)."""
        if node.flags & CONTENT:
            if self._blob_length(Inode(node.blob)) < node.size:
                raise self._lost(node, "the end of its content file")
        elif node.flags & SEGMENTED:
            ends: dict[Inode, int] = {}
            for part in self._segments(node) if segments is None else segments:
                ends[part.blob] = max(ends.get(part.blob, 0), part.blob_offset + part.length)
            if any(self._blob_length(blob) < end for blob, end in ends.items()):
                raise self._lost(node, "the end of a content file")
        else:
            self._inline(node)

    def _to_blob(self, blob: Inode, offset: int, data: bytes | memoryview) -> None:
        self._note_written(blob)
        self.content.write(blob, offset, data)

    def _set_segments(self, node: Node, new: list[Segment]) -> None:
        """Replace the list, in memory and in the index; content files that nothing refers to any more will go."""
        old = self._segments(node)
        before, after = set(old), set(new)
        for segment in before - after:
            self._sql("DELETE FROM segment WHERE inode = ? AND offset = ?", (node.inode, segment.offset))
        for segment in after - before:
            self._sql("INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?, ?, ?)", (node.inode, *segment))
        node.segments = new
        gone = {s.blob for s in before - after} - {s.blob for s in after}
        for blob in gone:
            if self.db.execute("SELECT 1 FROM segment WHERE blob = ? LIMIT 1", (blob,)).fetchone() is None:
                self._doom(blob)

    def _drop_segments(self, node: Node) -> None:
        if self._segments(node):
            self._set_segments(node, [])

    # Growing and shrinking --------------------------------------------------------------------------------------

    def _extend(self, node: Node, size: int) -> None:
        """The file becomes longer; the new bytes read as zeros."""
        if node.flags & CONTENT and size > WINDOW_SIZE:
            self._to_segments(node)
        elif node.flags & CONTENT:
            if node.shrunk:
                self._mind_tail(node, grows=True)
            blob = Inode(node.blob)
            self._note_written(blob)
            self.content.truncate(blob, size)

    def _mind_tail(self, node: Node, *, grows: bool) -> None:
        """The file is about to be written. Bytes that its content file has lost must not become a hole; what it has
        beyond the file's end must read as zeros when the file grows."""
        self._must_be_whole(node)
        blob = Inode(node.blob)
        length = self._blob_length(blob)
        if not length:  # perhaps the disk never had it; nothing is missed of an empty file
            self.content.make_at_least(blob, 0)
        if (length > node.size or blob in self._cut) and not grows:
            node.shrunk = max(node.shrunk, self._durable)
            return
        if length > node.size:
            if node.shrunk > self._durable:
                self._barrier()  # rule 3
            self.content.truncate(blob, node.size)
            self._cut.add(blob)
        if blob in self._cut:
            self._order(node.inode)  # rule 2: that it was cut; else the old bytes might show behind the old end
        node.shrunk = 0
        self._trimming.pop(node.inode, None)

    def _blob_length(self, blob: Inode) -> int:
        try:
            return self.content.length(blob)
        except FileNotFoundError:
            return 0

    def _shorten(self, node: Node, size: int) -> None:
        """The file becomes shorter. Blocks go once the index knows it durably (`_trim`)."""
        if size == 0 and (node.placed or node.flags & INLINE):
            self._drop_local(node)
        elif not node.placed:
            data = self._inline(node)
            if len(data) > size:
                self._data_kept -= len(data) - size
                del data[size:]
                node.data_changed = True
                node.set(INLINE, bool(data))
        elif node.flags & CONTENT:
            self._trimming[node.inode] = node
        else:
            self._set_segments(node, seg.without(self._segments(node), size, node.size))
            self._trimming[node.inode] = node

    def _drop_local(self, node: Node) -> None:
        """No local bytes any more. Later ones get a new place, so the old bytes stay until the commit."""
        if node.flags & CONTENT:
            self._doom(Inode(node.blob), at_once=not node.stored)
            node.set(CONTENT, False)
            self._ordered.pop(node.inode, None)
        elif node.flags & SEGMENTED:
            self._drop_segments(node)
            node.set(SEGMENTED, False)
            node.segments = None
        elif node.flags & INLINE:
            node.set(INLINE, False)
            node.data_changed = True
            self._data_kept -= len(node.data or b"")
        node.data = bytearray()
        self._trimming.pop(node.inode, None)
        node.shrunk = 0

    def _trim(self, node: Node) -> None:
        if node.flags & CONTENT:
            blob = Inode(node.blob)
            if self.content.length(blob) > node.size:
                self.content.truncate(blob, node.size)
                self._note_written(blob)
                self._cut.add(blob)
                node.blocks = -1
                return  # `_mind_tail` comes first when it grows
        elif node.flags & SEGMENTED:
            ends: Counter[Inode] = Counter()
            for segment in self._segments(node):
                if segment.own:
                    ends[segment.blob] = max(ends[segment.blob], segment.blob_offset + segment.length)
            for blob, end in ends.items():
                if self.content.length(blob) > end:
                    self.content.truncate(blob, end)
                    node.blocks = -1
        node.shrunk = 0

    def _punch(self, node: Node, start: int, length: int) -> None:
        """Local bytes of a range are not needed any more; the index says so durably."""
        if node.flags & CONTENT:
            self.content.punch(Inode(node.blob), start, length)
        elif node.flags & SEGMENTED:
            for part in seg.overlapping(self._segments(node), start, start + length):
                if part.own:
                    self.content.punch(part.blob, part.blob_offset, part.length)

    def _read_content(self, node: Node, offset: int, buffer: memoryview) -> int:
        """Bytes of a plain content file into a buffer; fewer only at its end."""
        fd = self.content.descriptor(Inode(node.blob))
        done = os.preadv(fd, [buffer], offset)
        while 0 < done < len(buffer):
            more = os.preadv(fd, [buffer[done:]], offset + done)
            if not more:
                break
            done += more
        return done
