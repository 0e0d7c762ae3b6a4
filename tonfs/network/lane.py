"""The packet work of one ADNL channel, a batch of datagrams a call: seal symbols, open trains of them into place.

Two classes with one behaviour, byte for byte: `lane_native` (the C helper `_fast`, where it was built) and
`lane_python`. The environment variable `TONFS_PACKETS` (`native` or `python`) overrides the choice, for tests.

A `Lane` holds what a batch needs: the channel's keys, the sequence numbers of the pair, and the `Sink`s that are
watched: a sink is where the symbols of one part of an RLDP2 transfer go. `Lane.open` takes datagrams until one needs
more than that; the caller deals with it, perhaps watches another sink, and goes on behind it:

    while at < end:
        opened = lane.open(buffer, at, end, step, noise(4))
        at = opened.next
        ...

A lane and its sinks belong to one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from ..log import get_logger

log = get_logger(__name__)

SYMBOL: Final = 768
PART_DATAGRAM: Final = 952
"""Bytes of a datagram that `seal_parts` makes."""
KEY_SIZE: Final = 60
HEAD_SIZE: Final = 64
NOISE_SIZE: Final = 14
"""Random bytes that each sealed packet takes."""
MAX_CUSTOM: Final = 1024
"""Longest message for `seal_custom`, in bytes."""
MAX_SINKS: Final = 256
SPARE: Final = 16
"""A sink has room for so many extra symbols more than its part has source symbols."""
MAX_LOST: Final = 96
"""`Sink.fill` works out no more source symbols than that."""
CONFIRM_EVERY: Final = 32
"""Symbols between two confirmations of a part, lost ones counted: as many as the mask of a confirmation covers."""
CONFIRM_DATAGRAM: Final = 164
"""Bytes of a datagram that holds a confirmation."""


class Kind(IntEnum):
    """Why `Lane.open` stopped."""

    END = 0
    """All datagrams were taken."""
    STRAY = 1
    """The datagram at `next` does not begin with this channel's id."""
    PLAIN = 2
    """`data` is a packet that holds something unusual; its sequence numbers were not looked at."""
    CUSTOM = 3
    """`data` is a custom message, of a packet that was accepted, which is not a symbol for a watched sink."""
    DONE = 4
    """The sink `done` has all its source symbols, or `stop_at` distinct ones, or no room for another one."""
    PAUSE = 5
    """Nothing special: call again."""


class Sink(Protocol):
    """Receives the symbols of one part. `key` is a messagePart's bytes 4..64 (transfer id to total size)."""

    key: bytes
    k: int
    stop_at: int
    """Number of distinct symbols at which `put` asks for attention; k at first."""

    @property
    def received(self) -> int:
        """Distinct symbols."""
        ...

    @property
    def sources(self) -> int:
        """Distinct source symbols (numbers below k)."""
        ...

    @property
    def unconfirmed(self) -> int:
        """Symbols since the last confirmation."""
        ...

    @property
    def due(self) -> bool:
        """A confirmation should not wait any longer."""
        ...

    def put(self, esi: int, symbol: bytes) -> int:
        """Take a symbol of 768 bytes. 0: nothing to do; 1: as Kind.DONE says; 2: no room for it."""
        ...

    def confirm(self) -> bytes:
        """The `rldp2.confirm` that is due."""
        ...

    def whole(self, size: int) -> memoryview:
        """The first `size` bytes of the part, once all source symbols are there. Not to be written to."""
        ...

    def symbols(self) -> dict[int, bytes]:
        """All symbols that came, by number."""
        ...

    def extra(self) -> list[int]:
        """Numbers of the extra symbols, in the order in which they came."""
        ...

    def fill(self, rows: bytes) -> bool:
        """Work out the source symbols that are missing (at most `MAX_LOST`) from the extra ones. `rows`: of each extra
        symbol, in the order of `extra`, the k factors of the source symbols whose sum it is (GF(256)).

        False: they do not suffice. Afterwards only `whole` means anything."""
        ...


class Opened(NamedTuple):
    """What `Lane.open` did.

    `touched`: sinks that got symbols. `sealed`: datagrams of `CONFIRM_DATAGRAM` bytes that confirm some of them, to be
    sent. `acks`: `rldp2.confirm`s of the peer, the newest of each part.
    """

    next: int
    kind: Kind
    data: bytes
    accepted: int
    bad: int
    refused: int
    done: Sink | None
    touched: list[Sink]
    sealed: bytes
    acks: list[bytes]


class Lane(Protocol):
    """One pair's channel and counters."""

    @property
    def in_seqno(self) -> int:
        """Highest sequence number received."""
        ...

    @property
    def out_seqno(self) -> int:
        """Last sequence number used."""
        ...

    @property
    def confirmed(self) -> int:
        """The number of ours that the packet accepted last confirms."""
        ...

    promised: int
    """A higher number that was used besides, or 0: it may be confirmed, and then numbers go on behind it."""

    def set_channel(self, in_id: bytes, in_key: bytes, out_id: bytes, out_key: bytes) -> None: ...

    def reset(self) -> None:
        """Both counters begin anew."""
        ...

    def next_seqno(self) -> int:
        """The number for one more packet."""
        ...

    def accept(self, seqno: int, confirm: int) -> bool:
        """Whether a packet with these numbers is new and possible (reference 2.4, rules 5 and 6); books it if so."""
        ...

    def watch(self, sink: Sink) -> bool:
        """Let `open` fill this sink; False when there are too many."""
        ...

    def unwatch(self, sink: Sink) -> None: ...

    def seal_parts(
        self, head: bytes, source: bytes, offset: int, first: int, count: int, noise: bytes
    ) -> bytes | bytearray:
        """`count` datagrams of 952 bytes, in one buffer: symbols number `first`... of 768 bytes that begin at `offset`
        of `source` (zeros behind its end). `head`: the messagePart's first 64 bytes. `noise`: 14 bytes a datagram."""
        ...

    def seal_custom(self, data: bytes, noise: bytes) -> bytes:
        """A datagram with one custom message of at most 1024 bytes (ValueError if longer)."""
        ...

    def open(self, buffer: bytearray, at: int, end: int, step: int, noise: bytes) -> Opened:
        """Open the datagrams of `step` bytes each (the last may be shorter) that lie between `at` and `end`.

        `noise`: 14 bytes for each confirmation that may be sealed, at least one."""
        ...


Mix = Callable[[bytes, int, bytes], bytes]
"""(rows, k, data) -> symbols: sums over GF(256) of the k source symbols of 768 bytes in `data` (zeros behind its end).
`rows` has k factors for each sum."""

_noise = b""
_noise_used = 0


def noise(count: int) -> bytes:
    """Random bytes for so many packets."""
    global _noise, _noise_used
    end = _noise_used + NOISE_SIZE * count
    if end > len(_noise):
        _noise = os.urandom(NOISE_SIZE * max(count, 1024))
        _noise_used, end = 0, NOISE_SIZE * count
    found, _noise_used = _noise[_noise_used:end], end
    return found


def _choose() -> tuple[str, Callable[[], Lane], Callable[[bytes, int], Sink], Mix]:
    wanted = os.environ.get("TONFS_PACKETS", "")
    if wanted != "python":
        try:
            from . import lane_native
        except ImportError as exc:
            if wanted == "native":
                raise
            if not isinstance(exc, ModuleNotFoundError):  # that one is as usual: no compiler was there
                log.warning("the C helper is not used, packets cost more", why=str(exc))
        else:
            return "native", lane_native.NativeLane, lane_native.NativeSink, lane_native.mix
    from . import lane_python

    return "python", lane_python.PythonLane, lane_python.PythonSink, lane_python.mix


implementation, make_lane, make_sink, mix = _choose()
