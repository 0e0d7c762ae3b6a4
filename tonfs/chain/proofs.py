"""What a lite server's answers must prove (devnet.md section 3.5, 3.6): pure, strict, and bounded for any bytes.

Trust starts at the hash of a masterchain block. From there: block -> its new state -> shard block -> its new state ->
the account, or the gap where the account would be; and from an account's last transaction back along the hashes.
pytoniq's checks accept an empty state as "no account" without any proof; these do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..bag.boc import MERKLE_PROOF, MERKLE_UPDATE, Cell
from ..errors import BadData, BadProof
from ..ids import Address
from . import address as addresses
from .api import AccountState, Transaction
from .cells import Builder, Reader, cells_from_boc, read_label
from .lite_tl import AccountAnswer, BlockRef
from .messages import absent_account, parse_account, parse_transaction

_NO_ACCOUNT: Final = Builder().bit(False).cell().hash


@dataclass(frozen=True)
class Header:
    """What the info part of a block says."""

    workchain: int
    seqno: int
    gen_utime: int
    start_lt: int
    end_lt: int


def _proved(cell: Cell, root_hash: bytes, what: str) -> Cell:
    """The tree inside a Merkle proof, which must be the tree with this hash. (A proof cell that lies about its own
    child does not even parse.)"""
    if cell.kind != MERKLE_PROOF or cell.refs[0].level_hash(0) != root_hash:
        raise BadProof(f"The proof of {what} is for another hash.")
    return cell.refs[0]


def _block_parts(block: Cell) -> tuple[Header, bytes | None]:
    """Header and, where it is not cut off, hash of the new state."""
    reader = Reader(block)
    if reader.uint(32) != 0x11EF55AA or len(block.refs) != 4:
        raise BadProof("A block is not a block.")
    info = Reader(block.refs[0])
    if info.uint(32) != 0x9BC7A987:
        raise BadProof("A block has no info.")
    info.uint(32 + 8 + 8)
    seqno = info.uint(32)
    info.uint(32)
    if info.uint(2):
        raise BadProof("A block has no shard.")
    info.uint(6)
    workchain = info.sint(32)
    info.uint(64)
    header = Header(workchain, seqno, info.uint(32), info.uint(64), info.uint(64))
    update = block.refs[2]
    return header, update.refs[1].level_hash(0) if update.kind == MERKLE_UPDATE else None


def block_header(boc: bytes, block: BlockRef) -> Header:
    """Check a header proof against the block's id. Raises BadProof."""
    try:
        roots = cells_from_boc(boc)
        if len(roots) != 1:
            raise BadProof("A header proof has more than one root.")
        header, _ = _block_parts(_proved(roots[0], block.root_hash, f"block {block.seqno}"))
    except BadData as exc:
        raise _as_proof(exc) from None
    if (header.workchain, header.seqno) != (block.workchain, block.seqno):
        raise BadProof(f"The block called {block.seqno} is another one.")
    return header


def _block_and_state(boc: bytes, block: BlockRef) -> tuple[Header, Cell]:
    """The two-root proof: the block with this id, and the state it leads to."""
    roots = cells_from_boc(boc)
    if len(roots) != 2:
        raise BadProof(f"A state proof has {len(roots)} roots instead of two.")
    header, state_hash = _block_parts(_proved(roots[0], block.root_hash, f"block {block.seqno}"))
    if state_hash is None:
        raise BadProof("A state proof does not show the block's state.")
    if (header.workchain, header.seqno) != (block.workchain, block.seqno):
        raise BadProof(f"The block called {block.seqno} is another one.")
    return header, _proved(roots[1], state_hash, "a state")


@dataclass(frozen=True)
class _State:
    gen_utime: int
    accounts: Cell
    extra: Cell | None


def _shard_state(cell: Cell) -> _State:
    reader = Reader(cell)
    if reader.uint(32) != 0x9023AFE2:
        raise BadProof("A state is not that of an unsplit shard.")
    reader.uint(32 + 104 + 32 + 32)
    gen_utime = reader.uint(32)
    reader.uint(64 + 32)
    reader.ref()
    reader.bit()
    accounts = reader.ref()
    reader.ref()
    return _State(gen_utime, accounts, reader.maybe_ref())


def _find_shard(extra: Cell | None, workchain: int, account: bytes) -> Cell:
    """The ShardDescr leaf that covers the account, found by walking only towards it."""
    if extra is None:
        raise BadProof("A masterchain state has no list of shards.")
    reader = Reader(extra)
    if reader.uint(16) != 0xCC26:
        raise BadProof("A masterchain state has no list of shards.")
    root = reader.maybe_ref()
    found = None if root is None else _lookup(root, workchain & 0xFFFFFFFF, 32)
    if found is None:
        raise BadProof(f"The masterchain knows no workchain {workchain}.")
    cell, bits = found.ref(), int.from_bytes(account, "big")
    for depth in range(61):
        node = Reader(cell)
        if not node.bit():
            return node.rest()
        left, right = node.ref(), node.ref()
        cell = right if bits >> (255 - depth) & 1 else left
    raise BadProof("A tree of shards is deeper than 60.")


def _lookup(root: Cell, key: int, key_bits: int) -> Reader | None:
    """The reader behind a key's label, or None when the way to it ends: the key is proved to be absent."""
    cell, left = root, key_bits
    while True:
        reader = Reader(cell)
        label, length = read_label(reader, left)
        left -= length
        if key >> left & (1 << length) - 1 != label:
            return None
        if left == 0:
            return reader
        zero, one = reader.ref(), reader.ref()
        left -= 1
        cell = one if key >> left & 1 else zero


def _check_shard(answer: AccountAnswer, master: BlockRef, workchain: int, account: bytes) -> Header:
    """The masterchain's header, after checking that its state lists the shard block for this account."""
    header, state = _block_and_state(answer.shard_proof, master)
    descr = _find_shard(_shard_state(state).extra, workchain, account)
    reader = Reader(descr)
    if reader.uint(4) not in (0xA, 0xB):
        raise BadProof("A shard description is malformed.")
    seqno = reader.uint(32)
    reader.uint(32 + 64 + 64)
    shard = answer.shard_block
    if (seqno, reader.raw(32), reader.raw(32)) != (shard.seqno, shard.root_hash, shard.file_hash):
        raise BadProof(f"The shard block {shard.seqno} is not the one that the masterchain lists.")
    if shard.workchain != workchain:
        raise BadProof("The shard block is of another workchain than the account.")
    return header


def account(answer: AccountAnswer, master: BlockRef, address: Address) -> tuple[AccountState, Header]:
    """Check getAccountState against a trusted masterchain block: the account's state, and that block's header.

    Raises BadProof for anything that is not proved, an account said to be absent included.
    """
    try:
        return _account(answer, master, address)
    except BadData as exc:
        raise _as_proof(exc) from None


def _account(answer: AccountAnswer, master: BlockRef, address: Address) -> tuple[AccountState, Header]:
    workchain, account_id = addresses.split(address)
    if workchain == master.workchain:
        if answer.shard_block != master:
            raise BadProof("A masterchain account is proved in another block.")
        header, state_cell = _block_and_state(answer.proof, master)
    else:
        header = _check_shard(answer, master, workchain, account_id)
        _, state_cell = _block_and_state(answer.proof, answer.shard_block)
    state = _shard_state(state_cell)
    accounts = Reader(state.accounts)
    root = accounts.maybe_ref()
    found = None if root is None else _lookup(root, int.from_bytes(account_id, "big"), 256)
    if found is None:
        if answer.state:
            raise BadProof("A lite server shows a state of an account that is proved not to exist.")
        return absent_account(address, 0, b"", master.seqno, state.gen_utime), header
    found.uint(5)
    found.coins()
    found.maybe_ref()
    account_cell, last_hash, last_lt = found.ref(), found.raw(32), found.uint(64)
    if account_cell.level_hash(0) == _NO_ACCOUNT and not answer.state:
        return absent_account(address, last_lt, last_hash, master.seqno, state.gen_utime), header
    shown = cells_from_boc(answer.state) if answer.state else ()
    if len(shown) != 1 or shown[0].level_mask or shown[0].hash != account_cell.level_hash(0):
        raise BadProof("A lite server shows another account state than the one it proves.")
    return parse_account(shown[0], address, last_lt, last_hash, master.seqno, state.gen_utime), header


def transactions(boc: bytes, address: Address, lt: int, hash_: bytes, most: int) -> list[Transaction]:
    """Transactions of one account, newest first, the first being the one with this lt and hash, each naming the next.

    Raises BadProof when a link is missing or does not match.
    """
    if not boc:
        raise BadProof("A lite server sends no transaction although there is one.")
    workchain, _ = addresses.split(address)
    out = []
    try:
        for cell in cells_from_boc(boc, max_roots=most):
            if cell.hash != hash_:
                raise BadProof("A lite server's transactions do not follow each other.")
            transaction = parse_transaction(cell, workchain)
            if transaction.account != address or transaction.lt != lt:
                raise BadProof("A lite server sends a transaction of another account.")
            out.append(transaction)
            lt, hash_ = transaction.prev_lt, transaction.prev_hash
    except BadData as exc:
        raise _as_proof(exc) from None
    return out


def _as_proof(exc: BadData) -> BadProof:
    return exc if isinstance(exc, BadProof) else BadProof(f"A lite server's proof is malformed: {exc.message}")
