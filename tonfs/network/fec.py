"""Forward error correction of RLDP2: RaptorQ with 768-byte symbols (reference protocol 3.6).

The first K symbols are plain slices of the data, so coding begins only when a symbol was lost. The usual case, a part
of up to `SHORT` symbols of which few are lost, is a small system of linear equations: `Sink.fill` solves it and `mix`
makes the repair symbols, 0.1 ms each for 128 KiB with the C helper.

All else is left to whole codecs: the `raptorq` wheel (1 ms for 128 KiB, 10-25 ms for a part of 2,000,000 bytes) where
TON keeps to RFC 6330, our own `raptor` where it does not. They hold the GIL, so a thread would gain nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import raptorq

from . import raptor
from .lane import KEY_SIZE, SPARE, SYMBOL, implementation, make_sink, mix

MAX_PART: Final = 2 * 1024 * 1024
"""Longest FEC block accepted (Go's limit); C++ and we send parts of 2,000,000 bytes."""
MAX_ESI: Final = 1 << 24
SHORT: Final = 720
"""Source symbols of 512 KiB and a bit. The matrix of a longer part is too large to be kept (K' squared bytes)."""
_FEW: Final = {"native": (48, 96), "python": (8, 32)}[implementation]
"""So many lost symbols cost less as a small system than by the wheel, and by `raptor`. At most `lane.MAX_LOST`."""


def symbols_of(size: int) -> int:
    """K: source symbols of a part of `size` bytes."""
    return -(-size // SYMBOL)


def _small(k: int, lost: int) -> bool:
    """Whether so many of k symbols are best made, or found again, by a small system."""
    return k <= SHORT and lost <= _FEW[raptor.departs(k)]


def _rows(k: int, symbols: Iterable[int]) -> bytes:
    """Of each symbol the factors of the k source symbols whose sum it is."""
    return b"".join([raptor.factors(k, esi) for esi in symbols])


class SymbolSource:
    """Makes any number of symbols of one part."""

    __slots__ = ("_block", "_data", "_encoder", "_repair", "k")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.k = symbols_of(len(data))
        self._encoder: Any = None
        self._block: raptor.Block | None = None
        self._repair = b""

    def symbol(self, esi: int) -> bytes:
        """Symbol number `esi`, 768 bytes."""
        source, offset, _ = self.stretch(esi, 1)
        return source[offset : offset + SYMBOL].ljust(SYMBOL, b"\0")

    def stretch(self, first: int, count: int) -> tuple[bytes, int, int]:
        """(bytes, offset, number of symbols): where symbol `first` and up to `count` in all lie, 768 bytes each.

        Behind the end of the bytes come zeros.
        """
        k = self.k
        if first < k:
            return self._data, first * SYMBOL, min(count, k - first)
        number = first - k
        if (number + count) * SYMBOL > len(self._repair):
            self._make_repair(number + count)
        return self._repair, number * SYMBOL, count

    def _make_repair(self, count: int) -> None:
        """Let `_repair` hold at least so many."""
        k = self.k
        if _small(k, count):
            self._repair += mix(_rows(k, range(k + len(self._repair) // SYMBOL, k + count)), k, self._data)
            return
        if raptor.departs(self.k):
            if self._block is None:
                source = {n: self.symbol(n) for n in range(self.k)}
                self._block = raptor.solve(self.k, source, SYMBOL)
                assert self._block is not None  # the source symbols always determine the block
            first = raptor.parameters(self.k).k + len(self._repair) // SYMBOL
            more = count - len(self._repair) // SYMBOL
            self._repair += b"".join(self._block.symbol(first + n) for n in range(more))
            return
        if self._encoder is None:
            self._encoder = raptorq.Encoder.with_defaults(self._data, SYMBOL)
        # There is no call for one repair symbol: ask for all up to some more than this one.
        count = count + 32 + self.k // 10 if count < 4096 else count * 2
        self._repair = b"".join([packet[4:] for packet in self._encoder.get_encoded_packets(count)[self.k :]])


class PartDecoder:
    """Collects symbols of one part, in a sink, until its data is known. `key`: see `Sink`."""

    __slots__ = ("_patience", "data", "k", "sink", "size")

    def __init__(self, size: int, key: bytes = bytes(KEY_SIZE)) -> None:
        self.size = size
        self.k = symbols_of(size)
        self.sink = make_sink(key, self.k)
        self.data: bytes | memoryview | None = None
        self._patience = 1

    @property
    def received(self) -> int:
        """Distinct symbols."""
        return self.sink.received

    @property
    def hopeless(self) -> bool:
        """Far more symbols than an honest sender's part needs, and still no data."""
        return self.data is None and self.sink.received - self.sink.sources >= self.k + SPARE

    def add(self, esi: int, symbol: bytes) -> bool:
        """Take a symbol of 768 bytes; False if it was there. Sets `data` as soon as the part is known."""
        if self.data is not None:
            return False
        before = self.sink.received
        if self.sink.put(esi, symbol):
            self.settle()
        return self.sink.received > before

    def settle(self) -> None:
        """The sink asks for attention: set `data` if it can be known by now."""
        sink = self.sink
        if self.data is not None:
            return
        if sink.sources == self.k:
            self.data = sink.whole(self.size)
        elif sink.received >= sink.stop_at:
            self._solve()

    def _solve(self) -> None:
        """Try to decode. After each failure twice as many more symbols are awaited: a sender may choose symbols that
        depend on each other, and must not make us solve for each of them."""
        sink = self.sink
        if _small(self.k, self.k - sink.sources):
            if sink.fill(_rows(self.k, sink.extra())):
                self.data = sink.whole(self.size)
                return
        elif self._decode():
            return
        sink.stop_at = sink.received + self._patience
        self._patience *= 2

    def _decode(self) -> bool:
        """Set `data` by solving for the whole block."""
        symbols = self.sink.symbols()
        if raptor.departs(self.k):
            block = raptor.solve(self.k, symbols, SYMBOL)
            if block is not None:
                whole = [symbols[n] if n in symbols else block.symbol(n) for n in range(self.k)]
                self.data = b"".join(whole)[: self.size]
        else:
            decoder = raptorq.Decoder.with_defaults(self.size, SYMBOL)
            for number, content in symbols.items():
                data = decoder.decode(number.to_bytes(4, "big") + content)
                if data is not None:
                    self.data = data
                    break
        return self.data is not None
