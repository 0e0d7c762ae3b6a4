"""What is known of a bag's pieces, on disk: their hashes (`tree.bin`), and which of them are here (`have.bin`).

Both files are read through maps. A write to a map kills the process when the disk is full, so `have.bin` is reserved at
once (4 MiB at most). `tree.bin` may be 2 GiB for a bag that a stranger invented: it is sparse, and written by calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ..bag import PieceTree, TorrentInfo, tree_depth
from .places import map_file, write_all

_WINDOW: Final = 512
"""Bytes of the bitmap that are looked at together for being empty."""

_PER_PAGE: Final = 4096 // 32


def ones(count: int) -> bytes:
    """The bitmap of a whole bag."""
    return ((1 << count) - 1).to_bytes(-(-count // 8), "little")


class KnownPieces:
    """Reading is safe in many threads; who changes something must be alone in changing."""

    def __init__(self, directory: Path, info: TorrentInfo, *, make: bool) -> None:
        """Raises OSError (FileNotFoundError when a file is missing and shall not be made), Damaged."""
        pieces = info.pieces
        self._directory: Final = directory
        self._root_hash: Final = info.root_hash
        self._heap = map_file(directory / "tree.bin", 64 << tree_depth(pieces), make=make, sparse=True)
        try:
            self._have = map_file(directory / "have.bin", -(-pieces // 8), make=make)
        except BaseException:
            self._heap.close()
            raise
        self.pieces: Final = pieces
        self.tree: Final = PieceTree(heap=memoryview(self._heap), pieces=pieces)
        """Only to be read."""
        self._filled = bytearray(-(-self.tree.width * 2 // _PER_PAGE))
        """Pages of the map that were written to: in a full tmpfs a look into a hole kills, too."""

    def have(self, index: int) -> bool:
        """Whether piece `index` is here; False for numbers outside the bag."""
        return 0 <= index < self.pieces and bool(self._have[index >> 3] >> (index & 7) & 1)

    def mark(self, index: int, *, here: bool) -> None:
        if self.have(index) != here:
            self._have[index >> 3] ^= 1 << (index & 7)

    def bitmap(self) -> bytes:
        """One bit a piece, least significant first."""
        return bytes(self._have)

    @property
    def count(self) -> int:
        return int.from_bytes(self._have, "little").bit_count()

    def here(self) -> Iterator[int]:
        """Numbers of the pieces that are here, ascending."""
        bits = self.bitmap()
        for start in range(0, len(bits), _WINDOW):
            window = int.from_bytes(bits[start : start + _WINDOW], "little")
            while window:
                low = window & -window
                yield 8 * start + low.bit_length() - 1
                window ^= low

    def learn(self, index: int, path: Sequence[bytes]) -> None:
        """Keep what a verified proof says: `path` as `proof_path` returns it. Raises OSError."""
        fd = os.open(self._directory / "tree.bin", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for number, value in self.tree.said(index, path, self._root_hash):
                page = number // _PER_PAGE
                if not self._filled[page] or self.tree.entry(number) != value:
                    write_all(fd, value, 32 * number)
                    self._filled[page] = 1
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Raises OSError."""
        for name in ("tree.bin", "have.bin"):
            with open(self._directory / name, "rb") as stream:
                os.fsync(stream.fileno())

    def close(self) -> None:
        """Let go of the maps."""
        if isinstance(self.tree.heap, memoryview):
            self.tree.heap.release()
        self._heap.close()
        self._have.close()
