"""Readers for what the emulator returns and clients send: messages, transactions, accounts (block.tlb).

Only the fields that the ledger needs; all else is skipped. Raises BadData on malformed cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import BadData
from .accounts_dict import read_dictionary
from .cells import Builder, Cell, Slice
from .chain_api import AccountId

INTERNAL: Final = "internal"
EXTERNAL_IN: Final = "external in"
EXTERNAL_OUT: Final = "external out"


@dataclass(frozen=True, slots=True)
class MessageInfo:
    """A message's header. `value`, `fees` (ihr + forward) are 0 unless internal."""

    kind: str
    source: AccountId | None
    destination: AccountId | None
    value: int
    ihr_fee: int
    fwd_fee: int
    bounced: bool
    created_lt: int
    opcode: int | None
    cell: Cell

    @property
    def hash(self) -> bytes:
        return self.cell.hash

    @property
    def coins(self) -> int:
        """All coins that travel with it."""
        return self.value + self.ihr_fee + self.fwd_fee


@dataclass(frozen=True, slots=True)
class TransactionData:
    """A transaction as the ledger sees it; see chain_api.TransactionInfo for the meaning of the codes."""

    account: bytes
    lt: int
    prev_hash: bytes
    prev_lt: int
    now: int
    in_message: MessageInfo | None
    out_messages: tuple[MessageInfo, ...]
    total_fees: int
    state_update: Cell
    aborted: bool
    exit_code: int | None
    action_code: int | None
    cell: Cell


@dataclass(frozen=True, slots=True)
class AccountData:
    """`status`: none, uninit, active or frozen."""

    balance: int
    status: str
    code: Cell | None
    data: Cell | None
    last_paid: int


NO_ACCOUNT: Final = AccountData(0, "none", None, None, 0)


def _external_address(content: Slice) -> None:
    tag = content.uint(2)
    if tag == 1:
        content.uint(content.uint(9))
    elif tag:
        raise BadData("not an external address")


def _account_address(content: Slice) -> AccountId | None:
    """addr_std without anycast, or addr_none."""
    tag = content.uint(2)
    if tag == 0:
        return None
    if tag != 2 or content.flag():
        raise BadData("not a standard address")
    workchain = content.sint(8)
    return AccountId(workchain, content.raw(32))


def _opcode(content: Slice) -> int | None:
    """Skips the StateInit; the first 32 bits of the body if it has them."""
    if content.flag():
        if content.flag():
            content.ref()
        else:
            _skip_state_init(content)
    body = content.ref().parse() if content.flag() else content
    return body.peek(32) if body.remaining_bits >= 32 else None


def _skip_state_init(content: Slice) -> tuple[Cell | None, Cell | None]:
    if content.flag():
        content.uint(5)
    if content.flag():
        content.uint(2)
    code, data = content.maybe_ref(), content.maybe_ref()
    content.maybe_ref()
    return code, data


def read_message(cell: Cell) -> MessageInfo:
    """The header of any message."""
    content = cell.parse()
    if not content.flag():
        content.uint(2)
        bounced = content.flag()
        source, destination = _account_address(content), _account_address(content)
        value, ihr_fee, fwd_fee = content.currencies(), content.coins(), content.coins()
        created_lt = content.uint(64)
        content.uint(32)
        return MessageInfo(
            INTERNAL, source, destination, value, ihr_fee, fwd_fee, bounced, created_lt, _opcode(content), cell
        )
    if not content.flag():
        _external_address(content)
        destination = _account_address(content)
        content.coins()
        return MessageInfo(EXTERNAL_IN, None, destination, 0, 0, 0, False, 0, _opcode(content), cell)
    source = _account_address(content)
    _external_address(content)
    created_lt = content.uint(64)
    content.uint(32)
    return MessageInfo(EXTERNAL_OUT, source, None, 0, 0, 0, False, created_lt, _opcode(content), cell)


def _compute_phase(content: Slice) -> int | None:
    """Exit code, None when skipped."""
    if not content.flag():
        if content.uint(2) == 3:
            content.uint(1)
        return None
    content.uint(3)
    content.coins()
    details = content.ref().parse()
    details.uint(8 * details.uint(3))
    details.uint(8 * details.uint(3))
    if details.flag():
        details.uint(8 * details.uint(2))
    details.uint(8)
    return details.sint(32)


def _status_change(content: Slice) -> None:
    if content.flag():
        content.uint(1)


def _action_phase(cell: Cell) -> int:
    content = cell.parse()
    content.uint(3)
    _status_change(content)
    for _ in range(2):
        if content.flag():
            content.coins()
    return content.sint(32)


def _description(cell: Cell) -> tuple[bool, int | None, int | None]:
    """(aborted, exit code, action result code) of an ordinary transaction."""
    content = cell.parse()
    if content.uint(4) != 0:
        raise BadData("not an ordinary transaction")
    content.uint(1)
    if content.flag():
        content.coins()
        if content.flag():
            content.coins()
        _status_change(content)
    if content.flag():
        if content.flag():
            content.coins()
        content.currencies()
    exit_code = _compute_phase(content)
    action = content.maybe_ref()
    return content.flag(), exit_code, None if action is None else _action_phase(action)


def read_transaction(cell: Cell) -> TransactionData:
    """A transaction with its messages."""
    content = cell.parse()
    if content.uint(4) != 7:
        raise BadData("not a transaction")
    account, lt = content.raw(32), content.uint(64)
    prev_hash, prev_lt, now = content.raw(32), content.uint(64), content.uint(32)
    content.uint(15 + 4)
    messages = content.ref().parse()
    fees = content.currencies()
    incoming = messages.maybe_ref()
    outgoing = tuple(read_message(value.ref()) for _, value in read_dictionary(messages.maybe_ref(), 15))
    update = content.ref()
    aborted, exit_code, action_code = _description(content.ref())
    return TransactionData(
        account=account,
        lt=lt,
        prev_hash=prev_hash,
        prev_lt=prev_lt,
        now=now,
        in_message=read_message(incoming) if incoming else None,
        out_messages=outgoing,
        total_fees=fees,
        state_update=update,
        aborted=aborted,
        exit_code=exit_code,
        action_code=action_code,
        cell=cell,
    )


def read_account(cell: Cell) -> AccountData:
    """An Account cell (not ShardAccount)."""
    content = cell.parse()
    if not content.flag():
        return NO_ACCOUNT
    _account_address(content)
    for _ in range(3):
        content.uint(8 * content.uint(3))
    last_paid = content.uint(32)
    if content.flag():
        content.coins()
    content.uint(64)
    balance = content.currencies()
    if content.flag():
        code, data = _skip_state_init(content)
        return AccountData(balance, "active", code, data, last_paid)
    return AccountData(balance, "frozen" if content.flag() else "uninit", None, None, last_paid)


def read_shard_account(cell: Cell) -> tuple[Cell, bytes, int]:
    """(Account cell, last transaction hash, last transaction lt)."""
    content = cell.parse()
    return content.ref(), content.raw(32), content.uint(64)


def internal_message(source: AccountId, destination: AccountId, value: int, *, lt: int, now: int) -> Cell:
    """A plain, non-bounceable transfer without a body."""
    out = Builder().uint(0b0100, 4)
    for address in (source, destination):
        out.uint(4, 3).sint(address.workchain, 8).raw(address.hash)
    return out.currencies(value).coins(0).coins(0).uint(lt, 64).uint(now, 32).zeros(2).end()


NO_SHARD_ACCOUNT: Final = Builder().ref(Builder().zeros(1).end()).zeros(320).end()
"""ShardAccount of an account that does not exist (reference contracts 9.2)."""
