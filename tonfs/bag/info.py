"""TorrentInfo: the one cell that names a bag (reference protocol 1.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from ..errors import BadBag
from ..ids import BagId
from .boc import Cell, parse_one, to_boc

MIN_PIECE: Final = 4096
MAX_PIECE: Final = 8 << 20
MAX_PIECES: Final = 32_000_000
MAX_HEADER: Final = 20 << 20
MAX_DESCRIPTION: Final = 1024
SAFE_DESCRIPTION: Final = 166
"""Longest description that every known creator encodes the same way."""

_FIXED_BYTES: Final = 84  # 32 + 64 + 256 + 64 + 256 bits
_FIRST_CHUNK: Final = 41
_MAX_CHUNKS: Final = 16
_MAX_INFO_BYTES: Final = 8192

TextStyle = Literal["go", "cpp"]
_CHUNK: Final[dict[TextStyle, int]] = {"go": 125, "cpp": 126}


def _text_chunks(text: bytes, style: TextStyle) -> list[bytes]:
    size = _CHUNK[style]
    rest = text[_FIRST_CHUNK:]
    return [text[:_FIRST_CHUNK]] + [rest[i : i + size] for i in range(0, len(rest), size)]


def _parse_text(cell: Cell, at: int) -> bytes:
    """The `Text` that starts at byte `at` of a cell and fills the rest. Raises BadBag."""
    bad = BadBag("A bag's description is malformed.")
    if len(cell.data) <= at:
        raise bad
    count = cell.data[at]
    if count > _MAX_CHUNKS:
        raise BadBag(f"A bag's description has {count} chunks, over the limit of {_MAX_CHUNKS}.")
    at += 1
    out = bytearray()
    for number in range(count):
        if len(cell.data) <= at or len(cell.data) != at + 1 + cell.data[at]:
            raise bad
        out += cell.data[at + 1 :]
        if number < count - 1:
            if len(cell.refs) != 1 or cell.refs[0].kind or cell.refs[0].bits % 8:
                raise bad
            cell, at = cell.refs[0], 0
        elif cell.refs:
            raise bad
    if not count and (len(cell.data) != at or cell.refs):
        raise bad
    return bytes(out)


@dataclass(frozen=True)
class TorrentInfo:
    """What a BagID stands for. Sizes in bytes; `file_size` is the whole stream with its header.

    A parsed info keeps the cells it came from: creators encode long descriptions differently, and the BagID belongs
    to the original cells (reference 1.2).
    """

    piece_size: int
    file_size: int
    root_hash: bytes
    header_size: int
    header_hash: bytes
    description: bytes = b""
    text_style: TextStyle = field(default="go", compare=False)
    origin: Cell | None = field(default=None, compare=False, repr=False)

    @property
    def pieces(self) -> int:
        return -(-self.file_size // self.piece_size)

    @property
    def header_pieces(self) -> int:
        """How many pieces from the first on hold bytes of the header."""
        return -(-self.header_size // self.piece_size)

    @property
    def bag_id(self) -> BagId:
        return BagId(self.cell().hash)

    def piece_length(self, index: int) -> int:
        """Bytes of piece `index`; only the last may be shorter. Raises IndexError."""
        if not 0 <= index < self.pieces:
            raise IndexError(f"piece {index} of {self.pieces}")
        return min(self.piece_size, self.file_size - index * self.piece_size)

    def cell(self) -> Cell:
        if self.origin is not None:
            return self.origin
        fixed = b"".join(
            (
                self.piece_size.to_bytes(4, "big"),
                self.file_size.to_bytes(8, "big"),
                self.root_hash,
                self.header_size.to_bytes(8, "big"),
                self.header_hash,
            )
        )
        if not self.description:
            return Cell(fixed + b"\0")
        chunks = _text_chunks(self.description, self.text_style)
        if len(chunks) > _MAX_CHUNKS:
            raise BadBag(f"The description has {len(self.description)} bytes, too many.")
        below: tuple[Cell, ...] = ()
        for chunk in reversed(chunks[1:]):
            below = (Cell(bytes((len(chunk),)) + chunk, below),)
        return Cell(fixed + bytes((len(chunks), len(chunks[0]))) + chunks[0], below)

    def to_boc(self) -> bytes:
        return to_boc(self.cell())

    def check(self) -> None:
        """Raise BadBag unless both known daemons accept these numbers (reference 1.2)."""
        if not MIN_PIECE <= self.piece_size <= MAX_PIECE:
            raise BadBag(f"Piece size {self.piece_size} is outside {MIN_PIECE}..{MAX_PIECE}.")
        if not 0 < self.header_size <= min(self.file_size, MAX_HEADER):
            raise BadBag(f"A header of {self.header_size} bytes in a bag of {self.file_size} is impossible.")
        if self.pieces > MAX_PIECES:
            raise BadBag(f"A bag of {self.pieces} pieces is over the limit of {MAX_PIECES}.")
        if len(self.description) > MAX_DESCRIPTION:
            raise BadBag(f"A description of {len(self.description)} bytes is over the limit of {MAX_DESCRIPTION}.")

    @classmethod
    def parse(cls, boc: bytes, expect: BagId | None = None) -> TorrentInfo:
        """From any encoding of its cells; with `expect`, the hash must be that BagID. Raises BadBag."""
        root = parse_one(boc, max_cells=_MAX_CHUNKS + 1, max_bytes=_MAX_INFO_BYTES)
        if expect is not None and root.hash != expect:
            raise BadBag("A TorrentInfo belongs to another bag.")
        if root.kind or root.bits % 8 or len(root.data) < _FIXED_BYTES:
            raise BadBag("A TorrentInfo cell is malformed.")
        data = root.data
        info = cls(
            piece_size=int.from_bytes(data[:4], "big"),
            file_size=int.from_bytes(data[4:12], "big"),
            root_hash=data[12:44],
            header_size=int.from_bytes(data[44:52], "big"),
            header_hash=data[52:84],
            description=_parse_text(root, _FIXED_BYTES),
            origin=root,
        )
        info.check()
        return info
