"""Whole swarms of storage nodes on the in-memory network."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.fakes.adnl import FakeEndpoint, FakeNet
from tests.fakes.finder import FakeDht
from tonfs.bagfiles import CreatedBag, StoredBag, create_bag
from tonfs.clock import ManualClock
from tonfs.errors import PeerUnreachable
from tonfs.ids import Address, AdnlId, BagId, NanoTon, ProviderKey
from tonfs.network.api import Rates, StorageStatus
from tonfs.network.piece_source import PieceSource
from tonfs.network.storage_node import StorageNode

PIECE = 4096


class FakeProviders:
    """One provider that exists, its key all ones; every other one is unreachable."""

    known = ProviderKey(b"\x01" * 32)

    def _check(self, provider: ProviderKey) -> None:
        if provider != self.known:
            raise PeerUnreachable("no such provider")

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates:
        self._check(provider)
        return Rates(True, NanoTon(2**70), NanoTon(50_000_000), size, 3600, 86400)

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus:
        self._check(provider)
        return StorageStatus("active", "", byte_to_proof, b"proof")

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId:
        self._check(provider)
        return AdnlId(b"\x07" * 32)


class Source:
    """Stands in front of a node's pieces: counts, and breaks them on purpose."""

    def __init__(self, inner: PieceSource) -> None:
        self.inner = inner
        self.asked: Counter[int] = Counter()
        self.delay = 0.0
        self.mute = False
        self.corrupt: set[int] | None = set()
        """Pieces served with wrong bytes; None: all."""

    async def read_piece(self, bag_id: BagId, index: int) -> tuple[bytes, bytes] | None:
        self.asked[index] += 1
        await trio.sleep(self.delay)
        found = None if self.mute else await self.inner.read_piece(bag_id, index)
        if found is None or (self.corrupt is not None and index not in self.corrupt):
            return found
        return found[0], bytes(len(found[1]))


@dataclass
class Host:
    """A node with its endpoint, its bag directory and the source in front of its pieces."""

    world: World
    endpoint: FakeEndpoint
    directory: Path
    node: StorageNode = field(init=False)
    source: Source = field(init=False)
    _scope: trio.CancelScope = field(init=False)

    @property
    def id(self) -> AdnlId:
        return self.endpoint.id

    async def start(self) -> None:
        """Start (again, after `stop`): a new node object, as a new process would make it."""
        finder = self.world.dht.finder(self.endpoint)
        self.node = StorageNode(
            self.endpoint, finder, FakeProviders(), self.world.clock, rng=random.Random(self.world.fresh())
        )
        self.source = Source(self.node.source)
        self.node.source = self.source
        self._scope = trio.CancelScope()
        await self.world.nursery.start(self._run)
        self.endpoint.revive()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._scope:
            await self.node.run(task_status=task_status)

    def stop(self) -> None:
        """As a killed process: nothing is said, nothing is heard any more."""
        self.endpoint.kill()
        self._scope.cancel()

    def content(self, name: str = "data") -> bytes:
        return (self.directory / "files" / "bag" / name).read_bytes()

    def stored(self) -> StoredBag:
        return StoredBag.open(self.directory)


class World:
    def __init__(self, nursery: trio.Nursery, folder: Path, **net: float) -> None:
        self.nursery = nursery
        self.folder = folder
        self.clock = ManualClock(base=trio.current_time)
        self.net = FakeNet(nursery, **net)  # type: ignore[arg-type]
        self.dht = FakeDht(self.clock)
        self.data = b""
        self._starts = 0

    def fresh(self) -> int:
        """A number not given before: no two node objects may draw the same session ids."""
        self._starts += 1
        return self._starts

    def make_bag(self, pieces: int = 40, seed: int = 1) -> CreatedBag:
        """A bag of about so many pieces of 4 KiB with one file; its bytes are in `data`."""
        folder = self.folder / f"origin{seed}" / "bag"
        folder.mkdir(parents=True)
        self.data = random.Random(seed).randbytes(pieces * PIECE - 777)
        (folder / "data").write_bytes(self.data)
        return create_bag(folder, piece_size=PIECE)

    async def host(self, name: str) -> Host:
        host = Host(self, self.net.endpoint(name), self.folder / name)
        await host.start()
        return host

    async def seeder(self, name: str, bag: CreatedBag) -> Host:
        host = await self.host(name)
        StoredBag.create(host.directory, bag)
        await host.node.seed(bag.info.bag_id, host.directory)
        return host
