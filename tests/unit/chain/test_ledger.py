"""The ledger against a whole contract's life on the real code: every sum exact to the nanoTON."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from tests.fakes.ledger_chain import LedgerChain, ledger_chain
from tonfs.bag.tree import PieceTree
from tonfs.chain import storage2
from tonfs.chain.api import Transaction
from tonfs.chain.intents import Treasurer
from tonfs.chain.journal import new_query_id
from tonfs.chain.ledger import History, contract_account, wallet_account
from tonfs.chain.messages import Message
from tonfs.chain.wallet import Wallet
from tonfs.clock import ManualClock
from tonfs.ids import NANO, Address, BagId, NanoTon, ProviderKey

OWNER = Wallet.from_seed(b"o" * 32, "v4r2")
PROVIDER = Wallet.from_seed(b"p" * 32, "v3r2")
STRANGER = Wallet.from_seed(b"x" * 32, "v3r2")
KEY = ProviderKey(PROVIDER.public_key)
TREE = PieceTree([bytes([n]) * 32 for n in range(8)])


class Facts:
    bag_id = BagId(b"\x11" * 32)
    file_size = 8 << 20
    piece_size = 1 << 20
    root_hash = TREE.root_hash


CONTRACT = storage2.contract_address(Facts(), OWNER.address)
TERMS = storage2.Terms(86400, 10_000_000)


class World:
    def __init__(self, chain: LedgerChain, path: Path) -> None:
        self.chain = chain
        self.conn = sqlite3.connect(path / "agent.db", isolation_level=None)
        self.history = History(chain)
        self.owner = Treasurer(chain, OWNER, self.conn, ManualClock())
        self.provider = Treasurer(chain, PROVIDER, self.conn, ManualClock())
        self.stranger = Treasurer(chain, STRANGER, self.conn, ManualClock())

    async def contract(self) -> storage2.StorageContract:
        return storage2.read_contract(await self.chain.account(CONTRACT))

    async def open(self, value: int = 2 * NANO) -> None:
        body = storage2.modify_providers(new_query_id(), {KEY: TERMS})
        init = storage2.state_init(Facts(), OWNER.address)
        await self.owner.execute("open", CONTRACT, [Message(CONTRACT, NanoTon(value), body, init)], "open")

    async def prove(self) -> int:
        """One proof by the provider; by how much it lowered the contract's balance."""
        before = (await self.contract()).available
        entry = (await self.contract()).providers[KEY]
        proof = TREE.proof(entry.next_proof_byte // Facts.piece_size)
        signature = PROVIDER.sign_bytes(storage2.proof_payload(entry.nonce, proof).hash)
        body = storage2.proof_body(new_query_id(), KEY, signature, entry.nonce, proof)
        result = await self.provider.execute(
            "proof", CONTRACT, [Message(CONTRACT, storage2.PROOF_VALUE, body)], "proof"
        )
        assert result.confirmed, result.detail
        return before - (await self.contract()).available


async def test_a_whole_contracts_life_adds_up_to_the_nanoton(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ledger_chain(tmp_path) as chain:
        world = World(chain, tmp_path)
        for wallet in (OWNER, PROVIDER, STRANGER):
            await chain.give(wallet.address, 10 * NANO)
        await world.open()
        full = storage2.bounty(Facts.file_size, TERMS.rate, TERMS.max_span)
        assert full <= await world.prove() < full + 100  # a few seconds of rent besides
        chain.advance(86400 // 2)
        await world.prove()
        chain.advance(30 * 86400)
        await world.prove()
        # A stranger's attempt to change the list bounces; its top-up stays.
        alien = Message(CONTRACT, NanoTon(NANO // 10), storage2.modify_providers(1, {}))
        assert not (await world.stranger.execute("x", CONTRACT, [alien], "hostile")).confirmed
        gift = Message(CONTRACT, NanoTon(NANO // 4))
        assert (await world.stranger.execute("x", CONTRACT, [gift], "kind")).confirmed
        messages = [
            Message(CONTRACT, storage2.WITHDRAW_VALUE, storage2.modify_providers(new_query_id(), {})),
            Message(CONTRACT, storage2.WITHDRAW_VALUE, storage2.withdraw(new_query_id())),
        ]
        closed = await world.owner.execute("close", CONTRACT, messages, "close")
        assert closed.confirmed

        account = contract_account(CONTRACT, OWNER.address, *await world.history.of(CONTRACT))
        assert account.funded == 2 * NANO + 2 * storage2.WITHDRAW_VALUE
        assert account.returned == closed.returned
        assert account.left == (await chain.account(CONTRACT)).balance
        assert account.adds_up
        earned = 2 * full + full // 2
        # Less the gas of three proofs, which its attached coins paid, and the stranger's gift.
        assert earned - NANO // 20 < account.rewards + NANO // 4 < earned + full // 100
        assert 0 < account.fees < NANO // 20

        history, balance = await world.history.of(OWNER.address)
        mine = wallet_account(history, balance, {CONTRACT})
        assert mine.adds_up
        assert (mine.received, mine.funded, mine.returned) == (10 * NANO, account.funded, account.returned)
        history, balance = await world.history.of(PROVIDER.address)
        assert wallet_account(history, balance, {CONTRACT}).adds_up
        world.conn.close()


async def test_only_what_is_new_is_fetched_and_nothing_is_counted_twice(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ledger_chain(tmp_path) as chain:
        history = History(chain)
        for n in range(40):
            chain.ledger.faucet(OWNER.address, NanoTon(n + 1))
        chain.tick()
        found, balance = await history.of(OWNER.address)
        assert (len(found), balance) == (40, 40 * 41 // 2)
        assert wallet_account(found, balance, ()).adds_up
        pages: list[int] = []
        original = chain.transactions

        async def counted(*args: Any) -> list[Transaction]:
            pages.append(1)
            return await original(*args)

        monkeypatch.setattr(chain, "transactions", counted)
        await history.of(OWNER.address)
        assert pages == []
        chain.ledger.faucet(OWNER.address, NanoTon(1))
        chain.tick()
        found, balance = await history.of(OWNER.address)
        assert (len(found), len(pages)) == (41, 1)
        assert wallet_account(found, balance, ()).adds_up
        history.forget(OWNER.address)
        assert len((await history.of(OWNER.address))[0]) == 41


async def test_an_unknown_account_has_an_empty_history(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ledger_chain(tmp_path) as chain:
        nobody = Address("0:" + "0" * 64)
        assert await History(chain).of(nobody) == ([], 0)
        assert wallet_account([], 0, ()).adds_up
        assert not wallet_account([], 1, ()).adds_up


async def test_a_year_of_rent_is_among_the_fees(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with ledger_chain(tmp_path) as chain:
        world = World(chain, tmp_path)
        await chain.give(OWNER.address, 5 * NANO)
        await world.open(NANO)
        before = contract_account(CONTRACT, OWNER.address, *await world.history.of(CONTRACT))
        chain.advance(400 * 86400)
        await world.owner.execute("topup", CONTRACT, [Message(CONTRACT, NanoTon(NANO // 100))], "after a year of rent")
        after = contract_account(CONTRACT, OWNER.address, *await world.history.of(CONTRACT))
        rent = sum(t.storage_fees for t in await chain.transactions(CONTRACT, 100))
        assert rent > 0
        assert after.fees - before.fees >= rent
        assert after.adds_up
        for address in (OWNER.address, CONTRACT):
            history = await chain.transactions(address, 100)
            assert sum(t.delta for t in history) == (await chain.account(address)).balance
        world.conn.close()
