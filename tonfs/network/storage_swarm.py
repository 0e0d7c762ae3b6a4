"""One bag, live: the peers that have it, what is wanted of it, and answers to those who ask for it.

A swarm exists while its bag is seeded or fetched, and a little longer. Several fetches of one bag share everything:
each is a ticket in the scheduler, and a piece is asked for once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import trio

from ..bag import TorrentInfo
from ..bagfiles import StoredBag
from ..clock import Clock
from ..errors import BadPacket, DhtUnavailable, PeerUnreachable, TimedOut, TonfsError, UsageError
from ..ids import AdnlId, BagId
from ..log import get_logger
from . import overlay, storage_tl, tl
from .api import AdnlEndpoint, FetchReport, Peer, UdpAddress
from .overlay import Members, OverlayNode
from .piece_source import INLINE_PIECE, PieceSource
from .storage_link import Link
from .storage_session import Phase, Session, bits_of, mask_of
from .storage_tl import State
from .storage_transfer import Order, PieceScheduler, Reputation

log = get_logger(__name__)

TICK: Final = 0.25
LINGER: Final = 20.0
"""Seconds for which peers stay interesting after the last fetch: the next read finds its sessions open."""
LINK_IDLE: Final = 120.0
LINKS_MAX: Final = 300
HUNT_FIRST: Final = 1.0
HUNT_MAX: Final = 10.0
HUNT_SATED: Final = 45.0
"""Seconds between two searches of the DHT: at first, at most, and while peers offer what is missing (4.4)."""
NOBODY_AFTER: Final = 15.0
"""A fetch that met no peer at all for so long says so, instead of waiting for its deadline."""
DIAL_BACKOFF: Final = 30.0
_SELF_FRESH: Final = 60.0


class Finder(Protocol):
    """What a swarm needs of the DHT (`DhtClient` is one). Raises DhtUnavailable when no DHT node answers."""

    async def find_address(self, adnl_id: AdnlId, *, fresh: bool = False) -> tuple[bytes, UdpAddress] | None: ...

    async def find_overlay_nodes(self, bag_id: BagId) -> list[OverlayNode]: ...

    def announce_overlay(self, bag_id: BagId, endpoint: AdnlEndpoint | None = None) -> None: ...

    def withdraw_overlay(self, bag_id: BagId) -> None: ...


Progress = Callable[[int, int], None]
"""(pieces here, pieces in the bag)."""


@dataclass
class Shared:
    """What all swarms of a node have in common."""

    endpoint: AdnlEndpoint
    finder: Finder
    clock: Clock
    rng: random.Random
    source: PieceSource
    reputation_of: Callable[[BagId, AdnlId], Reputation]


class _Waiter:
    """One fetch: what it waits for now, and what came for it."""

    def __init__(self) -> None:
        self.since = trio.current_time()
        self.missing = 0
        self.needs_info = False
        self.failure: TonfsError | None = None
        self.bytes = 0
        self.wrong = 0
        self._event = trio.Event()

    @property
    def satisfied(self) -> bool:
        return not self.needs_info and not self.missing

    def look(self) -> None:
        """Let the fetch go on if it can."""
        if self.satisfied or self.failure is not None:
            self._event.set()

    async def wait(self) -> None:
        """Until it is satisfied. Raises the failure."""
        while self.failure is None and not self.satisfied:
            self._event = trio.Event()
            await self._event.wait()
        if self.failure is not None:
            raise self.failure

    def fail(self, exc: TonfsError) -> None:
        self.failure = exc
        self.look()


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
        self._members = Members(self.overlay, shared.endpoint.id)
        self._waiters: list[_Waiter] = []
        self._progress: list[Progress] = []
        self._bulk = 0
        self.audits = 0
        """Audits that run in this bag now."""
        self._linger_until = -math.inf
        self._wanted = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._self_node: OverlayNode | None = None
        self._announced = False
        self._dialled: dict[AdnlId, tuple[float, int]] = {}
        self._hunt_error: TonfsError | None = None
        if stored.info is not None:
            self.scheduler.set_piece_size(stored.info.piece_size)
        self.scheduler.set_have(self.have)

    # Life.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    task_status.started()
                    while True:
                        await self._wanted.wait()
                        async with trio.open_nursery() as busy:
                            busy.start_soon(self._hunt)
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

    def set_seeding(self, seeding: bool) -> None:
        self.seeding = seeding
        self._announce()
        if seeding:
            self._refresh_all()

    def _announce(self, announce: bool | None = None) -> None:
        """Be listed as a member while we seed, or download the whole bag and have something to offer. Not before:
        the record holds five members, and ours must not push out the one that we need."""
        if announce is None:
            announce = self.seeding or (self._bulk > 0 and self.stored.header is not None)
        if announce and not self._announced:
            self._shared.finder.announce_overlay(self.bag_id, self._shared.endpoint)
        elif self._announced and not announce:
            self._shared.finder.withdraw_overlay(self.bag_id)
        self._announced = announce

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

    # Peers.

    def link_for(self, peer: Peer) -> Link | None:
        """The link of this peer, made when there is room for one more."""
        link = self.links.get(peer.id)
        if link is None and self._nursery is not None and len(self.links) < LINKS_MAX:
            sid = self._shared.rng.getrandbits(63)
            session = Session(sid, int(self._shared.clock.now()), lambda: self.have, lambda: self._state(peer.id))
            session.heard = trio.current_time()
            link = self.links[peer.id] = Link(self, peer, session)
            self._nursery.start_soon(self._run_link, link)
        return link

    async def _run_link(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            if self.links.get(link.id) is link:
                del self.links[link.id]
            self.scheduler.drop_peer(link.id)

    def _state(self, peer: AdnlId) -> State:
        link = self.links.get(peer)
        return State(will_upload=True, want_download=self.wants_peers or (link is not None and link.audits > 0))

    def own_nodes(self) -> list[OverlayNode]:
        """What we tell others about members: ourselves, if we announce, and some that we know."""
        others = self._members.sample(overlay.ANSWER_NODES - 1, self._shared.rng)
        return [self._own_node(), *others] if self.seeding or self._bulk else others

    def _own_node(self) -> OverlayNode:
        now = int(self._shared.clock.now())
        if self._self_node is None or not now - _SELF_FRESH <= self._self_node.version <= now:
            endpoint = self._shared.endpoint
            self._self_node = overlay.sign_node(endpoint.public_key, endpoint.sign, self.overlay, now)
        return self._self_node

    def learn(self, nodes: Iterable[OverlayNode]) -> None:
        """Members that somebody told us about."""
        new = self._members.learn(nodes, int(self._shared.clock.now()))
        if new and self.wants_peers:
            self._dial_members()

    # Finding peers.

    async def _hunt(self) -> None:
        pause = HUNT_FIRST
        while True:
            try:
                self.learn(await self._shared.finder.find_overlay_nodes(self.bag_id))
                self._hunt_error = None
            except DhtUnavailable as exc:
                self._hunt_error = exc
            self._dial_members()
            self._redial_lost()
            sated = self.scheduler.sources() > 0
            await trio.sleep(HUNT_SATED if sated else pause)
            pause = HUNT_FIRST if sated else min(HUNT_MAX, 2 * pause)

    def _dial_members(self) -> None:
        now = trio.current_time()
        if self._nursery is None:
            return
        for node in self._members:
            after, times = self._dialled.get(node.id, (-math.inf, 0))
            if node.id not in self.links and now >= after and len(self.links) < LINKS_MAX:
                self._dialled[node.id] = (now + DIAL_BACKOFF * 2 ** min(times, 6), times + 1)
                self._nursery.start_soon(self._dial, node.id)

    def _redial_lost(self) -> None:
        """A peer that fell silent may have moved: ask the DHT, the endpoint takes over a newer address."""
        for link in self.links.values():
            if link.session.phase is Phase.LOST and self._nursery is not None:
                self._nursery.start_soon(partial(self.resolve, link.id, fresh=True))

    async def _dial(self, peer_id: AdnlId) -> None:
        peer = await self.resolve(peer_id)
        if peer is not None:
            self._dialled.pop(peer_id, None)
            self.link_for(peer)

    async def resolve(self, peer_id: AdnlId, *, fresh: bool = False) -> Peer | None:
        """A peer by its ADNL id: one that we are in contact with, or found by its address record."""
        known = self._shared.endpoint.known_peer(peer_id)
        if known is not None and known.address is not None and not fresh:
            return known
        try:
            return await self.find_by_record(peer_id, fresh=fresh)
        except DhtUnavailable as exc:
            self._hunt_error = exc
            return None

    async def find_by_record(self, peer_id: AdnlId, *, fresh: bool = False) -> Peer | None:
        """A peer at the address of its DHT record; None when there is none (that could be used). Raises
        DhtUnavailable."""
        found = await self._shared.finder.find_address(peer_id, fresh=fresh)
        if found is None:
            return None
        try:
            return self._shared.endpoint.peer(*found)
        except (BadPacket, UsageError) as exc:
            log.info("unusable address record", peer=peer_id, reason=exc.message)
            return None

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
        waiter = _Waiter()
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

    def _join(self, waiter: _Waiter, bulk: int) -> None:
        self._waiters.append(waiter)
        self._bulk += bulk
        self._announce()
        self._wanted.set()

    def _leave(self, waiter: _Waiter, bulk: int) -> None:
        self._waiters.remove(waiter)
        self._bulk -= bulk
        self._announce()
        self._linger_until = trio.current_time() + LINGER

    async def _fetch(self, waiter: _Waiter, pieces: Sequence[int] | None, deadline: float) -> int:
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

    async def _wait_for(self, pieces: int, order: Order, deadline: float, waiter: _Waiter) -> None:
        """Until all these are here. Raises what `fail` was told."""
        waiter.missing = pieces & ~self.have
        ticket = self.scheduler.want(pieces, order, deadline)
        try:
            self._refresh_all()
            await waiter.wait()
        finally:
            self.scheduler.unwant(ticket)

    def _nobody(self) -> TonfsError:
        if self._hunt_error is not None and not self.links:
            return self._hunt_error
        met = f"{len(self.links)} peers are known, none of them serves it" if self.links else "no peer is known"
        return PeerUnreachable(f"Nobody has bag {self.bag_id.hex()}: {met}.")

    def _late(self, waiter: _Waiter, timeout: float) -> TonfsError:
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
            self.learn(overlay.parse_get_random_peers(query))
            return overlay.pack_nodes(self.own_nodes())
        parsed = storage_tl.parse_query(query)
        link = self.link_for(peer)
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
