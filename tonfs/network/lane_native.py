"""`Lane` and `Sink` on top of the C helper. Importing this module raises ImportError where it cannot work."""

from __future__ import annotations

import ctypes.util
import itertools
import threading
from typing import Any, Final

from ._fast._packets import ffi, lib
from .lane import (
    CONFIRM_DATAGRAM,
    CONFIRM_EVERY,
    HEAD_SIZE,
    KEY_SIZE,
    MAX_CUSTOM,
    NOISE_SIZE,
    PART_DATAGRAM,
    SPARE,
    SYMBOL,
    Kind,
    Opened,
    Sink,
)

VERSION: Final = 3
"""Of the helper that this module was written for (`tf_version` in packets.c)."""
if not hasattr(lib, "tf_version") or lib.tf_version() != VERSION:
    raise ImportError("the C helper was built from other sources than these: install again")
_CONFIRM_SIZE: Final = 52
_KINDS: Final = tuple(Kind)
_uncleared: Any = ffi.new_allocator(should_clear_after_alloc=False)
_tags = itertools.count(1)


def _start() -> None:
    """Let the helper find libcrypto: first the one that Python's own ssl module has loaded."""
    import _hashlib  # noqa: F401

    for name in ("libcrypto.so.3", ctypes.util.find_library("crypto")):
        if name and lib.tf_start(name.encode()) == 0:
            return
    raise ImportError("the C helper found no libcrypto")


_start()


class _Result(threading.local):
    """What `tf_open` writes to, one a thread."""

    def __init__(self) -> None:
        self.opened: Any = ffi.new("tf_opened *")
        self.counts: Any = ffi.cast("int32_t *", self.opened)
        self.touched: Any = self.opened.touched
        self.plain: Any = ffi.buffer(self.opened.plain)
        self.sealed: Any = ffi.buffer(self.opened.sealed)
        self.acks: Any = ffi.buffer(self.opened.acks)
        self.small: Any = ffi.new("uint8_t[]", MAX_CUSTOM + 128)


_result: Final = _Result()


class NativeSink:
    """See `Sink`. The symbols lie in memory of Python, so a view of them keeps it alive."""

    __slots__ = ("_data", "_esi", "_seen", "_sink", "k", "key", "tag")

    def __init__(self, key: bytes, k: int) -> None:
        if len(key) != KEY_SIZE or not 0 < k <= 4096:
            raise ValueError("sink of a wrong shape")
        self.key = key
        self.k = k
        self.tag = next(_tags) & 0xFFFFFFFF
        room = k + SPARE
        self._data: Any = _uncleared("uint8_t[]", SYMBOL * (k + room))
        self._seen: Any = ffi.new("uint8_t[]", k)
        self._esi: Any = _uncleared("uint32_t[]", room)
        self._sink: Any = ffi.new("tf_sink *")
        sink = self._sink
        ffi.memmove(sink.key, key, KEY_SIZE)
        sink.tag, sink.k, sink.room, sink.stop_at = self.tag, k, room, k
        sink.data, sink.seen, sink.esi = self._data, self._seen, self._esi

    @property
    def received(self) -> int:
        return int(self._sink.received)

    @property
    def sources(self) -> int:
        return int(self._sink.sources)

    @property
    def unconfirmed(self) -> int:
        return int(self._sink.unconfirmed)

    @property
    def due(self) -> bool:
        sink = self._sink
        return bool(sink.unconfirmed >= CONFIRM_EVERY or sink.max_seqno - sink.confirmed >= CONFIRM_EVERY)

    @property
    def stop_at(self) -> int:
        return int(self._sink.stop_at)

    @stop_at.setter
    def stop_at(self, value: int) -> None:
        self._sink.stop_at = min(value, 0xFFFFFFFF)

    def put(self, esi: int, symbol: bytes) -> int:
        if len(symbol) != SYMBOL:
            raise ValueError("symbol of a wrong size")
        return int(lib.tf_sink_put(self._sink, esi, symbol))

    def confirm(self) -> bytes:
        out = _result.small
        lib.tf_sink_confirm(self._sink, out)
        return bytes(ffi.buffer(out, _CONFIRM_SIZE))

    def whole(self, size: int) -> memoryview:
        if not 0 <= size <= SYMBOL * self.k:
            raise ValueError("a part is not that long")
        return memoryview(ffi.buffer(self._data, size)).toreadonly()

    def symbols(self) -> dict[int, bytes]:
        view = memoryview(ffi.buffer(self._data))
        seen = bytes(ffi.buffer(self._seen))
        found = {n: bytes(view[SYMBOL * n : SYMBOL * n + SYMBOL]) for n in range(self.k) if seen[n]}
        for number in range(self.received - self.sources):
            at = SYMBOL * (self.k + number)
            found[self._esi[number]] = bytes(view[at : at + SYMBOL])
        return found

    def extra(self) -> list[int]:
        return list(ffi.unpack(self._esi, count)) if (count := self.received - self.sources) else []

    def fill(self, rows: bytes) -> bool:
        if len(rows) != self.k * (self.received - self.sources):
            raise ValueError("rows of a wrong size")
        return bool(lib.tf_sink_fill(self._sink, rows, self.received - self.sources))


class NativeLane:
    """See `Lane`."""

    __slots__ = ("_lane", "_sinks")

    def __init__(self) -> None:
        self._lane: Any = ffi.new("tf_lane *")
        self._sinks: dict[int, NativeSink] = {}

    @property
    def in_seqno(self) -> int:
        return int(self._lane.in_seqno)

    @property
    def out_seqno(self) -> int:
        return int(self._lane.out_seqno)

    @property
    def confirmed(self) -> int:
        return int(self._lane.confirmed)

    @property
    def promised(self) -> int:
        return int(self._lane.promised)

    @promised.setter
    def promised(self, value: int) -> None:
        self._lane.promised = value

    def set_channel(self, in_id: bytes, in_key: bytes, out_id: bytes, out_key: bytes) -> None:
        lane = self._lane
        for field, value in (
            (lane.in_id, in_id),
            (lane.in_key, in_key),
            (lane.out_id, out_id),
            (lane.out_key, out_key),
        ):
            if len(value) != 32:
                raise ValueError("keys and ids have 32 bytes")
            ffi.memmove(field, value, 32)

    def reset(self) -> None:
        lane = self._lane
        lane.in_seqno = lane.out_seqno = lane.promised = lane.confirmed = 0
        lane.window = [0, 0, 0, 0]

    def next_seqno(self) -> int:
        self._lane.out_seqno += 1
        return int(self._lane.out_seqno)

    def accept(self, seqno: int, confirm: int) -> bool:
        return bool(lib.tf_accept(self._lane, seqno, confirm))

    def watch(self, sink: Sink) -> bool:
        assert isinstance(sink, NativeSink)
        if sink.tag in self._sinks:
            return True
        if not lib.tf_watch(self._lane, sink._sink):
            return False
        self._sinks[sink.tag] = sink
        return True

    def unwatch(self, sink: Sink) -> None:
        assert isinstance(sink, NativeSink)
        if self._sinks.pop(sink.tag, None) is not None:
            lib.tf_unwatch(self._lane, sink._sink)

    def seal_parts(self, head: bytes, source: bytes, offset: int, first: int, count: int, noise: bytes) -> bytearray:
        if len(head) != HEAD_SIZE or len(noise) != NOISE_SIZE * count or offset < 0:
            raise ValueError("head or noise of a wrong size")
        out = bytearray(PART_DATAGRAM * count)
        if lib.tf_seal_parts(self._lane, head, source, len(source), offset, first, count, noise, ffi.from_buffer(out)):
            raise RuntimeError("libcrypto refused to encrypt")
        return out

    def seal_custom(self, data: bytes, noise: bytes) -> bytes:
        if len(data) > MAX_CUSTOM or len(noise) != NOISE_SIZE:
            raise ValueError("message or noise of a wrong size")
        out = _result.small
        size = lib.tf_seal_custom(self._lane, data, len(data), noise, out)
        if not size:
            raise RuntimeError("libcrypto refused to encrypt")
        return bytes(ffi.buffer(out, size))

    def open(self, buffer: bytearray, at: int, end: int, step: int, noise: bytes) -> Opened:
        noises = len(noise) // NOISE_SIZE
        if not 0 <= at <= end <= len(buffer) or step < 1 or noises < 1:
            raise ValueError("datagrams outside the buffer, or no noise")
        result = _result
        if lib.tf_open(self._lane, ffi.from_buffer(buffer), at, end, step, noise, noises, result.opened):
            raise RuntimeError("libcrypto refused to decrypt")
        after, kind, start, length, accepted, bad, refused, touched, sealed, acks = ffi.unpack(result.counts, 10)
        sinks = self._sinks
        return Opened(
            after,
            _KINDS[kind],
            result.plain[start : start + length] if length else b"",
            accepted,
            bad,
            refused,
            sinks[result.opened.done] if kind == Kind.DONE else None,
            [sinks[tag] for tag in ffi.unpack(result.touched, touched)] if touched else [],
            result.sealed[: sealed * CONFIRM_DATAGRAM] if sealed else b"",
            [result.acks[n : n + _CONFIRM_SIZE] for n in range(0, acks * _CONFIRM_SIZE, _CONFIRM_SIZE)] if acks else [],
        )


def mix(rows: bytes, k: int, data: bytes) -> bytes:
    """See `Mix`."""
    count = len(rows) // k
    out = _uncleared("uint8_t[]", SYMBOL * count)
    if len(rows) != k * count or lib.tf_mix(rows, count, k, data, len(data), out):
        raise ValueError("rows or data of a wrong size")
    return bytes(ffi.buffer(out))
