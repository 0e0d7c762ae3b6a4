"""Bags of cells: a bounded parser, a writer, and cells with hashes for every level.

Only what bags need (reference protocol 0.2, 1.8): ordinary, pruned branch, library, Merkle proof and Merkle update
cells. All checks of exotic cells are here: a Merkle proof's stored hash and depth must equal its child's.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from ..errors import BadBag

MAGIC: Final = b"\xb5\xee\x9c\x72"
MAX_DEPTH: Final = 1024
MAX_BITS: Final = 1023

ORDINARY: Final = 0
PRUNED: Final = 1
LIBRARY: Final = 2
MERKLE_PROOF: Final = 3
MERKLE_UPDATE: Final = 4


def _crc_table() -> tuple[int, ...]:
    out = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        out.append(value)
    return tuple(out)


_CRC: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) as an int."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Cell:
    """An immutable cell.

    `data` are the serialized bytes (with the completion tag when `bits` is no multiple of 8), `hashes` and `depths`
    hold one entry per significant level. Raises BadBag when an exotic cell is not what it claims.
    """

    __slots__ = ("bits", "data", "depths", "hashes", "kind", "level_mask", "refs")

    def __init__(self, data: bytes, refs: Sequence[Cell] = (), *, bits: int | None = None, special: bool = False):
        self.data: Final = data
        self.bits: Final = 8 * len(data) if bits is None else bits
        self.refs: Final = tuple(refs)
        if self.bits > MAX_BITS or len(self.refs) > 4:
            raise BadBag(f"A cell has {self.bits} bits and {len(self.refs)} references.")
        self.kind: Final = _kind(data, self.bits, self.refs) if special else ORDINARY
        self.level_mask: Final = _level_mask(self.kind, data, self.refs)
        self.hashes, self.depths = self._hash_levels()
        if self.kind == MERKLE_PROOF:
            _check_stored(data, 1, 33, self.refs[0])
        elif self.kind == MERKLE_UPDATE:
            _check_stored(data, 1, 65, self.refs[0])
            _check_stored(data, 33, 67, self.refs[1])

    @property
    def hash(self) -> bytes:
        """Representation hash."""
        return self.hashes[-1]

    @property
    def depth(self) -> int:
        return self.depths[-1]

    def level_hash(self, level: int) -> bytes:
        """Hash as seen at `level`; level 0 looks through pruned branches."""
        return self.hashes[(self.level_mask & ((1 << level) - 1)).bit_count()]

    def level_depth(self, level: int) -> int:
        return self.depths[(self.level_mask & ((1 << level) - 1)).bit_count()]

    def descriptor(self, mask: int) -> bytes:
        special = 8 if self.kind != ORDINARY else 0
        return bytes((len(self.refs) + special + 32 * mask, self.bits // 8 + (self.bits + 7) // 8))

    def _hash_levels(self) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        mask, hashes, depths = self.level_mask, list[bytes](), list[int]()
        if self.kind == PRUNED:
            count = mask.bit_count()
            hashes = [self.data[2 + 32 * i : 34 + 32 * i] for i in range(count)]
            base = 2 + 32 * count
            depths = [int.from_bytes(self.data[base + 2 * i : base + 2 * i + 2], "big") for i in range(count)]
            if max(depths) > MAX_DEPTH:
                raise BadBag("A pruned branch claims to be too deep.")
            hashes.append(sha256(self.descriptor(mask) + self.data).digest())
            return tuple(hashes), (*depths, 0)
        up = 1 if self.kind in (MERKLE_PROOF, MERKLE_UPDATE) else 0
        body = self.data
        for level in range(mask.bit_length() + 1):
            if level and not mask >> (level - 1) & 1:
                continue
            below = [ref.level_depth(level + up) for ref in self.refs]
            depth = 1 + max(below) if below else 0
            if depth > MAX_DEPTH:
                raise BadBag("Cells are nested too deeply.")
            parts = [self.descriptor(mask & ((1 << level) - 1)), body]
            parts += [d.to_bytes(2, "big") for d in below]
            parts += [ref.level_hash(level + up) for ref in self.refs]
            body = sha256(b"".join(parts)).digest()
            hashes.append(body)
            depths.append(depth)
        return tuple(hashes), tuple(depths)


def _kind(data: bytes, bits: int, refs: tuple[Cell, ...]) -> int:
    kind = data[0] if bits >= 8 else 0
    if kind == PRUNED:
        mask = data[1] if bits >= 16 else 0
        good = 1 <= mask <= 7 and bits == 16 + 272 * mask.bit_count() and not refs
    elif kind == LIBRARY:
        good = bits == 264 and not refs
    elif kind == MERKLE_PROOF:
        good = bits == 280 and len(refs) == 1
    elif kind == MERKLE_UPDATE:
        good = bits == 552 and len(refs) == 2
    else:
        good = False
    if not good:
        raise BadBag(f"A special cell of type {kind} has the wrong shape.")
    return kind


def _level_mask(kind: int, data: bytes, refs: tuple[Cell, ...]) -> int:
    if kind == PRUNED:
        return data[1]
    mask = 0
    for ref in refs:
        mask |= ref.level_mask
    return mask >> 1 if kind in (MERKLE_PROOF, MERKLE_UPDATE) else mask


def _check_stored(data: bytes, hash_at: int, depth_at: int, child: Cell) -> None:
    depth = int.from_bytes(data[depth_at : depth_at + 2], "big")
    if data[hash_at : hash_at + 32] != child.level_hash(0) or depth != child.level_depth(0):
        raise BadBag("A Merkle cell's stored hash or depth is not its child's.")


def parse_boc(data: bytes, *, max_cells: int = 4096, max_bytes: int = 1 << 16, max_roots: int = 4) -> tuple[Cell, ...]:
    """The root cells of a bag of cells, any legal encoding. Raises BadBag.

    Costs time and memory proportional to `max_bytes`, whatever the input.
    """
    if len(data) > max_bytes:
        raise BadBag(f"A bag of cells has {len(data)} bytes, over the limit of {max_bytes}.")
    if len(data) < 6 or data[:4] != MAGIC:
        raise BadBag("Not a bag of cells.")
    flags, width, off_width = data[4], data[4] & 7, data[5]
    indexed, with_crc = flags >> 7 & 1, flags >> 6 & 1
    if not 1 <= width <= 4 or not 1 <= off_width <= 8 or flags & 0x18 or (flags >> 5 & 1 and not indexed):
        raise BadBag("A bag of cells has an unknown header.")
    if with_crc:
        if int.from_bytes(data[-4:], "little") != crc32c(data[:-4]):
            raise BadBag("A bag of cells has a wrong checksum.")
        data = data[:-4]
    at = 6

    def number(size: int) -> int:
        nonlocal at
        if at + size > len(data):
            raise BadBag("A bag of cells is cut off.")
        at += size
        return int.from_bytes(data[at - size : at], "big")

    count, root_count, absent, total = number(width), number(width), number(width), number(off_width)
    if not 1 <= count <= max_cells or not 1 <= root_count <= min(count, max_roots) or absent:
        raise BadBag(f"A bag of cells has {count} cells, {root_count} roots, {absent} absent.")
    roots = [number(width) for _ in range(root_count)]
    if max(roots) >= count:
        raise BadBag("A root lies outside the bag of cells.")
    at += count * off_width * indexed
    if at + total != len(data):
        raise BadBag("A bag of cells has another length than it says.")
    return _build(_split(data, at, count, width), roots)


def _split(data: bytes, at: int, count: int, width: int) -> list[tuple[bool, int, bytes, list[int]]]:
    """(special, bits, data, reference numbers) of every cell; the cells fill the rest of `data` exactly."""
    out: list[tuple[bool, int, bytes, list[int]]] = []
    for number in range(count):
        if at + 2 > len(data):
            raise BadBag("A bag of cells is cut off.")
        d1, d2 = data[at], data[at + 1]
        ref_count = d1 & 7
        if ref_count > 4:
            raise BadBag("A cell has more than four references, or is absent.")
        at += 2
        if d1 & 16:  # stored hashes: computed anyway, so skipped; a pruned branch stores only its own
            hash_count = 1 if d1 & 8 and ref_count == 0 else (d1 >> 5).bit_count() + 1
            at += 34 * hash_count
        size = (d2 + 1) // 2
        end = at + size + ref_count * width
        if end > len(data):
            raise BadBag("A bag of cells is cut off.")
        body = data[at : at + size]
        bits = 8 * size
        if d2 & 1:
            tail = body[-1]
            if tail & 0x7F == 0:
                raise BadBag("A cell's last byte has no completion tag.")
            bits -= (tail & -tail).bit_length()
        refs = [int.from_bytes(data[i : i + width], "big") for i in range(at + size, end, width)]
        if refs and (min(refs) <= number or max(refs) >= count):
            raise BadBag("A reference points backwards or outside the bag of cells.")
        out.append((bool(d1 & 8), bits, body, refs))
        at = end
    if at != len(data):
        raise BadBag("A bag of cells has bytes after its last cell.")
    return out


def _build(raw: list[tuple[bool, int, bytes, list[int]]], roots: list[int]) -> tuple[Cell, ...]:
    cells: list[Cell | None] = [None] * len(raw)
    for number in range(len(raw) - 1, -1, -1):
        special, bits, body, refs = raw[number]
        below = []
        for ref in refs:
            child = cells[ref]
            assert child is not None  # references point forward, and we go backwards
            below.append(child)
        cells[number] = Cell(body, below, bits=bits, special=special)
    picked = [cells[root] for root in roots]
    return tuple(cell for cell in picked if cell is not None)


def parse_one(data: bytes, *, max_cells: int = 4096, max_bytes: int = 1 << 16) -> Cell:
    """The only root. Raises BadBag."""
    roots = parse_boc(data, max_cells=max_cells, max_bytes=max_bytes)
    if len(roots) != 1:
        raise BadBag(f"A bag of cells has {len(roots)} roots instead of one.")
    return roots[0]


def to_boc(root: Cell) -> bytes:
    """Bag of cells without index and checksum; equal cells are stored once."""
    order: list[Cell] = []
    state: dict[bytes, int] = {}  # hash -> 1 while its children are visited, 2 when placed
    stack = [root]
    while stack:
        cell = stack[-1]
        step = state.get(cell.hash, 0)
        if step == 0:
            state[cell.hash] = 1
            stack.extend(ref for ref in reversed(cell.refs) if state.get(ref.hash, 0) == 0)
        else:
            stack.pop()
            if step == 1:
                state[cell.hash] = 2
                order.append(cell)
    order.reverse()
    place = {cell.hash: number for number, cell in enumerate(order)}
    width = max(1, (len(order).bit_length() + 7) // 8)
    body = bytearray()
    for cell in order:
        body += cell.descriptor(cell.level_mask) + cell.data
        for ref in cell.refs:
            body += place[ref.hash].to_bytes(width, "big")
    off_width = max(1, (len(body).bit_length() + 7) // 8)
    counts = [len(order), 1, 0]
    head = MAGIC + bytes((width, off_width)) + b"".join(n.to_bytes(width, "big") for n in counts)
    return head + len(body).to_bytes(off_width, "big") + bytes(width) + bytes(body)
