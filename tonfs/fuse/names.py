"""Requests about names: looking them up, making, linking, removing, renaming."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import pyfuse3
import trio

from ..errors import FsError
from ..ids import Inode
from ..volume.api import ROOT
from .attributes import Attributes
from .guard import answer, handler, silent
from .replies import CACHE_SECONDS
from .virtual import NAME, VIRTUAL

SEND_TIMEOUT: Final = 30.0


class Names(Attributes):
    """See the module."""

    def _begin(self) -> None:
        super()._begin()
        missing = pyfuse3.EntryAttributes()
        missing.st_ino = 0
        missing.entry_timeout = CACHE_SECONDS
        self._missing = missing
        self.send_written: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Has the kernel send what programs wrote; the mount knows how."""

    @answer
    def lookup(self, parent: int, name: bytes, ctx: Any) -> Any:
        if parent >= VIRTUAL:
            return self._tree().lookup(parent, name)
        node = self._ns.peek(Inode(parent), name, 1)  # the answer gives the kernel a reference (trap 3)
        if node is not None:
            return self._entry(node)
        return self._missing if name != NAME or parent != ROOT or self._virtual is None else self._virtual.top()

    @silent
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._ns.drop_all((Inode(inode), count) for inode, count in inode_list if inode < VIRTUAL)

    @answer
    def readlink(self, inode: int, ctx: Any) -> bytes:
        return self._ns.readlink(Inode(inode))

    @answer
    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Any) -> Any:
        if parent >= VIRTUAL:
            raise pyfuse3.FUSEError(errno.EROFS)
        return self._entry(self._ns.make(Inode(parent), name, mode, ctx.uid, ctx.gid, rdev, 1))

    @answer
    def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> Any:
        if parent >= VIRTUAL:
            raise pyfuse3.FUSEError(errno.EROFS)
        return self._entry(self._ns.make(Inode(parent), name, mode, ctx.uid, ctx.gid, 0, 1))

    @answer
    def symlink(self, parent: int, name: bytes, target: bytes, ctx: Any) -> Any:
        if parent >= VIRTUAL:
            raise pyfuse3.FUSEError(errno.EROFS)
        return self._held(self._ns.symlink(Inode(parent), name, target, ctx.uid, ctx.gid).inode)

    @answer
    def link(self, inode: int, new_parent: int, new_name: bytes, ctx: Any) -> Any:
        if inode >= VIRTUAL or new_parent >= VIRTUAL:
            raise pyfuse3.FUSEError(errno.EROFS)
        return self._held(self._ns.link(Inode(inode), Inode(new_parent), new_name).inode)

    @answer
    def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        if parent >= VIRTUAL:
            raise pyfuse3.FUSEError(errno.EROFS)
        self._ns.unlink(Inode(parent), name)

    @answer
    def rmdir(self, parent: int, name: bytes, ctx: Any) -> None:
        if self._touches_virtual(parent, name):
            raise pyfuse3.FUSEError(errno.EROFS)
        self._ns.rmdir(Inode(parent), name)

    def _touches_virtual(self, parent: int, name: bytes) -> bool:
        return parent >= VIRTUAL or (name == NAME and parent == ROOT and self._virtual is not None)

    @handler
    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: Any) -> None:
        if self._touches_virtual(parent, name) or self._touches_virtual(new_parent, new_name):
            raise pyfuse3.FUSEError(errno.EROFS)
        if flags not in (0, pyfuse3.RENAME_NOREPLACE, pyfuse3.RENAME_EXCHANGE):
            raise pyfuse3.FUSEError(errno.EINVAL)
        if self._ns.kernel.writers and not flags:
            await self._send_before_replacing(Inode(parent), name, Inode(new_parent), new_name)
        self._ns.rename(
            Inode(parent),
            name,
            Inode(new_parent),
            new_name,
            replace=flags != pyfuse3.RENAME_NOREPLACE,
            exchange=flags == pyfuse3.RENAME_EXCHANGE,
        )

    async def _send_before_replacing(self, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes) -> None:
        """A file that is still open takes the place of another: a crash must not leave it without the bytes that the
        kernel has not sent yet, when the old file is gone."""
        try:
            node = self._ns.peek(parent, name)
            if node is None or self._ns.peek(new_parent, new_name) is None:
                return
        except FsError:
            return  # the rename says what is wrong
        if node.inode in self._ns.kernel.writers:
            with trio.move_on_after(SEND_TIMEOUT):
                await self.send_written()
