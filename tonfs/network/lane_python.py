"""`Lane` and `Sink` in Python: what works where the C helper was not built. Gives the same bytes.

The loops over packets are written out, with everything in local names: a call costs as much as hashing 100 bytes.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Final

from . import tl
from .aes_ctr import crypt
from .lane import (
    CONFIRM_EVERY,
    HEAD_SIZE,
    KEY_SIZE,
    MAX_CUSTOM,
    MAX_SINKS,
    NOISE_SIZE,
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
_SYMBOL_LENGTH: Final = _U32.pack(0xFE | SYMBOL << 8)
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

    __slots__ = ("_in_id", "_in_key", "_in_mask", "_out_id", "_out_key", "_sinks", "in_seqno", "out_seqno")

    def __init__(self) -> None:
        self._in_id = self._in_key = self._out_id = self._out_key = bytes(32)
        self.in_seqno = self.out_seqno = self._in_mask = 0
        self._sinks: dict[bytes, PythonSink] = {}

    def set_channel(self, in_id: bytes, in_key: bytes, out_id: bytes, out_key: bytes) -> None:
        if any(len(value) != 32 for value in (in_id, in_key, out_id, out_key)):
            raise ValueError("keys and ids have 32 bytes")
        self._in_id, self._in_key, self._out_id, self._out_key = in_id, in_key, out_id, out_key

    def reset(self) -> None:
        self.in_seqno = self.out_seqno = self._in_mask = 0

    def next_seqno(self) -> int:
        self.out_seqno += 1
        return self.out_seqno

    def accept(self, seqno: int, confirm: int) -> bool:
        if seqno < 1 or not 0 <= confirm <= self.out_seqno:
            return False
        ahead = seqno - self.in_seqno
        if ahead > 0:
            self._in_mask = (self._in_mask << ahead | 1) & _WINDOW if ahead < _WIDTH else 1
            self.in_seqno = seqno
            return True
        if ahead <= -_WIDTH or self._in_mask >> -ahead & 1:
            return False
        self._in_mask |= 1 << -ahead
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
        add, join, sha, code, seqnos, number_of = out.append, b"".join, sha256, crypt, _SEQNOS.pack, _U32.pack
        out_id, key1, key2, start, head = (
            self._out_id,
            self._out_key[:16],
            self._out_key[20:],
            _START,
            _PART_HEAD + head,
        )
        seqno, in_seqno, at, symbol_length = self.out_seqno, self.in_seqno, 0, _SYMBOL_LENGTH
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
        return self._out_id + digest + crypt(key[:16] + digest[16:], digest[:4] + key[20:], plain)

    def open(self, buffer: bytearray, at: int, end: int, step: int, noise: bytes) -> Opened:
        noises = len(noise) // NOISE_SIZE
        if not 0 <= at <= end <= len(buffer) or step < 1 or noises < 1:
            raise ValueError("datagrams outside the buffer, or no noise")
        limit = min(noises, _MAX_CONFIRMS)
        base = at
        batch = bytes(memoryview(buffer)[at:end])
        here, stop = 0, end - at
        sinks, in_id, key1, key2 = self._sinks, self._in_id, self._in_key[:16], self._in_key[20:]
        sha, code, seqnos, usual, symbol_length = sha256, crypt, _SEQNOS.unpack_from, _USUAL_HEAD, _SYMBOL_LENGTH
        accepted = bad = refused = 0
        kind, data, done = Kind.END, b"", None
        touched: dict[bytes, Sink] = {}
        sealed: list[bytes] = []
        acks: dict[bytes, bytes] = {}
        while here < stop:
            head = batch[here : here + 64]
            size = min(step, stop - here)
            if size < 32 or head[:32] != in_id:
                kind = Kind.STRAY
                break
            if len(sealed) >= limit or len(acks) >= _MAX_CONFIRMS:
                kind = Kind.PAUSE
                break
            digest = head[32:] if size >= 64 else b""
            here += size
            if len(digest) != 32 or size > _MAX_DATAGRAM:
                bad += 1
                continue
            plain = code(key1 + digest[16:], digest[:4] + key2, batch[here - size + 64 : here])
            if sha(plain).digest() != digest:
                bad += 1
                continue
            # The usual symbol first: one comparison for all that is constant, one look-up for all that names its part.
            if size == 952 and plain[12:28] == usual and plain[4] == 7 and plain[880] == 7 and plain[:4] == _PACKET_ID:
                start, length = 24, _PART
                seqno, confirm = seqnos(plain, 864)
            else:
                found = find_custom(plain)
                if found is None:
                    kind, data = Kind.PLAIN, plain
                    break
                start, after, seqno, confirm = found
                length = after - start
            if seqno == self.in_seqno + 1 and 0 <= confirm <= self.out_seqno:
                self.in_seqno = seqno
                self._in_mask = (self._in_mask << 1 | 1) & _WINDOW
            elif not self.accept(seqno, confirm):
                refused += 1
                continue
            accepted += 1
            if length == 52 and plain[start : start + 4] == _CONFIRM_ID:
                acks[plain[start : start + 40]] = plain[start : start + 52]
                continue
            sink = None
            if (
                length == 840
                and plain[start : start + 4] == _PART_ID
                and plain[start + 68 : start + 72] == symbol_length
            ):
                sink = sinks.get(plain[start + 4 : start + 64])
            esi = int.from_bytes(plain[start + 64 : start + 68], "little") if sink is not None else 0
            if sink is None or esi >= MAX_ESI:
                kind, data = Kind.CUSTOM, plain[start : start + length]
                break
            touched[sink.key] = sink
            if sink.put(esi, plain[start + 72 : start + 840]):
                kind, done = Kind.DONE, sink
                break
            if sink.unconfirmed >= CONFIRM_EVERY or sink.max_seqno - sink._confirmed >= CONFIRM_EVERY:
                used = NOISE_SIZE * len(sealed)
                sealed.append(self.seal_custom(sink.confirm(), noise[used : used + NOISE_SIZE]))
        sinks_touched, sealing, newest = list(touched.values()), b"".join(sealed), list(acks.values())
        return Opened(base + here, kind, data, accepted, bad, refused, done, sinks_touched, sealing, newest)
