"""Unmodified pytoniq against ledger and lite server over TCP, with its own proof checks on (trust levels 1 and 2)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trio
from pytoniq import LiteBalancer, LiteClient
from pytoniq.contract.wallets.wallet import WalletV4R2
from pytoniq.liteclient.client import LiteServerError, RunGetMethodError
from pytoniq_core import Address as TlbAddress
from pytoniq_core import WalletMessage
from pytoniq_core.tlb.block import Block
from pytvm.engine.engine_c import EmulatorEngineC

from tests.fakes.devnet_chain import funded_wallet, internal, new_ledger
from tonfs.clock import SystemClock
from tonfs.devnet.emulator import library_path
from tonfs.devnet.ledger import Ledger
from tonfs.devnet.liteserver import LiteServer
from tonfs.ids import NANO, Address, NanoTon
from tonfs.network.keys import KeyPair

KEY = KeyPair.from_seed(b"\x05" * 32)
BOB = Address("0:" + "b0" * 32)
ABSENT = "0:" + "0b" * 32
TICK = 0.1
"""Shorter than a devnet ever ticks; the clients here do not mind."""


@asynccontextmanager
async def served(ledger: Ledger) -> AsyncIterator[int]:
    """A lite server on loopback with blocks coming; gives the port."""
    server = LiteServer(ledger, KEY)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def blocks() -> None:
        while True:
            await trio.sleep(TICK)
            ledger.tick()
            server.block_made()

    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listener)
        nursery.start_soon(blocks)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def play(ledger: Ledger, level: int, scene: Callable[[LiteClient], Awaitable[None]]) -> None:
    """Run a scene with a connected client, in an asyncio loop of its own thread."""

    def run(port: int) -> None:
        async def main() -> None:
            key = base64.b64encode(KEY.public_key).decode()
            client = LiteClient("127.0.0.1", port, key, timeout=10, trust_level=level)
            await client.connect()
            try:
                await scene(client)
            finally:
                await client.close()

        asyncio.run(main())

    async with served(ledger) as port:
        with trio.fail_after(60):
            await trio.to_thread.run_sync(run, port)


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Client code polls; so do its tests."""
    async with asyncio.timeout(20):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


async def is_active(client: LiteClient, address: str) -> bool:
    return bool((await client.get_account_state(address)).is_active())


async def later_block(client: LiteClient, seqno: int) -> bool:
    return bool(client.last_mc_block.seqno >= seqno)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    chain = new_ledger(tmp_path, SystemClock())  # type: ignore[arg-type]
    for i in range(20):
        chain.faucet(Address("0:" + sha256(b"%d" % i).hexdigest()), NanoTon(NANO))
    yield chain
    chain.close()


@pytest.mark.parametrize("level", [1, 2])
async def test_everything_a_client_can_read(ledger: Ledger, level: int) -> None:
    wallet = funded_wallet(ledger)
    for _ in range(3):
        wallet.send(internal(BOB, NANO, bounce=False), internal(ABSENT, NANO, bounce=True))
    busy = ledger.last
    # Read before blocks are made in another thread.
    balance, started = ledger.account(wallet.address).balance, ledger.now()
    got = ledger.account(BOB).balance
    assert 3 * NANO - 10 <= got <= 3 * NANO  # rent, where a second passed between two transfers
    lts = [info.lt for info in ledger.transactions(wallet.address)]

    async def scene(client: LiteClient) -> None:
        account, shard_account = await client.raw_get_account_state(wallet.address)
        assert account.storage.balance.grams == balance
        assert (await client.get_account_state(BOB)).balance == got
        assert await client.raw_get_account_state(ABSENT) == (None, None)
        assert await client.run_get_method(wallet.address, "seqno", []) == [3]
        with pytest.raises(RunGetMethodError) as caught:
            await client.run_get_method(ABSENT, "seqno", [])
        assert caught.value.exit_code == -256
        history = await client.get_transactions(
            wallet.address, 20, shard_account.last_trans_lt, shard_account.last_trans_hash
        )
        assert [t.lt for t in history] == lts
        found, header = await client.lookup_block(-1, -(1 << 63), busy.seqno)
        assert found.root_hash == busy.master.root_hash
        assert header.info.gen_utime == busy.gen_utime
        shard, _ = await client.lookup_block(0, -(1 << 63), lt=history[0].lt)
        assert shard.root_hash == busy.shard.root_hash
        await client.lookup_block(0, -(1 << 63), utime=busy.gen_utime)
        with pytest.raises(LiteServerError):
            await client.lookup_block(-1, -(1 << 63), 10**6)
        assert isinstance(await client.raw_get_block(shard), Block)
        assert isinstance(await client.raw_get_block(found), Block)
        await client.raw_get_block_header(found)
        assert len(await client.raw_get_block_transactions(shard)) == busy.transactions
        assert len(await client.raw_get_block_transactions(shard, count=2)) == busy.transactions
        assert len(await client.raw_get_block_transactions_ext(shard, count=2)) == busy.transactions
        one = await client.get_one_transaction(wallet.address, history[0].lt, shard)
        assert one.lt == history[0].lt
        assert await client.get_one_transaction(wallet.address, 12345, shard) is None
        await client.get_all_shards_info()
        await client.raw_get_all_shards_info(found)
        assert (await client.raw_get_shard_info(found)).seq_no == busy.seqno
        config = await client.get_config_all()
        assert sorted(config) == [0, 8, 12, 18, 20, 21, 24, 25]
        await client.get_config_params([18, 21])
        assert await client.get_libraries([bytes(32)]) == {"00" * 32: None}
        assert (await client.get_time())["now"] >= started
        await client.get_version()
        await client.get_masterchain_info_ext()
        before = client.last_mc_block.seqno
        await until(lambda: later_block(client, before + 2))

    await play(ledger, level, scene)


@pytest.mark.parametrize("level", [1, 2])
async def test_a_get_method_recomputed_by_the_client_agrees(
    ledger: Ledger, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The stock binding looks its library up with pkg_resources, which newer setuptools no longer have.
    monkeypatch.setattr(EmulatorEngineC, "default", classmethod(lambda cls: cls(str(library_path()))))
    wallet = funded_wallet(ledger)
    wallet.send(internal(BOB, NANO, bounce=False))

    async def scene(client: LiteClient) -> None:
        assert await client.run_get_method_local(wallet.address, "seqno", []) == [1]

    await play(ledger, level, scene)


async def test_a_stock_wallet_deploys_itself_and_pays(ledger: Ledger) -> None:
    token = trio.lowlevel.current_trio_token()

    async def scene(client: LiteClient) -> None:
        words, wallet = await WalletV4R2.create(client, wc=0)
        address = Address(wallet.address.to_str(is_user_friendly=False))
        await asyncio.to_thread(trio.from_thread.run_sync, ledger.faucet, address, NanoTon(10 * NANO), trio_token=token)

        async def balance(of: str) -> int:
            amount: int = (await client.get_account_state(of)).balance
            return amount

        await until(lambda: balance(address))
        await wallet.send_init_external()
        await until(lambda: is_active(client, address))
        again = await WalletV4R2.from_mnemonic(client, words)
        assert again.address == wallet.address
        message = WalletMessage(3, wallet.create_internal_msg(dest=TlbAddress(BOB), value=NANO, bounce=False))
        await again.raw_transfer([message])
        await until(lambda: balance(BOB))
        assert await balance(BOB) == NANO
        with pytest.raises(LiteServerError) as caught:
            await client.raw_send_message(b"junk")
        assert caught.value.code == -400

    await play(ledger, 1, scene)


async def test_a_balancer_sends_everything_several_times_and_it_counts_once(ledger: Ledger) -> None:
    wallet = funded_wallet(ledger)
    boc = wallet.external([internal(BOB, NANO, bounce=False)])

    def run(port: int) -> None:
        async def main() -> None:
            key = base64.b64encode(KEY.public_key).decode()
            clients = [LiteClient("127.0.0.1", port, key, timeout=10, trust_level=1) for _ in range(2)]
            balancer = LiteBalancer(clients)
            await balancer.start_up()
            try:
                await balancer.raw_send_message(boc)

                async def paid() -> bool:
                    return bool((await balancer.get_account_state(BOB)).balance)

                await until(paid)
            finally:
                await balancer.close_all()

        asyncio.run(main())

    async with served(ledger) as port:
        with trio.fail_after(60):
            await trio.to_thread.run_sync(run, port)
    assert ledger.account(BOB).balance == NANO
