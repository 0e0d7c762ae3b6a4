"""Handlers without a kernel: replies that are kept must be as true as new ones."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest

from tonfs.fuse import MountOptions
from tonfs.fuse.handlers import Handlers
from tonfs.ids import Inode
from tonfs.volume import ROOT, SetAttr, Volume
from tonfs.volume.api import RemoteRange

ANYBODY = SimpleNamespace(uid=5, gid=6, umask=0o22, pid=1)


async def no_fetch(ranges: Sequence[RemoteRange]) -> None:
    raise AssertionError(f"nothing is remote here: {ranges}")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    made = Volume(tmp_path)
    yield made
    made.close()


@pytest.fixture
def handlers(volume: Volume) -> Handlers:
    return Handlers(volume, no_fetch, MountOptions())


async def create(handlers: Handlers, name: bytes, data: bytes = b"") -> Inode:
    info, entry = await handlers.create(ROOT, name, 0o644, os.O_RDWR | os.O_CREAT, ANYBODY)
    if data:
        await handlers.write(info.fh, 0, data)
    return Inode(entry.st_ino)


async def refused(call: Awaitable[Any]) -> int:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await call
    return int(caught.value.errno)


async def test_the_reply_for_an_inode_is_kept_and_follows_it(handlers: Handlers, volume: Volume) -> None:
    inode = await create(handlers, b"f", b"12345")
    first = await handlers.lookup(ROOT, b"f", ANYBODY)
    assert (first.st_ino, first.st_size, first.st_uid, first.st_gid) == (inode, 5, 5, 6)
    volume.setattr(inode, SetAttr(mode=0o600, mtime_ns=-7))
    volume.truncate(inode, 3)
    second = await handlers.getattr(inode, ANYBODY)
    assert second is first
    assert (second.st_mode, second.st_size) == (0o100600, 3)


async def test_blocks_that_are_cut_off_later_are_not_shown_for_ever(handlers: Handlers, volume: Volume) -> None:
    inode = await create(handlers, b"f", b"x" * 200_000)
    volume.sync(inode)
    assert (await handlers.getattr(inode, ANYBODY)).st_blocks >= 390
    volume.truncate(inode, 4096)
    await handlers.getattr(inode, ANYBODY)
    volume.commit()
    volume.background()
    assert (await handlers.getattr(inode, ANYBODY)).st_blocks == 8


@pytest.mark.parametrize("length", [0, 1, 5000, 300_000])
async def test_reads_end_where_the_file_ends(handlers: Handlers, length: int) -> None:
    data = bytes(range(256)) * 1200
    inode = await create(handlers, b"f", data[:length])
    assert bytes(await handlers.read(inode, 0, 1 << 20)) == data[:length]
    assert bytes(await handlers.read(inode, length // 2, 4096)) == data[length // 2 : min(length, length // 2 + 4096)]
    assert bytes(await handlers.read(inode, length + 9, 4096)) == b""
    assert bytes(await handlers.read(inode, 0, 2 << 20)) == data[:length]  # more than the buffer holds


async def test_a_name_that_is_not_there_may_be_remembered(handlers: Handlers) -> None:
    entry = await handlers.lookup(ROOT, b"nobody", ANYBODY)
    assert entry.st_ino == 0
    assert entry.entry_timeout > 1000


async def test_creating_what_somebody_else_has_just_created(handlers: Handlers, volume: Volume) -> None:
    inode = await create(handlers, b"f", b"old")
    flags = os.O_RDWR | os.O_CREAT
    assert await refused(handlers.create(ROOT, b"f", 0o644, flags | os.O_EXCL, ANYBODY)) == errno.EEXIST
    _, entry = await handlers.create(ROOT, b"f", 0o644, flags | os.O_TRUNC, ANYBODY)
    assert (entry.st_ino, entry.st_size) == (inode, 0)
    volume.mkdir(ROOT, b"d", 0o755, 0, 0)
    assert await refused(handlers.create(ROOT, b"d", 0o644, flags, ANYBODY)) == errno.EEXIST


async def test_a_new_file_lives_until_it_is_released_and_forgotten(handlers: Handlers, volume: Volume) -> None:
    inode = await create(handlers, b"f", b"bytes")
    await handlers.unlink(ROOT, b"f", ANYBODY)
    await handlers.release(inode)
    assert (await handlers.getattr(inode, ANYBODY)).st_nlink == 0
    await handlers.forget([(inode, 1)])
    assert await refused(handlers.getattr(inode, ANYBODY)) == errno.ENOENT


async def test_no_attributes_is_said_without_a_look_into_the_index(handlers: Handlers, volume: Volume) -> None:
    inode = await create(handlers, b"f")
    assert await refused(handlers.getxattr(inode, b"security.capability", ANYBODY)) == pyfuse3.ENOATTR
    volume.set_xattr(inode, b"security.capability", b"cap")
    assert await handlers.getxattr(inode, b"security.capability", ANYBODY) == b"cap"
