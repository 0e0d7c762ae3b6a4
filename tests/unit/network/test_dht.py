"""Client and servers of the DHT together, over the in-memory network."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace

import pytest
import trio

from tests.fakes.adnl import FakeEndpoint, FakeNet
from tonfs.clock import ManualClock
from tonfs.errors import DhtUnavailable
from tonfs.ids import AdnlId, BagId, ProviderKey
from tonfs.network import dht_wire as wire
from tonfs.network import tl
from tonfs.network.address import AddressList
from tonfs.network.api import Peer
from tonfs.network.dht_client import ADDRESS_EVERY, OVERLAY_EVERY, DhtClient
from tonfs.network.dht_server import DhtServer, ValueStore
from tonfs.network.dht_types import (
    DhtNode,
    address_key,
    overlay_key,
    overlay_value,
    signed_value,
)
from tonfs.network.keys import KeyPair
from tonfs.network.overlay import OverlayNode, sign_node

BAG = BagId(b"\x11" * 32)


class World:
    """One clock, one network, some DHT servers."""

    def __init__(self, nursery: trio.Nursery, **net: float) -> None:
        self.net = FakeNet(nursery, **net)  # type: ignore[arg-type]
        self.nursery = nursery
        self.clock = ManualClock(1_700_000_000, base=trio.current_time)
        self.servers: list[DhtServer] = []
        self.endpoints: list[FakeEndpoint] = []

    async def server(self, static: list[DhtNode] | None = None) -> DhtServer:
        endpoint = self.net.endpoint(f"server {len(self.servers)}")
        server = DhtServer(endpoint, self.clock, static or [])
        await self.nursery.start(server.run)
        self.servers.append(server)
        self.endpoints.append(endpoint)
        return server

    def client(self, name: str, servers: list[DhtServer] | None = None) -> tuple[FakeEndpoint, DhtClient]:
        endpoint = self.net.endpoint(name)
        known = [server.node_entry() for server in servers or self.servers[:1]]
        return endpoint, DhtClient(endpoint, known, self.clock)

    def member(self, name: str, age: float = 0) -> OverlayNode:
        endpoint = self.net.endpoint(name)
        version = int(self.clock.now() - age)
        return sign_node(endpoint.public_key, endpoint.sign, overlay_key(BAG).owner_id, version)


@pytest.fixture
def world(nursery) -> World:
    return World(nursery)


async def test_an_address_published_by_one_is_found_by_another(world, autojump_clock):
    await world.server()
    a, dht_a = world.client("a")
    _, dht_b = world.client("b")
    assert await dht_b.find_address(a.id) is None
    assert await dht_a.publish_address() == 1
    assert await dht_b.find_address(a.id) == (a.public_key, a.address)


async def test_a_found_address_is_cached_until_a_fresh_one_is_asked_for(world, autojump_clock):
    await world.server()
    a, dht_a = world.client("a")
    _, dht_b = world.client("b")
    await dht_a.publish_address()
    await dht_b.find_address(a.id)
    a.move(("127.0.0.1", 7))
    await trio.sleep(5)
    await dht_a.publish_address()
    asked = len(world.net.sent)
    assert (await dht_b.find_address(a.id))[1] != a.address
    assert len(world.net.sent) == asked
    assert await dht_b.find_address(a.id, fresh=True) == (a.public_key, a.address)
    assert await dht_b.find_address(a.id) == (a.public_key, a.address)


async def test_many_tasks_that_want_the_same_address_ask_once(world, autojump_clock):
    await world.server()
    a, dht_a = world.client("a")
    _, dht_b = world.client("b")
    await dht_a.publish_address()
    before = world.net.executed[tl.DHT_FIND_VALUE]
    async with trio.open_nursery() as many:
        for _ in range(20):
            many.start_soon(dht_b.find_address, a.id)
    assert world.net.executed[tl.DHT_FIND_VALUE] == before + 1


async def test_an_address_record_serves_for_another_identity_of_ours(world, autojump_clock):
    await world.server()
    _, dht = world.client("a")
    second = world.net.endpoint("second identity")
    await dht.publish_address(second)
    assert await dht.find_address(second.id) == (second.public_key, second.address)
    assert await dht.find_address_at(address_key(second.id).id) == (second.public_key, second.address)


async def test_without_any_answer_nothing_is_known_instead_of_not_found(world, autojump_clock):
    server = await world.server()
    _, dht = world.client("a")
    world.endpoints[0].kill()
    for call in (
        lambda: dht.find_address(AdnlId(bytes(32))),
        lambda: dht.find_overlay_nodes(BAG),
        lambda: dht.find_provider(ProviderKey(bytes(32))),
        dht.publish_address,
    ):
        with pytest.raises(DhtUnavailable):
            await call()
    world.endpoints[0].revive()
    assert await dht.find_address(AdnlId(bytes(32))) is None
    assert len(server.table) == 0


async def test_members_of_a_bag_are_merged_from_everybody_who_published(world, autojump_clock):
    await world.server()
    for index in range(4):
        endpoint, dht = world.client(f"peer {index}")
        node = sign_node(endpoint.public_key, endpoint.sign, overlay_key(BAG).owner_id, int(world.clock.now()) + index)
        await dht.publish_overlay(BAG, node)
    _, dht = world.client("reader")
    found = await dht.find_overlay_nodes(BAG)
    assert len(found) == 4
    assert [n.version for n in found] == sorted((n.version for n in found), reverse=True)


async def test_a_bag_with_more_members_than_fit_keeps_the_newest_and_always_ours(world, autojump_clock):
    await world.server()
    _, dht = world.client("writer")
    crowd = [world.member(f"m{i}") for i in range(5)]
    await dht.store(overlay_value(BAG, crowd, int(world.clock.now()) + 3600))
    late = world.member("late", age=30)
    await dht.publish_overlay(BAG, late)
    _, reader = world.client("reader")
    found = await reader.find_overlay_nodes(BAG)
    assert len(found) == 5
    stored = next(iter(world.servers[0].values._values.values()))
    assert len(stored.value) <= 768


async def test_a_provider_record_leads_to_its_adnl_id(world, autojump_clock):
    await world.server()
    a, dht_a = world.client("provider")
    _, dht_b = world.client("client")
    key = KeyPair.from_seed(b"\x07" * 32)
    assert await dht_b.find_provider(ProviderKey(key.public_key)) is None
    await dht_a.publish_provider(key, a.id)
    assert await dht_b.find_provider(ProviderKey(key.public_key)) == a.id
    assert await dht_b.find_provider(ProviderKey(a.public_key)) is None


async def test_what_is_announced_stays_alive_and_what_is_withdrawn_ends(world, autojump_clock):
    await world.server()
    a, dht = world.client("a")
    dht.announce_address()
    dht.announce_overlay(BAG)
    world.nursery.start_soon(dht.run)
    _, reader = world.client("reader")
    await trio.sleep(5 * 3600)
    assert await reader.find_address(a.id, fresh=True) == (a.public_key, a.address)
    [member] = await reader.find_overlay_nodes(BAG)
    assert member.version > world.clock.now() - 120
    dht.withdraw_overlay(BAG)
    await trio.sleep(3600 + OVERLAY_EVERY)
    assert await reader.find_overlay_nodes(BAG) == []
    assert await reader.find_address(a.id, fresh=True) is not None


async def test_hundreds_of_bags_cost_two_queries_a_round_each(world, autojump_clock):
    await world.server()
    _, dht = world.client("a")
    world.nursery.start_soon(dht.run)
    await trio.sleep(1)
    for number in range(300):
        dht.announce_overlay(BagId(number.to_bytes(32, "big")))
        dht.announce_overlay(BagId(number.to_bytes(32, "big")))
    await trio.sleep(OVERLAY_EVERY)
    assert len(world.servers[0].values) == 300
    before = len(world.net.sent)
    await trio.sleep(OVERLAY_EVERY * 3)
    rounds = (len(world.net.sent) - before) / 300
    assert rounds <= 2 * 3 + 2


async def test_publishing_recovers_when_the_dht_was_away(world, autojump_clock):
    await world.server()
    a, dht = world.client("a")
    world.endpoints[0].kill()
    dht.announce_address()
    world.nursery.start_soon(dht.run)
    await trio.sleep(60)
    world.endpoints[0].revive()
    await trio.sleep(40)
    assert await dht.find_address(a.id, fresh=True) is not None


async def test_a_swarm_finds_values_with_a_third_of_its_nodes_dead_and_packets_lost(nursery, autojump_clock):
    world = World(nursery, loss=0.05, seed=1)
    first = await world.server()
    for _ in range(29):
        await world.server([first.node_entry()])
    await trio.sleep(300)
    assert all(len(server.table) >= 8 for server in world.servers)
    a, dht_a = world.client("a", world.servers[3:6])
    assert await dht_a.publish_address() >= 4
    holders = [len(server.values) for server in world.servers]
    assert 4 <= sum(holders) <= 6
    for endpoint in world.endpoints[::3]:
        endpoint.kill()
    _, dht_b = world.client("b", world.servers[9:14])
    assert await dht_b.find_address(a.id) == (a.public_key, a.address)
    assert await dht_b.find_address(AdnlId(b"\x01" * 32)) is None


async def test_members_held_by_different_nodes_are_all_found(nursery, autojump_clock):
    world = World(nursery)
    first = await world.server()
    for _ in range(3):
        await world.server([first.node_entry()])
    await trio.sleep(120)
    now = int(world.clock.now())
    for index, server in enumerate(world.servers):
        server.values.put(overlay_value(BAG, [world.member(f"only {index}")], now + 1000), now)
    _, dht = world.client("reader")
    assert len(await dht.find_overlay_nodes(BAG)) == 4


# What a server does with strangers.


async def answer(world: World, data: bytes) -> bytes | None:
    stranger = world.net.endpoint("stranger")
    peer = world.endpoints[0].heard_from(stranger)
    return await world.servers[0].handle(peer, data, False)


async def test_a_server_answers_the_small_queries(world, autojump_clock):
    server = await world.server()
    assert await answer(world, wire.pack_query(wire.Ping(77))) == wire.pack_pong(77)
    assert await answer(world, wire.pack_query(wire.FindNode(bytes(32), 6))) == wire.pack_nodes([])
    found = await answer(world, wire.pack_query(wire.FindValue(bytes(32), 6)))
    assert found == wire.pack_value_not_found([])
    entry = await answer(world, wire.pack_query(wire.GetSignedAddressList()))
    assert entry is not None
    node = wire.parse_node(entry)
    assert node.check()
    assert node.id == world.endpoints[0].id
    assert node == server.node_entry()
    await trio.sleep(61)
    assert server.node_entry().version > node.version


async def test_a_server_is_silent_about_everything_else(world, autojump_clock):
    await world.server()
    good = signed_value(KeyPair.from_seed(b"\x01" * 32), b"n", b"v", int(world.clock.now()) + 100)
    for data in (
        b"",
        b"abc",
        bytes(4),
        wire.pack_query(wire.Ping(1)) + b"\0\0\0\0",
        wire.pack_query(wire.Store(replace(good, value=b"w"))),
        wire.pack_query(wire.Store(replace(good, ttl=good.ttl + 9000))),
        tl.Writer(tl.OVERLAY_GET_RANDOM_PEERS).u32(0).done(),
    ):
        assert await answer(world, data) is None
    assert len(world.servers[0].values) == 0
    assert await answer(world, wire.pack_query(wire.Store(good))) == wire.STORED
    assert await answer(world, wire.pack_query(wire.Store(replace(good, ttl=1)))) is None


async def test_an_expired_value_is_taken_and_not_kept(world, autojump_clock):
    await world.server()
    old = signed_value(KeyPair.from_seed(b"\x01" * 32), b"n", b"v", int(world.clock.now()) - 1)
    assert await answer(world, wire.pack_query(wire.Store(old))) == wire.STORED
    assert len(world.servers[0].values) == 0


async def test_only_a_sender_that_introduces_itself_truthfully_is_remembered(world, autojump_clock):
    server = await world.server()
    stranger = world.net.endpoint("stranger")
    addresses = AddressList((stranger.address,), 1, 1)
    other = DhtNode.create(world.net.endpoint("other"), addresses, 5)
    unsigned = DhtNode.unverified(stranger.public_key, addresses, 5, bytes(64))
    for lie in (other, unsigned):
        assert await answer(world, wire.pack_query(wire.Ping(1), lie)) == wire.pack_pong(1)
        assert len(server.table) == 0
    truth = DhtNode.create(stranger, addresses, 5)
    assert await answer(world, wire.pack_query(wire.Ping(1), truth)) is not None
    assert stranger.id in server.table
    nodes = await answer(world, wire.pack_query(wire.FindNode(bytes(32), 2**31 - 1)))
    assert nodes == wire.pack_nodes([truth])
    assert await answer(world, wire.pack_query(wire.FindNode(bytes(32), -5))) == wire.pack_nodes([])


async def test_a_lying_server_cannot_plant_values_or_nodes(world, autojump_clock):
    liar = world.net.endpoint("liar")
    now = int(world.clock.now())
    victim = world.net.endpoint("victim")
    true_value = signed_value(victim, b"address", AddressList((victim.address,), 1, 1).boxed(), now + 100)
    lies = [
        wire.pack_value_found(replace(true_value, value=AddressList((("127.0.0.1", 6),), 1, 1).boxed())),
        wire.pack_value_found(signed_value(liar, b"address", true_value.value, now + 100)),
        wire.pack_value_found(signed_value(victim, b"address", true_value.value, now - 5)),
        wire.pack_value_not_found([DhtNode.unverified(victim.public_key, AddressList((), 1, 1), 3, bytes(64))]),
        b"nonsense",
        b"",
        wire.STORED,
    ]

    async def handler(peer: Peer, data: bytes, rldp: bool) -> bytes | None:
        return lies[next(step)]

    step = itertools.count()
    liar.set_handler(handler)
    reader = world.net.endpoint("reader")
    entry = DhtNode.create(liar, AddressList((liar.address,), 1, 1), 5)
    dht = DhtClient(reader, [entry], world.clock)
    for _ in range(len(lies)):
        with contextlib.suppress(DhtUnavailable):
            assert await dht.find_address(victim.id) is None
    assert next(step) == len(lies)
    assert [n.id for n in dht.table.nodes()] == [liar.id]


async def test_a_value_under_the_right_key_that_is_no_address_is_not_one(world, autojump_clock):
    await world.server()
    a, dht = world.client("a")
    await dht.store(signed_value(a, b"address", b"no list", int(world.clock.now()) + 100))
    assert await dht.find_address(a.id) is None
    key = KeyPair.from_seed(b"\x07" * 32)
    await dht.store(signed_value(key, b"storage-provider", b"no record", int(world.clock.now()) + 100))
    assert await dht.find_provider(ProviderKey(key.public_key)) is None


def test_a_full_store_prefers_values_near_its_own_id():
    now = 1_700_000_000
    store = ValueStore(bytes(32), max_values=50)
    values = [signed_value(KeyPair.from_seed(bytes([i]) * 32), b"n", b"v", now + 100) for i in range(120)]
    kept = [store.put(value, now) for value in values]
    assert len(store) <= 50
    assert kept[:50] == [True] * 50
    assert not all(kept)
    held = sorted(value.key.id for value in values if store.get(value.key.id, now))
    assert held[-1] < sorted(value.key.id for value in values)[75]
    weight = store.weight
    store.expire(now + 101)
    assert len(store) == 0
    assert weight > 0
    assert store.weight == 0


def test_a_store_is_bounded_in_bytes_too():
    now = 1_700_000_000
    store = ValueStore(bytes(32), max_bytes=20_000)
    for i in range(120):
        store.put(signed_value(KeyPair.from_seed(bytes([i]) * 32), b"n", bytes(700), now + 100), now)
    assert store.weight <= 21_200
    assert len(store) < 25


def test_addresses_are_published_more_often_than_they_expire():
    assert ADDRESS_EVERY < 3600
    assert OVERLAY_EVERY < 600
