"""Faults on purpose: how a provider can misbehave, switchable while it runs (for rehearsals and tests)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import trio

from ..errors import UsageError
from ..ids import BagId
from ..network.piece_source import PieceSource

SLOW_SECONDS: Final = 6.0
"""How long a slow provider sits on each piece."""


class Fault(StrEnum):
    NONE = "none"
    SILENT = "silent"
    """Answers nothing at all on UDP, sends no proofs."""
    SLOW = "slow"
    """Hands out pieces, but each takes `SLOW_SECONDS`."""
    HASH_ONLY = "hash-only"
    """Has thrown the data away and kept the hashes: every proof is right, no piece is handed out."""
    WRONG_BYTES = "wrong-bytes"
    """Hands out other bytes with the right proof."""


def parse_fault(word: str) -> Fault:
    """Raises UsageError."""
    try:
        return Fault(word)
    except ValueError:
        raise UsageError(f"There is no fault {word!r}.", hint=f"Faults are: {', '.join(Fault)}.") from None


class FaultySource:
    """Stands between a storage node and its pieces."""

    def __init__(self, inner: PieceSource, fault: Fault = Fault.NONE) -> None:
        self._inner = inner
        self.fault = fault

    async def read_piece(self, bag_id: BagId, index: int) -> tuple[bytes, bytes] | None:
        """See PieceSource."""
        if self.fault in (Fault.SILENT, Fault.HASH_ONLY):
            return None
        if self.fault is Fault.SLOW:
            await trio.sleep(SLOW_SECONDS)
        found = await self._inner.read_piece(bag_id, index)
        if found is not None and self.fault is Fault.WRONG_BYTES:
            proof, data = found
            return proof, bytes((data[0] ^ 0x55,)) + data[1:]
        return found
