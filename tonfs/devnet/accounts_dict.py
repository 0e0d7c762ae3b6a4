"""Dictionaries: the persistent augmented one that holds all accounts, and small plain ones.

`AugTrie` is immutable: a change makes new edges along one path and shares all others, so a hundred states cost
little more than one and only touched paths are hashed again (reference devnet.md 8.7). Format: HashmapAug of
block.tlb with canonical labels; the augmentation is a number of coins that adds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..errors import BadData
from .cells import Builder, Cell, Slice


def label(value: int, length: int, room: int) -> Builder:
    """HmLabel: `length` bits out of at most `room`, in the shortest of the three forms."""
    size = room.bit_length()
    out = Builder()
    same = length > 0 and value in (0, (1 << length) - 1)
    if same and length > 1 and size < 2 * length - 1:
        return out.uint(6 + (value & 1), 3).uint(length, size)
    if size < length:
        return out.uint(2, 2).uint(length, size).uint(value, length)
    return out.uint(0, 1).uint((1 << (length + 1)) - 2, length + 1).uint(value, length)


def read_label(cell: Slice, room: int) -> tuple[int, int]:
    """(value, length). Raises BadData when longer than `room`."""
    if not cell.flag():
        length = 0
        while cell.flag():
            length += 1
        value = cell.uint(length) if length <= room else 0
    elif not cell.flag():
        length = cell.uint(room.bit_length())
        value = cell.uint(length) if length <= room else 0
    else:
        bit = cell.uint(1)
        length = cell.uint(room.bit_length())
        value = ((1 << length) - 1) * bit
    if length > room:
        raise BadData("a dictionary label is too long")
    return value, length


@dataclass(frozen=True, slots=True)
class Edge:
    """A label and below it two edges or a value. `room` = key bits left at this edge, label included."""

    prefix: int
    length: int
    room: int
    extra: int
    value: Builder | None
    zero: Edge | None
    one: Edge | None
    cell: Cell


@dataclass(frozen=True, slots=True)
class AugTrie:
    """`extra_zeros` zero bits stand before the coins of each extra: 5 for DepthBalanceInfo (split depth), else 0."""

    key_bits: int
    extra_zeros: int = 0
    root: Edge | None = None

    def _write_extra(self, out: Builder, extra: int) -> Builder:
        return out.zeros(self.extra_zeros).currencies(extra)

    def _leaf(self, prefix: int, length: int, extra: int, value: Builder) -> Edge:
        cell = self._write_extra(label(prefix, length, length), extra).append(value).end()
        return Edge(prefix, length, length, extra, value, None, None, cell)

    def _fork(self, prefix: int, length: int, room: int, zero: Edge, one: Edge) -> Edge:
        extra = zero.extra + one.extra
        cell = self._write_extra(label(prefix, length, room).ref(zero.cell).ref(one.cell), extra).end()
        return Edge(prefix, length, room, extra, None, zero, one, cell)

    def _relabel(self, edge: Edge, prefix: int, length: int, room: int) -> Edge:
        if edge.value is not None:
            return self._leaf(prefix, length, edge.extra, edge.value)
        assert edge.zero is not None
        assert edge.one is not None
        return self._fork(prefix, length, room, edge.zero, edge.one)

    def _put(self, edge: Edge | None, key: int, room: int, extra: int, value: Builder) -> Edge:
        if edge is None:
            return self._leaf(key, room, extra, value)
        head = key >> (room - edge.length)
        common = edge.length - (head ^ edge.prefix).bit_length()
        if common == edge.length:
            if edge.value is not None:
                return self._leaf(key, room, extra, value)
            assert edge.zero is not None
            assert edge.one is not None
            below = room - common - 1
            tail = key & ((1 << below) - 1)
            if key >> below & 1:
                return self._fork(edge.prefix, common, room, edge.zero, self._put(edge.one, tail, below, extra, value))
            return self._fork(edge.prefix, common, room, self._put(edge.zero, tail, below, extra, value), edge.one)
        below = room - common - 1
        rest = edge.length - common - 1
        old = self._relabel(edge, edge.prefix & ((1 << rest) - 1), rest, below)
        new = self._leaf(key & ((1 << below) - 1), below, extra, value)
        pair = (old, new) if key >> below & 1 else (new, old)
        return self._fork(key >> (room - common), common, room, *pair)

    def _drop(self, edge: Edge | None, key: int, room: int) -> Edge | None:
        if edge is None or key >> (room - edge.length) != edge.prefix:
            return edge
        if edge.value is not None:
            return None
        assert edge.zero is not None
        assert edge.one is not None
        below = room - edge.length - 1
        tail, bit = key & ((1 << below) - 1), key >> below & 1
        zero, one = edge.zero, edge.one
        left, right = (zero, self._drop(one, tail, below)) if bit else (self._drop(zero, tail, below), one)
        if left is zero and right is one:
            return edge
        if left is not None and right is not None:
            return self._fork(edge.prefix, edge.length, room, left, right)
        only, side = (right, 1) if left is None else (left, 0)
        assert only is not None
        prefix = (edge.prefix << 1 | side) << only.length | only.prefix
        return self._relabel(only, prefix, edge.length + 1 + only.length, room)

    def put(self, key: int, extra: int, value: Builder) -> AugTrie:
        """A trie in which `key` has this value and extra."""
        return AugTrie(self.key_bits, self.extra_zeros, self._put(self.root, key, self.key_bits, extra, value))

    def drop(self, key: int) -> AugTrie:
        """A trie without `key`."""
        return AugTrie(self.key_bits, self.extra_zeros, self._drop(self.root, key, self.key_bits))

    @property
    def extra(self) -> int:
        return self.root.extra if self.root is not None else 0

    def find(self, key: int) -> tuple[Edge | None, list[Cell]]:
        """The leaf of `key` (None if absent) and all dictionary cells visited on the way to that knowledge."""
        path: list[Cell] = []
        edge, room = self.root, self.key_bits
        while edge is not None:
            path.append(edge.cell)
            if key >> (room - edge.length) != edge.prefix:
                return None, path
            if edge.value is not None:
                return edge, path
            room -= edge.length + 1
            edge = edge.one if key >> room & 1 else edge.zero
            key &= (1 << room) - 1
        return None, path

    def wrapped(self) -> Builder:
        """HashmapAugE: a bit, the root's reference if there is one, the extra."""
        return self._write_extra(Builder().maybe_ref(self.root.cell if self.root else None), self.extra)

    def inline(self) -> Builder:
        """HashmapAug: the root's content itself. The trie must not be empty."""
        assert self.root is not None
        return self.root.cell.parse().rest()


def dictionary(items: Mapping[int, Builder], key_bits: int) -> Cell:
    """A plain Hashmap with at least one item."""

    def edge(keys: list[int], room: int) -> Cell:
        mask = (1 << room) - 1
        first, last = keys[0] & mask, keys[-1] & mask
        length = room - (first ^ last).bit_length()
        out = label(first >> (room - length), length, room)
        if length == room:
            return out.append(items[keys[0]]).end()
        below = room - length - 1
        split = next(i for i, key in enumerate(keys) if key >> below & 1)
        return out.ref(edge(keys[:split], below)).ref(edge(keys[split:], below)).end()

    return edge(sorted(items), key_bits)


def read_dictionary(root: Cell | None, key_bits: int, limit: int = 1 << 16) -> Iterator[tuple[int, Slice]]:
    """Items of a Hashmap in key order; values as the slices that follow the labels. Raises BadData."""
    stack: list[tuple[Cell, int, int]] = [(root, 0, key_bits)] if root is not None else []
    while stack:
        cell, key, room = stack.pop()
        content = cell.parse()
        prefix, length = read_label(content, room)
        key = key << length | prefix
        room -= length
        if not room:
            limit -= 1
            if limit < 0:
                raise BadData("a dictionary is too large")
            yield key, content
            continue
        zero, one = content.ref(), content.ref()
        stack.append((one, key << 1 | 1, room - 1))
        stack.append((zero, key << 1, room - 1))


EMPTY_ACCOUNTS: Final = AugTrie(256, 5)
EMPTY_CURRENCIES_256: Final = AugTrie(256)
EMPTY_CURRENCIES_64: Final = AugTrie(64)
