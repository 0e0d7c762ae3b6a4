"""An unmodified lite client (pytoniq, proofs checked at trust level 1) against the devnet's lite server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pytoniq import LiteBalancer, LiteClient
from pytoniq.contract.wallets.wallet import WalletV3R2, WalletV4R2
from pytoniq.liteclient.client import LiteServerError
from pytoniq_core import Address
from pytoniq_core.crypto.keys import mnemonic_new

from tests.devnet.conftest import Devnet

pytestmark = pytest.mark.devnet
TON = 10**9


@pytest.fixture(autouse=True)
def quiet_client() -> None:
    logging.getLogger("LiteClient").setLevel(logging.ERROR)


def talk(devnet: Devnet, conversation: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with LiteClient.from_config(devnet.config, trust_level=1) as client:
            await asyncio.wait_for(conversation(client), 60)

    asyncio.run(main())


async def until(client: Any, condition: Callable[[], Awaitable[Any]]) -> Any:
    """Look once per block. pytoniq learns of blocks by itself."""
    for _ in range(100):
        value = await condition()
        if value:
            return value
        await client.wait_masterchain_seqno(client.last_mc_block.seqno + 1, 10_000, "getMasterchainInfo")
    raise AssertionError("nothing happened in a hundred blocks")


def test_it_connects_and_follows_the_blocks(devnet: Devnet) -> None:
    async def conversation(client: Any) -> None:
        info = await client.get_masterchain_info()
        assert info["last"]["workchain"] == -1
        seqno = client.last_mc_block.seqno
        await client.wait_masterchain_seqno(seqno + 2, 10_000, "getMasterchainInfo")
        await until(client, lambda: _later(client, seqno + 2))
        assert (await client.get_time())["now"] >= 1_600_000_000
        assert (await client.get_version())["version"] == 0x101
        shards = await client.get_all_shards_info()
        assert [(b.workchain, b.shard) for b in shards] == [(0, -(1 << 63))]
        config = await client.get_config_all()
        assert {0, 8, 18, 20, 21, 24, 25} <= config.keys()
        assert set(await client.get_config_params([18, 25])) >= {18, 25}

    talk(devnet, conversation)


async def _later(client: Any, seqno: int) -> bool:
    return bool(client.last_mc_block.seqno >= seqno)


def test_an_absent_account_is_absent_and_a_funded_one_is_proved(devnet: Devnet) -> None:
    address = Address((0, bytes(range(32))))

    async def absent(client: Any) -> None:
        assert (await client.get_account_state(address)).balance == 0
        assert await client.raw_get_account_state(address) == (None, None)

    talk(devnet, absent)
    devnet.run("faucet", address.to_str(), "1.5")

    async def present(client: Any) -> None:
        state = await client.get_account_state(address)
        assert (state.balance, state.state.type_) == (1_500_000_000, "uninitialized")
        (transaction,) = await client.get_transactions(address, 16)
        assert transaction.in_msg.info.value_coins == 1_500_000_000

    talk(devnet, present)


def test_wallets_are_deployed_and_pay_each_other(devnet: Devnet) -> None:
    async def conversation(client: Any) -> None:
        words = mnemonic_new()
        rich = await WalletV4R2.from_mnemonic(client, words)
        poor = await WalletV3R2.from_mnemonic(client, mnemonic_new())
        await asyncio.to_thread(devnet.run, "faucet", rich.address.to_str(is_user_friendly=False), "10")
        rich = await WalletV4R2.from_mnemonic(client, words)
        await until(client, lambda: _balance(client, rich.address))
        await rich.deploy_via_external()
        await until(client, lambda: _active(client, rich.address))
        await rich.update()
        assert await client.run_get_method(rich.address, "seqno", []) == [1]
        await rich.transfer(poor.address, 2 * TON, "rent")
        await until(client, lambda: _balance(client, poor.address))
        assert (await client.get_account_state(poor.address)).balance == 2 * TON
        found = await client.get_transactions(rich.address, 16)
        assert [len(t.out_msgs) for t in found] == [1, 0, 0]
        await _blocks(client, poor.address, found[0])

    talk(devnet, conversation)


async def _balance(client: Any, address: Any) -> int:
    return int((await client.get_account_state(address)).balance)


async def _active(client: Any, address: Any) -> bool:
    return bool((await client.get_account_state(address)).state.type_ == "active")


async def _blocks(client: Any, receiver: Any, sent: Any) -> None:
    """The block of a transaction, looked at in every way a client has."""
    _, (block, *_) = await client.raw_get_transactions(receiver, 1)
    whole = await client.raw_get_block(block)
    assert whole.info.seqno == block.seqno
    assert (await client.raw_get_block_header(block)).info.seqno == block.seqno
    found, _ = await client.lookup_block(wc=0, shard=-(1 << 63), seqno=block.seqno)
    assert found == block
    _, by_time = await client.lookup_block(wc=0, shard=-(1 << 63), utime=whole.info.gen_utime)
    assert by_time.info.gen_utime == whole.info.gen_utime
    listed = await client.raw_get_block_transactions(block)
    assert receiver.hash_part in [t["account"].hash_part for t in listed]
    extended = await client.raw_get_block_transactions_ext(block)
    assert [t.cell.hash for t in extended] == [t["hash"] for t in listed]
    got = next(t for t in extended if t.account_addr == receiver.hash_part)
    one = await client.get_one_transaction(receiver, got.lt, block)
    assert one.cell.hash == got.cell.hash
    assert got.in_msg.info.created_lt == sent.out_msgs[0].info.created_lt
    await client.get_shard_block_proof(block)


def test_errors_are_what_clients_understand(devnet: Devnet) -> None:
    async def conversation(client: Any) -> None:
        with pytest.raises(LiteServerError) as missing:
            await client.lookup_block(wc=-1, shard=-(1 << 63), seqno=1_000_000)
        assert missing.value.code == 651
        with pytest.raises(LiteServerError) as refused:
            await client.raw_send_message(b"no message")
        assert refused.value.code == -400
        stranger = await WalletV4R2.from_mnemonic(client, mnemonic_new())
        with pytest.raises(LiteServerError) as unfunded:
            await stranger.deploy_via_external()
        assert unfunded.value.code == 0
        assert unfunded.value.message.startswith("cannot apply external message to current state")

    talk(devnet, conversation)


def test_the_balancer_works(devnet: Devnet) -> None:
    async def main() -> None:
        balancer = LiteBalancer.from_config(devnet.config, trust_level=1)
        await balancer.start_up()
        try:
            assert balancer.alive_peers_num == 1
            words = mnemonic_new()
            wallet = await WalletV4R2.from_mnemonic(balancer, words)
            await asyncio.to_thread(devnet.run, "faucet", wallet.address.to_str(), "3")
            peer = balancer._peers[0]
            await until(peer, lambda: _balance(balancer, wallet.address))
            wallet = await WalletV4R2.from_mnemonic(balancer, words)
            await wallet.deploy_via_external()  # sent four times in parallel
            await until(peer, lambda: _active(balancer, wallet.address))
            assert await balancer.run_get_method(wallet.address, "seqno", []) == [1]
        finally:
            await balancer.close_all()

    asyncio.run(main())
