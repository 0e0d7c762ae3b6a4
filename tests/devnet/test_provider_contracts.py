"""A contract's life with real provider processes: hired, proved, broken in every way, found out, mended, let go."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.devnet.conftest import Devnet
from tonfs.bagfiles import StoredBag, create_bag
from tonfs.bridge import AsyncioThread
from tonfs.chain import Message, Wallet, storage2
from tonfs.chain.lite import LiteChain
from tonfs.chain.storage2 import StorageContract, Terms
from tonfs.clock import SystemClock
from tonfs.control import call_sync
from tonfs.errors import TonfsError
from tonfs.ids import NANO, Address, NanoTon, ProviderKey, provider_key
from tonfs.network.api import PieceOutcome, StorageStatus
from tonfs.network.dht_client import DhtClient
from tonfs.network.global_config import load_global_config
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode
from tonfs.network.provider_link import ProviderLink
from tonfs.network.storage_node import StorageNode

pytestmark = [pytest.mark.devnet, pytest.mark.allow_logs]
SPAN = 60


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    net = Devnet(tmp_path_factory.mktemp("contracts"))
    net.run("up", "--providers", "2", "--block-interval", "1s", "--detach", timeout=150)
    yield net
    net.down()


@dataclass
class Client:
    """An owner with a bag, a storage node that seeds it, and a wallet."""

    devnet: Devnet
    directory: Path
    bag: StoredBag
    wallet: Wallet
    chain: LiteChain
    net: StorageNode
    link: ProviderLink

    @property
    def address(self) -> Address:
        assert self.bag.info is not None
        return storage2.contract_address(self.bag.info, self.wallet.address)

    async def contract(self) -> StorageContract:
        return storage2.read_contract(await self.chain.account(self.address))

    async def hire(self, keys: list[ProviderKey], value: int) -> None:
        assert self.bag.info is not None
        terms = Terms(SPAN, storage2.rate_for_bounty(self.bag.info.file_size, SPAN, 60_000_000))
        body = storage2.modify_providers(1, dict.fromkeys(keys, terms))
        init = storage2.state_init(self.bag.info, self.wallet.address)
        seqno = self.wallet.seqno(await self.chain.account(self.wallet.address))
        message = Message(self.address, NanoTon(value), body, init)
        external = self.wallet.sign(seqno, await self.chain.now() + 60, [message])
        await self.chain.send_boc(external.boc)
        while self.wallet.seqno(await self.chain.account(self.wallet.address)) == seqno:
            await self.chain.wait_block()
        await self.chain.wait_block()

    async def ask(self, key: ProviderKey, byte: int = 0) -> StorageStatus:
        return await self.link.provider_storage(key, self.address, byte, timeout=5.0)

    async def audit(self, key: ProviderKey, timeout: float = 3.0) -> PieceOutcome:
        assert self.bag.info is not None
        peer = await self.link.provider_adnl(key, self.address, timeout=5.0)
        piece = random.randrange(self.bag.info.pieces)
        found = await self.net.audit_piece(self.bag.bag_id, self.directory, piece, peer, timeout=timeout)
        return found.outcome

    def fault(self, key: ProviderKey, kind: str) -> None:
        params = {"provider": key.hex(), "kind": kind}
        call_sync(self.devnet.state / "control.sock", "fault", params, who="devnet")

    def advance(self, seconds: int) -> None:
        call_sync(self.devnet.state / "control.sock", "advance", {"seconds": seconds}, who="devnet")

    async def proved(self, key: ProviderKey, after: int) -> int:
        while (last := (await self.contract()).providers[key].last_proof_time) <= after:
            await self.chain.wait_block()
        return last


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while True:
        try:
            if await condition():
                return
        except TonfsError:
            pass
        await trio.sleep(0.3)


@asynccontextmanager
async def client(market: Devnet, tmp_path: Path) -> AsyncIterator[Client]:
    (tmp_path / "data.bin").write_bytes(os.urandom(3 << 20))
    bag = StoredBag.create(tmp_path / "bag", create_bag(tmp_path / "data.bin"))
    wallet = Wallet.from_seed(os.urandom(32), "v4r2")
    market.run("faucet", wallet.address, "50")
    config = market.state / "global.config.json"
    network = load_global_config(config)
    with trio.fail_after(110):
        async with AsyncioThread() as bridge, LiteChain(config, bridge) as chain, trio.open_nursery() as nursery:
            node = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), announce_ip="127.0.0.1")
            await nursery.start(node.run)
            endpoint = node.add_identity(KeyPair.generate())
            dht = DhtClient(endpoint, network.dht_nodes, SystemClock(), k=network.k, a=network.a)
            dht.announce_address()
            await nursery.start(dht.run)
            link = ProviderLink(endpoint, dht)
            net = StorageNode(endpoint, dht, link, SystemClock())
            await nursery.start(net.run)
            await net.seed(bag.bag_id, tmp_path / "bag")
            while (await chain.account(wallet.address)).balance == 0:
                await chain.wait_block()
            yield Client(market, tmp_path / "bag", bag, wallet, chain, net, link)
            nursery.cancel_scope.cancel()
    bag.close()


async def test_a_contract_from_hiring_to_firing(market: Devnet, tmp_path: Path) -> None:
    rows = market.json("status")["providers"]
    broken, honest = (provider_key(row["key"]) for row in rows)
    async with client(market, tmp_path) as c:
        await c.hire([broken, honest], 40 * NANO)
        for key in (broken, honest):
            assert (await c.ask(key)).status in ("resolving", "downloading", "active")
        last = max([await c.proved(key, 0) for key in (broken, honest)])
        for key in (broken, honest):
            assert (await c.ask(key, 2 << 20)).status == "active"
            assert await c.audit(key) is PieceOutcome.OK

        c.fault(broken, "wrong-bytes")
        assert await c.audit(broken) is PieceOutcome.WRONG
        c.fault(broken, "slow")
        assert await c.audit(broken, timeout=2.0) is PieceOutcome.SILENT
        c.fault(broken, "hash-only")
        assert await c.audit(broken, timeout=2.0) is PieceOutcome.SILENT
        status = await c.ask(broken, 1 << 20)
        assert status.status == "active"
        assert status.proof
        c.advance(SPAN)
        last = await c.proved(broken, last)

        os.kill(rows[0]["pid"], signal.SIGKILL)  # comes back, still without the data
        await until(lambda: _answers(c, broken))
        assert await c.audit(broken, timeout=8.0) is PieceOutcome.SILENT
        c.fault(broken, "silent")
        assert await c.audit(broken, timeout=2.0) is PieceOutcome.UNREACHABLE
        assert await c.audit(honest) is PieceOutcome.OK
        c.fault(broken, "none")
        await until(lambda: _healed(c, broken))

        c.advance(SPAN)
        for key in (broken, honest):
            await c.proved(key, last)
        await c.hire([honest], 100_000_000)
        bags = market.state / "providers" / "1" / "bags"
        c.advance(SPAN)
        await until(lambda: _empty(bags))
        assert (await c.ask(broken)).status == "error"
        assert await c.audit(honest) is PieceOutcome.OK


async def _answers(c: Client, key: ProviderKey) -> bool:
    return (await c.ask(key)).status == "active"


async def _healed(c: Client, key: ProviderKey) -> bool:
    return await c.audit(key) is PieceOutcome.OK


async def _empty(folder: Path) -> bool:
    await trio.lowlevel.checkpoint()
    return not any(folder.iterdir())
