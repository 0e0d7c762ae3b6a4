"""The bytes of a bag's stream where they lie: in its header and its files."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..bag import BagFile, BagHeader
from .places import exists_below, open_below, read_all, remove_below, write_all


class DataFiles:
    """`root`: where the bag's top folder or file lies. `front`: the file that holds the header.

    `follow_links`: files of the user, which are only read. All methods raise OSError, and BadBag when a link is in the
    way that must not be followed.
    """

    def __init__(self, root: Path, front: Path, *, follow_links: bool) -> None:
        self._root: Final = root
        self._front: Final = front
        self._follow_links: Final = follow_links
        self._touched: set[bytes] = set()
        """Names of files that were written to since the last `sync`."""

    def read(self, header: BagHeader, start: int, length: int) -> bytes:
        """A stretch of the stream; shorter where bytes are missing."""
        out = []
        for entry, offset, size in _segments(header, start, length):
            if entry is None:
                with open(self._front, "rb") as front:
                    out.append(read_all(front.fileno(), size, offset))
            elif self._follow_links:
                with open(self._root / os.fsdecode(header.folder + entry.name), "rb") as stream:
                    out.append(read_all(stream.fileno(), size, offset))
            else:
                with open_below(self._root, header.folder + entry.name) as fd:
                    out.append(read_all(fd, size, offset))
        return b"".join(out)

    def write(self, header: BagHeader, start: int, data: bytes) -> None:
        """Put bytes of the stream into the files; those of the header itself are left out."""
        view = memoryview(data)
        for entry, offset, size in _segments(header, start, len(data)):
            if entry is not None:
                name = header.folder + entry.name
                with open_below(self._root, name, write=True, size=entry.size) as fd:
                    write_all(fd, view[:size], offset)
                self._touched.add(name)
            view = view[size:]

    def make(self, header: BagHeader) -> None:
        """Every file with its final size."""
        for entry in header.files:
            with open_below(self._root, header.folder + entry.name, write=True, size=entry.size):
                pass

    def taken(self, header: BagHeader) -> Path | None:
        """A file of somebody that stands where one of the bag's must be."""
        for entry in header.files:
            if exists_below(self._root, header.folder + entry.name):
                return self._root / os.fsdecode(header.folder + entry.name)
        return None

    def remove(self, header: BagHeader) -> None:
        """Delete the files, and the folders that they leave empty."""
        remove_below(self._root, [header.folder + entry.name for entry in header.files])
        self._touched.clear()

    def sync(self) -> None:
        """Make what was written durable against power loss."""
        names, self._touched = self._touched, set()
        try:
            for name in names:
                with contextlib.suppress(FileNotFoundError), open_below(self._root, name) as fd:
                    os.fsync(fd)
        except OSError:
            self._touched |= names
            raise


def _segments(header: BagHeader, start: int, length: int) -> Iterator[tuple[BagFile | None, int, int]]:
    """(file or None for the header, offset in it, length) of each part of a stretch of the stream."""
    end = start + length
    if start < header.size:
        stop = min(end, header.size)
        yield None, start, stop - start
        start = stop
    number = bisect_right(header.starts, start) - 1
    while start < end:
        entry = header.files[number]
        stop = min(end, entry.start + entry.size)
        if stop > start:
            yield entry, start - entry.start, stop - start
            start = stop
        number += 1
