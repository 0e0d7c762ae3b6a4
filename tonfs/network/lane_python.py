"""`Lane` and `Sink` in Python: what works where the C helper was not built. Gives the same bytes.

The loops over packets are written out, with everything in local names: a call costs as much as hashing 100 bytes.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Final

from . import octets, tl
from .aes_ctr import unchecked
from .lane import (
    CONFIRM_EVERY,
    HEAD_SIZE,
    KEY_SIZE,
    MAX_CUSTOM,
    MAX_LOST,
    MAX_SINKS,
    NOISE_SIZE,
    PART_DATAGRAM,
    SPARE,
    SYMBOL,
    Kind,
    Opened,
    Sink,
)

MAX_ESI: Final = 1 << 24
_MAX_DATAGRAM: Final = 2048
_MAX_CONFIRMS: Final = 64
_WIDTH: Final = 256
_WINDOW: Final = (1 << _WIDTH) - 1
_PART: Final = 840

_SEQNOS = struct.Struct("<qq")
_U32 = struct.Struct("<I")
_CONFIRM = struct.Struct("<I32s4sIII")
_NUMBERS = struct.Struct("<88xII768xqqB7x").unpack
"""Of a usual symbol's packet: symbol number, length field of the symbol, seqno, confirm_seqno, length of rand2."""
_NEEDED: Final = 0x4 | 0x40 | 0x80
"""packetContents flags: one message, seqno, confirm_seqno. Two versions and two dates may be there besides."""
_VERSION, _PRIORITY, _REINIT = 0x100, 0x200, 0x400
_PACKET_ID: Final = tl.ADNL_PACKET_CONTENTS.to_bytes(4, "little")
_CUSTOM_ID: Final = tl.ADNL_CUSTOM.to_bytes(4, "little")
_CONFIRM_ID: Final = tl.RLDP2_CONFIRM.to_bytes(4, "little")
_PART_ID: Final = tl.RLDP2_MESSAGE_PART.to_bytes(4, "little")
_FLAGS: Final = _U32.pack(_NEEDED)
_START: Final = _PACKET_ID + b"\x07"
_CUSTOM_HEAD: Final = _FLAGS + _CUSTOM_ID
_PART_HEAD: Final = _CUSTOM_HEAD + _U32.pack(0xFE | _PART << 8)
_SYMBOL_LENGTH: Final = 0xFE | SYMBOL << 8
_SYMBOL_PREFIX: Final = _U32.pack(_SYMBOL_LENGTH)
_USUAL_HEAD: Final = _PART_HEAD + _PART_ID


class PythonSink:
    """See `Sink`."""

    __slots__ = (
        "_confirmed",
        "_data",
        "_extra",
        "_seen",
        "k",
        "key",
        "mask",
        "max_seqno",
        "received",
        "sources",
        "stop_at",
        "unconfirmed",
    )

    def __init__(self, key: bytes, k: int) -> None:
        if len(key) != KEY_SIZE or not 0 < k <= 4096:
            raise ValueError("sink of a wrong shape")
        self.key = key
        self.k = k
        self.received = self.sources = self.max_seqno = self.mask = self.unconfirmed = self._confirmed = 0
        self.stop_at = k
        self._data = bytearray(SYMBOL * k)
        self._seen = bytearray(k)
        self._extra: dict[int, bytes] = {}

    def put(self, esi: int, symbol: bytes) -> int:
        if len(symbol) != SYMBOL:
            raise ValueError("symbol of a wrong size")
        if not 0 <= esi < MAX_ESI:
            return 2
        ahead = esi + 1 - self.max_seqno
        if ahead > 0:
            self.mask = (self.mask << ahead | 1) & 0xFFFFFFFF if ahead < 32 else 1
            self.max_seqno = esi + 1
        elif ahead > -32:
            self.mask |= 1 << -ahead
        self.unconfirmed += 1
        if esi < self.k:
            if self._seen[esi]:
                return 0
            self._seen[esi] = 1
            self._data[SYMBOL * esi : SYMBOL * esi + SYMBOL] = symbol
            self.sources += 1
        else:
            if esi in self._extra:
                return 0
            if len(self._extra) >= self.k + SPARE:
                return 2
            self._extra[esi] = symbol
        self.received += 1
        return 1 if self.sources == self.k or self.received >= self.stop_at else 0

    @property
    def ahead(self) -> int:
        """So many source symbols may follow the highest one so far before somebody must look at the sink; 0: there are
        no more."""
        if self.max_seqno >= self.k:
            return 0
        unconfirmed = max(self.unconfirmed, self.max_seqno - self._confirmed)
        room = min(self.k - self.max_seqno, self.k - self.sources, self.stop_at - self.received)
        return max(1, min(room, CONFIRM_EVERY - unconfirmed))

    def put_next(self, symbols: list[bytes]) -> int:
        """`put` for the source symbols that follow the highest one so far, at most `ahead` of them."""
        first, count = self.max_seqno, len(symbols)
        self.max_seqno += count
        self.mask = (self.mask << count | (1 << count) - 1) & 0xFFFFFFFF
        self.unconfirmed += count
        self._seen[first : first + count] = b"\1" * count
        self._data[SYMBOL * first : SYMBOL * (first + count)] = b"".join(symbols)
        self.sources += count
        self.received += count
        return 1 if self.sources == self.k or self.received >= self.stop_at else 0

    @property
    def due(self) -> bool:
        return self.unconfirmed >= CONFIRM_EVERY or self.max_seqno - self._confirmed >= CONFIRM_EVERY

    def confirm(self) -> bytes:
        self.unconfirmed = 0
        self._confirmed = self.max_seqno
        key = self.key
        return _CONFIRM.pack(tl.RLDP2_CONFIRM, key[:32], key[48:52], self.max_seqno, self.mask, self.received)

    def whole(self, size: int) -> memoryview:
        if not 0 <= size <= SYMBOL * self.k:
            raise ValueError("a part is not that long")
        return memoryview(self._data)[:size].toreadonly()

    def symbols(self) -> dict[int, bytes]:
        data = self._data
        found = {n: bytes(data[SYMBOL * n : SYMBOL * n + SYMBOL]) for n in range(self.k) if self._seen[n]}
        return found | self._extra

    def extra(self) -> list[int]:
        return list(self._extra)

    def fill(self, rows: bytes) -> bool:
        if len(rows) != self.k * len(self._extra):
            raise ValueError("rows of a wrong size")
        lost = [n for n in range(self.k) if not self._seen[n]]
        if len(lost) > MAX_LOST:
            return False
        data = self._data
        symbols = [
            int.from_bytes(data[SYMBOL * n : SYMBOL * n + SYMBOL], "little") if self._seen[n] else 0
            for n in range(self.k)
        ]
        solved = octets.solve_lost(rows, symbols, lost, list(self._extra.values()), SYMBOL)
        if solved is None:
            return False
        for n, value in zip(lost, solved, strict=True):
            data[SYMBOL * n : SYMBOL * n + SYMBOL] = value.to_bytes(SYMBOL, "little")
        return True


def mix(rows: bytes, k: int, data: bytes) -> bytes:
    """See `Mix`."""
    if len(rows) % k or len(data) > SYMBOL * k:
        raise ValueError("rows or data of a wrong size")
    return octets.mix(rows, k, data, SYMBOL)


def find_custom(plain: bytes) -> tuple[int, int, int, int] | None:
    """(start, end, seqno, confirm_seqno) of a packet that holds one custom message and nothing that matters besides."""
    size = len(plain)
    if size < 16 or plain[:4] != _PACKET_ID or plain[4] > 64:
        return None
    at = 4 + (plain[4] + 4 & ~3)
    if at + 12 > size:
        return None
    flags: int = _U32.unpack_from(plain, at)[0]
    if flags & ~(_VERSION | _PRIORITY | _REINIT) != _NEEDED or plain[at + 4 : at + 8] != _CUSTOM_ID:
        return None
    at += 8
    first = plain[at]
    if first == 0xFF:
        return None
    prefix, length = (4, _U32.unpack_from(plain, at)[0] >> 8) if first == 0xFE else (1, first)
    start = at + prefix
    if length > size - start:
        return None
    tail = at + (prefix + length + 3 & ~3)
    if tail + 16 > size:
        return None
    seqno, confirm = _SEQNOS.unpack_from(plain, tail)
    tail += 16 + (4 if flags & _VERSION else 0) + (4 if flags & _PRIORITY else 0) + (8 if flags & _REINIT else 0)
    if size - tail < 4 or plain[tail] > 64 or tail + (plain[tail] + 4 & ~3) != size:
        return None
    return start, start + length, seqno, confirm


class PythonLane:
    """See `Lane`."""

    __slots__ = (
        "_in_id",
        "_in_key",
        "_in_mask",
        "_out_id",
        "_out_key",
        "_sinks",
        "confirmed",
        "in_seqno",
        "out_seqno",
        "promised",
    )

    def __init__(self) -> None:
        self._in_id = self._in_key = self._out_id = self._out_key = bytes(32)
        self.in_seqno = self.out_seqno = self.promised = self.confirmed = self._in_mask = 0
        self._sinks: dict[bytes, PythonSink] = {}

    def set_channel(self, in_id: bytes, in_key: bytes, out_id: bytes, out_key: bytes) -> None:
        if any(len(value) != 32 for value in (in_id, in_key, out_id, out_key)):
            raise ValueError("keys and ids have 32 bytes")
        self._in_id, self._in_key, self._out_id, self._out_key = in_id, in_key, out_id, out_key

    def reset(self) -> None:
        self.in_seqno = self.out_seqno = self.promised = self.confirmed = self._in_mask = 0

    def next_seqno(self) -> int:
        self.out_seqno += 1
        return self.out_seqno

    def accept(self, seqno: int, confirm: int) -> bool:
        if seqno < 1 or not 0 <= confirm <= max(self.out_seqno, self.promised):
            return False
        ahead = seqno - self.in_seqno
        if ahead > 0:
            self._in_mask = (self._in_mask << ahead | 1) & _WINDOW if ahead < _WIDTH else 1
            self.in_seqno = seqno
        elif ahead <= -_WIDTH or self._in_mask >> -ahead & 1:
            return False
        else:
            self._in_mask |= 1 << -ahead
        self.confirmed = confirm
        self.out_seqno = max(self.out_seqno, confirm)
        return True

    def watch(self, sink: Sink) -> bool:
        assert isinstance(sink, PythonSink)
        if sink.key not in self._sinks and len(self._sinks) >= MAX_SINKS:
            return False
        self._sinks[sink.key] = sink
        return True

    def unwatch(self, sink: Sink) -> None:
        assert isinstance(sink, PythonSink)
        if self._sinks.get(sink.key) is sink:
            del self._sinks[sink.key]

    def seal_parts(self, head: bytes, source: bytes, offset: int, first: int, count: int, noise: bytes) -> bytes:
        if len(head) != HEAD_SIZE or len(noise) != NOISE_SIZE * count or offset < 0:
            raise ValueError("head or noise of a wrong size")
        out: list[bytes] = []
        add, join, sha, code, seqnos, number_of = out.append, b"".join, sha256, unchecked(), _SEQNOS.pack, _U32.pack
        out_id, key1, key2, start, head = (
            self._out_id,
            self._out_key[:16],
            self._out_key[20:],
            _START,
            _PART_HEAD + head,
        )
        seqno, in_seqno, at, symbol_length = self.out_seqno, self.in_seqno, 0, _SYMBOL_PREFIX
        for esi in range(first, first + count):
            seqno += 1
            symbol = source[offset : offset + 768]
            if len(symbol) != 768:
                symbol = symbol.ljust(768, b"\0")
            plain = join((start, noise[at : at + 7], head, number_of(esi), symbol_length, symbol,
                          seqnos(seqno, in_seqno), b"\x07", noise[at + 7 : at + 14]))  # fmt: skip
            digest = sha(plain).digest()
            add(out_id)
            add(digest)
            add(code(key1 + digest[16:], digest[:4] + key2, plain))
            offset += 768
            at += 14
        self.out_seqno = seqno
        return join(out)

    def seal_custom(self, data: bytes, noise: bytes) -> bytes:
        size = len(data)
        if size > MAX_CUSTOM or len(noise) != NOISE_SIZE:
            raise ValueError("message or noise of a wrong size")
        prefix = bytes((size,)) if size < 254 else _U32.pack(0xFE | size << 8)
        self.out_seqno += 1
        numbers = _SEQNOS.pack(self.out_seqno, self.in_seqno)
        padding = bytes(-(len(prefix) + size) % 4)
        plain = b"".join((_START, noise[:7], _CUSTOM_HEAD, prefix, data, padding, numbers, b"\x07", noise[7:]))
        digest = sha256(plain).digest()
        key = self._out_key
        return self._out_id + digest + unchecked()(key[:16] + digest[16:], digest[:4] + key[20:], plain)

    def open(self, buffer: bytearray, at: int, end: int, step: int, noise: bytes) -> Opened:
        if not 0 <= at <= end <= len(buffer) or step < 1 or len(noise) < NOISE_SIZE:
            raise ValueError("datagrams outside the buffer, or no noise")
        run = _Run(bytes(memoryview(buffer)[at:end]), step, noise)
        while run.kind is None:
            plain = self._open_symbols(run) if step == PART_DATAGRAM else self._open_one(run)
            if plain is not None:
                self._take(run, plain)
        return run.result(at)

    def _open_one(self, run: _Run) -> bytes | None:
        """The next datagram, decrypted and checked; None with `run.kind` set, or when it was bad."""
        here = run.here
        if run.stopped(self._in_id):
            return None
        size = min(run.step, run.stop - here)
        run.here = here + size
        digest = run.batch[here + 32 : here + 64]
        if 64 <= size <= _MAX_DATAGRAM:
            key = self._in_key
            plain = unchecked()(key[:16] + digest[16:], digest[:4] + key[20:], run.batch[here + 64 : here + size])
            if sha256(plain).digest() == digest:
                return plain
        run.bad += 1
        return None

    def _open_symbols(self, run: _Run) -> bytes | None:
        """Datagrams of usual symbols that come in order, put into their sinks; then as `_open_one` for the next."""
        batch, here, last = run.batch, run.here, run.stop - PART_DATAGRAM
        key1, key2, sha, code = self._in_key[:16], self._in_key[20:], sha256, unchecked()
        start, numbers, in_id, out_seqno = _START, _NUMBERS, self._in_id, self.out_seqno
        symbols: list[bytes] = []  # those in a row that `_put` was not told of; `esi` and `seqno` are the next one's
        sink, head, ahead, esi, seqno, full = None, b"", 0, 0, self.in_seqno + 1, run.full
        while here <= last and batch.startswith(in_id, here) and not full:
            digest = batch[here + 32 : here + 64]
            plain = code(key1 + digest[16:], digest[:4] + key2, batch[here + 64 : here + 952])
            here += 952
            if sha(plain).digest() != digest:
                run.bad += 1
                continue
            # One comparison for all that is constant in a train: flags, constructors, and all that names the part.
            if plain[12:88] != head:
                self._put(run, sink, symbols)
                sink = self._sinks.get(plain[28:88]) if plain[12:28] == _USUAL_HEAD else None
                if sink is not None:
                    head, ahead, esi = plain[12:88], sink.ahead, sink.max_seqno
            number, length, packet, confirm, tail = numbers(plain)
            if (
                sink is None
                or not ahead
                or number != esi
                or packet != seqno
                or not 0 <= confirm <= out_seqno
                or length != _SYMBOL_LENGTH
                or tail != 7
                or not plain.startswith(start)
            ):
                self._put(run, sink, symbols)
                run.here = here
                return plain
            symbols.append(plain[96:864])
            self.confirmed = confirm
            esi += 1
            seqno += 1
            if len(symbols) == ahead:
                self._put(run, sink, symbols)
                if run.kind is not None:
                    run.here = here
                    return None
                ahead, full = sink.ahead, run.full
        self._put(run, sink, symbols)
        run.here = here
        return self._open_one(run)

    def _put(self, run: _Run, sink: PythonSink | None, symbols: list[bytes]) -> None:
        """Symbols that came in a row, in packets in a row."""
        count = len(symbols)
        if sink is None or not count:
            return
        self.in_seqno += count
        self._in_mask = (self._in_mask << count | (1 << count) - 1) & _WINDOW
        run.accepted += count
        run.touched[sink.key] = sink
        if sink.put_next(symbols):
            run.kind, run.done = Kind.DONE, sink
        elif sink.due:
            run.sealed.append(self.seal_custom(sink.confirm(), run.take_noise()))
        symbols.clear()

    def _take(self, run: _Run, plain: bytes) -> None:
        """A packet that may hold anything."""
        found = find_custom(plain)
        if found is None:
            run.kind, run.data = Kind.PLAIN, plain
            return
        start, end, seqno, confirm = found
        if not self.accept(seqno, confirm):
            run.refused += 1
            return
        run.accepted += 1
        custom = plain[start:end]
        tag = custom[:4]
        if tag == _CONFIRM_ID and len(custom) == 52:
            run.acks[custom[:40]] = custom
            return
        sink = None
        if tag == _PART_ID and len(custom) == _PART and custom[68:72] == _SYMBOL_PREFIX:
            sink = self._sinks.get(custom[4:64])
        esi = int.from_bytes(custom[64:68], "little")
        if sink is None or esi >= MAX_ESI:
            run.kind, run.data = Kind.CUSTOM, custom
            return
        run.touched[sink.key] = sink
        if sink.put(esi, custom[72:]):
            run.kind, run.done = Kind.DONE, sink
        elif sink.due:
            run.sealed.append(self.seal_custom(sink.confirm(), run.take_noise()))


class _Run:
    """One call of `open`: where it is, and what it found so far."""

    __slots__ = (
        "_noise",
        "accepted",
        "acks",
        "bad",
        "batch",
        "data",
        "done",
        "here",
        "kind",
        "refused",
        "sealed",
        "step",
        "stop",
        "touched",
    )

    def __init__(self, batch: bytes, step: int, noise: bytes) -> None:
        self.batch, self.step, self._noise = batch, step, noise
        self.here, self.stop = 0, len(batch)
        self.accepted = self.bad = self.refused = 0
        self.kind: Kind | None = None
        self.data = b""
        self.done: Sink | None = None
        self.touched: dict[bytes, Sink] = {}
        self.sealed: list[bytes] = []
        self.acks: dict[bytes, bytes] = {}

    @property
    def full(self) -> bool:
        """No room for what the next datagram may bring."""
        used = len(self.sealed)
        return used >= _MAX_CONFIRMS or NOISE_SIZE * (used + 1) > len(self._noise) or len(self.acks) >= _MAX_CONFIRMS

    def stopped(self, in_id: bytes) -> bool:
        """Whether there is nothing to open here; sets `kind` then."""
        if self.here >= self.stop:
            self.kind = Kind.END
        elif self.stop - self.here < 32 or self.step < 32 or not self.batch.startswith(in_id, self.here):
            self.kind = Kind.STRAY
        elif self.full:
            self.kind = Kind.PAUSE
        return self.kind is not None

    def take_noise(self) -> bytes:
        used = NOISE_SIZE * len(self.sealed)
        return self._noise[used : used + NOISE_SIZE]

    def result(self, base: int) -> Opened:
        assert self.kind is not None
        return Opened(
            base + self.here,
            self.kind,
            self.data,
            self.accepted,
            self.bad,
            self.refused,
            self.done,
            list(self.touched.values()),
            b"".join(self.sealed),
            list(self.acks.values()),
        )
