"""Reading and writing cells strictly: every read is checked, every dictionary is bounded.

Built on `bag.boc.Cell`. pytoniq's slices return short values at the end of a cell and walk dictionaries without a
limit (a cell that refers twice to the same child, 256 levels deep, would keep them busy for ever), so bytes that a
stranger chose are never given to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from ..bag.boc import ORDINARY, Cell, parse_boc, to_boc
from ..errors import BadBag, BadData
from ..ids import Address

__all__ = ["EMPTY", "Builder", "Cell", "Reader", "cells_from_boc", "dictionary", "one_cell", "to_boc"]

T = TypeVar("T")

EMPTY: Final = Cell(b"")

MAX_CELLS: Final = 1 << 16
MAX_BYTES: Final = 4 << 20


def cells_from_boc(data: bytes, *, max_roots: int = 4) -> tuple[Cell, ...]:
    """Root cells of a foreign bag of cells. Raises BadData."""
    try:
        return parse_boc(data, max_cells=MAX_CELLS, max_bytes=MAX_BYTES, max_roots=max_roots)
    except BadBag as exc:
        raise BadData(exc.message) from None


def one_cell(data: bytes) -> Cell:
    """The only root of a foreign bag of cells. Raises BadData."""
    roots = cells_from_boc(data)
    if len(roots) != 1:
        raise BadData(f"A bag of cells has {len(roots)} roots instead of one.")
    return roots[0]


class Builder:
    """Collects bits and references; `cell()` makes the cell. Values out of range raise ValueError."""

    def __init__(self) -> None:
        self._value = 0
        self._bits = 0
        self._refs: list[Cell] = []

    def uint(self, value: int, bits: int) -> Builder:
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{value} does not fit {bits} bits")
        self._value = self._value << bits | value
        self._bits += bits
        return self

    def sint(self, value: int, bits: int) -> Builder:
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise ValueError(f"{value} does not fit {bits} signed bits")
        return self.uint(value & (1 << bits) - 1, bits)

    def bit(self, value: bool) -> Builder:
        return self.uint(int(value), 1)

    def raw(self, value: bytes) -> Builder:
        return self.uint(int.from_bytes(value, "big"), 8 * len(value))

    def coins(self, amount: int) -> Builder:
        """VarUInteger 16."""
        size = (amount.bit_length() + 7) // 8
        if size > 15:
            raise ValueError(f"{amount} is no amount of coins")
        return self.uint(size, 4).uint(amount, 8 * size)

    def address(self, address: Address | None) -> Builder:
        """addr_std without anycast, or addr_none."""
        if address is None:
            return self.uint(0, 2)
        workchain, _, digits = address.partition(":")
        return self.uint(0b100, 3).sint(int(workchain), 8).uint(int(digits, 16), 256)

    def ref(self, cell: Cell) -> Builder:
        self._refs.append(cell)
        return self

    def maybe_ref(self, cell: Cell | None) -> Builder:
        self.bit(cell is not None)
        return self if cell is None else self.ref(cell)

    def append(self, cell: Cell) -> Builder:
        """All bits and references of another cell."""
        reader = Reader(cell)
        self.uint(reader.uint(cell.bits), cell.bits)
        self._refs.extend(cell.refs)
        return self

    @property
    def free_bits(self) -> int:
        return 1023 - self._bits

    @property
    def free_refs(self) -> int:
        return 4 - len(self._refs)

    def cell(self) -> Cell:
        if self.free_bits < 0 or self.free_refs < 0:
            raise ValueError(f"{self._bits} bits and {len(self._refs)} references do not fit a cell")
        pad = -self._bits % 8
        value = self._value << pad | (1 << pad - 1 if pad else 0)
        return Cell(value.to_bytes((self._bits + pad) // 8, "big"), self._refs, bits=self._bits)


class Reader:
    """Reads an ordinary cell from front to end; anything missing raises BadData."""

    def __init__(self, cell: Cell) -> None:
        if cell.kind != ORDINARY:
            raise BadData("A pruned or special cell stands where data is needed.")
        self._cell = cell
        self._value = int.from_bytes(cell.data, "big") >> (8 * len(cell.data) - cell.bits)
        self._left = cell.bits
        self._ref = 0

    def uint(self, bits: int) -> int:
        if bits > self._left:
            raise BadData(f"A cell ends {bits - self._left} bits too early.")
        self._left -= bits
        return self._value >> self._left & (1 << bits) - 1

    def sint(self, bits: int) -> int:
        value = self.uint(bits)
        return value - (1 << bits) if bits and value >> bits - 1 else value

    def bit(self) -> bool:
        return bool(self.uint(1))

    def raw(self, count: int) -> bytes:
        return self.uint(8 * count).to_bytes(count, "big")

    def coins(self) -> int:
        return self.uint(8 * self.uint(4))

    def address(self) -> Address | None:
        """MsgAddressInt (addr_std, no anycast) or addr_none."""
        kind = self.uint(2)
        if kind == 0:
            return None
        if kind != 2 or self.bit():
            raise BadData("An address has a form that tonfs does not know.")
        workchain = self.sint(8)
        return Address(f"{workchain}:{self.uint(256):064x}")

    def skip_external_address(self) -> None:
        """MsgAddressExt: addr_none or addr_extern."""
        if self.uint(2) == 0:
            return
        self.uint(self.uint(9))

    def ref(self) -> Cell:
        if self._ref >= len(self._cell.refs):
            raise BadData("A cell has fewer references than its type needs.")
        self._ref += 1
        return self._cell.refs[self._ref - 1]

    def maybe_ref(self) -> Cell | None:
        return self.ref() if self.bit() else None

    def rest(self) -> Cell:
        """What has not been read, as a cell."""
        left = self._left
        builder = Builder().uint(self.uint(left), left)
        while self._ref < len(self._cell.refs):
            builder.ref(self.ref())
        return builder.cell()

    @property
    def left(self) -> int:
        return self._left

    @property
    def left_refs(self) -> int:
        return len(self._cell.refs) - self._ref

    def end(self) -> None:
        """Raise BadData when something is left."""
        if self._left or self._ref < len(self._cell.refs):
            raise BadData("A cell is longer than its type allows.")


# Dictionaries (TL-B HashmapE n X).


def read_label(reader: Reader, longest: int) -> tuple[int, int]:
    """(value, length) of a HmLabel of at most `longest` bits. Raises BadData."""
    if not reader.bit():
        length = 0
        while reader.bit():
            length += 1
        _fits(length, longest)
        return reader.uint(length), length
    same = reader.bit()
    value = reader.uint(1) if same else 0
    length = reader.uint(longest.bit_length())
    _fits(length, longest)
    if same:
        return (1 << length) - 1 if value else 0, length
    return reader.uint(length), length


def _fits(length: int, longest: int) -> None:
    if length > longest:
        raise BadData(f"A dictionary label of {length} bits does not fit a key with {longest} left.")


def dictionary(root: Cell | None, key_bits: int, value: Callable[[Reader], T], *, limit: int = 1024) -> dict[int, T]:
    """All entries in key order. Raises BadData for a malformed one and for more than `limit` entries."""
    out: dict[int, T] = {}
    if root is None:
        return out
    stack: list[tuple[Cell, int, int]] = [(root, 0, key_bits)]
    while stack:
        cell, prefix, left = stack.pop()
        reader = Reader(cell)
        label, length = read_label(reader, left)
        prefix = prefix << length | label
        left -= length
        if left == 0:
            if len(out) >= limit:
                raise BadData(f"A dictionary has more than {limit} entries.")
            out[prefix] = value(reader)
            continue
        if len(stack) + len(out) > limit:
            raise BadData(f"A dictionary has more than {limit} entries.")
        zero, one = reader.ref(), reader.ref()
        stack.append((one, prefix << 1 | 1, left - 1))
        stack.append((zero, prefix << 1, left - 1))
    return out


def build_dictionary(entries: Mapping[int, Cell], key_bits: int) -> Cell | None:
    """Root cell of a dictionary whose values are given as cells to be put inline; None when it is empty."""
    if not entries:
        return None
    keys = sorted(entries)
    if keys[0] < 0 or keys[-1] >> key_bits:
        raise ValueError(f"a key does not fit {key_bits} bits")
    return _edge(keys, entries, key_bits)


def _edge(keys: list[int], entries: Mapping[int, Cell], left: int) -> Cell:
    """The subtree below keys that agree above their last `left` bits."""
    mask = (1 << left) - 1
    # Keys are sorted, so what the first and the last have in common all have.
    length = left - ((keys[0] ^ keys[-1]) & mask).bit_length()
    builder = Builder()
    _write_label(builder, (keys[0] & mask) >> (left - length), length, left)
    left -= length
    if left == 0:
        return builder.append(entries[keys[0]]).cell()
    split = next(i for i, key in enumerate(keys) if key >> (left - 1) & 1)
    builder.ref(_edge(keys[:split], entries, left - 1))
    return builder.ref(_edge(keys[split:], entries, left - 1)).cell()


def _write_label(builder: Builder, value: int, length: int, longest: int) -> None:
    """The shortest of the three forms, chosen as the reference node does."""
    k = longest.bit_length()
    same = value in (0, (1 << length) - 1)
    if same and length > 1 and k < 2 * length - 1:
        builder.uint(0b11, 2).uint(value & 1, 1).uint(length, k)
    elif k < length:
        builder.uint(0b10, 2).uint(length, k).uint(value, length)
    else:
        builder.uint((1 << length + 1) - 2, length + 2).uint(value, length)
