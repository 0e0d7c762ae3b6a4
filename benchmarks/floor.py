"""The least that a file system on pyfuse3 can cost: everything in dicts, no index, no checks, no promises.

    python benchmarks/floor.py FOLDER MOUNTPOINT

The file benchmark runs it beside tonfs ("floor"). It answers the same requests through the same loop gate; what tonfs
takes longer is what its own work costs, what this takes longer than C is the binding, the interpreter and one thread.
Small files are in memory, large ones are files in FOLDER; an fsync is one fdatasync, of the file or of one log.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from tonfs.fuse import mountpoint
from tonfs.fuse.gate import WORKERS, Gate, install
from tonfs.fuse.handshake import shake_hands

FOREVER = 3600.0
SMALL = 64 << 10
LOG_SIZE = 1 << 20
ROOM = 1 << 20


class Node:
    __slots__ = ("data", "entry", "fd", "names", "path")

    def __init__(self, inode: int, mode: int, path: Path) -> None:
        now = _now()
        self.entry: Any = pyfuse3.EntryAttributes()
        self.entry.st_ino = inode
        self.entry.entry_timeout = self.entry.attr_timeout = FOREVER
        self.entry.st_mode = mode
        self.entry.st_nlink = 1
        self.entry.st_blksize = 4096
        self.entry.st_atime_ns = self.entry.st_mtime_ns = self.entry.st_ctime_ns = now
        self.names: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None
        self.data = bytearray()
        self.fd = -1
        self.path = path


def _now() -> int:
    return time.clock_gettime_ns(5)  # CLOCK_REALTIME_COARSE


class Floor(pyfuse3.Operations):  # type: ignore[misc]  # pyfuse3 is untyped for us
    supports_dot_lookup = True
    enable_writeback_cache = True
    enable_acl = False

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.nodes = {1: Node(1, stat.S_IFDIR | 0o755, folder)}
        self.next = 2
        self.listings: dict[int, list[tuple[bytes, Node]]] = {}
        self.room = memoryview(bytearray(ROOM))
        self.missing: Any = pyfuse3.EntryAttributes()
        self.missing.st_ino = 0
        self.missing.entry_timeout = FOREVER
        self.log = os.open(folder / "log", os.O_RDWR | os.O_CREAT)
        self.log_at = 0
        os.pwrite(self.log, bytes(LOG_SIZE), 0)
        os.fsync(self.log)

    def make(self, parent: int, name: bytes, mode: int) -> Node:
        inode, self.next = self.next, self.next + 1
        node = self.nodes[inode] = Node(inode, mode, self.folder / str(inode))
        above = self.nodes[parent]
        assert above.names is not None
        above.names[name] = node
        above.entry.st_mtime_ns = above.entry.st_ctime_ns = _now()
        return node

    def take(self, parent: int, name: bytes) -> None:
        above = self.nodes[parent]
        assert above.names is not None
        node = above.names.pop(name)
        above.entry.st_mtime_ns = above.entry.st_ctime_ns = _now()
        node.entry.st_nlink = 0
        if node.fd >= 0:
            os.unlink(node.path)

    async def lookup(self, parent: int, name: bytes, ctx: Any) -> Any:
        names = self.nodes[parent].names
        node = names.get(name) if names is not None else None
        return self.missing if node is None else node.entry

    async def forget(self, inode_list: Any) -> None:
        for inode, _ in inode_list:
            node = self.nodes.get(inode)
            if node is not None and node.entry.st_nlink == 0:
                del self.nodes[inode]
                if node.fd >= 0:
                    os.close(node.fd)

    async def getattr(self, inode: int, ctx: Any) -> Any:
        return self.nodes[inode].entry

    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: Any) -> Any:
        node = self.nodes[inode]
        entry = node.entry
        if fields.update_size:
            self.resize(node, attr.st_size)
        if fields.update_mode:
            entry.st_mode = attr.st_mode
        if fields.update_uid:
            entry.st_uid = attr.st_uid
        if fields.update_gid:
            entry.st_gid = attr.st_gid
        if fields.update_mtime:
            entry.st_mtime_ns = attr.st_mtime_ns
        entry.st_ctime_ns = attr.st_ctime_ns if fields.update_ctime else _now()
        return entry

    def resize(self, node: Node, size: int) -> None:
        if node.fd >= 0:
            os.ftruncate(node.fd, size)
        else:
            node.data[size:] = bytes(max(0, size - len(node.data)))
        node.entry.st_size = size

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> Any:
        return self.make(parent, name, mode | stat.S_IFDIR).entry

    async def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        self.take(parent, name)

    async def rmdir(self, parent: int, name: bytes, ctx: Any) -> None:
        self.take(parent, name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: Any) -> None:
        before, after = self.nodes[parent], self.nodes[new_parent]
        assert before.names is not None
        assert after.names is not None
        if new_name in after.names:
            self.take(new_parent, new_name)
        after.names[new_name] = before.names.pop(name)
        before.entry.st_mtime_ns = after.entry.st_mtime_ns = _now()

    async def open(self, inode: int, flags: int, ctx: Any) -> Any:
        if flags & os.O_TRUNC:
            self.resize(self.nodes[inode], 0)
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        entry = self.make(parent, name, mode | stat.S_IFREG).entry
        return pyfuse3.FileInfo(fh=entry.st_ino, keep_cache=True), entry

    async def read(self, fh: int, off: int, size: int) -> Any:
        node = self.nodes[fh]
        if node.fd < 0:
            return bytes(node.data[off : off + size])
        return self.room[: os.preadv(node.fd, [self.room[:size]], off)]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        node, end = self.nodes[fh], off + len(buf)
        if node.fd < 0 and end > SMALL:
            node.fd = os.open(node.path, os.O_RDWR | os.O_CREAT)
            os.pwrite(node.fd, node.data, 0)
            node.data = bytearray()
        if node.fd >= 0:
            os.pwrite(node.fd, buf, off)
        else:
            if off > len(node.data):
                node.data += bytes(off - len(node.data))
            node.data[off:end] = buf
        entry = node.entry
        entry.st_size = max(entry.st_size, end)
        entry.st_mtime_ns = entry.st_ctime_ns = _now()
        return len(buf)

    async def flush(self, fh: int) -> None:
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def release(self, fh: int) -> None:
        pass

    async def fsync(self, fh: int, datasync: bool) -> None:
        node = self.nodes[fh]
        if node.fd >= 0:
            os.fdatasync(node.fd)
        else:
            self.log_at = self.log_at if self.log_at + len(node.data) <= LOG_SIZE else 0
            os.pwrite(self.log, node.data, self.log_at)
            self.log_at += len(node.data)
            os.fdatasync(self.log)

    async def opendir(self, inode: int, ctx: Any) -> int:
        names = self.nodes[inode].names
        assert names is not None
        self.next += 1
        self.listings[self.next] = list(names.items())
        return self.next

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        entries = self.listings[fh]
        for at in range(start_id, len(entries)):
            name, node = entries[at]
            if not pyfuse3.readdir_reply(token, name, node.entry, at + 1):
                return

    async def releasedir(self, fh: int) -> None:
        del self.listings[fh]

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass

    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        raise pyfuse3.FUSEError(pyfuse3.ENOATTR)

    async def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        return []


async def serve(point: str) -> None:
    gate = Gate()
    if not install(gate):
        raise RuntimeError("this pyfuse3 does not take the gate")
    shake_hands(gate, lambda fd, taken: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, mountpoint.tune, point)
        await pyfuse3.main(WORKERS, WORKERS)


def main() -> None:
    folder, point = Path(sys.argv[1]), sys.argv[2]
    sys.setswitchinterval(0.001)
    options = {"default_permissions", "fsname=floor", "allow_other"}
    pyfuse3.init(Floor(folder), point, options)
    trio.run(serve, point)
    pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main()
