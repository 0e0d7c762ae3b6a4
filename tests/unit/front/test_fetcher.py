from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.unit.front.fake_agent import FakeAgent
from tests.unit.volume.helpers import Packer, check, everything
from tonfs.errors import Damaged, FsError, NotRunning, PeerUnreachable, TimedOut
from tonfs.front import Fetcher
from tonfs.front.fetcher import BLOCK
from tonfs.ids import Inode
from tonfs.volume import ROOT, Volume

SIZE = 5 * BLOCK + 1234
DATA = bytes(range(251)) * (SIZE // 251 + 1)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path)
    yield volume
    check(volume)
    volume.close()


@pytest.fixture
def agent(volume: Volume) -> FakeAgent:
    """One large file `big` and three small ones, packed and evicted."""
    packer = Packer()
    for name, data in ((b"big", DATA[:SIZE]), (b"s0", b"0" * 500), (b"s1", b"1" * 500), (b"s2", b"2" * 500)):
        volume.write(volume.create(ROOT, name, 0o644, 0, 0).inode, 0, data)
    packer.pack_all(volume)
    volume.evict(everything(volume))
    return FakeAgent(volume.directory, packer.packs)


def inode(volume: Volume, name: bytes) -> Inode:
    return volume.lookup(ROOT, name).inode


@asynccontextmanager
async def fetching(volume: Volume, agent: FakeAgent, deadline: float = 10.0) -> AsyncIterator[Fetcher]:
    async with trio.open_nursery() as nursery:
        fetcher = Fetcher(volume, agent, deadline=deadline)
        await nursery.start(fetcher.run)
        yield fetcher
        nursery.cancel_scope.cancel()


async def read(volume: Volume, fetcher: Fetcher, number: Inode, offset: int, length: int) -> bytes:
    while (result := volume.read(number, offset, length)).missing:
        await fetcher(result.missing)
    return result.data


async def test_missing_ranges_become_local_once(volume: Volume, agent: FakeAgent) -> None:
    async with fetching(volume, agent) as fetcher:
        big = inode(volume, b"big")
        assert await read(volume, fetcher, big, 10, 100) == DATA[10:110]
        asked = len(agent.asked)
        assert asked == 1
        assert await read(volume, fetcher, big, 0, BLOCK) == DATA[:BLOCK]
        assert len(agent.asked) == asked
        assert await read(volume, fetcher, big, 0, SIZE + 1) == DATA[:SIZE]
        assert fetcher.fetched == SIZE


async def test_readers_of_the_same_block_fetch_it_once(volume: Volume, agent: FakeAgent) -> None:
    agent.delay = 0.01
    async with fetching(volume, agent) as fetcher:
        big = inode(volume, b"big")
        async with trio.open_nursery() as nursery:
            for start in range(0, 1000, 100):
                nursery.start_soon(read, volume, fetcher, big, start, 100)
        assert agent.asked == [(0, BLOCK)]


async def test_a_write_during_the_fetch_wins(volume: Volume, agent: FakeAgent) -> None:
    agent.delay = 0.01
    async with fetching(volume, agent) as fetcher:
        big = inode(volume, b"big")

        async def write() -> None:
            volume.write(big, 50, b"NEW")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, volume, fetcher, big, 0, 100)
            nursery.start_soon(write)
        assert await read(volume, fetcher, big, 0, 100) == DATA[:50] + b"NEW" + DATA[53:100]


async def test_reading_in_order_makes_the_agent_fetch_ahead(volume: Volume, agent: FakeAgent) -> None:
    async with fetching(volume, agent) as fetcher:
        big = inode(volume, b"big")
        for offset in range(0, SIZE, BLOCK):
            await read(volume, fetcher, big, offset, BLOCK)
            await trio.testing.wait_all_tasks_blocked()
        ahead = [(offset, length) for offset, length in agent.asked if offset % BLOCK or length > BLOCK]
        assert any(length > BLOCK or offset + length > SIZE for offset, length in ahead)
        assert all(offset + length <= SIZE + 1500 for offset, length in agent.asked), "never beyond the pack"


async def test_random_reads_do_not(volume: Volume, agent: FakeAgent) -> None:
    async with fetching(volume, agent) as fetcher:
        big = inode(volume, b"big")
        await read(volume, fetcher, big, 4 * BLOCK, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert agent.asked == [(4 * BLOCK, BLOCK)]


@pytest.mark.parametrize("deadline", [5.0, 30.0])
async def test_no_read_waits_beyond_the_deadline(
    volume: Volume, agent: FakeAgent, deadline: float, autojump_clock: MockClock
) -> None:
    agent.delay = 10_000
    async with fetching(volume, agent, deadline) as fetcher:
        begun = trio.current_time()
        with pytest.raises(TimedOut):
            await read(volume, fetcher, inode(volume, b"big"), 0, 10)
        assert trio.current_time() - begun == pytest.approx(deadline)
        agent.delay = 0
        assert await read(volume, fetcher, inode(volume, b"big"), 0, 10) == DATA[:10]


async def test_an_agent_that_starts_again_is_waited_for(
    volume: Volume, agent: FakeAgent, autojump_clock: MockClock
) -> None:
    agent.errors = [NotRunning("not yet"), NotRunning("not yet"), PeerUnreachable("nobody answers yet")]
    async with fetching(volume, agent, 60.0) as fetcher:
        assert await read(volume, fetcher, inode(volume, b"s1"), 0, 10) == b"1" * 10


async def test_an_agent_that_stays_away_is_not_waited_for_long(
    volume: Volume, agent: FakeAgent, autojump_clock: MockClock
) -> None:
    agent.errors = [NotRunning("no agent")] * 1000
    async with fetching(volume, agent, 600.0) as fetcher:
        begun = trio.current_time()
        with pytest.raises(NotRunning):
            await read(volume, fetcher, inode(volume, b"s1"), 0, 10)
        assert trio.current_time() - begun < 20


async def test_errors_that_time_does_not_heal_come_at_once(volume: Volume, agent: FakeAgent) -> None:
    agent.errors = [Damaged("The pieces are wrong.")]
    async with fetching(volume, agent) as fetcher:
        with pytest.raises(Damaged):
            await read(volume, fetcher, inode(volume, b"s1"), 0, 10)
        assert await read(volume, fetcher, inode(volume, b"s1"), 0, 10) == b"1" * 10


async def test_offline_fails_at_once(volume: Volume, agent: FakeAgent) -> None:
    fetcher = Fetcher(volume, None, deadline=60)
    with pytest.raises(NotRunning, match="offline"):
        await read(volume, fetcher, inode(volume, b"big"), 0, 10)


async def test_a_short_pack_file_is_an_error(volume: Volume, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lie(params: object) -> dict[str, object]:
        return {}

    monkeypatch.setattr(agent, "fetch", lie)
    async with fetching(volume, agent) as fetcher:
        with pytest.raises(Damaged):
            await read(volume, fetcher, inode(volume, b"big"), 0, 10)


async def test_a_file_that_vanishes_ends_the_fetch(volume: Volume, agent: FakeAgent) -> None:
    async with fetching(volume, agent) as fetcher:
        number = inode(volume, b"s0")
        missing = volume.read(number, 0, 10).missing
        volume.unlink(ROOT, b"s0")
        with pytest.raises(FsError) as caught:
            await fetcher(missing)
        assert caught.value.errno == errno.ENOENT


async def test_a_pack_that_is_shorter_than_the_agent_says_is_an_error_and_no_zeros(
    volume: Volume, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fetching(volume, agent) as fetcher:
        big = inode(volume, b"big")
        ask = agent.call

        async def cut(method: str, params: dict[str, Any] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
            reply = await ask(method, params, timeout=timeout)
            os.truncate(fetcher._pack_path(volume.remote_ranges(big, 0, 1)[0].bag_id), 100)
            return reply

        monkeypatch.setattr(agent, "call", cut)
        with pytest.raises(Damaged, match="too short"):
            await read(volume, fetcher, big, 0, 1000)
        assert volume.read(big, 0, 1000).missing
