"""What strangers may make us do: hold little, send little, and nothing outside of the configured network."""

from __future__ import annotations

import contextlib
import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.fakes.simnet import SimNet, SimNode
from tests.unit.network.swarm_kit import World
from tests.unit.network.test_rldp import part_message, rldp_query
from tonfs.bag import TorrentInfo
from tonfs.bagfiles import StoredBag
from tonfs.clock import SystemClock
from tonfs.errors import BadPacket, PeerTimeout, PeerUnreachable
from tonfs.ids import AdnlId, BagId
from tonfs.network import (
    adnl_hub,
    adnl_memory,
    adnl_path,
    keys,
    overlay,
    storage_node,
    storage_shared,
    storage_swarm,
    storage_tl,
)
from tonfs.network import adnl_packet as wire
from tonfs.network.address import Reach, reach_of
from tonfs.network.adnl_memory import PartialMessages
from tonfs.network.api import UdpAddress
from tonfs.network.global_config import parse_global_config
from tonfs.network.keys import KeyPair
from tonfs.network.memory_pool import Account, Pool
from tonfs.network.node import AdnlNode
from tonfs.network.storage_tl import UpdateHavePieces

MOST_PIECES = 32_000_000
VICTIM = ("10.6.6.6", 666)
LONG_QUERY = [wire.Query(bytes(32), b"give me all")]
LONG_RLDP = [wire.Custom(part_message(b"\1" * 32, rldp_query(b"give me all", 1 << 22), 0))]


def key_of(number: int) -> KeyPair:
    return KeyPair.from_seed(sha256(b"stranger %d" % number).digest())


def knock(net: SimNet, target: SimNode, messages: list[wire.Message], seqno: int = 1, who: int = 1) -> bytes:
    """A stranger's first datagram, as a client sends it, with a channel offered."""
    create = wire.CreateChannel(key_of(1000 + who).public_key, int(net.now()))
    plain = wire.build_contents(
        [wire.pack_message(message) for message in (create, *messages)],
        seqno=seqno,
        confirm_seqno=0,
        from_key=key_of(who).public_key,
        dates=(int(net.now()) - 5, 0),
        sign=key_of(who),
    )
    return wire.seal_root(target.key.public_key, target.key.short_id, plain)


@pytest.mark.parametrize("messages", [LONG_QUERY, LONG_RLDP], ids=["adnl", "rldp"])
def test_an_invented_source_address_gets_three_bytes_for_one(messages: list[wire.Message]) -> None:
    net = SimNet()
    server = net.node(1)
    server.handler = lambda data: bytes(8000 if messages is LONG_QUERY else 1 << 20)
    hits: list[int] = []
    net.on_wire = lambda datagram, source, target: hits.append(len(datagram))
    first = knock(net, server, messages)
    server.hub.receive(first, VICTIM, net.time)
    net.run(60)
    assert server.asked
    assert 1 <= sum(hits) <= adnl_path.CREDIT * len(first)
    assert max(hits) <= wire.MAX_DATAGRAM
    net.run(2 * adnl_hub.PAIR_IDLE)
    assert server.local.remotes[key_of(1).short_id].address is None, "an unproven address must not become a given one"


def test_root_packets_of_all_sources_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adnl_hub, "ALL_ROOT_BURST", 50.0)
    net = SimNet()
    server = net.node(1)
    for number in range(200):
        server.hub.receive(server.key.short_id + bytes(200), (f"10.9.{number}.1", 1), net.time)
    assert server.hub.stats.limited == 150


def test_known_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adnl_hub, "MAX_REMOTES", 10)
    net = SimNet()
    server = net.node(1)
    for number in range(30):
        server.hub.remote(server.local, key_of(number).public_key, VICTIM, net.time)
    assert len(server.local.remotes) == 10


def test_a_message_in_single_bytes_is_refused() -> None:
    partial = PartialMessages(Account(Pool(1 << 20), lambda: None))
    for offset in range(adnl_memory.MAX_CHUNKS):
        assert partial.add(wire.Part(bytes(32), 8000, offset, b"x"), 0.0) is None
    with pytest.raises(BadPacket):
        partial.add(wire.Part(bytes(32), 8000, 7000, b"x"), 0.0)


def test_a_devnet_neither_calls_nor_hears_anything_but_loopback() -> None:
    net = SimNet()
    server = net.node(1)
    server.handler = lambda data: data
    server.hub.reach = Reach(loopback_only=True)
    for host in ("8.8.8.8", "192.168.1.7", "10.0.0.2"):
        with pytest.raises(PeerUnreachable):
            server.hub.remote(server.local, key_of(1).public_key, (host, 9), net.time)
    server.hub.receive(knock(net, server, LONG_QUERY), VICTIM, net.time)
    net.run(5)
    assert server.hub.stats.outside == 1
    assert net.sent == 0
    assert not server.local.remotes
    server.hub.receive(knock(net, server, LONG_QUERY), ("127.0.0.1", 9), net.time)
    net.run(5)
    assert server.asked


async def test_a_node_on_loopback_refuses_to_call_the_world() -> None:
    endpoint = AdnlNode(("127.0.0.1", 0), clock=SystemClock()).add_identity(key_of(1))
    with pytest.raises(PeerUnreachable):
        endpoint.peer(key_of(2).public_key, ("8.8.8.8", 9))
    assert endpoint.known_peer(key_of(2).short_id) is None


CALLS: list[tuple[Reach, list[str], list[str]]] = [
    (reach_of("127.0.0.1"), ["127.0.0.1", "127.9.9.9"], ["8.8.8.8", "10.0.0.1"]),
    (reach_of("0.0.0.0", hosts=["127.0.0.1"]), ["127.0.0.1"], ["8.8.8.8", "192.168.0.1"]),
    (reach_of("0.0.0.0", hosts=["8.8.8.8"]), ["8.8.4.4"], ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1"]),
    (reach_of("0.0.0.0", "8.8.4.4", ["8.8.8.8", "10.0.0.9"]), ["8.8.8.8", "10.0.0.9"], ["10.0.0.1", "127.0.0.1"]),
    (reach_of("192.168.1.2"), ["192.168.1.3", "8.8.8.8"], []),
    (reach_of("0.0.0.0", "192.168.1.2"), ["192.168.1.3", "8.8.8.8"], []),
]


@pytest.mark.parametrize(("reach", "good", "bad"), CALLS)
def test_addresses_that_others_tell_must_lie_in_the_network(reach: Reach, good: list[str], bad: list[str]) -> None:
    assert all(reach.may_call(address(host)) for host in good)
    assert not any(reach.may_call(address(host)) for host in bad)


def address(host: str) -> UdpAddress:
    return (host, 3333)


def test_the_global_config_names_the_network() -> None:
    key = {"@type": "pub.ed25519", "key": "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGU="}
    servers = [{"ip": 2130706433, "port": 9, "id": key}]
    hosts = parse_global_config(json.dumps({"liteservers": servers})).hosts
    assert hosts == {"127.0.0.1"}
    assert reach_of("0.0.0.0", hosts=hosts).loopback_only


def test_on_a_public_network_a_router_that_hides_the_sender_is_answered() -> None:
    assert reach_of("0.0.0.0", hosts=["8.8.8.8"]).may_answer("172.17.0.1")


def test_a_key_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    link = os.link

    def watch(source: Path, target: Path) -> None:
        modes.append(source.stat().st_mode & 0o777)
        link(source, target)

    monkeypatch.setattr(os, "link", watch)
    before = os.umask(0)
    try:
        keys.load_or_create(tmp_path / "peer.key")
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert [path.name for path in tmp_path.iterdir()] == ["peer.key"]


async def test_a_crowd_of_strangers_does_not_wash_a_liar_clean(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_node, "REPUTATIONS", 10)
    node = (await World(nursery, tmp_path).host("reader")).node
    bag, liar = BagId(bytes(32)), AdnlId(b"\xff" * 32)
    node._reputation(bag, liar).wrong = 3
    for number in range(100):
        node._reputation(bag, AdnlId(number.to_bytes(32, "big")))
    assert len(node._reputations) == 10
    assert node._reputation(bag, liar).wrong == 3


async def test_sessions_of_strangers_are_bounded(
    nursery: trio.Nursery, tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_swarm, "LINKS_MAX", 3)
    world = World(nursery, tmp_path)
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    ping = overlay.wrap(overlay.overlay_id(bag.info.bag_id), storage_tl.pack_ping(12))
    answered = 0
    for number in range(6):
        peer = world.net.endpoint(f"stranger {number}").peer(seeder.endpoint.public_key, seeder.endpoint.address)
        with contextlib.suppress(PeerTimeout):
            answered += await peer.query(ping, timeout=1) == storage_tl.PONG
    assert answered == 3
    assert len(seeder.node.peers(bag.info.bag_id)) == 3


async def test_sessions_of_all_bags_together_are_bounded_for_strangers(
    nursery: trio.Nursery, tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_swarm, "LINKS_ALL", 2)
    world = World(nursery, tmp_path)
    bag = world.make_bag()
    seeder = await world.seeder("seeder", bag)
    swarm = seeder.node._swarms[bag.info.bag_id]
    strangers = [world.net.endpoint(f"stranger {n}") for n in range(4)]
    peers = [seeder.endpoint.peer(one.public_key, one.address) for one in strangers]
    assert [swarm.link_for(peer, stranger=True) is not None for peer in peers] == [True, True, False, False]
    assert swarm.link_for(peers[2]) is not None, "one that we look for gets a session all the same"


async def test_sets_of_pieces_of_strangers_are_bounded(nursery: trio.Nursery, tmp_path: Path) -> None:
    """32 million pieces: one number of the last one costs 4 MiB to keep."""
    world = World(nursery, tmp_path)
    small = world.make_bag()
    host = await world.seeder("host", small)
    info = TorrentInfo(1 << 17, MOST_PIECES << 17, bytes(32), 100, bytes(32))
    StoredBag.prepare(tmp_path / "large", info.bag_id).set_info(info.to_boc())
    await host.node.seed(info.bag_id, tmp_path / "large")
    pool = host.node._shared.have_sets

    async def claim(number: int, bag: BagId, piece: int) -> None:
        peer = world.net.endpoint(f"stranger {number}").peer(host.endpoint.public_key, host.endpoint.address)
        where = overlay.overlay_id(bag)
        assert await peer.query(overlay.wrap(where, storage_tl.pack_ping(12)), timeout=5) == storage_tl.PONG
        update = storage_tl.pack_add_update(12, 1, UpdateHavePieces((piece,)))
        answer = await peer.rldp_query(overlay.wrap(where, update), max_answer=4096, timeout=5)
        assert answer == storage_tl.OK

    for number in range(40):
        await claim(number, info.bag_id, MOST_PIECES - 1)
    assert MOST_PIECES // 8 < pool.used <= storage_shared.HAVE_BUDGET
    kept = sum(peer.pieces for peer in host.node.peers(info.bag_id))
    assert 10 < kept < 20
    await claim(100, small.info.bag_id, 3)
    assert [peer.pieces for peer in host.node.peers(small.info.bag_id)] == [1]
    await host.node.forget(info.bag_id)
    await trio.testing.wait_all_tasks_blocked()
    assert pool.used < 100


async def test_an_invented_address_is_not_kept_for_the_next_start() -> None:
    node = AdnlNode(("127.0.0.1", 0), clock=SystemClock())
    net = SimNet()
    net.time += SystemClock().now() - net.now()
    target = SimNode(net, key_of(50), ("127.0.0.1", 9))
    endpoint = node.add_identity(target.key)
    node.hub.receive(knock(net, target, LONG_QUERY), ("127.0.0.1", 7), trio.current_time())
    assert len(node.hub.incoming) == 1
    assert endpoint.heard(0.0) == []
