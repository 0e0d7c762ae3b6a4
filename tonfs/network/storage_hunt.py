"""Finding the peers of one bag: the overlay record of the DHT, members that others mention, addresses of both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from ..errors import BadPacket, DhtUnavailable, PeerUnreachable, UsageError
from ..ids import AdnlId
from ..log import get_logger
from . import overlay
from .api import Peer
from .overlay import Members, OverlayNode
from .storage_session import Phase
from .storage_shared import Shared

if TYPE_CHECKING:
    from .storage_swarm import Swarm

log = get_logger(__name__)

HUNT_FIRST: Final = 1.0
HUNT_MAX: Final = 10.0
HUNT_SATED: Final = 45.0
"""Seconds between two searches of the DHT: at first, at most, and while peers offer what is missing (4.4)."""
REACH_FIRST: Final = 10.0
REACH_MAX: Final = 300.0
DIAL_BACKOFF: Final = 30.0
_OWN_FRESH: Final = 60.0


class Hunt:
    """The members of a swarm's overlay and how to reach them."""

    def __init__(self, swarm: Swarm, shared: Shared) -> None:
        self._swarm = swarm
        self._shared = shared
        self._members = Members(swarm.overlay, shared.endpoint.id)
        self._dialled: dict[AdnlId, tuple[float, int]] = {}
        self._own: OverlayNode | None = None
        self.error: DhtUnavailable | None = None
        """Why the last search failed; None when the DHT answered."""

    # Who is there.

    def own_nodes(self, *, ourselves: bool) -> list[OverlayNode]:
        """What we tell others about members: some that we know, and ourselves in front."""
        others = self._members.sample(overlay.ANSWER_NODES - 1, self._shared.rng)
        return [self._own_node(), *others] if ourselves else others

    def _own_node(self) -> OverlayNode:
        now = int(self._shared.clock.now())
        if self._own is None or not now - _OWN_FRESH <= self._own.version <= now:
            endpoint = self._shared.endpoint
            self._own = overlay.sign_node(endpoint.public_key, endpoint.sign, self._swarm.overlay, now)
        return self._own

    def learn(self, nodes: Iterable[OverlayNode]) -> None:
        """Members that somebody told us about."""
        if self._members.learn(nodes, int(self._shared.clock.now())) and self._swarm.wants_peers:
            self._dial_members()

    def sweep(self) -> None:
        """Forget when those were dialled who are not members any more."""
        self._dialled = {peer: when for peer, when in self._dialled.items() if peer in self._members}

    # Searching.

    async def run(self) -> None:
        """Search while the swarm wants peers; cancelled when it has enough of it."""
        pause = HUNT_FIRST
        while True:
            await self._search()
            self._redial_lost()
            sated = self._swarm.scheduler.sources() > 0
            await trio.sleep(HUNT_SATED if sated else pause)
            pause = HUNT_FIRST if sated else min(HUNT_MAX, 2 * pause)

    async def reach_out(self) -> None:
        """Nobody can dial a seeder without an address, so it dials those who are listed (4.7)."""
        pause = REACH_FIRST
        while True:
            await trio.sleep(pause)
            if self._shared.reachable:
                pause = REACH_MAX
            elif self._swarm.seeding:
                await self._search()
                pause = min(REACH_MAX, 1.5 * pause)

    async def _search(self) -> None:
        try:
            self.learn(await self._shared.finder.find_overlay_nodes(self._swarm.bag_id))
            self.error = None
        except DhtUnavailable as exc:
            self.error = exc
        self._dial_members()

    # Dialling.

    def _dial_members(self) -> None:
        now = trio.current_time()
        for node in self._members:
            after, times = self._dialled.get(node.id, (-math.inf, 0))
            if node.id not in self._swarm.links and now >= after:
                self._dialled[node.id] = (now + DIAL_BACKOFF * 2 ** min(times, 6), times + 1)
                self._swarm.start_soon(partial(self._dial, node.id))

    def _redial_lost(self) -> None:
        """A peer that fell silent may have moved: ask the DHT, the endpoint takes over a newer address."""
        for link in self._swarm.links.values():
            if link.session.phase is Phase.LOST:
                self._swarm.start_soon(partial(self._resolve, link.id, fresh=True))

    async def _dial(self, peer_id: AdnlId) -> None:
        peer = await self._resolve(peer_id)
        if peer is None:
            return
        self._dialled.pop(peer_id, None)
        link = self._swarm.link_for(peer)
        if link is not None and not self._shared.reachable:
            link.session.greet(trio.current_time())
            link.poke()

    async def _resolve(self, peer_id: AdnlId, *, fresh: bool = False) -> Peer | None:
        """A peer by its ADNL id: one that we are in contact with, or found by its address record."""
        known = self._shared.endpoint.known_peer(peer_id)
        if known is not None and known.address is not None and not fresh:
            return known
        with suppress(DhtUnavailable):
            return await self.find_by_record(peer_id, fresh=fresh)
        return None

    async def find_by_record(self, peer_id: AdnlId, *, fresh: bool = False) -> Peer | None:
        """A peer at the address of its DHT record; None when there is none that could be used.

        Raises DhtUnavailable.
        """
        found = await self._shared.finder.find_address(peer_id, fresh=fresh)
        if found is None:
            return None
        try:
            return self._shared.endpoint.peer(*found)
        except (BadPacket, PeerUnreachable, UsageError) as exc:
            log.info("unusable address record", peer=peer_id, reason=exc.message)
            return None
