"""Our strict cells against pytoniq's, and against bytes that a stranger chose."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell as PyCell
from pytoniq_core import HashMap, begin_cell

from tonfs.chain.cells import Builder, Cell, Reader, build_dictionary, cells_from_boc, dictionary, one_cell, to_boc
from tonfs.errors import BadData


def test_builder_and_reader_agree() -> None:
    inner = Builder().uint(5, 3).cell()
    cell = Builder().uint(1, 1).sint(-7, 9).coins(10**9).coins(0).raw(b"abc").ref(inner).maybe_ref(None).cell()
    reader = Reader(cell)
    assert (reader.uint(1), reader.sint(9), reader.coins(), reader.coins(), reader.raw(3)) == (1, -7, 10**9, 0, b"abc")
    assert reader.ref() is inner
    assert reader.maybe_ref() is None
    reader.end()


def test_reading_past_the_end_raises() -> None:
    reader = Reader(Builder().uint(1, 4).cell())
    with pytest.raises(BadData):
        reader.uint(5)
    with pytest.raises(BadData):
        reader.ref()
    with pytest.raises(BadData):
        Reader(Cell(b"")).bit()


def test_values_that_do_not_fit_are_refused_when_building() -> None:
    with pytest.raises(ValueError, match="fit"):
        Builder().uint(4, 2)
    with pytest.raises(ValueError, match="fit"):
        Builder().sint(2, 2)
    with pytest.raises(ValueError, match="coins"):
        Builder().coins(1 << 120)
    with pytest.raises(ValueError, match="cell"):
        Builder().uint(0, 1024).cell()


def test_a_rest_is_a_cell_of_what_was_not_read() -> None:
    cell = Builder().uint(0b1011, 4).ref(Cell(b"a")).ref(Cell(b"b")).cell()
    reader = Reader(cell)
    reader.uint(1)
    reader.ref()
    rest = reader.rest()
    assert (rest.bits, rest.refs[0].data) == (3, b"b")
    assert Reader(rest).uint(3) == 0b011


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30, unique=True), st.sampled_from([64, 100, 256]))
@settings(max_examples=60, deadline=None)
def test_dictionaries_are_encoded_as_pytoniq_does(keys: list[int], bits: int) -> None:
    entries = {key: Builder().uint(number, 32).cell() for number, key in enumerate(keys)}
    ours = build_dictionary(entries, bits)
    theirs = HashMap(bits, value_serializer=lambda src, dest: dest.store_uint(src, 32))
    for number, key in enumerate(keys):
        theirs.set_int_key(key, number)
    cell = theirs.serialize()
    if ours is None:
        assert cell is None
        return
    assert ours.hash == cell.hash
    assert dictionary(ours, bits, lambda reader: reader.uint(32)) == {key: i for i, key in enumerate(keys)}


@pytest.mark.parametrize("keys", [[0], [2**256 - 1], [0, 2**256 - 1], [0, 1], list(range(8)), [2**255]])
def test_labels_of_equal_bits_are_encoded_as_the_node_does(keys: list[int]) -> None:
    theirs = HashMap(256, value_serializer=lambda src, dest: dest.store_uint(src, 8))
    for key in keys:
        theirs.set_int_key(key, 7)
    ours = build_dictionary({key: Builder().uint(7, 8).cell() for key in keys}, 256)
    assert ours is not None
    assert ours.hash == theirs.serialize().hash


def test_a_dictionary_that_refers_twice_to_the_same_child_ends_at_the_limit() -> None:
    cell = Builder().uint(0, 2).uint(1, 8).cell()
    for _ in range(255):
        cell = Builder().uint(0, 2).ref(cell).ref(cell).cell()
    with pytest.raises(BadData, match="more than 1000"):
        dictionary(cell, 255, lambda reader: reader.uint(8), limit=1000)


def test_a_label_longer_than_the_key_is_refused() -> None:
    with pytest.raises(BadData, match="label"):
        dictionary(Builder().uint(0b10, 2).uint(9, 4).uint(0, 9).cell(), 8, lambda reader: None)


def test_pytoniq_reads_what_we_write() -> None:
    cell = Builder().uint(3, 7).ref(Builder().raw(b"xyz").cell()).cell()
    theirs = PyCell.one_from_boc(to_boc(cell))
    assert theirs.hash == cell.hash
    assert one_cell(begin_cell().store_uint(3, 7).store_ref(theirs.refs[0]).end_cell().to_boc()).hash == cell.hash


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_bag_of_cells_or_bad_data(data: bytes) -> None:
    with contextlib.suppress(BadData):
        cells_from_boc(b"\xb5\xee\x9c\x72" + data)
