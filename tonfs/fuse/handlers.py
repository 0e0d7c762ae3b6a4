"""Kernel requests -> Namespace calls. One method a request; the handle of an open file is the inode number.

This module has the requests about open files and the mount as a whole; those about listings, names and attributes are
in the classes below it. Bytes are read into a buffer that is used again once the reply is sent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Any, Final

import pyfuse3
import trio

from ..errors import FsError, TimedOut
from ..ids import Inode
from ..volume.api import Live
from .disksync import DiskSync
from .guard import answer, handler, silent
from .listings import Listings
from .setid import BITS
from .virtual import VIRTUAL

BUFFER: Final = 1 << 20
"""The most that the kernel reads at once."""
SLOW_WRITE: Final = 4 << 20
READ_TRIES: Final = 16
_DONE: Final[Any] = object()


def _nobody(_: Inode) -> None:
    pass


class Handlers(Listings):
    """The file system as pyfuse3 wants it. Never raises anything but FUSEError."""

    def _begin(self) -> None:
        super()._begin()
        self._opens: dict[Inode, int] = {}
        """How often each file is open."""
        self.disk = DiskSync()
        self._buffer = memoryview(bytearray(BUFFER))
        self.ask_again: Callable[[Inode], None] = _nobody
        """The kernel asks for the attributes of an inode again, at once; only while a request keeps the inode in the
        kernel, or it might wait for other answers."""

    def agree(self, fd: int, killpriv: bool) -> None:
        super().agree(fd, killpriv)
        self.disk.wait_beside(fd)

    def _opened(self, inode: Inode, flags: int) -> Any:
        """The inode is held already."""
        self._opens[inode] = self._opens.get(inode, 0) + 1
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._ns.kernel.writers.add(inode)
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    @handler
    async def open(self, inode: int, flags: int, ctx: Any) -> Any:
        if inode >= VIRTUAL:
            return await self._tree().open(inode, flags)
        number = Inode(inode)
        if flags & os.O_TRUNC:
            await self._resize(number, 0)
            if self.clears_set_id:
                await self._clear_set_id(number, ctx.uid)
        self._ns.live(number)
        self._ns.hold(number)
        return self._opened(number, flags)

    @handler
    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        if parent >= VIRTUAL:
            raise pyfuse3.FUSEError(errno.EROFS)
        try:
            # Held twice: for the name that the kernel learns, and for the open file.
            node = self._ns.make(Inode(parent), name, mode | stat.S_IFREG, ctx.uid, ctx.gid, 0, 2)
        except FsError as exc:
            if exc.errno != errno.EEXIST or flags & os.O_EXCL:
                raise
            node = await self._create_open(Inode(parent), name, flags, ctx.uid)
        return self._opened(node.inode, flags), self._entry(node)

    async def _create_open(self, parent: Inode, name: bytes, flags: int, uid: int) -> Live:
        """Somebody was faster (trap 9)."""
        node = self._ns.peek(parent, name)
        if node is None or not stat.S_ISREG(node.mode):
            raise pyfuse3.FUSEError(errno.EEXIST)
        inode = node.inode
        self._ns.hold(inode, 2)
        try:
            if flags & os.O_TRUNC:
                await self._resize(inode, 0)
                if self.clears_set_id:
                    await self._clear_set_id(inode, uid)
            return self._ns.live(inode)
        except BaseException:
            self._ns.drop(inode, 2)
            raise

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:
        if fh >= VIRTUAL:
            return self._tree().read(fh, off, size)
        inode = Inode(fh)
        if size <= BUFFER:
            room = self._buffer[:size]
            count = self._ns.read_into(inode, off, room)
            if count >= 0:
                return room[:count]
        for _ in range(READ_TRIES):
            result = self._ns.read(inode, off, size)
            if not result.missing:
                return result.data
            await self._fetch(result.missing)
        raise TimedOut("Local copies of the range vanish faster than they come.")

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        inode = Inode(fh)
        if len(buf) > SLOW_WRITE or self._ns.would_wait(inode, off, len(buf)):
            count = await trio.to_thread.run_sync(self._ns.write, inode, off, buf)
        else:
            count = self._ns.write(inode, off, buf)
        if self.clears_set_id and self._ns.mode(inode) & BITS:
            await self._clear_set_id(inode)
        return count

    @answer
    def flush(self, fh: int) -> None:
        # The kernel writes dirty pages itself when a file is closed; it need not ask us again (reference, section 2).
        raise pyfuse3.FUSEError(errno.ENOSYS)

    @silent
    async def release(self, fh: int) -> None:
        if fh >= VIRTUAL:
            self._tree().release(fh)
            return
        inode = Inode(fh)
        left = self._opens.get(inode, 1) - 1
        if left:
            self._opens[inode] = left
        else:
            self._opens.pop(inode, None)
            self._ns.kernel.writers.discard(inode)
        self._ns.drop(inode)

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        if fh < VIRTUAL:
            inode = Inode(fh)
            await self._sync(inode, datasync)
            if self.shows_old_blocks(inode):
                self.ask_again(inode)

    def shows_old_blocks(self, inode: Inode) -> bool:
        """The kernel collects writes and does not learn from them how many blocks a file has now."""
        try:
            node = self._ns.live(inode)
        except FsError:
            return False  # closed and gone meanwhile
        return node.kept is None or node.kept.st_blocks != node.blocks

    async def _sync(self, inode: Inode, data_only: bool) -> None:
        with contextlib.closing(self._ns.sync_steps(inode, data_only=data_only)) as steps:
            step = next(steps, _DONE)
            while step is not _DONE:
                if step is None:
                    step = await trio.to_thread.run_sync(next, steps, _DONE)
                else:
                    await self.disk.fdatasync(step)
                    step = next(steps, _DONE)

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        if fh < VIRTUAL:
            await self._sync(self._listings[fh][0], False)

    # The mount --------------------------------------------------------------------------------------------------

    @answer
    def statfs(self, ctx: Any) -> Any:
        got = self._ns.statfs()
        out = pyfuse3.StatvfsData()
        out.f_bsize = out.f_frsize = got.block_size
        out.f_blocks, out.f_bfree, out.f_bavail = got.blocks, got.free, got.available
        out.f_files, out.f_ffree, out.f_favail = got.files, got.files_free, got.files_free
        out.f_namemax = got.name_max
        return out

    @answer
    def access(self, inode: int, mode: int, ctx: Any) -> bool:
        self._ns.live(Inode(inode))
        return True  # the kernel checks (default_permissions), this is never asked
