"""Safe file access below a bag's data root, and small durable files.

Names come from strangers: every folder on the way is opened without following links, so nothing outside the root is
ever touched (reference protocol 1.6).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import BadBag, Damaged, NoSpace, TonfsError
from ..system import FULL, from_os


def disk_error(exc: OSError, what: str) -> TonfsError:
    """Our error for a failed disk operation."""
    if exc.errno in FULL:
        return NoSpace(f"The disk is full ({what}).", hint="Free some space; what came so far is kept.")
    return from_os(exc, what[:1].upper() + what[1:])


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a crash leaves the old or the new one. Raises OSError."""
    draft = path.with_name(path.name + ".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(draft, path)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def read_all(fd: int, length: int, offset: int) -> bytes:
    """Up to `length` bytes; fewer only at the end of the file."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def map_file(path: Path, size: int, *, make: bool, sparse: bool = False) -> mmap.mmap:
    """Map a file of exactly `size` bytes; `make` reserves its blocks, so that no write to the map can fail.

    Not those of a `sparse` one: its map is only read. Raises OSError, Damaged when an existing file has another size.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o644)
    try:
        if make:
            os.ftruncate(fd, size)
            if not sparse:
                os.posix_fallocate(fd, 0, size)
        elif os.fstat(fd).st_size != size:
            raise Damaged(f"{path} does not have {size} bytes.")
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ if sparse else mmap.ACCESS_WRITE)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _step(parent: int, part: bytes, make: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(part, flags, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=parent)
        return os.open(part, flags, dir_fd=parent)


@contextlib.contextmanager
def folder_of(root: Path, name: bytes, *, make: bool = False) -> Iterator[tuple[int, bytes]]:
    """(descriptor of the folder that holds `name` below `root`, last component). Raises OSError, BadBag on links."""
    *folders, last = name.split(b"/")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        here = os.open(root, flags)
    except FileNotFoundError:
        if not make:
            raise
        root.mkdir(parents=True, exist_ok=True)
        here = os.open(root, flags)
    try:
        for part in folders:
            try:
                below = _step(here, part, make)
            except OSError as exc:
                if exc.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise BadBag(f"{os.fsdecode(name)!r} would lead through a link or a file below {root}.") from None
                raise
            os.close(here)
            here = below
        yield here, last
    finally:
        os.close(here)


@contextlib.contextmanager
def open_below(root: Path, name: bytes, *, write: bool = False, size: int = 0) -> Iterator[int]:
    """A descriptor of the regular file `name` below `root`; with `write` it is made, with exactly `size` bytes.

    Raises OSError, BadBag when a link or something else than a file is in the way.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY)
    with folder_of(root, name, make=write) as (folder, last):
        try:
            fd = os.open(last, flags, 0o644, dir_fd=folder)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.EISDIR):
                raise BadBag(f"{os.fsdecode(name)!r} is a link or a folder below {root}.") from None
            raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BadBag(f"{os.fsdecode(name)!r} is no regular file below {root}.")
        if write and status.st_size != size:
            os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def exists_below(root: Path, name: bytes) -> bool:
    """Whether anything, a link included, has this name."""
    try:
        with folder_of(root, name) as (folder, last):
            os.stat(last, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove_below(root: Path, names: list[bytes]) -> None:
    """Delete these files, then the folders they leave empty (never `root`). What is missing is fine."""
    folders: set[bytes] = set()
    for name in names:
        with contextlib.suppress(FileNotFoundError), folder_of(root, name) as (folder, last):
            os.unlink(last, dir_fd=folder)
        parts = name.split(b"/")
        folders.update(b"/".join(parts[:count]) for count in range(1, len(parts)))
    for path in sorted(folders, key=lambda one: one.count(b"/"), reverse=True):
        with contextlib.suppress(OSError), folder_of(root, path) as (folder, last):
            os.rmdir(last, dir_fd=folder)
