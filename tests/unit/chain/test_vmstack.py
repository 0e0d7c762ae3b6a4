"""Get-method values against pytoniq's."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell as PyCell
from pytoniq_core import begin_cell
from pytoniq_core.tlb.vm_stack import VmStack, VmTuple

from tonfs.chain import vmstack
from tonfs.chain.cells import Builder, Cell, Reader, one_cell, to_boc
from tonfs.errors import BadData


@given(st.lists(st.one_of(st.integers(-(2**255), 2**255), st.none()), max_size=6))
@settings(deadline=None, max_examples=60)
def test_numbers_and_null_pass_both_ways(items: list[int | None]) -> None:
    ours = vmstack.serialize(items)
    assert vmstack.parse(ours) == items
    assert VmStack.deserialize(PyCell.one_from_boc(to_boc(ours)).begin_parse()) == items


def test_cells_are_passed_as_slices() -> None:
    cell = Builder().uint(5, 7).ref(Cell(b"x")).cell()
    stack = vmstack.serialize([cell, 1])
    back = vmstack.parse(stack)
    assert isinstance(back[0], Cell)
    assert back[0].hash == cell.hash
    theirs = VmStack.deserialize(PyCell.one_from_boc(to_boc(stack)).begin_parse())
    assert theirs[0].to_cell().hash == cell.hash


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6, 40])
def test_tuples_of_pytoniq_are_flattened_in_order(count: int) -> None:
    stack = VmStack.serialize([VmTuple(list(range(count))), 7])
    assert vmstack.parse(one_cell(stack.to_boc())) == [*range(count), 7]


def test_slices_and_cells_of_pytoniq_are_read() -> None:
    cell = begin_cell().store_uint(9, 9).end_cell()
    stack = VmStack.serialize([cell, cell.begin_parse()])
    first, second = vmstack.parse(one_cell(stack.to_boc()))
    assert isinstance(first, Cell)
    assert isinstance(second, Cell)
    assert first.hash == second.hash == cell.hash


def test_a_tuple_that_refers_to_itself_many_times_ends_at_the_limit() -> None:
    value = Builder().uint(1, 8).sint(1, 64).cell()
    for _ in range(200):
        value = Builder().uint(7, 8).uint(2, 16).ref(value).ref(value).cell()
    with pytest.raises(BadData):
        vmstack.parse(Builder().uint(1, 24).ref(Cell(b"")).append(value).cell())


@given(st.binary(max_size=60), st.binary(max_size=20))
@settings(deadline=None, max_examples=200)
def test_any_cell_is_a_stack_or_bad_data(data: bytes, child: bytes) -> None:
    with contextlib.suppress(BadData):
        vmstack.parse(Cell(b"\0\0\1" + data, (Cell(child), Cell(child))))
    Reader(Cell(data))
