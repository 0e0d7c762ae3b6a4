"""When the kernel is asked for what programs wrote: for files that stay open, not for those that come and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from tonfs.fuse import writeback
from tonfs.fuse.writeback import INTERVAL, keep_sending
from tonfs.ids import Inode

Step = Callable[[], Awaitable[None]]


class World:
    def __init__(self) -> None:
        self.writers: set[Inode] = set()
        self.asked: list[float] = []
        self.told: list[set[Inode]] = []

    async def send(self, point: str) -> None:
        self.asked.append(trio.current_time())

    def sent(self, inodes: Iterable[Inode]) -> None:
        self.told.append(set(inodes))
        assert len(self.told) == len(self.asked)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(writeback, "send_quietly", world.send)
    return world


async def run(world: World, looks: list[set[int]]) -> list[int]:
    """The looks (first is 0) after which the kernel was asked, with these files open at each."""
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(keep_sending, "/mnt", lambda: world.writers, world.sent))
        for files in looks:
            world.writers = {Inode(file) for file in files}
            await trio.sleep(INTERVAL)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return [round((moment - begun) / INTERVAL) - 1 for moment in world.asked]


async def test_a_file_that_stays_open_is_asked_for_each_second_look(world: World, autojump_clock: MockClock) -> None:
    assert await run(world, [{7}] * 6) == [1, 3, 5]
    assert world.told == [{7}] * 3


async def test_files_that_come_and_go_are_not_asked_for(world: World, autojump_clock: MockClock) -> None:
    assert await run(world, [{1}, {2}, {3}, set(), {3}, {4}]) == []


async def test_one_that_stays_is_enough(world: World, autojump_clock: MockClock) -> None:
    assert await run(world, [{1}, {2, 9}, {3, 9}]) == [2]
