"""All accounts and the messages between them: the part of the ledger that executes.

A `World` is what the next block starts from. `run` takes messages from the queue in order (breadth first: what a
transaction sends goes to the end), one transaction at a time, until nothing waits or the block is full.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from ..log import get_logger
from .accounts_dict import EMPTY_ACCOUNTS, AugTrie
from .cells import Builder
from .chain_api import BASECHAIN, MASTERCHAIN, AccountId
from .emulator import Emulator, Executed, NotExecuted
from .multiboc import one_root, to_boc
from .tlb import (
    INTERNAL,
    NO_SHARD_ACCOUNT,
    MessageInfo,
    TransactionData,
    read_account,
    read_message,
    read_shard_account,
    read_transaction,
)

log = get_logger(__name__)

LT_STEP: Final = 1_000_000
"""Between two transactions; more than any transaction can send messages."""
MAX_TRANSACTIONS: Final = 256
"""Per block: keeps a tick well below the block interval. The rest waits for the next block."""
WORKCHAINS: Final = (BASECHAIN, MASTERCHAIN)
_NONE_BOC: Final = to_boc(NO_SHARD_ACCOUNT)
_NONE_HASH: Final = NO_SHARD_ACCOUNT.refs[0].hash


@dataclass(frozen=True, slots=True)
class Queued:
    """A message that waits for the next block."""

    message: MessageInfo
    boc: bytes

    @classmethod
    def from_boc(cls, boc: bytes) -> Queued:
        return cls(read_message(one_root(boc, verify_crc=False)), boc)

    @property
    def external(self) -> bool:
        return self.message.kind != INTERNAL


@dataclass(slots=True)
class Run:
    """What one block did."""

    transactions: dict[int, list[TransactionData]] = field(default_factory=lambda: {w: [] for w in WORKCHAINS})
    bocs: dict[bytes, bytes] = field(default_factory=dict)
    """Transaction BoCs by transaction hash."""
    ends: dict[AccountId, tuple[bytes, bytes]] = field(default_factory=dict)
    """Account cell hashes before and after the block."""
    touched: dict[AccountId, bytes | None] = field(default_factory=dict)
    fees: int = 0
    last_lt: int = 0
    dropped: int = 0


@dataclass(slots=True)
class World:
    """Accounts (as dictionaries and as the emulator's own BoCs) and the queue. Mutable; one owner: the ledger."""

    accounts: dict[int, AugTrie] = field(default_factory=lambda: dict.fromkeys(WORKCHAINS, EMPTY_ACCOUNTS))
    bocs: dict[AccountId, bytes] = field(default_factory=dict)
    queue: deque[Queued] = field(default_factory=deque)

    @property
    def held(self) -> int:
        return sum(trie.extra for trie in self.accounts.values())

    @property
    def in_flight(self) -> int:
        return sum(item.message.coins for item in self.queue)

    def set_account(self, account: AccountId, boc: bytes | None) -> bytes:
        """Put a ShardAccount (None or one without an account: remove it); returns the Account cell's hash."""
        trie, key = self.accounts[account.workchain], int.from_bytes(account.hash, "big")
        if boc is not None:
            shard_account = one_root(boc, verify_crc=False)
            cell, last_hash, last_lt = read_shard_account(shard_account)
            data = read_account(cell)
            if data.status != "none":
                value = Builder().ref(cell).raw(last_hash).uint(last_lt, 64)
                self.accounts[account.workchain] = trie.put(key, data.balance, value)
                self.bocs[account] = boc
                return cell.hash
        self.accounts[account.workchain] = trie.drop(key)
        self.bocs.pop(account, None)
        return _NONE_HASH

    def try_message(
        self, emulator: Emulator, item: Queued, destination: AccountId, *, now: int, lt: int, seed: bytes
    ) -> Executed | NotExecuted:
        """Execute without changing anything."""
        before = self.bocs.get(destination, _NONE_BOC)
        return emulator.execute(before, item.boc, now=now, lt=lt, seed=seed)

    def run(self, emulator: Emulator, *, now: int, start_lt: int, seed: bytes) -> Run:
        """Execute waiting messages; `seed` and lt make every transaction's randomness reproducible."""
        run = Run(last_lt=start_lt)
        done = 0
        while self.queue and done < MAX_TRANSACTIONS:
            item = self.queue.popleft()
            destination = item.message.destination
            if destination is None or destination.workchain not in WORKCHAINS:
                self._burn(run, item, "no such address")
                continue
            lt = run.last_lt + LT_STEP
            result = self.try_message(
                emulator, item, destination, now=now, lt=lt, seed=sha256(seed + lt.to_bytes(8, "big")).digest()
            )
            if isinstance(result, NotExecuted):
                self._burn(run, item, f"{result.error} (exit code {result.vm_exit_code})")
                continue
            done += 1
            run.last_lt = lt
            self._apply(run, item, destination, result)
        return run

    def _apply(self, run: Run, item: Queued, account: AccountId, result: Executed) -> None:
        transaction = read_transaction(one_root(result.transaction, verify_crc=False))
        before = self.hash_of(account)
        after = self.set_account(account, result.shard_account)
        first, _ = run.ends.get(account, (before, before))
        run.ends[account] = (first, after)
        run.touched[account] = self.bocs.get(account)
        run.transactions[account.workchain].append(transaction)
        run.bocs[transaction.cell.hash] = result.transaction
        # The part of the forward fee that travelled with the message is collected where it arrives.
        run.fees += transaction.total_fees + item.message.fwd_fee
        for message in transaction.out_messages:
            if message.kind == INTERNAL:
                self.queue.append(Queued(message, to_boc(message.cell)))

    def _burn(self, run: Run, item: Queued, why: str) -> None:
        """A message nobody can execute: an external one just disappears, an internal one's coins become fees."""
        run.fees += item.message.coins
        run.dropped += 1
        if item.external:
            log.info("external message dropped", hash=item.message.hash, why=why)
        else:
            log.error("internal message lost", hash=item.message.hash, why=why, coins=item.message.coins)

    def hash_of(self, account: AccountId) -> bytes:
        """Hash of the Account cell as it is now."""
        edge, _ = self.accounts[account.workchain].find(int.from_bytes(account.hash, "big"))
        if edge is None or edge.value is None:
            return _NONE_HASH
        return edge.value.refs[0].hash
