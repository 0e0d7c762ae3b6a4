"""Segments: which ranges of a file lie where in content files, when one content file of its own is not enough.

Pure functions on sorted lists.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..ids import Inode


class Segment(NamedTuple):
    offset: int
    """In the file."""
    length: int
    blob: Inode
    """Number of the content file."""
    blob_offset: int
    own: bool
    """Only this inode refers to these bytes: they may be changed in place."""

    @property
    def end(self) -> int:
        return self.offset + self.length

    def part(self, start: int, end: int) -> Segment:
        """The piece within [start, end), which must overlap."""
        low, high = max(start, self.offset), min(end, self.end)
        return Segment(low, high - low, self.blob, self.blob_offset + low - self.offset, self.own)

    def moved(self, shift: int) -> Segment:
        return self._replace(offset=self.offset + shift)

    def continues(self, other: Segment) -> bool:
        return (
            self.blob == other.blob
            and self.own == other.own
            and self.end == other.offset
            and self.blob_offset + self.length == other.blob_offset
        )


def overlapping(segments: Sequence[Segment], start: int, end: int) -> Iterator[Segment]:
    """The parts of segments that lie within [start, end)."""
    position = max(0, bisect_left(segments, (start,)) - 1)
    for index in range(position, len(segments)):
        segment = segments[index]
        if segment.offset >= end:
            return
        if segment.end > start:
            yield segment.part(start, end)


def pieces(segments: Sequence[Segment], start: int, end: int) -> Iterator[tuple[int, int, Segment | None]]:
    """[start, end) cut into (from, to, segment part); None for a hole."""
    position = start
    for part in overlapping(segments, start, end):
        if part.offset > position:
            yield position, part.offset, None
        yield part.offset, part.end, part
        position = part.end
    if position < end:
        yield position, end, None


def without(segments: Sequence[Segment], start: int, end: int) -> list[Segment]:
    """The list with [start, end) uncovered."""
    out: list[Segment] = []
    for segment in segments:
        if segment.end <= start or segment.offset >= end:
            out.append(segment)
            continue
        if segment.offset < start:
            out.append(segment.part(segment.offset, start))
        if segment.end > end:
            out.append(segment.part(end, segment.end))
    return out


def merged(segments: Sequence[Segment]) -> list[Segment]:
    """In order, neighbours that go on in the same place joined."""
    out: list[Segment] = []
    for segment in sorted(segments):
        if out and out[-1].continues(segment):
            out[-1] = out[-1]._replace(length=out[-1].length + segment.length)
        else:
            out.append(segment)
    return out
