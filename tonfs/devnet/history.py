"""What happened: transactions digested for people and tests, and the tree of messages that grew from one."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import NotFound
from ..ids import NanoTon
from .chain_api import TraceStep, TransactionInfo
from .multiboc import one_root
from .store import LedgerStore, TransactionRow
from .tlb import read_transaction

_MAX_STEPS = 10_000


def digest(row: TransactionRow) -> TransactionInfo:
    """A stored transaction as a value."""
    data = read_transaction(one_root(row.boc, verify_crc=False))
    incoming = data.in_message
    return TransactionInfo(
        account=row.account.raw,
        lt=row.lt,
        hash=row.hash,
        seqno=row.seqno,
        utime=data.now,
        aborted=data.aborted,
        exit_code=data.exit_code,
        action_code=data.action_code,
        total_fees=NanoTon(data.total_fees),
        in_hash=incoming.hash if incoming else None,
        in_source=incoming.source.raw if incoming and incoming.source else None,
        in_value=NanoTon(incoming.value if incoming else 0),
        in_bounced=incoming.bounced if incoming else False,
        out_messages=tuple(message.hash for message in data.out_messages),
        out_values=tuple(NanoTon(message.value) for message in data.out_messages),
        out_destinations=tuple(m.destination.raw if m.destination else None for m in data.out_messages),
        opcode=incoming.opcode if incoming else None,
        boc=row.boc,
    )


def trace(store: LedgerStore, queued: Iterable[bytes], message_hash: bytes) -> list[TraceStep]:
    """Depth first from one message (hash). Raises NotFound when it is neither on chain nor waiting."""
    waiting = set(queued)
    steps: list[TraceStep] = []
    stack = [(message_hash, 0)]
    while stack and len(steps) < _MAX_STEPS:
        message, depth = stack.pop()
        row = store.transaction_of_message(message)
        if row is None:
            if message in waiting:
                steps.append(TraceStep(message, depth, None))
            continue  # a log message, which nobody receives
        info = digest(row)
        steps.append(TraceStep(message, depth, info))
        stack.extend((child, depth + 1) for child in reversed(info.out_messages))
    if not steps:
        raise NotFound(f"No message {message_hash.hex()} is known.", hint="It was refused, dropped, or never sent.")
    return steps
