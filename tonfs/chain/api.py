"""The `Chain` seam: what tonfs needs of TON, whoever answers (lite server, devnet ledger in tests).

Contract time always comes from here, never from the host's clock (reference contracts 10.4). Errors: `ChainUnavailable`
when no server answers in time, `BadProof` when an answer does not prove what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ..ids import Address, NanoTon
from .cells import Cell, Reader


class AccountStatus(StrEnum):
    NONE = "none"
    UNINIT = "uninit"
    ACTIVE = "active"
    FROZEN = "frozen"


@dataclass(frozen=True)
class AccountState:
    """One account at one block, proved. `last_lt` and `last_hash` name its newest transaction (0 and empty: none)."""

    address: Address
    balance: NanoTon
    status: AccountStatus
    code_hash: bytes | None
    code: Cell | None = field(compare=False)
    data: Cell | None = field(compare=False)
    last_lt: int
    last_hash: bytes
    seqno: int
    """Masterchain block that the state belongs to."""
    now: int
    """Time of the shard block that holds the state: no later transaction of this account can be older."""


class MessageKind(StrEnum):
    INTERNAL = "internal"
    EXTERNAL_IN = "external-in"
    EXTERNAL_OUT = "external-out"


@dataclass(frozen=True)
class ChainMessage:
    """A message as a transaction holds it. `hash` is the message cell's, the same on both sides of a transfer."""

    kind: MessageKind
    hash: bytes
    source: Address | None
    destination: Address | None
    value: NanoTon
    """0 for external messages."""
    forward_fee: NanoTon
    """Part of the forwarding fee that still travels with the message."""
    bounce: bool
    bounced: bool
    created_lt: int
    body: Cell = field(compare=False)
    has_state_init: bool

    @property
    def op(self) -> int | None:
        """First 32 bits of the body; None when it is shorter."""
        return Reader(self.body).uint(32) if self.body.kind == 0 and self.body.bits >= 32 else None

    @property
    def query_id(self) -> int | None:
        """The 64 bits after the op; None when there are none."""
        if self.body.kind or self.body.bits < 96:
            return None
        reader = Reader(self.body)
        reader.uint(32)
        return reader.uint(64)

    @property
    def comment(self) -> str | None:
        """Text of an op 0 body (at most 1 KiB of it), else None."""
        if self.op != 0:
            return None
        out, cell, skip = b"", self.body, 32
        for _ in range(8):
            reader = Reader(cell)
            reader.uint(skip)
            if reader.left % 8:
                return None
            out += reader.raw(reader.left // 8)
            if reader.left_refs != 1 or cell.refs[0].kind:
                break
            cell, skip = cell.refs[0], 0
        try:
            return out.decode("utf-8")
        except UnicodeDecodeError:
            return None


@dataclass(frozen=True)
class Transaction:
    """A transaction, digested. Exit codes are None where the phase did not run."""

    account: Address
    lt: int
    hash: bytes
    prev_lt: int
    prev_hash: bytes
    now: int
    total_fees: NanoTon
    storage_fees: NanoTon
    """Part of `total_fees` that is rent."""
    aborted: bool
    destroyed: bool
    exit_code: int | None
    skipped: str
    """Why the compute phase did not run (no-state, bad-state, no-gas, suspended), else empty."""
    action_code: int | None
    in_message: ChainMessage | None
    out_messages: tuple[ChainMessage, ...]

    @property
    def succeeded(self) -> bool:
        """Code ran to its end and every action was carried out."""
        return not self.aborted and self.exit_code in (0, 1) and self.action_code == 0

    @property
    def delta(self) -> int:
        """Change of the account's balance in nanoTON, exact."""
        came = self.in_message.value if self.in_message is not None else 0
        went = sum(m.value + m.forward_fee for m in self.out_messages)
        return came - self.total_fees - went


StackItem = int | Cell | None
"""What goes into and comes out of get methods: integers, cells (slices come as cells), null."""


class Chain(Protocol):
    """See the module. Every method raises ChainUnavailable and BadProof besides what it names."""

    async def now(self) -> int:
        """Time of the newest masterchain block known, seconds."""
        ...

    async def account(self, address: Address) -> AccountState: ...

    async def get_method(self, address: Address, method: str, stack: Sequence[StackItem] = ()) -> list[StackItem]:
        """Run a get method. Raises GetMethodFailed. The answer is NOT proved: never decide about money with it."""
        ...

    async def send_boc(self, boc: bytes) -> None:
        """Hand an external message to the network; returning means nothing about its fate. Raises ExternalRefused."""
        ...

    async def transactions(
        self, address: Address, limit: int = 16, before: tuple[int, bytes] | None = None
    ) -> list[Transaction]:
        """Newest first, at most `limit`, proved by the chain of hashes that starts in the account's state.

        `before` = (prev_lt, prev_hash) of the oldest transaction already known continues from there. An account
        without transactions has an empty list; the end of the history is a transaction whose prev_lt is 0.
        """
        ...

    async def wait_block(self) -> int:
        """Wait until a masterchain block newer than the last one known exists; its seqno."""
        ...
