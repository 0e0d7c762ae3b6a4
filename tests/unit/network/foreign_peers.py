"""Storage peers with the manners of both daemons on the in-memory network (see `storage_models`)."""

from __future__ import annotations

import trio

from tests.unit.network.storage_models import CppPeer, GoPeer
from tests.unit.network.swarm_kit import World
from tonfs.bag import PieceTree, verify_piece
from tonfs.bagfiles import CreatedBag
from tonfs.errors import PeerTimeout
from tonfs.network import overlay, storage_tl
from tonfs.network.api import Peer
from tonfs.network.storage_session import SendPing


class Foreign:
    """One foreign peer; it has the whole bag or nothing. `model` exists from the first contact on."""

    def __init__(self, world: World, name: str, bag: CreatedBag, *, full: bool) -> None:
        self.world = world
        self.bag = bag
        self.full = full
        self.got: dict[int, bytes] = {}
        self.endpoint = world.net.endpoint(name)
        self.endpoint.set_handler(self.handle)
        self.overlay = overlay.overlay_id(bag.info.bag_id)
        self.tree = PieceTree(bag.hashes)
        self.model: CppPeer | GoPeer | None = None
        world.dht.finder(self.endpoint).announce_overlay(bag.info.bag_id)

    def new_model(self) -> CppPeer | GoPeer:
        raise NotImplementedError

    def serves(self) -> bool:
        raise NotImplementedError

    def understands_plain(self, query: bytes) -> bool:
        return True

    @property
    def have(self) -> int:
        return (1 << self.bag.info.pieces) - 1 if self.full else 0

    def piece(self, index: int) -> bytes:
        info = self.bag.info
        stream = self.bag.header.to_bytes() + self.world.data
        return stream[index * info.piece_size : index * info.piece_size + info.piece_length(index)]

    def meet(self, peer: Peer) -> None:
        if self.model is None:
            self.model = self.new_model()
            self.world.nursery.start_soon(self.drive, peer)

    async def handle(self, peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
        overlay_id, query = overlay.unwrap(data)
        assert overlay_id == self.overlay
        if not by_rldp and not self.understands_plain(query):
            return None
        if query == overlay.PING:
            return overlay.PONG
        if query[:4] == overlay.pack_get_random_peers([])[:4]:
            now = int(self.world.clock.now())
            own = overlay.sign_node(self.endpoint.public_key, self.endpoint.sign, self.overlay, now)
            return overlay.pack_nodes([own])
        self.meet(peer)
        assert self.model is not None
        match storage_tl.parse_query(query):
            case storage_tl.Ping(sid):
                self.model.ping_arrived(sid, trio.current_time())
                return storage_tl.PONG
            case storage_tl.AddUpdate(sid, seqno, update):
                good = self.model.update_arrived(sid, seqno, update, trio.current_time())
                return storage_tl.OK if good else None
            case storage_tl.GetTorrentInfo():
                return storage_tl.pack_torrent_info(self.bag.info.to_boc()) if self.full else None
            case storage_tl.GetPiece(index):
                if not self.full or not self.serves():
                    return None
                return storage_tl.pack_piece(self.tree.proof(index), self.piece(index))

    async def ask(self, peer: Peer, query: bytes, timeout: float = 10.0, *, plain: bool = False) -> bytes | None:
        data = overlay.wrap(self.overlay, query)
        try:
            if plain:
                return await peer.query(data, timeout=timeout)
            return await peer.rldp_query(data, max_answer=1 << 20, timeout=timeout)
        except PeerTimeout:
            return None

    async def drive(self, peer: Peer) -> None:
        """Say what the model wants to say, ask for what we lack."""
        model = self.model
        assert model is not None
        while True:
            now = trio.current_time()
            action = model.due(now)
            if isinstance(action, SendPing):
                answer = await self.ask(peer, storage_tl.pack_ping(action.session_id), 5.0, plain=True)
                model.finished(action, answer == storage_tl.PONG, trio.current_time())
            elif action is not None:
                query = storage_tl.pack_add_update(action.session_id, action.seqno, action.update)
                model.finished(action, await self.ask(peer, query) == storage_tl.OK, trio.current_time())
            elif not self.full and len(self.got) < self.bag.info.pieces and self.may_ask():
                await self.download(peer)
            else:
                await trio.sleep(0.1)

    def may_ask(self) -> bool:
        raise NotImplementedError

    async def download(self, peer: Peer) -> None:
        """Up to five pieces at a time of those that the peer announced."""
        assert self.model is not None
        have = self.model.peer_have
        wanted = [i for i in range(self.bag.info.pieces) if i not in self.got and have >> i & 1][:5]
        if not wanted:
            await trio.sleep(0.1)

        async def one(index: int) -> None:
            answer = await self.ask(peer, storage_tl.pack_get_piece(index))
            if answer is not None:
                proof, data = storage_tl.parse_piece(answer)
                verify_piece(self.bag.info, index, proof, data)
                self.got[index] = data

        async with trio.open_nursery() as nursery:
            for index in wanted:
                nursery.start_soon(one, index)


class CppHost(Foreign):
    """storage-daemon: chokes at first, contacts nobody who does not answer overlay.ping, asks only the unchoked."""

    def new_model(self) -> CppPeer:
        return CppPeer(self.bag.info.pieces, self.have, sid=2**63 + 4711)

    def serves(self) -> bool:
        assert isinstance(self.model, CppPeer)
        return self.model.will_upload

    def may_ask(self) -> bool:
        return self.model is not None and self.model.peer_state is not None and self.model.peer_state.will_upload

    async def contact(self, peer: Peer) -> None:
        """As the overlay does with a node out of the DHT: a ping first."""
        answer = await self.ask(peer, overlay.PING, plain=True)
        assert answer == overlay.PONG
        self.meet(peer)


class GoHost(Foreign):
    """tonutils-storage: only two queries by plain ADNL, never chokes."""

    def new_model(self) -> GoPeer:
        return GoPeer(self.bag.info.pieces, self.have)

    def serves(self) -> bool:
        return True

    def understands_plain(self, query: bytes) -> bool:
        return query[:4] in (storage_tl.pack_ping(0)[:4], overlay.pack_get_random_peers([])[:4])

    def may_ask(self) -> bool:
        return self.model is not None and self.model.peer_have > 0

    async def contact(self, peer: Peer) -> None:
        self.model = GoPeer(self.bag.info.pieces, self.have, opens=True)
        self.world.nursery.start_soon(self.drive, peer)
