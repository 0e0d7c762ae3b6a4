"""The storage peer: many bags on one ADNL endpoint. Satisfies `PeerNet` in process.

    node = StorageNode(endpoint, dht, provider_link, clock)
    await nursery.start(node.run)
    await node.seed(bag_id, directory)
    report = await node.fetch(bag_id, directory, None, timeout=600)

Queries of other peers are told apart by overlay id; what is not a query of a bag that we serve stays unanswered.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import trio

from ..bagfiles import StoredBag
from ..clock import Clock
from ..errors import BadPacket, Busy, NotFound, NotRunning
from ..ids import Address, AdnlId, BagId, ProviderKey
from ..log import get_logger
from . import overlay
from .api import AdnlEndpoint, FetchReport, Peer, PieceAnswer, Rates, StorageStatus, UdpAddress
from .piece_source import PieceSource, StoredPieces
from .storage_audit import audit_piece
from .storage_shared import Finder, Progress, Shared
from .storage_swarm import Swarm
from .storage_transfer import Reputation

log = get_logger(__name__)

SWEEP_EVERY: Final = 10.0
REPUTATIONS: Final = 8192


class Providers(Protocol):
    """The provider protocol's client (`ProviderLink` is one); see `PeerNet` for the meaning."""

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates: ...

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus: ...

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId: ...


@dataclass(frozen=True)
class PeerInfo:
    """One peer of a bag. Bytes since contact was made."""

    id: AdnlId
    address: UdpAddress | None
    phase: str
    usable: bool
    pieces: int
    received: int
    served: int
    wrong: int


@dataclass(frozen=True)
class BagInfo:
    """A bag that is open. `pieces` and `size` are 0 while the info is not known."""

    bag_id: BagId
    directory: Path
    seeding: bool
    size: int
    piece_size: int
    pieces: int
    have: int
    header: bool
    peers: int


class StorageNode:
    """`source` gives served pieces; by default the bags on disk. It may be replaced while the node runs."""

    def __init__(
        self,
        endpoint: AdnlEndpoint,
        finder: Finder,
        providers: Providers,
        clock: Clock,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._providers = providers
        self._stored = StoredPieces()
        self._reputations: OrderedDict[tuple[BagId, AdnlId], Reputation] = OrderedDict()
        self._shared = Shared(
            endpoint=endpoint,
            finder=finder,
            clock=clock,
            rng=rng if rng is not None else random.SystemRandom(),
            source=self._stored,
            reputation_of=self._reputation,
        )
        self._swarms: dict[BagId, Swarm] = {}
        self._by_overlay: dict[bytes, Swarm] = {}
        self._stamps: dict[BagId, tuple[tuple[int, int], ...]] = {}
        self._opening: set[BagId] = set()
        """Bags that somebody opens now; nothing is wanted of them yet."""
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._endpoint.set_handler(self._handle)
                task_status.started()
                while True:
                    await trio.sleep(SWEEP_EVERY)
                    self._sweep()
        finally:
            self._nursery = None

    @property
    def id(self) -> AdnlId:
        return self._endpoint.id

    @property
    def source(self) -> PieceSource:
        return self._shared.source

    @source.setter
    def source(self, source: PieceSource) -> None:
        self._shared.source = source

    # Bags.

    async def _open(self, bag_id: BagId, directory: Path, *, make: bool) -> Swarm:
        """The bag's swarm. Raises Busy when it is in use from another directory, and what StoredBag raises."""
        if self._nursery is None:
            raise NotRunning("The storage node does not run.")
        directory = directory.absolute()
        swarm = self._swarms.get(bag_id)
        if swarm is not None and swarm.stored.directory != directory:
            if swarm.seeding or not swarm.idle:
                raise Busy(f"Bag {bag_id.hex()} is already open in {swarm.stored.directory}.")
            self._close(swarm)
            swarm = None
        if swarm is None:
            stored = self._load(bag_id, directory, make=make)
            swarm = self._swarms[bag_id] = Swarm(self._shared, stored)
            self._by_overlay[swarm.overlay] = swarm
            self._stored.add(stored)
            self._stamps[bag_id] = _stamp(directory)
            self._opening.add(bag_id)
            try:
                await self._nursery.start(self._run_swarm, swarm)
            finally:
                self._opening.discard(bag_id)
        elif swarm.idle:
            if _stamp(directory) != self._stamps.get(bag_id):
                stored = self._load(bag_id, directory, make=make)
                swarm.stored.close()
                swarm.reload(stored)
                self._stored.add(stored)
                self._stamps[bag_id] = _stamp(directory)
            else:
                swarm.reload(swarm.stored)
        return swarm

    @staticmethod
    def _load(bag_id: BagId, directory: Path, *, make: bool) -> StoredBag:
        if make:
            return StoredBag.prepare(directory, bag_id)
        stored = StoredBag.open(directory)
        if stored.bag_id != bag_id:
            stored.close()
            raise NotFound(f"{directory} holds bag {stored.bag_id.hex()}, not {bag_id.hex()}.")
        return stored

    async def _run_swarm(self, swarm: Swarm, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await swarm.run(task_status=task_status)
        finally:
            self._detach(swarm)
            swarm.stored.close()

    def _detach(self, swarm: Swarm) -> None:
        if self._swarms.get(swarm.bag_id) is swarm:
            del self._swarms[swarm.bag_id]
            del self._by_overlay[swarm.overlay]
            self._stored.remove(swarm.bag_id)
            self._stamps.pop(swarm.bag_id, None)

    def _close(self, swarm: Swarm) -> None:
        self._detach(swarm)
        swarm.close()

    def _sweep(self) -> None:
        for swarm in list(self._swarms.values()):
            if swarm.expendable and swarm.bag_id not in self._opening:
                self._close(swarm)
            else:
                swarm.sweep()

    def _reputation(self, bag_id: BagId, peer: AdnlId) -> Reputation:
        key = (bag_id, peer)
        reputation = self._reputations.get(key)
        if reputation is None:
            if len(self._reputations) >= REPUTATIONS:
                # Strangers are cheap to invent: a crowd of them must not wash a liar clean.
                oldest = list(islice(self._reputations.items(), 64))
                harmless = (known for known, entry in oldest if not entry.wrong and not entry.bad)
                del self._reputations[next(harmless, oldest[0][0])]
            reputation = self._reputations[key] = Reputation()
        self._reputations.move_to_end(key)
        return reputation

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        """See PeerNet. Raises NotFound, Damaged, Busy."""
        swarm = await self._open(bag_id, directory, make=False)
        swarm.set_seeding(True)

    async def forget(self, bag_id: BagId) -> None:
        """See PeerNet. A fetch that runs goes on."""
        swarm = self._swarms.get(bag_id)
        if swarm is not None:
            swarm.set_seeding(False)
            if swarm.idle:
                self._close(swarm)

    async def fetch(
        self, bag_id: BagId, directory: Path, pieces: Sequence[int] | None, *, timeout: float
    ) -> FetchReport:
        """See PeerNet. Raises besides: DhtUnavailable, Busy, Refused, NoSpace, BadBag, UsageError."""
        return await self.download(bag_id, directory, pieces, timeout=timeout)

    async def download(
        self,
        bag_id: BagId,
        directory: Path,
        pieces: Sequence[int] | None = None,
        *,
        timeout: float,
        progress: Progress | None = None,
    ) -> FetchReport:
        """`fetch` that tells (pieces here, pieces in the bag) after every piece."""
        swarm = await self._open(bag_id, directory, make=True)
        ready = swarm.ready(pieces)
        return ready if ready is not None else await swarm.fetch(pieces, timeout=timeout, progress=progress)

    async def audit_piece(
        self, bag_id: BagId, directory: Path, piece: int, peer_id: AdnlId, *, timeout: float
    ) -> PieceAnswer:
        """See PeerNet. Raises DhtUnavailable when we are offline, NotFound, UsageError."""
        async with self._held(bag_id, directory) as swarm:
            return await audit_piece(swarm, piece, peer_id, timeout=timeout)

    @asynccontextmanager
    async def _held(self, bag_id: BagId, directory: Path) -> AsyncIterator[Swarm]:
        """The open bag, or the one in `directory`; it stays open for the block."""
        swarm = self._swarms.get(bag_id) or await self._open(bag_id, directory, make=False)
        swarm.audits += 1
        try:
            yield swarm
        finally:
            swarm.audits -= 1

    # What is known.

    def bag_info(self, bag_id: BagId) -> BagInfo | None:
        """The state of an open bag."""
        swarm = self._swarms.get(bag_id)
        if swarm is None:
            return None
        info = swarm.info
        return BagInfo(
            bag_id=bag_id,
            directory=swarm.stored.directory,
            seeding=swarm.seeding,
            size=info.file_size if info is not None else 0,
            piece_size=info.piece_size if info is not None else 0,
            pieces=info.pieces if info is not None else 0,
            have=swarm.have.bit_count(),
            header=swarm.stored.header is not None,
            peers=len(swarm.links),
        )

    def bags(self) -> list[BagInfo]:
        """All open bags."""
        return [info for bag_id in self._swarms if (info := self.bag_info(bag_id)) is not None]

    def peers(self, bag_id: BagId) -> list[PeerInfo]:
        """The peers of an open bag."""
        swarm = self._swarms.get(bag_id)
        links = list(swarm.links.values()) if swarm is not None else []
        return [
            PeerInfo(
                id=link.id,
                address=link.peer.address,
                phase=str(link.session.phase),
                usable=link.session.usable,
                pieces=link.session.peer_have.bit_count(),
                received=link.bytes,
                served=link.served,
                wrong=link.wrong,
            )
            for link in links
        ]

    # Answering.

    async def _handle(self, peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
        try:
            overlay_id, query = overlay.unwrap(data)
            swarm = self._by_overlay.get(overlay_id)
            return None if swarm is None else await swarm.answer(peer, query)
        except BadPacket as exc:
            log.debug("bad query", peer=peer.id, reason=exc.message)
            return None

    # Providers.

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates:
        """See PeerNet."""
        return await self._providers.provider_rates(provider, size, timeout=timeout)

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus:
        """See PeerNet."""
        return await self._providers.provider_storage(provider, contract, byte_to_proof, timeout=timeout)

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId:
        """See PeerNet."""
        return await self._providers.provider_adnl(provider, contract, timeout=timeout)


def _stamp(directory: Path) -> tuple[tuple[int, int], ...]:
    """Changes whenever a file of the bag's state was replaced (by another process, or by ourselves)."""
    stamps = []
    for name in ("bag.json", "info.boc", "header.bin"):
        try:
            status = (directory / name).stat()
            stamps.append((status.st_ino, status.st_mtime_ns))
        except FileNotFoundError:
            stamps.append((0, 0))
    return tuple(stamps)
