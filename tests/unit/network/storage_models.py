"""Models of the habits of both daemons in a storage session (reference protocol 5.2-5.5), and a wire between them.

A model and our `Session` look alike to the wire: `due(now)`, `wake_at()`, `finished(...)`, `ping_arrived`,
`update_arrived`. A model breaks its test with an assertion where the real daemon would crash or fall silent for good.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tonfs.network.storage_session import Action, SendPing, SendUpdate, Session, bits_of
from tonfs.network.storage_tl import BLOCK_PIECES, State, UpdateHavePieces, UpdateInit, UpdateState, init_block

INFINITE = float("inf")


def init_blocks(have: int, pieces: int, state: State) -> list[UpdateInit]:
    return [init_block(have, start, pieces, state) for start in range(0, pieces, BLOCK_PIECES)]


@dataclass
class CppPeer:
    """storage-daemon: a constant id of its own, counts from 1, ignores numbers that do not grow, chokes."""

    pieces: int
    have: int
    sid: int
    unchoke: bool = True
    peer_sid: int | None = None
    peer_have: int = 0
    peer_state: State | None = None
    will_upload: bool = False
    known_sent: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seqno = 0
        self.last_state_seqno = 0
        self.next_ping = 0.0
        self.next_choke = 5.0
        self.blocks: list[UpdateInit] = []
        self.told: State | None = None
        self.busy = False
        self.refused = 0

    def _state(self) -> State:
        return State(self.will_upload, False)

    def ping_arrived(self, sid: int, now: float) -> None:
        if sid != self.peer_sid:
            self.peer_sid = sid
            self.told = None
            self.blocks = init_blocks(self.have, self.have.bit_length(), self._state())

    def update_arrived(self, sid: int, seqno: int, update: object, now: float) -> bool:
        if sid != self.sid:
            self.refused += 1
            return False
        if isinstance(update, UpdateInit):
            self.peer_have |= bits_of(update.have) << update.offset
        if isinstance(update, UpdateHavePieces):
            self.peer_have |= sum(1 << piece for piece in set(update.pieces))
        elif seqno > self.last_state_seqno:
            self.last_state_seqno = seqno
            self.peer_state = update.state  # type: ignore[attr-defined]
        return True

    def due(self, now: float) -> Action | None:
        if now >= self.next_choke:
            self.next_choke = now + 5
            self.will_upload = self.unchoke and self.peer_state is not None and self.peer_state.want_download
        if self.busy:
            return None
        if now >= self.next_ping:
            self.busy = True
            return SendPing(self.sid)
        if self.peer_sid is None or (not self.blocks and self.told == self._state()):
            return None
        self.seqno += 1
        self.busy = True
        if self.blocks:
            block = self.blocks[0]
            return SendUpdate(self.peer_sid, self.seqno, UpdateInit(block.have, block.offset, self._state()))
        return SendUpdate(self.peer_sid, self.seqno, UpdateState(self._state()))

    def finished(self, action: Action, answered: bool, now: float) -> None:
        self.busy = False
        if isinstance(action, SendPing):
            self.next_ping = now + 2
        elif answered and action.session_id == self.peer_sid:
            if isinstance(action.update, UpdateInit):
                self.blocks = [b for b in self.blocks if b.offset != action.update.offset]
            assert not isinstance(action.update, UpdateHavePieces)
            self.told = action.update.state


@dataclass
class GoPeer:
    """tonutils-storage: one id for both directions, strict about init blocks, says its state once."""

    pieces: int
    have: int
    opens: bool = False
    sid: int | None = None
    own_sid: int = 77

    def __post_init__(self) -> None:
        self.seqno = 0
        self.next_ping = INFINITE
        self.init_left: list[UpdateInit] = []
        self.got_blocks: dict[int, bytes] = {}
        self.peer_state: State | None = None
        self.more = 0
        self.busy = False
        self.refused: list[str] = []
        if self.opens:
            self.sid = self.own_sid
            self.next_ping = 0.0
            self._begin()

    @property
    def peer_have(self) -> int:
        have = self.more
        for offset, block in self.got_blocks.items():
            have |= bits_of(block) << offset
        return have

    def _begin(self) -> None:
        self.init_left = init_blocks(self.have, self.pieces, State(True, False))

    def reopen(self) -> None:
        """Another download of the bag begins on the old connection, under the old id (7.1 item 31)."""
        self.seqno = 0
        self.got_blocks, self.more, self.peer_state = {}, 0, None
        self._begin()

    def ping_arrived(self, sid: int, now: float) -> None:
        if sid != self.sid:
            self.sid = sid
            self.got_blocks, self.more, self.peer_state = {}, 0, None
            self.seqno = 0
            self.next_ping = now + 15
            self._begin()

    def update_arrived(self, sid: int, seqno: int, update: object, now: float) -> bool:
        if sid != self.sid:
            self.refused.append("id")
            return False
        if isinstance(update, UpdateInit):
            total = (self.pieces + 7) // 8
            if update.offset % BLOCK_PIECES or len(update.have) != min(6000, total - update.offset // 8):
                self.refused.append("size")
                return False
            if bits_of(update.have) << update.offset >> self.pieces:
                self.refused.append("trailing bits")
                return False
            if self.got_blocks.get(update.offset, update.have) != update.have:
                self.refused.append("not identical")
                return False
            self.got_blocks[update.offset] = update.have
            self.peer_state = update.state
        elif isinstance(update, UpdateHavePieces):
            if any(piece >= self.pieces for piece in update.pieces):
                self.refused.append("piece")
                return False
            self.more |= sum(1 << piece for piece in set(update.pieces))
        return True

    def due(self, now: float) -> Action | None:
        if self.busy or self.sid is None:
            return None
        self.busy = True
        if now >= self.next_ping:
            return SendPing(self.sid)
        if self.init_left:
            self.seqno += 1
            return SendUpdate(self.sid, self.seqno, self.init_left[0])
        self.busy = False
        return None

    def finished(self, action: Action, answered: bool, now: float) -> None:
        self.busy = False
        if isinstance(action, SendPing):
            self.next_ping = now + (15 if answered else 1)
        elif answered and self.init_left and action.update == self.init_left[0]:
            del self.init_left[0]


Side = Session | CppPeer | GoPeer


@dataclass
class Wire:
    """Steps time by a tenth of a second; every message takes one step to arrive and one for its answer."""

    left: Side
    right: Side
    loss: float = 0.0
    seed: int = 1
    cut: bool = False
    now: float = 0.0
    sent: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._later: list[tuple[float, int, object]] = []
        self._count = 0
        self.log: list[tuple[float, str, Action]] = []

    def _after(self, delay: float, call: object) -> None:
        self._count += 1
        self._later.append((self.now + delay, self._count, call))

    def _passes(self) -> bool:
        return not self.cut and self._random.random() >= self.loss

    def _send(self, source: Side, target: Side, name: str, action: Action) -> None:
        self.log.append((self.now, name, action))
        self.sent += 1

        def arrive() -> None:
            good = True
            if isinstance(action, SendPing):
                target.ping_arrived(action.session_id, self.now)
            else:
                good = target.update_arrived(action.session_id, action.seqno, action.update, self.now)
            if good and self._passes():
                self._after(0.1, lambda: source.finished(action, True, self.now))
            else:
                self._after(4.9, lambda: source.finished(action, False, self.now))

        if self._passes():
            self._after(0.1, arrive)
        else:
            self._after(5.0, lambda: source.finished(action, False, self.now))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end - 1e-9:
            for source, target, name in ((self.left, self.right, "left"), (self.right, self.left, "right")):
                for _ in range(3):
                    action = source.due(self.now)
                    if action is None:
                        break
                    self._send(source, target, name, action)
                if isinstance(source, Session):
                    assert source.due(self.now) is None
                    assert source.wake_at() > self.now, "would spin"
            self.now = round(self.now + 0.1, 3)
            ready = sorted(item for item in self._later if item[0] <= self.now + 1e-9)
            self._later = [item for item in self._later if item[0] > self.now + 1e-9]
            for _, _, call in ready:
                call()  # type: ignore[operator]
