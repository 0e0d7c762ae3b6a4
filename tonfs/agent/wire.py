"""Values out of JSON that came over a control socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import BadPacket
from ..ids import BagId, bag_id


@dataclass(frozen=True)
class KnownPack:
    """A pack as the front knows it: bytes that files still need of it, and how many files."""

    live: int
    files: int
    asked: int
    """The largest number of replicas that is said for one of them, 0 for none."""
    unsaid: bool
    """For one of them nothing is said."""
    told: bool
    """It knows how many replicas are proven; one that was just started does not."""

    def replicas(self, volume: int) -> int | None:
        """What its files ask for together; None: `volume`, the volume's number, whatever that becomes."""
        return max(self.asked, volume if self.unsaid else 0) if self.asked else None


def front_bag(text: object) -> BagId:
    """A BagID. Raises BadPacket."""
    try:
        return bag_id(str(text))
    except ValueError as exc:
        raise BadPacket(str(exc)) from None


def known_packs(reply: dict[str, Any]) -> dict[BagId, KnownPack]:
    """The front's answer to `packs`: every pack that it knows. Raises BadPacket."""
    try:
        return {
            front_bag(p["bag_id"]): KnownPack(
                int(p["live"]), int(p["files"]), int(p["asked"]), bool(p["unsaid"]), bool(p["told"])
            )
            for p in reply["packs"]
        }
    except (KeyError, TypeError, ValueError) as exc:
        raise BadPacket(f"The front's list of packs is malformed: {exc!r}") from None
