"""Block and state cells, field by field as reference devnet.md 3.2-3.4 says.

Masterchain block n lists basechain block n; there is one basechain shard and no validator. Seqno 0 is the zero state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final

from .accounts_dict import EMPTY_CURRENCIES_64, EMPTY_CURRENCIES_256, AugTrie, dictionary
from .cells import MERKLE_UPDATE, Builder, Cell
from .chain_api import BASECHAIN, MASTERCHAIN, WHOLE_SHARD, BlockId
from .genesis import CAPABILITIES, CONFIG_ADDRESS, GLOBAL_ID, SOFTWARE_VERSION
from .multiboc import to_boc
from .proofs import pruned
from .tlb import TransactionData

_SHARD_PREFIX: Final = 1 << 63
_NO_FLOW: Final = Builder().zeros(20).end()
_VALUE_FLOW: Final = Builder().uint(0xB8E48DFB, 32).ref(_NO_FLOW).zeros(5).ref(_NO_FLOW).end()
_IN_MESSAGES: Final = Builder().zeros(10).end()
_OUT_MESSAGES: Final = Builder().zeros(6).end()
_NO_QUEUE: Final = Builder().zeros(67).end()
_STATE_INFO: Final = Builder().zeros(16 + 65 + 66 + 2).end()
_THREE_ZEROS: Final = Builder().zeros(3).end()


@dataclass(frozen=True, slots=True)
class BlockRef:
    """ExtBlkRef: how a block points to another."""

    id: BlockId
    end_lt: int

    def write(self, out: Builder) -> Builder:
        out.uint(self.end_lt, 64).uint(self.id.seqno, 32)
        return out.raw(self.id.root_hash).raw(self.id.file_hash)


@dataclass(frozen=True, slots=True)
class Header:
    """What both blocks of a pair and their states share."""

    seqno: int
    utime: int
    start_lt: int
    end_lt: int


def _shard_ident(out: Builder, workchain: int) -> Builder:
    return out.zeros(8).sint(workchain, 32).zeros(64)


def shard_hashes(header: Header, shard: BlockId) -> Cell:
    """Dictionary of workchains with one BinTree leaf: the descriptor of our one shard."""
    descr = Builder().uint(0, 1).uint(0xA, 4).uint(shard.seqno, 32).uint(header.seqno, 32)
    descr.uint(header.start_lt, 64).uint(header.end_lt, 64).raw(shard.root_hash).raw(shard.file_hash)
    descr.zeros(5 + 3 + 32).uint(_SHARD_PREFIX, 64).zeros(32).uint(header.utime, 32).zeros(1)
    descr.ref(Builder().currencies(0).currencies(0).end())
    return dictionary({BASECHAIN: Builder().ref(descr.end())}, 32)


@dataclass(frozen=True)
class State:
    """One chain's state after a block. Cells are built when first asked for."""

    workchain: int
    header: Header
    accounts: AugTrie
    shards: Cell | None = None
    """Shard hashes and config: masterchain only."""
    config: Cell | None = None
    global_balance: int = 0

    @cached_property
    def cell(self) -> Cell:
        header = self.header
        out = _shard_ident(Builder().uint(0x9023AFE2, 32).sint(GLOBAL_ID, 32), self.workchain)
        out.uint(header.seqno, 32).zeros(32).uint(header.utime, 32).uint(header.end_lt, 64).zeros(32)
        out.ref(_NO_QUEUE).zeros(1).ref(self.accounts.wrapped().end())
        out.ref(Builder().zeros(128).currencies(self.accounts.extra).currencies(0).zeros(2).end())
        if self.shards is None or self.config is None:
            return out.zeros(1).end()
        custom = Builder().uint(0xCC26, 16).maybe_ref(self.shards).raw(CONFIG_ADDRESS).ref(self.config)
        custom.ref(_STATE_INFO).currencies(self.global_balance)
        return out.uint(1, 1).ref(custom.end()).end()

    def update_from(self, old: Cell) -> Cell:
        """MerkleUpdate with both sides cut off."""
        new = self.cell
        out = Builder().uint(4, 8).raw(old.hash).raw(new.hash).uint(old.depth, 16).uint(new.depth, 16)
        return out.ref(pruned(old)).ref(pruned(new)).end(MERKLE_UPDATE)


def _account_blocks(transactions: Sequence[TransactionData], ends: dict[bytes, tuple[bytes, bytes]]) -> Cell:
    by_account: dict[bytes, AugTrie] = {}
    for transaction in transactions:
        trie = by_account.get(transaction.account, EMPTY_CURRENCIES_64)
        value = Builder().ref(transaction.cell)
        by_account[transaction.account] = trie.put(transaction.lt, transaction.total_fees, value)
    blocks = EMPTY_CURRENCIES_256
    for account, trie in by_account.items():
        old, new = ends[account]
        update = Builder().uint(0x72, 8).raw(old).raw(new).end()
        value = Builder().uint(5, 4).raw(account).append(trie.inline()).ref(update)
        blocks = blocks.put(int.from_bytes(account, "big"), trie.extra, value)
    return blocks.wrapped().end()


def _info(workchain: int, header: Header, previous: BlockRef, master: BlockRef | None) -> Cell:
    out = Builder().uint(0x9BC7A987, 32).zeros(32).uint(master is not None, 1).zeros(7).uint(1, 8)
    _shard_ident(out.uint(header.seqno, 32).zeros(32), workchain)
    out.uint(header.utime, 32).uint(header.start_lt, 64).uint(header.end_lt, 64).zeros(128)
    out.uint(0xC4, 8).uint(SOFTWARE_VERSION, 32).uint(CAPABILITIES, 64)
    if master is not None:
        out.ref(master.write(Builder()).end())
    return out.ref(previous.write(Builder()).end()).end()


@dataclass(frozen=True, slots=True)
class Content:
    """What a chain's block holds besides its header: transactions in order, Account hashes (before, after)."""

    transactions: tuple[TransactionData, ...] = ()
    ends: dict[bytes, tuple[bytes, bytes]] | None = None


def block_cell(
    state: State, old_state: Cell, content: Content, previous: BlockRef, master: BlockRef | None, seed: bytes
) -> Cell:
    """A Block. `master` = the masterchain block a shard block refers to; None makes a masterchain block."""
    extra = Builder().uint(0x4A33F6FD, 32).ref(_IN_MESSAGES).ref(_OUT_MESSAGES)
    extra.ref(_account_blocks(content.transactions, content.ends or {})).raw(seed).zeros(256)
    if state.shards is not None:
        custom = Builder().uint(0xCCA5, 16).zeros(1).maybe_ref(state.shards).zeros(11).ref(_THREE_ZEROS)
        extra.uint(1, 1).ref(custom.end())
    else:
        extra.zeros(1)
    out = Builder().uint(0x11EF55AA, 32).sint(GLOBAL_ID, 32)
    out.ref(_info(state.workchain, state.header, previous, master)).ref(_VALUE_FLOW)
    return out.ref(state.update_from(old_state)).ref(extra.end()).end()


def identify(workchain: int, seqno: int, root: Cell) -> tuple[BlockId, bytes]:
    """The id of a block (or zero state) and the bytes its file hash is of."""
    boc = to_boc(root)
    return BlockId(workchain, WHOLE_SHARD, seqno, root.hash, sha256(boc).digest()), boc


__all__ = [
    "BASECHAIN",
    "MASTERCHAIN",
    "BlockRef",
    "Content",
    "Header",
    "State",
    "block_cell",
    "identify",
    "shard_hashes",
]
