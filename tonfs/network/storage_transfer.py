"""Which piece to ask of whom: the pure scheduler of one bag's download.

Sets of pieces are plain integers (bit i is piece i): a set of a hundred thousand pieces is 12 KB and every set
operation on it takes a microsecond or two. Times are seconds of any monotonic clock.

Rules:
* Tickets say what is wanted. Sequential ones come first, by deadline, lowest piece first; then bulk ones, rarest piece
  first, by chance among equals.
* A peer has a window of pieces in flight: it grows by one with every good piece, is halved by silence.
* A piece that is slow at one peer is asked of a second one, and after twice that time of a third, at most of four: in
  sequential order as soon as it is slow, in bulk only when nothing fresh is left for the other peer (C++ never asks
  twice; a download's end is worth it).
* A peer that is known to be slow takes sequential pieces from the far end, where there is time.
* After silence a peer gets one piece at a time until it delivers again. A silent (peer, piece) pair rests, longer each
  time, and for as long as somebody else offers the piece who was not silent about it. A wrong one is never asked again.
* A peer that sent wrong bytes is dropped: while others offer a piece it is not asked, and after three wrong pieces
  never. (Rot in one block of the last copy must not make the rest of that copy unreachable.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Generic, TypeVar

from .storage_session import mask_of

PeerId = TypeVar("PeerId", bound=Hashable)

WINDOW_FIRST: Final = 6.0
WINDOW_MAX: Final = 16.0
"""C++ asks 5 at a time, Go 10; at 50 ms round trip 16 pieces of 128 KiB are 40 MB/s per peer."""
WINDOW_BYTES: Final = 16 << 20
"""Large pieces: no more than this in flight per peer, but at least two pieces."""
STRIKES: Final = 4
"""Silent requests in a row, each asked after the one before had failed, that make a peer not worth asking."""
WRONG_MAX: Final = 3
REST_FIRST: Final = 5.0
REST_MAX: Final = 60.0
SLOW_MIN: Final = 0.5
SLOW_MAX: Final = 5.0
SLOWEST_RATE: Final = 64 << 10
"""Bytes per second below which a piece counts as not coming at all."""
ASKERS_MAX: Final = 4
_LEVELS: Final = 8


class Order(IntEnum):
    HEADER = 0
    """The header pieces: nothing can be written to files before they are here."""
    SEQUENTIAL = 1
    BULK = 2


@dataclass
class Reputation:
    """What one peer did to us in one bag; outlives the download."""

    wrong: int = 0
    bad: int = 0
    """Pieces that came with wrong bytes."""
    seqno: int = 0
    """The last number of an update that we sent it (see `storage_session`)."""


@dataclass
class Ticket:
    pieces: int
    order: Order
    deadline: float


@dataclass
class PeerView:
    """What the scheduler knows about one peer."""

    reputation: Reputation
    has: int = 0
    usable: bool = False
    window: float = WINDOW_FIRST
    in_flight: dict[int, float] = field(default_factory=dict)
    """Piece -> when it was asked for."""
    resting: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Piece -> (not before, times silent)."""
    strikes: int = 0
    struck_at: float = float("-inf")
    smooth: float = 0.0
    """Smoothed seconds from asking to having; 0 before the first piece."""
    swing: float = 0.0
    received: int = 0

    def measured(self, seconds: float) -> None:
        if self.received == 0:
            self.smooth, self.swing = seconds, seconds / 2
        else:
            self.swing += (abs(seconds - self.smooth) - self.swing) / 4
            self.smooth += (seconds - self.smooth) / 8
        self.received += 1


def lowest(mask: int) -> int:
    """Index of the lowest set bit; -1 for the empty set."""
    return (mask & -mask).bit_length() - 1


class PieceScheduler(Generic[PeerId]):
    """`reputation_of` gives the record of a peer that joins; records are shared, not copied."""

    def __init__(self, reputation_of: Callable[[PeerId], Reputation], rng: random.Random) -> None:
        self._reputation_of = reputation_of
        self._random = rng
        self._piece_size = 1 << 17
        self._have = 0
        self._tickets: dict[int, Ticket] = {}
        self._next_ticket = 0
        self._peers: dict[PeerId, PeerView] = {}
        self._flying: dict[int, list[PeerId]] = {}
        self._at_least: list[int] | None = None
        self._typical = 0.0

    # What is wanted, what is here.

    def set_piece_size(self, size: int) -> None:
        self._piece_size = size

    def set_have(self, have: int) -> None:
        self._have = have

    def want(self, pieces: int, order: Order, deadline: float) -> int:
        """Add a ticket; its number is for `unwant`."""
        self._next_ticket += 1
        self._tickets[self._next_ticket] = Ticket(pieces, order, deadline)
        return self._next_ticket

    def unwant(self, ticket: int) -> None:
        self._tickets.pop(ticket, None)

    @property
    def missing(self) -> int:
        """Wanted and not here."""
        wanted = 0
        for ticket in self._tickets.values():
            wanted |= ticket.pieces
        return wanted & ~self._have

    # Peers.

    def peer(self, peer: PeerId) -> PeerView | None:
        return self._peers.get(peer)

    def update_peer(self, peer: PeerId, has: int, usable: bool) -> None:
        """A peer joins, or says something new about itself."""
        view = self._peers.get(peer)
        if view is None:
            view = self._peers[peer] = PeerView(self._reputation_of(peer))
        if view.has != has or view.usable != usable:
            view.has, view.usable = has, usable
            self._at_least = None

    def drop_peer(self, peer: PeerId) -> None:
        """The peer left. Its requests count as neither good nor bad."""
        view = self._peers.pop(peer, None)
        if view is not None:
            self._at_least = None
            for piece in list(view.in_flight):
                self._landed(peer, piece)

    def banned(self, peer: PeerId) -> bool:
        return self._reputation_of(peer).wrong >= WRONG_MAX

    def sources(self) -> int:
        """Peers that offer something missing."""
        missing = self.missing
        return sum(1 for view in self._peers.values() if view.usable and view.has & ~view.reputation.bad & missing)

    # Asking.

    def next(self, peer: PeerId, now: float) -> int | None:
        """The piece to ask this peer for now, booked as in flight; None: nothing."""
        view = self._peers.get(peer)
        if view is None or not view.usable or len(view.in_flight) >= self._window(view):
            return None
        if view.reputation.wrong >= WRONG_MAX:
            return None
        offered = view.has & ~self._have & ~view.reputation.bad
        if view.resting:
            offered &= ~self._resting(peer, view, now)
        if view.reputation.wrong:
            offered &= ~self._offered_by_others(peer)
        if not offered:
            return None
        busy = self._busy()
        slow = self._slow(peer, now) if view.strikes == 0 else 0
        for ticket in sorted(self._tickets.values(), key=lambda t: (t.order, t.deadline)):
            here = ticket.pieces & offered
            if not here:
                continue
            fresh = here & ~busy
            if ticket.order is Order.BULK:
                piece = self._rarest(fresh) if fresh else lowest(here & slow)
            else:
                piece = self._far_end(fresh) if self._is_slow(view) else lowest(fresh | (here & slow))
            if piece >= 0:
                view.in_flight[piece] = now
                self._flying.setdefault(piece, []).append(peer)
                return piece
        return None

    def rank(self, peer: PeerId) -> tuple[int, bool, float]:
        """Sorts peers: those that should get the first chance come first."""
        view = self._peers.get(peer)
        return (STRIKES, True, 0.0) if view is None else (view.strikes, not view.received, view.smooth)

    def _window(self, view: PeerView) -> int:
        if view.strikes:
            return 1
        return max(1, min(int(view.window), max(2, WINDOW_BYTES // self._piece_size)))

    def _busy(self) -> int:
        return mask_of(self._flying) if self._flying else 0

    def _slow_at(self, askers: list[PeerId], piece: int) -> float:
        """When one more peer may be asked for a piece that is in flight."""
        if len(askers) >= ASKERS_MAX:
            return float("inf")
        latest = max(self._peers[asker].in_flight[piece] for asker in askers)
        return latest + self.slow_after() * 2.0 ** (len(askers) - 1)

    def _slow(self, peer: PeerId, now: float) -> int:
        """Pieces that others were asked for too long ago, and this one not."""
        slow = 0
        for piece, askers in self._flying.items():
            if peer not in askers and self._slow_at(askers, piece) <= now:
                slow |= 1 << piece
        return slow

    def slow_after(self) -> float:
        """Seconds after which a request is slow: three times what pieces usually take."""
        return min(SLOW_MAX, max(SLOW_MIN, 3 * self._typical))

    def _is_slow(self, view: PeerView) -> bool:
        return self._typical > 0 and view.smooth > self.slow_after()

    def _far_end(self, mask: int) -> int:
        return mask.bit_length() - 1

    def _resting(self, peer: PeerId, view: PeerView, now: float) -> int:
        """Pieces that this peer was silent about and must not be asked for now."""
        mask = 0
        for piece, (until, _) in view.resting.items():
            if now < until or self._untried(peer, piece):
                mask |= 1 << piece
        return mask

    def _untried(self, peer: PeerId, piece: int) -> bool:
        """Does anybody else offer this piece who was neither silent nor wrong about it?"""
        return any(
            other != peer and view.usable and view.has >> piece & 1 and piece not in view.resting
            for other, view in self._peers.items()
            if not view.reputation.wrong and view.strikes == 0
        )

    def _offered_by_others(self, peer: PeerId) -> int:
        """Pieces that peers without a wrong byte offer."""
        mask = 0
        for other, view in self._peers.items():
            if other != peer and view.usable and view.reputation.wrong == 0:
                mask |= view.has
        return mask

    def _rarest(self, candidates: int) -> int:
        levels = self._at_least
        if levels is None:
            levels = self._at_least = self._count_levels()
        for level in range(1, _LEVELS + 1):
            rare = candidates & ~levels[level]
            if rare:
                return self._any(rare)
        return self._any(candidates)

    def _count_levels(self) -> list[int]:
        """Element k: pieces that more than k peers have."""
        levels = [0] * (_LEVELS + 1)
        for view in self._peers.values():
            if view.usable:
                for level in range(_LEVELS, 0, -1):
                    levels[level] |= levels[level - 1] & view.has
                levels[0] |= view.has
        return levels

    def _any(self, mask: int) -> int:
        start = self._random.randrange(mask.bit_length())
        above = mask >> start
        return start + lowest(above) if above else lowest(mask)

    def timeout(self, peer: PeerId) -> float:
        """How long to wait for a piece from this peer (5.5: 3 srtt + 8 var; longer for large pieces)."""
        slack = self._piece_size / SLOWEST_RATE
        view = self._peers.get(peer)
        if view is None or view.received == 0:
            return 10.0 + slack
        patience = (3 * view.smooth + 8 * view.swing) * (1 << min(view.strikes, 3))
        return min(15.0, max(2.5, patience)) + slack

    def wake_at(self, now: float) -> float:
        """When a request becomes slow or a rest ends, whichever is next; infinity when neither is ahead."""
        at = [self._slow_at(askers, piece) for piece, askers in self._flying.items()]
        at += [until for view in self._peers.values() for until, _ in view.resting.values()]
        return min((time for time in at if time > now), default=float("inf"))

    # What became of it.

    def _landed(self, peer: PeerId, piece: int) -> None:
        askers = self._flying.get(piece)
        if askers is not None and peer in askers:
            askers.remove(peer)
            if not askers:
                del self._flying[piece]

    def released(self, peer: PeerId, piece: int) -> None:
        """The request was called off."""
        view = self._peers.get(peer)
        if view is not None and view.in_flight.pop(piece, None) is not None:
            self._landed(peer, piece)

    def outrun(self, peer: PeerId, piece: int, now: float) -> None:
        """Another peer was asked later and answered first; the request was called off."""
        view = self._peers.get(peer)
        asked = view.in_flight.get(piece) if view is not None else None
        self.released(peer, piece)
        if view is not None and asked is not None:
            view.measured(now - asked)
            view.window = max(1.0, view.window / 2)

    def arrived(self, peer: PeerId, piece: int, now: float) -> list[PeerId]:
        """The piece is verified and written. Returns peers that are still asked for it: call `outrun` for those."""
        view = self._peers.get(peer)
        asked = view.in_flight.get(piece) if view is not None else None
        self.released(peer, piece)
        self._have |= 1 << piece
        if view is not None and asked is not None:
            view.measured(now - asked)
            view.window = min(WINDOW_MAX, view.window + 1)
            view.strikes = 0
            view.resting.pop(piece, None)
            self._typical = view.smooth if not self._typical else self._typical + (now - asked - self._typical) / 16
        return list(self._flying.get(piece, ()))

    def silent(self, peer: PeerId, piece: int, now: float) -> bool:
        """No answer in time. True: enough of this peer."""
        view = self._peers.get(peer)
        asked = view.in_flight.get(piece) if view is not None else None
        self.released(peer, piece)
        if view is None or asked is None:
            return False
        times = view.resting.get(piece, (0.0, 0))[1]
        view.resting[piece] = (now + min(REST_MAX, REST_FIRST * 2**times), times + 1)
        if asked >= view.struck_at:
            view.strikes += 1
            view.struck_at = now
            view.window = max(1.0, view.window / 2)
        return view.strikes >= STRIKES

    def wrong(self, peer: PeerId, piece: int) -> None:
        """Bytes came that do not match: remembered for good."""
        self.released(peer, piece)
        reputation = self._reputation_of(peer)
        reputation.wrong += 1
        reputation.bad |= 1 << piece
