"""Merkle proofs: the same tree with everything cut off that was not asked about (reference devnet.md 3.5).

Cells without references are never cut; a MerkleUpdate keeps its two pruned children as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from .cells import MERKLE_PROOF, PRUNED, Builder, Cell


def pruned(cell: Cell) -> Cell:
    """The pruned branch that stands for a cell of level 0."""
    return Builder().uint(0x0101, 16).raw(cell.hash).uint(cell.depth, 16).end(PRUNED)


def cut(cell: Cell, keep: Callable[[Cell], bool]) -> Cell:
    """Copy a tree: cells for which `keep` holds stay, with their descendants judged in turn; others are pruned."""
    if not cell.refs:
        return cell
    if not keep(cell):
        return pruned(cell)
    refs = [cut(ref, keep) for ref in cell.refs]
    if all(new is old for new, old in zip(refs, cell.refs, strict=True)):
        return cell
    return Cell(cell.data, cell.bits, refs, cell.kind)


def proof_of(root: Cell, body: Cell) -> Cell:
    """MerkleProof cell over `body`, a cut copy of `root`."""
    return Builder().uint(3, 8).raw(root.hash).uint(root.depth, 16).ref(body).end(MERKLE_PROOF)


def merkle_proof(root: Cell, keep: Collection[Cell]) -> Cell:
    """A proof in which exactly the root and these cells are open."""
    open_hashes = {cell.own_hash for cell in keep}
    open_hashes.add(root.own_hash)
    return proof_of(root, cut(root, lambda cell: cell.own_hash in open_hashes))


def header_proof(block: Cell) -> Cell:
    """Block with info open; references 0 info, 1 value flow, 2 state update, 3 extra."""
    info = block.refs[0]
    return merkle_proof(block, (info, *info.refs))


def state_update_proof(block: Cell) -> Cell:
    """Block with info and state update open: ties a state's hash to a block's."""
    info, update = block.refs[0], block.refs[2]
    return merkle_proof(block, (info, *info.refs, update))


def shards_in_block_proof(block: Cell) -> Cell:
    """Masterchain block with extra, custom and shard hashes open."""
    extra = block.refs[3]
    custom = extra.refs[3]
    shards = custom.refs[0]
    return merkle_proof(block, (extra, custom, shards, *shards.refs, *_below(shards.refs)))


def transactions_proof(block: Cell, transactions: Collection[bytes]) -> Cell:
    """Block with info, extra and account blocks open, each transaction (by hash) cut."""
    info, extra = block.refs[0], block.refs[3]
    accounts = extra.refs[2]
    fixed = {block.own_hash, info.own_hash, extra.own_hash, accounts.own_hash}
    fixed.update(ref.own_hash for ref in info.refs)
    inside: set[bytes] = set()
    stack = [accounts]
    while stack:
        cell = stack.pop()
        inside.add(cell.own_hash)
        stack.extend(ref for ref in cell.refs if ref.own_hash not in transactions)
    return proof_of(block, cut(block, lambda cell: cell.own_hash in fixed or cell.own_hash in inside))


def shards_in_state_proof(state: Cell) -> Cell:
    """Masterchain state with shard hashes open and everything else, the config above all, cut."""
    custom = state.refs[3]
    shards = custom.refs[0]
    return merkle_proof(state, (custom, shards, *shards.refs, *_below(shards.refs)))


def config_in_state_proof(state: Cell) -> Cell:
    """Masterchain state with the whole config open."""
    custom = state.refs[3]
    config = custom.refs[1]
    return merkle_proof(state, (custom, config, *_below((config,))))


def account_in_state_proof(state: Cell, path: Collection[Cell]) -> Cell:
    """State with the dictionary cells of `path` open; siblings and the Account cell itself are cut."""
    return merkle_proof(state, (state.refs[1], *path))


def _below(cells: Collection[Cell]) -> list[Cell]:
    out: list[Cell] = []
    stack = list(cells)
    while stack:
        cell = stack.pop()
        out.extend(cell.refs)
        stack.extend(cell.refs)
    return out
