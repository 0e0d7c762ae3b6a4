"""RLDP2 on the wire, and its two machines for one part: receiver and sender (reference protocol 3).

Pure: symbols and confirmations in, symbols and confirmations out. Transfers, queries and the shared congestion
window are in `rldp_link`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..errors import BadPacket
from . import tl
from .fec import MAX_ESI, MAX_PART, PartDecoder, SymbolSource, symbols_of
from .lane import HEAD_SIZE, SYMBOL, Sink

PART: Final = 2_000_000
"""Parts of exactly so many bytes are what every receiver accepts (reference 3.2)."""

_HEAD: Final = struct.Struct("<I32sIiiiiqi")
"""Constructor, transfer id, fec type with data size, symbol size and count, part, total size, symbol number."""
_SYMBOL_PREFIX: Final = b"\xfe" + SYMBOL.to_bytes(3, "little")
_CONFIRM: Final = struct.Struct("<I32siIIi")
_COMPLETE: Final = struct.Struct("<I32si")
FULL_SIZE: Final = _HEAD.size + 4 + SYMBOL


class MessagePart(NamedTuple):
    transfer_id: bytes
    data_size: int
    part: int
    total_size: int
    seqno: int
    symbol: bytes


class Confirm(NamedTuple):
    """`max_seqno` counts from 1: the highest symbol number received plus one (reference 3.4)."""

    transfer_id: bytes
    part: int
    max_seqno: int
    mask: int
    received: int


class Complete(NamedTuple):
    transfer_id: bytes
    part: int


class Symbols(NamedTuple):
    """Symbols to be sent: `amount` of them, numbered from `first`, lie at `offset` of `source` (zeros behind its end).

    `head`: the first 64 bytes of their messageParts.
    """

    head: bytes
    source: bytes
    offset: int
    first: int
    amount: int

    def messages(self) -> Iterator[bytes]:
        """The messageParts one by one."""
        for number in range(self.amount):
            start = self.offset + number * SYMBOL
            symbol = self.source[start : start + SYMBOL].ljust(SYMBOL, b"\0")
            yield b"".join((self.head, (self.first + number).to_bytes(4, "little"), _SYMBOL_PREFIX, symbol))


def part_key(data: bytes) -> bytes:
    """What names the part in a messagePart: everything but the symbol and its number."""
    return data[4:HEAD_SIZE]


def parse(data: bytes) -> MessagePart | Confirm | Complete | None:
    """A custom message that is RLDP2's; None for another one. Raises BadPacket for a malformed RLDP2 object."""
    tag = tl.constructor_id(data)
    if tag == tl.RLDP2_MESSAGE_PART:
        return _parse_part(data)
    if tag == tl.RLDP2_CONFIRM and len(data) == _CONFIRM.size:
        return parse_confirm(data)
    if tag == tl.RLDP2_COMPLETE and len(data) == _COMPLETE.size:
        _, transfer_id, part = _COMPLETE.unpack(data)
        return Complete(transfer_id, part)
    if tag in (tl.RLDP2_CONFIRM, tl.RLDP2_COMPLETE):
        raise BadPacket("RLDP object of a wrong size")
    return None


def parse_confirm(data: bytes) -> Confirm:
    """An rldp2.confirm of 52 bytes. Raises BadPacket."""
    _, transfer_id, part, max_seqno, mask, received = _CONFIRM.unpack(data)
    if part < 0 or max_seqno > MAX_ESI or not 0 <= received <= MAX_ESI:
        raise BadPacket("RLDP confirmation out of range")
    return Confirm(transfer_id, part, max_seqno, mask, received)


def _parse_part(data: bytes) -> MessagePart:
    if len(data) != FULL_SIZE:
        raise BadPacket("RLDP symbol of a wrong size")
    _, transfer_id, fec, size, symbol_size, count, part, total, seqno = _HEAD.unpack_from(data)
    if fec != tl.FEC_RAPTORQ or symbol_size != SYMBOL or data[_HEAD.size : _HEAD.size + 4] != _SYMBOL_PREFIX:
        raise BadPacket("RLDP coding other than RaptorQ with symbols of 768 bytes")
    if not 0 < size <= MAX_PART or size > total or not 0 <= part < 4096 or not 0 <= seqno < MAX_ESI:
        raise BadPacket("RLDP part out of range")
    if count - symbols_of(size) not in (0, 1):  # one too many comes from Go v1.16 (reference 3.3)
        raise BadPacket("RLDP part with a wrong number of symbols")
    return MessagePart(transfer_id, size, part, total, seqno, data[_HEAD.size + 4 :])


def pack_confirm(transfer_id: bytes, part: int, max_seqno: int, mask: int, received: int) -> bytes:
    return _CONFIRM.pack(tl.RLDP2_CONFIRM, transfer_id, part, max_seqno, mask, received)


def pack_complete(transfer_id: bytes, part: int) -> bytes:
    return _COMPLETE.pack(tl.RLDP2_COMPLETE, transfer_id, part)


class PartReceiver:
    """Receiving side of one part. `key`: the messagePart's bytes that name the part (see `Sink`)."""

    __slots__ = ("decoder", "number", "sink")

    def __init__(self, number: int, size: int, key: bytes) -> None:
        self.number = number
        self.decoder = PartDecoder(size, key)
        self.sink: Sink = self.decoder.sink

    def receive(self, seqno: int, symbol: bytes) -> bool:
        """Take a symbol. True when enough came for a confirmation at once; otherwise it may wait a little."""
        if self.sink.put(seqno, symbol):
            self.decoder.settle()
        return self.sink.due


class PartSender:
    """Sending side of one part: which symbol comes next, what is in flight, what was lost.

    There is no retransmission: fresh repair symbols replace lost ones (reference 3.5).
    """

    __slots__ = ("acked", "head", "next_esi", "number", "received", "source")

    def __init__(self, transfer_id: bytes, number: int, total_size: int, data: bytes) -> None:
        self.number = number
        self.source = SymbolSource(data)
        self.next_esi = 0
        self.acked = 0
        """All symbols below this number have arrived or are lost."""
        self.received = 0
        k = self.source.k
        head = _HEAD.pack(
            tl.RLDP2_MESSAGE_PART, transfer_id, tl.FEC_RAPTORQ, len(data), SYMBOL, k, number, total_size, 0
        )
        self.head = head[:-4]
        """The first 64 bytes of its messageParts."""

    @property
    def in_flight(self) -> int:
        return self.next_esi - self.acked

    def wanted(self, loss: float) -> int:
        """Symbols that should still be sent so that K arrive, if a share `loss` of those on their way gets lost."""
        k = self.source.k
        flying = self.next_esi - self.acked
        missing = k - self.received - flying
        lost = self.acked - self.received
        if lost <= 0 and loss < 0.001:
            return missing
        expected_loss = flying * loss
        return missing + int(expected_loss + 2 * expected_loss**0.5) + (2 if lost > 0 else 1)

    def emit(self, count: int) -> Iterator[Symbols]:
        """The next `count` symbols."""
        while count > 0:
            first = self.next_esi
            source, offset, found = self.source.stretch(first, count)
            self.next_esi += found
            count -= found
            yield Symbols(self.head, source, offset, first, found)

    def repeat(self, esi: int) -> Symbols:
        """A symbol that was sent before."""
        source, offset, _ = self.source.stretch(esi, 1)
        return Symbols(self.head, source, offset, esi, 1)

    def repeat_last(self) -> Symbols:
        """The last source symbol once more: makes a receiver that has everything say `complete` again."""
        return self.repeat(self.source.k - 1)

    def on_confirm(self, max_seqno: int, received: int) -> tuple[int, int]:
        """Take a confirmation: (symbols newly settled, of these arrived). Impossible numbers are cut to size."""
        # Go v1.16 tells the highest symbol number without the +1; as many as arrived are settled in any case.
        settled = min(max(max_seqno, received), self.next_esi) - self.acked
        arrived = min(received, self.next_esi) - self.received
        if settled > 0:
            self.acked += settled
        if arrived > 0:
            self.received += arrived
        return max(0, settled), max(0, arrived)
