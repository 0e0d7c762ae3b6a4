"""Where one peer is reached, and what makes us believe it.

A packet that the peer signed or sealed proves who made it, not where it comes from: whoever saw it may send it again
from an invented address, and so may the peer itself. So an address gets bulk only when it is *proven*: something came
back that only a receiver there could know. That is the key of our channel, if it went to this address alone; later it
is the random sequence number of a `nop` that went there, when a packet from there confirms exactly it. Till then an
address that somebody else gave us may be knocked at, and one that only wrote to us gets back `CREDIT` bytes a byte.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from .api import UdpAddress

CREDIT: Final = 3
CREDIT_MAX: Final = 8 * 1024
CANDIDATES: Final = 4
CANDIDATE_LIFE: Final = 5.0
CHALLENGE_EVERY: Final = 0.2
_NUMBERS: Final = 1 << 40
"""So many sequence numbers may be the challenge: too many to be guessed within its life."""
_LAST: Final = 1 << 62
"""Sequence numbers that leave no room for jumps."""


@dataclass(slots=True)
class _Candidate:
    number: int
    since: float
    sent: float


class Path:
    """The address in use, and those that might replace it. `up`: the peer has our channel's key."""

    def __init__(self) -> None:
        self.address: UdpAddress | None = None
        self.proven = False
        self._called = False
        self._credit = 0
        self._key_at: UdpAddress | None = None
        """Where our channel's key went first."""
        self._key_alone = True
        """It went nowhere else."""
        self._candidates: dict[UdpAddress, _Candidate] = {}

    def call_at(self, address: UdpAddress) -> None:
        """Somebody other than the peer gives its address."""
        if address != self.address:
            self._adopt(address)
        self._called = True

    def _adopt(self, address: UdpAddress) -> None:
        self.address = address
        self.proven = self._called = False
        self._credit = 0

    def heard(self, source: UdpAddress, size: int, up: bool) -> None:
        """So many bytes of the peer came from there. A proven address stays, unless the peer began anew."""
        if source != self.address and not (self.proven and up):
            self._adopt(source)
        if not self.proven:
            self._credit = min(self._credit + CREDIT * size, CREDIT_MAX)

    def spend(self, size: int) -> bool:
        """Whether a datagram of that size may go to the address, proven or not; counts it."""
        if self.proven or self._called:
            return True
        if self._credit < size:
            return False
        self._credit -= size
        return True

    def forget_key(self) -> None:
        """The channel's key will be another one."""
        self._key_at, self._key_alone = None, True
        self._candidates.clear()

    def key_sent(self) -> None:
        """Our channel's key leaves to the address."""
        if self._key_at is None:
            self._key_at = self.address
        elif self._key_at != self.address:
            self._key_alone = False

    def key_used(self) -> None:
        """The peer has our channel's key."""
        if self._key_alone and self.address is not None and self._key_at == self.address:
            self.proven = True

    def challenge(self, source: UdpAddress, confirmed: int, last: int, now: float) -> int:
        """A packet came from there that confirms `confirmed`, over a channel that is up. If the address is not proven
        by it, the sequence number, above our `last` one, of the nop to be sent there; 0 for none."""
        candidate = self._candidates.get(source)
        if candidate is not None and candidate.number == confirmed:
            self._candidates.clear()
            self._adopt(source)
            self.proven = True
            return 0
        if last >= _LAST or (candidate is not None and now - candidate.sent < CHALLENGE_EVERY):
            return 0
        if candidate is None or candidate.number <= last or now - candidate.since > CANDIDATE_LIFE:
            if candidate is None and not self._make_room(now):
                return 0
            number = last + 1 + secrets.randbelow(_NUMBERS)
            candidate = self._candidates[source] = _Candidate(number, now, now)
        candidate.sent = now
        return candidate.number

    def _make_room(self, now: float) -> bool:
        for address in [a for a, one in self._candidates.items() if now - one.since > CANDIDATE_LIFE]:
            del self._candidates[address]
        return len(self._candidates) < CANDIDATES
