"""kill -9 of the front: what was acknowledged is there afterwards, and the next mount asks nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import threading
import time
from pathlib import Path

import pytest

from tests.fuse.conftest import MountedVolume

pytestmark = pytest.mark.root


def write_and_sync(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def test_fsynced_files_survive_kill_9_and_a_dead_mount_point_is_cleaned_up(mounted: MountedVolume) -> None:
    rng = random.Random(5)
    acknowledged: dict[str, bytes] = {}
    for round_ in range(3):
        stop = threading.Event()

        def write(round_: int = round_, stop: threading.Event = stop) -> None:
            for n in range(10_000):
                name, data = f"{round_}-{n}", rng.randbytes(rng.randrange(1, 60_000))
                try:
                    write_and_sync(mounted.point / name, data)
                except OSError:
                    return
                acknowledged[name] = data
                if stop.is_set():
                    return

        writer = threading.Thread(target=write)
        writer.start()
        while len(acknowledged) < 20 * (round_ + 1):
            writer.join(0.01)
        mounted.kill()
        stop.set()
        writer.join()
        with pytest.raises(OSError, match=r"not connected|connection abort"):
            os.statvfs(mounted.point)
        mounted.mount()
        for name, data in acknowledged.items():
            assert (mounted.point / name).read_bytes() == data, name


def test_a_file_renamed_over_another_is_never_empty_or_mixed_after_a_kill(mounted: MountedVolume) -> None:
    target = mounted.point / "config"
    write_and_sync(target, b"old" * 10_000)
    versions = {b"old" * 10_000}
    for n in range(5):
        new = b"%03d" % n * 10_000
        draft = mounted.point / "config.new"
        draft.write_bytes(new)
        versions.add(new)
        os.replace(draft, target)
        if n % 2:
            mounted.kill()
            mounted.mount()
            assert target.read_bytes() in versions


def test_an_unlinked_open_file_leaves_nothing_behind_after_a_kill(mounted: MountedVolume) -> None:
    fd = os.open(mounted.point / "orphan", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 1_000_000)
    os.fsync(fd)
    os.unlink(mounted.point / "orphan")
    write_and_sync(mounted.point / "other", b"makes the unlink durable")
    mounted.kill()
    with contextlib.suppress(OSError):  # the connection is gone; that the descriptor is closed is all we want
        os.close(fd)
    mounted.mount()
    content = sum(p.stat().st_size for p in (mounted.volume / "content").rglob("*") if p.is_file())
    assert content < 1_000_000


def asks_for_writes(pid: int) -> bool:
    """A thread of the process, or of a child of it, is in syncfs(2)."""
    number = {"x86_64": "306", "aarch64": "267"}[platform.machine()]
    tasks = list(Path(f"/proc/{pid}/task").glob("*"))
    for task in list(tasks):
        with contextlib.suppress(OSError):
            tasks += [Path(f"/proc/{child}") for child in (task / "children").read_text().split()]
    for task in tasks:
        with contextlib.suppress(OSError):
            if (task / "syscall").read_text().split()[0] == number:
                return True
    return False


def test_a_front_that_is_killed_while_the_kernel_sends_what_was_written_is_gone(mounted: MountedVolume) -> None:
    """With a thread that waits for its own mount it could not end: it kept the volume, and all who used it hung."""
    stop = threading.Event()

    def write() -> None:
        with contextlib.suppress(OSError), (mounted.point / "big").open("wb", buffering=0) as file:
            while not stop.is_set():
                file.write(b"x" * (4 << 20))
                if file.tell() > 256 << 20:
                    file.seek(0)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        pid, end = mounted.pid(), time.monotonic() + 60
        while not asks_for_writes(pid):
            assert time.monotonic() < end, "nobody asks"
        mounted.kill()
        assert not asks_for_writes(pid)
        mounted.mount()
    finally:
        stop.set()
        writer.join()
    write_and_sync(mounted.point / "after", b"works")
