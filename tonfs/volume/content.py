"""Content files: local, sparse bytes, `content/XX/NUMBER` with XX the low byte of the (hexadecimal) number.

The number is that of an inode, or of the same counter.

Calls are made under the volume's lock, except those that say otherwise. Errors are OSError as the system gave them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ..ids import Inode

MAX_OPEN: Final = 1024
TOP: Final = -1
"""Stands for the directory of the shards among them."""
_KEEP_SIZE_PUNCH_HOLE: Final = 0x01 | 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_SYNC_FILE_RANGE_WRITE: Final = 2
_EARLY: Final = 256 << 10
"""Fewer bytes are not worth a call of their own: the sync that follows has them."""


def syncfs(fd: int) -> None:
    """Have the file system of this descriptor write all that waits for it (syncfs(2)). Slow. Raises OSError."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class ContentStore:
    """Opens content files as needed and keeps the last few hundred descriptors."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: OrderedDict[Inode, int] = OrderedDict()
        self.new_shards: dict[int, int] = {}
        """Directories that got new names since they were last fsynced -> how many files were made before."""
        self.unsure: set[int] = set()
        """After a crash: directories with names of the process before, which nobody fsynced since."""
        self.removed: dict[int, set[Inode]] = {}
        """Directories that lost files since they were last fsynced -> which."""
        self._made = 0
        root.mkdir(mode=0o700, exist_ok=True)

    def path(self, inode: Inode) -> Path:
        return self.path_below(self.root, inode)

    @staticmethod
    def path_below(root: Path, inode: Inode) -> Path:
        return root / f"{inode & 0xFF:02x}" / f"{inode:x}"

    def _descriptor(self, inode: Inode, *, create: bool) -> int:
        """Raises FileNotFoundError when there is none and `create` is not asked for."""
        fd = self._open.get(inode)
        if fd is not None:
            self._open.move_to_end(inode)
            return fd
        path = self.path(inode)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_TRUNC if create else 0)
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            if not create:
                raise
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self.new_shards[TOP] = self._made + 1
            fd = os.open(path, flags, 0o600)
        if create:
            self._made += 1
            self.new_shards[inode & 0xFF] = self._made
        self._open[inode] = fd
        while len(self._open) > MAX_OPEN:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)
        return fd

    def descriptor(self, inode: Inode) -> int:
        """Of an existing file; stays valid until the next call that opens another one. Raises FileNotFoundError."""
        fd = self._open.get(inode)
        return self._descriptor(inode, create=False) if fd is None else fd

    def create(self, inode: Inode) -> None:
        """A new, empty file; whatever an earlier crash left under the number is gone."""
        self.forget(inode)
        self._descriptor(inode, create=True)

    def read(self, inode: Inode, offset: int, length: int) -> bytes:
        """Up to `length` bytes; short at the end of the content file."""
        fd = self._descriptor(inode, create=False)
        data = os.pread(fd, length, offset)
        while 0 < len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def write(self, inode: Inode, offset: int, data: bytes | memoryview) -> None:
        """All of `data`, or OSError (what was written before stays)."""
        fd = self._descriptor(inode, create=False)
        done = os.pwrite(fd, data, offset)
        while done < len(data):
            done += os.pwrite(fd, memoryview(data)[done:], offset + done)

    def length(self, inode: Inode) -> int:
        return os.fstat(self._descriptor(inode, create=False)).st_size

    def truncate(self, inode: Inode, size: int) -> None:
        os.ftruncate(self._descriptor(inode, create=False), size)

    def make_at_least(self, inode: Inode, size: int) -> None:
        """Extend (or make) a file whose end was lost; only holes are added."""
        try:
            fd = self._descriptor(inode, create=False)
        except FileNotFoundError:
            fd = self._descriptor(inode, create=True)
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)

    def blocks(self, inode: Inode) -> int:
        fd = self._open.get(inode)
        try:
            return (os.stat(self.path(inode)) if fd is None else os.fstat(fd)).st_blocks
        except FileNotFoundError:
            return 0

    def punch(self, inode: Inode, offset: int, length: int) -> bool:
        """Give the blocks of a range back to the disk. False where the file system below cannot."""
        fd = self._descriptor(inode, create=False)
        if _libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, offset, length) == 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise OSError(number, os.strerror(number))

    def data_ranges(self, inode: Inode, start: int, end: int) -> list[tuple[int, int]]:
        """(offset, length) of what is not a hole within [start, end), block by block as the file system knows it.

        Uses a descriptor of its own: callable without the lock.
        """
        out: list[tuple[int, int]] = []
        fd = os.open(self.path(inode), os.O_RDONLY | os.O_CLOEXEC)
        try:
            position = start
            while position < end:
                try:
                    data = os.lseek(fd, position, os.SEEK_DATA)
                except OSError as exc:
                    if exc.errno == errno.ENXIO:  # only a hole is left
                        break
                    raise
                if data >= end:
                    break
                hole = min(os.lseek(fd, data, os.SEEK_HOLE), end)
                out.append((data, hole - data))
                position = hole
        finally:
            os.close(fd)
        return out

    def duplicate(self, inode: Inode) -> int | None:
        """A descriptor of the caller's own, to fsync without the lock; None when there is no content file."""
        try:
            return os.dup(self._descriptor(inode, create=False))
        except FileNotFoundError:
            return None

    def shards(self) -> set[int]:
        """Low bytes of the numbers that files were ever made of."""
        return {int(path.name, 16) for path in self.root.iterdir()}

    def numbers(self) -> list[int]:
        """Of all content files. Slow when there are many."""
        return [int(path.name, 16) for shard in self.root.iterdir() for path in shard.iterdir()]

    def shard(self, number: int) -> Path:
        return self.root if number == TOP else self.root / f"{number:02x}"

    def unsynced_names(self, blobs: Iterable[Inode]) -> dict[int, int]:
        """Directories to fsync with these content files, for `shards_synced`; none without files."""
        needed = {TOP, *(blob & 0xFF for blob in blobs)} if self.new_shards or self.unsure else {TOP}
        if len(needed) == 1:
            return {}
        return {**dict.fromkeys(needed & self.unsure, 0), **self.new_shards}

    def shards_synced(self, done: Mapping[int, int]) -> None:
        """These were fsynced; those that got files since are not done."""
        self.unsure.difference_update(done)
        for number, made in done.items():
            if self.new_shards.get(number) == made:
                del self.new_shards[number]

    def forget(self, inode: Inode) -> None:
        """Close its descriptor if it is open."""
        fd = self._open.pop(inode, None)
        if fd is not None:
            os.close(fd)

    def remove(self, inode: Inode) -> bool:
        """Delete the content file; False when there is none."""
        self.forget(inode)
        try:
            os.unlink(self.path(inode))
        except FileNotFoundError:
            return False
        self.note_removed(inode)
        return True

    def note_removed(self, inode: Inode) -> None:
        """It was deleted, and may come back when the power fails."""
        self.removed.setdefault(inode & 0xFF, set()).add(inode)

    def sync_everything(self) -> None:
        """Whatever waits to be written on this file system, names and bytes of content files among it. Slow; callable
        without the lock."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def write_through(fd: int, offset: int, data: bytes | memoryview) -> None:
    """All of `data`, and the disk begins with it at once, so that a sync afterwards has little to wait for. Callable
    without the lock. Raises OSError."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:] if done else data, offset + done)
    if len(data) >= _EARLY:
        _libc.sync_file_range(fd, offset, len(data), _SYNC_FILE_RANGE_WRITE)  # a hint; errors come with the sync


def sync_directory(path: Path) -> None:
    """fsync a directory: names in it are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
