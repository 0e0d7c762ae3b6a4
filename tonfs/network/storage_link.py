"""One peer in one bag: drives the session, asks for the info, keeps pieces in flight (reference protocol 5.6).

The decisions are made by `storage_session` (what to say) and `storage_transfer` (what to ask for); here is only the
sending, with a deadline on everything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from ..errors import BadBag, BadPacket, BadPiece, PeerTimeout, PeerUnreachable, TonfsError
from ..ids import AdnlId
from ..log import get_logger
from . import overlay, storage_tl
from .api import Peer
from .memory_pool import Account
from .storage_session import Action, Phase, SendPing, Session

if TYPE_CHECKING:
    from .storage_swarm import Swarm

log = get_logger(__name__)

PING_TIMEOUT: Final = 5.0
UPDATE_TIMEOUT: Final = 10.0
INFO_TIMEOUT: Final = 10.0
GOSSIP_TIMEOUT: Final = 5.0
GOSSIP_EVERY: Final = 30.0
GOSSIP_EARLY: Final = (2.0, 3.0, 5.0)
"""Pauses at first: those who begin a download together soon know each other."""
REST_FIRST: Final = 15.0
REST_MAX: Final = 300.0
QUERY_ANSWER: Final = 4096
"""Limit for short answers by RLDP."""


class Link:
    """Owned by a swarm. `run` lives until the swarm closes the link."""

    def __init__(self, swarm: Swarm, peer: Peer, session: Session, account: Account) -> None:
        self.swarm = swarm
        self.peer = peer
        self.session = session
        self.account = account
        self.audits = 0
        """Audits that wait for this peer now."""
        self.bytes = 0
        """Received in answers to getPiece."""
        self.served = 0
        self.wrong = 0
        self._poked = trio.Event()
        self._requests: dict[int, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._rest_until = -math.inf
        self._rests = 0
        self._gossip_at = -math.inf
        self._gossips = 0
        self._asking_info = False

    @property
    def id(self) -> AdnlId:
        return self.peer.id

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.refresh()
                await self._talk()

    def close(self) -> None:
        self._scope.cancel()

    def shed(self) -> None:
        """Others need the room that this session's sets of pieces take: it ends; the peer may begin another one."""
        self.session.forget()
        self.close()

    def poke(self) -> None:
        """Something that concerns this peer changed."""
        self._poked.set()

    def refresh(self) -> None:
        """Look again at what this peer is wanted for, has, and may be asked for now."""
        now = trio.current_time()
        swarm, session = self.swarm, self.session
        if session.pieces is None and swarm.info is not None:
            session.pieces = swarm.info.pieces
        session.want(swarm.wants_peers or self.audits > 0, now)
        usable = session.usable and now >= self._rest_until
        swarm.scheduler.update_peer(self.id, session.peer_have, usable)
        self.poke()
        if self._nursery is None:
            return
        if swarm.wants_peers:
            if swarm.info is None and not self._asking_info:
                self._asking_info = True
                self._nursery.start_soon(self._ask_info)
            if now >= self._gossip_at and session.phase in (Phase.INIT, Phase.OPEN):
                pauses = (*GOSSIP_EARLY, GOSSIP_EVERY)
                self._gossip_at = now + pauses[min(self._gossips, len(GOSSIP_EARLY))]
                self._gossips += 1
                self._nursery.start_soon(self._gossip)
        self.pump()

    # The session.

    async def _talk(self) -> None:
        while True:
            action = self.session.due(trio.current_time())
            if action is not None:
                answered = await self._send(action)
                self.session.finished(action, answered, trio.current_time())
                self.refresh()
                continue
            self._poked = trio.Event()
            with trio.move_on_at(self.session.wake_at()):
                await self._poked.wait()

    async def _send(self, action: Action) -> bool:
        try:
            if isinstance(action, SendPing):
                data = storage_tl.pack_ping(action.session_id)
                answer = await self.peer.query(overlay.wrap(self.swarm.overlay, data), timeout=PING_TIMEOUT)
                storage_tl.parse_pong(answer)
            else:
                data = storage_tl.pack_add_update(action.session_id, action.seqno, action.update)
                storage_tl.parse_ok(await self._ask(data, QUERY_ANSWER, UPDATE_TIMEOUT))
        except (PeerTimeout, PeerUnreachable, BadPacket):
            return False
        return True

    async def _ask(self, query: bytes, max_answer: int, timeout: float) -> bytes:
        return await self.peer.rldp_query(
            overlay.wrap(self.swarm.overlay, query), max_answer=max_answer, timeout=timeout
        )

    async def _ask_info(self) -> None:
        """Until somebody gave us the bag's info. C++ answers with nothing while it lacks it itself."""
        pause = 0.5
        while self.swarm.info is None and self.swarm.wants_peers:
            try:
                answer = await self._ask(storage_tl.GET_TORRENT_INFO, storage_tl.MAX_INFO + 64, INFO_TIMEOUT)
                boc = storage_tl.parse_torrent_info(answer)
                if boc:
                    self.swarm.info_arrived(boc)
                    break
            except (PeerTimeout, PeerUnreachable):
                pass
            except (BadPacket, BadBag) as exc:
                log.info("a peer sent a wrong info", bag_id=self.swarm.bag_id, peer=self.id, reason=exc.message)
                pause = 30.0
            except TonfsError as exc:
                self.swarm.fail(exc)
                break
            await trio.sleep(pause)
            pause = min(10.0, 2 * pause)
        self._asking_info = False

    async def _gossip(self) -> None:
        """Tell and ask who else is here (4.2)."""
        query = overlay.pack_get_random_peers(self.swarm.own_nodes())
        try:
            answer = await self.peer.query(overlay.wrap(self.swarm.overlay, query), timeout=GOSSIP_TIMEOUT)
            self.swarm.hunt.learn(overlay.parse_nodes(answer))
        except (PeerTimeout, PeerUnreachable, BadPacket):
            return  # old and foreign peers may not answer; the session tells whether this one lives

    # Pieces.

    def pump(self) -> None:
        """Ask for as many pieces as the scheduler gives us."""
        if self._nursery is None:
            return
        now = trio.current_time()
        while (piece := self.swarm.scheduler.next(self.id, now)) is not None:
            scope = self._requests[piece] = trio.CancelScope()
            self._nursery.start_soon(self._get_piece, piece, scope)

    def call_off(self, piece: int) -> None:
        scope = self._requests.get(piece)
        if scope is not None:
            scope.cancel()

    async def _get_piece(self, piece: int, scope: trio.CancelScope) -> None:
        swarm, scheduler = self.swarm, self.swarm.scheduler
        assert swarm.info is not None
        try:
            with scope:
                answer = await self._ask(
                    storage_tl.pack_get_piece(piece),
                    swarm.info.piece_size + storage_tl.ANSWER_SLACK,
                    scheduler.timeout(self.id),
                )
                await self._take(piece, answer)
        except (PeerTimeout, PeerUnreachable):
            if scheduler.silent(self.id, piece, trio.current_time()):
                self._rest()
            swarm.pump_all()
        finally:
            self._requests.pop(piece, None)
            scheduler.released(self.id, piece)
        if scope.cancelled_caught:
            swarm.pump_all()
        else:
            self.pump()

    async def _take(self, piece: int, answer: bytes) -> None:
        self.bytes += len(answer)
        try:
            proof, data = storage_tl.parse_piece(answer)
            await self.swarm.write(piece, data, proof)
        except (BadPacket, BadPiece) as exc:
            self.wrong += 1
            self.swarm.wrong_arrived(self, piece, exc)
        except TonfsError as exc:
            self.swarm.fail(exc)
        else:
            self._rests = 0
            self.swarm.piece_arrived(self, piece, len(data))

    def _rest(self) -> None:
        """Too many silent requests: leave the peer alone for a while (5.6 item 6)."""
        self._rest_until = trio.current_time() + min(REST_MAX, REST_FIRST * 2**self._rests)
        self._rests = min(self._rests + 1, 8)
        self.swarm.scheduler.drop_peer(self.id)
        for piece in list(self._requests):
            self.call_off(piece)
        log.info("a peer does not answer", bag_id=self.swarm.bag_id, peer=self.id)
        self.refresh()
