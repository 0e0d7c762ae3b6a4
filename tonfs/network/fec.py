"""Forward error correction of RLDP2: RaptorQ with 768-byte symbols (reference protocol 3.6).

The first K symbols are plain slices of the data, so the encoder and decoder of the `raptorq` wheel come into play
only when a symbol was lost. They hold the GIL while they solve (0.6 ms for 128 KiB, about 10-25 ms for a part of
2,000,000 bytes), so a worker thread would gain nothing; solving happens in place. The wheel follows RFC 6330; for the
sizes where TON does not, our own `raptor` does the work.
"""

from __future__ import annotations

from typing import Any, Final

import raptorq

from . import raptor

SYMBOL: Final = 768
MAX_PART: Final = 2 * 1024 * 1024
"""Longest FEC block accepted (Go's limit); C++ and we send parts of 2,000,000 bytes."""
MAX_ESI: Final = 1 << 24


def symbols_of(size: int) -> int:
    """K: source symbols of a part of `size` bytes."""
    return -(-size // SYMBOL)


class SymbolSource:
    """Makes any number of symbols of one part."""

    __slots__ = ("_block", "_data", "_encoder", "_repair", "k")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.k = symbols_of(len(data))
        self._encoder: Any = None
        self._block: raptor.Block | None = None
        self._repair: list[bytes] = []

    def symbol(self, esi: int) -> bytes:
        """Symbol number `esi`, 768 bytes."""
        if esi < self.k - 1:
            start = esi * SYMBOL
            return self._data[start : start + SYMBOL]
        if esi < self.k:
            return self._data[esi * SYMBOL :].ljust(SYMBOL, b"\0")
        return self._ton_repair(esi) if raptor.departs(self.k) else self._rfc_repair(esi - self.k)

    def _ton_repair(self, esi: int) -> bytes:
        if self._block is None:
            self._block = raptor.solve(self.k, {n: self.symbol(n) for n in range(self.k)}, SYMBOL)
            assert self._block is not None  # the source symbols always determine the block
        return self._block.symbol(esi - self.k + raptor.parameters(self.k).k)

    def _rfc_repair(self, number: int) -> bytes:
        if number >= len(self._repair):
            if self._encoder is None:
                self._encoder = raptorq.Encoder.with_defaults(self._data, SYMBOL)
            # There is no call for one repair symbol: ask for all up to some more than this one.
            count = number + 32 + self.k // 10 if number < 4096 else number * 2
            self._repair = [packet[4:] for packet in self._encoder.get_encoded_packets(count)[self.k :]]
        return self._repair[number]


class PartDecoder:
    """Collects symbols of one part until its data is known."""

    __slots__ = ("_extra", "_patience", "_solve_at", "_source", "data", "k", "received", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.k = symbols_of(size)
        self.received = 0
        """Distinct symbols."""
        self.data: bytes | None = None
        self._source: dict[int, bytes] = {}
        self._extra: dict[int, bytes] = {}
        self._solve_at = self.k
        self._patience = 1

    @property
    def hopeless(self) -> bool:
        """Far more symbols than an honest sender's part needs, and still no data."""
        return self.data is None and len(self._extra) > self.k + 64

    def add(self, esi: int, symbol: bytes) -> bool:
        """Take a symbol of 768 bytes; False if it was there. Sets `data` as soon as the part is known."""
        where = self._source if esi < self.k else self._extra
        if esi in where or self.data is not None:
            return False
        where[esi] = symbol
        self.received += 1
        if len(self._source) == self.k:
            source = self._source
            self._finish(b"".join([source[i] for i in range(self.k)])[: self.size])
        elif self.received >= self._solve_at:
            self._solve()
        return True

    def _solve(self) -> None:
        """Try to decode. After each failure twice as many more symbols are awaited: a sender may choose symbols that
        depend on each other, and must not make us solve for each of them."""
        symbols = self._source | self._extra
        if raptor.departs(self.k):
            block = raptor.solve(self.k, symbols, SYMBOL)
            if block is not None:
                whole = [symbols[n] if n in symbols else block.symbol(n) for n in range(self.k)]
                self._finish(b"".join(whole)[: self.size])
                return
        else:
            decoder = raptorq.Decoder.with_defaults(self.size, SYMBOL)
            for number, content in symbols.items():
                data = decoder.decode(number.to_bytes(4, "big") + content)
                if data is not None:
                    self._finish(data)
                    return
        self._solve_at = self.received + self._patience
        self._patience *= 2

    def _finish(self, data: bytes) -> None:
        self.data = data
        self._source = {}
        self._extra = {}
