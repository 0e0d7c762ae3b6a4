"""How fast we serve: a rate for all peers together and one for each, in bytes of datagrams per second; 0: no limit.

A bucket is the time at which its next byte may leave. Who wants to send books the next free place in it, for one
portion, and comes back then; as everybody has at most one place booked, portions go round, and each gets its share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .lane import PART_DATAGRAM

PORTION: Final = 0.02
"""Seconds that a portion takes at the lower of the rates."""
LARGEST: Final = 64
"""Symbols of a portion: what one segmented sending carries."""
DEPTH: Final = 0.05
"""Seconds of a rate that may be made up for after a pause, or when a timer was late."""


class Bucket:
    """`rate` in bytes per second; 0: no limit. Time is passed in."""

    def __init__(self, rate: int) -> None:
        self.rate: Final = rate
        self._free = float("-inf")

    def book(self, size: int, now: float) -> float:
        """When these bytes may leave: now, if it is not later than that."""
        if not self.rate:
            return now
        at = max(self._free, now - DEPTH)
        self._free = at + size / self.rate
        return at


@dataclass(frozen=True)
class Upload:
    """The limits of one socket."""

    total: int = 0
    per_peer: int = 0
    bucket: Bucket = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bucket", Bucket(self.total))

    @property
    def portion(self) -> int:
        """Symbols that are booked together."""
        lower = min(rate for rate in (self.total, self.per_peer, LARGEST * PART_DATAGRAM / PORTION) if rate)
        return max(1, int(lower * PORTION / PART_DATAGRAM))

    def turns(self) -> Turns | None:
        """What one peer's link needs; None when there is no limit."""
        return Turns(self) if self.total or self.per_peer else None


class Turns:
    """When one peer may be sent something."""

    def __init__(self, upload: Upload) -> None:
        self._own = Bucket(upload.per_peer)
        self._all = upload.bucket
        self._portion = upload.portion
        self._left = 0
        self._booked = 0
        """1: a place in our own bucket, 2: one in the bucket of all, too."""
        self.at = float("-inf")
        """When the place that is booked comes up."""

    def room(self, now: float) -> int:
        """Symbols that may leave now; if none may, ask again at `at`."""
        size = self._portion * PART_DATAGRAM
        while self._left <= 0:
            if not self._booked:
                self._booked, self.at = 1, self._own.book(size, now)
            if self.at > now:
                return 0
            if self._booked == 1:  # only now: a place that its own rate forbids to use would be lost for all
                self._booked, self.at = 2, self._all.book(size, now)
                continue
            self._booked = 0
            self._left += self._portion
        return self._left

    def spent(self, symbols: int) -> None:
        """So many left; more than there was room for are paid later."""
        self._left -= symbols
