"""The agent dies at any of its calls and writes, and is started again: nothing is paid twice, nothing forgotten."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.fakes.agent_world import World, agent_world, noise
from tonfs.agent.placement import State
from tonfs.chain.storage2 import OP_MODIFY_PROVIDERS, OP_WITHDRAW
from tonfs.ids import NANO

pytestmark = [pytest.mark.allow_logs, pytest.mark.timeout(400)]

STRIDE = int(os.environ.get("TONFS_KILL_STRIDE", "5"))
"""Every fifth step is killed at, because each costs a second; 1 looks at all of them."""


def closed(world: World) -> Callable[[], bool]:
    return lambda: world.agent is not None and not world.agent.store.bags("live", "closing")


def hired(world: World, replicas: int) -> Callable[[], bool]:
    return lambda: list(world.front.told.values()) == [replicas]


async def test_killed_anywhere_in_hiring_and_closing_it_pays_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One bag for each step: hired by a process that dies there and a second that goes on, closed likewise."""
    async with agent_world(tmp_path, providers=3, replicas=2, coins=400) as world:
        contracts, step, dying = 0, 0, 2
        while dying:
            dying = 0
            world.front.told.clear()
            world.front.write(1, noise(3000))
            dying += await world.life(step, hired(world, 2))
            async with world.running():
                await world.until(hired(world, 2))
                assert len(world.placements(State.ACTIVE)) == 2
            world.front.delete(1)
            dying += await world.life(step, closed(world))
            async with world.running() as agent:
                await world.until(closed(world))
                assert len(agent.store.receipts()) == contracts + 1
            contracts += 1
            step += STRIDE
        assert step > 60
        paid = Counter(await world.payments())
        assert max(paid.values()) == 1, "no message was sent twice"
        each = Counter((address, op) for address, op, _ in paid)
        lists = {n for (_, op), n in each.items() if op == OP_MODIFY_PROVIDERS}
        assert lists == {2}, "one list when it is hired, an empty one when it is closed"
        assert {n for (_, op), n in each.items() if op == OP_WITHDRAW} == {1}
        ledger = (await _ledger(world))["total"]
        assert ledger["adds_up"]
        assert ledger["received"] == 400 * NANO


async def _ledger(world: World) -> dict[str, dict[str, int]]:
    async with world.running() as agent:
        return await agent.money.ledger()
