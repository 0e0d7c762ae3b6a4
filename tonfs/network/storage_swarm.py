"""One bag, live: the peers that have it, what is wanted of it, and answers to those who ask for it.

A swarm exists while its bag is seeded or fetched, and a little longer. Several fetches of one bag share everything:
each is a ticket in the scheduler, and a piece is asked for once.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from ..bag import TorrentInfo
from ..bagfiles import StoredBag
from ..errors import PeerUnreachable, TimedOut, TonfsError, UsageError
from ..ids import AdnlId
from ..log import get_logger
from . import overlay, storage_tl, tl
from .api import FetchReport, Peer
from .memory_pool import Account
from .overlay import OverlayNode
from .piece_source import INLINE_PIECE
from .storage_hunt import Hunt
from .storage_link import Link
from .storage_session import Session, bits_of, mask_of
from .storage_shared import Progress, Shared, Waiter
from .storage_tl import State
from .storage_transfer import Order, PieceScheduler, Reputation

log = get_logger(__name__)

TICK: Final = 0.25
LINGER: Final = 20.0
"""Seconds for which peers stay interesting after the last fetch: the next read finds its sessions open."""
LINK_IDLE: Final = 120.0
LINKS_MAX: Final = 300
LINKS_ALL: Final = 10_000
"""Sessions of all bags; above it only peers that we look for get one."""
LINK_RESTS: Final = 10.0
"""A link that was silent for so long makes room for a new peer when there are too many."""
NOBODY_AFTER: Final = 15.0
"""A fetch that met no peer at all for so long says so, instead of waiting for its deadline."""
ANNOUNCE_AFTER: Final = 5.0
"""A download that found nothing for so long is announced: those who cannot be dialled look for those who seek."""


class Swarm:
    """Made by the node, which also runs `run` in its nursery."""

    def __init__(self, shared: Shared, stored: StoredBag) -> None:
        self.bag_id: Final = stored.bag_id
        self.overlay: Final = overlay.overlay_id(stored.bag_id)
        self.stored = stored
        self.seeding = False
        self.links: dict[AdnlId, Link] = {}
        self.have = bits_of(stored.have_bitmap())
        self._shared = shared
        self.scheduler: PieceScheduler[AdnlId] = PieceScheduler(
            lambda peer: shared.reputation_of(self.bag_id, peer), shared.rng
        )
        self.hunt = Hunt(self, shared)
        self._waiters: list[Waiter] = []
        self._progress: list[Progress] = []
        self._bulk = 0
        self.audits = 0
        """Audits that run in this bag now."""
        self._linger_until = -math.inf
        self._wanted = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._announced = False
        if stored.info is not None:
            self.scheduler.set_piece_size(stored.info.piece_size)
        self.scheduler.set_have(self.have)

    # Life.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self.hunt.reach_out)
                    task_status.started()
                    while True:
                        await self._wanted.wait()
                        async with trio.open_nursery() as busy:
                            busy.start_soon(self.hunt.run)
                            await self._tick_while_wanted()
                            busy.cancel_scope.cancel()
                        self._refresh_all()
        finally:
            self._announce(False)
            self.fail(PeerUnreachable(f"Bag {self.bag_id.hex()} was closed."))

    def close(self) -> None:
        self._scope.cancel()

    @property
    def info(self) -> TorrentInfo | None:
        return self.stored.info

    @property
    def idle(self) -> bool:
        """Nobody waits for anything of this bag."""
        return not self._waiters and not self.audits

    @property
    def expendable(self) -> bool:
        """Neither seeded nor wanted, for long enough."""
        return not self.seeding and self.idle and trio.current_time() >= self._linger_until

    @property
    def wants_peers(self) -> bool:
        return bool(self._waiters) or trio.current_time() < self._linger_until

    def reload(self, stored: StoredBag) -> None:
        """Go on with the bag as it is on disk now (only while idle)."""
        self.stored = stored
        self.have = bits_of(stored.have_bitmap())
        self.scheduler.set_have(self.have)
        if stored.info is not None:
            self.scheduler.set_piece_size(stored.info.piece_size)

    def set_seeding(self, seeding: bool) -> None:
        self.seeding = seeding
        self._announce()
        if seeding:
            self._refresh_all()

    def _announce(self, announce: bool | None = None) -> None:
        """Be listed as a member while we seed, or download the whole bag and have something to offer. Not before:
        the record holds five members, and ours must not push out the one that we need."""
        if announce is None:
            announce = self.seeding or (self._bulk > 0 and (self.stored.header is not None or self._seeks_long()))
            announce = announce and self._shared.reachable
        if announce and not self._announced:
            self._shared.finder.announce_overlay(self.bag_id, self._shared.endpoint)
        elif self._announced and not announce:
            self._shared.finder.withdraw_overlay(self.bag_id)
        self._announced = announce

    def _seeks_long(self) -> bool:
        return any(trio.current_time() >= waiter.since + ANNOUNCE_AFTER for waiter in self._waiters)

    async def _tick_while_wanted(self) -> None:
        while self.wants_peers:
            self._refresh_all()
            self._announce()
            if not self._anyone_serves():
                for waiter in self._waiters:
                    if trio.current_time() >= waiter.since + NOBODY_AFTER and not waiter.bytes:
                        waiter.fail(self._nobody())
            await trio.sleep(TICK)
        self._wanted = trio.Event()

    def _anyone_serves(self) -> bool:
        return any(link.session.usable for link in self.links.values())

    def _refresh_all(self) -> None:
        for link in self._best_first():
            link.refresh()

    def pump_all(self) -> None:
        for link in self._best_first():
            link.pump()

    def _best_first(self) -> list[Link]:
        return sorted(self.links.values(), key=lambda link: self.scheduler.rank(link.id))

    def sweep(self) -> None:
        """Close links that nobody needs; called by the node now and then."""
        now = trio.current_time()
        for link in list(self.links.values()):
            if not link.session.wanted and link.session.heard < now - LINK_IDLE:
                link.close()
        self.hunt.sweep()

    # Peers.

    def link_for(self, peer: Peer, *, stranger: bool = False) -> Link | None:
        """The link of this peer, made when there is room for one more."""
        link = self.links.get(peer.id)
        if link is None and self._nursery is not None and self._make_room(stranger):
            self._shared.links += 1
            sid = self._shared.rng.getrandbits(63)
            seqno = max(int(self._shared.clock.now()), self._reputation(peer.id).seqno)
            account = Account(self._shared.have_sets, lambda: made.shed())
            session = Session(sid, seqno, lambda: self.have, lambda: self._state(peer.id), account)
            session.heard = trio.current_time()
            made = link = self.links[peer.id] = Link(self, peer, session, account)
            self._nursery.start_soon(self._run_link, link)
        return link

    def _make_room(self, stranger: bool) -> bool:
        if stranger and self._shared.links >= LINKS_ALL:
            return False
        if len(self.links) < LINKS_MAX:
            return True
        idle = [link for link in self.links.values() if not link.session.wanted]
        oldest = min(idle, key=lambda link: link.session.heard, default=None)
        if oldest is None or oldest.session.heard > trio.current_time() - LINK_RESTS:
            return False
        oldest.close()
        del self.links[oldest.id]
        return True

    async def _run_link(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            link.account.shed()
            self._shared.links -= 1
            self._reputation(link.id).seqno = link.session.seqno
            if self.links.get(link.id) is link:
                del self.links[link.id]
            if link.id not in self.links:
                self.scheduler.drop_peer(link.id)

    def _reputation(self, peer: AdnlId) -> Reputation:
        return self._shared.reputation_of(self.bag_id, peer)

    def _state(self, peer: AdnlId) -> State:
        link = self.links.get(peer)
        return State(will_upload=True, want_download=self.wants_peers or (link is not None and link.audits > 0))

    def own_nodes(self) -> list[OverlayNode]:
        """What we tell others about members."""
        return self.hunt.own_nodes(ourselves=self.seeding or self._bulk > 0)

    def start_soon(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run a task that lives no longer than the swarm."""
        if self._nursery is not None:
            self._nursery.start_soon(task)

    # What arrives.

    def info_arrived(self, boc: bytes) -> None:
        """Raises BadBag when it is not this bag's info."""
        info = self.stored.set_info(boc)
        self.scheduler.set_piece_size(info.piece_size)
        for waiter in self._waiters:
            waiter.needs_info = False
            waiter.look()
        self._refresh_all()

    async def write(self, piece: int, data: bytes, proof: bytes) -> None:
        """Verify a piece and put it in place. Raises BadPiece, and what the disk has to say."""
        header = self.stored.header is None and self.info is not None and self.info.header_size > INLINE_PIECE
        if len(data) <= INLINE_PIECE and not header:
            self.stored.write_piece(piece, data, proof)
        else:
            await trio.to_thread.run_sync(self.stored.write_piece, piece, data, proof)

    def piece_arrived(self, link: Link, piece: int, size: int) -> None:
        now = trio.current_time()
        bit = 1 << piece
        for other in self.scheduler.arrived(link.id, piece, now):
            self.scheduler.outrun(other, piece, now)
            if other in self.links:
                self.links[other].call_off(piece)
        self.have |= bit
        for waiter in self._waiters:
            if waiter.missing & bit:
                waiter.missing ^= bit
                waiter.bytes += size
                waiter.look()
        for progress in self._progress:
            progress(self.have.bit_count(), self.info.pieces if self.info is not None else 0)

    def wrong_arrived(self, link: Link, piece: int, exc: TonfsError) -> None:
        """Evidence against a peer: it is dropped while others have the bag, and remembered."""
        log.info("wrong bytes", bag_id=self.bag_id, peer=link.id, piece=piece, reason=exc.message)
        self.scheduler.wrong(link.id, piece)
        for waiter in self._waiters:
            waiter.wrong += 1
        if self.scheduler.banned(link.id):
            link.close()
        self.pump_all()

    def fail(self, exc: TonfsError) -> None:
        """Nothing more can come of the fetches that run (full disk, broken header, ...)."""
        for waiter in self._waiters:
            waiter.fail(exc)

    # Fetching.

    def ready(self, pieces: Sequence[int] | None) -> FetchReport | None:
        """The report of a fetch that has nothing to do; None when something is missing."""
        info = self.info
        if info is None or self.stored.header is None:
            return None
        wanted = self._mask(info, pieces)
        count = wanted.bit_count()
        return None if wanted & ~self.have else FetchReport(have=count, wanted=count, bytes=0, wrong=0)

    def _mask(self, info: TorrentInfo, pieces: Sequence[int] | None) -> int:
        """Raises UsageError for a piece outside the bag."""
        if pieces is None:
            return (1 << info.pieces) - 1
        if any(not 0 <= piece < info.pieces for piece in pieces):
            raise UsageError(f"Bag {self.bag_id.hex()} has only pieces 0 to {info.pieces - 1}.")
        return mask_of(pieces)

    async def fetch(
        self, pieces: Sequence[int] | None, *, timeout: float, progress: Progress | None = None
    ) -> FetchReport:
        """See `PeerNet.fetch`. `pieces` None: the whole bag, rarest first; else in ascending order.

        `progress` is called after every piece.
        """
        waiter = Waiter()
        self._join(waiter, 1 if pieces is None else 0)
        if progress is not None:
            self._progress.append(progress)
        try:
            with trio.move_on_after(timeout):
                wanted = await self._fetch(waiter, pieces, trio.current_time() + timeout)
                return FetchReport(have=wanted, wanted=wanted, bytes=waiter.bytes, wrong=waiter.wrong)
            raise self._late(waiter, timeout)
        finally:
            if progress is not None:
                self._progress.remove(progress)
            self._leave(waiter, 1 if pieces is None else 0)

    def _join(self, waiter: Waiter, bulk: int) -> None:
        self._waiters.append(waiter)
        self._bulk += bulk
        self._announce()
        self._wanted.set()

    def _leave(self, waiter: Waiter, bulk: int) -> None:
        self._waiters.remove(waiter)
        self._bulk -= bulk
        self._announce()
        self._linger_until = trio.current_time() + LINGER

    async def _fetch(self, waiter: Waiter, pieces: Sequence[int] | None, deadline: float) -> int:
        """Number of pieces that are here now, all of those asked for."""
        if self.info is None:
            waiter.needs_info = True
            self._refresh_all()
            await waiter.wait()
        info = self.info
        assert info is not None
        wanted = self._mask(info, pieces)
        if self.stored.header is None:
            await self._wait_for((1 << info.header_pieces) - 1, Order.HEADER, deadline, waiter)
        await self._wait_for(wanted, Order.BULK if pieces is None else Order.SEQUENTIAL, deadline, waiter)
        return wanted.bit_count()

    async def _wait_for(self, pieces: int, order: Order, deadline: float, waiter: Waiter) -> None:
        """Until all these are here. Raises what `fail` was told."""
        waiter.missing = pieces & ~self.have
        ticket = self.scheduler.want(pieces, order, deadline)
        try:
            self._refresh_all()
            await waiter.wait()
        finally:
            self.scheduler.unwant(ticket)

    def _nobody(self) -> TonfsError:
        if self.hunt.error is not None and not self.links:
            return self.hunt.error
        met = f"{len(self.links)} peers are known, none of them serves it" if self.links else "no peer is known"
        return PeerUnreachable(f"Nobody has bag {self.bag_id.hex()}: {met}.")

    def _late(self, waiter: Waiter, timeout: float) -> TonfsError:
        if not self._anyone_serves():
            return self._nobody()
        missing = f"{waiter.missing.bit_count()} pieces" if not waiter.needs_info else "The info"
        return TimedOut(f"{missing} of bag {self.bag_id.hex()} did not come within {timeout:g} s.")

    # Answering.

    async def answer(self, peer: Peer, query: bytes) -> bytes | None:
        """One query of this bag's overlay (5.6 item 1). None: silence. Raises BadPacket."""
        tag = tl.constructor_id(query)
        if tag == tl.OVERLAY_PING:
            return overlay.PONG if len(query) == 4 else None
        if tag == tl.OVERLAY_GET_RANDOM_PEERS:
            self.hunt.learn(overlay.parse_get_random_peers(query))
            return overlay.pack_nodes(self.own_nodes())
        parsed = storage_tl.parse_query(query)
        link = self.link_for(peer, stranger=True)
        if link is None:
            return None
        now = trio.current_time()
        answer: bytes | None = None
        match parsed:
            case storage_tl.Ping(session_id):
                link.session.ping_arrived(session_id, now)
                answer = storage_tl.PONG
            case storage_tl.AddUpdate(session_id, seqno, update):
                if link.session.update_arrived(session_id, seqno, update, now):
                    answer = storage_tl.OK
            case _:
                link.session.query_arrived(now)
        link.refresh()
        if isinstance(parsed, storage_tl.GetPiece):
            return await self._piece_for(link, parsed.piece)
        if isinstance(parsed, storage_tl.GetTorrentInfo) and self.info is not None:
            return storage_tl.pack_torrent_info(self.info.to_boc())
        return answer

    async def _piece_for(self, link: Link, piece: int) -> bytes | None:
        found = await self._shared.source.read_piece(self.bag_id, piece)
        if found is not None:
            link.served += len(found[1])
            return storage_tl.pack_piece(*found)
        if self.have >> piece & 1 and not self.stored.have(piece):
            self.have ^= 1 << piece  # it turned out to be damaged on disk
            self.scheduler.set_have(self.have)
        return None
