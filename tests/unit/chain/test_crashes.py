"""The treasurer is killed between every pair of its steps: nothing is paid twice and nothing is forgotten.

A step is every call to the chain (before it happens, and after it happened but before its answer was seen) and every
transaction of the journal (before its COMMIT, and right after). Killed means: no handler runs, the connection is gone,
the chain goes on. What follows is a new process on the same database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from tests.fakes.ledger_chain import LedgerChain, ledger_chain
from tonfs.chain.intents import IntentResult, IntentState, Treasurer
from tonfs.chain.journal import Journal
from tonfs.chain.messages import Message, comment
from tonfs.chain.wallet import Wallet
from tonfs.clock import ManualClock
from tonfs.ids import NANO, Address, NanoTon

WALLET = Wallet.from_seed(b"w" * 32, "v4r2")
BOB = Address("0:" + "b0" * 32)


class Killed(BaseException):
    """Not an Exception, so that nothing handles it; not Cancelled, so that nothing cleans up."""


class Fuse:
    """Burns one step at a time and kills at the chosen one (None: never)."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        # Once dead, whatever else still runs in this process (cancellation of other tasks) does nothing any more.
        if self.at is not None and self.steps > self.at:
            raise Killed


class FusedChain:
    """A chain whose calls burn the fuse before and after."""

    def __init__(self, chain: LedgerChain, fuse: Fuse) -> None:
        self._chain = chain
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._chain, name)

        async def call(*args: Any) -> Any:
            self._fuse.step()
            result = await method(*args)
            self._fuse.step()
            return result

        return call


@contextmanager
def fused_journal(treasurer: Treasurer, fuse: Fuse) -> Iterator[None]:
    """Journal transactions burn the fuse before COMMIT and after it."""
    journal = treasurer._journal
    original = Journal._transaction

    @contextmanager
    def transaction() -> Iterator[sqlite3.Connection]:
        if fuse.at is not None and fuse.steps > fuse.at:
            raise Killed
        with original(journal) as conn:
            yield conn
            fuse.step()
        fuse.step()

    journal._transaction = transaction  # type: ignore[method-assign]
    yield


class Machine:
    """A database file and the processes that come and go on it."""

    def __init__(self, path: Path, chain: LedgerChain) -> None:
        self.path = path
        self.chain = chain

    async def life(self, kill_at: int | None, keys: dict[str, list[Message]]) -> tuple[int, list[IntentResult] | None]:
        """One process: recover, then carry out what is wanted. (steps taken, results or None when killed)."""
        conn = sqlite3.connect(self.path, isolation_level=None)
        fuse = Fuse(kill_at)
        treasurer = Treasurer(FusedChain(self.chain, fuse), WALLET, conn, ManualClock())
        results: list[IntentResult] = []

        async def want(key: str, messages: list[Message]) -> None:
            results.append(await treasurer.execute("send", messages[0].to, messages, key, key=key))

        try:
            with fused_journal(treasurer, fuse):
                await treasurer.recover()
                async with trio.open_nursery() as nursery:
                    for key, messages in keys.items():
                        nursery.start_soon(want, key, messages)
        except BaseExceptionGroup as group:
            if group.split(Killed)[1] is not None:
                raise
            return fuse.steps, None
        except Killed:
            return fuse.steps, None
        finally:
            conn.close()
        return fuse.steps, results

    def states(self) -> list[str]:
        with sqlite3.connect(self.path) as conn:
            rows = conn.execute("SELECT state FROM intent").fetchall()
        conn.close()
        return [row[0] for row in rows]


async def payments(chain: LedgerChain, address: Address) -> list[int]:
    found = await chain.transactions(address, 100)
    return sorted(t.in_message.value for t in found if t.in_message is not None)


def pay(amount: int, text: str = "x") -> Message:
    return Message(BOB, NanoTon(amount), comment(text), bounce=False)


async def scenario(
    path: Path, kills: list[int | None], keys: dict[str, list[Message]], lose: int = 0
) -> tuple[int, list[int], list[str]]:
    """Lives that end at the given steps, then one that is left alone. (steps of the first, payments, states)."""
    path.mkdir()
    async with ledger_chain(path) as chain:
        await chain.give(WALLET.address, 20 * NANO)
        chain.lose = lose
        machine = Machine(path / "agent.db", chain)
        first = 0
        for number, kill in enumerate(kills):
            steps, _ = await machine.life(kill, keys)
            first = steps if number == 0 else first
            await trio.sleep(3)
        _, results = await machine.life(None, keys)
        assert results is not None
        assert all(result.confirmed for result in results), results
        return first, await payments(chain, BOB), machine.states()


async def test_killed_at_every_step_of_one_payment(tmp_path: Path, autojump_clock: MockClock) -> None:
    keys = {"one": [pay(NANO)]}
    total, _, _ = await scenario(tmp_path / "whole", [None], keys)
    assert total > 15
    for step in range(total):
        _, paid, states = await scenario(tmp_path / str(step), [step], keys)
        assert paid == [NANO], f"killed at step {step}"
        assert states == ["confirmed"], f"killed at step {step}"


async def test_killed_at_every_step_while_the_external_is_lost_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    keys = {"one": [pay(NANO)]}
    total, _, _ = await scenario(tmp_path / "whole", [None], keys, lose=40)
    assert total > 100
    for step in range(0, total, 7):
        _, paid, states = await scenario(tmp_path / str(step), [step], keys, lose=40)
        assert paid == [NANO], f"killed at step {step}"
        assert states == ["confirmed"], f"killed at step {step}"


async def test_killed_twice_while_several_payments_share_externals(tmp_path: Path, autojump_clock: MockClock) -> None:
    keys = {str(n): [pay(1000 + n, str(n))] for n in range(6)}
    total, _, _ = await scenario(tmp_path / "whole", [None], keys)
    for step in range(0, total, 5):
        for again in (step % 7, 9 + step % 11):
            _, paid, states = await scenario(tmp_path / f"{step}-{again}", [step, again], keys)
            assert paid == [1000 + n for n in range(6)], f"killed at {step} and {again}"
            assert states == ["confirmed"] * 6, f"killed at {step} and {again}"


async def test_recovery_alone_finishes_what_was_planned(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nobody asks again after the crash: whatever reached the journal is paid once, whatever did not is not paid."""
    keys = {"one": [pay(NANO)]}
    total, _, _ = await scenario(tmp_path / "whole", [None], keys)
    seen = set()
    for step in range(total):
        path = tmp_path / f"alone-{step}"
        path.mkdir()
        async with ledger_chain(path) as chain:
            await chain.give(WALLET.address, 20 * NANO)
            machine = Machine(path / "agent.db", chain)
            await machine.life(step, keys)
            await machine.life(None, {})
            states, paid = machine.states(), await payments(chain, BOB)
            assert (states, paid) in (([], []), ([IntentState.CONFIRMED], [NANO])), f"killed at step {step}"
            seen.add(tuple(paid))
    assert seen == {(), (NANO,)}
