"""`PeerNet` over the peer process's control socket: what the agent holds in its hands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio

from ..control import ControlClient
from ..errors import BadPacket, NotRunning, TimedOut, TonfsError
from ..ids import Address, AdnlId, BagId, NanoTon, ProviderKey
from ..log import get_logger
from .api import FetchReport, PieceAnswer, PieceOutcome, Rates, StorageStatus
from .peer_control import pack_pieces

log = get_logger(__name__)

SHORT: Final = 30.0
GRACE: Final = 5.0
"""Seconds that the peer process gets beyond a call's own deadline, to say what happened."""


WATCH_EVERY: Final = 5.0


class PeerClient:
    """Run `await nursery.start(client.run)` for its life. Besides the errors of `PeerNet`: NotRunning.

    What was seeded through this client is seeded again when the peer process was started anew.
    """

    def __init__(self, socket: Path) -> None:
        self._control = ControlClient(socket, who="peer process")
        self._seeds: dict[BagId, Path] = {}
        self._instance = ""
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._control.run)
            self._nursery = nursery
            task_status.started()
            try:
                while True:
                    await self._watch()
                    await trio.sleep(WATCH_EVERY)
            finally:
                self._nursery = None

    async def _watch(self) -> None:
        """Find out whether the process is still the one that knows our bags."""
        try:
            instance = str((await self._call("ping", {}, SHORT)).get("instance"))
            if self._instance not in ("", instance):
                log.info("the peer process was started again", bags=len(self._seeds))
                for bag_id, directory in list(self._seeds.items()):
                    await self._seed_again(bag_id, directory)
            self._instance = instance
        except (NotRunning, TimedOut) as exc:
            log.debug("the peer process does not answer", reason=exc.message)

    async def _seed_again(self, bag_id: BagId, directory: Path) -> None:
        try:
            if self._seeds.get(bag_id) == directory:
                await self.seed(bag_id, directory)
        except (NotRunning, TimedOut):
            raise
        except TonfsError as exc:
            log.warning("a bag is not seeded any more", bag_id=bag_id, reason=exc.message)

    async def _call(self, method: str, params: dict[str, Any], timeout: float) -> dict[str, Any]:
        return await self._control.call(method, params, timeout=timeout + GRACE)

    async def _call_revocable(self, method: str, params: dict[str, Any], timeout: float) -> dict[str, Any]:
        """A long call; when we are cancelled the process is told to stop, too."""
        token = os.urandom(8).hex()
        try:
            return await self._call(method, {**params, "token": token}, timeout)
        except trio.Cancelled:
            if self._nursery is not None:
                self._nursery.start_soon(self._revoke, token)
            raise

    async def _revoke(self, token: str) -> None:
        with contextlib.suppress(NotRunning, TimedOut):
            await self._call("revoke", {"token": token}, SHORT)

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        """See PeerNet."""
        await self._call("seed", {"bag_id": bag_id.hex(), "directory": str(directory.absolute())}, SHORT)
        self._seeds[bag_id] = directory

    async def forget(self, bag_id: BagId) -> None:
        """See PeerNet."""
        self._seeds.pop(bag_id, None)
        await self._call("forget", {"bag_id": bag_id.hex()}, SHORT)

    async def fetch(
        self, bag_id: BagId, directory: Path, pieces: Sequence[int] | None, *, timeout: float
    ) -> FetchReport:
        """See PeerNet."""
        params = {
            "bag_id": bag_id.hex(),
            "directory": str(directory.absolute()),
            "pieces": None if pieces is None else pack_pieces(pieces),
            "timeout": timeout,
        }
        found = await self._call_revocable("fetch", params, timeout)
        try:
            return FetchReport(**{name: int(found[name]) for name in ("have", "wanted", "bytes", "wrong")})
        except (KeyError, TypeError, ValueError):
            raise BadPacket("The peer process sent a malformed report.") from None

    async def audit_piece(
        self, bag_id: BagId, directory: Path, piece: int, peer_id: AdnlId, *, timeout: float
    ) -> PieceAnswer:
        """See PeerNet."""
        params = {
            "bag_id": bag_id.hex(),
            "directory": str(directory.absolute()),
            "piece": piece,
            "peer": peer_id.hex(),
            "timeout": timeout,
        }
        found = await self._call_revocable("audit_piece", params, timeout)
        try:
            outcome = PieceOutcome(found["outcome"])
            return PieceAnswer(outcome, int(found["bytes"]), float(found["seconds"]), str(found["detail"]))
        except (KeyError, TypeError, ValueError):
            raise BadPacket("The peer process sent a malformed audit.") from None

    async def provider_rates(self, provider: ProviderKey, size: int, *, timeout: float) -> Rates:
        """See PeerNet."""
        params = {"provider": provider.hex(), "size": size, "timeout": timeout}
        found = await self._call("provider_rates", params, timeout)
        try:
            return Rates(
                available=bool(found["available"]),
                rate_per_mb_day=NanoTon(int(found["rate_per_mb_day"])),
                min_bounty=NanoTon(int(found["min_bounty"])),
                space_available=int(found["space_available"]),
                min_span=int(found["min_span"]),
                max_span=int(found["max_span"]),
            )
        except (KeyError, TypeError, ValueError):
            raise BadPacket("The peer process sent malformed rates.") from None

    async def provider_storage(
        self, provider: ProviderKey, contract: Address, byte_to_proof: int, *, timeout: float
    ) -> StorageStatus:
        """See PeerNet."""
        params = {"provider": provider.hex(), "contract": contract, "byte": byte_to_proof, "timeout": timeout}
        found = await self._call("provider_storage", params, timeout)
        try:
            proof = bytes.fromhex(found["proof"])
            return StorageStatus(str(found["status"]), str(found["reason"]), int(found["downloaded"]), proof)
        except (KeyError, TypeError, ValueError):
            raise BadPacket("The peer process sent a malformed status.") from None

    async def provider_adnl(self, provider: ProviderKey, contract: Address, *, timeout: float) -> AdnlId:
        """See PeerNet."""
        params = {"provider": provider.hex(), "contract": contract, "timeout": timeout}
        found = await self._call("provider_adnl", params, timeout)
        try:
            return AdnlId(bytes.fromhex(found["adnl_id"]))
        except (KeyError, TypeError, ValueError):
            raise BadPacket("The peer process sent a malformed id.") from None

    # Beyond PeerNet.

    async def status(self) -> dict[str, Any]:
        """The process's own report: `id`, `address`, `bags`, `traffic`, `limits` (see `peer_control`)."""
        return await self._call("status", {}, SHORT)

    async def peers(self, bag_id: BagId) -> list[dict[str, Any]]:
        """Peers of an open bag: `id`, `address`, `phase`, `usable`, `pieces`, `received`, `served`, `wrong`."""
        found = await self._call("peers", {"bag_id": bag_id.hex()}, SHORT)
        return list(found["peers"])

    async def shutdown(self) -> None:
        """Ask the process to end."""
        await self._call("shutdown", {}, SHORT)
