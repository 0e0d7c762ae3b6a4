"""The Merkle tree over a bag's pieces: building it, proofs of pieces, and their verification (reference 1.4, 1.8).

The tree is kept as one flat array of 32-byte hashes in heap order (entry 1 is the root, the children of k are 2k and
2k+1, leaves fill the last half). A leaf entry is the piece's own sha256, every other entry the hash of its cell; 32
zero bytes mean "unknown", except for the leaves that fill the tree up to a power of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final

from ..errors import BadBag, BadPiece
from .boc import MERKLE_PROOF, ORDINARY, Cell, parse_one
from .info import TorrentInfo

MAX_PROOF: Final = 1 << 16
_MAX_PROOF_CELLS: Final = 4096
_ZERO: Final = bytes(32)
_LEAF: Final = b"\x00\x40"


def tree_depth(pieces: int) -> int:
    """Depth of the tree over so many pieces."""
    return (pieces - 1).bit_length()


def leaf_hash(piece_hash: bytes) -> bytes:
    """Hash of the leaf cell that holds a piece's sha256."""
    return sha256(_LEAF + piece_hash).digest()


def node_prefix(level: int) -> bytes:
    """What precedes the two child hashes of an inner cell whose children have depth `level`."""
    below = level.to_bytes(2, "big")
    return b"\x02\x00" + below + below


_PREFIX: Final = tuple(node_prefix(level) for level in range(64))
_DEPTH: Final = tuple(level.to_bytes(2, "big") for level in range(64))


class PieceTree:
    """A flat piece tree. `heap` holds 2·width entries of 32 bytes (see the module); it may be a memory map."""

    def __init__(
        self, hashes: Sequence[bytes] | None = None, *, heap: bytearray | memoryview | None = None, pieces: int = 0
    ) -> None:
        if hashes is not None:
            if not hashes:
                raise ValueError("a bag has at least one piece")
            heap, pieces = bytearray(_full_heap(hashes)), len(hashes)
        if heap is None or len(heap) != 64 << tree_depth(pieces):
            raise ValueError("a piece tree needs hashes, or a heap of the right size")
        self.heap: Final = heap
        self.pieces: Final = pieces
        self.depth: Final = tree_depth(pieces)
        self.width: Final = 1 << self.depth

    @property
    def root_hash(self) -> bytes:
        return self.entry(1) if self.depth else leaf_hash(self.entry(1))

    def entry(self, number: int) -> bytes:
        return bytes(self.heap[32 * number : 32 * number + 32])

    def piece_hash(self, index: int) -> bytes:
        """sha256 of the piece; zeros when not known yet."""
        return self.entry(self.width + index)

    def piece_hashes(self) -> list[bytes]:
        return [self.piece_hash(index) for index in range(self.pieces)]

    def knows(self, index: int) -> bool:
        """Whether a proof of this piece can be made."""
        if self.piece_hash(index) == _ZERO:
            return False
        number = self.width + index
        if self.depth and (number ^ 1) < self.width + self.pieces and self.entry(number ^ 1) == _ZERO:
            return False
        number >>= 1
        while number > 1:
            if self.entry(number ^ 1) == _ZERO:
                return False
            number >>= 1
        return True

    def proof(self, index: int) -> bytes:
        """The `proof` field of storage.piece, byte for byte as the Go daemon writes it. Raises BadPiece."""
        if not 0 <= index < self.pieces:
            raise BadPiece(f"There is no piece {index} in a bag of {self.pieces}.")
        if not self.knows(index):
            raise BadPiece(f"The proof of piece {index} is not known yet.")
        return _proof_boc(self, index)

    def said(self, index: int, path: Sequence[bytes], root_hash: bytes) -> Iterator[tuple[int, bytes]]:
        """(entry, hash) that a verified proof says: `path` as `proof_path` returns it."""
        number = self.width + index
        yield number, path[0]
        for sibling in path[1:]:
            yield number ^ 1, sibling
            number >>= 1
        if self.depth:
            yield 1, root_hash


def _full_heap(hashes: Sequence[bytes]) -> bytes:
    width = 1 << tree_depth(len(hashes))
    row = list(hashes) + [_ZERO] * (width - len(hashes))
    rows = [row]
    if width > 1:
        row = [sha256(_LEAF + one).digest() for one in row]
    level = 0
    while len(row) > 1:
        prefix = node_prefix(level)
        pairs = iter(row)
        row = [sha256(prefix + one + two).digest() for one, two in zip(pairs, pairs, strict=True)]
        rows.append(row)
        level += 1
    return _ZERO + b"".join(b"".join(row) for row in reversed(rows))


def _proof_boc(tree: PieceTree, index: int) -> bytes:
    depth = tree.depth
    cells = bytearray(b"\x09\x46\x03" + tree.root_hash + depth.to_bytes(2, "big") + b"\x01")
    if not depth:
        return _wrap(cells + _LEAF + tree.piece_hash(index), 2)
    left, right = tree.entry(tree.width + (index & ~1)), tree.entry(tree.width + (index | 1))
    at = 2  # number of the next level's first cell; the path's cell at `level` stands beside its pruned sibling
    for level in range(depth, 0, -1):
        second = at if level == 1 and left == right else at + 1
        path = bytes((0x22 if level > 1 else 0x02, 0, at, second))
        if level == depth:
            cells += path
        else:
            number = (tree.width + index) >> level
            pruned = b"\x28\x48\x01\x01" + tree.entry(number ^ 1) + level.to_bytes(2, "big")
            cells += pruned + path if number & 1 else path + pruned
        at += 2
    cells += _LEAF + left
    if left == right:
        return _wrap(cells, at - 1)
    return _wrap(cells + _LEAF + right, at)


def _wrap(cells: bytearray, count: int) -> bytes:
    off_width = 1 if len(cells) < 256 else 2
    head = b"\xb5\xee\x9c\x72\x01" + bytes((off_width, count, 1, 0)) + len(cells).to_bytes(off_width, "big") + b"\x00"
    return head + bytes(cells)


def path_root(index: int, path: Sequence[bytes]) -> bytes:
    """Root hash that a path of `proof_path`'s form leads to."""
    here = sha256(_LEAF + path[0]).digest()
    for level, sibling in enumerate(path[1:]):
        other = sibling if level else sha256(_LEAF + sibling).digest()
        pair = other + here if index >> level & 1 else here + other
        here = sha256(_PREFIX[level] + pair).digest()
    return here


def proof_path(info: TorrentInfo, index: int, proof: bytes) -> list[bytes]:
    """Check the proof of one piece; returns [piece hash, neighbour's piece hash, siblings' cell hashes upwards].

    Raises BadPiece. Follows only the path to the piece (equal sub-trees may be left whole, reference 1.8).
    """
    if not 0 <= index < info.pieces:
        raise BadPiece(f"There is no piece {index} in a bag of {info.pieces}.")
    if len(proof) > MAX_PROOF:
        raise BadPiece(f"A proof of {len(proof)} bytes is over the limit of {MAX_PROOF}.")
    depth = tree_depth(info.pieces)
    path = _quick_path(proof, index, depth, info.root_hash)
    if path is None:
        path = _slow_path(proof, index, depth, info.root_hash)
    if path_root(index, path) != info.root_hash:
        raise BadPiece(f"The proof of piece {index} leads to another root.")
    return path


def _quick_path(proof: bytes, index: int, depth: int, root_hash: bytes) -> list[bytes] | None:
    """The path out of a proof in the usual encoding, read in place; None when it is encoded in another way."""
    if proof[:5] != b"\xb5\xee\x9c\x72\x01" or len(proof) < 12:
        return None
    off_width = proof[5]
    count, total_end = proof[6], 9 + off_width
    if off_width > 2 or proof[7:9] != b"\x01\x00" or proof[total_end : total_end + 1] != b"\x00":
        return None
    at = total_end + 1
    size = len(proof)
    if at + int.from_bytes(proof[9:total_end], "big") != size:
        return None
    starts = []
    for _ in range(count):
        if at + 2 > size:
            return None
        starts.append(at)
        at += 2 + (proof[at + 1] + 1 >> 1) + (proof[at] & 7)
    if at != size:
        return None
    head = b"\x09\x46\x03" + root_hash + depth.to_bytes(2, "big")
    top = starts[0]
    if proof[top : top + 37] != head or proof[top + 37] >= count:
        return None
    cell = starts[proof[top + 37]]
    path: list[bytes] = []
    for level in range(depth - 1, -1, -1):
        if proof[cell] & 0x1F != 2 or proof[cell + 1]:
            return None
        one, two = proof[cell + 2], proof[cell + 3]
        if one >= count or two >= count:
            return None
        cell, other = (starts[two], starts[one]) if index >> level & 1 else (starts[one], starts[two])
        if level:
            if proof[other : other + 4] != b"\x28\x48\x01\x01" or proof[other + 36 : other + 38] != _DEPTH[level]:
                return None
            path.append(proof[other + 4 : other + 36])
        else:
            if proof[other : other + 2] != _LEAF:
                return None
            path.append(proof[other + 2 : other + 34])
    if proof[cell : cell + 2] != _LEAF:
        return None
    path.append(proof[cell + 2 : cell + 34])
    path.reverse()
    return path


def _slow_path(proof: bytes, index: int, depth: int, root_hash: bytes) -> list[bytes]:
    """The path out of any legal encoding. Raises BadPiece."""
    bad = BadPiece(f"The proof of piece {index} is malformed.")
    try:
        root = parse_one(proof, max_cells=_MAX_PROOF_CELLS, max_bytes=MAX_PROOF)
    except BadBag as exc:
        raise BadPiece(f"The proof of piece {index} is malformed: {exc.message}") from None
    if root.kind != MERKLE_PROOF:
        raise bad
    cell = root.refs[0]
    if cell.level_hash(0) != root_hash or cell.level_depth(0) != depth:
        raise BadPiece(f"The proof of piece {index} belongs to another tree.")
    path: list[bytes] = []
    for level in range(depth - 1, -1, -1):
        if cell.kind != ORDINARY or cell.bits or len(cell.refs) != 2:
            raise bad
        bit = index >> level & 1
        cell, other = cell.refs[bit], cell.refs[bit ^ 1]
        if other.level_depth(0) != level:
            raise bad
        path.append(other.level_hash(0) if level else _leaf_data(other, bad))
    path.append(_leaf_data(cell, bad))
    path.reverse()
    return path


def _leaf_data(cell: Cell, bad: BadPiece) -> bytes:
    if cell.kind != ORDINARY or cell.bits != 256 or cell.refs:
        raise bad
    return cell.data


def verify_proof(info: TorrentInfo, index: int, proof: bytes) -> bytes:
    """The piece hash that a proof shows. Raises BadPiece."""
    return proof_path(info, index, proof)[0]


def check_piece(info: TorrentInfo, index: int, piece_hash: bytes, data: bytes) -> None:
    """Raise BadPiece unless these bytes are the piece with this hash."""
    if len(data) != info.piece_length(index):
        raise BadPiece(f"Piece {index} has {len(data)} bytes instead of {info.piece_length(index)}.")
    if sha256(data).digest() != piece_hash:
        raise BadPiece(f"The bytes of piece {index} do not match its hash.")


def verify_piece(info: TorrentInfo, index: int, proof: bytes, data: bytes) -> None:
    """Check a piece's bytes against the bag. Raises BadPiece."""
    check_piece(info, index, proof_path(info, index, proof)[0], data)
