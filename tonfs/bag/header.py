"""The torrent header: names and sizes of a bag's files (reference protocol 1.5, 1.6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Final

from ..errors import BadBag
from .info import MAX_HEADER, TorrentInfo

MAX_FILES: Final = 1_000_000
MAX_DIR_NAME: Final = 256
MAX_NAME: Final = 4095
MAX_COMPONENT: Final = 255
"""Longest name and component that a Linux file system can hold; a longer one could never be unpacked."""

_MAGIC: Final = 0x9128AAB7
_FEC_NONE: Final = 0xC82A1964
_FIXED: Final = struct.Struct("<IIQQII")


@dataclass(frozen=True)
class BagFile:
    """One file of a bag: its bytes are stream[start : start + size]."""

    name: bytes
    start: int
    size: int


def check_name(name: bytes, *, directory: bool = False) -> None:
    """Raise BadBag unless a name is safe and legal: relative, no `.`, `..` or empty component, no NUL.

    Names are bytes of no declared encoding. A `directory` may end with `/`.
    """
    body = name[:-1] if directory and name.endswith(b"/") else name
    shown = name[:80]
    if not body or len(body) > MAX_NAME:
        raise BadBag(f"A name of {len(name)} bytes is not allowed: {shown!r}")
    if b"\0" in body:
        raise BadBag(f"A name holds a NUL byte: {shown!r}")
    for part in body.split(b"/"):
        if part in (b"", b".", b".."):
            raise BadBag(f"A name has the component {part!r}: {shown!r}")
        if len(part) > MAX_COMPONENT:
            raise BadBag(f"A name has a component of {len(part)} bytes: {shown!r}")


def check_names(names: tuple[bytes, ...]) -> None:
    """Raise BadBag unless every name is legal, unique, and none is a folder of another."""
    for name in names:
        check_name(name)
    # With "/" below every other byte, whatever lies in the folder N sorts directly behind N.
    order = sorted(name.replace(b"/", b"\0") for name in names)
    for one, two in pairwise(order):
        if one == two:
            raise BadBag(f"A name occurs twice: {one[:80]!r}")
        if two.startswith(one + b"\0"):
            raise BadBag(f"A name is both a file and a folder: {one[:80]!r}")


@dataclass(frozen=True)
class BagHeader:
    """`names` and `sizes` go together, in stream order.

    `dir_name` is as it came: empty, or a folder's name with or without a `/` behind it; paths use `folder`.
    """

    dir_name: bytes
    names: tuple[bytes, ...]
    sizes: tuple[int, ...]

    @property
    def folder(self) -> bytes:
        """What stands before each name in a path: empty, or `dir_name` with a `/` behind it."""
        return self.dir_name if not self.dir_name or self.dir_name.endswith(b"/") else self.dir_name + b"/"

    @property
    def top(self) -> bytes:
        """What the bag is below its root: its folder, or its single file."""
        return self.folder or self.names[0]

    @cached_property
    def size(self) -> int:
        return _FIXED.size + len(self.dir_name) + 16 * len(self.names) + sum(map(len, self.names))

    @cached_property
    def files(self) -> tuple[BagFile, ...]:
        starts = accumulate(self.sizes, initial=self.size)
        return tuple(BagFile(*three) for three in zip(self.names, starts, self.sizes, strict=False))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Stream offset of each file, for bisection."""
        return tuple(entry.start for entry in self.files)

    @property
    def data_size(self) -> int:
        return sum(self.sizes)

    def file(self, name: bytes) -> BagFile | None:
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[bytes, BagFile]:
        return {entry.name: entry for entry in self.files}

    def to_bytes(self) -> bytes:
        count = len(self.names)
        joined = b"".join(self.names)
        return b"".join(
            (
                _FIXED.pack(_MAGIC, count, len(joined), 0, _FEC_NONE, len(self.dir_name)),
                self.dir_name,
                struct.pack(f"<{count}Q", *accumulate(map(len, self.names))),
                struct.pack(f"<{count}Q", *accumulate(self.sizes)),
                joined,
            )
        )

    @classmethod
    def parse(cls, data: bytes, info: TorrentInfo) -> BagHeader:
        """From exactly the leading `header_size` bytes of a stream. Raises BadBag (all rules of reference 1.6)."""
        if len(data) != info.header_size or len(data) > MAX_HEADER:
            raise BadBag(f"A header has {len(data)} bytes, its bag says {info.header_size}.")
        if sha256(data).digest() != info.header_hash:
            raise BadBag("A header does not match its hash.")
        if len(data) < _FIXED.size:
            raise BadBag("A header is cut off.")
        magic, count, name_bytes, data_bytes, fec, dir_bytes = _FIXED.unpack_from(data)
        if magic != _MAGIC or fec != _FEC_NONE or data_bytes:
            raise BadBag("A header has an unknown form.")
        if not 1 <= count <= MAX_FILES or dir_bytes > MAX_DIR_NAME:
            raise BadBag(f"A header names {count} files and a folder name of {dir_bytes} bytes.")
        if _FIXED.size + dir_bytes + 16 * count + name_bytes != len(data):
            raise BadBag("A header has another length than it says.")
        at = _FIXED.size + dir_bytes
        name_ends = struct.unpack_from(f"<{count}Q", data, at)
        data_ends = struct.unpack_from(f"<{count}Q", data, at + 8 * count)
        _check_ends(name_ends, name_bytes, "name")
        _check_ends(data_ends, info.file_size - info.header_size, "file")
        joined = data[at + 16 * count :]
        header = cls(
            dir_name=data[_FIXED.size : at],
            names=tuple(joined[a:b] for a, b in pairwise((0, *name_ends))),
            sizes=tuple(b - a for a, b in pairwise((0, *data_ends))),
        )
        if header.dir_name:
            check_name(header.dir_name, directory=True)
        check_names(header.names)
        return header


def _check_ends(ends: tuple[int, ...], total: int, what: str) -> None:
    if ends[-1] != total or any(a > b for a, b in pairwise(ends)):
        raise BadBag(f"A header's {what} index does not fit.")
