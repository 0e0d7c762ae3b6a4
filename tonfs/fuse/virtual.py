"""The `.tonfs` directory at the root of a mount: reports to read, commands to give. Nothing of it is in the volume.

    .tonfs/status, queue, providers    JSON, made when the file is opened; size 0 as below /proc
    .tonfs/why/PATH                    the same for one file; directories are those of the volume

A command is an extended attribute that is set: `setfattr -n user.tonfs.evict .tonfs/why/PATH`. Everything else is
refused. Inodes and handles lie at and above VIRTUAL; the request handlers send them here.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import pyfuse3
import trio

from ..errors import FsError, TimedOut
from ..ids import Inode
from ..volume.api import ROOT, Attr, Namespace

VIRTUAL: Final = 1 << 62
"""Inode numbers of volumes never reach this (they are counted from 1)."""
NAME: Final = b".tonfs"
COMMAND: Final = b"user.tonfs."
REPORT_TIMEOUT: Final = 10.0
"""Seconds that opening a report may take."""
_TOP: Final = VIRTUAL + 1
_FILES: Final = {b"status": VIRTUAL + 2, b"queue": VIRTUAL + 3, b"providers": VIRTUAL + 4}
_WHY: Final = VIRTUAL + (1 << 61)
"""`.tonfs/why` and what is below: this plus the number of the real inode."""
_LISTED: Final = {**_FILES, b"why": _WHY + ROOT}
_HANDLES: Final = VIRTUAL + (1 << 60)
_SECOND: Final = 1.0
_BATCH: Final = 256
LAST_COOKIE: Final = VIRTUAL
"""Position of `.tonfs` in the root's listing, when it is shown there: behind everything."""


class Reports(Protocol):
    """What the front knows and does (`tonfs.front.reports`). Raises TonfsError."""

    async def report(self, name: str) -> Mapping[str, Any]:
        """`status`, `queue` or `providers`, as a JSON object."""
        ...

    async def why(self, inode: Inode) -> Mapping[str, Any]: ...

    async def command(self, name: str, value: bytes, inode: Inode | None) -> None:
        """`evict`, ... for what is at and below `inode`; None: for the volume. FsError(EOPNOTSUPP, EINVAL, ...)."""
        ...


def _refused() -> pyfuse3.FUSEError:
    return pyfuse3.FUSEError(errno.EROFS)


class VirtualTree:
    """The handlers' other half: the same requests, for inodes at and above VIRTUAL."""

    def __init__(
        self, namespace: Namespace, reports: Reports, owner: tuple[int, int], shown: Callable[[Attr], Any]
    ) -> None:
        """`shown` gives the attributes of a real inode as the mount shows them (options uid, gid, umask)."""
        self._ns = namespace
        self._reports = reports
        self._owner = owner
        self._shown = shown
        self._names = {number: name for name, number in _FILES.items()}
        self._open: dict[int, bytes] = {}
        self._numbers: Iterator[int] = itertools.count(_HANDLES)

    # Attributes -------------------------------------------------------------------------------------------------

    def _entry(self, inode: int) -> Any:
        """Raises FsError(ENOENT)."""
        out = pyfuse3.EntryAttributes()
        out.st_ino = inode
        out.entry_timeout = out.attr_timeout = _SECOND
        out.st_uid, out.st_gid = self._owner
        out.st_nlink = 1
        if inode == _TOP:
            out.st_mode = stat.S_IFDIR | 0o755
        elif inode in self._names:
            out.st_mode = stat.S_IFREG | 0o600  # what a volume costs and who keeps it is its owner's business
        else:
            self._like(out, self._ns.getattr(self._real(inode)))
        return out

    def _like(self, out: Any, attr: Attr) -> None:
        """Who may look at (or command) a file or directory is told by the real one."""
        real = self._shown(attr)
        kind, bits = (stat.S_IFDIR, 0o777) if attr.is_dir else (stat.S_IFREG, 0o666)
        out.st_mode = kind | (real.st_mode & bits)
        out.st_uid, out.st_gid = real.st_uid, real.st_gid
        out.st_mtime_ns, out.st_ctime_ns, out.st_atime_ns = attr.mtime_ns, attr.ctime_ns, attr.atime_ns

    @staticmethod
    def _real(inode: int) -> Inode:
        if not _WHY < inode < 2 * VIRTUAL:
            raise FsError(f"There is no inode {inode}.", errno.ENOENT)
        return Inode(inode - _WHY)

    def getattr(self, inode: int) -> Any:
        return self._entry(inode)

    def setattr(self, inode: int, fields: Any) -> Any:
        """Times go nowhere: with the write-back cache the kernel sends a ctime after each command."""
        if fields.update_size or fields.update_mode or fields.update_uid or fields.update_gid:
            raise _refused()
        return self._entry(inode)

    def lookup(self, parent: int, name: bytes) -> Any:
        """Raises FsError(ENOENT, ENOTDIR)."""
        if name == b".":
            return self._entry(parent)
        if name == b"..":
            return self._above(parent)
        if parent == _TOP:
            if name not in _LISTED:
                raise FsError(f"There is no {name!r}.", errno.ENOENT)
            return self._entry(_LISTED[name])
        return self._entry(_WHY + self._ns.lookup(self._real(parent), name).inode)

    def _above(self, inode: int) -> Any:
        if inode == _TOP:
            out = pyfuse3.EntryAttributes()
            out.st_ino = ROOT
            self._like(out, self._ns.getattr(ROOT))
            return out
        real = self._real(inode)
        return self._entry(_TOP if real == ROOT else _WHY + self._ns.lookup(real, b"..").inode)

    def top(self) -> Any:
        """The entry of `.tonfs` itself."""
        return self._entry(_TOP)

    # Files and directories --------------------------------------------------------------------------------------

    async def open(self, inode: int, flags: int) -> Any:
        """A report is made now and read from memory. Raises FUSEError(EROFS), TonfsError."""
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
            raise _refused()
        with trio.move_on_after(REPORT_TIMEOUT):
            name = self._names.get(inode)
            if name is not None:
                said = await self._reports.report(name.decode())
            else:
                said = await self._reports.why(self._real(inode))
            handle = next(self._numbers)
            self._open[handle] = (json.dumps(said, indent=2) + "\n").encode("ascii")
            return pyfuse3.FileInfo(fh=handle, direct_io=True)
        raise TimedOut("The report could not be made in time.")

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return self._open[handle][offset : offset + size]

    def release(self, handle: int) -> None:
        self._open.pop(handle, None)

    def readdir(self, inode: int, start: int, token: Any) -> None:
        """Fill a listing from position `start` on; 1 and 2 are `.` and `..`."""
        if start < 1 and not pyfuse3.readdir_reply(token, b".", self._entry(inode), 1):
            return
        if start < 2 and not pyfuse3.readdir_reply(token, b"..", self._above(inode), 2):
            return
        for name, number, cookie in self._below(inode, max(start, 2)):
            if not pyfuse3.readdir_reply(token, name, self._entry(number), cookie):
                return

    def _below(self, inode: int, after: int) -> Iterator[tuple[bytes, int, int]]:
        if inode == _TOP:
            for cookie, (name, number) in enumerate(_LISTED.items(), 3):
                if cookie > after:
                    yield name, number, cookie
            return
        real = self._real(inode)
        while entries := self._ns.list_dir(real, after, _BATCH):
            for entry in entries:
                yield entry.name, _WHY + entry.attr.inode, entry.cookie
            after = entries[-1].cookie

    # Commands ---------------------------------------------------------------------------------------------------

    async def setxattr(self, inode: int, name: bytes, value: bytes) -> None:
        """Raises FsError, TonfsError."""
        if not name.startswith(COMMAND) or inode in self._names:
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        target = None if inode == _TOP else self._real(inode)
        await self._reports.command(name[len(COMMAND) :].decode("ascii", "replace"), value, target)
