"""fdatasync by the kernel's asynchronous I/O: errors arrive, who comes late shares the next one, threads serve too."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tonfs.fuse import disksync
from tonfs.fuse.disksync import DiskSync


class SlowDisk:
    """In the place of the kernel: operations end when the test says so."""

    def __init__(self) -> None:
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.asked: list[int] = []
        self.full = self.at_once = False
        self._numbers: list[int] = []
        self._ended: list[tuple[int, int]] = []

    def submit(self, fd: int, number: int) -> None:
        if self.full:
            raise OSError(errno.EAGAIN, "full")
        self.asked.append(fd)
        self._numbers.append(number)
        if self.at_once:
            self.end(-1)

    def end(self, which: int, error: int = 0) -> None:
        self._ended.append((self._numbers[which], error))
        os.eventfd_write(self.eventfd, 1)

    def ended(self) -> list[tuple[int, int]]:
        out, self._ended = self._ended, []
        return out

    def close(self) -> None:
        os.close(self.eventfd)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk()
    monkeypatch.setattr(disksync, "_Aio", lambda: disk)
    return disk


@pytest.fixture
async def disk(nursery: trio.Nursery) -> DiskSync:
    made = DiskSync()
    await nursery.start(made.run)
    return made


async def test_files_reach_the_disk_and_errors_the_caller(disk: DiskSync, tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as first, (tmp_path / "b").open("wb") as second:
        first.write(b"x")
        await disk.fdatasync([first.fileno(), second.fileno()])
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Invalid") as caught:
        await disk.fdatasync([reader])
    assert caught.value.errno == errno.EINVAL, "a pipe has no disk"
    os.close(reader)
    os.close(writer)


async def test_those_who_come_late_share_the_next_one(slow: SlowDisk, disk: DiskSync, nursery: trio.Nursery) -> None:
    done: list[int] = []

    async def ask(number: int) -> None:
        await disk.fdatasync([7])
        done.append(number)

    for number in range(3):
        nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
    assert slow.asked == [7]
    slow.end(0)
    await wait_all_tasks_blocked()
    assert done == [0], "what was written after it began is not on the disk yet"
    assert slow.asked == [7, 7]
    slow.end(1)
    await wait_all_tasks_blocked()
    assert sorted(done) == [0, 1, 2]
    assert slow.asked == [7, 7]


async def test_all_of_them_are_waited_for_when_one_fails(slow: SlowDisk, disk: DiskSync, nursery: trio.Nursery) -> None:
    failed: list[int | None] = []

    async def ask() -> None:
        with pytest.raises(OSError, match="Input/output") as caught:
            await disk.fdatasync([7, 8])
        failed.append(caught.value.errno)

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    slow.end(0, errno.EIO)
    await wait_all_tasks_blocked()
    assert failed == []
    slow.end(1)
    await wait_all_tasks_blocked()
    assert failed == [errno.EIO]


async def test_no_room_in_the_kernel_means_a_thread(slow: SlowDisk, disk: DiskSync, tmp_path: Path) -> None:
    slow.full = True
    with (tmp_path / "f").open("wb") as file:
        await disk.fdatasync([file.fileno()])
    assert slow.asked == []


async def test_without_asynchronous_io_threads_serve(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, tmp_path: Path
) -> None:
    monkeypatch.setattr(disksync, "_NUMBERS", {})
    disk = DiskSync()
    await nursery.start(disk.run)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    await disk.fdatasync([5, 6])
    assert synced == [5, 6]


async def test_the_end_waits_for_what_is_under_way(slow: SlowDisk) -> None:
    disk = DiskSync()
    done = trio.Event()

    async def ask() -> None:
        await disk.fdatasync([7])
        done.set()

    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as inner:
            await inner.start(disk.run)
            outer.start_soon(ask)
            await wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
            outer.start_soon(_later, slow)
        await done.wait()


async def _later(slow: SlowDisk) -> None:
    await wait_all_tasks_blocked()
    slow.end(0)


async def test_a_quick_disk_costs_no_pass_through_the_scheduler(slow: SlowDisk, disk: DiskSync) -> None:
    reader, writer = os.pipe()
    disk.wait_beside(reader)
    slow.at_once = True
    batches = 0

    class Count(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal batches
            batches += 1

    count = Count()
    trio.lowlevel.add_instrument(count)
    await disk.fdatasync([7, 8])
    trio.lowlevel.remove_instrument(count)
    assert (slow.asked, batches) == ([7, 8], 0)
    os.close(reader)
    os.close(writer)


async def test_a_request_that_waits_is_not_kept_waiting(
    slow: SlowDisk, disk: DiskSync, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disksync, "PATIENCE", 60_000)  # it would show
    reader, writer = os.pipe()
    disk.wait_beside(reader)
    os.write(writer, b"a request")
    done: list[int] = []

    async def ask() -> None:
        await disk.fdatasync([7])
        done.append(1)

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert (slow.asked, done) == ([7], [])
    slow.end(0)
    await wait_all_tasks_blocked()
    assert done == [1]
    os.close(reader)
    os.close(writer)


async def test_a_slow_disk_is_left_to_the_scheduler(slow: SlowDisk, disk: DiskSync, nursery: trio.Nursery) -> None:
    reader, writer = os.pipe()
    disk.wait_beside(reader)
    nursery.start_soon(disk.fdatasync, [7])
    await wait_all_tasks_blocked()
    slow.end(0)
    await wait_all_tasks_blocked()
    os.close(reader)
    os.close(writer)
