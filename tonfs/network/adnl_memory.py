"""What one peer may make us remember: answers for queries that come again, and halves of long messages.

Both are bounded in bytes, number and time (reference protocol 2.6, 2.7), and by the pool of all peers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ..errors import BadPacket
from . import adnl_packet as wire
from .memory_pool import Account

CACHE_BYTES: Final = 64 * 1024
CACHE_ENTRIES: Final = 512
CACHE_LIFE: Final = 15.0
MAX_PENDING: Final = 64
"""Queries of one peer that our handlers may be working on."""
MAX_PARTIAL: Final = 4
MAX_CHUNKS: Final = 64
"""Parts of one message; the daemons make nine of the longest. Single bytes would cost a hundred times their size."""
PARTIAL_LIFE: Final = 10.0
ENTRY: Final = 250
"""Bytes that an entry of ours costs besides what it holds."""


class AnswerCache:
    """Queries seen lately with their answers: Go repeats a query every 250 ms, and it must run once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._entries: OrderedDict[bytes, tuple[float, bytes | None]] = OrderedDict()
        """query id -> (end of life, message; None while a handler is at work, empty for silence)"""
        self.bytes = 0
        self.pending = 0

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, query_id: bytes, now: float) -> bool:
        """Note a new query; False if this peer already keeps too many handlers busy."""
        if self.pending >= MAX_PENDING:
            return False
        self._prune(now)
        self.pending += 1
        self._entries[query_id] = (now + CACHE_LIFE, None)
        return True

    def known(self, query_id: bytes) -> tuple[bool, bytes]:
        """(seen before, message to repeat or nothing)"""
        entry = self._entries.get(query_id)
        return entry is not None, (entry[1] or b"") if entry is not None else b""

    def finish(self, query_id: bytes, message: bytes, now: float) -> None:
        """The answer, or nothing for silence."""
        self.forget(query_id)
        if not self._account.take(ENTRY + len(message)):
            return
        self._entries[query_id] = (now + CACHE_LIFE, message)
        self.bytes += len(message)
        self._prune(now)

    def forget(self, query_id: bytes) -> None:
        """When it comes again it counts as new."""
        entry = self._entries.pop(query_id, None)
        if entry is None:
            return
        if entry[1] is None:
            self.pending -= 1
        else:
            self.bytes -= len(entry[1])
            self._account.give(ENTRY + len(entry[1]))

    def clear(self) -> None:
        """Forget all but the queries that are being worked on."""
        for query_id in [query_id for query_id, (_, message) in self._entries.items() if message is not None]:
            self.forget(query_id)

    def _prune(self, now: float) -> None:
        while self._entries:
            query_id, (expires, _) = next(iter(self._entries.items()))
            if expires > now and self.bytes <= CACHE_BYTES and len(self._entries) <= CACHE_ENTRIES:
                break
            self.forget(query_id)


@dataclass(slots=True)
class _Partial:
    total: int
    started: float
    chunks: dict[int, bytes]
    size: int = 0
    held: int = 0
    """Bytes in the account."""


class PartialMessages:
    """Joins messages that come in parts, in any order."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._partial: OrderedDict[bytes, _Partial] = OrderedDict()

    def __len__(self) -> int:
        return len(self._partial)

    def clear(self) -> None:
        for digest in list(self._partial):
            self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        whole = self._partial.pop(digest, None)
        if whole is not None:
            self._account.give(whole.held)

    def add(self, part: wire.Part, now: float) -> wire.Message | None:
        """Take a part; the message once it is whole. Raises BadPacket."""
        if not 0 < part.total_size <= wire.MAX_WHOLE or not part.data:
            raise BadPacket("message part of a wrong size")
        if part.offset < 0 or part.offset + len(part.data) > part.total_size:
            raise BadPacket("message part outside of its message")
        whole = self._partial.get(part.hash)
        if whole is None or whole.total != part.total_size or now - whole.started > PARTIAL_LIFE:
            self._drop(part.hash)
            while len(self._partial) >= MAX_PARTIAL:
                self._drop(next(iter(self._partial)))
            whole = self._partial[part.hash] = _Partial(part.total_size, now, {})
        if part.offset in whole.chunks:
            return None
        if len(whole.chunks) >= MAX_CHUNKS:
            raise BadPacket("message in too many parts")
        cost = ENTRY + len(part.data)
        if not self._account.take(cost):
            self._drop(part.hash)
            return None
        whole.held += cost
        whole.chunks[part.offset] = part.data
        whole.size += len(part.data)
        if whole.size < whole.total:
            return None
        self._drop(part.hash)
        data = b"".join(whole.chunks[offset] for offset in sorted(whole.chunks))
        if sha256(data).digest() != part.hash:
            raise BadPacket("message parts do not add up to their hash")
        message = wire.parse_message(data)
        if isinstance(message, wire.Part):
            raise BadPacket("a message part inside of message parts")
        return message
