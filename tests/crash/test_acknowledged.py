"""kill -9 of the front right after a program was told that something is safe, and right after it was told nothing."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.test_kill_front import write_and_sync
from tests.fuse.conftest import MountedVolume

pytestmark = pytest.mark.root

BODY = os.urandom(50_000)


def o_sync(path: Path) -> None:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    os.write(fd, BODY[:30_000])
    os.write(fd, BODY[30_000:])
    os.close(fd)


def fdatasync(path: Path) -> None:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for start in range(0, len(BODY), 10_000):
        os.write(fd, BODY[start : start + 10_000])
        os.fdatasync(fd)
    os.close(fd)


def msync(path: Path) -> None:
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, len(BODY))
    with mmap.mmap(fd, len(BODY)) as view:
        view[:] = BODY
        view.flush()
    os.close(fd)


def fsync_of_the_directory(path: Path) -> None:
    """Of a file that was made durable under another name, and of a directory it moved into."""
    path.parent.mkdir()
    write_and_sync(path.parent.parent / "draft", BODY)
    os.rename(path.parent.parent / "draft", path)
    for folder in (path.parent.parent, path.parent):
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


@pytest.mark.parametrize("way", [o_sync, fdatasync, msync, fsync_of_the_directory])
def test_what_a_program_was_told_is_safe_is_there_after_a_kill(
    mounted: MountedVolume, way: Callable[[Path], None]
) -> None:
    path = mounted.point / ("dir/file" if way is fsync_of_the_directory else "file")
    way(path)
    mounted.kill()
    mounted.mount()
    assert path.read_bytes() == BODY


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def size_served(mounted: MountedVolume) -> int:
    """Bytes of all files as far as the front knows of them."""
    from tonfs.control import call_sync

    return int(call_sync(mounted.volume / "run" / "front.sock", "status", who="front")["bytes"]["logical"])


def test_what_was_written_reaches_the_volume_without_fsync_while_the_file_stays_open(mounted: MountedVolume) -> None:
    """The kernel alone would keep it for half a minute. A commit follows within 200 ms."""
    fd = os.open(mounted.point / "log", os.O_CREAT | os.O_WRONLY)
    os.write(fd, BODY)
    wait_for(lambda: size_served(mounted) == len(BODY))
    from tonfs.control import call_sync

    call_sync(mounted.volume / "run" / "front.sock", "commit", who="front")
    mounted.kill()
    with contextlib.suppress(OSError):  # the connection is gone
        os.close(fd)
    mounted.mount()
    assert (mounted.point / "log").read_bytes() == BODY


def test_an_open_file_renamed_over_another_is_whole_after_a_kill(mounted: MountedVolume) -> None:
    """Its bytes may still be with the kernel when the rename comes."""
    target, draft = mounted.point / "config", mounted.point / "config.new"
    write_and_sync(target, b"old" * 1000)
    fd = os.open(draft, os.O_CREAT | os.O_WRONLY)
    os.write(fd, BODY)
    os.rename(draft, target)
    write_and_sync(mounted.point / "other", b"makes the rename durable")
    mounted.kill()
    with contextlib.suppress(OSError):
        os.close(fd)
    mounted.mount()
    assert target.read_bytes() == BODY
