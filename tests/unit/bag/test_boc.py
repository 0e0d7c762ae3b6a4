"""Bags of cells: what is written is read again, what is wrong is refused, nothing else escapes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.bag.boc import MERKLE_PROOF, Cell, crc32c, parse_boc, parse_one, to_boc
from tonfs.errors import BadBag


def _leaf(text: bytes) -> Cell:
    return Cell(text)


def _pruned(cell: Cell) -> Cell:
    return Cell(b"\x01\x01" + cell.hash + cell.depth.to_bytes(2, "big"), special=True)


def _proof(cell: Cell) -> Cell:
    body = b"\x03" + cell.level_hash(0) + cell.level_depth(0).to_bytes(2, "big")
    return Cell(body, [cell], special=True)


@st.composite
def trees(draw: st.DrawFn) -> Cell:
    cells = [Cell(draw(st.binary(max_size=40)))]
    for _ in range(draw(st.integers(0, 12))):
        refs = [cells[draw(st.integers(0, len(cells) - 1))] for _ in range(draw(st.integers(0, 4)))]
        cells.append(Cell(draw(st.binary(max_size=40)), refs))
    return cells[-1]


@given(trees())
def test_a_written_tree_is_read_back_with_the_same_hash(root: Cell) -> None:
    again = parse_one(to_boc(root))
    assert (again.hash, again.depth) == (root.hash, root.depth)


def test_the_checksum_is_the_castagnoli_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_checksum_is_accepted_when_right_and_refused_when_wrong() -> None:
    plain = to_boc(_leaf(b"x"))
    marked = plain[:4] + bytes((plain[4] | 0x40,)) + plain[5:]
    good = marked + crc32c(marked).to_bytes(4, "little")
    assert parse_one(good).data == b"x"
    with pytest.raises(BadBag, match="checksum"):
        parse_one(good[:-1] + bytes((good[-1] ^ 1,)))


def test_an_index_is_skipped() -> None:
    plain = to_boc(_leaf(b"x"))
    indexed = plain[:4] + bytes((plain[4] | 0x80,)) + plain[5:11] + plain[9:10] + plain[11:]
    assert parse_one(indexed).data == b"x"


def test_bits_that_do_not_fill_a_byte_keep_their_tag() -> None:
    cell = Cell(b"\xb0", bits=3)  # 101 and the completion tag
    again = parse_one(to_boc(cell))
    assert again.bits == 3
    assert again.hash == cell.hash


def test_a_pruned_branch_hides_a_cell_without_changing_the_hash_below_level_one() -> None:
    left, right = _leaf(b"left"), Cell(b"right", [_leaf(b"deep")])
    whole, cut = Cell(b"", [left, right]), Cell(b"", [left, _pruned(right)])
    assert cut.level_hash(0) == whole.hash
    assert cut.level_depth(0) == whole.depth
    assert cut.level_mask == 1
    assert parse_one(to_boc(_proof(cut))).kind == MERKLE_PROOF


def test_a_merkle_proof_with_a_foreign_hash_or_depth_is_refused() -> None:
    cell = _leaf(b"x")
    for body in (b"\x03" + bytes(34), b"\x03" + cell.hash + b"\x00\x01"):
        with pytest.raises(BadBag, match="stored hash"):
            Cell(body, [cell], special=True)


def test_a_merkle_update_checks_both_sides() -> None:
    one, two = _leaf(b"1"), Cell(b"2", [_leaf(b"3")])
    depths = one.depth.to_bytes(2, "big") + two.depth.to_bytes(2, "big")
    assert Cell(b"\x04" + one.hash + two.hash + depths, [one, two], special=True).level_mask == 0
    with pytest.raises(BadBag, match="stored hash"):
        Cell(b"\x04" + one.hash + one.hash + depths, [one, two], special=True)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x00" + bytes(34), b"\x07" + bytes(34), b"\x02" + bytes(31)])
def test_special_cells_of_unknown_shape_are_refused(data: bytes) -> None:
    with pytest.raises(BadBag, match="special"):
        Cell(data, special=True)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("reference backwards", "b5ee9c7201010201000600010001000000"),
        ("no roots", "b5ee9c720101010000020000"),
        ("trailing", "b5ee9c72010101010002000000ff"),
        ("cut", "b5ee9c7201010101000200"),
        ("absent cell", "b5ee9c72010101010002000700"),
        ("self reference", "b5ee9c7201010101000300010000"),
        ("no completion tag", "b5ee9c7201010101000300000180"),
    ],
)
def test_malformed_bags_of_cells_are_refused(what: str, data: str) -> None:
    with pytest.raises(BadBag):
        parse_boc(bytes.fromhex(data))


def test_limits_hold() -> None:
    cell = _leaf(b"")
    for number in range(20):
        cell = Cell(bytes((number,)), [cell])
    boc = to_boc(cell)
    with pytest.raises(BadBag, match="cells"):
        parse_boc(boc, max_cells=20)
    with pytest.raises(BadBag, match="limit"):
        parse_boc(boc, max_bytes=len(boc) - 1)


def test_nesting_deeper_than_the_tvm_allows_is_refused() -> None:
    cell = _leaf(b"")
    for _ in range(1024):
        cell = Cell(b"", [cell])
    with pytest.raises(BadBag, match="deep"):
        Cell(b"", [cell])


@settings(max_examples=300)
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_raise_only_badbag(data: bytes, with_magic: bool) -> None:
    with contextlib.suppress(BadBag):
        parse_boc(b"\xb5\xee\x9c\x72\x01\x01" + data if with_magic else data)


@settings(max_examples=300)
@given(trees(), st.integers(0, 10_000), st.integers(0, 255))
def test_one_changed_byte_raises_only_badbag(root: Cell, where: int, value: int) -> None:
    boc = bytearray(to_boc(root))
    boc[where % len(boc)] = value
    with contextlib.suppress(BadBag):
        parse_boc(bytes(boc))
