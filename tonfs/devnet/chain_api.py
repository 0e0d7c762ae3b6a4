"""What the devnet's chain offers to its doors (lite server, control socket): values, answers, one protocol.

The ledger builds every cell and every proof; a door only wraps these bytes in TL and sends them. All calls are
synchronous, take a millisecond or so, and must come from one thread. Reference: devnet.md sections 2 and 3.

Errors: `BlockUnknown` (lite server error 651), `BadData` and `UsageError` (-400), `ExternalRefused` (0; its message
starts with "cannot apply external message to current state").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from ..ids import Address, NanoTon

MASTERCHAIN: Final = -1
BASECHAIN: Final = 0
WHOLE_SHARD: Final = -(1 << 63)
"""The one shard that is never split, 8000000000000000, as TL's signed long."""


class AccountId(NamedTuple):
    """`liteServer.accountId`: workchain -1 or 0 and the 32-byte address."""

    workchain: int
    hash: bytes

    @classmethod
    def parse(cls, text: str) -> AccountId:
        """From the raw form `0:hex`. Raises ValueError."""
        workchain, _, digits = text.partition(":")
        if len(digits) != 64 or workchain not in ("0", "-1"):
            raise ValueError(f"not a raw address: {text[:80]!r}")
        return cls(int(workchain), bytes.fromhex(digits))

    @property
    def raw(self) -> Address:
        return Address(f"{self.workchain}:{self.hash.hex()}")


@dataclass(frozen=True, slots=True)
class BlockId:
    """`tonNode.blockIdExt`: 80 bytes on the wire, bare."""

    workchain: int
    shard: int
    seqno: int
    root_hash: bytes
    file_hash: bytes

    def to_bytes(self) -> bytes:
        return struct.pack("<iqi", self.workchain, self.shard, self.seqno) + self.root_hash + self.file_hash

    @classmethod
    def from_bytes(cls, data: bytes) -> BlockId:
        """Raises ValueError unless there are exactly 80 bytes."""
        if len(data) != 80:
            raise ValueError("a block id has 80 bytes")
        workchain, shard, seqno = struct.unpack_from("<iqi", data)
        return cls(workchain, shard, seqno, data[16:48], data[48:80])


@dataclass(frozen=True, slots=True)
class Block:
    """One tick: masterchain block n and basechain block n. Seqno 0 is the zero state (no block)."""

    seqno: int
    master: BlockId
    shard: BlockId
    gen_utime: int
    start_lt: int
    end_lt: int
    transactions: int
    """Number of transactions in both blocks together."""


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """An account at one block. `status` is none, uninit, active or frozen; code and data are one-root BoCs or empty."""

    address: Address
    status: str
    balance: NanoTon
    code_hash: bytes
    code: bytes
    data: bytes
    last_lt: int
    last_hash: bytes


@dataclass(frozen=True, slots=True)
class TransactionInfo:
    """One transaction, digested. Exit codes are None where the phase did not run; hashes are 32 bytes.

    `in_value` is 0 for an external message; `out_messages` are the hashes of all messages sent, in order.
    """

    account: Address
    lt: int
    hash: bytes
    seqno: int
    utime: int
    aborted: bool
    exit_code: int | None
    action_code: int | None
    total_fees: NanoTon
    in_hash: bytes | None
    in_source: Address | None
    in_value: NanoTon
    in_bounced: bool
    out_messages: tuple[bytes, ...]
    out_values: tuple[NanoTon, ...]
    out_destinations: tuple[Address | None, ...]
    opcode: int | None
    """First 32 bits of the body of the message in, if it has that many."""
    boc: bytes


@dataclass(frozen=True, slots=True)
class Coins:
    """Where all coins are, in nanoTON: `issued == held + fees + in_flight` at every block, or the tick raises."""

    issued: int
    held: int
    fees: int
    in_flight: int

    @property
    def ok(self) -> bool:
        return self.issued == self.held + self.fees + self.in_flight


@dataclass(frozen=True, slots=True)
class TraceStep:
    """A message (by hash) and what became of it: `transaction` is None while it waits in the queue."""

    message: bytes
    depth: int
    transaction: TransactionInfo | None


# Answers. Bytes are BoCs unless said otherwise; empty bytes where the format says so.


@dataclass(frozen=True, slots=True)
class AccountAnswer:
    """getAccountState. `state` is empty for an absent account; both proofs are valid all the same."""

    id: BlockId
    shardblk: BlockId
    shard_proof: bytes
    proof: bytes
    state: bytes


@dataclass(frozen=True, slots=True)
class RunMethodAnswer:
    """runSmcMethod. All proofs are filled; the door leaves out those whose mode bit (0, 1, 2 = result) is clear."""

    id: BlockId
    shardblk: BlockId
    shard_proof: bytes
    proof: bytes
    state_proof: bytes
    exit_code: int
    result: bytes


@dataclass(frozen=True, slots=True)
class TransactionsAnswer:
    """getTransactions, newest first: `ids` = shard block of each, `transactions` = multi-root BoC or empty."""

    ids: tuple[BlockId, ...]
    transactions: bytes


@dataclass(frozen=True, slots=True)
class TransactionAnswer:
    """getOneTransaction; both fields empty when absent."""

    id: BlockId
    proof: bytes
    transaction: bytes


@dataclass(frozen=True, slots=True)
class BlockAnswer:
    """getBlock."""

    id: BlockId
    data: bytes


@dataclass(frozen=True, slots=True)
class HeaderAnswer:
    """getBlockHeader and lookupBlock (mode 0)."""

    id: BlockId
    header_proof: bytes


@dataclass(frozen=True, slots=True)
class AllShardsAnswer:
    """getAllShardsInfo."""

    id: BlockId
    proof: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class ShardInfoAnswer:
    """getShardInfo; `shard_descr` is the BinTree leaf cell."""

    id: BlockId
    shardblk: BlockId
    shard_proof: bytes
    shard_descr: bytes


@dataclass(frozen=True, slots=True)
class ConfigAnswer:
    """getConfigAll and getConfigParams."""

    id: BlockId
    state_proof: bytes
    config_proof: bytes


class TransactionId(NamedTuple):
    """Account hash (32 bytes), lt, transaction hash."""

    account: bytes
    lt: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class BlockTransactionsAnswer:
    """listBlockTransactions, sorted by (account, lt)."""

    id: BlockId
    req_count: int
    incomplete: bool
    ids: tuple[TransactionId, ...]
    proof: bytes


@dataclass(frozen=True, slots=True)
class BlockTransactionsExtAnswer:
    """listBlockTransactionsExt: `transactions` = multi-root BoC or empty."""

    id: BlockId
    req_count: int
    incomplete: bool
    transactions: bytes
    proof: bytes


class DevnetChain(Protocol):
    """The public methods of `ledger.Ledger`. `seqno=None` means the last block."""

    # Chain and time.

    @property
    def last(self) -> Block: ...

    @property
    def zero_state(self) -> BlockId:
        """Masterchain block id with seqno 0, for global.config.json and masterchainInfo.init."""
        ...

    def now(self) -> int:
        """Chain time: host clock + offset, never below the last block's."""
        ...

    def tick(self, now: int | None = None) -> Block:
        """Make the next pair of blocks (durable on return). `now` defaults to `self.now()`, is raised to the last
        block's time if lower. Raises Damaged when the coins do not add up."""
        ...

    def advance(self, seconds: int) -> int:
        """Move the chain clock forward for good; returns the new chain time. Raises UsageError if negative."""
        ...

    def block(self, seqno: int) -> Block:
        """Any block since the start. Raises BlockUnknown."""
        ...

    # Messages.

    def inject_external(self, boc: bytes) -> bytes:
        """Queue an external message for the next tick; returns its hash. The same message again is fine.

        Raises ExternalRefused when the contract does not accept it now, BadData when it is no message.
        """
        ...

    def faucet(self, address: Address, amount: NanoTon) -> bytes:
        """Queue an internal, non-bounceable message with new coins; returns its hash. Raises UsageError."""
        ...

    def coins(self) -> Coins: ...

    def trace(self, message_hash: bytes) -> list[TraceStep]:
        """The message, its transaction, the messages that one sent, and so on, depth first. Raises NotFound."""
        ...

    def account(self, address: Address, seqno: int | None = None) -> AccountInfo:
        """Raises BlockUnknown when that state is no longer kept (the last 100 are)."""
        ...

    def accounts(self) -> list[Address]: ...

    def transactions(self, address: Address, limit: int = 20, before_lt: int | None = None) -> list[TransactionInfo]:
        """Newest first."""
        ...

    def run_get_method(
        self, address: Address, method: int | str, stack: bytes = b"", seqno: int | None = None
    ) -> tuple[int, bytes]:
        """(exit code, VmStack BoC); (-256, b"") for an account without code. `stack` = VmStack BoC or empty."""
        ...

    # Snapshots. A restored chain is exactly as it was, time offset included: a door should close its connections.

    def snapshot(self, name: str) -> None: ...

    def restore(self, name: str) -> None:
        """Raises NotFound."""
        ...

    def snapshots(self) -> list[str]: ...

    def close(self) -> None: ...

    # Answers. An id must match byte for byte, else BlockUnknown. Masterchain ids are expected for account, run
    # method, shards and config; shard block ids are accepted for accounts too.

    def account_answer(self, block: BlockId, account: AccountId) -> AccountAnswer: ...

    def run_method_answer(
        self, block: BlockId, account: AccountId, method_id: int, params: bytes
    ) -> RunMethodAnswer: ...

    def transactions_answer(self, account: AccountId, lt: int, hash_: bytes, count: int) -> TransactionsAnswer:
        """From this transaction backwards. Empty for lt 0. Raises BadData when there is no such transaction."""
        ...

    def one_transaction_answer(self, block: BlockId, account: AccountId, lt: int) -> TransactionAnswer: ...

    def block_answer(self, block: BlockId) -> BlockAnswer: ...

    def header_answer(self, block: BlockId) -> HeaderAnswer: ...

    def lookup_answer(
        self, workchain: int, shard: int, *, seqno: int | None = None, lt: int | None = None, utime: int | None = None
    ) -> HeaderAnswer:
        """Exactly one of the three. For lt and utime: the first block that ends at or after it, as real nodes do."""
        ...

    def all_shards_answer(self, block: BlockId) -> AllShardsAnswer: ...

    def shard_info_answer(self, block: BlockId, workchain: int, shard: int, exact: bool) -> ShardInfoAnswer: ...

    def config_answer(self, block: BlockId, params: Sequence[int] | None = None) -> ConfigAnswer:
        """`params=None`: all (getConfigAll). Parameters that were not asked may be there too."""
        ...

    def block_transactions_answer(
        self, block: BlockId, count: int, after: tuple[bytes, int] | None = None, reverse: bool = False
    ) -> BlockTransactionsAnswer:
        """`after` = (account hash, lt) of the last one already known."""
        ...

    def block_transactions_ext_answer(
        self, block: BlockId, count: int, after: tuple[bytes, int] | None = None, reverse: bool = False
    ) -> BlockTransactionsExtAnswer: ...
