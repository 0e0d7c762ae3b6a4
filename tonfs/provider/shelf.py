"""The bags that a provider keeps: one directory each, read for proofs and progress."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from ..bag import TorrentInfo
from ..bagfiles import StoredBag
from ..errors import NotFound, TonfsError
from ..ids import BagId


class Shelf:
    """Blocking, quick calls, except `remove` and `drop_data`, which delete files: call those in a thread.

    The storage node writes to the same directories; both see the same pieces (bagfiles.StoredBag).
    """

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self._open: dict[BagId, StoredBag] = {}

    def path(self, bag_id: BagId) -> Path:
        return self.directory / bag_id.hex()

    def _bag(self, bag_id: BagId) -> StoredBag | None:
        """The bag, once its info is known. Raises Damaged."""
        bag = self._open.get(bag_id)
        if bag is None or bag.info is None:
            try:
                bag = StoredBag.open(self.path(bag_id))
            except NotFound:
                return None
            if bag.info is None:
                bag.close()
                return None
            self._open[bag_id] = bag
        return bag

    def info(self, bag_id: BagId) -> TorrentInfo | None:
        bag = self._bag(bag_id)
        return None if bag is None else bag.info

    def have(self, bag_id: BagId) -> int:
        """Pieces that are here."""
        bag = self._bag(bag_id)
        return 0 if bag is None else bag.have_count

    def complete(self, bag_id: BagId) -> bool:
        bag = self._bag(bag_id)
        return bag is not None and bag.info is not None and bag.have_count == bag.info.pieces

    def downloaded(self, bag_id: BagId) -> int:
        """Bytes that are here, give or take the short last piece."""
        bag = self._bag(bag_id)
        if bag is None or bag.info is None:
            return 0
        return min(bag.info.file_size, bag.have_count * bag.info.piece_size)

    def proof(self, bag_id: BagId, byte: int) -> bytes:
        """Proof (BoC) of the piece that holds this byte of the stream. Raises NotFound, BadPiece."""
        bag = self._bag(bag_id)
        if bag is None or bag.info is None:
            raise NotFound(f"Bag {bag_id.hex()} is not here.")
        return bag.proof(byte // bag.info.piece_size)

    def damage(self, bag_id: BagId) -> list[int]:
        """Read every piece; the bad ones count as missing from now on."""
        bag = self._bag(bag_id)
        return [] if bag is None else bag.verify()

    def drop_data(self, bag_id: BagId) -> None:
        """Delete the data, keep every hash (the fault `hash-only`)."""
        try:
            bag = StoredBag.open(self.path(bag_id))
        except NotFound:
            return
        try:
            bag.drop_data()
        finally:
            bag.close()

    def remove(self, bag_id: BagId) -> None:
        """Delete everything about a bag."""
        self.close(bag_id)
        shutil.rmtree(self.path(bag_id), ignore_errors=True)

    def close(self, bag_id: BagId | None = None) -> None:
        """Let go of a bag, or of all."""
        for one in [bag_id] if bag_id is not None else list(self._open):
            bag = self._open.pop(one, None)
            if bag is not None:
                bag.close()

    def disk_free(self) -> int:
        """Bytes that the disk has left. 0 when it cannot be asked."""
        try:
            return shutil.disk_usage(self.directory).free
        except OSError:
            return 0

    def broken(self, bag_id: BagId) -> str:
        """Why the directory of a bag cannot be used; empty when it can."""
        try:
            self._bag(bag_id)
        except TonfsError as exc:
            return exc.message
        return ""
