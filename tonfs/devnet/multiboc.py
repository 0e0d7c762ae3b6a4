"""Bags of cells with any number of roots, parents before children, each cell once.

Several lite server answers are one BoC with two proofs or many transactions as roots (reference devnet.md 2.2, 3.5;
pitfall 8.6). The parser is for what comes from the emulator, the database and, bounded, from clients.
"""

from __future__ import annotations

from typing import Final

from ..errors import BadData
from .cells import LIBRARY, MERKLE_PROOF, MERKLE_UPDATE, ORDINARY, PRUNED, Cell

MAGIC: Final = b"\xb5\xee\x9c\x72"
_KINDS: Final = frozenset({PRUNED, LIBRARY, MERKLE_PROOF, MERKLE_UPDATE})


def _ordered(roots: tuple[Cell, ...]) -> tuple[list[Cell], dict[bytes, int]]:
    """All distinct cells, every parent before its children, and the place of each by own hash."""
    done: dict[bytes, int] = {}
    post: list[Cell] = []
    for root in reversed(roots):
        stack: list[tuple[Cell, bool]] = [(root, False)]
        while stack:
            cell, children_done = stack.pop()
            key = cell.own_hash
            if key in done:
                continue
            if children_done or not cell.refs:
                done[key] = len(post)
                post.append(cell)
                continue
            stack.append((cell, True))
            stack.extend((ref, False) for ref in reversed(cell.refs) if ref.own_hash not in done)
    count = len(post)
    post.reverse()
    return post, {key: count - 1 - place for key, place in done.items()}


def to_boc(*roots: Cell) -> bytes:
    """Serialize; no index, no checksum."""
    cells, place = _ordered(roots)
    size = (len(cells).bit_length() + 7) // 8
    body = bytearray()
    for cell in cells:
        body.append(len(cell.refs) + 8 * (cell.kind != ORDINARY) + 32 * cell.mask)
        body.append(cell.bits // 8 + (cell.bits + 7) // 8)
        body += cell.data
        for ref in cell.refs:
            body += place[ref.own_hash].to_bytes(size, "big")
    offset = (len(body).bit_length() + 7) // 8
    head = [MAGIC, bytes((size, offset)), len(cells).to_bytes(size, "big"), len(roots).to_bytes(size, "big")]
    head.append(bytes(size))
    head.append(len(body).to_bytes(offset, "big"))
    head.extend(place[root.own_hash].to_bytes(size, "big") for root in roots)
    return b"".join(head) + bytes(body)


def _crc32c_table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82F63B78 if n & 1 else n >> 1
        table.append(n)
    return table


_CRC_TABLE: Final = _crc32c_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise BadData("a bag of cells ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


_Raw = tuple[bytes, int, int, tuple[int, ...]]
"""Data, bits, kind, places of the references."""


def _read_cell(reader: _Reader, size: int) -> _Raw:
    d1, d2 = reader.take(2)
    refs = d1 & 7
    if refs > 4:
        raise BadData("a cell has more than four references")
    if d1 & 16:
        reader.take(34 * ((d1 >> 5).bit_count() + 1))
    data = reader.take((d2 + 1) // 2)
    bits = 4 * d2
    if d2 & 1:
        last = data[-1]
        if not last:
            raise BadData("a cell has no completion tag")
        bits = 8 * len(data) - (last & -last).bit_length()
    kind = ORDINARY
    if d1 & 8:
        if bits < 8 or data[0] not in _KINDS:
            raise BadData("unknown exotic cell")
        kind = data[0]
    return data, bits, kind, tuple(reader.number(size) for _ in range(refs))


def parse_boc(data: bytes, max_bytes: int = 1 << 24, max_cells: int = 1 << 18, verify_crc: bool = True) -> list[Cell]:
    """The roots, in order. Raises BadData for anything malformed or larger than the limits."""
    if len(data) > max_bytes:
        raise BadData("a bag of cells is too large")
    reader = _Reader(data)
    if reader.take(4) != MAGIC:
        raise BadData("not a bag of cells")
    flags, offset = reader.take(2)
    size = flags & 7
    if not 1 <= size <= 4 or not 1 <= offset <= 8 or flags & 0x18:
        raise BadData("a bag of cells has an impossible header")
    count, roots, absent = reader.number(size), reader.number(size), reader.number(size)
    total = reader.number(offset)
    if absent or not 1 <= roots <= count <= max_cells or 2 * count > total:
        raise BadData("a bag of cells has impossible counts")
    places = [reader.number(size) for _ in range(roots)]
    if flags & 0x80:
        reader.take(count * offset)
    end = reader.at + total
    raw = [_read_cell(reader, size) for _ in range(count)]
    if reader.at != end:
        raise BadData("a bag of cells has a wrong size")
    if flags & 0x40 and int.from_bytes(reader.take(4), "little") != (
        crc32c(data[:end]) if verify_crc else int.from_bytes(data[end : end + 4], "little")
    ):
        raise BadData("a bag of cells has a wrong checksum")
    if reader.at != len(data) or any(place >= count for place in places):
        raise BadData("a bag of cells has extra bytes or a wrong root")
    cells: list[Cell | None] = [None] * count
    for i in range(count - 1, -1, -1):
        content, bits, kind, refs = raw[i]
        below = []
        for ref in refs:
            cell = cells[ref] if i < ref < count else None
            if cell is None:
                raise BadData("a bag of cells refers backwards")
            below.append(cell)
        cells[i] = Cell(content, bits, below, kind)
    return [cell for place in places if (cell := cells[place]) is not None]


def one_root(data: bytes, max_bytes: int = 1 << 24, max_cells: int = 1 << 18, verify_crc: bool = True) -> Cell:
    """The only root. Raises BadData when there are more."""
    roots = parse_boc(data, max_bytes, max_cells, verify_crc)
    if len(roots) != 1:
        raise BadData("a bag of cells has more than one root")
    return roots[0]
