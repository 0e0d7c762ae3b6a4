"""A provider's world for tests: the real contract on the devnet's ledger, a bag, an owner, a network that copies."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.fakes.ledger_chain import LedgerChain, ledger_chain
from tonfs.bagfiles import StoredBag, create_bag
from tonfs.chain import Message, Wallet, storage2
from tonfs.chain.storage2 import ProviderEntry, StorageContract, Terms
from tonfs.errors import PeerUnreachable
from tonfs.ids import NANO, Address, BagId, NanoTon, ProviderKey
from tonfs.network.api import FetchReport
from tonfs.provider.config import ProviderConfig
from tonfs.provider.faults import Fault
from tonfs.provider.keeper import Keeper
from tonfs.provider.sender import Sender
from tonfs.provider.shelf import Shelf
from tonfs.provider.store import ProviderStore

SPAN = 3600
RATE = 3_000_000_000
"""A full span of the test's bags pays about 0.06 TON."""


@dataclass
class CopyNet:
    """Satisfies BagNet: pieces are copied from bags in memory's reach, one each 10 ms."""

    sources: dict[BagId, StoredBag] = field(default_factory=dict)
    seeded: dict[BagId, Path] = field(default_factory=dict)
    fetched: list[tuple[BagId, int | None]] = field(default_factory=list)
    limit: int | None = None
    """So many pieces per bag and no more: then nobody has the rest."""
    down: bool = False

    async def fetch(
        self, bag_id: BagId, directory: Path, pieces: Sequence[int] | None, *, timeout: float
    ) -> FetchReport:
        self.fetched.append((bag_id, None if pieces is None else len(pieces)))
        await trio.sleep(0.01)
        source = self.sources.get(bag_id)
        if source is None or source.info is None or self.down:
            raise PeerUnreachable(f"Nobody has bag {bag_id.hex()}.")
        copy = StoredBag.prepare(directory, bag_id)
        try:
            copy.set_info(source.info.to_boc())
            wanted = [*range(source.info.header_pieces)]
            wanted += range(source.info.pieces) if pieces is None else pieces
            for number, piece in enumerate(wanted):
                if self.limit is not None and number >= self.limit:
                    raise PeerUnreachable(f"Nobody has the rest of bag {bag_id.hex()}.")
                await trio.sleep(0.01)
                copy.write_piece(piece, source.read_piece(piece), source.proof(piece))
            return FetchReport(copy.have_count, len(wanted), 0, 0)
        finally:
            copy.close()

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        await trio.lowlevel.checkpoint()
        self.seeded[bag_id] = directory

    async def forget(self, bag_id: BagId) -> None:
        await trio.lowlevel.checkpoint()
        self.seeded.pop(bag_id, None)


@dataclass
class World:
    directory: Path
    chain: LedgerChain
    net: CopyNet
    owner: Wallet
    wallet: Wallet
    config: ProviderConfig
    _query: int = 0

    @property
    def key(self) -> ProviderKey:
        return ProviderKey(self.wallet.public_key)

    def bag(self, name: str = "one", size: int = 50_000, piece_size: int = 4096) -> StoredBag:
        path = self.directory / f"{name}.bin"
        path.write_bytes(os.urandom(size))
        stored = StoredBag.create(self.directory / f"source-{name}", create_bag(path, piece_size=piece_size))
        self.net.sources[stored.bag_id] = stored
        return stored

    def address(self, bag: StoredBag, owner: Wallet | None = None) -> Address:
        assert bag.info is not None
        return storage2.contract_address(bag.info, (owner or self.owner).address)

    async def send(self, *messages: Message, wallet: Wallet | None = None) -> None:
        """From the owner; two blocks later everything is done."""
        sender = wallet or self.owner
        seqno = sender.seqno(await self.chain.account(sender.address))
        external = sender.sign(seqno, await self.chain.now() + 60, messages)
        await self.chain.send_boc(external.boc)
        for _ in range(3):
            await self.chain.wait_block()

    async def hire(
        self,
        bag: StoredBag,
        terms: Terms | None = None,
        *,
        value: int = 10 * NANO,
        providers: dict[ProviderKey, Terms] | None = None,
    ) -> Address:
        """Deploy or change the contract of this bag: by default it lists our provider alone."""
        assert bag.info is not None
        self._query += 1
        listed = providers if providers is not None else {self.key: terms or Terms(SPAN, self.rate(bag))}
        body = storage2.modify_providers(self._query, listed)
        init = storage2.state_init(bag.info, self.owner.address)
        await self.send(Message(self.address(bag), NanoTon(value), body, init))
        return self.address(bag)

    async def withdraw(self, bag: StoredBag) -> None:
        await self.send(Message(self.address(bag), storage2.WITHDRAW_VALUE, storage2.withdraw(1)))

    def rate(self, bag: StoredBag, bounty: int = 60_000_000, span: int = SPAN) -> int:
        assert bag.info is not None
        return storage2.rate_for_bounty(bag.info.file_size, span, bounty)

    async def contract(self, bag: StoredBag) -> StorageContract:
        return storage2.read_contract(await self.chain.account(self.address(bag)))

    async def entry(self, bag: StoredBag) -> ProviderEntry:
        return (await self.contract(bag)).providers[self.key]

    @asynccontextmanager
    async def provider(self, fault: Fault = Fault.NONE) -> AsyncIterator[Keeper]:
        """A running keeper; leaving the block is a kill: nothing is tidied up but the threads' handles."""
        store = ProviderStore(self.config.directory / "provider.db")
        shelf = Shelf(self.config.bags)
        shelf.directory.mkdir(parents=True, exist_ok=True)
        sender = Sender(self.chain, self.wallet)
        remembered = Fault(store.note("fault") or fault)
        keeper = Keeper(self.config, self.key, store, shelf, self.chain, self.net, sender, remembered)
        async with trio.open_nursery() as nursery:
            await nursery.start(keeper.run)
            yield keeper
            nursery.cancel_scope.cancel()
        self.net.seeded.clear()
        shelf.close()
        store.close()

    async def until_state(self, keeper: Keeper, address: Address, state: str, patience: float = 120) -> None:
        with trio.fail_after(patience):
            while True:
                found = [row["state"] for row in keeper.summary() if row["address"] == address]
                if found == [state] or (state == "gone" and not found):
                    return
                await trio.sleep(0.25)

    async def until_proof(self, bag: StoredBag, after: int, patience: float = 120) -> int:
        """Chain time of the provider's next proof."""
        with trio.fail_after(patience):
            while True:
                last = (await self.entry(bag)).last_proof_time
                if last > after:
                    return last
                await self.chain.wait_block()


@asynccontextmanager
async def world(tmp_path: Path, **settings: int) -> AsyncIterator[World]:
    """Owner and provider have coins; the provider does not run yet."""
    values = {"rate_per_mb_day": 1_000_000, "min_span": 600, "max_span": 30 * 86400, "space": 1 << 30, **settings}
    directory = tmp_path / "provider"
    directory.mkdir()
    config = ProviderConfig(
        seed_file=directory / "seed",
        directory=directory,
        global_config=tmp_path / "none",
        listen=("127.0.0.1", 0),
        **values,
    )
    async with ledger_chain(tmp_path) as chain:
        owner = Wallet.from_seed(b"o" * 32, "v4r2")
        wallet = Wallet.from_seed(b"p" * 32, "v3r2")
        await chain.give(owner.address, 1000 * NANO)
        await chain.give(wallet.address, 5 * NANO)
        await chain.wait_block()
        yield World(tmp_path, chain, CopyNet(), owner, wallet, config)
