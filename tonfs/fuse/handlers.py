"""Kernel requests -> Namespace calls. One method a request; the handle of an open file is the inode number.

What is asked for thousands of times a second costs no thread, no copy and no new object: replies are the entries that
live with the inodes, changed in place, and bytes of a buffer that is used again once the reply is sent.

Reference fuse.md, "Known traps": numbers in comments below are of that list.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import pyfuse3
import trio

from ..errors import FsError, TimedOut
from ..ids import Inode
from ..volume.api import ROOT, Attr, Fetch, Live, Namespace
from .disksync import DiskSync
from .guard import answer, handler, silent
from .options import MountOptions
from .setid import BITS, cleared
from .virtual import LAST_COOKIE, NAME, VIRTUAL, Reports, VirtualTree

CACHE_SECONDS: Final = 3600.0
"""The kernel may trust names and attributes this long: all changes go through this process, which tells it."""
FIRST_COOKIE: Final = 2
"""`.` is 1 and `..` is 2 in a listing; the volume's cookies lie above."""
FIRST_BATCH: Final = 32
"""The least number of names to fetch at first, if the kernel had less room the last time."""
LIST_BATCH: Final = 256
"""And what is fetched when it takes them all."""
BUFFER: Final = 1 << 20
"""The most that the kernel reads at once."""
BLOCK_SIZE: Final = 4096
SLOW_WRITE: Final = 4 << 20
READ_TRIES: Final = 16
SEND_TIMEOUT: Final = 30.0
ASKED_OFTEN: Final = {b"security.capability": pyfuse3.ENOATTR, b"security.selinux": errno.EOPNOTSUPP}
"""What a file without any attribute answers. A kernel that clears set-id bits itself asks for the first before every
write. `ls -l` asks every file for the second, where no SELinux answers, unless it hears that there are no labels."""
_DONE: Final[Any] = object()


async def _no_kernel(_: Inode) -> None:
    pass


def _nobody(_: Inode) -> None:
    pass


class Handlers(pyfuse3.Operations):  # type: ignore[misc]  # pyfuse3 is untyped for us
    """The file system as pyfuse3 wants it. Never raises anything but FUSEError."""

    supports_dot_lookup = True
    enable_acl = False

    def __init__(
        self, namespace: Namespace, fetch: Fetch, options: MountOptions, reports: Reports | None = None
    ) -> None:
        """Without `reports` there is no `.tonfs`."""
        super().__init__()
        self._ns = namespace
        self._fetch = fetch
        self._options = options
        self.enable_writeback_cache = not options.read_only
        self.under_way = 0
        """Requests that may wait and have not been answered."""
        self._opens: dict[Inode, int] = {}
        """How often each file is open."""
        self._listings: dict[int, tuple[Inode, int]] = {}
        """Handles of directories -> the directory; the cookie that a listing ends before. Or a program that renames
        what it meets would meet it again, without end."""
        self._last_listing = 0
        self._shown_bits = ~(0 if options.umask is None else options.umask)
        self._uid, self._gid = options.uid, options.gid
        self.disk = DiskSync()
        self._buffer = memoryview(bytearray(BUFFER))
        self._room = FIRST_BATCH
        """Entries that the kernel took in the last reply it had no room left in."""
        missing = pyfuse3.EntryAttributes()
        missing.st_ino = 0
        missing.entry_timeout = CACHE_SECONDS
        self._missing = missing
        self.send_written: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Has the kernel send what programs wrote; the mount knows how."""
        self.clears_set_id = False
        """The kernel leaves it to us to clear set-id bits."""
        self.show_again: Callable[[Inode], Awaitable[None]] = _no_kernel
        """The kernel does not show the attributes that it remembers any more; the mount knows how."""
        self.ask_again: Callable[[Inode], None] = _nobody
        """The same at once; only while a request keeps the inode in the kernel, or it might wait for other answers."""
        uid = os.geteuid() if options.uid is None else options.uid
        gid = os.getegid() if options.gid is None else options.gid
        self._virtual = None if reports is None else VirtualTree(namespace, reports, (uid, gid), self._shown)

    def suspended(self) -> bool:
        """Asked between requests: one of them waits for disk or network."""
        return self.under_way > 0

    def agree(self, killpriv: bool) -> None:
        """What the kernel and we agreed on."""
        self.clears_set_id = killpriv

    # Attributes -------------------------------------------------------------------------------------------------

    def _entry(self, node: Live) -> Any:
        """The reply for an inode: kept with it, filled anew when it has changed. Send it before anything else runs."""
        out = node.kept
        if node.kept_gen == node.gen:
            return out
        if out is None:
            out = node.kept = pyfuse3.EntryAttributes()
            out.st_ino = node.inode
            out.generation = 0
            out.entry_timeout = CACHE_SECONDS
            out.attr_timeout = CACHE_SECONDS
            out.st_rdev = node.rdev
            out.st_blksize = BLOCK_SIZE
        out.st_mode = node.mode & self._shown_bits
        out.st_nlink = node.nlink
        out.st_uid = node.uid if self._uid is None else self._uid
        out.st_gid = node.gid if self._gid is None else self._gid
        out.st_size = node.size
        out.st_blocks = node.blocks
        out.st_atime_ns = node.atime
        out.st_mtime_ns = node.mtime
        out.st_ctime_ns = node.ctime
        node.kept_gen = node.gen
        return out

    def _shown(self, attr: Attr) -> Any:
        return self._entry(self._ns.live(attr.inode))

    @answer
    def lookup(self, parent: int, name: bytes, ctx: Any) -> Any:
        if parent >= VIRTUAL:
            return self._tree().lookup(parent, name)
        node = self._ns.peek(Inode(parent), name, 1)  # the answer gives the kernel a reference (trap 3)
        if node is not None:
            return self._entry(node)
        return self._missing if name != NAME or parent != ROOT or self._virtual is None else self._virtual.top()

    def _tree(self) -> VirtualTree:
        if self._virtual is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._virtual

    @silent
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            if inode < VIRTUAL:
                self._ns.drop(Inode(inode), count)

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

    def _held(self, inode: Inode) -> Any:
        """The reply, and a reference for the kernel."""
        self._ns.hold(inode)
        return self._entry(self._ns.live(inode))

    # Names ------------------------------------------------------------------------------------------------------

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

    # Files ------------------------------------------------------------------------------------------------------

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

    # Directories ------------------------------------------------------------------------------------------------

    @answer
    def opendir(self, inode: int, ctx: Any) -> int:
        if inode >= VIRTUAL:
            self._tree().getattr(inode)
            return inode
        self._ns.live(Inode(inode))
        self._ns.hold(Inode(inode))
        self._last_listing += 1
        self._listings[self._last_listing] = (Inode(inode), self._ns.next_cookie)
        return self._last_listing

    @answer
    def readdir(self, fh: int, start_id: int, token: Any) -> None:
        if fh >= VIRTUAL:
            self._tree().readdir(fh, start_id, token)
            return
        inode, end = self._listings[fh]
        here = self._ns.live(inode)
        if here.nlink == 0:
            return
        if start_id == 0:  # rewound
            end = self._ns.next_cookie
            self._listings[fh] = (inode, end)
        if start_id < 1 and not pyfuse3.readdir_reply(token, b".", self._entry(here), 1):
            return
        if start_id < FIRST_COOKIE:
            above = self._ns.peek(inode, b"..") or here
            if not pyfuse3.readdir_reply(token, b"..", self._entry(above), FIRST_COOKIE):
                return
        for taken, (name, cookie, node) in enumerate(self._listed(inode, max(start_id, FIRST_COOKIE), end)):
            if not pyfuse3.readdir_reply(token, name, self._entry(node), cookie):
                self._room = max(taken, FIRST_BATCH)
                return
            self._ns.hold(node.inode)
        if self._options.show_control and inode == ROOT and start_id < LAST_COOKIE and self._virtual is not None:
            pyfuse3.readdir_reply(token, NAME, self._virtual.top(), LAST_COOKIE)

    def _listed(self, inode: Inode, after: int, end: int) -> Iterator[tuple[bytes, int, Live]]:
        batch = self._room + 1
        while entries := self._ns.list_live(inode, after, batch):
            for entry in entries:
                if entry[1] >= end:
                    return
                yield entry
            after, batch = entries[-1][1], LIST_BATCH

    @silent
    async def releasedir(self, fh: int) -> None:
        if fh < VIRTUAL:
            self._ns.drop(self._listings.pop(fh)[0])

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        if fh < VIRTUAL:
            await self._sync(self._listings[fh][0], False)

    @answer
    def statfs(self, ctx: Any) -> Any:
        got = self._ns.statfs()
        out = pyfuse3.StatvfsData()
        out.f_bsize = out.f_frsize = got.block_size
        out.f_blocks, out.f_bfree, out.f_bavail = got.blocks, got.free, got.available
        out.f_files, out.f_ffree, out.f_favail = got.files, got.files_free, got.files_free
        out.f_namemax = got.name_max
        return out

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

    @answer
    def access(self, inode: int, mode: int, ctx: Any) -> bool:
        self._ns.live(Inode(inode))
        return True  # the kernel checks (default_permissions), this is never asked
