"""LiteChain and the treasurer against the devnet as real processes: paying, losing the server, kill -9 of it."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest
import trio

from tests.devnet.conftest import Devnet
from tonfs.chain import storage2
from tonfs.chain.api import AccountStatus
from tonfs.chain.intents import Treasurer
from tonfs.chain.journal import new_query_id
from tonfs.chain.ledger import History, contract_account, wallet_account
from tonfs.chain.lite import LiteChain, open_chain
from tonfs.chain.messages import Message
from tonfs.chain.wallet import Wallet
from tonfs.clock import SystemClock
from tonfs.ids import NANO, Address, BagId, NanoTon, ProviderKey

pytestmark = pytest.mark.devnet


class Facts:
    bag_id = BagId(b"\x11" * 32)
    file_size = 8 << 20
    piece_size = 1 << 20
    root_hash = b"\x22" * 32


async def give(devnet: Devnet, chain: LiteChain, address: Address, tons: int) -> None:
    await trio.to_thread.run_sync(devnet.run, "faucet", address, str(tons))
    while (await chain.account(address)).status is AccountStatus.NONE:
        await chain.wait_block()


async def test_a_contract_is_opened_topped_up_and_closed(devnet: Devnet, tmp_path: Path) -> None:
    owner = Wallet.from_seed(os.urandom(32), "v4r2")
    address = storage2.contract_address(Facts(), owner.address)
    conn = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
    async with open_chain(devnet.state / "global.config.json") as chain:
        await give(devnet, chain, owner.address, 10)
        treasurer = Treasurer(chain, owner, conn, SystemClock())
        body = storage2.modify_providers(new_query_id(), {ProviderKey(b"\1" * 32): storage2.Terms(3600, 10**6)})
        init = storage2.state_init(Facts(), owner.address)
        opened = await treasurer.execute("open", address, [Message(address, NanoTon(NANO), body, init)], "open")
        assert opened.check().exit_code == 0
        contract = storage2.read_contract(await chain.account(address))
        assert contract.owner == owner.address
        assert (contract.torrent_hash, contract.merkle_hash) == (Facts.bag_id, Facts.root_hash)
        # The contract's own get methods say the same as its proved data.
        info = await chain.get_method(address, "get_storage_info")
        assert info[:3] == [int.from_bytes(Facts.bag_id, "big"), Facts.file_size, Facts.piece_size]
        assert await chain.get_method(address, "get_available_balance") == [contract.available]
        messages = [
            Message(address, storage2.WITHDRAW_VALUE, storage2.modify_providers(new_query_id(), {})),
            Message(address, storage2.WITHDRAW_VALUE, storage2.withdraw(new_query_id())),
        ]
        closed = (await treasurer.execute("close", address, messages, "close")).check()
        assert closed.returned > NANO
        history = History(chain)
        assert contract_account(address, owner.address, *await history.of(address)).adds_up
        mine = wallet_account(*await history.of(owner.address), {address})
        assert mine.adds_up
        assert mine.returned == closed.returned
    conn.close()


async def test_a_payment_survives_kill_9_of_the_only_lite_server(tmp_path: Path) -> None:
    net = Devnet(tmp_path / "net")
    await trio.to_thread.run_sync(net.up)
    try:
        owner = Wallet.from_seed(os.urandom(32), "v4r2")
        bob = Address("0:" + os.urandom(32).hex())
        conn = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
        async with open_chain(net.state / "global.config.json") as chain:
            await give(net, chain, owner.address, 10)
            treasurer = Treasurer(chain, owner, conn, SystemClock())

            async def pay() -> None:
                message = Message(bob, NanoTon(NANO), bounce=False)
                assert (await treasurer.execute("send", bob, [message], "through a crash")).confirmed

            async with trio.open_nursery() as nursery:
                nursery.start_soon(pay)
                # From the signature on; on a slow machine it may be through before we look again.
                while not conn.execute("SELECT 1 FROM external").fetchone():
                    await trio.sleep(0.005)
                os.kill(int((net.state / "devnet.pid").read_text()), signal.SIGKILL)
                await trio.sleep(0.2)
                await trio.to_thread.run_sync(net.up)
            found = await chain.transactions(bob)
            assert [t.in_message.value for t in found if t.in_message] == [NANO]
        conn.close()
    finally:
        await trio.to_thread.run_sync(net.down)
