"""Single RLDP2 transfers, out and in, and the budgets that bound them all (reference protocol 3.2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from . import rldp2
from .congestion import Sent
from .fec import symbols_of
from .lane import SPARE, SYMBOL
from .rldp2 import PART, PartReceiver, PartSender

OPEN_PARTS: Final = 4
"""Parts of one inbound transfer that may be open at once; C++ sends up to 20, and repeats what was not taken."""
NEVER: Final = float("inf")
_COMPLEMENT: Final = bytes(range(255, -1, -1))


def answer_id(transfer_id: bytes) -> bytes:
    """Transfer id of the answer: the complement of the query's."""
    return transfer_id.translate(_COMPLEMENT)


def room_of(total: int) -> int:
    """Bytes that a transfer of one part takes while it arrives: its sink has room for as many extra symbols."""
    return SYMBOL * (2 * symbols_of(total) + SPARE) + 2000


@dataclass(slots=True)
class Waiting:
    """A query of ours that has no answer yet."""

    query_id: bytes
    message: bytes
    max_answer: int
    started: float
    deadline: float
    on_answer: Callable[[bytes], None]


class Budget:
    """Bytes that all peers together may make us hold."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        self.used -= size


@dataclass(frozen=True, slots=True)
class RldpQuery:
    """A query that arrived: what `RldpLink.answer` needs to answer it."""

    transfer_id: bytes
    query_id: bytes
    max_answer: int
    deadline: float
    data: bytes = field(repr=False)


class Outbound:
    """A transfer that we send, part after part."""

    __slots__ = ("backoff", "data", "deadline", "heard", "held", "part", "probe_at", "records", "tail", "transfer_id")

    def __init__(self, transfer_id: bytes, data: bytes, deadline: float, held: int, now: float) -> None:
        self.transfer_id = transfer_id
        self.data = data
        self.deadline = deadline
        self.held = held
        """Bytes of an answer, to be given back to the budget at the end; 0 for a query of ours."""
        self.heard = now
        self.backoff = 0
        self.probe_at = NEVER
        self.tail = False
        """The next probe only repeats the last symbol."""
        self.records: deque[tuple[int, Sent]] = deque()
        """(number of the first symbol after these, when they left)"""
        self.part = self._make_part(0)

    def _make_part(self, number: int) -> PartSender:
        data = self.data if len(self.data) <= PART else self.data[number * PART : (number + 1) * PART]
        return PartSender(self.transfer_id, number, len(self.data), data)

    def next_part(self) -> bool:
        """Go on to the next part; False if there is none."""
        number = self.part.number + 1
        self.records.clear()
        self.backoff = 0
        self.probe_at = NEVER
        self.tail = False
        if number * PART >= len(self.data):
            return False
        self.part = self._make_part(number)
        return True

    def record_of(self, acked: int) -> Sent | None:
        """When the last of the first `acked` symbols left; earlier records are dropped."""
        found = None
        while self.records:
            end, sent = self.records[0]
            found = sent
            if end > acked:
                break
            self.records.popleft()
            if end == acked:
                break
        return found


class Inbound:
    """A transfer that we receive."""

    __slots__ = ("deadline", "expected", "held", "parts", "total", "transfer_id", "whole", "whole_size")

    def __init__(self, transfer_id: bytes, total: int, deadline: float, expected: bool, held: int = 0) -> None:
        self.transfer_id = transfer_id
        self.total = total
        self.deadline = deadline
        self.expected = expected
        self.held = held
        """Bytes in the peer's account."""
        self.parts: dict[int, PartReceiver] = {}
        self.whole: list[bytes | memoryview] = []
        self.whole_size = 0

    def part(self, message: rldp2.MessagePart, key: bytes) -> PartReceiver | None:
        """The receiver of this message's part, opened if there is room; None for a part that is done or too far.

        `key`: `rldp2.part_key` of the message."""
        number = message.part
        receiver = self.parts.get(number)
        if receiver is not None:
            return receiver if receiver.decoder.size == message.data_size else None
        first = len(self.whole)
        if not first <= number < first + OPEN_PARTS:
            return None
        held = self.whole_size + sum(part.decoder.size for part in self.parts.values())
        if held + message.data_size > self.total:
            return None
        receiver = self.parts[number] = PartReceiver(number, message.data_size, key)
        return receiver

    def advance(self) -> bytes | memoryview | None:
        """Join decoded parts in order; the whole transfer once it is there."""
        while (receiver := self.parts.get(len(self.whole))) is not None and receiver.decoder.data is not None:
            del self.parts[receiver.number]
            self.whole.append(receiver.decoder.data)
            self.whole_size += receiver.decoder.size
        if self.whole_size != self.total:
            return None
        return self.whole[0] if len(self.whole) == 1 else b"".join(self.whole)
