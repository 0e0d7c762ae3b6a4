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

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

from ..ids import Inode
from .api_objects import Objects
from .kernel import KernelCache
from .listed import Listed
from .values import (
    MAX_FILE_SIZE,
    NAME_MAX,
    ROOT,
    TARGET_MAX,
    Attr,
    Change,
    Entry,
    Expect,
    Fetch,
    Live,
    ObjectPart,
    ReadResult,
    RemoteRange,
    S3Record,
    SetAttr,
    Statfs,
    StoredObject,
    Upload,
    UploadPart,
)

__all__ = [
    "MAX_FILE_SIZE",
    "NAME_MAX",
    "ROOT",
    "TARGET_MAX",
    "Attr",
    "Change",
    "Entry",
    "Expect",
    "Fetch",
    "Live",
    "Namespace",
    "ObjectPart",
    "ReadResult",
    "RemoteRange",
    "S3Record",
    "SetAttr",
    "Statfs",
    "StoredObject",
    "Upload",
    "UploadPart",
]


class Namespace(Objects, Protocol):
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

    def drop_all(self, holds: Iterable[tuple[Inode, int]]) -> None:
        """`drop` of many: (inode, count). Takes a fraction of a microsecond for one that keeps its name."""
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

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` (from any thread, outside the lock, must be quick) when something changes behind the
        kernel's cache: objects put or removed, content replaced. Changes made by the mount's own calls are not told."""
        ...
