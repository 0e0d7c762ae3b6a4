"""Where served pieces come from. A provider with a fault on purpose puts its own source in front of the real one.

node.source = Corrupting(node.source)
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

import trio

from ..bagfiles import StoredBag
from ..errors import Damaged, TonfsError
from ..ids import BagId
from ..log import get_logger

log = get_logger(__name__)

INLINE_PIECE: Final = 256 << 10
"""Pieces up to this size are read, hashed and written on the loop: some 0.3 ms, less than two hops between threads."""
_PROOFS: Final = 4096


class PieceSource(Protocol):
    """Gives the node the pieces that peers ask for."""

    async def read_piece(self, bag_id: BagId, index: int) -> tuple[bytes, bytes] | None:
        """(proof BoC, piece bytes), or None to stay silent. Must not raise."""
        ...


class StoredPieces:
    """Pieces out of bags on disk, checked against their hashes at every read."""

    def __init__(self) -> None:
        self._bags: dict[BagId, StoredBag] = {}
        self._proofs: OrderedDict[tuple[BagId, int], bytes] = OrderedDict()

    def add(self, bag: StoredBag) -> None:
        self._bags[bag.bag_id] = bag

    def remove(self, bag_id: BagId) -> None:
        self._bags.pop(bag_id, None)

    async def read_piece(self, bag_id: BagId, index: int) -> tuple[bytes, bytes] | None:
        bag = self._bags.get(bag_id)
        if bag is None or bag.info is None or not bag.have(index):
            return None
        try:
            if bag.info.piece_size <= INLINE_PIECE:
                return self._proof(bag, index), bag.read_piece(index)
            return self._proof(bag, index), await trio.to_thread.run_sync(bag.read_piece, index)
        except Damaged as exc:
            log.warning("a piece on disk is damaged", bag_id=bag_id, piece=index, reason=exc.message)
        except TonfsError as exc:
            log.info("a piece cannot be served", bag_id=bag_id, piece=index, reason=exc.message)
        return None

    def _proof(self, bag: StoredBag, index: int) -> bytes:
        key = (bag.bag_id, index)
        proof = self._proofs.get(key)
        if proof is None:
            proof = self._proofs[key] = bag.proof(index)
            if len(self._proofs) > _PROOFS:
                self._proofs.popitem(last=False)
        return proof
