"""Messages, transactions and accounts: TL-B in, values out (block.tlb of the reference implementation).

Everything here is strict: what does not parse completely as far as it is needed raises BadData.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadData
from ..ids import Address, NanoTon
from .address import join
from .api import AccountState, AccountStatus, ChainMessage, MessageKind, Transaction
from .cells import Builder, Cell, Reader, dictionary


@dataclass(frozen=True)
class Message:
    """A message that a wallet sends: `amount` nanoTON travel with it (mode 3: fees are paid on top)."""

    to: Address
    amount: NanoTon
    body: Cell | None = None
    state_init: Cell | None = None
    bounce: bool = True
    mode: int = 3

    def cell(self) -> Cell:
        """`int_msg_info$0` as the wallet contract forwards it; the node fills in source, fees and times."""
        builder = Builder().bit(False).bit(True).bit(self.bounce).bit(False)
        builder.address(None).address(self.to).coins(self.amount).bit(False)
        builder.coins(0).coins(0).uint(0, 64).uint(0, 32)
        _append_init(builder, self.state_init)
        return _append_body(builder, self.body).cell()


def external_message(to: Address, body: Cell, state_init: Cell | None = None) -> Cell:
    """`ext_in_msg_info$10`."""
    builder = Builder().uint(0b10, 2).address(None).address(to).coins(0)
    _append_init(builder, state_init)
    return builder.bit(True).ref(body).cell()


def state_init(code: Cell, data: Cell) -> Cell:
    """StateInit `00110`: no split depth, not special, code, data, no libraries."""
    return Builder().uint(0b00110, 5).ref(code).ref(data).cell()


def state_init_address(init: Cell, workchain: int = 0) -> Address:
    return join(workchain, init.hash)


def comment(text: str) -> Cell:
    """Body of a transfer with a text: op 0 and at most 123 bytes. Raises ValueError."""
    data = text.encode("utf-8")
    if len(data) > 123:
        raise ValueError("a comment has at most 123 bytes")
    return Builder().uint(0, 32).raw(data).cell()


def _append_init(builder: Builder, init: Cell | None) -> None:
    builder.bit(init is not None)
    if init is not None:
        builder.bit(True).ref(init)


def _append_body(builder: Builder, body: Cell | None) -> Builder:
    if body is None:
        return builder.bit(False)
    return builder.bit(True).ref(body)


# Parsing.


def _currency(reader: Reader) -> NanoTon:
    amount = reader.coins()
    reader.maybe_ref()  # extra currencies
    return NanoTon(amount)


def _maybe_coins(reader: Reader) -> int:
    return reader.coins() if reader.bit() else 0


def _skip_state_init(reader: Reader) -> None:
    if reader.bit():
        reader.uint(5)
    if reader.bit():
        reader.uint(2)
    for _ in range(3):  # code, data, libraries
        reader.maybe_ref()


def parse_message(cell: Cell) -> ChainMessage:
    """Any message of a transaction. Raises BadData."""
    reader = Reader(cell)
    source: Address | None = None
    destination: Address | None = None
    value = forward_fee = created_lt = 0
    bounce = bounced = False
    if not reader.bit():
        kind = MessageKind.INTERNAL
        reader.bit()
        bounce, bounced = reader.bit(), reader.bit()
        source, destination = reader.address(), reader.address()
        value = _currency(reader)
        reader.coins()  # once a fee for instant routing, now flags; no coins either way
        forward_fee = reader.coins()
        created_lt = reader.uint(64)
        reader.uint(32)
    elif not reader.bit():
        kind = MessageKind.EXTERNAL_IN
        reader.skip_external_address()
        destination = reader.address()
        reader.coins()
    else:
        kind = MessageKind.EXTERNAL_OUT
        source = reader.address()
        reader.skip_external_address()
        created_lt = reader.uint(64)
        reader.uint(32)
    has_init = reader.bit()
    if has_init:
        if reader.bit():
            reader.ref()
        else:
            _skip_state_init(reader)
    body = reader.ref() if reader.bit() else reader.rest()
    return ChainMessage(
        kind, cell.hash, source, destination, NanoTon(value), NanoTon(forward_fee), bounce, bounced, created_lt, body,
        has_init,
    )  # fmt: skip


@dataclass(frozen=True)
class _Phases:
    storage_fees: int
    exit_code: int | None
    skipped: str
    action_code: int | None
    aborted: bool
    destroyed: bool


def _status_change(reader: Reader) -> None:
    if reader.bit():
        reader.bit()


def _compute_phase(reader: Reader) -> tuple[int | None, str]:
    if not reader.bit():
        reason = reader.uint(2)
        if reason == 3:
            reader.uint(1)
        return None, ("no-state", "bad-state", "no-gas", "suspended")[reason]
    reader.uint(3)
    reader.coins()
    detail = Reader(reader.ref())
    for _ in range(2):  # gas used, gas limit: VarUInteger 7
        detail.uint(8 * detail.uint(3))
    if detail.bit():
        detail.uint(8 * detail.uint(2))
    detail.uint(8)
    return detail.sint(32), ""


def _action_phase(reader: Reader) -> int:
    reader.uint(3)
    _status_change(reader)
    _maybe_coins(reader)
    _maybe_coins(reader)
    return reader.sint(32)


def _description(cell: Cell) -> _Phases:
    reader = Reader(cell)
    if reader.uint(4) != 0:
        raise BadData("A transaction is not an ordinary one.")
    reader.bit()
    storage_fees = 0
    if reader.bit():
        storage_fees = reader.coins()
        _maybe_coins(reader)
        _status_change(reader)
    if reader.bit():
        _maybe_coins(reader)
        _currency(reader)
    exit_code, skipped = _compute_phase(reader)
    action = reader.maybe_ref()
    aborted = reader.bit()
    if reader.bit():
        _bounce_phase(reader)
    destroyed = reader.bit()
    action_code = None if action is None else _action_phase(Reader(action))
    return _Phases(storage_fees, exit_code, skipped, action_code, aborted, destroyed)


def _bounce_phase(reader: Reader) -> None:
    if reader.bit():  # tr_phase_bounce_ok$1 msg_size msg_fees fwd_fees
        _storage_used_short(reader)
        reader.coins()
        reader.coins()
    elif reader.bit():  # tr_phase_bounce_nofunds$01 msg_size req_fwd_fees
        _storage_used_short(reader)
        reader.coins()


def _storage_used_short(reader: Reader) -> None:
    for _ in range(2):
        reader.uint(8 * reader.uint(3))


def parse_transaction(cell: Cell, workchain: int = 0) -> Transaction:
    """One ordinary transaction from its cell. Raises BadData."""
    reader = Reader(cell)
    if reader.uint(4) != 0b0111:
        raise BadData("Not a transaction.")
    account, lt = reader.raw(32), reader.uint(64)
    prev_hash, prev_lt, now = reader.raw(32), reader.uint(64), reader.uint(32)
    out_count = reader.uint(15)
    reader.uint(4)
    messages = Reader(reader.ref())
    in_cell = messages.maybe_ref()
    out = dictionary(messages.maybe_ref(), 15, lambda entry: parse_message(entry.ref()))
    total_fees = _currency(reader)
    reader.ref()
    phases = _description(reader.ref())
    if len(out) != out_count or list(out) != list(range(out_count)):
        raise BadData("A transaction's messages are not numbered as they should be.")
    return Transaction(
        join(workchain, account), lt, cell.hash, prev_lt, prev_hash, now, NanoTon(total_fees),
        NanoTon(phases.storage_fees), phases.aborted, phases.destroyed, phases.exit_code, phases.skipped,
        phases.action_code, None if in_cell is None else parse_message(in_cell), tuple(out.values()),
    )  # fmt: skip


def parse_account(cell: Cell, address: Address, last_lt: int, last_hash: bytes, seqno: int, now: int) -> AccountState:
    """An `Account` cell (account$1 or account_none$0) together with what its shard account says. Raises BadData."""
    reader = Reader(cell)
    if not reader.bit():
        return absent_account(address, last_lt, last_hash, seqno, now)
    if reader.address() != address:
        raise BadData("An account state belongs to another address.")
    for _ in range(2):  # cells, bits: VarUInteger 7
        reader.uint(8 * reader.uint(3))
    extra = reader.uint(3)  # storage_extra_none$000, storage_extra_info$001; before 2025: public_cells
    reader.uint(256 if extra == 1 else 8 * extra)
    reader.uint(32)
    _maybe_coins(reader)
    reader.uint(64)
    balance = _currency(reader)
    code = data = None
    if reader.bit():
        status = AccountStatus.ACTIVE
        if reader.bit():
            reader.uint(5)
        if reader.bit():
            reader.uint(2)
        code, data = reader.maybe_ref(), reader.maybe_ref()
    else:
        status = AccountStatus.FROZEN if reader.bit() else AccountStatus.UNINIT
    return AccountState(
        address, balance, status, None if code is None else code.hash, code, data, last_lt, last_hash, seqno, now
    )


def absent_account(address: Address, last_lt: int, last_hash: bytes, seqno: int, now: int) -> AccountState:
    return AccountState(address, NanoTon(0), AccountStatus.NONE, None, None, None, last_lt, last_hash, seqno, now)
