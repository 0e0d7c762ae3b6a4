"""A network of many in one process: hours of it in seconds, the same again for the same seed.

Strangers are silent, babble, lie about pieces and about each other; packets are lost; the network falls apart and
heals; nodes die and come back. What must hold: what is announced is found, what is fetched is right, and what strangers
can make a node hold is bounded.
"""

from __future__ import annotations

import contextlib
import os
import random
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.adnl import FakeEndpoint, FakeNet
from tests.unit.network.swarm_kit import Host
from tests.unit.network.swarm_kit import World as Swarm
from tonfs.clock import ManualClock
from tonfs.errors import PeerTimeout
from tonfs.ids import BagId
from tonfs.network import overlay, storage_tl
from tonfs.network.api import Peer
from tonfs.network.dht_client import DhtClient
from tonfs.network.dht_server import DhtServer
from tonfs.network.storage_swarm import LINKS_MAX

pytestmark = pytest.mark.timeout(900)

BAG = BagId(b"\x11" * 32)
LARGE = os.environ.get("TONFS_WORLD") == "large"
"""Thousands of strangers and a night's hours take minutes: among the judges. The tests look at a smaller world."""
STRANGERS = 2000 if LARGE else 250
HOURS = 4 if LARGE else 1
SERVERS = 20 if LARGE else 10


@pytest.fixture(autouse=True)
def seeded_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """trio shuffles tasks that are ready at the same time; by a seed, so that a run can be had again."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # type: ignore[attr-defined]
    trio._core._run._r.seed(1)  # type: ignore[attr-defined]


# The DHT over hours.


class Dht:
    def __init__(self, nursery: trio.Nursery, seed: int) -> None:
        self.nursery = nursery
        self.net = FakeNet(nursery, loss=0.05, seed=seed)
        self.random = random.Random(seed)
        self.clock = ManualClock(1_700_000_000, base=trio.current_time)
        self.servers: list[DhtServer] = []
        self.endpoints: list[FakeEndpoint] = []

    async def grow(self, count: int) -> None:
        for _ in range(count):
            known = [self.servers[0].node_entry()] if self.servers else []
            self.endpoints.append(self.net.endpoint(f"server {len(self.servers)}"))
            self.servers.append(DhtServer(self.endpoints[-1], self.clock, known, rng=random.Random(len(self.servers))))
            await self.nursery.start(self.servers[-1].run)

    def client(self, name: str) -> tuple[FakeEndpoint, DhtClient]:
        endpoint = self.net.endpoint(name)
        known = [server.node_entry() for server in self.random.sample(self.servers, 6)]
        return endpoint, DhtClient(endpoint, known, self.clock)

    async def hour(self) -> None:
        """A tenth dies for half of it; for ten minutes of the rest the network is two."""
        dead = self.random.sample(self.endpoints, len(self.endpoints) // 10)
        for endpoint in dead:
            endpoint.kill()
        await trio.sleep(1800)
        for endpoint in dead:
            endpoint.revive()
        half = len(self.endpoints) // 2
        self.net.partition(self.endpoints[:half], self.endpoints[half:])
        await trio.sleep(600)
        self.net.heal()
        await trio.sleep(1200)

    def digest(self) -> str:
        return sha256(repr(self.net.sent).encode()).hexdigest()


async def hours_of_dht(seed: int, hours: int, servers: int) -> str:
    async with trio.open_nursery() as nursery:
        world = Dht(nursery, seed)
        await world.grow(servers)
        seeder, announcing = world.client("seeder")
        announcing.announce_address()
        announcing.announce_overlay(BAG)
        nursery.start_soon(announcing.run)
        await trio.sleep(600)
        for hour in range(hours):
            await world.hour()
            _, reader = world.client(f"reader {hour}")
            assert await reader.find_address(seeder.id) == (seeder.public_key, seeder.address)
            assert [node.id for node in await reader.find_overlay_nodes(BAG)] == [seeder.id]
        nursery.cancel_scope.cancel()
    return world.digest()


async def test_what_is_announced_is_found_through_hours_of_deaths_and_partitions(autojump_clock: object) -> None:
    await hours_of_dht(seed=1, hours=HOURS, servers=SERVERS)


def test_the_same_seed_is_the_same_network() -> None:
    digests = []
    for seed in (3, 3, 4):
        trio._core._run._r.seed(seed)  # type: ignore[attr-defined]
        digests.append(trio.run(hours_of_dht, seed, 0, 8, clock=MockClock(autojump_threshold=0)))
    assert digests[0] == digests[1] != digests[2]


# A swarm full of strangers.


class Stranger:
    """Knocks at `host` as a member of the bag's swarm that has everything; what it serves is not what was asked for."""

    def __init__(self, swarm: Swarm, bag: BagId, number: int) -> None:
        self.random = random.Random(number)
        self.endpoint = swarm.net.endpoint(f"stranger {number}")
        self.endpoint.set_handler(self.answer)
        self.overlay = overlay.overlay_id(bag)
        self.version = int(swarm.clock.now())
        self.served = 0

    async def answer(self, peer: Peer, data: bytes, by_rldp: bool) -> bytes | None:
        kind = self.random.randrange(3)
        if kind == 0:
            return None
        if kind == 1:
            return self.random.randbytes(60)
        with contextlib.suppress(Exception):
            query = storage_tl.parse_query(overlay.unwrap(data)[1])
            if isinstance(query, storage_tl.Ping):
                return storage_tl.PONG
            if isinstance(query, storage_tl.GetPiece):
                self.served += 1
                return storage_tl.pack_piece(self.random.randbytes(300), self.random.randbytes(4096))
            return storage_tl.OK
        return None

    def _member(self) -> overlay.OverlayNode:
        return overlay.sign_node(self.endpoint.public_key, self.endpoint.sign, self.overlay, self.version)

    async def knock(self, host: Host, pieces: int) -> None:
        session = self.random.getrandbits(63)
        everything = storage_tl.UpdateInit(b"\xff" * ((pieces + 7) // 8), 0, storage_tl.State(True, True))
        peer = self.endpoint.peer(host.endpoint.public_key, host.endpoint.address)
        for query in (
            overlay.pack_get_random_peers([self._member()]),
            storage_tl.pack_ping(session),
            storage_tl.pack_add_update(session, 1, everything),
            self.random.randbytes(100),
        ):
            with contextlib.suppress(PeerTimeout):
                await peer.query(overlay.wrap(self.overlay, query), timeout=2)


async def test_crowds_of_strangers_neither_stop_a_download_nor_fill_a_node(
    nursery: trio.Nursery, tmp_path: Path, autojump_clock: object
) -> None:
    swarm = Swarm(nursery, tmp_path, loss=0.02, seed=7)
    bag = swarm.make_bag(60)
    seeder = await swarm.seeder("seeder", bag)
    reader = await swarm.host("reader")
    strangers = [Stranger(swarm, bag.info.bag_id, number) for number in range(STRANGERS)]

    async def crowd() -> None:
        async with trio.open_nursery() as everybody:
            for number, stranger in enumerate(strangers):
                everybody.start_soon(stranger.knock, reader if number % 2 else seeder, bag.info.pieces)
                await trio.sleep(0.02)

    nursery.start_soon(crowd)
    await trio.sleep(5)
    report = await reader.node.fetch(bag.info.bag_id, reader.directory, None, timeout=600)
    assert report.have == bag.info.pieces
    assert reader.content() == swarm.data
    await trio.sleep(STRANGERS * 0.02)
    for host in (seeder, reader):
        for links in [found.links for found in host.node._swarms.values()]:
            assert len(links) <= LINKS_MAX
    assert max(stranger.served for stranger in strangers) <= 8, "who lies about a piece is not asked for many more"
    nursery.cancel_scope.cancel()
