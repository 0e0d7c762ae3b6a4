"""One storage session: what we and one peer have told each other about one bag (reference protocol 5.2-5.6).

Pure: it is told what arrived and what became of what was sent, and says what to send next. At most one message of a
session is on its way at a time. Times are seconds of any monotonic clock.

    action = session.due(now)            # SendPing, SendUpdate or None; ask again at session.wake_at(now)
    session.finished(action, answered, now)
    session.ping_arrived(sid, now); session.update_arrived(sid, seqno, update, now) -> accepted?

Session ids follow the *adopt* rule of 5.2: the id of the peer's last ping becomes ours. Two of our own kind that
open at the same moment would swap ids for ever; both know both ids by then, and the greater one wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .memory_pool import Account
from .storage_tl import (
    BLOCK_BYTES,
    BLOCK_PIECES,
    MAX_HAVE_IDS,
    State,
    Update,
    UpdateHavePieces,
    UpdateInit,
    UpdateState,
    init_block,
)

PING_EVERY: Final = 5.0
"""While we want something from the peer. C++ takes us for offline after 10 s of silence."""
IDLE_PING_EVERY: Final = 60.0
"""While only the peer wants something: Go closes a connection without queries for 10 min."""
IDLE_AFTER: Final = 60.0
"""A peer silent for this long gets no more idle pings."""
HAVE_EVERY: Final = 1.0
GIVE_UP: Final = 4
"""Consecutive unanswered messages that make a peer lost."""
PING_AGAIN: Final = 2
"""Unanswered updates after which the session id is told again."""
BACKOFF_FIRST: Final = 5.0
BACKOFF_MAX: Final = 300.0
KNOWN_IDS: Final = 64
KNOWN_ID: Final = 60.0
"""Ids that were pinged with or received stay good for updates this long."""
INIT_AGAIN_EVERY: Final = 5.0
RENEW_AFTER: Final = 3.0
"""An open session in which the peer never said what it has is begun anew under an id of ours: the peer may believe that
it told us (we restarted, and took over an old id from its ping; reference 7.1 item 31)."""
RENEW_MAX: Final = 300.0
MAX_PIECES: Final = 1 << 25
"""No daemon takes bags of more than 32 000 000 pieces (1.2)."""
NEVER: Final = float("-inf")
INFINITE: Final = float("inf")


class Phase(StrEnum):
    IDLE = "idle"
    """Nobody wants to talk."""
    HELLO = "hello"
    """The peer must learn our session id: a ping is due or on its way."""
    INIT = "init"
    """Our have-set goes out, block after block."""
    OPEN = "open"
    """The peer knows what we have; only changes and keep-alives go out."""
    LOST = "lost"
    """Too much stayed unanswered; a new try after a pause, or at once when the peer speaks."""


class Event(StrEnum):
    WANTED = "wanted"
    """We want something from the peer."""
    UNWANTED = "unwanted"
    SPOKE = "spoke"
    """The peer sent a query that shows it has no session with us, or it came back."""
    NEW_ID = "new id"
    """The session id changed: everything said under the old one is void."""
    PONG = "pong"
    ALL_BLOCKS = "all blocks"
    """The last block of our have-set was acknowledged."""
    BEGUN_AGAIN = "begun again"
    """The peer repeated its init inside a running session: it forgot ours (7.1 item 31)."""
    DEAF = "deaf"
    """Updates stay unanswered: the peer may have lost the session id."""
    GAVE_UP = "gave up"


_H, _I, _O, _L = Phase.HELLO, Phase.INIT, Phase.OPEN, Phase.LOST
TABLE: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.IDLE, Event.WANTED): _H,
    (Phase.IDLE, Event.SPOKE): _H,
    (Phase.IDLE, Event.NEW_ID): _H,
    (_H, Event.PONG): _I,
    (_H, Event.GAVE_UP): _L,
    (_I, Event.NEW_ID): _H,
    (_I, Event.ALL_BLOCKS): _O,
    (_I, Event.DEAF): _H,
    (_I, Event.GAVE_UP): _L,
    (_O, Event.NEW_ID): _H,
    (_O, Event.BEGUN_AGAIN): _I,
    (_O, Event.DEAF): _H,
    (_O, Event.GAVE_UP): _L,
    (_L, Event.WANTED): _H,
    (_L, Event.SPOKE): _H,
    (_L, Event.NEW_ID): _H,
    (_L, Event.UNWANTED): Phase.IDLE,
}
"""What is not listed changes nothing."""


def advance(phase: Phase, event: Event) -> Phase:
    return TABLE.get((phase, event), phase)


@dataclass(frozen=True)
class SendPing:
    session_id: int


@dataclass(frozen=True)
class SendUpdate:
    session_id: int
    seqno: int
    update: Update


Action = SendPing | SendUpdate


def bits_of(have: bytes) -> int:
    """A have-set as one number: bit i is piece i."""
    return int.from_bytes(have, "little")


def numbers(mask: int, limit: int) -> list[int]:
    """The lowest `limit` bits that are set."""
    found: list[int] = []
    data = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    for start in range(0, len(data), 64):
        window = int.from_bytes(data[start : start + 64], "little")
        while window:
            if len(found) == limit:
                return found
            low = window & -window
            found.append(8 * start + low.bit_length() - 1)
            window ^= low
    return found


def mask_of(pieces: Iterable[int]) -> int:
    """The number whose set bits are these."""
    ids = list(pieces)
    data = bytearray(max(ids, default=-1) // 8 + 1)
    for piece in ids:
        data[piece >> 3] |= 1 << (piece & 7)
    return int.from_bytes(data, "little")


class Session:
    """`own_have() -> int` and `own_state() -> State` are asked whenever a message is made.

    `seqno`: the last number used towards this peer, or the unix time: C++ ignores numbers that do not grow, even
    across restarts of ours (5.2). `account`: for the sets of pieces, 4 MiB each in the largest bag.
    """

    def __init__(
        self, sid: int, seqno: int, own_have: Callable[[], int], own_state: Callable[[], State], account: Account
    ) -> None:
        self.sid = sid
        self.seqno = seqno
        self.phase = Phase.IDLE
        self._pieces: int | None = None
        self.wanted = False
        self.peer_state: State | None = None
        self.peer_have = 0
        """Bit i: the peer says that it has piece i."""
        self.heard = NEVER
        """When anything last came from the peer."""
        self._own_sid = sid
        self._own_have = own_have
        self._own_state = own_state
        self._account = account
        self._known: dict[int, float] = {}
        self._block: int | None = None
        """The piece with which the next block of our have-set begins; None while none goes out."""
        self._snapshot: int | None = None
        self._told_have = 0
        self._told_state: State | None = None
        self._peer_seqno: int | None = None
        self._init_again_at = NEVER
        self._told_us = False
        """The peer said what it has, in this session id."""
        self._unkept = False
        """Some of it was not kept, because the bag's size was unknown or the room full: it must be told again."""
        self._open_since = NEVER
        self._renewals = 0
        self._sending: Action | None = None
        self._failures = 0
        self._lost_count = 0
        self._spoke = NEVER
        self._last_pong = NEVER
        self._next_ping = NEVER
        self._next_update = NEVER

    @property
    def pieces(self) -> int | None:
        """Number of pieces, once the bag's info is known; blocks cannot be sized before, and of what the peer says
        that it has no more than one block is kept: strangers may claim any piece."""
        return self._pieces

    @pieces.setter
    def pieces(self, pieces: int) -> None:
        self._pieces = pieces
        self.peer_have &= (1 << pieces) - 1
        self._booked()

    # Room.

    def _keep(self, have: int) -> None:
        """The peer has these, too."""
        before = self.peer_have
        self.peer_have |= have
        if not self._booked():
            self.peer_have, self._unkept = before, True

    def _booked(self) -> bool:
        """Whether there is room for all sets of this session. One that the whole bag shares costs nothing."""
        shared = self._own_have()
        ours = {id(one): one for one in (self._snapshot or 0, self._told_have) if one is not shared}
        size = sum(one.bit_length() * 2 // 15 for one in (self.peer_have, *ours.values()))
        more = size - self._account.held
        if more > 0:
            return self._account.take(more, stays=True)
        self._account.give(-more)
        return True

    def _tell(self, told: int) -> bool:
        """The peer knows of these pieces of ours. Without room for that the session ends."""
        own = self._own_have()
        self._told_have = own if told == own else told
        if self._booked():
            return True
        self._account.shed()
        return False

    def forget(self) -> None:
        """Others need the room: drop what was said. The session is over."""
        self.peer_have = self._told_have = 0
        self._snapshot = None

    # What arrives.

    def ping_arrived(self, sid: int, now: float) -> None:
        """The peer told an id: adopt it, or tell it the one that holds."""
        self._spoken(now)
        self._known[sid] = now
        if len(self._known) > KNOWN_IDS:
            del self._known[next(iter(self._known))]
        if sid == self.sid:
            self._event(Event.SPOKE)
            return
        self._known[self.sid] = self._next_ping = now
        if sid == self._own_sid and self.sid > sid:
            # Both opened at once, each took the other's id: the greater one holds.
            self._event(Event.DEAF)
            self._event(Event.SPOKE)
            return
        self._change_id(sid)

    def _change_id(self, sid: int) -> None:
        self.sid = sid
        self.peer_have = 0
        self._peer_seqno = None
        self._told_us = self._unkept = False
        self._told_state = None
        self._snapshot = None
        self._booked()
        self._event(Event.NEW_ID)

    def update_arrived(self, sid: int, seqno: int, update: Update, now: float) -> bool:
        """Take an addUpdate; False: do not answer it."""
        self._spoken(now)
        if sid != self.sid and not self._is_known(sid, now):
            # It talks in a session that we do not have (we restarted): our ping makes it begin again.
            self._next_ping = now
            self._event(Event.DEAF)
            self._event(Event.SPOKE)
            return False
        limit = MAX_PIECES if self.pieces is None else self.pieces
        if isinstance(update, UpdateInit):
            if not self._take_block(update, limit):
                return False
        elif isinstance(update, UpdateHavePieces):
            if any(piece >= limit for piece in update.pieces):
                return False
            kept = [piece for piece in update.pieces if self.pieces is not None or piece < BLOCK_PIECES]
            self._unkept |= len(kept) < len(update.pieces)
            self._keep(mask_of(kept))
        if not isinstance(update, UpdateHavePieces):
            self.peer_state = update.state
        if isinstance(update, UpdateInit):
            self._told_us = True
            self._renewals = 0
        if isinstance(update, UpdateInit) and update.offset == 0:
            self._maybe_begun_again(seqno, now)
        self._peer_seqno = seqno
        self._event(Event.SPOKE)
        return True

    def query_arrived(self, now: float) -> None:
        """Any other query of the peer inside the bag's overlay."""
        self._spoken(now)
        self._event(Event.SPOKE)

    def _spoken(self, now: float) -> None:
        self.heard = self._spoke = now
        if self.phase is Phase.LOST:
            self._failures = 0
            self._next_ping = now

    def _take_block(self, block: UpdateInit, limit: int) -> bool:
        offset = block.offset
        if offset % BLOCK_PIECES and offset % BLOCK_BYTES == 0:
            offset *= 8  # C++ before 2025-02-21 counts bytes here (5.1)
        if offset % BLOCK_PIECES or offset > limit:
            return False
        if self.pieces is None and offset:
            self._unkept = True
            return True
        mask = bits_of(block.have) << offset
        if mask.bit_length() > limit:
            return False
        self._keep(mask)
        return True

    def _maybe_begun_again(self, seqno: int, now: float) -> None:
        """An init whose number does not grow is a restarted counter; each such restart gets our init once."""
        last = self._peer_seqno
        if last is None or seqno > last or now < self._init_again_at:
            return
        self._init_again_at = now + INIT_AGAIN_EVERY
        self._event(Event.BEGUN_AGAIN)

    def _is_known(self, sid: int, now: float) -> bool:
        for old in [i for i, at in self._known.items() if at < now - KNOWN_ID]:
            del self._known[old]
        return sid in self._known

    # What we want.

    def want(self, wanted: bool, now: float) -> None:
        """Do we want pieces or an audit from this peer? A lost peer is tried again at once."""
        if wanted == self.wanted:
            return
        self.wanted = wanted
        if wanted:
            self._next_ping = min(self._next_ping, now) if self.phase is not Phase.LOST else now
        self._event(Event.WANTED if wanted else Event.UNWANTED)

    def greet(self, now: float) -> None:
        """Make contact though we want nothing: the peer cannot dial us."""
        self._next_ping = max(self._next_ping, now)
        self._event(Event.SPOKE)

    @property
    def usable(self) -> bool:
        """May pieces be asked for? (The peer said that it uploads; what it has is in `peer_have`.)"""
        return self.phase is not Phase.LOST and self.peer_state is not None and self.peer_state.will_upload

    # What to send.

    def due(self, now: float) -> Action | None:
        """The message to send now. The caller must report it to `finished`."""
        if self._sending is not None:
            return None
        if self.phase is Phase.LOST and self.wanted and now >= self._next_ping:
            self._event(Event.WANTED)
        if now >= self._renew_at():
            self._own_sid = self._own_sid + 1 if self._own_sid == self.sid else self._own_sid
            self._renewals = min(self._renewals + 1, 16)
            self._next_ping = now
            self._change_id(self._own_sid)
        if self.phase in (Phase.INIT, Phase.OPEN) and now >= self._next_update:
            self._sending = self._update_due()
        if self._sending is None and now >= self._ping_at():
            self._sending = SendPing(self.sid)
            self._known[self.sid] = now
        return self._sending

    def _update_due(self) -> SendUpdate | None:
        update: Update | None = None
        if self.phase is Phase.INIT:
            if self.pieces is None:
                return None
            if (snapshot := self._begin_init(self.pieces)) is None:
                return None
            update = init_block(snapshot, self._block or 0, self.pieces, self._own_state())
        elif self._told_state != self._own_state():
            update = UpdateState(self._own_state())
        elif new := self._news():
            update = UpdateHavePieces(tuple(numbers(new, MAX_HAVE_IDS)))
        if update is None:
            return None
        self.seqno += 1
        return SendUpdate(self.sid, self.seqno, update)

    def _begin_init(self, pieces: int) -> int | None:
        """Our have-set as it goes out in blocks; None when there is no room for it.

        Go wants a repeated block to be identical: within one session id the have-set of the first time is sent again,
        and what came since follows as updateHavePieces."""
        if self._snapshot is None:
            own = self._own_have()
            self._snapshot = own if own.bit_length() <= pieces else own & ((1 << pieces) - 1)
        if self._block is None:
            self._block = 0
            if not self._tell(self._snapshot):
                return None
        return self._snapshot

    def _news(self) -> int:
        """Pieces of ours that the peer was not told about and might lack."""
        own = self._own_have()
        if self._told_have is own or self.pieces is None or self.peer_have.bit_count() >= self.pieces:
            return 0
        return own & ~self._told_have

    def _renew_at(self) -> float:
        if self.phase is not Phase.OPEN or not self.wanted or (self._told_us and not self._unkept):
            return INFINITE
        return self._open_since + min(RENEW_MAX, RENEW_AFTER * float(1 << self._renewals))

    def _ping_at(self) -> float:
        if self.phase in (Phase.IDLE, Phase.LOST):
            return INFINITE
        if self.phase is Phase.HELLO or self.wanted:
            return self._next_ping
        at = max(self._next_ping, self._last_pong + IDLE_PING_EVERY)
        return at if self._spoke >= at - IDLE_AFTER else INFINITE

    def wake_at(self) -> float:
        """When `due` may have something, if nothing else happens before; infinity: only after an event."""
        if self._sending is not None:
            return INFINITE
        if self.phase is Phase.LOST:
            return self._next_ping if self.wanted else INFINITE
        at = min(self._ping_at(), self._renew_at())
        if (self.phase is Phase.INIT and self.pieces is not None) or (
            self.phase is Phase.OPEN and (self._told_state != self._own_state() or self._news())
        ):
            at = min(at, self._next_update)
        return at

    def finished(self, action: Action, answered: bool, now: float) -> None:
        """What became of the message: answered well, or not at all (a wrong answer counts as none)."""
        self._sending = None
        if not answered:
            self._unanswered(action, now)
            return
        self.heard = now
        self._failures = 0
        self._lost_count = 0
        if action.session_id != self.sid:
            return
        if isinstance(action, SendPing):
            self._last_pong = now
            self._next_ping = now + PING_EVERY
            self._event(Event.PONG)
        else:
            self._acknowledged(action.update, now)

    def _acknowledged(self, update: Update, now: float) -> None:
        if isinstance(update, UpdateInit):
            self._told_state = update.state
            if self._block == update.offset:
                self._block += BLOCK_PIECES
                if self._block >= (self.pieces or 0):
                    self._open_since = now
                    self._event(Event.ALL_BLOCKS)
        elif isinstance(update, UpdateState):
            self._told_state = update.state
        else:
            self._tell(self._told_have | mask_of(update.pieces))
            self._next_update = now + HAVE_EVERY

    def _unanswered(self, action: Action, now: float) -> None:
        self._failures += 1
        if self._failures >= GIVE_UP:
            self._failures = 0
            self._next_ping = now + min(BACKOFF_MAX, BACKOFF_FIRST * 2**self._lost_count)
            self._lost_count = min(self._lost_count + 1, 16)
            self.peer_state = None
            self._event(Event.GAVE_UP)
        elif isinstance(action, SendPing):
            self._next_ping = now + self._failures
        else:
            self._next_update = now + self._failures
            if self._failures >= PING_AGAIN:
                self._next_ping = now
                self._event(Event.DEAF)

    def _event(self, event: Event) -> None:
        before, self.phase = self.phase, advance(self.phase, event)
        if self.phase is not before:
            self._block = None
            if self.phase is Phase.INIT:
                self._next_update = NEVER
