"""The seams of the network room: what an ADNL node offers to the layers above, and what the layers above offer
to the agent, the auditor, the market and providers. Fakes and the real thing satisfy the same protocols.

Errors: `PeerTimeout` when no answer came in time, `PeerUnreachable` when no address is known, `BadPacket` for
answers that break their format. Silence is the network's only way to say no (reference protocol 2.6).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ..ids import Address, AdnlId, BagId, NanoTon, ProviderKey

UdpAddress = tuple[str, int]
"""(IPv4 text, port)."""


class Peer(Protocol):
    """One remote ADNL id as seen from one of our identities."""

    @property
    def id(self) -> AdnlId: ...

    @property
    def address(self) -> UdpAddress | None: ...

    @property
    def last_heard(self) -> float | None:
        """Trio time of the last valid packet from this peer, whatever was in it; None: nothing is remembered."""
        ...

    async def query(self, data: bytes, *, timeout: float) -> bytes:
        """ADNL query, re-sent until answered. Returns the answer's bytes. Raises PeerTimeout, PeerUnreachable."""
        ...

    async def rldp_query(self, data: bytes, *, max_answer: int, timeout: float) -> bytes:
        """RLDP2 query; answers of any size up to `max_answer`. Raises PeerTimeout, PeerUnreachable."""
        ...


QueryHandler = Callable[[Peer, bytes, bool], Awaitable[bytes | None]]
"""(peer, query bytes, came by RLDP) -> answer bytes, or None to stay silent. Must not raise for foreign bytes."""


class AdnlEndpoint(Protocol):
    """One of our identities on a node's socket."""

    @property
    def id(self) -> AdnlId: ...

    @property
    def public_key(self) -> bytes: ...

    @property
    def address(self) -> UdpAddress:
        """What we announce."""
        ...

    def sign(self, message: bytes) -> bytes: ...

    def set_handler(self, handler: QueryHandler) -> None: ...

    def peer(self, public_key: bytes, address: UdpAddress) -> Peer:
        """Get or make the peer with this Ed25519 public key; the address is used until the peer shows another."""
        ...

    def known_peer(self, peer_id: AdnlId) -> Peer | None:
        """A peer whose key and address are already known (it contacted us, or `peer` was called)."""
        ...


class PieceOutcome(StrEnum):
    OK = "ok"
    """The piece came and matches the bag's root hash."""
    WRONG = "wrong"
    """Bytes came and do not match: evidence against this very provider."""
    SILENT = "silent"
    """The peer answers pings but not this request."""
    UNREACHABLE = "unreachable"
    """No answer to anything."""


@dataclass(frozen=True)
class PieceAnswer:
    outcome: PieceOutcome
    bytes: int
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class FetchReport:
    """What a fetch did: pieces now present, pieces asked for, bytes received, wrong pieces seen and dropped."""

    have: int
    wanted: int
    bytes: int
    wrong: int


@dataclass(frozen=True)
class Rates:
    """`storageProvider.ratesResponse` (reference contracts section 5)."""

    available: bool
    rate_per_mb_day: NanoTon
    min_bounty: NanoTon
    space_available: int
    min_span: int
    max_span: int


@dataclass(frozen=True)
class StorageStatus:
    """`storageProvider.storageResponse`: status resolving, downloading, active, warning-balance or error."""

    status: str
    reason: str
    downloaded: int
    proof: bytes


class Seeder(Protocol):
    """Who serves bags: our own peer, or a daemon that runs here anyway (`tonutils_daemon`)."""

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        """Serve a bag whose state is in `directory` (a bag directory) and announce it. Idempotent.

        Raises NotFound when the directory holds no bag, or another one.
        """
        ...

    async def forget(self, bag_id: BagId) -> None:
        """Stop serving and announcing. Files stay. Idempotent."""
        ...


class PeerNet(Seeder, Protocol):
    """What the agent needs of the storage network. In-process node and peer process both satisfy it."""

    async def fetch(
        self, bag_id: BagId, directory: Path, pieces: Sequence[int] | None, *, timeout: float
    ) -> FetchReport:
        """Get header and these pieces (None: all) from anyone, verify them, write them in place in `directory`.

        Raises PeerUnreachable when nobody has the bag, TimedOut when not all came in time (what came stays).
        """
        ...

    async def audit_piece(
        self, bag_id: BagId, directory: Path, piece: int, peer_id: AdnlId, *, timeout: float
    ) -> PieceAnswer:
        """Fetch one piece from exactly this ADNL id (found by DHT), verify it, keep nothing."""
        ...

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates: ...

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus:
        """Ask a provider to store (idempotent) and for its status."""
        ...

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId:
        """Short id of the ADNL key that serves the bag, with its signature checked (reference contracts 5, 6.6)."""
        ...
