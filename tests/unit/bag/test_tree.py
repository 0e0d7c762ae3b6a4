"""The piece tree: proofs verify, and nothing but the right piece of the right bag does."""

from __future__ import annotations

import contextlib
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.bag import PieceTree, TorrentInfo, parse_one, proof_path, to_boc, verify_piece, verify_proof
from tonfs.bag import tree as tree_module
from tonfs.bag.boc import Cell, crc32c
from tonfs.errors import BadPiece

PIECE = 4096


def bag(count: int, *, equal: bool = False) -> tuple[list[bytes], PieceTree, TorrentInfo]:
    pieces = [bytes(PIECE) if equal else bytes([i % 256, i // 256]) * (PIECE // 2) for i in range(count - 1)]
    pieces.append(b"the last one is short")
    tree = PieceTree([sha256(piece).digest() for piece in pieces])
    size = PIECE * (count - 1) + len(pieces[-1])
    return pieces, tree, TorrentInfo(PIECE, size, tree.root_hash, 50, b"h" * 32)


def whole_tree(hashes: list[bytes]) -> Cell:
    """The piece tree as cells, nothing pruned: an independent way to its hash."""
    width = 1
    while width < len(hashes):
        width *= 2
    row = [Cell(one) for one in hashes + [bytes(32)] * (width - len(hashes))]
    while len(row) > 1:
        row = [Cell(b"", row[i : i + 2]) for i in range(0, len(row), 2)]
    return row[0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 64, 65])
@pytest.mark.parametrize("equal", [False, True])
def test_every_proof_of_every_small_bag_verifies_on_both_paths(count: int, equal: bool) -> None:
    pieces, tree, info = bag(count, equal=equal)
    assert tree.root_hash == whole_tree(tree.piece_hashes()).hash
    for index, piece in enumerate(pieces):
        proof = tree.proof(index)
        verify_piece(info, index, proof, piece)
        quick = tree_module._quick_path(proof, index, tree.depth, info.root_hash)
        assert quick == tree_module._slow_path(proof, index, tree.depth, info.root_hash)


def test_a_proof_has_the_size_that_foreign_daemons_write() -> None:
    assert [len(bag(count)[1].proof(0)) for count in (1, 2, 1025, 4097)] == [83, 121, 542, 626]


def test_other_encodings_of_a_proof_are_accepted() -> None:
    pieces, tree, info = bag(9)
    proof = tree.proof(4)
    marked = proof[:4] + bytes((proof[4] | 0x40,)) + proof[5:]
    with_crc = marked + crc32c(marked).to_bytes(4, "little")
    assert verify_proof(info, 4, with_crc) == sha256(pieces[4]).digest()
    reordered = to_boc(parse_one(proof))
    assert verify_proof(info, 4, reordered) == sha256(pieces[4]).digest()


def test_a_proof_that_prunes_nothing_is_accepted() -> None:
    pieces, tree, info = bag(9)
    top = whole_tree(tree.piece_hashes())
    root = Cell(b"\x03" + top.hash + top.depth.to_bytes(2, "big"), [top], special=True)
    assert proof_path(info, 3, to_boc(root)) == proof_path(info, 3, tree.proof(3))
    verify_piece(info, 8, to_boc(root), pieces[8])


def test_equal_subtrees_left_whole_do_not_blow_up() -> None:
    """C++ leaves siblings whole that equal a cell on the path: the tree stays small as cells (reference 1.8)."""
    leaf = Cell(sha256(bytes(PIECE)).digest())
    for _ in range(20):
        leaf = Cell(b"", [leaf, leaf])
    root = Cell(b"\x03" + leaf.hash + leaf.depth.to_bytes(2, "big"), [leaf], special=True)
    info = TorrentInfo(PIECE, PIECE << 20, leaf.hash, 50, b"h" * 32)
    verify_piece(info, 123_456, to_boc(root), bytes(PIECE))


def test_wrong_bytes_lengths_indexes_and_bags_are_refused() -> None:
    pieces, tree, info = bag(9)
    _, _, other = bag(9, equal=True)
    _, _, longer = bag(17)
    proof = tree.proof(4)
    for index, boc, data, whose in (
        (4, proof, pieces[5], info),
        (4, proof, pieces[4][:-1], info),
        (4, proof, pieces[4] + b"x", info),
        (4, proof, b"", info),
        (5, proof, pieces[4], info),
        (3, proof, pieces[4], info),
        (-1, proof, pieces[4], info),
        (9, proof, pieces[4], info),
        (4, b"", pieces[4], info),
        (4, proof, pieces[4], other),
        (4, proof, pieces[4], longer),
        (4, tree.proof(5), pieces[5], info),
        (4, b"\xb5\xee\x9c\x72" + bytes(1 << 17), pieces[4], info),
    ):
        with pytest.raises(BadPiece):
            verify_piece(whose, index, boc, data)


def test_a_path_of_another_depth_is_refused() -> None:
    """A leaf must not be passed off as an inner cell, nor the other way round."""
    _, tree, info = bag(4)
    shallow = TorrentInfo(PIECE, 2 * PIECE - 5, info.root_hash, 50, b"h" * 32)
    deep = TorrentInfo(PIECE, 8 * PIECE - 5, info.root_hash, 50, b"h" * 32)
    for claim in (shallow, deep):
        with pytest.raises(BadPiece):
            verify_proof(claim, 1, tree.proof(1))


def learn(learned: PieceTree, index: int, info: TorrentInfo, tree: PieceTree) -> None:
    for number, value in learned.said(index, proof_path(info, index, tree.proof(index)), info.root_hash):
        assert isinstance(learned.heap, bytearray)
        learned.heap[32 * number : 32 * number + 32] = value


@pytest.mark.parametrize("count", [1, 2, 5, 9, 33])
def test_what_was_learned_from_proofs_makes_the_same_proofs(count: int) -> None:
    _, tree, info = bag(count)
    learned = PieceTree(heap=bytearray(len(tree.heap)), pieces=count)
    order = [i * 7 % count for i in range(count)] if count % 7 else list(range(count))
    for index in order:
        learn(learned, index, info, tree)
        assert learned.knows(index)
        assert learned.proof(index) == tree.proof(index)
    assert learned.piece_hashes() == tree.piece_hashes()


def test_a_piece_whose_path_is_unknown_has_no_proof() -> None:
    _, tree, info = bag(9)
    learned = PieceTree(heap=bytearray(len(tree.heap)), pieces=9)
    learn(learned, 0, info, tree)
    assert learned.piece_hash(1) == tree.piece_hash(1)
    for index in (2, 8, 9, -1):
        with pytest.raises(BadPiece):
            learned.proof(index)


@settings(max_examples=400)
@given(st.data())
def test_a_damaged_proof_never_shows_another_hash(data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([1, 2, 3, 9, 40]))
    pieces, tree, info = bag(count, equal=data.draw(st.booleans()))
    index = data.draw(st.integers(0, count - 1))
    proof = bytearray(tree.proof(index))
    for _ in range(data.draw(st.integers(1, 3))):
        proof[data.draw(st.integers(0, len(proof) - 1))] = data.draw(st.integers(0, 255))
    proof = proof[: data.draw(st.integers(1, len(proof)))]
    with contextlib.suppress(BadPiece):
        assert verify_proof(info, index, bytes(proof)) == sha256(pieces[index]).digest()


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_random_proofs_raise_only_badpiece(noise: bytes) -> None:
    _, _, info = bag(9)
    for proof in (noise, b"\xb5\xee\x9c\x72\x01\x01" + noise, b"\xb5\xee\x9c\x72\x01\x02\x03\x01\x00" + noise):
        with pytest.raises(BadPiece):
            verify_proof(info, 4, proof)
