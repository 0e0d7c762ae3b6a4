"""The agent dies at any of its calls to chain, network or front, and is started again: nothing is paid twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.agent_world import World, agent_world, noise
from tonfs.agent.placement import State
from tonfs.chain.storage2 import OP_MODIFY_PROVIDERS

pytestmark = pytest.mark.allow_logs


async def run_until_call(world: World, number: int, done: object) -> bool:
    """Run the agent and kill it at its `number`-th call. Returns whether it got that far before `done()`."""
    calls = 0
    killed = trio.Event()

    def count(_name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            killed.set()

    world.front.on_call = world.net.on_call = count
    with trio.move_on_after(900):
        async with world.running(), trio.open_nursery() as nursery:

            async def finish() -> None:
                while not done():  # type: ignore[operator]
                    await trio.sleep(0.5)
                nursery.cancel_scope.cancel()

            async def die() -> None:
                await killed.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(finish)
            nursery.start_soon(die)
    world.front.on_call = world.net.on_call = lambda _name: None
    return killed.is_set()


@pytest.mark.parametrize("step", [3, 4, 5, 7, 9, 11, 13, 16, 19, 23, 28, 34, 41])
async def test_an_agent_killed_while_it_hires_pays_once_and_finishes(
    step: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path, providers=4, replicas=3) as world:
        world.front.write(1, noise(5000))

        def proven() -> bool:
            return list(world.front.told.values()) == [3]

        await run_until_call(world, step, proven)
        await run_until_call(world, step + 2, proven)
        async with world.running():
            await world.proven()
            assert len(world.placements(State.ACTIVE)) == 3
        paid = Counter(await world.payments())
        assert max(paid.values()) == 1
        lists = [p for p in paid if p[1] == OP_MODIFY_PROVIDERS]
        assert len(lists) == 1, "one bag, three providers, nobody failed: one list is enough"


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6])
async def test_an_agent_killed_while_it_closes_gets_the_money_back_once(
    step: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path, providers=4, replicas=3) as world:
        world.front.write(1, noise(5000))
        async with world.running():
            await world.proven()
        world.front.delete(1)

        def closed() -> bool:
            return world.agent is not None and not world.agent.store.bags("live", "closing")

        await run_until_call(world, step, closed)
        async with world.running() as agent:
            await world.until(closed)
            (receipt,) = agent.store.receipts()
            assert receipt.returned > 0
            assert (await agent.money.ledger())["total"]["adds_up"]
        assert max(Counter(await world.payments()).values()) == 1
