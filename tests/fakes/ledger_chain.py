"""A `Chain` straight on the devnet's ledger: real contract code in the real TVM, in this process, in trio's time.

    async with ledger_chain(tmp_path) as chain:
        await chain.give(wallet.address, 100 * NANO)
        ...

Under the autojump clock a month passes in milliseconds: blocks come every `interval` seconds of trio's time. Account
states and transactions pass through the very proof checks of the lite client. Faults: `offline`, `refuse`, `lose`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tonfs.chain import lite_tl, proofs, vmstack
from tonfs.chain.address import split
from tonfs.chain.api import AccountState, StackItem, Transaction
from tonfs.chain.cells import one_cell, to_boc
from tonfs.clock import ManualClock
from tonfs.devnet.chain_api import AccountId, BlockId
from tonfs.devnet.ledger import Ledger
from tonfs.errors import ChainUnavailable, ExternalRefused, GetMethodFailed
from tonfs.ids import Address, NanoTon


def block_ref(block: BlockId) -> lite_tl.BlockRef:
    return lite_tl.BlockRef(block.workchain, block.shard, block.seqno, block.root_hash, block.file_hash)


def account_id(address: Address) -> AccountId:
    workchain, account = split(address)
    return AccountId(workchain, account)


class LedgerChain:
    """Satisfies `tonfs.chain.api.Chain`. Start `run` in a nursery (or use `ledger_chain`)."""

    def __init__(self, ledger: Ledger, *, interval: float = 2.0) -> None:
        self.ledger = ledger
        self.interval = interval
        self.offline = False
        """Every call raises ChainUnavailable."""
        self.refuse = False
        """send_boc refuses everything."""
        self.lose = 0
        """The next so many externals are taken and never reach a block."""
        self.sent: list[bytes] = []
        self._block = trio.Event()

    async def run(self) -> None:
        while True:
            await trio.sleep(self.interval)
            self.tick()

    def tick(self) -> None:
        self.ledger.tick()
        self._block.set()
        self._block = trio.Event()

    def advance(self, seconds: int) -> None:
        self.ledger.advance(seconds)
        self.tick()

    async def give(self, address: Address, amount: int) -> None:
        self.ledger.faucet(address, NanoTon(amount))
        self.tick()
        await trio.lowlevel.checkpoint()

    async def _online(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.offline:
            raise ChainUnavailable("The chain is switched off in this test.")

    async def now(self) -> int:
        await self._online()
        return self.ledger.last.gen_utime

    async def account(self, address: Address) -> AccountState:
        await self._online()
        answer = self.ledger.account_answer(self.ledger.last.master, account_id(address))
        mine = lite_tl.AccountAnswer(
            block_ref(answer.id), block_ref(answer.shardblk), answer.shard_proof, answer.proof, answer.state
        )
        return proofs.account(mine, mine.id, address)[0]

    async def transactions(
        self, address: Address, limit: int = 16, before: tuple[int, bytes] | None = None
    ) -> list[Transaction]:
        if before is None:
            state = await self.account(address)
            before = (state.last_lt, state.last_hash)
        await self._online()
        out: list[Transaction] = []
        lt, hash_ = before
        while lt and len(out) < limit:
            count = min(16, limit - len(out))
            answer = self.ledger.transactions_answer(account_id(address), lt, hash_, count)
            out += proofs.transactions(answer.transactions, address, lt, hash_, count)
            lt, hash_ = out[-1].prev_lt, out[-1].prev_hash
        return out

    async def get_method(self, address: Address, method: str, stack: Sequence[StackItem] = ()) -> list[StackItem]:
        await self._online()
        code, result = self.ledger.run_get_method(address, method, to_boc(vmstack.serialize(stack)))
        if code not in (0, 1):
            raise GetMethodFailed(f"{method} ended with {code}", code)
        return vmstack.parse(one_cell(result))

    async def send_boc(self, boc: bytes) -> None:
        await self._online()
        self.sent.append(boc)
        if self.refuse:
            raise ExternalRefused("cannot apply external message to current state (switched on in this test)")
        if self.lose:
            self.lose -= 1
            return
        self.ledger.inject_external(boc)

    async def wait_block(self) -> int:
        await self._online()
        await self._block.wait()
        await self._online()
        return self.ledger.last.seqno


@asynccontextmanager
async def ledger_chain(
    directory: Path, *, interval: float = 2.0, kind: type[LedgerChain] = LedgerChain
) -> AsyncIterator[LedgerChain]:
    """A fresh chain that makes blocks by itself; at the end its coins must add up."""
    ledger = Ledger.open(directory / "chain.db", ManualClock(base=trio.current_time), b"test")
    try:
        chain = kind(ledger, interval=interval)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chain.run)
            yield chain
            nursery.cancel_scope.cancel()
        assert ledger.coins().ok
    finally:
        ledger.close()
