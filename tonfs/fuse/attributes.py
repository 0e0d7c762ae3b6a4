"""Requests about attributes, also extended ones, and the set-id bits that a change of a file clears."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pyfuse3
import trio

from ..ids import Inode
from ..volume.api import Live
from .guard import answer, handler
from .replies import Replies
from .setid import BITS, cleared
from .virtual import VIRTUAL

ASKED_OFTEN: Final = {b"security.capability": pyfuse3.ENOATTR, b"security.selinux": errno.EOPNOTSUPP}
"""What a file without any attribute answers. A kernel that clears set-id bits itself asks for the first before every
write. `ls -l` asks every file for the second, where no SELinux answers, unless it hears that there are no labels."""


async def _no_kernel(_: Inode) -> None:
    pass


class Attributes(Replies):
    """See the module."""

    def _begin(self) -> None:
        super()._begin()
        self.clears_set_id = False
        """The kernel leaves it to us to clear set-id bits."""
        self.show_again: Callable[[Inode], Awaitable[None]] = _no_kernel
        """The kernel does not show the attributes that it remembers any more; the mount knows how."""

    def agree(self, fd: int, killpriv: bool) -> None:
        """What the kernel, at this descriptor, and we agreed on."""
        self.clears_set_id = killpriv

    @answer
    def getattr(self, inode: int, ctx: Any) -> Any:
        if inode >= VIRTUAL:
            return self._tree().getattr(inode)
        return self._entry(self._ns.live(Inode(inode)))

    @handler
    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: Any) -> Any:
        if inode >= VIRTUAL:
            return self._tree().setattr(inode, fields)
        number = Inode(inode)
        if fields.update_size:
            await self._resize(number, attr.st_size)
        mode = attr.st_mode if fields.update_mode else None
        uid = attr.st_uid if fields.update_uid else None
        gid = attr.st_gid if fields.update_gid else None
        atime = attr.st_atime_ns if fields.update_atime else None
        mtime = attr.st_mtime_ns if fields.update_mtime else None
        ctime = attr.st_ctime_ns if fields.update_ctime else None
        if self.clears_set_id and mode is None and (fields.update_uid or fields.update_gid or fields.update_size):
            mode = self._mode_without_set_id(number, ctx.uid if fields.update_size else None)
        if mode is uid is gid is atime is mtime is ctime is None:
            return self._entry(self._ns.live(number))
        node = self._ns.set_live(number, mode, uid, gid, atime, mtime, ctime)
        if mode is uid is gid is atime is None and not fields.update_size:
            return self._unseen(node)
        return self._entry(node)

    def _unseen(self, node: Live) -> Any:
        """The reply to new times alone: the kernel does not look at it when it sends those of what it collected, and
        goes on showing the blocks that it knew (`shows_old_blocks`)."""
        shown = -1 if node.kept is None else node.kept.st_blocks
        out = self._entry(node)
        if shown not in (-1, out.st_blocks):
            out.st_blocks = shown
            node.kept_gen = -1
        return out

    def _mode_without_set_id(self, inode: Inode, cut_by: int | None) -> int | None:
        """For a change that clears set-id bits: the new mode, None if it stays. root may cut without losing them."""
        mode = self._ns.mode(inode)
        return cleared(mode) if mode & BITS and cut_by != 0 and cleared(mode) != mode else None

    async def _clear_set_id(self, inode: Inode, cut_by: int | None = None) -> None:
        """The same for requests whose answer does not tell the kernel of the mode."""
        mode = self._mode_without_set_id(inode, cut_by)
        if mode is not None:
            self._ns.set_live(inode, mode)
            await self.show_again(inode)

    async def _resize(self, inode: Inode, size: int) -> None:
        if size > self._ns.live(inode).size and self._ns.would_wait(inode, size, 1):
            await trio.to_thread.run_sync(self._ns.resize, inode, size)
        else:
            self._ns.resize(inode, size)

    # Extended attributes ----------------------------------------------------------------------------------------

    @handler
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        if inode >= VIRTUAL:
            await self._tree().setxattr(inode, name, value)
            return
        self._ns.set_xattr(Inode(inode), name, value)

    @answer
    def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        if inode >= VIRTUAL:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        if name in ASKED_OFTEN and not self._ns.has_xattrs(Inode(inode)):
            raise pyfuse3.FUSEError(ASKED_OFTEN[name])
        return self._ns.get_xattr(Inode(inode), name)

    @answer
    def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        if inode >= VIRTUAL:
            return []
        names = self._ns.list_xattrs(Inode(inode))
        return names if ctx.uid == 0 else [name for name in names if not name.startswith(b"trusted.")]

    @answer
    def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        if inode >= VIRTUAL:
            raise pyfuse3.FUSEError(errno.EROFS)
        self._ns.remove_xattr(Inode(inode), name)
