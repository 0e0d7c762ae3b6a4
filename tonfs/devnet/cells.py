"""Cells made for speed: bits as one Python integer, hashes ready when the cell is.

A block pair every two seconds and a proof for every question must cost about a millisecond; the general cell class
of the client library is too slow for that. Only the devnet uses this module; tests compare it with the library.
Rules: TVM whitepaper 3.1 (representation, levels); reference devnet.md 3.5 (proofs).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from ..errors import BadData

ORDINARY: Final = -1
PRUNED: Final = 1
LIBRARY: Final = 2
MERKLE_PROOF: Final = 3
MERKLE_UPDATE: Final = 4

MAX_DEPTH: Final = 1024
_MASKS: Final = tuple((1 << n) - 1 for n in range(1025))


class Cell:
    """Immutable. `data` holds the bits with the completion tag (a 1 and zeros) when they do not fill bytes.

    `hash` and `depth` are those of level 0: of the cell itself, or of what it stands for once branches are cut.
    """

    __slots__ = ("_depths", "_hashes", "bits", "data", "kind", "mask", "refs")
    mask: int

    def __init__(self, data: bytes, bits: int, refs: Sequence[Cell] = (), kind: int = ORDINARY) -> None:
        self.data = data
        self.bits = bits
        self.refs = tuple(refs)
        self.kind = kind
        mask = 0
        for ref in self.refs:
            mask |= ref.mask
        if kind == ORDINARY and not mask:
            self.mask = 0
            parts = [bytes((len(self.refs), bits // 8 + (bits + 7) // 8)), data]
            depth = 0
            if self.refs:
                for ref in self.refs:
                    below = ref._depths[0]
                    depth = max(depth, below + 1)
                    parts.append(below.to_bytes(2, "big"))
                parts.extend(ref._hashes[0] for ref in self.refs)
            self._hashes: tuple[bytes, ...] = (sha256(b"".join(parts)).digest(),)
            self._depths: tuple[int, ...] = (depth,)
        else:
            self._init_levels(mask)
        if self._depths[-1] > MAX_DEPTH:
            raise BadData("a cell is deeper than 1024")

    def _init_levels(self, mask: int) -> None:
        if self.kind == PRUNED:
            self.mask = self.data[1]
            count = self.mask.bit_count()
            if self.refs or not 1 <= self.mask <= 7 or self.bits != 16 + 272 * count:
                raise BadData("malformed pruned branch")
            own = sha256(bytes((8 + 32 * self.mask, 2 * len(self.data))) + self.data).digest()
            self._hashes = (*(self.data[2 + 32 * i : 34 + 32 * i] for i in range(count)), own)
            start = 2 + 32 * count
            depths = (int.from_bytes(self.data[start + 2 * i : start + 2 * i + 2], "big") for i in range(count))
            self._depths = (*depths, 0)
            return
        wanted = {MERKLE_PROOF: (1, 280), MERKLE_UPDATE: (2, 552)}
        if self.kind in wanted and wanted[self.kind] != (len(self.refs), self.bits):
            raise BadData("malformed Merkle cell")
        if self.kind == LIBRARY and (self.refs or self.bits != 264):
            raise BadData("malformed library cell")
        merkle = self.kind in wanted
        self.mask = mask >> 1 if merkle else mask
        hashes: list[bytes] = []
        depths_: list[int] = []
        for level in range(self.mask.bit_length() + 1):
            if level and not self.mask >> (level - 1) & 1:
                continue
            d1 = len(self.refs) + 8 * (self.kind != ORDINARY) + 32 * (self.mask & _MASKS[level])
            content = hashes[-1] if hashes else self.data
            below = [ref.depth_at(level + merkle) for ref in self.refs]
            depths_.append(max(below, default=-1) + 1)
            hashes.append(
                sha256(
                    bytes((d1, self.bits // 8 + (self.bits + 7) // 8))
                    + content
                    + b"".join(d.to_bytes(2, "big") for d in below)
                    + b"".join(ref.hash_at(level + merkle) for ref in self.refs)
                ).digest()
            )
        self._hashes = tuple(hashes)
        self._depths = tuple(depths_)

    @property
    def hash(self) -> bytes:
        return self._hashes[0]

    @property
    def depth(self) -> int:
        return self._depths[0]

    @property
    def own_hash(self) -> bytes:
        """Representation hash: of this very cell, not of what a cut branch stands for."""
        return self._hashes[-1]

    def hash_at(self, level: int) -> bytes:
        return self._hashes[(self.mask & _MASKS[level]).bit_count()]

    def depth_at(self, level: int) -> int:
        return self._depths[(self.mask & _MASKS[level]).bit_count()]

    def parse(self) -> Slice:
        return Slice(self)


class Builder:
    """Collects at most 1023 bits and 4 references. Every method returns the builder itself."""

    __slots__ = ("bits", "refs", "value")

    def __init__(self) -> None:
        self.value = 0
        self.bits = 0
        self.refs: list[Cell] = []

    def uint(self, value: int, bits: int) -> Builder:
        if value < 0 or value > _MASKS[bits]:
            raise ValueError(f"{value} does not fit into {bits} bits")
        self.value = self.value << bits | value
        self.bits += bits
        return self

    def sint(self, value: int, bits: int) -> Builder:
        return self.uint(value & _MASKS[bits], bits)

    def zeros(self, bits: int) -> Builder:
        self.value <<= bits
        self.bits += bits
        return self

    def raw(self, data: bytes) -> Builder:
        self.value = self.value << 8 * len(data) | int.from_bytes(data, "big")
        self.bits += 8 * len(data)
        return self

    def coins(self, amount: int) -> Builder:
        """VarUInteger 16."""
        size = (amount.bit_length() + 7) // 8
        return self.uint(size, 4).uint(amount, 8 * size)

    def currencies(self, amount: int) -> Builder:
        """CurrencyCollection without other currencies."""
        return self.coins(amount).zeros(1)

    def ref(self, cell: Cell) -> Builder:
        self.refs.append(cell)
        return self

    def maybe_ref(self, cell: Cell | None) -> Builder:
        if cell is None:
            return self.zeros(1)
        self.refs.append(cell)
        return self.uint(1, 1)

    def append(self, other: Builder) -> Builder:
        self.value = self.value << other.bits | other.value
        self.bits += other.bits
        self.refs.extend(other.refs)
        return self

    def end(self, kind: int = ORDINARY) -> Cell:
        if self.bits > 1023 or len(self.refs) > 4:
            raise ValueError(f"a cell cannot hold {self.bits} bits and {len(self.refs)} references")
        value, bits = self.value, self.bits
        if bits & 7:
            pad = 8 - (bits & 7)
            value = (value << 1 | 1) << (pad - 1)
            return Cell(value.to_bytes((bits + pad) // 8, "big"), bits, self.refs, kind)
        return Cell(value.to_bytes(bits // 8, "big"), bits, self.refs, kind)


class Slice:
    """Reads a cell from the front. Every method raises BadData when there is not enough left."""

    __slots__ = ("_left", "_refs", "_value", "cell")

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._left = cell.bits
        pad = 8 * len(cell.data) - cell.bits
        self._value = int.from_bytes(cell.data, "big") >> pad
        self._refs = 0

    @property
    def remaining_bits(self) -> int:
        return self._left

    def peek(self, bits: int) -> int:
        if bits > self._left:
            raise BadData("a cell ends too early")
        return self._value >> (self._left - bits) & _MASKS[bits]

    def uint(self, bits: int) -> int:
        value = self.peek(bits)
        self._left -= bits
        return value

    def sint(self, bits: int) -> int:
        value = self.uint(bits)
        return value - (1 << bits) if value >> (bits - 1) else value

    def flag(self) -> bool:
        return bool(self.uint(1))

    def raw(self, count: int) -> bytes:
        return self.uint(8 * count).to_bytes(count, "big")

    def coins(self) -> int:
        return self.uint(8 * self.uint(4))

    def currencies(self) -> int:
        """The grams of a CurrencyCollection; other currencies are skipped."""
        amount = self.coins()
        self.maybe_ref()
        return amount

    def ref(self) -> Cell:
        if self._refs >= len(self.cell.refs):
            raise BadData("a cell has too few references")
        self._refs += 1
        return self.cell.refs[self._refs - 1]

    def maybe_ref(self) -> Cell | None:
        return self.ref() if self.flag() else None

    def rest(self) -> Builder:
        """All that is left, as a builder."""
        out = Builder()
        out.uint(self._value & _MASKS[self._left], self._left)
        out.refs.extend(self.cell.refs[self._refs :])
        return out
