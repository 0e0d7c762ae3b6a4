"""`Namespace`: the one narrow door to a volume. The mount and the S3 door use this and nothing else.

Rules that hold for every method:

* Calls are short, synchronous and safe from any thread (one lock inside). Methods marked *slow* may wait for the
  disk: call them through `trio.to_thread.run_sync` (or a worker thread) from an event loop.
* Names are bytes, 1 to 255, without `/` and NUL, compared byte by byte. Symlinks are never followed.
* Times are integer nanoseconds since 1970, sizes and offsets bytes.
* What POSIX refuses raises `FsError` with its errno: ENOENT, ENOTDIR, EISDIR, EEXIST, ENOTEMPTY, EINVAL, ELOOP,
  ENAMETOOLONG, EFBIG, ENOSPC, EMLINK, ENODATA, ESTALE, EROFS. Other errors of the tree come through as they are.
* Changes are visible to both doors at once and durable after `commit()` (or `sync(inode)`); without it within
  about a second, in the order in which they were made, each operation whole or not at all.

Versions: every change of a file's bytes or size gives its inode a new, larger `version` (its content generation).
An S3 record belongs to one version: after a write through the mount its digests no longer hold (`S3Record.current`
is False), while content type and user metadata stay.
"""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from ..ids import BagId, Inode, PackId
from .kernel import KernelCache
from .listed import Listed

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


class Namespace(Protocol):
    kernel: KernelCache
    """What a mount's kernel holds back; filled in by the mount, asked by the S3 door."""

    # Names ------------------------------------------------------------------------------------------------------

    def getattr(self, inode: Inode) -> Attr:
        """Raises FsError(ENOENT)."""
        ...

    def lookup(self, parent: Inode, name: bytes) -> Attr:
        """Raises FsError(ENOENT, ENOTDIR, ENAMETOOLONG). `.` and `..` work."""
        ...

    def resolve(self, parts: Sequence[bytes], start: Inode = ROOT) -> Attr:
        """Walk names without following symlinks: a symlink on the way is ELOOP, a file on the way ENOTDIR."""
        ...

    def path_of(self, inode: Inode) -> bytes:
        """One path of the inode from the root, without leading slash; b"" for the root. Raises FsError(ENOENT)."""
        ...

    def list_dir(self, inode: Inode, after: int, limit: int) -> list[Entry]:
        """Entries with a cookie above `after`, by cookie; without `.` and `..`. A removed directory lists nothing."""
        ...

    def list_sorted(self, parent: Inode, after: bytes = b"", limit: int = 1000, *, prefix: bytes = b"") -> list[Entry]:
        """Entries whose sort key is > `after` and starts with `prefix`, in byte order of the sort key: one range scan.

        All file types come.
        """
        ...

    def list_objects(
        self, parent: Inode, after: bytes = b"", limit: int = 1000, *, prefix: bytes = b""
    ) -> list[Listed]:
        """As `list_sorted`, but only what a listing of objects shows, and with the objects whose name a directory
        has (see `publish`): `a` as a file beside the directory `a/`."""
        ...

    def is_empty(self, inode: Inode) -> bool: ...

    def create(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0) -> Attr:
        """Regular file, fifo, socket or device node (type bits in `mode`). Raises FsError(EEXIST, ...)."""
        ...

    def mkdir(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int) -> Attr: ...

    def symlink(self, parent: Inode, name: bytes, target: bytes, uid: int, gid: int) -> Attr: ...

    def readlink(self, inode: Inode) -> bytes: ...

    def link(self, inode: Inode, parent: Inode, name: bytes) -> Attr: ...

    def unlink(self, parent: Inode, name: bytes) -> None: ...

    def rmdir(self, parent: Inode, name: bytes) -> None: ...

    def rename(
        self,
        parent: Inode,
        name: bytes,
        new_parent: Inode,
        new_name: bytes,
        *,
        replace: bool = True,
        exchange: bool = False,
    ) -> None:
        """Atomic also against a crash: the bytes of the moved file are on disk before the commit that renames it."""
        ...

    # Names, live: the same for the hot path. Nothing is copied, and the hold comes with the answer. ----------------

    def live(self, inode: Inode) -> Live:
        """As `getattr`."""
        ...

    def peek(self, parent: Inode, name: bytes, hold: int = 0) -> Live | None:
        """As `lookup`, None when there is no such name; the inode is held `hold` times more. Raises as `lookup`."""
        ...

    def make(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0, hold: int = 0) -> Live:
        """As `create` and `mkdir` (type bits in `mode`; not for symlinks), held `hold` times."""
        ...

    @property
    def next_cookie(self) -> int:
        """Names that are made (or renamed) from now on have at least this cookie."""
        ...

    def list_live(self, inode: Inode, after: int, limit: int) -> Sequence[tuple[bytes, int, Live]]:
        """As `list_dir`: (name, cookie, inode)."""
        ...

    def set_live(
        self,
        inode: Inode,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
    ) -> Live:
        """As `setattr`."""
        ...

    def resize(self, inode: Inode, size: int) -> Live:
        """As `truncate`."""
        ...

    def mode(self, inode: Inode) -> int:
        """st_mode alone."""
        ...

    def read_into(self, inode: Inode, offset: int, buffer: memoryview) -> int:
        """Local bytes straight into a buffer; the number put there, less than asked only at the end of the file.
        -1: this range needs `read`. Raises as `read`."""
        ...

    def sync_steps(self, inode: Inode, *, data_only: bool = False) -> Generator[tuple[int, ...] | None, None, None]:
        """`sync` for who must not wait: each item is what to do before asking for the next one. Descriptors: fdatasync
        them all, side by side or in any order; close the generator when one fails. None: asking for the next takes
        long. Without any item everything is durable already."""
        ...

    # Inodes -----------------------------------------------------------------------------------------------------

    def hold(self, inode: Inode, count: int = 1) -> None:
        """An inode that is held stays usable after its last name is gone. Not remembered across restarts."""
        ...

    def drop(self, inode: Inode, count: int = 1) -> None:
        """Give back `hold`s. Never raises; the last one removes an unlinked inode."""
        ...

    def setattr(self, inode: Inode, change: SetAttr) -> Attr: ...

    def read(self, inode: Inode, offset: int, length: int) -> ReadResult:
        """Zero bytes only where the file has a hole. Raises FsError(ENOENT, EISDIR, EIO)."""
        ...

    def fill(self, where: RemoteRange, offset: int, data: bytes) -> bool:
        """Verified bytes of a remote range have come: `data` belongs at file offset `offset` inside `where`.

        False (and nothing is changed) when the file has changed there meanwhile. Slow for large data.
        """
        ...

    def would_wait(self, inode: Inode, offset: int, length: int) -> bool:
        """A write here must first make the index durable (it overwrites bytes that a pack or an S3 record vouches
        for, or comes right after a truncate), so `write`, or `truncate` to a larger size, is slow this once. Making a
        file smaller never waits."""
        ...

    def write(self, inode: Inode, offset: int, data: bytes | memoryview) -> int:
        """Raises FsError(EFBIG, ENOSPC, EIO, ...). mtime and ctime become now."""
        ...

    def truncate(self, inode: Inode, size: int) -> Attr:
        """New size, also larger. mtime and ctime become now, also when the size stays."""
        ...

    def sync(self, inode: Inode, *, data_only: bool = False) -> None:
        """fsync: bytes, size, times and names of this inode are durable when it returns. Slow."""
        ...

    def commit(self) -> None:
        """Everything done so far to names, attributes and records is durable when it returns. Slow.

        Bytes written in place are covered by `sync`; those of `publish` and renames by this.
        """
        ...

    def has_xattrs(self, inode: Inode) -> bool:
        """Whether anything was set; says nothing of the reserved names `user.tonfs.*`."""
        ...

    def get_xattr(self, inode: Inode, name: bytes) -> bytes:
        """Raises FsError(ENODATA)."""
        ...

    def set_xattr(self, inode: Inode, name: bytes, value: bytes) -> None: ...

    def list_xattrs(self, inode: Inode) -> list[bytes]: ...

    def remove_xattr(self, inode: Inode, name: bytes) -> None: ...

    def statfs(self) -> Statfs: ...

    # Objects ----------------------------------------------------------------------------------------------------

    def create_bucket(self, name: bytes, uid: int, gid: int) -> Attr:
        """A top-level directory (0755). Raises FsError(EEXIST)."""
        ...

    def delete_bucket(self, name: bytes) -> None:
        """Raises FsError(ENOENT, ENOTEMPTY, ENOTDIR)."""
        ...

    def stage(self, uid: int, gid: int, mode: int = 0o644) -> Inode:
        """A new regular file without a name, held once. Fill it with `write` or `pour`, then `publish` or `discard` it.

        After a crash unpublished ones vanish.
        """
        ...

    def pour(self, staged: Inode, data: bytes | memoryview) -> None:
        """Append to a staged file, one caller at a time. As `write`, but large data does not keep others waiting, and
        the disk begins with it at once, so that `sync` is short. Slow. Raises FsError(EFBIG, ENOSPC, EIO, ...)."""
        ...

    def publish(
        self,
        staged: Inode,
        bucket: Inode,
        parts: Sequence[bytes],
        record: S3Record,
        *,
        expect: Expect | None = None,
        marker: bool = False,
        sources: Sequence[ObjectPart] = (),
    ) -> Attr:
        """Give a staged file its name `bucket/parts[0]/…/parts[-1]` and record, replacing the object there.

        One transaction: missing parent directories are made (and remembered as implied), the old file loses the
        name (who holds it reads on), owner and mode of a replaced file are kept. Where a directory has the name
        already, it carries the object, and POSIX does not show it; with `marker` the object is `parts[-1]/`, which a
        directory always carries. An object on the way that S3 wrote becomes one that a directory carries; a file that
        only the mount wrote does not. Carried objects move and go with their directory.

        Raises FsError: ENOTDIR (a file on the way), ELOOP (a symlink there), ENAMETOOLONG. The hold of `stage` is
        given back; on an error the file stays staged. Durable after `commit()`; call `sync(staged)` before (in a
        thread) to keep the commit short. `sources`: the parts that it was uploaded in.
        """
        ...

    def concat(self, staged: Inode, parts: Sequence[tuple[Inode, int, int]]) -> Attr:
        """Append ranges (inode, offset, length) of other regular files to a staged one, by reference: no bytes are
        copied (but those of files of a few KiB). The sources stay as they are and may be changed, discarded or removed
        afterwards; what was shared stays. Slow for thousands of parts.

        What is shared is never changed in place: a later write to any of the files goes to a new place. Bytes that are
        only in packs are shared, too. Durable with the commit that names the staged file; nothing is appended on an
        error. Raises FsError: EINVAL (not staged, or a range outside its file), EISDIR, ENOENT, EFBIG, ENOSPC.
        """
        ...

    def discard(self, staged: Inode) -> None:
        """Forget a staged file. Never raises."""
        ...

    def put_marker(
        self,
        bucket: Inode,
        parts: Sequence[bytes],
        record: S3Record,
        uid: int,
        gid: int,
        *,
        expect: Expect | None = None,
    ) -> Attr:
        """The object `a/b/` without bytes: makes the directory when missing and gives it a record. Data that `a/b/` had
        is gone."""
        ...

    def remove_object(
        self, bucket: Inode, parts: Sequence[bytes], *, marker: bool = False, expect: Expect | None = None
    ) -> bool:
        """Unlink the object (or with `marker` the object `name/`, and its directory when that is empty), then prune
        empty implied parents, in one transaction. A pruned directory leaves its name to the object that it carried.
        False when nothing was there."""
        ...

    def find_object(
        self, start: Inode, parts: Sequence[bytes], *, marker: bool = False, hold: bool = False
    ) -> StoredObject | None:
        """The object of a path below `start`, with `marker` of the path and a slash; None when it names none, also when
        a file is on the way. A directory is the object `dir/` when a key made it so, or when it is empty (nothing else
        would show it). With `hold` its inode is held. Raises FsError(ENOENT) when `start` is gone."""
        ...

    def stored(self, inode: Inode) -> StoredObject:
        """What an inode carries, both as they are at one moment. Raises FsError(ENOENT)."""
        ...

    def object_parts(self, inode: Inode, after: int = 0, limit: int = 10_000) -> list[ObjectPart]:
        """The parts that an object was uploaded in, by number; none once its bytes were changed."""
        ...

    def record(self, inode: Inode) -> S3Record | None: ...

    def set_record(self, inode: Inode, record: S3Record) -> None:
        """Replace the record of a file or directory; its digests are bound to the present version."""
        ...

    def set_tags(self, inode: Inode, tags: Mapping[str, str]) -> None:
        """Replace the tags of a file or directory, also of one that has no record yet; digests stay as they are."""
        ...

    # Multipart uploads. An id that is unknown, or of an upload that is complete, is FsError(ENOENT).

    def begin_upload(self, bucket: Inode, key: bytes, facts: Mapping[str, Any]) -> Upload: ...

    def open_uploads(self) -> int:
        """How many there are."""
        ...

    def parts_bytes(self) -> int:
        """Of all parts of all open uploads, on this disk."""
        ...

    def upload(self, upload_id: str) -> Upload:
        """Also one that is complete, for as long as its answer is kept."""
        ...

    def add_part(self, upload_id: str, number: int, staged: Inode, etag: str, checksum: str) -> UploadPart:
        """The staged file (see `stage`) becomes a part, in the place of an earlier one of the number. It survives
        a restart; durable after `commit()`. On an error it stays staged."""
        ...

    def upload_parts(self, upload_id: str, after: int = 0, limit: int = 10_000) -> list[UploadPart]:
        """By number."""
        ...

    def list_uploads(
        self, bucket: Inode, after: tuple[bytes, str] = (b"", ""), limit: int = 1000, *, prefix: bytes = b""
    ) -> list[Upload]:
        """Open ones above (key, id), in this order."""
        ...

    def abort_upload(self, upload_id: str) -> None: ...

    def complete_upload(
        self,
        upload_id: str,
        chosen: Sequence[UploadPart],
        parts: Sequence[bytes],
        record: S3Record,
        answer: Mapping[str, Any],
        *,
        expect: Expect | None = None,
        marker: bool = False,
    ) -> Attr:
        """Publish the content of these parts, one behind the other, without copying it, and forget the parts; the
        upload keeps `answer`. As `publish`; raises Stale when a part was replaced meanwhile."""
        ...

    def expire_uploads(self, open_before_ns: int, done_before_ns: int) -> int:
        """Forget uploads begun before the first time, complete ones begun before the second, and those of buckets
        that are gone; some at a time. Returns how many."""
        ...

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` (from any thread, outside the lock, must be quick) when something changes behind the
        kernel's cache: objects put or removed, content replaced. Changes made by the mount's own calls are not told."""
        ...
