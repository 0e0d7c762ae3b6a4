"""The devnet's own cells against the client library's, and its parser against junk."""

from __future__ import annotations

import contextlib
import random
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder as LibraryBuilder
from pytoniq_core import Cell as LibraryCell
from pytoniq_core import HashMap

from tests.fakes.devnet_chain import make_bag
from tonfs.devnet.accounts_dict import EMPTY_ACCOUNTS, AugTrie, dictionary, read_dictionary
from tonfs.devnet.cells import Builder, Cell
from tonfs.devnet.multiboc import crc32c, one_root, parse_boc, to_boc
from tonfs.devnet.proofs import merkle_proof
from tonfs.errors import BadData


def random_cells(seed: int, count: int) -> list[Cell]:
    rng = random.Random(seed)
    cells: list[Cell] = []
    for _ in range(count):
        out = Builder()
        bits = rng.choice([0, 1, 7, 8, 9, 255, 1023, rng.randrange(1024)])
        out.uint(rng.getrandbits(bits) if bits else 0, bits)
        for _ in range(rng.randrange(5) if cells else 0):
            out.ref(rng.choice(cells[-6:]))
        cells.append(out.end())
    return cells


@pytest.mark.parametrize("seed", range(10))
def test_hashes_and_bocs_equal_the_librarys(seed: int) -> None:
    root = random_cells(seed, 25)[-1]
    library = LibraryCell.one_from_boc(to_boc(root))
    assert library.hash == root.hash
    assert library.get_depth(0) == root.depth
    assert one_root(library.to_boc()).hash == root.hash
    assert one_root(library.to_boc(hash_crc32=True, has_idx=True)).hash == root.hash


def test_several_roots_keep_their_order_and_share_cells() -> None:
    cells = random_cells(3, 40)
    roots = [cells[5], cells[39], cells[5], cells[20]]
    boc = to_boc(*roots)
    assert [cell.hash for cell in parse_boc(boc)] == [cell.hash for cell in roots]
    assert [cell.hash for cell in LibraryCell.from_boc(boc)] == [cell.hash for cell in roots]
    assert len(boc) < sum(len(to_boc(root)) for root in roots)


def test_exotic_cells_have_the_librarys_hashes() -> None:
    proof = make_bag(64).proof(17)
    mine = one_root(proof.to_boc())
    assert mine.hash == proof.hash
    assert mine.refs[0].hash == proof.refs[0].get_hash(0) == make_bag(64).tree.hash
    assert mine.refs[0].own_hash == proof.refs[0].hash
    assert LibraryCell.one_from_boc(to_boc(mine)).hash == proof.hash


def test_a_proof_keeps_the_roots_hash() -> None:
    cells = random_cells(9, 60)
    root = cells[-1]
    proof = LibraryCell.one_from_boc(to_boc(merkle_proof(root, cells[40:50])))
    assert proof[0].get_hash(0) == root.hash
    assert proof.hash == merkle_proof(root, cells[40:50]).own_hash


def test_a_deep_chain_of_cells_is_bounded() -> None:
    cell = Builder().end()
    for _ in range(1024):
        cell = Builder().ref(cell).end()
    assert one_root(to_boc(cell)).depth == 1024
    with pytest.raises(BadData):
        Builder().ref(cell).end()


def test_the_checksum_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    boc = bytearray(LibraryCell.one_from_boc(to_boc(random_cells(1, 5)[-1])).to_boc(hash_crc32=True))
    boc[-1] ^= 1
    with pytest.raises(BadData):
        one_root(bytes(boc))
    assert one_root(bytes(boc), verify_crc=False)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300), prefix=st.booleans())
def test_junk_is_bad_data_and_nothing_else(data: bytes, prefix: bool) -> None:
    with contextlib.suppress(BadData):
        parse_boc((b"\xb5\xee\x9c\x72" if prefix else b"") + data)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 50), position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_gives_cells_or_bad_data(seed: int, position: int, value: int) -> None:
    boc = bytearray(to_boc(random_cells(seed, 12)[-1]))
    boc[position % len(boc)] = value
    with contextlib.suppress(BadData):
        assert parse_boc(bytes(boc))


def test_limits_on_size_and_cells_hold() -> None:
    boc = to_boc(Builder().ref(Builder().uint(1, 8).end()).ref(Builder().uint(2, 8).end()).end())
    with pytest.raises(BadData):
        parse_boc(boc, max_bytes=len(boc) - 1)
    with pytest.raises(BadData):
        parse_boc(boc, max_cells=2)


keys = st.integers(0, (1 << 256) - 1) | st.integers(0, 20) | st.integers(0, 20).map(lambda n: (1 << 256) - 1 - n)


@settings(max_examples=100, deadline=None)
@given(table=st.dictionaries(keys, st.integers(0, 10**18), max_size=30), gone=st.sets(keys, max_size=10))
def test_the_accounts_dictionary_does_not_depend_on_its_history(table: dict[int, int], gone: set[int]) -> None:
    def build(items: list[tuple[int, int]]) -> AugTrie:
        trie = EMPTY_ACCOUNTS
        for key, value in items:
            trie = trie.put(key, value, Builder().uint(value, 64))
        return trie

    direct = build(list(table.items()))
    detour = build([(key, 1) for key in gone] + sorted(table.items()))
    for key in gone - set(table):
        assert detour.find(key)[0] is not None
        detour = detour.drop(key)
    assert detour.wrapped().end().hash == direct.wrapped().end().hash
    assert direct.extra == sum(table.values())
    for key in gone - set(table):
        assert direct.find(key)[0] is None
        assert direct.drop(key).root is direct.root


@settings(max_examples=60, deadline=None)
@given(table=st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), min_size=1, max_size=40))
def test_plain_dictionaries_equal_the_librarys(table: dict[int, int]) -> None:
    def write(value: int, out: LibraryBuilder) -> LibraryBuilder:
        return out.store_uint(value, 16)

    library = HashMap(32, value_serializer=write)
    for key, value in table.items():
        library.set_int_key(key, value)
    mine = dictionary({key: Builder().uint(value, 16) for key, value in table.items()}, 32)
    assert mine.hash == library.serialize().hash
    assert {key: value.uint(16) for key, value in read_dictionary(mine, 32)} == table


def test_a_builder_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Builder().uint(256, 8)
    with pytest.raises(ValueError, match="does not fit"):
        Builder().uint(-1, 8)
    with pytest.raises(ValueError, match="cannot hold"):
        Builder().zeros(1024).end()


def test_a_slice_that_ends_is_bad_data() -> None:
    content = Builder().uint(5, 3).end().parse()
    with pytest.raises(BadData):
        content.uint(4)
    with pytest.raises(BadData):
        content.ref()
    assert b64encode(to_boc(content.rest().end()))
