"""A `PeerNet` whose bags are seeded by somebody else where possible; everything else is our own peer's work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import BadPacket, NotRunning, Refused, UsageError
from ..ids import Address, AdnlId, BagId, ProviderKey
from ..log import get_logger
from .api import FetchReport, PeerNet, PieceAnswer, Rates, Seeder, StorageStatus

log = get_logger(__name__)


class BackedNet:
    """`own` seeds what `backend` refuses, and everything while it does not answer: no bag waits for a daemon."""

    def __init__(self, own: PeerNet, backend: Seeder) -> None:
        self._own = own
        self._backend = backend

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        """See Seeder."""
        try:
            await self._backend.seed(bag_id, directory)
        except (Refused, NotRunning, BadPacket, UsageError) as exc:  # UsageError: a login that is not accepted
            log.info("our own peer seeds", bag_id=bag_id, reason=exc.message)
            await self._own.seed(bag_id, directory)
        else:
            await self._own.forget(bag_id)

    async def forget(self, bag_id: BagId) -> None:
        """See Seeder. Raises NotRunning while the daemon that has the bag does not answer."""
        await self._own.forget(bag_id)
        await self._backend.forget(bag_id)

    async def fetch(
        self, bag_id: BagId, directory: Path, pieces: Sequence[int] | None, *, timeout: float
    ) -> FetchReport:
        """See PeerNet."""
        return await self._own.fetch(bag_id, directory, pieces, timeout=timeout)

    async def audit_piece(
        self, bag_id: BagId, directory: Path, piece: int, peer_id: AdnlId, *, timeout: float
    ) -> PieceAnswer:
        """See PeerNet."""
        return await self._own.audit_piece(bag_id, directory, piece, peer_id, timeout=timeout)

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates:
        """See PeerNet."""
        return await self._own.provider_rates(provider, size, timeout=timeout)

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus:
        """See PeerNet."""
        return await self._own.provider_storage(provider, contract, byte_to_proof, timeout=timeout)

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId:
        """See PeerNet."""
        return await self._own.provider_adnl(provider, contract, timeout=timeout)
