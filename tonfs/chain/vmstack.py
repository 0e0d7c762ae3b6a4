"""Values of get methods: VmStack cells, the part that contracts use (block.tlb of the reference implementation)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import BadData
from .api import StackItem
from .cells import EMPTY, Builder, Cell, Reader

MAX_ITEMS: Final = 1024


def serialize(stack: Sequence[StackItem]) -> Cell:
    """A VmStack whose last item is the top. Cells are passed as slices, which is what methods take."""
    below = EMPTY
    for item in stack:
        builder = Builder().ref(below)
        below = _append(builder, item).cell()
    root = Builder().uint(len(stack), 24)
    return root.append(below).cell()


def _append(builder: Builder, item: StackItem) -> Builder:
    if item is None:
        return builder.uint(0, 8)
    if isinstance(item, Cell):
        return builder.uint(4, 8).ref(item).uint(0, 10).uint(item.bits, 10).uint(0, 3).uint(len(item.refs), 3)
    if -(1 << 63) <= item < 1 << 63:
        return builder.uint(1, 8).sint(item, 64)
    return builder.uint(0x0200 >> 1, 15).sint(item, 257)


def parse(root: Cell) -> list[StackItem]:
    """Items, top last. Tuples come flattened in order (`get_providers` fits that). Raises BadData."""
    reader = Reader(root)
    depth = reader.uint(24)
    if depth > MAX_ITEMS:
        raise BadData(f"A get method returned {depth} values.")
    out: list[list[StackItem]] = []
    budget = [MAX_ITEMS]
    for _ in range(depth):
        below = reader.ref()
        out.append(_item(reader, budget))
        reader = Reader(below)
    return [item for items in reversed(out) for item in items]


def _item(reader: Reader, budget: list[int]) -> list[StackItem]:
    budget[0] -= 1
    if budget[0] < 0:
        raise BadData("A get method returned too much.")
    kind = reader.uint(8)
    if kind == 0:
        return [None]
    if kind == 1:
        return [reader.sint(64)]
    if kind == 2:
        if reader.uint(7):
            raise BadData("A get method returned no number.")
        return [reader.sint(257)]
    if kind == 3:
        return [reader.ref()]
    if kind == 4:
        return [_slice(reader)]
    if kind == 7:
        return _tuple(reader, reader.uint(16), budget)
    raise BadData(f"A get method returned a value of type {kind}.")


def _slice(reader: Reader) -> Cell:
    cell = reader.ref()
    start, end, first, last = reader.uint(10), reader.uint(10), reader.uint(3), reader.uint(3)
    if not start <= end <= cell.bits or not first <= last <= len(cell.refs):
        raise BadData("A get method returned a slice outside its cell.")
    inner = Reader(cell)
    inner.uint(start)
    builder = Builder().uint(inner.uint(end - start), end - start)
    for ref in cell.refs[first:last]:
        builder.ref(ref)
    return builder.cell()


def _tuple(reader: Reader, length: int, budget: list[int]) -> list[StackItem]:
    """vm_tuple_tcons: the head (a tuple of length - 1, folded into references) and the tail, a value."""
    budget[0] -= length
    if budget[0] < 0:
        raise BadData("A get method returned too much.")
    tails: list[Cell] = []
    while length:
        if length == 1:
            tails.append(reader.ref())
            break
        head = reader.ref()
        tails.append(reader.ref())
        if length == 2:
            tails.append(head)
            break
        reader = Reader(head)
        length -= 1
    out: list[StackItem] = []
    for tail in reversed(tails):
        out.extend(_item(Reader(tail), budget))
    return out
