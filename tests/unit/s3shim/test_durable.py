from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from tonfs.errors import NoSpace
from tonfs.s3shim.durable import GroupCommit

T = TypeVar("T")


async def in_thread(function: Callable[[], T]) -> T:
    return await asyncio.to_thread(function)


def test_who_comes_during_a_commit_shares_the_next_one() -> None:
    release, begun = threading.Event(), threading.Event()
    commits: list[int] = []

    def commit() -> None:
        commits.append(len(commits))
        begun.set()
        release.wait(10)

    async def run() -> None:
        group = GroupCommit(commit, in_thread)
        first = asyncio.create_task(group())
        await asyncio.to_thread(begun.wait, 10)
        others = [asyncio.create_task(group()) for _ in range(9)]
        await asyncio.sleep(0)
        assert not first.done(), "nobody is told before the disk has it"
        release.set()
        await asyncio.gather(first, *others)
        await group()

    asyncio.run(run())
    assert commits == [0, 1, 2]


def test_a_commit_that_fails_is_told_to_all_and_the_next_one_is_tried() -> None:
    results: list[Exception | None] = [NoSpace("full"), None]

    def commit() -> None:
        if (error := results.pop(0)) is not None:
            raise error

    async def run() -> None:
        group = GroupCommit(commit, in_thread)
        told = await asyncio.gather(group(), group(), return_exceptions=True)
        assert [type(one) for one in told] == [NoSpace, NoSpace]
        await group()

    asyncio.run(run())
    assert not results


def test_a_client_that_goes_away_takes_nobody_with_it() -> None:
    async def run() -> None:
        group = GroupCommit(lambda: None, in_thread)
        gone, stays = asyncio.create_task(group()), asyncio.create_task(group())
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(run())
