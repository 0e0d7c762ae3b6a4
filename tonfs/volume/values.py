"""What crosses the door of a volume (`api.py`): plain values, and an inode as it lives in memory."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from ..ids import BagId, Inode, PackId

ROOT: Final = Inode(1)
NAME_MAX: Final = 255
TARGET_MAX: Final = 4095
MAX_FILE_SIZE: Final = (1 << 63) - 1
"""All that an offset can say. A smaller limit would be told too late: the kernel has a write-back cache."""


class Attr(NamedTuple):
    """What stat(2) shows of an inode, and its content generation."""

    inode: Inode
    mode: int
    """Type and permission bits, as st_mode."""
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    """512-byte units of what is stored, here or in packs; holes count nothing."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    birth_ns: int
    version: int
    implied: bool = False
    """A directory that only exists because an S3 key needed it."""

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class Live(Protocol):
    """An inode as the volume keeps it in memory: no copy, it changes in place. For the mount, which answers thousands
    of requests a second.

    Valid until the caller gives up control (returns to its event loop, or lets another thread work): fetch it anew
    then. Read its fields, never set them, except `kept` and `kept_gen`.
    """

    inode: Inode
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime: int
    """Nanoseconds since 1970, as the other times."""
    mtime: int
    ctime: int
    version: int
    gen: int
    """Grows with every change of anything above."""
    kept: Any
    """The caller may keep something here (an entry for the kernel), None at first. It lives as long as the inode is in
    memory."""
    kept_gen: int
    """For the caller: `gen` when `kept` was made. -1 at first."""


_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class S3Record(NamedTuple):
    """What an object carries besides its bytes. On a directory: the marker object `dir/`."""

    etag: str
    """Without quotes; "" once a write through the mount made it wrong."""
    content_type: str = ""
    metadata: Mapping[str, str] = _NONE
    """User metadata, keys in lower case without `x-amz-meta-`."""
    checksums: Mapping[str, str] = _NONE
    """Algorithm in lower case (`crc32`, `sha256`, ...) -> base64 text; empty when stale."""
    headers: Mapping[str, str] = _NONE
    """System headers kept with the object: cache-control, content-encoding, ..."""
    tags: Mapping[str, str] = _NONE
    checksum_type: str = "FULL_OBJECT"
    """Or COMPOSITE: the checksum of the parts' checksums."""
    current: bool = True
    """The digests belong to the bytes as they are now. Set by the volume when reading, ignored when writing."""


class StoredObject(NamedTuple):
    attr: Attr
    record: S3Record | None


@dataclass(frozen=True, slots=True)
class ObjectPart:
    """A part that an object was uploaded in."""

    number: int
    offset: int
    size: int
    checksum: str
    """Base64, in the algorithm of the object's record; "" without one."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload."""

    id: str
    bucket: Inode
    key: bytes
    created_ns: int
    facts: Mapping[str, Any]
    """What was said when it was begun, as JSON values."""
    done: Mapping[str, Any] | None
    """What completing it answered; None while it is open."""


@dataclass(frozen=True, slots=True)
class UploadPart:
    number: int
    inode: Inode
    size: int
    etag: str
    checksum: str
    """Base64, in the upload's algorithm; "" without one."""
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory."""

    name: bytes
    attr: Attr
    cookie: int
    """Position in the directory: > 2, increasing in the order of arrival, stable while the name exists."""

    @property
    def sort_key(self) -> bytes:
        """`name` for files, `name/` for directories: depth-first in this order is the order of whole S3 keys."""
        return self.name + b"/" if self.attr.is_dir else self.name


@dataclass(frozen=True, slots=True)
class RemoteRange:
    """A range of a file whose bytes are not on this machine."""

    inode: Inode
    version: int
    offset: int
    """In the file."""
    length: int
    pack: PackId
    bag_id: BagId
    pack_offset: int
    """In the bag's file `data`."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Either `data` (shorter than asked only at the end of the file), or `missing`: fetch these, then read again."""

    data: bytes
    missing: tuple[RemoteRange, ...]
    version: int
    size: int
    """Of the file at the moment of reading."""


Fetch = Callable[[Sequence[RemoteRange]], Awaitable[None]]
"""Afterwards the ranges are local (see `tonfs.front.fetcher`). Raises TimedOut, NotRunning, PeerUnreachable."""


@dataclass(frozen=True, slots=True)
class SetAttr:
    """Fields to change; None leaves a field alone. Size is `truncate`'s business."""

    mode: int | None = None
    """Permission bits only."""
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Statfs:
    block_size: int
    blocks: int
    free: int
    available: int
    files: int
    files_free: int
    name_max: int = NAME_MAX


@dataclass(frozen=True, slots=True)
class Expect:
    """Condition checked in the same transaction as the change; a failed one raises `FsError(EEXIST)` when something
    is there that should not be, `FsError(ENOENT)` when nothing is, `Stale` when it is another version."""

    absent: bool = False
    """Nothing may have the name (If-None-Match: *)."""
    inode: Inode | None = None
    version: int | None = None
    """Exactly this content must have the name (If-Match, compared by the caller on what it resolved)."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something changed behind the kernel's cache."""

    entries: tuple[tuple[Inode, bytes], ...] = ()
    """(directory, name) that came, went or now mean another inode."""
    inodes: tuple[Inode, ...] = ()
    """Have new attributes or content."""
