"""The readable chain: states, blocks, transactions, and the proof bytes of every lite server answer.

`ChainView` never changes anything. The ledger, which does, is built on top of it. Which cells are open in which
proof: reference devnet.md 3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from ..errors import BadData, BlockUnknown
from . import chain_api as api
from .blocks import State
from .cells import Builder, Cell
from .chain_api import BASECHAIN, MASTERCHAIN, WHOLE_SHARD, AccountId, BlockId
from .emulator import Emulator, MethodResult
from .genesis import config_dictionary
from .multiboc import one_root, to_boc
from .proofs import (
    account_in_state_proof,
    config_in_state_proof,
    header_proof,
    proof_of,
    shards_in_block_proof,
    shards_in_state_proof,
    state_update_proof,
    transactions_proof,
)
from .store import BlockRow, LedgerStore, TransactionRow
from .tlb import NO_ACCOUNT, AccountData, read_account, read_shard_account

KEPT_STATES: Final = 100
_KEPT_BLOCKS: Final = 256
_EMPTY_STACK: Final = to_boc(Builder().zeros(24).end())
NOT_ACTIVE: Final = -256
"""Exit code of a get method where there is no code to run."""
_MAX_STACK: Final = 1 << 16


@dataclass(frozen=True)
class Pair:
    """A recent pair of blocks with the states after it."""

    row: BlockRow
    states: dict[int, State]
    blocks: dict[int, Cell]

    @cached_property
    def shard_proof(self) -> bytes:
        """From the masterchain block to its shard block."""
        block, state = self.blocks[MASTERCHAIN], self.states[MASTERCHAIN].cell
        return to_boc(state_update_proof(block), shards_in_state_proof(state))

    @cached_property
    def block_proofs(self) -> dict[int, Cell]:
        """Proofs that tie each state to its block."""
        return {workchain: state_update_proof(block) for workchain, block in self.blocks.items()}


class ChainView:
    """Reads. `store` and the recent pairs must not change under a call: one thread."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._config = config_dictionary()
        self._emulator = Emulator(to_boc(self._config))
        self._pairs: dict[int, Pair] = {}
        self._old_blocks: dict[BlockId, Cell] = {}

    # Finding things.

    def _row(self, block: BlockId) -> BlockRow:
        """The pair a block id belongs to; every byte of the id must be right. Raises BlockUnknown."""
        pair = self._pairs.get(block.seqno)
        row = pair.row if pair else self._store.block(block.seqno)
        if row is None or block.workchain not in (MASTERCHAIN, BASECHAIN) or row.id_of(block.workchain) != block:
            raise BlockUnknown(f"block ({block.workchain}, {block.seqno}) is not known")
        return row

    def _pair(self, block: BlockId) -> Pair:
        self._row(block)
        pair = self._pairs.get(block.seqno)
        if pair is None:
            raise BlockUnknown(f"the state of block ({block.workchain}, {block.seqno}) is no longer kept")
        return pair

    def _pair_at(self, seqno: int | None) -> Pair:
        number = next(reversed(self._pairs)) if seqno is None else seqno
        pair = self._pairs.get(number)
        if pair is None:
            raise BlockUnknown(f"the state of block {number} is not kept")
        return pair

    def _cell(self, block: BlockId) -> Cell:
        """The block's root cell, from memory or disk."""
        row = self._row(block)
        pair = self._pairs.get(row.seqno)
        if pair is not None:
            return pair.blocks[block.workchain]
        cell = self._old_blocks.get(block)
        if cell is None:
            cell = one_root(self._boc(block), verify_crc=False)
            if len(self._old_blocks) >= _KEPT_BLOCKS:
                del self._old_blocks[next(iter(self._old_blocks))]
            self._old_blocks[block] = cell
        return cell

    def _boc(self, block: BlockId) -> bytes:
        boc = self._store.block_boc(self._row(block).seqno, block.workchain)
        if boc is None:
            raise BlockUnknown(f"block ({block.workchain}, {block.seqno}) is not known")
        return boc

    def _master(self, block: BlockId) -> BlockId:
        if block.workchain != MASTERCHAIN:
            raise BadData("a masterchain block is needed")
        return block

    def _place(self, pair: Pair, block: BlockId, account: AccountId) -> tuple[BlockId, bytes]:
        """(block that proves the account, proof that leads to it from the asked block)."""
        if account.workchain == block.workchain:
            return block, b""
        if block.workchain == MASTERCHAIN and account.workchain == BASECHAIN:
            return pair.row.shard_id, pair.shard_proof
        raise BadData("this block says nothing about that workchain")

    # Accounts.

    def account_answer(self, block: BlockId, account: AccountId) -> api.AccountAnswer:
        pair = self._pair(block)
        shardblk, shard_proof = self._place(pair, block, account)
        state = pair.states[account.workchain]
        leaf, path = state.accounts.find(int.from_bytes(account.hash, "big"))
        proof = to_boc(pair.block_proofs[account.workchain], account_in_state_proof(state.cell, path))
        found = b"" if leaf is None or leaf.value is None else to_boc(leaf.value.refs[0])
        return api.AccountAnswer(block, shardblk, shard_proof, proof, found)

    def _account(self, pair: Pair, account: AccountId) -> tuple[AccountData, bytes, int]:
        """(account, last transaction hash, last transaction lt) at a block."""
        leaf, _ = pair.states[account.workchain].accounts.find(int.from_bytes(account.hash, "big"))
        if leaf is None or leaf.value is None:
            return NO_ACCOUNT, bytes(32), 0
        cell, last_hash, last_lt = read_shard_account(leaf.value.end())
        return read_account(cell), last_hash, last_lt

    def _run(self, pair: Pair, account: AccountId, method_id: int, stack: bytes) -> MethodResult:
        data, _, _ = self._account(pair, account)
        if data.code is None:
            return MethodResult(NOT_ACTIVE, b"", 0)
        if stack:
            one_root(stack, max_bytes=_MAX_STACK)
        return self._emulator.run_method(
            account.raw,
            to_boc(data.code),
            to_boc(data.data or Builder().end()),
            method_id=method_id,
            stack=stack or _EMPTY_STACK,
            now=pair.row.utime,
            balance=data.balance,
        )

    def run_method_answer(
        self, block: BlockId, account: AccountId, method_id: int, params: bytes
    ) -> api.RunMethodAnswer:
        proved = self.account_answer(block, account)
        result = self._run(self._pairs[block.seqno], account, method_id, params)
        state_proof = b""
        if proved.state:
            leaf, _ = (
                self._pairs[block.seqno].states[account.workchain].accounts.find(int.from_bytes(account.hash, "big"))
            )
            if leaf is not None and leaf.value is not None:
                state_proof = to_boc(proof_of(leaf.value.refs[0], leaf.value.refs[0]))
        return api.RunMethodAnswer(
            block, proved.shardblk, proved.shard_proof, proved.proof, state_proof, result.exit_code, result.stack
        )

    # Transactions.

    def transactions_answer(self, account: AccountId, lt: int, hash_: bytes, count: int) -> api.TransactionsAnswer:
        if lt == 0 or count <= 0:
            return api.TransactionsAnswer((), b"")
        rows = self._store.transactions(account, count, lt)
        if not rows or rows[0].lt != lt or rows[0].hash != hash_:
            raise BadData("no such transaction of this account")
        ids: list[BlockId] = []
        cells: list[Cell] = []
        expected = hash_
        for row in rows:
            if row.hash != expected:
                break  # the account was destroyed and made again: its chain of transactions starts anew
            cell = one_root(row.boc, verify_crc=False)
            ids.append(self._block_of(row))
            cells.append(cell)
            content = cell.parse()
            content.uint(4 + 256 + 64)
            expected = content.raw(32)
        return api.TransactionsAnswer(tuple(ids), to_boc(*cells))

    def _block_of(self, row: TransactionRow) -> BlockId:
        pair = self._pairs.get(row.seqno)
        block = pair.row if pair else self._store.block(row.seqno)
        if block is None:
            raise BlockUnknown(f"block {row.seqno} is not known")
        return block.id_of(row.account.workchain)

    def one_transaction_answer(self, block: BlockId, account: AccountId, lt: int) -> api.TransactionAnswer:
        cell = self._cell(block)
        row = self._store.transaction(account, lt)
        if row is None or row.seqno != block.seqno or account.workchain != block.workchain:
            return api.TransactionAnswer(block, b"", b"")
        rows = self._store.block_transactions(block.seqno, block.workchain)
        proof = transactions_proof(cell, {item.hash for item in rows})
        return api.TransactionAnswer(block, to_boc(proof), row.boc)

    def _listed(
        self, block: BlockId, count: int, after: tuple[bytes, int] | None, reverse: bool
    ) -> tuple[list[TransactionRow], bool, bytes]:
        cell = self._cell(block)
        rows = self._store.block_transactions(block.seqno, block.workchain)
        proof = to_boc(transactions_proof(cell, {row.hash for row in rows}))
        if reverse:
            rows.reverse()
        if after is not None:
            rows = [row for row in rows if row.lt_key != after and (row.lt_key < after) == reverse]
        return rows[: max(count, 0)], len(rows) > max(count, 0), proof

    def block_transactions_answer(
        self, block: BlockId, count: int, after: tuple[bytes, int] | None = None, reverse: bool = False
    ) -> api.BlockTransactionsAnswer:
        rows, more, proof = self._listed(block, count, after, reverse)
        ids = tuple(api.TransactionId(row.account.hash, row.lt, row.hash) for row in rows)
        return api.BlockTransactionsAnswer(block, count, more, ids, proof)

    def block_transactions_ext_answer(
        self, block: BlockId, count: int, after: tuple[bytes, int] | None = None, reverse: bool = False
    ) -> api.BlockTransactionsExtAnswer:
        rows, more, proof = self._listed(block, count, after, reverse)
        cells = [one_root(row.boc, verify_crc=False) for row in rows]
        return api.BlockTransactionsExtAnswer(block, count, more, to_boc(*cells) if cells else b"", proof)

    # Blocks.

    def block_answer(self, block: BlockId) -> api.BlockAnswer:
        return api.BlockAnswer(block, self._boc(block))

    def header_answer(self, block: BlockId) -> api.HeaderAnswer:
        return api.HeaderAnswer(block, to_boc(header_proof(self._cell(block))))

    def lookup_answer(
        self, workchain: int, shard: int, *, seqno: int | None = None, lt: int | None = None, utime: int | None = None
    ) -> api.HeaderAnswer:
        if workchain not in (MASTERCHAIN, BASECHAIN):
            raise BlockUnknown(f"there is no workchain {workchain}")
        if seqno is not None:
            row = self._store.block(seqno)
        elif lt is not None:
            row = self._store.block_at_lt(min(lt, (1 << 63) - 1))
        elif utime is not None:
            row = self._store.block_at_utime(utime)
        else:
            raise BadData("a seqno, a logical time or a time is needed")
        if row is None:
            raise BlockUnknown("block is not known")
        return self.header_answer(row.id_of(workchain))

    def all_shards_answer(self, block: BlockId) -> api.AllShardsAnswer:
        cell = self._cell(self._master(block))
        shards = cell.refs[3].refs[3].refs[0]
        data = Builder().maybe_ref(shards).end()
        return api.AllShardsAnswer(block, to_boc(shards_in_block_proof(cell)), to_boc(data))

    def shard_info_answer(self, block: BlockId, workchain: int, shard: int, exact: bool) -> api.ShardInfoAnswer:
        pair = self._pair(self._master(block))
        if workchain != BASECHAIN or (exact and shard != WHOLE_SHARD):
            raise BlockUnknown("there is no such shard")
        leaf = pair.blocks[MASTERCHAIN].refs[3].refs[3].refs[0].refs[0]
        return api.ShardInfoAnswer(block, pair.row.shard_id, pair.shard_proof, to_boc(leaf))

    def config_answer(self, block: BlockId, params: Sequence[int] | None = None) -> api.ConfigAnswer:
        """All parameters are proved whatever was asked: unasked ones do no harm and the dictionary is small."""
        pair = self._pair(self._master(block))
        state = pair.states[MASTERCHAIN].cell
        return api.ConfigAnswer(block, to_boc(pair.block_proofs[MASTERCHAIN]), to_boc(config_in_state_proof(state)))
