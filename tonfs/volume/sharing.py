"""Content by reference: one staged file out of ranges of others, without copying bytes.

What is shared lies in content files that several inodes refer to through segments; it is never changed in place (a
write to any of the files goes to a new place), and a content file lives until the last segment that refers to it is
gone. Extents are shared in the same way: what packs hold of the sources, they hold of the new file.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ..errors import FsError
from ..ids import Inode
from . import extents as ext
from . import segments as seg
from .api import MAX_FILE_SIZE, Attr
from .contents import INLINE_MAX
from .core import locked
from .files import Files
from .node import Node
from .schema import CONTENT, COVERED, SEGMENTED


class Sharing(Files):
    @locked
    def concat(self, staged: Inode, parts: Sequence[tuple[Inode, int, int]]) -> Attr:
        """See `Namespace.concat`."""
        target = self._file(staged)
        if target.nlink or not self._holds.get(staged):
            raise FsError(f"Inode {staged} is not staged.", errno.EINVAL)
        size = target.size
        for inode, offset, length in parts:
            source = self._file(inode)
            if inode == staged or offset < 0 or length < 0 or offset + length > source.size:
                raise FsError(f"The range to share lies outside of inode {inode}.", errno.EINVAL)
            size += length
        if size > MAX_FILE_SIZE:
            raise FsError("The size is over the limit.", errno.EFBIG)
        self.space.require()
        try:
            with self._atomic(target):
                self._append_all(target, parts, size)
        except OSError as exc:
            raise self._os_error(exc) from exc
        return self._attr(target)

    def _append_all(self, target: Node, parts: Sequence[tuple[Inode, int, int]], size: int) -> None:
        if size > INLINE_MAX or target.placed or any(self._node(inode).placed for inode, _, _ in parts):
            self._only_segments(target)
        self._begin()
        position = target.size
        found: list[seg.Segment] = list(target.segments or ())
        for inode, offset, length in parts:
            source = self._node(inode)
            if length:
                found += self._shared(source, offset, length, position - offset)
                self._share_extents(source, target, offset, length, position - offset)
            position += length
        if target.flags & SEGMENTED:
            self._set_segments(target, seg.merged(found))
        for inode, offset, length, at in _placed_at(parts, target.size):
            source = self._node(inode)
            if not source.placed:  # few bytes, in the index
                data = bytes(self._inline(source)[offset : offset + length])
                if data:
                    self._store(target, at, data)
        target.size = size
        self._changed_bytes(target)
        target.size_gen = target.gen
        self._reshape(target)

    def _only_segments(self, node: Node) -> None:
        if node.flags & CONTENT:
            self._to_segments(node)
        elif not node.flags & SEGMENTED:
            self._spill(node, INLINE_MAX + 1, segmented=True)

    def _shared(self, source: Node, offset: int, length: int, shift: int) -> list[seg.Segment]:
        """The source's segments of a range as another file may have them; they belong to no one from now on."""
        if not source.placed:
            return []
        self._only_segments(source)
        theirs = self._segments(source)
        out = [part.moved(shift)._replace(own=False) for part in seg.overlapping(theirs, offset, offset + length)]
        if any(s.own for s in theirs):
            # All of them: a place in a content file is found by its owner's other segments (`_own_blob`).
            self._set_segments(source, [s._replace(own=False) for s in theirs])
            self._touch_size(source, times=False)
        return out

    def _share_extents(self, source: Node, target: Node, offset: int, length: int, shift: int) -> None:
        if source.flags & COVERED:
            hit = [
                e.part(offset, offset + length)
                for e in ext.overlapping(self.index, source.inode, offset, offset + length)
            ]
            moved = [ext.Extent(e.offset + shift, e.length, e.pack, e.pack_offset, e.local) for e in hit]
            ext.insert(self.index, target.inode, moved)
            ext.merge(self.index, target.inode, offset + shift, offset + shift + length)
            target.set(COVERED)


def _placed_at(parts: Sequence[tuple[Inode, int, int]], position: int) -> list[tuple[Inode, int, int, int]]:
    out = []
    for inode, offset, length in parts:
        out.append((inode, offset, length, position))
        position += length
    return out
