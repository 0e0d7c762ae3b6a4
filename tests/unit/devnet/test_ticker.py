"""When blocks are made."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.fakes.lite import FakeChain
from tonfs.devnet.chain_api import Block
from tonfs.devnet.ticker import Ticker
from tonfs.errors import Damaged


class TickingChain(FakeChain):
    def __init__(self) -> None:
        super().__init__(0)
        self.times: list[float] = []

    def tick(self, now: int | None = None) -> Block:
        self.seqno += 1
        self.times.append(trio.current_time())
        return self.last


async def run_for(seconds: float, ticker: Ticker, *hurries: float) -> None:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            await nursery.start(ticker.run)
            for at in hurries:
                await trio.sleep_until(at)
                ticker.hurry()
            await trio.sleep_forever()


async def test_a_block_comes_every_interval_also_when_nothing_happens(autojump_clock: trio.testing.MockClock) -> None:
    chain = TickingChain()
    await run_for(7.0, Ticker(chain, 2.0))  # type: ignore[arg-type]
    assert chain.times == pytest.approx([2.0, 4.0, 6.0])


async def test_a_message_makes_a_block_sooner_but_never_too_soon(autojump_clock: trio.testing.MockClock) -> None:
    chain = TickingChain()
    await run_for(14.0, Ticker(chain, 5.0), 0.2, 3.0, 3.1, 6.0)  # type: ignore[arg-type]
    assert chain.times == pytest.approx([1.5, 3.0, 4.5, 6.0, 11.0])


async def test_a_short_interval_is_the_smallest_gap_itself(autojump_clock: trio.testing.MockClock) -> None:
    chain = TickingChain()
    await run_for(1.0, Ticker(chain, 0.3), 0.01, 0.4)  # type: ignore[arg-type]
    assert chain.times == pytest.approx([0.3, 0.6, 0.9])


async def test_waiting_for_the_next_block(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[int] = []
    chain = TickingChain()
    ticker = Ticker(chain, 2.0, on_block=lambda block: seen.append(block.seqno))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(ticker.run)
        assert (await ticker.next_block()).seqno == 1
        assert (await ticker.next_block()).seqno == 2
        assert seen == [1, 2]
        nursery.cancel_scope.cancel()


async def test_a_chain_that_lost_coins_stops_the_ticker(autojump_clock: trio.testing.MockClock) -> None:
    class Poor(TickingChain):
        def tick(self, now: int | None = None) -> Block:
            raise Damaged("coins do not add up")

    with pytest.raises(Damaged):
        await Ticker(Poor(), 2.0).run()  # type: ignore[arg-type]
